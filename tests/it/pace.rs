//! What an owner sets of how an endpoint's deliveries are attempted, in place of the server's settings.

use std::time::Duration;

use serde_json::{Value, json};

use crate::app::{App, EVENT, Receiver, Reply};
use crate::endpoint_settings::owners_browser;
use crate::migrations::minimum;

/// Registers an endpoint with this setting, and returns its path.
async fn with(app: &App, url: &str, name: &str, value: Value) -> String {
    let mut body = json!({ "url": url, "events": [EVENT] });
    body[name] = value.clone();
    let made = app.post("/v1/webhooks", body).await.expect(201);
    assert_eq!(made.json["data"]["attributes"].get(name), Some(&value));
    format!("/v1/webhooks/{}", made.id())
}

/// Checks that a setting is absent until it is set, stays when others change, is replaced and removed; and that each of
/// the wrong values is refused in both languages, with words that say what is allowed, and changes nothing.
async fn check(name: &str, code: &str, (first, second): (Value, Value), wrong: &[Value], words: [&str; 2]) {
    let app = App::start().await;
    let (id, _) = app.endpoint("http://127.0.0.1:9/").await;
    let path = format!("/v1/webhooks/{id}");
    let shown = async || app.get(&path).await.expect(200).json["data"]["attributes"].get(name).cloned();
    let pointer = format!("/data/attributes/{name}");
    for value in wrong {
        app.put(&path, json!({ name: value })).await.refused(422, code, &pointer);
        let body = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT], name: value });
        app.post("/v1/webhooks", body).await.refused(422, code, &pointer);
    }
    for (language, words) in ["en", "es"].into_iter().zip(words) {
        let body = json!({ name: wrong[0] });
        let refused = app.call("PUT", &path).header("accept-language", language).json(&body).send().await;
        let detail = refused.json["errors"][0]["detail"].as_str().expect("a detail");
        assert!(detail.contains(words), "{detail}");
    }
    assert_eq!((shown().await, minimum(app.folder()).await), (None, 0));
    assert_eq!(app.get("/v1/webhooks").await.expect(200).json["data"].as_array().map(Vec::len), Some(1));
    for value in [first, second] {
        app.put(&path, json!({ name: value })).await.expect(200);
        app.put(&path, json!({ "description": "a" })).await.expect(200);
        assert_eq!(shown().await, Some(value));
    }
    let required = if name == "rate_limit" { 21 } else { 18 };
    assert_eq!(minimum(app.folder()).await, required, "older programs would go by the server's setting");
    app.put(&path, json!({ name: null })).await.expect(200);
    assert_eq!(shown().await, None);
    let entries = app.get("/v1/audit-log?action=webhook.updated").await.expect(200);
    assert_eq!(entries.json["data"][0]["attributes"]["fields"], json!([name]));
    let bare = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT], name: null });
    let bare = app.post("/v1/webhooks", bare).await.expect(201);
    assert!(bare.json["data"]["attributes"].get(name).is_none());
}

/// The form of an endpoint with this field.
fn form<'a>(name: &'a str, value: &'a str) -> [(&'a str, &'a str); 3] {
    [("url", "http://127.0.0.1:9/"), ("events", EVENT), (name, value)]
}

/// Writes a setting in the form of the dashboard, finds it there and on the page, and removes it.
async fn check_dashboard(name: &str, (wrong, written): (&str, &str), stored: Value, shown: &str) {
    let app = App::start().await;
    let mut browser = owners_browser(&app).await;
    let new = format!("/accounts/{}/endpoints/new", app.account);
    let page = browser.open(&new).await.expect(200);
    let refused = browser.submit(&page, &new, &form(name, wrong)).await.expect(422);
    assert!(refused.html.contains(&format!("f-{name}-error")), "{}", refused.content());
    browser.submit(&page, &new, &form(name, written)).await.expect(200);
    let listed = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(listed.json["data"][0]["attributes"][name], stored);
    let id = listed.json["data"][0]["id"].as_str().expect("an id");
    let endpoint = format!("/accounts/{}/endpoints/{id}", app.account);
    let page = browser.open(&endpoint).await.expect(200);
    assert!(page.html.contains(shown), "{}", page.content());
    let edit = format!("{endpoint}/edit");
    let page = browser.open(&edit).await.expect(200);
    assert!(page.html.contains(&format!("value=\"{written}\"")), "{}", page.content());
    browser.submit(&page, &edit, &form(name, "")).await.expect(200);
    let removed = app.get("/v1/webhooks").await.expect(200);
    assert!(removed.json["data"][0]["attributes"].get(name).is_none());
}

