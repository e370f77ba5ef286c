//! Rate limits: the buckets of routes, and fixed windows of calls. `counting` says which windows a call is counted in.

use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::error::{ApiError, Code, Fault};
use crate::domain::time::Timestamp;
use crate::lock::RwLock;
use crate::store::{RateWindow, StoreError};

/// Windows that are remembered; beyond that those that are over are forgotten.
const MAX_WINDOWS: usize = 65_536;

/// Parts of the windows, each with a lock of its own.
const SHARDS: usize = 64;

/// A caller whose clock is behind by less than this is no clock that was set back.
const SLACK: Duration = Duration::from_secs(60);

/// How often they are, at most: it takes a look at each.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

macro_rules! buckets {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// A group of routes that share a limit.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Bucket {
            $(#[doc = concat!("`", $name, "`")] $variant),*
        }

        impl Bucket {
            /// Every bucket.
            pub const ALL: &'static [Bucket] = &[$(Bucket::$variant),*];

            /// The name in the settings: `rate_limits.<name>`.
            pub fn name(self) -> &'static str {
                match self { $(Bucket::$variant => $name),* }
            }
        }
    };
}

buckets! {
    WebhooksList = "webhooks_list",
    WebhooksRead = "webhooks_read",
    WebhooksWrite = "webhooks_write",
    WebhooksTest = "webhooks_test",
    DeliveriesList = "deliveries_list",
    DeliveriesRead = "deliveries_read",
    DeliveriesExport = "deliveries_export",
    DeliveriesRetry = "deliveries_retry",
    EventsCreate = "events_create",
    EventsRead = "events_read",
    EventsStorage = "events_storage",
    EventTypesRead = "event_types_read",
    EventTypesWrite = "event_types_write",
    AccountsRead = "accounts_read",
    AccountsWrite = "accounts_write",
    ApiKeysRead = "api_keys_read",
    ApiKeysWrite = "api_keys_write",
    AuditRead = "audit_read",
    UsersRead = "users_read",
    UsersWrite = "users_write",
    PortalLinks = "portal_links",
    WebhooksPreview = "webhooks_preview",
    Login = "rate_limited_login",
}

/// How many calls in how long; of [`Bucket::EventsStorage`] how many KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimit {
    /// Calls in one window, at least 1.
    pub calls: u32,
    /// The window's length, at least a second.
    pub window: Duration,
}

/// The limit of every bucket; `None`, and what is missing, is off.
#[derive(Clone, Debug)]
pub struct RateLimits(pub HashMap<Bucket, Option<RateLimit>>);

impl RateLimits {
    fn of(&self, bucket: Bucket) -> Option<RateLimit> {
        self.0.get(&bucket).copied().flatten()
    }
}

struct Window {
    ends_at: Timestamp,
    /// Calls that may still be let through without asking.
    left: u32,
    /// Whether there is nothing left to ask for.
    spent: bool,
}

/// Counts calls. What may be let through in a window comes from the store, so that a limit holds over all nodes.
pub struct RateLimiter {
    limits: RwLock<RateLimits>,
    /// One lock for all keys would make them wait for each other's questions.
    windows: [Mutex<Windows>; SHARDS],
}

#[derive(Default)]
struct Windows {
    open: HashMap<(Uuid, Bucket), Window>,
    swept_at: Timestamp,
}

impl RateLimiter {
    /// A limiter that has counted nothing.
    pub fn new(limits: RateLimits) -> Self {
        Self { limits: RwLock::new(limits), windows: std::array::from_fn(|_| Mutex::default()) }
    }

    /// Applies other limits. The open windows of a bucket whose limit has changed are forgotten, as at a start.
    pub async fn reload(&self, limits: RateLimits) {
        let old = std::mem::replace(&mut *self.limits.write(), limits.clone());
        let changed: Vec<Bucket> =
            Bucket::ALL.iter().copied().filter(|bucket| old.of(*bucket) != limits.of(*bucket)).collect();
        if changed.is_empty() {
            return;
        }
        for shard in &self.windows {
            shard.lock().await.open.retain(|(_, bucket), _| !changed.contains(bucket));
        }
    }

