//! The model as the objects of the `nftables` crate, which are those of libnftables-json(5): for `nft -j -f -`, and for
//! embedders who already speak that crate.
//!
//! What crate 0.6.3 cannot say is said otherwise, with the same verdicts:
//!
//! * it has no map from a key to a verdict; a dispatch map is written into the rule that uses it, as an anonymous `vmap`.
//!   A change of dispatch is therefore a change of a rule: these objects are for loading a ruleset as a whole, and
//!   [`Nftables`](crate::Nftables) does not use them;
//! * it has no comments on tables and chains, and neither do we need them; nft 1.0.6 ignores those of sets in JSON;
//! * a set cannot count by member, so what is denied is counted by rule but not by pod;
//! * it has no `auto-merge`; the compiler merges networks itself (F57).

use crate::model::{
    Action, Element, Field, Hook, HookPoint, IpVersion, KeyType, Match, Model, Name, Rule, Set,
    Table, TableFamily, Test, Value,
};
use crate::text::protocol_word;
use nftables::expr::{
    CT, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix, Range, SetItem,
    Verdict,
};
use nftables::schema::{
    Chain as NfChain, NfCmd, NfListObject, NfObject, Nftables, Rule as NfRule, Set as NfSet,
    SetFlag, SetType, SetTypeValue, Table as NfTable,
};
use nftables::stmt::{
    AnonymousCounter, Counter, Drop, JumpTarget, Limit, Log, Match as NfMatch, Operator, Reject,
    RejectType, Return, Statement, VerdictMap,
};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook, RejectCode};
use std::collections::HashSet;
use std::net::IpAddr;

/// The whole ruleset. Loading it replaces the tables of this name in one transaction, as [`script`](crate::script()) does.
#[must_use]
pub fn objects(model: &Model) -> Nftables<'static> {
    let mut objects = Vec::new();
    for family in TableFamily::ALL {
        if model.tables.contains_key(&family) || family != TableFamily::Netdev {
            let table = NfTable {
                family: nf_family(family),
                name: model.name.as_str().to_owned().into(),
                handle: None,
            };
            objects.push(NfCmd::Add(NfListObject::Table(table.clone())));
            objects.push(NfCmd::Delete(NfListObject::Table(table.clone())));
            if model.tables.contains_key(&family) {
                objects.push(NfCmd::Add(NfListObject::Table(table)));
            }
        }
    }
    for (&family, table) in &model.tables {
        let encoder = Encoder { family, name: &model.name, table };
        encoder.objects(&mut objects);
    }
    Nftables { objects: objects.into_iter().map(NfObject::CmdObject).collect() }
}

struct Encoder<'a> {
    family: TableFamily,
    name: &'a Name,
    table: &'a Table,
}

