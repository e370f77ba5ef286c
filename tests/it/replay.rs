//! Sending again: retry of one delivery, replay of many, and what was missed.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::app::{App, EVENT, Receiver, Reply, eventually};

/// A schedule without a second attempt for as long as a test runs.
const ONCE: &[(&str, &str)] = &[("WEBHOOKS__RETRY_SCHEDULE", "1h"), ("WEBHOOKS__AUTO_DISABLE_THRESHOLD", "100000")];

/// A schedule that gives up after the second attempt.
const TWICE: &[(&str, &str)] = &[("WEBHOOKS__RETRY_SCHEDULE", "20ms"), ("WEBHOOKS__AUTO_DISABLE_THRESHOLD", "100000")];

/// Any time before the tests.
const FROM: &str = "2026-01-01T00:00:00Z";

async fn set_status(app: &App, endpoint: &str, status: &str) {
    app.put(&format!("/v1/webhooks/{endpoint}"), json!({ "status": status })).await.expect(200);
}

async fn publish_many(app: &App, numbers: std::ops::Range<u64>) {
    let events: Vec<Value> = numbers.map(|n| json!({ "event": EVENT, "data": { "n": n } })).collect();
    for events in events.chunks(1_000) {
        app.post("/v1/events/batch", json!({ "events": events })).await.expect(202);
    }
}

async fn missed(app: &App, endpoint: &str) -> Value {
    app.get(&format!("/v1/webhooks/{endpoint}/missed")).await.expect(200).json["data"]["attributes"].clone()
}

fn number(received: &crate::app::Received) -> u64 {
    let body: Value = serde_json::from_slice(&received.body).expect("JSON");
    body["data"]["n"].as_u64().expect("a number")
}

fn numbers(receiver: &Receiver) -> Vec<u64> {
    receiver.received().iter().map(number).collect()
}

#[tokio::test]
async fn a_replay_of_what_was_missed_sends_each_event_once() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "n": 0 })).await;
    receiver.wait_for(1).await;
    set_status(&app, &endpoint, "disabled").await;
    publish_many(&app, 1..700).await;
    let found = missed(&app, &endpoint).await;
    assert_eq!(found["count"], 699);
    assert!(found["oldest_at"].is_string());

    let path = format!("/v1/webhooks/{endpoint}/replay");
    let asked = app.post(&path, json!({ "from": FROM, "status": "missed" })).await.expect(202);
    assert_eq!(asked.attribute("total"), 699, "it is counted before the answer");
    assert_eq!(asked.attribute("sent"), 0);
    assert_eq!(receiver.received().len(), 1, "it waits for the endpoint");
    set_status(&app, &endpoint, "active").await;

    let done = app.replayed(&asked.id()).await;
    assert_eq!((&done["total"], &done["sent"]), (&json!(699), &json!(699)));
    let mut got = numbers(&receiver);
    got.sort_unstable();
    assert_eq!(got, (0..700).collect::<Vec<_>>());
    assert_eq!(missed(&app, &endpoint).await, json!({ "count": 0, "oldest_at": null }));

    let again = app.replay(&endpoint, json!({ "from": FROM, "status": "missed" })).await;
    assert_eq!(app.replayed(&again).await["total"], 0, "nothing is missed any more");
    assert_eq!(receiver.received().len(), 700);
}

#[tokio::test]
async fn a_replay_of_what_failed_leaves_out_what_arrived() {
    let app = App::with(TWICE).await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "n": 1 })).await;
    app.delivery(&endpoint, "success").await;
    receiver.script([Reply::Status(500), Reply::Status(500)]);
    let failed_event = app.publish(json!({ "n": 2 })).await;
    let failed = app.delivery(&endpoint, "failed").await;

    let replay = app.replay(&endpoint, json!({ "from": FROM })).await;
    let done = app.replayed(&replay).await;
    assert_eq!((&done["selection"], &done["total"], &done["sent"]), (&json!("failed"), &json!(1), &json!(1)));
    let sent = app.delivery(&endpoint, "success").await;
    assert_ne!(sent["id"], failed["id"], "a replay makes a new delivery");
    assert_eq!(numbers(&receiver), [1, 2, 2, 2]);
    let deliveries = app.get(&format!("/v1/events/{failed_event}")).await.expect(200);
    let deliveries = &deliveries.json["data"]["relationships"]["deliveries"]["data"];
    assert_eq!([&deliveries[0]["id"], &deliveries[1]["id"]], [&failed["id"], &sent["id"]]);

    let again = app.replay(&endpoint, json!({ "from": FROM, "status": "failed" })).await;
    assert_eq!(app.replayed(&again).await["total"], 0, "it has arrived since");
}

