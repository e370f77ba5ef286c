//! The store that many nodes share: PostgreSQL.
//!
//! Any node does anything: nothing here is true only in memory. `intake` commits many events at a time (`write`) and
//! `dispatch` many outcomes; `positions` is where its claims begin; `node` is this process among the others, and its
//! leases; `follow` keeps the view after what others change; `partitions` has the days of the history, `counters` the
//! totals. `open` starts it all: `url` reads the database's URL, `connect` makes connections, `require` refuses a
//! database that cannot be used; `reads` shares the connections among accounts. The rest is called as in `sqlite/`: `admin`, `endpoints` and `users` by the API, `log`
//! and `search` by the lists, `counts` by the charts, `replay` by what is sent again, `maintain` by the housekeeping,
//! `calls` by the API's door, `import` by the move from SQLite, `backlog` by the metrics.

mod admin;
mod audit;
mod backlog;
mod calls;
mod connect;
mod counters;
mod counts;
mod dispatch;
mod endpoints;
mod follow;
mod herald;
mod ids;
mod import;
mod intake;
mod log;
mod maintain;
mod memberships;
mod migrate;
mod node;
mod notice;
mod open;
mod partitions;
mod portal;
mod positions;
mod privileges;
mod reads;
mod replay;
mod require;
mod search;
mod target;
mod turn;
mod url;
mod users;
mod write;

use std::error::Error as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object, Pool, PoolError, Transaction};
use foldhash::HashMap;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql, Type};

use super::inbox::{Nudge, Room};
use super::keys::KeySource;
use super::shared::Shared;
use super::view::View;
use super::{Health, Lifecycle, OpenError, Remote, StoreError};
use crate::clock::Clock;
use crate::domain::audit::Origin;
use crate::domain::id::EndpointKey;
use crate::domain::time::Timestamp;

pub use url::PostgresUrl;

/// How long a call may take, the wait for a connection included: whoever asks gets an answer, whatever the network does. A
/// little longer than a statement may (`connect.rs`), so that most that are late are known not to have happened.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The store on PostgreSQL. Clones share it.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    view: View,
    shared: Arc<Shared>,
    node: Arc<node::Node>,
    follower: Arc<follow::Follower>,
    seen: Arc<target::Seen>,
    intake: intake::Handle,
    herald: herald::Herald,
    rooms: Rooms,
    positions: Arc<positions::Positions>,
    /// Whoever reads much takes nothing from what is sent, nor from other accounts.
    reads: reads::Reads,
    origin: Origin,
}

/// An end for a call over the network. See [`Remote::in_time`].
fn in_time<T>(call: impl Future<Output = Result<T, StoreError>>) -> impl Future<Output = Result<T, StoreError>> {
    let call = Box::pin(call);
    async {
        let late = |_| {
            // The server may have stopped answering on connections that still stand.
            connect::suspect();
            StoreError::Unavailable("it did not answer in time".into())
        };
        tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(late)?
    }
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
            if self.node.key() != 0 && self.node.lease().is_none() {
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

impl Lifecycle for Store {
    async fn close(&self) -> Result<(), StoreError> {
        // Below the minimum version the node has left already, and writes nothing more.
        if self.node.check_admitted().is_err() {
            return Ok(());
        }
        self.node.leave(&self.pool, &self.shared).await
    }

    async fn rekey(&self) -> Result<u64, OpenError> {
        // Differs by necessity: all nodes have the same key, which their operator has set before.
        self.reseal_secrets().await.map_err(|error| OpenError(format!("cannot rekey: {error}")))
    }

    async fn import(
        &self,
        source: &Path,
        keys: &KeySource,
        clock: &dyn Clock,
        told: impl FnMut(&str, usize) + Send,
    ) -> Result<usize, OpenError> {
        import::import(self, source, keys, clock, told).await
    }
}

impl Store {
    /// The same store in somebody's hands.
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
            _ => self.herald.cry(endpoint),
        }
    }

    /// Whether this process may have requests in flight to the endpoint.
    fn serves(&self, endpoint: EndpointKey) -> bool {
        self.shared.inbox.is_some() && self.node.share().of(self.shared.max_in_flight_per_endpoint, endpoint) > 0
    }
}

