//! Names, label keys, label values and port names as kube-apiserver checks them (VAL-01, VAL-07, VAL-20, VAL-21).
//!
//! Each check says what is wrong, or nothing.

/// A DNS subdomain of RFC 1123: a name of most kinds of object, and the prefix of a label key.
pub(crate) fn subdomain_defect(text: &str) -> Option<&'static str> {
    if text.len() > 253 {
        return Some("must have at most 253 characters");
    }
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|&b| alphanumeric(b))
            && bytes.last().is_some_and(|&b| alphanumeric(b))
            && bytes.iter().all(|&b| alphanumeric(b) || b == b'-')
    };
    (!text.split('.').all(label)).then_some(
        "must be lower case letters, digits, `-` and `.`, with a letter or digit at each end and beside each `.`",
    )
}

/// A name from `generateName`: one `-` at the end is fine, since more follows.
pub(crate) fn generate_name_defect(prefix: &str) -> Option<&'static str> {
    match prefix.strip_suffix('-') {
        // The server replaces the hyphen and what stands before it by a letter.
        Some(rest) if !rest.is_empty() => {
            let mut masked = rest.to_owned();
            masked.pop();
            masked.push('a');
            subdomain_defect(&masked)
        }
        _ => subdomain_defect(prefix),
    }
}

/// A label key: `name` or `prefix/name` (VAL-20).
pub(crate) fn label_key_defect(key: &str) -> Option<&'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if name.contains('/') {
        return Some("must be a name with at most one prefix and `/` in front");
    }
    if prefix == Some("") {
        return Some("must have a prefix before the `/`");
    }
    if prefix.is_some_and(|prefix| subdomain_defect(prefix).is_some()) {
        return Some("must have a DNS subdomain in lower case as its prefix");
    }
    if name.is_empty() {
        return Some("must have a name");
    }
    if name.len() > 63 {
        return Some("must have a name of at most 63 characters");
    }
    (!is_label_text(name))
        .then_some("must be letters, digits, `-`, `_` and `.`, with a letter or digit at each end")
}

/// A label value (VAL-21).
pub(crate) fn label_value_defect(value: &str) -> Option<&'static str> {
    if value.len() > 63 {
        return Some("must have at most 63 characters");
    }
    (!value.is_empty() && !is_label_text(value)).then_some(
        "must be empty, or letters, digits, `-`, `_` and `.` with a letter or digit at each end",
    )
}

fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A port name (VAL-07).
pub(crate) fn port_name_defect(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("must not be empty");
    }
    if name.len() > 15 {
        return Some("must have at most 15 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Some("must be lower case letters, digits and `-`");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        return Some("must have at least one letter");
    }
    if name.contains("--") {
        return Some("must not have two hyphens in a row");
    }
    (name.starts_with('-') || name.ends_with('-'))
        .then_some("must begin and end with a letter or digit")
}

/// Would kube-apiserver accept this as a label key? (VAL-20)
#[must_use]
pub fn is_label_key(key: &str) -> bool {
    label_key_defect(key).is_none()
}

/// Would kube-apiserver accept this as a label value? (VAL-21)
#[must_use]
pub fn is_label_value(value: &str) -> bool {
    label_value_defect(value).is_none()
}

/// Would kube-apiserver accept this as the name of a container port? (VAL-07)
#[must_use]
pub fn is_port_name(name: &str) -> bool {
    port_name_defect(name).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, good) in [
            ("web", true),
            ("a.b-c.1", true),
            ("1", true),
            ("", false),
            (".a", false),
            ("a.", false),
            ("a..b", false),
            ("a-.b", false),
            ("Web", false),
            ("a_b", false),
            ("grün", false),
        ] {
            assert_eq!(subdomain_defect(name).is_none(), good, "{name}");
        }
        assert!(subdomain_defect(&"a".repeat(253)).is_none());
        assert!(subdomain_defect(&"a".repeat(254)).is_some());
        for (prefix, good) in [
            ("web-", true),
            ("web--", true),
            ("web", true),
            ("web.", false),
            ("-", false),
            ("a_-", true),
        ] {
            assert_eq!(generate_name_defect(prefix).is_none(), good, "{prefix}");
        }
    }

    #[test]
    fn labels() {
        for (key, good) in [
            ("app", true),
            ("A.b_c-1", true),
            ("x.io/app", true),
            ("x/a", true),
            ("", false),
            ("x/", false),
            ("/a", false),
            ("/", false),
            ("a/b/c", false),
            ("X.io/a", false),
            ("-a", false),
            ("a b", false),
        ] {
            assert_eq!(is_label_key(key), good, "{key}");
        }
        for (value, good) in [
            ("", true),
            ("a", true),
            ("A-b_c.9", true),
            (" ", false),
            ("a/b", false),
            ("-a", false),
            ("é", false),
        ] {
            assert_eq!(is_label_value(value), good, "{value}");
        }
        assert!(is_label_value(&"a".repeat(63)) && !is_label_value(&"a".repeat(64)));
    }

    #[test]
    fn port_names() {
        for (name, good) in [
            ("http", true),
            ("a", true),
            ("8080-tcp", true),
            ("a23456789012345", true),
            ("a234567890123456", false),
            ("80", false),
            ("HTTP", false),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("a--b", false),
            ("a_b", false),
        ] {
            assert_eq!(is_port_name(name), good, "{name}");
        }
    }
}
