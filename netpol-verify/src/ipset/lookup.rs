//! What a rule that looks a packet up in a set asks of it.

use super::element::Element;
use super::{Content, Part, Set, Sets};
use crate::machine::{ElementSet, Field, Range};
use std::sync::Arc;

/// More boxes than this are not made of members that exclude others.
const MOST_BOXES: usize = 20_000;
/// With more of these, it is not looked for two members that contradict each other.
const MOST_WILDCARDS: usize = 1000;

/// A lookup in a set.
#[derive(Clone, Debug)]
pub(crate) enum Lookup {
    /// It succeeds if one of these does: fields in a set. None: it fails.
    Any(Vec<(Vec<Field>, Arc<ElementSet>)>),
    /// It is not understood, for this reason.
    Unknown(String),
}

/// A box of values with the fields that they are of.
type Product = Vec<(Field, Range)>;

impl Sets {
    /// What `--match-set NAME src,dst` asks, with a word for each part: is it `src`? (xt_set, `ip_set_test`)
    pub(crate) fn lookup(&self, name: &str, sources: &[bool], v6: bool) -> Lookup {
        let Some(set) = self.sets.get(name) else {
            return Lookup::Unknown(format!("the set `{name}` is not in the dump"));
        };
        if self.changing.contains(name) {
            return Lookup::Unknown(format!("rules change the members of the set `{name}`"));
        }
        if let Some(why) = &set.unknown {
            return Lookup::Unknown(why.clone());
        }
        match &set.content {
            Content::Members { .. } => set.lookup(name, sources, v6),
            Content::Union(members) => {
                let mut all = Vec::new();
                for member in members {
                    // Sets of sets are no members of sets.
                    let known = self.sets.get(member);
                    if known.is_none_or(|set| {
                        matches!(set.content, Content::Union(_)) && set.unknown.is_none()
                    }) {
                        return Lookup::Unknown(format!("`{member}` in the set `{name}`"));
                    }
                    match self.lookup(member, sources, v6) {
                        Lookup::Any(some) => all.extend(some),
                        unknown @ Lookup::Unknown(_) => return unknown,
                    }
                }
                Lookup::Any(all)
            }
        }
    }
}

impl Set {
    fn lookup(&self, name: &str, sources: &[bool], v6: bool) -> Lookup {
        let Content::Members { parts, elements, .. } = &self.content else {
            return Lookup::Any(Vec::new());
        };
        // Too few words, or a packet of the other family, never match.
        if sources.len() < parts.len() || self.v6.is_some_and(|of| of != v6) {
            return Lookup::Any(Vec::new());
        }
        let excludes = elements.iter().any(|element| element.excludes);
        if excludes && elements.iter().any(|element| element.wildcard) && is_open(elements) {
            return Lookup::Unknown(format!("`nomatch` beside `wildcard` in the set `{name}`"));
        }
        let mut key: Vec<Field> = Vec::new();
        let products: Vec<Vec<Product>> =
            elements.iter().map(|element| products(element, parts, sources)).collect();
        for (field, _) in products.iter().flatten().flatten() {
            if !key.contains(field) {
                key.push(*field);
            }
        }
        let boxed = |product: &Product| -> Option<Box<[Range]>> {
            key.iter()
                .map(|field| {
                    // A field twice: both parts are about it.
                    let of = product.iter().filter(|(other, _)| other == field);
                    let meet = of.fold(Range::ALL, |all, (_, range)| Range {
                        first: all.first.max(range.first),
                        last: all.last.min(range.last),
                    });
                    (meet.first <= meet.last).then_some(meet)
                })
                .collect()
        };
        let mut boxes: Vec<Box<[Range]>> = Vec::new();
        if excludes {
            // The most specific member decides, so it comes last here.
            let mut order: Vec<(&Element, &Vec<Product>)> =
                elements.iter().zip(&products).collect();
            order.sort_by(|(a, _), (b, _)| a.specific.cmp(&b.specific));
            for (element, products) in order {
                for one in products.iter().filter_map(boxed) {
                    if element.excludes {
                        boxes = boxes.iter().flat_map(|other| without(other, &one)).collect();
                    } else {
                        boxes.push(one);
                    }
                }
                if boxes.len() > MOST_BOXES {
                    return Lookup::Unknown(format!("too many `nomatch` in the set `{name}`"));
                }
            }
        } else {
            boxes.extend(products.iter().flatten().filter_map(boxed));
        }
        if key.is_empty() {
            return Lookup::Any(Vec::new());
        }
        let set = ElementSet::of_boxes(key.len(), boxes).named(name);
        Lookup::Any(vec![(key, Arc::new(set))])
    }
}

/// Are there two of which it depends on their order in the kernel which one a packet is found in? A device and a wildcard
/// for the same network, only one of which excludes.
fn is_open(elements: &[Element]) -> bool {
    let wild = elements.iter().filter(|element| element.wildcard);
    wild.take(MOST_WILDCARDS + 1).enumerate().any(|(at, one)| {
        at == MOST_WILDCARDS
            || elements.iter().any(|other| {
                one.excludes != other.excludes
                    && one.specific == other.specific
                    && one.ranges.iter().zip(&other.ranges).all(|(a, b)| a.meets(b))
            })
    })
}

