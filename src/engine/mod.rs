//! The delivery engine: it takes leased deliveries, decides when each may go, sends them, and has outcomes written.
//!
//! `scheduler`, `admission`, `lane` and `waiting_lanes` decide, without I/O. `run` is the loop that carries out their
//! decisions. `attempts` has a task for each attempt. `settle` writes outcomes, and `attempt_counts` counts them for
//! charts. `faults` pauses attempts that this machine cannot make. `replay` carries out replays, `backlog` counts what
//! is due, and `maintain` removes old data. Time, randomness, the store (by the traits of its roles) and the sender are
//! parameters, so that a simulation can run the whole engine.

mod admission;
mod attempt_counts;
mod attempts;
mod backlog;
mod faults;
mod lane;
mod maintain;
mod replay;
mod run;
mod scheduler;
mod settle;
mod waiting_lanes;

use std::future::Future;
use std::sync::Arc;

use crate::clock::{Clock, Random};
use crate::domain::delivery::DeliveryKind;
use crate::egress::{AttemptEnd, Egress, StoredTarget};
use crate::metrics::Metrics;
use crate::store::inbox::Leased;
use crate::store::{Dispatch, Snapshot};

pub use attempt_counts::AttemptCounts;
pub use backlog::measure_backlog;
pub use maintain::{RetentionPolicy, close_idle, maintain};
pub use replay::replay;

/// What makes an attempt.
pub trait Sender: Clone + Send + Sync + 'static {
    /// Makes one attempt. Without an outcome the delivery is given back as unattempted.
    fn send(&self, leased: &Leased) -> impl Future<Output = AttemptEnd> + Send;
}

/// Attempts over HTTP. Each reads the endpoint's row at the time of sending.
#[derive(Clone)]
pub struct HttpSender<S> {
    /// What sends requests.
    pub egress: Egress,
    /// The store that has the rows.
    pub store: S,
}

impl<S: Snapshot + Dispatch> Sender for HttpSender<S> {
    async fn send(&self, leased: &Leased) -> AttemptEnd {
        let (job, view) = (&leased.job, self.store.view());
        if matches!(job.kind, DeliveryKind::Replay(replay) if job.attempts_made == 0 && view.is_cancelled(replay)) {
            return AttemptEnd::Unattempted;
        }
        let row = StoredTarget { store: &self.store, job, requires_active: true, start: Some(&leased.start) };
        self.egress.attempt(job, &row).await
    }
}

/// Bounds on requests in flight.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub max_in_flight: usize,
    /// To one endpoint, reached step by step.
    pub max_in_flight_per_endpoint: usize,
}

/// An engine, ready to run.
pub struct Engine<S, T> {
    /// The store of the deliveries.
    pub store: S,
    /// What makes attempts.
    pub sender: T,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub random: Arc<dyn Random>,
    /// Bounds on requests in flight.
    pub limits: Limits,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Counts of outcomes for charts.
    pub attempt_counts: Arc<AttemptCounts>,
}
