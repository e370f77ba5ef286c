//! The arguments and results of the store's methods, the same for both stores.

use std::sync::Arc;
use std::time::Duration;

use super::inbox::{Inbox, Leased};
use super::keys::KeySource;
use super::open::Database;
use super::start_permit::CountedStart;
use crate::clock::{Clock, Random};
use crate::domain::account::{ApiKey, PlainKey};
use crate::domain::credentials::{Credentials, RequestCredentials};
use crate::domain::delivery::{DeliveryKind, Job, Outcome};
use crate::domain::endpoint::EndpointStatus;
use crate::domain::id::{AccountId, AccountKey, DeliveryId, EndpointKey};
use crate::domain::network_rules::NetworkRules;
use crate::domain::permission::Permissions;
use crate::domain::secret::Secret;
use crate::domain::settings::{DeliverySettings, EndpointSettings};
use crate::domain::sign::Signer;
use crate::domain::time::Timestamp;
use crate::domain::transition::DeliveryPolicy;
use crate::domain::url::{Environment, ReceiverUrl};
use crate::domain::user::{Color, Email, Role, User};

/// Deliveries that are due and wait in the database, in the memory of no process. Deliveries of a paused endpoint are
/// not due. Of an endpoint with FIFO order only the head can be due. What waits for a rate limit, as its owner wants,
/// is no backlog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many, counted up to a bound.
    pub deliveries: usize,
    /// When the longest waiting one became due.
    pub oldest: Option<Timestamp>,
}

/// What waits for the database now, as this process knows without asking it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseLoad {
    /// Calls and deliveries that wait for a connection (PostgreSQL), or writes that wait for their commit (SQLite).
    pub calls_waiting: usize,
    /// Reads of callers that wait for a connection.
    pub reads_waiting: usize,
    /// Connections that reads of callers use, those included whose callers have gone and which are being ended.
    pub reads_in_use: usize,
    /// The node's own work that waits for one of its own connections (PostgreSQL).
    pub node_calls_waiting: usize,
    /// How long ago the view was last known to be current.
    pub view_age: Duration,
}

/// Deliveries of one event that are shown with it.
pub(super) const MAX_EVENT_DELIVERIES: u32 = 1_000;

/// After this long the mark of a call under way is void. Longer than any call: the slowest is a test send.
pub const CALL_LIFE: Duration = Duration::from_secs(180);

/// How long an invitation can be used.
pub const INVITATION_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// Users that one sign-in may open, of those with one address and one password: the last used first.
pub(super) const MAX_OPENED: u32 = 20;

/// How long somebody whose password opens several accounts may take to choose one.
pub const OFFER_LIFE: Duration = Duration::from_secs(300);

/// Sessions of one user, and offers of sessions: somebody with the right password could make any number of rows.
pub const MAX_SESSIONS: usize = 100;

/// A session's last use is written down this often.
pub(super) const SESSION_SEEN_INTERVAL: Duration = Duration::from_secs(60);

/// How long a reply is stored for its idempotency key.
pub const STORED_REPLY_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Deliveries of an endpoint that replays have made and that wait for their first attempt: as many as one process may
/// have in memory of them. They are rows, which take no memory until they are claimed. A claim takes what
/// `Inbox::reserve_replayed` allows and leaves the others due, so that large bodies are not loaded to be given back.
pub(super) const REPLAY_WINDOW: usize = 256;

/// Unfinished replays of one endpoint.
pub(super) const MAX_REPLAYS: usize = 10;

/// Unfinished replays of one account. They share the account's one step in a round, and each round reads them all.
pub(super) const MAX_ACCOUNT_REPLAYS: usize = 100;

/// What is open of a rate limit's window.
#[derive(Clone, Copy, Debug)]
pub struct RateWindow {
    /// When the next one may open.
    pub ends_at: Timestamp,
    /// Calls that this process may let through, of those that all have together.
    pub granted: u32,
}

