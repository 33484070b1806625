//! What the user calls an end of a connection: a workload, a pod, or an address.

use crate::Failure;
use netpol_core::{PodId, PortName, Protocol};
use netpol_k8s::Manifests;
use netpol_sim::Traffic;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// An end of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Party {
    /// Pods that are one workload, or one pod; with the name to print.
    Pods { name: String, pods: Vec<PodId> },
    /// An address, whoever has it.
    Address(IpAddr),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods { name, .. } => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The pods of each workload, by the workload's name.
pub(crate) fn workloads(manifests: &Manifests) -> BTreeMap<String, Vec<PodId>> {
    let mut workloads: BTreeMap<String, Vec<PodId>> = BTreeMap::new();
    for pod in manifests.cluster().pods() {
        let name = manifests.workload(pod.id()).to_string();
        workloads.entry(name).or_default().push(pod.id().clone());
    }
    workloads
}

/// What `text` means: an address; a workload or pod by `namespace/name` or `namespace/name[Kind]`; or by its name alone
/// where only one namespace has it.
pub(crate) fn parse(text: &str, manifests: &Manifests) -> Result<Party, Failure> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Party::Address(address.to_canonical()));
    }
    let workloads = workloads(manifests);
    if let Some(pods) = workloads.get(text) {
        return Ok(Party::Pods { name: text.to_owned(), pods: pods.clone() });
    }
    // `shop/web` stands for `shop/web[Deployment]`, `web` for that of the only namespace that has one.
    let without_kind = |name: &str| name.split('[').next().unwrap_or(name).to_owned();
    let without_namespace = |name: &str| name.split_once('/').map_or("", |(_, n)| n).to_owned();
    let mut found: BTreeMap<String, Vec<PodId>> = BTreeMap::new();
    for (name, pods) in &workloads {
        let plain = without_kind(name);
        if [&plain, &without_namespace(&plain), &without_namespace(name)]
            .iter()
            .any(|n| **n == text)
        {
            found.insert(name.clone(), pods.clone());
        }
    }
    // A pod of a workload by its own name.
    for pod in manifests.cluster().pods().map(netpol_core::Pod::id) {
        let name = format!("{pod}[Pod]");
        let shown = [pod.to_string(), name.clone(), pod.name().to_string()];
        if !pod.name().as_str().contains('[') && shown.iter().any(|n| n == text) {
            found.entry(name).or_insert_with(|| vec![pod.clone()]);
        }
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some((name, pods)), None) => Ok(Party::Pods { name, pods }),
        (Some((first, _)), Some((second, _))) => {
            let all: Vec<_> =
                [first, second].into_iter().chain(found.map(|(name, _)| name)).take(5).collect();
            Err(Failure::Message(format!(
                "`{text}` may mean {}: write one of them",
                all.join(" or ")
            )))
        }
        (None, _) => Err(unknown(text, &workloads, manifests)),
    }
}

fn unknown(text: &str, workloads: &BTreeMap<String, Vec<PodId>>, manifests: &Manifests) -> Failure {
    let pods = manifests.cluster().pods().map(|pod| pod.id().to_string());
    let plain = |name: &String| name.split('[').next().unwrap_or(name).to_owned();
    let nearest = workloads
        .keys()
        .map(plain)
        .chain(pods.filter(|pod| !pod.contains('[')))
        .map(|name| (closeness(text, &name), name))
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1)));
    let hint = match nearest {
        Some((close, name)) if close > 0.7 => format!("; did you mean `{name}`?"),
        _ => {
            let mut names: Vec<_> = workloads.keys().map(plain).collect();
            names.dedup();
            let more = names.len().saturating_sub(8);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!(
                "; there are {}{more}",
                names.into_iter().take(8).collect::<Vec<_>>().join(", ")
            )
        }
    };
    Failure::Message(format!("no pod or workload is called `{text}`{hint}"))
}

/// From 0 to 1; a name without namespace is compared with names alone.
fn closeness(text: &str, name: &str) -> f64 {
    let alone = name.split_once('/').map_or(name, |(_, name)| name);
    let other = if text.contains('/') { name } else { alone };
    strsim::jaro_winkler(text, other)
}

/// What is sent, as the user wrote it; a port's name is looked up on the destination's pods.
pub(crate) fn traffic(
    text: &str,
    to: &Party,
    family_v6: bool,
    manifests: &Manifests,
) -> Result<Traffic, Failure> {
    let wrong = || {
        Failure::Message(format!(
            "`{text}` is no port: write a number and a protocol such as 80/TCP, a container port's name, ICMP, or proto/47"
        ))
    };
    if text.eq_ignore_ascii_case("icmp") || text.eq_ignore_ascii_case("icmpv6") {
        let v6 = family_v6 || text.eq_ignore_ascii_case("icmpv6");
        // An echo request.
        return Ok(if v6 { Traffic::Icmpv6(128) } else { Traffic::Other(1) });
    }
    let (port, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    if port.eq_ignore_ascii_case("proto") {
        let number: u8 = protocol.parse().map_err(|_| wrong())?;
        return match Protocol::from_number(number) {
            Some(known) => Err(Failure::Message(format!(
                "protocol {number} is {known}, which has ports: write PORT/{known}"
            ))),
            None => Ok(Traffic::Other(number)),
        };
    }
    let protocol = Protocol::ALL
        .into_iter()
        .find(|p| p.to_string().eq_ignore_ascii_case(protocol))
        .ok_or_else(wrong)?;
    if let Ok(number) = port.parse::<u16>() {
        return if number == 0 { Err(wrong()) } else { Ok(Traffic::Port(protocol, number)) };
    }
    if port.is_empty() || port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    named_port(&PortName::from(port), protocol, to, manifests).map(|n| Traffic::Port(protocol, n))
}

fn named_port(
    name: &PortName,
    protocol: Protocol,
    to: &Party,
    manifests: &Manifests,
) -> Result<u16, Failure> {
    let Party::Pods { pods, .. } = to else {
        return Err(Failure::Message(format!(
            "`{name}` is the name of a port, and {to} is no pod that could have one: write its number"
        )));
    };
    let ports = || {
        pods.iter().filter_map(|pod| manifests.cluster().pod(pod)).flat_map(netpol_core::Pod::ports)
    };
    let mut numbers: Vec<u16> =
        ports().filter(|p| p.name == *name && p.protocol == protocol).map(|p| p.port).collect();
    numbers.sort_unstable();
    numbers.dedup();
    match *numbers {
        [number] => Ok(number),
        [] => {
            let mut known: Vec<_> =
                ports().map(|p| format!("{} ({}/{})", p.name, p.port, p.protocol)).collect();
            known.sort_unstable();
            known.dedup();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(Failure::Message(format!(
                "{to} has no {protocol} port called `{name}`; its named ports: {known}"
            )))
        }
        _ => Err(Failure::Message(format!(
            "{to} gives several numbers to `{name}`: {numbers:?}; write one of them"
        ))),
    }
}
