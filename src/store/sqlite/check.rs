//! A check of a database file, beside a running server too: whether SQLite can read all of it, whether its rows agree,
//! and what a server on it would serve.
//!
//! Each statement has a snapshot of its own. So the write-ahead log can begin anew between two statements, and a
//! statement compares rows of one moment.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};
use uuid::Uuid;

use super::columns::{sealed, uuid};
use super::connection::inspector;
use super::{hold_row, id_times, migrate};
use crate::domain::delivery::DeliveryStatus;
use crate::domain::endpoint::EndpointStatus;
use crate::domain::event::TEST_TYPE;
use crate::domain::secret::{Keyring, SealedSecret};
use crate::domain::time::Timestamp;
use crate::store::check::{
    Checked, Contents, EndpointRow, Findings, MAX_COUNTED, RowChecks, Seals, by_name, left_out, unreadable,
};
use crate::store::counted_attempts::CountedAttempts;
use crate::store::credentials::{KEY_ID, SEALED};
use crate::store::errors::{OpenError, StoreError};
use crate::store::keys::KeySource;
use crate::store::migrations::newest;
use crate::store::status::{is_finished, is_open, literal};

/// Faults of the file that SQLite lists.
const MAX_FAULTS: u32 = 20;

/// Rules for the rows of a table: the table, and a query that finds rows that break a rule. Its columns are the name of
/// the row, and what is wrong with it.
const ROW_CHECKS: &[(&str, &str)] = &[
    (
        "deliveries",
        concat!(
            "SELECT id, reason FROM (SELECT d.id AS id, CASE WHEN d.status NOT BETWEEN 0 AND 3 \
             THEN 'its status is unknown' WHEN d.id <= d.event THEN 'its id is not after that of its event' \
             WHEN NOT EXISTS (SELECT 1 FROM events e WHERE e.id = d.event) THEN 'its event is missing' \
             WHEN NOT EXISTS (SELECT 1 FROM endpoints n WHERE n.key = d.endpoint) THEN 'its endpoint is missing' WHEN ",
            is_finished!("d.status"),
            " AND (d.due_at IS NOT NULL OR d.lease IS NOT NULL) THEN 'it has ended, and is due or leased' \
             WHEN d.due_at IS NOT NULL AND d.lease IS NOT NULL THEN 'it is due and leased' WHEN ",
            is_open!("d.status"),
            " AND d.due_at IS NULL AND d.lease IS NULL AND d.turn IS NULL THEN 'it is open, and neither due nor \
             leased' WHEN ",
            is_open!("d.status"),
            " AND NOT EXISTS (SELECT 1 FROM payloads p WHERE p.event = d.event) THEN 'it is open, and its body is \
             missing' WHEN d.id <= s.value AND NOT EXISTS (SELECT 1 FROM delivery_lists l \
             WHERE l.endpoint = d.endpoint AND l.id = d.id AND l.event = d.event AND l.status = d.status \
             AND l.attempt = d.attempt AND l.response_status IS d.response_status \
             AND l.response_time_ms IS d.response_time_ms) THEN 'the delivery index has no such entry' \
             WHEN d.lease IS NOT NULL AND d.id <= s.value AND NOT EXISTS (SELECT 1 FROM listed_leases l \
             WHERE l.id = d.id) THEN 'its lease is not listed' END AS reason FROM deliveries d \
             LEFT JOIN settings s ON s.name = 'listed_to') WHERE reason IS NOT NULL"
        ),
    ),
    (
        "delivery_lists",
        "SELECT l.id, 'there is no such delivery' FROM delivery_lists l WHERE NOT EXISTS \
         (SELECT 1 FROM deliveries d WHERE d.id = l.id AND d.endpoint = l.endpoint)",
    ),
    (
        "deliveries",
        "SELECT MIN(id), 'another of its FIFO endpoint is due or leased too' FROM deliveries WHERE turn IS NOT NULL \
         AND (due_at IS NOT NULL OR lease IS NOT NULL) GROUP BY turn HAVING COUNT(*) > 1",
    ),
    (
        "endpoints",
        "SELECT id, reason FROM (SELECT e.id AS id, CASE WHEN e.status NOT BETWEEN 0 AND 2 \
         THEN 'its status is unknown' WHEN e.ordering NOT BETWEEN 0 AND 1 THEN 'its ordering is unknown' \
         WHEN e.deleted_at IS NOT NULL THEN NULL \
         WHEN NOT EXISTS (SELECT 1 FROM accounts a WHERE a.key = e.account) THEN 'its account is missing' \
         WHEN NOT EXISTS (SELECT 1 FROM endpoint_secrets s WHERE s.endpoint = e.key) THEN 'it has no secret' \
         WHEN c.endpoint IS NULL THEN 'its counters are missing' WHEN c.deliveries_total <> (SELECT COUNT(*) \
         FROM delivery_lists l WHERE l.endpoint = e.key) THEN 'its counter is not the number of its deliveries' END \
         AS reason FROM endpoints e LEFT JOIN endpoint_counters c ON c.endpoint = e.key) WHERE reason IS NOT NULL",
    ),
    (
        "events",
        "SELECT v.id, 'its account is missing' FROM events v WHERE NOT EXISTS (SELECT 1 FROM accounts a \
         WHERE a.key = v.account)",
    ),
    (
        "missed",
        "SELECT m.event, 'its event or endpoint is missing' FROM missed m WHERE NOT EXISTS (SELECT 1 FROM events v \
         WHERE v.id = m.event) OR NOT EXISTS (SELECT 1 FROM endpoints e WHERE e.key = m.endpoint)",
    ),
    (
        "replays",
        "SELECT r.id, reason FROM (SELECT id, CASE WHEN status NOT BETWEEN 0 AND 3 THEN 'its status is unknown' \
         WHEN NOT EXISTS (SELECT 1 FROM endpoints e WHERE e.key = replays.endpoint) THEN 'its endpoint is missing' END \
         AS reason FROM replays) AS r WHERE reason IS NOT NULL",
    ),
    (
        "settings",
        "SELECT 'listed_to', 'it is missing' WHERE NOT EXISTS (SELECT 1 FROM settings WHERE name = 'listed_to')",
    ),
];

