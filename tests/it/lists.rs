//! The lists, totals and last deliveries, whether the embedded store has written them yet or finds them in the rows.

use std::sync::Arc;

use aldaba::domain::delivery::DeliveryStatus;
use aldaba::domain::filter::DeliveryFilter;
use aldaba::domain::id::EndpointId;
use aldaba::domain::time::Timestamp;
use aldaba::store::{
    Dispatch, Endpoints, Intake, Isolation, Log, MAX_PAGED_ROWS, Page, ReplayWork, Replays, Search, Settlement, Store,
};

use crate::app::eventually;
use crate::database;
use crate::fixture::{ALL, Fixture, everything, list, settlement};

/// All that lists and endpoints tell, as text.
async fn told(f: &Fixture, store: &Store, endpoints: &[EndpointId]) -> Vec<String> {
    let mut told = Vec::new();
    for id in endpoints {
        let endpoint = store.endpoint(f.account, *id).await.expect("read");
        told.push(format!("{:?} {:?}", endpoint.last_delivery_at, endpoint.health));
        for page in [ALL, Page { page: 2, per_page: 3 }] {
            let listed = store.endpoint_deliveries(f.account, *id, page).await.expect("listed");
            told.push(format!("{} {:?}", listed.total, listed.items));
        }
    }
    for page in [ALL, Page { page: 2, per_page: 5 }] {
        let listed = store.account_deliveries(f.account, page).await.expect("listed");
        told.push(format!("{} {:?}", listed.total, listed.items));
    }
    for status in [DeliveryStatus::Pending, DeliveryStatus::Retrying, DeliveryStatus::Success, DeliveryStatus::Failed] {
        let filter = DeliveryFilter { statuses: vec![status], ..DeliveryFilter::default() };
        let found = store.find_deliveries(f.account, filter.clone(), ALL).await.expect("found");
        let walked = store.walk_deliveries(f.account, filter, None).await.expect("walked");
        assert_eq!(found.items, walked.items, "{}", status.name());
        told.push(format!("{} {} {:?}", status.name(), found.total, found.items));
    }
    told
}

fn at(settlement: Settlement, millis: i64) -> Settlement {
    let mut settlement = settlement;
    settlement.outcome.started_at = Timestamp::from_millis(1_800_000_000_000 + millis);
    settlement
}

#[tokio::test]
async fn nothing_changes_for_a_reader_when_deliveries_are_listed() {
    let mut f = Fixture::new().await;
    let endpoints = [f.endpoint().await.0, f.endpoint().await.0, f.endpoint().await.0];
    let beside = f.beside().await;
    // The first round is listed when the second comes, in which the first is settled and some of it sent again.
    f.store.accept((0..4).map(|n| f.event(n)).collect(), None).await.expect("accepted");
    let first = f.jobs(12).await;
    let early = first[..6].iter().map(|leased| at(settlement(leased, 200), 1)).collect();
    f.store.settle(Arc::new(early), Isolation::Shared).await.expect("settled");
    let before = told(&f, &f.store, &endpoints).await;
    list(&f.store).await;
    assert_eq!(told(&f, &f.store, &endpoints).await, before);
    assert_eq!(told(&f, &beside, &endpoints).await, before);
    f.store.accept((4..7).map(|n| f.event(n)).collect(), None).await.expect("accepted");
    let second = f.jobs(9).await;
    let settled =
        [at(settlement(&first[6], 200), 5), at(settlement(&first[7], 503), 6), at(settlement(&second[1], 200), 7)];
    f.store.settle(Arc::new(settled.to_vec()), Isolation::Shared).await.expect("settled");
    f.store.retry(f.account, first[0].job.id, None).await.expect("due again");
    let before = told(&f, &f.store, &endpoints).await;
    assert_eq!(told(&f, &beside, &endpoints).await, before);
    list(&f.store).await;
    assert_eq!(told(&f, &f.store, &endpoints).await, before);
    // A success at once, of a delivery that was listed when it was pending, and one that is tried again.
    let found = |status: DeliveryStatus| {
        let filter = DeliveryFilter { statuses: vec![status], ..DeliveryFilter::default() };
        let store = f.store.clone();
        async move { store.find_deliveries(f.account, filter, ALL).await.expect("found").total }
    };
    assert_eq!((found(DeliveryStatus::Success).await, found(DeliveryStatus::Retrying).await), (7, 2));
    let lasts = endpoints.map(|id| {
        let (store, account) = (f.store.clone(), f.account);
        async move { store.endpoint(account, id).await.expect("read").last_delivery_at.expect("some").as_millis() }
    });
    let mut latest = 0;
    for last in lasts {
        latest = latest.max(last.await);
    }
    assert_eq!(latest, 1_800_000_000_007);
}

