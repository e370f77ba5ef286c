//! Tries to sign in: what wrong ones cost and leave, whom they keep out, and how many codes of a second factor can be
//! guessed.

use std::collections::BTreeSet;

use aldaba::api::hash_password;
use aldaba::clock::SystemRandom;
use aldaba::domain::account::KeyHash;
use aldaba::domain::user::{Email, Role};
use aldaba::store::{NewUser, SignIn, Users};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::app::{Answer, App, Call, eventually};
use crate::browser::Browser;
use crate::crash::Server;
use crate::people::{PASSWORD, join, user};
use crate::second_factor::Factor;

const OWNER: &str = "owner@example.com";
const OTHER: &str = "other@example.com";

/// A try to sign in through the proxy that is trusted, with the cookies of a device.
async fn attempt(app: &App, from: &str, cookies: &str, fields: [&str; 3]) -> Answer {
    let pairs = ["email", "password", "code"].into_iter().zip(fields);
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let call = Call::new(app.address, "POST", "/sign-in").header("x-forwarded-for", from).header("cookie", cookies);
    let call = call.header("accept", "text/html").header("content-type", "application/x-www-form-urlencoded");
    call.body(form).send().await
}

/// The cookie of this name that an answer sets, as a browser sends it back.
fn cookie_of(answer: &Answer, name: &str) -> Option<String> {
    let set = answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    let mut pairs = set.filter_map(|set| set.split(';').next());
    pairs.find(|pair| pair.starts_with(&format!("{name}="))).map(str::to_owned)
}

fn device_of(answer: &Answer) -> Option<String> {
    cookie_of(answer, "aldaba_device")
}

/// Signs in: the device cookie.
async fn known_device(app: &App, from: &str, email: &str, code: &str) -> String {
    let answer = attempt(app, from, "", [email, PASSWORD, code]).await.expect(303);
    device_of(&answer).expect("a device cookie")
}

async fn proxied(limit: &str) -> App {
    App::with(&[("RATE_LIMITS__RATE_LIMITED_LOGIN", limit), ("TRUSTED_PROXIES", "127.0.0.1")]).await
}

/// The entries of the account's audit log on wrong tries, once there are any.
async fn failures(app: &App, key: &str) -> Vec<Value> {
    eventually("an entry in the audit log", || async {
        let call = Call::new(app.address, "GET", "/v1/audit-log?action=user.sign_in_failed").bearer(key);
        let found = call.send().await.expect(200).json["data"].as_array().expect("entries").clone();
        (!found.is_empty()).then_some(found)
    })
    .await
}

#[tokio::test]
async fn wrong_tries_from_one_network_do_not_keep_the_right_person_out_of_another() {
    let app = proxied("3/60s").await;
    user(&app, OWNER, "owner").await;
    for from in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        attempt(&app, from, "", [OWNER, "wrong", ""]).await.expect(401);
    }
    let refused = attempt(&app, "203.0.113.4", "", [OWNER, PASSWORD, ""]).await.expect(429);
    assert!((1..=60).contains(&refused.header("retry-after").parse::<u64>().expect("seconds")));
    attempt(&app, "203.0.113.4", "", [OTHER, "wrong", ""]).await.expect(401);
    // Right ones are not counted.
    for _ in 0..5 {
        attempt(&app, "198.51.100.7", "", [OWNER, PASSWORD, ""]).await.expect(303);
    }
}

#[tokio::test]
async fn right_sign_ins_are_bounded_for_a_user_and_for_an_address_by_ten_times_the_limit() {
    let app = proxied("1/60s").await;
    for email in [OWNER, OTHER] {
        let email = Email::parse(email).expect("an address");
        let password = hash_password(PASSWORD, None, &SystemRandom::default());
        let new = NewUser { account: Some(app.account), email, role: Role::Owner, password };
        app.store.create_user(new, None).await.expect("a user");
    }
    let here = "192.0.2.1";
    for email in [OWNER, OTHER].repeat(5) {
        attempt(&app, here, "", [email, PASSWORD, ""]).await.expect(303);
    }
    // Ten from this address: it makes no other, whoever it is for.
    let refused = attempt(&app, here, "", [OTHER, PASSWORD, ""]).await.expect(429);
    assert!((1..=60).contains(&refused.header("retry-after").parse::<u64>().expect("seconds")));
    assert_eq!(refused.header("x-ratelimit-limit"), "1");
    // Each of the two users has five left.
    let mut device = String::new();
    for n in 1..=5 {
        let answer = attempt(&app, &format!("203.0.{n}.1"), "", [OWNER, PASSWORD, ""]).await.expect(303);
        device = device_of(&answer).expect("a device cookie");
    }
    let elsewhere = "198.51.100.7";
    attempt(&app, elsewhere, "", [OWNER, PASSWORD, ""]).await.expect(429);
    attempt(&app, elsewhere, &device, [OWNER, PASSWORD, ""]).await.expect(429);
    attempt(&app, elsewhere, "", [OTHER, PASSWORD, ""]).await.expect(303);
    // A wrong password is told as ever.
    attempt(&app, "198.51.101.7", "", [OWNER, "wrong", ""]).await.expect(401);
}

