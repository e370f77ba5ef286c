//! What an owner sets of an endpoint beside its URL and types, over the API and in the database.

use serde_json::{Value, json};

use crate::app::{App, EVENT};
use crate::browser::Browser;
use crate::command_line::printed;
use crate::database;

async fn register(app: &App, more: Value) -> crate::app::Answer {
    let mut body = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT] });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    app.post("/v1/webhooks", body).await
}

#[tokio::test]
async fn metadata_is_absent_until_it_is_set_and_replaced_as_a_whole() {
    let app = App::start().await;
    let bare = register(&app, json!({})).await.expect(201);
    let plain = register(&app, json!({ "metadata": null })).await.expect(201);
    for made in [&bare, &plain] {
        assert!(made.json["data"]["attributes"].get("metadata").is_none(), "{}", made.json);
    }
    let notes = json!({ "team": "billing \"ñ\" \u{0}", "cost-center_7": "" });
    let made = register(&app, json!({ "metadata": notes })).await.expect(201);
    assert_eq!(made.attribute("metadata"), &notes);
    let path = format!("/v1/webhooks/{}", made.id());
    assert_eq!(app.get(&path).await.expect(200).attribute("metadata"), &notes);
    let renamed = app.put(&path, json!({ "description": "a" })).await.expect(200);
    assert_eq!(renamed.attribute("metadata"), &notes, "an absent field stays");
    let replaced = app.put(&path, json!({ "metadata": { "team": "sales" } })).await.expect(200);
    assert_eq!(replaced.attribute("metadata"), &json!({ "team": "sales" }));
    assert_eq!(replaced.attribute("description"), "a");
    let rotated = app.call("POST", &format!("{path}/regenerate-secret")).send().await.expect(200);
    assert_eq!(rotated.attribute("metadata"), &json!({ "team": "sales" }));
    let entries = app.get("/v1/audit-log?action=webhook.updated").await.expect(200);
    assert_eq!(entries.json["data"][0]["attributes"]["fields"], json!(["metadata"]));
    assert!(!entries.json.to_string().contains("sales"), "values of fields are not in the audit log");
    assert_eq!(app.put(&path, json!({ "metadata": {} })).await.expect(200).attribute("metadata"), &json!({}));
    let removed = app.put(&path, json!({ "metadata": null })).await.expect(200);
    assert!(removed.json["data"]["attributes"].get("metadata").is_none(), "{}", removed.json);
}

