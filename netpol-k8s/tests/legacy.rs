//! Legacy policies and annotations out of text: what is said about them, where, and in which order they may come.

use netpol_core::{Direction, Policy, PolicyKind};
use netpol_k8s::api::v1beta1::Meaning;
use netpol_k8s::{Manifests, Reader, legacy};

const ALPHA: &str = "net.alpha.kubernetes.io/network-isolation";
const BETA: &str = "net.beta.kubernetes.io/network-policy";
const DENY: &str = r#"'{"ingress": {"isolation": "DefaultDeny"}}'"#;

fn read_with(reader: Reader, text: &str) -> Manifests {
    let mut reader = reader;
    reader.read_text("f", text);
    reader.finish()
}

fn read(text: &str) -> Manifests {
    read_with(Reader::new(), text)
}

fn before_1_7() -> Reader {
    Reader::new().v1beta1_as(Meaning::Before1_7)
}

fn namespace(name: &str, annotation: &str, value: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  annotations:\n    {annotation}: {value}\n"
    )
}

fn alpha(namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: net.alpha.kubernetes.io/v1alpha1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn v1beta1(namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn texts(manifests: &Manifests) -> Vec<String> {
    manifests.diagnostics().iter().map(|d| format!("{} {d}", d.code())).collect()
}

#[track_caller]
fn says(manifests: &Manifests, expected: &[&str]) {
    let got = texts(manifests);
    assert_eq!(got.len(), expected.len(), "{got:#?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.contains(expected), "{got:#?}");
    }
}

fn annotation(manifests: &Manifests) -> Option<&Policy> {
    manifests.cluster().policies().find(|p| p.id().kind == PolicyKind::NamespaceAnnotation)
}

#[test]
fn the_order_of_documents_means_nothing() {
    let (on, policy) = (namespace("shop", ALPHA, "\"on\""), alpha("shop", "{allowIncoming: {}}"));
    for text in [format!("{on}{policy}"), format!("{policy}{on}")] {
        let manifests = read(&text);
        says(&manifests, &[]);
        assert_eq!(manifests.cluster().policies().len(), 2);
        assert!(manifests.inert().next().is_none());
    }
    // Of two namespaces with one name the later counts, annotations and all.
    let manifests = read(&format!("{on}{policy}{}", namespace("shop", ALPHA, "\"off\"")));
    assert_eq!(manifests.cluster().policies().len(), 0);
    assert_eq!(manifests.inert().count(), 1);
}

#[test]
fn an_annotation_and_a_rule_have_a_place() {
    let manifests = read(&format!(
        "{}{}",
        namespace("shop", ALPHA, "\"on\""),
        alpha("shop", "\n  podSelector: {a: b}\n  allowIncoming:\n    from:\n    - pods: {}\n")
    ));
    let policy = annotation(&manifests).unwrap();
    assert_eq!(policy.id().to_string(), format!("annotation {ALPHA} of Namespace shop"));
    assert_eq!(policy.source().unwrap().to_string(), "f:7");
    let id = |p: &&Policy| p.id().kind == PolicyKind::AlphaNetworkPolicy;
    let policy = manifests.cluster().policies().find(id).unwrap();
    assert_eq!(policy.id().to_string(), "NetworkPolicy.net.alpha.kubernetes.io shop/p");
    assert_eq!(policy.source().unwrap().to_string(), "f:11");
    let rules = policy.rules(Direction::Ingress).unwrap();
    assert_eq!(rules[0].matches.source.as_ref().unwrap().line, 15);
}

#[test]
fn a_bare_on_is_what_it_says() {
    let policy = alpha("shop", "{}");
    let manifests = read(&format!("{}{policy}", namespace("shop", ALPHA, "on")));
    says(
        &manifests,
        &[
            "LEG-03 f:7:5: warning: Namespace shop: metadata.annotations: `on` is no text",
            "LEG-07 ",
        ],
    );
    assert!(annotation(&manifests).is_some());
    let manifests = read(&format!("{}{policy}", namespace("shop", ALPHA, "off")));
    says(&manifests, &["LEG-03 ", "LEG-04 ", "LEG-07 "]);
    let manifests = read(&format!("{}{policy}", namespace("shop", ALPHA, "enabled")));
    says(
        &manifests,
        &[
            "LEG-03 f:7:5: warning: Namespace shop: metadata.annotations: `enabled` does not",
            "LEG-04 ",
            "LEG-07 ",
        ],
    );
    assert!(annotation(&manifests).is_none());
}

#[test]
fn what_is_left_over_and_what_is_missing() {
    says(&read(&namespace("shop", ALPHA, "\"on\"")), &["LEG-04 f:7:5: warning: Namespace shop: "]);
    // Nobody knows whether the namespace is isolated.
    let manifests = read(&alpha("shop", "{allowIncoming: {}}"));
    says(
        &manifests,
        &["LEG-04 f:4:18: warning: NetworkPolicy.net.alpha.kubernetes.io shop/p: no Namespace"],
    );
    assert_eq!(manifests.cluster().policies().len(), 2);
    let manifests = read_with(before_1_7(), &v1beta1("shop", "{}"));
    says(&manifests, &["LEG-23 f:4:18: warning: NetworkPolicy shop/p: no Namespace"]);
    assert_eq!(manifests.cluster().policies().len(), 2);
}

#[test]
fn the_beta_annotation_names_the_option() {
    let text = namespace("shop", BETA, DENY);
    let manifests = read(&text);
    says(&manifests, &["LEG-24 f:7:5: warning: Namespace shop: metadata.annotations: "]);
    assert!(manifests.diagnostics()[0].hint().unwrap().contains("--v1beta1-as 1.6"));
    assert_eq!(manifests.inert().count(), 1);
    let manifests = read_with(before_1_7(), &text);
    says(&manifests, &[]);
    assert!(annotation(&manifests).is_some());
}

/// Without quotation marks JSON is YAML, and no text any more.
#[test]
fn json_without_quotation_marks() {
    let value = r#"{"ingress": {"isolation": "DefaultDeny"}}"#;
    let manifests = read_with(before_1_7(), &namespace("shop", BETA, value));
    says(&manifests, &["LEG-20 f:7:5: warning: Namespace shop: metadata.annotations: "]);
    assert!(annotation(&manifests).is_some());
    let manifests = read_with(before_1_7(), &namespace("shop", BETA, "[DefaultDeny]"));
    says(&manifests, &["is no text", "does not isolate"]);
    assert!(annotation(&manifests).is_none());
}

#[test]
fn misspelt_annotations_count_only_if_asked() {
    let text = namespace("shop", "net.beta.kubernetes.io/networkpolicy", DENY);
    let manifests = read_with(before_1_7(), &text);
    says(&manifests, &["LEG-20 f:7:5: warning: Namespace shop: "]);
    assert!(manifests.diagnostics()[0].hint().unwrap().contains("--misspelt-annotations"));
    assert!(annotation(&manifests).is_none());
    let manifests = read_with(before_1_7().misspelt_annotations(), &text);
    assert!(annotation(&manifests).unwrap().id().to_string().contains("/networkpolicy of"));
    // The right one wins.
    let both = format!("{text}    {BETA}: '{{}}'\n");
    assert!(annotation(&read_with(before_1_7().misspelt_annotations(), &both)).is_none());
}

#[test]
fn defects_are_called_as_the_object_calls_them() {
    let spec = "{podSelector: {a b: c}, allowIncoming: {from: [{pods: {d e: f}}, {}], toPorts: [{port: 0}, {port: 1, protocol: tpc}, {}]}}";
    let manifests = read(&format!("{}{}", namespace("shop", ALPHA, "\"on\""), alpha("shop", spec)));
    let mut fields: Vec<_> = manifests.diagnostics().iter().filter_map(|d| d.field()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "spec.allowIncoming.from[0].pods",
            "spec.allowIncoming.from[1]",
            "spec.allowIncoming.toPorts[0].port",
            "spec.allowIncoming.toPorts[1].protocol",
            "spec.allowIncoming.toPorts[1].protocol",
            "spec.allowIncoming.toPorts[2]",
            "spec.podSelector",
        ]
    );
}

#[test]
fn a_policy_that_cannot_be_read_allows_nothing() {
    for spec in [
        "[]",
        "{podSelector: [], allowIncoming: {}}",
        "{podSelecter: {a: b}, allowIncoming: {}}",
        "{allowIncoming: []}",
        "{allowIncoming: {form: []}}",
        "{allowIncoming: {from: {}}}",
    ] {
        let manifests =
            read(&format!("{}{}", namespace("shop", ALPHA, "\"on\""), alpha("shop", spec)));
        assert!(manifests.has_errors(), "{spec}");
        for policy in manifests.cluster().policies() {
            let rules = policy.rules(Direction::Ingress).unwrap();
            let allows =
                rules.iter().any(|rule| rule.matches.peers != netpol_core::Match::OneOf(vec![]));
            assert!(!allows, "{spec}: {policy:?}");
            assert!(policy.rules(Direction::Egress).is_none());
        }
    }
}

#[test]
fn conversion_keeps_names_apart_and_says_what_is_lost() {
    let own = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: NAME, namespace: shop}\nspec: {podSelector: {}}\n";
    let text = [
        namespace("shop", ALPHA, "\"on\""),
        alpha("shop", "{podSelector: {a: b}, allowIncoming: {from: [{}, {pods: {a: c}}]}}"),
        alpha("stage", "{}"),
        namespace("stage", ALPHA, "\"off\""),
        own.replace("NAME", "p"),
        own.replace("NAME", "default-deny"),
    ]
    .concat();
    let conversion = legacy::to_v1(&read(&text));
    let names: Vec<_> =
        conversion.policies.iter().map(|p| p.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["default-deny-2", "p-2"]);
    let notes: Vec<_> = conversion.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "f:11:18: error: NetworkPolicy.net.alpha.kubernetes.io shop/p: spec.allowIncoming.from[0]: it matches nothing, and is left out",
            "f:11:18: warning: NetworkPolicy.net.alpha.kubernetes.io shop/p: metadata.name: `p` is the name of another policy: it is `p-2` now",
            "f:16:18: warning: NetworkPolicy.net.alpha.kubernetes.io stage/p: left out, since it has no effect: its namespace is not \
             isolated by the annotation `net.alpha.kubernetes.io/network-isolation`",
        ]
    );
    assert!(!conversion.is_complete());
}

