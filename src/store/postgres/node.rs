//! This process among the others: its lease, which is heard of once a second, and what became of those of nodes that
//! are heard of no more.
//!
//! A node that was not heard of for [`LEASE`] is marked as dead: its row stays, with the negative time of its death,
//! until what is leased to it was freed in steps. A lease of a node without a row is found once a minute.
//!
//! Time is the database's: nodes whose own clocks differ by minutes agree on who is there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::change_feed::ChangeFeed;
use super::ids::Given;
use super::lease::{ALIVE, DEAD, LEASE, NO_NODE};
use super::migrate;
use super::sql::{execute, get, one, rows};
use crate::domain::id::{DeliveryId, EndpointKey};
use crate::domain::time::millis;
use crate::lock::Mutex;
use crate::store::errors::StoreError;
use crate::store::inbox::{InMemoryDeliveries, Nudge, Share};
use crate::store::migrations::newest;
use crate::store::numbers::row_count;
use crate::store::shared::Shared;

/// It stops sending so much earlier.
const MARGIN: Duration = Duration::from_secs(3);

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(1);

/// Beats between two looks for nodes that died.
const TAKE_OVER_BEATS: u64 = 2;

/// Deliveries that one step of a take-over frees at most in a commit: some 10 ms. A step that fails is followed by one
/// of half as many: a step has 4.5 s, however slow the database is.
const MAX_FREED_STEP: i64 = 1_000;

/// How long the steps of one beat may take: the next beat is not late for them. More nodes free more.
const FREEING: Duration = Duration::from_millis(500);

/// Dead nodes that one beat looks at.
const DEAD_NODES: i64 = 20;

/// Beats between two looks for leases of nodes that have no row: a program of an older version removed it, or a
/// failover lost it.
const UNKNOWN_LEASES_BEATS: u64 = 60;

/// Leases of such nodes that one look marks.
const UNKNOWN_LEASES: i64 = 100;

/// Beats between two looks for what is leased to this node and not in its memory.
const SWEEP_BEATS: u64 = 10;

/// A database whose clock moves by more than this at once has another clock than before.
const JUMP_MS: i64 = 3_000;

/// Beats between two looks at everything that is due, whoever has written it.
const RESCAN_BEATS: u64 = 5;

/// The database's time in milliseconds.
pub(super) const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// A measurement of the database's time that took longer says too little.
const PROMPT: Duration = Duration::from_millis(200);

/// This node, as the others know it.
#[derive(Default)]
pub(super) struct Node {
    /// [`NO_NODE`] while it has not joined.
    key: AtomicI64,
    heard_at: Mutex<Option<Instant>>,
    /// Whether it is the first of the nodes, which tidies up.
    first: AtomicBool,
    /// What is in the memory of this node.
    in_memory: InMemoryDeliveries,
    /// Leased to this node and not in its memory, when it was last looked.
    astray: Mutex<BTreeSet<i64>>,
    /// How many deliver, and which of them this is.
    share: Mutex<Option<Share>>,
    given: Given,
    /// The oldest program that the database admitted at the last heartbeat.
    minimum: AtomicI64,
    freed_step: FreedStep,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// How many deliveries the next step of a take-over frees: half as many after a step that failed, twice as many after
/// one that ended, from 1 to [`MAX_FREED_STEP`].
struct FreedStep(AtomicI64);

impl Default for FreedStep {
    fn default() -> Self {
        Self(AtomicI64::new(MAX_FREED_STEP))
    }
}

impl FreedStep {
    /// Begins a step and returns its size. The step counts as failed until [`FreedStep::end`]: its caller may give up.
    fn begin(&self) -> i64 {
        let step = self.0.load(Ordering::Relaxed);
        self.0.store((step / 2).max(1), Ordering::Relaxed);
        step
    }

