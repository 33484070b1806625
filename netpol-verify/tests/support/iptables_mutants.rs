//! Changes of listings of iptables and ipset, one at a time: some change what they do, some do not.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]

use netpol_verify::Dump;
use std::net::IpAddr;

/// An address, network or port with its last bit turned, or a network one bit wider.
fn shifted(word: &str) -> Option<Vec<String>> {
    let shift = |address: IpAddr| match address {
        IpAddr::V4(a) => IpAddr::from((a.to_bits() ^ 1).to_be_bytes()),
        IpAddr::V6(a) => IpAddr::from((a.to_bits() ^ 1).to_be_bytes()),
    };
    if let Ok(address) = word.parse::<IpAddr>() {
        return Some(vec![shift(address).to_string()]);
    }
    if let Ok(net) = word.parse::<ipnet::IpNet>() {
        let length = net.prefix_len();
        let mut all = Vec::new();
        if length == net.max_prefix_len() {
            all.push(format!("{}/{length}", shift(net.addr())));
        }
        let longer = length + 1;
        all.extend((longer <= net.max_prefix_len()).then(|| format!("{}/{longer}", net.addr())));
        let wider = length.checked_sub(1).filter(|length| *length > 0);
        let wider = wider.and_then(|length| ipnet::IpNet::new(net.addr(), length).ok());
        all.extend(wider.map(|net| format!("{}/{}", net.network(), net.prefix_len())));
        return Some(all);
    }
    let ports = word.split([',', ':']).all(|port| port.parse::<u16>().is_ok());
    if !ports {
        return None;
    }
    let last = word.rfind([',', ':']).map_or(0, |at| at + 1);
    let port: u16 = word[last..].parse().ok()?;
    // Not below the port before it.
    Some(vec![format!("{}{}", &word[..last], if port == u16::MAX { port - 1 } else { port + 1 })])
}

