//! Real packets through a real kernel. Needs root and `ip`, `nft` and `setpriv`.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests, too, fail by panicking"
)]

use netpol_core::{PodId, Protocol};
use netpol_lab::{Fate, Lab, Place, Plan, Probe, Refusal, ReversePath, Toward, Traffic, command};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const WEB: Traffic = Traffic::Port(Protocol::Tcp, 80);
const DNS: Traffic = Traffic::Port(Protocol::Udp, 53);

fn pod(name: &str) -> PodId {
    PodId::new("test", name)
}

fn place(name: &str) -> Place {
    Place::Pod(pod(name))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two pods on the node, one elsewhere, and the world.
fn plan() -> Plan {
    Plan::new()
        .with_pod(pod("a"), [address("10.0.0.1"), address("fd00::1")])
        .with_pod(pod("b"), [address("10.0.0.2"), address("fd00::2")])
        .with_remote_pod(pod("r"), [address("10.1.0.1"), address("fd00:1::1")])
        .with_external([address("203.0.113.9"), address("203.0.113.10"), address("2001:db8::9")])
}

fn build(plan: &Plan) -> Lab {
    match Lab::new(plan) {
        Ok(lab) => lab,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            panic!("these tests need a real network: {error}{}", cause.unwrap_or_default())
        }
    }
}

/// Loads rules on the node, in place of all others: a chain for each of these hooks.
fn load(lab: &Lab, chains: &[(&str, &str)]) {
    let mut script = "flush ruleset\ntable inet t {\n".to_owned();
    for (hook, rules) in chains {
        let priority = if *hook == "prerouting" { "raw" } else { "filter" };
        let hook = format!("type filter hook {hook} priority {priority}");
        script += &format!("chain {} {{\n{hook};\n{rules}\n}}\n", hook.replace(' ', "-"));
    }
    script += "}\n";
    let status = lab
        .run(&Place::Node, || {
            let mut nft = command("nft");
            let nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn();
            let mut nft = nft.expect("these tests need nftables: install the package nftables");
            nft.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            nft.wait().unwrap()
        })
        .unwrap();
    assert!(status.success(), "these tests need nftables, and a kernel that has it: {script}");
}

/// The packet of every protocol.
fn all_traffic(address: IpAddr) -> Vec<Traffic> {
    let ports = [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Sctp, 7777)];
    let ports = ports.into_iter().map(|(protocol, port)| Traffic::Port(protocol, port));
    ports.chain([Traffic::echo(address)]).collect()
}

/// Everybody to everybody of the same family, with every protocol, but not to himself.
fn all_probes(lab: &Lab) -> Vec<Probe> {
    let everybody: Vec<(&Place, IpAddr)> = lab
        .places()
        .flat_map(|place| lab.addresses(place).iter().map(move |&address| (place, address)))
        .collect();
    let mut probes = Vec::new();
    for &(from, source) in &everybody {
        for &(to, destination) in &everybody {
            if from != to && source.is_ipv4() == destination.is_ipv4() {
                let probe = |traffic| Probe::new(source, destination, traffic);
                probes.extend(all_traffic(source).into_iter().map(probe));
            }
        }
    }
    probes
}

/// How often each fate befell.
fn verdict(fate: Fate) -> &'static str {
    match fate {
        Fate { sent: false, .. } => "not sent",
        Fate { delivered: true, answered: true, refused: None, .. } => "answered",
        Fate { delivered: true, answered: false, refused: None, .. } => "delivered",
        Fate { delivered: false, answered: false, refused: None, .. } => "dropped",
        Fate { delivered: false, answered: false, refused: Some(Refusal::Reset), .. } => "reset",
        Fate { delivered: false, answered: false, refused: Some(Refusal::Unreachable), .. } => {
            "unreachable"
        }
        _ => "impossible",
    }
}

#[track_caller]
fn check(lab: &mut Lab, expected: impl Fn(&Probe) -> &'static str) {
    let probes = all_probes(lab);
    assert!(probes.len() > 100);
    let fates = lab.probe(&probes).unwrap();
    let wrong: Vec<String> = probes
        .iter()
        .zip(fates)
        .filter(|&(probe, fate)| verdict(fate) != expected(probe))
        .map(|(probe, fate)| format!("{probe}: {} not {}", verdict(fate), expected(probe)))
        .collect();
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), probes.len(), wrong.join("\n"));
}

