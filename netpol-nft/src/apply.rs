//! Making the kernel equal to a ruleset, and reading back what it has.

use crate::command::Command;
use crate::error::{Error, Failure, explain, line_of, run};
use crate::installed::{Counted, Installed};
use crate::inventory::{add_explained, inventory};
use crate::layout::{Defect, Layout, counting_set_name, layout};
use crate::options::{Guard, NftOptions};
use crate::plan::{Plan, transaction};
use crate::refusal::{give_up, lacks_netdev, policies};
use netpol_core::{Backend, Delta, Direction, Inventory, Ruleset};
use netpol_host::{Denied, Host, LocalDevices};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// nftables as a back end: the rules of one network namespace, changed through `nft`.
///
/// ```no_run
/// use netpol_core::{Backend, Cluster, Scope, compile};
/// use netpol_host::Host;
/// use netpol_nft::{Nftables, NftOptions};
///
/// let ruleset = compile(&Cluster::new(), Scope::Cluster)?;
/// let mut nftables = Nftables::new(Host::here(), NftOptions::default());
/// nftables.replace(&ruleset)?;
/// for defect in nftables.report().defects() {
///     eprintln!("{defect}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Nftables {
    host: Host,
    options: NftOptions,
    /// What was applied last, and is in force.
    ruleset: Option<Ruleset>,
    /// What the kernel has since then if nobody else changed it; none if that must be read again.
    believed: Option<Installed>,
    report: Report,
}

/// What the last change did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    commands: [usize; 3],
    transactions: usize,
    took: Duration,
    defects: Vec<Defect>,
    left_over: Option<String>,
    guard: Guard,
}

impl Report {
    /// How many commands created, switched and cleaned up; see [`Plan`].
    #[must_use]
    pub fn commands(&self) -> [usize; 3] {
        self.commands
    }

    /// How many transactions the kernel committed: none if nothing had to change.
    #[must_use]
    pub fn transactions(&self) -> usize {
        self.transactions
    }

    /// How long nft and the kernel took for them.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// What is not as it should be; nothing is open because of it but the check of source addresses, where it says so.
    #[must_use]
    pub fn defects(&self) -> &[Defect] {
        &self.defects
    }

    /// Where source addresses are checked: as the options say, or in prerouting where the kernel cannot do better.
    #[must_use]
    pub fn guard(&self) -> Guard {
        self.guard
    }

    /// Why what is no longer used could not be removed, if it could not. The next change removes it.
    #[must_use]
    pub fn left_over(&self) -> Option<&str> {
        self.left_over.as_deref()
    }
}

/// How many parts of a ruleset the kernel may refuse before all of it is given up.
const MOST_REFUSALS: usize = 64;
/// How often a plan is made anew because the kernel's ruleset is not what it was made for.
const MOST_REREADINGS: usize = 8 + MOST_REFUSALS;

