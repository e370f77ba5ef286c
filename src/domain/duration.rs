//! Durations as people write them: whole numbers with units, the largest unit first.

use std::time::Duration;

/// Each unit and its milliseconds, the largest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads so many in so long, such as `600/60s`: a whole number from 1 on, and a duration. Spaces around either do not
/// matter.
pub fn parse_rate(text: &str) -> Option<(u32, Duration)> {
    let (count, window) = text.split_once('/')?;
    let digits = Some(count.trim()).filter(|count| count.bytes().all(|b| b.is_ascii_digit()))?;
    let count = digits.parse::<u32>().ok().filter(|count| *count >= 1)?;
    Some((count, parse_duration(window.trim())?))
}

/// Reads whole numbers with units, the largest first: `1h30m`, `500ms`, `30d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut next_unit = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, after) = after.split_at(letters);
        let index = UNITS.iter().position(|(name, _)| *name == unit).filter(|index| *index >= next_unit)?;
        total_ms = number.parse::<u64>().ok()?.checked_mul(UNITS[index].1)?.checked_add(total_ms)?;
        next_unit = index + 1;
        rest = after;
    }
    Some(Duration::from_millis(total_ms))
}

/// The duration in the largest unit that divides it; `parse_duration` reads it back.
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    let (unit, unit_ms) = UNITS.iter().find(|(_, unit_ms)| ms.is_multiple_of((*unit_ms).into())).unwrap_or(&("ms", 1));
    format!("{}{unit}", ms / u128::from(*unit_ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_units() {
        for (text, ms) in
            [("30s", 30_000), ("2m", 120_000), ("1h30m", 5_400_000), ("30d", 2_592_000_000), ("500ms", 500), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "s", "1.5s", "-1s", "1m1h", "1s1s", "1 s", "1y", "99999999999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_rate_is_a_number_and_a_duration() {
        for (text, count, ms) in
            [("600/60s", 600, 60_000), ("1/1h30m", 1, 5_400_000), (" 4294967295 / 1ms ", u32::MAX, 1)]
        {
            assert_eq!(parse_rate(text), Some((count, Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "1", "1/", "/1s", "0/1s", "-1/1s", "+1/1s", "1.5/1s", "1/1", "1/1s/1s", "4294967296/1s"] {
            assert_eq!(parse_rate(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_duration_or_none(text in "\\PC{0,20}") {
            let _ = (parse_duration(&text), parse_rate(&text));
        }

        #[test]
        fn a_duration_that_is_shown_reads_back(ms in 0_u64..=u64::from(u32::MAX)) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
    }
}
