//! Whatever is done at a moment of a plan, every packet has the verdict of the old ruleset or that of the new one.
//!
//! The machine below runs the texts of a plan line by line, as ipset and iptables-restore would, and after each line judges
//! packets by what is there. It knows the grammar of the texts, and nothing of layouts and plans.

use crate::installed::Installed;
use crate::layout::layout;
use crate::options::{Flavor, IptablesOptions};
use crate::plan::{Plan, Program, layout_beside};
use ipnet::IpNet;
use netpol_core::{
    Cluster, Family, Match, Peer, PodSelection, Policy, PolicyRule, Scope, Selector, TrafficMatch,
    Verdict, compile,
};
use netpol_host::HostOptions;
use netpol_testkit::strategies::{
    clusters_with_edits, interesting_addresses, interesting_ports, options as policy_options,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// ipset and iptables, as far as plans use them.
#[derive(Clone, Debug, Default)]
struct Machine {
    sets: BTreeMap<String, BTreeSet<String>>,
    /// By family, table and chain.
    chains: BTreeMap<(Family, String, String), Vec<Vec<String>>>,
}

#[derive(Clone, Debug)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: &'static str,
    port: u16,
    device: String,
}

enum End {
    Accepted,
    Dropped,
    Returned,
}

fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('"').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

