//! Choices that Kubernetes leaves to the implementation. Each default is the closed or the conventional reading.

/// What every back end, and the reference, must know to agree on a verdict.
///
/// ```
/// use netpol_core::{Established, Options};
/// let options = Options::default().with_established(Established::ReEvaluate);
/// assert_eq!(options.established(), Established::ReEvaluate);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Options {
    other_protocols: OtherProtocols,
    own_node_egress: OwnNodeEgress,
    established: Established,
}

impl Options {
    /// With this treatment of protocols that policies cannot name.
    #[must_use]
    pub fn with_other_protocols(mut self, other_protocols: OtherProtocols) -> Self {
        self.other_protocols = other_protocols;
        self
    }

    /// With this treatment of a pod's traffic to its own node.
    #[must_use]
    pub fn with_own_node_egress(mut self, own_node_egress: OwnNodeEgress) -> Self {
        self.own_node_egress = own_node_egress;
        self
    }

    /// With this treatment of open connections when policy changes.
    #[must_use]
    pub fn with_established(mut self, established: Established) -> Self {
        self.established = established;
        self
    }

    /// How protocols other than TCP, UDP and SCTP are treated.
    #[must_use]
    pub fn other_protocols(&self) -> OtherProtocols {
        self.other_protocols
    }

    /// How a pod's traffic to its own node is treated.
    #[must_use]
    pub fn own_node_egress(&self) -> OwnNodeEgress {
        self.own_node_egress
    }

    /// How open connections are treated when policy changes.
    #[must_use]
    pub fn established(&self) -> Established {
        self.established
    }
}

/// Protocols other than TCP, UDP and SCTP (NP-51). Neighbor discovery always passes (NP-52).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "back ends must handle each")]
pub enum OtherProtocols {
    /// Only a rule without ports lets them pass an isolated pod.
    #[default]
    Police,
    /// They always pass.
    Allow,
}

/// What a pod sends to the node that it runs on (NP-71).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "back ends must handle each")]
pub enum OwnNodeEgress {
    /// Policed as any other destination: an exemption would let a pod without egress reach node-local services.
    #[default]
    Police,
    /// Exempt from the NetworkPolicy tier, as the introduction of the Kubernetes page reads.
    Allow,
}

/// Connections that were open before policy changed (NP-62).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "back ends must handle each")]
pub enum Established {
    /// They go on; policy decides on new connections only.
    #[default]
    Keep,
    /// Their next packet is judged by the policy then in force.
    ReEvaluate,
}
