//! The answer: allowed or denied, why per direction, what was close, what would have been needed, and where CNIs differ.

use super::tiers::{self, TierStep};
use super::{Question, needed, words};
use crate::Failure;
use crate::party::Party;
use netpol_core::{
    Cluster, Direction, Match, Origin, Peer, Pod, PodId, PolicyId, PolicyKind, SourcePosition,
    TrafficMatch,
};
use netpol_k8s::Manifests;
use netpol_sim::{Decision, End, Mismatch, Miss, Outcome, SideDecision, Traffic};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;

/// How many rules that nearly matched are shown.
const MOST_MISSES: usize = 3;

/// The whole answer. Its JSON form is a contract.
#[derive(Serialize)]
pub(super) struct Report {
    from: String,
    to: String,
    port: String,
    /// `allowed`, `denied`, or `mixed` when pods or families of one end differ.
    verdict: &'static str,
    /// The distinct answers, each for some of the connections that were meant.
    answers: Vec<Answer>,
    /// Where this answer rests on a convention that CNIs treat differently.
    conventions: Vec<Convention>,
}

#[derive(Serialize)]
struct Answer {
    allowed: bool,
    /// One of the connections.
    connection: String,
    /// How many of the connections that were meant have this answer.
    connections: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<String>,
    /// Why no policy was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    unconditional: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<Side>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<Side>,
}

#[derive(Serialize)]
struct Side {
    allowed: bool,
    reason: String,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RulePlace>,
    /// The policies that isolate the pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    isolated_by: Vec<RulePlace>,
    /// Is there a policy among them that selects the pod, and so might have a rule?
    #[serde(skip)]
    selected: bool,
    /// What each tier said, up to the one that decided, where there are cluster-wide policies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tiers: Vec<TierStep>,
    /// Rules that passed the connection on to the next tier.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed: Vec<RulePlace>,
    /// What would isolate the pod if it had an effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    without_effect: Vec<WithoutEffect>,
    /// The rules that came closest, and what in them did not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    closest: Vec<Close>,
    /// A rule that would allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    needed: Option<String>,
}

#[derive(Clone, Serialize)]
pub(super) struct RulePlace {
    policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
struct WithoutEffect {
    #[serde(flatten)]
    policy: RulePlace,
    why: String,
}

#[derive(Serialize)]
struct Close {
    #[serde(flatten)]
    rule: RulePlace,
    mismatch: String,
}

#[derive(Clone, Eq, Ord, PartialEq, PartialOrd, Serialize)]
struct Convention {
    /// The rule that it rests on.
    rule: &'static str,
    text: &'static str,
}

impl Report {
    pub(super) fn new(
        from: &Party,
        to: &Party,
        port: &str,
        asked: Vec<(Question, Decision)>,
        manifests: &Manifests,
    ) -> Self {
        let cluster = manifests.cluster();
        let mut conventions = BTreeSet::new();
        for (question, decision) in &asked {
            conventions.extend(applying(question, decision, cluster));
        }
        let allowed = asked.iter().filter(|(_, decision)| decision.allowed()).count();
        let verdict = match allowed {
            0 => "denied",
            all if all == asked.len() => "allowed",
            _ => "mixed",
        };
        // Equal reasons are one answer; which of the connections is shown does not matter then.
        let mut kinds: Vec<(Question, Decision, usize)> = Vec::new();
        for (question, decision) in asked {
            let alike = |kind: &&mut (Question, Decision, usize)| {
                kind.1 == decision && (verdict != "mixed" || kind.0.family == question.family)
            };
            match kinds.iter_mut().find(alike) {
                Some(kind) => kind.2 += 1,
                None => kinds.push((question, decision, 1)),
            }
        }
        let answers = kinds
            .into_iter()
            .map(|(question, decision, count)| answer(&question, &decision, count, manifests))
            .collect();
        Self {
            from: from.to_string(),
            to: to.to_string(),
            port: port.to_owned(),
            verdict,
            answers,
            conventions: conventions.into_iter().collect(),
        }
    }

    pub(super) fn is_allowed(&self) -> bool {
        self.verdict == "allowed"
    }

