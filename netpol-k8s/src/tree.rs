//! A document as a tree of values that know where they were written.
//!
//! YAML and JSON both become this tree; decoding, recovery and diagnostics work on it alone. INVARIANT: a tree is at
//! most [`MAX_DEPTH`] deep, so that recursion over it is safe.

use std::borrow::Cow;
use std::fmt;

/// How deep lists and objects may be nested. No Kubernetes type comes near it.
pub(crate) const MAX_DEPTH: usize = 128;

/// A place in a text: line and column from 1, length in characters, at least 1.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Span {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) len: u32,
}

/// A scalar that is neither text nor null, as YAML 1.1 or JSON reads it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plain {
    Bool(bool),
    Int(i64),
    /// Beyond `i64`.
    UInt(u64),
    /// Has a fraction, or is too large for an integer. JSON's `80.0` stays one, as for Go's decoder.
    Float(f64),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    /// With the text that was written.
    Plain(Plain, Cow<'a, str>),
    String(Cow<'a, str>),
    Sequence(Vec<Node<'a>>),
    Mapping(Vec<Entry<'a>>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node<'a> {
    pub(crate) value: Value<'a>,
    pub(crate) span: Span,
}

/// A key and its value. A shadowed one is followed by another with the same key, which counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) key_span: Span,
    pub(crate) value: Node<'a>,
    pub(crate) shadowed: bool,
}

impl<'a> Node<'a> {
    pub(crate) fn new(value: Value<'a>, span: Span) -> Self {
        Self { value, span }
    }

    pub(crate) fn entries(&self) -> &[Entry<'a>] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The entry of an object that counts for `key`.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry<'a>> {
        self.entries().iter().rev().find(|entry| entry.key == key)
    }

    pub(crate) fn field(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(crate) fn item(&self, index: usize) -> Option<&Self> {
        match &self.value {
            Value::Sequence(items) => items.get(index),
            _ => None,
        }
    }

    fn field_mut(&mut self, key: &str) -> Option<&mut Self> {
        match &mut self.value {
            Value::Mapping(entries) => {
                entries.iter_mut().rev().find(|entry| entry.key == key).map(|e| &mut e.value)
            }
            _ => None,
        }
    }

    fn step_mut(&mut self, segment: &Segment) -> Option<&mut Self> {
        match segment {
            Segment::Index(i) => match &mut self.value {
                Value::Sequence(items) => items.get_mut(*i),
                _ => None,
            },
            Segment::Field(key) => self.field_mut(key),
        }
    }

    pub(crate) fn find_mut(&mut self, path: &[Segment]) -> Option<&mut Self> {
        path.iter().try_fold(self, |node, segment| node.step_mut(segment))
    }

    /// Takes a key out of an object, shadowed entries included.
    pub(crate) fn remove_field(&mut self, key: &str) {
        if let Value::Mapping(entries) = &mut self.value {
            entries.retain(|entry| entry.key != key);
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// What it is, in words for a message.
    pub(crate) fn describe(&self) -> String {
        use crate::diagnostic::quoted;
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Plain(Plain::Bool(_), text) => format!("the boolean {}", quoted(text)),
            Value::Plain(_, text) => format!("the number {}", quoted(text)),
            Value::String(text) => format!("the text {}", quoted(text)),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "an object".to_owned(),
        }
    }

    /// Where a field such as `spec.ingress[0].from` was written; the nearest thing around it if it was not. With `key`,
    /// the place of that key of an object, or of that text of a list.
    pub(crate) fn locate(&self, field: &str, key: Option<&str>) -> Span {
        let path = parse_path(field);
        let (mut node, mut span) = (self, self.span);
        for (i, segment) in path.iter().enumerate() {
            let last = i + 1 == path.len();
            let next = match (segment, &node.value) {
                (Segment::Index(i), Value::Sequence(items)) => items.get(*i).map(|n| (n, n.span)),
                (Segment::Field(name), _) => node.entry(name).map(|entry| {
                    // A scalar says more than its key; for a list or an object the key is the better place.
                    let scalar = matches!(entry.value.value, Value::Plain(..) | Value::String(_));
                    (&entry.value, if last && scalar { entry.value.span } else { entry.key_span })
                }),
                _ => None,
            };
            let Some((found, place)) = next else { break };
            (node, span) = (found, place);
        }
        match key {
            Some(key) => node.entry(key).map_or(span, |entry| entry.key_span),
            None => span,
        }
    }
}

/// One step of a path into an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Segment {
    Field(String),
    Index(usize),
}

impl Segment {
    pub(crate) fn field(&self) -> Option<&str> {
        match self {
            Self::Field(name) => Some(name),
            Self::Index(_) => None,
        }
    }
}

/// A path as kube-apiserver writes it.
pub(crate) struct PathDisplay<'a>(pub(crate) &'a [Segment]);

impl fmt::Display for PathDisplay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if i == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(i) => write!(f, "[{i}]")?,
            }
        }
        Ok(())
    }
}

/// Reads what [`PathDisplay`] writes, for names without dots and brackets, which is all that a defect can name.
fn parse_path(field: &str) -> Vec<Segment> {
    let mut path = Vec::new();
    for part in field.split('.').filter(|part| !part.is_empty()) {
        let mut pieces = part.split('[');
        path.extend(pieces.next().map(|name| Segment::Field(name.to_owned())));
        path.extend(pieces.filter_map(|i| i.strip_suffix(']')?.parse().ok()).map(Segment::Index));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_round_trip() {
        for path in ["spec.ingress[0].from[12].ipBlock.cidr", "metadata.name", "spec", "a[1][2].b"]
        {
            assert_eq!(PathDisplay(&parse_path(path)).to_string(), path);
        }
    }
}
