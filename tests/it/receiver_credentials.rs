//! Headers and authentication of an endpoint's requests: what receivers get, what nobody reads again, and which address
//! gets it.

use aldaba::domain::credentials::{CredentialFault, CredentialRefusal};
use aldaba::domain::id::EndpointId;
use aldaba::domain::settings::EndpointChange;
use aldaba::store::{Endpoints as _, StoreError};
use serde_json::{Value, json};

use crate::app::{Answer, App, EVENT, Receiver, Reply};
use crate::command_line::printed;
use crate::database;
use crate::endpoint_settings::owners_browser;
use crate::migrations::minimum;

const NOBODY: &str = "http://127.0.0.1:9/";

/// Values that must be found in no place but a request.
const KEY: &str = "the-key-of-the-header-1234";
const PASSWORD: &str = "the-password-of-the-user";
const TOKEN: &str = "the-token-of-the-bearer";
const CLIENT_SECRET: &str = "the-secret-of-the-client";

const HEADERS: &str = "/data/attributes/headers";
const AUTHENTICATION: &str = "/data/attributes/authentication";

async fn register(app: &App, url: &str, more: Value) -> Answer {
    let mut body = json!({ "url": url, "events": [EVENT] });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    app.post("/v1/webhooks", body).await
}

/// The path of an endpoint with these.
async fn with(app: &App, url: &str, more: Value) -> String {
    format!("/v1/webhooks/{}", register(app, url, more).await.expect(201).id())
}

fn basic() -> Value {
    json!({ "type": "basic", "username": "aldaba", "password": PASSWORD })
}

fn bearer() -> Value {
    json!({ "type": "bearer", "token": TOKEN })
}

fn oauth2(token_url: &str) -> Value {
    json!({ "type": "oauth2", "token_url": token_url, "client_id": "aldaba", "client_secret": CLIENT_SECRET })
}

#[tokio::test]
async fn headers_are_sent_as_they_were_written_and_shown_with_masks() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let headers = json!({ "X-API-key": KEY, "x-short": "abc def", "Accept-Language": "de, en;q=0.5" });
    let masks = json!({ "X-API-key": "...1234", "x-short": "...", "Accept-Language": "...=0.5" });
    let made = register(&app, &receiver.url(), json!({ "headers": headers })).await.expect(201);
    assert_eq!(made.attribute("headers"), &masks);
    let path = format!("/v1/webhooks/{}", made.id());
    assert_eq!(app.get(&path).await.expect(200).attribute("headers"), &masks);
    let listed = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(listed.json["data"][0]["attributes"]["headers"], masks);
    app.publish(json!({})).await;
    let delivery = app.delivery(&made.id(), "success").await;
    app.call("POST", &format!("{path}/test")).send().await.expect(200);
    for request in receiver.wait_for(2).await {
        for line in [
            format!("\r\nX-API-key: {KEY}\r\n").as_str(),
            "\r\nx-short: abc def\r\n",
            "\r\nAccept-Language: de, en;q=0.5",
        ] {
            assert!(request.head.contains(line), "{}", request.head);
        }
        assert_eq!(request.header("content-type"), "application/json");
    }
    // A connection that was kept does not write the names of the request before.
    let (other, _) = app.endpoint(&receiver.url()).await;
    app.call("POST", &format!("/v1/webhooks/{other}/test")).send().await.expect(200);
    let bare = receiver.wait_for(3).await.remove(2);
    assert!(!bare.head.to_ascii_lowercase().contains("x-api-key") && bare.head.contains("\r\nwebhook-id: "));
    let shown = format!("/v1/webhooks/deliveries/{}", delivery["id"].as_str().expect("an id"));
    let shown = app.get(&shown).await.expect(200);
    assert_eq!(shown.attribute("request_headers")["X-API-key"], "...1234");
    let absent = register(&app, NOBODY, json!({ "headers": null, "authentication": null })).await.expect(201);
    let attributes = &absent.json["data"]["attributes"];
    assert!(attributes.get("headers").is_none() && attributes.get("authentication").is_none());
}