#[tokio::test]
async fn metadata_that_is_not_allowed_is_refused_in_both_languages_and_changes_nothing() {
    let app = App::start().await;
    let (id, _) = app.endpoint("http://127.0.0.1:9/").await;
    let path = format!("/v1/webhooks/{id}");
    let many: Value = (0..21).map(|n| (format!("k{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    let pointer = "/data/attributes/metadata";
    for wrong in [
        json!("team"),
        json!(["team"]),
        json!(7),
        json!({ "team": 7 }),
        json!({ "team": null }),
        json!({ "team": { "a": "b" } }),
        json!({ "": "a" }),
        json!({ "a b": "a" }),
        json!({ "ñ": "a" }),
        json!({ "k".repeat(65): "a" }),
        json!({ "a": "ñ".repeat(513) }),
        many,
    ] {
        let refused = app.put(&path, json!({ "metadata": wrong })).await;
        let refused = refused.refused(422, "webhook_metadata_invalid", pointer);
        let detail = refused.json["errors"][0]["detail"].as_str().expect("a detail");
        assert!(detail.contains("20 keys") && detail.contains("512 characters"), "{detail}");
        register(&app, json!({ "metadata": wrong })).await.refused(422, "webhook_metadata_invalid", pointer);
    }
    let spanish = app.call("PUT", &path).header("accept-language", "es").json(&json!({ "metadata": 7 })).send().await;
    let detail = spanish.json["errors"][0]["detail"].as_str().expect("a detail");
    assert!(detail.contains("20 claves") && detail.contains("512 caracteres"), "{detail}");
    let all = app.put(&path, json!({ "url": 1, "metadata": 7, "status": 1 })).await.expect(422);
    assert_eq!(all.codes(), ["webhook_url_invalid_type", "webhook_status_invalid", "webhook_metadata_invalid"]);
    let listed = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(listed.json["data"].as_array().map(Vec::len), Some(1));
    assert!(listed.json["data"][0]["attributes"].get("metadata").is_none());
    let nothing = app.put(&path, json!({})).await.refused(422, "no_valid_fields", "");
    let detail = nothing.json["errors"][0]["detail"].as_str().expect("a detail");
    assert!(detail.contains("url, events, description, status, ordering, metadata"), "{detail}");
}

#[tokio::test]
async fn settings_of_a_later_program_stay_when_this_one_changes_an_endpoint() {
    let app = App::start().await;
    let made = register(&app, json!({ "metadata": { "team": "a" } })).await.expect(201);
    let later = r#"UPDATE endpoints SET settings = '{"version":1,"sparkle":[3],"metadata":{"team":"a"}}'"#;
    database::execute(app.folder(), later).await;
    let path = format!("/v1/webhooks/{}", made.id());
    let changed = app.put(&path, json!({ "description": "b", "metadata": null })).await.expect(200);
    assert!(changed.json["data"]["attributes"].get("metadata").is_none());
    let kept = r#"SELECT COUNT(*) FROM endpoints WHERE settings LIKE '%"sparkle":[3]%' AND settings NOT LIKE '%team%'"#;
    assert_eq!(database::number(app.folder(), kept).await, 1);
}

#[tokio::test]
async fn an_endpoint_that_an_older_program_has_made_has_no_settings_yet() {
    let app = App::start().await;
    let (id, _) = app.endpoint("http://127.0.0.1:9/").await;
    // Its insert does not name the column.
    database::execute(app.folder(), "UPDATE endpoints SET settings = '{}'").await;
    let path = format!("/v1/webhooks/{id}");
    app.get(&path).await.expect(200);
    let changed = app.put(&path, json!({ "metadata": { "a": "b" } })).await.expect(200);
    assert_eq!(changed.attribute("metadata"), &json!({ "a": "b" }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_written_and_shown_in_the_dashboard() {
    let app = App::start().await;
    let account = app.account.to_string();
    let url = printed(app.folder(), &["users", "create", "o@example.com", "--account", &account, "--role", "owner"]);
    let path = format!("/join/{}", url.rsplit('/').next().expect("a token"));
    let mut browser = Browser::new(&app);
    let page = browser.open(&path).await.expect(200);
    let password = [("password", "correct horse battery"), ("again", "correct horse battery")];
    browser.submit(&page, &path, &password).await.expect(200);
    let new = format!("/accounts/{account}/endpoints/new");
    let page = browser.open(&new).await.expect(200);
    let form = |metadata: &'static str| [("url", "http://127.0.0.1:9/"), ("events", EVENT), ("metadata", metadata)];
    for (wrong, words) in [("{\"team\"", "ends early"), ("{\"team\": 7}", "20 keys"), ("[]", "20 keys")] {
        let refused = browser.submit(&page, &new, &form(wrong)).await.expect(422);
        assert!(refused.html.contains("f-metadata-error") && refused.html.contains(words), "{}", refused.content());
    }
    browser.submit(&page, &new, &form("{\"team\": \"<b>billing</b>\"}")).await.expect(200);
    let listed = app.get("/v1/webhooks").await.expect(200);
    let made = &listed.json["data"][0];
    assert_eq!(made["attributes"]["metadata"], json!({ "team": "<b>billing</b>" }));
    let endpoint = format!("/accounts/{account}/endpoints/{}", made["id"].as_str().expect("an id"));
    let shown = browser.open(&endpoint).await.expect(200);
    assert!(shown.html.contains("&lt;b&gt;billing&lt;/b&gt;"), "{}", shown.content());
    let edit = format!("{endpoint}/edit");
    let page = browser.open(&edit).await.expect(200);
    assert!(page.html.contains("&quot;team&quot;: &quot;&lt;b&gt;billing"), "{}", page.content());
    browser.submit(&page, &edit, &form("")).await.expect(200);
    let removed = app.get("/v1/webhooks").await.expect(200);
    assert!(removed.json["data"][0]["attributes"].get("metadata").is_none(), "an empty field removes it");
}
