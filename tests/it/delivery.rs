//! Deliveries as receivers and owners see them: outcomes, retries, pausing, bounds, restarts.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::app::{App, EVENT, Receiver, Reply, eventually};
use crate::database;

#[tokio::test]
async fn a_delivery_tells_what_was_answered() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Full(201, vec![], "ñ".repeat(600))]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    let validation = "7f3d9a52-6c1e-4b0a-9d57-2f8e41c6b3aa";
    app.publish(json!({ "id": validation })).await;
    let delivery = app.delivery(&id, "success").await;
    assert_eq!(delivery["type"], "webhook_delivery");
    let attributes = &delivery["attributes"];
    assert_eq!(attributes["endpoint_id"], id.as_str());
    assert_eq!((&attributes["event_type"], &attributes["validation_id"]), (&json!(EVENT), &json!(validation)));
    assert_eq!((&attributes["response_status"], &attributes["attempt"]), (&json!(201), &json!(1)));
    assert_eq!(attributes["response_body"], "ñ".repeat(500), "the first 500 characters");
    assert_eq!((&attributes["next_retry_at"], &attributes["error_message"]), (&Value::Null, &Value::Null));
    assert!(attributes["response_time_ms"].is_u64());
    assert!(attributes.get("endpoint_url").is_none());
    assert_eq!(delivery["id"], receiver.received()[0].header("webhook-id"));
    let all = app.get("/v1/webhooks/deliveries").await.expect(200);
    assert_eq!(all.json["data"][0]["attributes"]["endpoint_url"], receiver.url());
    let endpoint = app.get(&format!("/v1/webhooks/{id}")).await;
    assert!(endpoint.attribute("last_delivery_at").is_string());
}

#[tokio::test]
async fn a_failed_attempt_is_retried_with_the_same_id_and_bytes_until_the_schedule_ends() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "100ms,200ms")]).await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Status(500));
    let (id, secret) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "n": 1 })).await;
    let requests = receiver.wait_for(3).await;
    let delivery = app.delivery(&id, "failed").await;
    assert_eq!(delivery["attributes"]["attempt"], 3);
    assert_eq!(delivery["attributes"]["error_message"], "the receiver answered 500");
    assert_eq!(delivery["attributes"]["next_retry_at"], Value::Null);
    for request in &requests {
        crate::verify::assert_signed(request, &secret);
        assert_eq!(request.body, requests[0].body);
        assert_eq!(request.header("webhook-id"), requests[0].header("webhook-id"));
    }
    assert!(requests[1].at - requests[0].at >= Duration::from_millis(90));
    assert!(requests[2].at - requests[1].at >= Duration::from_millis(180));
    let endpoint = app.get(&format!("/v1/webhooks/{id}")).await;
    assert_eq!(endpoint.attribute("consecutive_failures"), 3);
    assert_eq!(receiver.received().len(), 3, "no further attempt");
}

#[tokio::test]
async fn while_retrying_the_next_attempts_time_is_shown_and_a_success_clears_the_failures() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "2s")]).await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Status(404)]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let waiting = app.delivery(&id, "retrying").await;
    assert!(waiting["attributes"]["next_retry_at"].is_string());
    assert_eq!(waiting["attributes"]["response_status"], 404);
    let done = app.delivery(&id, "success").await;
    assert_eq!((&done["attributes"]["attempt"], &done["attributes"]["next_retry_at"]), (&json!(2), &Value::Null));
    assert_eq!(app.get(&format!("/v1/webhooks/{id}")).await.attribute("consecutive_failures"), 0);
}

#[tokio::test]
async fn what_went_wrong_is_told_in_words() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", ""), ("WEBHOOKS__TIMEOUT", "1s")]).await;
    let receiver = Receiver::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    // It speaks no TLS.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (port, plain) = (free.port(), listener.local_addr().expect("an address").port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    for (url, reply, words) in [
        (
            format!("http://127.0.0.1:{port}/"),
            None,
            format!("could not connect to 127.0.0.1:{port}: connection refused"),
        ),
        (format!("https://127.0.0.1:{plain}/"), None, format!("TLS handshake with 127.0.0.1:{plain} failed")),
        (receiver.url(), Some(Reply::Status(302)), "the receiver answered 302: redirects are not followed".to_owned()),
        (receiver.url(), Some(Reply::Status(503)), "the receiver answered 503".to_owned()),
        (receiver.url(), Some(Reply::Hang), "timed out after 1s while waiting for the answer".to_owned()),
        (receiver.url(), Some(Reply::Drip), "timed out after 1s while reading the answer".to_owned()),
        (receiver.url(), Some(Reply::Close), "the receiver closed the connection before it answered".to_owned()),
    ] {
        receiver.script(reply);
        let (id, _) = app.endpoint(&url).await;
        let told = app.call("POST", &format!("/v1/webhooks/{id}/test")).send().await.expect(200);
        let error = told.attribute("error").as_str().expect("words").to_owned();
        assert!(error.starts_with(&words), "{error}");
        app.delete(&format!("/v1/webhooks/{id}")).await.expect(204);
    }
}

