//! The tiers: policies in order, and which of their rules match.

use super::Question;
use super::selectors::pod_selected;
use netpol_core::{
    Direction, Match, Peer, Policy, PolicyRule, PortEntry, Tier, TrafficMatch, Verdict,
};

impl Question<'_> {
    /// Admin or Baseline: the first rule that matches decides; none, or `Pass`, leaves it to the next tier.
    pub(super) fn first_match(&self, tier: Tier) -> Option<bool> {
        let mut policies: Vec<&Policy> = self.policies(tier).collect();
        policies.sort_by_key(|policy| (policy.priority(), &policy.id().name)); // CNP-31, CNP-32
        for policy in policies {
            for rule in policy.rules(self.direction).unwrap_or_default() {
                if self.matches(&rule.matches, tier) {
                    return match rule.verdict {
                        Verdict::Allow => Some(true),
                        Verdict::Deny => Some(false),
                        Verdict::Pass => None,
                    };
                }
            }
        }
        None
    }

    /// The NetworkPolicy tier: if some policy isolates the subject, what some rule of those policies allows.
    pub(super) fn network_policies(&self, exempt: bool) -> Option<bool> {
        let isolating: Vec<_> = self
            .policies(Tier::NetworkPolicy)
            .filter_map(|policy| policy.rules(self.direction))
            .collect();
        if isolating.is_empty() {
            return None; // NP-11
        }
        let tier = Tier::NetworkPolicy;
        let allows = |rules: &&[PolicyRule]| rules.iter().any(|r| self.matches(&r.matches, tier));
        Some(exempt || isolating.iter().any(allows))
    }

    fn policies(&self, tier: Tier) -> impl Iterator<Item = &Policy> {
        self.cluster
            .policies()
            .filter(move |policy| policy.tier() == tier)
            .filter(|policy| pod_selected(self.cluster, policy.subject(), self.subject))
    }

    /// Peers and ports (NP-13).
    fn matches(&self, rule: &TrafficMatch, tier: Tier) -> bool {
        let some_port = |may_be_named: bool| match &rule.ports {
            Match::Any => true,
            Match::OneOf(ports) => ports
                .iter()
                .filter(|port| may_be_named || !matches!(port, PortEntry::Named { .. }))
                .any(|port| self.port_matches(port)),
        };
        match &rule.peers {
            Match::Any => some_port(true),
            Match::OneOf(peers) => {
                peers.iter().filter(|peer| self.peer_matches(peer)).any(|peer| {
                    // NP-48 against CNP-16: whether a name can mean what is no pod peer.
                    some_port(
                        tier == Tier::NetworkPolicy
                            || self.direction == Direction::Ingress
                            || matches!(peer, Peer::Pods(_)),
                    )
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{
        ask, block, check, egress, ingress, is, peers, ports, rule, tcp, with,
    };
    use super::*;
    use crate::connection::Traffic;
    use netpol_core::{PodSelection, PolicyName, Protocol, Selector};

    #[test]
    fn isolation_is_per_pod_and_direction() {
        // NP-11, NP-14, NP-16: an isolated direction without rules denies; the other one stays open.
        check(
            &with([ingress(is("a"), vec![])]),
            &[
                ("10.0.0.2", "10.0.0.1", tcp(80), false),
                ("fd00::2", "fd00::1", tcp(80), false),
                ("n/b", "n/a", tcp(80), false),
                ("10.0.0.1", "10.0.0.2", tcp(80), true),
            ],
        );
        check(
            &with([egress(is("a"), vec![])]),
            &[
                ("10.0.0.2", "10.0.0.1", tcp(80), true),
                ("10.0.0.1", "10.0.0.2", tcp(80), false),
                ("10.0.0.1", "203.0.113.1", tcp(80), false),
            ],
        );
    }

    #[test]
    fn policies_add_up_and_rules_are_conjunctions() {
        let one = peers([block("10.0.0.2/32", &[])]);
        let other = ports([PortEntry::Range { protocol: Protocol::Tcp, first: 80, last: 81 }]);
        let both = TrafficMatch::new(one.peers.clone(), other.ports.clone());
        check(
            &with([ingress(is("a"), vec![both])]),
            &[
                ("10.0.0.2", "10.0.0.1", tcp(79), false),
                ("10.0.0.2", "10.0.0.1", tcp(80), true),
                ("10.0.0.2", "10.0.0.1", tcp(81), true),
                ("10.0.0.2", "10.0.0.1", tcp(82), false),
                ("10.0.0.2", "10.0.0.1", Traffic::Port(Protocol::Sctp, 80), false),
                ("203.0.113.1", "10.0.0.1", tcp(80), false),
            ],
        );
        let second = Policy::network_policy("n", "2", is("a"), Some(vec![other]), None);
        check(
            &with([ingress(is("a"), vec![one]), second]),
            &[
                ("10.0.0.2", "10.0.0.1", tcp(1), true),
                ("203.0.113.1", "10.0.0.1", tcp(80), true),
                ("203.0.113.1", "10.0.0.1", tcp(1), false),
            ],
        );
    }

    #[test]
    fn empty_lists_match_nothing() {
        let nobody = TrafficMatch::new(Match::OneOf(vec![]), Match::Any);
        let no_port = TrafficMatch::new(Match::Any, Match::OneOf(vec![]));
        let cluster = with([ingress(is("a"), vec![nobody, no_port])]);
        check(&cluster, &[("10.0.0.2", "10.0.0.1", tcp(80), false)]);
        let cluster = with([ingress(is("a"), vec![TrafficMatch::everything()])]);
        check(&cluster, &[("10.0.0.2", "10.0.0.1", tcp(80), true)]);
    }

    #[test]
    fn tiers() {
        // CNP-30, CNP-31, CNP-33, CNP-35.
        let all = TrafficMatch::everything;
        let admin = |rules| Policy::admin("admin", 5, PodSelection::everything(), rules, vec![]);
        let baseline =
            |rules| Policy::baseline("base", 5, PodSelection::everything(), rules, vec![]);
        let np = |rules| ingress(Selector::everything(), rules);
        let verdict = |policies: Vec<Policy>| ask(&with(policies), "10.0.0.2", "10.0.0.1", tcp(80));
        let udp = || ports([PortEntry::Protocol(Protocol::Udp)]);
        assert!(verdict(vec![admin(vec![rule(Verdict::Allow, all())]), np(vec![])]));
        assert!(!verdict(vec![admin(vec![rule(Verdict::Deny, all())]), np(vec![all()])]));
        assert!(!verdict(vec![admin(vec![rule(Verdict::Pass, all())]), np(vec![])]));
        let first = vec![rule(Verdict::Pass, all()), rule(Verdict::Deny, all())];
        assert!(verdict(vec![admin(first)]), "the first rule that matches");
        let second = vec![rule(Verdict::Allow, udp()), rule(Verdict::Deny, all())];
        assert!(!verdict(vec![admin(second)]), "rules that do not match are skipped");
        assert!(!verdict(vec![baseline(vec![rule(Verdict::Deny, all())])]));
        assert!(verdict(vec![baseline(vec![rule(Verdict::Pass, all())])]), "Pass of the last tier");
        let deny = || baseline(vec![rule(Verdict::Deny, all())]);
        assert!(verdict(vec![np(vec![all()]), deny()]), "Baseline is not asked when isolated");
        assert!(
            !verdict(vec![egress(Selector::everything(), vec![all()]), deny()]),
            "per direction"
        );
        let skip = admin(vec![rule(Verdict::Pass, all())]);
        assert!(!verdict(vec![skip, deny()]), "Pass skips one tier only");
        assert!(
            !verdict(vec![admin(vec![rule(Verdict::Allow, all())]), egress(is("b"), vec![]),]),
            "both ends (CNP-36)"
        );
    }

    #[test]
    fn order_within_a_tier() {
        // CNP-31, CNP-32: priority as a number, then the name.
        let policy = |name: &str, priority, verdict| {
            let rules = vec![rule(verdict, TrafficMatch::everything())];
            Policy::admin(
                PolicyName::from(name),
                priority,
                PodSelection::everything(),
                rules,
                vec![],
            )
        };
        for (one, other, expected) in [
            (("a", 2, Verdict::Deny), ("b", 1, Verdict::Allow), true),
            (("a", 10, Verdict::Deny), ("b", 9, Verdict::Allow), true),
            (("a", 1, Verdict::Deny), ("b", 1, Verdict::Allow), false),
            (("a", 0, Verdict::Deny), ("b", -1, Verdict::Allow), true),
        ] {
            let cluster =
                with([one, other].map(|(name, priority, verdict)| policy(name, priority, verdict)));
            assert_eq!(
                ask(&cluster, "10.0.0.2", "10.0.0.1", tcp(80)),
                expected,
                "{one:?} {other:?}"
            );
        }
    }
}
