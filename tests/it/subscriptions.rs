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
    assert!(detail.contains("comodines como order.*; esta entrada no es válida: b*."), "{detail}");
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

/// Publishes an event with these channels, and returns how many deliveries it has made.
async fn publish_to(app: &App, channels: &[&str]) -> u64 {
    let body = json!({ "event": EVENT, "channels": channels, "data": { "to": channels } });
    let published = app.post("/v1/events", body).await.expect(202);
    assert_eq!(published.attribute("channels"), &json!(channels));
    published.attribute("deliveries").as_u64().expect("a number")
}

#[tokio::test]
async fn an_endpoint_with_channels_gets_what_is_published_with_one_of_them() {
    let app = App::start().await;
    let (seven, all) = (Receiver::start().await, Receiver::start().await);
    let body = json!({ "url": seven.url(), "events": ["*"], "channels": ["tenant:7", "eu"] });
    let made = app.post("/v1/webhooks", body).await.expect(201);
    assert_eq!(made.attribute("channels"), &json!(["tenant:7", "eu"]));
    let path = format!("/v1/webhooks/{}", made.id());
    let bare = app.post("/v1/webhooks", json!({ "url": all.url(), "events": [EVENT], "channels": null })).await;
    assert!(bare.expect(201).json["data"]["attributes"].get("channels").is_none());
    assert_eq!(publish_to(&app, &["tenant:7"]).await, 2);
    assert_eq!(publish_to(&app, &["tenant:8", "eu", "x", "y", "z"]).await, 2);
    assert_eq!(publish_to(&app, &["tenant:8", "EU", "tenant"]).await, 1, "names are compared whole");
    assert_eq!(publish(&app, EVENT).await, 1, "it carries none");
    let requests = seven.wait_for(2).await;
    for request in &requests {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert!(body.get("channels").is_none() && body["data"]["to"].is_array(), "{body}");
    }
    all.wait_for(4).await;
    let listed = app.get("/v1/events").await.expect(200);
    let shown: Vec<_> = listed.json["data"].as_array().expect("a list").iter().collect();
    assert!(shown[0]["attributes"].get("channels").is_none());
    assert_eq!(shown[3]["attributes"]["channels"], json!(["tenant:7"]));
    let one = app.get(&format!("/v1/events/{}", shown[3]["id"].as_str().expect("an id"))).await.expect(200);
    assert_eq!(one.attribute("channels"), &json!(["tenant:7"]));
    let kept = app.put(&path, json!({ "description": "a" })).await.expect(200);
    assert_eq!(kept.attribute("channels"), &json!(["tenant:7", "eu"]), "an absent field stays");
    let replaced = app.put(&path, json!({ "channels": ["tenant:8"] })).await.expect(200);
    assert_eq!(replaced.attribute("channels"), &json!(["tenant:8"]));
    assert_eq!(publish_to(&app, &["tenant:7"]).await, 1);
    let removed = app.put(&path, json!({ "channels": null })).await.expect(200);
    assert!(removed.json["data"]["attributes"].get("channels").is_none());
    assert_eq!(publish(&app, EVENT).await, 2);
    assert_eq!(minimum(app.folder()).await, 18, "an older program would send it everything");
}

#[tokio::test]
async fn channels_hold_for_batches_for_what_is_missed_and_for_replays_as_they_are_when_they_run() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let body = json!({ "url": receiver.url(), "events": [EVENT], "channels": ["a"], "status": "disabled" });
    let made = app.post("/v1/webhooks", body).await.expect(201);
    let path = format!("/v1/webhooks/{}", made.id());
    let event = |n: u32, channels: Value| json!({ "event": EVENT, "data": { "n": n }, "channels": channels });
    let events = [event(0, json!(["a"])), event(1, json!(["b"])), event(2, json!(["b", "a"])), event(3, Value::Null)];
    app.post("/v1/events/batch", json!({ "events": events })).await.expect(202);
    assert_eq!(app.get(&format!("{path}/missed")).await.expect(200).attribute("count"), 2);
    app.put(&path, json!({ "status": "active" })).await.expect(200);
    let sent = async |count: usize| {
        let requests = receiver.wait_for(count).await;
        let read = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON")["data"]["n"].as_u64();
        let mut numbers: Vec<_> = requests.iter().filter_map(|request| read(&request.body)).collect();
        numbers.sort_unstable();
        numbers
    };
    for (selection, total) in [("missed", 2), ("all", 2)] {
        let replay = app.replay(&made.id(), json!({ "from": "2026-01-01", "status": selection })).await;
        assert_eq!(app.replayed(&replay).await["total"], total);
    }
    assert_eq!(sent(4).await, [0, 0, 2, 2]);
    app.put(&path, json!({ "channels": ["b"] })).await.expect(200);
    let replay = app.replay(&made.id(), json!({ "from": "2026-01-01", "status": "all" })).await;
    assert_eq!(app.replayed(&replay).await["total"], 2, "also of what it has a delivery of");
    assert_eq!(sent(6).await, [0, 0, 1, 2, 2, 2]);
}

#[tokio::test]
async fn operational_events_and_tests_ignore_channels() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let body = json!({ "url": receiver.url(), "events": ["endpoint.disabled", EVENT], "channels": ["a"] });
    let made = app.post("/v1/webhooks", body).await.expect(201);
    let other = subscribed(&app, "http://127.0.0.1:9/", &[EVENT]).await;
    app.put(&other, json!({ "status": "disabled" })).await.expect(200);
    app.call("POST", &format!("/v1/webhooks/{}/test", made.id())).send().await.expect(200);
    receiver.wait_for(2).await;
    assert_eq!(types(&receiver), ["endpoint.disabled", "test"]);
    let replay = app.replay(&made.id(), json!({ "from": "2026-01-01", "status": "all" })).await;
    assert_eq!(app.replayed(&replay).await["total"], 1);
}