    /// The step of that size has ended.
    fn end(&self, step: i64) {
        self.0.store((step * 2).min(MAX_FREED_STEP), Ordering::Relaxed);
    }
}

impl Node {
    /// What deliveries are leased to; `None` while this node may not send.
    pub fn lease(&self) -> Option<i64> {
        self.check_admitted().ok()?;
        let heard = *self.heard_at.lock();
        let key = self.key();
        (key != NO_NODE && heard.is_some_and(|at| at.elapsed() + MARGIN < LEASE)).then_some(key)
    }

    /// Whether it is one of the nodes, whether its lease still holds or not.
    pub fn has_joined(&self) -> bool {
        self.key() != NO_NODE
    }

    /// Whether the database admits this program, as of the last heartbeat.
    pub fn check_admitted(&self) -> Result<(), StoreError> {
        let (own, minimum) = (newest(), self.minimum.load(Ordering::Relaxed));
        if own < minimum { Err(StoreError::Outdated { own, minimum }) } else { Ok(()) }
    }

    /// Looks at the minimum version, and leaves the nodes below it: others take over what this one had.
    async fn look_at_minimum(&self, db: &deadpool_postgres::Object) -> Result<(), StoreError> {
        let before = self.check_admitted();
        self.minimum.store(migrate::minimum(db).await?, Ordering::Relaxed);
        let Err(error) = self.check_admitted() else { return Ok(()) };
        if before.is_ok() {
            tracing::error!(%error, "this node has stopped its work");
        }
        execute(db, "DELETE FROM nodes WHERE key = $1", &[&self.key()]).await?;
        Ok(())
    }

    /// What is in the memory of this node.
    pub fn in_memory(&self) -> &InMemoryDeliveries {
        &self.in_memory
    }

    /// The ids that this process has given out.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// The key of this node, whether its lease still holds or not; [`NO_NODE`] for one that has not joined.
    pub fn key(&self) -> i64 {
        self.key.load(Ordering::Relaxed)
    }

    /// Whether this node is the one that tidies up.
    pub fn is_first(&self) -> bool {
        self.first.load(Ordering::Relaxed)
    }

    /// Becomes one of the nodes, with a lease that nobody has had before. Its key is random: a sequence would give a
    /// key again after a failover that lost it. Of what dead nodes left it takes over one step at most, and starts if
    /// that fails: the beats do the rest.
    pub async fn join(&self, pool: &Pool, shared: &Shared) -> Result<(), StoreError> {
        let began = Instant::now();
        let db = pool.get().await?;
        let key = (i64::from_le_bytes(shared.random.array()) & i64::MAX).max(NO_NODE + 1);
        debug_assert!(key > NO_NODE, "a key is positive");
        let sql = format!(
            "INSERT INTO nodes (key, seen_at, delivers, version) OVERRIDING SYSTEM VALUE VALUES ($1, {NOW}, $2, $3)"
        );
        execute(&db, &sql, &[&key, &shared.inbox.is_some(), &newest()]).await?;
        self.key.store(key, Ordering::Relaxed);
        // Whoever raised the minimum before this row was there did not see this node.
        self.look_at_minimum(&db).await?;
        self.check_admitted()?;
        self.hear(began);
        self.count(&db, shared).await?;
        drop(db);
        if let Err(error) = self.take_over(pool, shared, Duration::ZERO).await {
            tracing::warn!(%error, "what dead nodes left could not be taken over, and is tried again");
        }
        Ok(())
    }

    /// Gives everything back at once, so that others need not wait for the lease to run out. What is left when time is
    /// up, others free.
    pub async fn leave(&self, pool: &Pool, shared: &Shared) -> Result<(), StoreError> {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        let key = self.key.swap(NO_NODE, Ordering::Relaxed);
        if key == NO_NODE {
            return Ok(());
        }
        let sql = format!("UPDATE nodes SET seen_at = -{NOW} WHERE key = $1 AND {ALIVE}");
        execute(&pool.get().await?, &sql, &[&key]).await?;
        while self.free(pool, shared, key).await?.more {}
        Ok(())
    }

    /// The task ends with the node.
    pub fn abort_on_drop(&self, task: tokio::task::JoinHandle<()>) {
        self.tasks.lock().push(task.abort_handle());
    }

