//! What is kept for how long: rows and bodies, by the settings and by the account.

use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool};
use std::time::Duration;

use aldaba::clock::Clock as _;
use aldaba::domain::account::AccountChange;
use aldaba::domain::endpoint::EndpointStatus;
use aldaba::domain::event::NewEvent;
use aldaba::domain::id::{AccountId, DeliveryId, EndpointId, IdTimes};
use aldaba::domain::permission::Permission;
use aldaba::domain::retention::Retention;
use aldaba::domain::settings::{EndpointChange, EndpointSettings};
use aldaba::domain::url::{Environment, ReceiverUrl};
use aldaba::store::{
    Accounts, Dispatch, Endpoints, Housekeeping, Intake, Isolation, Log, Replays, StoreError, Unattempted,
};
use serde_json::json;

use crate::app::{App, Call, EVENT, Receiver};
use crate::fixture::{ALL, Fixture, settlement};

const DAY: Duration = Duration::from_secs(86_400);

async fn purge(f: &Fixture, keep: Retention) {
    crate::fixture::purge(&f.store, keep, f.clock.now()).await;
}

/// An endpoint of the account.
async fn endpoint(f: &Fixture, account: AccountId) -> EndpointId {
    let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
    let new = EndpointSettings::new(&url, vec![EVENT.to_owned()]);
    f.store.create_endpoint(account, new.into(), None).await.expect("an endpoint").resource.id
}

/// A delivery of the account that has succeeded, on each of so many days.
async fn history(f: &mut Fixture, account: AccountId, days: u32) {
    for day in 0..days {
        let event = NewEvent { account, ..f.event(day) };
        f.store.accept(vec![event], None).await.expect("accepted");
        let jobs = f.jobs(1).await;
        f.store.settle(Arc::new(vec![settlement(&jobs[0], 200)]), Isolation::Shared).await.expect("settled");
        f.clock.advance(DAY);
    }
}

/// Deliveries and events of the account, and how many of the deliveries have a body, the newest first.
async fn left(f: &Fixture, account: AccountId) -> (u64, u64, usize) {
    let listed = f.store.account_deliveries(account, ALL).await.expect("listed");
    assert_eq!(listed.total, listed.items.len() as u64, "the total is exact");
    let events = f.store.events(account, ALL).await.expect("listed");
    assert_eq!(events.total, events.items.len() as u64, "the total is exact");
    let mut bodies = Vec::new();
    for delivery in &listed.items {
        bodies.push(f.store.delivery(account, delivery.id).await.expect("read").body.is_some());
    }
    let with_body = bodies.iter().take_while(|has| **has).count();
    assert!(bodies[with_body..].iter().all(|has| !has), "the oldest go first");
    (listed.total, events.total, with_body)
}

#[tokio::test]
async fn bodies_go_before_their_rows_and_each_account_has_its_own_time() {
    let mut f = Fixture::new().await;
    let (plain, patient, forgetful) = (
        f.account,
        f.store.create_account("patient".into(), None).await.expect("made").id,
        f.store.create_account("forgetful".into(), None).await.expect("made").id,
    );
    let own = |deliveries: u32, payloads: u32| AccountChange {
        deliveries: Some(Some(DAY * deliveries)),
        payloads: Some(Some(DAY * payloads)),
        ..AccountChange::default()
    };
    f.store.update_account(patient, own(62, 40)).await.expect("changed");
    f.store.update_account(forgetful, own(3, 2)).await.expect("changed");
    for account in [plain, patient, forgetful] {
        endpoint(&f, account).await;
        history(&mut f, account, 1).await;
    }
    f.clock.advance(DAY * 30);
    for account in [plain, patient, forgetful] {
        history(&mut f, account, 10).await;
    }
    let keep = Retention { deliveries: Some(DAY * 30), payloads: Some(DAY * 24 + DAY / 2) };
    purge(&f, keep).await;
    // The newest of the plain account is 21 days old, of the patient one 11, of the forgetful one 1 day old.
    assert_eq!(left(&f, plain).await, (10, 10, 4));
    assert_eq!(left(&f, patient).await, (11, 11, 10));
    assert_eq!(left(&f, forgetful).await, (3, 3, 2));
    let whole = AccountChange { deliveries: Some(None), payloads: Some(None), ..AccountChange::default() };
    f.store.update_account(patient, whole.clone()).await.expect("changed");
    f.store.update_account(forgetful, whole).await.expect("changed");
    purge(&f, keep).await;
    assert_eq!(left(&f, patient).await, (10, 10, 10));
    assert_eq!(left(&f, plain).await, (10, 10, 4));
    f.clock.advance(DAY * 60);
    purge(&f, keep).await;
    for account in [plain, patient, forgetful] {
        assert_eq!(left(&f, account).await, (0, 0, 0));
    }
}

