//! The delivery engine: it takes leased deliveries, decides when each may go, sends them, and has outcomes written.
//!
//! `scheduler` and `lane` decide and do nothing; `run` moves its decisions into the tasks of `attempts`; `settle` writes
//! outcomes; `replay` carries out what is to be sent again; `faults` pauses attempts that this machine cannot make; `tally`
//! counts for charts; `backlog` counts what is due; `maintain` tidies up. Time, randomness, the store and the sender come in as parameters, so that a
//! simulation can run all of it.

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
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;
use crate::egress::{AttemptEnd, Egress, StoredTarget};
use crate::metrics::Metrics;
use crate::store::{Claimed, Isolation, Settled, Settlement, Store, StoreError, Unattempted};

pub use backlog::measure_backlog;
pub use maintain::{Keep, close_idle, maintain};
pub use replay::replay;
pub use tally::Tally;

/// What the engine asks of a store. See the methods of [`Store`] for what each promises.
pub trait Dispatch: Clone + Send + Sync + 'static {
    /// Leases due deliveries of an endpoint.
    fn claim(&self, endpoint: EndpointKey, limit: usize) -> impl Future<Output = Result<Claimed, StoreError>> + Send;

    /// Active endpoints with deliveries waiting in the store, and when the next of each is due.
    fn due_endpoints(&self) -> impl Future<Output = Result<Vec<(EndpointKey, Timestamp)>, StoreError>> + Send;

    /// How long after some outcomes were written the next ones wait for others.
    fn settle_window(&self) -> Duration {
        Duration::ZERO
    }

    /// Writes outcomes whose leases still stand.
    fn settle(
        &self,
        batch: Arc<Vec<Settlement>>,
        isolation: Isolation,
    ) -> impl Future<Output = Result<Vec<Settled>, StoreError>> + Send;

    /// Whether it takes writes at all.
    fn takes_writes(&self) -> impl Future<Output = bool> + Send;

    /// Gives back deliveries that were not attempted.
    fn release(&self, deliveries: Vec<Unattempted>) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl Dispatch for Store {
    async fn claim(&self, endpoint: EndpointKey, limit: usize) -> Result<Claimed, StoreError> {
        Store::claim(self, endpoint, limit).await
    }

    async fn due_endpoints(&self) -> Result<Vec<(EndpointKey, Timestamp)>, StoreError> {
        Store::due_endpoints(self).await
    }

    fn settle_window(&self) -> Duration {
        Store::settle_window(self)
    }

    async fn settle(&self, batch: Arc<Vec<Settlement>>, isolation: Isolation) -> Result<Vec<Settled>, StoreError> {
        match isolation {
            Isolation::Shared => Store::settle(self, batch).await,
            Isolation::Savepoint => self.settle_isolated(batch).await,
        }
    }

    async fn takes_writes(&self) -> bool {
        self.ping().await.is_ok()
    }

    async fn release(&self, deliveries: Vec<Unattempted>) -> Result<(), StoreError> {
        Store::release(self, deliveries).await
    }
}

/// What makes an attempt.
pub trait Sender: Clone + Send + Sync + 'static {
    /// Makes one attempt. Without an outcome the delivery is given back as unattempted.
    fn send(&self, job: &Job) -> impl Future<Output = AttemptEnd> + Send;
}

/// Attempts over HTTP, each with the endpoint's row as it is in that moment.
#[derive(Clone)]
pub struct HttpSender {
    /// The way out.
    pub egress: Egress,
    /// Where the rows are.
    pub store: Store,
}

impl Sender for HttpSender {
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
