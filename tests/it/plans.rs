//! What statements of the hot path read on PostgreSQL, whatever their plans were made for: rows that they name, and no
//! others.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aldaba::domain::endpoint::Ordering;
use aldaba::domain::id::EndpointId;
use aldaba::domain::settings::EndpointSettings;
use aldaba::domain::time::Timestamp;
use aldaba::domain::url::{Environment, ReceiverUrl};
use aldaba::store::inbox::Leased;
use aldaba::store::{Backlog, Dispatch, Endpoints, Figures, Intake, Isolation, Log, Settled, Unattempted};
use serde_json::json;

use crate::app::{App, EVENT, Receiver, eventually};
use crate::cluster::{arrivals, delivered_once};
use crate::database;
use crate::fixture::{ALL, Fixture, settlement};

#[tokio::test]
async fn what_has_piled_up_since_a_plan_was_made_is_still_found_by_its_keys() {
    if !database::is_postgres() {
        return;
    }
    let api = App::with(&[("ROLES", "api")]).await;
    let _sender = api.another(&[("ROLES", "delivery")]).await;
    let receiver = Receiver::start().await;
    api.endpoint(&receiver.url()).await;
    // As many claims as it takes until the plan for a small table is kept, which nobody has analysed since.
    for sent in 1..=30 {
        api.publish(json!({})).await;
        receiver.wait_for(sent).await;
    }
    let events = vec![json!({ "event": EVENT, "data": {} }); 1_000];
    for _ in 0..3 {
        api.post("/v1/events/batch", json!({ "events": events })).await.expect(202);
    }
    eventually("all of them", || async { (arrivals(&receiver).len() == 3_030).then_some(()) }).await;
    let sql =
        "SELECT sum(idx_tup_fetch + seq_tup_read)::bigint FROM pg_stat_user_tables WHERE relname LIKE 'payloads%'";
    // The database counts a little later.
    let read = eventually("the count of rows", || async {
        let read = database::number(api.folder(), sql).await;
        (read >= 3_030).then_some(read)
    })
    .await;
    assert!(read < 10 * 3_030, "each body is read once, and not the table for each: {read} rows");
}

/// A queue that was nearly empty when it was last analysed is still asked by its keys for what it holds now.
#[tokio::test]
async fn an_outcome_is_written_without_reading_all_that_is_under_way() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    delivered_once(&app, &endpoint, &receiver).await;
    let others = "INSERT INTO queue (account, delivery, endpoint, event, size, lease) \
                  SELECT 0, n, 0, n, 0, (SELECT max(key) FROM nodes) FROM generate_series(1, 20000) AS n \
                  ON CONFLICT DO NOTHING";
    let gone = "DELETE FROM queue WHERE delivery < 20000";
    for sql in ["ALTER TABLE queue SET (autovacuum_enabled = off)", others, gone, "VACUUM ANALYZE queue", others] {
        database::execute(app.folder(), sql).await;
    }
    for sent in 2..=240 {
        app.publish(json!({})).await;
        receiver.wait_for(sent).await;
    }
    let sql = "SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes WHERE relname = 'queue' \
               AND (SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'queue') >= 20239";
    // The database counts a little later.
    let read = eventually("the count of rows", || async {
        let read = database::number(app.folder(), sql).await;
        (read > 0).then_some(read)
    })
    .await;
    assert!(read < 15 * 20_000, "the node itself looks now and then, and no outcome does: {read} rows");
}

/// What others have missed is nothing to a replay's outcomes.
#[tokio::test]
async fn an_outcome_of_a_replay_reads_nothing_of_what_others_have_missed() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    let path = format!("/v1/webhooks/{endpoint}");
    app.put(&path, json!({ "status": "disabled" })).await.expect(200);
    for n in 0..20 {
        app.publish(json!({ "n": n })).await;
    }
    app.put(&path, json!({ "status": "active" })).await.expect(200);
    let others = "INSERT INTO missed (account, endpoint, type, event) SELECT 0, n % 50, 'a.b', n \
                  FROM generate_series(1, 20000) AS n; ANALYZE missed";
    database::execute(app.folder(), others).await;
    let replay = app.replay(&endpoint, json!({ "from": "2020-01-01T00:00:00Z", "status": "missed" })).await;
    receiver.wait_for(20).await;
    app.replayed(&replay).await;
    let left = "SELECT count(*) FROM missed WHERE account > 0";
    eventually("all to be missed no more", || async {
        (database::number(app.folder(), left).await == 0).then_some(())
    })
    .await;
    let sql = "SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes WHERE relname = 'missed' \
               AND (SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'missed') >= 20";
    // The database counts a little later.
    let read = eventually("the count of rows", || async {
        let read = database::number(app.folder(), sql).await;
        (read > 0).then_some(read)
    })
    .await;
    assert!(read < 2_000, "{read} rows");
}

