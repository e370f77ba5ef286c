//! What an account's endpoints hear of its other endpoints.

use std::sync::Arc;

use aldaba::domain::endpoint::EndpointStatus;
use aldaba::domain::retry::RetrySchedule;
use aldaba::domain::settings::{EndpointChange, EndpointSettings};
use aldaba::domain::url::{Environment, ReceiverUrl};
use aldaba::store::{Accounts, Dispatch, Endpoints, Intake, Isolation, Replays};
use serde_json::{Value, json};

use crate::app::{App, EVENT, Receiver, Reply, eventually};
use crate::fixture::{Fixture, event, settlement};
use crate::verify::assert_signed;

const TOLD: [&str; 5] =
    ["endpoint.auto_disabled", "endpoint.disabled", "endpoint.enabled", "delivery.failed", "secret.rotated"];

/// Registers an endpoint for these types: its id and its secret.
async fn subscribed(app: &App, receiver: &Receiver, events: &[&str]) -> (String, String) {
    let answer = app.post("/v1/webhooks", json!({ "url": receiver.url(), "events": events })).await.expect(201);
    (answer.id(), answer.attribute("secret").as_str().expect("a secret").to_owned())
}

/// The messages that have arrived, once there are so many: type and data.
async fn heard(receiver: &Receiver, count: usize) -> Vec<(String, Value)> {
    let requests = receiver.wait_for(count).await;
    let read = |body: &[u8]| -> Value { serde_json::from_slice(body).expect("JSON") };
    let messages = requests.iter().map(|request| read(&request.body));
    messages.map(|body| (body["event"].as_str().expect("a type").to_owned(), body["data"].clone())).collect()
}

async fn events(app: &App) -> u64 {
    let listed = app.get("/v1/events?per_page=1").await.expect(200).json;
    listed["meta"]["pagination"]["total"].as_u64().expect("a number")
}

#[tokio::test]
async fn what_its_owner_does_to_an_endpoint_is_told_to_the_others_and_not_to_itself() {
    let app = App::start().await;
    let (watched, watching) = (Receiver::start().await, Receiver::start().await);
    let all: Vec<&str> = TOLD.into_iter().chain([EVENT]).collect();
    let (id, _) = subscribed(&app, &watched, &all).await;
    let (_, secret) = subscribed(&app, &watching, &TOLD).await;
    let path = format!("/v1/webhooks/{id}");
    app.put(&path, json!({ "description": "nothing to tell of" })).await.expect(200);
    app.put(&path, json!({ "status": "disabled" })).await.expect(200);
    heard(&watching, 1).await;
    app.put(&path, json!({ "status": "disabled" })).await.expect(200);
    app.put(&path, json!({ "status": "active" })).await.expect(200);
    heard(&watching, 2).await;
    let rotated = app.call("POST", &format!("{path}/regenerate-secret")).send().await.expect(200);
    let messages = heard(&watching, 3).await;
    let types: Vec<&str> = messages.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!(types, ["endpoint.disabled", "endpoint.enabled", "secret.rotated"]);
    assert!(messages.iter().all(|(_, data)| data["endpoint_id"] == *id && data["url"] == watched.url()));
    let new = rotated.attribute("secret").as_str().expect("a secret");
    assert_eq!(messages[2].1["secret_hint"], format!("...{}", &new[60..]));
    assert!(!messages[2].1.to_string().contains(new));
    for request in watching.received() {
        assert_signed(&request, &secret);
    }
    // It hears what is published, and nothing of itself came before.
    app.publish(json!({})).await;
    assert_eq!(heard(&watched, 1).await[0].0, EVENT);
    assert_eq!(events(&app).await, 4);
}

