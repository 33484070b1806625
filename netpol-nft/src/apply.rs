//! Making the kernel equal to a ruleset, and reading back what it has.

use crate::command::Command;
use crate::error::{Error, Failure, explain, line_of, run};
use crate::installed::{Counted, Installed, InstalledTable};
use crate::layout::{Defect, Layout, MARKER, chain_name, counting_set_name, layout};
use crate::model::{
    Action, Chain, Field, IpVersion, Match, Model, Name, Rule, Table, TableFamily, Test, Value,
};
use crate::options::{Guard, NftOptions};
use crate::plan::{Plan, transaction};
use netpol_core::{AddressSet, Backend, Delta, Direction, Inventory, ProgramId, Ruleset};
use netpol_host::{Comment, Denied, Host};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
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

impl Nftables {
    /// The rules of `host`, as these options want them. Nothing is read or changed yet.
    #[must_use]
    pub fn new(host: Host, options: NftOptions) -> Self {
        Self { host, options, ruleset: None, believed: None, report: Report::default() }
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

    /// What of `ruleset` is installed, read back from the kernel, in the terms of that ruleset.
    ///
    /// Networks that are written out in rules have no set of their own; they count as installed if all the chains of the
    /// ruleset are, whose names are digests of their rules.
    ///
    /// # Errors
    ///
    /// The kernel's ruleset could not be read, or there are programs or sets in it that are not of `ruleset`.
    pub fn installed_of(&self, ruleset: &Ruleset) -> Result<Option<Inventory>, Error> {
        let (installed, _) = Installed::read(&self.host, self.options.table())?;
        if installed.tables.is_empty() {
            return Ok(None);
        }
        let wanted = layout(ruleset, &self.options).model;
        inventory(&installed, ruleset, &wanted).map(Some)
    }

    fn enforce(&mut self, ruleset: Ruleset, believed: Option<Installed>) -> Result<(), Error> {
        self.report = Report::default();
        self.believed = None;
        let installed = match believed {
            Some(believed) => believed,
            None => Installed::read(&self.host, self.options.table())?.0,
        };
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
            transactions: plan.steps().iter().filter(|(_, commands)| !commands.is_empty()).count(),
            took: Duration::ZERO,
            defects,
            left_over: None,
            guard,
        };
        match self.commit(&plan.clean) {
            Ok(()) => self.believed = Some(Installed::of(&model)),
            // The new rules are in force; what is left over is read again and removed by the next change.
            Err(Refusal::Fatal(error)) => report.left_over = Some(error.to_string()),
            Err(Refusal::Command(message, _)) => report.left_over = Some(message),
        }
        report.took = self.report.took;
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
            Ok(_) => Ok(()),
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

    /// In the terms of the ruleset that this value applied last; see [`Nftables::installed_of`] for another.
    fn installed(&mut self) -> Result<Option<Inventory>, Error> {
        match &self.ruleset {
            Some(ruleset) => self.installed_of(ruleset),
            None => self.installed_of(&Ruleset::default()),
        }
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
        self.report.transactions = usize::from(!commands.is_empty());
        Ok(())
    }
}

/// Has the kernel no netdev family, or no ingress hook?
fn lacks_netdev(message: &str, command: Option<&Command>) -> bool {
    command.is_some_and(|command| command.family() == TableFamily::Netdev)
        && message.contains("not supported")
}

/// The policies that a command is about.
fn policies(model: &Model, command: Option<&Command>) -> String {
    let Some(command) = command else { return String::new() };
    let (Some(table), Some(name)) = (model.tables.get(&command.family()), command.name()) else {
        return String::new();
    };
    if let Command::AddRule(_, _, rule) = command
        && !rule.comment.is_empty()
    {
        return rule.comment.to_string();
    }
    match table.chains.get(name) {
        Some(chain) => chain.title.to_string(),
        None => table.sets.get(name).map(|set| set.comment.to_string()).unwrap_or_default(),
    }
}

/// Takes out of the model what the kernel refused: the device of a source guard, or a program, whose pods are closed. None
/// if it is neither.
fn give_up(model: &mut Model, command: &Command, error: &Error) -> Option<Defect> {
    let (family, name) = (command.family(), command.name()?.clone());
    let policies = policies(model, Some(command));
    let table = model.tables.get_mut(&family)?;
    if family == TableFamily::Netdev {
        let device = table.chains.get(&name)?.hook.as_ref()?.device.clone()?;
        table.chains.remove(&name);
        return Some(Defect::MissingDevice { device: device.as_str().to_owned() });
    }
    // Everything that leads to it.
    let mut refused = BTreeSet::from([name.clone()]);
    loop {
        let leads = |chain: &Chain| chain.rules.iter().any(|rule| mentions(rule, &refused));
        let more: Vec<Name> = table
            .chains
            .iter()
            .filter(|(name, chain)| !refused.contains(*name) && leads(chain))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            break;
        }
        refused.extend(more);
    }
    let is_base = |name: &Name| table.chains.get(name).is_some_and(|chain| chain.hook.is_some());
    if refused.iter().any(is_base) || name.as_str() == MARKER {
        return None;
    }
    let closed = close(table, family);
    for map in table.maps.values_mut() {
        for chain in map.elements.values_mut().filter(|chain| refused.contains(*chain)) {
            *chain = closed.clone();
        }
    }
    table.chains.retain(|name, _| !refused.contains(name));
    table.sets.remove(&name);
    let message = error.to_string();
    Some(Defect::Refused { chain: name.to_string(), policies, message })
}

