//! `/v1/events`: publishing, one at a time or in batches, and looking back.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::call::{ApiCall, invalid_json};
use super::client_fields::{CHANNEL_SHAPE, read_channels};
use super::counting::StorageUse;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault};
use super::fields::{BodySchema, Field, List, Maybe, OrDefault, Property, Required, Shape, Slot as _, Text, take};
use super::schema_check::{Allowance, CheckError, no_object};
use super::{Api, deliveries, trace_context};
use crate::domain::channels::{Channels, MAX_EVENT_CHANNELS};
use crate::domain::event::{Event, EventType, NewEvent, message, validation_id};
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, EventId};
use crate::domain::time::Timestamp;
use crate::domain::trace_context::TraceContext;
use crate::heavy::LARGE_BODY;
use crate::store::{EventTypes, Intake, Log, PendingReply, Snapshot};

/// Events in one batch.
const MAX_EVENTS: usize = 1_000;

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
    /// The channels that it carries. Only present where it was published with some.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub channels: Option<Vec<String>>,
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
            channels: event.channels.as_ref().map(|channels| channels.names().to_vec()),
            deliveries: event.deliveries,
            created_at: time(event.created_at),
        },
    }
}

/// What a publisher sends. It is no `body!`: that reads a map of values, and `data` stays as it came, to the byte. The
/// reference and `Reader::read` share the slots of all other fields but `account_id`, whose fault is a 404.
#[derive(Deserialize)]
struct Publish<'a> {
    event: Option<Value>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    timestamp: Option<Value>,
    account_id: Option<Value>,
    channels: Option<Value>,
    traceparent: Option<Value>,
    tracestate: Option<Value>,
}

/// The type, out of the catalog.
const fn type_slot<'a>() -> Required<&'a EventTypes, &'a EventType> {
    let field: Field<&'a EventTypes, &'a EventType> = Field {
        about: "An event type of the catalog.",
        shape: Shape::Text(Text::ANY),
        nullable: false,
        codes: &[Code::EventTypeUnknown],
        read: |&catalog, value| {
            value.as_str().and_then(|name| catalog.get(name)).ok_or_else(|| {
                let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let shown: String = shown.chars().take(200).collect();
                vec![Fault::new(Code::EventTypeUnknown).naming(&shown).with_meta("event", shown)]
            })
        },
    };
    field.required(Code::EventTypeRequired)
}

const TIMESTAMP: Maybe<(), Timestamp> = Field {
    about: "When it happened: ISO 8601 with its offset. Now, when it is not given.",
    shape: Shape::Text(Text { format: Some("date-time"), ..Text::ANY }),
    nullable: true,
    codes: &[Code::EventTimestampInvalid],
    read: |(), value| {
        let at = value.as_str().and_then(Timestamp::parse);
        at.ok_or_else(|| vec![Fault::new(Code::EventTimestampInvalid)])
    },
}
.maybe();

const CHANNELS: OrDefault<(), Option<Channels>> = Field {
    about: "Up to 5 distinct names. Endpoints that have channels get the event only if it carries one of theirs. They \
            are not sent.",
    shape: Shape::List(List { items: &CHANNEL_SHAPE, min: Some(1), max: Some(MAX_EVENT_CHANNELS) }),
    nullable: true,
    codes: &[Code::EventChannelsInvalid],
    read: |(), value| read_channels(value, MAX_EVENT_CHANNELS, Code::EventChannelsInvalid),
}
.or_default();

