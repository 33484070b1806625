//! The back ends behind `--backend`, as one type.

use crate::Failure;
use crate::args::{BackendArgs, BackendName, FlavorName, RulesetArgs};
use netpol_core::{Backend, Direction, Ruleset};
use netpol_host::{Denied, Host, ProgramError};
use netpol_iptables::{Flavor, Iptables, IptablesOptions};
use netpol_nft::{NftOptions, Nftables};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Which back end, and how its rules are laid out.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    Nft(NftOptions),
    Iptables(IptablesOptions),
}

/// A back end that works on this machine's kernel.
pub(crate) enum KernelBackend {
    Nft(Box<Nftables>),
    Iptables(Box<Iptables>),
}

/// The rules of a back end at some time.
pub(crate) enum Snapshot {
    Nft(netpol_nft::Snapshot),
    Iptables(netpol_iptables::Snapshot),
}

impl Snapshot {
    /// Were there no rules?
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Nft(snapshot) => snapshot.is_empty(),
            Self::Iptables(snapshot) => snapshot.is_empty(),
        }
    }
}

/// What a change did.
pub(crate) struct Report {
    /// How many commands or lines created, switched and cleaned up.
    pub(crate) commands: [usize; 3],
    /// How many transactions, or runs of programs.
    pub(crate) runs: usize,
    pub(crate) took: Duration,
    pub(crate) defects: Vec<String>,
}

/// Which back end is meant here.
pub(crate) fn name(args: &BackendArgs) -> BackendName {
    match args.backend {
        BackendName::Auto if args.iptables.is_some() => BackendName::Iptables,
        // Where there is neither, nftables is what should be installed.
        BackendName::Auto if has_nftables() || !has_iptables() => BackendName::Nft,
        BackendName::Auto => BackendName::Iptables,
        named => named,
    }
}

/// Do the tools and the kernel have nftables?
fn has_nftables() -> bool {
    // Something is put into a table that is not made: without the kernel's part, or the right, this fails.
    let probe = "add table ip netpol_probe\nadd chain ip netpol_probe c { type filter hook forward priority 0; }\n";
    match Host::here().run("nft", &["-c", "-f", "-"], probe) {
        // Who may not change anything may not with iptables either, and is told so.
        Ok(output) => output.success || output.stderr.contains("not permitted"),
        Err(_) => false,
    }
}

fn has_iptables() -> bool {
    Host::here().run("iptables", &["--version"], "").is_ok()
}

pub(crate) fn flavor(args: &BackendArgs) -> Option<Flavor> {
    args.iptables.map(|flavor| match flavor {
        FlavorName::Legacy => Flavor::Legacy,
        FlavorName::Nft => Flavor::Nft,
    })
}

impl Choice {
    /// With the usual layout.
    pub(crate) fn plain(args: &BackendArgs) -> Self {
        match name(args) {
            BackendName::Iptables => {
                Self::Iptables(IptablesOptions::default().with_flavor(flavor(args)))
            }
            BackendName::Auto | BackendName::Nft => Self::Nft(NftOptions::default()),
        }
    }

    /// The same with these names.
    pub(crate) fn named(self, args: &RulesetArgs) -> Self {
        match self {
            Self::Nft(options) => Self::Nft(options.with_table(args.table.clone())),
            Self::Iptables(options) => Self::Iptables(options.with_prefix(args.prefix.clone())),
        }
    }

    pub(crate) fn start(self) -> KernelBackend {
        match self {
            Self::Nft(options) => {
                KernelBackend::Nft(Box::new(Nftables::new(Host::here(), options)))
            }
            Self::Iptables(options) => {
                KernelBackend::Iptables(Box::new(Iptables::new(Host::here(), options)))
            }
        }
    }
}

impl fmt::Display for KernelBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nft(_) => f.write_str("nftables"),
            Self::Iptables(iptables) => match iptables.report().flavor() {
                Some(flavor) => flavor.fmt(f),
                None => f.write_str("iptables"),
            },
        }
    }
}

impl KernelBackend {
    pub(crate) fn replace(&mut self, ruleset: &Ruleset) -> Result<(), Failure> {
        match self {
            Self::Nft(nft) => nft.replace(ruleset).map_err(|error| of_nft(&error)),
            Self::Iptables(iptables) => iptables.replace(ruleset).map_err(|e| of_iptables(&e)),
        }
    }

