//! Accounts and API keys over the API.

use aldaba::domain::permission::Permission;
use aldaba::store::Housekeeping;
use serde_json::{Value, json};

use crate::app::{App, EVENT};
use crate::database;

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

#[tokio::test]
async fn an_operator_manages_accounts() {
    let app = App::start().await;
    let call = |method: &str, path: &str| app.call(method, path).bearer(&app.operator);
    let made = call("POST", "/v1/accounts").json(&json!({ "name": " Shop " })).send().await.expect(201);
    assert_eq!((made.attribute("name"), &made.json["data"]["type"]), (&json!("Shop"), &json!("account")));
    let path = format!("/v1/accounts/{}", made.id());
    call("GET", &path).send().await.expect(200);
    let listed = call("GET", "/v1/accounts").send().await.expect(200);
    assert_eq!(
        (&listed.json["data"][0]["id"], &listed.json["meta"]["pagination"]["total"]),
        (&json!(made.id()), &json!(2))
    );
    let renamed = call("PUT", &path).json(&json!({ "name": "Store" })).send().await.expect(200);
    assert_eq!(renamed.attribute("name"), "Store");
    for (body, code) in [
        (json!({}), "name_required"),
        (json!({ "name": null }), "name_required"),
        (json!({ "name": "  " }), "name_invalid"),
        (json!({ "name": 5 }), "name_invalid"),
        (json!({ "name": "x".repeat(256) }), "name_invalid"),
        (json!({ "name": "Shop\n0000  another row" }), "name_invalid"),
    ] {
        let refused = call("POST", "/v1/accounts").json(&body).send().await;
        refused.refused(422, code, "/data/attributes/name");
    }
    call("PUT", &path).json(&json!({})).send().await.refused(422, "no_valid_fields", "");
    call("DELETE", &path).send().await.expect(204);
    call("GET", &path).send().await.refused(404, "not_found", "");
    call("DELETE", &path).send().await.refused(404, "not_found", "");
    call("GET", &format!("/v1/accounts/{NOBODY}")).send().await.refused(404, "not_found", "");
}

#[tokio::test]
async fn a_deleted_account_takes_its_keys_endpoints_and_events_with_it() {
    let app = App::start().await;
    app.endpoint("http://127.0.0.1:9/").await;
    app.publish(json!({})).await;
    let path = format!("/v1/accounts/{}", app.account);
    app.call("DELETE", &path).bearer(&app.operator).send().await.expect(204);
    app.get("/v1/webhooks").await.refused(401, "unauthorized", "");
    let publish = json!({ "event": EVENT, "data": {}, "account_id": app.account.to_string() });
    let gone = app.call("POST", "/v1/events").bearer(&app.operator).json(&publish).send().await;
    gone.refused(404, "not_found", "");
    while app.store.purge_deleted().await.expect("purged") {}
    // On PostgreSQL a tombstone stays a little longer, for commits of other nodes that were under way.
    let tombstones = if database::is_postgres() { "subscriptions" } else { "endpoints" };
    for table in [tombstones, "endpoint_secrets", "events", "payloads", "deliveries", "attempts"] {
        let rows = database::number(app.folder(), &format!("SELECT COUNT(*) FROM {table}")).await;
        assert_eq!(rows, 0, "{table}");
    }
}

#[tokio::test]
async fn a_key_is_shown_once_and_listed_by_its_hint() {
    let app = App::start().await;
    let path = format!("/v1/accounts/{}/api-keys", app.account);
    let body = json!({
        "permissions": ["webhooks:read", "events:create"], "name": "ci", "expires_at": "2099-01-01T00:00:00Z",
    });
    let made = app.call("POST", &path).bearer(&app.operator).json(&body).send().await.expect(201);
    let key = made.attribute("key").as_str().expect("a key").to_owned();
    assert!(key.len() == 70 && key.starts_with("mxcep_"));
    assert_eq!(made.attribute("permissions"), &json!(["webhooks:read", "events:create"]));
    let listed = app.get(&path).await.expect(200);
    let row = &listed.json["data"][0]["attributes"];
    assert_eq!((&row["key_hint"], &row["key"]), (&json!(format!("mxcep_...{}", &key[66..])), &Value::Null));
    assert_eq!((&row["name"], &row["expires_at"]), (&json!("ci"), &json!("2099-01-01T00:00:00Z")));
    assert!(!String::from_utf8_lossy(&listed.text).contains(&key));
    app.call("GET", "/v1/webhooks").bearer(&key).send().await.expect(200);
}

#[tokio::test]
async fn every_field_of_a_key_is_checked() {
    let app = App::start().await;
    let path = format!("/v1/accounts/{}/api-keys", app.account);
    for (body, code, field) in [
        (json!({}), "permissions_required", "permissions"),
        (json!({ "permissions": [] }), "permissions_required", "permissions"),
        (json!({ "permissions": "webhooks:read" }), "permission_invalid", "permissions"),
        // One fault, however many entries there are.
        (json!({ "permissions": vec![0; 100_000] }), "permission_invalid", "permissions"),
        (json!({ "permissions": ["webhooks:fly"] }), "permission_invalid", "permissions"),
        (json!({ "permissions": ["*"], "expires_at": "2001-01-01T00:00:00Z" }), "expires_at_invalid", "expires_at"),
        (json!({ "permissions": ["*"], "expires_at": "soon" }), "expires_at_invalid", "expires_at"),
        (json!({ "permissions": ["*"], "name": 5 }), "name_invalid", "name"),
        (json!({ "permissions": ["*"], "name": "\u{1b}[2J" }), "name_invalid", "name"),
    ] {
        let refused = app.post(&path, body).await.refused(422, code, &format!("/data/attributes/{field}"));
        assert_eq!(refused.codes().len(), 1);
    }
    let missing = format!("/v1/accounts/{NOBODY}/api-keys");
    let refused = app.call("POST", &missing).bearer(&app.operator).json(&json!({ "permissions": ["*"] })).send().await;
    refused.refused(404, "not_found", "");
}

#[tokio::test]
async fn a_key_makes_no_key_stronger_than_itself() {
    let app = App::start().await;
    let path = format!("/v1/accounts/{}/api-keys", app.account);
    let weak = app.key_for(&[Permission::ApiKeysWrite, Permission::WebhooksRead]).await;
    let make =
        |permissions: Value| app.call("POST", &path).bearer(&weak).json(&json!({ "permissions": permissions })).send();
    make(json!(["webhooks:read"])).await.expect(201);
    make(json!(["webhooks:read", "events:create"])).await.refused(403, "forbidden", "");
    make(json!(["*"])).await.refused(403, "forbidden", "");
}

#[tokio::test]
async fn an_accounts_key_sees_its_own_account_only() {
    let app = App::start().await;
    app.stranger().await;
    let listed = app.get("/v1/accounts").await.expect(200);
    assert_eq!(listed.json["meta"]["pagination"]["total"], 1);
    assert_eq!(listed.json["data"][0]["id"], app.account.to_string());
    app.get(&format!("/v1/accounts/{}", app.account)).await.expect(200);
}
