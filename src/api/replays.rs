//! Replays: sending the events of a stretch of time to an endpoint again; and what an endpoint has missed.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::call::Call;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault};
use super::openapi::schemas::{ReplayStatusName, SelectionName};
use crate::domain::id::{EndpointId, ReplayId};
use crate::domain::replay::{NewReplay, Replay, Selection};
use crate::domain::time::Timestamp;
use crate::store::{Accounts, Endpoints, Replays};

/// A durable job that sends events of the past to an endpoint again.
#[derive(Serialize, ToSchema)]
pub(super) struct Attributes {
    /// The endpoint that it sends to.
    #[schema(format = "uuid")]
    endpoint_id: String,
    /// Which events it takes: those that `failed`, those that were `missed`, or `all`.
    #[schema(value_type = SelectionName, inline)]
    selection: &'static str,
    /// Events accepted at this time or later.
    #[schema(format = DateTime)]
    from: String,
    /// Events accepted until the end of this second.
    #[schema(format = DateTime)]
    to: String,
    /// `pending` counts its events, `running` sends them, `completed` has tried each of them at least once, `cancelled` was stopped.
    #[schema(value_type = ReplayStatusName, inline)]
    status: &'static str,
    /// How many events it takes, as far as they are counted.
    total: u64,
    /// How many of them were sent, successfully or not.
    sent: u64,
    /// When it was asked for.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was completed or cancelled; `null` before.
    #[schema(required, format = DateTime)]
    finished_at: Option<String>,
}

fn resource(replay: &Replay) -> Resource<Attributes> {
    Resource {
        r#type: "webhook_replay",
        id: replay.id.to_string(),
        attributes: Attributes {
            endpoint_id: replay.endpoint.to_string(),
            selection: replay.asked.selection.name(),
            from: time(replay.asked.from),
            to: time(replay.asked.to),
            status: replay.status.name(),
            total: replay.total,
            sent: replay.sent,
            created_at: time(replay.created_at),
            finished_at: replay.finished_at.map(time),
        },
    }
}

/// `POST /v1/webhooks/{id}/replay`
pub async fn create(call: Call) -> Result<Answer, ApiError> {
    let id = call.param("id", EndpointId::parse)?;
    let account = call.account()?;
    call.api.store.endpoint(account, id).await?;
    let body = call.json()?;
    let now = call.api.clock.now();
    let mut faults = Vec::new();
    let from = match body.get("from") {
        None | Some(Value::Null) => Err(Code::ReplayFromRequired),
        Some(value) => {
            let read = value.as_str().and_then(Timestamp::parse_start).filter(|from| *from <= now);
            read.ok_or(Code::ReplayFromInvalid)
        }
    };
    let from = from.map_err(|code| faults.push(Fault::of_field(code, "from"))).ok();
    let to = match body.get("to") {
        None | Some(Value::Null) => Some(now),
        Some(value) => value.as_str().and_then(Timestamp::parse_end),
    };
    if to.is_none_or(|to| from.is_some_and(|from| body.contains_key("to") && to < from)) {
        faults.push(Fault::of_field(Code::ReplayToInvalid, "to"));
    }
    let selection = match body.get("status") {
        None | Some(Value::Null) => Some(Selection::Failed),
        Some(value) => value.as_str().and_then(Selection::parse),
    };
    if selection.is_none() {
        faults.push(Fault::of_field(Code::ReplayStatusInvalid, "status"));
    }
    ApiError::check(faults)?;
    let (Some(from), Some(to), Some(selection)) = (from, to, selection) else {
        return Err(Code::InternalError.into());
    };
    // What is older may be gone, or half of it: an event can be there whose deliveries are not.
    let own = call.api.store.account(account).await?.retention;
    let kept_since = call.api.settings.retention.of(own).since(now).1.unwrap_or(from);
    let new = NewReplay { from: from.max(kept_since.min(to)), to: to.min(now), selection };
    let keep = call.keep(|replay: &Replay| Answer::new(202, &resource(replay)));
    let replay = call.store().create_replay(account, id, new, keep).await?;
    Ok(Answer::new(202, &resource(&replay)))
}

/// `GET /v1/webhooks/replays/{id}`
pub async fn read(call: Call) -> Result<Answer, ApiError> {
    let id = call.param("id", ReplayId::parse)?;
    let replay = call.api.store.replay(call.account()?, id).await?;
    Ok(Answer::new(200, &resource(&replay)))
}

/// `DELETE /v1/webhooks/replays/{id}`
pub async fn cancel(call: Call) -> Result<Answer, ApiError> {
    let id = call.param("id", ReplayId::parse)?;
    call.store().cancel_replay(call.account()?, id).await?;
    Ok(Answer::no_content())
}

/// What was published while an endpoint was not active, and did not go to it since.
#[derive(Serialize, ToSchema)]
pub(super) struct MissedAttributes {
    /// How many events of the types that the endpoint subscribes to.
    count: u64,
    /// When the oldest of them was accepted; `null` when there is none.
    #[schema(required, format = DateTime)]
    oldest_at: Option<String>,
}

/// `GET /v1/webhooks/{id}/missed`
pub async fn missed(call: Call) -> Result<Answer, ApiError> {
    let id = call.param("id", EndpointId::parse)?;
    let missed = call.api.store.missed(call.account()?, id).await?;
    let attributes = MissedAttributes { count: missed.count, oldest_at: missed.oldest_at.map(time) };
    Ok(Answer::new(200, &Resource { r#type: "webhook_missed", id: id.to_string(), attributes }))
}