/// While this is held, no version of a row that was current when it began is removed.
async fn hold_snapshot(folder: &Path) -> tokio_postgres::Client {
    let client = database::connect(&database::url(folder)).await;
    let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM settings";
    client.batch_execute(sql).await.expect("a snapshot");
    client
}

/// What the database counts of its own work (`work`), when it has also counted so much of what came before it
/// (`enough`): it counts a little later.
async fn counted(folder: &Path, work: &str, enough: &str) -> i64 {
    let sql = format!("SELECT CASE WHEN {enough} THEN coalesce({work}, 0)::bigint ELSE -1 END");
    eventually("the count of work", || async {
        let counted = database::number(folder, &sql).await;
        (counted >= 0).then_some(counted)
    })
    .await
}

/// Entries that indexes have returned, when they are so many at least.
async fn entries_read(folder: &Path, indexes: &str, least: i64) -> i64 {
    let sum = format!("(SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE indexrelname IN ({indexes}))");
    counted(folder, &sum, &format!("{sum} >= {least}")).await
}

fn named(jobs: &[Leased]) -> Vec<Unattempted> {
    jobs.iter().map(|leased| Unattempted::of(&leased.job)).collect()
}

async fn assert_totals(f: &Fixture, endpoint: EndpointId, total: u64) {
    assert_eq!(f.store.events(f.account, ALL).await.expect("listed").total, total);
    assert_eq!(f.store.account_deliveries(f.account, ALL).await.expect("listed").total, total);
    assert_eq!(f.store.endpoint_deliveries(f.account, endpoint, ALL).await.expect("listed").total, total);
}

/// The totals are exact before, while and after what commits have counted is added up.
#[tokio::test]
async fn no_commit_updates_a_counter_and_the_totals_are_exact_at_any_time() {
    if !database::is_postgres() {
        return;
    }
    let mut f = Fixture::new().await;
    let _held = hold_snapshot(f.folder()).await;
    let (endpoint, _) = f.endpoint().await;
    for n in 1..=300 {
        f.store.accept(vec![f.event(n)], None).await.expect("accepted");
        let jobs = f.jobs(1).await;
        f.store.settle(Arc::new(vec![settlement(&jobs[0], 200)]), Isolation::Shared).await.expect("settled");
        if n % 20 == 0 {
            assert_totals(&f, endpoint, n.into()).await;
        }
    }
    eventually("the fold", || async {
        assert_totals(&f, endpoint, 300).await;
        (database::number(f.folder(), "SELECT count(*) FROM counter_deltas").await == 0).then_some(())
    })
    .await;
    assert_totals(&f, endpoint, 300).await;
    let last = f.store.endpoint(f.account, endpoint).await.expect("found").last_delivery_at;
    assert_eq!(last, Some(Timestamp::from_millis(1_800_000_000_000)));
    let folded = database::number(f.folder(), "SELECT sum(total)::bigint FROM counters WHERE endpoint <> 0").await;
    assert_eq!(folded, 300);
    let updated = "(SELECT sum(n_tup_upd) FROM pg_stat_user_tables WHERE relname = 'counters')";
    let inserted = "(SELECT sum(n_tup_ins) FROM pg_stat_user_tables WHERE relname LIKE 'events!_%' ESCAPE '!') >= 300";
    let updated = counted(f.folder(), updated, inserted).await;
    assert!(updated <= 2 * 20, "a few folds, each of the endpoint and of the events: {updated} updates");
}

