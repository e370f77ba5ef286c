//! The role `Dispatch`, for the engine: it claims due deliveries, and settles or releases them.

use std::sync::Arc;
use std::time::Duration;

use super::state::Health;
use crate::domain::id::EndpointKey;
use crate::domain::rate_limit::Rate;
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::start_permit::CountedStart;
use crate::store::values::{Claimed, Isolation, Settled, Settlement, Unattempted};

role! {
    /// Leases deliveries and takes their outcomes. The simulation of the engine has an implementation of its own.
    pub trait Dispatch: Health {
        /// Leases deliveries of an endpoint that are due, those last that a replay has made and nobody has begun to
        /// send, and of each kind the longest due first, of the same time the lowest id. It does so as far as there is
        /// memory for them and the endpoint's rate limit allows their attempts to begin. Their attempts are counted
        /// towards the limit in the same commit.
        async fn claim(&self, endpoint: EndpointKey, limit: usize) -> Result<Claimed, StoreError>;

        /// Counts an attempt that begins within `validity` towards the rate limit of its endpoint, in place of
        /// `earlier`, which was counted for it and for which nothing was sent. `None` where no attempt may begin now.
        /// After an error `earlier` may be counted or not: it allows no request any more, and is not given back.
        async fn count_start(
            &self,
            endpoint: EndpointKey,
            rate: Rate,
            earlier: Option<CountedStart>,
            validity: Duration,
        ) -> Result<Option<CountedStart>, StoreError>;

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
        /// What was counted for them towards rate limits counts no more. One that its rate limit has delayed goes
        /// before what waits and became due after it.
        async fn release(&self, deliveries: Vec<Unattempted>) -> Result<(), StoreError>;
    }
}
