//! Real packets through the real kernel: is the fate of each what the specification says? On both
//! implementations of iptables. Needs root, iptables, ipset and iproute2.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests, too, fail by panicking and say what they saw"
)]

use netpol_core::{
    Backend, Cluster, Delta, Direction, Established, Family, IpBlock, Labels, Match, Namespace,
    NodeName, Options, OwnNodeEgress, Peer, Phase, Pod, PodId, PodSelection, Policy, PolicyRule,
    PortEntry, Protocol, Scope, Selector, TrafficMatch, Verdict, compile,
};
use netpol_host::{Denial, Host, HostOptions};
use netpol_iptables::{
    Flavor, Guard, Iptables, IptablesOptions, Program, Step, layout, model, text,
};
use netpol_lab::{
    Fate, FloodCount, Lab, Place, Plan, Probe, Refusal, ReversePath, Toward, Traffic, is_routable,
};
use netpol_sim::{Connection, End, reference};
use netpol_testkit::strategies::{clusters, interesting_addresses, interesting_ports};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Each of these with both implementations.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod legacy {
            $(#[test] fn $name() { super::$name(super::Flavor::Legacy); })*
        }
        mod nft {
            $(#[test] fn $name() { super::$name(super::Flavor::Nft); })*
        }
    };
}
on_both! {
    every_packet_meets_the_fate_that_the_specification_says
    forged_sources
    networks_however_they_are_laid_out
    replies_and_errors_pass
    a_pod_and_itself
    the_own_node
    connections_that_are_open_when_policy_tightens
    denial_is_silent_or_told
    denied_packets_are_counted_by_policy
    updates_under_flood
    members_under_flood
}

fn apply(lab: &Lab, iptables: &mut Iptables, cluster: &Cluster, scope: Scope<'_>) {
    let ruleset = compile(cluster, scope).unwrap();
    lab.run(&Place::Node, || iptables.replace(&ruleset).unwrap()).unwrap();
}

fn iptables(flavor: Flavor, options: IptablesOptions) -> Iptables {
    Iptables::new(Host::here(), options.with_flavor(Some(flavor)))
}

fn sim_traffic(traffic: Traffic) -> netpol_sim::Traffic {
    match traffic {
        Traffic::Port(protocol, port) => netpol_sim::Traffic::Port(protocol, port),
        Traffic::Icmpv6(kind) => netpol_sim::Traffic::Icmpv6(kind),
        Traffic::Other(number) => netpol_sim::Traffic::Other(number),
    }
}

/// What the policies of the pods on the node say of a packet.
fn expected(
    lab: &Lab,
    cluster: &Cluster,
    local: &BTreeSet<PodId>,
    probe: &Probe,
    options: &Options,
) -> bool {
    let (source, destination) = (probe.source(), probe.destination());
    let traffic = sim_traffic(probe.traffic());
    let mut connection = Connection::new(End::Address(source), End::Address(destination), traffic);
    let is_node = |address| *lab.place_of(address).unwrap() == Place::Node;
    if is_node(source) || is_node(destination) {
        connection = connection.with_own_node();
    }
    let owners = cluster.address_owners();
    [(Direction::Egress, source), (Direction::Ingress, destination)].into_iter().all(
        |(direction, address)| {
            let here = owners.get(&address).is_some_and(|&pod| local.contains(pod));
            !here || reference::direction_allowed(cluster, &connection, direction, options)
        },
    )
}

/// Packets between all that is in the lab, every kind of traffic; not more than so many.
fn probes(lab: &Lab, cluster: &Cluster, most: usize) -> Vec<Probe> {
    let ports = interesting_ports(cluster);
    let addresses: Vec<IpAddr> =
        lab.places().flat_map(|place| lab.addresses(place)).copied().collect();
    let mut probes = Vec::new();
    for &source in &addresses {
        for &destination in &addresses {
            let (from, to) = (lab.place_of(source).unwrap(), lab.place_of(destination).unwrap());
            let outside = |place: &Place| !matches!(place, Place::Pod(_));
            if source.is_ipv4() != destination.is_ipv4()
                || from == to
                || outside(from) && outside(to)
            {
                continue;
            }
            let mut traffic = vec![Traffic::echo(destination), Traffic::Other(47)];
            if destination.is_ipv6() {
                traffic.extend([133, 135, 137, 138].map(Traffic::Icmpv6));
            }
            for protocol in Protocol::ALL {
                traffic.extend(ports.iter().map(|&port| Traffic::Port(protocol, port)));
            }
            traffic.retain(|traffic| traffic.can_be_sent_to(destination));
            probes.extend(traffic.into_iter().map(|t| Probe::new(source, destination, t)));
        }
    }
    // A step without a divisor in common takes some of everything.
    let step = (probes.len() / most.max(1)).max(1) | 1;
    probes.into_iter().step_by(step).collect()
}

