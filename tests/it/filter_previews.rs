//! What a filter would have done with the events of the past, over the API and in the dashboard.

use aldaba::domain::permission::Permission;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::app::{Answer, App, EVENT, Receiver, eventually};
use crate::browser::Browser;
use crate::database;
use crate::endpoint_settings::owners_browser;
use crate::migrations::minimum;
use crate::payload_filters::{publish, send, slow, with};

const PATH: &str = "/v1/webhooks/filters/preview";

/// The attributes of a preview.
async fn preview(app: &App, body: Value) -> Value {
    let shown = app.post(PATH, body).await.expect(200);
    assert_eq!(shown.json["data"]["type"], "webhook_filter_preview");
    shown.json["data"]["attributes"].clone()
}

/// Publishes an event, and returns its id.
async fn publish_as(app: &App, event: &str, channels: Option<&[&str]>, data: Value) -> String {
    app.post("/v1/events", json!({ "event": event, "channels": channels, "data": data })).await.expect(202).id()
}

/// The numbers of events that a preview looked at and that match.
fn counts(shown: &Value) -> [u64; 2] {
    ["examined", "matched"].map(|name| shown[name].as_u64().expect("a number"))
}

#[tokio::test]
async fn a_preview_counts_what_matches_and_says_of_the_newest_others_where_they_failed() {
    let app = App::start().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(app.publish(json!({ "n": n })).await);
    }
    let shown = preview(&app, json!({ "filter": { "data": { "n": { "$gte": 1, "$lt": 3 } } } })).await;
    let sample = |n: usize, failed_at: Option<&str>| match failed_at {
        None => json!({ "event_id": ids[n], "event": EVENT, "matched": true }),
        Some(place) => json!({ "event_id": ids[n], "event": EVENT, "matched": false, "failed_at": place }),
    };
    let below = Some("/data/n/$lt");
    let samples =
        [sample(2, None), sample(1, None), sample(4, below), sample(3, below), sample(0, Some("/data/n/$gte"))];
    assert_eq!(shown, json!({ "examined": 5, "matched": 2, "samples": samples }));
    for (filter, matched, failed_at) in [
        (json!({}), 5, None),
        (json!({ "data": { "other": 1 } }), 0, Some("/data/other")),
        (json!({ "$or": [{ "data": { "n": 7 } }, { "data": { "n": 8 } }] }), 0, Some("/$or")),
        (json!({ "data": { "n": { "$not": { "$gte": 0 } } } }), 0, Some("/data/n/$not")),
        (
            json!({ "$and": [{ "event": EVENT }, { "data": { "a/b": { "$exists": true } } }] }),
            0,
            Some("/$and/1/data/a~1b/$exists"),
        ),
    ] {
        let shown = preview(&app, json!({ "filter": filter })).await;
        assert_eq!((counts(&shown), shown["samples"][0]["failed_at"].as_str()), ([5, matched], failed_at), "{filter}");
    }
    app.publish(json!({ "n": 9_007_199_254_740_992_u64 })).await;
    let next = r#"{"filter":{"data":{"n":{"$gte":9007199254740993}}}}"#;
    let shown = send(&app, "POST", PATH, next).await.expect(200);
    assert_eq!((shown.attribute("examined"), shown.attribute("matched")), (&json!(6), &json!(0)), "to the digit");
}

