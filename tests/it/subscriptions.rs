//! How an event finds its endpoints: by types and by wildcards.

use serde_json::{Value, json};

use crate::app::{App, EVENT, Receiver, eventually};
use crate::database;
use crate::endpoint_settings::owners_browser;
use crate::migrations::minimum;

/// Registers an endpoint with these entries, and returns its path.
async fn subscribed(app: &App, url: &str, events: &[&str]) -> String {
    let made = app.post("/v1/webhooks", json!({ "url": url, "events": events })).await.expect(201);
    assert_eq!(made.attribute("events"), &json!(events));
    format!("/v1/webhooks/{}", made.id())
}

/// Publishes an event of the type, and returns how many deliveries it has made.
async fn publish(app: &App, event: &str) -> u64 {
    let published = app.post("/v1/events", json!({ "event": event, "data": {} })).await.expect(202);
    published.attribute("deliveries").as_u64().expect("a number")
}

async fn add_type(app: &App, name: &str) {
    let new = json!({ "name": name });
    app.call("POST", "/v1/event-types").bearer(&app.operator).json(&new).send().await.expect(201);
}

fn types(receiver: &Receiver) -> Vec<String> {
    let read = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON")["event"].clone();
    let mut types: Vec<_> = receiver.received().iter().map(|request| read(&request.body)).collect();
    types.sort_by_key(ToString::to_string);
    types.iter().map(|name| name.as_str().expect("a type").to_owned()).collect()
}

#[tokio::test]
async fn a_wildcard_brings_types_of_now_and_later_and_an_event_makes_one_delivery() {
    let app = App::start().await;
    let (all, several, orders) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    subscribed(&app, &all.url(), &["*"]).await;
    subscribed(&app, &several.url(), &["billing.*", "billing.payment_failed", "*"]).await;
    subscribed(&app, &orders.url(), &["order.*"]).await;
    assert_eq!(publish(&app, "billing.payment_failed").await, 2);
    for name in ["order", "order.shipped", "order.item.lost", "orders.closed"] {
        add_type(&app, name).await;
    }
    assert_eq!(publish(&app, "order").await, 2, "a prefix does not mean itself");
    assert_eq!(publish(&app, "order.shipped").await, 3);
    assert_eq!(publish(&app, "order.item.lost").await, 3, "at any depth");
    assert_eq!(publish(&app, "orders.closed").await, 2, "a prefix ends with a dot");
    let of_all = ["billing.payment_failed", "order", "order.item.lost", "order.shipped", "orders.closed"];
    all.wait_for(5).await;
    several.wait_for(5).await;
    orders.wait_for(2).await;
    assert_eq!((types(&all), types(&several)), (of_all.map(str::to_owned).into(), of_all.map(str::to_owned).into()));
    assert_eq!(types(&orders), ["order.item.lost", "order.shipped"]);
}

#[tokio::test]
async fn wildcards_mean_no_operational_events_and_no_tests() {
    let app = App::start().await;
    let (everything, named) = (Receiver::start().await, Receiver::start().await);
    subscribed(&app, &everything.url(), &["*", "endpoint.*", "delivery.*", "secret.*"]).await;
    subscribed(&app, &named.url(), &["endpoint.disabled", "*"]).await;
    let other = subscribed(&app, "http://127.0.0.1:9/", &["billing.*"]).await;
    app.call("POST", &format!("{other}/test")).send().await.expect(200);
    app.call("POST", &format!("{other}/regenerate-secret")).send().await.expect(200);
    app.put(&other, json!({ "status": "disabled" })).await.expect(200);
    assert_eq!(publish(&app, EVENT).await, 2);
    named.wait_for(2).await;
    assert_eq!(types(&named), ["endpoint.disabled", EVENT]);
    everything.wait_for(1).await;
    let sent = app.get("/v1/webhooks/deliveries").await.expect(200);
    assert_eq!(sent.json["meta"]["pagination"]["total"], 4, "the test, the operational event, and the event twice");
    assert_eq!(types(&everything), [EVENT]);
    add_type(&app, "endpoint.renamed").await;
    assert_eq!(publish(&app, "endpoint.renamed").await, 2, "a type of the catalog that begins so is meant");
}

#[tokio::test]
async fn what_was_missed_and_what_a_replay_takes_go_by_the_wildcards_of_now() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let path = subscribed(&app, &receiver.url(), &["billing.*"]).await;
    let id = path.rsplit('/').next().expect("an id").to_owned();
    app.put(&path, json!({ "status": "disabled" })).await.expect(200);
    for event in [EVENT, "billing.payment_failed", "billing.invoice_upcoming"] {
        assert_eq!(publish(&app, event).await, 0);
    }
    let missed = async || app.get(&format!("{path}/missed")).await.expect(200).attribute("count").clone();
    assert_eq!(missed().await, 2);
    app.put(&path, json!({ "events": ["validation.*"] })).await.expect(200);
    assert_eq!(missed().await, 0);
    app.put(&path, json!({ "events": ["*"], "status": "active" })).await.expect(200);
    assert_eq!(missed().await, 2);
    let replay = app.replay(&id, json!({ "from": "2026-01-01", "status": "missed" })).await;
    assert_eq!(app.replayed(&replay).await["total"], 3, "the endpoint subscribes to all three now");
    receiver.wait_for(3).await;
    assert_eq!(types(&receiver), ["billing.invoice_upcoming", "billing.payment_failed", EVENT]);
    eventually("nothing to be missed", || async { (missed().await == 0).then_some(()) }).await;
}

