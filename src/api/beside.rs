//! What is outside `/v1`, and what happens around every request: its id, its log line, its last resort.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::LazyLock;
use std::task::Poll;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_LANGUAGE, CONTENT_TYPE, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Response, StatusCode};

use super::Api;
use super::envelope::{RequestInfo, X_REQUEST_ID, error_body, refuse, respond};
use super::error::{ApiError, Code, Fault, Language};
use super::trace::{Traced, within};
use crate::log_limit::LogLimit;
use crate::store::{Figures, Health, StoreError};

/// A full disk answers every call with 503: each is counted, and not each is logged.
static SERVER_ERRORS_LOGGED: LogLimit = LogLimit::new();

/// Wraps every request: gives it an id, logs it, and answers in the envelope even when a handler panics.
pub fn observe<F>(
    api: Api,
    request: Request,
    answer: impl FnOnce(Request, RequestInfo) -> F,
) -> impl Future<Output = Response<Body>>
where
    F: Future<Output = Response<Body>>,
{
    let id = api.request_ids.next();
    let language = request.headers().get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let info = RequestInfo { id, language: language.map_or(Language::English, Language::from_header) };
    let traced = Traced { id: info.id.clone(), method: request.method().clone(), uri: request.uri().clone() };
    within(traced, async move {
        let mut answering = pin!(answer(request, info.clone()));
        let guarded = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(context))) {
            Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        });
        let mut response = guarded.await.unwrap_or_else(|| {
            tracing::error!("a handler panicked");
            refuse(&ApiError::from(Code::InternalError), &info)
        });
        if !response.headers().contains_key(X_REQUEST_ID)
            && let Ok(id) = HeaderValue::from_str(&info.id)
        {
            response.headers_mut().insert(X_REQUEST_ID, id);
        }
        // A browser takes an answer for what its type says.
        response.headers_mut().entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
        if let Some(hsts) = api.settings.hsts() {
            response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts);
        }
        api.metrics.http_requests_total.add(1);
        let status = response.status().as_u16();
        if status >= 500 {
            api.metrics.http_errors_total.add(1);
            if let Some(suppressed) = SERVER_ERRORS_LOGGED.admit() {
                tracing::error!(status, suppressed, "answered");
            } else {
                tracing::debug!(status, "answered");
            }
        } else {
            tracing::debug!(status, "answered");
        }
        response
    })
}

/// `GET /` for programs: what there is.
pub async fn root() -> Response<Body> {
    let text = concat!(
        "Aldaba ",
        env!("CARGO_PKG_VERSION"),
        ": a webhook sender.\n\n",
        "The API is below /v1 and takes `Authorization: Bearer <key>`; make a key with `aldaba keys create`.\n",
        "  /v1/webhooks     endpoints, their secrets and deliveries\n",
        "  /v1/events       publish and look back\n",
        "  /v1/event-types  the catalog\n",
        "  /v1/accounts     accounts and API keys\n\n",
        "The dashboard is here, for browsers; the reference and the guides are at /docs.\n\n",
        "For machines: /openapi.json, /healthz, /readyz, /metrics.\n",
    );
    plain(200, text.to_owned(), "text/plain; charset=utf-8")
}

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
    api.metrics.nodes.set(api.store.nodes() as u64);
    let load = api.store.database_load();
    api.metrics.database_calls_waiting.set(load.calls_waiting as u64);
    api.metrics.database_reads_waiting.set(load.reads_waiting as u64);
    api.metrics.database_reads_in_use.set(load.reads_in_use as u64);
    api.metrics.database_node_calls_waiting.set(load.node_calls_waiting as u64);
    api.metrics.view_age_seconds.set(load.view_age.as_secs());
    plain(200, api.metrics.render(), "text/plain; version=0.0.4; charset=utf-8")
}

/// `GET /openapi.json`: the document, made once.
pub async fn openapi() -> Response<Body> {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| super::openapi::document(&super::routes()).to_string().into());
    // Not copied: whoever does not read it costs no memory.
    plain(200, DOCUMENT.clone(), "application/json")
}

/// No such path. Also what a page's own handler answers where there is none.
pub async fn not_found(Extension(info): Extension<RequestInfo>) -> Response<Body> {
    refuse(&Code::NotFound.into(), &info)
}

