//! Texts of every kind into manifests: broken, hostile, odd and large ones.

#![expect(clippy::unwrap_used, reason = "a test fails that way")]

use netpol_core::{Direction, Match, Peer, Pod, PodId, PortEntry, Selector};
use netpol_k8s::{Diagnostic, Manifests, Reader};
use std::fmt::Write;

fn read(text: &str) -> Manifests {
    let mut reader = Reader::new();
    reader.read_text("f", text);
    reader.finish()
}

fn texts(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(ToString::to_string).collect()
}

/// The policy of `spec`, and what is wrong with it.
fn policy(spec: &str) -> (netpol_core::Policy, Vec<String>) {
    let manifests = read(&format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: shop}}, {spec}}}"
    ));
    let policy = manifests.cluster().policies().next().unwrap().clone();
    (policy, texts(manifests.diagnostics()))
}

/// What a policy does, in short: `{}` for no rule, `any:any` for one that matches everything, `-` for what matches nothing.
fn shape(policy: &netpol_core::Policy) -> String {
    let side = |direction| {
        let Some(rules) = policy.rules(direction) else { return "open".to_owned() };
        let show = |rule: &netpol_core::PolicyRule| {
            let peers = match &rule.matches.peers {
                Match::Any => "any".to_owned(),
                Match::OneOf(peers) if peers.is_empty() => "-".to_owned(),
                Match::OneOf(peers) => {
                    let peer = |peer: &Peer| match peer {
                        Peer::Pods(selection) => selection.pods.to_string(),
                        Peer::Network(block) => {
                            let holes: String =
                                block.except.iter().map(|e| format!("-{e}")).collect();
                            format!("{}{holes}", block.cidr)
                        }
                        _ => "?".to_owned(),
                    };
                    peers.iter().map(peer).collect::<Vec<_>>().join("+")
                }
            };
            let ports = match &rule.matches.ports {
                Match::Any => "any".to_owned(),
                Match::OneOf(entries) if entries.is_empty() => "-".to_owned(),
                Match::OneOf(entries) => {
                    let entry = |entry: &PortEntry| match entry {
                        PortEntry::Protocol(protocol) => protocol.to_string(),
                        PortEntry::Range { protocol, first, last } => {
                            format!("{protocol}/{first}-{last}")
                        }
                        PortEntry::Named { protocol, name } => format!("{protocol}/{name}"),
                        _ => "?".to_owned(),
                    };
                    entries.iter().map(entry).collect::<Vec<_>>().join("+")
                }
            };
            format!("{peers}:{ports}")
        };
        format!("{{{}}}", rules.iter().map(show).collect::<Vec<_>>().join(" "))
    };
    format!(
        "{} in {} out {}",
        policy.subject().pods,
        side(Direction::Ingress),
        side(Direction::Egress)
    )
}

#[track_caller]
fn check(spec: &str, expected: &str, defects: usize) {
    let (policy, diagnostics) = policy(spec);
    assert_eq!(shape(&policy), expected, "{spec}");
    assert_eq!(diagnostics.len(), defects, "{spec}: {diagnostics:#?}");
}

#[test]
fn empty_and_missing() {
    // NP-02, NP-05, NP-08.
    check("spec: {}", "<all> in {} out open", 0);
    check("spec: null", "<all> in {} out open", 0);
    check("spec: {podSelector: null, ingress: []}", "<all> in {} out open", 0);
    check("spec: {ingress: [{}]}", "<all> in {any:any} out open", 0);
    check("spec: {ingress: [null]}", "<all> in {any:any} out open", 0);
    check("spec: {ingress: [{from: [], ports: null}]}", "<all> in {any:any} out open", 0);
    check("spec: {ingress: [{ports: [{}]}]}", "<all> in {any:TCP} out open", 0);
    check(
        "spec: {ingress: [{ports: [null, {protocol: UDP}]}]}",
        "<all> in {any:TCP+UDP} out open",
        0,
    );
    check("spec: {ingress: [{from: [null]}]}", "<all> in {-:any} out open", 1);
    check("spec: {egress: []}", "<all> in {} out open", 0);
    check("spec: {egress: [null]}", "<all> in {} out {any:any}", 0);
    check("spec: {policyTypes: [Egress]}", "<all> in open out {}", 0);
    check("spec: {policyTypes: [Egress], ingress: [{}]}", "<all> in open out {}", 0);
    check("spec: {policyTypes: [Egress, Egress], egress: [{}]}", "<all> in open out {any:any}", 0);
    check("spec: {policyTypes: []}", "<all> in {} out open", 0);
    check("spec: {podSelector: {matchLabels: {a: }}}", "a= in {} out open", 0);
    check("", "<all> in {} out open", 0);
}

