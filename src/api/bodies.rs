//! Request bodies: memory for them, and how long they may take.
//!
//! All bodies share one budget of bytes, of which each owner (an account) has a share. Bytes are reserved in steps as
//! they arrive and are given back when the call is answered. A body that finds no memory waits unread, for a bounded
//! time.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use bytes::Bytes;
use foldhash::HashMap;
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::error::{ApiError, Code, Fault, Words};
use crate::lock::Mutex;
use crate::waiting::at_most;

/// Largest batch of events, in bytes: no body is larger.
pub const MAX_BATCH_BODY: usize = 8 << 20;

/// A body must have arrived within this time, without the time in which it waited for memory.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A body of which no byte comes for this long is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a body waits for memory, in all.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks of a body that waits for memory.
const MEMORY_RETRY: Duration = Duration::from_millis(20);

/// The first step of a reservation. The next steps double it, so that a stalled body holds at most twice what it has
/// sent.
const STEP: usize = 64 << 10;

/// Bodies up to this size are ordinary: an account's batches leave `Bounds::ordinary` of its share to them.
const ORDINARY: usize = 256 << 10;

/// How a budget is divided.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes over all owners.
    pub total: usize,
    /// Bytes of one owner. It has never more than what is left for others either.
    pub share: usize,
    /// The part of a share that only ordinary bodies use.
    pub ordinary: usize,
    /// The largest body. The oldest body of an owner that has not arrived can always become so large.
    pub largest: usize,
}

impl Bounds {
    /// Calls of accounts. With what is made of the bodies it comes to three times as much. A share has room for a batch
    /// that can always arrive, as much for other batches, and 4 MiB that only ordinary bodies use.
    pub const CALLS: Self = Self { total: 64 << 20, share: 20 << 20, ordinary: 4 << 20, largest: MAX_BATCH_BODY };

    /// Forms of clients who have not signed in, by their address. The largest holds an event's body.
    pub const FORMS: Self = Self { total: 16 << 20, share: 4 << 20, ordinary: 0, largest: 2 << 20 };
}

/// Memory for bodies. Clones share it.
pub struct BodyBudget<K>(Arc<Mutex<State<K>>>);

struct State<K> {
    bounds: Bounds,
    free: usize,
    next_rank: u64,
    owners: HashMap<K, Owner>,
}

/// What one owner has. It is forgotten with its last body.
#[derive(Default)]
struct Owner {
    bytes: usize,
    bodies: usize,
    /// What each body holds that needs more than a first step and has not arrived: the one that has grown for longest
    /// first.
    growing: BTreeMap<u64, usize>,
}

impl<K: Copy + Eq + Hash> State<K> {
    /// Whether a body may have `more`.
    fn admits(&self, owner: &Owner, body: &Reservation<K>, more: usize) -> bool {
        let Bounds { share, ordinary, largest, .. } = self.bounds;
        let bytes = owner.bytes + more;
        // A dynamic threshold (Choudhury and Hahne, 1998): whatever others do, an owner with less than these has room.
        if self.free < more || bytes > self.free - more {
            return false;
        }
        let reserve = match owner.growing.first_key_value() {
            // Bodies that wait for each other would never arrive: memory for the first of them is reserved.
            Some((first, holds)) if body.rank != Some(*first) => largest.saturating_sub(*holds),
            _ => return bytes <= share,
        };
        let is_ordinary = body.bytes + more <= ORDINARY;
        bytes + reserve <= if is_ordinary { share } else { share - ordinary }
    }
}

impl<K: Copy + Eq + Hash> BodyBudget<K> {
    /// A budget that nobody uses.
    pub fn new(bounds: Bounds) -> Self {
        let state = State { bounds, free: bounds.total, next_rank: 0, owners: HashMap::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Reads a body up to a size, and reserves memory for it until the reservation is dropped.
    pub async fn read(
        &self,
        owner: K,
        mut body: Body,
        declared: Option<usize>,
        most: usize,
    ) -> Result<(Bytes, Reservation<K>), BodyError> {
        if declared.is_some_and(|length| length > most) {
            return Err(BodyError::TooLarge(most));
        }
        let expected = declared.unwrap_or(most);
        let mut reservation = self.begin(owner);
        let mut waits = Waits { read_by: Instant::now() + BODY_TIMEOUT, memory: MEMORY_TIMEOUT };
        let (mut first, mut whole) = (Bytes::new(), Vec::new());
        while !body.is_end_stream() {
            let length = first.len() + whole.len();
            if reservation.bytes == length {
                let more = expected.saturating_sub(length).min(length.max(STEP)).max(1);
                waits.for_memory(&mut reservation, more).await?;
            }
            let Some(frame) = waits.for_frame(&mut body).await? else { break };
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > most - length {
                return Err(BodyError::TooLarge(most));
            }
            if length + data.len() > reservation.bytes {
                let more = length + data.len() - reservation.bytes;
                waits.for_memory(&mut reservation, more).await?;
            }
            // A body of one frame is not copied.
            if length == 0 {
                first = data;
                continue;
            }
            let filled = std::mem::take(&mut first);
            whole.reserve_exact(reservation.bytes - whole.len());
            whole.extend_from_slice(&filled);
            whole.extend_from_slice(&data);
        }
        let whole = if whole.is_empty() { first } else { Bytes::from(whole) };
        reservation.arrived(whole.len());
        Ok((whole, reservation))
    }

    fn begin(&self, owner: K) -> Reservation<K> {
        let mut state = self.0.lock();
        state.owners.entry(owner).or_default().bodies += 1;
        Reservation { state: self.0.clone(), owner, rank: None, bytes: 0 }
    }
}

/// How long a body may still wait.
struct Waits {
    read_by: Instant,
    memory: Duration,
}

impl Waits {
    async fn for_frame(&self, body: &mut Body) -> Result<Option<hyper::body::Frame<Bytes>>, BodyError> {
        let patience = STALL_TIMEOUT.min(self.read_by.saturating_duration_since(Instant::now()));
        match at_most(patience, body.frame()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(frame))) => Ok(Some(frame)),
            Ok(Some(Err(_))) => Err(BodyError::Broken),
            Err(_) => Err(BodyError::Stalled),
        }
    }

