//! Counts of what was denied.

use std::ops::AddAssign;

/// What was denied.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "what every packet filter of Linux counts")]
pub struct Denied {
    /// So many packets.
    pub packets: u64,
    /// So many bytes, with their IP headers.
    pub bytes: u64,
}

impl AddAssign for Denied {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}