#[tokio::test]
async fn a_replay_of_all_sends_what_is_in_its_range() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    app.put(&format!("/v1/webhooks/{endpoint}"), json!({ "events": [EVENT] })).await.expect(200);
    publish_many(&app, 0..3).await;
    app.post("/v1/events", json!({ "event": "validation.failed", "data": {} })).await.expect(202);
    app.call("POST", &format!("/v1/webhooks/{endpoint}/test")).send().await.expect(200);
    receiver.wait_for(4).await;

    let replay = app.replay(&endpoint, json!({ "from": FROM, "status": "all" })).await;
    assert_eq!(app.replayed(&replay).await["total"], 3, "neither the test nor what it does not subscribe to");
    let before = app.replay(&endpoint, json!({ "from": FROM, "to": "2026-01-02", "status": "all" })).await;
    assert_eq!(app.replayed(&before).await["total"], 0);
    let today = app.get("/v1/events").await.json["data"][0]["attributes"]["created_at"].clone();
    let today = &today.as_str().expect("a time")[..10];
    let until = app.replay(&endpoint, json!({ "from": today, "to": today, "status": "all" })).await;
    assert_eq!(app.replayed(&until).await["total"], 3, "a date reaches to the end of its day");
}

#[tokio::test]
async fn a_replay_survives_restarts_and_makes_one_delivery_for_each_event() {
    let app = App::with(ONCE).await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Late(Duration::from_millis(5)));
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    set_status(&app, &endpoint, "disabled").await;
    publish_many(&app, 0..2_000).await;
    set_status(&app, &endpoint, "active").await;
    let replay = app.replay(&endpoint, json!({ "from": FROM, "status": "missed" })).await;
    let mut app = app;
    for part in 1..4 {
        receiver.wait_for(part * 300).await;
        app = app.restart(ONCE).await;
    }
    assert_eq!(app.replayed(&replay).await["sent"], 2_000);
    let mut by_delivery: HashMap<String, u64> = HashMap::new();
    for received in receiver.received() {
        by_delivery.insert(received.header("webhook-id").to_owned(), number(&received));
    }
    let mut events: Vec<u64> = by_delivery.into_values().collect();
    events.sort_unstable();
    assert_eq!(events, (0..2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_new_goes_before_what_is_replayed() {
    let app = App::with(&[("WEBHOOKS__MAX_IN_FLIGHT_PER_ENDPOINT", "1")]).await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    set_status(&app, &endpoint, "disabled").await;
    publish_many(&app, 0..200).await;
    set_status(&app, &endpoint, "active").await;
    receiver.always(Reply::Late(Duration::from_millis(20)));
    let replay = app.replay(&endpoint, json!({ "from": FROM, "status": "missed" })).await;
    let before = receiver.wait_for(5).await.len();
    app.publish(json!({ "n": 1_000 })).await;
    let place = eventually("the new event", || async { numbers(&receiver).iter().position(|n| *n == 1_000) }).await;
    assert!(place < before + 20, "it came after {place} of 200");
    receiver.always(Reply::Status(200));
    app.replayed(&replay).await;
}

#[tokio::test]
async fn a_cancelled_replay_stops_and_takes_back_what_nobody_has_begun_to_send() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    publish_many(&app, 0..1_000).await;
    receiver.wait_for(1_000).await;
    set_status(&app, &endpoint, "disabled").await;
    let replay = app.replay(&endpoint, json!({ "from": FROM, "status": "all" })).await;
    let path = format!("/v1/webhooks/replays/{replay}");
    app.delete(&path).await.expect(204);
    let read = app.get(&path).await.expect(200);
    assert_eq!((read.attribute("status"), read.attribute("sent")), (&json!("cancelled"), &json!(0)));
    assert!(read.attribute("finished_at").is_string());
    app.delete(&path).await.expect(204);

    set_status(&app, &endpoint, "active").await;
    receiver.always(Reply::Late(Duration::from_millis(20)));
    let replay = app.replay(&endpoint, json!({ "from": FROM, "status": "all" })).await;
    receiver.wait_for(1_010).await;
    let path = format!("/v1/webhooks/replays/{replay}");
    app.delete(&path).await.expect(204);
    let at_the_answer = receiver.received().len();
    // What was being sent arrives; then the log and the receiver agree.
    let total = eventually("the log to come to rest", || async {
        let log = app.get(&format!("/v1/webhooks/{endpoint}/deliveries?per_page=1")).await.expect(200);
        let sent = app.get(&path).await.attribute("sent").as_u64().expect("a number");
        let total = log.json["meta"]["pagination"]["total"].as_u64().expect("a number");
        (total == 1_000 + sent && receiver.received().len() as u64 == total).then_some(total)
    })
    .await;
    assert!(total < at_the_answer as u64 + 65, "{total} after {at_the_answer}");
}

#[tokio::test]
async fn missed_counts_what_the_endpoint_subscribed_to_while_it_was_not_active() {
    let app = App::with(&[("WEBHOOKS__AUTO_DISABLE_THRESHOLD", "0")]).await;
    let receiver = Receiver::start().await;
    app.publish(json!({ "n": 0 })).await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    let nothing = json!({ "count": 0, "oldest_at": null });
    assert_eq!(missed(&app, &endpoint).await, nothing, "what came before the endpoint is not missed");
    receiver.script([Reply::Status(410)]);
    app.publish(json!({ "n": 1 })).await;
    app.delivery(&endpoint, "failed").await;
    let auto = app.get(&format!("/v1/webhooks/{endpoint}")).await;
    assert_eq!(auto.attribute("status"), "auto_disabled");
    assert_eq!(missed(&app, &endpoint).await, nothing, "what failed is not missed");
    app.publish(json!({ "n": 2 })).await;
    app.post("/v1/events", json!({ "event": "validation.failed", "data": {} })).await.expect(202);
    assert_eq!(missed(&app, &endpoint).await["count"], 1);
    let app = app.restart(&[]).await;
    app.publish(json!({ "n": 3 })).await;
    assert_eq!(missed(&app, &endpoint).await["count"], 2, "a restart forgets nothing");
    app.put(&format!("/v1/webhooks/{endpoint}"), json!({ "events": ["validation.failed"] })).await.expect(200);
    assert_eq!(missed(&app, &endpoint).await, nothing, "it no longer wants them");
}

#[tokio::test]
async fn a_replay_of_what_was_missed_reaches_back_before_the_endpoint() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    publish_many(&app, 0..3).await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    let replay = app.replay(&endpoint, json!({ "from": FROM, "status": "missed" })).await;
    assert_eq!(app.replayed(&replay).await["sent"], 3);
}

