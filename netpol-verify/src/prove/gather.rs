//! Which predicates the packets of a question can meet in the rules.
//!
//! A walk over all rules that they can reach, with what is fixed decided and everything else taken as possible. What it
//! finds may be more than a packet meets, never less.

use super::effect::{self, Addresses, Effects};
use super::space::{Predicate, Space};
use crate::machine::{
    ChainIndex, Condition, ElementSet, Field, Machine, Packet, Range, Stage, Step, Verdict,
};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// A test of a port: the protocols that it is for, the field, the values.
pub(super) type PortTest = (Range, Field, Range);

/// The protocols that a rule is for, so far.
type Protocols = SmallVec<[Range; 2]>;

/// Predicates of sets, made once.
#[derive(Debug, Default)]
pub(super) struct Cache {
    single: RefCell<FxHashMap<usize, Rc<Predicate>>>,
    slices: RefCell<FxHashMap<(usize, usize), Slices>>,
    boxes: RefCell<FxHashMap<(usize, usize), Rc<ByPart>>>,
    /// Of machines, by where they are in memory.
    shallow: RefCell<FxHashMap<usize, bool>>,
}

impl Cache {
    /// Can no packet be led through more chains than the kernel follows?
    pub(super) fn is_shallow(&self, machine: &Machine) -> bool {
        let mut shallow = self.shallow.borrow_mut();
        *shallow
            .entry(std::ptr::from_ref(machine).addr())
            .or_insert_with(|| effect::is_shallow(machine))
    }
}

/// The boxes of a set by one part, by where they stand in the set.
#[derive(Debug, Default)]
struct ByPart {
    points: HashMap<u128, Vec<usize>>,
    /// Those that have more than one value there.
    wide: Vec<usize>,
}

impl ByPart {
    fn new(set: &ElementSet, part: usize) -> Self {
        let mut by_part = Self::default();
        for (at, one) in set.boxes().iter().enumerate() {
            match one.get(part) {
                Some(range) if range.first == range.last => {
                    by_part.points.entry(range.first).or_default().push(at);
                }
                _ => by_part.wide.push(at),
            }
        }
        by_part
    }

    /// The boxes that can have this value there, and maybe others.
    fn candidates(&self, value: u128) -> impl Iterator<Item = usize> {
        self.points.get(&value).into_iter().flatten().chain(&self.wide).copied()
    }
}

type Slices = Rc<Vec<Slice>>;

/// The part of a set of tuples that has these other parts.
#[derive(Debug)]
struct Slice {
    rest: Vec<Range>,
    addresses: Rc<Predicate>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Gathered<'m> {
    /// On the address of the lanes.
    pub(super) lanes: Vec<Rc<Predicate>>,
    /// On the other address, where it is not fixed.
    pub(super) others: Vec<Rc<Predicate>>,
    pub(super) protocols: FxHashSet<Range>,
    pub(super) ports: FxHashSet<PortTest>,
    /// On nothing but the state and the direction of the connection.
    pub(super) states: Vec<&'m Condition>,
    /// Is the state tested together with something else?
    pub(super) every_state: bool,
    known: FxHashSet<(usize, usize)>,
    /// The addresses that the base chain that is walked does something to: of the lanes, and the other.
    affected: (Addresses, Addresses),
}

/// A question, as far as it is fixed.
pub(super) struct Walk<'m, 'c> {
    pub(super) machine: &'m Machine,
    pub(super) space: &'c Space,
    pub(super) cache: &'c Cache,
    /// The fields that are the same for all packets, with their values.
    pub(super) fixed: Vec<(Field, u128)>,
    /// The address field of the lanes.
    pub(super) lane: Field,
    /// Must all addresses be told apart that a condition does, even where it makes no difference?
    pub(super) cuts_everything: bool,
    /// Is it an address that no packet has where the address is not fixed?
    pub(super) excludes: &'c dyn Fn(u128) -> bool,
}

