//! What a fuzzer feeds. Each entry point takes any bytes and checks what must hold whatever they are; `cargo test` replays the
//! committed corpus through the same functions.
//!
//! A check that fails panics: that is how a fuzzer learns of it.
#![expect(clippy::panic, reason = "a failed check must end the run")]

mod listing;
mod proof;

pub use listing::{ipset_save, iptables_save, nft_listing};
pub use proof::{proved, prover};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use netpol_core::{Delta, Labels, Match, Options, PodId, Protocol, Ruleset, Scope, compile};
use netpol_k8s::api::v1alpha1::{AdminNetworkPolicy, AdminNetworkPolicySpec};
use netpol_k8s::api::v1beta1::Meaning;
use netpol_k8s::{
    Channel, Cidr, Converter, Reader, Severity, is_label_key, is_label_value, is_port_name,
    label_selector,
};
use netpol_sim::{Connection, Connectivity, End, Traffic, reference};
use std::collections::BTreeMap;

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

#[track_caller]
fn check(holds: bool, law: &str, input: &dyn std::fmt::Debug) {
    if !holds {
        panic!("{law}: {input:?}");
    }
}

/// Manifest text: reading ends, places lie within the text, reading again gives the same, and what was read can be compiled
/// and listed.
pub fn manifest(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let read = || {
        let mut reader = Reader::new();
        reader.read_text("fuzz", text);
        reader.finish()
    };
    let manifests = read();
    // A carriage return ends a line, too, with a line feed or without.
    let ends = text.chars().filter(|c| matches!(c, '\n' | '\r')).count();
    let ends = ends - text.matches("\r\n").count();
    let lines = u32::try_from(ends).unwrap_or(u32::MAX).saturating_add(1);
    for diagnostic in manifests.diagnostics() {
        let inside = diagnostic.location().is_none_or(|at| at.line >= 1 && at.line <= lines);
        check(inside, "a place lies within the text", diagnostic);
        let one_line = !diagnostic.message().contains('\n');
        check(one_line, "a message is one line", diagnostic);
    }
    check(read().diagnostics() == manifests.diagnostics(), "reading is deterministic", &text);
    let _lints = netpol_k8s::lint(&manifests);
    let Ok(rules) = compile(manifests.cluster(), Scope::Cluster) else {
        panic!("the ids of different things collide: {text:?}");
    };
    let mut installed = Ruleset::default();
    installed.apply(&Delta::between(&Ruleset::default(), &rules));
    check(installed == rules, "a delta leads to the new rules", &text);
    let groups: Vec<_> = rules.endpoints().keys().map(|pod| vec![pod.clone()]).collect();
    let mut connectivity = Connectivity::new(&rules, Options::default(), &groups);
    for group in 0..groups.len().min(8) {
        let row = connectivity.row(group);
        check(row.groups.len() == groups.len(), "a row has every group", &text);
    }
}

/// A policy of the alpha of 2016: the first line is the annotation of its namespace, the others are its spec.
pub fn alpha(data: &[u8]) {
    use netpol_k8s::api::alpha::{ANNOTATION, API_VERSION};
    legacy(data, ANNOTATION, API_VERSION, Meaning::Since1_7);
}

/// A policy of `extensions/v1beta1` in both meanings, written as for [`alpha`].
pub fn v1beta1(data: &[u8]) {
    use netpol_k8s::api::v1beta1::{ANNOTATION, API_VERSION};
    for meaning in [Meaning::Before1_7, Meaning::Since1_7] {
        legacy(data, ANNOTATION, API_VERSION, meaning);
    }
}