#[track_caller]
fn one(lab: &mut Lab, probe: Probe) -> &'static str {
    verdict(lab.probe(&[probe]).unwrap()[0])
}

fn is(addresses: [&str; 2], wanted: IpAddr) -> bool {
    addresses.contains(&wanted.to_string().as_str())
}

const A: [&str; 2] = ["10.0.0.1", "fd00::1"];
const B: [&str; 2] = ["10.0.0.2", "fd00::2"];

#[test]
fn without_rules_everything_arrives_and_is_answered() {
    check(&mut build(&plan()), |_| "answered");
}

#[test]
fn what_rules_drop_and_only_that_is_lost() {
    let mut lab = build(&plan());
    load(
        &lab,
        &[(
            "forward",
            "ct state established accept
            ip daddr 10.0.0.2 drop; ip6 daddr fd00::2 meta l4proto != icmpv6 drop
            ip6 daddr fd00::2 icmpv6 type echo-request drop",
        )],
    );
    let node = lab.addresses(&Place::Node).to_vec();
    check(&mut lab, |probe| match is(B, probe.destination()) && !node.contains(&probe.source()) {
        true => "dropped",
        false => "answered",
    });
    load(&lab, &[]);
    check(&mut lab, |_| "answered");
}

#[test]
fn the_node_itself_is_policed_by_its_own_hooks() {
    let mut lab = build(&plan());
    load(
        &lab,
        &[
            (
                "input",
                "ct state established accept
                ip saddr 10.0.0.1 drop; ip6 saddr fd00::1 meta l4proto { tcp, udp, sctp } drop
                ip6 saddr fd00::1 icmpv6 type echo-request drop",
            ),
            (
                "output",
                "ct state established accept
                ip daddr 10.0.0.2 drop; ip6 daddr fd00::2 meta l4proto { tcp, udp, sctp } drop
                ip6 daddr fd00::2 icmpv6 type echo-request drop",
            ),
        ],
    );
    let node = lab.addresses(&Place::Node).to_vec();
    check(&mut lab, |probe| {
        let into = is(A, probe.source()) && node.contains(&probe.destination());
        let out_of = is(B, probe.destination()) && node.contains(&probe.source());
        if into || out_of { "dropped" } else { "answered" }
    });
}

#[test]
fn refusals_and_lost_answers_are_told_from_losses() {
    let mut lab = build(&plan());
    load(
        &lab,
        &[(
            "forward",
            "ip daddr 10.0.0.2 meta l4proto tcp reject with tcp reset; ip daddr 10.0.0.2 reject
            ip6 daddr fd00::2 meta l4proto tcp reject with tcp reset
            ip6 daddr fd00::2 reject",
        )],
    );
    let node = lab.addresses(&Place::Node).to_vec();
    check(&mut lab, |probe| {
        let ends = [probe.source(), probe.destination()];
        if ends.iter().any(|end| node.contains(end)) {
            "answered"
        } else if is(B, probe.destination()) {
            if probe.traffic() == WEB { "reset" } else { "unreachable" }
        } else if is(B, probe.source()) {
            // Its answers, too, are refused.
            "delivered"
        } else {
            "answered"
        }
    });
}

#[test]
fn other_protocols_and_message_types() {
    let mut lab = build(&plan());
    let mut probes = Vec::new();
    let node = lab.addresses(&Place::Node).to_vec();
    let numbers = [0, 1, 2, 4, 41, 47, 50, 58, 254, 255];
    for [a, b] in [[A[0], B[0]], [A[1], B[1]], [A[0], "203.0.113.9"], [A[1], "fd00:1::1"]] {
        let (a, b) = (address(a), address(b));
        let own = *node.iter().find(|own| own.is_ipv4() == a.is_ipv4()).unwrap();
        for &number in &numbers {
            let traffic = Traffic::Other(number);
            let ends = [(a, b), (a, own), (own, a)];
            let ends =
                ends.into_iter().filter(|&(from, to)| number != 0 || (from != own && to != own));
            let probe = ends.map(|(from, to)| Probe::new(from, to, traffic));
            probes.extend(probe.filter(|_| traffic.can_be_sent_to(b)));
        }
    }
    for (probe, fate) in probes.iter().zip(lab.probe(&probes).unwrap()) {
        assert_eq!(verdict(fate), "answered", "{probe}");
    }
    for kind in [2, 129, 132, 133, 135, 137, 138] {
        let probe = Probe::new(address(A[1]), address(B[1]), Traffic::Icmpv6(kind));
        assert_eq!(one(&mut lab, probe), "delivered", "ICMPv6 {kind}");
    }
}

