//! The rule IR: what the policies of a cluster mean for a set of pods, ready to be rendered, run or compared.
//!
//! A [`Ruleset`] is plain data. Sets say *who*, programs say *what is allowed*, endpoints say *to whom it applies*:
//!
//! ```text
//! endpoints   shop/web-0 ──ingress──> program 5f2c…        (pods with the same policies share a program)
//!                        └─egress───> none: open
//! program     tier Admin          rules in order, then NextTier
//!             tier NetworkPolicy  rules, then Deny
//!             tier Baseline       rules in order, then Allow
//! rule        peers (pod sets, net set) and ports (numbers, named-port sets) -> verdict, origin
//! ```
//!
//! A verdict is about one direction. A connection is allowed when the egress program of its source and the ingress
//! program of its destination both allow it (NP-14, CNP-36); replies follow (NP-60), and what a pod sends to itself is
//! never judged (NP-73).
//!
//! INVARIANT: every id that a program or an endpoint mentions is a key of the map that it belongs to, and every pod in a
//! set or an endpoint is a key of `pods`.

use crate::address_set::AddressSet;
use crate::content::{ContentHasher, NamedPortSetId, NetSetId, PodSetId, ProgramId};
use crate::name::{InterfaceName, PodId, PortName};
use crate::policy::{Direction, PodSelection, PolicyId, SourcePosition, Tier, Verdict};
use crate::port_set::{PortSet, Protocol};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The rules for the pods of one node, or of a whole cluster. Made by [`compile`](crate::compile), changed by
/// [`Ruleset::apply`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ruleset {
    pub(crate) pods: BTreeMap<PodId, Vec<IpAddr>>,
    pub(crate) pod_sets: BTreeMap<PodSetId, PodSet>,
    pub(crate) named_port_sets: BTreeMap<NamedPortSetId, NamedPortSet>,
    pub(crate) net_sets: BTreeMap<NetSetId, AddressSet>,
    pub(crate) programs: BTreeMap<ProgramId, Program>,
    pub(crate) endpoints: BTreeMap<PodId, Endpoint>,
    pub(crate) sources: BTreeMap<Origin, SourcePosition>,
}

impl Ruleset {
    /// The pods that the rules speak of, and the addresses that each owns: none yet, or any of both families.
    #[must_use]
    pub fn pods(&self) -> &BTreeMap<PodId, Vec<IpAddr>> {
        &self.pods
    }

    /// The addresses that a pod owns.
    #[must_use]
    pub fn addresses(&self, pod: &PodId) -> &[IpAddr] {
        self.pods.get(pod).map_or(&[], Vec::as_slice)
    }

    /// The sets of pods that rules refer to.
    #[must_use]
    pub fn pod_sets(&self) -> &BTreeMap<PodSetId, PodSet> {
        &self.pod_sets
    }

    /// The sets of named ports that rules refer to.
    #[must_use]
    pub fn named_port_sets(&self) -> &BTreeMap<NamedPortSetId, NamedPortSet> {
        &self.named_port_sets
    }

    /// The sets of networks that rules refer to: disjoint, merged, holes already subtracted (NP-35).
    #[must_use]
    pub fn net_sets(&self) -> &BTreeMap<NetSetId, AddressSet> {
        &self.net_sets
    }

    /// The programs that endpoints refer to.
    #[must_use]
    pub fn programs(&self) -> &BTreeMap<ProgramId, Program> {
        &self.programs
    }

    /// The pods that are policed here, and how.
    #[must_use]
    pub fn endpoints(&self) -> &BTreeMap<PodId, Endpoint> {
        &self.endpoints
    }

    /// The program of a pod in one direction. None means open: not isolated, no tier with a rule, or no endpoint.
    #[must_use]
    pub fn program(&self, pod: &PodId, direction: Direction) -> Option<&Program> {
        self.programs.get(&self.endpoints.get(pod)?.program(direction)?)
    }

    /// Where the policy or the rule was written, if it came from a file.
    #[must_use]
    pub fn source(&self, origin: &Origin) -> Option<&SourcePosition> {
        self.sources.get(origin)
    }

