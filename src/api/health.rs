//! What machines ask that watch the server: `/healthz`, `/readyz` and `/metrics`.

use std::fmt::Write as _;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::Response;

use super::Api;
use super::envelope::{RequestInfo, plain, refuse};
use super::error::{ApiError, Code, Fault};
use crate::store::{Figures, Health, Snapshot, StoreError};

/// `GET /healthz`: the process runs.
pub async fn healthz() -> Response<Body> {
    plain(200, "ok\n".to_owned(), "text/plain; charset=utf-8")
}

/// Outcomes that wait for longer have failed at least three times: a write has an end after 5 s.
const UNWRITTEN_LIMIT: Duration = Duration::from_secs(15);

/// `GET /readyz`: the database answers and admits this program, and outcomes are written.
pub async fn readyz(State(api): State<Api>, Extension(info): Extension<RequestInfo>) -> Response<Body> {
    let unwritten = api.metrics.oldest_unwritten().unwrap_or_default();
    if unwritten >= UNWRITTEN_LIMIT {
        let reason = format!("outcomes have not been written for {} s", unwritten.as_secs());
        return unready(reason, &info);
    }
    match api.store.ping().await {
        Ok(()) => {}
        // Waiting does not help: the reason is for the operator.
        Err(error @ StoreError::Outdated { .. }) => return unready(error.to_string(), &info),
        Err(error) => return refuse(&error.into(), &info),
    }
    let mut text = "ready\n".to_owned();
    let set_aside = api.metrics.outcomes_set_aside.get();
    if set_aside > 0 {
        let _ = writeln!(text, "{set_aside} outcomes cannot be written and are tried again apart: see the log");
    }
    if let Some(since) = api.store.view().on_hold_since() {
        let _ = writeln!(text, "deliveries are on hold since {since}: nothing is sent until `aldaba resume`");
    }
    plain(200, text, "text/plain; charset=utf-8")
}

/// Not ready, for a reason that the operator must know.
fn unready(reason: String, info: &RequestInfo) -> Response<Body> {
    let fault = Fault::new(Code::Unavailable).with_meta("reason", reason);
    refuse(&ApiError::from(fault).with_header("retry-after", 1), info)
}

/// `GET /metrics`: Prometheus text format. It waits for no database.
pub async fn metrics(State(api): State<Api>) -> Response<Body> {
    api.metrics.deliveries_in_memory.set(api.store.in_memory() as u64);
    let oldest = api.metrics.oldest_unwritten().unwrap_or_default().as_secs();
    api.metrics.oldest_unwritten_outcome_seconds.set(oldest);
    api.metrics.on_hold.set(u64::from(api.store.view().on_hold_since().is_some()));
    api.metrics.nodes.set(api.store.nodes() as u64);
    let load = api.store.database_load();
    api.metrics.database_calls_waiting.set(load.calls_waiting as u64);
    api.metrics.database_reads_waiting.set(load.reads_waiting as u64);
    api.metrics.database_reads_in_use.set(load.reads_in_use as u64);
    api.metrics.database_node_calls_waiting.set(load.node_calls_waiting as u64);
    api.metrics.view_age_seconds.set(load.view_age.as_secs());
    plain(200, api.metrics.render(), "text/plain; version=0.0.4; charset=utf-8")
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::api::error::Language;
    use crate::api::test_api::api;

    async fn asked_if_ready(api: &Api) -> (StatusCode, serde_json::Value) {
        let info = RequestInfo { id: "req_1".into(), language: Language::English };
        let response = readyz(State(api.clone()), Extension(info)).await;
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_server_that_writes_no_outcomes_is_not_ready_and_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let api = api(folder.path()).await;
        let ago = |age| tokio::time::Instant::now().checked_sub(age);
        api.metrics.oldest_unwritten_since(ago(UNWRITTEN_LIMIT / 2));
        assert_eq!(asked_if_ready(&api).await.0, 200, "a write may take a while");
        api.metrics.oldest_unwritten_since(ago(UNWRITTEN_LIMIT));
        let (status, body) = asked_if_ready(&api).await;
        assert_eq!((status.as_u16(), &body["errors"][0]["code"]), (503, &"unavailable".into()));
        assert_eq!(body["errors"][0]["meta"]["reason"], "outcomes have not been written for 15 s");
        api.metrics.oldest_unwritten_since(None);
        assert_eq!(asked_if_ready(&api).await.0, 200);
    }
}
