//! Rulesets from texts: what tools list, from this machine or another, told apart by content.

use crate::machine::Machine;
use crate::nft;

/// A listing of a tool, and what to call it in messages.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a text and its name")]
pub struct Dump {
    /// What to call it: the file, or the command that made it.
    pub name: String,
    /// The text.
    pub text: String,
}

/// Why a text is no dump that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// The text is of no tool that is known.
    #[error(
        "`{name}` is no listing that is known: give what `nft -j list ruleset` or `nft list chains` prints"
    )]
    UnknownKind {
        /// The dump.
        name: String,
    },
    /// It looks like JSON of nft but is not.
    #[error("`{name}`: {source}")]
    Listing {
        /// The dump.
        name: String,
        /// What is wrong.
        source: nft::ListingError,
    },
    /// There are only listings that complete others.
    #[error(
        "there is no ruleset: `nft list chains` only completes what `nft -j list ruleset` prints"
    )]
    NoRuleset,
}

/// What a text is.
enum Kind {
    NftJson,
    NftChains,
}

fn kind(text: &str) -> Option<Kind> {
    let start = text.trim_start();
    if start.starts_with('{') {
        return Some(Kind::NftJson);
    }
    nft::is_chain_listing(text).then_some(Kind::NftChains)
}

/// Reads dumps, in any order, into one machine.
///
/// # Errors
///
/// If a text is of no known kind. What is not understood *in* a ruleset is in the machine.
///
/// ```
/// use netpol_verify::{Dump, read_dumps};
/// let dump = Dump { name: "node-1.json".to_owned(), text: r#"{"nftables": []}"#.to_owned() };
/// assert!(read_dumps(&[dump])?.chains.is_empty());
/// # Ok::<(), netpol_verify::DumpError>(())
/// ```
pub fn read_dumps(dumps: &[Dump]) -> Result<Machine, DumpError> {
    let mut machine = Machine::new();
    let mut chains = Vec::new();
    let mut rulesets = 0;
    for dump in dumps {
        match kind(&dump.text) {
            None => return Err(DumpError::UnknownKind { name: dump.name.clone() }),
            Some(Kind::NftJson) => {
                rulesets += 1;
                nft::read(&mut machine, &dump.name, &dump.text)
                    .map_err(|source| DumpError::Listing { name: dump.name.clone(), source })?;
            }
            Some(Kind::NftChains) => chains.push(dump),
        }
    }
    if rulesets == 0 {
        return Err(DumpError::NoRuleset);
    }
    // What `nft list chains` prints completes chains, which must be there.
    for dump in chains {
        nft::read_chain_listing(&mut machine, &dump.text);
    }
    Ok(machine)
}
