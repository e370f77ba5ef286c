//! What every call has in common: the envelope, the order of refusal, rate limits, languages, paging.

use aldaba::domain::permission::{Permission, Permissions};
use aldaba::domain::time::Timestamp;
use serde_json::json;

use crate::app::{self, App, Call, Receiver, Reply, key_until};
use crate::database;

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

#[tokio::test]
async fn a_success_carries_data_and_meta() {
    let app = App::start().await;
    let answer = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(answer.json["data"], json!([]));
    let meta = &answer.json["meta"];
    assert_eq!(meta["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(meta["api_version"], "v1");
    assert_eq!(meta["datetime"], json!({ "timezone": "UTC", "format": "ISO 8601" }));
    let id = meta["request_id"].as_str().expect("an id");
    assert!(id.len() >= 12 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{id}");
    assert_eq!(answer.header("x-request-id"), id);
    for limit in ["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
        assert_eq!(answer.header(limit), "", "only a 429 tells of limits");
    }
}

#[tokio::test]
async fn without_a_valid_key_nothing_is_answered() {
    let app = App::start().await;
    let past = Some(Timestamp::from_millis(1_000));
    let expired = key_until(&app.store, Some(app.account), Permissions::all(), past).await;
    for header in
        ["", "Bearer", "Bearer ", "Bearer nonsense", &format!("Basic {}", app.key), &format!("Bearer {expired}")]
    {
        let answer = app.call("GET", "/v1/webhooks").header("authorization", header).send().await;
        let answer = answer.refused(401, "unauthorized", "");
        assert_eq!(answer.json["errors"][0]["detail"], "Invalid or missing authentication credentials.");
        assert_eq!(answer.json["meta"]["request_id"], answer.header("x-request-id"));
    }
    app.call("GET", "/v1/webhooks").without("authorization").send().await.refused(401, "unauthorized", "");
    let lowercase = app.call("GET", "/v1/webhooks").header("authorization", &format!("bearer {}", app.key));
    lowercase.send().await.expect(200);
}

#[tokio::test]
async fn each_call_needs_its_permission() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    let powerless = app.key_for(&[Permission::AccountsRead]).await;
    for (method, path, permission) in [
        ("GET", "/v1/webhooks".to_owned(), Permission::WebhooksRead),
        ("POST", "/v1/webhooks".to_owned(), Permission::WebhooksCreate),
        ("GET", format!("/v1/webhooks/{id}"), Permission::WebhooksRead),
        ("PUT", format!("/v1/webhooks/{id}"), Permission::WebhooksUpdate),
        ("POST", format!("/v1/webhooks/{id}/regenerate-secret"), Permission::WebhooksUpdate),
        ("POST", format!("/v1/webhooks/{id}/test"), Permission::WebhooksUpdate),
        ("GET", format!("/v1/webhooks/{id}/deliveries"), Permission::WebhooksRead),
        ("GET", "/v1/webhooks/deliveries".to_owned(), Permission::WebhooksRead),
        ("POST", "/v1/events".to_owned(), Permission::EventsCreate),
        ("POST", "/v1/events/batch".to_owned(), Permission::EventsCreate),
        ("GET", "/v1/events".to_owned(), Permission::EventsRead),
        ("GET", "/v1/event-types".to_owned(), Permission::EventTypesRead),
        ("GET", format!("/v1/accounts/{}/api-keys", app.account), Permission::ApiKeysRead),
        ("POST", format!("/v1/accounts/{}/api-keys", app.account), Permission::ApiKeysWrite),
        ("DELETE", format!("/v1/webhooks/{id}"), Permission::WebhooksDelete),
    ] {
        let refused = app.call(method, &path).bearer(&powerless).send().await.refused(403, "forbidden", "");
        let detail = &refused.json["errors"][0]["detail"];
        assert_eq!(detail, "You do not have permission to access this resource.");
        let allowed = app.key_for(&[permission]).await;
        let answer = app.call(method, &path).bearer(&allowed).send().await;
        assert!(![401, 403].contains(&answer.status), "{method} {path}: {}", answer.json);
    }
}

#[tokio::test]
async fn an_operators_key_has_no_endpoints_and_an_accounts_key_no_catalog() {
    let app = App::start().await;
    for path in ["/v1/webhooks", "/v1/webhooks/deliveries", "/v1/events"] {
        app.call("GET", path).bearer(&app.operator).send().await.refused(403, "forbidden", "");
    }
    app.post("/v1/event-types", json!({ "name": "a.b" })).await.refused(403, "forbidden", "");
    app.post("/v1/accounts", json!({ "name": "more" })).await.refused(403, "forbidden", "");
    app.delete(&format!("/v1/accounts/{}", app.account)).await.refused(403, "forbidden", "");
}

#[tokio::test]
async fn what_belongs_to_another_account_does_not_exist() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    let event = app.publish(json!({})).await;
    let (_, stranger) = app.stranger().await;
    for (method, path) in [
        ("GET", format!("/v1/webhooks/{id}")),
        ("PUT", format!("/v1/webhooks/{id}")),
        ("DELETE", format!("/v1/webhooks/{id}")),
        ("POST", format!("/v1/webhooks/{id}/regenerate-secret")),
        ("POST", format!("/v1/webhooks/{id}/test")),
        ("GET", format!("/v1/webhooks/{id}/deliveries")),
        ("GET", format!("/v1/events/{event}")),
        ("GET", format!("/v1/accounts/{}", app.account)),
        ("GET", format!("/v1/accounts/{}/api-keys", app.account)),
        ("POST", format!("/v1/accounts/{}/api-keys", app.account)),
    ] {
        app.call(method, &path).bearer(&stranger).send().await.refused(404, "not_found", "");
    }
    let own = app.call("GET", "/v1/webhooks/deliveries").bearer(&stranger).send().await.expect(200);
    assert_eq!(own.json["meta"]["pagination"]["total"], 0);
}

#[tokio::test]
async fn unknown_paths_ids_and_methods_are_answered_in_the_envelope() {
    let app = App::start().await;
    for path in [
        "/nope",
        "/v1/nope",
        "/v1/webhooks/",
        "/v1/webhooks/1",
        "/v1/webhooks/not-a-uuid/deliveries",
        &format!("/v1/webhooks/{NOBODY}"),
        &format!("/v1/webhooks/{}", NOBODY.replace('-', "")),
        &format!("/v1/events/{NOBODY}"),
        "/v1/events/x",
        &format!("/v1/webhooks/%FF{NOBODY}"),
    ] {
        app.get(path).await.refused(404, "not_found", "");
    }
    for (method, path, allowed) in [
        ("PATCH", "/v1/webhooks", "GET,HEAD,POST"),
        ("DELETE", "/v1/events", "POST,GET,HEAD"),
        ("GET", "/v1/events/batch", "POST"),
        ("POST", &format!("/v1/webhooks/{NOBODY}"), "GET,HEAD,PUT,DELETE"),
        ("HEAD", "/v1/event-types/x", "PUT,DELETE"),
        ("POST", "/healthz", "GET,HEAD"),
        ("PUT", "/", "GET,HEAD"),
    ] {
        let answer = app.call(method, path).send().await.expect(405);
        assert_eq!(answer.header("allow"), allowed, "{method} {path}");
    }
    app.call("PATCH", "/v1/webhooks").send().await.refused(405, "method_not_allowed", "");
}

#[tokio::test]
async fn what_can_be_read_can_be_asked_for_without_its_body() {
    let app = App::start().await;
    let (read, head) = (app.get("/v1/event-types").await.expect(200), app.call("HEAD", "/v1/event-types").send().await);
    let head = head.expect(200);
    assert_eq!(head.header("content-length"), read.header("content-length"));
    assert_eq!(head.header("content-type"), "application/json");
}

#[tokio::test]
async fn a_part_of_a_path_means_the_same_with_and_without_percent_encoding() {
    let app = App::start().await;
    let encoded = app.account.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    assert_eq!(app.get(&format!("/v1/accounts/{encoded}")).await.expect(200).id(), app.account.to_string());
}

#[tokio::test]
async fn bodies_are_refused_with_the_reason() {
    let app = App::start().await;
    let send = |content_type: &'static str, body: Vec<u8>| {
        let call = app.call("POST", "/v1/webhooks").header("content-type", content_type);
        async move { call.body(body).send().await }
    };
    send("application/json", vec![]).await.refused(400, "body_empty", "");
    for body in ["{", "[]", "null", "\"x\"", "{\"url\":}", "{} {}", "\u{feff}{}", "nonsense"] {
        send("application/json", body.into()).await.refused(400, "invalid_json", "");
    }
    send("application/json", b"{\"url\":\"\xff\"}".to_vec()).await.refused(400, "invalid_json", "");
    let deep = format!("{{\"url\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    send("application/json", deep.into()).await.refused(400, "invalid_json", "");
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        send(content_type, b"{}".to_vec()).await.refused(415, "unsupported_media_type", "");
    }
    let bare = app.call("POST", "/v1/webhooks").body("{}").send().await;
    bare.refused(415, "unsupported_media_type", "");
    let charset = send("application/json; charset=utf-8", b"{}".to_vec()).await;
    charset.refused(422, "webhook_url_required", "/data/attributes/url");
    let large = format!("{{\"url\":\"{}\"}}", "x".repeat(256 * 1024));
    send("application/json", large.into()).await.refused(413, "body_too_large", "");
}