/// L2 and F15 of the fault catalogue: a packet with somebody else's address.
#[test]
fn forged_packets() {
    let mut lab = build(&plan());
    for [a, b] in [[A[0], B[0]], [A[1], B[1]]] {
        for traffic in [WEB, DNS] {
            let forged = Probe::new(address(b), address(a), traffic).sent_by(pod("r"));
            let fate = lab.probe(&[forged]).unwrap()[0];
            assert!(fate.sent && fate.delivered, "{a} {traffic}");
            let own = Probe::new(address(b), address(a), traffic).sent_by(pod("a"));
            let fate = lab.probe(std::slice::from_ref(&own)).unwrap()[0];
            assert!(fate.sent && fate.delivered, "to himself, through the node: {a} {traffic}");
        }
    }
    lab.set_reverse_path(ReversePath::Strict).unwrap();
    let forged = Probe::new(address(B[0]), address(A[0]), WEB).sent_by(pod("a"));
    assert_eq!(one(&mut lab, forged), "dropped");
}

/// L2: without a source guard, a forged packet makes conntrack take an attack for an answer.
#[test]
fn a_poisoned_connection_table() {
    let deny = "ct state established accept; ip daddr 10.0.0.2 drop
        ip6 daddr fd00::2 tcp dport 80 drop; ip6 daddr fd00::2 udp dport 53 drop";
    let mut lab = build(&plan());
    let interface = lab.interface(&pod("a")).unwrap().clone();
    let guard = format!(
        "iifname {interface} ip saddr != 10.0.0.1 drop
        iifname {interface} ip6 saddr != {{ fd00::1, fe80::/10, :: }} drop"
    );
    // The attacker sees to it that his own kernel does not answer his bait.
    for family in ["-4", "-6"] {
        let silence = || {
            let rule = "rule add pref 2 iif lo ipproto tcp sport 4444 dport 80 blackhole";
            command("ip").arg(family).args(rule.split(' ')).status().unwrap().success()
        };
        assert!(lab.run(&place("a"), silence).unwrap());
    }
    for (guard, expected) in [("", "answered"), (guard.as_str(), "dropped")] {
        load(&lab, &[("prerouting", guard), ("forward", deny)]);
        for ([attacker, victim], (traffic, protocol, server)) in
            [[A[0], B[0]], [A[1], B[1]]].into_iter().flat_map(|pair| {
                [(WEB, Protocol::Tcp, 80), (DNS, Protocol::Udp, 53)].map(|kind| (pair, kind))
            })
        {
            lab.forget_connections().unwrap();
            let (attacker, victim) = (address(attacker), address(victim));
            let attack = || Probe::new(attacker, victim, traffic).with_client_port(4444);
            assert_eq!(one(&mut lab, attack()), "dropped", "nothing prepared");
            lab.forget_connections().unwrap();
            let bait = Probe::new(victim, attacker, Traffic::Port(protocol, 4444))
                .with_client_port(server)
                .sent_by(pod("a"));
            lab.probe(&[bait]).unwrap();
            assert_eq!(one(&mut lab, attack()), expected, "{attacker} {traffic} {guard}");
        }
    }
}

