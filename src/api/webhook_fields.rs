//! What a client can set of an endpoint, field by field, and the bodies that set it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::certificate_fields::{self, CLIENT_CERTIFICATE_SHAPE, read_client_certificate};
use super::client_fields::{
    CHANNEL_SHAPE, EXTERNAL_ID_SHAPE, METADATA_SHAPE, read_channels, read_external_id, read_metadata,
};
use super::credential_fields::{
    self, AUTHENTICATION_SHAPE, HEADERS_SHAPE, NEXT_HEADERS_SHAPE, RepeatedNames, read_authentication, read_headers,
};
use super::error::{ApiError, Code, Fault};
use super::fields::{Field, List, RequestBody as _, Shape, Text, body};
use super::filter_field::read_filter;
use crate::domain::authentication::Authentication;
use crate::domain::channels::{Channels, MAX_ENDPOINT_CHANNELS};
use crate::domain::client_certificate::ShownCertificate;
use crate::domain::credential::WithCredential;
use crate::domain::credentials::{Credentials, CredentialsChange, ShownCredentials, UrlAfter};
use crate::domain::custom_headers::NewHeaders;
use crate::domain::endpoint::{EndpointStatus, MAX_DESCRIPTION_CHARS, MAX_EVENTS, Ordering};
use crate::domain::event::Operational;
use crate::domain::external_id::ExternalId;
use crate::domain::payload_filter::PayloadFilter;
use crate::domain::rate_limit::{MAX_RATE_LIMIT_CHARS, RATE_LIMIT_PATTERN, RateLimit};
use crate::domain::retry::{MAX_ENDPOINT_DELAY_SECONDS, MAX_ENDPOINT_STEPS, RetrySchedule};
use crate::domain::secret::{MAX_OVERLAP_SECONDS, SECRET_CHARS, SECRET_PATTERN, Secret};
use crate::domain::settings::{
    EndpointChange, EndpointSettings, MAX_IN_FLIGHT_PER_ENDPOINT, MAX_TIMEOUT_SECONDS, Metadata,
};
use crate::domain::subscription::is_wildcard;
use crate::domain::time::Timestamp;
use crate::domain::url::{Environment, MAX_URL_CHARS, ReceiverUrl, UrlError};
use crate::store::{EventTypes, NewEndpoint};

/// What the fields of an endpoint are read with.
pub struct EndpointContext {
    /// What receiver URLs may be.
    pub environment: Environment,
    /// The types that can be subscribed to.
    pub catalog: Arc<EventTypes>,
    /// The types that the endpoint subscribes to now: one that has left the catalog may stay.
    pub subscribed: Vec<String>,
    /// The setting `webhooks.max_in_flight_per_endpoint`.
    pub max_in_flight: u32,
    /// The setting `brand`, after which headers are named.
    pub brand: String,
    /// Which objects of the body have a name twice, of which its JSON has kept one.
    pub repeated: RepeatedNames,
    /// The time, by which certificates have expired.
    pub now: Timestamp,
}

type EndpointField<T> = Field<EndpointContext, T>;

/// The receiver.
pub const URL: EndpointField<ReceiverUrl> = Field {
    about: "Receiver URL. In production it must use HTTPS, and its host must not resolve to a private, local or \
            reserved address.",
    shape: Shape::Text(Text { format: Some("uri"), max: Some(MAX_URL_CHARS), ..Text::ANY }),
    nullable: false,
    codes: &[
        Code::UrlInvalidType,
        Code::UrlEmpty,
        Code::UrlTooLong,
        Code::UrlInvalidFormat,
        Code::UrlNotHttps,
        Code::UrlDnsFailed,
        Code::UrlSsrfBlocked,
        Code::UrlPortBlocked,
    ],
    read: |context, value| {
        let text = value.as_str().ok_or_else(|| vec![Fault::new(Code::UrlInvalidType)])?;
        ReceiverUrl::parse(text, context.environment).map_err(|error| {
            let code = match error {
                UrlError::Empty => Code::UrlEmpty,
                UrlError::TooLong => Code::UrlTooLong,
                UrlError::InvalidFormat => Code::UrlInvalidFormat,
                UrlError::NotHttps => Code::UrlNotHttps,
            };
            vec![Fault::new(code)]
        })
    },
};