fn mentions(rule: &Rule, names: &BTreeSet<Name>) -> bool {
    let test = |condition: &Match| matches!(&condition.test, Test::In(set) if names.contains(set));
    let action = |action: &Action| match action {
        Action::Goto(chain) | Action::Jump(chain) => names.contains(chain),
        _ => false,
    };
    rule.matches.iter().any(test) || rule.actions.iter().any(action)
}

/// A chain that denies everything but neighbor discovery.
fn close(table: &mut Table, family: TableFamily) -> Name {
    let mut rules = Vec::new();
    if family == TableFamily::Ip6 {
        let test = Test::Is(Value::Icmpv6Types(133, 137));
        rules.push(Rule {
            matches: vec![Match { fields: vec![Field::Icmpv6Type], mask: None, test }],
            actions: vec![Action::Return],
            comment: Comment::new("neighbor discovery"),
        });
    }
    let comment = Comment::new("closed: the kernel refused the rules");
    let actions = vec![Action::Counter, Action::Drop];
    rules.push(Rule { actions, comment: comment.clone(), ..Rule::default() });
    let name = chain_name("closed", None, &rules);
    table.chains.insert(name.clone(), Chain { hook: None, rules, title: comment });
    name
}

/// What is installed, in the terms of a ruleset.
fn inventory(installed: &Installed, ruleset: &Ruleset, wanted: &Model) -> Result<Inventory, Error> {
    let mut inventory = Inventory::default();
    let programs: BTreeMap<String, ProgramId> =
        ruleset.programs().keys().map(|id| (id.to_string(), *id)).collect();
    let pod_sets = by_name(ruleset.pod_sets().keys());
    let named_port_sets = by_name(ruleset.named_port_sets().keys());
    let net_sets = by_name(ruleset.net_sets().keys());
    for (&family, table) in &installed.tables {
        let version = match family {
            TableFamily::Ip => IpVersion::V4,
            TableFamily::Ip6 => IpVersion::V6,
            TableFamily::Netdev => continue,
        };
        for (name, elements) in &table.sets {
            let unknown = || Error::Unrecognized { name: name.to_string() };
            let Some((kind, id)) = name.as_str().split_once('_') else { continue };
            let id = id.split('_').next().unwrap_or(id);
            match kind {
                "p" => {
                    let id = pod_sets.get(id).ok_or_else(unknown)?;
                    let set = inventory.pod_sets.entry(**id).or_default();
                    set.extend(elements.iter().flatten().filter_map(address));
                }
                "n" => {
                    let id = named_port_sets.get(id).ok_or_else(unknown)?;
                    let set = inventory.named_port_sets.entry(**id).or_default();
                    set.extend(elements.iter().filter_map(|element| match element.as_slice() {
                        [Value::Address(address), Value::Ports(port, _)] => Some((*address, *port)),
                        _ => None,
                    }));
                }
                "c" => {
                    let id = net_sets.get(id).ok_or_else(unknown)?;
                    let length = name.as_str().rsplit_once('_').and_then(|(_, l)| l.parse().ok());
                    let networks = elements.iter().flatten().filter_map(|v| networks(v, length));
                    let networks = networks.fold(AddressSet::empty(), |all, some| all.union(&some));
                    let set = inventory.net_sets.entry(**id).or_default();
                    *set = set.union(&networks);
                }
                _ => {}
            }
        }
        let mut known: BTreeMap<&Name, ProgramId> = BTreeMap::new();
        for name in table.chains.keys() {
            let mut parts = name.as_str().split('_');
            let (Some("i" | "e"), Some(id)) = (parts.next(), parts.next()) else { continue };
            let id = programs.get(id);
            let id = id.ok_or_else(|| Error::Unrecognized { name: name.to_string() })?;
            known.insert(name, *id);
            inventory.programs.insert(*id);
        }
        for (map, direction) in [("i", Direction::Ingress), ("e", Direction::Egress)] {
            let map = table.maps.iter().find(|(name, _)| name.as_str() == map);
            for (element, chain) in map.into_iter().flat_map(|(_, map)| map) {
                let (Some(address), Some(id)) =
                    (element.iter().find_map(address), known.get(chain))
                else {
                    continue;
                };
                inventory.dispatch.insert((direction, address), *id);
            }
        }
        add_inline_networks(&mut inventory, ruleset, table, wanted.tables.get(&family), version);
    }
    Ok(inventory)
}

