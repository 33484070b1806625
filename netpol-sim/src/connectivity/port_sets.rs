//! Port sets by number, with remembered unions and intersections: a cluster has few distinct ones.

use netpol_core::PortSet;
use std::collections::HashMap;

/// A port set of one [`Connectivity`](super::Connectivity): equal sets have equal ids.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PortSetId(u32);

impl PortSetId {
    /// The empty set.
    pub const EMPTY: Self = Self(0);
    /// The full set.
    pub const FULL: Self = Self(1);
}

#[derive(Clone, Copy, Eq, Hash, PartialEq)]
enum Operation {
    Union,
    Intersection,
}

/// The port sets met so far.
pub(super) struct PortSets {
    sets: Vec<PortSet>,
    ids: HashMap<PortSet, PortSetId>,
    results: HashMap<(Operation, PortSetId, PortSetId), PortSetId>,
}

impl PortSets {
    pub(super) fn new() -> Self {
        let mut sets = Self { sets: Vec::new(), ids: HashMap::new(), results: HashMap::new() };
        sets.intern(PortSet::empty());
        sets.intern(PortSet::full());
        sets
    }

    pub(super) fn intern(&mut self, set: PortSet) -> PortSetId {
        if let Some(&id) = self.ids.get(&set) {
            return id;
        }
        let id = PortSetId(u32::try_from(self.sets.len()).unwrap_or(u32::MAX));
        self.ids.insert(set.clone(), id);
        self.sets.push(set);
        id
    }

    pub(super) fn set(&self, id: PortSetId) -> &PortSet {
        const NOTHING: &PortSet = &PortSet::EMPTY;
        self.sets.get(id.0 as usize).unwrap_or(NOTHING)
    }

    pub(super) fn union(&mut self, a: PortSetId, b: PortSetId) -> PortSetId {
        match (a, b) {
            _ if a == b => a,
            (PortSetId::FULL, _) | (_, PortSetId::FULL) => PortSetId::FULL,
            (PortSetId::EMPTY, other) | (other, PortSetId::EMPTY) => other,
            _ => self.result(Operation::Union, a, b),
        }
    }

    pub(super) fn intersection(&mut self, a: PortSetId, b: PortSetId) -> PortSetId {
        match (a, b) {
            _ if a == b => a,
            (PortSetId::EMPTY, _) | (_, PortSetId::EMPTY) => PortSetId::EMPTY,
            (PortSetId::FULL, other) | (other, PortSetId::FULL) => other,
            _ => self.result(Operation::Intersection, a, b),
        }
    }

    fn result(&mut self, operation: Operation, a: PortSetId, b: PortSetId) -> PortSetId {
        let key = (operation, a.min(b), a.max(b));
        if let Some(&id) = self.results.get(&key) {
            return id;
        }
        let result = match operation {
            Operation::Union => self.set(a).union(self.set(b)),
            Operation::Intersection => self.set(a).intersection(self.set(b)),
        };
        let id = self.intern(result);
        self.results.insert(key, id);
        id
    }
}
