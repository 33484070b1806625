//! The ruleset of the kernel, as the kernel's tools list it.

use crate::dump::{Dump, DumpError, read_dumps};
use crate::machine::Machine;
use std::ffi::{OsStr, OsString};
use std::process::Command;

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
            Self::Failed { .. } => "run as root, or with CAP_NET_ADMIN in this network namespace",
            Self::Listing(_) => "report this version of nft",
        }
    }
}

// Not `netpol_host::Host`: what checks shares no code with what it checks.
/// Where the kernel's ruleset is read: in this network namespace, or in another. Needs CAP_NET_ADMIN there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Kernel {
    prefix: Vec<OsString>,
}

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

    /// What nft lists: all tables, whoever made them.
    ///
    /// # Errors
    ///
    /// If nft cannot be run or fails.
    pub fn nft_dumps(&self) -> Result<Vec<Dump>, LiveError> {
        // The JSON of older versions leaves the devices of chains out.
        Ok(vec![
            self.dump(&["nft", "-j", "list", "ruleset"])?,
            self.dump(&["nft", "list", "chains"])?,
        ])
    }

    /// What nft lists, as a machine.
    ///
    /// # Errors
    ///
    /// If nft cannot be run, fails, or prints no listing.
    pub fn nft(&self) -> Result<Machine, LiveError> {
        Ok(read_dumps(&self.nft_dumps()?)?)
    }

    fn dump(&self, words: &[&str]) -> Result<Dump, LiveError> {
        let name = words.join(" ");
        let mut all =
            self.prefix.iter().map(OsString::as_os_str).chain(words.iter().map(OsStr::new));
        let mut command = Command::new(all.next().unwrap_or_default());
        // Words are compared, so they must not be translated.
        let output = command.args(all).env("LC_ALL", "C").output();
        let output = output.map_err(|source| LiveError::Run { command: name.clone(), source })?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(LiveError::Failed { command: name, message });
        }
        Ok(Dump { name, text: String::from_utf8_lossy(&output.stdout).into_owned() })
    }
}
