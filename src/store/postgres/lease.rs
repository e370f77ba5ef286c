//! How long a node's leases outlive its last heartbeat.

use std::time::Duration;

/// A node that was not heard of for this long has lost its leases.
pub(super) const LEASE: Duration = Duration::from_secs(10);
