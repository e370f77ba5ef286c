//! The filters of the account-wide list, against a plain filter in memory.

use std::sync::Arc;
use std::time::Duration;

use aldaba::clock::{Clock as _, SeededRandom};
use aldaba::domain::delivery::Delivery;
use aldaba::domain::event::NewEvent;
use aldaba::domain::filter::DeliveryFilter;
use aldaba::domain::id::EndpointId;
use aldaba::domain::settings::EndpointSettings;
use aldaba::domain::url::{Environment, ReceiverUrl};
use aldaba::store::{Dispatch, Endpoints, Intake, Isolation, Log, Page, Search, Snapshot};
use serde_json::json;

use crate::app::{App, EVENT, Receiver, eventually};
use crate::database;
use crate::fixture::{ALL, Fixture, list, settlement};

const VALIDATION: &str = "7f3d9a52-6c1e-4b0a-9d57-2f8e41c6b3aa";

/// Deliveries in every state, of three endpoints, over some days.
async fn scene(f: &mut Fixture) -> Vec<(EndpointId, Option<String>)> {
    let mut endpoints = Vec::new();
    for (url, description) in [
        ("http://127.0.0.1:9/orders", Some("Óptica 100%_off")),
        ("http://127.0.0.1:9/billing?a=1", Some("back\\slash")),
        ("http://10.0.0.7/ORDERS", None),
    ] {
        let url = ReceiverUrl::parse(url, Environment::Development).expect("a URL");
        let events = vec![EVENT.to_owned(), "billing.payment_failed".into(), "validation.failed".into()];
        let description = description.map(str::to_owned);
        let new = EndpointSettings { description, ..EndpointSettings::new(&url, events) };
        let made = f.store.create_endpoint(f.account, new.into(), None).await.expect("an endpoint").resource;
        endpoints.push((made.id, made.settings.description));
    }
    for n in 0..20_u32 {
        let event_type = [EVENT, "billing.payment_failed", "validation.failed"][n as usize % 3];
        let mut event: NewEvent = f.event(n);
        event.event_type = event_type.into();
        event.validation_id =
            (event_type.starts_with("validation.") && n % 2 == 0).then(|| VALIDATION.parse().expect("a UUID"));
        f.store.accept(vec![event], None).await.expect("accepted");
        f.clock.advance(Duration::from_millis(7_654_321));
        for (index, leased) in f.jobs(3).await.into_iter().enumerate() {
            let status = [200, 404, 503, 0, 302][(n as usize + index) % 5];
            let mut outcome = settlement(&leased, status.max(100));
            outcome.outcome.duration_ms = n * 10;
            if status == 0 {
                (outcome.outcome.http_status, outcome.outcome.error) = (None, Some("timed out".into()));
            }
            // Some stay pending, and some get further attempts.
            if n % 7 == 6 {
                continue;
            }
            f.store.settle(Arc::new(vec![outcome]), Isolation::Shared).await.expect("settled");
        }
        if n == 9 {
            list(&f.store).await;
        }
        if n % 4 == 3 {
            f.clock.advance(Duration::from_secs(60));
            for endpoint in f.store.view().active_endpoints() {
                // While some are due in the store, what is accepted goes there too.
                for (limit, status) in [(5, 500), (100, 200)] {
                    for leased in f.store.claim(endpoint, limit).await.expect("claimed").jobs {
                        f.store
                            .settle(Arc::new(vec![settlement(&leased, status)]), Isolation::Shared)
                            .await
                            .expect("settled");
                    }
                }
            }
        }
    }
    endpoints
}