#[tokio::test]
async fn basic_and_bearer_stand_in_authorization_of_each_attempt() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "1s")]).await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Status(500)]);
    let made = register(&app, &receiver.url(), json!({ "authentication": basic() })).await.expect(201);
    assert_eq!(made.attribute("authentication"), &json!({ "type": "basic", "username": "aldaba" }));
    app.publish(json!({})).await;
    // `printf aldaba:the-password-of-the-user | base64`
    let basic = "Basic YWxkYWJhOnRoZS1wYXNzd29yZC1vZi10aGUtdXNlcg==";
    for request in receiver.wait_for(2).await {
        assert_eq!(request.header("authorization"), basic);
    }
    let delivery = app.delivery(&made.id(), "success").await;
    let shown = format!("/v1/webhooks/deliveries/{}", delivery["id"].as_str().expect("an id"));
    assert_eq!(app.get(&shown).await.expect(200).attribute("request_headers")["authorization"], "Basic ***");
    let path = format!("/v1/webhooks/{}", made.id());
    let changed = app.put(&path, json!({ "authentication": bearer() })).await.expect(200);
    assert_eq!(changed.attribute("authentication"), &json!({ "type": "bearer" }));
    let test = async || app.call("POST", &format!("{path}/test")).send().await.expect(200);
    test().await;
    assert_eq!(receiver.wait_for(3).await[2].header("authorization"), format!("Bearer {TOKEN}"));
    let removed = app.put(&path, json!({ "authentication": null })).await.expect(200);
    assert!(removed.json["data"]["attributes"].get("authentication").is_none());
    test().await;
    assert_eq!(receiver.wait_for(4).await[3].header("authorization"), "");
}

#[tokio::test]
async fn a_change_keeps_the_values_that_it_says_and_the_names_that_it_has() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let path = with(&app, &receiver.url(), json!({ "headers": { "X-Key": KEY, "X-Old": "old" } })).await;
    let changed = app.put(&path, json!({ "headers": { "x-KEY": null, "X-New": "new" } })).await.expect(200);
    assert_eq!(changed.attribute("headers"), &json!({ "x-KEY": "...1234", "X-New": "..." }));
    let other = app.put(&path, json!({ "description": "a" })).await.expect(200);
    assert_eq!(other.attribute("headers"), &json!({ "x-KEY": "...1234", "X-New": "..." }), "an absent field stays");
    app.call("POST", &format!("{path}/test")).send().await.expect(200);
    let request = receiver.wait_for(1).await.remove(0);
    assert!(request.head.contains(&format!("\r\nx-KEY: {KEY}\r\n")), "{}", request.head);
    assert_eq!((request.header("x-new"), request.header("x-old")), ("new", ""));
    app.put(&path, json!({ "headers": { "X-Old": null } })).await.refused(422, "webhook_headers_invalid", HEADERS);
    let entries = app.get("/v1/audit-log?action=webhook.updated").await.expect(200);
    assert_eq!(entries.json["data"][1]["attributes"]["fields"], json!(["headers"]));
    assert_eq!(app.put(&path, json!({ "headers": {} })).await.expect(200).attribute("headers"), &json!({}));
    let removed = app.put(&path, json!({ "headers": null })).await.expect(200);
    assert!(removed.json["data"]["attributes"].get("headers").is_none());
}

/// Each of these is refused on create and update, and nothing is stored.
async fn refused(name: &str, code: &str, wrong: Vec<(Value, &str)>, words: [&str; 2]) {
    let app = App::start().await;
    let (id, _) = app.endpoint(NOBODY).await;
    let path = format!("/v1/webhooks/{id}");
    for (value, pointer) in &wrong {
        register(&app, NOBODY, json!({ name: value })).await.refused(422, code, pointer);
        let told = app.put(&path, json!({ name: value })).await.refused(422, code, pointer);
        assert!(!String::from_utf8_lossy(&told.text).contains("hidden-value"), "{}", told.json);
    }
    for (language, words) in ["en", "es"].into_iter().zip(words) {
        let call = app.call("PUT", &path).header("accept-language", language).json(&json!({ name: wrong[0].0 }));
        let told = call.send().await.expect(422);
        let detail = told.json["errors"][0]["detail"].as_str().expect("a detail");
        assert!(detail.contains(words), "{detail}");
    }
    let listed = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(listed.json["data"].as_array().map(Vec::len), Some(1));
    assert!(listed.json["data"][0]["attributes"].get(name).is_none());
    assert_eq!(database::number(app.folder(), "SELECT count(*) FROM endpoints WHERE credentials IS NOT NULL").await, 0);
    assert_eq!(minimum(app.folder()).await, 0);
}

