//! The command line. Completions and the man page are made from the same definitions.

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
    /// The namespace of objects that name none
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) default_namespace: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Grouping {
    /// Pods with the same controller are one
    Workload,
    /// Each pod by itself
    Pod,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ListFormat {
    /// For people: what is equal is grouped
    Text,
    /// One object with all connections
    Json,
    /// One line a connection, with a header
    Csv,
    /// A Markdown table
    Md,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netpol list examples/shop
  netpol list --to payments/ledger examples/shop      only what reaches one workload
  netpol list --namespace shop --by pod -o csv dump.yaml

In JSON, csv and md a connection is one pair of ends; ports are closed ranges, and `other` is every IP protocol but TCP,
UDP and SCTP. Workloads on the host network are left out: their traffic is the node's.")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    /// What an end of a connection is
    #[arg(long, value_enum, default_value = "workload")]
    pub(crate) by: Grouping,
    /// Only connections from this workload, pod or address
    #[arg(long, value_name = "END")]
    pub(crate) from: Option<String>,
    /// Only connections to this workload, pod or address
    #[arg(long, value_name = "END")]
    pub(crate) to: Option<String>,
    /// Only connections with an end in this namespace
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: ListFormat,
}

#[derive(Args, Debug)]
#[command(after_help = "\
An end is a workload or pod (namespace/name, or namespace/name[Kind] where the name alone is not enough) or an IP address.
A port is number/protocol (80/TCP; TCP may be left out), a container port's name, ICMP, or an IP protocol (proto/47).

Examples:
  netpol explain --from shop/web --to shop/db --port 5432/TCP examples/shop
  netpol explain --from 198.51.100.7 --to shop/web --port https examples/shop
  netpol explain --from shop/web --to 10.0.0.9 --port ICMP -o json examples/shop")]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    /// Who opens the connection
    #[arg(long, value_name = "END")]
    pub(crate) from: String,
    /// To whom
    #[arg(long, value_name = "END")]
    pub(crate) to: String,
    /// To which port, as the pod sees it (not the port of a Service)
    #[arg(long, value_name = "PORT")]
    pub(crate) port: String,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Errors are what a Kubernetes API server would refuse, or what cannot be understood; each fails closed. Warnings are what it
accepts but was surely not meant; they do not change the exit code.

Examples:
  netpol check manifests/
  helm template ./chart | netpol check -")]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Format,
}
