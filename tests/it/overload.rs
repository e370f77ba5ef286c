//! What some endpoints and calls can take of the server, and what is left for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::app::{App, Call, EVENT, Receiver, Reply, eventually};
use crate::command_line::printed;
use crate::crash::Server;
use crate::database;

/// Nothing that hangs is given up while the test looks.
const NEVER: (&str, &str) = ("WEBHOOKS__TIMEOUT", "2m");

/// The numbers of the events that have arrived.
fn numbers(receiver: &Receiver) -> Vec<u64> {
    let number = |body: &[u8]| {
        let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        body["data"]["n"].as_u64().expect("a number")
    };
    receiver.received().iter().map(|request| number(&request.body)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_begin_to_hang_while_they_are_busy_do_not_stop_another_one() {
    const PROVIDER: usize = 16;
    const EVENTS: usize = 100;
    let app = App::with(&[NEVER]).await;
    let (provider, other) = (Receiver::start().await, Receiver::start().await);
    for _ in 0..PROVIDER {
        app.endpoint(&provider.url()).await;
    }
    app.endpoint(&other.url()).await;
    // All are healthy, busy and known.
    for n in 0..200 {
        app.publish(json!({ "n": n })).await;
    }
    other.wait_for(200).await;
    provider.wait_for(200 * PROVIDER).await;
    provider.always(Reply::Hang);
    for n in 0..EVENTS {
        app.publish(json!({ "n": n })).await;
    }
    other.wait_for(200 + EVENTS).await;
    assert_eq!(app.metric("attempts_failed_total").await, 0, "the others still hang");
}

/// Events whose write took long were answered 503 and stored all the same: who published them again published them
/// twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_were_refused_because_they_waited_too_long_are_not_stored_and_others_are_answered() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NULL; \
                END $$; CREATE TRIGGER slow AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION slow()";
    database::execute(app.folder(), slow).await;
    // The first is written alone, the others together after it, or after those: 3, 6 and 9 s.
    let mut calls = tokio::task::JoinSet::new();
    let event = json!({ "event": EVENT, "data": { "text": "x".repeat(200_000) } });
    let batch = json!({ "events": vec![event; 30] });
    // Calls of one account would wait for each other.
    let (_, second) = app.stranger().await;
    let (_, third) = app.stranger().await;
    for key in [&app.key, &second, &third] {
        calls.spawn(Call::new(app.address, "POST", "/v1/events/batch").bearer(key).json(&batch).send());
    }
    let answers = calls.join_all().await;
    let accepted = answers.iter().filter(|answer| answer.status == 202).count();
    assert!(answers.iter().all(|answer| [202, 503].contains(&answer.status)));
    // What was before it in the queue has been written, or never will be.
    app.publish(json!({})).await;
    let stored = database::number(app.folder(), "SELECT count(*) FROM events").await;
    assert_eq!(stored, 30 * i64::try_from(accepted).expect("some") + 1, "{accepted} batches were accepted");
    assert!(accepted >= 2, "what the writer had begun with is answered");
}

/// The writer served calls in the order in which they came, whoever made them: another account waited behind all of
/// these. Each is one commit, so that later it still waited behind one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_publishes_many_batches_at_once_lets_others_publish() {
    const BATCHES: usize = 3;
    let app = App::with(&[NEVER, ("WEBHOOKS__MAX_IN_FLIGHT", "64")]).await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Hang);
    for n in 0..50 {
        // What an endpoint misses is a row, as a delivery is.
        let status = if n < 10 { "active" } else { "disabled" };
        let endpoint = json!({ "url": receiver.url(), "events": [EVENT], "status": status });
        app.post("/v1/webhooks", endpoint).await.expect(201);
    }
    let (_, other) = app.stranger().await;
    let event = json!({ "event": EVENT, "data": {} });
    let batch = Arc::new(json!({ "events": vec![event.clone(); 400] }));
    let written = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let mut attack = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (address, key, batch) = (app.address, app.key.clone(), batch.clone());
        let (written, ended) = (written.clone(), ended.clone());
        attack.spawn(async move {
            while !ended.load(Ordering::SeqCst) {
                let call = Call::new(address, "POST", "/v1/events/batch").bearer(&key).json(&batch);
                // Calls of the account wait for each other, and are told when that takes too long.
                let status = call.send().await.status;
                assert!([202, 503].contains(&status), "{status}");
                written.fetch_add(usize::from(status == 202), Ordering::SeqCst);
            }
        });
    }
    // The first ones come in together: nobody knows yet how many rows they make.
    eventually("batches", || async { (written.load(Ordering::SeqCst) >= 4).then_some(()) }).await;
    let (before, mut published) = (written.load(Ordering::SeqCst), 0);
    while written.load(Ordering::SeqCst) < before + BATCHES {
        Call::new(app.address, "POST", "/v1/events").bearer(&other).json(&event).send().await.expect(202);
        published += 1;
    }
    app.get("/readyz").await.expect(200);
    ended.store(true, Ordering::SeqCst);
    assert!(published >= 10 * BATCHES, "{published} events of another account beside {BATCHES} batches");
    attack.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_endpoints_with_large_bodies_leave_memory_to_another_account_whose_events_stay_in_order() {
    const SLOW: usize = 150;
    const EVENTS: u64 = 100;
    let app = App::with(&[NEVER, ("WEBHOOKS__MAX_ENDPOINTS", "200")]).await;
    let (slow, other) = (Receiver::start().await, Receiver::start().await);
    for _ in 0..SLOW {
        app.endpoint(&slow.url()).await;
    }
    let (_, key) = app.stranger().await;
    let endpoint = json!({ "url": other.url(), "events": [EVENT] });
    app.call("POST", "/v1/webhooks").bearer(&key).json(&endpoint).send().await.expect(201);
    slow.always(Reply::Hang);
    let text = "x".repeat(250_000);
    for n in 0..12 {
        app.publish(json!({ "n": n, "text": text })).await;
    }
    slow.wait_for(SLOW).await;
    for n in 0..EVENTS {
        let event = json!({ "event": EVENT, "data": { "n": n, "text": "x".repeat(1_000) } });
        app.call("POST", "/v1/events").bearer(&key).json(&event).send().await.expect(202);
    }
    eventually("every event of the other account", || async {
        (other.received().len() as u64 == EVENTS).then_some(())
    })
    .await;
    let arrived = numbers(&other);
    // Many are sent at the same time, so that one may come somewhat later than those after it.
    let late = (0_u64..).zip(&arrived).filter(|(place, number)| *place > *number + 32).count();
    assert_eq!(late, 0, "none passes those that were accepted long before it: {arrived:?}");
    assert_eq!(app.metric("attempts_failed_total").await, 0, "the others are still under way");
}

