//! The dashboard: every page that leads from another is there, small, closed to strangers, and shows what is hostile as
//! text.

use std::collections::{BTreeSet, VecDeque};

use serde_json::json;

use crate::app::{Answer, App, Call, EVENT, Receiver, Reply, eventually};
use crate::browser::{Browser, Shown};
use crate::command_line::printed;

const PASSWORD: &str = "correct horse battery";

/// Largest page, in bytes.
const MAX_PAGE: usize = 150_000;

/// What somebody would have others run.
const HOSTILE: &str = "</pre></textarea><script>alert(1)</script><img src=x onerror=alert(1)>'\"";

/// Somebody who has signed in.
async fn signed_in(app: &App, email: &str, whose: &[&str]) -> Browser {
    let url = printed(app.folder(), &[&["users", "create", email][..], whose].concat());
    let path = format!("/join/{}", url.rsplit('/').next().expect("a token"));
    let mut browser = Browser::new(app);
    let page = browser.open(&path).await.expect(200);
    browser.submit(&page, &path, &[("password", PASSWORD), ("again", PASSWORD)]).await.expect(200);
    browser
}

async fn owner(app: &App) -> Browser {
    signed_in(app, "owner@example.com", &["--account", &app.account.to_string(), "--role", "owner"]).await
}

/// What holds for every page.
#[track_caller]
fn is_sound(page: &Shown) {
    let policy = page.answer.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{}: {policy}", page.path);
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors"), "{}: {policy}", page.path);
    assert_eq!(page.answer.header("x-content-type-options"), "nosniff");
    assert_eq!(page.answer.header("cache-control"), "no-store");
    assert!(page.html.len() < MAX_PAGE, "{} has {} bytes", page.path, page.html.len());
    for hostile in ["<script>", "<img", " style=\"", " onerror=\""] {
        assert!(!page.html.contains(hostile), "{} has {hostile}: {}", page.path, page.content());
    }
    for outside in ["src=\"http", "href=\"http", "src=\"//", "href=\"//"] {
        assert!(!page.html.contains(outside), "{} leads outside: {outside}", page.path);
    }
    assert_eq!(page.html.matches("<h1").count(), 1, "{} has one heading", page.path);
    let mut ids: Vec<_> = page.html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "{} has an id twice", page.path);
}

/// Opens every page that can be come to from `start`, and returns their addresses without what follows the path.
async fn everywhere(browser: &mut Browser, start: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut waiting = VecDeque::from([start.to_owned()]);
    while let Some(path) = waiting.pop_front() {
        let skipped = ["/docs", "/assets/", "/theme.css", "/export"].iter().any(|part| path.contains(part));
        if skipped || path.contains("lang=") || !seen.insert(path.clone()) {
            continue;
        }
        let page = browser.open(&path).await.expect(200);
        is_sound(&page);
        waiting.extend(page.links());
    }
    seen.into_iter().map(|path| path.split('?').next().unwrap_or("").to_owned()).collect()
}

