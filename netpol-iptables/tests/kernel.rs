//! The real kernel, in private network namespaces, with both implementations of iptables: is everything accepted, and does
//! applying do what it promises? Whether packets then meet the right fate is tried in `packets.rs`. Needs root, iptables, ipset
//! and iproute2.
#![expect(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

#[path = "../../netpol-nft/tests/support/mod.rs"]
mod support;

use netpol_core::{
    Backend, Cluster, Delta, Established, Family, Inventory, Labels, Options, OtherProtocols,
    OwnNodeEgress, Pod, PodId, Ruleset,
};
use netpol_host::{Denial, Host, HostOptions, ProgramError};
use netpol_iptables::{
    Defect, Error, Flavor, Guard, Iptables, IptablesOptions, Prefix, Program, Step, layout, text,
};
use netpol_testkit::samples::{every_shape_of_rule, hostile_names, policed_shop, shop};
use netpol_testkit::strategies::{clusters, clusters_with_edits};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::time::{Duration, Instant};
use support::{Netns, cluster_ruleset};

fn on(flavor: Flavor) -> IptablesOptions {
    IptablesOptions::default().with_flavor(Some(flavor))
}

fn iptables(netns: &Netns, options: IptablesOptions) -> Iptables {
    Iptables::new(netns.host(), options)
}

fn all_options() -> Vec<IptablesOptions> {
    let host = HostOptions::default;
    let policy = |policy: Options| IptablesOptions::from(host().with_policy(policy));
    let options = Options::default;
    vec![
        IptablesOptions::default(),
        host().with_denial(Denial::Reject).with_log(Some(10)).into(),
        IptablesOptions::from(host().with_counters(false)).with_guard(Guard::Off),
        policy(options().with_established(Established::ReEvaluate)),
        policy(options().with_other_protocols(OtherProtocols::Allow)),
        policy(options().with_own_node_egress(OwnNodeEgress::Allow))
            .with_prefix(Prefix::new("Nopq").unwrap()),
    ]
}

