//! What belongs to a connection that was allowed.

use crate::arena::{Arena, one};
use crate::candidate::{Candidate, Settings};
use crate::worlds::{DNS, WEB, deny_egress, deny_ingress, pairs, two_pods};
use netpol_core::{Established, Options, Scope};
use netpol_host::HostOptions;
use netpol_lab::{Probe, Toward};
use std::time::Duration;

/// NP-60, NP-53: what belongs to an allowed connection passes a pod that may not open any.
pub fn replies_and_errors_pass(candidate: &dyn Candidate) {
    let (plan, mut cluster) = two_pods();
    cluster.insert_policy(deny_egress("b"));
    cluster.insert_policy(deny_ingress("a"));
    let mut arena = Arena::new(candidate, &plan, Settings::default());
    arena.enforce(&cluster, Scope::Cluster);
    for (a, b, world) in pairs() {
        assert!(arena.answered(&Probe::new(a, b, WEB)), "{} {a} {b}", candidate.name());
        assert_eq!(arena.delivered(&[Probe::new(b, a, WEB)]), [Some(false)], "{a} {b}");
        let Some(lab) = arena.lab() else { continue };
        // Path MTU discovery: an error about a connection passes, one about none does not.
        let known = Probe::new(a, world, DNS).with_client_port(40_000);
        assert!(one(lab, &known).answered);
        assert!(one(lab, &known.too_big_for(world)).delivered, "{} {a}", candidate.name());
        let unknown = Probe::new(a, world, DNS).with_client_port(40_001).too_big_for(world);
        assert!(!one(lab, &unknown).delivered, "{} {a}", candidate.name());
    }
}

/// NP-62: what happens to connections that are open when policy tightens.
pub fn open_connections_when_policy_tightens(candidate: &dyn Candidate) {
    let patience = Duration::from_millis(500);
    for (established, goes_on) in [(Established::Keep, true), (Established::ReEvaluate, false)] {
        let (plan, mut cluster) = two_pods();
        let policy = Options::default().with_established(established);
        let settings = Settings::from(HostOptions::default().with_policy(policy));
        let mut arena = Arena::new(candidate, &plan, settings);
        arena.enforce(&cluster, Scope::Cluster);
        let mut open = Vec::new();
        for (a, b, _) in pairs() {
            match arena.lab() {
                Some(lab) => {
                    open.push(lab.connect(a, b, 80, patience).unwrap().expect("it is allowed"));
                }
                None => assert_eq!(arena.delivered(&[Probe::new(a, b, WEB)]), [Some(true)]),
            }
        }
        // An unrelated change cuts nothing.
        cluster.insert_policy(deny_egress("b"));
        arena.enforce(&cluster, Scope::Cluster);
        for connection in &mut open {
            assert!(connection.send(Toward::Server, patience).unwrap(), "{}", candidate.name());
            assert!(connection.send(Toward::Client, patience).unwrap(), "{}", candidate.name());
        }
        cluster.insert_policy(deny_ingress("b"));
        arena.enforce(&cluster, Scope::Cluster);
        for connection in &mut open {
            let sent = connection.send(Toward::Server, patience).unwrap();
            assert_eq!(sent, goes_on, "{} {established:?}", candidate.name());
        }
        for (a, b, _) in pairs() {
            if arena.lab().is_none() {
                let probe = Probe::new(a, b, WEB);
                assert_eq!(arena.goes_on(&probe), goes_on, "{} {established:?}", candidate.name());
            }
            let new = Probe::new(a, b, WEB).with_client_port(40_002);
            assert_eq!(arena.delivered(&[new]), [Some(false)], "{}", candidate.name());
        }
    }
}
