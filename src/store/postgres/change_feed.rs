//! The view of this node, which follows what is committed on any node.
//!
//! Whoever changes an account, an endpoint, a key or a type writes a numbered change in the same transaction. The
//! numbers come from one row, which is locked until the commit, so that they are in the order of the commits and
//! without gaps. A node reads the changes after the last one that it knows: at a `NOTIFY`, every [`POLL_INTERVAL`], and
//! before it relies on them.
//!
//! A standby that has taken the primary's place may have lost changes, and numbers others like them. Each change has a
//! random *nonce*. As long as the database has the change that the node read last, with its nonce, it has all that the
//! view shows: changes are committed one after the other, and a standby has a prefix of them. Otherwise all is read
//! anew.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object, Pool};
use foldhash::HashMap;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, Row};
use uuid::Uuid;

use super::catalog_rows::active_and_fifo;
use super::connect::{Connector, Health, health};
use super::endpoint_memory::EndpointMemory;
use super::freshness::Freshness;
use super::positions::Positions;
use super::sql::{corrupt, execute, get, one, rows, sealed, time};
use crate::domain::account::KeyHash;
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, AccountKey, ApiKeyId, EndpointId, EndpointKey};
use crate::domain::network_rules::NetworkRules;
use crate::domain::secret::SealedSecret;
use crate::domain::time::Timestamp;
use crate::store::credentials::{KEY_ID, SEALED};
use crate::store::errors::StoreError;
use crate::store::hold;
use crate::store::inbox::Nudge;
use crate::store::settings::{account_rules, delivery_settings, readable};
use crate::store::shared::{Shared, StoredEndpoint};
use crate::store::values::Target;
use crate::store::view::{KnownAccount, KnownAccounts, View, Whole};

/// Between two looks, should no notification come.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// A view older than this is brought up to date before it is relied on: a revoked key lives for a second at most.
const MAX_VIEW_AGE: Duration = Duration::from_millis(750);

/// After an error.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// How often the connection that listens is checked. Until then changes are seen at the next look.
const CHECK_LISTENING: Duration = Duration::from_secs(5);

/// How long changes are kept for nodes that have not read them; who comes later reads everything.
const KEPT: Duration = Duration::from_secs(600);

/// Changes that are kept however old they are. A node compares the last one that it read: where it is gone, everything
/// is read. While some nodes have not read the latest, those before are needed too.
const KEPT_CHANGES: i64 = 100;

/// Rows of one statement while everything is read: few enough for a statement's time, and to hold up nobody who needs
/// the processor meanwhile.
const PIECE: i64 = 2_000;

/// Endpoints whose secrets are opened before other tasks can run: some milliseconds.
const OPENED_AT_ONCE: usize = 64;

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
    /// Deliveries were put on hold, or resumed.
    Hold,
}

/// Kinds of changes, as the column has them. Older nodes read them too: none becomes another one's.
mod kind {
    pub const ENDPOINT: i16 = 0;
    pub const ACCOUNT: i16 = 1;
    pub const API_KEY: i16 = 2;
    pub const EVENT_TYPES: i16 = 3;
    pub const CANCELLED: i16 = 4;
    pub const REPLAY: i16 = 5;
    pub const MASTER_KEYS: i16 = 6;
    pub const HOLD: i16 = 7;
}

/// Writes a change, in the transaction that makes it. It holds up the changes of others until the commit: it comes
/// last.
pub(super) async fn write_change(db: &impl GenericClient, change: Change, now: Timestamp) -> Result<(), StoreError> {
    let (kind, key, id) = match change {
        Change::Endpoint(key) => (kind::ENDPOINT, key.0, None),
        Change::Account(key) => (kind::ACCOUNT, key.0, None),
        Change::ApiKey(id) => (kind::API_KEY, 0, Some(id.0)),
        Change::EventTypes => (kind::EVENT_TYPES, 0, None),
        Change::Cancelled(replay) => (kind::CANCELLED, replay, None),
        Change::Replay => (kind::REPLAY, 0, None),
        Change::MasterKeys => (kind::MASTER_KEYS, 0, None),
        Change::Hold => (kind::HOLD, 0, None),
    };
    let sql = "WITH next AS (UPDATE settings SET value = value + 1 WHERE name = 'generation' RETURNING value), \
               written AS (INSERT INTO changes (generation, kind, key, id, made_at) SELECT value, $1, $2, $3, $4 \
               FROM next) SELECT pg_notify('aldaba', '') FROM next";
    execute(db, sql, &[&kind, &key, &id, &now.as_millis()]).await?;
    Ok(())
}

