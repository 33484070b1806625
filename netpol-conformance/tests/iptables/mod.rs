//! iptables with ipset, in both implementations of iptables.

use netpol_conformance::{Abilities, Candidate, Enforcer, Settings};
use netpol_host::Host;
use netpol_iptables::{Flavor, Guard, Iptables, IptablesOptions};
use std::collections::BTreeSet;

/// iptables as a candidate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IptablesWith(pub(crate) Flavor);

impl Candidate for IptablesWith {
    fn name(&self) -> &'static str {
        match self.0 {
            Flavor::Legacy => "iptables-legacy",
            Flavor::Nft => "iptables-nft",
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            guards: true,
            rejects: true,
            logs: true,
            reads_back: true,
            keeps: true,
            atomic: true,
        }
    }

    fn start(&self, settings: &Settings) -> Box<dyn Enforcer> {
        let guard = if settings.unguarded { Guard::Off } else { Guard::Prerouting };
        let options = IptablesOptions::from(settings.host.clone());
        let options = options.with_flavor(Some(self.0)).with_guard(guard);
        Box::new(Iptables::new(Host::here(), options))
    }

    fn add_foreign(&self) {
        let rules = "*filter\n:MINE - [0:0]\n-A FORWARD -j MINE\n-A MINE -s 192.0.2.1/32 -j DROP\nCOMMIT\n\
                     *raw\n-A PREROUTING -s 192.0.2.2/32 -j ACCEPT\nCOMMIT\n";
        for family in ["iptables", "ip6tables"] {
            let rules = match family {
                "iptables" => rules.to_owned(),
                _ => rules.replace("192.0.2.", "2001:db8::").replace("/32", "/128"),
            };
            let flavor = self.0.as_str();
            run(&format!("{family}-{flavor}-restore"), &["--noflush"], &rules);
        }
        run("ipset", &["restore"], "create mine hash:ip\nadd mine 192.0.2.3\ncreate NP hash:net\n");
    }

    /// Rules and chains in their order, sets with their members; not whether a table without a rule is loaded.
    fn snapshot(&self) -> String {
        let mut snapshot = String::new();
        for flavor in Flavor::ALL.map(Flavor::as_str) {
            for family in ["iptables", "ip6tables"] {
                let saved = run(&format!("{family}-{flavor}-save"), &[], "");
                let of_rules = |line: &&str| {
                    line.starts_with("-A ") || line.starts_with(':') && line.contains(" - ")
                };
                for line in saved.lines().filter(of_rules) {
                    let line = line.split(" [").next().unwrap_or(line);
                    snapshot.push_str(&format!("{family}-{flavor} {line}\n"));
                }
            }
        }
        // Members are in the order of their hashes.
        let sets = run("ipset", &["save"], "");
        let sets: BTreeSet<&str> = sets.lines().collect();
        snapshot + &sets.into_iter().collect::<Vec<_>>().join("\n")
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let output = Host::here().run(program, arguments, input).expect("iptables and ipset are there");
    assert!(output.success, "{program}: {}", output.stderr);
    output.stdout
}
