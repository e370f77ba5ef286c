//! Moving an embedded installation here: `aldaba import`.
//!
//! Table after table, in steps; each step and the position that it came to are one commit, so that a move that is
//! interrupted goes on where it was. Ids stay as they are. The secrets are opened with the keys of the SQLite store and
//! sealed with those of this one. What was leased there is due here. Sessions stay behind: people sign in again.

use std::path::Path;

use Kind::{Bytes, Number, Text, Uuid as Id};
use deadpool_postgres::Transaction;
use rusqlite::types::Value;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::partitions::{Day, create_days};
use super::sql::{execute, get, one, row};
use super::store::Store;
use crate::clock::Clock;
use crate::domain::secret::{Keyring, SealedKind, SealedSecret};
use crate::store::errors::{OpenError, StoreError};
use crate::store::hold;
use crate::store::keys::KeySource;
use crate::store::sqlite::export::Export;
use crate::store::status::{is_open, literal};

/// Rows in one commit.
const STEP: usize = 2_000;

/// How a column's values are carried.
#[derive(Clone, Copy)]
enum Kind {
    Number,
    Text,
    Bytes,
    Uuid,
}

/// What is moved of a table: where its rows come from, and how they are written. A `read` gives a position and then the
/// columns; a `write` takes them as arrays.
struct Table {
    name: &'static str,
    kinds: &'static [Kind],
    read: &'static str,
    write: &'static str,
}

