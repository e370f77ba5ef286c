//! Signatures, checked with implementations that are not ours: the Standard Webhooks crate, and Python with Standard
//! Webhooks' own package and `hmac`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use aldaba::domain::time::Timestamp;
use axum::http::HeaderMap;
use serde_json::json;

use crate::app::{App, Received, Receiver};

/// Checks all three schemes with this secret.
#[track_caller]
pub fn assert_signed(request: &Received, secret: &str) {
    assert!(plain_verifies(request, secret), "X-Webhook-Signature");
    assert!(timestamped_verifies(request, secret), "X-Webhook-Signature-Timestamped");
    assert!(standard_verifies(request, secret), "webhook-signature");
}

fn hmac_hex(secret: &str, message: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    hex::encode(ring::hmac::sign(&key, message).as_ref())
}

pub fn plain_verifies(request: &Received, secret: &str) -> bool {
    request.header("x-webhook-signature") == format!("sha256={}", hmac_hex(secret, &request.body))
}

pub fn timestamped_verifies(request: &Received, secret: &str) -> bool {
    let header = request.header("x-webhook-signature-timestamped");
    let mut parts = header.split(',');
    let time = parts.next().and_then(|part| part.strip_prefix("t=")).unwrap_or("");
    let expected = format!("v1={}", hmac_hex(secret, &[time.as_bytes(), b".", &request.body].concat()));
    parts.any(|part| part == expected)
}

pub fn standard_verifies(request: &Received, secret: &str) -> bool {
    let mut headers = HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, request.headers[name].clone());
    }
    let webhook = standardwebhooks::Webhook::new(secret).expect("the library takes the secret as it is");
    webhook.verify(&request.body, &headers).is_ok()
}

#[tokio::test]
async fn the_request_has_every_header_of_the_contract() {
    let app = App::with(&[("BRAND", "Veriko")]).await;
    let receiver = Receiver::start().await;
    let (_, secret) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "id": "a" })).await;
    let request = receiver.wait_for(1).await.remove(0);
    assert_eq!(request.path, "/hook");
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("user-agent"), concat!("Aldaba/", env!("CARGO_PKG_VERSION")));
    assert_eq!(request.header("host"), receiver.address.to_string());
    assert_eq!(request.header("x-veriko-event"), "validation.completed");
    let id = request.header("x-veriko-delivery-id");
    assert!(id.parse::<i64>().is_ok_and(|id| id > 0), "{id}");
    assert_eq!(request.header("webhook-id"), id);
    let seconds = request.header("webhook-timestamp");
    assert!(request.header("x-webhook-signature-timestamped").starts_with(&format!("t={seconds},v1=")));
    let time = request.header("x-veriko-timestamp");
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    let parsed = Timestamp::parse(time).expect("ISO 8601");
    assert_eq!(parsed.as_secs().to_string(), seconds, "both are the time of this attempt");
    assert_signed(&request, &secret);
    let body: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body["event"], "validation.completed");
    assert_eq!(body["data"], json!({ "id": "a" }));
    assert_eq!(body["meta"], json!({ "datetime": { "timezone": "UTC", "format": "ISO 8601" } }));
    assert!(body["timestamp"].as_str().is_some_and(|time| time.len() == 20 && time.ends_with('Z')));
}

const PYTHON: &str = r#"
import hashlib, hmac, json, sys
from standardwebhooks.webhooks import Webhook

given = json.load(sys.stdin)
secret, body, headers = given["secret"], given["body"].encode(), given["headers"]

mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
assert hmac.compare_digest(headers["x-webhook-signature"], "sha256=" + mac), "plain"

parts = headers["x-webhook-signature-timestamped"].split(",")
time = parts[0].removeprefix("t=")
mac = hmac.new(secret.encode(), time.encode() + b"." + body, hashlib.sha256).hexdigest()
assert any(hmac.compare_digest(p, "v1=" + mac) for p in parts[1:]), "timestamped"

Webhook(secret).verify(body, headers)
try:
    Webhook(secret).verify(body + b" ", headers)
    sys.exit("an altered body verified")
except Exception:
    pass
print("verified")
"#;

#[tokio::test]
async fn python_verifies_all_three_schemes() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (_, secret) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "text": "ñandú €" })).await;
    let request = receiver.wait_for(1).await.remove(0);
    let headers: serde_json::Map<_, _> =
        request.headers.iter().map(|(n, v)| (n.to_string(), json!(v.to_str().expect("text")))).collect();
    let given = json!({ "secret": secret, "body": String::from_utf8_lossy(&request.body), "headers": headers });
    // `scripts/test` makes an environment with the package there.
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python");
    let mut child = Command::new(python)
        .args(["-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{python}: {error}; run ./scripts/test once, which installs it"));
    child.stdin.take().expect("a pipe").write_all(given.to_string().as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "verified");
}
