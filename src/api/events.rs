//! `/v1/events`: publishing, one at a time or in batches, and looking back.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::call::{ApiCall, invalid_json};
use super::deliveries;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault};
use super::fields::{BodySchema, List, Property, Shape, Text};
use super::schema_check::no_object;
use crate::domain::event::{Event, NewEvent, message, validation_id};
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, EventId};
use crate::domain::time::Timestamp;
use crate::store::{Intake, Keep, Log, Snapshot};

/// Events in one batch.
const MAX_EVENTS: usize = 1_000;

/// KiB that count for an event beside its body, and for each of its deliveries. A delivery that arrives at once takes
/// 0.13 KiB on SQLite; one that fails keeps each attempt with the beginning of the response.
const KIB_PER_ROW: usize = 1;

/// Something that happened in an account.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Attributes {
    /// The event's type.
    pub event: String,
    /// When it happened.
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// The account that it happened in.
    #[schema(format = "uuid")]
    pub account_id: String,
    /// How many deliveries it fanned out to: one for each active endpoint that subscribes to its type.
    pub deliveries: u32,
    /// When it was accepted.
    #[schema(format = DateTime)]
    pub created_at: String,
}

fn resource(event: &Event) -> Resource<Attributes> {
    Resource {
        r#type: "event".into(),
        id: event.id.to_string(),
        attributes: Attributes {
            event: event.event_type.clone(),
            timestamp: time(event.occurred_at),
            account_id: event.account.0.to_string(),
            deliveries: event.deliveries,
            created_at: time(event.created_at),
        },
    }
}

/// What a publisher sends. `data` stays as it came, to the byte.
#[derive(Deserialize)]
struct Publish<'a> {
    event: Option<Value>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    timestamp: Option<Value>,
    account_id: Option<Value>,
}

/// What the reference shows of [`Publish`]. A handler reads it field by field: `data` goes on to the byte as it came.
pub fn publish_event() -> BodySchema {
    let time = Shape::Text(Text { format: Some("date-time"), ..Text::ANY });
    BodySchema {
        name: "PublishEvent",
        about: "Something that happened.",
        properties: vec![
            Property::new(
                "event",
                "An event type of the catalog.",
                Shape::Text(Text::ANY),
                true,
                &[Code::EventTypeRequired, Code::EventTypeUnknown],
            ),
            Property::new(
                "data",
                "What receivers get as `data`, to the byte as it is sent. Where the event type has a schema, it must \
                 match.",
                Shape::Object,
                true,
                &[Code::EventDataRequired, Code::EventDataInvalid],
            ),
            Property::new(
                "timestamp",
                "When it happened: ISO 8601 with its offset. Now, when it is not given.",
                time,
                false,
                &[Code::EventTimestampInvalid],
            ),
            Property::new(
                "account_id",
                "The account that it happened in, by its id or its `external_id`. Required with an operator key; \
                 otherwise the key's own, if it is given.",
                Shape::Text(Text::ANY),
                false,
                &[Code::NotFound, Code::EventAccountRequired],
            ),
        ],
    }
}

/// What the reference shows of a batch.
pub fn publish_events() -> BodySchema {
    let events = Shape::List(List { items: &Shape::Body("PublishEvent"), min: Some(1), max: Some(MAX_EVENTS) });
    let of_one = publish_event().properties.into_iter().flat_map(|property| property.codes);
    let codes: Vec<_> =
        [Code::BatchRequired, Code::BatchTooMany, Code::BatchInvalid].into_iter().chain(of_one).collect();
    let about = "The events, each up to `limits.max_body` bytes.";
    BodySchema {
        name: "PublishEvents",
        about: "Events that are accepted together, all or none.",
        properties: vec![Property::new("events", about, events, true, &codes)],
    }
}

/// `POST /v1/events`
pub async fn publish(call: ApiCall) -> Result<Answer, ApiError> {
    let body = call.json_bytes()?;
    let event = match read(&call, &body) {
        // Another node may have changed the catalog or the accounts just now.
        Err(_) => {
            call.api.store.refresh().await?;
            read(&call, &body).map_err(ReadError::into_error)?
        }
        Ok(event) => event,
    };
    let keep = call.keep(|accepted: &Vec<Event>| one(accepted));
    let accepted = accept(&call, vec![event], keep).await?;
    Ok(one(&accepted))
}

fn one(accepted: &[Event]) -> Answer {
    accepted.first().map_or_else(Answer::no_content, |event| Answer::new(202, &resource(event)))
}

/// `POST /v1/events/batch`
pub async fn publish_batch(call: ApiCall) -> Result<Answer, ApiError> {
    let bodies = read_batch(&call)?;
    if bodies.is_empty() {
        return Err(Fault::new(Code::BatchRequired).within("/events").into());
    }
    if bodies.len() > MAX_EVENTS {
        return Err(Fault::new(Code::BatchTooMany).within("/events").into());
    }
    let events = match read_all(&call, &bodies) {
        // As in `publish`.
        Err(_) => {
            call.api.store.refresh().await?;
            read_all(&call, &bodies)?
        }
        Ok(events) => events,
    };
    let keep = call.keep(|accepted: &Vec<Event>| many(accepted));
    let accepted = accept(&call, events, keep).await?;
    Ok(many(&accepted))
}

