//! `netpol render | apply | remove | stats`: the rules for one node, written down, put into the kernel, taken out.

mod apply;
pub(crate) mod node;
mod stats;

pub(crate) use apply::{apply, remove};
pub(crate) use stats::stats;

use crate::args::{EnforceArgs, RenderArgs, SourceGuard};
use crate::{Answer, Failure, load, terminal};
use netpol_core::{
    Established, Options, OtherProtocols, OwnNodeEgress, PodId, Ruleset, Scope, compile,
};
use netpol_k8s::Manifests;
use netpol_nft::{Defect, Denial, Guard, NftOptions, layout, model::DeviceName, script};
use std::collections::BTreeMap;
use std::io::Write;

pub(crate) fn render(args: &RenderArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read_for_answer(&args.enforce.input)?;
    let node = match &args.enforce.node {
        Some(name) => node::named(name, &manifests)?,
        None => node::Choice::AllPods,
    };
    let rules = rules(&manifests, &node)?;
    let layout = layout(&rules, &options(&args.enforce, &manifests)?);
    report_defects(&layout.defects);
    out.write_all(script(&layout.model).as_bytes())?;
    Ok(Answer::Yes)
}

/// The rules for the pods that were chosen.
fn rules(manifests: &Manifests, node: &node::Choice) -> Result<Ruleset, Failure> {
    let scope = match node {
        node::Choice::AllPods => Scope::Cluster,
        node::Choice::Node(name) => Scope::Node(name),
    };
    compile(manifests.cluster(), scope).map_err(|error| Failure::Message(error.to_string()))
}

/// The options of the command line.
fn options(args: &EnforceArgs, manifests: &Manifests) -> Result<NftOptions, Failure> {
    let mut policy = Options::default();
    if args.re_evaluate {
        policy = policy.with_established(Established::ReEvaluate);
    }
    if args.allow_own_node {
        policy = policy.with_own_node_egress(OwnNodeEgress::Allow);
    }
    if args.allow_other_protocols {
        policy = policy.with_other_protocols(OtherProtocols::Allow);
    }
    Ok(NftOptions::default()
        .with_policy(policy)
        .with_denial(if args.reject { Denial::Reject } else { Denial::Drop })
        .with_log(args.log_group)
        .with_table(args.table.clone())
        .with_priority(args.priority)
        .with_guard(match args.source_guard {
            SourceGuard::Ingress => Guard::Ingress,
            SourceGuard::Prerouting => Guard::Prerouting,
            SourceGuard::Off => Guard::Off,
        })
        .with_interfaces(interfaces(args, manifests)?))
}

/// The interfaces that the user's file names, by pod.
fn interfaces(
    args: &EnforceArgs,
    manifests: &Manifests,
) -> Result<BTreeMap<PodId, DeviceName>, Failure> {
    let Some(path) = &args.interfaces else { return Ok(BTreeMap::new()) };
    let wrong = |what: String| Failure::Message(format!("`{}`: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let names: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|error| {
        wrong(format!("{error}; write {{\"namespace/pod\": \"interface\", ...}}"))
    })?;
    let mut interfaces = BTreeMap::new();
    for (pod, interface) in names {
        let known = pod.split_once('/').map(|(namespace, name)| PodId::new(namespace, name));
        let Some(id) = known.filter(|id| manifests.cluster().pod(id).is_some()) else {
            return Err(wrong(format!("there is no pod `{pod}`; write namespace/name")));
        };
        let device = DeviceName::new(&interface)
            .ok_or_else(|| wrong(format!("`{interface}` is no name of an interface")))?;
        interfaces.insert(id, device);
    }
    Ok(interfaces)
}

fn report_defects(defects: &[Defect]) {
    for defect in defects {
        eprintln!("warning: {}", terminal::printable(&defect.to_string()));
    }
}

/// What the back end could not do, and what may help.
fn failure(error: &netpol_nft::Error) -> Failure {
    Failure::Message(format!("{error}; {}", error.hint()))
}
