//! Counts calls against the rate limits: of each caller and bucket, of each account, and of repeated answers.

use std::time::Duration;

use foldhash::HashMap;
use uuid::Uuid;

use super::Api;
use super::auth::Caller;
use super::error::{ApiError, Code};
use super::limits::{Bucket, RateLimit};
use crate::domain::id::AccountId;
use crate::domain::time::Timestamp;
use crate::store::{Calls, RateWindow, StoreError};
use crate::waiting::at_most;

/// A call that cannot be counted within this time is refused.
const LIMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// All keys, users and portal links of an account together have this many times the limit of a bucket.
const ACCOUNT_TIMES: u32 = 5;

/// Repeated replies do not count against a bucket. Each costs a read of the store, so an account has this many times
/// the limit.
const REPEATED_TIMES: u32 = 10;

/// KiB that count for an event beside what its publisher sent, for each delivery, and for each endpoint that missed it.
/// A delivery that arrives at once takes 0.13 KiB on SQLite; one that fails keeps each attempt with the beginning of
/// the response.
const KIB_PER_ROW: u32 = 1;

/// Stored refusals up to this size are bounded by the calls that make them. Larger ones list the faults of a batch.
const FREE_REFUSAL_BYTES: usize = 4 << 10;

/// Tells windows of repeated answers from those of calls: ids are random, so that no other id is this one.
const REPEATED: u128 = 0x5265_7065_6174_6564_2041_6e73_7765_7273;

/// What the events of a call take of the storage of their accounts.
#[derive(Default)]
pub(super) struct StorageUse {
    /// In the order in which the events name them.
    pub accounts: Vec<AccountUse>,
    places: HashMap<AccountId, usize>,
}

/// What one account stores.
pub(super) struct AccountUse {
    pub account: AccountId,
    /// Of bodies, channels and traces.
    pub bytes: usize,
    /// Events, deliveries and missed events.
    pub rows: usize,
}

impl StorageUse {
    /// What this account stores, to be added to.
    pub fn of(&mut self, account: AccountId) -> &mut AccountUse {
        let next = self.accounts.len();
        let place = *self.places.entry(account).or_insert(next);
        if place == next {
            self.accounts.push(AccountUse { account, bytes: 0, rows: 0 });
        }
        &mut self.accounts[place]
    }
}

impl AccountUse {
    /// The KiB that count.
    pub fn kib(&self) -> u32 {
        let kib = self.bytes.div_ceil(1024) + self.rows * KIB_PER_ROW as usize;
        u32::try_from(kib).expect("a call has up to 1,000 events, each for up to 10,000 endpoints")
    }
}

/// The windows that a call was counted in.
pub struct CountedCall {
    bucket: Bucket,
    windows: Vec<(Uuid, Timestamp)>,
}

impl Api {
    /// Counts a try before a sign-in, or refuses it.
    pub(super) async fn limit(&self, who: Uuid, bucket: Bucket) -> Result<(), ApiError> {
        let taken = self.take((who, bucket, 1), 1).await;
        taken.map(|_| ()).inspect_err(|_| self.metrics.http_rate_limited_total.add(1))
    }

    /// Counts a call of a caller and of their account, or refuses it.
    pub(super) async fn count(&self, caller: &Caller, bucket: Bucket) -> Result<CountedCall, ApiError> {
        let account = caller.counted_with.map(|account| (account, ACCOUNT_TIMES));
        self.count_in(bucket, [(caller.counted_as, 1)].into_iter().chain(account)).await
    }

    /// Counts a call in each of these windows, which have so many times the bucket's limit, or in none of them.
    pub(super) async fn count_in(
        &self,
        bucket: Bucket,
        windows: impl IntoIterator<Item = (Uuid, u32)>,
    ) -> Result<CountedCall, ApiError> {
        let mut counted = CountedCall { bucket, windows: Vec::new() };
        for (key, times) in windows {
            match self.take((key, bucket, times), 1).await {
                Ok(ends_at) => counted.windows.extend(ends_at.map(|ends_at| (key, ends_at))),
                Err(refused) => {
                    self.give_back(counted).await;
                    return Err(refused);
                }
            }
        }
        Ok(counted)
    }