#[tokio::test]
async fn a_replay_names_what_is_wrong_with_it() {
    let app = App::start().await;
    let (endpoint, _) = app.endpoint("http://127.0.0.1:9/hook").await;
    let path = format!("/v1/webhooks/{endpoint}/replay");
    let field = |name: &str| format!("/data/attributes/{name}");
    app.call("POST", &path).send().await.refused(400, "body_empty", "");
    app.post(&path, json!({})).await.refused(422, "replay_from_required", &field("from"));
    for from in [json!(5), json!("yesterday"), json!("2026-02-30"), json!("2026-05-01T05:14:38"), json!("2999-01-01")] {
        app.post(&path, json!({ "from": from })).await.refused(422, "replay_from_invalid", &field("from"));
    }
    for to in [json!("soon"), json!("2025-12-31"), json!(false)] {
        app.post(&path, json!({ "from": FROM, "to": to })).await.refused(422, "replay_to_invalid", &field("to"));
    }
    let body = json!({ "from": FROM, "status": "success" });
    app.post(&path, body).await.refused(422, "replay_status_invalid", &field("status"));
    let all = app.post(&path, json!({ "from": "x", "to": "y", "status": "z" })).await.expect(422);
    assert_eq!(all.codes(), ["replay_from_invalid", "replay_to_invalid", "replay_status_invalid"]);

    set_status(&app, &endpoint, "disabled").await;
    app.publish(json!({})).await;
    for _ in 0..10 {
        app.replay(&endpoint, json!({ "from": FROM, "status": "missed" })).await;
    }
    let full = app.post(&path, json!({ "from": FROM, "status": "missed" })).await;
    let full = full.refused(409, "replay_limit_reached", "");
    assert_eq!(full.json["meta"]["replays"].as_array().map(Vec::len), Some(10));
}

