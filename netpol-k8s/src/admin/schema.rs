//! What a custom resource definition says about an object, checked on the tree as a kube-apiserver checks it (CNP-22).
//!
//! A [`Schema`] is a table. All defects are found at once, types included, each with its full path. Rules in CEL are code: see
//! [`cel`](super::cel).

use crate::diagnostic::{Diagnostic, Location, quoted};
use crate::tree::{Entry, Node, PathDisplay, Plain, Segment, Span, Value};
use crate::validate::{Reason, nearest};
use std::collections::HashSet;

/// What a value must be.
pub(super) enum Schema {
    Text(Text),
    /// A whole number of this range.
    Number(i64, i64),
    List(&'static List),
    Object(&'static Object),
    /// Text by text.
    Labels,
    /// Of no interest: the status.
    Anything,
}

/// Which texts are accepted.
pub(super) enum Text {
    Any,
    /// At most so many characters.
    Short(usize),
    /// One of these.
    Word(&'static [&'static str]),
    DomainName,
}

pub(super) struct List {
    pub(super) items: Schema,
    pub(super) min: usize,
    pub(super) max: usize,
    /// No item twice.
    pub(super) set: bool,
}

pub(super) struct Object {
    pub(super) fields: &'static [(&'static str, Schema)],
    pub(super) required: &'static [&'static str],
    /// How many fields there must be, and may be.
    pub(super) min: usize,
    pub(super) max: usize,
}

impl Object {
    /// Any number of fields.
    pub(super) const fn plain(
        fields: &'static [(&'static str, Schema)],
        required: &'static [&'static str],
    ) -> Self {
        Self { fields, required, min: 0, max: usize::MAX }
    }

    /// Exactly one field.
    pub(super) const fn one_of(fields: &'static [(&'static str, Schema)]) -> Self {
        Self { fields, required: &[], min: 1, max: 1 }
    }
}

/// A defect, where it is, and whether the value cannot be decoded because of it.
pub(super) struct SchemaDefect {
    pub(super) path: Vec<Segment>,
    pub(super) diagnostic: Diagnostic,
    pub(super) undecodable: bool,
}

/// Checks a value against a schema; `file` is only for places.
pub(super) struct Checker<'f> {
    locate: &'f dyn Fn(Span) -> Option<Location>,
    path: Vec<Segment>,
    pub(super) defects: Vec<SchemaDefect>,
}

impl<'f> Checker<'f> {
    pub(super) fn new(locate: &'f dyn Fn(Span) -> Option<Location>) -> Self {
        Self { locate, path: Vec::new(), defects: Vec::new() }
    }

    fn add(
        &mut self,
        node: &Node<'_>,
        reason: Option<Reason>,
        message: String,
    ) -> &mut SchemaDefect {
        let code = if reason.is_some() { "CNP-22" } else { "VAL-27" };
        let mut diagnostic = Diagnostic::error(code, message)
            .in_field(PathDisplay(&self.path).to_string())
            .at((self.locate)(node.span));
        if let Some(reason) = reason {
            diagnostic = diagnostic.because(reason);
        }
        let path = self.path.clone();
        self.defects.push(SchemaDefect { path, diagnostic, undecodable: false });
        // INVARIANT: one was just pushed.
        #[expect(clippy::expect_used, reason = "one was just pushed")]
        self.defects.last_mut().expect("a defect")
    }

    fn wrong_type(&mut self, node: &Node<'_>, expected: &str, hint: Option<&str>) {
        let message = format!("expected {expected}, found {}", node.describe());
        let defect = self.add(node, Some(Reason::TypeInvalid), message);
        defect.undecodable = true;
        if let Some(hint) = hint {
            defect.diagnostic.set_hint(hint);
        }
    }

    fn within(&mut self, segment: Segment, check: impl FnOnce(&mut Self)) {
        self.path.push(segment);
        check(self);
        self.path.pop();
    }

    pub(super) fn value(&mut self, node: &Node<'_>, schema: &Schema) {
        match schema {
            Schema::Anything => {}
            Schema::Text(text) => self.text(node, text),
            Schema::Number(min, max) => self.number(node, *min, *max),
            Schema::List(list) => self.list(node, list),
            Schema::Object(object) => self.object(node, object),
            Schema::Labels => self.labels(node),
        }
    }

    fn text(&mut self, node: &Node<'_>, wanted: &Text) {
        let Some(text) = node.as_str() else {
            let hint = match &node.value {
                Value::Plain(_, text) => Some(format!("put it in quotation marks: `\"{text}\"`")),
                _ => None,
            };
            return self.wrong_type(node, "text", hint.as_deref());
        };
        match wanted {
            Text::Any => {}
            Text::Short(max) => {
                let count = text.chars().count();
                if count > *max {
                    let message = format!("{count} characters are too long: at most {max}");
                    self.add(node, Some(Reason::TooLong), message);
                }
            }
            Text::Word(words) => {
                if !words.contains(&text) {
                    let known: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                    let message = format!("{} is none of {}", quoted(text), known.join(", "));
                    let defect = self.add(node, Some(Reason::NotSupported), message);
                    let other_version = match text {
                        "Allow" if words.contains(&"Accept") => Some("Accept"),
                        "Accept" if words.contains(&"Allow") => Some("Allow"),
                        _ => None,
                    };
                    let other_version = other_version.map(|word| format!("did you mean `{word}`?"));
                    if let Some(hint) = nearest(text, words).or(other_version) {
                        defect.diagnostic.set_hint(hint);
                    }
                }
            }
            Text::DomainName => {
                if !is_domain_name(text) {
                    let message = format!(
                        "{} is no domain name of two labels or more, such as `www.example.com` or `*.example.com`",
                        quoted(text)
                    );
                    self.add(node, Some(Reason::Invalid), message);
                }
            }
        }
    }

