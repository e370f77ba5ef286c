//! Identifiers. Random UUIDs name what people make; time-ordered integers name what happens. `id_times` tells the time
//! of such an integer.

use std::fmt;

use uuid::Uuid;

pub use super::id_times::{IdTimes, MadeAhead, Offset, TOLERANCE};
use super::time::Timestamp;

/// Bits of a time-ordered id below its milliseconds: about a million ids in each.
const SEQUENCE_BITS: u32 = 20;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A version 4 UUID (RFC 9562, section 5.4) from 16 random bytes.
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            /// Reads the hyphenated form, in either case; nothing else is an id.
            pub fn parse(text: &str) -> Option<Self> {
                parse_hyphenated(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

uuid_id!(
    /// An account: the owner of everything.
    AccountId
);
uuid_id!(
    /// A webhook endpoint.
    EndpointId
);
uuid_id!(
    /// An API key. The key itself is never stored.
    ApiKeyId
);
uuid_id!(
    /// A replay.
    ReplayId
);
uuid_id!(
    /// An entry of the audit log.
    AuditId
);
uuid_id!(
    /// A person who signs in.
    UserId
);
uuid_id!(
    /// A link into the pages of one account.
    PortalLinkId
);

/// Reads a UUID in its hyphenated form only.
pub fn parse_hyphenated(text: &str) -> Option<Uuid> {
    if text.len() != 36 {
        return None;
    }
    Uuid::try_parse(text).ok()
}

/// An endpoint's row in this database: what the engine and the log count by, never shown outside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointKey(pub i64);

/// An account's row in this database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AccountKey(pub i64);

/// A delivery: a 63-bit integer that grows with time, a decimal string outside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeliveryId(pub i64);

impl DeliveryId {
    /// Reads a decimal id without sign or leading zeros.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An event. Inside it is a time-ordered integer; outside it reads as a version 7 UUID (RFC 9562, section 5.7)
/// whose time and counter are that integer, so that no second index is needed to find it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EventId(pub i64);

impl EventId {
    /// The UUID that stands for this event outside.
    pub fn to_uuid(self) -> Uuid {
        let key = self.0.cast_unsigned();
        let millis = u128::from(key >> SEQUENCE_BITS) & 0xffff_ffff_ffff;
        let sequence = u128::from(key & 0xf_ffff);
        let (high, low) = (sequence >> 8, sequence & 0xff);
        let filling = u128::from(scramble(key)) >> 10;
        Uuid::from_u128(millis << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low << 54 | (filling & ((1 << 54) - 1)))
    }

    /// Reads what [`EventId::to_uuid`] wrote; any other UUID is no event.
    pub fn parse(text: &str) -> Option<Self> {
        let uuid = parse_hyphenated(text)?;
        let bits = uuid.as_u128();
        let millis = (bits >> 80) & 0x7ff_ffff_ffff;
        let sequence = ((bits >> 64) & 0xfff) << 8 | ((bits >> 54) & 0xff);
        let id = Self(i64::try_from(millis << SEQUENCE_BITS | sequence).ok()?);
        (id.to_uuid() == uuid).then_some(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_uuid().hyphenated().fmt(f)
    }
}

/// Spreads the bits of a key over 64 (the finaliser of `SplitMix64`): for looks, not for secrecy.
fn scramble(key: u64) -> u64 {
    let mut z = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What the upper bits of a time-ordered id say: the clock by which it was made. The time is [`IdTimes::of`].
pub fn clock_of(id: i64) -> Timestamp {
    Timestamp::from_millis(id >> SEQUENCE_BITS)
}

/// The smallest id that is made when the clock shows `time`; of a time before 1970, or after the last id, the smallest
/// or the greatest one.
pub fn first_at_clock(time: Timestamp) -> i64 {
    time.as_millis().clamp(0, i64::MAX >> SEQUENCE_BITS) << SEQUENCE_BITS
}

/// Gives out time-ordered ids that never repeat and never go back, even when the clock does.
#[derive(Clone, Debug)]
pub struct IdSequence {
    last: i64,
    times: IdTimes,
}

impl IdSequence {
    /// Goes on after `last`, the greatest id in use (0 when there is none).
    pub fn after(last: i64, times: IdTimes) -> Self {
        Self { last, times }
    }

    /// The last id.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// The times of the ids.
    pub fn times(&self) -> &IdTimes {
        &self.times
    }

    /// The next id, at `now` or later.
    pub fn next(&mut self, now: Timestamp) -> i64 {
        self.last = (self.last + 1).max(self.times.first_at(now));
        self.last
    }
}
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_event_id_survives_the_way_out_and_back(key in 1i64..i64::MAX) {
            let id = EventId(key);
            prop_assert_eq!(EventId::parse(&id.to_string()), Some(id));
            prop_assert_eq!(id.to_uuid().get_version_num(), 7);
        }

        #[test]
        fn another_uuid_is_no_event(bits in any::<u128>()) {
            let text = Uuid::from_u128(bits).to_string();
            prop_assert_eq!(EventId::parse(&text), None);
        }

        #[test]
        fn ids_grow_whatever_the_clock_does(times in proptest::collection::vec(0i64..4_000_000_000_000, 1..50)) {
            let mut ids = IdSequence::after(0, IdTimes::default());
            let mut last = 0;
            for time in times {
                let id = ids.next(Timestamp::from_millis(time));
                prop_assert!(id > last);
                last = id;
            }
        }
    }

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        let id = EndpointId::from_random([7; 16]);
        assert_eq!(EndpointId::parse(&id.to_string()), Some(id));
        assert_eq!(id.0.get_version_num(), 4);
        for text in ["", "1", &id.0.simple().to_string(), &id.0.urn().to_string(), "{}"] {
            assert_eq!(EndpointId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_delivery_id_is_plain_decimal() {
        assert_eq!(DeliveryId::parse("123"), Some(DeliveryId(123)));
        for text in ["", "0", "007", "+1", "-1", "1e3", "9223372036854775808", "x"] {
            assert_eq!(DeliveryId::parse(text), None, "{text}");
        }
    }
}
