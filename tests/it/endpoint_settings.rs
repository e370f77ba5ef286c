//! What an owner sets of an endpoint beside its URL and types, over the API and in the database.

use serde_json::{Value, json};

use crate::app::{App, EVENT, Receiver};
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

/// The browser of an owner of the account.
pub async fn owners_browser(app: &App) -> Browser {
    let account = app.account.to_string();
    let url = printed(app.folder(), &["users", "create", "o@example.com", "--account", &account, "--role", "owner"]);
    let path = format!("/join/{}", url.rsplit('/').next().expect("a token"));
    let mut browser = Browser::new(app);
    let page = browser.open(&path).await.expect(200);
    let password = [("password", "correct horse battery"), ("again", "correct horse battery")];
    browser.submit(&page, &path, &password).await.expect(200);
    browser
}

#[tokio::test]
async fn an_endpoint_that_is_registered_as_disabled_receives_nothing_before_it_is_active() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let made = register(&app, json!({ "url": receiver.url(), "status": "disabled" })).await.expect(201);
    assert_eq!(made.attribute("status"), "disabled");
    let publish = || app.post("/v1/events", json!({ "event": EVENT, "data": {} }));
    assert_eq!(publish().await.expect(202).attribute("deliveries"), 0);
    let path = format!("/v1/webhooks/{}", made.id());
    assert_eq!(app.get(&format!("{path}/missed")).await.expect(200).attribute("count"), 1);
    let tested = app.call("POST", &format!("{path}/test")).send().await.expect(200);
    assert_eq!(tested.attribute("delivered"), true);
    app.put(&path, json!({ "status": "active" })).await.expect(200);
    assert_eq!(publish().await.expect(202).attribute("deliveries"), 1);
    receiver.wait_for(2).await;
    let active = register(&app, json!({ "status": "active" })).await.expect(201);
    assert_eq!(active.attribute("status"), "active");
}

#[tokio::test]
async fn a_new_endpoints_status_that_is_not_allowed_is_refused_in_both_languages_and_makes_nothing() {
    let app = App::start().await;
    for wrong in
        [json!(null), json!(""), json!("auto_disabled"), json!("Active"), json!(0), json!(["active"]), json!({})]
    {
        let refused = register(&app, json!({ "status": wrong })).await;
        refused.refused(422, "webhook_status_invalid", "/data/attributes/status");
    }
    let body = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT], "status": 1, "metadata": 7 });
    let spanish = app.call("POST", "/v1/webhooks").header("accept-language", "es").json(&body).send().await.expect(422);
    assert_eq!(spanish.codes(), ["webhook_status_invalid", "webhook_metadata_invalid"]);
    assert_eq!(spanish.json["errors"][0]["detail"], "status debe ser active o disabled.");
    assert_eq!(app.get("/v1/webhooks").await.expect(200).json["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_endpoint_can_be_paused_in_the_dashboard_and_the_form_of_a_change_leaves_its_status() {
    let app = App::start().await;
    let mut browser = owners_browser(&app).await;
    let new = format!("/accounts/{}/endpoints/new", app.account);
    let page = browser.open(&new).await.expect(200);
    let form = |status| [("url", "http://127.0.0.1:9/"), ("events", EVENT), ("status", status)];
    let refused = browser.submit(&page, &new, &form("asleep")).await.expect(422);
    assert!(refused.html.contains("f-status-error"), "{}", refused.content());
    browser.submit(&page, &new, &form("disabled")).await.expect(200);
    let listed = app.get("/v1/webhooks").await.expect(200);
    let made = &listed.json["data"][0];
    assert_eq!(made["attributes"]["status"], "disabled");
    let edit = format!("/accounts/{}/endpoints/{}/edit", app.account, made["id"].as_str().expect("an id"));
    let page = browser.open(&edit).await.expect(200);
    browser.submit(&page, &edit, &[("url", "http://127.0.0.1:9/a"), ("events", EVENT)]).await.expect(200);
    let changed = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(changed.json["data"][0]["attributes"]["url"], "http://127.0.0.1:9/a");
    assert_eq!(changed.json["data"][0]["attributes"]["status"], "disabled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_written_and_shown_in_the_dashboard() {
    let app = App::start().await;
    let account = app.account.to_string();
    let mut browser = owners_browser(&app).await;
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

#[tokio::test]
async fn every_path_takes_an_endpoints_external_id_and_answers_name_the_uuid() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let body = json!({ "url": receiver.url(), "events": [EVENT], "external_id": "shop:7.a_B-c" });
    let made = app.post("/v1/webhooks", body).await.expect(201);
    assert_eq!(made.attribute("external_id"), "shop:7.a_B-c");
    let id = made.id();
    assert!(uuid::Uuid::parse_str(&id).is_ok());
    app.publish(json!({})).await;
    app.delivery(&id, "success").await;
    for path in ["/v1/webhooks/shop:7.a_B-c", "/v1/webhooks/shop%3A7.a_B-c"] {
        let read = app.get(path).await.expect(200);
        assert_eq!((read.id(), read.attribute("external_id")), (id.clone(), &json!("shop:7.a_B-c")));
        let changed = app.put(path, json!({ "description": "a" })).await.expect(200);
        assert_eq!((changed.id(), changed.attribute("external_id")), (id.clone(), &json!("shop:7.a_B-c")));
        app.call("POST", &format!("{path}/regenerate-secret")).send().await.expect(200);
        app.call("POST", &format!("{path}/test")).send().await.expect(200);
        let listed = app.get(&format!("{path}/deliveries")).await.expect(200);
        assert_eq!(listed.json["data"][0]["attributes"]["endpoint_id"], id.as_str());
        app.get(&format!("{path}/deliveries/export")).await.expect(200);
        let replay = app.post(&format!("{path}/replay"), json!({ "from": "2026-01-01" })).await.expect(202);
        assert_eq!(replay.attribute("endpoint_id"), id.as_str());
        assert_eq!(app.get(&format!("{path}/missed")).await.expect(200).id(), id);
    }
    app.get("/v1/webhooks/shop:7.a_b-c").await.refused(404, "not_found", "");
    let (_, stranger) = app.stranger().await;
    app.call("GET", "/v1/webhooks/shop:7.a_B-c").bearer(&stranger).send().await.refused(404, "not_found", "");
    app.delete("/v1/webhooks/shop:7.a_B-c").await.expect(204);
    app.get("/v1/webhooks/shop:7.a_B-c").await.refused(404, "not_found", "");
    let body = json!({ "external_id": "shop:7.a_B-c" });
    register(&app, body).await.expect(201);
}

#[tokio::test]
async fn an_external_id_belongs_to_one_endpoint_of_an_account() {
    let app = App::start().await;
    let pointer = "/data/attributes/external_id";
    let first = register(&app, json!({ "external_id": "a" })).await.expect(201);
    register(&app, json!({ "external_id": "a" })).await.refused(422, "webhook_external_id_taken", pointer);
    let second = register(&app, json!({ "external_id": "b" })).await.expect(201);
    let path = format!("/v1/webhooks/{}", second.id());
    let taken = app.put(&path, json!({ "external_id": "a", "description": "x" })).await;
    taken.refused(422, "webhook_external_id_taken", pointer);
    assert_eq!(app.get(&path).await.expect(200).attribute("description"), &Value::Null, "nothing was changed");
    app.put(&path, json!({ "external_id": "b" })).await.expect(200);
    let (_, stranger) = app.stranger().await;
    let theirs = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT], "external_id": "a" });
    app.call("POST", "/v1/webhooks").bearer(&stranger).json(&theirs).send().await.expect(201);
    let bare = app.put(&format!("/v1/webhooks/{}", first.id()), json!({ "external_id": null })).await.expect(200);
    assert!(bare.json["data"]["attributes"].get("external_id").is_none());
    app.put(&path, json!({ "external_id": "a" })).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_endpoints_that_ask_for_an_external_id_at_once_one_gets_it() {
    let app = App::start().await;
    let mut paths = Vec::new();
    for _ in 0..5 {
        paths.push(format!("/v1/webhooks/{}", app.endpoint("http://127.0.0.1:9/").await.0));
    }
    let asked =
        paths.iter().map(|path| tokio::spawn(app.call("PUT", path).json(&json!({ "external_id": "a" })).send()));
    let mut statuses = Vec::new();
    for asked in asked.collect::<Vec<_>>() {
        statuses.push(asked.await.expect("no panic").status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 422, 422, 422, 422]);
}