/// The receiver of a new endpoint: an empty URL is none.
const NEW_URL: EndpointField<ReceiverUrl> = Field {
    codes: &[
        Code::UrlInvalidType,
        Code::UrlTooLong,
        Code::UrlInvalidFormat,
        Code::UrlNotHttps,
        Code::UrlDnsFailed,
        Code::UrlSsrfBlocked,
        Code::UrlPortBlocked,
    ],
    read: |context, value| match value.as_str() {
        Some("") => Err(vec![Fault::new(Code::UrlRequired)]),
        _ => (URL.read)(context, value),
    },
    ..URL
};

/// The event types and wildcards. They are counted as sent; then duplicates are dropped.
pub const EVENTS: EndpointField<Vec<String>> = Field {
    about: "Event types to subscribe to, from the catalog. `*` means every type, now and later; `order.*` every type \
            that begins with `order.`, which need not exist yet. An event makes one delivery, however many entries \
            mean it. No wildcard means `endpoint.auto_disabled`, `endpoint.disabled`, `endpoint.enabled`, \
            `delivery.failed` and `secret.rotated`, by which the server tells of the account's other endpoints: name \
            them. Counted as sent, then duplicates are dropped.",
    shape: Shape::List(List { items: &Shape::Text(Text::ANY), min: Some(1), max: Some(MAX_EVENTS) }),
    nullable: false,
    codes: &[Code::EventsRequired, Code::EventsTooMany, Code::EventInvalid],
    read: read_events,
};

/// The label.
pub const DESCRIPTION: EndpointField<Option<String>> = Field {
    about: "Free-form label.",
    shape: Shape::Text(Text { max: Some(MAX_DESCRIPTION_CHARS), ..Text::ANY }),
    nullable: true,
    codes: &[Code::DescriptionInvalidType, Code::DescriptionTooLong],
    read: |_, value| match value {
        Value::Null => Ok(None),
        Value::String(text) if text.chars().count() > MAX_DESCRIPTION_CHARS => {
            Err(vec![Fault::new(Code::DescriptionTooLong)])
        }
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(vec![Fault::new(Code::DescriptionInvalidType)]),
    },
};

/// Whether it receives.
pub const STATUS: EndpointField<EndpointStatus> = Field {
    about: "`active` (which also clears the failure counter) or `disabled`.",
    shape: Shape::OneOf(|| [EndpointStatus::Active, EndpointStatus::Disabled].map(EndpointStatus::name).to_vec()),
    nullable: false,
    codes: &[Code::StatusInvalid],
    read: |_, value| {
        let status = value.as_str().and_then(EndpointStatus::parse_settable);
        status.ok_or_else(|| vec![Fault::new(Code::StatusInvalid)])
    },
};

/// What the status of a new endpoint means.
const NEW_STATUS: &str = "`active`, or `disabled`: the endpoint is registered and receives nothing yet. What is \
                          published meanwhile counts as missed.";

/// In which order it receives.
pub const ORDERING: EndpointField<Ordering> = Field {
    about: "`fifo`: deliveries go in the order in which their events were accepted, one at a time; while one is being \
            retried the others wait. `none` (the default): none waits for another. A change holds for what is \
            accepted from then on.",
    shape: Shape::OneOf(|| Ordering::ALL.map(Ordering::name).to_vec()),
    nullable: false,
    codes: &[Code::OrderingInvalid],
    read: |_, value| {
        let ordering = value.as_str().and_then(Ordering::parse);
        ordering.ok_or_else(|| vec![Fault::new(Code::OrderingInvalid)])
    },
};

