//! The transaction of the writer, as a write sees it. All writes of a batch share it (`writer`).

use rusqlite::{CachedStatement, Connection, params};

use super::writer_cache::WriterCache;
use crate::domain::channels::Channels;
use crate::domain::id::{AccountKey, DeliveryId, EndpointKey, EventId, IdSequence};
use crate::domain::time::Timestamp;
use crate::domain::trace_context::TraceContext;
use crate::store::errors::StoreError;
use crate::store::inbox::Leased;
use crate::store::settings::channels_column;
use crate::store::shared::Shared;
use crate::store::write_shares::WriteSize;

/// What a write sees: the connection inside the transaction, and what waits for its commit. All writes of a transaction
/// share it.
pub(super) struct Tx<'a> {
    pub db: &'a Connection,
    pub inserts: Inserts<'a>,
    pub cache: &'a mut WriterCache,
    pub shared: &'a Shared,
    pub ids: &'a mut IdSequence,
    /// The time of this transaction.
    pub now: Timestamp,
    /// The lease of this process; 0 in one that does not deliver.
    pub lease: i64,
    pub after: &'a mut AfterCommit,
    /// What has been written.
    pub size: &'a mut WriteSize,
}

/// Bytes of bodies and stored replies in one transaction: more is cut between two writes. One call stays one commit, so
/// that a batch may come to as much again. It is a quarter of the log from which on writers wait for a checkpoint.
const MAX_TRANSACTION_BYTES: usize = 8 << 20;

/// Rows of events, deliveries, missed events and outcomes in one transaction, cut in the same way: so many take some
/// 50 ms.
const MAX_TRANSACTION_ROWS: usize = 8_192;

impl Tx<'_> {
    /// Whether the transaction has written so much that it takes no further write.
    pub fn is_full(&self) -> bool {
        self.size.bytes >= MAX_TRANSACTION_BYTES || self.size.rows >= MAX_TRANSACTION_ROWS
    }
}

/// What happens after the commit, and does not happen without it.
#[derive(Default)]
pub(super) struct AfterCommit {
    pub jobs: Vec<Leased>,
    pub due: Vec<(EndpointKey, Timestamp)>,
}

impl AfterCommit {
    pub fn mark(&self) -> (usize, usize) {
        (self.jobs.len(), self.due.len())
    }

    pub fn rewind(&mut self, (jobs, due): (usize, usize)) {
        self.jobs.truncate(jobs);
        self.due.truncate(due);
    }
}

/// The statements that write events and deliveries. They are looked up once for all writes of a transaction.
pub(super) struct Inserts<'a> {
    event: CachedStatement<'a>,
    payload: CachedStatement<'a>,
    delivery: CachedStatement<'a>,
}

impl<'a> Inserts<'a> {
    pub fn prepare(db: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            event: db.prepare_cached(
                "INSERT INTO events (id, account, type, occurred_at, validation_id, deliveries, channels) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?,
            payload: db.prepare_cached("INSERT INTO payloads (event, body, trace_context) VALUES (?1, ?2, ?3)")?,
            delivery: db.prepare_cached(
                "INSERT INTO deliveries (id, endpoint, event, due_at, lease) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?,
        })
    }
}

#[expect(clippy::too_many_arguments, reason = "they are the columns of one row")]
pub(super) fn insert_event(
    tx: &mut Tx<'_>,
    id: EventId,
    account: AccountKey,
    event_type: &str,
    occurred_at: i64,
    validation: Option<[u8; 16]>,
    deliveries: u32,
    channels: Option<&Channels>,
    trace: Option<&TraceContext>,
    body: &[u8],
) -> Result<(), StoreError> {
    let channels = channels_column(channels);
    tx.inserts.event.execute(params![id.0, account.0, event_type, occurred_at, validation, deliveries, channels])?;
    let trace = trace.map(TraceContext::column);
    tx.inserts.payload.execute(params![id.0, body, trace])?;
    tx.size.bytes += body.len() + channels.as_ref().map_or(0, String::len) + trace.map_or(0, str::len);
    tx.size.rows += 1;
    Ok(())
}

pub(super) fn insert_delivery(
    tx: &mut Tx<'_>,
    id: DeliveryId,
    endpoint: EndpointKey,
    event: EventId,
    leased: bool,
) -> Result<(), StoreError> {
    debug_assert!(id.0 > event.0, "ids grow, and a delivery comes after its event");
    let (due_at, lease) = if leased { (None, Some(tx.lease)) } else { (Some(tx.now.as_millis()), None) };
    tx.inserts.delivery.execute(params![id.0, endpoint.0, event.0, due_at, lease])?;
    tx.cache.came(1);
    tx.size.rows += 1;
    Ok(())
}

/// The event was published while the endpoint, which subscribes to it, was not active.
pub(super) fn insert_missed(
    tx: &mut Tx<'_>,
    endpoint: EndpointKey,
    event_type: &str,
    event: EventId,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO missed (endpoint, type, event) VALUES (?1, ?2, ?3)";
    tx.db.prepare_cached(sql)?.execute(params![endpoint.0, event_type, event.0])?;
    tx.size.rows += 1;
    Ok(())
}
