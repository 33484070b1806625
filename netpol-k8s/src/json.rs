//! JSON text into trees with exact positions.
//!
//! A file may hold several values one after another, as `kubectl` accepts them. Recursion is bounded by
//! [`MAX_DEPTH`].

use crate::tree::{Entry, MAX_DEPTH, Node, Plain, Span, Value};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

/// Why a text is no JSON, and where.
#[derive(Debug)]
pub(crate) struct JsonError {
    pub(crate) message: String,
    pub(crate) span: Span,
}

pub(crate) struct JsonParser<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    // A place on the current line and its column from 0: columns are counted on from here, since a file may be one line.
    known: (usize, u32),
}

type Parsed<T> = Result<T, JsonError>;

impl<'a> JsonParser<'a> {
    /// Reads `text`, which begins on `line` of its file.
    pub(crate) fn new(text: &'a str, line: u32) -> Self {
        Self { text, at: 0, line, known: (0, 0) }
    }

    /// The next value, or nothing at the end.
    pub(crate) fn next_value(&mut self) -> Parsed<Option<Node<'a>>> {
        self.skip_space();
        if self.peek().is_none() { Ok(None) } else { self.value(0).map(Some) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b) = self.peek() {
            match b {
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    self.known = (self.at, 0);
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                _ => break,
            }
        }
    }

    /// From `start`, which never goes back, to here.
    fn span_from(&mut self, start: usize) -> Span {
        let chars = |from, to| {
            let n = self.text.get(from..to).map_or(0, |t| t.chars().count());
            u32::try_from(n).unwrap_or(u32::MAX)
        };
        let (from, column) = self.known;
        let column = column.saturating_add(chars(from, start));
        let len = chars(start, self.at).max(1);
        self.known = (start, column);
        Span { line: self.line, column: column.saturating_add(1), len }
    }

    fn error<T>(&mut self, message: impl Into<String>) -> Parsed<T> {
        Err(JsonError { message: message.into(), span: self.span_from(self.at) })
    }

    fn unexpected<T>(&mut self, wanted: &str) -> Parsed<T> {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(c) => self.error(format!("expected {wanted}, found `{}`", c.escape_debug())),
            None => self.error(format!("expected {wanted}, found the end of the text")),
        }
    }

    fn value(&mut self, depth: usize) -> Parsed<Node<'a>> {
        if depth >= MAX_DEPTH {
            return self.error(format!("nested more than {MAX_DEPTH} levels deep"));
        }
        let start = self.at;
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => {
                let text = self.string()?;
                Ok(Node::new(Value::String(text), self.span_from(start)))
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                for (word, value) in [
                    ("null", Value::Null),
                    ("true", Value::Plain(Plain::Bool(true), Cow::Borrowed("true"))),
                    ("false", Value::Plain(Plain::Bool(false), Cow::Borrowed("false"))),
                ] {
                    if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
                        self.at += word.len();
                        return Ok(Node::new(value, self.span_from(start)));
                    }
                }
                self.unexpected("a value")
            }
        }
    }

    fn array(&mut self, depth: usize) -> Parsed<Node<'a>> {
        self.at += 1;
        let mut span = self.span_from(self.at - 1);
        span.len = 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Node::new(Value::Sequence(items), span));
        }
        loop {
            self.skip_space();
            items.push(self.value(depth + 1)?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Node::new(Value::Sequence(items), span));
                }
                _ => return self.unexpected("`,` or `]`"),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Parsed<Node<'a>> {
        self.at += 1;
        let span = self.span_from(self.at - 1);
        let mut entries = EntryList::default();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Node::new(Value::Mapping(entries.into_entries()), span));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return self.unexpected("a key in quotation marks");
            }
            let start = self.at;
            let key = self.string()?;
            let key_span = self.span_from(start);
            self.skip_space();
            if self.peek() != Some(b':') {
                return self.unexpected("`:`");
            }
            self.at += 1;
            self.skip_space();
            let value = self.value(depth + 1)?;
            entries.push(Entry { key, key_span, value, shadowed: false });
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Node::new(Value::Mapping(entries.into_entries()), span));
                }
                _ => return self.unexpected("`,` or `}`"),
            }
        }
    }

    fn number(&mut self) -> Parsed<Node<'a>> {
        let start = self.at;
        let digits = |parser: &mut Self| {
            let from = parser.at;
            while parser.peek().is_some_and(|b| b.is_ascii_digit()) {
                parser.at += 1;
            }
            parser.at > from
        };
        let mut whole = true;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else if !digits(self) {
            return self.unexpected("a digit");
        }
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            if !digits(self) {
                return self.unexpected("a digit");
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            whole = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !digits(self) {
                return self.unexpected("a digit");
            }
        }
        if self.peek().is_some_and(|b| b.is_ascii_alphanumeric()) {
            return self.unexpected("`,` or the end of the list or object");
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        let plain = match (whole, text.parse(), text.parse()) {
            (true, Ok(n), _) => Plain::Int(n),
            (true, _, Ok(n)) => Plain::UInt(n),
            _ => Plain::Float(text.parse().unwrap_or(f64::NAN)),
        };
        Ok(Node::new(Value::Plain(plain, Cow::Borrowed(text)), self.span_from(start)))
    }

    fn string(&mut self) -> Parsed<Cow<'a, str>> {
        self.at += 1;
        let mut start = self.at;
        let mut owned: Option<String> = None;
        loop {
            // Every byte that is looked for is ASCII, so `start` and `at` stay on character boundaries.
            match self.peek() {
                Some(b'"') => {
                    let piece = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(piece),
                        Some(text) => Cow::Owned(text + piece),
                    });
                }
                Some(b'\\') => {
                    let text = owned.get_or_insert_default();
                    text.push_str(self.text.get(start..self.at).unwrap_or_default());
                    self.at += 1;
                    let c = self.escape()?;
                    owned.get_or_insert_default().push(c);
                    start = self.at;
                }
                Some(0..=0x1f) => {
                    return self.error("a control character inside quotation marks");
                }
                Some(_) => self.at += 1,
                None => return self.error("text without its closing quotation mark"),
            }
        }
    }

    fn escape(&mut self) -> Parsed<char> {
        let Some(b) = self.peek() else { return self.unexpected("an escape") };
        self.at += 1;
        Ok(match b {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex4()?;
                let low_follows = self.text.get(self.at..).is_some_and(|t| t.starts_with("\\u"));
                if (0xd800..0xdc00).contains(&first) && low_follows {
                    let before = self.at;
                    self.at += 2;
                    let second = self.hex4()?;
                    if (0xdc00..0xe000).contains(&second) {
                        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                        return Ok(char::from_u32(code).unwrap_or('\u{fffd}'));
                    }
                    self.at = before;
                }
                // Half a pair becomes the replacement character, as in Go.
                char::from_u32(first).unwrap_or('\u{fffd}')
            }
            _ => {
                self.at -= 1;
                return self.unexpected("an escape");
            }
        })
    }

    fn hex4(&mut self) -> Parsed<u32> {
        let digits = self.text.get(self.at..self.at + 4).unwrap_or_default();
        if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return self.unexpected("four hexadecimal digits");
        }
        self.at += 4;
        Ok(u32::from_str_radix(digits, 16).unwrap_or_default())
    }
}