/// A lab for a cluster of the strategies, and the cluster as it is there.
fn build(cluster: &Cluster, node: Option<&NodeName>) -> (Lab, Cluster, BTreeSet<PodId>) {
    let plan = Plan::of(cluster, node);
    let owners = cluster.address_owners();
    let external = Family::ALL.into_iter().flat_map(|family| {
        let mut addresses = interesting_addresses(cluster, family);
        addresses.retain(|address| {
            let of_node = cluster.nodes().any(|node| node.addresses().contains(address));
            is_routable(*address) && !owners.contains_key(address) && !of_node
        });
        let step = addresses.len() / 4 + 1;
        addresses.into_iter().step_by(step)
    });
    let external: Vec<IpAddr> = external.collect();
    let plan = plan.with_external(external);
    let complete = plan.complete(cluster);
    let mut lab = Lab::new(&plan).unwrap_or_else(|error| panic!("{error}: {plan:?}"));
    lab.set_patience(Duration::from_millis(100));
    let local = complete.pods().filter(|pod| pod.is_managed());
    let local = local.filter(|pod| node.is_none() || pod.node() == node);
    let local = local.map(|pod| pod.id().clone()).collect();
    (lab, complete, local)
}

fn compare(
    lab: &mut Lab,
    cluster: &Cluster,
    local: &BTreeSet<PodId>,
    options: &Options,
) -> Result<usize, String> {
    lab.forget_connections().unwrap();
    let probes = probes(lab, cluster, 700);
    let fates = lab.probe(&probes).unwrap();
    let mut compared = 0;
    for (probe, fate) in probes.iter().zip(fates) {
        // Without ports, packets there and back are one flow to conntrack.
        let allowed = expected(lab, cluster, local, probe, options);
        let back = Probe::new(probe.destination(), probe.source(), probe.traffic());
        let one_flow = matches!(probe.traffic(), Traffic::Other(_));
        if !fate.sent || one_flow && expected(lab, cluster, local, &back, options) != allowed {
            continue;
        }
        compared += 1;
        if fate.delivered != allowed {
            return Err(format!("{probe}: {fate:?}, expected {allowed}"));
        }
    }
    Ok(compared)
}

/// Gives this to a program on the node.
fn load(lab: &Lab, program: &str, arguments: &[&str], input: &str) {
    let output = lab.run(&Place::Node, || Host::here().run(program, arguments, input).unwrap());
    let output = output.unwrap();
    assert!(output.success, "{program}: {}\n{input}", output.stderr);
}

/// As somebody would who has no more than the files.
fn load_files(lab: &Lab, model: &model::Model, flavor: Flavor) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("netpol-{}-{number}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
    write("netpol.ipset", text::ipset(model));
    write("netpol.v4.iptables", text::iptables(model, Family::V4));
    write("netpol.v6.iptables", text::iptables(model, Family::V6));
    write("load.sh", text::load_script(model));
    let script = directory.join("load.sh");
    let commands = format!(
        "IPTABLES=iptables-{0} IP6TABLES=ip6tables-{0} sh '{1}'",
        flavor.as_str(),
        script.display()
    );
    load(lab, "sh", &["-c", &commands], "");
    load(lab, "sh", &["-c", &commands], "");
    std::fs::remove_dir_all(directory).unwrap();
}

fn options() -> impl Strategy<Value = IptablesOptions> {
    let policy = netpol_testkit::strategies::options();
    let guard = prop_oneof![Just(Guard::Off), Just(Guard::Prerouting)];
    (policy, guard, any::<bool>()).prop_map(|(policy, guard, reject)| {
        let denial = if reject { Denial::Reject } else { Denial::Drop };
        IptablesOptions::from(HostOptions::default().with_policy(policy).with_denial(denial))
            .with_guard(guard)
    })
}

