//! Which rules are netpol's own, and a ruleset without the others.

use super::{Chain, ChainIndex, Machine, Rule, Step, Table, TableKind, Verdict};

/// Which rules are netpol's own. Without a name for either, all are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Own {
    /// The name of its tables in nft.
    pub table: Option<String>,
    /// What the names of its chains in iptables begin with, before a `-`.
    pub chains: Option<String>,
}

impl Own {
    /// The tables of nft that are called this.
    #[must_use]
    pub fn with_table(mut self, name: impl Into<String>) -> Self {
        self.table = Some(name.into());
        self
    }

    /// The chains of iptables whose names begin with this and a `-`.
    #[must_use]
    pub fn with_chains(mut self, prefix: impl Into<String>) -> Self {
        self.chains = Some(prefix.into());
        self
    }

    /// Are all rules netpol's own?
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Is a chain of this name in a table of this kind netpol's own?
    #[must_use]
    pub fn has(&self, table: &Table, chain: &str) -> bool {
        if self.is_everything() {
            return true;
        }
        match (table.kind, &self.table, &self.chains) {
            (TableKind::Nft, Some(name), _) => table.name == *name,
            (TableKind::IptablesLegacy | TableKind::IptablesNft, _, Some(prefix)) => {
                chain.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('-'))
            }
            _ => false,
        }
    }

    /// In words.
    #[must_use]
    pub fn describe(&self) -> String {
        let tables = self.table.iter().map(|name| format!("the tables `{name}`"));
        let chains =
            self.chains.iter().map(|prefix| format!("the chains `{prefix}-...` of iptables"));
        tables.chain(chains).collect::<Vec<_>>().join(" and ")
    }
}

impl Machine {
    /// The ruleset with nothing but what is netpol's own: its tables of nft, and of iptables its chains with the rules of
    /// base chains that lead to them. All other base chains are called no more, and none drops at its end. Chains have the
    /// same indices.
    #[must_use]
    pub fn only(&self, own: &Own) -> Self {
        let mut only = self.clone();
        if own.is_everything() {
            return only;
        }
        for (chain, of) in only.chains.iter_mut().zip(&self.chains) {
            let Some(table) = self.tables.get(of.table) else { continue };
            match (table.kind, chain.hook.as_mut()) {
                (TableKind::Nft, _) if !own.has(table, &chain.name) => chain.hook = None,
                (TableKind::Nft, _) | (_, None) => {}
                (_, Some(hook)) => {
                    hook.drops = false;
                    chain.rules.retain(|rule| self.leads_to_own(rule, own));
                    if chain.rules.is_empty() {
                        chain.hook = None;
                    }
                }
            }
        }
        only
    }

    /// Do rules of iptables lead to chains that are netpol's own?
    #[must_use]
    pub fn has_own_chains(&self, own: &Own) -> bool {
        own.chains.is_some()
            && self
                .chains
                .iter()
                .filter(|chain| self.is_base_of_iptables(chain))
                .any(|chain| chain.rules.iter().any(|rule| self.leads_to_own(rule, own)))
    }

    pub(crate) fn is_base_of_iptables(&self, chain: &Chain) -> bool {
        let table = self.tables.get(chain.table);
        chain.hook.is_some() && table.is_some_and(|table| table.kind != TableKind::Nft)
    }

    pub(crate) fn leads_to_own(&self, rule: &Rule, own: &Own) -> bool {
        let is_own = |chain: ChainIndex| {
            let chain = self.chain(chain);
            let table = chain.and_then(|chain| self.tables.get(chain.table));
            chain.zip(table).is_some_and(|(chain, table)| own.has(table, &chain.name))
        };
        rule.steps.iter().any(|step| match step {
            Step::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => is_own(*chain),
            _ => false,
        })
    }
}