impl Machine {
    fn ipset(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["create", name, ..] => {
                let before = self.sets.insert((*name).to_owned(), BTreeSet::new());
                assert!(before.is_none(), "{line}: exists");
            }
            ["add", name, element] => {
                let new = self.sets.get_mut(*name).unwrap().insert((*element).to_owned());
                assert!(new, "{line}: already added");
            }
            ["del", name, element] => {
                assert!(self.sets.get_mut(*name).unwrap().remove(*element), "{line}: not added");
            }
            ["swap", one, other] => {
                let (a, b) = (self.sets[*one].clone(), self.sets[*other].clone());
                self.sets.insert((*one).to_owned(), b);
                self.sets.insert((*other).to_owned(), a);
            }
            ["destroy", name] => {
                let used = self.chains.values().flatten().flatten().any(|word| word == name);
                assert!(!used, "{line}: in use");
                self.sets.remove(*name).unwrap();
            }
            _ => panic!("{line}"),
        }
    }

    fn restore(&mut self, family: Family, table: &str, lines: &[&str]) {
        let key = |chain: &str| (family, table.to_owned(), chain.to_owned());
        for line in lines {
            let words = split(line);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let rule = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            match words.as_slice() {
                [chain, "-", _] => {
                    self.chains.insert(key(chain.strip_prefix(':').unwrap()), Vec::new());
                }
                ["-A", chain, rest @ ..] => {
                    self.chains.get_mut(&key(chain)).unwrap().push(rule(rest));
                }
                ["-I", chain, "1", rest @ ..] => {
                    self.chains.entry(key(chain)).or_default().insert(0, rule(rest));
                }
                ["-D", chain, rest @ ..] => {
                    let rules = self.chains.get_mut(&key(chain)).unwrap();
                    let deleted: Vec<String> = rule(rest);
                    let at = rules.iter().position(|rule| *rule == deleted).unwrap();
                    rules.remove(at);
                }
                ["-F", chain] => self.chains.get_mut(&key(chain)).unwrap().clear(),
                ["-X", chain] => {
                    let rules = self.chains.remove(&key(chain)).unwrap();
                    assert!(rules.is_empty(), "{line}");
                    let of_table =
                        |(f, t, _): &(Family, String, String)| *f == family && t == table;
                    let mut others = self.chains.iter().filter(|(k, _)| of_table(k));
                    assert!(!others.any(|(_, r)| r.iter().flatten().any(|w| w == chain)), "{line}");
                }
                _ => panic!("{line}"),
            }
        }
        // What iptables-restore refuses.
        for (_, rules) in self.chains.iter().filter(|((f, ..), _)| *f == family) {
            for rule in rules {
                let set = rule.iter().position(|word| word == "--match-set");
                assert!(set.is_none_or(|at| self.sets.contains_key(&rule[at + 1])), "{rule:?}");
            }
        }
    }

    /// Is the packet let through, on its way from one device to another?
    fn passes(&self, packet: &Packet) -> bool {
        let hooks = [("raw", "PREROUTING"), ("filter", "FORWARD")];
        hooks.iter().all(|(table, chain)| !matches!(self.walk(packet, table, chain), End::Dropped))
    }

    fn walk(&self, packet: &Packet, table: &str, chain: &str) -> End {
        let family = Family::of(packet.source);
        let rules = self.chains.get(&(family, table.to_owned(), chain.to_owned()));
        for rule in rules.into_iter().flatten() {
            let Some(target) = self.target(packet, rule) else { continue };
            match target {
                ["-j", "ACCEPT"] => return End::Accepted,
                ["-j", "DROP" | "REJECT"] => return End::Dropped,
                ["-j", "RETURN"] => return End::Returned,
                ["-j", "NFLOG"] => {}
                ["-g", chain] => return self.walk(packet, table, chain),
                ["-j", chain] => match self.walk(packet, table, chain) {
                    End::Returned => {}
                    end => return end,
                },
                _ => panic!("{rule:?}"),
            }
        }
        End::Returned
    }

    /// The target, if all conditions hold and there is one.
    fn target<'a>(&self, packet: &Packet, rule: &'a [String]) -> Option<[&'a str; 2]> {
        let mut words = rule.iter().map(String::as_str);
        let mut target = None;
        let mut not = false;
        while let Some(word) = words.next() {
            let mut next = || words.next().unwrap();
            let holds = match word {
                "!" => {
                    not = true;
                    continue;
                }
                "-s" => next().parse::<IpNet>().unwrap().contains(&packet.source),
                "-d" => next().parse::<IpNet>().unwrap().contains(&packet.destination),
                "-i" => match next() {
                    name if name.ends_with('+') => {
                        packet.device.starts_with(name.trim_end_matches('+'))
                    }
                    name => packet.device == name,
                },
                "-p" => next() == packet.protocol,
                "--dport" | "--dports" => next().split(',').any(|range| {
                    let (first, last) = range.split_once(':').unwrap_or((range, range));
                    (first.parse().unwrap()..=last.parse().unwrap()).contains(&packet.port)
                }),
                "--match-set" => {
                    let set = &self.sets[next()];
                    let ends: Vec<&str> = next().split(',').collect();
                    let end = |word: &str| match word {
                        "src" => packet.source,
                        _ => packet.destination,
                    };
                    match ends.as_slice() {
                        [one] => set.iter().any(|element| {
                            let net = element.parse::<IpNet>();
                            net.unwrap_or_else(|_| element.parse::<IpAddr>().unwrap().into())
                                .contains(&end(one))
                        }),
                        [one, "src"] => set.contains(&format!("{},{}", end(one), packet.device)),
                        [one, _] => set.contains(&format!(
                            "{},{}:{}",
                            end(one),
                            packet.protocol,
                            packet.port
                        )),
                        _ => panic!("{rule:?}"),
                    }
                }
                // All packets here open a connection.
                "--ctstate" => {
                    next();
                    false
                }
                "--ctdir" | "--icmpv6-type" => {
                    next();
                    false
                }
                "-m" | "--comment" | "--limit" | "--limit-burst" | "--nflog-prefix"
                | "--nflog-group" | "--reject-with" => {
                    next();
                    continue;
                }
                "-j" => {
                    target = Some(["-j", next()]);
                    continue;
                }
                "-g" => {
                    target = Some(["-g", next()]);
                    continue;
                }
                other => panic!("{other} in {rule:?}"),
            };
            if holds == not {
                return None;
            }
            not = false;
        }
        target
    }

    /// Runs a plan; `look` sees every moment of it.
    fn run(&mut self, plan: &Plan, mut look: impl FnMut(&Self, &str)) {
        for step in &plan.steps {
            match step.program {
                Program::Ipset => {
                    for line in step.text.lines() {
                        self.ipset(line);
                        look(self, line);
                    }
                }
                Program::Restore(_, family) => {
                    let lines: Vec<&str> = step.text.lines().collect();
                    for table in lines.split(|line| *line == "COMMIT").filter(|t| !t.is_empty()) {
                        self.restore(family, table[0].strip_prefix('*').unwrap(), &table[1..]);
                        look(self, table[0]);
                    }
                }
            }
        }
    }
}