/// Another account, and a receiver of an endpoint of the account.
async fn other_account(app: &App) -> (String, Receiver) {
    let ((_, key), receiver) = (app.stranger().await, Receiver::start().await);
    register(app, &key, &receiver).await;
    (key, receiver)
}

async fn register(app: &App, key: &str, receiver: &Receiver) {
    let endpoint = json!({ "url": receiver.url(), "events": [EVENT] });
    app.call("POST", "/v1/webhooks").bearer(key).json(&endpoint).send().await.expect(201);
}

async fn publish_as(app: &App, key: &str, n: usize) {
    let event = json!({ "event": EVENT, "data": { "n": n } });
    app.call("POST", "/v1/events").bearer(key).json(&event).send().await.expect(202);
}

/// Waits until so many attempts have been counted by this metric.
async fn attempts(app: &App, name: &str, count: u64) {
    eventually(&format!("{count} of {name}"), || async { (app.metric(name).await == count).then_some(()) }).await;
}

/// Attempts that had begun at prompt endpoints counted towards the part of unhealthy ones when they hung: endpoints of
/// another account that were new, or had failed once, were not attempted until the timeouts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_of_one_account_that_begin_to_hang_leave_requests_for_any_endpoint_of_another() {
    const ENDPOINTS: usize = 16;
    const WARM: usize = 20;
    const EVENTS: usize = 20;
    let app = App::with(&[NEVER, ("WEBHOOKS__MAX_IN_FLIGHT", "64")]).await;
    let provider = Receiver::start().await;
    for _ in 0..ENDPOINTS {
        app.endpoint(&provider.url()).await;
    }
    for n in 0..WARM {
        app.publish(json!({ "n": n })).await;
    }
    attempts(&app, "attempts_delivered_total", (ENDPOINTS * WARM) as u64).await;
    provider.always(Reply::Hang);
    for n in 0..10 {
        app.publish(json!({ "n": n })).await;
    }
    provider.wait_for(ENDPOINTS * (WARM + 1)).await;
    let (key, flaky) = other_account(&app).await;
    flaky.script([Reply::Status(500)]);
    publish_as(&app, &key, 0).await;
    attempts(&app, "attempts_failed_total", 1).await;
    // After a second, what hangs is no longer prompt.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let fresh = Receiver::start().await;
    register(&app, &key, &fresh).await;
    for n in 1..=EVENTS {
        publish_as(&app, &key, n).await;
    }
    flaky.wait_for(1 + EVENTS).await;
    fresh.wait_for(EVENTS).await;
    assert_eq!(app.metric("attempts_failed_total").await, 1, "the others still hang");
}

