//! TLS to receivers: one configuration for all that ask for no certificate, and one for each client certificate.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, ClientConfig, Error};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::tls_sessions::TlsSessions;
use crate::domain::client_certificate::{ClientIdentity, IdentityId};
use crate::lock::Mutex;

/// Client certificates that are kept ready, with some 10 KB each. Beyond, a key is read for each connection.
const MAX_READY: usize = 1_024;

/// One that no connection has used for so long is dropped, and with it a key of an endpoint that may be gone.
const READY_FOR: Duration = Duration::from_secs(300);

/// What connections to receivers are made with.
pub(super) struct Tls {
    config: ClientConfig,
    without: TlsConnector,
    ready: Mutex<HashMap<IdentityId, (TlsConnector, Instant)>>,
}

impl Tls {
    pub fn new() -> Self {
        let config = config();
        Self { without: TlsConnector::from(Arc::new(config.clone())), config, ready: Mutex::default() }
    }

    /// What makes connections of this identity. `None` where its key cannot be used.
    pub fn connector(&self, identity: Option<&ClientIdentity>) -> Option<TlsConnector> {
        let Some(identity) = identity else { return Some(self.without.clone()) };
        let now = Instant::now();
        if let Some((ready, used_at)) = self.ready.lock().get_mut(&identity.id()) {
            *used_at = now;
            return Some(ready.clone());
        }
        // Without the lock: to read an RSA key takes a millisecond.
        let mut config = self.config.clone();
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity.certified_key()?));
        let connector = TlsConnector::from(Arc::new(config));
        let mut ready = self.ready.lock();
        if ready.len() >= MAX_READY {
            return Some(connector);
        }
        // Sessions are resumed with the one that made them: whoever was first stays.
        Some(ready.entry(identity.id()).or_insert((connector, now)).0.clone())
    }

    /// Drops what was not used for a while.
    pub fn drop_unused(&self) {
        self.ready.lock().retain(|_, (_, used_at)| used_at.elapsed() < READY_FOR);
    }
}

/// HTTP/1.1 over TLS, with sessions that new connections resume: never with another client certificate.
pub(super) fn config() -> ClientConfig {
    let mut config = crate::tls::verified();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::store(Arc::new(TlsSessions::default()));
    config
}

/// What the other side did where it did not take the client certificate. With TLS 1.3 it does so after the handshake.
pub(super) fn certificate_complaint(error: &io::Error) -> Option<&'static str> {
    use AlertDescription as A;
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(A::CertificateRequired) => Some("demands a client certificate"),
        Error::AlertReceived(
            A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied,
        ) => Some("refused the client certificate"),
        _ => None,
    }
}
