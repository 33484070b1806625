//! Which predicates the packets of a question can meet in the rules.
//!
//! A walk over all rules that they can reach, with what is fixed decided and everything else taken as possible. What it
//! finds may be more than a packet meets, never less.

use super::space::{Predicate, Space};
use crate::machine::{Condition, ElementSet, Field, Machine, Packet, Range, Stage, Step, Verdict};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

/// A test of a port: the protocols that it is for, the field, the values.
pub(super) type PortTest = (Range, Field, Range);

/// Predicates of sets, made once.
#[derive(Debug, Default)]
pub(super) struct Cache {
    single: RefCell<HashMap<usize, Rc<Predicate>>>,
    slices: RefCell<HashMap<(usize, usize), Slices>>,
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
    pub(super) protocols: BTreeSet<Range>,
    pub(super) ports: BTreeSet<PortTest>,
    /// On nothing but the state and the direction of the connection.
    pub(super) states: Vec<&'m Condition>,
    /// Is the state tested together with something else?
    pub(super) every_state: bool,
    known: HashSet<(usize, usize)>,
}

/// A question, as far as it is fixed.
pub(super) struct Walk<'m, 'c> {
    pub(super) machine: &'m Machine,
    pub(super) space: &'c Space,
    pub(super) cache: &'c Cache,
    /// The fields that are the same for all packets, with their values.
    pub(super) fixed: HashMap<Field, u128>,
    /// The address field of the lanes.
    pub(super) lane: Field,
    /// Is it an address that no packet has where the address is not fixed?
    pub(super) excludes: &'c dyn Fn(u128) -> bool,
}

impl<'m> Walk<'m, '_> {
    /// The fixed fields of a packet.
    pub(super) fn fix(packet: &Packet, fields: &[Field]) -> HashMap<Field, u128> {
        fields.iter().map(|f| (*f, packet.value(*f).unwrap_or(0))).collect()
    }

    /// Walks all rules that can be reached.
    pub(super) fn gather(&self, stages: &[Stage]) -> Gathered<'m> {
        let mut found = Gathered::default();
        for stage in stages {
            let mut seen = HashSet::new();
            let mut open = vec![stage.chain];
            while let Some(index) = open.pop() {
                if !seen.insert(index) {
                    continue;
                }
                let Some(chain) = self.machine.chain(index) else { continue };
                for rule in &chain.rules {
                    self.rule(&rule.steps, stage, &mut found, &mut open);
                }
            }
        }
        found
    }

    fn rule(
        &self,
        steps: &'m [Step],
        stage: &Stage,
        found: &mut Gathered<'m>,
        open: &mut Vec<usize>,
    ) {
        let mut protocols: Vec<Range> = vec![ANY_PROTOCOL];
        for step in steps {
            match step {
                Step::Match(condition) => {
                    if self.decided(&condition.key, condition, stage) == Some(false)
                        || self.is_outside(condition)
                    {
                        return;
                    }
                    if !self.condition(condition, stage, &mut protocols, found) {
                        return;
                    }
                }
                Step::Verdict(verdict) => {
                    open.extend(target(*verdict));
                    return;
                }
                Step::Dispatch { key, map } => {
                    let fixed = self.fixed_parts(key, stage);
                    let mut by_verdict: Vec<(Verdict, Vec<Box<[Range]>>)> = Vec::new();
                    for (entry, verdict) in map.entries() {
                        let reachable =
                            fixed.iter().zip(entry).all(|(v, r)| v.is_none_or(|v| r.contains(v)));
                        if !reachable {
                            continue;
                        }
                        open.extend(target(*verdict));
                        match by_verdict.iter_mut().find(|(other, _)| other == verdict) {
                            Some((_, entries)) => entries.push(Box::from(entry)),
                            None => by_verdict.push((*verdict, vec![Box::from(entry)])),
                        }
                    }
                    for (_, entries) in by_verdict {
                        let slices = self.slices(key, entries.iter().map(|entry| &**entry), stage);
                        for slice in slices {
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

    fn fixed_parts(&self, key: &[Field], stage: &Stage) -> Vec<Option<u128>> {
        key.iter().map(|field| self.fixed_value(*field, stage)).collect()
    }

    fn fixed_value(&self, field: Field, stage: &Stage) -> Option<u128> {
        match field {
            Field::InDevice if !stage.knows_in_device => Some(0),
            Field::OutDevice if !stage.knows_out_device => Some(0),
            field => self.fixed.get(&field).copied(),
        }
    }

    /// Does the condition hold for all packets, for none, or is it open?
    fn decided(&self, key: &[Field], condition: &Condition, stage: &Stage) -> Option<bool> {
        let values: Option<Vec<u128>> = self.fixed_parts(key, stage).into_iter().collect();
        values.map(|values| condition.holds(&values))
    }

    /// Does it ask for nothing but addresses that no packet has? What is behind it is not reached then: a tree of
    /// addresses (iptables) leads to the rules of each pod by such conditions.
    fn is_outside(&self, condition: &Condition) -> bool {
        let [field @ (Field::Source | Field::Destination)] = condition.key.as_slice() else {
            return false;
        };
        let points = condition.set.intervals();
        !condition.negated
            && !self.fixed.contains_key(field)
            && points.iter().all(|range| range.first == range.last && (self.excludes)(range.first))
    }

    /// Takes note of a condition; false if no packet fulfills it.
    fn condition(
        &self,
        condition: &'m Condition,
        stage: &Stage,
        protocols: &mut Vec<Range>,
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
                Field::Source | Field::Destination if !self.fixed.contains_key(field) => {
                    let predicate = self.single(set);
                    self.address(*field, at(set), 0, predicate, found);
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
        let fixed = self.fixed_parts(&condition.key, stage);
        if fixed.iter().all(Option::is_none) {
            let lane = condition.key.iter().position(|field| *field == self.lane);
            let slices = self.cached_slices(set, lane);
            for slice in slices.iter() {
                self.take(&condition.key, slice, Some(at(set)), protocols, found);
            }
            return condition.negated || !slices.is_empty();
        }
        let boxes = set.boxes().iter().map(|one| &**one).filter(|one| {
            fixed.iter().zip(*one).all(|(value, range)| value.is_none_or(|v| range.contains(v)))
        });
        let slices = self.slice(&condition.key, boxes, &fixed);
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
        if field != self.lane {
            found.others.push(predicate);
        } else if set == 0 || found.known.insert((set, slice)) {
            found.lanes.push(predicate);
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
                    found.lanes.push(Rc::new(self.space.predicate([range])));
                }
                field if *field == self.lane => {
                    let number = std::ptr::from_ref(slice).addr();
                    let set = set.unwrap_or(0);
                    self.address(*field, set, number, Rc::clone(&slice.addresses), found);
                }
                Field::Source | Field::Destination if !self.fixed.contains_key(field) => {
                    found.others.push(Rc::new(self.space.predicate([range])));
                }
                Field::Protocol => {
                    found.protocols.insert(*range);
                }
                Field::First | Field::Second => self.port(*field, *range, protocols, found),
                _ => {}
            }
        }
    }

    fn single(&self, set: &Arc<ElementSet>) -> Rc<Predicate> {
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

    fn slices<'b>(
        &self,
        key: &[Field],
        boxes: impl Iterator<Item = &'b [Range]>,
        stage: &Stage,
    ) -> Vec<Slice> {
        self.slice(key, boxes, &self.fixed_parts(key, stage))
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
