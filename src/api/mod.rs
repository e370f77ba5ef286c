//! The HTTP API: the whole surface is [`Front::whole`], on one screen.
//!
//! `dispatch` finds a call by its path, `call` is the way through the door, `envelope` and `error` the shape of answers,
//! `auth`, `limits` and `idempotency` what they are named after; the other files mirror the URLs.

mod accounts;
mod audit;
mod auth;
mod beside;
mod bodies;
mod call;
mod client_fields;
mod code;
mod confirmation;
mod deliveries;
mod device;
mod dispatch;
mod envelope;
mod error;
mod event_types;
mod events;
mod export;
mod fields;
mod forms;
mod hashing;
mod idempotency;
mod inside;
mod limits;
mod memberships;
pub mod openapi;
mod origin;
mod people;
mod portal;
mod replays;
mod slots;
mod statistics;
mod trace;
mod tries;
mod users;
mod webhook_fields;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response};
use axum::routing::get;
use tokio::sync::Semaphore;
use tower_service::Service as _;

use crate::clock::{Clock, Random};
use crate::domain::id::{AccountId, EndpointKey};
use crate::domain::permission::Permission as P;
use crate::domain::retention::Retention;
use crate::domain::url::Environment;
use crate::egress::Egress;
use crate::metrics::Metrics;
use crate::permits::Permits;
use crate::store::{Accounts, Store};
use bodies::{BodyBudget, Bounds};
use call::{Call, Context, Door, For};
use dispatch::{Calls, Surface};
use envelope::{Answer, refuse};
use hashing::Hashing;
use openapi::{Body, Description, calls};
use slots::{Slot, Slots};

pub(crate) use accounts::{CreateAccount, CreateApiKey, UpdateAccount};
pub use auth::Caller;
pub use beside::{not_found, root, unreadable};
pub use confirmation::{Confirmation, Enrolment};
pub use device::KNOWN_DEVICE_SECONDS;
pub use envelope::RequestInfo;
pub use error::{ApiError, Code, Language};
pub use event_types::Schemas;
pub(crate) use event_types::{CreateEventType, UpdateEventType};
pub(crate) use fields::RequestBody;
pub use forms::Form;
pub use inside::{Asked, Inside};
pub use limits::{Bucket, RateLimit, RateLimits};
pub use memberships::{Offer, SignedIn, hash_for_address, hash_password};
pub use openapi::Route;
pub use origin::{Network, Peer, base, is_trusted};
pub use people::{Doorstep, Invited, Opened, Portal, Sessions, SignInRefused, Typed, Visitor, Welcome};
pub(crate) use replays::ReplayEvents;
pub use trace::{Traced, current_request};
pub(crate) use users::{InviteUser, UpdateUser};
pub(crate) use webhook_fields::{CreateWebhook, RegenerateSecret, UpdateWebhook};

/// The methods, as the surface below writes them.
const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;

/// The settings that the API looks at.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What receiver URLs may be.
    pub environment: Environment,
    /// The name under which deliveries go out.
    pub brand: String,
    /// Before every new API key.
    pub key_prefix: String,
    /// Largest body, in bytes.
    pub max_body: usize,
    /// Rate limits.
    pub rate_limits: RateLimits,
    /// How long the history is kept, where an account has no retention of its own.
    pub retention: Retention,
    /// Whose word on where a request comes from is taken.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Requests at once of each address that trusted proxies tell of.
    pub requests_per_forwarded_address: usize,
    /// Test sends at once, in all and to one endpoint.
    pub max_tests: (usize, usize),
    /// How people reach the server, such as `https://hooks.example.com`; otherwise as the request says.
    pub public_url: Option<String>,
    /// How long people stay signed in.
    pub sessions: Sessions,
    /// Who is let in by a link without a password: `aldaba dev` only.
    pub welcome: Option<Welcome>,
    /// Whether `/metrics` has a listener of its own, and is not served beside the API.
    pub metrics_apart: bool,
}

/// For how long a browser that has seen the header speaks TLS only: a year.
const HSTS: &str = "max-age=31536000";

impl Settings {
    /// `Strict-Transport-Security` (RFC 6797), where people reach the server over TLS.
    fn hsts(&self) -> Option<HeaderValue> {
        let is_https = self.public_url.as_deref().is_some_and(|url| url.starts_with("https://"));
        is_https.then(|| HeaderValue::from_static(HSTS))
    }
}

/// What every handler can reach. Clones share it.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