/// The client's own notes.
pub const METADATA: EndpointField<Option<Metadata>> = Field {
    about: "Your own notes: up to 20 keys of up to 64 letters, digits, hyphens and underscores, with strings of up to \
            512 characters. They are not sent. `null` removes them.",
    shape: METADATA_SHAPE,
    nullable: true,
    codes: &[Code::MetadataInvalid],
    read: |_, value| read_metadata(value, Code::MetadataInvalid),
};

/// What stands after `/v1/webhooks/` and is no endpoint.
const TAKEN_BY_PATHS: [&str; 4] = ["deliveries", "replays", "statistics", "filters"];

/// The client's own name.
pub const EXTERNAL_ID: EndpointField<Option<ExternalId>> = Field {
    about: "Your own name for the endpoint, which no other endpoint of the account has. Every path that takes the \
            endpoint's id takes it too. It is no UUID. `null` removes it.",
    shape: EXTERNAL_ID_SHAPE,
    nullable: true,
    codes: &[Code::ExternalIdInvalid, Code::ExternalIdTaken],
    read: |_, value| match value.as_str() {
        Some(text) if TAKEN_BY_PATHS.contains(&text) => Err(vec![Fault::new(Code::ExternalIdInvalid)]),
        _ => read_external_id(value, Code::ExternalIdInvalid),
    },
};

/// Which of the published events it gets.
pub const CHANNELS: EndpointField<Option<Channels>> = Field {
    about: "Up to 10 distinct names. Of the events that are published, the endpoint gets only those that carry one of \
            them. Without channels it gets every event that it subscribes to. `null` removes them.",
    shape: Shape::List(List { items: &CHANNEL_SHAPE, min: Some(1), max: Some(MAX_ENDPOINT_CHANNELS) }),
    nullable: true,
    codes: &[Code::ChannelsInvalid],
    read: |_, value| read_channels(value, MAX_ENDPOINT_CHANNELS, Code::ChannelsInvalid),
};

/// How long an attempt may take.
pub const TIMEOUT_SECONDS: EndpointField<Option<u32>> = Field {
    about: "How long an attempt may take, from the look-up of the name to the end of the answer. The default is the \
            setting `webhooks.timeout`. `null` removes it.",
    shape: Shape::Number(1, MAX_TIMEOUT_SECONDS as u64),
    nullable: true,
    codes: &[Code::TimeoutSecondsInvalid],
    read: |_, value| read_number(value, MAX_TIMEOUT_SECONDS, Code::TimeoutSecondsInvalid),
};

/// How many attempts may be in flight at once.
pub const MAX_IN_FLIGHT: EndpointField<Option<u32>> = Field {
    about: "Attempts that may be in flight at once, over all nodes: at most, and by default, the setting \
            `webhooks.max_in_flight_per_endpoint`. The endpoint reaches it step by step, with its successes. Tests are \
            not counted. `null` removes it.",
    shape: Shape::Number(1, MAX_IN_FLIGHT_PER_ENDPOINT as u64),
    nullable: true,
    codes: &[Code::MaxInFlightInvalid],
    read: |context, value| {
        read_number(value, context.max_in_flight, Code::MaxInFlightInvalid).map_err(|faults| {
            let named = |fault: Fault| fault.naming(context.max_in_flight);
            faults.into_iter().map(named).collect()
        })
    },
};

/// When an attempt that failed is made again.
pub const RETRY_SCHEDULE: EndpointField<Option<RetrySchedule>> = Field {
    about: "Seconds between attempts: after the first failure the first of them, and so on, each with up to 10 % more \
            or less. A list without entries means no retry. The default is the setting `webhooks.retry_schedule`. \
            `null` removes it.",
    shape: Shape::List(List {
        items: &Shape::Number(1, MAX_ENDPOINT_DELAY_SECONDS),
        min: None,
        max: Some(MAX_ENDPOINT_STEPS),
    }),
    nullable: true,
    codes: &[Code::RetryScheduleInvalid],
    read: |_, value| {
        if value.is_null() {
            return Ok(None);
        }
        let delays: Option<Vec<u64>> = value.as_array().and_then(|list| list.iter().map(Value::as_u64).collect());
        let schedule = delays.and_then(|delays| RetrySchedule::of_endpoint(&delays));
        schedule.map(Some).ok_or_else(|| vec![Fault::new(Code::RetryScheduleInvalid)])
    },
};

