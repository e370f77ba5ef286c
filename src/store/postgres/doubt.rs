//! Writes of which nobody knows whether they happened: their answer was lost, or nobody waited for it any longer.
//!
//! Such a write may have leased deliveries to this node that are in nobody's memory, and that nobody would ever send. When it
//! can no longer happen, they are given back.

use std::time::Duration;

use deadpool_postgres::Pool;

use super::execute;
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// A write that leases asks the database for its time first, and does nothing when it comes later than this after it was
/// sent.
pub(super) const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// By then it has happened or never will: it began within [`WRITE_WITHIN`], a statement is cut off after 4.5 s, and a
/// transaction whose client says nothing after 5 s (see `open.rs`).
const DECIDED_AFTER: Duration = Duration::from_secs(20);

/// Between two tries to give back.
const AGAIN: Duration = Duration::from_secs(5);

/// Deliveries that a write may lease. They are given back when this is dropped before [`Doubt::over`].
pub(super) struct Doubt {
    pool: Pool,
    lease: i64,
    deliveries: Vec<i64>,
}

impl Doubt {
    /// About a write that begins now.
    pub fn about(pool: &Pool, lease: i64, deliveries: Vec<i64>) -> Self {
        Self { pool: pool.clone(), lease, deliveries }
    }

    /// The write has happened, or certainly not.
    pub fn over(mut self) {
        self.deliveries.clear();
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        let (pool, lease, deliveries) = (self.pool.clone(), self.lease, std::mem::take(&mut self.deliveries));
        if deliveries.is_empty() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(give_back(pool, lease, deliveries, DECIDED_AFTER));
        }
    }
}

async fn give_back(pool: Pool, lease: i64, deliveries: Vec<i64>, decided_after: Duration) {
    tokio::time::sleep(decided_after).await;
    loop {
        match super::in_time(free(&pool, lease, &deliveries)).await {
            Ok(0) => return,
            Ok(freed) => {
                tracing::warn!(
                    deliveries = freed,
                    "a write whose answer was lost had happened: its deliveries are due"
                );
                return;
            }
            Err(error) => tracing::debug!(%error, "it is not known yet what became of a write"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Due at once; found by the next look at everything that is due.
async fn free(pool: &Pool, lease: i64, deliveries: &[i64]) -> Result<u64, StoreError> {
    let sql =
        format!("UPDATE queue SET lease = NULL, due_at = {} WHERE lease = $1 AND delivery = ANY($2)", super::node::NOW);
    execute(&pool.get().await?, &sql, &[&lease, &deliveries]).await
}

/// When a write that begins now comes too late, by the database's clock.
pub(super) fn deadline(now: Timestamp) -> i64 {
    now.plus(WRITE_WITHIN).as_millis()
}
