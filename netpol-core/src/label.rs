//! Labels and label selectors (NP-20..NP-23).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The label that carries a namespace's own name (NP-25).
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The labels of an object: keys are unique, compared byte for byte (NP-23).
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Labels(Vec<(Arc<str>, Arc<str>)>);

impl Labels {
    /// No labels.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `key`, if the object carries it. An empty value is a value.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// Sets `key` to `value`, in place of an earlier value.
    pub fn insert(&mut self, key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) {
        let (key, value) = (key.into(), value.into());
        match self.0.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => {
                if let Some(pair) = self.0.get_mut(at) {
                    pair.1 = value;
                }
            }
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    /// Takes `key` away.
    pub fn remove(&mut self, key: &str) {
        self.0.retain(|(k, _)| &**k != key);
    }

    /// All labels in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    /// The last of two equal keys wins.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut labels: Vec<(Arc<str>, Arc<str>)> =
            pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        labels.reverse();
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        labels.dedup_by(|later, kept| later.0 == kept.0);
        Self(labels)
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// What one requirement of a selector asks of a label (NP-20).
///
/// Exhaustive: Kubernetes' `LabelSelector` knows these four operators.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the four operators of LabelSelector; a back end must handle each"
)]
pub enum Operator {
    /// The key is present and its value is one of these.
    In(BTreeSet<Arc<str>>),
    /// The key is absent, or its value is none of these.
    NotIn(BTreeSet<Arc<str>>),
    /// The key is present.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

/// One requirement of a selector: a key and what is asked of it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Requirement {
    key: Arc<str>,
    operator: Operator,
}

impl Requirement {
    /// `key` as `operator` asks.
    pub fn new(key: impl Into<Arc<str>>, operator: Operator) -> Self {
        Self { key: key.into(), operator }
    }

    /// The label's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is asked of the label.
    #[must_use]
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Does an object with these labels fulfil the requirement?
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.value(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.contains(v)),
            Operator::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |values: &BTreeSet<Arc<str>>| values.iter().map(|v| &**v).collect::<Vec<_>>().join(",");
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{}={}", self.key, list(values)),
            Operator::In(values) => write!(f, "{} in ({})", self.key, list(values)),
            Operator::NotIn(values) if values.len() == 1 => {
                write!(f, "{}!={}", self.key, list(values))
            }
            Operator::NotIn(values) => write!(f, "{} notin ({})", self.key, list(values)),
            Operator::Exists => write!(f, "{}", self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
        }
    }
}

/// A label selector: all requirements must hold; none at all selects everything (NP-21).
///
/// Canonical: requirements are ordered and unique, so two ways to write the same list are equal
/// (`matchLabels: {app: web}` and `app In [web]`).
///
/// ```
/// use netpol_core::{Labels, Operator, Requirement, Selector};
/// let not_production = Selector::new([Requirement::new("env", Operator::NotIn(["prod".into()].into()))]);
/// assert!(not_production.matches(&Labels::new()), "NotIn holds for an absent key");
/// ```
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Selector(Vec<Requirement>);

impl Selector {
    /// The selector with these requirements.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let mut requirements: Vec<_> = requirements.into_iter().collect();
        requirements.sort_unstable();
        requirements.dedup();
        Self(requirements)
    }

    /// The empty selector, which selects every object.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Every `key: value` must be present, as `matchLabels` says.
    pub fn match_labels<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<Arc<str>>,
        V: Into<Arc<str>>,
    {
        Self::new(
            pairs.into_iter().map(|(k, v)| Requirement::new(k, Operator::In([v.into()].into()))),
        )
    }

    /// Does this selector select every object there can be?
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The requirements, ordered.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// Does it select an object with these labels?
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

impl fmt::Display for Selector {
    /// As `kubectl get -l` writes it; the empty selector is `<all>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("<all>");
        }
        for (i, requirement) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(key: &str, operator: Operator) -> Selector {
        Selector::new([Requirement::new(key, operator)])
    }

    #[test]
    fn operators_on_present_and_absent_keys() {
        let with = Labels::from_iter([("k", "a"), ("other", "")]);
        let without = Labels::from_iter([("other", "a")]);
        let a = || BTreeSet::from([Arc::from("a")]);
        let b = || BTreeSet::from([Arc::from("b")]);
        for (operator, present, absent) in [
            (Operator::In(a()), true, false),
            (Operator::In(b()), false, false),
            (Operator::NotIn(a()), false, true),
            (Operator::NotIn(b()), true, true),
            (Operator::Exists, true, false),
            (Operator::DoesNotExist, false, true),
        ] {
            assert_eq!(selector("k", operator.clone()).matches(&with), present, "{operator:?}");
            assert_eq!(selector("k", operator.clone()).matches(&without), absent, "{operator:?}");
        }
    }

    #[test]
    fn empty_value_needs_the_key() {
        let empty = Selector::match_labels([("k", "")]);
        assert!(empty.matches(&Labels::from_iter([("k", "")])));
        assert!(!empty.matches(&Labels::new()));
    }

    #[test]
    fn equal_meaning_is_equal_value() {
        let one = Selector::match_labels([("b", "2"), ("a", "1")]);
        let other = Selector::new([
            Requirement::new("a", Operator::In(["1".into()].into())),
            Requirement::new("b", Operator::In(["2".into()].into())),
            Requirement::new("a", Operator::In(["1".into()].into())),
        ]);
        assert_eq!(one, other);
        assert_eq!(one.to_string(), "a=1,b=2");
    }

    #[test]
    fn last_of_two_equal_keys_wins() {
        let labels = Labels::from_iter([("k", "1"), ("k", "2")]);
        assert_eq!(labels.value("k"), Some("2"));
        let mut labels = labels;
        labels.insert("k", "3");
        labels.insert("j", "0");
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("j", "0"), ("k", "3")]);
        labels.remove("k");
        assert_eq!(labels.value("k"), None);
    }
}