#[test]
fn connections_outlive_rules_as_the_rules_say() {
    let lab = build(&plan());
    let patience = Duration::from_millis(600);
    let deny = |lab: &Lab, first: &str| {
        let rest = "ip daddr 10.0.0.2 drop; ip6 daddr fd00::2 tcp dport 80 drop";
        load(lab, &[("forward", &format!("{first}\n{rest}"))]);
    };
    for [a, b] in [[A[0], B[0]], [A[1], B[1]]] {
        let open = |lab: &Lab| lab.connect(address(a), address(b), 80, patience).unwrap();
        load(&lab, &[("forward", "ct state new accept")]);
        let mut connection = open(&lab).expect("nothing is denied");
        assert!(connection.send(Toward::Server, patience).unwrap());
        deny(&lab, "ct state established accept");
        assert!(open(&lab).is_none(), "a new one is denied");
        assert!(connection.send(Toward::Server, patience).unwrap(), "an old one goes on");
        assert!(connection.send(Toward::Client, patience).unwrap());
        deny(&lab, "ct state established ct direction reply accept");
        assert!(!connection.send(Toward::Server, patience).unwrap(), "until it is judged again");
        load(&lab, &[]);
        assert!(
            connection.send(Toward::Server, 5 * patience).unwrap(),
            "what was lost comes later"
        );
    }
}

/// F29: an ICMP error passes if it is about a connection that exists, whoever reports it.
#[test]
fn related_errors() {
    let mut lab = build(&plan());
    load(
        &lab,
        &[(
            "forward",
            "ct state established,related accept
            ip daddr 10.0.0.1 drop; ip6 daddr fd00::1 meta l4proto { tcp, udp } drop
            ip6 daddr fd00::1 icmpv6 type packet-too-big drop",
        )],
    );
    for ([a, b], reporter) in
        [([A[0], "10.1.0.1"], "203.0.113.9"), ([A[1], "fd00:1::1"], "2001:db8::9")]
    {
        let probe = || Probe::new(address(a), address(b), DNS).with_client_port(61_000);
        let error = || probe().too_big_for(address(reporter));
        assert_eq!(one(&mut lab, error()), "dropped", "about nothing");
        assert_eq!(one(&mut lab, probe()), "answered");
        assert_eq!(one(&mut lab, error()), "delivered");
        lab.forget_connections().unwrap();
        assert_eq!(one(&mut lab, error()), "dropped", "about what is forgotten");
    }
}

#[test]
fn mistakes_are_told_from_denials() {
    let mut lab = build(&plan());
    let message = |lab: &mut Lab, probe| lab.probe(&[probe]).unwrap_err().to_string();
    let stranger = Probe::new(address(A[0]), address("192.0.2.1"), WEB);
    assert_eq!(message(&mut lab, stranger), "nobody in the lab has the address `192.0.2.1`");
    let mixed = Probe::new(address(A[0]), address(B[1]), WEB);
    assert!(message(&mut lab, mixed).ends_with("10.0.0.1 -> fd00::2 80/TCP"));
    let nobody = Probe::new(address(A[0]), address(B[0]), WEB).sent_by(pod("nobody"));
    assert_eq!(message(&mut lab, nobody), "pod `test/nobody` is not in the lab");
    assert_eq!(one(&mut lab, Probe::new(address(A[0]), address(B[0]), WEB)), "answered");
}

/// How long it takes is printed, never asserted.
#[test]
fn thirty_pods_in_seconds() {
    let started = Instant::now();
    let pods = (0..30).map(|number| pod(&format!("p{number}")));
    let plan = pods.fold(Plan::new(), |plan, pod| plan.with_pod(pod, []));
    let mut lab = build(&plan);
    let built = started.elapsed();
    let probes: Vec<Probe> = all_probes(&lab);
    for (kind, rules) in [("no", ""), ("stateful", "ct state established accept")] {
        load(&lab, &[("forward", rules)][..usize::from(!rules.is_empty())]);
        let started = Instant::now();
        let fates = lab.probe(&probes).unwrap();
        println!("{} probes, {kind} rules: {:?}", fates.len(), started.elapsed());
        let right = fates.iter().filter(|&&fate| verdict(fate) == "answered").count();
        assert_eq!(right, probes.len());
    }
    load(&lab, &[("forward", "drop")]);
    let started = Instant::now();
    let fates = lab.probe(&probes).unwrap();
    println!("{} probes, all denied: {:?}; built in {built:?}", fates.len(), started.elapsed());
    let node = lab.addresses(&Place::Node).to_vec();
    for (probe, fate) in probes.iter().zip(fates) {
        let own_node = [probe.source(), probe.destination()].iter().any(|end| node.contains(end));
        assert_eq!(verdict(fate), if own_node { "answered" } else { "dropped" }, "{probe}");
    }
    let started = Instant::now();
    drop(lab);
    println!("dropped in {:?}", started.elapsed());
}