/// Entries of an object in order; an earlier one with the same key becomes shadowed.
#[derive(Debug, Default)]
pub(crate) struct EntryList<'a> {
    entries: Vec<Entry<'a>>,
    // Only for large objects: a search through a few keys is faster than hashing them.
    index: HashMap<Cow<'a, str>, usize>,
    // Where a YAML merge brought an entry in, and nothing has overridden it.
    merged: BTreeSet<usize>,
}

impl<'a> EntryList<'a> {
    const SMALL: usize = 16;

    fn find(&self, key: &str) -> Option<usize> {
        if self.index.is_empty() {
            self.entries.iter().rposition(|entry| entry.key == key)
        } else {
            self.index.get(key).copied()
        }
    }

    fn append(&mut self, entry: Entry<'a>) {
        if !self.index.is_empty() {
            self.index.insert(entry.key.clone(), self.entries.len());
        }
        self.entries.push(entry);
        if self.index.is_empty() && self.entries.len() > Self::SMALL {
            self.index =
                self.entries.iter().enumerate().map(|(i, entry)| (entry.key.clone(), i)).collect();
        }
    }

    /// The next entry. What a merge brought in is overridden; anything else becomes a duplicate.
    pub(crate) fn push(&mut self, entry: Entry<'a>) {
        if let Some(i) = self.find(&entry.key)
            && let Some(earlier) = self.entries.get_mut(i)
        {
            if self.merged.remove(&i) {
                *earlier = entry;
                return;
            }
            earlier.shadowed = true;
        }
        self.append(entry);
    }