/// The parts of the API.
pub struct Parts {
    store: Store,
    egress: Egress,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
    settings: Settings,
    limiter: limits::RateLimiter,
    in_flight: idempotency::InFlight,
    request_ids: envelope::RequestIds,
    key_uses: auth::KeyUses,
    schemas: event_types::Schemas,
    tests: Slots<EndpointKey>,
    test_shares: Permits<AccountId>,
    exports: Slots<Option<AccountId>>,
    hashing: Hashing,
    bodies: BodyBudget<Option<AccountId>>,
    forms: BodyBudget<Option<Network>>,
    notes: Arc<Semaphore>,
    forwarded: Slots<Network>,
}

impl std::ops::Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Api {
    /// An API on this store, with this way out for checks and test sends.
    pub fn new(
        store: Store,
        egress: Egress,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
        settings: Settings,
    ) -> Self {
        Self(Arc::new(Parts {
            limiter: limits::RateLimiter::new(settings.rate_limits.clone()),
            in_flight: idempotency::InFlight::default(),
            request_ids: envelope::RequestIds::starting_at(u64::from_le_bytes(random.array())),
            key_uses: auth::KeyUses::default(),
            schemas: event_types::Schemas::default(),
            tests: Slots::default(),
            test_shares: Permits::new(settings.max_tests.0),
            exports: Slots::default(),
            hashing: Hashing::default(),
            bodies: BodyBudget::new(Bounds::CALLS),
            forms: BodyBudget::new(Bounds::FORMS),
            notes: Arc::new(Semaphore::new(tries::MAX_NOTES)),
            forwarded: Slots::default(),
            store,
            egress,
            clock,
            random,
            metrics,
            settings,
        }))
    }

    /// A slot for a request that a trusted proxy has forwarded, counted by the address that it tells of. The connections of a
    /// proxy carry many clients' requests, so that those are counted and not these.
    fn forwarded_slot(&self, Peer(peer): Peer, headers: &HeaderMap) -> Result<Option<Slot<Network>>, ApiError> {
        let trusted = &self.settings.trusted_proxies;
        if !is_trusted(peer, trusted) {
            origin::warn_of_forwarded(peer, headers);
            return Ok(None);
        }
        let client = origin::client(peer, headers, trusted);
        if is_trusted(client, trusted) {
            return Ok(None);
        }
        let most = self.settings.requests_per_forwarded_address;
        let slot = self.forwarded.take(Network::of(client), (usize::MAX, most));
        slot.map(Some).ok_or_else(|| ApiError::busy("this address has as many requests under way as it may have"))
    }

    /// Writes down when keys were last used.
    pub async fn flush_key_uses(&self) {
        let uses = self.key_uses.take();
        if uses.is_empty() {
            return;
        }
        if let Err(error) = self.store.record_key_use(uses).await {
            tracing::warn!(%error, "the last use of keys could not be written");
        }
    }
}

impl Surface {
    fn call<H, F>(
        self,
        method: Method,
        path: &'static str,
        (bucket, permission, keys): (Bucket, P, For),
        handler: H,
        description: &'static Description,
    ) -> Self
    where
        H: Fn(Call) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Answer, ApiError>> + Send + 'static,
    {
        let door = Door { bucket, permission, keys, batch: matches!(description.body, Body::Batch(..)) };
        self.with(Route { method, path, door, description }, handler)
    }
}

