//! Whole days leave PostgreSQL beside a steady load, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aldaba::clock::Clock as _;
use aldaba::domain::retention::Retention;
use aldaba::domain::time::Timestamp;
use aldaba::store::inbox::Nudge;
use aldaba::store::{Dispatch, Housekeeping, Intake, Isolation, Log};

use crate::app::eventually;
use crate::database;
use crate::fixture::{ALL, Fixture, event, settlement};

const DAY: Duration = Duration::from_secs(86_400);

const DAY_MS: i64 = 86_400_000;

/// Rows of each old day.
const ROWS: i64 = 2_000;

/// The longest that accepting may take while a day is dropped, on a machine that is busy with other tests: a drop holds
/// up statements for at most some 150 ms.
const STALL: Duration = Duration::from_millis(900);

fn day_of(time: Timestamp) -> i64 {
    time.as_millis() / DAY_MS
}

/// A day of the past with finished deliveries of the fixture's account and endpoint, as a server left it.
async fn old_day(f: &Fixture, day: i64) {
    let first = (day * DAY_MS) << 20;
    let end = ((day + 1) * DAY_MS) << 20;
    let made: Vec<String> = ["events", "payloads", "deliveries", "attempts"]
        .iter()
        .map(|table| {
            format!(
                "CREATE TABLE {table}_{day} (LIKE {table} INCLUDING ALL); \
                 ALTER TABLE {table} ATTACH PARTITION {table}_{day} FOR VALUES FROM ({first}) TO ({end});"
            )
        })
        .collect();
    let rows = format!("FROM generate_series(0, {}) AS n", ROWS - 1);
    let (account, endpoint) = ("(SELECT key FROM accounts)", "(SELECT key FROM endpoints)");
    let sql = format!(
        "{made} INSERT INTO events (account, id, type, occurred_at, deliveries) \
         SELECT {account}, {first} + 2 * n, 'x', 0, ARRAY[{first} + 2 * n + 1] {rows}; \
         INSERT INTO payloads (account, event, body) SELECT {account}, {first} + 2 * n, '{{}}' {rows}; \
         INSERT INTO deliveries (account, id, endpoint, event, type, status, attempt) \
         SELECT {account}, {first} + 2 * n + 1, {endpoint}, {first} + 2 * n, 'x', 2, 1 {rows}; \
         INSERT INTO counters (account, endpoint, shard, total) \
         SELECT {account}, {endpoint}, 5, {ROWS} UNION ALL SELECT {account}, 0, 5, {ROWS} \
         ON CONFLICT (account, endpoint, shard) DO UPDATE SET total = counters.total + excluded.total",
        made = made.join(" "),
    );
    database::execute(f.folder(), &sql).await;
}