/// The ways in which a rule can be another.
fn other_rules(line: &str) -> Vec<(&'static str, String)> {
    let mut all: Vec<(&'static str, String)> = Vec::new();
    let mut replace = |what, from: &str, to: &str| {
        if let Some(at) = line.find(from) {
            all.push((what, format!("{}{to}{}", &line[..at], &line[at + from.len()..])));
        }
    };
    for (what, from, to) in [
        ("flip the verdict", " -j DROP", " -j RETURN"),
        ("flip the verdict", " -j DROP", " -j ACCEPT"),
        ("flip the verdict", " -j RETURN", " -j DROP"),
        ("flip the verdict", " -j REJECT", " -j ACCEPT"),
        ("flip the verdict", " -j RETURN", " -j ACCEPT"),
        ("goto or jump", " -g NP", " -j NP"),
        ("goto or jump", " -j NP", " -g NP"),
        ("the other end", " src", " dst"),
        ("the other end", " dst", " src"),
        ("the other end", " src,src", " dst,src"),
        ("the other end", " -s ", " -d "),
        ("the other end", " -d ", " -s "),
        ("turn a condition around", " -m set --", " -m set ! --"),
        ("turn a condition around", " ! --ctstate", " --ctstate"),
        ("turn a condition around", " --ctstate", " ! --ctstate"),
        ("turn a condition around", " -s ", " ! -s "),
        ("turn a condition around", " -d ", " ! -d "),
        ("turn a condition around", " --dport ", " ! --dport "),
        ("turn a condition around", " -p ", " ! -p "),
        ("lose a condition", " -m conntrack ! --ctstate RELATED,ESTABLISHED", ""),
        ("other states", "RELATED,ESTABLISHED", "RELATED"),
        ("other states", "RELATED,ESTABLISHED", "RELATED,ESTABLISHED,NEW"),
        ("another direction", "--ctdir REPLY", "--ctdir ORIGINAL"),
        ("another type", "--icmpv6-type 135", "--icmpv6-type 138"),
        ("another comment", "--comment \"", "--comment \"-j DROP \\\" "),
        ("another device", " -i pod", " -i pox"),
        ("another device", "+ ", " "),
    ] {
        // Ports and types need their protocol.
        let needs = line.contains("port") || line.contains("-type");
        if !(from == " -p " && needs || from == " src" && line.contains(" src,")) {
            replace(what, from, to);
        }
    }
    let words: Vec<&str> = line.split(' ').collect();
    for (at, word) in words.iter().enumerate().skip(1) {
        let option = words[at - 1];
        if matches!(option, "-s" | "-d" | "--dport" | "--dports") {
            for other in shifted(word).into_iter().flatten() {
                let mut words = words.clone();
                words[at] = &other;
                all.push(("a number by one", words.join(" ")));
            }
        }
    }
    all
}

/// The ways in which a member of a set can be another.
fn other_members(line: &str) -> Vec<(&'static str, String)> {
    let words: Vec<&str> = line.split(' ').collect();
    let (first, rest) = words[2].split_once(',').map_or((words[2], None), |(a, b)| (a, Some(b)));
    let mut members: Vec<(&'static str, String)> = Vec::new();
    for other in shifted(first).into_iter().flatten() {
        let rest = rest.map_or_else(String::new, |rest| format!(",{rest}"));
        members.push(("another address in a set", format!("{other}{rest}")));
    }
    if let Some((protocol, port)) = rest.and_then(|rest| rest.split_once(':')) {
        let port: u16 = port.parse().unwrap();
        members.push(("another port in a set", format!("{first},{protocol}:{}", port ^ 1)));
        let other = if protocol == "tcp" { "udp" } else { "tcp" };
        members.push(("another protocol in a set", format!("{first},{other}:{port}")));
    }
    if let Some(device) = rest.filter(|rest| !rest.contains(':')) {
        members.push(("another device in a set", format!("{first},{device}x")));
        members.push(("more devices in a set", format!("{first},po wildcard")));
    }
    let mut all: Vec<(&'static str, String)> = members
        .into_iter()
        .map(|(what, member)| (what, format!("add {} {member}", words[1])))
        .collect();
    let more: Vec<_> =
        all.iter().map(|(_, other)| ("add an element", format!("{line}\n{other}"))).collect();
    all.extend(more);
    all.push(("drop an element", String::new()));
    if line.contains('/') {
        all.push(("a network that is not in a set", format!("{line} nomatch")));
    }
    all
}

/// Every single change of some kinds.
pub(crate) fn mutants(
    base: &[Dump],
    pick: &mut dyn FnMut(usize) -> bool,
) -> Vec<(String, Vec<Dump>)> {
    let mut mutants: Vec<(String, Vec<Dump>)> = Vec::new();
    for (number, dump) in base.iter().enumerate() {
        let with = |text: String| {
            let mut changed = base.to_vec();
            changed[number].text = text;
            changed
        };
        let lines: Vec<&str> = dump.text.lines().collect();
        let replaced = |at: usize, count: usize, text: &str| {
            let all = [&lines[..at], &[text], &lines[at + count..]].concat();
            with(all.into_iter().map(|line| format!("{line}\n")).collect())
        };
        let mut add = |what: &str, line: &str, mutant| {
            mutants.push((format!("{what}: {line:.200}"), mutant));
        };
        for (at, &line) in lines.iter().enumerate() {
            if line.starts_with("add ") {
                for (what, other) in other_members(line).into_iter().filter(|_| pick(3)) {
                    add(what, line, replaced(at, 1, &other));
                }
            }
            if let Some(chain) = line.strip_prefix(':').filter(|line| line.contains(" ACCEPT ")) {
                add(
                    "policy drop",
                    line,
                    replaced(at, 1, &format!(":{}", chain.replace("ACCEPT", "DROP"))),
                );
            }
            if line.starts_with("-A ") {
                for (what, other) in other_rules(line) {
                    add(what, line, replaced(at, 1, &other));
                }
                let start = format!("-A {} ", line.split(' ').nth(1).unwrap());
                add("drop a rule", line, replaced(at, 1, ""));
                add("double a rule", line, replaced(at, 1, &format!("{line}\n{line}")));
                for rule in ["-j ACCEPT", "-j RETURN", "-p udp -j DROP"] {
                    add("a rule before", line, replaced(at, 1, &format!("{start}{rule}\n{line}")));
                }
                if let Some(next) = lines.get(at + 1).filter(|next| next.starts_with(&start)) {
                    add("swap rules", line, replaced(at, 2, &format!("{next}\n{line}")));
                }
            }
        }
        if number > 0 {
            add("lose a family", &dump.name, with(lines[0].to_owned()));
        }
    }
    mutants
}