impl Nftables {
    /// The rules of `host`, as these options want them. Nothing is read or changed yet.
    #[must_use]
    pub fn new(host: Host, options: NftOptions) -> Self {
        Self { host, options, ruleset: None, believed: None, report: Report::default() }
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// What the kernel has is not what this value put there.
    pub(crate) fn forget(&mut self) {
        (self.ruleset, self.believed) = (None, None);
    }

    /// How rules are laid out.
    #[must_use]
    pub fn options(&self) -> &NftOptions {
        &self.options
    }

    /// Lays the rules out differently from the next change on.
    pub fn set_options(&mut self, options: NftOptions) {
        self.options = options;
        self.believed = None;
    }

    /// What the last change did.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What `replace` would do, read from the kernel as it is now. Changes nothing.
    ///
    /// # Errors
    ///
    /// The kernel's ruleset could not be read.
    pub fn plan(&self, ruleset: &Ruleset) -> Result<Plan, Error> {
        let (installed, _) = Installed::read(&self.host, self.options.table())?;
        Ok(Plan::new(&installed, &layout(ruleset, &self.options).model))
    }

    /// Packets and bytes that were denied since the rules that denied them were made, by the comment of the rule: the
    /// policy, the rule and its place.
    ///
    /// # Errors
    ///
    /// The kernel's ruleset could not be read.
    pub fn denied(&self) -> Result<BTreeMap<String, Denied>, Error> {
        let (_, counts) = Installed::read(&self.host, self.options.table())?;
        let mut denied: BTreeMap<String, Denied> = BTreeMap::new();
        for count in counts {
            let Counted::Rule(comment) = count.of else { continue };
            let denied = denied.entry(comment).or_default();
            denied.packets += count.packets;
            denied.bytes += count.bytes;
        }
        Ok(denied)
    }

    /// Packets and bytes that were denied to each address of a local pod, since it is policed in that direction.
    ///
    /// # Errors
    ///
    /// The kernel's ruleset could not be read.
    pub fn denied_by_address(&self) -> Result<BTreeMap<(Direction, IpAddr), Denied>, Error> {
        let (_, counts) = Installed::read(&self.host, self.options.table())?;
        let counts = counts.into_iter().filter_map(|count| {
            let Counted::Member(set, address) = count.of else { return None };
            let of = |direction: &Direction| set.as_str() == counting_set_name(*direction);
            let direction = Direction::ALL.into_iter().find(of)?;
            let denied = Denied { packets: count.packets, bytes: count.bytes };
            Some(((direction, address), denied))
        });
        Ok(counts.collect())
    }

    /// What is installed, read back from the kernel, with what only the ruleset behind it can explain: networks that are
    /// written out in rules have no set of their own, and count as installed if all the chains of the ruleset are, whose
    /// names are digests of their rules; a pod that is dispatched by its device is known by the ruleset's addresses.
    ///
    /// # Errors
    ///
    /// The kernel's ruleset could not be read, or a name in it is of another layout.
    pub fn installed_of(&self, ruleset: &Ruleset) -> Result<Option<Inventory>, Error> {
        let (installed, _) = Installed::read(&self.host, self.options.table())?;
        if installed.tables.is_empty() {
            return Ok(None);
        }
        let wanted = layout(ruleset, &self.options).model;
        let devices = LocalDevices::of(ruleset, self.options.host());
        let mut inventory = inventory(&installed)?;
        add_explained(&mut inventory, &installed, ruleset, &devices, &wanted)?;
        Ok(Some(inventory))
    }

    fn enforce(&mut self, ruleset: Ruleset, believed: Option<Installed>) -> Result<(), Error> {
        self.report = Report::default();
        self.believed = None;
        let mut installed = match believed {
            Some(believed) => believed,
            None => Installed::read(&self.host, self.options.table())?.0,
        };
        let mut rereadings = 0;
        let Layout { mut model, mut defects } = layout(&ruleset, &self.options);
        let mut refusals = 0;
        let mut guard = self.options.guard();
        let plan = loop {
            let plan = Plan::new(&installed, &model);
            let done = match self.commit(&plan.create) {
                Ok(()) => self.commit(&plan.switch),
                refused => refused,
            };
            let (message, command) = match done {
                Ok(()) => break plan,
                Err(Refusal::Fatal(error)) => return Err(error),
                Err(Refusal::Command(message, command)) => (message, command),
            };
            // Before the refusal is blamed on a policy: was the plan made for what is there? Somebody else may have changed
            // it meanwhile (an nft whose caller was killed, for one), and the first transaction of this plan has.
            let (now, _) = Installed::read(&self.host, self.options.table())?;
            if now != installed && rereadings < MOST_REREADINGS {
                rereadings += 1;
                installed = now;
                continue;
            }
            refusals += 1;
            if lacks_netdev(&message, command.as_deref()) && self.options.guard() == Guard::Ingress
            {
                guard = Guard::Prerouting;
                let options = self.options.clone().with_guard(guard);
                Layout { model, defects } = layout(&ruleset, &options);
                continue;
            }
            let policies = policies(&model, command.as_deref());
            let shown = command.as_ref().map(|c| crate::text::command(&model.name, c));
            let table = format!("{}", self.options.table());
            let error = explain(&message, shown.unwrap_or_default(), policies, &table);
            let hopeless = matches!(error, Error::Owned { .. }) || refusals > MOST_REFUSALS;
            let defect =
                if hopeless { None } else { command.and_then(|c| give_up(&mut model, &c, &error)) };
            match defect {
                Some(defect) => defects.push(defect),
                None => return Err(error),
            }
        };
        let mut report = Report {
            commands: plan.steps().map(|(_, commands)| commands.len()),
            defects,
            guard,
            ..Report::default()
        };
        match self.commit(&plan.clean) {
            Ok(()) => self.believed = Some(Installed::of(&model)),
            // The new rules are in force; what is left over is read again and removed by the next change.
            Err(Refusal::Fatal(error)) => report.left_over = Some(error.to_string()),
            Err(Refusal::Command(message, _)) => report.left_over = Some(message),
        }
        // Counted while committing, plans that turned out to be stale included.
        (report.transactions, report.took) = (self.report.transactions, self.report.took);
        self.report = report;
        self.ruleset = Some(ruleset);
        Ok(())
    }

    /// One transaction: all of it or nothing.
    fn commit(&mut self, commands: &[Command]) -> Result<(), Refusal> {
        if commands.is_empty() {
            return Ok(());
        }
        let script = transaction(self.options.table(), commands);
        let started = Instant::now();
        let done = run(&self.host, &["-f", "-"], &script);
        self.report.took += started.elapsed();
        match done {
            Ok(_) => {
                self.report.transactions += 1;
                Ok(())
            }
            Err(Failure::Fatal(error)) => Err(Refusal::Fatal(error)),
            Err(Failure::Nft(message)) => {
                let command = line_of(&message).and_then(|line| commands.get(line));
                Err(Refusal::Command(message, command.cloned().map(Box::new)))
            }
        }
    }
}

enum Refusal {
    Fatal(Error),
    Command(String, Option<Box<Command>>),
}

impl Backend for Nftables {
    type Error = Error;

