//! All allowed connections at once, for sets of ports and ranges of addresses instead of packet by packet.
//!
//! Pods that no rule can tell apart form a class: they have the same programs, are in the same sets, expose the same
//! named ports and have addresses in the same networks. Verdicts are computed between classes, and each program only
//! once for each combination of its peers that matches. Nothing here shares code with [`Simulator`](crate::Simulator),
//! which judges single connections; a property test holds the two together.

mod address_classes;
mod port_sets;
mod programs;

pub use port_sets::PortSetId;

use address_classes::{AddressClass, AddressClasses};
use netpol_core::{
    AddressSet, Direction, Family, Options, OtherProtocols, PodId, PortSet, Ruleset,
};
use port_sets::PortSets;
use programs::{CompactPeers, CompactProgram, Positions, compact_programs};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

/// All connections that a ruleset of a whole cluster allows between groups of pods, and between them and the rest of the
/// address space.
///
/// A group stands for a workload: it reaches another group on a port if one of its pods reaches one of the other's, in
/// one of their families.
///
/// ```
/// use netpol_core::{Cluster, Labels, Options, Pod, PodId, Scope, compile};
/// use netpol_sim::{Connectivity, PortSetId};
/// let pods = [PodId::new("shop", "web"), PodId::new("shop", "db")];
/// let mut cluster = Cluster::new();
/// for pod in &pods {
///     cluster.insert_pod(Pod::new(pod.clone(), Labels::new()));
/// }
/// let ruleset = compile(&cluster, Scope::Cluster)?;
/// let groups = pods.map(|pod| vec![pod]);
/// let mut connectivity = Connectivity::new(&ruleset, Options::default(), &groups);
/// assert_eq!(connectivity.row(0).groups[1], PortSetId::FULL, "no policy: open");
/// # Ok::<(), netpol_core::CompileError>(())
/// ```
pub struct Connectivity {
    classes: Vec<Class>,
    /// Which classes are in each set of pods: a bit per class.
    membership: Vec<Vec<u64>>,
    addresses: AddressClasses,
    networks: Vec<AddressSet>,
    programs: Vec<CompactProgram>,
    port_sets: PortSets,
    /// Groups with pods of the same classes have the same connections.
    groups: Vec<usize>,
    group_kinds: Vec<Vec<usize>>,
    other_protocols: OtherProtocols,
}

/// What a group may open and what may be opened to it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// What it may open to each group, by the group's position; its own position means nothing.
    pub groups: Vec<PortSetId>,
    /// What it may open to external addresses: ascending, disjoint ranges that cover both families as far as its pods
    /// have them; neighbors differ.
    pub to_external: Vec<ExternalRange>,
    /// What external addresses may open to it, in the same form.
    pub from_external: Vec<ExternalRange>,
}

/// A range of addresses that is treated alike.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct ExternalRange {
    /// The first address.
    pub first: IpAddr,
    /// The last address.
    pub last: IpAddr,
    /// The ports.
    pub ports: PortSetId,
}

/// Pods that no rule can tell apart.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Class {
    /// Positions of programs; none is open.
    ingress: Option<usize>,
    egress: Option<usize>,
    pod_sets: Vec<u32>,
    /// Positions of named-port sets with the pod's numbers in them.
    named: Vec<(u32, u16)>,
    /// Identifies `named`.
    names: u32,
    /// The classes of its addresses; none if no address is known.
    faces: Rc<[Face]>,
}

#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Face {
    family: Option<Family>,
    class: Option<AddressClass>,
}

impl Face {
    fn meets(self, other: Self) -> bool {
        self.family.is_none() || other.family.is_none() || self.family == other.family
    }
}

