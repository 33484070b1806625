//! Rules of both back ends are changed in the kernel. Where the proof then fails, the packet of the report is sent for real: it
//! does what the report says of the kernel, which is not what the policies say. Needs root, nft, iptables, ipset and ip.
//!
//! `NETPOL_COUNTEREXAMPLES=50` tries more changes of each kind than 2.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]

#[path = "support/iptables_mutants.rs"]
mod iptables_mutants;
#[path = "support/nft_mutants.rs"]
mod nft_mutants;
#[path = "support/sender.rs"]
mod sender;

use netpol_core::{Backend as _, Cluster, Options, Policy, Protocol, Scope, TrafficMatch, compile};
use netpol_host::Host;
use netpol_iptables::{Flavor, Iptables, IptablesOptions};
use netpol_lab::{Lab, Place, Plan};
use netpol_nft::{Guard, NftOptions, Nftables};
use netpol_testkit::samples::{block, is, one_of, pods, port, shop};
use netpol_verify::machine::{Fate, Machine};
use netpol_verify::{Conclusion, Dump, Kernel, ProofOptions, Report, Specification, prove};
use sender::{Judges, send};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// A command and its input.
type Load = (Vec<String>, String);

/// A changed ruleset: what kind of change, the change, what loads it.
struct Mutant {
    kind: String,
    what: String,
    loads: Vec<Load>,
}

impl Mutant {
    /// `kind: what`
    fn new(what: &str, loads: Vec<Load>) -> Self {
        let kind = what.split(':').next().unwrap_or_default().to_owned();
        Self { kind, what: what.to_owned(), loads }
    }
}

fn load(words: &str, input: impl Into<String>) -> Load {
    (words.split(' ').map(str::to_owned).collect(), input.into())
}

/// Runs in the network namespace of this thread. Did it succeed?
fn run((words, input): &Load) -> bool {
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A tool that refuses what it reads may stop reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait().unwrap().success()
}

fn output(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What keeps connection tracking going when there are no other rules. It drops nothing.
const KEEPER: &str = "table inet keeper {
  chain k {
    type filter hook prerouting priority 0; policy accept;
    ct state new counter
  }
}
";

/// Takes out every rule but the keeper's.
fn open() {
    let empty = "*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n\
                 :OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n\
                 *raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n\
                 *filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";
    assert!(run(&load("nft -f -", format!("flush ruleset\n{KEEPER}"))));
    for family in ["iptables", "ip6tables"] {
        assert!(run(&load(&format!("{family}-legacy-restore"), empty)));
    }
    run(&load("ipset destroy", ""));
}

/// Pods with ingress and egress, among themselves and with the world.
fn cluster() -> Cluster {
    let mut cluster = shop();
    let only = |peers, ports| TrafficMatch::new(peers, ports);
    let db = vec![
        only(
            one_of([pods("api")]),
            one_of([port(Protocol::Tcp, 5432), port(Protocol::Udp, 53), port(Protocol::Sctp, 90)]),
        ),
        only(
            one_of([block("203.0.113.0/24", &["203.0.113.64/26"]), block("2001:db8::/32", &[])]),
            one_of([port(Protocol::Tcp, 443)]),
        ),
    ];
    let web = vec![
        only(one_of([pods("api")]), netpol_core::Match::Any),
        only(
            one_of([block("198.51.100.0/24", &[]), block("2001:db8:1::/48", &[])]),
            one_of([port(Protocol::Tcp, 80), port(Protocol::Udp, 53)]),
        ),
    ];
    for policy in [
        Policy::network_policy("shop", "db", is("db"), Some(db), Some(vec![])),
        Policy::network_policy("shop", "web", is("web"), None, Some(web)),
    ] {
        cluster.insert_policy(policy);
    }
    cluster
}

struct Field {
    lab: Lab,
    cluster: Cluster,
}

impl Field {
    fn new() -> Self {
        let cluster = cluster();
        let address = |text: &str| text.parse().unwrap();
        let external = ["203.0.113.9", "203.0.113.70", "198.51.100.7", "2001:db8::9"].map(address);
        let plan = Plan::of(&cluster, None).with_external(external);
        let plan = plan.with_node_addresses(["192.168.0.1", "fd00:9::1"].map(address));
        let cluster = plan.complete(&cluster);
        Self { lab: Lab::new(&plan).unwrap(), cluster }
    }