#[tokio::test]
async fn a_delivery_that_exists_goes_on_whatever_the_channels_are() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "1s,1s,1s")]).await;
    let receiver = Receiver::start().await;
    let body = json!({ "url": receiver.url(), "events": [EVENT], "channels": ["a"] });
    let made = app.post("/v1/webhooks", body).await.expect(201);
    receiver.script([crate::app::Reply::Status(500)]);
    assert_eq!(publish_to(&app, &["a"]).await, 1);
    receiver.wait_for(1).await;
    app.put(&format!("/v1/webhooks/{}", made.id()), json!({ "channels": ["b"] })).await.expect(200);
    receiver.wait_for(2).await;
    app.delivery(&made.id(), "success").await;
}

#[tokio::test]
async fn channels_that_are_not_allowed_are_refused_in_both_languages_and_store_nothing() {
    let app = App::start().await;
    let path = subscribed(&app, "http://127.0.0.1:9/", &[EVENT]).await;
    let names = |count: usize| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>();
    let wrong = [
        json!("a"),
        json!(7),
        json!({}),
        json!([]),
        json!([7]),
        json!([null]),
        json!([["a"]]),
        json!([""]),
        json!(["a", "b", "a"]),
        json!(["a b"]),
        json!(["a,b"]),
        json!(["ñ"]),
        json!(["a\u{0}"]),
        json!(["a\n"]),
        json!(["a".repeat(129)]),
        json!(names(11)),
    ];
    let pointer = "/data/attributes/channels";
    for channels in &wrong {
        let refused = app.put(&path, json!({ "channels": channels })).await;
        refused.refused(422, "webhook_channels_invalid", pointer);
        let body = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT], "channels": channels });
        app.post("/v1/webhooks", body).await.refused(422, "webhook_channels_invalid", pointer);
        let body = json!({ "event": EVENT, "data": {}, "channels": channels });
        app.post("/v1/events", body).await.refused(422, "event_channels_invalid", pointer);
    }
    let six = json!({ "event": EVENT, "data": {}, "channels": names(6) });
    app.post("/v1/events", six.clone()).await.refused(422, "event_channels_invalid", pointer);
    let batch = json!({ "events": [{ "event": EVENT, "data": {} }, six] });
    app.post("/v1/events/batch", batch).await.refused(422, "event_channels_invalid", "/events/1/channels");
    let several = json!({ "event": "no.such", "data": 1, "timestamp": 1, "channels": [] });
    let several =
        app.call("POST", "/v1/events").header("accept-language", "es").json(&several).send().await.expect(422);
    let codes = ["event_unknown", "event_data_invalid", "event_timestamp_invalid", "event_channels_invalid"];
    assert_eq!(several.codes(), codes);
    let detail = several.json["errors"][3]["detail"].as_str().expect("a detail");
    assert!(detail.contains("de 1 a 5 cadenas distintas"), "{detail}");
    let spanish = app.call("PUT", &path).header("accept-language", "es").json(&json!({ "channels": [] })).send().await;
    let detail = spanish.json["errors"][0]["detail"].as_str().expect("a detail");
    assert!(detail.contains("de 1 a 10 cadenas distintas"), "{detail}");
    assert_eq!(app.get("/v1/events").await.expect(200).json["meta"]["pagination"]["total"], 0);
    let listed = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(listed.json["data"].as_array().map(Vec::len), Some(1));
    assert!(listed.json["data"][0]["attributes"].get("channels").is_none());
    app.put(&path, json!({ "channels": names(10) })).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_written_and_shown_in_the_dashboard() {
    let app = App::start().await;
    let mut browser = owners_browser(&app).await;
    let new = format!("/accounts/{}/endpoints/new", app.account);
    let page = browser.open(&new).await.expect(200);
    let form = |channels| [("url", "http://127.0.0.1:9/"), ("events", EVENT), ("channels", channels)];
    let refused = browser.submit(&page, &new, &form("a, a")).await.expect(422);
    assert!(refused.html.contains("f-channels-error"), "{}", refused.content());
    browser.submit(&page, &new, &form(" tenant:7,eu ")).await.expect(200);
    let listed = app.get("/v1/webhooks").await.expect(200);
    let made = &listed.json["data"][0];
    assert_eq!(made["attributes"]["channels"], json!(["tenant:7", "eu"]));
    let endpoint = format!("/accounts/{}/endpoints/{}", app.account, made["id"].as_str().expect("an id"));
    assert!(browser.open(&endpoint).await.expect(200).html.contains("<code>tenant:7</code>"));
    let edit = format!("{endpoint}/edit");
    let page = browser.open(&edit).await.expect(200);
    assert!(page.html.contains("value=\"tenant:7, eu\""), "{}", page.content());
    browser.submit(&page, &edit, &form("")).await.expect(200);
    let removed = app.get("/v1/webhooks").await.expect(200);
    assert!(removed.json["data"][0]["attributes"].get("channels").is_none());
    let event_type = format!("/accounts/{}/event-types/{EVENT}", app.account);
    let page = browser.open(&event_type).await.expect(200);
    let refused = browser.submit(&page, &event_type, &[("data", "{}"), ("channels", "a b c d e f")]).await.expect(422);
    assert!(refused.html.contains("f-channels-error"), "{}", refused.content());
    let shown = browser.submit(&page, &event_type, &[("data", "{}"), ("channels", "tenant:7")]).await.expect(200);
    assert!(shown.html.contains("<code>tenant:7</code>"), "{}", shown.content());
}