#[tokio::test]
async fn a_host_that_no_longer_resolves_is_named() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "")]).await;
    let (id, _) = app.endpoint("http://127.0.0.1:9/").await;
    // Registered when it resolved; the change from outside is noticed as the command line's would be.
    database::execute(app.folder(), "UPDATE endpoints SET url = 'http://shop.invalid/hook', version = version + 1")
        .await;
    let told = app.call("POST", &format!("/v1/webhooks/{id}/test")).send().await.expect(200);
    assert_eq!(told.attribute("error"), "could not resolve host shop.invalid");
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "")]).await;
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    receiver.script([Reply::Full(307, vec![("location", other.url())], String::new())]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let delivery = app.delivery(&id, "failed").await;
    assert_eq!(delivery["attributes"]["response_status"], 307);
    assert!(other.received().is_empty());
}

#[tokio::test]
async fn a_dripping_receiver_cannot_hold_a_slot_past_the_timeout() {
    let app =
        App::with(&[("WEBHOOKS__TIMEOUT", "1s"), ("WEBHOOKS__RETRY_SCHEDULE", ""), ("WEBHOOKS__MAX_IN_FLIGHT", "1")])
            .await;
    let (drip, well) = (Receiver::start().await, Receiver::start().await);
    drip.always(Reply::Drip);
    let (sick, _) = app.endpoint(&drip.url()).await;
    app.publish(json!({})).await;
    drip.wait_for(1).await;
    app.endpoint(&well.url()).await;
    let begin = Instant::now();
    app.publish(json!({})).await;
    well.wait_for(1).await;
    assert!(begin.elapsed() < Duration::from_secs(10));
    let failed = app.delivery(&sick, "failed").await;
    assert_eq!(failed["attributes"]["response_status"], Value::Null);
    assert!(failed["attributes"]["error_message"].as_str().is_some_and(|words| words.contains("timed out")));
}

#[tokio::test]
async fn no_more_than_16_kib_of_an_answer_are_read() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Full(200, vec![], "x".repeat(5_000_000))]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let delivery = app.delivery(&id, "success").await;
    assert_eq!(delivery["attributes"]["response_body"], "x".repeat(500));
}

#[tokio::test]
async fn retry_after_is_honoured_where_it_is_later_than_the_schedule() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "100ms,100ms,100ms")]).await;
    let receiver = Receiver::start().await;
    let wait = |seconds: &str| vec![("retry-after", seconds.to_owned())];
    receiver.script([
        Reply::Full(503, wait("2"), String::new()),
        Reply::Full(429, wait("1"), String::new()),
        Reply::Full(500, wait("3000"), String::new()),
    ]);
    app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let requests = receiver.wait_for(4).await;
    // The server's time is in whole milliseconds.
    assert!(requests[1].at - requests[0].at >= Duration::from_millis(1_999));
    assert!(requests[2].at - requests[1].at >= Duration::from_millis(999));
    assert!(requests[3].at - requests[2].at < Duration::from_secs(20), "only 429 and 503 ask for patience");
}

#[tokio::test]
async fn a_410_stops_the_delivery_and_disables_the_endpoint() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Status(410)]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let delivery = app.delivery(&id, "failed").await;
    assert_eq!(delivery["attributes"]["attempt"], 1);
    let endpoint = app.get(&format!("/v1/webhooks/{id}")).await;
    assert_eq!(endpoint.attribute("status"), "auto_disabled");
    let none = app.post("/v1/events", json!({ "event": EVENT, "data": {} })).await.expect(202);
    assert_eq!(none.attribute("deliveries"), 0, "an endpoint that is not active gets no deliveries");
}

