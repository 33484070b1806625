//! Making the kernel equal to a ruleset, and reading back what it has.

use crate::error::{Error, explain, line_of};
use crate::installed::{Installed, RuleCount, Tables, parse_rules, parse_sets, read_tables};
use crate::inventory::inventory;
use crate::layout::Defect;
use crate::model::{Builtin, Element, Model, SetName};
use crate::options::{Flavor, IptablesOptions};
use crate::plan::{Phase, Plan, Program, Step, layout_beside, subject};
use crate::tools::{Tools, ipset_save};
use netpol_core::{Backend, Delta, Direction, Family, Inventory, Ruleset};
use netpol_host::{Denied, Host, ProgramError};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// iptables and ipset as a back end: the rules of one network namespace, changed through `iptables-restore`,
/// `ip6tables-restore` and `ipset`.
///
/// ```no_run
/// use netpol_core::{Backend, Cluster, Scope, compile};
/// use netpol_host::Host;
/// use netpol_iptables::{Iptables, IptablesOptions};
///
/// let ruleset = compile(&Cluster::new(), Scope::Cluster)?;
/// let mut iptables = Iptables::new(Host::here(), IptablesOptions::default());
/// iptables.replace(&ruleset)?;
/// for defect in iptables.report().defects() {
///     eprintln!("{defect}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Iptables {
    host: Host,
    options: IptablesOptions,
    /// The programs, once they are found; and what was found beside them.
    tools: Option<(Tools, Option<Defect>)>,
    /// What was applied last, and is in force.
    ruleset: Option<Ruleset>,
    /// What the kernel has since then if nobody else changed it; none if that must be read again.
    believed: Option<Installed>,
    report: Report,
}

/// What the last change did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    flavor: Option<Flavor>,
    lines: [usize; 3],
    runs: usize,
    took: Duration,
    defects: Vec<Defect>,
    left_over: Option<String>,
}

impl Report {
    /// Which implementation of iptables was used; none if nothing was done yet.
    #[must_use]
    pub fn flavor(&self) -> Option<Flavor> {
        self.flavor
    }

    /// How many lines created, switched and cleaned up; see [`Plan`].
    #[must_use]
    pub fn lines(&self) -> [usize; 3] {
        self.lines
    }

    /// How many times a program was run to change something: none if nothing had to change.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// How long these programs and the kernel took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// What is not as it should be; nothing is open because of it but the check of source addresses, where it says so.
    #[must_use]
    pub fn defects(&self) -> &[Defect] {
        &self.defects
    }

    /// Why what is no longer used could not be removed, if it could not. The next change removes it.
    #[must_use]
    pub fn left_over(&self) -> Option<&str> {
        self.left_over.as_deref()
    }
}

/// How many parts of a ruleset the kernel may refuse before all of it is given up.
const MOST_REFUSALS: usize = 64;

