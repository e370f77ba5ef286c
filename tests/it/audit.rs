//! The audit log: each change leaves an entry that says who made it, and nothing secret.

use std::collections::BTreeSet;

use aldaba::domain::permission::Permission;
use aldaba::domain::time::Timestamp;
use aldaba::store::Housekeeping;
use serde_json::{Value, json};

use crate::app::{App, Call, EVENT, Receiver};
use crate::command_line::printed;
use crate::database;

/// The attributes of all entries that somebody sees, newest first.
async fn entries(app: &App, key: &str, query: &str) -> Vec<Value> {
    let path = format!("/v1/audit-log?per_page=100&{query}");
    let listed = Call::new(app.address, "GET", &path).bearer(key).send().await.expect(200).json;
    let rows = listed["data"].as_array().expect("a list");
    assert_eq!(listed["meta"]["pagination"]["total"], rows.len());
    rows.iter().map(|row| row["attributes"].clone()).collect()
}

fn actions(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["action"].as_str().expect("text")).collect()
}

#[tokio::test]
async fn every_change_says_who_made_it_to_what_and_in_which_request() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let account = format!("/v1/accounts/{}", app.account);
    let mut made: Vec<(&str, String, String)> = Vec::new();
    let mut note = |action, resource: &str, answer: &crate::app::Answer| {
        made.push((action, resource.to_owned(), answer.header("x-request-id").to_owned()));
    };
    let create = app.post("/v1/webhooks", json!({ "url": receiver.url(), "events": [EVENT] })).await.expect(201);
    let secret = create.attribute("secret").as_str().expect("a secret").to_owned();
    let id = create.id();
    note("webhook.created", &id, &create);
    let path = format!("/v1/webhooks/{id}");
    let url = format!("{}?token=hunter2", receiver.url());
    note("webhook.updated", &id, &app.put(&path, json!({ "url": url, "description": "new" })).await.expect(200));
    let rotated = app.call("POST", &format!("{path}/regenerate-secret")).send().await.expect(200);
    let new_secret = rotated.attribute("secret").as_str().expect("a secret").to_owned();
    note("webhook.secret_regenerated", &id, &rotated);
    app.publish(json!({})).await;
    let delivery = app.delivery(&id, "success").await["id"].as_str().expect("an id").to_owned();
    let retried = app.call("POST", &format!("/v1/webhooks/deliveries/{delivery}/retry")).send().await.expect(202);
    note("delivery.retried", &delivery, &retried);
    app.delivery(&id, "success").await;
    let replay =
        app.post(&format!("{path}/replay"), json!({ "from": "2026-01-01", "status": "all" })).await.expect(202);
    note("replay.created", &replay.id(), &replay);
    app.replayed(&replay.id()).await;
    let key = app.post(&format!("{account}/api-keys"), json!({ "permissions": ["events:create"] })).await.expect(201);
    let plain = key.attribute("key").as_str().expect("a key").to_owned();
    note("api_key.created", &key.id(), &key);
    let revoked = app.delete(&format!("{account}/api-keys/{}", key.id())).await.expect(204);
    note("api_key.revoked", &key.id(), &revoked);
    let renamed = app.put(&account, json!({ "name": "renamed" })).await.expect(200);
    note("account.updated", &app.account.to_string(), &renamed);
    note("webhook.deleted", &id, &app.delete(&path).await.expect(204));
    let found = entries(&app, &app.key, "").await;
    let found_here: Vec<_> = found.iter().filter(|entry| entry["actor_type"] == "api_key").rev().collect();
    assert_eq!(found_here.len(), made.len(), "{found:#?}");
    for (entry, (action, resource, request)) in found_here.iter().zip(&made) {
        assert_eq!((entry["action"].as_str(), entry["resource_id"].as_str()), (Some(*action), Some(resource.as_str())));
        assert_eq!(entry["request_id"], *request, "{action}");
        assert_eq!(
            (entry["ip_address"].as_str(), &entry["account_id"]),
            (Some("127.0.0.1"), &json!(app.account.to_string()))
        );
        assert!(entry["actor_id"].is_string() && entry["actor_name"].as_str().expect("text").starts_with("mxcep_..."));
    }
    assert_eq!(found_here[1]["fields"], json!(["url", "description"]));
    let file = app.get("/v1/audit-log/export").await.expect(200).text;
    let all = format!("{found:?}{}", String::from_utf8_lossy(&file));
    for hidden in [&secret, &new_secret, &plain, &app.key, "hunter2"] {
        assert!(!all.contains(hidden), "nothing secret is in it");
    }
    assert_eq!(String::from_utf8_lossy(&file).lines().count(), found.len() + 1);
}