    /// Reads what the kernel has, makes a plan and carries it out; see [`Plan`] for the three transactions. What others
    /// have changed in our tables since the last time is put right.
    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), Error> {
        self.enforce(ruleset.clone(), None)
    }

    /// Does not read the kernel's ruleset again; [`Backend::replace`] does. The layout is made anew, which takes time in
    /// proportion to the ruleset; what is sent to the kernel is in proportion to the changes.
    fn apply(&mut self, delta: &Delta) -> Result<(), Error> {
        let mut believed = self.believed.take();
        let mut ruleset = match &self.ruleset {
            Some(ruleset) => ruleset.clone(),
            None => {
                let (installed, _) = Installed::read(&self.host, self.options.table())?;
                if !installed.tables.is_empty() {
                    return Err(Error::Baseless);
                }
                believed = Some(installed);
                Ruleset::default()
            }
        };
        ruleset.apply(delta);
        self.enforce(ruleset, believed)
    }

    /// Explained by the ruleset that this value applied last, if it applied one; see [`Nftables::installed_of`] for another
    /// and for what an unexplained inventory lacks.
    fn installed(&mut self) -> Result<Option<Inventory>, Error> {
        if let Some(ruleset) = &self.ruleset {
            return self.installed_of(ruleset);
        }
        let (installed, _) = Installed::read(&self.host, self.options.table())?;
        if installed.tables.is_empty() { Ok(None) } else { inventory(&installed).map(Some) }
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.report = Report::default();
        self.believed = None;
        let families = Installed::families(&self.host, self.options.table())?;
        let commands: Vec<Command> = families.into_iter().map(Command::DeleteTable).collect();
        self.commit(&commands).map_err(|refusal| match refusal {
            Refusal::Fatal(error) => error,
            Refusal::Command(message, _) => {
                explain(&message, String::new(), String::new(), self.options.table().as_str())
            }
        })?;
        self.ruleset = None;
        Ok(())
    }
}
