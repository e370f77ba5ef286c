//! What an operator sets of an account beside its name: metadata and an external id.

use serde_json::{Value, json};

use crate::app::{App, EVENT, eventually};
use crate::database;

async fn make(app: &App, body: Value) -> crate::app::Answer {
    app.call("POST", "/v1/accounts").bearer(&app.operator).json(&body).send().await
}

async fn change(app: &App, path: &str, body: Value) -> crate::app::Answer {
    app.call("PUT", path).bearer(&app.operator).json(&body).send().await
}

#[tokio::test]
async fn an_operator_sets_an_accounts_metadata_and_external_id() {
    let app = App::start().await;
    let bare = make(&app, json!({ "name": "a" })).await.expect(201);
    for name in ["metadata", "external_id"] {
        assert!(bare.json["data"]["attributes"].get(name).is_none(), "{}", bare.json);
    }
    let notes = json!({ "plan": "pro", "since": "2026" });
    let made = make(&app, json!({ "name": "b", "metadata": notes, "external_id": "cus_7" })).await.expect(201);
    assert_eq!((made.attribute("metadata"), made.attribute("external_id")), (&notes, &json!("cus_7")));
    let renamed = change(&app, "/v1/accounts/cus_7", json!({ "name": "c" })).await.expect(200);
    assert_eq!((renamed.id(), renamed.attribute("metadata")), (made.id(), &notes));
    assert_eq!(renamed.attribute("external_id"), "cus_7");
    let path = format!("/v1/accounts/{}", made.id());
    let changed = change(&app, &path, json!({ "metadata": {}, "external_id": "cus_8" })).await.expect(200);
    assert_eq!((changed.attribute("metadata"), changed.attribute("external_id")), (&json!({}), &json!("cus_8")));
    app.call("GET", "/v1/accounts/cus_7").bearer(&app.operator).send().await.refused(404, "not_found", "");
    let bare = change(&app, "/v1/accounts/cus_8", json!({ "metadata": null, "external_id": null })).await.expect(200);
    for name in ["metadata", "external_id"] {
        assert!(bare.json["data"]["attributes"].get(name).is_none(), "{}", bare.json);
    }
}

#[tokio::test]
async fn what_an_account_cannot_have_is_refused() {
    let app = App::start().await;
    make(&app, json!({ "name": "a", "external_id": "taken" })).await.expect(201);
    let other = make(&app, json!({ "name": "b", "external_id": "deliveries" })).await.expect(201);
    let path = format!("/v1/accounts/{}", other.id());
    for (field, wrong, code) in [
        ("metadata", json!({ "a": 1 }), "account_metadata_invalid"),
        ("metadata", json!("a"), "account_metadata_invalid"),
        ("external_id", json!(7), "account_external_id_invalid"),
        ("external_id", json!("a b"), "account_external_id_invalid"),
        ("external_id", json!(other.id()), "account_external_id_invalid"),
        ("external_id", json!("taken"), "account_external_id_taken"),
    ] {
        let pointer = format!("/data/attributes/{field}");
        change(&app, &path, json!({ field: wrong })).await.refused(422, code, &pointer);
        make(&app, json!({ "name": "c", field: wrong })).await.refused(422, code, &pointer);
    }
    let all = make(&app, json!({ "metadata": 1, "external_id": 1 })).await.expect(422);
    assert_eq!(all.codes(), ["name_required", "account_metadata_invalid", "account_external_id_invalid"]);
    let own = format!("/v1/accounts/{}", app.account);
    for body in [json!({ "metadata": {} }), json!({ "external_id": "mine" }), json!({ "name": "a", "metadata": null })]
    {
        app.put(&own, body).await.refused(403, "forbidden", "");
    }
    app.put(&own, json!({ "name": "by its own key" })).await.expect(200);
}

