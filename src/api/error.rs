//! Why a call is refused: faults, each with its code, and the envelope that they make.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::code::{Code, Language};
use crate::domain::credentials::{AUTHENTICATION, CLIENT_CERTIFICATE, CredentialFault, CredentialRefusal};
use crate::heavy::HeavyError;
use crate::log_limit::LogLimit;

/// Seconds after which a search that was too slow may be tried again: other searches may have ended by then.
const SEARCH_PAUSE: u32 = 5;

/// Seconds after which a read may be tried again that found no connection: those before it have ended by then.
const BUSY_PAUSE: u32 = 2;

/// Seconds after which a change may be tried again that nodes of an older program would ignore: by then they have
/// stopped, or have lost their leases.
const OLDER_NODES_PAUSE: u32 = 10;

/// Longest place within a field, in bytes: a pointer to it may have names that a client chose.
const MAX_PLACE: usize = 512;

/// A client may repeat a slow search all day.
static SLOW_SEARCHES_LOGGED: LogLimit = LogLimit::new();

/// Why a search was ended, and what helps.
fn too_slow() -> Words {
    let seconds = crate::store::SEARCH_TIMEOUT.as_secs();
    Words::new(
        format!(
            "The search read for more than {seconds} seconds and was ended. Narrow it, for example by time with from \
             and to."
        ),
        format!(
            "La búsqueda leyó durante más de {seconds} segundos y se detuvo. Acótala, por ejemplo por fecha con from y \
             to."
        ),
    )
}

/// Why a read was not begun, and what helps.
fn busy() -> Words {
    Words::new(
        "Too many reads are waiting. Make fewer calls at a time, and try again soon.",
        "Hay demasiadas lecturas en espera. Haz menos llamadas a la vez e inténtalo pronto de nuevo.",
    )
}

/// Why a change was not made, and what helps.
fn older_nodes() -> Words {
    Words::new(
        "A node of an older version is running, which would ignore this setting. It is being stopped. Try again in a \
         few seconds.",
        "Hay un nodo de una versión anterior en marcha, que pasaría por alto este ajuste. Se está deteniendo. \
         Inténtalo de nuevo en unos segundos.",
    )
}

/// A reason in both languages, for the place that a detail leaves.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Words {
    english: String,
    spanish: String,
}

impl Words {
    /// The same reason twice.
    pub fn new(english: impl Into<String>, spanish: impl Into<String>) -> Self {
        Self { english: english.into(), spanish: spanish.into() }
    }

    fn of(&self, language: Language) -> &str {
        match language {
            Language::English => &self.english,
            Language::Spanish => &self.spanish,
        }
    }
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.english)
    }
}

/// What pointers to fields of a body begin with.
const ATTRIBUTES: &str = "/data/attributes/";

/// One thing that is wrong with a call.
#[derive(Clone, PartialEq, Debug)]
pub struct Fault {
    /// What.
    pub code: Code,
    /// What stands in the detail's place for a name or number.
    argument: Box<Words>,
    /// The whole detail, where it is more exact than the code's own.
    detail: Option<Box<Words>>,
    /// The field at fault, as a JSON pointer.
    pointer: Option<String>,
    /// The parameter of the query at fault.
    parameter: Option<&'static str>,
    /// A value that a program may want to read.
    meta: Option<(&'static str, Box<Value>)>,
}

impl Fault {
    /// A fault of the whole call.
    pub fn new(code: Code) -> Self {
        Self { code, argument: Box::default(), detail: None, pointer: None, parameter: None, meta: None }
    }

    /// A fault of one field of the body.
    pub fn of_field(code: Code, field: &str) -> Self {
        Self::new(code).in_field(field)
    }

    /// A fault of one parameter of the query.
    pub fn of_parameter(code: Code, parameter: &'static str) -> Self {
        Self { parameter: Some(parameter), ..Self::new(code) }
    }

