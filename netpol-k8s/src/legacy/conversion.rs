//! What was read of legacy APIs, as policies of `networking.k8s.io/v1`.

use super::Gate;
use super::express::{default_deny, expressible, objections, valid_name};
use crate::diagnostic::{Diagnostic, quoted};
use crate::lint::location;
use crate::reader::Manifests;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use netpol_core::{NamespaceName, Policy, PolicyKind};
use std::collections::{BTreeMap, BTreeSet};

/// The name of the policies that take the place of an annotation, if it is free.
const DEFAULT_DENY: &str = "default-deny";

/// The legacy policies that are in force, as a server of today takes them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Conversion {
    /// The policies, by namespace and name. No name is that of another policy that was read and that they do not replace.
    pub policies: Vec<NetworkPolicy>,
    /// What could not be carried over (an error), and what was renamed or has no effect (a warning).
    pub notes: Vec<Diagnostic>,
}

/// Converts everything legacy that was read (LEG-07, LEG-25, LEG-26). No verdict changes: policies that have no effect become
/// none, and a namespace that an annotation isolates gets a policy that denies what no other allows.
///
/// ```
/// let mut reader = netpol_k8s::Reader::new();
/// reader.read_text("f", r#"
/// apiVersion: v1
/// kind: Namespace
/// metadata: {name: tenant-a, annotations: {net.alpha.kubernetes.io/network-isolation: "on"}}
/// "#);
/// let converted = netpol_k8s::legacy::to_v1(&reader.finish());
/// assert_eq!(converted.policies[0].metadata.name.as_deref(), Some("default-deny"));
/// ```
#[must_use]
pub fn to_v1(manifests: &Manifests) -> Conversion {
    let legacy = manifests.legacy();
    let mut conversion = Conversion::default();
    // Names that belong to objects of networking.k8s.io, or of extensions, which are the same objects.
    let own = |policy: &Policy| policy.id().kind == PolicyKind::NetworkPolicy;
    let mut taken: BTreeSet<(NamespaceName, String)> = manifests
        .cluster()
        .policies()
        .chain(legacy.policies.values().map(|policy| &policy.policy))
        .filter(|policy| own(policy))
        .filter_map(|policy| Some((policy.id().namespace.clone()?, policy.id().name.to_string())))
        .collect();
    // How far the numbers behind a name are used up.
    let mut numbers: BTreeMap<(NamespaceName, String), usize> = BTreeMap::new();
    let mut free_name = |namespace: &NamespaceName, wanted: &str| {
        let number = numbers.entry((namespace.clone(), wanted.to_owned())).or_default();
        let candidates = std::iter::repeat_with(|| {
            *number += 1;
            if *number == 1 { wanted.to_owned() } else { format!("{wanted}-{number}") }
        });
        let free = |name: &String| taken.insert((namespace.clone(), name.clone()));
        let mut candidates = candidates;
        candidates.find(free).unwrap_or_default()
    };
    for policy in legacy.policies.values() {
        let id = policy.policy.id();
        let (Some(namespace), object) = (&id.namespace, id.to_string()) else { continue };
        let place = || policy.policy.source().map(location);
        if let Some(inert) = legacy.inert.get(id) {
            let message = format!("left out, since it has no effect: {}", inert.reason());
            let note = Diagnostic::warning("inert", message).about(object).at(place());
            let hint = "delete it before a server reads it as `networking.k8s.io/v1`: it would isolate pods that are open";
            let hint = (policy.gate == Some(Gate::Beta)).then(|| hint.to_owned());
            conversion.notes.push(note.with_hint_if(hint));
            continue;
        }
        let (expressed, notes) = expressible(&policy.v1);
        for note in notes {
            let field = policy.field(note.field().unwrap_or_default());
            conversion.notes.push(note.in_field(field).about(&object).at(place()));
        }
        let Some(mut expressed) = expressed else { continue };
        expressed.metadata.namespace = Some(namespace.to_string());
        let name = expressed.metadata.name.clone().unwrap_or_default();
        // A valid name of its own is already the object's; any other must not become that of another object.
        if !own(&policy.policy) || name != id.name.as_str() {
            let free = free_name(namespace, &valid_name(&name));
            if free != name {
                let message = format!(
                    "{} is the name of another policy: it is {} now",
                    quoted(&name),
                    quoted(&free)
                );
                let note = Diagnostic::warning("renamed", message).in_field("metadata.name");
                conversion.notes.push(note.about(&object).at(place()));
            }
            expressed.metadata.name = Some(free);
        }
        conversion.push(expressed, &object);
    }
    for isolated in &legacy.isolated {
        let name = free_name(&isolated.namespace, DEFAULT_DENY);
        let policy = default_deny(isolated.namespace.as_str(), &name);
        conversion.push(policy, &isolated.policy.id().to_string());
    }
    let key =
        |policy: &NetworkPolicy| (policy.metadata.namespace.clone(), policy.metadata.name.clone());
    conversion.policies.sort_by_key(key);
    conversion
}

impl Conversion {
    /// Could everything be carried over that was not broken?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.notes.iter().any(super::express::is_loss)
    }

    fn push(&mut self, policy: NetworkPolicy, object: &str) {
        for objection in objections(&policy) {
            self.notes.push(objection.about(object));
        }
        self.policies.push(policy);
    }
}