#[tokio::test]
async fn a_sick_receiver_is_noticed_by_who_watches() {
    let settings = [("WEBHOOKS__RETRY_SCHEDULE", "50ms"), ("WEBHOOKS__AUTO_DISABLE_THRESHOLD", "1")];
    let app = App::with(&settings).await;
    let (sick, watching) = (Receiver::start().await, Receiver::start().await);
    sick.always(Reply::Status(503));
    let (id, _) = subscribed(&app, &sick, &[EVENT, "delivery.failed", "endpoint.auto_disabled"]).await;
    subscribed(&app, &watching, &["delivery.failed", "endpoint.auto_disabled"]).await;
    let event = app.publish(json!({})).await;
    let mut messages = heard(&watching, 2).await;
    messages.sort_by(|one, other| one.0.cmp(&other.0));
    let delivery = app.delivery(&id, "failed").await["id"].clone();
    assert_eq!(
        messages[0],
        (
            "delivery.failed".to_owned(),
            json!({
                "endpoint_id": id, "url": sick.url(), "delivery_id": delivery, "event_id": event, "event_type": EVENT,
                "attempts": 2, "response_status": 503, "error_message": messages[0].1["error_message"],
            })
        )
    );
    assert!(messages[0].1["error_message"].as_str().expect("words").contains("503"));
    let told = &messages[1];
    assert_eq!((told.0.as_str(), &told.1["endpoint_id"]), ("endpoint.auto_disabled", &json!(id)));
    assert_eq!((&told.1["consecutive_failures"], &told.1["response_status"]), (&json!(2), &json!(503)));
    assert_eq!(sick.received().len(), 2, "the endpoint that is itself the cause hears nothing of it");
    let shown = app.get(&format!("/v1/webhooks/{id}")).await.expect(200);
    assert_eq!(shown.attribute("status"), "auto_disabled");
}

#[tokio::test]
async fn those_who_watch_each_other_do_not_go_round_in_circles() {
    let settings = [("WEBHOOKS__RETRY_SCHEDULE", "20ms"), ("WEBHOOKS__AUTO_DISABLE_THRESHOLD", "1000")];
    let app = App::with(&settings).await;
    let receivers = [Receiver::start().await, Receiver::start().await, Receiver::start().await];
    for (receiver, types) in receivers.iter().zip([[EVENT].as_slice(), &["delivery.failed"], &["delivery.failed"]]) {
        receiver.always(Reply::Status(500));
        subscribed(&app, receiver, types).await;
    }
    app.publish(json!({})).await;
    eventually("the end of all of it", || async {
        let listed = app.get("/v1/webhooks/deliveries?status=failed").await.expect(200).json;
        (listed["meta"]["pagination"]["total"] == 3).then_some(())
    })
    .await;
    assert_eq!(events(&app).await, 2, "one that was published, and one that tells of its failure");
    assert!(receivers.iter().all(|receiver| receiver.received().len() == 2));
}

#[tokio::test]
async fn what_nobody_wants_to_hear_is_not_written_and_what_a_paused_watcher_missed_is_counted() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = subscribed(&app, &receiver, &[EVENT]).await;
    app.call("POST", &format!("/v1/webhooks/{id}/regenerate-secret")).send().await.expect(200);
    assert_eq!(events(&app).await, 0);
    let (watching, _) = subscribed(&app, &receiver, &["secret.rotated"]).await;
    app.put(&format!("/v1/webhooks/{watching}"), json!({ "status": "disabled" })).await.expect(200);
    app.call("POST", &format!("/v1/webhooks/{id}/regenerate-secret")).send().await.expect(200);
    assert_eq!(app.get(&format!("/v1/webhooks/{watching}/missed")).await.expect(200).attribute("count"), 1);
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn operational_types_are_in_no_catalog_and_nobody_publishes_them() {
    let app = App::start().await;
    for name in TOLD {
        let types = app.call("POST", "/v1/event-types").bearer(&app.operator).json(&json!({ "name": name }));
        types.send().await.refused(409, "event_type_exists", "/data/attributes/name");
        let published = app.post("/v1/events", json!({ "event": name, "data": {} })).await;
        published.refused(422, "event_unknown", "/data/attributes/event");
    }
    let catalog = app.get("/v1/event-types?per_page=100").await.expect(200).json;
    assert_eq!(catalog["meta"]["pagination"]["total"], 12);
}

