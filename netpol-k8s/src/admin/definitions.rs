//! The custom resource definitions of the network-policy-api project as tables: v0.2.0 (v1alpha2), v0.1.7 (v1alpha1) and
//! v0.1.1 (the old peers of v1alpha1), in both channels where there are two.

use super::schema::{List, Object, Schema, Text};
use Schema::{Anything, Labels, Number};

const ANY_TEXT: Schema = Schema::Text(Text::Any);
const RULE_NAME: Schema = Schema::Text(Text::Short(100));
const PORT: Schema = Number(1, 65535);
const PRIORITY: Schema = Number(0, 1000);

/// A list without limits.
const fn all_of(items: Schema) -> List {
    List { items, min: 0, max: usize::MAX, set: false }
}

const fn between(min: usize, max: usize, items: Schema) -> List {
    List { items, min, max, set: false }
}

const fn set_of(max: usize, items: Schema) -> List {
    List { items, min: 1, max, set: true }
}

static TEXTS: List = all_of(ANY_TEXT);
static EXPRESSION: Object = Object::plain(
    &[("key", ANY_TEXT), ("operator", ANY_TEXT), ("values", Schema::List(&TEXTS))],
    &["key", "operator"],
);
static EXPRESSIONS: List = all_of(Schema::Object(&EXPRESSION));
static SELECTOR_FIELDS: Object = Object::plain(
    &[("matchLabels", Labels), ("matchExpressions", Schema::List(&EXPRESSIONS))],
    &[],
);
const SELECTOR: Schema = Schema::Object(&SELECTOR_FIELDS);

/// Pods of v1alpha2.
static PODS: Object =
    Object::plain(&[("namespaceSelector", SELECTOR), ("podSelector", SELECTOR)], &["podSelector"]);
/// Pods of v1alpha1, where both selectors must be there.
static BOTH: Object = Object::plain(
    &[("namespaceSelector", SELECTOR), ("podSelector", SELECTOR)],
    &["namespaceSelector", "podSelector"],
);

static NETWORKS_LIST: List = set_of(25, Schema::Text(Text::Short(43)));
static DOMAIN_NAMES_LIST: List = set_of(25, Schema::Text(Text::DomainName));
const NETWORKS: (&str, Schema) = ("networks", Schema::List(&NETWORKS_LIST));
const NODES: (&str, Schema) = ("nodes", SELECTOR);
const DOMAIN_NAMES: (&str, Schema) = ("domainNames", Schema::List(&DOMAIN_NAMES_LIST));
const NAMESPACES: (&str, Schema) = ("namespaces", SELECTOR);

/// A rule: its name, what it decides, `from` or `to`, and its ports.
macro_rules! rule {
    ($actions:expr, $side:literal, $peers:expr, $ports:literal, $entries:expr) => {
        Object::plain(
            &[
                ("name", RULE_NAME),
                ("action", $actions),
                ($side, Schema::List($peers)),
                ($ports, Schema::List($entries)),
            ],
            &["action", $side],
        )
    };
}

/// The whole object, given what its spec has.
macro_rules! resource {
    ($spec:expr) => {
        Object::plain(
            &[
                ("apiVersion", ANY_TEXT),
                ("kind", ANY_TEXT),
                ("metadata", Anything),
                ("spec", Schema::Object($spec)),
                ("status", Anything),
            ],
            &["spec"],
        )
    };
}

/// ClusterNetworkPolicy of v1alpha2.
mod cluster {
    use super::*;

    static ACTIONS: &[&str] = &["Accept", "Deny", "Pass"];
    const ACTION: Schema = Schema::Text(Text::Word(ACTIONS));
    static SUBJECT: Object = Object::one_of(&[NAMESPACES, ("pods", Schema::Object(&PODS))]);
    static STANDARD_PEER: Object =
        Object::one_of(&[NAMESPACES, ("pods", Schema::Object(&PODS)), NETWORKS]);
    static EXPERIMENTAL_PEER: Object = Object::one_of(&[
        NAMESPACES,
        ("pods", Schema::Object(&PODS)),
        NETWORKS,
        NODES,
        DOMAIN_NAMES,
    ]);
    static FROM: List = between(1, 25, Schema::Object(&SUBJECT));
    static STANDARD_TO: List = between(1, 25, Schema::Object(&STANDARD_PEER));
    static EXPERIMENTAL_TO: List = between(1, 25, Schema::Object(&EXPERIMENTAL_PEER));

