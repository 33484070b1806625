//! Clusters made by hand: small ones that use everything, and odd ones.
#![expect(
    clippy::unwrap_used,
    reason = "what is written here is well-formed, and seen to be by every test"
)]

use netpol_core::{
    Cluster, ContainerPort, IpBlock, Labels, Match, Namespace, Peer, Phase, Pod, PodId,
    PodSelection, Policy, PolicyRule, PortEntry, Protocol, Selector, TrafficMatch, Verdict,
};

/// Pods with this `app` label.
#[must_use]
pub fn is(app: &str) -> Selector {
    Selector::match_labels([("app", app)])
}

/// The pods of namespace `shop` with this `app` label, as a peer.
#[must_use]
pub fn pods(app: &str) -> Peer {
    Peer::Pods(PodSelection::within("shop", is(app)))
}

/// A network without these parts.
///
/// # Panics
///
/// What is given is no CIDR.
#[must_use]
pub fn block(cidr: &str, except: &[&str]) -> Peer {
    let except = except.iter().map(|cidr| cidr.parse().unwrap()).collect();
    Peer::Network(IpBlock { cidr: cidr.parse().unwrap(), except })
}

/// One port.
#[must_use]
pub fn port(protocol: Protocol, number: u16) -> PortEntry {
    PortEntry::Range { protocol, first: number, last: number }
}

/// These and nothing else.
pub fn one_of<T>(items: impl IntoIterator<Item = T>) -> Match<T> {
    Match::OneOf(items.into_iter().collect())
}

/// A rule of the Admin or the Baseline tier.
#[must_use]
pub fn rule(verdict: Verdict, peers: Match<Peer>, ports: Match<PortEntry>) -> PolicyRule {
    PolicyRule { matches: TrafficMatch::new(peers, ports), verdict }
}

/// Namespace `shop`: web (two addresses of a family), api and db, dual-stack, each behind its device.
#[must_use]
pub fn shop() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.insert_namespace(Namespace::new("shop", Labels::from_iter([("team", "shop")])));
    for (number, app) in (1..).zip(["web", "api", "db"]) {
        let mut addresses = vec![format!("10.0.0.{number}"), format!("fd00::{number}")];
        if app == "web" {
            addresses.push("10.0.1.1".to_owned());
        }
        let port = ContainerPort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 8080 + u16::try_from(number).unwrap(),
        };
        cluster.insert_pod(
            Pod::new(PodId::new("shop", app), Labels::from_iter([("app", app)]))
                .with_addresses(addresses.iter().map(|a| a.parse().unwrap()))
                .with_ports([port])
                .with_phase(Phase::Running)
                .with_interface(format!("veth-{app}")),
        );
    }
    cluster
}

/// The shop with a policy of every tier.
#[must_use]
pub fn policed_shop() -> Cluster {
    let mut cluster = shop();
    let tcp = |number| port(Protocol::Tcp, number);
    cluster.insert_policy(Policy::network_policy(
        "shop",
        "db",
        is("db"),
        Some(vec![
            TrafficMatch::new(one_of([pods("api")]), one_of([tcp(5432)])),
            TrafficMatch::new(one_of([block("192.0.2.0/24", &["192.0.2.128/25"])]), Match::Any),
        ]),
        Some(vec![]),
    ));
    cluster.insert_policy(Policy::network_policy(
        "shop",
        "api",
        is("api"),
        Some(vec![TrafficMatch::new(
            one_of([pods("web")]),
            one_of([PortEntry::Named { protocol: Protocol::Tcp, name: "http".into() }]),
        )]),
        Some(vec![
            TrafficMatch::new(one_of([pods("db")]), one_of([tcp(5432), tcp(5433)])),
            TrafficMatch::new(
                Match::Any,
                one_of([port(Protocol::Udp, 53), tcp(53), port(Protocol::Sctp, 53)]),
            ),
        ]),
    ));
    cluster.insert_policy(Policy::admin(
        "guard",
        10,
        PodSelection::everything(),
        vec![
            rule(Verdict::Deny, one_of([block("198.51.100.0/24", &[])]), Match::Any),
            rule(Verdict::Pass, one_of([pods("web"), pods("api")]), one_of([tcp(22)])),
            rule(Verdict::Allow, one_of([pods("api")]), one_of([tcp(22)])),
        ],
        vec![],
    ));
    cluster.insert_policy(Policy::baseline(
        "default",
        10,
        PodSelection::everything(),
        vec![rule(Verdict::Deny, one_of([pods("db")]), Match::Any)],
        vec![],
    ));
    cluster
}

