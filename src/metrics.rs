//! Counters of what the program does, in the text format of Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::Mutex;

macro_rules! metrics {
    ($($(#[doc = $help:literal])* $kind:ident $name:ident),* $(,)?) => {
        /// All counters and gauges of one server.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $help])* pub $name: Metric,)*
            oldest_unwritten: Mutex<Option<Instant>>,
        }

        impl Metrics {
            /// The exposition (Prometheus text format 0.0.4).
            pub fn render(&self) -> String {
                let mut text = String::new();
                $(
                    let help = concat!($($help),*).trim();
                    let (name, kind, value) = (stringify!($name), stringify!($kind), self.$name.get());
                    let _ = writeln!(text, "# HELP aldaba_{name} {help}\n# TYPE aldaba_{name} {kind}\naldaba_{name} \
                                            {value}");
                )*
                text
            }
        }
    };
}

metrics! {
    /// Events accepted.
    counter events_accepted_total,
    /// Deliveries that an accepted event fanned out to.
    counter deliveries_created_total,
    /// Attempts that ended in a 2xx answer.
    counter attempts_delivered_total,
    /// Attempts that ended in anything else.
    counter attempts_failed_total,
    /// Attempts whose worker panicked; their deliveries are tried again.
    counter attempts_panicked_total,
    /// Attempts that this machine could not make; their deliveries wait, and no receiver is charged.
    counter attempts_local_fault_total,
    /// Requests to receivers that are in flight.
    gauge attempts_in_flight,
    /// Deliveries leased to this process and waiting in memory, in flight or not.
    gauge deliveries_in_memory,
    /// Deliveries that are due in the database and in no memory, counted every 15 s up to 100,000; of all nodes.
    gauge deliveries_due,
    /// Seconds that the longest waiting of them was late.
    gauge oldest_due_seconds,
    /// When these two were last measured, in seconds since 1970; 0 if never, as on a node that does not deliver.
    gauge backlog_measured_timestamp_seconds,
    /// Calls and deliveries that wait for a connection of PostgreSQL, or writes not yet committed to SQLite (4,096 at
    /// most).
    gauge database_calls_waiting,
    /// Reads of callers that wait for a connection of the database.
    gauge database_reads_waiting,
    /// Connections of the database that reads of callers use.
    gauge database_reads_in_use,
    /// Heartbeats and readings of changes that wait for one of the node's own connections; 0 on SQLite.
    gauge database_node_calls_waiting,
    /// Seconds since this node's view of accounts, endpoints and keys was last known to be current; 0 on SQLite.
    gauge view_age_seconds,
    /// 1 while an operator has put all deliveries on hold, else 0.
    gauge on_hold,
    /// Processes that deliver from this database, this one included, as far as it knows.
    gauge nodes,
    /// Writes of outcomes that failed and were tried again.
    counter settle_retries_total,
    /// Outcomes that cannot be written although others can: each is tried again apart.
    gauge outcomes_set_aside,
    /// Age in seconds of the oldest outcome that is not written and not set aside; 0 where there is none.
    gauge oldest_unwritten_outcome_seconds,
    /// Seconds since the oldest day of the history that is kept began (on SQLite, since its oldest event); 0 if there
    /// is none.
    gauge retention_oldest_day_seconds,
    /// When the last round of housekeeping ended in which nothing failed, in seconds since 1970; 0 if there was none.
    gauge housekeeping_last_success_timestamp_seconds,
    /// Steps of housekeeping that failed, and days of the history that could not be dropped. Each is tried again.
    counter housekeeping_failures_total,
    /// HTTP requests answered.
    counter http_requests_total,
    /// HTTP requests refused by a rate limit.
    counter http_rate_limited_total,
    /// HTTP requests answered with a 5xx status.
    counter http_errors_total,
}

impl Metrics {
    /// Notes since when the oldest outcome waits that is not written.
    pub fn oldest_unwritten_since(&self, since: Option<Instant>) {
        *self.oldest_unwritten.lock() = since;
    }

    /// How long the oldest outcome that is not written has waited.
    pub fn oldest_unwritten(&self) -> Option<Duration> {
        self.oldest_unwritten.lock().map(|since| since.elapsed())
    }
}

/// One number.
#[derive(Debug, Default)]
pub struct Metric(AtomicU64);

impl Metric {
    /// One more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Less by so much.
    pub fn subtract(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
