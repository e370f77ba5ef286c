//! Client certificates of endpoints (mutual TLS): what is taken and shown, which connections have them, and that no key
//! is read again.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use aldaba::domain::permission::Permission;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::app::{App, Call, EVENT, eventually};
use crate::command_line::{aldaba, printed};
use crate::crash::Server;
use crate::database;
use crate::endpoint_settings::owners_browser;
use crate::migrations::minimum;
use crate::tls::{Authority, EC, Trusting};

const CODE: &str = "webhook_client_certificate_invalid";
const POINTER: &str = "/data/attributes/client_certificate";

/// A URL at which nobody listens.
const NOBODY: &str = "https://a.tests.localhost:9/";

/// An authority with certificates of these clients.
pub fn with_clients(names: &[&str]) -> Authority {
    let authority = Authority::new();
    for name in names {
        authority.sign(name, EC, "extendedKeyUsage=clientAuth", "-days 30");
    }
    authority
}

/// A client's certificate and key, as a body has them.
pub fn pair(authority: &Authority, name: &str) -> Value {
    json!({
        "certificate": authority.read(&format!("{name}.pem")),
        "private_key": authority.read(&format!("{name}.key")),
    })
}

fn der(authority: &Authority, name: &str) -> Vec<u8> {
    let pem = authority.read(&format!("{name}.pem"));
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate").to_vec()
}

fn fingerprint(der: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, der))
}

/// The middle of a key's text: what must be nowhere.
fn inside(pair: &Value) -> &str {
    pair["private_key"].as_str().and_then(|key| key.lines().nth(1)).expect("a line of the key")
}

fn endpoint(url: &str, event: &str, certificate: &Value) -> Value {
    json!({ "url": url, "events": [event], "client_certificate": certificate })
}

/// Registers an endpoint, and returns its path.
async fn register(trusting: &Trusting, url: &str, event: &str, certificate: &Value) -> String {
    let body = endpoint(url, event, certificate);
    let made = trusting.call("POST", "/v1/webhooks").json(&body).send().await.expect(201);
    format!("/v1/webhooks/{}", made.id())
}