/// In an order in which nothing refers to what is not there yet.
const TABLES: &[Table] = &[
    Table {
        name: "id_offsets",
        kinds: &[Number, Number],
        read: "SELECT first_id, first_id, offset_ms FROM id_offsets WHERE first_id > ?1 ORDER BY first_id LIMIT ?2",
        write: "INSERT INTO id_offsets (first_id, offset_ms) SELECT * FROM unnest($1::bigint[], $2::bigint[])",
    },
    Table {
        name: "accounts",
        kinds: &[Number, Id, Text, Number, Number, Number, Number, Number, Number, Text, Text],
        read: "SELECT key, key, id, name, created_at, updated_at, deleted_at, retention_deliveries, \
               retention_payloads, payloads_gone, settings, external_id FROM accounts \
               WHERE key > ?1 ORDER BY key LIMIT ?2",
        write: "INSERT INTO accounts (key, id, name, created_at, updated_at, deleted_at, retention_deliveries, \
                retention_payloads, payloads_gone, settings, external_id) OVERRIDING SYSTEM VALUE SELECT * FROM \
                unnest($1::bigint[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
                $8::bigint[], $9::bigint[], $10::text[], $11::text[])",
    },
    Table {
        name: "events_total",
        kinds: &[Number, Number],
        read: "SELECT key, key, events_total FROM accounts WHERE key > ?1 ORDER BY key LIMIT ?2",
        write: concat!(
            "INSERT INTO counters (account, endpoint, shard, total) SELECT k, ",
            literal!(Counter::Events),
            ", ",
            literal!(Shard::Rows),
            ", n FROM unnest($1::bigint[], $2::bigint[]) AS t(k, n)"
        ),
    },
    Table {
        name: "api_keys",
        kinds: &[Id, Number, Bytes, Text, Text, Text, Number, Number, Number],
        read: "SELECT rowid, id, account, hash, name, permissions, hint, expires_at, last_used_at, created_at \
               FROM api_keys WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
        write: "INSERT INTO api_keys (id, account, hash, name, permissions, hint, expires_at, last_used_at, \
                created_at) SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::text[], $5::text[], \
                $6::text[], $7::bigint[], $8::bigint[], $9::bigint[])",
    },
    Table {
        name: "users",
        kinds: &[
            Number, Id, Number, Text, Text, Text, Text, Bytes, Number, Bytes, Number, Number, Number, Number, Number,
        ],
        read: "SELECT key, key, id, account, email, role, password, factor_key_id, factor_sealed, factor_step, \
               invitation, invited_until, last_sign_in_at, created_at, updated_at, factor_reset_at FROM users \
               WHERE key > ?1 ORDER BY key LIMIT ?2",
        write: "INSERT INTO users (key, id, account, email, role, password, factor_key_id, factor_sealed, factor_step, \
                invitation, invited_until, last_sign_in_at, created_at, updated_at, factor_reset_at) \
                OVERRIDING SYSTEM VALUE SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::text[], \
                $5::text[], $6::text[], $7::text[], $8::bytea[], $9::bigint[], $10::bytea[], $11::bigint[], \
                $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[])",
    },
    Table {
        name: "portal_links",
        kinds: &[Bytes, Id, Number, Text, Text, Text, Text, Number, Number],
        read: "SELECT * FROM (SELECT row_number() OVER (ORDER BY token) AS position, token, id, account, permissions, \
               brand, color, frame_origins, expires_at, opened_at FROM portal_links) WHERE position > ?1 \
               ORDER BY position LIMIT ?2",
        write: "INSERT INTO portal_links (token, id, account, permissions, brand, color, frame_origins, expires_at, \
                opened_at) SELECT * FROM unnest($1::bytea[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], \
                $6::text[], $7::text[], $8::bigint[], $9::bigint[])",
    },
    Table {
        name: "event_types",
        kinds: &[Text, Text, Text, Text, Number, Number],
        read: "SELECT * FROM (SELECT row_number() OVER (ORDER BY name) AS position, name, description, schema, \
               example, created_at, updated_at FROM event_types) WHERE position > ?1 ORDER BY position LIMIT ?2",
        write: "INSERT INTO event_types (name, description, schema, example, created_at, updated_at) SELECT * FROM \
                unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[]) \
                ON CONFLICT (name) DO UPDATE SET description = excluded.description, schema = excluded.schema, \
                example = excluded.example, created_at = excluded.created_at, updated_at = excluded.updated_at",
    },
    Table {
        name: "endpoints",
        kinds: &[
            Number, Id, Number, Text, Text, Text, Number, Number, Number, Number, Number, Number, Number, Number,
            Number, Number, Text, Text, Text, Bytes,
        ],
        read: "SELECT key, key, id, account, url, events, description, status, version, consecutive_failures, \
               failing_since, created_at, updated_at, deleted_at, deliveries_total, last_delivery_at, ordering, \
               settings, external_id, credentials_key_id, credentials FROM endpoints \
               JOIN endpoint_totals ON endpoint = key \
               WHERE key > ?1 ORDER BY key LIMIT ?2",
        write: concat!(
            "WITH e AS MATERIALIZED (SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::text[], \
             $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], \
             $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::text[], $18::text[], \
             $19::text[], $20::bytea[]) AS t(key, id, account, url, events, description, status, version, \
             consecutive_failures, failing_since, created_at, updated_at, deleted_at, total, last_delivery_at, \
             ordering, settings, external_id, credentials_key_id, credentials)), \
             counted AS (INSERT INTO counters (account, endpoint, shard, total, last_delivery_at) \
             SELECT account, key, ",
            literal!(Shard::Rows),
            ", total, last_delivery_at FROM e), \
             subscribed AS (INSERT INTO subscriptions (account, type, endpoint) SELECT DISTINCT account, type, key \
             FROM e, unnest(string_to_array(events, ' ')) AS s(type) WHERE deleted_at IS NULL AND type <> '') \
             INSERT INTO endpoints (key, id, account, url, events, description, status, version, \
             consecutive_failures, failing_since, created_at, updated_at, deleted_at, ordering, settings, \
             external_id, credentials_key_id, credentials) OVERRIDING SYSTEM VALUE SELECT key, id, account, url, \
             events, description, status, version, consecutive_failures, failing_since, created_at, updated_at, \
             deleted_at, ordering, settings, external_id, credentials_key_id, credentials FROM e"
        ),
    },
    Table {
        name: "endpoint_secrets",
        kinds: &[Number, Number, Text, Bytes, Text, Number],
        // The endpoint's id comes last, for the seal.
        read: "SELECT * FROM (SELECT row_number() OVER (ORDER BY s.endpoint, s.version) AS position, s.endpoint, \
               s.version, s.key_id, s.sealed, s.hint, s.expires_at, e.id FROM endpoint_secrets s JOIN endpoints e \
               ON e.key = s.endpoint) WHERE position > ?1 ORDER BY position LIMIT ?2",
        write: "INSERT INTO endpoint_secrets (endpoint, version, key_id, sealed, hint, expires_at) SELECT * FROM \
                unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::text[], $6::bigint[])",
    },
    Table {
        name: "limited_attempts",
        kinds: &[Number, Text],
        read: "SELECT endpoint, endpoint, attempts FROM limited_attempts WHERE endpoint > ?1 ORDER BY endpoint \
               LIMIT ?2",
        write: "INSERT INTO limited_attempts (endpoint, attempts) SELECT * FROM unnest($1::bigint[], $2::text[])",
    },
    Table {
        name: "events",
        kinds: &[Number, Number, Text, Number, Id, Number, Bytes, Text, Text],
        read: "SELECT v.id, v.account, v.id, v.type, v.occurred_at, v.validation_id, v.deliveries, p.body, \
               v.channels, p.trace_context FROM events v LEFT JOIN payloads p ON p.event = v.id WHERE v.id > ?1 \
               ORDER BY v.id LIMIT ?2",
        // The ids of an event's deliveries follow its own.
        write: "WITH v AS MATERIALIZED (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], \
                $5::uuid[], $6::bigint[], $7::bytea[], $8::text[], $9::text[]) AS t(account, id, type, occurred_at, \
                validation_id, deliveries, body, channels, trace_context)), bodies AS (INSERT INTO payloads (account, \
                event, body, trace_context) SELECT account, id, body, trace_context FROM v WHERE body IS NOT NULL) \
                INSERT INTO events (account, id, type, occurred_at, validation_id, deliveries, channels) \
                SELECT account, id, type, occurred_at, validation_id, ARRAY(SELECT generate_series(id + 1, \
                id + deliveries)), channels FROM v",
    },
    Table {
        name: "deliveries",
        kinds: &[
            Number, Number, Number, Number, Text, Id, Number, Number, Number, Number, Number, Text, Text, Number,
            Number, Number, Number, Number,
        ],
        // What was leased there is due here. What waits for the head of its FIFO endpoint goes on waiting: its position
        // is its id less the greatest number, which is before all positions that are given out here.
        read: "SELECT d.id, v.account, d.id, d.endpoint, d.event, v.type, v.validation_id, d.status, d.attempt, \
               d.started_at, d.response_status, d.response_time_ms, d.response_body, d.error_message, d.replay, \
               d.failures, iif(d.lease IS NULL, d.due_at, 0), length(p.body), d.turn FROM deliveries d JOIN events v \
               ON v.id = d.event LEFT JOIN payloads p ON p.event = d.event WHERE d.id > ?1 ORDER BY d.id LIMIT ?2",
        write: concat!(
            "WITH d AS MATERIALIZED (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], \
             $5::text[], $6::uuid[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], \
             $12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[]) AS \
             t(account, id, endpoint, event, type, validation_id, status, attempt, started_at, response_status, \
             response_time_ms, response_body, error_message, replay, failures, due_at, size, turn)), opened AS \
             (INSERT INTO queue (account, delivery, endpoint, event, size, attempt, failures, due_at, replay, turn, \
             place) SELECT account, id, endpoint, event, size, attempt, failures, due_at, replay, turn, CASE WHEN \
             turn IS NOT NULL THEN id - 9223372036854775807 END FROM d WHERE ",
            is_open!("status"),
            ") INSERT INTO deliveries (account, id, endpoint, event, type, validation_id, status, attempt, \
             started_at, response_status, response_time_ms, response_body, error_message, replay) SELECT account, \
             id, endpoint, event, type, validation_id, status, attempt, started_at, response_status, \
             response_time_ms, response_body, error_message, replay FROM d"
        ),
    },
    Table {
        name: "attempts",
        kinds: &[Number, Number, Number, Number, Number, Number, Text, Text],
        // Whole deliveries at a time: a position is a delivery.
        read: "SELECT a.delivery, v.account, a.delivery, a.attempt, a.started_at, a.response_status, \
               a.response_time_ms, a.response_body, a.error_message FROM attempts a JOIN deliveries d \
               ON d.id = a.delivery JOIN events v ON v.id = d.event WHERE a.delivery IN (SELECT DISTINCT delivery \
               FROM attempts WHERE delivery > ?1 ORDER BY delivery LIMIT ?2) ORDER BY a.delivery, a.attempt",
        write: "INSERT INTO attempts (account, delivery, attempt, started_at, response_status, response_time_ms, \
                response_body, error_message) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], \
                $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[])",
    },
    Table {
        name: "replays",
        kinds: &[
            Number, Id, Number, Number, Number, Number, Number, Number, Number, Number, Number, Number, Number, Number,
            Number,
        ],
        read: "SELECT r.key, r.key, r.id, e.account, r.endpoint, r.selection, r.status, r.from_at, r.to_at, r.first, \
               r.last, r.position, r.total, r.made, r.created_at, r.finished_at FROM replays r JOIN endpoints e \
               ON e.key = r.endpoint WHERE r.key > ?1 ORDER BY r.key LIMIT ?2",
        write: "INSERT INTO replays (key, id, account, endpoint, selection, status, from_at, to_at, first, last, \
                position, total, made, created_at, finished_at) OVERRIDING SYSTEM VALUE SELECT * \
                FROM unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
                $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], \
                $14::bigint[], $15::bigint[])",
    },
    Table {
        name: "missed",
        kinds: &[Number, Number, Text, Number],
        read: "SELECT * FROM (SELECT row_number() OVER (ORDER BY m.endpoint, m.type, m.event) AS position, e.account, \
               m.endpoint, m.type, m.event FROM missed m JOIN endpoints e ON e.key = m.endpoint) WHERE position > ?1 \
               ORDER BY position LIMIT ?2",
        write: "INSERT INTO missed (account, endpoint, type, event) SELECT * FROM unnest($1::bigint[], $2::bigint[], \
                $3::text[], $4::bigint[])",
    },
    Table {
        name: "kept_answers",
        kinds: &[Bytes, Text, Text, Bytes, Number, Text, Bytes, Number],
        read: "SELECT * FROM (SELECT row_number() OVER (ORDER BY owner, path, key) AS position, owner, path, key, \
               body_hash, status, request_id, answer, created_at FROM kept_answers) WHERE position > ?1 \
               ORDER BY position LIMIT ?2",
        write: "INSERT INTO kept_answers (owner, path, key, body_hash, status, request_id, answer, created_at) \
                SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::text[], \
                $7::bytea[], $8::bigint[])",
    },
    Table {
        name: "attempt_counts",
        kinds: &[Number, Number, Number, Number, Number, Number, Number],
        read: "SELECT * FROM (SELECT row_number() OVER (ORDER BY account, length, slot, endpoint, came, class) AS \
               position, account, length, slot, endpoint, came, class, attempts FROM attempt_counts) \
               WHERE position > ?1 ORDER BY position LIMIT ?2",
        write: "INSERT INTO attempt_counts (account, length, slot, endpoint, came, class, attempts) SELECT * FROM \
                unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
                $7::bigint[])",
    },
    Table {
        name: "audit_log",
        kinds: &[Number, Id, Number, Text, Text, Text, Text, Text, Text, Text, Text, Text, Number],
        read: "SELECT key, key, id, account, action, actor, actor_id, actor_name, resource, resource_id, fields, \
               address, request, created_at FROM audit_log WHERE key > ?1 ORDER BY key LIMIT ?2",
        write: "INSERT INTO audit_log (key, id, account, action, actor, actor_id, actor_name, resource, resource_id, \
                fields, address, request, created_at) OVERRIDING SYSTEM VALUE SELECT * \
                FROM unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], \
                $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[])",
    },
];

