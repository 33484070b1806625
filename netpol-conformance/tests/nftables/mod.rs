//! nftables: the back end, with both ways to dispatch and to guard, and its two encodings, loaded by nft itself.

use netpol_conformance::{Abilities, Candidate, Enforcer, Settings};
use netpol_core::{Backend, Delta, Inventory, Ruleset};
use netpol_host::Host;
use netpol_nft::{Dispatch, Error, Guard, NftOptions, Nftables, layout, objects, script};
use netpol_verify::machine::Own;

/// How rules come into the kernel.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Way {
    /// By the back end, in three transactions.
    #[default]
    Transactions,
    /// As a script for `nft -f -`.
    Script,
    /// As objects for `nft -j -f -`.
    Objects,
}

/// nftables as a candidate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nft {
    way: Way,
    guard: Guard,
    dispatch: Dispatch,
}

impl Nft {
    pub(crate) fn by_device() -> Self {
        Self { guard: Guard::Prerouting, dispatch: Dispatch::Interface, ..Self::default() }
    }

    pub(crate) fn script() -> Self {
        Self { way: Way::Script, ..Self::default() }
    }

    pub(crate) fn objects() -> Self {
        Self { way: Way::Objects, ..Self::default() }
    }
}

impl Candidate for Nft {
    fn name(&self) -> &'static str {
        match (self.way, self.dispatch) {
            (Way::Transactions, Dispatch::Address) => "nft",
            (Way::Transactions, Dispatch::Interface) => "nft by device",
            (Way::Script, _) => "nft script",
            (Way::Objects, _) => "nft objects",
        }
    }

    fn abilities(&self) -> Abilities {
        // One transaction makes everything anew, and is not atomic for packets that are on their way through the rules
        // (dataplane.md finding 11).
        let [keeps, atomic] = [self.way == Way::Transactions; 2];
        // The objects of the crate have no named verdict maps, from which dispatch is read back.
        let reads_back = self.way != Way::Objects;
        Abilities { guards: true, rejects: true, logs: true, reads_back, keeps, atomic }
    }

    fn start(&self, settings: &Settings) -> Box<dyn Enforcer> {
        let guard = if settings.unguarded { Guard::Off } else { self.guard };
        let options = NftOptions::from(settings.host.clone());
        let options = options.with_guard(guard).with_dispatch(self.dispatch);
        let nftables = Nftables::new(Host::here(), options.clone());
        match self.way {
            Way::Transactions => Box::new(nftables),
            way => Box::new(Loaded { way, options, nftables, ruleset: None }),
        }
    }

    fn own_rules(&self) -> Option<Own> {
        Some(Own::default().with_table("netpol"))
    }

    fn random_clusters(&self) -> u32 {
        if self.way == Way::Transactions { 50 } else { 12 }
    }

    fn add_foreign(&self) {
        nft(
            &["-f", "-"],
            "table inet netpol { chain c { type filter hook forward priority 0; policy accept; counter\n }\n }\n\
             table ip other { set s { type ipv4_addr; elements = { 1.2.3.4 }\n }\n chain i_x { ip saddr @s drop\n }\n }\n\
             table ip netpol2 { chain made_by_netpol_1 {\n }\n }\n",
        );
    }

    fn snapshot(&self) -> String {
        // Handles tell whether something was replaced by its like.
        nft(&["--stateless", "-a", "list", "ruleset"], "")
    }
}

fn nft(arguments: &[&str], input: &str) -> String {
    let output = Host::here().run("nft", arguments, input).expect("nft can be run");
    assert!(output.success, "{}", output.stderr);
    output.stdout
}

/// A whole ruleset in one run of nft, as a person would load it.
struct Loaded {
    way: Way,
    options: NftOptions,
    nftables: Nftables,
    ruleset: Option<Ruleset>,
}

impl Backend for Loaded {
    type Error = Error;

    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), Error> {
        if self.ruleset.as_ref() == Some(ruleset) {
            return Ok(());
        }
        let model = layout(ruleset, &self.options).model;
        match self.way {
            Way::Objects => {
                let batch = serde_json::to_string(&objects(&model)).unwrap();
                nft(&["-j", "-f", "-"], &batch)
            }
            _ => nft(&["-f", "-"], &script(&model)),
        };
        self.ruleset = Some(ruleset.clone());
        Ok(())
    }

    fn apply(&mut self, delta: &Delta) -> Result<(), Error> {
        let mut ruleset = self.ruleset.clone().unwrap_or_default();
        ruleset.apply(delta);
        Backend::replace(self, &ruleset)
    }

    fn installed(&mut self) -> Result<Option<Inventory>, Error> {
        match &self.ruleset {
            Some(ruleset) => self.nftables.installed_of(ruleset),
            None => Backend::installed(&mut self.nftables),
        }
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.ruleset = None;
        Backend::remove(&mut self.nftables)
    }
}

/// The detector sees what one transaction loses, too; three are not there for nothing (dataplane.md finding 11).
#[test]
fn one_transaction_is_not_enough() {
    let mut seen = (0..10).map(|_| netpol_conformance::updates::under_flood(&Nft::script(), 24)[0]);
    assert!(seen.any(|seen| seen.lost + seen.leaked > 0));
}
