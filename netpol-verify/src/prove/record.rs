//! The proof, written down: what the classes are of which each packet that was tried is one.

use super::Prover;
use super::devices;
use super::gather::{Gathered, PortTest};
use super::lanes::{Lanes, Outcome};
use super::mask::Mask;
use super::question::{Expected, Question, Rules};
use super::space::{Classes, Predicate, Space};
use super::traffic::Traffic;
use crate::certificate;
use crate::machine::{Field, Path, Range, value_address, value_device};
use netpol_checker::{Certificate, FORMAT, List, Question as Written, VERSION, Way};
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::rc::Rc;

/// A certificate on its way.
#[derive(Debug, Default)]
pub(super) struct Record {
    certificate: Certificate,
    lists: HashMap<List, usize>,
    traffic: HashMap<Vec<[usize; 3]>, usize>,
    rows: HashMap<String, usize>,
    /// The class of each device that packets are tried with.
    devices: HashMap<u128, usize>,
}

/// The index of what is in a table, or will be.
fn index<T: Eq + Hash>(table: &mut HashMap<T, usize>, entry: T) -> usize {
    let next = table.len();
    *table.entry(entry).or_insert(next)
}

/// A table in the order of its indices.
fn ordered<T>(table: &mut HashMap<T, usize>) -> Vec<T> {
    let mut entries: Vec<(T, usize)> = table.drain().collect();
    entries.sort_unstable_by_key(|(_, index)| *index);
    entries.into_iter().map(|(entry, _)| entry).collect()
}

impl Record {
    fn list(&mut self, ranges: &[Range]) -> usize {
        index(&mut self.lists, List(ranges.iter().map(certificate::interval).collect()))
    }

    /// Notes what is expected and what is met in one state, for all lanes.
    pub(super) fn cells(&mut self, count: usize, must_pass: &Mask, loose: bool, outcome: &Outcome) {
        let (mut passes, mut dropped) = (outcome.accepted[0].clone(), outcome.dropped[0].clone());
        passes.add(&outcome.accepted[1]);
        dropped.add(&outcome.dropped[1]);
        let met = [passes.without(&dropped), dropped.without(&passes)];
        let [passes, dropped] = met.map(|mask| mask.without(&outcome.unknown));
        let row = |letters: [(&Mask, char); 2], other: char| -> String {
            let mut row = vec![other; count];
            for (mask, letter) in letters {
                for lane in mask.iter() {
                    if let Some(at) = row.get_mut(lane) {
                        *at = letter;
                    }
                }
            }
            row.into_iter().collect()
        };
        let none = Mask::none(count);
        let expected = row([(must_pass, if loose { '*' } else { 'p' }), (&none, 'd')], 'd');
        let met = row([(&passes, 'p'), (&dropped, 'd')], '?');
        let rows = [expected, met].map(|row| index(&mut self.rows, row));
        if let Some(question) = self.certificate.questions.last_mut() {
            question.cells.push(rows.map(|row| u32::try_from(row).unwrap_or(u32::MAX)));
        }
    }
}