/// Memory that endpoints took while they were prompt counted as if slow ones had it: an endpoint of another account
/// that had failed once found none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_of_one_account_that_begin_to_hang_leave_memory_for_any_endpoint_of_another() {
    const ENDPOINTS: usize = 50;
    const EVENTS: usize = 20;
    let app = App::with(&[NEVER, ("RATE_LIMITS__EVENTS_CREATE", "off")]).await;
    let provider = Receiver::start().await;
    for _ in 0..ENDPOINTS {
        app.endpoint(&provider.url()).await;
    }
    let (key, flaky) = other_account(&app).await;
    app.publish(json!({})).await;
    attempts(&app, "attempts_delivered_total", ENDPOINTS as u64).await;
    flaky.script([Reply::Status(500)]);
    publish_as(&app, &key, 0).await;
    attempts(&app, "attempts_failed_total", 1).await;
    provider.always(Reply::Hang);
    // 15,000 deliveries.
    let batch = json!({ "events": vec![json!({ "event": EVENT, "data": {} }); 100] });
    for _ in 0..3 {
        app.post("/v1/events/batch", batch.clone()).await.expect(202);
    }
    provider.wait_for(2 * ENDPOINTS).await;
    let fresh = Receiver::start().await;
    register(&app, &key, &fresh).await;
    for n in 1..=EVENTS {
        publish_as(&app, &key, n).await;
    }
    flaky.wait_for(1 + EVENTS).await;
    fresh.wait_for(EVENTS).await;
    assert_eq!(app.metric("attempts_failed_total").await, 1, "the others still hang");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_sends_large_batches_slowly_leaves_memory_to_another_one() {
    let app = App::start().await;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut stream = crate::local_faults::connect(app.address).await;
        let head = format!(
            "POST /v1/events/batch HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
             content-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
            app.key,
            8 << 20
        );
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.expect("written");
        stalled.push(stream);
    }
    let (_, key) = app.stranger().await;
    let event = json!({ "event": EVENT, "data": { "text": "x".repeat(200_000) } });
    let began = Instant::now();
    for _ in 0..3 {
        let batch = format!("{event}\n").repeat(30);
        let call = app.call("POST", "/v1/events/batch").bearer(&key).header("content-type", "application/x-ndjson");
        call.body(batch).send().await.expect(202);
    }
    // A body that does not arrive is given up after 30 s: the others have not waited for that.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn many_large_batches_at_once_take_bounded_memory_and_hold_up_no_other_call() {
    const BATCHES: usize = 96;
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    let account = printed(folder.path(), &["accounts", "create", "a"]);
    let key = Arc::new(printed(folder.path(), &["keys", "create", "--account", &account]));
    let event = json!({ "event": EVENT, "data": { "text": "x".repeat(250_000) } });
    let batch: Arc<str> = format!("{event}\n").repeat(33).into();
    let (before, _) = server.memory();
    let ended = Arc::new(AtomicBool::new(false));
    let others = tokio::spawn({
        let (address, key, ended) = (server.address, key.clone(), ended.clone());
        async move {
            let mut slowest = Duration::ZERO;
            while !ended.load(Ordering::SeqCst) {
                let began = Instant::now();
                let event = json!({ "event": EVENT, "data": {} });
                let call = Call::new(address, "POST", "/v1/events").bearer(&key).json(&event);
                call.send().await.expect(202);
                slowest = slowest.max(began.elapsed());
            }
            slowest
        }
    });
    let mut batches = tokio::task::JoinSet::new();
    for _ in 0..BATCHES {
        let (address, key, batch) = (server.address, key.clone(), batch.clone());
        batches.spawn(async move {
            let call = Call::new(address, "POST", "/v1/events/batch").bearer(&key);
            let call = call.header("content-type", "application/x-ndjson").body(batch.as_bytes());
            call.send().await.status
        });
    }
    let answers = batches.join_all().await;
    ended.store(true, Ordering::SeqCst);
    let slowest = others.await.expect("no panic");
    let (_, most) = server.memory();
    assert!(answers.iter().all(|status| [202, 503].contains(status)), "{answers:?}");
    let accepted = answers.iter().filter(|status| **status == 202).count();
    eprintln!("{accepted} of {BATCHES} accepted, {} MiB more, another publish waited {slowest:?}", most - before);
    // After each the account pauses, and what finds no memory for its body within 30 s is refused.
    assert!(accepted > BATCHES / 3, "{accepted}");
    assert!(most - before < 300, "{before} MiB before and {most} at most");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    if !database::is_postgres() {
        let log = folder.path().join("aldaba.db-wal");
        eventually("the log to be cut", || async {
            (std::fs::metadata(&log).expect("a log").len() < 128 << 20).then_some(())
        })
        .await;
    }
}
