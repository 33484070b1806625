//! `netpol verify` and `netpol trace`, on the kernel and on dumps of it, each test in a network namespace of its own. Needs root
//! (or a user namespace), nft and ip.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use serde_json::Value;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Two pods behind devices of node-a, enforced.
const ENFORCED: &str = "
    for pod in gw lg; do ip link add $pod type veth peer name $pod-pod; ip link set $pod up; ip link set $pod-pod up; done
    ip route add 10.244.1.10/32 dev gw; ip -6 route add fd00:244:1::10/128 dev gw
    ip route add 10.244.1.20/32 dev lg; ip -6 route add fd00:244:1::20/128 dev lg
    $netpol apply --node node-a examples/dual-stack >/dev/null
    verify() { $netpol verify --node node-a \"$@\" examples/dual-stack; }
";

/// A directory for what `apply` records, of one test.
fn state() -> std::path::PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    directory.join(format!("verify-{}-{number}", std::process::id()))
}

/// Runs a script in a new network namespace where the example is enforced: exit code, output, errors.
fn enforced(text: &str) -> (i32, String, String) {
    let state = state();
    let output = Command::new("unshare")
        .args(["--net", "bash", "-euc", &format!("{ENFORCED}{text}")])
        .env("netpol", env!("CARGO_BIN_EXE_netpol"))
        .env("NETPOL_STATE", &state)
        .current_dir(TOP)
        .output()
        .unwrap();
    let _ = std::fs::remove_dir_all(&state);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn check(text: &str, code: i32, contains: &[&str]) {
    let (got, out, err) = enforced(text);
    assert_eq!(got, code, "{out}{err}");
    for words in contains {
        assert!(out.contains(words), "no `{words}` in\n{out}{err}");
    }
}

#[test]
fn what_apply_enforces_is_proved() {
    check(
        "verify",
        0,
        &["PROVED: for every packet", "2 pods of this node", "the devices of 2 of them"],
    );
}

#[test]
fn what_cannot_change_a_verdict_leaves_it_proved() {
    check(
        "nft add table ip other; nft add chain ip other c '{ type filter hook forward priority 0; }'
         nft add rule ip other c ip saddr 10.0.0.0/8 counter accept
         nft add rule ip other c fib daddr type local accept
         nft add chain ip netpol unused; nft add rule ip netpol unused drop
         nft add table bridge frames; nft add table arp neighbors
         verify",
        0,
        &["PROVED"],
    );
}

#[test]
fn a_lost_element_is_refuted_by_a_packet() {
    check(
        "nft delete element ip netpol i '{ 10.244.1.10 }'; verify",
        1,
        &[
            "REFUTED",
            "by the policies it is denied",
            "isolated for ingress by NetworkPolicy bridge/gateway-from-partner",
            "by the rules it passes",
            "the address of the pod is not dispatched to its rules",
        ],
    );
}

#[test]
fn a_foreign_drop_is_reported_as_such() {
    check(
        "nft add table ip other; nft add chain ip other c '{ type filter hook forward priority -10; }'
         nft add rule ip other c ip saddr 198.51.100.77 drop; verify",
        1,
        &["REFUTED", "198.51.100.77", "ip other c handle 2 is not netpol's, and drops it"],
    );
}

#[test]
fn a_lost_source_guard_is_refuted() {
    check("nft delete table netdev netpol; verify", 1, &["REFUTED", "there is no source guard"]);
}

#[test]
fn what_is_not_understood_and_matters_is_not_proved() {
    check(
        "nft add table ip other; nft add chain ip other c '{ type filter hook forward priority 0; }'
         nft add rule ip other c ip ttl 5 drop; verify",
        2,
        &["NOT PROVED", "ip other c handle 2", "\"field\":\"ttl\""],
    );
}

#[test]
fn dumps_say_what_the_kernel_says() {
    check(
        "d=$(mktemp -d); nft -j list ruleset > $d/rules; nft list chains > $d/chains
         echo '{\"bridge/gateway\": \"gw\", \"bridge/ledger\": \"lg\"}' > $d/interfaces
         verify --dump $d/rules | grep -q 'taken as honest'
         verify --dump $d/rules --dump $d/chains --interfaces $d/interfaces > $d/out
         cat $d/out; rm -r $d",
        0,
        &["PROVED", "the devices of 2 of them"],
    );
}

#[test]
fn without_the_devices_of_chains_the_guard_is_not_proved() {
    check(
        "d=$(mktemp -d); nft -j list ruleset | sed 's/\"dev\": \"[a-z]*\", //g' > $d/rules
         echo '{\"bridge/gateway\": \"gw\", \"bridge/ledger\": \"lg\"}' > $d/interfaces
         code=0; verify --dump $d/rules --interfaces $d/interfaces || code=$?; rm -r $d; exit $code",
        2,
        &["NOT PROVED", "`nft list chains` does"],
    );
}

#[test]
fn no_answer_is_no_output() {
    for dump in ["hello", "{\"nftables\": 7}", "table ip t {\n}\n"] {
        let (code, out, err) = enforced(&format!(
            "d=$(mktemp); echo '{dump}' > $d; code=0; verify --dump $d || code=$?; rm $d; exit $code"
        ));
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.starts_with("netpol: "), "{err}");
    }
}