impl Iptables {
    /// The rules of `host`, as these options want them. Nothing is read or changed yet.
    #[must_use]
    pub fn new(host: Host, options: IptablesOptions) -> Self {
        Self {
            host,
            options,
            tools: None,
            ruleset: None,
            believed: None,
            report: Report::default(),
        }
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
    pub fn options(&self) -> &IptablesOptions {
        &self.options
    }

    /// Lays the rules out differently from the next change on. The prefix stays what it was: rules of another prefix are
    /// another ruleset.
    pub fn set_options(&mut self, options: IptablesOptions) {
        let prefix = self.options.prefix().clone();
        self.options = options.with_prefix(prefix);
        self.believed = None;
        self.tools = None;
    }

    /// What the last change did.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Which implementation of iptables is used: the chosen one, else what the host uses.
    ///
    /// # Errors
    ///
    /// There is none, or the chosen one is not there.
    pub fn flavor(&self) -> Result<Flavor, Error> {
        Ok(self.tools()?.flavor)
    }

    /// What `replace` would do, read from the kernel as it is now. Changes nothing.
    ///
    /// # Errors
    ///
    /// The kernel's rules could not be read.
    pub fn plan(&self, ruleset: &Ruleset) -> Result<Plan, Error> {
        let tools = self.tools()?;
        let installed = self.read(&tools)?;
        let layout = layout_beside(ruleset, &self.options, &installed, &BTreeSet::new());
        Plan::new(&installed, &layout, tools.flavor)
    }

    /// Packets and bytes that were denied since the rules that denied them were made, by the comment of the rule: the
    /// policy, the rule and its place.
    ///
    /// # Errors
    ///
    /// The kernel's rules could not be read.
    pub fn denied(&self) -> Result<BTreeMap<String, Denied>, Error> {
        let tools = self.tools()?;
        let (mut tables, mut counts) = (Tables::new(), Vec::new());
        for family in Family::ALL {
            let listing = tools.save(&self.host, family, &["-c"])?;
            parse_rules(self.options.prefix(), family, &listing, &mut tables, &mut counts)?;
        }
        let mut denied: BTreeMap<String, Denied> = BTreeMap::new();
        for RuleCount { words, met } in counts {
            let after = |option: &str| {
                let at = words.iter().position(|word| word == option)?;
                words.get(at + 1).map(String::as_str)
            };
            if let (Some("DROP" | "REJECT"), Some(comment)) = (after("-j"), after("--comment")) {
                *denied.entry(comment.to_owned()).or_default() += met;
            }
        }
        Ok(denied)
    }

    /// Packets and bytes that were denied to each address of a local pod, since it is policed in that direction. Nothing, if
    /// the options want no counters.
    ///
    /// # Errors
    ///
    /// The kernel's sets could not be read.
    pub fn denied_by_address(&self) -> Result<BTreeMap<(Direction, IpAddr), Denied>, Error> {
        let prefix = self.options.prefix();
        let sets = parse_sets(prefix, &ipset_save(&self.host)?)?;
        let mut denied = BTreeMap::new();
        for direction in Direction::ALL {
            for family in Family::ALL {
                let set = sets.get(&SetName::denied(prefix, family, direction));
                for (element, met) in set.into_iter().flat_map(|set| &set.counts) {
                    if let Element::Address(address) = element {
                        denied.insert((direction, *address), *met);
                    }
                }
            }
        }
        Ok(denied)
    }

    /// What of `ruleset` is installed, read back from the kernel, in the terms of that ruleset.
    ///
    /// Networks that are written out in rules have no set of their own; they count as installed if all the chains of the
    /// ruleset are.
    ///
    /// # Errors
    ///
    /// The kernel's rules could not be read, or packets meet programs or sets that are not of `ruleset`.
    pub fn installed_of(&self, ruleset: &Ruleset) -> Result<Option<Inventory>, Error> {
        let tools = self.tools()?;
        let installed = self.read(&tools)?;
        if installed.tables.is_empty() {
            return Ok(None);
        }
        inventory(&installed, ruleset, &self.options).map(Some)
    }

    /// The programs that were found before, or that are there now.
    pub(crate) fn tools(&self) -> Result<Tools, Error> {
        Ok(self.find_tools()?.0)
    }

    fn find_tools(&self) -> Result<(Tools, Option<Defect>), Error> {
        match (&self.tools, self.options.flavor()) {
            (Some(found), _) => Ok(found.clone()),
            (None, Some(flavor)) => Ok((Tools::of(&self.host, flavor)?, None)),
            (None, None) => Tools::in_use(&self.host, self.options.prefix()),
        }
    }

    /// What is installed, in both implementations.
    pub(crate) fn read(&self, tools: &Tools) -> Result<Installed, Error> {
        let prefix = self.options.prefix();
        let mut installed = Installed::read(&self.host, tools, prefix)?;
        match Tools::of(&self.host, tools.flavor.other()) {
            Ok(other) => installed.other = read_tables(&self.host, &other, prefix)?,
            Err(Error::NoFlavor { .. } | Error::Program(ProgramError::Missing { .. })) => {}
            Err(error) => return Err(error),
        }
        Ok(installed)
    }

    fn enforce(&mut self, ruleset: Ruleset, believed: Option<Installed>) -> Result<(), Error> {
        self.report = Report::default();
        self.believed = None;
        let (tools, both) = self.find_tools()?;
        self.tools = Some((tools.clone(), both.clone()));
        let mut installed = match believed {
            Some(believed) => believed,
            None => self.read(&tools)?,
        };
        let mut report = Report { flavor: Some(tools.flavor), ..Report::default() };
        let mut refused = Vec::new();
        let mut closed = BTreeSet::new();
        let (layout, plan) = loop {
            let layout = layout_beside(&ruleset, &self.options, &installed, &closed);
            let plan = Plan::new(&installed, &layout, tools.flavor)?;
            let Some(failure) = self.carry_out(&tools, &plan, &mut report) else {
                break (layout, plan);
            };
            // What is not enforced in the rules of one program does not stand in the way of the others.
            let line = failure.line.clone().unwrap_or_default();
            let error = failure.explain(&layout.model, self.options.lock_wait());
            let programs = subject(&line).0.map(|name| layout.programs_with(&name));
            let programs = programs.filter(|_| error.is_refusal()).unwrap_or_default();
            if programs.is_empty() || refused.len() == MOST_REFUSALS {
                return Err(error);
            }
            closed.extend(programs);
            refused.push(Defect::Refused {
                name: subject(&line).0.unwrap_or_default(),
                policies: policies(&layout.model, &line),
                message: error.to_string(),
            });
            // ipset has no transaction: what it did before the line that failed is there.
            installed = self.read(&tools)?;
        };
        report.defects = layout.defects.iter().cloned().chain(both).chain(refused).collect();
        if report.left_over.is_none() {
            let mut believed = Installed::of(&layout.model);
            // A set that stays is made for as many members as before.
            for (name, set) in &mut believed.sets {
                let swapped = format!("swap {} {name}", name.spare());
                let is_swap = |step: &Step| step.text.lines().any(|line| line == swapped);
                if let Some(before) = installed.sets.get(name)
                    && !plan.steps.iter().any(is_swap)
                {
                    set.capacity = before.capacity;
                }
            }
            self.believed = Some(believed);
        }
        self.report = report;
        self.ruleset = Some(ruleset);
        Ok(())
    }

    /// Runs the steps; what failed, if it was not only the cleaning.
    fn carry_out(&self, tools: &Tools, plan: &Plan, report: &mut Report) -> Option<Failure> {
        for step in &plan.steps {
            match self.run(tools, step, report) {
                Ok(()) => {}
                // The new rules are in force; what is left over is read again and removed by the next change.
                Err(failure) if step.phase == Phase::Clean => {
                    report.left_over = Some(failure.message);
                    return None;
                }
                Err(failure) => return Some(failure),
            }
        }
        None
    }

    fn run(&self, tools: &Tools, step: &Step, report: &mut Report) -> Result<(), Failure> {
        let started = Instant::now();
        let output = match step.program {
            Program::Ipset => self.host.run("ipset", &["restore"], &step.text).map_err(Error::from),
            Program::Restore(flavor, family) => {
                let tools = match flavor {
                    _ if flavor == tools.flavor => Ok(tools.clone()),
                    _ => Tools::of(&self.host, flavor),
                };
                let wait = self.options.lock_wait();
                tools.and_then(|tools| tools.restore(&self.host, family, &step.text, wait))
            }
        };
        report.took += started.elapsed();
        report.runs += 1;
        let [create, switch, clean] = &mut report.lines;
        let lines = match step.phase {
            Phase::Create => create,
            Phase::Switch => switch,
            Phase::Clean => clean,
        };
        *lines += step.text.lines().count();
        let failed = |message: String, fatal| Failure {
            program: step.program,
            line: line_of(&message).and_then(|line| step.text.lines().nth(line)).map(str::to_owned),
            message,
            fatal,
        };
        match output {
            Ok(output) if output.success => Ok(()),
            Ok(output) => Err(failed(output.stderr, None)),
            Err(error) => Err(failed(error.to_string(), Some(Box::new(error)))),
        }
    }
}

/// Why a step failed.
struct Failure {
    program: Program,
    message: String,
    line: Option<String>,
    fatal: Option<Box<Error>>,
}

impl Failure {
    fn explain(self, model: &Model, waited: Duration) -> Error {
        if let Some(fatal) = self.fatal {
            return *fatal;
        }
        let line = self.line.unwrap_or_default();
        let policies = policies(model, &line);
        explain(&self.program.to_string(), &self.message, &line, policies, waited)
    }
}

/// The policies that a line is about.
fn policies(model: &Model, line: &str) -> String {
    let (name, comment) = subject(line);
    if let Some(comment) = comment {
        return comment;
    }
    let Some(name) = name else { return String::new() };
    let chains = model.tables.values().flat_map(|table| &table.chains);
    let chain = chains.filter(|(chain, _)| chain.as_str() == name).map(|(_, c)| &c.title).next();
    let set = || {
        let set = |(set, _): &(&SetName, &_)| set.as_str() == name || set.spare().as_str() == name;
        model.sets.iter().find(set).map(|(_, set)| &set.title)
    };
    chain.or_else(set).map(ToString::to_string).unwrap_or_default()
}

impl Backend for Iptables {
    type Error = Error;

