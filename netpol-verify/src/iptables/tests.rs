//! Rules as text, and what the machine makes of them.

use super::*;
use crate::machine::{ConnState, Fate, Packet, Path, device_value};
use std::collections::BTreeSet;

const SETS: &str = "\
create s hash:ip family inet hashsize 64 maxelem 64
add s 10.0.0.1
create p hash:ip,port family inet hashsize 64 maxelem 64
add p 10.0.0.1,tcp:80
create l list:set size 8
add l s
add l p
create t hash:ip family inet hashsize 64 maxelem 64 timeout 5
add t 10.0.0.1 timeout 4
create e hash:ip family inet hashsize 64 maxelem 64
";

fn machine(text: &str, v6: bool) -> Machine {
    let mut sets = Sets::default();
    sets.read("sets", SETS);
    changed_sets(text).for_each(|name| sets.changes(name));
    let mut machine = Machine::new();
    read(&mut machine, "dump", text, Origin { v6, nft: false }, &sets);
    machine
}

/// The rules of the chain FORWARD of a dump with this rule, as text.
fn texts(rule: &str, v6: bool) -> Vec<String> {
    let text = format!("*filter\n:FORWARD ACCEPT [0:0]\n:T - [0:0]\n-A FORWARD {rule}\nCOMMIT\n");
    let machine = machine(&text, v6);
    assert!(machine.not_understood.is_empty(), "{:?}", machine.not_understood);
    machine.chains[0].rules.iter().map(|rule| machine.rule_text(0, rule)).collect()
}

