//! `netpol apply --verify`: in force only if it is proved.

use super::backend::{KernelBackend, Snapshot};
use super::{Choice, policy};
use crate::args::{EnforceArgs, Format};
use crate::verify::{Besides, own};
use crate::{Failure, terminal, verify};
use netpol_core::{InterfaceName, NodeName, PodId};
use netpol_iptables::IptablesOptions;
use netpol_k8s::Manifests;
use netpol_nft::NftOptions;
use netpol_verify::{Dump, ProofOptions, Report, Specification, prove, read_dumps};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

/// What a proof of the rules of this machine needs to know.
pub(super) struct Claim<'a> {
    pub(super) manifests: &'a Manifests,
    pub(super) node: Option<&'a NodeName>,
    pub(super) interfaces: &'a BTreeMap<PodId, InterfaceName>,
    /// Are source addresses checked?
    pub(super) guarded: bool,
    /// May others' rules drop more than policies do?
    pub(super) others_may_drop: bool,
}

impl Claim<'_> {
    /// Is it so, by what the kernel lists?
    pub(super) fn prove(
        &self,
        args: &EnforceArgs,
        dumps: Result<&[Dump], &Failure>,
    ) -> Result<Report, String> {
        let machine = dumps.map_err(ToString::to_string)?;
        let machine = read_dumps(machine).map_err(|error| error.to_string())?;
        let cluster = self.manifests.cluster();
        let specification = Specification::new(cluster, self.node, policy(&args.policy));
        let named = self.interfaces.iter().map(|(pod, name)| (pod.clone(), name.to_string()));
        let mut options = ProofOptions::default().with_interfaces(named.collect());
        options.own = own(&args.ruleset);
        options.others_may_drop = self.others_may_drop;
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

    /// Puts them back; those of the back end that enforced first, so that nothing is open in between.
    pub(super) fn restore(mut self) -> RolledBack {
        let mut any = false;
        self.0.sort_by_key(|(_, snapshot)| snapshot.is_empty());
        for (backend, snapshot) in &mut self.0 {
            any |= !snapshot.is_empty();
            if let Err(failure) = backend.restore(snapshot) {
                return RolledBack::Failed(failure);
            }
        }
        if any { RolledBack::ToRules } else { RolledBack::ToNothing }
    }
}

/// What is in force after rules were taken back.
pub(super) enum RolledBack {
    /// The rules from before.
    ToRules,
    /// There were none.
    ToNothing,
    /// They could not be put back.
    Failed(Failure),
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToRules => f.write_str("the rules from before are in force again"),
            Self::ToNothing => {
                f.write_str("there are no rules of netpol, as before: nothing is enforced")
            }
            Self::Failed(failure) => write!(
                f,
                "the new rules, or a part of them, are in force, and those from before could not be put back: {failure}"
            ),
        }
    }
}

/// Answers with what was not proved, and what is in force now.
pub(super) fn write_not_proved(
    report: &Report,
    back: &RolledBack,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let applied = matches!(back, RolledBack::Failed(_));
    match format {
        Format::Json => {
            let answer = serde_json::json!({
                "applied": applied,
                "rules": back.to_string(),
                "proof": verify::json(report, &Besides::default()),
            });
            serde_json::to_writer_pretty(&mut *out, &answer).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        Format::Text => {
            let word = if applied { "APPLIED, BUT NOT PROVED" } else { "NOT APPLIED" };
            let text = format!("{word}: {back}\n\n{}", verify::text(report, &Besides::default()));
            out.write_all(terminal::printable(&text).as_bytes())?;
        }
    }
    Ok(())
}
