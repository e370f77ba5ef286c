//! How a node connects to PostgreSQL: hosts that are silent, TLS, poolers, and databases that cannot be used.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};

use crate::app::{App, Call, EVENT, Receiver, config, eventually};
use crate::crash::Server;
use crate::database;
use crate::failover::shell;

/// A cluster of a test's own, which it may stop.
struct Cluster {
    folder: TempDir,
    options: String,
}

impl Cluster {
    /// With these settings besides its socket, and an empty database.
    async fn start(options: &str, prepare: &str) -> Self {
        Self::start_on(5432, options, prepare).await
    }

    async fn start_on(port: u16, options: &str, prepare: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let cluster = Self { folder, options: options.to_owned() };
        cluster.run("chmod 755 .; [ $(id -u) != 0 ] || chown postgres .");
        cluster.run("as initdb -D data -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null; as mkdir socket");
        cluster.run(prepare);
        cluster.go_on();
        let url = format!("postgres://postgres@/postgres?host={}&port={port}", cluster.socket());
        database::connect(&url).await.batch_execute("CREATE DATABASE aldaba").await.expect("a database");
        cluster
    }

    fn socket(&self) -> String {
        self.folder.path().join("socket").display().to_string()
    }

    fn go_on(&self) {
        self.run(&format!(
            "as pg_ctl -D data -l data/log -w start \
             -o \"-c unix_socket_directories=$PWD/socket -c fsync=off {}\" >/dev/null",
            self.options
        ));
    }

    fn die(&self) {
        self.run("as pg_ctl -D data -m immediate stop >/dev/null");
    }

    fn run(&self, script: &str) {
        assert!(shell(self.folder.path(), script), "{script}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        shell(self.folder.path(), "as pg_ctl -D data -m immediate stop >/dev/null 2>&1");
    }
}

/// A host that accepts connections and never says a word.
struct Silent {
    folder: TempDir,
    _listener: UnixListener,
}

impl Silent {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).expect("a socket");
        Self { folder, _listener: listener }
    }

    fn socket(&self) -> String {
        self.folder.path().display().to_string()
    }
}

/// A port whose queue of connections is full: the kernel answers nobody who comes now.
struct Full {
    port: u16,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Full {
    #[expect(clippy::disallowed_methods, reason = "a test's client")]
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let listener = socket.listen(1).expect("listens");
        let address = listener.local_addr().expect("an address");
        let connect = || TcpSocket::new_v4().expect("a socket").connect(address);
        let mut waiting = Vec::new();
        let patience = Duration::from_millis(300);
        while let Ok(connected) = tokio::time::timeout(patience, connect()).await {
            waiting.push(connected.expect("connected"));
        }
        Self { port: address.port(), _listener: listener, _waiting: waiting }
    }
}

/// Publishes, and waits until the event arrives.
async fn delivers(app: &App) {
    let receiver = Receiver::start().await;
    app.endpoint(&receiver.url()).await;
    app.publish(json!({ "n": 1 })).await;
    receiver.wait_for(1).await;
}

