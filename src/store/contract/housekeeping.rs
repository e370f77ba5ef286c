//! The role `Housekeeping`: removes old and deleted rows in the background, in small steps.

use std::time::Duration;

use crate::domain::retention::Retention;
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::values::{PurgePosition, PurgeRound};

role! {
    /// Removes what is deleted or old. Where several processes share a database, one of them does the work, and for the
    /// others there is nothing to do.
    pub trait Housekeeping {
        /// Removes a step of what deleted endpoints and accounts left behind. Returns whether there may be more.
        async fn purge_deleted(&self) -> Result<bool, StoreError>;

        /// Makes the partitions of the days ahead, where the history has partitions.
        #[postgres(unchecked)]
        async fn make_days(&self, now: Timestamp) -> Result<(), StoreError>;

        /// Begins a round of retention: drops the days that no account keeps, where the history has partitions. A day
        /// that cannot be dropped does not stop the others. Returns where the removal by rows begins; `None` where
        /// another process does it. A day of many rows takes longer than other calls may.
        #[postgres(unchecked, unbounded)]
        async fn begin_purge(&self, retention: Retention, now: Timestamp) -> Result<Option<PurgeRound>, StoreError>;

        /// Removes a step of what accounts need not keep any longer: finished deliveries, their events, bodies. A step
        /// looks at a bounded number of rows, and none is looked at twice in a round. Returns where the next step goes
        /// on, or `None` at the end. An error is that of the account at `from`, or of the whole database: a caller who
        /// goes on behind that account misses no other.
        async fn purge_old(
            &self,
            retention: Retention,
            now: Timestamp,
            from: PurgePosition,
        ) -> Result<Option<PurgePosition>, StoreError>;

        /// When the oldest part of the history that is kept began: its oldest day, or its oldest event; `None` if there
        /// is none.
        async fn oldest_kept(&self) -> Result<Option<Timestamp>, StoreError>;

        /// Removes a step of replays that were finished, and of events that were missed, before anything that is kept.
        /// Returns whether there may be more.
        async fn purge_old_replays(&self, retention: Retention, now: Timestamp) -> Result<bool, StoreError>;

        /// Removes a step of the audit log from before `cutoff`. Returns whether there may be more.
        async fn purge_audit_log(&self, cutoff: Timestamp) -> Result<bool, StoreError>;

        /// Removes a step of stored replies whose time is over. Returns whether there may be more.
        async fn purge_stored_replies(&self) -> Result<bool, StoreError>;

        /// Removes a step of sessions and portal links that have ended. Returns whether there may be more.
        async fn purge_sessions(&self, idle: Duration) -> Result<bool, StoreError>;

        /// Removes a step of counts that no chart shows any more. Returns whether there may be more.
        async fn purge_attempt_counts(&self, now: Timestamp) -> Result<bool, StoreError>;
    }
}
