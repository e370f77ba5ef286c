//! What one account or one network may take of test sends, of the steps of replays, of the hashing of passwords and of
//! the writer, and what is left for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aldaba::store::{Accounts as _, Calls as _, Intake as _, ReplyScope, StoreError, StoredReply};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::app::{Answer, App, Call, EVENT, Receiver, Reply, eventually};
use crate::fixture::{Fixture, event};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_sends_of_one_account_that_hang_leave_slots_for_another() {
    // An eighth of it is for tests: eight at once.
    let app = App::with(&[("WEBHOOKS__MAX_IN_FLIGHT", "64"), ("WEBHOOKS__TIMEOUT", "2m")]).await;
    let (hanging, other) = (Receiver::start().await, Receiver::start().await);
    hanging.always(Reply::Hang);
    let mut tests = JoinSet::new();
    for _ in 0..16 {
        let (id, _) = app.endpoint(&hanging.url()).await;
        tests.spawn(app.call("POST", &format!("/v1/webhooks/{id}/test")).send());
    }
    hanging.wait_for(4).await;
    // Four hang: those for which there was no slot are answered.
    for _ in 0..12 {
        let refused = tests.join_next().await.expect("a test").expect("no panic");
        let refused = refused.refused(503, "unavailable", "");
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(
            refused.json["errors"][0]["meta"]["reason"],
            "too many test deliveries of this account are under way"
        );
    }
    let (_, key) = app.stranger().await;
    let endpoint = json!({ "url": other.url(), "events": [EVENT] });
    let made = app.call("POST", "/v1/webhooks").bearer(&key).json(&endpoint).send().await.expect(201);
    let path = format!("/v1/webhooks/{}/test", made.id());
    let told = app.call("POST", &path).bearer(&key).send().await.expect(200);
    assert_eq!(told.attribute("delivered"), true);
    assert_eq!(tests.len(), 4, "they still hang");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_with_many_open_replays_delays_no_replay_of_another() {
    const REPLAYS: u64 = 100;
    let app = Arc::new(App::with(&[("WEBHOOKS__MAX_ENDPOINTS", "100")]).await);
    let (many, other) = (Receiver::start().await, Receiver::start().await);
    let event = json!({ "event": EVENT, "data": {} });
    app.post("/v1/events/batch", json!({ "events": vec![event.clone(); 300] })).await.expect(202);
    let all = json!({ "from": "2026-01-01", "status": "all" });
    // More calls of one account at a time would be refused.
    let at_a_time = Arc::new(Semaphore::new(20));
    let mut asking = JoinSet::new();
    for _ in 0..REPLAYS {
        let (app, all, url, at_a_time) = (app.clone(), all.clone(), many.url(), at_a_time.clone());
        asking.spawn(async move {
            let _permit = at_a_time.acquire_owned().await;
            let (endpoint, _) = app.endpoint(&url).await;
            let path = format!("/v1/webhooks/{endpoint}");
            app.put(&path, json!({ "status": "disabled" })).await.expect(200);
            app.replay(&endpoint, all).await;
            path
        });
    }
    let paths = asking.join_all().await;
    let (_, key) = app.stranger().await;
    let call = |method: &str, path: &str| app.call(method, path).bearer(&key);
    for _ in 0..2 {
        call("POST", "/v1/events").json(&event).send().await.expect(202);
    }
    let endpoint = json!({ "url": other.url(), "events": [EVENT] });
    let endpoint = call("POST", "/v1/webhooks").json(&endpoint).send().await.expect(201).id();
    // All of them go on at once.
    let mut resuming = JoinSet::new();
    for path in &paths {
        let (resume, at_a_time) = (app.call("PUT", path).json(&json!({ "status": "active" })), at_a_time.clone());
        resuming.spawn(async move {
            let _permit = at_a_time.acquire_owned().await;
            resume.send().await
        });
    }
    for resumed in resuming.join_all().await {
        resumed.expect(200);
    }
    let replay = call("POST", &format!("/v1/webhooks/{endpoint}/replay")).json(&all).send().await.expect(202).id();
    let replay = format!("/v1/webhooks/replays/{replay}");
    eventually("the other account's replay", || async {
        let found = call("GET", &replay).send().await.expect(200);
        (found.attribute("status") == "completed").then_some(())
    })
    .await;
    assert_eq!(other.received().len(), 2);
    // A first step makes 256 deliveries. If each of the replays had had one before, they would be all there.
    let made = app.get("/v1/webhooks/deliveries?per_page=1").await.expect(200);
    let made = made.json["meta"]["pagination"]["total"].as_u64().expect("a number");
    assert!(made < REPLAYS * 256 / 2, "{made} deliveries were made before those of the other account");
}

async fn sign_in(app: &App, from: &str) -> Answer {
    let form = "email=nobody%40example.com&password=wrong+but+long+enough";
    let call = Call::new(app.address, "POST", "/sign-in").header("x-forwarded-for", from);
    call.header("content-type", "application/x-www-form-urlencoded").body(form).send().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_network_that_signs_in_all_the_time_keeps_nobody_else_out() {
    let app = Arc::new(App::with(&[("TRUSTED_PROXIES", "127.0.0.1")]).await);
    let (over, mut attacking) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for n in 0..60 {
        let (app, over) = (app.clone(), over.clone());
        attacking.spawn(async move {
            let (mut tried, mut refused) = (0, 0);
            while !over.load(Ordering::SeqCst) {
                // Each in a /64 of its own, all in one /48.
                let answer = sign_in(&app, &format!("2001:db8:7:{n:x}::1")).await;
                tried += 1;
                if answer.status == 503 {
                    refused += 1;
                    assert_eq!(answer.header("retry-after"), "1");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            (tried, refused)
        });
    }
    let begin = Instant::now();
    eventually("the attack to fill its share", || async {
        (sign_in(&app, "2001:db8:7:ffff::1").await.status == 503).then_some(())
    })
    .await;
    let mut times = Vec::new();
    for from in ["192.0.2.1", "2001:db8:8::1", "198.51.100.7", "2001:db8:9::1"].repeat(3) {
        let begin = Instant::now();
        assert_eq!(sign_in(&app, from).await.status, 401, "{from}");
        times.push(begin.elapsed());
    }
    over.store(true, Ordering::SeqCst);
    let attacks = attacking.join_all().await;
    let (tried, refused) = attacks.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    times.sort();
    println!("others: longest {:?}; the network: {tried} tried, {refused} refused in {:?}", times[11], begin.elapsed());
    assert!(refused > 0);
}

/// A refusal of a batch lists all faults, and is stored for a day: each took the writer as long as thousands of events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_whose_large_refusals_are_stored_leaves_most_of_the_writers_time_to_others() {
    const REPLIES: usize = 8;
    let f = Fixture::new().await;
    let other = f.store.create_account("other".into(), None).await.expect("an account").id;
    let (stored, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut attack = JoinSet::new();
    for task in 0..3 {
        let (store, account, stored, ended) = (f.store.clone(), f.account, stored.clone(), ended.clone());
        attack.spawn(async move {
            let mut calls = 0;
            while !ended.load(Ordering::SeqCst) {
                calls += 1;
                let (path, key) = ("/v1/events/batch".into(), format!("{task}-{calls}"));
                let scope = ReplyScope { account: Some(account), path, key };
                let body = vec![b'x'; 4 << 20];
                let reply = StoredReply { body_hash: [0; 32], status: 422, request_id: "r".into(), body };
                match store.store_reply(scope, reply).await {
                    Ok(()) => _ = stored.fetch_add(1, Ordering::SeqCst),
                    Err(error) => assert_eq!(error, StoreError::Busy),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    let mut published = 0;
    while stored.load(Ordering::SeqCst) < REPLIES {
        f.store.accept(vec![event(other, published)], None).await.expect("accepted");
        published += 1;
    }
    ended.store(true, Ordering::SeqCst);
    attack.join_all().await;
    assert!(published as usize >= 4 * REPLIES, "{published} events of another account beside {REPLIES} replies");
}