/// How a store is opened.
pub struct OpenOptions {
    /// Which one, and where.
    pub database: Database,
    /// The master keys.
    pub keys: KeySource,
    /// What receiver URLs may be.
    pub environment: Environment,
    /// What becomes of deliveries.
    pub policy: DeliveryPolicy,
    /// Endpoints that an account may have.
    pub max_endpoints: u32,
    /// API keys that an account may have, those that have expired included.
    pub max_api_keys: u32,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Requests in flight to one endpoint, over all processes that deliver.
    pub max_in_flight_per_endpoint: usize,
    /// Whether this is a server, and not a command beside one.
    pub serves: bool,
    /// With an inbox this process delivers.
    pub inbox: Option<Inbox>,
}

/// The settings of a store that may change while it is open.
#[derive(Clone)]
pub struct StoreSettings {
    /// The master keys. The key that seals stays the same.
    pub keys: KeySource,
    /// What becomes of deliveries.
    pub policy: DeliveryPolicy,
    /// Endpoints that an account may have.
    pub max_endpoints: u32,
    /// API keys that an account may have.
    pub max_api_keys: u32,
}

/// A new API key, without the key.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// The account it acts for; `None` makes an operator key.
    pub account: Option<AccountId>,
    /// A label.
    pub name: Option<String>,
    /// What it may do.
    pub permissions: Permissions,
    /// After this it is refused.
    pub expires_at: Option<Timestamp>,
}

/// A new user, checked.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The account that they belong to; `None` makes an operator.
    pub account: Option<AccountId>,
    /// Their address.
    pub email: Email,
    /// What they are.
    pub role: Role,
    /// The hash of a password, where they need no invitation.
    pub password: Option<PasswordHash>,
}

/// A password's hash (argon2id, in the PHC string format). Whoever has it can try passwords against it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl PasswordHash {
    /// Everything before the hash itself: the algorithm, its parameters and the salt. All users with one address have
    /// the same.
    pub fn recipe(&self) -> &str {
        self.0.rsplit_once('$').map_or("", |(recipe, _)| recipe)
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Something together with a token that opens it, for the one answer that shows the token.
#[derive(Clone, Debug)]
pub struct WithToken<T> {
    /// The resource.
    pub resource: T,
    /// The token; only its hash is kept. A user who has a password from the start gets none.
    pub token: Option<PlainKey>,
}

/// What a user signs in with.
#[derive(Clone, Debug)]
pub struct SignInCredentials {
    /// Who.
    pub user: User,
    /// The hash of their password; none before they have joined.
    pub password: Option<PasswordHash>,
    /// Their second factor. A time step that was used is not taken again.
    pub second_factor: Factor,
}

/// What there is of a second factor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Factor {
    /// Nothing: a password is enough.
    None,
    /// Its secret.
    Secret(Secret),
    /// A secret that no master key of ours opens.
    Sealed,
}

/// What was found right of what somebody signs in with. It must still be so when their session opens.
#[derive(Clone, Debug)]
pub enum Proof {
    /// This hash's password, and the second factor's code of this time step; without a step there is no second factor.
    Password(PasswordHash, Option<i64>),
    /// They are trusted otherwise: by their invitation, or by where they are.
    Trusted,
}

/// What is to be changed of a user's way to sign in.
#[derive(Clone, Debug)]
pub enum SignInChange {
    /// Another password.
    Password(PasswordHash),
    /// A second factor from now on: its secret, and the time step that proved it.
    SecondFactor(Secret, i64),
    /// None any more.
    NoSecondFactor,
    /// Nothing but the end of every session, and of an invitation.
    Sessions,
    /// Nothing: they have seen that somebody else turned off their second factor.
    ResetSeen,
}

/// A new portal link, checked.
#[derive(Clone, Debug)]
pub struct NewPortalLink {
    /// The account whose pages it opens.
    pub account: AccountId,
    /// What it allows.
    pub permissions: Permissions,
    /// The name at the top.
    pub brand: Option<String>,
    /// The colour of what can be pressed.
    pub color: Option<Color>,
    /// Sites that may show it in a frame.
    pub frame_origins: Vec<String>,
    /// After this it is dead.
    pub expires_at: Timestamp,
}

/// Which rows of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// From 1.
    pub page: u32,
    /// 1 to 100.
    pub per_page: u32,
}

