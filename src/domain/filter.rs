//! The filters of the delivery list: how they are read from text, and which deliveries they take. The stores have the
//! same filters as SQL.

use uuid::Uuid;

use super::delivery::{Delivery, DeliveryStatus};
use super::event::is_type_name;
use super::id::{DeliveryId, EndpointId, IdTimes, parse_hyphenated};
use super::time::Timestamp;

/// Endpoints that a filter can name.
pub const MAX_ENDPOINTS: usize = 20;

/// Event types, statuses and ids that a filter can name.
pub const MAX_VALUES: usize = 100;

/// Characters of a search that count.
pub const MAX_SEARCH_CHARS: usize = 100;

/// What a receiver answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseFilter {
    /// No answer.
    None,
    /// This status.
    Exact(u16),
    /// A status of this hundred.
    Class(u16),
}

/// Which deliveries are looked for. What is empty does not count; all that is not must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeliveryFilter {
    /// To one of these endpoints.
    pub endpoints: Vec<EndpointId>,
    /// With one of these statuses.
    pub statuses: Vec<DeliveryStatus>,
    /// Of an event of one of these types.
    pub event_types: Vec<String>,
    /// With one of these answers.
    pub responses: Vec<ResponseFilter>,
    /// About one of these validations.
    pub validations: Vec<Uuid>,
    /// Made at this time or later.
    pub from: Option<Timestamp>,
    /// Made before the end of this second.
    pub to: Option<Timestamp>,
    /// With this many attempts or more.
    pub min_attempt: Option<u32>,
    /// With a latest attempt that took this long or longer, in milliseconds.
    pub min_response_time_ms: Option<u32>,
    /// With this text, in lowercase, in an id, the endpoint's URL or description, the event's type or the answer's
    /// status.
    pub search: Option<String>,
}

impl DeliveryFilter {
    /// Every parameter that is a filter, with the field that it fills.
    const PARAMETERS: [Parameter<Self>; 10] = [
        ("endpoint_id", |filter, values| set(&mut filter.endpoints, list(values, MAX_ENDPOINTS, EndpointId::parse))),
        ("status", |filter, values| set(&mut filter.statuses, list(values, MAX_VALUES, DeliveryStatus::parse))),
        ("event_type", |filter, values| set(&mut filter.event_types, list(values, MAX_VALUES, type_name))),
        ("response_status", |filter, values| {
            set(&mut filter.responses, list(values, MAX_VALUES, ResponseFilter::parse))
        }),
        ("validation_id", |filter, values| set(&mut filter.validations, list(values, MAX_VALUES, parse_hyphenated))),
        ("from", |filter, values| set(&mut filter.from, optional(values, Timestamp::parse_start))),
        ("to", |filter, values| set(&mut filter.to, optional(values, Timestamp::parse_end))),
        ("min_attempt", |filter, values| set(&mut filter.min_attempt, optional(values, number))),
        ("min_response_time_ms", |filter, values| set(&mut filter.min_response_time_ms, optional(values, number))),
        ("q", |filter, values| set(&mut filter.search, optional(values, |text| Some(search_text(text))))),
    ];

    /// The parameters that are filters.
    pub const NAMES: [&str; 10] = names(&Self::PARAMETERS);

    /// Reads the parameters of a request; others are none of its business. Where values cannot be read, the names of
    /// their parameters, in the order of [`Self::NAMES`].
    pub fn read(parameters: &[(String, String)]) -> Result<Self, Vec<&'static str>> {
        read(&Self::PARAMETERS, parameters)
    }

    /// The ids that deliveries made between `from` and `to` can have: from the first, and before the second.
    pub fn ids(&self, times: &IdTimes) -> (Option<DeliveryId>, Option<DeliveryId>) {
        let first_at = |time| DeliveryId(times.first_at(time));
        (self.from.map(first_at), self.to.map(|to| first_at(to.end_of_second())))
    }

    /// Whether the delivery, whose endpoint has this description, is looked for.
    pub fn takes(&self, delivery: &Delivery, description: Option<&str>) -> bool {
        let any = |text: Option<String>, search: &str| text.is_some_and(|text| text.to_lowercase().contains(search));
        (self.endpoints.is_empty() || self.endpoints.contains(&delivery.endpoint))
            && (self.statuses.is_empty() || self.statuses.contains(&delivery.status))
            && (self.event_types.is_empty() || self.event_types.contains(&delivery.event_type))
            && (self.responses.is_empty() || self.responses.iter().any(|r| r.takes(delivery.response_status)))
            && (self.validations.is_empty() || delivery.validation_id.is_some_and(|id| self.validations.contains(&id)))
            && self.from.is_none_or(|from| delivery.created_at >= from)
            && self.to.is_none_or(|to| delivery.created_at < to.end_of_second())
            && self.min_attempt.is_none_or(|least| delivery.attempt >= least)
            && self.min_response_time_ms.is_none_or(|least| delivery.response_time_ms.is_some_and(|ms| ms >= least))
            && self.search.as_deref().is_none_or(|search| {
                any(Some(delivery.id.to_string()), search)
                    || any(Some(delivery.endpoint.to_string()), search)
                    || any(Some(delivery.endpoint_url.clone()), search)
                    || any(description.map(str::to_owned), search)
                    || any(Some(delivery.event_type.clone()), search)
                    || any(delivery.validation_id.map(|id| id.to_string()), search)
                    || any(delivery.response_status.map(|status| status.to_string()), search)
            })
    }
}