#[tokio::test]
async fn headers_that_are_not_allowed_are_refused_and_nothing_is_stored() {
    let many: Value = (0..21).map(|n| (format!("X-{n}"), json!("a"))).collect::<serde_json::Map<_, _>>().into();
    let mut wrong = vec![
        json!("hidden-value"),
        json!(7),
        json!(["X-A", "a"]),
        many,
        json!({ "X-Key": null }),
        json!({ "X-Key": 7 }),
        json!({ "X-Key": ["hidden-value"] }),
        json!({ "X-Key": "" }),
        json!({ "X-Key": " hidden-value" }),
        json!({ "X-Key": "hidden-value " }),
        json!({ "X-Key": "hidden-value\r\nX-Other: a" }),
        json!({ "X-Key": "hidden-value\u{0}" }),
        json!({ "X-Key": "hidden-value-ñ" }),
        json!({ "X-Key": "a".repeat(1025) }),
        json!({ "X-Key": "...alue" }),
        json!({ "X-Key": "..." }),
        json!({ "X-Key": "a", "x-KEY": "b" }),
    ];
    let long = "N".repeat(65);
    wrong.extend(
        [
            "",
            "X Key",
            "X_Key",
            "X-Key:",
            "ñ",
            long.as_str(),
            "Host",
            "content-type",
            "Content-Length",
            "USER-AGENT",
            "Connection",
            "Keep-Alive",
            "Proxy-Authorization",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Expect",
            "Forwarded",
            "X-Forwarded-For",
            "webhook-id",
            "Webhook-Anything",
            "X-Webhook-Signature",
            "X-Aldaba-Event",
            "x-aldaba-anything",
            "traceparent",
            "TraceState",
        ]
        .map(|name| json!({ name: "hidden-value" })),
    );
    let wrong = wrong.into_iter().map(|value| (value, HEADERS)).collect();
    let words = ["up to 20 names (1 to 64 letters, digits or hyphens", "hasta 20 nombres (de 1 a 64 letras"];
    refused("headers", "webhook_headers_invalid", wrong, words).await;
}

