//! A receiver: `aldaba listen`, and the one that `aldaba dev` starts. It checks every delivery as a customer's would.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{Request, Response, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use super::args::{Output, bind, print_line, printable};
use super::serve::Signals;
use crate::clock::{Clock as _, SystemClock};
use crate::domain::secret::Secret;
use crate::domain::sign::{Presented, verify_plain, verify_standard, verify_timestamped};
use crate::lock::RwLock;
use crate::server::ServerOptions;

/// A signature this much older or newer than now is stale, in seconds.
const TOLERANCE_SECS: u64 = 300;

/// How long requests under way may take at the stop. Their answers are made at once.
const GRACE: Duration = Duration::from_secs(1);

/// Bytes of a body that are read.
const MAX_BODY: usize = 2 << 20;

/// What the receiver knows.
#[derive(Clone)]
pub(super) struct Receiver {
    /// The endpoint's secret; without it nothing is verified.
    pub secret: Arc<RwLock<Option<Secret>>>,
    /// What it answers.
    pub status: u16,
    /// Printed after a delivery that does not verify.
    pub hint: &'static str,
    /// For people, or a line of JSON for each delivery.
    pub output: Output,
}

impl Receiver {
    /// Prints a line for people. What cannot be printed is answered all the same.
    fn tell(&self, line: impl Display) {
        if !self.output.json {
            let _ = print_line(line);
        }
    }
}

pub(super) async fn listen(listen: &str, secret: Option<&str>, status: u16, output: Output) -> anyhow::Result<()> {
    let secret = secret
        .map(|text| {
            Secret::of_owner(text).context(
                "--secret must be a signing secret: 24 to 128 visible ASCII characters; what follows whsec_ must be \
                 padded base64 of 24 to 64 bytes",
            )
        })
        .transpose()?;
    let listener = bind(listen).await?;
    let address = format!("http://{}", listener.local_addr()?);
    output.print(&json!({ "receiving": address }), &format!("receiving on {address}"))?;
    if secret.is_none() && !output.json {
        print_line("no --secret was given: deliveries are shown, but not verified")?;
    }
    let hint = "the secret given here is not the one that signed it";
    let receiver = Receiver { secret: Arc::new(RwLock::new(secret)), status, hint, output };
    let stop = Signals::new()?;
    serve(listener, receiver, stop.first()).await;
    Ok(())
}

/// Receives until `stop` resolves.
pub(super) async fn serve(listener: TcpListener, receiver: Receiver, stop: impl Future<Output = ()>) {
    let answer = move |request, _| receive(receiver.clone(), request);
    let stop = async {
        stop.await;
        GRACE
    };
    crate::server::serve(listener, answer, ServerOptions::default(), stop).await;
}

async fn receive(receiver: Receiver, request: Request<Body>) -> Response<Body> {
    let (Parts { headers, .. }, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        let mut refusal = Response::new(Body::from("the body is too large, or broke off\n"));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return refusal;
    };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let id = header("webhook-id");
    let event = headers
        .iter()
        .find(|(name, _)| name.as_str().starts_with("x-") && name.as_str().ends_with("-event"))
        .and_then(|(_, value)| value.to_str().ok())
        .unwrap_or("(no event header)");
    receiver.tell(format_args!("\n→ {}  delivery {}", printable(event), printable(id)));
    receiver.tell(format_args!("  {}", printable(&String::from_utf8_lossy(&body))));
    let mut verified = serde_json::Map::new();
    let secret = receiver.secret.read().clone();
    let mut status = receiver.status;
    if let Some(secret) = secret {
        let now = SystemClock.now();
        let seen = Presented { id, timestamp: header("webhook-timestamp"), body: &body };
        let checks = [
            ("X-Webhook-Signature", verify_plain(&secret, header("x-webhook-signature"), &body)),
            (
                "X-Webhook-Signature-Timestamped",
                verify_timestamped(&secret, header("x-webhook-signature-timestamped"), &body, now, TOLERANCE_SECS),
            ),
            (
                "webhook-signature (Standard Webhooks)",
                verify_standard(&secret, header("webhook-signature"), &seen, now, TOLERANCE_SECS),
            ),
        ];
        for (name, matches) in checks {
            receiver.tell(format_args!("  {} {name}", if matches { "✓ verified" } else { "✗ NOT verified" }));
            let header = name.split(' ').next().unwrap_or(name);
            verified.insert(header.to_ascii_lowercase(), matches.into());
        }
        // During an overlap the first is the new secret's alone: any match is enough.
        if !checks.iter().any(|(_, matches)| *matches) {
            receiver.tell(format_args!("  {}", receiver.hint));
            status = 401;
        }
    }
    if receiver.output.json {
        let body = String::from_utf8_lossy(&body);
        let told = json!({ "event": event, "delivery_id": id, "verified": verified, "answer": status, "body": body });
        let _ = print_line(told);
    }
    let mut response = Response::new(Body::from("received\n"));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    response
}