    fn hear(&self, at: Instant) {
        *self.heard_at.lock() = Some(at);
    }

    async fn beat(&self, pool: &Pool, shared: &Shared) -> Result<(), StoreError> {
        let began = Instant::now();
        let db = pool.get().await?;
        self.look_at_minimum(&db).await?;
        if self.check_admitted().is_err() {
            return Ok(());
        }
        let sql = format!("UPDATE nodes SET seen_at = {NOW} WHERE key = $1 AND {ALIVE}");
        if execute(&db, &sql, &[&self.key()]).await? == 0 {
            tracing::warn!("this node was not heard of for too long, and others have taken over its deliveries");
            // Whoever removed its row may not have freed what is leased to it.
            let sql = format!(
                "INSERT INTO nodes (key, seen_at, delivers) OVERRIDING SYSTEM VALUE VALUES ($1, -{NOW}, false) \
                 ON CONFLICT DO NOTHING"
            );
            execute(&db, &sql, &[&self.key()]).await?;
            drop(db);
            return self.join(pool, shared).await;
        }
        self.hear(began);
        self.count(&db, shared).await
    }

    /// Who is there. The engine is told when it has changed.
    async fn count(&self, db: &deadpool_postgres::Object, shared: &Shared) -> Result<(), StoreError> {
        let sql = format!(
            "SELECT count(*) AS nodes, count(*) FILTER (WHERE key < $1) AS before, \
             coalesce(min(key), {NO_NODE}) AS first FROM nodes WHERE delivers AND {ALIVE}"
        );
        let found = one(db, &sql, &[&self.key()]).await?;
        self.first.store(get::<i64>(&found, "first")? == self.key(), Ordering::Relaxed);
        let share = Share { nodes: super::sql::whole(&found, "nodes")?, index: super::sql::whole(&found, "before")? };
        let before = self.share.lock().replace(share);
        if let Some(inbox) = &shared.inbox
            && before != Some(share)
        {
            inbox.send(Nudge::Share(share));
        }
        Ok(())
    }

    /// This process among those that deliver.
    pub fn share(&self) -> Share {
        self.share.lock().unwrap_or(Share::WHOLE)
    }

    /// Frees what is leased to this node and not in its memory: a write whose answer was lost may have happened,
    /// however late. What is found twice in a row is no write on its way.
    async fn free_astray(&self, pool: &Pool, shared: &Shared) -> Result<(), StoreError> {
        let Some(lease) = self.lease() else { return Ok(()) };
        let mut db = pool.get().await?;
        for endpoint in super::fifo::make_stalled_heads_due(&mut db, &shared.fifo_heads, shared.clock.now()).await? {
            if let Some(inbox) = &shared.inbox {
                inbox.send(Nudge::Due(endpoint, shared.clock.now()));
            }
        }
        let mut astray = BTreeSet::new();
        for row in rows(&db, "SELECT delivery FROM queue WHERE lease = $1", &[&lease]).await? {
            let id: i64 = get(&row, "delivery")?;
            if !self.in_memory.contains(DeliveryId(id)) {
                astray.insert(id);
            }
        }
        let before = std::mem::replace(&mut *self.astray.lock(), astray.clone());
        let still = |id: &&i64| before.contains(id) && !self.in_memory.contains(DeliveryId(**id));
        let lost: Vec<i64> = astray.iter().filter(still).copied().collect();
        if lost.is_empty() {
            return Ok(());
        }
        let sql =
            "UPDATE queue SET lease = NULL, due_at = $3 WHERE lease = $1 AND delivery = ANY($2) RETURNING endpoint";
        let freed = rows(&db, sql, &[&lease, &lost, &shared.clock.now().as_millis()]).await?;
        tracing::warn!(deliveries = freed.len(), "a write whose answer was lost had happened: its deliveries are due");
        for row in freed {
            let endpoint = EndpointKey(get(&row, "endpoint")?);
            if let Some(inbox) = &shared.inbox {
                inbox.send(Nudge::Due(endpoint, shared.clock.now()));
            }
        }
        Ok(())
    }