#[test]
fn ports() {
    let rule = |ports: &str, expected: &str, defects| {
        check(
            &format!("spec: {{ingress: [{{ports: [{ports}]}}]}}"),
            &format!("<all> in {{any:{expected}}} out open"),
            defects,
        );
    };
    rule("{port: 80}", "TCP/80-80", 0);
    rule("{port: 80, endPort: 80, protocol: SCTP}", "SCTP/80-80", 0);
    rule("{port: http}", "TCP/http", 0);
    for broken in [
        "{port: 0}",
        "{port: 65536}",
        "{port: 9, endPort: 8}",
        "{port: 9, endPort: 65536}",
        "{endPort: 8}",
        "{port: http, endPort: 8}",
        "{port: \"80\"}",
        "{port: HTTP}",
        "{protocol: ICMP}",
        "{protocol: tcp, port: 80}",
        "{port: 80.5}",
        "{port: [80]}",
        "{port: 80, protocol: 6}",
        "{prot: 80}",
        "{port: 80, name: http}",
        "80",
    ] {
        rule(broken, "-", 1);
        rule(&format!("{broken}, {{port: 1}}"), "TCP/1-1", 1);
    }
}

#[test]
fn peers() {
    let rule = |peers: &str, expected: &str, defects| {
        check(
            &format!("spec: {{policyTypes: [Egress], egress: [{{to: [{peers}]}}]}}"),
            &format!("<all> in open out {{{expected}:any}}"),
            defects,
        );
    };
    rule("{podSelector: {}}", "<all>", 0);
    rule("{namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}", "a=b", 0);
    rule("{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}", "10.0.0.0/8-10.1.0.0/16", 0);
    // An invalid value equals no real one (VAL-31).
    rule("{podSelector: {matchLabels: {a: \"b c\"}}}", "a=b c", 1);
    for broken in [
        "{}",
        "{podSelecter: {}}",
        "{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}",
        "{podSelector: {}, serviceAccounts: {}}",
        "{ipBlock: {cidr: 10.0.0.0}}",
        "{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0]}}",
        "{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}",
        "{ipBlock: {cidr: 10.0.0.0/8, except: [\"fd00::/16\"]}}",
        "{ipBlock: {cidr: 10.0.0.0/8, excepts: [10.1.0.0/16]}}",
        "{ipBlock: {cidr: 10.0.0.0/8, except: 10.1.0.0/16}}",
        "{ipBlock: {}}",
        "{podSelector: {matchExpressions: [{key: a, operator: Gt, values: [b]}]}}",
        "{podSelector: {matchExpressions: [{key: a, operator: In}]}}",
        "{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
        "{podSelector: {matchLabels: {a b: c}}}",
        "{podSelector: {matchLabels: {a: no}}}",
        "{podSelector: {app: web}}",
        "{namespaceSelector: {matchLabels: [a]}, podSelector: {}}",
        "podSelector",
    ] {
        rule(broken, "-", 1);
        rule(&format!("{broken}, {{podSelector: {{}}}}"), "<all>", 1);
    }
}

