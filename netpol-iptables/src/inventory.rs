//! What is installed, in the terms of a ruleset.

use crate::error::Error;
use crate::installed::{Installed, Words, words};
use crate::layout::{Adjustments, Layout, layout_with};
use crate::model::{ChainName, Element, SetName, TableName};
use crate::name::SetKind;
use crate::options::IptablesOptions;
use crate::plan::versions_of;
use crate::text;
use ipnet::IpNet;
use netpol_core::{AddressSet, Direction, Family, Inventory, ProgramId, Ruleset};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What packets meet now, and what else of the ruleset is there.
pub(crate) fn inventory(
    installed: &Installed,
    ruleset: &Ruleset,
    options: &IptablesOptions,
) -> Result<Inventory, Error> {
    let live = installed.live_sets();
    let adjustments =
        Adjustments { versions: versions_of(installed, &live), ..Adjustments::default() };
    let layout = layout_with(ruleset, options, &adjustments);
    let mut inventory = Inventory::default();
    sets(installed, ruleset, options, &layout, &live, &mut inventory)?;
    for family in Family::ALL {
        rules(installed, ruleset, &layout, family, options, &mut inventory)?;
    }
    Ok(inventory)
}

fn sets(
    installed: &Installed,
    ruleset: &Ruleset,
    options: &IptablesOptions,
    layout: &Layout,
    live: &BTreeSet<SetName>,
    inventory: &mut Inventory,
) -> Result<(), Error> {
    let stray = live.iter().find(|name| !layout.model.sets.contains_key(*name));
    if let Some(name) = stray {
        return Err(Error::Unrecognized { name: name.to_string() });
    }
    let of = |kind, family, id: &[u8; 16]| {
        let base = SetName::of(options.prefix(), kind, family, id);
        let is_it = |(name, _): &(&SetName, &_)| !name.is_single() && name.with_version(0) == base;
        let name = layout.model.sets.iter().find(is_it)?.0;
        installed.sets.get(name).map(|set| &set.elements)
    };
    for family in Family::ALL {
        for id in ruleset.pod_sets().keys() {
            let Some(elements) = of(SetKind::Pods, family, id.as_bytes()) else { continue };
            let addresses = elements.iter().filter_map(|element| match element {
                Element::Address(address) => Some(*address),
                _ => None,
            });
            inventory.pod_sets.entry(*id).or_default().extend(addresses);
        }
        for id in ruleset.named_port_sets().keys() {
            let Some(elements) = of(SetKind::NamedPorts, family, id.as_bytes()) else { continue };
            let ports = elements.iter().filter_map(|element| match element {
                Element::Port(address, _, port) => Some((*address, *port)),
                _ => None,
            });
            inventory.named_port_sets.entry(*id).or_default().extend(ports);
        }
        for id in ruleset.net_sets().keys() {
            let Some(elements) = of(SetKind::Networks, family, id.as_bytes()) else { continue };
            let networks = elements.iter().filter_map(|element| match element {
                Element::Network(net) => Some(*net),
                _ => None,
            });
            let networks: AddressSet = networks.collect();
            let set = inventory.net_sets.entry(*id).or_default();
            *set = set.union(&networks);
        }
    }
    Ok(())
}

fn rules(
    installed: &Installed,
    ruleset: &Ruleset,
    layout: &Layout,
    family: Family,
    options: &IptablesOptions,
    inventory: &mut Inventory,
) -> Result<(), Error> {
    let key = (family, TableName::Filter);
    let Some(table) = installed.tables.get(&key) else { return Ok(()) };
    let live = table.live_chains();
    let programs: BTreeMap<&str, ProgramId> = layout
        .programs
        .iter()
        .filter(|((of, _), _)| *of == family)
        .map(|((_, chain), id)| (chain.as_str(), *id))
        .collect();
    for name in table.chains.keys() {
        match programs.get(name.as_str()) {
            Some(id) => {
                inventory.programs.insert(*id);
            }
            None if live.contains(name) && name.direction().is_some() => {
                return Err(Error::Unrecognized { name: name.to_string() });
            }
            None => {}
        }
    }
    for (name, rules) in table.chains.iter().filter(|(name, _)| live.contains(*name)) {
        if name.direction().is_some() {
            continue; // a rule with a full address in a program is not dispatch
        }
        for rule in rules {
            let Some((direction, address, chain)) = leaf(rule) else { continue };
            let leads = ChainName::parse(options.prefix(), chain).and_then(|c| c.direction());
            if let (true, Some(id)) = (leads == Some(direction), programs.get(chain)) {
                inventory.dispatch.insert((direction, address), *id);
            }
        }
    }
    let intact = layout.model.tables.get(&key).is_some_and(|table_wanted| {
        table_wanted.chains.iter().all(|(name, chain)| {
            let lines = chain.rules.iter().map(|rule| words(&text::append(name.as_str(), rule)));
            let lines: Vec<Words> = lines.collect();
            table.chains.get(name) == Some(&lines)
        })
    });
    if intact {
        // Networks that are written out in rules are installed if all the rules are.
        for (id, addresses) in ruleset.net_sets() {
            let set = inventory.net_sets.entry(*id).or_default();
            *set = set.union(&addresses.restricted_to(family));
        }
    }
    Ok(())
}

/// The address and the chain of a rule of the tree: `-s ADDRESS -g CHAIN`, and nothing else.
fn leaf(rule: &Words) -> Option<(Direction, IpAddr, &str)> {
    let words: Vec<&str> = rule.iter().map(String::as_str).collect();
    let ["-A", _, side, net, "-g", chain] = words.as_slice() else {
        return None;
    };
    let direction = match *side {
        "-s" => Direction::Egress,
        "-d" => Direction::Ingress,
        _ => return None,
    };
    let net: IpNet = net.parse().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| (direction, net.addr(), *chain))
}
