//! What can go wrong, in words that help.

use crate::options::Flavor;
use netpol_host::ProgramError;
use std::time::Duration;

/// Why the kernel's rules could not be read or changed. What was enforced before still is, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is not there or could not be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The process may not change the rules of this network namespace.
    #[error("no permission to change the rules of this network namespace")]
    Permission,
    /// The wanted one of the two implementations is not installed.
    #[error("{flavor} is not installed")]
    NoFlavor {
        /// Which one.
        flavor: Flavor,
    },
    /// Somebody else holds the lock of iptables-legacy.
    #[error("another program holds the lock of iptables (waited {waited:?})")]
    Locked {
        /// How long it was waited for.
        waited: Duration,
    },
    /// There is a chain or a set of one of our names that netpol did not make.
    #[error("`{name}` was not made by netpol")]
    Foreign {
        /// Where it is, and its name.
        name: String,
    },
    /// The ruleset is more than the kernel takes.
    #[error("the ruleset exceeds a limit of the kernel{}: {message}", of(.policies))]
    Limit {
        /// What the tool said.
        message: String,
        /// The policies that the failing line is for, if it is for any.
        policies: String,
    },
    /// The kernel, or this iptables, does not know something that is needed.
    #[error("this kernel or these tools lack something{}: {message}", of(.policies))]
    Unsupported {
        /// What the tool said.
        message: String,
        /// The policies that the failing line is for, if it is for any.
        policies: String,
    },
    /// The tool refused for another reason.
    #[error("{program} refused the rules{}: {message}", of(.policies))]
    Refused {
        /// Which one.
        program: String,
        /// What it said.
        message: String,
        /// The line that failed, if that is known.
        line: String,
        /// The policies that the failing line is for, if it is for any.
        policies: String,
    },
    /// What a tool lists is not understood, or it cannot list.
    #[error("the listing of {program} was not understood: {message}")]
    Listing {
        /// Which one.
        program: String,
        /// What was not understood.
        message: String,
    },
    /// A change was to be made to rules that another process had installed.
    #[error(
        "the installed rules were not applied by this process, so changes to them mean nothing"
    )]
    Baseless,
    /// There is something in force that the ruleset at hand does not explain.
    #[error("`{name}` is installed but belongs to another ruleset")]
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
            Self::Program(ProgramError::Missing { program }) if program.contains("ipset") => {
                "install ipset (Debian: apt-get install ipset)"
            }
            Self::Program(ProgramError::Missing { .. }) | Self::NoFlavor { .. } => {
                "install iptables (Debian: apt-get install iptables)"
            }
            Self::Program(_) => "check that the program can be executed",
            Self::Permission => "run as root, or with CAP_NET_ADMIN in this network namespace",
            Self::Locked { .. } => "try again: nothing is lost, and the next attempt finishes it",
            Self::Foreign { .. } => "choose another prefix, or delete it yourself",
            Self::Limit { .. } => "fewer or smaller policies for the pods of this node",
            Self::Unsupported { .. } => {
                "iptables 1.8, ipset 7 and a kernel with xt_set, ip_set_hash_ip, _ipport, _net and _netiface are needed"
            }
            Self::Refused { .. } => {
                "report this ruleset: netpol renders what iptables should accept"
            }
            Self::Listing { .. } => {
                "iptables-nft cannot list a table with rules that other programs made with nft; else report these versions"
            }
            Self::Baseless => "replace the ruleset first",
            Self::Unrecognized { .. } => "apply the ruleset first",
        }
    }
}

impl Error {
    /// Is it about what was to be made, not about who makes it and when?
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Limit { .. } | Self::Unsupported { .. } | Self::Refused { .. })
    }
}

/// The line of its input that a message of ipset or iptables-restore is about, from 0.
pub(crate) fn line_of(message: &str) -> Option<usize> {
    // "Error occurred at line: 7", "line 7: RULE_APPEND failed (...)", "iptables-restore: line 7 failed",
    // "Error in line 7: ..."
    let numbers = message.match_indices("line").filter_map(|(at, word)| {
        let rest = message.get(at + word.len()..)?.trim_start_matches([':', ' ']);
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end)?.parse::<usize>().ok()
    });
    numbers.last()?.checked_sub(1)
}

/// The error for what a program said about a line for these policies.
pub(crate) fn explain(
    program: &str,
    message: &str,
    line: &str,
    policies: String,
    waited: Duration,
) -> Error {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let lines = || message.lines().map(str::trim).filter(|line| !line.is_empty());
    let about = |line: &&str| !line.starts_with("Error occurred") && !line.starts_with("Try `");
    let short = lines().find(about).or_else(|| lines().next()).unwrap_or_default().to_owned();
    if says(&["xtables lock"]) {
        return Error::Locked { waited };
    }
    if says(&["you must be root", "Operation not permitted", "Permission denied"]) {
        return Error::Permission;
    }
    if says(&[
        "is full",
        "Cannot allocate memory",
        "Too many links",
        "Message too long",
        "No buffer space",
        "maximal number of sets",
    ]) {
        return Error::Limit { message: short, policies };
    }
    if says(&[
        "Couldn't load match",
        "Couldn't load target",
        "No chain/target/match by that name",
        "missing kernel module",
        "Protocol not supported",
        "set type not supported",
        "can't initialize ip",
        "unknown option",
        "unrecognized option",
    ]) {
        return Error::Unsupported { message: short, policies };
    }
    Error::Refused { program: program.to_owned(), message: short, line: line.to_owned(), policies }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_lead_to_lines() {
        for message in [
            "iptables-restore v1.8.9 (legacy): Set x doesn't exist.\n\nError occurred at line: 7\nTry `iptables-restore -h'",
            "iptables-nft-restore v1.8.9 (nf_tables): \nline 7: RULE_APPEND failed (Invalid argument): rule in chain X",
            "iptables-restore: line 7 failed",
            "ipset v7.17: Error in line 7: Set cannot be created: set with the same name already exists",
        ] {
            assert_eq!(line_of(message), Some(6), "{message}");
        }
        assert_eq!(line_of("Another app is currently holding the xtables lock"), None);
    }
}
