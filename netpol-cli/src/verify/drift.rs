//! What changed since the rules were applied, and what of it matters.

use super::source::{Source, read_dump};
use crate::args::VerifyArgs;
use crate::kernel::record;
use crate::{Failure, terminal};
use netpol_k8s::Manifests;
use netpol_verify::{Blame, ProofOptions, Report, blame, read_dumps};

/// What changed.
pub(crate) struct Drift {
    pub(crate) since: Since,
    pub(crate) changes: Vec<Blame>,
    /// Do the manifests ask for other rules than those that were applied?
    pub(crate) other_rules: bool,
}

/// Since when.
#[derive(Clone, Copy)]
pub(crate) enum Since {
    /// `netpol apply`, at this time, in seconds since 1970.
    Apply(u64),
    /// The dumps that were given.
    Dumps,
}

/// What changed since the dumps that were given, or since `apply`; none if that is not known.
pub(super) fn since(
    args: &VerifyArgs,
    source: &Source,
    manifests: &Manifests,
    report: &Report,
    options: &ProofOptions,
) -> Result<Option<Drift>, Failure> {
    let (since, other_rules, dumps) = if !args.since.is_empty() {
        let dumps = args.since.iter().map(|path| read_dump(path)).collect::<Result<Vec<_>, _>>()?;
        (Since::Dumps, false, dumps)
    } else if args.inspect.dump.is_empty() {
        match record::read(&args.state, &args.claim.ruleset) {
            Ok(Some(record)) => {
                let other_rules = !record.is_of(&source.rules(manifests)?);
                (Since::Apply(record.applied), other_rules, record.dumps())
            }
            Ok(None) => return Ok(None),
            // The proof does not depend on it.
            Err(why) => {
                let why = format!("what changed since `netpol apply` is not known: {why}");
                eprintln!("warning: {}", terminal::printable(&why));
                return Ok(None);
            }
        }
    } else {
        return Ok(None);
    };
    let before = read_dumps(&dumps).map_err(|error| Failure::Message(error.to_string()))?;
    let changes = blame(&before, &source.machine, report, &options.own);
    Ok(Some(Drift { since, changes, other_rules }))
}