#[test]
fn places_are_networks_of_their_own() {
    let lab = build(&plan());
    let seen = |place: &Place| {
        let show = || command("ip").args(["-br", "addr"]).output().unwrap().stdout;
        String::from_utf8(lab.run(place, show).unwrap()).unwrap()
    };
    let inside = seen(&place("a"));
    assert!(inside.contains("10.0.0.1/32") && inside.contains("fd00::1/128"), "{inside}");
    let interface = lab.interface(&pod("a")).unwrap().as_str();
    assert!(seen(&Place::Node).contains(interface));
    assert!(lab.interface(&pod("r")).is_none(), "not on this node");
    assert!(lab.run(&place("nobody"), || ()).is_err());
}

/// The lab that the next test kills. Run by itself, it just ends.
#[test]
#[ignore = "a helper of the tests below, which run it"]
fn held_until_standard_input_ends() {
    let lab = match Lab::new(&plan()) {
        Ok(lab) => lab,
        Err(error) => return println!("error: {error}"),
    };
    for place in lab.places() {
        println!("namespace: {}", lab.namespace(place).unwrap().display());
    }
    // A process in a pod, as `netpol lab --shell` starts one.
    let (stop, stopped) = mpsc::channel::<()>();
    let sleeper = move || {
        let mut sleeper = command("sleep").arg("3600").spawn().unwrap();
        println!("ready");
        assert!(stopped.recv().is_err(), "dropped");
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| lab.run(&place("a"), sleeper).unwrap());
        std::io::stdin().read_line(&mut String::new()).unwrap();
        drop(stop);
    });
}

/// This test program, about to run the helper.
fn helper(command: &mut Command) -> &mut Command {
    let name = "held_until_standard_input_ends";
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null())
}

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// Nobody can list namespaces that no process is in. But a veth device lives exactly as long as the namespace of its peer:
/// so this test puts a peer into each namespace of the lab, and sees all its own ends vanish.
#[test]
fn nothing_is_left_after_kill_minus_nine() {
    let mut child = helper(&mut Command::new(this_program())).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut namespaces = BTreeSet::new();
    for line in lines.by_ref().take_while(|line| line != "ready") {
        assert!(!line.contains("error: "), "{line}");
        namespaces.extend(line.split_once("namespace: ").map(|(_, name)| name.to_owned()));
    }
    assert_eq!(namespaces.len(), 5, "the node, the world, three pods");
    let witness = build(&Plan::new());
    let ip = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let run = || Command::new("ip").args(arguments).output().unwrap();
        witness.run(&Place::Node, run).unwrap()
    };
    for (number, path) in namespaces.iter().enumerate() {
        let add = format!("link add alive{number} type veth peer name spy netns {path}");
        let added = ip(&add);
        assert!(added.status.success(), "{add}: {}", String::from_utf8_lossy(&added.stderr));
    }
    let alive = || String::from_utf8(ip("-o link").stdout).unwrap().matches("alive").count();
    assert_eq!(alive(), 5);
    let inodes: BTreeSet<PathBuf> =
        namespaces.iter().map(|path| std::fs::read_link(path).unwrap()).collect();
    let inside = || {
        std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|process| {
            let namespace = std::fs::read_link(process.path().join("ns/net"));
            namespace.is_ok_and(|link| inodes.contains(&link))
        })
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait_until = |what: &str, done: &dyn Fn() -> bool| {
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait_until("a process is in a pod", &inside);
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    wait_until("a process outlived the lab", &|| !inside());
    wait_until("a namespace outlived the lab", &|| alive() == 0);
}

