//! `/v1/webhooks`: endpoints, their secrets, test sends.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::call::ApiCall;
use super::certificate_fields::ClientCertificateAttributes;
use super::credential_fields::{AuthenticationAttributes, RepeatedNames};
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault, Words};
use super::fields::RequestBody as _;
use super::openapi::schemas::{AnyObject, EndpointStatusName, OrderingName};
use super::trace::with_current_request;
use super::webhook_fields::{CreateWebhook, EndpointContext, RegenerateSecret, UpdateWebhook};
use crate::domain::authentication::Authentication;
use crate::domain::credential::WithCredential;
use crate::domain::endpoint::{Endpoint, Ordering};
use crate::domain::event::{TEST_TYPE, message};
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, EndpointId};
use crate::domain::payload_filter::PayloadFilter;
use crate::domain::retry::RetrySchedule;
use crate::domain::secret::Secret;
use crate::domain::settings::EndpointFilter;
use crate::domain::url::ReceiverUrl;
use crate::egress::{AttemptEnd, GuardError, StoredTarget};
use crate::store::{
    Dispatch, Endpoints, Intake, NewEndpoint, Settlement, Snapshot, StoreError, Unattempted, WithSecret,
};

/// The webhook endpoint: receiver URL, subscribed events, status and secret.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Attributes {
    /// Receiver URL. In production it must use HTTPS, and its host must not resolve to a private, local or reserved
    /// address.
    #[schema(format = "uri", max_length = 2048)]
    pub url: String,
    /// Subscribed event types and wildcards.
    #[schema(min_items = 1, max_items = 10)]
    pub events: Vec<String>,
    /// Free-form label.
    #[schema(required, max_length = 255)]
    pub description: Option<String>,
    /// `fifo`: deliveries go in the order in which their events were accepted, one at a time. Only present where it is
    /// so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = OrderingName, inline)]
    pub ordering: Option<Cow<'static, str>>,
    /// Your own notes. Only present where they were set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Your own name for the endpoint. Only present where it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub external_id: Option<String>,
    /// The endpoint gets only published events that carry one of these. Only present where they were set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub channels: Option<Vec<String>>,
    /// How long an attempt may take. Only present where it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1, maximum = 120)]
    pub timeout_seconds: Option<u32>,
    /// Attempts that may be in flight at once. Only present where it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub max_in_flight: Option<u32>,
    /// Seconds between attempts. Only present where they were set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_items = 20)]
    pub retry_schedule: Option<Vec<u64>>,
    /// The endpoint gets only published events that match it. Only present where it was set, with numbers as they were
    /// written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = AnyObject, inline)]
    pub filter: Option<Box<RawValue>>,
    /// The names of headers that each request carries, each with `...` and the last 4 characters of a value of 12 or
    /// more, else `...`. Only present where they were set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub headers: Option<BTreeMap<String, String>>,
    /// How requests authenticate to the receiver, without the password, the token or the client's secret. Only present
    /// where it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = AuthenticationAttributes, inline)]
    pub authentication: Option<AuthenticationAttributes>,
    /// The certificate that connections to the receiver have. Only present where it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = ClientCertificateAttributes, inline)]
    pub client_certificate: Option<ClientCertificateAttributes>,
    /// Attempts that may begin in any period of the given length, such as `100/1m`. Only present where it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rate_limit: Option<String>,
    /// `active` receives deliveries. `disabled` was paused by its owner. `auto_disabled` was paused by the platform,
    /// after more than `webhooks.auto_disable_threshold` consecutive failures or an answer of 410.
    #[schema(value_type = EndpointStatusName, inline)]
    pub status: Cow<'static, str>,
    /// Failed attempts since the last success.
    pub consecutive_failures: u32,
    /// Time of the last attempt, whatever its outcome; `null` before the first.
    #[schema(required, format = DateTime)]
    pub last_delivery_at: Option<String>,
    /// Shared secret for verifying signatures: 64 lowercase hex characters, or the one that you brought. Only present
    /// in the answers that create or rotate it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_length = 24, max_length = 128)]
    pub secret: Option<String>,
    /// `...` and the last 4 characters of the secret. Present wherever the secret is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub secret_hint: Option<String>,
    /// When it was registered.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    pub updated_at: String,
}