#[tokio::test]
async fn what_is_still_to_be_sent_keeps_its_body_and_what_has_none_is_not_sent_again() {
    let mut f = Fixture::new().await;
    let (id, key) = f.endpoint().await;
    f.store.accept(vec![f.event(1), f.event(2)], None).await.expect("accepted");
    let jobs = f.jobs(2).await;
    f.store.settle(Arc::new(vec![settlement(&jobs[0], 200)]), Isolation::Shared).await.expect("settled");
    f.store.release(vec![Unattempted::of(&jobs[1].job)]).await.expect("released");
    let (sent, open): (DeliveryId, DeliveryId) = (jobs[0].job.id, jobs[1].job.id);
    drop(jobs);
    f.clock.advance(DAY * 5);
    purge(&f, Retention { deliveries: Some(DAY * 30), payloads: Some(DAY) }).await;
    let detail = f.store.delivery(f.account, sent).await.expect("read");
    assert!(detail.body.is_none() && detail.attempts.len() == 1);
    assert!(matches!(f.store.retry(f.account, sent, None).await, Err(StoreError::PayloadGone)));
    let claimed = f.store.claim(key, 10).await.expect("claimed").jobs;
    assert_eq!(claimed.iter().map(|leased| leased.job.id).collect::<Vec<_>>(), [open]);
    f.store.settle(Arc::new(vec![settlement(&claimed[0], 200)]), Isolation::Shared).await.expect("settled");
    drop(claimed);
    let ended = f.store.delivery(f.account, open).await.expect("read");
    assert!(ended.body.is_none(), "a body that was kept for one delivery alone goes with its end");
    // A replay sends those that have a body.
    f.store.accept(vec![f.event(3)], None).await.expect("accepted");
    f.clock.advance(DAY / 2);
    let asked = crate::fixture::everything(&f);
    let replay = f.store.create_replay(f.account, id, asked, None).await.expect("asked for");
    assert_eq!(replay.total, 1);
}

#[tokio::test]
async fn what_was_missed_is_known_as_long_as_its_event() {
    let f = Fixture::new().await;
    let (patient, forgetful) = (f.account, f.store.create_account("forgetful".into(), None).await.expect("made").id);
    let own = |days: u32| AccountChange { deliveries: Some(Some(DAY * days)), ..AccountChange::default() };
    f.store.update_account(patient, own(90)).await.expect("changed");
    f.store.update_account(forgetful, own(7)).await.expect("changed");
    let mut endpoints = Vec::new();
    for account in [patient, forgetful] {
        let id = endpoint(&f, account).await;
        let pause = EndpointChange { status: Some(EndpointStatus::Disabled), ..EndpointChange::default() };
        f.store.update_endpoint(account, id, pause).await.expect("paused");
        f.store.accept(vec![NewEvent { account, ..f.event(1) }], None).await.expect("accepted");
        endpoints.push((account, id));
    }
    let keep = Retention { deliveries: Some(DAY * 30), payloads: None };
    for (days, expected) in [(10, [1, 0]), (40, [1, 0]), (90, [0, 0])] {
        f.clock.advance(DAY * days);
        purge(&f, keep).await;
        while f.store.purge_old_replays(keep, f.clock.now()).await.expect("purged") {}
        for ((account, id), expected) in endpoints.iter().zip(expected) {
            let left = f.store.missed(*account, *id).await.expect("counted").count;
            assert_eq!(left, expected, "after {days} more days");
        }
    }
}

