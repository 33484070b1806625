//! Running the programs that change the kernel.

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::process::{Command, Stdio};

/// Where programs such as `nft` and `iptables-restore` are run: in the caller's network namespace, or in another.
///
/// What they change needs CAP_NET_ADMIN there.
///
/// ```
/// use netpol_host::Host;
/// let output = Host::here().run("cat", &[], "as it came")?;
/// assert_eq!(output.stdout, "as it came");
/// # Ok::<(), netpol_host::ProgramError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Host {
    prefix: Vec<OsString>,
    programs: BTreeMap<String, OsString>,
}

/// What a program left.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Output {
    /// Did it end with exit code 0?
    pub success: bool,
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

/// Why a program could not be run at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// There is no such program.
    #[error("`{program}` was not found")]
    Missing {
        /// What was to be run.
        program: String,
    },
    /// It is there but could not be run.
    #[error("`{program}` could not be run")]
    Failed {
        /// What was to be run.
        program: String,
        /// Why not.
        source: io::Error,
    },
}

impl Host {
    /// Runs what is in the path, in the caller's network namespace.
    #[must_use]
    pub fn here() -> Self {
        Self::default()
    }

    /// Runs in the named network namespace, through ip-netns(8).
    #[must_use]
    pub fn in_namespace(name: impl AsRef<OsStr>) -> Self {
        Self::here().with_prefix([
            OsStr::new("ip"),
            "netns".as_ref(),
            "exec".as_ref(),
            name.as_ref(),
        ])
    }

    /// Runs behind another command, such as `nsenter --net=/proc/4711/ns/net`.
    #[must_use]
    pub fn with_prefix<I: Into<OsString>>(mut self, prefix: impl IntoIterator<Item = I>) -> Self {
        self.prefix = prefix.into_iter().map(Into::into).collect();
        self
    }

    /// Runs `path` where `program` is asked for.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<String>, path: impl Into<OsString>) -> Self {
        self.programs.insert(program.into(), path.into());
        self
    }

    /// Runs a program with this standard input, to its end. Its messages are in English.
    ///
    /// The input is complete before the program starts. Were it written bit by bit, a caller that is killed would leave
    /// the program with half a script, which it would take for all of it.
    ///
    /// # Errors
    ///
    /// It could not be run. That it failed is no error here: see [`Output::success`].
    pub fn run(
        &self,
        program: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<Output, ProgramError> {
        let path = self.programs.get(program).map_or(OsStr::new(program), OsString::as_os_str);
        let mut words = self.prefix.iter().map(OsString::as_os_str).chain([path]);
        let first = words.next().unwrap_or(path);
        let output = Command::new(first)
            .args(words)
            .args(arguments)
            // Messages are compared, so they must not be translated.
            .env("LC_ALL", "C")
            .stdin(in_memory(input).map_err(|error| not_run(first, error))?)
            .output()
            .map_err(|error| not_run(first, error))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        let name = path.to_string_lossy();
        // `ip netns exec`, `nsenter` and `setpriv` say so themselves.
        let unfound = [format!("exec of \"{name}\" failed"), format!("failed to execute {name}")];
        if !output.status.success() && unfound.iter().any(|words| stderr.contains(words)) {
            return Err(ProgramError::Missing { program: name.into_owned() });
        }
        Ok(Output { success: output.status.success(), code: output.status.code(), stdout, stderr })
    }
}

/// A file without a name that holds this text.
fn in_memory(text: &str) -> io::Result<Stdio> {
    let mut file = File::from(memfd_create(c"netpol", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

fn not_run(program: &OsStr, source: io::Error) -> ProgramError {
    let program = program.to_string_lossy().into_owned();
    match source.kind() {
        io::ErrorKind::NotFound => ProgramError::Missing { program },
        _ => ProgramError::Failed { program, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_apart() {
        let host = Host::here().with_program("nft", "/nonexistent/nft");
        let Err(ProgramError::Missing { program }) = host.run("nft", &["list", "tables"], "")
        else {
            panic!("found");
        };
        assert_eq!(program, "/nonexistent/nft");
        let output =
            Host::here().run("sh", &["-c", "echo no >&2; exit 3"], "").expect("sh is there");
        assert_eq!((output.success, output.code, output.stderr.as_str()), (false, Some(3), "no\n"));
    }
}
