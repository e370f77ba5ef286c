//! The lists of deliveries.

use serde::Serialize;
use utoipa::ToSchema;

use super::call::Call;
use super::envelope::{Answer, Resource, time};
use super::error::ApiError;
use super::openapi::schemas::DeliveryStatusName;
use crate::domain::delivery::Delivery;
use crate::domain::id::EndpointId;

/// An event on its way to one endpoint, showing the latest attempt.
#[derive(Serialize, ToSchema)]
pub(super) struct Attributes {
    /// The endpoint that it goes to.
    #[schema(format = "uuid")]
    endpoint_id: String,
    /// The endpoint's URL now. Only present in answers that cover several endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uri")]
    endpoint_url: Option<String>,
    /// The event's type, or `test`.
    event_type: String,
    /// `data.id` of the event when it is a UUID and the event type begins with `validation.`.
    #[schema(required, format = "uuid")]
    validation_id: Option<String>,
    /// HTTP status of the receiver's answer; `null` when there was none.
    #[schema(required)]
    response_status: Option<u16>,
    /// The first 500 characters of the receiver's answer.
    #[schema(required)]
    response_body: Option<String>,
    /// How long the latest attempt took, in milliseconds.
    #[schema(required)]
    response_time_ms: Option<u32>,
    /// Number of the latest attempt; 1 while it is pending.
    #[schema(minimum = 1)]
    attempt: u32,
    /// `pending` was not tried yet, `retrying` failed and is tried again at `next_retry_at`, `success` was answered with 2xx, `failed` is not tried again.
    #[schema(value_type = DeliveryStatusName, inline)]
    status: &'static str,
    /// When the next attempt is due; `null` when there is none.
    #[schema(required, format = DateTime)]
    next_retry_at: Option<String>,
    /// What went wrong in the latest attempt, in words.
    #[schema(required)]
    error_message: Option<String>,
    /// When the event was accepted.
    #[schema(format = DateTime)]
    created_at: String,
}

/// A delivery; with its endpoint's URL on the list over all endpoints.
pub(super) fn resource(delivery: &Delivery, with_url: bool) -> Resource<Attributes> {
    Resource {
        r#type: "webhook_delivery",
        id: delivery.id.to_string(),
        attributes: Attributes {
            endpoint_id: delivery.endpoint.to_string(),
            endpoint_url: with_url.then(|| delivery.endpoint_url.clone()),
            event_type: delivery.event_type.clone(),
            validation_id: delivery.validation_id.map(|id| id.to_string()),
            response_status: delivery.response_status,
            response_body: delivery.response_body.clone(),
            response_time_ms: delivery.response_time_ms,
            attempt: delivery.attempt,
            status: delivery.status.name(),
            next_retry_at: delivery.next_retry_at.map(time),
            error_message: delivery.error_message.clone(),
            created_at: time(delivery.id.created_at()),
        },
    }
}

/// `GET /v1/webhooks/{id}/deliveries`
pub async fn of_endpoint(call: Call) -> Result<Answer, ApiError> {
    let id = call.param("id", EndpointId::parse)?;
    let page = call.page();
    let found = call.api.store.endpoint_deliveries(call.account()?, id, page).await?;
    Ok(Answer::page(&found, page, |delivery| resource(delivery, false)))
}

/// `GET /v1/webhooks/deliveries`
pub async fn of_account(call: Call) -> Result<Answer, ApiError> {
    let page = call.page();
    let found = call.api.store.account_deliveries(call.account()?, page).await?;
    Ok(Answer::page(&found, page, |delivery| resource(delivery, true)))
}
