//! Diagnostics as the compiler of this language prints its own: the line, and what is wrong with it.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use netpol_k8s::{Diagnostic, Manifests, Severity};
use std::ops::Range;

/// One diagnostic with the line that it is about.
pub(crate) fn render(diagnostic: &Diagnostic, manifests: &Manifests, colors: bool) -> String {
    let renderer = if colors { Renderer::styled() } else { Renderer::plain() };
    let level = match diagnostic.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let object = diagnostic.object().map(|object| format!("{object}: ")).unwrap_or_default();
    let title = format!("{object}{}", diagnostic.message());
    let mut group = Group::with_title(level.primary_title(title).id(diagnostic.code()));
    if let Some(at) = diagnostic.location() {
        let shown = |line: &&str| line.len() <= LONGEST_LINE || line.is_ascii();
        group = match manifests.source_line(at).filter(shown) {
            Some(line) => {
                let (line, span) = excerpt(line, span(line, at.column, at.length));
                let field = diagnostic.field().unwrap_or("");
                let snippet = Snippet::source(line).line_start(at.line as usize).path(&*at.file);
                group.element(snippet.annotation(AnnotationKind::Primary.span(span).label(field)))
            }
            None => group.element(Level::NOTE.message(format!("at {at}"))),
        };
    }
    if let Some(hint) = diagnostic.hint() {
        group = group.element(Level::HELP.message(hint));
    }
    renderer.render(&[group])
}

/// The bytes of the characters that are to be underlined: as many as the diagnostic says, or the word there.
fn span(line: &str, column: u32, length: u32) -> Range<usize> {
    // Machines write lines of any length; counting characters from their beginning for each defect would take for ever.
    let ascii = line.is_ascii();
    let byte = |characters: usize| match ascii {
        true => characters.min(line.len()),
        false => line.char_indices().nth(characters).map_or(line.len(), |(byte, _)| byte),
    };
    let first = byte((column as usize).saturating_sub(1));
    let rest = line.get(first..).unwrap_or_default();
    let word = rest.find([' ', ',', ':', '}', ']', '"', '\'']).unwrap_or(rest.len());
    let asked = byte((column as usize).saturating_sub(1) + length as usize);
    first..asked.max(first + word).min(line.len())
}

/// Of a longer line nothing is shown, unless its characters need not be counted.
const LONGEST_LINE: usize = 20_000;
/// So many bytes of a line are shown on each side of what is wrong.
const MOST_BESIDE: usize = 200;

/// The part of a line that is around a span, and the span within it.
fn excerpt(line: &str, span: Range<usize>) -> (&str, Range<usize>) {
    let boundary = |at: usize| (0..=at).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
    let first = boundary(span.start.saturating_sub(MOST_BESIDE));
    let last = boundary(line.len().min(span.start + 2 * MOST_BESIDE));
    (line.get(first..last).unwrap_or_default(), span.start - first..span.end.min(last) - first)
}

/// What was skipped, as the end of a sentence; nothing if nothing was.
pub(crate) fn skipped(manifests: &Manifests) -> String {
    let kinds: Vec<String> =
        manifests.skipped().iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if kinds.is_empty() { String::new() } else { format!(" (skipped: {})", kinds.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_line_what_is_around_the_defect_is_shown() {
        let line = format!("{}here{}", "ä".repeat(500), "x".repeat(5_000));
        let (shown, span) = excerpt(&line, 1_000..1_004);
        assert_eq!(shown.get(span), Some("here"));
        assert!(shown.len() <= 3 * MOST_BESIDE && shown.starts_with('ä'));
        assert_eq!(excerpt("short", 1..3), ("short", 1..3));
    }
}
