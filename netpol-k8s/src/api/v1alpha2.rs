//! `policy.networking.k8s.io/v1alpha2`: ClusterNetworkPolicy, in both channels (CNP-10..CNP-20).
//!
//! The experimental channel adds `nodes` and `domainNames` to egress peers; everything else is in the standard channel too.

use super::{Object, Spec, fields};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A policy of the whole cluster, before (Admin) or after (Baseline) the NetworkPolicies of namespaces. Its status is not read.
pub type ClusterNetworkPolicy = Object<ClusterNetworkPolicySpec>;

impl Spec for ClusterNetworkPolicySpec {
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha2";
    const KIND: &'static str = "ClusterNetworkPolicy";
}

fields! {
    /// What a ClusterNetworkPolicy wants (CNP-10).
    ClusterNetworkPolicySpec {
        /// `Admin` or `Baseline`.
        tier: String,
        /// 0 to 1000 within the tier; the lower one is asked first. Must be there.
        #[serde(skip_serializing_if = "Option::is_none")]
        priority: Option<i32>,
        /// The pods that it is about.
        subject: Subject,
        /// Rules for what comes to the subject, at most 25, in order.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        ingress: Vec<IngressRule>,
        /// Rules for what the subject sends, at most 25, in order.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        egress: Vec<EgressRule>,
    }

    /// Pods: exactly one of the fields.
    Subject {
        /// All pods of these namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespaces: Option<LabelSelector>,
        /// Some pods of some namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        pods: Option<NamespacedPod>,
    }

    /// Pods by the labels of their namespace and their own (CNP-14).
    NamespacedPod {
        /// The namespaces; all of them if it is absent. Unlike in a NetworkPolicy there is no own namespace.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace_selector: Option<LabelSelector>,
        /// The pods; must be there.
        #[serde(skip_serializing_if = "Option::is_none")]
        pod_selector: Option<LabelSelector>,
    }

    /// A rule for what comes to the subject (CNP-11).
    IngressRule {
        /// For people, at most 100 characters.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// `Accept`, `Deny` or `Pass`.
        action: String,
        /// The sources, 1 to 25.
        from: Vec<IngressPeer>,
        /// Protocols and destination ports, 1 to 25; absent means all of them.
        #[serde(skip_serializing_if = "Option::is_none")]
        protocols: Option<Vec<Protocol>>,
    }

    /// A rule for what the subject sends (CNP-11).
    EgressRule {
        /// For people, at most 100 characters.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// `Accept`, `Deny` or `Pass`.
        action: String,
        /// The destinations, 1 to 25.
        to: Vec<EgressPeer>,
        /// Protocols and destination ports, 1 to 25; absent means all of them.
        #[serde(skip_serializing_if = "Option::is_none")]
        protocols: Option<Vec<Protocol>>,
    }

    /// A source: exactly one of the fields (CNP-12). Sources outside of the cluster cannot be said.
    IngressPeer {
        /// All pods of these namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespaces: Option<LabelSelector>,
        /// Some pods of some namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        pods: Option<NamespacedPod>,
    }

    /// A destination: exactly one of the fields (CNP-13).
    EgressPeer {
        /// All pods of these namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespaces: Option<LabelSelector>,
        /// Some pods of some namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        pods: Option<NamespacedPod>,
        /// Addresses as CIDRs, 1 to 25, whoever has them (CNP-17).
        #[serde(skip_serializing_if = "Option::is_none")]
        networks: Option<Vec<String>>,
        /// The addresses of nodes, by their labels (CNP-18). Experimental.
        #[serde(skip_serializing_if = "Option::is_none")]
        nodes: Option<LabelSelector>,
        /// Names in the DNS, 1 to 25 (CNP-19). Experimental; not enforced here yet.
        #[serde(skip_serializing_if = "Option::is_none")]
        domain_names: Option<Vec<String>>,
    }

    /// A protocol, with a destination port: exactly one of the fields (CNP-15).
    Protocol {
        /// TCP.
        #[serde(skip_serializing_if = "Option::is_none")]
        tcp: Option<ProtocolPorts>,
        /// UDP.
        #[serde(skip_serializing_if = "Option::is_none")]
        udp: Option<ProtocolPorts>,
        /// SCTP.
        #[serde(skip_serializing_if = "Option::is_none")]
        sctp: Option<ProtocolPorts>,
        /// The name of a container port of the destination pod, of whatever protocol it is (CNP-16).
        #[serde(skip_serializing_if = "Option::is_none")]
        destination_named_port: Option<String>,
    }

    /// What of a protocol is meant.
    ProtocolPorts {
        /// The destination port. The documentation takes its absence for all ports, but no server accepts it (CNP-15).
        #[serde(skip_serializing_if = "Option::is_none")]
        destination_port: Option<Port>,
    }

    /// Destination ports: exactly one of the fields.
    Port {
        /// One port, 1 to 65535.
        #[serde(skip_serializing_if = "Option::is_none")]
        number: Option<i32>,
        /// Several ports.
        #[serde(skip_serializing_if = "Option::is_none")]
        range: Option<PortRange>,
    }

    /// A closed range of ports.
    PortRange {
        /// The least, 1 to 65535.
        start: i32,
        /// The greatest; a server wants it greater than `start`.
        end: i32,
    }
}
