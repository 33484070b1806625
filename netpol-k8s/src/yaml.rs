//! YAML text into trees with positions, with the values that `kubectl` reads.
//!
//! The parser is `saphyr-parser` (YAML 1.2 syntax); plain scalars resolve as in YAML 1.1, as go-yaml does for Kubernetes:
//! `yes` and `on` are booleans, `0120` is 80, `8e1` is 80, an unquoted date is text. A merge key (`<<`) takes effect where
//! it stands: what comes later wins.
//!
//! Hostile input: nesting is bounded by [`MAX_DEPTH`], and what aliases copy by a budget in proportion to the text.

use crate::diagnostic::quoted;
use crate::json::EntryList;
use crate::tree::{Entry, MAX_DEPTH, Node, Plain, Span, Value};
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

#[derive(Debug)]
pub(crate) struct YamlError {
    pub(crate) message: String,
    pub(crate) span: Span,
}

/// Every document in `text`, which begins on `line` of its file. Empty documents are left out.
pub(crate) fn parse(text: &str, line: u32) -> Result<Vec<Node<'_>>, YamlError> {
    let mut builder = Builder {
        line,
        frames: Vec::new(),
        anchors: HashMap::new(),
        copies_left: 10_000 + text.len() / 8,
        documents: Vec::new(),
        root: None,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| YamlError {
            message: error.info().to_owned(),
            span: builder.span_at(error.marker(), 1),
        })?;
        let length = if span.start.line() == span.end.line() { span.len() } else { 1 };
        let place = builder.span_at(&span.start, length);
        if event == Event::StreamEnd {
            break;
        }
        builder.event(event, place)?;
    }
    Ok(builder.documents)
}

struct Builder<'a> {
    line: u32,
    frames: Vec<Frame<'a>>,
    // What an alias stands for, and how many nodes that is.
    anchors: HashMap<usize, (Node<'a>, usize)>,
    copies_left: usize,
    documents: Vec<Node<'a>>,
    root: Option<Node<'a>>,
}

struct Frame<'a> {
    span: Span,
    anchor: usize,
    nodes: usize,
    kind: FrameKind<'a>,
}

enum FrameKind<'a> {
    Sequence(Vec<Node<'a>>),
    Mapping { entries: EntryList<'a>, key: Option<Key<'a>> },
}

enum Key<'a> {
    Name(Cow<'a, str>, Span),
    Merge,
}

impl<'a> Builder<'a> {
    fn span_at(&self, marker: &saphyr_parser::Marker, length: usize) -> Span {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span {
            line: self.line.saturating_add(number(marker.line().saturating_sub(1))),
            column: number(marker.col()).saturating_add(1),
            len: number(length).max(1),
        }
    }