#[tokio::test]
async fn a_restart_loses_no_count_that_was_not_written() {
    let mut f = Fixture::new().await;
    let endpoints = [f.endpoint().await.0];
    f.store.accept((0..5).map(|n| f.event(n)).collect(), None).await.expect("accepted");
    let jobs = f.jobs(5).await;
    f.store.settle(Arc::new(vec![at(settlement(&jobs[0], 200), 9)]), Isolation::Shared).await.expect("settled");
    let before = told(&f, &f.store, &endpoints).await;
    let mut f = f.restarted().await;
    assert_eq!(told(&f, &f.store, &endpoints).await, before);
    // An endpoint whose counters were not written has its failures counted all the same, and another last delivery.
    f.store.accept(vec![f.event(6)], None).await.expect("accepted");
    let later = f.jobs(1).await;
    f.store.settle(Arc::new(vec![at(settlement(&later[0], 500), 4)]), Isolation::Shared).await.expect("settled");
    let before = told(&f, &f.store, &endpoints).await;
    assert!(before[0].contains("consecutive_failures: 1"), "{}", before[0]);
    assert!(before[1].starts_with("6 "), "{}", before[1]);
    list(&f.store).await;
    assert_eq!(told(&f, &f.store, &endpoints).await, before);
}

#[tokio::test]
async fn a_last_delivery_is_not_forgotten_when_the_clock_goes_back() {
    let mut f = Fixture::new().await;
    let (id, key) = f.endpoint().await;
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    let first = f.jobs(1).await;
    f.store.settle(Arc::new(vec![at(settlement(&first[0], 200), 100)]), Isolation::Shared).await.expect("settled");
    f.store.retry(f.account, first[0].job.id, None).await.expect("due again");
    let again = f.store.claim(key, 1).await.expect("claimed").jobs;
    f.store.settle(Arc::new(vec![at(settlement(&again[0], 200), 90)]), Isolation::Shared).await.expect("settled");
    let last = f.store.endpoint(f.account, id).await.expect("read").last_delivery_at.expect("some");
    assert_eq!(last.as_millis(), 1_800_000_000_100);
}

#[tokio::test]
async fn a_replay_that_is_cancelled_takes_from_the_totals_what_it_had_made() {
    let mut f = Fixture::new().await;
    let (id, _) = f.endpoint().await;
    f.store.accept((0..3).map(|n| f.event(n)).collect(), None).await.expect("accepted");
    let done = f.jobs(3).await.iter().map(|leased| settlement(leased, 200)).collect();
    f.store.settle(Arc::new(done), Isolation::Shared).await.expect("settled");
    let replay = f.store.create_replay(f.account, id, everything(&f), None).await.expect("made");
    for open in f.store.open_replays().await.expect("listed") {
        f.store.replay_step(open.key).await.expect("stepped");
    }
    let total = |f: &Fixture| {
        let (store, account) = (f.store.clone(), f.account);
        async move {
            let listed = store.endpoint_deliveries(account, id, ALL).await;
            listed.map(|listed| (listed.total, listed.items.len()))
        }
    };
    assert_eq!(total(&f).await, Ok((6, 6)));
    f.store.cancel_replay(f.account, replay.id).await.expect("cancelled");
    assert_eq!(total(&f).await, Ok((3, 3)));
    list(&f.store).await;
    assert_eq!(total(&f).await, Ok((3, 3)));
}

