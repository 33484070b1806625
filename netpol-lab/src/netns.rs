//! Network namespaces without names: each lives as long as this process holds it.
//!
//! A thread that enters a namespace never does anything else and ends with its task, so no other code ever runs in the
//! wrong one. There is no bind mount, no entry below `/run/netns` and no helper process: when the last file descriptor is
//! closed, by whatever death, the kernel takes the namespace away with everything in it.

use crate::error::Error;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::thread;

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Netns(File);

impl Netns {
    /// A new one, with nothing in it but a loopback device that is down.
    pub(crate) fn new() -> Result<Self, Error> {
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
                Errno::EPERM => Error::NotPermitted(errno.into()),
                _ => Error::system("cannot make a network namespace")(errno.into()),
            })?;
            File::open("/proc/thread-self/ns/net")
                .map(Self)
                .map_err(Error::system("cannot open a network namespace"))
        })?
    }

    /// Does something in it, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T, Error> {
        in_thread(|| match setns(&self.0, CloneFlags::CLONE_NEWNET) {
            Ok(()) => Ok(task()),
            Err(errno) => Err(Error::system("cannot enter a network namespace")(errno.into())),
        })?
    }

    /// One more hold on it.
    pub(crate) fn try_clone(&self) -> Result<Self, Error> {
        self.0.try_clone().map(Self).map_err(Error::system("cannot hold a network namespace"))
    }

    /// Where other processes find it while this one lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

fn in_thread<T: Send>(task: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netpol-lab".to_owned());
        let handle =
            thread.spawn_scoped(scope, task).map_err(Error::system("cannot start a thread"))?;
        match handle.join() {
            Ok(value) => Ok(value),
            // The task's own panic goes on where it was called from.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A setting below `/proc/sys/net` of the namespace that this thread is in.
pub(crate) fn set(key: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/net/{key}"), value)
}