fn read_change(row: &Row) -> Result<Change, StoreError> {
    let key: i64 = get(row, "key")?;
    let change = match get::<i16>(row, "kind")? {
        kind::ENDPOINT => Change::Endpoint(EndpointKey(key)),
        kind::ACCOUNT => Change::Account(AccountKey(key)),
        kind::API_KEY => Change::ApiKey(ApiKeyId(get::<Option<_>>(row, "id")?.ok_or_else(|| corrupt("id"))?)),
        kind::EVENT_TYPES => Change::EventTypes,
        kind::CANCELLED => Change::Cancelled(key),
        kind::REPLAY => Change::Replay,
        kind::MASTER_KEYS => Change::MasterKeys,
        kind::HOLD => Change::Hold,
        // A newer node's: its meaning is not known here, so everything is read.
        _ => return Err(corrupt("kind")),
    };
    Ok(change)
}

/// Forgets changes that every node has read long ago.
pub(super) async fn forget_changes(db: &impl GenericClient, now: Timestamp) -> Result<(), StoreError> {
    let sql = "DELETE FROM changes WHERE made_at < $1 \
               AND generation <= (SELECT value FROM settings WHERE name = 'generation') - $2";
    execute(db, sql, &[&now.minus(KEPT).as_millis(), &KEPT_CHANGES]).await?;
    Ok(())
}

pub(super) struct ChangeFeed {
    pool: Pool,
    view: View,
    shared: Arc<Shared>,
    endpoint_memory: EndpointMemory,
    positions: Arc<Positions>,
    known: Arc<AsyncMutex<Known>>,
    freshness: Arc<Freshness>,
    notified: Notify,
}

/// What has been read.
#[derive(Default)]
struct Known {
    /// The last change whose effects are all in the view; `None` before everything was read.
    generation: Option<i64>,
    /// The last change whose effects may be in the view: rows are read a little later than the changes that name them.
    latest: Option<Latest>,
    hashes: HashMap<ApiKeyId, KeyHash>,
    accounts: HashMap<AccountKey, AccountId>,
}

/// A change, and what no other change of its number has.
#[derive(Clone, Copy)]
struct Latest {
    generation: i64,
    /// `None` where it is not known: the change was not written down, or was not read to its end.
    nonce: Option<Uuid>,
}

/// Whether the database has the history that the view was read from.
#[derive(PartialEq, Debug)]
enum History {
    Same,
    Unproven,
    Other,
}

impl Latest {
    /// Compares with the number of the database's last change, and those of its changes that may be this one.
    fn compare(self, newest: i64, found: &[(i64, Option<Uuid>)]) -> History {
        if newest < self.generation {
            return History::Other;
        }
        let Some(nonce) = self.nonce else { return History::Unproven };
        let same = found.iter().any(|(number, theirs)| *number == self.generation && *theirs == Some(nonce));
        if same { History::Same } else { History::Other }
    }
}

impl ChangeFeed {
    /// Of a pool of its own, so that calls that wait for connections do not hold it up.
    pub fn new(
        pool: Pool,
        view: View,
        shared: Arc<Shared>,
        (endpoint_memory, positions): (EndpointMemory, Arc<Positions>),
        freshness: Arc<Freshness>,
    ) -> Self {
        Self {
            pool,
            view,
            shared,
            endpoint_memory,
            positions,
            freshness,
            known: Arc::default(),
            notified: Notify::new(),
        }
    }

    /// Work of the node itself that waits for a connection.
    pub fn waiting(&self) -> usize {
        self.pool.status().waiting
    }