/// The old days that have a partition.
async fn days_before(f: &Fixture, day: i64) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'events'::regclass AND CASE WHEN c.relname ~ '^events_[0-9]+$' THEN substr(c.relname, \
         8)::bigint < {day} END"
    );
    database::number(f.folder(), &sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn days_that_are_over_go_while_events_are_accepted_and_settled() {
    if !database::is_postgres() {
        return;
    }
    let mut f = Fixture::new().await;
    f.endpoint().await;
    let today = day_of(f.clock.now());
    for ago in 45..60 {
        old_day(&f, today - ago).await;
    }
    assert_eq!(days_before(&f, today).await, 15);
    let (stop, accepted, worst) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let publishing: Vec<_> = (0..8)
        .map(|_| {
            let (store, account) = (f.store.clone(), f.account);
            let (stop, accepted, worst) = (stop.clone(), accepted.clone(), worst.clone());
            tokio::spawn(async move {
                let mut pace = tokio::time::interval(Duration::from_millis(8));
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let began = Instant::now();
                    store.accept(vec![event(account, 1)], None).await.expect("accepted");
                    worst.fetch_max(u64::try_from(began.elapsed().as_millis()).expect("short"), Ordering::Relaxed);
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let (store, settled) = (f.store.clone(), Arc::new(AtomicU64::new(0)));
    let counted = settled.clone();
    let mut nudges = std::mem::replace(&mut f.nudges, tokio::sync::mpsc::unbounded_channel().1);
    let settling = tokio::spawn(async move {
        while let Some(nudge) = nudges.recv().await {
            let jobs = match nudge {
                Nudge::Jobs(jobs) => jobs,
                // There was no room in memory.
                Nudge::Due(endpoint, _) => store.claim(endpoint, 256).await.expect("claimed").jobs,
                _ => continue,
            };
            let done: Vec<_> = jobs.iter().map(|leased| settlement(leased, 200)).collect();
            let count = done.len() as u64;
            store.settle(Arc::new(done), Isolation::Shared).await.expect("settled");
            counted.fetch_add(count, Ordering::Relaxed);
        }
    });
    eventually("the load to run", || async { (settled.load(Ordering::Relaxed) > 200).then_some(()) }).await;
    let (keep, now) = (Retention { deliveries: Some(DAY * 30), payloads: None }, f.clock.now());
    let (began, mut failed, mut rounds) = (Instant::now(), 0, 0);
    while days_before(&f, today).await > 0 {
        let round = f.store.begin_purge(keep, now).await.expect("begun").expect("this process's work");
        (failed, rounds) = (failed + round.failed_days, rounds + 1);
        assert!(rounds < 4, "{failed} days failed, and {} are left", days_before(&f, today).await);
    }
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    for publisher in publishing {
        publisher.await.expect("published");
    }
    let accepted = accepted.load(Ordering::Relaxed);
    eventually("all to be settled", || async { (settled.load(Ordering::Relaxed) == accepted).then_some(()) }).await;
    settling.abort();
    println!("{accepted} events, 15 days in {took:?} and {rounds} rounds, {failed} failed, worst {worst:?} ms");
    let worst = Duration::from_millis(worst.load(Ordering::Relaxed));
    assert!(worst < STALL, "an event was accepted after {worst:?}");
    assert_eq!(f.store.account_deliveries(f.account, ALL).await.expect("listed").total, accepted, "counts stay exact");
    assert_eq!(f.store.events(f.account, ALL).await.expect("listed").total, accepted, "counts stay exact");
}

#[tokio::test]
async fn a_day_of_which_something_is_open_stays_and_those_after_it_go() {
    if !database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    f.endpoint().await;
    let today = day_of(f.clock.now());
    for ago in [40, 39, 38] {
        old_day(&f, today - ago).await;
    }
    // One is sent again: found under the lock by its index, and before it in the queue.
    let sql = format!(
        "UPDATE deliveries SET status = 1 WHERE id = (SELECT min(id) FROM deliveries_{day}); \
         INSERT INTO queue (account, delivery, endpoint, event, size, attempt, due_at) \
         SELECT account, id, endpoint, event, 2, 1, 9223372036854775807 FROM deliveries_{day} WHERE status = 1",
        day = today - 40
    );
    database::execute(f.folder(), &sql).await;
    let keep = Retention { deliveries: Some(DAY * 30), payloads: None };
    let round = f.store.begin_purge(keep, f.clock.now()).await.expect("begun").expect("this process's work");
    assert_eq!((days_before(&f, today).await, round.failed_days), (1, 0));
    assert!(round.position.everybody, "what is finished of it goes by rows");
    crate::fixture::purge(&f.store, keep, f.clock.now()).await;
    let listed = f.store.account_deliveries(f.account, ALL).await.expect("listed");
    assert_eq!((listed.total, listed.items.len()), (1, 1));
}

#[tokio::test]
async fn a_table_that_somebody_holds_stops_no_other_part_of_the_round() {
    if !database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    f.endpoint().await;
    let today = day_of(f.clock.now());
    old_day(&f, today - 40).await;
    let keep = Retention { deliveries: Some(DAY * 30), payloads: None };
    let dump = database::connect(&database::url(f.folder())).await;
    dump.batch_execute("BEGIN; LOCK TABLE payloads IN ACCESS SHARE MODE").await.expect("locked");
    let round = f.store.begin_purge(keep, f.clock.now()).await.expect("begun").expect("this process's work");
    assert_eq!((days_before(&f, today).await, round.failed_days), (1, 1));
    dump.batch_execute("ROLLBACK").await.expect("free");
    let round = f.store.begin_purge(keep, f.clock.now()).await.expect("begun").expect("this process's work");
    assert_eq!((days_before(&f, today).await, round.failed_days), (0, 0), "the next round drops it");
}
