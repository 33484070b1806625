//! The rules as they are, to be put back if what comes after them is not what was wanted.

use crate::apply::Nftables;
use crate::error::{Error, Failure, explain, run};
use crate::installed::Installed;
use crate::model::TableFamily;
use std::collections::BTreeMap;

/// Our tables of one network namespace, as nft lists them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    tables: BTreeMap<TableFamily, String>,
}

impl Snapshot {
    /// Were there no rules?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

impl Nftables {
    /// The rules of this name as they are in the kernel, whoever applied them.
    ///
    /// # Errors
    ///
    /// The kernel's ruleset could not be read.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let table = self.options().table();
        let mut snapshot = Snapshot::default();
        for family in Installed::families(self.host(), table)? {
            let arguments = ["list", "table", family.as_str(), table.as_str()];
            let text = run(self.host(), &arguments, "").map_err(|failure| match failure {
                Failure::Fatal(error) => error,
                Failure::Nft(message) => Error::Listing { message },
            })?;
            snapshot.tables.insert(family, text);
        }
        Ok(snapshot)
    }

    /// Puts the rules back as they were, in one transaction; elements of counting sets begin where they were then.
    ///
    /// Everything is made anew, so that for a moment a packet can be dropped that both rulesets allow: this is for going
    /// back after a mistake, not for changing rules.
    ///
    /// # Errors
    ///
    /// nft refused them. The rules of before this call are in force then.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        self.forget();
        let table = self.options().table();
        let mut script = String::new();
        for family in Installed::families(self.host(), table)? {
            script.push_str(&format!("delete table {} {table}\n", family.as_str()));
        }
        script.extend(snapshot.tables.values().map(String::as_str));
        if script.is_empty() {
            return Ok(());
        }
        run(self.host(), &["-f", "-"], &script).map(drop).map_err(|failure| match failure {
            Failure::Fatal(error) => error,
            Failure::Nft(message) => {
                explain(&message, String::new(), String::new(), table.as_str())
            }
        })
    }
}
