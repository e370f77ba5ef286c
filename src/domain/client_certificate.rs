//! Client certificates: what is checked of a certificate and its private key, what is shown of them, and what a
//! connection to a receiver needs.

use std::fmt::Write as _;

use ring::digest;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use zeroize::Zeroizing;

use super::credential::{Credential, WithCredential};
use super::time::Timestamp;

/// Most characters of the certificate with those that lead to its authority.
pub const MAX_CERTIFICATE_CHARS: usize = 16 * 1024;

/// Most certificates in it: the endpoint's own, and those between it and its authority.
pub const MAX_CHAIN: usize = 5;

/// Most characters of the private key: one of RSA with 4,096 bits has some 3,300, and there may be a comment beside it.
pub const MAX_PRIVATE_KEY_CHARS: usize = 8 * 1024;

/// Characters of a subject that are shown.
const MAX_SUBJECT_CHARS: usize = 1024;

/// What is shown of a client certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShownCertificate {
    /// Whose it is (RFC 4514).
    pub subject: String,
    /// SHA-256 of the certificate, in hex.
    pub fingerprint: String,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// Why a certificate and a key are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CertificateRefusal {
    /// The certificate is too long, or has too many others beside it.
    TooLong,
    /// There is no certificate, or something else.
    NoCertificate,
    /// There is not one private key, or it is of a kind that this program does not take: it takes RSA with 2,048 to
    /// 4,096 bits, ECDSA on P-256 or P-384, and Ed25519.
    NoKey,
    /// The private key is encrypted.
    EncryptedKey,
    /// The private key belongs to another certificate.
    OtherKey,
    /// The certificate has expired.
    Expired,
}

/// Checks a certificate and its private key, both PEM. What is kept of them is one PEM text.
pub fn parse(
    certificate: &str,
    private_key: &str,
    now: Timestamp,
) -> Result<WithCredential<ShownCertificate>, CertificateRefusal> {
    if certificate.len() > MAX_CERTIFICATE_CHARS || private_key.len() > MAX_PRIVATE_KEY_CHARS {
        return Err(CertificateRefusal::TooLong);
    }
    let chain = read_chain(certificate)?;
    let shown = shown(&chain)?;
    let key = read_key(private_key)?;
    let key = any_supported_type(&key).map_err(|_| CertificateRefusal::NoKey)?;
    CertifiedKey::new(chain, key).keys_match().map_err(|_| CertificateRefusal::OtherKey)?;
    if shown.not_after <= now {
        return Err(CertificateRefusal::Expired);
    }
    Ok(WithCredential { shown, credential: Credential::new(format!("{certificate}\n{private_key}")) })
}

fn read_chain(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateRefusal> {
    let mut chain = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        match section {
            Ok((SectionKind::Certificate, der)) => chain.push(CertificateDer::from(der)),
            Ok(_) | Err(_) => return Err(CertificateRefusal::NoCertificate),
        }
    }
    match chain.len() {
        0 => Err(CertificateRefusal::NoCertificate),
        1..=MAX_CHAIN => Ok(chain),
        _ => Err(CertificateRefusal::TooLong),
    }
}

fn read_key(text: &str) -> Result<Zeroizing<PrivateKeyDer<'static>>, CertificateRefusal> {
    // PKCS #8 says it where a key begins (RFC 7468, section 11), and older forms in a header (RFC 1421, section 4.6).
    let says_so =
        |line: &str| line.contains("ENCRYPTED") && (line.starts_with("-----") || line.starts_with("Proc-Type"));
    if text.lines().any(|line| says_so(line.trim_start())) {
        return Err(CertificateRefusal::EncryptedKey);
    }
    // Nothing beside it: a certificate there would be shown to receivers.
    let mut sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes());
    let key = match (sections.next(), sections.next()) {
        (Some(Ok((kind, der))), None) => PrivateKeyDer::from_pem(kind, der),
        _ => None,
    };
    key.map(Zeroizing::new).ok_or(CertificateRefusal::NoKey)
}

/// What is shown of the first certificate. All of them must be certificates.
fn shown(chain: &[CertificateDer<'_>]) -> Result<ShownCertificate, CertificateRefusal> {
    let read = |der: &CertificateDer<'_>| Certificate::from_der(der).map_err(|_| CertificateRefusal::NoCertificate);
    let certificates = chain.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let own = &certificates[0].tbs_certificate;
    let mut subject = String::new();
    write!(subject, "{}", own.subject).map_err(|_| CertificateRefusal::NoCertificate)?;
    let not_after = own.validity.not_after.to_unix_duration();
    Ok(ShownCertificate {
        subject: subject.chars().take(MAX_SUBJECT_CHARS).collect(),
        fingerprint: hex::encode(digest::digest(&digest::SHA256, &chain[0])),
        not_after: Timestamp::default().plus(not_after),
    })
}

/// What tells the identity of one connection from that of another: a digest of its certificates and its key.
pub type IdentityId = [u8; 32];

/// A client certificate with its private key, as connections to a receiver have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientIdentity {
    id: IdentityId,
    pem: Credential,
}