fn every_packet_meets_the_fate_that_the_specification_says(flavor: Flavor) {
    let config = ProptestConfig {
        cases: 24,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut compared = 0;
    let mut runner = TestRunner::new(config);
    let strategy = (clusters(), options(), any::<bool>(), any::<bool>(), any::<bool>());
    let counter = std::cell::RefCell::new(&mut compared);
    let done = runner.run(&strategy, |(cluster, options, one_node, files, known)| {
        let node = cluster.nodes().next().map(|node| node.name().clone()).filter(|_| one_node);
        let (mut lab, cluster, local) = build(&cluster, node.as_ref());
        let cluster = if known { cluster } else { behind(&cluster, None) };
        let scope = node.as_ref().map_or(Scope::Cluster, Scope::Node);
        let ruleset = compile(&cluster, scope).unwrap();
        let model = layout(&ruleset, &options).model;
        if files {
            load_files(&lab, &model, flavor);
        } else {
            apply(&lab, &mut iptables(flavor, options.clone()), &cluster, scope);
        }
        let some = compare(&mut lab, &cluster, &local, &options.host().policy());
        let some = some.map_err(TestCaseError::fail)?;
        **counter.borrow_mut() += some;
        Ok(())
    });
    println!("{compared} packets compared");
    if let Err(error) = done {
        panic!("{error}");
    }
}

const WEB: Traffic = Traffic::Port(Protocol::Tcp, 80);
const DNS: Traffic = Traffic::Port(Protocol::Udp, 53);

fn pod(name: &str) -> PodId {
    PodId::new("shop", name)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Pods a and b on the node, dual-stack, a with a second address, and one external address of each family.
fn two_pods() -> (Plan, Cluster) {
    let mut cluster = Cluster::new();
    cluster.insert_namespace(Namespace::new("shop", Labels::new()));
    for (name, addresses) in
        [("a", &["10.0.0.1", "10.0.1.1", "fd00::1"][..]), ("b", &["10.0.0.2", "fd00::2"])]
    {
        cluster.insert_pod(
            Pod::new(pod(name), Labels::from_iter([("app", name)]))
                .with_addresses(addresses.iter().map(|a| ip(a)))
                .with_phase(Phase::Running),
        );
    }
    let plan = Plan::of(&cluster, None).with_external([ip("203.0.113.9"), ip("2001:db8::9")]);
    let plan = plan.with_node_addresses([ip("192.168.0.1"), ip("fd00:9::1")]);
    let cluster = plan.complete(&cluster);
    (plan, cluster)
}

fn is(name: &str) -> Selector {
    Selector::match_labels([("app", name)])
}

fn deny_all(subject: &str) -> Policy {
    let name = format!("deny-{subject}");
    Policy::network_policy("shop", name, is(subject), Some(vec![]), Some(vec![]))
}

fn deny_ingress(subject: &str) -> Policy {
    Policy::network_policy("shop", format!("in-{subject}"), is(subject), Some(vec![]), None)
}

fn deny_egress(subject: &str) -> Policy {
    Policy::network_policy("shop", format!("out-{subject}"), is(subject), None, Some(vec![]))
}

fn one(lab: &mut Lab, probe: Probe) -> Fate {
    lab.probe(&[probe]).unwrap().pop().unwrap()
}

const PAIRS: [(&str, &str, &str); 2] =
    [("10.0.0.1", "10.0.0.2", "203.0.113.9"), ("fd00::1", "fd00::2", "2001:db8::9")];

/// L2, F15, F83: forged packets deliver nothing and poison nothing, where the guard is; where it is not, they do.
fn forged_sources(flavor: Flavor) {
    for (guard, guarded) in [(Guard::Off, false), (Guard::Prerouting, true)] {
        let (plan, mut cluster) = two_pods();
        cluster.insert_policy(deny_ingress("b"));
        let mut lab = Lab::new(&plan).unwrap();
        let options = IptablesOptions::default().with_guard(guard);
        apply(&lab, &mut iptables(flavor, options), &cluster, Scope::Cluster);
        for reverse_path in [ReversePath::Off, ReversePath::Loose] {
            lab.set_reverse_path(reverse_path).unwrap();
            for (a, b, world) in PAIRS.map(|(a, b, w)| (ip(a), ip(b), ip(w))) {
                for source in [b, world] {
                    // To somebody who is not isolated.
                    let to = if source == world { a } else { world };
                    if to == a {
                        continue;
                    }
                    let forged = Probe::new(source, to, DNS).sent_by(pod("a"));
                    assert_eq!(one(&mut lab, forged).delivered, !guarded, "{guard:?} {source}");
                }
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    lab.forget_connections().unwrap();
                    let (attacker, server) = (5555, 80);
                    let bait = Probe::new(b, a, Traffic::Port(protocol, attacker))
                        .with_client_port(server)
                        .sent_by(pod("a"));
                    lab.probe(&[bait]).unwrap();
                    let attack = Probe::new(a, b, Traffic::Port(protocol, server));
                    let attack = attack.with_client_port(attacker);
                    let fate = one(&mut lab, attack);
                    if guarded {
                        assert!(!fate.delivered, "{guard:?} {reverse_path:?} {a} {protocol}");
                    } else if protocol == Protocol::Udp {
                        assert!(fate.delivered, "the attack works without a guard: {a} {protocol}");
                    }
                }
                // The pod's own traffic goes on: neighbor discovery works behind the guard.
                assert!(one(&mut lab, Probe::new(a, world, WEB)).answered, "{guard:?} {a}");
            }
        }
        let forged = Probe::new(ip("10.0.1.1"), ip("203.0.113.9"), WEB).sent_by(pod("a"));
        assert!(one(&mut lab, forged).delivered, "a pod's second address is its own");
    }
}

/// Few networks are written out, more are hash sets by prefix length, of many lengths an interval set. The first and the
/// last address of each, and their neighbors, in both directions.
fn networks_however_they_are_laid_out(flavor: Flavor) {
    let lists: [(&str, Vec<String>); 4] = [
        (
            "written out",
            ["203.0.113.64/26", "203.0.113.7/32", "2001:db8:7::/48"].map(str::to_owned).into(),
        ),
        ("everything", vec!["0.0.0.0/0".to_owned(), "2001:db8::/32".to_owned()]),
        ("by length", {
            let v4 = (0..16).map(|n| format!("198.51.{}.{}/28", 100 + n / 8, 32 * (n % 8)));
            let hosts = (0..4).map(|n| format!("203.0.113.{}/32", 3 * n + 5));
            let v6 = (0..12).map(|n| format!("2001:db8:{:x}::/48", 2 * n));
            v4.chain(hosts).chain(v6).chain(["2001:db9::7/128".to_owned()]).collect()
        }),
        ("an interval set", {
            let v4 = (0..8).map(|n| format!("198.51.100.{}/{}", 32 * n, 27 + n % 6));
            let v6 = (0..8).map(|n| format!("2001:db8:{:x}::/{}", 16 * n, 44 + n % 6));
            v4.chain(["203.0.113.9/32".to_owned()])
                .chain(v6)
                .chain(["2001:db9::/33".to_owned()])
                .collect()
        }),
    ];
    for (kind, cidrs) in lists {
        let (plan, mut cluster) = two_pods();
        let mut external = BTreeSet::new();
        let mut peers = Vec::new();
        for cidr in &cidrs {
            let net: ipnet::IpNet = cidr.parse().unwrap();
            let range = netpol_core::AddressSet::from(net);
            let (first, last) = range.ranges().next().unwrap();
            external.extend([first, last]);
            external.extend(neighbors(first).into_iter().chain(neighbors(last)));
            peers.push(Peer::Network(IpBlock { cidr: net, except: vec![] }));
        }
        let rules = vec![TrafficMatch::new(Match::OneOf(peers), Match::Any)];
        let policy =
            Policy::network_policy("shop", "nets", is("b"), Some(rules.clone()), Some(rules));
        cluster.insert_policy(policy);
        external.retain(|address| {
            is_routable(*address) && !cluster.address_owners().contains_key(address)
        });
        let plan = plan.with_external(external.iter().copied());
        let mut lab = Lab::new(&plan).unwrap();
        apply(&lab, &mut iptables(flavor, IptablesOptions::default()), &cluster, Scope::Cluster);
        let local = [pod("a"), pod("b")].into();
        let mut probes = Vec::new();
        for &address in &external {
            let b = ip(if address.is_ipv4() { "10.0.0.2" } else { "fd00::2" });
            probes.extend([Probe::new(address, b, DNS), Probe::new(b, address, DNS)]);
        }
        let fates = lab.probe(&probes).unwrap();
        let mut allowed = 0;
        for (probe, fate) in probes.iter().zip(fates) {
            let expected = expected(&lab, &cluster, &local, probe, &Options::default());
            assert_eq!(fate.delivered, expected, "{kind}: {probe}");
            allowed += usize::from(expected);
        }
        assert!(allowed > 0 && (allowed < probes.len() || kind == "everything"), "{kind}");
    }
}

/// The addresses beside this one.
fn neighbors(address: IpAddr) -> Vec<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            [address.to_bits().saturating_sub(1), address.to_bits().saturating_add(1)]
                .map(|bits| std::net::Ipv4Addr::from_bits(bits).into())
                .into()
        }
        IpAddr::V6(address) => {
            [address.to_bits().saturating_sub(1), address.to_bits().saturating_add(1)]
                .map(|bits| std::net::Ipv6Addr::from_bits(bits).into())
                .into()
        }
    }
}