/// An account with one endpoint and one delivery that has succeeded, and the delivery's id.
async fn with_one_delivery() -> (Fixture, EndpointId, String) {
    let mut f = Fixture::new().await;
    let (endpoint, _) = f.endpoint().await;
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    let leased = f.jobs(1).await;
    f.store.settle(Arc::new(vec![settlement(&leased[0], 200)]), Isolation::Shared).await.expect("settled");
    list(&f.store).await;
    (f, endpoint, leased[0].job.id.to_string())
}

fn of_status(status: DeliveryStatus) -> DeliveryFilter {
    DeliveryFilter { statuses: vec![status], ..DeliveryFilter::default() }
}

const BOUND: u32 = 100_000;

#[tokio::test]
async fn the_total_of_a_filtered_list_is_exact_up_to_the_bound_and_a_minimum_beyond_it() {
    assert_eq!(MAX_PAGED_ROWS, u64::from(BOUND));
    let (f, endpoint, first) = with_one_delivery().await;
    let (success, failed) = (DeliveryStatus::Success, DeliveryStatus::Failed);
    database::add_deliveries(f.folder(), &first, (1, BOUND - 1), success.to_column()).await;
    database::add_deliveries(f.folder(), &first, (BOUND + 1, BOUND + 9), failed.to_column()).await;
    let found = |status, page, per_page| {
        let (store, page) = (f.store.clone(), Page { page, per_page });
        async move {
            let found = store.find_deliveries(f.account, of_status(status), page).await.expect("found");
            (found.total, found.total_is_minimum, found.items.len())
        }
    };
    assert_eq!(found(success, 1, 100).await, (100_000, false, 100));
    assert_eq!(found(success, 1_000, 100).await, (100_000, false, 100));
    database::add_deliveries(f.folder(), &first, (BOUND, BOUND), success.to_column()).await;
    assert_eq!(found(success, 1, 100).await, (100_000, true, 100));
    // Every page that is promised has rows, whatever the pages' size, and no other page has any.
    for per_page in [100, 7] {
        let store = f.store.clone();
        let listed =
            store.find_deliveries(f.account, of_status(success), Page { page: 1, per_page }).await.expect("found");
        let last = u32::try_from(listed.total_pages(per_page)).expect("small");
        assert!(found(success, last, per_page).await.2 > 0, "{last}");
        assert_eq!(found(success, last + 1, per_page).await, (100_000, true, 0));
    }
    assert_eq!(found(success, u32::MAX, 100).await, (100_000, true, 0));
    assert_eq!(found(failed, 1, 100).await, (9, false, 9));
    // Without a filter the total is exact, and pages reach as far.
    for (page, shown) in [(1, 100), (1_000, 100), (1_001, 0), (u32::MAX, 0)] {
        let page = Page { page, per_page: 100 };
        for listed in [
            f.store.account_deliveries(f.account, page).await.expect("listed"),
            f.store.endpoint_deliveries(f.account, endpoint, page).await.expect("listed"),
        ] {
            assert_eq!(
                (listed.total, listed.total_is_minimum, listed.items.len()),
                (100_010, false, shown),
                "{page:?}"
            );
            assert_eq!(listed.total_pages(100), 1_000);
        }
    }
    let last = f.store.account_deliveries(f.account, Page { page: 1_000, per_page: 100 }).await.expect("listed");
    let oldest = last.items.last().expect("100").id.0;
    assert_eq!(first.parse::<i64>().expect("a number") - oldest, i64::from(BOUND) - 1, "none is left out");
}

#[tokio::test]
async fn a_page_far_behind_and_a_filter_that_finds_much_read_few_rows() {
    if !database::is_postgres() {
        // SQLite's own counts are looked at where its lists are merged, in `store/sqlite/newest.rs`.
        return;
    }
    let (f, endpoint, first) = with_one_delivery().await;
    database::add_deliveries(f.folder(), &first, (1, 2 * BOUND), DeliveryStatus::Success.to_column()).await;
    database::execute(f.folder(), "VACUUM ANALYZE deliveries").await;
    let sql = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_user_tables \
               WHERE relname LIKE 'deliveries%'";
    let before = database::number(f.folder(), sql).await;
    for _ in 0..10 {
        let far = Page { page: 1_900, per_page: 100 };
        let listed = f.store.account_deliveries(f.account, far).await.expect("listed");
        assert_eq!((listed.total, listed.items.len()), (200_001, 0));
        f.store.endpoint_deliveries(f.account, endpoint, far).await.expect("listed");
    }
    let found = f.store.find_deliveries(f.account, of_status(DeliveryStatus::Success), ALL).await.expect("found");
    assert_eq!((found.total, found.total_is_minimum), (100_000, true));
    // The database counts a little later, when the connection is used again.
    let read = eventually("the count of rows", || async {
        f.store.account_deliveries(f.account, Page { page: 1_900, per_page: 100 }).await.expect("listed");
        let read = database::number(f.folder(), sql).await - before;
        (read >= i64::from(BOUND)).then_some(read)
    })
    .await;
    assert!(read < i64::from(BOUND) + 1_000, "{read} rows");
}