/// Everything in the kernel that iptables and ipset list: without dates, counts and what differs by chance.
fn listing(netns: &Netns) -> String {
    let mut listing = String::new();
    for program in
        ["iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"]
    {
        listing.push_str(&format!("# {program}\n{}", netns.ok(&[program], "")));
    }
    let sets = netns.ok(&["ipset", "save"], "");
    let mut sets: Vec<&str> = sets.lines().collect();
    // Members of a hash are listed in its order.
    sets.sort_unstable();
    let without_chance = |line: &&str| !line.starts_with("# Gen") && !line.starts_with("# Com");
    let lines = listing.lines().chain(sets).filter(without_chance).map(|line| {
        let line = match line.strip_prefix(':').and_then(|line| line.split_once(" [")) {
            Some((chain, _)) => format!(":{chain}"),
            None => line.to_owned(),
        };
        let words = line.split(' ').collect::<Vec<_>>();
        let initval = words.iter().position(|word| *word == "initval").unwrap_or(words.len());
        words.into_iter().take(initval).collect::<Vec<_>>().join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The listing with its chains in order; sets by their members, not by how many they were made for or their version.
fn sorted(netns: &Netns) -> Vec<String> {
    let listing = listing(netns);
    let mut lines: Vec<String> = listing
        .lines()
        .map(|line| match line.split_once(" hashsize ") {
            Some((set, _)) => set.to_owned(),
            None => line.to_owned(),
        })
        .collect();
    // Rules of a chain keep their order.
    lines.sort_by_key(|line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["-A", chain, ..] => format!("-A {chain}"),
        _ => line.clone(),
    });
    lines
}

fn grid() -> Ruleset {
    cluster_ruleset(&every_shape_of_rule())
}

#[test]
fn every_shape_of_rule_is_accepted_and_listed_as_it_was_written() {
    let cases =
        all_options().into_iter().map(|options| (cluster_ruleset(&policed_shop()), options));
    for (ruleset, options) in cases.chain([(grid(), IptablesOptions::default())]) {
        for flavor in Flavor::ALL {
            let options = options.clone().with_flavor(Some(flavor));
            let netns = Netns::new();
            let mut first = iptables(&netns, options.clone());
            first.replace(&ruleset).unwrap();
            assert_eq!(first.report().defects(), []);
            assert_eq!(first.report().left_over(), None);
            assert_eq!(first.installed().unwrap(), Some(Inventory::of(&ruleset)));
            let before = listing(&netns);
            // Another process, after a restart.
            let mut second = iptables(&netns, options);
            second.replace(&ruleset).unwrap();
            assert_eq!(second.report().runs(), 0);
            second.apply(&Delta::default()).unwrap();
            assert_eq!(second.report().runs(), 0);
            assert_eq!(listing(&netns), before);
        }
    }
}

/// Loads the three files, and makes the jumps, with the plain tools.
fn load_files(netns: &Netns, options: &IptablesOptions, ruleset: &Ruleset, flavor: Flavor) {
    let model = layout(ruleset, options).model;
    let directory = std::env::temp_dir().join(&netns.0);
    std::fs::create_dir_all(&directory).unwrap();
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
    write("netpol.ipset", text::ipset(&model));
    write("netpol.v4.iptables", text::iptables(&model, Family::V4));
    write("netpol.v6.iptables", text::iptables(&model, Family::V6));
    write("load.sh", text::load_script(&model));
    let commands = format!(
        "IPTABLES=iptables-{0} IP6TABLES=ip6tables-{0} sh '{1}/load.sh'",
        flavor.as_str(),
        directory.display()
    );
    netns.ok(&["sh", "-c", &commands], "");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn files_load_twice_and_are_what_applying_makes() {
    for flavor in Flavor::ALL {
        let (ruleset, options) = (cluster_ruleset(&policed_shop()), on(flavor));
        let (one, other) = (Netns::new(), Netns::new());
        load_files(&one, &options, &ruleset, flavor);
        let before = sorted(&one);
        load_files(&one, &options, &ruleset, flavor);
        assert_eq!(sorted(&one), before);
        assert_eq!(iptables(&one, options.clone()).plan(&ruleset).unwrap().script(), "");
        iptables(&other, options).replace(&ruleset).unwrap();
        assert_eq!(sorted(&other), before);
    }
}

#[test]
fn there_and_back_again() {
    for flavor in Flavor::ALL {
        let (a, b) = (cluster_ruleset(&shop()), cluster_ruleset(&policed_shop()));
        let netns = Netns::new();
        let mut iptables = iptables(&netns, on(flavor));
        iptables.replace(&a).unwrap();
        let before = sorted(&netns);
        iptables.replace(&b).unwrap();
        assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&b)));
        iptables.replace(&a).unwrap();
        assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&a)));
        let hooks = |lines: Vec<String>| -> Vec<String> {
            // iptables-nft lists the chain of a hook from the first rule in it on.
            lines
                .into_iter()
                .filter(|line| !line.starts_with(":OUTPUT") && !line.starts_with(":INPUT"))
                .collect()
        };
        assert_eq!(hooks(sorted(&netns)), hooks(before));
    }
}

fn web(name: &str, address: &str) -> Pod {
    let pod = Pod::new(PodId::new("shop", name), Labels::from_iter([("app", "web")]));
    pod.with_addresses([address.parse().unwrap()])
}

/// Who is elsewhere only joins sets: one run of ipset, no rule.
#[test]
fn one_pod_more_elsewhere_is_one_run_of_ipset() {
    let node = "here".into();
    let compile =
        |cluster: &Cluster| netpol_core::compile(cluster, netpol_core::Scope::Node(&node)).unwrap();
    for flavor in Flavor::ALL {
        let mut cluster = Cluster::new();
        for pod in policed_shop().pods() {
            cluster.insert_pod(pod.clone().with_node("here"));
        }
        for policy in policed_shop().policies() {
            if policy.id().kind == netpol_core::PolicyKind::NetworkPolicy {
                cluster.insert_policy(policy.clone());
            }
        }
        let old = compile(&cluster);
        let netns = Netns::new();
        let mut iptables = iptables(&netns, on(flavor));
        iptables.replace(&old).unwrap();
        cluster.insert_pod(web("web-2", "10.0.9.77").with_node("there"));
        let new = compile(&cluster);
        iptables.apply(&Delta::between(&old, &new)).unwrap();
        assert_eq!((iptables.report().runs(), iptables.report().lines()), (1, [0, 1, 0]));
        assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&new)));
        // Joining the node, it needs rules of its own.
        cluster.insert_pod(web("web-2", "10.0.9.77").with_node("here"));
        let newer = compile(&cluster);
        iptables.apply(&Delta::between(&new, &newer)).unwrap();
        assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&newer)));
        assert_eq!(iptables.plan(&newer).unwrap().script(), "");
    }
}

