//! Commands that look at rules and say whether they enforce the policies.

use super::{Format, Input, PlaceArgs, PolicyArgs, RulesetArgs, SourceGuard, StateArgs};
use clap::Args;
use std::path::PathBuf;

/// A ruleset to look at, and what it is to be compared with.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    /// Look at what tools listed instead of at this machine's kernel: `nft -j list ruleset` and `nft list chains`;
    /// `iptables-save`, `ip6tables-save` and `ipset save`; one file for each
    #[arg(long, value_name = "FILE")]
    pub(crate) dump: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Format,
}

/// What a proof says of netpol's own rules.
#[derive(Args, Debug)]
pub(crate) struct ClaimArgs {
    #[command(flatten)]
    pub(crate) ruleset: RulesetArgs,
    /// As given to `apply`: wherever the guard is, it is part of the proof; with `off` it is not, and source addresses are taken as
    /// honest
    #[arg(long, value_enum, value_name = "WHERE")]
    pub(crate) source_guard: Option<SourceGuard>,
    /// Let rules that are not netpol's drop more than policies do: proved is then that netpol's own rules do what policies say, and
    /// that no rule of others lets pass what these deny
    #[arg(long)]
    pub(crate) others_may_drop: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes: 0 proved; 1 refuted, with a packet that shows it; 2 not proved, because something that matters was not understood, or
no answer. The choices (--re-evaluate, --allow-..., --source-guard) must be those of `apply`.

All rules of the kernel are looked at, of nftables and of both implementations of iptables, whoever made them. --backend says whose
rules are netpol's own: `auto`, those of either. A rule of others that drops what policies allow refutes the proof: kube-proxy has
such rules for services without an endpoint, a firewall has others. With --others-may-drop they are left to do so.

From the kernel, the source guard is part of what is proved, for the pods whose interface is known: from --interfaces, or from the
kernel's host routes to the pods. From a dump, only with --interfaces; else source addresses are taken as honest.

What changed since `netpol apply` is told, and whether it matters: from what `apply` recorded, or since the dumps given with --since.

Examples:
  netpol verify --node node-1 cluster.yaml
  netpol verify --dump ruleset.json --dump chains.txt --interfaces pods.json --node node-1 cluster.yaml
  netpol verify --backend iptables --dump v4.save --dump v6.save --dump sets.save --node node-1 cluster.yaml
  netpol verify --node node-1 --certificate proof.json cluster.yaml     and check it with `netpol check-certificate`
  ssh node-1 nft -j list ruleset > ruleset.json; netpol verify --dump ruleset.json --node node-1 -o json cluster.yaml")]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) inspect: InspectArgs,
    #[command(flatten)]
    pub(crate) claim: ClaimArgs,
    /// Prove it once more by another engine, over decision diagrams, which shares no code with the first and takes some forty times as
    /// long; both must say the same
    #[arg(long)]
    pub(crate) second_engine: bool,
    /// Tell what changed since these dumps [default: since `netpol apply`, if the kernel is looked at]
    #[arg(long, value_name = "FILE")]
    pub(crate) since: Vec<PathBuf>,
    /// Write the proof, or the refutation, into this file, so that `check-certificate` can check it
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
The certificate has the rules and, for classes of packets that cover all of them, what the policies say and what the rules do. Each of
that is found again here, from the manifests, by code that shares nothing with the prover. Node, choices (--re-evaluate, --allow-...,
--source-guard, --others-may-drop), --backend, --table and --prefix must be those of `verify`; without --node it must be about all pods. Without --interfaces the devices of
pods are those that the certificate names, which the answer says.

Whether its rules are those of a kernel, --listing tells: chains, hooks, handles of rules, elements of sets.

Exit codes: 0 accepted; 1 not accepted, with the first defect; 2 nothing is proved, because something was not understood, or no answer.

Examples:
  netpol verify --node node-1 --certificate proof.json cluster.yaml; nft -j list ruleset > ruleset.json
  netpol check-certificate proof.json --node node-1 --listing ruleset.json cluster.yaml
  netpol check-certificate proof.json --node node-1 --interfaces pods.json -o json cluster.yaml")]
pub(crate) struct CertificateArgs {
    /// What `verify --certificate` wrote
    #[arg(value_name = "CERTIFICATE")]
    pub(crate) certificate: PathBuf,
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) claim: ClaimArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// What `nft -j list ruleset` printed: does it have the rules of the certificate?
    #[arg(long, value_name = "FILE")]
    pub(crate) listing: Option<PathBuf>,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Ends and ports are written as for `explain`; a workload stands for its first pod that has an address. Exit codes: 0 the packet passes;
1 it is dropped; 2 it meets something that is not understood, or no answer.

Examples:
  netpol trace --from shop/web --to shop/db --port 5432/TCP cluster.yaml
  netpol trace --from 203.0.113.9 --to shop/web --port 443 --dump ruleset.json cluster.yaml")]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    pub(crate) inspect: InspectArgs,
    /// Who sends it
    #[arg(long, value_name = "END")]
    pub(crate) from: String,
    /// To whom
    #[arg(long, value_name = "END")]
    pub(crate) to: String,
    /// To which port, as the pod sees it (not the port of a Service)
    #[arg(long, value_name = "PORT")]
    pub(crate) port: String,
}