/// After a test's outcome could not be written it is tried again; in the end the next start sends the test once more.
const SETTLE_RETRY_DELAYS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// An endpoint with its secret, in the one answer that shows it, or with the hint.
fn resource(endpoint: &Endpoint, secret: Option<&Secret>) -> Resource<Attributes> {
    Resource {
        r#type: "webhook_endpoint".into(),
        id: endpoint.id.to_string(),
        attributes: Attributes {
            url: endpoint.settings.url.clone(),
            events: endpoint.settings.events.clone(),
            description: endpoint.settings.description.clone(),
            ordering: (endpoint.settings.ordering != Ordering::None).then(|| endpoint.settings.ordering.name().into()),
            metadata: endpoint.settings.metadata.as_ref().map(|metadata| metadata.strings().clone()),
            external_id: endpoint.settings.external_id.as_ref().map(ToString::to_string),
            channels: endpoint.settings.channels.as_ref().map(|channels| channels.names().to_vec()),
            timeout_seconds: endpoint.settings.timeout_seconds,
            max_in_flight: endpoint.settings.max_in_flight,
            retry_schedule: endpoint.settings.retry_schedule.as_ref().map(RetrySchedule::seconds),
            filter: endpoint.settings.filter.as_ref().map(shown_filter),
            headers: endpoint.settings.credentials.headers.as_ref().map(|headers| headers.masks().clone()),
            authentication: endpoint.settings.credentials.authentication.as_ref().map(AuthenticationAttributes::from),
            client_certificate: endpoint
                .settings
                .credentials
                .client_certificate
                .as_ref()
                .map(ClientCertificateAttributes::from),
            rate_limit: endpoint.settings.rate_limit.as_ref().map(ToString::to_string),
            status: endpoint.health.status.name().into(),
            consecutive_failures: endpoint.health.consecutive_failures,
            last_delivery_at: endpoint.last_delivery_at.map(time),
            secret: secret.map(|secret| secret.reveal().to_owned()),
            secret_hint: secret.is_none().then(|| endpoint.secret_hint.clone()),
            created_at: time(endpoint.created_at),
            updated_at: time(endpoint.updated_at),
        },
    }
}

/// A filter with the digits of its client.
fn shown_filter(filter: &PayloadFilter) -> Box<RawValue> {
    RawValue::from_string(filter.as_json().to_owned()).expect("a filter is JSON")
}

/// `GET /v1/webhooks`
pub async fn list(call: ApiCall) -> Result<Answer, ApiError> {
    let filter = EndpointFilter::read(&call.query()).map_err(|names| ApiError::of_filters(names, allowed))?;
    let endpoints = call.api.store.endpoints(call.account()?).await?;
    let shown = endpoints.iter().filter(|endpoint| filter.takes(&endpoint.settings));
    let resources: Vec<_> = shown.map(|endpoint| resource(endpoint, None)).collect();
    Ok(Answer::new(200, &resources))
}

/// What a filter of the list takes.
fn allowed(name: &str) -> Words {
    match name {
        "external_id" => Words::new("external_id takes an external id", "external_id admite un id externo"),
        _ => Words::new(
            "metadata.<key> takes a key of 1 to 64 letters, digits, hyphens or underscores",
            "metadata.<key> admite una clave de 1 a 64 letras, dígitos, guiones o guiones bajos",
        ),
    }
}

/// `GET /v1/webhooks/{id}`
pub async fn read(call: ApiCall) -> Result<Answer, ApiError> {
    let endpoint = find(&call).await?;
    Ok(Answer::new(200, &resource(&endpoint, None)))
}

/// `POST /v1/webhooks`
pub async fn create(call: ApiCall) -> Result<Answer, ApiError> {
    let account = call.account()?;
    let body = call.json_with_text("filter")?;
    let repeated = RepeatedNames::of(&call.json_bytes()?);
    let new = new_endpoint(&call.api, account, &body, repeated, Vec::new()).await?;
    let pending_reply =
        call.pending_reply(|made: &WithSecret<Endpoint>| Answer::new(201, &resource(&made.resource, None)));
    let made = call.store().create_endpoint(account, new, pending_reply).await?;
    Ok(Answer::new(201, &resource(&made.resource, Some(&made.secret))))
}

/// Reads a new endpoint of the account with every check that comes before the database. It may subscribe to `types`
/// too, which the catalog does not have. A `filter` stands in the body as its text (`ApiCall::json_with_text`).
pub async fn new_endpoint(
    api: &Api,
    account: AccountId,
    body: &Map<String, Value>,
    repeated: RepeatedNames,
    types: Vec<String>,
) -> Result<NewEndpoint, ApiError> {
    let new = CreateWebhook::read_whole(body, &context(api, types, repeated).await?)?;
    check_addresses(api, account, Some(&new.url), new.authentication.as_ref()).await?;
    Ok(new.endpoint())
}