impl<'m> Walk<'m, '_> {
    /// The fixed fields of a packet.
    pub(super) fn fix(packet: &Packet, fields: &[Field]) -> Vec<(Field, u128)> {
        fields.iter().map(|f| (*f, packet.value(*f).unwrap_or(0))).collect()
    }

    /// Walks all rules that can be reached.
    pub(super) fn gather(&self, stages: &[Stage]) -> Gathered<'m> {
        let mut found = Gathered::default();
        for stage in stages {
            let effects = Effects::new(self, stage);
            // Of no other address the base chain makes a difference.
            let [lane, other] = [self.lane, opposite(self.lane)].map(|field| {
                if self.is_fixed(field) { Addresses::All } else { effects.of_base(field) }
            });
            found.affected = (lane, other);
            let mut seen = FxHashSet::default();
            let mut open = vec![stage.chain];
            while let Some(index) = open.pop() {
                if !seen.insert(index) {
                    continue;
                }
                let Some(chain) = self.machine.chain(index) else { continue };
                for at in 0..chain.rules.len() {
                    self.rule((index, at), &effects, &mut found, &mut open);
                }
            }
        }
        found
    }

    fn rule(
        &self,
        (chain, at): (ChainIndex, usize),
        effects: &Effects<'_, '_, '_>,
        found: &mut Gathered<'m>,
        open: &mut Vec<usize>,
    ) {
        let rule = self.machine.chain(chain).and_then(|chain| chain.rules.get(at));
        let Some(steps) = rule.map(|rule| &rule.steps) else { return };
        let stage = effects.stage;
        let mut protocols = Protocols::from_slice(&[ANY_PROTOCOL]);
        for step in steps {
            match step {
                Step::Match(condition) => {
                    if self.decided(&condition.key, condition, stage) == Some(false)
                        || self.is_outside(condition)
                    {
                        return;
                    }
                    if !self.condition(condition, (chain, at), effects, &mut protocols, found) {
                        return;
                    }
                }
                Step::Verdict(verdict) => {
                    open.extend(target(*verdict));
                    return;
                }
                Step::Dispatch { key, map } => {
                    let fixed = self.fixed_parts(key, stage);
                    let values: Option<Vec<u128>> = fixed.iter().copied().collect();
                    if let Some(values) = values {
                        // All packets go the same way.
                        open.extend(map.value(&values).and_then(|verdict| target(*verdict)));
                        continue;
                    }
                    let mut by_verdict: Vec<(Verdict, Vec<&[Range]>)> = Vec::new();
                    let mut places: FxHashMap<Verdict, usize> = FxHashMap::default();
                    for (entry, verdict) in map.entries() {
                        if !self.is_met(key, &fixed, entry) {
                            continue;
                        }
                        let place = *places.entry(*verdict).or_insert_with(|| {
                            open.extend(target(*verdict));
                            by_verdict.push((*verdict, Vec::new()));
                            by_verdict.len() - 1
                        });
                        if let Some((_, entries)) = by_verdict.get_mut(place) {
                            entries.push(entry);
                        }
                    }
                    for (_, entries) in by_verdict {
                        for slice in self.slice(key, entries.into_iter(), &fixed) {
                            self.take(key, &slice, None, &protocols, found);
                        }
                    }
                    if key.contains(&Field::State) || key.contains(&Field::Direction) {
                        found.every_state = true;
                    }
                }
                Step::Free(_)
                | Step::UnknownMatch(_)
                | Step::Mark { .. }
                | Step::UnknownMark(_) => {}
                Step::Opaque(_) => return,
            }
        }
    }

    /// Can a packet have what an entry asks for?
    pub(super) fn is_met(&self, key: &[Field], fixed: &[Option<u128>], entry: &[Range]) -> bool {
        key.iter().zip(fixed).zip(entry).all(|((field, value), range)| match value {
            Some(value) => range.contains(*value),
            None => !self.is_excluded(*field, *range),
        })
    }

    pub(super) fn fixed_parts(&self, key: &[Field], stage: &Stage) -> Vec<Option<u128>> {
        key.iter().map(|field| self.fixed_value(*field, stage)).collect()
    }

    fn fixed_value(&self, field: Field, stage: &Stage) -> Option<u128> {
        match field {
            Field::InDevice if !stage.knows_in_device => Some(0),
            Field::OutDevice if !stage.knows_out_device => Some(0),
            field => self.fixed.iter().find(|(other, _)| *other == field).map(|(_, value)| *value),
        }
    }

    fn is_fixed(&self, field: Field) -> bool {
        self.fixed.iter().any(|(other, _)| *other == field)
    }

    /// Does the condition hold for all packets, for none, or is it open?
    pub(super) fn decided(
        &self,
        key: &[Field],
        condition: &Condition,
        stage: &Stage,
    ) -> Option<bool> {
        if let [field] = key {
            return self.fixed_value(*field, stage).map(|value| condition.holds(&[value]));
        }
        let values: Option<Vec<u128>> =
            key.iter().map(|field| self.fixed_value(*field, stage)).collect();
        values.map(|values| condition.holds(&values))
    }

    /// Does it ask for nothing but addresses that no packet has? What is behind it is not reached then: a tree of
    /// addresses (iptables) leads to the rules of each pod by such conditions.
    pub(super) fn is_outside(&self, condition: &Condition) -> bool {
        let [field] = condition.key.as_slice() else { return false };
        let points = condition.set.intervals();
        !condition.negated
            && !self.is_fixed(*field)
            && matches!(field, Field::Source | Field::Destination)
            && points.iter().all(|range| self.is_excluded(*field, *range))
    }

    /// Is it an address, not fixed, that no packet has?
    fn is_excluded(&self, field: Field, range: Range) -> bool {
        matches!(field, Field::Source | Field::Destination)
            && range.first == range.last
            && (self.excludes)(range.first)
    }

    /// Takes note of a condition; false if no packet fulfills it.
    fn condition(
        &self,
        condition: &'m Condition,
        place: (ChainIndex, usize),
        effects: &Effects<'_, '_, '_>,
        protocols: &mut Protocols,
        found: &mut Gathered<'m>,
    ) -> bool {
        let is_state = |field: &Field| matches!(field, Field::State | Field::Direction);
        if condition.key.iter().all(is_state) {
            found.states.push(condition);
            return true;
        }
        found.every_state |= condition.key.iter().any(is_state);
        let set = &condition.set;
        if let [field] = condition.key.as_slice() {
            match field {
                Field::Source | Field::Destination if !self.is_fixed(*field) => {
                    match effects.of_jump(place, *field) {
                        Addresses::All => {
                            self.address(*field, at(set), 0, self.single(set), found);
                        }
                        some => self.address(*field, 0, 0, some.of(&self.single(set)), found),
                    }
                }
                Field::Protocol => {
                    let ranges = set.intervals().iter().copied();
                    found.protocols.extend(ranges.clone());
                    if !condition.negated {
                        *protocols = ranges
                            .flat_map(|range| {
                                protocols.iter().filter_map(move |other| meet(range, *other))
                            })
                            .collect();
                    }
                }
                Field::First | Field::Second => {
                    for range in set.intervals() {
                        self.port(*field, *range, protocols, found);
                    }
                }
                _ => {}
            }
            return true;
        }
        let fixed = self.fixed_parts(&condition.key, effects.stage);
        if fixed.iter().all(Option::is_none) {
            let lane = condition.key.iter().position(|field| *field == self.lane);
            let slices = self.cached_slices(set, lane);
            for slice in slices.iter() {
                self.take(&condition.key, slice, Some(at(set)), protocols, found);
            }
            return condition.negated || !slices.is_empty();
        }
        let is_met = |one: &&[Range]| {
            fixed.iter().zip(*one).all(|(value, range)| value.is_none_or(|v| range.contains(v)))
        };
        // The most telling of the fixed parts is an address, if there is one.
        let parts = || condition.key.iter().zip(&fixed).enumerate();
        let values = || parts().filter_map(|(part, (field, value))| Some((part, field, (*value)?)));
        let is_address = |field: &Field| matches!(field, Field::Source | Field::Destination);
        let best = values().find(|(_, field, _)| is_address(field)).or_else(|| values().next());
        let slices = match best {
            Some((part, _, value)) => {
                let by_part = self.by_part(set, part);
                let boxes = by_part.candidates(value).filter_map(|at| set.boxes().get(at));
                self.slice(&condition.key, boxes.map(|one| &**one).filter(is_met), &fixed)
            }
            None => Vec::new(),
        };
        for slice in &slices {
            self.take(&condition.key, slice, None, protocols, found);
        }
        condition.negated || !slices.is_empty()
    }

    fn port(&self, field: Field, range: Range, protocols: &[Range], found: &mut Gathered<'m>) {
        found.ports.extend(protocols.iter().map(|protocol| (*protocol, field, range)));
    }

    fn address(
        &self,
        field: Field,
        set: usize,
        slice: usize,
        predicate: Rc<Predicate>,
        found: &mut Gathered<'m>,
    ) {
        let (lanes, others) = &found.affected;
        match if field == self.lane { lanes } else { others } {
            affected if field != self.lane => found.others.push(affected.of(&predicate)),
            Addresses::All if set == 0 || found.known.insert((set, slice)) => {
                found.lanes.push(predicate);
            }
            Addresses::All => {}
            affected => found.lanes.push(affected.of(&predicate)),
        }
    }

    /// Takes note of a slice: its addresses, and what its other parts say.
    fn take(
        &self,
        key: &[Field],
        slice: &Slice,
        set: Option<usize>,
        protocols: &[Range],
        found: &mut Gathered<'m>,
    ) {
        let own: Vec<Range> = key
            .iter()
            .zip(&slice.rest)
            .filter(|(field, _)| **field == Field::Protocol)
            .map(|(_, range)| *range)
            .collect();
        let protocols = if own.is_empty() { protocols } else { own.as_slice() };
        let lane = key.iter().position(|field| *field == self.lane);
        for (part, (field, range)) in key.iter().zip(&slice.rest).enumerate() {
            match field {
                // A field may stand in a key twice; the slice has the addresses of its first place.
                field if *field == self.lane && Some(part) != lane => {
                    let addresses = Rc::new(self.space.predicate([range]));
                    self.address(*field, 0, 0, addresses, found);
                }
                field if *field == self.lane => {
                    let number = std::ptr::from_ref(slice).addr();
                    let set = set.unwrap_or(0);
                    self.address(*field, set, number, Rc::clone(&slice.addresses), found);
                }
                Field::Source | Field::Destination if !self.is_fixed(*field) => {
                    let addresses = Rc::new(self.space.predicate([range]));
                    self.address(*field, 0, 0, addresses, found);
                }
                Field::Protocol => {
                    found.protocols.insert(*range);
                }
                Field::First | Field::Second => self.port(*field, *range, protocols, found),
                _ => {}
            }
        }
    }

    pub(super) fn single(&self, set: &Arc<ElementSet>) -> Rc<Predicate> {
        let mut cache = self.cache.single.borrow_mut();
        let predicate =
            cache.entry(at(set)).or_insert_with(|| Rc::new(self.space.predicate(set.intervals())));
        Rc::clone(predicate)
    }

    fn cached_slices(&self, set: &Arc<ElementSet>, lane: Option<usize>) -> Slices {
        let key = (at(set), lane.unwrap_or(usize::MAX));
        if let Some(slices) = self.cache.slices.borrow().get(&key) {
            return Rc::clone(slices);
        }
        let boxes = set.boxes().iter().map(|one| &**one);
        let slices = Rc::new(self.slices_at(boxes, lane, &[]));
        self.cache.slices.borrow_mut().insert(key, Rc::clone(&slices));
        slices
    }

    fn by_part(&self, set: &Arc<ElementSet>, part: usize) -> Rc<ByPart> {
        let mut cache = self.cache.boxes.borrow_mut();
        Rc::clone(cache.entry((at(set), part)).or_insert_with(|| Rc::new(ByPart::new(set, part))))
    }

    fn slice<'b>(
        &self,
        key: &[Field],
        boxes: impl Iterator<Item = &'b [Range]>,
        fixed: &[Option<u128>],
    ) -> Vec<Slice> {
        let lane = key.iter().position(|field| *field == self.lane);
        let lane = lane.filter(|at| fixed.get(*at).is_none_or(Option::is_none));
        self.slices_at(boxes, lane, fixed)
    }

    /// Boxes by all their parts but the lane's and what is fixed.
    fn slices_at<'b>(
        &self,
        boxes: impl Iterator<Item = &'b [Range]>,
        lane: Option<usize>,
        fixed: &[Option<u128>],
    ) -> Vec<Slice> {
        let mut by_rest: HashMap<Vec<Range>, Vec<Range>> = HashMap::new();
        let mut order = Vec::new();
        for one in boxes {
            let rest: Vec<Range> = one
                .iter()
                .enumerate()
                .map(|(part, range)| match fixed.get(part) {
                    _ if Some(part) == lane => Range::ALL,
                    Some(Some(_)) => Range::ALL,
                    _ => *range,
                })
                .collect();
            let addresses = by_rest.entry(rest).or_insert_with_key(|rest| {
                order.push(rest.clone());
                Vec::new()
            });
            addresses.extend(lane.and_then(|lane| one.get(lane)).copied());
        }
        order
            .into_iter()
            .map(|rest| {
                let addresses = by_rest.get(&rest).map(Vec::as_slice).unwrap_or_default();
                let addresses = Rc::new(self.space.predicate(addresses));
                Slice { rest, addresses }
            })
            .collect()
    }
}

const ANY_PROTOCOL: Range = Range { first: 0, last: 255 };

fn at(set: &Arc<ElementSet>) -> usize {
    Arc::as_ptr(set).addr()
}

fn opposite(field: Field) -> Field {
    if field == Field::Source { Field::Destination } else { Field::Source }
}

fn target(verdict: Verdict) -> Option<usize> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
        _ => None,
    }
}

fn meet(a: Range, b: Range) -> Option<Range> {
    let range = Range { first: a.first.max(b.first), last: a.last.min(b.last) };
    (range.first <= range.last).then_some(range)
}
