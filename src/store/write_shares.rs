//! What each account has waiting for the writer or being written. An account has a share of it, so that a write of
//! another account waits for a bounded number of rows, however many calls one account makes at once. After a large
//! write its account pauses, so that most of the writer's time is left for others.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::errors::StoreError;
use super::values::{ReplyScope, StoredReply};
use crate::domain::event::NewEvent;
use crate::domain::id::AccountId;
use crate::lock::Mutex;
use crate::waiting::at_most;

/// Rows and KiB of one account that wait for the writer or are being written: ten batches of 100 events with bodies of
/// half a KiB. SQLite's writer takes some 8 ms for so many.
const MAX_WEIGHT: u32 = 1_536;

/// After a write of more than this its account pauses. A batch of 100 events for one endpoint comes to half of it.
const MAX_WEIGHT_WITHOUT_PAUSE: usize = 512;

/// A pause is so many times as long as the account's part of the write was: two thirds of the writer's time are left
/// for others.
const PAUSE_TIMES: u32 = 2;

/// The longest pause: a call that comes right after a large write waits for less than [`PATIENCE`].
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// How long a call waits for its account's share. On PostgreSQL a call ends after 5 s, of which some are left for the
/// write.
const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of a stored reply up to which the calls that make such replies bound them.
const MAX_SMALL_REPLY: usize = 4 << 10;

/// How long it is remembered how many rows the events of an account come to.
const FAN_OUT_MEMORY: Duration = Duration::from_secs(10);

/// Accounts that are remembered although nothing of them is being written.
const MAX_IDLE_ACCOUNTS: usize = 1_024;

/// How much is written.
#[derive(Clone, Copy, Default)]
pub(super) struct WriteSize {
    /// Of events, deliveries, missed events, outcomes and stored replies.
    pub rows: usize,
    /// Of bodies, and of what is stored with them.
    pub bytes: usize,
}

impl WriteSize {
    /// A KiB of bodies takes about as long as a row.
    fn weight(self) -> usize {
        self.rows + self.bytes / 1024
    }

    /// The part of a share that it takes; what weighs more takes the whole share.
    fn permits(self) -> u32 {
        u32::try_from(self.weight()).map_or(MAX_WEIGHT, |weight| weight.clamp(1, MAX_WEIGHT))
    }

    /// What has been written since it was `before`.
    pub fn since(self, before: Self) -> Self {
        Self { rows: self.rows - before.rows, bytes: self.bytes - before.bytes }
    }

    /// The bytes of these events.
    pub fn bytes_of(events: &[NewEvent]) -> usize {
        events.iter().map(NewEvent::stored_bytes).sum()
    }
}

/// What accounts have in a batch that is written at once.
pub(super) struct BatchWeights {
    of: HashMap<AccountId, usize>,
    total: usize,
}

impl BatchWeights {
    /// Of the writes of a batch.
    pub fn of(writes: impl IntoIterator<Item = (AccountId, WriteSize)>) -> Self {
        let mut of: HashMap<AccountId, usize> = HashMap::default();
        for (account, size) in writes {
            *of.entry(account).or_default() += size.weight();
        }
        let total = of.values().sum();
        Self { of, total }
    }

    /// A batch was written from `began` to `ended`. Returns when the writes of one account would have begun if they had
    /// been made alone, and had ended at the same time: each row and KiB counts alike.
    pub fn began(&self, account: AccountId, began: Instant, ended: Instant) -> Instant {
        let weight = |weight: usize| u32::try_from(weight).expect("a batch is far smaller");
        let own = weight(self.of.get(&account).copied().unwrap_or_default());
        ended - ended.saturating_duration_since(began) * own / weight(self.total).max(1)
    }
}

/// The shares of all accounts.
#[derive(Default)]
pub(super) struct WriteShares(Mutex<HashMap<AccountId, Arc<AccountShare>>>);

impl WriteShares {
    /// A part of the account's share for these events, which are of one account. Calls of an account are served in the
    /// order in which they came.
    pub async fn of_events(&self, events: &[NewEvent]) -> Result<Option<WriteShare>, StoreError> {
        let Some(first) = events.first() else { return Ok(None) };
        self.take(first.account, events.len(), WriteSize::bytes_of(events)).await.map(Some)
    }

    /// A part of the account's share for the reply to a call that changed nothing: at once, or not at all. A reply can
    /// be twenty times as large as its call, so that replies that wait would take much memory. A small reply, and an
    /// operator's, needs none.
    pub fn of_reply(&self, scope: &ReplyScope, reply: &StoredReply) -> Result<Option<WriteShare>, StoreError> {
        let size = WriteSize { rows: 0, bytes: reply.body.len() };
        let Some(account) = scope.account.filter(|_| size.bytes > MAX_SMALL_REPLY) else { return Ok(None) };
        let account = self.of(account);
        match account.free.clone().try_acquire_many_owned(size.permits()) {
            Ok(permits) if account.paused_until().is_none() => Ok(Some(WriteShare::new(account, permits))),
            Ok(_) | Err(_) => Err(StoreError::Busy),
        }
    }