/// Every call.
#[rustfmt::skip]
fn surface() -> Surface {
    use Bucket as B;
    use For::{Account, Both, Operator};
    Surface::default()
        .call(GET, "/v1/webhooks", (B::WebhooksList, P::WebhooksRead, Account), webhooks::list, &calls::LIST_WEBHOOKS)
        .call(POST, "/v1/webhooks", (B::WebhooksWrite, P::WebhooksCreate, Account), webhooks::create, &calls::CREATE_WEBHOOK)
        .call(GET, "/v1/webhooks/{id}", (B::WebhooksRead, P::WebhooksRead, Account), webhooks::read, &calls::GET_WEBHOOK)
        .call(PUT, "/v1/webhooks/{id}", (B::WebhooksWrite, P::WebhooksUpdate, Account), webhooks::update, &calls::UPDATE_WEBHOOK)
        .call(DELETE, "/v1/webhooks/{id}", (B::WebhooksWrite, P::WebhooksDelete, Account), webhooks::delete, &calls::DELETE_WEBHOOK)
        .call(POST, "/v1/webhooks/{id}/regenerate-secret", (B::WebhooksWrite, P::WebhooksUpdate, Account), webhooks::regenerate_secret, &calls::REGENERATE_SECRET)
        .call(POST, "/v1/webhooks/{id}/test", (B::WebhooksTest, P::WebhooksUpdate, Account), webhooks::test, &calls::TEST_WEBHOOK)
        .call(GET, "/v1/webhooks/{id}/deliveries", (B::DeliveriesList, P::WebhooksRead, Account), deliveries::of_endpoint, &calls::LIST_WEBHOOK_DELIVERIES)
        .call(GET, "/v1/webhooks/{id}/deliveries/export", (B::DeliveriesExport, P::WebhooksRead, Account), deliveries::export_of_endpoint, &calls::EXPORT_WEBHOOK_DELIVERIES)
        .call(GET, "/v1/webhooks/statistics", (B::WebhooksRead, P::WebhooksRead, Account), statistics::read, &calls::GET_STATISTICS)
        .call(GET, "/v1/webhooks/deliveries", (B::DeliveriesList, P::WebhooksRead, Account), deliveries::of_account, &calls::LIST_DELIVERIES)
        .call(GET, "/v1/webhooks/deliveries/export", (B::DeliveriesExport, P::WebhooksRead, Account), deliveries::export_of_account, &calls::EXPORT_DELIVERIES)
        .call(GET, "/v1/webhooks/deliveries/{id}", (B::DeliveriesRead, P::WebhooksRead, Account), deliveries::read, &calls::GET_DELIVERY)
        .call(POST, "/v1/webhooks/deliveries/{id}/retry", (B::DeliveriesRetry, P::WebhooksUpdate, Account), deliveries::retry, &calls::RETRY_DELIVERY)
        .call(POST, "/v1/webhooks/{id}/replay", (B::DeliveriesRetry, P::WebhooksUpdate, Account), replays::create, &calls::REPLAY)
        .call(GET, "/v1/webhooks/replays/{id}", (B::DeliveriesRead, P::WebhooksRead, Account), replays::read, &calls::GET_REPLAY)
        .call(DELETE, "/v1/webhooks/replays/{id}", (B::DeliveriesRetry, P::WebhooksUpdate, Account), replays::cancel, &calls::CANCEL_REPLAY)
        .call(GET, "/v1/webhooks/{id}/missed", (B::DeliveriesRead, P::WebhooksRead, Account), replays::missed, &calls::GET_MISSED)
        .call(POST, "/v1/events", (B::EventsCreate, P::EventsCreate, Both), events::publish, &calls::PUBLISH_EVENT)
        .call(POST, "/v1/events/batch", (B::EventsCreate, P::EventsCreate, Both), events::publish_batch, &calls::PUBLISH_EVENTS)
        .call(GET, "/v1/events", (B::EventsRead, P::EventsRead, Account), events::list, &calls::LIST_EVENTS)
        .call(GET, "/v1/events/{id}", (B::EventsRead, P::EventsRead, Account), events::read_one, &calls::GET_EVENT)
        .call(GET, "/v1/event-types", (B::EventTypesRead, P::EventTypesRead, Both), event_types::list, &calls::LIST_EVENT_TYPES)
        .call(POST, "/v1/event-types", (B::EventTypesWrite, P::EventTypesWrite, Operator), event_types::create, &calls::CREATE_EVENT_TYPE)
        .call(PUT, "/v1/event-types/{name}", (B::EventTypesWrite, P::EventTypesWrite, Operator), event_types::update, &calls::UPDATE_EVENT_TYPE)
        .call(DELETE, "/v1/event-types/{name}", (B::EventTypesWrite, P::EventTypesWrite, Operator), event_types::delete, &calls::DELETE_EVENT_TYPE)
        .call(GET, "/v1/accounts", (B::AccountsRead, P::AccountsRead, Both), accounts::list, &calls::LIST_ACCOUNTS)
        .call(POST, "/v1/accounts", (B::AccountsWrite, P::AccountsWrite, Operator), accounts::create, &calls::CREATE_ACCOUNT)
        .call(GET, "/v1/accounts/{id}", (B::AccountsRead, P::AccountsRead, Both), accounts::read, &calls::GET_ACCOUNT)
        .call(PUT, "/v1/accounts/{id}", (B::AccountsWrite, P::AccountsWrite, Both), accounts::update, &calls::UPDATE_ACCOUNT)
        .call(DELETE, "/v1/accounts/{id}", (B::AccountsWrite, P::AccountsWrite, Operator), accounts::delete, &calls::DELETE_ACCOUNT)
        .call(GET, "/v1/accounts/{id}/api-keys", (B::ApiKeysRead, P::ApiKeysRead, Both), accounts::list_keys, &calls::LIST_API_KEYS)
        .call(POST, "/v1/accounts/{id}/api-keys", (B::ApiKeysWrite, P::ApiKeysWrite, Both), accounts::create_key, &calls::CREATE_API_KEY)
        .call(DELETE, "/v1/accounts/{id}/api-keys/{key_id}", (B::ApiKeysWrite, P::ApiKeysWrite, Both), accounts::delete_key, &calls::DELETE_API_KEY)
        .call(GET, "/v1/accounts/{id}/users", (B::UsersRead, P::UsersRead, Both), users::list, &calls::LIST_USERS)
        .call(POST, "/v1/accounts/{id}/users", (B::UsersWrite, P::UsersWrite, Both), users::invite, &calls::INVITE_USER)
        .call(GET, "/v1/accounts/{id}/users/{user_id}", (B::UsersRead, P::UsersRead, Both), users::read, &calls::GET_USER)
        .call(PUT, "/v1/accounts/{id}/users/{user_id}", (B::UsersWrite, P::UsersWrite, Both), users::update, &calls::UPDATE_USER)
        .call(DELETE, "/v1/accounts/{id}/users/{user_id}", (B::UsersWrite, P::UsersWrite, Both), users::delete, &calls::DELETE_USER)
        .call(POST, "/v1/accounts/{id}/users/{user_id}/invitation", (B::UsersWrite, P::UsersWrite, Both), users::invite_again, &calls::RENEW_INVITATION)
        .call(POST, "/v1/accounts/{id}/portal-links", (B::PortalLinks, P::PortalLinksCreate, Operator), portal::create, &calls::CREATE_PORTAL_LINK)
        .call(GET, "/v1/accounts/{id}/portal-links", (B::PortalLinks, P::PortalLinksRead, Both), portal::list, &calls::LIST_PORTAL_LINKS)
        .call(DELETE, "/v1/accounts/{id}/portal-links/{link_id}", (B::PortalLinks, P::PortalLinksDelete, Both), portal::delete, &calls::DELETE_PORTAL_LINK)
        .call(GET, "/v1/audit-log", (B::AuditRead, P::AuditRead, Both), audit::list, &calls::LIST_AUDIT_LOG)
        .call(GET, "/v1/audit-log/export", (B::AuditRead, P::AuditRead, Both), audit::export, &calls::EXPORT_AUDIT_LOG)
}

