//! Events whose bodies are kept, for filters that look into them.

use std::time::Duration;

use bytes::Bytes;

use crate::domain::channels::Channels;
use crate::domain::id::EventId;
use crate::domain::payload_filter::ParsedEvent;

/// Events that one stretch of events with their bodies looks at. Most are looked at without their body.
pub(super) const EVENT_STRETCH: usize = 2_000;

/// Bytes of bodies in one stretch; one body may be beyond that.
pub(super) const BODY_STRETCH: usize = 1 << 20;

/// After which a preview of a filter no longer counts as under way, should its node have died. Previews end after 10 s,
/// and the last read of one may take some seconds more.
pub(super) const PREVIEW_LEASE: Duration = Duration::from_secs(30);

/// An event whose body is kept.
#[derive(Clone, Debug)]
pub struct KeptEvent {
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub event_type: String,
    /// The channels that it carries.
    pub channels: Option<Channels>,
    /// The body of its deliveries.
    pub body: Bytes,
}

impl KeptEvent {
    /// The event as filters look into it.
    pub fn parsed(&self) -> ParsedEvent<'_> {
        ParsedEvent::of_message(&self.event_type, &self.body, self.channels.as_ref())
    }
}
