//! A made-up node, for measuring: `iptables_node LOCAL_PODS off|prerouting DEVICE DIRECTORY` writes its ruleset as the three files and
//! `load.sh`; `iptables_node LOCAL_PODS GUARD DEVICE NETNS legacy|nft` applies it in that network namespace (ip-netns(8)), again, and with
//! one pod more elsewhere, one here, and one policy more.
//!
//! The node is that of `netpol_testkit::scale::busy_node`. DEVICE is the one of the first pod; the others are on `p1`, `p2` and
//! so on. A guard written with `+tiers` behind it adds 20 admin and 5 baseline rules.
//!
//! To standard error go sizes and times.

use netpol_core::{
    Backend, Cluster, Delta, Family, Labels, Phase, Pod, PodId, Policy, Ruleset, Scope, Selector,
    compile,
};
use netpol_iptables::{Flavor, Guard, Iptables, IptablesOptions, layout, text};
use netpol_testkit::scale::{add_admin_tiers, busy_node, busy_node_addresses, busy_node_peer};
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let local: u32 = arguments.next().ok_or("how many local pods?")?.parse()?;
    let guard_word = arguments.next().unwrap_or_default();
    let guard = match guard_word.trim_end_matches("+tiers") {
        "prerouting" => Guard::Prerouting,
        _ => Guard::Off,
    };
    let device = arguments.next().unwrap_or_else(|| "p0".to_owned());
    let place = arguments.next().ok_or("which directory or network namespace?")?;
    let flavor = arguments.next();
    let mut cluster = busy_node(local, &device);
    if guard_word.ends_with("+tiers") {
        add_admin_tiers(&mut cluster);
    }
    let node = "node".into();
    let options = IptablesOptions::default().with_guard(guard);
    let ruleset = compile(&cluster, Scope::Node(&node))?;
    let started = Instant::now();
    let model = layout(&ruleset, &options).model;
    eprintln!("layout: {:?}", started.elapsed());
    let rules = model.tables.values().flat_map(|table| table.chains.values());
    let rules: usize = rules.map(|chain| chain.rules.len()).sum();
    eprintln!("{rules} rules in both families, {} sets", model.sets.len());
    let Some(flavor) = flavor else {
        let directory = PathBuf::from(place);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("netpol.ipset"), text::ipset(&model))?;
        std::fs::write(directory.join("netpol.v4.iptables"), text::iptables(&model, Family::V4))?;
        std::fs::write(directory.join("netpol.v6.iptables"), text::iptables(&model, Family::V6))?;
        std::fs::write(directory.join("load.sh"), text::load_script(&model))?;
        return Ok(());
    };
    let flavor = if flavor == "nft" { Flavor::Nft } else { Flavor::Legacy };
    let options = options.with_flavor(Some(flavor));
    let mut iptables = Iptables::new(netpol_host::Host::in_namespace(place), options);
    timed("first apply", &mut iptables, |iptables| iptables.replace(&ruleset))?;
    timed("again", &mut iptables, |iptables| iptables.replace(&ruleset))?;
    let mut before = ruleset;
    let mut next = |what: &str, cluster: &Cluster, iptables: &mut Iptables| {
        let after: Ruleset = compile(cluster, Scope::Node(&node))?;
        let delta = Delta::between(&before, &after);
        timed(what, iptables, |iptables| iptables.apply(&delta))?;
        before = after;
        Ok::<(), Box<dyn Error>>(())
    };
    cluster.insert_pod(busy_node_peer(10_000));
    next("one pod more elsewhere", &cluster, &mut iptables)?;
    let class = Labels::from_iter([("class", "c3")]);
    let pod = Pod::new(PodId::new("n", "one-more"), class)
        .with_addresses(busy_node_addresses(1, local + 1));
    cluster.insert_pod(pod.with_phase(Phase::Running).with_node("node").with_interface("q"));
    next("one pod more here", &cluster, &mut iptables)?;
    let subject = Selector::match_labels([("class", "c3")]);
    cluster.insert_policy(Policy::network_policy("n", "one-more", subject, Some(vec![]), None));
    next("one policy more", &cluster, &mut iptables)?;
    timed("remove", &mut iptables, Backend::remove)?;
    Ok(())
}

fn timed(
    what: &str,
    iptables: &mut Iptables,
    change: impl FnOnce(&mut Iptables) -> Result<(), netpol_iptables::Error>,
) -> Result<(), netpol_iptables::Error> {
    let started = Instant::now();
    change(iptables)?;
    let report = iptables.report();
    eprintln!(
        "{what}: {:?}, of these {:?} in {} runs, {:?} lines",
        started.elapsed(),
        report.took(),
        report.runs(),
        report.lines()
    );
    Ok(())
}
