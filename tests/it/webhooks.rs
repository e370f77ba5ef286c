//! The webhooks resource: create, read, update, delete, test, and every fault of its fields.

use aldaba::domain::permission::Permission;
use serde_json::{Value, json};

use crate::app::{App, EVENT, Receiver, Reply};
use crate::database;

#[tokio::test]
async fn a_created_endpoint_shows_its_secret_once() {
    let app = App::start().await;
    let body = json!({
        "url": "http://127.0.0.1:9/hook", "events": [EVENT, "billing.payment_failed", EVENT],
        "description": "shop", "unknown": { "is": "ignored" },
    });
    let made = app.post("/v1/webhooks", body).await.expect(201);
    assert_eq!(made.json["data"]["type"], "webhook_endpoint");
    let secret = made.attribute("secret").as_str().expect("a secret").to_owned();
    assert!(secret.len() == 64 && secret.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    assert!(made.attribute("secret_hint").is_null());
    assert_eq!(uuid::Uuid::parse_str(&made.id()).expect("a UUID").get_version_num(), 4);
    let read = app.get(&format!("/v1/webhooks/{}", made.id())).await.expect(200);
    let attributes = &read.json["data"]["attributes"];
    assert_eq!(attributes["events"], json!([EVENT, "billing.payment_failed"]));
    assert_eq!(attributes["secret_hint"], format!("...{}", &secret[60..]));
    let mut names: Vec<_> = attributes.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected =
        "consecutive_failures created_at description events last_delivery_at secret_hint status updated_at url";
    assert_eq!(names.join(" "), expected);
    assert_eq!((&attributes["status"], &attributes["consecutive_failures"]), (&json!("active"), &json!(0)));
    assert_eq!(attributes["last_delivery_at"], Value::Null);
    let at = attributes["created_at"].as_str().expect("a time");
    assert!(at.len() == 20 && at.ends_with('Z'), "{at}");
    assert!(!String::from_utf8_lossy(&read.text).contains(&secret));
}

#[tokio::test]
async fn endpoints_are_listed_newest_first_and_deleted_for_good() {
    let app = App::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.insert(0, app.endpoint("http://127.0.0.1:9/").await.0);
    }
    let listed = app.get("/v1/webhooks").await.expect(200);
    let found: Vec<_> = listed.json["data"].as_array().expect("a list").iter().map(|e| e["id"].clone()).collect();
    assert_eq!(json!(found), json!(ids));
    let gone = app.delete(&format!("/v1/webhooks/{}", ids[0])).await.expect(204);
    assert!(gone.text.is_empty());
    app.get(&format!("/v1/webhooks/{}", ids[0])).await.refused(404, "not_found", "");
    app.delete(&format!("/v1/webhooks/{}", ids[0])).await.refused(404, "not_found", "");
    assert_eq!(app.get("/v1/webhooks").await.json["data"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn every_field_of_a_new_endpoint_is_checked() {
    let app = App::with(&[("ENVIRONMENT", "production")]).await;
    let events = json!([EVENT]);
    let long = format!("https://example.com/{}", "a".repeat(2048));
    let eleven = json!(vec![EVENT; 11]);
    let url = |value: Value| json!({ "url": value, "events": events });
    let of = |value: Value| json!({ "url": "https://1.1.1.1/", "events": value });
    let cases = [
        (json!({ "events": events }), "webhook_url_required", "url"),
        (url(Value::Null), "webhook_url_required", "url"),
        (url(json!("")), "webhook_url_required", "url"),
        (url(json!(5)), "webhook_url_invalid_type", "url"),
        (url(json!(["https://a.example"])), "webhook_url_invalid_type", "url"),
        (url(json!(long)), "webhook_url_too_long", "url"),
        (url(json!("shop.example")), "webhook_url_invalid_format", "url"),
        (url(json!("https://user:pass@shop.example/")), "webhook_url_invalid_format", "url"),
        (url(json!("http://shop.example/")), "webhook_url_not_https", "url"),
        (json!({ "url": "https://1.1.1.1/" }), "webhook_events_required", "events"),
        (of(json!([])), "webhook_events_required", "events"),
        (of(eleven), "webhook_events_too_many", "events"),
        (of(json!("validation.completed")), "webhook_event_invalid", "events"),
        (of(json!([7])), "webhook_event_invalid", "events"),
        (of(json!(["no.such"])), "webhook_event_invalid", "events"),
        (
            json!({ "url": "https://1.1.1.1/", "events": events, "description": 5 }),
            "webhook_description_invalid_type",
            "description",
        ),
        (
            json!({ "url": "https://1.1.1.1/", "events": events, "description": "ñ".repeat(256) }),
            "webhook_description_too_long",
            "description",
        ),
    ];
    for (body, code, field) in cases {
        app.post("/v1/webhooks", body).await.refused(422, code, &format!("/data/attributes/{field}"));
    }
    let unknown = app.post("/v1/webhooks", of(json!([EVENT, "no.such"]))).await;
    assert_eq!(unknown.json["meta"]["event"], "no.such");
    let all = app.post("/v1/webhooks", json!({ "url": 1, "events": ["x.y"], "description": [] })).await.expect(422);
    assert_eq!(all.codes(), ["webhook_url_invalid_type", "webhook_event_invalid", "webhook_description_invalid_type"]);
    assert_eq!(app.get("/v1/webhooks").await.json["data"], json!([]), "nothing was made");
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_nothing_else() {
    let app = App::start().await;
    let (id, secret) = app.endpoint("http://127.0.0.1:9/a").await;
    let path = format!("/v1/webhooks/{id}");
    let changed = app.put(&path, json!({ "description": "new" })).await.expect(200);
    assert_eq!(changed.attribute("description"), "new");
    assert_eq!(changed.attribute("url"), "http://127.0.0.1:9/a");
    assert_eq!(changed.attribute("secret_hint"), &json!(format!("...{}", &secret[60..])));
    assert!(changed.attribute("secret").is_null());
    let changed = app.put(&path, json!({ "url": "http://127.0.0.1:9/b", "description": null })).await.expect(200);
    assert_eq!(
        (changed.attribute("url"), changed.attribute("description")),
        (&json!("http://127.0.0.1:9/b"), &Value::Null)
    );
    for (body, code, field) in [
        (json!({ "url": "" }), "webhook_url_empty", "url"),
        (json!({ "url": null }), "webhook_url_invalid_type", "url"),
        (json!({ "url": "nope" }), "webhook_url_invalid_format", "url"),
        (json!({ "events": [] }), "webhook_events_required", "events"),
        (json!({ "events": null }), "webhook_event_invalid", "events"),
        (json!({ "status": "auto_disabled" }), "webhook_status_invalid", "status"),
        (json!({ "status": 1 }), "webhook_status_invalid", "status"),
        (json!({ "status": null }), "webhook_status_invalid", "status"),
        (json!({ "description": {} }), "webhook_description_invalid_type", "description"),
    ] {
        app.put(&path, body).await.refused(422, code, &format!("/data/attributes/{field}"));
    }
    for body in [json!({}), json!({ "name": "x" })] {
        app.put(&path, body).await.refused(422, "no_valid_fields", "");
    }
    app.call("PUT", &path).header("content-type", "application/json").send().await.refused(400, "body_empty", "");
}

#[tokio::test]
async fn an_account_has_a_limit_of_endpoints() {
    let app = App::with(&[("WEBHOOKS__MAX_ENDPOINTS", "2")]).await;
    let (first, _) = app.endpoint("http://127.0.0.1:9/").await;
    app.endpoint("http://127.0.0.1:9/").await;
    let body = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT] });
    let refused = app.post("/v1/webhooks", body.clone()).await.refused(422, "webhook_limit_reached", "");
    assert_eq!(refused.json["meta"]["limit"], 2);
    app.delete(&format!("/v1/webhooks/{first}")).await.expect(204);
    app.post("/v1/webhooks", body).await.expect(201);
}

#[tokio::test]
async fn in_production_only_public_addresses_are_registered() {
    let app = App::with(&[("ENVIRONMENT", "production")]).await;
    let create = |url: &str| app.post("/v1/webhooks", json!({ "url": url, "events": [EVENT] }));
    for url in [
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://192.168.0.1:8443/x",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[fd00::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://[2002:7f00:1::]/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://localhost/",
        "https://localhost./",
        "https://a.localhost/",
        "https://A.LOCALHOST./",
        "https://0.0.0.0/",
    ] {
        create(url).await.refused(400, "url_ssrf_blocked", "/data/attributes/url");
    }
    create("https://does-not-exist.invalid/").await.refused(400, "url_dns_failed", "/data/attributes/url");
    let public = create("https://1.1.1.1/").await.expect(201);
    let path = format!("/v1/webhooks/{}", public.id());
    app.put(&path, json!({ "url": "https://10.0.0.1/" })).await.refused(
        400,
        "url_ssrf_blocked",
        "/data/attributes/url",
    );
    let both = app.post("/v1/webhooks", json!({ "url": "https://10.0.0.1/", "events": [] })).await.expect(422);
    assert_eq!(both.codes(), ["webhook_events_required"], "the network is looked at when all else is right");
}

#[tokio::test]
async fn a_test_tells_how_the_receiver_answered() {
    let app = App::with(&[("WEBHOOKS__TIMEOUT", "1s")]).await;
    let receiver = Receiver::start().await;
    let (id, secret) = app.endpoint(&receiver.url()).await;
    let path = format!("/v1/webhooks/{id}/test");
    let told = app.call("POST", &path).send().await.expect(200);
    assert_eq!(told.json["data"]["type"], "webhook_test_result");
    assert_eq!((told.attribute("delivered"), told.attribute("http_status")), (&json!(true), &json!(200)));
    assert_eq!(told.attribute("error"), &Value::Null);
    assert!(told.attribute("response_time_ms").is_u64());
    let request = &receiver.received()[0];
    crate::verify::assert_signed(request, &secret);
    assert_eq!(request.header("x-aldaba-event"), "test");

    receiver.script([Reply::Status(500), Reply::Hang]);
    let failed = app.call("POST", &path).send().await.expect(200);
    assert_eq!((failed.attribute("delivered"), failed.attribute("http_status")), (&json!(false), &json!(500)));
    let silent = app.call("POST", &path).send().await.expect(200);
    assert_eq!((silent.attribute("delivered"), silent.attribute("http_status")), (&json!(false), &json!(0)));
    assert!(silent.attribute("error").as_str().expect("words").contains("timed out after 1s"));

    let endpoint = app.get(&format!("/v1/webhooks/{id}")).await.expect(200);
    assert_eq!(endpoint.attribute("consecutive_failures"), 0, "a test does not count");
    assert!(endpoint.attribute("last_delivery_at").is_string());
    let listed = app.get(&format!("/v1/webhooks/{id}/deliveries")).await.expect(200);
    let rows = listed.json["data"].as_array().expect("a list");
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row["attributes"]["event_type"] == "test"));
    let outcomes: Vec<_> = rows.iter().map(|row| row["attributes"]["status"].as_str().unwrap_or("")).collect();
    assert_eq!(outcomes, ["failed", "failed", "success"]);
    assert_eq!(app.get("/v1/events").await.json["meta"]["pagination"]["total"], 0, "a test is no event");
}