#[tokio::test]
async fn an_endpoint_that_is_paused_and_turned_on_again_keeps_its_wildcards() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "")]).await;
    let receiver = Receiver::start().await;
    let path = subscribed(&app, &receiver.url(), &["billing.*"]).await;
    // The receiver pauses it by its answer.
    receiver.script([crate::app::Reply::Status(410)]);
    assert_eq!(publish(&app, "billing.payment_failed").await, 1);
    eventually("the pause", || async {
        (app.get(&path).await.expect(200).attribute("status") == "auto_disabled").then_some(())
    })
    .await;
    assert_eq!(publish(&app, "billing.payment_failed").await, 0);
    assert_eq!(app.get(&format!("{path}/missed")).await.expect(200).attribute("count"), 1);
    app.put(&path, json!({ "status": "active" })).await.expect(200);
    assert_eq!(publish(&app, "billing.payment_failed").await, 1);
    app.delete(&path).await.expect(204);
    assert_eq!(publish(&app, "billing.payment_failed").await, 0);
}

#[tokio::test]
async fn entries_that_are_no_type_and_no_wildcard_are_refused_in_both_languages_and_change_nothing() {
    let app = App::start().await;
    let path = subscribed(&app, "http://127.0.0.1:9/", &[EVENT]).await;
    let pointer = "/data/attributes/events";
    for wrong in
        ["", ".*", "**", "billing*", "*.billing", "a.*.b", "Billing.*", "billing..*", "b*.c", " *", "billing. *"]
    {
        let refused = app.put(&path, json!({ "events": [EVENT, wrong] })).await;
        let refused = refused.refused(422, "webhook_event_invalid", pointer);
        assert_eq!(refused.json["meta"]["event"], wrong);
        let detail = refused.json["errors"][0]["detail"].as_str().expect("a detail");
        assert!(detail.contains("* for all") && detail.contains("order.*"), "{detail}");
    }
    let too_long = format!("{}.*", "a".repeat(129));
    app.put(&path, json!({ "events": [too_long] })).await.refused(422, "webhook_event_invalid", pointer);
    let eleven: Vec<String> = (0..11).map(|n| format!("t{n}.*")).collect();
    app.put(&path, json!({ "events": eleven })).await.refused(422, "webhook_events_too_many", pointer);
    let body = json!({ "events": ["b*"] });
    let spanish = app.call("PUT", &path).header("accept-language", "es").json(&body).send().await.expect(422);
    let detail = spanish.json["errors"][0]["detail"].as_str().expect("a detail");
    assert!(detail.contains("comodines como order.*; esto no lo es: b*."), "{detail}");
    assert_eq!(app.get(&path).await.expect(200).attribute("events"), &json!([EVENT]));
    assert_eq!(minimum(app.folder()).await, 0);
    let ten: Vec<String> = (0..9).map(|n| format!("t{n}.*")).chain(["t0.*".to_owned()]).collect();
    let changed = app.put(&path, json!({ "events": ten })).await.expect(200);
    assert_eq!(changed.attribute("events").as_array().map(Vec::len), Some(9), "duplicates are dropped");
    assert_eq!(minimum(app.folder()).await, 17, "an older program would not send to it");
}

#[tokio::test]
async fn a_wildcard_is_refused_while_an_older_node_runs_and_works_on_every_node_of_this_version() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let other = app.another(&[]).await;
    let receiver = Receiver::start().await;
    let path = subscribed(&app, &receiver.url(), &[EVENT]).await;
    let older = "INSERT INTO nodes (key, seen_at, delivers) OVERRIDING SYSTEM VALUE \
                 VALUES (777, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, false)";
    database::execute(app.folder(), older).await;
    let refused = app.put(&path, json!({ "events": ["*"] })).await.refused(503, "unavailable", "");
    assert_eq!(refused.header("retry-after"), "10");
    let detail = refused.json["errors"][0]["detail"].as_str().expect("a detail");
    assert!(detail.contains("older version"), "{detail}");
    assert_eq!(app.get(&path).await.expect(200).attribute("events"), &json!([EVENT]));
    database::execute(app.folder(), "DELETE FROM nodes WHERE key = 777").await;
    assert_eq!(publish(&other, "billing.payment_failed").await, 0, "so it is known");
    app.put(&path, json!({ "events": ["*"] })).await.expect(200);
    assert_eq!(publish(&other, "billing.payment_failed").await, 1);
    receiver.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wildcards_are_chosen_in_the_dashboard() {
    let app = App::start().await;
    let mut browser = owners_browser(&app).await;
    let new = format!("/accounts/{}/endpoints/new", app.account);
    let page = browser.open(&new).await.expect(200);
    for name in ["*", "billing.*", "validation.*", "validation.retry.*"] {
        assert!(page.html.contains(&format!("name=\"events\" value=\"{name}\"")), "{name}: {}", page.content());
    }
    let form = [("url", "http://127.0.0.1:9/"), ("events", "billing.*"), ("events", EVENT)];
    browser.submit(&page, &new, &form).await.expect(200);
    let listed = app.get("/v1/webhooks").await.expect(200);
    let made = &listed.json["data"][0];
    assert_eq!(made["attributes"]["events"], json!(["billing.*", EVENT]));
    app.put(&format!("/v1/webhooks/{}", made["id"].as_str().expect("an id")), json!({ "events": ["no.such.*"] }))
        .await
        .expect(200);
    let endpoint = format!("/accounts/{}/endpoints/{}", app.account, made["id"].as_str().expect("an id"));
    let edit = browser.open(&format!("{endpoint}/edit")).await.expect(200);
    assert!(edit.html.contains("name=\"events\" value=\"no.such.*\" checked"), "{}", edit.content());
    assert!(!edit.html.contains("No longer in the catalog"), "{}", edit.content());
    assert!(browser.open(&endpoint).await.expect(200).html.contains("no.such.*"));
}
