//! The ruleset of the kernel, as the kernel's tools list it.

use crate::dump::{Dump, DumpError, read_dumps};
use crate::machine::Machine;
use std::ffi::{OsStr, OsString};
use std::process::{Command, Output};

/// Why the kernel's ruleset could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// A tool could not be run.
    #[error("`{command}` could not be run: {source}")]
    Run {
        /// The command.
        command: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A tool failed.
    #[error("`{command}` failed: {message}")]
    Failed {
        /// The command.
        command: String,
        /// What it said.
        message: String,
    },
    /// The kernel has tables of iptables-legacy, which judge packets, but there is no tool that lists them.
    #[error("there are tables of iptables-legacy, and neither {tools} is installed to list them")]
    NoLegacyTool {
        /// The commands that were tried.
        tools: String,
    },
    /// What it printed is no listing.
    #[error(transparent)]
    Listing(#[from] DumpError),
}

impl LiveError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Run { .. } => "install nftables (Debian: apt-get install nftables)",
            Self::NoLegacyTool { .. } => "install iptables (Debian: apt-get install iptables)",
            Self::Failed { .. } => "run as root, or with CAP_NET_ADMIN in this network namespace",
            Self::Listing(_) => "report this version of nft, iptables or ipset",
        }
    }
}

// Not `netpol_host::Host`: what checks shares no code with what it checks.
/// Where the kernel's ruleset is read: in this network namespace, or in another. Needs CAP_NET_ADMIN there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Kernel {
    prefix: Vec<OsString>,
}

/// The tables of iptables, which iptables-nft keeps in nft under the same names.
const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

impl Kernel {
    /// The ruleset of the caller's network namespace.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The ruleset of the named network namespace, through ip-netns(8).
    #[must_use]
    pub fn in_namespace(name: impl AsRef<OsStr>) -> Self {
        Self::new().with_prefix([
            OsStr::new("ip"),
            "netns".as_ref(),
            "exec".as_ref(),
            name.as_ref(),
        ])
    }

    /// Runs the tools behind another command, such as `nsenter --net=/proc/4711/ns/net`.
    #[must_use]
    pub fn with_prefix<I: Into<OsString>>(mut self, prefix: impl IntoIterator<Item = I>) -> Self {
        self.prefix = prefix.into_iter().map(Into::into).collect();
        self
    }

    /// Everything that can judge a packet, whoever made it: what nft lists; the tables of iptables-nft as `iptables-nft-save`
    /// and those of iptables-legacy as `iptables-legacy-save` list them, if there are any; and the sets that these look up.
    ///
    /// # Errors
    ///
    /// If nft cannot be run, a tool fails, or tables of iptables-legacy are there without their tool. Where the tool for
    /// tables of iptables-nft is missing, what nft cannot say of them is not understood.
    pub fn dumps(&self) -> Result<Vec<Dump>, LiveError> {
        let ruleset = self.dump(&["nft", "-j", "list", "ruleset"])?;
        let mut saves = Vec::new();
        for (family, six) in [("ip", ""), ("ip6", "6")] {
            let has = |name: &str| {
                ruleset.text.contains(&format!("{{\"family\": \"{family}\", \"name\": \"{name}\""))
            };
            let nft = format!("ip{six}tables-nft-save");
            if TABLES.into_iter().any(has) && self.is_there(&nft) {
                saves.push(self.dump(&[&nft])?);
            }
            if self.has_legacy_tables(six)? {
                saves.push(self.legacy(six)?);
            }
        }
        // The JSON of older versions leaves the devices of chains out.
        let mut dumps = vec![ruleset, self.dump(&["nft", "list", "chains"])?];
        let looks_up = |dump: &Dump| dump.text.contains("--match-set");
        if saves.iter().any(looks_up) && self.is_there("ipset") {
            dumps.push(self.dump(&["ipset", "save"])?);
        }
        dumps.extend(saves);
        Ok(dumps)
    }

    /// What [`Kernel::dumps`] gives, as a machine.
    ///
    /// # Errors
    ///
    /// As [`Kernel::dumps`], or if a tool prints no listing.
    pub fn machine(&self) -> Result<Machine, LiveError> {
        Ok(read_dumps(&self.dumps()?)?)
    }

    /// Are there tables of iptables-legacy? Asking its own tools would make some.
    fn has_legacy_tables(&self, six: &str) -> Result<bool, LiveError> {
        let command = ["cat", &format!("/proc/net/ip{six}_tables_names")];
        let names = self.run(&command)?;
        let message = String::from_utf8_lossy(&names.stderr).trim().to_owned();
        if !names.status.success() && !message.contains("No such file") {
            return Err(LiveError::Failed { command: command.join(" "), message });
        }
        Ok(!names.stdout.is_empty())
    }

    /// What `iptables-save` of iptables-legacy lists, whatever it is called here.
    fn legacy(&self, six: &str) -> Result<Dump, LiveError> {
        let tools = [format!("ip{six}tables-legacy-save"), format!("ip{six}tables-save")];
        for tool in &tools {
            let version = self.run(&[tool, "--version"]).map(|output| output.stdout);
            let version = version.unwrap_or_default();
            let version = String::from_utf8_lossy(&version);
            if version.starts_with("ip") && !version.contains("nf_tables") {
                return self.dump(&[tool]);
            }
        }
        Err(LiveError::NoLegacyTool { tools: tools.join(" nor ") })
    }

    fn is_there(&self, tool: &str) -> bool {
        self.run(&[tool, "--version"]).is_ok_and(|output| output.status.success())
    }

    /// Runs a command, whether it succeeds or not. One that is not there fails.
    fn run(&self, words: &[&str]) -> Result<Output, LiveError> {
        let mut all =
            self.prefix.iter().map(OsString::as_os_str).chain(words.iter().map(OsStr::new));
        let mut command = Command::new(all.next().unwrap_or_default());
        // Words are compared, so they must not be translated.
        let output = command.args(all).env("LC_ALL", "C").output();
        output.map_err(|source| LiveError::Run { command: words.join(" "), source })
    }

    fn dump(&self, words: &[&str]) -> Result<Dump, LiveError> {
        let output = self.run(words)?;
        let name = words.join(" ");
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(LiveError::Failed { command: name, message });
        }
        Ok(Dump { name, text: String::from_utf8_lossy(&output.stdout).into_owned() })
    }
}
