//! Laws that hold whatever the policies are: determinism, scope, deltas, symbolic against single connections, and the
//! metamorphic cases.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use netpol_core::{
    Backend, Cluster, Delta, Direction, Inventory, Match, NodeName, Options, PeerMatch, Policy,
    Protocol, Ruleset, Scope, Tier, TierEnd, TrafficMatch, Verdict, compile,
};
use netpol_sim::{Connection, Connectivity, End, PortSetId, Simulator, Traffic};
use netpol_testkit::strategies::{
    clusters, clusters_with_connections, clusters_with_edits, options, traffic_matches,
};
use proptest::prelude::*;
use proptest::sample::Index;

fn ruleset(cluster: &Cluster) -> Ruleset {
    compile(cluster, Scope::Cluster).unwrap()
}

/// Every id and every pod that is mentioned exists, sets are ordered, and programs end as they must.
fn check_well_formed(ruleset: &Ruleset) {
    for endpoint in ruleset.endpoints().values() {
        for direction in Direction::ALL {
            if let Some(id) = endpoint.program(direction) {
                assert_eq!(ruleset.programs()[&id].direction, direction);
            }
        }
    }
    for program in ruleset.programs().values() {
        assert!(!program.blocks.is_empty());
        assert!(program.blocks.is_sorted_by_key(|block| block.tier));
        let (last, before) = program.blocks.split_last().unwrap();
        assert!(before.iter().all(|block| block.end == TierEnd::NextTier));
        assert_eq!(last.end == TierEnd::Deny, last.tier == Tier::NetworkPolicy);
        assert_ne!(last.end, TierEnd::NextTier);
        for rule in program.blocks.iter().flat_map(|block| &block.rules) {
            if let PeerMatch::OneOf { pods, networks } = &rule.peers {
                assert!(pods.iter().all(|id| ruleset.pod_sets().contains_key(id)));
                assert!(networks.iter().all(|id| ruleset.net_sets().contains_key(id)));
            }
            assert!(rule.ports.named.iter().all(|id| ruleset.named_port_sets().contains_key(id)));
        }
    }
    for set in ruleset.pod_sets().values() {
        assert!(set.members.is_sorted_by(|a, b| a < b));
        assert!(set.members.iter().all(|pod| ruleset.pods().contains_key(pod)));
    }
    for set in ruleset.named_port_sets().values() {
        assert!(set.members.is_sorted_by(|a, b| a < b));
        assert!(set.members.iter().all(|(pod, _)| ruleset.pods().contains_key(pod)));
    }
    assert!(ruleset.endpoints().keys().all(|pod| ruleset.pods().contains_key(pod)));
    let mut owned: Vec<_> = ruleset.pods().values().flatten().collect();
    owned.sort_unstable();
    assert!(owned.is_sorted_by(|a, b| a < b), "an address has one owner");
}

/// The same NetworkPolicy with its rules as `change` makes them, in both directions.
fn with_rules(policy: &Policy, change: impl Fn(Vec<TrafficMatch>) -> Vec<TrafficMatch>) -> Policy {
    let rules = |direction| {
        let rules = policy.rules(direction)?;
        Some(change(rules.iter().map(|rule| rule.matches.clone()).collect()))
    };
    let id = policy.id();
    Policy::network_policy(
        id.namespace.clone().unwrap(),
        id.name.clone(),
        policy.subject().pods.clone(),
        rules(Direction::Ingress),
        rules(Direction::Egress),
    )
}

fn network_policies(cluster: &Cluster) -> Vec<Policy> {
    cluster.policies().filter(|p| p.tier() == Tier::NetworkPolicy).cloned().collect()
}

fn verdicts(cluster: &Cluster, connections: &[Connection]) -> Vec<bool> {
    let simulator = Simulator::new(ruleset(cluster), Options::default());
    connections.iter().map(|connection| simulator.judge(connection).allowed()).collect()
}

