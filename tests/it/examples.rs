//! Every example of the reference, in each language, against a real server; and the answers that the pages show.
//!
//! `UPDATE_ANSWERS=1 cargo test examples` writes the answers anew, when the API has changed on purpose.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use aldaba::web::{
    self, ACCOUNT_ID, BASE, DELIVERY_ID, ENDPOINT_ID, EVENT_ID, EVENT_TYPE, Example, KEY_ID, LINK_ID, REPLAY_ID,
    USER_ID,
};
use serde_json::{Map, Value, json};

use crate::app::{App, Receiver};

/// The receiver's address in the examples, and what the built-in answers are masked with.
const RECEIVER: &str = "https://example.com/webhooks";
const AUDIT_ID: &str = "b7a5e3c9-4d1f-4c86-9a02-7e5d3b1f8c64";
const TIME: &str = "2026-05-01T05:14:38Z";
const SECONDS: &str = "1777612478";
const REQUEST: &str = "c4d5e6f7a8b9";
const SECRET: &str = "9f2c4e1ab7d8036512fe98c07a4bd36e5f1029ce84b7a6d3015fc29e7b48a16d";

/// The file with the answers.
fn answers_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/openapi/answers.json")
}

/// A server with one of each thing.
struct Scene {
    app: App,
    receiver: Receiver,
    /// What the examples name, and what it is here.
    names: Vec<(String, String)>,
}

impl Scene {
    async fn for_call(call: &web::Operation) -> Self {
        let app = App::start().await;
        let receiver = Receiver::start().await;
        let account = format!("/v1/accounts/{}", app.account);
        app.put(&account, json!({ "name": "Acme" })).await.expect(200);
        let endpoint =
            json!({ "url": receiver.url(), "events": ["validation.completed"], "description": "Production" });
        let (mut id, mut event, mut delivery) = (String::new(), String::new(), String::new());
        if !["create_webhook", "publish_events"].contains(&call.id) {
            id = app.post("/v1/webhooks", endpoint).await.expect(201).id();
            let data = json!({ "id": "7f3d9a52-6c1e-4b0a-9d57-2f8e41c6b3aa", "result": "valid" });
            if !["publish_event", "test_webhook"].contains(&call.id) {
                event = app.publish(data).await;
                app.delivery(&id, "success").await["id"].as_str().expect("an id").clone_into(&mut delivery);
            }
        }
        if call.group == "Event types" && call.id != "create_event_type" {
            let new = json!({ "name": EVENT_TYPE, "description": "An order has left the \
                                                                  warehouse.", "example": { "order": "A-1042" } });
            app.call("POST", "/v1/event-types").bearer(&app.operator).json(&new).send().await.expect(201);
        }
        let mut replay = String::new();
        if ["get_replay", "cancel_replay"].contains(&call.id) {
            replay = app.replay(&id, json!({ "from": "2026-01-01", "status": "all" })).await;
            app.replayed(&replay).await;
        }
        if call.id == "get_missed" {
            app.put(&format!("/v1/webhooks/{id}"), json!({ "status": "disabled" })).await.expect(200);
            app.publish(json!({})).await;
        }
        let mut key = String::new();
        if call.group == "API keys" && call.id != "create_api_key" {
            let new = json!({ "permissions": ["events:create"], "name": "publisher" });
            key = app.post(&format!("{account}/api-keys"), new).await.expect(201).id();
        }
        let mut user = String::new();
        if call.group == "Users" && call.id != "invite_user" {
            let new = json!({ "email": "ana@example.com", "role": "developer" });
            user = app.post(&format!("{account}/users"), new).await.expect(201).id();
        }
        let mut link = String::new();
        if call.group == "Portal links" && call.id != "create_portal_link" {
            let new = json!({ "permissions": ["webhooks:read", "webhooks:update"], "brand": "Example",
                              "color": "#0b5cad", "frame_origins": ["https://app.example.com"] });
            let made = app.call("POST", &format!("{account}/portal-links")).bearer(&app.operator).json(&new);
            link = made.send().await.expect(201).id();
        }
        let names = [
            (LINK_ID, link),
            (USER_ID, user),
            (BASE, format!("http://{}", app.address)),
            (RECEIVER, receiver.url()),
            (ENDPOINT_ID, id),
            (EVENT_ID, event),
            (DELIVERY_ID, delivery),
            (REPLAY_ID, replay),
            (ACCOUNT_ID, app.account.to_string()),
            (KEY_ID, key),
        ];
        let names = names.into_iter().map(|(name, here)| (name.to_owned(), here)).collect();
        Self { app, receiver, names }
    }

    /// The example with the names of this scene.
    fn script(&self, example: &Example<'_>, language: &str) -> String {
        let text = example.in_language(language);
        self.names.iter().fold(text, |text, (name, here)| text.replace(name, here))
    }
}

/// The answer as the pages show it.
fn masked(answer: &Value) -> Value {
    mask("", answer, &answer["data"]["type"])
}

