//! Replays: sending the events of a stretch of time to an endpoint again; and what an endpoint has missed.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::call::ApiCall;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault};
use super::fields::{Field, RequestBody as _, Shape, Text, body};
use super::openapi::schemas::{ReplayStatusName, SelectionName};
use super::webhooks::endpoint_id;
use crate::domain::id::ReplayId;
use crate::domain::replay::{NewReplay, Replay, Selection};
use crate::domain::time::Timestamp;
use crate::store::{Accounts, Endpoints, Replays};

/// A durable job that sends events of the past to an endpoint again.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Attributes {
    /// The endpoint that it sends to.
    #[schema(format = "uuid")]
    pub endpoint_id: String,
    /// Which events it takes: those that `failed`, those that were `missed`, or `all`.
    #[schema(value_type = SelectionName, inline)]
    pub selection: Cow<'static, str>,
    /// Events accepted at this time or later.
    #[schema(format = DateTime)]
    pub from: String,
    /// Events accepted until the end of this second.
    #[schema(format = DateTime)]
    pub to: String,
    /// `pending` counts its events, `running` sends them, `completed` has tried each of them at least once, `cancelled`
    /// was stopped.
    #[schema(value_type = ReplayStatusName, inline)]
    pub status: Cow<'static, str>,
    /// How many events it takes, as far as they are counted.
    pub total: u64,
    /// How many of them were sent, successfully or not.
    pub sent: u64,
    /// When it was asked for.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it was completed or cancelled; `null` before.
    #[schema(required, format = DateTime)]
    pub finished_at: Option<String>,
}

fn resource(replay: &Replay) -> Resource<Attributes> {
    Resource {
        r#type: "webhook_replay".into(),
        id: replay.id.to_string(),
        attributes: Attributes {
            endpoint_id: replay.endpoint.to_string(),
            selection: replay.requested.selection.name().into(),
            from: time(replay.requested.from),
            to: time(replay.requested.to),
            status: replay.status.name().into(),
            total: replay.total,
            sent: replay.sent,
            created_at: time(replay.created_at),
            finished_at: replay.finished_at.map(time),
        },
    }
}

/// `POST /v1/webhooks/{id}/replay`
pub async fn create(call: ApiCall) -> Result<Answer, ApiError> {
    let id = endpoint_id(&call).await?;
    let account = call.account()?;
    call.api.store.endpoint(account, id).await?;
    let body = call.json()?;
    let now = call.api.clock.now();
    let context =
        ReplayContext { now, from: body.get("from").and_then(|from| (FROM.read)(&ReplayContext::at(now), from).ok()) };
    let ReplayEvents { from, to, status } = ReplayEvents::read(&body, &context)?;
    let (to, selection) = (to.unwrap_or(now), status.unwrap_or(Selection::Failed));
    // What is older may be gone, or half of it: an event can be there whose deliveries are not.
    let own = call.api.store.account(account).await?.retention;
    let retention = call.api.changing.read().retention;
    let kept_since = retention.of(own).since(now).1.unwrap_or(from);
    let new = NewReplay { from: from.max(kept_since.min(to)), to: to.min(now), selection };
    call.api.count_storage(account).await?;
    let pending_reply = call.pending_reply(|replay: &Replay| Answer::new(202, &resource(replay)));
    let replay = call.store().create_replay(account, id, new, pending_reply).await?;
    Ok(Answer::new(202, &resource(&replay)))
}

/// What the fields of a replay are read with.
pub struct ReplayContext {
    now: Timestamp,
    /// `from`, where it can be read.
    from: Option<Timestamp>,
}

impl ReplayContext {
    fn at(now: Timestamp) -> Self {
        Self { now, from: None }
    }
}

const FROM: Field<ReplayContext, Timestamp> = Field {
    about: "Events accepted at this time or later: an ISO 8601 date-time with its offset, or a date, which begins at \
            midnight UTC.",
    shape: Shape::Text(Text::ANY),
    nullable: false,
    codes: &[Code::ReplayFromInvalid],
    read: |context, value| {
        let from = value.as_str().and_then(Timestamp::parse_start).filter(|from| *from <= context.now);
        from.ok_or_else(|| vec![Fault::new(Code::ReplayFromInvalid)])
    },
};

const TO: Field<ReplayContext, Timestamp> = Field {
    about: "Events accepted until the end of this second, or of this day. Now, when it is not given.",
    shape: Shape::Text(Text::ANY),
    nullable: true,
    codes: &[Code::ReplayToInvalid],
    read: |context, value| {
        let to = value.as_str().and_then(Timestamp::parse_end);
        let to = to.filter(|to| context.from.is_none_or(|from| *to >= from));
        to.ok_or_else(|| vec![Fault::new(Code::ReplayToInvalid)])
    },
};

const SELECTION: Field<ReplayContext, Selection> = Field {
    about: "`failed`: tried in vain and not tried any more. `missed`: the endpoint subscribes to it and has no \
            delivery of it. `all`: both, and those that were delivered.",
    shape: Shape::OneOf(|| Selection::ALL.map(Selection::name).to_vec()),
    nullable: true,
    codes: &[Code::ReplayStatusInvalid],
    read: |_, value| {
        let selection = value.as_str().and_then(Selection::parse);
        selection.ok_or_else(|| vec![Fault::new(Code::ReplayStatusInvalid)])
    },
};

body! {
    /// Which events to send again.
    pub struct ReplayEvents(ReplayContext) {
        from: Timestamp = FROM.required(Code::ReplayFromRequired),
        to: Option<Timestamp> = TO.maybe(),
        status: Option<Selection> = SELECTION.maybe().shown(|| Selection::Failed.name().into()),
    }
}

/// `GET /v1/webhooks/replays/{id}`
pub async fn read(call: ApiCall) -> Result<Answer, ApiError> {
    let id = call.param("id", ReplayId::parse)?;
    let replay = call.api.store.replay(call.account()?, id).await?;
    Ok(Answer::new(200, &resource(&replay)))
}

/// `DELETE /v1/webhooks/replays/{id}`
pub async fn cancel(call: ApiCall) -> Result<Answer, ApiError> {
    let id = call.param("id", ReplayId::parse)?;
    call.store().cancel_replay(call.account()?, id).await?;
    Ok(Answer::no_content())
}

/// What was published while an endpoint was not active, and did not go to it since.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct MissedAttributes {
    /// How many events of the types that the endpoint subscribes to.
    pub count: u64,
    /// When the oldest of them was accepted; `null` when there is none.
    #[schema(required, format = DateTime)]
    pub oldest_at: Option<String>,
}

/// `GET /v1/webhooks/{id}/missed`
pub async fn missed(call: ApiCall) -> Result<Answer, ApiError> {
    let id = endpoint_id(&call).await?;
    let missed = call.api.store.missed(call.account()?, id).await?;
    let attributes = MissedAttributes { count: missed.count, oldest_at: missed.oldest_at.map(time) };
    Ok(Answer::new(200, &Resource { r#type: "webhook_missed".into(), id: id.to_string(), attributes }))
}
