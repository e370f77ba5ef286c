//! The role `Calls`: idempotency keys and the windows of rate limits, which all nodes share.

use std::time::Duration;

use uuid::Uuid;

use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::values::{KeepScope, KeptAnswer, RateWindow};

role! {
    /// Idempotency keys and rate limits.
    pub trait Calls {
        /// The answer kept under an idempotency key.
        async fn kept_answer(&self, scope: KeepScope) -> Result<Option<KeptAnswer>, StoreError>;

        /// Keeps the answer of a call that changed nothing.
        async fn keep_answer(&self, scope: KeepScope, kept: KeptAnswer) -> Result<(), StoreError>;

        /// A new holder for a mark of [`Calls::begin_call`]; `None` where there are no other processes to be told.
        fn draw_holder(&self) -> Option<Uuid>;

        /// Marks a call with an idempotency key as under way over all nodes; `false` where it is under way already.
        /// `holder` is this call's own. The mark is void when its node is gone, and in any case after
        /// [`CALL_LIFE`](crate::store::CALL_LIFE).
        #[postgres(unchecked)]
        async fn begin_call(&self, scope: &KeepScope, holder: Uuid) -> Result<bool, StoreError>;

        /// Removes the marks of calls that are answered, where these holders have them.
        #[postgres(unchecked)]
        async fn end_calls(&self, calls: &[(KeepScope, Uuid)]) -> Result<(), StoreError>;

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
