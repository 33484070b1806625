//! ClusterNetworkPolicy, AdminNetworkPolicy and BaselineAdminNetworkPolicy: out of a tree into the model, whatever is wrong.
//!
//! ```text
//! tree --normalize--> --schema, cel--> defects --repair--> tree that decodes --> api types --parts--> rules --> Policy
//! ```
//!
//! What cannot be understood fails closed, and its diagnostic says how (CNP-40):
//!
//! | what | in a rule that accepts | in one that denies or passes |
//! |---|---|---|
//! | a peer or a port entry that nobody knows | it matches nothing | the rule denies everything in its direction |
//! | an unknown action | | denies |
//!
//! | what of a policy | then |
//! |---|---|
//! | no tier that exists | it is left out |
//! | the subject, the priority, or a key of the spec that nobody knows | only its denials hold; with an unknown subject for all pods, without priority before all others |

mod cel;
mod convert;
mod definitions;
mod parts;
mod recover;
mod schema;
mod upgrade;

use crate::api::{Spec, v1alpha1, v1alpha2};
use crate::convert::Converter;
use crate::decode::decode;
use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::recover::Finding;
use crate::tree::{Node, PathDisplay, Segment, Span, Value};
use crate::validate::metadata_defects;
use convert::{Closed, Context};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use netpol_core::{Direction, Policy, PolicyKind, SourcePosition};
use parts::PolicyParts;
use schema::{Checker, SchemaDefect};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::Arc;
pub use upgrade::{Upgrade, upgrade, upgrade_manifests};

/// Which definitions a server has installed: with or without the fields that are still experimental (CNP-20).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the channels in which the project releases")]
pub enum Channel {
    /// Without `nodes`, `domainNames` and, in v1alpha1, `namedPort`.
    Standard,
    /// With them, and with the rules that go with them.
    #[default]
    Experimental,
}

/// The kinds of cluster-wide policies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Admin,
    Baseline,
    Cluster,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Admin, Self::Baseline, Self::Cluster];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admin => v1alpha1::AdminNetworkPolicySpec::KIND,
            Self::Baseline => v1alpha1::BaselineAdminNetworkPolicySpec::KIND,
            Self::Cluster => v1alpha2::ClusterNetworkPolicySpec::KIND,
        }
    }

    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Admin => v1alpha1::AdminNetworkPolicySpec::API_VERSION,
            Self::Baseline => v1alpha1::BaselineAdminNetworkPolicySpec::API_VERSION,
            Self::Cluster => v1alpha2::ClusterNetworkPolicySpec::API_VERSION,
        }
    }

    fn policy_kind(self) -> PolicyKind {
        match self {
            Self::Admin => PolicyKind::AdminNetworkPolicy,
            Self::Baseline => PolicyKind::BaselineAdminNetworkPolicy,
            Self::Cluster => PolicyKind::ClusterNetworkPolicy,
        }
    }
}

/// An object as its API has it.
#[derive(Clone, Debug)]
pub(crate) enum Typed {
    Admin(v1alpha1::AdminNetworkPolicy),
    Baseline(v1alpha1::BaselineAdminNetworkPolicy),
    Cluster(v1alpha2::ClusterNetworkPolicy),
}

/// The object that a tree holds, as far as it can be decoded; nothing of it may be taken for sound if there are errors.
pub(crate) fn typed(node: &Node<'_>, kind: Kind) -> Option<Typed> {
    fn decoded<T: DeserializeOwned>(tree: &Node<'_>) -> Option<T> {
        decode::<T>(tree).ok().map(|(value, _)| value)
    }
    let mut tree = node.clone();
    if let Some(spec) = tree.find_mut(&[Segment::Field("spec".to_owned())]) {
        recover::normalize(spec, &mut Vec::new(), &mut Vec::new());
    }
    Some(match kind {
        Kind::Admin => Typed::Admin(decoded(&tree)?),
        Kind::Baseline => Typed::Baseline(decoded(&tree)?),
        Kind::Cluster => Typed::Cluster(decoded(&tree)?),
    })
}