/// What its events must match.
pub const FILTER: EndpointField<Option<PayloadFilter>> = Field {
    about: "Of the events that are published, the endpoint gets only those that match: a JSON object of up to 4096 \
            bytes, 8 levels and 32 conditions, such as `{\"data\": {\"amount\": {\"$gte\": 100}}}`. The fields are \
            `event`, `data` and `channels`; a value means equality, and the operators are `$eq`, `$neq`, `$gt`, \
            `$gte`, `$lt`, `$lte`, `$in`, `$nin`, `$starts_with`, `$ends_with`, `$contains`, `$exists`, `$not`, `$and` \
            and `$or`. Numbers are kept and compared to the digit. `null` removes it.",
    shape: Shape::Object,
    nullable: true,
    codes: &[Code::FilterInvalid],
    read: |_, value| read_filter(value),
};

/// Headers of each request.
pub const HEADERS: EndpointField<Option<NewHeaders>> = Field {
    about: "Up to 20 headers that each request carries, in the case in which you write them: names of 1 to 64 letters, \
            digits and hyphens, with values of 1 to 1024 visible ASCII characters and inner spaces. Answers show \
            `...` and the last 4 characters of values of 12 or more, else `...`. Refused are names that occur twice \
            in any case, values that begin with `...`, names of the connection (`Host`, `Content-Type`, \
            `Content-Length`, `User-Agent`, `Proxy-*`, `X-Forwarded-*` and the like), what this service sends itself, \
            and `Authorization` while `authentication` is set.",
    shape: HEADERS_SHAPE,
    nullable: true,
    codes: &[Code::HeadersInvalid],
    read: |context, value| {
        if context.repeated.headers {
            return Err(vec![Fault::new(Code::HeadersInvalid)]);
        }
        read_headers(value, &context.brand)
    },
};

/// The same in place of those before.
const NEXT_HEADERS: EndpointField<Option<NewHeaders>> = Field {
    about: "Headers in place of those before, under the same rules as at registration. A value of `null` keeps the \
            one that is stored; a name that is absent goes. Where `url` or `token_url` gets another scheme, host or \
            port, every value must be given again. `null` removes all of them.",
    shape: NEXT_HEADERS_SHAPE,
    ..HEADERS
};

/// How requests authenticate.
pub const AUTHENTICATION: EndpointField<Option<WithCredential<Authentication>>> = Field {
    about: "How requests authenticate to the receiver, in the header `Authorization`. With `oauth2` access tokens are \
            obtained from `token_url` when they are needed (RFC 6749, section 4.4; the client authenticates by Basic) \
            and kept until they expire; after an answer of 401 the next attempt gets another one, at most once a \
            minute. It is replaced whole. Where `url` or `token_url` gets another scheme, host or port, it must be \
            given again. `null` removes it.",
    shape: AUTHENTICATION_SHAPE,
    nullable: true,
    codes: &[Code::AuthenticationInvalid, Code::UrlDnsFailed, Code::UrlSsrfBlocked, Code::UrlPortBlocked],
    read: |context, value| {
        if context.repeated.authentication {
            return Err(vec![credential_fields::repeated_member()]);
        }
        read_authentication(value, context.environment)
    },
};

/// The certificate of connections.
pub const CLIENT_CERTIFICATE: EndpointField<Option<WithCredential<ShownCertificate>>> = Field {
    about: "The certificate that connections to the receiver have (mutual TLS), with its private key, both as PEM. The \
            `url` must be `https`. Answers show its subject, its fingerprint and its end. Refused are a key of another \
            certificate, an encrypted key, and a certificate that has expired. It is replaced whole. Where `url` or \
            `token_url` gets another scheme, host or port, it must be given again. `null` removes it.",
    shape: CLIENT_CERTIFICATE_SHAPE,
    nullable: true,
    codes: &[Code::ClientCertificateInvalid],
    read: |context, value| {
        if context.repeated.client_certificate {
            return Err(vec![certificate_fields::repeated_member()]);
        }
        read_client_certificate(value, context.now)
    },
};

