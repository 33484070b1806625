//! Strategies, semantic cases and laws with which any netpol back end can be tested.
//!
//! * [`strategies`]: clusters, connections and edits for proptest, small and full of interactions.
//! * [`agrees`]: does what is tested agree with the specification on such a sample?
//! * [`small_world`]: clusters with so few addresses and ports that [`enumeration`] can try every packet.
//! * [`mutation`]: changes of rulesets in such a world.
//! * [`rendered`]: rulesets of back ends as the kernel would list them.
//! * [`cases`]: the case files of this project, which say what each rule of the semantics means.
//! * [`features`]: which parts of the semantics a sample exercises.
//! * [`fuzz`]: entry points for fuzzing everything that reads text.
//! * [`samples`]: clusters made by hand that use everything, and odd ones.
//! * [`scale`]: clusters of any size, for measuring.
//!
//! What is tested is a [`Judge`].
pub mod cases;
pub mod enumeration;
mod features;
pub mod fuzz;
mod judge;
pub mod mutation;
pub mod rendered;
pub mod samples;
pub mod scale;
pub mod small_world;
pub mod strategies;

pub use features::{FEATURES, features};
pub use judge::{Disagreement, Judge, Reference, agrees};

/// The examples of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
