//! The command line. Completions and the man page are made from the same definitions.

mod kernel;
mod policies;
mod proof;

pub(crate) use kernel::{
    ApplyArgs, BackendArgs, BackendName, DispatchBy, EnforceArgs, FlavorName, LabArgs, RemoveArgs,
    RenderArgs, RulesetArgs, SourceGuard, StateArgs, StatsArgs,
};
pub(crate) use policies::{
    CheckArgs, ConvertArgs, ExplainArgs, Grouping, ListArgs, ListFormat, ObjectFormat, Target,
};
pub(crate) use proof::{CertificateArgs, ClaimArgs, InspectArgs, TraceArgs, VerifyArgs};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

/// Who can reach whom under Kubernetes network policy, why not, and what is wrong with the policies.
///
/// Reads manifests: files, directories, or `-` for standard input; YAML with many documents, JSON, and lists. Pods are
/// taken as they are, workloads (Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob) by
/// their pod templates.
#[derive(Debug, Parser)]
#[command(
    name = "netpol",
    version,
    after_help = "\
Exit codes: 0 answered; 1 answered, and the answer is no (denied, defects found); 2 could not be answered.

Examples:
  netpol list examples/shop                       every allowed connection
  netpol list --to shop/api -o json manifests/    what reaches one workload, for a program
  netpol explain --from shop/web --to shop/db --port 5432/TCP examples/shop
  kubectl get pods,ns,netpol -A -o yaml | netpol check -"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List every allowed connection between workloads and external addresses
    List(ListArgs),
    /// Say whether one connection is allowed, and which policy and rule says so
    Explain(ExplainArgs),
    /// Report the defects of the manifests
    Check(CheckArgs),
    /// Write old policies anew, as a current API server takes them
    Convert(ConvertArgs),
    /// Print the rules that enforce the policies, for one node or for all pods
    Render(RenderArgs),
    /// Put the rules into this machine's kernel; nothing is open or cut off in between
    Apply(ApplyArgs),
    /// Take the rules out of this machine's kernel
    Remove(RemoveArgs),
    /// Show what the kernel denied, by policy and by pod
    Stats(StatsArgs),
    /// Prove that the kernel enforces the policies, for every packet, or show a packet for which it does not
    Verify(VerifyArgs),
    /// Check a proof that `verify --certificate` wrote down, by a program that shares nothing with the prover
    CheckCertificate(CertificateArgs),
    /// Follow one packet through the rules of the kernel: what becomes of it, by which rule and policy
    Trace(TraceArgs),
    /// Try the policies with real packets between network namespaces on this machine
    Lab(LabArgs),
    /// Print a script that completes netpol's arguments in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, in roff
    Man,
}

#[derive(Args, Debug)]
pub(crate) struct Input {
    /// Files or directories of manifests, or - for standard input
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

/// How manifests are read.
#[derive(Args, Clone, Debug)]
pub(crate) struct Reading {
    /// The namespace of objects that name none
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) default_namespace: String,
    /// What policies of extensions/v1beta1 mean: as servers before 1.7 had it, where the annotation
    /// net.beta.kubernetes.io/network-policy isolates a namespace, or as those since, where it says nothing
    #[arg(long, value_enum, value_name = "VERSION", default_value = "1.7")]
    pub(crate) v1beta1_as: V1beta1As,
    /// With --v1beta1-as 1.6, let the annotation count under the misspelt names that old examples have
    #[arg(long)]
    pub(crate) misspelt_annotations: bool,
    /// Which definitions of cluster-wide policies the server has: what the standard ones lack is unknown then, and fails closed
    #[arg(long, value_enum, value_name = "CHANNEL", default_value = "experimental")]
    pub(crate) channel: ChannelName,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ChannelName {
    /// Without nodes, domainNames and, in v1alpha1, namedPort
    Standard,
    /// With them
    Experimental,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum V1beta1As {
    /// As servers before 1.7: policies have an effect in namespaces that the annotation isolates
    #[value(name = "1.6")]
    Before1_7,
    /// As servers since 1.7: like networking.k8s.io/v1
    #[value(name = "1.7")]
    Since1_7,
}

/// Manifests that make an answer easier to read.
#[derive(Args, Debug)]
pub(crate) struct OptionalInput {
    /// Files or directories of manifests, or - for standard input
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Which pods are policed here, and where they are.
#[derive(Args, Debug)]
pub(crate) struct PlaceArgs {
    /// The node whose pods are policed
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// A JSON file with the host-side interface of each pod: {"namespace/pod": "interface"}
    #[arg(long, value_name = "FILE")]
    pub(crate) interfaces: Option<PathBuf>,
}

/// What Kubernetes leaves open.
#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    /// Judge open connections anew when policy changes
    #[arg(long)]
    pub(crate) re_evaluate: bool,
    /// Let pods reach their own node whatever NetworkPolicies say
    #[arg(long)]
    pub(crate) allow_own_node: bool,
    /// Let protocols other than TCP, UDP and SCTP pass whatever policies say
    #[arg(long)]
    pub(crate) allow_other_protocols: bool,
}
