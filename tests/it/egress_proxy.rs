//! Requests through HTTP proxies, Debian's squid and tinyproxy: what they connect to, and who is charged where they do
//! not. And in network namespaces: a server that reaches nothing but its proxy, and one with a source address.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::app::{Answer, App, Call, EVENT, Receiver, Reply, config, eventually, without_limits};
use crate::command_line::{aldaba, printed};
use crate::crash::Server;
use crate::name_server::NameServer;
use crate::tls::{Authority, EC};

const USER: &str = "aldaba";
pub const PASSWORD: &str = "word-of-the-proxy";

/// A proxy on this machine. It is killed when this is dropped.
pub struct Proxy {
    folder: TempDir,
    port: u16,
    child: Child,
}

/// A port that nothing listens on.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port()
}

#[expect(clippy::disallowed_methods, reason = "a test's client")]
async fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).await.is_ok()
}

impl Proxy {
    /// squid, which may ask for credentials. It lets nobody connect to the port `refused`.
    async fn squid(asks: bool, refused: u16) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port().await);
        // As root it writes its log as another user.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("permissions");
        let hashed = Command::new("openssl").args(["passwd", "-apr1", PASSWORD]).output().expect("openssl");
        let hashed = String::from_utf8(hashed.stdout).expect("text");
        std::fs::write(folder.path().join("users"), format!("{USER}:{hashed}")).expect("written");
        let path = folder.path().display();
        let credentials = format!(
            "auth_param basic program /usr/lib/squid/basic_ncsa_auth {path}/users\n\
             auth_param basic children 1 startup=1 idle=1\nacl known proxy_auth REQUIRED\nhttp_access deny !known\n"
        );
        let settings = format!(
            "http_port 127.0.0.1:{port}\npid_filename none\naccess_log stdio:{path}/log\ncache_log {path}/cache.log\n\
             cache deny all\ncoredump_dir none\npinger_enable off\nvisible_hostname squid.test\n\
             acl refused port {refused}\nhttp_access deny refused\n{}http_access allow all\n",
            if asks { credentials.as_str() } else { "" }
        );
        let service = format!("squid{port}");
        let debian = Path::new("/usr/sbin/squid");
        let program = if debian.exists() { debian } else { Path::new("squid") };
        Self::start(folder, port, program, &["-N", "-n", &service, "-f"], &settings).await
    }

    /// tinyproxy, which may ask for credentials.
    pub async fn tinyproxy(asks: bool) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port().await);
        let (path, asked) = (folder.path().display(), format!("BasicAuth {USER} {PASSWORD}\n"));
        let credentials = if asks { asked.as_str() } else { "" };
        let settings = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 100\nLogLevel Connect\nLogFile \"{path}/log\"\n\
             {credentials}"
        );
        Self::start(folder, port, Path::new("tinyproxy"), &["-d", "-c"], &settings).await
    }

    async fn start(folder: TempDir, port: u16, program: &Path, arguments: &[&str], settings: &str) -> Self {
        let file = folder.path().join("settings");
        std::fs::write(&file, settings).expect("written");
        let mut command = Command::new(program);
        command.args(arguments).arg(file).current_dir(folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let proxy = Self { folder, port, child };
        eventually("the proxy to listen", || async { is_open(proxy.port).await.then_some(()) }).await;
        proxy
    }

    /// What `egress.proxy` is without credentials.
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The same with credentials.
    pub fn url_with(&self, password: &str) -> String {
        format!("http://{USER}:{password}@127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until the log tells of a connection to this address. squid tells of it when the connection has ended.
    async fn has_connected_to(&self, address: SocketAddr) {
        let line = format!("CONNECT {address} ");
        eventually(&line, || async { self.log().contains(&line).then_some(()) }).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server in production, in a process of its own, which trusts an authority and asks a name server. Receivers may be
/// on this machine.
struct Production<'a> {
    server: Server,
    key: String,
    folder: TempDir,
    around: (&'a Authority, &'a NameServer),
}

impl<'a> Production<'a> {
    fn start(around: (&'a Authority, &'a NameServer), proxy: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let account = printed(folder.path(), &["accounts", "create", "tests"]);
        let key = printed(folder.path(), &["keys", "create", "--account", &account]);
        Self::on(
            folder,
            key,
            around,
            &[("ALDABA_EGRESS__PROXY", proxy), ("ALDABA_EGRESS__ALLOW_NETWORKS", "127.0.0.0/8")],
        )
    }

    fn on(folder: TempDir, key: String, around: (&'a Authority, &'a NameServer), more: &[(&str, &str)]) -> Self {
        let ((trust, file), names) = (around.0.trusted(), around.1.address.to_string());
        let mut settings = vec![
            (trust, file.as_str()),
            ("ALDABA_ENVIRONMENT", "production"),
            ("ALDABA_EGRESS__DNS_SERVERS", names.as_str()),
            ("ALDABA_WEBHOOKS__RETRY_SCHEDULE", ""),
        ];
        settings.extend(more);
        Self { server: Server::start(folder.path(), &settings), key, folder, around }
    }

    /// Starts it again with other settings, without networks that are allowed.
    fn restart(self, proxy: &str) -> Self {
        let Self { server, key, folder, around } = self;
        assert!(server.terminate().success());
        Self::on(folder, key, around, &[("ALDABA_EGRESS__PROXY", proxy)])
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        Call::new(self.server.address, "POST", path).bearer(&self.key).json(&body).send().await
    }

    async fn register(&self, url: &str) -> Answer {
        self.post("/v1/webhooks", json!({ "url": url, "events": [EVENT] })).await
    }

    /// Publishes, and waits until so many deliveries were successes.
    async fn delivers(&self, total: usize) {
        self.post("/v1/events", json!({ "event": EVENT, "data": {} })).await.expect(202);
        let path = "/v1/webhooks/deliveries?status=success";
        eventually("the delivery to settle", || async {
            let listed = Call::new(self.server.address, "GET", path).bearer(&self.key).send().await.expect(200);
            (listed.json["meta"]["pagination"]["total"] == total).then_some(())
        })
        .await;
    }
}

/// An authority whose receiver has this alternative name.
fn authority_for(name: &str) -> Authority {
    let authority = Authority::new();
    authority.sign("receiver", EC, &format!("subjectAltName={name}"), "-days 30");
    authority
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_asked_for_the_address_that_was_checked_and_tls_is_with_the_name_of_the_receiver() {
    let (authority, names) = (authority_for("DNS:shop.test"), NameServer::start().await);
    for asks in [false, true] {
        for proxy in [Proxy::squid(asks, 1).await, Proxy::tinyproxy(asks).await] {
            let receiver = authority.receiver(false).await;
            let url = if asks { proxy.url_with(PASSWORD) } else { proxy.url() };
            let server = Production::start((&authority, &names), &url);
            let port = receiver.address.port();
            server.register(&format!("https://shop.test:{port}/hook")).await.expect(201);
            server.delivers(1).await;
            server.delivers(2).await;
            let requests = receiver.received();
            assert!(requests.iter().all(|request| request.header("host") == format!("shop.test:{port}")));
            assert!(requests.iter().all(|request| request.header("proxy-authorization").is_empty()));
            assert_eq!((requests.len(), receiver.connections()), (2, 1), "a connection through the proxy is kept");
            let (status, logs) = server.server.terminate_with_logs();
            assert!(status.success() && !logs.contains(PASSWORD), "{logs}");
            proxy.has_connected_to(receiver.address).await;
            assert!(!proxy.log().contains("shop.test"), "{}", proxy.log());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_guard_blocks_is_not_reached_through_a_proxy_either() {
    let (authority, names) = (authority_for("DNS:shop.test"), NameServer::start().await);
    let (proxy, receiver) = (Proxy::squid(false, 1).await, authority.receiver(false).await);
    let server = Production::start((&authority, &names), &proxy.url());
    server.register("https://inside.test/").await.refused(400, "url_ssrf_blocked", "/data/attributes/url");
    let made = server.register(&format!("https://shop.test:{}/hook", receiver.address.port())).await.expect(201);
    // The name leads to this machine, which is not allowed any more: the proxy would connect.
    let server = server.restart(&proxy.url());
    let told = server.post(&format!("/v1/webhooks/{}/test", made.id()), json!({})).await.expect(200);
    assert!(told.attribute("error").as_str().expect("text").contains("to which nothing is sent"), "{}", told.json);
    assert!(server.server.terminate().success());
    assert!(receiver.connections() == 0 && !proxy.log().contains("CONNECT"), "{}", proxy.log());
}

/// A delivery that waits because this server has no proxy that works.
async fn waits_for_a_proxy(wrong: &str, right: &str, told: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start().await;
    let account = printed(folder.path(), &["accounts", "create", "tests"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let server = Server::start(folder.path(), &[("ALDABA_EGRESS__PROXY", wrong)]);
    let call = |method: &str, path: &str| Call::new(server.address, method, path).bearer(&key);
    let body = json!({ "url": receiver.url(), "events": [EVENT] });
    let endpoint = call("POST", "/v1/webhooks").json(&body).send().await.expect(201).id();
    call("POST", "/v1/events").json(&json!({ "event": EVENT, "data": {} })).send().await.expect(202);
    eventually("a local fault", || async {
        let text = call("GET", "/metrics").send().await.text;
        let text = String::from_utf8_lossy(&text).into_owned();
        let count = text.lines().find_map(|line| line.strip_prefix("aldaba_attempts_local_fault_total "));
        (count.expect("the metric").parse::<u64>().expect("a number") > 0).then_some(())
    })
    .await;
    call("POST", &format!("/v1/webhooks/{endpoint}/test")).send().await.refused(503, "unavailable", "");
    let path = format!("/v1/webhooks/{endpoint}");
    assert_eq!(call("GET", &path).send().await.expect(200).attribute("consecutive_failures"), 0);
    let listed = call("GET", &format!("{path}/deliveries")).send().await.expect(200);
    assert_eq!(listed.json["data"][0]["attributes"]["status"], "pending", "{wrong}: {}", listed.json);
    let (_, logs) = server.terminate_with_logs();
    assert!(logs.contains(told), "{told}: {logs}");
    assert!(!logs.contains(PASSWORD) && !logs.contains("wrong-word"), "{logs}");
    assert_eq!(receiver.received().len(), 0);
    let server = Server::start(folder.path(), &[("ALDABA_EGRESS__PROXY", right)]);
    receiver.wait_for(1).await;
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_wants_other_credentials_charges_no_receiver_and_its_setting_is_named() {
    let (squid, tinyproxy) = (Proxy::squid(true, 1).await, Proxy::tinyproxy(true).await);
    let told = "egress.proxy wants other credentials";
    waits_for_a_proxy(&squid.url_with("wrong-word"), &squid.url_with(PASSWORD), told).await;
    waits_for_a_proxy(&tinyproxy.url_with("wrong-word"), &tinyproxy.url_with(PASSWORD), told).await;
    waits_for_a_proxy(&tinyproxy.url(), &tinyproxy.url_with(PASSWORD), told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_gone_or_is_none_charges_no_receiver_and_its_setting_is_named() {
    let (proxy, no_proxy) = (Proxy::tinyproxy(false).await, Receiver::start().await);
    let gone = format!("http://127.0.0.1:{}", free_port().await);
    waits_for_a_proxy(&gone, &proxy.url(), "egress.proxy cannot be reached").await;
    // It closes a connection whose request has no length.
    let no_proxy = format!("http://{}", no_proxy.address);
    waits_for_a_proxy(&no_proxy, &proxy.url(), "egress.proxy does not answer CONNECT").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_a_proxy_does_not_connect_to_is_the_failure_of_that_receiver_alone() {
    let (closed, refused) = (free_port().await, free_port().await);
    let (squid, tinyproxy) = (Proxy::squid(false, refused).await, Proxy::tinyproxy(false).await);
    let receiver = Receiver::start().await;
    for (proxy, port, status) in [(&squid, closed, 503), (&squid, refused, 403), (&tinyproxy, closed, 500)] {
        let app = App::with(&[("EGRESS__PROXY", &proxy.url())]).await;
        let (failing, _) = app.endpoint(&format!("http://127.0.0.1:{port}/")).await;
        let told = app.call("POST", &format!("/v1/webhooks/{failing}/test")).send().await.expect(200);
        let error = format!("could not connect to 127.0.0.1:{port}: the proxy answered {status}");
        assert_eq!((told.attribute("delivered"), told.attribute("error")), (&json!(false), &json!(error)));
        let (well, _) = app.endpoint(&receiver.url()).await;
        let told = app.call("POST", &format!("/v1/webhooks/{well}/test")).send().await.expect(200);
        assert_eq!(told.attribute("delivered"), true);
        assert_eq!(app.metric("attempts_local_fault_total").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_never_answers_is_told_as_a_connection_that_takes_too_long() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let app = App::with(&[("EGRESS__PROXY", &url), ("WEBHOOKS__TIMEOUT", "1s")]).await;
    let (endpoint, _) = app.endpoint("http://127.0.0.1:9/").await;
    let told = app.call("POST", &format!("/v1/webhooks/{endpoint}/test")).send().await.expect(200);
    assert_eq!(told.attribute("error"), "timed out after 1s while connecting");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_tokens_are_fetched_through_the_proxy_too() {
    let (proxy, receiver, tokens) = (Proxy::squid(false, 1).await, Receiver::start().await, Receiver::start().await);
    let token = json!({ "access_token": "from-behind", "token_type": "Bearer" }).to_string();
    tokens.always(Reply::Full(200, vec![("connection", "close".into())], token));
    let app = App::with(&[("EGRESS__PROXY", &proxy.url())]).await;
    let token_url = format!("http://{}/token", tokens.address);
    let oauth = json!({ "type": "oauth2", "token_url": token_url, "client_id": "a", "client_secret": "b" });
    let body = json!({ "url": receiver.url(), "events": [EVENT], "authentication": oauth });
    app.post("/v1/webhooks", body).await.expect(201);
    app.publish(json!({})).await;
    let requests = receiver.wait_for(1).await;
    assert_eq!(requests[0].header("authorization"), "Bearer from-behind");
    proxy.has_connected_to(tokens.address).await;
}

#[tokio::test]
async fn a_source_address_that_this_machine_does_not_have_stops_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = config(folder.path(), &[("EGRESS__SOURCE_ADDRESS", "127.0.0.2,2001:db8::1")]);
    let refused = aldaba::App::open(settings).await.err().expect("it does not start").to_string();
    assert!(refused.contains("cannot send from 2001:db8::1, which the setting egress.source_address"), "{refused}");
}

/// A network of two namespaces: in the outer one a receiver with a public address, in the inner one the server. Both
/// are made by whoever runs the tests: as root, or with a user namespace.
const NETWORK: &str = r#"
PATH="$PATH:/usr/sbin:/sbin"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
await() {
  for _ in $(seq 300); do if "$@"; then return; fi; sleep 0.1; done
  echo "waited in vain: $*" >&2; cat server.log >&2; exit 1
}
ip link set lo up
ip address add 93.184.216.34/32 dev lo
unshare -n sleep 1000 &
inner=$!
is_apart() { [ "$(readlink "/proc/$inner/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
await is_apart
ip link add outside type veth peer name inside netns "$inner"
ip address add 10.99.0.1/24 dev outside
ip link set outside up
within() { nsenter -t "$inner" -n "$@"; }
within ip link set lo up
for address in 10.99.0.2/24 10.99.0.3/24; do within ip address add "$address" dev inside; done
within ip link set inside up
cat > receiver.py <<'PYTHON'
import http.server, os, ssl

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        with open("received", "a") as file:
            file.write(f"{self.client_address[0]} {self.path}\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("93.184.216.34", 8443), Handler)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
certificates = os.environ["CERTIFICATES"]
context.load_cert_chain(f"{certificates}/receiver.pem", f"{certificates}/receiver.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
PYTHON
python3 receiver.py &
is_open() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }
await is_open 93.184.216.34 8443
serve() {
  within "$PROGRAM" serve --listen 127.0.0.1:8080 > server.log 2>&1 &
  await within curl -sf -o /dev/null http://127.0.0.1:8080/readyz
}
api() {
  within curl -s -H "authorization: Bearer $KEY" -H 'content-type: application/json' \
    "http://127.0.0.1:8080/v1/$1" -d "$2"
  echo
}
register() { api webhooks '{"url":"'"$1"'","events":["validation.completed"]}'; }
publish() { api events '{"event":"validation.completed","data":{}}'; }
"#;

/// Takes these steps in the network, and returns what they print.
fn in_namespaces(steps: &str, settings: &[(&str, &str)]) -> String {
    let (folder, authority) = (tempfile::tempdir().expect("a folder"), authority_for("IP:93.184.216.34"));
    let account = printed(folder.path(), &["accounts", "create", "tests"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let server = aldaba(folder.path(), &[]);
    let start = "flags=-rn; [ \"$(id -u)\" != 0 ] || flags=-n; exec unshare $flags bash -euc \"$0\"";
    let mut command = Command::new("bash");
    command.args(["-c", start, &format!("{NETWORK}\n{steps}")]).current_dir(folder.path()).stdin(Stdio::null());
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let (trust, file) = authority.trusted();
    command.envs(without_limits()).envs([(trust, file.as_str()), ("KEY", key.as_str())]);
    command.env("PROGRAM", server.get_program()).env("CERTIFICATES", authority.folder.path());
    command.env("ALDABA_ENVIRONMENT", "production").envs(settings.iter().copied());
    let output = command.output().expect("bash");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}\n{printed}");
    printed.into_owned()
}

#[test]
fn a_server_that_reaches_nothing_but_its_proxy_delivers_through_it_and_nowhere_inside() {
    let steps = r#"
        printf 'Port 3128\nListen 10.99.0.1\nTimeout 60\nMaxClients 100\n' > proxy.conf
        printf 'LogLevel Connect\nLogFile "%s/proxy.log"\n' "$PWD" >> proxy.conf
        tinyproxy -d -c proxy.conf > /dev/null &
        await is_open 10.99.0.1 3128
        if within curl -sk --max-time 2 -o /dev/null https://93.184.216.34:8443/; then
          echo 'the receiver is reached without the proxy' >&2; exit 1
        fi
        serve
        register https://93.184.216.34:8443/hook
        register https://10.99.0.1/
        publish
        await test -s received
        cat received proxy.log
    "#;
    let printed = in_namespaces(steps, &[("ALDABA_EGRESS__PROXY", "http://10.99.0.1:3128")]);
    assert!(printed.contains("url_ssrf_blocked") && printed.contains(" /hook\n"), "{printed}");
    assert!(printed.contains("CONNECT 93.184.216.34:8443 "), "{printed}");
}

#[test]
fn a_receiver_sees_the_source_address_that_the_operator_has_chosen() {
    let steps = "
        within ip route add 93.184.216.34 via 10.99.0.1
        serve
        register https://93.184.216.34:8443/hook
        publish
        await test -s received
        cat received
    ";
    let printed = in_namespaces(steps, &[("ALDABA_EGRESS__SOURCE_ADDRESS", "10.99.0.3")]);
    assert!(printed.contains("10.99.0.3 /hook\n"), "{printed}");
}