#[tokio::test]
async fn a_paused_endpoint_can_be_tested() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.put(&format!("/v1/webhooks/{id}"), json!({ "status": "disabled" })).await.expect(200);
    let told = app.call("POST", &format!("/v1/webhooks/{id}/test")).send().await.expect(200);
    assert_eq!(told.attribute("delivered"), true);
}

#[tokio::test]
async fn a_call_that_needs_no_body_takes_none_with_any_content_type() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    for action in ["regenerate-secret", "test"] {
        let path = format!("/v1/webhooks/{id}/{action}");
        app.call("POST", &path).send().await.expect(200);
        app.call("POST", &path).header("content-type", "application/json").send().await.expect(200);
        app.call("POST", &path).header("content-type", "text/plain").send().await.expect(200);
        app.call("POST", &path).json(&json!({})).send().await.expect(200);
        let wrong = app.call("POST", &path).header("content-type", "application/json").body("[").send().await;
        wrong.refused(400, "invalid_json", "");
    }
    let reader = app.key_for(&[Permission::WebhooksRead]).await;
    let path = format!("/v1/webhooks/{id}/regenerate-secret");
    app.call("POST", &path).bearer(&reader).send().await.refused(403, "forbidden", "");
}

#[tokio::test]
async fn deleting_an_endpoint_removes_its_history() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    app.delivery(&id, "success").await;
    app.delete(&format!("/v1/webhooks/{id}")).await.expect(204);
    app.get(&format!("/v1/webhooks/{id}/deliveries")).await.refused(404, "not_found", "");
    let all = app.get("/v1/webhooks/deliveries").await.expect(200);
    assert_eq!((&all.json["data"], &all.json["meta"]["pagination"]["total"]), (&json!([]), &json!(0)));
}

