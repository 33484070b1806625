//! Does the rule machine do what this kernel does? Rules of every kind of iptables, and sets of every kind of ipset, that it
//! understands, and real packets, on both implementations. Needs root, iptables, ipset and ip.
#![expect(clippy::indexing_slicing, reason = "helpers of tests fail by panicking")]

#[path = "support/wire.rs"]
mod wire;

use netpol_verify::Kernel;
use netpol_verify::machine::{ConnState, Packet};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use wire::{V4, V6, compare, load};

const SETS: &str = "\
create ip4 hash:ip counters
add ip4 10.0.0.1
add ip4 203.0.113.9
create net4 hash:net comment
add net4 10.0.0.0/8
add net4 10.0.0.0/31 nomatch
add net4 10.0.0.1
add net4 198.51.0.0/16
create port4 hash:ip,port
add port4 10.0.0.2,tcp:80
add port4 10.0.0.1,udp:53
add port4 203.0.113.9,icmp:echo-request
add port4 10.0.0.2,gre:0
add port4 10.0.0.1,sctp:80
create netport4 hash:net,port
add netport4 10.0.0.0/30,tcp:81
add netport4 10.0.0.2,tcp:81 nomatch
create triple4 hash:ip,port,ip
add triple4 10.0.0.1,tcp:80,10.0.0.2
add triple4 203.0.113.9,udp:53,10.0.0.1
create triplenet4 hash:ip,port,net
add triplenet4 10.0.0.1,tcp:80,203.0.113.0/24
add triplenet4 10.0.0.1,tcp:80,203.0.113.8/31 nomatch
add triplenet4 10.0.0.1,udp:80,10.0.0.0/8
create device4 hash:net,iface
add device4 0.0.0.0/0,uplink
add device4 203.0.113.0/24,uplink nomatch
add device4 10.0.0.0/24,up wildcard
create map4 bitmap:ip range 10.0.0.0/24
add map4 10.0.0.2
create mask4 hash:ip netmask 30
add mask4 10.0.0.1
create ports bitmap:port range 0-1000
add ports 80
add ports 53
create ip6 hash:ip family inet6
add ip6 fd00::1
create net6 hash:net family inet6
add net6 fd00::/64
add net6 fd00::2 nomatch
create port6 hash:ip,port family inet6
add port6 fd00::2,tcp:80
add port6 2001:db8::9,icmpv6:echo-request
create device6 hash:net,iface family inet6
add device6 ::/0,uplink
create list list:set
add list ip4
add list port4
add list ip6
add list ports
";

/// Names of sets, with how many parts each is looked up by.
fn sets(v6: bool) -> &'static [(&'static str, usize)] {
    if v6 {
        &[("ip6", 1), ("net6", 1), ("port6", 2), ("device6", 2), ("ports", 1), ("list", 2)]
    } else {
        &[
            ("ip4", 1),
            ("net4", 1),
            ("port4", 2),
            ("netport4", 2),
            ("triple4", 3),
            ("triplenet4", 3),
            ("device4", 2),
            ("map4", 1),
            ("mask4", 1),
            ("ports", 1),
            ("list", 1),
            ("list", 2),
        ]
    }
}

