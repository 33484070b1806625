//! Lints about cluster-wide policies: what their definitions accept, but surely nobody means (CNP-21).

use crate::diagnostic::Diagnostic;
use crate::lint::location;
use netpol_core::{
    Cluster, Direction, Match, Peer, PodSelection, Policy, PolicyRule, PortEntry, Tier,
    TrafficMatch, Verdict,
};
use std::collections::{BTreeMap, HashMap};

/// So many rules of a policy, and peers or ports of a rule, are compared with one another. No server accepts more.
const MOST: usize = 100;

/// The lints of all cluster-wide policies, in the order in which the policies are asked.
pub(crate) fn tiers(cluster: &Cluster) -> Vec<Diagnostic> {
    let mut policies: Vec<&Policy> =
        cluster.policies().filter(|policy| policy.tier() != Tier::NetworkPolicy).collect();
    policies.sort_by_key(|policy| (policy.tier(), policy.priority(), &policy.id().name));
    let mut lints = equal_priorities(&policies);
    let mut known = HashMap::new();
    for policy in policies {
        for direction in Direction::ALL {
            let rules = policy.rules(direction).unwrap_or_default();
            for (i, rule) in rules.iter().enumerate() {
                let lint = Lint { policy, direction, i, rule };
                lint.last_tier(&mut lints);
                if !lint.contradicts(&mut known, &mut lints) {
                    lint.unreachable(rules, &mut lints);
                }
            }
        }
    }
    lints
}

fn equal_priorities(policies: &[&Policy]) -> Vec<Diagnostic> {
    let mut first: BTreeMap<(Tier, i32), &Policy> = BTreeMap::new();
    let mut lints = Vec::new();
    for policy in policies {
        let other = *first.entry((policy.tier(), policy.priority())).or_insert(policy);
        if other.id() != policy.id() {
            let message = format!(
                "{} has the priority {} too: here the name decides which is asked first, elsewhere perhaps not",
                other.id(),
                policy.priority()
            );
            lints.push(
                Diagnostic::warning("equal-priorities", message)
                    .about(policy.id().to_string())
                    .at(policy.source().map(location))
                    .in_field("spec.priority")
                    .with_hint("give each policy of a tier a priority of its own"),
            );
        }
    }
    lints
}

/// What a rule is for, and in which tier.
type Key<'p> = (Tier, Direction, &'p PodSelection, &'p Match<Peer>, &'p Match<PortEntry>);

/// A rule of a cluster-wide policy.
struct Lint<'p> {
    policy: &'p Policy,
    direction: Direction,
    i: usize,
    rule: &'p PolicyRule,
}

impl<'p> Lint<'p> {
    fn warning(&self, code: &'static str, message: String) -> Diagnostic {
        let source = self.rule.matches.source.as_ref().or(self.policy.source());
        Diagnostic::warning(code, message)
            .about(self.policy.id().to_string())
            .at(source.map(location))
            .in_field(format!("spec.{}[{}]", self.direction, self.i))
    }

    /// Pass of the last tier leads to the default (CNP-30).
    fn last_tier(&self, lints: &mut Vec<Diagnostic>) {
        if self.policy.tier() == Tier::Baseline && self.rule.verdict == Verdict::Pass {
            let message = "no tier comes after this one, so what it passes is allowed".to_owned();
            let lint = self.warning("pass-in-last-tier", message);
            lints.push(lint.with_hint("write `Accept` if that is meant, else `Deny`"));
        }
    }

    /// Does an earlier rule for the same pods, peers and ports decide otherwise?
    fn contradicts(
        &self,
        known: &mut HashMap<Key<'p>, (&'p Policy, usize, Verdict)>,
        lints: &mut Vec<Diagnostic>,
    ) -> bool {
        let TrafficMatch { peers, ports, .. } = &self.rule.matches;
        let key = (self.policy.tier(), self.direction, self.policy.subject(), peers, ports);
        let (policy, i, verdict) =
            *known.entry(key).or_insert((self.policy, self.i, self.rule.verdict));
        if verdict == self.rule.verdict {
            return false;
        }
        let message = format!(
            "{} {}[{i}] decides otherwise about the same traffic and is asked first, so this rule does nothing",
            policy.id(),
            self.direction
        );
        lints.push(self.warning("contradicting-rules", message));
        true
    }

    /// Does an earlier rule of the policy match everything that this one does?
    fn unreachable(&self, rules: &[PolicyRule], lints: &mut Vec<Diagnostic>) {
        if self.i >= MOST {
            return;
        }
        let earlier = rules.iter().take(self.i);
        let covers = |earlier: &PolicyRule| covers(&earlier.matches, &self.rule.matches);
        if let Some(by) = earlier.clone().position(covers) {
            let message = format!(
                "{}[{by}] matches everything that this rule does, so this rule is never asked",
                self.direction
            );
            let lint = self.warning("unreachable-rule", message);
            lints.push(lint.with_hint("put the narrower rule first"));
        }
    }
}

/// Does a rule match all that another does, as far as can be told without looking at pods? What matches nothing is not
/// counted: that has been said elsewhere.
fn covers(wide: &TrafficMatch, narrow: &TrafficMatch) -> bool {
    let peers = match (&wide.peers, &narrow.peers) {
        (Match::Any, _) => true,
        (Match::OneOf(_), Match::Any) => false,
        (Match::OneOf(wide), Match::OneOf(narrow)) => {
            is_short(wide, narrow) && narrow.iter().all(|n| wide.iter().any(|w| peer_covers(w, n)))
        }
    };
    let ports = match (&wide.ports, &narrow.ports) {
        (Match::Any, _) => true,
        (Match::OneOf(_), Match::Any) => false,
        (Match::OneOf(wide), Match::OneOf(narrow)) => {
            is_short(wide, narrow) && narrow.iter().all(|n| wide.iter().any(|w| port_covers(w, n)))
        }
    };
    peers && ports
}