#[tokio::test]
async fn a_timeout_is_a_whole_number_of_seconds_up_to_two_minutes() {
    let wrong = [json!(0), json!(121), json!(-1), json!(1.5), json!("10"), json!("10s"), json!([10]), json!({})];
    let words = ["from 1 to 120, or null", "de 1 a 120, o null"];
    check("timeout_seconds", "webhook_timeout_seconds_invalid", (json!(1), json!(120)), &wrong, words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_is_written_and_shown_in_the_dashboard() {
    check_dashboard("timeout_seconds", ("soon", "30"), json!(30), "Timeout in seconds").await;
}

#[tokio::test]
async fn an_attempt_takes_as_long_as_its_endpoint_allows_and_not_as_the_server_does() {
    let settings = [("WEBHOOKS__TIMEOUT", "2s"), ("WEBHOOKS__RETRY_SCHEDULE", "")];
    let app = App::with(&settings).await;
    let receiver = Receiver::start().await;
    let path = with(&app, &receiver.url(), "timeout_seconds", json!(1)).await;
    let test = async || app.call("POST", &format!("{path}/test")).send().await.expect(200);
    receiver.script([Reply::Hang]);
    assert_eq!(test().await.attribute("error"), "timed out after 1s while waiting for the answer");
    app.put(&path, json!({ "timeout_seconds": 30 })).await.expect(200);
    receiver.script([Reply::Late(Duration::from_millis(2_300)), Reply::Late(Duration::from_millis(2_300))]);
    let (tested, published) = tokio::join!(test(), app.publish(json!({})));
    assert_eq!(tested.attribute("delivered"), true, "{}", tested.json);
    let delivery = app.delivery(path.rsplit('/').next().expect("an id"), "success").await;
    assert!(delivery["attributes"]["response_time_ms"].as_u64() >= Some(2_300), "{published}: {delivery}");
    app.put(&path, json!({ "timeout_seconds": null })).await.expect(200);
    receiver.script([Reply::Hang]);
    assert_eq!(test().await.attribute("error"), "timed out after 2s while waiting for the answer");
}

#[tokio::test]
async fn a_limit_of_attempts_at_once_is_a_whole_number_up_to_the_servers_setting() {
    let wrong = [json!(0), json!(65), json!(-1), json!(1.5), json!("1"), json!(true), json!([1]), json!({})];
    let words = ["from 1 to 64, or null", "de 1 a 64, o null"];
    check("max_in_flight", "webhook_max_in_flight_invalid", (json!(64), json!(1)), &wrong, words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_attempts_at_once_is_written_and_shown_in_the_dashboard() {
    check_dashboard("max_in_flight", ("many", "3"), json!(3), "Attempts at once").await;
}

/// How long a receiver takes for each request in the tests of attempts at once.
const WORK: Duration = Duration::from_millis(60);

/// The shortest time between two arrivals, of those from the `skipped`-th on.
fn closest(receiver: &Receiver, skipped: usize) -> Duration {
    let at: Vec<_> = receiver.received().iter().skip(skipped).map(|request| request.at).collect();
    at.windows(2).map(|pair| pair[1] - pair[0]).min().expect("two at least")
}

async fn publish_many(app: &App, count: usize) {
    let events = vec![json!({ "event": EVENT, "data": {} }); count];
    app.post("/v1/events/batch", json!({ "events": events })).await.expect(202);
}

#[tokio::test]
async fn an_endpoint_has_no_more_in_flight_than_its_owner_allows() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Late(WORK));
    let path = with(&app, &receiver.url(), "max_in_flight", json!(1)).await;
    publish_many(&app, 8).await;
    receiver.wait_for(8).await;
    assert!(closest(&receiver, 0) >= WORK, "one after the other: {:?}", closest(&receiver, 0));
    app.put(&path, json!({ "max_in_flight": null })).await.expect(200);
    publish_many(&app, 30).await;
    receiver.wait_for(38).await;
    assert!(closest(&receiver, 8) < WORK, "several at once: {:?}", closest(&receiver, 8));
    let id = path.rsplit('/').next().expect("an id");
    crate::app::eventually("all to be over", || async {
        let open = app.get(&format!("/v1/webhooks/deliveries?endpoint_id={id}&status=pending")).await.expect(200);
        (open.json["meta"]["pagination"]["total"] == 0).then_some(())
    })
    .await;
    app.put(&path, json!({ "max_in_flight": 1 })).await.expect(200);
    publish_many(&app, 8).await;
    receiver.wait_for(46).await;
    assert!(closest(&receiver, 38) >= WORK, "one after the other again: {:?}", closest(&receiver, 38));
}

#[tokio::test]
async fn the_limit_of_an_endpoint_holds_for_all_nodes_together_and_leaves_nothing_behind() {
    if !crate::database::is_postgres() {
        return;
    }
    let first = App::start().await;
    let second = first.another(&[]).await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Late(WORK));
    let path = with(&first, &receiver.url(), "max_in_flight", json!(64)).await;
    // Both nodes have some in memory when one of them may send no more.
    for node in [&first, &second] {
        publish_many(node, 20).await;
    }
    first.put(&path, json!({ "max_in_flight": 1 })).await.expect(200);
    let id = path.rsplit('/').next().expect("an id");
    crate::app::eventually("all to be sent", || async {
        let sent = first.get(&format!("/v1/webhooks/deliveries?endpoint_id={id}&status=success")).await.expect(200);
        (sent.json["meta"]["pagination"]["total"] == 40).then_some(())
    })
    .await;
    let before = receiver.received().len();
    for node in [&first, &second, &first, &second] {
        publish_many(node, 2).await;
    }
    receiver.wait_for(before + 8).await;
    assert!(closest(&receiver, before) >= WORK, "one after the other: {:?}", closest(&receiver, before));
}

#[tokio::test]
async fn a_retry_schedule_is_a_list_of_up_to_20_seconds() {
    let wrong = [
        json!("30s"),
        json!(30),
        json!({}),
        json!([0]),
        json!([604_801]),
        json!([1.5]),
        json!([-1]),
        json!(["1"]),
        json!([null]),
        json!([[1]]),
        json!(vec![1; 21]),
    ];
    let words = ["up to 20 whole numbers", "hasta 20 números enteros"];
    let good = (json!(vec![604_800; 20]), json!([]));
    check("retry_schedule", "webhook_retry_schedule_invalid", good, &wrong, words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_schedule_is_written_and_shown_in_the_dashboard() {
    check_dashboard("retry_schedule", ("30s", "30, 600"), json!([30, 600]), "30, 600").await;
    check_dashboard("retry_schedule", ("0, 0", "0"), json!([]), "No retry").await;
}

#[tokio::test]
async fn an_endpoint_is_tried_again_by_its_own_schedule() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "1h")]).await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Status(500));
    let twice = with(&app, &receiver.url(), "retry_schedule", json!([1, 1])).await;
    let never = with(&app, &receiver.url(), "retry_schedule", json!([])).await;
    let (by_default, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let id = |path: &str| path.rsplit('/').next().expect("an id").to_owned();
    let failed = app.delivery(&id(&twice), "failed").await;
    assert_eq!(failed["attributes"]["attempt"], 3, "{failed}");
    let failed = app.delivery(&id(&never), "failed").await;
    assert_eq!((&failed["attributes"]["attempt"], &failed["attributes"]["next_retry_at"]), (&json!(1), &Value::Null));
    let waiting = app.delivery(&by_default, "retrying").await;
    assert_eq!(waiting["attributes"]["attempt"], 1);
    // Sent again by hand, it goes by the schedule of now, from its beginning.
    app.put(&never, json!({ "retry_schedule": [1] })).await.expect(200);
    let path = format!("/v1/webhooks/deliveries/{}/retry", failed["id"].as_str().expect("an id"));
    app.post(&path, json!({})).await.expect(202);
    receiver.wait_for(7).await;
    let failed = app.delivery(&id(&never), "failed").await;
    assert_eq!(failed["attributes"]["attempt"], 3, "{failed}");
}