    /// Counts a call of a window that has so many times the bucket's limit, or refuses it. `ask` takes calls of the
    /// window that is open, or opens one: at least as many as it is told. Returns when the window ends; `None` where
    /// there is no limit.
    pub async fn take<F>(
        &self,
        (key, bucket, times): (Uuid, Bucket, u32),
        weight: u32,
        now: Timestamp,
        ask: impl FnOnce(RateLimit, u32) -> F,
    ) -> Result<Option<Timestamp>, ApiError>
    where
        F: Future<Output = Result<RateWindow, StoreError>>,
    {
        let limit = self.limits.read().of(bucket);
        let Some(limit) = limit else { return Ok(None) };
        // More calls than the type can count are as good as the most that it can.
        let whole = RateLimit { calls: limit.calls.saturating_mul(times), window: limit.window };
        self.take_of((limit, whole), (key, bucket), weight, now, ask).await.map(Some)
    }

    /// Counts a call of a window with the limit `whole`, or refuses it by naming `limit`. The call counts as `weight`
    /// calls. Where fewer are left, it takes those. Returns when the window ends.
    pub async fn take_of<F>(
        &self,
        (limit, whole): (RateLimit, RateLimit),
        (key, bucket): (Uuid, Bucket),
        weight: u32,
        now: Timestamp,
        ask: impl FnOnce(RateLimit, u32) -> F,
    ) -> Result<Timestamp, ApiError>
    where
        F: Future<Output = Result<RateWindow, StoreError>>,
    {
        let mut windows = self.shard(key).lock().await;
        if windows.open.len() >= MAX_WINDOWS / SHARDS && now.since(windows.swept_at) >= SWEEP_INTERVAL {
            windows.open.retain(|_, window| window.ends_at > now);
            windows.swept_at = now;
        }
        // A window that ends much later than a whole one from now was opened by a clock that has since gone back.
        let latest = now.plus(limit.window).plus(SLACK);
        let is_open = |window: &&mut Window| window.ends_at > now && window.ends_at <= latest;
        let mut needed = weight;
        if let Some(window) = windows.open.get_mut(&(key, bucket)).filter(is_open) {
            if window.left >= weight || (window.left > 0 && window.spent) {
                window.left = window.left.saturating_sub(weight);
                return Ok(window.ends_at);
            }
            if window.spent {
                return Err(refusal(limit, window.ends_at, now));
            }
            needed -= window.left;
        }
        let RateWindow { ends_at, granted } = ask(whole, needed).await?;
        // Who was given less than asked for, or all of it, need not ask again.
        let (left, spent) = (granted.saturating_sub(needed), granted < needed || granted >= whole.calls);
        windows.open.insert((key, bucket), Window { ends_at, left, spent });
        if granted == 0 { Err(refusal(limit, ends_at, now)) } else { Ok(ends_at) }
    }

    /// Gives a call back to the window that it was counted in, if that is still open.
    pub async fn give_back(&self, key: Uuid, bucket: Bucket, ends_at: Timestamp) {
        let mut windows = self.shard(key).lock().await;
        let window = windows.open.get_mut(&(key, bucket)).filter(|window| window.ends_at == ends_at);
        if let Some(window) = window {
            // It was taken from there.
            window.left += 1;
        }
    }

    fn shard(&self, key: Uuid) -> &Mutex<Windows> {
        &self.windows[usize::from(key.as_bytes()[0]) % SHARDS]
    }
}