#[test]
fn rules_of_ipv4() {
    for (rule, expected) in [
        ("-j ACCEPT", &["accept"][..]),
        ("-j DROP", &["drop"]),
        ("-j REJECT --reject-with tcp-reset", &["drop"]),
        ("-j RETURN", &["return"]),
        ("-j T", &["jump T"]),
        ("-g T", &["goto T"]),
        ("-j X", &["<-j X>"]),
        ("-j T --really", &["<-j T --really>"]),
        ("-s 10.0.0.1/32 ! -d 10.0.0.0/8", &["saddr 10.0.0.1 daddr != 10.0.0.0-10.255.255.255"]),
        ("-s 10.0.0.1/255.0.0.255 -j DROP", &["<an address 10.0.0.1/255.0.0.255> drop"]),
        (
            "-i veth+ ! -o eth0 -j DROP",
            &[
                "iifname \"veth\"-\"veth\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\" oifname != \"eth0\" drop",
            ],
        ),
        (
            "-p tcp -m tcp --sport 5:10 ! --dport 53 -j DROP",
            &["l4proto tcp sport 5-10 dport != 53 drop"],
        ),
        ("-p tcp -m tcp --tcp-flags FIN,SYN SYN -j DROP", &["l4proto tcp <--tcp-flags> drop"]),
        (
            "-p tcp -m tcp --dport 1:65535 --tcp-flags FIN,SYN SYN -j DROP",
            &["l4proto tcp dport 1-65535 <--tcp-flags> drop"],
        ),
        ("-m tcp --dport 53 -j DROP", &["<-m tcp --dport 53> drop"]),
        ("-p 47 -j DROP", &["l4proto 47 drop"]),
        ("! -p gre -j DROP", &["l4proto != 47 drop"]),
        ("-p all -j DROP", &["drop"]),
        ("-p nonsense -j DROP", &["<-p nonsense> drop"]),
        ("-p sctp -m multiport ! --sports 1,2:4 -j DROP", &["l4proto sctp sport != 1-4 drop"]),
        (
            "-p tcp -m multiport --ports 80 -j DROP",
            &["l4proto tcp sport 80 drop", "l4proto tcp sport != 80 dport 80 drop"],
        ),
        ("-p tcp -m multiport ! --ports 80 -j DROP", &["l4proto tcp sport != 80 dport != 80 drop"]),
        ("-p icmp -m icmp --icmp-type 3/1 -j DROP", &["l4proto icmp sport 769 drop"]),
        ("-p icmp -m icmp ! --icmp-type 8 -j DROP", &["l4proto icmp sport != 2048-2303 drop"]),
        ("-p icmp -m icmp --icmp-type any -j DROP", &["l4proto icmp sport 0-65535 drop"]),
        ("-f -j DROP", &["nfproto {  } drop"]),
        ("! -f -j DROP", &["nfproto != {  } drop"]),
        (
            "-m conntrack --ctstate RELATED,ESTABLISHED -j DROP",
            &["ct state { established, related } drop"],
        ),
        (
            "-m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP",
            &["ct state { invalid, new, untracked } drop"],
        ),
        ("-m state --state NEW -j DROP", &["ct state new drop"]),
        (
            "-m conntrack --ctdir REPLY -j DROP",
            &["ct state { established, related, new } ct direction reply drop"],
        ),
        (
            "-m conntrack --ctstate INVALID,NEW --ctdir ORIGINAL -j DROP",
            &["ct state invalid drop", "ct state new ct direction original drop"],
        ),
        (
            "-m conntrack --ctstate ESTABLISHED,DNAT -j DROP",
            &[
                "ct state established drop",
                "ct state { related, new } <-m conntrack --ctstate ESTABLISHED,DNAT> drop",
            ],
        ),
        (
            "-m conntrack --ctstate NEW --ctproto 6 -j DROP",
            &["ct state new <-m conntrack --ctstate NEW --ctproto 6> drop"],
        ),
        ("-m mark ! --mark 0x1/0x3 -j DROP", &["mark & 0x3 != 0x1 drop"]),
        (
            "-m mark --mark 0x1 -j MARK --set-xmark 0x5/0xf",
            &["mark & 0xffffffff 0x1 mark set mark & 0xfffffff0 ^ 0x5"],
        ),
        ("-j MARK --set-xmark 0x7/0xffffffff", &["mark set 0x7"]),
        (
            "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            &["<-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff>"],
        ),
        ("-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff", &["(nothing)"]),
        ("-m set --match-set s src -j DROP", &["saddr @s drop"]),
        ("-m set ! --match-set p src,dst -j DROP", &["saddr . l4proto . dport != @p drop"]),
        (
            "-m set --match-set l src,dst -j DROP",
            &["saddr @s drop", "saddr != @s saddr . l4proto . dport @p drop"],
        ),
        (
            "-m set ! --match-set l src,dst -j DROP",
            &["saddr != @s saddr . l4proto . dport != @p drop"],
        ),
        ("-m set --match-set p src -j DROP", &["nfproto {  } drop"]),
        ("-m set ! --match-set p src -j DROP", &["drop"]),
        ("-m set --match-set e src -j DROP", &["nfproto {  } drop"]),
        ("-m set --match-set t src -j DROP", &["<the members of the set `t` come and go> drop"]),
        ("-m set --match-set x src -j DROP", &["<the set `x` is not in the dump> drop"]),
        (
            "-m set --match-set s src --packets-gt 5 -j DROP",
            &["<--match-set s --packets-gt 5> drop"],
        ),
        ("-m set --match-set s src ! --update-counters -j DROP", &["saddr @s drop"]),
        (
            "-m set --match-set s src --return-nomatch -j DROP",
            &["<-m set --match-set s src --return-nomatch> drop"],
        ),
        (
            "-m iprange --src-range 10.0.0.1-10.0.0.9 ! --dst-range 1.1.1.1-1.1.1.2 -j DROP",
            &["saddr 10.0.0.1-10.0.0.9 daddr != 1.1.1.1-1.1.1.2 drop"],
        ),
        ("-m limit --limit 5/min -j DROP", &["limit --limit 5/min drop"]),
        ("-m limit --limit 5/min -j LOG --log-prefix \"a b\"", &["(nothing)"]),
        (
            "-m addrtype ! --dst-type LOCAL -m comment --comment \"a -j ACCEPT\" -j DROP",
            &["<-m addrtype ! --dst-type LOCAL> drop"],
        ),
        ("-m comment --comment -j -j DROP", &["drop"]),
        (
            "-m recent --rcheck --name x --mask 255.255.255.255 --rsource -p udp -j DROP",
            &["<-m recent --rcheck --name x --mask 255.255.255.255 --rsource -p udp> drop"],
        ),
        ("-m nfacct --nfacct-name x -j DROP", &["drop"]),
        ("-j NFQUEUE --queue-num 3", &["<-j NFQUEUE --queue-num 3>"]),
        ("-j CT --notrack", &["(nothing)"]),
        ("-j DNAT --to-destination 1.2.3.4:80", &["accept"]),
        ("--frobnicate 7 -j ACCEPT", &["<--frobnicate 7 -j ACCEPT>"]),
        ("-c 5 7 -s 10.0.0.1 -j DROP", &["saddr 10.0.0.1 drop"]),
        ("-m mark --mark -j DROP", &["<-m mark --mark> drop"]),
        ("-s 10.0.0.1 !", &["saddr 10.0.0.1 <a rule that ends with !>"]),
        (
            "-m comment --comment \"open -j ACCEPT",
            &["<-A FORWARD -m comment --comment \"open -j ACCEPT>"],
        ),
    ] {
        assert_eq!(texts(rule, false), expected, "{rule}");
    }
}