    fn event(&mut self, event: Event<'a>, span: Span) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if self.wants_key() {
                    return self.key(text, style, anchor, tag.as_deref(), span);
                }
                let node = Node::new(scalar(text, style, tag.as_deref(), span)?, span);
                self.finished(node, anchor, 1)
            }
            Event::SequenceStart(anchor, _) => {
                self.open(FrameKind::Sequence(Vec::new()), anchor, span)
            }
            Event::MappingStart(anchor, _) => {
                let kind = FrameKind::Mapping { entries: EntryList::default(), key: None };
                self.open(kind, anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.frames.pop() else { return Ok(()) };
                let value = match frame.kind {
                    FrameKind::Sequence(items) => Value::Sequence(items),
                    FrameKind::Mapping { entries, .. } => Value::Mapping(entries.into_entries()),
                };
                self.finished(Node::new(value, frame.span), frame.anchor, frame.nodes)
            }
            Event::Alias(anchor) => {
                let Some((_, nodes)) = self.anchors.get(&anchor) else {
                    return Err(error(span, "an alias to something that it is part of"));
                };
                let nodes = *nodes;
                self.pay(nodes, span)?;
                let Some((node, _)) = self.anchors.get(&anchor) else { return Ok(()) };
                let node = node.clone();
                // INVARIANT of the tree: a copy may make it deeper than the text is.
                if self.frames.len() + depth(&node) > MAX_DEPTH {
                    return Err(too_deep(span));
                }
                if self.wants_key() {
                    let Value::String(name) = node.value else {
                        return Err(error(span, "a key must be text"));
                    };
                    return self.named(name, span);
                }
                self.finished(node, 0, nodes)
            }
            Event::DocumentEnd => {
                self.documents.extend(self.root.take());
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {
                Ok(())
            }
        }
    }

    fn wants_key(&self) -> bool {
        matches!(self.frames.last(), Some(Frame { kind: FrameKind::Mapping { key: None, .. }, .. }))
    }

    fn open(&mut self, kind: FrameKind<'a>, anchor: usize, span: Span) -> Result<(), YamlError> {
        if self.wants_key() {
            return Err(error(span, "a list or an object cannot be a key"));
        }
        if self.frames.len() >= MAX_DEPTH {
            return Err(too_deep(span));
        }
        self.frames.push(Frame { span: Span { len: 1, ..span }, anchor, nodes: 1, kind });
        Ok(())
    }

    fn pay(&mut self, nodes: usize, span: Span) -> Result<(), YamlError> {
        match self.copies_left.checked_sub(nodes) {
            Some(left) => {
                self.copies_left = left;
                Ok(())
            }
            None => Err(error(span, "aliases make this text many times larger than it is")),
        }
    }

    fn key(
        &mut self,
        text: Cow<'a, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<(), YamlError> {
        if style == ScalarStyle::Plain && tag.is_none() && text == "<<" {
            if let Some(Frame { kind: FrameKind::Mapping { key, .. }, .. }) = self.frames.last_mut()
            {
                *key = Some(Key::Merge);
            }
            return Ok(());
        }
        // JSON has text keys only; these are the conversions of sigs.k8s.io/yaml.
        let name = match scalar(text, style, tag, span)? {
            Value::String(text) => text,
            Value::Plain(Plain::Bool(b), _) => Cow::Borrowed(if b { "true" } else { "false" }),
            Value::Plain(Plain::Int(n), _) => Cow::Owned(n.to_string()),
            Value::Plain(Plain::UInt(n), _) => Cow::Owned(n.to_string()),
            Value::Plain(Plain::Float(_), text) => text,
            _ => return Err(error(span, "a key must not be empty or null")),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, (Node::new(Value::String(name.clone()), span), 1));
        }
        self.named(name, span)
    }

    fn named(&mut self, name: Cow<'a, str>, span: Span) -> Result<(), YamlError> {
        if let Some(Frame { kind: FrameKind::Mapping { key, .. }, .. }) = self.frames.last_mut() {
            *key = Some(Key::Name(name, span));
        }
        Ok(())
    }

    fn finished(&mut self, node: Node<'a>, anchor: usize, nodes: usize) -> Result<(), YamlError> {
        if anchor > 0 {
            self.pay(nodes, node.span)?;
            self.anchors.insert(anchor, (node.clone(), nodes));
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(node).filter(|node| !node.is_null());
            return Ok(());
        };
        frame.nodes += nodes;
        match &mut frame.kind {
            FrameKind::Sequence(items) => items.push(node),
            FrameKind::Mapping { entries, key } => match key.take() {
                Some(Key::Name(key, key_span)) => {
                    entries.push(Entry { key, key_span, value: node, shadowed: false });
                }
                Some(Key::Merge) => merge(entries, node)?,
                None => {}
            },
        }
        Ok(())
    }
}

