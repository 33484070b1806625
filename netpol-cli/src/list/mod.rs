//! `netpol list`: every allowed connection.

mod pairs;
mod text;

use crate::args::{Grouping, ListArgs, ListFormat};
use crate::party::Party;
use crate::{Answer, Failure, load, party, terminal};
use netpol_core::{Options, PodId};
use netpol_k8s::Manifests;
use netpol_sim::{Connectivity, ExternalRange, PortSetId};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;

pub(crate) fn run(args: &ListArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read_for_answer(&args.input)?;
    let mut list = List::new(args, &manifests)?;
    match args.output {
        ListFormat::Text => text::write(&mut list, out)?,
        ListFormat::Json => pairs::write_json(&mut list, out)?,
        ListFormat::Csv => pairs::write_csv(&mut list, out)?,
        ListFormat::Md => pairs::write_md(&mut list, out)?,
    }
    Ok(Answer::Yes)
}

/// The connections that were asked for.
struct List {
    connectivity: Connectivity,
    /// The ends in the cluster, in the order of their names.
    ends: Vec<End>,
    from: Filter,
    to: Filter,
    namespace: Option<String>,
}

struct End {
    namespace: String,
    name: String,
}

/// Which ends were asked for.
enum Filter {
    Any,
    /// These positions in `ends`.
    Ends(Vec<usize>),
    /// The external range with this address.
    Address(IpAddr),
}

impl Filter {
    fn new(
        text: Option<&String>,
        manifests: &Manifests,
        position: &dyn Fn(&PodId) -> Option<usize>,
    ) -> Result<Self, Failure> {
        let Some(text) = text else { return Ok(Self::Any) };
        let pods = match party::parse(text, manifests)? {
            Party::Pods { pods, .. } => pods,
            Party::Address(address) => match manifests.cluster().address_owners().get(&address) {
                Some(&owner) => vec![owner.clone()],
                None => return Ok(Self::Address(address)),
            },
        };
        let mut ends: Vec<usize> = pods.iter().filter_map(position).collect();
        ends.sort_unstable();
        ends.dedup();
        if ends.is_empty() {
            return Err(Failure::Message(format!(
                "`{text}` is on the host network or has finished: no policy applies to it, and its traffic is its node's"
            )));
        }
        Ok(Self::Ends(ends))
    }

    fn end(&self, end: usize) -> bool {
        match self {
            Self::Any => true,
            Self::Ends(ends) => ends.contains(&end),
            Self::Address(_) => false,
        }
    }

    fn external(&self, range: &ExternalRange) -> bool {
        match self {
            Self::Any => true,
            Self::Ends(_) => false,
            Self::Address(address) => range.first <= *address && *address <= range.last,
        }
    }
}

impl List {
    fn new(args: &ListArgs, manifests: &Manifests) -> Result<Self, Failure> {
        let rules = load::rules(manifests)?;
        let mut groups: BTreeMap<(String, String), Vec<PodId>> = BTreeMap::new();
        let mut left_out = 0;
        for pod in manifests.cluster().pods() {
            if !pod.is_managed() {
                left_out += 1;
                continue;
            }
            let name = match args.by {
                Grouping::Pod if !pod.id().name().as_str().contains('[') => {
                    format!("{}[Pod]", pod.id())
                }
                _ => manifests.workload(pod.id()).to_string(),
            };
            let name = terminal::printable(&name).into_owned();
            let namespace = pod.id().namespace().to_string();
            groups.entry((namespace, name)).or_default().push(pod.id().clone());
        }
        if left_out > 0 {
            eprintln!(
                "netpol: left out {left_out} pod(s) on the host network or finished: no policy applies to them"
            );
        }
        let (names, pods): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
        let positions: BTreeMap<&PodId, usize> =
            pods.iter().zip(0..).flat_map(|(pods, at)| pods.iter().map(move |p| (p, at))).collect();
        let position = |pod: &PodId| positions.get(pod).copied();
        Ok(Self {
            from: Filter::new(args.from.as_ref(), manifests, &position)?,
            to: Filter::new(args.to.as_ref(), manifests, &position)?,
            connectivity: Connectivity::new(&rules, Options::default(), &pods),
            ends: names.into_iter().map(|(namespace, name)| End { namespace, name }).collect(),
            namespace: args.namespace.clone(),
        })
    }

    /// Is this end in the namespace that was asked for?
    fn in_namespace(&self, end: usize) -> bool {
        let wanted = self.namespace.as_deref();
        wanted.is_none_or(|wanted| self.ends.get(end).is_some_and(|end| end.namespace == wanted))
    }

    /// What was asked for among the connections of one end: to other ends, to external addresses, from these.
    fn connections(&mut self, end: usize) -> Connections {
        let row = self.connectivity.row(end);
        let here = self.in_namespace(end);
        let shown = |ports: PortSetId| self.is_shown(ports);
        let mut connections = Connections::default();
        if self.from.end(end) {
            connections.to_ends = row
                .groups
                .iter()
                .enumerate()
                .filter(|&(to, &ports)| {
                    shown(ports) && self.to.end(to) && (here || self.in_namespace(to))
                })
                .map(|(to, &ports)| (to, ports))
                .collect();
            let ranges = row.to_external.iter();
            let wanted = |r: &&ExternalRange| here && shown(r.ports) && self.to.external(r);
            connections.to_external = ranges.filter(wanted).copied().collect();
        }
        if self.to.end(end) {
            let ranges = row.from_external.iter();
            let wanted = |r: &&ExternalRange| here && shown(r.ports) && self.from.external(r);
            connections.from_external = ranges.filter(wanted).copied().collect();
        }
        connections
    }

    /// Can anything be sent to these ports? Nobody listens on port 0.
    fn is_shown(&self, ports: PortSetId) -> bool {
        let set = self.connectivity.ports(ports);
        set.other()
            || netpol_core::Protocol::ALL
                .into_iter()
                .any(|p| set.ports(p).intervals().any(|range| *range.end() > 0))
    }
}

/// The connections of one end that were asked for; none with the end itself unless several ends are of its kind.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
struct Connections {
    to_ends: Vec<(usize, PortSetId)>,
    to_external: Vec<ExternalRange>,
    from_external: Vec<ExternalRange>,
}