    async fn take(&self, account: AccountId, events: usize, bytes: usize) -> Result<WriteShare, StoreError> {
        let account = self.of(account);
        let size = WriteSize { rows: events * account.rows_per_event(), bytes };
        let taken = at_most(PATIENCE, account.acquire(size.permits())).await;
        match taken {
            Ok(permits) => Ok(WriteShare::new(account, permits)),
            Err(_) => Err(StoreError::Busy),
        }
    }

    fn of(&self, account: AccountId) -> Arc<AccountShare> {
        let mut accounts = self.0.lock();
        if accounts.len() > MAX_IDLE_ACCOUNTS && !accounts.contains_key(&account) {
            accounts.retain(|_, share| Arc::strong_count(share) > 1 || share.paused_until().is_some());
        }
        accounts.entry(account).or_default().clone()
    }
}

/// The share of one account.
struct AccountShare {
    free: Arc<Semaphore>,
    pace: Mutex<Pace>,
}

impl Default for AccountShare {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(MAX_WEIGHT as usize)), pace: Mutex::default() }
    }
}

/// What the last writes of an account have shown.
#[derive(Default)]
struct Pace {
    /// When the pause after the last large write ends.
    paused_until: Option<Instant>,
    /// The most rows that an event has come to of late, itself included, and when.
    rows_per_event: Option<(usize, Instant)>,
}

impl AccountShare {
    async fn acquire(&self, weight: u32) -> OwnedSemaphorePermit {
        let permits = self.free.clone().acquire_many_owned(weight).await.expect("nobody closes it");
        while let Some(until) = self.paused_until() {
            tokio::time::sleep_until(until).await;
        }
        permits
    }

    /// When the pause ends, if there is one now.
    fn paused_until(&self) -> Option<Instant> {
        self.pace.lock().paused_until.filter(|until| *until > Instant::now())
    }

    /// The rows that an event of the account is expected to come to. Who subscribes shows only when it is written.
    fn rows_per_event(&self) -> usize {
        self.pace.lock().rows_per_event.map_or(1, |(rows, _)| rows)
    }

    /// So many events were written, and came to so many rows.
    fn note_fan_out(&self, events: usize, rows: usize, now: Instant) {
        let Some(rows) = rows.checked_div(events).filter(|rows| *rows > 0) else { return };
        let mut pace = self.pace.lock();
        let is_over = |at: Instant| now.saturating_duration_since(at) > FAN_OUT_MEMORY;
        if pace.rows_per_event.is_none_or(|(most, at)| rows >= most || is_over(at)) {
            pace.rows_per_event = Some((rows, now));
        }
    }

    /// A large write that began then is committed.
    fn pause_after(&self, began: Instant) {
        let now = Instant::now();
        let until = now + (now.saturating_duration_since(began) * PAUSE_TIMES).min(MAX_PAUSE);
        let mut pace = self.pace.lock();
        pace.paused_until = pace.paused_until.max(Some(until));
    }
}

/// A part of an account's share, given back when it is dropped.
pub(super) struct WriteShare {
    account: Arc<AccountShare>,
    /// When the write began, where it was large.
    large_since: Option<Instant>,
    _permits: OwnedSemaphorePermit,
}

impl WriteShare {
    fn new(account: Arc<AccountShare>, permits: OwnedSemaphorePermit) -> Self {
        Self { account, large_since: None, _permits: permits }
    }

    /// The write of so many events, which began at `began`, came to `size`. Where that is large, the part comes back:
    /// it is dropped when the write is committed, and the account pauses then.
    pub fn ran(mut self, began: Instant, events: usize, size: WriteSize) -> Option<Self> {
        self.account.note_fan_out(events, size.rows, began);
        self.large_since = (size.weight() > MAX_WEIGHT_WITHOUT_PAUSE).then_some(began);
        self.large_since.is_some().then_some(self)
    }
}

