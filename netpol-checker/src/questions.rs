//! Completeness: the questions that a cluster asks for, and those that a certificate has.

use crate::check::Checker;
use crate::coverage::side_list;
use crate::defect::Defect;
use crate::format::{Question, Way};
use crate::list::{Interval, List};
use crate::policies::PodIndex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// By what a question is known.
type Known = (Ends, Option<Vec<Interval>>);

/// The way, the family, whether all rules are asked together, the address and the pod.
type Ends = (Way, bool, bool, Option<IpAddr>, Option<String>);

/// A question that has to be answered, and who is at its fixed end: the pod, and its address if one is fixed.
pub(crate) struct Asked {
    pub(crate) way: Way,
    pub(crate) v6: bool,
    pub(crate) together: bool,
    pub(crate) pod: Option<PodIndex>,
    pub(crate) fixed: Option<u128>,
}

impl<'c> Checker<'c> {
    /// All questions that must be there, and no others.
    pub(crate) fn everything(&mut self) -> Result<(), Defect> {
        let mut asked: Vec<(Asked, Known)> = Vec::new();
        let ask = |asked: &mut Vec<_>, one: Asked, device: Option<&Vec<Interval>>, pod| {
            let fixed = one.fixed.map(|address| written(address, one.v6));
            let ends = (one.way, one.v6, one.together, fixed, pod);
            asked.push((one, (ends, device.cloned())));
        };
        let ways = [Way::ToPod, Way::FromPod, Way::ToNode, Way::FromNode];
        for v6 in [false, true] {
            for (address, owner) in
                self.world.owners(v6).iter().filter(|(_, pod)| self.world.is_local(**pod))
            {
                self.checked.addresses += 1;
                for (way, &together) in ways
                    .into_iter()
                    .flat_map(|way| self.together(way).iter().map(move |t| (way, t)))
                {
                    for device in self.devices.of(Some(*owner)) {
                        let (pod, fixed) = (Some(*owner), Some(*address));
                        let one = Asked { way, v6, together, pod, fixed };
                        ask(&mut asked, one, Some(device), Some(self.world.name(*owner)));
                    }
                }
            }
            for device in &self.devices.outside {
                let past = Asked { way: Way::Past, v6, together: false, pod: None, fixed: None };
                ask(&mut asked, past, Some(device), None);
            }
            for pod in self.world.given.keys().filter(|_| self.guarded) {
                for &together in self.together(Way::Guard) {
                    let pod = Some(*pod);
                    let one = Asked { way: Way::Guard, v6, together, pod, fixed: None };
                    ask(&mut asked, one, None, pod.map(|pod| self.world.name(pod)));
                }
            }
        }
        self.checked.guarded = if self.guarded { self.world.given.len() } else { 0 };
        self.checked.assumed = self.devices.assumed;
        let mut answers: HashMap<Known, &'c Question> = HashMap::new();
        for question in &self.certificate.questions {
            let device =
                question.device.map(|index| side_list(&self.tests, index).map(<[_]>::to_vec));
            let device = device.transpose().map_err(Defect::Malformed)?;
            if let Some(twice) = answers.insert((ends(question), device), question) {
                return Err(Defect::Superfluous(format!("{}, a second time", name(twice))));
            }
        }
        for (asked, known) in asked {
            let question = answers.remove(&known).ok_or_else(|| {
                let (ends, device) = &known;
                let device = device.as_ref().map(|device| format!(", by {}", List(device.clone())));
                Defect::Missing(format!("{}{}", in_words(ends), device.unwrap_or_default()))
            })?;
            self.question(&asked, question)?;
        }
        match answers.values().next() {
            Some(question) => Err(Defect::Superfluous(name(question))),
            None => self.refuted.take().map_or(Ok(()), Err),
        }
    }

    /// Is there a question to netpol's own rules, or all of them, and one to all of them together in which these may drop more?
    fn together(&self, way: Way) -> &'static [bool] {
        match way {
            Way::ToNode | Way::FromNode if self.shared => &[false, true],
            Way::ToPod | Way::FromPod | Way::Guard if self.others_may_drop => &[false, true],
            _ => &[false],
        }
    }
}

fn written(address: u128, v6: bool) -> IpAddr {
    match u32::try_from(address) {
        Ok(address) if !v6 => Ipv4Addr::from_bits(address).into(),
        _ => Ipv6Addr::from_bits(address).into(),
    }
}

/// By what a question is known, but for the device.
fn ends(question: &Question) -> Ends {
    let Question { way, v6, together, fixed, .. } = *question;
    (way, v6, together, fixed, question.pod.clone())
}

/// A question, for people.
pub(crate) fn name(question: &Question) -> String {
    in_words(&ends(question))
}

fn in_words((way, v6, together, fixed, pod): &Ends) -> String {
    let family = if *v6 { "IPv6" } else { "IPv4" };
    let pod = pod.as_deref().unwrap_or("no pod");
    let fixed = fixed.map(|address| format!(" at {address}")).unwrap_or_default();
    let together = if *together { ", by all rules together" } else { "" };
    format!("{way:?} of {pod}{fixed}, {family}{together}")
}