impl Encoder<'_> {
    fn objects(&self, objects: &mut Vec<NfCmd<'static>>) {
        let mut add = |object| objects.push(NfCmd::Add(object));
        for (name, set) in &self.table.sets {
            add(NfListObject::Set(Box::new(self.set(name, set))));
        }
        for (name, chain) in &self.table.chains {
            add(NfListObject::Chain(self.chain(name, chain.hook.as_ref())));
        }
        for (name, chain) in &self.table.chains {
            for rule in &chain.rules {
                let rule = self.rule(name, rule);
                // Nothing is left of a dispatch through a map without a key.
                if !rule.expr.is_empty() {
                    add(NfListObject::Rule(rule));
                }
            }
        }
    }

    fn set(&self, name: &Name, set: &Set) -> NfSet<'static> {
        let types: Vec<SetType> = set.key.iter().map(|key| set_type(*key)).collect();
        let set_type = match types.as_slice() {
            [one] => SetTypeValue::Single(*one),
            _ => SetTypeValue::Concatenated(types.into()),
        };
        let elements: Vec<_> = set.elements.iter().map(concat).collect();
        NfSet {
            family: nf_family(self.family),
            table: self.name.as_str().to_owned().into(),
            name: name.as_str().to_owned().into(),
            set_type,
            // One flag at most: the order of a hash set would be a different one each time.
            flags: set.interval.then(|| HashSet::from([SetFlag::Interval])),
            elem: (!elements.is_empty()).then(|| elements.into()),
            comment: (!set.comment.is_empty()).then(|| set.comment.as_str().to_owned().into()),
            ..NfSet::default()
        }
    }

    fn chain(&self, name: &Name, hook: Option<&Hook>) -> NfChain<'static> {
        NfChain {
            family: nf_family(self.family),
            table: self.name.as_str().to_owned().into(),
            name: name.as_str().to_owned().into(),
            _type: hook.map(|_| NfChainType::Filter),
            hook: hook.map(|hook| nf_hook(hook.point)),
            prio: hook.map(|hook| hook.priority),
            dev: hook.and_then(|hook| Some(hook.device.as_ref()?.as_str().to_owned().into())),
            policy: hook.map(|_| NfChainPolicy::Accept),
            ..NfChain::default()
        }
    }

    fn rule(&self, chain: &Name, rule: &Rule) -> NfRule<'static> {
        let matches = rule.matches.iter().map(condition);
        let actions = rule.actions.iter().filter_map(|action| self.action(action));
        NfRule {
            family: nf_family(self.family),
            table: self.name.as_str().to_owned().into(),
            chain: chain.as_str().to_owned().into(),
            expr: matches.chain(actions).collect(),
            comment: (!rule.comment.is_empty()).then(|| rule.comment.as_str().to_owned().into()),
            ..NfRule::default()
        }
    }

    fn action(&self, action: &Action) -> Option<Statement<'static>> {
        let target = |chain: &Name| JumpTarget { target: chain.as_str().to_owned().into() };
        Some(match action {
            Action::Counter => {
                let zero = AnonymousCounter { packets: None, bytes: None };
                Statement::Counter(Counter::Anonymous(Some(zero)))
            }
            Action::Limit { per_second, burst } => Statement::Limit(Limit {
                rate: *per_second,
                rate_unit: None,
                per: Some("second".into()),
                burst: Some(*burst),
                burst_unit: None,
                inv: None,
            }),
            Action::Log { group, prefix } => {
                let mut log = Log::new(Some(u32::from(*group)));
                log.prefix = Some(prefix.as_str().to_owned().into());
                Statement::Log(Some(log))
            }
            Action::Accept => Statement::Accept(None),
            Action::Drop => Statement::Drop(Some(Drop {})),
            Action::Return => Statement::Return(Some(Return {})),
            Action::Goto(chain) => Statement::Goto(target(chain)),
            Action::Jump(chain) => Statement::Jump(target(chain)),
            // An empty anonymous map is no syntax.
            Action::Dispatch(field, map) => {
                let map = self.table.maps.get(map).filter(|map| !map.elements.is_empty())?;
                let items = map.elements.iter().map(|(element, chain)| {
                    let goto = Verdict::Goto(target(chain));
                    SetItem::Mapping(concat(element), Expression::Verdict(goto))
                });
                Statement::VerdictMap(VerdictMap {
                    key: nf_field(*field),
                    data: Expression::Named(NamedExpression::Set(items.collect())),
                })
            }
            Action::RejectWithReset => {
                Statement::Reject(Some(Reject::new(Some(RejectType::TCPReset), None)))
            }
            Action::RejectAsProhibited(version) => {
                let kind = match version {
                    IpVersion::V4 => RejectType::ICMP,
                    IpVersion::V6 => RejectType::ICMPv6,
                };
                let code = RejectCode::AdminProhibited;
                Statement::Reject(Some(Reject::new(Some(kind), Some(code))))
            }
        })
    }
}

fn condition(condition: &Match) -> Statement<'static> {
    let fields: Vec<_> = condition.fields.iter().map(|field| nf_field(*field)).collect();
    let one = <[Expression<'static>; 1]>::try_from(fields);
    let left = match one {
        Ok([one]) => one,
        Err(fields) => Expression::Named(NamedExpression::Concat(fields)),
    };
    let left = match condition.mask {
        Some(mask) => Expression::BinaryOperation(Box::new(nftables::expr::BinaryOperation::AND(
            left,
            Expression::String(mask.to_string().into()),
        ))),
        None => left,
    };
    let set = |elements: &[Element]| {
        let items = elements.iter().map(|element| SetItem::Element(concat(element)));
        Expression::Named(NamedExpression::Set(items.collect()))
    };
    let (op, right) = match &condition.test {
        Test::Is(value @ Value::State(_)) => (Operator::IN, nf_value(value)),
        Test::Is(value) => (Operator::EQ, nf_value(value)),
        // A state is a bit mask: one test of several bits.
        Test::OneOf(states) if condition.fields == [Field::State] => {
            (Operator::IN, Expression::List(states.iter().map(concat).collect()))
        }
        Test::OneOf(elements) => (Operator::EQ, set(elements)),
        Test::NoneOf(elements) => (Operator::NEQ, set(elements)),
        Test::In(name) => (Operator::EQ, Expression::String(format!("@{name}").into())),
    };
    Statement::Match(NfMatch { left, right, op })
}