#[test]
fn json_is_a_contract() {
    let (code, out, err) =
        enforced("nft delete element ip netpol i '{ 10.244.1.10 }'; verify -o json");
    assert_eq!(code, 1, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report.pointer("/verdict").unwrap(), "refuted");
    let first = report.pointer("/refutations/0").unwrap();
    for (path, expected) in [
        ("/destination", "10.244.1.10"),
        ("/kernel", "accepted"),
        ("/policy", "denied"),
        ("/state", "new"),
    ] {
        assert_eq!(first.pointer(path).unwrap(), expected, "{first:#}");
    }
    assert!(first.pointer("/trace/0/chain").is_some(), "{first:#}");
    assert!(report.pointer("/statistics/cells").unwrap().as_u64().unwrap() > 100);
}

#[test]
fn a_packet_is_traced_to_the_policy() {
    check(
        "$netpol trace --node node-a --from 198.51.100.7 --to bridge/gateway --port https examples/dual-stack",
        0,
        &[
            "TCP 198.51.100.7:40000 -> 10.244.1.10:443",
            "# NetworkPolicy bridge/gateway-from-partner ingress[0] examples/dual-stack/policies.yaml:12",
            "accepted by the rules",
            "allowed by the policies",
        ],
    );
    check(
        "$netpol trace --node node-a --from 198.51.99.7 --to bridge/ledger --port 5432 -o json examples/dual-stack",
        1,
        &["\"kernel\": \"dropped\"", "isolated, ingress: NetworkPolicy bridge/ledger-from-pods"],
    );
}

#[test]
fn each_way_that_the_kernel_may_choose_is_traced() {
    check(
        "nft add table ip lb; nft add chain ip lb one; nft add chain ip lb two
         nft add chain ip lb pre '{ type nat hook prerouting priority -100; }'
         nft add rule ip lb one ip protocol tcp dnat to 192.0.2.1; nft add rule ip lb two ip protocol tcp dnat to 192.0.2.2
         nft add rule ip lb pre ip daddr 203.0.113.9 numgen random mod 2 vmap '{ 0 : goto one, 1 : goto two }'
         $netpol trace --node node-a --from bridge/gateway --to 203.0.113.9 --port 443 examples/dual-stack; verify",
        0,
        &[
            "way 1 of 2 that it may take:",
            "numgen mod 2 goto one",
            "way 2 of 2 that it may take:",
            "not followed: address translation",
            "PROVED",
        ],
    );
}

#[test]
fn what_apply_enforces_with_iptables_is_proved() {
    for flavor in ["legacy", "nft"] {
        let script = format!(
            "$netpol remove >/dev/null; $netpol apply --iptables {flavor} --node node-a examples/dual-stack >/dev/null
             verify --backend iptables; verify | grep -q PROVED
             d=$(mktemp -d); iptables-{flavor}-save > $d/4; ip6tables-{flavor}-save > $d/6; ipset save > $d/sets
             verify --dump $d/sets --dump $d/6 --dump $d/4 > $d/out; grep PROVED $d/out; rm -r $d"
        );
        check(&script, 0, &["PROVED: for every packet", "the devices of 2 of them"]);
        let broken = format!(
            "$netpol remove >/dev/null; $netpol apply --iptables {flavor} --node node-a examples/dual-stack >/dev/null
             iptables-{flavor} -I FORWARD -j ACCEPT; verify"
        );
        check(&broken, 1, &["REFUTED", "by the policies it is denied", "matters: changed: "]);
        let dropped = format!(
            "$netpol remove >/dev/null; $netpol apply --iptables {flavor} --node node-a examples/dual-stack >/dev/null
             iptables-{flavor} -A FORWARD -s 198.51.100.77 -j DROP; verify"
        );
        check(&dropped, 1, &["REFUTED", "198.51.100.77", "is not netpol's, and drops it"]);
    }
}

