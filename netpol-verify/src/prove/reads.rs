//! What a base chain looks at, so that it need not be run again for traffic that differs elsewhere.

use crate::machine::{ChainIndex, Field, Machine, Packet, Path, Stage, Step, Verdict};
use std::collections::HashSet;

/// The base chains on a way, each with what it looks at.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) stages: Vec<Stage>,
    pub(super) reads: Vec<Reads>,
}

impl Way {
    pub(super) fn new(machine: &Machine, path: Path, v6: bool) -> Self {
        let stages = machine.stages(path, v6);
        let reads = stages.iter().map(|stage| Reads::of(machine, stage.chain)).collect();
        Self { stages, reads }
    }
}

/// Which of the fields that change between runs a stage looks at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reads {
    protocol: bool,
    first: bool,
    second: bool,
    state: bool,
    direction: bool,
}

impl Reads {
    /// All chains that a stage can come to.
    fn of(machine: &Machine, start: ChainIndex) -> Self {
        let mut reads = Self::default();
        let mut seen = HashSet::from([start]);
        let mut open = vec![start];
        while let Some(chain) = open.pop().and_then(|index| machine.chain(index)) {
            let mut target = |verdict: &Verdict| {
                if let Verdict::Jump(next) | Verdict::Goto(next) = verdict
                    && seen.insert(*next)
                {
                    open.push(*next);
                }
            };
            for step in chain.rules.iter().flat_map(|rule| &rule.steps) {
                match step {
                    Step::Match(condition) => reads.add(&condition.key),
                    Step::Dispatch { key, map } => {
                        reads.add(key);
                        map.entries().for_each(|(_, verdict)| target(verdict));
                    }
                    Step::Verdict(verdict) => target(verdict),
                    _ => {}
                }
            }
        }
        reads
    }

    fn add(&mut self, key: &[Field]) {
        for field in key {
            match field {
                Field::Protocol => self.protocol = true,
                Field::First => self.first = true,
                Field::Second => self.second = true,
                Field::State => self.state = true,
                Field::Direction => (self.state, self.direction) = (true, true),
                _ => {}
            }
        }
    }

    pub(super) fn key(&self, packet: &Packet) -> [u32; 5] {
        let of = |reads: bool, value: u32| if reads { value } else { 0 };
        [
            of(self.protocol, packet.protocol.into()),
            of(self.first, packet.first.into()),
            of(self.second, packet.second.into()),
            of(self.state, u32::try_from(packet.state.bit()).unwrap_or(0)),
            of(self.direction, packet.reply.into()),
        ]
    }
}
