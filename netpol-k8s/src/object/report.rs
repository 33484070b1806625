//! What is wrong with an object, with its name, place and hint.

use super::{MOST_DIAGNOSTICS, ObjectReader};
use crate::admin::Kind;
use crate::decode::Issue;
use crate::diagnostic::{Diagnostic, Location, Severity, quoted};
use crate::recover::Finding;
use crate::tree::{Node, PathDisplay, Segment, Span};
use std::sync::Arc;

impl ObjectReader {
    pub(crate) fn name_of(&self, node: &Node<'_>, kind: &str) -> String {
        let metadata = node.field("metadata");
        let text = |key| metadata.and_then(|m| m.field(key)).and_then(Node::as_str);
        let name = text("name").or_else(|| text("generateName")).filter(|name| !name.is_empty());
        let Some(name) = name else { return kind.to_owned() };
        let cluster_wide = Kind::ALL.iter().any(|admin| admin.name() == kind);
        if cluster_wide || matches!(kind, "Namespace" | "Node") {
            return format!("{kind} {name}");
        }
        let namespace = text("namespace").filter(|namespace| !namespace.is_empty());
        format!("{kind} {}/{name}", namespace.unwrap_or_else(|| self.converter.default_namespace()))
    }

    /// Diagnostics of a conversion, which does not know places.
    pub(super) fn keep(&mut self, node: &Node<'_>, diagnostics: Vec<Diagnostic>) {
        for diagnostic in diagnostics.into_iter().take(MOST_DIAGNOSTICS) {
            let span = node.locate(diagnostic.field().unwrap_or_default(), diagnostic.key());
            let location = self.location(span);
            self.found.diagnostics.push(diagnostic.at(location));
        }
    }

    pub(super) fn finding(
        &mut self,
        finding: Finding,
        severity: Severity,
        code: &'static str,
        object: &str,
    ) {
        let hint = match severity {
            Severity::Error => finding.hint,
            Severity::Warning => {
                Some(finding.hint.unwrap_or_else(|| "policy does not depend on it".to_owned()))
            }
        };
        let diagnostic = Diagnostic::new(severity, code, finding.message);
        self.report(diagnostic.in_field(finding.path).with_hint_if(hint), finding.span, object);
    }

    pub(super) fn issue(&mut self, issue: Issue, severity: Severity, object: &str) {
        match issue {
            Issue::Unknown { path, span, fields } => {
                let key = path.last().and_then(Segment::field).unwrap_or_default();
                // Old servers stored a status, which said nothing about traffic (NP-01).
                let status = path.len() == 1 && key == "status";
                let severity = if status { Severity::Warning } else { severity };
                let hint = field_hint(&path, key, fields);
                let message = format!("there is no field {}", quoted(key));
                let diagnostic = Diagnostic::new(severity, "VAL-27", message);
                let diagnostic = diagnostic.in_field(PathDisplay(&path).to_string());
                self.report(diagnostic.with_hint_if(hint), span, object);
            }
            Issue::Duplicate { path, span } => {
                let key = path.last().and_then(Segment::field).unwrap_or_default();
                let message = format!("{} is written twice; the last one counts", quoted(key));
                let diagnostic = Diagnostic::new(severity, "VAL-27", message);
                self.report(diagnostic.in_field(PathDisplay(&path).to_string()), span, object);
            }
            // Only a policy's numbers are ports; a file mode may well be octal.
            Issue::LeadingZero { .. } if severity == Severity::Warning => {}
            Issue::LeadingZero { path, span, text, value } => {
                let message = format!("{} is read as {value} by Kubernetes", quoted(&text));
                let diagnostic = Diagnostic::warning("leading-zero", message)
                    .in_field(PathDisplay(&path).to_string())
                    .with_hint(format!("write `{value}`"));
                self.report(diagnostic, span, object);
            }
        }
    }

    pub(crate) fn report(&mut self, diagnostic: Diagnostic, span: Span, object: &str) {
        let location = self.location(span);
        self.found.diagnostics.push(diagnostic.at(location).about(object));
    }

    pub(crate) fn location(&self, span: Span) -> Location {
        Location {
            file: Arc::clone(&self.file),
            line: span.line,
            column: span.column,
            length: span.len.max(1),
        }
    }
}

fn field_hint(path: &[Segment], key: &str, fields: &'static [&'static str]) -> Option<String> {
    let has = |field: &str| fields.contains(&field);
    match key {
        "to" if has("from") => Some("an ingress rule says `from`".to_owned()),
        "from" if has("to") => Some("an egress rule says `to`".to_owned()),
        "from" | "to" | "ports" if has("policyTypes") => {
            Some(format!("`{key}` belongs into an entry of `ingress` or `egress`"))
        }
        "cidr" | "except" if has("ipBlock") => Some(format!("`{key}` belongs into an `ipBlock`")),
        "name" if has("endPort") => Some("the name of a port is the value of `port`".to_owned()),
        _ => similar(key, fields).map(|field| format!("did you mean `{field}`?")).or_else(|| {
            let selector = has("matchLabels") && path.len() > 1;
            selector.then(|| "labels belong into `matchLabels`".to_owned())
        }),
    }
}

/// The field that a misspelt one was probably meant to be.
fn similar(key: &str, fields: &'static [&'static str]) -> Option<&'static str> {
    // A key that is much longer than any known one is no misspelling, and the comparison is not linear.
    if key.len() > 64 {
        return None;
    }
    let lower = key.to_ascii_lowercase();
    fields
        .iter()
        .map(|field| (strsim::jaro_winkler(&lower, &field.to_ascii_lowercase()), *field))
        .filter(|(closeness, _)| *closeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)))
        .map(|(_, field)| field)
}