impl Prover<'_, '_> {
    /// From here on the proof is written down.
    pub(super) fn start_recording(&mut self) {
        let mut record = Record::default();
        let name = |pod| self.specification.pod(pod).map(|pod| pod.id().to_string());
        let devices = &mut self.devices;
        let certificate = &mut record.certificate;
        certificate.format = FORMAT.to_owned();
        certificate.version = VERSION;
        certificate.node = self.specification.node().map(ToString::to_string);
        certificate.options = self.specification.options().into();
        certificate.interfaces = self
            .given
            .iter()
            .filter_map(|(pod, device)| Some((name(*pod)?, value_device(*device))))
            .collect();
        let inferred = devices.of_pod.iter().filter(|(pod, _)| devices.inferred.contains(pod));
        let named = |all: &[u128]| all.iter().copied().map(value_device).collect();
        certificate.inferred =
            inferred.filter_map(|(pod, all)| Some((name(*pod)?, named(all)))).collect();
        certificate.unguarded = self.options.unguarded;
        certificate.others_may_drop = self.options.others_may_drop;
        certificate.closed = devices.closed.iter().copied().map(value_device).collect();
        certificate.machine = certificate::rules(self.machine, &self.options.own);
        let devices = &mut self.devices;
        // One device was tried of each class that the rules tell apart; here are the classes.
        let taken: BTreeSet<u128> =
            devices.of_pod.values().flatten().chain(&devices.closed).copied().collect();
        let mut tests = devices::named(self.machine, Field::InDevice);
        tests.extend(devices::named(self.machine, Field::OutDevice));
        tests.extend(taken.iter().copied().map(Range::one));
        for device in &taken {
            let list = record.list(&[Range::one(*device)]);
            record.devices.insert(*device, list);
        }
        let mut outside = Vec::new();
        for class in partition(&tests, Range { first: 1, last: u128::MAX }) {
            let Some(first) = class.first().map(|range| range.first) else { continue };
            if taken.contains(&first) {
                continue;
            }
            let is_in = |device: &u128| class.iter().any(|range| range.contains(*device));
            // A class without a name in it has no device, but its values are there to be covered.
            let mut tried = devices.from_outside.iter().chain(&devices.to_outside).copied();
            let device = tried.find(is_in).unwrap_or(first);
            let list = record.list(&class);
            record.devices.insert(device, list);
            record.certificate.outside.push(list);
            outside.push(device);
        }
        outside.sort_unstable();
        // A certificate has one partition of devices, for both directions.
        devices.from_outside.clone_from(&outside);
        devices.to_outside = outside;
        self.record = Some(record);
    }

    /// Notes a question and its classes; its cells come next.
    pub(super) fn record_question(
        &mut self,
        question: &Question,
        gathered: &Gathered<'_>,
        lanes: &Lanes,
        others: &[u128],
        traffic: &[Traffic],
        fixed_device: Option<u128>,
    ) {
        let Some(record) = &mut self.record else { return };
        let space = if question.v6 { &self.v6.0 } else { &self.v4.0 };
        let mut known = HashMap::new();
        let classes = AddressClasses::new(space, &gathered.lanes);
        let mut written = Vec::with_capacity(lanes.lanes.len());
        for lane in &lanes.lanes {
            let list = *known
                .entry(lane.address)
                .or_insert_with(|| record.list(classes.of(space, lane.address)));
            let device = lane.device.and_then(|device| record.devices.get(&device).copied());
            written.push((list, device));
        }
        let (way, pod) = match (question.path, question.expected) {
            (_, Expected::Accepted) => (Way::Past, None),
            (_, Expected::Guard(pod)) => (Way::Guard, Some(pod)),
            (Path::ToNode, _) => (Way::ToNode, question.fixed.map(|(_, pod)| pod)),
            (Path::FromNode, _) => (Way::FromNode, question.fixed.map(|(_, pod)| pod)),
            _ if question.lane == Field::Source => (Way::ToPod, question.fixed.map(|(_, pod)| pod)),
            _ => (Way::FromPod, question.fixed.map(|(_, pod)| pod)),
        };
        let others = if question.fixed.is_some() {
            Vec::new()
        } else {
            let classes = AddressClasses::new(space, &gathered.others);
            others.iter().map(|address| record.list(classes.of(space, *address))).collect()
        };
        let boxes = traffic_classes(record, gathered, traffic);
        let written = Written {
            way,
            v6: question.v6,
            together: question.rules == Rules::Together,
            fixed: question.fixed.map(|(address, _)| value_address(address, question.v6)),
            pod: pod.and_then(|pod| self.specification.pod(pod)).map(|pod| pod.id().to_string()),
            device: fixed_device.and_then(|device| record.devices.get(&device).copied()),
            lanes: written,
            others,
            traffic: index(&mut record.traffic, boxes),
            cells: Vec::new(),
        };
        record.certificate.questions.push(written);
    }

    /// The certificate.
    pub(super) fn recorded(&mut self) -> Certificate {
        let mut record = self.record.take().unwrap_or_default();
        record.certificate.lists = ordered(&mut record.lists);
        record.certificate.traffic = ordered(&mut record.traffic);
        record.certificate.rows = ordered(&mut record.rows);
        record.certificate
    }
}

