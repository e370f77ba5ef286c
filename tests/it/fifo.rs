//! Deliveries in the order of their acceptance, one at a time.

use std::time::Duration;

use serde_json::{Value, json};

use crate::app::{App, Call, EVENT, Receiver, Reply, eventually};
use crate::command_line::printed;
use crate::crash::Server;
use crate::database;

/// Registers an endpoint that gets its deliveries in order.
async fn in_order(app: &App, receiver: &Receiver) -> String {
    let new = json!({ "url": receiver.url(), "events": [EVENT], "ordering": "fifo" });
    let made = app.post("/v1/webhooks", new).await.expect(201);
    assert_eq!(made.attribute("ordering"), "fifo");
    made.id()
}

/// The numbers of the events in the order in which they arrived.
fn numbers(receiver: &Receiver) -> Vec<u64> {
    let number = |body: &[u8]| -> Option<u64> { serde_json::from_slice::<Value>(body).ok()?["data"]["n"].as_u64() };
    receiver.received().iter().map(|request| number(&request.body).expect("a number")).collect()
}

async fn arrived(receiver: &Receiver, count: usize) -> Vec<u64> {
    receiver.wait_for(count).await;
    numbers(receiver)
}

fn sorted(numbers: &[u64]) -> bool {
    numbers.windows(2).all(|pair| pair[0] <= pair[1])
}

#[tokio::test]
async fn deliveries_go_one_after_the_other_in_the_order_of_their_events() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Late(Duration::from_millis(10)));
    in_order(&app, &receiver).await;
    let batch: Vec<Value> = (0..20).map(|n| json!({ "event": EVENT, "data": { "n": n } })).collect();
    app.post("/v1/events/batch", json!({ "events": batch })).await.expect(202);
    for n in 20..40 {
        app.publish(json!({ "n": n })).await;
    }
    assert_eq!(arrived(&receiver, 40).await, (0..40).collect::<Vec<_>>());
    let requests = receiver.received();
    let close = requests.windows(2).filter(|pair| pair[1].at - pair[0].at < Duration::from_millis(9)).count();
    assert_eq!(close, 0, "the next one comes when the one before it has been answered");
}

#[tokio::test]
async fn while_one_is_retried_the_others_wait_and_one_that_is_given_up_stops_nobody() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "30ms,30ms")]).await;
    let receiver = Receiver::start().await;
    receiver.script([200, 500, 500, 200, 500, 500, 500, 200].map(Reply::Status));
    let id = in_order(&app, &receiver).await;
    let batch: Vec<Value> = (0..5).map(|n| json!({ "event": EVENT, "data": { "n": n } })).collect();
    app.post("/v1/events/batch", json!({ "events": batch })).await.expect(202);
    assert_eq!(arrived(&receiver, 9).await, [0, 1, 1, 1, 2, 2, 2, 3, 4]);
    let listed = eventually("every outcome", || async {
        let listed = app.get(&format!("/v1/webhooks/{id}/deliveries")).await.expect(200).json;
        let rows = listed["data"].as_array().expect("a list");
        let statuses: Vec<String> =
            rows.iter().map(|row| row["attributes"]["status"].as_str().expect("text").to_owned()).collect();
        statuses.iter().all(|status| ["success", "failed"].contains(&status.as_str())).then_some(statuses)
    })
    .await;
    assert_eq!(listed, ["success", "success", "failed", "success", "success"]);
}

