//! The conditions of rules: `{"match": {"op": .., "left": .., "right": ..}}`.

use super::elements::{Kind, ranges};
use super::{NamedSet, Reader};
use crate::machine::{Condition, ConnState, ElementSet, Field, Range, Step, TableFamily};
use serde_json::Value;
use std::sync::Arc;

/// What stands on the left of a condition, or is the key of a map.
pub(super) struct Left {
    pub(super) fields: Vec<Field>,
    pub(super) kinds: Vec<Kind>,
    /// The bits that count, of a key of one part.
    mask: Option<u128>,
    /// What nft tests before it can look at the fields: the version of IP, the protocol.
    pub(super) requires: Vec<Condition>,
}

impl Left {
    fn one(field: Field, kind: Kind) -> Self {
        Self { fields: vec![field], kinds: vec![kind], mask: None, requires: Vec::new() }
    }

    /// Do only some bits count?
    pub(super) fn is_masked(&self) -> bool {
        self.mask.is_some()
    }

    fn requiring(mut self, field: Field, value: u8) -> Self {
        let condition = Condition::within(field, Range::one(value));
        self.requires.push(condition);
        self
    }

    /// Of an expression; none if it is not understood.
    pub(super) fn parse(value: &Value, family: TableFamily) -> Option<Self> {
        let object = value.as_object().filter(|object| object.len() == 1)?;
        let (word, inner) = object.iter().next()?;
        let text = |name: &str| inner.get(name).and_then(Value::as_str);
        match word.as_str() {
            "payload" => Self::payload(text("protocol")?, text("field")?, family),
            "meta" => Self::meta(text("key")?),
            // With a `dir` it is about the connection's addresses, not about the packet's.
            "ct" if inner.get("dir").is_none() => match text("key")? {
                "state" => Some(Self::one(Field::State, Kind::State)),
                "direction" => Some(Self::one(Field::Direction, Kind::Direction)),
                _ => None,
            },
            "concat" => {
                let mut all = Self { fields: vec![], kinds: vec![], mask: None, requires: vec![] };
                for part in inner.as_array()? {
                    let part = Self::parse(part, family).filter(|part| part.mask.is_none())?;
                    all.fields.extend(part.fields);
                    all.kinds.extend(part.kinds);
                    all.requires.extend(part.requires);
                }
                (!all.fields.is_empty()).then_some(all)
            }
            "&" => match inner.as_array()?.as_slice() {
                [left, mask] => {
                    let left = Self::parse(left, family).filter(|left| left.mask.is_none())?;
                    let [kind] = left.kinds.as_slice() else { return None };
                    let mask = match kind {
                        Kind::State => states(mask)?,
                        _ => kind.value(mask).filter(|m| m.first == m.last)?.first,
                    };
                    Some(Self { mask: Some(mask), ..left })
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn payload(protocol: &str, field: &str, family: TableFamily) -> Option<Self> {
        let version = |left: Self, version: u8| match family {
            TableFamily::Ip | TableFamily::Ip6 => left,
            TableFamily::Inet | TableFamily::Netdev => left.requiring(Field::Version, version),
        };
        let address = match field {
            "saddr" => Some(Field::Source),
            "daddr" => Some(Field::Destination),
            _ => None,
        };
        let port = match field {
            "sport" => Some(Field::First),
            "dport" => Some(Field::Second),
            _ => None,
        };
        Some(match (protocol, address, port) {
            ("ip", Some(field), _) => version(Self::one(field, Kind::Ipv4), 4),
            ("ip6", Some(field), _) => version(Self::one(field, Kind::Ipv6), 6),
            ("ip", ..) if field == "protocol" => {
                version(Self::one(Field::Protocol, Kind::Protocol), 4)
            }
            ("th", _, Some(field)) => Self::one(field, Kind::Port),
            ("tcp", _, Some(field)) => Self::one(field, Kind::Port).requiring(Field::Protocol, 6),
            ("udp", _, Some(field)) => Self::one(field, Kind::Port).requiring(Field::Protocol, 17),
            ("sctp", _, Some(field)) => {
                Self::one(field, Kind::Port).requiring(Field::Protocol, 132)
            }
            ("udplite", _, Some(field)) => {
                Self::one(field, Kind::Port).requiring(Field::Protocol, 136)
            }
            ("dccp", _, Some(field)) => Self::one(field, Kind::Port).requiring(Field::Protocol, 33),
            ("icmp", ..) if field == "type" => {
                let left = Self::one(Field::First, Kind::IcmpType).requiring(Field::Protocol, 1);
                version(left, 4)
            }
            ("icmpv6", ..) if field == "type" => {
                let left = Self::one(Field::First, Kind::Icmpv6Type).requiring(Field::Protocol, 58);
                version(left, 6)
            }
            _ => return None,
        })
    }

    fn meta(key: &str) -> Option<Self> {
        Some(match key {
            "l4proto" => Self::one(Field::Protocol, Kind::Protocol),
            "iifname" | "iif" => Self::one(Field::InDevice, Kind::Device),
            "oifname" | "oif" => Self::one(Field::OutDevice, Kind::Device),
            "mark" => Self::one(Field::Mark, Kind::Mark),
            "nfproto" => Self::one(Field::Version, Kind::Version),
            "protocol" => Self::one(Field::Version, Kind::EtherType),
            _ => return None,
        })
    }
}

/// The bits of a state or of a list of states, however it is written.
fn states(value: &Value) -> Option<u128> {
    match value {
        Value::String(word) => ConnState::parse(word).map(ConnState::bit),
        Value::Array(list) => list.iter().try_fold(0, |bits, state| Some(bits | states(state)?)),
        Value::Object(object) => object.get("|").and_then(states),
        Value::Number(bits) => bits.as_u64().map(u128::from),
        _ => None,
    }
}

/// The states for which a comparison of bits holds.
fn states_that(test: impl Fn(u128) -> bool) -> Arc<ElementSet> {
    let bits = ConnState::ALL.into_iter().map(ConnState::bit);
    Arc::new(ElementSet::of(bits.filter(|bit| test(*bit)).map(Range::one).collect()))
}

impl Reader<'_> {
    /// The steps of a condition; none if it is not understood.
    pub(super) fn condition(
        &self,
        family: TableFamily,
        table: &str,
        value: &Value,
    ) -> Option<Vec<Step>> {
        let operator = value.get("op")?.as_str()?;
        let left = Left::parse(value.get("left")?, family)?;
        let right = value.get("right")?;
        let condition = self.test(family, table, operator, &left, right)?;
        let requires = left.requires.into_iter().map(Step::Match);
        Some(requires.chain([Step::Match(condition)]).collect())
    }

    fn test(
        &self,
        family: TableFamily,
        table: &str,
        operator: &str,
        left: &Left,
        right: &Value,
    ) -> Option<Condition> {
        let of = |set| Condition::new(left.fields.clone(), set);
        let negated = operator == "!=";
        let flip = |condition: Condition| if negated { condition.negate() } else { condition };
        // A named set.
        if let Some(name) = right.as_str().and_then(|text| text.strip_prefix('@')) {
            if !matches!(operator, "==" | "!=" | "in") {
                return None;
            }
            let key = (family, table.to_owned(), name.to_owned());
            let Some(NamedSet::Set { kinds, set }) = self.sets.get(&key) else { return None };
            if *kinds != left.kinds {
                return None;
            }
            return self.masked(left, set).map(flip);
        }
        if left.fields == [Field::State] {
            let anonymous = right.get("set").and_then(Value::as_array);
            let mask = left.mask.unwrap_or(u128::MAX);
            let set = match (anonymous, operator) {
                (Some(list), "==" | "!=" | "in") => {
                    let list: Option<Vec<u128>> = list.iter().map(states).collect();
                    let list = list?;
                    states_that(|bit| list.contains(&(bit & mask)))
                }
                (None, "in") => {
                    let wanted = states(right)?;
                    states_that(|bit| bit & mask & wanted != 0)
                }
                (None, "!") => {
                    let wanted = states(right)?;
                    states_that(|bit| bit & mask & wanted == 0)
                }
                (None, "==" | "!=") => {
                    let wanted = states(right)?;
                    states_that(|bit| bit & mask == wanted)
                }
                _ => return None,
            };
            return Some(flip(of(set)));
        }
        let anonymous = match right.get("set") {
            Some(elements) => {
                let elements = elements.as_array()?;
                let boxes: Option<Vec<_>> =
                    elements.iter().map(|element| ranges(element, &left.kinds)).collect();
                ElementSet::of_boxes(left.kinds.len(), boxes?)
            }
            None => ElementSet::of_boxes(left.kinds.len(), vec![ranges(right, &left.kinds)?]),
        };
        match (operator, left.kinds.as_slice()) {
            ("==" | "!=", _) => self.masked(left, &Arc::new(anonymous)).map(flip),
            // Only ports, marks and protocols have an order; a single value is compared.
            (
                "<" | ">" | "<=" | ">=",
                [kind @ (Kind::Port | Kind::Protocol | Kind::Mark | Kind::Ipv4 | Kind::Ipv6)],
            ) if left.mask.is_none() => {
                let [bound] = anonymous.intervals() else { return None };
                if bound.first != bound.last {
                    return None;
                }
                let (bound, last) = (bound.first, kind.last());
                let range = match operator {
                    "<" => bound.checked_sub(1).map(|last| Range { first: 0, last }),
                    "<=" => Some(Range { first: 0, last: bound }),
                    ">" => bound.checked_add(1).map(|first| Range { first, last }),
                    _ => Some(Range { first: bound, last }),
                };
                Some(of(Arc::new(ElementSet::of(range.into_iter().collect()))))
            }
            _ => None,
        }
    }

    /// A test of some bits: a prefix of an address turns the set into a larger one, bits of a mark are compared.
    fn masked(&self, left: &Left, set: &Arc<ElementSet>) -> Option<Condition> {
        let plain = Condition::new(left.fields.clone(), Arc::clone(set));
        let Some(mask) = left.mask else { return Some(plain) };
        match left.kinds.as_slice() {
            [Kind::Mark] => Some(Condition::of_mark(u32::try_from(mask).ok()?, Arc::clone(set))),
            [kind @ (Kind::Ipv4 | Kind::Ipv6)] => {
                let free = kind.last() & !mask;
                // The bits that do not count are the last ones.
                if free & free.wrapping_add(1) != 0 {
                    return None;
                }
                let widened = set.intervals().iter().filter_map(|range| {
                    let first = range.first.checked_add(free)? & mask;
                    let last = range.last & mask;
                    (first <= last).then_some(Range { first, last: last | free })
                });
                let widened = ElementSet::of(widened.collect());
                let widened = match set.name() {
                    Some(name) => widened.named(name),
                    None => widened,
                };
                Some(Condition::new(left.fields.clone(), Arc::new(widened)))
            }
            _ => None,
        }
    }
}
