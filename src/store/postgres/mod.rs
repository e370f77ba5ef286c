//! The store that many nodes share: PostgreSQL.
//!
//! Any node does anything: nothing here is true only in memory. `event_writer` commits many events at a time (`write`),
//! and `settle` many outcomes; `positions` is where its claims begin. `node` is this process among the others, and
//! its leases; `notifier` tells the others what is due. `change_feed` keeps the view after what others change,
//! `freshness` knows how new it is. `partitions` has the days of the history, `counters` the totals.
//!
//! The roles of the contract are implemented in `admin`, `audit`, `backlog`, `calls`, `counts`, `dispatch`,
//! `endpoints`, `intake`, `lifecycle`, `log`, `maintain`, `memberships`, `portal`, `replay`, `search`, `target`,
//! `users` and here. What several of them use is in files below them: `sql` runs statements and reads columns,
//! `catalog_rows` reads rows, `stored_replies` stores replies, `operational_events` writes operational events, `fifo`
//! is the order of deliveries.
//!
//! `open` starts it all: `connect` makes connections, `require` and `privileges` refuse a database that cannot be used,
//! `migrate` runs `migrations`. `reads` shares the connections among accounts. `import` moves data from SQLite.

mod admin;
mod audit;
mod backlog;
mod calls;
mod cancellation;
mod catalog_rows;
mod change_feed;
mod connect;
mod counters;
mod counts;
mod dispatch;
mod endpoint_memory;
mod endpoints;
mod event_writer;
mod fifo;
mod freshness;
mod ids;
mod import;
mod intake;
mod lease;
mod lifecycle;
mod log;
mod maintain;
mod memberships;
mod migrate;
mod migrations;
mod node;
mod notifier;
mod open;
mod operational_events;
mod partitions;
mod portal;
mod positions;
mod privileges;
mod reads;
mod replay;
mod require;
mod search;
mod settle;
mod sql;
mod stored_replies;
mod target;
mod time_limit;
mod users;
mod write;

use std::sync::Arc;

use deadpool_postgres::{Object, Pool};

use self::endpoint_memory::EndpointMemory;
use self::sql::execute;
use self::time_limit::in_time;
use super::inbox::Nudge;
use super::shared::Shared;
use super::view::View;
use super::{Health, Remote, StoreError};
use crate::domain::audit::Origin;
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;

/// The store on PostgreSQL. Clones share it.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    view: View,
    shared: Arc<Shared>,
    node: Arc<node::Node>,
    change_feed: Arc<change_feed::ChangeFeed>,
    freshness: Arc<freshness::Freshness>,
    intake: event_writer::Handle,
    notifier: notifier::Notifier,
    endpoint_memory: EndpointMemory,
    positions: Arc<positions::Positions>,
    /// Whoever reads much takes nothing from what is sent, nor from other accounts.
    reads: reads::Reads,
    origin: Origin,
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
            let db = self.ping_client().await?;
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
    async fn client(&self) -> Result<Object, StoreError> {
        Ok(self.pool.get().await?)
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Tells the engine of deliveries that wait in the store: this process's, or that of others which has to send them.
    fn nudge(&self, endpoint: EndpointKey, at: Timestamp) {
        self.positions.lower(endpoint, at);
        match &self.shared.inbox {
            Some(inbox) if self.serves(endpoint) => inbox.send(Nudge::Due(endpoint, at)),
            _ => self.notifier.notify(endpoint),
        }
    }

    /// Whether this process may have requests in flight to the endpoint.
    fn serves(&self, endpoint: EndpointKey) -> bool {
        self.shared.inbox.is_some() && self.node.share().of(self.shared.max_in_flight_per_endpoint, endpoint) > 0
    }
}