/// `PUT /v1/webhooks/{id}`
pub async fn update(call: ApiCall) -> Result<Answer, ApiError> {
    let endpoint = find(&call).await?;
    let body = call.json_with_text("filter")?;
    let repeated = RepeatedNames::of(&call.json_bytes()?);
    let context = context(&call.api, endpoint.settings.events.clone(), repeated).await?;
    let change = UpdateWebhook::read_whole(&body, &context, &endpoint.settings)?;
    let authentication = change.authentication.as_ref().and_then(Option::as_ref);
    check_addresses(&call.api, call.account()?, change.url.as_ref(), authentication).await?;
    let endpoint = call.store().update_endpoint(call.account()?, endpoint.id, change.change()).await?;
    Ok(Answer::new(200, &resource(&endpoint, None)))
}

/// `DELETE /v1/webhooks/{id}`
pub async fn delete(call: ApiCall) -> Result<Answer, ApiError> {
    let id = endpoint_id(&call).await?;
    call.store().delete_endpoint(call.account()?, id).await?;
    Ok(Answer::no_content())
}

/// `POST /v1/webhooks/{id}/regenerate-secret`
pub async fn regenerate_secret(call: ApiCall) -> Result<Answer, ApiError> {
    let endpoint = find(&call).await?;
    let body = call.optional_json()?;
    let RegenerateSecret { overlap_seconds, secret } = RegenerateSecret::read(&body, &())?;
    let overlap = Duration::from_secs(overlap_seconds.into());
    let pending_reply =
        call.pending_reply(|rotated: &WithSecret<Endpoint>| Answer::new(200, &resource(&rotated.resource, None)));
    let rotated = call.store().rotate_secret(call.account()?, endpoint.id, secret, overlap, pending_reply).await?;
    Ok(Answer::new(200, &resource(&rotated.resource, Some(&rotated.secret))))
}

/// What came of a test delivery.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct TestAttributes {
    /// Whether the receiver answered 2xx.
    pub delivered: bool,
    /// The answer's HTTP status; 0 when there was no answer.
    pub http_status: u16,
    /// How long the attempt took, in milliseconds.
    pub response_time_ms: u32,
    /// What went wrong, in words; `null` when it was delivered.
    #[schema(required)]
    pub error: Option<String>,
}

/// `POST /v1/webhooks/{id}/test`
pub async fn test(call: ApiCall) -> Result<Answer, ApiError> {
    let endpoint = find(&call).await?;
    let account = call.account()?;
    call.optional_json()?;
    // In a task of its own: a client that goes away does not leave the delivery without an outcome.
    let sending = tokio::spawn(with_current_request(send_test(call, account, endpoint)));
    sending.await.map_err(|_| ApiError::from(Code::InternalError))?
}