    fn number(&mut self, node: &Node<'_>, min: i64, max: i64) {
        let fits = match &node.value {
            Value::Plain(Plain::Int(number), _) => (min..=max).contains(number),
            Value::Plain(Plain::UInt(_), _) => false,
            Value::String(text) if text.parse::<i64>().is_ok() => {
                let hint = format!("write it without quotation marks: `{text}`");
                return self.wrong_type(node, "a whole number", Some(&hint));
            }
            _ => return self.wrong_type(node, "a whole number", None),
        };
        if !fits && let Value::Plain(plain, text) = &node.value {
            let undecodable = match plain {
                Plain::Int(number) => i32::try_from(*number).is_err(),
                _ => true,
            };
            let message = format!("{} is not between {min} and {max}", quoted(text));
            self.add(node, Some(Reason::Invalid), message).undecodable = undecodable;
        }
    }

    fn list(&mut self, node: &Node<'_>, list: &List) {
        let Value::Sequence(items) = &node.value else {
            let hint = match &node.value {
                Value::Mapping(_) => "put `- ` in front of the first key",
                _ => "put it in brackets, `[...]`",
            };
            return self.wrong_type(node, "a list", Some(hint));
        };
        let count = items.len();
        if count > list.max {
            let message = format!("{count} entries are too many: at most {}", list.max);
            self.add(node, Some(Reason::TooMany), message);
        } else if count < list.min {
            self.add(node, Some(Reason::Invalid), "must not be empty".to_owned());
        }
        let mut known = HashSet::new();
        for (i, item) in items.iter().enumerate() {
            self.within(Segment::Index(i), |check| {
                check.value(item, &list.items);
                if let Some(text) = item.as_str()
                    && list.set
                    && !known.insert(text)
                {
                    let message = format!("{} is in the list already", quoted(text));
                    check.add(item, Some(Reason::Duplicate), message);
                }
            });
        }
    }

    fn labels(&mut self, node: &Node<'_>) {
        if !matches!(node.value, Value::Mapping(_)) {
            return self.wrong_type(node, "an object", None);
        }
        for entry in node.entries() {
            self.within(Segment::Field(entry.key.to_string()), |check| {
                if entry.shadowed {
                    check.twice(entry);
                } else {
                    check.text(&entry.value, &Text::Any);
                }
            });
        }
    }

    fn twice(&mut self, entry: &Entry<'_>) {
        let message = format!("{} is written twice; the last one counts", quoted(&entry.key));
        let node = Node::new(Value::Null, entry.key_span);
        self.add(&node, None, message);
    }

    pub(super) fn object(&mut self, node: &Node<'_>, object: &Object) {
        if !matches!(node.value, Value::Mapping(_)) {
            let hint = matches!(node.value, Value::Sequence(_)).then_some("take the `-` away");
            return self.wrong_type(node, "an object", hint);
        }
        let mut known = 0;
        for entry in node.entries() {
            let schema = object.fields.iter().find(|(name, _)| *name == entry.key);
            self.within(Segment::Field(entry.key.to_string()), |check| match schema {
                _ if entry.shadowed => check.twice(entry),
                Some((_, schema)) => {
                    known += 1;
                    check.value(&entry.value, schema);
                }
                None => {
                    let message = format!("there is no field {}", quoted(&entry.key));
                    let place = Node::new(Value::Null, entry.key_span);
                    let names: Vec<_> = object.fields.iter().map(|(name, _)| *name).collect();
                    let hint = nearest(&entry.key, &names);
                    let defect = check.add(&place, None, message);
                    defect.undecodable = true;
                    if let Some(hint) = hint {
                        defect.diagnostic.set_hint(hint);
                    }
                }
            });
        }
        for name in object.required {
            if node.field(name).is_none() {
                self.within(Segment::Field((*name).to_owned()), |check| {
                    check.add(node, Some(Reason::Required), "must be there".to_owned());
                });
            }
        }
        let names: Vec<_> = object.fields.iter().map(|(name, _)| format!("`{name}`")).collect();
        if known < object.min {
            let message = format!("needs one of {}", names.join(", "));
            self.add(node, Some(Reason::Invalid), message);
        } else if known > object.max {
            let message = format!("{known} fields are too many: only one of {}", names.join(", "));
            self.add(node, Some(Reason::TooMany), message)
                .diagnostic
                .set_hint("make an entry of the list of each of them");
        }
    }
}

/// The pattern of the definition, with its oddity: the first character of a label may be any from `A` to `z`, some signs
/// included (CNP-19).
fn is_domain_name(text: &str) -> bool {
    let text = text.strip_prefix("*.").unwrap_or(text);
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let first = |byte: &u8| matches!(byte, b'A'..=b'z' | b'0'..=b'9');
        let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        match bytes {
            [] => false,
            [only] => first(only),
            [head, middle @ .., last] => {
                first(head) && middle.iter().all(inner) && last.is_ascii_alphanumeric()
            }
        }
    };
    text.contains('.') && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_names() {
        for name in ["a.b", "*.a.b", "a.b.", "[.com", "`a.b", "a_b.c", "1.2", "*.com.", "A-b.Z"] {
            let accepted = name != "*.com.";
            assert_eq!(is_domain_name(name), accepted, "{name}");
        }
        for name in
            ["", "com", "*.com", "a..b", ".a.b", "a`.b", "-a.b", "a-.b", "a.b..", "*a.b", "*"]
        {
            assert!(!is_domain_name(name), "{name}");
        }
    }
}
