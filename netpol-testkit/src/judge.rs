//! What is tested: anything that can say what a cluster's policies do to a connection.

use netpol_core::{Backend, Cluster, Established, Options, Scope, compile};
use netpol_sim::{Connection, Simulator, reference};
use std::collections::BTreeSet;
use std::fmt;

/// Something that enforces, or knows, the policies of a cluster: a simulator, a kernel behind a back end, a CNI.
///
/// What cannot go on (a kernel that refuses a ruleset) panics: a judge is only ever part of a test.
pub trait Judge {
    /// A new cluster begins: nothing is known and no connection is open.
    fn start(&mut self, options: &Options);

    /// The cluster is now like this. Connections that are open stay so, as far as the options let them.
    fn replace(&mut self, cluster: &Cluster);

    /// May this connection be opened? It is new, even if one between the same ends is open; if it may, it is open now.
    fn connect(&mut self, connection: &Connection) -> bool;

    /// May the destination answer on this connection, which was opened just before (NP-60)?
    fn reply(&mut self, connection: &Connection) -> bool;

    /// May the source send one more packet on this connection, which was opened before the cluster became as it is
    /// (NP-62)? If it is not open, the packet opens it or is denied, as the first one is.
    fn established(&mut self, connection: &Connection) -> bool;
}

/// The specification as a judge.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    options: Options,
    cluster: Cluster,
    open: BTreeSet<Connection>,
}

impl Reference {
    /// A judge that knows no cluster yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Judge for Reference {
    fn start(&mut self, options: &Options) {
        *self = Self { options: *options, ..Self::default() };
    }

    fn replace(&mut self, cluster: &Cluster) {
        self.cluster = cluster.clone();
    }

    fn connect(&mut self, connection: &Connection) -> bool {
        let allowed = reference::allowed(&self.cluster, connection, &self.options);
        if allowed {
            self.open.insert(connection.clone());
        } else {
            self.open.remove(connection);
        }
        allowed
    }

    fn reply(&mut self, connection: &Connection) -> bool {
        self.open.contains(connection)
    }

    fn established(&mut self, connection: &Connection) -> bool {
        // What is not open, and what policy may end, is judged as if it were new.
        let goes_on = self.options.established() == Established::Keep;
        goes_on && self.open.contains(connection) || self.connect(connection)
    }
}

impl Judge for Simulator {
    fn start(&mut self, options: &Options) {
        *self = Self::with_options(*options);
    }

    #[expect(clippy::expect_used, reason = "a judge that cannot go on ends the test")]
    fn replace(&mut self, cluster: &Cluster) {
        let ruleset = compile(cluster, Scope::Cluster).expect("the cluster can be compiled");
        let Ok(()) = Backend::replace(self, &ruleset);
    }

    fn connect(&mut self, connection: &Connection) -> bool {
        self.close(connection);
        self.packet(connection).allowed()
    }

    fn reply(&mut self, connection: &Connection) -> bool {
        Self::reply(self, connection)
    }

    fn established(&mut self, connection: &Connection) -> bool {
        self.packet(connection).allowed()
    }
}

/// A connection of which a judge thinks otherwise than the specification.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Disagreement {
    connection: Connection,
    got: bool,
}

impl Disagreement {
    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What the judge said; the specification says the opposite.
    #[must_use]
    pub fn got(&self) -> bool {
        self.got
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [got, expected] = [self.got, !self.got].map(verdict);
        write!(f, "{}: {got}, but the specification says {expected}", self.connection)
    }
}

impl std::error::Error for Disagreement {}

/// Asks a judge about new connections in a cluster and compares each answer with the specification.
///
/// ```
/// use netpol_core::{Cluster, Options};
/// use netpol_testkit::{Reference, agrees, strategies::clusters_with_connections};
/// use proptest::prelude::*;
///
/// proptest!(|((cluster, connections) in clusters_with_connections())| {
///     let mut judge = Reference::new(); // or what is to be tested
///     agrees(&mut judge, &Options::default(), &cluster, &connections)?;
/// });
/// ```
///
/// # Errors
///
/// The first connection of which the judge thinks otherwise.
pub fn agrees(
    judge: &mut dyn Judge,
    options: &Options,
    cluster: &Cluster,
    connections: &[Connection],
) -> Result<(), Disagreement> {
    judge.start(options);
    judge.replace(cluster);
    for connection in connections {
        let got = judge.connect(connection);
        if got != reference::allowed(cluster, connection, options) {
            return Err(Disagreement { connection: connection.clone(), got });
        }
    }
    Ok(())
}

pub(crate) fn verdict(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}