/// NP-60, NP-53: what belongs to an allowed connection passes a pod that may not open any.
fn replies_and_errors_pass(flavor: Flavor) {
    let (plan, mut cluster) = two_pods();
    cluster.insert_policy(deny_egress("b"));
    cluster.insert_policy(deny_ingress("a"));
    let mut lab = Lab::new(&plan).unwrap();
    apply(&lab, &mut iptables(flavor, IptablesOptions::default()), &cluster, Scope::Cluster);
    for (a, b, world) in PAIRS.map(|(a, b, w)| (ip(a), ip(b), ip(w))) {
        assert!(one(&mut lab, Probe::new(a, b, WEB)).answered, "{a} {b}");
        assert!(!one(&mut lab, Probe::new(b, a, WEB)).delivered);
        // Path MTU discovery: an error about a connection passes, one about none does not.
        let known = Probe::new(a, world, DNS).with_client_port(40_000);
        assert!(one(&mut lab, known.clone()).answered);
        assert!(one(&mut lab, known.too_big_for(world)).delivered, "{a}");
        let unknown = Probe::new(a, world, DNS).with_client_port(40_001).too_big_for(world);
        assert!(!one(&mut lab, unknown).delivered, "{a}");
    }
}

/// The pods, behind devices that nobody knows, or all behind this one.
fn behind(cluster: &Cluster, device: Option<&str>) -> Cluster {
    let mut moved = cluster.clone();
    for pod in cluster.pods() {
        let mut bare = Pod::new(pod.id().clone(), pod.labels().clone())
            .with_addresses(pod.addresses().to_vec())
            .with_ports(pod.ports().to_vec())
            .with_phase(pod.phase())
            .with_host_network(pod.host_network());
        if let Some(node) = pod.node() {
            bare = bare.with_node(node.as_str());
        }
        if let Some(created) = pod.created() {
            bare = bare.with_created(created);
        }
        if let Some(device) = device {
            bare = bare.with_interface(device);
        }
        moved.insert_pod(bare);
    }
    moved
}