    pub(super) fn write_text(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let Self { from, to, port, verdict, answers, conventions } = self;
        writeln!(out, "{from} -> {to} {port}: {verdict}")?;
        let several = answers.len() > 1;
        for answer in answers {
            writeln!(out)?;
            if several {
                let verdict = if answer.allowed { "allowed" } else { "denied" };
                let family = answer.family.as_deref().unwrap_or("any family");
                let more = match answer.connections {
                    1 => String::new(),
                    count => format!(" and {} more", count - 1),
                };
                writeln!(out, "{}{more} ({family}): {verdict}", answer.connection)?;
            }
            answer.write_text(out)?;
        }
        if !conventions.is_empty() {
            writeln!(out)?;
        }
        for Convention { rule, text } in conventions {
            writeln!(out, "note ({rule}): {text}")?;
        }
        Ok(())
    }
}

impl Answer {
    fn write_text(&self, out: &mut dyn Write) -> Result<(), Failure> {
        if let Some(why) = self.unconditional {
            writeln!(out, "  {why}")?;
        }
        for (name, side) in [("egress", &self.egress), ("ingress", &self.ingress)] {
            let Some(side) = side else { continue };
            let verdict = if side.allowed { "allowed" } else { "denied" };
            writeln!(out, "  {name:7}  {verdict}: {}", side.reason)?;
            for place in side.rule.iter().chain(&side.isolated_by) {
                writeln!(out, "             {}", place.text())?;
            }
            if !side.tiers.is_empty() {
                writeln!(out, "           tiers:")?;
            }
            for step in &side.tiers {
                writeln!(out, "             {}", step.text())?;
            }
            for inert in &side.without_effect {
                writeln!(out, "           without effect: {}", inert.policy.text())?;
                writeln!(out, "             {}", inert.why)?;
            }
            for close in &side.closest {
                writeln!(out, "           close: {}", close.rule.text())?;
                writeln!(out, "             {}", close.mismatch)?;
            }
            if side.selected && side.closest.is_empty() {
                writeln!(out, "           none of their rules comes close")?;
            }
            if let Some(needed) = &side.needed {
                writeln!(out, "           a policy with this rule would allow it:")?;
                for line in needed.lines() {
                    writeln!(out, "             {line}")?;
                }
            }
        }
        Ok(())
    }
}

impl RulePlace {
    pub(super) fn new(origin: &Origin, cluster: &Cluster) -> Self {
        let source = source(origin, cluster);
        Self {
            policy: origin.policy.to_string(),
            rule: origin.rule.map(|(direction, rule)| format!("{direction}[{rule}]")),
            file: source.map(|source| source.file.to_string()),
            line: source.map(|source| source.line),
        }
    }

    fn policy(policy: &PolicyId, cluster: &Cluster) -> Self {
        Self::new(&Origin { policy: policy.clone(), rule: None }, cluster)
    }

    pub(super) fn text(&self) -> String {
        let rule = self.rule.as_ref().map(|rule| format!(" {rule}")).unwrap_or_default();
        let place = match (&self.file, self.line) {
            (Some(file), Some(line)) => format!(" ({file}:{line})"),
            _ => String::new(),
        };
        format!("{}{rule}{place}", self.policy)
    }
}

fn source<'a>(origin: &Origin, cluster: &'a Cluster) -> Option<&'a SourcePosition> {
    match origin.rule {
        Some(_) => matches(origin, cluster)?.source.as_ref(),
        None => cluster.policy(&origin.policy)?.source(),
    }
}

fn matches<'a>(origin: &Origin, cluster: &'a Cluster) -> Option<&'a TrafficMatch> {
    let (direction, rule) = origin.rule?;
    let rules = cluster.policy(&origin.policy)?.rules(direction)?;
    rules.get(rule as usize).map(|rule| &rule.matches)
}

fn answer(
    question: &Question,
    decision: &Decision,
    connections: usize,
    manifests: &Manifests,
) -> Answer {
    let side = |direction| {
        decision.side(direction).map(|decision| side(direction, question, decision, manifests))
    };
    let name = |pod: &Option<PodId>, end: &End| match (pod, end) {
        (Some(pod), End::Address(address)) => format!("{pod} ({address})"),
        (_, end) => end.to_string(),
    };
    let connection = &question.connection;
    Answer {
        allowed: decision.allowed(),
        connection: format!(
            "{} -> {} {}",
            name(&question.from, connection.source()),
            name(&question.to, connection.destination()),
            words::traffic(connection.traffic()),
        ),
        connections,
        family: question.family.map(|family| family.to_string()),
        unconditional: match decision {
            Decision::SamePod => Some("a pod always reaches itself, whatever the policies say"),
            Decision::NeighborDiscovery => Some("neighbor discovery is never policed"),
            _ => None,
        },
        egress: side(Direction::Egress),
        ingress: side(Direction::Ingress),
    }
}