/// Runs a step as the back end does.
fn run(netns: &Netns, step: &Step) {
    match step.program {
        Program::Ipset => netns.ok(&["ipset", "restore"], &step.text),
        Program::Restore(flavor, family) => {
            let six = if family == Family::V6 { "6" } else { "" };
            let program = format!("ip{six}tables-{}-restore", flavor.as_str());
            netns.ok(&[&program, "--noflush", "-w", "5"], &step.text)
        }
    };
}

#[test]
fn what_was_killed_is_cleaned_up_by_the_next() {
    let (old, new) = (cluster_ruleset(&shop()), cluster_ruleset(&policed_shop()));
    for flavor in Flavor::ALL {
        let expected = {
            let netns = Netns::new();
            let mut iptables = iptables(&netns, on(flavor));
            iptables.replace(&old).unwrap();
            iptables.replace(&new).unwrap();
            sorted(&netns)
        };
        for done in 0.. {
            let netns = Netns::new();
            let mut iptables = iptables(&netns, on(flavor));
            iptables.replace(&old).unwrap();
            let plan = iptables.plan(&new).unwrap();
            if done == plan.steps.len() {
                break;
            }
            for step in plan.steps.iter().take(done) {
                run(&netns, step);
            }
            // Half of a step of ipset, too: it does line after line.
            if let Some(Step { program: Program::Ipset, text, .. }) = plan.steps.get(done) {
                let half: Vec<&str> = text.lines().take(text.lines().count() / 2).collect();
                netns.ok(&["ipset", "restore"], &(half.join("\n") + "\n"));
            }
            let mut next = self::iptables(&netns, on(flavor));
            next.replace(&new).unwrap();
            assert_eq!(sorted(&netns), expected, "{flavor} killed after step {done}");
            assert_eq!(next.installed().unwrap(), Some(Inventory::of(&new)));
        }
    }
}

#[test]
fn tampering_is_put_right() {
    let ruleset = cluster_ruleset(&policed_shop());
    for flavor in Flavor::ALL {
        let netns = Netns::new();
        let mut iptables = iptables(&netns, on(flavor));
        iptables.replace(&ruleset).unwrap();
        let before = sorted(&netns);
        let name = |start: &str| {
            let line = before.iter().find(|line| line.starts_with(start)).unwrap();
            line.trim_start_matches(':')
                .split(' ')
                .nth(usize::from(start.contains(' ')))
                .unwrap()
                .to_owned()
        };
        let (denial, set) = (name(":NP-x"), name("create NP-p4"));
        let command = format!("iptables-{}", flavor.as_str());
        for damage in [
            format!("{command} -F {denial}"),
            format!("{command} -I {denial} -j ACCEPT"),
            format!(
                "{command} -I {denial} -m comment --comment 'a pod and itself' -j RETURN; {command} -D {denial} 2"
            ),
            format!("{command} -F FORWARD"),
            format!("{command} -X NP-made-by-netpol-1; {command} -t raw -X NP-made-by-netpol-1"),
            format!("{command} -F NP-FORWARD"),
            format!("{command} -I FORWARD -j NP-FORWARD"),
            format!("{command} -t raw -F"),
            format!("{command} -F; {command} -X"),
            format!("ipset flush {set}"),
            "ipset flush".to_owned(),
            format!("ipset add {set} 1.2.3.4"),
            "ipset add NP-guard4 0.0.0.0/0,eth0".to_owned(),
            // Sets that rules use cannot be destroyed, so the rules go first.
            format!(
                "{command} -F; {command} -X; {command} -t raw -F; {command} -t raw -X; ipset destroy NP-own4; ipset destroy {set}"
            ),
            format!(
                "ip6tables-{0} -F; ip6tables-{0} -X; {command} -F; {command} -X; ipset destroy",
                flavor.as_str()
            ),
        ] {
            netns.run(&["sh", "-c", &damage], "");
            iptables.replace(&ruleset).unwrap();
            if !damage.contains("ipset") {
                assert_eq!(sorted(&netns), before, "{flavor} {damage}");
            }
            assert_eq!(iptables.plan(&ruleset).unwrap().script(), "", "{flavor} {damage}");
            assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&ruleset)));
        }
        // A rule of somebody else before ours: ours is first again, and once.
        netns.ok(&[&command, "-I", "FORWARD", "-j", "ACCEPT"], "");
        iptables.replace(&ruleset).unwrap();
        let rules = netns.ok(&[&command, "-S", "FORWARD"], "");
        let rules: Vec<&str> = rules.lines().skip(1).collect();
        assert!(rules[0].ends_with("-j NP-FORWARD"), "{rules:?}");
        assert_eq!(rules[1..], ["-A FORWARD -j ACCEPT"]);
    }
}