#[test]
fn what_changed_since_apply_is_told_and_whether_it_matters() {
    check(
        "nft add table ip other; nft add chain ip other c '{ type filter hook forward priority 0; }'
         nft add rule ip other c accept; verify",
        0,
        &["PROVED", "since `netpol apply`,", "nothing of it matters", "harmless: added: ip other chain c"],
    );
    check(
        "nft delete element ip netpol i '{ 10.244.1.10 }'; nft add table ip other; nft add chain ip other c; verify",
        1,
        &[
            "1 of 2 matter",
            "matters: changed: ip netpol set or map i: 1 elements less, 0 more",
            "harmless: added: ip other chain c",
        ],
    );
    check(
        "nft add table ip other; nft add chain ip other c '{ type filter hook forward priority -10; }'
         nft add rule ip other c ip saddr 198.51.100.77 drop; verify -o json",
        1,
        &["\"since\": \"apply\"", "\"object\": \"chain c\"", "\"matters\": true"],
    );
    // Counters, and what is put back, are no changes.
    check(
        "nft delete element ip netpol i '{ 10.244.1.10 }'; $netpol apply --node node-a examples/dual-stack >/dev/null; verify",
        0,
        &["PROVED"],
    );
}

#[test]
fn what_nobody_changed_is_no_foreign_change() {
    check(
        "verify --re-evaluate",
        1,
        &["nothing changed in the kernel since `netpol apply`", "the choices"],
    );
    check(
        "d=$(mktemp -d); cp -r examples/dual-stack/. $d; printf -- '---\\napiVersion: networking.k8s.io/v1\\nkind: NetworkPolicy\\nmetadata: {name: all, namespace: bridge}\\nspec: {podSelector: {}, ingress: [{}]}\\n' > $d/more.yaml
         code=0; $netpol verify --node node-a $d || code=$?; rm -r $d; exit $code",
        1,
        &["the manifests ask for other rules now: apply them"],
    );
    check(
        "d=$(mktemp -d); nft list chains > $d/chains; nft -j list ruleset > $d/before
         nft delete element ip netpol i '{ 10.244.1.10 }'; nft -j list ruleset > $d/after
         code=0; verify --dump $d/after --dump $d/chains --since $d/before --since $d/chains || code=$?; rm -r $d; exit $code",
        1,
        &["since the dumps from before; 1 of 1 matter"],
    );
}

