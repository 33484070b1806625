//! Which device a local pod is behind: the kernel knows it by its host routes.

use crate::device::DeviceName;
use crate::program::{Host, ProgramError};
use netpol_core::{InterfaceName, PodId, Ruleset};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Why the routes could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// `ip` (iproute2) could not be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Its listing was not understood.
    #[error("the listing of `ip route` was not understood: {message}")]
    Listing {
        /// What was not understood.
        message: String,
    },
}

impl Host {
    /// The devices of the pods that the ruleset polices, as the kernel's host routes say (`10.0.0.7 dev veth7`); for
    /// [`HostOptions::with_interfaces`](crate::HostOptions::with_interfaces). A route through a gateway or to a network says nothing about a device.
    ///
    /// Pods for which the ruleset names a device are left out.
    ///
    /// # Errors
    ///
    /// `ip` (iproute2) could not be run, or its listing was not understood.
    pub fn devices(&self, ruleset: &Ruleset) -> Result<BTreeMap<PodId, InterfaceName>, RouteError> {
        let mut devices: BTreeMap<IpAddr, InterfaceName> = BTreeMap::new();
        for family in ["-4", "-6"] {
            let output = self.run("ip", &[family, "-j", "route", "show", "table", "all"], "")?;
            if !output.success {
                return Err(RouteError::Listing { message: output.stderr });
            }
            let routes: Vec<serde_json::Value> = serde_json::from_str(&output.stdout)
                .map_err(|error| RouteError::Listing { message: error.to_string() })?;
            devices.extend(routes.iter().filter_map(host_route));
        }
        let unknown = ruleset.endpoints().iter().filter(|(_, end)| end.interface.is_none());
        let found = unknown.filter_map(|(pod, _)| {
            let device = ruleset.addresses(pod).iter().find_map(|address| devices.get(address))?;
            Some((pod.clone(), device.clone()))
        });
        Ok(found.collect())
    }
}

/// The address and the device of a route to one host that is behind a device.
fn host_route(route: &serde_json::Value) -> Option<(IpAddr, InterfaceName)> {
    let text = |key| route.get(key).and_then(serde_json::Value::as_str);
    let elsewhere = ["gateway", "via", "nexthops"];
    if text("type").is_some_and(|kind| kind != "unicast")
        || elsewhere.iter().any(|key| route.get(key).is_some())
    {
        return None;
    }
    let device = text("dev").filter(|device| *device != "lo")?;
    DeviceName::new(device)?;
    Some((text("dst")?.parse().ok()?, InterfaceName::from(device)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_host_routes_name_a_device() {
        let device = |route| host_route(&route).map(|(_, device)| device.to_string());
        assert_eq!(device(json!({"dst": "10.0.0.7", "dev": "veth7"})).as_deref(), Some("veth7"));
        assert_eq!(
            device(json!({"dst": "fd00::7", "dev": "veth7", "type": "unicast"})).as_deref(),
            Some("veth7")
        );
        for other in [
            json!({"dst": "10.0.0.0/24", "dev": "veth7"}),
            json!({"dst": "default", "gateway": "10.0.0.1", "dev": "eth0"}),
            json!({"dst": "10.0.0.7", "gateway": "10.0.0.1", "dev": "eth0"}),
            json!({"dst": "10.0.0.7", "dev": "veth7", "type": "local"}),
            json!({"dst": "10.0.0.7", "dev": "lo"}),
            json!({"dst": "10.0.0.7", "dev": "a*"}),
        ] {
            assert_eq!(device(other.clone()), None, "{other}");
        }
    }
}
