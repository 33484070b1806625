//! Trees into the typed objects of `k8s-openapi`, as leniently as Kubernetes' own decoder and no more.
//!
//! This is a serde `Deserializer`, so it works with any version of `k8s-openapi`, and it decodes by the type that is
//! wanted: `null` is the empty value of any type (NP-08), a number is no text (VAL-28), and a key that a struct does not
//! know is reported with its path (VAL-27).

use crate::diagnostic::quoted;
use crate::tree::{Entry, Node, Plain, Segment, Span, Value};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use std::cell::RefCell;
use std::fmt;

/// A value of the wrong type, and where.
#[derive(Debug)]
pub(crate) struct DecodeError(Box<Details>);

#[derive(Debug)]
struct Details {
    message: String,
    hint: Option<String>,
    // Innermost first while the error travels up.
    path: Vec<Segment>,
    span: Option<Span>,
}

impl DecodeError {
    fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            message: message.into(),
            hint: None,
            path: Vec::new(),
            span: None,
        }))
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    fn within(mut self, segment: Segment, span: Span) -> Self {
        self.0.path.push(segment);
        self.0.span.get_or_insert(span);
        self
    }

    /// Message, hint, path from the object down, and place.
    pub(crate) fn into_parts(self) -> (String, Option<String>, Vec<Segment>, Option<Span>) {
        let Details { message, hint, mut path, span } = *self.0;
        path.reverse();
        (message, hint, path, span)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        // Only what decodes by what it finds comes here; the other mistakes are found below.
        let expected = match expected.to_string().as_str() {
            "IntOrString" => "a number or a name".to_owned(),
            "Quantity" => "a quantity such as `100m`".to_owned(),
            other => other.to_owned(),
        };
        let found = match unexpected {
            Unexpected::Bool(b) => format!("the boolean `{b}`"),
            Unexpected::Float(n) => format!("the number `{n}`"),
            Unexpected::Map => "an object".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Unit => "nothing".to_owned(),
            other => other.to_string(),
        };
        Self::new(format!("expected {expected}, found {found}"))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match unexpected {
            Unexpected::Signed(n) => Self::new(format!("`{n}` is out of range")),
            Unexpected::Unsigned(n) => Self::new(format!("`{n}` is out of range")),
            other => Self::new(format!("{other} is not {expected}")),
        }
    }
}

/// What is odd in an object that could be decoded.
#[derive(Debug)]
pub(crate) enum Issue {
    /// A key that the type does not have, and the keys that it has.
    Unknown { path: Vec<Segment>, span: Span, fields: &'static [&'static str] },
    /// A key that is written again further on (VAL-27).
    Duplicate { path: Vec<Segment>, span: Span },
    /// A whole number with a leading zero, which YAML 1.1 may read as octal.
    LeadingZero { path: Vec<Segment>, span: Span, text: String, value: i64 },
}

/// Decodes an object, and lists what is odd in it. `apiVersion` and `kind` are not looked at: the caller has.
pub(crate) fn decode<T: DeserializeOwned>(node: &Node<'_>) -> Result<(T, Vec<Issue>), DecodeError> {
    let issues = RefCell::new(Vec::new());
    let value = T::deserialize(Decoder { node, path: None, issues: &issues }).map_err(|error| {
        let mut error = error;
        error.0.span.get_or_insert(node.span);
        error
    })?;
    Ok((value, issues.into_inner()))
}

/// The way to a value; it lives on the stack.
struct Path<'p> {
    parent: Option<&'p Self>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Field(&'p str),
    Index(usize),
}

impl From<Step<'_>> for Segment {
    fn from(step: Step<'_>) -> Self {
        match step {
            Step::Field(name) => Self::Field(name.to_owned()),
            Step::Index(i) => Self::Index(i),
        }
    }
}

