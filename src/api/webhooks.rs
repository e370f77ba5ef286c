//! `/v1/webhooks`: endpoints, their secrets, test sends.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::call::Call;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault};
use super::openapi::schemas::{EndpointStatusName, OrderingName};
use super::trace::carried;
use crate::domain::endpoint::{Endpoint, EndpointChange, EndpointStatus, MAX_DESCRIPTION_CHARS, MAX_EVENTS, Ordering};
use crate::domain::event::{Operational, TEST_TYPE, message};
use crate::domain::id::{AccountId, EndpointId};
use crate::domain::secret::{MAX_OVERLAP_SECONDS, Secret};
use crate::domain::url::{ReceiverUrl, UrlError};
use crate::egress::{AttemptEnd, GuardError, StoredTarget};
use crate::store::{
    Dispatch, Endpoints, Intake, NewEndpoint, Settlement, Snapshot, StoreError, Unattempted, View, WithSecret,
};

/// The webhook endpoint: receiver URL, subscribed events, status and secret.
#[derive(Serialize, ToSchema)]
pub(super) struct Attributes {
    /// Receiver URL. In production it must use HTTPS, and its host must not resolve to a private, local or reserved address.
    #[schema(format = "uri", max_length = 2048)]
    url: String,
    /// Subscribed event types.
    #[schema(min_items = 1, max_items = 10)]
    events: Vec<String>,
    /// Free-form label.
    #[schema(required, max_length = 255)]
    description: Option<String>,
    /// `fifo`: deliveries go in the order in which their events were accepted, one at a time. Only present where it is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = OrderingName, inline)]
    ordering: Option<&'static str>,
    /// `active` receives deliveries. `disabled` was paused by its owner. `auto_disabled` was paused by the platform, after more than `webhooks.auto_disable_threshold` consecutive failures or an answer of 410.
    #[schema(value_type = EndpointStatusName, inline)]
    status: &'static str,
    /// Failed attempts since the last success.
    consecutive_failures: u32,
    /// Time of the last attempt, whatever its outcome; `null` before the first.
    #[schema(required, format = DateTime)]
    last_delivery_at: Option<String>,
    /// Shared secret for verifying signatures. Only present in the answers that create or rotate it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, pattern = "^[0-9a-f]{64}$")]
    secret: Option<String>,
    /// `...` and the last 4 characters of the secret. Present wherever the secret is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    secret_hint: Option<String>,
    /// When it was registered.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// After a test's outcome could not be written it is tried again; in the end the next start sends the test once more.
const SETTLE_AGAIN: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// An endpoint with its secret, in the one answer that shows it, or with the hint.
fn resource(endpoint: &Endpoint, secret: Option<&Secret>) -> Resource<Attributes> {
    Resource {
        r#type: "webhook_endpoint",
        id: endpoint.id.to_string(),
        attributes: Attributes {
            url: endpoint.url.clone(),
            events: endpoint.events.clone(),
            description: endpoint.description.clone(),
            ordering: (endpoint.ordering != Ordering::None).then(|| endpoint.ordering.name()),
            status: endpoint.health.status.name(),
            consecutive_failures: endpoint.health.consecutive_failures,
            last_delivery_at: endpoint.last_delivery_at.map(time),
            secret: secret.map(|secret| secret.reveal().to_owned()),
            secret_hint: secret.is_none().then(|| endpoint.secret_hint.clone()),
            created_at: time(endpoint.created_at),
            updated_at: time(endpoint.updated_at),
        },
    }
}

/// `GET /v1/webhooks`
pub async fn list(call: Call) -> Result<Answer, ApiError> {
    let endpoints = call.api.store.endpoints(call.account()?).await?;
    let resources: Vec<_> = endpoints.iter().map(|endpoint| resource(endpoint, None)).collect();
    Ok(Answer::new(200, &resources))
}

/// `GET /v1/webhooks/{id}`
pub async fn read(call: Call) -> Result<Answer, ApiError> {
    let endpoint = find(&call).await?;
    Ok(Answer::new(200, &resource(&endpoint, None)))
}

/// `POST /v1/webhooks`
pub async fn create(call: Call) -> Result<Answer, ApiError> {
    let account = call.account()?;
    let body = call.json()?;
    let mut faults = Vec::new();
    let url = match body.get("url") {
        None | Some(Value::Null) => Err(vec![Fault::of_field(Code::UrlRequired, "url")]),
        Some(Value::String(text)) if text.is_empty() => Err(vec![Fault::of_field(Code::UrlRequired, "url")]),
        Some(value) => read_url(&call, value).map_err(|fault| vec![fault]),
    };
    let events = match body.get("events") {
        None | Some(Value::Null) => Err(vec![Fault::of_field(Code::EventsRequired, "events")]),
        Some(value) => {
            call.api.store.refresh().await?;
            read_events(call.api.store.view(), &[], value)
        }
    };
    let description = read_description(&body).map(Option::flatten).map_err(|fault| vec![fault]);
    let url = collect(url, &mut faults);
    let events = collect(events, &mut faults);
    let description = collect(description, &mut faults);
    let ordering = collect(read_ordering(&body), &mut faults).flatten().unwrap_or_default();
    ApiError::check(faults)?;
    let (Some(url), Some(events), Some(description)) = (url, events, description) else {
        return Err(Code::InternalError.into());
    };
    check_address(&call, &url).await?;
    let new = NewEndpoint { url, events, description, ordering };
    let keep = call.keep(|made: &WithSecret<Endpoint>| Answer::new(201, &resource(&made.resource, None)));
    let made = call.store().create_endpoint(account, new, keep).await?;
    Ok(Answer::new(201, &resource(&made.resource, Some(&made.secret))))
}

/// `PUT /v1/webhooks/{id}`
pub async fn update(call: Call) -> Result<Answer, ApiError> {
    let endpoint = find(&call).await?;
    let body = call.json()?;
    let mut faults = Vec::new();
    let url = match body.get("url") {
        None => Ok(None),
        Some(value) => read_url(&call, value).map(Some).map_err(|fault| vec![fault]),
    };
    call.api.store.refresh().await?;
    let events =
        body.get("events").map(|value| read_events(call.api.store.view(), &endpoint.events, value)).transpose();
    let description = read_description(&body).map_err(|fault| vec![fault]);
    let status = match body.get("status") {
        None => Ok(None),
        Some(value) => match value.as_str().and_then(EndpointStatus::parse_settable) {
            Some(status) => Ok(Some(status)),
            None => Err(vec![Fault::of_field(Code::StatusInvalid, "status")]),
        },
    };
    let url = collect(url, &mut faults).flatten();
    let change = EndpointChange {
        url: url.as_ref().map(|url| url.as_str().to_owned()),
        events: collect(events, &mut faults).flatten(),
        description: collect(description, &mut faults).flatten(),
        status: collect(status, &mut faults).flatten(),
        ordering: collect(read_ordering(&body), &mut faults).flatten(),
    };
    ApiError::check(faults)?;
    if change == EndpointChange::default() {
        return Err(Fault::new(Code::NoValidFields).naming("url, events, description, status, ordering").into());
    }
    if let Some(url) = &url {
        check_address(&call, url).await?;
    }
    let endpoint = call.store().update_endpoint(call.account()?, endpoint.id, change).await?;
    Ok(Answer::new(200, &resource(&endpoint, None)))
}

/// `DELETE /v1/webhooks/{id}`
pub async fn delete(call: Call) -> Result<Answer, ApiError> {
    let id = call.param("id", EndpointId::parse)?;
    call.store().delete_endpoint(call.account()?, id).await?;
    Ok(Answer::no_content())
}

/// `POST /v1/webhooks/{id}/regenerate-secret`
pub async fn regenerate_secret(call: Call) -> Result<Answer, ApiError> {
    let endpoint = find(&call).await?;
    let body = call.optional_json()?;
    let overlap = match body.get("overlap_seconds") {
        None => 0,
        Some(value) => value
            .as_u64()
            .and_then(|seconds| u32::try_from(seconds).ok())
            .filter(|seconds| *seconds <= MAX_OVERLAP_SECONDS)
            .ok_or_else(|| Fault::of_field(Code::OverlapInvalid, "overlap_seconds"))?,
    };
    let overlap = Duration::from_secs(overlap.into());
    let keep = call.keep(|rotated: &WithSecret<Endpoint>| Answer::new(200, &resource(&rotated.resource, None)));
    let rotated = call.store().rotate_secret(call.account()?, endpoint.id, overlap, keep).await?;
    Ok(Answer::new(200, &resource(&rotated.resource, Some(&rotated.secret))))
}

/// What came of a test delivery.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct TestAttributes {
    /// Whether the receiver answered 2xx.
    delivered: bool,
    /// The answer's HTTP status; 0 when there was no answer.
    http_status: u16,
    /// How long the attempt took, in milliseconds.
    response_time_ms: u32,
    /// What went wrong, in words; `null` when it was delivered.
    #[schema(required)]
    error: Option<String>,
}

