//! What is proved, in words, and under which assumptions.

use super::Prover;
use crate::specification::PodIndex;
use netpol_core::Established;
use std::collections::BTreeSet;

impl Prover<'_, '_> {
    /// The theorem, as a sentence.
    pub(super) fn theorem(&self) -> String {
        let pods = self.statistics.pods;
        let established = match self.specification.options().established() {
            Established::Keep => "packets of connections that were let through pass",
            Established::ReEvaluate => {
                "replies pass, other packets of open connections are judged as new ones"
            }
        };
        let guard = match self.statistics.guarded_pods {
            0 => String::new(),
            some => format!(
                ", and from the devices of {some} of them come only packets with their own source addresses"
            ),
        };
        let rules = if self.options.others_may_drop { "netpol's own rules" } else { "the rules" };
        let together = if self.options.others_may_drop {
            ", and no rules of others let pass what these must drop"
        } else {
            ""
        };
        format!(
            "for every packet that enters, leaves or passes between the {pods} pods of this node, IPv4 and IPv6, of any protocol: it \
             passes {rules} if and only if the policies allow it ({established}){guard}{together}"
        )
    }

    /// What it rests on.
    pub(super) fn assumptions(&self) -> Vec<String> {
        let mut all = vec![
            "the kernel does what its listing says, as the rule machine understands it".to_owned(),
            "the manifests are what is to be enforced, with these addresses of pods".to_owned(),
            "packets are whole (connection tracking reassembles fragments) and come without a mark"
                .to_owned(),
        ];
        let local: BTreeSet<PodIndex> = self.specification.local_pods().collect();
        let owning: BTreeSet<PodIndex> = [false, true]
            .into_iter()
            .flat_map(|v6| self.specification.owners(v6).values().copied())
            .collect();
        let silent = local.difference(&owning).count();
        if silent > 0 {
            all.push(format!(
                "{silent} of {} pods own no address, so no packet is theirs",
                local.len()
            ));
        }
        let unguarded = self.options.unguarded;
        let honest = local.iter().filter(|pod| unguarded || !self.given.contains_key(pod)).count();
        if honest > 0 {
            let why = if unguarded { "as asked" } else { "since their interfaces are not given" };
            all.push(format!(
                "the source addresses of {honest} of {} pods are taken as honest, {why}",
                local.len()
            ));
        }
        if !self.devices.inferred.is_empty() {
            all.push(format!(
                "the interfaces of {} pods are those whose source guard lets their addresses pass",
                self.devices.inferred.len()
            ));
        }
        if self.given.len() < local.len() || !self.given.is_empty() {
            all.push("nobody outside of the node forges the addresses of its pods".to_owned());
        }
        if !self.options.own.is_everything() {
            all.push(format!(
                "what the node itself sends and receives is judged by {} alone, not by the node's own firewall",
                self.options.own.describe()
            ));
        }
        if self.options.others_may_drop {
            all.push("what others' rules drop besides is meant to be dropped, as asked".to_owned());
        }
        all.push("a packet that conntrack calls invalid may be dropped".to_owned());
        all.extend(self.machine.left_out.iter().map(|what| format!("not judged: {what}")));
        all
    }
}