/// Networks that are written out in rules are installed if all the rules are.
fn add_inline_networks(
    inventory: &mut Inventory,
    ruleset: &Ruleset,
    installed: &InstalledTable,
    wanted: Option<&Table>,
    version: IpVersion,
) {
    let intact = |(name, chain): (&Name, &Chain)| {
        let comments = chain.rules.iter().map(|rule| rule.comment.as_str());
        let installed = installed.chains.get(name);
        installed.is_some_and(|chain| comments.eq(chain.iter().map(String::as_str)))
    };
    if !wanted.is_some_and(|table| table.chains.iter().all(intact)) {
        return;
    }
    for (id, addresses) in ruleset.net_sets() {
        let prefix = format!("c_{id}");
        if installed.sets.keys().any(|name| name.as_str().starts_with(&prefix)) {
            continue;
        }
        let family = match version {
            IpVersion::V4 => netpol_core::Family::V4,
            IpVersion::V6 => netpol_core::Family::V6,
        };
        let set = inventory.net_sets.entry(*id).or_default();
        *set = set.union(&addresses.restricted_to(family));
    }
}

fn by_name<'a, T: Display + 'a>(ids: impl Iterator<Item = &'a T>) -> BTreeMap<String, &'a T> {
    ids.map(|id| (id.to_string(), id)).collect()
}

fn address(value: &Value) -> Option<IpAddr> {
    match value {
        Value::Address(address) => Some(*address),
        _ => None,
    }
}

fn networks(value: &Value, length: Option<u8>) -> Option<AddressSet> {
    match value {
        Value::Address(address) => Some(match length {
            Some(length) => ipnet::IpNet::new(*address, length).ok()?.into(),
            None => (*address).into(), // an interval of one
        }),
        Value::Addresses(first, last) => Some(AddressSet::range(*first, *last)),
        _ => None,
    }
}
