//! What is wrong, or suspicious, in the objects that were read.
//!
//! A diagnostic never stops anything: the object beside it is still read, and the broken part of an object fails
//! closed (NP-97). Messages are lower case, one sentence, with the user's own text in backticks.

use crate::validate::Reason;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "an object is defective or it is not")]
pub enum Severity {
    /// A cluster would refuse the object, or it cannot be understood. What is broken fails closed.
    Error,
    /// Accepted, but surely not meant, or not taken into account.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A stretch of one line of a file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "a place in a file has no more parts")]
pub struct Location {
    /// The file as the user named it; `-` is standard input.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
    /// The column of the first character.
    pub column: u32,
    /// How many characters to underline, at least 1.
    pub length: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One finding about one object, or about a text that holds none.
///
/// ```
/// let mut reader = netpol_k8s::Reader::new();
/// reader.read_text("web.yaml", "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: web}\n\
///                               spec: {podSelecter: {}}\n");
/// let manifests = reader.finish();
/// let text = manifests.diagnostics()[0].to_string();
/// assert!(text.starts_with("web.yaml:4:8: error: NetworkPolicy default/web: spec.podSelecter: "), "{text}");
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Diagnostic {
    severity: Severity,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Location>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    unreadable: bool,
    // One entry of the map that `field` names, to find its place in the text.
    #[serde(skip)]
    key: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity,
            code,
            location: None,
            object: None,
            field: None,
            reason: None,
            message: message.into(),
            hint: None,
            unreadable: false,
            key: None,
        }
    }

    pub(crate) fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    pub(crate) fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// A text or a file that could not be understood as a whole.
    pub(crate) fn unreadable(code: &'static str, message: impl Into<String>) -> Self {
        Self { unreadable: true, ..Self::error(code, message) }
    }

    pub(crate) fn at(mut self, location: impl Into<Option<Location>>) -> Self {
        self.location = location.into();
        self
    }

    pub(crate) fn about(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    pub(crate) fn in_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into()).filter(|field| !field.is_empty());
        self
    }

    pub(crate) fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    pub(crate) fn with_key(mut self, key: Option<&str>) -> Self {
        self.key = key.map(str::to_owned);
        self
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn set_hint(&mut self, hint: impl Into<String>) {
        self.hint = Some(hint.into());
    }

    /// Says what follows from the defect.
    pub(crate) fn add_consequence(&mut self, consequence: &str) {
        self.message.push_str(": ");
        self.message.push_str(consequence);
    }

    pub(crate) fn with_hint_if(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// Error or warning.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The rule that it is about: a number of the rule list such as `VAL-16`, or the name of a lint such as
    /// `selects-no-pod`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Where in the text, if the object came from one.
    #[must_use]
    pub fn location(&self) -> Option<&Location> {
        self.location.as_ref()
    }

    /// The object, as in `NetworkPolicy shop/web`.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        self.object.as_deref()
    }

    /// The field as kube-apiserver writes it, as in `spec.ingress[0].from[1].ipBlock.cidr`.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// The reason that kube-apiserver gives for refusing the field, if it would be the server's validation that refuses it.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Could a file, or a whole document of it, not be read at all? What it holds is then unknown, and an answer about the
    /// cluster would be a guess.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.unreadable
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `file:line:column: error: object: field: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        write!(f, "{}: ", self.severity)?;
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// User text for a message: one line, not endless, in backticks.
pub(crate) fn quoted(text: &str) -> String {
    const MAX: usize = 80;
    let mut out = String::from("`");
    for (n, c) in text.chars().enumerate() {
        if n == MAX {
            out.push_str("...");
            break;
        }
        if c.is_control() || c == '\u{feff}' || c == '\u{2028}' || c == '\u{2029}' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('`');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_whatever_the_user_wrote() {
        assert_eq!(quoted("a\nb\u{1b}[31m"), "`a\\nb\\u{1b}[31m`");
        assert_eq!(quoted(&"x".repeat(1000)).len(), 85);
    }

    #[test]
    fn display_leaves_out_what_is_unknown() {
        let bare = Diagnostic::error("VAL-12", "no peer");
        assert_eq!(bare.to_string(), "error: no peer");
        let location = Location { file: "f".into(), line: 2, column: 3, length: 1 };
        let full = bare.at(location).about("NetworkPolicy a/b").in_field("spec");
        assert_eq!(full.to_string(), "f:2:3: error: NetworkPolicy a/b: spec: no peer");
    }
}