#[tokio::test]
async fn many_that_fail_at_once_are_each_told_of_once() {
    let settings = [("WEBHOOKS__RETRY_SCHEDULE", "10ms"), ("WEBHOOKS__AUTO_DISABLE_THRESHOLD", "100000")];
    let app = App::with(&settings).await;
    let (sick, watching) = (Receiver::start().await, Receiver::start().await);
    sick.always(Reply::Status(500));
    subscribed(&app, &sick, &[EVENT]).await;
    subscribed(&app, &watching, &["delivery.failed"]).await;
    let batch: Vec<Value> = (0..200).map(|n| json!({ "event": EVENT, "data": { "n": n } })).collect();
    app.post("/v1/events/batch", json!({ "events": batch })).await.expect(202);
    let told = heard(&watching, 200).await;
    let deliveries: std::collections::BTreeSet<String> =
        told.iter().map(|(_, data)| data["delivery_id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!((told.len(), deliveries.len(), events(&app).await), (200, 200, 400));
}

/// Each failure was written once more for every endpoint that subscribes, whatever the account may store.
#[tokio::test]
async fn failures_beyond_the_limit_of_a_minute_make_no_more_events() {
    const TOLD_IN_A_MINUTE: u64 = 200;
    let app = App::with(&[("WEBHOOKS__AUTO_DISABLE_THRESHOLD", "100000")]).await;
    let (sick, watching) = (Receiver::start().await, Receiver::start().await);
    sick.always(Reply::Status(500));
    for _ in 0..3 {
        let endpoint = json!({ "url": sick.url(), "events": [EVENT, "delivery.failed"], "retry_schedule": [] });
        app.post("/v1/webhooks", endpoint).await.expect(201);
    }
    subscribed(&app, &watching, &["delivery.failed"]).await;
    let batch = json!({ "events": vec![json!({ "event": EVENT, "data": {} }); 100] });
    app.post("/v1/events/batch", batch).await.expect(202);
    let failed = format!("/v1/webhooks/deliveries?per_page=1&status=failed&event_type={EVENT}");
    eventually("all to have failed", || async {
        let listed = app.get(&failed).await.expect(200).json;
        (listed["meta"]["pagination"]["total"] == 300).then_some(())
    })
    .await;
    assert_eq!(events(&app).await, 100 + TOLD_IN_A_MINUTE);
    heard(&watching, 200).await;
    // Another account is told of its own.
    let (_, key) = app.stranger().await;
    let call = |method: &str, path: &str, body: Value| app.call(method, path).bearer(&key).json(&body).send();
    for (receiver, event) in [(&sick, EVENT), (&watching, "delivery.failed")] {
        let endpoint = json!({ "url": receiver.url(), "events": [event], "retry_schedule": [] });
        call("POST", "/v1/webhooks", endpoint).await.expect(201);
    }
    call("POST", "/v1/events", json!({ "event": EVENT, "data": {} })).await.expect(202);
    heard(&watching, 201).await;
}

#[tokio::test]
async fn accounts_whose_deliveries_fail_in_one_batch_are_each_told_of_their_own() {
    let mut f = Fixture::new().await;
    let other = f.store.create_account("b".into(), None).await.expect("an account").id;
    let settings = |event_type: &str| {
        let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
        EndpointSettings::new(&url, vec![event_type.into()])
    };
    let mut watched = Vec::new();
    for account in [f.account, other] {
        let create = async |new: EndpointSettings| {
            f.store.create_endpoint(account, new.into(), None).await.expect("an endpoint").resource
        };
        let sick = EndpointSettings { retry_schedule: RetrySchedule::of_endpoint(&[]), ..settings(EVENT) };
        let (sick, watching) = (create(sick).await, create(settings("delivery.failed")).await);
        let paused = create(settings("delivery.failed")).await;
        let pause = EndpointChange { status: Some(EndpointStatus::Disabled), ..EndpointChange::default() };
        f.store.update_endpoint(account, paused.id, pause).await.expect("paused");
        watched.push((account, sick, watching, paused));
    }
    for (account, ..) in &watched {
        f.store.accept(vec![event(*account, 1)], None).await.expect("accepted");
    }
    let failed: Vec<_> = f.jobs(2).await.iter().map(|leased| settlement(leased, 500)).collect();
    f.store.settle(Arc::new(failed), Isolation::Shared).await.expect("settled");
    for (account, sick, watching, paused) in watched {
        let told = f.store.claim(watching.key, 10).await.expect("claimed").jobs;
        assert_eq!((told.len(), &*told[0].job.event_type), (1, "delivery.failed"));
        let data: Value = serde_json::from_slice(&told[0].job.body).expect("JSON");
        assert_eq!(data["data"]["endpoint_id"], sick.id.to_string());
        let health = f.store.endpoint(account, sick.id).await.expect("read").health;
        assert_eq!((health.status, health.consecutive_failures), (EndpointStatus::Active, 1));
        assert_eq!(f.store.missed(account, paused.id).await.expect("counted").count, 1);
    }
}