/// The values of the fields that an element stands for.
fn products(element: &Element, parts: &[Part], sources: &[bool]) -> Vec<Product> {
    let mut product = Product::new();
    let mut protocols: Vec<Range> = Vec::new();
    let mut ranges = element.ranges.iter().copied();
    for (part, source) in parts.iter().zip(sources) {
        let Some(range) = ranges.next() else { return Vec::new() };
        let of = |there, here| if *source { there } else { here };
        match part {
            Part::Address => product.push((of(Field::Source, Field::Destination), range)),
            Part::Device => product.push((of(Field::InDevice, Field::OutDevice), range)),
            Part::BarePort => {
                protocols.extend([Range::one(6u8), Range::one(17u8)]);
                product.push((of(Field::First, Field::Second), range));
            }
            Part::Port => {
                let Some(port) = ranges.next() else { return Vec::new() };
                product.push((Field::Protocol, range));
                // Of ICMP, type and code; other protocols have the port 0.
                match range.first {
                    6 | 17 | 132 | 136 => product.push((of(Field::First, Field::Second), port)),
                    1 | 58 => product.push((Field::First, port)),
                    _ if port.contains(0) => {}
                    _ => return Vec::new(),
                }
            }
        }
    }
    if protocols.is_empty() {
        return vec![product];
    }
    let with = |protocol| std::iter::once((Field::Protocol, protocol)).chain(product.clone());
    protocols.into_iter().map(|protocol| with(protocol).collect()).collect()
}