fn foreign(netns: &Netns, flavor: Flavor) {
    for six in ["", "6"] {
        let (source, list) =
            if six.is_empty() { ("10.9.9.9", "inet") } else { ("fd09::9", "inet6") };
        netns.ok(&["ipset", "restore"], &format!("create foreign{six} hash:ip family {list}\nadd foreign{six} {source}\ncreate NP-list{six} list:set\n"));
        let rules = format!(
            "*raw\n-A PREROUTING -s {source} -j ACCEPT\nCOMMIT\n*nat\n-A POSTROUTING -s {source} -j ACCEPT\nCOMMIT\n\
             *filter\n:NP-HTTP - [0:0]\n:KUBE-FORWARD - [0:0]\n-A INPUT -j ACCEPT\n-A OUTPUT -j ACCEPT\n\
             -A FORWARD -m set --match-set foreign{six} src -m comment --comment \"it's \\\"theirs\\\"\" -j KUBE-FORWARD\n\
             -A FORWARD -j NP-HTTP\n-A KUBE-FORWARD -j RETURN\nCOMMIT\n"
        );
        netns.ok(&[&format!("ip{six}tables-{}-restore", flavor.as_str())], &rules);
    }
}

#[test]
fn what_is_foreign_is_never_touched_and_removal_leaves_no_trace() {
    for flavor in Flavor::ALL {
        let netns = Netns::new();
        foreign(&netns, flavor);
        let before = listing(&netns);
        let mut iptables = iptables(&netns, on(flavor));
        iptables.remove().unwrap();
        assert_eq!(listing(&netns), before);
        iptables.replace(&cluster_ruleset(&shop())).unwrap();
        iptables.replace(&cluster_ruleset(&policed_shop())).unwrap();
        let during = listing(&netns);
        for line in before.lines() {
            assert!(during.contains(line), "{line}");
        }
        // Two rulesets stand beside each other.
        let beside = on(flavor).with_prefix(Prefix::new("NP2").unwrap());
        let mut beside = self::iptables(&netns, beside);
        beside.replace(&cluster_ruleset(&policed_shop())).unwrap();
        assert_eq!(
            iptables
                .plan(&cluster_ruleset(&policed_shop()))
                .unwrap()
                .script()
                .matches("-I ")
                .count(),
            8
        );
        beside.remove().unwrap();
        assert_eq!(listing(&netns), during);
        iptables.remove().unwrap();
        assert_eq!(listing(&netns), before);
        iptables.remove().unwrap();
        assert_eq!(iptables.installed().unwrap(), None);
    }
}