impl Connectivity {
    /// Prepares the connections of `groups` under `ruleset`, which was compiled for the whole cluster. Pods that the
    /// ruleset does not police (on the host network, finished) are left out.
    #[must_use]
    pub fn new(ruleset: &Ruleset, options: Options, groups: &[Vec<PodId>]) -> Self {
        let positions = Positions::new(ruleset);
        let (program_ids, programs) = compact_programs(ruleset, &positions);
        let addresses = AddressClasses::new(ruleset.net_sets().values());
        let mut pods: HashMap<&PodId, Class> = HashMap::with_capacity(ruleset.endpoints().len());
        for (pod, endpoint) in ruleset.endpoints() {
            let position = |direction| {
                endpoint.program(direction).and_then(|id| program_ids.get(&id)).copied()
            };
            let mut faces: Vec<Face> = ruleset
                .addresses(pod)
                .iter()
                .map(|&a| Face { family: Some(Family::of(a)), class: Some(addresses.class(a)) })
                .collect();
            if faces.is_empty() {
                faces.push(Face { family: None, class: None });
            }
            faces.sort_unstable();
            faces.dedup();
            let (pod_sets, named) = (Vec::new(), Vec::new());
            let (ingress, egress) = (position(Direction::Ingress), position(Direction::Egress));
            let faces = faces.into();
            pods.insert(pod, Class { ingress, egress, pod_sets, named, names: 0, faces });
        }
        for (position, set) in (0..).zip(ruleset.pod_sets().values()) {
            for pod in &set.members {
                if let Some(class) = pods.get_mut(pod) {
                    class.pod_sets.push(position);
                }
            }
        }
        for (position, set) in (0..).zip(ruleset.named_port_sets().values()) {
            for (pod, port) in &set.members {
                if let Some(class) = pods.get_mut(pod) {
                    class.named.push((position, *port));
                }
            }
        }
        let mut names: HashMap<Vec<(u32, u16)>, u32> = HashMap::from([(Vec::new(), 0)]);
        let mut known: HashMap<Class, usize> = HashMap::new();
        let mut classes: Vec<Class> = Vec::new();
        let mut group_classes = Vec::with_capacity(groups.len());
        for group in groups {
            let mut of_group = BTreeSet::new();
            for mut class in group.iter().filter_map(|pod| pods.remove(pod)) {
                let next = u32::try_from(names.len()).unwrap_or(u32::MAX);
                class.names = *names.entry(class.named.clone()).or_insert(next);
                of_group.insert(*known.entry(class).or_insert_with_key(|class| {
                    classes.push(class.clone());
                    classes.len() - 1
                }));
            }
            group_classes.push(of_group.into_iter().collect::<Vec<_>>());
        }
        let membership = membership(ruleset.pod_sets().len(), &classes);
        let mut kinds: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        let mut group_kinds = Vec::new();
        let groups = group_classes
            .into_iter()
            .map(|classes| {
                *kinds.entry(classes).or_insert_with_key(|classes| {
                    group_kinds.push(classes.clone());
                    group_kinds.len() - 1
                })
            })
            .collect();
        Self {
            classes,
            membership,
            addresses,
            networks: ruleset.net_sets().values().cloned().collect(),
            programs,
            port_sets: PortSets::new(),
            groups,
            group_kinds,
            other_protocols: options.other_protocols(),
        }
    }

    /// The set behind an id of a row.
    #[must_use]
    pub fn ports(&self, id: PortSetId) -> &PortSet {
        self.port_sets.set(id)
    }

    /// Groups of the same kind have equal rows, but for their own positions.
    #[must_use]
    pub fn kind(&self, group: usize) -> Option<usize> {
        self.groups.get(group).copied()
    }

    /// The connections of one group. Costs the number of classes, once for each class in the group.
    pub fn row(&mut self, group: usize) -> Row {
        let sources = self
            .groups
            .get(group)
            .and_then(|&kind| self.group_kinds.get(kind))
            .cloned()
            .unwrap_or_default();
        let mut to = vec![PortSetId::EMPTY; self.classes.len()];
        for &source in &sources {
            for (destination, ports) in to.iter_mut().enumerate() {
                let more = self.between(source, destination);
                *ports = self.port_sets.union(*ports, more);
            }
        }
        let kinds: Vec<PortSetId> = self
            .group_kinds
            .iter()
            .map(|classes| {
                let mut all = PortSetId::EMPTY;
                for ports in classes.iter().filter_map(|&class| to.get(class)) {
                    all = self.port_sets.union(all, *ports);
                }
                all
            })
            .collect();
        let of_kind = |kind: &usize| kinds.get(*kind).copied().unwrap_or(PortSetId::EMPTY);
        Row {
            groups: self.groups.iter().map(of_kind).collect(),
            to_external: self.external(&sources, Direction::Egress),
            from_external: self.external(&sources, Direction::Ingress),
        }
    }

    /// What some classes of pods may open to external addresses, or these to them.
    ///
    /// The address space is cut by the networks of their own programs only.
    fn external(&mut self, of: &[usize], direction: Direction) -> Vec<ExternalRange> {
        let mut networks: Vec<u32> = of
            .iter()
            .filter_map(|&class| self.program(class, direction))
            .filter_map(|program| self.programs.get(program))
            .flat_map(CompactProgram::networks)
            .collect();
        networks.sort_unstable();
        networks.dedup();
        let sets = networks.iter().filter_map(|&set| self.networks.get(set as usize));
        let addresses = AddressClasses::new(sets);
        let mut ports = vec![PortSetId::EMPTY; addresses.len()];
        for &class in of {
            let program = self.program(class, direction);
            let Some(pods) = self.classes.get(class) else { continue };
            for (remote, all) in (0..).zip(&mut ports) {
                let family = addresses.family(remote);
                if !pods.faces.iter().any(|face| face.family.is_none() || face.family == family) {
                    continue;
                }
                let more = match program.and_then(|at| self.programs.get_mut(at)) {
                    None => PortSetId::FULL,
                    Some(program) => {
                        let in_networks = |set: u32| {
                            let position = networks.binary_search(&set).ok();
                            let position = position.and_then(|at| u32::try_from(at).ok());
                            position.is_some_and(|position| addresses.is_in(remote, position))
                        };
                        let peers_match = |peers: &CompactPeers| match peers {
                            CompactPeers::Any => true,
                            CompactPeers::OneOf { networks, .. } => {
                                networks.is_some_and(in_networks)
                            }
                        };
                        // The destination's names: its own for ingress, none where an address is the destination.
                        let (named, names) = match direction {
                            Direction::Ingress => (&*pods.named, pods.names),
                            Direction::Egress => (&[][..], 0),
                        };
                        program.allowed(peers_match, named, names, &mut self.port_sets)
                    }
                };
                *all = self.port_sets.union(*all, more);
            }
        }
        let other = self.other_always();
        let mut ranges: Vec<ExternalRange> = Vec::new();
        for (first, last, class) in addresses.ranges() {
            let ports = ports.get(class as usize).copied().unwrap_or(PortSetId::EMPTY);
            let reachable = self.has_family(of, Family::of(first));
            let ports = if reachable { self.port_sets.union(ports, other) } else { ports };
            match ranges.last_mut() {
                Some(before)
                    if before.ports == ports && before.first.is_ipv4() == first.is_ipv4() =>
                {
                    before.last = last;
                }
                _ => ranges.push(ExternalRange { first, last, ports }),
            }
        }
        ranges
    }

