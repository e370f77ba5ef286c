//! The shape of every answer: `data` or `errors`, and `meta`.

use std::borrow::Cow;
use std::io::Write as _;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{ApiError, Language};
use crate::domain::time::Timestamp;
use crate::store::{Page, Paged};

/// Room for an answer with one resource, in bytes.
const USUAL_BODY: usize = 512;

/// Names the request in its answer.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Which request this is, and how to answer it.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// 12 lowercase hex digits.
    pub id: Arc<str>,
    /// The language of details.
    pub language: Language,
}

/// Names requests: different for each of this process, and for others most likely. They are no secret.
#[derive(Debug)]
pub struct RequestIds(AtomicU64);

impl RequestIds {
    /// Begins somewhere.
    pub fn starting_at(start: u64) -> Self {
        Self(AtomicU64::new(start))
    }

    /// 12 lowercase hex digits. An odd factor makes neighbours look unlike, and no two of 2^48 the same.
    pub fn next(&self) -> Arc<str> {
        let number = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut digits = [0; 12];
        hex::encode_to_slice(&number.to_be_bytes()[2..], &mut digits).expect("six bytes are twelve digits");
        std::str::from_utf8(&digits).expect("hexadecimal digits are ASCII").into()
    }
}

/// `type`, `id`, `attributes`. Pages read it like its attributes.
#[derive(Clone, Serialize, Deserialize)]
pub struct Resource<A> {
    /// What it is.
    pub r#type: Cow<'static, str>,
    /// Which one.
    pub id: String,
    /// Its fields.
    pub attributes: A,
}

impl<A> Deref for Resource<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.attributes
    }
}

/// Where in a list a page is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pagination {
    /// Which page this is, from 1.
    pub page: u64,
    /// Rows on each page but the last.
    pub per_page: u64,
    /// Rows on all pages.
    pub total: u64,
    /// How many pages can be reached.
    pub total_pages: u64,
    /// Whether there are more rows than `total` says. Absent where `total` is exact.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub total_is_minimum: bool,
}

impl Pagination {
    /// Whether the list has rows that no page reaches.
    pub fn goes_on(&self) -> bool {
        self.total_is_minimum || self.total > self.total_pages * self.per_page
    }
}

/// A success, before it is written.
#[derive(Debug)]
pub struct Answer {
    status: u16,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Nothing,
    /// The body as far as its data, and what `meta` has beside the usual.
    Json(Vec<u8>, Option<Pagination>),
    /// Its media type and name, and its bytes as they come.
    File(&'static str, String, Body),
}

impl Answer {
    /// One resource or a list of them.
    pub fn new(status: u16, data: &impl Serialize) -> Self {
        Self { status, content: Content::Json(begun(data), None) }
    }

    /// 204.
    pub fn no_content() -> Self {
        Self { status: 204, content: Content::Nothing }
    }

    /// A file to be kept.
    pub fn file(media_type: &'static str, name: String, body: Body) -> Self {
        Self { status: 200, content: Content::File(media_type, name, body) }
    }

    /// A page of a list.
    pub fn page<T, A: Serialize>(paged: &Paged<T>, page: Page, render: impl Fn(&T) -> A) -> Self {
        let items: Vec<A> = paged.items.iter().map(render).collect();
        let pagination = Pagination {
            page: page.page.into(),
            per_page: page.per_page.into(),
            total: paged.total,
            total_pages: paged.total_pages(page.per_page),
            total_is_minimum: paged.total_is_minimum,
        };
        Self { status: 200, content: Content::Json(begun(&items), Some(pagination)) }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The bytes of a body that is JSON or nothing.
    pub fn into_body(self, request_id: &str) -> Vec<u8> {
        match self.content {
            Content::Json(text, pagination) => {
                finished(text, request_id, pagination.map(|pagination| ("pagination", json!(pagination))))
            }
            Content::Nothing | Content::File(..) => Vec::new(),
        }
    }

    /// The whole response.
    pub fn into_response(self, request_id: &str) -> Response<Body> {
        let Content::File(media_type, name, body) = self.content else {
            return respond(self.status, self.into_body(request_id), request_id);
        };
        let mut response = respond(self.status, Bytes::new(), request_id);
        *response.body_mut() = body;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        // What is in it comes from whomever.
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        let attached = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
        headers.insert("content-disposition", attached.expect("the name of a file is ours, and ASCII"));
        response
    }
}

/// A body as far as its data.
fn begun(data: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::with_capacity(USUAL_BODY);
    text.extend_from_slice(b"{\"data\":");
    serde_json::to_writer(&mut text, data).expect("our own structures serialise: string keys, no foreign code");
    text
}

/// A body to its end.
fn finished(mut text: Vec<u8>, request_id: &str, extra: impl IntoIterator<Item = (&'static str, Value)>) -> Vec<u8> {
    let begin =
        concat!(",\"meta\":{\"version\":\"", env!("CARGO_PKG_VERSION"), "\",\"api_version\":\"v1\",\"request_id\":\"");
    let datetime = "\",\"datetime\":{\"timezone\":\"UTC\",\"format\":\"ISO 8601\"}";
    for part in [begin, request_id, datetime] {
        text.extend_from_slice(part.as_bytes());
    }
    for (name, value) in extra {
        // Into memory, which does not fail.
        let _ = write!(text, ",\"{name}\":{value}");
    }
    text.extend_from_slice(b"}}");
    text
}

/// The bytes of a refusal's body.
pub fn error_body(error: &ApiError, info: &RequestInfo) -> Vec<u8> {
    let errors = error.errors(info.language);
    finished([b"{\"errors\":", errors.as_bytes()].concat(), &info.id, error.meta())
}

/// A refusal as a response.
pub fn refuse(error: &ApiError, info: &RequestInfo) -> Response<Body> {
    let mut response = respond(error.status(), error_body(error, info), &info.id);
    error.add_headers(response.headers_mut());
    response
}

/// A response with JSON, or without a body where there is none.
pub fn respond(status: u16, body: impl Into<Bytes>, request_id: &str) -> Response<Body> {
    let body = body.into();
    let has_body = !body.is_empty();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a code and an answer have a status of HTTP");
    let headers = response.headers_mut();
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, HeaderValue::from_str(request_id).expect("a request's id is hexadecimal digits"));
    response
}

/// A response that is not JSON.
pub fn plain(status: u16, text: impl Into<Bytes>, content_type: &'static str) -> Response<Body> {
    let mut response = respond(status, text, "");
    response.headers_mut().remove(X_REQUEST_ID);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A time as the contract writes it.
pub fn time(at: Timestamp) -> String {
    at.to_string()
}