    pub fn is_stale(&self) -> bool {
        !self.freshness.is_within(MAX_VIEW_AGE)
    }

    fn hear(&self, payload: &str) {
        let Some(due) = super::notifier::read(payload) else {
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
    pub async fn refresh(self: &Arc<Self>) -> Result<(), StoreError> {
        let asked = Instant::now();
        let mut known = self.known.clone().lock_owned().await;
        if self.freshness.is_since(asked) {
            return Ok(());
        }
        let began = Instant::now();
        let db = self.pool.get().await?;
        if let Some(generation) = self.read(&db, &mut known).await? {
            self.freshness.shows(generation, began);
            return Ok(());
        }
        // In a task: whoever asks gives up in time, and the next one would begin anew.
        let change_feed = self.clone();
        let reading = tokio::spawn(async move { change_feed.read_all(&db, &mut known).await });
        reading.await.map_err(|_| StoreError::Unavailable("reading everything was interrupted".into()))?
    }

    /// Brings the view up to the last change, and returns its number; `None` where everything has to be read.
    async fn read(&self, db: &Object, known: &mut Known) -> Result<Option<i64>, StoreError> {
        let (Some(last), Some(latest)) = (known.generation, known.latest) else { return Ok(None) };
        debug_assert!(latest.generation >= last, "rows are read after the changes that name them");
        // One statement is one snapshot: where numbers are missing, they were forgotten.
        let sql = "SELECT s.value, c.generation, c.nonce, c.kind, c.key, c.id FROM settings s \
                   LEFT JOIN changes c ON c.generation >= $1 WHERE s.name = 'generation' ORDER BY c.generation";
        let found = rows(db, sql, &[&last]).await?;
        let newest: i64 = get(found.first().ok_or_else(|| corrupt("generation"))?, "value")?;
        let mut numbers = Vec::with_capacity(found.len());
        for row in &found {
            numbers.extend(get::<Option<i64>>(row, "generation")?.zip(Some(get(row, "nonce")?)));
        }
        match latest.compare(newest, &numbers) {
            History::Same => {}
            // Somebody else has changed the tables, and counted it. On one server numbers do not go back.
            History::Unproven if !self.freshness.is_doubted() => {}
            _ => return Ok(None),
        }
        if newest == last {
            return Ok(Some(newest));
        }
        let later = found.iter().zip(&numbers).filter(|(_, (number, _))| *number > last);
        let changes: Result<Vec<Change>, StoreError> = later.map(|(row, _)| read_change(row)).collect();
        match changes {
            Ok(changes) if i64::try_from(changes.len()).is_ok_and(|count| count == newest - last) => {
                // Until all is read nobody knows which later changes the view shows some of.
                known.latest = Some(Latest { generation: newest.max(latest.generation), nonce: None });
                self.apply(db, known, changes).await?;
                known.latest = Some(latest_change(db).await?);
                known.generation = Some(newest);
                Ok(Some(newest))
            }
            _ => Ok(None),
        }
    }

    /// Reads everything in pieces, beside the view, and then shows it in place of the view.
    async fn read_all(&self, db: &Object, known: &mut Known) -> Result<(), StoreError> {
        let began = Instant::now();
        (known.generation, known.latest) = (None, None);
        // What is committed in between is read again with its change.
        let first = super::time_limit::in_time(latest_change(db)).await?;
        self.shared.reload_keyring();
        let mut keys = Vec::new();
        let mut after = ApiKeyId(Uuid::nil());
        loop {
            let piece = super::time_limit::in_time(super::catalog_rows::api_keys_after(db, after, PIECE)).await?;
            let Some((_, last)) = piece.last() else { break };
            after = last.id;
            keys.extend(piece);
        }
        let (mut accounts, mut shown) = (HashMap::default(), KnownAccounts::default());
        let sql = "SELECT key, id, external_id, settings FROM accounts WHERE deleted_at IS NULL AND key > $1 \
                   ORDER BY key LIMIT $2";
        let mut after = 0i64;
        loop {
            let piece = super::time_limit::in_time(async { rows(db, sql, &[&after, &PIECE]).await }).await?;
            let Some(last) = piece.last() else { break };
            after = get(last, "key")?;
            for row in &piece {
                let (id, account) = known_account(row)?;
                accounts.insert(AccountKey(get(row, "key")?), id);
                shown.add(id, account);
            }
        }
        let mut endpoints = HashMap::default();
        let sql = "SELECT key FROM endpoints WHERE deleted_at IS NULL AND key > $1 ORDER BY key LIMIT $2";
        let mut after = 0i64;
        loop {
            let piece = super::time_limit::in_time(async { rows(db, sql, &[&after, &PIECE]).await }).await?;
            let piece: Vec<i64> = piece.iter().map(|row| get(row, "key")).collect::<Result<_, _>>()?;
            let Some(last) = piece.last() else { break };
            after = *last;
            let networks = |key: AccountKey| accounts.get(&key).and_then(|id| shown.networks(*id));
            let loading = load_endpoints(db, &self.shared, &self.view, &piece, &networks);
            endpoints.extend(super::time_limit::in_time(loading).await?);
        }
        self.note_limits(&endpoints);
        // An import has written them, and has then had everything read.
        self.shared.set_id_times(super::time_limit::in_time(super::ids::read_times(db)).await?);
        self.show_hold(super::time_limit::in_time(super::hold_row::read(db)).await?);
        self.view.show(Whole {
            endpoints,
            types: Arc::new(super::time_limit::in_time(super::catalog_rows::event_types(db)).await?),
            accounts: shown,
            keys: keys.iter().map(|(hash, key)| (*hash, Arc::new(key.clone()))).collect(),
        });
        known.hashes = keys.into_iter().map(|(hash, key)| (key.id, hash)).collect();
        known.accounts = accounts;
        known.latest = Some(super::time_limit::in_time(latest_change(db)).await?);
        known.generation = Some(first.generation);
        self.positions.forget_all();
        if let Some(inbox) = &self.shared.inbox {
            inbox.send(Nudge::Rescan);
        }
        self.freshness.shows(first.generation, began);
        Ok(())
    }

    /// Notes what the owners of these endpoints allow in flight. The engine looks at those that have a limit: another
    /// process may send to them from now on.
    fn note_limits(&self, endpoints: &HashMap<EndpointKey, Arc<Target>>) {
        for (key, target) in endpoints {
            self.endpoint_memory.note_max_in_flight(*key, target);
            if target.delivery.max_in_flight.is_some()
                && let Some(inbox) = &self.shared.inbox
            {
                inbox.send(Nudge::Due(*key, self.shared.clock.now()));
            }
        }
    }

    async fn apply(&self, db: &Object, known: &mut Known, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut endpoints = BTreeSet::new();
        let (mut keys, mut accounts) = (BTreeSet::new(), BTreeSet::new());
        let (mut types, mut hold) = (false, false);
        for change in changes {
            match change {
                Change::Endpoint(key) => _ = endpoints.insert(key.0),
                Change::Account(key) => _ = accounts.insert(key.0),
                Change::ApiKey(id) => _ = keys.insert(id),
                Change::EventTypes => types = true,
                Change::Cancelled(replay) => self.view.show_cancelled(replay),
                Change::Replay => self.shared.replays.notify_one(),
                Change::MasterKeys => self.shared.reload_keyring(),
                Change::Hold => hold = true,
            }
        }
        // Before endpoints that have become active.
        if hold {
            self.show_hold(super::hold_row::read(db).await?);
        }
        for id in keys {
            match super::catalog_rows::find_api_key(db, id).await? {
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
            self.view.show_types(Arc::new(super::catalog_rows::event_types(db).await?));
        }
        if !accounts.is_empty() {
            self.apply_accounts(db, known, accounts.into_iter().collect()).await?;
        }
        if !endpoints.is_empty() {
            self.apply_endpoints(db, known, endpoints.into_iter().collect()).await?;
        }
        Ok(())
    }

    fn show_hold(&self, since: Option<Timestamp>) {
        // What was given back while nothing was sent is looked for anew.
        self.positions.forget_all();
        hold::show(&self.view, self.shared.inbox.as_ref(), since);
    }

    async fn apply_accounts(&self, db: &Object, known: &mut Known, keys: Vec<i64>) -> Result<(), StoreError> {
        let mut found = HashMap::default();
        let sql = "SELECT key, id, external_id, settings FROM accounts WHERE key = ANY($1) AND deleted_at IS NULL";
        for row in rows(db, sql, &[&keys]).await? {
            found.insert(AccountKey(get(&row, "key")?), known_account(&row)?);
        }
        for key in keys.into_iter().map(AccountKey) {
            match found.remove(&key) {
                Some((id, account)) => {
                    known.accounts.insert(key, id);
                    let networks = account.networks.clone();
                    let has_changed = self.view.account_networks(id) != networks;
                    self.view.show_account(id, account);
                    if has_changed {
                        self.view.show_networks(key, networks.as_ref());
                    }
                }
                None => {
                    if let Some(id) = known.accounts.remove(&key) {
                        self.view.forget_account(id);
                    }
                }
            }
        }
        Ok(())
    }

    async fn apply_endpoints(&self, db: &Object, known: &Known, keys: Vec<i64>) -> Result<(), StoreError> {
        let networks = |key: AccountKey| self.view.account_networks(*known.accounts.get(&key)?);
        let mut found = load_endpoints(db, &self.shared, &self.view, &keys, &networks).await?;
        for key in keys.into_iter().map(EndpointKey) {
            let target = found.remove(&key);
            let active = target.as_ref().is_some_and(|target| target.active);
            match &target {
                Some(target) => self.endpoint_memory.note_max_in_flight(key, target),
                None => self.endpoint_memory.forget(key),
            }
            self.view.show_endpoint(key, target);
            self.positions.forget(key);
            // Its deliveries go on.
            if active && let Some(inbox) = &self.shared.inbox {
                inbox.send(Nudge::Changed(key));
                inbox.send(Nudge::Due(key, self.shared.clock.now()));
            }
        }
        Ok(())
    }
}

/// Looks until the store is dropped.
pub(super) async fn poll_changes(change_feed: Weak<ChangeFeed>) {
    loop {
        let Some(change_feed) = change_feed.upgrade() else { return };
        let looked = super::time_limit::in_time(change_feed.refresh()).await;
        if let Err(error) = &looked {
            tracing::warn!(%error, "the database could not be asked for changes");
        }
        if looked.is_err() {
            tokio::time::sleep(RETRY_DELAY).await;
        } else {
            let _ = tokio::time::timeout(POLL_INTERVAL, change_feed.notified.notified()).await;
        }
    }
}

/// Wakes the change feed at every notification, on a connection that does nothing else. While there is none, changes
/// are seen a little later.
pub(super) async fn listen(connector: Arc<Connector>, change_feed: Weak<ChangeFeed>) {
    loop {
        if let Err(error) = listen_once(&connector, &change_feed).await {
            tracing::debug!(%error, "notifications are not heard");
        }
        if change_feed.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

async fn listen_once(connector: &Connector, change_feed: &Weak<ChangeFeed>) -> Result<(), StoreError> {
    let (client, mut connection) = connector.connect().await?;
    let mut listening = false;
    let hear = async {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notification) = message?
                && let Some(change_feed) = change_feed.upgrade()
            {
                change_feed.hear(notification.payload());
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
    // A standby may have taken the place of what was connected, and may have known less. The next look tells.
    if listening && let Some(change_feed) = change_feed.upgrade() {
        change_feed.freshness.doubt();
    }
    ended
}

/// The database's last change.
async fn latest_change(db: &impl GenericClient) -> Result<Latest, StoreError> {
    let sql = "SELECT s.value, c.nonce FROM settings s LEFT JOIN changes c ON c.generation = s.value \
               WHERE s.name = 'generation'";
    let found = one(db, sql, &[]).await?;
    Ok(Latest { generation: get(&found, "value")?, nonce: get(&found, "nonce")? })
}

fn known_account(row: &Row) -> Result<(AccountId, KnownAccount), StoreError> {
    let external_id = get::<Option<String>>(row, "external_id")?.map(ExternalId::stored);
    let id = AccountId(get(row, "id")?);
    Ok((id, KnownAccount { external_id, networks: account_rules(id, get::<&str>(row, "settings"))? }))
}

/// What an operator has set for an account.
type NetworksOf<'a> = &'a (dyn Fn(AccountKey) -> Option<Arc<NetworkRules>> + Sync);

/// Reads these endpoints with their secrets. A filter that the view shows already is not compiled again. Endpoints
/// whose settings or secrets cannot be read are left out.
async fn load_endpoints(
    db: &Object,
    shared: &Shared,
    view: &View,
    keys: &[i64],
    networks: NetworksOf<'_>,
) -> Result<HashMap<EndpointKey, Arc<Target>>, StoreError> {
    // The secrets last: a rotation in between shows them with the version before it, and its change is yet to be read.
    let (mut secrets, mut endpoints) = (HashMap::<i64, Vec<_>>::default(), HashMap::default());
    let endpoint_rows = rows(db, &format!("{ENDPOINTS} AND key = ANY($1)"), &[&keys]).await?;
    let secret_rows = rows(db, &format!("{SECRETS} WHERE endpoint = ANY($1) ORDER BY version DESC"), &[&keys]).await?;
    for row in secret_rows {
        let sealed = SealedSecret { key_id: get(&row, "key_id")?, bytes: get(&row, "sealed")? };
        secrets.entry(get(&row, "endpoint")?).or_default().push((sealed, time(&row, "expires_at")?));
    }
    for (index, row) in endpoint_rows.into_iter().enumerate() {
        if index % OPENED_AT_ONCE == OPENED_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        let key: i64 = get(&row, "key")?;
        let id = EndpointId(get(&row, "id")?);
        let shown = view.target(EndpointKey(key));
        let known = shown.as_ref().map(|target| &*target.delivery);
        let read = active_and_fifo(&row)
            .and_then(|(is_active, _)| Ok((is_active, delivery_settings(get(&row, "settings")?, known)?)));
        let Some((active, delivery)) = readable(id, read)? else { continue };
        let account = AccountKey(get(&row, "account")?);
        let stored = StoredEndpoint {
            key: EndpointKey(key),
            id,
            account,
            networks: networks(account),
            url: get(&row, "url")?,
            version: get(&row, "version")?,
            active,
            delivery: Arc::new(delivery),
            credentials: sealed(&row, KEY_ID, SEALED)?,
            // One without a secret is not opened, which is logged.
            secrets: secrets.remove(&key).unwrap_or_default(),
        };
        if let Some(target) = shared.open_target(&stored) {
            endpoints.insert(stored.key, Arc::new(target));
        }
    }
    Ok(endpoints)
}

const SECRETS: &str = "SELECT endpoint, key_id, sealed, expires_at FROM endpoint_secrets";

const ENDPOINTS: &str = "SELECT key, id, account, url, status, ordering, version, settings, credentials_key_id, \
                         credentials FROM endpoints WHERE deleted_at IS NULL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_the_same_where_the_last_change_that_was_read_is_still_there() {
        let (ours, theirs) = (Some(Uuid::from_u128(1)), Some(Uuid::from_u128(2)));
        let latest = Latest { generation: 7, nonce: ours };
        for (newest, found, history) in [
            (7, vec![(7, ours)], History::Same),
            (9, vec![(7, ours), (8, theirs), (9, theirs)], History::Same),
            (7, vec![(7, theirs)], History::Other),
            (9, vec![(7, theirs), (8, ours)], History::Other),
            (6, vec![(6, ours)], History::Other),
            (7, vec![(7, None)], History::Other),
            (9, vec![(8, ours), (9, ours)], History::Other),
        ] {
            assert_eq!(latest.compare(newest, &found), history, "{newest} {found:?}");
        }
        let unknown = Latest { generation: 7, nonce: None };
        assert_eq!(unknown.compare(7, &[(7, ours)]), History::Unproven);
        assert_eq!(unknown.compare(6, &[]), History::Other);
    }
}