/// NP-73, NP-74: a pod reaches itself by way of the node, whatever its policies say, whether its device is known or not.
fn a_pod_and_itself(flavor: Flavor) {
    let (plan, mut cluster) = two_pods();
    cluster.insert_policy(deny_all("a"));
    let deny = || vec![PolicyRule { matches: TrafficMatch::everything(), verdict: Verdict::Deny }];
    cluster.insert_policy(Policy::admin("x", 1, PodSelection::everything(), deny(), deny()));
    let mut lab = Lab::new(&plan).unwrap();
    let options = IptablesOptions::default;
    let unguarded = options().with_guard(Guard::Off);
    let device = lab.interface(&pod("a")).unwrap().to_string();
    for (cluster, options) in [
        (cluster.clone(), options()),
        (cluster.clone(), unguarded.clone()),
        (behind(&cluster, None), options()),
        (behind(&cluster, Some(&device)), unguarded),
    ] {
        apply(&lab, &mut iptables(flavor, options), &cluster, Scope::Cluster);
        for (from, to, allowed) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.1.1", true),
            ("fd00::1", "fd00::1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("fd00::1", "fd00::2", false),
        ] {
            let probe = Probe::new(ip(from), ip(to), DNS).sent_by(pod("a"));
            assert_eq!(one(&mut lab, probe).delivered, allowed, "{from} {to}");
        }
    }
}

