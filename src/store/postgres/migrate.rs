//! Migrations: the database is brought to this program's version while other nodes work on it.
//!
//! A statement that waits for a strong lock makes everybody wait who comes after it. So each step waits for its locks
//! for a moment only, and is tried again after a pause. Large indexes are built beside writers, outside of a
//! transaction.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Object, Pool, Transaction};
use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;

use super::lease::ALIVE;
use super::migration_steps::{Step, steps};
use super::privileges;
use super::sql::{count, execute, get, one, row};
use crate::store::compatible::{Fit, Versions};
use crate::store::errors::{OpenError, StoreError};
use crate::store::migrations::{Migration, POSTGRES_MIGRATIONS, newest, newest_of};

/// The key of the lock under which one process migrates.
const MIGRATION_LOCK: i64 = 0x616c_6461_6261;

/// How long a step waits for a lock, and with it everybody who wants the table after it: less than anybody notices.
const LOCK_TIMEOUT: Duration = Duration::from_millis(300);

/// How long every [`LONG_TRY`]th try waits: PostgreSQL cancels an autovacuum that stands in the way only for those that
/// have waited for `deadlock_timeout`, one second by default.
const LONG_LOCK_TIMEOUT: Duration = Duration::from_millis(1_200);

const LONG_TRY: u32 = 5;

/// The first pause between two tries; it doubles up to [`LONGEST_PAUSE`]. A step then holds others up for less than a
/// tenth of the time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a step is tried before the migration gives up. Whoever holds a lock for longer will not be waited out.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long an index may take that is built beside writers. It holds up nobody; hundreds of millions of rows take an
/// hour.
const INDEX_TIMEOUT: Duration = Duration::from_secs(2 * 3_600);

/// How long to wait while another process migrates, which may build an index.
const LOCK_PATIENCE: Duration = Duration::from_secs(2 * 3_600);

/// Between two looks whether the other process has migrated. Whoever waited within the lock statement would hold a
/// snapshot, for which the building of an index waits.
const LOCK_POLL: Duration = Duration::from_millis(250);

/// After the minimum was raised, before the first step: by then nodes below it have seen it or lost their lease.
const NODES_STOP: Duration = super::lease::LEASE;

/// The oldest program that may work on the database.
pub(super) async fn minimum(db: &impl GenericClient) -> Result<i64, StoreError> {
    get(&one(db, "SELECT minimum FROM schema_version", &[]).await?, "minimum")
}

/// Requires a program of this version from here on, in the transaction that writes a row which older ones would ignore.
/// While a node of an older program lives, the row must not be written: it is [`StoreError::OlderNodes`], and the
/// minimum is raised beside the transaction, so that these nodes stop and the call can be repeated.
pub(super) async fn require(tx: &Transaction<'_>, pool: &Pool, version: i64) -> Result<(), StoreError> {
    const RAISE: &str = "UPDATE schema_version SET minimum = $1 WHERE minimum < $1";
    if version == 0 {
        return Ok(());
    }
    let sql = format!("SELECT count(*) AS total FROM nodes WHERE {ALIVE} AND version < $1");
    if count(tx, &sql, &[&version]).await? > 0 {
        if execute(&pool.get().await?, RAISE, &[&version]).await? > 0 {
            tracing::warn!(minimum = version, "nodes below the new minimum version stop: a setting requires it");
        }
        return Err(StoreError::OlderNodes);
    }
    execute(tx, RAISE, &[&version]).await?;
    Ok(())
}

/// Raises the minimum to that of a database that moves here.
pub(super) async fn take_minimum(pool: &Pool, of_source: i64) -> Result<(), OpenError> {
    let mut db = pool.get().await.map_err(|error| cannot(error.into()))?;
    if minimum(&db).await.map_err(cannot)? < of_source {
        raise_minimum(&mut db, of_source).await.map_err(|error| cannot(error.into()))?;
    }
    Ok(())
}

