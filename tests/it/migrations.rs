//! Databases of older versions are brought to this one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use aldaba::clock::ManualClock;
use aldaba::domain::delivery::DeliveryStatus;
use aldaba::domain::filter::DeliveryFilter;
use aldaba::domain::id::{AccountId, ReplayId};
use aldaba::domain::time::Timestamp;
use aldaba::store::inbox::Inbox;
use aldaba::store::{Accounts, Lifecycle, Log, Replays, Search, Snapshot, Store, StoreError};
use serde_json::{Value, json};

use crate::app::{App, Call, EVENT, eventually};
use crate::client_certificates::{pair, with_clients};
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

/// The attributes of an endpoint: for each a value, and the version of the oldest program that goes by it; 0 where
/// every program does.
fn attributes() -> Vec<(&'static str, Value, i64)> {
    let certificate = pair(&with_clients(&["client"]), "client");
    vec![
        ("url", json!("https://127.0.0.1:9/other"), 0),
        ("events", json!(["*"]), 17),
        ("description", json!("a"), 0),
        ("status", json!("disabled"), 0),
        ("ordering", json!("fifo"), 0),
        ("metadata", json!({ "team": "a" }), 0),
        ("external_id", json!("shop-1"), 0),
        ("channels", json!(["a"]), 18),
        ("timeout_seconds", json!(5), 18),
        ("max_in_flight", json!(1), 18),
        ("retry_schedule", json!([60]), 18),
        ("filter", json!({ "event": EVENT }), 18),
        ("secret", json!("what-another-sender-had-given"), 18),
        ("headers", json!({ "X-Team": "a" }), 19),
        ("authentication", json!({ "type": "bearer", "token": "a-token" }), 19),
        ("client_certificate", certificate, 20),
        ("rate_limit", json!("100/1m"), 21),
    ]
}

/// Those that a program of before some version would ignore.
pub fn newer_attributes() -> Vec<(&'static str, Value, i64)> {
    attributes().into_iter().filter(|(_, _, version)| *version > 0).collect()
}

/// The body of an endpoint with this attribute.
pub fn endpoint_with(name: &str, value: &Value) -> Value {
    let mut body = json!({ "url": "https://127.0.0.1:9/", "events": [EVENT] });
    body[name] = value.clone();
    body
}

/// Lets every program work on the database again.
pub async fn forget_minimum(folder: &Path) {
    let sql = if database::is_postgres() {
        "UPDATE schema_version SET minimum = 0"
    } else {
        "DELETE FROM settings WHERE name = 'minimum_version'"
    };
    database::execute(folder, sql).await;
}

#[test]
fn it_is_decided_of_each_attribute_of_an_endpoint_whether_older_programs_may_ignore_it() {
    let groups = aldaba::web::groups();
    let mut operations = groups.iter().flat_map(|group| &group.operations);
    let create = operations.find(|call| call.method == "POST" && call.path == "/v1/webhooks").expect("it is there");
    let fields = &create.body.as_ref().expect("a body").fields;
    let decided: BTreeSet<&str> = attributes().iter().map(|(name, ..)| *name).collect();
    assert_eq!(decided, fields.iter().map(|field| field.name).collect());
}

#[tokio::test]
async fn the_first_row_with_an_attribute_that_older_programs_would_ignore_raises_the_minimum_version() {
    let app = App::start().await;
    for (name, value, version) in attributes() {
        let (plain, _) = app.endpoint("https://127.0.0.1:9/").await;
        assert_eq!(minimum(app.folder()).await, 0, "an endpoint that every program serves");
        let made = app.post("/v1/webhooks", endpoint_with(name, &value)).await.expect(201).id();
        assert_eq!(minimum(app.folder()).await, version, "a new endpoint with {name}");
        app.delete(&format!("/v1/webhooks/{made}")).await.expect(204);
        forget_minimum(app.folder()).await;
        let (path, change) = (format!("/v1/webhooks/{plain}"), json!({ name: value }));
        if name == "secret" {
            app.post(&format!("{path}/regenerate-secret"), change).await.expect(200);
        } else {
            app.put(&path, change).await.expect(200);
        }
        assert_eq!(minimum(app.folder()).await, version, "an endpoint that gets {name}");
        app.delete(&path).await.expect(204);
        forget_minimum(app.folder()).await;
    }
}

/// A node of this version, which was heard of just now.
async fn node_of(folder: &Path, version: i64) {
    let sql = format!(
        "INSERT INTO nodes (key, seen_at, delivers, version) OVERRIDING SYSTEM VALUE VALUES (777, \
         (extract(epoch FROM clock_timestamp()) * 1000)::bigint, false, {version}) \
         ON CONFLICT (key) DO UPDATE SET seen_at = excluded.seen_at, version = excluded.version"
    );
    database::execute(folder, &sql).await;
}

#[tokio::test]
async fn no_endpoint_is_written_beside_a_node_that_would_ignore_an_attribute_of_it() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    for (written, (name, value, version)) in (0..).zip(newer_attributes()) {
        node_of(app.folder(), version - 1).await;
        let register = || app.post("/v1/webhooks", endpoint_with(name, &value));
        register().await.refused(503, "unavailable", "");
        let endpoints = database::number(app.folder(), "SELECT count(*) FROM endpoints").await;
        assert_eq!(endpoints, written, "no endpoint with {name}");
        assert_eq!(minimum(app.folder()).await, version, "{name}: the older node stops at its next heartbeat");
        node_of(app.folder(), version).await;
        register().await.expect(201);
        forget_minimum(app.folder()).await;
    }
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
