//! Ids that grow with time and never repeat, whoever gives them out.
//!
//! An id is a millisecond and 20 bits. The bits come from a sequence of the database, a block at a time: no two
//! processes have the same block, and a block is used up or dropped long before the sequence has come round.
//!
//! A failover to a standby that lost commits sets the sequence back, so that blocks are given out a second time. Their
//! ids differ all the same, because their milliseconds do: a block of the old server is used for [`BLOCK_LIFE`] at
//! most, and no process uses a block of another server than before until [`SERVER_PAUSE`] has passed ([`Given`]).
//! Within that time the clock of the new server may even be behind that of the old one.
//!
//! Times are those of the database's clock. Where that clock is set back, a process goes on after its own last id, so
//! that its times stand still, until the clock has caught up or the process is started again. From then on ids follow
//! the clock: what a clock ahead has made keeps its later ids and times. Only an import brings offsets ([`IdTimes`]).

use std::collections::VecDeque;
use std::time::Duration;

use deadpool_postgres::GenericClient;
use tokio::time::Instant;

use super::sql::{get, rows};
use crate::domain::id::{IdTimes, Offset};
use crate::domain::time::millis;
use crate::lock::Mutex;
use crate::store::errors::StoreError;
use crate::store::numbers::row_count;

/// Ids in one block.
const BLOCK: i64 = 1_024;

/// After so many ids the 20 bits come round.
const ROUND: i64 = 1 << 20;

/// How long a block may be used. A standby takes longer to be promoted, and a look-up four times a second costs
/// nothing.
const BLOCK_LIFE: Duration = Duration::from_millis(250);

/// How long a process gives out no ids after its database was replaced by another server: the life of a block, and
/// three quarters of a second by which the servers' clocks may differ. It is short beside the failover itself.
const SERVER_PAUSE: Duration = Duration::from_secs(1);

/// What this process has given out, whichever part of it did.
#[derive(Default)]
pub(super) struct Given {
    /// The last id. Every later one is greater, whatever the clock and the sequence do.
    last: Mutex<i64>,
    server: Mutex<Option<Server>>,
}

/// The server that blocks come from, by the time at which it was started, and since when a process knows that it is
/// this one; `None` where it never was another.
#[derive(Clone, Copy, Debug)]
struct Server {
    started_at: i64,
    since: Option<Instant>,
}

impl Server {
    /// Of a block that comes from the server which was started at that time.
    fn of(known: Option<Self>, started_at: i64, now: Instant) -> Self {
        match known {
            Some(known) if known.started_at == started_at => known,
            Some(_) => Self { started_at, since: Some(now) },
            None => Self { started_at, since: None },
        }
    }

    /// How long its blocks must not be used yet.
    fn pause(self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| SERVER_PAUSE.saturating_sub(now - since))
    }
}

impl Given {
    /// How long a block that comes from this server must not be used yet.
    fn pause(&self, started_at: i64) -> Duration {
        let mut known = self.server.lock();
        let now = Instant::now();
        let server = Server::of(*known, started_at, now);
        *known = Some(server);
        server.pause(now)
    }
}

/// The blocks of one writer.
#[derive(Default)]
pub(super) struct Ids {
    /// What is left of each block, the end of it excluded, as the sequence gave it: not yet cut to 20 bits.
    left: VecDeque<(i64, i64)>,
    taken_at: Option<Instant>,
}