/// NP-70, NP-71, CNP-38.
fn the_own_node(flavor: Flavor) {
    let (plan, mut cluster) = two_pods();
    cluster.insert_policy(deny_all("a"));
    let mut lab = Lab::new(&plan).unwrap();
    let mut default = iptables(flavor, IptablesOptions::default());
    let exempt = Options::default().with_own_node_egress(OwnNodeEgress::Allow);
    let mut exempt =
        iptables(flavor, IptablesOptions::from(HostOptions::default().with_policy(exempt)));
    let deny = || vec![PolicyRule { matches: TrafficMatch::everything(), verdict: Verdict::Deny }];
    let admin = Policy::admin("x", 1, PodSelection::everything(), deny(), deny());
    let mut with_admin = cluster.clone();
    with_admin.insert_policy(admin);
    for (node, a) in [("192.168.0.1", "10.0.0.1"), ("fd00:9::1", "fd00::1")] {
        let (node, a) = (ip(node), ip(a));
        let mut fates = |iptables: &mut Iptables, cluster: &Cluster| {
            apply(&lab, iptables, cluster, Scope::Cluster);
            lab.forget_connections().unwrap();
            let probes = [Probe::new(node, a, DNS), Probe::new(a, node, DNS)];
            let fates = lab.probe(&probes).unwrap();
            [fates[0].delivered, fates[1].delivered]
        };
        assert_eq!(fates(&mut default, &cluster), [true, false]);
        assert_eq!(fates(&mut exempt, &cluster), [true, true]);
        assert_eq!(fates(&mut default, &with_admin), [false, false]);
        assert_eq!(fates(&mut exempt, &with_admin), [false, false]);
    }
}

/// NP-62.
fn connections_that_are_open_when_policy_tightens(flavor: Flavor) {
    let patience = Duration::from_millis(500);
    for (established, goes_on) in [(Established::Keep, true), (Established::ReEvaluate, false)] {
        let (plan, mut cluster) = two_pods();
        let lab = Lab::new(&plan).unwrap();
        let policy = Options::default().with_established(established);
        let mut iptables =
            iptables(flavor, IptablesOptions::from(HostOptions::default().with_policy(policy)));
        apply(&lab, &mut iptables, &cluster, Scope::Cluster);
        let mut open = PAIRS
            .map(|(a, b, _)| lab.connect(ip(a), ip(b), 80, patience).unwrap().expect("allowed"));
        // An unrelated change cuts nothing.
        cluster.insert_policy(deny_egress("b"));
        apply(&lab, &mut iptables, &cluster, Scope::Cluster);
        for connection in &mut open {
            assert!(connection.send(Toward::Server, patience).unwrap());
            assert!(connection.send(Toward::Client, patience).unwrap());
        }
        cluster.insert_policy(deny_ingress("b"));
        apply(&lab, &mut iptables, &cluster, Scope::Cluster);
        for connection in &mut open {
            assert_eq!(
                connection.send(Toward::Server, patience).unwrap(),
                goes_on,
                "{established:?}"
            );
        }
        assert!(lab.connect(ip("10.0.0.1"), ip("10.0.0.2"), 80, patience).unwrap().is_none());
    }
}

/// NP-64: who is told, and who is not.
fn denial_is_silent_or_told(flavor: Flavor) {
    let (plan, mut cluster) = two_pods();
    cluster.insert_policy(deny_ingress("b"));
    let mut lab = Lab::new(&plan).unwrap();
    for (denial, tcp, udp) in [
        (Denial::Drop, None, None),
        (Denial::Reject, Some(Refusal::Reset), Some(Refusal::Unreachable)),
    ] {
        let options = IptablesOptions::from(HostOptions::default().with_denial(denial));
        apply(&lab, &mut iptables(flavor, options), &cluster, Scope::Cluster);
        for (a, b, _) in PAIRS {
            assert_eq!(one(&mut lab, Probe::new(ip(a), ip(b), WEB)).refused, tcp, "{a}");
            assert_eq!(one(&mut lab, Probe::new(ip(a), ip(b), DNS)).refused, udp, "{a}");
        }
    }
}

/// Counters name the policy.
fn denied_packets_are_counted_by_policy(flavor: Flavor) {
    let (plan, mut cluster) = two_pods();
    cluster.insert_policy(deny_ingress("b"));
    let mut lab = Lab::new(&plan).unwrap();
    let mut iptables = iptables(flavor, IptablesOptions::default());
    apply(&lab, &mut iptables, &cluster, Scope::Cluster);
    let count = |lab: &Lab| -> u64 {
        let denied = lab.run(&Place::Node, || iptables.denied().unwrap()).unwrap();
        denied["isolated, ingress: NetworkPolicy shop/in-b"].packets
    };
    assert_eq!(count(&lab), 0);
    for _ in 0..3 {
        let client = Probe::new(ip("10.0.0.1"), ip("10.0.0.2"), DNS);
        assert!(!one(&mut lab, client).delivered);
    }
    // The lab sends what did not arrive twice.
    assert!((3..=6).contains(&count(&lab)), "{}", count(&lab));
    let by_address = lab.run(&Place::Node, || iptables.denied_by_address().unwrap()).unwrap();
    assert_eq!(by_address[&(Direction::Ingress, ip("10.0.0.2"))].packets, count(&lab));
    assert_eq!(by_address[&(Direction::Ingress, ip("fd00::2"))].packets, 0);
    assert_eq!(by_address.len(), 2, "only what is policed");
}

