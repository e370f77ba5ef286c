//! What happens around every request: its id, its log line, and an answer where a handler panics.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ACCEPT_LANGUAGE, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Response};

use super::Api;
use super::envelope::{RequestInfo, X_REQUEST_ID, refuse};
use super::error::{ApiError, Code, Language};
use super::trace::{RequestTrace, in_request};
use crate::log_limit::LogLimit;

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
    let traced = RequestTrace { id: info.id.clone(), method: request.method().clone(), uri: request.uri().clone() };
    in_request(traced, async move {
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
        response
            .headers_mut()
            .entry(X_REQUEST_ID)
            .or_insert_with(|| HeaderValue::from_str(&info.id).expect("a request's id is hexadecimal digits"));
        // A browser takes an answer for what its type says.
        response.headers_mut().entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
        let hsts = api.changing.read().hsts();
        if let Some(hsts) = hsts {
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::api::test_api::api;

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