/// Reads every event of a batch; their faults are in one answer.
fn read_all(call: &ApiCall, bodies: &[impl AsRef<[u8]>]) -> Result<Vec<NewEvent>, ApiError> {
    let mut events = Vec::with_capacity(bodies.len());
    let mut faults = Vec::new();
    let most = call.api.settings.max_body;
    for (index, body) in bodies.iter().map(AsRef::as_ref).enumerate() {
        let place = format!("/events/{index}");
        if body.len() > most {
            faults.push(Fault::new(Code::BodyTooLarge).naming(most).within(&place));
            continue;
        }
        match read(call, body) {
            Ok(event) => events.push(event),
            Err(ReadError::Whole(error)) if error.status() == 404 => return Err(error),
            Err(ReadError::Whole(_)) => faults.push(Fault::new(Code::BatchInvalid).within(&place)),
            Err(ReadError::Faults(found)) => faults.extend(found.into_iter().map(|fault| fault.within(&place))),
        }
    }
    ApiError::check(faults)?;
    Ok(events)
}

fn many(accepted: &[Event]) -> Answer {
    let resources: Vec<_> = accepted.iter().map(resource).collect();
    Answer::new(202, &resources)
}

/// `GET /v1/events`
pub async fn list(call: ApiCall) -> Result<Answer, ApiError> {
    let page = call.page();
    let found = call.api.store.events(call.account()?, page).await?;
    Ok(Answer::page(&found, page, resource))
}

/// An event with what it fanned out to.
#[derive(Serialize, Deserialize)]
pub struct WithDeliveries {
    /// The event.
    #[serde(flatten)]
    pub event: Resource<Attributes>,
    /// What it fanned out to.
    pub relationships: Relationships,
}

/// What an event is related to.
#[derive(Serialize, Deserialize)]
pub struct Relationships {
    /// Its deliveries.
    pub deliveries: Related<deliveries::Attributes>,
}

/// Resources that another one is related to.
#[derive(Serialize, Deserialize)]
pub struct Related<A> {
    /// The resources.
    pub data: Vec<Resource<A>>,
}

/// `GET /v1/events/{id}`
pub async fn read_one(call: ApiCall) -> Result<Answer, ApiError> {
    let id = call.param("id", EventId::parse)?;
    let (event, found) = call.api.store.event(call.account()?, id).await?;
    let data = found.iter().map(|delivery| deliveries::resource(delivery, true)).collect();
    let relationships = Relationships { deliveries: Related { data } };
    Ok(Answer::new(200, &WithDeliveries { event: resource(&event), relationships }))
}

/// Stores events, as far as their accounts may still store some.
async fn accept(call: &ApiCall, events: Vec<NewEvent>, keep: Option<Keep<Vec<Event>>>) -> Result<Vec<Event>, ApiError> {
    let mut stored: Vec<(AccountId, usize)> = Vec::with_capacity(1);
    for event in &events {
        match stored.iter_mut().find(|(account, _)| *account == event.account) {
            Some((_, bytes)) => *bytes += event.body.len(),
            None => stored.push((event.account, event.body.len())),
        }
    }
    for (account, _) in &stored {
        call.api.count_storage(*account).await?;
    }
    let accepted = call.api.store.accept(events, keep).await?;
    count(call, &accepted);
    for (account, bytes) in stored {
        let of_account = accepted.iter().filter(|event| event.account.0 == account);
        let rows: usize = of_account.map(|event| 1 + event.deliveries as usize).sum();
        let kib = bytes.div_ceil(1024) + rows * KIB_PER_ROW;
        call.api.charge_storage(account, u32::try_from(kib).unwrap_or(u32::MAX)).await;
    }
    Ok(accepted)
}

fn count(call: &ApiCall, accepted: &[Event]) {
    let deliveries: u64 = accepted.iter().map(|event| u64::from(event.deliveries)).sum();
    call.api.metrics.events_accepted_total.add(accepted.len() as u64);
    call.api.metrics.deliveries_created_total.add(deliveries);
}

/// Why a body is no event.
enum ReadError {
    /// The body as a whole, or the account that it names.
    Whole(ApiError),
    /// Fields of it.
    Faults(Vec<Fault>),
}

impl ReadError {
    fn into_error(self) -> ApiError {
        match self {
            Self::Whole(error) => error,
            Self::Faults(faults) => ApiError::check(faults).err().unwrap_or_else(|| Code::InternalError.into()),
        }
    }
}

