//! Legacy policies out of text.

use crate::api::v1beta1::Meaning;
use crate::api::{alpha, v1beta1};
use crate::convert::defect_diagnostic;
use crate::diagnostic::{Diagnostic, quoted};
use crate::legacy::{Gate, LegacyPolicy};
use crate::lint;
use crate::object::{Object, ObjectReader};
use crate::recover::{self, Recovered};
use crate::tree::Node;
use crate::validate::{Reason, validate};
use netpol_core::{Direction, PolicyKind, SourcePosition};

/// Is an object without `apiVersion` a policy of the alpha? It has a field that no other API has.
pub(crate) fn looks_alpha(node: &Node<'_>) -> bool {
    node.field("spec").is_some_and(|spec| spec.field("allowIncoming").is_some())
}

impl ObjectReader {
    /// A policy of `extensions/v1beta1`, in the meaning that was chosen.
    pub(crate) fn v1beta1_policy(&mut self, node: &Node<'_>) {
        let mut recovered = recover::policy::<v1beta1::NetworkPolicy>(node);
        let policy = std::mem::take(&mut recovered.policy);
        let object = self.name_of(node, "NetworkPolicy");
        let meaning = self.beta.meaning;
        // What no server would have taken is the same in both meanings.
        let as_written = policy.to_v1(Meaning::Since1_7);
        let mut defects: Vec<_> =
            validate(&as_written, self.cidrs).iter().map(defect_diagnostic).collect();
        if meaning == Meaning::Before1_7 {
            defects.extend(unknown_before_1_7(&policy));
        }
        defects.extend(empty_lists(&policy, meaning));
        self.report_policy(node, &object, recovered, defects);
        let (gate, remarks) = match meaning {
            Meaning::Before1_7 => (Some(Gate::Beta), Vec::new()),
            Meaning::Since1_7 => (None, lint::policy_remarks(&as_written)),
        };
        let remarks = self.remarks(node, &object, remarks);
        let position = self.positions(node);
        let v1 = policy.to_v1(meaning);
        let policy = self.converter.policy(&v1, &position);
        let legacy = LegacyPolicy { policy, gate, remarks, v1 };
        self.add(node, Object::Legacy(Box::new(legacy)));
    }

    /// A policy of the alpha of 2016.
    pub(crate) fn alpha_policy(&mut self, node: &Node<'_>) {
        let mut recovered: Recovered<alpha::NetworkPolicy> = recover::policy(node);
        let policy = std::mem::take(&mut recovered.policy);
        let object = self.name_of(node, &PolicyKind::AlphaNetworkPolicy.to_string());
        let v1 = policy.to_v1();
        let mut defects: Vec<_> = validate(&v1, self.cidrs)
            .iter()
            .filter(|defect| !is_made_up(&policy, defect.field(), defect.reason()))
            .map(|defect| defect_diagnostic(defect).in_field(alpha_field(defect.field())))
            .collect();
        defects.extend(ambiguous(&policy));
        self.report_policy(node, &object, recovered, defects);
        let rules = node.field("spec").and_then(|spec| spec.field("allowIncoming"));
        let (in_lists, file) = (self.positions(node), self.file.clone());
        let position = |rule: Option<(Direction, usize)>| match (rule, rules) {
            (Some(_), Some(rules)) => Some(SourcePosition {
                file: file.clone(),
                line: rules.span.line,
                column: rules.span.column,
            }),
            (rule, _) => in_lists(rule),
        };
        let converted = self.converter.policy(&v1, &position);
        let legacy = LegacyPolicy {
            policy: converted.with_kind(PolicyKind::AlphaNetworkPolicy),
            gate: Some(Gate::Alpha),
            remarks: Vec::new(),
            v1,
        };
        self.add(node, Object::Legacy(Box::new(legacy)));
    }
}

/// What a server before 1.7 did not know, and so cannot have been meant for it (LEG-21).
fn unknown_before_1_7(policy: &v1beta1::NetworkPolicy) -> Vec<Diagnostic> {
    let mut defects = Vec::new();
    let mut add = |field: String, what: &str, since: &str, effect: &str| {
        let message = format!("{what} came with Kubernetes {since}: {effect}");
        let hint = "if a later server holds the object, read it with `--v1beta1-as 1.7`";
        defects.push(Diagnostic::error("LEG-21", message).in_field(field).with_hint(hint));
    };
    let Some(spec) = &policy.spec else { return defects };
    if spec.egress.is_some() {
        add("spec.egress".to_owned(), "`egress`", "1.8", "egress of the pods is closed");
    }
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if spec.policy_types.is_some() {
        let closes = types.iter().any(|name| name != "Ingress");
        let effect = if closes { "egress of the pods is closed" } else { "it says nothing here" };
        add("spec.policyTypes".to_owned(), "`policyTypes`", "1.8", effect);
    }
    for (i, rule) in spec.ingress.iter().flatten().enumerate() {
        for (j, peer) in rule.from.iter().flatten().enumerate() {
            let field = || format!("spec.ingress[{i}].from[{j}]");
            if peer.ip_block.is_some() {
                add(field(), "`ipBlock`", "1.8", "this peer matches nothing");
            }
            if peer.pod_selector.is_some() && peer.namespace_selector.is_some() {
                add(field(), "two selectors in one peer", "1.11", "this peer matches nothing");
            }
        }
        for (j, port) in rule.ports.iter().flatten().enumerate() {
            if port.protocol.as_deref() == Some("SCTP") {
                let field = format!("spec.ingress[{i}].ports[{j}].protocol");
                add(field, "SCTP", "1.12", "this entry matches nothing");
            }
        }
    }
    defects
}