/// Which addresses are in which class.
struct AddressClasses {
    of: Vec<usize>,
    members: HashMap<usize, Vec<Range>>,
}

impl AddressClasses {
    fn new(space: &Space, predicates: &[Rc<Predicate>]) -> Self {
        let mut classes = Classes::new(space);
        predicates.iter().for_each(|predicate| classes.refine(predicate));
        let (mut of, mut members) = (Vec::with_capacity(space.len()), HashMap::new());
        for interval in 0..space.len() {
            let class = classes.class(interval).unwrap_or(0);
            of.push(class);
            let members: &mut Vec<Range> = members.entry(class).or_default();
            let range = space.range(interval);
            match members.last_mut() {
                Some(before) if before.last + 1 == range.first => before.last = range.last,
                _ => members.push(range),
            }
        }
        Self { of, members }
    }

    fn of(&self, space: &Space, address: u128) -> &[Range] {
        let class = self.of.get(space.interval(address));
        class.and_then(|class| self.members.get(class)).map_or(&[], Vec::as_slice)
    }
}

/// The classes of which each kind of traffic is one: boxes of protocol, first and second 16 bits.
fn traffic_classes(
    record: &mut Record,
    gathered: &Gathered<'_>,
    traffic: &[Traffic],
) -> Vec<[usize; 3]> {
    let of_ports: BTreeSet<Range> = gathered.ports.iter().map(|(protocol, ..)| *protocol).collect();
    let tests: BTreeSet<Range> = gathered.protocols.iter().copied().chain(of_ports).collect();
    let protocols = partition(&tests, Range::new(0u8, u8::MAX));
    let mut words: HashMap<(u8, Field), Vec<Vec<Range>>> = HashMap::new();
    let mut boxes = Vec::with_capacity(traffic.len());
    for one in traffic {
        let mut sides = [find(&protocols, one.protocol.into()), &[], &[]].map(<[Range]>::to_vec);
        for (side, field, value) in [(1, Field::First, one.first), (2, Field::Second, one.second)] {
            let classes = words.entry((one.protocol, field)).or_insert_with(|| {
                let applies =
                    |test: &&PortTest| test.1 == field && test.0.contains(one.protocol.into());
                let ranges = gathered.ports.iter().filter(applies).map(|(_, _, range)| *range);
                partition(&ranges.collect(), Range::new(0u16, u16::MAX))
            });
            if let Some(side) = sides.get_mut(side) {
                *side = find(classes, value.into()).to_vec();
            }
        }
        boxes.push(sides.map(|side| record.list(&side)));
    }
    boxes
}

fn find(classes: &[Vec<Range>], value: u128) -> &[Range] {
    let is_in = |class: &&Vec<Range>| class.iter().any(|range| range.contains(value));
    classes.iter().find(is_in).map_or(&[], Vec::as_slice)
}

/// The values of a domain in classes: two are in one if the same tests contain them.
fn partition(tests: &BTreeSet<Range>, domain: Range) -> Vec<Vec<Range>> {
    let mut cuts = BTreeSet::from([domain.first]);
    for test in tests {
        cuts.extend([Some(test.first), test.last.checked_add(1)].into_iter().flatten());
    }
    let cuts: Vec<u128> = cuts.into_iter().filter(|cut| domain.contains(*cut)).collect();
    let mut classes: Vec<Vec<Range>> = Vec::new();
    let mut by_key: HashMap<Vec<bool>, usize> = HashMap::new();
    for (number, &first) in cuts.iter().enumerate() {
        let last = cuts.get(number + 1).map_or(domain.last, |next| next - 1);
        let key = tests.iter().map(|test| test.contains(first)).collect();
        let class = *by_key.entry(key).or_insert(classes.len());
        if class == classes.len() {
            classes.push(Vec::new());
        }
        let Some(class) = classes.get_mut(class) else { continue };
        match class.last_mut() {
            Some(before) if before.last + 1 == first => before.last = last,
            _ => class.push(Range { first, last }),
        }
    }
    classes
}