/// The whole answer, head and body, to what could not be read as a request, and to a connection that is one too many.
pub fn unreadable(api: &Api, status: u16) -> Vec<u8> {
    let (code, error) = match status {
        414 => (Code::UriTooLong, Code::UriTooLong.into()),
        431 => (Code::HeadersTooLarge, Code::HeadersTooLarge.into()),
        503 => (Code::Unavailable, ApiError::busy("your address has as many connections as it may have")),
        _ => (Code::InvalidRequest, Code::InvalidRequest.into()),
    };
    let info = RequestInfo { id: api.request_ids.next(), language: Language::English };
    let body = error_body(&error, &info);
    api.metrics.http_requests_total.add(1);
    tracing::debug!(request_id = %info.id, status = code.status(), "a request could not be read");
    let reason = StatusCode::from_u16(code.status()).ok().and_then(|status| status.canonical_reason()).unwrap_or("");
    let retry_after = if code == Code::Unavailable { "retry-after: 1\r\n" } else { "" };
    let mut answer = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         x-content-type-options: nosniff\r\nx-request-id: {}\r\n{retry_after}connection: close\r\n\r\n",
        code.status(),
        body.len(),
        info.id
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}

/// A known path, another method. The framework adds `Allow`.
pub async fn method_not_allowed(Extension(info): Extension<RequestInfo>) -> Response<Body> {
    refuse(&Code::MethodNotAllowed.into(), &info)
}

fn plain(status: u16, text: impl Into<Bytes>, content_type: &'static str) -> Response<Body> {
    let mut response = respond(status, text, "");
    response.headers_mut().remove(X_REQUEST_ID);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::api::{RateLimits, Settings};
    use crate::clock::{SystemClock, SystemRandom};
    use crate::domain::transition::DeliveryPolicy;
    use crate::domain::url::Environment;
    use crate::egress::{Egress, resolver};
    use crate::store::keys::KeySource;
    use crate::store::{Database, OpenOptions, Store};

    async fn api(folder: &std::path::Path) -> Api {
        let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom::default()));
        let store = Store::open(OpenOptions {
            database: Database::Sqlite(folder.join("aldaba.db")),
            keys: KeySource::File(folder.join("master-key")),
            environment: Environment::Development,
            policy: DeliveryPolicy::default(),
            max_endpoints: 1,
            max_api_keys: 1,
            max_in_flight_per_endpoint: 1,
            serves: false,
            clock: clock.clone(),
            random: random.clone(),
            inbox: None,
        })
        .await;
        let (second, resolver) = (Duration::from_secs(1), resolver(Vec::new()));
        let rules = (Environment::Development, crate::domain::egress_rules::EgressRules::default());
        let egress = Egress::new(rules, "Aldaba", second, clock.clone(), resolver);
        let settings = Settings {
            environment: Environment::Development,
            key_prefix: "mxcep_".into(),
            retention: crate::domain::retention::Retention::default(),
            trusted_proxies: Vec::new(),
            requests_per_forwarded_address: 1,
            max_body: 1_024,
            rate_limits: RateLimits(foldhash::HashMap::default()),
            brand: "Aldaba".into(),
            public_url: None,
            sessions: crate::api::Sessions { idle: Duration::from_secs(60), lifetime: Duration::from_secs(60) },
            welcome: None,
            metrics_apart: false,
            max_tests: (1, 1),
        };
        Api::new(store.expect("opens"), egress, clock, random, Arc::default(), settings)
    }

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

    async fn broken(_: Request, _: RequestInfo) -> Response<Body> {
        panic!("the inside of the house")
    }

    #[tokio::test]
    async fn a_panic_is_answered_in_the_envelope_without_a_word_of_its_message() {
        let folder = tempfile::tempdir().expect("a folder");
        let api = api(folder.path()).await;
        let request = Request::get("/broken").body(Body::empty()).expect("a request");
        let response = observe(api.clone(), request, broken).await;
        assert_eq!(response.status(), 500);
        let id = response.headers()["x-request-id"].to_str().expect("an id").to_owned();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["errors"][0]["code"], "internal_error");
        assert_eq!(body["meta"]["request_id"], id);
        assert!(!body.to_string().contains("inside"));
        assert_eq!(api.metrics.http_errors_total.get(), 1);
    }
}
