//! By which devices packets come and go.

use super::lanes::{Lane, Lanes};
use super::reads::Way;
use super::runner::Runner;
use crate::machine::{
    ConnState, Field, Hook, HookPoint, Machine, Packet, Path, Range, Step, device_value,
    value_device,
};
use crate::specification::{PodIndex, Specification};
use std::collections::{BTreeMap, BTreeSet};

/// The devices of local pods, and those of everything else.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) of_pod: BTreeMap<PodIndex, Vec<u128>>,
    /// One for each class of devices that packets come in by, that the rules tell apart and that are no pod's.
    pub(super) from_outside: Vec<u128>,
    /// The same of devices that packets leave by.
    pub(super) to_outside: Vec<u128>,
    /// The pods whose devices were not given but are those that a source guard in the rules names.
    pub(super) inferred: BTreeSet<PodIndex>,
    /// The devices that a source guard in the rules closes to everybody that it could be asked about.
    pub(super) closed: BTreeSet<u128>,
}

/// An address of nobody, of each family, to see what a source guard says of it.
const SOMEWHERE: [u128; 2] = [0xcb00_71fa, 0x2001_0db8_ffff_0000_0000_0000_0000_0250];

impl Devices {
    /// What was given, and what netpol's own rules say of the rest.
    pub(super) fn new(
        machine: &Machine,
        own: &Machine,
        specification: &Specification<'_>,
        given: &BTreeMap<PodIndex, u128>,
    ) -> Self {
        let mut devices = Self::default();
        for (pod, device) in given {
            devices.of_pod.insert(*pod, vec![*device]);
        }
        let mut taken: BTreeSet<u128> = given.values().copied().collect();
        let [coming, leaving] =
            [Field::InDevice, Field::OutDevice].map(|field| candidates(machine, field));
        let unknown: BTreeSet<PodIndex> =
            specification.local_pods().filter(|pod| !given.contains_key(pod)).collect();
        if !unknown.is_empty() {
            let ways = [false, true].map(|v6| Way::new(own, Path::Arrival, v6));
            for device in coming.union(&leaving).copied() {
                if taken.contains(&device) {
                    continue;
                }
                let found = guarded(own, &ways, specification, device, &unknown);
                if let Some(found) = &found {
                    taken.insert(device);
                    devices.closed.extend(found.is_empty().then_some(device));
                }
                for pod in found.into_iter().flatten() {
                    devices.of_pod.entry(pod).or_default().push(device);
                    devices.inferred.insert(pod);
                }
            }
        }
        let outside = |devices: BTreeSet<u128>| devices.difference(&taken).copied().collect();
        devices.from_outside = outside(coming);
        devices.to_outside = outside(leaving);
        devices
    }

    /// By which devices a pod's packets can come (`InDevice`) or go.
    pub(super) fn of(&self, pod: Option<PodIndex>, field: Field) -> &[u128] {
        let outside = if field == Field::InDevice { &self.from_outside } else { &self.to_outside };
        pod.and_then(|pod| self.of_pod.get(&pod)).unwrap_or(outside)
    }
}

/// The pods whose addresses may come in by a device by which an address of nobody may not; none if that may.
fn guarded(
    machine: &Machine,
    ways: &[Way; 2],
    specification: &Specification<'_>,
    device: u128,
    pods: &BTreeSet<PodIndex>,
) -> Option<BTreeSet<PodIndex>> {
    let mut guarded = None;
    for (v6, way) in [false, true].into_iter().zip(ways) {
        let owners = specification.local_owners(v6);
        let nobody = if v6 { SOMEWHERE[1] } else { SOMEWHERE[0] };
        let own = owners.iter().filter(|(_, pod)| pods.contains(pod));
        let (addresses, pods): (Vec<u128>, Vec<PodIndex>) =
            std::iter::once(&(nobody, usize::MAX)).chain(own).copied().unzip();
        let lanes = Lanes {
            lanes: addresses.into_iter().map(|address| Lane { address, device: None }).collect(),
            address: Field::Source,
            device: Field::OutDevice,
        };
        let packet = Packet {
            v6,
            source: 0,
            destination: nobody,
            protocol: 6,
            first: 40000,
            second: 80,
            in_device: Some(device),
            out_device: None,
            state: ConnState::New,
            reply: false,
            mark: 0,
        };
        let outcome = Runner::new(machine, way, &lanes, packet).run();
        let [clean, tainted] = &outcome.accepted;
        let mut passed: BTreeSet<usize> = clean.iter().chain(tainted.iter()).collect();
        if !passed.remove(&0) {
            let found = passed.iter().filter_map(|lane| pods.get(*lane));
            guarded.get_or_insert_with(BTreeSet::new).extend(found);
        }
    }
    guarded
}

/// A device for each class that the rules tell apart by this field, and one that no rule names.
fn candidates(machine: &Machine, field: Field) -> BTreeSet<u128> {
    let (named, wild): (BTreeSet<Range>, BTreeSet<Range>) =
        named(machine, field).into_iter().partition(|range| range.first == range.last);
    let mut named: BTreeSet<u128> = named.into_iter().map(|range| range.first).collect();
    named.remove(&0);
    // A name that only the wildcards match, for each of them; and one that nothing matches.
    for prefix in wild.iter().map(|range| value_device(range.first)).chain([String::new()]) {
        let tails = ["net0", "port0", "link0", "~", "q"];
        let names = tails.iter().filter_map(|tail| device_value(&format!("{prefix}{tail}")));
        let fresh = names.into_iter().find(|name| {
            let deeper = |range: &&Range| range.contains(*name) && range.first > 0;
            let deepest = wild.iter().filter(deeper).map(|r| value_device(r.first).len()).max();
            !named.contains(name) && deepest.unwrap_or(0) == prefix.len()
        });
        named.extend(fresh);
    }
    named
}

/// The devices that the rules name in this field, one by one or by wildcards.
pub(super) fn named(machine: &Machine, field: Field) -> BTreeSet<Range> {
    let mut all: BTreeSet<Range> = BTreeSet::new();
    let is_device = |of: &Field| *of == field;
    let is_at_device = |hook: &&Hook| match hook.point {
        HookPoint::Ingress => field == Field::InDevice,
        _ => field == Field::OutDevice,
    };
    for chain in &machine.chains {
        let bound = chain.hook.iter().filter(is_at_device);
        let bound = bound.filter_map(|hook| hook.devices.as_ref()).flatten();
        all.extend(bound.filter_map(|name| device_value(name)).map(Range::one));
        for step in chain.rules.iter().flat_map(|rule| &rule.steps) {
            let part = |key: &[Field]| {
                let parts = key.iter().enumerate().filter(|(_, field)| is_device(field));
                parts.map(|(part, _)| part).collect::<Vec<_>>()
            };
            match step {
                Step::Match(condition) if condition.key.len() == 1 => {
                    let own = condition.key.iter().any(is_device);
                    all.extend(condition.set.intervals().iter().filter(|_| own));
                }
                Step::Match(condition) => {
                    let parts = part(&condition.key);
                    let boxes = condition.set.boxes().iter();
                    all.extend(
                        boxes.flat_map(|one| parts.iter().filter_map(|part| one.get(*part))),
                    );
                }
                Step::Dispatch { key, map } => {
                    let parts = part(key);
                    let entries = map.entries().map(|(entry, _)| entry);
                    all.extend(
                        entries.flat_map(|entry| parts.iter().filter_map(|part| entry.get(*part))),
                    );
                }
                _ => {}
            }
        }
    }
    all
}
