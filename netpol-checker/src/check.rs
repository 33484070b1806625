//! What a certificate is checked against, and the check.

use crate::class::Tests;
use crate::coverage::{Devices, all_traffic};
use crate::defect::Defect;
use crate::format::{Certificate, Choices, FORMAT, VERSION};
use crate::list::device;
use crate::own::are_own;
use crate::policies::World;
use crate::rules::Rules;
use netpol_core::{Cluster, NodeName, Options, PodId};
use std::collections::BTreeMap;

/// What a certificate is checked against: nothing of this comes from the certificate.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "all that has to be said")]
pub struct Setting<'a> {
    /// Pods, namespaces, nodes and policies.
    pub cluster: &'a Cluster,
    /// Whose pods; none: all.
    pub node: Option<&'a NodeName>,
    /// The choices that Kubernetes leaves open.
    pub options: Options,
    /// The devices of pods; each known one is to be guarded.
    pub interfaces: &'a BTreeMap<PodId, String>,
    /// The name of netpol's own tables of nft. By its own rules alone the node's own traffic is judged; without a name here and below, by
    /// all.
    pub own_table: Option<&'a str>,
    /// What the names of netpol's own chains of iptables begin with, before a `-`.
    pub own_chains: Option<&'a str>,
    /// Are source addresses taken as honest although interfaces are given? Then no guard is asked for.
    pub unguarded: bool,
    /// May rules that are not netpol's own drop more than policies do? Then netpol's own must do what is expected, and what is to
    /// be dropped must be dropped by all rules together.
    pub others_may_drop: bool,
}

/// What was checked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Checked {
    /// Questions: a way, a fixed address, a device.
    pub questions: usize,
    /// Combinations of classes and states, each held against the policies and the rules.
    pub cells: usize,
    /// Addresses of local pods.
    pub addresses: usize,
    /// Pods whose source guard is part of the proof.
    pub guarded: usize,
    /// Devices that nobody gave and that were taken from the certificate as those of pods: an assumption of the proof.
    pub assumed: usize,
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    ///
    /// [`Defect::Malformed`] if the text is none.
    pub fn read(text: &str) -> Result<Self, Defect> {
        serde_json::from_str(text).map_err(|error| Defect::Malformed(error.to_string()))
    }
}

/// Checks a certificate.
///
/// # Errors
///
/// The first defect that was found. Whatever it is, the certificate is no proof. [`Defect::Refuted`] is only there if all else is
/// right: what the certificate states of rules and policies is so, and the rules do not do what the policies say.
///
/// ```
/// use netpol_checker::{Certificate, Defect, FORMAT, Setting, VERSION, check};
/// let setting = Setting {
///     cluster: &Default::default(), node: None, options: Default::default(), interfaces: &Default::default(),
///     own_table: None, own_chains: None, unguarded: false, others_may_drop: false,
/// };
/// let nothing = Certificate { format: FORMAT.to_owned(), version: VERSION, ..Default::default() };
/// assert_eq!(check(&nothing, &setting), Err(Defect::Nothing));
/// ```
pub fn check(certificate: &Certificate, setting: &Setting<'_>) -> Result<Checked, Defect> {
    let mut tests = Tests::new(certificate.lists.iter().map(|list| &list.0));
    let world = World::new(setting);
    about_this(certificate, setting, &world)?;
    let shared = are_own(&certificate.machine, setting)?;
    if let Some(what) = certificate.machine.not_understood.first() {
        return Err(Defect::NotUnderstood(what.clone()));
    }
    let addresses = [false, true].map(|v6| world.owned(v6, |pod| world.is_local(pod)).len());
    if addresses == [0, 0] {
        return Err(Defect::Nothing);
    }
    let rules = Rules::new(&certificate.machine, &mut tests);
    let devices = Devices::new(certificate, &world, &tests)?;
    for (number, boxes) in certificate.traffic.iter().enumerate() {
        let of = format!("classes of traffic {number}");
        all_traffic(&tests, boxes).map_err(|what| Defect::Coverage { question: of, what })?;
    }
    let mut checker = Checker {
        certificate,
        tests,
        world,
        rules,
        devices,
        shared,
        guarded: !setting.unguarded,
        others_may_drop: setting.others_may_drop,
        checked: Checked::default(),
        refuted: None,
    };
    checker.everything()?;
    Ok(checker.checked)
}

/// Is it about this node, these options, these devices?
fn about_this(
    certificate: &Certificate,
    setting: &Setting<'_>,
    world: &World<'_>,
) -> Result<(), Defect> {
    if certificate.format != FORMAT || certificate.version != VERSION {
        let what = format!("`{}` of version {}", certificate.format, certificate.version);
        return Err(Defect::Malformed(format!("{what}, not `{FORMAT}` of version {VERSION}")));
    }
    let other = |what: &str| Err(Defect::OtherSetting(what.to_owned()));
    if certificate.node.as_deref() != setting.node.map(NodeName::as_str) {
        let named =
            |name: Option<&str>| name.map_or("all pods".to_owned(), |n| format!("node {n}"));
        let (stated, asked) = (certificate.node.as_deref(), setting.node.map(NodeName::as_str));
        return other(&format!("another node: {}, not {}", named(stated), named(asked)));
    }
    if certificate.options != Choices::from(setting.options) {
        return other("other options");
    }
    let stated = certificate.interfaces.iter().map(|(pod, name)| (pod.clone(), device(name)));
    let given = world.given.iter().map(|(pod, device)| (world.name(*pod), Some(*device)));
    if stated.collect::<BTreeMap<_, _>>() != given.collect() {
        return other("other devices of pods");
    }
    if certificate.unguarded != setting.unguarded {
        return other("whether a source guard is proved");
    }
    if certificate.others_may_drop != setting.others_may_drop {
        return other("whether others may drop more");
    }
    Ok(())
}

/// A certificate that is being checked.
pub(crate) struct Checker<'c> {
    pub(crate) certificate: &'c Certificate,
    pub(crate) tests: Tests,
    pub(crate) world: World<'c>,
    pub(crate) rules: Rules<'c>,
    pub(crate) devices: Devices,
    /// Do rules of iptables lead to chains of netpol?
    pub(crate) shared: bool,
    /// Is the source guard asked for?
    pub(crate) guarded: bool,
    pub(crate) others_may_drop: bool,
    pub(crate) checked: Checked,
    /// The first cell in which what is met is not what is expected.
    pub(crate) refuted: Option<Defect>,
}