#[tokio::test]
async fn every_path_and_an_event_take_an_accounts_external_id() {
    let app = App::start().await;
    let own = format!("/v1/accounts/{}", app.account);
    change(&app, &own, json!({ "external_id": "shop" })).await.expect(200);
    assert_eq!(app.get("/v1/accounts/shop").await.expect(200).id(), app.account.to_string());
    for path in ["api-keys", "users", "portal-links"] {
        app.get(&format!("/v1/accounts/shop/{path}")).await.expect(200);
    }
    app.post("/v1/accounts/shop/api-keys", json!({ "permissions": ["events:create"] })).await.expect(201);
    let publish = |key: String, account: &'static str| {
        let body = json!({ "event": EVENT, "data": {}, "account_id": account });
        app.call("POST", "/v1/events").bearer(&key).json(&body).send()
    };
    for key in [&app.operator, &app.key] {
        let accepted = publish(key.clone(), "shop").await.expect(202);
        assert_eq!(accepted.attribute("account_id"), app.account.to_string().as_str());
    }
    let (_, stranger) = app.stranger().await;
    publish(stranger.clone(), "shop").await.refused(404, "not_found", "");
    app.call("GET", "/v1/accounts/shop").bearer(&stranger).send().await.refused(404, "not_found", "");
    publish(app.operator.clone(), "shops").await.refused(404, "not_found", "");
    change(&app, &own, json!({ "external_id": "store" })).await.expect(200);
    publish(app.operator.clone(), "shop").await.refused(404, "not_found", "");
    publish(app.operator.clone(), "store").await.expect(202);
    let batch = json!({ "events": [{ "event": EVENT, "data": {}, "account_id": "store" }] });
    app.call("POST", "/v1/events/batch").bearer(&app.operator).json(&batch).send().await.expect(202);
    app.call("DELETE", "/v1/accounts/store").bearer(&app.operator).send().await.expect(204);
    publish(app.operator.clone(), "store").await.refused(404, "not_found", "");
    make(&app, json!({ "name": "a", "external_id": "store" })).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_external_id_that_was_given_on_one_node_is_known_on_another_and_after_a_restart() {
    let app = App::start().await;
    let own = format!("/v1/accounts/{}", app.account);
    let body = json!({ "event": EVENT, "data": {}, "account_id": "shop" });
    if database::is_postgres() {
        let other = app.another(&[]).await;
        change(&app, &own, json!({ "external_id": "shop" })).await.expect(200);
        other.call("POST", "/v1/events").bearer(&app.operator).json(&body).send().await.expect(202);
    } else {
        change(&app, &own, json!({ "external_id": "shop" })).await.expect(200);
    }
    let operator = app.operator.clone();
    let app = app.restart(&[]).await;
    eventually("the account to be known", || async {
        let answer = app.call("POST", "/v1/events").bearer(&operator).json(&body).send().await;
        (answer.status == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_operator_says_where_requests_of_an_account_may_go_and_nobody_else_sees_it() {
    let app = App::start().await;
    let names = ["egress_allow_networks", "egress_deny_networks"];
    let (allowed, denied) = (json!(["10.1.0.0/16", "fd00:7::/32"]), json!(["1.2.3.0/24"]));
    let body = json!({ "name": "a", names[0]: allowed, names[1]: denied });
    let made = make(&app, body).await.expect(201);
    assert_eq!((made.attribute(names[0]), made.attribute(names[1])), (&allowed, &denied));
    let path = format!("/v1/accounts/{}", made.id());
    let changed = change(&app, &path, json!({ names[0]: ["FD00:8::/32"], "name": "b" })).await.expect(200);
    assert_eq!((changed.attribute(names[0]), changed.attribute(names[1])), (&json!(["fd00:8::/32"]), &denied));
    let bare = change(&app, &path, json!({ names[0]: null, names[1]: [] })).await.expect(200);
    assert_eq!((bare.json["data"]["attributes"].get(names[0]), bare.attribute(names[1])), (None, &json!([])));
    for name in names {
        let many: Vec<String> = (0..65).map(|n| format!("10.{n}.0.0/16")).collect();
        for wrong in [
            json!("10.0.0.0/8"),
            json!({}),
            json!([7]),
            json!(["10.0.0.0"]),
            json!(["10.0.0.1/8"]),
            json!(["10.0.0.0/33"]),
            json!(["10.0.0.0/8", "10.0.0.0/8"]),
            json!(many),
        ] {
            let (code, pointer) = ("account_egress_networks_invalid", format!("/data/attributes/{name}"));
            change(&app, &path, json!({ name: wrong })).await.refused(422, code, &pointer);
            make(&app, json!({ "name": "c", name: wrong })).await.refused(422, code, &pointer);
        }
        app.put(&format!("/v1/accounts/{}", app.account), json!({ name: [] })).await.refused(403, "forbidden", "");
    }
    let both = make(&app, json!({ "name": "c", names[0]: 1, names[1]: 1 })).await.expect(422);
    assert_eq!(both.codes(), ["account_egress_networks_invalid"; 2]);
    let own = format!("/v1/accounts/{}", app.account);
    change(&app, &own, json!({ names[0]: ["10.0.0.0/8"], names[1]: ["10.9.0.0/16"] })).await.expect(200);
    let seen = app.get(&own).await.expect(200);
    let listed = app.get("/v1/accounts").await.expect(200);
    for attributes in [&seen.json["data"]["attributes"], &listed.json["data"][0]["attributes"]] {
        assert!(names.iter().all(|name| attributes.get(*name).is_none()), "{attributes}");
    }
}
