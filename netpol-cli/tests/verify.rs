//! `netpol verify` and `netpol trace`, on the kernel and on dumps of it, each test in a network namespace of its own. Needs root
//! (or a user namespace), nft and ip.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use serde_json::Value;
use std::process::Command;

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Two pods behind devices of node-a, enforced.
const ENFORCED: &str = "
    for pod in gw lg; do ip link add $pod type veth peer name $pod-pod; ip link set $pod up; ip link set $pod-pod up; done
    ip route add 10.244.1.10/32 dev gw; ip -6 route add fd00:244:1::10/128 dev gw
    ip route add 10.244.1.20/32 dev lg; ip -6 route add fd00:244:1::20/128 dev lg
    $netpol apply --node node-a examples/dual-stack >/dev/null
    verify() { $netpol verify --node node-a \"$@\" examples/dual-stack; }
";

/// Runs a script in a new network namespace where the example is enforced: exit code, output, errors.
fn enforced(text: &str) -> (i32, String, String) {
    let output = Command::new("unshare")
        .args(["--net", "bash", "-euc", &format!("{ENFORCED}{text}")])
        .env("netpol", env!("CARGO_BIN_EXE_netpol"))
        .current_dir(TOP)
        .output()
        .unwrap();
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
