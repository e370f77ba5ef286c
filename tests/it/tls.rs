//! TLS to receivers: an authority and certificates of a test's own, and sessions that new connections resume.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};

use crate::app::{Call, EVENT, Receiver, Reply, eventually};
use crate::command_line::printed;
use crate::crash::Server;

/// Names below `localhost` are this machine, whatever the name servers say.
pub const DOMAIN: &str = "tests.localhost";

/// Runs a script in the folder, and fails with what it says.
fn shell(folder: &Path, script: &str) {
    let output = Command::new("sh").args(["-euc", script]).current_dir(folder).output().expect("sh");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A key of `openssl`.
pub const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// An authority, and the certificate of a receiver for the names below [`DOMAIN`].
pub struct Authority {
    pub folder: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let script = format!(
            "openssl req -x509 {EC} -days 30 -subj /CN=tests -keyout ca.key -out ca.pem \
                 -addext basicConstraints=critical,CA:TRUE"
        );
        shell(folder.path(), &script);
        let authority = Self { folder };
        authority.sign("receiver", EC, &format!("subjectAltName=DNS:*.{DOMAIN}"), "-days 30");
        authority
    }

    /// Makes `<name>.pem` and `<name>.key` with a key of this kind, an extension, and this life.
    pub fn sign(&self, name: &str, key: &str, extension: &str, life: &str) {
        let script = format!(
            "openssl req {key} -subj '/O=Aldaba tests/CN={name}' -keyout {name}.key -out {name}.csr
             printf '{extension}\nbasicConstraints=CA:FALSE' > {name}.extensions
             openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial {life} \
                 -extfile {name}.extensions -out {name}.pem"
        );
        shell(self.folder.path(), &script);
    }

    /// The text of one of its files.
    pub fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).expect("a file")
    }

    /// The setting by which a server of its own trusts it.
    pub fn trusted(&self) -> (&'static str, String) {
        ("SSL_CERT_FILE", self.folder.path().join("ca.pem").display().to_string())
    }

    /// A receiver over TLS. Where it demands certificates, they must be of this authority.
    pub async fn receiver(&self, demands: bool) -> Receiver {
        let path = |file: &str| self.folder.path().join(file);
        let certificates = |file: &str| -> Vec<CertificateDer<'static>> {
            let read = CertificateDer::pem_file_iter(path(file)).expect("certificates");
            read.collect::<Result<_, _>>().expect("certificates")
        };
        let key = PrivateKeyDer::from_pem_file(path("receiver.key")).expect("a key");
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone());
        let config = config.with_safe_default_protocol_versions().expect("versions");
        let config = if demands {
            let mut roots = RootCertStore::empty();
            roots.add(certificates("ca.pem").remove(0)).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            config.with_client_cert_verifier(verifier.build().expect("a verifier"))
        } else {
            config.with_no_client_auth()
        };
        let mut config = config.with_single_cert(certificates("receiver.pem"), key).expect("a key of the certificate");
        config.ticketer = ring::Ticketer::new().expect("tickets");
        Receiver::over_tls(TlsAcceptor::from(Arc::new(config))).await
    }
}

/// A server in a process of its own that trusts the authority, with a key of an account.
pub struct Trusting {
    server: Server,
    key: String,
    folder: TempDir,
}

impl Trusting {
    pub fn start(authority: &Authority) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let account = printed(folder.path(), &["accounts", "create", "tests"]);
        let key = printed(folder.path(), &["keys", "create", "--account", &account]);
        Self::on(folder, key, authority)
    }

    fn on(folder: TempDir, key: String, authority: &Authority) -> Self {
        let (name, file) = authority.trusted();
        let settings = [(name, file.as_str()), ("ALDABA_WEBHOOKS__RETRY_SCHEDULE", "")];
        let server = Server::start(folder.path(), &settings);
        Self { server, key, folder }
    }

    /// Stops it, does something in its folder, and starts it again.
    pub fn restart(self, authority: &Authority, between: impl FnOnce(&Path)) -> Self {
        let Self { server, key, folder } = self;
        assert!(server.terminate().success());
        between(folder.path());
        Self::on(folder, key, authority)
    }

    pub fn call(&self, method: &str, path: &str) -> Call {
        Call::new(self.server.address, method, path).bearer(&self.key)
    }

    /// Waits until so many deliveries were successes.
    pub async fn settled(&self, deliveries: usize) {
        eventually("deliveries to settle", || async {
            let answer = self.call("GET", "/v1/webhooks/deliveries?status=success").send().await.expect(200);
            (answer.json["meta"]["pagination"]["total"] == deliveries).then_some(())
        })
        .await;
    }

    /// The URL of a name at the receiver.
    pub fn url(receiver: &Receiver, name: &str) -> String {
        format!("https://{name}.{DOMAIN}:{}/hook", receiver.address.port())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_connection_resumes_the_session_of_its_receiver_however_many_there_are() {
    // More than the library keeps by default.
    const NAMES: usize = 45;
    let authority = Authority::new();
    let receiver = authority.receiver(false).await;
    receiver.always(Reply::Full(200, vec![("connection", "close".into())], String::new()));
    let trusting = Trusting::start(&authority);
    for number in 0..NAMES {
        let url = Trusting::url(&receiver, &format!("n{number}"));
        let body = json!({ "url": url, "events": [EVENT] });
        trusting.call("POST", "/v1/webhooks").json(&body).send().await.expect(201);
    }
    for round in 1..=2 {
        let body = json!({ "event": EVENT, "data": {} });
        trusting.call("POST", "/v1/events").json(&body).send().await.expect(202);
        trusting.settled(NAMES * round).await;
    }
    let resumed: Vec<bool> = receiver.handshakes().iter().map(|handshake| handshake.is_resumed).collect();
    assert_eq!(resumed.len(), 2 * NAMES);
    assert!(resumed[..NAMES].iter().all(|is_resumed| !is_resumed) && resumed[NAMES..].iter().all(|is| *is));
}
