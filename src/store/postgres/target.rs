//! An endpoint's row as it is now, for attempts that begin now.
//!
//! A view may be late. Before it signs, an attempt asks the database for the version of its endpoint: whatever was
//! committed before it asked (a rotation, a pause) holds for it, on any node. Attempts that ask while others are being
//! answered share the next question.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::follow::Follower;
use super::{Store, get, rows};
use crate::domain::id::EndpointKey;
use crate::store::view::View;
use crate::store::{StoreError, Target};

/// How old an answer may be when it is used. An attempt may begin 100 ms before its request is written.
const FRESH: Duration = Duration::from_millis(70);

/// Attempts in one question.
const MAX_BATCH: usize = 4_096;

type Answer = Result<Option<Arc<Target>>, StoreError>;

/// The way to the one who asks. As many wait as there are attempts in flight.
#[derive(Clone)]
pub(super) struct Handle(mpsc::UnboundedSender<(EndpointKey, oneshot::Sender<Answer>)>);

impl Store {
    /// The endpoint's row as it is now; `None` when it is deleted. A node that has lost its leases gets none.
    pub async fn target(&self, endpoint: EndpointKey) -> Answer {
        if self.node.key() != 0 && self.node.lease().is_none() {
            return Err(StoreError::Unavailable("this node has not been heard of for too long".into()));
        }
        let closed = || StoreError::Unavailable("the store is closed".into());
        let (reply, answer) = oneshot::channel();
        self.targets.0.send((endpoint, reply)).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// Starts answering, until every handle is gone.
pub(super) fn start(pool: Pool, view: View, follower: Weak<Follower>) -> Handle {
    let (asks, mut asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut batch: Vec<(EndpointKey, oneshot::Sender<Answer>)> = Vec::new();
        while asked.recv_many(&mut batch, MAX_BATCH).await > 0 {
            let keys = batch.iter().map(|(key, _)| *key).collect();
            let confirmed = super::in_time(confirm(&pool, &view, &follower, keys)).await;
            for (key, reply) in batch.drain(..) {
                let answer = confirmed.as_ref().map(|found| found.get(&key).cloned()).map_err(Clone::clone);
                // An attempt that has run out of time no longer wants to know.
                let _ = reply.send(answer);
            }
        }
    });
    Handle(asks)
}

/// The targets of the view, after it was made sure that none is older than the database's. An answer that took long tells
/// what was true then: it is asked again.
async fn confirm(
    pool: &Pool,
    view: &View,
    follower: &Weak<Follower>,
    keys: Vec<EndpointKey>,
) -> Result<HashMap<EndpointKey, Arc<Target>>, StoreError> {
    loop {
        let began = Instant::now();
        let found = confirm_once(pool, view, follower, keys.clone()).await?;
        if began.elapsed() < FRESH {
            return Ok(found);
        }
    }
}

async fn confirm_once(
    pool: &Pool,
    view: &View,
    follower: &Weak<Follower>,
    mut keys: Vec<EndpointKey>,
) -> Result<HashMap<EndpointKey, Arc<Target>>, StoreError> {
    keys.sort_unstable();
    keys.dedup();
    let numbers: Vec<i64> = keys.iter().map(|key| key.0).collect();
    let db = pool.get().await?;
    let sql = "SELECT e.key, e.version FROM unnest($1::bigint[]) AS w(key) JOIN endpoints e ON e.key = w.key \
               WHERE e.deleted_at IS NULL";
    let mut versions = HashMap::with_capacity(keys.len());
    for row in rows(&db, sql, &[&numbers]).await? {
        versions.insert(EndpointKey(get(&row, "key")?), get::<i64>(&row, "version")?);
    }
    drop(db);
    let current =
        || keys.iter().filter_map(|key| Some((*key, *versions.get(key)?, view.target(*key)))).collect::<Vec<_>>();
    let late = |(_, version, target): &(_, i64, Option<Arc<Target>>)| {
        target.as_ref().is_none_or(|target| target.version < *version)
    };
    let mut found = current();
    if found.iter().any(late)
        && let Some(follower) = follower.upgrade()
    {
        follower.refresh().await?;
        found = current();
    }
    // One whose secret cannot be opened has a row and no target: its deliveries wait.
    Ok(found.into_iter().filter(|entry| !late(entry)).filter_map(|(key, _, target)| Some((key, target?))).collect())
}
