//! Sets of packets as binary decision diagrams, by the crate `oxidd`: nodes are shared by all sets, complement is free,
//! and two sets are equal if and only if they are the same node.

use crate::machine::Range;
use oxidd::bcdd::{BCDDFunction, BCDDManagerRef, new_manager};
use oxidd::util::{AllocResult, OptBool};
use oxidd::{BooleanFunction as _, BooleanFunctionQuant as _, Manager as _, ManagerRef as _};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A set of packets.
pub(super) type Diagram = BCDDFunction;

/// Consecutive variables that hold a number, its highest bit first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Block {
    first: u32,
    width: u32,
}

impl Block {
    pub(super) const fn new(first: u32, width: u32) -> Self {
        Self { first, width }
    }

    /// The variables behind these.
    pub(super) const fn then(self, width: u32) -> Self {
        Self { first: self.first + self.width, width }
    }

    /// The last bits of it.
    pub(super) const fn low(self, width: u32) -> Self {
        Self { first: self.first + self.width - width, width }
    }

    const fn end(self) -> u32 {
        self.first + self.width
    }
}

/// The diagrams of one proof.
pub(super) struct Diagrams {
    manager: BCDDManagerRef,
    none: Diagram,
    all: Diagram,
    variables: Vec<Diagram>,
    /// Was there no room for a node? Then no diagram made since means anything.
    full: Cell<bool>,
}

impl Diagrams {
    /// Room for so many nodes over variables up to the end of a block; none if there is no memory.
    pub(super) fn new(nodes: usize, last: Block) -> Option<Self> {
        let manager = new_manager(nodes, nodes / 2, 1);
        manager.with_manager_exclusive(|all| all.add_vars(last.end()));
        let (none, all) = manager.with_manager_shared(|m| (Diagram::f(m), Diagram::t(m)));
        let variables: AllocResult<Vec<Diagram>> =
            (0..last.end()).map(|v| manager.with_manager_shared(|m| Diagram::var(m, v))).collect();
        let variables = variables.ok()?;
        Some(Self { manager, none, all, variables, full: Cell::new(false) })
    }

    /// Was there no room? Then nothing that was found counts.
    pub(super) fn is_full(&self) -> bool {
        self.full.get()
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.manager.with_manager_shared(|manager| manager.num_inner_nodes())
    }

    fn checked(&self, made: AllocResult<Diagram>) -> Diagram {
        made.unwrap_or_else(|_| {
            self.full.set(true);
            self.none.clone()
        })
    }

    pub(super) fn none(&self) -> Diagram {
        self.none.clone()
    }

    pub(super) fn all(&self) -> Diagram {
        self.all.clone()
    }

    /// Everything, or nothing.
    pub(super) fn constant(&self, holds: bool) -> Diagram {
        if holds { self.all() } else { self.none() }
    }

    pub(super) fn is_none(&self, a: &Diagram) -> bool {
        *a == self.none
    }

    pub(super) fn and(&self, a: &Diagram, b: &Diagram) -> Diagram {
        if *a == self.all {
            return b.clone();
        }
        if *b == self.all || a == b || self.is_none(a) {
            return a.clone();
        }
        self.checked(a.and(b))
    }

    pub(super) fn or(&self, a: &Diagram, b: &Diagram) -> Diagram {
        if self.is_none(a) {
            return b.clone();
        }
        if self.is_none(b) || a == b {
            return a.clone();
        }
        self.checked(a.or(b))
    }

    pub(super) fn not(&self, a: &Diagram) -> Diagram {
        self.checked(a.not())
    }

    /// What is in `a` and not in `b`.
    pub(super) fn minus(&self, a: &Diagram, b: &Diagram) -> Diagram {
        if self.is_none(b) {
            return a.clone();
        }
        self.and(a, &self.not(b))
    }

