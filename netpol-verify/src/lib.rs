//! Proof that the rules in a kernel mean what Kubernetes network policies mean.
pub mod machine;
pub mod nft;
mod prove;
mod specification;

pub use prove::{Conclusion, ProofOptions, Refutation, Report, Statistics, prove};
pub use specification::{Judgement, Specification};