    /// Has one of the classes an address of the family, or may it get one?
    fn has_family(&self, of: &[usize], family: Family) -> bool {
        let mut faces = of.iter().filter_map(|&c| self.classes.get(c)).flat_map(|c| c.faces.iter());
        faces.any(|face| face.family.is_none_or(|of| of == family))
    }

    fn program(&self, class: usize, direction: Direction) -> Option<usize> {
        self.classes.get(class).and_then(|class| match direction {
            Direction::Ingress => class.ingress,
            Direction::Egress => class.egress,
        })
    }

    /// What passes whatever the programs say.
    fn other_always(&mut self) -> PortSetId {
        match self.other_protocols {
            OtherProtocols::Police => PortSetId::EMPTY,
            OtherProtocols::Allow => self.port_sets.intern(PortSet::empty().with_other(true)),
        }
    }

    /// What one class may open to another.
    fn between(&mut self, source: usize, destination: usize) -> PortSetId {
        let (Some(from), Some(to)) = (self.classes.get(source), self.classes.get(destination))
        else {
            return PortSetId::EMPTY;
        };
        let looks = |program: Option<usize>| {
            program.and_then(|at| self.programs.get(at)).is_some_and(|p| p.looks_at_networks)
        };
        let address_matters = looks(from.egress) || looks(to.ingress);
        let (from_faces, to_faces) = (Rc::clone(&from.faces), Rc::clone(&to.faces));
        let mut all = PortSetId::EMPTY;
        for &from in from_faces.iter() {
            for &to in to_faces.iter().filter(|to| from.meets(**to)) {
                let egress = self.side(Direction::Egress, source, destination, to);
                if egress != PortSetId::EMPTY {
                    let ingress = self.side(Direction::Ingress, source, destination, from);
                    let both = self.port_sets.intersection(egress, ingress);
                    all = self.port_sets.union(all, both);
                }
                if !address_matters {
                    return all;
                }
            }
        }
        all
    }

    /// What one end allows, the remote end showing this face.
    fn side(
        &mut self,
        direction: Direction,
        source: usize,
        destination: usize,
        remote_face: Face,
    ) -> PortSetId {
        let (subject, remote) = match direction {
            Direction::Ingress => (destination, source),
            Direction::Egress => (source, destination),
        };
        let program = self.program(subject, direction);
        let always = self.other_always();
        let (Some(program), Some(to)) =
            (program.and_then(|at| self.programs.get_mut(at)), self.classes.get(destination))
        else {
            return PortSetId::FULL;
        };
        let (membership, addresses) = (&self.membership, &self.addresses);
        let peers_match = |peers: &CompactPeers| match peers {
            CompactPeers::Any => true,
            CompactPeers::OneOf { pods, networks } => {
                let in_set = |set: &u32| {
                    let word = membership.get(*set as usize).and_then(|bits| bits.get(remote / 64));
                    word.is_some_and(|word| word >> (remote % 64) & 1 == 1)
                };
                let in_networks =
                    |set: u32| remote_face.class.is_some_and(|class| addresses.is_in(class, set));
                pods.iter().any(in_set) || networks.is_some_and(in_networks)
            }
        };
        let ports = program.allowed(peers_match, &to.named, to.names, &mut self.port_sets);
        self.port_sets.union(ports, always)
    }
}

impl std::fmt::Debug for Connectivity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connectivity")
            .field("groups", &self.groups.len())
            .field("classes", &self.classes.len())
            .finish_non_exhaustive()
    }
}

fn membership(sets: usize, classes: &[Class]) -> Vec<Vec<u64>> {
    let mut membership = vec![vec![0u64; classes.len().div_ceil(64)]; sets];
    for (class, of) in classes.iter().enumerate() {
        for &set in &of.pod_sets {
            let word = membership.get_mut(set as usize).and_then(|bits| bits.get_mut(class / 64));
            if let Some(word) = word {
                *word |= 1 << (class % 64);
            }
        }
    }
    membership
}
