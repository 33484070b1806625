//! Labels, and selectors of them.

use super::vocabulary::{LABEL_KEYS, LABEL_VALUES, NAMESPACES, names, namespace_names};
use netpol_core::{
    Labels, NAMESPACE_NAME_LABEL, NamespaceSelection, Operator, PodSelection, Requirement, Selector,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::subsequence;
use std::sync::Arc;

/// Labels of an object: few keys, some of them absent, some with an empty value.
pub fn labels() -> impl Strategy<Value = Labels> {
    let value = || option::weighted(0.6, names(&LABEL_VALUES));
    [value(), value(), value()].prop_map(|values| {
        LABEL_KEYS.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect()
    })
}

fn requirements(
    keys: &'static [&'static str],
    values: &'static [&'static str],
) -> impl Strategy<Value = Requirement> {
    let some = move || {
        let sizes = prop_oneof![
            7 => subsequence(values, 1),
            4 => subsequence(values, 2),
            1 => subsequence(values, 0),
        ];
        sizes.prop_map(|values| values.into_iter().map(Arc::from).collect())
    };
    let operator = prop_oneof![
        4 => some().prop_map(Operator::In),
        2 => some().prop_map(Operator::NotIn),
        1 => Just(Operator::Exists),
        1 => Just(Operator::DoesNotExist),
    ];
    (names(keys), operator).prop_map(|(key, operator)| Requirement::new(key, operator))
}

/// Selectors of [`labels`], often the empty one; with no, one or two requirements.
pub fn selectors() -> impl Strategy<Value = Selector> {
    let requirements = |n| vec(requirements(&LABEL_KEYS, &LABEL_VALUES), n).prop_map(Selector::new);
    prop_oneof![5 => requirements(0), 4 => requirements(1), 1 => requirements(2)]
}

/// Selectors of the labels of [`namespaces`](super::namespaces): those of [`selectors`], and by name.
pub fn namespace_selectors() -> impl Strategy<Value = Selector> {
    prop_oneof![
        3 => selectors(),
        1 => requirements(&[NAMESPACE_NAME_LABEL], &NAMESPACES).prop_map(|r| Selector::new([r])),
    ]
}

/// Pods of one namespace, or of those that a selector selects.
pub fn pod_selections() -> impl Strategy<Value = PodSelection> {
    let namespaces = prop_oneof![
        2 => namespace_selectors().prop_map(NamespaceSelection::Matching),
        1 => namespace_names().prop_map(|name| NamespaceSelection::Named(name.into())),
    ];
    (namespaces, selectors()).prop_map(|(namespaces, pods)| PodSelection { namespaces, pods })
}
