//! Clusters, connections and edits for property tests with proptest.
//!
//! Every vocabulary is small, so that what is drawn meets: labels are selected, addresses collide, blocks end between
//! pods, names of ports mean several numbers. What depends on another draw (a connection on the cluster, an edit on
//! what is there to edit) is drawn as a *seed* and resolved afterwards, so that both parts shrink on their own.
//!
//! Two things are never drawn, because no packet has them: addresses of different families at the two ends, and
//! TCP, UDP, SCTP or ICMPv6 as [`Traffic::Other`](netpol_sim::Traffic::Other).

pub mod admin;
mod cluster;
mod connection;
mod edit;
mod interesting;
mod label;
pub mod legacy;
mod policy;
mod vocabulary;

pub use cluster::{clusters, namespaces, nodes, pods};
pub use connection::{ConnectionSeed, clusters_with_connections, connection_seeds};
pub use edit::{Edit, EditSeed, clusters_with_edits, edit_seeds};
pub use interesting::{interesting_addresses, interesting_ports};
pub use label::{labels, namespace_selectors, pod_selections, selectors};
pub use policy::{
    blocks, cluster_policies, network_policies, networks, peers, policies, port_entries, protocols,
    traffic_matches,
};

use netpol_core::{Established, Options, OtherProtocols, OwnNodeEgress};
use proptest::prelude::*;

/// Every combination of options.
pub fn options() -> impl Strategy<Value = Options> {
    any::<(bool, bool, bool)>().prop_map(|(other, own_node, established)| {
        let mut options = Options::default();
        if other {
            options = options.with_other_protocols(OtherProtocols::Allow);
        }
        if own_node {
            options = options.with_own_node_egress(OwnNodeEgress::Allow);
        }
        if established {
            options = options.with_established(Established::ReEvaluate);
        }
        options
    })
}
