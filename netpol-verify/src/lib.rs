//! Proof that the rules in a kernel mean what Kubernetes network policies mean.
pub mod machine;
pub mod nft;