/// Where nobody else uses iptables, what stays is what no tool of iptables can take away: empty tables.
#[test]
fn what_stays_is_empty_tables() {
    for flavor in Flavor::ALL {
        let netns = Netns::new();
        let mut iptables = iptables(&netns, on(flavor));
        iptables.replace(&cluster_ruleset(&policed_shop())).unwrap();
        iptables.remove().unwrap();
        let left = listing(&netns);
        let allowed = |line: &str| {
            line.starts_with(['#', '*']) || line == "COMMIT" || line.ends_with(" ACCEPT")
        };
        assert!(left.lines().all(allowed), "{left}");
        assert_eq!(netns.listing().matches("chain ").count(), 0, "{}", netns.listing());
    }
}

#[test]
fn a_chain_or_a_set_of_somebody_else_is_an_error() {
    for flavor in Flavor::ALL {
        let netns = Netns::new();
        let command = format!("iptables-{}", flavor.as_str());
        netns.ok(&[&command, "-N", "NP-FORWARD"], "");
        let before = listing(&netns);
        let mut iptables = iptables(&netns, on(flavor));
        let error = iptables.replace(&Ruleset::default()).unwrap_err();
        assert!(
            matches!(&error, Error::Foreign { name } if name.ends_with("NP-FORWARD")),
            "{error}"
        );
        assert!(matches!(iptables.remove().unwrap_err(), Error::Foreign { .. }));
        assert_eq!(listing(&netns), before);
        netns.ok(&[&command, "-X", "NP-FORWARD"], "");
        for set in [
            "create NP-own4 hash:mac",
            "create NP-own4 hash:ip",
            "create NP-denied-ingress4 hash:ip",
        ] {
            let made = netns.run(&["ipset", "restore"], &format!("{set}\n"));
            if !made.status.success() {
                continue; // not every kernel has every type
            }
            let before = listing(&netns);
            let error = iptables.replace(&cluster_ruleset(&policed_shop())).unwrap_err();
            assert!(matches!(&error, Error::Foreign { .. }), "{error}");
            assert_eq!(listing(&netns), before);
            netns.ok(&["ipset", "destroy"], "");
        }
    }
}

#[test]
fn without_permission_or_programs_it_says_so() {
    let netns = Netns::new();
    for flavor in Flavor::ALL {
        let prefix =
            ["ip", "netns", "exec", &netns.0, "setpriv", "--bounding-set=-all", "--inh-caps=-all"];
        let host = Host::here().with_prefix(prefix.into_iter().chain(["--reuid=65534"]));
        let error = Iptables::new(host, on(flavor)).replace(&Ruleset::default()).unwrap_err();
        assert!(matches!(error, Error::Permission), "{error:?}");
        let host = netns.host().with_program("ipset", "no-such-ipset");
        let error = Iptables::new(host, on(flavor)).replace(&Ruleset::default()).unwrap_err();
        assert!(matches!(error, Error::Program(ProgramError::Missing { .. })), "{error}");
        let missing = format!("iptables-{}", flavor.as_str());
        let other = format!("iptables-{}", flavor.other().as_str());
        let host =
            netns.host().with_program(missing, "no-such-iptables").with_program("iptables", other);
        let error = Iptables::new(host, on(flavor)).replace(&Ruleset::default()).unwrap_err();
        assert!(matches!(error, Error::NoFlavor { .. }), "{error}");
    }
}

#[test]
fn hostile_names_stay_names() {
    let ruleset = cluster_ruleset(&hostile_names());
    for flavor in Flavor::ALL {
        let netns = Netns::new();
        let host = HostOptions::default().with_log(Some(1));
        let options = IptablesOptions::from(host).with_flavor(Some(flavor));
        load_files(&netns, &options, &ruleset, flavor);
        let mut iptables = iptables(&netns, options);
        iptables.replace(&ruleset).unwrap();
        assert_eq!(iptables.report().runs(), 0, "the files made what applying wants");
        assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&ruleset)));
        iptables.remove().unwrap();
        let left = listing(&netns);
        let allowed = |line: &str| line.starts_with(['#', '*', ':']) || line == "COMMIT";
        assert!(left.lines().all(allowed), "{left}");
    }
}