    /// Fills the place in the detail with a name or a number.
    #[must_use]
    pub fn naming(self, argument: impl ToString) -> Self {
        let argument = argument.to_string();
        self.because(&Words::new(argument.clone(), argument))
    }

    /// Fills the place in the detail with a reason.
    #[must_use]
    pub fn because(mut self, reason: &Words) -> Self {
        // What a client sent comes back to it shortened, so that an answer stays small.
        let short = |text: &str| text.chars().take(200).collect::<String>();
        *self.argument = Words::new(short(&reason.english), short(&reason.spanish));
        self
    }

    /// Says more exactly what the matter is than the code's own detail does. Nothing of it comes from a client.
    #[must_use]
    pub fn saying(mut self, detail: Words) -> Self {
        self.detail = Some(Box::new(detail));
        self
    }

    /// Adds a value to `meta`.
    #[must_use]
    pub fn with_meta(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.meta = Some((name, Box::new(value.into())));
        self
    }

    /// Says which place of its field is at fault, as a JSON pointer into the field. Names in it that a client chose are
    /// bounded: it ends at the last whole step within [`MAX_PLACE`].
    #[must_use]
    pub fn at(self, place: &str) -> Self {
        let ends = place.match_indices('/').map(|(end, _)| end).chain([place.len()]);
        let whole = ends.take_while(|end| *end <= MAX_PLACE).last().unwrap_or(0);
        Self { pointer: Some(place[..whole].to_owned()), ..self }
    }

    /// Says which field of the body is at fault.
    #[must_use]
    pub fn in_field(self, field: &str) -> Self {
        let member = self.pointer.as_deref().unwrap_or_default();
        Self { pointer: Some(format!("{ATTRIBUTES}{field}{member}")), ..self }
    }

    /// The field of the body at fault.
    fn attribute(&self) -> Option<&str> {
        self.pointer.as_deref()?.strip_prefix(ATTRIBUTES)?.split('/').next()
    }

    /// Puts the field below another, for one event of a batch.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        let field = self.pointer.as_deref().and_then(|p| p.strip_prefix("/data/attributes")).unwrap_or("");
        self.pointer = Some(format!("{prefix}{field}"));
        self
    }

    fn to_json(&self, language: Language) -> FaultJson {
        FaultJson {
            status: self.code.status().to_string(),
            code: self.code,
            detail: match &self.detail {
                Some(detail) => detail.of(language).to_owned(),
                None => self.code.template(language).replace("{}", self.argument.of(language)),
            },
            source: match (&self.pointer, self.parameter) {
                (None, None) => None,
                (pointer, parameter) => {
                    Some(Source { pointer: pointer.clone(), parameter: parameter.map(str::to_owned) })
                }
            },
            meta: self.meta.as_ref().map(|(name, value)| [((*name).to_owned(), (**value).clone())].into()),
        }
    }
}

/// A fault as the envelope shows it, in the order that people read.
#[derive(Serialize, Deserialize)]
pub struct FaultJson {
    status: String,
    /// What.
    pub code: Code,
    /// The same in words.
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<BTreeMap<String, Value>>,
}

#[derive(Serialize, Deserialize)]
struct Source {
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
}

impl FaultJson {
    /// The field or the parameter at fault.
    pub fn field(&self) -> Option<&str> {
        let source = self.source.as_ref()?;
        let field = source.pointer.as_deref().and_then(|pointer| match pointer.strip_prefix("/data/attributes/") {
            // What stands below the field is a place in it. Each member of `authentication` is a field of a form.
            Some(field) => match field.split_once('/') {
                Some(("authentication", member)) => Some(member),
                Some((field, _)) => Some(field),
                None => Some(field),
            },
            None => pointer.rsplit('/').next(),
        });
        field.or(source.parameter.as_deref())
    }

    /// Seconds after which to try again.
    pub fn retry_after(&self) -> Option<u64> {
        self.meta.as_ref()?.get("retry_after")?.as_u64()
    }