fn mask(name: &str, value: &Value, kind: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kind = fields.get("type").unwrap_or(kind);
            Value::Object(
                fields.iter().map(|(name, value)| (name.clone(), mask(name, value, kind))).collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => items.iter().map(|item| mask(name, item, kind)).collect(),
        Value::String(text) => {
            let is_time = text.len() == 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T';
            match (name, kind.as_str().unwrap_or("")) {
                _ if is_time => json!(TIME),
                ("secret", _) => json!(SECRET),
                ("secret_hint", _) => json!(format!("...{}", &SECRET[60..])),
                ("key", _) => json!(format!("mxcep_{SECRET}")),
                ("key_hint" | "actor_name", _) => json!(format!("mxcep_...{}", &SECRET[60..])),
                ("request_id", _) => json!(REQUEST),
                ("url", "portal_link") => json!(format!("{BASE}/portal/{SECRET}")),
                ("url" | "endpoint_url", _) => json!(RECEIVER),
                ("endpoint_id" | "resource_id", _) | ("id", "webhook_endpoint" | "webhook_missed") => {
                    json!(ENDPOINT_ID)
                }
                ("account_id", _) | ("id", "account" | "webhook_statistics" | "webhook_filter_preview") => {
                    json!(ACCOUNT_ID)
                }
                ("webhook-id" | "x-aldaba-delivery-id", _) | ("id", "webhook_delivery" | "webhook_test_result") => {
                    json!(DELIVERY_ID)
                }
                ("id", "webhook_replay") => json!(REPLAY_ID),
                ("webhook-timestamp", _) => json!(SECONDS),
                ("x-webhook-signature-timestamped", _) => json!(format!("t={SECONDS},v1=***")),
                ("request_body", _) => {
                    let mut message: Value = serde_json::from_str(text).expect("JSON");
                    let sent = message["timestamp"].take();
                    json!(text.replace(sent.as_str().expect("a time"), TIME))
                }
                ("event_id", _) | ("id", "event") => json!(EVENT_ID),
                ("id", "api_key") | ("actor_id", _) => json!(KEY_ID),
                ("id", "audit_entry") => json!(AUDIT_ID),
                ("id", "user") => json!(USER_ID),
                ("id", "portal_link") => json!(LINK_ID),
                ("invitation_url", _) => json!(format!("{BASE}/join/{SECRET}")),
                _ => value.clone(),
            }
        }
        Value::Number(_) if name == "response_time_ms" => json!(12),
        other => other.clone(),
    }
}

/// Runs a script in its language; what it prints.
fn run(language: &str, script: &str, key: &str) -> String {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python");
    let (program, arguments): (&str, &[&str]) = match language {
        "curl" => ("bash", &["-euo", "pipefail"]),
        "Python" => (python, &["-"]),
        "JavaScript" => ("node", &["--input-type=module"]),
        _ => ("php", &[]),
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("API_KEY", key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; run ./scripts/test once, which installs it"));
    let mut input = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut input, script.as_bytes()).expect("written");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

async fn every_example_in(language: &'static str) {
    let update = std::env::var_os("UPDATE_ANSWERS").is_some();
    let known: Value = serde_json::from_str(&std::fs::read_to_string(answers_file()).expect("the file")).expect("JSON");
    let given = Mutex::new(Map::new());
    let calls: Vec<_> = web::groups().iter().flat_map(|group| group.operations.iter().copied()).collect();
    let second = |call| Example::with_options(call).map(|(_, example)| (call, example));
    let examples = calls.iter().map(|call| (*call, Example::of(call)));
    for (call, example) in examples.chain(calls.iter().filter_map(|call| second(*call))) {
        let scene = Scene::for_call(call).await;
        let key = if call.audience == "operator" { &scene.app.operator } else { &scene.app.key };
        let (script, key) = (scene.script(&example, language), key.clone());
        let printed = tokio::task::spawn_blocking(move || run(language, &script, &key)).await.expect("no panic");
        if call.is_file {
            let names = if call.group == "Audit log" {
                ["id,created_at,action,", ",api_key,"]
            } else {
                ["id,created_at,status,", "/hook,"]
            };
            assert!(
                printed.starts_with(names[0]) && printed.contains(names[1]),
                "{} in {language}: {printed}",
                call.id
            );
        } else if call.answer.is_none() {
            let expected = if language == "curl" { String::new() } else { call.success.0.to_string() };
            assert_eq!(printed, expected, "{}", call.id);
        } else {
            let answer = masked(&serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{}: {printed}", call.id)));
            if !update {
                assert_eq!(answer, known[call.id], "{} in {language}; see UPDATE_ANSWERS above", call.id);
            }
            given.lock().expect("no panic").insert(call.id.to_owned(), answer);
        }
        if call.id == "test_webhook" {
            assert_eq!(scene.receiver.received().len(), 1);
        }
        scene.app.stop().await;
    }
    if update && language == "curl" {
        let given = Value::Object(given.into_inner().expect("no panic"));
        std::fs::write(answers_file(), format!("{given:#}\n")).expect("written");
    }
}

/// Whoever rotates because a secret has leaked copies the first example: after it no older secret signs.
#[test]
fn the_first_example_of_a_rotation_has_no_overlap_and_the_second_one_has() {
    let call = web::operation("regenerate_secret").expect("the call");
    let (_, second) = Example::with_options(call).expect("a second example");
    for (language, _) in web::LANGUAGES {
        assert!(!Example::of(call).in_language(language).contains("overlap_seconds"), "{language}");
        assert!(second.in_language(language).contains("overlap_seconds"), "{language}");
    }
    let body = &crate::reference::DOCUMENT["paths"][call.path]["post"]["requestBody"];
    let first = body["content"]["application/json"]["examples"].as_object().and_then(|all| all.values().next());
    assert_eq!(first.expect("an example")["value"], json!({}), "what a client made from the document begins with");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_curl_example_runs_and_is_answered_as_its_page_shows() {
    every_example_in("curl").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_python_example_runs_and_is_answered_as_its_page_shows() {
    every_example_in("Python").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_javascript_example_runs_and_is_answered_as_its_page_shows() {
    every_example_in("JavaScript").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_php_example_runs_and_is_answered_as_its_page_shows() {
    every_example_in("PHP").await;
}
