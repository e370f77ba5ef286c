//! The attempts that count towards an endpoint's rate limit, while a transaction of either store has their row.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use super::inbox::Leased;
use super::start_permit::{CountedStart, StartPermit};
use super::values::Unattempted;
use crate::domain::id::{DeliveryId, EndpointKey};
use crate::domain::rate_limit::{AttemptLog, Rate};
use crate::domain::time::Timestamp;
use crate::log_limit::LogLimit;

/// A row that cannot be read is written anew, unless its transaction fails.
static UNREADABLE_LOGGED: LogLimit = LogLimit::new();

/// The counted attempts of an endpoint.
pub(super) struct CountedAttempts {
    log: AttemptLog,
    /// A time of the clock by which attempts are counted.
    now: Timestamp,
    /// A moment before that.
    asked_at: Instant,
    is_changed: bool,
}

impl CountedAttempts {
    /// Reads the column `attempts`, JSON: a list of groups, each a time in milliseconds and a number of attempts. A
    /// column that cannot be read is logged, and no attempt of the endpoint may begin for one window, which keeps
    /// its limit.
    pub fn read(endpoint: EndpointKey, column: &[u8], now: Timestamp, asked_at: Instant) -> Self {
        let log = read_log(column);
        let is_changed = log.is_err();
        let log = log.unwrap_or_else(|reason| {
            if let Some(suppressed) = UNREADABLE_LOGGED.admit() {
                let endpoint = endpoint.0;
                tracing::error!(endpoint, %reason, suppressed, "limited_attempts.attempts cannot be read: the endpoint \
                                                                waits for one window of its rate limit");
            }
            AttemptLog::full(now)
        });
        Self { log, now, asked_at, is_changed }
    }

    /// Whether the column can be read.
    pub fn is_readable(column: &[u8]) -> bool {
        read_log(column).is_ok()
    }

    /// Whether the column must be written.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// The column.
    pub fn column(&self) -> String {
        let groups = self.log.groups().iter().map(|(at, attempts)| (at.as_millis(), *attempts));
        serde_json::to_string(&groups.collect::<Vec<_>>()).expect("numbers are JSON")
    }

    /// Attempts that may be counted now.
    pub fn free(&mut self, rate: Rate) -> usize {
        self.log.free(rate, self.now) as usize
    }

    /// Counts the attempts of deliveries that are claimed, as many as are free, and gives them their permits.
    pub fn permit(&mut self, rate: Rate, jobs: &mut [Leased]) {
        if jobs.is_empty() {
            return;
        }
        debug_assert!(jobs.len() <= self.free(rate), "no more are claimed than may begin");
        let count = u32::try_from(jobs.len()).expect("a claim is small");
        let group = self.log.count(rate, count, self.now, rate.validity());
        self.is_changed = true;
        let counted = CountedStart::new(group, rate, self.asked_at, rate.validity());
        for leased in jobs {
            leased.start = StartPermit::of(counted);
        }
    }

    /// See [`Dispatch::count_start`](crate::store::Dispatch::count_start).
    pub fn count_start(
        &mut self,
        rate: Rate,
        earlier: Option<CountedStart>,
        validity: Duration,
    ) -> Option<CountedStart> {
        let group = self.log.count_again(rate, earlier.map(|earlier| earlier.group), self.now, validity);
        self.is_changed |= earlier.is_some() || group.is_some();
        group.map(|group| CountedStart::new(group, rate, self.asked_at, validity))
    }

    /// Takes out an attempt that was counted and is not made.
    fn give_back(&mut self, counted: CountedStart) {
        self.log.give_back(counted.group);
        self.is_changed = true;
    }

    /// How long no attempt may begin; `None` where another one may.
    pub fn limited_for(&mut self, rate: Rate) -> Option<Duration> {
        self.log.limited_for(rate, self.now)
    }
}

/// Reads the column, or says why it cannot be read.
fn read_log(column: &[u8]) -> Result<AttemptLog, String> {
    let groups: Vec<(i64, u32)> = serde_json::from_slice(column).map_err(|error| error.to_string())?;
    let groups = groups.into_iter().map(|(at, attempts)| (Timestamp::from_millis(at), attempts));
    AttemptLog::of_groups(groups.collect()).ok_or_else(|| "its groups cannot be those of a log".to_owned())
}