impl Drop for WriteShare {
    fn drop(&mut self) {
        // Before the permits are given back.
        if let Some(began) = self.large_since {
            self.account.pause_after(began);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(n: u8) -> AccountId {
        AccountId::from_random([n; 16])
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_large_write_its_account_pauses_twice_as_long_and_no_other_does() {
        let (shares, took) = (WriteShares::default(), Duration::from_millis(300));
        let share = shares.take(account(1), 1_000, 0).await.expect("a share");
        let began = Instant::now();
        tokio::time::advance(took).await;
        let large = share.ran(began, 1_000, WriteSize { rows: 51_000, bytes: 0 });
        drop(large.expect("it is kept until the commit"));
        let committed = Instant::now();
        drop(shares.take(account(2), 1, 0).await.expect("a share"));
        assert_eq!(committed.elapsed(), Duration::ZERO);
        drop(shares.take(account(1), 1, 0).await.expect("a share"));
        let paused = committed.elapsed();
        assert!((took * PAUSE_TIMES..took * PAUSE_TIMES + Duration::from_millis(5)).contains(&paused), "{paused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_batch_each_account_pauses_for_its_own_part_of_the_time() {
        let (shares, rows) = (WriteShares::default(), |rows| WriteSize { rows, bytes: 0 });
        let writes = [(account(1), rows(6_000)), (account(2), rows(1_000)), (account(1), rows(3_000))];
        let mut taken = Vec::new();
        for (account, size) in writes {
            taken.push((account, size, shares.take(account, 1, 0).await.expect("a share")));
        }
        let began = Instant::now();
        tokio::time::advance(Duration::from_millis(500)).await;
        let (weights, ended) = (BatchWeights::of(writes), Instant::now());
        for (account, size, share) in taken {
            drop(share.ran(weights.began(account, began, ended), 1, size).expect("it is large"));
        }
        let pause = |n| shares.of(account(n)).paused_until().map(|until| until - ended);
        assert_eq!(pause(1), Some(Duration::from_millis(450) * PAUSE_TIMES));
        assert_eq!(pause(2), Some(Duration::from_millis(50) * PAUSE_TIMES));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_is_a_large_write_too_and_the_longest_pause_ends_within_the_patience_of_a_call() {
        let shares = WriteShares::default();
        let share = shares.take(account(1), 1, 2 << 20).await.expect("a share");
        let began = Instant::now();
        tokio::time::advance(Duration::from_secs(30)).await;
        drop(share.ran(began, 1, WriteSize { rows: 1, bytes: 2 << 20 }).expect("it is large"));
        let share = shares.take(account(1), 100, 50 << 10).await.expect("it waits for the end of the pause");
        assert!(share.ran(began, 100, WriteSize { rows: 200, bytes: 50 << 10 }).is_none(), "it is not large");
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_reply_waits_for_nothing_and_a_small_one_needs_no_share() {
        let shares = WriteShares::default();
        let of_reply = |account: Option<AccountId>, bytes| {
            let scope = ReplyScope { account, path: "/v1/events/batch".into(), key: "k".into() };
            let reply = StoredReply { body_hash: [0; 32], status: 422, request_id: "r".into(), body: vec![0; bytes] };
            shares.of_reply(&scope, &reply)
        };
        let first = of_reply(Some(account(1)), 1 << 20).ok().flatten().expect("a share");
        assert_eq!(of_reply(Some(account(1)), 1 << 20).err(), Some(StoreError::Busy));
        assert!(of_reply(Some(account(1)), MAX_SMALL_REPLY).is_ok_and(|share| share.is_none()));
        assert!(of_reply(None, 1 << 20).is_ok_and(|share| share.is_none()));
        let began = Instant::now();
        tokio::time::advance(Duration::from_millis(10)).await;
        drop(first.ran(began, 0, WriteSize { rows: 0, bytes: 1 << 20 }).expect("it is large"));
        assert_eq!(of_reply(Some(account(1)), 1 << 20).err(), Some(StoreError::Busy), "the account pauses");
        tokio::time::advance(Duration::from_millis(21)).await;
        assert!(of_reply(Some(account(1)), 1 << 20).is_ok_and(|share| share.is_some()));
    }

    #[tokio::test(start_paused = true)]
    async fn events_count_with_the_rows_that_events_of_their_account_came_to_of_late() {
        let shares = WriteShares::default();
        let ran = |share: WriteShare, rows| drop(share.ran(Instant::now(), 1, WriteSize { rows, bytes: 0 }));
        ran(shares.take(account(1), 1, 0).await.expect("a share"), 51);
        // An event for few in between changes nothing.
        ran(shares.take(account(1), 1, 0).await.expect("a share"), 1);
        let mut taken = Vec::new();
        while let Ok(share) = shares.take(account(1), 1, 0).await {
            taken.push(share);
        }
        assert_eq!(taken.len(), MAX_WEIGHT as usize / 51);
        assert_eq!(shares.take(account(1), 1, 0).await.err(), Some(StoreError::Busy));
        assert!(shares.take(account(2), 1_000, 0).await.is_ok(), "another account has a share of its own");
        drop(taken);
        tokio::time::advance(FAN_OUT_MEMORY * 2).await;
        ran(shares.take(account(1), 1, 0).await.expect("a share"), 1);
        assert!(shares.take(account(1), MAX_WEIGHT as usize, 0).await.is_ok());
        assert_eq!(shares.of(account(1)).rows_per_event(), 1, "it is forgotten");
    }
}
