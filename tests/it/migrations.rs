//! Databases of older versions are brought to this one.

use std::sync::Arc;

use aldaba::clock::ManualClock;
use aldaba::domain::delivery::DeliveryStatus;
use aldaba::domain::filter::DeliveryFilter;
use aldaba::domain::id::{AccountId, ReplayId};
use aldaba::domain::time::Timestamp;
use aldaba::store::inbox::Inbox;
use aldaba::store::{Store, StoreError};

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
        "INSERT INTO accounts (key, id, name, created_at, updated_at) VALUES (1, X'00000000000040008000000000000000', 'old', 0, 0); \
         INSERT INTO endpoints (key, id, account, url, events, consecutive_failures, failing_since, last_delivery_at, \
         deliveries_total, created_at, updated_at) VALUES (1, X'00000000000040008000000000000000', 1, 'https://a.example', 'a', 3, 5, 6, 7, 0, 0); \
         INSERT INTO events (id, account, type, occurred_at, deliveries) VALUES (1, 1, 'a', 0, 3); \
         INSERT INTO deliveries (id, endpoint, event, status, lease) VALUES (2, 1, 1, 2, NULL), (3, 1, 1, 0, 1), (4, 1, 1, 3, NULL); \
         PRAGMA user_version = 1",
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

async fn of_the_first_version_on_postgres() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = database::connect(&database::url(folder.path())).await;
    old.batch_execute(include_str!("../../migrations/postgres/0001_initial.sql")).await.expect("the first version");
    let sql = "CREATE TABLE schema_version (version bigint NOT NULL); INSERT INTO schema_version VALUES (1); \
               INSERT INTO accounts (id, name, created_at, updated_at) \
               VALUES ('00000000-0000-4000-8000-000000000000', 'old', 0, 0)";
    old.batch_execute(sql).await.expect("a row");
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let (inbox, _nudges) = Inbox::new();
    let store = Store::open(options(folder.path(), clock, Some(inbox))).await.expect("opens");
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
