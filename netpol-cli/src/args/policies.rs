//! Commands that answer from the manifests alone.

use super::{Format, Input};
use clap::{Args, ValueEnum};

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

/// What policies are converted to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Target {
    /// NetworkPolicy of networking.k8s.io/v1, from extensions/v1beta1 and from the alpha of 2016
    V1,
    /// ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2, from AdminNetworkPolicy and BaselineAdminNetworkPolicy
    Cnp,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ObjectFormat {
    /// A document for each object
    Yaml,
    /// One list of objects
    Json,
}

#[derive(Args, Debug)]
#[command(after_help = "\
No connection becomes allowed or denied by it, if the result takes the place of what was converted: legacy policies that have no effect become
none, a namespace that an annotation isolates gets a policy that denies the rest, and an admin policy with more than 25 rules becomes
several. What could not be carried over was broken and matched nothing; it is named on standard error, and the exit
code is 1.

Examples:
  netpol convert --to v1 examples/alpha-2016
  netpol convert --to cnp examples/admin-v1alpha1
  netpol convert --to v1 --v1beta1-as 1.6 old-cluster.yaml | kubectl apply --dry-run=server -f -")]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    /// The API to convert to
    #[arg(long, value_enum)]
    pub(crate) to: Target,
    /// The form of the objects
    #[arg(short, long, value_enum, default_value = "yaml")]
    pub(crate) output: ObjectFormat,
}
