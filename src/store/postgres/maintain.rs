//! Housekeeping: days that are over leave as whole partitions (`partitions`), what is deleted or must go sooner in
//! small steps. Only the first of the nodes does it.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Object};

use super::catalog_rows::own_retention;
use super::partitions::{Day, Dropped, Dropping, OpenDays, create, days, days_with_bodies};
use super::sql::{execute, get, row, rows};
use super::store::Store;
use crate::domain::event::TEST_TYPE;
use crate::domain::id::AccountKey;
use crate::domain::retention::{OwnRetention, Retention};
use crate::domain::statistics::SLOTS;
use crate::domain::time::{Timestamp, millis};
use crate::store::contract::Housekeeping;
use crate::store::errors::StoreError;
use crate::store::status::{is_finished, is_open, literal};
use crate::store::values::{PurgePart, PurgePosition, PurgeRound, STORED_REPLY_TTL, cut};

/// Rows that one step removes: short enough that no publisher notices.
const STEP: i64 = 500;

/// Rows that one step looks at: what stays (deliveries of a paused endpoint) is skipped in some milliseconds.
const LOOK: i64 = 2_000;

/// Accounts that one step looks at.
const ACCOUNTS: i64 = 100;

/// Commits that were under way when something was deleted have ended after this long, and leave nothing behind.
const SETTLING: Duration = Duration::from_secs(30);

/// A retention shorter than this is kept to the row; a longer one by days, up to one more.
const EXACT: Duration = Duration::from_secs(2 * 86_400);