#[test]
fn broken_rules_and_subjects_fail_closed() {
    check("spec: {ingress: [{from: {}}]}", "<all> in {-:any} out open", 1);
    check("spec: {ingress: [{form: [{podSelector: {}}]}]}", "<all> in {-:any} out open", 1);
    check(
        "spec: {ingress: [{to: [{podSelector: {}}]}, {}]}",
        "<all> in {-:any any:any} out open",
        1,
    );
    check("spec: {ingress: {}}", "<all> in {-:any} out open", 1);
    check("spec: {egress: all}", "<all> in {} out {-:any}", 1);
    check("spec: {ingress: [1, 2, {}]}", "<all> in {-:any -:any any:any} out open", 2);
    // Nobody can say whom these mean: everybody in the namespace, who may do nothing.
    let closed = "<all> in {} out open";
    check("spec: {podSelector: {matchLabel: {a: b}}, ingress: [{}]}", closed, 1);
    check("spec: {podSelector: {matchLabels: {a: 5}}, ingress: [{}]}", closed, 1);
    check(
        "spec: {podSelector: {matchExpressions: [{key: a, operator: Near}]}, ingress: [{}]}",
        closed,
        1,
    );
    // A type that does not exist could have meant either direction, and so could a key that nobody knows.
    check("spec: {policyTypes: [egress]}", "<all> in {} out {}", 1);
    check("spec: {policyTypes: Egress}", "<all> in {} out {}", 1);
    check("spec: {podSelector: {}, policyType: [Egress]}", "<all> in {} out {}", 1);
    check("spec: {podSelecter: {}, ingress: [{}]}", "<all> in {} out {}", 1);
    check(
        "spec: {podSelector: {matchLabels: {a: b}}, policyTypes: [Ingress], ingres: []}",
        "a=b in {} out open",
        1,
    );
    check("spec: [x]", "<all> in {} out {}", 1);
    check("Spec: {podSelector: {}}", "<all> in {} out {}", 1);
    check("status: {}, spec: {ingress: [{}]}", "<all> in {any:any} out open", 1);
}

#[test]
fn a_policy_by_another_name_isolates() {
    for (kind, version) in [
        ("NetworkPolicy", "networking.k8s.io/v1beta1"),
        ("NetworkPolicy", "extensions/v1"),
        ("networkPolicy", "extensions/v1beta1"),
        ("NetworkPolicy", "net.alpha.kubernetes.io/v1"),
        ("networkpolicy", "networking.k8s.io/v1"),
        ("NetworkPolicies", "networking.k8s.io/v1"),
    ] {
        let manifests = read(&format!(
            "{{kind: {kind}, apiVersion: {version}, metadata: {{name: p}}, \
             spec: {{podSelector: {{matchLabels: {{a: b}}}}, ingress: [{{}}]}}}}"
        ));
        let policy = manifests.cluster().policies().next().unwrap();
        assert_eq!(shape(policy), "a=b in {} out {}", "{kind} {version}");
        assert_eq!(manifests.diagnostics().len(), 1, "{:?}", manifests.diagnostics());
        assert!(manifests.has_errors());
    }
    let calico =
        read("{kind: NetworkPolicy, apiVersion: projectcalico.org/v3, metadata: {name: p}}");
    assert_eq!(calico.cluster().policies().len(), 0);
    assert!(!calico.has_errors() && calico.diagnostics().len() == 1);
}

#[test]
fn a_policy_whose_name_is_broken_still_isolates() {
    for (metadata, id) in [
        ("{name: 5, namespace: shop}", "NetworkPolicy shop/5"),
        ("{name: p, namespace: no}", "NetworkPolicy no/p"),
        ("{generateName: p-}", "NetworkPolicy default/p-"),
        ("{name: Web_1}", "NetworkPolicy default/Web_1"),
        ("{name: p, labels: [a]}", "NetworkPolicy default/p"),
    ] {
        let manifests = read(&format!(
            "{{kind: NetworkPolicy, apiVersion: networking.k8s.io/v1, metadata: {metadata}, spec: {{}}}}"
        ));
        let policy = manifests.cluster().policies().next().unwrap();
        assert_eq!(policy.id().to_string(), id);
    }
    let unnamed = "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nspec: {}\n";
    let manifests = read(&format!("{unnamed}---\n{unnamed}---\n{unnamed}"));
    assert_eq!(manifests.cluster().policies().len(), 3);
}

#[test]
fn legacy_spellings_mean_what_old_servers_took_them_for() {
    for (cidr, meaning) in [
        ("010.0.0.0/8", "10.0.0.0/8"),
        ("1.2.3.4/24", "1.2.3.0/24"),
        ("10.0.0.0/016", "10.0.0.0/16"),
        ("::ffff:1.1.1.0/120", "1.1.1.0/24"),
        ("::ffff:1.1.1.0/24", "::/24"),
    ] {
        let spec = format!("spec: {{ingress: [{{from: [{{ipBlock: {{cidr: \"{cidr}\"}}}}]}}]}}");
        check(&spec, &format!("<all> in {{{meaning}:any}} out open"), 1);
    }
}

