//! `policy.networking.k8s.io/v1alpha1`: AdminNetworkPolicy and BaselineAdminNetworkPolicy (CNP-01..CNP-05).
//!
//! The version had two shapes of peers. Up to release v0.1.1 a peer's `namespaces` held a `namespaceSelector`, `sameLabels` or
//! `notSameLabels`, and its `pods` held such `namespaces`; since v0.1.2 they hold selectors directly. [`NamespacesPeer`] and
//! [`PodsPeer`] have the fields of both, and one object uses one of them.

use super::{Object, Spec, fields};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::BTreeMap;

/// A policy of the whole cluster that is asked before every NetworkPolicy (CNP-01). Its status is not read.
pub type AdminNetworkPolicy = Object<AdminNetworkPolicySpec>;

impl Spec for AdminNetworkPolicySpec {
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha1";
    const KIND: &'static str = "AdminNetworkPolicy";
}

/// The one policy that is asked after every NetworkPolicy; its name is `default` (CNP-02). Its status is not read.
pub type BaselineAdminNetworkPolicy = Object<BaselineAdminNetworkPolicySpec>;

impl Spec for BaselineAdminNetworkPolicySpec {
    const API_VERSION: &'static str = "policy.networking.k8s.io/v1alpha1";
    const KIND: &'static str = "BaselineAdminNetworkPolicy";
}

fields! {
    /// What an AdminNetworkPolicy wants.
    AdminNetworkPolicySpec {
        /// 0 to 1000; the lower one is asked first. Must be there.
        #[serde(skip_serializing_if = "Option::is_none")]
        priority: Option<i32>,
        /// The pods that it is about.
        subject: Subject,
        /// Rules for what comes to the subject, at most 100, in order.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        ingress: Vec<IngressRule>,
        /// Rules for what the subject sends, at most 100, in order.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        egress: Vec<EgressRule>,
    }

    /// What a BaselineAdminNetworkPolicy wants.
    BaselineAdminNetworkPolicySpec {
        /// The pods that it is about.
        subject: Subject,
        /// Rules for what comes to the subject, at most 100, in order.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        ingress: Vec<IngressRule>,
        /// Rules for what the subject sends, at most 100, in order.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        egress: Vec<EgressRule>,
    }

    /// Pods: exactly one of the fields (CNP-03).
    Subject {
        /// All pods of these namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespaces: Option<LabelSelector>,
        /// Some pods of some namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        pods: Option<NamespacedPod>,
    }

    /// Pods by the labels of their namespace and their own; both must be there.
    NamespacedPod {
        /// The namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace_selector: Option<LabelSelector>,
        /// The pods.
        #[serde(skip_serializing_if = "Option::is_none")]
        pod_selector: Option<LabelSelector>,
    }

    /// A rule for what comes to the subject.
    IngressRule {
        /// For people, at most 100 characters.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// `Allow`, `Deny` or, not in a baseline, `Pass`.
        action: String,
        /// The sources, 1 to 100.
        from: Vec<IngressPeer>,
        /// Destination ports, 1 to 100; absent means every protocol and port.
        #[serde(skip_serializing_if = "Option::is_none")]
        ports: Option<Vec<Port>>,
    }

    /// A rule for what the subject sends.
    EgressRule {
        /// For people, at most 100 characters.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// `Allow`, `Deny` or, not in a baseline, `Pass`.
        action: String,
        /// The destinations, 1 to 100.
        to: Vec<EgressPeer>,
        /// Destination ports, 1 to 100; absent means every protocol and port.
        #[serde(skip_serializing_if = "Option::is_none")]
        ports: Option<Vec<Port>>,
    }

    /// A source: exactly one of the fields (CNP-04).
    IngressPeer {
        /// All pods of these namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespaces: Option<NamespacesPeer>,
        /// Some pods of some namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        pods: Option<PodsPeer>,
    }

    /// A destination: exactly one of the fields (CNP-04).
    EgressPeer {
        /// All pods of these namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespaces: Option<NamespacesPeer>,
        /// Some pods of some namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        pods: Option<PodsPeer>,
        /// Addresses as CIDRs, 1 to 25, whoever has them.
        #[serde(skip_serializing_if = "Option::is_none")]
        networks: Option<Vec<String>>,
        /// The addresses of nodes, by their labels. Experimental.
        #[serde(skip_serializing_if = "Option::is_none")]
        nodes: Option<LabelSelector>,
        /// Names in the DNS, 1 to 25. Experimental, not in a baseline; not enforced here yet.
        #[serde(skip_serializing_if = "Option::is_none")]
        domain_names: Option<Vec<String>>,
    }

    /// Namespaces: a selector, or in the old shape exactly one of the last three fields.
    NamespacesPeer {
        /// Labels that a namespace must have.
        #[serde(skip_serializing_if = "Option::is_none")]
        match_labels: Option<BTreeMap<String, String>>,
        /// Requirements that the labels of a namespace must meet.
        #[serde(skip_serializing_if = "Option::is_none")]
        match_expressions: Option<Vec<LabelSelectorRequirement>>,
        /// Old shape: the selector.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace_selector: Option<LabelSelector>,
        /// Old shape: namespaces that have the values of the subject's namespace for these labels. Not supported (CNP-52).
        #[serde(skip_serializing_if = "Option::is_none")]
        same_labels: Option<Vec<String>>,
        /// Old shape: namespaces that have other values for one of these labels. Not supported (CNP-52).
        #[serde(skip_serializing_if = "Option::is_none")]
        not_same_labels: Option<Vec<String>>,
    }

    /// Pods by the labels of their namespace and their own.
    PodsPeer {
        /// The namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace_selector: Option<LabelSelector>,
        /// Old shape: the namespaces.
        #[serde(skip_serializing_if = "Option::is_none")]
        namespaces: Option<NamespacesPeer>,
        /// The pods; must be there.
        #[serde(skip_serializing_if = "Option::is_none")]
        pod_selector: Option<LabelSelector>,
    }

    /// Destination ports: exactly one of the fields (CNP-05).
    Port {
        /// One port.
        #[serde(skip_serializing_if = "Option::is_none")]
        port_number: Option<PortNumber>,
        /// Several ports.
        #[serde(skip_serializing_if = "Option::is_none")]
        port_range: Option<PortRange>,
        /// The name of a container port of the destination pod, of whatever protocol it is. Experimental.
        #[serde(skip_serializing_if = "Option::is_none")]
        named_port: Option<String>,
    }

    /// One port of one protocol.
    PortNumber {
        /// `TCP` if it is absent, `UDP` or `SCTP`; a server accepts any text.
        #[serde(skip_serializing_if = "Option::is_none")]
        protocol: Option<String>,
        /// 1 to 65535.
        port: i32,
    }

    /// A closed range of ports of one protocol.
    PortRange {
        /// `TCP` if it is absent, `UDP` or `SCTP`; a server accepts any text.
        #[serde(skip_serializing_if = "Option::is_none")]
        protocol: Option<String>,
        /// The least, 1 to 65535.
        start: i32,
        /// The greatest. If it is less than `start`, nothing matches.
        end: i32,
    }
}