fn concat(element: &Element) -> Expression<'static> {
    let values: Vec<_> = element.iter().map(nf_value).collect();
    match <[Expression<'static>; 1]>::try_from(values) {
        Ok([one]) => one,
        Err(values) => Expression::Named(NamedExpression::Concat(values)),
    }
}

fn nf_value(value: &Value) -> Expression<'static> {
    let number = |number: u32| Expression::Number(number);
    let range = |first, last| Expression::Range(Box::new(Range { range: [first, last] }));
    let address = |address: &IpAddr| Expression::String(address.to_string().into());
    match value {
        Value::Address(one) => address(one),
        Value::Network(net) => Expression::Named(NamedExpression::Prefix(Prefix {
            addr: Box::new(address(&net.network())),
            len: u32::from(net.prefix_len()),
        })),
        Value::Addresses(first, last) => range(address(first), address(last)),
        Value::Protocol(protocol) => Expression::String(protocol_word(*protocol).into()),
        Value::Ports(first, last) if first == last => number(u32::from(*first)),
        Value::Ports(first, last) => range(number(u32::from(*first)), number(u32::from(*last))),
        Value::Icmpv6Types(first, last) if first == last => number(u32::from(*first)),
        Value::Icmpv6Types(first, last) => {
            range(number(u32::from(*first)), number(u32::from(*last)))
        }
        Value::Device(device) => Expression::String(device.as_str().to_owned().into()),
        Value::State(state) => Expression::String(state.as_str().into()),
        Value::Reply => Expression::String("reply".into()),
    }
}

fn nf_field(field: Field) -> Expression<'static> {
    let payload = |protocol: &'static str, field: &'static str| {
        let field = PayloadField { protocol: protocol.into(), field: field.into() };
        NamedExpression::Payload(Payload::PayloadField(field))
    };
    let ct =
        |key: &'static str| NamedExpression::CT(CT { key: key.into(), family: None, dir: None });
    Expression::Named(match field {
        Field::Source(IpVersion::V4) => payload("ip", "saddr"),
        Field::Source(IpVersion::V6) => payload("ip6", "saddr"),
        Field::Destination(IpVersion::V4) => payload("ip", "daddr"),
        Field::Destination(IpVersion::V6) => payload("ip6", "daddr"),
        Field::Protocol => NamedExpression::Meta(Meta { key: MetaKey::L4proto }),
        Field::Port(protocol) => payload(protocol_word(protocol), "dport"),
        Field::AnyPort => payload("th", "dport"),
        Field::Icmpv6Type => payload("icmpv6", "type"),
        Field::InDevice => NamedExpression::Meta(Meta { key: MetaKey::Iifname }),
        Field::OutDevice => NamedExpression::Meta(Meta { key: MetaKey::Oifname }),
        Field::State => ct("state"),
        Field::Direction => ct("direction"),
    })
}

fn set_type(key: KeyType) -> SetType {
    match key {
        KeyType::Ipv4 => SetType::Ipv4Addr,
        KeyType::Ipv6 => SetType::Ipv6Addr,
        KeyType::Service => SetType::InetService,
        KeyType::Device => SetType::Ifname,
    }
}

fn nf_family(family: TableFamily) -> NfFamily {
    match family {
        TableFamily::Ip => NfFamily::IP,
        TableFamily::Ip6 => NfFamily::IP6,
        TableFamily::Netdev => NfFamily::NetDev,
    }
}

fn nf_hook(point: HookPoint) -> NfHook {
    match point {
        HookPoint::Ingress => NfHook::Ingress,
        HookPoint::Prerouting => NfHook::Prerouting,
        HookPoint::Input => NfHook::Input,
        HookPoint::Forward => NfHook::Forward,
        HookPoint::Output => NfHook::Output,
    }
}
