//! Bodies that do not arrive: what one account can hold with them, and what is counted before a body is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::app::{Answer, App, Call, EVENT, PATIENCE};
use crate::command_line::printed;
use crate::crash::Server;
use crate::local_faults::connect;

/// The largest batch.
const BATCH: usize = 8 << 20;

/// The head of a publish with a body of this length.
fn head(path: &str, key: &str, length: usize, more: &str) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
         content-type: application/x-ndjson\r\ncontent-length: {length}\r\n{more}\r\n"
    );
    head.into_bytes()
}

/// Sends all of a body but its last byte, as far as the server takes it, and keeps the connection.
async fn stall(mut stream: TcpStream, head: Vec<u8>, body: Arc<[u8]>) -> TcpStream {
    let sending = async {
        stream.write_all(&head).await?;
        stream.write_all(&body[..body.len() - 1]).await
    };
    let _ = tokio::time::timeout(Duration::from_secs(60), sending).await;
    stream
}

/// What the server answers on this connection, to its end.
async fn answer(stream: &mut TcpStream, within: Duration) -> Option<String> {
    let mut text = String::new();
    tokio::time::timeout(within, stream.read_to_string(&mut text)).await.ok()?.ok()?;
    Some(text)
}

async fn publish(app: &App, key: &str, idempotency_key: &str) -> Answer {
    let call = app.call("POST", "/v1/events").bearer(key).header("idempotency-key", idempotency_key);
    call.json(&json!({ "event": EVENT, "data": {} })).send().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_accounts_whose_large_batches_stall_do_not_hold_up_a_batch_of_a_fourth() {
    let app = App::start().await;
    let body: Arc<[u8]> = vec![b'x'; BATCH].into();
    let mut stalling = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (_, key) = app.stranger().await;
        for _ in 0..4 {
            let stream = connect(app.address).await;
            stalling.spawn(stall(stream, head("/v1/events/batch", &key, BATCH, ""), body.clone()));
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (_, key) = app.stranger().await;
    let event = json!({ "event": EVENT, "data": { "text": "x".repeat(200_000) } });
    let batch = format!("{event}\n").repeat(30);
    let began = Instant::now();
    let call = app.call("POST", "/v1/events/batch").bearer(&key).header("content-type", "application/x-ndjson");
    call.body(batch).send().await.expect(202);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn past_the_limit_a_call_with_an_idempotency_key_is_refused_before_its_body_is_read() {
    let app = App::with(&[("RATE_LIMITS__EVENTS_CREATE", "1/60s")]).await;
    publish(&app, &app.key, "first").await.expect(202);
    let mut stream = connect(app.address).await;
    let more = "idempotency-key: second\r\nconnection: close\r\n";
    stream.write_all(&head("/v1/events", &app.key, 1_000, more)).await.expect("written");
    let answer = answer(&mut stream, Duration::from_secs(5)).await.expect("an answer although no body has come");
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
}

#[tokio::test]
async fn a_repeated_answer_gives_its_call_back_and_is_given_when_the_window_is_full() {
    let app = App::with(&[("RATE_LIMITS__EVENTS_CREATE", "2/60s")]).await;
    let first = publish(&app, &app.key, "first").await.expect(202);
    for _ in 0..5 {
        let again = publish(&app, &app.key, "first").await.expect(202);
        assert_eq!(again.header("idempotent-replayed"), "true");
    }
    publish(&app, &app.key, "second").await.expect(202);
    publish(&app, &app.key, "third").await.refused(429, "rate_limit_exceeded", "");
    let again = publish(&app, &app.key, "first").await.expect(202);
    assert_eq!(again.text, first.text);
    let other = app.call("POST", "/v1/events").header("idempotency-key", "first").json(&json!({ "event": EVENT }));
    other.send().await.refused(429, "rate_limit_exceeded", "");
}

#[tokio::test]
async fn repeated_answers_have_a_limit_of_their_own() {
    let app = App::with(&[("RATE_LIMITS__EVENTS_CREATE", "2/60s")]).await;
    publish(&app, &app.key, "first").await.expect(202);
    for _ in 0..20 {
        publish(&app, &app.key, "first").await.expect(202);
    }
    publish(&app, &app.key, "first").await.refused(429, "rate_limit_exceeded", "");
    let (_, key) = app.stranger().await;
    publish(&app, &key, "first").await.expect(202);
}

#[tokio::test]
async fn an_account_that_has_stored_what_it_may_in_a_window_publishes_no_more_of_it() {
    let app = App::with(&[("RATE_LIMITS__EVENTS_STORAGE", "40/60s")]).await;
    for endpoint in ["a", "b", "c"] {
        app.endpoint(&format!("http://127.0.0.1:9/{endpoint}")).await;
    }
    // Each takes 1 KiB for the body, 1 for its row and 3 for its deliveries.
    let batch = json!({ "events": vec![json!({ "event": EVENT, "data": {} }); 6] });
    app.post("/v1/events", json!({ "event": EVENT, "data": {} })).await.expect(202);
    app.post("/v1/events/batch", batch.clone()).await.expect(202);
    app.post("/v1/events/batch", batch.clone()).await.expect(202);
    let refused = app.post("/v1/events", json!({ "event": EVENT, "data": {} })).await;
    let refused = refused.refused(429, "rate_limit_exceeded", "");
    assert_eq!(refused.header("x-ratelimit-limit"), "40");
    assert!((1..=60).contains(&refused.header("retry-after").parse::<u32>().expect("seconds")));
    app.post("/v1/events/batch", batch.clone()).await.refused(429, "rate_limit_exceeded", "");
    assert_eq!(app.get("/v1/events").await.expect(200).json["meta"]["pagination"]["total"], 13);
    // By an operator's key it is the account's all the same; another account has its own.
    let mut event = json!({ "event": EVENT, "data": {}, "account_id": app.account.0.to_string() });
    let operator = |event: &serde_json::Value| app.call("POST", "/v1/events").bearer(&app.operator).json(event).send();
    operator(&event).await.refused(429, "rate_limit_exceeded", "");
    let (stranger, key) = app.stranger().await;
    app.call("POST", "/v1/events/batch").bearer(&key).json(&batch).send().await.expect(202);
    event["account_id"] = json!(stranger.0.to_string());
    operator(&event).await.expect(202);
    // What is stored already can still be read, and its endpoints changed.
    app.get("/v1/webhooks/deliveries").await.expect(200);
}

#[tokio::test]
async fn what_paused_endpoints_miss_counts_as_storage_of_their_account() {
    let app = App::with(&[("RATE_LIMITS__EVENTS_STORAGE", "10/1d")]).await;
    for n in 0..5 {
        let url = format!("http://127.0.0.1:9/{n}");
        let endpoint = json!({ "url": url, "events": [EVENT], "status": "disabled" });
        app.post("/v1/webhooks", endpoint).await.expect(201);
    }
    // Each takes 1 KiB for the body, 1 for its row and 5 for those who miss it.
    let event = json!({ "event": EVENT, "data": {} });
    assert_eq!(app.post("/v1/events", event.clone()).await.expect(202).attribute("deliveries"), 0);
    app.post("/v1/events", event.clone()).await.expect(202);
    app.post("/v1/events", event).await.refused(429, "rate_limit_exceeded", "");
}

#[tokio::test]
async fn the_keys_of_an_account_have_five_times_the_limit_of_a_bucket_together() {
    let app = App::with(&[("RATE_LIMITS__WEBHOOKS_LIST", "2/60s")]).await;
    let list = |key: String| async move { Call::new(app.address, "GET", "/v1/webhooks").bearer(&key).send().await };
    for _ in 0..5 {
        let key = crate::app::key(&app.store, Some(app.account), &[aldaba::domain::permission::Permission::All]).await;
        list(key.clone()).await.expect(200);
        list(key.clone()).await.expect(200);
        list(key).await.refused(429, "rate_limit_exceeded", "");
    }
    let refused = list(app.key.clone()).await.refused(429, "rate_limit_exceeded", "");
    assert_eq!(refused.header("x-ratelimit-limit"), "2");
    assert!((1..=60).contains(&refused.header("retry-after").parse::<u32>().expect("seconds")));
    let (_, key) = app.stranger().await;
    list(key).await.expect(200);
    app.get("/v1/webhooks/deliveries").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn stalled_bodies_of_one_account_take_bounded_memory_and_hold_up_no_other_account() {
    const LARGE: usize = 150;
    const ORDINARY: usize = 800;
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[]);
    let account = |name: &str| {
        let account = printed(folder.path(), &["accounts", "create", name]);
        printed(folder.path(), &["keys", "create", "--account", &account])
    };
    let (attacker, other) = (account("attacker"), account("other"));
    let (before, _) = server.memory();
    let large: Arc<[u8]> = vec![b'x'; BATCH].into();
    let ordinary: Arc<[u8]> = vec![b'x'; 256 << 10].into();
    let mut stalling = tokio::task::JoinSet::new();
    for n in 0..LARGE + ORDINARY {
        let (path, body) = if n < LARGE { ("/v1/events/batch", &large) } else { ("/v1/events", &ordinary) };
        let head = head(path, &attacker, body.len(), &format!("idempotency-key: k{n}\r\n"));
        stalling.spawn(stall(connect(server.address).await, head, body.clone()));
    }
    let ended = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn({
        let (address, ended) = (server.address, ended.clone());
        async move {
            let mut waited = Vec::new();
            while !ended.load(Ordering::SeqCst) {
                let began = Instant::now();
                let event = json!({ "event": EVENT, "data": {} });
                let answer = Call::new(address, "POST", "/v1/events").bearer(&other).json(&event).send().await;
                waited.push((began.elapsed(), answer.status));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            waited
        }
    });
    tokio::time::sleep(PATIENCE / 2).await;
    ended.store(true, Ordering::SeqCst);
    let mut waited = publishing.await.expect("no panic");
    let (_, most) = server.memory();
    waited.sort();
    let accepted = waited.iter().filter(|(_, status)| *status == 202).count();
    let p99 = waited[waited.len() * 99 / 100].0;
    let slowest = waited[waited.len() - 1].0;
    eprintln!("{} MiB more; {accepted} of {} accepted, p99 {p99:?}, slowest {slowest:?}", most - before, waited.len());
    assert_eq!(accepted, waited.len());
    assert!(most - before < 200, "{before} MiB before and {most} at most");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
