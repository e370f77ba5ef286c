//! What one account's reads can take of the database, and what is left for other accounts and for `/readyz`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::app::{App, Call, EVENT, Receiver, eventually};
use crate::database;

/// Clients that search at the same time.
const CLIENTS: usize = 64;

/// Deliveries that each search reads.
const ROWS: u32 = 200_000;

/// How long a call of another account may take meanwhile. A call that waits for all searches takes several times as
/// long.
const PROMPT: Duration = Duration::from_secs(2);

/// A search that finds nothing reads every delivery of the account.
const SEARCH: &str = "/v1/webhooks/deliveries?q=nothing-has-this-text";

/// A server whose first account has many deliveries.
async fn app_with_many_deliveries() -> App {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let first = app.delivery(&endpoint, "success").await["id"].as_str().expect("an id").to_owned();
    if !database::is_postgres() {
        eventually("the delivery to be listed", || async {
            let listed = database::number(app.folder(), "SELECT COUNT(*) FROM delivery_lists").await;
            (listed == 1).then_some(())
        })
        .await;
    }
    database::add_deliveries(app.folder(), &first, (1, ROWS), 2).await;
    app
}

/// Clients that search with the account's key until they are dropped.
fn search_all_the_time(app: &App) -> JoinSet<()> {
    let key: Arc<str> = app.key.as_str().into();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (address, key) = (app.address, key.clone());
        clients.spawn(async move {
            loop {
                Call::new(address, "GET", SEARCH).bearer(&key).try_send().await;
            }
        });
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_searches_all_the_time_holds_up_no_other_account_and_not_readyz() {
    let app = app_with_many_deliveries().await;
    let (_, key) = app.stranger().await;
    let clients = search_all_the_time(&app);
    eventually("searches that wait", || async { (app.metric("database_reads_waiting").await > 16).then_some(()) })
        .await;
    let mut times = Vec::new();
    for round in 0..200 {
        let event = json!({ "event": EVENT, "data": {} });
        let publish = Call::new(app.address, "POST", "/v1/events").json(&event);
        for (call, status) in [
            (Call::new(app.address, "GET", "/v1/webhooks/deliveries"), 200),
            (Call::new(app.address, "GET", "/v1/webhooks/deliveries?q=x"), 200),
            (publish.header("idempotency-key", &format!("key-{round}")), 202),
            (Call::new(app.address, "GET", "/readyz"), 200),
        ] {
            let began = Instant::now();
            call.bearer(&key).send().await.expect(status);
            times.push(began.elapsed());
        }
    }
    times.sort_unstable();
    let of = |percent| times[(times.len() - 1) * percent / 100];
    eprintln!("another account's calls: median {:?}, p99 {:?}, slowest {:?}", of(50), of(99), of(100));
    assert!(of(100) < PROMPT, "{:?}", of(100));
    drop(clients);
    let left = Instant::now();
    eventually("idle readers", || async {
        let reads = app.metric("database_reads_in_use").await + app.metric("database_reads_waiting").await;
        (reads == 0).then_some(())
    })
    .await;
    assert!(left.elapsed() < PROMPT, "{:?}", left.elapsed());
}

/// Connections of the server that wait for a lock.
async fn waiting_for_locks(observer: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    observer.query_one(sql, &[]).await.expect("a row").get(0)
}

/// On SQLite the test in `store/sqlite/readers.rs` holds the same, with a read without an end.
#[tokio::test]
async fn a_search_whose_client_has_left_ends_long_before_its_timeout() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let url = database::url(app.folder());
    let (holder, observer) = (database::connect(&url).await, database::connect(&url).await);
    // Nothing reads for longer than what waits for a lock.
    holder.batch_execute("BEGIN; LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE").await.expect("locked");
    for method in ["GET", "GET", "HEAD"] {
        let search = tokio::spawn(app.call(method, SEARCH).try_send());
        eventually("a search that waits", || async { (waiting_for_locks(&observer).await > 0).then_some(()) }).await;
        let left = Instant::now();
        search.abort();
        eventually("its end", || async { (waiting_for_locks(&observer).await == 0).then_some(()) }).await;
        // The search itself would be ended after 2 s.
        assert!(left.elapsed() < Duration::from_millis(1_500), "{:?}", left.elapsed());
    }
    eventually("idle readers", || async { (app.metric("database_reads_in_use").await == 0).then_some(()) }).await;
    holder.batch_execute("ROLLBACK").await.expect("unlocked");
    app.get(SEARCH).await.expect(200);
}