    pub(super) fn union<'d>(&self, all: impl IntoIterator<Item = &'d Diagram>) -> Diagram {
        all.into_iter().fold(self.none(), |a, b| self.or(&a, b))
    }

    /// The numbers in these intervals.
    pub(super) fn within(&self, block: Block, ranges: &[Range]) -> Diagram {
        let pieces: Vec<(Range, Diagram)> =
            joined(ranges).into_iter().map(|range| (range, self.all())).collect();
        self.pieces(block, &pieces)
    }

    /// One number.
    pub(super) fn point(&self, block: Block, value: impl Into<u128>) -> Diagram {
        self.within(block, &[Range::one(value)])
    }

    /// For the numbers of each interval what stands with it, and nothing for the rest. The intervals are ordered and do not
    /// overlap, what stands with them is about variables behind the block.
    pub(super) fn pieces(&self, block: Block, pieces: &[(Range, Diagram)]) -> Diagram {
        self.build(block, (0, 0), pieces)
    }

    /// As [`Self::pieces`], with something else for the rest.
    pub(super) fn pieces_or(
        &self,
        block: Block,
        pieces: &[(Range, Diagram)],
        rest: &Diagram,
    ) -> Diagram {
        let mut filled: Vec<(Range, Diagram)> = Vec::with_capacity(2 * pieces.len() + 1);
        let mut next = Some(0u128);
        for (range, diagram) in pieces {
            let gap = next.and_then(|next| Some((next, range.first.checked_sub(1)?)));
            if let Some((first, last)) = gap.filter(|(first, last)| first <= last) {
                filled.push((Range { first, last }, rest.clone()));
            }
            filled.push((*range, diagram.clone()));
            next = range.last.checked_add(1);
        }
        filled.extend(next.map(|first| (Range { first, last: u128::MAX }, rest.clone())));
        self.pieces(block, &filled)
    }

    /// The part of a block's numbers that begins with `low` and in which `depth` bits are decided.
    fn build(
        &self,
        block: Block,
        (depth, low): (u32, u128),
        pieces: &[(Range, Diagram)],
    ) -> Diagram {
        let free = block.width - depth;
        let high = low | 1u128.checked_shl(free).map_or(u128::MAX, |count| count - 1);
        let from = pieces.partition_point(|(range, _)| range.last < low);
        let to = pieces.partition_point(|(range, _)| range.first <= high);
        let pieces = pieces.get(from..to).unwrap_or_default();
        match pieces {
            [] => return self.none(),
            [(range, diagram)] if range.first <= low && high <= range.last => {
                return diagram.clone();
            }
            _ => {}
        }
        let Some(bit) = free.checked_sub(1).map(|shift| 1u128 << shift) else {
            // One number, two intervals: there are none such.
            return self.none();
        };
        let zero = self.build(block, (depth + 1, low), pieces);
        let one = self.build(block, (depth + 1, low | bit), pieces);
        self.branch(block.first + depth, &one, &zero)
    }

    fn branch(&self, variable: u32, one: &Diagram, zero: &Diagram) -> Diagram {
        if one == zero {
            return one.clone();
        }
        let variable = usize::try_from(variable).ok().and_then(|at| self.variables.get(at));
        match variable {
            Some(variable) => self.checked(variable.ite(one, zero)),
            None => self.none(),
        }
    }

    /// The union of boxes, one interval for each block. The blocks stand in the order of their variables.
    pub(super) fn boxes(&self, blocks: &[Block], boxes: &[&[Range]]) -> Diagram {
        let Some((block, rest)) = blocks.split_first() else {
            return self.constant(!boxes.is_empty());
        };
        if rest.is_empty() {
            let ranges: Vec<Range> = boxes.iter().filter_map(|one| one.first().copied()).collect();
            return self.within(*block, &ranges);
        }
        let mut groups: BTreeMap<Range, Vec<&[Range]>> = BTreeMap::new();
        for one in boxes {
            if let Some((first, others)) = one.split_first()
                && first.first <= first.last
            {
                groups.entry(*first).or_default().push(others);
            }
        }
        let groups: Vec<(Range, Vec<&[Range]>)> = groups.into_iter().collect();
        let apart = groups.iter().zip(groups.iter().skip(1)).all(|(a, b)| a.0.last < b.0.first);
        if apart {
            let pieces: Vec<(Range, Diagram)> =
                groups.iter().map(|(range, parts)| (*range, self.boxes(rest, parts))).collect();
            return self.pieces(*block, &pieces);
        }
        // Between two ends the same intervals hold.
        let mut starts: BTreeMap<u128, Vec<usize>> = BTreeMap::new();
        let mut ends: BTreeMap<u128, Vec<usize>> = BTreeMap::new();
        for (number, (range, _)) in groups.iter().enumerate() {
            starts.entry(range.first).or_default().push(number);
            if let Some(after) = range.last.checked_add(1) {
                ends.entry(after).or_default().push(number);
            }
        }
        let cuts: BTreeSet<u128> = starts.keys().chain(ends.keys()).copied().collect();
        let cuts: Vec<u128> = cuts.into_iter().collect();
        let mut active: BTreeSet<usize> = BTreeSet::new();
        let mut known: HashMap<Vec<&[Range]>, Diagram> = HashMap::new();
        let mut pieces = Vec::with_capacity(cuts.len());
        for (at, cut) in cuts.iter().enumerate() {
            ends.get(cut).into_iter().flatten().for_each(|number| {
                active.remove(number);
            });
            active.extend(starts.get(cut).into_iter().flatten());
            let last = cuts.get(at + 1).map_or(u128::MAX, |next| next - 1);
            let parts = active.iter().filter_map(|number| groups.get(*number));
            let parts: Vec<&[Range]> = parts.flat_map(|(_, parts)| parts).copied().collect();
            let diagram = match known.get(&parts) {
                Some(diagram) => diagram.clone(),
                None => self.boxes(rest, &parts),
            };
            known.insert(parts, diagram.clone());
            pieces.push((Range { first: *cut, last }, diagram));
        }
        self.pieces(*block, &pieces)
    }

    /// All variables but those of a block, for [`Self::without`].
    pub(super) fn all_but(&self, block: Block) -> Diagram {
        let others: Vec<(u32, &Diagram)> = (0u32..)
            .zip(&self.variables)
            .filter(|(at, _)| !(block.first..block.end()).contains(at))
            .collect();
        others.into_iter().rev().fold(self.all(), |cube, (_, variable)| self.and(variable, &cube))
    }

    /// What a set says when these variables may be anything.
    pub(super) fn without(&self, set: &Diagram, variables: &Diagram) -> Diagram {
        self.checked(set.exists(variables))
    }

    /// The least member of a set, with its bits; those that do not matter are zero.
    pub(super) fn least(&self, set: &Diagram) -> Option<Vec<bool>> {
        let cube = set.pick_cube(|_, _, _| false)?;
        Some(cube.into_iter().map(|bit| bit == OptBool::True).collect())
    }

    /// The number that a block has in a member of a set.
    pub(super) fn number(bits: &[bool], block: Block) -> u128 {
        (block.first..block.end()).fold(0, |value, at| {
            let bit = usize::try_from(at).ok().and_then(|at| bits.get(at)).copied();
            value << 1 | u128::from(bit.unwrap_or(false))
        })
    }
}

/// Intervals in order, those that overlap as one.
fn joined(ranges: &[Range]) -> Vec<Range> {
    let mut sorted: Vec<Range> = ranges.iter().copied().filter(|r| r.first <= r.last).collect();
    sorted.sort_unstable();
    let mut all: Vec<Range> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match all.last_mut() {
            Some(last) if range.first <= last.last => last.last = last.last.max(range.last),
            _ => all.push(range),
        }
    }
    all
}
