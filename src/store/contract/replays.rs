//! The roles `Replays`, for callers, and `ReplayWork`, for the engine: deliveries that are sent again.

use crate::domain::delivery::Delivery;
use crate::domain::id::{AccountId, DeliveryId, EndpointId, ReplayId};
use crate::domain::replay::{NewReplay, Replay};
use crate::store::errors::StoreError;
use crate::store::values::{Missed, OpenReplay, PendingReply, Step};

role! {
    /// Retries and replays, as callers ask for them.
    pub trait Replays {
        /// Makes a delivery due that has succeeded or failed, with its schedule begun afresh.
        async fn retry(
            &self,
            owner: AccountId,
            id: DeliveryId,
            pending_reply: Option<PendingReply<Delivery>>,
        ) -> Result<Delivery, StoreError>;

        /// Writes a replay down, unless its endpoint or its account has as many unfinished ones as it may have. Its
        /// first deliveries are made by [`ReplayWork::replay_step`].
        async fn create_replay(
            &self,
            owner: AccountId,
            endpoint: EndpointId,
            new: NewReplay,
            pending_reply: Option<PendingReply<Replay>>,
        ) -> Result<Replay, StoreError>;

        /// One replay of the account.
        async fn replay(&self, owner: AccountId, id: ReplayId) -> Result<Replay, StoreError>;

        /// Stops a replay. Its deliveries that nobody has begun to send are removed, from memory too. A replay that is
        /// finished stays as it is.
        async fn cancel_replay(&self, owner: AccountId, id: ReplayId) -> Result<(), StoreError>;

        /// What the endpoint did not get because it was not active.
        async fn missed(&self, owner: AccountId, id: EndpointId) -> Result<Missed, StoreError>;
    }
}

role! {
    /// Replays, as the engine carries them out.
    pub trait ReplayWork {
        /// Resolves when a replay may have been asked for since the last time.
        #[postgres(unchecked, unbounded)]
        async fn replay_wanted(&self) -> ();

        /// The unfinished replays, the oldest first.
        async fn open_replays(&self) -> Result<Vec<OpenReplay>, StoreError>;

        /// Goes on with an unfinished replay: counts its events, or makes deliveries of the next.
        async fn replay_step(&self, key: i64) -> Result<Step, StoreError>;
    }
}
