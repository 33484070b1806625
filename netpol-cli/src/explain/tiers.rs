//! What each tier said, in the order in which they are asked (CNP-30).

use super::report::RulePlace;
use netpol_core::{Cluster, Direction, Origin, Pod, Tier};
use netpol_sim::{Outcome, SideDecision};
use serde::Serialize;

/// One tier's part in a verdict.
#[derive(Serialize)]
pub(super) struct TierStep {
    tier: String,
    says: &'static str,
    /// The rule that decided, or that passed the connection on.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<RulePlace>,
}

impl TierStep {
    pub(super) fn text(&self) -> String {
        let Self { tier, says, rule } = self;
        let rule = rule.as_ref().map(|rule| format!(": {}", rule.text())).unwrap_or_default();
        format!("{tier:13}  {says}{rule}")
    }
}

/// The tiers up to the one that decided. None where there are no cluster-wide policies, or nobody was asked.
pub(super) fn steps(decision: &SideDecision, cluster: &Cluster) -> Vec<TierStep> {
    let cluster_wide = cluster.policies().any(|policy| policy.tier() != Tier::NetworkPolicy);
    let asked =
        !matches!(decision.outcome, Outcome::NoPod | Outcome::Open | Outcome::OtherProtocol);
    if !cluster_wide || !asked {
        return Vec::new();
    }
    let tier_of = |origin: &Origin| cluster.policy(&origin.policy).map(netpol_core::Policy::tier);
    let mut steps = Vec::new();
    for tier in [Tier::Admin, Tier::NetworkPolicy, Tier::Baseline] {
        let passed = decision.passed.iter().find(|origin| tier_of(origin) == Some(tier));
        let missed = decision.misses.iter().any(|miss| tier_of(&miss.origin) == Some(tier));
        let isolating = tier == Tier::NetworkPolicy;
        let (says, rule, last) = match &decision.outcome {
            Outcome::AllowedBy(origin) if tier_of(origin) == Some(tier) => {
                ("allows", Some(origin), true)
            }
            Outcome::DeniedBy(origin) if tier_of(origin) == Some(tier) => {
                ("denies", Some(origin), true)
            }
            Outcome::Isolated(_) if isolating => {
                ("denies: isolated, and no rule matches", None, true)
            }
            Outcome::OwnNode if isolating => ("allows the own node", None, true),
            _ if isolating => ("does not isolate the pod", None, false),
            _ => match (passed, missed) {
                (Some(origin), _) => ("passes", Some(origin), false),
                (None, true) => ("no rule matches", None, false),
                (None, false) => ("has no rule for the pod", None, false),
            },
        };
        let rule = rule.map(|origin| RulePlace::new(origin, cluster));
        steps.push(TierStep { tier: tier.to_string(), says, rule });
        if last {
            return steps;
        }
    }
    steps.push(TierStep { tier: "default".to_owned(), says: "allows", rule: None });
    steps
}

/// Did Baseline decide about a pod that a NetworkPolicy isolates in the other direction (CNP-35)?
pub(super) fn rests_on_direction(
    decision: &SideDecision,
    direction: Direction,
    subject: &Pod,
    cluster: &Cluster,
) -> bool {
    let (Outcome::AllowedBy(origin) | Outcome::DeniedBy(origin)) = &decision.outcome else {
        return false;
    };
    let tier = cluster.policy(&origin.policy).map(netpol_core::Policy::tier);
    let namespace = cluster.namespace(subject.id().namespace());
    tier == Some(Tier::Baseline)
        && cluster.policies().any(|policy| {
            policy.tier() == Tier::NetworkPolicy
                && policy.rules(direction).is_none()
                && policy.subject().matches(subject, namespace)
        })
}
