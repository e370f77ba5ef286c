//! The role `Dispatch`, for the engine: it claims due deliveries, and settles or releases them.

use std::sync::Arc;
use std::time::Duration;

use super::state::Health;
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::values::{Claimed, Isolation, Settled, Settlement, Unattempted};

role! {
    /// Leases deliveries and takes their outcomes. The simulation of the engine has an implementation of its own.
    pub trait Dispatch: Health {
        /// Leases deliveries of an endpoint that are due, the longest waiting first, as far as there is memory for
        /// them.
        async fn claim(&self, endpoint: EndpointKey, limit: usize) -> Result<Claimed, StoreError>;

        /// When each active endpoint's next delivery that waits in the store is due.
        async fn due_endpoints(&self) -> Result<Vec<(EndpointKey, Timestamp)>, StoreError>;

        /// How long after a write of outcomes the next outcomes wait for others.
        fn settle_window(&self) -> Duration;

        /// Writes outcomes, as `transition` decides. Each is written only if its lease still stands. With
        /// [`Isolation::Savepoint`] no other write fails where this one does.
        #[postgres(unchecked)]
        async fn settle(
            &self,
            settlements: Arc<Vec<Settlement>>,
            isolation: Isolation,
        ) -> Result<Vec<Settled>, StoreError>;

        /// Gives deliveries back that were not attempted: they are due at once, or when their endpoint is active again.
        async fn release(&self, deliveries: Vec<Unattempted>) -> Result<(), StoreError>;
    }
}