#[test]
fn one_broken_document_hides_no_other() {
    let manifests = read(
        "# comment\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: [\n---\n\
         {\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"b\"}}\n---\r\n\
         apiVersion: v1\r\nkind: Pod\r\nmetadata:\r\n  name: c\r\n---\n{{ template }}\n---\n",
    );
    let names: Vec<_> = manifests.cluster().pods().map(|pod| pod.id().to_string()).collect();
    assert_eq!(names, ["default/a", "default/b", "default/c"]);
    assert_eq!(manifests.diagnostics().iter().filter(|d| d.is_unreadable()).count(), 2);
    assert!(manifests.diagnostics()[1].hint().unwrap().contains("helm template"));
    assert_eq!(manifests.diagnostics()[1].location().unwrap().line, 16);
}

#[test]
fn lists() {
    let manifests = read(
        "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, metadata: {name: a}}, null, \
         {kind: Service, apiVersion: v1}]}\n---\n{apiVersion: v1, kind: PodList, items: [{metadata: {name: b}}, 5]}\n\
         ---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicyList, items: [{metadata: {name: p}}]}\n",
    );
    assert_eq!(manifests.cluster().pods().len(), 2);
    assert_eq!(manifests.cluster().policies().len(), 1);
    assert_eq!(manifests.skipped().get("Service"), Some(&1));
    assert_eq!(texts(manifests.diagnostics()).len(), 1, "{:?}", manifests.diagnostics());
}

#[test]
fn the_later_of_two_counts() {
    let object = |label: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: a, labels: {{v: {label}}}}}}}\n---\n"
        )
    };
    let manifests = read(&(object("first") + &object("second")));
    let pod = manifests.cluster().pod(&PodId::new("default", "a")).unwrap();
    assert_eq!(pod.labels().value("v"), Some("second"));
    assert_eq!(manifests.diagnostics()[0].code(), "same-object-twice");
    let manifests = read("{apiVersion: v1, kind: Pod, metadata: {name: a, name: b}}");
    assert_eq!(manifests.cluster().pods().next().unwrap().id().to_string(), "default/b");
    assert_eq!(manifests.diagnostics()[0].code(), "VAL-27");
}

fn workloads(text: &str) -> Vec<String> {
    let manifests = read(text);
    let show = |pod: &Pod| format!("{} is {}", pod.id(), manifests.workload(pod.id()));
    manifests.cluster().pods().map(show).collect()
}

#[test]
fn workloads_and_their_pods() {
    let template = "{metadata: {labels: {app: web}}, spec: {containers: []}}";
    let owned = |name: &str, kind: &str, owner: &str, more: &str| {
        format!(
            "{{name: {name}, labels: {{pod-template-hash: abc}}, \
             ownerReferences: [{{kind: {kind}, name: {owner}, controller: true}}]}}{more}"
        )
    };
    let deployment = format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{template: {template}}}}}"
    );
    assert_eq!(workloads(&deployment), ["default/web[Deployment] is default/web[Deployment]"]);
    let set = format!(
        "{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {}, spec: {{template: {template}}}}}",
        owned("web-abc", "Deployment", "web", "")
    );
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {}}}",
        owned("web-abc-1", "ReplicaSet", "web-abc", "")
    );
    let all = format!("{deployment}\n---\n{set}\n---\n{pod}");
    assert_eq!(workloads(&all), ["default/web-abc-1 is default/web[Deployment]"]);
    assert_eq!(workloads(&pod), ["default/web-abc-1 is default/web[Deployment]"], "by its hash");
    let cron = format!(
        "{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: c}}, \
         spec: {{jobTemplate: {{spec: {{template: {template}}}}}}}}}"
    );
    let job = format!(
        "{{apiVersion: batch/v1, kind: Job, metadata: {}}}",
        owned("c-1", "CronJob", "c", "")
    );
    assert_eq!(
        workloads(&format!("{cron}\n---\n{job}")),
        ["default/c[CronJob] is default/c[CronJob]"]
    );
    assert_eq!(
        workloads("{apiVersion: v1, kind: Pod, metadata: {name: a}}"),
        ["default/a is default/a[Pod]"]
    );
    // A circle ends.
    let circle = format!(
        "{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {}}}\n---\n{{apiVersion: v1, kind: Pod, metadata: {}}}",
        owned("x", "ReplicaSet", "x", ""),
        owned("p", "ReplicaSet", "x", "")
    );
    assert_eq!(workloads(&circle), ["default/p is default/x[ReplicaSet]"]);
}

