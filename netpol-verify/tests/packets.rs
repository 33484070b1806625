//! Does the rule machine do what this kernel does? Rules of every kind of nft that it understands, and real packets.
//! Needs root, nft and ip.

#[path = "support/wire.rs"]
mod wire;

use netpol_verify::Kernel;
use netpol_verify::machine::ConnState;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use wire::{V4, V6, compare, load};

/// A condition in nft's syntax.
fn condition() -> impl Strategy<Value = String> {
    let v4 = || {
        let one = select(&V4[..]).prop_map(str::to_owned);
        let net = select(&["10.0.0.0/24", "10.0.0.2/31", "0.0.0.0/0", "203.0.113.0/24"][..]);
        let range = Just("10.0.0.2-198.51.100.6".to_owned());
        prop_oneof![3 => one, 2 => net.prop_map(str::to_owned), 1 => range]
    };
    let v6 = || {
        let one = select(&V6[..]).prop_map(str::to_owned);
        let net = select(&["fd00::/64", "::/0", "2001:db8::/48", "fd00::2/127"][..]);
        prop_oneof![3 => one, 2 => net.prop_map(str::to_owned)]
    };
    let end = || select(&["saddr", "daddr"][..]);
    let equal = || select(&["", "!= "][..]);
    let port = || select(&["80", "81", "443", "80-81", "{ 80, 443 }", "{ 53, 80-81 }"][..]);
    let protocol = || select(&["tcp", "udp", "th"][..]);
    let fixed = select(
        &[
            "ip saddr @nets",
            "ip daddr != @nets",
            "ip6 saddr @six",
            "meta nfproto ipv4",
            "ip saddr & 255.255.255.254 == 10.0.0.2",
            "ip daddr & 255.0.0.0 == { 10.0.0.0 }",
            "ip daddr . meta l4proto . th dport @pairs",
            "ip saddr . ip daddr { 10.0.0.1 . 10.0.0.2, 203.0.113.9 . 10.0.0.1 }",
            "ip saddr . tcp dport { 10.0.0.0/31 . 80-81, 203.0.113.9 . 443 }",
            "meta l4proto { tcp, udp }",
            "meta l4proto != { tcp, udp, sctp }",
            "meta l4proto 6-17",
            "ip protocol icmp",
            "icmp type echo-request",
            "icmpv6 type { echo-request, echo-reply }",
            "icmpv6 type 128-130",
            "tcp dport < 81",
            "tcp dport >= 81",
            "udp dport > 53",
            "tcp dport <= 80",
            "ct state new",
            "ct state established,related",
            "ct state != new",
            "ct state { new, invalid }",
            "ct direction original",
            "ct direction reply",
            "meta mark 1",
            "meta mark & 0x3 == 1",
            "meta mark & 0x2 != 0",
            "meta mark != 0",
            "iifname \"uplink\"",
            "iifname != \"up*\"",
            "oifname \"up*\"",
            "oifname { \"uplink\", \"lo\" }",
            "meta protocol ip6",
            "ct state ! new",
        ][..],
    );
    prop_oneof![
        2 => (end(), equal(), v4()).prop_map(|(e, o, v)| format!("ip {e} {o}{v}")),
        2 => (end(), equal(), v6()).prop_map(|(e, o, v)| format!("ip6 {e} {o}{v}")),
        2 => (protocol(), equal(), port()).prop_map(|(p, o, v)| format!("{p} dport {o}{v}")),
        3 => fixed.prop_map(str::to_owned),
    ]
}

/// What a rule of a chain of this depth can do.
fn action(depth: usize) -> impl Strategy<Value = String> {
    let mut ends = vec!["accept", "drop", "return", "continue", "counter", "meta mark set 1"];
    ends.extend(["meta mark set meta mark or 0x2", "meta mark set meta mark xor 0x3"]);
    ends.extend(["ip saddr vmap @verdicts", "meta mark set meta mark and 0x1 counter"]);
    ends.extend(["meta l4proto vmap { tcp : accept, udp : drop, icmp : return }", "reject"]);
    // What nft lists without the condition, since the answer implies it.
    ends.extend(["meta nfproto ipv4 reject", "meta nfproto ipv6 reject", "reject with tcp reset"]);
    if depth == 0 {
        ends.extend(["jump one", "goto one", "jump two", "goto two"]);
        ends.push("tcp dport vmap { 80 : jump one, 81 : goto two, 443 : accept }");
        ends.push(
            "ip saddr . tcp dport vmap { 10.0.0.1 . 80 : goto one, 203.0.113.9 . 81 : drop }",
        );
    }
    if depth == 1 {
        ends.extend(["jump two", "goto two"]);
    }
    select(ends).prop_map(str::to_owned)
}

/// Rules of the chain of this name.
fn rules(chain: &'static str, depth: usize) -> impl Strategy<Value = Vec<String>> {
    let rule = (vec(condition(), 0..3), action(depth));
    let rule = rule.prop_map(move |(conditions, action)| {
        format!("add rule inet t {chain} {} {action}", conditions.join(" "))
    });
    vec(rule, 0..5)
}

/// What is there before the rules.
const TABLE: &str = "flush ruleset
table inet t {
  set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/30, 198.51.0.0-198.51.100.7 }; }
  set six { type ipv6_addr; elements = { fd00::1, 2001:db8::9 }; }
  set pairs { type ipv4_addr . inet_proto . inet_service; elements = { 10.0.0.2 . tcp . 80, 10.0.0.1 . udp . 53 }; }
  map verdicts { type ipv4_addr : verdict; flags interval; elements = { 10.0.0.1 : accept, 203.0.113.0/24 : drop, 10.0.0.2 : return }; }
  chain two {
  }
  chain one {
  }
  chain first {
    type filter hook forward priority 0; policy EARLY;
  }
  chain second {
    type filter hook forward priority 10; policy LATE;
  }
}
";

/// The commands that make a ruleset.
fn ruleset() -> impl Strategy<Value = Vec<String>> {
    let policy = || select(&["accept", "accept", "drop"][..]);
    let rules = (rules("two", 2), rules("one", 1), rules("first", 0), rules("second", 0));
    (rules, policy(), policy()).prop_map(|((two, one, first, second), early, late)| {
        let table = TABLE.replace("EARLY", early).replace("LATE", late);
        [vec![table], two, one, first, second].concat()
    })
}

#[test]
fn the_machine_does_what_the_kernel_does() {
    let make = |commands: &Vec<String>| {
        let (table, rules) = commands.split_first().unwrap();
        assert!(load(&["nft", "-f", "-"], table), "{table}");
        // Some rules contradict themselves, and nft refuses them.
        let taken = rules.iter().filter(|rule| load(&["nft", "-f", "-"], rule)).count();
        (taken, Kernel::new().machine().unwrap())
    };
    compare(60, &ruleset(), make, |_, _| ConnState::New);
}
