//! The view of this node, kept after what is committed anywhere.
//!
//! Whoever changes an account, an endpoint, a key or a type writes a numbered change in the same transaction. The numbers
//! come from one row, which is locked until the commit, so that they are in the order of the commits and without gaps. A
//! node reads the changes after the last one that it knows: at a `NOTIFY`, every [`EVERY`], and before it relies on them.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object, Pool};
use foldhash::HashMap;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, Row};

use super::connect::{Connector, Health, health};
use super::positions::Positions;
use super::target::Seen;
use super::{Rooms, admin, corrupt, execute, get, one, parsed, rows, time};
use crate::domain::account::KeyHash;
use crate::domain::endpoint::EndpointStatus;
use crate::domain::id::{AccountId, AccountKey, ApiKeyId, EndpointId, EndpointKey};
use crate::domain::secret::SealedSecret;
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::inbox::Nudge;
use crate::store::shared::{Shared, StoredEndpoint};
use crate::store::values::Target;
use crate::store::view::{View, Whole};

/// Between two looks, should no notification come.
const EVERY: Duration = Duration::from_millis(250);

/// A view older than this is brought up to date before it is relied on: a revoked key lives for a second at most.
const STALE: Duration = Duration::from_millis(750);

/// After an error.
const AGAIN: Duration = Duration::from_millis(500);

/// How often the connection that listens is checked. Until then changes are seen at the next look.
const CHECK_LISTENING: Duration = Duration::from_secs(5);

/// How long changes are kept for nodes that have not read them; who comes later reads everything.
const KEPT: Duration = Duration::from_secs(600);

/// Something that the memory of other nodes must learn.
#[derive(Clone, Copy)]
pub(super) enum Change {
    Endpoint(EndpointKey),
    Account(AccountKey),
    ApiKey(ApiKeyId),
    EventTypes,
    /// A replay was cancelled.
    Cancelled(i64),
    /// A replay was asked for.
    Replay,
    /// The secrets are sealed with another master key.
    MasterKeys,
}

/// Writes a change, in the transaction that makes it. It holds up the changes of others until the commit: it comes last.
pub(super) async fn write_change(db: &impl GenericClient, change: Change, now: Timestamp) -> Result<(), StoreError> {
    let (kind, key, id) = match change {
        Change::Endpoint(key) => (0i16, key.0, None),
        Change::Account(key) => (1, key.0, None),
        Change::ApiKey(id) => (2, 0, Some(id.0)),
        Change::EventTypes => (3, 0, None),
        Change::Cancelled(replay) => (4, replay, None),
        Change::Replay => (5, 0, None),
        Change::MasterKeys => (6, 0, None),
    };
    let sql = "WITH next AS (UPDATE settings SET value = value + 1 WHERE name = 'generation' RETURNING value), \
               told AS (INSERT INTO changes (generation, kind, key, id, made_at) SELECT value, $1, $2, $3, $4 FROM next) \
               SELECT pg_notify('aldaba', '') FROM next";
    execute(db, sql, &[&kind, &key, &id, &now.as_millis()]).await?;
    Ok(())
}

fn read_change(row: &Row) -> Result<Change, StoreError> {
    let key: i64 = get(row, "key")?;
    let change = match get::<i16>(row, "kind")? {
        0 => Change::Endpoint(EndpointKey(key)),
        1 => Change::Account(AccountKey(key)),
        2 => Change::ApiKey(ApiKeyId(get::<Option<_>>(row, "id")?.ok_or_else(|| corrupt("id"))?)),
        3 => Change::EventTypes,
        4 => Change::Cancelled(key),
        5 => Change::Replay,
        6 => Change::MasterKeys,
        // A newer node's: its meaning is not known here, so everything is read.
        _ => return Err(corrupt("kind")),
    };
    Ok(change)
}

/// Forgets changes that every node has read long ago.
pub(super) async fn forget_changes(db: &impl GenericClient, now: Timestamp) -> Result<(), StoreError> {
    execute(db, "DELETE FROM changes WHERE made_at < $1", &[&now.minus(KEPT).as_millis()]).await?;
    Ok(())
}

pub(super) struct Follower {
    pool: Pool,
    view: View,
    shared: Arc<Shared>,
    rooms: Rooms,
    positions: Arc<Positions>,
    known: AsyncMutex<Known>,
    seen: Arc<Seen>,
    notified: Notify,
}

/// What has been read.
#[derive(Default)]
struct Known {
    /// The last change; `None` before everything was read.
    generation: Option<i64>,
    hashes: HashMap<ApiKeyId, KeyHash>,
    accounts: HashMap<AccountKey, AccountId>,
}

impl Follower {
    /// Of a pool of its own, so that calls that wait for connections do not hold it up.
    pub fn new(
        pool: Pool,
        view: View,
        shared: Arc<Shared>,
        (rooms, positions): (Rooms, Arc<Positions>),
        seen: Arc<Seen>,
    ) -> Self {
        Self { pool, view, shared, rooms, positions, seen, known: AsyncMutex::default(), notified: Notify::new() }
    }