/// In `settings`: whether a move is under way or done, and the position of each table.
const STATE: &str = "import";

const UNDER_WAY: i64 = 0;

const DONE: i64 = 1;

/// See [`Lifecycle::import`](crate::store::Lifecycle::import).
pub(super) async fn import(
    store: &Store,
    source: &Path,
    keys: &KeySource,
    clock: &dyn Clock,
    mut on_progress: impl FnMut(&str, usize) + Send,
) -> Result<usize, OpenError> {
    let failed = |error: StoreError| OpenError(format!("the import was interrupted: {error}; run it again to go on"));
    store.begin_import().await?;
    let export = Export::open(source, clock)?;
    let old = keys.load(&*store.shared.random)?;
    super::migrate::take_minimum(&store.pool, export.minimum().map_err(failed)?).await?;
    if export.is_on_hold().map_err(failed)? {
        store.import_hold().await.map_err(failed)?;
    }
    let mut moved = 0;
    for table in TABLES {
        let mut of_table = 0;
        loop {
            let rows = store.import_step(table, &export, &old).await.map_err(failed)?;
            if rows == 0 {
                break;
            }
            of_table += rows;
            on_progress(table.name, of_table);
        }
        moved += of_table;
    }
    store.end_import().await.map_err(failed)?;
    Ok(moved)
}

