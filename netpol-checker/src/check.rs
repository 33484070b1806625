//! Completeness, coverage, and the cells one by one.

use crate::class::{Class, Tests};
use crate::format::{Certificate, Choices, FORMAT, Question, STATES, VERSION, Way};
use crate::list::{Interval, List, device, normal, without};
use crate::policies::{PodIndex, Remote, Side, World};
use crate::rules::{Packets, Rules};
use netpol_core::{Cluster, Direction, NodeName, Options, PodId};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
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
    /// The name of netpol's own tables, by which alone the node's own traffic is judged; none: by all.
    pub own_table: Option<&'a str>,
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

/// What is wrong with a certificate: the first defect that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Defect {
    /// It is no certificate of this version, or contradicts itself.
    Malformed(String),
    /// It is about something else: another node, other options, other devices, other tables.
    OtherSetting(String),
    /// Nothing would be checked: no pod of the node has an address.
    Nothing,
    /// A question that has to be there is not.
    Missing(String),
    /// A question that nothing asks for.
    Superfluous(String),
    /// The classes of a question do not cover its packets, or overlap.
    Coverage {
        /// Where.
        question: String,
        /// What is wrong.
        what: String,
    },
    /// The rules treat some packets of a class otherwise than the rest.
    RulesNotConstant {
        /// Which class.
        cell: String,
        /// The rule.
        place: String,
    },
    /// The policies say of some packets of a class what they do not say of the rest.
    PoliciesNotConstant {
        /// Which class.
        cell: String,
        /// What tells them apart.
        what: String,
    },
    /// The rules do not do what the certificate states.
    Rules {
        /// Which class.
        cell: String,
        /// What is stated: `p`, `d` or `?`, as in [`Certificate::rows`].
        stated: char,
        /// What was found.
        found: char,
    },
    /// The policies do not say what the certificate states.
    Policies {
        /// Which class.
        cell: String,
        /// What is stated: `p`, `d` or `*`, as in [`Certificate::rows`].
        stated: char,
        /// What was found.
        found: char,
    },
    /// It is no proof: the rules do not do what the policies say, and the certificate says so itself.
    Refuted {
        /// Which class.
        cell: String,
        /// What the policies say.
        expected: char,
        /// What the rules do.
        met: char,
    },
    /// It is no proof: something was not understood that may concern any packet.
    NotUnderstood(String),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed: {what}"),
            Self::OtherSetting(what) => write!(f, "about something else: {what}"),
            Self::Nothing => {
                f.write_str("no pod of this node has an address, so nothing is proved")
            }
            Self::Missing(question) => write!(f, "missing: {question}"),
            Self::Superfluous(question) => write!(f, "nothing asks for: {question}"),
            Self::Coverage { question, what } => write!(f, "{question}: {what}"),
            Self::RulesNotConstant { cell, place } => write!(f, "{cell}: not constant: {place}"),
            Self::PoliciesNotConstant { cell, what } => write!(f, "{cell}: not constant: {what}"),
            Self::Rules { cell, stated, found } => {
                write!(f, "{cell}: by the rules `{stated}` is stated, `{found}` was found")
            }
            Self::Policies { cell, stated, found } => {
                write!(f, "{cell}: by the policies `{stated}` is stated, `{found}` was found")
            }
            Self::Refuted { cell, expected, met } => {
                write!(f, "{cell}: refuted: `{expected}` is expected, `{met}` is met")
            }
            Self::NotUnderstood(what) => write!(f, "not understood: {what}"),
        }
    }
}

