//! Proof that the rules in a kernel mean what Kubernetes network policies mean.
//!
//! A ruleset is read back as the kernel's tools list it, turned into a rule machine, and compared with the policies for every
//! packet: it is *proved*, or *refuted* by a concrete packet, or *not proved*, because something that matters was not
//! understood. Nothing here is shared with the compiler or the renderers, and the listing may come from any machine.
//!
//! | to | use |
//! |---|---|
//! | read a ruleset | [`Kernel`] of this machine; [`read_dumps`] of texts; [`nft::read`], [`iptables::read`] |
//! | say what should be enforced | [`Specification`]: a cluster, a node, the options |
//! | prove it | [`prove`], [`Report`] |
//! | write a proof down, so that `netpol-checker` can check it | [`prove_with_certificate`] |
//! | see what changed since a dump was taken, and what of it matters | [`changes`], [`blame`] |
//! | follow one packet | [`machine::Machine::run`], [`Specification::judge`] |
//!
//! ```
//! use netpol_core::{Cluster, Labels, Options, Pod, PodId, Policy, Selector};
//! use netpol_verify::{Conclusion, Dump, ProofOptions, Specification, prove, read_dumps};
//!
//! let mut cluster = Cluster::new();
//! let web = Pod::new(PodId::new("shop", "web"), Labels::new());
//! cluster.insert_pod(web.with_addresses(["10.0.0.7".parse()?]));
//! cluster.insert_policy(Policy::network_policy("shop", "deny", Selector::everything(), Some(vec![]), None));
//!
//! let text = r#"{"nftables": [
//!   {"table": {"family": "ip", "name": "netpol"}},
//!   {"chain": {"family": "ip", "table": "netpol", "name": "f", "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}},
//!   {"rule": {"family": "ip", "table": "netpol", "chain": "f", "expr": [
//!     {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}]}},
//!   {"rule": {"family": "ip", "table": "netpol", "chain": "f", "expr": [
//!     {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.0.0.7"}}, {"accept": null}]}},
//!   {"rule": {"family": "ip", "table": "netpol", "chain": "f", "expr": [
//!     {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "10.0.0.7"}}, {"drop": null}]}}
//! ]}"#;
//! let machine = read_dumps(&[Dump { name: "node-1.json".to_owned(), text: text.to_owned() }])?;
//! let specification = Specification::new(&cluster, None, Options::default());
//! let report = prove(&machine, &specification, &ProofOptions::default());
//! assert!(report.is_proved());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "bdd")]
pub mod bdd;
mod certificate;
mod drift;
mod dump;
pub mod ipset;
pub mod iptables;
mod lines;
mod live;
pub mod machine;
pub mod nft;
mod prove;
mod specification;
mod untracked;

pub use drift::{Blame, Change, ChangeKind, blame, changes};
pub use dump::{Dump, DumpError, read_dumps};
pub use live::{Kernel, LiveError};
pub use prove::{
    Conclusion, ProofOptions, Refutation, Report, Statistics, prove, prove_with_certificate,
};
pub use specification::{Judgement, Specification};