    pub fn is_stale(&self) -> bool {
        !self.seen.is_within(STALE)
    }

    fn hear(&self, told: &str) {
        let Some(due) = super::herald::read(told) else {
            self.notified.notify_one();
            return;
        };
        let Some(inbox) = &self.shared.inbox else { return };
        if due.is_empty() {
            inbox.send(Nudge::Rescan);
        }
        for endpoint in due {
            inbox.send(Nudge::Due(endpoint, self.shared.clock.now()));
        }
    }

    /// Reads what was committed before this call. Calls that come together share one look.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let mut known = self.known.lock().await;
        if self.seen.is_since(asked) {
            return Ok(());
        }
        let began = Instant::now();
        let db = self.pool.get().await?;
        if self.seen.is_doubted() {
            known.generation = None;
        }
        let generation = self.read(&db, &mut known).await?;
        self.seen.shows(generation, began);
        Ok(())
    }

    /// Brings the view up to the last change, and returns its number.
    async fn read(&self, db: &Object, known: &mut Known) -> Result<i64, StoreError> {
        let Some(last) = known.generation else { return self.read_all(db, known).await };
        // One statement is one snapshot: where numbers are missing, they were forgotten.
        let sql = "SELECT s.value, c.generation, c.kind, c.key, c.id FROM settings s \
                   LEFT JOIN changes c ON c.generation > $1 WHERE s.name = 'generation' ORDER BY c.generation";
        let found = rows(db, sql, &[&last]).await?;
        let newest: i64 = get(found.first().ok_or_else(|| corrupt("generation"))?, "value")?;
        if newest == last {
            return Ok(newest);
        }
        let changes: Result<Vec<Change>, StoreError> = found.iter().map(read_change).collect();
        match changes {
            Ok(changes) if i64::try_from(changes.len()).is_ok_and(|count| count == newest - last) => {
                self.apply(db, known, changes).await?;
                known.generation = Some(newest);
                Ok(newest)
            }
            _ => self.read_all(db, known).await,
        }
    }

    async fn read_all(&self, db: &Object, known: &mut Known) -> Result<i64, StoreError> {
        // What is committed in between is read again with its change.
        let sql = "SELECT value FROM settings WHERE name = 'generation'";
        let generation = get(&one(db, sql, &[]).await?, "value")?;
        self.shared.reload_keyring();
        let keys = admin::all_api_keys(db).await?;
        let mut accounts = HashMap::default();
        for row in rows(db, "SELECT key, id FROM accounts WHERE deleted_at IS NULL", &[]).await? {
            accounts.insert(AccountKey(get(&row, "key")?), AccountId(get(&row, "id")?));
        }
        let endpoints = load_endpoints(db, &self.shared, None).await?;
        self.view.show(Whole {
            endpoints,
            types: Arc::new(admin::event_types(db).await?),
            accounts: accounts.values().copied().collect(),
            keys: keys.iter().map(|(hash, key)| (*hash, Arc::new(key.clone()))).collect(),
        });
        known.hashes = keys.into_iter().map(|(hash, key)| (key.id, hash)).collect();
        known.accounts = accounts;
        known.generation = Some(generation);
        self.positions.forget_all();
        if let Some(inbox) = &self.shared.inbox {
            inbox.send(Nudge::Rescan);
        }
        Ok(generation)
    }

    async fn apply(&self, db: &Object, known: &mut Known, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut endpoints = BTreeSet::new();
        let (mut keys, mut accounts) = (BTreeSet::new(), BTreeSet::new());
        let mut types = false;
        for change in changes {
            match change {
                Change::Endpoint(key) => _ = endpoints.insert(key.0),
                Change::Account(key) => _ = accounts.insert(key.0),
                Change::ApiKey(id) => _ = keys.insert(id),
                Change::EventTypes => types = true,
                Change::Cancelled(replay) => self.view.show_cancelled(replay),
                Change::Replay => self.shared.replays.notify_one(),
                Change::MasterKeys => self.shared.reload_keyring(),
            }
        }
        for id in keys {
            match admin::find_api_key(db, id).await? {
                Some((hash, key)) => {
                    known.hashes.insert(id, hash);
                    self.view.show_key(hash, Some(Arc::new(key)));
                }
                None => {
                    if let Some(hash) = known.hashes.remove(&id) {
                        self.view.show_key(hash, None);
                    }
                }
            }
        }
        if types {
            self.view.show_types(Arc::new(admin::event_types(db).await?));
        }
        if !accounts.is_empty() {
            self.apply_accounts(db, known, accounts.into_iter().collect()).await?;
        }
        if !endpoints.is_empty() {
            self.apply_endpoints(db, endpoints.into_iter().collect()).await?;
        }
        Ok(())
    }

    async fn apply_accounts(&self, db: &Object, known: &mut Known, keys: Vec<i64>) -> Result<(), StoreError> {
        let mut found = HashMap::default();
        let sql = "SELECT key, id FROM accounts WHERE key = ANY($1) AND deleted_at IS NULL";
        for row in rows(db, sql, &[&keys]).await? {
            found.insert(AccountKey(get(&row, "key")?), AccountId(get(&row, "id")?));
        }
        for key in keys.into_iter().map(AccountKey) {
            match found.get(&key) {
                Some(id) => {
                    known.accounts.insert(key, *id);
                    self.view.show_account(*id, true);
                }
                None => {
                    if let Some(id) = known.accounts.remove(&key) {
                        self.view.show_account(id, false);
                    }
                }
            }
        }
        Ok(())
    }

    async fn apply_endpoints(&self, db: &Object, keys: Vec<i64>) -> Result<(), StoreError> {
        let mut found = load_endpoints(db, &self.shared, Some(&keys)).await?;
        for key in keys.into_iter().map(EndpointKey) {
            let target = found.remove(&key);
            let active = target.as_ref().is_some_and(|target| target.active);
            if target.is_none() {
                self.rooms.forget(key);
            }
            self.view.show_endpoint(key, target);
            self.positions.forget(key);
            // What was held goes on.
            if active && let Some(inbox) = &self.shared.inbox {
                inbox.send(Nudge::Due(key, self.shared.clock.now()));
            }
        }
        Ok(())
    }
}