/// Reads one event, in the order of refusal: JSON, the account (404), then the fields.
fn read(call: &ApiCall, body: &[u8]) -> Result<NewEvent, ReadError> {
    let publish: Publish<'_> = serde_json::from_slice(body).map_err(|error| ReadError::Whole(invalid_json(&error)))?;
    let mut faults = Vec::new();
    let account = read_account(call, publish.account_id.as_ref()).map_err(ReadError::Whole)?;
    if account.is_none() {
        faults.push(Fault::of_field(Code::EventAccountRequired, "account_id"));
    }
    let catalog = call.api.store.view().event_types();
    let event_type = match &publish.event {
        None => Err(Fault::of_field(Code::EventTypeRequired, "event")),
        Some(value) => value.as_str().and_then(|name| catalog.get(name)).ok_or_else(|| {
            let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let shown: String = shown.chars().take(200).collect();
            Fault::of_field(Code::EventTypeUnknown, "event").naming(&shown).with_meta("event", shown)
        }),
    };
    let event_type = event_type.map_err(|fault| faults.push(fault)).ok();
    let data = match publish.data.map(RawValue::get) {
        None => Err(Fault::of_field(Code::EventDataRequired, "data")),
        Some(text) if !text.starts_with('{') => {
            Err(Fault::of_field(Code::EventDataInvalid, "data").because(&no_object()))
        }
        Some(text) => match event_type.map(|entry| call.api.schemas.check(entry, text)) {
            Some(Err(reason)) => Err(Fault::of_field(Code::EventDataInvalid, "data").because(&reason)),
            _ => Ok(text),
        },
    };
    let data = data.map_err(|fault| faults.push(fault)).ok();
    let occurred_at = match &publish.timestamp {
        None => Some(call.api.clock.now()),
        Some(value) => value.as_str().and_then(Timestamp::parse),
    };
    if occurred_at.is_none() {
        faults.push(Fault::of_field(Code::EventTimestampInvalid, "timestamp"));
    }
    match (account, event_type, data, occurred_at) {
        (Some(account), Some(entry), Some(data), Some(occurred_at)) if faults.is_empty() => Ok(NewEvent {
            account,
            event_type: entry.name.clone(),
            occurred_at,
            validation_id: validation_of(&entry.name, data),
            body: message(&entry.name, occurred_at, data),
        }),
        _ => Err(ReadError::Faults(faults)),
    }
}

/// The key's own account; with an operator's key the one that is named, if one is.
fn read_account(call: &ApiCall, named: Option<&Value>) -> Result<Option<AccountId>, ApiError> {
    let named = match named {
        None | Some(Value::Null) => None,
        Some(value) => Some(value.as_str().and_then(|text| account_named(call, text)).ok_or(Code::NotFound)?),
    };
    match (call.caller.account(), named) {
        (Some(own), Some(named)) if own != named => Err(Code::NotFound.into()),
        (Some(own), _) => Ok(Some(own)),
        (None, Some(named)) if !call.api.store.view().has_account(named) => Err(Code::NotFound.into()),
        (None, named) => Ok(named),
    }
}

/// The account with this id or external id. One with an id need not exist.
fn account_named(call: &ApiCall, text: &str) -> Option<AccountId> {
    AccountId::parse(text).or_else(|| call.api.store.view().account_named(&ExternalId::parse(text)?))
}

fn validation_of(event_type: &str, data: &str) -> Option<uuid::Uuid> {
    #[derive(Deserialize)]
    struct About {
        id: Option<Value>,
    }
    if !event_type.starts_with("validation.") {
        return None;
    }
    let about: About = serde_json::from_str(data).ok()?;
    validation_id(event_type, about.id.as_ref().and_then(Value::as_str))
}

/// The bodies of a batch: the lines of NDJSON, or the members of `events`.
fn read_batch(call: &ApiCall) -> Result<Vec<Bytes>, ApiError> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        #[serde(borrow)]
        events: Option<&'a RawValue>,
    }
    let body = call.body()?;
    if body.is_empty() {
        return Err(Code::BodyEmpty.into());
    }
    if call.has_media_type(&["application/x-ndjson", "application/ndjson", "application/jsonl"]) {
        let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        return Ok(lines.map(|line| body.slice_ref(line)).collect());
    }
    if !call.has_media_type(&["application/json"]) {
        let allowed = "application/json or application/x-ndjson";
        return Err(Fault::new(Code::UnsupportedMediaType).naming(allowed).into());
    }
    let body = call.json_bytes()?;
    let batch: Batch<'_> = serde_json::from_slice(&body).map_err(|error| invalid_json(&error))?;
    let Some(events) = batch.events else { return Ok(Vec::new()) };
    let invalid = || ApiError::from(Fault::new(Code::BatchInvalid).within("/events"));
    let events: Vec<&RawValue> = serde_json::from_str(events.get()).map_err(|_| invalid())?;
    Ok(events.into_iter().map(|event| body.slice_ref(event.get().as_bytes())).collect())
}
