//! The database of a test: a file in its folder, or a database of its own in the cluster whose socket is in the folder
//! that `TEST_POSTGRES` names (`scripts/with-postgres` starts one). The same tests run on both.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aldaba::store::Database;
use aldaba::store::keys::{KeySource, parse_master_key};

/// What seals secrets where it must be given.
pub const MASTER_KEY: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// The folder of the cluster's socket; `None` where the tests run on SQLite.
pub fn cluster() -> Option<PathBuf> {
    std::env::var_os("TEST_POSTGRES").map(PathBuf::from)
}

/// Whether the tests run on PostgreSQL.
pub fn is_postgres() -> bool {
    cluster().is_some()
}

/// The URL of the folder's database, which is made when it is first asked for.
pub fn url(folder: &Path) -> String {
    let Some(cluster) = cluster() else { return format!("sqlite://{}", folder.join("aldaba.db").display()) };
    let name = std::fs::read_to_string(folder.join("database")).unwrap_or_else(|_| make(&cluster, folder, ""));
    url_of(&cluster, &name)
}

/// Makes a database for the folder, and returns its name.
fn make(cluster: &Path, folder: &Path, template: &str) -> String {
    let name = format!("t{}", uuid::Uuid::from_bytes(rand_bytes()).simple());
    let (sql, admin) = (format!("CREATE DATABASE {name} {template}"), url_of(cluster, "postgres"));
    apart(async move { connect(&admin).await.batch_execute(&sql).await.expect("a database") });
    std::fs::write(folder.join("database"), &name).expect("written");
    name
}

/// Gives the folder, where it has no database yet, one with all tables. It is a copy of a database that this process
/// has migrated once: migrations take longer than most tests.
fn prepare(folder: &Path) {
    static MIGRATED: OnceLock<String> = OnceLock::new();
    let Some(cluster) = cluster() else { return };
    if folder.join("database").exists() {
        return;
    }
    let migrated = MIGRATED.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let name = make(&cluster, folder.path(), "");
        let database = Database::parse(&url(folder.path())).expect("a database");
        apart(async move { crate::fixture::migrate(database, given_key()).await });
        name
    });
    make(&cluster, folder, &format!("TEMPLATE {migrated}"));
}

/// Runs this on a thread of its own, because it is asked for from within and without a runtime.
fn apart(work: impl Future<Output = ()> + Send + 'static) {
    std::thread::spawn(move || blocking(work)).join().expect("no panic");
}

fn given_key() -> KeySource {
    KeySource::Given { current: parse_master_key(MASTER_KEY).expect("a key"), previous: vec![] }
}

fn rand_bytes() -> [u8; 16] {
    use aldaba::clock::Random as _;
    let mut bytes = [0; 16];
    aldaba::clock::SystemRandom::default().fill(&mut bytes);
    bytes
}

fn url_of(cluster: &Path, name: &str) -> String {
    format!("postgres://postgres@/{name}?host={}", cluster.display())
}

fn blocking<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// The same for a store that a test opens itself.
pub fn options(folder: &Path) -> (Database, KeySource) {
    prepare(folder);
    let database = Database::parse(&url(folder)).expect("a database");
    let keys = match database {
        Database::Sqlite(_) => KeySource::File(folder.join("master-key")),
        Database::Postgres(_) => given_key(),
    };
    (database, keys)
}

/// The settings of a server or a command on the folder's database, as environment variables without their prefix.
pub fn settings(folder: &Path) -> Vec<(&'static str, String)> {
    prepare(folder);
    let mut settings = vec![("DATABASE_URL", url(folder))];
    if is_postgres() {
        settings.push(("SECRETS__MASTER_KEY", MASTER_KEY.to_owned()));
    }
    settings
}

/// A connection to a PostgreSQL database.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    client
}

/// Changes the database beside the server, which notices it.
pub async fn execute(folder: &Path, sql: &str) {
    if is_postgres() {
        let client = connect(&url(folder)).await;
        client.batch_execute(sql).await.expect("written");
        // A change that nobody has written down: everything is read again.
        client.batch_execute("UPDATE settings SET value = value + 1 WHERE name = 'generation'").await.expect("written");
        return;
    }
    let file = rusqlite::Connection::open(folder.join("aldaba.db")).expect("opens");
    file.busy_timeout(std::time::Duration::from_secs(5)).expect("set");
    file.execute_batch(sql).expect("written");
}

/// What a query of one number comes to.
pub async fn number(folder: &Path, sql: &str) -> i64 {
    if is_postgres() {
        return connect(&url(folder)).await.query_one(sql, &[]).await.expect("a row").get(0);
    }
    let file = rusqlite::Connection::open(folder.join("aldaba.db")).expect("opens");
    file.query_row(sql, [], |row| row.get(0)).expect("a number")
}

/// While this is held, nothing can be written.
pub enum Locked {
    Sqlite(rusqlite::Connection),
    Postgres(tokio_postgres::Client),
}