#[tokio::test]
async fn an_account_sees_its_own_entries_and_an_operator_all() {
    let app = App::start().await;
    let (other, stranger) = app.stranger().await;
    let new = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT] });
    app.post("/v1/webhooks", new.clone()).await.expect(201);
    let theirs = Call::new(app.address, "POST", "/v1/webhooks").bearer(&stranger).json(&new).send().await.expect(201);
    let types = app.call("POST", "/v1/event-types").bearer(&app.operator);
    types.json(&json!({ "name": "order.shipped" })).send().await.expect(201);
    let seen =
        |entries: &[Value]| -> BTreeSet<String> { entries.iter().map(|e| e["account_id"].to_string()).collect() };
    assert_eq!(seen(&entries(&app, &stranger, "").await), [json!(other.to_string()).to_string()].into());
    assert!(entries(&app, &app.key, &format!("account_id={other}")).await.is_empty());
    let rename = Call::new(app.address, "PUT", &format!("/v1/accounts/{other}")).bearer(&app.operator);
    rename.json(&json!({ "name": "by the operator" })).send().await.expect(200);
    for (key, knows) in [(&stranger, false), (&app.operator, true)] {
        let seen = entries(&app, key, &format!("action=account.updated&account_id={other}")).await;
        assert_eq!((seen.len(), &seen[0]["actor_type"]), (1, &json!("operator_key")));
        for hidden in ["actor_id", "actor_name", "ip_address"] {
            assert_eq!(
                seen[0][hidden].is_string(),
                knows,
                "an account is not told who of the operator's people it was"
            );
        }
    }
    let all = entries(&app, &app.operator, "").await;
    let expected =
        [json!(app.account.to_string()).to_string(), json!(other.to_string()).to_string(), "null".to_owned()].into();
    assert_eq!(seen(&all), expected);
    for (query, expected) in [
        (format!("account_id={other}&action=webhook.created"), 1),
        (format!("resource_id={}", theirs.id()), 1),
        (
            format!(
                "resource_type=webhook_endpoint,event_type&actor_id={}",
                all[0]["actor_id"].as_str().expect("an id")
            ),
            1,
        ),
        ("action=webhook.created,event_type.created".to_owned(), 3),
        ("resource_type=event_type".to_owned(), 1),
        ("from=2026-01-01&to=2026-01-02".to_owned(), 0),
        ("from=2026-01-01".to_owned(), all.len()),
        ("account_id=00000000-0000-4000-8000-000000000000".to_owned(), 0),
    ] {
        assert_eq!(entries(&app, &app.operator, &query).await.len(), expected, "{query}");
    }
    for query in ["action=webhook.stolen", "resource_type=car", "account_id=1", "from=x", "to=x"] {
        for path in ["/v1/audit-log", "/v1/audit-log/export"] {
            let refused = app.get(&format!("{path}?{query}")).await.refused(422, "invalid_filter", "");
            let parameter = query.split('=').next().expect("a name");
            assert_eq!(refused.json["errors"][0]["source"]["parameter"], parameter);
        }
    }
    let blind = app.key_for(&[Permission::WebhooksRead]).await;
    Call::new(app.address, "GET", "/v1/audit-log").bearer(&blind).send().await.refused(403, "forbidden", "");
}

#[tokio::test]
async fn what_changes_nothing_leaves_no_entry_and_what_is_repeated_leaves_one() {
    let app = App::start().await;
    let new = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT] });
    for _ in 0..3 {
        app.call("POST", "/v1/webhooks").header("idempotency-key", "once").json(&new).send().await.expect(201);
    }
    app.put("/v1/webhooks/00000000-0000-4000-8000-000000000000", json!({ "description": "x" })).await.expect(404);
    app.post("/v1/webhooks", json!({ "url": "ftp://x", "events": [EVENT] })).await.expect(422);
    let found = entries(&app, &app.key, "resource_type=webhook_endpoint").await;
    assert_eq!(actions(&found), ["webhook.created"]);
}

#[tokio::test]
async fn a_deleted_account_takes_its_entries_with_it_and_old_ones_go() {
    let app = App::start().await;
    let (other, _) = app.stranger().await;
    let delete = Call::new(app.address, "DELETE", &format!("/v1/accounts/{other}")).bearer(&app.operator);
    delete.send().await.expect(204);
    crate::app::eventually("what it left to go", || async {
        let sql =
            "SELECT count(*) FROM audit_log WHERE account NOT IN (SELECT key FROM accounts WHERE deleted_at IS NULL)";
        while app.store.purge_deleted().await.expect("purged") {}
        // On PostgreSQL an account's row goes when nothing can come any more.
        database::execute(app.folder(), "UPDATE accounts SET deleted_at = 1 WHERE deleted_at IS NOT NULL").await;
        (database::number(app.folder(), sql).await == 0).then_some(())
    })
    .await;
    let left = entries(&app, &app.operator, &format!("resource_id={other}")).await;
    assert_eq!(actions(&left), ["account.deleted"], "that it was deleted stays known");
    let tomorrow = Timestamp::from_millis(i64::MAX / 2);
    while app.store.purge_audit_log(tomorrow).await.expect("purged") {}
    assert!(entries(&app, &app.operator, "").await.is_empty());
}

#[tokio::test]
async fn the_command_line_and_a_client_behind_a_proxy_are_named() {
    let app = App::with(&[("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let folder = app.folder().to_owned();
    let account = tokio::task::spawn_blocking(move || printed(&folder, &["accounts", "create", "by hand"]));
    let account = account.await.expect("no panic");
    let found = entries(&app, &app.operator, &format!("resource_id={account}")).await;
    assert_eq!((found.len(), &found[0]["actor_type"]), (1, &json!("command_line")));
    assert!(found[0]["ip_address"].is_null() && found[0]["request_id"].is_null() && found[0]["actor_id"].is_null());
    let new = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT] });
    let call = app.call("POST", "/v1/webhooks").header("x-forwarded-for", "1.1.1.1, 203.0.113.9").json(&new);
    call.send().await.expect(201);
    assert_eq!(entries(&app, &app.key, "action=webhook.created").await[0]["ip_address"], "203.0.113.9");
}
