//! The source guard.

use super::{Builder, Devices, add_chain, neighbor_discovery};
use crate::model::{
    Builtin, Chain, ChainName, Dimension, IpProtocol, Match, Rule, SetName, Target,
};
use crate::name::ChainKind;
use crate::tree::{self, Side};
use ipnet::IpNet;
use netpol_core::Family;
use netpol_host::{Comment, DeviceName};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

impl Builder<'_> {
    /// A packet with a right source passes after one lookup. Only what is left is held against the devices one by one:
    /// what comes from none of them is not judged.
    pub(super) fn guard(&mut self, devices: &Devices) {
        let leaves: BTreeMap<DeviceName, Rule> = devices
            .iter()
            .map(|(device, of)| {
                let comment = Comment::new(&format!("not an address of pod {}", of.pod));
                let rule = Rule { target: Some(Target::Drop), comment, ..Rule::default() };
                (device.clone(), rule)
            })
            .collect();
        let (options, raw) = (self.options, &mut self.raw);
        let mut add =
            |rules, title: &str| add_chain(options, raw, ChainKind::Guard, &[], rules, title);
        let root = tree::devices(&leaves, &mut add);
        let root = Target::Goto(add(root, "source guard: devices of pods"));
        let set = SetName::guard(options.prefix(), self.family);
        let mut rules = vec![Rule {
            matches: vec![Match::Set(set, vec![Dimension::Source; 2])],
            target: Some(Target::Return),
            comment: Comment::new("an address of the pod"),
            ..Rule::default()
        }];
        if self.family == Family::V6 {
            // What a pod without an address must send: neighbor discovery, duplicate address detection and multicast
            // listener reports. Router advertisements and redirects are not among it (F08).
            let mut types: Vec<Rule> =
                [130, 131, 132, 133, 135, 136, 143].map(neighbor_discovery).into();
            types.push(Rule { target: Some(root.clone()), ..Rule::default() });
            let types = Target::Goto(add(types, "source guard: neighbor discovery"));
            let link_local =
                ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
            for source in [link_local.into(), IpNet::from(IpAddr::from(Ipv6Addr::UNSPECIFIED))] {
                let protocol = Some(IpProtocol::Icmpv6);
                let target = Some(types.clone());
                rules.push(Rule { protocol, target, ..tree::of_network(Side::Source, source) });
            }
        }
        rules.push(Rule { target: Some(root), ..Rule::default() });
        let name = ChainName::entry(self.options.prefix(), Builtin::Prerouting);
        let title = Comment::new("source guard");
        let jump = Rule {
            device: tree::pattern(devices.keys()),
            target: Some(Target::Jump(name.clone())),
            comment: Comment::new("netpol"),
            ..Rule::default()
        };
        self.raw.chains.insert(name, Chain { rules, title });
        self.raw.jumps.insert(Builtin::Prerouting, jump);
    }
}
