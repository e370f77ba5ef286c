//! What a client writes down of its own: metadata and an external id of an endpoint or an account, and channels of an
//! endpoint or an event.

use serde_json::Value;

use super::error::{Code, Fault};
use super::fields::{Shape, Strings, Text};
use crate::domain::channels::{CHANNEL_PATTERN, Channels, MAX_CHANNEL_CHARS};
use crate::domain::external_id::{EXTERNAL_ID_PATTERN, ExternalId, MAX_EXTERNAL_ID_CHARS};
use crate::domain::settings::{MAX_METADATA_KEYS, MAX_METADATA_VALUE_CHARS, Metadata};

/// What metadata holds.
pub const METADATA_SHAPE: Shape = Shape::Strings(Strings {
    max: MAX_METADATA_KEYS,
    key: Text { pattern: Some("^[A-Za-z0-9_-]{1,64}$"), ..Text::ANY },
    value: Text { max: Some(MAX_METADATA_VALUE_CHARS), ..Text::ANY },
});

/// What an external id is.
pub const EXTERNAL_ID_SHAPE: Shape =
    Shape::Text(Text { pattern: Some(EXTERNAL_ID_PATTERN), max: Some(MAX_EXTERNAL_ID_CHARS), ..Text::ANY });

/// What a channel is.
pub const CHANNEL_SHAPE: Shape =
    Shape::Text(Text { pattern: Some(CHANNEL_PATTERN), max: Some(MAX_CHANNEL_CHARS), ..Text::ANY });

/// Reads metadata, or `null`. What is not allowed is this fault.
pub fn read_metadata(value: &Value, invalid: Code) -> Result<Option<Metadata>, Vec<Fault>> {
    if value.is_null() {
        return Ok(None);
    }
    let string = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    let strings = value.as_object().and_then(|object| object.iter().map(string).collect());
    strings.and_then(Metadata::parse).map(Some).ok_or_else(|| vec![Fault::new(invalid)])
}

/// Reads an external id, or `null`. What is not allowed is this fault.
pub fn read_external_id(value: &Value, invalid: Code) -> Result<Option<ExternalId>, Vec<Fault>> {
    if value.is_null() {
        return Ok(None);
    }
    value.as_str().and_then(ExternalId::parse).map(Some).ok_or_else(|| vec![Fault::new(invalid)])
}

/// Reads up to `most` channels, or `null`. What is not allowed is this fault.
pub fn read_channels(value: &Value, most: usize, invalid: Code) -> Result<Option<Channels>, Vec<Fault>> {
    if value.is_null() {
        return Ok(None);
    }
    let name = |value: &Value| value.as_str().map(str::to_owned);
    let names: Option<Vec<String>> = value.as_array().and_then(|names| names.iter().map(name).collect());
    let channels = names.and_then(|names| Channels::parse(names, most));
    channels.map(Some).ok_or_else(|| vec![Fault::new(invalid)])
}
