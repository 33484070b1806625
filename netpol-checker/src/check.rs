//! Completeness, coverage, and the cells one by one.

use crate::class::{Class, Tests};
use crate::coverage::{Devices, all_traffic, covers, side_list};
use crate::defect::Defect;
use crate::format::{Certificate, Choices, FORMAT, Question, STATES, VERSION, Way};
use crate::list::{Interval, List, device, without};
use crate::own::are_own;
use crate::policies::{PodIndex, Remote, Side, World};
use crate::rules::{Packets, Rules, Stage};
use netpol_core::{Cluster, Direction, NodeName, Options, PodId};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

/// What a certificate is checked against: nothing of this comes from the certificate.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "all that has to be said")]
pub struct Setting<'a> {
    /// Pods, namespaces, nodes and policies.
    pub cluster: &'a Cluster,
    /// Whose pods; none: all.
    pub node: Option<&'a NodeName>,
    /// The choices that Kubernetes leaves open.
    pub options: Options,
    /// The devices of pods; each known one is to be guarded.
    pub interfaces: &'a BTreeMap<PodId, String>,
    /// The name of netpol's own tables of nft. By its own rules alone the node's own traffic is judged; without a name here and below, by
    /// all.
    pub own_table: Option<&'a str>,
    /// What the names of netpol's own chains of iptables begin with, before a `-`.
    pub own_chains: Option<&'a str>,
    /// Are source addresses taken as honest although interfaces are given? Then no guard is asked for.
    pub unguarded: bool,
    /// May rules that are not netpol's own drop more than policies do? Then netpol's own must do what is expected, and what is to
    /// be dropped must be dropped by all rules together.
    pub others_may_drop: bool,
}

/// What was checked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Checked {
    /// Questions: a way, a fixed address, a device.
    pub questions: usize,
    /// Combinations of classes and states, each held against the policies and the rules.
    pub cells: usize,
    /// Addresses of local pods.
    pub addresses: usize,
    /// Pods whose source guard is part of the proof.
    pub guarded: usize,
    /// Devices that nobody gave and that were taken from the certificate as those of pods: an assumption of the proof.
    pub assumed: usize,
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    ///
    /// [`Defect::Malformed`] if the text is none.
    pub fn read(text: &str) -> Result<Self, Defect> {
        serde_json::from_str(text).map_err(|error| Defect::Malformed(error.to_string()))
    }
}

/// Checks a certificate.
///
/// # Errors
///
/// The first defect that was found. Whatever it is, the certificate is no proof. [`Defect::Refuted`] is only there if all else is
/// right: what the certificate states of rules and policies is so, and the rules do not do what the policies say.
///
/// ```
/// use netpol_checker::{Certificate, Defect, FORMAT, Setting, VERSION, check};
/// let setting = Setting {
///     cluster: &Default::default(), node: None, options: Default::default(), interfaces: &Default::default(),
///     own_table: None, own_chains: None, unguarded: false, others_may_drop: false,
/// };
/// let nothing = Certificate { format: FORMAT.to_owned(), version: VERSION, ..Default::default() };
/// assert_eq!(check(&nothing, &setting), Err(Defect::Nothing));
/// ```
pub fn check(certificate: &Certificate, setting: &Setting<'_>) -> Result<Checked, Defect> {
    let mut tests = Tests::new(certificate.lists.iter().map(|list| &list.0));
    let world = World::new(setting);
    about_this(certificate, setting, &world)?;
    let shared = are_own(&certificate.machine, setting)?;
    if let Some(what) = certificate.machine.not_understood.first() {
        return Err(Defect::NotUnderstood(what.clone()));
    }
    let addresses = [false, true].map(|v6| world.owned(v6, |pod| world.is_local(pod)).len());
    if addresses == [0, 0] {
        return Err(Defect::Nothing);
    }
    let rules = Rules::new(&certificate.machine, &mut tests);
    let devices = Devices::new(certificate, &world, &tests)?;
    for (number, boxes) in certificate.traffic.iter().enumerate() {
        let of = format!("classes of traffic {number}");
        all_traffic(&tests, boxes).map_err(|what| Defect::Coverage { question: of, what })?;
    }
    let mut checker = Checker {
        certificate,
        tests,
        world,
        rules,
        devices,
        shared,
        guarded: !setting.unguarded,
        others_may_drop: setting.others_may_drop,
        checked: Checked::default(),
        refuted: None,
    };
    checker.everything()?;
    Ok(checker.checked)
}

/// Is it about this node, these options, these devices?
fn about_this(
    certificate: &Certificate,
    setting: &Setting<'_>,
    world: &World<'_>,
) -> Result<(), Defect> {
    if certificate.format != FORMAT || certificate.version != VERSION {
        let what = format!("`{}` of version {}", certificate.format, certificate.version);
        return Err(Defect::Malformed(format!("{what}, not `{FORMAT}` of version {VERSION}")));
    }
    let other = |what: &str| Err(Defect::OtherSetting(what.to_owned()));
    if certificate.node.as_deref() != setting.node.map(NodeName::as_str) {
        let named =
            |name: Option<&str>| name.map_or("all pods".to_owned(), |n| format!("node {n}"));
        let (stated, asked) = (certificate.node.as_deref(), setting.node.map(NodeName::as_str));
        return other(&format!("another node: {}, not {}", named(stated), named(asked)));
    }
    if certificate.options != Choices::from(setting.options) {
        return other("other options");
    }
    let stated = certificate.interfaces.iter().map(|(pod, name)| (pod.clone(), device(name)));
    let given = world.given.iter().map(|(pod, device)| (world.name(*pod), Some(*device)));
    if stated.collect::<BTreeMap<_, _>>() != given.collect() {
        return other("other devices of pods");
    }
    if certificate.unguarded != setting.unguarded {
        return other("whether a source guard is proved");
    }
    if certificate.others_may_drop != setting.others_may_drop {
        return other("whether others may drop more");
    }
    Ok(())
}