    static RANGE: Object = Object::plain(&[("start", PORT), ("end", PORT)], &["end", "start"]);
    static DESTINATION_PORT: Object =
        Object::one_of(&[("number", PORT), ("range", Schema::Object(&RANGE))]);
    static PORTS: Object = Object {
        fields: &[("destinationPort", Schema::Object(&DESTINATION_PORT))],
        required: &[],
        min: 1,
        max: usize::MAX,
    };
    static PROTOCOL: Object = Object::one_of(&[
        ("tcp", Schema::Object(&PORTS)),
        ("udp", Schema::Object(&PORTS)),
        ("sctp", Schema::Object(&PORTS)),
        ("destinationNamedPort", ANY_TEXT),
    ]);
    static PROTOCOLS: List = between(1, 25, Schema::Object(&PROTOCOL));

    static INGRESS: Object = rule!(ACTION, "from", &FROM, "protocols", &PROTOCOLS);
    static STANDARD_EGRESS: Object = rule!(ACTION, "to", &STANDARD_TO, "protocols", &PROTOCOLS);
    static EXPERIMENTAL_EGRESS: Object =
        rule!(ACTION, "to", &EXPERIMENTAL_TO, "protocols", &PROTOCOLS);
    static INGRESS_RULES: List = between(0, 25, Schema::Object(&INGRESS));
    static STANDARD_RULES: List = between(0, 25, Schema::Object(&STANDARD_EGRESS));
    static EXPERIMENTAL_RULES: List = between(0, 25, Schema::Object(&EXPERIMENTAL_EGRESS));

    macro_rules! spec {
        ($egress:expr) => {
            Object::plain(
                &[
                    ("tier", Schema::Text(Text::Word(&["Admin", "Baseline"]))),
                    ("priority", PRIORITY),
                    ("subject", Schema::Object(&SUBJECT)),
                    ("ingress", Schema::List(&INGRESS_RULES)),
                    ("egress", Schema::List($egress)),
                ],
                &["priority", "subject", "tier"],
            )
        };
    }
    static STANDARD_SPEC: Object = spec!(&STANDARD_RULES);
    static EXPERIMENTAL_SPEC: Object = spec!(&EXPERIMENTAL_RULES);
    pub(in super::super) static STANDARD: Object = resource!(&STANDARD_SPEC);
    pub(in super::super) static EXPERIMENTAL: Object = resource!(&EXPERIMENTAL_SPEC);
}

/// AdminNetworkPolicy and BaselineAdminNetworkPolicy of v1alpha1.
mod admin {
    use super::*;

    const ACTION: Schema = Schema::Text(Text::Word(&["Allow", "Deny", "Pass"]));
    const BASELINE_ACTION: Schema = Schema::Text(Text::Word(&["Allow", "Deny"]));
    const PODS: (&str, Schema) = ("pods", Schema::Object(&BOTH));
    static SUBJECT: Object = Object::one_of(&[NAMESPACES, PODS]);
    static STANDARD_PEER: Object = Object::one_of(&[NAMESPACES, PODS, NETWORKS]);
    static BASELINE_PEER: Object = Object::one_of(&[NAMESPACES, PODS, NETWORKS, NODES]);
    static EXPERIMENTAL_PEER: Object =
        Object::one_of(&[NAMESPACES, PODS, NETWORKS, NODES, DOMAIN_NAMES]);
    static FROM: List = between(1, 100, Schema::Object(&SUBJECT));
    static STANDARD_TO: List = between(1, 100, Schema::Object(&STANDARD_PEER));
    static BASELINE_TO: List = between(1, 100, Schema::Object(&BASELINE_PEER));
    static EXPERIMENTAL_TO: List = between(1, 100, Schema::Object(&EXPERIMENTAL_PEER));

    // The default of the protocol fills it in before it is missed.
    static PORT_NUMBER: Object =
        Object::plain(&[("protocol", ANY_TEXT), ("port", PORT)], &["port"]);
    static PORT_RANGE: Object =
        Object::plain(&[("protocol", ANY_TEXT), ("start", PORT), ("end", PORT)], &["end", "start"]);
    const NUMBER: (&str, Schema) = ("portNumber", Schema::Object(&PORT_NUMBER));
    const RANGE: (&str, Schema) = ("portRange", Schema::Object(&PORT_RANGE));
    static STANDARD_PORT: Object = Object::one_of(&[NUMBER, RANGE]);
    static NAMED_PORT: Object = Object::one_of(&[NUMBER, RANGE, ("namedPort", ANY_TEXT)]);
    static STANDARD_PORTS: List = between(1, 100, Schema::Object(&STANDARD_PORT));
    static NAMED_PORTS: List = between(1, 100, Schema::Object(&NAMED_PORT));
    static OLD_PORTS: List = between(0, 100, Schema::Object(&NAMED_PORT));

