//! Numbers of JSON as exact decimals, read from their text: no floating-point number stands in between.

use std::cmp::Ordering;

/// Most digits of a number that is compared, from its first digit that is not 0 to its last one.
pub const MAX_DIGITS: usize = 40;

/// Greatest exponent of the first digit of a number that is compared, and with a minus the smallest: `9.9e400` and
/// `1e-400` are compared, `10e400` is not.
pub const MAX_EXPONENT: i64 = 400;

/// A number. Equal numbers are equal however they are written: `1`, `1.0` and `10e-1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Decimal {
    /// -1, 0 or 1.
    sign: i8,
    /// Of the first digit; 0 for zero.
    exponent: i16,
    /// From the first digit that is not 0, two in a byte, then zeros.
    digits: [u8; MAX_DIGITS / 2],
}

impl Decimal {
    const ZERO: Self = Self { sign: 0, exponent: 0, digits: [0; MAX_DIGITS / 2] };

    /// Reads a number of JSON; `None` where it has more digits or a greater exponent than is compared. The work grows
    /// with the text and not with the exponent.
    pub fn read(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, written_exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let written = || whole.bytes().chain(fraction.bytes());
        let Some(first) = written().position(|digit| digit != b'0') else { return Some(Self::ZERO) };
        let mut digits = [0; MAX_DIGITS / 2];
        for (at, digit) in written().skip(first).enumerate().filter(|(_, digit)| *digit != b'0') {
            // The lower half of an ASCII digit is its value.
            let value = digit & 0x0f;
            *digits.get_mut(at / 2)? |= if at.is_multiple_of(2) { value << 4 } else { value };
        }
        let position = i64::try_from(whole.len()).ok()? - 1 - i64::try_from(first).ok()?;
        let exponent = written_exponent.parse::<i64>().ok()?.checked_add(position)?;
        if !(-MAX_EXPONENT..=MAX_EXPONENT).contains(&exponent) {
            return None;
        }
        let sign = if unsigned.len() == text.len() { 1 } else { -1 };
        Some(Self { sign, exponent: i16::try_from(exponent).ok()?, digits })
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_size = || (self.exponent, self.digits).cmp(&(other.exponent, other.digits));
        self.sign.cmp(&other.sign).then_with(|| if self.sign < 0 { by_size().reverse() } else { by_size() })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A number with its point in the middle of a thousand digits and more, which any two numbers can be compared by.
    fn plain(text: &str) -> (bool, String) {
        let (mantissa, exponent) = text.split_once('e').expect("an exponent");
        let unsigned = mantissa.trim_start_matches('-');
        let (whole, fraction) = unsigned.split_once('.').expect("a point");
        let before = 500 - exponent.parse::<i32>().expect("small") - i32::try_from(whole.len()).expect("short");
        let zeros = "0".repeat(usize::try_from(before).expect("enough"));
        (mantissa.starts_with('-'), format!("{zeros}{whole}{fraction:0<600}"))
    }

    fn plain_order(a: &str, b: &str) -> Ordering {
        let ((a_negative, a), (b_negative, b)) = (plain(a), plain(b));
        let length = a.len().max(b.len());
        let (a, b) = (format!("{a:0<length$}"), format!("{b:0<length$}"));
        let is_zero = |digits: &str| digits.bytes().all(|digit| digit == b'0');
        match (a_negative && !is_zero(&a), b_negative && !is_zero(&b)) {
            (false, false) => a.cmp(&b),
            (true, true) => b.cmp(&a),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        let forty = format!("1{}", "2".repeat(39));
        let moved = format!("0.0{forty}000e41");
        for equal in [
            &["1", "1.0", "1e0", "10e-1", "0.01E+2", "1.000000000000000000000000000000000000000000000000"][..],
            &["0", "-0", "0.0", "0e999999999999999999999", "-0e-5"],
            &["-1500", "-1.5e3", "-15E2", "-1500.0"],
            &["1e400", "10e399", "0.1e401"],
            &["1e-400", "0.1e-399"],
            &[forty.as_str(), moved.as_str()],
        ] {
            let read = equal.iter().map(|text| Decimal::read(text).expect(text)).collect::<Vec<_>>();
            assert!(read.iter().all(|number| *number == read[0]), "{equal:?}");
        }
    }

    #[test]
    fn numbers_are_in_order() {
        let ordered = ["-1e400", "-10.1", "-10", "-1e-400", "0", "1e-400", "0.1", "0.11", "9", "10", "10.01", "9e400"];
        let read = ordered.map(|text| Decimal::read(text).expect(text));
        assert!(read.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn what_has_too_many_digits_or_too_great_an_exponent_is_not_compared() {
        let digits = "1".repeat(41);
        let small = format!("0.{}1", "0".repeat(400));
        let too_great = ["-1e401", "10e400", "1e9223372036854775808"];
        for text in [digits.as_str(), "1e-401", &small, "1e-99999999999999999999"].into_iter().chain(too_great) {
            assert_eq!(Decimal::read(text), None, "{text}");
        }
        // Two numbers that a floating-point number cannot tell apart.
        let [a, b] = ["9007199254740992", "9007199254740993"].map(Decimal::read);
        assert!(a < b);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn numbers_compare_as_their_digits_written_out(
            a in "-?(0|[1-9][0-9]{0,12})\\.[0-9]{1,12}e-?[0-9]{1,2}",
            b in "-?(0|[1-9][0-9]{0,12})\\.[0-9]{1,12}e-?[0-9]{1,2}",
            shift in 0_i32..20,
        ) {
            let read = |text: &str| Decimal::read(text).expect("small enough");
            prop_assert_eq!(read(&a).cmp(&read(&b)), plain_order(&a, &b), "{} {}", a, b);
            // The same number with its point elsewhere.
            let (mantissa, exponent) = a.split_once('e').expect("an exponent");
            let zeros = "0".repeat(usize::try_from(shift).expect("not negative"));
            let exponent = exponent.parse::<i32>().expect("small");
            let (sign, unsigned) = mantissa.split_at(usize::from(mantissa.starts_with('-')));
            let (whole, fraction) = unsigned.split_once('.').expect("a point");
            let moved_by = shift + i32::try_from(whole.len()).expect("short");
            let moved = format!("{sign}0.{zeros}{whole}{fraction}e{}", exponent + moved_by);
            prop_assert_eq!(read(&moved), read(&a), "{} {}", moved, a);
        }
    }
}
