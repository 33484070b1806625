//! What changes between two rulesets. Because ids derive from content, it is a difference of ids and of members.

use crate::address_set::AddressSet;
use crate::content::{NamedPortSetId, NetSetId, PodSetId, ProgramId};
use crate::name::PodId;
use crate::policy::SourcePosition;
use crate::ruleset::{Endpoint, NamedPortSet, Origin, PodSet, Program, Ruleset};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What happens to one entry of a map.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "an entry is set or gone")]
pub enum Change<T> {
    /// It now has this value, whether it is new or not.
    Set(T),
    /// It is gone.
    Removed,
}

/// What happens to one set whose members come and go.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "back ends must handle each")]
pub enum SetChange<T, M> {
    /// The set is new.
    Added(T),
    /// The set is gone.
    Removed,
    /// The set stays, its members change. Both lists are ordered and have nothing in common.
    Members {
        /// Members that join.
        added: Vec<M>,
        /// Members that leave.
        removed: Vec<M>,
    },
}

/// The difference between two rulesets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Delta {
    /// Pods whose addresses change. An address change alone touches no set here: a back end that stores addresses looks up
    /// the sets that the pod is in.
    pub pods: BTreeMap<PodId, Change<Vec<IpAddr>>>,
    /// Sets of pods.
    pub pod_sets: BTreeMap<PodSetId, SetChange<PodSet, PodId>>,
    /// Sets of named ports.
    pub named_port_sets: BTreeMap<NamedPortSetId, SetChange<NamedPortSet, (PodId, u16)>>,
    /// Sets of networks: their id is their content, so they only come and go.
    pub net_sets: BTreeMap<NetSetId, Change<AddressSet>>,
    /// Programs: they too only come and go.
    pub programs: BTreeMap<ProgramId, Change<Program>>,
    /// Endpoints that appear, go, or are policed by another program.
    pub endpoints: BTreeMap<PodId, Change<Endpoint>>,
    /// Places in files. No verdict depends on them.
    pub sources: BTreeMap<Origin, Change<SourcePosition>>,
}

impl Delta {
    /// What must change for `old` to become `new`.
    ///
    /// Linear in the size of both.
    #[must_use]
    pub fn between(old: &Ruleset, new: &Ruleset) -> Self {
        Self {
            pods: changes(&old.pods, &new.pods),
            pod_sets: set_changes(&old.pod_sets, &new.pod_sets, |set| &set.members),
            named_port_sets: set_changes(&old.named_port_sets, &new.named_port_sets, |set| {
                &set.members
            }),
            net_sets: changes(&old.net_sets, &new.net_sets),
            programs: changes(&old.programs, &new.programs),
            endpoints: changes(&old.endpoints, &new.endpoints),
            sources: changes(&old.sources, &new.sources),
        }
    }

    /// Does nothing change?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Ruleset {
    /// Makes the changes of `delta`: `old.apply(Delta::between(old, new))` makes `old` equal to `new`.
    pub fn apply(&mut self, delta: &Delta) {
        apply(&mut self.pods, &delta.pods);
        apply_sets(&mut self.pod_sets, &delta.pod_sets, |set| &mut set.members);
        apply_sets(&mut self.named_port_sets, &delta.named_port_sets, |set| &mut set.members);
        apply(&mut self.net_sets, &delta.net_sets);
        apply(&mut self.programs, &delta.programs);
        apply(&mut self.endpoints, &delta.endpoints);
        apply(&mut self.sources, &delta.sources);
    }
}

fn changes<K: Clone + Ord, V: Clone + Eq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> BTreeMap<K, Change<V>> {
    let removed = old.keys().filter(|key| !new.contains_key(key));
    let set = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    removed
        .map(|key| (key.clone(), Change::Removed))
        .chain(set.map(|(key, value)| (key.clone(), Change::Set(value.clone()))))
        .collect()
}

fn set_changes<K: Clone + Ord, T: Clone, M: Clone + Ord>(
    old: &BTreeMap<K, T>,
    new: &BTreeMap<K, T>,
    members: fn(&T) -> &Vec<M>,
) -> BTreeMap<K, SetChange<T, M>> {
    let removed = old.keys().filter(|key| !new.contains_key(key));
    let mut changes: BTreeMap<K, _> =
        removed.map(|key| (key.clone(), SetChange::Removed)).collect();
    for (key, set) in new {
        let Some(before) = old.get(key) else {
            changes.insert(key.clone(), SetChange::Added(set.clone()));
            continue;
        };
        let (before, after) = (members(before), members(set));
        if before != after {
            let missing = |from: &Vec<M>, other: &Vec<M>| -> Vec<M> {
                from.iter().filter(|m| other.binary_search(m).is_err()).cloned().collect()
            };
            let (added, removed) = (missing(after, before), missing(before, after));
            changes.insert(key.clone(), SetChange::Members { added, removed });
        }
    }
    changes
}

fn apply<K: Clone + Ord, V: Clone>(map: &mut BTreeMap<K, V>, changes: &BTreeMap<K, Change<V>>) {
    for (key, change) in changes {
        match change {
            Change::Set(value) => map.insert(key.clone(), value.clone()),
            Change::Removed => map.remove(key),
        };
    }
}

fn apply_sets<K: Clone + Ord, T: Clone, M: Clone + Ord>(
    sets: &mut BTreeMap<K, T>,
    changes: &BTreeMap<K, SetChange<T, M>>,
    members: fn(&mut T) -> &mut Vec<M>,
) {
    for (key, change) in changes {
        match change {
            SetChange::Added(set) => {
                sets.insert(key.clone(), set.clone());
            }
            SetChange::Removed => {
                sets.remove(key);
            }
            SetChange::Members { added, removed } => {
                if let Some(set) = sets.get_mut(key) {
                    let members = members(set);
                    members.retain(|m| removed.binary_search(m).is_err());
                    members.extend(added.iter().cloned());
                    members.sort_unstable();
                }
            }
        }
    }
}
