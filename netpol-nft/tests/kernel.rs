//! The real kernel, in private network namespaces: is everything accepted, and does applying do what it promises? Whether
//! packets then meet the right fate, and what every back end promises, is tried in netpol-conformance. Needs root, nft and iproute2.
#![expect(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

mod support;

use netpol_core::{
    Backend, Delta, Established, Inventory, Options, OtherProtocols, OwnNodeEgress, Ruleset,
};
use netpol_host::{Denial, Host, HostOptions, ProgramError};
use netpol_nft::model::Name;
use netpol_nft::{Dispatch, Error, Guard, NftOptions, Nftables, command, layout, objects, script};
use netpol_testkit::samples::{every_shape_of_rule, hostile_names, policed_shop, shop};
use netpol_testkit::strategies::clusters_with_edits;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;
use support::{Netns, cluster_ruleset};

fn all_options() -> Vec<NftOptions> {
    let host = HostOptions::default;
    let policy = |policy: Options| NftOptions::from(host().with_policy(policy));
    let options = Options::default;
    vec![
        NftOptions::default(),
        host().with_denial(Denial::Reject).with_log(Some(10)).into(),
        NftOptions::from(host().with_counters(false)).with_guard(Guard::Off),
        NftOptions::default().with_guard(Guard::Prerouting),
        NftOptions::default().with_dispatch(Dispatch::Interface),
        policy(options().with_established(Established::ReEvaluate)),
        policy(options().with_other_protocols(OtherProtocols::Allow)),
        policy(options().with_own_node_egress(OwnNodeEgress::Allow)).with_priority(-20),
    ]
}

fn grid() -> Ruleset {
    cluster_ruleset(&every_shape_of_rule())
}

#[test]
fn every_shape_of_rule_is_accepted_twice() {
    let cases =
        all_options().into_iter().map(|options| (cluster_ruleset(&policed_shop()), options));
    for (ruleset, options) in cases.chain([(grid(), NftOptions::default())]) {
        let model = layout(&ruleset, &options).model;
        let (one, other) = (Netns::new(), Netns::new());
        one.load(&script(&model));
        let listing = one.listing();
        one.load(&script(&model));
        assert_eq!(one.listing(), listing, "loading twice is loading once");

        // Three transactions make the same ruleset as one.
        let mut nftables = Nftables::new(other.host(), options);
        nftables.replace(&ruleset).unwrap();
        assert_eq!(nftables.report().defects(), []);
        assert_eq!(sorted(&other.listing()), sorted(&listing));
        assert_eq!(nftables.installed().unwrap(), Some(Inventory::of(&ruleset)));
    }
}

/// The listing with its sets, maps and chains in order: the kernel lists them in the order in which they came.
fn sorted(listing: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut table = "";
    for line in listing.lines() {
        if line.starts_with("table ") {
            table = line;
        } else if line.starts_with("\t") && line.ends_with('{') && !line.starts_with("\t\t") {
            blocks.push(format!("{table} {line}"));
        } else if let Some(block) = blocks.last_mut()
            && !line.trim().is_empty()
            && line != "}"
        {
            block.push('\n');
            block.push_str(line);
        }
    }
    // Elements of a hash set are listed in the order of their hashes, with a seed of its own for each set.
    for block in &mut blocks {
        if let Some((head, elements)) = block.split_once("elements = {") {
            let mut elements: Vec<&str> = elements
                .trim_end_matches(['}', '\n', '\t', ' '])
                .split(',')
                .map(str::trim)
                .collect();
            elements.sort_unstable();
            *block = format!("{head}{}", elements.join(", "));
        }
    }
    blocks.sort_unstable();
    blocks
}