/// The policy that a tree holds, unless nobody can say what it is, and everything that is to be said about it; with places, if
/// the tree comes from a file.
pub(crate) fn read(
    node: &Node<'_>,
    kind: Kind,
    channel: Channel,
    file: Option<&Arc<str>>,
    converter: &mut Converter,
) -> (Option<Policy>, Vec<Diagnostic>) {
    let locate = |span: Span| {
        let (line, column) = (span.line, span.column);
        let place = |file| Location { file, line, column, length: span.len.max(1) };
        file.cloned().map(place)
    };
    let mut tree = node.clone();
    let mut emptied = Vec::new();
    if let Some(spec) = tree.find_mut(&[Segment::Field("spec".to_owned())]) {
        let mut path = vec![Segment::Field("spec".to_owned())];
        recover::normalize(spec, &mut path, &mut emptied);
    }
    // A spec that is null is none.
    if tree.field("spec").is_some_and(Node::is_null) {
        tree.remove_field("spec");
    }
    let old_peers = kind != Kind::Cluster && has_old_peers(&tree);
    let mut checker = Checker::new(&locate);
    checker.object(&tree, definitions::definition(kind, channel, old_peers));
    let defects = checker.defects;
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    let at = |diagnostic: Diagnostic| {
        let span = node.locate(diagnostic.field().unwrap_or_default(), diagnostic.key());
        diagnostic.at(locate(span))
    };
    diagnostics.extend(cel::check(kind, channel, old_peers, &tree).into_iter().map(at));

    let mut closed = Closed::default();
    for SchemaDefect { path, diagnostic, undecodable } in defects {
        let unknown = diagnostic.reason().is_none();
        if undecodable && recover::repair(&mut tree, &path, unknown) {
            closed.unknown_key.get_or_insert_with(|| PathDisplay(&path).to_string());
        }
        diagnostics.push(diagnostic);
    }
    let metadata = metadata(&mut tree, node, &locate, &mut diagnostics);
    diagnostics.extend(
        metadata_defects(&metadata)
            .iter()
            .map(|defect| at(crate::convert::defect_diagnostic(defect))),
    );
    for path in emptied {
        let field = PathDisplay(&path).to_string();
        let message = "a label without a value is dropped by the server, and the selector selects more than it says";
        let hint = "write `\"\"` for the empty value";
        diagnostics
            .push(at(Diagnostic::warning("CNP-22", message).in_field(field).with_hint(hint)));
    }
    if old_peers {
        let message = "peers are written as up to v0.1.1 of the API";
        diagnostics.push(at(Diagnostic::warning("CNP-04", message).in_field("spec")));
    }

    let spec = node.field("spec");
    let lists = ["ingress", "egress"].map(|key| spec.and_then(|spec| spec.field(key)));
    let position = |rule: Option<(Direction, usize)>| {
        let span = match rule {
            Some((direction, i)) => {
                let [ingress, egress] = lists;
                let list = if direction == Direction::Ingress { ingress } else { egress };
                list.and_then(|list| list.item(i)).or(list).or(spec).unwrap_or(node).span
            }
            None => node.locate("metadata.name", None),
        };
        let place = |file| SourcePosition { file, line: span.line, column: span.column };
        file.cloned().map(place)
    };
    let parts =
        if tree.field("spec").is_some() { spec_parts(&tree, kind, converter) } else { None };
    let Some(parts) = parts else {
        add_consequences(&mut diagnostics, vec![(String::new(), LEFT_OUT.to_owned())], &at);
        return (None, diagnostics);
    };
    let context = Context { kind, closed, position: &position };
    let converted = context.policy(&metadata, parts, converter);
    diagnostics.extend(converted.diagnostics.into_iter().map(at));
    add_consequences(&mut diagnostics, converted.consequences, &at);
    (converted.policy, diagnostics)
}

/// How deep a part can be that fails closed: `spec.egress[0].protocols[0]`.
const MOST_STEPS: usize = 6;

const LEFT_OUT: &str = "the policy is left out";