/// On SQLite the test in `api/lookups.rs` holds the same, with look-ups without an end.
#[tokio::test]
async fn unknown_sessions_of_one_address_that_hang_leave_look_ups_to_another() {
    if !database::is_postgres() {
        return;
    }
    let app = App::with(&[("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let links = format!("/v1/accounts/{}/portal-links", app.account);
    let new = json!({ "permissions": ["webhooks:read"] });
    let made = app.call("POST", &links).bearer(&app.operator).json(&new).send().await.expect(201);
    let url = made.attribute("url").as_str().expect("an address").to_owned();
    let portal = format!("{}/endpoints", url.split_once("localhost").expect("our address").1);
    let page = |from: &str, path: &str| {
        Call::new(app.address, "GET", path).header("x-forwarded-for", from).header("accept", "text/html")
    };
    let holder = database::connect(&database::url(app.folder())).await;
    holder.batch_execute("BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE").await.expect("locked");
    let mut flood = JoinSet::new();
    for n in 0..200 {
        let unknown = format!("aldaba_session={n:064x}");
        flood.spawn(page("203.0.113.1", "/me").header("cookie", &unknown).send());
    }
    // Those beyond the share of the address, while the others hang.
    let refused = flood.join_next().await.expect("a request").expect("no panic").expect(503);
    assert_eq!(refused.header("retry-after"), "1");
    for _ in 0..10 {
        let began = Instant::now();
        page("198.51.100.7", &portal).send().await.expect(200);
        // An unknown key is refused, and what cannot be a key needs no look-up.
        let unknown = Call::new(app.address, "GET", "/v1/webhooks").header("x-forwarded-for", "198.51.100.7");
        unknown.bearer(&format!("mxcep_{}", "0".repeat(64))).send().await.refused(401, "unauthorized", "");
        let nobody = Call::new(app.address, "GET", "/v1/webhooks").header("x-forwarded-for", "203.0.113.1");
        nobody.bearer("nobody").send().await.refused(401, "unauthorized", "");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    holder.batch_execute("ROLLBACK").await.expect("unlocked");
}

#[tokio::test]
async fn an_account_whose_changes_wait_for_a_lock_leaves_connections_to_another_one() {
    if !database::is_postgres() {
        // One thread makes all changes, and waits for none.
        return;
    }
    let app = App::start().await;
    let (endpoint, _) = app.endpoint("http://127.0.0.1:9/").await;
    let (_, key) = app.stranger().await;
    let holder = database::connect(&database::url(app.folder())).await;
    holder.batch_execute("BEGIN; SELECT 1 FROM endpoints FOR UPDATE").await.expect("locked");
    let mut changes = JoinSet::new();
    for _ in 0..CLIENTS {
        let path = format!("/v1/webhooks/{endpoint}");
        changes.spawn(app.call("PUT", &path).json(&json!({ "description": "changed" })).try_send());
    }
    eventually("changes that wait", || async { (app.metric("database_calls_waiting").await > 32).then_some(()) }).await;
    for round in 0..10 {
        let event = json!({ "event": EVENT, "data": {} });
        let publish = Call::new(app.address, "POST", "/v1/events").json(&event);
        for (call, status) in [
            (Call::new(app.address, "GET", "/v1/webhooks"), 200),
            (Call::new(app.address, "GET", "/v1/webhooks/deliveries"), 200),
            (publish.header("idempotency-key", &format!("key-{round}")), 202),
            (Call::new(app.address, "GET", "/readyz"), 200),
        ] {
            let began = Instant::now();
            call.bearer(&key).send().await.expect(status);
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
    }
    holder.batch_execute("ROLLBACK").await.expect("unlocked");
}