async fn send_test(call: ApiCall, account: AccountId, endpoint: Endpoint) -> Result<Answer, ApiError> {
    let api = &call.api;
    let refused = |whose| ApiError::busy(format!("too many test deliveries of this {whose} are under way"));
    let _share = api.test_shares.try_take(account).ok_or_else(|| refused("account"))?;
    let _slot = api.tests.take(endpoint.key, api.settings.max_tests).ok_or_else(|| refused("endpoint"))?;
    let data = format!(r#"{{"message":"This is a test delivery.","endpoint_id":"{}"}}"#, endpoint.id);
    let body = message(TEST_TYPE, api.clock.now(), &data);
    let leased = api.store.open_test(account, endpoint.id, body).await?;
    let job = &leased.job;
    // A paused endpoint can be tested: that is how its owner sees whether it is well again.
    let current = StoredTarget { store: &api.store, job, requires_active: false, start: None };
    let outcome = match api.egress.attempt(job, &current).await {
        AttemptEnd::Outcome(outcome) => outcome,
        end => {
            if let AttemptEnd::LocalFault(fault) = end {
                api.metrics.attempts_local_fault_total.add(1);
                tracing::warn!("a test delivery was not sent, and no receiver is charged: {fault}");
            }
            api.store.release(vec![Unattempted::of(job)]).await?;
            // Deleted meanwhile, or the database could not say what it is now, or this machine could not send.
            api.store.endpoint(account, endpoint.id).await?;
            return Err(ApiError::from(Code::Unavailable).with_header("retry-after", 1));
        }
    };
    let result = Resource {
        r#type: "webhook_test_result".into(),
        id: job.id.to_string(),
        attributes: TestAttributes {
            delivered: outcome.error.is_none(),
            http_status: outcome.http_status.unwrap_or(0),
            response_time_ms: outcome.duration_ms,
            error: outcome.error.clone(),
        },
    };
    let answer = move || Answer::new(200, &result);
    let settlement = Settlement {
        delivery: job.id,
        endpoint: job.endpoint,
        lease: job.lease,
        kind: job.kind,
        attempts_made: 0,
        failures: 0,
        outcome,
        jitter: 0.0,
    };
    for wait in SETTLE_RETRY_DELAYS {
        let kept = answer.clone();
        match api.store.settle_test(settlement.clone(), call.pending_reply(move |(): &()| kept())).await {
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(wait).await,
            written => return Ok(written.map(|()| answer())?),
        }
    }
    Err(Code::Unavailable.into())
}

/// The id of the endpoint that the path names, by its id or by its external id.
pub(super) async fn endpoint_id(call: &ApiCall) -> Result<EndpointId, ApiError> {
    let named = call.param("id", |text| Some(text.to_owned()))?;
    if let Some(id) = EndpointId::parse(&named) {
        return Ok(id);
    }
    let external_id = ExternalId::parse(&named).ok_or(Code::NotFound)?;
    Ok(call.api.store.endpoint_named(call.account()?, external_id).await?)
}

/// The endpoint of the path, if it is the caller's.
async fn find(call: &ApiCall) -> Result<Endpoint, ApiError> {
    let id = endpoint_id(call).await?;
    Ok(call.api.store.endpoint(call.account()?, id).await?)
}

/// What the fields of an endpoint are read with that subscribes to these types now.
pub(super) async fn context(
    api: &Api,
    subscribed: Vec<String>,
    repeated: RepeatedNames,
) -> Result<EndpointContext, ApiError> {
    api.store.refresh().await?;
    let catalog = api.store.view().event_types();
    let (environment, max_in_flight) = (api.settings.environment, api.settings.max_in_flight_per_endpoint);
    Ok(EndpointContext {
        environment,
        catalog,
        subscribed,
        max_in_flight,
        brand: api.settings.brand.clone(),
        repeated,
        now: api.clock.now(),
    })
}

/// The look at the network, when all else is right.
async fn check_addresses(
    api: &Api,
    account: AccountId,
    url: Option<&ReceiverUrl>,
    authentication: Option<&WithCredential<Authentication>>,
) -> Result<(), ApiError> {
    let mut faults = Vec::new();
    if let Some(url) = url {
        faults.extend(check_address(api, account, url, "url", Code::UrlNotHttps).await?);
    }
    if let Some(token_url) = authentication.and_then(|new| new.shown.token_url()) {
        let invalid = Code::AuthenticationInvalid;
        let token_url = ReceiverUrl::parse(token_url, api.settings.environment).map_err(|_| invalid)?;
        faults.extend(check_address(api, account, &token_url, "authentication/token_url", invalid).await?);
    }
    ApiError::check(faults)
}

/// What is wrong with the address of a field; `not_https` is the code of plain HTTP.
async fn check_address(
    api: &Api,
    account: AccountId,
    url: &ReceiverUrl,
    field: &str,
    not_https: Code,
) -> Result<Option<Fault>, ApiError> {
    let networks = api.store.view().account_networks(account);
    let Err(error) = api.egress.check(account, networks.as_deref(), url).await else { return Ok(None) };
    let fault = match error {
        GuardError::Unresolved { host } => Fault::of_field(Code::UrlDnsFailed, field).naming(host),
        GuardError::Blocked { host } => Fault::of_field(Code::UrlSsrfBlocked, field).naming(host),
        GuardError::Port { port } => Fault::of_field(Code::UrlPortBlocked, field).naming(port),
        GuardError::NotHttps { .. } => Fault::of_field(not_https, field),
        // A client that sends too many tests must not fill the log.
        GuardError::ShareUsedUp => return Err(ApiError::busy("too many look-ups of this account are under way")),
        GuardError::Local(fault) => {
            tracing::warn!("a receiver's name was not looked up: {fault}");
            return Err(ApiError::from(Code::Unavailable).with_header("retry-after", 1));
        }
    };
    Ok(Some(fault))
}