impl std::error::Error for Defect {}

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
/// The first defect that was found. Whatever it is, the certificate proves nothing.
///
/// ```
/// use netpol_checker::{Certificate, Defect, FORMAT, Setting, VERSION, check};
/// let setting = Setting {
///     cluster: &Default::default(), node: None, options: Default::default(), interfaces: &Default::default(), own_table: None,
/// };
/// let nothing = Certificate { format: FORMAT.to_owned(), version: VERSION, ..Default::default() };
/// assert_eq!(check(&nothing, &setting), Err(Defect::Nothing));
/// ```
pub fn check(certificate: &Certificate, setting: &Setting<'_>) -> Result<Checked, Defect> {
    let mut tests = Tests::new(certificate.lists.iter().map(|list| &list.0));
    let world = World::new(setting);
    about_this(certificate, setting, &world)?;
    if let Some(what) = certificate.machine.not_understood.first() {
        return Err(Defect::NotUnderstood(what.clone()));
    }
    let rules = Rules::new(&certificate.machine, &mut tests);
    let devices = Devices::new(certificate, &world, &tests)?;
    for (number, boxes) in certificate.traffic.iter().enumerate() {
        let of = format!("classes of traffic {number}");
        all_traffic(&tests, boxes).map_err(|what| Defect::Coverage { question: of, what })?;
    }
    let mut checker =
        Checker { certificate, tests, world, rules, devices, checked: Checked::default() };
    checker.everything()?;
    Ok(checker.checked)
}

/// Is it about this node, these options, these devices, these tables?
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
        return other("another node");
    }
    if certificate.options != Choices::from(setting.options) {
        return other("other options");
    }
    let stated = certificate.interfaces.iter().map(|(pod, name)| (pod.clone(), device(name)));
    let given = world.given.iter().map(|(pod, device)| (world.name(*pod), Some(*device)));
    if stated.collect::<BTreeMap<_, _>>() != given.collect() {
        return other("other devices of pods");
    }
    for chain in &certificate.machine.chains {
        if chain.own != setting.own_table.is_none_or(|own| chain.table == own) {
            return other(&format!("whether the table `{}` is netpol's own", chain.table));
        }
    }
    Ok(())
}

/// Do the classes cover the domain, each value once?
fn covers<'l>(
    domain: &[Interval],
    classes: impl Iterator<Item = &'l [Interval]>,
) -> Result<(), String> {
    let show = |interval: &Interval| List(vec![*interval]).to_string();
    let mut all: Vec<Interval> = classes.flatten().copied().collect();
    all.sort_unstable();
    for pair in all.windows(2) {
        if let [one, next] = pair
            && next.first <= one.last
        {
            return Err(format!(
                "{} is in two classes",
                show(&Interval::new(next.first, next.last.min(one.last)))
            ));
        }
    }
    let all = normal(all);
    let extra = all
        .iter()
        .find(|one| !domain.iter().any(|part| part.first <= one.first && one.last <= part.last));
    let missing = domain.iter().flat_map(|part| without(*part, &all)).next();
    match (missing, extra) {
        (Some(missing), _) => Err(format!("{} is in no class", show(&missing))),
        (None, Some(extra)) => Err(format!("not all of {} belongs there", show(extra))),
        (None, None) => Ok(()),
    }
}

/// Do the boxes of protocol, first and second 16 bits cover all traffic, each once? They do if no two meet and together they are
/// as large as the whole.
fn all_traffic(tests: &Tests, boxes: &[[usize; 3]]) -> Result<(), String> {
    let mut volume = 0u128;
    for (number, one) in boxes.iter().enumerate() {
        let mut product = 1u128;
        for (side, most) in one.iter().zip([0xffu128, 0xffff, 0xffff]) {
            let list = side_list(tests, *side)?;
            if list.iter().any(|interval| interval.last > most) {
                return Err(format!("class {number} has values that cannot be"));
            }
            product *= list.iter().map(|interval| interval.last - interval.first + 1).sum::<u128>();
        }
        volume += product;
        for (earlier, other) in boxes.iter().enumerate().take(number) {
            let mut meet = true;
            for (a, b) in one.iter().zip(other) {
                let (a, b) = (side_list(tests, *a)?, side_list(tests, *b)?);
                meet &= a.iter().any(|a| b.iter().any(|b| a.meets(b)));
            }
            if meet {
                return Err(format!("classes {earlier} and {number} overlap"));
            }
        }
    }
    if volume == 1 << 40 { Ok(()) } else { Err("some traffic is in no class".to_owned()) }
}

fn side_list(tests: &Tests, index: usize) -> Result<&[Interval], String> {
    let class = tests.class(index).ok_or_else(|| format!("there is no list {index}"))?;
    Ok(tests.list(class))
}

