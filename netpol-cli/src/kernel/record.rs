//! What the kernel listed after `netpol apply`, kept so that `netpol verify` can tell what changed since.
//!
//! One file for each network namespace and ruleset, below a directory that is gone when the machine restarts, as the rules
//! are.

use crate::args::{RulesetArgs, StateArgs};
use netpol_core::{Inventory, Ruleset};
use netpol_verify::Dump;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// The form of the file.
const VERSION: u32 = 1;

/// What was applied, and what the kernel listed then.
#[derive(Deserialize, Serialize)]
pub(crate) struct Record {
    version: u32,
    /// Seconds since 1970.
    pub(crate) applied: u64,
    pub(crate) backend: String,
    /// A digest of the rules that were wanted.
    wanted: String,
    dumps: Vec<Text>,
}

#[derive(Deserialize, Serialize)]
struct Text {
    name: String,
    text: String,
}

impl Record {
    /// A record of now.
    pub(crate) fn new(backend: String, rules: &Ruleset, dumps: Vec<Dump>) -> Self {
        Self {
            version: VERSION,
            applied: now(),
            backend,
            wanted: digest(rules),
            dumps: dumps.into_iter().map(|Dump { name, text }| Text { name, text }).collect(),
        }
    }

    /// Were these the rules that were applied?
    pub(crate) fn is_of(&self, rules: &Ruleset) -> bool {
        self.wanted == digest(rules)
    }

    pub(crate) fn dumps(self) -> Vec<Dump> {
        let dump = |Text { name, text }| Dump { name: format!("{name}, after apply"), text };
        self.dumps.into_iter().map(dump).collect()
    }

    /// Writes it down in place of an older one.
    pub(crate) fn write(&self, state: &StateArgs, ruleset: &RulesetArgs) -> Result<(), String> {
        let path = path(state, ruleset)?;
        let written = || {
            std::fs::create_dir_all(&state.state)?;
            // Whole or not at all, and for nobody else to read: it has the addresses of all pods.
            let draft = path.with_extension(format!("{}.draft", std::process::id()));
            let options = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&draft)?;
            let mut file = std::io::BufWriter::new(options);
            serde_json::to_writer(&mut file, self)?;
            std::io::Write::flush(&mut file)?;
            std::fs::rename(&draft, &path)
        };
        written().map_err(|error: std::io::Error| format!("`{}`: {error}", path.display()))
    }
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "people are told when; no verdict depends on it")]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What was recorded last for this ruleset in this network namespace, if anything was.
pub(crate) fn read(state: &StateArgs, ruleset: &RulesetArgs) -> Result<Option<Record>, String> {
    let path = path(state, ruleset)?;
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("`{}`: {error}", path.display())),
    };
    match serde_json::from_slice::<Record>(&text) {
        Ok(record) if record.version == VERSION => Ok(Some(record)),
        Ok(record) => {
            Err(format!("`{}` has the unknown version {}", path.display(), record.version))
        }
        Err(error) => Err(format!("`{}`: {error}", path.display())),
    }
}

/// Forgets it: there are no rules any more.
pub(crate) fn forget(state: &StateArgs, ruleset: &RulesetArgs) {
    if let Ok(path) = path(state, ruleset) {
        // One that stays is replaced by the next `apply`.
        let _ = std::fs::remove_file(path);
    }
}

/// Forgets it if it is of one of these back ends; the rules of another are still there.
pub(crate) fn forget_of(backends: &[String], state: &StateArgs, ruleset: &RulesetArgs) {
    if let Ok(Some(record)) = read(state, ruleset)
        && backends.contains(&record.backend)
    {
        forget(state, ruleset);
    }
}

/// Of one network namespace and one pair of names.
fn path(state: &StateArgs, ruleset: &RulesetArgs) -> Result<PathBuf, String> {
    let namespace = std::fs::metadata("/proc/self/ns/net");
    let number = namespace.map_err(|error| format!("`/proc/self/ns/net`: {error}"))?.ino();
    Ok(state.state.join(format!("{number}-{}-{}.json", ruleset.table, ruleset.prefix)))
}

fn digest(rules: &Ruleset) -> String {
    let digest = Sha256::digest(format!("{:?}", Inventory::of(rules)));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
