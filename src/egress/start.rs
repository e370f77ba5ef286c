//! Counting an attempt towards its endpoint's rate limit, right before its request.

use crate::domain::id::EndpointKey;
use crate::domain::rate_limit::{LONGEST_VALIDITY, Rate};
use crate::store::{Dispatch, StartPermit};

/// How often an attempt is counted before it waits, should each count take longer than it is valid.
pub const COUNT_TRIES: u32 = 3;

/// Each count after the first is valid for so many times as long as the one before: a database may be slow.
const PATIENCE: u32 = 4;

/// Counts an attempt that is about to send its request, in place of what was counted for it before: that has expired,
/// is of another limit, or allowed an earlier request. `tries` is how often this was done before. Returns whether the
/// attempt is counted; otherwise its delivery waits.
pub async fn count_start<S: Dispatch>(
    store: &S,
    endpoint: EndpointKey,
    rate: Rate,
    start: &StartPermit,
    tries: u32,
) -> bool {
    let validity = (rate.validity() * PATIENCE.pow(tries)).min(LONGEST_VALIDITY);
    // Whether the store has replaced what was counted shows in its answer only. Until then, and where there is none, it
    // must neither allow a request nor be given back.
    let earlier = start.counted();
    start.replace(None);
    let is_counted = match store.count_start(endpoint, rate, earlier, validity).await {
        Ok(counted) => {
            start.replace(counted);
            counted.is_some()
        }
        Err(error) => {
            tracing::warn!(%error, "an attempt could not be counted towards a rate limit: its delivery waits");
            false
        }
    };
    if !is_counted {
        start.note_refusal();
    }
    is_counted
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::domain::rate_limit::AttemptLog;
    use crate::domain::time::Timestamp;
    use crate::lock::Mutex;
    use crate::store::{Claimed, CountedStart, Health, Isolation, Settled, Settlement, StoreError, Unattempted};

    fn now() -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }

    /// A store that counts, and whose answers are lost.
    #[derive(Clone, Default)]
    struct LostAnswers(Arc<Mutex<AttemptLog>>);

    impl Health for LostAnswers {
        async fn ping(&self) -> Result<(), StoreError> {
            Ok(())
        }

        async fn failed(&self) {
            std::future::pending::<()>().await;
        }
    }

    impl Dispatch for LostAnswers {
        async fn claim(&self, _: EndpointKey, _: usize) -> Result<Claimed, StoreError> {
            Ok(Claimed::default())
        }

        async fn count_start(
            &self,
            _: EndpointKey,
            rate: Rate,
            earlier: Option<CountedStart>,
            validity: Duration,
        ) -> Result<Option<CountedStart>, StoreError> {
            self.0.lock().count_again(rate, earlier.map(|earlier| earlier.group), now(), validity);
            Err(StoreError::Unavailable("the answer is lost".into()))
        }

        async fn due_endpoints(&self) -> Result<Vec<(EndpointKey, Timestamp)>, StoreError> {
            Ok(Vec::new())
        }

        fn settle_window(&self) -> Duration {
            Duration::ZERO
        }

        async fn settle(&self, _: Arc<Vec<Settlement>>, _: Isolation) -> Result<Vec<Settled>, StoreError> {
            Ok(Vec::new())
        }

        async fn release(&self, _: Vec<Unattempted>) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_answer_is_lost_what_was_counted_before_allows_nothing_and_is_not_given_back() {
        let store = LostAnswers::default();
        let rate = |attempts| Rate { attempts, window: Duration::from_secs(60) };
        let group = store.0.lock().count(rate(2), 2, now(), rate(2).validity());
        let counted = CountedStart::new(group, rate(2), Instant::now(), rate(2).validity());
        let (permit, other) = (StartPermit::of(counted), StartPermit::of(counted));
        // The limit was lowered: the store gives up the place of the attempt, and has none for it.
        assert!(!count_start(&store, EndpointKey(1), rate(1), &permit, 0).await);
        assert_eq!((permit.counted(), permit.is_valid(rate(2))), (None, false));
        assert!(other.is_valid(rate(2)));
        assert_eq!(store.0.lock().groups(), [(group, 1)], "the other attempt, which may begin");
    }
}