/// The address of a rule; first the words before all modules.
fn condition(v6: bool) -> impl Strategy<Value = String> {
    let one = select(if v6 { &V6[..] } else { &V4[..] }).prop_map(str::to_owned);
    let nets = if v6 {
        &["fd00::/64", "::/0", "2001:db8::/48", "fd00::2/127", "fd00::/ffff::"][..]
    } else {
        &["10.0.0.0/24", "10.0.0.2/31", "0.0.0.0/0", "203.0.113.0/24", "10.0.0.0/255.0.0.0"][..]
    };
    let not = || select(&["", "! "][..]);
    let address = prop_oneof![3 => one, 2 => select(nets).prop_map(str::to_owned)];
    let address = (not(), select(&["-s", "-d"][..]), address);
    let dirs = || select(&["src", "dst"][..]);
    let set = (not(), select(sets(v6)), vec(dirs(), 3)).prop_map(|(not, (name, parts), dirs)| {
        format!("-m set {not}--match-set {name} {}", dirs[..parts].join(","))
    });
    let states = select(
        &["NEW", "RELATED,ESTABLISHED", "INVALID,NEW", "UNTRACKED", "INVALID,UNTRACKED"][..],
    );
    let dir = select(&["", " --ctdir ORIGINAL", " --ctdir REPLY"][..]);
    let states = (not(), states, dir)
        .prop_map(|(not, states, dir)| format!("-m conntrack {not}--ctstate {states}{dir}"));
    let devices = select(
        &["-i uplink", "! -i up+", "-o up+", "! -o uplink", "-i +", "-o lo", "-i uplin"][..],
    );
    let plain = select(
        &[
            "-m mark --mark 0x1",
            "-m mark --mark 0x1/0x3",
            "-m mark ! --mark 0x0/0x2",
            "-m mark ! --mark 0x0",
            "-m state --state NEW",
            "-m state ! --state NEW",
            "-m conntrack --ctdir ORIGINAL",
            "-m conntrack --ctdir REPLY",
            "-m comment --comment \"a -j ACCEPT \\\" b\"",
            "-m comment --comment -j",
        ][..],
    );
    let ranges = select(if v6 {
        &["-m iprange --src-range fd00::1-fd00::9", "-m iprange ! --dst-range fd00::2-2001:db8::9"]
            [..]
    } else {
        &[
            "-m iprange --src-range 10.0.0.2-198.51.100.6",
            "-m iprange ! --dst-range 10.0.0.2-203.0.113.9",
            "! -f",
            "-f",
        ][..]
    });
    prop_oneof![
        3 => address.prop_map(|(not, end, address)| format!("{not}{end} {address}")),
        4 => set,
        2 => states,
        1 => devices.prop_map(str::to_owned),
        2 => plain.prop_map(str::to_owned),
        1 => ranges.prop_map(str::to_owned),
    ]
}

/// At most one condition on the protocol.
fn protocol(v6: bool) -> impl Strategy<Value = String> {
    let not = || select(&["", "! "][..]);
    let ports = || select(&["80", "81", "80:81", "53:80", ":80", "81:", "443"][..]);
    let many = select(&["80", "80,443", "53,80:81", "1024:65535", "1:79,82:65535"][..]);
    let simple =
        (select(&["tcp", "udp", "sctp"][..]), not(), select(&["--sport", "--dport"][..]), ports());
    let simple =
        simple.prop_map(|(p, not, end, ports)| format!("-p {p} -m {p} {not}{end} {ports}"));
    let multi = (
        select(&["tcp", "udp", "sctp"][..]),
        not(),
        select(&["--sports", "--dports", "--ports"][..]),
        many,
    );
    let multi =
        multi.prop_map(|(p, not, end, ports)| format!("-p {p} -m multiport {not}{end} {ports}"));
    let icmp = if v6 {
        &["-p ipv6-icmp -m icmp6 --icmpv6-type 128", "-p ipv6-icmp -m icmp6 ! --icmpv6-type 128/0"]
            [..]
    } else {
        &[
            "-p icmp -m icmp --icmp-type 8",
            "-p icmp -m icmp ! --icmp-type 3/1",
            "-p icmp -m icmp --icmp-type any",
        ][..]
    };
    let plain = select(&["-p tcp", "! -p tcp", "-p 47", "! -p udp", "-p all", "-p sctp"][..]);
    prop_oneof![
        3 => Just(String::new()),
        2 => simple,
        2 => multi,
        1 => select(icmp).prop_map(str::to_owned),
        2 => plain.prop_map(str::to_owned),
    ]
}

/// What a rule of a chain of this depth can do.
fn action(depth: usize) -> impl Strategy<Value = String> {
    let mut ends = vec!["-j ACCEPT", "-j DROP", "-j RETURN", "", "-j MARK --set-mark 0x1"];
    ends.extend([
        "-j MARK --set-xmark 0x2/0x2",
        "-j MARK --xor-mark 0x3",
        "-j MARK --and-mark 0x1",
    ]);
    ends.extend(["-j REJECT", "-j NFLOG --nflog-group 7", "-j CONNMARK --save-mark", "-j DROP"]);
    if depth == 0 {
        ends.extend(["-j one", "-g one", "-j two", "-g two"]);
    }
    if depth == 1 {
        ends.extend(["-j two", "-g two"]);
    }
    select(ends).prop_map(str::to_owned)
}

