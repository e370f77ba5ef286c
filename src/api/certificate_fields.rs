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
        "additionalProperties": false,
        "properties": {
            "certificate": text(
                MAX_CERTIFICATE_CHARS,
                "PEM: the endpoint's own certificate, and up to 4 others that lead to its authority.",
            ),
            "private_key": text(
                MAX_PRIVATE_KEY_CHARS,
                "PEM: the key of the endpoint's own certificate, not encrypted: RSA with 2,048 to 4,096 bits, ECDSA on \
                 P-256 or P-384, or Ed25519. No answer shows it.",
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
        let reason = "it is not an object with these two strings";
        return Err(invalid(&Words::new(reason, "no es un objeto con estas dos cadenas")));
    };
    let is_known = |name: &String| matches!(name.as_str(), "certificate" | "private_key");
    if value.as_object().is_some_and(|members| !members.keys().all(is_known)) {
        let reason = "it has a member other than certificate and private_key";
        return Err(invalid(&Words::new(reason, "tiene un miembro que no es certificate ni private_key")));
    }
    let parsed = client_certificate::parse(certificate, private_key, now);
    parsed.map(Some).map_err(|refusal| invalid(&reason(refusal)))
}

/// The fault of a certificate that has a name twice.
pub fn repeated_member() -> Fault {
    let reason = Words::new("it has a member twice", "tiene un miembro dos veces");
    Fault::new(Code::ClientCertificateInvalid).because(&reason)
}

fn reason(refusal: CertificateRefusal) -> Words {
    match refusal {
        CertificateRefusal::TooLong => Words::new(
            "certificate or private_key is too long, or there are too many certificates",
            "certificate o private_key es demasiado largo, o hay demasiados certificados",
        ),
        CertificateRefusal::NoCertificate => Words::new(
            "certificate contains no certificate, or something that is not a certificate",
            "certificate no contiene ningún certificado, o contiene algo que no es un certificado",
        ),
        CertificateRefusal::NoKey => Words::new(
            "private_key contains no private key, more than one, or a key of another kind than RSA with 2,048 to 4,096 \
             bits, ECDSA on P-256 or P-384, and Ed25519",
            "private_key no contiene ninguna clave privada, contiene más de una, o una que no es RSA de 2048 a 4096 \
             bits, ECDSA con P-256 o P-384, ni Ed25519",
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