#[test]
fn what_policy_reads_of_a_pod() {
    let manifests = read(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, uid: u, creationTimestamp: 2026-01-01T00:00:00Z}\n\
         spec:\n  nodeName: node-1\n  hostNetwork: true\n  containers:\n  - name: c\n    ports:\n\
         \x20   - {name: http, containerPort: 80}\n    - {containerPort: 81}\n    resources: {limits: {cpu: [1]}}\n\
         \x20 initContainers:\n  - {name: i, ports: [{name: init, containerPort: 1}]}\n\
         \x20 - {name: s, restartPolicy: Always, ports: [{name: side, containerPort: 2, protocol: UDP}]}\n\
         status: {phase: Running, podIP: 9.9.9.9, podIPs: [{ip: 010.0.0.1}, {ip: '::ffff:10.0.0.2'}, {ip: 'fd00::1'}]}\n",
    );
    let pod = manifests.cluster().pods().next().unwrap();
    let addresses: Vec<_> = pod.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2", "fd00::1"]);
    let ports: Vec<_> =
        pod.ports().iter().map(|p| format!("{} {}/{}", p.name, p.port, p.protocol)).collect();
    assert_eq!(ports, ["http 80/TCP", "side 2/UDP"]);
    assert_eq!((pod.uid(), pod.created()), (Some("u"), Some(1_767_225_600)));
    assert!(pod.host_network() && pod.phase() == netpol_core::Phase::Running);
    assert_eq!(
        texts(manifests.diagnostics()),
        [
            "f:12:31: warning: Pod default/a: spec.containers[0].resources.limits.cpu: expected a quantity such as `100m`, found a list"
        ]
    );
    // No server holds such an object.
    let broken = read("{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {v: 1}}}");
    assert_eq!(broken.cluster().pods().len(), 0);
    assert!(broken.has_errors());
}

#[test]
fn diagnostics_point_at_what_they_are_about() {
    let manifests = read(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: web\nspec:\n  podSelector:\n\
         \x20   matchLabels: {app: web, tier: 'a b'}\n  ingress:\n  - from:\n    - ipBlock:\n        cidr: 10.0.0.1/8\n\
         \x20 - from:\n    - podSelecter: {}\n",
    );
    let places: Vec<_> = manifests
        .diagnostics()
        .iter()
        .map(|d| {
            let at = d.location().unwrap();
            let line = manifests.source_line(at).unwrap();
            let from = at.column as usize - 1;
            (
                line[from..from + at.length as usize].to_owned(),
                d.hint().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let expected = [
        ("tier", ""),
        ("10.0.0.1/8", "write `10.0.0.0/8`, or `10.0.0.1/32` for one address"),
        ("podSelecter", "did you mean `podSelector`?"),
    ];
    assert_eq!(places, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let policy = manifests.cluster().policies().next().unwrap();
    assert_eq!(policy.source().unwrap().line, 4);
    let rules = policy.rules(Direction::Ingress).unwrap();
    assert_eq!(rules[1].matches.source.as_ref().unwrap().line, 12);
}

#[test]
fn hostile_texts_end_soon() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..12 {
        let before = format!("*a{},", i - 1).repeat(9);
        let _ = writeln!(bomb, "a{i}: &a{i} [{before}]");
    }
    for text in [
        bomb,
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
        "a: &a [*a]".to_owned(),
        format!("a: \"{}\"", "x".repeat(10_000_000)),
        format!("kind: {}", "x".repeat(1_000_000)),
        "\0\u{1}\u{7f}".to_owned(),
        "---\n".repeat(100_000),
        "'".to_owned(),
        "\u{feff}".to_owned(),
        format!(
            "{{\"kind\": \"Pod\", \"apiVersion\": \"v1\", \"metadata\": {{\"name\": \"a\"}}{}",
            "}".repeat(1000)
        ),
    ] {
        let manifests = read(&text);
        assert!(manifests.cluster().policies().len() == 0);
    }
    // Very many defects in one policy: the first are told, the rest is closed.
    let peers = "{ipBlock: 5},".repeat(20_000);
    let (policy, diagnostics) = policy(&format!("spec: {{ingress: [{{from: [{peers}]}}]}}"));
    assert_eq!(shape(&policy), "<all> in {} out {}");
    assert!(diagnostics.len() > 10, "{}", diagnostics.len());
}

#[test]
fn five_thousand_documents() {
    let data = "x".repeat(1000);
    let mut text = String::new();
    for i in 0..5000 {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: p{i}\n  annotations:\n    data: {data}\n"
        );
    }
    let manifests = read(&text);
    assert_eq!(manifests.cluster().pods().len(), 5000);
    assert!(manifests.diagnostics().is_empty());
}

#[test]
fn what_is_missing_at_the_end_is_shown_at_the_end() {
    for text in ["{", "a: [\n", "---\na: \"x\n\n"] {
        let manifests = read(text);
        let location = manifests.diagnostics()[0].location().unwrap();
        assert!(manifests.source_line(location).is_some(), "{text:?} {location}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_answered(text in "(apiVersion|kind|: |- |\\n|  |\\[|\\]|\\{|\\}|,|\"|'|&a |\\*a|<<|---|null|Pod|v1|\\||\\PC){0,60}") {
        let manifests = read(&text);
        proptest::prop_assert!(manifests.cluster().policies().len() == 0);
        let lines = manifests.diagnostics().iter().filter_map(|d| d.location());
        for location in lines {
            proptest::prop_assert!(manifests.source_line(location).is_some(), "{location}");
        }
    }

    #[test]
    fn any_spec_is_answered(spec in "(podSelector|ingress|egress|from|to|ports|ipBlock|cidr|: |\\[|\\]|\\{|\\}|, |10.0.0.0/8|5|a){0,30}") {
        let text = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p}}, spec: {{{spec}}}}}"
        );
        let manifests = read(&text);
        // Either nothing could be read at all, or somebody is isolated.
        let unreadable = manifests.diagnostics().iter().any(Diagnostic::is_unreadable);
        proptest::prop_assert_eq!(manifests.cluster().policies().len(), usize::from(!unreadable));
    }
}