/// By what a question is known.
type Known = (Ends, Option<Vec<Interval>>);

/// The way, the family, whether all rules are asked together, the address and the pod.
type Ends = (Way, bool, bool, Option<IpAddr>, Option<String>);

/// A question that has to be answered, and who is at its fixed end: the pod, and its address if one is fixed.
struct Asked {
    way: Way,
    v6: bool,
    together: bool,
    pod: Option<PodIndex>,
    fixed: Option<u128>,
}

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

struct Checker<'c> {
    certificate: &'c Certificate,
    tests: Tests,
    world: World<'c>,
    rules: Rules<'c>,
    devices: Devices,
    /// Do rules of iptables lead to chains of netpol?
    shared: bool,
    /// Is the source guard asked for?
    guarded: bool,
    others_may_drop: bool,
    checked: Checked,
    /// The first cell in which what is met is not what is expected.
    refuted: Option<Defect>,
}

impl<'c> Checker<'c> {
    fn everything(&mut self) -> Result<(), Defect> {
        let mut asked: Vec<(Asked, Known)> = Vec::new();
        let ask = |asked: &mut Vec<_>, one: Asked, device: Option<&Vec<Interval>>, pod| {
            let fixed = one.fixed.map(|address| written(address, one.v6));
            let ends = (one.way, one.v6, one.together, fixed, pod);
            asked.push((one, (ends, device.cloned())));
        };
        let ways = [Way::ToPod, Way::FromPod, Way::ToNode, Way::FromNode];
        for v6 in [false, true] {
            for (address, owner) in
                self.world.owners(v6).iter().filter(|(_, pod)| self.world.is_local(**pod))
            {
                self.checked.addresses += 1;
                for (way, &together) in ways
                    .into_iter()
                    .flat_map(|way| self.together(way).iter().map(move |t| (way, t)))
                {
                    for device in self.devices.of(Some(*owner)) {
                        let (pod, fixed) = (Some(*owner), Some(*address));
                        let one = Asked { way, v6, together, pod, fixed };
                        ask(&mut asked, one, Some(device), Some(self.world.name(*owner)));
                    }
                }
            }
            for device in &self.devices.outside {
                let past = Asked { way: Way::Past, v6, together: false, pod: None, fixed: None };
                ask(&mut asked, past, Some(device), None);
            }
            for pod in self.world.given.keys().filter(|_| self.guarded) {
                for &together in self.together(Way::Guard) {
                    let pod = Some(*pod);
                    let one = Asked { way: Way::Guard, v6, together, pod, fixed: None };
                    ask(&mut asked, one, None, pod.map(|pod| self.world.name(pod)));
                }
            }
        }
        self.checked.guarded = if self.guarded { self.world.given.len() } else { 0 };
        self.checked.assumed = self.devices.assumed;
        let mut answers: HashMap<Known, &'c Question> = HashMap::new();
        for question in &self.certificate.questions {
            let device =
                question.device.map(|index| side_list(&self.tests, index).map(<[_]>::to_vec));
            let device = device.transpose().map_err(Defect::Malformed)?;
            if let Some(twice) = answers.insert((ends(question), device), question) {
                return Err(Defect::Superfluous(format!("{}, a second time", name(twice))));
            }
        }
        for (asked, known) in asked {
            let question = answers.remove(&known).ok_or_else(|| {
                let (ends, device) = &known;
                let device = device.as_ref().map(|device| format!(", by {}", List(device.clone())));
                Defect::Missing(format!("{}{}", in_words(ends), device.unwrap_or_default()))
            })?;
            self.question(&asked, question)?;
        }
        match answers.values().next() {
            Some(question) => Err(Defect::Superfluous(name(question))),
            None => self.refuted.take().map_or(Ok(()), Err),
        }
    }

    /// What the node itself sends and receives, and what passes by its pods, is the node's own firewall's affair, too.
    fn is_judged_by_own(&self, way: Way) -> bool {
        self.others_may_drop || matches!(way, Way::ToNode | Way::FromNode | Way::Past)
    }

    /// Is there a question to netpol's own rules, or all of them, and one to all of them together in which these may drop more?
    fn together(&self, way: Way) -> &'static [bool] {
        match way {
            Way::ToNode | Way::FromNode if self.shared => &[false, true],
            Way::ToPod | Way::FromPod | Way::Guard if self.others_may_drop => &[false, true],
            _ => &[false],
        }
    }

    /// One question: its classes, and then its cells.
    fn question(&mut self, asked: &Asked, question: &Question) -> Result<(), Defect> {
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

fn written(address: u128, v6: bool) -> IpAddr {
    match u32::try_from(address) {
        Ok(address) if !v6 => Ipv4Addr::from_bits(address).into(),
        _ => Ipv6Addr::from_bits(address).into(),
    }
}

/// By what a question is known, but for the device.
fn ends(question: &Question) -> Ends {
    let Question { way, v6, together, fixed, .. } = *question;
    (way, v6, together, fixed, question.pod.clone())
}

/// A question, for people.
fn name(question: &Question) -> String {
    in_words(&ends(question))
}

fn in_words((way, v6, together, fixed, pod): &Ends) -> String {
    let family = if *v6 { "IPv6" } else { "IPv4" };
    let pod = pod.as_deref().unwrap_or("no pod");
    let fixed = fixed.map(|address| format!(" at {address}")).unwrap_or_default();
    let together = if *together { ", by all rules together" } else { "" };
    format!("{way:?} of {pod}{fixed}, {family}{together}")
}
