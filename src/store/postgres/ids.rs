//! Ids that grow with time and never repeat, whoever gives them out.
//!
//! An id is a millisecond and 20 bits. The bits come from a sequence of the database, a block at a time: no two processes
//! have the same block, and a block is used up or dropped within a second, long before the sequence has come round.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use tokio::time::Instant;

use super::{get, rows};
use crate::domain::id::DeliveryId;
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// Ids in one block.
const BLOCK: i64 = 1_024;

/// Blocks until the 20 bits come round: a million ids.
const BLOCKS: i64 = (1 << 20) / BLOCK;

/// How long a block may be used.
const BLOCK_LIFE: Duration = Duration::from_secs(1);

/// The blocks of one writer.
#[derive(Default)]
pub(super) struct Ids {
    /// What is left of each block, the end of it excluded.
    left: Vec<(i64, i64)>,
    taken_at: Option<Instant>,
    last: i64,
}

impl Ids {
    /// Makes sure that there are `count` ids, and returns those of this moment.
    pub async fn reserve(
        &mut self,
        db: &impl GenericClient,
        count: usize,
        now: Timestamp,
    ) -> Result<Vec<i64>, StoreError> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        if self.taken_at.is_none_or(|at| at.elapsed() >= BLOCK_LIFE) {
            self.left.clear();
        }
        let have: i64 = self.left.iter().map(|(first, end)| end - first).sum();
        if have < count {
            let blocks = (count - have + BLOCK - 1) / BLOCK;
            let began = Instant::now();
            let sql = "SELECT nextval('id_blocks') AS block FROM generate_series(1, $1::bigint)";
            for row in rows(db, sql, &[&blocks]).await? {
                let block = get::<i64>(&row, "block")?.rem_euclid(BLOCKS);
                self.left.push((block * BLOCK, (block + 1) * BLOCK));
            }
            if self.taken_at.is_none_or(|_| have == 0) {
                self.taken_at = Some(began);
            }
        }
        let mut ids = Vec::new();
        // A clock that was set back must not bring an id again.
        let millis = DeliveryId::first_at(now).0.max(self.last);
        while i64::try_from(ids.len()).unwrap_or(i64::MAX) < count {
            let Some((first, end)) = self.left.first_mut() else { break };
            ids.push(millis | *first);
            *first += 1;
            if first == end {
                self.left.remove(0);
            }
        }
        self.last = millis;
        ids.sort_unstable();
        Ok(ids)
    }
}
