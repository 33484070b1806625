//! Checks certificates of netpol's proofs.
//!
//! `netpol_verify::prove_with_certificate` writes down what it found: the rules, the packets in classes, and for each combination
//! of classes what the policies say and what the rules do. This crate believes none of it. Given the cluster, it checks
//!
//! 1. *completeness*: each address of each pod of the node, each way, both families, each guarded device is there;
//! 2. *coverage*: the classes cover all packets of the question and are disjoint;
//! 3. *rules*: each condition that a class meets holds for all of it or for none, and its fate is the stated one;
//! 4. *policies*: they say the same of all packets of a class, and what is stated;
//! 5. *agreement*: what is met is what is expected.
//!
//! It shares no code with the prover, the simulator or a renderer, and is short enough to be read in one sitting: `format.rs` is what
//! is in a certificate, `list.rs` and `class.rs` are intervals, `rules.rs` runs the rules, `policies.rs` evaluates the policies,
//! `questions.rs` says which questions there must be, `cells.rs` does the rest of the above. Whether the rules in the certificate are those of the kernel it cannot know: see the README.
#![forbid(unsafe_code)]

mod cells;
mod check;
mod class;
mod coverage;
mod defect;
mod format;
mod list;
mod listing;
mod own;
mod policies;
mod questions;
mod rules;

pub use check::{Checked, Setting, check};
pub use defect::Defect;
pub use format::{
    Certificate, Chain, Choices, FORMAT, Field, Hook, Index, Machine, Map, Program, Question, Rule,
    STATES, Set, Step, VERSION, Verdict, Way,
};
pub use list::{Interval, List};
pub use listing::{Compared, compare_listing};
