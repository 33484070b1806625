//! Running `nft`, and what can go wrong with it.

use netpol_host::{Host, ProgramError};

/// Why the kernel's ruleset could not be read or changed. What was enforced before still is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// nft is not there or could not be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The process may not change the ruleset of this network namespace.
    #[error("no permission to change the ruleset of this network namespace")]
    Permission,
    /// Another process owns the table and lets nobody else change it.
    #[error("the table `{table}` is owned by another process")]
    Owned {
        /// Family and name.
        table: String,
    },
    /// There is a table of this name that netpol did not make.
    #[error("the table `{table}` was not made by netpol")]
    Foreign {
        /// Family and name.
        table: String,
    },
    /// The ruleset is more than the kernel takes.
    #[error("the ruleset exceeds a limit of the kernel: {message}")]
    Limit {
        /// What nft said.
        message: String,
        /// The policies that the failing line is for, if it is for any.
        policies: String,
    },
    /// The kernel, or this nft, does not know something that is needed.
    #[error("this kernel or this nft is too old: {message}")]
    TooOld {
        /// What nft said.
        message: String,
    },
    /// The kernel refused the transaction for another reason.
    #[error("nft refused the ruleset{}: {message}", of(.policies))]
    Refused {
        /// What nft said.
        message: String,
        /// The command that failed, if that is known.
        command: String,
        /// The policies that the failing line is for, if it is for any.
        policies: String,
    },
    /// What nft lists is not understood.
    #[error("the listing of nft was not understood: {message}")]
    Listing {
        /// What was not understood.
        message: String,
    },
    /// A change was to be made to rules that another process had installed.
    #[error(
        "the installed rules were not applied by this process, so changes to them mean nothing"
    )]
    Baseless,
    /// There is something in our table whose name this version does not read.
    #[error("`{name}` is installed but is of another layout")]
    Unrecognized {
        /// The name of a set or a chain.
        name: String,
    },
}

fn of(policies: &str) -> String {
    if policies.is_empty() { String::new() } else { format!(" of {policies}") }
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Program(ProgramError::Missing { .. }) => {
                "install nftables (Debian: apt-get install nftables)"
            }
            Self::Program(_) => "check that the program can be executed",
            Self::Permission => "run as root, or with CAP_NET_ADMIN in this network namespace",
            Self::Owned { .. } => "stop the process that owns it, or choose another table name",
            Self::Foreign { .. } => "choose another table name, or delete that table yourself",
            Self::Limit { .. } => "fewer or smaller policies for the pods of this node",
            Self::TooOld { .. } => "nft 1.0.6 and Linux 5.10 or later are needed",
            Self::Refused { .. } => "report this ruleset: netpol renders what nft should accept",
            Self::Listing { .. } => "report this version of nft",
            Self::Baseless => "replace the ruleset first",
            Self::Unrecognized { .. } => "apply again: what another version installed is replaced",
        }
    }
}

/// The output of nft, or its error output as [`Failure::Nft`].
pub(crate) fn run(host: &Host, arguments: &[&str], input: &str) -> Result<String, Failure> {
    let output = host.run("nft", arguments, input).map_err(|error| Failure::Fatal(error.into()))?;
    if output.success { Ok(output.stdout) } else { Err(Failure::Nft(output.stderr)) }
}

/// What one run of nft can end with.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It did not come to a word of nft.
    Fatal(Error),
    /// nft said this.
    Nft(String),
}

/// The line of the script that a message of nft is about, from 0: `/dev/stdin:12:5-20: Error: ...`.
pub(crate) fn line_of(message: &str) -> Option<usize> {
    let place = message.lines().find_map(|line| line.split_once("stdin:"))?.1;
    place.split(':').next()?.parse::<usize>().ok()?.checked_sub(1)
}

/// The error for what nft said about a command for these policies.
pub(crate) fn explain(message: &str, command: String, policies: String, table: &str) -> Error {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let first = message.lines().next().unwrap_or_default().trim();
    let short = first.split_once("Error: ").map_or(first, |(_, text)| text).to_owned();
    if let Some(table) = command.strip_prefix("create table ").filter(|_| says(&["File exists"])) {
        return Error::Foreign { table: table.to_owned() };
    }
    if says(&["Operation not permitted", "must be root"]) {
        return Error::Owned { table: table.to_owned() };
    }
    if says(&[
        "Too many open files",
        "Too many links",
        "Message too long",
        "Numerical result out of range",
        "Cannot allocate memory",
        "No buffer space",
        "No space left",
        "Value too large",
        "File name too long",
    ]) {
        return Error::Limit { message: short, policies };
    }
    if says(&["syntax error", "Operation not supported", "Protocol not supported"]) {
        return Error::TooOld { message: short };
    }
    Error::Refused { message: short, command, policies }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_lead_to_lines() {
        let message = "/dev/stdin:2:34-40: Error: No such file or directory\nadd rule\n     ^^^";
        assert_eq!(line_of(message), Some(1));
        assert_eq!(line_of("netlink: Error: cache initialization failed"), None);
    }
}
