//! Rows that cannot be read. Each stops its own endpoint or account, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use aldaba::domain::id::{AccountId, EndpointKey};
use aldaba::domain::settings::EndpointSettings;
use aldaba::domain::url::{Environment, ReceiverUrl};
use aldaba::store::{
    Accounts, Dispatch, Endpoints, Intake, Isolation, Replays, Settled, Snapshot, StoreError, Unattempted,
};

use crate::app::{EVENT, eventually};
use crate::database;
use crate::fixture::{Fixture, event, settlement};
use crate::rate_limits;

/// Writes a literal into the column `settings` of an endpoint.
async fn set_settings(f: &Fixture, endpoint: EndpointKey, literal: &str) {
    let sql = format!("UPDATE endpoints SET settings = {literal} WHERE key = {}", endpoint.0);
    database::execute(f.folder(), &sql).await;
}

/// Another account, and an endpoint of it.
async fn another_account(f: &Fixture) -> (AccountId, EndpointKey) {
    let account = f.store.create_account("b".into(), None).await.expect("an account").id;
    let url = ReceiverUrl::parse("http://127.0.0.1:9/", Environment::Development).expect("a URL");
    let new = EndpointSettings::new(&url, vec![EVENT.into()]);
    let made = f.store.create_endpoint(account, new.into(), None).await.expect("an endpoint").resource;
    (account, made.key)
}

#[tokio::test]
async fn an_endpoint_whose_settings_cannot_be_read_waits_and_holds_up_nobody_else() {
    let mut f = Fixture::new().await;
    let (damaged, damaged_key) = f.endpoint().await;
    let (other, other_key) = another_account(&f).await;
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    let in_memory = f.jobs(1).await;
    // Accepted by another process, so that it waits in the store.
    f.beside().await.accept(vec![f.event(2)], None).await.expect("accepted");
    let mut unreadable = vec!["'no JSON'", r#"'{"version":9}'"#, r#"'{"version":1,"rate_limit":"many"}'"#];
    if !database::is_postgres() {
        unreadable.push("x'ff'");
    }
    for settings in &unreadable {
        set_settings(&f, damaged_key, settings).await;
        let missed = f.store.accept(vec![f.event(3)], None).await.expect("accepted");
        assert_eq!((missed[0].deliveries, missed[0].missed), (0, 1), "{settings}");
    }
    f.store.accept(vec![event(other, 4)], None).await.expect("accepted beside it");
    let of_other = f.jobs(1).await;
    assert_eq!(of_other[0].job.endpoint, other_key);
    let outcomes = vec![settlement(&in_memory[0], 500), settlement(&of_other[0], 500)];
    let settled = f.store.settle(Arc::new(outcomes), Isolation::Shared).await.expect("settled beside it");
    assert!(settled.iter().all(|settled| matches!(settled, Settled::RetryAt(_))), "{settled:?}");
    let is_left_out = || async { f.store.view().target(damaged_key).is_none().then_some(()) };
    eventually("the view to leave it out", is_left_out).await;
    assert!(f.store.claim(damaged_key, 10).await.expect("claimed").jobs.is_empty(), "its deliveries wait");
    let read = f.store.endpoint(f.account, damaged).await;
    assert!(matches!(&read, Err(StoreError::Corrupt(reason)) if reason.contains("settings")), "{read:?}");

    let mut f = f.restarted().await;
    f.store.accept(vec![event(other, 5)], None).await.expect("accepted after a start");
    assert_eq!(f.jobs(1).await[0].job.endpoint, other_key);

    set_settings(&f, damaged_key, "'{}'").await;
    let waiting = eventually("what has waited", || async {
        let jobs = f.store.claim(damaged_key, 10).await.expect("claimed").jobs;
        (!jobs.is_empty()).then_some(jobs)
    })
    .await;
    assert_eq!((waiting.len(), waiting[0].job.attempts_made), (1, 0), "the other one is retried later");
    let accepted = f.store.accept(vec![f.event(6)], None).await.expect("accepted");
    assert_eq!((accepted[0].deliveries, accepted[0].missed), (1, 0));
    let missed = f.store.missed(f.account, damaged).await.expect("counted");
    assert_eq!(missed.count, unreadable.len() as u64);
}

#[tokio::test]
async fn an_endpoint_with_a_status_or_an_order_that_no_program_knows_holds_up_nobody_else() {
    for column in ["status", "ordering"] {
        let mut f = Fixture::new().await;
        let (_, damaged) = f.endpoint().await;
        let (other, other_key) = another_account(&f).await;
        f.store.accept(vec![f.event(1), event(other, 2)], None).await.expect("accepted");
        let in_memory = f.jobs(2).await;
        let sql = format!("UPDATE endpoints SET {column} = 99 WHERE key = {}", damaged.0);
        database::execute(f.folder(), &sql).await;
        let outcomes = in_memory.iter().map(|leased| settlement(leased, 500)).collect();
        let settled = f.store.settle(Arc::new(outcomes), Isolation::Shared).await.expect("settled");
        assert!(settled.iter().all(|settled| matches!(settled, Settled::RetryAt(_))), "{column}: {settled:?}");
        let mut f = f.restarted().await;
        let accepted = f.store.accept(vec![f.event(3), event(other, 4)], None).await.expect("accepted");
        let counted: Vec<_> = accepted.iter().map(|event| (event.deliveries, event.missed)).collect();
        assert_eq!(counted, [(0, 1), (1, 0)], "{column}");
        assert_eq!(f.jobs(1).await[0].job.endpoint, other_key, "{column}");
        assert!(f.store.view().target(damaged).is_none(), "{column}");
    }
}

#[tokio::test]
async fn counted_attempts_that_cannot_be_read_hold_their_own_endpoint_for_a_window() {
    let f = Fixture::new().await;
    let (damaged, sound) = (rate_limits::endpoint(&f, "2/1m").await, rate_limits::endpoint(&f, "2/1m").await);
    f.store.accept((0..3).map(|n| f.event(n)).collect(), None).await.expect("accepted");
    let claim = async |endpoint| f.store.claim(endpoint, 10).await.expect("claimed");
    let (mut claimed, of_sound) = (claim(damaged).await.jobs, claim(sound).await.jobs);
    assert_eq!((claimed.len(), of_sound.len()), (2, 2));
    claimed.extend(of_sound);
    let unattempted: Vec<_> = claimed.iter().map(Unattempted::of_leased).collect();
    let mut unreadable = vec!["'no JSON'", "'[[2,1],[1,1]]'"];
    if !database::is_postgres() {
        unreadable.push("x'ff'");
    }
    for literal in unreadable {
        let sql = format!("UPDATE limited_attempts SET attempts = {literal} WHERE endpoint = {}", damaged.0);
        database::execute(f.folder(), &sql).await;
        f.store.release(unattempted.clone()).await.expect("released");
        let limited = claim(damaged).await;
        assert!(limited.jobs.is_empty() && limited.next_due.is_some(), "{literal}");
        let limited_for = limited.limited_for.expect("it waits");
        assert!((Duration::from_secs(70)..Duration::from_secs(77)).contains(&limited_for), "{limited_for:?}");
    }
    assert_eq!(claim(sound).await.jobs.len(), 2, "the others have been given back");
    // On PostgreSQL the time is the database's. On SQLite a clock that is set forward ends no window before a restart.
    if !database::is_postgres() {
        f.clock.advance(Duration::from_secs(77));
        let f = f.restarted().await;
        let claim = async |endpoint| f.store.claim(endpoint, 10).await.expect("claimed");
        assert_eq!(claim(damaged).await.jobs.len(), 2);
    }
}