#[tokio::test]
async fn an_account_has_at_most_a_hundred_unfinished_replays() {
    let app = App::start().await;
    app.publish(json!({})).await;
    let body = json!({ "from": FROM, "status": "missed" });
    let mut open = Vec::new();
    for _ in 0..10 {
        let (endpoint, _) = app.endpoint("http://127.0.0.1:9/hook").await;
        set_status(&app, &endpoint, "disabled").await;
        for _ in 0..10 {
            open.push(app.replay(&endpoint, body.clone()).await);
        }
    }
    let (endpoint, _) = app.endpoint("http://127.0.0.1:9/hook").await;
    set_status(&app, &endpoint, "disabled").await;
    let refused = app.post(&format!("/v1/webhooks/{endpoint}/replay"), body.clone()).await;
    let refused = refused.refused(409, "replay_limit_reached", "");
    assert_eq!(refused.json["meta"]["replays"], json!(open), "they are named, so that one can be cancelled");
    app.delete(&format!("/v1/webhooks/replays/{}", open[50])).await.expect(204);
    app.replay(&endpoint, body).await;
}

#[tokio::test]
async fn what_a_replay_makes_counts_as_storage_of_its_account() {
    let app = App::with(&[("RATE_LIMITS__EVENTS_STORAGE", "8/1d")]).await;
    let receiver = Receiver::start().await;
    // 1 KiB for the bodies, and 3 for the events.
    publish_many(&app, 0..3).await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    // 1 KiB for the replay, and 3 for its deliveries.
    let replay = app.replay(&endpoint, json!({ "from": FROM, "status": "missed" })).await;
    assert_eq!(app.replayed(&replay).await["sent"], 3);
    let event = json!({ "event": EVENT, "data": {} });
    let refused = app.post("/v1/events", event).await.refused(429, "rate_limit_exceeded", "");
    assert_eq!(refused.header("x-ratelimit-limit"), "8");
    let again = app.post(&format!("/v1/webhooks/{endpoint}/replay"), json!({ "from": FROM, "status": "all" })).await;
    again.refused(429, "rate_limit_exceeded", "");
}

#[tokio::test]
async fn what_belongs_to_another_account_cannot_be_sent_again() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "n": 1 })).await;
    let delivery = app.delivery(&endpoint, "success").await["id"].as_str().expect("an id").to_owned();
    let replay = app.replay(&endpoint, json!({ "from": FROM, "status": "missed" })).await;
    let (_, stranger) = app.stranger().await;
    for (method, path) in [
        ("GET", format!("/v1/webhooks/deliveries/{delivery}")),
        ("POST", format!("/v1/webhooks/deliveries/{delivery}/retry")),
        ("POST", format!("/v1/webhooks/{endpoint}/replay")),
        ("GET", format!("/v1/webhooks/{endpoint}/missed")),
        ("GET", format!("/v1/webhooks/replays/{replay}")),
        ("DELETE", format!("/v1/webhooks/replays/{replay}")),
    ] {
        app.call(method, &path).bearer(&stranger).send().await.refused(404, "not_found", "");
        let unknown = path.replace(&delivery, "12").replace(&endpoint, "x").replace(&replay, &endpoint);
        app.call(method, &unknown).send().await.refused(404, "not_found", "");
    }
    app.delete(&format!("/v1/webhooks/{endpoint}")).await.expect(204);
    app.get(&format!("/v1/webhooks/replays/{replay}")).await.refused(404, "not_found", "");
    app.get(&format!("/v1/webhooks/deliveries/{delivery}")).await.refused(404, "not_found", "");
}

