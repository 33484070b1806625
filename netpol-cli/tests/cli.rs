//! The command as a user runs it: what it prints, where, and how it ends.
//!
//! `SNAPSHOTS=overwrite cargo test -p netpol-cli` writes the expected output anew.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use serde_json::Value;
use snapbox::{Data, assert_data_eq, file};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs `netpol` at the top of the repository, with `input` on standard input.
fn netpol_with(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_netpol"))
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn netpol(arguments: &[&str]) -> Output {
    netpol_with(arguments, "")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn answers(arguments: &[&str], code: i32, expected: Data) {
    let output = netpol(arguments);
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    assert_data_eq!(stdout(&output), expected);
}

/// No answer: the reason on standard error, nothing on standard output.
#[track_caller]
fn cannot_answer(output: &Output, why: &str) {
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(output), "");
    assert!(stderr(output).contains(why), "{}", stderr(output));
}

#[test]
fn list_in_each_form() {
    answers(&["list", "examples/shop"], 0, file!["snapshots/list-shop.txt"]);
    answers(&["list", "examples/book"], 0, file!["snapshots/list-book.txt"]);
    answers(&["list", "examples/deny-all"], 0, file!["snapshots/list-deny-all.txt"]);
    answers(&["list", "examples/dual-stack"], 0, file!["snapshots/list-dual-stack.txt"]);
    answers(&["list", "-o", "json", "examples/book"], 0, file!["snapshots/list-book.json": Text]);
    answers(&["list", "-o", "csv", "examples/book"], 0, file!["snapshots/list-book.csv"]);
    answers(&["list", "-o", "md", "examples/book"], 0, file!["snapshots/list-book.md"]);
}

#[test]
fn cluster_wide_policies() {
    let admin = "examples/admin";
    answers(&["list", admin], 0, file!["snapshots/list-admin.txt"]);
    answers(&["list", "examples/admin-v1alpha1"], 0, file!["snapshots/list-admin-v1alpha1.txt"]);
    answers(&["check", "examples/admin-v1alpha1"], 0, file!["snapshots/check-admin-v1alpha1.txt"]);
    let explain = |from, to, port, code, expected| {
        answers(&["explain", "--from", from, "--to", to, "--port", port, admin], code, expected);
    };
    explain("red/db", "red/web", "8080/TCP", 0, file!["snapshots/explain-tiers-passed.txt"]);
    explain("blue/web", "red/web", "8080/TCP", 1, file!["snapshots/explain-tiers-denied.txt"]);
    explain("red/db", "192.168.10.1", "22/TCP", 1, file!["snapshots/explain-tiers-node.txt"]);
    answers(
        &[
            "explain", "--from", "red/db", "--to", "red/web", "--port", "8080/TCP", "-o", "json",
            admin,
        ],
        0,
        file!["snapshots/explain-tiers.json": Text],
    );
}

#[test]
fn what_of_a_cluster_wide_policy_is_broken_is_said_with_what_follows() {
    let output = netpol(&["check", "examples/defects/cluster-policy.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_data_eq!(stdout(&output), file!["snapshots/check-cluster-policy.txt"]);
}

#[test]
fn list_filters() {
    answers(
        &["list", "--to", "payments/checkout", "examples/shop"],
        0,
        file!["snapshots/list-to.txt"],
    );
    answers(&["list", "--from", "shop/api", "examples/shop"], 0, file!["snapshots/list-from.txt"]);
    answers(
        &["list", "--namespace", "payments", "-o", "csv", "examples/shop"],
        0,
        file!["snapshots/list-namespace.csv"],
    );
    answers(
        &["list", "--from", "198.51.100.7", "examples/shop"],
        0,
        file!["snapshots/list-from-address.txt"],
    );
}

#[test]
fn json_is_a_contract() {
    let output = netpol(&["list", "-o", "json", "examples/shop"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let connections = answer.get("connections").and_then(Value::as_array).unwrap();
    assert!(connections.len() > 30);
    for connection in connections {
        let (src, dst) = (&connection["src"], &connection["dst"]);
        assert!(src.is_string() && dst.is_string() && src != dst, "{connection}");
        let allow = connection.get("allow").and_then(Value::as_object).unwrap();
        let keys: Vec<_> = allow.keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 4);
        let other = allow.get("other").and_then(Value::as_bool).unwrap();
        let mut ranges = 0;
        for protocol in ["TCP", "UDP", "SCTP"] {
            let mut after = 0;
            for range in allow.get(protocol).and_then(Value::as_array).unwrap() {
                let bound = |i: usize| range.get(i).and_then(Value::as_u64).unwrap();
                assert!(
                    after < bound(0) && bound(0) <= bound(1) && bound(1) <= 65535,
                    "{connection}"
                );
                after = bound(1) + 1;
                ranges += 1;
            }
        }
        assert!(other || ranges > 0, "a pair with nothing allowed is left out: {connection}");
    }
}

#[test]
fn explain_says_why() {
    let explain = |from, to, port, path, code, expected| {
        answers(&["explain", "--from", from, "--to", to, "--port", port, path], code, expected);
    };
    let shop = "examples/shop";
    explain("shop/web", "shop/api", "http", shop, 0, file!["snapshots/explain-allowed.txt"]);
    explain(
        "shop/web",
        "shop/catalog-db",
        "5432/TCP",
        shop,
        1,
        file!["snapshots/explain-denied.txt"],
    );
    explain(
        "monitoring/prometheus",
        "shop/catalog-db",
        "5432",
        shop,
        1,
        file!["snapshots/explain-far-side.txt"],
    );
    explain("203.0.113.9", "shop/web", "http", shop, 0, file!["snapshots/explain-external.txt"]);
    explain("shop/web", "shop/api", "ICMP", shop, 1, file!["snapshots/explain-icmp.txt"]);
    explain(
        "monitoring/node-exporter",
        "shop/web",
        "http",
        shop,
        1,
        file!["snapshots/explain-host-network.txt"],
    );
    explain(
        "visitors/client",
        "quiet/web",
        "80",
        "examples/deny-all",
        1,
        file!["snapshots/explain-deny-all.txt"],
    );
    explain(
        "bridge/client",
        "bridge/ledger",
        "5432",
        "examples/dual-stack",
        1,
        file!["snapshots/explain-families.txt"],
    );
    explain(
        "bridge/client",
        "bridge/client",
        "1",
        "examples/dual-stack",
        0,
        file!["snapshots/explain-itself.txt"],
    );
    answers(
        &[
            "explain",
            "--from",
            "shop/web",
            "--to",
            "shop/catalog-db",
            "--port",
            "5432",
            "-o",
            "json",
            shop,
        ],
        1,
        file!["snapshots/explain-denied.json": Text],
    );
}

#[test]
fn check_points_at_the_line() {
    answers(&["check", "examples/shop"], 0, file!["snapshots/check-shop.txt"]);
    for example in ["bad-addresses", "bad-ports", "bad-selectors", "key-twice", "misspelt-field"] {
        let path = format!("examples/defects/{example}.yaml");
        let output = netpol(&["check", &path]);
        assert_eq!(output.status.code(), Some(1), "{example}");
        let expected = Data::read_from(
            std::path::Path::new(&format!(
                "{}/tests/snapshots/check-{example}.txt",
                env!("CARGO_MANIFEST_DIR")
            )),
            None,
        );
        assert_data_eq!(stdout(&output), expected);
    }
    answers(
        &["check", "examples/defects/workloads.yaml", "examples/defects/no-error-but.yaml"],
        0,
        file!["snapshots/check-no-error-but.txt"],
    );
    let output = netpol(&["check", "-o", "json", "examples/defects/bad-ports.yaml"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = answer.pointer("/diagnostics/0").unwrap();
    for key in ["severity", "code", "location", "object", "field", "message"] {
        assert!(first.get(key).is_some(), "{key} in {first}");
    }
}

const OLD: [&str; 2] = ["--v1beta1-as", "1.6"];

#[test]
fn the_alpha_of_2016() {
    let folder = "examples/alpha-2016";
    answers(&["list", folder], 0, file!["snapshots/list-alpha-2016.txt"]);
    answers(&["check", folder], 0, file!["snapshots/check-alpha-2016.txt"]);
    answers(
        &["convert", "--to", "v1", folder],
        0,
        file!["snapshots/convert-alpha-2016.yaml": Text],
    );
    let explain = |from, to, code, expected| {
        let arguments = ["explain", "--from", from, "--to", to, "--port", "80", folder];
        answers(&arguments, code, expected);
    };
    // The reason leads to the line of the annotation.
    explain(
        "tenant-a/backend",
        "tenant-a/frontend",
        1,
        file!["snapshots/explain-alpha-isolated.txt"],
    );
    explain(
        "tenant-b/frontend",
        "tenant-a/backend",
        1,
        file!["snapshots/explain-alpha-other-tenant.txt"],
    );
    explain(
        "tenant-a/frontend",
        "tenant-a/backend",
        0,
        file!["snapshots/explain-alpha-allowed.txt"],
    );
}

#[test]
fn v1beta1_means_what_the_server_meant() {
    let folder = "examples/v1beta1";
    let with = |first: &[&'static str], rest: &[&'static str]| [first, rest, &[folder]].concat();
    answers(&with(&["list"], &[]), 0, file!["snapshots/list-v1beta1-as-1.7.txt"]);
    answers(&with(&["list"], &OLD), 0, file!["snapshots/list-v1beta1-as-1.6.txt"]);
    // A warning names the option, beside every answer.
    answers(&with(&["check"], &[]), 0, file!["snapshots/check-v1beta1-as-1.7.txt"]);
    answers(&with(&["check"], &OLD), 0, file!["snapshots/check-v1beta1-as-1.6.txt"]);
    for command in [&["list"][..], &["render"], &["convert", "--to", "v1"]] {
        let output = netpol(&with(command, &[]));
        assert!(stderr(&output).contains("net.beta.kubernetes.io/network-policy"), "{command:?}");
        assert!(!stderr(&netpol(&with(command, &OLD))).contains("is ignored"), "{command:?}");
    }
    let ask = ["explain", "--from", "shop/db", "--to", "shop/batch", "--port", "80"];
    answers(&with(&ask, &[]), 0, file!["snapshots/explain-v1beta1-ignored.txt"]);
    answers(&with(&ask, &OLD), 1, file!["snapshots/explain-v1beta1-isolated.txt"]);
    let ask = ["explain", "--from", "shop/db", "--to", "stage/db", "--port", "80"];
    answers(&with(&ask, &OLD), 0, file!["snapshots/explain-v1beta1-inert.txt"]);
    let json = with(&ask, &["--v1beta1-as", "1.6", "-o", "json"]);
    answers(&json, 0, file!["snapshots/explain-v1beta1-inert.json": Text]);
    let convert = ["convert", "--to", "v1"];
    answers(&with(&convert, &[]), 0, file!["snapshots/convert-v1beta1-as-1.7.yaml": Text]);
    answers(&with(&convert, &OLD), 0, file!["snapshots/convert-v1beta1-as-1.6.yaml": Text]);
}

/// Who reaches whom is the same before and after, also by way of the text.
#[test]
fn what_is_converted_answers_the_same() {
    for (folder, others, options) in [
        ("examples/alpha-2016", &["examples/alpha-2016/pods.yaml"][..], &[][..]),
        ("examples/v1beta1", &["examples/v1beta1/workloads.yaml"], &[]),
        ("examples/v1beta1", &["examples/v1beta1/workloads.yaml"], &OLD),
    ] {
        let before = netpol(&[&["list", folder], options].concat());
        let converted = netpol(&[&["convert", "--to", "v1", folder], options].concat());
        let after = netpol_with(&[&["list", "-"], others].concat(), &stdout(&converted));
        assert_eq!(stdout(&before), stdout(&after), "{folder} {options:?}");
        let json = netpol(&[&["convert", "--to", "v1", "-o", "json", folder], options].concat());
        let after = netpol_with(&[&["list", "-"], others].concat(), &stdout(&json));
        assert_eq!(stdout(&before), stdout(&after), "{folder} {options:?}");
    }
}

/// AdminNetworkPolicies to ClusterNetworkPolicies: the same answers, from what is written and read again.
#[test]
fn admin_policies_become_cluster_policies() {
    let folder = "examples/admin-v1alpha1";
    let convert = ["convert", "--to", "cnp", folder];
    answers(&convert, 0, file!["snapshots/convert-admin-v1alpha1.yaml": Text]);
    let others = ["examples/admin-v1alpha1/cluster.yaml", "examples/admin-v1alpha1/records.yaml"];
    let before = netpol(&["list", folder]);
    let converted = stdout(&netpol(&convert));
    assert!(!converted.contains("v1alpha1"), "{converted}");
    let after = netpol_with(&[&["list", "-"], &others[..]].concat(), &converted);
    assert_eq!(stdout(&before), stdout(&after));

    // A limit of the newer version splits, what it cannot say is named.
    let rule = |port: u16| {
        format!(
            "{{action: Deny, from: [{{namespaces: {{}}}}], ports: [{{portNumber: {{protocol: TCP, port: {port}}}}}]}}"
        )
    };
    let rules: Vec<String> = (1..=60).map(rule).collect();
    let head = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: big}\n";
    let many = format!(
        "{head}spec: {{priority: 3, subject: {{namespaces: {{}}}}, ingress: [{}]}}\n",
        rules.join(", ")
    );
    let converted = netpol_with(&["convert", "--to", "cnp", "-"], &many);
    assert_eq!(stdout(&converted).matches("kind: ClusterNetworkPolicy").count(), 3);
    let same = format!(
        "{head}spec: {{priority: 3, subject: {{namespaces: {{}}}}, ingress: [{{action: Allow, from: [{{namespaces: {{sameLabels: [a]}}}}]}}]}}\n"
    );
    let converted = netpol_with(&["convert", "--to", "cnp", "-"], &same);
    assert_eq!(converted.status.code(), Some(1));
    assert!(stderr(&converted).contains("namespaces cannot be compared"), "{}", stderr(&converted));
}

#[test]
fn conversion_says_what_it_leaves_out() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {net.alpha.kubernetes.io/network-isolation: 'on'}}\n";
    let policy = "apiVersion: net.alpha.kubernetes.io/v1alpha1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\n\
                  spec: {allowIncoming: {toPorts: [{port: 0}, {port: 80}]}}\n";
    let text = format!("{namespace}---\n{policy}");
    let output = netpol_with(&["convert", "--to", "v1", "-"], &text);
    assert_eq!(output.status.code(), Some(1));
    let left_out = "spec.allowIncoming.toPorts[0]: it matches nothing, and is left out";
    assert!(stderr(&output).contains(left_out), "{}", stderr(&output));
    assert!(stdout(&output).contains("port: 80") && !stdout(&output).contains("port: 0"));
    let output = netpol(&["convert", "--to", "v1", "examples/deny-all"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("nothing to convert"), "{}", stderr(&output));
    cannot_answer(&netpol_with(&["convert", "--to", "v1", "-"], "a: ["), "cannot read");
    cannot_answer(&netpol(&["convert", "examples/v1beta1"]), "--to");
    cannot_answer(&netpol(&["list", "--v1beta1-as", "1.5", "examples/v1beta1"]), "1.6, 1.7");
}

#[test]
fn text_that_cannot_be_parsed_is_no_answer() {
    let broken = "a: [\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n\
                  spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: nowhere}}]}]}\n";
    for command in [
        &["list", "-"][..],
        &["check", "-"],
        &["explain", "--from", "a", "--to", "b", "--port", "1", "-"],
    ] {
        let output = netpol_with(command, broken);
        cannot_answer(&output, "cannot read this document");
        // The other document is read and reported all the same.
        let text = stderr(&output);
        assert!(text.contains("spec.ingress[0].from[0].ipBlock.cidr"), "{text}");
    }
    cannot_answer(&netpol(&["check", "examples/defects/template-left-over.yaml"]), "helm template");
}

#[test]
fn errors_teach() {
    let explain = |from, port| {
        netpol(&["explain", "--from", from, "--to", "shop/api", "--port", port, "examples/shop"])
    };
    cannot_answer(&explain("shop/wbe", "80"), "did you mean `shop/web`?");
    cannot_answer(&explain("web", "htpp"), "its named ports: http (8000/TCP)");
    cannot_answer(&explain("web", "80/TPC"), "write a number and a protocol such as 80/TCP");
    cannot_answer(&explain("web", "0"), "is no port");
    cannot_answer(&explain("web", "proto/6"), "write PORT/TCP");
    cannot_answer(&netpol(&["list", "no/such/folder"]), "cannot read `no/such/folder`");
    cannot_answer(&netpol(&["list", "netpol-cli/src"]), "no *.yaml, *.yml or *.json file");
    cannot_answer(
        &netpol_with(&["list", "-"], "kind: Service\napiVersion: v1\n"),
        "skipped: 1 Service",
    );
    cannot_answer(
        &netpol(&["list", "--from", "monitoring/node-exporter", "examples/shop"]),
        "host network",
    );
    cannot_answer(&netpol(&["lsit"]), "unrecognized subcommand");
}

#[test]
fn a_name_may_stand_for_one_thing_only() {
    let pod = |ns: &str| {
        format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: {ns}}}\n")
    };
    let two = pod("a") + &pod("b");
    let ask = |from: &str| {
        netpol_with(&["explain", "--from", from, "--to", "10.0.0.1", "--port", "1", "-"], &two)
    };
    cannot_answer(&ask("web"), "`web` may mean a/web[Pod] or b/web[Pod]");
    assert_eq!(ask("a/web").status.code(), Some(0));
    assert_eq!(ask("b/web[Pod]").status.code(), Some(0));
}

#[test]
fn standard_input_and_several_paths() {
    let pods =
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n";
    let output =
        netpol_with(&["list", "-", "examples/book", "--default-namespace", "elsewhere"], pods);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("elsewhere/a[Pod]"), "{}", stdout(&output));
}

#[test]
fn the_readme_shows_what_is_printed() {
    let readme = include_str!("../../README.md");
    for arguments in [
        &["list", "examples/shop"][..],
        &[
            "explain",
            "--from",
            "monitoring/prometheus",
            "--to",
            "shop/catalog-db",
            "--port",
            "5432/TCP",
            "examples/shop",
        ],
        &["check", "examples/defects/misspelt-field.yaml"],
    ] {
        let printed = stdout(&netpol(arguments));
        assert!(
            readme.contains(&printed),
            "the README is not up to date with {arguments:?}:\n{printed}"
        );
    }
}

#[test]
fn completions_and_manual() {
    for shell in ["bash", "zsh", "fish"] {
        let output = netpol(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("explain"), "{shell}");
    }
    let manual = stdout(&netpol(&["man"]));
    for word in ["list", "explain", "check", "SYNOPSIS", "default\\-namespace"] {
        assert!(manual.contains(word), "{word}");
    }
    let help = stdout(&netpol(&["explain", "--help"]));
    assert!(help.contains("Examples:"), "{help}");
}

#[test]
fn hostile_names_reach_no_terminal() {
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: \"a\\e[2Jb\", labels: {k: \"\\e]0;x\\a\"}}\n";
    let policy = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: \"p\\e[1m\"}\nspec: {ingress: [{from: [{podSelector: {matchLabels: {a: \"\\e[3m\"}}}]}]}\n";
    let text = format!("{pod}{policy}");
    for command in [
        &["list", "-"][..],
        &["check", "-"],
        &["explain", "--from", "10.0.0.1", "--to", "default/a\u{1b}[2Jb", "--port", "1", "-"],
    ] {
        let output = netpol_with(command, &text);
        for stream in [&output.stdout, &output.stderr] {
            assert!(!stream.contains(&0x1b), "{command:?}: {}", String::from_utf8_lossy(stream));
        }
    }
}

#[test]
fn defects_beside_an_answer_are_counted_and_not_dumped() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";
    let broken: String = (0..300)
        .map(|i| {
            format!(
                "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p{i}}}\nspec: {{podSelecter: {{}}}}\n"
            )
        })
        .collect();
    let text = format!("{pod}{broken}");
    let listed = netpol_with(&["list", "-"], &text);
    assert_eq!(listed.status.code(), Some(0));
    assert!(
        stderr(&listed).contains("netpol: 100 more errors; `netpol check` shows them all"),
        "{}",
        stderr(&listed)
    );
    let checked = netpol_with(&["check", "-"], &text);
    assert_eq!(checked.status.code(), Some(1));
    assert_eq!(stdout(&checked).matches("error[VAL-27]").count(), 300);
}

#[test]
fn a_large_answer_stays_readable() {
    let manifests = netpol_testkit::scale::manifests(2_000, 200);
    let output = netpol_with(&["list", "-"], &manifests);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let lines = stdout(&output).lines().count();
    assert!((100..=2000).contains(&lines), "{lines} lines");
    let one = netpol_with(&["list", "--namespace", "team-3", "-"], &manifests);
    assert!(stdout(&one).lines().count() < lines, "a filter narrows");
}

/// What the standard channel lacks is unknown there, and the diagnostic says so.
#[test]
fn the_channel_of_a_server_can_be_chosen() {
    let policy = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\n\
                  spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {}}]}]}\n";
    let output = netpol_with(&["check", "-"], policy);
    assert!(!stdout(&output).contains("nodes"), "{}", stdout(&output));
    let output = netpol_with(&["check", "--channel", "standard", "-"], policy);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("nodes"), "{}", stdout(&output));
}
