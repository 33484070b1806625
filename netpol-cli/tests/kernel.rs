//! The commands that change a kernel, each test in a network namespace of its own. Needs root (or a user namespace), nft and ip.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::process::{Command, Output};

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Runs a script in a new network namespace, with `netpol` as `$netpol`.
fn script(text: &str) -> Output {
    let output = Command::new("unshare")
        .args(["--net", "bash", "-euc", text])
        .env("netpol", env!("CARGO_BIN_EXE_netpol"))
        .env("NETPOL_STATE", concat!(env!("CARGO_TARGET_TMPDIR"), "/kernel"))
        .current_dir(TOP)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !stderr.contains("Operation not permitted") && !stderr.contains("command not found"),
        "this test needs root, and the Debian packages nftables, iproute2 and util-linux: {stderr}"
    );
    output
}

#[track_caller]
fn succeeds(text: &str) -> String {
    let output = script(text);
    let (out, err) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out
}

#[test]
fn what_is_rendered_loads_and_loads_again() {
    for example in ["shop", "book", "deny-all", "dual-stack"] {
        succeeds(&format!(
            "$netpol render examples/{example} 2>/dev/null | nft -f -
             first=$(nft list ruleset); $netpol render examples/{example} 2>/dev/null | nft -f -
             [ \"$first\" = \"$(nft list ruleset)\" ]"
        ));
    }
}

#[test]
fn apply_apply_again_and_remove() {
    let out = succeeds(
        "nft add table ip somebody; nft add chain ip somebody else; before=$(nft list ruleset)
         $netpol apply --node node-a examples/dual-stack
         $netpol apply --node node-a examples/dual-stack
         $netpol apply --node node-a --dry-run examples/dual-stack
         $netpol apply --node node-b -o json examples/dual-stack
         $netpol apply --node node-a --dry-run examples/dual-stack | grep -q '^# create'
         $netpol remove
         $netpol remove
         [ \"$before\" = \"$(nft list ruleset)\" ]",
    );
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.first().is_some_and(|line| line.starts_with("enforced for 2 pods")), "{out}");
    assert!(lines.contains(&"nothing to change: the rules for 2 pods are in force"), "{out}");
    assert!(lines.contains(&"# nothing would change"), "{out}");
    assert!(out.contains("\"pods\": 1"), "{out}");
}

#[test]
fn rendered_files_load_with_the_plain_tools_and_the_jump_is_there_once() {
    let out = succeeds(
        "dir=$(mktemp -d); trap 'rm -r \"$dir\"' EXIT
         $netpol render --node node-a --backend iptables --output-dir \"$dir\" examples/dual-stack >/dev/null
         [ \"$(ls \"$dir\" | tr '\\n' ' ')\" = 'load.sh netpol.ipset netpol.v4.iptables netpol.v6.iptables ' ]
         export IPTABLES=iptables-legacy IP6TABLES=ip6tables-legacy
         sh \"$dir/load.sh\"; first=$(iptables-legacy-save | grep -v '^[#:]'; ip6tables-legacy-save | grep -v '^[#:]')
         sh \"$dir/load.sh\"; [ \"$first\" = \"$(iptables-legacy-save | grep -v '^[#:]'; ip6tables-legacy-save | grep -v '^[#:]')\" ]
         echo \"$first\" | grep -c -- '-A FORWARD'
         $netpol apply --iptables legacy --node node-a --source-guard prerouting examples/dual-stack",
    );
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.first(), Some(&"2"), "one for each family: {out}");
    assert!(out.contains("nothing to change: the rules for 2 pods are in force"), "{out}");
}

/// From each back end to each other one with one command, which leaves nothing behind.
#[test]
fn migration_leaves_nothing_behind() {
    let ways = ["--backend nft", "--iptables legacy", "--iptables nft"];
    for from in ways {
        for to in ways.into_iter().filter(|to| *to != from) {
            let out = succeeds(&format!(
                "rules() {{ iptables-legacy-save; iptables-nft-save; ip6tables-legacy-save; ip6tables-nft-save; nft list tables; }} 2>/dev/null
                 ours() {{ rules | grep -c -e NP- -e netpol || true; }}
                 $netpol apply {to} --node node-a examples/dual-stack >/dev/null; alone=$(ours); sets=$(ipset list -n | sort)
                 $netpol remove; [ $(ours) = 0 ]; [ -z \"$(ipset list -n)\" ]
                 $netpol apply {from} --node node-a examples/dual-stack
                 $netpol apply {to} --node node-a examples/dual-stack
                 [ $(ours) = $alone ]; [ \"$sets\" = \"$(ipset list -n | sort)\" ]
                 $netpol apply {from} --keep-others --node node-a examples/dual-stack >/dev/null; [ $(ours) -ge $alone ]"
            ));
            let between =
                from.contains("nft") && from.contains("backend") || to.contains("backend");
            let says = out.contains("had from before are removed");
            assert_eq!(says, between, "{from} {to}: {out}");
        }
    }
}

/// Dispatch by device needs the devices even where nothing guards them, and then says that nothing does.
#[test]
fn dispatch_by_device_finds_devices_without_a_guard() {
    let out = succeeds(
        "ip link add p type veth peer name q; ip link set p up; ip route add 10.244.1.10/32 dev p
         $netpol apply --backend nft --node node-a --dispatch interface --source-guard off examples/dual-stack
         nft list map ip netpol i_dev",
    );
    assert!(out.contains("\"p\" : goto i_"), "{out}");
    assert!(out.contains("source addresses are checked for 0 of the pods"), "{out}");
}

#[test]
fn denials_are_counted_by_policy_and_by_pod() {
    // The node forwards a packet to a pod behind a veth; nobody answers, but the policy has dropped it before.
    let out = succeeds(
        "ip link set lo up; sysctl -qw net.ipv4.ip_forward=1
         ip link add p type veth peer name q; ip link set p up; ip link set q up
         ip link add u type veth peer name w; ip link set u up; ip link set w up
         ip addr add 192.0.2.1/24 dev u; ip route add 10.9.0.1/32 dev p
         ip neigh add 10.9.0.1 lladdr 02:00:00:00:00:01 dev p
         manifest='{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: quiet}, status: {phase: Running, podIP: 10.9.0.1}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: quiet}, spec: {podSelector: {}}}'
         echo \"$manifest\" | $netpol apply -
         unshare --net sleep 20 & sleeper=$!
         until [ \"$(readlink /proc/$sleeper/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do :; done
         ip link set w netns $sleeper
         nsenter --net=/proc/$sleeper/ns/net sh -c 'ip addr add 192.0.2.2/24 dev w; ip link set w up; ip route add 10.9.0.1 via 192.0.2.1; ping -c 3 -i 0.2 -W 1 10.9.0.1 >/dev/null || true'
         kill $sleeper
         echo \"$manifest\" | $netpol stats -",
    );
    let denied = |name: &str| {
        let line = out.lines().find(|line| line.contains(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|count| count.parse::<u64>().ok())
    };
    assert_eq!(denied("NetworkPolicy quiet/deny"), Some(3), "{out}");
    assert_eq!(denied("ingress of quiet/web"), Some(3), "{out}");
}

#[test]
fn the_lab_agrees_with_the_simulator() {
    let backends = [
        (&["--backend", "nft"][..], "nftables"),
        (&["--backend", "iptables", "--iptables", "legacy"], "iptables-legacy"),
        (&["--iptables", "nft"], "iptables-nft"),
    ];
    let examples = [
        &["examples/shop"][..],
        &["examples/deny-all"],
        &["examples/dual-stack"],
        &["examples/admin"],
        &["examples/admin-v1alpha1"],
        &["examples/alpha-2016"],
        &["examples/v1beta1"],
        &["examples/v1beta1", "--v1beta1-as", "1.6"],
    ];
    for (example, (backend, name)) in
        examples.iter().flat_map(|example| backends.iter().map(move |backend| (example, backend)))
    {
        let output = Command::new(env!("CARGO_BIN_EXE_netpol"))
            .arg("lab")
            .args(*backend)
            .args(*example)
            .current_dir(TOP)
            .output()
            .unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{out}{err}");
        assert!(out.contains(&format!("packets through {name} in")), "{out}");
        assert!(out.contains("; 0 differ from the simulator"), "{out}");
        assert!(out.contains("\nproved: the rules do"), "{out}");
    }
}

#[test]
fn errors_say_what_to_do() {
    let fails = |text: &str, why: &str| {
        let output = script(text);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(output.stdout.is_empty(), "nothing is answered");
        assert!(err.contains(why), "{err}");
    };
    fails("$netpol apply examples/dual-stack", "name one with --node: there are node-a, node-b");
    fails("$netpol apply --node elsewhere examples/dual-stack", "no node is called `elsewhere`");
    fails(
        "PATH=/nowhere $netpol apply --node node-a --source-guard off examples/dual-stack",
        "`nft` was not found; install nftables",
    );
    fails(
        "PATH=/nowhere $netpol apply --backend iptables --node node-a --source-guard off examples/dual-stack",
        "install",
    );
    for (option, why) in [
        ("--dispatch interface", "iptables has no map from devices to chains"),
        ("--priority 3", "rules of iptables come in the order of their chains"),
        ("--source-guard ingress", "iptables has no hook at devices"),
    ] {
        fails(&format!("$netpol render --backend iptables {option} examples/dual-stack"), why);
    }
    fails("$netpol render --interfaces /nowhere examples/dual-stack", "`/nowhere`");
    fails(
        "echo '{\"a/b\": \"eth0\"}' | $netpol render --interfaces /dev/stdin examples/dual-stack",
        "there is no pod `a/b`",
    );
    fails(
        "nft add table ip netpol; $netpol apply --node node-a examples/dual-stack",
        "was not made by netpol",
    );
}