#[test]
fn dropping_a_lab_takes_everything_away() {
    let lab = build(&plan());
    let witness = build(&Plan::new());
    let path = lab.namespace(&Place::Node).unwrap().display().to_string();
    let ip = |arguments: &[&str]| {
        let run = || Command::new("ip").args(arguments).output().unwrap();
        witness.run(&Place::Node, run).unwrap()
    };
    let add = ["link", "add", "alive", "type", "veth", "peer", "name", "spy", "netns", &path];
    assert!(ip(&add).status.success());
    drop(lab);
    let deadline = Instant::now() + Duration::from_secs(60);
    while ip(&["link", "show", "alive"]).status.success() {
        assert!(Instant::now() < deadline, "the node's namespace outlived the lab");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn without_permission_it_says_what_is_missing() {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--bounding-set", "-sys_admin", "--inh-caps", "-all"]).arg(this_program());
    let output = helper(&mut setpriv).output().expect("these tests need setpriv (util-linux)");
    let output = String::from_utf8(output.stdout).unwrap();
    let expected = "error: no permission to make network namespaces: run as root";
    assert!(output.contains(expected), "{output}");
}

/// The kernel's tables of neighbours are shared by all namespaces, and too small for this.
#[test]
fn more_pods_than_the_kernel_knows_neighbours() {
    let pods = (0..150).map(|number| pod(&format!("p{number}")));
    let mut lab = build(&pods.fold(Plan::new(), |plan, pod| plan.with_pod(pod, [])));
    let places: Vec<&Place> = lab.places().filter(|place| **place != Place::World).collect();
    let ring = places.iter().zip(places.iter().cycle().skip(1));
    let probes: Vec<Probe> = ring
        .flat_map(|(from, to)| lab.addresses(from).iter().zip(lab.addresses(to)))
        .map(|(&from, &to)| Probe::new(from, to, WEB))
        .collect();
    assert_eq!(probes.len(), 302);
    assert!(lab.probe(&probes).unwrap().iter().all(|&fate| verdict(fate) == "answered"));
}

/// L1: what a careless update loses and leaks is seen to the packet.
#[test]
fn a_flood_is_counted() {
    let lab = build(&plan());
    let deny = "ip daddr 10.0.0.2 drop; ip6 daddr fd00::2 udp dport 53 drop";
    let probes: Vec<Probe> = [[A[0], "10.1.0.1"], [A[1], "fd00:1::1"], [A[0], B[0]], [A[1], B[1]]]
        .map(|[from, to]| Probe::new(address(from), address(to), DNS))
        .into();
    let flood = |updates: &dyn Fn()| {
        load(&lab, &[("forward", deny)]);
        let flood = lab.flood(&probes).unwrap();
        let started = Instant::now();
        updates();
        let counts = flood.stop().unwrap();
        let sent: u64 = counts.iter().map(|count| count.sent).sum();
        println!("{sent} packets in {:?}", started.elapsed());
        assert!(counts.iter().all(|count| count.sent > 100), "{counts:?}");
        assert_eq!(counts.iter().take(2).filter(|count| count.arrived != count.sent).count(), 0);
        counts[2].arrived + counts[3].arrived
    };
    assert_eq!(flood(&|| std::thread::sleep(Duration::from_millis(500))), 0);
    let leaked = flood(&|| {
        for _ in 0..20 {
            load(&lab, &[]);
            load(&lab, &[("forward", deny)]);
        }
    });
    assert!(leaked > 0, "the detector sees what it must");
    let tcp = Probe::new(address(A[0]), address(B[0]), WEB);
    assert!(lab.flood(&[tcp]).is_err());
}

/// To the kernel, packets both ways are one connection if their protocol has no ports. To policy they are not.
#[test]
fn protocols_without_ports_are_judged_each_way() {
    let mut lab = build(&plan());
    load(
        &lab,
        &[(
            "forward",
            "ct state established accept; ip daddr 10.0.0.2 drop; ip6 daddr fd00::2 meta l4proto 47 drop",
        )],
    );
    let gre = |from: &str, to: &str| Probe::new(address(from), address(to), Traffic::Other(47));
    for [a, b] in [[A[0], B[0]], [A[1], B[1]]] {
        for _ in 0..2 {
            let fates = lab.probe(&[gre(b, a), gre(a, b), gre(b, a), gre(a, b)]).unwrap();
            let verdicts: Vec<&str> = fates.into_iter().map(verdict).collect();
            assert_eq!(verdicts, ["answered", "dropped", "answered", "dropped"]);
        }
        assert_eq!(one(&mut lab, gre(b, a)), "answered");
        let same = gre(a, b).with_client_port(0);
        assert_eq!(one(&mut lab, same), "answered", "when it is meant to be remembered");
    }
}