#[tokio::test]
async fn test_sends_to_one_endpoint_are_bounded() {
    let app = App::with(&[("WEBHOOKS__MAX_IN_FLIGHT_PER_ENDPOINT", "1"), ("WEBHOOKS__TIMEOUT", "2s")]).await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Hang]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    let path = format!("/v1/webhooks/{id}/test");
    let hanging = tokio::spawn(app.call("POST", &path).send());
    receiver.wait_for(1).await;
    let refused = app.call("POST", &path).send().await.refused(503, "unavailable", "");
    assert_eq!(refused.header("retry-after"), "1");
    hanging.await.expect("no panic").expect(200);
    app.call("POST", &path).send().await.expect(200);
}

#[tokio::test]
async fn a_type_that_left_the_catalog_may_stay_in_an_endpoints_list() {
    let app = App::start().await;
    let (id, _) = app.endpoint("http://127.0.0.1:9/").await;
    let gone = format!("/v1/event-types/{EVENT}");
    app.call("DELETE", &gone).bearer(&app.operator).send().await.expect(204);
    let path = format!("/v1/webhooks/{id}");
    let events = json!({ "events": [EVENT, "validation.failed"] });
    app.put(&path, events.clone()).await.expect(200);
    app.put(&path, json!({ "events": ["validation.failed"] })).await.expect(200);
    app.put(&path, events).await.refused(422, "webhook_event_invalid", "/data/attributes/events");
}

#[tokio::test]
async fn a_tests_outcome_that_cannot_be_written_is_written_when_it_can() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Late(std::time::Duration::from_millis(500))]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    let testing = tokio::spawn(app.call("POST", &format!("/v1/webhooks/{id}/test")).send());
    receiver.wait_for(1).await;
    let locked = database::lock(app.folder()).await;
    // Nothing can be written any more, for longer than a write waits.
    app.post("/v1/events", json!({ "event": EVENT, "data": {} })).await.refused(503, "unavailable", "");
    locked.unlock().await;
    let told = testing.await.expect("no panic").expect(200);
    assert_eq!(told.attribute("delivered"), true);
    let listed = app.delivery(&id, "success").await;
    assert_eq!(listed["id"], told.id());
    assert_eq!(receiver.received().len(), 1);
}