    /// Reads what the kernel has, makes a plan and carries it out; see [`Plan`] for the steps. What others have changed in our
    /// chains and sets since the last time is put right. What the other implementation of iptables has of this ruleset is
    /// removed when the new rules are in force.
    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), Error> {
        self.enforce(ruleset.clone(), None)
    }

    /// Does not read the kernel's rules again; [`Backend::replace`] does. The layout is made anew, which takes time in
    /// proportion to the ruleset; what is given to the programs is in proportion to the changes.
    fn apply(&mut self, delta: &Delta) -> Result<(), Error> {
        let mut believed = self.believed.take();
        let mut ruleset = match &self.ruleset {
            Some(ruleset) => ruleset.clone(),
            None => {
                let tools = self.tools()?;
                let installed = self.read(&tools)?;
                if !installed.is_empty() {
                    return Err(Error::Baseless);
                }
                believed = Some(installed);
                Ruleset::default()
            }
        };
        ruleset.apply(delta);
        self.enforce(ruleset, believed)
    }

    /// In the terms of the ruleset that this value applied last; see [`Iptables::installed_of`] for another.
    fn installed(&mut self) -> Result<Option<Inventory>, Error> {
        match self.ruleset.clone() {
            Some(ruleset) => self.installed_of(&ruleset),
            None => self.installed_of(&Ruleset::default()),
        }
    }

