//! TLS to receivers and to the database: which certificates are trusted.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Trusts Mozilla's roots and the system's, so that a company's own authority works where the system knows it.
pub fn verified() -> ClientConfig {
    let mut roots = system_roots();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    trusting(roots)
}

/// Trusts the system's roots only.
pub fn verified_by_system() -> ClientConfig {
    trusting(system_roots())
}

/// Trusts the certificates of a PEM file only. The error is for the person who named the file.
pub fn verified_by(file: &Path) -> Result<ClientConfig, String> {
    let unreadable =
        |error: &dyn std::fmt::Display| format!("cannot read certificates from {}: {error}", file.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() {
        return Err(unreadable(&"it has none"));
    }
    Ok(trusting(roots))
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in system.errors {
        tracing::debug!(%error, "some of the system's certificates could not be read");
    }
    roots.add_parsable_certificates(system.certs);
    roots
}

/// The authorities that connections trust, for `aldaba doctor`.
pub struct Roots {
    /// Mozilla's, which are a part of the program.
    pub built_in: usize,
    /// The system's.
    pub of_system: usize,
    /// Why some of the system's cannot be read.
    pub faults: Vec<String>,
}

/// Reads the authorities as connections do.
pub fn roots() -> Roots {
    let system = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (of_system, _) = roots.add_parsable_certificates(system.certs);
    let faults = system.errors.iter().map(ToString::to_string).collect();
    Roots { built_in: webpki_roots::TLS_SERVER_ROOTS.len(), of_system, faults }
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Accepts any certificate: only for a database whose URL does not ask for more (`sslmode=prefer`, libpq's default,
/// which means the same there).
pub fn unverified() -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
        .with_no_client_auth()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Accepts any certificate whose key the server holds.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