#[tokio::test]
async fn a_header_that_stands_twice_in_the_body_is_refused() {
    let app = App::start().await;
    let (id, _) = app.endpoint(NOBODY).await;
    let body = format!(r#"{{"url":"{NOBODY}","events":["{EVENT}"],"headers":{{"X-Key":"a","X-Key":"b"}}}}"#);
    for (method, path) in [("POST", "/v1/webhooks".to_owned()), ("PUT", format!("/v1/webhooks/{id}"))] {
        let call = app.call(method, &path).header("content-type", "application/json").body(body.clone());
        call.send().await.refused(422, "webhook_headers_invalid", HEADERS);
    }
}

#[tokio::test]
async fn a_member_that_stands_twice_or_has_no_meaning_is_refused_with_one_fault() {
    let app = App::start().await;
    let (id, _) = app.endpoint(NOBODY).await;
    let authentication = ("webhook_authentication_invalid", AUTHENTICATION);
    let certificate = ("webhook_client_certificate_invalid", "/data/attributes/client_certificate");
    for (member, (code, pointer), told) in [
        (r#""authentication":{"type":"bearer","token":"a","token":"b"}"#, authentication, "a member twice."),
        (r#""authentication":{"type":"bearer","token":"a","scope":"b"}"#, authentication, "other than type, token."),
        (r#""client_certificate":{"private_key":"a","private_key":"b"}"#, certificate, "it has a member twice"),
        (
            r#""client_certificate":{"certificate":"a","private_key":"b","passphrase":"c"}"#,
            certificate,
            "it has a member other than certificate and private_key",
        ),
    ] {
        let body = format!(r#"{{"url":"{NOBODY}","events":["{EVENT}"],{member}}}"#);
        for (method, path) in [("POST", "/v1/webhooks".to_owned()), ("PUT", format!("/v1/webhooks/{id}"))] {
            let call = app.call(method, &path).header("content-type", "application/json").body(body.clone());
            let refused = call.send().await.refused(422, code, pointer);
            assert_eq!(refused.codes(), [code]);
            let detail = refused.json["errors"][0]["detail"].as_str().expect("a detail");
            assert!(detail.contains(told), "{detail}");
        }
    }
}

#[tokio::test]
async fn authentication_that_is_not_allowed_is_refused_and_nothing_is_stored() {
    let whole = oauth2("http://127.0.0.1:9/token");
    let member = |base: &Value, name: &str, value: Value| {
        let mut wrong = base.clone();
        wrong[name] = value;
        wrong
    };
    let without = |base: &Value, name: &str| {
        let mut wrong = base.clone();
        wrong.as_object_mut().expect("an object").remove(name);
        wrong
    };
    let (basic, bearer, long) = (basic(), bearer(), "a".repeat(1025));
    let mut wrong = vec![
        json!(7),
        json!("hidden-value"),
        json!(["basic"]),
        json!({}),
        json!({ "type": "digest", "username": "a", "password": "hidden-value" }),
        json!({ "type": 7 }),
        json!({ "username": "a", "password": "hidden-value" }),
        without(&basic, "username"),
        without(&basic, "password"),
        without(&bearer, "token"),
        without(&whole, "client_id"),
        without(&whole, "client_secret"),
        without(&whole, "token_url"),
        member(&basic, "username", json!("a:b")),
        member(&basic, "token", json!("hidden-value")),
        member(&bearer, "username", Value::Null),
        member(&whole, "password", json!("hidden-value")),
        member(&whole, "Scope", json!("hidden-value")),
    ];
    for (base, name) in [
        (&basic, "username"),
        (&basic, "password"),
        (&bearer, "token"),
        (&whole, "client_id"),
        (&whole, "client_secret"),
        (&whole, "audience"),
    ] {
        let values = [json!(7), json!(""), json!("a b"), json!("hidden-value\n"), json!("ñ"), json!(long)];
        wrong.extend(values.map(|value| member(base, name, value)));
    }
    wrong.extend([json!(7), json!(""), json!(" a"), json!("a  b")].map(|value| member(&whole, "scope", value)));
    let mut wrong: Vec<_> = wrong.into_iter().map(|value| (value, AUTHENTICATION)).collect();
    let urls =
        [json!(7), json!(null), json!(""), json!("id.example"), json!("ftp://id.example/"), json!("http://a@b/")];
    let at_url = "/data/attributes/authentication/token_url";
    wrong.extend(urls.map(|url| (member(&whole, "token_url", url), at_url)));
    let words = ["type basic with username (without a colon)", "type basic con username (sin dos puntos)"];
    refused("authentication", "webhook_authentication_invalid", wrong, words).await;
}

#[tokio::test]
async fn all_that_may_be_set_is_taken() {
    let app = App::start().await;
    let most: Value =
        (0..20).map(|n| (format!("X-{n}"), json!("a".repeat(1024)))).collect::<serde_json::Map<_, _>>().into();
    let mut whole = oauth2("http://127.0.0.1:9/token?a=b");
    (whole["scope"], whole["audience"]) = (json!("read write"), json!("https://shop"));
    let made = register(&app, NOBODY, json!({ "headers": most, "authentication": whole })).await.expect(201);
    assert_eq!(made.attribute("headers").as_object().map(serde_json::Map::len), Some(20));
    let shown = json!({
        "type": "oauth2",
        "token_url": "http://127.0.0.1:9/token?a=b",
        "client_id": "aldaba",
        "scope": "read write",
        "audience": "https://shop",
    });
    assert_eq!(made.attribute("authentication"), &shown);
    assert_eq!(minimum(app.folder()).await, 19, "older programs would send requests without them");
}

#[tokio::test]
async fn no_value_follows_a_changed_address() {
    let app = App::start().await;
    let url = "http://127.0.0.1:9/a";
    let both = json!({ "headers": { "X-Key": KEY }, "authentication": bearer() });
    let path = with(&app, url, both.clone()).await;
    let change = |url: &str, more: Value| {
        let mut body = json!({ "url": url });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        app.put(&path, body)
    };
    for other in ["http://127.0.0.1:10/a", "https://127.0.0.1:9/a", "http://127.0.0.2:9/a"] {
        let refused = change(other, json!({})).await.expect(422);
        assert_eq!(refused.codes(), ["webhook_headers_invalid", "webhook_authentication_invalid"]);
        refused.refused(422, "webhook_headers_invalid", HEADERS);
        let keeps = json!({ "headers": { "X-Key": null }, "authentication": bearer() });
        change(other, keeps).await.refused(422, "webhook_headers_invalid", HEADERS);
        let leaves = json!({ "headers": { "X-Key": "a" } });
        change(other, leaves).await.refused(422, "webhook_authentication_invalid", AUTHENTICATION);
        let faults = change(other, json!({ "events": [], "status": 7 })).await.expect(422);
        let expected = [
            "webhook_events_required",
            "webhook_status_invalid",
            "webhook_headers_invalid",
            "webhook_authentication_invalid",
        ];
        assert_eq!(faults.codes(), expected, "all faults are told, in the order of the fields");
        let read = app.get(&path).await.expect(200);
        assert_eq!((read.attribute("url"), read.attribute("headers")), (&json!(url), &json!({ "X-Key": "...1234" })));
    }
    let spanish = app.call("PUT", &path).header("accept-language", "es").json(&json!({ "url": "http://127.0.0.2/" }));
    let told = spanish.send().await.expect(422);
    assert!(told.json["errors"][0]["detail"].as_str().expect("a detail").contains("otro esquema, host o puerto"));
    change("http://127.0.0.1:9/b?c", json!({})).await.expect(200);
    change("http://127.0.0.1:10/a", both).await.expect(200);
    change("http://127.0.0.1:11/a", json!({ "headers": null, "authentication": null })).await.expect(200);
    change("http://127.0.0.1:12/a", json!({})).await.expect(200);
}

#[tokio::test]
async fn no_value_follows_a_changed_token_url() {
    let app = App::start().await;
    let token_url = "http://127.0.0.1:9/token";
    let path = with(&app, NOBODY, json!({ "headers": { "X-Key": KEY }, "authentication": oauth2(token_url) })).await;
    let other = json!({ "authentication": oauth2("http://127.0.0.1:10/token") });
    app.put(&path, other.clone()).await.refused(422, "webhook_headers_invalid", HEADERS);
    app.put(&path, json!({ "authentication": oauth2("http://127.0.0.1:9/other") })).await.expect(200);
    let mut again = other;
    again["headers"] = json!({ "X-Key": "a" });
    app.put(&path, again).await.expect(200);
    let mut without = oauth2("http://127.0.0.1:11/token");
    without.as_object_mut().expect("an object").remove("client_secret");
    let without = json!({ "authentication": without, "headers": null });
    app.put(&path, without).await.refused(422, "webhook_authentication_invalid", AUTHENTICATION);
}

#[tokio::test]
async fn a_change_that_races_with_another_takes_no_value_to_a_changed_address() {
    let app = App::start().await;
    let path = with(&app, NOBODY, json!({ "headers": { "X-Key": KEY } })).await;
    let id = EndpointId::parse(path.rsplit('/').next().expect("an id")).expect("an id");
    // What the API has read may be old: the store looks again.
    let change = EndpointChange { url: Some("http://127.0.0.1:10/".into()), ..EndpointChange::default() };
    let refused = app.store.update_endpoint(app.account, id, change).await.err();
    let fault = CredentialFault { attribute: "headers", reason: CredentialRefusal::AddressChanged };
    assert_eq!(refused, Some(StoreError::CredentialsRefused(vec![fault])));
    let entries = app.get("/v1/audit-log?action=webhook.updated").await.expect(200);
    assert_eq!(entries.json["data"], json!([]), "nothing was written");
}

#[tokio::test]
async fn a_request_has_one_authorization() {
    let app = App::start().await;
    let header = json!({ "AUTHORIZATION": "Key abc" });
    let both = json!({ "headers": header, "authentication": bearer() });
    register(&app, NOBODY, both.clone()).await.refused(422, "webhook_headers_invalid", HEADERS);
    let path = with(&app, NOBODY, json!({ "headers": header })).await;
    let refused = app.put(&path, json!({ "authentication": bearer() })).await;
    refused.refused(422, "webhook_authentication_invalid", AUTHENTICATION);
    app.put(&path, both).await.refused(422, "webhook_headers_invalid", HEADERS);
    app.put(&path, json!({ "authentication": bearer(), "headers": {} })).await.expect(200);
    app.put(&path, json!({ "headers": header })).await.refused(422, "webhook_headers_invalid", HEADERS);
    app.put(&path, json!({ "headers": header, "authentication": null })).await.expect(200);
}

#[tokio::test]
async fn a_header_named_after_a_brand_that_came_later_is_not_sent() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let path = with(&app, &receiver.url(), json!({ "headers": { "X-Acme-Event": "mine", "X-Key": KEY } })).await;
    let app = app.restart(&[("BRAND", "Acme")]).await;
    app.call("POST", &format!("{path}/test")).send().await.expect(200);
    let request = receiver.wait_for(1).await.remove(0);
    assert_eq!((request.header("x-acme-event"), request.header("x-key")), ("test", KEY));
    assert_eq!(request.head.to_ascii_lowercase().matches("x-acme-event").count(), 1);
    app.put(&path, json!({ "headers": { "X-Acme-Event": null } })).await.refused(
        422,
        "webhook_headers_invalid",
        HEADERS,
    );
}

/// Whether some file of an SQLite database, or some row of a PostgreSQL one, has this text.
async fn is_stored(app: &App, text: &str) -> bool {
    if database::is_postgres() {
        for table in ["endpoints", "kept_answers", "audit_log", "deliveries", "attempts", "payloads"] {
            let hex = hex::encode(text);
            let sql = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%{text}%' OR t::text LIKE '%{hex}%'");
            if database::number(app.folder(), &sql).await > 0 {
                return true;
            }
        }
        return false;
    }
    let files = std::fs::read_dir(app.folder()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let has = |path: std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    };
    files.into_iter().any(has)
}

#[tokio::test]
async fn values_are_in_no_answer_no_log_and_no_row() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "")]).await;
    let receiver = Receiver::start().await;
    // A receiver that answers with what it got.
    receiver.always(Reply::Full(500, vec![], format!("x-key: {KEY}, authorization: Bearer {TOKEN}")));
    let body = json!({
        "url": receiver.url(),
        "events": [EVENT],
        "headers": { "X-Key": KEY },
        "authentication": bearer(),
    });
    let call = |path: &str, body: &Value| app.call("POST", path).header("idempotency-key", "k").json(body).send();
    let made = call("/v1/webhooks", &body).await.expect(201);
    let again = call("/v1/webhooks", &body).await.expect(201);
    assert_eq!((again.header("idempotent-replayed"), again.attribute("headers")), ("true", made.attribute("headers")));
    let mut other = body.clone();
    other["headers"]["X-Key"] = "another value".into();
    call("/v1/webhooks", &other).await.refused(422, "idempotency_key_reused", "");
    let path = format!("/v1/webhooks/{}", made.id());
    app.put(&path, json!({ "authentication": basic() })).await.expect(200);
    app.put(&path, json!({ "authentication": oauth2(&receiver.url()) })).await.expect(200);
    app.put(&path, json!({ "authentication": bearer() })).await.expect(200);
    app.publish(json!({})).await;
    let failed = app.delivery(&made.id(), "failed").await;
    assert_eq!(failed["attributes"]["response_body"], "x-key: ..., authorization: Bearer ...");
    let delivery = format!("/v1/webhooks/deliveries/{}", failed["id"].as_str().expect("an id"));
    let exports = ["/v1/webhooks/deliveries/export", "/v1/audit-log/export"];
    for read in [&*path, "/v1/webhooks", "/v1/audit-log", &*delivery, exports[0], exports[1]] {
        let answer = app.get(read).await.expect(200);
        let text = String::from_utf8_lossy(&answer.text);
        for secret in [KEY, PASSWORD, TOKEN, CLIENT_SECRET] {
            assert!(!text.contains(secret), "{read}: {text}");
        }
    }
    for secret in [KEY, PASSWORD, TOKEN, CLIENT_SECRET] {
        assert!(!is_stored(&app, secret).await, "{secret}");
    }
    // Nor is there anything that a guess could be compared with.
    let hash = hex::encode(ring::digest::digest(&ring::digest::SHA256, body.to_string().as_bytes()));
    let hashed = if database::is_postgres() { "encode(body_hash, 'hex')" } else { "lower(hex(body_hash))" };
    let sql = format!("SELECT count(*) FROM kept_answers WHERE {hashed} = '{hash}'");
    assert_eq!(database::number(app.folder(), &sql).await, 0);
    app.delete(&path).await.expect(204);
    assert_eq!(database::number(app.folder(), "SELECT count(*) FROM endpoints WHERE credentials IS NOT NULL").await, 0);
}