impl Store {
    /// Holds all deliveries, before there are any. The audit log that is copied has the entry.
    async fn import_hold(&self) -> Result<(), StoreError> {
        let sql = "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
        execute(&self.client().await?, sql, &[&hold::ROW, &self.now().as_millis()]).await?;
        Ok(())
    }

    /// Only an empty database takes in another, or one that has begun to.
    async fn begin_import(&self) -> Result<(), OpenError> {
        let failed = |error: StoreError| OpenError(format!("cannot import: {error}"));
        let db = self.client().await.map_err(failed)?;
        let state = row(&db, "SELECT value FROM settings WHERE name = $1", &[&STATE]).await.map_err(failed)?;
        match state.map(|row| get::<i64>(&row, "value")).transpose().map_err(failed)? {
            Some(UNDER_WAY) => return Ok(()),
            Some(_) => return Err(OpenError("cannot import: this database has taken in another already".into())),
            None => {}
        }
        for table in ["accounts", "users"] {
            let sql = format!("SELECT 1 FROM {table} LIMIT 1");
            if row(&db, &sql, &[]).await.map_err(failed)?.is_some() {
                let reason = format!("cannot import: the PostgreSQL database has {table}; it must be a new one");
                return Err(OpenError(reason));
            }
        }
        let sql = "INSERT INTO settings (name, value) VALUES ($1, $2)";
        execute(&db, sql, &[&STATE, &UNDER_WAY]).await.map_err(failed)?;
        Ok(())
    }

