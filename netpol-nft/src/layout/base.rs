//! Where packets come in.

use super::dispatch::Traffic;
use super::{Builder, condition};
use crate::model::{Action, Field, Hook, HookPoint, Rule, State, Test, Value};
use netpol_core::{Direction, Established, OwnNodeEgress};
use netpol_host::Comment;

impl Builder<'_> {
    pub(super) fn base_chains(&mut self) {
        let hook = |point| {
            let priority = self.options.priority();
            Some(Hook { point, priority, device: None })
        };
        let (forward, input, output) =
            (hook(HookPoint::Forward), hook(HookPoint::Input), hook(HookPoint::Output));
        let egress = self.lookups(Traffic::Through, Direction::Egress);
        let egress = self.add_chain("egress", None, egress, "egress of local pods");
        let established = self.established();
        let with = |rules: Vec<Rule>| established.iter().cloned().chain(rules).collect();
        let mut rules = vec![Rule { actions: vec![Action::Jump(egress)], ..Rule::default() }];
        rules.extend(self.lookups(Traffic::Through, Direction::Ingress));
        self.add_chain(
            "forward",
            forward,
            with(rules),
            "between pods, and between pods and the world",
        );
        let policed = match self.options.host().policy().own_node_egress() {
            OwnNodeEgress::Police => Some(Traffic::Through),
            OwnNodeEgress::Allow => Some(Traffic::OwnNode)
                .filter(|traffic| self.dispatches(*traffic, Direction::Egress)),
        };
        if let Some(traffic) = policed {
            let rules = with(self.lookups(traffic, Direction::Egress));
            self.add_chain("input", input, rules, "from pods to this node");
        }
        if self.dispatches(Traffic::OwnNode, Direction::Ingress) {
            let rules = with(self.lookups(Traffic::OwnNode, Direction::Ingress));
            self.add_chain("output", output, rules, "from this node to pods");
        }
    }

    /// What passes before any policy: packets of connections that were let through (NP-60, NP-62).
    fn established(&self) -> Vec<Rule> {
        let state = |states: &[State]| {
            let states = states.iter().map(|&state| vec![Value::State(state)]).collect();
            condition(Field::State, Test::OneOf(states))
        };
        let accept = |matches, comment: &str| Rule {
            matches,
            actions: vec![Action::Accept],
            comment: Comment::new(comment),
        };
        match self.options.host().policy().established() {
            Established::Keep => vec![accept(
                vec![state(&[State::Established, State::Related])],
                "what belongs to a connection that was let through",
            )],
            Established::ReEvaluate => vec![
                accept(vec![state(&[State::Related])], "what belongs to a connection"),
                // The other direction is judged again by each packet (reliability.md L3, case e).
                accept(
                    vec![
                        state(&[State::Established]),
                        condition(Field::Direction, Test::Is(Value::Reply)),
                    ],
                    "replies",
                ),
            ],
        }
    }
}