#[tokio::test]
async fn credentials_survive_a_restart_and_a_new_master_key() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    with(&app, &receiver.url(), json!({ "headers": { "X-Key": KEY }, "authentication": bearer() })).await;
    let app = app.restart(&[]).await;
    let arrived = async |app: &App, count: usize| {
        app.publish(json!({})).await;
        let request = receiver.wait_for(count).await.remove(count - 1);
        assert_eq!((request.header("x-key"), request.header("authorization")), (KEY, &*format!("Bearer {TOKEN}")));
    };
    arrived(&app, 1).await;
    if database::is_postgres() {
        // There the key is given by the settings of every node.
        return;
    }
    assert_eq!(printed(app.folder(), &["secrets", "rekey"]), "2 secrets are sealed with the current master key");
    arrived(&app, 2).await;
    let app = app.restart(&[]).await;
    arrived(&app, 3).await;
}

#[tokio::test]
async fn another_account_finds_nothing_of_them() {
    let app = App::start().await;
    let path = with(&app, NOBODY, json!({ "headers": { "X-Key": KEY } })).await;
    let (_, stranger) = app.stranger().await;
    app.call("GET", &path).bearer(&stranger).send().await.refused(404, "not_found", "");
    let change = json!({ "headers": { "X-Key": null } });
    app.call("PUT", &path).bearer(&stranger).json(&change).send().await.refused(404, "not_found", "");
}

