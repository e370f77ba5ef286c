//! Time and randomness as parameters: those of the system, and manual ones for tests.
//!
//! Nothing else in the program reads the wall clock (`clippy.toml` refuses it) or draws a random number.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ring::rand::SecureRandom as _;

use crate::domain::time::{Timestamp, millis};
use crate::lock::Mutex;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, in UTC.
    fn now(&self) -> Timestamp;

    /// Takes the time of the database, which all nodes share. Clocks that cannot be corrected ignore it.
    fn adjust(&self, _ahead_ms: i64) {}
}

/// Draws random bytes.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// A random number from -1 to 1, for jitter.
    fn jitter(&self) -> f64 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX) * 2.0 - 1.0
    }
}

impl dyn Random {
    /// An array of random bytes.
    pub fn array<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        // A clock that shows a time before 1970 was not set: no id can be made of one.
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(millis(since))
    }
}

/// The machine's clock, corrected to the time of the database that this process shares with others.
#[derive(Debug, Default)]
pub struct SharedClock {
    ahead_ms: AtomicI64,
}

impl Clock for SharedClock {
    fn now(&self) -> Timestamp {
        // A sum of corrections may be any number; the time is within the years 0 to 9999.
        Timestamp::from_millis(SystemClock.now().as_millis().saturating_add(self.ahead_ms.load(Ordering::Relaxed)))
    }

    fn adjust(&self, ahead_ms: i64) {
        self.ahead_ms.fetch_add(ahead_ms, Ordering::Relaxed);
    }
}

/// The operating system's random numbers.
#[derive(Debug)]
pub struct SystemRandom(ring::rand::SystemRandom);

impl Default for SystemRandom {
    fn default() -> Self {
        Self(ring::rand::SystemRandom::new())
    }
}

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.fill(bytes).expect("the operating system gives random numbers");
    }
}

/// A clock that moves only when it is told to.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// Stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    /// Stands at another time, earlier or later.
    pub fn set(&self, to: Timestamp) {
        *self.0.lock() = to;
    }

    /// Moves later.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        *now = now.plus(by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

/// Repeatable numbers from a seed (`SplitMix64`). Never for secrets.
#[derive(Debug)]
pub struct SeededRandom(Mutex<u64>);

impl SeededRandom {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