    /// The replays that are in the way of another one.
    pub fn replays(&self) -> impl Iterator<Item = &str> {
        let replays = self.meta.as_ref().and_then(|meta| meta.get("replays")?.as_array());
        replays.into_iter().flatten().filter_map(Value::as_str)
    }
}

/// Why a call is refused: at least one fault.
#[derive(Clone, PartialEq, Debug)]
pub struct ApiError {
    faults: Vec<Fault>,
    /// Answer headers that belong to the refusal.
    pub headers: Vec<(&'static str, String)>,
}

impl ApiError {
    /// Refuses when there are faults.
    pub fn check(faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() { Ok(()) } else { Err(Self::of(faults)) }
    }

    /// A refusal for these faults, of which there is at least one.
    pub fn of(faults: Vec<Fault>) -> Self {
        Self { faults, headers: Vec::new() }
    }

    /// What came of reading a body that has these fields, with more of its faults, in the order of the fields. A field
    /// that has a fault gets no other.
    pub fn with_more<T>(read: Result<T, Self>, more: Vec<Fault>, order: &[&str]) -> Result<T, Self> {
        if more.is_empty() {
            return read;
        }
        let mut faults = read.err().map(|refused| refused.faults).unwrap_or_default();
        for fault in more {
            if !faults.iter().any(|known| known.attribute() == fault.attribute()) {
                faults.push(fault);
            }
        }
        let place = |fault: &Fault| order.iter().position(|name| fault.attribute() == Some(*name));
        faults.sort_by_key(place);
        Err(Self::of(faults))
    }

    /// Refuses filters that cannot be read. `allowed` says what a filter takes.
    pub fn of_filters(names: Vec<&'static str>, allowed: fn(&str) -> Words) -> Self {
        let fault = |name| Fault::of_parameter(Code::InvalidFilter, name).because(&allowed(name));
        Self::of(names.into_iter().map(fault).collect())
    }

    /// A refusal for now. `meta.reason` says what there is too much of.
    pub fn busy(reason: impl Into<Value>) -> Self {
        Self::from(Fault::new(Code::Unavailable).with_meta("reason", reason)).with_header("retry-after", 1)
    }

    /// Adds an answer header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Whether it is for this reason.
    pub fn is(&self, code: Code) -> bool {
        self.faults.first().is_some_and(|fault| fault.code == code)
    }

    /// The status of the answer: the first fault's.
    pub fn status(&self) -> u16 {
        self.faults.first().map_or(500, |fault| fault.code.status())
    }

    /// The `errors` of the envelope, as JSON text.
    pub fn errors(&self, language: Language) -> String {
        serde_json::to_string(&self.shown(language)).expect("faults serialise: string keys, no foreign code")
    }

    /// The faults as the envelope shows them.
    pub(crate) fn shown(&self, language: Language) -> Vec<FaultJson> {
        self.faults.iter().map(|fault| fault.to_json(language)).collect()
    }

    /// What is wrong, in words.
    pub fn detail(&self, language: Language) -> String {
        let faults = self.faults.iter().map(|fault| fault.to_json(language).detail);
        faults.collect::<Vec<_>>().join(" ")
    }

    /// Puts the headers of the refusal into an answer.
    pub fn add_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            let value = HeaderValue::try_from(value).expect("the headers of a refusal are numbers and ASCII words");
            headers.insert(HeaderName::from_static(name), value);
        }
    }

    /// What the faults add to `meta`: the first of each name.
    pub fn meta(&self) -> Vec<(&'static str, Value)> {
        let mut found: Vec<(&'static str, Value)> = Vec::new();
        for (name, value) in self.faults.iter().filter_map(|fault| fault.meta.clone()) {
            if !found.iter().any(|(known, _)| *known == name) {
                found.push((name, *value));
            }
        }
        found
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        Self::of(vec![fault])
    }
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Fault::new(code).into()
    }
}

