//! The source guard.

use crate::arena::{Arena, one};
use crate::candidate::{Candidate, Settings};
use crate::worlds::{DNS, WEB, deny_ingress, ip, pairs, pod, two_pods};
use netpol_core::{Protocol, Scope};
use netpol_host::HostOptions;
use netpol_lab::{Probe, ReversePath, Traffic};

/// L2, F15, F83: forged packets deliver nothing and poison nothing, where the guard is; where it is not, they do.
pub fn forged_sources(candidate: &dyn Candidate) {
    if !candidate.abilities().guards {
        return;
    }
    for guarded in [false, true] {
        let (plan, mut cluster) = two_pods();
        cluster.insert_policy(deny_ingress("b"));
        let settings = Settings { host: HostOptions::default(), unguarded: !guarded };
        let mut arena = Arena::new(candidate, &plan, settings);
        arena.enforce(&cluster, Scope::Cluster);
        let lab = arena.lab().expect("what guards works in a kernel");
        for reverse_path in [ReversePath::Off, ReversePath::Loose] {
            lab.set_reverse_path(reverse_path).unwrap();
            for (a, b, world) in pairs() {
                let of = format!("{} {reverse_path:?} {a}, guard {guarded}", candidate.name());
                let forged = Probe::new(b, world, DNS).sent_by(pod("a"));
                assert_eq!(one(lab, &forged).delivered, !guarded, "{of}");
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    lab.forget_connections().unwrap();
                    let (attacker, server) = (5555, 80);
                    let bait = Probe::new(b, a, Traffic::Port(protocol, attacker))
                        .with_client_port(server)
                        .sent_by(pod("a"));
                    lab.probe(&[bait]).unwrap();
                    let attack = Probe::new(a, b, Traffic::Port(protocol, server));
                    let fate = one(lab, &attack.with_client_port(attacker));
                    if guarded {
                        assert!(!fate.delivered, "{of} {protocol}");
                    } else if protocol == Protocol::Udp {
                        assert!(fate.delivered, "the attack works without a guard: {of}");
                    }
                }
                // The pod's own traffic goes on: neighbor discovery works behind the guard.
                assert!(one(lab, &Probe::new(a, world, WEB)).answered, "{of}");
            }
        }
        let own = Probe::new(ip("10.0.1.1"), ip("203.0.113.9"), WEB).sent_by(pod("a"));
        assert!(one(lab, &own).delivered, "a pod's second address is its own");
    }
}