/// `POST /v1/webhooks/{id}/test`
pub async fn test(call: Call) -> Result<Answer, ApiError> {
    let endpoint = find(&call).await?;
    let account = call.account()?;
    call.optional_json()?;
    // In a task of its own: a client that goes away does not leave the delivery without an outcome.
    let sending = tokio::spawn(carried(send_test(call, account, endpoint)));
    sending.await.map_err(|_| ApiError::from(Code::InternalError))?
}

async fn send_test(call: Call, account: AccountId, endpoint: Endpoint) -> Result<Answer, ApiError> {
    let api = &call.api;
    let refused = |whose| ApiError::busy(format!("too many test deliveries of this {whose} are under way"));
    let _share = api.test_shares.try_take(account).ok_or_else(|| refused("account"))?;
    let _slot = api.tests.take(endpoint.key, api.settings.max_tests).ok_or_else(|| refused("endpoint"))?;
    let data = format!(r#"{{"message":"This is a test delivery.","endpoint_id":"{}"}}"#, endpoint.id);
    let body = message(TEST_TYPE, api.clock.now(), &data);
    let leased = api.store.open_test(account, endpoint.id, body).await?;
    let job = &leased.job;
    // A paused endpoint can be tested: that is how its owner sees whether it is well again.
    let current = StoredTarget { store: &api.store, job, held_when_paused: false };
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
        r#type: "webhook_test_result",
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
    for wait in SETTLE_AGAIN {
        let kept = answer.clone();
        match api.store.settle_test(settlement.clone(), call.keep(move |(): &()| kept())).await {
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(wait).await,
            written => return Ok(written.map(|()| answer())?),
        }
    }
    Err(Code::Unavailable.into())
}

/// The endpoint of the path, if it is the caller's.
async fn find(call: &Call) -> Result<Endpoint, ApiError> {
    let id = call.param("id", EndpointId::parse)?;
    Ok(call.api.store.endpoint(call.account()?, id).await?)
}

fn collect<T>(read: Result<T, Vec<Fault>>, faults: &mut Vec<Fault>) -> Option<T> {
    read.map_err(|mut found| faults.append(&mut found)).ok()
}

fn read_url(call: &Call, value: &Value) -> Result<ReceiverUrl, Fault> {
    let Some(text) = value.as_str() else { return Err(Fault::of_field(Code::UrlInvalidType, "url")) };
    ReceiverUrl::parse(text, call.api.settings.environment).map_err(|error| {
        let code = match error {
            UrlError::Empty => Code::UrlEmpty,
            UrlError::TooLong => Code::UrlTooLong,
            UrlError::InvalidFormat => Code::UrlInvalidFormat,
            UrlError::NotHttps => Code::UrlNotHttps,
        };
        Fault::of_field(code, "url")
    })
}

/// Counted as sent, then without duplicates. A type that has left the catalog may stay where it was `subscribed`.
fn read_events(view: &View, subscribed: &[String], value: &Value) -> Result<Vec<String>, Vec<Fault>> {
    let field = |code| Fault::of_field(code, "events");
    let Some(list) = value.as_array() else {
        return Err(vec![field(Code::EventInvalid).naming(value)]);
    };
    if list.is_empty() {
        return Err(vec![field(Code::EventsRequired)]);
    }
    if list.len() > MAX_EVENTS {
        return Err(vec![field(Code::EventsTooMany)]);
    }
    let catalog = view.event_types();
    let mut events: Vec<String> = Vec::new();
    let mut faults = Vec::new();
    for item in list {
        match item.as_str() {
            Some(name)
                if catalog.contains_key(name)
                    || Operational::parse(name).is_some()
                    || subscribed.iter().any(|known| known == name) =>
            {
                if !events.iter().any(|known| known == name) {
                    events.push(name.to_owned());
                }
            }
            _ => {
                let shown = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                let shown: String = shown.chars().take(200).collect();
                faults.push(field(Code::EventInvalid).naming(&shown).with_meta("event", shown));
            }
        }
    }
    if faults.is_empty() { Ok(events) } else { Err(faults) }
}

fn read_ordering(body: &Map<String, Value>) -> Result<Option<Ordering>, Vec<Fault>> {
    let Some(value) = body.get("ordering") else { return Ok(None) };
    let ordering = value.as_str().and_then(Ordering::parse);
    ordering.map(Some).ok_or_else(|| vec![Fault::of_field(Code::OrderingInvalid, "ordering")])
}

fn read_description(body: &Map<String, Value>) -> Result<Option<Option<String>>, Fault> {
    match body.get("description") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::String(text)) if text.chars().count() > MAX_DESCRIPTION_CHARS => {
            Err(Fault::of_field(Code::DescriptionTooLong, "description"))
        }
        Some(Value::String(text)) => Ok(Some(Some(text.clone()))),
        Some(_) => Err(Fault::of_field(Code::DescriptionInvalidType, "description")),
    }
}

/// The look at the network, when all else is right.
async fn check_address(call: &Call, url: &ReceiverUrl) -> Result<(), ApiError> {
    call.api.egress.check(call.account()?, url).await.map_err(|error| {
        let (code, host) = match error {
            GuardError::Unresolved { host } => (Code::UrlDnsFailed, host),
            GuardError::Blocked { host } => (Code::UrlSsrfBlocked, host),
            GuardError::Port { port } => return Fault::of_field(Code::UrlPortBlocked, "url").naming(port).into(),
            GuardError::NotHttps { .. } => return Fault::of_field(Code::UrlNotHttps, "url").into(),
            // Nobody's log is to be filled by whoever asks too often.
            GuardError::ShareUsedUp => return ApiError::busy("too many look-ups of this account are under way"),
            GuardError::Local(fault) => {
                tracing::warn!("a receiver's name was not looked up: {fault}");
                return ApiError::from(Code::Unavailable).with_header("retry-after", 1);
            }
        };
        Fault::of_field(code, "url").naming(host).into()
    })
}