    /// Marks nodes as dead that were not heard of, and frees what is leased to dead ones: one step, and more until
    /// `time` is up.
    async fn take_over(&self, pool: &Pool, shared: &Shared, time: Duration) -> Result<(), StoreError> {
        let (began, lease) = (Instant::now(), millis(LEASE));
        let db = pool.get().await?;
        // One that was heard of in the future was heard of by a clock that has since gone back.
        let sql = format!(
            "UPDATE nodes SET seen_at = -{NOW} \
             WHERE {ALIVE} AND (seen_at < {NOW} - $1::bigint OR seen_at > {NOW} + $1::bigint)"
        );
        execute(&db, &sql, &[&lease]).await?;
        let sql = format!("SELECT key FROM nodes WHERE {DEAD} ORDER BY key LIMIT $1");
        let dead = rows(&db, &sql, &[&DEAD_NODES]).await?;
        drop(db);
        for row in dead {
            let key = get(&row, "key")?;
            loop {
                let freed = self.free(pool, shared, key).await?;
                if freed.some && began.elapsed() >= time {
                    return Ok(());
                }
                if !freed.more {
                    break;
                }
            }
            // A write of the dead node ends within its timeout, which is shorter than a lease. Until then its row
            // stays, so that what the write leases is found by the next step.
            let sql = format!("DELETE FROM nodes WHERE key = $1 AND {DEAD} AND -seen_at < {NOW} - $2::bigint");
            execute(&pool.get().await?, &sql, &[&key, &lease]).await?;
        }
        Ok(())
    }