fn rules(chain: &'static str, depth: usize, v6: bool) -> impl Strategy<Value = Vec<String>> {
    let rule = (protocol(v6), vec(condition(v6), 0..3), action(depth));
    let rule = rule.prop_map(move |(protocol, conditions, action)| {
        // Modules follow what every rule has.
        let (plain, modules): (Vec<String>, Vec<String>) =
            conditions.into_iter().partition(|c| !c.starts_with("-m"));
        let conditions: Vec<String> = plain.into_iter().chain([protocol]).chain(modules).collect();
        format!("-A {chain} {} {action}", conditions.join(" "))
    });
    vec(rule, 0..5)
}

/// A ruleset of one family: its tables, each with its rules.
#[derive(Clone, Debug)]
struct Tables {
    /// TCP is not tracked.
    untracked: bool,
    policy: &'static str,
    raw: Vec<String>,
    mangle: Vec<String>,
    filter: Vec<String>,
}

fn tables(v6: bool) -> impl Strategy<Value = Tables> {
    let filter = (rules("two", 2, v6), rules("one", 1, v6), rules("FORWARD", 0, v6));
    let filter = filter.prop_map(|(two, one, forward)| [two, one, forward].concat());
    let raw = rules("PREROUTING", 3, v6).prop_map(|rules| rules.into_iter().take(1).collect());
    let mangle = rules("FORWARD", 3, v6).prop_map(|rules| rules.into_iter().take(2).collect());
    let policy = select(&["ACCEPT", "ACCEPT", "DROP"][..]);
    (any::<bool>(), policy, raw, mangle, filter).prop_map(
        |(untracked, policy, raw, mangle, filter)| Tables {
            untracked,
            policy,
            raw,
            mangle,
            filter,
        },
    )
}

#[derive(Clone, Debug)]
struct Ruleset {
    flavor: &'static str,
    families: [Tables; 2],
}

fn ruleset() -> impl Strategy<Value = Ruleset> {
    (select(&["legacy", "nft"][..]), tables(false), tables(true))
        .prop_map(|(flavor, v4, v6)| Ruleset { flavor, families: [v4, v6] })
}

/// Loads a ruleset and counts the rules that were taken.
fn make(ruleset: &Ruleset) -> usize {
    for command in ["iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"] {
        for table in ["raw", "mangle", "filter"] {
            let restore = format!("{command}-restore");
            let builtins = match table {
                "raw" => &["PREROUTING", "OUTPUT"][..],
                "mangle" => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
                _ => &["INPUT", "FORWARD", "OUTPUT"],
            };
            let chains: String = builtins.iter().map(|c| format!(":{c} ACCEPT [0:0]\n")).collect();
            assert!(load(&[&restore], &format!("*{table}\n{chains}COMMIT\n")), "{command} {table}");
        }
    }
    assert!(load(&["ipset", "-exist", "restore"], SETS), "ipset");
    let mut taken = 0;
    for (command, tables) in ["iptables", "ip6tables"].into_iter().zip(&ruleset.families) {
        let restore = format!("{command}-{}-restore", ruleset.flavor);
        let mut add = |table: &str, rule: &str| {
            let text = format!("*{table}\n{rule}\nCOMMIT\n");
            let done = load(&[&restore, "--noflush"], &text);
            taken += usize::from(done);
            done
        };
        assert!(add("filter", ":one - [0:0]\n:two - [0:0]"));
        assert!(add("filter", &format!(":FORWARD {} [0:0]", tables.policy)));
        if tables.untracked {
            assert!(add("raw", "-A PREROUTING -p tcp -j CT --notrack"));
        }
        for (table, rules) in
            [("raw", &tables.raw), ("mangle", &tables.mangle), ("filter", &tables.filter)]
        {
            for rule in rules {
                add(table, rule);
            }
        }
    }
    taken
}

#[test]
fn the_machine_does_what_the_kernel_does() {
    let load = |ruleset: &Ruleset| {
        let taken = make(ruleset);
        let machine = Kernel::new().machine().unwrap();
        assert!(machine.not_understood.is_empty(), "{:?}", machine.not_understood);
        (taken, machine)
    };
    let state = |ruleset: &Ruleset, packet: &Packet| {
        let [v4, v6] = &ruleset.families;
        let tables = if packet.v6 { v6 } else { v4 };
        if tables.untracked && packet.protocol == 6 { ConnState::Untracked } else { ConnState::New }
    };
    compare(60, &ruleset(), load, state);
}