/// Says at each defect what follows from it: at those in a part that failed closed, else at a new one.
fn add_consequences(
    diagnostics: &mut Vec<Diagnostic>,
    consequences: Vec<(String, String)>,
    at: &dyn Fn(Diagnostic) -> Diagnostic,
) {
    // The defects in each part that can fail closed, which is never deeper than an entry of a list of a rule.
    let mut inside: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, diagnostic) in diagnostics.iter().enumerate() {
        let Some(field) = diagnostic.field().filter(|_| diagnostic.severity() == Severity::Error)
        else {
            continue;
        };
        let ends = field.match_indices(['.', '[']).map(|(at, _)| at).take(MOST_STEPS);
        for part in [0].into_iter().chain(ends).chain([field.len()]) {
            inside.entry(field.get(..part).unwrap_or_default().to_owned()).or_default().push(i);
        }
    }
    // Of several that a defect has, the first is said.
    let mut told = vec![false; diagnostics.len()];
    for (part, consequence) in consequences {
        let Some(defects) = inside.get(&part) else {
            let message = format!("this cannot be understood: {consequence}");
            diagnostics.push(at(Diagnostic::error("CNP-40", message).in_field(part)));
            continue;
        };
        for &i in defects {
            if let (Some(diagnostic), Some(told)) = (diagnostics.get_mut(i), told.get_mut(i))
                && !std::mem::replace(told, true)
            {
                diagnostic.add_consequence(&consequence);
            }
        }
    }
}

fn spec_parts(tree: &Node<'_>, kind: Kind, converter: &mut Converter) -> Option<PolicyParts> {
    fn decoded<T: DeserializeOwned>(tree: &Node<'_>) -> Option<T> {
        decode::<T>(tree).ok().map(|(value, _)| value)
    }
    let spec = tree.field("spec")?;
    Some(match kind {
        Kind::Cluster => {
            PolicyParts::cluster(&decoded::<v1alpha2::ClusterNetworkPolicySpec>(spec)?, converter)
        }
        Kind::Admin => {
            PolicyParts::admin(&decoded::<v1alpha1::AdminNetworkPolicySpec>(spec)?, converter)
        }
        Kind::Baseline => PolicyParts::baseline(
            &decoded::<v1alpha1::BaselineAdminNetworkPolicySpec>(spec)?,
            converter,
        ),
    })
}

/// The metadata; what in it cannot be decoded is left out.
fn metadata(
    tree: &mut Node<'_>,
    node: &Node<'_>,
    locate: &dyn Fn(Span) -> Option<Location>,
    diagnostics: &mut Vec<Diagnostic>,
) -> ObjectMeta {
    for _ in 0..100 {
        let Some(metadata) = tree.field("metadata") else { break };
        match decode::<ObjectMeta>(metadata) {
            Ok((metadata, _)) => return metadata,
            Err(error) => {
                let (finding, path) = Finding::new(error, node.span);
                let field = format!("metadata.{}", finding.path);
                let diagnostic = Diagnostic::error("VAL-28", finding.message)
                    .in_field(field.trim_end_matches('.'))
                    .with_hint_if(finding.hint)
                    .at(locate(finding.span));
                diagnostics.push(diagnostic);
                let whole: Vec<_> =
                    [Segment::Field("metadata".to_owned())].into_iter().chain(path).collect();
                let name = whole.get(1).and_then(Segment::field);
                let repaired = matches!(name, Some("name" | "generateName"))
                    && crate::recover::as_text(tree, &whole)
                    || crate::recover::remove(tree, &whole, whole.len().min(2));
                if !repaired {
                    break;
                }
            }
        }
    }
    ObjectMeta::default()
}

/// Is one of its peers written as up to release v0.1.1?
fn has_old_peers(object: &Node<'_>) -> bool {
    fn items<'n, 'a>(list: Option<&'n Node<'a>>) -> &'n [Node<'a>] {
        match list.map(|list| &list.value) {
            Some(Value::Sequence(items)) => items,
            _ => &[],
        }
    }
    let spec = object.field("spec");
    ["ingress", "egress"].into_iter().any(|direction| {
        let side = if direction == "ingress" { "from" } else { "to" };
        items(spec.and_then(|spec| spec.field(direction))).iter().any(|rule| {
            items(rule.field(side)).iter().any(|peer| {
                let old = ["namespaceSelector", "sameLabels", "notSameLabels"];
                let namespaces = peer.field("namespaces");
                namespaces.is_some_and(|n| old.iter().any(|key| n.field(key).is_some()))
                    || peer.field("pods").is_some_and(|pods| pods.field("namespaces").is_some())
            })
        })
    })
}