/// What is left of a box without another, as disjoint boxes.
fn without(one: &[Range], hole: &[Range]) -> Vec<Box<[Range]>> {
    if !one.iter().zip(hole).all(|(a, b)| a.meets(b)) {
        return vec![Box::from(one)];
    }
    let mut rest = one.to_vec();
    let mut left = Vec::new();
    for (part, hole) in hole.iter().enumerate() {
        let Some(range) = rest.get(part).copied() else { continue };
        let below = hole.first.checked_sub(1).map(|last| Range { first: range.first, last });
        let above = hole.last.checked_add(1).map(|first| Range { first, last: range.last });
        for piece in [below, above].into_iter().flatten().filter(|r| r.first <= r.last) {
            let mut outside = rest.clone();
            if let Some(slot) = outside.get_mut(part) {
                *slot = piece;
            }
            left.push(outside.into_boxed_slice());
        }
        if let Some(slot) = rest.get_mut(part) {
            *slot = Range { first: range.first.max(hole.first), last: range.last.min(hole.last) };
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::address_value;

    fn sets(text: &str) -> Sets {
        let mut sets = Sets::default();
        sets.read("dump", text);
        sets
    }

    /// Source, destination, protocol, source port, destination port, devices.
    type Sample<'a> = (&'a str, &'a str, u8, u16, u16, &'a str, &'a str);

    fn value(field: Field, sample: Sample<'_>) -> u128 {
        let (source, destination, protocol, first, second, from, to) = sample;
        match field {
            Field::Source => address_value(source.parse().unwrap()),
            Field::Destination => address_value(destination.parse().unwrap()),
            Field::Protocol => protocol.into(),
            Field::First => first.into(),
            Field::Second => second.into(),
            Field::InDevice => crate::machine::device_value(from).unwrap_or(0),
            _ => crate::machine::device_value(to).unwrap_or(0),
        }
    }

    #[test]
    fn lookups() {
        let text = "\
create ip hash:ip family inet hashsize 64 maxelem 64 counters comment bucketsize 12 initval 0x1
add ip 10.0.0.1 packets 1 bytes 2 comment \"a \nb\"
create nets hash:net family inet hashsize 64 maxelem 64
add nets 10.0.0.0/8
add nets 10.1.0.0/16 nomatch
add nets 10.1.2.0/24
create port hash:ip,port family inet hashsize 64 maxelem 64
add port 10.0.0.1,tcp:80
add port 10.0.0.1,icmp:echo-request
add port 10.0.0.1,gre:0
create triple hash:ip,port,net family inet hashsize 64 maxelem 64
add triple 10.0.0.1,udp:53,10.2.0.0/16
add triple 10.0.0.1,udp:53,10.2.3.0/24 nomatch
create pair hash:net,net family inet hashsize 64 maxelem 64
add pair 10.0.0.0/24,10.0.1.0/24
create device hash:net,iface family inet hashsize 64 maxelem 64
add device 10.0.0.1,eth0
add device 0.0.0.0/0,veth wildcard
add device 10.0.1.0/24,veth7 nomatch
create unsure hash:net,iface family inet hashsize 64 maxelem 64
add unsure 10.0.0.0/24,eth wildcard
add unsure 10.0.0.0/24,eth0 nomatch
create map bitmap:ip range 10.0.0.0-10.0.255.255 netmask 24
add map 10.0.3.0
create ports bitmap:port range 0-1000
add ports 80
create time hash:ip family inet hashsize 64 maxelem 64 timeout 300
add time 10.0.0.1 timeout 299
create stays hash:ip family inet hashsize 64 maxelem 64 timeout 0
add stays 10.0.0.1 timeout 0
create mac hash:mac hashsize 64 maxelem 64
create six hash:ip family inet6 hashsize 64 maxelem 64
add six fd00::1
create phys hash:net,iface family inet hashsize 64 maxelem 64
add phys 10.0.0.1,physdev:eth0
create all list:set size 8
add all ip
add all ports
";
        let mut sets = sets(text);
        sets.changes("mac");
        assert!(sets.not_understood().is_empty(), "{:?}", sets.not_understood());
        let tcp = ("10.0.0.1", "10.0.1.9", 6, 40000, 80, "eth0", "veth7");
        for (name, directions, sample, expected) in [
            ("ip", "src", tcp, Some(true)),
            ("ip", "src,dst", tcp, Some(true)),
            ("ip", "dst", tcp, Some(false)),
            ("nets", "src", tcp, Some(true)),
            ("nets", "src", ("10.1.0.1", "::", 6, 0, 0, "", ""), Some(false)),
            ("nets", "src", ("10.1.2.1", "::", 6, 0, 0, "", ""), Some(true)),
            ("nets", "src", ("10.1.3.0", "::", 6, 0, 0, "", ""), Some(false)),
            ("port", "src,dst", tcp, Some(true)),
            ("port", "src,src", tcp, Some(false)),
            ("port", "src", tcp, Some(false)),
            ("port", "src,dst", ("10.0.0.1", "::", 1, 8 << 8, 0, "", ""), Some(true)),
            ("port", "src,dst", ("10.0.0.1", "::", 1, 8 << 8 | 1, 0, "", ""), Some(false)),
            ("port", "src,src", ("10.0.0.1", "::", 47, 7, 9, "", ""), Some(true)),
            ("port", "src,dst", ("10.0.0.1", "::", 17, 40000, 80, "", ""), Some(false)),
            ("triple", "src,dst,dst", ("10.0.0.1", "10.2.9.9", 17, 1, 53, "", ""), Some(true)),
            ("triple", "src,dst,dst", ("10.0.0.1", "10.2.3.9", 17, 1, 53, "", ""), Some(false)),
            ("triple", "src,dst,dst", ("10.0.0.1", "10.3.3.9", 17, 1, 53, "", ""), Some(false)),
            ("pair", "src,dst", tcp, Some(true)),
            ("pair", "dst,src", tcp, Some(false)),
            ("pair", "src,src", tcp, Some(false)),
            ("device", "src,src", tcp, Some(true)),
            ("device", "src,dst", tcp, Some(true)),
            ("device", "dst,src", tcp, Some(false)),
            ("device", "dst,dst", tcp, Some(false)),
            ("unsure", "src,src", tcp, None),
            ("map", "dst", ("::", "10.0.3.77", 6, 0, 0, "", ""), Some(true)),
            ("map", "dst", ("::", "10.0.4.0", 6, 0, 0, "", ""), Some(false)),
            ("ports", "dst", tcp, Some(true)),
            ("ports", "dst", ("::", "::", 132, 1, 80, "", ""), Some(false)),
            ("time", "src", tcp, None),
            ("stays", "src", tcp, Some(true)),
            ("mac", "src", tcp, None),
            ("six", "src", tcp, Some(false)),
            ("phys", "src,src", tcp, None),
            ("none", "src", tcp, None),
            ("all", "dst", tcp, Some(true)),
            ("all", "src", ("10.0.0.2", "::", 6, 80, 1, "", ""), Some(true)),
            ("all", "src", ("10.0.0.2", "::", 6, 81, 80, "", ""), Some(false)),
        ] {
            let sources: Vec<bool> = directions.split(',').map(|word| word == "src").collect();
            let found = match sets.lookup(name, &sources, false) {
                Lookup::Unknown(_) => None,
                Lookup::Any(all) => Some(all.iter().any(|(key, set)| {
                    let values: Vec<u128> = key.iter().map(|field| value(*field, sample)).collect();
                    set.contains(&values)
                })),
            };
            assert_eq!(found, expected, "{name} {directions} {sample:?}");
        }
    }

    #[test]
    fn a_bad_line_concerns_its_set_alone() {
        let mut sets =
            sets("create a hash:ip\ncreate b hash:ip\nadd a 10.0.0.1 frozen\nadd b 10.0.0.1\n");
        assert!(
            matches!(sets.lookup("a", &[true], false), Lookup::Unknown(why) if why.contains("line 3"))
        );
        assert!(matches!(sets.lookup("b", &[true], false), Lookup::Any(_)));
        sets.read("more", "flush nowhere\n");
        assert_eq!(sets.not_understood().len(), 1);
        let mut changed = sets.clone();
        changed.changes("b");
        assert!(matches!(changed.lookup("b", &[true], false), Lookup::Unknown(_)));
        sets.read("more", "swap a b\n");
        assert!(matches!(sets.lookup("b", &[true], false), Lookup::Unknown(_)));
    }
}