    /// A policy or a rule with its place, for people: `NetworkPolicy shop/web ingress[0] shop.yaml:12`.
    #[must_use]
    pub fn describe(&self, origin: &Origin) -> String {
        match self.source(origin) {
            Some(source) => format!("{origin} {source}"),
            None => origin.to_string(),
        }
    }

    /// All known places of policies and rules.
    #[must_use]
    pub fn sources(&self) -> &BTreeMap<Origin, SourcePosition> {
        &self.sources
    }
}

/// The pods of a selection.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PodSet {
    /// What defines the set, and its id.
    pub selection: PodSelection,
    /// The pods in it now, ordered.
    pub members: Vec<PodId>,
}

/// The numbers that the pods of a selection give to a port name (NP-42..NP-48).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct NamedPortSet {
    /// The pods that are looked at, as destinations; none stands for every managed pod (NP-43).
    pub selection: Option<PodSelection>,
    /// The direction of the rules that use it: for ingress only the pods policed here are members.
    pub direction: Direction,
    /// The protocol, which must be the container port's (NP-45).
    pub protocol: Protocol,
    /// The port's name.
    pub name: PortName,
    /// The pods that expose the name now, with the number; ordered. A pod may have several (NP-46).
    pub members: Vec<(PodId, u16)>,
}

/// How a pod is policed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Endpoint {
    /// What may reach it; none if everything may.
    pub ingress: Option<ProgramId>,
    /// What it may reach; none if everything.
    pub egress: Option<ProgramId>,
    /// Its host-side interface, if the embedder told.
    pub interface: Option<InterfaceName>,
}

impl Endpoint {
    /// The program of one direction.
    #[must_use]
    pub fn program(&self, direction: Direction) -> Option<ProgramId> {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

/// What applies to a pod in one direction: the blocks of its tiers, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Program {
    /// The direction.
    pub direction: Direction,
    /// At most one block per tier, in the order of the tiers; never empty.
    pub blocks: Vec<TierBlock>,
}

impl Program {
    /// Could a rule deny before the NetworkPolicy tier is asked, or of Baseline where it is not? If not, the program lets all
    /// traffic with the own node pass, from which NetworkPolicies are exempt (NP-70, CNP-38).
    #[must_use]
    pub fn denies_before_network_policies(&self) -> bool {
        let mut blocks = self.blocks.iter().take_while(|block| block.tier != Tier::NetworkPolicy);
        blocks.any(|block| block.rules.iter().any(|rule| rule.verdict == Verdict::Deny))
    }
}

/// One tier of a program.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TierBlock {
    /// The tier.
    pub tier: Tier,
    /// The policies that apply, in order.
    pub policies: Vec<PolicyId>,
    /// Their rules. The first that matches decides; in the NetworkPolicy tier, where all allow, order means nothing.
    pub rules: Vec<Rule>,
    /// What holds if no rule matches. It is also where [`Verdict::Pass`] leads, which no rule of the NetworkPolicy tier
    /// has.
    pub end: TierEnd,
}

/// What happens at the end of a tier.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "back ends must handle each")]
pub enum TierEnd {
    /// The direction is allowed.
    Allow,
    /// The direction is denied: the pod is isolated (NP-11).
    Deny,
    /// The next block decides. Never the end of a program's last block.
    NextTier,
}

/// One rule: it matches when its peers *and* its ports do (NP-13).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// The remote end.
    pub peers: PeerMatch,
    /// The protocol and the destination port.
    pub ports: PortMatch,
    /// What it decides for the direction.
    pub verdict: Verdict,
    /// Which rule of which policy it is.
    pub origin: Origin,
}

/// The remote ends that a rule matches.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "everything, or what is listed; the two must never be mixed up (F01)"
)]
pub enum PeerMatch {
    /// Every remote end, in the cluster or not.
    Any,
    /// A pod in one of the sets, or an address of the networks. Nothing, if there are neither (NP-123).
    OneOf {
        /// The sets, ordered and unique.
        pods: Vec<PodSetId>,
        /// The networks, which match whoever has the address (NP-32).
        networks: Option<NetSetId>,
    },
}