#[tokio::test]
async fn a_claim_reads_no_entries_of_what_was_claimed_long_ago() {
    if !database::is_postgres() {
        return;
    }
    let mut f = Fixture::new().await;
    let _held = hold_snapshot(f.folder()).await;
    let (_, endpoint) = f.endpoint().await;
    for n in 0..100 {
        f.store.accept(vec![f.event(n)], None).await.expect("accepted");
    }
    let mut jobs = f.jobs(100).await;
    for round in 0..50 {
        f.store.release(named(&jobs)).await.expect("given back");
        f.clock.advance(Duration::from_secs(10));
        jobs = f.store.claim(endpoint, 256).await.expect("claimed").jobs;
        assert_eq!(jobs.len(), 100, "in round {round}");
        let due = f.store.due_endpoints().await.expect("looked");
        assert!(due.is_empty(), "nothing is left: {due:?}");
    }
    // Each delivery is read once in each round, and before the next one the old entries of three rounds at most.
    let read = entries_read(f.folder(), "'queue_due'", 50 * 100).await;
    assert!(read < 50 * 100 * 12, "not all that was claimed before: {read} entries");
}

#[tokio::test]
async fn a_measurement_of_the_backlog_reads_no_entries_of_what_was_claimed_long_ago() {
    if !database::is_postgres() {
        return;
    }
    let measurements: i64 = 300;
    let mut f = Fixture::new().await;
    let _held = hold_snapshot(f.folder()).await;
    let (_, endpoint) = f.endpoint().await;
    f.store.accept((0..100).map(|n| f.event(n)).collect(), None).await.expect("accepted");
    let mut jobs = f.jobs(100).await;
    for round in 0..50 {
        f.store.release(named(&jobs)).await.expect("given back");
        f.clock.advance(Duration::from_secs(10));
        jobs = f.store.claim(endpoint, 256).await.expect("claimed").jobs;
        assert_eq!(jobs.len(), 100, "in round {round}");
    }
    for _ in 0..measurements {
        assert_eq!(f.store.backlog(100_000).await, Ok(Backlog::default()));
    }
    // The count and the oldest read the entries of the last 30 s each, which are those of three rounds. The rest is the
    // claims'.
    let read = entries_read(f.folder(), "'queue_due'", measurements * 2 * 250).await;
    assert!(read < measurements * 2 * 800, "not all that was claimed before: {read} entries");
}

#[tokio::test]
async fn what_is_committed_late_is_claimed_though_it_is_before_the_position() {
    if !database::is_postgres() {
        return;
    }
    let mut f = Fixture::new().await;
    let (_, endpoint) = f.endpoint().await;
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    let jobs = f.jobs(1).await;
    f.clock.advance(Duration::from_secs(20));
    assert_eq!(f.store.claim(endpoint, 256).await.expect("claimed").jobs.len(), 0);
    // A commit that began 20 s ago.
    let late = "UPDATE queue SET lease = NULL, due_at = 1800000000000";
    database::connect(&database::url(f.folder())).await.batch_execute(late).await.expect("committed");
    let due = f.store.due_endpoints().await.expect("looked");
    assert_eq!(due, [(endpoint, Timestamp::from_millis(1_800_000_000_000))]);
    let again = f.store.claim(endpoint, 256).await.expect("claimed").jobs;
    assert_eq!(again[0].job.id, jobs[0].job.id);
}

#[tokio::test]
async fn the_next_in_order_is_found_without_reading_all_that_went_before() {
    if !database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    let _held = hold_snapshot(f.folder()).await;
    let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
    let new = EndpointSettings { ordering: Ordering::Fifo, ..EndpointSettings::new(&url, vec![EVENT.into()]) };
    let endpoint = f.store.create_endpoint(f.account, new.into(), None).await.expect("an endpoint").resource.key;
    for batch in 0..15 {
        let events = (0..100).map(|n| f.event(100 * batch + n)).collect();
        f.store.accept(events, None).await.expect("accepted");
        for n in 0..100 {
            let jobs = f.store.claim(endpoint, 1).await.expect("claimed").jobs;
            assert_eq!(jobs.len(), 1, "event {n} of batch {batch}");
            f.store.settle(Arc::new(vec![settlement(&jobs[0], 200)]), Isolation::Shared).await.expect("settled");
        }
    }
    // A look begins 300 places before the first one. A delivery leaves up to five entries in both indexes.
    let read = entries_read(f.folder(), "'queue_turn', 'queue_turn_taken'", 1_500).await;
    assert!(read < 1_500 * 300 * 7, "not all 1,500 of them each time: {read} entries");
}

