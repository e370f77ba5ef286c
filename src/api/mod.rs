//! The HTTP API: the whole surface is [`router`], on one screen.
//!
//! `call` is the way through the door, `envelope` and `error` the shape of answers, `auth`, `limits` and `idempotency`
//! what they are named after; the other files mirror the URLs.

mod accounts;
mod auth;
mod call;
mod deliveries;
mod envelope;
mod error;
mod event_types;
mod events;
mod idempotency;
mod limits;
mod pages;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::routing::{delete, get, post, put};

use crate::clock::{Clock, Random};
use crate::domain::permission::Permission as P;
use crate::domain::url::Environment;
use crate::egress::Egress;
use crate::metrics::Metrics;
use crate::store::Store;
use call::{Call, Door, For};
use envelope::Answer;
use error::ApiError;

pub use error::Code;
pub use event_types::Schemas;
pub use limits::{Bucket, RateLimit, RateLimits};

/// The settings that the API looks at.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What receiver URLs may be.
    pub environment: Environment,
    /// Before every new API key.
    pub key_prefix: String,
    /// Largest body, in bytes.
    pub max_body: usize,
    /// Rate limits.
    pub rate_limits: RateLimits,
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
    key_uses: auth::KeyUses,
    schemas: event_types::Schemas,
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
            key_uses: auth::KeyUses::default(),
            schemas: event_types::Schemas::default(),
            store,
            egress,
            clock,
            random,
            metrics,
            settings,
        }))
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

/// A method's handler behind its door.
fn at<H, F>(bucket: Bucket, permission: P, keys: For, handler: H) -> impl Handler<((),), Api>
where
    H: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Answer, ApiError>> + Send + 'static,
{
    behind(Door { bucket, permission, keys, batch: false }, handler)
}

/// The same for a body as large as a batch.
fn at_batch<H, F>(bucket: Bucket, permission: P, keys: For, handler: H) -> impl Handler<((),), Api>
where
    H: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Answer, ApiError>> + Send + 'static,
{
    behind(Door { bucket, permission, keys, batch: true }, handler)
}

fn behind<H, F>(door: Door, handler: H) -> Entrance<H>
where
    H: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Answer, ApiError>> + Send + 'static,
{
    Entrance { door, handler }
}

#[derive(Clone)]
struct Entrance<H> {
    door: Door,
    handler: H,
}

impl<H, F> Handler<((),), Api> for Entrance<H>
where
    H: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Answer, ApiError>> + Send + 'static,
{
    type Future = std::pin::Pin<Box<dyn Future<Output = axum::response::Response> + Send>>;

    fn call(self, request: Request, api: Api) -> Self::Future {
        Box::pin(call::serve(api, self.door, request, self.handler))
    }
}

/// Every route. See `docs/` for what each answers.
#[rustfmt::skip]
pub fn router(api: Api) -> Router {
    use Bucket as B;
    use For::{Account, Both, Operator};
    Router::new()
        .route("/v1/webhooks",
            get(at(B::WebhooksList, P::WebhooksRead, Account, webhooks::list))
            .post(at(B::WebhooksWrite, P::WebhooksCreate, Account, webhooks::create)))
        .route("/v1/webhooks/{id}",
            get(at(B::WebhooksRead, P::WebhooksRead, Account, webhooks::read))
            .put(at(B::WebhooksWrite, P::WebhooksUpdate, Account, webhooks::update))
            .delete(at(B::WebhooksWrite, P::WebhooksDelete, Account, webhooks::delete)))
        .route("/v1/webhooks/{id}/regenerate-secret",
            post(at(B::WebhooksWrite, P::WebhooksUpdate, Account, webhooks::regenerate_secret)))
        .route("/v1/webhooks/{id}/test",
            post(at(B::WebhooksTest, P::WebhooksUpdate, Account, webhooks::test)))
        .route("/v1/webhooks/{id}/deliveries",
            get(at(B::DeliveriesList, P::WebhooksRead, Account, deliveries::of_endpoint)))
        .route("/v1/webhooks/deliveries",
            get(at(B::DeliveriesList, P::WebhooksRead, Account, deliveries::of_account)))
        .route("/v1/events",
            get(at(B::EventsRead, P::EventsRead, Account, events::list))
            .post(at(B::EventsCreate, P::EventsCreate, Both, events::publish)))
        .route("/v1/events/batch",
            post(at_batch(B::EventsCreate, P::EventsCreate, Both, events::publish_batch)))
        .route("/v1/events/{id}",
            get(at(B::EventsRead, P::EventsRead, Account, events::read_one)))
        .route("/v1/event-types",
            get(at(B::EventTypesRead, P::EventTypesRead, Both, event_types::list))
            .post(at(B::EventTypesWrite, P::EventTypesWrite, Operator, event_types::create)))
        .route("/v1/event-types/{name}",
            put(at(B::EventTypesWrite, P::EventTypesWrite, Operator, event_types::update))
            .delete(at(B::EventTypesWrite, P::EventTypesWrite, Operator, event_types::delete)))
        .route("/v1/accounts",
            get(at(B::AccountsRead, P::AccountsRead, Both, accounts::list))
            .post(at(B::AccountsWrite, P::AccountsWrite, Operator, accounts::create)))
        .route("/v1/accounts/{id}",
            get(at(B::AccountsRead, P::AccountsRead, Both, accounts::read))
            .put(at(B::AccountsWrite, P::AccountsWrite, Both, accounts::update))
            .delete(at(B::AccountsWrite, P::AccountsWrite, Operator, accounts::delete)))
        .route("/v1/accounts/{id}/api-keys",
            get(at(B::ApiKeysRead, P::ApiKeysRead, Both, accounts::list_keys))
            .post(at(B::ApiKeysWrite, P::ApiKeysWrite, Both, accounts::create_key)))
        .route("/v1/accounts/{id}/api-keys/{key_id}",
            delete(at(B::ApiKeysWrite, P::ApiKeysWrite, Both, accounts::delete_key)))
        .route("/healthz", get(pages::healthz))
        .route("/readyz", get(pages::readyz))
        .route("/metrics", get(pages::metrics))
        .route("/", get(pages::root))
        .fallback(pages::not_found)
        .method_not_allowed_fallback(pages::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(api.clone(), pages::observe))
        .with_state(api)
}
