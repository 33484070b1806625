//! Which workload a pod belongs to.

use crate::object::Owner;
use netpol_core::{NamespaceName, Pod, PodId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Pods that are replicas of one template, or a single pod.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Workload {
    namespace: NamespaceName,
    name: Arc<str>,
    kind: Arc<str>,
}

impl Workload {
    pub(crate) fn new(
        namespace: NamespaceName,
        name: impl Into<Arc<str>>,
        kind: impl Into<Arc<str>>,
    ) -> Self {
        Self { namespace, name: name.into(), kind: kind.into() }
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &NamespaceName {
        &self.namespace
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kind of the controller; `Pod` for a pod that has none.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The pod by itself. One that stands for a workload carries the workload's name and kind in its own.
    pub(crate) fn of_pod(id: &PodId) -> Self {
        let name = id.name().as_str();
        let template = name.strip_suffix(']').and_then(|name| name.split_once('['));
        let (name, kind) = template.unwrap_or((name, "Pod"));
        Self::new(id.namespace().clone(), name, kind)
    }
}

impl fmt::Display for Workload {
    /// `shop/web[Deployment]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}[{}]", self.namespace, self.name, self.kind)
    }
}

/// The controllers that were read, so that a pod's can be followed to the top.
#[derive(Default)]
pub(crate) struct Controllers(BTreeMap<Workload, Option<Owner>>);

impl Controllers {
    pub(crate) fn add(&mut self, workload: Workload, owner: Option<Owner>) {
        self.0.insert(workload, owner);
    }

    /// The workload that a controlled object belongs to: its controller's controller's, and so on.
    pub(crate) fn top(
        &self,
        namespace: &NamespaceName,
        owner: &Owner,
        pod: Option<&Pod>,
    ) -> Workload {
        let mut top = Workload::new(namespace.clone(), owner.name.as_str(), owner.kind.as_str());
        // A chain is short; one that goes in a circle must end too.
        for _ in 0..4 {
            match self.0.get(&top) {
                Some(Some(owner)) => {
                    top =
                        Workload::new(namespace.clone(), owner.name.as_str(), owner.kind.as_str());
                }
                Some(None) => return top,
                None => break,
            }
        }
        // The ReplicaSet of a Deployment is called after it and its template, and the pod's label says that hash.
        let hash = pod.and_then(|pod| pod.labels().value("pod-template-hash"));
        if let (true, Some(hash)) = (&*top.kind == "ReplicaSet", hash)
            && let Some(name) = top.name.strip_suffix(hash).and_then(|name| name.strip_suffix('-'))
            && !name.is_empty()
        {
            return Workload::new(namespace.clone(), name, "Deployment");
        }
        top
    }
}