#[tokio::test]
async fn a_404_comes_before_the_faults_of_the_body() {
    let app = App::start().await;
    let path = format!("/v1/webhooks/{NOBODY}");
    app.call("PUT", &path).header("content-type", "text/plain").body("x").send().await.refused(404, "not_found", "");
    app.call("PUT", &path).body("x".repeat(300 * 1024)).send().await.refused(404, "not_found", "");
}

#[tokio::test]
async fn details_are_english_or_spanish_and_codes_are_neither() {
    let app = App::start().await;
    let spanish = app.get_in("es-MX, en;q=0.5", "/v1/nope").await.refused(404, "not_found", "");
    assert_eq!(spanish.json["errors"][0]["detail"], "El recurso solicitado no existe.");
    let english = app.get_in("de", "/v1/nope").await.refused(404, "not_found", "");
    assert_eq!(english.json["errors"][0]["detail"], "The requested resource does not exist.");
}

impl App {
    async fn get_in(&self, language: &str, path: &str) -> app::Answer {
        self.call("GET", path).header("accept-language", language).send().await
    }
}

#[tokio::test]
async fn past_the_limit_a_call_is_refused_with_the_headers_and_before_403() {
    let app = App::with(&[("RATE_LIMITS__WEBHOOKS_LIST", "3/60s"), ("RATE_LIMITS__WEBHOOKS_WRITE", "1/60s")]).await;
    for _ in 0..3 {
        app.get("/v1/webhooks").await.expect(200);
    }
    let answer = app.get("/v1/webhooks").await.refused(429, "rate_limit_exceeded", "");
    let wait: u64 = answer.header("retry-after").parse().expect("whole seconds");
    assert!((1..=60).contains(&wait));
    assert_eq!(answer.header("x-ratelimit-limit"), "3");
    assert_eq!(answer.header("x-ratelimit-remaining"), "0");
    let reset: u64 = answer.header("x-ratelimit-reset").parse().expect("unix seconds");
    assert!(reset > 1_700_000_000);
    assert_eq!(answer.json["meta"]["retry_after"], wait);
    let detail = answer.json["errors"][0]["detail"].as_str().expect("text").to_owned();
    assert_eq!(detail, format!("Rate limit exceeded. Try again in {wait} seconds."));
    app.get("/v1/webhooks/deliveries").await.expect(200);
    let other = app.key_for(&[Permission::WebhooksRead]).await;
    app.call("GET", "/v1/webhooks").bearer(&other).send().await.expect(200);
    app.call("POST", "/v1/webhooks").bearer(&other).send().await.refused(403, "forbidden", "");
    app.call("POST", "/v1/webhooks").bearer(&other).send().await.refused(429, "rate_limit_exceeded", "");
}