#[test]
fn conversion_leaves_the_state_of_a_server_behind() {
    let text = "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: shop\n  uid: u\n  resourceVersion: '7'\n  \
                creationTimestamp: 2016-01-01T00:00:00Z\n  labels: {app: web}\n  annotations:\n    team: a\n    kubectl.kubernetes.io/last-applied-configuration: '{}'\n\
                spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1/8}}]}]}\n";
    let conversion = legacy::to_v1(&read(text));
    let policy = serde_json::to_value(&conversion.policies[0]).unwrap();
    let expected = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop", "labels": {"app": "web"}, "annotations": {"team": "a"}},
        "spec": {
            "podSelector": {}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        },
    });
    assert_eq!(policy, expected);
    assert!(conversion.is_complete(), "a block in another spelling is not lost");
    assert_eq!(conversion.notes.len(), 1);
}

/// extensions/v1beta1 and networking.k8s.io/v1 are two ways to the same objects: the later one counts, unless it has no
/// effect.
#[test]
fn of_two_versions_of_an_object_the_later_counts() {
    let old = v1beta1("shop", "{podSelector: {matchLabels: {old: a}}}");
    let new = old.replace("extensions/v1beta1", "networking.k8s.io/v1").replace("old: a", "new: a");
    let isolated = namespace("shop", BETA, DENY);
    let open = namespace("shop", BETA, "'{}'");
    for (reader, text, subject) in [
        (Reader::new(), format!("{old}{new}"), "new=a"),
        (Reader::new(), format!("{new}{old}"), "old=a"),
        (before_1_7(), format!("{isolated}{old}{new}"), "new=a"),
        (before_1_7(), format!("{isolated}{new}{old}"), "old=a"),
        (before_1_7(), format!("{open}{old}{new}"), "new=a"),
        (before_1_7(), format!("{open}{new}{old}"), "new=a"),
    ] {
        let manifests = read_with(reader, &text);
        let mut policies = manifests.cluster().policies();
        let policy = policies.find(|p| p.id().kind == PolicyKind::NetworkPolicy).unwrap();
        assert_eq!(policy.subject().pods.to_string(), subject, "{text}");
        assert!(texts(&manifests).iter().any(|text| text.starts_with("same-object-twice")));
        // What does not count is not converted either.
        let converted = legacy::to_v1(&manifests).policies;
        let named = converted.iter().any(|policy| policy.metadata.name.as_deref() == Some("p"));
        assert_eq!(named, subject == "old=a", "{text}");
    }
}