impl Housekeeping for Store {
    async fn purge_deleted(&self) -> Result<bool, StoreError> {
        if !self.tidies_up() {
            return Ok(false);
        }
        let now = self.now();
        let db = self.client().await?;
        let settled = now.minus(SETTLING).as_millis();
        // One that cannot be removed does not stop the others.
        let mut failed = Ok(false);
        let sql = "SELECT key, account, deleted_at <= $1 AS settled FROM endpoints WHERE deleted_at IS NOT NULL \
                   ORDER BY deleted_at, key";
        for endpoint in rows(&db, sql, &[&settled]).await? {
            let (key, account) = (get(&endpoint, "key")?, get(&endpoint, "account")?);
            match purge_endpoint(&db, account, key, get(&endpoint, "settled")?).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => failed = Err(error),
            }
        }
        let sql = "SELECT key, deleted_at <= $1 AS settled FROM accounts WHERE deleted_at IS NOT NULL";
        for account in rows(&db, sql, &[&settled]).await? {
            match purge_account(&db, get(&account, "key")?, get(&account, "settled")?).await {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    async fn make_days(&self, now: Timestamp) -> Result<(), StoreError> {
        if !self.tidies_up() {
            return Ok(());
        }
        create(&self.pool, self.shared.id_times().first_at(now)).await
    }

    async fn oldest_kept(&self) -> Result<Option<Timestamp>, StoreError> {
        let times = self.shared.id_times();
        Ok(days(&self.client().await?).await?.first().map(|day| times.of(day.first_id())))
    }

    async fn begin_purge(&self, retention: Retention, now: Timestamp) -> Result<Option<PurgeRound>, StoreError> {
        // Differs by necessity: the rows of every account are looked at only where some of them must go sooner than
        // whole days. Else the removal by rows looks at accounts that keep them for a time of their own.
        if !self.tidies_up() {
            return Ok(None);
        }
        let db = self.client().await?;
        let (longest, shorter) = longest(&db, retention).await?;
        let (days, bodies) = (days(&db).await?, days_with_bodies(&db).await?);
        drop(db);
        let mut everybody =
            shorter || [longest.deliveries, longest.payloads].into_iter().flatten().any(|kept_for| kept_for < EXACT);
        let (rows_since, bodies_since) = longest.since(now);
        let times = self.shared.id_times();
        let over =
            |day: &Day, since: Option<Timestamp>| since.is_some_and(|since| day.end_id() <= times.first_at(since));
        let due: Vec<Day> = days
            .into_iter()
            .filter(|day| over(day, rows_since) || over(day, bodies_since) && bodies.contains(day))
            .collect();
        let mut failed_days = 0;
        if let Some(&last) = due.last() {
            let open = OpenDays::before(&self.pool, last.next()).await?;
            let mut dropping = Dropping::new(&self.pool, &*self.shared.random, open);
            for day in due {
                let whole = over(&day, rows_since);
                let dropped = if whole { dropping.drop_day(day).await } else { dropping.drop_bodies(day).await };
                match dropped {
                    Ok(Dropped::Gone) => {}
                    // A day of which something is still needed goes row by row.
                    Ok(Dropped::Needed) => everybody = true,
                    Ok(Dropped::Busy) => {
                        failed_days += 1;
                        let day = day.number();
                        tracing::warn!(day, "a day of the history is in use and is dropped in a later round");
                    }
                    Err(error) => {
                        failed_days += 1;
                        let day = day.number();
                        tracing::warn!(%error, day, "a day of the history could not be dropped: a later round tries \
                                                     again");
                    }
                }
            }
        }
        Ok(Some(PurgeRound { position: PurgePosition::start(everybody), failed_days }))
    }

    async fn purge_old(
        &self,
        retention: Retention,
        now: Timestamp,
        from: PurgePosition,
    ) -> Result<Option<PurgePosition>, StoreError> {
        if !self.tidies_up() {
            return Ok(None);
        }
        let mut db = self.client().await?;
        // Before the first day that has any, there are no bodies to look for.
        let bodies_from = days_with_bodies(&db).await?.first().map_or(i64::MAX, |day| day.first_id() - 1);
        let sql = "SELECT key, retention_deliveries, retention_payloads, payloads_gone FROM accounts \
                   WHERE deleted_at IS NULL AND key >= $1 AND ($2 OR retention_deliveries IS NOT NULL \
                   OR retention_payloads IS NOT NULL) ORDER BY key LIMIT $3";
        let (times, mut next) = (self.shared.id_times(), None);
        for account in rows(&db, sql, &[&from.account, &from.everybody, &ACCOUNTS]).await? {
            let (key, gone): (i64, i64) = (get(&account, "key")?, get(&account, "payloads_gone")?);
            let (rows_since, bodies_since) = retention.of(own_retention(&account)?).since(now);
            let rows_end = rows_since.map(|since| times.first_at(since));
            let bodies = bodies_since.map(|since| (bodies_from.max(gone), times.first_at(since)));
            match purge_account_step(&mut db, from.in_account(key), rows_end, bodies).await {
                Ok(None) => {}
                Ok(Some(at)) => return Ok(Some(at)),
                // The next step begins with this account, and tells of it.
                Err(_) if key != from.account => return Ok(Some(from.in_account(key))),
                Err(error) => return Err(error),
            }
            next = Some(from.in_account(key + 1));
        }
        Ok(next)
    }

    async fn purge_old_replays(&self, retention: Retention, now: Timestamp) -> Result<bool, StoreError> {
        if !self.tidies_up() {
            return Ok(false);
        }
        let db = self.client().await?;
        let Some(oldest) = longest(&db, retention).await?.0.deliveries else { return Ok(false) };
        let cutoff = now.minus(oldest);
        let sql = "DELETE FROM missed WHERE (account, endpoint, type, event) IN \
                   (SELECT account, endpoint, type, event FROM missed WHERE event < $1 LIMIT $2)";
        let missed = execute(&db, sql, &[&self.shared.id_times().first_at(cutoff), &STEP]).await?;
        let sql = "DELETE FROM replays WHERE key IN (SELECT key FROM replays WHERE finished_at < $1 LIMIT $2)";
        let replays = execute(&db, sql, &[&cutoff.as_millis(), &STEP]).await?;
        Ok(missed + replays > 0)
    }

    async fn purge_stored_replies(&self) -> Result<bool, StoreError> {
        if !self.tidies_up() {
            return Ok(false);
        }
        let now = self.now();
        let db = self.client().await?;
        // Each by itself: one that fails does not stop the others.
        let old = now.minus(STORED_REPLY_TTL).as_millis();
        let (windows, calls) =
            ("DELETE FROM rate_windows WHERE ends_at < $1", "DELETE FROM calls_in_flight WHERE expires_at < $1");
        let done = [
            super::change_feed::forget_changes(&db, now).await,
            execute(&db, windows, &[&old]).await.map(drop),
            execute(&db, calls, &[&now.as_millis()]).await.map(drop),
            self.take_back_cancelled(&db).await,
        ];
        let sql = "DELETE FROM kept_answers WHERE (owner, path, key) IN \
                   (SELECT owner, path, key FROM kept_answers WHERE created_at < $1 LIMIT $2)";
        let more = execute(&db, sql, &[&old, &STEP]).await? > 0;
        if more { Ok(true) } else { done.into_iter().collect::<Result<(), _>>().map(|()| false) }
    }

    async fn purge_audit_log(&self, cutoff: Timestamp) -> Result<bool, StoreError> {
        if !self.tidies_up() {
            return Ok(false);
        }
        let sql = "DELETE FROM audit_log WHERE key IN (SELECT key FROM audit_log WHERE created_at < $1 LIMIT $2)";
        Ok(execute(&self.client().await?, sql, &[&cutoff.as_millis(), &STEP]).await? > 0)
    }

    async fn purge_sessions(&self, idle: Duration) -> Result<bool, StoreError> {
        if !self.tidies_up() {
            return Ok(false);
        }
        let (db, now) = (self.client().await?, self.now());
        // One that somebody ends at this moment is skipped.
        let sql = "WITH old AS MATERIALIZED (SELECT token FROM sessions WHERE expires_at <= $1 OR seen_at <= $2 \
                   LIMIT $3 FOR UPDATE SKIP LOCKED) DELETE FROM sessions s USING old o WHERE s.token = o.token";
        let sessions = execute(&db, sql, &[&now.as_millis(), &now.minus(idle).as_millis(), &STEP]).await?;
        let sql = "WITH old AS MATERIALIZED (SELECT token FROM portal_links WHERE expires_at <= $1 LIMIT $2 \
                   FOR UPDATE SKIP LOCKED) DELETE FROM portal_links p USING old o WHERE p.token = o.token";
        let links = execute(&db, sql, &[&now.as_millis(), &STEP]).await?;
        Ok(sessions + links > 0)
    }

    async fn purge_attempt_counts(&self, now: Timestamp) -> Result<bool, StoreError> {
        if !self.tidies_up() {
            return Ok(false);
        }
        let db = self.client().await?;
        let sql = "DELETE FROM attempt_counts WHERE (account, length, slot, endpoint, came, class) IN \
                   (SELECT account, length, slot, endpoint, came, class FROM attempt_counts \
                   WHERE length = $1 AND slot < $2 LIMIT $3)";
        let mut gone = 0;
        for (length, kept_for) in SLOTS {
            gone += execute(&db, sql, &[&millis(length), &now.minus(kept_for).as_millis(), &STEP]).await?;
        }
        Ok(gone > 0)
    }
}

impl Store {
    fn tidies_up(&self) -> bool {
        self.shared.inbox.is_none() || self.node.is_first()
    }

    /// Removes what cancelled replays have left in the queue.
    async fn take_back_cancelled(&self, db: &Object) -> Result<(), StoreError> {
        let sql = concat!(
            "SELECT DISTINCT q.replay FROM queue q JOIN replays r ON r.key = q.replay WHERE q.attempt = 0 AND \
             q.lease IS NULL AND r.status = ",
            literal!(ReplayStatus::Cancelled)
        );
        let left = rows(db, sql, &[]).await?.iter().map(|row| get(row, "replay")).collect::<Result<_, _>>()?;
        super::cancellation::take_back(&self.pool, &self.shared, left).await
    }
}

/// The longest that anybody keeps anything, and whether there are accounts that keep it for less.
async fn longest(db: &Object, retention: Retention) -> Result<(Retention, bool), StoreError> {
    let (mut longest, mut shorter) = (retention.of(OwnRetention::default()), false);
    let sql = "SELECT DISTINCT retention_deliveries, retention_payloads FROM accounts WHERE deleted_at IS NULL \
               AND (retention_deliveries IS NOT NULL OR retention_payloads IS NOT NULL)";
    for row in rows(db, sql, &[]).await? {
        let own = retention.of(own_retention(&row)?);
        shorter |= longest.longer(own) != longest;
        longest = longest.longer(own);
    }
    Ok((longest, shorter))
}

/// Removes a step of what a deleted endpoint left; its own row when nothing can come any more. Returns whether anything
/// was removed.
async fn purge_endpoint(db: &Object, account: i64, key: i64, settled: bool) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM deliveries WHERE endpoint = $1 ORDER BY id LIMIT $2";
    let mut ids = Vec::<i64>::new();
    for row in rows(db, sql, &[&key, &STEP]).await? {
        ids.push(get(&row, "id")?);
    }
    // The queue first, as those do who write outcomes.
    execute(db, "DELETE FROM queue WHERE account = $1 AND delivery = ANY($2)", &[&account, &ids]).await?;
    execute(db, "DELETE FROM attempts WHERE account = $1 AND delivery = ANY($2)", &[&account, &ids]).await?;
    let deliveries =
        execute(db, "DELETE FROM deliveries WHERE account = $1 AND id = ANY($2)", &[&account, &ids]).await?;
    let sql = "DELETE FROM missed WHERE (account, endpoint, type, event) IN (SELECT account, endpoint, type, event \
               FROM missed WHERE account = $1 AND endpoint = $2 LIMIT $3)";
    let missed = execute(db, sql, &[&account, &key, &STEP]).await?;
    if deliveries + missed > 0 || !settled {
        return Ok(deliveries + missed > 0);
    }
    execute(db, "DELETE FROM replays WHERE endpoint = $1", &[&key]).await?;
    super::counters::forget_endpoint(db, account, key).await?;
    execute(db, "DELETE FROM limited_attempts WHERE endpoint = $1", &[&key]).await?;
    Ok(execute(db, "DELETE FROM endpoints WHERE key = $1", &[&key]).await? > 0)
}

/// The same for an account, whose endpoints have gone before it.
async fn purge_account(db: &Object, key: i64, settled: bool) -> Result<bool, StoreError> {
    let sql = "WITH old AS MATERIALIZED (SELECT account, id FROM events WHERE account = $1 LIMIT $2), \
               p AS (DELETE FROM payloads p USING old o WHERE p.account = o.account AND p.event = o.id) \
               DELETE FROM events e USING old o WHERE e.account = o.account AND e.id = o.id";
    if execute(db, sql, &[&key, &STEP]).await? > 0 {
        return Ok(true);
    }
    if !settled || row(db, "SELECT 1 FROM endpoints WHERE account = $1 LIMIT 1", &[&key]).await?.is_some() {
        return Ok(false);
    }
    super::counters::forget_account(db, key).await?;
    let sql = "DELETE FROM audit_log WHERE key IN (SELECT key FROM audit_log WHERE account = $1 LIMIT $2)";
    if execute(db, sql, &[&key, &STEP]).await? > 0 {
        return Ok(true);
    }
    let sql = "DELETE FROM attempt_counts WHERE (account, length, slot, endpoint, came, class) IN \
               (SELECT account, length, slot, endpoint, came, class FROM attempt_counts WHERE account = $1 LIMIT $2)";
    if execute(db, sql, &[&key, &STEP]).await? > 0 {
        return Ok(true);
    }
    // What a server of the last version has left, which does not know of them.
    super::users::forget(db, AccountKey(key)).await?;
    Ok(execute(db, "DELETE FROM accounts WHERE key = $1", &[&key]).await? > 0)
}

/// Removes a step of what an account need not keep: rows before the id `rows_end`, bodies after an event and before
/// another. Returns where the account's next step goes on, or `None` where nothing more is to be looked at.
async fn purge_account_step(
    db: &mut Object,
    from: PurgePosition,
    rows_end: Option<i64>,
    bodies: Option<(i64, i64)>,
) -> Result<Option<PurgePosition>, StoreError> {
    let mut part = Some(from);
    while let Some(at) = part {
        let last = match (at.part, rows_end, bodies) {
            (PurgePart::Deliveries, Some(end), _) => purge_deliveries(db, at, end).await?,
            (PurgePart::Events, Some(end), _) => purge_events(db, at, end).await?,
            (PurgePart::Payloads, _, Some((gone, end))) => {
                purge_payloads(db, at.account, gone.max(at.after), end).await?
            }
            _ => None,
        };
        if let Some(last) = last {
            return Ok(Some(at.after(last)));
        }
        part = at.next_part();
    }
    Ok(None)
}

/// Removes a step of an account's finished deliveries before the id `end`. Returns the last that was looked at.
async fn purge_deliveries(db: &mut Object, at: PurgePosition, end: i64) -> Result<Option<i64>, StoreError> {
    let tx = db.transaction().await?;
    super::partitions::lock(&tx).await?;
    let sql = concat!(
        "SELECT id, ",
        is_finished!("status"),
        " AS goes FROM deliveries WHERE account = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4"
    );
    let (go, last) = look(&tx, sql, &[&at.account, &at.after, &end, &LOOK]).await?;
    if !go.is_empty() {
        // One that is being sent again at this moment is skipped, or found to be open.
        let sql = concat!(
            "WITH old AS MATERIALIZED (SELECT account, id FROM deliveries WHERE account = $1 AND id = ANY($2) AND ",
            is_finished!("status"),
            " ORDER BY id FOR UPDATE SKIP LOCKED), a AS (DELETE FROM attempts a USING old o WHERE a.account = \
             o.account AND a.delivery = o.id), gone AS (DELETE FROM deliveries d USING old o WHERE d.account = \
             o.account AND d.id = o.id RETURNING d.account, d.endpoint) INSERT INTO counters AS c (account, \
             endpoint, shard, total) SELECT account, endpoint, ",
            literal!(Shard::Rows),
            ", -count(*) FROM gone GROUP BY account, endpoint \
             ORDER BY account, endpoint ON CONFLICT (account, endpoint, shard) DO UPDATE SET total = c.total + \
             excluded.total"
        );
        execute(&tx, sql, &[&at.account, &go]).await?;
    }
    tx.commit().await?;
    Ok(last)
}

/// Removes a step of an account's events before the id `end` that nothing refers to any more. Returns the last that was
/// looked at.
async fn purge_events(db: &mut Object, at: PurgePosition, end: i64) -> Result<Option<i64>, StoreError> {
    let tx = db.transaction().await?;
    super::partitions::lock(&tx).await?;
    // One by one: a join, or a set that is looked up in, would be made of all of the account's deliveries.
    let sql = "SELECT e.id, (SELECT 1 FROM unnest(e.deliveries) AS u(id) CROSS JOIN LATERAL \
               (SELECT 1 FROM deliveries WHERE account = e.account AND id = u.id LIMIT 1) AS d LIMIT 1) IS NULL \
               AND (SELECT 1 FROM deliveries d WHERE d.event = e.id AND d.replay IS NOT NULL LIMIT 1) IS NULL AS goes \
               FROM events e WHERE e.account = $1 AND e.id > $2 AND e.id < $3 ORDER BY e.id LIMIT $4";
    let (go, last) = look(&tx, sql, &[&at.account, &at.after, &end, &LOOK]).await?;
    if !go.is_empty() {
        // Locked in a statement of its own: what a replay has made of an event until then is seen by the next one.
        let sql = "SELECT id FROM events WHERE account = $1 AND id = ANY($2) ORDER BY id FOR UPDATE SKIP LOCKED";
        let ids = ids(&tx, sql, &[&at.account, &go]).await?;
        let sql = concat!(
            "WITH old AS MATERIALIZED (SELECT o.id FROM unnest($2::bigint[]) AS o(id) \
             WHERE NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = o.id AND d.replay IS NOT NULL)), \
             p AS (DELETE FROM payloads p USING old o WHERE p.account = $1 AND p.event = o.id), \
             m AS (DELETE FROM missed m USING old o WHERE m.event = o.id), \
             gone AS (DELETE FROM events e USING old o WHERE e.account = $1 AND e.id = o.id RETURNING e.type) \
             INSERT INTO counters AS c (account, endpoint, shard, total) SELECT $1, ",
            literal!(Counter::Events),
            ", ",
            literal!(Shard::Rows),
            ", -count(*) FROM gone WHERE type <> $3 HAVING count(*) > 0 \
             ON CONFLICT (account, endpoint, shard) DO UPDATE SET total = c.total + excluded.total"
        );
        execute(&tx, sql, &[&at.account, &ids, &TEST_TYPE]).await?;
    }
    tx.commit().await?;
    Ok(last)
}

/// Looks at the next rows: which of them go, and the last that was looked at.
async fn look(
    db: &impl GenericClient,
    sql: &str,
    parameters: super::sql::Params<'_>,
) -> Result<(Vec<i64>, Option<i64>), StoreError> {
    let mut looked_at = Vec::new();
    for row in rows(db, sql, parameters).await? {
        looked_at.push((get(&row, "id")?, get(&row, "goes")?));
    }
    Ok(cut(looked_at, usize::try_from(STEP).expect("a small number")))
}

/// Removes a step of the bodies of an account's events after `gone` and before `end`. What is still to be sent keeps
/// its body. Returns the last event that was looked at.
async fn purge_payloads(db: &mut Object, account: i64, gone: i64, end: i64) -> Result<Option<i64>, StoreError> {
    let tx = db.transaction().await?;
    let sql = "SELECT id FROM events WHERE account = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4 FOR UPDATE";
    let ids = ids(&tx, sql, &[&account, &gone, &end, &STEP]).await?;
    let Some(&last) = ids.last() else { return Ok(None) };
    // In a statement of its own: whoever sends one again holds its event, or is seen.
    let sql = concat!(
        "DELETE FROM payloads p USING events e WHERE p.account = $1 AND p.event = ANY($2) AND e.account = $1 AND \
         e.id = p.event AND NOT EXISTS (SELECT 1 FROM queue q WHERE q.account = $1 AND q.delivery = \
         ANY(e.deliveries)) AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event = e.id AND d.replay IS NOT NULL \
         AND ",
        is_open!("d.status"),
        ")"
    );
    execute(&tx, sql, &[&account, &ids]).await?;
    execute(&tx, "UPDATE accounts SET payloads_gone = $2 WHERE key = $1", &[&account, &last]).await?;
    tx.commit().await?;
    Ok(Some(last))
}

async fn ids(db: &impl GenericClient, sql: &str, parameters: super::sql::Params<'_>) -> Result<Vec<i64>, StoreError> {
    rows(db, sql, parameters).await?.iter().map(|row| get(row, "id")).collect()
}