    async fn for_memory<K: Copy + Eq + Hash>(
        &mut self,
        reservation: &mut Reservation<K>,
        more: usize,
    ) -> Result<(), BodyError> {
        while !reservation.grow(more) {
            if self.memory.is_zero() {
                return Err(BodyError::NoMemory);
            }
            let pause = MEMORY_RETRY.min(self.memory);
            tokio::time::sleep(pause).await;
            self.memory -= pause;
            // The client waits too: this is no time in which it could have sent.
            self.read_by += pause;
        }
        Ok(())
    }
}

/// The memory of one body, until this is dropped.
pub struct Reservation<K: Copy + Eq + Hash> {
    state: Arc<Mutex<State<K>>>,
    owner: K,
    /// Its place among the owner's bodies that grow.
    rank: Option<u64>,
    bytes: usize,
}

impl<K: Copy + Eq + Hash> Reservation<K> {
    fn grow(&mut self, more: usize) -> bool {
        let shared = self.state.clone();
        let mut guard = shared.lock();
        let state = &mut *guard;
        let owner = state.owners.get(&self.owner).expect("an owner is kept while it has a body");
        let is_admitted = state.admits(owner, self, more);
        if is_admitted {
            self.bytes += more;
            state.free -= more;
        }
        let owner = state.owners.get_mut(&self.owner).expect("an owner is kept while it has a body");
        owner.bytes += if is_admitted { more } else { 0 };
        // One that waits for its second step has its rank from then on.
        if self.bytes > STEP || !is_admitted && self.bytes > 0 {
            let rank = *self.rank.get_or_insert_with(|| {
                state.next_rank += 1;
                state.next_rank
            });
            owner.growing.insert(rank, self.bytes);
        }
        is_admitted
    }

    /// The body is whole: what was reserved beyond it is given back.
    fn arrived(&mut self, bytes: usize) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let owner = state.owners.get_mut(&self.owner).expect("an owner is kept while it has a body");
        self.rank.take().map(|rank| owner.growing.remove(&rank));
        let unused = self.bytes.checked_sub(bytes).expect("a body is read into memory that was reserved for it");
        owner.bytes -= unused;
        state.free += unused;
        self.bytes -= unused;
    }
}

impl<K: Copy + Eq + Hash> Drop for Reservation<K> {
    fn drop(&mut self) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.free += self.bytes;
        let Some(owner) = state.owners.get_mut(&self.owner) else { return };
        self.rank.take().map(|rank| owner.growing.remove(&rank));
        owner.bytes -= self.bytes;
        owner.bodies -= 1;
        if owner.bodies == 0 {
            state.owners.remove(&self.owner);
        }
    }
}

/// Why there is no body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyError {
    /// It is larger than so many bytes.
    TooLarge(usize),
    /// The connection ended before it.
    Broken,
    /// It came too slowly.
    Stalled,
    /// There was no memory for it in time.
    NoMemory,
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let broken = |english: &str, spanish: &str| {
            Self::from(Fault::new(Code::InvalidJson).because(&Words::new(english, spanish)))
        };
        match error {
            BodyError::TooLarge(most) => Fault::new(Code::BodyTooLarge).naming(most).into(),
            BodyError::Broken => broken("it ended early", "terminó antes de tiempo"),
            BodyError::Stalled => broken("it did not arrive in time", "no llegó a tiempo"),
            // What is left of the body is not read, so the connection cannot be used again.
            BodyError::NoMemory => Self::busy("bodies that have not arrived use this caller's share of the memory")
                .with_header("connection", "close"),
        }
    }
}

