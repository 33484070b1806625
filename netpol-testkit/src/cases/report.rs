//! What came of running cases, and how it is told.

use super::Origin;
use crate::judge::verdict;
use std::fmt;

/// What came of running cases.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub(super) cases: usize,
    pub(super) probes: usize,
    pub(super) failures: Vec<Failure>,
}

impl Report {
    /// How many cases were run.
    #[must_use]
    pub fn cases(&self) -> usize {
        self.cases
    }

    /// How many connections were asked about.
    #[must_use]
    pub fn probes(&self) -> usize {
        self.probes
    }

    /// What failed, in the order of the cases.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        let Self { cases, probes, failures } = self;
        write!(f, "{cases} cases, {probes} probes, {} failures", failures.len())
    }
}

/// Something that is not as a case expects it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    pub(super) origin: Origin,
    pub(super) step: Option<String>,
    pub(super) problem: Problem,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Problem {
    /// The case itself cannot be run.
    Broken { entry: Option<String>, message: String },
    /// Other errors are reported than expected.
    Diagnostics { expected: Vec<String>, got: Vec<String> },
    /// The opposite verdict for these connections.
    Verdict { entry: String, allowed: bool, connections: Vec<String> },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)?;
        if let Some(step) = &self.step {
            write!(f, ": {step}")?;
        }
        match &self.problem {
            Problem::Broken { entry: Some(entry), message } => write!(f, "\n  {entry}: {message}"),
            Problem::Broken { entry: None, message } => write!(f, "\n  {message}"),
            Problem::Diagnostics { expected, got } => {
                let missing = expected.iter().filter(|error| !got.contains(error));
                let surplus = got.iter().filter(|error| !expected.contains(error));
                let count = |all: &[String]| all.len();
                for error in missing {
                    write!(f, "\n  not reported: {error}")?;
                }
                for error in surplus {
                    write!(f, "\n  reported, but not expected: {error}")?;
                }
                write!(f, "\n  {} errors expected, {} reported", count(expected), count(got))
            }
            Problem::Verdict { entry, allowed, connections } => {
                let [expected, got] = [*allowed, !*allowed].map(verdict);
                write!(f, "\n  {entry}: expected {expected}, got {got}")?;
                const SHOWN: usize = 5;
                for connection in connections.iter().take(SHOWN) {
                    write!(f, "\n    {connection}")?;
                }
                match connections.len().checked_sub(SHOWN) {
                    Some(more @ 1..) => write!(f, "\n    and {more} more"),
                    _ => Ok(()),
                }
            }
        }
    }
}