#[tokio::test]
async fn past_the_threshold_an_endpoint_is_disabled_and_active_clears_the_counter() {
    let app = App::with(&[("WEBHOOKS__AUTO_DISABLE_THRESHOLD", "2"), ("WEBHOOKS__RETRY_SCHEDULE", "")]).await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Status(500));
    let (id, _) = app.endpoint(&receiver.url()).await;
    let path = format!("/v1/webhooks/{id}");
    for n in 1..=3 {
        assert_eq!(app.get(&path).await.attribute("status"), "active");
        app.publish(json!({ "n": n })).await;
        eventually("the failure to be counted", || async {
            (app.get(&path).await.attribute("consecutive_failures") == n).then_some(())
        })
        .await;
    }
    assert_eq!(app.get(&path).await.attribute("status"), "auto_disabled");
    let active = app.put(&path, json!({ "status": "active" })).await.expect(200);
    assert_eq!((active.attribute("status"), active.attribute("consecutive_failures")), (&json!("active"), &json!(0)));
    receiver.always(Reply::Status(200));
    app.publish(json!({})).await;
    app.delivery(&id, "success").await;
}

#[tokio::test]
async fn deliveries_of_a_paused_endpoint_are_held_and_go_on_when_it_is_active() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "300ms,300ms")]).await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Status(500)]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    let other = Receiver::start().await;
    app.publish(json!({ "n": 1 })).await;
    receiver.wait_for(1).await;
    let path = format!("/v1/webhooks/{id}");
    app.put(&path, json!({ "status": "disabled" })).await.expect(200);
    app.endpoint(&other.url()).await;
    let missed = app.post("/v1/events", json!({ "event": EVENT, "data": { "n": 2 } })).await.expect(202);
    assert_eq!(missed.attribute("deliveries"), 1, "events of the pause make no delivery for it");
    // Another endpoint's retry, which was scheduled later, has come and gone: the held one was not merely late.
    other.script([Reply::Status(500)]);
    app.publish(json!({ "n": 3 })).await;
    other.wait_for(3).await;
    assert_eq!(receiver.received().len(), 1, "held");
    app.put(&path, json!({ "status": "active" })).await.expect(200);
    let requests = receiver.wait_for(2).await;
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    app.delivery(&id, "success").await;
    assert_eq!(receiver.received().len(), 2);
}

#[tokio::test]
async fn a_changed_url_is_used_by_the_next_attempt() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "500ms")]).await;
    let (old, new) = (Receiver::start().await, Receiver::start().await);
    old.script([Reply::Status(500)]);
    let (id, _) = app.endpoint(&old.url()).await;
    app.publish(json!({})).await;
    old.wait_for(1).await;
    app.put(&format!("/v1/webhooks/{id}"), json!({ "url": new.url() })).await.expect(200);
    new.wait_for(1).await;
    assert_eq!(old.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_hanging_endpoint_slows_no_other() {
    let app = App::with(&[("WEBHOOKS__MAX_IN_FLIGHT", "8")]).await;
    let (sick, well) = (Receiver::start().await, Receiver::start().await);
    sick.always(Reply::Hang);
    app.endpoint(&sick.url()).await;
    app.publish(json!({})).await;
    sick.wait_for(1).await;
    app.endpoint(&well.url()).await;
    let begin = Instant::now();
    for n in 0..100 {
        app.publish(json!({ "n": n })).await;
    }
    well.wait_for(100).await;
    assert!(begin.elapsed() < Duration::from_secs(9), "well before the sick one's timeout");
    assert!(sick.received().len() <= 2, "an unproven endpoint is tried with two at most");
}

#[tokio::test]
async fn a_kept_connection_that_the_receiver_closed_is_no_failure() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "n": 1 })).await;
    app.delivery(&id, "success").await;
    // The next request on the kept connection finds it closed without an answer, and another one is made.
    receiver.script([Reply::Close]);
    app.publish(json!({ "n": 2 })).await;
    receiver.wait_for(3).await;
    eventually("both deliveries to succeed", || async {
        let listed = app.get(&format!("/v1/webhooks/{id}/deliveries")).await;
        let rows = listed.json["data"].as_array().cloned().unwrap_or_default();
        rows.iter().all(|row| row["attributes"]["status"] == "success").then_some(())
    })
    .await;
    assert_eq!(app.get(&format!("/v1/webhooks/{id}")).await.attribute("consecutive_failures"), 0);
}