/// What a request says of the length of its body.
pub fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http_body_util::channel::{Channel, Sender};

    use super::*;

    type Budget = BodyBudget<u8>;

    fn open_body() -> (Sender<Bytes>, Body) {
        let (sender, body) = Channel::new(1);
        (sender, Body::new(body))
    }

    fn chunk() -> Bytes {
        Bytes::from_static(&[b'x'; 16 << 10])
    }

    /// Sends so many bytes of a batch, as far as they are taken, and then stalls.
    fn stalled(budget: &Arc<Budget>, owner: u8, bytes: usize) -> tokio::task::JoinHandle<Option<BodyError>> {
        let budget = budget.clone();
        tokio::spawn(async move {
            let (mut sender, body) = open_body();
            let sending = tokio::spawn(async move {
                for _ in 0..bytes / chunk().len() {
                    if sender.send_data(chunk()).await.is_err() {
                        return;
                    }
                }
                std::future::pending::<()>().await;
            });
            let read = budget.read(owner, body, Some(MAX_BATCH_BODY), MAX_BATCH_BODY).await;
            sending.abort();
            read.err()
        })
    }

    async fn whole(budget: &Budget, owner: u8, bytes: usize) -> Result<(Bytes, Reservation<u8>), BodyError> {
        budget.read(owner, chunks(bytes / chunk().len()), Some(bytes), MAX_BATCH_BODY).await
    }

    fn chunks(count: usize) -> Body {
        let (mut sender, body) = open_body();
        tokio::spawn(async move {
            for _ in 0..count {
                if sender.send_data(chunk()).await.is_err() {
                    return;
                }
            }
        });
        body
    }

    fn free(budget: &Budget) -> usize {
        budget.0.lock().free
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_bodies_of_any_number_of_owners_leave_memory_for_another_one() {
        let budget = Arc::new(Budget::new(Bounds::CALLS));
        let mut stalling = Vec::new();
        for owner in 0..6 {
            for _ in 0..20 {
                stalling.push(stalled(&budget, owner, MAX_BATCH_BODY - 1));
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(free(&budget) < 16 << 20, "{}", free(&budget));
        let began = Instant::now();
        for _ in 0..3 {
            assert!(whole(&budget, 100, 4 << 20).await.is_ok());
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        for stalled in stalling {
            assert!(matches!(stalled.await, Ok(Some(BodyError::Stalled | BodyError::NoMemory))));
        }
        assert_eq!(free(&budget), Bounds::CALLS.total);
        assert!(budget.0.lock().owners.is_empty(), "owners without a body are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_batches_leave_memory_for_the_ordinary_bodies_of_their_own_account() {
        let budget = Arc::new(Budget::new(Bounds::CALLS));
        let stalling: Vec<_> = (0..20).map(|_| stalled(&budget, 1, MAX_BATCH_BODY - 1)).collect();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let began = Instant::now();
        for _ in 0..100 {
            assert!(whole(&budget, 1, 128 << 10).await.is_ok());
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        stalling.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test(start_paused = true)]
    async fn batches_that_arrive_at_the_same_time_do_not_wait_for_each_other_for_ever() {
        let budget = Arc::new(Budget::new(Bounds::CALLS));
        let mut batches = tokio::task::JoinSet::new();
        for owner in [1, 2] {
            for _ in 0..40 {
                let budget = budget.clone();
                batches.spawn(async move { whole(&budget, owner, MAX_BATCH_BODY).await.map(|_| ()) });
            }
        }
        let read = batches.join_all().await;
        let whole = read.iter().filter(|read| read.is_ok()).count();
        assert_eq!(whole, read.len(), "{read:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_given_up_after_ten_seconds_without_a_byte_and_after_thirty_in_all() {
        let budget = Arc::new(Budget::new(Bounds::CALLS));
        let began = Instant::now();
        assert_eq!(stalled(&budget, 1, 1 << 20).await.expect("no panic"), Some(BodyError::Stalled));
        assert_eq!(began.elapsed().as_secs(), STALL_TIMEOUT.as_secs());
        let (mut sender, body) = open_body();
        let dripping = tokio::spawn(async move {
            while sender.send_data(Bytes::from_static(b"x")).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let began = Instant::now();
        assert_eq!(budget.read(1, body, None, 1_000).await.err(), Some(BodyError::Stalled));
        assert_eq!(began.elapsed().as_secs(), BODY_TIMEOUT.as_secs());
        dripping.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_to_the_byte_and_one_that_is_too_large_is_not() {
        let budget = Budget::new(Bounds::CALLS);
        for bytes in [0, 16 << 10, 64 << 10, 128 << 10, 1 << 20, MAX_BATCH_BODY] {
            let (body, reservation) = whole(&budget, 1, bytes).await.expect("it is read");
            assert!(body.len() == bytes && body.iter().all(|byte| *byte == b'x'));
            assert_eq!(reservation.bytes, bytes);
        }
        let read = budget.read(1, chunks(3), None, 40_000).await;
        assert_eq!(read.err(), Some(BodyError::TooLarge(40_000)));
        assert_eq!(free(&budget), Bounds::CALLS.total);
    }
}
