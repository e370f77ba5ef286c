//! Carries out replays step by step, as fast as their endpoints take the deliveries. In each round every account has
//! one step, however many replays it has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use crate::domain::id::AccountId;
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::store::{OpenReplay, ReplayWork, Step, StoreError};

/// The pause after a round that made progress.
const ROUND_PAUSE: Duration = Duration::from_millis(20);

/// The pause after a round in which every replay had to wait. It doubles up to the second value.
const WAITING_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Replays of an account that a round asks until one goes on. One that has to wait for its endpoint costs a few short
/// reads.
const MAX_ASKED: usize = 32;

/// A replay that fails is asked again in every round.
static FAILURES_LOGGED: LogLimit = LogLimit::new();

/// Runs until it is dropped. Each step is one transaction, so dropping loses nothing. `charge` counts the deliveries
/// that an account's replays have made.
pub async fn replay<S: ReplayWork, C: Future<Output = ()>>(
    store: S,
    metrics: Arc<Metrics>,
    charge: impl Fn(AccountId, u64) -> C,
) {
    let (mut wait, mut last) = (WAITING_PAUSE.0, HashMap::default());
    loop {
        let pause = match round(&store, &metrics, &charge, &mut last).await {
            Ok(Round::Idle) => {
                store.replay_wanted().await;
                wait = WAITING_PAUSE.0;
                Duration::ZERO
            }
            Ok(Round::WentOn) => {
                wait = WAITING_PAUSE.0;
                ROUND_PAUSE
            }
            Ok(Round::Waited) => {
                wait = (wait * 2).min(WAITING_PAUSE.1);
                // A new replay does not wait for the endpoints of others.
                let _ = tokio::time::timeout(wait, store.replay_wanted()).await;
                Duration::ZERO
            }
            Err(error) => {
                tracing::error!(%error, "replays were interrupted and go on later");
                WAITING_PAUSE.1
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// What one step of every account came to.
#[derive(PartialEq, Eq, Debug)]
enum Round {
    /// There is no replay.
    Idle,
    /// Some made progress.
    WentOn,
    /// All that were asked wait for their endpoints.
    Waited,
}

/// One step of every account, of the replay after the one that was asked `last`. A replay that has to wait leaves the
/// step to the next one. So does, on PostgreSQL, a replay that another node has just moved on.
async fn round<S: ReplayWork, C: Future<Output = ()>>(
    store: &S,
    metrics: &Metrics,
    charge: &impl Fn(AccountId, u64) -> C,
    last: &mut HashMap<AccountId, i64>,
) -> Result<Round, StoreError> {
    let open = store.open_replays().await?;
    let mut round = if open.is_empty() { Round::Idle } else { Round::Waited };
    let accounts = by_account(&open, last);
    last.retain(|account, _| accounts.contains_key(account));
    for (account, replays) in accounts {
        for key in replays.into_iter().take(MAX_ASKED) {
            last.insert(account, key);
            match store.replay_step(key).await {
                Ok(Step::Waiting) => continue,
                Ok(Step::Made(deliveries)) => {
                    metrics.deliveries_created_total.add(deliveries);
                    charge(account, deliveries).await;
                    round = Round::WentOn;
                }
                Ok(Step::Finished) => round = Round::WentOn,
                Err(error) => {
                    if let Some(suppressed) = FAILURES_LOGGED.admit() {
                        tracing::error!(%error, suppressed, "a replay was interrupted and goes on later");
                    }
                }
            }
            break;
        }
    }
    Ok(round)
}

/// The replays that can go on, by account. Those of an account are in the order of their rows, beginning after the one
/// that was asked last.
fn by_account(open: &[OpenReplay], last: &HashMap<AccountId, i64>) -> BTreeMap<AccountId, Vec<i64>> {
    let mut accounts: BTreeMap<AccountId, Vec<i64>> = BTreeMap::new();
    for replay in open.iter().filter(|replay| replay.ready) {
        accounts.entry(replay.account).or_default().push(replay.key);
    }
    for (account, keys) in &mut accounts {
        debug_assert!(keys.is_sorted(), "the oldest comes first");
        let next = last.get(account).map_or(0, |last| keys.partition_point(|key| key <= last));
        keys.rotate_left(next);
    }
    accounts
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use uuid::Uuid;

    use super::*;
    use crate::lock::Mutex;

    /// Open replays of which those in `waiting` have to wait, and which of them were asked for a step.
    #[derive(Clone)]
    struct Replays {
        open: Vec<OpenReplay>,
        waiting: Vec<i64>,
        asked: Arc<Mutex<Vec<i64>>>,
    }

    impl ReplayWork for Replays {
        async fn replay_wanted(&self) {}

        async fn open_replays(&self) -> Result<Vec<OpenReplay>, StoreError> {
            Ok(self.open.clone())
        }

        async fn replay_step(&self, key: i64) -> Result<Step, StoreError> {
            self.asked.lock().push(key);
            Ok(if self.waiting.contains(&key) { Step::Waiting } else { Step::Made(1) })
        }
    }

    fn open(account: u128, keys: impl IntoIterator<Item = i64>) -> Vec<OpenReplay> {
        let account = AccountId(Uuid::from_u128(account));
        keys.into_iter().map(|key| OpenReplay { key, account, ready: true }).collect()
    }

    /// So many rounds: what each came to, and which replays it asked.
    async fn rounds(open: Vec<OpenReplay>, waiting: Vec<i64>, count: usize) -> Vec<(Round, Vec<i64>)> {
        let replays = Replays { open, waiting, asked: Arc::default() };
        let (metrics, mut last, mut rounds) = (Metrics::default(), HashMap::default(), Vec::new());
        for _ in 0..count {
            let round = round(&replays, &metrics, &|_, _| ready(()), &mut last).await.expect("a round");
            rounds.push((round, std::mem::take(&mut *replays.asked.lock())));
        }
        rounds
    }

    #[tokio::test]
    async fn every_account_has_one_step_in_a_round_however_many_replays_it_has() {
        let all = [open(1, 1..=3), open(2, [7])].concat();
        let asked = rounds(all, vec![], 4).await;
        let expected = [[1, 7], [2, 7], [3, 7], [1, 7]];
        assert_eq!(asked, expected.map(|keys| (Round::WentOn, keys.to_vec())));
    }

    #[tokio::test]
    async fn a_replay_that_has_to_wait_leaves_the_step_to_the_next_of_its_account() {
        let mut all = open(1, 1..=5);
        all[3].ready = false;
        let asked = rounds(all, vec![1, 2], 3).await;
        let expected = [vec![1, 2, 3], vec![5], vec![1, 2, 3]];
        assert_eq!(asked, expected.map(|keys| (Round::WentOn, keys)));
    }

    #[tokio::test]
    async fn a_round_asks_a_bounded_number_of_an_accounts_replays_and_the_next_round_the_others() {
        let asked = rounds(open(1, 1..=40), (1..=40).collect(), 2).await;
        let expected = [(1..=32).collect(), (33..=40).chain(1..=24).collect::<Vec<_>>()];
        assert_eq!(asked, expected.map(|keys| (Round::Waited, keys)));
        assert_eq!(rounds(vec![], vec![], 1).await, [(Round::Idle, vec![])]);
    }
}