fn packets(clusters: [&Cluster; 2], most: usize) -> Vec<Packet> {
    let mut packets = Vec::new();
    for family in Family::ALL {
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        let mut devices: BTreeMap<IpAddr, String> = BTreeMap::new();
        let mut ports = BTreeSet::from([80]);
        for cluster in clusters {
            addresses.extend(interesting_addresses(cluster, family));
            let owned = cluster.address_owners().into_keys();
            addresses.extend(owned.filter(|address| Family::of(*address) == family));
            ports.extend(interesting_ports(cluster));
            for (address, pod) in cluster.address_owners() {
                let device = cluster.pod(pod).and_then(|pod| pod.interface());
                devices.extend(device.map(|device| (address, device.to_string())));
            }
        }
        for &source in &addresses {
            for &destination in &addresses {
                for &port in &ports {
                    for protocol in ["tcp", "udp", "sctp", "gre"] {
                        if protocol == "gre" && Some(&port) != ports.first() {
                            continue;
                        }
                        let device = devices.get(&source).cloned().unwrap_or("up0".to_owned());
                        packets.push(Packet { source, destination, protocol, port, device });
                    }
                }
            }
        }
        // Forged ones.
        for (address, device) in &devices {
            for &source in &addresses {
                let (device, protocol) = (device.clone(), "udp");
                packets.push(Packet { source, destination: *address, protocol, port: 53, device });
            }
        }
    }
    // Between pods everything, of the rest some of everything: a step without a divisor in common.
    let owned: BTreeSet<IpAddr> =
        clusters.iter().flat_map(|cluster| cluster.address_owners().into_keys()).collect();
    let is_pod =
        |packet: &Packet| owned.contains(&packet.source) && owned.contains(&packet.destination);
    let (between, other): (Vec<_>, Vec<_>) = packets.into_iter().partition(is_pod);
    let some = |packets: Vec<Packet>| {
        let step = (packets.len() / most.max(1)).max(1) | 1;
        packets.into_iter().step_by(step)
    };
    some(between).chain(some(other)).collect()
}

/// Goes from the first cluster to the next, and says how often a moment was looked at.
fn follow(
    states: &[Cluster],
    options: &IptablesOptions,
    flavor: Flavor,
) -> Result<usize, TestCaseError> {
    let ruleset = |cluster: &Cluster| compile(cluster, Scope::Cluster).unwrap();
    let fresh = |cluster: &Cluster| {
        let mut machine = Machine::default();
        let layout = layout(&ruleset(cluster), options);
        let plan = Plan::new(&Installed::default(), &layout, flavor).unwrap();
        machine.run(&plan, |_, _| ());
        (machine, Installed::of(&layout.model))
    };
    let (mut machine, mut installed) = fresh(&states[0]);
    let mut looked = 0;
    for pair in states.windows(2) {
        let packets = packets([&pair[0], &pair[1]], 200);
        let old: Vec<bool> = packets.iter().map(|packet| machine.passes(packet)).collect();
        let goal = fresh(&pair[1]).0;
        let new: Vec<bool> = packets.iter().map(|packet| goal.passes(packet)).collect();
        let agreed: Vec<(&Packet, bool)> = packets
            .iter()
            .zip(old.iter().zip(&new))
            .filter(|(_, (old, new))| old == new)
            .map(|(packet, (old, _))| (packet, *old))
            .collect();
        let layout = layout_beside(&ruleset(&pair[1]), options, &installed, &BTreeSet::new());
        let plan = Plan::new(&installed, &layout, flavor).unwrap();
        let mut wrong = None;
        machine.run(&plan, |machine, line| {
            looked += 1;
            let bad = agreed.iter().find(|(packet, verdict)| machine.passes(packet) != *verdict);
            if let (None, Some((packet, verdict))) = (&wrong, bad) {
                wrong = Some(format!("after `{line}`: {packet:?} is not {verdict}"));
            }
        });
        if let Some(wrong) = wrong {
            return Err(TestCaseError::fail(format!("{wrong} in\n{}", plan.script())));
        }
        let reached: Vec<bool> = packets.iter().map(|packet| machine.passes(packet)).collect();
        prop_assert_eq!(&reached, &new);
        installed = Installed::of(&layout.model);
        let again = layout_beside(&ruleset(&pair[1]), options, &installed, &BTreeSet::new());
        prop_assert!(Plan::new(&installed, &again, flavor).unwrap().is_empty());
        // What is believed is what is there.
        let names = |name: &crate::model::SetName| name.as_str().to_owned();
        prop_assert!(machine.sets.keys().cloned().eq(installed.sets.keys().map(names)));
        let elements = |set: &crate::installed::InstalledSet| -> BTreeSet<String> {
            set.elements.iter().map(ToString::to_string).collect()
        };
        prop_assert!(machine.sets.values().cloned().eq(installed.sets.values().map(elements)));
    }
    Ok(looked)
}

