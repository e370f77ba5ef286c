//! The API, called from inside by a page for whoever looks at it: through the same door, to the same handlers.

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response};

use super::call::{Context, serve};
use super::dispatch::Calls;
use super::envelope::refuse;
use super::error::Code;
use super::people::Doorstep;
use super::{Api, Caller, Peer, surface};

/// Every call of the API, to be made in process.
#[derive(Clone)]
pub struct Inside {
    api: Api,
    calls: Calls,
}

/// A call.
pub struct Asked<'a> {
    /// The method.
    pub method: Method,
    /// The path and query.
    pub address: &'a str,
    /// JSON, or nothing.
    pub body: Option<String>,
    /// Under which it has its effect only once.
    pub idempotency_key: Option<&'a str>,
}

impl Inside {
    /// The calls of this API.
    pub fn new(api: Api) -> Self {
        Self { api, calls: surface().by_path() }
    }

    /// Calls for somebody.
    pub async fn call(&self, caller: Caller, door: &Doorstep, asked: Asked<'_>) -> Response<Body> {
        let has_body = asked.body.is_some();
        let mut request = Request::new(asked.body.map_or_else(Body::empty, Body::from));
        *request.method_mut() = asked.method;
        // An address that is none reaches no handler.
        *request.uri_mut() = asked.address.parse().unwrap_or_default();
        if has_body {
            request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        }
        if let Some(Ok(key)) = asked.idempotency_key.map(HeaderValue::from_str) {
            request.headers_mut().insert("idempotency-key", key);
        }
        if let Ok(host) = HeaderValue::from_str(door.host()) {
            request.headers_mut().insert("host", host);
        }
        let info = door.info().clone();
        let refusal = match self.calls.find(request.method(), request.uri().path()) {
            Some(Ok(found)) => {
                let context = Context { info, peer: door.address().map(Peer), caller: Some(caller) };
                return serve(self.api.clone(), found, context, request).await;
            }
            Some(Err(refusal)) => refusal,
            None => Code::NotFound.into(),
        };
        refuse(&refusal, &info)
    }
}