/// Why a node does not start on this database.
async fn refusal(url: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    match aldaba::App::open(config(folder.path(), &[("DATABASE_URL", url)])).await {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn hosts_that_never_answer_do_not_keep_a_node_from_the_one_that_does() {
    if !database::is_postgres() {
        return;
    }
    let (cluster, silent, full) =
        (Cluster::start("-c listen_addresses=", "").await, Silent::start(), Full::start().await);
    let url = format!(
        "postgres://postgres@/aldaba?host={}&host=127.0.0.1&host={}&port=5432,{},5432&connect_timeout=2",
        silent.socket(),
        cluster.socket(),
        full.port
    );
    let app = App::with(&[("DATABASE_URL", &url)]).await;
    delivers(&app).await;
    cluster.die();
    Call::new(app.address, "GET", "/readyz").send().await.refused(503, "unavailable", "");
    cluster.go_on();
    eventually("the node to be ready again", || async {
        (Call::new(app.address, "GET", "/readyz").send().await.status == 200).then_some(())
    })
    .await;
    delivers(&app).await;
}

#[tokio::test]
async fn a_node_whose_host_falls_silent_goes_on_with_the_next_one() {
    if !database::is_postgres() {
        return;
    }
    let proxy = database::Proxy::start();
    let base = App::start().await;
    let direct = database::url(base.folder());
    let url = format!("{}&host={}&connect_timeout=1", direct.replace(&proxy.cluster, &proxy.folder()), proxy.cluster);
    let app = base.another(&[("DATABASE_URL", &url)]).await;
    app.get("/v1/webhooks").await.expect(200);
    proxy.freeze(true);
    let asked = Instant::now();
    app.get("/v1/webhooks").await.refused(503, "unavailable", "");
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    eventually("calls to be answered", || async { (app.get("/v1/webhooks").await.status == 200).then_some(()) }).await;
    eventually("events to be accepted", || async {
        (app.post("/v1/events", json!({ "event": EVENT, "data": {} })).await.status == 202).then_some(())
    })
    .await;
    eventually("the node to be ready", || async {
        (Call::new(app.address, "GET", "/readyz").send().await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_database_of_another_encoding_than_utf8_is_refused() {
    if !database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let url = database::url(folder.path());
    let name = format!("{}latin", std::fs::read_to_string(folder.path().join("database")).expect("a name"));
    let sql = format!("CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
    database::connect(&url).await.batch_execute(&sql).await.expect("a database");
    let cluster = database::cluster().expect("a cluster");
    let refused = refusal(&format!("postgres://postgres@/{name}?host={}", cluster.display())).await;
    assert!(refused.contains("its encoding is LATIN1") && refused.contains("ENCODING 'UTF8'"), "{refused}");
}

/// Refuses every event that is not written in a session with these settings.
async fn expect_session(url: &str) {
    let sql = "CREATE FUNCTION session() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               IF (current_setting('transaction_isolation'), current_setting('statement_timeout'), \
                   current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout'), \
                   current_setting('enable_seqscan')) IS DISTINCT FROM ('read committed', '4500ms', '3s', '5s', 'off') \
               THEN RAISE EXCEPTION 'another session'; END IF; RETURN NEW; END $$; \
               CREATE TRIGGER session BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION session()";
    database::connect(url).await.batch_execute(sql).await.expect("a trigger");
}

#[tokio::test]
async fn settings_of_a_role_are_overridden_where_they_break_promises_and_told_where_they_weaken_them() {
    if !database::is_postgres() {
        return;
    }
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let url = database::url(folder.path());
    let role = format!("{}role", std::fs::read_to_string(folder.path().join("database")).expect("a name"));
    let sql = format!(
        "CREATE ROLE {role} LOGIN SUPERUSER; ALTER ROLE {role} SET default_transaction_isolation = 'serializable'; \
         ALTER ROLE {role} SET synchronous_commit = off"
    );
    database::connect(&url).await.batch_execute(&sql).await.expect("a role");
    let url = url.replace("postgres@", &format!("{role}@"));
    let app = App::with(&[("DATABASE_URL", &url)]).await;
    expect_session(&url).await;
    delivers(&app).await;
    app.stop().await;

    let server = Server::start(folder.path(), &[("ALDABA_DATABASE_URL", &url)]);
    let (_, logs) = server.terminate_with_logs();
    assert!(logs.contains("WARN") && logs.contains("synchronous_commit is off"), "{logs}");
}

/// A cluster with TLS whose certificate is for `localhost`, signed by `ca.pem` in its folder, and its port.
async fn with_tls() -> (Cluster, u16) {
    let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let options = format!("-c listen_addresses=127.0.0.1 -c port={port} -c ssl=on");
    let prepare = "exec 2>/dev/null
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=tests -keyout ca.key -out ca.pem \
            -addext basicConstraints=critical,CA:TRUE
        openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr
        printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE' > extensions
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
            -extfile extensions -out server.crt
        cp server.key server.crt data/; chmod 600 data/server.key
        [ $(id -u) != 0 ] || chown postgres data/server.key data/server.crt";
    let cluster = Cluster::start_on(port, &options, prepare).await;
    (cluster, port)
}

#[tokio::test]
async fn a_server_is_verified_as_far_as_the_url_asks() {
    if !database::is_postgres() {
        return;
    }
    let (cluster, port) = with_tls().await;
    let roots = cluster.folder.path().join("ca.pem").display().to_string();
    let url = |host: &str, query: &str| format!("postgres://postgres@{host}:{port}/aldaba?{query}");
    let admin = database::connect(&url("localhost", "sslmode=disable")).await;
    for (query, encrypted) in [
        (format!("sslmode=verify-full&sslrootcert={roots}"), true),
        (format!("sslmode=verify-ca&sslrootcert={roots}"), true),
        (format!("sslmode=require&sslrootcert={roots}"), true),
        ("sslmode=prefer".to_owned(), true),
        ("sslmode=allow".to_owned(), true),
        ("sslmode=disable".to_owned(), false),
    ] {
        let app = App::with(&[("DATABASE_URL", &url("localhost", &query))]).await;
        let sql = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl) \
                   FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'aldaba'";
        let row = admin.query_one(sql, &[]).await.expect("a row");
        let (with, without): (i64, i64) = (row.get(0), row.get(1));
        assert!(
            if encrypted { with > 0 && without == 0 } else { with == 0 && without > 0 },
            "{query}: {with} {without}"
        );
        app.stop().await;
        eventually("the connections to end", || async {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'aldaba'";
            (admin.query_one(sql, &[]).await.expect("a row").get::<_, i64>(0) == 0).then_some(())
        })
        .await;
    }
    for (host, query, reason) in [
        ("localhost", "sslmode=verify-full".to_owned(), "TLS"),
        ("localhost", "sslmode=require&sslrootcert=system".to_owned(), "TLS"),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={roots}"), "TLS"),
        ("localhost", "sslmode=verify-full&sslrootcert=/nowhere/ca.pem".to_owned(), "/nowhere/ca.pem"),
    ] {
        let refused = refusal(&url(host, &query)).await;
        assert!(refused.contains(reason), "{query}: {refused}");
    }
}

/// A pooler before the cluster of the tests.
struct Pooler {
    folder: TempDir,
    child: Child,
}

impl Pooler {
    async fn start(mode: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (socket, cluster) = (folder.path().display(), database::cluster().expect("a cluster"));
        let settings = format!(
            "[databases]\n* = host={} port=5432 user=postgres\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {socket}\n\
             listen_port = 5432\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 40\n",
            cluster.display()
        );
        std::fs::write(folder.path().join("pgbouncer.ini"), settings).expect("written");
        assert!(shell(folder.path(), "chmod 755 .; [ $(id -u) != 0 ] || chown postgres ."));
        let run = "run() { exec \"$@\"; }; [ $(id -u) != 0 ] || \
                   run() { exec setpriv --reuid postgres --regid postgres --clear-groups \"$@\"; }; \
                   run \"$0\" -q pgbouncer.ini";
        let child = Command::new("bash")
            .args(["-euc", run])
            .arg(pgbouncer())
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let socket = folder.path().join(".s.PGSQL.5432");
        eventually("the pooler to listen", || async { socket.exists().then_some(()) }).await;
        Self { folder, child }
    }

    /// The URL of the same database through the pooler.
    fn before(&self, url: &str) -> String {
        let cluster = database::cluster().expect("a cluster").display().to_string();
        url.replace(&cluster, &self.folder.path().display().to_string())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian has it where a user's PATH does not reach.
fn pgbouncer() -> PathBuf {
    let debian = Path::new("/usr/sbin/pgbouncer");
    if debian.exists() { debian.into() } else { "pgbouncer".into() }
}

#[tokio::test]
async fn a_pooler_in_session_mode_is_used_with_the_settings_of_every_session() {
    if !database::is_postgres() {
        return;
    }
    let base = App::start().await;
    let direct = database::url(base.folder());
    let pooler = Pooler::start("session").await;
    let url = format!("{}&options=-c%20work_mem=5MB", pooler.before(&direct));
    let behind = base.another(&[("DATABASE_URL", &url)]).await;
    base.stop().await;
    expect_session(&direct).await;
    delivers(&behind).await;
}

#[tokio::test]
async fn a_pooler_that_gives_each_transaction_another_session_is_refused() {
    if !database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let direct = database::url(folder.path());
    let check = async |mode: &str| {
        let pooler = Pooler::start(mode).await;
        let refused = refusal(&pooler.before(&direct)).await;
        assert!(refused.contains("pool_mode = session") && refused.lines().count() == 1, "{mode}: {refused}");
    };
    tokio::join!(check("transaction"), check("statement"));
}