#[test]
fn apply_verify_proves_or_rolls_back() {
    let foreign = "nft add table ip other; nft add chain ip other c '{ type filter hook forward priority -10; }'
         nft add rule ip other c ip saddr 198.51.100.77 drop";
    for backend in ["--backend nft", "--iptables legacy", "--iptables nft"] {
        let apply = format!("$netpol apply {backend} --verify --node node-a");
        // From nothing, from something, from another back end.
        check(
            &format!(
                "$netpol remove >/dev/null; {apply} examples/dual-stack; {apply} examples/dual-stack; {apply} -o json examples/dual-stack; verify"
            ),
            0,
            &[
                "enforced for 2 pods",
                "proved: for every packet",
                "nothing to change",
                "\"verdict\": \"proved\"",
                "PROVED",
            ],
        );
        let all = "all() { nft list tables; for s in iptables-legacy-save ip6tables-legacy-save iptables-nft-save ip6tables-nft-save; do $s 2>/dev/null | grep -e '^-A' || true; done; ipset save | grep -v ^create | sort; }";
        let text = format!(
            "{all}; {foreign}; before=$(all); code=0; {apply} examples/dual-stack || code=$?
             [ \"$before\" = \"$(all)\" ] || {{ diff <(echo \"$before\") <(all); exit 9; }}; exit $code"
        );
        check(
            &text,
            1,
            &[
                "NOT APPLIED: the rules from before are in force again",
                "REFUTED",
                "is not netpol's, and drops it",
            ],
        );
        check(
            &format!("$netpol remove >/dev/null; {foreign}; {apply} examples/dual-stack"),
            1,
            &["NOT APPLIED: there are no rules of netpol, as before: nothing is enforced"],
        );
    }
}

#[test]
fn a_source_guard_that_was_left_out_is_no_part_of_the_proof() {
    for backend in ["--backend nft", "--iptables legacy", "--iptables nft"] {
        let again = format!(
            "$netpol remove >/dev/null; $netpol apply {backend} --source-guard off --node node-a examples/dual-stack >/dev/null
             echo '{{\"bridge/gateway\": \"gw\", \"bridge/ledger\": \"lg\"}}' > $NETPOL_STATE/interfaces;"
        );
        check(&format!("{again} verify"), 1, &["there is no source guard"]);
        check(
            &format!(
                "{again} verify --source-guard off --second-engine --certificate $NETPOL_STATE/proof
                 $netpol check-certificate $NETPOL_STATE/proof --source-guard off --node node-a examples/dual-stack"
            ),
            0,
            &["PROVED", "says the same", "ACCEPTED", "not part of it: the source guard"],
        );
        check(
            &format!(
                "{again} verify --source-guard off --certificate $NETPOL_STATE/proof
                 $netpol check-certificate $NETPOL_STATE/proof --node node-a examples/dual-stack"
            ),
            1,
            &["NOT ACCEPTED"],
        );
    }
}

#[test]
fn a_rollback_that_fails_is_said_so() {
    // Once the new rules have been read back for the proof, nft changes nothing any more.
    check(
        "nft add table ip other; nft add chain ip other c '{ type filter hook forward priority -10; }'
         nft add rule ip other c ip saddr 198.51.100.77 drop
         export real=$(command -v nft) failing=$NETPOL_STATE/bin; mkdir $failing
         printf '#!/bin/sh\ncase \"$*\" in *list\\ ruleset) : > %s/read;; -f*) [ -e %s/read ] && { echo full >&2; exit 1; };; esac\nexec %s \"$@\"\n' $failing $failing $real > $failing/nft
         chmod +x $failing/nft; export PATH=$failing:$PATH
         $netpol apply --reject --verify --node node-a examples/dual-stack",
        1,
        &["APPLIED, BUT NOT PROVED: the new rules, or a part of them, are in force", "full", "REFUTED"],
    );
}

#[test]
fn others_may_drop_if_one_says_so() {
    let foreign = "nft add table ip other; nft add chain ip other c '{ type filter hook forward priority -10; }'
         nft add rule ip other c ip saddr 198.51.100.77 drop; nft add chain ip other d; nft add chain ip other e; nft add chain ip other f";
    check(
        &format!("{foreign}; verify"),
        1,
        &[
            "if others' rules are meant to drop more than policies do: --others-may-drop",
            "matters: added: ip other chain c",
            "harmless: added: 3 chains, sets and maps in ip other",
        ],
    );
    check(
        &format!(
            "{foreign}; verify --others-may-drop --certificate $NETPOL_STATE/proof
             $netpol check-certificate $NETPOL_STATE/proof --others-may-drop --node node-a examples/dual-stack
             $netpol apply --reject --verify --others-may-drop --node node-a examples/dual-stack"
        ),
        0,
        &[
            "PROVED",
            "passes netpol's own rules if and only if",
            "no rules of others let pass what these must drop",
            "what others' rules drop besides is meant to be dropped, as asked",
            "ACCEPTED",
            "enforced for 2 pods",
            "proved: for every packet",
        ],
    );
    check(
        &format!(
            "{foreign}; verify --others-may-drop --certificate $NETPOL_STATE/proof
             $netpol check-certificate $NETPOL_STATE/proof --node node-a examples/dual-stack"
        ),
        1,
        &["NOT ACCEPTED: about something else: whether others may drop more"],
    );
    // Netpol's own mistakes are found all the same.
    check(
        "nft delete element ip netpol i '{ 10.244.1.10 }'; verify --others-may-drop -o json",
        1,
        &["\"verdict\": \"refuted\"", "\"dropped_by_others\": false"],
    );
}

#[test]
fn what_apply_recorded_outlives_the_removal_of_other_rules() {
    check(
        "$netpol remove --backend iptables; nft add table ip other; nft add chain ip other c; verify",
        0,
        &["no rules of netpol are installed with iptables", "since `netpol apply`,"],
    );
}

#[test]
fn a_second_engine_is_asked() {
    check(
        "verify --second-engine",
        0,
        &["PROVED", "a second engine, over decision diagrams, says the same: "],
    );
    check(
        "nft delete element ip netpol i '{ 10.244.1.10 }'; verify --second-engine -o json",
        1,
        &["\"second_engine\": {", "\"verdict\": \"refuted\"", "\"agrees\": true"],
    );
}

/// What checks the certificate in `$d/proof`, with the devices that `verify` found.
const CERTIFIED: &str = "
    d=$(mktemp -d); trap 'rm -r $d' EXIT
    echo '{\"bridge/gateway\": \"gw\", \"bridge/ledger\": \"lg\"}' > $d/interfaces
    certified() { $netpol check-certificate ${file:-$d/proof} --node node-a --interfaces $d/interfaces \"$@\" examples/dual-stack; }
    refused() { code=0; file=$d/changed certified \"$@\" || code=$?; cmp -s $d/proof $d/changed && exit 7; [ $code = 1 ]; }
";

#[test]
fn a_certificate_is_checked_against_manifests_and_kernel() {
    let script = format!(
        "{CERTIFIED} verify --certificate $d/proof; nft -j list ruleset > $d/rules; certified --listing $d/rules
         $netpol check-certificate $d/proof --node node-a examples/dual-stack"
    );
    check(
        &script,
        0,
        &[
            "PROVED: for every packet",
            "certificate in /tmp",
            "ACCEPTED: for 4 addresses of the pods of node-a",
            "the source guard of 2 pods is part of it",
            "rules by their handles",
            "not checked: that the devices of 2 pods are those that the certificate names",
            "not checked: that its rules are those of the kernel",
        ],
    );
}

#[test]
fn one_changed_byte_that_matters_is_refused() {
    let script = format!(
        "{CERTIFIED} verify --certificate $d/proof >/dev/null; nft -j list ruleset > $d/rules
         for change in 's/10\\.244\\.1\\.10/10.244.1.11/' 's/(\"rows\":\\[\")./\\1?/'; do
             sed -E \"$change\" $d/proof > $d/changed; refused
         done
         sed 's/handle /handle 1/' $d/proof > $d/changed; refused --listing $d/rules
         code=0; $netpol check-certificate $d/proof --node node-b examples/dual-stack || code=$?; [ $code = 1 ]
         nft delete element ip netpol i '{{ 10.244.1.10 }}'; nft -j list ruleset > $d/rules
         code=0; certified --listing $d/rules || code=$?
         code=0; verify --certificate $d/proof >/dev/null || code=$?; certified"
    );
    check(
        &script,
        1,
        &[
            "NOT ACCEPTED: not the rules of the listing: chain",
            "NOT ACCEPTED: about something else: another node: node node-a, not node node-b",
            "has other elements",
            "refuted: `d` is expected, `p` is met",
        ],
    );
}

#[test]
fn certificates_of_rules_of_iptables_are_checked() {
    for flavor in ["legacy", "nft"] {
        let script = format!(
            "{CERTIFIED} $netpol remove >/dev/null; $netpol apply --iptables {flavor} --node node-a examples/dual-stack >/dev/null
             iptables-{flavor} -P INPUT DROP; iptables-{flavor} -A OUTPUT -p udp -j DROP
             verify --certificate $d/proof; nft -j list ruleset > $d/rules; certified --listing $d/rules
             sed 's/\"own\":true/\"own\":false/' $d/proof > $d/changed; refused
             iptables-{flavor} -I FORWARD -j ACCEPT; code=0; verify --certificate $d/proof >/dev/null || code=$?; certified"
        );
        check(
            &script,
            1,
            &[
                "ACCEPTED: for 4 addresses",
                "not compared: the rules of ",
                "NOT ACCEPTED: about something else: whether `",
                "refuted: `d` is expected, `p` is met",
            ],
        );
    }
}

#[test]
fn no_certificate_of_what_is_not_proved() {
    check(
        "d=$(mktemp -d); trap 'rm -r $d' EXIT
         nft add table ip other; nft add chain ip other c '{ type filter hook forward priority 0; }'
         nft add rule ip other c ip ttl 5 drop; code=0; verify --certificate $d/proof || code=$?
         [ ! -e $d/proof ]; exit $code",
        2,
        &["NOT PROVED", "no certificate in /tmp"],
    );
    let (code, out, err) = enforced(&format!(
        "{CERTIFIED} echo '{{}}' > $d/proof; code=0; certified || code=$?; exit $code"
    ));
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("is no certificate as `netpol verify --certificate` writes it"), "{err}");
}

#[test]
fn the_json_of_a_checked_certificate_is_a_contract() {
    let (code, out, err) = enforced(&format!(
        "{CERTIFIED} verify --certificate $d/proof -o json > $d/json; jq -e . $d/json >/dev/null 2>&1 || [ $? = 127 ]
         nft -j list ruleset > $d/rules; certified --listing $d/rules -o json"
    ));
    assert_eq!(code, 0, "{out}{err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["accepted"], true);
    assert_eq!(answer["defect"], Value::Null);
    assert_eq!(answer["checked"]["guarded_pods"], 2);
    assert!(answer["checked"]["cells"].as_u64().unwrap() > 1000);
    assert!(answer["listing"]["rules"].as_u64().unwrap() > 10);
    assert_eq!(answer["devices_from_certificate"], false);
}
