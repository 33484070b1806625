//! The source guard: what comes from a pod's device must come from its address (L2, F15, F83).

use super::{Builder, Devices, MARKER, chain_name, condition};
use crate::model::{
    Action, Chain, Field, Hook, HookPoint, IpVersion, KeyType, Match, Name, Rule, Table, Test,
    Value, VerdictMap,
};
use ipnet::IpNet;
use netpol_host::{Comment, LocalDevice};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

impl Builder<'_> {
    /// The check in prerouting: a chain for each device.
    pub(super) fn guard(&mut self) {
        let mut map =
            VerdictMap { key: KeyType::Device, elements: BTreeMap::new(), notes: BTreeMap::new() };
        for (device, of) in self.devices {
            let pod = owner(of);
            let mut rules = Vec::new();
            let own = of.addresses.iter().copied().filter(|address| self.is_of(*address)).collect();
            own_sources(self.version, own, &Action::Return, &mut rules);
            rules.push(Rule {
                matches: Vec::new(),
                actions: vec![Action::Counter, Action::Drop],
                comment: Comment::new(&format!("not an address of {pod}")),
            });
            let chain = self.add_chain("g", None, rules, &format!("source guard of {pod}"));
            let key = vec![Value::Device(device.clone())];
            map.notes.insert(key.clone(), pod);
            map.elements.insert(key, chain);
        }
        let name = Name::made("g");
        self.table.maps.insert(name.clone(), map);
        // Before conntrack, which is at -200: a forged packet must not make an entry.
        let hook = Hook { point: HookPoint::Prerouting, priority: -300, device: None };
        let actions = vec![Action::Dispatch(Field::InDevice, name)];
        let rules = vec![Rule { actions, ..Rule::default() }];
        self.add_chain("guard", Some(hook), rules, "source guard");
    }
}

fn owner(device: &LocalDevice) -> Comment {
    Comment::new(&format!("pod {}", device.pod))
}

/// The rules that let a pod's own source addresses pass, and what a pod without an address must send: neighbor
/// discovery, duplicate address detection and multicast listener reports, from `fe80::/10` and `::`. Router
/// advertisements and redirects are not among it (F08).
fn own_sources(version: IpVersion, own: Vec<IpAddr>, pass: &Action, rules: &mut Vec<Rule>) {
    let mut rule = |matches: Vec<Match>, comment: &str| {
        let (actions, comment) = (vec![pass.clone()], Comment::new(comment));
        rules.push(Rule { matches, actions, comment });
    };
    let source = Field::Source(version);
    let mut own: Vec<Value> = own.into_iter().map(Value::Address).collect();
    match (own.pop(), own.is_empty()) {
        (None, _) => {}
        (Some(one), true) => rule(vec![condition(source, Test::Is(one))], ""),
        (Some(last), false) => {
            let all = own.into_iter().chain([last]).map(|address| vec![address]).collect();
            rule(vec![condition(source, Test::OneOf(all))], "");
        }
    }
    if version == IpVersion::V6 {
        let types = [(130, 133), (135, 136), (143, 143)];
        let types = types.map(|(first, last)| vec![Value::Icmpv6Types(first, last)]).to_vec();
        let link_local: ipnet::Ipv6Net =
            ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
        for from in
            [Value::Network(link_local.into()), Value::Address(Ipv6Addr::UNSPECIFIED.into())]
        {
            let types = condition(Field::Icmpv6Type, Test::OneOf(types.clone()));
            rule(vec![condition(source, Test::Is(from)), types], "neighbor discovery");
        }
    }
}

/// The source guard at the devices.
pub(super) fn netdev_table(devices: &Devices) -> Table {
    let mut table = Table::default();
    let marker = Chain { title: Comment::new("whose table this is"), ..Chain::default() };
    table.chains.insert(Name::made(MARKER), marker);
    for (device, of) in devices {
        let pod = owner(of);
        let mut rules = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let of_version = |address: &IpAddr| address.is_ipv4() == (version == IpVersion::V4);
            let own = of.addresses.iter().copied().filter(of_version).collect();
            own_sources(version, own, &Action::Accept, &mut rules);
        }
        // Frames of other kinds, ARP among them, are not judged.
        for version in [IpVersion::V4, IpVersion::V6] {
            let any = match version {
                IpVersion::V4 => IpNet::from(ipnet::Ipv4Net::default()),
                IpVersion::V6 => IpNet::from(ipnet::Ipv6Net::default()),
            };
            rules.push(Rule {
                matches: vec![condition(Field::Source(version), Test::Is(Value::Network(any)))],
                actions: vec![Action::Counter, Action::Drop],
                comment: Comment::new(&format!("not an address of {pod}")),
            });
        }
        let hook = Hook { point: HookPoint::Ingress, priority: -500, device: Some(device.clone()) };
        let hook = Some(hook);
        let name = chain_name("g", hook.as_ref(), &rules);
        let title = Comment::new(&format!("source guard of {pod}"));
        table.chains.insert(name, Chain { hook, rules, title });
    }
    table
}