#[tokio::test]
async fn only_an_operator_changes_how_long_an_account_keeps_its_history() {
    let app = App::start().await;
    let path = format!("/v1/accounts/{}", app.account);
    let put = |key: &str, body| Call::new(app.address, "PUT", &path).bearer(key).json(&body).send();
    let change = json!({ "deliveries_retention_days": 90, "payloads_retention_days": 7 });
    put(&app.key, change.clone()).await.refused(403, "forbidden", "");
    put(&app.key, json!({ "name": "mine" })).await.expect(200);
    let changed = put(&app.operator, change).await.expect(200);
    assert_eq!(
        (changed.attribute("deliveries_retention_days"), changed.attribute("name")),
        (&json!(90), &json!("mine"))
    );
    let back = put(&app.operator, json!({ "deliveries_retention_days": null, "name": "theirs" })).await.expect(200);
    assert!(back.attribute("deliveries_retention_days").is_null());
    assert_eq!((back.attribute("payloads_retention_days"), back.attribute("name")), (&json!(7), &json!("theirs")));
    for value in [json!(0), json!(3651), json!(1.5), json!("7"), json!(-1)] {
        let pointer = "/data/attributes/payloads_retention_days";
        put(&app.operator, json!({ "payloads_retention_days": value })).await.refused(
            422,
            "retention_invalid",
            pointer,
        );
    }
    put(&app.operator, json!({ "days": 3 })).await.refused(422, "no_valid_fields", "");
    put(&app.operator, json!({ "name": "" })).await.refused(422, "name_invalid", "/data/attributes/name");
    let seen = Call::new(app.address, "GET", "/v1/accounts").bearer(&app.key).send().await.expect(200).json;
    assert_eq!(seen["data"][0]["attributes"]["payloads_retention_days"], 7);
}

#[tokio::test]
async fn a_body_that_is_gone_is_shown_as_none_and_its_delivery_cannot_be_retried() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let delivery = app.delivery(&id, "success").await["id"].as_str().expect("an id").to_owned();
    crate::database::execute(app.folder(), "DELETE FROM payloads").await;
    let path = format!("/v1/webhooks/deliveries/{delivery}");
    assert!(app.get(&path).await.expect(200).attribute("request_body").is_null());
    app.call("POST", &format!("{path}/retry")).send().await.refused(409, "payload_expired", "");
    let blind = app.key_for(&[Permission::WebhooksRead]).await;
    let shown = Call::new(app.address, "GET", &path).bearer(&blind).send().await.expect(200);
    assert_eq!(shown.attribute("status"), "success", "a refused retry leaves it as it was");
}

/// Old deliveries of the fixture's account, made beside the store: so many that a paused endpoint holds, then so many
/// that have succeeded.
async fn old_rows(f: &Fixture, held: u32, finished: u32) {
    let first = IdTimes::default().first_at(f.clock.now());
    let account = "(SELECT key FROM accounts)";
    let endpoint = "(SELECT key FROM endpoints)";
    let n = format!("(SELECT n, {first} + 2 * n AS event, {first} + 2 * n + 1 AS id FROM numbers) AS r");
    let numbers = format!(
        "WITH RECURSIVE numbers AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < {})",
        held + finished
    );
    let status = format!("CASE WHEN n <= {held} THEN 0 ELSE 2 END");
    let total = held + finished;
    let mut sql = if crate::database::is_postgres() {
        vec![
            format!(
                "INSERT INTO events (account, id, type, occurred_at, deliveries) \
                 {numbers} SELECT {account}, event, '{EVENT}', 0, ARRAY[id] FROM {n}"
            ),
            format!("INSERT INTO payloads (account, event, body) {numbers} SELECT {account}, event, '{{}}' FROM {n}"),
            format!(
                "INSERT INTO deliveries (account, id, endpoint, event, type, status) \
                 {numbers} SELECT {account}, id, {endpoint}, event, '{EVENT}', {status} FROM {n}"
            ),
            format!(
                "INSERT INTO queue (account, delivery, endpoint, event, size, due_at) \
                 {numbers} SELECT {account}, id, {endpoint}, event, 2, 0 FROM {n} WHERE n <= {held}"
            ),
            format!(
                "INSERT INTO counters (account, endpoint, shard, total) \
                 SELECT {account}, {endpoint}, 0, {total} UNION ALL SELECT {account}, 0, 0, {total}"
            ),
        ]
    } else {
        vec![
            format!(
                "INSERT INTO events (id, account, type, occurred_at, deliveries) \
                 {numbers} SELECT event, {account}, '{EVENT}', 0, 1 FROM {n}"
            ),
            format!("INSERT INTO payloads (event, body) {numbers} SELECT event, '{{}}' FROM {n}"),
            format!(
                "INSERT INTO deliveries (id, endpoint, event, status, due_at) \
                 {numbers} SELECT id, {endpoint}, event, {status}, CASE WHEN n <= {held} THEN 0 END FROM {n}"
            ),
            format!("UPDATE accounts SET events_total = events_total + {total}"),
        ]
    };
    sql.push("UPDATE endpoints SET status = 1".into());
    crate::database::execute(f.folder(), &sql.join("; ")).await;
}