fn flavors() -> impl Strategy<Value = Flavor> {
    prop_oneof![Just(Flavor::Legacy), Just(Flavor::Nft)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_moment_of_a_change_is_old_or_new(
        (cluster, edits) in clusters_with_edits(),
        policy in policy_options(),
        at_once in 1usize..4,
        flavor in flavors(),
    ) {
        let options = IptablesOptions::from(HostOptions::default().with_policy(policy));
        let mut states = vec![cluster.clone()];
        let mut cluster = cluster;
        for edits in edits.chunks(at_once) {
            for edit in edits {
                edit.clone().apply(&mut cluster);
            }
            states.push(cluster.clone());
        }
        follow(&states, &options, flavor)?;
    }
}

/// Members move between sets that allow and sets that deny; nothing else changes.
mod members {
    use super::*;
    use netpol_core::{Labels, Namespace, Pod, PodId};

    /// Six pods, two of them policed by rules about labels a, b and c; strict ones are not about a.
    fn cluster(labels: &[(bool, bool, bool)], strict: bool) -> Cluster {
        let mut cluster = Cluster::new();
        cluster.insert_namespace(Namespace::new("n", Labels::new()));
        for (number, (a, b, c)) in labels.iter().enumerate() {
            let own = format!("p{number}");
            let mut labels = vec![("name", own.as_str())];
            labels.extend(
                [("a", *a), ("b", *b), ("c", *c)].iter().filter(|l| l.1).map(|l| (l.0, "")),
            );
            let pod = Pod::new(PodId::new("n", own.as_str()), Labels::from_iter(labels));
            let address = [10, 0, 0, u8::try_from(number).unwrap() + 1];
            cluster.insert_pod(pod.with_addresses([IpAddr::from(address)]));
        }
        let with =
            |label| Peer::Pods(PodSelection::within("n", Selector::match_labels([(label, "")])));
        let peers = |label| TrafficMatch::new(Match::OneOf(vec![with(label)]), Match::Any);
        let rule = |verdict, label| PolicyRule { matches: peers(label), verdict };
        for number in [0, 1] {
            let subject = Selector::match_labels([("name", format!("p{number}").as_str())]);
            let rules =
                || Some(if strict { vec![peers("b")] } else { vec![peers("a"), peers("b")] });
            cluster.insert_policy(Policy::network_policy(
                "n",
                format!("np{number}"),
                subject,
                rules(),
                rules(),
            ));
        }
        let deny = || vec![rule(Verdict::Deny, "c")];
        cluster.insert_policy(Policy::admin("x", 1, PodSelection::everything(), deny(), deny()));
        cluster
    }

    fn labels() -> impl Strategy<Value = Vec<(bool, bool, bool)>> {
        proptest::collection::vec(any::<(bool, bool, bool)>(), 6)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_moment_is_old_or_new(states in proptest::collection::vec((labels(), any::<bool>()), 2..4), flavor in flavors()) {
            let states: Vec<Cluster> = states.iter().map(|(labels, strict)| cluster(labels, *strict)).collect();
            follow(&states, &IptablesOptions::default(), flavor)?;
        }
    }

    /// The shortcuts are taken: a label more is one line, and a move between two members of one set is one swap.
    #[test]
    fn small_changes_are_small() {
        let lines = |from: &[(bool, bool, bool)], to: &[(bool, bool, bool)]| {
            let options = IptablesOptions::default();
            let ruleset = |labels| compile(&cluster(labels, false), Scope::Cluster).unwrap();
            let installed = Installed::of(&layout(&ruleset(from), &options).model);
            let layout = layout_beside(&ruleset(to), &options, &installed, &BTreeSet::new());
            let plan = Plan::new(&installed, &layout, Flavor::Legacy).unwrap();
            let lines = plan
                .script()
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(|line| line.split_whitespace().next().unwrap().to_owned())
                .collect::<Vec<_>>();
            lines.join(" ")
        };
        let (n, a, b, c) = (
            (false, false, false),
            (true, false, false),
            (false, true, false),
            (false, false, true),
        );
        assert_eq!(lines(&[n, n, n, n], &[n, n, n, a]), "add");
        assert_eq!(lines(&[n, n, a, n], &[n, n, n, n]), "del");
        assert_eq!(lines(&[n, n, n, n], &[n, n, n, c]), "add");
        assert_eq!(
            lines(&[n, n, a, c], &[n, n, (true, true, false), n]),
            "add del",
            "both allow more"
        );
        assert_eq!(lines(&[n, n, a, n], &[n, n, n, a]), "create add swap destroy");
        assert!(lines(&[n, n, a, n], &[n, n, b, n]).contains("COMMIT"), "two sets, two directions");
    }
}
