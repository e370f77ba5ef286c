//! The trace of an event: taken from headers and fields, kept, and sent with every attempt.

use serde_json::{Value, json};

use crate::app::{App, Call, EVENT, Received, Receiver, Reply};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const STATE: &str = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";

/// A call that publishes an event, without a trace of its own.
fn publication(app: &App) -> Call {
    app.call("POST", "/v1/events").json(&json!({ "event": EVENT, "data": {} }))
}

/// An event of a batch with fields of its own.
fn event_of(n: u32, parent: Value, state: Value) -> Value {
    json!({ "event": EVENT, "data": { "n": n }, "traceparent": parent, "tracestate": state })
}

/// The trace, the span and the flags of a request.
fn sent(request: &Received) -> [&str; 3] {
    let parts: Vec<&str> = request.header("traceparent").split('-').collect();
    let [version, trace, span, flags] = parts[..] else { panic!("no traceparent: {:?}", request.headers) };
    assert_eq!((version, trace.len(), span.len(), flags.len()), ("00", 32, 16, 2));
    [trace, span, flags]
}

fn has_trace(request: &Received) -> bool {
    request.headers.contains_key("traceparent") || request.headers.contains_key("tracestate")
}

/// The traces that requests are in, by the `n` of their data; empty for none.
fn traces(requests: &[Received]) -> Vec<String> {
    let mut traces: Vec<(u64, String)> = requests
        .iter()
        .map(|request| {
            let body: Value = serde_json::from_slice(&request.body).expect("JSON");
            let trace = if has_trace(request) { sent(request)[0].to_owned() } else { String::new() };
            (body["data"]["n"].as_u64().expect("a number"), trace)
        })
        .collect();
    traces.sort();
    traces.into_iter().map(|(_, trace)| trace).collect()
}

#[tokio::test]
async fn every_attempt_is_a_span_of_its_own_in_the_trace_of_its_event() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "20ms")]).await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    receiver.script([Reply::Status(500)]);
    let call = publication(&app).header("traceparent", PARENT).header("tracestate", STATE);
    call.send().await.expect(202);
    receiver.wait_for(2).await;
    // Sent again by hand after a restart, it comes out of the database.
    let delivery = app.delivery(&endpoint, "success").await["id"].as_str().expect("an id").to_owned();
    let app = app.restart(&[]).await;
    app.post(&format!("/v1/webhooks/deliveries/{delivery}/retry"), json!({})).await.expect(202);
    receiver.wait_for(3).await;
    app.delivery(&endpoint, "success").await;
    let replay = app.replay(&endpoint, json!({ "from": "2026-01-01T00:00:00Z", "status": "all" })).await;
    app.replayed(&replay).await;
    let requests = receiver.wait_for(4).await;
    let mut spans = vec!["00f067aa0ba902b7"];
    for request in &requests {
        let [trace, span, flags] = sent(request);
        assert_eq!((trace, flags, request.header("tracestate")), (TRACE, "01", STATE));
        assert!(!spans.contains(&span), "{span} again");
        spans.push(span);
    }
}

#[tokio::test]
async fn without_an_incoming_trace_nothing_is_sent() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let test = app.call("POST", &format!("/v1/webhooks/{endpoint}/test")).header("traceparent", PARENT);
    test.send().await.expect(200);
    assert!(!receiver.wait_for(2).await.iter().any(has_trace));
}

