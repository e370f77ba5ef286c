//! Databases of older versions are brought to this one.

use std::path::Path;
use std::sync::Arc;

use aldaba::clock::ManualClock;
use aldaba::domain::delivery::DeliveryStatus;
use aldaba::domain::filter::DeliveryFilter;
use aldaba::domain::id::{AccountId, ReplayId};
use aldaba::domain::settings::EndpointSettings;
use aldaba::domain::time::Timestamp;
use aldaba::domain::url::{Environment, ReceiverUrl};
use aldaba::store::inbox::Inbox;
use aldaba::store::{Accounts, Endpoints, Lifecycle, Log, Replays, Search, Snapshot, Store, StoreError};

use crate::app::{App, Call, eventually};
use crate::database;
use crate::fixture::{ALL, Fixture, options};

#[tokio::test]
async fn a_database_of_the_first_version_is_brought_to_this_one() {
    if database::is_postgres() {
        return of_the_first_version_on_postgres().await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let first = include_str!("../../migrations/sqlite/0001_initial.sql");
    let old = rusqlite::Connection::open(folder.path().join("aldaba.db")).expect("opens");
    old.execute_batch(first).expect("the first version");
    old.execute_batch(
        "INSERT INTO accounts (key, id, name, created_at, updated_at) VALUES (1, X'00000000000040008000000000000000', \
         'old', 0, 0); INSERT INTO endpoints (key, id, account, url, events, consecutive_failures, failing_since, \
         last_delivery_at, deliveries_total, created_at, updated_at) VALUES (1, X'00000000000040008000000000000000', \
         1, 'https://a.example', 'a', 3, 5, 6, 7, 0, 0); INSERT INTO events (id, account, type, occurred_at, \
         deliveries) VALUES (1, 1, 'a', 0, 3); INSERT INTO deliveries (id, endpoint, event, status, lease) \
         VALUES (2, 1, 1, 2, NULL), (3, 1, 1, 0, 1), (4, 1, 1, 3, NULL); PRAGMA user_version = 1",
    )
    .expect("rows");
    drop(old);
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let (inbox, _nudges) = Inbox::new();
    let store = Store::open(options(folder.path(), clock, Some(inbox))).await.expect("opens");
    let account = AccountId::from_random([0; 16]);
    assert_eq!(store.accounts(ALL).await.expect("listed").items[0].name, "old");
    assert!(store.view().event_types().is_empty(), "the catalog is the operator's");
    let counters: (i64, i64, i64, i64, i64) = rusqlite::Connection::open(folder.path().join("aldaba.db"))
        .expect("opens")
        .query_row("SELECT * FROM endpoint_counters", [], |row| row.try_into())
        .expect("a row");
    assert_eq!(counters, (1, 7, 6, 3, 5), "deliveries, the last one, failures in a row, since when");
    let listed = store.account_deliveries(account, ALL).await.expect("listed").items;
    let listed: Vec<_> = listed.iter().map(|delivery| (delivery.id.0, delivery.status.name())).collect();
    assert_eq!(listed, [(4, "failed"), (3, "pending"), (2, "success")], "also what a server held that was stopped");
    let filter = DeliveryFilter { statuses: vec![DeliveryStatus::Failed], ..DeliveryFilter::default() };
    assert_eq!(store.find_deliveries(account, filter, ALL).await.expect("found").total, 1);
    let leased = database::number(folder.path(), "SELECT COUNT(*) FROM deliveries WHERE lease IS NOT NULL").await;
    assert_eq!(leased, 0, "what it held is free");
    assert_eq!(store.replay(account, ReplayId::from_random([1; 16])).await.err(), Some(StoreError::NotFound));
}

/// A PostgreSQL database of the first version, with an account.
async fn first_version(folder: &Path) -> tokio_postgres::Client {
    let old = database::connect(&database::url(folder)).await;
    old.batch_execute(include_str!("../../migrations/postgres/0001_initial.sql")).await.expect("the first version");
    let sql = "CREATE TABLE schema_version (version bigint NOT NULL); INSERT INTO schema_version VALUES (1); \
               INSERT INTO accounts (id, name, created_at, updated_at) \
               VALUES ('00000000-0000-4000-8000-000000000000', 'old', 0, 0)";
    old.batch_execute(sql).await.expect("a row");
    old
}

async fn opened(folder: &Path) -> Result<Store, aldaba::store::OpenError> {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let (inbox, _nudges) = Inbox::new();
    Store::open(options(folder, clock, Some(inbox))).await
}

async fn of_the_first_version_on_postgres() {
    let folder = tempfile::tempdir().expect("a folder");
    first_version(folder.path()).await;
    let store = opened(folder.path()).await.expect("opens");
    let account = AccountId::from_random([0; 16]);
    assert_eq!(store.accounts(ALL).await.expect("listed").items[0].name, "old");
    assert!(store.view().event_types().is_empty(), "the catalog is the operator's");
    assert_eq!(store.replay(account, ReplayId::from_random([1; 16])).await.err(), Some(StoreError::NotFound));
}

#[tokio::test]
async fn a_database_of_an_older_version_is_not_brought_up_to_date_beside_a_server() {
    if database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    database::execute(f.folder(), "PRAGMA user_version = 7").await;
    let refused = f.open_beside().await.err().expect("the server would go on as it knows").to_string();
    assert!(refused.contains("a server is running on it: stop that one first"), "{refused}");
}

#[tokio::test]
async fn a_migration_that_waits_for_a_reader_holds_up_no_other_reader() {
    if !database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (reader, other) = (first_version(folder.path()).await, database::connect(&database::url(folder.path())).await);
    reader.batch_execute("BEGIN; SELECT id FROM deliveries").await.expect("a reader that stays");
    let at = folder.path().to_owned();
    let migrating = tokio::spawn(async move { opened(&at).await.map(|_| ()) });
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'deliveries'::regclass";
    eventually("the migration to wait", || async {
        (database::number(folder.path(), waiting).await > 0).then_some(())
    })
    .await;
    // The longest that a step may wait is 1.2 s.
    other.batch_execute("SET statement_timeout = 2000").await.expect("set");
    for look in 0..30 {
        other.batch_execute("SELECT id FROM deliveries").await.unwrap_or_else(|error| panic!("look {look}: {error}"));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!migrating.is_finished(), "the reader is still there");
    reader.batch_execute("COMMIT").await.expect("the reader ends");
    migrating.await.expect("no panic").expect("migrated");
}

/// Says that a later program has migrated the database, and which program it requires.
pub async fn pretend(folder: &Path, version: i64, minimum: i64) {
    let sql = if database::is_postgres() {
        format!("UPDATE schema_version SET version = {version}, minimum = {minimum}")
    } else {
        format!(
            "PRAGMA user_version = {version}; INSERT OR REPLACE INTO settings VALUES ('minimum_version', {minimum})"
        )
    };
    database::execute(folder, &sql).await;
}

#[tokio::test]
async fn a_database_of_a_later_version_is_refused_only_where_it_requires_a_later_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let again = || async {
        eventually("the file to be free", || async {
            match opened(folder.path()).await {
                Err(error) if error.to_string().contains("another server") => None,
                opened => Some(opened),
            }
        })
        .await
    };
    again().await.expect("opens").close().await.expect("closed");
    pretend(folder.path(), 999, 11).await;
    let store = again().await.expect("a release that was rolled back starts");
    store.create_account("a".into(), None).await.expect("and works");
    store.close().await.expect("closed");
    drop(store);
    pretend(folder.path(), 999, 998).await;
    let refused = again().await.err().expect("too old").to_string();
    assert!(refused.contains("998") && refused.contains("run a newer aldaba"), "{refused}");
}