/// Brings the database to this program's version, where it is older, and makes sure that this program and its role may
/// work on it.
pub(super) async fn prepare(pool: &Pool, shown: &str, serves: bool) -> Result<(), OpenError> {
    let failed = |error: StoreError| OpenError(format!("cannot open the database {shown}: {error}"));
    let db = pool.get().await.map_err(|e| failed(e.into()))?;
    let is_made = is_made(&db).await.map_err(failed)?;
    if is_made {
        privileges::check(&db, serves).await?;
    }
    let fit = versions(&db).await.map_err(failed)?.admit(newest())?;
    drop(db);
    if fit == Fit::Migrate {
        run(pool, POSTGRES_MIGRATIONS).await?;
        let db = pool.get().await.map_err(|e| failed(e.into()))?;
        privileges::check(&db, serves).await?;
    }
    Ok(())
}

async fn is_made(db: &impl GenericClient) -> Result<bool, StoreError> {
    get(&one(db, "SELECT to_regclass('schema_version') IS NOT NULL AS is_made", &[]).await?, "is_made")
}

/// The versions that the database has, whatever program made it; those of one without tables are 0.
pub(super) async fn versions(db: &impl GenericClient) -> Result<Versions, StoreError> {
    let none = Versions { version: 0, minimum: 0 };
    if !is_made(db).await? {
        return Ok(none);
    }
    // Databases of before 0011 have no such column.
    let sql = "SELECT version, coalesce((to_jsonb(s) ->> 'minimum')::bigint, 0) AS minimum FROM schema_version s";
    let Some(row) = row(db, sql, &[]).await? else { return Ok(none) };
    Ok(Versions { version: get(&row, "version")?, minimum: get(&row, "minimum")? })
}

/// Runs the migrations that the database has not had, as the only process that does.
async fn run(pool: &Pool, migrations: &[Migration]) -> Result<(), OpenError> {
    let mut db = pool.get().await.map_err(|error| cannot(error.into()))?;
    let ran = run_alone(&mut db, migrations).await;
    // The lock and the settings end with the connection.
    drop(Object::take(db));
    ran
}

async fn run_alone(db: &mut Object, migrations: &[Migration]) -> Result<(), OpenError> {
    lock(db).await?;
    let found = versions(db).await.map_err(cannot)?;
    if found.admit(newest_of(migrations))? == Fit::Current {
        return Ok(());
    }
    if found.version == 0 {
        return create(db, migrations).await;
    }
    for migration in migrations.iter().filter(|migration| migration.version() > found.version) {
        tracing::info!(migration = migration.name, "the database is migrated");
        migrate(db, migration, found.minimum).await?;
    }
    Ok(())
}

fn cannot(error: StoreError) -> OpenError {
    OpenError(format!("cannot migrate the database: {error}"))
}

async fn lock(db: &Object) -> Result<(), OpenError> {
    let began = Instant::now();
    loop {
        let row = one(db, "SELECT pg_try_advisory_lock($1) AS is_ours", &[&MIGRATION_LOCK]).await.map_err(cannot)?;
        if get(&row, "is_ours").map_err(cannot)? {
            return Ok(());
        }
        if began.elapsed() > LOCK_PATIENCE {
            let minutes = LOCK_PATIENCE.as_secs() / 60;
            return Err(OpenError(format!(
                "another process has been migrating the database for {minutes} minutes: see what it waits for in \
                 pg_stat_activity, end it there, and start again"
            )));
        }
        sleep(LOCK_POLL).await;
    }
}

/// Makes all tables of a database that has none, in one transaction: nobody works on it yet.
async fn create(db: &mut Object, migrations: &[Migration]) -> Result<(), OpenError> {
    let failed = |error: tokio_postgres::Error| explained("the first migration", error);
    let tx = db.transaction().await.map_err(failed)?;
    create_tables(&tx, migrations).await.map_err(failed)?;
    super::catalog_rows::add_initial_event_types(&tx).await.map_err(cannot)?;
    tx.commit().await.map_err(failed)
}