    /// Counts something in a window whose limit no setting changes; `None` where the limit is reached.
    pub(super) async fn count_fixed(&self, key: Uuid, limit: RateLimit) -> Result<Option<CountedCall>, ApiError> {
        let (now, bucket) = (self.clock.now(), Bucket::Login);
        let ask = |limit, least| Box::pin(self.ask((key, bucket), limit, least, now));
        let taken = at_most(LIMIT_TIMEOUT, self.limiter.take_of((limit, limit), (key, bucket), 1, now, ask)).await;
        match taken.map_err(|_| ApiError::from(Code::Unavailable).with_header("retry-after", 1))? {
            Ok(ends_at) => Ok(Some(CountedCall { bucket, windows: vec![(key, ends_at)] })),
            Err(refused) if refused.status() == 429 => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Gives a call back, as if it had not been counted.
    pub(super) async fn give_back(&self, counted: CountedCall) {
        for (key, ends_at) in counted.windows {
            self.limiter.give_back(key, counted.bucket, ends_at).await;
        }
    }

    /// The same in the window of this key alone: in its other windows the call stays counted.
    pub(super) async fn give_back_in(&self, key: Uuid, mut counted: CountedCall) {
        counted.windows.retain(|(window, _)| *window == key);
        self.give_back(counted).await;
    }

    /// Counts a repeated answer, or refuses it.
    pub(super) async fn count_repeated(&self, caller: &Caller, bucket: Bucket) -> Result<(), ApiError> {
        let owner = caller.counted_with.unwrap_or(caller.counted_as);
        let key = Uuid::from_u128(owner.as_u128() ^ REPEATED);
        self.take((key, bucket, REPEATED_TIMES), 1).await.map(|_| ())
    }

    /// Refuses to store events or a replay of an account that has stored all that it may in this window. Otherwise it
    /// counts the first KiB: what they take in all is known when it is written.
    pub(super) async fn count_storage(&self, account: AccountId) -> Result<(), ApiError> {
        self.take((account.0, Bucket::EventsStorage, 1), 1).await.map(|_| ())
    }

    /// Counts what events have taken of the storage of their account, beyond the first KiB. A batch may go beyond the
    /// limit by what it takes itself: it is written already.
    pub(super) async fn charge_storage(&self, account: AccountId, kib: u32) {
        if kib > 1 {
            // The window is spent, or the store cannot be asked: the next publish is refused, or sees to it.
            let _ = self.take((account.0, Bucket::EventsStorage, 1), kib - 1).await;
        }
    }

    /// Counts deliveries that a replay has made of the storage of their account. They may go beyond the limit: they are
    /// written already, and the next publish or replay is refused.
    pub fn charge_replayed(&self, account: AccountId, deliveries: u64) -> impl Future<Output = ()> + use<> {
        let api = self.clone();
        async move {
            let kib =
                u32::try_from(deliveries * u64::from(KIB_PER_ROW)).expect("a step makes some thousand deliveries");
            if kib > 0 {
                let _ = api.take((account.0, Bucket::EventsStorage, 1), kib).await;
            }
        }
    }

    /// Counts what a refusal takes that is stored for an idempotency key, or refuses to store it. It may go beyond the
    /// limit by what it takes itself.
    pub(super) async fn count_stored_refusal(&self, owner: Uuid, bytes: usize) -> Result<(), ApiError> {
        if bytes <= FREE_REFUSAL_BYTES {
            return Ok(());
        }
        let kib = u32::try_from(bytes.div_ceil(1024)).expect("a refusal is in memory, and smaller than 4 TiB");
        self.take((owner, Bucket::EventsStorage, 1), kib).await.map(|_| ())
    }

    async fn take(&self, window: (Uuid, Bucket, u32), weight: u32) -> Result<Option<Timestamp>, ApiError> {
        let now = self.clock.now();
        let (key, bucket, _) = window;
        let ask = |limit, least| Box::pin(self.ask((key, bucket), limit, least, now));
        let taken = at_most(LIMIT_TIMEOUT, self.limiter.take(window, weight, now, ask)).await;
        taken.map_err(|_| ApiError::from(Code::Unavailable).with_header("retry-after", 1))?
    }

    async fn ask(
        &self,
        (key, bucket): (Uuid, Bucket),
        limit: RateLimit,
        least: u32,
        now: Timestamp,
    ) -> Result<RateWindow, StoreError> {
        self.store.take_calls(key, bucket.name(), limit.calls, least, limit.window, now).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_events_take_is_added_up_by_account_in_the_order_in_which_they_name_them() {
        let [first, second] = [2, 1].map(|byte| AccountId::from_random([byte; 16]));
        let mut stored = StorageUse::default();
        for (account, bytes, rows) in [(first, 1_000, 1), (second, 1, 3), (first, 25, 10_001)] {
            let used = stored.of(account);
            used.bytes += bytes;
            used.rows += rows;
        }
        let counted: Vec<_> = stored.accounts.iter().map(|used| (used.account, used.kib())).collect();
        assert_eq!(counted, [(first, 2 + 10_002), (second, 1 + 3)]);
    }
}
