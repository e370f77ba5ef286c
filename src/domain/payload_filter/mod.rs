//! Filters on what events say: an endpoint gets only the events that match its filter.
//!
//! A filter is compiled once for each change of an endpoint (`compile.rs`). An event is read once for all endpoints of
//! its account (`json.rs`), and checked against each of them (`clauses.rs`). The limits of a filter bound work and
//! recursion (record 0022).

mod clauses;
mod compile;
mod decimal;
mod json;

use std::fmt;
use std::sync::Arc;

pub use clauses::MAX_MEMBERS;
use clauses::{Clauses, ROOT};
pub use compile::{FilterError, FilterFault, MAX_BYTES, MAX_CONDITIONS, MAX_LEVELS, ROOT_FIELDS, VALUE_OPERATORS};
pub use decimal::{MAX_DIGITS, MAX_EXPONENT};
use json::Document;
pub use json::MAX_EVENT_LEVELS;

use super::channels::Channels;
use super::event::data_of;

/// Steps of reading an event, for each of its bytes.
const READ_STEPS: u64 = 1;

/// What an event must match. A copy shares its clauses.
#[derive(Clone)]
pub struct PayloadFilter(Arc<Compiled>);

struct Compiled {
    text: String,
    clauses: Clauses,
    steps: u64,
}

impl PayloadFilter {
    /// Reads a filter from JSON. What [`Self::as_json`] returns is read as the same filter.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let (text, clauses) = compile::compile(text)?;
        let steps = clauses.steps();
        Ok(Self(Arc::new(Compiled { text, clauses, steps })))
    }

    /// The filter as its client wrote it, without spaces and repeated names. Numbers have the client's digits, so that
    /// whoever reads them as floating-point numbers loses some.
    pub fn as_json(&self) -> &str {
        &self.0.text
    }

    /// Whether the event matches.
    pub fn matches(&self, event: &ParsedEvent<'_>) -> bool {
        event.0.as_ref().is_some_and(|event| self.0.clauses.first_failure(event.root()).is_none())
    }

    /// For an event that does not match, the place of the first condition that does not hold: a JSON pointer into
    /// [`Self::as_json`]. For `$or` and `$not` it is the place of the operator. For objects in an array it is the
    /// condition of the member that met most of the conditions. It is empty where no filter matches the event.
    pub fn failed_at(&self, event: &ParsedEvent<'_>) -> Option<String> {
        let clauses = &self.0.clauses;
        let failed = event.0.as_ref().map_or(Some(ROOT), |event| clauses.first_failure(event.root()));
        failed.map(|clause| clauses.pointer(clause))
    }

    /// The most steps that reading an event of this size and checking it against these filters takes. The size is the
    /// bytes of the type, the data and the channels. A step is at most a look at a node, the reading of a number or the
    /// comparison of a few bytes.
    pub fn work<'f>(bytes: usize, filters: impl IntoIterator<Item = &'f Self>) -> u64 {
        let steps: u64 = filters.into_iter().map(|filter| filter.0.steps).sum();
        (READ_STEPS + steps).saturating_mul(bytes as u64)
    }
}

impl PartialEq for PayloadFilter {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.text == other.0.text
    }
}

impl Eq for PayloadFilter {}

impl fmt::Debug for PayloadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PayloadFilter").field(&self.0.text).finish()
    }
}

/// An event that was read once, for all filters that it is checked against.
pub struct ParsedEvent<'a>(Option<Document<'a>>);

impl<'a> ParsedEvent<'a> {
    /// Reads an event. `data` is JSON text; without channels the event has no such field. No filter matches an event
    /// whose data is deeper than [`MAX_EVENT_LEVELS`] or no JSON.
    pub fn parse<C: AsRef<str>>(event_type: &'a str, data: &'a str, channels: &'a [C]) -> Self {
        Self(Document::of_event(event_type, data, channels).ok())
    }

    /// Reads an event from the message that receivers get of it.
    pub fn of_message(event_type: &'a str, message: &'a [u8], channels: Option<&'a Channels>) -> Self {
        let names = channels.map(Channels::names).unwrap_or_default();
        Self::parse(event_type, data_of(message).unwrap_or_default(), names)
    }
}

#[cfg(test)]
mod tests;
