//! Which pods and labels a selector selects.

use netpol_core::{
    Cluster, Labels, NamespaceSelection, Operator, Pod, PodSelection, Requirement, Selector,
};

pub(super) fn pod_selected(cluster: &Cluster, selection: &PodSelection, pod: &Pod) -> bool {
    let in_namespace = match &selection.namespaces {
        NamespaceSelection::Named(name) => pod.id().namespace() == name,
        // NP-26: a namespace whose object is not known is never selected by label.
        NamespaceSelection::Matching(selector) => cluster
            .namespaces()
            .find(|namespace| namespace.name() == pod.id().namespace())
            .is_some_and(|namespace| selected(selector, namespace.labels())),
    };
    in_namespace && selected(&selection.pods, pod.labels())
}

/// All requirements hold (NP-20, NP-21).
pub(super) fn selected(selector: &Selector, labels: &Labels) -> bool {
    selector.requirements().iter().all(|requirement| fulfilled(requirement, labels))
}

fn fulfilled(requirement: &Requirement, labels: &Labels) -> bool {
    let value = labels.iter().find(|(key, _)| *key == requirement.key()).map(|(_, value)| value);
    match (requirement.operator(), value) {
        (Operator::In(values), Some(value)) => values.iter().any(|v| **v == *value),
        (Operator::In(_), None) => false,
        (Operator::NotIn(values), Some(value)) => values.iter().all(|v| **v != *value),
        (Operator::NotIn(_), None) => true,
        (Operator::Exists, value) => value.is_some(),
        (Operator::DoesNotExist, value) => value.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{check, ingress, is, peers, rule, tcp, with};
    use super::*;
    use netpol_core::{NamespaceName, Peer, Policy, TrafficMatch, Verdict};
    use std::sync::Arc;

    fn requirement(key: &str, operator: Operator) -> Selector {
        Selector::new([Requirement::new(key, operator)])
    }

    fn values<const N: usize>(values: [&str; N]) -> std::collections::BTreeSet<Arc<str>> {
        values.into_iter().map(Arc::from).collect()
    }

    #[test]
    fn operators_on_present_empty_and_absent_labels() {
        let labels = Labels::from_iter([("empty", ""), ("k", "v")]);
        for (selector, expected) in [
            (Selector::everything(), true),
            (Selector::match_labels([("empty", "")]), true),
            (Selector::match_labels([("absent", "")]), false),
            (requirement("k", Operator::In(values(["u", "v"]))), true),
            (requirement("k", Operator::In(values(["V"]))), false),
            (requirement("k", Operator::In(values([]))), false),
            (requirement("k", Operator::NotIn(values(["v"]))), false),
            (requirement("k", Operator::NotIn(values(["u"]))), true),
            (requirement("absent", Operator::NotIn(values(["v"]))), true),
            (requirement("absent", Operator::NotIn(values([""]))), true),
            (requirement("empty", Operator::Exists), true),
            (requirement("absent", Operator::Exists), false),
            (requirement("empty", Operator::DoesNotExist), false),
            (requirement("absent", Operator::DoesNotExist), true),
        ] {
            assert_eq!(selected(&selector, &labels), expected, "{selector}");
        }
        let one_of_two = Selector::match_labels([("k", "v"), ("empty", "x")]);
        assert!(!selected(&one_of_two, &labels), "all requirements must hold");
    }

    #[test]
    fn an_unknown_namespace_is_selected_by_name_only() {
        // NP-26: neither {} nor NotIn nor DoesNotExist selects what is not known.
        let everywhere = |pods| {
            let anywhere = requirement("absent", Operator::DoesNotExist);
            PodSelection { namespaces: NamespaceSelection::Matching(anywhere), pods }
        };
        let mut cluster =
            with([ingress(is("a"), vec![peers([Peer::Pods(everywhere(Selector::everything()))])])]);
        check(&cluster, &[("10.0.0.2", "10.0.0.1", tcp(80), true)]);
        cluster.remove_namespace(&NamespaceName::from("n"));
        check(
            &cluster,
            &[
                ("10.0.0.2", "10.0.0.1", tcp(80), false), // still isolated
                ("10.0.0.1", "10.0.0.2", tcp(80), true),
            ],
        );
        let own = PodSelection::within("n", is("b"));
        cluster.insert_policy(ingress(is("a"), vec![peers([Peer::Pods(own)])]));
        check(&cluster, &[("10.0.0.2", "10.0.0.1", tcp(80), true)]);
        let admin = vec![rule(Verdict::Deny, TrafficMatch::everything())];
        cluster.insert_policy(Policy::admin("x", 0, PodSelection::everything(), admin, vec![]));
        check(&cluster, &[("10.0.0.2", "10.0.0.1", tcp(80), true)]);
    }
}