/// Whoever waits for a lock shows what it has opened.
const OPENED: &str = "SELECT coalesce((SELECT count(DISTINCT i.indexrelid) \
                      FILTER (WHERE t.relname LIKE 'deliveries!_%' ESCAPE '!') FROM pg_stat_activity a \
                      JOIN pg_locks l ON l.pid = a.pid LEFT JOIN pg_index i ON i.indexrelid = l.relation \
                      LEFT JOIN pg_class t ON t.oid = i.indrelid WHERE a.datname = current_database() \
                      AND a.wait_event_type = 'Lock' GROUP BY a.pid LIMIT 1), -1)";

#[tokio::test]
async fn an_outcome_opens_no_partitions_of_other_days() {
    if !database::is_postgres() {
        return;
    }
    let mut f = Fixture::new().await;
    f.endpoint().await;
    let day = 1_800_000_000_000 / 86_400_000;
    for old in day - 100..day {
        let (first, end) = ((old * 86_400_000_i64) << 20, ((old + 1) * 86_400_000_i64) << 20);
        let made = ["events", "payloads", "deliveries", "attempts"].map(|table| {
            format!("CREATE TABLE {table}_{old} PARTITION OF {table} FOR VALUES FROM ({first}) TO ({end})")
        });
        database::connect(&database::url(f.folder())).await.batch_execute(&made.join("; ")).await.expect("made");
    }
    // The first outcomes of each connection make its plan, which opens everything.
    let mut fewest = i64::MAX;
    for n in 0..40 {
        f.store.accept(vec![f.event(n)], None).await.expect("accepted");
        let jobs = f.jobs(1).await;
        let locked = database::connect(&database::url(f.folder())).await;
        locked.batch_execute("BEGIN; SELECT 1 FROM queue FOR UPDATE").await.expect("locked");
        let (store, outcome) = (f.store.clone(), settlement(&jobs[0], 200));
        let settling = tokio::spawn(async move { store.settle(Arc::new(vec![outcome]), Isolation::Shared).await });
        let opened = eventually("the outcome that waits", || async {
            let opened = database::number(f.folder(), OPENED).await;
            (opened >= 0).then_some(opened)
        })
        .await;
        locked.batch_execute("COMMIT").await.expect("unlocked");
        let settled = settling.await.expect("no panic").expect("settled");
        assert!(matches!(settled[..], [Settled::Done]));
        fewest = fewest.min(opened);
        if fewest <= 10 {
            return;
        }
    }
    panic!("more than the indexes of one day: {fewest}");
}

/// The middle of the times that a step took.
fn middle(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// 20,000 events, one after the other: what they leave behind is what a minute at 300 a second leaves.
#[tokio::test]
#[ignore = "long"]
async fn accepting_settling_and_claiming_take_as_long_while_a_snapshot_is_held() {
    if !database::is_postgres() {
        return;
    }
    let mut f = Fixture::new().await;
    let (_, endpoint) = f.endpoint().await;
    let _held = hold_snapshot(f.folder()).await;
    let (mut accepting, mut claiming, mut settling) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..20_000 {
        let began = Instant::now();
        f.store.accept(vec![f.event(n)], None).await.expect("accepted");
        accepting.push(began.elapsed());
        let jobs = f.jobs(1).await;
        f.store.release(named(&jobs)).await.expect("given back");
        drop(jobs);
        let began = Instant::now();
        let jobs = f.store.claim(endpoint, 1).await.expect("claimed").jobs;
        claiming.push(began.elapsed());
        let began = Instant::now();
        f.store.settle(Arc::new(vec![settlement(&jobs[0], 200)]), Isolation::Shared).await.expect("settled");
        settling.push(began.elapsed());
        f.clock.advance(Duration::from_millis(3));
    }
    for (what, times) in [("accepting", accepting), ("claiming", claiming), ("settling", settling)] {
        let (first, last) = (middle(&times[500..1_500]), middle(&times[19_000..]));
        println!("{what}: {first:?} at the beginning, {last:?} at the end");
        assert!(last < first * 3 / 2, "{what}: {first:?} at the beginning, {last:?} at the end");
    }
}
