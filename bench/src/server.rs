//! The server under test: the real program in a process of its own, on a fresh database.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::certificates;
use crate::http::{Connection, request};

/// Longest wait for the end of something.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Settings over the defaults, as environment variables without their prefix.
pub type Settings = &'static [(&'static str, &'static str)];

/// A running server, killed when this is dropped.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    operator: String,
    settings: Settings,
    child: Child,
    folder: tempfile::TempDir,
}

/// Where a server keeps everything.
#[derive(Clone, Debug)]
pub enum Database {
    /// A file of SQLite.
    File(PathBuf),
    /// The URL of a database of PostgreSQL.
    Url(String),
}

/// A key that may do everything in an account of its own.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The key.
    pub key: String,
}

impl Server {
    /// Makes a fresh database beside the program (on the disk that holds the build), and starts.
    pub fn start(settings: Settings) -> anyhow::Result<Self> {
        Self::start_after(settings, |_| Ok(()))
    }

    /// The same with an authority that it trusts: see [`Server::acceptor`].
    pub fn start_for_tls(settings: Settings) -> anyhow::Result<Self> {
        Self::start_after(settings, certificates::make)
    }

    fn start_after(settings: Settings, prepare: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let program = program()?;
        ensure!(program.exists(), "{} is missing: run `cargo build --release` first", program.display());
        let folder = tempfile::tempdir_in(program.parent().context("a folder")?)?;
        prepare(folder.path())?;
        if let Some(cluster) = cluster() {
            make_database(&cluster, folder.path())?;
        }
        let mut make = command(&program, folder.path(), settings, &["keys", "create"]);
        let output = make.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let operator = String::from_utf8(output.stdout)?.trim().to_owned();
        let (child, address) = serve(&program, folder.path(), settings)?;
        Ok(Self { address, operator, settings, child, folder })
    }

