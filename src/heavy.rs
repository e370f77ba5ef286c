//! Work that may take long, off the threads that serve requests: reading large bodies, and checks against schemas and
//! filters that may be slow. A few run at once, with a share for each account.

use std::time::Duration;

use crate::domain::id::AccountId;
use crate::permits::Permits;
use crate::waiting::at_most;

/// Bodies above this size are read and hashed here. As many bytes take about a millisecond, and no event is larger
/// unless `limits.max_body` is raised.
pub const LARGE_BODY: usize = 256 << 10;

/// Pieces of work at once. One account has half of them; the rest of the processor is for requests and deliveries.
const AT_ONCE: usize = 4;

/// How long a call waits for its account's share: for some batches of 8 MiB that came before it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why work was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeavyError {
    /// The account's share was taken for too long.
    #[error("too many large bodies or slow checks of this account")]
    Busy,
    /// The work panicked.
    #[error("heavy work was interrupted")]
    Interrupted,
}

/// The threads for heavy work. Clones share them.
#[derive(Clone)]
pub struct HeavyWork(Permits<Option<AccountId>>);

impl Default for HeavyWork {
    fn default() -> Self {
        Self(Permits::new(AT_ONCE))
    }
}

impl HeavyWork {
    /// Runs `work` on a blocking thread, in the share of this account. Work that has begun goes on to its end, and
    /// keeps its permit until then, although the client has left.
    pub async fn run<T: Send + 'static>(
        &self,
        account: Option<AccountId>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HeavyError> {
        let permit = at_most(PATIENCE, self.0.take(account)).await.map_err(|_| HeavyError::Busy)?;
        let worked = tokio::task::spawn_blocking(move || {
            let worked = work();
            drop(permit);
            worked
        });
        worked.await.map_err(|_| HeavyError::Interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_account_that_has_its_share_waits_and_is_refused_and_another_one_has_a_thread() {
        let heavy = HeavyWork::default();
        let [busy, other] = [1, 2].map(|n| Some(AccountId::from_random([n; 16])));
        let taken: Vec<_> = std::iter::from_fn(|| heavy.0.try_take(busy)).collect();
        assert_eq!(taken.len(), AT_ONCE / 2);
        assert_eq!(heavy.run(busy, || ()).await, Err(HeavyError::Busy), "its share is taken");
        assert_eq!(heavy.run(other, || 7).await, Ok(7));
        drop(taken);
        assert_eq!(heavy.run(busy, || 8).await, Ok(8));
    }
}
