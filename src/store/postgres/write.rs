//! The rows of one commit that accepts events, written by one statement.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use deadpool_postgres::{GenericClient, Pool};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::fifo;
use super::fifo::KnownHeads;
use super::sql::column;
use super::stored_replies::owner;
use crate::domain::channels::Channels;
use crate::domain::event::TEST_TYPE;
use crate::domain::id::{AccountKey, EndpointKey, first_at_clock};
use crate::domain::time::Timestamp;
use crate::domain::trace_context::TraceContext;
use crate::store::errors::StoreError;
use crate::store::numbers::EVENTS_COUNTER;
use crate::store::settings::channels_column;
use crate::store::values::{ReplyScope, StoredReply};

/// An event and its body.
pub(super) struct EventRow {
    pub account: AccountKey,
    pub id: i64,
    pub event_type: String,
    pub occurred_at: i64,
    pub validation: Option<Uuid>,
    pub channels: Option<Channels>,
    pub trace: Option<TraceContext>,
    pub deliveries: Vec<i64>,
    pub body: Bytes,
}

/// A delivery; `is_fifo` where its endpoint is a FIFO endpoint.
pub(super) struct DeliveryRow {
    pub account: AccountKey,
    pub id: i64,
    pub endpoint: EndpointKey,
    pub event: i64,
    pub size: i32,
    pub leased: bool,
    pub is_fifo: bool,
}

/// The rows of one commit.
#[derive(Default)]
pub(super) struct Write {
    pub events: Vec<EventRow>,
    pub deliveries: Vec<DeliveryRow>,
    pub missed: Vec<(AccountKey, EndpointKey, String, i64)>,
    pub replies: Vec<(ReplyScope, StoredReply)>,
    pub lease: i64,
    pub now: Timestamp,
    /// The last change when it was planned, where that matters: where the database has a later one, nothing is written.
    pub planned_at: Option<i64>,
}

/// What came of it: the last change when it was written, and the endpoints whose head became due.
pub(super) struct Written {
    pub generation: i64,
    pub due: Vec<EndpointKey>,
}

/// One statement is one commit, and one round trip.
const WRITE: &str = "WITH g AS MATERIALIZED (SELECT value AS generation, $31::bigint IS NULL OR $31 = value AS fits \
                     FROM settings WHERE name = 'generation'), \
                     e AS MATERIALIZED (SELECT t.* FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], \
                     $5::uuid[], $6::text[], $7::bytea[], $32::text[], $33::text[]) AS t(account, id, type, \
                     occurred_at, validation_id, deliveries, body, channels, trace_context) WHERE (SELECT fits \
                     FROM g)), \
                     d AS MATERIALIZED (SELECT t.* FROM unnest($8::bigint[], $9::bigint[], $10::bigint[], \
                     $11::bigint[], $12::integer[], $13::boolean[], $28::boolean[]) \
                     AS t(account, id, endpoint, event, size, leased, is_fifo) WHERE (SELECT fits FROM g)), \
                     new_events AS (INSERT INTO events (account, id, type, occurred_at, validation_id, deliveries, \
                     channels) SELECT account, id, type, occurred_at, validation_id, deliveries::bigint[], channels \
                     FROM e), \
                     new_payloads AS (INSERT INTO payloads (account, event, body, trace_context) SELECT account, id, \
                     body, trace_context FROM e), \
                     new_deliveries AS (INSERT INTO deliveries (account, id, endpoint, event, type, validation_id) \
                     SELECT d.account, d.id, d.endpoint, d.event, e.type, e.validation_id FROM d JOIN e \
                     ON e.id = d.event), queued AS (INSERT INTO queue (account, delivery, endpoint, event, size, \
                     due_at, lease, turn, place) SELECT account, id, endpoint, event, size, CASE WHEN leased \
                     OR is_fifo THEN NULL ELSE $14::bigint END, CASE WHEN leased THEN $15::bigint END, CASE WHEN \
                     is_fifo THEN endpoint END, CASE WHEN is_fifo THEN nextval('turns') END FROM d), \
                     counted AS (INSERT INTO counter_deltas (account, endpoint, total) \
                     SELECT t.account, t.endpoint, t.total FROM unnest($16::bigint[], $29::bigint[], $30::bigint[]) AS \
                     t(account, endpoint, total) WHERE (SELECT fits FROM g)), \
                     missing AS (INSERT INTO missed (account, endpoint, type, event) SELECT t.* FROM \
                     unnest($17::bigint[], $18::bigint[], $19::text[], $20::bigint[]) AS t WHERE (SELECT fits \
                     FROM g)), new_replies AS (INSERT INTO kept_answers (owner, path, key, body_hash, status, \
                     request_id, answer, created_at) SELECT t.*, $14 FROM unnest($21::bytea[], $22::text[], \
                     $23::text[], $24::bytea[], $25::integer[], $26::text[], $27::bytea[]) AS t WHERE (SELECT fits \
                     FROM g)) SELECT generation FROM g";