impl Path<'_> {
    fn segments(&self) -> Vec<Segment> {
        let mut segments = vec![self.step.into()];
        let mut parent = self.parent;
        while let Some(path) = parent {
            segments.push(path.step.into());
            parent = path.parent;
        }
        segments.reverse();
        segments
    }
}

#[derive(Clone, Copy)]
struct Decoder<'a, 'p> {
    node: &'a Node<'a>,
    path: Option<&'p Path<'p>>,
    issues: &'p RefCell<Vec<Issue>>,
}

impl Decoder<'_, '_> {
    fn wrong(&self, expected: &str) -> DecodeError {
        DecodeError::new(format!("expected {expected}, found {}", self.node.describe()))
    }

    fn text(&self) -> Result<&str, DecodeError> {
        match &self.node.value {
            Value::String(text) => Ok(text),
            Value::Null => Ok(""),
            Value::Plain(_, text) => {
                Err(self.wrong("text").hint(format!("put it in quotation marks: `\"{text}\"`")))
            }
            _ => Err(self.wrong("text")),
        }
    }

    /// Notes a number that people and Kubernetes read differently.
    fn note_leading_zero(&self, plain: Plain, text: &str) {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text).as_bytes();
        if let Plain::Int(value) = plain
            && matches!(digits, [b'0', b'0'..=b'9' | b'_', ..])
            && let Some(path) = self.path
        {
            let (path, text) = (path.segments(), text.to_owned());
            let issue = Issue::LeadingZero { path, span: self.node.span, text, value };
            self.issues.borrow_mut().push(issue);
        }
    }

    fn integer(&self, range: std::ops::RangeInclusive<i64>) -> Result<i64, DecodeError> {
        let out_of_range =
            |text: &str| DecodeError::new(format!("{} is out of range", quoted(text)));
        match &self.node.value {
            Value::Null => Ok(0),
            Value::Plain(plain @ (Plain::Int(_) | Plain::UInt(_)), text) => {
                self.note_leading_zero(*plain, text);
                match plain {
                    Plain::Int(n) if range.contains(n) => Ok(*n),
                    _ => Err(out_of_range(text)),
                }
            }
            Value::String(text) if text.parse::<i64>().is_ok() => Err(self
                .wrong("a whole number")
                .hint(format!("write it without quotation marks: `{text}`"))),
            _ => Err(self.wrong("a whole number")),
        }
    }

    fn list<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let items: &[Node<'_>] = match &self.node.value {
            Value::Sequence(items) => items,
            Value::Null => &[],
            Value::Mapping(_) => {
                return Err(self.wrong("a list").hint("put `- ` in front of the first key"));
            }
            _ => return Err(self.wrong("a list").hint("put it in brackets, `[...]`")),
        };
        visitor.visit_seq(Items { of: self, items: items.iter().enumerate() })
    }

    fn object<'de, V: Visitor<'de>>(
        self,
        fields: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let entries: &[Entry<'_>] = match &self.node.value {
            Value::Mapping(entries) => entries,
            Value::Null => &[],
            Value::Sequence(_) => {
                return Err(self.wrong("an object").hint("take the `-` away"));
            }
            _ => return Err(self.wrong("an object")),
        };
        visitor.visit_map(Fields { of: self, fields, entries: entries.iter(), current: None })
    }
}

macro_rules! integers {
    ($($method:ident, $visit:ident, $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let n = self.integer(i64::from(<$type>::MIN)..=i64::from(<$type>::MAX))?;
            let n = <$type>::try_from(n).map_err(|_| self.wrong("a whole number"))?;
            visitor.$visit(n)
        }
    )*};
}