/// Lists that are there and empty: nothing before 1.7, everything since (LEG-22).
fn empty_lists(policy: &v1beta1::NetworkPolicy, meaning: Meaning) -> Vec<Diagnostic> {
    let rules = policy.spec.iter().flat_map(|spec| spec.ingress.iter().flatten()).enumerate();
    let lists = rules.flat_map(|(i, rule)| {
        let empty = [
            ("from", rule.from.as_ref().is_some_and(Vec::is_empty)),
            ("ports", rule.ports.as_ref().is_some_and(Vec::is_empty)),
        ];
        empty.into_iter().filter(|(_, empty)| *empty).map(move |(list, _)| (i, list))
    });
    lists
        .map(|(i, list)| {
            let (message, hint) = match meaning {
                Meaning::Before1_7 => (
                    format!("an empty `{list}` matched nothing before 1.7, so this rule does not"),
                    format!("leave `{list}` out to mean everything"),
                ),
                Meaning::Since1_7 => (
                    format!("an empty `{list}` matches everything since 1.7, and nothing before"),
                    format!("leave `{list}` out, or list what is meant"),
                ),
            };
            Diagnostic::warning("LEG-22", message)
                .in_field(format!("spec.ingress[{i}].{list}"))
                .with_hint(hint)
        })
        .collect()
}

/// The field of the alpha object that a field of its conversion comes from.
pub(super) fn alpha_field(field: &str) -> String {
    field
        .replace("spec.ingress[0].ports", "spec.allowIncoming.toPorts")
        .replace("spec.ingress[0]", "spec.allowIncoming")
        .replace(
            ".podSelector.matchLabels",
            if field.contains("].") { ".pods" } else { ".podSelector" },
        )
}

/// Is a defect of the conversion about what stands there for nothing? [`ambiguous`] says more of it.
fn is_made_up(policy: &alpha::NetworkPolicy, field: &str, reason: Reason) -> bool {
    let incoming = policy.spec.as_ref().and_then(|spec| spec.allow_incoming.as_ref());
    if field.starts_with("spec.ingress[0].from[") {
        return reason == Reason::Required && field.ends_with(']');
    }
    let Some(rest) = field.strip_prefix("spec.ingress[0].ports[") else { return false };
    let index = rest.split(']').next().and_then(|index| index.parse::<usize>().ok());
    let entry = index.zip(incoming.and_then(|incoming| incoming.to_ports.as_ref()));
    let written = entry.and_then(|(index, ports)| ports.get(index)).and_then(|entry| entry.port);
    written.is_none() && rest.ends_with("].port")
}

/// What the alpha never said the meaning of, and what is read closed therefore (LEG-07).
fn ambiguous(policy: &alpha::NetworkPolicy) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    let mut add = |field: String, message: &str, hint: &str| {
        let hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
        let warning = Diagnostic::warning("LEG-07", message).in_field(field);
        warnings.push(warning.with_hint_if(hint));
    };
    let Some(spec) = &policy.spec else {
        add("spec".to_owned(), "without a `spec` the policy allows nothing", "");
        return warnings;
    };
    let Some(incoming) = &spec.allow_incoming else {
        let hint = "write `allowIncoming: {}` to allow everything";
        add("spec".to_owned(), "without `allowIncoming` the policy allows nothing", hint);
        return warnings;
    };
    let field = |list: &str| format!("spec.allowIncoming.{list}");
    if incoming.from.as_ref().is_some_and(Vec::is_empty) {
        let hint = "leave `from` out to mean everybody";
        add(field("from"), "an empty `from` is taken to mean nobody", hint);
    }
    for (i, source) in incoming.from.iter().flatten().enumerate() {
        if source.pods.is_none() {
            let hint = "write `pods: {}` to mean all pods of the namespace";
            add(field(&format!("from[{i}]")), "without `pods` this entry matches nobody", hint);
        }
    }
    if incoming.to_ports.as_ref().is_some_and(Vec::is_empty) {
        let hint = "leave `toPorts` out to mean every port";
        add(field("toPorts"), "an empty `toPorts` is taken to mean no port", hint);
    }
    for (i, entry) in incoming.to_ports.iter().flatten().enumerate() {
        let field = || field(&format!("toPorts[{i}]"));
        if entry.port.is_none() {
            add(field(), "without `port` this entry matches nothing", "write the number");
        }
        if let Some(name) = &entry.protocol
            && *name != name.to_ascii_uppercase()
        {
            let message = format!("{} is read as `{}`", quoted(name), name.to_ascii_uppercase());
            add(format!("{}.protocol", field()), &message, "write it in capital letters");
        }
    }
    warnings
}

impl LegacyPolicy {
    /// A field of the conversion as the object itself calls it.
    pub(super) fn field(&self, field: &str) -> String {
        match self.gate {
            Some(Gate::Alpha) => alpha_field(field),
            _ => field.to_owned(),
        }
    }
}
