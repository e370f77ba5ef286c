//! Calls of the API that pages make in process for their users: with the same checks and the same handlers.

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response};

use super::Api;
use super::answers::{self, FromAnswer, Refused};
use super::auth::Caller;
use super::dispatch::RouteTable;
use super::envelope::refuse;
use super::error::Code;
use super::origin::Peer;
use super::pipeline::{CallContext, serve};
use super::request_context::RequestContext;
use super::routes::route_list;

/// Every call of the API, to be made in process.
#[derive(Clone)]
pub struct InProcessApi {
    api: Api,
    routes: RouteTable,
}

/// A call.
pub struct InProcessCall<'a> {
    /// The method.
    pub method: Method,
    /// The path and query.
    pub address: &'a str,
    /// JSON, or nothing.
    pub body: Option<String>,
    /// The key under which the call has its effect only once.
    pub idempotency_key: Option<&'a str>,
}

impl InProcessApi {
    /// The calls of this API.
    pub fn new(api: Api) -> Self {
        Self { api, routes: route_list().by_path() }
    }

    /// Makes a call for a caller, and reads its answer.
    pub async fn read<T: FromAnswer>(
        &self,
        caller: Caller,
        context: &RequestContext,
        call: InProcessCall<'_>,
    ) -> Result<T, Refused> {
        answers::read(self.call(caller, context, call).await).await
    }

    /// Makes a call for a caller.
    pub async fn call(&self, caller: Caller, context: &RequestContext, call: InProcessCall<'_>) -> Response<Body> {
        let has_body = call.body.is_some();
        let mut request = Request::new(call.body.map_or_else(Body::empty, Body::from));
        *request.method_mut() = call.method;
        // An address that cannot be parsed reaches no handler.
        *request.uri_mut() = call.address.parse().unwrap_or_default();
        if has_body {
            request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        }
        if let Some(key) = call.idempotency_key {
            let key = HeaderValue::from_str(key).expect("a page makes its keys of hexadecimal digits");
            request.headers_mut().insert("idempotency-key", key);
        }
        if let Ok(host) = HeaderValue::from_str(context.host()) {
            request.headers_mut().insert("host", host);
        }
        let info = context.info().clone();
        let refusal = match self.routes.find(request.method(), request.uri().path()) {
            Some(Ok(found)) => {
                let context = CallContext { info, peer: context.address().map(Peer), caller: Some(caller) };
                return serve(self.api.clone(), found, context, request).await;
            }
            Some(Err(refusal)) => refusal,
            None => Code::NotFound.into(),
        };
        refuse(&refusal, &info)
    }
}
