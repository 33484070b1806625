//! What is looked at: this machine's kernel or dumps, and for which node.

use crate::Failure;
use crate::args::InspectArgs;
use crate::kernel::node;
use netpol_core::{
    Established, NodeName, Options, OtherProtocols, OwnNodeEgress, PodId, Scope, compile,
};
use netpol_host::Host;
use netpol_k8s::Manifests;
use netpol_verify::machine::Machine;
use netpol_verify::{Dump, Kernel, Specification, read_dumps};
use std::collections::BTreeMap;
use std::path::Path;

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
        let choice = match &args.node {
            Some(name) => node::named(name, manifests)?,
            None if live => node::of_this_machine(manifests)?,
            None => node::Choice::AllPods,
        };
        let node = match choice {
            node::Choice::AllPods => None,
            node::Choice::Node(name) => Some(name),
        };
        let interfaces = match &args.interfaces {
            Some(path) => read_interfaces(path, manifests)?,
            None if live => routed_interfaces(manifests, node.as_ref())?,
            None => BTreeMap::new(),
        };
        let machine = if live {
            let read = Kernel::new().nft();
            read.map_err(|error| Failure::Message(format!("{error}; {}", error.hint())))?
        } else {
            let dumps: Result<Vec<Dump>, Failure> =
                args.dump.iter().map(|p| read_dump(p)).collect();
            read_dumps(&dumps?).map_err(|error| Failure::Message(error.to_string()))?
        };
        let mut options = Options::default();
        if args.re_evaluate {
            options = options.with_established(Established::ReEvaluate);
        }
        if args.allow_own_node {
            options = options.with_own_node_egress(OwnNodeEgress::Allow);
        }
        if args.allow_other_protocols {
            options = options.with_other_protocols(OtherProtocols::Allow);
        }
        Ok(Self { machine, interfaces, node, options })
    }

    pub(crate) fn specification<'a>(&self, manifests: &'a Manifests) -> Specification<'a> {
        Specification::new(manifests.cluster(), self.node.as_ref(), self.options)
    }

    /// The node whose rules they are; none if they are for all pods.
    pub(crate) fn node(&self) -> Option<&NodeName> {
        self.node.as_ref()
    }
}

fn read_dump(path: &Path) -> Result<Dump, Failure> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Dump { name, text }),
        Err(error) => Err(Failure::Message(format!("`{name}`: {error}"))),
    }
}

fn read_interfaces(path: &Path, manifests: &Manifests) -> Result<BTreeMap<PodId, String>, Failure> {
    let text = read_dump(path)?.text;
    let wrong = |what: &dyn std::fmt::Display| {
        Failure::Message(format!(
            "`{}`: {what}; write {{\"namespace/pod\": \"interface\", ...}}",
            path.display()
        ))
    };
    let pods: BTreeMap<String, PodId> =
        manifests.cluster().pods().map(|pod| (pod.id().to_string(), pod.id().clone())).collect();
    let named: BTreeMap<String, String> =
        serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    let known = named.into_iter().map(|(pod, interface)| match pods.get(&pod) {
        Some(id) => Ok((id.clone(), interface)),
        None => Err(wrong(&format!("there is no pod `{pod}`"))),
    });
    known.collect()
}

/// The interfaces that the kernel's host routes lead to, as `apply` finds them.
fn routed_interfaces(
    manifests: &Manifests,
    node: Option<&NodeName>,
) -> Result<BTreeMap<PodId, String>, Failure> {
    let scope = node.map_or(Scope::Cluster, Scope::Node);
    let rules = compile(manifests.cluster(), scope);
    let rules = rules.map_err(|error| Failure::Message(error.to_string()))?;
    let found = Host::here().devices(&rules);
    let found = found.map_err(|error| Failure::Message(error.to_string()))?;
    Ok(found.into_iter().map(|(pod, device)| (pod, device.to_string())).collect())
}