fn reversed<T>(list: Match<T>) -> Match<T> {
    match list {
        Match::OneOf(mut entries) => {
            entries.reverse();
            Match::OneOf(entries)
        }
        any => any,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn rulesets_are_well_formed_and_deterministic(cluster in clusters()) {
        let compiled = ruleset(&cluster);
        check_well_formed(&compiled);
        // Whatever the order of arrival: backwards, and with every object arriving twice.
        let mut other = Cluster::new();
        for _ in 0..2 {
            for policy in cluster.policies().collect::<Vec<_>>().into_iter().rev() {
                other.insert_policy(policy.clone());
            }
            for pod in cluster.pods().collect::<Vec<_>>().into_iter().rev() {
                other.insert_pod(pod.clone());
            }
            for namespace in cluster.namespaces() {
                other.insert_namespace(namespace.clone());
            }
            for node in cluster.nodes() {
                other.insert_node(node.clone());
            }
        }
        prop_assert_eq!(format!("{:?}", ruleset(&other)), format!("{compiled:?}"));
    }

    #[test]
    fn a_node_agrees_with_the_cluster((cluster, connections) in clusters_with_connections()) {
        let all = Simulator::new(ruleset(&cluster), Options::default());
        for node in cluster.nodes() {
            let rules = compile(&cluster, Scope::Node(node.name())).unwrap();
            check_well_formed(&rules);
            let local = |pod: &netpol_core::PodId| {
                cluster.pod(pod).and_then(|pod| pod.node()) == Some(node.name())
            };
            prop_assert!(rules.endpoints().keys().all(local));
            for (pod, endpoint) in rules.endpoints() {
                prop_assert_eq!(Some(endpoint), all.ruleset().unwrap().endpoints().get(pod));
            }
            let here = Simulator::new(rules, Options::default());
            for connection in &connections {
                let (one, whole) = (here.judge(connection), all.judge(connection));
                for direction in Direction::ALL {
                    let end = match direction {
                        Direction::Ingress => connection.destination(),
                        Direction::Egress => connection.source(),
                    };
                    let owners = cluster.address_owners();
                    let pod = match end {
                        End::Pod(pod) => Some(pod),
                        End::Address(address) => owners.get(&address.to_canonical()).copied(),
                    };
                    if pod.is_some_and(local)
                        && let (Some(one), Some(whole)) = (one.side(direction), whole.side(direction))
                    {
                        prop_assert_eq!(one.allowed(), whole.allowed(), "{} {}", connection, direction);
                    }
                }
            }
        }
        let nowhere = compile(&cluster, Scope::Node(&NodeName::from("nowhere"))).unwrap();
        prop_assert_eq!(nowhere, Ruleset::default());
    }

    #[test]
    fn deltas_lead_from_one_ruleset_to_the_next((cluster, edits) in clusters_with_edits()) {
        let mut state = cluster;
        let mut before = ruleset(&state);
        let mut simulator = Simulator::new(before.clone(), Options::default());
        for edit in edits {
            edit.apply(&mut state);
            let after = ruleset(&state);
            let delta = Delta::between(&before, &after);
            prop_assert_eq!(delta.is_empty(), before == after);
            let mut changed = before.clone();
            changed.apply(&delta);
            prop_assert_eq!(&changed, &after);
            Backend::apply(&mut simulator, &delta).unwrap();
            prop_assert_eq!(simulator.installed().unwrap(), Some(Inventory::of(&after)));
            before = after;
        }
        // A simulator that followed the deltas judges as one that never knew anything else.
        let fresh = Simulator::new(before, Options::default());
        for pod in state.pods() {
            for &address in pod.addresses() {
                for other in state.pods() {
                    let connection = Connection::new(
                        End::Address(address),
                        other.addresses().iter().find(|a| a.is_ipv4() == address.is_ipv4())
                            .map_or_else(|| End::Pod(other.id().clone()), |&a| End::Address(a)),
                        Traffic::Port(Protocol::Tcp, 80),
                    );
                    prop_assert_eq!(simulator.judge(&connection), fresh.judge(&connection));
                }
            }
        }
    }

    #[test]
    fn all_connections_at_once_are_each_by_itself(
        (cluster, connections) in clusters_with_connections(),
        options in options(),
    ) {
        let rules = ruleset(&cluster);
        let pods: Vec<_> = rules.endpoints().keys().cloned().collect();
        let groups: Vec<_> = pods.iter().map(|pod| vec![pod.clone()]).collect();
        let mut connectivity = Connectivity::new(&rules, options, &groups);
        let simulator = Simulator::new(rules.clone(), options);
        let owner = |end: &End| match end {
            End::Pod(pod) => pods.iter().position(|p| p == pod),
            End::Address(a) => pods.iter().position(|p| rules.addresses(p).contains(&a.to_canonical())),
        };
        for connection in connections.iter().filter(|c| !c.own_node()) {
            if connection.traffic().is_neighbor_discovery() {
                continue;
            }
            let (source, destination) = (connection.source(), connection.destination());
            // What a pod does by one of its addresses is part of what it does by any.
            let ports: PortSetId = match (owner(source), owner(destination)) {
                (Some(from), Some(to)) if from != to => connectivity.row(from).groups[to],
                (Some(from), None) => match destination {
                    End::Address(address) => range(&connectivity.row(from).to_external, *address),
                    End::Pod(_) => continue,
                },
                (None, Some(to)) => match source {
                    End::Address(address) => range(&connectivity.row(to).from_external, *address),
                    End::Pod(_) => continue,
                },
                _ => continue,
            };
            let set = connectivity.ports(ports);
            let listed = match connection.traffic() {
                Traffic::Port(protocol, port) => set.contains(protocol, port),
                Traffic::Icmpv6(_) | Traffic::Other(_) => set.other(),
            };
            let single = |end: &End, pod: Option<usize>| match end {
                End::Address(_) => pod.is_none_or(|pod| rules.addresses(&pods[pod]).len() == 1),
                End::Pod(pod) => rules.addresses(pod).is_empty(),
            };
            let judged = simulator.judge(connection).allowed();
            if single(source, owner(source)) && single(destination, owner(destination)) {
                prop_assert_eq!(listed, judged, "{}", connection);
            } else if judged && matches!((source, destination), (End::Address(_), End::Address(_))) {
                prop_assert!(listed, "{}", connection);
            }
        }
    }

    #[test]
    fn x61_order_and_repetition_mean_nothing((cluster, connections) in clusters_with_connections()) {
        let expected = verdicts(&cluster, &connections);
        let mut changed = cluster.clone();
        for policy in network_policies(&cluster) {
            changed.insert_policy(with_rules(&policy, |mut rules| {
                rules.reverse();
                rules.extend(rules.first().cloned());
                for rule in &mut rules {
                    rule.peers = reversed(rule.peers.clone());
                    rule.ports = reversed(rule.ports.clone());
                }
                rules
            }));
        }
        prop_assert_eq!(verdicts(&changed, &connections), expected);
    }

    #[test]
    fn x61_a_policy_may_be_split_by_rule((cluster, connections) in clusters_with_connections()) {
        let expected = verdicts(&cluster, &connections);
        let mut split = cluster.clone();
        for policy in network_policies(&cluster) {
            let most = Direction::ALL.map(|d| policy.rules(d).map_or(0, <[_]>::len)).into_iter().max();
            split.insert_policy(with_rules(&policy, |_| Vec::new()));
            for part in 0..most.unwrap_or(0) {
                let one = with_rules(&policy, |rules| rules.get(part).cloned().into_iter().collect());
                let name = format!("{}-part-{part}", policy.id().name);
                let rules = |direction| {
                    one.rules(direction).map(|r| r.iter().map(|r| r.matches.clone()).collect())
                };
                split.insert_policy(Policy::network_policy(
                    policy.id().namespace.clone().unwrap(),
                    name,
                    policy.subject().pods.clone(),
                    rules(Direction::Ingress),
                    rules(Direction::Egress),
                ));
            }
        }
        prop_assert_eq!(verdicts(&split, &connections), expected);
    }

    #[test]
    fn x62_a_rule_more_never_takes_away(
        (cluster, connections) in clusters_with_connections(),
        which: Index,
        rule in traffic_matches(),
    ) {
        let policies = network_policies(&cluster);
        prop_assume!(!policies.is_empty());
        let policy = which.get(&policies);
        let before = verdicts(&cluster, &connections);
        let mut more = cluster.clone();
        more.insert_policy(with_rules(policy, |rules| {
            rules.into_iter().chain([rule.clone()]).collect()
        }));
        for ((before, after), connection) in
            before.into_iter().zip(verdicts(&more, &connections)).zip(&connections)
        {
            prop_assert!(after || !before, "{}", connection);
        }
        // For pods that are isolated already, so does a policy more.
        let mut twin = cluster.clone();
        let rules = |d| policy.rules(d).map(|_| vec![rule.clone()]);
        twin.insert_policy(Policy::network_policy(
            policy.id().namespace.clone().unwrap(),
            "one-more",
            policy.subject().pods.clone(),
            rules(Direction::Ingress),
            rules(Direction::Egress),
        ));
        let before = verdicts(&cluster, &connections);
        for ((before, after), connection) in
            before.into_iter().zip(verdicts(&twin, &connections)).zip(&connections)
        {
            prop_assert!(after || !before, "{}", connection);
        }
    }

    #[test]
    fn a_tier_without_policies_changes_nothing((cluster, connections) in clusters_with_connections()) {
        let expected = verdicts(&cluster, &connections);
        let mut inert = cluster.clone();
        for (name, priority) in [("inert-a", -5), ("inert-b", 5)] {
            let everything = netpol_core::PodSelection::everything;
            inert.insert_policy(Policy::admin(name, priority, everything(), vec![], vec![]));
        }
        let nobody = netpol_core::PodSelection::within("no-such-namespace", netpol_core::Selector::everything());
        let deny = netpol_core::PolicyRule { matches: TrafficMatch::everything(), verdict: Verdict::Deny };
        inert.insert_policy(Policy::baseline("nobody", 0, nobody, vec![deny.clone()], vec![deny]));
        prop_assert_eq!(verdicts(&inert, &connections), expected);
    }
}

fn range(ranges: &[netpol_sim::ExternalRange], address: std::net::IpAddr) -> PortSetId {
    let found = ranges.iter().find(|range| range.first <= address && address <= range.last);
    found.map_or(PortSetId::EMPTY, |range| range.ports)
}
