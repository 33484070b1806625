//! Identity is content: the id of a set or a program is a digest of what it is (design rule, F23, F74).
//!
//! Everything that goes into a digest is prefixed by its length or is of fixed length, so that no two different contents
//! feed the same bytes (`"ab" + "c"` is not `"a" + "bc"`). The digest is SHA-256 cut to 128 bits: tenants write what is
//! hashed, so it must withstand those who look for collisions. The compiler checks for them all the same.

use crate::label::{Operator, Selector};
use crate::policy::{NamespaceSelection, PodSelection};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// A digest of content that is being built.
pub(crate) struct ContentHasher(Sha256);

impl ContentHasher {
    /// A digest of a thing of this kind: equal bytes of different kinds give different ids.
    pub(crate) fn new(kind: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.text(kind);
        hasher
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_be_bytes());
    }

    pub(crate) fn number(&mut self, number: u8) {
        self.0.update([number]);
    }

    pub(crate) fn finish(self) -> [u8; 16] {
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(self.0.finalize()) {
            *to = from;
        }
        id
    }

    pub(crate) fn selection(&mut self, selection: &PodSelection) {
        match &selection.namespaces {
            NamespaceSelection::Named(namespace) => {
                self.number(0);
                self.text(namespace.as_str());
            }
            NamespaceSelection::Matching(selector) => {
                self.number(1);
                self.selector(selector);
            }
        }
        self.selector(&selection.pods);
    }

    fn selector(&mut self, selector: &Selector) {
        self.count(selector.requirements().len());
        for requirement in selector.requirements() {
            self.text(requirement.key());
            let (tag, values) = match requirement.operator() {
                Operator::In(values) => (0, Some(values)),
                Operator::NotIn(values) => (1, Some(values)),
                Operator::Exists => (2, None),
                Operator::DoesNotExist => (3, None),
            };
            self.number(tag);
            self.count(values.map_or(0, |values| values.len()));
            for value in values.into_iter().flatten() {
                self.text(value);
            }
        }
    }
}

/// Text that is not an id: not 32 hexadecimal digits in lower case.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not an id: 32 hexadecimal digits in lower case are expected")]
#[non_exhaustive]
pub struct InvalidId;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name([u8; 16]);

        impl $name {
            pub(crate) fn new(content: ContentHasher) -> Self {
                Self(content.finish())
            }

            /// The id with these bits, as it was read back from where it is enforced.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 128 bits of the id, which also fit a key of a kernel map.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            /// 32 hexadecimal digits; a precision cuts them, as `{id:.8}` does.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!("{:032x}", u128::from_be_bytes(self.0)))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Reads what [`Display`](fmt::Display) writes.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                let number = u128::from_str_radix(text, 16).ok();
                let number = number.filter(|_| digits && text.len() == 32).ok_or(InvalidId)?;
                Ok(Self(number.to_be_bytes()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self:.8}")
            }
        }
    )*};
}

ids! {
    /// Names a [`PodSet`](crate::PodSet) by the selection that defines it; members come and go under one id.
    PodSetId;
    /// Names a [`NamedPortSet`](crate::NamedPortSet) by its selection, port name and protocol.
    NamedPortSetId;
    /// Names a set of networks by its addresses.
    NetSetId;
    /// Names a [`Program`](crate::Program) by its policies, its rules and the ids of the sets in them.
    ProgramId;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(selection: &PodSelection) -> PodSetId {
        let mut content = ContentHasher::new("pod set");
        content.selection(selection);
        PodSetId::new(content)
    }

    #[test]
    fn neighbors_do_not_run_together() {
        // F23: a namespace and a name that are concatenated without a separator collide.
        let of = |ns: &str, key: &str, value: &str| {
            id(&PodSelection::within(ns.to_owned(), Selector::match_labels([(key, value)])))
        };
        assert_ne!(of("a", "bc", ""), of("ab", "c", ""));
        assert_ne!(of("a", "b", "c"), of("a", "bc", ""));
        assert_ne!(of("ns1", "deny-me-x", ""), of("me-ns1", "deny", ""));
        let id = of("a", "b", "c");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(PodSetId::from_bytes(*id.as_bytes()), id);
        for wrong in
            ["", "+0000000000000000000000000000000", "0", "G0000000000000000000000000000000"]
        {
            assert_eq!(wrong.parse::<PodSetId>(), Err(InvalidId), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn different_content_has_different_ids(a in "[ab]{0,3}", b in "[ab]{0,3}", c in "[ab]{0,3}", d in "[ab]{0,3}") {
            let left = PodSelection::within(a.clone(), Selector::match_labels([(b.clone(), "")]));
            let right = PodSelection::within(c.clone(), Selector::match_labels([(d.clone(), "")]));
            prop_assert_eq!(id(&left) == id(&right), (a, b) == (c, d));
        }
    }
}