/// What each endpoint holds of this node's memory.
#[derive(Clone, Default)]
struct Rooms(Arc<Mutex<HashMap<EndpointKey, Arc<Room>>>>);

impl Rooms {
    fn of(&self, endpoint: EndpointKey) -> Arc<Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(endpoint).or_default().clone()
    }

    fn forget(&self, endpoint: EndpointKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&endpoint);
    }
}

/// Text from outside as PostgreSQL can hold it: without NUL.
fn text(value: String) -> String {
    if value.contains('\0') { value.replace('\0', "\u{fffd}") } else { value }
}

/// One column of many rows, as an array.
fn column<T, V>(rows: impl IntoIterator<Item = T>, value: impl FnMut(T) -> V) -> Vec<V> {
    rows.into_iter().map(value).collect()
}

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

async fn rows(db: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query(&statement, params).await?)
}

async fn row(db: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<Option<Row>, StoreError> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query_opt(&statement, params).await?)
}

/// The one row of a query that has one.
async fn one(db: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<Row, StoreError> {
    row(db, sql, params).await?.ok_or(StoreError::NotFound)
}

async fn execute(db: &impl GenericClient, sql: &str, params: Params<'_>) -> Result<u64, StoreError> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.execute(&statement, params).await?)
}

/// A transaction in which everything is read from one snapshot.
async fn snapshot(client: &mut Object) -> Result<Transaction<'_>, StoreError> {
    let level = tokio_postgres::IsolationLevel::RepeatableRead;
    Ok(client.build_transaction().isolation_level(level).read_only(true).start().await?)
}

/// A column.
fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, StoreError> {
    row.try_get(column).map_err(|error| {
        let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        StoreError::Corrupt(format!("{column}: {reason}"))
    })
}

/// A number of whatever width.
fn number(row: &Row, column: &str) -> Result<Option<i64>, StoreError> {
    let index = row.columns().iter().position(|known| known.name() == column).ok_or_else(|| corrupt(column))?;
    match *row.columns()[index].type_() {
        Type::INT2 => Ok(get::<Option<i16>>(row, column)?.map(i64::from)),
        Type::INT4 => Ok(get::<Option<i32>>(row, column)?.map(i64::from)),
        _ => get::<Option<i64>>(row, column),
    }
}

/// A number that this program has a narrower type for.
fn whole<T: TryFrom<i64>>(row: &Row, column: &str) -> Result<T, StoreError> {
    maybe_whole(row, column)?.ok_or_else(|| corrupt(column))
}

fn maybe_whole<T: TryFrom<i64>>(row: &Row, column: &str) -> Result<Option<T>, StoreError> {
    number(row, column)?.map(|value| T::try_from(value).map_err(|_| corrupt(column))).transpose()
}

/// Reads a number through `parse`.
fn parsed<T>(row: &Row, column: &str, parse: impl FnOnce(i64) -> Option<T>) -> Result<T, StoreError> {
    number(row, column)?.and_then(parse).ok_or_else(|| corrupt(column))
}

fn time(row: &Row, column: &str) -> Result<Option<Timestamp>, StoreError> {
    Ok(number(row, column)?.map(Timestamp::from_millis))
}

fn when(row: &Row, column: &str) -> Result<Timestamp, StoreError> {
    time(row, column)?.ok_or_else(|| corrupt(column))
}

fn corrupt(column: &str) -> StoreError {
    StoreError::Corrupt(format!("{column} holds an impossible value"))
}

/// Why a search failed, which the database ends after `SEARCH_TIMEOUT`.
fn search_failed(error: tokio_postgres::Error) -> StoreError {
    if error.code() == Some(&SqlState::QUERY_CANCELED) { StoreError::TooSlow } else { error.into() }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        connect::suspect_after(&error);
        Self::Unavailable(describe(&error))
    }
}

/// An error for a log or an operator. The detail of a server's answer may hold values; its message does not.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(answer) => format!("{} ({})", answer.message(), answer.code().code()),
        None => error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Timeout(_) => Self::Unavailable("too many calls wait for a connection".into()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}
