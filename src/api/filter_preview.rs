//! `/v1/webhooks/filters/preview`: which of the account's newest events a filter would have let through, and why not
//! the others. It stores nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::call::ApiCall;
use super::credential_fields::RepeatedNames;
use super::envelope::{Answer, Resource};
use super::error::{ApiError, Code, Fault};
use super::fields::{Field, RequestBody as _, body};
use super::filter_field::read_filter;
use super::state::Api;
use super::trace::with_current_request;
use super::webhook_fields::{CHANNELS, EVENTS, EndpointContext, FILTER};
use super::webhooks::context;
use crate::domain::channels::Channels;
use crate::domain::id::AccountId;
use crate::domain::payload_filter::PayloadFilter;
use crate::domain::subscription::Subscription;
use crate::store::{Endpoints, KeptEvent, Search};

/// Events that are looked at.
const MAX_EVENTS: u32 = 1_000;

/// Bytes of their messages.
const MAX_BYTES: usize = 16 << 20;

/// Events of each kind that are shown.
const MAX_SAMPLES: usize = 20;

/// How long it is looked for events of the types and channels. An account may have millions of others: then there are
/// fewer to look at.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a filter would have done with events of the past.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct PreviewAttributes {
    /// How many events were looked at: the account's newest, 1,000 and 16 MiB at most, of the types and channels that
    /// were named.
    pub examined: u32,
    /// How many of them match.
    pub matched: u32,
    /// The newest 20 that match, and then the newest 20 that do not.
    #[schema(inline)]
    pub samples: Vec<PreviewSample>,
}

/// An event that was looked at.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct PreviewSample {
    /// The event.
    #[schema(format = "uuid")]
    pub event_id: String,
    /// The event's type.
    pub event: String,
    /// Whether it matches.
    pub matched: bool,
    /// The place in the filter of the first condition that failed, as a JSON Pointer (RFC 6901); of `$or` and `$not`
    /// the place of the operator. Only present where it does not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failed_at: Option<String>,
}

const REQUIRED_FILTER: Field<EndpointContext, PayloadFilter> = Field {
    about: "The filter, as an endpoint takes it.",
    shape: FILTER.shape,
    nullable: false,
    codes: FILTER.codes,
    read: |_, value| read_filter(value)?.ok_or_else(|| vec![Fault::new(Code::FilterInvalid)]),
};

body! {
    /// A filter, and which events to try it on.
    pub struct PreviewFilter(EndpointContext) {
        filter: PayloadFilter = REQUIRED_FILTER.required(Code::FilterInvalid),
        events: Option<Vec<String>> = EVENTS
            .about("Event types and wildcards to look at, as an endpoint takes them. All types, when they are not \
                    given.")
            .maybe(),
        channels: Option<Channels> = CHANNELS
            .about("Only events that carry one of these are looked at. All events, when they are not given.")
            .or_default(),
    }
}

