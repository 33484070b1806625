//! Choices of netpol-iptables for tests.

use netpol_host::{Denial, HostOptions};
use netpol_iptables::{Flavor, Guard, IptablesOptions};
use netpol_testkit::strategies::options;
use proptest::prelude::*;

/// Everything that may be chosen of netpol-iptables and changes what is to be proved, or how the rules look.
pub(crate) fn iptables_options() -> impl Strategy<Value = IptablesOptions> {
    let guard = prop_oneof![Just(Guard::Off), Just(Guard::Prerouting)];
    (options(), guard, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(policy, guard, reject, log, counters)| {
            let denial = if reject { Denial::Reject } else { Denial::Drop };
            let host = HostOptions::default().with_policy(policy).with_denial(denial);
            let host = host.with_log(log.then_some(7)).with_counters(counters);
            IptablesOptions::from(host).with_guard(guard)
        },
    )
}

pub(crate) fn flavors() -> impl Strategy<Value = Flavor> {
    prop_oneof![Just(Flavor::Legacy), Just(Flavor::Nft)]
}