/// Two clusters with other rules, sets and networks, in which these flows have the same fate.
fn two_rulesets() -> (Plan, [Cluster; 2], Vec<Probe>, Vec<bool>) {
    let (plan, base) = two_pods();
    let networks = |version: u8| -> Vec<Peer> {
        // Too many lengths for hash sets: an interval set.
        let mut networks: Vec<String> =
            (0..30).map(|n| format!("172.{}.{n}.0/{}", 16 + version, 24 + n % 8)).collect();
        networks.extend((0..30).map(|n| format!("2001:db8:{version}{n}::/{}", 48 + n % 8)));
        networks.extend(["203.0.113.0/28".to_owned(), "2001:db8::/64".to_owned()]);
        let block =
            |cidr: String| Peer::Network(IpBlock { cidr: cidr.parse().unwrap(), except: vec![] });
        networks.into_iter().map(block).collect()
    };
    let cluster = |version: u8| {
        let mut cluster = base.clone();
        // A long walk before the rule that decides.
        let mut rules: Vec<TrafficMatch> = (0..200u16)
            .map(|n| {
                let port = 1000 + 7 * n + u16::from(version);
                let other =
                    Peer::Pods(PodSelection::within("shop", is(&format!("v{version}-{n}"))));
                TrafficMatch::new(Match::OneOf(vec![other]), port_list(port))
            })
            .collect();
        rules.push(TrafficMatch::new(Match::OneOf(networks(version)), port_list(53)));
        let pod = Peer::Pods(PodSelection::within("shop", is("a")));
        rules.push(TrafficMatch::new(Match::OneOf(vec![pod]), port_list(53)));
        let name = format!("v{version}");
        cluster.insert_policy(Policy::network_policy("shop", name, is("b"), Some(rules), None));
        cluster
    };
    let mut probes = Vec::new();
    let mut allowed = Vec::new();
    for (a, b, world) in PAIRS.map(|(a, b, w)| (ip(a), ip(b), ip(w))) {
        for (source, port, passes) in
            [(a, 53, true), (world, 53, true), (a, 54, false), (world, 54, false)]
        {
            probes.push(Probe::new(source, b, Traffic::Port(Protocol::Udp, port)));
            allowed.push(passes);
        }
    }
    (plan, [cluster(1), cluster(2)], probes, allowed)
}

fn port_list(port: u16) -> Match<PortEntry> {
    Match::OneOf(vec![PortEntry::Range { protocol: Protocol::Udp, first: port, last: port }])
}

/// Packets that were lost and that leaked, and all.
fn judge(counts: &[FloodCount], allowed: &[bool]) -> (u64, u64, u64) {
    let mut sums = (0, 0, 0);
    for (count, &allowed) in counts.iter().zip(allowed) {
        if allowed {
            sums.0 += count.sent - count.arrived;
        } else {
            sums.1 += count.arrived;
        }
        sums.2 += count.sent;
    }
    sums
}

/// The programs of a plan, run one after the other as the back end does.
fn run_step(lab: &Lab, step: &Step) {
    match step.program {
        Program::Ipset => load(lab, "ipset", &["restore"], &step.text),
        Program::Restore(flavor, family) => {
            let six = if family == Family::V6 { "6" } else { "" };
            let program = format!("ip{six}tables-{}-restore", flavor.as_str());
            load(lab, &program, &["--noflush", "-w", "5"], &step.text);
        }
    }
}

