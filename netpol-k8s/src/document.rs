//! A text into its documents.
//!
//! A text is cut at lines that begin with `---` before anything is parsed, so that a syntax error in one document never
//! hides another. YAML forbids such a line inside a document, and JSON has no place for it, so no cut can be wrong. A
//! document that begins with `{` or `[` is JSON, or a row of JSON values; if it is not, it may still be YAML.

use crate::diagnostic::{Diagnostic, Location};
use crate::json::{JsonError, JsonParser};
use crate::tree::{Node, Span};
use crate::yaml;
use std::sync::Arc;

/// A piece of a text between two separators.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Chunk<'a> {
    pub(crate) text: &'a str,
    /// The line of the file on which it begins, from 1.
    pub(crate) line: u32,
}

/// The pieces of `text` that may hold something.
pub(crate) fn split(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = Vec::new();
    let (mut start, mut start_line) = (0, 1_u32);
    let (mut at, mut line) = (0, 1_u32);
    let mut push = |from: usize, to: usize, line: u32| {
        let piece = text.get(from..to).unwrap_or_default();
        if !is_blank(piece) {
            chunks.push(Chunk { text: piece, line });
        }
    };
    for piece in text.split_inclusive('\n') {
        if at > start && is_separator(piece) {
            push(start, at, start_line);
            (start, start_line) = (at, line);
        }
        at += piece.len();
        line = line.saturating_add(1);
    }
    push(start, text.len(), start_line);
    chunks
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Nothing but separators, comments and directives?
fn is_blank(chunk: &str) -> bool {
    chunk.lines().all(|line| {
        let line = if is_separator(line) { line.get(3..).unwrap_or_default() } else { line };
        let line = line.trim();
        line.is_empty() || line.starts_with(['#', '%']) || line == "..."
    })
}

/// The documents of a chunk, or what is wrong with it. Objects before a mistake in a row of JSON values are kept.
pub(crate) fn parse<'a>(
    chunk: Chunk<'a>,
    file: &Arc<str>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Node<'a>> {
    let body = chunk.text.strip_prefix("---").unwrap_or(chunk.text);
    let json = body.trim_start().starts_with(['{', '[']);
    let (documents, failure) = if json { parse_json(body, chunk.line) } else { (Vec::new(), None) };
    let (message, span) = match (json, failure) {
        (true, None) => return documents,
        (_, failure) => match (yaml::parse(chunk.text, chunk.line), failure) {
            (Ok(documents), _) => return documents,
            // Text that is quoted like JSON was meant as JSON.
            (Err(_), Some(error)) if body.contains("\":") => (error.message, error.span),
            (Err(error), _) => (error.message, error.span),
        },
    };
    let span = inside(chunk, span);
    let location =
        Location { file: Arc::clone(file), line: span.line, column: span.column, length: span.len };
    diagnostics.push(
        Diagnostic::unreadable("syntax", format!("cannot read this document: {message}"))
            .at(location)
            .with_hint_if(syntax_hint(chunk, span).map(str::to_owned)),
    );
    documents
}

/// What is missing at the end of a text is shown at the end of its last line.
fn inside(chunk: Chunk<'_>, span: Span) -> Span {
    let lines = u32::try_from(chunk.text.lines().count()).unwrap_or(u32::MAX);
    let last = chunk.line.saturating_add(lines.saturating_sub(1));
    if span.line <= last {
        return span;
    }
    let characters = chunk.text.lines().last().map_or(0, |line| line.chars().count());
    Span { line: last, column: u32::try_from(characters).unwrap_or(u32::MAX).max(1), len: 1 }
}

fn parse_json(text: &str, line: u32) -> (Vec<Node<'_>>, Option<JsonError>) {
    let mut parser = JsonParser::new(text, line);
    let mut documents = Vec::new();
    loop {
        match parser.next_value() {
            Ok(Some(node)) => documents.push(node),
            Ok(None) => return (documents, None),
            Err(error) => return (documents, Some(error)),
        }
    }
}

fn syntax_hint(chunk: Chunk<'_>, span: Span) -> Option<&'static str> {
    if chunk.text.contains("{{") && chunk.text.contains("}}") {
        return Some("this looks like a template: render the chart first, as with `helm template`");
    }
    let line = |n: u32| {
        let n = usize::try_from(n.saturating_sub(chunk.line)).ok()?;
        chunk.text.lines().nth(n)
    };
    let indent = |text: &str| text.trim_start_matches([' ', '\t']).len();
    let tab =
        [line(span.line), line(span.line.saturating_sub(1))].into_iter().flatten().any(|text| {
            text.get(..text.len() - indent(text)).is_some_and(|indent| indent.contains('\t'))
        });
    tab.then_some("YAML is indented by spaces, never by tabs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(u32, &str)]) {
        let chunks: Vec<_> = split(text).into_iter().map(|c| (c.line, c.text)).collect();
        assert_eq!(chunks, expected);
    }

    #[test]
    fn cut_at_separator_lines_only() {
        check("a: 1\n---\nb: 2\n", &[(1, "a: 1\n"), (2, "---\nb: 2\n")]);
        check(
            "---\na: 1\n--- # note\nb: |\n  ---\n",
            &[(1, "---\na: 1\n"), (3, "--- # note\nb: |\n  ---\n")],
        );
        check("\u{feff}a: 1\r\n---\r\nb: 2", &[(1, "a: 1\r\n"), (2, "---\r\nb: 2")]);
        check("# c\n---\n\n---\n---\n", &[]);
        check("---x: 1\n", &[(1, "---x: 1\n")]);
        check("%YAML 1.1\n---\na: 1\n", &[(2, "---\na: 1\n")]);
    }

    fn read(text: &str) -> (usize, Vec<String>) {
        let mut diagnostics = Vec::new();
        let file: Arc<str> = "f".into();
        let n = split(text).into_iter().map(|c| parse(c, &file, &mut diagnostics).len()).sum();
        (n, diagnostics.iter().map(|d| format!("{d} / {}", d.hint().unwrap_or(""))).collect())
    }

    #[test]
    fn one_broken_document_hides_no_other() {
        let (documents, diagnostics) =
            read("a: 1\n---\nb: [\n---\nc: 3\n---\n{\"a\": 1}{\"b\": 2} {\"c\"}\n");
        assert_eq!(documents, 4);
        assert!(
            diagnostics[0].starts_with("f:4:1: error: cannot read this document")
                || diagnostics[0].starts_with("f:3:"),
            "{}",
            diagnostics[0]
        );
        assert!(diagnostics[1].starts_with("f:7:22: error:"), "{}", diagnostics[1]);
        assert_eq!(diagnostics.len(), 2);
    }

    #[test]
    fn json_or_flow_yaml() {
        assert_eq!(read("{a: b}"), (1, vec![]));
        assert_eq!(read("--- {a: b}"), (1, vec![]));
        assert_eq!(read("{\"a\":\n\t1}\n{}"), (2, vec![]));
    }

    #[test]
    fn hints() {
        let hint = |text: &str| read(text).1[0].clone();
        assert!(hint("a: 1\n{{ if .Values.x }}\nb: 2\n").contains("helm template"));
        assert!(hint("{{ include \"x\" . }}\n").contains("helm template"));
        assert!(hint("a:\n\tb: 1\n").contains("never by tabs"), "{}", hint("a:\n\tb: 1\n"));
    }
}
