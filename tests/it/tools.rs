//! The OpenAPI document in the hands of others: a validator, a fuzzer of whole APIs, and a generator of clients.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::app::{App, EVENT, Receiver};
use crate::reference::DOCUMENT;

/// A program that `scripts/test` has installed.
fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin").join(name);
    assert!(path.exists(), "{} is missing; run ./scripts/test once, which installs it", path.display());
    path
}

/// Runs it to its end without blocking the server of the test, and fails with what it printed.
async fn succeeds(mut command: Command) -> String {
    let ended = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
    let output = ended.await.expect("no panic");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

fn written(folder: &Path, document: &Value) -> PathBuf {
    let path = folder.join("openapi.json");
    std::fs::write(&path, document.to_string()).expect("written");
    path
}

#[tokio::test]
async fn the_document_is_valid() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(program("openapi-spec-validator"));
    command.arg(written(folder.path(), &DOCUMENT));
    succeeds(command).await;
}

/// The document with values for the parts of paths that lead somewhere, beside others that do not.
fn with_ids(app: &App, webhook: &str, event: &str) -> Value {
    let mut document = DOCUMENT.clone();
    let nobody = "00000000-0000-4000-8000-000000000000";
    for (path, item) in document["paths"].as_object_mut().expect("paths") {
        for operation in item.as_object_mut().expect("operations").values_mut() {
            for parameter in operation["parameters"].as_array_mut().expect("parameters") {
                let known = match parameter["name"].as_str() {
                    Some("id") if path.starts_with("/v1/webhooks") => webhook.to_owned(),
                    Some("id") if path.starts_with("/v1/events") => event.to_owned(),
                    Some("id") => app.account.to_string(),
                    Some("name") => EVENT.to_owned(),
                    _ => continue,
                };
                parameter["schema"] = json!({ "type": "string", "enum": [known, nobody] });
            }
        }
    }
    document
}

/// Whatever is sent, valid or hostile, the server answers with a status that is listed, in the shape that is described.
async fn fuzzed(app: &App, document: &Value, key: &str, more: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,\
                  response_headers_conformance,response_schema_conformance";
    let mut command = Command::new(program("schemathesis"));
    command.arg("run").arg(written(folder.path(), document)).current_dir(folder.path());
    command.args(["--url", &format!("http://{}", app.address), "--header", &format!("Authorization: Bearer {key}")]);
    command.args(["--checks", checks, "--max-examples", "20", "--suppress-health-check", "all", "--no-color"]);
    command.args(more);
    let told = succeeds(command).await;
    assert!(told.contains("Stateful"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_fuzzed_gets_only_answers_that_the_reference_lists() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (webhook, _) = app.endpoint(&receiver.url()).await;
    let event = app.publish(json!({ "n": 1 })).await;
    // What deletes comes last, by another test: here the calls find something.
    fuzzed(&app, &with_ids(&app, &webhook, &event), &app.key, &["--exclude-method", "DELETE"]).await;
    app.get(&format!("/v1/webhooks/{webhook}")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_is_fuzzed_gets_only_answers_that_the_reference_lists() {
    let app = App::start().await;
    fuzzed(&app, &DOCUMENT, &app.operator, &[]).await;
    crate::app::Call::new(app.address, "GET", "/readyz").send().await.expect(200);
}

/// What a program does with the client that was generated for it.
const CLIENT: &str = r#"
import os
import time
from client.api.deliveries import list_webhook_deliveries
from client.api.events import publish_event
from client.api.webhooks import create_webhook, delete_webhook, list_webhooks, regenerate_secret
from client.client import AuthenticatedClient
from client.models import CreateWebhook, PublishEvent, RegenerateSecret

api = AuthenticatedClient(base_url=os.environ["API_URL"], token=os.environ["API_KEY"])
new = CreateWebhook(url=os.environ["RECEIVER"], events=["validation.completed"], description="generated")
made = create_webhook.sync(client=api, body=new)
assert len(made.data.attributes.secret) == 64
rotated = regenerate_secret.sync(made.data.id, client=api, body=RegenerateSecret(overlap_seconds=60))
assert rotated.data.attributes.secret != made.data.attributes.secret
listed = list_webhooks.sync(client=api)
assert [endpoint.data.id if hasattr(endpoint, "data") else endpoint.id for endpoint in listed.data] == [made.data.id]
event = PublishEvent.from_dict({"event": "validation.completed", "data": {"n": 1}})
accepted = publish_event.sync(client=api, body=event, idempotency_key="once")
assert accepted.data.attributes.deliveries == 1
assert publish_event.sync(client=api, body=event, idempotency_key="once").data.id == accepted.data.id
# What is deleted before this would take its delivery with it.
deadline = time.monotonic() + 30
while (delivery := list_webhook_deliveries.sync(made.data.id, client=api).data[0].attributes).status.value != "success":
    assert time.monotonic() < deadline, delivery
    time.sleep(0.02)
refused = create_webhook.sync(client=api, body=CreateWebhook(url="nowhere", events=[]))
assert [error.code.value for error in refused.errors] == ["webhook_url_invalid_format", "webhook_events_required"]
assert delete_webhook.sync_detailed(made.data.id, client=api).status_code == 204
print("works")
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_generated_from_the_document_works() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(program("openapi-python-client"));
    command.args(["generate", "--meta", "none", "--output-path", "client", "--path"]);
    command.arg(written(folder.path(), &DOCUMENT)).current_dir(folder.path());
    succeeds(command).await;
    let mut command = Command::new(program("python"));
    command.args(["-c", CLIENT]).current_dir(folder.path());
    command.env("API_URL", format!("http://{}", app.address)).env("API_KEY", &app.key).env("RECEIVER", receiver.url());
    assert!(succeeds(command).await.ends_with("works\n"));
    receiver.wait_for(1).await;
}