impl Page {
    /// Rows before this page.
    pub fn offset(self) -> u64 {
        debug_assert!(self.page > 0, "the first page is 1");
        u64::from(self.page.saturating_sub(1)) * u64::from(self.per_page)
    }

    /// Rows that this page reads: none when it begins after the last row that pages reach.
    pub fn limit(self) -> u32 {
        if self.offset() < MAX_PAGED_ROWS { self.per_page } else { 0 }
    }

    /// Whether the page is empty in a list of `total` rows.
    pub fn is_past_the_end(self, total: u64) -> bool {
        self.offset() >= total || self.limit() == 0
    }

    /// Rows that a filtered list finds at most: those that are counted, and the rest of the last page.
    pub(super) fn max_found(self) -> u64 {
        MAX_PAGED_ROWS + u64::from(self.per_page)
    }
}

/// Rows of a list that its pages reach, and up to which the rows of a filtered list are counted. A page reads every row
/// before it, so this bounds the work of a call: on a list of 2 million rows the last page takes 3 to 50 ms.
/// `docs/decisions/0003-deep-pages.md` has the reasons.
pub const MAX_PAGED_ROWS: u64 = 100_000;

/// How long a filtered list may search. A search that finds little reads every row of the account: 2 million in 0.7 s
/// on PostgreSQL, 0.9 s on SQLite. Calls of the store end after 5 s, so that 3 s are left for the wait for a
/// connection.
pub const SEARCH_TIMEOUT: Duration = Duration::from_secs(2);

/// One page of a list, and how many rows the list has.
#[derive(Clone, Debug)]
pub struct Paged<T> {
    /// The rows of this page.
    pub items: Vec<T>,
    /// Rows on all pages; a minimum when `total_is_minimum`.
    pub total: u64,
    /// Whether the list is filtered and has more than [`MAX_PAGED_ROWS`] rows, which is then the total.
    pub total_is_minimum: bool,
}

impl<T> Paged<T> {
    /// A page of a list whose rows are counted exactly.
    pub fn exact(items: Vec<T>, total: u64) -> Self {
        Self { items, total, total_is_minimum: false }
    }

    /// A page of a filtered list, of which so many rows were found before the search ended.
    pub(super) fn found(items: Vec<T>, found: u64) -> Self {
        Self { items, total: found.min(MAX_PAGED_ROWS), total_is_minimum: found > MAX_PAGED_ROWS }
    }

    /// The last page that can be reached with so many rows on each.
    pub fn total_pages(&self, per_page: u32) -> u64 {
        self.total.min(MAX_PAGED_ROWS).div_ceil(u64::from(per_page))
    }
}

/// A stretch of a list that is read from one end to the other.
#[derive(Clone, Debug)]
pub struct Stretch<T> {
    /// What was found in it, in the list's order.
    pub items: Vec<T>,
    /// Where the next stretch begins; `None` at the end.
    pub next: Option<i64>,
}

/// Rows that one stretch looks at.
pub(super) const STRETCH: usize = 256;

/// A reply that is stored, so that a later call with the same idempotency key gets it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// SHA-256 of the request's body.
    pub body_hash: [u8; 32],
    /// The HTTP status.
    pub status: u16,
    /// The request id of the first reply.
    pub request_id: String,
    /// The body, byte for byte; a secret is already hidden in it.
    pub body: Vec<u8>,
}

/// What an idempotency key is unique within.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplyScope {
    /// The account, or `None` for an operator's key.
    pub account: Option<AccountId>,
    /// The full path.
    pub path: String,
    /// The client's key.
    pub key: String,
}

/// A reply that a write stores in the same commit as its effect.
pub struct PendingReply<T> {
    /// Under which key.
    pub scope: ReplyScope,
    /// Makes the reply from the effect.
    pub render: Box<dyn FnOnce(&T) -> StoredReply + Send>,
}

/// An endpoint that is to be registered.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    /// What its owner sets.
    pub settings: EndpointSettings,
    /// Whether it receives from the start.
    pub status: EndpointStatus,
    /// Its owner's own secret; `None` is one that is generated.
    pub secret: Option<Secret>,
    /// The values of its headers and credentials that nobody reads again.
    pub credentials: Credentials,
}

