//! The hold of all deliveries: events are accepted, and nothing is sent until an operator ends it.

use aldaba::store::{Dispatch as _, Holds as _, Intake as _, Snapshot as _, StoreError, Unattempted};
use serde_json::{Value, json};

use crate::app::{App, Call, Receiver, eventually};
use crate::command_line::printed;
use crate::database;
use crate::fixture::Fixture;

/// Waits until the server knows whether deliveries are on hold: at once, or on PostgreSQL a moment later.
async fn knows(app: &App, on_hold: u64) {
    eventually("the server to know", || async { (app.metric("on_hold").await == on_hold).then_some(()) }).await;
}

/// What has arrived by the time at which the test of an endpoint has: attempts that had begun before it.
async fn arrived_before_a_test(app: &App, endpoint: &str, receiver: &Receiver) -> usize {
    let tested = app.call("POST", &format!("/v1/webhooks/{endpoint}/test")).send().await.expect(200);
    assert_eq!(tested.attribute("delivered"), true, "tests are sent all the same");
    receiver.received().len() - 1
}

#[tokio::test]
async fn on_hold_events_are_accepted_and_nothing_is_sent_until_deliveries_are_resumed() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "n": 0 })).await;
    let first = app.delivery(&id, "success").await["id"].as_str().expect("an id").to_owned();
    assert_eq!(app.metric("on_hold").await, 0);
    assert!(printed(app.folder(), &["hold"]).starts_with("deliveries are on hold since "));
    knows(&app, 1).await;
    let ready = Call::new(app.address, "GET", "/readyz").send().await.expect(200);
    assert!(String::from_utf8_lossy(&ready.text).contains("deliveries are on hold since "));
    for n in 1..=3 {
        app.publish(json!({ "n": n })).await;
    }
    app.post(&format!("/v1/webhooks/deliveries/{first}/retry"), json!({})).await.expect(202);
    let replay = app.replay(&id, json!({ "from": "2026-01-01", "status": "all" })).await;
    assert_eq!(arrived_before_a_test(&app, &id, &receiver).await, 1, "no event, retry or replay is sent");
    let resumed: Value = serde_json::from_str(&printed(app.folder(), &["resume", "--json"])).expect("JSON");
    assert!(resumed["was_on_hold_since"].is_string(), "{resumed}");
    app.replayed(&replay).await;
    // The event, its test, three events, the retry, and the replay of four events.
    receiver.wait_for(10).await;
    knows(&app, 0).await;
    assert_eq!(printed(app.folder(), &["resume"]), "deliveries were not on hold");
    let path = "/v1/audit-log?action=deliveries.held,deliveries.resumed";
    let entries = Call::new(app.address, "GET", path).bearer(&app.operator).send().await.expect(200).json;
    let told: Vec<_> = entries["data"].as_array().expect("a list").iter().map(|row| &row["attributes"]).collect();
    assert_eq!(told.len(), 2, "{entries}");
    assert!(told.iter().all(|entry| entry["actor_type"] == "command_line" && entry["resource_type"] == "server"));
}

#[tokio::test]
async fn a_hold_outlives_a_restart() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    let since = app.store.hold().await.expect("held");
    assert_eq!(app.store.hold().await, Ok(since), "it began once");
    app.publish(json!({ "n": 1 })).await;
    let app = app.restart(&[]).await;
    assert_eq!(app.metric("on_hold").await, 1);
    assert_eq!(arrived_before_a_test(&app, &id, &receiver).await, 0);
    assert_eq!(app.store.resume().await, Ok(Some(since)));
    receiver.wait_for(2).await;
}

#[tokio::test]
async fn what_is_in_memory_when_a_hold_begins_is_given_back_without_an_attempt() {
    let mut f = Fixture::new().await;
    let (_, key) = f.endpoint().await;
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    let jobs = f.jobs(1).await;
    f.store.hold().await.expect("held");
    let target = f.store.target(key).await.expect("read").expect("it is there");
    assert!(!target.active, "an attempt that begins now sends nothing");
    f.store.accept(vec![f.event(2)], None).await.expect("accepted");
    f.store.release(jobs.iter().map(|leased| Unattempted::of(&leased.job)).collect()).await.expect("released");
    drop(jobs);
    assert!(f.store.claim(key, 10).await.expect("asked").jobs.is_empty());
    assert!(f.store.due_endpoints().await.expect("asked").is_empty());
    assert!(f.store.resume().await.expect("resumed").is_some());
    let due: Vec<_> = f.store.due_endpoints().await.expect("asked").into_iter().map(|(endpoint, _)| endpoint).collect();
    assert_eq!(due, [key]);
    assert_eq!(f.store.claim(key, 10).await.expect("claimed").jobs.len(), 2);
    assert!(f.store.target(key).await.expect("read").expect("it is there").active);
}

#[tokio::test]
async fn a_hold_on_one_node_holds_on_every_node() {
    if !database::is_postgres() {
        return;
    }
    let first = App::start().await;
    let second = first.another(&[]).await;
    let receiver = Receiver::start().await;
    let (id, _) = first.endpoint(&receiver.url()).await;
    first.store.hold().await.expect("held");
    knows(&second, 1).await;
    for n in 0..4 {
        [&first, &second][n % 2].publish(json!({ "n": n })).await;
    }
    assert_eq!(arrived_before_a_test(&second, &id, &receiver).await, 0);
    second.store.resume().await.expect("resumed");
    receiver.wait_for(5).await;
}

#[tokio::test]
async fn a_hold_requires_a_program_that_knows_it() {
    let f = Fixture::new().await;
    if database::is_postgres() {
        let older = "INSERT INTO nodes (key, seen_at, delivers) OVERRIDING SYSTEM VALUE \
                     VALUES (777, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, false)";
        database::execute(f.folder(), older).await;
        assert_eq!(f.store.hold().await, Err(StoreError::OlderNodes));
        assert_eq!(f.store.view().on_hold_since(), None);
        database::execute(f.folder(), "DELETE FROM nodes WHERE key = 777").await;
    }
    f.store.hold().await.expect("held");
    assert_eq!(crate::migrations::minimum(f.folder()).await, 22);
}