/// An account in which something has happened, much of it hostile.
async fn lively() -> (App, Receiver) {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "1h")]).await;
    let receiver = Receiver::start().await;
    let url = format!("{}?q=%3Cscript%3E&x='", receiver.url());
    let endpoint = json!({ "url": url, "events": [EVENT], "description": HOSTILE });
    let id = app.post("/v1/webhooks", endpoint).await.expect(201).id();
    let hostile = || Reply::Full(500, vec![("content-type", "text/html".into())], HOSTILE.into());
    receiver.script([hostile(), Reply::Status(200), Reply::Status(410)]);
    for status in ["retrying", "success", "failed"] {
        app.publish(json!({ "text": HOSTILE })).await;
        app.delivery(&id, status).await;
    }
    let silent = json!({ "url": receiver.url(), "events": [EVENT, "endpoint.disabled"], "ordering": "fifo" });
    let second = app.post("/v1/webhooks", silent).await.expect(201).id();
    app.put(&format!("/v1/webhooks/{second}"), json!({ "status": "disabled" })).await.expect(200);
    app.publish(json!({})).await;
    let account = format!("/v1/accounts/{}", app.account);
    let key = json!({ "permissions": ["events:create"], "name": HOSTILE });
    app.post(&format!("{account}/api-keys"), key).await.expect(201);
    app.put(&account, json!({ "name": HOSTILE })).await.expect(200);
    let link = json!({ "permissions": ["webhooks:read"], "brand": &HOSTILE[..42] });
    app.call("POST", &format!("{account}/portal-links")).bearer(&app.operator).json(&link).send().await.expect(201);
    let entry = json!({ "name": "order.shipped", "description": HOSTILE, "example": { "text": HOSTILE } });
    app.call("POST", "/v1/event-types").bearer(&app.operator).json(&entry).send().await.expect(201);
    (app, receiver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_of_an_account_is_there_small_and_sound() {
    let (app, _receiver) = lively().await;
    let mut browser = owner(&app).await;
    let seen = everywhere(&mut browser, &format!("/accounts/{}", app.account)).await;
    let pages = [
        "/endpoints/new",
        "/deliveries",
        "/event-types",
        "/api-keys/new",
        "/users/invite",
        "/portal-links",
        "/audit-log",
    ];
    for page in pages {
        assert!(seen.iter().any(|path| path.ends_with(page)), "nothing leads to {page}: {seen:#?}");
    }
    for page in ["/rotate", "/delete", "/edit", "/replay", "/revoke"] {
        assert!(seen.iter().any(|path| path.ends_with(page)), "nothing leads to …{page}: {seen:#?}");
    }
    assert!(seen.contains("/me") && seen.contains("/me/two-factor"));
    assert!(seen.iter().any(|path| path.contains("/portal-links/") && path.ends_with("/revoke")), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_of_an_account_is_there_in_spanish_and_for_a_viewer() {
    let (app, _receiver) = lively().await;
    let account = app.account.to_string();
    let mut browser =
        signed_in(&app, "eva@example.com", &["--account", &account, "--role", "viewer"]).await.in_spanish();
    let seen = everywhere(&mut browser, &format!("/accounts/{account}")).await;
    for page in ["/rotate", "/delete", "/edit", "/new", "/revoke", "/users", "/api-keys", "/audit-log"] {
        assert!(!seen.iter().any(|path| path.ends_with(page)), "a viewer is led to {page}");
    }
    assert!(seen.iter().any(|path| path.contains("/deliveries/")));
    let page = browser.open(&format!("/accounts/{account}/deliveries")).await.expect(200);
    assert!(page.html.contains("lang=\"es\"") && page.html.contains("Entregas"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_of_the_operator_is_there() {
    let (app, _receiver) = lively().await;
    let mut browser = signed_in(&app, "ops@example.com", &["--operator"]).await;
    let seen = everywhere(&mut browser, "/operator").await;
    for page in ["/operator/accounts/new", "/operator/event-types/new", "/operator/audit-log", "/operator/event-types"]
    {
        assert!(seen.contains(page), "nothing leads to {page}: {seen:#?}");
    }
    assert!(
        seen.contains(&format!("/accounts/{}", app.account)) && seen.contains("/operator/event-types/order.shipped")
    );
}

#[tokio::test]
async fn portal_links_are_listed_and_revoked_by_those_who_may_in_both_languages() {
    let app = App::start().await;
    let links = format!("/v1/accounts/{}/portal-links", app.account);
    let page = format!("/accounts/{}/portal-links", app.account);
    let mut browser = owner(&app).await;
    let none = browser.open(&page).await.expect(200);
    assert!(none.html.contains("No portal link is open"), "{}", none.content());
    let make = |brand: &str| {
        let new = json!({ "permissions": ["webhooks:read", "events:read"], "brand": brand });
        app.call("POST", &links).bearer(&app.operator).json(&new).send()
    };
    let (acme, other) = (make("Acme Pay").await.expect(201), make("Other").await.expect(201));
    let address = |made: &Answer| made.attribute("url").as_str().expect("an address").to_owned();
    let (portal, token) = (address(&acme), address(&acme).rsplit('/').next().expect("a token").to_owned());
    let portal = portal.split_once("localhost").expect("our address").1;
    Browser::new(&app).open(portal).await.expect(200);
    let listed = browser.open(&page).await.expect(200);
    is_sound(&listed);
    for shown in ["Acme Pay", "Other", "events:read", &acme.id()] {
        assert!(listed.html.contains(shown), "{shown}: {}", listed.content());
    }
    assert_eq!(listed.html.matches("Never").count(), 1, "one was opened: {}", listed.content());
    assert!(!listed.html.contains(&token), "the address is the key");
    // A developer does not see them, and the holder of a link neither.
    let account = app.account.to_string();
    let mut developer = signed_in(&app, "dev@example.com", &["--account", &account, "--role", "developer"]).await;
    developer.open(&page).await.expect(403);
    assert!(!developer.open(&format!("/accounts/{}", app.account)).await.html.contains("/portal-links"));
    Browser::new(&app).open(&format!("{portal}/portal-links")).await.expect(403);
    // Whoever asks sees what will happen, and then it has.
    let revoke = format!("{page}/{}/revoke", acme.id());
    developer.open(&revoke).await.expect(403);
    let ask = browser.open(&revoke).await.expect(200);
    assert!(ask.html.contains("Acme Pay") && ask.html.contains("sees nothing more"), "{}", ask.content());
    Browser::new(&app).open(portal).await.expect(200);
    let left = browser.submit(&ask, &revoke, &[]).await.expect(200);
    assert!(left.path == page && left.html.contains("Other") && !left.html.contains("Acme Pay"), "{}", left.content());
    Browser::new(&app).open(portal).await.expect(404);
    assert_eq!(browser.submit(&ask, &revoke, &[]).await.expect(200).path, page, "sent twice, it is done once");
    let log = app.get("/v1/audit-log?action=portal_link.revoked").await.expect(200);
    assert_eq!(log.json["meta"]["pagination"]["total"], 1);
    assert_eq!(log.json["data"][0]["attributes"]["actor_name"], "owner@example.com");
    let mut browser = browser.in_spanish();
    let spanish = browser.open(&format!("{page}/{}/revoke", other.id())).await.expect(200);
    assert!(spanish.html.contains("¿Revocar el enlace al portal?"), "{}", spanish.content());
}

#[tokio::test]
async fn an_account_that_is_not_there_has_no_pages_for_an_operator_either() {
    let app = App::start().await;
    let mut browser = signed_in(&app, "ops@example.com", &["--operator"]).await;
    let nowhere = "/accounts/00000000-0000-4000-8000-000000000000";
    for path in ["", "/endpoints/new", "/event-types", "/audit-log", "/audit-log/export"] {
        browser.open(&format!("{nowhere}{path}")).await.expect(404);
    }
}

#[tokio::test]
async fn what_is_nested_deeply_is_refused_before_it_breaks_a_page() {
    let app = App::start().await;
    let nested = |levels: usize| {
        serde_json::from_str::<serde_json::Value>(&format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels)))
            .expect("JSON")
    };
    let entry = |levels| {
        let body = json!({ "name": format!("deep.n{levels}"), "example": nested(levels) });
        app.call("POST", "/v1/event-types").bearer(&app.operator).json(&body).send()
    };
    entry(63).await.expect(201);
    entry(64).await.refused(422, "event_type_example_invalid", "/data/attributes/example");
    let body = json!({ "name": "deep.schema", "schema": { "not": nested(70) } });
    let refused = app.call("POST", "/v1/event-types").bearer(&app.operator).json(&body).send().await;
    refused.refused(422, "event_type_schema_invalid", "/data/attributes/schema");
    let mut browser = owner(&app).await;
    for path in ["/event-types", "/event-types/deep.n63", "/endpoints/new"] {
        browser.open(&format!("/accounts/{}{path}", app.account)).await.expect(200);
    }
}

#[tokio::test]
async fn an_empty_account_says_what_to_do_next() {
    let app = App::start().await;
    let mut browser = owner(&app).await;
    let home = format!("/accounts/{}", app.account);
    for path in ["", "/endpoints", "/deliveries", "/events"] {
        let page = browser.open(&format!("{home}{path}")).await.expect(200);
        is_sound(&page);
        assert!(
            page.html.contains("class=\"empty\"") || page.html.contains("/endpoints/new"),
            "{path}: {}",
            page.content()
        );
    }
}

#[tokio::test]
async fn what_waits_for_a_paused_endpoint_says_so_and_a_slash_too_many_is_forgiven() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "1h")]).await;
    let receiver = Receiver::start().await;
    receiver.always(Reply::Status(500));
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    app.delivery(&id, "retrying").await;
    app.put(&format!("/v1/webhooks/{id}"), json!({ "status": "disabled" })).await.expect(200);
    let mut browser = owner(&app).await;
    let page = browser.open(&format!("/accounts/{}/endpoints/{id}", app.account)).await.expect(200);
    assert!(page.html.contains("waits until the endpoint is active") && !page.html.contains("next attempt"));
    let home = format!("/accounts/{}", app.account);
    let answer = browser.once("GET", &format!("{home}/"), None).await.expect(308);
    assert_eq!(answer.header("location"), home);
}

