//! The delivery engine: it takes leased deliveries, decides when each may go, sends them, and has outcomes written.
//!
//! `scheduler` and `lane` decide and do nothing; `run` moves its decisions into the tasks of `attempts`; `settle`
//! writes outcomes; `replay` carries out what is to be sent again; `faults` pauses attempts that this machine cannot
//! make; `tally` counts for charts; `backlog` counts what is due; `maintain` tidies up. Time, randomness, the store (by
//! the traits of its roles) and the sender come in as parameters, so that a simulation can run all of it.

mod attempts;
mod backlog;
mod faults;
mod lane;
mod maintain;
mod replay;
mod run;
mod scheduler;
mod settle;
mod tally;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Random};
use crate::domain::delivery::{DeliveryKind, Job};
use crate::egress::{AttemptEnd, Egress, StoredTarget};
use crate::metrics::Metrics;
use crate::store::Snapshot;

pub use backlog::measure_backlog;
pub use maintain::{RetentionPolicy, close_idle, maintain};
pub use replay::replay;
pub use tally::Tally;

/// What makes an attempt.
pub trait Sender: Clone + Send + Sync + 'static {
    /// Makes one attempt. Without an outcome the delivery is given back as unattempted.
    fn send(&self, job: &Job) -> impl Future<Output = AttemptEnd> + Send;
}

/// Attempts over HTTP, each with the endpoint's row as it is in that moment.
#[derive(Clone)]
pub struct HttpSender<S> {
    /// The way out.
    pub egress: Egress,
    /// Where the rows are.
    pub store: S,
}

impl<S: Snapshot> Sender for HttpSender<S> {
    async fn send(&self, job: &Job) -> AttemptEnd {
        let view = self.store.view();
        if matches!(job.kind, DeliveryKind::Replay(replay) if job.attempts_made == 0 && view.is_cancelled(replay)) {
            return AttemptEnd::Held;
        }
        let row = StoredTarget { store: &self.store, job, held_when_paused: true };
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
    /// Where deliveries are.
    pub store: S,
    /// How they go out.
    pub sender: T,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub random: Arc<dyn Random>,
    /// How many at once.
    pub limits: Limits,
    /// How long attempts in flight may go on after the stop signal.
    pub grace: Duration,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What came of attempts, over time.
    pub tally: Arc<Tally>,
}