impl Write {
    /// Writes everything. Where the day has no partition yet, makes it first.
    pub async fn run_in_its_day(&self, pool: &Pool, heads: &KnownHeads) -> Result<Written, StoreError> {
        let mut written = self.run_alone(pool, heads).await?;
        if written.as_ref().is_err_and(super::partitions::is_missing) {
            let id = self.events.first().map(|row| row.id).or(self.deliveries.first().map(|row| row.id));
            super::partitions::create(pool, id.unwrap_or(first_at_clock(self.now))).await?;
            written = self.run_alone(pool, heads).await?;
        }
        written.map_err(refusal)
    }

    /// Writes everything in one commit.
    async fn run_alone(
        &self,
        pool: &Pool,
        heads: &KnownHeads,
    ) -> Result<Result<Written, tokio_postgres::Error>, StoreError> {
        let mut db = pool.get().await?;
        let fifo_endpoints = self.fifo_endpoints();
        if fifo_endpoints.is_empty() {
            return Ok(self.run(&db).await.map(|generation| Written { generation, due: Vec::new() }));
        }
        let tx = db.transaction().await?;
        fifo::lock(&tx, &fifo_endpoints).await?;
        let generation = match self.run(&tx).await {
            Ok(generation) => generation,
            Err(error) => return Ok(Err(error)),
        };
        if self.is_late(generation) {
            return Ok(Ok(Written { generation, due: Vec::new() }));
        }
        let due = fifo::make_heads_due(&tx, heads, &fifo_endpoints, self.now).await?;
        tx.commit().await?;
        Ok(Ok(Written { generation, due }))
    }

    /// Events, deliveries and missed events.
    pub fn rows(&self) -> usize {
        self.events.len() + self.deliveries.len() + self.missed.len()
    }

    /// Whether it was planned before this change, so that nothing was written.
    pub fn is_late(&self, generation: i64) -> bool {
        self.planned_at.is_some_and(|planned_at| planned_at != generation)
    }

    /// The FIFO endpoints that it adds deliveries for.
    pub fn fifo_endpoints(&self) -> BTreeSet<i64> {
        self.deliveries.iter().filter(|row| row.is_fifo).map(|row| row.endpoint.0).collect()
    }

    /// Deliveries by account and endpoint, and the events of accounts ([`EVENTS_COUNTER`]).
    fn counted(&self) -> BTreeMap<(i64, i64), i64> {
        let mut counted = BTreeMap::new();
        let events = self.events.iter().filter(|row| row.event_type != TEST_TYPE);
        let events = events.map(|row| (row.account.0, EVENTS_COUNTER));
        for key in events.chain(self.deliveries.iter().map(|row| (row.account.0, row.endpoint.0))) {
            *counted.entry(key).or_default() += 1;
        }
        counted
    }

    /// Writes everything, and returns the last change.
    pub async fn run(&self, db: &impl GenericClient) -> Result<i64, tokio_postgres::Error> {
        let (events, deliveries, missed, replies) = (&self.events, &self.deliveries, &self.missed, &self.replies);
        debug_assert!(deliveries.iter().all(|row| row.id > row.event), "a delivery comes after its event");
        let counted = self.counted();
        let statement = db.prepare_cached(WRITE).await?;
        let row = db
            .query_one(
                &statement,
                &[
                    &column(events, |row| row.account.0),
                    &column(events, |row| row.id),
                    &column(events, |row| row.event_type.as_str()),
                    &column(events, |row| row.occurred_at),
                    &column(events, |row| row.validation),
                    &column(events, |row| array(&row.deliveries)),
                    &column(events, |row| &row.body[..]),
                    &column(deliveries, |row| row.account.0),
                    &column(deliveries, |row| row.id),
                    &column(deliveries, |row| row.endpoint.0),
                    &column(deliveries, |row| row.event),
                    &column(deliveries, |row| row.size),
                    &column(deliveries, |row| row.leased),
                    &self.now.as_millis(),
                    &self.lease,
                    &column(counted.keys(), |key| key.0),
                    &column(missed, |row| row.0.0),
                    &column(missed, |row| row.1.0),
                    &column(missed, |row| row.2.as_str()),
                    &column(missed, |row| row.3),
                    &column(replies, |(scope, _)| owner(scope)),
                    &column(replies, |(scope, _)| scope.path.as_str()),
                    &column(replies, |(scope, _)| scope.key.as_str()),
                    &column(replies, |(_, reply)| reply.body_hash.as_slice()),
                    &column(replies, |(_, reply)| i32::from(reply.status)),
                    &column(replies, |(_, reply)| reply.request_id.as_str()),
                    &column(replies, |(_, reply)| reply.body.as_slice()),
                    &column(deliveries, |row| row.is_fifo),
                    &column(counted.keys(), |key| key.1),
                    &column(counted.values(), |total| *total),
                    &self.planned_at,
                    &column(events, |row| channels_column(row.channels.as_ref())),
                    &column(events, |row| row.trace.as_ref().map(TraceContext::column)),
                ],
            )
            .await?;
        row.try_get("generation")
    }
}

/// Numbers as the text of an array.
fn array(numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}

fn refusal(error: tokio_postgres::Error) -> StoreError {
    let taken = error.code() == Some(&SqlState::UNIQUE_VIOLATION)
        && error.as_db_error().and_then(|answer| answer.table()) == Some("kept_answers");
    if taken { StoreError::KeyTaken } else { error.into() }
}