    fn on_node<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        self.lab.run(&Place::Node, task).unwrap()
    }

    fn report(&self, machine: &Machine) -> Report {
        let specification = Specification::new(&self.cluster, None, Options::default());
        let options = ProofOptions::default().with_own_table("netpol").with_own_chains("NP");
        prove(machine, &specification, &options)
    }

    /// Of each mutant that the kernel takes: is it proved, or does a packet of the report show that it should not be?
    fn check(&mut self, base: &Mutant, mutants: Vec<Mutant>) -> Tally {
        let most = std::env::var_os("NETPOL_COUNTEREXAMPLES");
        let most = most.and_then(|count| count.to_str()?.parse().ok()).unwrap_or(2);
        let mut by_kind: BTreeMap<String, Vec<Mutant>> = BTreeMap::new();
        for mutant in mutants {
            by_kind.entry(mutant.kind.clone()).or_default().push(mutant);
        }
        let mut tally = Tally::default();
        self.try_one(base, &mut tally);
        assert_eq!((tally.proved, tally.refuted), (1, 0), "the rules themselves are proved");
        for (_, mutants) in by_kind {
            let step = (mutants.len() / most).max(1);
            for mutant in mutants.iter().step_by(step).take(most) {
                self.try_one(mutant, &mut tally);
            }
        }
        tally
    }

    fn try_one(&mut self, mutant: &Mutant, tally: &mut Tally) {
        let closed = || {
            open();
            mutant.loads.iter().all(run)
        };
        if !self.on_node(closed) {
            tally.refused_by_the_kernel += 1;
            return;
        }
        let machine = self.on_node(|| Kernel::new().machine()).unwrap();
        let all = match self.report(&machine).conclusion {
            Conclusion::Proved => {
                tally.proved += 1;
                return;
            }
            Conclusion::NotProved { .. } => {
                tally.not_proved += 1;
                return;
            }
            Conclusion::Refuted(all) => all,
        };
        tally.refuted += 1;
        let cluster = self.cluster.clone();
        let specification = Specification::new(&cluster, None, Options::default());
        let judges = Judges { machine: &machine, specification: &specification };
        let mut shown = 0;
        let mut reasons = Vec::new();
        for refutation in &all {
            let closed = || assert!(closed(), "it was loaded before");
            match send(&mut self.lab, &judges, refutation, &open, &closed) {
                Ok(arrived) => {
                    let kernel = refutation.kernel == Fate::Accepted;
                    assert_eq!(arrived, kernel, "{}\n{refutation}", mutant.what);
                    assert_ne!(arrived, refutation.allowed, "{}\n{refutation}", mutant.what);
                    shown += 1;
                    if refutation.packet.state != netpol_verify::machine::ConnState::New {
                        tally.of_open_connections += 1;
                    }
                }
                Err(why) => {
                    *tally.cannot_be_sent.entry(why).or_default() += 1;
                    reasons.push(format!("{}: {why}", refutation.packet));
                }
            }
            // Some of each mutant; the others are much the same.
            if shown == 3 {
                break;
            }
        }
        tally.sent += shown;
        if shown > 0 {
            *tally.kinds.entry(mutant.kind.clone()).or_default() += 1;
        } else {
            tally.unseen.push(format!("{}\n    {}", mutant.what, reasons.join("\n    ")));
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    refused_by_the_kernel: usize,
    proved: usize,
    not_proved: usize,
    refuted: usize,
    /// Packets that showed the difference, and those among them of connections that were open.
    sent: usize,
    of_open_connections: usize,
    /// Counterexamples of which no real packet can be made, by the reason.
    cannot_be_sent: BTreeMap<&'static str, usize>,
    /// Mutants of each kind for which a packet showed the difference.
    kinds: BTreeMap<String, usize>,
    /// Mutants for which no counterexample can be sent.
    unseen: Vec<String>,
}

impl Tally {
    #[track_caller]
    fn is_enough(&self, name: &str) {
        println!("{name}: {self:#?}");
        println!("{name}: without a packet:\n  {}", self.unseen.join("\n  "));
        assert!(self.kinds.len() >= 8, "few kinds");
        assert!(self.of_open_connections > 0, "no open connection");
        assert!(self.unseen.len() * 5 <= self.refuted, "too many without a packet");
    }
}

/// Rules of others beside those of nft.
const FOREIGN: [(&str, &str); 5] = [
    (
        "a foreign drop",
        "table inet foreign { chain f { type filter hook forward priority -10; policy accept; ip daddr 10.0.0.3 tcp dport 5432 drop\n }\n }",
    ),
    (
        "a foreign drop",
        "table ip6 foreign { chain f { type filter hook prerouting priority 10; policy accept; udp dport 53 drop\n }\n }",
    ),
    (
        "a foreign policy",
        "table inet foreign { chain f { type filter hook postrouting priority 10; policy drop; ct state established accept\n }\n }",
    ),
    (
        "a foreign accept",
        "table inet foreign { chain f { type filter hook forward priority -10; policy accept; accept\n }\n }",
    ),
    ("an unused chain", "table inet foreign { chain f { drop\n }\n }"),
];

#[test]
fn what_is_changed_in_nft_shows() {
    let mut field = Field::new();
    let ruleset = compile(&field.cluster, Scope::Cluster).unwrap();
    let listing = field.on_node(|| {
        let options = NftOptions::default().with_guard(Guard::Prerouting);
        Nftables::new(Host::here(), options).replace(&ruleset).unwrap();
        output("nft -j list ruleset")
    });
    let listing: Value = serde_json::from_str(&listing).unwrap();
    let loads = |listing: &Value| {
        let objects = listing["nftables"].as_array().unwrap().iter();
        let objects = objects.filter(|object| object.get("metainfo").is_none());
        let mut objects: Vec<&Value> = objects.collect();
        // Chains before the elements that lead there.
        let kinds = ["table", "chain"];
        objects.sort_by_key(|object| {
            kinds.iter().position(|kind| object.get(kind).is_some()).unwrap_or(2)
        });
        let objects = objects.into_iter();
        let commands: Vec<Value> = objects.map(|object| json!({ "add": object })).collect();
        load("nft -j -f -", json!({ "nftables": commands }).to_string())
    };
    let all = nft_mutants::mutants(&listing, &mut |_| true).into_iter();
    let mut mutants: Vec<Mutant> =
        all.map(|(what, mutant)| Mutant::new(&what, vec![loads(&mutant)])).collect();
    mutants.extend(FOREIGN.map(|(kind, rules)| {
        let more = load("nft -f -", rules);
        Mutant::new(&format!("{kind}: {rules}"), vec![loads(&listing), more])
    }));
    let base = Mutant::new("nothing", vec![loads(&listing)]);
    field.check(&base, mutants).is_enough("nft");
}

fn iptables(flavor: Flavor) {
    let mut field = Field::new();
    let ruleset = compile(&field.cluster, Scope::Cluster).unwrap();
    let name = flavor.as_str();
    let dumps = field.on_node(|| {
        let options = IptablesOptions::default().with_flavor(Some(flavor));
        Iptables::new(Host::here(), options).replace(&ruleset).unwrap();
        let commands =
            ["ipset".to_owned(), format!("iptables-{name}"), format!("ip6tables-{name}")];
        commands.map(|tool| {
            let command =
                if tool == "ipset" { "ipset save".to_owned() } else { format!("{tool}-save") };
            Dump { name: tool, text: output(&command) }
        })
    });
    let loads = |dumps: &[Dump]| -> Vec<Load> {
        let command = |dump: &Dump| match dump.name.as_str() {
            "ipset" => "ipset restore".to_owned(),
            tool => format!("{tool}-restore"),
        };
        dumps.iter().map(|dump| load(&command(dump), dump.text.clone())).collect()
    };
    let all = iptables_mutants::mutants(&dumps, &mut |_| true).into_iter();
    let mut mutants: Vec<Mutant> =
        all.map(|(what, mutant)| Mutant::new(&what, loads(&mutant))).collect();
    for (kind, rule) in [
        ("a foreign drop", "-I FORWARD -d 10.0.0.3 -p tcp --dport 5432 -j DROP"),
        ("a foreign drop", "-A FORWARD -p udp --dport 53 -j REJECT"),
        (
            "a foreign drop",
            "-t mangle -A POSTROUTING -s 10.0.0.2 -m conntrack --ctstate ESTABLISHED -j DROP",
        ),
        ("a foreign accept", "-I FORWARD -p udp -j ACCEPT"),
        ("a foreign accept", "-I FORWARD -s 10.0.0.0/30 -j ACCEPT"),
        ("a foreign accept", "-A FORWARD -j ACCEPT"),
        ("a foreign policy", "-P FORWARD DROP"),
        ("an unused chain", "-N UNUSED"),
    ] {
        let mut loads = loads(&dumps);
        loads.push(load(&format!("iptables-{name} {rule}"), ""));
        mutants.push(Mutant::new(&format!("{kind}: {rule}"), loads));
    }
    let base = Mutant::new("nothing", loads(&dumps));
    field.check(&base, mutants).is_enough(&format!("iptables-{name}"));
}

#[test]
fn what_is_changed_in_iptables_legacy_shows() {
    iptables(Flavor::Legacy);
}

#[test]
fn what_is_changed_in_iptables_nft_shows() {
    iptables(Flavor::Nft);
}