#[tokio::test]
async fn a_preview_looks_at_published_events_of_the_types_and_channels_that_are_named() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let watching = json!({ "url": receiver.url(), "events": ["secret.rotated", "validation.failed"] });
    let watching = app.post("/v1/webhooks", watching).await.expect(201).id();
    let (other, _) = app.endpoint("http://127.0.0.1:9/").await;
    publish_as(&app, "billing.payment_failed", Some(&["eu"]), json!({})).await;
    publish_as(&app, "validation.failed", Some(&["eu", "a"]), json!({})).await;
    publish_as(&app, "validation.failed", None, json!({})).await;
    // Neither a test nor an operational event was published.
    app.call("POST", &format!("/v1/webhooks/{watching}/test")).send().await.expect(200);
    app.call("POST", &format!("/v1/webhooks/{other}/regenerate-secret")).send().await.expect(200);
    receiver.wait_for(4).await;
    for (events, channels, examined) in [
        (json!(null), json!(null), 3),
        (json!(["*"]), json!(null), 3),
        (json!(["validation.failed"]), json!(null), 2),
        (json!(["validation.*", EVENT]), json!(null), 2),
        (json!(["billing.*", "validation.failed", "secret.rotated"]), json!(null), 3),
        (json!(["secret.rotated"]), json!(null), 0),
        (json!(["*"]), json!(["eu"]), 2),
        (json!(["validation.*"]), json!(["b", "a"]), 1),
        (json!(["*"]), json!(["b"]), 0),
    ] {
        let mut body = json!({ "filter": {}, "channels": channels });
        if !events.is_null() {
            body["events"] = events;
        }
        assert_eq!(counts(&preview(&app, body.clone()).await), [examined, examined], "{body}");
    }
    let shown = preview(&app, json!({ "filter": { "channels": { "$contains": "a" } } })).await;
    assert_eq!(counts(&shown), [3, 1]);
    let failed: Vec<_> =
        shown["samples"].as_array().expect("a list").iter().map(|one| one["failed_at"].clone()).collect();
    assert_eq!(failed, [Value::Null, json!("/channels/$contains"), json!("/channels/$contains")]);
}

#[tokio::test]
async fn a_preview_looks_at_the_newest_thousand_and_shows_twenty_of_each_kind() {
    let app = App::start().await;
    for numbers in [0..500, 500..1_020] {
        let events: Vec<_> = numbers.map(|n: u32| json!({ "event": EVENT, "data": { "n": n } })).collect();
        app.post("/v1/events/batch", json!({ "events": events })).await.expect(202);
    }
    let shown = preview(&app, json!({ "filter": { "data": { "n": { "$lt": 120 } } } })).await;
    assert_eq!(counts(&shown), [1_000, 100]);
    let samples = shown["samples"].as_array().expect("a list");
    let matched: Vec<_> = samples.iter().map(|sample| sample["matched"] == true).collect();
    assert_eq!(matched, [[true; 20], [false; 20]].concat());
}

#[tokio::test]
async fn a_preview_sees_only_events_of_its_account_whose_bodies_are_kept_and_stores_nothing() {
    let app = App::start().await;
    let (_, stranger) = app.stranger().await;
    let own = app.publish(json!({ "n": 1 })).await;
    let theirs = json!({ "event": EVENT, "data": { "n": 1 } });
    let theirs = app.call("POST", "/v1/events").bearer(&stranger).json(&theirs).send().await.expect(202).id();
    let body = json!({ "filter": { "data": { "n": 1 } } });
    for (key, id) in [(&app.key, &own), (&stranger, &theirs)] {
        let shown = app.call("POST", PATH).bearer(key).json(&body).send().await.expect(200);
        assert_eq!((shown.attribute("examined"), &shown.attribute("samples")[0]["event_id"]), (&json!(1), &json!(id)));
    }
    assert_eq!(minimum(app.folder()).await, 0);
    assert_eq!(app.get("/v1/webhooks").await.expect(200).json["data"], json!([]));
    for list in ["/v1/events", "/v1/webhooks/deliveries"] {
        let expected = usize::from(list == "/v1/events");
        assert_eq!(app.get(list).await.expect(200).json["meta"]["pagination"]["total"], expected, "{list}");
    }
    database::execute(app.folder(), "DELETE FROM payloads").await;
    let nothing = json!({ "examined": 0, "matched": 0, "samples": [] });
    assert_eq!(preview(&app, body.clone()).await, nothing);
    // Whoever sees endpoints may ask.
    for (permission, status) in
        [(Permission::WebhooksRead, 200), (Permission::WebhooksUpdate, 403), (Permission::EventsRead, 403)]
    {
        let key = app.key_for(&[permission]).await;
        app.call("POST", PATH).bearer(&key).json(&body).send().await.expect(status);
    }
}

