//! The devices behind which local pods are, and the addresses that may come from each (L2, F15, F83).

use crate::options::HostOptions;
use netpol_core::{PodId, Ruleset};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// The name of a network device that can be written in any script: no more than the 15 bytes that the kernel allows, and
/// none of the characters that mean something to nft (`*` is a wildcard even between quotes) or to iptables (`+` is one).
///
/// ```
/// use netpol_host::DeviceName;
/// assert!(DeviceName::new("veth7").is_some());
/// assert!(DeviceName::new("veth+").is_none());
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeviceName(String);

impl DeviceName {
    /// The name, if it is one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let valid = (1..=15).contains(&name.len())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@'))
            && !name.starts_with('-') // it would be an option
            && !matches!(name, "." | "..");
        valid.then(|| Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What may come from a device.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LocalDevice {
    /// The first pod that is behind it.
    pub pod: PodId,
    /// The addresses of all pods behind it, of both families.
    pub addresses: BTreeSet<IpAddr>,
    /// Are other pods behind it, too?
    pub shared: bool,
}

/// The devices of the pods that a ruleset polices.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct LocalDevices {
    /// By name.
    pub devices: BTreeMap<DeviceName, LocalDevice>,
    /// What is not as it should be. Source addresses are not checked, or not for one pod alone, where it says so.
    pub defects: Vec<DeviceDefect>,
}

/// A pod whose device cannot be held to that pod's addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeviceDefect {
    /// The pod's device cannot be named in a script, so its source addresses are not checked.
    Unnameable {
        /// The pod.
        pod: PodId,
        /// The device.
        device: String,
    },
    /// Two pods claim one device; the addresses of both may come from it.
    Shared {
        /// The second pod.
        pod: PodId,
        /// The device.
        device: String,
    },
}

impl fmt::Display for DeviceDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnameable { pod, device } => write!(
                f,
                "`{device:?}`, the device of pod {pod}, has a name that no rule can express: source addresses are not checked"
            ),
            Self::Shared { pod, device } => write!(
                f,
                "pod {pod} is not the only one on device `{device}`: each can use the addresses of the others"
            ),
        }
    }
}

impl LocalDevices {
    /// The devices that the ruleset names, else the options.
    #[must_use]
    pub fn of(ruleset: &Ruleset, options: &HostOptions) -> Self {
        let mut all = Self::default();
        for (pod, endpoint) in ruleset.endpoints() {
            let interface = endpoint.interface.as_ref().or_else(|| options.interfaces().get(pod));
            let Some(interface) = interface else { continue };
            let Some(device) = DeviceName::new(interface.as_str()) else {
                let device = interface.to_string();
                all.defects.push(DeviceDefect::Unnameable { pod: pod.clone(), device });
                continue;
            };
            let addresses = ruleset.addresses(pod).iter().copied();
            if let Some(known) = all.devices.get_mut(&device) {
                known.addresses.extend(addresses);
                known.shared = true;
                let device = device.to_string();
                all.defects.push(DeviceDefect::Shared { pod: pod.clone(), device });
            } else {
                let addresses = addresses.collect();
                all.devices
                    .insert(device, LocalDevice { pod: pod.clone(), addresses, shared: false });
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netpol_core::{Cluster, Labels, Namespace, Pod, Scope, compile};

    #[test]
    fn addresses_by_device() {
        let mut cluster = Cluster::new();
        cluster.insert_namespace(Namespace::new("shop", Labels::new()));
        for (name, device) in [("a", "veth1"), ("b", "veth1"), ("c", "we ird"), ("d", "")] {
            let octet = name.as_bytes()[0];
            let pod = Pod::new(PodId::new("shop", name), Labels::new())
                .with_addresses([IpAddr::from([10, 0, 0, octet])]);
            let pod = if device.is_empty() { pod } else { pod.with_interface(device) };
            cluster.insert_pod(pod);
        }
        let ruleset = compile(&cluster, Scope::Cluster).expect("compiles");
        let options = HostOptions::default()
            .with_interfaces([(PodId::new("shop", "d"), "veth4".into())].into());
        let LocalDevices { devices, defects } = LocalDevices::of(&ruleset, &options);
        let shown: Vec<_> =
            devices.iter().map(|(name, of)| (name.as_str(), of.addresses.len())).collect();
        assert_eq!(shown, [("veth1", 2), ("veth4", 1)]);
        assert!(matches!(
            &defects[..],
            [DeviceDefect::Shared { .. }, DeviceDefect::Unnameable { .. }]
        ));
    }
}
