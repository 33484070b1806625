//! iptables with ipset, in both implementations of iptables.

use netpol_conformance::{Abilities, Candidate, Enforcer, Settings};
use netpol_core::{Backend, Delta, Family, Inventory, Ruleset};
use netpol_host::Host;
use netpol_iptables::{Error, Flavor, Guard, Iptables, IptablesOptions, layout, text};
use netpol_verify::machine::Own;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

/// iptables as a candidate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IptablesWith {
    flavor: Flavor,
    /// As files for the plain tools, as a person would load them?
    files: bool,
}

impl IptablesWith {
    pub(crate) fn backend(flavor: Flavor) -> Self {
        Self { flavor, files: false }
    }

    pub(crate) fn files(flavor: Flavor) -> Self {
        Self { flavor, files: true }
    }
}

impl Candidate for IptablesWith {
    fn name(&self) -> &'static str {
        match (self.flavor, self.files) {
            (Flavor::Legacy, false) => "iptables-legacy",
            (Flavor::Nft, false) => "iptables-nft",
            (Flavor::Legacy, true) => "files for iptables-legacy",
            (Flavor::Nft, true) => "files for iptables-nft",
        }
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            guards: true,
            rejects: true,
            logs: true,
            reads_back: true,
            // Files are loaded one after the other, and sets are swapped for new ones with the same members.
            keeps: !self.files,
            atomic: !self.files,
        }
    }

    fn start(&self, settings: &Settings) -> Box<dyn Enforcer> {
        let guard = if settings.unguarded { Guard::Off } else { Guard::Prerouting };
        let options = IptablesOptions::from(settings.host.clone());
        let options = options.with_flavor(Some(self.flavor)).with_guard(guard);
        let iptables = Iptables::new(Host::here(), options.clone());
        if !self.files {
            return Box::new(iptables);
        }
        Box::new(Files { flavor: self.flavor, options, iptables, ruleset: None })
    }

    fn own_rules(&self) -> Option<Own> {
        Some(Own::default().with_chains("NP"))
    }

    fn random_clusters(&self) -> u32 {
        if self.files { 12 } else { 50 }
    }

    fn add_foreign(&self) {
        let rules = "*filter\n:MINE - [0:0]\n-A FORWARD -j MINE\n-A MINE -s 192.0.2.1/32 -j DROP\nCOMMIT\n\
                     *raw\n-A PREROUTING -s 192.0.2.2/32 -j ACCEPT\nCOMMIT\n";
        for family in ["iptables", "ip6tables"] {
            let rules = match family {
                "iptables" => rules.to_owned(),
                _ => rules.replace("192.0.2.", "2001:db8::").replace("/32", "/128"),
            };
            let flavor = self.flavor.as_str();
            run(&format!("{family}-{flavor}-restore"), &["--noflush"], &rules);
        }
        run("ipset", &["restore"], "create mine hash:ip\nadd mine 192.0.2.3\ncreate NP hash:net\n");
    }

    /// Rules and chains in their order, sets with their members; not whether a table without a rule is loaded.
    fn snapshot(&self) -> String {
        let mut snapshot = String::new();
        for flavor in Flavor::ALL.map(Flavor::as_str) {
            for family in ["iptables", "ip6tables"] {
                let saved = run(&format!("{family}-{flavor}-save"), &[], "");
                let of_rules = |line: &&str| {
                    line.starts_with("-A ") || line.starts_with(':') && line.contains(" - ")
                };
                for line in saved.lines().filter(of_rules) {
                    let line = line.split(" [").next().unwrap_or(line);
                    snapshot.push_str(&format!("{family}-{flavor} {line}\n"));
                }
            }
        }
        // Members are in the order of their hashes.
        let sets = run("ipset", &["save"], "");
        let sets: BTreeSet<&str> = sets.lines().collect();
        snapshot + &sets.into_iter().collect::<Vec<_>>().join("\n")
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let output = Host::here().run(program, arguments, input).expect("iptables and ipset are there");
    assert!(output.success, "{program}: {}", output.stderr);
    output.stdout
}

/// The three files, and the script that loads them; removed by the back end.
struct Files {
    flavor: Flavor,
    options: IptablesOptions,
    iptables: Iptables,
    ruleset: Option<Ruleset>,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Backend for Files {
    type Error = Error;

    fn replace(&mut self, ruleset: &Ruleset) -> Result<(), Error> {
        if self.ruleset.as_ref() != Some(ruleset) {
            // Files add to what is there; a jump that they do not know stays.
            Backend::remove(self)?;
        }
        let model = layout(ruleset, &self.options).model;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = format!("netpol-files-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        std::fs::create_dir(&directory).unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.join(name), text).unwrap();
        write("netpol.ipset", text::ipset(&model));
        write("netpol.v4.iptables", text::iptables(&model, Family::V4));
        write("netpol.v6.iptables", text::iptables(&model, Family::V6));
        write("load.sh", text::load_script(&model));
        let flavor = self.flavor.as_str();
        let load = format!(
            "IPTABLES=iptables-{flavor} IP6TABLES=ip6tables-{flavor} sh '{}/load.sh'",
            directory.display()
        );
        run("sh", &["-c", &load], "");
        std::fs::remove_dir_all(directory).unwrap();
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
            Some(ruleset) => self.iptables.installed_of(ruleset),
            None => Backend::installed(&mut self.iptables),
        }
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.ruleset = None;
        Backend::remove(&mut self.iptables)
    }
}