/// Is there something to compare, and not too much?
fn is_short<T>(wide: &[T], narrow: &[T]) -> bool {
    !narrow.is_empty() && narrow.len().max(wide.len()) <= 3 * MOST
}

fn peer_covers(wide: &Peer, narrow: &Peer) -> bool {
    match (wide, narrow) {
        (Peer::Pods(wide), Peer::Pods(narrow)) => {
            let everywhere = PodSelection::everything();
            (wide.namespaces == narrow.namespaces || wide.namespaces == everywhere.namespaces)
                && (wide.pods == narrow.pods || wide.pods.is_everything())
        }
        (Peer::Network(wide), Peer::Network(narrow)) => {
            wide.except.is_empty() && wide.cidr.contains(&narrow.cidr)
        }
        (Peer::Nodes(wide), Peer::Nodes(narrow)) => wide == narrow || wide.is_everything(),
        _ => false,
    }
}

fn port_covers(wide: &PortEntry, narrow: &PortEntry) -> bool {
    match (wide, narrow) {
        (
            PortEntry::Protocol(wide),
            PortEntry::Protocol(protocol)
            | PortEntry::Range { protocol, .. }
            | PortEntry::Named { protocol, .. },
        ) => wide == protocol,
        (
            PortEntry::Range { protocol: wide, first, last },
            PortEntry::Range { protocol, first: from, last: to },
        ) => wide == protocol && first <= from && to <= last,
        (wide, narrow) => wide == narrow,
    }
}

#[cfg(test)]
mod tests {
    use crate::{Diagnostic, Reader};

    const PODS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}}
";

    #[track_caller]
    fn check(policies: &[&str], expected: &[&str]) {
        let mut reader = Reader::new();
        reader.read_text("pods", PODS);
        for (i, spec) in policies.iter().enumerate() {
            let text = format!(
                "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: p{i}}}\n\
                 spec: {{{spec}}}\n"
            );
            reader.read_text("policy", &text);
        }
        let manifests = reader.finish();
        assert_eq!(manifests.diagnostics(), [], "{policies:?}");
        let lints = crate::lint(&manifests);
        let codes: Vec<_> = lints.iter().map(Diagnostic::code).collect();
        assert_eq!(codes, expected, "{policies:?}: {lints:#?}");
        assert!(lints.iter().all(|lint| lint.location().is_some()));
    }

    #[track_caller]
    fn rules(rules: &[&str], expected: &[&str]) {
        let rules = rules.join(", ");
        let spec =
            format!("tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, egress: [{rules}]");
        check(&[&spec], expected);
    }

    #[test]
    fn each_lint() {
        let subject = "tier: Admin, subject: {namespaces: {}}";
        check(
            &[&format!("{subject}, priority: 1"), &format!("{subject}, priority: 1")],
            &["equal-priorities"],
        );
        check(
            &[
                &format!("{subject}, priority: 1"),
                "tier: Baseline, subject: {namespaces: {}}, priority: 1",
            ],
            &[],
        );
        check(
            &["tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {team: b}}}"],
            &["selects-no-pod"],
        );
        check(
            &["tier: Admin, priority: 1, subject: {pods: {podSelector: {matchLabels: {app: x}}}}"],
            &["selects-no-pod"],
        );
        let all = "to: [{namespaces: {}}]";
        let pass = format!("ingress: [{{action: Pass, {}}}]", all.replace("to", "from"));
        check(
            &[&format!("tier: Baseline, priority: 1, subject: {{namespaces: {{}}}}, {pass}")],
            &["pass-in-last-tier"],
        );
        check(&[&format!("{subject}, priority: 1, {pass}")], &[]);
        rules(
            &[
                &format!("{{action: Deny, {all}}}"),
                "{action: Accept, to: [{namespaces: {matchLabels: {team: a}}}]}",
            ],
            &["unreachable-rule"],
        );
        rules(
            &[&format!("{{action: Deny, {all}}}"), &format!("{{action: Accept, {all}}}")],
            &["contradicting-rules"],
        );
        rules(
            &["{action: Deny, to: [{namespaces: {matchLabels: {team: b}}}]}"],
            &["no-such-namespace"],
        );
        rules(
            &[
                "{action: Deny, to: [{networks: [10.0.0.0/8]}], protocols: [{tcp: {destinationPort: {range: {start: 1, end: 99}}}}]}",
                "{action: Accept, to: [{networks: [10.1.0.0/16]}], protocols: [{tcp: {destinationPort: {number: 80}}}]}",
            ],
            &["unreachable-rule"],
        );
        // In another policy of the tier, for the same subject.
        let rule = |priority: u8, action: &str| {
            format!("{subject}, priority: {priority}, egress: [{{action: {action}, {all}}}]")
        };
        check(&[&rule(1, "Deny"), &rule(2, "Accept")], &["contradicting-rules"]);
        check(&[&rule(1, "Deny"), &rule(2, "Deny")], &[]);
    }

    #[test]
    fn what_is_meant_is_left_alone() {
        rules(
            &[
                "{action: Accept, to: [{namespaces: {matchLabels: {team: a}}}]}",
                "{action: Deny, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}",
                "{action: Deny, to: [{namespaces: {}}], protocols: [{udp: {destinationPort: {number: 80}}}]}",
                "{action: Deny, to: [{networks: [10.0.0.0/8]}]}",
                "{action: Accept, to: [{networks: [0.0.0.0/0]}]}",
                "{action: Deny, to: [{nodes: {matchLabels: {a: b}}}]}",
                "{action: Deny, to: [{nodes: {}}]}",
            ],
            &[],
        );
    }
}
