//! An instant in UTC with millisecond precision, and the one way in which it is written and read.

use std::fmt;
use std::time::Duration;

/// Milliseconds since the Unix epoch. Outside it is always ISO 8601 with whole seconds and `Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(i64);

/// Year 0 to the end of what the calendar library can write: 9999-12-30T22:00:00Z.
const RANGE_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_207_199_999;

/// A length of time in whole milliseconds; one that is too long for the type (292 million years) is for ever.
pub fn millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

impl Timestamp {
    /// From milliseconds since the Unix epoch; out of the years 0 to 9999 it is clamped.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(*RANGE_MS.start(), *RANGE_MS.end()))
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Whole seconds since the Unix epoch, for what has no earlier time; 0 before it.
    pub fn unix_seconds(self) -> u64 {
        self.since(Self::default()).as_secs()
    }

    /// This instant moved later, within the years 0 to 9999.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(millis(duration)))
    }

    /// This instant moved earlier, within the years 0 to 9999.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(millis(duration)))
    }

    /// The first instant after the second that this is in: times are shown in whole seconds, and what is shown of an
    /// instant is to reach to its end.
    #[must_use]
    pub fn end_of_second(self) -> Self {
        Self::from_millis(self.as_secs().saturating_add(1).saturating_mul(1_000))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        // No overflow: both are within the years 0 to 9999.
        Duration::from_millis((self.0 - earlier.0).max(0).unsigned_abs())
    }

    /// Reads an RFC 3339 date-time that carries its offset (`Z` or `+02:00`).
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 64 {
            return None;
        }
        let instant: jiff::Timestamp = text.parse().ok()?;
        let millis = instant.as_millisecond();
        RANGE_MS.contains(&millis).then_some(Self(millis))
    }

    /// Reads the start of a range: a date-time, or a date that stands for its first instant in UTC.
    pub fn parse_start(text: &str) -> Option<Self> {
        if is_date(text) { Self::parse(&format!("{text}T00:00:00Z")) } else { Self::parse(text) }
    }

    /// Reads the end of a range, which belongs to it: a date-time, or a date that stands for its last second in UTC.
    pub fn parse_end(text: &str) -> Option<Self> {
        if is_date(text) { Self::parse(&format!("{text}T23:59:59Z")) } else { Self::parse(text) }
    }
}

/// `YYYY-MM-DD` by its looks.
fn is_date(text: &str) -> bool {
    text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-')
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = jiff::Timestamp::from_second(self.as_secs()).map_err(|_| fmt::Error)?;
        let utc = jiff::tz::Offset::UTC.to_datetime(instant);
        // Three times are written for each event, and `{:02}` was seen in its profile.
        let mut text = *b"0000-00-00T00:00:00Z";
        let year = utc.year();
        for (index, value) in [
            (0, year / 100),
            (2, year % 100),
            (5, utc.month().into()),
            (8, utc.day().into()),
            (11, utc.hour().into()),
            (14, utc.minute().into()),
            (17, utc.second().into()),
        ] {
            let value = u8::try_from(value).map_err(|_| fmt::Error)?;
            text[index] = b'0' + value / 10;
            text[index + 1] = b'0' + value % 10;
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn a_time_is_written_in_utc_with_whole_seconds() {
        let time = Timestamp::parse("2026-05-01T07:14:38.999+02:00").expect("a time");
        assert_eq!(time.to_string(), "2026-05-01T05:14:38Z");
    }

    #[test]
    fn a_time_without_its_offset_is_refused() {
        for text in ["2026-05-01T05:14:38", "2026-05-01", "", "yesterday", "99999-01-01T00:00:00Z"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_is_a_whole_day() {
        let day = "2026-05-01";
        assert_eq!(Timestamp::parse_start(day).expect("a time").to_string(), "2026-05-01T00:00:00Z");
        assert_eq!(Timestamp::parse_end(day).expect("a time").to_string(), "2026-05-01T23:59:59Z");
        for text in ["2026-02-30", "2026-13-01", "1-1-1", "2026-05-1T", "2026-0501-"] {
            assert_eq!((Timestamp::parse_start(text), Timestamp::parse_end(text)), (None, None), "{text}");
        }
    }

    #[test]
    fn the_ends_of_the_range_can_be_written() {
        for millis in [i64::MIN, i64::MAX, -1, 0] {
            assert_eq!(Timestamp::from_millis(millis).to_string().len(), 20);
        }
    }
}