#[test]
fn random_clusters_are_accepted_and_deltas_lead_where_replacing_leads() {
    for flavor in Flavor::ALL {
        let config =
            || ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
        TestRunner::new(config())
            .run(&clusters(), |cluster| {
                let ruleset = cluster_ruleset(&cluster);
                let netns = Netns::new();
                let mut iptables = iptables(&netns, on(flavor));
                iptables.replace(&ruleset).unwrap();
                prop_assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&ruleset)));
                prop_assert_eq!(iptables.plan(&ruleset).unwrap().script(), "");
                Ok(())
            })
            .unwrap();
        TestRunner::new(config())
            .run(&clusters_with_edits(), |(mut cluster, edits)| {
                let netns = Netns::new();
                let mut iptables = iptables(&netns, on(flavor));
                let mut ruleset = cluster_ruleset(&cluster);
                iptables.replace(&ruleset).unwrap();
                for edit in edits {
                    edit.apply(&mut cluster);
                    let next = cluster_ruleset(&cluster);
                    iptables.apply(&Delta::between(&ruleset, &next)).unwrap();
                    prop_assert_eq!(iptables.report().left_over(), None);
                    ruleset = next;
                }
                prop_assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&ruleset)));
                prop_assert_eq!(iptables.plan(&ruleset).unwrap().script(), "");
                Ok(())
            })
            .unwrap();
    }
}

/// F75: a set is replaced by a larger one before it is full, and however many devices there are, each is guarded.
#[test]
fn sets_grow_beyond_what_they_were_made_for() {
    for flavor in Flavor::ALL {
        let netns = Netns::new();
        let mut cluster = policed_shop();
        let mut iptables = iptables(&netns, on(flavor));
        let mut ruleset = cluster_ruleset(&cluster);
        iptables.replace(&ruleset).unwrap();
        for size in [70u32, 90, 200, 1000] {
            for number in 0..size {
                let address = std::net::Ipv4Addr::from_bits((10 << 24) + (9 << 16) + number);
                let pod = web(&format!("web-{number}"), &address.to_string());
                cluster.insert_pod(pod.with_interface(format!("veth{number}")));
            }
            let next = cluster_ruleset(&cluster);
            iptables.apply(&Delta::between(&ruleset, &next)).unwrap();
            ruleset = next;
            assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&ruleset)));
        }
        let mut pods = ruleset.pods().clone();
        pods.retain(|_, addresses| !addresses.is_empty());
        assert!(pods.len() > 1000);
    }
}

/// F75: more members than ipset takes unless it is told.
#[test]
fn a_set_of_200_000_members() {
    let node = "here".into();
    let mut cluster = Cluster::new();
    for pod in policed_shop().pods() {
        cluster.insert_pod(pod.clone().with_node("here"));
    }
    for policy in policed_shop().policies() {
        cluster.insert_policy(policy.clone());
    }
    for number in 0..200_000u32 {
        let address = std::net::Ipv4Addr::from_bits((10 << 24) + (1 << 20) + number);
        let pod =
            Pod::new(PodId::new("shop", format!("w{number}")), Labels::from_iter([("app", "web")]));
        cluster.insert_pod(pod.with_addresses([address.into()]).with_node("there"));
    }
    let ruleset = netpol_core::compile(&cluster, netpol_core::Scope::Node(&node)).unwrap();
    let netns = Netns::new();
    let mut iptables = iptables(&netns, on(Flavor::Legacy));
    iptables.replace(&ruleset).unwrap();
    assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&ruleset)));
}

/// Somebody holds the lock: an error after the time that was granted, nothing lost, and the next attempt finishes it.
#[test]
fn the_lock_is_waited_for_with_a_bound() {
    let netns = Netns::new();
    let path = std::env::temp_dir().join(format!("lock-{}", netns.0));
    let file = std::fs::File::create(&path).unwrap();
    let lockfile = format!("XTABLES_LOCKFILE={}", path.display());
    let host = Host::here().with_prefix(["env", &lockfile, "ip", "netns", "exec", &netns.0]);
    let (old, new) = (cluster_ruleset(&shop()), cluster_ruleset(&policed_shop()));
    let options = on(Flavor::Legacy).with_lock_wait(Duration::from_secs(2));
    let mut iptables = Iptables::new(host.clone(), options.clone());
    iptables.replace(&old).unwrap();
    let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let started = Instant::now();
    let error = iptables.replace(&new).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(iptables.installed_of(&old).unwrap(), Some(Inventory::of(&old)));
    // Who waits longer than the other holds it gets it.
    let patient = options.with_lock_wait(Duration::from_secs(60));
    let mut patient = Iptables::new(host, patient);
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(10));
        drop(lock);
    });
    let started = Instant::now();
    patient.replace(&new).unwrap();
    holder.join().unwrap();
    assert!(started.elapsed() >= Duration::from_secs(9), "{:?}", started.elapsed());
    assert_eq!(patient.installed().unwrap(), Some(Inventory::of(&new)));
    std::fs::remove_file(path).unwrap();
}

