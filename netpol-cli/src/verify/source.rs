//! What is looked at: this machine's kernel or dumps, and for which node.

use crate::Failure;
use crate::args::{BackendName, ClaimArgs, InspectArgs, RulesetArgs, SourceGuard};
use crate::kernel::{self, node};
use netpol_core::{InterfaceName, NodeName, Options, PodId, Ruleset, Scope, compile};
use netpol_host::Host;
use netpol_k8s::Manifests;
use netpol_verify::machine::{Machine, Own};
use netpol_verify::{Dump, Kernel, ProofOptions, Specification, read_dumps};
use std::collections::BTreeMap;
use std::path::Path;

/// Whose rules are netpol's own.
pub(crate) fn own(args: &RulesetArgs) -> Own {
    let (table, prefix) = (args.table.to_string(), args.prefix.to_string());
    match (args.backend.backend, args.backend.iptables) {
        (BackendName::Nft, _) => Own::default().with_table(table),
        (BackendName::Iptables, _) | (BackendName::Auto, Some(_)) => {
            Own::default().with_chains(prefix)
        }
        (BackendName::Auto, None) => Own::default().with_table(table).with_chains(prefix),
    }
}

/// What is to be proved, for pods with these interfaces.
pub(crate) fn proof_options(
    args: &ClaimArgs,
    interfaces: &BTreeMap<PodId, String>,
) -> ProofOptions {
    let mut options = ProofOptions::default().with_interfaces(interfaces.clone());
    options.own = own(&args.ruleset);
    options.others_may_drop = args.others_may_drop;
    if is_unguarded(args) { options.without_guard() } else { options }
}

/// Was `apply` told to leave the source guard out?
pub(crate) fn is_unguarded(args: &ClaimArgs) -> bool {
    args.source_guard == Some(SourceGuard::Off)
}

/// A ruleset, and what it should enforce.
pub(crate) struct Source {
    pub(crate) machine: Machine,
    pub(crate) interfaces: BTreeMap<PodId, String>,
    node: Option<NodeName>,
    options: Options,
}

impl Source {
    pub(crate) fn new(args: &InspectArgs, manifests: &Manifests) -> Result<Self, Failure> {
        let live = args.dump.is_empty();
        let choice = match &args.place.node {
            Some(name) => node::named(name, manifests)?,
            None if live => node::of_this_machine(manifests)?,
            None => node::Choice::AllPods,
        };
        let node = match choice {
            node::Choice::AllPods => None,
            node::Choice::Node(name) => Some(name),
        };
        let interfaces = match &args.place.interfaces {
            None if live => routed_interfaces(manifests, node.as_ref())?,
            _ => kernel::interfaces(&args.place, manifests)?,
        };
        let interfaces =
            interfaces.into_iter().map(|(pod, name)| (pod, name.to_string())).collect();
        let machine = if live {
            let read = Kernel::new().machine();
            read.map_err(|error| Failure::Message(format!("{error}; {}", error.hint())))?
        } else {
            let dumps: Result<Vec<Dump>, Failure> =
                args.dump.iter().map(|p| read_dump(p)).collect();
            read_dumps(&dumps?).map_err(|error| Failure::Message(error.to_string()))?
        };
        let options = kernel::policy(&args.policy);
        Ok(Self { machine, interfaces, node, options })
    }

    pub(crate) fn specification<'a>(&self, manifests: &'a Manifests) -> Specification<'a> {
        Specification::new(manifests.cluster(), self.node.as_ref(), self.options)
    }

    /// The rules that should be in the kernel.
    pub(crate) fn rules(&self, manifests: &Manifests) -> Result<Ruleset, Failure> {
        let scope = self.node.as_ref().map_or(Scope::Cluster, Scope::Node);
        let rules = compile(manifests.cluster(), scope);
        rules.map_err(|error| Failure::Message(error.to_string()))
    }

    /// The node whose rules they are; none if they are for all pods.
    pub(crate) fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }
}

pub(super) fn read_dump(path: &Path) -> Result<Dump, Failure> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Dump { name, text }),
        Err(error) => Err(Failure::Message(format!("`{name}`: {error}"))),
    }
}

/// The interfaces that the kernel's host routes lead to, as `apply` finds them.
fn routed_interfaces(
    manifests: &Manifests,
    node: Option<&NodeName>,
) -> Result<BTreeMap<PodId, InterfaceName>, Failure> {
    let scope = node.map_or(Scope::Cluster, Scope::Node);
    let rules = compile(manifests.cluster(), scope);
    let rules = rules.map_err(|error| Failure::Message(error.to_string()))?;
    let found = Host::here().devices(&rules);
    found.map_err(|error| Failure::Message(error.to_string()))
}
