//! The handle of the store on PostgreSQL: what its clones share, its connections, and whether it answers.

use std::sync::Arc;

use deadpool_postgres::{Object, Pool};

use super::change_feed::ChangeFeed;
use super::endpoint_memory::EndpointMemory;
use super::event_writer;
use super::freshness::Freshness;
use super::node::Node;
use super::notifier::Notifier;
use super::positions::Positions;
use super::reads::{CallClient, Reading, Reads};
use super::sql::execute;
use super::time_limit::in_time;
use crate::domain::audit::Origin;
use crate::domain::id::{AccountId, EndpointKey};
use crate::domain::time::Timestamp;
use crate::store::contract::{Health, Remote};
use crate::store::errors::StoreError;
use crate::store::inbox::Nudge;
use crate::store::shared::Shared;
use crate::store::view::View;

/// The store on PostgreSQL. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(super) pool: Pool,
    pub(super) view: View,
    pub(super) shared: Arc<Shared>,
    pub(super) node: Arc<Node>,
    pub(super) change_feed: Arc<ChangeFeed>,
    pub(super) freshness: Arc<Freshness>,
    pub(super) intake: event_writer::Handle,
    pub(super) notifier: Notifier,
    pub(super) endpoint_memory: EndpointMemory,
    pub(super) positions: Arc<Positions>,
    /// Whoever reads much takes nothing from what is sent, nor from other accounts.
    pub(super) reads: Reads,
    pub(super) origin: Origin,
}

impl Remote for Store {
    fn check_admitted(&self) -> Result<(), StoreError> {
        self.node.check_admitted()
    }

    fn in_time<T>(
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        in_time(call)
    }
}

impl Health for Store {
    async fn ping(&self) -> Result<(), StoreError> {
        let asked = async {
            let db = self.reads.ping_client().await?;
            let sql = "INSERT INTO settings (name, value) VALUES ('ping', 1) \
                       ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            execute(&db, sql, &[]).await?;
            // Differs by necessity: a node that has lost its leases may not work on the database either.
            if self.node.has_joined() && self.node.lease().is_none() {
                return Err(StoreError::Unavailable("this node has not been heard of for too long".into()));
            }
            Ok(())
        };
        self.shared.pings.ask(asked).await
    }

    async fn failed(&self) {
        self.intake.ended().await;
    }
}

impl Store {
    /// The same store, with the actor whom the audit log names.
    #[must_use]
    pub fn acting(&self, origin: Origin) -> Self {
        Self { origin, ..self.clone() }
    }

    /// A connection of the pool.
    pub(super) async fn client(&self) -> Result<Object, StoreError> {
        Ok(self.pool.get().await?)
    }

    /// A connection for a read of a bounded number of rows, for an account or for an operator.
    pub(super) async fn reader(&self, owner: Option<AccountId>) -> Result<Reading, StoreError> {
        self.reads.reader(owner).await
    }

    /// A connection for a read that may look at every row of an account.
    pub(super) async fn searcher(&self, owner: Option<AccountId>) -> Result<Reading, StoreError> {
        self.reads.searcher(owner).await
    }

    /// A connection of the pool for a call of an account, or of an operator.
    pub(super) async fn client_for(&self, owner: Option<AccountId>) -> Result<CallClient, StoreError> {
        self.reads.client_for(&self.pool, owner).await
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Tells the engine of deliveries that wait in the store: this process's, or that of others which has to send them.
    pub(super) fn nudge(&self, endpoint: EndpointKey, at: Timestamp) {
        self.positions.lower(endpoint, at);
        match &self.shared.inbox {
            Some(inbox) if self.serves(endpoint) => inbox.send(Nudge::Due(endpoint, at)),
            _ => self.notifier.notify(endpoint),
        }
    }

    /// Whether this process may have requests in flight to the endpoint.
    pub(super) fn serves(&self, endpoint: EndpointKey) -> bool {
        let setting = self.shared.max_in_flight_per_endpoint;
        let most = self.view.target(endpoint).map_or(setting, |target| target.max_in_flight(setting));
        self.shared.inbox.is_some() && self.node.share().of(most, endpoint) > 0
    }
}