impl Ids {
    /// So many ids in their order, the first of them this one at the earliest.
    pub async fn reserve(
        &mut self,
        db: &impl GenericClient,
        count: usize,
        first: i64,
        given: &Given,
    ) -> Result<Vec<i64>, StoreError> {
        let count = row_count(count);
        if self.taken_at.is_none_or(|at| at.elapsed() >= BLOCK_LIFE) {
            self.left.clear();
        }
        let have: i64 = self.left.iter().map(|(first, end)| end - first).sum();
        // The millisecond of that id, or the next one where its bits are not all 0.
        let mut moment = ((first - 1) | (ROUND - 1)) + 1;
        if have < count {
            let blocks = (count - have + BLOCK - 1) / BLOCK;
            let mut began = Instant::now();
            let sql = "SELECT nextval('id_blocks') AS block, \
                       (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS started_at \
                       FROM generate_series(1, $1::bigint)";
            let mut pause = Duration::ZERO;
            for row in rows(db, sql, &[&blocks]).await? {
                let block: i64 = get(&row, "block")?;
                self.left.push_back((block * BLOCK, (block + 1) * BLOCK));
                pause = given.pause(get(&row, "started_at")?);
            }
            if !pause.is_zero() {
                tracing::warn!("the database is another server than before: new ids wait for a second");
                tokio::time::sleep(pause).await;
                moment += millis(pause) * ROUND;
                began = Instant::now();
            }
            if have == 0 {
                self.taken_at = Some(began);
            }
        }
        Ok(self.take(count, moment, given))
    }

    /// Takes from what is left, at `moment` (an id's upper part) or later.
    fn take(&mut self, count: i64, mut moment: i64, given: &Given) -> Vec<i64> {
        debug_assert!(moment.rem_euclid(ROUND) == 0, "the bits are the block's");
        let mut last = given.last.lock();
        let mut ids = Vec::new();
        while row_count(ids.len()) < count {
            let Some((first, end)) = self.left.front_mut() else { break };
            let bits = first.rem_euclid(ROUND);
            // The clock was set back, the bits have come round, or another part of the process was faster: the
            // millisecond after the last id is a new one.
            if moment | bits <= *last {
                moment = (*last | (ROUND - 1)) + 1;
            }
            let id = moment | bits;
            debug_assert!(id > *last, "ids grow and never repeat");
            *last = id;
            ids.push(id);
            *first += 1;
            if first == end {
                self.left.pop_front();
            }
        }
        ids
    }
}

/// The times of ids that an import has brought.
pub(super) async fn read_times(db: &impl GenericClient) -> Result<IdTimes, StoreError> {
    let offset = |row| Ok(Offset { first_id: get(row, "first_id")?, offset_ms: get(row, "offset_ms")? });
    let found = rows(db, "SELECT first_id, offset_ms FROM id_offsets", &[]).await?;
    Ok(IdTimes::new(found.iter().map(offset).collect::<Result<_, StoreError>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_repeat_however_many_there_are_and_whatever_the_clock_does() {
        let given = Given::default();
        let mut ids = Ids { left: [(BLOCK * 1_000, BLOCK * 4_000)].into(), taken_at: None };
        let mut all = Vec::new();
        for (count, moment) in [(2_000_000, 5 * ROUND), (500_000, 3 * ROUND), (10_000, 9 * ROUND), (10_000, 9 * ROUND)]
        {
            all.extend(ids.take(count, moment, &given));
        }
        assert_eq!(all.len(), 2_520_000);
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "they grow");
    }

    #[test]
    fn blocks_that_a_failover_brings_again_give_other_ids() {
        let given = Given::default();
        let block = || Ids { left: [(BLOCK * 7, BLOCK * 8)].into(), taken_at: None };
        let (before, after) = (block().take(100, 5 * ROUND, &given), block().take(100, 5 * ROUND, &given));
        assert!(before.iter().all(|id| !after.contains(id)), "one process never gives an id twice");
    }

    #[test]
    fn blocks_of_another_server_wait_until_those_of_the_last_one_are_over() {
        let (now, later) = (Instant::now(), |ms| Instant::now() + Duration::from_millis(ms));
        let first = Server::of(None, 1, now);
        assert_eq!(first.pause(now), Duration::ZERO, "a start waits for nothing");
        let same = Server::of(Some(first), 1, now);
        assert_eq!(same.pause(now), Duration::ZERO);
        let other = Server::of(Some(same), 2, now);
        assert_eq!(other.pause(now), SERVER_PAUSE);
        let still = Server::of(Some(other), 2, later(500));
        assert!(still.pause(later(500)) < SERVER_PAUSE, "it is counted from the first of its blocks");
        assert_eq!(still.pause(later(2_000)), Duration::ZERO);
        assert!(BLOCK_LIFE < SERVER_PAUSE);
    }
}
