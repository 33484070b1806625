//! Documents into objects of the kinds that matter here, each by its `apiVersion` and `kind`.

mod cluster;
mod kind;
mod policy;
mod report;

use crate::admin::{Channel, Typed};
use crate::convert::Converter;
use crate::diagnostic::{Diagnostic, Location};
use crate::legacy::{self, LegacyPolicy};
use crate::tree::Node;
use crate::validate::CidrRules;
use netpol_core::{Namespace, NamespaceName, Node as ClusterNode, Pod, Policy};
use std::sync::Arc;

/// So many defects of each sort are listed for one object.
const MOST_DIAGNOSTICS: usize = 500;

/// An object that was read.
pub(crate) enum Object {
    Pod {
        pod: Box<Pod>,
        owner: Option<Owner>,
    },
    /// With those of its annotations that isolate its pods.
    Namespace(Namespace, legacy::Annotations),
    Node(ClusterNode),
    /// With what it says against itself, for the lints.
    Policy {
        policy: Box<Policy>,
        remarks: Vec<Diagnostic>,
    },
    /// A policy of an API that no server has any more.
    Legacy(Box<LegacyPolicy>),
    /// A cluster-wide policy: what it means, unless it is left out, and as it was written, unless it has an error.
    ClusterWide {
        name: String,
        policy: Option<Box<Policy>>,
        typed: Option<Box<Typed>>,
    },
    /// With the pod that stands for its replicas.
    Workload {
        namespace: NamespaceName,
        name: Arc<str>,
        kind: &'static str,
        owner: Option<Owner>,
        pod: Box<Pod>,
    },
}

/// The controller of an object, in the object's namespace.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// What one part of a text held.
#[derive(Default)]
pub(crate) struct Found {
    /// With the place of each object's name.
    pub(crate) objects: Vec<(Object, Location)>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// The kinds that were left out, one entry an object.
    pub(crate) skipped: Vec<String>,
}

/// Reads the objects of one file.
pub(crate) struct ObjectReader {
    pub(crate) file: Arc<str>,
    pub(crate) converter: Converter,
    pub(crate) cidrs: CidrRules,
    pub(crate) beta: legacy::BetaRules,
    pub(crate) channel: Channel,
    pub(crate) found: Found,
}

impl ObjectReader {
    /// One document: an object, or a list of them.
    pub(crate) fn document(&mut self, node: &Node<'_>) {
        self.item(node, None, "");
    }

    pub(crate) fn add(&mut self, node: &Node<'_>, object: Object) {
        let location = self.location(node.locate("metadata.name", None));
        self.found.objects.push((object, location));
    }
}

/// A field that is optional in some versions of `k8s-openapi` and not in others.
fn some<'a, T>(field: impl Into<Option<&'a T>>) -> Option<&'a T> {
    field.into()
}
