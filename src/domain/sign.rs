//! The three signatures of a delivery request, made and verified.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;

use super::id::DeliveryId;
use super::secret::{Secret, SecretSet};
use super::time::Timestamp;

/// Bytes of a SHA-256 tag, and characters of one in hex and in base64.
const TAG: usize = 32;
const HEX: usize = 2 * TAG;
const BASE64_TAG: usize = TAG.div_ceil(3) * 4;

/// The HMAC keys of one secret, expanded once and used for every request.
#[derive(Clone)]
pub struct SigningKey {
    text: hmac::Key,
    decoded: hmac::Key,
    /// Until when it signs; `None` is the current secret.
    until: Option<Timestamp>,
}

impl SigningKey {
    /// The keys of one secret.
    pub fn new(secret: &Secret, until: Option<Timestamp>) -> Self {
        Self { text: secret.text_key(), decoded: secret.decoded_key(), until }
    }
}

/// The keys of an endpoint, current first.
#[derive(Clone)]
pub struct Signer(Vec<SigningKey>);

impl Signer {
    /// Expands the secrets of an endpoint.
    pub fn new(secrets: &SecretSet) -> Self {
        let older = secrets.older.iter().map(|(secret, until)| SigningKey::new(secret, Some(*until)));
        Self(std::iter::once(SigningKey::new(&secrets.current, None)).chain(older).collect())
    }

    /// Signs `body` as the attempt at `now` of delivery `id`.
    pub fn sign(&self, id: DeliveryId, now: Timestamp, body: &[u8]) -> Signatures {
        let (mut id_digits, mut time_digits) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (id, seconds) = (id_digits.format(id.0), time_digits.format(now.as_secs()));
        let keys = || self.0.iter().filter(|key| key.until.is_none_or(|until| now < until));
        // Each as long as it will be: it becomes a header's value as it is, without another allocation.
        let mut timestamped = String::with_capacity("t=".len() + seconds.len() + keys().count() * (",v1=".len() + HEX));
        // The current secret signs at any time, so that there is one key at least.
        let mut standard = String::with_capacity(keys().count() * ("v1, ".len() + BASE64_TAG) - 1);
        timestamped.push_str("t=");
        timestamped.push_str(seconds);
        for key in keys() {
            let tag = tag_of(&key.text, &[seconds, "."], body);
            timestamped.push_str(",v1=");
            push_hex(&mut timestamped, &tag);

            let tag = tag_of(&key.decoded, &[id, ".", seconds, "."], body);
            if !standard.is_empty() {
                standard.push(' ');
            }
            standard.push_str("v1,");
            BASE64.encode_string(tag, &mut standard);
        }
        let mut header = String::with_capacity("sha256=".len() + HEX);
        header.push_str("sha256=");
        push_hex(&mut header, &hmac::sign(&self.0[0].text, body));
        Signatures { plain: header, timestamped, standard }
    }
}

fn tag_of(key: &hmac::Key, before: &[&str], body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in before {
        context.update(part.as_bytes());
    }
    context.update(body);
    context.sign()
}

fn push_hex(text: &mut String, tag: &hmac::Tag) {
    let mut digits = [0; HEX];
    hex::encode_to_slice(tag, &mut digits).expect("a tag has half as many bytes");
    text.push_str(std::str::from_utf8(&digits).expect("hex is ASCII"));
}

/// The values of the three signature headers.
#[derive(Clone, PartialEq, Eq)]
pub struct Signatures {
    /// `X-Webhook-Signature`: `sha256=<hex>` of the body.
    pub plain: String,
    /// `X-Webhook-Signature-Timestamped`: `t=<unix seconds>,v1=<hex>` of `<t>.<body>`.
    pub timestamped: String,
    /// `webhook-signature` of Standard Webhooks: `v1,<base64>` of `<id>.<t>.<body>`.
    pub standard: String,
}