#[tokio::test]
async fn what_is_sent_again_goes_in_the_same_line_and_a_pause_keeps_the_order() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "200ms,200ms,200ms")]).await;
    let receiver = Receiver::start().await;
    let id = in_order(&app, &receiver).await;
    app.publish(json!({ "n": 0 })).await;
    let first = app.delivery(&id, "success").await["id"].as_str().expect("an id").to_owned();
    receiver.script([Reply::Status(503)]);
    app.publish(json!({ "n": 1 })).await;
    app.publish(json!({ "n": 2 })).await;
    receiver.wait_for(2).await;
    // It goes when the one under way has come to its end, and before those that wait.
    app.call("POST", &format!("/v1/webhooks/deliveries/{first}/retry")).send().await.expect(202);
    assert_eq!(arrived(&receiver, 5).await, [0, 1, 1, 0, 2]);
    receiver.script([Reply::Status(503)]);
    for n in 3..8 {
        app.publish(json!({ "n": n })).await;
    }
    receiver.wait_for(6).await;
    let path = format!("/v1/webhooks/{id}");
    app.put(&path, json!({ "status": "disabled" })).await.expect(200);
    app.put(&path, json!({ "status": "active" })).await.expect(200);
    assert_eq!(arrived(&receiver, 11).await[5..], [3, 3, 4, 5, 6, 7]);
    let replay = app.replay(&id, json!({ "from": "2026-01-01", "status": "all" })).await;
    app.replayed(&replay).await;
    assert_eq!(arrived(&receiver, 19).await[11..], [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn the_order_is_chosen_and_changed_by_the_owner() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let id = in_order(&app, &receiver).await;
    let path = format!("/v1/webhooks/{id}");
    let plain = app.put(&path, json!({ "ordering": "none" })).await.expect(200);
    assert!(plain.json["data"]["attributes"].get("ordering").is_none(), "it is shown only where it is so");
    let again = app.put(&path, json!({ "ordering": "fifo" })).await.expect(200);
    assert_eq!(again.attribute("ordering"), "fifo");
    for value in [json!("lifo"), json!(1), Value::Null] {
        let refused = app.put(&path, json!({ "ordering": value })).await;
        refused.refused(422, "webhook_ordering_invalid", "/data/attributes/ordering");
    }
    // What waited in a line goes on in it when the line is closed.
    receiver.always(Reply::Status(503));
    for n in 0..5 {
        app.publish(json!({ "n": n })).await;
    }
    receiver.wait_for(1).await;
    app.put(&path, json!({ "ordering": "none" })).await.expect(200);
    let head = app.get(&format!("{path}/deliveries?per_page=100")).await.expect(200).json;
    receiver.always(Reply::Status(200));
    let head = head["data"][4]["id"].as_str().expect("an id").to_owned();
    eventually("the first to be retried", || async {
        database::execute(app.folder(), &due_now()).await;
        app.put(&path, json!({ "description": "looked at again", "status": "active" })).await.expect(200);
        let shown = app.get(&format!("/v1/webhooks/deliveries/{head}")).await.expect(200);
        (shown.attribute("status") == "success").then_some(())
    })
    .await;
    let found = arrived(&receiver, 6).await;
    assert!(sorted(&found) && found.ends_with(&[1, 2, 3, 4]), "{found:?}");
}

/// Makes what is to be retried due.
fn due_now() -> String {
    let table = if database::is_postgres() { "queue" } else { "deliveries" };
    format!("UPDATE {table} SET due_at = 1 WHERE due_at IS NOT NULL")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_keeps_the_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let account = printed(folder.path(), &["accounts", "create", "killed"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let receiver = Receiver::start().await;
    receiver.always(Reply::Late(Duration::from_millis(3)));
    let mut server = Server::start(folder.path(), &[]);
    let new = json!({ "url": receiver.url(), "events": [EVENT], "ordering": "fifo" });
    Call::new(server.address, "POST", "/v1/webhooks").bearer(&key).json(&new).send().await.expect(201);
    for round in 0..4 {
        for n in 0..25 {
            let body = json!({ "event": EVENT, "data": { "n": round * 25 + n } });
            Call::new(server.address, "POST", "/v1/events").bearer(&key).json(&body).send().await.expect(202);
        }
        receiver.wait_for(round * 25 + 5).await;
        server.kill();
        server = Server::start(folder.path(), &[]);
    }
    let found = eventually("every event", || async {
        let found = numbers(&receiver);
        (found.last() == Some(&99)).then_some(found)
    })
    .await;
    assert!(sorted(&found), "{found:?}");
    let mut distinct = found.clone();
    distinct.dedup();
    assert_eq!(distinct, (0..100).collect::<Vec<_>>());
    assert!(found.len() <= 104, "what came twice was on its way when the server died: {found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_keep_one_order() {
    if !database::is_postgres() {
        return;
    }
    let settings = [("WEBHOOKS__RETRY_SCHEDULE", "20ms,20ms,20ms,20ms,20ms")];
    let first = App::with(&settings).await;
    let second = first.another(&settings).await;
    let receiver = Receiver::start().await;
    receiver.script((0..30).map(|n| Reply::Status(if n % 3 == 0 { 503 } else { 200 })));
    in_order(&first, &receiver).await;
    for n in 0..80 {
        let node = if n % 2 == 0 { &first } else { &second };
        node.publish(json!({ "n": n })).await;
    }
    let found = eventually("every event", || async {
        let found = numbers(&receiver);
        (found.last() == Some(&79)).then_some(found)
    })
    .await;
    assert!(sorted(&found), "{found:?}");
    assert_eq!(found.len(), 90, "ten were tried twice, and none otherwise");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_are_added_to_and_taken_from_at_once_hold_up_nobody() {
    let settings = [("WEBHOOKS__RETRY_SCHEDULE", "10ms,10ms,10ms"), ("WEBHOOKS__AUTO_DISABLE_THRESHOLD", "100000")];
    let first = App::with(&settings).await;
    let second = if database::is_postgres() { Some(first.another(&settings).await) } else { None };
    let mut receivers = Vec::new();
    for number in 0..4 {
        let receiver = Receiver::start().await;
        receiver.script((0..200).map(|n| Reply::Status(if (n + number) % 4 == 0 { 503 } else { 200 })));
        let events = [EVENT, "delivery.failed", "secret.rotated", "endpoint.enabled"];
        let new = json!({ "url": receiver.url(), "events": events, "ordering": "fifo" });
        let id = first.post("/v1/webhooks", new).await.expect(201).id();
        receivers.push((receiver, id));
    }
    let nodes = [&first, second.as_ref().unwrap_or(&first)];
    let publish = async |lane: u64| {
        for n in 0..30 {
            let body = json!({ "event": EVENT, "data": { "n": n, "lane": lane } });
            let node = nodes[usize::try_from(lane).expect("small") % 2];
            node.post("/v1/events", body).await.expect(202);
        }
    };
    let rotate = async || {
        for round in 0..20 {
            let id = &receivers[round % 4].1;
            let node = nodes[round % 2];
            node.call("POST", &format!("/v1/webhooks/{id}/regenerate-secret")).send().await.expect(200);
        }
    };
    tokio::join!(publish(0), publish(1), publish(2), publish(3), rotate());
    for (receiver, _) in &receivers {
        eventually("every event", || async {
            let received = receiver.received();
            let lanes: Vec<(u64, u64)> = received
                .iter()
                .filter_map(|request| {
                    let body: Value = serde_json::from_slice(&request.body).ok()?;
                    Some((body["data"]["lane"].as_u64()?, body["data"]["n"].as_u64()?))
                })
                .collect();
            for lane in 0..4 {
                let of_lane: Vec<u64> = lanes.iter().filter(|(known, _)| *known == lane).map(|(_, n)| *n).collect();
                assert!(sorted(&of_lane), "lane {lane}: {of_lane:?}");
            }
            let distinct: std::collections::BTreeSet<_> = lanes.into_iter().collect();
            (distinct.len() == 120).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_cancelled_replay_stops_no_line() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "100ms,100ms,100ms,100ms,100ms")]).await;
    let receiver = Receiver::start().await;
    let id = in_order(&app, &receiver).await;
    for n in 0..5 {
        app.publish(json!({ "n": n })).await;
    }
    receiver.wait_for(5).await;
    app.delivery(&id, "success").await;
    receiver.script([Reply::Late(Duration::from_millis(300))]);
    let replay = app.replay(&id, json!({ "from": "2026-01-01", "status": "all" })).await;
    receiver.wait_for(6).await;
    app.delete(&format!("/v1/webhooks/replays/{replay}")).await.expect(204);
    app.publish(json!({ "n": 5 })).await;
    let found = eventually("what was published afterwards", || async {
        let found = numbers(&receiver);
        (found.last() == Some(&5)).then_some(found)
    })
    .await;
    assert!(found.len() <= 8, "most of the replay is taken back: {found:?}");
}