/// By which devices packets come and go: classes, each a list of intervals.
struct Devices {
    of_pod: BTreeMap<PodIndex, Vec<Vec<Interval>>>,
    outside: Vec<Vec<Interval>>,
    assumed: usize,
}

impl Devices {
    fn new(certificate: &Certificate, world: &World<'_>, tests: &Tests) -> Result<Self, Defect> {
        let malformed = |what: &str| Defect::Malformed(what.to_owned());
        let one = |device: u128| vec![Interval::one(device)];
        let mut of_pod: BTreeMap<PodIndex, Vec<Vec<Interval>>> =
            world.given.iter().map(|(pod, device)| (*pod, vec![one(*device)])).collect();
        let mut taken: Vec<Interval> = of_pod.values().flatten().flatten().copied().collect();
        let given = normal(taken.clone());
        let mut assume = |name: &String| {
            let device = device(name).ok_or_else(|| malformed("a device that cannot be"))?;
            if given.iter().any(|known| known.contains(device)) {
                return Err(malformed("a device of a pod is said to be another's"));
            }
            taken.push(Interval::one(device));
            Ok(one(device))
        };
        let mut assumed = 0;
        let by_name: HashMap<String, PodIndex> =
            world.local_pods().map(|pod| (world.name(pod), pod)).collect();
        for (name, devices) in &certificate.inferred {
            let pod = by_name
                .get(name)
                .filter(|pod| !world.given.contains_key(pod) && !devices.is_empty());
            let pod =
                pod.ok_or_else(|| malformed("inferred devices of what is no pod without one"))?;
            assumed += devices.len();
            of_pod.insert(*pod, devices.iter().map(&mut assume).collect::<Result<_, _>>()?);
        }
        for name in &certificate.closed {
            assumed += 1;
            assume(name)?;
        }
        let lists =
            certificate.outside.iter().map(|index| side_list(tests, *index).map(<[_]>::to_vec));
        let outside = lists.collect::<Result<Vec<_>, _>>().map_err(Defect::Malformed)?;
        // A device has a name, so that it is not 0.
        let rest = without(Interval::new(1, u128::MAX), &normal(taken));
        covers(&rest, outside.iter().map(Vec::as_slice)).map_err(|what| Defect::Coverage {
            question: "the devices that are no pod's".to_owned(),
            what,
        })?;
        Ok(Self { of_pod, outside, assumed })
    }

    /// The classes of devices of a pod, or of everything else.
    fn of(&self, pod: Option<PodIndex>) -> &[Vec<Interval>] {
        pod.and_then(|pod| self.of_pod.get(&pod)).unwrap_or(&self.outside)
    }
}

/// By what a question is known.
type Known = (Way, bool, Option<IpAddr>, Option<String>, Option<Vec<Interval>>);

/// A question that has to be answered, and who is at its fixed end: the pod, and its address if one is fixed.
struct Asked {
    way: Way,
    v6: bool,
    pod: Option<PodIndex>,
    fixed: Option<u128>,
}

struct Checker<'c> {
    certificate: &'c Certificate,
    tests: Tests,
    world: World<'c>,
    rules: Rules<'c>,
    devices: Devices,
    checked: Checked,
}