async fn publish(trusting: &Trusting, event: &str) {
    let body = json!({ "event": event, "data": {} });
    trusting.call("POST", "/v1/events").json(&body).send().await.expect(202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_demands_a_certificate_gets_that_of_the_endpoint() {
    let authority = with_clients(&["client"]);
    let receiver = authority.receiver(true).await;
    let trusting = Trusting::start(&authority);
    let url = Trusting::url(&receiver, "a");
    let certificate = pair(&authority, "client");
    let made = trusting.call("POST", "/v1/webhooks").json(&endpoint(&url, EVENT, &certificate)).send().await;
    let made = made.expect(201);
    let shown = made.attribute("client_certificate");
    let client = der(&authority, "client");
    assert_eq!(shown["subject"], "CN=client,O=Aldaba tests");
    assert_eq!(shown["fingerprint"], fingerprint(&client));
    assert!(shown["not_after"].as_str().is_some_and(|at| at.len() == 20 && at.ends_with('Z')), "{shown}");
    assert_eq!(shown.as_object().map(serde_json::Map::len), Some(3));
    publish(&trusting, EVENT).await;
    trusting.settled(1).await;
    assert_eq!(receiver.handshakes()[0].client.as_deref(), Some(&*client));

    // Without one it is told what is missing.
    register(&trusting, &url, "validation.failed", &Value::Null).await;
    publish(&trusting, "validation.failed").await;
    let path = "/v1/webhooks/deliveries?status=failed";
    let failed = eventually("a failure", || async {
        trusting.call("GET", path).send().await.expect(200).json["data"].get(0).cloned()
    })
    .await;
    assert_eq!(failed["attributes"]["error_message"], "the receiver demands a client certificate");
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_shared_only_between_endpoints_with_the_same_certificate() {
    let authority = with_clients(&["one", "two"]);
    let receiver = authority.receiver(true).await;
    let trusting = Trusting::start(&authority);
    let url = Trusting::url(&receiver, "a");
    let (one, two) = (pair(&authority, "one"), pair(&authority, "two"));
    let first = register(&trusting, &url, EVENT, &one).await;
    register(&trusting, &url, "validation.failed", &one).await;
    register(&trusting, &url, "validation.error", &two).await;
    for (number, event) in [EVENT, "validation.failed", "validation.error", EVENT].into_iter().enumerate() {
        publish(&trusting, event).await;
        trusting.settled(number + 1).await;
    }
    let clients = || receiver.handshakes().into_iter().map(|handshake| handshake.client.unwrap_or_default());
    let (of_one, of_two) = (der(&authority, "one"), der(&authority, "two"));
    assert_eq!(clients().collect::<Vec<_>>(), [of_one.clone(), of_two.clone()]);
    // Another certificate holds from the next attempt on.
    trusting.call("PUT", &first).json(&json!({ "client_certificate": two })).send().await.expect(200);
    publish(&trusting, EVENT).await;
    trusting.settled(5).await;
    assert_eq!(clients().collect::<Vec<_>>(), [of_one, of_two], "the connection of the other endpoint");
    assert_eq!(receiver.received().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_survives_a_restart_and_a_new_master_key() {
    let authority = with_clients(&["client"]);
    let receiver = authority.receiver(true).await;
    let trusting = Trusting::start(&authority);
    register(&trusting, &Trusting::url(&receiver, "a"), EVENT, &pair(&authority, "client")).await;
    let trusting = trusting.restart(&authority, |folder| {
        // On PostgreSQL the key is given by the settings of every node.
        if !database::is_postgres() {
            let told = printed(folder, &["secrets", "rekey"]);
            assert_eq!(told, "2 secrets are sealed with the current master key");
        }
    });
    publish(&trusting, EVENT).await;
    trusting.settled(1).await;
    assert_eq!(receiver.handshakes()[0].client, Some(der(&authority, "client")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_authentication_and_a_certificate_survive_a_new_master_key_of_the_settings() {
    let authority = with_clients(&["client"]);
    let receiver = authority.receiver(true).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = ("11".repeat(32), "22".repeat(32));
    let run = |current: &str, previous: &str, args: &[&str]| {
        let mut command = aldaba(folder.path(), args);
        command.env("ALDABA_SECRETS__MASTER_KEY", current);
        if !previous.is_empty() {
            command.env("ALDABA_SECRETS__PREVIOUS_MASTER_KEYS", previous);
        }
        let output = command.output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let (_, account) = run(&old, "", &["accounts", "create", "tests"]);
    let (_, key) = run(&old, "", &["keys", "create", "--account", &account]);
    let (trusted, file) = authority.trusted();
    let start = |master_key: &str| {
        let settings = [(trusted, file.as_str()), ("ALDABA_SECRETS__MASTER_KEY", master_key)];
        Server::start(folder.path(), &settings)
    };
    let server = start(&old);
    let mut body = endpoint(&Trusting::url(&receiver, "a"), EVENT, &pair(&authority, "client"));
    body["headers"] = json!({ "X-Key": "the-value-of-a-key" });
    body["authentication"] = json!({ "type": "bearer", "token": "a-token" });
    Call::new(server.address, "POST", "/v1/webhooks").bearer(&key).json(&body).send().await.expect(201);
    let arrived = async |server: &Server, count: usize| {
        let event = json!({ "event": EVENT, "data": {} });
        Call::new(server.address, "POST", "/v1/events").bearer(&key).json(&event).send().await.expect(202);
        let request = receiver.wait_for(count).await.remove(count - 1);
        assert_eq!(
            (request.header("x-key"), request.header("authorization")),
            ("the-value-of-a-key", "Bearer a-token")
        );
        let client = receiver.handshakes().pop().and_then(|handshake| handshake.client);
        assert_eq!(client, Some(der(&authority, "client")));
    };
    arrived(&server, 1).await;
    assert!(server.terminate().success());
    let told = run(&new, &old, &["secrets", "rekey"]);
    assert_eq!(told, (true, "2 secrets are sealed with the current master key".to_owned()));
    assert!(!run(&old, "", &["migrate"]).0, "nothing is sealed with the key before");
    let server = start(&new);
    arrived(&server, 2).await;
}

/// nginx that demands certificates of the authority, and writes down whose they were.
struct Nginx {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Nginx {
    async fn start(authority: &Authority) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
        let certificates = authority.folder.path().display();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {kind};\n"))
            .concat();
        let settings = format!(
            "daemon off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n{paths}\
             log_format client '$ssl_client_verify $ssl_client_s_dn';\naccess_log access.log client;\n\
             server {{\nlisten 127.0.0.1:{port} ssl;\nssl_certificate {certificates}/receiver.pem;\n\
             ssl_certificate_key {certificates}/receiver.key;\nssl_client_certificate {certificates}/ca.pem;\n\
             ssl_verify_client on;\nlocation / {{ return 204; }}\n}}\n}}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), settings).expect("written");
        let child = Command::new(nginx())
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let nginx = Self { folder, port, child };
        eventually("nginx to listen", || async { nginx.is_open().await.then_some(()) }).await;
        nginx
    }

    #[expect(clippy::disallowed_methods, reason = "a test's client")]
    async fn is_open(&self) -> bool {
        tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

/// Debian has it where a user's PATH does not reach.
fn nginx() -> &'static Path {
    let debian = Path::new("/usr/sbin/nginx");
    if debian.exists() { debian } else { Path::new("nginx") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_verifies_the_certificate_with_a_key_of_each_kind() {
    let authority = with_clients(&["elliptic"]);
    authority.sign("rsa", "-newkey rsa:2048 -nodes", "extendedKeyUsage=clientAuth", "-days 30");
    let nginx = Nginx::start(&authority).await;
    let trusting = Trusting::start(&authority);
    let url = format!("https://a.{}:{}/hook", crate::tls::DOMAIN, nginx.port);
    register(&trusting, &url, EVENT, &pair(&authority, "elliptic")).await;
    register(&trusting, &url, EVENT, &pair(&authority, "rsa")).await;
    register(&trusting, &url, EVENT, &Value::Null).await;
    publish(&trusting, EVENT).await;
    trusting.settled(2).await;
    let failed = eventually("a failure", || async {
        let answer = trusting.call("GET", "/v1/webhooks/deliveries?status=failed").send().await.expect(200);
        answer.json["data"].get(0).cloned()
    })
    .await;
    assert_eq!(failed["attributes"]["error_message"], "the receiver answered 400");
    let told = eventually("nginx to write down", || async {
        let log = nginx.log();
        (log.lines().count() == 3).then_some(log)
    })
    .await;
    for line in ["SUCCESS CN=elliptic,O=Aldaba tests", "SUCCESS CN=rsa,O=Aldaba tests", "NONE -"] {
        assert!(told.lines().any(|known| known == line), "{told}");
    }
}

#[tokio::test]
async fn what_is_no_certificate_with_its_key_is_refused_in_both_languages_and_changes_nothing() {
    let app = App::start().await;
    let authority = with_clients(&["client", "other"]);
    authority.sign("expired", EC, "extendedKeyUsage=clientAuth", "-days -1");
    let (id, _) = app.endpoint(NOBODY).await;
    let path = format!("/v1/webhooks/{id}");
    let good = pair(&authority, "client");
    let changed = |name: &str, value: Value| {
        let mut pair = good.clone();
        pair[name] = value;
        pair
    };
    let certificate = good["certificate"].as_str().expect("PEM");
    let encrypted = good["private_key"].as_str().expect("PEM").replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for (wrong, why) in [
        (json!(7), "an object"),
        (json!("client"), "an object"),
        (json!([good]), "an object"),
        (json!({}), "an object"),
        (json!({ "certificate": certificate }), "an object"),
        (changed("private_key", Value::Null), "an object"),
        (changed("certificate", json!("nothing")), "no certificate"),
        (changed("certificate", good["private_key"].clone()), "no certificate"),
        (changed("certificate", json!(certificate.repeat(6))), "too long"),
        (changed("certificate", json!(format!("{certificate}{}", " ".repeat(16_384)))), "too long"),
        (changed("private_key", json!("nothing")), "no private key"),
        (changed("private_key", json!(include_str!("../keys/p521.pem"))), "ECDSA on P-256 or P-384"),
        (changed("private_key", json!(encrypted)), "encrypted"),
        (changed("private_key", json!(authority.read("other.key"))), "belongs to another certificate"),
        (pair(&authority, "expired"), "has expired"),
    ] {
        let refused = app.put(&path, json!({ "client_certificate": wrong })).await.refused(422, CODE, POINTER);
        let detail = refused.json["errors"][0]["detail"].as_str().expect("a detail");
        assert!(detail.contains(why) && detail.contains("PEM"), "{why}: {detail}");
        assert!(!detail.contains(inside(&good)));
        app.post("/v1/webhooks", endpoint(NOBODY, EVENT, &wrong)).await.refused(422, CODE, POINTER);
    }
    let spanish = app.call("PUT", &path).header("accept-language", "es");
    let spanish = spanish.json(&json!({ "client_certificate": pair(&authority, "expired") })).send().await.expect(422);
    assert!(spanish.json["errors"][0]["detail"].as_str().is_some_and(|detail| detail.contains("ha caducado")));
    let listed = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(listed.json["data"].as_array().map(Vec::len), Some(1));
    assert!(listed.json["data"][0]["attributes"].get("client_certificate").is_none());
    assert_eq!(minimum(app.folder()).await, 0);
}

#[tokio::test]
async fn a_certificate_needs_https_and_follows_no_changed_address() {
    let app = App::start().await;
    let authority = with_clients(&["client"]);
    let good = pair(&authority, "client");
    let plain = "http://a.tests.localhost:9/";
    app.post("/v1/webhooks", endpoint(plain, EVENT, &good)).await.refused(422, CODE, POINTER);
    let (bare, _) = app.endpoint(plain).await;
    let bare = format!("/v1/webhooks/{bare}");
    app.put(&bare, json!({ "client_certificate": good })).await.refused(422, CODE, POINTER);
    app.put(&bare, json!({ "client_certificate": good, "url": NOBODY })).await.expect(200);

    let made = app.post("/v1/webhooks", endpoint(NOBODY, EVENT, &good)).await.expect(201);
    let path = format!("/v1/webhooks/{}", made.id());
    let moved = ["https://b.tests.localhost:9/", "https://a.tests.localhost:10/", plain];
    for url in moved {
        app.put(&path, json!({ "url": url })).await.refused(422, CODE, POINTER);
    }
    app.put(&path, json!({ "url": plain, "client_certificate": good })).await.refused(422, CODE, POINTER);
    let shown = app.get(&path).await.expect(200);
    assert_eq!(
        (shown.attribute("url"), shown.attribute("client_certificate")["subject"].is_string()),
        (&json!(NOBODY), true)
    );
    app.put(&path, json!({ "url": format!("{NOBODY}elsewhere?a=b") })).await.expect(200);
    app.put(&path, json!({ "url": moved[0], "client_certificate": good })).await.expect(200);
    let removed = app.put(&path, json!({ "url": plain, "client_certificate": null })).await.expect(200);
    assert!(removed.json["data"]["attributes"].get("client_certificate").is_none());
}

#[tokio::test]
async fn a_certificate_stays_is_replaced_as_a_whole_and_removed_and_its_key_is_read_nowhere() {
    let app = App::start().await;
    let authority = with_clients(&["client", "next"]);
    let (good, next) = (pair(&authority, "client"), pair(&authority, "next"));
    let body = endpoint(NOBODY, EVENT, &good);
    let call = || app.call("POST", "/v1/webhooks").header("idempotency-key", "k").json(&body).send();
    let made = call().await.expect(201);
    assert_eq!(minimum(app.folder()).await, 20, "older programs would connect without it");
    let again = call().await.expect(201);
    assert_eq!((again.header("idempotent-replayed"), again.id()), ("true", made.id()));
    let path = format!("/v1/webhooks/{}", made.id());
    let subject = async || {
        let shown = app.get(&path).await.expect(200);
        shown.attribute("client_certificate")["subject"].as_str().map(str::to_owned)
    };
    app.put(&path, json!({ "description": "a" })).await.expect(200);
    assert_eq!(subject().await.as_deref(), Some("CN=client,O=Aldaba tests"));
    app.put(&path, json!({ "client_certificate": next })).await.expect(200);
    assert_eq!(subject().await.as_deref(), Some("CN=next,O=Aldaba tests"));
    let entries = app.get("/v1/audit-log?action=webhook.updated").await.expect(200);
    assert_eq!(entries.json["data"][0]["attributes"]["fields"], json!(["client_certificate"]));
    let texts = [app.get(&path).await.text, app.get("/v1/webhooks").await.text, entries.text, made.text, again.text];
    for (text, key) in texts.iter().flat_map(|text| [(text, inside(&good)), (text, inside(&next))]) {
        assert!(!String::from_utf8_lossy(text).contains(key));
    }
    for key in [inside(&good), inside(&next)] {
        let found = if database::is_postgres() {
            format!("position('{key}' in settings) > 0 OR position('{key}' in encode(credentials, 'escape')) > 0")
        } else {
            format!("instr(settings, '{key}') > 0 OR instr(CAST(credentials AS TEXT), '{key}') > 0")
        };
        let sql = format!("SELECT count(*) FROM endpoints WHERE {found}");
        assert_eq!(database::number(app.folder(), &sql).await, 0);
    }
    let hash = hex::encode(ring::digest::digest(&ring::digest::SHA256, body.to_string().as_bytes()));
    let is_hash = if database::is_postgres() { "encode(body_hash, 'hex')" } else { "lower(hex(body_hash))" };
    let sql = format!("SELECT count(*) FROM kept_answers WHERE {is_hash} = '{hash}'");
    assert_eq!(database::number(app.folder(), &sql).await, 0, "the hash of the body is keyed");
    app.put(&path, json!({ "client_certificate": null })).await.expect(200);
    assert_eq!(subject().await, None);
    let reader = app.key_for(&[Permission::WebhooksRead]).await;
    let change = app.call("PUT", &path).bearer(&reader).json(&json!({ "client_certificate": good })).send().await;
    change.refused(403, "forbidden", "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_given_shown_and_removed_in_the_dashboard() {
    let app = App::start().await;
    let authority = with_clients(&["client", "other"]);
    let good = pair(&authority, "client");
    let (certificate, key) = (good["certificate"].as_str().expect("PEM"), good["private_key"].as_str().expect("PEM"));
    let other = authority.read("other.key");
    let mut browser = owners_browser(&app).await;
    let new = format!("/accounts/{}/endpoints/new", app.account);
    let form = |certificate, key| {
        [("url", NOBODY), ("events", EVENT), ("client_certificate", certificate), ("private_key", key)]
    };
    let page = browser.open(&new).await.expect(200);
    let refused = browser.submit(&page, &new, &form(certificate, other.as_str())).await.expect(422);
    assert!(refused.html.contains("f-client_certificate-error"), "{}", refused.content());
    assert!(!refused.html.contains(other.lines().nth(1).expect("a line")), "a key is not shown again");
    browser.submit(&page, &new, &form(certificate, key)).await.expect(200);
    let listed = app.get("/v1/webhooks").await.expect(200);
    let id = listed.json["data"][0]["id"].as_str().expect("an id").to_owned();
    let shown = &listed.json["data"][0]["attributes"]["client_certificate"];
    let (path, edit) =
        (format!("/accounts/{}/endpoints/{id}", app.account), format!("/accounts/{}/endpoints/{id}/edit", app.account));
    let page = browser.open(&path).await.expect(200);
    assert!(
        page.html.contains("CN=client,O=Aldaba tests")
            && page.html.contains(shown["fingerprint"].as_str().expect("text"))
    );
    // Empty fields leave it.
    let page = browser.open(&edit).await.expect(200);
    assert!(!page.html.contains(inside(&good)));
    browser.submit(&page, &edit, &[("url", NOBODY), ("events", EVENT), ("description", "a")]).await.expect(200);
    let kept = app.get(&format!("/v1/webhooks/{id}")).await.expect(200);
    assert_eq!((kept.attribute("client_certificate"), kept.attribute("description")), (shown, &json!("a")));
    let gone = [("url", NOBODY), ("events", EVENT), ("remove_certificate", "yes")];
    let page = browser.open(&edit).await.expect(200);
    browser.submit(&page, &edit, &gone).await.expect(200);
    let removed = app.get(&format!("/v1/webhooks/{id}")).await.expect(200);
    assert!(removed.json["data"]["attributes"].get("client_certificate").is_none());
}
