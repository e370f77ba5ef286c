//! The HTTP service: brings each request to the call or the page that it names, within the middleware.

use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use axum::http::header::HOST;
use axum::http::{HeaderMap, Request, Response, StatusCode, Version};
use axum::routing::get;
use axum::{Extension, Router};
use tower_service::Service as _;

use super::dispatch::{RouteList, RouteTable};
use super::envelope::{RequestInfo, error_body, plain, refuse};
use super::error::{ApiError, Code, Language};
use super::health::{healthz, metrics, readyz};
use super::middleware::observe;
use super::origin::{self, Network, Peer, is_trusted};
use super::pipeline::{CallContext, serve};
use super::routes::{route_list, routes};
use super::slots::Slot;
use super::{Api, openapi};

/// What answers every request.
#[derive(Clone)]
pub struct HttpService {
    api: Api,
    routes: RouteTable,
    router: Router,
}

impl HttpService {
    /// The whole server: calls, health and metrics, and `pages`, which include `/`.
    pub fn whole(api: Api, pages: Router<Api>) -> Self {
        Self::of(route_list(), pages.route("/openapi.json", get(document)), api)
    }

    /// What a process serves that only delivers: its health.
    pub fn health(api: Api) -> Self {
        Self::of(RouteList::default(), Router::new(), api)
    }

    /// What the listener of `metrics_listen` serves.
    pub fn metrics(api: Api) -> Self {
        Self::with_fallbacks(RouteList::default(), Router::new().route("/metrics", get(metrics)), api)
    }

    fn of(route_list: RouteList, router: Router<Api>, api: Api) -> Self {
        let router = router.route("/healthz", get(healthz)).route("/readyz", get(readyz));
        let metrics_apart = api.settings.metrics_apart;
        let router = if metrics_apart { router } else { router.route("/metrics", get(metrics)) };
        Self::with_fallbacks(route_list, router, api)
    }

    fn with_fallbacks(route_list: RouteList, router: Router<Api>, api: Api) -> Self {
        let router = router.fallback(not_found).method_not_allowed_fallback(method_not_allowed).with_state(api.clone());
        Self { api, routes: route_list.by_path(), router }
    }

    /// Answers a request that has come over a connection with `peer`.
    pub fn answer(&self, request: Request<Body>, peer: Peer) -> impl Future<Output = Response<Body>> + use<> {
        let service = self.clone();
        observe(self.api.clone(), request, move |request, info| service.routed(request, info, peer))
    }

    async fn routed(mut self, mut request: Request<Body>, info: RequestInfo, peer: Peer) -> Response<Body> {
        if !names_host(&request) {
            return refuse(&Code::InvalidRequest.into(), &info);
        }
        let _slot = match self.api.forwarded_slot(peer, request.headers()) {
            Ok(slot) => slot,
            Err(refusal) => return refuse(&refusal, &info),
        };
        match self.routes.find(request.method(), request.uri().path()) {
            Some(Ok(found)) => {
                let context = CallContext { info, peer: Some(peer), caller: None };
                Box::pin(serve(self.api, found, context, request)).await
            }
            Some(Err(refusal)) => refuse(&refusal, &info),
            None => {
                request.extensions_mut().insert(info);
                request.extensions_mut().insert(peer);
                match self.router.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        }
    }
}

/// Whether a request names its host as HTTP/1.1 asks for: once (RFC 9112, section 3.2). One of HTTP/1.0 may name none.
fn names_host(request: &Request<Body>) -> bool {
    match request.headers().get_all(HOST).iter().count() {
        0 => request.version() == Version::HTTP_10,
        named => named == 1,
    }
}

impl Api {
    /// A slot for a request that a trusted proxy has forwarded, counted by the address that it tells of. The
    /// connections of a proxy carry many clients' requests, so that those are counted and not these.
    fn forwarded_slot(&self, Peer(peer): Peer, headers: &HeaderMap) -> Result<Option<Slot<Network>>, ApiError> {
        let changing = self.changing.read();
        let trusted = &changing.trusted_proxies;
        if !is_trusted(peer, trusted) {
            origin::warn_of_forwarded(peer, headers);
            return Ok(None);
        }
        let client = origin::client(peer, headers, trusted);
        if is_trusted(client, trusted) {
            return Ok(None);
        }
        let most = changing.requests_per_forwarded_address;
        let slot = self.forwarded.take(Network::of(client), (usize::MAX, most));
        slot.map(Some).ok_or_else(|| ApiError::busy("this address has as many requests under way as it may have"))
    }
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
        "For machines: /openapi.json, /healthz, /readyz, /metrics, /egress.\n",
    );
    plain(200, text.to_owned(), "text/plain; charset=utf-8")
}

/// `GET /openapi.json`: the document, made once.
async fn document() -> Response<Body> {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi::document(&routes()).to_string().into());
    // The bytes are shared, so a slow client costs no memory.
    plain(200, DOCUMENT.clone(), "application/json")
}

/// The answer for an unknown path.
pub async fn not_found(Extension(info): Extension<RequestInfo>) -> Response<Body> {
    refuse(&Code::NotFound.into(), &info)
}

/// A known path, another method. The framework adds `Allow`.
async fn method_not_allowed(Extension(info): Extension<RequestInfo>) -> Response<Body> {
    refuse(&Code::MethodNotAllowed.into(), &info)
}

/// The whole answer, head and body, to what could not be read as a request, and to a connection that is one too many.
pub fn unreadable(api: &Api, status: u16) -> Vec<u8> {
    let (code, error) = match status {
        414 => (Code::UriTooLong, Code::UriTooLong.into()),
        431 => (Code::HeadersTooLarge, Code::HeadersTooLarge.into()),
        503 => {
            (Code::Unavailable, ApiError::busy("your network has as many connections as it may have, or all are taken"))
        }
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
