//! The rows of one commit that accepts events, written by one statement.

use std::collections::BTreeSet;

use bytes::Bytes;
use deadpool_postgres::{GenericClient, Pool};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{column, owner, turn};
use crate::domain::event::TEST_TYPE;
use crate::domain::id::{AccountKey, EndpointKey};
use crate::domain::time::Timestamp;
use crate::store::{KeepScope, KeptAnswer, StoreError};

/// An event and its body.
pub(super) struct EventRow {
    pub account: AccountKey,
    pub id: i64,
    pub event_type: String,
    pub occurred_at: i64,
    pub validation: Option<Uuid>,
    pub deliveries: Vec<i64>,
    pub body: Bytes,
}

/// A delivery; `in_line` where it waits for its turn.
pub(super) struct DeliveryRow {
    pub account: AccountKey,
    pub id: i64,
    pub endpoint: EndpointKey,
    pub event: i64,
    pub size: i32,
    pub leased: bool,
    pub in_line: bool,
}

/// The rows of one commit.
#[derive(Default)]
pub(super) struct Write {
    pub events: Vec<EventRow>,
    pub deliveries: Vec<DeliveryRow>,
    pub missed: Vec<(AccountKey, EndpointKey, String, i64)>,
    pub kept: Vec<(KeepScope, KeptAnswer)>,
    pub lease: i64,
    pub now: Timestamp,
    pub shard: i16,
}

/// One statement is one commit, and one round trip.
const WRITE: &str = "WITH e AS MATERIALIZED (SELECT t.* FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], \
                     $5::uuid[], $6::text[], $7::bytea[]) AS t(account, id, type, occurred_at, validation_id, deliveries, body)), \
                     d AS MATERIALIZED (SELECT t.* FROM unnest($8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], \
                     $12::integer[], $13::boolean[], $29::boolean[]) \
                     AS t(account, id, endpoint, event, size, leased, in_line)), \
                     new_events AS (INSERT INTO events (account, id, type, occurred_at, validation_id, deliveries) \
                     SELECT account, id, type, occurred_at, validation_id, deliveries::bigint[] FROM e), \
                     new_payloads AS (INSERT INTO payloads (account, event, body) SELECT account, id, body FROM e), \
                     new_deliveries AS (INSERT INTO deliveries (account, id, endpoint, event, type, validation_id) \
                     SELECT d.account, d.id, d.endpoint, d.event, e.type, e.validation_id FROM d JOIN e ON e.id = d.event), \
                     queued AS (INSERT INTO queue (account, delivery, endpoint, event, size, due_at, lease, turn, place) \
                     SELECT account, id, endpoint, event, size, CASE WHEN leased OR in_line THEN NULL ELSE $14::bigint END, \
                     CASE WHEN leased THEN $15::bigint END, CASE WHEN in_line THEN endpoint END, \
                     CASE WHEN in_line THEN nextval('turns') END FROM d), \
                     counted AS (INSERT INTO counters AS c (account, endpoint, shard, total) \
                     SELECT account, endpoint, $16::smallint, count(*) FROM (SELECT account, endpoint FROM d UNION ALL \
                     SELECT account, 0 FROM e WHERE type <> $17) AS n GROUP BY account, endpoint ORDER BY account, endpoint \
                     ON CONFLICT (account, endpoint, shard) DO UPDATE SET total = c.total + excluded.total), \
                     missing AS (INSERT INTO missed (account, endpoint, type, event) SELECT t.* FROM \
                     unnest($18::bigint[], $19::bigint[], $20::text[], $21::bigint[]) AS t) \
                     INSERT INTO kept_answers (owner, path, key, body_hash, status, request_id, answer, created_at) \
                     SELECT t.*, $14 FROM unnest($22::bytea[], $23::text[], $24::text[], $25::bytea[], \
                     $26::integer[], $27::text[], $28::bytea[]) AS t";

impl Write {
    /// Writes everything. Where the day has no partition yet, makes it first. Returns the endpoints whose turn has come.
    pub async fn run_in_its_day(&self, pool: &Pool) -> Result<Vec<EndpointKey>, StoreError> {
        let mut written = self.run_alone(pool).await?;
        if written.as_ref().is_err_and(super::partitions::is_missing) {
            super::partitions::create(pool, self.now).await?;
            written = self.run_alone(pool).await?;
        }
        written.map_err(refusal)
    }

    /// Writes everything in one commit.
    async fn run_alone(&self, pool: &Pool) -> Result<Result<Vec<EndpointKey>, tokio_postgres::Error>, StoreError> {
        let mut db = pool.get().await?;
        let lines = self.lines();
        if lines.is_empty() {
            return Ok(self.run(&db).await.map(|()| Vec::new()));
        }
        let tx = db.transaction().await?;
        turn::lock(&tx, &lines).await?;
        if let Err(error) = self.run(&tx).await {
            return Ok(Err(error));
        }
        let due = turn::pass(&tx, &lines, self.now).await?;
        tx.commit().await?;
        Ok(Ok(due))
    }

    /// The lines that it adds to.
    pub fn lines(&self) -> BTreeSet<i64> {
        self.deliveries.iter().filter(|row| row.in_line).map(|row| row.endpoint.0).collect()
    }

    pub async fn run(&self, db: &impl GenericClient) -> Result<(), tokio_postgres::Error> {
        let (events, deliveries, missed, kept) = (&self.events, &self.deliveries, &self.missed, &self.kept);
        let statement = db.prepare_cached(WRITE).await?;
        db.execute(
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
                &self.shard,
                &TEST_TYPE,
                &column(missed, |row| row.0.0),
                &column(missed, |row| row.1.0),
                &column(missed, |row| row.2.as_str()),
                &column(missed, |row| row.3),
                &column(kept, |(scope, _)| owner(scope)),
                &column(kept, |(scope, _)| scope.path.as_str()),
                &column(kept, |(scope, _)| scope.key.as_str()),
                &column(kept, |(_, kept)| kept.body_hash.as_slice()),
                &column(kept, |(_, kept)| i32::from(kept.status)),
                &column(kept, |(_, kept)| kept.request_id.as_str()),
                &column(kept, |(_, kept)| kept.answer.as_slice()),
                &column(deliveries, |row| row.in_line),
            ],
        )
        .await?;
        Ok(())
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
