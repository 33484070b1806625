//! How a packet is spread over boolean variables, and which of its fields a question fixes.

use super::diagram::{Block, Diagram, Diagrams};
use super::names::Names;
use crate::machine::{ConnState, Field, Packet, Range, Stage};

// From the top of the diagrams to their bottom. The state decides most; addresses come before ports, since what two
// addresses have in common is shared below them.
pub(super) const STATE: Block = Block::new(0, 7);
pub(super) const DIRECTION: Block = STATE.then(1);
/// The address that varies.
pub(super) const ADDRESS: Block = DIRECTION.then(128);
/// The other address, where it varies, too.
pub(super) const OTHER: Block = ADDRESS.then(128);
/// The number of the device that belongs to the first address.
pub(super) const DEVICE: Block = OTHER.then(16);
/// The number of the device that belongs to the other address.
pub(super) const OTHER_DEVICE: Block = DEVICE.then(16);
/// How many devices can be told apart.
pub(super) const MOST_DEVICES: usize = 1 << 16;
pub(super) const PROTOCOL: Block = OTHER_DEVICE.then(8);
pub(super) const SECOND: Block = PROTOCOL.then(16);
pub(super) const FIRST: Block = SECOND.then(16);

/// Is it a block of numbers of devices?
pub(super) fn is_device(block: Block) -> bool {
    block == DEVICE || block == OTHER_DEVICE
}

/// What is known of a field.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Value {
    /// It has this value.
    Is(u128),
    /// These variables hold it.
    In(Block),
    /// Such packets do not have it.
    Missing,
}

/// The variables of an address of a family.
pub(super) fn address(block: Block, v6: bool) -> Block {
    if v6 { block } else { block.low(32) }
}

/// The packets that a question is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packets {
    pub(super) v6: bool,
    pub(super) source: Value,
    pub(super) destination: Value,
    pub(super) in_device: Value,
    pub(super) out_device: Value,
}

impl Packets {
    /// What the rules of a stage see of a field; the mark is not of the packet alone.
    pub(super) fn seen(&self, field: Field, stage: &Stage, mark: u32) -> Value {
        let device = |known: bool, device: Value| match device {
            // nf_tables compares a device that is not there as an empty name.
            Value::Missing => Value::Is(0),
            _ if !known => Value::Is(0),
            device => device,
        };
        match field {
            Field::Version => Value::Is(if self.v6 { 6 } else { 4 }),
            Field::Source => self.source,
            Field::Destination => self.destination,
            Field::Protocol => Value::In(PROTOCOL),
            Field::First => Value::In(FIRST),
            Field::Second => Value::In(SECOND),
            Field::InDevice => device(stage.knows_in_device, self.in_device),
            Field::OutDevice => device(stage.knows_out_device, self.out_device),
            Field::State if stage.before_conntrack => Value::Is(ConnState::Invalid.bit()),
            Field::Direction if stage.before_conntrack => Value::Missing,
            Field::State => Value::In(STATE),
            Field::Direction => Value::In(DIRECTION),
            Field::Mark => Value::Is(mark.into()),
        }
    }

    /// A packet out of variables with values.
    pub(super) fn packet(&self, bits: &[bool], names: &Names) -> Packet {
        let value = |value: Value| match value {
            Value::Is(value) => Some(value),
            Value::In(block) if is_device(block) => names.name(Diagrams::number(bits, block)),
            Value::In(block) => Some(Diagrams::number(bits, block)),
            Value::Missing => None,
        };
        let word = |block| u16::try_from(Diagrams::number(bits, block)).unwrap_or(u16::MAX);
        let state = Diagrams::number(bits, STATE);
        Packet {
            v6: self.v6,
            source: value(self.source).unwrap_or(0),
            destination: value(self.destination).unwrap_or(0),
            protocol: u8::try_from(Diagrams::number(bits, PROTOCOL)).unwrap_or(u8::MAX),
            first: word(FIRST),
            second: word(SECOND),
            in_device: value(self.in_device),
            out_device: value(self.out_device),
            state: ConnState::ALL
                .into_iter()
                .find(|known| known.bit() == state)
                .unwrap_or(ConnState::New),
            reply: Diagrams::number(bits, DIRECTION) == 1,
            mark: 0,
        }
    }
}

/// Packets in a state, and in a direction if it has directions.
pub(super) fn in_state(diagrams: &Diagrams, state: ConnState, reply: bool) -> Diagram {
    let direction = diagrams.point(DIRECTION, u128::from(reply));
    diagrams.and(&diagrams.point(STATE, state.bit()), &direction)
}

/// Packets whose connection has a direction: conntrack knows it.
pub(super) fn has_direction(diagrams: &Diagrams) -> Diagram {
    let without = [ConnState::Invalid, ConnState::Untracked].map(|state| Range::one(state.bit()));
    diagrams.not(&diagrams.within(STATE, &without))
}
