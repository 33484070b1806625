//! A rule that is being read: its conditions, and what it does.

use super::value;
use crate::machine::{Condition, ConnState, ElementSet, Field, NotUnderstood, Range, Rule, Step};
use std::sync::Arc;

/// A rule with more alternatives is not understood.
const MOST_ALTERNATIVES: usize = 64;

/// Steps that must all hold.
pub(super) type Steps = Vec<Step>;

/// A rule that is being read.
pub(super) struct Draft<'a> {
    place: &'a str,
    pub(super) v6: bool,
    /// What `-p` says, if it names one protocol.
    pub(super) protocol: Option<u8>,
    pub(super) comment: Vec<String>,
    /// Each of these must hold by one of its alternatives. Alternatives exclude each other.
    conditions: Vec<Vec<Steps>>,
    /// What the rule does.
    pub(super) effect: Steps,
}

impl<'a> Draft<'a> {
    pub(super) fn new(place: &'a str, v6: bool) -> Self {
        Self {
            place,
            v6,
            protocol: None,
            comment: Vec::new(),
            conditions: Vec::new(),
            effect: Vec::new(),
        }
    }

    pub(super) fn unknown(&self, what: impl Into<String>) -> NotUnderstood {
        NotUnderstood::new(self.place, what)
    }

    /// A condition that may hold or not.
    pub(super) fn unknown_match(&mut self, what: impl Into<String>) {
        let what = self.unknown(what);
        self.conditions.push(vec![vec![Step::UnknownMatch(what)]]);
    }

    pub(super) fn free(&mut self, what: impl Into<String>) {
        self.conditions.push(vec![vec![Step::Free(what.into())]]);
    }

    pub(super) fn opaque(&mut self, what: impl Into<String>) {
        self.effect.push(Step::Opaque(self.unknown(what)));
    }

    /// One of these must hold; they exclude each other.
    pub(super) fn one_of(&mut self, alternatives: Vec<Steps>) {
        self.conditions.push(alternatives);
    }

    pub(super) fn all(&mut self, conditions: impl IntoIterator<Item = Condition>) {
        self.conditions.extend(conditions.into_iter().map(|c| vec![vec![Step::Match(c)]]));
    }

    /// A field is in these intervals, or is not.
    pub(super) fn within(&mut self, field: Field, ranges: Vec<Range>, negated: bool) {
        self.all([within(field, ranges, negated)]);
    }

    /// One of these conditions holds, or none does.
    pub(super) fn any(&mut self, conditions: &[Condition], negated: bool) {
        if negated {
            return self.all(conditions.iter().cloned().map(Condition::negate));
        }
        let alternatives = conditions.iter().enumerate().map(|(at, condition)| {
            let before = conditions.iter().take(at).cloned().map(Condition::negate);
            before.chain([condition.clone()]).map(Step::Match).collect()
        });
        let alternatives = alternatives.collect();
        self.one_of(alternatives);
    }

    /// The rules of the machine.
    pub(super) fn rules(self, number: &str) -> Vec<Rule> {
        let comment = (!self.comment.is_empty()).then(|| self.comment.join(" "));
        let rule = |steps: Steps| {
            let mut rule = Rule::at(number);
            rule.comment.clone_from(&comment);
            rule.steps = steps;
            rule
        };
        let count = self.conditions.iter().try_fold(1usize, |count, alternatives| {
            count.checked_mul(alternatives.len()).filter(|count| *count <= MOST_ALTERNATIVES)
        });
        if count.is_none() {
            let what = "a rule with too many alternatives";
            let unknown = Step::UnknownMatch(NotUnderstood::new(self.place, what));
            return vec![rule(std::iter::once(unknown).chain(self.effect).collect())];
        }
        let mut all: Vec<Steps> = vec![Vec::new()];
        for alternatives in &self.conditions {
            all = all
                .iter()
                .flat_map(|so_far| {
                    alternatives.iter().map(|more| [so_far.as_slice(), more.as_slice()].concat())
                })
                .collect();
        }
        // What is certain comes first, and what may hold or not is of no matter where nothing follows from it.
        let acts = !self.effect.is_empty();
        let is_certain = |step: &Step| matches!(step, Step::Match(_));
        all.into_iter()
            .map(|mut steps| {
                steps.sort_by_key(|step| !is_certain(step));
                steps.retain(|step| acts || is_certain(step));
                steps.extend(self.effect.iter().cloned());
                rule(steps)
            })
            .collect()
    }
}

/// A field is in these intervals, or is not.
pub(super) fn within(field: Field, ranges: Vec<Range>, negated: bool) -> Condition {
    let condition = Condition::new(vec![field], Arc::new(ElementSet::of(ranges)));
    if negated { condition.negate() } else { condition }
}

/// The connection is in one of these states.
fn in_states(states: &[ConnState]) -> Condition {
    let ranges = states.iter().map(|state| Range::one(state.bit())).collect();
    within(Field::State, ranges, false)
}

/// What `-m conntrack` asks (xt_conntrack, `conntrack_mt`).
#[derive(Debug, Default)]
pub(super) struct Tracking {
    /// The states, and whether it must be none of them.
    pub(super) states: Option<(Vec<ConnState>, bool)>,
    /// Is one of them `SNAT` or `DNAT`, which are not modeled?
    pub(super) translated: bool,
    /// The direction.
    pub(super) reply: Option<bool>,
    /// Is there anything else, that is not understood?
    pub(super) other: bool,
}

impl Tracking {
    /// Adds the condition. A packet of no connection fulfils everything but the state, if there is a state to fulfil.
    pub(super) fn add_to(self, draft: &mut Draft<'_>, text: &str) {
        let is_tracked =
            |state: &ConnState| !matches!(state, ConnState::Invalid | ConnState::Untracked);
        let (mut certain, mut maybe) = (Vec::new(), Vec::new());
        for state in ConnState::ALL {
            let Some((states, negated)) = &self.states else {
                certain.extend(is_tracked(&state).then_some(state));
                continue;
            };
            match (states.contains(&state), self.translated && is_tracked(&state)) {
                (false, true) => maybe.push(state),
                (inside, _) => certain.extend((inside != *negated).then_some(state)),
            }
        }
        let unknown = || Step::UnknownMatch(draft.unknown(text));
        let direction = self
            .reply
            .map(|reply| within(Field::Direction, vec![Range::one(u8::from(reply))], false));
        let (tracked, untracked): (Vec<ConnState>, Vec<ConnState>) =
            certain.iter().copied().partition(is_tracked);
        let mut alternatives: Vec<Steps> = Vec::new();
        if direction.is_none() && !self.other {
            alternatives.push(vec![Step::Match(in_states(&certain))]);
        } else {
            if !untracked.is_empty() {
                alternatives.push(vec![Step::Match(in_states(&untracked))]);
            }
            let steps = std::iter::once(in_states(&tracked)).chain(direction.clone());
            let steps = steps.map(Step::Match).chain(self.other.then(unknown));
            alternatives.push(steps.collect());
        }
        if !maybe.is_empty() {
            let steps = std::iter::once(in_states(&maybe)).chain(direction);
            alternatives.push(steps.map(Step::Match).chain([unknown()]).collect());
        }
        draft.one_of(alternatives);
    }
}

/// `--sport`, `--dport` of TCP and the like: one interval.
pub(super) fn port(field: Field, text: &str, negated: bool) -> Option<Condition> {
    Some(within(field, vec![value::ports(text, ':')?], negated))
}

/// `80,100:200` of multiport.
pub(super) fn ports(text: &str) -> Option<Vec<Range>> {
    text.split(',').map(|one| value::ports(one, ':')).collect()
}