/// Looks until the store is dropped.
pub(super) async fn keep_up(follower: Weak<Follower>) {
    loop {
        let Some(follower) = follower.upgrade() else { return };
        let looked = super::in_time(follower.refresh()).await;
        if let Err(error) = &looked {
            tracing::warn!(%error, "the database could not be asked for changes");
        }
        if looked.is_err() {
            tokio::time::sleep(AGAIN).await;
        } else {
            let _ = tokio::time::timeout(EVERY, follower.notified.notified()).await;
        }
    }
}

/// Wakes the follower at every notification, on a connection that does nothing else. While there is none, changes are seen
/// a little later.
pub(super) async fn listen(connector: Arc<Connector>, follower: Weak<Follower>) {
    loop {
        if let Err(error) = listen_once(&connector, &follower).await {
            tracing::debug!(%error, "notifications are not heard");
        }
        if follower.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn listen_once(connector: &Connector, follower: &Weak<Follower>) -> Result<(), StoreError> {
    let (client, mut connection) = connector.connect().await?;
    let mut listening = false;
    let hear = async {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(told) = message?
                && let Some(follower) = follower.upgrade()
            {
                follower.hear(told.payload());
            }
        }
        Ok(())
    };
    let ask = async {
        client.batch_execute("LISTEN aldaba").await?;
        listening = true;
        // A server that is silent, or read-only since another took its place, has nothing to tell and closes nothing.
        while health(&client).await == Health::Writable {
            tokio::time::sleep(CHECK_LISTENING).await;
        }
        Err(StoreError::Unavailable("the server takes no writes, or does not answer".into()))
    };
    let ended = tokio::select! {
        heard = hear => heard,
        asked = ask => asked,
    };
    // A standby may have taken the place of what was connected, and may have known less.
    if listening && let Some(follower) = follower.upgrade() {
        follower.seen.doubt();
    }
    ended
}

/// Reads endpoints with their secrets: these, or all.
async fn load_endpoints(
    db: &Object,
    shared: &Shared,
    only: Option<&[i64]>,
) -> Result<HashMap<EndpointKey, Arc<Target>>, StoreError> {
    // The secrets last: a rotation in between shows them with the version before it, and its change is yet to be read.
    let (mut secrets, mut endpoints) = (HashMap::<i64, Vec<_>>::default(), HashMap::default());
    let (endpoint_rows, secret_rows) = match only {
        Some(keys) => (
            rows(db, &format!("{ENDPOINTS} AND key = ANY($1)"), &[&keys]).await?,
            rows(db, &format!("{SECRETS} WHERE endpoint = ANY($1) ORDER BY version DESC"), &[&keys]).await?,
        ),
        None => (rows(db, ENDPOINTS, &[]).await?, rows(db, &format!("{SECRETS} ORDER BY version DESC"), &[]).await?),
    };
    for row in secret_rows {
        let sealed = SealedSecret { key_id: get(&row, "key_id")?, bytes: get(&row, "sealed")? };
        secrets.entry(get(&row, "endpoint")?).or_default().push((sealed, time(&row, "expires_at")?));
    }
    for row in endpoint_rows {
        let key: i64 = get(&row, "key")?;
        let status = parsed(&row, "status", EndpointStatus::from_column)?;
        let stored = StoredEndpoint {
            key: EndpointKey(key),
            id: EndpointId(get(&row, "id")?),
            account: AccountKey(get(&row, "account")?),
            url: get(&row, "url")?,
            version: get(&row, "version")?,
            active: status == EndpointStatus::Active,
            secrets: secrets.remove(&key).unwrap_or_default(),
        };
        if let Some(target) = shared.open_target(&stored) {
            endpoints.insert(stored.key, Arc::new(target));
        }
    }
    Ok(endpoints)
}

const SECRETS: &str = "SELECT endpoint, key_id, sealed, expires_at FROM endpoint_secrets";
const ENDPOINTS: &str = "SELECT key, id, account, url, status, version FROM endpoints WHERE deleted_at IS NULL";
