//! Publishing, the catalog, and looking back.

use serde_json::{Value, json};

use crate::app::{App, EVENT, Receiver};

#[tokio::test]
async fn an_accepted_event_is_answered_with_202_and_can_be_read() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    app.endpoint(&receiver.url()).await;
    app.endpoint(&receiver.url()).await;
    let body = json!({ "event": EVENT, "data": { "n": 1 }, "timestamp": "2026-05-01T07:14:38.5+02:00" });
    let accepted = app.post("/v1/events", body).await.expect(202);
    assert_eq!(accepted.json["data"]["type"], "event");
    let attributes = &accepted.json["data"]["attributes"];
    assert_eq!((&attributes["event"], &attributes["timestamp"]), (&json!(EVENT), &json!("2026-05-01T05:14:38Z")));
    assert_eq!((&attributes["deliveries"], &attributes["account_id"]), (&json!(2), &json!(app.account.to_string())));
    assert!(attributes["created_at"].as_str().is_some_and(|at| at.len() == 20));
    assert!(uuid::Uuid::parse_str(&accepted.id()).is_ok());
    let read = app.get(&format!("/v1/events/{}", accepted.id())).await.expect(200);
    assert_eq!(read.json["data"]["attributes"], *attributes);
    let deliveries = read.json["data"]["relationships"]["deliveries"]["data"].as_array().expect("a list").clone();
    assert_eq!(deliveries.len(), 2);
    let listed = app.get("/v1/events").await.expect(200);
    assert_eq!(listed.json["data"][0]["id"], accepted.id());
    assert_eq!(listed.json["meta"]["pagination"]["total"], 1);
    let sent: Value = serde_json::from_slice(&receiver.wait_for(2).await[0].body).expect("JSON");
    assert_eq!(sent["timestamp"], "2026-05-01T05:14:38Z");
}

#[tokio::test]
async fn data_goes_out_as_it_came_in() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    app.endpoint(&receiver.url()).await;
    let data = r#"{ "big": 123456789012345678901234567890, "one": 1.0, "e": 1E5, "s": "\u00e9 \/ é", "a":[ ] }"#;
    let body = format!(r#"{{"event":"{EVENT}","data":{data}}}"#);
    app.call("POST", "/v1/events").header("content-type", "application/json").body(body).send().await.expect(202);
    let sent = receiver.wait_for(1).await.remove(0).body;
    assert!(String::from_utf8_lossy(&sent).contains(&format!("\"data\":{data},\"meta\"")));
}

#[tokio::test]
async fn only_subscribed_active_endpoints_of_the_account_get_it() {
    let app = App::start().await;
    let (subscribed, other) = (Receiver::start().await, Receiver::start().await);
    app.endpoint(&subscribed.url()).await;
    let body = json!({ "url": other.url(), "events": ["billing.payment_failed"] });
    app.post("/v1/webhooks", body).await.expect(201);
    let (_, stranger) = app.stranger().await;
    let body = json!({ "url": other.url(), "events": [EVENT] });
    app.call("POST", "/v1/webhooks").bearer(&stranger).json(&body).send().await.expect(201);
    app.publish(json!({})).await;
    subscribed.wait_for(1).await;
    app.post("/v1/events", json!({ "event": "billing.payment_failed", "data": {} })).await.expect(202);
    assert_eq!(other.wait_for(1).await[0].header("x-aldaba-event"), "billing.payment_failed");
    assert_eq!((subscribed.received().len(), other.received().len()), (1, 1));
}