#[tokio::test]
async fn a_preview_of_what_is_not_allowed_is_refused_in_both_languages() {
    let app = App::start().await;
    let place = |field: &str| format!("/data/attributes/{field}");
    for body in [json!({}), json!({ "filter": null }), json!({ "filter": [] }), json!({ "events": ["*"] })] {
        app.post(PATH, body).await.refused(422, "webhook_filter_invalid", &place("filter"));
    }
    for (events, code) in [
        (json!(["no.such"]), "webhook_event_invalid"),
        (json!([]), "webhook_events_required"),
        (json!("*"), "webhook_event_invalid"),
    ] {
        app.post(PATH, json!({ "filter": {}, "events": events })).await.refused(422, code, &place("events"));
    }
    let body = json!({ "filter": { "data": { "n": { "$gt": [] } } }, "events": ["no.such"], "channels": ["a b"] });
    let refused = app.call("POST", PATH).header("accept-language", "es").json(&body).send().await.expect(422);
    assert_eq!(refused.codes(), ["webhook_filter_invalid", "webhook_event_invalid", "webhook_channels_invalid"]);
    assert_eq!(refused.json["errors"][0]["source"]["pointer"], place("filter/data/n/$gt"));
    let detail = refused.json["errors"][0]["detail"].as_str().expect("a detail");
    assert!(detail.contains("este operador lleva un número o una cadena"), "{detail}");
    // A type that has left the catalog is known as long as an endpoint subscribes to it.
    let leaving = json!({ "name": "order.shipped" });
    app.call("POST", "/v1/event-types").bearer(&app.operator).json(&leaving).send().await.expect(201);
    let new = json!({ "url": "http://127.0.0.1:9/", "events": ["order.shipped"], "status": "disabled" });
    app.post("/v1/webhooks", new).await.expect(201);
    publish_as(&app, "order.shipped", None, json!({})).await;
    app.call("DELETE", "/v1/event-types/order.shipped").bearer(&app.operator).send().await.expect(204);
    let shown = preview(&app, json!({ "filter": {}, "events": ["order.shipped"] })).await;
    assert_eq!(counts(&shown), [1, 1]);
}