/// Values that filters may have: some that match, some that do not.
fn values(name: &str, endpoints: &[(EndpointId, Option<String>)], all: &[Delivery]) -> Vec<String> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    match name {
        "endpoint_id" => {
            let known = endpoints.iter().map(|(id, _)| id.to_string());
            known.chain(["00000000-0000-4000-8000-000000000000".to_owned()]).collect()
        }
        "status" => texts(&["pending", "retrying", "success", "failed", "failed,success"]),
        "event_type" => texts(&[EVENT, "billing.payment_failed,validation.failed", "test", "gone.type"]),
        "response_status" => texts(&["200", "none", "2xx", "3xx,none", "5xx", "4xx,503", "418"]),
        "validation_id" => texts(&[VALIDATION, "00000000-0000-4000-8000-000000000000"]),
        "from" | "to" => {
            let times = all.iter().map(|delivery| delivery.created_at.to_string());
            let days = all.iter().map(|delivery| delivery.created_at.to_string()[..10].to_owned());
            times.chain(days).chain(["2020-01-01".to_owned(), "2099-01-01".to_owned()]).collect()
        }
        "min_attempt" => texts(&["0", "1", "2", "3", "9"]),
        "min_response_time_ms" => texts(&["0", "55", "190", "100000"]),
        _ => {
            let ids = all.iter().map(|delivery| delivery.id.to_string()[3..11].to_owned());
            let more =
                ["óptica", "100%_", "0%_o", "k\\s", "ORDERS", "9D57", "-4b0a-", "billing", "50", "_", "%", "zzz"];
            ids.take(5).chain(more.map(str::to_owned)).collect()
        }
    }
}

#[tokio::test]
async fn every_combination_of_filters_finds_what_a_plain_filter_finds() {
    let mut f = Fixture::new().await;
    let endpoints = scene(&mut f).await;
    let all = f.store.account_deliveries(f.account, ALL).await.expect("listed").items;
    assert_eq!(all.len(), 60);
    let statuses: std::collections::BTreeSet<_> = all.iter().map(|delivery| delivery.status.name()).collect();
    assert_eq!(statuses.len(), 3, "{statuses:?}");
    let description = |id| endpoints.iter().find(|(known, _)| *known == id).and_then(|(_, text)| text.as_deref());
    let random = SeededRandom::new(7);
    let mut found_some = 0;
    let any = |list: &[String]| {
        let index = usize::try_from(random.below(list.len() as u64)).expect("small");
        list[index].clone()
    };
    for round in 0..3_000 {
        let count = 1 + random.below(3);
        let names = DeliveryFilter::NAMES.map(str::to_owned);
        let parameters: Vec<(String, String)> = (0..count)
            .map(|_| {
                let name = any(&names);
                let value = any(&values(&name, &endpoints, &all));
                (name, value)
            })
            .collect();
        let filter = DeliveryFilter::read(&parameters).expect("readable");
        let expected: Vec<_> = all.iter().filter(|d| filter.takes(d, description(d.endpoint))).map(|d| d.id).collect();
        let found = f.store.find_deliveries(f.account, filter.clone(), ALL).await.expect("found");
        let ids: Vec<_> = found.items.iter().map(|delivery| delivery.id).collect();
        assert_eq!(ids, expected, "round {round}: {parameters:?}");
        assert_eq!(found.total, expected.len() as u64, "{parameters:?}");
        found_some += usize::from(!ids.is_empty());
        let second = f.store.find_deliveries(f.account, filter, Page { page: 2, per_page: 2 }).await.expect("found");
        let second: Vec<_> = second.items.iter().map(|delivery| delivery.id).collect();
        assert_eq!(second, expected.iter().skip(2).take(2).copied().collect::<Vec<_>>(), "{parameters:?}");
    }
    assert!(found_some > 500, "the filters are not all empty: {found_some}");
    assert!(f.clock.now() > all[0].created_at);
}