/// The one that the host uses; both in use is said; from one to the other without a moment without rules.
#[test]
fn flavors_are_found_and_changed() {
    let ruleset = cluster_ruleset(&policed_shop());
    for flavor in Flavor::ALL {
        let netns = Netns::new();
        foreign(&netns, flavor);
        let mut auto = iptables(&netns, IptablesOptions::default());
        auto.replace(&ruleset).unwrap();
        assert_eq!(auto.report().flavor(), Some(flavor));
        assert_eq!(auto.report().defects(), []);
        // Somebody uses the other one, too.
        netns.ok(
            &[&format!("iptables-{}", flavor.other().as_str()), "-A", "INPUT", "-j", "ACCEPT"],
            "",
        );
        let mut auto = iptables(&netns, IptablesOptions::default());
        auto.replace(&ruleset).unwrap();
        assert_eq!(auto.report().flavor(), Some(flavor), "ours stay where they are");
        assert!(matches!(auto.report().defects(), [Defect::BothFlavors { .. }]));
        assert_eq!(auto.report().runs(), 0);
        let mut other = iptables(&netns, on(flavor.other()));
        let plan = other.plan(&ruleset).unwrap();
        let programs: Vec<_> = plan.steps.iter().map(|step| step.program).collect();
        let place =
            |of| programs.iter().position(|p| matches!(p, Program::Restore(f, _) if *f == of));
        assert!(
            place(flavor.other()) < place(flavor),
            "the new one enforces before the old one goes"
        );
        other.replace(&ruleset).unwrap();
        assert_eq!(other.installed().unwrap(), Some(Inventory::of(&ruleset)));
        let saved = netns.ok(&[&format!("iptables-{}-save", flavor.as_str())], "");
        assert!(!saved.contains("NP-FORWARD"), "{saved}");
        assert_eq!(other.plan(&ruleset).unwrap().script(), "");
    }
}

/// A program that refuses its input at the first line with these words.
fn picky(netns: &Netns, program: &str, words: &str, message: &str) -> (Host, std::path::PathBuf) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::temp_dir().join(format!("picky-{program}-{}", netns.0));
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *restore*|*noflush*) ;; *) exec {program} \"$@\" ;; esac\n\
         text=$(cat)\n\
         line=$(printf '%s\\n' \"$text\" | grep -n -e '{words}' | head -1 | cut -d: -f1)\n\
         [ -z \"$line\" ] || {{ echo \"{message}\" | sed \"s/LINE/$line/\" >&2; exit 2; }}\n\
         printf '%s\\n' \"$text\" | exec {program} \"$@\"\n"
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    (netns.host().with_program(program, &path), path)
}