    /// From both implementations of iptables. Tables that were made for our rules stay, empty; iptables-nft also gets rid of
    /// its own empty chains at the hooks where we may have had a jump.
    fn remove(&mut self) -> Result<(), Error> {
        self.report = Report::default();
        self.believed = None;
        let tools = self.tools()?;
        let installed = self.read(&tools)?;
        let plan = Plan::removal(&installed, tools.flavor);
        let mut report = Report { flavor: Some(tools.flavor), ..Report::default() };
        for step in &plan.steps {
            let done = self.run(&tools, step, &mut report);
            let model = Model::default();
            done.map_err(|failure| failure.explain(&model, self.options.lock_wait()))?;
        }
        let nft = [(&installed.tables, tools.flavor), (&installed.other, tools.flavor.other())];
        for (tables, flavor) in nft {
            if flavor == Flavor::Nft && !tables.is_empty() {
                self.remove_empty_hooks(tables)?;
            }
        }
        self.report = report;
        self.ruleset = None;
        Ok(())
    }
}

impl Iptables {
    /// iptables-nft makes a chain at a hook for the first rule, and can delete it when there is none and its policy is to
    /// accept. A refusal means that somebody needs it.
    fn remove_empty_hooks(&self, tables: &Tables) -> Result<(), Error> {
        let tools = Tools::of(&self.host, Flavor::Nft)?;
        for &(family, table) in tables.keys() {
            for &builtin in table.builtins() {
                self.remove_empty_hook(&tools, family, table.as_str(), builtin)?;
            }
        }
        Ok(())
    }

    fn remove_empty_hook(
        &self,
        tools: &Tools,
        family: Family,
        table: &str,
        builtin: Builtin,
    ) -> Result<(), Error> {
        let chain = builtin.as_str();
        let listing = tools.run(&self.host, family, &["-t", table, "-S", chain])?;
        if listing.stdout.trim() == format!("-P {chain} ACCEPT") {
            tools.run(&self.host, family, &["-t", table, "-X", chain])?;
        }
        Ok(())
    }
}
