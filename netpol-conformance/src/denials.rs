//! How denial looks: to who is denied, and to who runs the node.

use crate::arena::{Arena, one};
use crate::candidate::{Candidate, Settings};
use crate::worlds::{DNS, WEB, deny_ingress, pairs, two_pods};
use netpol_core::Scope;
use netpol_host::{Denial, HostOptions};
use netpol_lab::{Place, Probe, Refusal};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

/// NP-64: who is told, and who is not.
pub fn denial_is_silent_or_told(candidate: &dyn Candidate) {
    let (plan, mut cluster) = two_pods();
    cluster.insert_policy(deny_ingress("b"));
    let mut arena = Arena::new(candidate, &plan, Settings::default());
    let told = (Denial::Reject, Some(Refusal::Reset), Some(Refusal::Unreachable));
    let told = Some(told).filter(|_| candidate.abilities().rejects);
    for (denial, tcp, udp) in [(Denial::Drop, None, None)].into_iter().chain(told) {
        arena.restart(HostOptions::default().with_denial(denial).into());
        arena.enforce(&cluster, Scope::Cluster);
        let Some(lab) = arena.lab() else { return };
        for (a, b, _) in pairs() {
            assert_eq!(one(lab, &Probe::new(a, b, WEB)).refused, tcp, "{} {a}", candidate.name());
            assert_eq!(one(lab, &Probe::new(a, b, DNS)).refused, udp, "{} {a}", candidate.name());
        }
    }
}

/// What is denied is told to the log group, with the direction and the policy. `tcpdump` listens.
pub fn denied_packets_are_logged_with_their_policy(candidate: &dyn Candidate) {
    if !candidate.abilities().logs {
        return;
    }
    let (plan, mut cluster) = two_pods();
    cluster.insert_policy(deny_ingress("b"));
    let settings = Settings::from(HostOptions::default().with_log(Some(10)));
    let mut arena = Arena::new(candidate, &plan, settings);
    arena.enforce(&cluster, Scope::Cluster);
    let lab = arena.lab().expect("what logs works in a kernel");
    for (a, b, _) in pairs() {
        let listener = lab.run(&Place::Node, || {
            Command::new("tcpdump")
                .args(["-i", "nflog:10", "-w", "-", "-U", "-c", "1"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("tcpdump is installed (Debian: apt-get install tcpdump)")
        });
        let mut listener = listener.expect("there is a node");
        let mut said = BufReader::new(listener.stderr.take().expect("it is piped")).lines();
        let mut said = said.by_ref().map_while(Result::ok);
        assert!(said.any(|line| line.contains("listening on nflog:10")), "tcpdump listens");
        assert!(!one(lab, &Probe::new(a, b, DNS)).delivered);
        let mut capture = Vec::new();
        let mut output = listener.stdout.take().expect("it is piped");
        output.read_to_end(&mut capture).expect("it can be read");
        listener.wait().expect("it ended");
        let capture = String::from_utf8_lossy(&capture).into_owned();
        let prefix = "netpol deny ingress NetworkPolicy shop/in-b";
        assert!(capture.contains(prefix), "{} {a}: {capture:?}", candidate.name());
    }
}
