//! Nobody gives more than they have: keys made with keys, links into pages, and what a session alone may not do.

use std::time::Duration;

use aldaba::clock::{Clock as _, SystemClock};
use aldaba::domain::id::AccountId;
use aldaba::domain::permission::{Permission, Permissions};
use aldaba::domain::time::Timestamp;
use serde_json::{Value, json};

use crate::app::{Answer, App, Call, key_until};
use crate::browser::Browser;

fn keys(account: AccountId) -> String {
    format!("/v1/accounts/{account}/api-keys")
}

/// Makes a key for publishing with this key.
async fn make_with(app: &App, key: &str, expires_at: Value) -> Answer {
    let body = json!({ "permissions": ["events:create"], "expires_at": expires_at });
    app.call("POST", &keys(app.account)).bearer(key).json(&body).send().await
}

#[tokio::test]
async fn a_key_that_is_made_with_a_key_ends_with_it_at_the_latest() {
    let app = App::start().await;
    let in_an_hour = Timestamp::from_millis((SystemClock.now().as_secs() + 3_600) * 1_000);
    let maker = key_until(&app.store, Some(app.account), Permissions::all(), Some(in_an_hour)).await;
    let end = json!(in_an_hour.to_string());
    for wanted in [Value::Null, json!("2099-01-01T00:00:00Z"), end.clone()] {
        let made = make_with(&app, &maker, wanted.clone()).await.expect(201);
        assert_eq!(made.attribute("expires_at"), &end, "asked for {wanted}");
    }
    let sooner = json!(in_an_hour.minus(Duration::from_secs(60)).to_string());
    let made = make_with(&app, &maker, sooner.clone()).await.expect(201);
    assert_eq!(made.attribute("expires_at"), &sooner);
    // A key that never ends sets no end, and the operator's neither.
    for unlimited in [&app.key, &app.operator] {
        assert_eq!(make_with(&app, unlimited, Value::Null).await.expect(201).attribute("expires_at"), &Value::Null);
    }
    // What was cut is what is kept.
    let listed = app.get(&keys(app.account)).await.expect(200);
    let ends =
        listed.json["data"].as_array().expect("keys").iter().filter(|key| key["attributes"]["expires_at"] == end);
    assert_eq!(ends.count(), 4, "the maker and the three that were cut");
}

#[tokio::test]
async fn a_portal_link_that_is_made_with_a_key_ends_with_it_at_the_latest() {
    let app = App::start().await;
    let in_a_minute = Timestamp::from_millis((SystemClock.now().as_secs() + 60) * 1_000);
    let expiring = key_until(&app.store, None, Permissions::all(), Some(in_a_minute)).await;
    let path = format!("/v1/accounts/{}/portal-links", app.account);
    let make = |key: &str| {
        let body = json!({ "permissions": ["webhooks:read"], "expires_in": 86_400 });
        app.call("POST", &path).bearer(key).json(&body).send()
    };
    let cut = make(&expiring).await.expect(201);
    assert_eq!(cut.attribute("expires_at"), &json!(in_a_minute.to_string()));
    let whole = make(&app.operator).await.expect(201);
    let tomorrow = whole.attribute("expires_at").as_str().and_then(Timestamp::parse).expect("a time");
    assert!(tomorrow > in_a_minute.plus(Duration::from_secs(86_000)), "{tomorrow}");
    // What was cut is what is kept.
    let listed = app.get(&path).await.expect(200);
    assert_eq!(listed.json["data"][1]["attributes"]["expires_at"], json!(in_a_minute.to_string()));
}

#[tokio::test]
async fn a_key_that_expires_makes_no_user_who_would_outlive_it_and_gives_nobody_more() {
    let app = App::start().await;
    let in_an_hour = Timestamp::from_millis((SystemClock.now().as_secs() + 3_600) * 1_000);
    let users = format!("/v1/accounts/{}/users", app.account);
    let by = |method: &str, path: &str, key: &str, body: Value| app.call(method, path).bearer(key).json(&body).send();
    let of_account = key_until(&app.store, Some(app.account), Permissions::all(), Some(in_an_hour)).await;
    let of_operator = key_until(&app.store, None, Permissions::all(), Some(in_an_hour)).await;
    let new = json!({ "email": "new@example.com", "role": "owner" });
    let joined = crate::people::user(&app, "viewer@example.com", "viewer").await;
    let one = format!("{users}/{joined}");
    let invited = by("POST", &users, &app.key, json!({ "email": "invited@example.com", "role": "viewer" })).await;
    let invited = format!("{users}/{}/invitation", invited.expect(201).id());
    for key in [&of_account, &of_operator] {
        let refused = by("POST", &users, key, new.clone()).await.refused(403, "key_expires", "");
        let detail = refused.json["errors"][0]["detail"].as_str().expect("a text").to_owned();
        assert!(detail.contains("a key without an end"), "{detail}");
        for link in [&invited, &format!("{one}/invitation")] {
            by("POST", link, key, json!({})).await.refused(403, "key_expires", "");
        }
        by("PUT", &one, key, json!({ "role": "owner" })).await.refused(403, "key_expires", "");
        // The role that a user has takes nothing of them, nor does a lower one.
        by("PUT", &one, key, json!({ "role": "viewer" })).await.expect(200);
    }
    // Another account's users are not there.
    let (stranger, _) = app.stranger().await;
    let theirs = format!("/v1/accounts/{stranger}/users");
    by("POST", &theirs, &of_account, new.clone()).await.refused(404, "not_found", "");
    let listed = app.get(&users).await.expect(200);
    assert_eq!(listed.json["meta"]["pagination"]["total"], 2, "nobody was made");
    // A key without an end invites, and one with an end takes somebody's access away.
    by("POST", &users, &app.key, new).await.expect(201);
    by("DELETE", &one, &of_account, json!({})).await.expect(204);
}