#[tokio::test]
async fn a_fifo_endpoint_goes_on_when_its_own_schedule_is_used_up() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "1h")]).await;
    let receiver = Receiver::start().await;
    let body = json!({ "url": receiver.url(), "events": [EVENT], "ordering": "fifo", "retry_schedule": [1] });
    app.post("/v1/webhooks", body).await.expect(201);
    receiver.script([Reply::Status(500), Reply::Status(500)]);
    for n in 0..2 {
        app.publish(json!({ "n": n })).await;
    }
    let requests = receiver.wait_for(3).await;
    let sent: Vec<_> = requests
        .iter()
        .map(|request| serde_json::from_slice::<Value>(&request.body).expect("JSON")["data"]["n"].clone())
        .collect();
    assert_eq!(sent, [0, 0, 1]);
}

#[tokio::test]
async fn a_rate_limit_is_a_number_of_attempts_in_a_second_to_an_hour() {
    let wrong = [
        json!("100"),
        json!(100),
        json!(""),
        json!("0/1s"),
        json!("10001/1s"),
        json!("1/999ms"),
        json!("1/1h1s"),
        json!("1/60"),
        json!("1 / 1s"),
        json!("off"),
        json!(["1/1s"]),
        json!({}),
    ];
    let words = ["100/1m, with 1 to 10000 attempts", "100/1m, con 1 a 10000 intentos"];
    let good = (json!("10000/1h"), json!("1/60s"));
    check("rate_limit", "webhook_rate_limit_invalid", good, &wrong, words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_is_written_and_shown_in_the_dashboard() {
    check_dashboard("rate_limit", ("many", "100/1m"), json!("100/1m"), "100/1m").await;
}
