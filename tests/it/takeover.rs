//! What a dead node leaves on PostgreSQL is taken over in steps, and neither keys of nodes nor ids are given twice.

use crate::app::{App, eventually};
use crate::database;
use crate::fixture::Fixture;
use aldaba::store::{Intake, Snapshot};

/// One statement freed all leases, and a start waited for it: with more than it could free within its timeout no node
/// started.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_and_takes_over_however_much_a_dead_one_left() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    // A node that is dead, and a database that takes 0.3 ms and more for each of its leases: 4.5 s and more for all of
    // them, which is as long as a statement may take, and less than a second for a step.
    let sql = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.0003); RETURN \
               NEW; END $$; CREATE TRIGGER slow BEFORE UPDATE ON queue \
               FOR EACH ROW WHEN (OLD.lease = 777) EXECUTE FUNCTION slow(); INSERT INTO nodes (key, seen_at, delivers) \
               OVERRIDING SYSTEM VALUE VALUES (777, 0, true); INSERT INTO queue (account, delivery, endpoint, event, \
               size, lease) SELECT 0, n, 0, n, 0, 777 FROM generate_series(1, 15000) AS n";
    database::execute(app.folder(), sql).await;
    let _second = app.another(&[]).await;
    let left = "SELECT count(*) FROM queue WHERE lease = 777";
    eventually("all of it to be free", || async { (database::number(app.folder(), left).await == 0).then_some(()) })
        .await;
    let due = "SELECT count(*) FROM queue WHERE due_at IS NOT NULL";
    assert_eq!(database::number(app.folder(), due).await, 15_000);
}

/// A step of a fixed size that the database could not end within the timeout of a statement (4.5 s) was tried again and
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_does_not_end_in_time_is_followed_by_smaller_ones() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    // 10 s for a step of 1,000, and 5 s for one of 500.
    let sql = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; \
               END $$; CREATE TRIGGER slow BEFORE UPDATE ON queue FOR EACH ROW WHEN (OLD.lease = 779) EXECUTE FUNCTION \
               slow(); INSERT INTO queue (account, delivery, endpoint, event, size, lease) \
               SELECT 0, n, 0, n, 0, 779 FROM generate_series(1, 1100) AS n; \
               INSERT INTO nodes (key, seen_at, delivers) OVERRIDING SYSTEM VALUE VALUES (779, 0, true)";
    database::execute(app.folder(), sql).await;
    let freed = "SELECT count(*) FROM queue WHERE lease IS NULL";
    eventually("a step", || async { (database::number(app.folder(), freed).await > 0).then_some(()) }).await;
}

#[tokio::test]
async fn what_a_dead_node_had_leased_is_found_by_its_key_and_its_row_goes_afterwards() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let sql = "INSERT INTO nodes (key, seen_at, delivers) OVERRIDING SYSTEM VALUE VALUES (888, 0, true); \
               INSERT INTO queue (account, delivery, endpoint, event, size, lease) \
               SELECT 0, n, 0, n, 0, 888 FROM generate_series(1, 20000) AS n";
    database::execute(app.folder(), sql).await;
    let left = "SELECT count(*) FROM queue WHERE lease = 888";
    eventually("all of it to be free", || async { (database::number(app.folder(), left).await == 0).then_some(()) })
        .await;
    let row = "SELECT count(*) FROM nodes WHERE key = 888";
    eventually("its row to go", || async { (database::number(app.folder(), row).await == 0).then_some(()) }).await;
}

/// After a failover that lost a node's row, the sequence of keys gave its key again, and with it its leases.
#[tokio::test]
async fn a_lease_is_never_given_again_though_the_database_forgot_it() {
    if !database::is_postgres() {
        return;
    }
    let mut f = Fixture::new().await;
    f.endpoint().await;
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    let lease = f.jobs(1).await[0].job.lease;
    database::execute(f.folder(), "DELETE FROM nodes; ALTER SEQUENCE nodes_key_seq RESTART").await;
    let sql = format!("SELECT count(*) FROM nodes WHERE key <> {lease}");
    eventually("another key", || async { (database::number(f.folder(), &sql).await == 1).then_some(()) }).await;
    assert!(!f.store.is_lease_valid(lease));
}

/// A clock that stands still and a sequence that was set back: what a failover that lost commits looks like within a
/// moment.
#[tokio::test]
async fn ids_do_not_repeat_though_their_sequence_was_set_back() {
    if !database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    let (endpoint, _) = f.endpoint().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let test = f.store.open_test(f.account, endpoint, "{}".into()).await.expect("a test");
        ids.push(test.job.id);
        database::execute(f.folder(), "SELECT setval('id_blocks', 1)").await;
    }
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
}