fn refusal(limit: RateLimit, ends_at: Timestamp, now: Timestamp) -> ApiError {
    let reset = ends_at.as_millis().div_euclid(1000) + i64::from(ends_at.as_millis().rem_euclid(1000) > 0);
    let seconds = ends_at.since(now).as_millis().div_ceil(1000);
    let retry_after = u64::try_from(seconds).expect("a window is a day at most").max(1);
    let fault = Fault::new(Code::RateLimitExceeded).naming(retry_after).with_meta("retry_after", retry_after);
    ApiError::from(fault)
        .with_header("retry-after", retry_after)
        .with_header("x-ratelimit-limit", limit.calls)
        .with_header("x-ratelimit-remaining", 0)
        .with_header("x-ratelimit-reset", reset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> RateLimiter {
        let limit = RateLimit { calls: 2, window: Duration::from_secs(60) };
        RateLimiter::new(RateLimits(
            [(Bucket::WebhooksList, Some(limit)), (Bucket::EventsCreate, None)].into_iter().collect(),
        ))
    }

    /// The only node there is.
    async fn take(limiter: &RateLimiter, key: Uuid, bucket: Bucket, now: Timestamp) -> Result<(), ApiError> {
        take_heavy(limiter, (key, bucket), 1, now).await
    }

    async fn take_heavy(
        limiter: &RateLimiter,
        (key, bucket): (Uuid, Bucket),
        weight: u32,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let whole = |limit: RateLimit, _| async move {
            Ok(RateWindow { ends_at: now.plus(limit.window), granted: limit.calls })
        };
        limiter.take((key, bucket, 1), weight, now, whole).await.map(|_| ())
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[tokio::test]
    async fn a_window_allows_so_many_calls_and_says_when_it_ends() {
        let (limiter, key) = (limiter(), Uuid::from_bytes([1; 16]));
        assert!(take(&limiter, key, Bucket::WebhooksList, at(500)).await.is_ok());
        assert!(take(&limiter, key, Bucket::WebhooksList, at(600)).await.is_ok());
        let refused = take(&limiter, key, Bucket::WebhooksList, at(15_500)).await.expect_err("the limit is reached");
        let header = |name| refused.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
        assert_eq!(header("retry-after").as_deref(), Some("45"));
        assert_eq!(header("x-ratelimit-limit").as_deref(), Some("2"));
        assert_eq!(header("x-ratelimit-remaining").as_deref(), Some("0"));
        assert_eq!(header("x-ratelimit-reset").as_deref(), Some("61"));
        assert!(take(&limiter, key, Bucket::WebhooksList, at(60_500)).await.is_ok(), "the next window");
    }

    #[tokio::test]
    async fn a_changed_limit_holds_at_once_and_leaves_the_windows_of_others_as_they_are() {
        let limit = |calls| Some(RateLimit { calls, window: Duration::from_secs(60) });
        let limits = |list, read| {
            let limits = [(Bucket::WebhooksList, limit(list)), (Bucket::WebhooksRead, limit(read))];
            RateLimits(limits.into_iter().collect())
        };
        let (limiter, key) = (RateLimiter::new(limits(1, 1)), Uuid::from_bytes([1; 16]));
        for bucket in [Bucket::WebhooksList, Bucket::WebhooksRead] {
            take(&limiter, key, bucket, at(0)).await.expect("1 of 1");
        }
        limiter.reload(limits(2, 1)).await;
        take(&limiter, key, Bucket::WebhooksList, at(1)).await.expect("1 of 2");
        take(&limiter, key, Bucket::WebhooksList, at(2)).await.expect("2 of 2");
        assert!(take(&limiter, key, Bucket::WebhooksList, at(3)).await.is_err());
        assert!(take(&limiter, key, Bucket::WebhooksRead, at(3)).await.is_err(), "its window goes on");
    }

    #[tokio::test]
    async fn a_call_that_is_heavier_than_what_is_left_takes_what_is_left() {
        let (limiter, key) = (limiter(), (Uuid::from_bytes([1; 16]), Bucket::WebhooksList));
        take_heavy(&limiter, key, 1, at(0)).await.expect("1 of 2");
        take_heavy(&limiter, key, 5, at(1)).await.expect("the other one, and no more");
        assert!(take_heavy(&limiter, key, 1, at(2)).await.is_err());
        take_heavy(&limiter, key, 5, at(60_000)).await.expect("the next window");
        assert!(take_heavy(&limiter, key, 1, at(60_001)).await.is_err());
    }

    #[tokio::test]
    async fn what_is_left_is_used_up_before_more_is_asked_for() {
        let (limiter, key) = (limiter(), (Uuid::from_bytes([1; 16]), Bucket::WebhooksList, 10));
        let granting = |granted: u32| {
            move |_: RateLimit, least: u32| async move {
                assert!(least <= granted, "asked for {least}");
                Ok(RateWindow { ends_at: at(60_000), granted })
            }
        };
        limiter.take(key, 1, at(0), granting(3)).await.expect("2 are left");
        limiter.take(key, 6, at(0), granting(4)).await.expect("2 and 4 of those that were granted");
        limiter.take(key, 4, at(0), granting(4)).await.expect("none was left");
    }

    #[tokio::test]
    async fn keys_and_buckets_do_not_share_a_window() {
        let (limiter, key) = (limiter(), Uuid::from_bytes([1; 16]));
        for _ in 0..2 {
            assert!(take(&limiter, key, Bucket::WebhooksList, at(0)).await.is_ok());
        }
        assert!(take(&limiter, Uuid::from_bytes([2; 16]), Bucket::WebhooksList, at(0)).await.is_ok());
        assert!(take(&limiter, key, Bucket::WebhooksRead, at(0)).await.is_ok());
        for _ in 0..10_000 {
            assert!(take(&limiter, key, Bucket::EventsCreate, at(0)).await.is_ok(), "a bucket that is off");
        }
    }

    #[tokio::test]
    async fn a_call_that_is_given_back_is_there_again_in_its_own_window_only() {
        let (limiter, key) = (limiter(), Uuid::from_bytes([1; 16]));
        let whole = |limit: RateLimit, _| async move {
            Ok(RateWindow { ends_at: at(0).plus(limit.window), granted: limit.calls })
        };
        let first = limiter.take((key, Bucket::WebhooksList, 1), 1, at(0), whole).await.expect("let through");
        assert!(take(&limiter, key, Bucket::WebhooksList, at(1)).await.is_ok());
        assert!(take(&limiter, key, Bucket::WebhooksList, at(2)).await.is_err());
        let ends_at = first.expect("a window");
        limiter.give_back(key, Bucket::WebhooksList, ends_at.plus(Duration::from_secs(1))).await;
        assert!(take(&limiter, key, Bucket::WebhooksList, at(3)).await.is_err(), "that was another window");
        limiter.give_back(key, Bucket::WebhooksList, ends_at).await;
        assert!(take(&limiter, key, Bucket::WebhooksList, at(4)).await.is_ok());
        assert!(take(&limiter, key, Bucket::WebhooksList, at(5)).await.is_err());
    }

    #[tokio::test]
    async fn a_call_that_was_begun_earlier_opens_no_new_window() {
        let (limiter, key) = (limiter(), Uuid::from_bytes([1; 16]));
        for begun in [20_000, 10_000] {
            assert!(take(&limiter, key, Bucket::WebhooksList, at(begun)).await.is_ok());
        }
        for begun in [5_000, 1, 19_999] {
            assert!(take(&limiter, key, Bucket::WebhooksList, at(begun)).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_clock_that_goes_back_opens_a_new_window() {
        let (limiter, key) = (limiter(), Uuid::from_bytes([1; 16]));
        for _ in 0..2 {
            assert!(take(&limiter, key, Bucket::WebhooksList, at(10_000_000)).await.is_ok());
        }
        assert!(take(&limiter, key, Bucket::WebhooksList, at(0)).await.is_ok());
    }
}