/// How many attempts may begin in a time.
pub const RATE_LIMIT: EndpointField<Option<RateLimit>> = Field {
    about: "Attempts that may begin in any period of the given length, over all nodes: 1 to 10000, a slash, and 1 \
            second to 1 hour, such as `100/1m` or `5/1s`. Retries and replays count. What is above waits as `pending` \
            or `retrying`. What a replay has made goes after everything else, and of each the longest due goes first. \
            Tests are not counted and do not wait. `null` removes it.",
    shape: Shape::Text(Text { max: Some(MAX_RATE_LIMIT_CHARS), pattern: Some(RATE_LIMIT_PATTERN), ..Text::ANY }),
    nullable: true,
    codes: &[Code::RateLimitInvalid],
    read: |_, value| {
        if value.is_null() {
            return Ok(None);
        }
        let limit = value.as_str().and_then(RateLimit::parse);
        limit.map(Some).ok_or_else(|| vec![Fault::new(Code::RateLimitInvalid)])
    },
};

/// What a secret that its owner brings means.
const NEW_SECRET: &str = "Your own secret, such as the one that the receiver has from another sender: 24 to 128 \
                          visible ASCII characters; what follows `whsec_` is padded base64 of 24 to 64 bytes. Without \
                          it a secret is generated.";

/// What it means in place of one.
const NEXT_SECRET: &str = "Your own new secret, under the same rules as at registration, and another than the one \
                           until now. Without it a secret is generated.";

/// A signing secret that its owner brings. Its fault does not show it.
const fn own_secret<C>(about: &'static str) -> Field<C, Secret> {
    Field {
        about,
        shape: Shape::Text(Text {
            min: Some(SECRET_CHARS.0),
            max: Some(SECRET_CHARS.1),
            pattern: Some(SECRET_PATTERN),
            ..Text::ANY
        }),
        nullable: false,
        codes: &[Code::SecretInvalid],
        read: |_, value| {
            let secret = value.as_str().and_then(Secret::of_owner);
            secret.ok_or_else(|| vec![Fault::new(Code::SecretInvalid)])
        },
    }
}

/// Reads a whole number from 1 to `most`, or `null`. What is not allowed is this fault.
fn read_number(value: &Value, most: u32, invalid: Code) -> Result<Option<u32>, Vec<Fault>> {
    if value.is_null() {
        return Ok(None);
    }
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    let number = number.filter(|number| (1..=most).contains(number));
    number.map(Some).ok_or_else(|| vec![Fault::new(invalid)])
}

body! {
    /// Registers a receiver.
    pub struct CreateWebhook(EndpointContext) {
        url: ReceiverUrl = NEW_URL.required(Code::UrlRequired),
        events: Vec<String> = EVENTS.required(Code::EventsRequired),
        description: Option<String> = DESCRIPTION.or_default(),
        status: EndpointStatus = STATUS.about(NEW_STATUS).or_default().shown(|| EndpointStatus::Active.name().into()),
        ordering: Ordering = ORDERING.or_default(),
        metadata: Option<Metadata> = METADATA.or_default(),
        external_id: Option<ExternalId> = EXTERNAL_ID.or_default(),
        channels: Option<Channels> = CHANNELS.or_default(),
        timeout_seconds: Option<u32> = TIMEOUT_SECONDS.or_default(),
        max_in_flight: Option<u32> = MAX_IN_FLIGHT.or_default(),
        retry_schedule: Option<RetrySchedule> = RETRY_SCHEDULE.or_default(),
        filter: Option<PayloadFilter> = FILTER.or_default(),
        rate_limit: Option<RateLimit> = RATE_LIMIT.or_default(),
        secret: Option<Secret> = own_secret::<EndpointContext>(NEW_SECRET).maybe(),
        headers: Option<NewHeaders> = HEADERS.or_default(),
        authentication: Option<WithCredential<Authentication>> = AUTHENTICATION.or_default(),
        client_certificate: Option<WithCredential<ShownCertificate>> = CLIENT_CERTIFICATE.or_default(),
    }
}