#[tokio::test]
async fn a_token_url_follows_the_rules_of_a_url() {
    let app = App::with(&[("ENVIRONMENT", "production")]).await;
    let pointer = "/data/attributes/authentication/token_url";
    let create = |token_url: &str| register(&app, "https://1.1.1.1/", json!({ "authentication": oauth2(token_url) }));
    create("http://1.1.1.1/token").await.refused(422, "webhook_authentication_invalid", pointer);
    for url in ["https://127.0.0.1/token", "https://[fd00::1]/", "https://localhost./", "https://169.254.169.254/"] {
        create(url).await.refused(400, "url_ssrf_blocked", pointer);
    }
    create("https://does-not-exist.invalid/").await.refused(400, "url_dns_failed", pointer);
    let both = json!({ "authentication": oauth2("https://10.0.0.1/") });
    let both = register(&app, "https://10.0.0.2/", both).await.expect(400);
    assert_eq!(both.codes(), ["url_ssrf_blocked", "url_ssrf_blocked"]);
    let path = with(&app, "https://1.1.1.1/", json!({ "authentication": oauth2("https://1.0.0.1/token") })).await;
    let change = json!({ "authentication": oauth2("https://10.0.0.1/") });
    app.put(&path, change).await.refused(400, "url_ssrf_blocked", pointer);
    let wrong = json!({ "authentication": oauth2("https://10.0.0.1/"), "status": 7 });
    assert_eq!(app.put(&path, wrong).await.expect(422).codes(), ["webhook_status_invalid"]);
}