impl From<HeavyError> for ApiError {
    fn from(error: HeavyError) -> Self {
        match error {
            HeavyError::Busy => Self::busy(error.to_string()),
            HeavyError::Interrupted => Code::InternalError.into(),
        }
    }
}

impl From<CredentialFault> for Fault {
    fn from(CredentialFault { attribute, reason }: CredentialFault) -> Self {
        let code = match attribute {
            AUTHENTICATION => Code::AuthenticationInvalid,
            CLIENT_CERTIFICATE => Code::ClientCertificateInvalid,
            _ => Code::HeadersInvalid,
        };
        let detail = match reason {
            CredentialRefusal::UnknownHeader => Words::new(
                "In headers, null keeps the value that the endpoint has under this name; under one of these it has \
                 none.",
                "En headers, null conserva el valor que el endpoint tiene con ese nombre; con uno de estos no tiene \
                 ninguno.",
            ),
            CredentialRefusal::TwoAuthorizations => Words::new(
                "headers can have Authorization only while authentication is not set.",
                "headers solo puede tener Authorization mientras authentication no esté establecido.",
            ),
            CredentialRefusal::AddressChanged => Words::new(
                format!(
                    "The change leads to another scheme, host or port, which must not get what was stored for the one \
                     before: give {attribute} again with all values, or remove it with null."
                ),
                format!(
                    "El cambio lleva a otro esquema, host o puerto, que no debe recibir lo que se guardó para el \
                     anterior: indica {attribute} de nuevo con todos sus valores, o quítalo con null."
                ),
            ),
            CredentialRefusal::NotHttps => Words::new(
                format!("{attribute} needs an https url: give one, or remove {attribute} with null."),
                format!("{attribute} necesita una url https: indica una, o quita {attribute} con null."),
            ),
        };
        Self::of_field(code, attribute).saying(detail)
    }
}