impl From<EndpointSettings> for NewEndpoint {
    /// One that receives from the start, with a secret that is generated.
    fn from(settings: EndpointSettings) -> Self {
        Self { settings, status: EndpointStatus::Active, secret: None, credentials: Credentials::default() }
    }
}

/// An endpoint together with a secret that its owner has not seen yet.
#[derive(Clone, Debug)]
pub struct WithSecret<T> {
    /// The resource.
    pub resource: T,
    /// Its secret, for the one answer that shows it.
    pub secret: Secret,
}

/// An API key together with the key itself, which its owner has not seen yet.
#[derive(Clone, Debug)]
pub struct WithKey {
    /// The resource.
    pub resource: ApiKey,
    /// The key, for the one answer that shows it.
    pub key: PlainKey,
}

/// An endpoint's current row, as an attempt needs it.
#[derive(Clone)]
pub struct Target {
    /// Its owner's row.
    pub account: AccountKey,
    /// Changes whenever the owner or the platform changes the endpoint.
    pub version: i64,
    /// Whether deliveries go out now.
    pub active: bool,
    /// Where to.
    pub url: Arc<ReceiverUrl>,
    /// The keys of its secrets.
    pub signer: Signer,
    /// Headers and credentials of its requests.
    pub credentials: Arc<RequestCredentials>,
    /// What its owner has set.
    pub delivery: Arc<DeliverySettings>,
    /// What an operator has set for its owner: where requests may go beside what the server's settings say.
    pub networks: Option<Arc<NetworkRules>>,
}

impl Target {
    /// The same endpoint, where an operator has set this for its owner.
    pub(super) fn with_networks(self: &Arc<Self>, networks: Option<&Arc<NetworkRules>>) -> Arc<Self> {
        if self.networks.as_ref() == networks {
            return self.clone();
        }
        Arc::new(Self { networks: networks.cloned(), ..(**self).clone() })
    }

    /// Requests that may be in flight to it, over all processes, where the server allows so many for an endpoint.
    pub(super) fn max_in_flight(&self, setting: usize) -> usize {
        self.delivery.max_in_flight.map_or(setting, |own| own.min(setting))
    }
}

/// A delivery that was in memory and was not attempted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unattempted {
    /// Which one.
    pub delivery: DeliveryId,
    /// Where it goes.
    pub endpoint: EndpointKey,
    /// The lease under which it was in memory.
    pub lease: i64,
    /// The attempt that is counted for it towards the endpoint's rate limit, and is not made.
    pub counted: Option<CountedStart>,
    /// Since when it is due, where the rate limit has delayed its attempt. It keeps its place among those that wait.
    pub due_at: Option<Timestamp>,
}

impl Unattempted {
    /// The delivery of this job, for which no attempt is counted.
    pub fn of(job: &Job) -> Self {
        Self { delivery: job.id, endpoint: job.endpoint, lease: job.lease, counted: None, due_at: None }
    }

    /// A delivery with what is counted for it.
    pub fn of_leased(leased: &Leased) -> Self {
        let due_at = leased.start.is_refused().then_some(leased.due_at);
        Self { counted: leased.start.counted(), due_at, ..Self::of(&leased.job) }
    }
}

/// How a write is kept from others of the same commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    /// Not at all: should it fail half-way, it takes the commit with it.
    Shared,
    /// By a savepoint: it fails alone. For a write that has failed before.
    Savepoint,
}

/// The outcome of an attempt, on its way into the store.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// Whose.
    pub endpoint: EndpointKey,
    /// Under which lease it was sent.
    pub lease: i64,
    /// Why it exists.
    pub kind: DeliveryKind,
    /// Attempts made before this one.
    pub attempts_made: u32,
    /// Failures that counted towards the schedule before this one.
    pub failures: u32,
    /// What the attempt came to.
    pub outcome: Outcome,
    /// A random number from -1 to 1, drawn once however often the write is tried.
    pub jitter: f64,
}

impl Settlement {
    /// Attempts made with this one. The count ends where its column does.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts_made.saturating_add(1)
    }
}

