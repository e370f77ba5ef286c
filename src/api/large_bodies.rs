//! Memory for bodies that are larger than an ordinary one (batches of events): so much over all calls, and at most half of it
//! by one account. Who gets none waits before its body is read.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::id::AccountId;
use crate::waiting::at_most;

/// Bytes over all calls. With what is made of them it comes to three times as much.
const BUDGET: usize = 32 << 20;

/// The part of one account, or of the operators' keys together: two whole batches. However many bodies it sends slowly, others
/// have as much left.
const ACCOUNT_BUDGET: usize = BUDGET / 2;

/// How long a body waits for its share.
const WAIT: Duration = Duration::from_secs(30);

/// Bytes in a permit.
const UNIT: usize = 64 << 10;

/// Entries of accounts above which those that nobody uses are removed.
const MAX_UNUSED: usize = 64;

/// The budget, and the parts of the accounts that use it.
pub struct LargeBodies {
    all: Arc<Semaphore>,
    accounts: Mutex<HashMap<Option<AccountId>, Weak<Semaphore>>>,
}

/// The memory of one body, until this is dropped.
pub struct Share {
    _of_account: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for LargeBodies {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(BUDGET / UNIT)), accounts: Mutex::default() }
    }
}

impl LargeBodies {
    /// Waits for memory for a body of so many bytes; `None` where there was none in time.
    pub async fn share(&self, account: Option<AccountId>, bytes: usize) -> Option<Share> {
        // One that is larger than the account's part has all of it.
        let permits = bytes.div_ceil(UNIT).min(ACCOUNT_BUDGET / UNIT);
        let permits = u32::try_from(permits).expect("the budget has some hundreds of permits");
        let waiting = async {
            let of_account = self.part_of(account).acquire_many_owned(permits).await.ok()?;
            let of_all = self.all.clone().acquire_many_owned(permits).await.ok()?;
            Some(Share { _of_account: of_account, _of_all: of_all })
        };
        at_most(WAIT, waiting).await.ok().flatten()
    }

    fn part_of(&self, account: Option<AccountId>) -> Arc<Semaphore> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = accounts.get(&account).and_then(Weak::upgrade) {
            return part;
        }
        if accounts.len() >= MAX_UNUSED {
            accounts.retain(|_, part| part.strong_count() > 0);
        }
        let part = Arc::new(Semaphore::new(ACCOUNT_BUDGET / UNIT));
        accounts.insert(account, Arc::downgrade(&part));
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 8 << 20;

    fn account(number: u8) -> AccountId {
        AccountId::from_random([number; 16])
    }

    #[tokio::test(start_paused = true)]
    async fn one_account_cannot_take_all_of_the_memory() {
        let bodies = LargeBodies::default();
        let first = (bodies.share(Some(account(1)), BATCH).await, bodies.share(Some(account(1)), BATCH).await);
        assert!(first.0.is_some() && first.1.is_some());
        assert!(bodies.share(Some(account(1)), 1).await.is_none(), "it has its part");
        let second = (bodies.share(Some(account(2)), BATCH).await, bodies.share(Some(account(2)), BATCH).await);
        assert!(second.0.is_some() && second.1.is_some(), "another account has as much");
        assert!(bodies.share(Some(account(3)), 1).await.is_none(), "and that is all");
        drop(first);
        assert!(bodies.share(Some(account(3)), BATCH).await.is_some());
        drop(second);
        assert_eq!(bodies.all.available_permits(), BUDGET / UNIT);
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_that_have_no_body_under_way_are_forgotten() {
        let bodies = LargeBodies::default();
        for number in 0..=u8::MAX {
            assert!(bodies.share(Some(account(number)), BATCH).await.is_some());
        }
        assert!(bodies.accounts.lock().expect("no panic").len() <= MAX_UNUSED);
    }
}
