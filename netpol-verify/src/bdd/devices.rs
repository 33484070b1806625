//! By which devices the packets of pods, and of everything else, come and go.
//!
//! Where the device of a pod is not given, it is any by which the source guard of the rules lets the pod's address come in,
//! and an address of nobody not.

use super::Engine;
use super::diagram::{Block, Diagram};
use super::execute::Execution;
use super::packets::in_state;
use super::packets::{ADDRESS, FIRST, OTHER, PROTOCOL, Packets, SECOND, Value, address};
use crate::machine::{ConnState, Path, Range};
use crate::specification::PodIndex;
use std::collections::BTreeMap;

/// An address of nobody, of each family.
const NOBODY: [u128; 2] = [0xcb00_71fa, 0x2001_0db8_ffff_0000_0000_0000_0000_0250];

/// Devices, as sets of names over one block of variables.
pub(super) struct Devices {
    block: Block,
    of_pod: BTreeMap<PodIndex, Diagram>,
    /// Those that are no pod's.
    outside: Diagram,
}

impl Devices {
    pub(super) fn new(engine: &Engine<'_, '_>, block: Block) -> Self {
        let diagrams = &engine.diagrams;
        let given: Vec<Range> = engine.given.values().map(|device| Range::one(*device)).collect();
        let real = diagrams.within(block, &engine.sets.names().real());
        let free = diagrams.minus(&real, &engine.sets.within(diagrams, block, &given));
        let mut devices = Self { block, of_pod: BTreeMap::new(), outside: free.clone() };
        let unknown =
            |pod: PodIndex| engine.specification.is_local(pod) && !engine.given.contains_key(&pod);
        if !engine.specification.local_pods().any(unknown) {
            return devices;
        }
        let others = diagrams.all_but(block);
        for v6 in [false, true] {
            let stages = engine.own.stages(Path::Arrival, v6);
            let nobody = if v6 { NOBODY[1] } else { NOBODY[0] };
            let source = address(ADDRESS, v6);
            let packets = Packets {
                v6,
                source: Value::In(source),
                destination: Value::Is(nobody),
                in_device: Value::In(block),
                out_device: Value::Missing,
            };
            let fates = Execution::run(engine.own, diagrams, &engine.sets, packets, &stages);
            let passed = diagrams.or(&fates.pass, &fates.may_pass);
            // One packet stands for all: a TCP packet, for which no guard has an exception.
            let like = [(PROTOCOL, 6u128), (FIRST, 40_000), (SECOND, 80), (OTHER, nobody)];
            let like = like.map(|(block, value)| diagrams.point(block, value));
            let like = like
                .iter()
                .fold(in_state(diagrams, ConnState::New, false), |a, b| diagrams.and(&a, b));
            let passed = diagrams.and(&passed, &like);
            let by_device = |from: u128| {
                let from = diagrams.and(&passed, &diagrams.point(source, from));
                diagrams.without(&from, &others)
            };
            let guarded = diagrams.minus(&free, &by_device(nobody));
            if diagrams.is_none(&guarded) {
                continue;
            }
            devices.outside = diagrams.minus(&devices.outside, &guarded);
            for (from, pod) in engine.specification.owners(v6) {
                if !unknown(*pod) {
                    continue;
                }
                let own = diagrams.and(&guarded, &by_device(*from));
                if !diagrams.is_none(&own) {
                    let known = devices.of_pod.entry(*pod).or_insert_with(|| diagrams.none());
                    *known = diagrams.or(known, &own);
                }
            }
        }
        devices
    }

    /// The devices by which packets of these addresses go.
    pub(super) fn by_address(&self, engine: &Engine<'_, '_>, block: Block, v6: bool) -> Diagram {
        let local = engine.specification.owners(v6).iter();
        let pieces: Vec<(Range, Diagram)> = local
            .filter(|(_, pod)| engine.specification.is_local(**pod))
            .map(|(address, pod)| (Range::one(*address), self.of(engine, Some(*pod))))
            .collect();
        engine.diagrams.pieces_or(block, &pieces, &self.outside)
    }

    /// The devices of a pod, or of what is no pod of this node.
    pub(super) fn of(&self, engine: &Engine<'_, '_>, pod: Option<PodIndex>) -> Diagram {
        let given = pod.and_then(|pod| engine.given.get(&pod));
        if let Some(device) = given {
            let device = [Range::one(*device)];
            return engine.sets.within(&engine.diagrams, self.block, &device);
        }
        let known = pod.and_then(|pod| self.of_pod.get(&pod));
        known.unwrap_or(&self.outside).clone()
    }
}