#[test]
fn rules_of_ipv6() {
    for (rule, expected) in [
        (
            "-s fd00::/64 -d fd00::1/128 -j DROP",
            &["saddr fd00::-fd00::ffff:ffff:ffff:ffff daddr fd00::1 drop"][..],
        ),
        (
            "-p ipv6-icmp -m icmp6 --icmpv6-type 133 -j RETURN",
            &["l4proto ipv6-icmp sport 34048-34303 return"],
        ),
        (
            "-p ipv6-icmp -m icmp6 ! --icmpv6-type 1/4 -j DROP",
            &["l4proto ipv6-icmp sport != 260 drop"],
        ),
        ("-m set --match-set s src -j DROP", &["nfproto {  } drop"]),
        ("-s 10.0.0.1 -j DROP", &["<an address 10.0.0.1> drop"]),
    ] {
        assert_eq!(texts(rule, true), expected, "{rule}");
    }
}

#[test]
fn nothing_is_skipped() {
    for (text, line) in [
        ("*filter\n:FORWARD ACCEPT [0:0]\n-A NOWHERE -j DROP\nCOMMIT\n", 3),
        ("*filter\n:FORWARD ACCEPT [0:0]\n-I FORWARD -j DROP\nCOMMIT\n", 3),
        ("*filter\n:FORWARD QUEUE [0:0]\nCOMMIT\n", 2),
        ("*filter\n:FORWARD - [0:0]\nCOMMIT\n", 2),
        ("*filter\n:T ACCEPT [0:0]\nCOMMIT\n", 2),
        ("*filter\n:FORWARD ACCEPT [0:0]\n:FORWARD DROP [0:0]\nCOMMIT\n", 3),
        ("*filter\n:FORWARD ACCEPT [0:0]\n", 1),
        ("*filter\nCOMMIT\n*filter\nCOMMIT\n", 3),
        ("*broute\nCOMMIT\n", 1),
        ("*filter\nCOMMIT\n-A FORWARD -j DROP\n", 3),
        (
            "*filter\n:T - [0:0]\n-A T -m comment --comment \"a\n-A T -j DROP\" -j ACCEPT\nCOMMIT\n",
            3,
        ),
    ] {
        let machine = machine(text, false);
        let [what] = machine.not_understood.as_slice() else {
            panic!("{text}: {:?}", machine.not_understood)
        };
        assert_eq!(what.place, format!("dump line {line}"), "{text}");
    }
    // One bad line hides no other.
    let text = "*filter\n:FORWARD ACCEPT [0:0]\nnonsense\n-A FORWARD -s 10.0.0.1 -j DROP\nCOMMIT\n";
    assert_eq!(machine(text, false).chains[0].rules.len(), 1);
}

#[test]
fn counters_comments_and_newlines_are_nothing() {
    let text = "# Generated by iptables-save\n*filter\n:FORWARD DROP [7:9]\n[1:2] -A FORWARD -m comment --comment \"a \\\"b\\\"\nc\" -j ACCEPT\nCOMMIT\n# Completed\n";
    let machine = machine(text, false);
    assert!(machine.not_understood.is_empty());
    let rule = &machine.chains[0].rules[0];
    assert_eq!((rule.place.as_str(), rule.comment.as_deref()), ("line 4", Some("a \"b\"\nc")));
}

#[test]
fn what_a_dump_is_of() {
    for (text, expected) in [
        ("# Generated by iptables-save v1.8.9 on Sat\n*filter\n", Some((false, false))),
        ("# Generated by ip6tables-save v1.8.9 on Sat\n*filter\n", Some((true, false))),
        ("# Generated by iptables-nft-save v1.8.9 (nf_tables) on Sat\n", Some((false, true))),
        ("# Generated by ip6tables-nft-save v1.8.9 (nf_tables) on Sat\n", Some((true, true))),
        ("# Generated by iptables-save v1.8.2 (nf_tables) on Sat\n", Some((false, true))),
        ("*filter\n-A FORWARD -s 10.0.0.0/8\n", Some((false, false))),
        ("*filter\n-A FORWARD -d fd00::/8\n", Some((true, false))),
        ("*filter\n-A FORWARD -p ipv6-icmp\n", Some((true, false))),
        ("*filter\n-A FORWARD -m comment --comment \"10.0.0.1 is\" -j DROP\n", None),
        ("*filter\n:FORWARD ACCEPT [0:0]\n", None),
    ] {
        let found = origin(text).map(|origin| (origin.v6, origin.nft));
        assert_eq!(found, expected, "{text}");
        assert!(is_listing(text), "{text}");
    }
    assert!(!is_listing("create a hash:ip\n") && !is_listing("{}") && !is_listing(""));
}