impl ClientIdentity {
    /// From what [`parse`] keeps.
    pub fn new(pem: Credential) -> Self {
        let digest = digest::digest(&digest::SHA256, pem.reveal().as_bytes());
        Self { id: digest.as_ref().try_into().expect("SHA-256 has 32 bytes"), pem }
    }

    /// See [`IdentityId`].
    pub fn id(&self) -> IdentityId {
        self.id
    }

    /// The certificates, and the key to sign with. `None` where they were never checked.
    pub fn certified_key(&self) -> Option<CertifiedKey> {
        let pem = self.pem.reveal().as_bytes();
        let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()?;
        let key = Zeroizing::new(PrivateKeyDer::from_pem_slice(pem).ok()?);
        Some(CertifiedKey::new(chain, any_supported_type(&key).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBrTCCAVOgAwIBAgIUO6nP7uSg/G/X+i0LizD8aCuBTrkwCgYIKoZIzj0EAwIw
KzEVMBMGA1UECgwMQWxkYWJhIHRlc3RzMRIwEAYDVQQDDAlhdXRob3JpdHkwIBcN
MjYxMjAxMDE0NzM3WhgPMjEyNjExMDcwMTQ3MzdaMCsxFTATBgNVBAoMDEFsZGFi
YSB0ZXN0czESMBAGA1UEAwwJYXV0aG9yaXR5MFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEBa8F6BcqVLXHX17nXrT9uXNd60a6hWLOkrei8h5LDlFExDNmmmdbdv/q
KJtGBSFZMmgXpLsljRwmeOL5QuFmhqNTMFEwHQYDVR0OBBYEFO5uzgJGsNeornvC
g/2qKitcKPqTMB8GA1UdIwQYMBaAFO5uzgJGsNeornvCg/2qKitcKPqTMA8GA1Ud
EwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAJj5cr9v4DJ1TvhFG1ZjWU0G
Pcl+4mdvF9XWAUK4ncPjAiAJcFkehTHuvLQriGMMh3bZL9gWKIAWwyzdz5h9INlN
kQ==
-----END CERTIFICATE-----
";

    const CLIENT: &str = "\
-----BEGIN CERTIFICATE-----
MIIBkTCCATigAwIBAgIBBzAKBggqhkjOPQQDAjArMRUwEwYDVQQKDAxBbGRhYmEg
dGVzdHMxEjAQBgNVBAMMCWF1dGhvcml0eTAgFw0yNjEyMDEwMTQ3MzdaGA8yMTI2
MTEwNzAxNDczN1owKTEWMBQGA1UECgwNQWxkYWJhLCB0ZXN0czEPMA0GA1UEAwwG
Y2xpZW50MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEemlwyBPo20be//xL+fT/
Q4klPGblQ0AOKnp4/ritwHLFLjlyMe4zbYgjSM+cXmPc2aciVdxD8Juiht2DT7Sm
faNNMEswCQYDVR0TBAIwADAdBgNVHQ4EFgQUtuFNV7Nj5Kjp6I2IGDdUKdTbDPQw
HwYDVR0jBBgwFoAU7m7OAkaw16iue8KD/aoqK1wo+pMwCgYIKoZIzj0EAwIDRwAw
RAIgVaG5J/5hu0BrRo6vQ0gmxIX+ppAKINOndPE/9EJfbB4CIEGYphzv24v5+t6I
CsRsBhJLmp8wuacllgOHxwJrYgmG
-----END CERTIFICATE-----
";

    /// The key of [`CLIENT`], in the forms of PKCS #8 and SEC 1.
    const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg4qzdSYd10/4jo+EW
OCgPlxlDQAexfoGZ7UDLt+MEjqGhRANCAAR6aXDIE+jbRt7//Ev59P9DiSU8ZuVD
QA4qenj+uK3AcsUuOXIx7jNtiCNIz5xeY9zZpyJV3EPwm6KG3YNPtKZ9
-----END PRIVATE KEY-----
";

    const SEC1_KEY: &str = "\
-----BEGIN EC PARAMETERS-----
BggqhkjOPQMBBw==
-----END EC PARAMETERS-----
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIOKs3UmHddP+I6PhFjgoD5cZQ0AHsX6Bme1Ay7fjBI6hoAoGCCqGSM49
AwEHoUQDQgAEemlwyBPo20be//xL+fT/Q4klPGblQ0AOKnp4/ritwHLFLjlyMe4z
bYgjSM+cXmPc2aciVdxD8Juiht2DT7SmfQ==
-----END EC PRIVATE KEY-----
";

    /// The key of [`AUTHORITY`].
    const OTHER_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgRQnfLNjU9UMabmD2
ttu6sBQEfQFYebcWRIlhyrIXmQShRANCAAQFrwXoFypUtcdfXudetP25c13rRrqF
Ys6St6LyHksOUUTEM2aaZ1t2/+oom0YFIVkyaBekuyWNHCZ44vlC4WaG
-----END PRIVATE KEY-----
";

    fn now() -> Timestamp {
        Timestamp::parse("2126-11-07T01:47:36Z").expect("a time")
    }

    fn refusal(certificate: &str, private_key: &str) -> Option<CertificateRefusal> {
        parse(certificate, private_key, now()).err()
    }

    #[test]
    fn a_certificate_is_shown_by_its_subject_its_fingerprint_and_its_end() {
        for key in [KEY, SEC1_KEY, &KEY.replace('\n', "\r\n"), &format!("a comment\n{KEY}")] {
            let parsed = parse(&[CLIENT, AUTHORITY].concat(), key, now()).expect("they fit");
            assert_eq!(parsed.shown.subject, "CN=client,O=Aldaba\\, tests");
            let fingerprint = "1b11c98a215dca1a427cc4c36358018180eaa01776003e05ef883eccaeccc418";
            assert_eq!(parsed.shown.fingerprint, fingerprint);
            assert_eq!(parsed.shown.not_after.to_string(), "2126-11-07T01:47:37Z");
            let identity = ClientIdentity::new(parsed.credential);
            let certified = identity.certified_key().expect("a key");
            assert_eq!((certified.cert.len(), certified.keys_match()), (2, Ok(())));
            assert!(!format!("{identity:?}").contains("BEGIN"));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_reason() {
        use CertificateRefusal::{EncryptedKey, NoCertificate, NoKey, OtherKey, TooLong};
        let encrypted = KEY.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let older =
            SEC1_KEY.replace("BEGIN EC PRIVATE KEY-----", "BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n");
        let no_der = CLIENT.replace("MIIBkT", "MIIBkD");
        let (longer, chain) = (" ".repeat(MAX_CERTIFICATE_CHARS), CLIENT.repeat(MAX_CHAIN + 1));
        let cases: [(&str, &str, CertificateRefusal); 18] = [
            ("", KEY, NoCertificate),
            ("nothing", KEY, NoCertificate),
            (KEY, KEY, NoCertificate),
            (&[CLIENT, KEY].concat(), KEY, NoCertificate),
            (&no_der, KEY, NoCertificate),
            (&[CLIENT, &no_der].concat(), KEY, NoCertificate),
            (&[CLIENT, &longer].concat(), KEY, TooLong),
            (&chain, KEY, TooLong),
            (CLIENT, &" ".repeat(MAX_PRIVATE_KEY_CHARS + 1), TooLong),
            (CLIENT, "", NoKey),
            (CLIENT, CLIENT, NoKey),
            (CLIENT, &[KEY, KEY].concat(), NoKey),
            (CLIENT, &[KEY, CLIENT].concat(), NoKey),
            (CLIENT, &KEY.replace("MIGHAgEA", "MIGHAgEB"), NoKey),
            (CLIENT, &encrypted, EncryptedKey),
            (CLIENT, &older, EncryptedKey),
            (CLIENT, OTHER_KEY, OtherKey),
            (&[AUTHORITY, CLIENT].concat(), KEY, OtherKey),
        ];
        for (certificate, key, reason) in cases {
            assert_eq!(refusal(certificate, key), Some(reason), "{certificate} {reason:?}");
        }
        assert_eq!(refusal(CLIENT, KEY), None);
        let end = Timestamp::parse("2126-11-07T01:47:37Z").expect("a time");
        assert_eq!(parse(CLIENT, KEY, end).err(), Some(CertificateRefusal::Expired));
    }

    #[test]
    fn keys_of_these_kinds_are_taken_and_of_no_others() {
        use CertificateRefusal::{NoKey, OtherKey};
        macro_rules! key {
            ($name:literal) => {
                include_str!(concat!("../../tests/keys/", $name, ".pem"))
            };
        }
        // A key that is taken is one of another certificate.
        for (key, reason) in [
            (key!("rsa_1024"), NoKey),
            (key!("rsa_2048"), OtherKey),
            (key!("rsa_4096"), OtherKey),
            (key!("rsa_4104"), NoKey),
            (key!("p384"), OtherKey),
            (key!("p521"), NoKey),
            (key!("ed25519"), OtherKey),
        ] {
            assert_eq!(refusal(CLIENT, key), Some(reason), "{key}");
        }
    }

    #[test]
    fn identities_are_the_same_where_certificates_and_keys_are() {
        let of = |certificate: &str| ClientIdentity::new(parse(certificate, KEY, now()).expect("they fit").credential);
        assert_eq!(of(CLIENT).id(), of(CLIENT).id());
        assert_ne!(of(CLIENT).id(), of(&[CLIENT, AUTHORITY].concat()).id(), "another chain is shown");
        assert!(ClientIdentity::new(Credential::new("nothing".into())).certified_key().is_none());
    }
}
