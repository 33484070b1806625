//! The rules as they are, to be put back if what comes after them is not what was wanted.

use crate::apply::Iptables;
use crate::error::{Error, explain};
use crate::installed::{Installed, InstalledSet, InstalledTable, Tables};
use crate::model::{SetName, TableName};
use crate::text;
use crate::tools::Tools;
use netpol_core::Family;
use netpol_host::Output;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Our chains, jumps and sets of one network namespace, in both implementations of iptables.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// Whose tables are not the other ones.
    tools: Tools,
    installed: Installed,
}

impl Snapshot {
    /// Were there no rules?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.installed.tables.is_empty() && self.installed.other.is_empty()
    }
}

impl Iptables {
    /// The rules of this prefix as they are in the kernel, whoever applied them.
    ///
    /// # Errors
    ///
    /// The kernel's rules could not be read.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let tools = self.tools()?;
        Ok(Snapshot { installed: self.read(&tools)?, tools })
    }

    /// Puts the rules back as they were: sets, then chains and jumps of a family in one step, then what was not there then is
    /// deleted. Our jumps come first in their chains, also where somebody had put a rule before them.
    ///
    /// # Errors
    ///
    /// A program refused it. What was done until then stays; [`Backend::replace`](netpol_core::Backend::replace) puts it right.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        // Which implementation is in use may have changed since.
        let tools = snapshot.tools.clone();
        let now = self.read(&tools)?;
        self.forget();
        let then = &snapshot.installed;
        self.done("ipset", |iptables| {
            Ok(iptables.host().run("ipset", &["restore"], &sets(&then.sets, &now.sets))?)
        })?;
        let other = Tools::of(self.host(), tools.flavor.other()).ok();
        let parts = [(Some(tools), &then.tables, &now.tables), (other, &then.other, &now.other)];
        for (tools, then, now) in parts {
            let Some(tools) = tools else { continue };
            for family in Family::ALL {
                let (rules, rest) = chains(then, now, family);
                let wait = self.options().lock_wait();
                if !rules.is_empty() {
                    let program = tools.restore_program(family);
                    self.done(&program, |iptables| {
                        tools.restore(iptables.host(), family, &rules, wait)
                    })?;
                }
                // What somebody else refers to cannot be deleted; it is empty.
                if !rest.is_empty() {
                    let _ = tools.restore(self.host(), family, &rest, wait)?;
                }
            }
        }
        for name in now.sets.keys().filter(|name| !then.sets.contains_key(*name)) {
            // The same for sets.
            let _ = self.host().run("ipset", &["destroy", name.as_str()], "")?;
        }
        Ok(())
    }

    fn done(
        &self,
        program: &str,
        run: impl FnOnce(&Self) -> Result<Output, Error>,
    ) -> Result<(), Error> {
        let output = run(self)?;
        if output.success {
            return Ok(());
        }
        let wait = self.options().lock_wait();
        Err(explain(program, &output.stderr, "", String::new(), wait))
    }
}

type Sets = BTreeMap<SetName, InstalledSet>;

/// Text for `ipset restore`: each set in a spare one, which then takes its place.
fn sets(then: &Sets, now: &Sets) -> String {
    let mut script = String::new();
    for (name, set) in then.iter().filter(|(name, set)| now.get(*name) != Some(*set)) {
        let spare = name.spare();
        let _ = writeln!(script, "{} -exist\nflush {spare}", create(&spare, set));
        for element in &set.elements {
            let _ = writeln!(script, "add {spare} {element}");
        }
        let _ = writeln!(script, "{} -exist", create(name, set));
        let _ = writeln!(script, "swap {spare} {name}\ndestroy {spare}");
    }
    script
}

fn create(name: &SetName, set: &InstalledSet) -> String {
    text::create_set(name, set.kind, set.family, set.capacity, set.counters)
}

/// Two texts for `iptables-restore --noflush`: our chains and jumps as they were; and the end of what was not there.
fn chains(then: &Tables, now: &Tables, family: Family) -> (String, String) {
    let (mut rules, mut rest) = (String::new(), String::new());
    let none = InstalledTable::default();
    for name in TableName::ALL {
        let key = (family, name);
        let (then, now) = (then.get(&key).unwrap_or(&none), now.get(&key).unwrap_or(&none));
        if then == now {
            continue;
        }
        let all: BTreeSet<_> = then.chains.keys().chain(now.chains.keys()).collect();
        let _ = writeln!(rules, "*{name}");
        for chain in &all {
            let _ = writeln!(rules, "{}", text::declare(chain));
        }
        for words in then.chains.values().flatten() {
            let _ = writeln!(rules, "{}", line(words));
        }
        for (builtin, jumps) in &now.jumps {
            for (_, words) in jumps {
                let rule = words.get(2..).unwrap_or_default();
                let _ = writeln!(rules, "-D {} {}", builtin.as_str(), line(rule));
            }
        }
        for (builtin, jumps) in &then.jumps {
            for (_, words) in jumps.iter().rev() {
                let rule = words.get(2..).unwrap_or_default();
                let _ = writeln!(rules, "-I {} 1 {}", builtin.as_str(), line(rule));
            }
        }
        rules.push_str("COMMIT\n");
        let gone: Vec<_> = all.iter().filter(|chain| !then.chains.contains_key(**chain)).collect();
        if !gone.is_empty() {
            let _ = writeln!(rest, "*{name}");
            for chain in gone {
                let _ = writeln!(rest, "-X {chain}");
            }
            rest.push_str("COMMIT\n");
        }
    }
    (rules, rest)
}

/// Words as a line, quoted where that is needed.
fn line<W: AsRef<[String]> + ?Sized>(words: &W) -> String {
    let quoted = |word: &String| {
        let plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\\' | '\'');
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
        }
    };
    let words: Vec<String> = words.as_ref().iter().map(quoted).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installed::words;

    #[test]
    fn lines_are_words_again() {
        for text in [
            r#"-A NP-x -m comment --comment "shop/p \"q\" ingress[0]" -j DROP"#,
            r#"-A NP-x -j NFLOG --nflog-prefix "a\\b" --nflog-group 3"#,
        ] {
            let all = words(text);
            assert_eq!(words(&line(&all)), all);
            assert_eq!(line(&all), text);
        }
    }
}
