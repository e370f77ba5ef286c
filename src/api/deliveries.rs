//! Deliveries: the lists, their export with its columns, one delivery with all its attempts, and the retry.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::call::ApiCall;
use super::entries::Entries;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Words};
use super::export;
use super::filters;
use super::openapi::schemas::{DeliveryStatusName, NullableHeaders};
use super::webhooks::endpoint_id;
use crate::domain::delivery::{Attempt, Delivery};
use crate::domain::filter::{DeliveryFilter, MAX_ENDPOINTS};
use crate::domain::id::DeliveryId;
use crate::store::{Endpoints, Log, Replays, Search};
use crate::table::Cell;

/// An event on its way to one endpoint, showing the latest attempt.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Attributes {
    /// The endpoint that it goes to.
    #[schema(format = "uuid")]
    pub endpoint_id: String,
    /// The endpoint's URL now. Only present in answers that cover several endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uri")]
    pub endpoint_url: Option<String>,
    /// The event's type, or `test`.
    pub event_type: String,
    /// `data.id` of the event when it is a UUID and the event type begins with `validation.`.
    #[schema(required, format = "uuid")]
    pub validation_id: Option<String>,
    /// HTTP status of the receiver's answer; `null` when there was none.
    #[schema(required)]
    pub response_status: Option<u16>,
    /// The first 500 characters of the receiver's answer.
    #[schema(required)]
    pub response_body: Option<String>,
    /// How long the latest attempt took, in milliseconds.
    #[schema(required)]
    pub response_time_ms: Option<u32>,
    /// Number of the latest attempt; 1 while it is pending.
    #[schema(minimum = 1)]
    pub attempt: u32,
    /// `pending` was not tried yet, `retrying` failed and is tried again at `next_retry_at`, `success` was answered
    /// with 2xx, `failed` is not tried again.
    #[schema(value_type = DeliveryStatusName, inline)]
    pub status: Cow<'static, str>,
    /// When the next attempt is due; `null` when there is none.
    #[schema(required, format = DateTime)]
    pub next_retry_at: Option<String>,
    /// What went wrong in the latest attempt, in words.
    #[schema(required)]
    pub error_message: Option<String>,
    /// When the delivery was made: when its event was accepted, or a replay took it.
    #[schema(format = DateTime)]
    pub created_at: String,
}

/// What the list shows of a delivery, and the rest.
#[derive(Serialize, Deserialize)]
pub struct WithDetail {
    /// What the list shows.
    #[serde(flatten)]
    pub summary: Attributes,
    /// The rest.
    #[serde(flatten)]
    pub detail: Detail,
}

/// A delivery with what it sends and what every attempt came to.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Detail {
    /// The event that is delivered.
    #[schema(format = "uuid")]
    pub event_id: String,
    /// The body of the request, byte for byte, the same at every attempt; `null` when it is no longer kept.
    #[schema(required)]
    pub request_body: Option<String>,
    /// The headers of the latest attempt's request, with the signatures masked and the time at which the attempt began;
    /// `null` while there was none. The endpoint's own headers and `authorization` are those of now, masked.
    #[schema(required, value_type = NullableHeaders, inline)]
    pub request_headers: Option<Entries<String>>,
    /// Every attempt, the first one first; of more than 1,000 the newest.
    #[schema(inline)]
    pub attempts: Vec<AttemptAttributes>,
}

/// One try of a delivery.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AttemptAttributes {
    /// Its number, from 1.
    #[schema(minimum = 1)]
    pub attempt: u32,
    /// When it began.
    #[schema(format = DateTime)]
    pub started_at: String,
    /// HTTP status of the receiver's answer; `null` when there was none.
    #[schema(required)]
    pub response_status: Option<u16>,
    /// The first 500 characters of the receiver's answer.
    #[schema(required)]
    pub response_body: Option<String>,
    /// How long it took, in milliseconds.
    pub response_time_ms: u32,
    /// What went wrong, in words; `null` when it was a success.
    #[schema(required)]
    pub error_message: Option<String>,
}