#[tokio::test]
async fn an_external_id_that_is_not_allowed_is_refused() {
    let app = App::start().await;
    for wrong in [
        json!(""),
        json!(7),
        json!(["a"]),
        json!("-a"),
        json!("a b"),
        json!("a/b"),
        json!("ñ"),
        json!("a\u{0}"),
        json!("a".repeat(256)),
        json!("8b7967bd-c278-46ca-8bbb-33e3131a6239"),
        json!("8b7967bdc27846ca8bbb33e3131a6239"),
        json!("deliveries"),
        json!("replays"),
        json!("statistics"),
        json!("filters"),
    ] {
        let refused = register(&app, json!({ "external_id": wrong })).await;
        refused.refused(422, "webhook_external_id_invalid", "/data/attributes/external_id");
    }
}

#[tokio::test]
async fn endpoints_are_listed_by_their_external_id_and_their_metadata() {
    let app = App::start().await;
    let first = register(&app, json!({ "external_id": "a", "metadata": { "team": "x", "tier": "" } })).await.id();
    let second = register(&app, json!({ "external_id": "b", "metadata": { "team": "x" } })).await.id();
    register(&app, json!({})).await.expect(201);
    let listed = |query: &'static str| {
        let app = &app;
        async move {
            let found = app.get(&format!("/v1/webhooks?{query}")).await.expect(200);
            let ids = found.json["data"].as_array().expect("a list").iter();
            ids.map(|endpoint| endpoint["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(listed("").await.len(), 3);
    assert_eq!(listed("external_id=").await.len(), 3, "what is empty does not count");
    assert_eq!(listed("external_id=a").await, std::slice::from_ref(&first));
    assert_eq!(listed("external_id=c").await, [""; 0]);
    assert_eq!(listed("metadata.team=x").await, [second.clone(), first.clone()]);
    assert_eq!(listed("metadata.team=x&metadata.tier=").await, std::slice::from_ref(&first));
    assert_eq!(listed("metadata.team=x&external_id=b").await, [second]);
    assert_eq!(listed("metadata.team=y").await, [""; 0]);
    assert_eq!(listed("metadata.Team=x").await, [""; 0]);
    for (query, parameter) in
        [("external_id=a%20b", "external_id"), ("metadata.a.b=x", "metadata"), ("metadata.=", "metadata")]
    {
        let refused = app.get(&format!("/v1/webhooks?{query}")).await.refused(422, "invalid_filter", "");
        assert_eq!(refused.json["errors"][0]["source"]["parameter"], parameter);
    }
}
