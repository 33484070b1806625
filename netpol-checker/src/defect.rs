//! What can be wrong with a certificate.

use std::fmt;

/// What is wrong with a certificate: the first defect that was found.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Defect {
    /// It is no certificate of this version, or contradicts itself.
    Malformed(String),
    /// It is about something else: another node, other options, other devices, other tables.
    OtherSetting(String),
    /// Nothing would be checked: no pod of the node has an address.
    Nothing,
    /// A question that has to be there is not.
    Missing(String),
    /// A question that nothing asks for.
    Superfluous(String),
    /// The classes of a question do not cover its packets, or overlap.
    Coverage {
        /// Where.
        question: String,
        /// What is wrong.
        what: String,
    },
    /// The rules treat some packets of a class otherwise than the rest.
    RulesNotConstant {
        /// Which class.
        cell: String,
        /// The rule.
        place: String,
    },
    /// The policies say of some packets of a class what they do not say of the rest.
    PoliciesNotConstant {
        /// Which class.
        cell: String,
        /// What tells them apart.
        what: String,
    },
    /// The rules do not do what the certificate states.
    Rules {
        /// Which class.
        cell: String,
        /// What is stated: `p`, `d` or `?`, as in [`crate::Certificate::rows`].
        stated: char,
        /// What was found.
        found: char,
    },
    /// The policies do not say what the certificate states.
    Policies {
        /// Which class.
        cell: String,
        /// What is stated: `p`, `d` or `*`, as in [`crate::Certificate::rows`].
        stated: char,
        /// What was found.
        found: char,
    },
    /// It is no proof: the rules do not do what the policies say, and the certificate says so itself. All else is right.
    Refuted {
        /// Which class.
        cell: String,
        /// What the policies say.
        expected: char,
        /// What the rules do.
        met: char,
    },
    /// Its rules are not those of a listing ([`crate::compare_listing`]).
    OtherRules(String),
    /// It is no proof: something was not understood that may concern any packet.
    NotUnderstood(String),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed: {what}"),
            Self::OtherSetting(what) => write!(f, "about something else: {what}"),
            Self::Nothing => {
                f.write_str("no pod of this node has an address, so nothing is proved")
            }
            Self::Missing(question) => write!(f, "missing: {question}"),
            Self::Superfluous(question) => write!(f, "nothing asks for: {question}"),
            Self::Coverage { question, what } => write!(f, "{question}: {what}"),
            Self::RulesNotConstant { cell, place } => write!(f, "{cell}: not constant: {place}"),
            Self::PoliciesNotConstant { cell, what } => write!(f, "{cell}: not constant: {what}"),
            Self::Rules { cell, stated, found } => {
                write!(f, "{cell}: by the rules `{stated}` is stated, `{found}` was found")
            }
            Self::Policies { cell, stated, found } => {
                write!(f, "{cell}: by the policies `{stated}` is stated, `{found}` was found")
            }
            Self::Refuted { cell, expected, met } => {
                write!(f, "{cell}: refuted: `{expected}` is expected, `{met}` is met")
            }
            Self::OtherRules(what) => write!(f, "not the rules of the listing: {what}"),
            Self::NotUnderstood(what) => write!(f, "not understood: {what}"),
        }
    }
}

impl std::error::Error for Defect {}