/// Publishes batches of five events, and returns the body of a call for a preview that is slow on them.
async fn slow_preview(app: &App, batches: usize) -> String {
    let (filter, data) = slow();
    for _ in 0..batches {
        let event = format!(r#"{{"event":"{EVENT}","data":{data}}}"#);
        let batch = format!(r#"{{"events":[{}]}}"#, vec![event; 5].join(","));
        send(app, "POST", "/v1/events/batch", &batch).await.expect(202);
    }
    format!(r#"{{"filter":{filter}}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_is_the_only_one_of_its_account_over_all_nodes_and_ends_without_its_client() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let other = app.another(&[]).await;
    let body = slow_preview(&app, 1).await;
    let ask = |app: &App| {
        let call = app.call("POST", PATH).header("content-type", "application/json");
        call.body(body.clone()).send()
    };
    let client = tokio::spawn(ask(&app));
    let under_way = || database::number(app.folder(), "SELECT COUNT(*) FROM filter_previews");
    eventually("a preview", async || (under_way().await == 1).then_some(())).await;
    let refused = ask(&other).await.refused(503, "unavailable", "");
    assert_eq!(refused.json["errors"][0]["meta"]["reason"], "a preview of this account is under way");
    client.abort();
    eventually("the end of the preview", async || (under_way().await == 0).then_some(())).await;
    assert_eq!(ask(&other).await.expect(200).attribute("examined"), 5);
    // As the node leaves it that dies meanwhile.
    let sql = format!("INSERT INTO filter_previews SELECT id, 0 FROM accounts WHERE id = '{}'", app.account);
    database::execute(app.folder(), &sql).await;
    ask(&other).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_preview_of_an_account_is_under_way_at_a_time() {
    let app = App::start().await;
    let body = slow_preview(&app, 2).await;
    let ask = |key: &str| {
        let call = app.call("POST", PATH).bearer(key).header("content-type", "application/json");
        call.body(body.clone()).send()
    };
    let mut asked = JoinSet::new();
    for _ in 0..4 {
        asked.spawn(ask(&app.key));
    }
    let (_, stranger) = app.stranger().await;
    let theirs = ask(&stranger).await.expect(200);
    assert_eq!(theirs.attribute("examined"), 0, "the others' does not count");
    let answers: Vec<Answer> = asked.join_all().await;
    let (shown, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert!(!shown.is_empty() && !refused.is_empty(), "{} were shown", shown.len());
    for answer in &shown {
        assert_eq!((answer.attribute("examined"), answer.attribute("matched")), (&json!(10), &json!(0)));
    }
    for answer in refused {
        let answer = answer.refused(503, "unavailable", "");
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(answer.json["errors"][0]["meta"]["reason"], "a preview of this account is under way");
    }
    ask(&app.key).await.expect(200);
}

/// The form of an endpoint with this filter, as far as the tests fill it in.
fn form(filter: &str) -> Vec<(&str, &str)> {
    vec![("url", "http://127.0.0.1:9/mine"), ("events", EVENT), ("description", "kept as it was"), ("filter", filter)]
}

/// The same form, sent by the button for a preview.
fn asking(filter: &str) -> Vec<(&str, &str)> {
    [form(filter), vec![("preview", "filter")]].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_is_written_tried_and_shown_in_the_dashboard() {
    let app = App::start().await;
    for n in 0..3 {
        assert_eq!(publish(&app, &format!(r#"{{"n":{n}}}"#)).await, 0);
    }
    let mut browser = owners_browser(&app).await;
    let new = format!("/accounts/{}/endpoints/new", app.account);
    let page = browser.open(&new).await.expect(200);
    for sending in [form, asking] {
        for wrong in [r#"{"data": {}}"#, r#"{"data""#] {
            let refused = browser.submit(&page, &new, &sending(wrong)).await.expect(422);
            assert!(refused.html.contains("f-filter-error"), "{}", refused.content());
            assert!(refused.html.contains("value=\"kept as it was\""), "{}", refused.content());
        }
    }
    let filter = r#"{"data": {"n": {"$gte": 1.50}}}"#;
    let tried = browser.submit(&page, &new, &asking(filter)).await.expect(200);
    for shown in [
        "Of your newest 3 events 1 match.",
        "<code>/data/n/$gte</code>",
        "value=\"http://127.0.0.1:9/mine\"",
        "value=\"kept as it was\"",
        "{&quot;data&quot;: {&quot;n&quot;: {&quot;$gte&quot;: 1.50}}}</textarea>",
    ] {
        assert!(tried.html.contains(shown), "{shown}: {}", tried.content());
    }
    assert!(tried.html.contains(&format!("name=\"events\" value=\"{EVENT}\" checked")), "{}", tried.content());
    assert_eq!(app.get("/v1/webhooks").await.expect(200).json["data"], json!([]), "nothing was made");
    let all = browser.submit(&tried, &new, &asking("")).await.expect(200);
    assert!(all.html.contains("Of your newest 3 events 3 match."), "{}", all.content());

    browser.submit(&all, &new, &form(filter)).await.expect(200);
    let listed = app.get("/v1/webhooks").await.expect(200);
    assert!(String::from_utf8_lossy(&listed.text).contains(r#""filter":{"data":{"n":{"$gte":1.50}}}"#));
    let id = listed.json["data"][0]["id"].as_str().expect("an id").to_owned();
    let endpoint = format!("/accounts/{}/endpoints/{id}", app.account);
    let page = browser.open(&endpoint).await.expect(200);
    assert!(page.html.contains("&quot;$gte&quot;: 1.50"), "{}", page.content());
    let edit = format!("{endpoint}/edit");
    let page = browser.open(&edit).await.expect(200);
    assert!(page.html.contains("&quot;$gte&quot;: 1.50"), "{}", page.content());
    let tried = browser.submit(&page, &edit, &asking(r#"{"data": {"n": 7}}"#)).await.expect(200);
    assert!(tried.html.contains("Of your newest 3 events 0 match."), "{}", tried.content());
    let kept = app.get(&format!("/v1/webhooks/{id}")).await.expect(200);
    assert_eq!(kept.attribute("filter"), &json!({ "data": { "n": { "$gte": 1.5 } } }), "nothing was changed");
    browser.submit(&tried, &edit, &form("")).await.expect(200);
    let removed = app.get(&format!("/v1/webhooks/{id}")).await.expect(200);
    assert!(removed.json["data"]["attributes"].get("filter").is_none(), "an empty field removes it");

    let mut browser = browser.in_spanish();
    let page = browser.open(&edit).await.expect(200);
    let tried = browser.submit(&page, &edit, &asking(filter)).await.expect(200);
    assert!(tried.html.contains("De tus 3 eventos más recientes, 1 lo cumplen."), "{}", tried.content());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_that_a_preview_shows_again_has_no_secret_and_says_that_they_are_typed_once_more() {
    let app = App::start().await;
    let mut browser = owners_browser(&app).await;
    let new = format!("/accounts/{}/endpoints/new", app.account);
    let page = browser.open(&new).await.expect(200);
    let secrets = [
        ("headers", "X-Key: value-of-a-header"),
        ("credential", "value-of-a-password"),
        ("secret", "value-of-a-signing-secret"),
        ("private_key", "value-of-a-private-key"),
    ];
    let tried = browser.submit(&page, &new, &[asking("{}"), secrets.to_vec()].concat()).await.expect(200);
    assert!(tried.html.contains("X-Key: ") && !tried.html.contains("value-of-a-"), "{}", tried.content());
    assert!(tried.html.contains("the form does not show them again"), "{}", tried.content());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_is_tried_and_changed_in_the_portal() {
    let app = App::start().await;
    let path = with(&app, "http://127.0.0.1:9/mine", r#"{"data":{"n":1}}"#).await;
    let event = app.publish(json!({ "n": 2 })).await;
    let links = format!("/v1/accounts/{}/portal-links", app.account);
    let new = json!({ "permissions": ["webhooks:read", "webhooks:update"], "brand": "Acme" });
    let made = app.call("POST", &links).bearer(&app.operator).json(&new).send().await.expect(201);
    let url = made.attribute("url").as_str().expect("an address").to_owned();
    let portal = url.split_once("localhost").expect("our address").1;
    let mut browser = Browser::new(&app);
    let edit = format!("{portal}/endpoints/{}/edit", path.rsplit('/').next().expect("an id"));
    let page = browser.open(&edit).await.expect(200);
    assert!(page.html.contains("name=\"preview\""), "{}", page.content());
    let tried = browser.submit(&page, &edit, &asking(r#"{"data": {"n": 1}}"#)).await.expect(200);
    assert!(tried.html.contains("Your newest event does not match."), "{}", tried.content());
    assert!(tried.html.contains(&event) && !tried.html.contains(&format!("/events/{event}")), "{}", tried.content());
    browser.submit(&tried, &edit, &form(r#"{"data": {"n": 2}}"#)).await.expect(200);
    assert_eq!(publish(&app, r#"{"n":2}"#).await, 1);
}
