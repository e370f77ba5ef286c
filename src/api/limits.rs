//! Rate limits: fixed windows for each key and bucket.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::error::{ApiError, Code, Fault};
use crate::domain::id::ApiKeyId;
use crate::domain::time::Timestamp;

/// Windows that are remembered; beyond that those that are over are forgotten.
const MAX_WINDOWS: usize = 65_536;

/// How often they are, at most: it takes a look at each.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

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
    DeliveriesRetry = "deliveries_retry",
    EventsCreate = "events_create",
    EventsRead = "events_read",
    EventTypesRead = "event_types_read",
    EventTypesWrite = "event_types_write",
    AccountsRead = "accounts_read",
    AccountsWrite = "accounts_write",
    ApiKeysRead = "api_keys_read",
    ApiKeysWrite = "api_keys_write",
}

/// How many calls in how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimit {
    /// Calls in one window, at least 1.
    pub calls: u32,
    /// The window's length, at least a second.
    pub window: Duration,
}

impl RateLimit {
    /// What a bucket has that the settings do not name.
    pub const DEFAULT: Self = Self { calls: 600, window: Duration::from_secs(60) };
}

/// The limit of every bucket; `None` is off.
#[derive(Clone, Debug)]
pub struct RateLimits(pub HashMap<Bucket, Option<RateLimit>>);

impl RateLimits {
    fn of(&self, bucket: Bucket) -> Option<RateLimit> {
        self.0.get(&bucket).copied().unwrap_or(Some(RateLimit::DEFAULT))
    }
}

struct Window {
    ends_at: Timestamp,
    calls: u32,
}

/// Counts calls.
pub struct RateLimiter {
    limits: RateLimits,
    windows: Mutex<Windows>,
}

#[derive(Default)]
struct Windows {
    open: HashMap<(ApiKeyId, Bucket), Window>,
    swept_at: Timestamp,
}

impl RateLimiter {
    /// A limiter that has counted nothing.
    pub fn new(limits: RateLimits) -> Self {
        Self { limits, windows: Mutex::default() }
    }

    /// Counts a call, or refuses it.
    pub fn take(&self, key: ApiKeyId, bucket: Bucket, now: Timestamp) -> Result<(), ApiError> {
        let Some(limit) = self.limits.of(bucket) else { return Ok(()) };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.open.len() >= MAX_WINDOWS && now.since(windows.swept_at) >= SWEEP_EVERY {
            windows.open.retain(|_, window| window.ends_at > now);
            windows.swept_at = now;
        }
        let fresh = || Window { ends_at: now.plus(limit.window), calls: 0 };
        let window = windows.open.entry((key, bucket)).or_insert_with(fresh);
        // A window that ends later than a whole one from now was opened by a clock that has since gone back.
        if window.ends_at <= now || window.ends_at > now.plus(limit.window) {
            *window = fresh();
        }
        if window.calls < limit.calls {
            window.calls += 1;
            return Ok(());
        }
        Err(refusal(limit, window.ends_at, now))
    }
}

fn refusal(limit: RateLimit, ends_at: Timestamp, now: Timestamp) -> ApiError {
    let reset = ends_at.as_millis().div_euclid(1000) + i64::from(ends_at.as_millis().rem_euclid(1000) > 0);
    let retry_after = u64::try_from(ends_at.since(now).as_millis().div_ceil(1000)).unwrap_or(1).max(1);
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
        RateLimiter::new(RateLimits([(Bucket::WebhooksList, Some(limit)), (Bucket::EventsCreate, None)].into()))
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_window_allows_so_many_calls_and_says_when_it_ends() {
        let (limiter, key) = (limiter(), ApiKeyId::from_random([1; 16]));
        assert!(limiter.take(key, Bucket::WebhooksList, at(500)).is_ok());
        assert!(limiter.take(key, Bucket::WebhooksList, at(600)).is_ok());
        let refused = limiter.take(key, Bucket::WebhooksList, at(15_500)).expect_err("the limit is reached");
        let header = |name| refused.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
        assert_eq!(header("retry-after").as_deref(), Some("45"));
        assert_eq!(header("x-ratelimit-limit").as_deref(), Some("2"));
        assert_eq!(header("x-ratelimit-remaining").as_deref(), Some("0"));
        assert_eq!(header("x-ratelimit-reset").as_deref(), Some("61"));
        assert!(limiter.take(key, Bucket::WebhooksList, at(60_500)).is_ok(), "the next window");
    }

    #[test]
    fn keys_and_buckets_do_not_share_a_window() {
        let (limiter, key) = (limiter(), ApiKeyId::from_random([1; 16]));
        for _ in 0..2 {
            assert!(limiter.take(key, Bucket::WebhooksList, at(0)).is_ok());
        }
        assert!(limiter.take(ApiKeyId::from_random([2; 16]), Bucket::WebhooksList, at(0)).is_ok());
        assert!(limiter.take(key, Bucket::WebhooksRead, at(0)).is_ok());
        for _ in 0..10_000 {
            assert!(limiter.take(key, Bucket::EventsCreate, at(0)).is_ok(), "a bucket that is off");
        }
    }

    #[test]
    fn a_clock_that_goes_back_opens_a_new_window() {
        let (limiter, key) = (limiter(), ApiKeyId::from_random([1; 16]));
        for _ in 0..2 {
            assert!(limiter.take(key, Bucket::WebhooksList, at(10_000_000)).is_ok());
        }
        assert!(limiter.take(key, Bucket::WebhooksList, at(0)).is_ok());
    }
}