/// Whether a rate limit has to do with a delivery that is given back.
pub(super) fn is_limited(row: &Unattempted) -> bool {
    row.counted.is_some() || row.due_at.is_some()
}

/// The endpoints of those deliveries with which a rate limit has to do, in the order of their keys.
pub(super) fn limited_endpoints(deliveries: &[Unattempted]) -> BTreeSet<EndpointKey> {
    deliveries.iter().filter(|row| is_limited(row)).map(|row| row.endpoint).collect()
}

/// Takes out what was counted for those of the deliveries that were given back.
pub(super) fn give_back(
    logs: &mut BTreeMap<EndpointKey, CountedAttempts>,
    deliveries: &[Unattempted],
    given_back: &[DeliveryId],
) {
    let deliveries: HashMap<DeliveryId, &Unattempted> = deliveries.iter().map(|row| (row.delivery, row)).collect();
    for row in given_back.iter().filter_map(|id| deliveries.get(id)) {
        if let (Some(counted), Some(log)) = (row.counted, logs.get_mut(&row.endpoint)) {
            log.give_back(counted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: EndpointKey = EndpointKey(1);

    #[test]
    fn counted_attempts_are_read_as_they_were_written() {
        let (now, rate) =
            (Timestamp::from_millis(1_800_000_000_000), Rate { attempts: 3, window: Duration::from_secs(60) });
        let read = |column: &str| CountedAttempts::read(ENDPOINT, column.as_bytes(), now, Instant::now());
        let mut attempts = read("[]");
        assert!(!attempts.is_changed());
        let counted = attempts.count_start(rate, None, rate.validity()).expect("free");
        attempts.count_start(rate, None, Duration::from_secs(4)).expect("free");
        assert!(attempts.is_changed());
        assert_eq!(attempts.column(), "[[1800000001000,1],[1800000004000,1]]");
        let mut again = read(&attempts.column());
        assert_eq!((again.free(rate), again.limited_for(rate)), (1, None));
        assert!(!again.is_changed());
        again.give_back(counted);
        assert_eq!((again.free(rate), again.column().as_str()), (2, "[[1800000004000,1]]"));
        assert!(again.is_changed());
    }

    #[test]
    fn a_column_that_cannot_be_read_allows_no_attempt_and_is_written_anew() {
        let (now, rate) =
            (Timestamp::from_millis(1_800_000_000_000), Rate { attempts: 3, window: Duration::from_secs(60) });
        for column in ["none", "", "7", "[[1800000001000,0]]", "[[2,1],[1,1]]", "[[1,-1]]"] {
            let mut attempts = CountedAttempts::read(ENDPOINT, column.as_bytes(), now, Instant::now());
            assert_eq!((attempts.free(rate), attempts.is_changed()), (0, true), "{column}");
            let written = CountedAttempts::read(ENDPOINT, attempts.column().as_bytes(), now, Instant::now());
            assert!(!written.is_changed());
        }
    }

    #[test]
    fn what_is_given_back_is_taken_out_once_for_each_delivery() {
        let (now, rate) =
            (Timestamp::from_millis(1_800_000_000_000), Rate { attempts: 3, window: Duration::from_secs(60) });
        let mut log = CountedAttempts::read(ENDPOINT, b"[]", now, Instant::now());
        let mut row = |id| Unattempted {
            delivery: DeliveryId(id),
            endpoint: ENDPOINT,
            lease: 1,
            counted: log.count_start(rate, None, rate.validity()),
            due_at: None,
        };
        let rows = [row(1), row(2), row(3)];
        let rows = [rows[0], rows[0], rows[1], rows[2], Unattempted { counted: None, ..rows[2] }];
        let mut logs = BTreeMap::from([(ENDPOINT, log)]);
        give_back(&mut logs, &rows[..4], &[DeliveryId(1), DeliveryId(2)]);
        give_back(&mut logs, &rows[4..], &[DeliveryId(3)]);
        assert_eq!(logs[&ENDPOINT].column(), "[[1800000001000,1]]");
        assert_eq!(limited_endpoints(&rows), BTreeSet::from([ENDPOINT]));
    }
}
