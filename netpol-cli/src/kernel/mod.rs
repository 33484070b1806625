//! `netpol render | apply | remove | stats`: the rules for one node, written down, put into the kernel, taken out.

mod apply;
mod backend;
pub(crate) mod node;
pub(crate) mod record;
mod stats;
mod verified;

pub(crate) use apply::{apply, remove};
pub(crate) use stats::stats;

pub(crate) use backend::Choice;

use crate::args::{
    BackendName, DispatchBy, EnforceArgs, PlaceArgs, PolicyArgs, RenderArgs, SourceGuard,
};
use crate::{Answer, Failure, load, terminal};
use netpol_core::{
    Established, Family, InterfaceName, Options, OtherProtocols, OwnNodeEgress, PodId, Ruleset,
    Scope, compile,
};
use netpol_host::{Denial, DeviceName, HostOptions};
use netpol_iptables::IptablesOptions;
use netpol_k8s::Manifests;
use netpol_nft::{Dispatch, Guard, NftOptions};
use std::collections::BTreeMap;
use std::io::Write;

pub(crate) fn render(args: &RenderArgs, out: &mut dyn Write) -> Result<Answer, Failure> {
    let manifests = load::read_for_answer(&args.enforce.input)?;
    let node = match &args.enforce.place.node {
        Some(name) => node::named(name, &manifests)?,
        None => node::Choice::AllPods,
    };
    let rules = rules(&manifests, &node)?;
    // Text may be for another machine, so this one is not asked what it has.
    let backend = match args.enforce.ruleset.backend.backend {
        BackendName::Auto if args.enforce.ruleset.backend.iptables.is_some() => {
            BackendName::Iptables
        }
        BackendName::Auto => BackendName::Nft,
        named => named,
    };
    // A script that names a device which is not there may not load at all (before Linux 6.16), so the guard that does not
    // depend on devices is the default.
    let guard = args.enforce.source_guard.unwrap_or(SourceGuard::Prerouting);
    let named = interfaces(&args.enforce.place, &manifests)?;
    let (files, defects) = match choice(&args.enforce, backend, guard, named)? {
        Choice::Nft(options) => {
            let layout = netpol_nft::layout(&rules, &options);
            let defects: Vec<String> = layout.defects.iter().map(ToString::to_string).collect();
            (vec![("netpol.nft", netpol_nft::script(&layout.model))], defects)
        }
        Choice::Iptables(options) => {
            use netpol_iptables::text;
            let layout = netpol_iptables::layout(&rules, &options);
            let defects = layout.defects.iter().map(ToString::to_string).collect();
            let files = vec![
                ("netpol.ipset", text::ipset(&layout.model)),
                ("netpol.v4.iptables", text::iptables(&layout.model, Family::V4)),
                ("netpol.v6.iptables", text::iptables(&layout.model, Family::V6)),
                ("load.sh", text::load_script(&layout.model)),
            ];
            (files, defects)
        }
    };
    report_defects(&defects);
    if let Some(directory) = &args.output_dir {
        let unwritable = |error: std::io::Error| {
            Failure::Message(format!("cannot write into `{}`: {error}", directory.display()))
        };
        std::fs::create_dir_all(directory).map_err(unwritable)?;
        for (name, text) in &files {
            std::fs::write(directory.join(name), text).map_err(unwritable)?;
            writeln!(out, "{}", directory.join(name).display())?;
        }
        return Ok(Answer::Yes);
    }
    let several = files.len() > 1;
    for (name, text) in files {
        if several {
            writeln!(out, "# {name}; --output-dir writes files that can be loaded")?;
        }
        out.write_all(text.as_bytes())?;
    }
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

/// The back end of the command line, with its options.
fn choice(
    args: &EnforceArgs,
    backend: BackendName,
    guard: SourceGuard,
    interfaces: BTreeMap<PodId, InterfaceName>,
) -> Result<Choice, Failure> {
    let host = HostOptions::default()
        .with_policy(policy(&args.policy))
        .with_denial(if args.reject { Denial::Reject } else { Denial::Drop })
        .with_log(args.log_group)
        .with_interfaces(interfaces);
    let choice = match backend {
        BackendName::Auto | BackendName::Nft => {
            let options = NftOptions::from(host)
                .with_dispatch(match args.dispatch {
                    DispatchBy::Address => Dispatch::Address,
                    DispatchBy::Interface => Dispatch::Interface,
                })
                .with_guard(match guard {
                    SourceGuard::Ingress => Guard::Ingress,
                    SourceGuard::Prerouting => Guard::Prerouting,
                    SourceGuard::Off => Guard::Off,
                });
            let priority = args.priority.unwrap_or(options.priority());
            Choice::Nft(options.with_priority(priority))
        }
        BackendName::Iptables => {
            let cannot = |option, why| {
                Err(Failure::Message(format!("`{option}` needs --backend nft: {why}")))
            };
            if args.priority.is_some() {
                return cannot("--priority", "rules of iptables come in the order of their chains");
            }
            if args.dispatch == DispatchBy::Interface {
                return cannot(
                    "--dispatch interface",
                    "iptables has no map from devices to chains",
                );
            }
            let guard = match guard {
                SourceGuard::Ingress => {
                    return cannot("--source-guard ingress", "iptables has no hook at devices");
                }
                SourceGuard::Prerouting => netpol_iptables::Guard::Prerouting,
                SourceGuard::Off => netpol_iptables::Guard::Off,
            };
            let flavor = backend::flavor(&args.ruleset.backend);
            Choice::Iptables(IptablesOptions::from(host).with_flavor(flavor).with_guard(guard))
        }
    };
    Ok(choice.named(&args.ruleset))
}

/// What Kubernetes leaves open, as the command line answers it.
pub(crate) fn policy(args: &PolicyArgs) -> Options {
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
    policy
}

/// The interfaces that the user's file names, by pod; none without a file.
pub(crate) fn interfaces(
    args: &PlaceArgs,
    manifests: &Manifests,
) -> Result<BTreeMap<PodId, InterfaceName>, Failure> {
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
        if DeviceName::new(&interface).is_none() {
            return Err(wrong(format!("`{interface}` is no name of an interface")));
        }
        interfaces.insert(id, interface.into());
    }
    Ok(interfaces)
}

fn report_defects(defects: &[String]) {
    for defect in defects {
        eprintln!("warning: {}", terminal::printable(defect));
    }
}
