//! A made-up node, for measuring: `node LOCAL_PODS off|prerouting|ingress [DEVICE [address|interface]]` prints its ruleset for
//! `nft -f -`; `node LOCAL_PODS GUARD DEVICE DISPATCH NETNS` applies it in that network namespace (ip-netns(8)), again, and with one pod more.
//!
//! The node is that of `netpol_testkit::scale::busy_node`. DEVICE is the one of the first pod; the others are on `p1`, `p2` and
//! so on. A guard written with `+tiers` behind it adds 20 admin and 5 baseline rules.
//!
//! To standard error go sizes and times.
#![expect(clippy::print_stdout, reason = "an example")]

use netpol_core::{Backend, Delta, Scope, compile};
use netpol_nft::{Dispatch, Guard, NftOptions, Nftables, layout, objects, script};
use netpol_testkit::scale::{add_admin_tiers, busy_node, busy_node_peer};
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let local: u32 = arguments.next().ok_or("how many local pods?")?.parse()?;
    let guard_word = arguments.next().unwrap_or_default();
    let guard = match guard_word.trim_end_matches("+tiers") {
        "prerouting" => Guard::Prerouting,
        "ingress" => Guard::Ingress,
        _ => Guard::Off,
    };
    let device = arguments.next().unwrap_or_else(|| "p0".to_owned());
    let dispatch = match arguments.next().as_deref() {
        Some("interface") => Dispatch::Interface,
        _ => Dispatch::Address,
    };
    let mut cluster = busy_node(local, &device);
    if guard_word.ends_with("+tiers") {
        add_admin_tiers(&mut cluster);
    }
    let node = "node".into();
    let time = |what: &str, started: Instant| eprintln!("{what}: {:?}", started.elapsed());

    let started = Instant::now();
    let ruleset = compile(&cluster, Scope::Node(&node))?;
    time("compile", started);
    let options = NftOptions::default().with_guard(guard).with_dispatch(dispatch);
    let started = Instant::now();
    let model = layout(&ruleset, &options).model;
    time("layout", started);
    let started = Instant::now();
    let text = script(&model);
    time("script", started);
    eprintln!("{} bytes of text", text.len());
    let started = Instant::now();
    let json = serde_json::to_string(&objects(&model))?;
    time("objects", started);
    eprintln!("{} bytes of JSON", json.len());
    cluster.insert_pod(busy_node_peer(10_000));
    let next = compile(&cluster, Scope::Node(&node))?;
    let started = Instant::now();
    let delta = Delta::between(&ruleset, &next);
    time("delta", started);
    assert!(!delta.is_empty(), "one pod more");
    let Some(netns) = arguments.next() else {
        print!("{text}");
        return Ok(());
    };
    let mut nftables = Nftables::new(netpol_host::Host::in_namespace(netns), options);
    let mut timed =
        |what: &str, change: &dyn Fn(&mut Nftables) -> Result<(), netpol_nft::Error>| {
            let started = Instant::now();
            change(&mut nftables)?;
            let report = nftables.report();
            let (all, nft) = (started.elapsed(), report.took());
            eprintln!(
                "{what}: {all:?}, of these {nft:?} in {} transactions",
                report.transactions()
            );
            Ok::<(), netpol_nft::Error>(())
        };
    timed("first apply", &|nftables| nftables.replace(&ruleset))?;
    timed("again", &|nftables| nftables.replace(&ruleset))?;
    timed("one pod more", &|nftables| nftables.apply(&delta))?;
    timed("remove", &|nftables| nftables.remove())?;
    Ok(())
}
