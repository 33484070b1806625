//! Private network namespaces.
#![allow(dead_code, reason = "each test file uses a part")]
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests, too, fail by panicking"
)]

use netpol_core::{Cluster, Ruleset, Scope, compile};
use netpol_host::Host;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A network namespace that goes when it is dropped.
pub(crate) struct Netns(pub(crate) String);

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Netns {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("npnft-{}-{number}", std::process::id());
        let output = Command::new("ip").args(["netns", "add", &name]).output();
        let output = output.expect("iproute2 is installed (Debian: apt-get install iproute2)");
        assert!(output.status.success(), "needs root: {}", text(&output.stderr));
        Self(name)
    }

    pub(crate) fn host(&self) -> Host {
        Host::in_namespace(&self.0)
    }

    pub(crate) fn run(&self, command: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.0])
            .args(command)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    pub(crate) fn ok(&self, command: &[&str], input: &str) -> String {
        let output = self.run(command, input);
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    #[track_caller]
    pub(crate) fn load(&self, script: &str) {
        let output = self.run(&["nft", "-f", "-"], script);
        assert!(output.status.success(), "{}\n{script}", text(&output.stderr));
    }

    /// The ruleset without counts.
    pub(crate) fn listing(&self) -> String {
        self.ok(&["nft", "--stateless", "list", "ruleset"], "")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn cluster_ruleset(cluster: &Cluster) -> Ruleset {
    compile(cluster, Scope::Cluster).unwrap()
}