#[tokio::test]
async fn many_networks_together_have_ten_times_the_limit_for_one_user_and_a_known_device_gets_in() {
    let app = proxied("1/60s").await;
    user(&app, OWNER, "owner").await;
    let device = known_device(&app, "192.0.2.1", OWNER, "").await;
    for n in 1..=10 {
        attempt(&app, &format!("203.0.{n}.1"), "", [OWNER, "wrong", ""]).await.expect(401);
    }
    attempt(&app, "198.51.100.7", "", [OWNER, "wrong", ""]).await.expect(429);
    attempt(&app, "198.51.100.7", "", [OWNER, PASSWORD, ""]).await.expect(429);
    attempt(&app, "198.51.100.7", &device, [OWNER, PASSWORD, ""]).await.expect(303);
}

#[tokio::test]
async fn a_known_device_gets_in_where_its_network_is_kept_out_and_has_tries_of_its_own() {
    let app = proxied("2/60s").await;
    user(&app, OWNER, "owner").await;
    user(&app, OTHER, "viewer").await;
    let here = "203.0.113.1";
    let device = known_device(&app, here, OWNER, "").await;
    for _ in 0..2 {
        attempt(&app, here, "", [OWNER, "wrong", ""]).await.expect(401);
    }
    attempt(&app, here, "", [OWNER, PASSWORD, ""]).await.expect(429);
    attempt(&app, here, &device, [OWNER, PASSWORD, ""]).await.expect(303);
    // It is known for its own user alone, and only as the server has signed it.
    attempt(&app, here, &device, [OTHER, PASSWORD, ""]).await.expect(429);
    let (name, value) = device.split_once('=').expect("a cookie");
    let (nonce, marks) = value.split_once('.').expect("a nonce and a mark");
    let last = if marks.ends_with('0') { "1" } else { "0" };
    let forged = format!("{name}={nonce}.{}{last}", &marks[..marks.len() - 1]);
    let moved = format!("{name}={}.{marks}", "0".repeat(nonce.len()));
    for cookie in [forged, moved, format!("{name}={nonce}"), format!("{name}=.."), format!("{name}=x.y-z")] {
        attempt(&app, here, &cookie, [OWNER, PASSWORD, ""]).await.expect(429);
    }
    // A browser that two people use knows both.
    let both = attempt(&app, "198.51.100.7", &device, [OTHER, PASSWORD, ""]).await.expect(303);
    let both = device_of(&both).expect("a device cookie");
    for email in [OWNER, OTHER] {
        attempt(&app, here, &both, [email, PASSWORD, ""]).await.expect(303);
    }
    // Its own wrong tries are bounded too.
    for _ in 0..2 {
        attempt(&app, here, &device, [OWNER, "wrong", ""]).await.expect(401);
    }
    attempt(&app, here, &device, [OWNER, PASSWORD, ""]).await.expect(429);
}

#[tokio::test]
async fn an_account_that_invites_an_address_has_no_known_device_for_the_users_of_others() {
    let app = proxied("2/60s").await;
    user(&app, OWNER, "owner").await;
    squatted(&app, "a squatter's own").await;
    let here = "203.0.113.1";
    let device = attempt(&app, here, "", [OWNER, "a squatter's own", ""]).await.expect(303);
    let device = device_of(&device).expect("a device cookie");
    for _ in 0..2 {
        attempt(&app, here, "", [OWNER, "wrong", ""]).await.expect(401);
    }
    attempt(&app, here, &device, [OWNER, "a squatter's own", ""]).await.expect(303);
    attempt(&app, here, &device, [OWNER, PASSWORD, ""]).await.expect(401);
}

