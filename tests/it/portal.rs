//! Portal links after they were made: who has come by them is written down, and they can be ended before their time.

use aldaba::domain::permission::Permission as P;
use aldaba::store::Accounts;
use serde_json::{Value, json};

use crate::app::{App, Call, key};
use crate::browser::Browser;

/// Makes a link: its id, and the path that it opens.
async fn link(app: &App) -> (String, String) {
    let path = format!("/v1/accounts/{}/portal-links", app.account);
    let new = json!({ "permissions": ["webhooks:read"], "brand": "Acme" });
    let made = app.call("POST", &path).bearer(&app.operator).json(&new).send().await.expect(201);
    assert_eq!(made.attribute("opened_at"), &Value::Null);
    let url = made.attribute("url").as_str().expect("an address").to_owned();
    (made.id(), url.split_once("localhost").expect("our address").1.to_owned())
}

#[tokio::test]
async fn a_portal_link_that_was_revoked_opens_nothing_from_the_next_click_on() {
    let app = App::start().await;
    let links = format!("/v1/accounts/{}/portal-links", app.account);
    let (id, portal) = link(&app).await;
    let (other, other_portal) = link(&app).await;
    let mut browser = Browser::new(&app);
    browser.open(&portal).await.expect(200);
    app.delete(&format!("{links}/{id}")).await.expect(204);
    for path in [portal.clone(), format!("{portal}/endpoints"), format!("{portal}/theme.css")] {
        browser.open(&path).await.expect(404);
    }
    app.delete(&format!("{links}/{id}")).await.refused(404, "not_found", "");
    let log = app.get(&format!("/v1/audit-log?action=portal_link.revoked&resource_id={id}")).await.expect(200);
    assert_eq!(log.json["data"][0]["attributes"]["actor_type"], "api_key");
    // The other one lives, until the operator ends it.
    browser.open(&other_portal).await.expect(200);
    let revoke = app.call("DELETE", &format!("{links}/{other}")).bearer(&app.operator);
    revoke.send().await.expect(204);
    browser.open(&other_portal).await.expect(404);
}

#[tokio::test]
async fn portal_links_are_listed_without_their_addresses_for_those_who_may() {
    let app = App::start().await;
    let links = format!("/v1/accounts/{}/portal-links", app.account);
    let made = [link(&app).await, link(&app).await];
    let listed = app.get(&links).await.expect(200);
    assert_eq!(listed.json["meta"]["pagination"]["total"], 2);
    for (id, portal) in &made {
        let token = portal.rsplit('/').next().expect("a token");
        assert!(listed.json.to_string().contains(id) && !listed.json.to_string().contains(token));
    }
    assert_eq!(listed.json["data"][0]["attributes"]["permissions"], json!(["webhooks:read"]));
    let second = app.get(&format!("{links}?page=2&per_page=1")).await.expect(200);
    assert_eq!(second.json["data"], json!([listed.json["data"][1]]));
    let operator = Call::new(app.address, "GET", &links).bearer(&app.operator).send().await.expect(200);
    assert_eq!(operator.json["data"], listed.json["data"]);
    // What is another account's does not exist, and a key does what it may.
    let (_, stranger) = app.stranger().await;
    let one = format!("{links}/{}", made[0].0);
    for (method, path) in [("GET", &links), ("DELETE", &one)] {
        Call::new(app.address, method, path).bearer(&stranger).send().await.refused(404, "not_found", "");
        let weak = app.key_for(&[P::WebhooksRead, P::PortalLinksCreate]).await;
        Call::new(app.address, method, path).bearer(&weak).send().await.refused(403, "forbidden", "");
    }
    let of_stranger = app.store.create_account("another".into(), None).await.expect("an account").id;
    let theirs = key(&app.store, Some(of_stranger), &[P::All]).await;
    let theirs = Call::new(app.address, "DELETE", &format!("/v1/accounts/{of_stranger}/portal-links/{}", made[0].0))
        .bearer(&theirs);
    theirs.send().await.refused(404, "not_found", "");
    app.delete(&format!("{links}/none")).await.refused(404, "not_found", "");
}

#[tokio::test]
async fn the_first_opening_of_a_portal_link_is_in_the_audit_log_once() {
    let app = App::start().await;
    let (id, portal) = link(&app).await;
    let opened = format!("/v1/audit-log?action=portal_link.opened&resource_id={id}");
    assert_eq!(app.get(&opened).await.expect(200).json["meta"]["pagination"]["total"], 0);
    let mut browser = Browser::new(&app);
    let first = browser.open(&portal).await.expect(200);
    browser.open(&format!("{portal}/endpoints")).await.expect(200);
    browser.open(&portal).await.expect(200);
    let log = app.get(&opened).await.expect(200);
    assert_eq!(log.json["meta"]["pagination"]["total"], 1);
    let entry = &log.json["data"][0]["attributes"];
    assert_eq!((&entry["actor_type"], &entry["actor_id"]), (&json!("portal_link"), &json!(id)));
    assert_eq!(entry["ip_address"], "127.0.0.1");
    assert_eq!(entry["request_id"], first.answer.header("x-request-id"));
    let listed = app.get(&format!("/v1/accounts/{}/portal-links", app.account)).await.expect(200);
    assert_eq!(listed.json["data"][0]["attributes"]["opened_at"], entry["created_at"]);
    // A token that is none leaves nothing behind.
    browser.open(&format!("/portal/{}", "0".repeat(64))).await.expect(404);
    let all = app.get("/v1/audit-log?action=portal_link.opened").await.expect(200);
    assert_eq!(all.json["meta"]["pagination"]["total"], 1);
}