/// The form of an endpoint with these headers.
fn form(headers: &str) -> [(&str, &str); 3] {
    [("url", NOBODY), ("events", EVENT), ("headers", headers)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_written_kept_and_removed_in_the_dashboard() {
    let app = App::start().await;
    let mut browser = owners_browser(&app).await;
    let new = format!("/accounts/{}/endpoints/new", app.account);
    let page = browser.open(&new).await.expect(200);
    let typed = format!("X-Key: {KEY}\r\n\r\n X-Other : a:b \r\n");
    for (wrong, words) in [
        ("X-Key the-hidden-value", "a name, a colon and a value"),
        ("X-Key: the-hidden-value\nX-Key: b", "a name, a colon and a value"),
        ("Host: the-hidden-value", "up to 20 names"),
        ("X-Key: ...", "it has none"),
    ] {
        let refused = browser.submit(&page, &new, &form(wrong)).await.expect(422);
        assert!(refused.html.contains("f-headers-error") && refused.html.contains(words), "{}", refused.content());
        assert!(!refused.html.contains("hidden-value"), "{}", refused.content());
    }
    browser.submit(&page, &new, &form(&typed)).await.expect(200);
    let shown = async || app.get("/v1/webhooks").await.expect(200).json["data"][0].clone();
    let made = shown().await;
    assert_eq!(made["attributes"]["headers"], json!({ "X-Key": "...1234", "X-Other": "..." }));
    let endpoint = format!("/accounts/{}/endpoints/{}", app.account, made["id"].as_str().expect("an id"));
    let page = browser.open(&endpoint).await.expect(200);
    assert!(page.html.contains("...1234") && !page.html.contains(KEY), "{}", page.content());
    let edit = format!("{endpoint}/edit");
    let page = browser.open(&edit).await.expect(200);
    assert!(page.html.contains("X-Key: ...1234\nX-Other: ...\n"), "{}", page.content());
    browser.submit(&page, &edit, &form("X-Key: ...1234\nX-Other: another-value")).await.expect(200);
    assert_eq!(shown().await["attributes"]["headers"], json!({ "X-Key": "...1234", "X-Other": "...alue" }));
    let moved = [("url", "http://127.0.0.1:10/"), ("events", EVENT), ("headers", "X-Key: ...1234")];
    let refused = browser.submit(&page, &edit, &moved).await.expect(422);
    assert!(refused.html.contains("another scheme, host or port"), "{}", refused.content());
    browser.submit(&page, &edit, &form("")).await.expect(200);
    assert!(shown().await["attributes"].get("headers").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authentication_is_chosen_kept_and_removed_in_the_dashboard() {
    let app = App::start().await;
    let mut browser = owners_browser(&app).await;
    let new = format!("/accounts/{}/endpoints/new", app.account);
    let page = browser.open(&new).await.expect(200);
    let field = page.html.split("name=\"credential\"").nth(1).and_then(|rest| rest.split('>').next()).expect("a field");
    assert!(field.contains("autocomplete=\"new-password\""), "no browser fills a sign-in's password in: {field}");
    let form = |more: &[(&'static str, &'static str)]| [&[("url", NOBODY), ("events", EVENT)][..], more].concat();
    let oauth2 = |token_url: &'static str| {
        form(&[
            ("authentication", "oauth2"),
            ("token_url", token_url),
            ("client_id", "aldaba"),
            ("credential", CLIENT_SECRET),
            ("scope", "read write"),
        ])
    };
    let refused = browser.submit(&page, &new, &form(&[("authentication", "bearer")])).await.expect(422);
    assert!(refused.html.contains("f-authentication-error"), "{}", refused.content());
    let refused = browser.submit(&page, &new, &oauth2("id.example")).await.expect(422);
    assert!(refused.html.contains("f-token_url-error"), "{}", refused.content());
    assert!(!refused.html.contains(CLIENT_SECRET), "{}", refused.content());
    browser.submit(&page, &new, &oauth2("http://127.0.0.1:9/token")).await.expect(200);
    let shown = async || app.get("/v1/webhooks").await.expect(200).json["data"][0].clone();
    let made = shown().await;
    let expected = json!({
        "type": "oauth2", "token_url": "http://127.0.0.1:9/token", "client_id": "aldaba", "scope": "read write",
    });
    assert_eq!(made["attributes"]["authentication"], expected);
    let endpoint = format!("/accounts/{}/endpoints/{}", app.account, made["id"].as_str().expect("an id"));
    let page = browser.open(&endpoint).await.expect(200);
    assert!(page.html.contains("OAuth 2") && page.html.contains("read write"), "{}", page.content());
    let edit = format!("{endpoint}/edit");
    let page = browser.open(&edit).await.expect(200);
    assert!(page.html.contains("value=\"keep\" selected") && !page.html.contains(CLIENT_SECRET), "{}", page.content());
    browser.submit(&page, &edit, &form(&[("authentication", "keep"), ("description", "a")])).await.expect(200);
    assert_eq!(shown().await["attributes"]["authentication"], expected);
    let basic = [("authentication", "basic"), ("username", "me"), ("credential", PASSWORD)];
    browser.submit(&page, &edit, &form(&basic)).await.expect(200);
    assert_eq!(shown().await["attributes"]["authentication"], json!({ "type": "basic", "username": "me" }));
    browser.submit(&page, &edit, &form(&[("authentication", "none")])).await.expect(200);
    assert!(shown().await["attributes"].get("authentication").is_none());
}
