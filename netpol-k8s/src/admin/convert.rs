//! The parts of a policy into the model, fail closed (CNP-40).

use super::parts::{Action, Part, PolicyParts, RuleParts};
use super::{Kind, LEFT_OUT};
use crate::convert::Converter;
use crate::diagnostic::Diagnostic;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use netpol_core::{
    Direction, Match, PodSelection, Policy, PolicyName, PolicyRule, SourcePosition, Tier,
    TrafficMatch, Verdict,
};

/// The priority of the one policy of v1alpha1 that has none: it is asked last (CNP-50).
pub(super) const LAST_PRIORITY: i32 = 1000;

/// What of the spec is not known beside its parts.
#[derive(Default)]
pub(super) struct Closed {
    /// The first key of the spec that nobody knows.
    pub(super) unknown_key: Option<String>,
}

/// What a conversion needs beside the parts.
pub(super) struct Context<'a> {
    pub(super) kind: Kind,
    pub(super) closed: Closed,
    pub(super) position: &'a dyn Fn(Option<(Direction, usize)>) -> Option<SourcePosition>,
}

/// The policy; and for each part that failed closed, its field and what follows.
pub(super) struct Converted {
    pub(super) policy: Option<Policy>,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) consequences: Vec<(String, String)>,
}

impl Context<'_> {
    pub(super) fn policy(
        &self,
        metadata: &ObjectMeta,
        parts: PolicyParts,
        converter: &mut Converter,
    ) -> Converted {
        let PolicyParts { tier, priority, subject, rules, mut diagnostics } = parts;
        let mut consequences = Vec::new();
        let tier = match (self.kind, tier.as_deref()) {
            (Kind::Admin, _) | (Kind::Cluster, Some("Admin")) => Tier::Admin,
            (Kind::Baseline, _) | (Kind::Cluster, Some("Baseline")) => Tier::Baseline,
            (Kind::Cluster, _) => {
                consequences.push(("spec.tier".to_owned(), LEFT_OUT.to_owned()));
                return Converted { policy: None, diagnostics, consequences };
            }
        };
        let priority = match (self.kind, priority) {
            (Kind::Baseline, _) => Some(LAST_PRIORITY),
            (_, priority) => priority,
        };
        // What is not known might be a reason for which the policy does not apply: then it must not let anything through.
        let only_denials = "only its denials hold";
        let mut denials_only = false;
        if subject.broken {
            denials_only = true;
            let all = format!("{only_denials}, for every pod that could be meant");
            consequences.push((subject.field, all));
        }
        if priority.is_none() {
            denials_only = true;
            let first = format!("{only_denials}, before every other policy of the tier");
            consequences.push(("spec.priority".to_owned(), first));
        }
        if let Some(key) = &self.closed.unknown_key {
            denials_only = true;
            let more = format!("{only_denials}, and a direction without rules is denied");
            consequences.push((key.clone(), more));
        }
        let (mut ingress, mut egress) = (Vec::new(), Vec::new());
        for rule in rules {
            let direction = rule.direction;
            let source = (self.position)(Some((direction, rule.index)));
            let mut rule =
                Rule { source, diagnostics: &mut diagnostics, consequences: &mut consequences }
                    .convert(rule);
            if denials_only {
                match rule.verdict {
                    Verdict::Allow => rule.matches.peers = Match::OneOf(Vec::new()),
                    Verdict::Pass => rule.verdict = Verdict::Deny,
                    Verdict::Deny => {}
                }
            }
            match direction {
                Direction::Ingress => ingress.push(rule),
                Direction::Egress => egress.push(rule),
            }
        }
        if self.closed.unknown_key.is_some() {
            for rules in [&mut ingress, &mut egress] {
                if rules.is_empty() {
                    rules.push(deny_all((self.position)(None)));
                }
            }
        }
        let source = (self.position)(None);
        let name = converter.identity(metadata).0.map_or_else(
            || match &source {
                // Two policies without a name must not replace one another.
                Some(at) => PolicyName::from(format!("<unnamed, {at}>")),
                None => PolicyName::from("<unnamed>"),
            },
            PolicyName::from,
        );
        let priority = priority.unwrap_or(i32::MIN);
        let subject = subject.known.into_iter().next().unwrap_or_else(PodSelection::everything);
        let new = if tier == Tier::Admin { Policy::admin } else { Policy::baseline };
        let mut policy =
            new(name, priority, subject, ingress, egress).with_kind(self.kind.policy_kind());
        if let Some(source) = source {
            policy = policy.with_source(source);
        }
        Converted { policy: Some(policy), diagnostics, consequences }
    }
}