#[test]
fn sets_that_rules_change_come_and_go() {
    let text = "*mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set --match-set s src -j DROP\n-A FORWARD -j SET --add-set s src --exist\nCOMMIT\n";
    let machine = machine(text, false);
    let text = machine.rule_text(0, &machine.chains[0].rules[0]);
    assert_eq!(text, "<rules change the members of the set `s`> drop");
}

/// The tables in the order of the kernel, and the ends of chains.
#[test]
fn packets_pass_all_tables() {
    let text = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m mark --mark 0x1 -j ACCEPT\nCOMMIT
*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i veth+ -j MARK --set-xmark 0x1/0x1\nCOMMIT
*raw\n:PREROUTING ACCEPT [0:0]\n:G - [0:0]\n-A PREROUTING -g G\n-A PREROUTING -j DROP\n-A G -s 10.0.0.9/32 -j DROP\nCOMMIT\n";
    let machine = machine(text, false);
    let mut packet = Packet {
        v6: false,
        source: 0x0a00_0001,
        destination: 0x0a00_0002,
        protocol: 6,
        first: 40000,
        second: 80,
        in_device: device_value("veth0"),
        out_device: device_value("eth0"),
        state: ConnState::New,
        reply: false,
        mark: 0,
    };
    let fates = |packet: &Packet| machine.fates(packet, Path::Forward);
    assert_eq!(fates(&packet), BTreeSet::from([Fate::Accepted]));
    packet.source = 0x0a00_0009;
    assert_eq!(fates(&packet), BTreeSet::from([Fate::Dropped]));
    packet.source = 1;
    packet.in_device = device_value("eth1");
    assert_eq!(fates(&packet), BTreeSet::from([Fate::Dropped]));
}

/// Words of rules, some of which mean something together.
const WORDS: [&str; 40] = [
    "-s",
    "-d",
    "-i",
    "-o",
    "-p",
    "-f",
    "-m",
    "-j",
    "-g",
    "!",
    "--dport",
    "--ports",
    "--match-set",
    "--ctstate",
    "--ctdir",
    "--mark",
    "--icmp-type",
    "--src-range",
    "--comment",
    "--limit",
    "--set-xmark",
    "tcp",
    "icmp",
    "set",
    "s",
    "src,dst",
    "conntrack",
    "multiport",
    "iprange",
    "mark",
    "NEW,DNAT",
    "REPLY",
    "10.0.0.0/8",
    "80:90,1",
    "0x1/0x3",
    "DROP",
    "ACCEPT",
    "T",
    "MARK",
    "\"a b\"",
];

proptest::proptest! {
    /// Whatever stands in a line, its rule is there, and so is the next one.
    #[test]
    fn no_line_is_lost(
        words in proptest::collection::vec(proptest::sample::select(&WORDS[..]), 0..12),
        text in "[ -~\\n]{0,40}",
    ) {
        for line in [words.join(" "), text.replace("-A", "")] {
            let text = format!("*filter\n:FORWARD ACCEPT [0:0]\n:T - [0:0]\n-A FORWARD {line}\n-A T -j DROP\nCOMMIT\n");
            let machine = machine(&text, false);
            let [forward, last] = machine.chains.as_slice() else { panic!("{text}") };
            let understood = machine.not_understood.is_empty();
            proptest::prop_assert!(!forward.rules.is_empty(), "{}", text);
            proptest::prop_assert!(last.rules.len() == 1 || !understood, "{}", text);
        }
    }

    /// No text is too much.
    #[test]
    fn any_text_is_read(text in "[-A: *\"\\\\\\[\\]\\nC0-9a-z/,.!]{0,200}") {
        let mut sets = Sets::default();
        sets.read("sets", &text);
        let mut machine = Machine::new();
        read(&mut machine, "dump", &text, Origin { v6: false, nft: false }, &sets);
        let _ = (origin(&text), is_listing(&text), crate::ipset::is_listing(&text));
    }
}