#[test]
fn text_and_objects_are_the_same_ruleset() {
    for (ruleset, options) in
        [(cluster_ruleset(&policed_shop()), all_options()), (grid(), vec![NftOptions::default()])]
    {
        for options in options {
            let model = layout(&ruleset, &options).model;
            let (text, json) = (Netns::new(), Netns::new());
            text.load(&script(&model));
            let batch = serde_json::to_string(&objects(&model)).unwrap();
            json.ok(&["nft", "-j", "-f", "-"], &batch);
            json.ok(&["nft", "-j", "-f", "-"], &batch);
            // Dispatch is a map in the one and part of a rule in the other, and nft 1.0.6 ignores a set's comment in JSON.
            let without_dispatch = |netns: &Netns| -> Vec<String> {
                let blocks = sorted(&netns.listing()).into_iter();
                let blocks = blocks.filter(|block| !block.contains("\tmap "));
                // Nor can the crate's sets count.
                let blocks = blocks.filter(|block| !block.contains("\tset d"));
                let compared = |line: &&str| {
                    !line.contains(" vmap ")
                        && !line.contains(" : goto ")
                        && !line.starts_with("\t\tcomment ")
                };
                blocks
                    .map(|block| block.lines().filter(compared).collect::<Vec<_>>().join("\n"))
                    .collect()
            };
            assert_eq!(without_dispatch(&text), without_dispatch(&json));
            let mappings = |netns: &Netns| -> BTreeSet<String> {
                let listing = netns.listing();
                let parts = listing.split([',', '{', '}']).map(str::trim);
                parts.filter(|part| part.contains(" : goto ")).map(str::to_owned).collect()
            };
            assert_eq!(mappings(&text), mappings(&json));
        }
    }
}

/// The number of the ruleset's generation, which the kernel counts up with every transaction.
fn generation(netns: &Netns) -> String {
    // `nft monitor` knows it too, but it is also what the listing of handles depends on.
    netns.ok(&["nft", "-a", "list", "ruleset"], "")
}

#[test]
fn applying_again_touches_nothing() {
    let ruleset = cluster_ruleset(&policed_shop());
    let netns = Netns::new();
    Nftables::new(netns.host(), NftOptions::default()).replace(&ruleset).unwrap();
    let before = generation(&netns);
    // Another process, after a restart.
    let mut nftables = Nftables::new(netns.host(), NftOptions::default());
    nftables.replace(&ruleset).unwrap();
    assert_eq!(nftables.report().transactions(), 0);
    assert!(nftables.plan(&ruleset).unwrap().is_empty());
    nftables.apply(&Delta::default()).unwrap();
    assert_eq!(nftables.report().transactions(), 0);
    assert_eq!(generation(&netns), before);
}

#[test]
fn one_pod_more_is_one_transaction() {
    let mut cluster = policed_shop();
    let old = cluster_ruleset(&cluster);
    let netns = Netns::new();
    let mut nftables = Nftables::new(netns.host(), NftOptions::default());
    nftables.replace(&old).unwrap();
    let pod = netpol_core::Pod::new(
        netpol_core::PodId::new("shop", "web-2"),
        netpol_core::Labels::from_iter([("app", "web")]),
    );
    cluster.insert_pod(pod.with_addresses(["10.0.0.77".parse().unwrap()]));
    let new = cluster_ruleset(&cluster);
    nftables.apply(&Delta::between(&old, &new)).unwrap();
    assert_eq!(nftables.report().transactions(), 1, "only elements change");
    assert_eq!(nftables.installed().unwrap(), Some(Inventory::of(&new)));
}

#[test]
fn what_was_killed_is_cleaned_up_by_the_next() {
    let (old, new) = (cluster_ruleset(&shop()), cluster_ruleset(&policed_shop()));
    let expected = {
        let netns = Netns::new();
        Nftables::new(netns.host(), NftOptions::default()).replace(&new).unwrap();
        sorted(&netns.listing())
    };
    for done in 0..3 {
        let netns = Netns::new();
        let mut nftables = Nftables::new(netns.host(), NftOptions::default());
        nftables.replace(&old).unwrap();
        let plan = nftables.plan(&new).unwrap();
        for (_, commands) in plan.steps().iter().take(done) {
            let script: Vec<String> = commands.iter().map(|c| command(&plan.table, c)).collect();
            netns.load(&(script.join("\n") + "\n"));
        }
        // Killed here. What is in force is the old or the new dispatch.
        let installed = nftables.installed_of(if done < 2 { &old } else { &new });
        if done == 0 {
            assert_eq!(installed.unwrap(), Some(Inventory::of(&old)));
        } else if done == 2 {
            let installed = installed.unwrap().unwrap();
            assert_eq!(installed.dispatch, Inventory::of(&new).dispatch);
        }
        let mut next = Nftables::new(netns.host(), NftOptions::default());
        next.replace(&new).unwrap();
        assert_eq!(sorted(&netns.listing()), expected, "killed after step {done}");
    }
}