/// What an endpoint's claim came to.
#[derive(Debug, Default)]
pub struct Claimed {
    /// Leased now, the longest waiting first.
    pub jobs: Vec<Leased>,
    /// When the next of those that stay in the store is due.
    pub next_due: Option<Timestamp>,
    /// How long the endpoint's rate limit allows no further attempt; `None` where it allows one now.
    pub limited_for: Option<Duration>,
}

/// What an endpoint did not get because it was not active.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Missed {
    /// Events of the types that it subscribes to.
    pub count: u64,
    /// When the oldest of them was accepted.
    pub oldest_at: Option<Timestamp>,
}

impl Missed {
    /// Adds so many events of one type, the oldest of which was accepted then.
    pub(super) fn add(&mut self, count: u64, oldest_at: Timestamp) {
        self.count += count;
        self.oldest_at = self.oldest_at.into_iter().chain([oldest_at]).min();
    }
}

/// A replay that has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenReplay {
    /// Its row.
    pub key: i64,
    /// Whose it is.
    pub account: AccountId,
    /// Whether it can go on now: it counts, or its endpoint is active.
    pub ready: bool,
}

/// What a step of a replay came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It went on, and made so many deliveries.
    Made(u64),
    /// The endpoint has enough to do, or is not active.
    Waiting,
    /// It is over, or is no more.
    Finished,
}

/// What the store made of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is written, and there is no further attempt.
    Done,
    /// It is written, and the next attempt is due then.
    RetryAt(Timestamp),
    /// The lease had gone (the delivery was deleted); nothing was written.
    LeaseLost,
}

/// Where a round of retention by rows goes on. Positions of one round grow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PurgePosition {
    /// The key of the account.
    pub account: i64,
    /// What is looked at.
    pub part: PurgePart,
    /// The endpoint whose deliveries are looked at, where they are found by endpoint (SQLite).
    pub endpoint: i64,
    /// The last row of the part that was looked at.
    pub after: i64,
    /// Whether the rows of every account are looked at, or of those alone that have a retention of their own.
    pub everybody: bool,
}

/// What is removed of an account, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PurgePart {
    /// Finished deliveries.
    Deliveries,
    /// Events that no delivery is of.
    Events,
    /// Bodies of events that stay.
    Payloads,
}

impl PurgePosition {
    /// The beginning of a round.
    pub fn start(everybody: bool) -> Self {
        Self { account: 0, part: PurgePart::Deliveries, endpoint: 0, after: 0, everybody }
    }

    /// Here, if it is in this account; otherwise at the account's beginning.
    #[must_use]
    pub fn in_account(self, account: i64) -> Self {
        if self.account == account { self } else { Self { account, ..Self::start(self.everybody) } }
    }

    /// At the beginning of the account's next part; `None` after the last one.
    #[must_use]
    pub fn next_part(self) -> Option<Self> {
        let part = match self.part {
            PurgePart::Deliveries => PurgePart::Events,
            PurgePart::Events => PurgePart::Payloads,
            PurgePart::Payloads => return None,
        };
        Some(Self { part, endpoint: 0, after: 0, ..self })
    }

    /// After this row of the part.
    #[must_use]
    pub fn after(self, row: i64) -> Self {
        debug_assert!(row > self.after, "a round never goes back");
        Self { after: row, ..self }
    }
}

/// A round of retention that has begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PurgeRound {
    /// Where the removal by rows begins.
    pub position: PurgePosition,
    /// Days that should have been dropped as a whole and were not. The next round tries again.
    pub failed_days: u64,
}

/// Rows that were looked at, in order, each with whether it may go: which to remove, at most `step`, and the last row
/// that was looked at with them.
pub(super) fn cut(looked_at: impl IntoIterator<Item = (i64, bool)>, step: usize) -> (Vec<i64>, Option<i64>) {
    let (mut go, mut last): (Vec<i64>, Option<i64>) = (Vec::new(), None);
    for (id, goes) in looked_at {
        debug_assert!(last.is_none_or(|last| last < id), "rows are looked at in order");
        last = Some(id);
        if goes {
            go.push(id);
        }
        if go.len() >= step {
            break;
        }
    }
    (go, last)
}