const NOT_LISTED: &str = "SELECT COUNT(*) FROM recent_deliveries";

#[tokio::test]
async fn under_load_deliveries_are_listed_by_the_thousand_and_then_when_nothing_comes() {
    if database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    let (id, _) = f.endpoint().await;
    let mut accepted = 0;
    while accepted < 9_000 {
        f.store.accept((accepted..accepted + 1_000).map(|n| f.event(n)).collect(), None).await.expect("accepted");
        accepted += 1_000;
        let recent = database::number(f.folder(), NOT_LISTED).await;
        assert!(recent < 4_096, "{recent} of {accepted} must be looked through");
        let listed = f.store.endpoint_deliveries(f.account, id, ALL).await.expect("listed");
        assert_eq!(listed.total, u64::from(accepted));
    }
    let listed = eventually("the rest", || async {
        let recent = database::number(f.folder(), NOT_LISTED).await;
        (recent == 0).then_some(database::number(f.folder(), "SELECT COUNT(*) FROM delivery_lists").await)
    });
    assert_eq!(listed.await, 9_000);
    // What another process writes is listed by the server that runs, though nobody asks it for anything.
    f.beside().await.accept(vec![f.event(9_000)], None).await.expect("accepted");
    eventually("one more", || async {
        (database::number(f.folder(), "SELECT COUNT(*) FROM delivery_lists").await == 9_001).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_one_transaction_brings_is_listed_in_parts_and_counted_once() {
    if database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    let mut endpoints = Vec::new();
    for _ in 0..50 {
        endpoints.push(f.endpoint().await.0);
    }
    // One part has 65,536.
    f.store.accept((0..1_400).map(|n| f.event(n)).collect(), None).await.expect("accepted");
    assert_eq!(database::number(f.folder(), NOT_LISTED).await, 0);
    let lists = database::number(f.folder(), "SELECT COUNT(DISTINCT id) FROM delivery_lists").await;
    let counted = database::number(f.folder(), "SELECT SUM(deliveries_total) FROM endpoint_counters").await;
    assert_eq!((lists, counted), (70_000, 70_000));
    for id in [endpoints[0], endpoints[49]] {
        assert_eq!(f.store.endpoint_deliveries(f.account, id, ALL).await.expect("listed").total, 1_400);
    }
}

#[tokio::test]
async fn a_delivery_comes_after_all_that_was_ever_listed() {
    if database::is_postgres() {
        return;
    }
    let f = Fixture::new().await;
    let (id, _) = f.endpoint().await;
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    list(&f.store).await;
    // The newest are gone, and the clock has been set back by an hour since.
    database::execute(f.folder(), "DELETE FROM deliveries").await;
    database::execute(f.folder(), "DELETE FROM events").await;
    database::execute(f.folder(), "UPDATE endpoint_counters SET deliveries_total = 0").await;
    assert_eq!(database::number(f.folder(), "SELECT COUNT(*) FROM delivery_lists").await, 0, "they are in no list");
    let later = "UPDATE settings SET value = value + (3600000 << 20) WHERE name = 'listed_to'";
    database::execute(f.folder(), later).await;
    f.store.accept(vec![f.event(2)], None).await.expect("accepted");
    let listed = f.store.endpoint_deliveries(f.account, id, ALL).await.expect("listed");
    assert_eq!((listed.total, listed.items.len()), (1, 1));
}
