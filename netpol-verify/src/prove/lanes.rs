//! Many packets at once: those of a run differ in one address, and in the device that goes with it. Each is a *lane*, a bit of a
//! [`Mask`].

use super::mask::Mask;
use crate::machine::Field;
use smallvec::SmallVec;

/// One packet of a run, where it differs from the others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Lane {
    pub(super) address: u128,
    pub(super) device: Option<u128>,
}

/// The lanes of a run, and which fields they are.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) lanes: Vec<Lane>,
    /// `Source` or `Destination`.
    pub(super) address: Field,
    /// `InDevice` or `OutDevice`, the one that belongs to the address.
    pub(super) device: Field,
}

/// Which lanes passed, which were dropped, and of which nobody knows.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Passed; if something was not understood on the way, in the second.
    pub(super) accepted: [Mask; 2],
    /// Dropped; if something was not understood on the way, in the second.
    pub(super) dropped: [Mask; 2],
    /// Came to something after which anything may happen.
    pub(super) unknown: Mask,
}

impl Outcome {
    pub(super) fn of_nothing(count: usize) -> Self {
        let none = Mask::none(count);
        Self {
            accepted: [none.clone(), none.clone()],
            dropped: [none.clone(), none.clone()],
            unknown: none,
        }
    }

    /// Was everything on the way understood?
    pub(super) fn is_sure(&self) -> bool {
        let unsure = [&self.accepted[1], &self.dropped[1], &self.unknown];
        unsure.into_iter().all(Mask::is_empty)
    }

    /// Nothing happened to any lane yet.
    pub(super) fn is_empty(&self) -> bool {
        let all = self.accepted.iter().chain(&self.dropped).chain([&self.unknown]);
        all.into_iter().all(Mask::is_empty)
    }
}

/// Lanes with what the kernel knows of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Group {
    pub(super) mask: Mask,
    /// None if it was set to something unknown.
    pub(super) mark: Option<u32>,
    /// Was something not understood on the way here?
    pub(super) tainted: bool,
}

impl Group {
    pub(super) fn with(&self, mask: Mask) -> Self {
        Self { mask, mark: self.mark, tainted: self.tainted }
    }
}

/// Lanes that differ in what the kernel knows of them.
pub(super) type Groups = SmallVec<[Group; 2]>;

pub(super) fn push(groups: &mut Groups, group: Group) {
    if group.mask.is_empty() {
        return;
    }
    let same = |other: &&mut Group| other.mark == group.mark && other.tainted == group.tainted;
    match groups.iter_mut().find(same) {
        Some(other) => other.mask.add(&group.mask),
        None => groups.push(group),
    }
}
