//! What is tested.

use netpol_core::{Backend, Delta, Inventory, Ruleset};
use netpol_host::HostOptions;
use netpol_testkit::Judge;
use netpol_verify::machine::Own;

/// Something that enforces network policy.
pub trait Candidate: Sync {
    /// What failures call it.
    fn name(&self) -> &'static str;

    /// What it can do. What it cannot do is not tested.
    fn abilities(&self) -> Abilities;

    /// A back end as a process has it that was just started: whatever the kernel has was installed by another. It is used
    /// in the network namespace in which it is started.
    fn start(&self, settings: &Settings) -> Box<dyn Enforcer>;

    /// What knows the answers, where nothing is enforced in a kernel. Default: none, real packets decide.
    fn judge(&self) -> Option<Box<dyn Judge>> {
        None
    }

    /// Which of the rules in a kernel are its own, if `netpol-verify` can read them: then what the kernel lists must be proved,
    /// too. Default: none, nothing is proved.
    fn own_rules(&self) -> Option<Own> {
        None
    }

    /// How many random clusters are tried with packets. Default: 50.
    fn random_clusters(&self) -> u32 {
        50
    }

    /// Puts rules of somebody else, of every technology that is used, into this network namespace. Default: nothing.
    fn add_foreign(&self) {}

    /// All that is installed in this network namespace, by whomever, without counts: equal texts mean that nothing was
    /// changed. Default: nothing.
    fn snapshot(&self) -> String {
        String::new()
    }
}

/// What a candidate can do beyond enforcing policy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "made by whoever describes a candidate")]
pub struct Abilities {
    /// It checks the source addresses of local pods.
    pub guards: bool,
    /// It can tell a sender that it is denied.
    pub rejects: bool,
    /// It tells a log group what it denies.
    pub logs: bool,
    /// It reads back what is installed.
    pub reads_back: bool,
    /// What is in force already it does not touch.
    pub keeps: bool,
    /// While rules change, packets see the old or the new verdicts and nothing else.
    pub atomic: bool,
}

/// What the operator chose.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "made by tests")]
pub struct Settings {
    /// The choices of every back end.
    pub host: HostOptions,
    /// No check of source addresses, even if the candidate could.
    pub unguarded: bool,
}

impl From<HostOptions> for Settings {
    fn from(host: HostOptions) -> Self {
        Self { host, unguarded: false }
    }
}

/// A [`Backend`] whose errors are text, so that all of them can stand in one list. Every back end is one.
pub trait Enforcer: Send {
    /// See [`Backend::replace`].
    ///
    /// # Errors
    ///
    /// What the back end says.
    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), String>;

    /// See [`Backend::apply`].
    ///
    /// # Errors
    ///
    /// What the back end says.
    fn apply(&mut self, delta: &Delta) -> Result<(), String>;

    /// See [`Backend::installed`].
    ///
    /// # Errors
    ///
    /// What the back end says.
    fn installed(&mut self) -> Result<Option<Inventory>, String>;

    /// See [`Backend::remove`].
    ///
    /// # Errors
    ///
    /// What the back end says.
    fn remove(&mut self) -> Result<(), String>;
}

impl<B: Backend + Send> Enforcer for B {
    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), String> {
        Backend::replace(self, ruleset).map_err(|error| error.to_string())
    }

    fn apply(&mut self, delta: &Delta) -> Result<(), String> {
        Backend::apply(self, delta).map_err(|error| error.to_string())
    }

    fn installed(&mut self) -> Result<Option<Inventory>, String> {
        Backend::installed(self).map_err(|error| error.to_string())
    }

    fn remove(&mut self) -> Result<(), String> {
        Backend::remove(self).map_err(|error| error.to_string())
    }
}
