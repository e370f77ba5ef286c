//! Who may have how much of the memory for deliveries: shares of accounts and of endpoints. It decides by amounts.
//!
//! An account gets more while it has less than is free: one account has half of the memory, the next one a quarter, and
//! so on. Each endpoint leaves a part of what its account may add to others. For endpoints that are slow or new a part
//! of the memory counts as taken, so that those that answer find some. A few deliveries of each endpoint are in memory
//! whatever endpoints of others do.

use foldhash::HashMap;

use crate::domain::id::AccountKey;

/// Deliveries that may be in memory at once, over all accounts. One account alone has half of it.
pub const MAX_IN_MEMORY: usize = 32_768;

/// Bytes of bodies that may be in memory at once. A body is counted once, however many deliveries carry it.
pub const MAX_BYTES_IN_MEMORY: usize = 64 << 20;

/// Deliveries of one endpoint that may be in memory at once.
pub const MAX_IN_MEMORY_PER_ENDPOINT: usize = 1_024;

/// The same for each request in flight that the owner of the endpoint allows, where that is less. The engine claims
/// more when it has fewer than 64 that were claimed, so that this is enough for an endpoint that answers at once.
pub(super) const MAX_IN_MEMORY_PER_REQUEST: usize = 128;

/// An endpoint has at most what its account may still add, divided by this: whatever some endpoints have, others find
/// memory.
pub(super) const FREE_PARTS: usize = 8;

/// The last part of what one account may have alone (one of [`FREE_PARTS`]) is for endpoints that have fewer deliveries
/// in memory than this.
pub(super) const MIN_PER_ENDPOINT: usize = 2;

/// Deliveries of one endpoint that just-accepted events may take; what waits in the store has the rest, so that it is
/// never starved by what is new.
pub const MAX_NEW_PER_ENDPOINT: usize = new_part(MAX_IN_MEMORY_PER_ENDPOINT);

pub(super) const fn new_part(most: usize) -> usize {
    most / 4 * 3
}

/// Deliveries that an endpoint may have in memory, whose owner allows so many requests in flight.
pub(super) fn max_of_endpoint(max_in_flight: Option<usize>) -> usize {
    let most = max_in_flight.map(|own| own.saturating_mul(MAX_IN_MEMORY_PER_REQUEST));
    most.map_or(MAX_IN_MEMORY_PER_ENDPOINT, |most| most.min(MAX_IN_MEMORY_PER_ENDPOINT))
}

/// What an endpoint's last answers tell of it. The memory that it may use depends on it, so that receivers that
/// are slow, or new, do not take what those need that answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Responsiveness {
    /// Nothing is known: seven eighths of the memory.
    #[default]
    Unknown,
    /// Its last answer was a prompt success: all of the memory.
    Prompt,
    /// Its last attempt failed or took long, or one in flight does: three quarters of the memory.
    Slow,
}

impl Responsiveness {
    /// The part of a bound that such an endpoint may use.
    fn part_of(self, bound: usize) -> usize {
        match self {
            Self::Prompt => bound,
            Self::Unknown => bound / 8 * 7,
            Self::Slow => bound / 4 * 3,
        }
    }

    /// The part of a bound in which such an endpoint has [`MIN_PER_ENDPOINT`]: nearly all of it, so that what others
    /// have leaves some to an endpoint that has failed once, or is new.
    fn part_of_min(self, bound: usize) -> usize {
        match self {
            Self::Prompt => bound,
            Self::Unknown | Self::Slow => bound / 16 * 15,
        }
    }
}

/// Deliveries, and bytes of their bodies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amount {
    pub deliveries: usize,
    pub bytes: usize,
}

impl Amount {
    const BOUND: Self = Self { deliveries: MAX_IN_MEMORY, bytes: MAX_BYTES_IN_MEMORY };

    fn map(self, change: impl Fn(usize) -> usize) -> Self {
        Self { deliveries: change(self.deliveries), bytes: change(self.bytes) }
    }

    /// What is left without this.
    fn less(self, kept: Self) -> Self {
        Self {
            deliveries: self.deliveries.saturating_sub(kept.deliveries),
            bytes: self.bytes.saturating_sub(kept.bytes),
        }
    }

    fn add(&mut self, more: Self) {
        self.deliveries += more.deliveries;
        self.bytes += more.bytes;
    }

    fn remove(&mut self, less: Self) {
        debug_assert!(
            self.deliveries >= less.deliveries && self.bytes >= less.bytes,
            "no more is given back than was taken"
        );
        self.deliveries -= less.deliveries;
        self.bytes -= less.bytes;
    }

    /// What may be added to it: as much as is then still free in this part of the bound. One account can have half of
    /// the part, the next one a quarter, and so on.
    fn room(self, in_all: Self, part: impl Fn(usize) -> usize) -> Self {
        let room = |bound: usize, in_all: usize, own: usize| part(bound).saturating_sub(in_all + own).div_ceil(2);
        Self {
            deliveries: room(MAX_IN_MEMORY, in_all.deliveries, self.deliveries),
            bytes: room(MAX_BYTES_IN_MEMORY, in_all.bytes, self.bytes),
        }
    }
}

/// What is in memory: in all, and of each account that has something there.
#[derive(Debug, Default)]
pub(super) struct InMemory {
    pub all: Amount,
    pub accounts: HashMap<AccountKey, Amount>,
}

impl InMemory {
    /// Whether there is memory for one more delivery of an endpoint that has this amount. Its body adds `more_bytes`:
    /// none where another delivery has brought it.
    pub fn has_room_for(
        &self,
        (account, responsiveness): (AccountKey, Responsiveness),
        endpoint: Amount,
        bytes: usize,
        more_bytes: usize,
    ) -> bool {
        let account = self.accounts.get(&account).copied().unwrap_or_default();
        let room = account.room(self.all, |bound| responsiveness.part_of(bound));
        let kept = Amount::BOUND.map(|bound| bound / 2 / FREE_PARTS);
        let share = room.less(kept).map(|left| left / FREE_PARTS);
        let is_in_share = endpoint.deliveries < share.deliveries && endpoint.bytes + bytes <= share.bytes;
        let room = account.room(self.all, |bound| responsiveness.part_of_min(bound));
        let is_one_of_few = endpoint.deliveries < MIN_PER_ENDPOINT && room.deliveries > 0 && more_bytes <= room.bytes;
        is_in_share || is_one_of_few
    }

    pub fn add(&mut self, account: AccountKey, more: Amount) {
        self.all.add(more);
        self.accounts.entry(account).or_default().add(more);
    }

    pub fn remove(&mut self, account: AccountKey, less: Amount) {
        self.all.remove(less);
        let of_account = self.accounts.entry(account).or_default();
        of_account.remove(less);
        // A body can stay for a moment after its last delivery.
        if of_account.deliveries == 0 && of_account.bytes == 0 {
            self.accounts.remove(&account);
        }
    }
}