#[tokio::test]
async fn a_retry_sends_the_delivery_again_with_the_current_secret_and_url() {
    let app = App::with(TWICE).await;
    let (old, new) = (Receiver::start().await, Receiver::start().await);
    let (endpoint, _) = app.endpoint(&old.url()).await;
    old.always(Reply::Full(500, vec![], "out of order".into()));
    app.publish(json!({ "id": "7f3d9a52-6c1e-4b0a-9d57-2f8e41c6b3aa" })).await;
    let failed = app.delivery(&endpoint, "failed").await;
    let id = failed["id"].as_str().expect("an id");
    app.put(&format!("/v1/webhooks/{endpoint}"), json!({ "url": new.url() })).await.expect(200);
    let rotated = app.call("POST", &format!("/v1/webhooks/{endpoint}/regenerate-secret")).send().await.expect(200);
    let secret = rotated.attribute("secret").as_str().expect("a secret").to_owned();

    let path = format!("/v1/webhooks/deliveries/{id}");
    let retry = format!("{path}/retry");
    let answer = app.call("POST", &retry).header("idempotency-key", "again").send().await.expect(202);
    assert_eq!((answer.id().as_str(), answer.attribute("status")), (id, &json!("retrying")));
    let sent = new.wait_for(1).await.remove(0);
    assert_eq!(sent.header("webhook-id"), id);
    let secret = aldaba::domain::secret::Secret::parse(&secret).expect("a secret");
    assert!(aldaba::domain::sign::verify_plain(&secret, sent.header("x-webhook-signature"), &sent.body));
    app.delivery(&endpoint, "success").await;
    let repeated = app.call("POST", &retry).header("idempotency-key", "again").send().await.expect(202);
    assert_eq!(repeated.text, answer.text);

    let detail = app.get(&path).await.expect(200);
    let attempts = detail.attribute("attempts").as_array().expect("a list").clone();
    let told: Vec<_> = attempts.iter().map(|a| (a["attempt"].clone(), a["response_status"].clone())).collect();
    assert_eq!(told, [(json!(1), json!(500)), (json!(2), json!(500)), (json!(3), json!(200))]);
    assert_eq!((&attempts[0]["response_body"], &attempts[2]["error_message"]), (&json!("out of order"), &Value::Null));
    assert_eq!(detail.attribute("request_body").as_str().expect("text").as_bytes(), &sent.body);
    let headers = detail.attribute("request_headers").as_object().expect("headers");
    for (name, value) in headers {
        let value = value.as_str().expect("text");
        if name.contains("signature") {
            assert!(value.ends_with("***") && !value.contains(&sent.header(name)[40..]), "{name}: {value}");
        } else {
            assert_eq!(value, sent.header(name), "{name}");
        }
    }
    let unlike = ["host", "content-length"];
    let shown = sent.headers.keys().filter(|name| !unlike.contains(&name.as_str()));
    assert_eq!(shown.filter(|name| !headers.contains_key(name.as_str())).count(), 0, "{headers:?}");

    app.call("POST", &retry).send().await.expect(202);
    new.wait_for(2).await;
}

#[tokio::test]
async fn a_delivery_that_is_under_way_cannot_be_retried() {
    let app = App::with(ONCE).await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Status(500));
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let delivery = app.delivery(&endpoint, "retrying").await;
    let path = format!("/v1/webhooks/deliveries/{}", delivery["id"].as_str().expect("an id"));
    app.call("POST", &format!("{path}/retry")).send().await.refused(409, "delivery_under_way", "");
    let retry = app.call("POST", &format!("{path}/retry")).header("content-type", "application/json").body("[");
    retry.send().await.refused(400, "invalid_json", "");
}

#[tokio::test]
async fn a_retry_begins_the_schedule_afresh() {
    let app = App::with(TWICE).await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Status(500));
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let failed = app.delivery(&endpoint, "failed").await;
    let path = format!("/v1/webhooks/deliveries/{}/retry", failed["id"].as_str().expect("an id"));
    app.call("POST", &path).send().await.expect(202);
    receiver.wait_for(4).await;
    let failed = app.delivery(&endpoint, "failed").await;
    assert_eq!(failed["attributes"]["attempt"], 4);
}

#[tokio::test]
async fn a_delivery_that_waits_shows_its_body_and_no_attempt() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Hang);
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    let event = app.publish(json!({ "n": 1.0 })).await;
    let delivery = app.delivery(&endpoint, "pending").await;
    let detail = app.get(&format!("/v1/webhooks/deliveries/{}", delivery["id"].as_str().expect("an id"))).await;
    let detail = detail.expect(200);
    assert_eq!(detail.attribute("event_id"), &json!(event));
    assert!(detail.attribute("request_body").as_str().expect("text").contains(r#""data":{"n":1.0}"#));
    assert_eq!((detail.attribute("attempts"), detail.attribute("request_headers")), (&json!([]), &Value::Null));
    assert_eq!(detail.attribute("endpoint_url"), &json!(receiver.url()));
}
