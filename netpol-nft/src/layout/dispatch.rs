//! What leads packets to programs: verdict maps from the address of a local pod, or from its device, to the chain of its
//! program.

use super::Builder;
use crate::model::{Action, Element, Field, KeyType, Name, Rule, Set, Value, VerdictMap};
use crate::options::Dispatch;
use netpol_core::{Direction, ProgramId};
use netpol_host::Comment;
use std::collections::BTreeMap;

/// The chain in which each program begins.
pub(super) type ProgramChains = BTreeMap<ProgramId, Name>;

/// What is dispatched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Traffic {
    /// Between pods, between pods and the world, and from pods to their own node unless that is exempt.
    Through,
    /// With the own node, where it is exempt from the NetworkPolicy tier.
    OwnNode,
}

/// The map for this traffic by address.
pub(crate) fn address_map(traffic: Traffic, direction: Direction) -> &'static str {
    match (traffic, direction) {
        (Traffic::Through, Direction::Egress) => "e",
        (Traffic::Through, Direction::Ingress) => "i",
        (Traffic::OwnNode, Direction::Egress) => "oe",
        (Traffic::OwnNode, Direction::Ingress) => "oi",
    }
}

/// The map for this traffic by device.
pub(crate) fn device_map(traffic: Traffic, direction: Direction) -> &'static str {
    match (traffic, direction) {
        (Traffic::Through, Direction::Egress) => "e_dev",
        (Traffic::Through, Direction::Ingress) => "i_dev",
        (Traffic::OwnNode, Direction::Egress) => "oe_dev",
        (Traffic::OwnNode, Direction::Ingress) => "oi_dev",
    }
}

/// The name of the set that counts what is denied in a direction.
pub(crate) fn counting_set_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "di",
        Direction::Egress => "de",
    }
}

impl Builder<'_> {
    /// The maps for this traffic.
    pub(super) fn dispatch(
        &mut self,
        traffic: Traffic,
        direction: Direction,
        chains: &ProgramChains,
    ) {
        let new = |key| VerdictMap { key, elements: BTreeMap::new(), notes: BTreeMap::new() };
        let (mut by_address, mut by_device) = (new(self.key_type()), new(KeyType::Device));
        for (pod, endpoint) in self.ruleset.endpoints() {
            let chain = endpoint.program(direction).and_then(|program| chains.get(&program));
            let Some(chain) = chain else { continue };
            let note = Comment::new(&pod.to_string());
            let lead = |map: &mut VerdictMap, key: Value| {
                map.notes.insert(vec![key.clone()], note.clone());
                map.elements.insert(vec![key], chain.clone());
            };
            if let Some(device) = self.telling_devices.get(pod) {
                lead(&mut by_device, Value::Device((*device).clone()));
                continue;
            }
            for address in self.addresses(pod) {
                lead(&mut by_address, Value::Address(address));
            }
        }
        if self.options.dispatch() == Dispatch::Interface {
            self.table.maps.insert(Name::made(device_map(traffic, direction)), by_device);
        }
        self.table.maps.insert(Name::made(address_map(traffic, direction)), by_address);
    }

    /// Is there anything to be dispatched?
    pub(super) fn dispatches(&self, traffic: Traffic, direction: Direction) -> bool {
        let maps = [address_map(traffic, direction), device_map(traffic, direction)];
        let mut maps = maps.iter().filter_map(|name| self.table.maps.get(&Name::made(name)));
        maps.any(|map| !map.elements.is_empty())
    }

    /// The rules that look a packet up.
    pub(super) fn lookups(&self, traffic: Traffic, direction: Direction) -> Vec<Rule> {
        let (address, device) = match direction {
            Direction::Egress => (Field::Source(self.version), Field::InDevice),
            Direction::Ingress => (Field::Destination(self.version), Field::OutDevice),
        };
        let lookup = |field, map| Rule {
            actions: vec![Action::Dispatch(field, Name::made(map))],
            ..Rule::default()
        };
        let mut rules = Vec::new();
        if self.options.dispatch() == Dispatch::Interface {
            rules.push(lookup(device, device_map(traffic, direction)));
        }
        rules.push(lookup(address, address_map(traffic, direction)));
        rules
    }

    /// The set that counts, by local pod, what is denied in a direction.
    pub(super) fn counting_set(&mut self, direction: Direction, chains: &ProgramChains) {
        let policed = self.ruleset.endpoints().iter().filter(|(_, endpoint)| {
            endpoint.program(direction).is_some_and(|program| chains.contains_key(&program))
        });
        let addresses = policed.flat_map(|(pod, _)| self.addresses(pod));
        let elements = addresses.map(|address| -> Element { vec![Value::Address(address)] });
        let elements = elements.collect();
        let comment = Comment::new(&format!("denied by pod, {direction}"));
        let (key, interval, counters) = (vec![self.key_type()], false, true);
        let name = Name::made(counting_set_name(direction));
        self.table.sets.insert(name, Set { key, interval, counters, elements, comment });
    }
}
