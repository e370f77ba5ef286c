//! The client certificate of an endpoint as bodies and answers have it. Its key is read here and shown nowhere.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::envelope::time;
use super::error::{Code, Fault, Words};
use super::fields::Shape;
use crate::domain::client_certificate::{
    self, CertificateRefusal, MAX_CERTIFICATE_CHARS, MAX_PRIVATE_KEY_CHARS, ShownCertificate,
};
use crate::domain::credential::WithCredential;
use crate::domain::time::Timestamp;

/// A certificate with its key.
pub const CLIENT_CERTIFICATE_SHAPE: Shape = Shape::Written(|| {
    let text = |most: usize, about: &str| json!({ "type": "string", "maxLength": most, "description": about });
    json!({
        "type": "object",
        "required": ["certificate", "private_key"],
        "properties": {
            "certificate": text(
                MAX_CERTIFICATE_CHARS,
                "PEM: the endpoint's own certificate, and up to 4 others that lead to its authority.",
            ),
            "private_key": text(
                MAX_PRIVATE_KEY_CHARS,
                "PEM: the key of the endpoint's own certificate, not encrypted. No answer shows it.",
            ),
        },
    })
});

/// Reads a certificate with its key, or `null`.
pub fn read_client_certificate(
    value: &Value,
    now: Timestamp,
) -> Result<Option<WithCredential<ShownCertificate>>, Vec<Fault>> {
    if value.is_null() {
        return Ok(None);
    }
    let invalid = |reason: &Words| vec![Fault::new(Code::ClientCertificateInvalid).because(reason)];
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let (Some(certificate), Some(private_key)) = (text("certificate"), text("private_key")) else {
        return Err(invalid(&Words::new("it is no such object", "no es un objeto así")));
    };
    let parsed = client_certificate::parse(certificate, private_key, now);
    parsed.map(Some).map_err(|refusal| invalid(&reason(refusal)))
}

fn reason(refusal: CertificateRefusal) -> Words {
    match refusal {
        CertificateRefusal::TooLong => {
            Words::new("it is longer than that, or has more certificates", "es más largo, o tiene más certificados")
        }
        CertificateRefusal::NoCertificate => Words::new(
            "there is no certificate in it, or something else",
            "no contiene ningún certificado, o contiene otra cosa",
        ),
        CertificateRefusal::NoKey => Words::new(
            "there is no private key in it, or not one alone, or it is not RSA, ECDSA or Ed25519",
            "no contiene ninguna clave privada, o no una sola, o no es RSA, ECDSA ni Ed25519",
        ),
        CertificateRefusal::EncryptedKey => Words::new("the private key is encrypted", "la clave privada está cifrada"),
        CertificateRefusal::OtherKey => Words::new(
            "the private key belongs to another certificate",
            "la clave privada pertenece a otro certificado",
        ),
        CertificateRefusal::Expired => Words::new("the certificate has expired", "el certificado ha caducado"),
    }
}

/// What is shown of a client certificate.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ClientCertificateAttributes {
    /// Whose it is (RFC 4514).
    pub subject: String,
    /// SHA-256 of the certificate, in hex.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub fingerprint: String,
    /// Until when it is valid.
    #[schema(format = DateTime)]
    pub not_after: String,
}

impl From<&ShownCertificate> for ClientCertificateAttributes {
    fn from(ShownCertificate { subject, fingerprint, not_after }: &ShownCertificate) -> Self {
        Self { subject: subject.clone(), fingerprint: fingerprint.clone(), not_after: time(*not_after) }
    }
}