#[tokio::test]
async fn pages_are_clamped_and_totals_exact() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    for n in 0..7 {
        app.publish(json!({ "n": n })).await;
    }
    let mut seen = Vec::new();
    for page in 1..=4 {
        let answer = app.get(&format!("/v1/webhooks/{id}/deliveries?page={page}&per_page=2")).await.expect(200);
        let pagination = &answer.json["meta"]["pagination"];
        assert_eq!(*pagination, json!({ "page": page, "per_page": 2, "total": 7, "total_pages": 4 }));
        let rows = answer.json["data"].as_array().expect("a list").clone();
        seen.extend(rows.iter().map(|row| row["id"].as_str().expect("an id").parse::<i64>().expect("a number")));
        let all = app.get(&format!("/v1/webhooks/deliveries?page={page}&per_page=2")).await.expect(200);
        let ids = |list: &serde_json::Value| {
            list.as_array().expect("a list").iter().map(|r| r["id"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&all.json["data"]), ids(&answer.json["data"]));
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
    let path = format!("/v1/webhooks/{id}/deliveries");
    for (query, page, per_page) in [
        ("page=0&per_page=0", 1, 1),
        ("page=-5&per_page=-5", 1, 1),
        ("page=x&per_page=y", 1, 50),
        ("per_page=1000", 1, 100),
        ("page=99999999999999999999", u32::MAX, 50),
        ("page=", 1, 50),
    ] {
        let answer = app.get(&format!("{path}?{query}")).await.expect(200);
        let pagination = &answer.json["meta"]["pagination"];
        assert_eq!((&pagination["page"], &pagination["per_page"]), (&json!(page), &json!(per_page)), "{query}");
        assert_eq!(pagination["total"], 7);
    }
    assert_eq!(app.get(&format!("{path}?page=9")).await.expect(200).json["data"], json!([]));
}

#[tokio::test]
async fn the_pages_beside_the_api_need_no_key() {
    let app = App::start().await;
    app.publish(json!({})).await;
    for path in ["/", "/healthz", "/readyz", "/metrics"] {
        let answer = Call::new(app.address, "GET", path).send().await.expect(200);
        assert!(answer.header("content-type").starts_with("text/plain"), "{path}");
        assert!(!answer.text.is_empty());
    }
    let metrics = Call::new(app.address, "GET", "/metrics").send().await.text;
    assert!(String::from_utf8_lossy(&metrics).contains("\naldaba_events_accepted_total 1\n"));
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_503_and_not_ready() {
    let app = App::start().await;
    database::destroy(app.folder()).await;
    let answer = app.get("/v1/webhooks").await.refused(503, "unavailable", "");
    assert_eq!(answer.header("retry-after"), "1");
    assert!(!String::from_utf8_lossy(&answer.text).contains("database"), "nothing of the inside leaks");
    Call::new(app.address, "GET", "/readyz").send().await.refused(503, "unavailable", "");
    Call::new(app.address, "GET", "/healthz").send().await.expect(200);
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_and_its_last_use_is_known() {
    let app = App::start().await;
    let path = format!("/v1/accounts/{}/api-keys", app.account);
    let made = app.post(&path, json!({ "permissions": ["webhooks:read"], "name": "short-lived" })).await.expect(201);
    let key = made.attribute("key").as_str().expect("a key").to_owned();
    app.call("GET", "/v1/webhooks").bearer(&key).send().await.expect(200);
    app.delete(&format!("{path}/{}", made.id())).await.expect(204);
    app.call("GET", "/v1/webhooks").bearer(&key).send().await.refused(401, "unauthorized", "");
    app.delete(&format!("{path}/{}", made.id())).await.refused(404, "not_found", "");
}

/// Sends bytes that are no request, and reads what comes back.
#[expect(clippy::disallowed_methods, reason = "a test's client")]
async fn raw(app: &App, bytes: &[u8]) -> (String, serde_json::Value) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(app.address).await.expect("connected");
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    (head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn what_cannot_be_read_as_a_request_is_answered_in_the_envelope_too() {
    let app = App::start().await;
    let long = "a".repeat(80_000);
    for (bytes, status, code) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("GET /v1/webhooks HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_owned(), 400, "invalid_request"),
        (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 414, "uri_too_long"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", long.repeat(8)), 431, "headers_too_large"),
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200)), 431, "headers_too_large"),
    ] {
        let (head, body) = raw(&app, bytes.as_bytes()).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        let error = &body["errors"][0];
        assert_eq!((&error["code"], &error["status"]), (&json!(code), &json!(status.to_string())), "{head}");
        let id = body["meta"]["request_id"].as_str().expect("an id");
        assert!(head.contains(&format!("x-request-id: {id}")), "{head}");
    }
}

#[tokio::test]
async fn a_request_names_its_host_once_and_one_of_http_1_0_may_name_none() {
    let app = App::start().await;
    for (version, hosts, status) in [
        ("1.1", "host: a\r\n", "200"),
        ("1.1", "", "400"),
        ("1.1", "host: a\r\nhost: a\r\n", "400"),
        ("1.1", "host: a\r\nHost: b\r\n", "400"),
        ("1.0", "", "200"),
        ("1.0", "host: a\r\n", "200"),
        ("1.0", "host: a\r\nhost: b\r\n", "400"),
    ] {
        for path in ["/healthz", "/v1/webhooks"] {
            let request = format!(
                "GET {path} HTTP/{version}\r\n{hosts}authorization: Bearer {}\r\nconnection: close\r\n\r\n",
                app.key
            );
            let (head, body) = raw(&app, request.as_bytes()).await;
            assert_eq!(head.split(' ').nth(1), Some(status), "{version} {hosts:?} {path}: {head}");
            if status == "400" {
                assert_eq!(body["errors"][0]["code"], "invalid_request", "{body}");
                let id = body["meta"]["request_id"].as_str().expect("an id");
                assert!(head.contains(&format!("x-request-id: {id}")), "{head}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_in_pieces_is_read_to_its_end_and_no_further_than_it_may_be_long() {
    let app = App::start().await;
    let publish = async |pieces: &[&str]| {
        let head = "POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\n";
        let chunks =
            pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect::<Vec<_>>().concat();
        let key = &app.key;
        let whole = format!("{head}authorization: Bearer {key}\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
        raw(&app, whole.as_bytes()).await
    };
    let (head, body) = publish(&["{\"event\":\"validation.", "completed\",\"da", "ta\":{\"n\":", "1}}"]).await;
    assert!(head.starts_with("http/1.1 202 "), "{head}");
    let id = body["data"]["id"].as_str().expect("an id");
    assert_eq!(app.get(&format!("/v1/events/{id}")).await.expect(200).id(), id);
    let (first, piece) = ("{\"event\":\"validation.completed\",\"data\":{\"n\":\"", "a".repeat(100_000));
    let (head, _) = publish(&[first, &piece, &piece, "\"}}"]).await;
    assert!(head.starts_with("http/1.1 202 "), "{head}");
    let (head, body) = publish(&[first, &piece, &piece, &piece, "\"}}"]).await;
    assert!(head.starts_with("http/1.1 413 "), "{head}");
    assert_eq!(body["errors"][0]["code"], "body_too_large");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test's client")]
async fn a_client_that_has_closed_its_half_of_the_connection_still_hears_the_answer() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Late(std::time::Duration::from_millis(300))]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    let mut stream = tokio::net::TcpStream::connect(app.address).await.expect("connected");
    let head = format!(
        "POST /v1/webhooks/{id}/test HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: 0\r\n\r\n",
        app.key
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("closed");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_spanish_detail_is_spanish_to_its_end() {
    let app = App::start().await;
    let detail = async |call: Call| {
        let answer = call.header("accept-language", "es").send().await;
        answer.json["errors"][0]["detail"].as_str().expect("text").to_owned()
    };
    let broken = app.call("POST", "/v1/webhooks").header("content-type", "application/json").body("{");
    let expected =
        "El cuerpo de la solicitud no es un objeto JSON válido: termina antes de tiempo en la línea 1, columna 1.";
    assert_eq!(detail(broken).await, expected);
    let new = json!({ "name": "a.b", "schema": { "type": "object", "required": ["n"] } });
    app.call("POST", "/v1/event-types").bearer(&app.operator).json(&new).send().await.expect(201);
    let mismatch = app.call("POST", "/v1/events").json(&json!({ "event": "a.b", "data": {} }));
    assert!(detail(mismatch).await.ends_with("no cumple el esquema en el nivel superior."));
}

#[tokio::test]
async fn a_database_that_cannot_be_written_is_not_ready() {
    let app = App::start().await;
    Call::new(app.address, "GET", "/readyz").send().await.expect(200);
    let locked = database::lock(app.folder()).await;
    Call::new(app.address, "GET", "/readyz").send().await.refused(503, "unavailable", "");
    locked.unlock().await;
    app::eventually("the database to be ready again", || async {
        (Call::new(app.address, "GET", "/readyz").send().await.status == 200).then_some(())
    })
    .await;
}