#[tokio::test]
async fn a_filter_that_cannot_be_read_is_named() {
    let app = App::start().await;
    for (query, parameter) in [
        ("endpoint_id=x", "endpoint_id"),
        ("status=lost", "status"),
        ("event_type=%20A", "event_type"),
        ("response_status=9xx", "response_status"),
        ("validation_id=1", "validation_id"),
        ("from=soon", "from"),
        ("to=2026-02-30", "to"),
        ("min_attempt=-1", "min_attempt"),
        ("min_response_time_ms=fast", "min_response_time_ms"),
    ] {
        let refused = app.get(&format!("/v1/webhooks/deliveries?{query}")).await.refused(422, "invalid_filter", "");
        let error = &refused.json["errors"][0];
        assert_eq!(error["source"], json!({ "parameter": parameter }));
        assert!(error["detail"].as_str().expect("text").contains(parameter), "{error}");
    }
    let both = app.get("/v1/webhooks/deliveries?to=x&status=x").await.expect(422);
    assert_eq!(both.json["errors"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn the_list_is_filtered_over_http() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    let (other, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "id": VALIDATION })).await;
    app.delivery(&endpoint, "success").await;
    app.delivery(&other, "success").await;
    app.call("POST", &format!("/v1/webhooks/{endpoint}/test")).send().await.expect(200);
    for (query, count) in [
        ("", 3),
        (&format!("endpoint_id={endpoint}"), 2),
        (&format!("endpoint_id={endpoint},{other}&event_type=test"), 1),
        (&format!("q={}", &VALIDATION[..8].to_uppercase()), 2),
        ("q=%25", 0),
        ("status=failed", 0),
        ("response_status=2xx&status=success,failed&per_page=1", 3),
        ("unknown=1&page=1", 3),
    ] {
        let listed = app.get(&format!("/v1/webhooks/deliveries?{query}")).await.expect(200);
        assert_eq!(listed.json["meta"]["pagination"]["total"], count, "{query}");
    }
    let (_, stranger) = app.stranger().await;
    let path = format!("/v1/webhooks/deliveries?endpoint_id={endpoint}");
    let nothing = app.call("GET", &path).bearer(&stranger).send().await.expect(200);
    assert_eq!(nothing.json["data"], json!([]), "another account's endpoint does not exist");
}

#[tokio::test]
async fn a_total_that_is_a_minimum_says_so_and_no_page_is_promised_that_cannot_be_reached() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let first = app.delivery(&endpoint, "success").await["id"].as_str().expect("an id").to_owned();
    if !database::is_postgres() {
        eventually("the delivery to be listed", || async {
            let listed = database::number(app.folder(), "SELECT COUNT(*) FROM delivery_lists").await;
            (listed == 1).then_some(())
        })
        .await;
    }
    database::add_deliveries(app.folder(), &first, (1, 100_000), 2).await;
    for (query, pagination) in [
        ("status=success&", json!({ "total": 100_000, "total_pages": 2_000, "total_is_minimum": true })),
        ("status=failed&", json!({ "total": 0, "total_pages": 0 })),
        ("", json!({ "total": 100_001, "total_pages": 2_000 })),
    ] {
        for (page, has_rows) in [(1, true), (2_000, true), (2_001, false), (1_000_000, false)] {
            let path = format!("/v1/webhooks/deliveries?{query}page={page}");
            let answer = app.get(&path).await.expect(200);
            let mut expected = pagination.clone();
            (expected["page"], expected["per_page"]) = (page.into(), 50.into());
            assert_eq!(answer.json["meta"]["pagination"], expected, "{path}");
            let rows = answer.json["data"].as_array().map(Vec::len);
            let expected = if has_rows && expected["total"] != 0 { 50 } else { 0 };
            assert_eq!(rows, Some(expected), "{path}");
        }
    }
}

#[tokio::test]
async fn a_search_that_takes_too_long_is_ended_and_says_what_helps() {
    if !database::is_postgres() {
        // The same of SQLite is held by the test of `store/sqlite/readers.rs`, which has a query without an end.
        return;
    }
    let app = App::start().await;
    // Nothing ends sooner than what waits for a lock: it reads nothing at all.
    let holder = database::connect(&database::url(app.folder())).await;
    holder.batch_execute("BEGIN; LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE").await.expect("locked");
    let late = app.get("/v1/webhooks/deliveries?q=nothing").await.refused(503, "unavailable", "");
    assert_eq!(late.header("retry-after"), "5");
    let detail = late.json["errors"][0]["detail"].as_str().expect("text");
    assert!(detail.contains("2 seconds") && detail.contains("from and to"), "{detail}");
    holder.batch_execute("ROLLBACK").await.expect("unlocked");
    app.get("/v1/webhooks/deliveries?q=nothing").await.expect(200);
}
