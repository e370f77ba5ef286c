//! The queue of writes that wait for the writer's thread. A sender wakes the writer only when as many writes wait as
//! the writer asked for.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::group_commit::GroupCommit;
use crate::lock::{Condvar, Mutex};

/// Writes in one transaction.
const MAX_BATCH: usize = 512;

struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    waiting: Vec<T>,
    /// When the last one came.
    last: Instant,
    /// How many have to wait for the writer to be woken; more than there can be while it runs a transaction.
    wake_at: usize,
    /// Whether one of the two sides has gone.
    closed: bool,
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock()
    }

    /// Sleeps for `time` at most, or until `writes` wait, or the queue is closed.
    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State<T>>,
        writes: usize,
        time: Duration,
    ) -> MutexGuard<'a, State<T>> {
        state.wake_at = writes;
        let too_few = |state: &mut State<T>| state.waiting.len() < writes && !state.closed;
        self.ready.wait_timeout_while(state, time, too_few)
    }
}

/// The way in. The queue is closed when it is dropped. It has no bound of its own: whoever sends sees to that.
pub(super) struct Sender<T>(Arc<Queue<T>>);

/// The writer's side. What still waits when it is dropped is dropped too.
pub(super) struct Receiver<T>(Arc<Queue<T>>);

/// What the writer is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    Run(Vec<T>),
    /// Nothing has come in time.
    Idle,
    /// Nothing waits, and nothing can come any more.
    Closed,
}

pub(super) fn queue<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { waiting: Vec::new(), last: Instant::now(), wake_at: usize::MAX, closed: false };
    let queue = Arc::new(Queue { state: Mutex::new(state), ready: Condvar::new() });
    (Sender(queue.clone()), Receiver(queue))
}

impl<T> Sender<T> {
    /// Gives it back where nobody is left to take it.
    pub fn send(&self, write: T) -> Result<(), T> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(write);
        }
        state.waiting.push(write);
        state.last = Instant::now();
        let wake = state.waiting.len() == state.wake_at;
        drop(state);
        if wake {
            self.0.ready.notify_one();
        }
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.ready.notify_one();
    }
}

impl<T> Receiver<T> {
    /// Takes what waits, in the order in which it came, as soon as `commits` waits for no more. Gives up after `idle`
    /// with nothing.
    pub fn next(&self, commits: &mut GroupCommit, idle: Duration) -> Next<T> {
        let mut state = self.0.sleep(self.0.lock(), 1, idle);
        if state.waiting.is_empty() {
            return if state.closed { Next::Closed } else { Next::Idle };
        }
        let mut now = Instant::now();
        if let Some(wait) = commits.plan(state.waiting.len(), now) {
            while state.waiting.len() < wait.writes && now < wait.end(state.last) && !state.closed {
                let time = wait.end(state.last).saturating_duration_since(now);
                state = self.0.sleep(state, wait.writes, time);
                now = Instant::now();
            }
        }
        state.wake_at = usize::MAX;
        let many = state.waiting.len().min(MAX_BATCH);
        let batch: Vec<_> = state.waiting.drain(..many).collect();
        drop(state);
        commits.begins(batch.len(), Instant::now());
        Next::Run(batch)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.waiting);
        drop(state);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn fresh() -> GroupCommit {
        GroupCommit::new(Instant::now())
    }

    fn after_many() -> GroupCommit {
        let mut commits = fresh();
        commits.begins(8, Instant::now());
        commits
    }

    impl<T> Sender<T> {
        /// Waits until the writer sleeps for `writes`: it sets that under the lock, which only its sleep releases.
        fn sleeps_for(&self, writes: usize) {
            while self.0.lock().wake_at != writes {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn what_waits_is_taken_in_order_and_in_bounded_batches() {
        let (sender, receiver) = queue();
        (0..MAX_BATCH + 2).for_each(|n| sender.send(n).expect("somebody takes it"));
        let mut commits = fresh();
        assert_eq!(receiver.next(&mut commits, IDLE), Next::Run((0..MAX_BATCH).collect()));
        assert_eq!(receiver.next(&mut commits, IDLE), Next::Run(vec![MAX_BATCH, MAX_BATCH + 1]));
        assert_eq!(receiver.next(&mut commits, Duration::ZERO), Next::Idle);
    }

    #[test]
    fn one_write_wakes_a_writer_that_has_nothing_to_do() {
        let (sender, receiver) = queue();
        let begin = Instant::now();
        let writer = std::thread::spawn(move || receiver.next(&mut fresh(), IDLE));
        sender.sleeps_for(1);
        sender.send(1).expect("somebody takes it");
        assert_eq!(writer.join().expect("the writer ends"), Next::Run(vec![1]));
        assert!(begin.elapsed() < IDLE);
    }

    #[test]
    fn a_writer_that_sleeps_until_more_have_come_is_woken_by_the_last_of_them() {
        let (sender, receiver) = queue();
        let begin = Instant::now();
        let writer = std::thread::spawn(move || {
            let state = receiver.0.sleep(receiver.0.lock(), 3, IDLE);
            state.waiting.len()
        });
        sender.sleeps_for(3);
        (0..3).for_each(|n| sender.send(n).expect("somebody takes it"));
        assert_eq!(writer.join().expect("the writer ends"), 3);
        assert!(begin.elapsed() < IDLE);
    }

    #[test]
    fn a_writer_that_waits_in_vain_goes_on_with_what_is_there() {
        let (sender, receiver) = queue();
        sender.send(1).expect("somebody takes it");
        assert_eq!(receiver.next(&mut after_many(), IDLE), Next::Run(vec![1]));
    }

    #[test]
    fn a_closed_queue_is_run_to_its_end() {
        let (sender, receiver) = queue();
        sender.send(1).expect("somebody takes it");
        drop(sender);
        assert_eq!(receiver.next(&mut after_many(), IDLE), Next::Run(vec![1]));
        assert_eq!(receiver.next(&mut after_many(), IDLE), Next::Closed);
    }

    #[test]
    fn a_sleeping_writer_hears_that_the_queue_is_closed() {
        let (sender, receiver) = queue::<u8>();
        let begin = Instant::now();
        let writer = std::thread::spawn(move || receiver.next(&mut fresh(), IDLE));
        sender.sleeps_for(1);
        drop(sender);
        assert_eq!(writer.join().expect("the writer ends"), Next::Closed);
        assert!(begin.elapsed() < IDLE);
    }

    #[test]
    fn what_nobody_takes_any_more_is_given_back_and_what_waited_is_dropped() {
        let (sender, receiver) = queue();
        let waiting = Arc::new(());
        sender.send(waiting.clone()).expect("somebody takes it");
        drop(receiver);
        assert_eq!(Arc::strong_count(&waiting), 1);
        assert!(sender.send(waiting).is_err());
    }
}
