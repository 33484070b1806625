//! The semantic cases: files that say what Kubernetes network policy means, and the runner that asks a [`Judge`](crate::Judge).
//!
//! The format is described beside the files, in `cases/README.md`. A case is read strictly: an unknown key, a probe that
//! cannot be parsed or covers nothing, a deletion of what is not there are errors of the case, so that no case passes
//! because it says less than it seems to. The files are YAML 1.2: `y`, `no` and `on` are text there, and so they reach
//! the reader of manifests.

mod document;
mod files;
mod objects;
mod probe;
mod report;
mod runner;

pub use files::{LoadError, load, load_dir, parse};
pub use report::{Failure, Report};
pub use runner::{Reader, run, run_with};

use netpol_core::{Established, Options};
use netpol_k8s::api::v1beta1::Meaning;
use objects::Objects;
use probe::Probe;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One case of one file.
#[derive(Clone, Debug)]
pub struct Case {
    origin: Origin,
    also: Vec<String>,
    established: Established,
    v1beta1_as: Meaning,
    objects: Objects,
    steps: Vec<Step>,
}

/// Where a case stands and what it is called.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Origin {
    file: Arc<str>,
    line: usize,
    case: String,
    title: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.case, self.title)
    }
}

#[derive(Clone, Debug)]
struct Step {
    /// Number and title; none for a case without steps.
    name: Option<String>,
    delete: Vec<String>,
    apply: Vec<Value>,
    label: Labels,
    diagnostics: Vec<String>,
    expect: Vec<Expectation>,
}

type Labels = BTreeMap<String, BTreeMap<String, Option<String>>>;

#[derive(Clone, Debug)]
struct Expectation {
    text: String,
    probe: Probe,
    allowed: bool,
}

impl Case {
    /// The file that it stands in.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.origin.file
    }

    /// The line of the file on which it begins, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.origin.line
    }

    /// The rules that it shows, the most important one first.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.origin.case).chain(&self.also).map(String::as_str)
    }

    /// What it shows, in words.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.origin.title
    }

    /// The options under which it holds.
    #[must_use]
    pub fn options(&self) -> Options {
        Options::default().with_established(self.established)
    }

    /// How many steps it has, at least 1.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps.len()
    }
}
