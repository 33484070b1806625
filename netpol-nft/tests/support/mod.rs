//! Private network namespaces, and clusters to fill them.
#![allow(dead_code, reason = "each test file uses a part")]
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests, too, fail by panicking"
)]

use netpol_core::{
    Cluster, ContainerPort, IpBlock, Labels, Match, Namespace, Peer, Phase, Pod, PodId,
    PodSelection, Policy, PolicyRule, PortEntry, Protocol, Ruleset, Scope, Selector, TrafficMatch,
    Verdict, compile,
};
use netpol_host::Host;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A network namespace that goes when it is dropped.
pub(crate) struct Netns(pub(crate) String);

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Netns {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("npnft-{}-{number}", std::process::id());
        let output = Command::new("ip").args(["netns", "add", &name]).output();
        let output = output.expect("iproute2 is installed (Debian: apt-get install iproute2)");
        assert!(output.status.success(), "needs root: {}", text(&output.stderr));
        Self(name)
    }

    pub(crate) fn host(&self) -> Host {
        Host::in_namespace(&self.0)
    }

    pub(crate) fn run(&self, command: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.0])
            .args(command)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    pub(crate) fn ok(&self, command: &[&str], input: &str) -> String {
        let output = self.run(command, input);
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    #[track_caller]
    pub(crate) fn load(&self, script: &str) {
        let output = self.run(&["nft", "-f", "-"], script);
        assert!(output.status.success(), "{}\n{script}", text(&output.stderr));
    }

    /// The ruleset without counts.
    pub(crate) fn listing(&self) -> String {
        self.ok(&["nft", "--stateless", "list", "ruleset"], "")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn cluster_ruleset(cluster: &Cluster) -> Ruleset {
    compile(cluster, Scope::Cluster).unwrap()
}

pub(crate) fn is(app: &str) -> Selector {
    Selector::match_labels([("app", app)])
}

pub(crate) fn pods(app: &str) -> Peer {
    Peer::Pods(PodSelection::within("shop", is(app)))
}

pub(crate) fn block(cidr: &str, except: &[&str]) -> Peer {
    let except = except.iter().map(|cidr| cidr.parse().unwrap()).collect();
    Peer::Network(IpBlock { cidr: cidr.parse().unwrap(), except })
}

pub(crate) fn port(protocol: Protocol, number: u16) -> PortEntry {
    PortEntry::Range { protocol, first: number, last: number }
}

pub(crate) fn one_of<T>(items: impl IntoIterator<Item = T>) -> Match<T> {
    Match::OneOf(items.into_iter().collect())
}

pub(crate) fn rule(verdict: Verdict, peers: Match<Peer>, ports: Match<PortEntry>) -> PolicyRule {
    PolicyRule { matches: TrafficMatch::new(peers, ports), verdict }
}

/// Namespace `shop`: web (two addresses of a family), api and db, dual-stack, each behind its device.
pub(crate) fn shop() -> Cluster {
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
pub(crate) fn policed_shop() -> Cluster {
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