    /// Moves the next rows of a table. Returns how many.
    async fn import_step(&self, table: &Table, export: &Export, old: &Keyring) -> Result<usize, StoreError> {
        let setting = format!("{STATE}.{}", table.name);
        let mut client = self.client().await?;
        let known = row(&client, "SELECT value FROM settings WHERE name = $1", &[&setting]).await?;
        let after = known.map_or(Ok(0), |row| get::<i64>(&row, "value"))?;
        let mut rows = export.rows(table.read, after, STEP)?;
        let Some((last, _)) = rows.last() else { return Ok(0) };
        let last = *last;
        if matches!(table.name, "events" | "deliveries") {
            let days = rows.iter().map(|(id, _)| Day::of_id(*id)).collect();
            create_days(&self.pool, days).await?;
        }
        if let Some(sealed) = sealed_in(table.name) {
            for (_, values) in &mut rows {
                self.seal_anew(values, sealed, old)?;
            }
        }
        let columns: Vec<Box<dyn ToSql + Sync + Send>> = table
            .kinds
            .iter()
            .enumerate()
            .map(|(index, kind)| array(*kind, rows.iter().map(|(_, values)| &values[index])))
            .collect::<Result<_, _>>()?;
        let parameters: Vec<&(dyn ToSql + Sync)> =
            columns.iter().map(|values| &**values as &(dyn ToSql + Sync)).collect();
        let tx = client.transaction().await?;
        move_position(&tx, &setting, after, last).await?;
        execute(&tx, table.write, &parameters).await?;
        tx.commit().await?;
        Ok(rows.len())
    }

    /// Seals what is sealed in a row with the keys of this store.
    fn seal_anew(&self, values: &mut [Value], sealed: SealedColumns, old: &Keyring) -> Result<(), StoreError> {
        let corrupt = || StoreError::Corrupt("a secret holds an impossible value".into());
        let SealedColumns { kind, key_id, bytes, owner } = sealed;
        let (before, owner) = match (&values[key_id], &values[bytes], &values[owner]) {
            // A user without a second factor, an endpoint without credentials.
            (Value::Null, Value::Null, _) => return Ok(()),
            (Value::Text(key_id), Value::Blob(bytes), Value::Blob(owner)) => {
                let owner = Uuid::from_slice(owner).map_err(|_| corrupt())?;
                (SealedSecret { key_id: key_id.clone(), bytes: bytes.clone() }, owner)
            }
            _ => return Err(corrupt()),
        };
        let text = old.open_text(kind, &before, owner).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let new = self.shared.keyring().seal_text(kind, &text, owner, self.shared.random.array());
        (values[key_id], values[bytes]) = (Value::Text(new.key_id), Value::Blob(new.bytes));
        Ok(())
    }