#[tokio::test]
async fn a_stop_lets_attempts_finish_and_a_start_goes_on() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "1s"), ("WEBHOOKS__TIMEOUT", "2s")]).await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Status(500), Reply::Hang]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "n": 1 })).await;
    receiver.wait_for(1).await;
    app.delivery(&id, "retrying").await;
    app.publish(json!({ "n": 2 })).await;
    receiver.wait_for(2).await;
    let app = app.restart(&[("WEBHOOKS__RETRY_SCHEDULE", "1s")]).await;
    receiver.wait_for(4).await;
    eventually("both deliveries to succeed", || async {
        let listed = app.get(&format!("/v1/webhooks/{id}/deliveries")).await;
        let rows = listed.json["data"].as_array().cloned().unwrap_or_default();
        (rows.len() == 2 && rows.iter().all(|row| row["attributes"]["status"] == "success")).then_some(())
    })
    .await;
    let hung = app.get(&format!("/v1/webhooks/{id}/deliveries?per_page=1")).await;
    let attempt = &hung.json["data"][0]["attributes"]["attempt"];
    assert_eq!(attempt, 2, "the attempt under way at the stop was allowed to end and was written down");
}

#[tokio::test]
async fn many_deliveries_survive_a_full_memory() {
    // More than one endpoint may have in memory: the rest is left in the database and fetched when there is room.
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Hang]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    let batch: Vec<Value> = (0..1_000).map(|n| json!({ "event": EVENT, "data": { "n": n } })).collect();
    for _ in 0..3 {
        app.post("/v1/events/batch", json!({ "events": batch })).await.expect(202);
    }
    receiver.wait_for(3_000).await;
    let ids: std::collections::HashSet<_> =
        receiver.received().iter().map(|request| request.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), 3_000);
    let listed = app.get(&format!("/v1/webhooks/{id}/deliveries")).await.expect(200);
    assert_eq!(listed.json["meta"]["pagination"]["total"], 3_000);
}

#[tokio::test]
async fn endpoints_on_one_host_share_its_connections_and_open_no_more_than_they_use() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Late(Duration::from_millis(20)));
    for _ in 0..4 {
        app.endpoint(&receiver.url()).await;
    }
    let events = vec![json!({ "event": EVENT, "data": {} }); 500];
    app.post("/v1/events/batch", json!({ "events": events })).await.expect(202);
    receiver.wait_for(2_000).await;
    assert!(receiver.connections() <= 4 * 64, "{} connections", receiver.connections());
}

#[tokio::test]
async fn an_attempt_at_the_old_url_is_not_charged_to_the_changed_endpoint() {
    let app = App::with(&[("WEBHOOKS__TIMEOUT", "1s"), ("WEBHOOKS__RETRY_SCHEDULE", "")]).await;
    let (old, new) = (Receiver::start().await, Receiver::start().await);
    old.always(Reply::Hang);
    let (id, _) = app.endpoint(&old.url()).await;
    app.publish(json!({ "n": 1 })).await;
    old.wait_for(1).await;
    let path = format!("/v1/webhooks/{id}");
    app.put(&path, json!({ "url": new.url() })).await.expect(200);
    let failed = app.delivery(&id, "failed").await;
    assert!(failed["attributes"]["error_message"].as_str().is_some_and(|words| words.contains("timed out")));
    let endpoint = app.get(&path).await.expect(200);
    assert_eq!(endpoint.attribute("consecutive_failures"), 0);
    assert!(endpoint.attribute("last_delivery_at").is_string(), "it was an attempt all the same");
}

/// A receiver that sends so many interim answers before its answer.
async fn interim(answers: usize) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut request = [0; 16 << 10];
        if stream.read(&mut request).await? == 0 {
            return Ok(0);
        }
        for _ in 0..answers {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n").await?;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        // Until the client closes.
        stream.read_to_end(&mut Vec::new()).await
    });
    format!("http://{address}/")
}

#[tokio::test]
async fn a_receiver_may_send_some_interim_answers_and_not_without_end() {
    let app = App::with(&[("WEBHOOKS__TIMEOUT", "25s")]).await;
    let endless = "the receiver sent 128 KiB of interim answers (1xx) before its answer";
    for (answers, expected) in [(100, Value::Null), (usize::MAX, json!(endless))] {
        let (id, _) = app.endpoint(&interim(answers).await).await;
        let begin = Instant::now();
        let told = app.call("POST", &format!("/v1/webhooks/{id}/test")).send().await.expect(200);
        assert_eq!((told.attribute("delivered"), told.attribute("error")), (&json!(expected.is_null()), &expected));
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    }
}