#[tokio::test]
async fn a_round_goes_on_behind_what_a_paused_endpoint_holds() {
    let mut f = Fixture::new().await;
    f.endpoint().await;
    old_rows(&f, 6_000, 2_000).await;
    f.clock.advance(DAY * 4);
    if !crate::database::is_postgres() {
        // The embedded store counts and lists at its start what it did not write itself.
        f = f.restarted().await;
    }
    let positions =
        crate::fixture::purge(&f.store, Retention { deliveries: Some(DAY), payloads: None }, f.clock.now()).await;
    assert!(positions.windows(2).all(|pair| pair[0] < pair[1]), "no row is looked at twice: {positions:?}");
    // Three looks of 2,000 rows and four steps of 500 that go, for deliveries and for events; then bodies, 500 at a
    // time.
    assert!(positions.len() <= 2 * (3 + 5) + 18, "{}: {positions:?}", positions.len());
    let left = |sql| crate::database::number(f.folder(), sql);
    assert_eq!(left("SELECT count(*) FROM deliveries").await, 6_000, "deliveries of a paused endpoint stay");
    assert_eq!(left("SELECT count(*) FROM events").await, 6_000);
    assert_eq!(left("SELECT count(*) FROM payloads").await, 6_000);
}

/// What is held by a paused endpoint was read again in each step.
#[tokio::test]
async fn retention_by_rows_reads_what_stays_once_in_a_round() {
    if !crate::database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    f.endpoint().await;
    old_rows(&f, 20_000, 10_000).await;
    f.clock.advance(DAY * 4);
    let read = "SELECT coalesce(sum(idx_tup_fetch + seq_tup_read), 0)::bigint FROM pg_stat_user_tables \
                WHERE relname LIKE 'deliveries%'";
    purge(&f, Retention { deliveries: Some(DAY), payloads: None }).await;
    let gone = "SELECT coalesce(sum(n_tup_del), 0)::bigint FROM pg_stat_user_tables WHERE relname LIKE 'events%'";
    // The database counts a little later.
    crate::app::eventually("the count of rows", || async {
        (crate::database::number(f.folder(), gone).await >= 10_000).then_some(())
    })
    .await;
    let read = crate::database::number(f.folder(), read).await;
    assert!(read < 10 * 30_000, "each row is read a few times, and not once in each of 20 steps: {read} rows");
}