    /// An entry of a YAML merge, in place of an earlier one.
    pub(crate) fn merge(&mut self, entry: Entry<'a>) {
        let at = self.find(&entry.key);
        match at.and_then(|i| self.entries.get_mut(i)) {
            Some(earlier) => *earlier = entry,
            None => self.append(entry),
        }
        self.merged.insert(at.unwrap_or(self.entries.len().saturating_sub(1)));
    }

    pub(crate) fn into_entries(self) -> Vec<Entry<'a>> {
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to_json(node: &Node<'_>) -> serde_json::Value {
        use serde_json::Value as Json;
        match &node.value {
            Value::Null => Json::Null,
            Value::Plain(Plain::Bool(b), _) => (*b).into(),
            Value::Plain(Plain::Int(n), _) => (*n).into(),
            Value::Plain(Plain::UInt(n), _) => (*n).into(),
            Value::Plain(Plain::Float(n), _) => (*n).into(),
            Value::String(s) => s.as_ref().into(),
            Value::Sequence(items) => items.iter().map(to_json).collect(),
            Value::Mapping(entries) => entries
                .iter()
                .filter(|e| !e.shadowed)
                .map(|e| (e.key.to_string(), to_json(&e.value)))
                .collect(),
        }
    }

    fn parse(text: &str) -> Result<serde_json::Value, String> {
        let mut parser = JsonParser::new(text, 1);
        let value = parser.next_value().map_err(|e| e.message)?.ok_or("empty")?;
        match parser.next_value() {
            Ok(None) => Ok(to_json(&value)),
            _ => Err("more".to_owned()),
        }
    }

    #[test]
    fn positions_count_characters() {
        let mut parser = JsonParser::new("\n {\"é\": [1,\n\"x\"]}", 5);
        let node = parser.next_value().unwrap().unwrap();
        assert_eq!(node.span, Span { line: 6, column: 2, len: 1 });
        let entry = node.entry("é").unwrap();
        assert_eq!(entry.key_span, Span { line: 6, column: 3, len: 3 });
        let Value::Sequence(items) = &entry.value.value else { panic!() };
        assert_eq!(items[0].span, Span { line: 6, column: 9, len: 1 });
        assert_eq!(items[1].span, Span { line: 7, column: 1, len: 3 });
    }

    #[test]
    fn broken_texts() {
        for text in [
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            "-",
            "\"",
            "\"\\x\"",
            "tru",
            "nul",
            "\"\u{1}\"",
            "[1 2]",
            "1x",
            "\"\\u12\"",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(1_000_000)).unwrap_err().contains("levels"));
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}",:0-9.eE+\- \\nutrlfas/"]{0,24}"#) {
            match serde_json::from_str::<serde_json::Value>(&text) {
                Ok(value) => prop_assert_eq!(parse(&text), Ok(value)),
                // Go accepts numbers beyond every float and half surrogates; serde_json does not.
                Err(e) if e.to_string().contains("out of range") || e.to_string().contains("surrogate") => {}
                Err(_) => prop_assert!(parse(&text).is_err(), "{}", text),
            }
        }
    }
}