#[test]
fn tampering_is_put_right() {
    let ruleset = cluster_ruleset(&policed_shop());
    let netns = Netns::new();
    let mut nftables = Nftables::new(netns.host(), NftOptions::default());
    nftables.replace(&ruleset).unwrap();
    let before = sorted(&netns.listing());
    let listing = netns.listing();
    let chain = listing.lines().find_map(|line| line.trim().strip_prefix("chain x_")).unwrap();
    let chain = format!("x_{}", chain.trim_end_matches(" {"));
    for damage in [
        format!("flush chain ip netpol {chain}"),
        "flush map ip netpol e".to_owned(),
        format!("insert rule ip netpol {chain} accept"),
        "add element ip netpol self { 1.1.1.1 . 2.2.2.2 }".to_owned(),
        "delete table ip netpol".to_owned(),
        "delete table netdev netpol".to_owned(),
        "add chain ip netpol somebody_elses".to_owned(),
    ] {
        netns.load(&format!("{damage}\n"));
        nftables.replace(&ruleset).unwrap();
        assert_eq!(sorted(&netns.listing()), before, "{damage}");
    }
}

#[test]
fn a_table_of_somebody_else_is_an_error() {
    let netns = Netns::new();
    netns.load("table ip6 netpol { chain c { drop\n }\n }\n");
    let before = generation(&netns);
    let mut nftables = Nftables::new(netns.host(), NftOptions::default());
    let error = nftables.replace(&Ruleset::default()).unwrap_err();
    assert!(matches!(&error, Error::Foreign { table } if table == "ip6 netpol"), "{error}");
    assert!(matches!(nftables.remove().unwrap_err(), Error::Foreign { .. }));
    assert_eq!(generation(&netns), before);
    // One without chains, too.
    netns.load("delete table ip6 netpol\nadd table ip6 netpol\n");
    let before = generation(&netns);
    let error = nftables.replace(&Ruleset::default()).unwrap_err();
    assert!(matches!(&error, Error::Foreign { table } if table == "ip6 netpol"), "{error}");
    nftables.remove().unwrap();
    assert_eq!(generation(&netns), before);
    // Another name has room beside it.
    let options = NftOptions::default().with_table(Name::new("netpol2").unwrap());
    Nftables::new(netns.host(), options).replace(&cluster_ruleset(&shop())).unwrap();
}