/// A legacy policy can be read, its conversion is what a server takes, and changes no verdict (LEG-27).
fn legacy(data: &[u8], annotation: &str, version: &str, meaning: Meaning) {
    let Some(text) = text(data) else { return };
    let (value, spec) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(value) = serde_json::to_string(value) else { return };
    // Whatever is further in than `spec` is part of it.
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    let namespace = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: here, annotations: {{{annotation}: {value}}}}}\n"
    );
    let policy = format!(
        "apiVersion: {version}\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: here}}\nspec:\n{spec}"
    );
    let pods: String = [("here", "a"), ("here", "b"), ("there", "a")]
        .map(|(namespace, name)| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: {namespace}, name: {name}, labels: {{app: {name}}}}}\n\
                 spec: {{containers: [{{name: c, ports: [{{name: web, containerPort: 80}}]}}]}}\n"
            )
        })
        .concat();
    let read = |policies: &str| {
        let mut reader = Reader::new().v1beta1_as(meaning).assume_namespaces();
        reader.read_text("pods", &pods);
        reader.read_text("policies", policies);
        reader.finish()
    };
    let before = read(&format!("{namespace}---\n{policy}"));
    let conversion = netpol_k8s::legacy::to_v1(&before);
    let mut converted = String::new();
    for policy in &conversion.policies {
        let Ok(policy) = serde_json::to_string(policy) else { return };
        converted.push_str(&format!("---\n{policy}\n"));
    }
    let after = read(&converted);
    check(!after.has_errors(), "a server takes what is converted", &(text, after.diagnostics()));
    let ends: Vec<End> = ["here/a", "here/b", "there/a"]
        .into_iter()
        .filter_map(|pod| pod.split_once('/'))
        .map(|(namespace, name)| End::Pod(PodId::new(namespace, name)))
        .chain([End::Address([203, 0, 113, 9].into())])
        .collect();
    let traffics = [
        Traffic::Port(Protocol::Tcp, 80),
        Traffic::Port(Protocol::Tcp, 81),
        Traffic::Port(Protocol::Udp, 53),
        Traffic::Other(1),
    ];
    for (source, destination) in ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to)))
    {
        for traffic in traffics {
            let connection = Connection::new(source.clone(), destination.clone(), traffic);
            let [was, is] = [&before, &after].map(|manifests| {
                reference::allowed(manifests.cluster(), &connection, &Options::default())
            });
            check(was == is, "conversion changes no verdict", &(text, connection));
        }
    }
}

/// The spec of a cluster-wide policy, as each of the three kinds: no rule ever lets everybody through, what has a defect says
/// what follows, and what is sound can be converted to what a server accepts.
pub fn cluster_policy(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let kinds = [
        ("v1alpha2", "ClusterNetworkPolicy"),
        ("v1alpha1", "AdminNetworkPolicy"),
        ("v1alpha1", "BaselineAdminNetworkPolicy"),
    ];
    for (version, kind) in kinds {
        let mut manifest = format!(
            "apiVersion: {}/{version}\nkind: {kind}\nmetadata: {{name: default}}\nspec:\n",
            netpol_k8s::api::POLICY_GROUP
        );
        for line in text.lines() {
            manifest.push_str(&format!("  {line}\n"));
        }
        for channel in [Channel::Standard, Channel::Experimental] {
            let read = || {
                let mut reader = Reader::new().channel(channel);
                reader.read_text("fuzz", &manifest);
                reader.finish()
            };
            let manifests = read();
            check(
                read().diagnostics() == manifests.diagnostics(),
                "reading is deterministic",
                &text,
            );
            let error = |d: &netpol_k8s::Diagnostic| d.severity() == Severity::Error;
            let refused = manifests.diagnostics().iter().any(error);
            let policies = manifests.cluster().policies();
            check(refused || policies.len() == 1, "what has no defect is read", &text);
            for policy in manifests.cluster().policies() {
                for direction in netpol_core::Direction::ALL {
                    for rule in policy.rules(direction).unwrap_or_default() {
                        let denies = rule.verdict == netpol_core::Verdict::Deny;
                        let everybody = rule.matches.peers == Match::Any;
                        check(denies || !everybody, "nobody is let through unnamed", &text);
                        check(refused || !everybody, "what is sound names its peers", &text);
                    }
                }
            }
            let _lints = netpol_k8s::lint(&manifests);
        }
    }
    if let Ok(spec) = serde_json::from_str(text) {
        upgraded(spec);
    }
}

