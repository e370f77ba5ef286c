//! Leases of nodes: how long they outlive the last heartbeat, and the key that is no node's.

use std::time::Duration;

/// A node that was not heard of for this long has lost its leases.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// In the place of a node's key: nobody. The key of a node is positive.
pub(super) const NO_NODE: i64 = 0;

/// The condition that a node of `nodes` lives, as far as the others know. A dead one has the negative time of its death
/// until what is leased to it was freed.
pub(super) const ALIVE: &str = "seen_at >= 0";

/// Its opposite.
pub(super) const DEAD: &str = "seen_at < 0";