#[tokio::test]
async fn what_is_not_valid_is_ignored() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    app.endpoint(&receiver.url()).await;
    let upper = PARENT.to_uppercase();
    for parent in ["", "00", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", &upper] {
        let call = publication(&app).header("traceparent", parent).header("tracestate", STATE);
        call.send().await.expect(202);
    }
    publication(&app).header("traceparent", PARENT).header("Traceparent", OTHER).send().await.expect(202);
    publication(&app).header("tracestate", STATE).send().await.expect(202);
    assert!(!receiver.wait_for(6).await.iter().any(has_trace));
    // The trace goes on without a state that is not valid.
    let (long, many) = ("x".repeat(511), ["a=1"; 33].join(","));
    for (number, state) in ["no state", "A=1", &format!("a={long}"), &many].into_iter().enumerate() {
        publication(&app).header("traceparent", PARENT).header("tracestate", state).send().await.expect(202);
        let request = receiver.wait_for(7 + number).await.remove(6 + number);
        assert_eq!((sent(&request)[0], request.headers.contains_key("tracestate")), (TRACE, false), "{state}");
    }
}

#[tokio::test]
async fn an_event_of_a_batch_has_a_trace_of_its_own_or_that_of_the_call() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    app.endpoint(&receiver.url()).await;
    let events = [
        json!({ "event": EVENT, "data": { "n": 0 } }),
        event_of(1, json!(OTHER), json!("own=1")),
        event_of(2, json!(OTHER), Value::Null),
        event_of(3, json!("nonsense"), json!("own=1")),
        event_of(4, json!(7), json!([])),
        event_of(5, Value::Null, json!("own=1")),
    ];
    let other = &OTHER[3..35];
    let expected = [TRACE, other, other, TRACE, TRACE, TRACE];
    let call = || app.call("POST", "/v1/events/batch").header("traceparent", PARENT).header("tracestate", STATE);
    call().json(&json!({ "events": events })).send().await.expect(202);
    let requests = receiver.wait_for(6).await;
    assert_eq!(traces(&requests), expected);
    let mut states: Vec<&str> = requests.iter().map(|request| request.header("tracestate")).collect();
    states.sort_unstable();
    assert_eq!(states, ["", "own=1", STATE, STATE, STATE, STATE], "a state belongs to the parent beside it");

    let lines: Vec<String> = events.iter().map(ToString::to_string).collect();
    let lines = call().header("content-type", "application/x-ndjson").body(lines.join("\n"));
    lines.send().await.expect(202);
    assert_eq!(traces(&receiver.wait_for(12).await[6..]), expected);
    // Without headers the others have none.
    app.post("/v1/events/batch", json!({ "events": events })).await.expect(202);
    assert_eq!(traces(&receiver.wait_for(18).await[12..]), ["", other, other, "", "", ""]);
}

#[tokio::test]
async fn a_repeated_call_leaves_the_event_in_its_first_trace() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    let call = |parent: &str| publication(&app).header("idempotency-key", "k").header("traceparent", parent).send();
    let first = call(PARENT).await.expect(202);
    let again = call(OTHER).await.expect(202);
    assert_eq!((again.id(), again.header("idempotent-replayed")), (first.id(), "true"));
    assert_eq!(sent(&receiver.wait_for(1).await[0])[0], TRACE);
    app.delivery(&endpoint, "success").await;
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn the_setting_turns_traces_off() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    publication(&app).header("traceparent", PARENT).send().await.expect(202);
    assert!(has_trace(&receiver.wait_for(1).await[0]));
    let delivery = app.delivery(&endpoint, "success").await["id"].as_str().expect("an id").to_owned();
    let app = app.restart(&[("WEBHOOKS__TRACE_CONTEXT", "off")]).await;
    // Neither what was kept before nor what comes now.
    app.post(&format!("/v1/webhooks/deliveries/{delivery}/retry"), json!({})).await.expect(202);
    publication(&app).header("traceparent", PARENT).send().await.expect(202);
    let fields = json!({ "event": EVENT, "data": {}, "traceparent": PARENT });
    app.post("/v1/events/batch", json!({ "events": [fields] })).await.expect(202);
    assert!(!receiver.wait_for(4).await[1..].iter().any(has_trace));
    let sql = "SELECT count(*) FROM payloads WHERE trace_context IS NOT NULL";
    assert_eq!(crate::database::number(app.folder(), sql).await, 1);
}