/// What an AdminNetworkPolicy becomes is accepted by a server of the newer version.
fn upgraded(spec: AdminNetworkPolicySpec) {
    let mut policy = AdminNetworkPolicy { spec: Some(spec), ..AdminNetworkPolicy::default() };
    policy.metadata.name = Some("fuzz".to_owned());
    let upgrade = netpol_k8s::upgrade(&[policy], &[], &[]);
    let errors = upgrade.diagnostics.iter().any(|d| d.severity() == Severity::Error);
    check(errors || !upgrade.policies.is_empty(), "nothing is dropped in silence", &upgrade);
    for policy in &upgrade.policies {
        let (_, found) = Converter::new().cluster_network_policy(policy, Channel::Experimental);
        let refused = found.iter().any(|d| d.severity() == Severity::Error);
        check(!refused, "what is converted is accepted", &found);
    }
}

/// A selector made of the lines of a text: `key operator value value ...`. It is broken or can be evaluated.
pub fn selector(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let mut labels = BTreeMap::new();
    let mut expressions = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ').map(str::to_owned);
        let (key, operator) = (words.next().unwrap_or_default(), words.next());
        let values: Vec<String> = words.collect();
        match operator.as_deref() {
            Some("=") => {
                labels.insert(key, values.join(" "));
            }
            operator => expressions.push(LabelSelectorRequirement {
                key,
                operator: operator.unwrap_or_default().to_owned(),
                values: (!values.is_empty()).then_some(values),
            }),
        }
    }
    let object =
        LabelSelector { match_expressions: Some(expressions), match_labels: Some(labels.clone()) };
    let Some(selector) = label_selector(&object) else { return };
    // What each line asks, read again without the selector.
    let own = Labels::from_iter(labels.clone());
    let asked = object.match_expressions.iter().flatten().all(|asked| {
        let value = labels.get(&asked.key);
        let listed = value.is_some_and(|value| asked.values.iter().flatten().any(|v| v == value));
        match asked.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            _ => value.is_none(),
        }
    });
    check(selector.matches(&own) == asked, "a selector matches what it asks for", &text);
    check(
        selector.requirements().iter().all(|r| is_label_key(r.key())),
        "no bad key survives",
        &selector,
    );
    check(!selector.is_everything() || text.lines().next().is_none(), "nothing becomes all", &text);
}

/// A CIDR in any spelling: what is read is canonical, and reads as itself.
pub fn cidr(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(cidr) = Cidr::parse(text) else { return };
    let net = cidr.net();
    check(net == net.trunc(), "no host bits", &text);
    let written = net.to_string();
    let again = Cidr::parse(&written).map(|cidr| (cidr.net(), cidr.objection()));
    check(again == Ok((net, None)), "what is written is read as itself", &(text, written));
    if let Ok(strict) = text.parse::<ipnet::IpNet>()
        && cidr.objection().is_none()
    {
        check(strict.trunc() == net, "a strict spelling means what it says", &text);
    }
}

/// A label value, and a label key.
pub fn label_value(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if is_label_value(text) {
        check(text.len() <= 63 && text.is_ascii(), "label values are short and plain", &text);
        check(text.is_empty() || is_label_key(text), "a value could be a key's name", &text);
    }
    if is_label_key(text) {
        check(text.len() <= 253 + 1 + 63, "label keys are bounded", &text);
    }
}

/// A port in a policy, as a number or a name: an entry is refused, or stands for exactly what it says.
pub fn port(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if is_port_name(text) {
        check(!text.is_empty() && text.len() <= 15, "port names are short", &text);
        check(text.parse::<u16>().is_err(), "a name is no number", &text);
    }
    let Ok(quoted) = serde_json::to_string(text) else { return };
    for port in [text, &quoted] {
        let manifest = format!(
            "{{\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicy\", \"metadata\": {{\"name\": \"p\"}}, \
             \"spec\": {{\"ingress\": [{{\"ports\": [{{\"port\": {port}}}]}}]}}}}"
        );
        let mut reader = Reader::new();
        reader.read_text("fuzz", &manifest);
        let manifests = reader.finish();
        let refused = manifests.diagnostics().iter().any(|d| d.severity() == Severity::Error);
        let open = manifests.cluster().policies().any(|policy| {
            let rules = policy.rules(netpol_core::Direction::Ingress).unwrap_or_default();
            rules.iter().any(|rule| rule.matches.ports == Match::Any)
        });
        // `null` is a port that is not written: all of TCP, which is not every protocol.
        check(!open || refused, "a port never means everything", &text);
    }
}
