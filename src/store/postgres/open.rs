//! Connecting: the settings of each connection, TLS, migrations.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, QueueMode, RecyclingMethod, Runtime, Timeouts};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::follow::Follower;
use super::node::Node;
use super::target::Seen;
use super::{Store, admin, follow, herald, intake, node, partitions};
use crate::domain::audit::Origin;
use crate::store::shared::Shared;
use crate::store::view::View;
use crate::store::{OpenError, OpenOptions, SEARCH_TIMEOUT};

/// Twins of SQLite's, of the same names. Forward only; the position in the list is the version.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_initial", include_str!("../../../migrations/postgres/0001_initial.sql")),
    ("0002_replay", include_str!("../../../migrations/postgres/0002_replay.sql")),
    ("0003_log", include_str!("../../../migrations/postgres/0003_log.sql")),
    ("0004_people", include_str!("../../../migrations/postgres/0004_people.sql")),
    ("0005_leased", include_str!("../../../migrations/postgres/0005_leased.sql")),
    ("0006_counters", include_str!("../../../migrations/postgres/0006_counters.sql")),
    ("0007_events", include_str!("../../../migrations/postgres/0007_events.sql")),
    ("0008_lists", include_str!("../../../migrations/postgres/0008_lists.sql")),
];

/// Connections of one node for calls and deliveries.
const CONNECTIONS: usize = 10;

/// And those with which it stays one of the nodes, whatever waits for the others. One more listens.
const OWN_CONNECTIONS: usize = 3;

/// And those for lists and charts. Their statements end after `SEARCH_TIMEOUT`.
const READ_CONNECTIONS: usize = 6;

/// How long a call waits for one of them, and for a new one.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// What every connection has: statements end before whoever asked stops waiting, and a transaction whose client has gone
/// holds no locks.
const SESSION: &str = "-c statement_timeout=4500 -c lock_timeout=3000 -c idle_in_transaction_session_timeout=5000 \
                       -c jit=off";

/// What is said besides to connections whose statements find what they look for by its key. Each is planned once, and for no
/// size: the plan for a partition that was nearly empty when it was analysed would read all of it when it no longer is.
const BY_KEY: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off";

/// The key of the lock under which one process migrates.
const MIGRATION_LOCK: i64 = 0x616c_6461_6261;

impl Store {
    /// Connects, brings the database to this program's version and joins the nodes that work on it.
    pub async fn open(url: &tokio_postgres::Config, options: OpenOptions) -> Result<Self, OpenError> {
        let shown = url.get_dbname().unwrap_or_default().to_owned();
        let failed =
            |what: &str, error: &dyn std::fmt::Display| OpenError(format!("{what} the database {shown}: {error}"));
        let (settings, tls) = (settings_of(url, SESSION), tls_of(url));
        let by_key = settings_of(url, &format!("{SESSION} {BY_KEY}"));
        let pool_of = |settings, size| pool(settings, tls.clone(), size).map_err(|e| failed("cannot open", &e));
        let (pool, own) = (pool_of(&by_key, CONNECTIONS)?, pool_of(&by_key, OWN_CONNECTIONS)?);
        let reads = settings_of(url, &format!("{SESSION} -c statement_timeout={}", SEARCH_TIMEOUT.as_millis()));
        let reads = pool_of(&reads, READ_CONNECTIONS)?;
        migrate(&pool, &shown).await?;
        let keyring = options.keys.load(&*options.random)?;
        let db = pool.get().await.map_err(|e| failed("cannot open", &e))?;
        admin::check_master_keys(&db, &keyring).await?;
        drop(db);
        let serves = options.serves;
        let shared = Arc::new(Shared::new(options, keyring));
        let (view, rooms) = (View::default(), super::Rooms::default());
        let (node, seen) = (Arc::new(Node::default()), Arc::new(Seen::default()));
        let follower = Arc::new(Follower::new(own.clone(), view.clone(), shared.clone(), rooms.clone(), seen.clone()));
        node::follow_time(&pool, &shared).await.map_err(|e| failed("cannot use", &e))?;
        partitions::create(&pool, shared.clock.now()).await.map_err(|e| failed("cannot use", &e))?;
        if serves {
            node.join(&pool, &shared).await.map_err(|e| failed("cannot use", &e))?;
        }
        follower.refresh().await.map_err(|e| failed("cannot read", &e))?;
        let herald = herald::start(own.clone());
        let intake = intake::start(intake::Parts {
            pool: pool.clone(),
            view: view.clone(),
            shared: shared.clone(),
            node: node.clone(),
            rooms: rooms.clone(),
            herald: herald.clone(),
            seen: seen.clone(),
        });
        node::start(&own, &shared, &node, &follower);
        node.keep(tokio::spawn(follow::listen(settings, tls, Arc::downgrade(&follower))));
        let origin = Origin::default();
        Ok(Self { pool, view, shared, node, follower, seen, intake, herald, rooms, reads, origin })
    }
}