#[tokio::test]
async fn a_kind_of_housekeeping_that_fails_is_told_and_stops_no_other() {
    let app = App::start().await;
    app.publish(json!({})).await;
    let (refuse, allow, token) = if crate::database::is_postgres() {
        (
            "CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$; \
             CREATE TRIGGER refused BEFORE DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION refused()",
            "DROP TRIGGER refused ON audit_log",
            r"'\x01'",
        )
    } else {
        (
            "CREATE TRIGGER refused BEFORE DELETE ON audit_log BEGIN SELECT RAISE(ABORT, 'refused'); END; \
             PRAGMA foreign_keys = OFF",
            "DROP TRIGGER refused",
            "X'01'",
        )
    };
    // An old entry that cannot be removed, and a session that has ended.
    let sql = format!(
        "INSERT INTO audit_log (id, action, actor, resource, resource_id, fields, created_at) \
         SELECT id, 'x', 'x', 'x', 'x', '', 0 FROM accounts; {refuse}; \
         INSERT INTO sessions (token, owner, seen_at, expires_at) VALUES ({token}, 1, 0, 0)"
    );
    let folder = app.stop().await;
    crate::database::execute(folder.path(), &sql).await;
    let app = App::again(folder).await;
    crate::app::eventually("the end of the first round", || async {
        let gone = crate::database::number(app.folder(), "SELECT count(*) FROM sessions").await == 0;
        (gone && app.metric("housekeeping_failures_total").await == 1).then_some(())
    })
    .await;
    assert_eq!(app.metric("housekeeping_last_success_timestamp_seconds").await, 0);
    let folder = app.stop().await;
    crate::database::execute(folder.path(), allow).await;
    let app = App::again(folder).await;
    crate::app::eventually("a round without a failure", || async {
        (app.metric("housekeeping_last_success_timestamp_seconds").await > 1_700_000_000).then_some(())
    })
    .await;
    assert_eq!(app.metric("housekeeping_failures_total").await, 0);
    // The oldest day began today, or the event was accepted a moment ago.
    assert!(app.metric("retention_oldest_day_seconds").await <= 2 * 86_400);
}

#[tokio::test]
async fn the_file_is_bounded_by_what_is_kept() {
    if crate::database::is_postgres() {
        return;
    }
    let mut f = Fixture::new().await;
    f.endpoint().await;
    let mut pages = Vec::new();
    for _ in 0..6 {
        for _ in 0..3 {
            f.store.accept((0..500).map(|n| f.event(n)).collect(), None).await.expect("accepted");
            let jobs = f.jobs(500).await;
            let done = jobs.iter().map(|leased| settlement(leased, 200)).collect();
            f.store.settle(Arc::new(done), Isolation::Shared).await.expect("settled");
        }
        f.clock.advance(DAY);
        purge(&f, Retention { deliveries: Some(DAY), payloads: None }).await;
        pages.push(crate::database::number(f.folder(), "SELECT page_count FROM pragma_page_count").await);
    }
    assert!(pages[5] <= pages[1] * 11 / 10, "the space of what has gone is used again: {pages:?}");
}

/// The bytes of the write-ahead log after so many events by each of 8 publishers.
async fn log_of_a_load(f: Arc<Fixture>, each: u32) -> u64 {
    let publishers: Vec<_> = (0..8)
        .map(|_| {
            let f = f.clone();
            tokio::spawn(async move {
                for n in 0..each {
                    f.store.accept(vec![f.event(n)], None).await.expect("accepted");
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.expect("published");
    }
    std::fs::metadata(f.folder().join("aldaba.db-wal")).expect("a log").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_ahead_log_begins_anew_while_others_go_on_writing() {
    if crate::database::is_postgres() {
        return;
    }
    let log = log_of_a_load(Arc::new(Fixture::new().await), 1_000).await;
    assert!(log < 20 << 20, "the log has {log} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_who_take_turns_do_not_let_the_write_ahead_log_grow_without_end() {
    if crate::database::is_postgres() {
        return;
    }
    let f = Arc::new(Fixture::new().await);
    let (path, stop) = (f.folder().join("aldaba.db"), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let reading = std::thread::spawn(move || {
        let readers = [(); 2].map(|()| rusqlite::Connection::open(&path).expect("opens"));
        let begin = |reader: usize| readers[reader].execute_batch("BEGIN; SELECT key FROM accounts").expect("reads");
        begin(0);
        // Each begins before the one before it ends: somebody always reads.
        for turn in (0..2).cycle().take_while(|_| !stopped.load(atomic::Ordering::SeqCst)) {
            begin(1 - turn);
            readers[turn].execute_batch("COMMIT").expect("ends");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let log = log_of_a_load(f, 3_000).await;
    stop.store(true, atomic::Ordering::SeqCst);
    reading.join().expect("read");
    assert!(log < 64 << 20, "the log has {log} bytes");
}
