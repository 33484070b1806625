//! `netpol apply --verify`: in force only if it is proved.

use super::backend::{KernelBackend, Snapshot};
use super::{Choice, policy};
use crate::args::EnforceArgs;
use crate::verify::own;
use crate::{Failure, terminal};
use netpol_core::{InterfaceName, NodeName, PodId};
use netpol_iptables::IptablesOptions;
use netpol_k8s::Manifests;
use netpol_nft::NftOptions;
use netpol_verify::{Dump, ProofOptions, Report, Specification, prove, read_dumps};
use std::collections::BTreeMap;

/// What a proof of the rules of this machine needs to know.
pub(super) struct Claim<'a> {
    pub(super) manifests: &'a Manifests,
    pub(super) node: Option<&'a NodeName>,
    pub(super) interfaces: &'a BTreeMap<PodId, InterfaceName>,
    /// Are source addresses checked?
    pub(super) guarded: bool,
}

impl Claim<'_> {
    /// Is it so, by what the kernel lists?
    pub(super) fn prove(&self, args: &EnforceArgs, dumps: &[Dump]) -> Result<Report, Failure> {
        let machine = read_dumps(dumps).map_err(|error| Failure::Message(error.to_string()))?;
        let cluster = self.manifests.cluster();
        let specification = Specification::new(cluster, self.node, policy(&args.policy));
        let named = self.interfaces.iter().map(|(pod, name)| (pod.clone(), name.to_string()));
        let mut options = ProofOptions::default().with_interfaces(named.collect());
        options.own = own(&args.ruleset);
        if !self.guarded {
            options = options.without_guard();
        }
        Ok(terminal::waiting("proving", || prove(&machine, &specification, &options)))
    }
}

/// The rules of every back end as they were before.
pub(super) struct Before(Vec<(KernelBackend, Snapshot)>);

impl Before {
    /// Of the back end that is about to be used, and of the others, if these have any.
    pub(super) fn of(args: &EnforceArgs, used: &Choice) -> Result<Self, Failure> {
        let backend = used.clone().start();
        let snapshot = backend.snapshot()?;
        let mut all = vec![(backend, snapshot)];
        let other = match used {
            Choice::Nft(_) => Choice::Iptables(IptablesOptions::default()),
            Choice::Iptables(_) => Choice::Nft(NftOptions::default()),
        };
        let backend = other.named(&args.ruleset).start();
        // Without its tools there is nothing of it, and what cannot be read is not removed either.
        if let Ok(snapshot) = backend.snapshot()
            && !snapshot.is_empty()
        {
            all.push((backend, snapshot));
        }
        Ok(Self(all))
    }

    /// Puts them back; those of the back end that enforced first, so that nothing is open in between. Were there any?
    pub(super) fn restore(mut self) -> Result<bool, Failure> {
        let mut any = false;
        self.0.sort_by_key(|(_, snapshot)| snapshot.is_empty());
        for (backend, snapshot) in &mut self.0 {
            any |= !snapshot.is_empty();
            backend.restore(snapshot)?;
        }
        Ok(any)
    }
}
