//! Lines of dumps as iptables-save and ipset write them, and their words.
//!
//! A comment in quotes may contain anything, a newline too, so that one rule can be several lines long.

use std::borrow::Cow;

/// A line longer than this, in bytes, is not continued: no comment is.
const LONGEST: usize = 4096;

/// How a quote can stand inside of quotes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Quoting {
    /// Behind a backslash, as iptables-save writes it.
    Backslash,
    /// Not at all, as in ipset.
    Never,
}

/// A line, with those that continue it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Line<'a> {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// Its text, without the newline.
    pub(crate) text: &'a str,
    /// Is it several lines, one of which could be a line of its own?
    pub(crate) doubtful: bool,
}

/// A word of a line, without its quotes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Word<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) quoted: bool,
}

impl Word<'_> {
    /// Is it this word, and not a text in quotes?
    pub(crate) fn is(&self, word: &str) -> bool {
        !self.quoted && self.text == word
    }
}

/// All lines but empty ones.
pub(crate) fn lines(text: &str, quoting: Quoting) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut rest = text;
    let mut number = 1;
    while !rest.is_empty() {
        let first = rest.find('\n').unwrap_or(rest.len());
        let mut end = first;
        if may_continue(rest, quoting) && is_open(rest.get(..first).unwrap_or_default(), quoting) {
            // The line in which the quotes end; a line whose quotes never end stands for itself.
            let closed = rest.match_indices('\n').map(|(at, _)| at).chain([rest.len()]).skip(1);
            let mut closed = closed.take_while(|at| *at <= LONGEST);
            let whole = closed.find(|at| !is_open(rest.get(..*at).unwrap_or_default(), quoting));
            end = whole.unwrap_or(first);
        }
        let line = rest.get(..end).unwrap_or_default();
        let doubtful = line.lines().skip(1).any(could_stand_alone);
        if !line.trim().is_empty() {
            lines.push(Line { number, text: line.trim_end_matches('\r'), doubtful });
        }
        number += line.matches('\n').count() + 1;
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    lines
}

/// Can what begins here have a comment? Of iptables only rules have.
fn may_continue(text: &str, quoting: Quoting) -> bool {
    match quoting {
        Quoting::Backslash => text.trim_start_matches([' ', '\t']).starts_with(['-', '[']),
        Quoting::Never => !text.starts_with('#'),
    }
}

fn could_stand_alone(line: &str) -> bool {
    let starts = ["-A ", "*", ":", "[", "#", "COMMIT", "create ", "add "];
    starts.iter().any(|start| line.trim_start().starts_with(start))
}

fn is_open(line: &str, quoting: Quoting) -> bool {
    let mut open = false;
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => open = !open,
            b'\\' if open && quoting == Quoting::Backslash => {
                bytes.next();
            }
            _ => {}
        }
    }
    open
}

/// The words of a line; none if its quotes do not end.
pub(crate) fn words(line: &str, quoting: Quoting) -> Option<Vec<Word<'_>>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let plain = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
        let (head, tail) = rest.split_at(plain);
        if !tail.starts_with('"') {
            words.push(Word { text: Cow::Borrowed(head), quoted: false });
            rest = tail.trim_start();
            continue;
        }
        // Quotes, which may begin and end inside of a word.
        let mut text = head.to_owned();
        let mut open = false;
        let mut end = tail.len();
        let mut characters = tail.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => open = !open,
                '\\' if open && quoting == Quoting::Backslash => {
                    text.extend(characters.next().map(|(_, escaped)| escaped));
                }
                c if c.is_whitespace() && !open => {
                    end = at;
                    break;
                }
                c => text.push(c),
            }
        }
        if open {
            return None;
        }
        words.push(Word { text: Cow::Owned(text), quoted: true });
        rest = tail.get(end..).unwrap_or_default().trim_start();
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_contain_anything() {
        let text = "a\n\n-b \"c\nd\" e\n[f] \"-A \n-A x\"\n-last \"open\nnext\n:c \"\n-A y \"";
        let found: Vec<(usize, &str, bool)> = lines(text, Quoting::Backslash)
            .iter()
            .map(|line| (line.number, line.text, line.doubtful))
            .collect();
        let expected = [
            (1, "a", false),
            (3, "-b \"c\nd\" e", false),
            (5, "[f] \"-A \n-A x\"", true),
            (7, "-last \"open\nnext\n:c \"", true),
            (10, "-A y \"", false),
        ];
        assert_eq!(found, expected);
        for (line, expected) in [
            ("-m x  y", Some(vec!["-m", "x", "y"])),
            (
                r#"--comment "a \"b\" \\ c" -j X"#,
                Some(vec!["--comment", r#"a "b" \ c"#, "-j", "X"]),
            ),
            (r#"a"b c"d e"#, Some(vec!["ab cd", "e"])),
            (r#"a "b"#, None),
            (r#""""#, Some(vec![""])),
        ] {
            let found = words(line, Quoting::Backslash);
            let found = found.map(|w| w.into_iter().map(|w| w.text.into_owned()).collect());
            assert_eq!(
                found,
                expected.map(|w| w.into_iter().map(str::to_owned).collect::<Vec<_>>())
            );
        }
        let path = words(r#"comment "C:\" x"#, Quoting::Never).unwrap();
        assert_eq!(path.len(), 3);
        assert!(path[1].quoted && !path[1].is(r"C:\") && path[2].is("x"));
    }
}