#[test]
fn without_permission_it_says_so() {
    let netns = Netns::new();
    let prefix =
        ["ip", "netns", "exec", &netns.0, "setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let host = Host::here().with_prefix(prefix.into_iter().chain(["--reuid=65534"]));
    let error =
        Nftables::new(host, NftOptions::default()).replace(&Ruleset::default()).unwrap_err();
    assert!(matches!(error, Error::Permission), "{error}");
    let host = netns.host().with_program("nft", "no-such-nft");
    let error =
        Nftables::new(host, NftOptions::default()).replace(&Ruleset::default()).unwrap_err();
    assert!(matches!(error, Error::Program(ProgramError::Missing { .. })), "{error}");
}

/// What the suite of all back ends tries with the back end, with a script.
#[test]
fn hostile_names_stay_names_in_scripts() {
    let ruleset = cluster_ruleset(&hostile_names());
    let netns = Netns::new();
    netns.load("table ip before { chain c { drop\n }\n }\n");
    let options = NftOptions::from(HostOptions::default().with_log(Some(1)));
    netns.load(&script(&layout(&ruleset, &options).model));
    let mut nftables = Nftables::new(netns.host(), options);
    nftables.replace(&ruleset).unwrap();
    assert_eq!(nftables.report().transactions(), 0, "the script made what applying wants");
    let tables = netns.ok(&["nft", "list", "tables"], "");
    assert_eq!(tables, "table ip before\ntable ip netpol\ntable ip6 netpol\ntable netdev netpol\n");
}

#[test]
fn the_guard_at_devices_leaves_out_what_is_not_there() {
    let netns = Netns::new();
    netns.ok(&["ip", "link", "add", "veth-web", "type", "veth", "peer", "name", "eth0"], "");
    let ruleset = cluster_ruleset(&policed_shop());
    let options = NftOptions::default().with_guard(Guard::Ingress);
    let mut nftables = Nftables::new(netns.host(), options);
    nftables.replace(&ruleset).unwrap();
    // From Linux 6.16 on a chain waits for its device; before, there is none without.
    let defects = nftables.report().defects().len();
    assert_eq!(netns.listing().matches("hook ingress device").count() + defects, 3);
    assert!(defects == 0 || defects == 2, "{:?}", nftables.report().defects());
    assert!(netns.listing().contains("device \"veth-web\""));
    // The device comes back under the same name.
    netns.ok(&["ip", "link", "delete", "veth-web"], "");
    netns.ok(&["ip", "link", "add", "veth-web", "type", "veth", "peer", "name", "eth0"], "");
    nftables.replace(&ruleset).unwrap();
    assert!(netns.listing().contains("device \"veth-web\""), "{}", netns.listing());
    nftables.set_options(NftOptions::default().with_guard(Guard::Prerouting));
    nftables.replace(&ruleset).unwrap();
    assert!(!netns.listing().contains("netdev"));
}

#[test]
fn without_the_hook_at_devices_the_guard_is_in_prerouting() {
    let netns = Netns::new();
    let (host, path) = picky_nft(&netns, "netdev", "Operation not supported");
    let ruleset = cluster_ruleset(&policed_shop());
    let mut nftables = Nftables::new(host, NftOptions::default());
    nftables.replace(&ruleset).unwrap();
    assert_eq!(nftables.report().guard(), Guard::Prerouting);
    assert_eq!(nftables.report().defects(), []);
    assert!(netns.listing().contains("iifname vmap @g"));
    nftables.replace(&ruleset).unwrap();
    assert_eq!(nftables.report().transactions(), 0);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn deltas_lead_where_replacing_leads() {
    let mut runner = TestRunner::new(ProptestConfig { cases: 12, ..ProptestConfig::default() });
    let done = runner.run(&clusters_with_edits(), |(mut cluster, edits)| {
        let netns = Netns::new();
        let mut nftables = Nftables::new(netns.host(), NftOptions::default());
        let mut ruleset = cluster_ruleset(&cluster);
        nftables.replace(&ruleset).unwrap();
        for edit in edits {
            edit.apply(&mut cluster);
            let next = cluster_ruleset(&cluster);
            nftables.apply(&Delta::between(&ruleset, &next)).unwrap();
            ruleset = next;
        }
        let direct = Netns::new();
        Nftables::new(direct.host(), NftOptions::default()).replace(&ruleset).unwrap();
        prop_assert_eq!(sorted(&netns.listing()), sorted(&direct.listing()));
        Ok(())
    });
    done.unwrap();
}

/// Somebody else's process holds a table of our name (Linux 5.12, nft(8) flag `owner`).
#[test]
fn an_owned_table_is_an_error() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let netns = Netns::new();
    let mut owner = std::process::Command::new("ip")
        .args(["netns", "exec", &netns.0, "nft", "-i"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = owner.stdin.take().unwrap();
    // A listing after it says that it is there.
    writeln!(input, "add table ip netpol {{ flags owner; }}\nlist tables").unwrap();
    let listed = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(listed.into_iter().any(|line| line.contains("table ip netpol")));
    let mut nftables = Nftables::new(netns.host(), NftOptions::default());
    let error = nftables.replace(&cluster_ruleset(&shop())).unwrap_err();
    assert!(matches!(&error, Error::Owned { table } if table == "netpol"), "{error}");
    drop(input);
    owner.wait().unwrap();
    nftables.replace(&cluster_ruleset(&shop())).unwrap();
}

/// What the kernel says when it lacks something, or has a limit.
#[test]
fn limits_and_old_kernels_are_told_apart() {
    let ruleset = cluster_ruleset(&policed_shop());
    for (why, is_limit) in [("Too many links", true), ("Operation not supported", false)] {
        let netns = Netns::new();
        let (host, path) = picky_nft(&netns, "vmap @e", why);
        let error = Nftables::new(host, NftOptions::default()).replace(&ruleset).unwrap_err();
        match &error {
            Error::Limit { message, policies } if is_limit => {
                assert!(message.contains(why) && policies == "egress of local pods", "{error}");
            }
            Error::TooOld { message } if !is_limit => assert!(message.contains(why), "{error}"),
            _ => panic!("{why}: {error}"),
        }
        assert!(!error.hint().is_empty());
        assert_eq!(netns.listing(), "", "nothing is half applied");
        std::fs::remove_file(path).unwrap();
    }
}

/// It is the only right that is needed.
#[test]
fn cap_net_admin_is_enough() {
    let netns = Netns::new();
    let only = ["--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin"];
    let prefix = ["ip", "netns", "exec", &netns.0, "setpriv", "--reuid=65534", "--clear-groups"];
    let prefix = prefix.into_iter().chain(only).chain(["--bounding-set=-all,+net_admin"]);
    let host = Host::here().with_prefix(prefix);
    let mut nftables = Nftables::new(host, NftOptions::default());
    nftables.replace(&cluster_ruleset(&policed_shop())).unwrap();
    assert_eq!(nftables.report().transactions(), 2);
    nftables.remove().unwrap();
}

/// An nft that refuses a line with these words as the kernel does.
fn picky_nft(netns: &Netns, words: &str, why: &str) -> (Host, std::path::PathBuf) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::temp_dir().join(format!("picky-{}", netns.0));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = -f ] || exec nft \"$@\"\nscript=$(cat)\n\
         line=$(printf '%s\\n' \"$script\" | grep -n '^add .*{words}' | head -1 | cut -d: -f1)\n\
         [ -z \"$line\" ] || {{ echo \"/dev/stdin:$line:1-4: Error: Could not process rule: {why}\" >&2; exit 1; }}\n\
         printf '%s\\n' \"$script\" | exec nft -f -\n"
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    (netns.host().with_program("nft", &path), path)
}

#[test]
fn what_the_kernel_refuses_is_closed_and_the_rest_applied() {
    let netns = Netns::new();
    let (host, path) = picky_nft(&netns, "shop.api egress", "Invalid argument");
    let ruleset = cluster_ruleset(&policed_shop());
    let mut nftables = Nftables::new(host, NftOptions::default());
    nftables.replace(&ruleset).unwrap();
    let defects: Vec<String> =
        nftables.report().defects().iter().map(ToString::to_string).collect();
    assert_eq!(defects.len(), 2, "one of each family: {defects:?}");
    assert!(defects[0].contains("NetworkPolicy shop/api egress["), "{defects:?}");
    let listing = netns.listing();
    assert!(listing.contains("10.0.0.2 : goto closed_"), "{listing}");
    assert!(listing.contains("10.0.0.3 : goto e_"), "{listing}");
    // With an nft that does not refuse it, it is put right.
    let mut nftables = Nftables::new(netns.host(), NftOptions::default());
    nftables.replace(&ruleset).unwrap();
    assert_eq!(nftables.report().defects(), []);
    assert_eq!(nftables.installed().unwrap(), Some(Inventory::of(&ruleset)));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn an_error_leaves_what_was_enforced_and_names_the_policy() {
    let netns = Netns::new();
    let (host, path) = picky_nft(&netns, "vmap @e", "Invalid argument");
    let ruleset = cluster_ruleset(&policed_shop());
    let error = Nftables::new(host, NftOptions::default()).replace(&ruleset).unwrap_err();
    let Error::Refused { message, policies, .. } = &error else { panic!("{error}") };
    assert_eq!(message, "Could not process rule: Invalid argument");
    assert_eq!(policies, "egress of local pods");
    assert_eq!(netns.listing(), "");
    std::fs::remove_file(path).unwrap();

    // A change to rules that this process does not know would be a change to nothing.
    Nftables::new(netns.host(), NftOptions::default()).replace(&ruleset).unwrap();
    let before = netns.listing();
    let delta = Delta::between(&Ruleset::default(), &cluster_ruleset(&shop()));
    let error = Nftables::new(netns.host(), NftOptions::default()).apply(&delta).unwrap_err();
    assert!(matches!(error, Error::Baseless), "{error}");
    assert_eq!(netns.listing(), before);
}

#[test]
fn snapshots_are_put_back() {
    for options in all_options().into_iter().take(2) {
        let options = options.with_guard(Guard::Prerouting);
        let netns = Netns::new();
        netns.load("table ip other { chain c { type filter hook forward priority 0; ip daddr 1.2.3.4 drop; }; }\n");
        let mut nftables = Nftables::new(netns.host(), options);
        let nothing = nftables.snapshot().unwrap();
        assert!(nothing.is_empty());
        let empty = sorted(&netns.listing());

        nftables.replace(&grid()).unwrap();
        let (snapshot, before) = (nftables.snapshot().unwrap(), sorted(&netns.listing()));
        nftables.replace(&cluster_ruleset(&policed_shop())).unwrap();
        assert_ne!(sorted(&netns.listing()), before);
        nftables.restore(&snapshot).unwrap();
        assert_eq!(sorted(&netns.listing()), before);
        // What is there is recognized as what it is.
        nftables.replace(&grid()).unwrap();
        assert_eq!(nftables.report().transactions(), 0);
        nftables.restore(&nothing).unwrap();
        assert_eq!(sorted(&netns.listing()), empty);
        nftables.restore(&nothing).unwrap();
    }
}