/// A delivery; with its endpoint's URL on the list over all endpoints.
pub(super) fn resource(delivery: &Delivery, with_url: bool) -> Resource<Attributes> {
    let attributes = attributes(delivery, with_url);
    Resource { r#type: "webhook_delivery".into(), id: delivery.id.to_string(), attributes }
}

fn attributes(delivery: &Delivery, with_url: bool) -> Attributes {
    Attributes {
        endpoint_id: delivery.endpoint.to_string(),
        endpoint_url: with_url.then(|| delivery.endpoint_url.clone()),
        event_type: delivery.event_type.clone(),
        validation_id: delivery.validation_id.map(|id| id.to_string()),
        response_status: delivery.response_status,
        response_body: delivery.response_body.clone(),
        response_time_ms: delivery.response_time_ms,
        attempt: delivery.attempt,
        status: delivery.status.name().into(),
        next_retry_at: delivery.next_retry_at.map(time),
        error_message: delivery.error_message.clone(),
        created_at: time(delivery.created_at),
    }
}

/// `GET /v1/webhooks/{id}/deliveries`
pub async fn of_endpoint(call: ApiCall) -> Result<Answer, ApiError> {
    let id = endpoint_id(&call).await?;
    let page = call.page();
    let found = call.api.store.endpoint_deliveries(call.account()?, id, page).await?;
    Ok(Answer::page(&found, page, |delivery| resource(delivery, false)))
}

/// What a filter takes.
fn allowed(name: &str) -> Words {
    match name {
        "endpoint_id" => Words::new(
            format!("endpoint_id takes up to {MAX_ENDPOINTS} UUIDs, separated by commas"),
            format!("endpoint_id admite hasta {MAX_ENDPOINTS} UUID, separados por comas"),
        ),
        "status" => Words::new(
            "status takes pending, retrying, success and failed, separated by commas",
            "status admite pending, retrying, success y failed, separados por comas",
        ),
        "event_type" => Words::new(
            "event_type takes names of event types, separated by commas",
            "event_type admite nombres de tipos de evento, separados por comas",
        ),
        "response_status" => Words::new(
            "response_status takes a status, 2xx, 3xx, 4xx, 5xx or none",
            "response_status admite un estado, 2xx, 3xx, 4xx, 5xx o none",
        ),
        "validation_id" => Words::new("validation_id takes a UUID", "validation_id admite un UUID"),
        "from" | "to" => filters::time_of(name),
        _ => {
            Words::new(format!("{name} takes a whole number from 0"), format!("{name} admite un número entero desde 0"))
        }
    }
}

/// The filters of a call.
fn filter(call: &ApiCall) -> Result<DeliveryFilter, ApiError> {
    DeliveryFilter::read(&call.query()).map_err(|names| ApiError::of_filters(names, allowed))
}

/// `GET /v1/webhooks/deliveries`
pub async fn of_account(call: ApiCall) -> Result<Answer, ApiError> {
    let (page, account) = (call.page(), call.account()?);
    let filter = filter(&call)?;
    let found = call.api.store.find_deliveries(account, filter, page).await?;
    Ok(Answer::page(&found, page, |delivery| resource(delivery, true)))
}

/// `GET /v1/webhooks/{id}/deliveries/export`
pub async fn export_of_endpoint(call: ApiCall) -> Result<Answer, ApiError> {
    let id = endpoint_id(&call).await?;
    call.api.store.endpoint(call.account()?, id).await?;
    export(&call, DeliveryFilter { endpoints: vec![id], ..DeliveryFilter::default() }).await
}

/// `GET /v1/webhooks/deliveries/export`
pub async fn export_of_account(call: ApiCall) -> Result<Answer, ApiError> {
    export(&call, filter(&call)?).await
}

/// The columns of an export, named like the attributes, and their widths.
const COLUMNS: [(&str, u16); 13] = [
    ("id", 22),
    ("created_at", 22),
    ("status", 10),
    ("event_type", 30),
    ("endpoint_id", 38),
    ("endpoint_url", 50),
    ("validation_id", 38),
    ("attempt", 8),
    ("response_status", 16),
    ("response_time_ms", 18),
    ("next_retry_at", 22),
    ("error_message", 50),
    ("response_body", 50),
];

async fn export(call: &ApiCall, filter: DeliveryFilter) -> Result<Answer, ApiError> {
    let (store, account) = (call.api.store.clone(), call.account()?);
    let walk = move |before| {
        let (store, filter) = (store.clone(), filter.clone());
        async move { store.walk_deliveries(account, filter, before).await }
    };
    export::answer(call, "deliveries", &COLUMNS, walk, cells).await
}

fn cells(delivery: &Delivery) -> Vec<Cell<'_>> {
    vec![
        Cell::owned(delivery.id),
        Cell::owned(time(delivery.created_at)),
        Cell::text(delivery.status.name()),
        Cell::text(&delivery.event_type),
        Cell::owned(delivery.endpoint),
        Cell::text(&delivery.endpoint_url),
        Cell::maybe(delivery.validation_id, Cell::owned),
        Cell::Number(delivery.attempt.into()),
        Cell::maybe(delivery.response_status, |status| Cell::Number(status.into())),
        Cell::maybe(delivery.response_time_ms, |ms| Cell::Number(ms.into())),
        Cell::maybe(delivery.next_retry_at, |at| Cell::owned(time(at))),
        Cell::maybe(delivery.error_message.as_deref(), Cell::text),
        Cell::maybe(delivery.response_body.as_deref(), Cell::text),
    ]
}