/// Another account whose owner has a user with the address of [`OWNER`], and this password: the account's key.
async fn squatted(app: &App, password: &str) -> String {
    let (squatter, key) = app.stranger().await;
    let (path, body) = (format!("/v1/accounts/{squatter}/users"), json!({ "email": OWNER, "role": "owner" }));
    let made = app.call("POST", &path).bearer(&key).json(&body).send().await.expect(201);
    join(app, made.attribute("invitation_url").as_str().expect("a link"), password).await;
    key
}

#[tokio::test]
async fn who_guesses_by_the_password_of_an_own_user_with_the_address_is_counted_and_told_of() {
    let app = proxied("3/60s").await;
    let victim = user(&app, OWNER, "owner").await;
    let squatters = squatted(&app, "a guess of it").await;
    let here = "203.0.113.1";
    // As many as people need in a day are given back, and show nowhere else.
    for _ in 0..5 {
        attempt(&app, here, "", [OWNER, "a guess of it", ""]).await.expect(303);
    }
    let guess = attempt(&app, here, "", [OWNER, "a guess of it", ""]).await.expect(303);
    let found = failures(&app, &app.key).await;
    let entry = &found[0]["attributes"];
    assert_eq!((found.len(), &entry["request_id"]), (1, &json!(guess.header("x-request-id"))));
    assert_eq!((&entry["resource_id"], &entry["fields"]), (&json!(victim), &json!(["password"])));
    assert_eq!((&entry["actor_type"], &entry["ip_address"]), (&json!("anonymous"), &json!(here)));
    for _ in 0..2 {
        attempt(&app, here, "", [OWNER, "a guess of it", ""]).await.expect(303);
    }
    attempt(&app, here, "", [OWNER, "a guess of it", ""]).await.expect(429);
    attempt(&app, here, "", [OWNER, PASSWORD, ""]).await.expect(429);
    // The address has its own tries, and nobody is kept out elsewhere.
    attempt(&app, here, "", [OTHER, "wrong", ""]).await.expect(401);
    attempt(&app, "198.51.100.7", "", [OWNER, PASSWORD, ""]).await.expect(303);
    let log = app.call("GET", "/v1/audit-log?action=user.sign_in_failed").bearer(&squatters).send().await.expect(200);
    assert_eq!(log.json["data"], json!([]), "the other account learns nothing of it");
}

#[tokio::test]
async fn a_wrong_code_is_told_of_where_the_password_opens_another_account_too() {
    let app = proxied("off").await;
    let victim = user(&app, OWNER, "owner").await;
    let mut browser = Browser::new(&app);
    browser.sign_in(OWNER, PASSWORD, "").await.expect(200);
    Factor::of(&app, &victim, &browser, 9).await;
    squatted(&app, PASSWORD).await;
    attempt(&app, "203.0.113.1", "", [OWNER, PASSWORD, "abcdef"]).await.expect(303);
    let entry = failures(&app, &app.key).await[0]["attributes"].clone();
    assert_eq!((&entry["resource_id"], &entry["fields"]), (&json!(victim), &json!(["two_factor"])));
}