/// `<<: object` or `<<: [objects]`, where the first object wins.
fn merge<'a>(into: &mut EntryList<'a>, from: Node<'a>) -> Result<(), YamlError> {
    let span = from.span;
    let sources = match from.value {
        Value::Mapping(entries) => vec![entries],
        Value::Sequence(items) => items
            .into_iter()
            .rev()
            .map(|item| match item.value {
                Value::Mapping(entries) => Ok(entries),
                _ => Err(error(item.span, "a merge needs an object or a list of objects")),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(error(span, "a merge needs an object or a list of objects")),
    };
    for entry in sources.into_iter().flatten().filter(|entry| !entry.shadowed) {
        into.merge(entry);
    }
    Ok(())
}

fn error(span: Span, message: &str) -> YamlError {
    YamlError { message: message.to_owned(), span }
}

fn too_deep(span: Span) -> YamlError {
    YamlError { message: format!("nested more than {MAX_DEPTH} levels deep"), span }
}

/// Recursion is safe: no tree is deeper than [`MAX_DEPTH`].
fn depth(node: &Node<'_>) -> usize {
    1 + match &node.value {
        Value::Sequence(items) => items.iter().map(depth).max().unwrap_or(0),
        Value::Mapping(entries) => entries.iter().map(|e| depth(&e.value)).max().unwrap_or(0),
        _ => 0,
    }
}

fn scalar<'a>(
    text: Cow<'a, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    span: Span,
) -> Result<Value<'a>, YamlError> {
    // saphyr gives the handle and the suffix of `!!str`; other tags mean nothing to Kubernetes.
    let core = tag.map(|tag| if tag.is_yaml_core_schema() { tag.suffix.as_str() } else { "" });
    let wrong = |kind: &str| {
        Err(error(span, &format!("{} is not what its tag `!!{kind}` says", quoted(&text))))
    };
    match core {
        None if style != ScalarStyle::Plain => Ok(Value::String(text)),
        None => Ok(resolve(text)),
        Some("null") => match resolve(text.clone()) {
            Value::Null => Ok(Value::Null),
            _ => wrong("null"),
        },
        Some("bool") => match resolve(text.clone()) {
            value @ Value::Plain(Plain::Bool(_), _) => Ok(value),
            _ => wrong("bool"),
        },
        Some("int") => match resolve(text.clone()) {
            value @ Value::Plain(Plain::Int(_) | Plain::UInt(_), _) => Ok(value),
            _ => wrong("int"),
        },
        Some("float") => match resolve(text.clone()) {
            value @ Value::Plain(Plain::Float(_) | Plain::Int(_) | Plain::UInt(_), _) => Ok(value),
            _ => wrong("float"),
        },
        Some(_) => Ok(Value::String(text)),
    }
}

/// What a plain scalar is, as go-yaml version 2 reads it.
pub(crate) fn resolve(text: Cow<'_, str>) -> Value<'_> {
    let plain = match &*text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            Plain::Bool(true)
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            Plain::Bool(false)
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Plain::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Plain::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => Plain::Float(f64::NAN),
        other => match other.bytes().next() {
            Some(b'0'..=b'9' | b'+' | b'-' | b'.') => match number(other) {
                Some(plain) => plain,
                None => return Value::String(text),
            },
            _ => return Value::String(text),
        },
    };
    Value::Plain(plain, text)
}

fn number(text: &str) -> Option<Plain> {
    // A cheap look first: most scalars that begin with a digit are addresses, versions and quantities.
    if text.len() > 64 {
        return None;
    }
    let stripped: Cow<'_, str> = if text.contains('_') && !text.starts_with('.') {
        text.replace('_', "").into()
    } else {
        text.into()
    };
    integer(&stripped).or_else(|| float(&stripped))
}

/// Go's `ParseInt` with base 0: `0x`, `0o`, `0b`, a leading 0 for octal.
fn integer(text: &str) -> Option<Plain> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let lower = |prefix: &str| {
        let head = digits.get(..2)?;
        head.eq_ignore_ascii_case(prefix).then(|| digits.get(2..)).flatten()
    };
    let (digits, radix) = if let Some(rest) = lower("0x") {
        (rest, 16)
    } else if let Some(rest) = lower("0o") {
        (rest, 8)
    } else if let Some(rest) = lower("0b") {
        (rest, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (digits.get(1..)?, 8)
    } else {
        (digits, 10)
    };
    // Rust would take a second sign.
    if !digits.bytes().next()?.is_ascii_alphanumeric() {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        return 0_i64.checked_sub_unsigned(magnitude).map(Plain::Int);
    }
    Some(i64::try_from(magnitude).map_or(Plain::UInt(magnitude), Plain::Int))
}