body! {
    /// Changes what it names, and nothing else. At least one field.
    pub struct UpdateWebhook(EndpointContext) {
        url: Option<ReceiverUrl> = URL.about("Receiver URL, under the same rules as at registration.").change(),
        events: Option<Vec<String>> = EVENTS.about("Event types to subscribe to, in place of those before.").change(),
        description: Option<Option<String>> = DESCRIPTION.about("Free-form label; `null` removes it.").change(),
        status: Option<EndpointStatus> = STATUS.change(),
        ordering: Option<Ordering> = ORDERING.change(),
        metadata: Option<Option<Metadata>> = METADATA.change(),
        external_id: Option<Option<ExternalId>> = EXTERNAL_ID.change(),
        channels: Option<Option<Channels>> = CHANNELS.change(),
        timeout_seconds: Option<Option<u32>> = TIMEOUT_SECONDS.change(),
        max_in_flight: Option<Option<u32>> = MAX_IN_FLIGHT.change(),
        retry_schedule: Option<Option<RetrySchedule>> = RETRY_SCHEDULE.change(),
        filter: Option<Option<PayloadFilter>> = FILTER.change(),
        headers: Option<Option<NewHeaders>> = NEXT_HEADERS.change(),
        authentication: Option<Option<WithCredential<Authentication>>> = AUTHENTICATION.change(),
        client_certificate: Option<Option<WithCredential<ShownCertificate>>> = CLIENT_CERTIFICATE.change(),
        rate_limit: Option<Option<RateLimit>> = RATE_LIMIT.change(),
    }
}

impl CreateWebhook {
    /// Reads a body, and looks at what belongs together.
    pub fn read_whole(body: &Map<String, Value>, context: &EndpointContext) -> Result<Self, ApiError> {
        let url = body.get("url").and_then(|value| (URL.read)(context, value).ok());
        let url = UrlAfter { moves: false, https: url.is_none_or(|url| url.https) };
        let faults = sent_credentials(body, context).faults(&ShownCredentials::default(), url);
        let faults = faults.into_iter().map(Fault::from).collect();
        ApiError::with_more(Self::read(body, context), faults, Self::NAMES)
    }

    /// The endpoint that it asks for.
    pub fn endpoint(self) -> NewEndpoint {
        let credentials = CredentialsChange {
            headers: Some(self.headers),
            authentication: Some(self.authentication),
            client_certificate: Some(self.client_certificate),
        };
        let (shown, credentials) = credentials.applied_to(ShownCredentials::default(), Credentials::default());
        let settings = EndpointSettings {
            url: self.url.as_str().to_owned(),
            events: self.events,
            description: self.description,
            ordering: self.ordering,
            metadata: self.metadata,
            external_id: self.external_id,
            channels: self.channels,
            timeout_seconds: self.timeout_seconds,
            max_in_flight: self.max_in_flight,
            retry_schedule: self.retry_schedule,
            filter: self.filter,
            credentials: shown,
            rate_limit: self.rate_limit,
        };
        NewEndpoint { settings, status: self.status, secret: self.secret, credentials }
    }
}

impl UpdateWebhook {
    /// Reads a change of an endpoint with these settings, and looks at what belongs together.
    pub fn read_whole(
        body: &Map<String, Value>,
        context: &EndpointContext,
        before: &EndpointSettings,
    ) -> Result<Self, ApiError> {
        let url = body.get("url").and_then(|value| (URL.read)(context, value).ok());
        let change = EndpointChange {
            url: url.map(|url| url.as_str().to_owned()),
            credentials: sent_credentials(body, context),
            ..EndpointChange::default()
        };
        let faults = change.credential_faults(before).into_iter().map(Fault::from).collect();
        ApiError::with_more(Self::read_change(body, context), faults, Self::NAMES)
    }