fn deny_all(source: Option<SourcePosition>) -> PolicyRule {
    let matches = TrafficMatch { source, ..TrafficMatch::everything() };
    PolicyRule { matches, verdict: Verdict::Deny }
}

/// The conversion of one rule.
struct Rule<'a> {
    source: Option<SourcePosition>,
    diagnostics: &'a mut Vec<Diagnostic>,
    consequences: &'a mut Vec<(String, String)>,
}

impl Rule<'_> {
    fn convert(self, rule: RuleParts) -> PolicyRule {
        let RuleParts { direction, index, action, peers, ports } = rule;
        let field = format!("spec.{direction}[{index}]");
        for peer in peers.iter().filter(|peer| peer.only_to_accept) {
            let names = format!("{}.domainNames", peer.field);
            self.diagnostics.push(if action == Action::Accept {
                let message = "domain names are not enforced yet: this peer matches nothing";
                Diagnostic::warning("CNP-19", message).in_field(names)
            } else {
                let message = "domain names can only be accepted";
                Diagnostic::error("CNP-19", message).in_field(names)
            });
        }
        let accepts = action == Action::Accept;
        let broken_parts: Vec<String> = broken(&peers, accepts)
            .chain(ports.iter().flat_map(|ports| broken(ports, accepts)))
            .map(str::to_owned)
            .collect();
        // Neither list may be empty: what an empty one means is not known.
        let without = peers.is_empty() || ports.as_ref().is_some_and(Vec::is_empty);
        if accepts {
            for part in broken_parts {
                self.consequences.push((part, "it matches nothing".to_owned()));
            }
            if without {
                self.consequences.push((field, "the rule matches nothing".to_owned()));
            }
            let peers = Match::OneOf(known(peers));
            let ports = ports.map_or(Match::Any, |ports| Match::OneOf(known(ports)));
            let matches = TrafficMatch { peers, ports, source: self.source };
            return PolicyRule { matches, verdict: Verdict::Allow };
        }
        if without || !broken_parts.is_empty() {
            let whole = (without || action == Action::Unknown).then_some(field);
            for part in broken_parts.into_iter().chain(whole) {
                self.consequences.push((part, format!("the rule denies all {direction}")));
            }
            return deny_all(self.source);
        }
        if action == Action::Unknown {
            self.consequences.push((format!("{field}.action"), "the rule denies".to_owned()));
        }
        let verdict = if action == Action::Pass { Verdict::Pass } else { Verdict::Deny };
        let peers = Match::OneOf(known(peers));
        let ports = ports.map_or(Match::Any, |ports| Match::OneOf(known(ports)));
        PolicyRule { matches: TrafficMatch { peers, ports, source: self.source }, verdict }
    }
}

fn broken<T>(parts: &[Part<T>], accepts: bool) -> impl Iterator<Item = &str> {
    let broken = move |part: &&Part<T>| part.broken || part.only_to_accept && !accepts;
    parts.iter().filter(broken).map(|part| part.field.as_str())
}

fn known<T>(parts: Vec<Part<T>>) -> Vec<T> {
    parts.into_iter().flat_map(|part| part.known).collect()
}
