//! Commands that write rules, change the kernel or ask it what it counted.

use super::{Format, Input, OptionalInput, PlaceArgs, PolicyArgs};
use clap::{Args, ValueEnum};
use netpol_iptables::Prefix;
use netpol_nft::model::Name;
use std::path::PathBuf;

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
    /// With --verify, let rules that are not netpol's drop more than policies do: proved is then that netpol's own rules do what policies say, and
    /// that no rule of others lets pass what these deny
    #[arg(long, requires = "verify")]
    pub(crate) others_may_drop: bool,
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