/// Accounts whose counter is not the number of their events, those of tests left out.
const EVENT_COUNTERS: &str = "SELECT a.id, 'its counter is not the number of its events' FROM accounts a \
                              WHERE a.deleted_at IS NULL AND a.events_total <> (SELECT COUNT(*) FROM events v \
                              WHERE v.account = a.key AND v.type <> ?1)";

/// See [`Store::check`](crate::store::Store::check).
pub fn check(path: &Path, keys: &KeySource, now: Timestamp) -> Result<Checked, OpenError> {
    if !path.exists() {
        return Err(OpenError(format!("there is no database {}", path.display())));
    }
    let keyring = keys.find()?;
    let db = open(path, path)?;
    check_open(&db, keyring.as_ref(), now)
}

/// A connection that looks at the file, where it is one of this program's databases. Errors name it as `shown`.
pub(super) fn open(path: &Path, shown: &Path) -> Result<Connection, OpenError> {
    let shown = shown.display();
    let failed = |error: rusqlite::Error| OpenError(format!("cannot open the database {shown}: {error}"));
    let db = inspector(path).map_err(failed)?;
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if version == 0 {
        return Err(OpenError(format!("{shown} is not a database of Aldaba")));
    }
    Ok(db)
}

/// Checks a file that is open.
pub(super) fn check_open(db: &Connection, keyring: Option<&Keyring>, now: Timestamp) -> Result<Checked, OpenError> {
    let mut findings = Findings::default();
    for fault in faults(db, "integrity_check") {
        findings.note("", "SQLite finds a fault in the file", fault);
    }
    let versions = migrate::versions(db)?;
    versions.admit(newest())?;
    let mut seals = Seals { has_keys: keyring.is_some(), ..Seals::default() };
    let left_out = left_out(versions.version, newest());
    let mut contents = None;
    if left_out.is_none() {
        let mut rows = RowChecks { findings: &mut findings, seals: &mut seals, keyring };
        // If the file is damaged, a statement may end early: what it has found is reported all the same.
        match check_rows(db, &mut rows).and_then(|()| contents_of(db, now)) {
            Ok(found) => contents = Some(found),
            Err(error) if rows.findings.is_empty() => return Err(unreadable(&error)),
            Err(error) => rows.findings.note("", "rows could not be read to the end", error),
        }
    }
    Ok(Checked { version: versions.version, problems: findings.problems(), left_out, contents, seals })
}

/// What SQLite's own check of the file finds: `quick_check`, or `integrity_check`, which compares the indexes too.
pub(super) fn faults(db: &Connection, pragma: &str) -> Vec<String> {
    let list = || -> rusqlite::Result<Vec<String>> {
        let mut statement = db.prepare(&format!("PRAGMA {pragma}({MAX_FAULTS})"))?;
        let rows = statement.query_map([], |row| row.get(0))?;
        rows.collect()
    };
    match list() {
        Ok(lines) => lines.into_iter().filter(|line| line != "ok").collect(),
        // A file that is damaged at its root cannot even be checked.
        Err(error) => vec![error.to_string()],
    }
}

fn check_rows(db: &Connection, rows: &mut RowChecks<'_>) -> Result<(), StoreError> {
    check_foreign_keys(db, rows.findings)?;
    for (table, sql) in ROW_CHECKS {
        note_rows(db, rows.findings, table, sql, [])?;
    }
    note_rows(db, rows.findings, "accounts", EVENT_COUNTERS, [TEST_TYPE])?;
    check_accounts(db, rows)?;
    check_endpoints(db, rows)?;
    check_secrets(db, rows)?;
    check_attempts(db, rows.findings)
}

fn check_foreign_keys(db: &Connection, findings: &mut Findings) -> Result<(), StoreError> {
    let mut statement = db.prepare("PRAGMA foreign_key_check")?;
    let mut found = statement.query([])?;
    let mut counted = 0;
    while counted < MAX_COUNTED
        && let Some(row) = found.next()?
    {
        counted += 1;
        let (table, parent): (String, String) = (row.get("table")?, row.get("parent")?);
        findings.note(&table, &format!("its row of {parent} is missing"), named(row.get_ref("rowid")?));
    }
    Ok(())
}

