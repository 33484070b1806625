//! The contract of everything that enforces a [`Ruleset`]: the kernel through nftables or iptables, or a simulator.

use crate::address_set::AddressSet;
use crate::content::{NamedPortSetId, NetSetId, PodSetId, ProgramId};
use crate::delta::Delta;
use crate::policy::Direction;
use crate::ruleset::Ruleset;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::IpAddr;

/// Something that enforces a ruleset. Not sealed: a CNI may bring its own.
///
/// The promise of every implementation: a packet sees the verdict of the old ruleset or of the new one, never anything
/// else; and when a call fails, what was enforced before is still enforced.
pub trait Backend {
    /// Why a call failed.
    type Error: Error + Send + Sync + 'static;

    /// Enforces `ruleset` and nothing else. Where it already is enforced, nothing is touched.
    ///
    /// # Errors
    ///
    /// The old ruleset could not be replaced; it is still in force.
    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), Self::Error>;

    /// Enforces what was enforced before with these changes. The work is that of the changes, not of the ruleset.
    ///
    /// # Errors
    ///
    /// The changes could not be made; the old ruleset is still in force.
    fn apply(&mut self, delta: &Delta) -> Result<(), Self::Error>;

    /// What is enforced now, read back from where it is enforced; none if nothing is installed.
    ///
    /// # Errors
    ///
    /// It could not be read, or not be understood.
    fn installed(&mut self) -> Result<Option<Inventory>, Self::Error>;

    /// Takes everything away. Succeeds where nothing is installed. All pods are open then.
    ///
    /// # Errors
    ///
    /// Something is left.
    fn remove(&mut self) -> Result<(), Self::Error>;
}

/// What a back end has installed, in terms that a kernel knows: addresses and ids.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Inventory {
    /// The addresses of each set of pods.
    pub pod_sets: BTreeMap<PodSetId, BTreeSet<IpAddr>>,
    /// The addresses and ports of each set of named ports.
    pub named_port_sets: BTreeMap<NamedPortSetId, BTreeSet<(IpAddr, u16)>>,
    /// The addresses of each set of networks.
    pub net_sets: BTreeMap<NetSetId, AddressSet>,
    /// The programs.
    pub programs: BTreeSet<ProgramId>,
    /// Which program polices which local address.
    pub dispatch: BTreeMap<(Direction, IpAddr), ProgramId>,
}

impl Inventory {
    /// What must be installed when `ruleset` is enforced.
    #[must_use]
    pub fn of(ruleset: &Ruleset) -> Self {
        let pod_sets = ruleset.pod_sets().iter().map(|(&id, set)| {
            (id, set.members.iter().flat_map(|pod| ruleset.addresses(pod)).copied().collect())
        });
        let named_port_sets = ruleset.named_port_sets().iter().map(|(&id, set)| {
            let members = set.members.iter().flat_map(|(pod, port)| {
                ruleset.addresses(pod).iter().map(|&address| (address, *port))
            });
            (id, members.collect())
        });
        let dispatch = ruleset.endpoints().iter().flat_map(|(pod, endpoint)| {
            Direction::ALL.into_iter().flat_map(move |direction| {
                let addresses = ruleset.addresses(pod).iter();
                endpoint.program(direction).into_iter().flat_map(move |program| {
                    addresses.clone().map(move |&address| ((direction, address), program))
                })
            })
        });
        Self {
            pod_sets: pod_sets.collect(),
            named_port_sets: named_port_sets.collect(),
            net_sets: ruleset.net_sets().clone(),
            programs: ruleset.programs().keys().copied().collect(),
            dispatch: dispatch.collect(),
        }
    }
}