/// Digits with at most one point and an exponent. One without a fraction becomes an integer on the way through JSON.
fn float(text: &str) -> Option<Plain> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let good = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| {
            let e = e.strip_prefix(['-', '+']).unwrap_or(e);
            !e.is_empty() && digits(e)
        });
    if !good {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    // Every f64 below 2^53 without a fraction is exactly an i64.
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        #[expect(clippy::cast_possible_truncation, reason = "in range and without a fraction")]
        return Some(Plain::Int(value as i64));
    }
    value.is_finite().then_some(Plain::Float(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_yaml_1_1() {
        use Plain::{Bool, Float, Int, UInt};
        for (text, plain) in [
            ("yes", Bool(true)),
            ("Off", Bool(false)),
            ("y", Bool(true)),
            ("80", Int(80)),
            ("+80", Int(80)),
            ("-1", Int(-1)),
            ("0120", Int(80)),
            ("0o120", Int(80)),
            ("0x50", Int(80)),
            ("0b1010000", Int(80)),
            ("8_0", Int(80)),
            ("080", Int(80)),
            ("8e1", Int(80)),
            ("80.0", Int(80)),
            ("80.5", Float(80.5)),
            (".5", Float(0.5)),
            ("9223372036854775808", UInt(9_223_372_036_854_775_808)),
            ("0", Int(0)),
            (".inf", Float(f64::INFINITY)),
            ("1e300", Float(1e300)),
            ("-9223372036854775808", Int(i64::MIN)),
        ] {
            assert_eq!(resolve(text.into()), Value::Plain(plain, text.into()), "{text}");
        }
        for text in [
            "1:20",
            "2024-01-01",
            "1.2.3",
            "10.0.0.0/8",
            "0xg",
            "1e",
            "-",
            "+",
            "--1",
            "0x",
            "100m",
            "yES",
            "e1",
            ".",
            "+-1",
            "0x-1",
        ] {
            assert_eq!(resolve(text.into()), Value::String(text.into()), "{text}");
        }
        for text in ["", "~", "null"] {
            assert_eq!(resolve(text.into()), Value::Null, "{text}");
        }
    }

    fn shape(text: &str) -> String {
        fn show(node: &Node<'_>) -> String {
            match &node.value {
                Value::Null => "null".to_owned(),
                Value::Plain(_, text) | Value::String(text) => text.to_string(),
                Value::Sequence(items) => {
                    format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
                }
                Value::Mapping(entries) => {
                    let pair = |e: &Entry<'_>| {
                        format!("{}{}={}", if e.shadowed { "!" } else { "" }, e.key, show(&e.value))
                    };
                    format!("{{{}}}", entries.iter().map(pair).collect::<Vec<_>>().join(" "))
                }
            }
        }
        match parse(text, 1) {
            Ok(documents) => documents.iter().map(show).collect::<Vec<_>>().join(" | "),
            Err(error) => format!("{}:{}: {}", error.span.line, error.span.column, error.message),
        }
    }

    #[test]
    fn trees() {
        for (text, expected) in [
            ("a: 1\nb: [x, y]", "{a=1 b=[x y]}"),
            ("", ""),
            ("# only a comment\n", ""),
            ("---\n", ""),
            ("a: 1\n...\n---\nb: 2", "{a=1} | {b=2}"),
            ("a: 1\na: 2", "{!a=1 a=2}"),
            ("yes: 1\n2: x", "{true=1 2=x}"),
            ("x: &a {p: 1, q: 2}\nz: {<<: *a, q: 3}", "{x={p=1 q=2} z={p=1 q=3}}"),
            ("x: &a {p: 1}\nz: {p: 0, <<: *a}", "{x={p=1} z={p=1}}"),
            (
                "x: [&a {p: 1}, &b {p: 2, q: 2}]\nz: {<<: [*a, *b]}",
                "{x=[{p=1} {p=2 q=2}] z={p=1 q=2}}",
            ),
            ("a: !!str 80\r\nb: \"no\"\r\n", "{a=80 b=no}"),
            ("x: 1\n y: 2", "2:3: mapping values are not allowed in this context"),
            ("? [a]\n: b", "1:3: a list or an object cannot be a key"),
            ("a: &x [*x]", "1:8: an alias to something that it is part of"),
            ("~: 1", "1:1: a key must not be empty or null"),
            ("a: !!int x", "1:4: `x` is not what its tag `!!int` says"),
        ] {
            assert_eq!(shape(text), expected, "{text}");
        }
    }

    #[test]
    fn hostile_texts_are_bounded() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..10 {
            let before = format!("*a{},", i - 1).repeat(9);
            bomb.push_str(&format!("a{i}: &a{i} [{before}]\n"));
        }
        assert!(shape(&bomb).contains("many times larger"));
        assert!(
            shape(&"[".repeat(100_000)).contains("levels")
                || !shape(&"[".repeat(100_000)).is_empty()
        );
        assert!(shape(&"- ".repeat(100_000)).contains("levels"));
        let deep: String = (0..1000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        assert!(shape(&deep).contains("levels"));
        let mut copies = format!("# {}\na0: &a0 [x]\n", "-".repeat(500_000));
        for i in 1..300 {
            copies.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
        }
        assert!(shape(&copies).contains("levels"), "{}", shape(&copies));
    }
}