    async fn end_import(&self) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        for table in ["accounts", "users", "endpoints", "replays", "audit_log"] {
            // New rows go on after those that came.
            let sql = format!(
                "SELECT setval(pg_get_serial_sequence('{table}', 'key'), greatest((SELECT max(key) FROM {table}), 1))"
            );
            tx.batch_execute(&sql).await?;
        }
        execute(&tx, "DELETE FROM settings WHERE name LIKE $1", &[&format!("{STATE}.%")]).await?;
        execute(&tx, "UPDATE settings SET value = $2 WHERE name = $1", &[&STATE, &DONE]).await?;
        // A number without a change: every node reads everything.
        execute(&tx, "UPDATE settings SET value = value + 1 WHERE name = 'generation'", &[]).await?;
        // And one that says what history was read.
        super::change_feed::write_change(&tx, super::change_feed::Change::EventTypes, self.now()).await?;
        self.commit(tx).await
    }
}

/// Where rows of a table have what is sealed: the id of the master key, what it sealed, and the id of whose it is.
#[derive(Clone, Copy)]
struct SealedColumns {
    kind: SealedKind,
    key_id: usize,
    bytes: usize,
    owner: usize,
}

fn sealed_in(table: &str) -> Option<SealedColumns> {
    let at = |kind, key_id, bytes, owner| Some(SealedColumns { kind, key_id, bytes, owner });
    match table {
        "endpoint_secrets" => at(SealedKind::Secret, 2, 3, 6),
        "users" => at(SealedKind::Secret, 6, 7, 1),
        "endpoints" => at(SealedKind::Credentials, 18, 19, 1),
        _ => None,
    }
}

/// Moves the position on; whoever imports beside this finds that it has moved.
async fn move_position(tx: &Transaction<'_>, setting: &str, after: i64, last: i64) -> Result<(), StoreError> {
    execute(tx, "INSERT INTO settings (name, value) VALUES ($1, 0) ON CONFLICT DO NOTHING", &[&setting]).await?;
    let sql = "SELECT value FROM settings WHERE name = $1 FOR UPDATE";
    if get::<i64>(&one(tx, sql, &[&setting]).await?, "value")? != after {
        return Err(StoreError::Unavailable("another import is under way".into()));
    }
    execute(tx, "UPDATE settings SET value = $2 WHERE name = $1", &[&setting, &last]).await?;
    Ok(())
}

/// Values of one column as an array of PostgreSQL.
fn array<'a>(kind: Kind, values: impl Iterator<Item = &'a Value>) -> Result<Box<dyn ToSql + Sync + Send>, StoreError> {
    let corrupt = || StoreError::Corrupt("a column holds what it cannot hold".into());
    let numbers = |value: &Value| match value {
        Value::Null => Ok(None),
        Value::Integer(number) => Ok(Some(*number)),
        _ => Err(corrupt()),
    };
    let texts = |value: &Value| match value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(super::sql::text(text.clone()))),
        _ => Err(corrupt()),
    };
    let bytes = |value: &Value| match value {
        Value::Null => Ok(None),
        Value::Blob(bytes) => Ok(Some(bytes.clone())),
        _ => Err(corrupt()),
    };
    Ok(match kind {
        Kind::Number => Box::new(values.map(numbers).collect::<Result<Vec<_>, _>>()?),
        Kind::Text => Box::new(values.map(texts).collect::<Result<Vec<_>, _>>()?),
        Kind::Bytes => Box::new(values.map(bytes).collect::<Result<Vec<_>, _>>()?),
        Kind::Uuid => {
            let ids = values.map(|value| match bytes(value)? {
                Some(bytes) => Uuid::from_slice(&bytes).map(Some).map_err(|_| corrupt()),
                None => Ok(None),
            });
            Box::new(ids.collect::<Result<Vec<_>, _>>()?)
        }
    })
}