    /// Takes connections over TLS with a certificate that the server trusts.
    pub fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        certificates::acceptor(self.folder.path())
    }

    /// Another server on the same database, which must be PostgreSQL.
    pub fn beside(&self) -> anyhow::Result<Self> {
        let program = program()?;
        let folder = tempfile::tempdir_in(program.parent().context("a folder")?)?;
        std::fs::copy(self.folder.path().join(DATABASE), folder.path().join(DATABASE))?;
        let (child, address) = serve(&program, folder.path(), self.settings)?;
        Ok(Self { address, operator: self.operator.clone(), settings: self.settings, child, folder })
    }

    /// Kills the server and starts it again on the same database. Returns how long it took until it could serve.
    pub async fn crash(&mut self) -> anyhow::Result<Duration> {
        self.child.kill()?;
        self.child.wait()?;
        let begin = Instant::now();
        (self.child, self.address) = serve(&program()?, self.folder.path(), self.settings)?;
        loop {
            if self.call("GET", "/readyz", "none", &Value::Null).await.is_ok_and(|(status, _)| status == 200) {
                return Ok(begin.elapsed());
            }
            ensure!(begin.elapsed() < PATIENCE, "the server does not become ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts the server again, on the same database, with these settings.
    pub fn restart(&mut self, settings: Settings) -> anyhow::Result<()> {
        self.settings = settings;
        self.offline(|_| Ok(()))
    }

    /// Stops the server, has its database changed, and starts it again.
    pub fn offline(&mut self, change: impl FnOnce(Database) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        change(database(self.folder.path()))?;
        (self.child, self.address) = serve(&program()?, self.folder.path(), self.settings)?;
        Ok(())
    }

    /// One call on a connection of its own: the status and the answer.
    pub async fn call(&self, method: &str, path: &str, key: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = Connection::open(self.address).await?.send(&request(method, path, key, &body)?).await?;
        Ok((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
    }

    async fn made(&self, path: &str, key: &str, body: Value) -> anyhow::Result<Value> {
        let (status, answer) = self.call("POST", path, key, &body).await?;
        ensure!(status == 201, "{path} answered {status}: {answer}");
        Ok(answer["data"].clone())
    }

    /// A new account.
    pub async fn tenant(&self) -> anyhow::Result<Tenant> {
        let account = self.made("/v1/accounts", &self.operator, json!({ "name": "bench" })).await?;
        let account = text(&account["id"])?;
        let path = format!("/v1/accounts/{account}/api-keys");
        let key = self.made(&path, &self.operator, json!({ "permissions": ["*"] })).await?;
        Ok(Tenant { key: text(&key["attributes"]["key"])? })
    }

    /// An event type, which there may be.
    pub async fn event_type(&self, name: &str) -> anyhow::Result<()> {
        let (status, answer) = self.call("POST", "/v1/event-types", &self.operator, &json!({ "name": name })).await?;
        ensure!([201, 409].contains(&status), "an event type: {status}: {answer}");
        Ok(())
    }

    /// A new endpoint of the account.
    pub async fn endpoint(&self, tenant: &Tenant, url: &str, event_type: &str) -> anyhow::Result<String> {
        self.endpoint_of(tenant, json!({ "url": url, "events": [event_type] })).await
    }

    /// A new endpoint of the account with these attributes.
    pub async fn endpoint_of(&self, tenant: &Tenant, attributes: Value) -> anyhow::Result<String> {
        text(&self.made("/v1/webhooks", &tenant.key, attributes).await?["id"])
    }

    /// Deletes an endpoint, and what waits to be delivered to it.
    pub async fn delete(&self, tenant: &Tenant, endpoint: &str) -> anyhow::Result<()> {
        let path = format!("/v1/webhooks/{endpoint}");
        let (status, answer) = self.call("DELETE", &path, &tenant.key, &Value::Null).await?;
        ensure!(status == 204, "{path} answered {status}: {answer}");
        Ok(())
    }

    /// How many rows a list has, exactly; `path` may have filters.
    pub async fn total(&self, path: &str, key: &str) -> anyhow::Result<usize> {
        let and = if path.contains('?') { '&' } else { '?' };
        let (_, answer) = self.call("GET", &format!("{path}{and}per_page=1"), key, &Value::Null).await?;
        let total = answer["meta"]["pagination"]["total"].as_u64().context("a total")?;
        Ok(usize::try_from(total)?)
    }

    /// One of the server's own counts.
    pub async fn metric(&self, connection: &mut Connection, name: &str) -> anyhow::Result<usize> {
        let answer = connection.send(&request("GET", "/metrics", "none", "")?).await?;
        let text = String::from_utf8(answer.body.to_vec())?;
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no metric {name}"))?;
        Ok(line.trim().parse()?)
    }

    /// Waits until it knows so many nodes.
    pub async fn knows(&self, nodes: usize) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut connection = Connection::open(self.address).await?;
        while self.metric(&mut connection, "aldaba_nodes").await? != nodes {
            ensure!(begin.elapsed() < PATIENCE, "the nodes do not find each other");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Attempts that were delivered until now.
    pub async fn delivered(&self) -> anyhow::Result<usize> {
        self.metric(&mut Connection::open(self.address).await?, "aldaba_attempts_delivered_total").await
    }

    /// Waits until so many attempts were delivered and every outcome is on disk.
    pub async fn settled(&self, deliveries: usize) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut connection = Connection::open(self.address).await?;
        loop {
            let delivered = self.metric(&mut connection, "aldaba_attempts_delivered_total").await?;
            // What was counted and is no longer in memory has its outcome on disk.
            if delivered >= deliveries && self.metric(&mut connection, "aldaba_deliveries_in_memory").await? == 0 {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "{delivered} of {deliveries} deliveries after {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Memory that the process has now, in MiB.
    pub fn memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1_024.0)
    }

    /// Time on a core that the process has used.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = stat.rsplit_once(") ").context("a stat line")?.1;
        let mut ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
        let ticks = ticks.next().context("utime")?? + ticks.next().context("stime")??;
        // `USER_HZ` is 100 on every Linux that this runs on.
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of the socket of a PostgreSQL cluster (`scripts/with-postgres`), on which all servers of this run have
/// their databases; without one they are files of SQLite.
pub fn cluster() -> Option<PathBuf> {
    std::env::var_os("TEST_POSTGRES").map(PathBuf::from)
}

/// Makes a database for the servers of this folder.
fn make_database(cluster: &Path, folder: &Path) -> anyhow::Result<()> {
    let name = folder.file_name().context("a name")?.to_string_lossy().trim_start_matches('.').to_lowercase();
    let sql = format!("CREATE DATABASE {name}");
    let made = Command::new("psql").args(["-q", "-U", "postgres", "-c", &sql, "-h"]).arg(cluster).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let url = format!("postgres://postgres@/{name}?host={}", cluster.display());
    Ok(std::fs::write(folder.join(DATABASE), url)?)
}

/// In a server's folder: the URL of its database, where that is no file of SQLite.
const DATABASE: &str = "database";

/// The database of the server of this folder.
fn database(folder: &Path) -> Database {
    let url = std::fs::read_to_string(folder.join(DATABASE));
    url.map_or_else(|_| Database::File(folder.join("aldaba.db")), Database::Url)
}

/// A value that must be text.
pub fn text(value: &Value) -> anyhow::Result<String> {
    Ok(value.as_str().context("text")?.to_owned())
}

fn program() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("aldaba"))
}

fn serve(program: &Path, folder: &Path, settings: Settings) -> anyhow::Result<(Child, SocketAddr)> {
    let mut child = command(program, folder, settings, &["serve", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .context("the server starts")?;
    let mut first = String::new();
    BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut first)?;
    let address = first.trim().strip_prefix("listening on http://").context("the server's address")?.parse()?;
    Ok((child, address))
}

fn command(program: &Path, folder: &Path, settings: Settings, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    // What the person who measures has set for servers of their own is not part of the measurement.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ALDABA_")) {
        command.env_remove(name);
    }
    command.env("ALDABA_ENVIRONMENT", "development").env("ALDABA_LOG__LEVEL", "warn");
    for bucket in [
        "EVENTS_CREATE",
        "EVENTS_READ",
        "WEBHOOKS_WRITE",
        "DELIVERIES_LIST",
        "DELIVERIES_READ",
        "ACCOUNTS_WRITE",
        "API_KEYS_WRITE",
        "EVENT_TYPES_WRITE",
    ] {
        command.env(format!("ALDABA_RATE_LIMITS__{bucket}"), "off");
    }
    let authority = folder.join(certificates::AUTHORITY);
    if authority.exists() {
        command.env("SSL_CERT_FILE", authority);
    }
    if let Database::Url(url) = database(folder) {
        command.env("ALDABA_DATABASE_URL", url).env("ALDABA_SECRETS__MASTER_KEY", "11".repeat(32));
    }
    for (name, value) in settings {
        command.env(format!("ALDABA_{name}"), value);
    }
    command
}