    /// Frees a step of what is leased to a node that is marked as dead.
    async fn free(&self, pool: &Pool, shared: &Shared, key: i64) -> Result<Freed, StoreError> {
        let step = self.freed_step.begin();
        let freed = free_step(pool, shared, key, step).await?;
        self.freed_step.end(step);
        Ok(Freed { some: freed > 0, more: freed == step })
    }
}

/// What a step of a take-over has freed.
struct Freed {
    some: bool,
    /// Whether there may be more.
    more: bool,
}

/// Frees a step of what is leased to a node that is marked as dead. Returns how many deliveries.
async fn free_step(pool: &Pool, shared: &Shared, key: i64, step: i64) -> Result<i64, StoreError> {
    let db = pool.get().await?;
    // Several nodes take over from one: each frees others. A row that is being written by the dead node is left for
    // later. In the order of the leases: a plan that sorts nothing stops after a step, and does not read all that the
    // index holds.
    let sql = format!(
        "UPDATE queue SET lease = NULL, due_at = $2 WHERE ctid = ANY (ARRAY(SELECT ctid FROM queue \
         WHERE lease BETWEEN $1 AND $1 AND EXISTS (SELECT 1 FROM nodes WHERE key = $1 AND {DEAD}) \
         ORDER BY lease LIMIT $3 FOR UPDATE SKIP LOCKED)) RETURNING endpoint, replay"
    );
    let freed = rows(&db, &sql, &[&key, &shared.clock.now().as_millis(), &step]).await?;
    drop(db);
    if freed.is_empty() {
        return Ok(0);
    }
    tracing::info!(deliveries = freed.len(), "took over deliveries that another process had not finished");
    let (mut endpoints, mut replays) = (BTreeSet::new(), BTreeSet::new());
    for row in &freed {
        endpoints.insert(EndpointKey(get(row, "endpoint")?));
        replays.extend(get::<Option<i64>>(row, "replay")?);
    }
    super::cancellation::take_back(pool, shared, replays).await?;
    if let Some(inbox) = &shared.inbox {
        for endpoint in endpoints {
            inbox.send(Nudge::Due(endpoint, shared.clock.now()));
        }
    }
    Ok(row_count(freed.len()))
}

/// Gives nodes that have leases and no row one of a dead node, so that the next beats free what they left.
async fn mark_unknown(pool: &Pool) -> Result<(), StoreError> {
    let sql = format!(
        "WITH RECURSIVE leases AS (SELECT min(lease) AS lease FROM queue WHERE lease IS NOT NULL UNION ALL \
         SELECT (SELECT min(lease) FROM queue WHERE lease > leases.lease) FROM leases WHERE leases.lease IS NOT NULL) \
         INSERT INTO nodes (key, seen_at, delivers) OVERRIDING SYSTEM VALUE SELECT lease, -{NOW}, false FROM leases \
         WHERE lease IS NOT NULL AND NOT EXISTS (SELECT 1 FROM nodes n WHERE n.key = leases.lease) LIMIT $1 \
         ON CONFLICT DO NOTHING"
    );
    execute(&pool.get().await?, &sql, &[&UNKNOWN_LEASES]).await?;
    Ok(())
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

/// Sets the clock of this process to the database's time, as well as a round trip lets it be known.
/// Returns by how many milliseconds it was wrong.
pub(super) async fn sync_clock(pool: &Pool, shared: &Shared) -> Result<i64, StoreError> {
    let db = pool.get().await?;
    let (began, before) = (Instant::now(), shared.clock.now().as_millis());
    let found = one(&db, &format!("SELECT {NOW} AS now"), &[]).await?;
    let (took, after) = (began.elapsed(), shared.clock.now().as_millis());
    let ahead = get::<i64>(&found, "now")? - i64::midpoint(before, after);
    let doubt = millis(took) / 2 + 2;
    if took < PROMPT && ahead.abs() > doubt {
        shared.clock.adjust(ahead);
        return Ok(ahead);
    }
    Ok(0)
}

/// Keeps the node alive and the view up to date until the store is dropped.
pub(super) fn start(pool: &Pool, shared: &Arc<Shared>, node: &Arc<Node>, change_feed: &Arc<ChangeFeed>) {
    node.abort_on_drop(tokio::spawn(super::change_feed::poll_changes(Arc::downgrade(change_feed))));
    if node.has_joined() {
        node.abort_on_drop(tokio::spawn(live(pool.clone(), shared.clone(), Arc::downgrade(node))));
    }
}

async fn live(pool: Pool, shared: Arc<Shared>, node: std::sync::Weak<Node>) {
    let mut ticks = tokio::time::interval(BEAT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut jumped = None;
    for beat in 0u64.. {
        ticks.tick().await;
        let Some(node) = node.upgrade() else { return };
        let beating = async {
            node.beat(&pool, &shared).await?;
            if node.check_admitted().is_err() {
                return Ok(());
            }
            if sync_clock(&pool, &shared).await?.abs() > JUMP_MS {
                // Everybody seems to be late: whoever is there will be heard of again.
                jumped = Some(Instant::now());
            }
            Ok(())
        };
        let beaten = super::time_limit::in_time(beating).await;
        if let Err(error) = &beaten {
            tracing::warn!(%error, "the database could not be told that this node is alive");
        }
        let calm = beaten.is_ok() && jumped.is_none_or(|at: Instant| at.elapsed() > LEASE);
        if calm && beat % TAKE_OVER_BEATS == 0 {
            let unknown = beat % UNKNOWN_LEASES_BEATS == 0 && node.is_first();
            let taking_over = async {
                if unknown {
                    mark_unknown(&pool).await?;
                }
                node.take_over(&pool, &shared, FREEING).await
            };
            if let Err(error) = super::time_limit::in_time(taking_over).await {
                tracing::warn!(%error, "what dead nodes left could not be taken over, and is tried again");
            }
        }
        if beaten.is_ok()
            && beat % SWEEP_BEATS == SWEEP_BEATS - 1
            && let Err(error) = super::time_limit::in_time(node.free_astray(&pool, &shared)).await
        {
            tracing::warn!(%error, "what a lost write leased could not be looked for, and is tried again");
        }
        if beat % RESCAN_BEATS == 0 {
            // What others have left or asked for, should a note of it ever be lost.
            shared.replays.notify_one();
            if let Some(inbox) = &shared.inbox {
                inbox.send(Nudge::Rescan);
            }
        }
    }
}