impl<'c> Checker<'c> {
    fn everything(&mut self) -> Result<(), Defect> {
        let mut asked: Vec<(Asked, Known)> = Vec::new();
        for v6 in [false, true] {
            for (address, owner) in
                self.world.owners(v6).iter().filter(|(_, pod)| self.world.is_local(**pod))
            {
                self.checked.addresses += 1;
                for way in [Way::ToPod, Way::FromPod, Way::ToNode, Way::FromNode] {
                    for device in self.devices.of(Some(*owner)) {
                        let name = Some(self.world.name(*owner));
                        let known =
                            (way, v6, Some(written(*address, v6)), name, Some(device.clone()));
                        asked.push((
                            Asked { way, v6, pod: Some(*owner), fixed: Some(*address) },
                            known,
                        ));
                    }
                }
            }
            for device in &self.devices.outside {
                let known = (Way::Past, v6, None, None, Some(device.clone()));
                asked.push((Asked { way: Way::Past, v6, pod: None, fixed: None }, known));
            }
            for pod in self.world.given.keys() {
                let known = (Way::Guard, v6, None, Some(self.world.name(*pod)), None);
                asked.push((Asked { way: Way::Guard, v6, pod: Some(*pod), fixed: None }, known));
            }
        }
        if self.checked.addresses == 0 {
            return Err(Defect::Nothing);
        }
        self.checked.guarded = self.world.given.len();
        self.checked.assumed = self.devices.assumed;
        let mut answers: HashMap<Known, &'c Question> = HashMap::new();
        for question in &self.certificate.questions {
            let device =
                question.device.map(|index| side_list(&self.tests, index).map(<[_]>::to_vec));
            let device = device.transpose().map_err(Defect::Malformed)?;
            let known = (question.way, question.v6, question.fixed, question.pod.clone(), device);
            if let Some(twice) = answers.insert(known, question) {
                return Err(Defect::Superfluous(format!("{}, a second time", name(twice))));
            }
        }
        for (asked, known) in asked {
            let question = answers.remove(&known).ok_or_else(|| {
                let (way, _, address, pod, device) = &known;
                let device = device.clone().map(List);
                Defect::Missing(format!("{way:?} v6={} {address:?} {pod:?} {device:?}", asked.v6))
            })?;
            self.question(&asked, question)?;
        }
        match answers.values().next() {
            Some(question) => Err(Defect::Superfluous(name(question))),
            None => Ok(()),
        }
    }

