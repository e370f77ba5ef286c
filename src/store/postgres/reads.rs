//! Connections for what callers ask: how many of them one account may use, and how a read ends when its caller has
//! gone.
//!
//! Accounts share the connections (`store/fair_slots.rs`): those for lists, those for searches, and the part of the
//! main pool that calls of accounts may take. The rest of the main pool is for the engine, for publishing, and for
//! reads that every call depends on, such as sessions and stored replies: none of them takes longer than some
//! milliseconds.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use tokio::runtime::Handle;

use super::connect::{Connector, LIST_CONNECTIONS, SEARCH_CONNECTIONS};
use crate::domain::id::AccountId;
use crate::store::errors::StoreError;
use crate::store::fair_slots::{Bounds, FairSlots, READ_PATIENCE, Slot};
use crate::store::values::SEARCH_TIMEOUT;

/// Connections of the main pool that calls of accounts may use; and how many of them one account may use. Such a call
/// may wait for a lock.
const CALL_CONNECTIONS: (usize, usize) = (6, 3);

/// How long the server may take to accept that a statement is to be cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a cancelled statement may take to end. Its own timeout has ended it by then.
const END_TIMEOUT: Duration = Duration::from_secs(3);

type Slots = FairSlots<Option<AccountId>>;

/// Who uses which connections. Clones share it.
#[derive(Clone)]
pub(super) struct Reads {
    connector: Arc<Connector>,
    /// For lists and searches, whose statements end after `SEARCH_TIMEOUT`.
    pool: Pool,
    /// For the question whether the database answers, which waits for no call.
    ping: Pool,
    lists: Slots,
    searches: Slots,
    calls: Slots,
}

impl Reads {
    pub fn new(connector: Arc<Connector>) -> Result<Self, deadpool_postgres::BuildError> {
        let slots = |connections| FairSlots::new(Bounds::of_reads(connections, READ_PATIENCE));
        Ok(Self {
            pool: connector.read_pool()?,
            ping: connector.ping_pool()?,
            connector,
            lists: slots(LIST_CONNECTIONS),
            searches: slots(SEARCH_CONNECTIONS),
            calls: slots(CALL_CONNECTIONS),
        })
    }

    /// Reads that wait for a connection.
    pub fn waiting(&self) -> usize {
        self.lists.waiting() + self.searches.waiting()
    }

    /// Reads that have one.
    pub fn in_use(&self) -> usize {
        self.lists.in_use() + self.searches.in_use()
    }

    /// Calls that wait for a connection of the main pool.
    pub fn calls_waiting(&self) -> usize {
        self.calls.waiting()
    }

    /// A connection for a read of a bounded number of rows, for an account or for an operator.
    pub async fn reader(&self, owner: Option<AccountId>) -> Result<Reading, StoreError> {
        self.begin(&self.pool, &self.lists, owner).await
    }

    /// A connection for a read that may look at every row of an account.
    pub async fn searcher(&self, owner: Option<AccountId>) -> Result<Reading, StoreError> {
        self.begin(&self.pool, &self.searches, owner).await
    }

    /// A connection of the main pool for a call of an account, or of an operator.
    pub async fn client_for(&self, main: &Pool, owner: Option<AccountId>) -> Result<CallClient, StoreError> {
        let slot = acquire(&self.calls, owner).await?;
        Ok(CallClient { client: main.get().await?, _slot: slot })
    }

    /// The connection that asks whether the database answers.
    pub async fn ping_client(&self) -> Result<Object, StoreError> {
        Ok(self.ping.get().await?)
    }

    async fn begin(&self, pool: &Pool, slots: &Slots, owner: Option<AccountId>) -> Result<Reading, StoreError> {
        let slot = acquire(slots, owner).await?;
        let client = pool.get().await?;
        Ok(Reading { client: Some((client, slot)), connector: self.connector.clone(), ended: false })
    }
}

async fn acquire(slots: &Slots, owner: Option<AccountId>) -> Result<Slot<Option<AccountId>>, StoreError> {
    slots.acquire(owner).await.map_err(|_| StoreError::Busy)
}

/// A connection of the main pool with its slot.
pub(super) struct CallClient {
    client: Object,
    _slot: Slot<Option<AccountId>>,
}

impl Deref for CallClient {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.client
    }
}

impl DerefMut for CallClient {
    fn deref_mut(&mut self) -> &mut Object {
        &mut self.client
    }
}

/// A connection that reads, with its slot. Where it is dropped before [`Reading::end`], its caller has gone: the
/// statement that may still run on it is cancelled, and the slot stays taken until it has ended.
pub(super) struct Reading {
    /// There until it is dropped.
    client: Option<(Object, Slot<Option<AccountId>>)>,
    connector: Arc<Connector>,
    ended: bool,
}

impl Reading {
    /// Says that nothing runs on the connection any more, and returns what the read has come to.
    pub fn end<T>(mut self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        self.ended = true;
        answer
    }
}

impl Deref for Reading {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.client.as_ref().expect("it is there until it is dropped").0
    }
}

impl DerefMut for Reading {
    fn deref_mut(&mut self) -> &mut Object {
        &mut self.client.as_mut().expect("it is there until it is dropped").0
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let Some((client, slot)) = self.client.take() else { return };
        if self.ended {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(cancel(self.connector.clone(), client, slot));
        }
    }
}

/// Ends what runs on a connection. As many of these run as there are slots.
async fn cancel(connector: Arc<Connector>, client: Object, slot: Slot<Option<AccountId>>) {
    debug_assert!(END_TIMEOUT > SEARCH_TIMEOUT, "the statement's own timeout comes first");
    let token = client.cancel_token();
    let _ = tokio::time::timeout(CANCEL_TIMEOUT, connector.cancel(&token)).await;
    // It answers when what was sent before has ended.
    if tokio::time::timeout(END_TIMEOUT, client.simple_query("")).await.is_ok() {
        // The server may still be about to cancel. It must not meet another read, so the connection is not used again.
        drop(Object::take(client));
    }
    drop(slot);
}
