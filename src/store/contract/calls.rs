//! The role `Calls`: idempotency keys and the windows of rate limits, which all nodes share.

use std::time::Duration;

use uuid::Uuid;

use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::values::{RateWindow, ReplyScope, StoredReply};

role! {
    /// Idempotency keys and rate limits.
    pub trait Calls {
        /// The reply that is stored under an idempotency key.
        async fn stored_reply(&self, scope: ReplyScope) -> Result<Option<StoredReply>, StoreError>;

        /// Stores the reply to a call that changed nothing.
        async fn store_reply(&self, scope: ReplyScope, reply: StoredReply) -> Result<(), StoreError>;

        /// A new holder for a mark of [`Calls::begin_call`]; `None` where there are no other processes to be told.
        fn draw_holder(&self) -> Option<Uuid>;

        /// Marks a call with an idempotency key as under way over all nodes; `false` where it is under way already.
        /// `holder` is this call's own. The mark is void when its node is gone, and in any case after
        /// [`CALL_LIFE`](crate::store::CALL_LIFE).
        #[postgres(unchecked)]
        async fn begin_call(&self, scope: &ReplyScope, holder: Uuid) -> Result<bool, StoreError>;

        /// Removes the marks of calls that are answered, where these holders have them.
        #[postgres(unchecked)]
        async fn end_calls(&self, calls: &[(ReplyScope, Uuid)]) -> Result<(), StoreError>;

        /// Takes calls of a caller's window in a bucket of rate limits, which all nodes share. It opens a window where
        /// none is open. It takes at least `least` calls, or what is left of `limit`.
        #[postgres(unchecked)]
        async fn take_calls(
            &self,
            key: Uuid,
            bucket: &'static str,
            limit: u32,
            least: u32,
            length: Duration,
            now: Timestamp,
        ) -> Result<RateWindow, StoreError>;
    }
}