    /// One question: its classes, and then its cells.
    fn question(&mut self, asked: &Asked, question: &Question) -> Result<(), Defect> {
        self.checked.questions += 1;
        let coverage = |what: String| Defect::Coverage { question: name(question), what };
        let malformed = |what: &str| Defect::Malformed(format!("{}: {what}", name(question)));
        let all = Interval::new(0, if asked.v6 { u128::MAX } else { u32::MAX.into() });
        let local = self.world.owned(asked.v6, |pod| self.world.is_local(pod));
        let domain = match asked.way {
            Way::ToPod | Way::Guard => vec![all],
            Way::FromPod | Way::Past => without(all, &local),
            Way::ToNode | Way::FromNode => without(all, &self.world.owned(asked.v6, |_| true)),
        };
        // The address that varies, with the device at that end.
        let class = |tests: &Tests, index: usize| {
            tests.class(index).ok_or_else(|| malformed("a list that is not there"))
        };
        let mut by_address: BTreeMap<Class, Vec<Option<Vec<Interval>>>> = BTreeMap::new();
        let mut lanes = Vec::new();
        for (address, device) in &question.lanes {
            let address = class(&self.tests, *address)?;
            let device = device.map(|index| class(&self.tests, index)).transpose()?;
            lanes.push((address, device));
            by_address
                .entry(address)
                .or_default()
                .push(device.map(|class| self.tests.list(class).to_vec()));
        }
        covers(&domain, by_address.keys().map(|class| self.tests.list(*class)))
            .map_err(coverage)?;
        let local = self.tests.set(local);
        for (address, devices) in &mut by_address {
            let classes = match asked.way {
                Way::ToPod => {
                    let owner = self.local_owner(asked.v6, *address, local).map_err(coverage)?;
                    self.devices.of(owner)
                }
                // No address there is a local pod's.
                Way::FromPod | Way::Past => self.devices.of(None),
                Way::Guard => self.devices.of(asked.pod),
                Way::ToNode | Way::FromNode => &[],
            };
            let mut wanted: Vec<Option<Vec<Interval>>> = classes.iter().cloned().map(Some).collect();
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
        // The other one, if it is not fixed.
        let others: Vec<Class> = match asked.fixed {
            Some(address) if question.others.is_empty() => vec![self.tests.point(address)],
            Some(_) => return Err(malformed("two addresses at the fixed end")),
            None => {
                let others: Vec<Class> = question
                    .others
                    .iter()
                    .map(|index| class(&self.tests, *index))
                    .collect::<Result<_, _>>()?;
                covers(&domain, others.iter().map(|class| self.tests.list(*class)))
                    .map_err(coverage)?;
                others
            }
        };
        let traffic = self.certificate.traffic.get(question.traffic);
        let traffic = traffic.ok_or_else(|| malformed("classes of traffic that are not there"))?;
        let states = if asked.way == Way::Guard { STATES.get(..1) } else { STATES.get(..) }
            .unwrap_or_default();
        let device = question.device.map(|index| class(&self.tests, index)).transpose()?;
        let stages = self.rules.stages(asked.way, asked.v6, judged_by_own(asked.way));
        if question.cells.len() != others.len() * traffic.len() * states.len() {
            return Err(malformed("too few or too many cells"));
        }
        let sides = self.sides(asked, &lanes, local).map_err(coverage)?;
        let mut cells = question.cells.iter();
        for other in others {
            for (number, boxes) in traffic.iter().enumerate() {
                let [protocol, first, second] = boxes.map(|index| class(&self.tests, index));
                let (protocol, first, second) = (protocol?, first?, second?);
                let mut packets: Vec<Packets> = Vec::with_capacity(lanes.len());
                let mut allowed = Vec::with_capacity(lanes.len());
                for (lane, (far, (address, lane_device))) in sides.1.iter().zip(&lanes).enumerate()
                {
                    let (address, lane_device) = (*address, *lane_device);
                    let is_source =
                        matches!(asked.way, Way::ToPod | Way::FromNode | Way::Past | Way::Guard);
                    let (source, destination) =
                        if is_source { (address, other) } else { (other, address) };
                    let (in_device, out_device) = match asked.way {
                        Way::ToPod | Way::Past => (lane_device, device),
                        Way::FromPod | Way::ToNode => (device, lane_device),
                        Way::FromNode => (None, device),
                        Way::Guard => (lane_device, None),
                    };
                    let (v6, state) = (asked.v6, (0, false));
                    let packet = Packets {
                        v6,
                        source,
                        destination,
                        protocol,
                        first,
                        second,
                        in_device,
                        out_device,
                        state,
                    };
                    let remote = Remote {
                        address,
                        protocol,
                        first,
                        second,
                        exempt: self.is_exempt(asked.way),
                    };
                    let may = self.may_pass(
                        asked,
                        &packet,
                        sides.0.as_deref(),
                        far.as_deref(),
                        remote,
                        other,
                    );
                    allowed.push(may.map_err(|what| Defect::PoliciesNotConstant {
                        cell: cell(&self.tests, question, number, lane, &packet),
                        what,
                    })?);
                    packets.push(packet);
                }
                for state in states {
                    let Some(rows) = cells.next() else { return Err(malformed("too few cells")) };
                    let [expected, met] = rows
                        .map(|row| self.certificate.rows.get(row as usize).map(String::as_bytes));
                    let (Some(expected), Some(met)) = (expected, met) else {
                        return Err(malformed("a row that is not there"));
                    };
                    if expected.len() != lanes.len() || met.len() != lanes.len() {
                        return Err(malformed("a row of another length"));
                    }
                    let stated = expected.iter().zip(met);
                    for (lane, ((packet, allowed), (expected, met))) in
                        packets.iter().zip(&allowed).zip(stated).enumerate()
                    {
                        self.checked.cells += 1;
                        let packet = Packets { state: *state, ..*packet };
                        let here = |tests: &Tests| cell(tests, question, number, lane, &packet);
                        let letter = |byte: u8| char::from(byte);
                        let found = self.expected(asked.way, *state, *allowed);
                        if found != *expected {
                            let (stated, found) = (letter(*expected), letter(found));
                            return Err(Defect::Policies {
                                cell: here(&self.tests),
                                stated,
                                found,
                            });
                        }
                        let found = self.rules.fate(&mut self.tests, &stages, &packet);
                        let found = found.map_err(|place| Defect::RulesNotConstant {
                            cell: here(&self.tests),
                            place,
                        })?;
                        if found != *met {
                            let (stated, found) = (letter(*met), letter(found));
                            return Err(Defect::Rules { cell: here(&self.tests), stated, found });
                        }
                        if expected != met && *expected != b'*' {
                            let (expected, met) = (letter(*expected), letter(*met));
                            return Err(Defect::Refuted { cell: here(&self.tests), expected, met });
                        }
                    }
                }
            }
        }
        Ok(())
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

    /// The policies of the pod at the fixed end, and of the pod at the other end of each lane, if both are of this node.
    fn sides(
        &mut self,
        asked: &Asked,
        lanes: &[(Class, Option<Class>)],
        local: usize,
    ) -> Result<Sides, String> {
        let near = match asked.way {
            Way::ToPod | Way::FromNode => Some(Direction::Ingress),
            Way::FromPod | Way::ToNode => Some(Direction::Egress),
            Way::Past | Way::Guard => None,
        };
        let near = near
            .zip(asked.pod)
            .map(|(direction, pod)| self.world.side(&mut self.tests, pod, direction, asked.v6));
        let mut far = Vec::new();
        for (address, _) in lanes {
            let owner = if asked.way == Way::ToPod {
                self.local_owner(asked.v6, *address, local)?
            } else {
                None
            };
            far.push(
                owner.map(|pod| self.world.side(&mut self.tests, pod, Direction::Egress, asked.v6)),
            );
        }
        Ok((near, far))
    }

    /// NP-70, NP-71.
    fn is_exempt(&self, way: Way) -> bool {
        way == Way::FromNode || way == Way::ToNode && self.world.choices.own_node_egress_passes
    }

    /// May these packets pass? NP-14: both ends must allow it, where they are pods of this node.
    fn may_pass(
        &mut self,
        asked: &Asked,
        packets: &Packets,
        near: Option<&Side>,
        far: Option<&Side>,
        remote: Remote,
        other: Class,
    ) -> Result<bool, String> {
        match asked.way {
            Way::Past => return Ok(true),
            Way::Guard => return self.belongs(asked, packets),
            _ => {}
        }
        for (side, remote) in [(near, remote), (far, Remote { address: other, ..remote })] {
            if let Some(side) = side
                && !self.world.allows(&mut self.tests, side, asked.v6, &remote)?
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

    /// What is expected of a class in a state of a connection, if the policies allow a new one or not.
    fn expected(&self, way: Way, state: (u32, bool), allowed: bool) -> u8 {
        let passes = match state {
            _ if matches!(way, Way::Past | Way::Guard) => allowed,
            // NP-62: open connections.
            (2, false) => allowed || !self.world.choices.re_evaluates,
            // NP-60: replies, and what is related.
            (2, true) | (4, _) => true,
            (1, _) if allowed => return b'*',
            _ => allowed,
        };
        if passes { b'p' } else { b'd' }
    }
}

/// What the node itself sends and receives, and what passes by its pods, is the node's own firewall's affair, too.
fn judged_by_own(way: Way) -> bool {
    matches!(way, Way::ToNode | Way::FromNode | Way::Past)
}

/// What applies at the fixed end, and at the other end of each lane.
type Sides = (Option<Rc<Side>>, Vec<Option<Rc<Side>>>);

fn written(address: u128, v6: bool) -> IpAddr {
    match u32::try_from(address) {
        Ok(address) if !v6 => Ipv4Addr::from_bits(address).into(),
        _ => Ipv6Addr::from_bits(address).into(),
    }
}

/// A question, for people.
fn name(question: &Question) -> String {
    let family = if question.v6 { "IPv6" } else { "IPv4" };
    let pod = question.pod.as_deref().unwrap_or("no pod");
    let fixed = question.fixed.map(|address| format!(" at {address}")).unwrap_or_default();
    format!("{:?} of {pod}{fixed}, {family}", question.way)
}

/// A cell, for people.
fn cell(
    tests: &Tests,
    question: &Question,
    traffic: usize,
    lane: usize,
    packets: &Packets,
) -> String {
    let show = |class: Class| {
        let list = tests.list(class);
        let more = if list.len() > 3 { " ..." } else { "" };
        format!("{}{more}", List(list.iter().take(3).copied().collect()))
    };
    format!(
        "{}, lane {lane}, traffic {traffic}: {} -> {}, protocol {}, {}, {}, state {:?}",
        name(question),
        show(packets.source),
        show(packets.destination),
        show(packets.protocol),
        show(packets.first),
        show(packets.second),
        packets.state
    )
}
