//! Do classes cover what they have to, and nothing twice?

use crate::class::Tests;
use crate::defect::Defect;
use crate::format::Certificate;
use crate::list::{Interval, List, device, normal, without};
use crate::policies::{PodIndex, World};
use std::collections::{BTreeMap, HashMap};

/// Do the classes cover the domain, each value once?
pub(crate) fn covers<'l>(
    domain: &[Interval],
    classes: impl Iterator<Item = &'l [Interval]>,
) -> Result<(), String> {
    let show = |interval: &Interval| List(vec![*interval]).to_string();
    let mut all: Vec<Interval> = classes.flatten().copied().collect();
    all.sort_unstable();
    for pair in all.windows(2) {
        if let [one, next] = pair
            && next.first <= one.last
        {
            return Err(format!(
                "{} is in two classes",
                show(&Interval::new(next.first, next.last.min(one.last)))
            ));
        }
    }
    let all = normal(all);
    let extra = all
        .iter()
        .find(|one| !domain.iter().any(|part| part.first <= one.first && one.last <= part.last));
    let missing = domain.iter().flat_map(|part| without(*part, &all)).next();
    match (missing, extra) {
        (Some(missing), _) => Err(format!("{} is in no class", show(&missing))),
        (None, Some(extra)) => Err(format!("not all of {} belongs there", show(extra))),
        (None, None) => Ok(()),
    }
}

/// Do the boxes of protocol, first and second 16 bits cover all traffic, each once? They do if no two meet and together they are
/// as large as the whole.
pub(crate) fn all_traffic(tests: &Tests, boxes: &[[usize; 3]]) -> Result<(), String> {
    let mut volume = 0u128;
    for (number, one) in boxes.iter().enumerate() {
        let mut product = 1u128;
        for (side, most) in one.iter().zip([0xffu128, 0xffff, 0xffff]) {
            let list = side_list(tests, *side)?;
            if list.iter().any(|interval| interval.last > most) {
                return Err(format!("class {number} has values that cannot be"));
            }
            product *= list.iter().map(|interval| interval.last - interval.first + 1).sum::<u128>();
        }
        volume += product;
        for (earlier, other) in boxes.iter().enumerate().take(number) {
            let mut meet = true;
            for (a, b) in one.iter().zip(other) {
                let (a, b) = (side_list(tests, *a)?, side_list(tests, *b)?);
                meet &= a.iter().any(|a| b.iter().any(|b| a.meets(b)));
            }
            if meet {
                return Err(format!("classes {earlier} and {number} overlap"));
            }
        }
    }
    if volume == 1 << 40 { Ok(()) } else { Err("some traffic is in no class".to_owned()) }
}

pub(crate) fn side_list(tests: &Tests, index: usize) -> Result<&[Interval], String> {
    let class = tests.class(index).ok_or_else(|| format!("there is no list {index}"))?;
    Ok(tests.list(class))
}

/// By which devices packets come and go: classes, each a list of intervals.
pub(crate) struct Devices {
    of_pod: BTreeMap<PodIndex, Vec<Vec<Interval>>>,
    pub(crate) outside: Vec<Vec<Interval>>,
    pub(crate) assumed: usize,
}

impl Devices {
    pub(crate) fn new(
        certificate: &Certificate,
        world: &World<'_>,
        tests: &Tests,
    ) -> Result<Self, Defect> {
        let malformed = |what: &str| Defect::Malformed(what.to_owned());
        let one = |device: u128| vec![Interval::one(device)];
        let mut of_pod: BTreeMap<PodIndex, Vec<Vec<Interval>>> =
            world.given.iter().map(|(pod, device)| (*pod, vec![one(*device)])).collect();
        let mut taken: Vec<Interval> = of_pod.values().flatten().flatten().copied().collect();
        let given = normal(taken.clone());
        let mut assume = |name: &String| {
            let device = device(name).ok_or_else(|| malformed("a device that cannot be"))?;
            if given.iter().any(|known| known.contains(device)) {
                return Err(malformed("a device of a pod is said to be another's"));
            }
            taken.push(Interval::one(device));
            Ok(one(device))
        };
        let mut assumed = 0;
        let by_name: HashMap<String, PodIndex> =
            world.local_pods().map(|pod| (world.name(pod), pod)).collect();
        for (name, devices) in &certificate.inferred {
            let pod = by_name
                .get(name)
                .filter(|pod| !world.given.contains_key(pod) && !devices.is_empty());
            let pod =
                pod.ok_or_else(|| malformed("inferred devices of what is no pod without one"))?;
            assumed += devices.len();
            of_pod.insert(*pod, devices.iter().map(&mut assume).collect::<Result<_, _>>()?);
        }
        for name in &certificate.closed {
            assumed += 1;
            assume(name)?;
        }
        let lists =
            certificate.outside.iter().map(|index| side_list(tests, *index).map(<[_]>::to_vec));
        let outside = lists.collect::<Result<Vec<_>, _>>().map_err(Defect::Malformed)?;
        // A device has a name, so that it is not 0.
        let rest = without(Interval::new(1, u128::MAX), &normal(taken));
        covers(&rest, outside.iter().map(Vec::as_slice)).map_err(|what| Defect::Coverage {
            question: "the devices that are no pod's".to_owned(),
            what,
        })?;
        Ok(Self { of_pod, outside, assumed })
    }

    /// The classes of devices of a pod, or of everything else.
    pub(crate) fn of(&self, pod: Option<PodIndex>) -> &[Vec<Interval>] {
        pod.and_then(|pod| self.of_pod.get(&pod)).unwrap_or(&self.outside)
    }
}