#[tokio::test]
async fn a_node_stops_when_the_database_requires_a_later_program_and_says_so() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    pretend(app.folder(), 999, 998).await;
    let ready = || Call::new(app.address, "GET", "/readyz").send();
    let refused = eventually("the node to stop", || async {
        let answer = ready().await;
        (answer.json["errors"][0]["meta"]["reason"].is_string()).then_some(answer)
    })
    .await
    .refused(503, "unavailable", "");
    let reason = refused.json["errors"][0]["meta"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("998") && reason.contains("run a newer aldaba"), "{reason}");
    app.get("/v1/webhooks").await.refused(503, "unavailable", "");
    Call::new(app.address, "GET", "/healthz").send().await.expect(200);
    assert_eq!(database::number(app.folder(), "SELECT count(*) FROM nodes").await, 0, "it has left the nodes");
    // The migration was undone from a backup.
    pretend(app.folder(), 999, 0).await;
    eventually("the node to be back", || async { (ready().await.status == 200).then_some(()) }).await;
}

/// The oldest program that the database admits.
pub async fn minimum(folder: &Path) -> i64 {
    let sql = if database::is_postgres() {
        "SELECT minimum FROM schema_version"
    } else {
        "SELECT coalesce((SELECT value FROM settings WHERE name = 'minimum_version'), 0)"
    };
    database::number(folder, sql).await
}

