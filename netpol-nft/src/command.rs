//! The steps of a transaction.

use crate::model::{Element, Hook, KeyType, Name, Rule, Set, TableFamily};

/// One change of the kernel's ruleset. All of a transaction happen, or none.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "encoders must handle each")]
pub enum Command {
    /// A table; refused if there is one of this name.
    CreateTable(TableFamily),
    /// A table goes, with all that is in it.
    DeleteTable(TableFamily),
    /// A set without its elements.
    AddSet(TableFamily, Name, Set),
    /// A set goes.
    DeleteSet(TableFamily, Name),
    /// A verdict map without its elements.
    AddMap(TableFamily, Name, KeyType),
    /// A verdict map goes.
    DeleteMap(TableFamily, Name),
    /// Elements come into a set.
    AddElements(TableFamily, Name, Vec<Element>),
    /// Elements go from a set or a map.
    DeleteElements(TableFamily, Name, Vec<Element>),
    /// Elements come into a map.
    AddMappings(TableFamily, Name, Vec<(Element, Name)>),
    /// A chain without its rules; a base chain if it has a hook.
    AddChain(TableFamily, Name, Option<Hook>),
    /// A rule at the end of a chain.
    AddRule(TableFamily, Name, Rule),
    /// All rules of a chain go.
    FlushChain(TableFamily, Name),
    /// A chain goes.
    DeleteChain(TableFamily, Name),
}

impl Command {
    /// The family of the table that it is about.
    #[must_use]
    pub fn family(&self) -> TableFamily {
        match self {
            Self::CreateTable(family)
            | Self::DeleteTable(family)
            | Self::AddSet(family, ..)
            | Self::DeleteSet(family, _)
            | Self::AddMap(family, ..)
            | Self::DeleteMap(family, _)
            | Self::AddElements(family, ..)
            | Self::DeleteElements(family, ..)
            | Self::AddMappings(family, ..)
            | Self::AddChain(family, ..)
            | Self::AddRule(family, ..)
            | Self::FlushChain(family, _)
            | Self::DeleteChain(family, _) => *family,
        }
    }

    /// The set, map or chain that it is about.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::CreateTable(_) | Self::DeleteTable(_) => None,
            Self::AddSet(_, name, _)
            | Self::DeleteSet(_, name)
            | Self::AddMap(_, name, _)
            | Self::DeleteMap(_, name)
            | Self::AddElements(_, name, _)
            | Self::DeleteElements(_, name, _)
            | Self::AddMappings(_, name, _)
            | Self::AddChain(_, name, _)
            | Self::AddRule(_, name, _)
            | Self::FlushChain(_, name)
            | Self::DeleteChain(_, name) => Some(name),
        }
    }
}