#[test]
fn what_the_kernel_refuses_is_closed_and_the_rest_applied() {
    for flavor in Flavor::ALL {
        let ruleset = cluster_ruleset(&policed_shop());
        let restore = format!("iptables-{}-restore", flavor.as_str());
        let set = iptables(&Netns::new(), on(flavor)).plan(&ruleset).unwrap().script();
        let set = set.lines().find(|line| line.starts_with("create NP-n4")).unwrap();
        let set = set.split(' ').nth(1).unwrap().to_owned();
        for (program, words, message, of) in [
            (
                restore.as_str(),
                "shop/api egress.0.",
                "Couldn't load match 'multiport'\\n\\nError occurred at line: LINE",
                "NetworkPolicy shop/api egress[0]",
            ),
            (
                "ipset",
                set.as_str(),
                "Error in line LINE: Kernel error received: set type not supported",
                "TCP port http",
            ),
        ] {
            let netns = Netns::new();
            let (host, path) = picky(&netns, program, words, message);
            let mut iptables = Iptables::new(host, on(flavor));
            iptables.replace(&ruleset).unwrap();
            let defects: Vec<String> =
                iptables.report().defects().iter().map(ToString::to_string).collect();
            assert_eq!(defects.len(), 1, "{defects:?}");
            assert!(defects[0].contains(of), "{defects:?}");
            let listing = netns.ok(&[&format!("iptables-{}-save", flavor.as_str())], "");
            let leaf = |address: &str| {
                let leaf = format!(" {address}/32 -g NP-c");
                listing.lines().filter(|line| line.contains(&leaf)).count()
            };
            assert!(leaf("10.0.0.2") >= 1, "{listing}");
            assert_eq!(leaf("10.0.0.3"), 0, "{listing}");
            std::fs::remove_file(path).unwrap();
            // With tools that do not refuse it, it is put right.
            let mut iptables = self::iptables(&netns, on(flavor));
            iptables.replace(&ruleset).unwrap();
            assert_eq!(iptables.report().defects(), []);
            assert_eq!(iptables.installed().unwrap(), Some(Inventory::of(&ruleset)));
            assert_eq!(iptables.plan(&ruleset).unwrap().script(), "");
        }
        // What is no program's is an error, and names what it can.
        let netns = Netns::new();
        let (host, path) = picky(&netns, &restore, "^-I FORWARD", "line LINE: RULE_INSERT failed");
        let error = Iptables::new(host, on(flavor)).replace(&ruleset).unwrap_err();
        assert!(
            matches!(&error, Error::Refused { policies, .. } if policies == "netpol"),
            "{error}"
        );
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn an_error_names_the_policy_and_changes_to_nothing_are_refused() {
    for flavor in Flavor::ALL {
        let netns = Netns::new();
        let ruleset = cluster_ruleset(&policed_shop());
        iptables(&netns, on(flavor)).replace(&ruleset).unwrap();
        let before = listing(&netns);
        let delta = Delta::between(&Ruleset::default(), &cluster_ruleset(&shop()));
        let error = iptables(&netns, on(flavor)).apply(&delta).unwrap_err();
        assert!(matches!(error, Error::Baseless), "{error}");
        let error =
            iptables(&netns, on(flavor)).installed_of(&cluster_ruleset(&shop())).unwrap_err();
        assert!(matches!(error, Error::Unrecognized { .. }), "{error}");
        assert_eq!(listing(&netns), before);
    }
}

#[test]
fn snapshots_are_put_back() {
    for flavor in Flavor::ALL {
        for options in all_options().into_iter().take(2) {
            let netns = Netns::new();
            foreign(&netns, flavor);
            let mut iptables = iptables(&netns, options.with_flavor(Some(flavor)));
            let nothing = iptables.snapshot().unwrap();
            assert!(nothing.is_empty());
            let empty = sorted(&netns);

            iptables.replace(&grid()).unwrap();
            let (snapshot, before) = (iptables.snapshot().unwrap(), sorted(&netns));
            iptables.replace(&cluster_ruleset(&policed_shop())).unwrap();
            assert_ne!(sorted(&netns), before);
            iptables.restore(&snapshot).unwrap();
            assert_eq!(sorted(&netns), before);
            // What is there is recognized as what it is.
            iptables.replace(&grid()).unwrap();
            assert_eq!(iptables.report().runs(), 0);
            iptables.restore(&nothing).unwrap();
            let gone = |line: &&String| !line.starts_with('*') && !line.ends_with("COMMIT");
            let left: Vec<String> = sorted(&netns).iter().filter(gone).cloned().collect();
            // Tables that were made stay, empty: iptables cannot delete them.
            let built_in = |line: &&String| !line.starts_with(':') || line.contains("NP");
            let left: Vec<&String> = left.iter().filter(built_in).collect();
            let empty: Vec<&String> = empty.iter().filter(gone).filter(built_in).collect();
            assert_eq!(left, empty);
        }
    }
}
