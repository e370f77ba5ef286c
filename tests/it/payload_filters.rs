//! Filters on what events say: which events an endpoint gets, which filters are refused, and what they cost others.

use std::time::{Duration, Instant};

use aldaba::domain::permission::Permission;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::app::{Answer, App, EVENT, Receiver, Reply};
use crate::database;
use crate::migrations::minimum;

/// Sends a body as it is written.
pub async fn send(app: &App, method: &str, path: &str, body: &str) -> Answer {
    app.call(method, path).header("content-type", "application/json").body(body).send().await
}

/// Whether the answer shows this filter, to the digit.
fn shows(answer: &Answer, filter: &str) -> bool {
    String::from_utf8_lossy(&answer.text).contains(&format!(r#""filter":{filter},"#))
}

/// Registers an endpoint for [`EVENT`] with this filter, and returns its path.
pub async fn with(app: &App, url: &str, filter: &str) -> String {
    let body = format!(r#"{{"url":"{url}","events":["{EVENT}"],"filter":{filter}}}"#);
    let made = send(app, "POST", "/v1/webhooks", &body).await.expect(201);
    assert!(shows(&made, filter), "{}", made.json);
    format!("/v1/webhooks/{}", made.id())
}

/// Gives the endpoint another filter.
async fn set(app: &App, path: &str, filter: &str) {
    let changed = send(app, "PUT", path, &format!(r#"{{"filter":{filter}}}"#)).await.expect(200);
    assert!(shows(&changed, filter), "{}", changed.json);
}

/// Publishes an event with this data, and returns how many deliveries it has made.
pub async fn publish(app: &App, data: &str) -> u64 {
    let published = send(app, "POST", "/v1/events", &format!(r#"{{"event":"{EVENT}","data":{data}}}"#)).await;
    published.expect(202).attribute("deliveries").as_u64().expect("a number")
}

/// How many deliveries the events of a batch have made.
fn made_by(batch: &Answer) -> Vec<u64> {
    let events = batch.json["data"].as_array().expect("a list").iter();
    events.map(|event| event["attributes"]["deliveries"].as_u64().expect("a number")).collect()
}

/// The data of what has arrived, as text and in order.
fn arrived(receiver: &Receiver) -> Vec<String> {
    let read = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON")["data"].to_string();
    let mut arrived: Vec<_> = receiver.received().iter().map(|request| read(&request.body)).collect();
    arrived.sort_unstable();
    arrived
}

/// A filter on the data, data that matches, and data that does not.
const OPERATORS: [[&str; 3]; 23] = [
    [r#"{"kind":"card"}"#, r#"{"kind":"card"}"#, r#"{"kind":"Card"}"#],
    [r#"{"kind":null}"#, r#"{"kind":null}"#, "{}"],
    [r#"{"on":{"$eq":true}}"#, r#"{"on":true}"#, r#"{"on":"true"}"#],
    [r#"{"n":{"$eq":1}}"#, r#"{"n":1.0}"#, r#"{"n":"1"}"#],
    [r#"{"kind":{"$neq":"card"}}"#, "{}", r#"{"kind":["cash","card"]}"#],
    [r#"{"n":{"$gt":9007199254740992}}"#, r#"{"n":9007199254740993}"#, r#"{"n":9007199254740992}"#],
    [r#"{"n":{"$gte":1e300}}"#, r#"{"n":1e350}"#, r#"{"n":-1e350}"#],
    [r#"{"name":{"$lt":"b"}}"#, r#"{"name":"añ"}"#, r#"{"name":"b"}"#],
    [r#"{"n":{"$lte":0.30}}"#, r#"{"n":3e-1}"#, r#"{"n":0.3000000000000000000001}"#],
    [r#"{"kind":{"$in":["card",7,null]}}"#, r#"{"kind":7.0}"#, r#"{"kind":"7"}"#],
    [r#"{"kind":{"$nin":["card",7]}}"#, r#"{"kind":"cash"}"#, r#"{"kind":[1,7]}"#],
    [r#"{"id":{"$starts_with":"ord_"}}"#, r#"{"id":"ord_1"}"#, r#"{"id":"xord_1"}"#],
    [r#"{"id":{"$ends_with":".pdf"}}"#, r#"{"id":"a.pdf"}"#, r#"{"id":"a.pdf.exe"}"#],
    [r#"{"id":{"$contains":"ñu"}}"#, r#"{"id":"un \u00f1u"}"#, r#"{"id":"un nu"}"#],
    [r#"{"tags":{"$contains":"b"}}"#, r#"{"tags":["a","b"]}"#, r#"{"tags":["ab"]}"#],
    [r#"{"refund":{"$exists":true}}"#, r#"{"refund":null}"#, "{}"],
    [r#"{"refund":{"$exists":false}}"#, "{}", r#"{"refund":0}"#],
    [r#"{"kind":{"$not":{"$starts_with":"c"}}}"#, "{}", r#"{"kind":"card"}"#],
    [r#"{"$not":{"a":1}}"#, r#"{"a":2}"#, r#"{"a":1}"#],
    [r#"{"$and":[{"a":1},{"b":{"$gt":1}}]}"#, r#"{"a":1,"b":2}"#, r#"{"a":1,"b":1}"#],
    [r#"{"n":{"$or":[{"$lt":0},{"$gt":10}]}}"#, r#"{"n":11}"#, r#"{"n":5}"#],
    [
        r#"{"items":{"sku":"a","count":{"$gte":2}}}"#,
        r#"{"items":[{"sku":"b","count":1},{"sku":"a","count":2}]}"#,
        r#"{"items":[{"sku":"b","count":2},{"sku":"a","count":1}]}"#,
    ],
    [r#"{"order":{"total":{"$gte":1,"$lt":10}}}"#, r#"{"order":{"total":9.99}}"#, r#"{"order":{"total":10}}"#],
];

#[tokio::test]
async fn each_operator_decides_which_events_an_endpoint_gets() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let path = with(&app, &receiver.url(), "{}").await;
    for [filter, matching, other] in OPERATORS {
        set(&app, &path, &format!(r#"{{"data":{filter}}}"#)).await;
        assert_eq!(publish(&app, other).await, 0, "{filter} lets {other} through");
        assert_eq!(publish(&app, matching).await, 1, "{filter} keeps {matching} back");
    }
    let requests = receiver.wait_for(OPERATORS.len()).await;
    for [_, matching, _] in OPERATORS {
        let is_it = |body: &[u8]| String::from_utf8_lossy(body).contains(&format!(r#""data":{matching}"#));
        assert!(requests.iter().any(|request| is_it(&request.body)), "{matching}");
    }
    assert_eq!(requests.len(), OPERATORS.len());
    let listed = app.get("/v1/webhooks/deliveries").await.expect(200);
    assert_eq!(listed.json["meta"]["pagination"]["total"], OPERATORS.len(), "what does not match costs no delivery");
    set(&app, &path, "{}").await;
    assert_eq!(publish(&app, "{}").await, 1, "no condition lets every event through");
}

#[tokio::test]
async fn a_filter_looks_at_the_type_and_the_channels_too_and_at_each_event_of_a_batch() {
    let app = App::start().await;
    let (filtered, all) = (Receiver::start().await, Receiver::start().await);
    let filter = json!({ "event": { "$starts_with": "validation." }, "channels": "eu", "data": { "n": { "$lt": 3 } } });
    let new = json!({ "url": filtered.url(), "events": ["*"], "channels": ["a", "eu"], "filter": filter });
    app.post("/v1/webhooks", new).await.expect(201);
    app.endpoint(&all.url()).await;
    let event = |event: &str, n: u32, channels: &[&str]| {
        let channels = (!channels.is_empty()).then_some(channels);
        json!({ "event": event, "data": { "n": n }, "channels": channels })
    };
    let events = [
        event(EVENT, 0, &["eu"]),
        event(EVENT, 1, &["a"]),
        event("validation.failed", 2, &["b", "eu"]),
        event("billing.payment_failed", 2, &["eu"]),
        event(EVENT, 3, &["eu"]),
        event(EVENT, 2, &[]),
    ];
    let batch = app.post("/v1/events/batch", json!({ "events": events })).await.expect(202);
    assert_eq!(made_by(&batch), [2, 1, 1, 0, 1, 1]);
    filtered.wait_for(2).await;
    all.wait_for(4).await;
    assert_eq!(arrived(&filtered), [r#"{"n":0}"#, r#"{"n":2}"#]);
}

#[tokio::test]
async fn an_operators_batch_is_checked_against_the_filters_of_each_account() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (stranger, key) = app.stranger().await;
    with(&app, &receiver.url(), r#"{"data":{"n":{"$lt":2}}}"#).await;
    let theirs = json!({ "url": receiver.url(), "events": [EVENT], "filter": { "data": { "n": { "$gte": 2 } } } });
    app.call("POST", "/v1/webhooks").bearer(&key).json(&theirs).send().await.expect(201);
    let event = |account: String, n: u32| json!({ "event": EVENT, "data": { "n": n }, "account_id": account });
    let both = (0..4).flat_map(|n| [event(app.account.to_string(), n), event(stranger.to_string(), n)]);
    let batch = json!({ "events": both.collect::<Vec<_>>() });
    let batch = app.call("POST", "/v1/events/batch").bearer(&app.operator).json(&batch).send().await.expect(202);
    assert_eq!(made_by(&batch), [1, 0, 1, 0, 0, 1, 0, 1]);
    receiver.wait_for(4).await;
}

#[tokio::test]
async fn a_filter_is_shown_as_it_was_written_to_the_digit() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let written = r#"{ "data": {"n": {"$gte": 1.50}, "a":1, "a": 12345678901234567890.12345, "ü/~": "\u00e9"} }"#;
    let shown = r#"{"data":{"n":{"$gte":1.50},"a":12345678901234567890.12345,"ü/~":"é"}}"#;
    let body = format!(r#"{{"url":"{}","events":["{EVENT}"],"filter":{written}}}"#, receiver.url());
    let made = send(&app, "POST", "/v1/webhooks", &body).await.expect(201);
    let path = format!("/v1/webhooks/{}", made.id());
    let changed = app.put(&path, json!({ "description": "a" })).await.expect(200);
    let rotated = app.call("POST", &format!("{path}/regenerate-secret")).send().await.expect(200);
    let app = app.restart(&[]).await;
    let (read, listed) = (app.get(&path).await.expect(200), app.get("/v1/webhooks").await.expect(200));
    for answer in [made, changed, rotated, read, listed] {
        assert!(shows(&answer, shown), "{}", String::from_utf8_lossy(&answer.text));
    }
    for (data, deliveries) in [
        (r#"{"n":1.5,"a":12345678901234567890.12345,"ü/~":"é"}"#, 1),
        (r#"{"n":1.5,"a":12345678901234567890.12346,"ü/~":"é"}"#, 0),
        (r#"{"n":1.49999999999999999999999,"a":12345678901234567890.12345,"ü/~":"é"}"#, 0),
    ] {
        assert_eq!(publish(&app, data).await, deliveries, "{data}");
    }
}

#[tokio::test]
async fn a_filter_is_absent_until_it_is_set_stays_when_it_is_not_named_and_is_removed_by_null() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let body = json!({ "url": receiver.url(), "events": [EVENT], "filter": null });
    let made = app.post("/v1/webhooks", body).await.expect(201);
    assert!(made.json["data"]["attributes"].get("filter").is_none(), "{}", made.json);
    assert_eq!(minimum(app.folder()).await, 0);
    let path = format!("/v1/webhooks/{}", made.id());
    set(&app, &path, r#"{"data":{"secret_word":1}}"#).await;
    assert_eq!(minimum(app.folder()).await, 18, "an older program would send it everything");
    let log = app.get("/v1/audit-log?action=webhook.updated").await.expect(200);
    assert_eq!(log.json["data"][0]["attributes"]["fields"], json!(["filter"]));
    assert!(!log.json.to_string().contains("secret_word"), "values of fields are not in the audit log");
    let kept = app.put(&path, json!({ "description": "a" })).await.expect(200);
    assert_eq!(kept.attribute("filter"), &json!({ "data": { "secret_word": 1 } }));
    set(&app, &path, r#"{"data":{"n":2}}"#).await;
    assert_eq!((publish(&app, r#"{"secret_word":1}"#).await, publish(&app, r#"{"n":2}"#).await), (0, 1));
    let removed = app.put(&path, json!({ "filter": null })).await.expect(200);
    assert!(removed.json["data"]["attributes"].get("filter").is_none(), "{}", removed.json);
    assert_eq!(publish(&app, "{}").await, 1);
}

/// A filter that is refused, where its fault is, and what the detail says in both languages.
fn faults() -> Vec<(String, &'static str, &'static str, &'static str)> {
    let nested = r#"{"data":{"a":{"b":{"c":{"d":{"e":{"f":{"g":{"h":1}}}}}}}}}"#;
    let fields: Vec<_> = (0..33).map(|n| format!(r#""f{n}":1"#)).collect();
    let lists = format!(r#"{{"data":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let long_name = format!(r#"{{"data":{{"{}":{{"$gt":null}}}}}}"#, "x".repeat(600));
    let given = |text: &str| text.to_owned();
    vec![
        (given("7"), "", "a filter is an object", "un filtro es un objeto"),
        (given(r#""{}""#), "", "a filter is an object", "un filtro es un objeto"),
        (given("[]"), "", "a filter is an object", "un filtro es un objeto"),
        (given(r#"{"data":{}}"#), "/data", "only as the whole filter", "como filtro completo"),
        (given(r#"{"$not":{}}"#), "/$not", "only as the whole filter", "como filtro completo"),
        (given(r#"{"data":{"a":1,"$exists":true}}"#), "/data/$exists", "either fields or operators", "o bien campos"),
        (
            given(r#"{"$and":[{"data":{"a":1}}],"data":{"a":1}}"#),
            "/data",
            "either fields or operators",
            "o bien campos",
        ),
        (given(r#"{"type":"a"}"#), "/type", "event, data and channels", "event, data y channels"),
        (
            given(r#"{"data":{"a":{"$regex":"x"}}}"#),
            "/data/a/$regex",
            "the operators are $eq",
            "los operadores son $eq",
        ),
        (given(r#"{"$gt":1}"#), "/$gt", "stands below a field", "va debajo de un campo"),
        (given(r#"{"data":[1]}"#), "/data", "a value to compare with", "con el que se compara"),
        (given(r#"{"data":{"a":{"$eq":{}}}}"#), "/data/a/$eq", "a value to compare with", "con el que se compara"),
        (given(r#"{"data":{"a":{"$neq":[1]}}}"#), "/data/a/$neq", "a value to compare with", "con el que se compara"),
        (given(r#"{"data":{"a":{"$in":[1,[2]]}}}"#), "/data/a/$in/1", "a value to compare with", "con el que se"),
        (given(r#"{"data":{"a":{"$gt":null}}}"#), "/data/a/$gt", "a number or a string", "un número o una cadena"),
        (given(r#"{"data":{"a/b~c":{"$lte":true}}}"#), "/data/a~1b~0c/$lte", "a number or a string", "un número o una"),
        (given(r#"{"data":{"a":{"$ends_with":1}}}"#), "/data/a/$ends_with", "takes a string", "lleva una cadena"),
        (given(r#"{"data":{"a":{"$exists":1}}}"#), "/data/a/$exists", "takes true or false", "lleva true o false"),
        (given(r#"{"data":{"a":{"$nin":1}}}"#), "/data/a/$nin", "takes an array", "lleva una lista"),
        (given(r#"{"$or":{"data":{"a":1}}}"#), "/$or", "takes an array", "lleva una lista"),
        (given(r#"{"$or":[]}"#), "/$or", "at least one member", "al menos un miembro"),
        (given(r#"{"$and":[{"data":1},{"data":{}}]}"#), "/$and/1/data", "only as the whole", "como filtro completo"),
        (given(r#"{"data":{"a":1e999}}"#), "/data/a", "up to 40 digits", "hasta 40 cifras"),
        (given(nested), "/data/a/b/c/d/e/f/g", "up to 8 levels", "hasta 8 niveles"),
        (lists, "", "up to 8 levels", "hasta 8 niveles"),
        (format!(r#"{{"data":{{{}}}}}"#, fields.join(",")), "/data/f32", "up to 32 conditions", "hasta 32 condiciones"),
        (format!(r#"{{"data":"{}"}}"#, "x".repeat(4_096)), "", "up to 4096 bytes", "hasta 4096 bytes"),
        // What is unbounded is cut off.
        (long_name, "/data", "a number or a string", "un número o una cadena"),
    ]
}

#[tokio::test]
async fn what_is_no_filter_is_refused_with_its_place_in_both_languages_and_nothing_is_stored() {
    let app = App::start().await;
    let (id, _) = app.endpoint("http://127.0.0.1:9/").await;
    let path = format!("/v1/webhooks/{id}");
    let detail = |answer: &Answer| answer.json["errors"][0]["detail"].as_str().expect("a detail").to_owned();
    for (filter, place, english, spanish) in faults() {
        let pointer = format!("/data/attributes/filter{place}");
        let body = format!(r#"{{"url":"http://127.0.0.1:9/","events":["{EVENT}"],"filter":{filter}}}"#);
        let refused = send(&app, "POST", "/v1/webhooks", &body).await.refused(422, "webhook_filter_invalid", &pointer);
        let said = detail(&refused);
        assert!(said.contains("up to 4096 bytes, 8 levels and 32 conditions") && said.contains(english), "{said}");
        let body = format!(r#"{{"description":"changed","filter":{filter}}}"#);
        let call = app.call("PUT", &path).header("accept-language", "es").header("content-type", "application/json");
        let refused = call.body(body).send().await.refused(422, "webhook_filter_invalid", &pointer);
        let said = detail(&refused);
        assert!(said.contains("hasta 4096 bytes, 8 niveles y 32 condiciones") && said.contains(spanish), "{said}");
        // A preview takes the same filters.
        let body = format!(r#"{{"filter":{filter}}}"#);
        let refused = send(&app, "POST", "/v1/webhooks/filters/preview", &body).await;
        refused.refused(422, "webhook_filter_invalid", &pointer);
    }
    let several = app.put(&path, json!({ "url": 1, "filter": 7, "status": 1 })).await.expect(422);
    assert_eq!(several.codes(), ["webhook_url_invalid_type", "webhook_status_invalid", "webhook_filter_invalid"]);
    let listed = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(listed.json["data"].as_array().map(Vec::len), Some(1));
    let attributes = &listed.json["data"][0]["attributes"];
    assert!(attributes.get("filter").is_none() && attributes["description"].is_null(), "{attributes}");
    assert_eq!(minimum(app.folder()).await, 0);
}

#[tokio::test]
async fn a_filter_at_its_limits_is_taken() {
    let app = App::start().await;
    let path = with(&app, "http://127.0.0.1:9/", r#"{"data":{"a":{"b":{"c":{"d":{"e":{"f":{"g":1}}}}}}}}"#).await;
    let fields: Vec<_> = (0..32).map(|n| format!(r#""f{n}":1"#)).collect();
    set(&app, &path, &format!(r#"{{"data":{{{}}}}}"#, fields.join(","))).await;
    let around = r#"{"data":{"a":""}}"#.len();
    let longest = format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(4_096 - around));
    set(&app, &path, &longest).await;
    set(&app, &path, &format!(r#"{{"data":{{"a":{}}}}}"#, "1".repeat(40))).await;
    assert_eq!(publish(&app, "{}").await, 0);
}

#[tokio::test]
async fn what_was_missed_is_what_matched_when_it_was_published_and_a_replay_goes_by_the_filter_of_now() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let path = with(&app, &receiver.url(), r#"{"data":{"n":{"$lt":2}}}"#).await;
    let id = path.rsplit('/').next().expect("an id").to_owned();
    app.put(&path, json!({ "status": "disabled" })).await.expect(200);
    for n in 0..4 {
        assert_eq!(publish(&app, &format!(r#"{{"n":{n}}}"#)).await, 0);
    }
    let missed = async || app.get(&format!("{path}/missed")).await.expect(200).attribute("count").clone();
    assert_eq!(missed().await, 2);
    set(&app, &path, r#"{"data":{"n":{"$gte":1}}}"#).await;
    assert_eq!(missed().await, 2);
    app.put(&path, json!({ "status": "active" })).await.expect(200);
    let replay = app.replay(&id, json!({ "from": "2026-01-01", "status": "missed" })).await;
    assert_eq!(app.replayed(&replay).await["total"], 3);
    receiver.wait_for(3).await;
    assert_eq!(arrived(&receiver), [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#]);
    set(&app, &path, r#"{"data":{"n":{"$in":[0,3]}}}"#).await;
    let replay = app.replay(&id, json!({ "from": "2026-01-01", "status": "all" })).await;
    assert_eq!(app.replayed(&replay).await["total"], 2, "also of what it has a delivery of");
    receiver.wait_for(5).await;
    assert_eq!(arrived(&receiver), [0, 1, 2, 3, 3].map(|n| format!(r#"{{"n":{n}}}"#)));
    app.put(&path, json!({ "filter": null })).await.expect(200);
    let replay = app.replay(&id, json!({ "from": "2026-01-01", "status": "all" })).await;
    assert_eq!(app.replayed(&replay).await["total"], 4);
}

#[tokio::test]
async fn a_replay_of_more_than_a_step_finds_each_event_that_matches() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let path = with(&app, &receiver.url(), r#"{"data":{"n":{"$lt":3}}}"#).await;
    let text = "x".repeat(30_000);
    let event = |n: u32| json!({ "event": EVENT, "data": { "n": n % 10, "text": text } });
    app.put(&path, json!({ "status": "disabled" })).await.expect(200);
    let batch = (0..120).map(event).collect::<Vec<_>>();
    app.post("/v1/events/batch", json!({ "events": batch })).await.expect(202);
    assert_eq!(app.get(&format!("{path}/missed")).await.expect(200).attribute("count"), 36);
    app.put(&path, json!({ "status": "active" })).await.expect(200);
    let id = path.rsplit('/').next().expect("an id");
    let replay = app.replay(id, json!({ "from": "2026-01-01", "status": "all" })).await;
    assert_eq!(app.replayed(&replay).await["sent"], 36);
    receiver.wait_for(36).await;
}

#[tokio::test]
async fn operational_events_and_tests_ignore_filters() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let none = json!({ "data": { "no_such_field": 1 } });
    let new = json!({ "url": receiver.url(), "events": ["endpoint.disabled", EVENT], "filter": none });
    let made = app.post("/v1/webhooks", new).await.expect(201);
    let (other, _) = app.endpoint("http://127.0.0.1:9/").await;
    app.put(&format!("/v1/webhooks/{other}"), json!({ "status": "disabled" })).await.expect(200);
    app.call("POST", &format!("/v1/webhooks/{}/test", made.id())).send().await.expect(200);
    assert_eq!(publish(&app, "{}").await, 0);
    receiver.wait_for(2).await;
    let replay = app.replay(&made.id(), json!({ "from": "2026-01-01", "status": "all" })).await;
    assert_eq!(app.replayed(&replay).await["total"], 1, "the operational event");
    let read = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON")["event"].clone();
    let mut types: Vec<_> = receiver.wait_for(3).await.iter().map(|request| read(&request.body)).collect();
    types.sort_by_key(ToString::to_string);
    assert_eq!(types, ["endpoint.disabled", "endpoint.disabled", "test"]);
}

#[tokio::test]
async fn a_delivery_that_exists_goes_on_whatever_the_filter_is() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "1s,1s,1s")]).await;
    let receiver = Receiver::start().await;
    let path = with(&app, &receiver.url(), r#"{"data":{"n":1}}"#).await;
    receiver.script([Reply::Status(500)]);
    assert_eq!(publish(&app, r#"{"n":1}"#).await, 1);
    receiver.wait_for(1).await;
    set(&app, &path, r#"{"data":{"n":2}}"#).await;
    receiver.wait_for(2).await;
    let id = path.rsplit('/').next().expect("an id");
    let delivery = app.delivery(id, "success").await["id"].as_str().expect("an id").to_owned();
    app.call("POST", &format!("/v1/webhooks/deliveries/{delivery}/retry")).send().await.expect(202);
    receiver.wait_for(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_published_after_a_change_was_answered_goes_by_the_new_filter() {
    let app = App::start().await;
    let other = if database::is_postgres() { Some(app.another(&[]).await) } else { None };
    // Where there is another node, it publishes.
    let publisher = other.as_ref().unwrap_or(&app);
    let receiver = Receiver::start().await;
    let path = with(&app, &receiver.url(), "{}").await;
    for n in 0..20 {
        set(&app, &path, &format!(r#"{{"data":{{"n":{n}}}}}"#)).await;
        assert_eq!(publish(publisher, &format!(r#"{{"n":{n}}}"#)).await, 1);
        assert_eq!(publish(publisher, &format!(r#"{{"n":{}}}"#, n + 1)).await, 0);
    }
    app.delete(&path).await.expect(204);
    assert_eq!(publish(publisher, r#"{"n":19}"#).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_decided_by_one_state_of_the_filters_while_they_change() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let filters = ["a", "b"].map(|side| format!(r#"{{"data":{{"side":"{side}"}}}}"#));
    let path = with(&app, &receiver.url(), &filters[0]).await;
    let change = async {
        for n in 0..60 {
            set(&app, &path, &filters[n % 2]).await;
        }
    };
    let publish = async {
        let events = ["a", "b", "c"].map(|side| json!({ "event": EVENT, "data": { "side": side } }));
        for _ in 0..60 {
            let batch = app.post("/v1/events/batch", json!({ "events": events })).await.expect(202);
            let made = made_by(&batch);
            assert!(made == [1, 0, 0] || made == [0, 1, 0], "{made:?}");
        }
    };
    tokio::join!(change, publish);
    receiver.wait_for(60).await;
}

/// A filter that asks much of data with many numbers, and such data. It matches none of them.
pub fn slow() -> (String, String) {
    let odd: Vec<_> = (0..800).map(|n| (2 * n + 1).to_string()).collect();
    let filter = format!(r#"{{"data":{{"rows":{{"cells":{{"$in":[{}]}}}}}}}}"#, odd.join(","));
    let row = format!(r#"{{"cells":[{}]}}"#, ["2"; 1_000].join(","));
    (filter, format!(r#"{{"rows":[{}]}}"#, vec![row; 100].join(",")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_filters_of_one_account_hold_up_no_call_of_another_account() {
    let app = App::start().await;
    let (filter, data) = slow();
    for _ in 0..30 {
        with(&app, "http://127.0.0.1:9/", &filter).await;
    }
    let (_, other) = app.stranger().await;
    let cheap = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT], "filter": { "data": { "n": 1 } } });
    app.call("POST", "/v1/webhooks").bearer(&other).json(&cheap).send().await.expect(201);
    let event = format!(r#"{{"event":"{EVENT}","data":{data}}}"#);
    let batch = format!(r#"{{"events":[{event},{event}]}}"#);
    let (began, mut publishing) = (Instant::now(), JoinSet::new());
    for _ in 0..2 {
        let call = app.call("POST", "/v1/events/batch").header("content-type", "application/json");
        publishing.spawn(call.body(batch.clone()).send());
    }
    let mut longest = Duration::ZERO;
    let first = loop {
        let asked = Instant::now();
        let event = json!({ "event": EVENT, "data": { "n": 2 } });
        let published = app.call("POST", "/v1/events").bearer(&other).json(&event).send().await.expect(202);
        assert_eq!(published.attribute("deliveries"), 0);
        app.get("/v1/webhooks").await.expect(200);
        longest = longest.max(asked.elapsed());
        if let Some(first) = publishing.try_join_next() {
            break first.expect("no panic");
        }
    };
    let published = began.elapsed();
    eprintln!("the slow checks took {published:?}, two other calls together {longest:?} at most");
    assert_eq!(made_by(&first.expect(202)), [0, 0]);
    assert!(longest < published / 2, "{longest:?} of {published:?}");
    for batch in publishing.join_all().await {
        assert_eq!(made_by(&batch.expect(202)), [0, 0]);
    }
}

#[tokio::test]
async fn only_who_may_change_endpoints_sets_a_filter() {
    let app = App::start().await;
    let path = with(&app, "http://127.0.0.1:9/", r#"{"data":{"n":1}}"#).await;
    let reader = app.key_for(&[Permission::WebhooksRead]).await;
    let change = json!({ "filter": {} });
    app.call("PUT", &path).bearer(&reader).json(&change).send().await.refused(403, "forbidden", "");
    let (_, stranger) = app.stranger().await;
    app.call("PUT", &path).bearer(&stranger).json(&change).send().await.refused(404, "not_found", "");
    let read = app.call("GET", &path).bearer(&reader).send().await.expect(200);
    assert_eq!(read.attribute("filter"), &json!({ "data": { "n": 1 } }));
}