async fn create_tables(db: &impl GenericClient, migrations: &[Migration]) -> Result<(), tokio_postgres::Error> {
    db.batch_execute("SET LOCAL statement_timeout = 0; CREATE TABLE schema_version (version bigint NOT NULL)").await?;
    for migration in migrations {
        for step in steps(migration.sql) {
            match step {
                Step::Transaction(sql) => db.batch_execute(sql).await?,
                Step::Index { sql, .. } => db.batch_execute(&sql.replacen(" CONCURRENTLY", "", 1)).await?,
            }
        }
    }
    let minimum = migrations.iter().map(|migration| migration.minimum).max().unwrap_or(0);
    let sql = "INSERT INTO schema_version (version, minimum) VALUES ($1, $2)";
    db.execute(sql, &[&newest_of(migrations), &minimum]).await?;
    Ok(())
}

async fn migrate(db: &mut Object, migration: &Migration, minimum: i64) -> Result<(), OpenError> {
    let failed = |error: tokio_postgres::Error| explained(&format!("migration {}", migration.name), error);
    if migration.minimum > minimum {
        raise_minimum(db, migration.minimum).await.map_err(failed)?;
    }
    let steps = steps(migration.sql);
    let last = steps.len().checked_sub(1).expect("a migration has a step");
    for (at, step) in steps.iter().enumerate() {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        for attempt in 1u32.. {
            let wait = if attempt % LONG_TRY == 0 { LONG_LOCK_TIMEOUT } else { LOCK_TIMEOUT };
            let version = (at == last).then(|| migration.version());
            let ran = match step {
                Step::Transaction(sql) => transaction(db, sql, version, wait).await,
                Step::Index { name, sql } => index(db, name, sql, version).await,
            };
            match ran {
                Ok(()) => break,
                Err(error) if !is_in_the_way(&error) => return Err(failed(error)),
                Err(_) if began.elapsed() > PATIENCE => {
                    let (name, minutes) = (migration.name, PATIENCE.as_secs() / 60);
                    return Err(OpenError(format!(
                        "migration {name} did not get its locks within {minutes} minutes, because somebody else holds \
                         them: look for old transactions in pg_stat_activity (xact_start), end them and start again"
                    )));
                }
                Err(error) => {
                    tracing::warn!(migration = migration.name, attempt, %error, "a lock was not free: trying again");
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    Ok(())
}

/// From here on no older program starts, and those that run stop within [`NODES_STOP`].
async fn raise_minimum(db: &mut Object, minimum: i64) -> Result<(), tokio_postgres::Error> {
    db.execute("UPDATE schema_version SET minimum = greatest(minimum, $1)", &[&minimum]).await?;
    let nodes: i64 = db.query_one(&format!("SELECT count(*) FROM nodes WHERE {ALIVE}"), &[]).await?.get(0);
    if nodes > 0 {
        tracing::info!(nodes, minimum, "nodes below the new minimum version are given time to stop");
        sleep(NODES_STOP).await;
    }
    Ok(())
}

/// Runs a step in a transaction, and writes the version that the database has with it.
async fn transaction(
    db: &mut Object,
    sql: &str,
    version: Option<i64>,
    wait: Duration,
) -> Result<(), tokio_postgres::Error> {
    let tx = db.transaction().await?;
    let wait_ms = wait.as_millis();
    tx.batch_execute(&format!("SET LOCAL lock_timeout = {wait_ms}; SET LOCAL statement_timeout = 0")).await?;
    tx.batch_execute(sql).await?;
    if let Some(version) = version {
        tx.execute("UPDATE schema_version SET version = $1", &[&version]).await?;
    }
    tx.commit().await
}

/// Builds an index beside writers, where there is none yet.
async fn index(db: &mut Object, name: &str, sql: &str, version: Option<i64>) -> Result<(), tokio_postgres::Error> {
    // It waits for old transactions, and nobody waits for it.
    let timeout_ms = INDEX_TIMEOUT.as_millis();
    db.batch_execute(&format!("SET lock_timeout = 0; SET statement_timeout = {timeout_ms}")).await?;
    let known = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)";
    let is_valid = db.query_opt(known, &[&name]).await?.map(|row| row.get::<_, bool>(0));
    if is_valid == Some(false) {
        db.batch_execute(&format!("DROP INDEX CONCURRENTLY {name}")).await?;
    }
    if is_valid != Some(true) {
        db.batch_execute(sql).await?;
    }
    if let Some(version) = version {
        db.execute("UPDATE schema_version SET version = $1", &[&version]).await?;
    }
    Ok(())
}

/// Whether somebody else's lock was in the way of a statement, which may succeed later.
fn is_in_the_way(error: &tokio_postgres::Error) -> bool {
    matches!(error.code(), Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::T_R_DEADLOCK_DETECTED))
}

fn explained(what: &str, error: tokio_postgres::Error) -> OpenError {
    let advice = match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE | &SqlState::INVALID_SCHEMA_NAME) => {
            ": the role lacks a privilege that migrations need. Run `aldaba migrate` as the role that owns the tables, \
             or make the role their owner and GRANT USAGE, CREATE ON SCHEMA to it"
        }
        _ => "",
    };
    OpenError(format!("{what} failed: {}{advice}", StoreError::from(error)))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use deadpool_postgres::Manager;
    use tokio_postgres::NoTls;

    use super::*;

    /// A new database with the tables of this program; `None` where the tests run on SQLite.
    async fn database(name: &str) -> Option<Pool> {
        let cluster = std::env::var_os("TEST_POSTGRES").map(PathBuf::from)?;
        let connect = |database: &str| {
            let mut config = tokio_postgres::Config::new();
            config.host_path(&cluster).user("postgres").dbname(database);
            Pool::builder(Manager::new(config, NoTls)).build().expect("a pool")
        };
        let admin = connect("postgres");
        admin.get().await.expect("connected").batch_execute(&format!("CREATE DATABASE {name}")).await.expect("made");
        let pool = connect(name);
        run(&pool, POSTGRES_MIGRATIONS).await.expect("migrated");
        Some(pool)
    }

    #[tokio::test]
    async fn an_index_that_was_left_half_built_is_built_anew() {
        let Some(pool) = database("half_built").await else { return };
        let db = pool.get().await.expect("connected");
        let rows = "CREATE TABLE many (number int); INSERT INTO many VALUES (1), (1), (2)";
        db.batch_execute(rows).await.expect("rows");
        let migrations = [Migration {
            name: "9001_index",
            sql: "CREATE TABLE IF NOT EXISTS other (n int);\n-- step\n\
                  CREATE UNIQUE INDEX CONCURRENTLY many_number ON many (number);\n",
            minimum: 0,
        }];
        let failed = run(&pool, &migrations).await.expect_err("a number is there twice").to_string();
        assert!(failed.contains("9001_index"), "{failed}");
        let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('many_number')";
        assert!(!db.query_one(valid, &[]).await.expect("it is there").get::<_, bool>(0), "half built");
        assert_eq!(versions(&db).await.expect("a version").version, newest());
        db.batch_execute("DELETE FROM many WHERE number = 1").await.expect("deleted");
        run(&pool, &migrations).await.expect("migrated");
        assert!(db.query_one(valid, &[]).await.expect("it is there").get::<_, bool>(0), "whole");
        assert_eq!(versions(&db).await.expect("a version").version, 9_001);
    }

    #[tokio::test]
    async fn a_migration_raises_the_minimum_before_its_first_step() {
        let Some(pool) = database("raises").await else { return };
        let db = pool.get().await.expect("connected");
        let migrations = [Migration { name: "9001_fails", sql: "SELECT 1 / 0", minimum: 9_001 }];
        run(&pool, &migrations).await.expect_err("its step fails");
        let found = versions(&db).await.expect("versions");
        assert_eq!(found, Versions { version: newest(), minimum: 9_001 });
        let refused = found.admit(newest()).expect_err("an older program").to_string();
        assert!(refused.contains("run a newer aldaba"), "{refused}");
    }
}