#[tokio::test]
async fn nothing_is_shown_to_who_is_not_signed_in() {
    let app = App::start().await;
    let mut browser = Browser::new(&app);
    let home = format!("/accounts/{}", app.account);
    for path in [&home, &format!("{home}/deliveries?q=x"), "/me", "/operator", &format!("{home}/deliveries/export")] {
        let answer = browser.once("GET", path, None).await.expect(303);
        let next = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", path).finish();
        assert_eq!(answer.header("location"), format!("/sign-in?{next}"));
    }
    let page = browser.open("/").await.expect(200);
    assert_eq!(page.path, "/sign-in");
    is_sound(&page);
    browser.once("POST", &format!("{home}/endpoints/new"), Some(&[])).await.expect(303);
    let large = "a&".repeat(200_000);
    let refused = Call::new(app.address, "POST", "/sign-in").header("accept", "text/html").body(large).send().await;
    assert_eq!(refused.status, 413, "nobody unknown sends much");
    let program = Call::new(app.address, "GET", "/").send().await.expect(200);
    assert!(String::from_utf8_lossy(&program.text).contains("/v1/webhooks"), "a program is told what there is");
}

/// The secret on a page whose last characters are those of the hint.
fn secret_of(page: &Shown, hint: &str) -> Option<String> {
    let words = page.html.split(|c: char| !c.is_ascii_hexdigit());
    words.filter(|word| word.len() == 64).find(|word| hint.ends_with(&word[60..])).map(str::to_owned)
}