/// Notes the rows that a query finds, [`MAX_COUNTED`] at most.
fn note_rows(
    db: &Connection,
    findings: &mut Findings,
    table: &str,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<(), StoreError> {
    let mut statement = db.prepare(&format!("{sql} LIMIT {MAX_COUNTED}"))?;
    let mut found = statement.query(params)?;
    while let Some(row) = found.next()? {
        let reason: String = row.get(1)?;
        findings.note(table, &reason, named(row.get_ref(0)?));
    }
    Ok(())
}

/// What names a row: the id that the outside sees, or a number.
fn named(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Blob(bytes) => Uuid::from_slice(bytes).map_or_else(|_| "without an id".into(), |id| id.to_string()),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Null | ValueRef::Real(_) => "without an id".into(),
    }
}

fn check_accounts(db: &Connection, rows: &mut RowChecks<'_>) -> Result<(), StoreError> {
    let mut statement = db.prepare("SELECT id, settings FROM accounts WHERE deleted_at IS NULL")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        rows.account(uuid(row, "id")?, &row.get::<_, String>("settings")?);
    }
    Ok(())
}

fn check_endpoints(db: &Connection, rows: &mut RowChecks<'_>) -> Result<(), StoreError> {
    let sql = "SELECT id, url, settings, credentials_key_id, credentials FROM endpoints WHERE deleted_at IS NULL";
    let mut statement = db.prepare(sql)?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        rows.endpoint(&EndpointRow {
            id: uuid(row, "id")?,
            url: row.get("url")?,
            settings: row.get("settings")?,
            credentials: sealed(row, KEY_ID, SEALED)?,
        });
    }
    Ok(())
}

fn check_secrets(db: &Connection, rows: &mut RowChecks<'_>) -> Result<(), StoreError> {
    for (table, sql) in [
        (
            "endpoint_secrets",
            "SELECT e.id AS id, s.key_id AS key_id, s.sealed AS sealed FROM endpoint_secrets s JOIN endpoints e \
             ON e.key = s.endpoint WHERE e.deleted_at IS NULL",
        ),
        (
            "users",
            "SELECT id, factor_key_id AS key_id, factor_sealed AS sealed FROM users WHERE factor_key_id IS NOT NULL",
        ),
    ] {
        let mut statement = db.prepare(sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let sealed = SealedSecret { key_id: row.get("key_id")?, bytes: row.get("sealed")? };
            rows.secret(table, uuid(row, "id")?, &sealed);
        }
    }
    Ok(())
}

fn check_attempts(db: &Connection, findings: &mut Findings) -> Result<(), StoreError> {
    let mut statement = db.prepare("SELECT endpoint, attempts FROM limited_attempts")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let attempts = row.get_ref("attempts")?.as_bytes().unwrap_or_default();
        if !CountedAttempts::is_readable(attempts) {
            findings.note("limited_attempts", "it cannot be read", named(row.get_ref("endpoint")?));
        }
    }
    Ok(())
}

fn contents_of(db: &Connection, now: Timestamp) -> Result<Contents, StoreError> {
    let number = |sql: &str| -> Result<u64, StoreError> { super::columns::count(db, sql, []) };
    let statuses = |sql: &str| -> Result<Vec<(i64, u64)>, StoreError> {
        let mut statement = db.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, super::columns::whole(row, "total")?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let endpoints =
        statuses("SELECT status, COUNT(*) AS total FROM endpoints WHERE deleted_at IS NULL GROUP BY status")?;
    let deliveries = statuses(
        "SELECT status, COUNT(*) AS total FROM (SELECT status FROM delivery_lists UNION ALL SELECT status \
         FROM recent_deliveries) GROUP BY status",
    )?;
    let due = concat!(
        "SELECT COUNT(*) AS total FROM deliveries d JOIN endpoints e ON e.key = d.endpoint WHERE e.deleted_at IS NULL \
         AND e.status = ",
        literal!(EndpointStatus::Active),
        " AND (d.due_at <= ?1 OR d.lease IS NOT NULL)"
    );
    Ok(Contents {
        accounts: number("SELECT COUNT(*) AS total FROM accounts WHERE deleted_at IS NULL")?,
        endpoints: by_name(endpoints, EndpointStatus::ALL.map(|status| (status.to_column(), status.name()))),
        events: number("SELECT COUNT(*) AS total FROM events")?,
        newest_event: newest_event(db)?,
        deliveries: by_name(deliveries, DeliveryStatus::ALL.map(|status| (status.to_column(), status.name()))),
        due: super::columns::count(db, due, [now.as_millis()])?,
        on_hold_since: hold_row::read(db)?,
    })
}

/// When the newest event was accepted.
pub(super) fn newest_event(db: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let newest: Option<i64> =
        db.query_row("SELECT id FROM events ORDER BY id DESC LIMIT 1", [], |row| row.get(0)).optional()?;
    let times = id_times::read(db)?;
    Ok(newest.map(|id| times.of(id)))
}
