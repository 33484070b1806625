//! Rules of others beside netpol's: what such a host has that cannot change a verdict leaves it proved, and what can is found.
//! Needs root, iptables, ipset and ip where the kernel is asked.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use netpol_core::{Backend as _, Cluster, Options, Policy, Scope, compile};
use netpol_host::{Host, HostOptions};
use netpol_iptables::{Flavor, Iptables, IptablesOptions};
use netpol_testkit::rendered::iptables_dumps;
use netpol_testkit::samples::{is, shop};
use netpol_verify::{
    Conclusion, Dump, ProofOptions, Report, Specification, bdd, prove, read_dumps,
};
use std::collections::BTreeMap;
use support::Netns;

/// What Docker (before 28), kube-proxy and kubelet have on a node: after netpol's jump in FORWARD.
const V4: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-BBBBBBBBBBBBBBBB - [0:0]
:KUBE-SVC-CCCCCCCCCCCCCCCC - [0:0]
:KUBE-NODEPORTS - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment \"default/kubernetes:https cluster IP\" -m tcp --dport 443 -j KUBE-SVC-CCCCCCCCCCCCCCCC
-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-CCCCCCCCCCCCCCCC ! -s 10.244.0.0/16 -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-MARK-MASQ
-A KUBE-SVC-CCCCCCCCCCCCCCCC -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SVC-CCCCCCCCCCCCCCCC -j KUBE-SEP-BBBBBBBBBBBBBBBB
-A KUBE-SEP-AAAAAAAAAAAAAAAA -s 192.168.9.1/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m tcp -j DNAT --to-destination 192.168.9.1:6443
-A KUBE-SEP-BBBBBBBBBBBBBBBB -p tcp -m recent --set --name SEP --mask 255.255.255.255 --rsource -m tcp -j DNAT --to-destination 192.168.9.2:6443
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-IPTABLES-HINT - [0:0]
-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A INPUT -p tcp -m tcp --dport 22 -m recent --update --seconds 60 --hitcount 5 --name SSH --mask 255.255.255.255 --rsource -j DROP
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A OUTPUT -j KUBE-FIREWALL
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -i lo -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name  ct_state_invalid_dropped_pkts -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

fn cluster() -> Cluster {
    let mut cluster = shop();
    cluster.insert_policy(Policy::network_policy(
        "shop",
        "closed",
        is("db"),
        Some(vec![]),
        Some(vec![]),
    ));
    cluster
}

fn report(dumps: &[Dump], cluster: &Cluster) -> Report {
    let machine = read_dumps(dumps).unwrap();
    support::report(&machine, cluster, None, Options::default(), &BTreeMap::new())
}