impl From<crate::store::StoreError> for ApiError {
    fn from(error: crate::store::StoreError) -> Self {
        use crate::store::StoreError as E;
        match error {
            E::NotFound => Code::NotFound.into(),
            E::KeyTaken => Self::from(Code::IdempotencyKeyInProgress).with_header("retry-after", 1),
            E::LimitReached(limit) => {
                Fault::new(Code::WebhookLimitReached).naming(limit).with_meta("limit", limit).into()
            }
            E::KeyLimitReached(limit) => {
                Fault::new(Code::ApiKeyLimitReached).naming(limit).with_meta("limit", limit).into()
            }
            E::AllowsMore => Code::Forbidden.into(),
            E::TooManyReplays(open) => {
                let ids: Vec<String> = open.iter().map(ToString::to_string).collect();
                Fault::new(Code::ReplayLimitReached).naming(ids.len()).with_meta("replays", ids).into()
            }
            E::LastOwner => Code::LastOwner.into(),
            E::ExternalIdTaken => Fault::of_field(Code::ExternalIdTaken, "external_id").into(),
            E::SecretUnchanged => Fault::of_field(Code::SecretInvalid, "secret").into(),
            E::UnderWay => Code::DeliveryUnderWay.into(),
            E::PayloadGone => Code::PayloadExpired.into(),
            E::UnknownType(name) => {
                Fault::of_field(Code::EventTypeUnknown, "event").naming(&name).with_meta("event", name).into()
            }
            E::Unavailable(reason) => {
                tracing::error!(%reason, "the store is unavailable");
                Self::from(Code::Unavailable).with_header("retry-after", 1)
            }
            E::TooSlow => {
                if let Some(suppressed) = SLOW_SEARCHES_LOGGED.admit() {
                    tracing::warn!(suppressed, "a search was ended because it took too long");
                }
                Self::from(Fault::new(Code::Unavailable).saying(too_slow())).with_header("retry-after", SEARCH_PAUSE)
            }
            E::Busy => {
                tracing::debug!("a read found no connection in time");
                Self::from(Fault::new(Code::Unavailable).saying(busy())).with_header("retry-after", BUSY_PAUSE)
            }
            E::FiltersBusy => Self::busy("too many slow checks against filters of this account"),
            E::OlderNodes => Self::from(Fault::new(Code::Unavailable).saying(older_nodes()))
                .with_header("retry-after", OLDER_NODES_PAUSE),
            // The node has logged the reason when it stopped, and `/readyz` tells it.
            E::Outdated { .. } => Self::from(Code::Unavailable).with_header("retry-after", 1),
            E::CredentialsRefused(faults) => Self::of(faults.into_iter().map(Fault::from).collect()),
            E::Exists | E::OtherRecipe | E::Corrupt(_) => {
                tracing::error!(%error, "the store failed");
                Code::InternalError.into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_within_a_field_is_told_as_far_as_it_is_short() {
        let pointer = |place: &str| Fault::new(Code::FilterInvalid).at(place).in_field("filter").pointer;
        let told = |text: &str| Some(text.to_owned());
        assert_eq!(pointer(""), told("/data/attributes/filter"));
        assert_eq!(pointer("/data/a~1b/$gt"), told("/data/attributes/filter/data/a~1b/$gt"));
        let longest = format!("/data/{}", "é".repeat(253));
        assert_eq!(longest.len(), MAX_PLACE);
        assert_eq!(pointer(&longest), Some(format!("/data/attributes/filter{longest}")));
        assert_eq!(pointer(&format!("{longest}x/$gt")), told("/data/attributes/filter/data"));
        assert_eq!(pointer(&format!("/{}", "é".repeat(300))), told("/data/attributes/filter"));
        let of_a_batch = Fault::of_field(Code::EventDataInvalid, "data").within("/events/1");
        assert_eq!(of_a_batch.pointer, told("/events/1/data"));
    }

    #[test]
    fn more_faults_are_told_in_the_order_of_the_fields_and_one_of_each() {
        let order = ["url", "headers", "authentication", "status"];
        let more = || vec![Fault::of_field(Code::HeadersInvalid, "headers")];
        let merged = |read: Result<(), ApiError>| match ApiError::with_more(read, more(), &order) {
            Ok(()) => vec![],
            Err(refused) => refused.faults.iter().map(|fault| fault.code).collect(),
        };
        assert_eq!(merged(Ok(())), [Code::HeadersInvalid]);
        let within = Fault::new(Code::AuthenticationInvalid).at("/token_url").in_field("authentication");
        assert_eq!(within.pointer.as_deref(), Some("/data/attributes/authentication/token_url"));
        let read = vec![Fault::of_field(Code::UrlEmpty, "url"), within, Fault::of_field(Code::StatusInvalid, "status")];
        let expected = [Code::UrlEmpty, Code::HeadersInvalid, Code::AuthenticationInvalid, Code::StatusInvalid];
        assert_eq!(merged(Err(ApiError::of(read))), expected);
        let same = Fault::of_field(Code::HeadersInvalid, "headers").with_meta("event", "first");
        let refused = ApiError::with_more(Err::<(), _>(same.into()), more(), &order).expect_err("refused");
        assert_eq!((refused.faults.len(), refused.meta().len()), (1, 1));
        assert!(ApiError::with_more(Ok(7), vec![], &order).is_ok());
    }

    #[test]
    fn a_read_that_is_refused_or_ended_is_unavailable_and_says_what_helps() {
        use crate::store::StoreError;
        for (error, retry_after, words) in [
            (StoreError::TooSlow, "5", ["2 seconds", "from and to", "2 segundos"]),
            (StoreError::Busy, "2", ["fewer calls", "at a time", "menos llamadas"]),
        ] {
            let refused = ApiError::from(error);
            assert_eq!((refused.status(), refused.is(Code::Unavailable)), (503, true));
            assert_eq!(refused.headers, [("retry-after", retry_after.to_owned())]);
            let details = [Language::English, Language::Spanish].map(|language| refused.detail(language)).join(" ");
            assert!(words.iter().all(|word| details.contains(word)), "{details}");
        }
    }
}