#[tokio::test]
async fn every_field_of_an_event_is_checked() {
    let app = App::start().await;
    for (body, code, field) in [
        (json!({ "data": {} }), "event_required", "event"),
        (json!({ "event": "no.such", "data": {} }), "event_unknown", "event"),
        (json!({ "event": 5, "data": {} }), "event_unknown", "event"),
        (json!({ "event": "test", "data": {} }), "event_unknown", "event"),
        (json!({ "event": EVENT }), "event_data_required", "data"),
        (json!({ "event": EVENT, "data": [] }), "event_data_invalid", "data"),
        (json!({ "event": EVENT, "data": "x" }), "event_data_invalid", "data"),
        (json!({ "event": EVENT, "data": {}, "timestamp": "yesterday" }), "event_timestamp_invalid", "timestamp"),
        (json!({ "event": EVENT, "data": {}, "timestamp": 5 }), "event_timestamp_invalid", "timestamp"),
    ] {
        app.post("/v1/events", body).await.refused(422, code, &format!("/data/attributes/{field}"));
    }
    let all = app.post("/v1/events", json!({ "data": 1, "timestamp": 1 })).await.expect(422);
    assert_eq!(all.codes(), ["event_required", "event_data_invalid", "event_timestamp_invalid"]);
    let unknown = app.post("/v1/events", json!({ "event": "no.such", "data": {} })).await;
    assert_eq!(unknown.json["meta"]["event"], "no.such");
    for body in ["", "[]", "{", "{\"event\":\"a\",\"event\":\"b\"}"] {
        let sent = app.call("POST", "/v1/events").header("content-type", "application/json").body(body).send().await;
        assert_eq!(sent.status, 400, "{body}");
    }
    let large = json!({ "event": EVENT, "data": { "x": "y".repeat(256 * 1024) } });
    app.post("/v1/events", large).await.refused(413, "body_too_large", "");
    assert_eq!(app.get("/v1/events").await.json["meta"]["pagination"]["total"], 0);
}

#[tokio::test]
async fn an_operator_publishes_for_the_account_that_it_names() {
    let app = App::start().await;
    let publish = |body: Value| app.call("POST", "/v1/events").bearer(&app.operator).json(&body).send();
    let missing = publish(json!({ "event": EVENT, "data": {} })).await;
    missing.refused(422, "event_account_required", "/data/attributes/account_id");
    for id in ["00000000-0000-4000-8000-000000000000", "nope"] {
        publish(json!({ "event": "no.such", "data": {}, "account_id": id })).await.refused(404, "not_found", "");
    }
    let accepted = publish(json!({ "event": EVENT, "data": {}, "account_id": app.account.to_string() })).await;
    assert_eq!(accepted.expect(202).attribute("account_id"), &json!(app.account.to_string()));
    let (stranger, _) = app.stranger().await;
    let body = json!({ "event": EVENT, "data": {}, "account_id": stranger.to_string() });
    app.post("/v1/events", body).await.refused(404, "not_found", "");
    let own = json!({ "event": EVENT, "data": {}, "account_id": app.account.to_string() });
    app.post("/v1/events", own).await.expect(202);
}

#[tokio::test]
async fn a_batch_is_accepted_whole_or_not_at_all() {
    let app = App::start().await;
    let good = json!({ "event": EVENT, "data": { "n": 1 } });
    let accepted = app.post("/v1/events/batch", json!({ "events": [good, good, good] })).await.expect(202);
    let ids: Vec<_> = accepted.json["data"].as_array().expect("a list").iter().map(|e| e["id"].clone()).collect();
    assert_eq!(ids.len(), 3);
    let lines = format!("{good}\n\n{good}\r\n");
    let sent = app.call("POST", "/v1/events/batch").header("content-type", "application/x-ndjson").body(lines.clone());
    assert_eq!(sent.send().await.expect(202).json["data"].as_array().map(Vec::len), Some(2));
    let mixed = json!({ "events": [good, { "event": "no.such", "data": {} }, { "event": EVENT }, 7] });
    let refused = app.post("/v1/events/batch", mixed).await.refused(422, "event_unknown", "/events/1/event");
    assert_eq!(refused.codes(), ["event_unknown", "event_data_required", "events_invalid"]);
    assert_eq!(refused.json["errors"][1]["source"]["pointer"], "/events/2/data");
    assert_eq!(app.get("/v1/events").await.json["meta"]["pagination"]["total"], 5, "all or none");
    for (body, code) in [
        (json!({}), "events_required"),
        (json!({ "events": [] }), "events_required"),
        (json!({ "events": vec![good.clone(); 1_001] }), "events_too_many"),
        (json!({ "events": "x" }), "events_invalid"),
    ] {
        app.post("/v1/events/batch", body).await.refused(422, code, "/events");
    }
    let large = json!({ "event": EVENT, "data": { "x": "y".repeat(257 * 1024) } });
    let refused = app.post("/v1/events/batch", json!({ "events": [good, large] })).await;
    refused.refused(413, "body_too_large", "/events/1");
    let many = json!({ "events": vec![json!({ "event": EVENT, "data": { "x": "y".repeat(9_000) } }); 999] });
    app.post("/v1/events/batch", many).await.refused(413, "body_too_large", "");
    let wrong = app.call("POST", "/v1/events/batch").header("content-type", "text/csv").body(lines).send().await;
    wrong.refused(415, "unsupported_media_type", "");
}