/// Every combination of kinds of peers, kinds of ports and verdicts (F06).
#[must_use]
pub fn every_shape_of_rule() -> Cluster {
    let tcp = |n| port(Protocol::Tcp, n);
    let named = |p| PortEntry::Named { protocol: p, name: "http".into() };
    let range = |protocol, first, last| PortEntry::Range { protocol, first, last };
    let many = |step: u8| -> Vec<Peer> {
        (0..12u8)
            .map(|n| block(&format!("203.0.{}.0/{}", n * step, 24 + n % (step * 3)), &[]))
            .collect()
    };
    let peers: Vec<Match<Peer>> = vec![
        Match::Any,
        one_of([]),
        one_of([pods("web")]),
        one_of([pods("web"), pods("nobody"), Peer::Pods(PodSelection::everything())]),
        one_of([block("0.0.0.0/0", &[])]),
        one_of([block("::/0", &["2001:db8::/32"])]),
        one_of([block("10.0.0.1/32", &[]), block("fd00::1/128", &[])]),
        one_of([block("10.0.0.0/8", &["10.1.0.0/16"]), pods("db")]),
        one_of(many(1)),
        one_of((0..5).map(|n| block(&format!("2001:db8:{n}::1/128"), &[]))),
        one_of(many(2)),
        one_of([block("2001:db8::/32", &["2001:db8::1/128"])]),
        one_of((0..20).map(|n| block(&format!("2001:db8:{n}::/48"), &[])).step_by(2)),
        one_of((0..20).map(|n| block(&format!("10.9.{n}.7/32"), &[])).step_by(2)),
    ];
    let ports: Vec<Match<PortEntry>> = vec![
        Match::Any,
        one_of([]),
        one_of([tcp(80)]),
        one_of([tcp(0)]),
        one_of([tcp(80), tcp(443)]),
        one_of([range(Protocol::Tcp, 1, 65535)]),
        one_of([range(Protocol::Udp, 8000, 8100)]),
        one_of([tcp(80), range(Protocol::Tcp, 8000, 8100)]),
        one_of([PortEntry::Protocol(Protocol::Sctp)]),
        one_of([PortEntry::Protocol(Protocol::Tcp), PortEntry::Protocol(Protocol::Udp)]),
        one_of(Protocol::ALL.map(PortEntry::Protocol)),
        one_of([tcp(80), port(Protocol::Udp, 53), port(Protocol::Sctp, 7777)]),
        one_of([PortEntry::Protocol(Protocol::Tcp), port(Protocol::Udp, 53)]),
        one_of([range(Protocol::Tcp, 1, 9), range(Protocol::Udp, 65000, 65535)]),
        one_of((0..40).map(|n| tcp(3 * n + 1))),
        one_of((0..20).map(|n| range(Protocol::Sctp, 5 * n + 1, 5 * n + 3))),
        one_of([named(Protocol::Tcp)]),
        one_of([named(Protocol::Tcp), named(Protocol::Udp), tcp(80)]),
    ];
    let mut cluster = shop();
    let mut priority = 0;
    for peers in &peers {
        for ports in &ports {
            let matches = || TrafficMatch::new(peers.clone(), ports.clone());
            let name = format!("p{priority}");
            let rules = || Some(vec![matches(), matches()]);
            cluster.insert_policy(Policy::network_policy(
                "shop",
                name.clone(),
                is("db"),
                rules(),
                rules(),
            ));
            for verdict in [Verdict::Allow, Verdict::Deny, Verdict::Pass] {
                let rules = || vec![rule(verdict, peers.clone(), ports.clone())];
                let all = PodSelection::everything();
                let name = format!("{name}-{verdict:?}");
                let policy = match priority % 2 {
                    0 => Policy::admin(name, priority, all, rules(), rules()),
                    _ => Policy::baseline(name, priority, all, rules(), rules()),
                };
                cluster.insert_policy(policy);
            }
            priority += 1;
        }
    }
    cluster
}

/// Names that try to become syntax, that run together, or that differ only behind what is cut (F23, F74, F98).
#[must_use]
pub fn hostile_names() -> Cluster {
    let mut cluster = shop();
    let nasty = [
        "\"; flush ruleset; #".to_owned(),
        "a\n}\n}\ntable ip evil { }".to_owned(),
        "{{}}$x\\\"`id`@*".to_owned(),
        "ä".repeat(200),
        "x".repeat(253),
        "\u{202e}rtl\0nul".to_owned(),
    ];
    for (number, name) in nasty.iter().enumerate() {
        let namespace = if number % 2 == 0 { "shop" } else { name.as_str() };
        cluster.insert_pod(
            Pod::new(
                PodId::new(namespace, name.as_str()),
                Labels::from_iter([("app", name.as_str())]),
            )
            .with_addresses([format!("10.0.9.{number}").parse().unwrap()]),
        );
        let peer = Peer::Pods(PodSelection::within(namespace, is(name)));
        let named = PortEntry::Named { protocol: Protocol::Tcp, name: name.as_str().into() };
        let rules = vec![TrafficMatch::new(one_of([peer]), one_of([named]))];
        let rules = Some(rules);
        cluster.insert_policy(Policy::network_policy(
            namespace,
            name.as_str(),
            Selector::everything(),
            rules.clone(),
            rules,
        ));
    }
    // F23: names that run together.
    for (namespace, name) in [("a-b", "c"), ("a", "b-c")] {
        cluster.insert_policy(Policy::network_policy(
            namespace,
            name,
            Selector::everything(),
            Some(vec![]),
            None,
        ));
    }
    // F74: names that differ behind what is cut.
    for number in 0..300 {
        let name = format!("{}{number}", "long-".repeat(12));
        cluster.insert_policy(Policy::network_policy("shop", name, is("db"), Some(vec![]), None));
    }
    cluster
}