/// The tables of a dump with those of another, whose rules come after, or before.
fn beside(dump: &str, other: &str, first: bool) -> String {
    let mut text = dump.lines().take(1).map(|line| format!("{line}\n")).collect::<String>();
    let section = |text: &str, table: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| *line != format!("*{table}"));
        lines.skip(1).take_while(|line| *line != "COMMIT").map(str::to_owned).collect()
    };
    for table in ["raw", "mangle", "nat", "filter"] {
        let (own, foreign) = (section(dump, table), section(other, table));
        let (before, after) = if first { (&foreign, &own) } else { (&own, &foreign) };
        let all: Vec<&String> = before.iter().chain(after).collect();
        if all.is_empty() {
            continue;
        }
        text.push_str(&format!("*{table}\n"));
        let mut chains: Vec<&str> = Vec::new();
        for line in all.iter().filter(|line| line.starts_with(':')) {
            let name = line.split(' ').next().unwrap();
            // The other's policy, if it has one.
            let policy = foreign.iter().find(|line| line.split(' ').next() == Some(name));
            if !chains.contains(&name) {
                chains.push(name);
                text.push_str(policy.map_or(line.as_str(), String::as_str));
                text.push('\n');
            }
        }
        for line in all.iter().filter(|line| !line.starts_with(':')) {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// The dumps of netpol's rules with those of another in IPv4.
fn with(other: &str, first: bool) -> Vec<Dump> {
    let cluster = cluster();
    let mut dumps = iptables_dumps(&cluster, None, &IptablesOptions::default(), Flavor::Legacy);
    for dump in dumps.iter_mut().filter(|dump| dump.name == "iptables") {
        dump.text = beside(&dump.text, other, first);
    }
    dumps
}

#[track_caller]
fn proved(dumps: &[Dump]) {
    let report = report(dumps, &cluster());
    assert!(report.is_proved(), "{:#?}", report.conclusion);
}

#[track_caller]
fn refuted(dumps: &[Dump], cause: &str) {
    match report(dumps, &cluster()).conclusion {
        Conclusion::Refuted(all) => {
            let causes: Vec<&str> = all.iter().map(|one| one.cause.as_str()).collect();
            assert!(causes.iter().any(|c| c.contains(cause)), "{causes:#?}");
        }
        other => panic!("{other:#?}"),
    }
}

#[test]
fn a_usual_node_is_proved() {
    proved(&with(V4, false));
    proved(&with("", false));
}

/// Where a packet goes that is let pass anyway tells no addresses apart.
#[test]
fn services_cost_a_proof_nothing() {
    let services = |count: u8| {
        let mut text = "*nat\n:PREROUTING ACCEPT [0:0]\n:SERVICES - [0:0]\n".to_owned();
        (0..count).for_each(|at| text.push_str(&format!(":SVC-{at} - [0:0]\n")));
        text.push_str("-A PREROUTING -j SERVICES\n");
        for at in 0..count {
            text.push_str(&format!(
                "-A SERVICES -d 10.96.0.{at}/32 -p tcp -m tcp --dport 443 -j SVC-{at}\n\
                 -A SVC-{at} -m statistic --mode random --probability 0.5 -j DNAT --to-destination 192.168.9.{at}:6443\n\
                 -A SVC-{at} -j DNAT --to-destination 192.168.8.{at}:6443\n"
            ));
        }
        text + "COMMIT\n"
    };
    let cluster = cluster();
    let [one, many] = [1, 100].map(|count| report(&with(&services(count), false), &cluster));
    assert!(one.is_proved() && many.is_proved(), "{:#?}", many.conclusion);
    assert_eq!(one.statistics.address_classes, many.statistics.address_classes);
    // One that drops is told apart, wherever it stands.
    let closed = services(100)
        .replace("-A SVC-77 -j DNAT --to-destination 192.168.8.77:6443", "-A SVC-77 -j DROP");
    match report(&with(&closed, false), &cluster).conclusion {
        Conclusion::Refuted(all) => {
            assert!(
                all.iter().all(|one| one.packet.destination_address().to_string() == "10.96.0.77")
            );
        }
        other => panic!("{other:#?}"),
    }
}

/// Whatever the node's own firewall drops of the node's own traffic is not our business; what it opens is.
#[test]
fn the_firewall_of_the_node_may_close_and_not_open() {
    let input = |rule: &str, policy: &str| {
        format!(
            "*filter\n:INPUT {policy} [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT {policy} [0:0]\n{rule}COMMIT\n"
        )
    };
    let police = |dumps: &[Dump]| {
        // Egress to the own node is policed only by option.
        let options = Options::default().with_own_node_egress(netpol_core::OwnNodeEgress::Police);
        let cluster = cluster();
        let machine = read_dumps(dumps).unwrap();
        support::report(&machine, &cluster, None, options, &BTreeMap::new())
    };
    let with = |other: &str, first: bool| {
        let cluster = cluster();
        let policy = Options::default().with_own_node_egress(netpol_core::OwnNodeEgress::Police);
        let host = HostOptions::default().with_policy(policy);
        let mut dumps = iptables_dumps(&cluster, None, &host.into(), Flavor::Nft);
        for dump in dumps.iter_mut().filter(|dump| dump.name == "iptables-nft") {
            dump.text = beside(&dump.text, other, first);
        }
        dumps
    };
    for (rule, policy, first, expected) in [
        ("", "DROP", false, true),
        ("-A INPUT -p tcp -m tcp --dport 22 -j DROP\n", "DROP", true, true),
        ("-A INPUT -s 10.0.0.0/8 -j ACCEPT\n", "ACCEPT", false, true),
        ("-A INPUT -j NFQUEUE --queue-num 1\n", "ACCEPT", false, true),
        // Before our jump.
        ("-A INPUT -j ACCEPT\n", "DROP", true, false),
        ("-A INPUT -s 10.0.0.3/32 -p udp -j ACCEPT\n", "ACCEPT", true, false),
        // What belongs to a connection, or is nobody's of ours, may be accepted first.
        ("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n", "DROP", true, true),
        ("-A INPUT -i lo -j ACCEPT\n-A INPUT -s 192.168.0.0/16 -j ACCEPT\n", "DROP", true, true),
    ] {
        let report = police(&with(&input(rule, policy), first));
        assert_eq!(report.is_proved(), expected, "{rule}: {:#?}", report.conclusion);
        assert_eq!(report.is_refuted(), !expected, "{rule}: {:#?}", report.conclusion);
    }
    // Nobody knows which packets these are.
    for rule in
        ["-A INPUT -m addrtype --src-type LOCAL -j ACCEPT\n", "-A INPUT -j NFQUEUE --queue-num 1\n"]
    {
        let report = police(&with(&input(rule, "ACCEPT"), true));
        assert!(
            matches!(report.conclusion, Conclusion::NotProved { .. }),
            "{:#?}",
            report.conclusion
        );
    }
}

#[test]
fn what_others_do_on_the_way_counts() {
    let forward = |rule: &str, policy: &str| {
        format!(
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD {policy} [0:0]\n:OUTPUT ACCEPT [0:0]\n{rule}COMMIT\n"
        )
    };
    refuted(&with(&forward("", "DROP"), false), "FORWARD policy is not netpol's");
    refuted(
        &with(&forward("-A FORWARD -p udp -j DROP\n", "ACCEPT"), false),
        "is not netpol's, and drops it",
    );
    refuted(&with(&forward("-A FORWARD -j ACCEPT\n", "ACCEPT"), true), "should not be there");
    refuted(
        &with(
            "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A PREROUTING -j ACCEPT\nCOMMIT\n",
            true,
        ),
        "source guard",
    );
    proved(&with(
        &forward("-A FORWARD -p udp -m comment --comment \"-j DROP\" -j ACCEPT\n", "ACCEPT"),
        false,
    ));
    proved(&with(&forward("-A FORWARD -m mark --mark 0x7 -j DROP\n", "ACCEPT"), false));
    let unknown = report(
        &with(
            &forward(
                "-A FORWARD -m string --string \"x\" --algo bm --to 65535 -j DROP\n",
                "ACCEPT",
            ),
            false,
        ),
        &cluster(),
    );
    match unknown.conclusion {
        Conclusion::NotProved { not_understood, .. } => {
            let all: Vec<String> = not_understood.iter().map(ToString::to_string).collect();
            assert!(
                all[0].starts_with("iptables line ") && all[0].contains("-m string"),
                "{all:?}"
            );
        }
        other => panic!("{other:#?}"),
    }
}

/// Then netpol's own rules must do what policies say, and nobody must let pass what these deny.
#[test]
fn others_may_drop_more_if_one_says_so() {
    let forward = |rule: &str, policy: &str| {
        format!(
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD {policy} [0:0]\n:OUTPUT ACCEPT [0:0]\n{rule}COMMIT\n"
        )
    };
    let reject = "-A FORWARD -d 10.96.5.5/32 -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable\n";
    let unknown = "-A FORWARD -m string --string x --algo bm --to 65535 -j DROP\n";
    for (rule, policy, first, expected) in [
        (reject, "DROP", true, "proved"),
        (reject, "DROP", false, "proved"),
        (unknown, "ACCEPT", true, "proved"),
        ("-A FORWARD -p udp -j ACCEPT\n", "DROP", false, "proved"),
        ("-A FORWARD -p udp -j ACCEPT\n", "DROP", true, "refuted"),
        ("-A FORWARD -j NFQUEUE --queue-num 1\n", "DROP", true, "not proved"),
    ] {
        let machine = read_dumps(&with(&forward(rule, policy), first)).unwrap();
        let cluster = cluster();
        let specification = Specification::new(&cluster, None, Options::default());
        let options = ProofOptions::default().with_own_chains("NP").with_others_dropping();
        let one = prove(&machine, &specification, &options).conclusion;
        let two = bdd::prove(&machine, &specification, &options).conclusion;
        assert_eq!([one.as_str(), two.as_str()], [expected; 2], "{rule}: {one:#?}");
    }
}

/// As the kernel lists both: each flavor, with others' rules in the other flavor and in nft.
#[test]
fn all_tables_of_a_host_are_read() {
    let cluster = cluster();
    for flavor in Flavor::ALL {
        let namespace = Netns::new();
        let options = IptablesOptions::default().with_flavor(Some(flavor));
        let ruleset = compile(&cluster, Scope::Cluster).unwrap();
        Iptables::new(Host::in_namespace(namespace.name()), options).replace(&ruleset).unwrap();
        let other = flavor.other();
        let load = |command: &str, text: &str| namespace.ok(&[command, "--noflush"], text);
        let command = format!("iptables-{flavor}-restore", flavor = other.as_str());
        let report = || {
            let machine = namespace.machine();
            support::report(&machine, &cluster, None, Options::default(), &BTreeMap::new())
        };
        assert!(report().is_proved(), "{flavor}: {:#?}", report().conclusion);
        // kube-proxy in the other flavor; without what this kernel may not have.
        let lines = V4.lines().filter(|line| {
            !["recent", "nfacct", "statistic", "addrtype", "TCPMSS"]
                .iter()
                .any(|word| line.contains(word))
        });
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        load(&command, &text);
        assert!(report().is_proved(), "{flavor}: {:#?}", report().conclusion);
        namespace.ok(&["nft", "add table inet other; add chain inet other c { type filter hook forward priority 5; policy accept; }"], "");
        assert!(report().is_proved(), "{flavor}: {:#?}", report().conclusion);
        // A drop in any of them.
        namespace.ok(&["nft", "add rule inet other c udp dport 53 drop"], "");
        assert!(report().is_refuted());
        namespace.ok(&["nft", "flush chain inet other c"], "");
        let tool = format!("ip6tables-{}", other.as_str());
        namespace.ok(&[&tool, "-A", "FORWARD", "-p", "udp", "-j", "DROP"], "");
        assert!(report().is_refuted());
        namespace.ok(&[&tool, "-F", "FORWARD"], "");
        assert!(report().is_proved(), "{flavor}: {:#?}", report().conclusion);
        // A base chain of nft in a table of iptables-nft, which `iptables-nft-save` does not list.
        namespace.ok(
            &[
                "nft",
                "add chain ip filter own { type filter hook forward priority 7; policy drop; }",
            ],
            "",
        );
        assert!(report().is_refuted(), "{flavor}: {:#?}", report().conclusion);
    }
}

/// Listings that do not belong together are not understood.
#[test]
fn listings_of_different_times_are_told() {
    let namespace = Netns::new();
    namespace.ok(
        &[
            "iptables-nft",
            "-A",
            "FORWARD",
            "-p",
            "tcp",
            "-m",
            "multiport",
            "--dports",
            "80,81",
            "-j",
            "ACCEPT",
        ],
        "",
    );
    let before = namespace.kernel().dumps().unwrap();
    assert!(read_dumps(&before).unwrap().not_understood.is_empty());
    namespace.ok(&["iptables-nft", "-A", "FORWARD", "-j", "DROP"], "");
    let after = namespace.kernel().dumps().unwrap();
    let save = |dumps: &[Dump]| dumps.iter().find(|d| d.name.contains("save")).unwrap().clone();
    let mixed: Vec<Dump> =
        after.iter().filter(|d| !d.name.contains("save")).cloned().chain([save(&before)]).collect();
    let machine = read_dumps(&mixed).unwrap();
    assert!(machine.not_understood[0].to_string().contains("take both at the same time"));
    // Alone, nft cannot say what a rule of iptables looks at.
    let alone: Vec<Dump> = mixed.iter().filter(|d| !d.name.contains("save")).cloned().collect();
    let machine = read_dumps(&alone).unwrap();
    let chains = machine.chains.iter().enumerate();
    let mut rules = chains.flat_map(|(at, chain)| chain.rules.iter().map(move |rule| (at, rule)));
    assert!(rules.any(|(at, rule)| machine.rule_text(at, rule).contains("multiport")));
    // In any order.
    let mut turned = after.clone();
    turned.reverse();
    assert!(read_dumps(&turned).unwrap().not_understood.is_empty());
}
