//! Counters of what the program does, in the text format of Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! metrics {
    ($($(#[doc = $help:literal])* $kind:ident $name:ident),* $(,)?) => {
        /// All counters and gauges of one server.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $help])* pub $name: Metric,)*
        }

        impl Metrics {
            /// The exposition (Prometheus text format 0.0.4).
            pub fn render(&self) -> String {
                let mut text = String::new();
                $(
                    let help = concat!($($help),*).trim();
                    let (name, kind, value) = (stringify!($name), stringify!($kind), self.$name.get());
                    let _ = writeln!(text, "# HELP aldaba_{name} {help}\n# TYPE aldaba_{name} {kind}\naldaba_{name} {value}");
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
    /// Requests to receivers that are in flight.
    gauge attempts_in_flight,
    /// Deliveries leased to this process and waiting in memory, in flight or not.
    gauge deliveries_in_memory,
    /// Processes that deliver from this database, this one included, as far as it knows.
    gauge nodes,
    /// Outcomes that could not be written at the first try.
    counter settle_retries_total,
    /// HTTP requests answered.
    counter http_requests_total,
    /// HTTP requests refused by a rate limit.
    counter http_rate_limited_total,
    /// HTTP requests answered with a 5xx status.
    counter http_errors_total,
}

/// One number.
#[derive(Debug, Default)]
pub struct Metric(AtomicU64);

impl Metric {
    /// One more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
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
