//! What a proof ends with.

use crate::machine::{Fate, NotUnderstood, Packet, Path, TraceStep};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// What was found out about a ruleset.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Proved, refuted or not proved.
    pub conclusion: Conclusion,
    /// What is, or would be, proved, in one sentence.
    pub theorem: String,
    /// What it rests on.
    pub assumptions: Vec<String>,
    /// How much was looked at.
    pub statistics: Statistics,
}

/// What the proof ended with.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "it is so, it is not so, or it is not known")]
pub enum Conclusion {
    /// For every packet of the model the rules do what the policies say.
    Proved,
    /// Not so for these packets; the most telling first. Never empty.
    Refuted(Vec<Refutation>),
    /// Something was not understood, and it matters.
    NotProved {
        /// What was not understood.
        not_understood: BTreeSet<NotUnderstood>,
        /// A packet for which it matters, if it is not all of them.
        example: Option<Box<Refutation>>,
    },
}

impl Conclusion {
    /// Is it proved?
    #[must_use]
    pub fn is_proved(&self) -> bool {
        matches!(self, Self::Proved)
    }

    /// Is it refuted?
    #[must_use]
    pub fn is_refuted(&self) -> bool {
        matches!(self, Self::Refuted(_))
    }

    /// `proved`, `refuted` or `not proved`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Refuted(_) => "refuted",
            Self::NotProved { .. } => "not proved",
        }
    }
}

impl Report {
    /// Is it proved?
    #[must_use]
    pub fn is_proved(&self) -> bool {
        self.conclusion.is_proved()
    }

    /// Is it refuted?
    #[must_use]
    pub fn is_refuted(&self) -> bool {
        self.conclusion.is_refuted()
    }
}

/// A packet for which the rules do not do what the policies say.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refutation {
    /// The packet: the least of its class.
    pub packet: Packet,
    /// The way that it takes.
    pub path: Path,
    /// What becomes of it.
    pub kernel: Fate,
    /// May it pass, by the policies?
    pub allowed: bool,
    /// What the policies say, in words.
    pub reasons: Vec<String>,
    /// The rules that it met.
    pub trace: Vec<TraceStep>,
    /// Is it dropped by a rule that is not netpol's own? [`crate::ProofOptions::others_may_drop`] leaves that to others.
    pub dropped_by_others: bool,
    /// What may have gone wrong, in words.
    pub cause: String,
}

impl fmt::Display for Refutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = match self.kernel {
            Fate::Accepted => "passes",
            Fate::Dropped => "is dropped",
            Fate::Unknown => "meets what was not understood",
        };
        let word = if self.allowed { "allowed" } else { "denied" };
        writeln!(f, "packet: {} ({})", self.packet, self.path)?;
        writeln!(f, "by the policies it is {word}:")?;
        for reason in &self.reasons {
            writeln!(f, "  {reason}")?;
        }
        writeln!(f, "by the rules it {kernel}:")?;
        for step in &self.trace {
            writeln!(f, "  {step}")?;
        }
        write!(f, "probable cause: {}", self.cause)
    }
}

/// How much was looked at.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// Local pods.
    pub pods: usize,
    /// Questions: a way and a fixed address of a local pod.
    pub questions: usize,
    /// Classes of addresses, over all questions.
    pub address_classes: usize,
    /// Classes of protocol and ports, over all questions.
    pub traffic_classes: usize,
    /// Cells: combinations of classes, each compared by one packet.
    pub cells: usize,
    /// Cells in which the rules do not do what the policies say.
    pub refuted_cells: usize,
    /// Cells for which that is not known.
    pub unknown_cells: usize,
    /// Pods whose source guard is part of the theorem.
    pub guarded_pods: usize,
    /// How long it took.
    pub took: Duration,
}