/// What a receiver knows when it verifies a request with the Standard Webhooks headers.
pub struct Presented<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`.
    pub timestamp: &'a str,
    /// The exact bytes of the body.
    pub body: &'a [u8],
}

/// Whether `header` (`X-Webhook-Signature`) signs the body with this secret, in constant time.
pub fn verify_plain(secret: &Secret, header: &str, body: &[u8]) -> bool {
    let Some(tag) = header.strip_prefix("sha256=").and_then(|tag| hex::decode(tag).ok()) else { return false };
    hmac::verify(&secret.text_key(), body, &tag).is_ok()
}

/// Whether `header` (`X-Webhook-Signature-Timestamped`) signs the body with this secret at a time within
/// `tolerance_secs` of `now`.
pub fn verify_timestamped(secret: &Secret, header: &str, body: &[u8], now: Timestamp, tolerance_secs: u64) -> bool {
    let mut parts = header.split(',');
    let Some(time) = parts.next().and_then(|part| part.strip_prefix("t=")) else { return false };
    let message = [time.as_bytes(), b".", body].concat();
    is_fresh(time, now, tolerance_secs)
        && parts
            .filter_map(|part| part.strip_prefix("v1="))
            .filter_map(|tag| hex::decode(tag).ok())
            .any(|tag| hmac::verify(&secret.text_key(), &message, &tag).is_ok())
}

/// Whether `header` (`webhook-signature`) signs the request with this secret at a time within `tolerance_secs`
/// of `now`.
pub fn verify_standard(
    secret: &Secret,
    header: &str,
    seen: &Presented<'_>,
    now: Timestamp,
    tolerance_secs: u64,
) -> bool {
    let message = [seen.id.as_bytes(), b".", seen.timestamp.as_bytes(), b".", seen.body].concat();
    is_fresh(seen.timestamp, now, tolerance_secs)
        && header
            .split(' ')
            .filter_map(|part| part.strip_prefix("v1,"))
            .filter_map(|tag| BASE64.decode(tag).ok())
            .any(|tag| hmac::verify(&secret.decoded_key(), &message, &tag).is_ok())
}

fn is_fresh(time: &str, now: Timestamp, tolerance_secs: u64) -> bool {
    time.parse::<i64>().is_ok_and(|time| now.as_secs().abs_diff(time) <= tolerance_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> SecretSet {
        SecretSet { current: Secret::from_random([1; 32]), older: vec![] }
    }

    #[test]
    fn what_is_signed_verifies_and_what_is_altered_does_not() {
        let set = secrets();
        let now = Timestamp::from_millis(1_777_612_478_123);
        let signed = Signer::new(&set).sign(DeliveryId(42), now, b"{}");
        let secret = &set.current;
        assert!(verify_plain(secret, &signed.plain, b"{}"));
        assert!(!verify_plain(secret, &signed.plain, b"{ }"));
        assert!(verify_timestamped(secret, &signed.timestamped, b"{}", now, 300));
        assert!(!verify_timestamped(secret, &signed.timestamped, b"{ }", now, 300));
        let late = now.plus(std::time::Duration::from_secs(400));
        assert!(!verify_timestamped(secret, &signed.timestamped, b"{}", late, 300));
        let seen = Presented { id: "42", timestamp: "1777612478", body: b"{}" };
        assert!(verify_standard(secret, &signed.standard, &seen, now, 300));
        let other = Presented { id: "43", ..seen };
        assert!(!verify_standard(secret, &signed.standard, &other, now, 300));
    }

    #[test]
    fn the_key_of_the_standard_scheme_is_what_the_secret_means_in_base64() {
        let of_text = |text: &str| hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        let of_base64 = |text: &str| hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(text).expect("base64"));
        let key = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let (prefixed, text, unpadded) =
            (format!("whsec_{key}"), "colons:are:in:no:base64:", "0123456789abcdefghijklmno");
        let own =
            [(&*prefixed, of_base64(key)), (key, of_base64(key)), (text, of_text(text)), (unpadded, of_text(unpadded))];
        for (secret, standard) in own {
            let set = SecretSet { current: Secret::of_owner(secret).expect("a secret"), older: vec![] };
            let signed = Signer::new(&set).sign(DeliveryId(7), Timestamp::from_millis(9_000), b"{}");
            let base64 = BASE64.encode(hmac::sign(&standard, b"7.9.{}"));
            assert_eq!(signed.standard, format!("v1,{base64}"));
            let hex = hex::encode(hmac::sign(&of_text(secret), b"{}"));
            assert_eq!(signed.plain, format!("sha256={hex}"));
            let timestamped = hex::encode(hmac::sign(&of_text(secret), b"9.{}"));
            assert_eq!(signed.timestamped, format!("t=9,v1={timestamped}"));
        }
    }

    #[test]
    fn during_an_overlap_both_secrets_sign_and_after_it_only_the_new_one() {
        let old = Secret::from_random([2; 32]);
        let until = Timestamp::from_millis(10_000);
        let set = SecretSet { older: vec![(old.clone(), until)], ..secrets() };
        let signer = Signer::new(&set);
        let during = signer.sign(DeliveryId(1), Timestamp::from_millis(9_999), b"x");
        assert!(verify_timestamped(&old, &during.timestamped, b"x", Timestamp::from_millis(9_999), 1));
        assert!(verify_timestamped(&set.current, &during.timestamped, b"x", Timestamp::from_millis(9_999), 1));
        assert_eq!(during.standard.split(' ').count(), 2);
        for text in [&during.plain, &during.timestamped, &during.standard] {
            assert_eq!(text.capacity(), text.len(), "it has no more room than it needs");
        }
        assert!(!verify_plain(&old, &during.plain, b"x"), "the single signature is the current secret's");
        let after = signer.sign(DeliveryId(1), until, b"x");
        assert!(!verify_timestamped(&old, &after.timestamped, b"x", until, 1));
    }
}
