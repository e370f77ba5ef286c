//! The question whether the database answers: one at a time, shared by all who ask meanwhile, so that whoever asks
//! often costs the database no more than whoever asks once.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::errors::StoreError;

/// How long a database that can serve may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The last answer, and when it was asked for.
#[derive(Default)]
pub(super) struct Pings(Mutex<Option<(Instant, Result<(), StoreError>)>>);

impl Pings {
    /// What `question` comes to, or the answer to another one that was asked after this call began.
    pub async fn ask(&self, question: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
        let began = Instant::now();
        let answered = async {
            let mut last = self.0.lock().await;
            if let Some((asked, answer)) = &*last
                && *asked >= began
            {
                return answer.clone();
            }
            let asked = Instant::now();
            let answer = question.await;
            *last = Some((asked, answer.clone()));
            answer
        };
        let late = |_| StoreError::Unavailable("it did not answer in time".into());
        tokio::time::timeout(PING_TIMEOUT, answered).await.map_err(late)?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_the_same_time_cost_two_questions() {
        let (pings, asked) = (Arc::<Pings>::default(), Arc::<AtomicUsize>::default());
        let mut all = tokio::task::JoinSet::new();
        for n in 0..100 {
            let (pings, asked) = (pings.clone(), asked.clone());
            all.spawn(async move {
                tokio::time::sleep(Duration::from_millis(n)).await;
                let question = async {
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    Ok(())
                };
                pings.ask(question).await
            });
        }
        assert!(all.join_all().await.iter().all(Result::is_ok));
        // The second one was asked after everybody came.
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_does_not_answer_is_not_ready() {
        let pings = Pings::default();
        let answer = pings.ask(std::future::pending()).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        assert_eq!(pings.ask(async { Ok(()) }).await, Ok(()));
    }
}
