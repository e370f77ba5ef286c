//! A receiver of webhooks: it verifies the raw body, answers at once, and drops repeats.

use std::collections::HashSet;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;

/// What every request needs.
struct Receiver {
    /// Verifies with the endpoint's secret.
    webhook: Webhook,
    /// Ids of deliveries that were taken already; a table with a unique column is better.
    seen: Mutex<HashSet<String>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let webhook = Webhook::new(&std::env::var("WEBHOOK_SECRET")?)?;
    let receiver = Arc::new(Receiver { webhook, seen: Mutex::default() });
    let app = Router::new().route("/webhooks", post(receive)).with_state(receiver);
    let listener = TcpListener::bind("127.0.0.1:4001").await?;
    axum::serve(listener, app).await?;
    Ok(())
}

/// Takes the body as `Bytes`, which is what was signed; the extractor `Json` would be too early.
async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if receiver.webhook.verify(&body, &headers).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    let Some(delivery) = headers.get("webhook-id").and_then(|id| id.to_str().ok()).map(str::to_owned) else {
        return StatusCode::BAD_REQUEST;
    };
    let is_new = receiver.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(delivery.clone());
    if is_new {
        tokio::spawn(async move {
            handle(&delivery, &body);
        });
    }
    StatusCode::NO_CONTENT
}

/// Does the work, after the answer.
fn handle(delivery: &str, body: &[u8]) {
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(event) => println!("handling {} {delivery}", event["event"]),
        Err(error) => eprintln!("delivery {delivery} is no JSON: {error}"),
    }
}