/// `GET /v1/webhooks/deliveries/{id}`
pub async fn read(call: ApiCall) -> Result<Answer, ApiError> {
    let id = call.param("id", DeliveryId::parse)?;
    let detail = call.api.store.delivery(call.account()?, id).await?;
    let delivery = &detail.delivery;
    let endpoint = call.api.store.endpoint(call.account()?, delivery.endpoint).await?;
    let headers = detail.attempts.last().map(|latest| {
        let (at, credentials) = (latest.started_at, &endpoint.settings.credentials);
        let headers = call.api.egress.shown_headers(id, &delivery.event_type, at, credentials);
        headers.into_iter().collect()
    });
    let attributes = WithDetail {
        summary: attributes(delivery, true),
        detail: Detail {
            event_id: detail.event.to_string(),
            request_body: detail.body.as_ref().map(|body| String::from_utf8_lossy(body).into_owned()),
            request_headers: headers,
            attempts: detail.attempts.iter().map(attempt).collect(),
        },
    };
    Ok(Answer::new(200, &Resource { r#type: "webhook_delivery".into(), id: id.to_string(), attributes }))
}

fn attempt(attempt: &Attempt) -> AttemptAttributes {
    AttemptAttributes {
        attempt: attempt.number,
        started_at: time(attempt.started_at),
        response_status: attempt.response_status,
        response_body: attempt.response_body.clone(),
        response_time_ms: attempt.response_time_ms,
        error_message: attempt.error_message.clone(),
    }
}

/// `POST /v1/webhooks/deliveries/{id}/retry`
pub async fn retry(call: ApiCall) -> Result<Answer, ApiError> {
    let id = call.param("id", DeliveryId::parse)?;
    let account = call.account()?;
    if let Err(fault) = call.optional_json() {
        // 404 comes before the faults of a body that is not needed.
        call.api.store.delivery(account, id).await?;
        return Err(fault);
    }
    let pending_reply = call.pending_reply(|delivery: &Delivery| Answer::new(202, &resource(delivery, true)));
    let delivery = call.store().retry(account, id, pending_reply).await?;
    Ok(Answer::new(202, &resource(&delivery, true)))
}
