//! What the kernel refuses is taken out, and the pods that it is for are closed.

use crate::command::Command;
use crate::error::Error;
use crate::layout::{Defect, MARKER, chain_name};
use crate::model::{
    Action, Chain, Field, Match, Model, Name, Rule, Table, TableFamily, Test, Value,
};
use netpol_host::Comment;
use std::collections::BTreeSet;

/// Has the kernel no netdev family, or no ingress hook?
pub(crate) fn lacks_netdev(message: &str, command: Option<&Command>) -> bool {
    command.is_some_and(|command| command.family() == TableFamily::Netdev)
        && message.contains("not supported")
}

/// The policies that a command is about.
pub(crate) fn policies(model: &Model, command: Option<&Command>) -> String {
    let Some(command) = command else { return String::new() };
    let (Some(table), Some(name)) = (model.tables.get(&command.family()), command.name()) else {
        return String::new();
    };
    if let Command::AddRule(_, _, rule) = command
        && !rule.comment.is_empty()
    {
        return rule.comment.to_string();
    }
    match table.chains.get(name) {
        Some(chain) => chain.title.to_string(),
        None => table.sets.get(name).map(|set| set.comment.to_string()).unwrap_or_default(),
    }
}

/// Takes out of the model what the kernel refused: the device of a source guard, or a program, whose pods are closed. None
/// if it is neither.
pub(crate) fn give_up(model: &mut Model, command: &Command, error: &Error) -> Option<Defect> {
    let (family, name) = (command.family(), command.name()?.clone());
    let policies = policies(model, Some(command));
    let table = model.tables.get_mut(&family)?;
    if family == TableFamily::Netdev {
        let device = table.chains.get(&name)?.hook.as_ref()?.device.clone()?;
        table.chains.remove(&name);
        return Some(Defect::MissingDevice { device: device.as_str().to_owned() });
    }
    // Everything that leads to it.
    let mut refused = BTreeSet::from([name.clone()]);
    loop {
        let leads = |chain: &Chain| chain.rules.iter().any(|rule| mentions(rule, &refused));
        let more: Vec<Name> = table
            .chains
            .iter()
            .filter(|(name, chain)| !refused.contains(*name) && leads(chain))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            break;
        }
        refused.extend(more);
    }
    let is_base = |name: &Name| table.chains.get(name).is_some_and(|chain| chain.hook.is_some());
    if refused.iter().any(is_base) || name.as_str() == MARKER {
        return None;
    }
    let closed = close(table, family);
    for map in table.maps.values_mut() {
        for chain in map.elements.values_mut().filter(|chain| refused.contains(*chain)) {
            *chain = closed.clone();
        }
    }
    table.chains.retain(|name, _| !refused.contains(name));
    table.sets.remove(&name);
    let message = error.to_string();
    Some(Defect::Refused { chain: name.to_string(), policies, message })
}

fn mentions(rule: &Rule, names: &BTreeSet<Name>) -> bool {
    let test = |condition: &Match| matches!(&condition.test, Test::In(set) if names.contains(set));
    let action = |action: &Action| match action {
        Action::Goto(chain) | Action::Jump(chain) => names.contains(chain),
        _ => false,
    };
    rule.matches.iter().any(test) || rule.actions.iter().any(action)
}

/// A chain that denies everything but neighbor discovery.
fn close(table: &mut Table, family: TableFamily) -> Name {
    let mut rules = Vec::new();
    if family == TableFamily::Ip6 {
        let test = Test::Is(Value::Icmpv6Types(133, 137));
        rules.push(Rule {
            matches: vec![Match { fields: vec![Field::Icmpv6Type], mask: None, test }],
            actions: vec![Action::Return],
            comment: Comment::new("neighbor discovery"),
        });
    }
    let comment = Comment::new("closed: the kernel refused the rules");
    let actions = vec![Action::Counter, Action::Drop];
    rules.push(Rule { actions, comment: comment.clone(), ..Rule::default() });
    let name = chain_name("closed", None, &rules);
    table.chains.insert(name.clone(), Chain { hook: None, rules, title: comment });
    name
}