#[tokio::test]
async fn what_is_made_on_a_page_is_made_once_and_its_secret_shown_once() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let mut browser = owner(&app).await;
    let new = format!("/accounts/{}/endpoints/new", app.account);
    let page = browser.open(&new).await.expect(200);
    let wrong = browser.submit(&page, &new, &[("url", "nonsense"), ("events", EVENT)]).await.expect(422);
    assert!(wrong.html.contains("value=\"nonsense\"") && wrong.html.contains("f-url-error"), "{}", wrong.content());
    let fields = [("url", &*receiver.url()), ("events", EVENT), ("description", "mine"), ("ordering", "none")];
    let made = browser.submit(&page, &new, &fields).await.expect(200);
    let listed = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(listed.json["data"].as_array().map(Vec::len), Some(1));
    let hint = listed.json["data"][0]["attributes"]["secret_hint"].as_str().expect("a hint").to_owned();
    let secret = secret_of(&made, &hint).expect("the secret is shown");
    let again = browser.submit(&page, &new, &fields).await.expect(200);
    assert!(!again.html.contains(&secret), "and not a second time");
    assert_eq!(app.get("/v1/webhooks").await.json["data"].as_array().map(Vec::len), Some(1));

    let id = listed.json["data"][0]["id"].as_str().expect("an id").to_owned();
    let endpoint = format!("/accounts/{}/endpoints/{id}", app.account);
    let ask = browser.open(&format!("{endpoint}/rotate")).await.expect(200);
    let rotated = browser.submit(&ask, &format!("{endpoint}/rotate"), &[("overlap_seconds", "0")]).await.expect(200);
    let read = app.get(&format!("/v1/webhooks/{id}")).await.expect(200);
    let new_hint = read.attribute("secret_hint").as_str().expect("a hint").to_owned();
    assert_ne!(new_hint, hint);
    assert!(secret_of(&rotated, &new_hint).is_some(), "{}", rotated.content());
    let shown = browser.open(&endpoint).await.expect(200);
    assert!(shown.html.contains(&new_hint), "afterwards only the hint");

    let ask = browser.open(&format!("{endpoint}/delete")).await.expect(200);
    let action = format!("{endpoint}/delete");
    for typed in ["", "yes", &receiver.url()[1..]] {
        browser.submit(&ask, &action, &[("confirm", typed)]).await.expect(422);
    }
    app.get(&format!("/v1/webhooks/{id}")).await.expect(200);
    browser.submit(&ask, &action, &[("confirm", &receiver.url())]).await.expect(200);
    app.get(&format!("/v1/webhooks/{id}")).await.refused(404, "not_found", "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_list_says_how_far_it_is_counted_and_how_far_its_pages_go() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let first = app.delivery(&endpoint, "success").await["id"].as_str().expect("an id").to_owned();
    if !crate::database::is_postgres() {
        eventually("the delivery to be listed", || async {
            let listed = crate::database::number(app.folder(), "SELECT COUNT(*) FROM delivery_lists").await;
            (listed == 1).then_some(())
        })
        .await;
    }
    crate::database::add_deliveries(app.folder(), &first, (1, 100_000), 2).await;
    let path = format!("/accounts/{}/deliveries", app.account);
    let mut browser = owner(&app).await;
    let filtered = browser.open(&format!("{path}?status=success")).await.expect(200);
    assert!(filtered.html.contains("1–50 of 100,000+"), "{}", filtered.html);
    let all = browser.open(&path).await.expect(200);
    assert!(all.html.contains("1–50 of 100,001") && !all.html.contains("Pages show the newest"));
    let last = browser.open(&format!("{path}?page=2000")).await.expect(200);
    assert!(last.html.contains("99,951–100,000 of 100,001") && !last.html.contains("page=2001"), "{}", last.html);
    assert!(last.html.contains("Pages show the newest 100,000 entries of a list."));
    let behind = browser.open(&format!("{path}?page=2001")).await.expect(200);
    assert!(behind.html.contains("Pages show the newest 100,000 entries of a list."));
    let mut browser = browser.in_spanish();
    let filtered = browser.open(&format!("{path}?status=success&page=2000")).await.expect(200);
    assert!(filtered.html.contains("99.951–100.000 de 100.000+"), "{}", filtered.html);
    assert!(filtered.html.contains("Las páginas muestran las 100.000 entradas más recientes de una lista."));
}