/// What is known of every call, in the order of the reference.
pub fn routes() -> Vec<Route> {
    surface().routes()
}

/// What answers every request.
#[derive(Clone)]
pub struct Front {
    api: Api,
    calls: Calls,
    router: Router,
}

impl Front {
    /// The whole server: the calls, and what stands beside them; `pages` are those for people, with `/` among them.
    pub fn whole(api: Api, pages: Router<Api>) -> Self {
        Self::of(surface(), pages.route("/openapi.json", get(beside::openapi)), api)
    }

    /// What a process serves that only delivers: how it is doing.
    pub fn health(api: Api) -> Self {
        Self::of(Surface::default(), Router::new(), api)
    }

    /// What the listener of `metrics_listen` serves.
    pub fn metrics(api: Api) -> Self {
        Self::with_fallbacks(Surface::default(), Router::new().route("/metrics", get(beside::metrics)), api)
    }

    fn of(surface: Surface, router: Router<Api>, api: Api) -> Self {
        let router = router.route("/healthz", get(beside::healthz)).route("/readyz", get(beside::readyz));
        let metrics_apart = api.settings.metrics_apart;
        let router = if metrics_apart { router } else { router.route("/metrics", get(beside::metrics)) };
        Self::with_fallbacks(surface, router, api)
    }

    fn with_fallbacks(surface: Surface, router: Router<Api>, api: Api) -> Self {
        let router = router
            .fallback(beside::not_found)
            .method_not_allowed_fallback(beside::method_not_allowed)
            .with_state(api.clone());
        Self { api, calls: surface.by_path(), router }
    }

    /// Answers a request that has come over a connection with `peer`.
    pub fn answer(&self, request: Request<HttpBody>, peer: Peer) -> impl Future<Output = Response<HttpBody>> + use<> {
        let front = self.clone();
        beside::observe(self.api.clone(), request, move |request, info| front.routed(request, info, peer))
    }

    async fn routed(mut self, mut request: Request<HttpBody>, info: RequestInfo, peer: Peer) -> Response<HttpBody> {
        let _slot = match self.api.forwarded_slot(peer, request.headers()) {
            Ok(slot) => slot,
            Err(refusal) => return refuse(&refusal, &info),
        };
        match self.calls.find(request.method(), request.uri().path()) {
            Some(Ok(found)) => {
                let context = Context { info, peer: Some(peer), caller: None };
                Box::pin(call::serve(self.api, found, context, request)).await
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
