//! What is installed, in the terms of the rule IR.

use crate::error::Error;
use crate::installed::{Installed, InstalledTable};
use crate::layout::{Traffic, address_map, device_map};
use crate::model::{Chain, IpVersion, Model, Name, Table, TableFamily, Value};
use netpol_core::{AddressSet, Direction, Family, Inventory, ProgramId, Ruleset};
use netpol_host::LocalDevices;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

/// What names and elements alone tell. Networks that are written out in rules are not in it, nor are pods that are
/// dispatched by their device.
pub(crate) fn inventory(installed: &Installed) -> Result<Inventory, Error> {
    let mut inventory = Inventory::default();
    for table in ip_tables(installed).map(|(_, table)| table) {
        add_sets(&mut inventory, table)?;
        let programs = programs(table)?;
        inventory.programs.extend(programs.values());
        for direction in Direction::ALL {
            for (value, program) in
                dispatched(table, address_map(Traffic::Through, direction), &programs)
            {
                if let Value::Address(address) = value {
                    inventory.dispatch.insert((direction, *address), program);
                }
            }
        }
    }
    Ok(inventory)
}

/// Adds what only the ruleset can tell: which networks are written out in rules, and whose the devices are.
pub(crate) fn add_explained(
    inventory: &mut Inventory,
    installed: &Installed,
    ruleset: &Ruleset,
    devices: &LocalDevices,
    wanted: &Model,
) -> Result<(), Error> {
    for (version, table) in ip_tables(installed) {
        let family = match version {
            IpVersion::V4 => TableFamily::Ip,
            IpVersion::V6 => TableFamily::Ip6,
        };
        add_inline_networks(inventory, ruleset, table, wanted.tables.get(&family), version);
        let programs = programs(table)?;
        for direction in Direction::ALL {
            for (value, program) in
                dispatched(table, device_map(Traffic::Through, direction), &programs)
            {
                let Value::Device(device) = value else { continue };
                let of = devices.devices.get(device);
                let addresses = of.map(|of| ruleset.addresses(&of.pod)).unwrap_or_default();
                let of_version =
                    |address: &&IpAddr| address.is_ipv4() == (version == IpVersion::V4);
                let addresses = addresses.iter().filter(of_version);
                inventory
                    .dispatch
                    .extend(addresses.map(|&address| ((direction, address), program)));
            }
        }
    }
    Ok(())
}

fn ip_tables(installed: &Installed) -> impl Iterator<Item = (IpVersion, &InstalledTable)> {
    installed.tables.iter().filter_map(|(family, table)| match family {
        TableFamily::Ip => Some((IpVersion::V4, table)),
        TableFamily::Ip6 => Some((IpVersion::V6, table)),
        TableFamily::Netdev => None,
    })
}

/// The id in a name of ours.
fn id<T: FromStr>(name: &Name, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Unrecognized { name: name.to_string() })
}

fn add_sets(inventory: &mut Inventory, table: &InstalledTable) -> Result<(), Error> {
    for (name, elements) in &table.sets {
        let Some((kind, rest)) = name.as_str().split_once('_') else { continue };
        let (text, length) =
            rest.split_once('_').map_or((rest, None), |(t, l)| (t, l.parse().ok()));
        match kind {
            "p" => {
                let set = inventory.pod_sets.entry(id(name, text)?).or_default();
                set.extend(elements.iter().flatten().filter_map(address));
            }
            "n" => {
                let set = inventory.named_port_sets.entry(id(name, text)?).or_default();
                set.extend(elements.iter().filter_map(|element| match element.as_slice() {
                    [Value::Address(address), Value::Ports(port, _)] => Some((*address, *port)),
                    _ => None,
                }));
            }
            "c" => {
                let networks = elements.iter().flatten().filter_map(|v| networks(v, length));
                let networks = networks.fold(AddressSet::empty(), |all, some| all.union(&some));
                let set = inventory.net_sets.entry(id(name, text)?).or_default();
                *set = set.union(&networks);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The chains in which programs begin.
fn programs(table: &InstalledTable) -> Result<BTreeMap<&Name, ProgramId>, Error> {
    let mut programs = BTreeMap::new();
    for name in table.chains.keys() {
        let mut parts = name.as_str().split('_');
        if let (Some("i" | "e"), Some(text)) = (parts.next(), parts.next()) {
            programs.insert(name, id(name, text)?);
        }
    }
    Ok(programs)
}

/// The keys of a verdict map that lead to programs.
fn dispatched<'a>(
    table: &'a InstalledTable,
    map: &'static str,
    programs: &'a BTreeMap<&Name, ProgramId>,
) -> impl Iterator<Item = (&'a Value, ProgramId)> {
    let map = table.maps.iter().find(move |(name, _)| name.as_str() == map);
    map.into_iter()
        .flat_map(|(_, map)| map)
        .filter_map(|(element, chain)| Some((element.first()?, *programs.get(chain)?)))
}

/// Networks that are written out in rules are installed if all the rules are.
fn add_inline_networks(
    inventory: &mut Inventory,
    ruleset: &Ruleset,
    installed: &InstalledTable,
    wanted: Option<&Table>,
    version: IpVersion,
) {
    let intact = |(name, chain): (&Name, &Chain)| {
        let comments = chain.rules.iter().map(|rule| rule.comment.as_str());
        let installed = installed.chains.get(name);
        installed.is_some_and(|chain| comments.eq(chain.iter().map(String::as_str)))
    };
    if !wanted.is_some_and(|table| table.chains.iter().all(intact)) {
        return;
    }
    for (id, addresses) in ruleset.net_sets() {
        let prefix = format!("c_{id}");
        if installed.sets.keys().any(|name| name.as_str().starts_with(&prefix)) {
            continue;
        }
        let family = match version {
            IpVersion::V4 => Family::V4,
            IpVersion::V6 => Family::V6,
        };
        let set = inventory.net_sets.entry(*id).or_default();
        *set = set.union(&addresses.restricted_to(family));
    }
}

fn address(value: &Value) -> Option<IpAddr> {
    match value {
        Value::Address(address) => Some(*address),
        _ => None,
    }
}

fn networks(value: &Value, length: Option<u8>) -> Option<AddressSet> {
    match value {
        Value::Address(address) => Some(match length {
            Some(length) => ipnet::IpNet::new(*address, length).ok()?.into(),
            None => (*address).into(), // an interval of one
        }),
        Value::Addresses(first, last) => Some(AddressSet::range(*first, *last)),
        _ => None,
    }
}