/// Settings that programs of before version 17 know nothing of.
fn of_version_17() -> EndpointSettings {
    let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
    EndpointSettings::new(&url, vec!["*".into()])
}

#[tokio::test]
async fn the_first_endpoint_that_older_programs_would_not_serve_raises_the_minimum_version() {
    let f = Fixture::new().await;
    f.endpoint().await;
    assert_eq!(minimum(f.folder()).await, 0);
    f.store.create_endpoint(f.account, of_version_17().into(), None).await.expect("an endpoint");
    assert_eq!(minimum(f.folder()).await, 17);
    f.store.create_endpoint(f.account, of_version_17().into(), None).await.expect("another one");
    assert_eq!(minimum(f.folder()).await, 17);
}

#[tokio::test]
async fn beside_an_older_node_no_endpoint_is_written_that_it_would_not_serve() {
    if !database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    let older = "INSERT INTO nodes (key, seen_at, delivers) OVERRIDING SYSTEM VALUE \
                 VALUES (777, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, false)";
    database::execute(f.folder(), older).await;
    let refused = f.store.create_endpoint(f.account, of_version_17().into(), None).await;
    assert_eq!(refused.err(), Some(StoreError::OlderNodes));
    assert_eq!(database::number(f.folder(), "SELECT count(*) FROM endpoints").await, 0);
    assert_eq!(minimum(f.folder()).await, 17, "the older node stops");
    f.endpoint().await;
    database::execute(f.folder(), "DELETE FROM nodes WHERE key = 777").await;
    f.store.create_endpoint(f.account, of_version_17().into(), None).await.expect("an endpoint");
}

#[tokio::test]
async fn a_node_that_joins_while_the_minimum_rises_above_it_does_not_start() {
    if !database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    // Between the look at the versions and the row of the new node.
    let raise = "CREATE FUNCTION raise_minimum() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 UPDATE schema_version SET minimum = 9999; RETURN NEW; END $$; CREATE TRIGGER raise_minimum \
                 AFTER INSERT ON nodes FOR EACH ROW EXECUTE FUNCTION raise_minimum()";
    database::execute(f.folder(), raise).await;
    let (inbox, _nudges) = Inbox::new();
    let opened = Store::open(options(f.folder(), f.clock.clone(), Some(inbox))).await;
    let refused = opened.err().expect("it is refused").to_string();
    assert!(refused.contains("run a newer aldaba"), "{refused}");
    // The row of the first node goes with its next heartbeat.
    eventually("no node", || async {
        (database::number(f.folder(), "SELECT count(*) FROM nodes").await == 0).then_some(())
    })
    .await;
}