    /// The change that it asks for.
    pub fn change(self) -> EndpointChange {
        EndpointChange {
            url: self.url.map(|url| url.as_str().to_owned()),
            events: self.events,
            description: self.description,
            ordering: self.ordering,
            metadata: self.metadata,
            external_id: self.external_id,
            channels: self.channels,
            timeout_seconds: self.timeout_seconds,
            max_in_flight: self.max_in_flight,
            retry_schedule: self.retry_schedule,
            filter: self.filter,
            credentials: CredentialsChange {
                headers: self.headers,
                authentication: self.authentication,
                client_certificate: self.client_certificate,
            },
            rate_limit: self.rate_limit,
            status: self.status,
        }
    }
}

/// Headers and credentials of a body, as far as they can be read.
fn sent_credentials(body: &Map<String, Value>, context: &EndpointContext) -> CredentialsChange {
    CredentialsChange {
        headers: body.get("headers").and_then(|value| (HEADERS.read)(context, value).ok()),
        authentication: body.get("authentication").and_then(|value| (AUTHENTICATION.read)(context, value).ok()),
        client_certificate: body
            .get("client_certificate")
            .and_then(|value| (CLIENT_CERTIFICATE.read)(context, value).ok()),
    }
}

const OVERLAP: Field<(), u32> = Field {
    about: "Seconds for which the old secret signs beside the new one. With 0 every older secret stops working at \
            once.",
    shape: Shape::Number(0, MAX_OVERLAP_SECONDS as u64),
    nullable: false,
    codes: &[Code::OverlapInvalid],
    read: |(), value| {
        let seconds = value.as_u64().and_then(|seconds| u32::try_from(seconds).ok());
        let seconds = seconds.filter(|seconds| *seconds <= MAX_OVERLAP_SECONDS);
        seconds.ok_or_else(|| vec![Fault::new(Code::OverlapInvalid)])
    },
};

body! {
    /// The new secret, and how long the old one lives on.
    pub struct RegenerateSecret(()) {
        overlap_seconds: u32 = OVERLAP.or_default().shown(|| 0.into()),
        secret: Option<Secret> = own_secret::<()>(NEXT_SECRET).maybe(),
    }
}

fn read_events(context: &EndpointContext, value: &Value) -> Result<Vec<String>, Vec<Fault>> {
    let Some(list) = value.as_array() else {
        return Err(vec![Fault::new(Code::EventInvalid).naming(value)]);
    };
    if list.is_empty() {
        return Err(vec![Fault::new(Code::EventsRequired)]);
    }
    if list.len() > MAX_EVENTS {
        return Err(vec![Fault::new(Code::EventsTooMany)]);
    }
    let mut events: Vec<String> = Vec::new();
    let mut faults = Vec::new();
    for item in list {
        match item.as_str().filter(|name| context.knows(name)) {
            Some(name) if events.iter().any(|known| known == name) => {}
            Some(name) => events.push(name.to_owned()),
            None => {
                let shown = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                let shown: String = shown.chars().take(200).collect();
                faults.push(Fault::new(Code::EventInvalid).naming(&shown).with_meta("event", shown));
            }
        }
    }
    if faults.is_empty() { Ok(events) } else { Err(faults) }
}

impl EndpointContext {
    /// Whether an endpoint may subscribe to the type.
    fn knows(&self, name: &str) -> bool {
        self.catalog.contains_key(name)
            || is_wildcard(name)
            || Operational::parse(name).is_some()
            || self.subscribed.iter().any(|known| known == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_operational_event() {
        for kind in Operational::ALL {
            assert!(EVENTS.about.contains(&format!("`{}`", kind.name())), "{}", kind.name());
        }
    }
}