    static KEYS: List = between(0, 100, ANY_TEXT);
    static OLD_NAMESPACES: Object = Object::one_of(&[
        ("namespaceSelector", SELECTOR),
        ("sameLabels", Schema::List(&KEYS)),
        ("notSameLabels", Schema::List(&KEYS)),
    ]);
    static OLD_PODS: Object = Object::plain(
        &[("namespaces", Schema::Object(&OLD_NAMESPACES)), ("podSelector", SELECTOR)],
        &["namespaces", "podSelector"],
    );
    static OLD_PEER: Object = Object::one_of(&[
        ("namespaces", Schema::Object(&OLD_NAMESPACES)),
        ("pods", Schema::Object(&OLD_PODS)),
    ]);
    static OLD_PEERS: List = between(1, 100, Schema::Object(&OLD_PEER));

    /// The rules and the two kinds of objects of one definition.
    macro_rules! kinds {
        ($name:ident, $actions:expr, $baseline:expr, $from:expr, $to:expr, $baseline_to:expr, $ports:expr) => {
            pub(in super::super) mod $name {
                use super::*;
                static INGRESS: Object = rule!($actions, "from", $from, "ports", $ports);
                static EGRESS: Object = rule!($actions, "to", $to, "ports", $ports);
                static LAST_INGRESS: Object = rule!($baseline, "from", $from, "ports", $ports);
                static LAST_EGRESS: Object = rule!($baseline, "to", $baseline_to, "ports", $ports);
                static INGRESS_RULES: List = between(0, 100, Schema::Object(&INGRESS));
                static EGRESS_RULES: List = between(0, 100, Schema::Object(&EGRESS));
                static LAST_INGRESS_RULES: List = between(0, 100, Schema::Object(&LAST_INGRESS));
                static LAST_EGRESS_RULES: List = between(0, 100, Schema::Object(&LAST_EGRESS));
                static SPEC: Object = Object::plain(
                    &[
                        ("priority", PRIORITY),
                        ("subject", Schema::Object(&SUBJECT)),
                        ("ingress", Schema::List(&INGRESS_RULES)),
                        ("egress", Schema::List(&EGRESS_RULES)),
                    ],
                    &["priority", "subject"],
                );
                static LAST_SPEC: Object = Object::plain(
                    &[
                        ("subject", Schema::Object(&SUBJECT)),
                        ("ingress", Schema::List(&LAST_INGRESS_RULES)),
                        ("egress", Schema::List(&LAST_EGRESS_RULES)),
                    ],
                    &["subject"],
                );
                pub(in super::super::super) static ADMIN: Object = resource!(&SPEC);
                pub(in super::super::super) static BASELINE: Object = resource!(&LAST_SPEC);
            }
        };
    }
    kinds!(standard, ACTION, BASELINE_ACTION, &FROM, &STANDARD_TO, &STANDARD_TO, &STANDARD_PORTS);
    kinds!(
        experimental,
        ACTION,
        BASELINE_ACTION,
        &FROM,
        &EXPERIMENTAL_TO,
        &BASELINE_TO,
        &NAMED_PORTS
    );
    kinds!(old, ANY_TEXT, ANY_TEXT, &OLD_PEERS, &OLD_PEERS, &OLD_PEERS, &OLD_PORTS);
}

use super::{Channel, Kind};

/// The definition of a kind; `old_peers` for the objects of releases up to v0.1.1, which had one channel.
pub(super) fn definition(kind: Kind, channel: Channel, old_peers: bool) -> &'static Object {
    match (kind, channel, old_peers) {
        (Kind::Cluster, Channel::Standard, _) => &cluster::STANDARD,
        (Kind::Cluster, Channel::Experimental, _) => &cluster::EXPERIMENTAL,
        (Kind::Admin, _, true) => &admin::old::ADMIN,
        (Kind::Baseline, _, true) => &admin::old::BASELINE,
        (Kind::Admin, Channel::Standard, false) => &admin::standard::ADMIN,
        (Kind::Admin, Channel::Experimental, false) => &admin::experimental::ADMIN,
        (Kind::Baseline, Channel::Standard, false) => &admin::standard::BASELINE,
        (Kind::Baseline, Channel::Experimental, false) => &admin::experimental::BASELINE,
    }
}