    /// The rules as they are.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Failure> {
        match self {
            Self::Nft(nft) => nft.snapshot().map(Snapshot::Nft).map_err(|error| of_nft(&error)),
            Self::Iptables(iptables) => {
                iptables.snapshot().map(Snapshot::Iptables).map_err(|e| of_iptables(&e))
            }
        }
    }

    /// Puts the rules back as they were.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Failure> {
        match (self, snapshot) {
            (Self::Nft(nft), Snapshot::Nft(snapshot)) => {
                nft.restore(snapshot).map_err(|error| of_nft(&error))
            }
            (Self::Iptables(iptables), Snapshot::Iptables(snapshot)) => {
                iptables.restore(snapshot).map_err(|error| of_iptables(&error))
            }
            _ => Err(Failure::Message("a snapshot of another back end".to_owned())),
        }
    }

    /// What `replace` would do, as text; none if nothing.
    pub(crate) fn plan(&self, ruleset: &Ruleset) -> Result<Option<String>, Failure> {
        let (empty, script) = match self {
            Self::Nft(nft) => {
                let plan = nft.plan(ruleset).map_err(|error| of_nft(&error))?;
                (plan.is_empty(), plan.script())
            }
            Self::Iptables(iptables) => {
                let plan = iptables.plan(ruleset).map_err(|error| of_iptables(&error))?;
                (plan.is_empty(), plan.script())
            }
        };
        Ok((!empty).then_some(script))
    }

    /// Takes the rules out. Was there anything?
    pub(crate) fn remove(&mut self) -> Result<bool, Failure> {
        match self {
            Self::Nft(nft) => nft.remove().map_err(|error| of_nft(&error))?,
            Self::Iptables(iptables) => iptables.remove().map_err(|error| of_iptables(&error))?,
        }
        Ok(self.report().runs > 0)
    }

    /// The same; without the tools there can be nothing, and what is somebody else's is not ours.
    pub(crate) fn remove_if_any(&mut self) -> Result<bool, Failure> {
        use netpol_iptables::Error as Iptables;
        use netpol_nft::Error as Nft;
        let nothing = match self {
            Self::Nft(nft) => match nft.remove() {
                Err(Nft::Program(ProgramError::Missing { .. }) | Nft::Foreign { .. }) => true,
                done => done.map(|()| false).map_err(|error| of_nft(&error))?,
            },
            Self::Iptables(iptables) => match iptables.remove() {
                Err(
                    Iptables::Program(ProgramError::Missing { .. })
                    | Iptables::NoFlavor { .. }
                    | Iptables::Foreign { .. },
                ) => true,
                done => done.map(|()| false).map_err(|error| of_iptables(&error))?,
            },
        };
        Ok(!nothing && self.report().runs > 0)
    }

    pub(crate) fn report(&self) -> Report {
        match self {
            Self::Nft(nft) => {
                let report = nft.report();
                let left_over = report.left_over().map(left_over);
                let defects = report.defects().iter().map(ToString::to_string).chain(left_over);
                Report {
                    commands: report.commands(),
                    runs: report.transactions(),
                    took: report.took(),
                    defects: defects.collect(),
                }
            }
            Self::Iptables(iptables) => {
                let report = iptables.report();
                let left_over = report.left_over().map(left_over);
                let defects = report.defects().iter().map(ToString::to_string).chain(left_over);
                Report {
                    commands: report.lines(),
                    runs: report.runs(),
                    took: report.took(),
                    defects: defects.collect(),
                }
            }
        }
    }

    /// What was denied, by rule.
    pub(crate) fn denied(&self) -> Result<BTreeMap<String, Denied>, Failure> {
        match self {
            Self::Nft(nft) => nft.denied().map_err(|error| of_nft(&error)),
            Self::Iptables(iptables) => iptables.denied().map_err(|error| of_iptables(&error)),
        }
    }

    /// What was denied, by address of a local pod.
    pub(crate) fn denied_by_address(
        &self,
    ) -> Result<BTreeMap<(Direction, IpAddr), Denied>, Failure> {
        match self {
            Self::Nft(nft) => nft.denied_by_address().map_err(|error| of_nft(&error)),
            Self::Iptables(iptables) => {
                iptables.denied_by_address().map_err(|error| of_iptables(&error))
            }
        }
    }
}

fn left_over(why: &str) -> String {
    format!("what is no longer used could not be removed, and will be next time: {why}")
}

fn of_nft(error: &netpol_nft::Error) -> Failure {
    Failure::Message(format!("{error}; {}", error.hint()))
}

fn of_iptables(error: &netpol_iptables::Error) -> Failure {
    Failure::Message(format!("{error}; {}", error.hint()))
}