/// What the URL says, and what keeps a connection from hanging on a network that has gone.
fn settings_of(url: &tokio_postgres::Config, session: &str) -> tokio_postgres::Config {
    let mut settings = url.clone();
    let options = url.get_options().map_or_else(|| session.to_owned(), |own| format!("{session} {own}"));
    settings
        .options(options)
        .connect_timeout(CONNECTION_TIMEOUT)
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(2))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(10));
    if url.get_application_name().is_none() {
        settings.application_name("aldaba");
    }
    settings
}

fn tls_of(url: &tokio_postgres::Config) -> MakeRustlsConnect {
    MakeRustlsConnect::new(match url.get_ssl_mode() {
        SslMode::Require => crate::tls::verified(),
        _ => crate::tls::unverified(),
    })
}

fn pool(
    settings: &tokio_postgres::Config,
    tls: MakeRustlsConnect,
    size: usize,
) -> Result<Pool, deadpool_postgres::BuildError> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let wait = Some(CONNECTION_TIMEOUT);
    Pool::builder(Manager::from_config(settings.clone(), tls, recycling))
        .max_size(size)
        // The one that was used last: its process is warm, and others need not be woken.
        .queue_mode(QueueMode::Lifo)
        .timeouts(Timeouts { wait, create: wait, recycle: wait })
        .runtime(Runtime::Tokio1)
        .build()
}

async fn migrate(pool: &Pool, shown: &str) -> Result<(), OpenError> {
    let failed = |error: crate::store::StoreError| OpenError(format!("cannot open the database {shown}: {error}"));
    let mut client = pool.get().await.map_err(|e| failed(e.into()))?;
    let newest = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let migrated = async {
        let tx = client.transaction().await?;
        tx.batch_execute(&format!("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            .await?;
        tx.batch_execute("CREATE TABLE IF NOT EXISTS schema_version (version bigint NOT NULL)").await?;
        let version = tx.query_opt("SELECT version FROM schema_version", &[]).await?.map_or(0, |row| row.get(0));
        let done = usize::try_from(version).unwrap_or(0);
        for (_, sql) in MIGRATIONS.iter().skip(done) {
            tx.batch_execute(sql).await?;
        }
        if version == 0 {
            admin::add_initial_event_types(&tx).await?;
            tx.execute("INSERT INTO schema_version (version) VALUES ($1)", &[&newest]).await?;
        } else if version < newest {
            tx.execute("UPDATE schema_version SET version = $1", &[&newest]).await?;
        }
        tx.commit().await?;
        Ok(version)
    };
    let version: i64 = migrated.await.map_err(failed)?;
    if version > newest {
        return Err(OpenError(format!(
            "the database has version {version}, and this program knows versions up to {newest}: run a newer aldaba"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn migrations_are_numbered_in_order() {
        for (index, (name, _)) in super::MIGRATIONS.iter().enumerate() {
            assert!(name.starts_with(&format!("{:04}_", index + 1)), "{name}");
        }
    }
}
