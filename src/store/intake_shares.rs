//! Events that are being written: each account has a share of them, so that an event of another account waits for a
//! bounded number of events, however many calls one account makes at once.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::errors::StoreError;
use crate::domain::event::NewEvent;
use crate::domain::id::AccountId;
use crate::lock::Mutex;
use crate::waiting::at_most;

/// Events of one account that wait for the writer or are being written: as many as the largest batch has.
const MAX_EVENTS_PER_ACCOUNT: u32 = 1_000;

/// How long a call waits for its account's share. On PostgreSQL a call ends after 5 s, of which some are left for the
/// write.
const PATIENCE: Duration = Duration::from_secs(3);

/// Accounts that are remembered although nothing of them is being written.
const MAX_IDLE_ACCOUNTS: usize = 1_024;

/// The shares of all accounts.
#[derive(Default)]
pub(super) struct IntakeShares(Mutex<HashMap<AccountId, Arc<Semaphore>>>);

impl IntakeShares {
    /// A part of the account's share for these events, which are of one account. Calls of an account are served in the
    /// order in which they came.
    pub async fn take(&self, events: &[NewEvent]) -> Result<Option<OwnedSemaphorePermit>, StoreError> {
        let Some(first) = events.first() else { return Ok(None) };
        // A batch of more takes the whole share.
        let size = u32::try_from(events.len()).map_or(MAX_EVENTS_PER_ACCOUNT, |size| size.min(MAX_EVENTS_PER_ACCOUNT));
        let taken = at_most(PATIENCE, self.of(first.account).acquire_many_owned(size)).await;
        match taken {
            Ok(Ok(part)) => Ok(Some(part)),
            Ok(Err(_)) | Err(_) => Err(StoreError::Busy),
        }
    }

    fn of(&self, account: AccountId) -> Arc<Semaphore> {
        let mut accounts = self.0.lock();
        if accounts.len() > MAX_IDLE_ACCOUNTS && !accounts.contains_key(&account) {
            accounts.retain(|_, share| {
                share.available_permits() < MAX_EVENTS_PER_ACCOUNT as usize || Arc::strong_count(share) > 1
            });
        }
        let share = accounts.entry(account);
        share.or_insert_with(|| Arc::new(Semaphore::new(MAX_EVENTS_PER_ACCOUNT as usize))).clone()
    }
}