#[tokio::test]
async fn a_key_revokes_no_key_that_may_do_more() {
    let app = App::start().await;
    let id_of = |answer: Answer| answer.id();
    let all = id_of(app.post(&keys(app.account), json!({ "permissions": ["*"] })).await.expect(201));
    let equal = json!({ "permissions": ["api_keys:write"] });
    let equal = id_of(app.post(&keys(app.account), equal).await.expect(201));
    let other = json!({ "permissions": ["api_keys:write", "webhooks:read"] });
    let other = id_of(app.post(&keys(app.account), other).await.expect(201));
    let weak = app.key_for(&[Permission::ApiKeysWrite]).await;
    let revoke = |id: &str, key: &str| app.call("DELETE", &format!("{}/{id}", keys(app.account))).bearer(key).send();
    revoke(&all, &weak).await.refused(403, "forbidden", "");
    revoke(&other, &weak).await.refused(403, "forbidden", "");
    revoke(&equal, &weak).await.expect(204);
    revoke(&equal, &weak).await.refused(404, "not_found", "");
    // Another account's keys are not there, whatever they may do.
    let (stranger, strangers) = app.stranger().await;
    let path = keys(stranger);
    let theirs = Call::new(app.address, "GET", &path).bearer(&strangers).send().await.expect(200);
    let theirs = theirs.json["data"][0]["id"].as_str().expect("an id").to_owned();
    revoke(&theirs, &weak).await.refused(404, "not_found", "");
    app.call("DELETE", &format!("{path}/{theirs}")).bearer(&weak).send().await.refused(404, "not_found", "");
    let listed = app.get(&keys(app.account)).await.expect(200);
    assert!(listed.json["data"].as_array().expect("keys").iter().any(|key| key["id"] == all.as_str()));
    revoke(&all, &app.key).await.expect(204);
}

#[tokio::test]
async fn an_account_has_no_more_keys_than_it_may_have_however_many_are_asked_for_at_once() {
    let app = App::with(&[("API_KEYS__MAX_PER_ACCOUNT", "10")]).await;
    let body = json!({ "permissions": ["events:create"] });
    let asked = (0..30).map(|_| app.call("POST", &keys(app.account)).json(&body).send());
    let answers = asked.collect::<tokio::task::JoinSet<_>>().join_all().await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
    assert_eq!((made.len(), refused.len()), (9, 21), "with the key of the test there are ten");
    for answer in refused {
        let answer = answer.refused(422, "api_key_limit_reached", "");
        assert!(answer.json["errors"][0]["detail"].as_str().expect("a text").contains("10"), "{}", answer.json);
    }
    let listed = app.get(&keys(app.account)).await.expect(200);
    assert_eq!(listed.json["meta"]["pagination"]["total"], 10);
    // One that goes leaves its place, and other accounts have their own.
    app.delete(&format!("{}/{}", keys(app.account), made[0].id())).await.expect(204);
    make_with(&app, &app.key, Value::Null).await.expect(201);
    make_with(&app, &app.key, Value::Null).await.refused(422, "api_key_limit_reached", "");
    let (stranger, strangers) = app.stranger().await;
    Call::new(app.address, "POST", &keys(stranger)).bearer(&strangers).json(&body).send().await.expect(201);
}

#[tokio::test]
async fn an_address_that_cannot_be_decoded_shows_nothing_of_anybodys() {
    let app = App::start().await;
    let mut browser = signed_in(&app, "owner@example.com").await;
    for path in ["/portal/%ff", "/portal/%ff/endpoints", "/accounts/%ff", "/accounts/%ff/api-keys", "/accounts/%ff/x"] {
        let shown = browser.open(path).await.expect(404);
        let policy = shown.answer.header("content-security-policy");
        assert!(policy.ends_with("frame-ancestors 'none'"), "{path}: {policy}");
        assert!(!shown.html.contains("owner@example.com"), "{path}: {}", shown.content());
    }
    let endpoint = format!("/accounts/{}/endpoints/%ff", app.account);
    browser.open(&endpoint).await.expect(404);
}

#[tokio::test]
async fn only_the_page_of_a_link_that_has_expired_may_stand_in_any_frame() {
    let app = App::start().await;
    let mut browser = signed_in(&app, "owner@example.com").await;
    let expired = browser.open(&format!("/portal/{}", "0".repeat(64))).await.expect(404);
    assert!(expired.html.contains("expired") && !expired.html.contains("owner@example.com"), "{}", expired.content());
    assert!(expired.answer.header("content-security-policy").ends_with("frame-ancestors *"));
    let home = format!("/accounts/{}", app.account);
    for path in [home.as_str(), "/me", "/sign-in", "/join/0000", "/operator"] {
        let shown = browser.open(path).await;
        let policy = shown.answer.header("content-security-policy");
        assert!(policy.ends_with("frame-ancestors 'none'"), "{path}: {policy}");
    }
    // A form that another site sends to a portal is refused, and its page stands in no frame.
    let call = Call::new(app.address, "POST", &format!("/portal/{}/endpoints/new", "0".repeat(64)))
        .header("accept", "text/html")
        .header("sec-fetch-site", "cross-site");
    let refused = call.send().await.expect(403);
    assert!(refused.header("content-security-policy").ends_with("frame-ancestors 'none'"));
}

/// Somebody who has joined as an owner of the tests' account.
async fn signed_in(app: &App, email: &str) -> Browser {
    let users = format!("/v1/accounts/{}/users", app.account);
    let made = app.post(&users, json!({ "email": email, "role": "owner" })).await.expect(201);
    crate::people::join(app, made.attribute("invitation_url").as_str().expect("an address"), crate::people::PASSWORD)
        .await
}