impl<'de> Deserializer<'de> for Decoder<'_, '_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Plain(plain, text) => {
                self.note_leading_zero(*plain, text);
                match *plain {
                    Plain::Bool(b) => visitor.visit_bool(b),
                    Plain::Int(n) => visitor.visit_i64(n),
                    Plain::UInt(n) => visitor.visit_u64(n),
                    Plain::Float(n) => visitor.visit_f64(n),
                }
            }
            Value::String(text) => visitor.visit_str(text),
            Value::Sequence(_) => self.list(visitor),
            Value::Mapping(_) => self.object(None, visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Plain(Plain::Bool(b), _) => visitor.visit_bool(*b),
            Value::Null => visitor.visit_bool(false),
            _ => Err(self.wrong("`true` or `false`")),
        }
    }

    integers! {
        deserialize_i8, visit_i8, i8;
        deserialize_i16, visit_i16, i16;
        deserialize_i32, visit_i32, i32;
        deserialize_i64, visit_i64, i64;
        deserialize_u8, visit_u8, u8;
        deserialize_u16, visit_u16, u16;
        deserialize_u32, visit_u32, u32;
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Plain(Plain::UInt(n), _) => visitor.visit_u64(*n),
            _ => visitor.visit_i64(self.integer(0..=i64::MAX)?),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Null => visitor.visit_f64(0.0),
            Value::Plain(Plain::Bool(_), _) => Err(self.wrong("a number")),
            Value::Plain(..) => self.deserialize_any(visitor),
            _ => Err(self.wrong("a number")),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name == "Quantity" && self.node.is_null() {
            return visitor.visit_str("0");
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.list(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.object(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.object(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_enum(self.text()?.to_owned().into_deserializer())
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }
}

struct Items<'a, 'p> {
    of: Decoder<'a, 'p>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Node<'a>>>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let Some((i, node)) = self.items.next() else { return Ok(None) };
        let path = Path { parent: self.of.path, step: Step::Index(i) };
        seed.deserialize(Decoder { node, path: Some(&path), issues: self.of.issues })
            .map(Some)
            .map_err(|error| error.within(Segment::Index(i), node.span))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'a, 'p> {
    of: Decoder<'a, 'p>,
    /// The keys that the type has; none for a map, which has any.
    fields: Option<&'static [&'static str]>,
    entries: std::slice::Iter<'a, Entry<'a>>,
    current: Option<&'a Entry<'a>>,
}

impl<'de> MapAccess<'de> for Fields<'_, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        for entry in self.entries.by_ref() {
            let path = Path { parent: self.of.path, step: Step::Field(&entry.key) };
            let issue = |make: &dyn Fn(Vec<Segment>) -> Issue| {
                self.of.issues.borrow_mut().push(make(path.segments()));
            };
            if entry.shadowed {
                issue(&|path| Issue::Duplicate { path, span: entry.key_span });
                continue;
            }
            let top = self.of.path.is_none() && matches!(&*entry.key, "apiVersion" | "kind");
            if let Some(fields) = self.fields
                && !top
                && !fields.contains(&&*entry.key)
            {
                issue(&|path| Issue::Unknown { path, span: entry.key_span, fields });
                continue;
            }
            if top {
                continue;
            }
            self.current = Some(entry);
            let key: de::value::StrDeserializer<'_, DecodeError> = (*entry.key).into_deserializer();
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let Some(entry) = self.current.take() else {
            return Err(DecodeError::new("a value without a key"));
        };
        let path = Path { parent: self.of.path, step: Step::Field(&entry.key) };
        seed.deserialize(Decoder { node: &entry.value, path: Some(&path), issues: self.of.issues })
            .map_err(|error| error.within(Segment::Field(entry.key.to_string()), entry.value.span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::PathDisplay;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::api::networking::v1::NetworkPolicy;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    #[track_caller]
    fn check<T: DeserializeOwned>(text: &str, expected: &str) {
        let documents = crate::yaml::parse(text, 1).unwrap();
        let answer = match decode::<T>(&documents[0]) {
            Ok((_, issues)) => {
                let show = |issue: &Issue| match issue {
                    Issue::Unknown { path, span, .. } => {
                        format!("{}: unknown {}", span.line, PathDisplay(path))
                    }
                    Issue::Duplicate { path, span } => {
                        format!("{}: duplicate {}", span.line, PathDisplay(path))
                    }
                    Issue::LeadingZero { path, span, value, .. } => {
                        format!("{}: {} means {value}", span.line, PathDisplay(path))
                    }
                };
                issues.iter().map(show).collect::<Vec<_>>().join(", ")
            }
            Err(error) => {
                let (message, _, path, span) = error.into_parts();
                format!("{}: {}: {message}", span.unwrap().line, PathDisplay(&path))
            }
        };
        assert_eq!(answer, expected, "{text}");
    }

    #[test]
    fn wrong_types_have_a_place() {
        let policy = |spec: &str, expected: &str| {
            check::<NetworkPolicy>(&format!("spec:\n  {spec}"), expected)
        };
        policy(
            "podSelector: {matchLabels: {a: no}}",
            "2: spec.podSelector.matchLabels.a: expected text, found the boolean `no`",
        );
        policy(
            "ingress: [{ports: [{port: 80}, {port: 80.5}]}]",
            "2: spec.ingress[0].ports[1].port: expected a number or a name, found the number `80.5`",
        );
        policy(
            "ingress: [{ports: [{endPort: \"90\"}]}]",
            "2: spec.ingress[0].ports[0].endPort: expected a whole number, found the text `90`",
        );
        policy("ingress: {}", "2: spec.ingress: expected a list, found an object");
        policy(
            "ingress: [{from: {}}]",
            "2: spec.ingress[0].from: expected a list, found an object",
        );
        policy(
            "ingress: [{ports: [{port: 2147483648}]}]",
            "2: spec.ingress[0].ports[0].port: `2147483648` is out of range",
        );
        policy("ingress: [{ports: [{port: 0120}]}]", "2: spec.ingress[0].ports[0].port means 80");
        policy(
            "podSelecter: {}\n  podSelector: {}\n  podSelector: {}",
            "2: unknown spec.podSelecter, 3: duplicate spec.podSelector",
        );
    }

    #[test]
    fn null_is_the_empty_value() {
        let text = "metadata: null\nspec: {podSelector: , ingress: [null, {ports: [null], from: null}], \
                    policyTypes: [null]}";
        let documents = crate::yaml::parse(text, 1).unwrap();
        let (policy, issues) = decode::<NetworkPolicy>(&documents[0]).unwrap();
        assert!(issues.is_empty());
        let spec = policy.spec.unwrap();
        assert_eq!(spec.policy_types.unwrap(), [""]);
        let ingress = spec.ingress.unwrap();
        assert_eq!(ingress[0], Default::default());
        assert_eq!(ingress[1].ports.as_deref(), Some(&[Default::default()][..]));
        assert_eq!(ingress[1].from, None);
    }

    #[test]
    fn a_pod_with_all_sorts_of_types() {
        let text = "metadata: {name: a, creationTimestamp: 2026-01-01T00:00:00Z, managedFields: [{fieldsV1: {f: {}}}]}\n\
                    spec:\n  containers:\n  - name: c\n    resources: {limits: {cpu: 2, memory: 1.5, x: 100m, y: null}}\n    \
                    livenessProbe: {httpGet: {port: http}, exec: null}\n    ports: [{containerPort: 80}]\n";
        check::<Pod>(text, "");
        check::<Pod>(
            "metadata: {creationTimestamp: yesterday}",
            "1: metadata.creationTimestamp: failed to parse four digit integer as year: invalid digit, expected 0-9 but got y",
        );
        let documents = crate::yaml::parse("ports: [{port: 1}, {port: a}]", 1).unwrap();
        let (rule, _) =
            decode::<k8s_openapi::api::networking::v1::NetworkPolicyIngressRule>(&documents[0])
                .unwrap();
        assert_eq!(rule.ports.unwrap()[1].port, Some(IntOrString::String("a".to_owned())));
    }
}