fn side(
    direction: Direction,
    question: &Question,
    decision: &SideDecision,
    manifests: &Manifests,
) -> Side {
    let cluster = manifests.cluster();
    let connection = &question.connection;
    let (subject, remote, remote_end) = match direction {
        Direction::Egress => (&question.from, &question.to, connection.destination()),
        Direction::Ingress => (&question.to, &question.from, connection.source()),
    };
    let pod = |id: &Option<PodId>| id.as_ref().and_then(|id| cluster.pod(id));
    let (subject_pod, remote_pod) = (pod(subject), pod(remote));
    let name = subject.as_ref().map_or_else(String::new, ToString::to_string);
    let mut rule = None;
    let mut isolated_by = Vec::new();
    let mut selected = false;
    let reason = match &decision.outcome {
        Outcome::NoPod => match subject_pod {
            Some(pod) if pod.host_network() => {
                format!("{name} is on the host network, which policies do not apply to")
            }
            Some(_) => format!("{name} has finished, so policies do not apply to it"),
            None => "that end is no pod, so no policy applies to it".to_owned(),
        },
        Outcome::Open => format!("no policy isolates {name} for {direction}"),
        Outcome::OwnNode => format!("it is the node on which {name} runs"),
        Outcome::OtherProtocol => "protocols without ports are not policed".to_owned(),
        Outcome::AllowedBy(origin) => {
            rule = Some(RulePlace::new(origin, cluster));
            "this rule matches".to_owned()
        }
        Outcome::AllowedAtEnd => "no rule decides, and nothing isolates the pod".to_owned(),
        Outcome::DeniedBy(origin) => {
            rule = Some(RulePlace::new(origin, cluster));
            "this rule matches".to_owned()
        }
        Outcome::Isolated(policies) => {
            isolated_by = policies.iter().map(|p| RulePlace::policy(p, cluster)).collect();
            selected = policies.iter().any(|p| p.kind != PolicyKind::NamespaceAnnotation);
            if selected {
                format!("{name} is isolated, and no rule of these policies matches")
            } else {
                format!("{name} is isolated by its namespace, and no policy selects it")
            }
        }
        _ => String::new(),
    };
    let isolated = !isolated_by.is_empty();
    let closest = if isolated {
        closest(decision, question, remote_pod, remote_end, cluster)
    } else {
        Vec::new()
    };
    let needed = subject_pod.filter(|_| isolated).and_then(|subject| {
        needed::rule(direction, subject, remote_pod, remote_end, connection.traffic(), cluster)
    });
    let passed = decision.passed.iter().map(|origin| RulePlace::new(origin, cluster)).collect();
    let tiers = tiers::steps(decision, cluster);
    let open = matches!(decision.outcome, Outcome::Open | Outcome::AllowedAtEnd);
    let without_effect =
        subject_pod.filter(|_| open).map(|pod| without_effect(direction, pod, manifests));
    Side {
        allowed: decision.allowed(),
        reason,
        rule,
        isolated_by,
        selected,
        tiers,
        passed,
        without_effect: without_effect.unwrap_or_default(),
        closest,
        needed,
    }
}

/// Legacy policies and annotations that somebody may have trusted in.
fn without_effect(direction: Direction, pod: &Pod, manifests: &Manifests) -> Vec<WithoutEffect> {
    let namespace = manifests.cluster().namespace(pod.id().namespace());
    let inert = manifests.inert().filter(|inert| {
        let policy = inert.policy();
        policy.rules(direction).is_some() && policy.subject().matches(pod, namespace)
    });
    inert
        .map(|inert| WithoutEffect {
            policy: RulePlace {
                policy: inert.policy().id().to_string(),
                rule: None,
                file: inert.policy().source().map(|source| source.file.to_string()),
                line: inert.policy().source().map(|source| source.line),
            },
            why: inert.reason().to_owned(),
        })
        .collect()
}

/// The rules in which only one thing failed.
fn closest(
    decision: &SideDecision,
    question: &Question,
    remote: Option<&Pod>,
    remote_end: &End,
    cluster: &Cluster,
) -> Vec<Close> {
    let near = |miss: &&Miss| miss.mismatch != Mismatch::PeersAndPorts;
    let mut misses: Vec<_> = decision.misses.iter().filter(near).collect();
    // A peer that matches says most about what was meant.
    misses.sort_by_key(|miss| miss.mismatch != Mismatch::Ports);
    let destination = question.to.as_ref().and_then(|pod| cluster.pod(pod));
    let traffic = question.connection.traffic();
    misses
        .into_iter()
        .take(MOST_MISSES)
        .filter_map(|miss| {
            let matches = matches(&miss.origin, cluster)?;
            let who = match (remote, remote_end) {
                (Some(pod), End::Address(address)) => {
                    format!("{} {} and the address {address}", pod.id(), words::labels(Some(pod)))
                }
                (Some(pod), End::Pod(_)) => format!("{} {}", pod.id(), words::labels(Some(pod))),
                (None, end) => format!("{end} {}", words::labels(None)),
            };
            let peers = || format!("it is for {}, and {who}", words::peers(matches));
            let ports = || {
                let names = words::names(matches, destination);
                let names = names.map(|names| format!(" ({names})")).unwrap_or_default();
                format!(
                    "its ports are {}{names}, not {}",
                    words::ports(matches),
                    words::traffic(traffic)
                )
            };
            let mismatch = if miss.mismatch == Mismatch::Ports { ports() } else { peers() };
            Some(Close { rule: RulePlace::new(&miss.origin, cluster), mismatch })
        })
        .collect()
}