/// The protocols and ports that a rule matches: a number, or the number that the destination gives to a name. Nothing, if
/// there are neither.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PortMatch {
    /// Ports by number; [`PortSet::full`] for a rule without ports, the only kind that matches other protocols (NP-51).
    pub numbers: PortSet,
    /// Ports by name: (destination, protocol, port) in one of these sets. Ordered and unique.
    pub named: Vec<NamedPortSetId>,
}

/// Which policy, or which rule of it, a thing comes from.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_structs, reason = "leads to one place in one object")]
pub struct Origin {
    /// The policy.
    pub policy: PolicyId,
    /// The rule: its direction and its position in that list, from 0. None for the policy as a whole.
    pub rule: Option<(Direction, u32)>,
}

impl std::fmt::Display for Origin {
    /// `NetworkPolicy shop/web ingress[0]`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.rule {
            Some((direction, rule)) => write!(f, "{} {direction}[{rule}]", self.policy),
            None => self.policy.fmt(f),
        }
    }
}

impl PodSet {
    pub(crate) fn id(selection: &PodSelection) -> PodSetId {
        let mut content = ContentHasher::new("pod set");
        content.selection(selection);
        PodSetId::new(content)
    }
}

impl NamedPortSet {
    pub(crate) fn id(
        selection: Option<&PodSelection>,
        direction: Direction,
        protocol: Protocol,
        name: &PortName,
    ) -> NamedPortSetId {
        let mut content = ContentHasher::new("named port set");
        content.number(u8::from(selection.is_some()));
        if let Some(selection) = selection {
            content.selection(selection);
        }
        content.number(direction as u8);
        content.number(protocol.number());
        content.text(name.as_str());
        NamedPortSetId::new(content)
    }
}

pub(crate) fn net_set_id(addresses: &AddressSet) -> NetSetId {
    let mut content = ContentHasher::new("net set");
    for (first, last) in addresses.v4_ranges().map(|r| (*r.start(), *r.end())) {
        content.bytes(&first.octets());
        content.bytes(&last.octets());
    }
    for (first, last) in addresses.v6_ranges().map(|r| (*r.start(), *r.end())) {
        content.bytes(&first.octets());
        content.bytes(&last.octets());
    }
    NetSetId::new(content)
}

impl Program {
    pub(crate) fn id(&self) -> ProgramId {
        let mut content = ContentHasher::new("program");
        content.number(self.direction as u8);
        content.count(self.blocks.len());
        for block in &self.blocks {
            content.number(block.tier as u8);
            content.number(block.end as u8);
            content.count(block.policies.len());
            for policy in &block.policies {
                hash_policy(&mut content, policy);
            }
            content.count(block.rules.len());
            for rule in &block.rules {
                rule.hash(&mut content);
            }
        }
        ProgramId::new(content)
    }
}

impl Rule {
    fn hash(&self, content: &mut ContentHasher) {
        match &self.peers {
            PeerMatch::Any => content.number(0),
            PeerMatch::OneOf { pods, networks } => {
                content.number(1);
                content.count(pods.len());
                for id in pods {
                    content.bytes(id.as_bytes());
                }
                content.bytes(networks.as_ref().map_or(&[], |id| id.as_bytes()));
            }
        }
        for protocol in Protocol::ALL {
            let ports = self.ports.numbers.ports(protocol);
            content.count(ports.intervals().len());
            for range in ports.intervals() {
                content.bytes(&range.start().to_be_bytes());
                content.bytes(&range.end().to_be_bytes());
            }
        }
        content.number(u8::from(self.ports.numbers.other()));
        content.count(self.ports.named.len());
        for id in &self.ports.named {
            content.bytes(id.as_bytes());
        }
        content.number(self.verdict as u8);
        hash_policy(content, &self.origin.policy);
        // The direction is the program's.
        content.count(self.origin.rule.map_or(0, |(_, rule)| rule as usize));
    }
}

fn hash_policy(content: &mut ContentHasher, policy: &PolicyId) {
    content.text(&policy.kind.to_string());
    content.text(policy.namespace.as_ref().map_or("", |namespace| namespace.as_str()));
    content.text(policy.name.as_str());
}
