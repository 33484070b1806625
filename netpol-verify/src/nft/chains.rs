//! `nft list chains`: which devices the chains of the family netdev are bound to.
//!
//! The JSON of nft before 1.0.8 leaves the device out, so a proof about the source guard needs this listing too.

use crate::machine::{Machine, TableFamily, TableKind};

/// Does a text look like the output of `nft list chains`, or of `nft list ruleset` without `-j`?
#[must_use]
pub fn is_chain_listing(text: &str) -> bool {
    text.trim_start().starts_with("table ")
}

/// Takes the devices of netdev chains from a listing in nft's own syntax. Everything else in it is passed over: rules
/// are read from JSON.
pub fn read_chain_listing(machine: &mut Machine, text: &str) {
    let mut table: Option<(TableFamily, &str)> = None;
    let mut chain: Option<&str> = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table", family, name, "{"] => {
                let known = [TableFamily::Netdev, TableFamily::Inet];
                let family = known.into_iter().find(|known| known.as_str() == *family);
                table = family.map(|family| (family, *name));
            }
            ["chain", name, "{"] => chain = Some(name),
            ["type", _, "hook", "ingress" | "egress", ..] => {
                if let (Some(table), Some(chain), Some(devices)) = (table, chain, devices(line)) {
                    bind(machine, table, chain, &devices);
                }
            }
            _ => {}
        }
    }
}

/// The devices in `type filter hook ingress device "a" priority 0;` or `devices = { "a", "b" }`.
fn devices(line: &str) -> Option<Vec<String>> {
    let between = line.split_once("device")?.1.split_once("priority")?.0;
    let inner = between.trim_start_matches('s').trim().trim_start_matches('=').trim();
    let inner = inner.trim_start_matches('{').trim_end_matches('}');
    let names = inner.split(',').map(|name| name.trim().trim_matches('"'));
    let names: Vec<String> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    (!names.is_empty()).then_some(names)
}

fn bind(machine: &mut Machine, table: (TableFamily, &str), chain: &str, devices: &[String]) {
    let of =
        |at: usize| machine.tables.get(at).is_some_and(|t| t.is(TableKind::Nft, table.0, table.1));
    let found = machine.chains.iter().position(|c| c.name == chain && of(c.table));
    let hook = found.and_then(|at| machine.chains.get_mut(at)).and_then(|c| c.hook.as_mut());
    if let Some(hook) = hook {
        hook.devices = Some(devices.to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found() {
        for (line, expected) in [
            (
                "type filter hook ingress device \"veth-a\" priority -500; policy accept;",
                vec!["veth-a"],
            ),
            (
                "type filter hook ingress devices = { \"a\", \"b\" } priority filter;",
                vec!["a", "b"],
            ),
            ("type filter hook ingress devices = { a, b } priority 0;", vec!["a", "b"]),
        ] {
            assert_eq!(devices(line).unwrap(), expected, "{line}");
        }
        assert_eq!(devices("type filter hook input priority 0;"), None);
    }
}