/// Locks the database as somebody else would who does not let go.
pub async fn lock(folder: &Path) -> Locked {
    if is_postgres() {
        let client = connect(&url(folder)).await;
        let sql = "BEGIN; LOCK TABLE settings, events, deliveries, queue IN EXCLUSIVE MODE";
        client.batch_execute(sql).await.expect("locked");
        return Locked::Postgres(client);
    }
    let file = rusqlite::Connection::open(folder.join("aldaba.db")).expect("opens");
    file.execute_batch("BEGIN IMMEDIATE").expect("locked");
    Locked::Sqlite(file)
}

impl Locked {
    pub async fn unlock(self) {
        match self {
            Self::Sqlite(file) => file.execute_batch("ROLLBACK").expect("unlocked"),
            Self::Postgres(client) => client.batch_execute("ROLLBACK").await.expect("unlocked"),
        }
    }
}

/// The opposite of [`destroy`], on PostgreSQL.
pub async fn restore(folder: &Path) {
    let cluster = cluster().expect("a cluster");
    let name = std::fs::read_to_string(folder.join("database")).expect("a name");
    let sql = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true");
    connect(&url_of(&cluster, "postgres")).await.batch_execute(&sql).await.expect("opened");
}

/// Stands before the cluster, and can be told to let nothing through: a network that has gone, and says nothing.
pub struct Proxy {
    pub cluster: String,
    folder: tempfile::TempDir,
    frozen: tokio::sync::watch::Sender<bool>,
}

impl Proxy {
    pub fn start() -> Self {
        let cluster = cluster().expect("a cluster").display().to_string();
        let folder = tempfile::tempdir().expect("a folder");
        let listener = tokio::net::UnixListener::bind(folder.path().join(".s.PGSQL.5432")).expect("a socket");
        let (frozen, state) = tokio::sync::watch::channel(false);
        let target = format!("{cluster}/.s.PGSQL.5432");
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = tokio::net::UnixStream::connect(&target).await.expect("the cluster");
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(near_in, far_out, state.clone()));
                tokio::spawn(pass(far_in, near_out, state.clone()));
            }
        });
        Self { cluster, folder, frozen }
    }

    pub fn folder(&self) -> String {
        self.folder.path().display().to_string()
    }

    pub fn freeze(&self, frozen: bool) {
        let _ = self.frozen.send(frozen);
    }
}

async fn pass(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    mut frozen: tokio::sync::watch::Receiver<bool>,
) -> Option<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut buffer = vec![0; 65_536];
    loop {
        let count = from.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        frozen.wait_for(|frozen| !frozen).await.ok()?;
        to.write_all(&buffer[..count]).await.ok()?;
    }
}

/// The database is there no more, for those who are connected to it.
pub async fn destroy(folder: &Path) {
    if let Some(cluster) = cluster() {
        let name = std::fs::read_to_string(folder.join("database")).expect("a name");
        // One after the other: who connects before the first is committed is found by the second.
        let admin = connect(&url_of(&cluster, "postgres")).await;
        admin.batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.expect("closed");
        let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        admin.batch_execute(&sql).await.expect("cut off");
        return;
    }
    // The files are replaced under the readers by something that is no database. `aldaba.db-shm` is not: it is mapped
    // into the memory of this process, which a signal (SIGBUS) ends when it reads beyond the end of the file.
    for name in ["aldaba.db", "aldaba.db-wal"] {
        std::fs::write(folder.join(name), b"this is no database").expect("written");
    }
}

/// Writes deliveries like the one with this id, with ids right below it: its `first`-th predecessor up to the
/// `last`-th. On SQLite the delivery must be listed, and so are those.
pub async fn add_deliveries(folder: &Path, like: &str, (first, last): (u32, u32), status: i64) {
    let count = last + 1 - first;
    if is_postgres() {
        let rows = format!(
            "INSERT INTO deliveries (account, id, endpoint, event, type, status, attempt) \
             SELECT d.account, d.id - n, d.endpoint, d.event, d.type, {status}, 1 FROM deliveries d, \
             generate_series({first}, {last}) AS n WHERE d.id = {like}"
        );
        let counter = format!(
            "INSERT INTO counters (account, endpoint, shard, total) SELECT account, endpoint, \
             (SELECT coalesce(max(shard), 0) + 1 FROM counters), {count} FROM deliveries WHERE id = {like}"
        );
        return execute(folder, &format!("{rows}; {counter}")).await;
    }
    let numbers =
        format!("WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last})");
    let rows = format!(
        "{numbers} INSERT INTO deliveries (id, endpoint, event, status, attempt) \
         SELECT d.id - n, d.endpoint, d.event, {status}, 1 FROM numbers, deliveries d WHERE d.id = {like}"
    );
    let lists = format!(
        "{numbers} INSERT INTO delivery_lists (endpoint, id, event, status, attempt) \
         SELECT d.endpoint, d.id - n, d.event, {status}, 1 FROM numbers, deliveries d WHERE d.id = {like}"
    );
    let counter = format!(
        "UPDATE endpoint_counters SET deliveries_total = deliveries_total + {count} \
         WHERE endpoint = (SELECT endpoint FROM deliveries WHERE id = {like})"
    );
    execute(folder, &format!("BEGIN IMMEDIATE; {rows}; {lists}; {counter}; COMMIT")).await;
}
