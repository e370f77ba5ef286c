//! Ids that grow with time and never repeat, whoever gives them out.
//!
//! An id is a millisecond and 20 bits. The bits come from a sequence of the database, a block at a time: no two processes
//! have the same block, and a block is used up or dropped within a second, long before the sequence has come round.

use std::collections::VecDeque;
use std::time::Duration;

use deadpool_postgres::GenericClient;
use tokio::time::Instant;

use super::{get, rows};
use crate::domain::id::DeliveryId;
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// Ids in one block.
const BLOCK: i64 = 1_024;

/// After so many ids the 20 bits come round.
const ROUND: i64 = 1 << 20;

/// How long a block may be used.
const BLOCK_LIFE: Duration = Duration::from_secs(1);

/// The blocks of one writer.
#[derive(Default)]
pub(super) struct Ids {
    /// What is left of each block, the end of it excluded, as the sequence gave it: not yet cut to 20 bits.
    left: VecDeque<(i64, i64)>,
    taken_at: Option<Instant>,
    /// The last id that was given out.
    last: i64,
}

impl Ids {
    /// So many ids of this moment, in their order.
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
                let block: i64 = get(&row, "block")?;
                self.left.push_back((block * BLOCK, (block + 1) * BLOCK));
            }
            if have == 0 {
                self.taken_at = Some(began);
            }
        }
        Ok(self.take(count, DeliveryId::first_at(now).0))
    }

    /// Takes from what is left, at `moment` (an id's upper part) or later.
    fn take(&mut self, count: i64, moment: i64) -> Vec<i64> {
        let mut ids = Vec::new();
        // A clock that was set back must not bring an id again: the moment after the last one is a new one.
        let mut moment = if moment <= self.last { (self.last | (ROUND - 1)) + 1 } else { moment };
        let mut round = None;
        while i64::try_from(ids.len()).unwrap_or(i64::MAX) < count {
            let Some((first, end)) = self.left.front_mut() else { break };
            // The bits have come round: the same ones belong to another millisecond.
            let of = first.div_euclid(ROUND);
            if round.is_some_and(|round| round != of) {
                moment += ROUND;
            }
            round = Some(of);
            ids.push(moment | first.rem_euclid(ROUND));
            *first += 1;
            if first == end {
                self.left.pop_front();
            }
        }
        self.last = ids.last().copied().unwrap_or(self.last).max(self.last);
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_repeat_however_many_there_are_and_whatever_the_clock_does() {
        let mut ids = Ids { left: [(BLOCK * 1_000, BLOCK * 4_000)].into(), taken_at: None, last: 0 };
        let mut all = Vec::new();
        for (count, moment) in [(2_000_000, 5 * ROUND), (500_000, 3 * ROUND), (10_000, 9 * ROUND), (10_000, 9 * ROUND)]
        {
            all.extend(ids.take(count, moment));
        }
        assert_eq!(all.len(), 2_520_000);
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "they grow");
    }
}
