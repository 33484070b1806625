//! The command line. Completions and the man page are made from the same definitions.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use netpol_iptables::Prefix;
use netpol_nft::model::Name;
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

fn table(text: &str) -> Result<Name, String> {
    Name::new(text).ok_or_else(|| {
        "a table's name is letters, digits and `_`, and begins with a letter".to_owned()
    })
}

fn prefix(text: &str) -> Result<Prefix, String> {
    Prefix::new(text).ok_or_else(|| {
        "a prefix is up to four letters and digits, and begins with a letter".to_owned()
    })
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

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum BackendName {
    /// nftables where this machine has it, else iptables
    Auto,
    /// nftables
    Nft,
    /// iptables and ipset
    Iptables,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum FlavorName {
    /// iptables-legacy
    Legacy,
    /// iptables-nft
    Nft,
}

#[derive(Args, Debug)]
pub(crate) struct BackendArgs {
    /// What enforces the policies
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) backend: BackendName,
    /// Which implementation of iptables [default: the one that this machine uses]
    #[arg(long, value_enum, value_name = "FLAVOR")]
    pub(crate) iptables: Option<FlavorName>,
}

#[derive(Args, Debug)]
pub(crate) struct RulesetArgs {
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// The name of the tables of nftables; two names are two independent rulesets
    #[arg(long, value_name = "NAME", default_value = "netpol", value_parser = table)]
    pub(crate) table: Name,
    /// How the names of chains of iptables and of sets begin; two prefixes are two independent rulesets
    #[arg(long, value_name = "NAME", default_value = "NP", value_parser = prefix)]
    pub(crate) prefix: Prefix,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum SourceGuard {
    /// On the pods' devices, by nftables: cheapest; `apply` falls back to prerouting where the kernel cannot
    Ingress,
    /// Before connection tracking, for all packets
    Prerouting,
    /// Nowhere: source addresses are taken as honest
    Off,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum DispatchBy {
    /// By their addresses
    Address,
    /// By their devices, where these are known (nftables only)
    Interface,
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

#[derive(Args, Debug)]
pub(crate) struct EnforceArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) ruleset: RulesetArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Answer what is denied (TCP with a reset) instead of dropping it
    #[arg(long)]
    pub(crate) reject: bool,
    /// Log denials to this nflog group, with the name of the policy and a rate limit
    #[arg(long, value_name = "GROUP")]
    pub(crate) log_group: Option<u16>,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Where to check that packets from a pod carry its address [default: ingress for `apply` with nftables, else prerouting]
    #[arg(long, value_enum, value_name = "WHERE")]
    pub(crate) source_guard: Option<SourceGuard>,
    /// How the rules tell pods apart
    #[arg(long, value_enum, value_name = "BY", default_value = "address")]
    pub(crate) dispatch: DispatchBy,
    /// The priority of the rules in the hooks of the kernel, with nftables; those of others are often at 0 [default: -5]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,
}

/// Where `apply` writes down what the kernel lists, and `verify` reads it.
#[derive(Args, Debug)]
pub(crate) struct StateArgs {
    /// The directory in which `apply` records what the kernel lists, so that `verify` can tell what changed since
    #[arg(long, value_name = "DIR", default_value = "/run/netpol", env = "NETPOL_STATE")]
    pub(crate) state: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Without --node the rules are for all pods that have an address. `auto` is nftables here.

Examples:
  netpol render examples/dual-stack
  netpol render --node node-1 --interfaces pods.json cluster.yaml | nft -f -
  netpol render --backend iptables --output-dir rules cluster.yaml && sh rules/load.sh")]
pub(crate) struct RenderArgs {
    #[command(flatten)]
    pub(crate) enforce: EnforceArgs,
    /// Write files into this directory instead: netpol.nft, or netpol.ipset, netpol.v4.iptables, netpol.v6.iptables and load.sh
    #[arg(long, value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Without --node it is the node called like this machine, or all pods if none names a node. Interfaces come from --interfaces, or from
the kernel's host routes to the pods. Needs CAP_NET_ADMIN, and nft or iptables and ipset; works in the network namespace it is run in.

When the rules are in force, those that another back end has from before are removed, so that changing from one to the other is
this one command, and nothing is open in between.

Examples:
  netpol apply --dry-run cluster.yaml
  netpol apply --node node-1 cluster.yaml
  netpol apply --verify --node node-1 cluster.yaml in force only if it is proved: exit code 1 or 2 if not, and all is as before
  netpol apply --backend nft cluster.yaml          also where iptables enforced before")]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) enforce: EnforceArgs,
    /// Print what would change, as scripts, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Leave the rules of other back ends in place
    #[arg(long)]
    pub(crate) keep_others: bool,
    /// Prove that the kernel now enforces the policies before reporting success; put the rules from before back if that cannot be
    /// proved
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) verify: bool,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
#[command(after_help = "\
`auto` removes the rules of every back end.

Examples:
  netpol remove
  netpol remove --backend iptables")]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    pub(crate) ruleset: RulesetArgs,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  netpol stats
  netpol stats cluster.yaml        pods by name instead of by address")]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    pub(crate) input: OptionalInput,
    #[command(flatten)]
    pub(crate) ruleset: RulesetArgs,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Format,
}

/// A ruleset to look at, and what it is to be compared with.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) ruleset: RulesetArgs,
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

#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes: 0 proved; 1 refuted, with a packet that shows it; 2 not proved, because something that matters was not understood, or
no answer. The choices (--re-evaluate, --allow-...) must be those of `apply`.

All rules of the kernel are looked at, of nftables and of both implementations of iptables, whoever made them. --backend says whose
rules are netpol's own: `auto`, those of either.

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
    /// Prove it once more by another engine, over decision diagrams, which shares no code with the first and takes some twenty times as
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
that is found again here, from the manifests, by code that shares nothing with the prover. Node, choices (--re-evaluate, --allow-...),
--backend, --table and --prefix must be those of `verify`; without --node it must be about all pods. Without --interfaces the devices of
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
    pub(crate) ruleset: RulesetArgs,
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

#[derive(Args, Debug)]
#[command(after_help = "\
Each pod becomes a network namespace with its addresses, made up where the manifests have none. Every pair is probed over TCP, UDP,
SCTP and ICMP, on each port that a policy or container names and on one that nobody names. Needs root, ip, and nft or
iptables and ipset. Nothing outside its own namespaces is touched, and nothing is left behind.

Examples:
  netpol lab examples/shop
  netpol lab --backend iptables --iptables legacy examples/shop
  netpol lab --shell shop/web examples/shop")]
pub(crate) struct LabArgs {
    #[command(flatten)]
    pub(crate) input: Input,
    #[command(flatten)]
    pub(crate) backend: BackendArgs,
    /// Open a shell in the namespace of this pod or workload instead of probing
    #[arg(long, value_name = "POD")]
    pub(crate) shell: Option<String>,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Format,
}