#[tokio::test]
async fn the_catalog_belongs_to_the_operator() {
    let app = App::start().await;
    let call = |method: &str, path: &str| app.call(method, path).bearer(&app.operator);
    let listed = app.get("/v1/event-types").await.expect(200);
    assert_eq!(listed.json["meta"]["pagination"]["total"], 12);
    let new = json!({
        "name": "order.paid", "description": "An order was paid.",
        "schema": { "type": "object", "required": ["order"], "properties": { "order": { "type": "integer" } } },
        "example": { "order": 7 },
    });
    let made = call("POST", "/v1/event-types").json(&new).send().await.expect(201);
    assert_eq!((made.id().as_str(), made.attribute("example")), ("order.paid", &json!({ "order": 7 })));
    call("POST", "/v1/event-types").json(&new).send().await.refused(409, "event_type_exists", "/data/attributes/name");
    for (body, code, field) in [
        (json!({}), "event_type_name_required", "name"),
        (json!({ "name": "Order.Paid" }), "event_type_name_invalid", "name"),
        (json!({ "name": "test" }), "event_type_name_invalid", "name"),
        (json!({ "name": "a.b", "description": 5 }), "event_type_description_invalid", "description"),
        (json!({ "name": "a.b", "schema": { "type": "nonsense" } }), "event_type_schema_invalid", "schema"),
        (
            json!({ "name": "a.b", "schema": { "$ref": "https://example.com/s.json" } }),
            "event_type_schema_invalid",
            "schema",
        ),
        (
            json!({ "name": "a.b", "schema": { "type": "object", "required": ["x"] }, "example": {} }),
            "event_type_example_invalid",
            "example",
        ),
    ] {
        let refused = call("POST", "/v1/event-types").json(&body).send().await;
        refused.refused(422, code, &format!("/data/attributes/{field}"));
    }
    let wrong = app.post("/v1/events", json!({ "event": "order.paid", "data": { "order": "x" } })).await;
    wrong.refused(422, "event_data_invalid", "/data/attributes/data");
    app.post("/v1/events", json!({ "event": "order.paid", "data": { "order": 1 } })).await.expect(202);
    let path = "/v1/event-types/order.paid";
    let body = json!({ "schema": null, "example": null });
    let updated = call("PUT", path).json(&body).send().await.expect(200);
    assert_eq!(
        (updated.attribute("schema"), updated.attribute("description")),
        (&Value::Null, &json!("An order was paid."))
    );
    app.post("/v1/events", json!({ "event": "order.paid", "data": { "order": "x" } })).await.expect(202);
    call("PUT", path).json(&json!({})).send().await.refused(422, "no_valid_fields", "");
    call("PUT", "/v1/event-types/no.such").json(&body).send().await.refused(404, "not_found", "");
    call("DELETE", path).send().await.expect(204);
    call("DELETE", path).send().await.refused(404, "not_found", "");
}

#[tokio::test]
async fn a_type_that_leaves_the_catalog_stays_subscribed_and_gets_no_more_events() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    app.delivery(&id, "success").await;
    let path = format!("/v1/event-types/{EVENT}");
    app.call("DELETE", &path).bearer(&app.operator).send().await.expect(204);
    let gone = app.post("/v1/events", json!({ "event": EVENT, "data": {} })).await;
    gone.refused(422, "event_unknown", "/data/attributes/event");
    assert_eq!(app.get(&format!("/v1/webhooks/{id}")).await.attribute("events"), &json!([EVENT]));
    assert_eq!(app.delivery(&id, "success").await["attributes"]["event_type"], EVENT, "history keeps its name");
}