/// `POST /v1/webhooks/filters/preview`
pub async fn preview(call: ApiCall) -> Result<Answer, ApiError> {
    let account = call.account()?;
    let body = call.json_with_text("filter")?;
    // An endpoint may subscribe to a type that has left the catalog, and events of it may be kept.
    let endpoints = call.api.store.endpoints(account).await?;
    let subscribed = endpoints.into_iter().flat_map(|endpoint| endpoint.settings.events).collect();
    let context = context(&call.api, subscribed, RepeatedNames::default()).await?;
    let PreviewFilter { filter, events, channels } = PreviewFilter::read(&body, &context)?;
    let wanted = Subscription { entries: events.unwrap_or_else(|| vec!["*".into()]), channels, filter: None };
    let busy = || ApiError::busy("a preview of this account is under way");
    let slot = call.api.previews.take(account, (usize::MAX, 1)).ok_or_else(busy)?;
    let api = call.api.clone();
    // In a task of its own: when the client leaves, the preview still ends, which tells other nodes.
    let looking = tokio::spawn(with_current_request(async move {
        let _slot = slot;
        if !api.store.begin_preview(account).await? {
            return Err(busy());
        }
        let seen = look(&api, account, filter, wanted).await;
        if let Err(error) = api.store.end_preview(account).await {
            tracing::warn!(%account, %error, "a preview of a filter did not end: the account's next one waits for some \
                                              seconds");
        }
        seen
    }));
    let seen = looking.await.map_err(|_| ApiError::from(Code::InternalError))??;
    let resource =
        Resource { r#type: "webhook_filter_preview".into(), id: account.to_string(), attributes: seen.attributes() };
    Ok(Answer::new(200, &resource))
}

/// Looks at the account's newest events.
async fn look(api: &Api, account: AccountId, filter: PayloadFilter, wanted: Subscription) -> Result<Seen, ApiError> {
    let began = Instant::now();
    let mut seen = Seen::new(filter);
    let mut before = None;
    loop {
        let stretch = api.store.walk_kept_events(account, wanted.clone(), before).await?;
        let look = move || {
            seen.look_at(stretch.items);
            seen
        };
        seen = api.heavy.run(Some(account), look).await?;
        before = stretch.next;
        if before.is_none() || seen.is_full || began.elapsed() >= PATIENCE {
            return Ok(seen);
        }
    }
}

/// What has been seen of the events so far.
struct Seen {
    filter: PayloadFilter,
    examined: u32,
    bytes: usize,
    matched: u32,
    /// Samples that match, and those that do not.
    samples: [Vec<PreviewSample>; 2],
    /// Whether no more events are looked at.
    is_full: bool,
}

impl Seen {
    fn new(filter: PayloadFilter) -> Self {
        Self { filter, examined: 0, bytes: 0, matched: 0, samples: [Vec::new(), Vec::new()], is_full: false }
    }

    fn look_at(&mut self, events: Vec<KeptEvent>) {
        for event in events {
            self.is_full |= self.examined == MAX_EVENTS || self.bytes + event.body.len() > MAX_BYTES;
            if self.is_full {
                return;
            }
            self.examined += 1;
            self.bytes += event.body.len();
            let failed_at = self.filter.failed_at(&event.parsed());
            let matched = failed_at.is_none();
            self.matched += u32::from(matched);
            let samples = &mut self.samples[usize::from(!matched)];
            if samples.len() < MAX_SAMPLES {
                samples.push(PreviewSample {
                    event_id: event.id.to_string(),
                    event: event.event_type,
                    matched,
                    failed_at,
                });
            }
        }
    }

    fn attributes(self) -> PreviewAttributes {
        let Self { examined, matched, samples, .. } = self;
        PreviewAttributes { examined, matched, samples: samples.into_iter().flatten().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::message;
    use crate::domain::id::EventId;
    use crate::domain::time::Timestamp;

    fn event(n: usize, data: &str) -> KeptEvent {
        let id = EventId(i64::try_from(n).expect("small"));
        KeptEvent { id, event_type: "a.b".into(), channels: None, body: message("a.b", Timestamp::default(), data) }
    }

    fn seen() -> Seen {
        Seen::new(PayloadFilter::parse(r#"{"data":{"n":1}}"#).expect("a filter"))
    }

    #[test]
    fn a_thousand_events_are_looked_at_and_twenty_of_each_kind_are_shown() {
        let mut seen = seen();
        seen.look_at((0..999).map(|n| event(n, if n % 3 == 0 { r#"{"n":1}"# } else { r#"{"n":2}"# })).collect());
        assert!(!seen.is_full);
        seen.look_at(vec![event(999, "{}"), event(1_000, "{}")]);
        assert!(seen.is_full);
        let shown = seen.attributes();
        assert_eq!((shown.examined, shown.matched, shown.samples.len()), (1_000, 333, 40));
        let [first, other] = [0, 20].map(|at| &shown.samples[at]);
        assert_eq!((first.matched, first.failed_at.as_deref()), (true, None));
        assert_eq!((other.matched, other.failed_at.as_deref()), (false, Some("/data/n")));
    }

    #[test]
    fn events_are_looked_at_up_to_a_size_in_all() {
        let mut seen = seen();
        let large = format!(r#"{{"n":1,"text":"{}"}}"#, "x".repeat(MAX_BYTES / 2));
        seen.look_at(vec![event(0, &large), event(1, "{}"), event(2, &large), event(3, "{}")]);
        assert_eq!((seen.is_full, seen.examined, seen.matched), (true, 2, 1));
        assert!(seen.bytes <= MAX_BYTES);
    }
}
