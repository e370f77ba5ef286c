//! Opening: checks, migrations, and what works on the database from then on.

use std::sync::Arc;

use deadpool_postgres::Pool;

use super::connect::Connector;
use super::follow::Follower;
use super::node::Node;
use super::positions::Positions;
use super::target::Seen;
use super::url::PostgresUrl;
use super::{Store, admin, counters, follow, herald, intake, node, partitions, require};
use crate::domain::audit::Origin;
use crate::store::shared::Shared;
use crate::store::view::View;
use crate::store::{OpenError, OpenOptions};

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
    ("0009_days", include_str!("../../../migrations/postgres/0009_days.sql")),
    ("0010_counts", include_str!("../../../migrations/postgres/0010_counts.sql")),
];

/// The key of the lock under which one process migrates.
const MIGRATION_LOCK: i64 = 0x616c_6461_6261;

impl Store {
    /// Connects, brings the database to this program's version and joins the nodes that work on it.
    pub async fn open(url: Arc<PostgresUrl>, options: OpenOptions) -> Result<Self, OpenError> {
        let shown = url.database().to_owned();
        let failed =
            |what: &str, error: &dyn std::fmt::Display| OpenError(format!("{what} the database {shown}: {error}"));
        let connector = Connector::new(url).map_err(|e| failed("cannot open", &e))?;
        let checked = require::check(&connector, &*options.random).await;
        let warnings = checked.map_err(|e| failed("cannot use", &e))?;
        let pool = connector.pool().map_err(|e| failed("cannot open", &e))?;
        let own = connector.own_pool().map_err(|e| failed("cannot open", &e))?;
        let reads = connector.read_pool().map_err(|e| failed("cannot open", &e))?;
        migrate(&pool, &shown).await?;
        let keyring = options.keys.load(&*options.random)?;
        let db = pool.get().await.map_err(|e| failed("cannot open", &e))?;
        admin::check_master_keys(&db, &keyring).await?;
        drop(db);
        let serves = options.serves;
        let shared = Arc::new(Shared::new(options, keyring));
        let (view, rooms, positions) = (View::default(), super::Rooms::default(), Arc::<Positions>::default());
        let (node, seen) = (Arc::new(Node::default()), Arc::new(Seen::default()));
        let memory = (rooms.clone(), positions.clone());
        let follower = Arc::new(Follower::new(own.clone(), view.clone(), shared.clone(), memory, seen.clone()));
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
        if serves {
            node.keep(tokio::spawn(counters::fold_on(pool.clone(), Arc::downgrade(&node))));
        }
        node.keep(tokio::spawn(follow::listen(connector, Arc::downgrade(&follower))));
        // A command beside the server would tell it each time.
        for warning in warnings.iter().filter(|_| serves) {
            tracing::warn!("{warning}");
        }
        let origin = Origin::default();
        Ok(Self { pool, view, shared, node, follower, seen, intake, herald, rooms, positions, reads, origin })
    }
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
