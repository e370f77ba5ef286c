//! The lists of deliveries.

use serde::Serialize;

use super::call::Call;
use super::envelope::{Answer, Resource, time};
use super::error::ApiError;
use crate::domain::delivery::Delivery;
use crate::domain::id::EndpointId;

#[derive(Serialize)]
pub(super) struct Attributes {
    endpoint_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_url: Option<String>,
    event_type: String,
    validation_id: Option<String>,
    response_status: Option<u16>,
    response_body: Option<String>,
    response_time_ms: Option<u32>,
    attempt: u32,
    status: &'static str,
    next_retry_at: Option<String>,
    error_message: Option<String>,
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
