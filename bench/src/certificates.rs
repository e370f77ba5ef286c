//! Certificates for receivers over TLS, made for one run by `openssl`: an authority that the server trusts, and the
//! certificate of the receivers. A server's folder holds them.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The authority's certificate.
pub const AUTHORITY: &str = "authority.pem";

/// The names that the receivers' certificate is for end with this. A name below `localhost` is this machine's address,
/// for which no name server is asked.
pub const DOMAIN: &str = "bench.localhost";

const CERTIFICATE: &str = "receiver.pem";
const KEY: &str = "receiver.key";

/// Makes them in this folder.
pub fn make(folder: &Path) -> anyhow::Result<()> {
    let script = format!(
        "new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=bench'
         openssl req -x509 $new -days 2 -keyout authority.key -out {AUTHORITY} \
             -addext basicConstraints=critical,CA:TRUE
         openssl req $new -keyout {KEY} -out receiver.csr
         printf 'subjectAltName=DNS:*.{DOMAIN}\nbasicConstraints=CA:FALSE' > extensions
         openssl x509 -req -in receiver.csr -CA {AUTHORITY} -CAkey authority.key -CAcreateserial -days 2 \
             -extfile extensions -out {CERTIFICATE}"
    );
    let made = Command::new("sh").args(["-ec", &script]).current_dir(folder).output().context("sh")?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// Takes connections over TLS with the certificate in this folder. Its tickets are enough for any number of names.
pub fn acceptor(folder: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(folder.join(CERTIFICATE))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.ticketer = ring::Ticketer::new()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