/// What the reference shows of [`Publish`].
pub fn publish_event() -> BodySchema {
    BodySchema {
        name: "PublishEvent",
        about: "Something that happened.",
        properties: [
            type_slot().property("event"),
            Property::new(
                "data",
                "What receivers get as `data`, to the byte as it is sent. Where the event type has a schema, it must \
                 match.",
                Shape::Object,
                true,
                &[Code::EventDataRequired, Code::EventDataInvalid],
            ),
            TIMESTAMP.property("timestamp"),
            Property::new(
                "account_id",
                "The account that it happened in, by its id or its `external_id`. Required with an operator key; \
                 otherwise the key's own, if it is given.",
                Shape::Text(Text::ANY),
                false,
                &[Code::NotFound, Code::EventAccountRequired],
            ),
            CHANNELS.property("channels"),
        ]
        .into_iter()
        .chain(trace_context::fields())
        .collect(),
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
    let events = read_events(&call, Reading::new(vec![body], false)).await?;
    let pending_reply = call.pending_reply(|accepted: &Vec<Event>| one(accepted));
    let accepted = accept(&call, events, pending_reply).await?;
    Ok(one(&accepted))
}

fn one(accepted: &[Event]) -> Answer {
    accepted.first().map_or_else(Answer::no_content, |event| Answer::new(202, &resource(event)))
}

/// `POST /v1/events/batch`
pub async fn publish_batch(call: ApiCall) -> Result<Answer, ApiError> {
    let bodies = read_batch(&call).await?;
    if bodies.is_empty() {
        return Err(Fault::new(Code::BatchRequired).within("/events").into());
    }
    if bodies.len() > MAX_EVENTS {
        return Err(Fault::new(Code::BatchTooMany).within("/events").into());
    }
    let events = read_events(&call, Reading::new(bodies, true)).await?;
    let pending_reply = call.pending_reply(|accepted: &Vec<Event>| many(accepted));
    let accepted = accept(&call, events, pending_reply).await?;
    Ok(many(&accepted))
}

/// Reads every event of a call; all faults are in one answer. What may take long is read off the threads that serve
/// requests.
async fn read_events(call: &ApiCall, mut reading: Reading) -> Result<Vec<NewEvent>, ApiError> {
    let trace = if call.api.settings.trace_context { trace_context::of_headers(&call.headers) } else { None };
    let reader = Reader { api: call.api.clone(), account: call.caller.account(), trace };
    let mut is_heavy = reading.bodies.iter().map(Bytes::len).sum::<usize>() > LARGE_BODY;
    loop {
        let pause = if is_heavy {
            let reader = reader.clone();
            let read_on = move || {
                let pause = reading.read_on(&reader, &mut Allowance::unbounded());
                (reading, pause)
            };
            let (read, pause) = call.api.heavy.run(call.caller.account(), read_on).await?;
            reading = read;
            pause?
        } else {
            reading.read_on(&reader, &mut Allowance::of_request())?
        };
        match pause {
            None => return reading.end(),
            Some(Pause::Slow) => is_heavy = true,
            Some(Pause::Late) => {
                call.api.store.refresh().await?;
                reading.is_fresh = true;
            }
        }
    }
}

/// The bodies of a call, and what has been read of them. Another thread can read on.
struct Reading {
    bodies: Vec<Bytes>,
    /// Whether faults name the event that they are in.
    is_batch: bool,
    /// The body that is read next.
    next: usize,
    events: Vec<NewEvent>,
    faults: Vec<Fault>,
    /// Whether the view shows everything that was committed before the call.
    is_fresh: bool,
}

/// What must happen before a body is read.
enum Pause {
    /// The view must be brought up to date: another node may have changed the catalog or the accounts just now.
    Late,
    /// The thread must be one for heavy work.
    Slow,
}

impl Reading {
    fn new(bodies: Vec<Bytes>, is_batch: bool) -> Self {
        let events = Vec::with_capacity(bodies.len());
        Self { bodies, is_batch, next: 0, events, faults: Vec::new(), is_fresh: false }
    }

    /// Reads up to the end or to a pause. An event is read again after a pause, and those before it are not.
    fn read_on(&mut self, reader: &Reader, allowance: &mut Allowance) -> Result<Option<Pause>, ApiError> {
        let most = reader.api.changing.read().max_body;
        while let Some(body) = self.bodies.get(self.next) {
            let read = if body.len() > most {
                let faults = vec![Fault::new(Code::BodyTooLarge).naming(most)];
                Err(ReadError::Faults { faults, is_of_view: false })
            } else {
                reader.read(body, allowance)
            };
            let found = match read {
                Ok(event) => {
                    self.events.push(event);
                    Vec::new()
                }
                Err(ReadError::Slow) => return Ok(Some(Pause::Slow)),
                Err(error) if error.may_be_late() && !self.is_fresh => return Ok(Some(Pause::Late)),
                Err(ReadError::Whole(error)) if !self.is_batch || error.status() == 404 => return Err(error),
                Err(ReadError::Whole(_)) => vec![Fault::new(Code::BatchInvalid)],
                Err(ReadError::Faults { faults, .. }) => faults,
            };
            let (is_batch, next) = (self.is_batch, self.next);
            let placed = |fault: Fault| if is_batch { fault.within(&format!("/events/{next}")) } else { fault };
            self.faults.extend(found.into_iter().map(placed));
            self.next += 1;
        }
        Ok(None)
    }

    fn end(self) -> Result<Vec<NewEvent>, ApiError> {
        ApiError::check(self.faults)?;
        Ok(self.events)
    }
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
async fn accept(
    call: &ApiCall,
    events: Vec<NewEvent>,
    pending_reply: Option<PendingReply<Vec<Event>>>,
) -> Result<Vec<Event>, ApiError> {
    let mut stored = StorageUse::default();
    for event in &events {
        stored.of(event.account).bytes += event.stored_bytes();
    }
    for used in &stored.accounts {
        call.api.count_storage(used.account).await?;
    }
    let accepted = call.api.store.accept(events, pending_reply).await?;
    count(call, &accepted);
    for event in &accepted {
        stored.of(event.account.0).rows += 1 + event.deliveries as usize + event.missed as usize;
    }
    for used in &stored.accounts {
        call.api.charge_storage(used.account, used.kib()).await;
    }
    Ok(accepted)
}

fn count(call: &ApiCall, accepted: &[Event]) {
    let deliveries: u64 = accepted.iter().map(|event| u64::from(event.deliveries)).sum();
    call.api.metrics.events_accepted_total.add(accepted.len() as u64);
    call.api.metrics.deliveries_created_total.add(deliveries);
}

/// Why a body was not read as an event.
enum ReadError {
    /// The body as a whole, or the account that it names.
    Whole(ApiError),
    /// Fields of it, and whether one of the faults comes from what the view shows.
    Faults { faults: Vec<Fault>, is_of_view: bool },
    /// Its check may take longer than is allowed here.
    Slow,
}

impl ReadError {
    /// Whether there would be no error, or another one, by a newer catalog or newer accounts.
    fn may_be_late(&self) -> bool {
        match self {
            Self::Whole(error) => error.status() == 404,
            Self::Faults { is_of_view, .. } => *is_of_view,
            Self::Slow => false,
        }
    }
}

/// Reads events for a caller, on any thread.
#[derive(Clone)]
struct Reader {
    api: Api,
    account: Option<AccountId>,
    /// Of events without a trace of their own.
    trace: Option<TraceContext>,
}

impl Reader {
    /// Reads one event, in the order of refusal: JSON, the account (404), then the fields.
    fn read(&self, body: &[u8], allowance: &mut Allowance) -> Result<NewEvent, ReadError> {
        let publish: Publish<'_> =
            serde_json::from_slice(body).map_err(|error| ReadError::Whole(invalid_json(&error)))?;
        let mut faults = Vec::new();
        let account = self.account(publish.account_id.as_ref()).map_err(ReadError::Whole)?;
        if account.is_none() {
            faults.push(Fault::of_field(Code::EventAccountRequired, "account_id"));
        }
        let catalog = self.api.store.view().event_types();
        let event_type = take(&type_slot(), "event", &&*catalog, publish.event.as_ref(), &mut faults);
        let mut is_of_view = publish.event.is_some() && event_type.is_none();
        let data = match publish.data.map(RawValue::get) {
            None => Err(Fault::of_field(Code::EventDataRequired, "data")),
            Some(text) if !text.starts_with('{') => {
                Err(Fault::of_field(Code::EventDataInvalid, "data").because(&no_object()))
            }
            Some(text) => match event_type.map(|entry| self.api.schemas.check(entry, text, allowance)) {
                Some(Err(CheckError::Slow)) => return Err(ReadError::Slow),
                Some(Err(CheckError::Mismatch(reason))) => {
                    is_of_view = true;
                    Err(Fault::of_field(Code::EventDataInvalid, "data").because(&reason))
                }
                Some(Ok(())) | None => Ok(text),
            },
        };
        let data = data.map_err(|fault| faults.push(fault)).ok();
        let timestamp = take(&TIMESTAMP, "timestamp", &(), publish.timestamp.as_ref(), &mut faults);
        let channels = take(&CHANNELS, "channels", &(), publish.channels.as_ref(), &mut faults);
        let trace = self.trace(&publish);
        match (account, event_type, data, timestamp, channels) {
            (Some(account), Some(entry), Some(data), Some(timestamp), Some(channels)) => {
                debug_assert!(faults.is_empty(), "a field without a fault has a value");
                let occurred_at = timestamp.unwrap_or_else(|| self.api.clock.now());
                Ok(NewEvent {
                    account,
                    event_type: entry.name.clone(),
                    occurred_at,
                    validation_id: validation_of(&entry.name, data),
                    channels,
                    trace,
                    body: message(&entry.name, occurred_at, data),
                })
            }
            _ => Err(ReadError::Faults { faults, is_of_view }),
        }
    }

    /// The event's own trace, or that of the call.
    fn trace(&self, publish: &Publish<'_>) -> Option<TraceContext> {
        if !self.api.settings.trace_context {
            return None;
        }
        let own = trace_context::of_fields(publish.traceparent.as_ref(), publish.tracestate.as_ref());
        own.or_else(|| self.trace.clone())
    }

    /// The key's own account; with an operator's key the one that is named, if one is.
    fn account(&self, named: Option<&Value>) -> Result<Option<AccountId>, ApiError> {
        let named = match named {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_str().and_then(|text| self.account_named(text)).ok_or(Code::NotFound)?),
        };
        match (self.account, named) {
            (Some(own), Some(named)) if own != named => Err(Code::NotFound.into()),
            (Some(own), _) => Ok(Some(own)),
            (None, Some(named)) if !self.api.store.view().has_account(named) => Err(Code::NotFound.into()),
            (None, named) => Ok(named),
        }
    }

    /// The account with this id or external id. One with an id need not exist.
    fn account_named(&self, text: &str) -> Option<AccountId> {
        AccountId::parse(text).or_else(|| self.api.store.view().account_named(&ExternalId::parse(text)?))
    }
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
async fn read_batch(call: &ApiCall) -> Result<Vec<Bytes>, ApiError> {
    let body = call.body()?;
    if body.is_empty() {
        return Err(Code::BodyEmpty.into());
    }
    let is_ndjson = call.has_media_type(&["application/x-ndjson", "application/ndjson", "application/jsonl"]);
    if !is_ndjson && !call.has_media_type(&["application/json"]) {
        let allowed = "application/json or application/x-ndjson";
        return Err(Fault::new(Code::UnsupportedMediaType).naming(allowed).into());
    }
    let body = if is_ndjson { body } else { call.json_bytes()? };
    let is_large = body.len() > LARGE_BODY;
    let split = move || if is_ndjson { Ok(lines(&body)) } else { members(&body) };
    if !is_large {
        return split();
    }
    call.api.heavy.run(call.caller.account(), split).await?
}

/// As many lines as a batch may have, and one more of those that it has beyond.
fn lines(body: &Bytes) -> Vec<Bytes> {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    lines.take(MAX_EVENTS + 1).map(|line| body.slice_ref(line)).collect()
}

/// As many members of `events` as a batch may have, and one more of those that it has beyond.
fn members(body: &Bytes) -> Result<Vec<Bytes>, ApiError> {
    #[derive(Deserialize)]
    struct Batch<'a> {
        #[serde(borrow)]
        events: Option<&'a RawValue>,
    }
    let batch: Batch<'_> = serde_json::from_slice(body).map_err(|error| invalid_json(&error))?;
    let Some(events) = batch.events else { return Ok(Vec::new()) };
    let invalid = || ApiError::from(Fault::new(Code::BatchInvalid).within("/events"));
    let events: Vec<&RawValue> = serde_json::from_str(events.get()).map_err(|_| invalid())?;
    Ok(events.into_iter().take(MAX_EVENTS + 1).map(|event| body.slice_ref(event.get().as_bytes())).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::test_api;

    #[tokio::test]
    async fn only_an_event_whose_faults_a_newer_view_may_mend_is_read_again_and_only_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let account = Some(AccountId::from_random([1; 16]));
        let reader = Reader { api: test_api::api(folder.path()).await, account, trace: None };
        let bodies = [
            r#"{"event":"billing.payment_failed","data":{}}"#,
            "{}",
            "7",
            r#"{"event":"no.such","data":{}}"#,
            r#"{"event":"no.such","data":1}"#,
        ];
        let bodies = bodies.map(|body| Bytes::from_static(body.as_bytes())).to_vec();
        let mut reading = Reading::new(bodies, true);
        let read_on = |reading: &mut Reading| reading.read_on(&reader, &mut Allowance::of_request()).expect("no 404");
        assert!(matches!(read_on(&mut reading), Some(Pause::Late)));
        assert_eq!((reading.next, reading.events.len(), reading.faults.len()), (3, 1, 3), "these are not read again");
        reading.is_fresh = true;
        assert!(read_on(&mut reading).is_none());
        assert_eq!((reading.next, reading.events.len(), reading.faults.len()), (5, 1, 6));
    }

    #[tokio::test]
    async fn every_field_of_the_reference_is_read_and_refused_with_its_codes() {
        let folder = tempfile::tempdir().expect("a folder");
        let account = Some(AccountId::from_random([1; 16]));
        let reader = Reader { api: test_api::api(folder.path()).await, account, trace: None };
        let read = |body: &Value| match reader.read(body.to_string().as_bytes(), &mut Allowance::of_request()) {
            Ok(_) => Vec::new(),
            Err(ReadError::Faults { faults, .. }) => faults,
            Err(ReadError::Whole(error)) if error.is(Code::NotFound) => vec![Fault::new(Code::NotFound)],
            Err(ReadError::Whole(_) | ReadError::Slow) => panic!("{body} was not read"),
        };
        let whole = json!({ "event": "billing.payment_failed", "data": {} });
        assert!(read(&whole).is_empty());
        for Property { name, codes, is_required, .. } in publish_event().properties {
            let (mut wrong, mut null) = (whole.clone(), whole.clone());
            // No field takes this. One without codes ignores what it does not take.
            wrong[name] = json!([{}]);
            null[name] = Value::Null;
            let (of_wrong, of_null) = (read(&wrong), read(&null));
            assert_eq!(of_wrong.len(), usize::from(!codes.is_empty()), "{name}");
            assert_eq!(of_null.len(), usize::from(is_required), "{name}");
            assert!(of_wrong.iter().chain(&of_null).all(|fault| codes.contains(&fault.code)), "{name}");
        }
    }
}
