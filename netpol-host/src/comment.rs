//! Text of tenants beside rules.

use sha2::{Digest, Sha256};
use std::fmt;

/// Text for people that stands between quotes in a script: a comment, or the prefix of a log line.
///
/// nft has no escape in strings, so a quote would end it. What could mean something to nft, to iptables-restore or to a
/// terminal is replaced, what is too long is cut; in both cases a digest of the whole text is appended, so that
/// different texts stay different.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Comment(String);

impl Comment {
    /// A rule comment may have 128 bytes; one byte more and the kernel refuses the transaction (dataplane.md A.2).
    pub const MAX_LEN: usize = 128;

    /// The comment for this text, at most [`Comment::MAX_LEN`] bytes.
    ///
    /// ```
    /// use netpol_host::Comment;
    /// assert_eq!(Comment::new("NetworkPolicy shop/web").as_str(), "NetworkPolicy shop/web");
    /// assert!(!Comment::new("\" drop\n}").as_str().contains(['"', '\n']));
    /// ```
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::cut(text, Self::MAX_LEN)
    }

    /// The comment for this text, at most `max` bytes, which must leave room for the digest of 17 bytes.
    #[must_use]
    pub fn cut(text: &str, max: usize) -> Self {
        let safe = |c: char| {
            c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '`' | '$')
                || c == ' '
                || !c.is_ascii() && c.is_alphanumeric()
        };
        if text.len() <= max && text.chars().all(safe) {
            return Self(text.to_owned());
        }
        let digest = format!("~{}", short_digest([text.as_bytes()]));
        let room = max.saturating_sub(digest.len());
        let mut cleaned = String::new();
        for c in text.chars().map(|c| if safe(c) { c } else { '?' }) {
            if cleaned.len() + c.len_utf8() > room {
                break;
            }
            cleaned.push(c);
        }
        Self(cleaned + &digest)
    }

    /// The comment as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is there nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// 16 hexadecimal digits that stand for these parts (F23).
///
/// ```
/// use netpol_host::short_digest;
/// assert_ne!(short_digest(["ab".as_bytes(), b"c"]), short_digest(["a".as_bytes(), b"bc"]));
/// ```
#[must_use]
pub fn short_digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    digest(parts).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// 128 bits that stand for these parts; each counts with its length (F23).
#[must_use]
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut digest = [0; 16];
    for (to, from) in digest.iter_mut().zip(hasher.finalize()) {
        *to = from;
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn comments_are_cut_on_character_boundaries() {
        let long = Comment::new(&"ä".repeat(200));
        assert!(long.as_str().len() <= Comment::MAX_LEN && long.as_str().len() > 120);
        let other = Comment::new(&format!("{}b", "ä".repeat(199)));
        assert_ne!(long, other, "the digest tells them apart");
        assert_eq!(Comment::new(&"a".repeat(128)).as_str().len(), 128);
        assert_eq!(Comment::new(&"a".repeat(129)).as_str().len(), 128);
    }

    proptest! {
        #[test]
        fn no_comment_can_leave_its_quotes(text in "\\PC{0,200}|.{0,200}") {
            let comment = Comment::new(&text);
            prop_assert!(comment.as_str().len() <= Comment::MAX_LEN);
            prop_assert!(!comment.as_str().contains(['"', '\n', '\r', '\\', '\0']));
        }
    }
}