#[test]
fn selectors_of_equal_meaning_are_equal() {
    let subject = |selector: &str| {
        policy(&format!("spec: {{podSelector: {selector}}}")).0.subject().pods.clone()
    };
    assert_eq!(
        subject("{matchLabels: {a: b}}"),
        subject("{matchExpressions: [{key: a, operator: In, values: [b, b]}]}")
    );
    assert_eq!(subject("{matchLabels: null, matchExpressions: []}"), Selector::everything());
}

#[test]
fn a_controller_that_was_not_read_still_has_its_pods() {
    let set = |name: &str, hash: &str| {
        format!(
            "---
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: {name}-{hash}
  ownerReferences: [{{apiVersion: argoproj.io/v1alpha1, kind: Rollout, name: {name}, uid: u, controller: true}}]
spec: {{template: {{metadata: {{labels: {{app: {name}}}}}}}}}
"
        )
    };
    let mut reader = Reader::new();
    reader.read_text("sets.yaml", &(set("web", "aaa") + &set("web", "bbb") + &set("db", "ccc")));
    let manifests = reader.finish();
    let workloads: Vec<String> =
        manifests.cluster().pods().map(|pod| manifests.workload(pod.id()).to_string()).collect();
    assert_eq!(workloads, ["default/db[Rollout]", "default/web[Rollout]"]);
}

#[test]
fn every_end_of_a_line_counts_once() {
    let lines = ["apiVersion: v1", "kind: Pod", "metadata: {name: p, nam: q}", "---", "kind: 7"];
    for end in ["\n", "\r\n", "\r"] {
        let manifests = read(&lines.join(end));
        let places: Vec<_> = manifests
            .diagnostics()
            .iter()
            .filter_map(|diagnostic| diagnostic.location())
            .map(|at| (at.line, manifests.source_line(at).map(str::to_owned)))
            .collect();
        assert!(places.len() >= 2, "{:?}", manifests.diagnostics());
        for (line, shown) in places {
            let index = usize::try_from(line).unwrap() - 1;
            assert_eq!(shown.as_deref(), lines.get(index).copied(), "{end:?}");
        }
    }
}
