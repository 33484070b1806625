//! What conditions and maps say of lanes, and what of it is the same in many runs.

use super::lanes::Group;
use super::mask::Mask;
use super::runner::{Runner, Split, Values};
use crate::machine::{Condition, ConnState, Field, Stage, Step, Verdict};
use std::rc::Rc;

impl Runner<'_> {
    pub(super) fn is_lane_field(&self, field: Field) -> bool {
        field == self.lanes.address || field == self.lanes.device
    }

    /// Is it the same of all lanes, in every run with this protocol?
    pub(super) fn is_decided(&self, field: Field) -> bool {
        field == Field::Protocol || self.is_constant(field) && !self.is_lane_field(field)
    }

    /// Is it the same in every run?
    pub(super) fn is_constant(&self, field: Field) -> bool {
        self.is_lane_field(field)
            || matches!(
                field,
                Field::Version
                    | Field::Source
                    | Field::Destination
                    | Field::InDevice
                    | Field::OutDevice
            )
    }

    pub(super) fn value(
        &self,
        field: Field,
        lane: usize,
        mark: u32,
        stage: &Stage,
    ) -> Option<u128> {
        Some(match field {
            Field::InDevice if !stage.knows_in_device => 0,
            Field::OutDevice if !stage.knows_out_device => 0,
            Field::InDevice | Field::OutDevice => self.device(field, lane).unwrap_or(0),
            Field::Source | Field::Destination if field == self.lanes.address => {
                self.lanes.lanes.get(lane)?.address
            }
            Field::State if stage.before_conntrack => ConnState::Invalid.bit(),
            Field::Direction
                if stage.before_conntrack
                    || matches!(self.packet.state, ConnState::Invalid | ConnState::Untracked) =>
            {
                return None;
            }
            Field::Mark => mark.into(),
            field => self.packet.value(field)?,
        })
    }

    pub(super) fn values(
        &self,
        key: &[Field],
        lane: usize,
        mark: u32,
        stage: &Stage,
    ) -> Option<Values> {
        key.iter().map(|field| self.value(*field, lane, mark, stage)).collect()
    }

    pub(super) fn holds(
        &self,
        condition: &Condition,
        lane: usize,
        mark: u32,
        stage: &Stage,
    ) -> bool {
        if let [field] = condition.key.as_slice() {
            return self.value(*field, lane, mark, stage).is_some_and(|v| condition.holds(&[v]));
        }
        self.values(&condition.key, lane, mark, stage).is_some_and(|v| condition.holds(&v))
    }

    /// What a condition says, if it says the same of all lanes.
    pub(super) fn test_all(&self, condition: &Condition, mark: u32, stage: &Stage) -> Option<bool> {
        let differs = condition.key.iter().any(|field| self.is_lane_field(*field));
        (!differs).then(|| self.holds(condition, 0, mark, stage))
    }

    /// The lanes of a group for which a condition holds.
    pub(super) fn test(
        &mut self,
        condition: &Condition,
        group: &Group,
        mark: u32,
        stage: &Stage,
    ) -> Mask {
        if condition.key.iter().all(|field| self.is_constant(*field)) {
            let key = (
                std::ptr::from_ref(condition).addr(),
                stage.knows_in_device,
                stage.knows_out_device,
            );
            if let Some((asked, met)) = self.conditions.get(&key)
                && group.mask.is_within(asked)
            {
                return group.mask.and(met);
            }
            let count = self.lanes.lanes.len();
            let none = || (Mask::none(count), Mask::none(count));
            let (mut asked, mut met) = self.conditions.remove(&key).unwrap_or_else(none);
            for lane in group.mask.without(&asked).iter() {
                if self.holds(condition, lane, mark, stage) {
                    met.set(lane);
                }
            }
            asked.add(&group.mask);
            let here = group.mask.and(&met);
            self.conditions.insert(key, (asked, met));
            return here;
        }
        let mut met = Mask::none(self.lanes.lanes.len());
        if self.is_for_other_traffic(condition, mark, stage) {
            return met;
        }
        for lane in group.mask.iter() {
            if self.holds(condition, lane, mark, stage) {
                met.set(lane);
            }
        }
        met
    }

    /// Does what all lanes have in common keep a condition from holding, whatever their addresses are?
    pub(super) fn is_for_other_traffic(
        &self,
        condition: &Condition,
        mark: u32,
        stage: &Stage,
    ) -> bool {
        let others = condition.key.iter().enumerate();
        let mut others = others.filter(|(_, field)| !self.is_lane_field(**field));
        let is_plain = !condition.negated && condition.mask().is_none();
        is_plain
            && others.any(|(part, field)| {
                let value = self.value(*field, 0, mark, stage);
                value.is_none_or(|value| !condition.set.has_in_part(part, value))
            })
    }

    /// The lanes of a group by the verdict of a map; those without one are in none.
    pub(super) fn split(&mut self, step: &Step, group: &Group, mark: u32, stage: &Stage) -> Split {
        let Step::Dispatch { key, map } = step else { return Split::default() };
        let at = std::ptr::from_ref(step).addr();
        let at = (at, stage.knows_in_device, stage.knows_out_device);
        let constant = key.iter().all(|field| self.is_constant(*field));
        if constant && let Some(split) = self.dispatches.get(&at) {
            return Rc::clone(split);
        }
        let count = self.lanes.lanes.len();
        let everything = Mask::all(count);
        let asked = if constant { &everything } else { &group.mask };
        let mut split: Vec<(Verdict, Mask)> = Vec::new();
        for lane in asked.iter() {
            let values = self.values(key, lane, mark, stage);
            let Some(verdict) = values.and_then(|v| map.value(&v).copied()) else { continue };
            match split.iter_mut().find(|(other, _)| *other == verdict) {
                Some((_, mask)) => mask.set(lane),
                None => {
                    let mut mask = Mask::none(count);
                    mask.set(lane);
                    split.push((verdict, mask));
                }
            }
        }
        let split = Rc::new(split);
        if constant {
            self.dispatches.insert(at, Rc::clone(&split));
        }
        split
    }
}