/// Nothing is lost and nothing leaks while rules change; with a control that leaks, so that the detector is known to work.
fn updates_under_flood(flavor: Flavor) {
    let (plan, clusters, probes, allowed) = two_rulesets();
    let lab = Lab::new(&plan).unwrap();
    let rulesets = clusters.map(|cluster| compile(&cluster, Scope::Cluster).unwrap());
    let mut iptables = iptables(flavor, IptablesOptions::default());
    lab.run(&Place::Node, || iptables.replace(&rulesets[0]).unwrap()).unwrap();

    let flood = lab.flood(&probes).unwrap();
    for round in 0..24 {
        lab.run(&Place::Node, || iptables.replace(&rulesets[(round + 1) % 2]).unwrap()).unwrap();
        assert!(iptables.report().runs() >= 4);
    }
    let (lost, leaked, sent) = judge(&flood.stop().unwrap(), &allowed);
    println!("{flavor}: {lost} lost, {leaked} leaked of {sent}");
    // Killed between two steps, and started again with the other ruleset.
    let flood = lab.flood(&probes).unwrap();
    for round in 0..12 {
        let next = self::iptables(flavor, IptablesOptions::default());
        let killed =
            lab.run(&Place::Node, || next.plan(&rulesets[(round + 1) % 2]).unwrap()).unwrap();
        for step in killed.steps.iter().take(round % 7) {
            run_step(&lab, step);
        }
        let mut next = self::iptables(flavor, IptablesOptions::default());
        lab.run(&Place::Node, || next.replace(&rulesets[round / 3 % 2]).unwrap()).unwrap();
    }
    let killed = judge(&flood.stop().unwrap(), &allowed);
    println!("killed between steps: {} lost, {} leaked of {}", killed.0, killed.1, killed.2);

    let flood = lab.flood(&probes).unwrap();
    for round in 0..4 {
        for family in ["iptables", "ip6tables"] {
            load(&lab, &format!("{family}-{}", flavor.as_str()), &["-F", "FORWARD"], "");
        }
        lab.run(&Place::Node, || iptables.replace(&rulesets[round % 2]).unwrap()).unwrap();
    }
    let (_, leaked_by_two, sent_by_two) = judge(&flood.stop().unwrap(), &allowed);
    println!("flush, then restore: {leaked_by_two} leaked of {sent_by_two}");
    assert!(leaked_by_two > 0, "the detector works");
    assert_eq!((lost, leaked), (0, 0), "of {sent}");
    assert_eq!((killed.0, killed.1), (0, 0), "of {}", killed.2);
}

/// Nothing is lost and nothing leaks while pods join, leave and change sets: member by member, by swap, or with new rules.
fn members_under_flood(flavor: Flavor) {
    let (plan, base) = two_pods();
    let lab = Lab::new(&plan).unwrap();
    let ruleset = |step: &str, others: u8| {
        let mut cluster = base.clone();
        let a = base.pod(&pod("a")).unwrap().clone();
        cluster.insert_pod(a.with_labels(Labels::from_iter([("app", "a"), ("step", step)])));
        for number in 0..others {
            let labels =
                Labels::from_iter([("step", if number % 2 == 0 { "one" } else { "other" })]);
            let other = Pod::new(pod(&format!("o{number}")), labels).with_phase(Phase::Running);
            cluster.insert_pod(other.with_addresses([IpAddr::from([10, 7, 0, number])]));
        }
        let rule = |step| {
            let peer =
                Peer::Pods(PodSelection::within("shop", Selector::match_labels([("step", step)])));
            TrafficMatch::new(Match::OneOf(vec![peer]), port_list(53))
        };
        let rules = vec![rule("one"), rule("two"), rule("other")];
        cluster.insert_policy(Policy::network_policy("shop", "b", is("b"), Some(rules), None));
        compile(&cluster, Scope::Cluster).unwrap()
    };
    let mut before = ruleset("one", 0);
    let mut iptables = iptables(flavor, IptablesOptions::default());
    lab.run(&Place::Node, || iptables.replace(&before).unwrap()).unwrap();
    let (mut probes, mut allowed) = (Vec::new(), Vec::new());
    for (a, b, world) in PAIRS.map(|(a, b, w)| (ip(a), ip(b), ip(w))) {
        for (source, port, passes) in [(a, 53, true), (a, 54, false), (world, 53, false)] {
            probes.push(Probe::new(source, b, Traffic::Port(Protocol::Udp, port)));
            allowed.push(passes);
        }
    }
    let flood = lab.flood(&probes).unwrap();
    let mut ways = [0, 0];
    for round in 0..6 {
        for (step, others) in [("one", 30), ("one", 200), ("two", 200), ("two", 7), ("one", 9)] {
            let after = ruleset(step, others + round);
            let delta = Delta::between(&before, &after);
            lab.run(&Place::Node, || iptables.apply(&delta).unwrap()).unwrap();
            ways[usize::from(iptables.report().runs() > 1)] += 1;
            before = after;
        }
    }
    let (lost, leaked, sent) = judge(&flood.stop().unwrap(), &allowed);
    println!(
        "{flavor}: {lost} lost, {leaked} leaked of {sent}, {ways:?} in sets alone and with rules"
    );
    assert!(ways[0] >= 10 && ways[1] >= 10, "{ways:?}");
    assert_eq!((lost, leaked), (0, 0), "of {sent}");
}