#[tokio::test]
async fn wrong_passwords_and_codes_within_a_session_are_in_the_audit_log() {
    let app = App::start().await;
    let id = user(&app, OWNER, "owner").await;
    let mut browser = Browser::new(&app);
    browser.sign_in(OWNER, PASSWORD, "").await.expect(200);
    let me = browser.open("/me").await.expect(200);
    let wrong = [("current", "wrong"), ("password", "another one entirely")];
    browser.submit(&me, "/me/password", &wrong).await.expect(422);
    let entry = failures(&app, &app.key).await[0]["attributes"].clone();
    assert_eq!((&entry["resource_id"], &entry["fields"]), (&json!(id), &json!(["password"])));
    assert_eq!((&entry["actor_type"], &entry["actor_id"]), (&json!("user"), &json!(id)), "it came by their session");
    Factor::of(&app, &id, &browser, 10).await;
    let me = browser.open("/me").await.expect(200);
    let wrong = [("factor-current", PASSWORD), ("factor-code", "abcdef")];
    browser.submit(&me, "/me/two-factor/off", &wrong).await.expect(422);
    eventually("an entry on the code", || async {
        let found = failures(&app, &app.key).await;
        found.iter().any(|entry| entry["attributes"]["fields"] == json!(["two_factor"])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_device_cookie_is_for_the_server_alone_and_shows_nothing_of_its_user() {
    let app = App::start().await;
    let id = user(&app, OWNER, "owner").await;
    let mut browser = Browser::new(&app);
    let page = browser.open("/sign-in").await;
    assert!(device_of(&page.answer).is_none(), "nobody has signed in");
    let form = [("email", OWNER), ("password", PASSWORD), ("code", "")];
    let answer = browser.once("POST", "/sign-in", Some(&form)).await.expect(303);
    let set = answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    let set: Vec<&str> = set.filter(|set| set.starts_with("aldaba_device=")).collect();
    let [set] = set[..] else { panic!("one cookie: {set:?}") };
    for part in ["; Path=/", "; HttpOnly", "; SameSite=Lax", "; Max-Age="] {
        assert!(set.contains(part), "{set}");
    }
    for shown in [&id, &app.account.to_string(), "owner", browser.session().expect("a session")] {
        assert!(!set.contains(shown), "{shown} in {set}");
    }
    let wrong = browser.once("POST", "/sign-in", Some(&[("email", OWNER), ("password", "x")])).await.expect(401);
    assert!(device_of(&wrong).is_none(), "a wrong try sets none");
}

#[tokio::test]
async fn wrong_tries_leave_one_entry_for_each_user_and_hour_and_none_where_nobody_has_the_address() {
    let app = proxied("off").await;
    let id = user(&app, OWNER, "owner").await;
    let (_, stranger) = app.stranger().await;
    attempt(&app, "203.0.113.9", "", ["nobody@example.com", "wrong", ""]).await.expect(401);
    for _ in 0..5 {
        attempt(&app, "203.0.113.9", "", [OWNER, "wrong", ""]).await.expect(401);
    }
    let entry = failures(&app, &app.key).await[0]["attributes"].clone();
    assert_eq!((&entry["resource_id"], &entry["fields"]), (&json!(id), &json!(["password"])));
    assert_eq!((&entry["actor_type"], &entry["ip_address"]), (&json!("anonymous"), &json!("203.0.113.9")));
    assert_eq!((&entry["actor_id"], &entry["actor_name"]), (&Value::Null, &Value::Null));
    // A wrong code tells of a password that somebody has: it has an entry of its own.
    let mut browser = Browser::new(&app);
    browser.sign_in(OWNER, PASSWORD, "").await.expect(200);
    Factor::of(&app, &id, &browser, 5).await;
    for _ in 0..3 {
        attempt(&app, "203.0.113.9", "", [OWNER, PASSWORD, "000000"]).await.expect(401);
    }
    let found = eventually("the second entry", || async {
        let found = failures(&app, &app.key).await;
        (found.len() == 2).then_some(found)
    })
    .await;
    let fields: BTreeSet<String> = found.iter().map(|entry| entry["attributes"]["fields"][0].to_string()).collect();
    assert_eq!(fields, BTreeSet::from(["\"password\"".to_owned(), "\"two_factor\"".to_owned()]));
    // The pages show it.
    let shown = browser.open(&format!("/accounts/{}/audit-log", app.account)).await.expect(200);
    assert!(shown.html.contains("Sign-in failed") && shown.html.contains("Somebody who had not signed in"));
    let none = Call::new(app.address, "GET", "/v1/audit-log?action=user.sign_in_failed").bearer(&stranger);
    assert_eq!(none.send().await.expect(200).json["data"], json!([]), "no other account learns of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_wrong_codes_a_day_are_all_that_unknown_devices_have_and_a_known_one_goes_on() {
    let app = proxied("off").await;
    let id = user(&app, OWNER, "owner").await;
    let mut browser = Browser::new(&app);
    browser.sign_in(OWNER, PASSWORD, "").await.expect(200);
    let factor = Factor::of(&app, &id, &browser, 6).await;
    let device = known_device(&app, "192.0.2.1", OWNER, &factor.code(-1)).await;
    // Codes without the password, and the password without a code, cost nothing of it.
    attempt(&app, "192.0.2.9", "", [OWNER, "wrong", "000000"]).await.expect(401);
    attempt(&app, "192.0.2.9", "", [OWNER, PASSWORD, " "]).await.expect(401);
    let app = std::sync::Arc::new(app);
    let mut tries = JoinSet::new();
    for thread in 0..4 {
        let app = app.clone();
        tries.spawn(async move {
            for n in 0..25 {
                // Each from a network of its own; letters are never right.
                let from = format!("203.{thread}.{n}.1");
                attempt(&app, &from, "", [OWNER, PASSWORD, "abcdef"]).await.expect(401);
            }
        });
    }
    tries.join_all().await;
    // The same answer as ever: no other one may tell that the password is right.
    attempt(&app, "198.51.100.7", "", [OWNER, PASSWORD, &factor.code(0)]).await.expect(401);
    attempt(&app, "198.51.100.7", &device, [OWNER, PASSWORD, &factor.code(0)]).await.expect(303);
    // Somebody who has signed in changes how they sign in, whoever guesses at the entrance.
    let me = browser.open("/me").await.expect(200);
    let code = factor.code(1);
    let off = [("factor-current", PASSWORD), ("factor-code", code.as_str())];
    browser.submit(&me, "/me/two-factor/off", &off).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_and_a_link_have_a_hundred_wrong_codes_a_day_too() {
    let app = App::start().await;
    let id = user(&app, OWNER, "owner").await;
    let mut browser = Browser::new(&app);
    browser.sign_in(OWNER, PASSWORD, "").await.expect(200);
    let factor = Factor::of(&app, &id, &browser, 7).await;
    let renew = format!("/v1/accounts/{}/users/{id}/invitation", app.account);
    let made = app.call("POST", &renew).send().await.expect(200);
    let url = made.attribute("invitation_url").as_str().expect("a link").to_owned();
    let path = url.split_once("localhost").expect("our address").1.to_owned();
    let page = Browser::new(&app).open(&path).await.expect(200);
    let mut thief = Browser::new(&app);
    let right = factor.code(0);
    let codes = std::iter::repeat_n("abcdef", 100).chain([right.as_str()]);
    for code in codes.clone() {
        let form = [("password", PASSWORD), ("again", PASSWORD), ("code", code)];
        thief.submit(&page, &path, &form).await.expect(422);
    }
    assert!(thief.session().is_none(), "no code is looked at any more");
    let me = browser.open("/me").await.expect(200);
    for code in codes {
        let off = [("factor-current", PASSWORD), ("factor-code", code)];
        browser.submit(&me, "/me/two-factor/off", &off).await.expect(422);
    }
    let session = KeyHash::of(browser.session().expect("a session"));
    let found = app.store.session(session, std::time::Duration::from_secs(3_600), false).await.expect("an answer");
    assert!(found.expect("it has not ended").two_factor, "it stays");
    Browser::new(&app).sign_in(OWNER, PASSWORD, &factor.code(0)).await.expect(200);
}

#[tokio::test]
async fn the_log_tells_of_wrong_tries_without_what_was_typed_and_of_a_proxy_that_is_not_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), &[("ALDABA_LOG__FORMAT", "json")]);
    let address = server.address;
    let form = |email: &str, password: &str| {
        let pairs = [("email", email), ("password", password)];
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    };
    for n in 0..5 {
        let form = form("s3cret-typed@by.mistake", "An0ther-secret");
        let call = Call::new(address, "POST", "/sign-in").header("x-forwarded-for", &format!("203.0.113.{n}"));
        call.header("content-type", "application/x-www-form-urlencoded").body(form).send().await;
    }
    let (_, logs) = server.terminate_with_logs();
    for hidden in ["s3cret-typed", "mistake", "An0ther-secret"] {
        assert!(!logs.contains(hidden), "{logs}");
    }
    let lines: Vec<Value> = logs.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of = |text: &str| -> Vec<&Value> { lines.iter().filter(|line| line.to_string().contains(text)).collect() };
    let failed = of("a sign-in failed");
    assert!((1..5).contains(&failed.len()), "limited: {logs}");
    assert!(failed[0].to_string().contains("127.0.0.1") && failed[0]["level"] == "WARN", "{logs}");
    assert_eq!(of("trusted_proxies").len(), 1, "one line a minute: {logs}");
}