/// The conventions that the answer to one question rests on.
fn applying(question: &Question, decision: &Decision, cluster: &Cluster) -> Vec<Convention> {
    let mut found = Vec::new();
    let mut add = |rule, text| found.push(Convention { rule, text });
    let connection = &question.connection;
    if *decision == Decision::SamePod {
        add(
            "NP-74",
            "through a Service that leads back to the same pod some CNIs do apply policies",
        );
    }
    let host_network = |pod: &Option<PodId>| {
        pod.as_ref().and_then(|pod| cluster.pod(pod)).is_some_and(Pod::host_network)
    };
    if host_network(&question.from) || host_network(&question.to) {
        add(
            "NP-80",
            "pods on the host network are treated as their node: no policy selects them, only an ipBlock can match their addresses; \
             a CNI may treat them as other pods instead",
        );
    }
    for direction in Direction::ALL {
        let Some(side) = decision.side(direction) else { continue };
        let asked = !matches!(side.outcome, Outcome::NoPod | Outcome::Open);
        if asked && !matches!(connection.traffic(), Traffic::Port(..)) {
            add(
                "NP-51",
                "Kubernetes leaves open how policies treat protocols other than TCP, UDP and SCTP; here only rules without ports allow them",
            );
        }
        if asked && connection.own_node() {
            match direction {
                Direction::Ingress => add(
                    "NP-70",
                    "traffic from a pod's own node is always allowed, so that probes work; what other nodes send is not",
                ),
                Direction::Egress => add(
                    "NP-71",
                    "some CNIs never apply policies to what a pod sends to its own node; here they do apply",
                ),
            }
        }
        let (remote, remote_end) = match direction {
            Direction::Egress => (&question.to, connection.destination()),
            Direction::Ingress => (&question.from, connection.source()),
        };
        let subject = if direction == Direction::Egress { &question.from } else { &question.to };
        let subject = subject.as_ref().and_then(|pod| cluster.pod(pod));
        if subject.is_some_and(|pod| tiers::rests_on_direction(side, direction, pod, cluster)) {
            add(
                "CNP-35",
                "a NetworkPolicy isolates the pod in the other direction only, so Baseline is asked here; \
                 some CNIs never ask it about a pod that any NetworkPolicy selects",
            );
        }
        let remote = remote.as_ref().and_then(|pod| cluster.pod(pod)).filter(|p| p.is_managed());
        let block = |origin: &Origin| {
            matches(origin, cluster).is_some_and(|matches| match &matches.peers {
                Match::Any => false,
                Match::OneOf(peers) => peers.iter().any(|peer| matches!(peer, Peer::Network(_))),
            })
        };
        match (&side.outcome, remote, remote_end) {
            (
                Outcome::AllowedBy(origin) | Outcome::DeniedBy(origin),
                Some(pod),
                End::Address(_),
            ) if block(origin) && !selects(origin, pod, cluster) => {
                add(
                    "NP-32",
                    "this rests on an ipBlock that matches a pod's address; some CNIs match only addresses outside the cluster",
                );
            }
            (Outcome::Isolated(_), Some(_), End::Pod(_))
                if side.misses.iter().any(|miss| block(&miss.origin)) =>
            {
                add(
                    "NP-32",
                    "the pod's address is not known from these manifests; an ipBlock may match it once it runs",
                );
            }
            _ => {}
        }
    }
    found
}

/// Does a rule match a pod by its labels, whatever its address?
fn selects(origin: &Origin, pod: &Pod, cluster: &Cluster) -> bool {
    let Some(Match::OneOf(peers)) = matches(origin, cluster).map(|matches| &matches.peers) else {
        return true;
    };
    let namespace = cluster.namespace(pod.id().namespace());
    peers.iter().any(|peer| match peer {
        Peer::Pods(selection) => selection.matches(pod, namespace),
        _ => false,
    })
}
