//! Opening: checks, migrations, and what works on the database from then on.

use std::sync::Arc;

use super::change_feed::ChangeFeed;
use super::connect::Connector;
use super::endpoint_memory::EndpointMemory;
use super::freshness::Freshness;
use super::node::Node;
use super::positions::Positions;
use super::reads::Reads;
use super::store::Store;
use super::{admin, change_feed, counters, event_writer, ids, migrate, node, notifier, partitions, require};
use crate::domain::audit::Origin;
use crate::store::errors::OpenError;
use crate::store::postgres_url::PostgresUrl;
use crate::store::shared::Shared;
use crate::store::values::OpenOptions;
use crate::store::view::View;

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
        let reads = Reads::new(connector.clone()).map_err(|e| failed("cannot open", &e))?;
        migrate::prepare(&pool, &shown, options.serves).await?;
        let keyring = options.keys.load(&*options.random)?;
        let db = pool.get().await.map_err(|e| failed("cannot open", &e))?;
        admin::check_master_keys(&db, &keyring).await?;
        drop(db);
        let serves = options.serves;
        let shared = Arc::new(Shared::new(options, keyring));
        let (view, endpoint_memory, positions) =
            (View::default(), EndpointMemory::default(), Arc::<Positions>::default());
        let (node, freshness) = (Arc::new(Node::default()), Arc::new(Freshness::default()));
        let memory = (endpoint_memory.clone(), positions.clone());
        let change_feed =
            Arc::new(ChangeFeed::new(own.clone(), view.clone(), shared.clone(), memory, freshness.clone()));
        node::sync_clock(&pool, &shared).await.map_err(|e| failed("cannot use", &e))?;
        let db = pool.get().await.map_err(|e| failed("cannot open", &e))?;
        shared.set_id_times(ids::read_times(&db).await.map_err(|e| failed("cannot read", &e))?);
        drop(db);
        // A command leaves the days to servers: its role may own no table.
        if serves {
            let first_id = shared.id_times().first_at(shared.clock.now());
            partitions::create(&pool, first_id).await.map_err(|e| failed("cannot use", &e))?;
            node.join(&pool, &shared).await.map_err(|e| failed("cannot use", &e))?;
        }
        change_feed.refresh().await.map_err(|e| failed("cannot read", &e))?;
        let notifier = notifier::start(own.clone());
        let intake = event_writer::start(event_writer::Parts {
            pool: pool.clone(),
            view: view.clone(),
            shared: shared.clone(),
            node: node.clone(),
            endpoint_memory: endpoint_memory.clone(),
            notifier: notifier.clone(),
            freshness: freshness.clone(),
        });
        node::start(&own, &shared, &node, &change_feed);
        if serves {
            node.abort_on_drop(tokio::spawn(counters::fold_on(pool.clone(), Arc::downgrade(&node))));
        }
        node.abort_on_drop(tokio::spawn(change_feed::listen(connector, Arc::downgrade(&change_feed))));
        // A command beside the server would tell it each time.
        for warning in warnings.iter().filter(|_| serves) {
            tracing::warn!("{warning}");
        }
        let origin = Origin::default();
        Ok(Self {
            pool,
            view,
            shared,
            node,
            change_feed,
            freshness,
            intake,
            notifier,
            endpoint_memory,
            positions,
            reads,
            origin,
        })
    }
}
