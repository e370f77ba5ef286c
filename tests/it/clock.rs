//! A wall clock that was wrong, and was set right: on SQLite, where the time of the machine is the only one there is.

use std::time::Duration;

use aldaba::clock::Clock as _;
use aldaba::domain::filter::DeliveryFilter;
use aldaba::domain::id::{DeliveryId, EndpointId, EventId};
use aldaba::domain::replay::{NewReplay, Selection};
use aldaba::domain::time::Timestamp;
use aldaba::store::{Dispatch, Housekeeping, Intake, Isolation, Log, ReplayWork, Replays, Search, Settlement, Step};

use crate::database;
use crate::fixture::{ALL, Fixture, minute, purge, settlement};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Publishes an event, has it delivered, and says what its delivery is and when the event was accepted.
async fn deliver(f: &mut Fixture, n: u32) -> (DeliveryId, Timestamp) {
    let accepted = f.store.accept(vec![f.event(n)], None).await.expect("accepted").remove(0);
    let leased = f.jobs(1).await.remove(0);
    settle(f, settlement(&leased, 200)).await;
    let (event, deliveries) = f.store.event(f.account, accepted.id).await.expect("an event");
    assert_eq!((event.created_at, deliveries.len()), (accepted.created_at, 1));
    (leased.job.id, event.created_at)
}

async fn settle(f: &Fixture, mut settlement: Settlement) {
    settlement.outcome.started_at = f.clock.now();
    f.store.settle(vec![settlement].into(), Isolation::Shared).await.expect("settled");
}

/// The account's deliveries, the newest first, and when each was made.
async fn listed(f: &Fixture) -> Vec<(DeliveryId, Timestamp)> {
    let all = f.store.account_deliveries(f.account, ALL).await.expect("listed").items;
    all.iter().map(|delivery| (delivery.id, delivery.created_at)).collect()
}

async fn found(f: &Fixture, from: Timestamp, to: Timestamp) -> Vec<DeliveryId> {
    let filter = DeliveryFilter { from: Some(from), to: Some(to), ..DeliveryFilter::default() };
    let found = f.store.find_deliveries(f.account, filter.clone(), ALL).await.expect("found").items;
    let found: Vec<_> = found.iter().map(|delivery| delivery.id).collect();
    let walked = f.store.walk_deliveries(f.account, filter, None).await.expect("walked").items;
    assert_eq!(walked.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), found);
    found
}

/// The events that a replay since `from` sends again.
async fn replayed(f: &mut Fixture, endpoint: EndpointId, from: Timestamp) -> Vec<EventId> {
    let asked = NewReplay { from, to: f.clock.now(), selection: Selection::All };
    f.store.create_replay(f.account, endpoint, asked, None).await.expect("asked for");
    let open = f.store.open_replays().await.expect("listed").remove(0);
    while !matches!(f.store.replay_step(open.key).await.expect("a step"), Step::Waiting | Step::Finished) {}
    let mut events = Vec::new();
    for (id, _) in listed(f).await {
        let detail = f.store.delivery(f.account, id).await.expect("a delivery");
        if detail.delivery.status.is_open() {
            events.push(detail.event);
        }
    }
    events
}

async fn event_of(f: &Fixture, delivery: DeliveryId) -> EventId {
    f.store.delivery(f.account, delivery).await.expect("a delivery").event
}

/// Delivers an event, one by a clock that is ten years ahead for half a second, and one after that.
async fn scene(f: &mut Fixture, restart: bool) -> [(DeliveryId, Timestamp); 3] {
    let start = f.clock.now();
    let before = deliver(f, 1).await;
    f.clock.advance(2 * HOUR + 10 * YEAR);
    let ahead = deliver(f, 2).await;
    assert_eq!(ahead.1, start.plus(2 * HOUR + 10 * YEAR));
    f.clock.set(start.plus(2 * HOUR + Duration::from_millis(500)));
    if restart {
        take(f, Fixture::restarted).await;
    }
    let after = deliver(f, 3).await;
    [before, ahead, after]
}

async fn take<F: Future<Output = Fixture>>(f: &mut Fixture, next: impl FnOnce(Fixture) -> F) {
    let other = Fixture::new().await;
    *f = next(std::mem::replace(f, other)).await;
}

#[tokio::test]
async fn after_a_clock_was_ahead_new_rows_have_the_real_time_and_ids_only_go_on() {
    if database::is_postgres() {
        return;
    }
    for restart in [false, true] {
        let mut f = Fixture::new().await;
        f.endpoint().await;
        let [before, ahead, after] = scene(&mut f, restart).await;
        let now = f.clock.now();
        assert_eq!(after.1, now);
        assert!(before.0 < ahead.0 && ahead.0 < after.0);
        let about_now = (now, now.minus(SECOND));
        let list = listed(&f).await;
        assert_eq!(
            list.iter().map(|row| row.0).collect::<Vec<_>>(),
            [after.0, ahead.0, before.0],
            "in the order of ids"
        );
        assert_eq!(list[2].1, before.1, "what was made before keeps its time");
        assert!(list[1].1 <= about_now.0 && list[1].1 >= about_now.1, "{} is about {now}", list[1].1);
        assert_eq!(list[0].1, now);
        f.clock.advance(YEAR);
        let year_later = deliver(&mut f, 4).await;
        assert_eq!(year_later.1, f.clock.now());
        f = f.restarted().await;
        assert_eq!(listed(&f).await[1..], list, "times stay as they are");
    }
}

