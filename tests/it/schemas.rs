//! Schemas of event types whose check could take very long: which ones are refused, and what they leave to others.

use std::time::{Duration, Instant};

use aldaba::domain::event::EventType;
use aldaba::domain::time::Timestamp;
use aldaba::store::Catalog;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::app::{Answer, App, EVENT};

/// Definitions of which each but the last refers twice to the next: a check makes 2 to the power of `levels` steps.
fn doubling(levels: usize) -> Value {
    let mut definitions = json!({ format!("n{levels}"): { "type": "object", "maxProperties": 5 } });
    for n in 0..levels {
        let next = json!({ "$ref": format!("#/$defs/n{}", n + 1) });
        definitions[format!("n{n}")] = json!({ "allOf": [next, next] });
    }
    json!({ "$ref": "#/$defs/n0", "$defs": definitions })
}

async fn create(app: &App, name: &str, schema: &Value) -> Answer {
    let body = json!({ "name": name, "schema": schema });
    app.call("POST", "/v1/event-types").bearer(&app.operator).json(&body).send().await
}

#[tokio::test]
async fn a_schema_whose_check_could_take_very_long_is_refused_and_the_error_says_what_is_allowed() {
    let app = App::start().await;
    let objects: Vec<_> = (0..8_000).map(|n| json!({ "n": n })).collect();
    let chain: serde_json::Map<_, _> =
        (0..1_000).map(|n| (format!("n{n}"), json!({ "$ref": format!("#/$defs/n{}", n + 1) }))).collect();
    let mut chain = json!({ "$ref": "#/$defs/n0", "$defs": chain });
    chain["$defs"]["n1000"] = json!(true);
    let twice_at_each_level = json!({ "additionalProperties": { "allOf": [{ "$ref": "#" }, { "$ref": "#" }] } });
    for (schema, allowed) in [
        (doubling(40), "up to 5000 steps"),
        (twice_at_each_level, "up to 5000 steps"),
        (json!({ "enum": objects }), "up to 5000 steps"),
        (json!({ "pattern": "([a-z]{1,100}){1,200}" }), "up to 5000 steps"),
        (json!({ "allOf": vec![json!({ "minProperties": 0 }); 6_000] }), "up to 5000 subschemas"),
        (chain, "up to 600 subschemas"),
        (json!({ "anyOf": [{ "type": "object" }, { "$ref": "#" }] }), "no $ref may lead back"),
        (json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$id": "https://example.com/a" } } }), "a $ref is #"),
    ] {
        let began = Instant::now();
        let refused = create(&app, "too.heavy", &schema).await;
        let refused = refused.refused(422, "event_type_schema_invalid", "/data/attributes/schema");
        let detail = refused.json["errors"][0]["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(allowed), "{detail}");
        assert!(began.elapsed() < Duration::from_secs(5), "{allowed}: {:?}", began.elapsed());
    }
    create(&app, "changed.later", &json!({ "type": "object" })).await.expect(201);
    let change = json!({ "schema": doubling(40) });
    let call = app.call("PUT", "/v1/event-types/changed.later").bearer(&app.operator).json(&change);
    let refused = call.header("accept-language", "es").send().await.expect(422);
    let detail = refused.json["errors"][0]["detail"].as_str().expect("a detail").to_owned();
    assert!(detail.contains("hasta 5000 pasos"), "{detail}");
}

#[tokio::test]
async fn schemas_with_references_unions_and_patterns_are_stored_and_hold() {
    let app = App::start().await;
    let tree = json!({
        "type": "object", "required": ["name"],
        "properties": {
            "name": { "type": "string", "pattern": "^(?!x)[a-z]{1,64}$" },
            "children": { "type": "array", "items": { "$ref": "#" } },
        },
    });
    let kind = |n: usize| json!({ "properties": { "kind": { "const": n }, "n": { "$ref": "#/$defs/number" } } });
    let union = json!({
        "$defs": { "number": { "$anchor": "number", "type": "integer" } },
        "properties": { "first": { "$ref": "#number" } },
        "oneOf": (0..50).map(kind).collect::<Vec<_>>(),
        "unevaluatedProperties": false,
    });
    for (name, schema, good, bad) in [
        (
            "a.tree",
            tree,
            json!({ "name": "a", "children": [{ "name": "b", "children": [{ "name": "c" }] }] }),
            json!({ "name": "a", "children": [{ "name": "b", "children": [{ "name": "xc" }] }] }),
        ),
        ("a.union", union, json!({ "kind": 7, "n": 1, "first": 2 }), json!({ "kind": 7, "n": 1, "second": 2 })),
    ] {
        create(&app, name, &schema).await.expect(201);
        app.post("/v1/events", json!({ "event": name, "data": good })).await.expect(202);
        let refused = app.post("/v1/events", json!({ "event": name, "data": bad })).await;
        refused.refused(422, "event_data_invalid", "/data/attributes/data");
        let batch = json!({ "events": [{ "event": name, "data": good }, { "event": name, "data": bad }] });
        let refused = app.post("/v1/events/batch", batch).await;
        refused.refused(422, "event_data_invalid", "/events/1/data");
        // Large data is checked on other threads, one after the other or as a batch.
        let text = "y".repeat(200_000);
        let large = json!({ "event": EVENT, "data": { "text": text } });
        let mut batch = vec![large.clone(), json!({ "event": name, "data": good }), large];
        app.post("/v1/events/batch", json!({ "events": batch })).await.expect(202);
        batch.push(json!({ "event": name, "data": { "text": text } }));
        let refused = app.post("/v1/events/batch", json!({ "events": batch })).await;
        refused.refused(422, "event_data_invalid", "/events/3/data");
    }
}

/// A version that did not look at the work of schemas has stored it. The threads that serve requests were those that
/// checked it: all other calls waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_schema_that_was_stored_before_holds_up_no_call_of_another_account() {
    /// Some seconds of checking.
    const LEVELS: usize = 26;
    let app = App::start().await;
    let now = Timestamp::from_millis(1_800_000_000_000);
    let schema = Some(doubling(LEVELS).to_string());
    let slow =
        EventType { name: "a.slow".into(), description: None, schema, example: None, created_at: now, updated_at: now };
    app.store.create_event_type(slow, None).await.expect("stored");
    let (_, other) = app.stranger().await;
    let (began, mut checks) = (Instant::now(), JoinSet::new());
    for _ in 0..2 {
        checks.spawn(app.call("POST", "/v1/events").json(&json!({ "event": "a.slow", "data": {} })).send());
    }
    let mut longest = Duration::ZERO;
    let first = loop {
        let asked = Instant::now();
        let event = json!({ "event": EVENT, "data": {} });
        app.call("POST", "/v1/events").bearer(&other).json(&event).send().await.expect(202);
        app.get("/v1/webhooks").await.expect(200);
        longest = longest.max(asked.elapsed());
        if let Some(first) = checks.try_join_next() {
            break first.expect("no panic");
        }
    };
    let checked = began.elapsed();
    eprintln!("a slow check took {checked:?}, two other calls together {longest:?} at most");
    first.expect(202);
    assert!(checked > Duration::from_millis(500), "{checked:?} is not slow: more levels are needed");
    assert!(longest < checked / 2, "{longest:?} of {checked:?}");
    for check in checks.join_all().await {
        check.expect(202);
    }
}
