//! Known devices: the cookie of a device from which users have signed in.
//!
//! A device is a random number with signed marks, each for one user and day. A mark is for a user and not for an e-mail
//! address: several accounts may have users with one address, and no account may affect the users of another. The
//! cookie signs nobody in. It gives the device sign-in windows of its own, where the shared ones are used up.

use crate::domain::id::UserId;
use crate::domain::time::Timestamp;

/// How long a device is known after a sign-in, in days.
const KNOWN_DAYS: i64 = 180;

/// The same in seconds, as the cookie says it.
pub const KNOWN_DEVICE_SECONDS: u64 = 180 * 86_400;

/// Users that one device is known for; those who signed in last.
const MAX_MARKS: usize = 4;

/// Bytes of a device's number.
pub(super) const NUMBER_BYTES: usize = 16;

/// Bytes of a signature: HMAC-SHA256.
const SIGNATURE_BYTES: usize = 32;

/// A sign-in on this device: the day, and the signature of `Device::signed_text`.
#[derive(Clone, PartialEq, Eq)]
struct SignInMark {
    day: i64,
    signature: [u8; SIGNATURE_BYTES],
}

/// What a device says of itself. Nothing of it is proved before a mark is checked.
#[derive(Clone)]
pub(super) struct Device {
    number: [u8; NUMBER_BYTES],
    marks: Vec<SignInMark>,
}

impl Device {
    /// A new device.
    pub fn new(number: [u8; NUMBER_BYTES]) -> Self {
        Self { number, marks: Vec::new() }
    }

    /// Reads a cookie; `None` where it has another format.
    pub fn parse(cookie: &str) -> Option<Self> {
        let mut parts = cookie.split('.');
        let number = hex::decode(parts.next()?).ok()?.try_into().ok()?;
        let mark = |part: &str| {
            let (day, signature) = part.split_once('-')?;
            let signature = hex::decode(signature).ok()?.try_into().ok()?;
            Some(SignInMark { day: i64::from_str_radix(day, 16).ok()?, signature })
        };
        let marks = parts.take(MAX_MARKS).map(mark).collect::<Option<_>>()?;
        Some(Self { number, marks })
    }

    /// The value of the cookie.
    pub fn to_cookie(&self) -> String {
        let marks = self.marks.iter().map(|mark| format!(".{:x}-{}", mark.day, hex::encode(mark.signature)));
        hex::encode(self.number) + &marks.collect::<String>()
    }

    /// Its number.
    pub fn bytes(&self) -> [u8; NUMBER_BYTES] {
        self.number
    }

    /// What its tries are counted by.
    pub fn number(&self) -> String {
        hex::encode(self.number)
    }

    /// Whether the user has signed in with this device and it is still known. `is_signed` checks a signature.
    pub fn knows(&self, user: UserId, now: Timestamp, is_signed: impl Fn(&[u8], &[u8]) -> bool) -> bool {
        let today = day_of(now);
        self.marks.iter().any(|mark| {
            let is_fresh = (today - KNOWN_DAYS..=today + 1).contains(&mark.day);
            is_fresh && is_signed(&self.signed_text(user, mark.day), &mark.signature)
        })
    }

    /// Adds that the user has signed in now; a mark of theirs from before goes.
    pub fn mark(
        &mut self,
        user: UserId,
        now: Timestamp,
        is_signed: impl Fn(&[u8], &[u8]) -> bool,
        sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES],
    ) {
        let number = self.number;
        self.marks.retain(|mark| !is_signed(&text(number, user, mark.day), &mark.signature));
        let day = day_of(now);
        self.marks.insert(0, SignInMark { day, signature: sign(&self.signed_text(user, day)) });
        self.marks.truncate(MAX_MARKS);
    }

    fn signed_text(&self, user: UserId, day: i64) -> Vec<u8> {
        text(self.number, user, day)
    }
}

/// What is signed: every part has one length, so that no two texts are alike.
fn text(number: [u8; NUMBER_BYTES], user: UserId, day: i64) -> Vec<u8> {
    [number.as_slice(), user.0.as_bytes(), &day.to_be_bytes()].concat()
}

fn day_of(now: Timestamp) -> i64 {
    now.as_secs().div_euclid(86_400)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn user(byte: u8) -> UserId {
        UserId(Uuid::from_bytes([byte; 16]))
    }

    /// Stands for a signature: the end of the text, which has the day, and the user's first byte.
    fn sign(text: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(&text[8..40]);
        signature
    }

    fn is_signed(text: &[u8], signature: &[u8]) -> bool {
        sign(text) == signature
    }

    #[test]
    fn a_device_is_known_for_half_a_year_for_the_last_four_users() {
        let day = |day: i64| Timestamp::from_millis(day * 86_400_000);
        let mut device = Device::new([7; NUMBER_BYTES]);
        for n in 1..=5 {
            device.mark(user(n), day(1_000), is_signed, sign);
        }
        device.mark(user(5), day(1_001), is_signed, sign);
        let device = Device::parse(&device.to_cookie()).expect("it is read again");
        let known = |n, at| device.knows(user(n), day(at), is_signed);
        assert_eq!([1, 2, 3, 4, 5].map(|n| known(n, 1_001)), [false, true, true, true, true]);
        assert_eq!([4, 5].map(|n| known(n, 1_181)), [false, true]);
        assert!(!known(5, 1_182) && !known(5, 900), "neither after its time nor long before");
    }

    #[test]
    fn what_is_no_device_is_not_read() {
        for cookie in ["", ".", "zz", "00", &"0".repeat(32).replace('0', "é"), &format!("{}.x", "0".repeat(32))] {
            assert!(Device::parse(cookie).is_none(), "{cookie}");
        }
        assert!(Device::parse(&"0".repeat(32)).is_some_and(|device| device.to_cookie() == "0".repeat(32)));
    }
}