#[tokio::test]
async fn filters_and_replays_find_what_was_made_after_a_clock_was_ahead() {
    if database::is_postgres() {
        return;
    }
    let mut f = Fixture::new().await;
    let (endpoint, _) = f.endpoint().await;
    let [before, ahead, after] = scene(&mut f, false).await;
    let now = f.clock.now();
    assert_eq!(found(&f, now.minus(HOUR), now).await, [after.0, ahead.0]);
    assert_eq!(found(&f, now.minus(3 * HOUR), now.minus(HOUR)).await, [before.0]);
    assert!(found(&f, now.plus(HOUR), now.plus(20 * YEAR)).await.is_empty());
    let expected = [event_of(&f, after.0).await, event_of(&f, ahead.0).await];
    f.clock.advance(HOUR / 2);
    let mut events = replayed(&mut f, endpoint, now.minus(HOUR)).await;
    events.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(events, expected);
}

#[tokio::test]
async fn retention_goes_by_the_real_time_after_a_clock_was_ahead() {
    if database::is_postgres() {
        return;
    }
    let mut f = Fixture::new().await;
    f.endpoint().await;
    let [_, ahead, after] = scene(&mut f, false).await;
    purge(&f.store, minute(), f.clock.now()).await;
    assert_eq!(listed(&f).await.iter().map(|row| row.0).collect::<Vec<_>>(), [after.0, ahead.0]);
    let oldest = f.store.oldest_kept().await.expect("known").expect("an event");
    assert!(f.clock.now().since(oldest) <= SECOND);
    f.clock.advance(HOUR);
    let last = deliver(&mut f, 4).await;
    purge(&f.store, minute(), f.clock.now()).await;
    assert_eq!(listed(&f).await, [last]);
}

#[tokio::test]
async fn a_database_that_was_made_by_a_clock_ahead_goes_on_by_the_real_time() {
    if database::is_postgres() {
        return;
    }
    let mut f = Fixture::new().await;
    f.endpoint().await;
    deliver(&mut f, 1).await;
    f.clock.set(f.clock.now().minus(YEAR / 2));
    let f = &mut f.restarted().await;
    assert_eq!(deliver(f, 2).await.1, f.clock.now());
}

#[tokio::test]
async fn a_clock_that_is_behind_for_a_moment_changes_no_time_and_retention_takes_nothing() {
    if database::is_postgres() {
        return;
    }
    for back in [HOUR, 30 * 24 * HOUR, 57 * YEAR] {
        let mut f = Fixture::new().await;
        f.endpoint().await;
        for n in 0..5 {
            deliver(&mut f, n).await;
            f.clock.advance(12 * HOUR);
        }
        deliver(&mut f, 5).await;
        f.clock.advance(SECOND);
        let (list, right) = (listed(&f).await, f.clock.now());
        f.clock.set(right.minus(back));
        deliver(&mut f, 6).await;
        f.clock.set(right);
        let month = aldaba::domain::retention::Retention { deliveries: Some(14 * 24 * HOUR), payloads: None };
        purge(&f.store, month, right).await;
        let now = deliver(&mut f, 7).await;
        assert_eq!(now.1, right);
        let after = listed(&f).await;
        assert_eq!(after.len(), list.len() + 2);
        if back > HOUR {
            assert_eq!(after[2..], list);
        }
    }
}

#[tokio::test]
async fn retries_that_a_clock_ahead_has_scheduled_are_due_when_it_was_set_back() {
    if database::is_postgres() {
        return;
    }
    for restart in [false, true] {
        let mut f = Fixture::new().await;
        let (_, key) = f.endpoint().await;
        let right = f.clock.now();
        f.clock.advance(YEAR);
        f.store.accept(vec![f.event(1)], None).await.expect("accepted");
        let leased = f.jobs(1).await.remove(0);
        settle(&f, settlement(&leased, 500)).await;
        drop(leased);
        let due = f.store.due_endpoints().await.expect("known");
        assert!(due[0].1 > right.plus(YEAR), "{due:?}");
        f.clock.set(right);
        if restart {
            f = f.restarted().await;
        }
        assert_eq!(f.store.due_endpoints().await.expect("known"), [(key, right)]);
        assert_eq!(f.store.claim(key, 10).await.expect("claimed").jobs.len(), 1);
    }
}
