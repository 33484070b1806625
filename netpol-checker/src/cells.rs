//! The cells of a question, one by one: coverage, policies, rules and that these agree.

use crate::check::Checker;
use crate::class::Class;
use crate::coverage::covers;
use crate::defect::Defect;
use crate::format::{Question, STATES, Way};
use crate::list::{Interval, List, without};
use crate::policies::{PodIndex, Remote, Side};
use crate::questions::{Asked, name};
use crate::rules::{Packets, Stage};
use netpol_core::Direction;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A class of the address that varies, and of the device at that end.
struct Lane {
    address: Class,
    device: Option<Class>,
    /// The policies there, if it is a pod of this node.
    far: Option<Rc<Side>>,
}

/// What all cells of a question have in common.
struct Around<'q> {
    asked: &'q Asked,
    question: &'q Question,
    /// The class of the device at the fixed end.
    device: Option<Class>,
    /// The policies at the fixed end.
    near: Option<Rc<Side>>,
    lanes: Vec<Lane>,
    stages: Vec<Stage<'q>>,
}

impl Checker<'_> {
    /// One question: its classes, and then its cells.
    pub(crate) fn question(&mut self, asked: &Asked, question: &Question) -> Result<(), Defect> {
        self.checked.questions += 1;
        let coverage = |what: String| Defect::Coverage { question: name(question), what };
        let malformed = |what: &str| Defect::Malformed(format!("{}: {what}", name(question)));
        let domain = self.domain(asked);
        let lanes = self.lanes(asked, question, &domain)?;
        // The other end, if it is not fixed.
        let others = match asked.fixed {
            Some(address) if question.others.is_empty() => vec![self.tests.point(address)],
            Some(_) => return Err(malformed("two addresses at the fixed end")),
            None => {
                let others = question.others.iter().map(|index| self.class(*index));
                let others: Vec<Class> = others.collect::<Result<_, _>>()?;
                covers(&domain, others.iter().map(|class| self.tests.list(*class)))
                    .map_err(coverage)?;
                others
            }
        };
        let traffic = self.certificate.traffic.get(question.traffic);
        let traffic = traffic.ok_or_else(|| malformed("classes of traffic that are not there"))?;
        let states = if asked.way == Way::Guard { STATES.get(..1) } else { STATES.get(..) };
        let states = states.unwrap_or_default();
        let device = question.device.map(|index| self.class(index)).transpose()?;
        let near = match asked.way {
            Way::ToPod | Way::FromNode => Some(Direction::Ingress),
            Way::FromPod | Way::ToNode => Some(Direction::Egress),
            Way::Past | Way::Guard => None,
        };
        let near = near.zip(asked.pod);
        let near =
            near.map(|(direction, pod)| self.world.side(&mut self.tests, pod, direction, asked.v6));
        let own_only = self.is_judged_by_own(asked.way) && !asked.together;
        let stages = self.rules.stages(asked.way, asked.v6, own_only);
        let around = Around { asked, question, device, near, lanes, stages };
        if question.cells.len() != others.len() * traffic.len() * states.len() {
            return Err(malformed("too few or too many cells"));
        }
        let mut cells = question.cells.chunks(states.len());
        for other in others {
            for (boxes, cells) in traffic.iter().zip(&mut cells) {
                let mut traffic = [0; 3];
                for (class, index) in traffic.iter_mut().zip(boxes) {
                    *class = self.class(*index)?;
                }
                for number in 0..around.lanes.len() {
                    self.cells(&around, number, other, traffic, states.iter().zip(cells))?;
                }
            }
        }
        Ok(())
    }

    /// What the node itself sends and receives, and what passes by its pods, is the node's own firewall's affair, too.
    fn is_judged_by_own(&self, way: Way) -> bool {
        self.others_may_drop || matches!(way, Way::ToNode | Way::FromNode | Way::Past)
    }

    /// What the address that varies can be.
    fn domain(&self, asked: &Asked) -> Vec<Interval> {
        let all = Interval::new(0, if asked.v6 { u128::MAX } else { u32::MAX.into() });
        match asked.way {
            Way::ToPod | Way::Guard => vec![all],
            Way::FromPod | Way::Past => {
                without(all, &self.world.owned(asked.v6, |pod| self.world.is_local(pod)))
            }
            Way::ToNode | Way::FromNode => without(all, &self.world.owned(asked.v6, |_| true)),
        }
    }

    /// The class of a certificate at an index.
    fn class(&self, index: usize) -> Result<Class, Defect> {
        self.tests
            .class(index)
            .ok_or_else(|| Defect::Malformed(format!("there is no list {index}")))
    }

    /// The classes of the address that varies, each with all classes of devices at that end.
    fn lanes(
        &mut self,
        asked: &Asked,
        question: &Question,
        domain: &[Interval],
    ) -> Result<Vec<Lane>, Defect> {
        let coverage = |what: String| Defect::Coverage { question: name(question), what };
        let mut lanes = Vec::new();
        let mut by_address: BTreeMap<Class, Vec<Option<Vec<Interval>>>> = BTreeMap::new();
        for (address, device) in &question.lanes {
            let address = self.class(*address)?;
            let device = device.map(|index| self.class(index)).transpose()?;
            lanes.push(Lane { address, device, far: None });
            by_address
                .entry(address)
                .or_default()
                .push(device.map(|class| self.tests.list(class).to_vec()));
        }
        covers(domain, by_address.keys().map(|class| self.tests.list(*class))).map_err(coverage)?;
        let local = self.world.owned(asked.v6, |pod| self.world.is_local(pod));
        let local = self.tests.set(local);
        let mut owners = BTreeMap::new();
        for (address, devices) in &mut by_address {
            if asked.way == Way::ToPod {
                let owner = self.local_owner(asked.v6, *address, local).map_err(coverage)?;
                owners.extend(owner.map(|owner| (*address, owner)));
            }
            let classes = match asked.way {
                // Where it is no local pod that the packet comes from, or goes to, the device is none of theirs.
                Way::ToPod | Way::FromPod | Way::Past => {
                    self.devices.of(owners.get(address).copied())
                }
                Way::Guard => self.devices.of(asked.pod),
                Way::ToNode | Way::FromNode => &[],
            };
            let mut wanted: Vec<Option<Vec<Interval>>> =
                classes.iter().cloned().map(Some).collect();
            if wanted.is_empty() {
                wanted.push(None);
            }
            wanted.sort_unstable();
            devices.sort_unstable();
            if wanted != *devices {
                let list = List(self.tests.list(*address).to_vec());
                return Err(coverage(format!(
                    "not all devices are there, or too many, for {list}"
                )));
            }
        }
        for lane in &mut lanes {
            let owner = owners.get(&lane.address);
            lane.far = owner
                .map(|pod| self.world.side(&mut self.tests, *pod, Direction::Egress, asked.v6));
        }
        Ok(lanes)
    }

    /// One class of packets in each state of a connection: what is expected, what is met, and that it is the same.
    fn cells<'s>(
        &mut self,
        around: &Around<'_>,
        number: usize,
        other: Class,
        [protocol, first, second]: [Class; 3],
        cells: impl Iterator<Item = (&'s (u32, bool), &'s [u32; 2])>,
    ) -> Result<(), Defect> {
        let Around { asked, question, device, .. } = around;
        let Some(lane) = around.lanes.get(number) else { return Ok(()) };
        let (source, destination) = match asked.way {
            Way::ToPod | Way::FromNode | Way::Past | Way::Guard => (lane.address, other),
            Way::FromPod | Way::ToNode => (other, lane.address),
        };
        let (in_device, out_device) = match asked.way {
            Way::ToPod | Way::Past => (lane.device, *device),
            Way::FromPod | Way::ToNode => (*device, lane.device),
            Way::FromNode => (None, *device),
            Way::Guard => (lane.device, None),
        };
        let mut packets = Packets {
            v6: asked.v6,
            source,
            destination,
            protocol,
            first,
            second,
            in_device,
            out_device,
            state: (0, false),
        };
        let allowed = self.may_pass(around, lane, &packets, other);
        let allowed = allowed.map_err(|what| Defect::PoliciesNotConstant {
            cell: self.cell(question, number, &packets),
            what,
        })?;
        for (state, rows) in cells {
            self.checked.cells += 1;
            packets.state = *state;
            let [expected, met] = rows.map(|row| self.letter(question, row, number));
            let (expected, met) = (expected?, met?);
            let found = self.expected(asked, *state, allowed);
            if found != expected {
                let (cell, [stated, found]) =
                    (self.cell(question, number, &packets), [expected, found].map(char::from));
                return Err(Defect::Policies { cell, stated, found });
            }
            let found = self.rules.fate(&mut self.tests, &around.stages, &packets);
            let found = found.map_err(|place| Defect::RulesNotConstant {
                cell: self.cell(question, number, &packets),
                place,
            })?;
            if found != met {
                let (cell, [stated, found]) =
                    (self.cell(question, number, &packets), [met, found].map(char::from));
                return Err(Defect::Rules { cell, stated, found });
            }
            if expected != met && expected != b'*' && self.refuted.is_none() {
                let (cell, [expected, met]) =
                    (self.cell(question, number, &packets), [expected, met].map(char::from));
                self.refuted = Some(Defect::Refuted { cell, expected, met });
            }
        }
        Ok(())
    }

    /// What is stated of a lane.
    fn letter(&self, question: &Question, row: u32, lane: usize) -> Result<u8, Defect> {
        let row = self.certificate.rows.get(row as usize).map(String::as_bytes);
        let letter =
            row.filter(|row| row.len() == question.lanes.len()).and_then(|row| row.get(lane));
        letter.copied().ok_or_else(|| {
            Defect::Malformed(format!("{}: a row that does not fit", name(question)))
        })
    }

    /// The local pod that owns the addresses of a class, if one does; then it must be one address.
    fn local_owner(
        &mut self,
        v6: bool,
        class: Class,
        local: usize,
    ) -> Result<Option<PodIndex>, String> {
        if self.tests.ask(&[class], local) == Some(false) {
            return Ok(None);
        }
        match self.tests.list(class) {
            [one] if one.first == one.last => Ok(self.world.owners(v6).get(&one.first).copied()),
            list => Err(format!(
                "an address of a pod of the node is in a class with others: {}",
                List(list.to_vec())
            )),
        }
    }

    /// NP-70, NP-71.
    fn is_exempt(&self, way: Way) -> bool {
        way == Way::FromNode || way == Way::ToNode && self.world.choices.own_node_egress_passes
    }

    /// May these packets pass? NP-14: both ends must allow it, where they are pods of this node.
    fn may_pass(
        &mut self,
        around: &Around<'_>,
        lane: &Lane,
        packets: &Packets,
        other: Class,
    ) -> Result<bool, String> {
        let Packets { protocol, first, second, .. } = *packets;
        let way = around.asked.way;
        match way {
            Way::Past => return Ok(true),
            Way::Guard => return self.belongs(around.asked, packets),
            _ => {}
        }
        for (side, address) in [(&around.near, lane.address), (&lane.far, other)] {
            let remote = Remote { address, protocol, first, second, exempt: self.is_exempt(way) };
            if let Some(side) = side
                && !self.world.allows(&mut self.tests, side, packets.v6, &remote)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// From the device of a pod come its own addresses, and, from `::` and `fe80::/10`, what a host sends before it has another one:
    /// ICMPv6 types 130 to 133, 135, 136 and 143.
    fn belongs(&mut self, asked: &Asked, packets: &Packets) -> Result<bool, String> {
        let mixed = || "the source belongs there for some of them only".to_owned();
        let given = &self.world.given;
        let device = asked.pod.and_then(|pod| given.get(&pod));
        let there = self.world.owned(asked.v6, |pod| device.is_some() && given.get(&pod) == device);
        let there = self.tests.set(there);
        if self.tests.ask(&[packets.source], there).ok_or_else(mixed)? {
            return Ok(true);
        }
        let link_local = Interval::new(0xfe80 << 112, (0xfec0 << 112) - 1);
        let kinds =
            [(130, 133), (135, 136), (143, 143)].map(|(a, b)| Interval::new(a << 8, b << 8 | 0xff));
        let hosts = self.tests.set(vec![Interval::one(0), link_local]);
        let kinds = self.tests.set(kinds.to_vec());
        let icmpv6 = self.tests.set(vec![Interval::one(58)]);
        for (class, set) in
            [(packets.source, hosts), (packets.protocol, icmpv6), (packets.first, kinds)]
        {
            if !asked.v6 || !self.tests.ask(&[class], set).ok_or_else(mixed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A cell, for people.
    fn cell(&self, question: &Question, lane: usize, packets: &Packets) -> String {
        let show = |class: Class| {
            let list = self.tests.list(class);
            let more = if list.len() > 3 { " ..." } else { "" };
            format!("{}{more}", List(list.iter().take(3).copied().collect()))
        };
        let [source, destination] = [packets.source, packets.destination].map(show);
        let [protocol, first, second] = [packets.protocol, packets.first, packets.second].map(show);
        let state = packets.state;
        format!(
            "{}, lane {lane}: {source} -> {destination}, protocol {protocol}, {first}, {second}, state {state:?}",
            name(question)
        )
    }

    /// What is expected of a class in a state of a connection, if the policies allow a new one or not.
    fn expected(&self, asked: &Asked, state: (u32, bool), allowed: bool) -> u8 {
        let passes = match state {
            _ if matches!(asked.way, Way::Past | Way::Guard) => allowed,
            // NP-62: open connections.
            (2, false) => allowed || !self.world.choices.re_evaluates,
            // NP-60: replies, and what is related.
            (2, true) | (4, _) => true,
            (1, _) if allowed => return b'*',
            _ => allowed,
        };
        match passes {
            // Others may drop more.
            true if asked.together => b'*',
            true => b'p',
            false => b'd',
        }
    }
}
