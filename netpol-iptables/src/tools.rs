//! The programs: which of them there are, which implementation the host uses, and running them.

use crate::error::{Error, explain};
use crate::layout::Defect;
use crate::model::ChainName;
use crate::name::Prefix;
use crate::options::Flavor;
use netpol_core::Family;
use netpol_host::{Host, Output, ProgramError};
use std::time::Duration;

/// The commands of one implementation of iptables on a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Tools {
    pub(crate) flavor: Flavor,
    /// What stands between `iptables` and `-restore`: nothing, where there are not both.
    infix: String,
}

impl Tools {
    /// The commands of this implementation.
    pub(crate) fn of(host: &Host, flavor: Flavor) -> Result<Self, Error> {
        let infix = format!("-{}", flavor.as_str());
        let version = |infix: &str| host.run(&format!("iptables{infix}"), &["--version"], "");
        match version(&infix) {
            Ok(output) if output.success => return Ok(Self { flavor, infix }),
            Ok(_) | Err(ProgramError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match version("") {
            Ok(output) if flavor_of(&output) == Some(flavor) => {
                Ok(Self { flavor, infix: String::new() })
            }
            Ok(_) => Err(Error::NoFlavor { flavor }),
            Err(error) => Err(error.into()),
        }
    }

    /// The implementation in which a ruleset of this prefix is, else the one with more rules, else that of `iptables`; and
    /// whether both have rules.
    pub(crate) fn in_use(host: &Host, prefix: &Prefix) -> Result<(Self, Option<Defect>), Error> {
        let marker = format!(":{} ", ChainName::marker(prefix));
        let mut found: Vec<(Self, usize, bool)> = Vec::new();
        for flavor in Flavor::ALL {
            let tools = match Self::of(host, flavor) {
                Ok(tools) => tools,
                Err(Error::NoFlavor { .. } | Error::Program(ProgramError::Missing { .. })) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (mut rules, mut ours) = (0, false);
            for family in Family::ALL {
                let listing = tools.save(host, family, &[])?;
                rules += listing.lines().filter(|line| line.starts_with("-A ")).count();
                ours |= listing.lines().any(|line| line.starts_with(&marker));
            }
            found.push((tools, rules, ours));
        }
        let rules = |flavor| {
            found
                .iter()
                .find(|(tools, ..)| tools.flavor == flavor)
                .map_or(0, |(_, rules, _)| *rules)
        };
        let (legacy, nft) = (rules(Flavor::Legacy), rules(Flavor::Nft));
        let both = (legacy > 0 && nft > 0).then_some(Defect::BothFlavors { legacy, nft });
        let ours = found.iter().position(|(.., ours)| *ours);
        let chosen = match ours {
            Some(ours) => Some(ours),
            None if legacy.max(nft) > 0 => {
                found.iter().position(|(_, rules, _)| *rules == legacy.max(nft))
            }
            None => {
                let output = host.run("iptables", &["--version"], "")?;
                let plain = flavor_of(&output);
                found.iter().position(|(tools, ..)| Some(tools.flavor) == plain).or(Some(0))
            }
        };
        match chosen.and_then(|chosen| found.into_iter().nth(chosen)) {
            Some((tools, ..)) => Ok((tools, both)),
            None => Err(Error::NoFlavor { flavor: Flavor::Legacy }),
        }
    }

    fn command(&self, family: Family, what: &str) -> String {
        let six = match family {
            Family::V4 => "",
            Family::V6 => "6",
        };
        format!("ip{six}tables{}{what}", self.infix)
    }

    /// What `iptables-save` lists: all tables that there are, so that none is made by looking.
    pub(crate) fn save(&self, host: &Host, family: Family, more: &[&str]) -> Result<String, Error> {
        let program = self.command(family, "-save");
        let output = host.run(&program, more, "")?;
        // iptables-nft lists what it can and warns of tables that it does not understand.
        let incompatible = output.stderr.contains("is incompatible");
        if output.success && !incompatible {
            return Ok(output.stdout);
        }
        if output.stderr.contains("ermission") || output.stderr.contains("must be root") {
            return Err(Error::Permission);
        }
        let message = output.stderr.lines().next().unwrap_or_default().to_owned();
        Err(Error::Listing { program, message })
    }

    /// The name of the program that changes rules of a family.
    pub(crate) fn restore_program(&self, family: Family) -> String {
        self.command(family, "-restore")
    }

    /// `iptables-restore --noflush`.
    pub(crate) fn restore(
        &self,
        host: &Host,
        family: Family,
        text: &str,
        wait: Duration,
    ) -> Result<Output, Error> {
        let seconds = wait.as_secs().max(1).to_string();
        let arguments = ["--noflush", "-w", seconds.as_str()];
        Ok(host.run(&self.restore_program(family), &arguments, text)?)
    }

    /// Any other command of iptables.
    pub(crate) fn run(
        &self,
        host: &Host,
        family: Family,
        arguments: &[&str],
    ) -> Result<Output, Error> {
        Ok(host.run(&self.command(family, ""), arguments, "")?)
    }
}

fn flavor_of(version: &Output) -> Option<Flavor> {
    match version.stdout.as_str() {
        text if text.contains("(nf_tables)") => Some(Flavor::Nft),
        text if text.contains("iptables") => Some(Flavor::Legacy),
        _ => None,
    }
}

/// What `ipset save` lists.
pub(crate) fn ipset_save(host: &Host) -> Result<String, Error> {
    let output = host.run("ipset", &["save"], "")?;
    if output.success {
        return Ok(output.stdout);
    }
    Err(match explain("ipset", &output.stderr, "", String::new(), Duration::ZERO) {
        Error::Refused { message, .. } => Error::Listing { program: "ipset".to_owned(), message },
        error => error,
    })
}