impl ResponseFilter {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self::None),
            "2xx" | "3xx" | "4xx" | "5xx" => Some(Self::Class(text[..1].parse().ok()?)),
            _ => {
                let status = number(text).and_then(|status| u16::try_from(status).ok())?;
                (100..=999).contains(&status).then_some(Self::Exact(status))
            }
        }
    }

    fn takes(self, status: Option<u16>) -> bool {
        match self {
            Self::None => status.is_none(),
            Self::Exact(exact) => status == Some(exact),
            Self::Class(class) => status.is_some_and(|status| status / 100 == class),
        }
    }
}

/// A parameter that is a filter: its name, and what puts its values into the filter (`None` where one cannot be read).
pub(super) type Parameter<F> = (&'static str, fn(&mut F, &[&str]) -> Option<()>);

/// The names of these parameters.
pub(super) const fn names<F, const N: usize>(parameters: &[Parameter<F>; N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut index = 0;
    while index < N {
        names[index] = parameters[index].0;
        index += 1;
    }
    names
}

/// Reads a filter from a request's parameters, without values that are empty. Where some cannot be read, their names.
pub(super) fn read<F: Default>(
    known: &[Parameter<F>],
    parameters: &[(String, String)],
) -> Result<F, Vec<&'static str>> {
    let mut filter = F::default();
    let mut unreadable = Vec::new();
    for (name, fill) in known {
        let values = parameters.iter().filter(|(given, _)| given == name).map(|(_, value)| value.trim());
        let values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
        if fill(&mut filter, &values).is_none() {
            unreadable.push(*name);
        }
    }
    if unreadable.is_empty() { Ok(filter) } else { Err(unreadable) }
}

/// Fills a field with what was read, if it could be read.
pub(super) fn set<T>(field: &mut T, read: Option<T>) -> Option<()> {
    *field = read?;
    Some(())
}

/// Values separated by commas; `None` when one cannot be read, or there are too many.
pub(super) fn list<T>(values: &[&str], most: usize, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let parts = values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|part| !part.is_empty());
    let parsed = parts.map(parse).collect::<Option<Vec<T>>>()?;
    (parsed.len() <= most).then_some(parsed)
}

/// The last value, if there is one; `None` when it cannot be read.
pub(super) fn optional<T>(values: &[&str], parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    values.last().map_or(Some(None), |value| parse(value).map(Some))
}

fn type_name(text: &str) -> Option<String> {
    is_type_name(text).then(|| text.to_owned())
}

fn search_text(text: &str) -> String {
    text.chars().take(MAX_SEARCH_CHARS).collect::<String>().to_lowercase()
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &[(&str, &str)]) -> Result<DeliveryFilter, Vec<&'static str>> {
        let owned: Vec<_> = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        DeliveryFilter::read(&owned)
    }

    #[test]
    fn values_are_lists_or_the_last_one() {
        let filter = read(&[
            ("status", "failed, success"),
            ("status", "pending"),
            ("response_status", "none,503,2xx"),
            ("min_attempt", "2"),
            ("min_attempt", "3"),
            ("q", " Ñandú 100% "),
            ("page", "7"),
        ])
        .expect("readable");
        let statuses = [DeliveryStatus::Failed, DeliveryStatus::Success, DeliveryStatus::Pending];
        assert_eq!(filter.statuses, statuses);
        assert_eq!(filter.responses, [ResponseFilter::None, ResponseFilter::Exact(503), ResponseFilter::Class(2)]);
        assert_eq!((filter.min_attempt, filter.search.as_deref()), (Some(3), Some("ñandú 100%")));
    }

    #[test]
    fn a_parameter_fills_its_own_field_and_only_q_is_searched_for() {
        let uuid = "8b7967bd-c278-46ca-8bbb-33e3131a6239";
        let values = [uuid, "failed", "test", "503", uuid, "2026-05-01", "2026-05-01", "2", "10", "text"];
        let mut seen = Vec::new();
        for (name, value) in DeliveryFilter::NAMES.into_iter().zip(values) {
            let filter = read(&[(name, value)]).expect("readable");
            assert_eq!(filter.search.is_some(), name == "q", "{name}");
            assert!(filter != DeliveryFilter::default() && !seen.contains(&filter), "{name}");
            seen.push(filter);
        }
    }

    #[test]
    fn what_is_empty_does_not_count() {
        let empty: Vec<_> = DeliveryFilter::NAMES.iter().map(|name| (*name, " ")).collect();
        assert_eq!(read(&empty), Ok(DeliveryFilter::default()));
        assert_eq!(read(&[("status", ",")]), Ok(DeliveryFilter::default()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (name, value) in [
            ("endpoint_id", "1"),
            ("status", "failed,lost"),
            ("event_type", "Not A Type"),
            ("response_status", "6xx"),
            ("response_status", "20"),
            ("validation_id", "x"),
            ("from", "yesterday"),
            ("to", "2026-02-30"),
            ("min_attempt", "-1"),
            ("min_response_time_ms", "1.5"),
        ] {
            assert_eq!(read(&[(name, value)]), Err(vec![name]), "{name}={value}");
        }
        let many = vec!["8b7967bd-c278-46ca-8bbb-33e3131a6239"; 21].join(",");
        assert_eq!(read(&[("to", "x"), ("endpoint_id", &many)]), Err(vec!["endpoint_id", "to"]));
    }
}
