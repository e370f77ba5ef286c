//! People: who may sign in, how they are kept out, what each may do, and the links into one account's pages.

use aldaba::domain::permission::Permission;
use serde_json::{Value, json};

use crate::app::{App, Call, EVENT, Receiver, Reply, eventually};
use crate::browser::Browser;
use crate::command_line::{printed, run};

pub const PASSWORD: &str = "correct horse battery";

/// A user of the tests' account who has set their password: their id.
pub async fn user(app: &App, email: &str, role: &str) -> String {
    let path = format!("/v1/accounts/{}/users", app.account);
    let made = app.post(&path, json!({ "email": email, "role": role })).await.expect(201);
    let url = made.attribute("invitation_url").as_str().expect("an address").to_owned();
    join(app, &url, PASSWORD).await;
    made.id()
}

/// Takes an invitation.
pub async fn join(app: &App, url: &str, password: &str) -> Browser {
    let path = url.split_once("localhost").expect("our address").1;
    let mut browser = Browser::new(app);
    let page = browser.open(path).await.expect(200);
    let shown = browser.submit(&page, path, &[("password", password), ("again", password)]).await.expect(200);
    assert!(browser.session().is_some(), "{}", shown.content());
    browser
}

#[tokio::test]
async fn an_invitation_is_shown_once_and_sets_a_password_once() {
    let app = App::start().await;
    let path = format!("/v1/accounts/{}/users", app.account);
    let body = json!({ "email": " Ana@Example.COM ", "role": "developer" });
    let first = app.call("POST", &path).json(&body).header("idempotency-key", "one").send().await.expect(201);
    assert_eq!(first.attribute("email"), "ana@example.com");
    assert_eq!((first.attribute("status"), first.attribute("two_factor")), (&json!("invited"), &json!(false)));
    let url = first.attribute("invitation_url").as_str().expect("an address").to_owned();
    let again = app.call("POST", &path).json(&body).header("idempotency-key", "one").send().await.expect(201);
    assert_eq!((again.id(), again.attribute("invitation_url")), (first.id(), &Value::Null), "it is shown once");
    let listed = app.get(&path).await.expect(200);
    assert!(!String::from_utf8_lossy(&listed.text).contains(url.rsplit('/').next().expect("a token")));

    join(&app, &url, PASSWORD).await;
    let path = url.split_once("localhost").expect("our address").1;
    Browser::new(&app).open(path).await.expect(404);
    let read = app.get(&format!("/v1/accounts/{}/users/{}", app.account, first.id())).await.expect(200);
    assert_eq!(read.attribute("status"), "active");
    assert!(read.attribute("last_sign_in_at").is_string() && read.attribute("invitation_expires_at").is_null());

    // A new invitation leaves the password until it is used.
    let renewed = app.call("POST", &format!("/v1/accounts/{}/users/{}/invitation", app.account, first.id()));
    let renewed = renewed.send().await.expect(200).attribute("invitation_url").as_str().expect("one").to_owned();
    let mut before = Browser::new(&app);
    before.sign_in("ana@example.com", PASSWORD, "").await.expect(200);
    join(&app, &renewed, "another one entirely").await;
    assert_eq!(before.open("/").await.path, "/sign-in", "every session has ended");
    before.sign_in("ana@example.com", PASSWORD, "").await.expect(401);
    before.sign_in("ANA@example.com", "another one entirely", "").await.expect(200);
}

#[tokio::test]
async fn users_that_cannot_be_are_refused_with_their_fields_and_the_last_owner_stays() {
    let app = App::start().await;
    let path = format!("/v1/accounts/{}/users", app.account);
    let refused = app.post(&path, json!({})).await.refused(422, "email_required", "/data/attributes/email");
    assert_eq!(refused.codes(), ["email_required", "role_invalid"]);
    for (body, code, field) in [
        (json!({ "email": "ana", "role": "owner" }), "email_invalid", "email"),
        (json!({ "email": 7, "role": "owner" }), "email_invalid", "email"),
        (json!({ "email": "a@example.com", "role": "operator" }), "role_invalid", "role"),
        (json!({ "email": "a@example.com", "role": "king" }), "role_invalid", "role"),
    ] {
        app.post(&path, body).await.refused(422, code, &format!("/data/attributes/{field}"));
    }
    let owner = user(&app, "owner@example.com", "owner").await;
    let taken = json!({ "email": "OWNER@example.com", "role": "viewer" });
    app.post(&path, taken).await.refused(422, "email_taken", "/data/attributes/email");
    let one = format!("{path}/{owner}");
    app.put(&one, json!({})).await.refused(422, "no_valid_fields", "");
    app.put(&one, json!({ "role": "viewer" })).await.refused(409, "last_owner", "");
    app.delete(&one).await.refused(409, "last_owner", "");
    let second = user(&app, "second@example.com", "owner").await;
    app.put(&one, json!({ "role": "viewer" })).await.expect(200);
    app.delete(&format!("{path}/{second}")).await.refused(409, "last_owner", "");
    app.delete(&one).await.expect(204);
    app.get(&one).await.refused(404, "not_found", "");

    let (stranger, key) = app.stranger().await;
    let theirs = format!("/v1/accounts/{stranger}/users");
    app.get(&theirs).await.refused(404, "not_found", "");
    Call::new(app.address, "GET", &format!("{theirs}/{second}")).bearer(&key).send().await.refused(
        404,
        "not_found",
        "",
    );
    // Nobody makes somebody who can do more.
    let weak = app.key_for(&[Permission::UsersWrite, Permission::WebhooksRead]).await;
    let call = app.call("POST", &path).bearer(&weak).json(&json!({ "email": "b@example.com", "role": "owner" }));
    call.send().await.refused(403, "forbidden", "");
    app.call("DELETE", &format!("{path}/{second}")).bearer(&weak).send().await.refused(403, "forbidden", "");
    let renew = format!("{path}/{second}/invitation");
    app.call("POST", &renew).bearer(&weak).send().await.refused(403, "forbidden", "");
}

#[tokio::test]
async fn each_role_does_what_it_may_and_the_api_refuses_the_rest() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    let home = format!("/accounts/{}", app.account);
    for (role, may_pause, may_see_users) in
        [("owner", true, true), ("developer", true, false), ("viewer", false, false)]
    {
        let email = format!("{role}@example.com");
        user(&app, &email, role).await;
        let mut browser = Browser::new(&app);
        let page = browser.sign_in(&email, PASSWORD, "").await.expect(200);
        assert_eq!(page.path, home);
        assert_eq!(page.html.contains("/users\""), may_see_users, "{role}");
        browser.open(&format!("{home}/users")).await.expect(if may_see_users { 200 } else { 403 });
        // The mark of another form of the page serves: what decides is the permission.
        let pause = format!("{home}/endpoints/{endpoint}/pause");
        let page = browser.open("/me").await.expect(200);
        let mark = page.html.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        let paused = browser.once("POST", &pause, Some(&[("csrf", mark.expect("a mark"))])).await;
        assert_eq!(paused.status, if may_pause { 303 } else { 403 }, "{role}");
        // A form that would be refused is not shown.
        for form in
            ["endpoints/new".to_owned(), format!("endpoints/{endpoint}/edit"), format!("endpoints/{endpoint}/rotate")]
        {
            browser.open(&format!("{home}/{form}")).await.expect(if may_pause { 200 } else { 403 });
        }
        browser.open(&format!("{home}/users/invite")).await.expect(if may_see_users { 200 } else { 403 });
        // Of another account there is nothing, whoever it is.
        let (stranger, _) = app.stranger().await;
        browser.open(&format!("/accounts/{stranger}")).await.expect(404);
        browser.open("/operator").await.expect(404);
    }
    let log = app.get("/v1/audit-log?action=webhook.updated").await.expect(200);
    let actors: Vec<_> =
        log.json["data"].as_array().expect("a list").iter().map(|e| &e["attributes"]["actor_name"]).collect();
    assert_eq!(actors, ["developer@example.com", "owner@example.com"]);
}

#[tokio::test]
async fn a_form_without_the_mark_of_its_session_changes_nothing() {
    let app = App::start().await;
    let (endpoint, _) = app.endpoint("http://127.0.0.1:9/").await;
    user(&app, "owner@example.com", "owner").await;
    let mut browser = Browser::new(&app);
    browser.sign_in("owner@example.com", PASSWORD, "").await.expect(200);
    let pause = format!("/accounts/{}/endpoints/{endpoint}/pause", app.account);
    for form in [&[][..], &[("csrf", "")], &[("csrf", "00000000000000000000000000000000")]] {
        assert_eq!(browser.once("POST", &pause, Some(form)).await.status, 403);
    }
    let mut other = Browser::new(&app);
    let foreign = other.sign_in("owner@example.com", PASSWORD, "").await.expect(200);
    let mark = foreign.html.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let form = [("csrf", mark.expect("a mark"))];
    assert_eq!(browser.once("POST", &pause, Some(&form)).await.status, 403, "the mark of another session");
    let call = Call::new(app.address, "POST", &pause)
        .header("cookie", &format!("aldaba_session={}", other.session().expect("a session")))
        .header("sec-fetch-site", "cross-site")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("csrf={}", form[0].1));
    call.send().await.expect(403);
    let read = app.get(&format!("/v1/webhooks/{endpoint}")).await.expect(200);
    assert_eq!(read.attribute("status"), "active");
    assert_eq!(other.once("POST", &pause, Some(&form)).await.status, 303, "and with it it does");
}

#[tokio::test]
async fn who_guesses_learns_nothing_and_is_stopped() {
    let app = App::with(&[("RATE_LIMITS__RATE_LIMITED_LOGIN", "6/60s")]).await;
    let path = format!("/v1/accounts/{}/users", app.account);
    // A user who has not joined yet has no password at all.
    app.post(&path, json!({ "email": "invited@example.com", "role": "viewer" })).await.expect(201);
    let folder = app.folder();
    let account = app.account.to_string();
    let mut create = crate::command_line::aldaba(
        folder,
        &["users", "create", "owner@example.com", "--account", &account, "--password-stdin"],
    );
    let mut child =
        create.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().expect("runs");
    std::io::Write::write_all(child.stdin.as_mut().expect("its input"), PASSWORD.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success());

    let mut pages = Vec::new();
    for (email, password) in [
        ("owner@example.com", "wrong"),
        ("nobody@example.com", PASSWORD),
        ("invited@example.com", ""),
        ("no address", "x"),
    ] {
        let shown = Browser::new(&app).sign_in(email, password, "").await.expect(401);
        pages.push(shown.html.replace(email, ""));
    }
    assert!(pages.windows(2).all(|pair| pair[0] == pair[1]), "the same answer whatever is wrong");
    Browser::new(&app).sign_in("owner@example.com", PASSWORD, "").await.expect(200);
    // A right one is not counted.
    for email in ["someone@example.com", "somebody@example.com"] {
        Browser::new(&app).sign_in(email, "x", "").await.expect(401);
    }
    let stopped = Browser::new(&app).sign_in("else@example.com", "x", "").await.expect(429).answer;
    let wait: u64 = stopped.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "by address");
    assert_eq!((stopped.header("x-ratelimit-limit"), stopped.header("x-ratelimit-remaining")), ("6", "0"));
    assert!(stopped.header("x-ratelimit-reset").parse::<u64>().expect("seconds") > 1_700_000_000);
    let program = Call::new(app.address, "POST", "/sign-in").body("email=a%40b.example&password=x").send().await;
    let program = program.refused(429, "rate_limit_exceeded", "");
    assert!(program.json["meta"]["retry_after"].is_u64(), "a program is told in the envelope");
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_its_code_serves_once() {
    let app = App::start().await;
    user(&app, "owner@example.com", "owner").await;
    let mut browser = Browser::new(&app);
    browser.sign_in("owner@example.com", PASSWORD, "").await.expect(200);
    let page = browser.open("/me/two-factor").await.expect(200);
    assert!(page.html.contains("<svg"), "a picture to scan");
    let secret = page.html.split("name=\"secret\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let secret = secret.expect("a secret").to_owned();
    let wrong = [("code", "000000"), ("current", PASSWORD)];
    browser.submit(&page, "/me/two-factor", &wrong).await.expect(422);
    let now = || aldaba::clock::Clock::now(&aldaba::clock::SystemClock).as_secs();
    let code = |step: i64| {
        let bytes = hex::decode(&secret).expect("hex");
        let totp = totp_rs::Builder::new().with_secret(bytes[..20].to_vec()).build().expect("a code");
        totp.generate(u64::try_from(step * 30).expect("a time")).to_string()
    };
    let step = now() / 30;
    let without = [("code", &*code(step)), ("current", "wrong")];
    browser.submit(&page, "/me/two-factor", &without).await.expect(422);
    let right = [("code", &*code(step)), ("current", PASSWORD)];
    let shown = browser.submit(&page, "/me/two-factor", &right).await.expect(200);
    assert!(shown.html.contains("/me/two-factor/off"), "{}", shown.content());

    let mut other = Browser::new(&app);
    other.sign_in("owner@example.com", PASSWORD, "").await.expect(401);
    other.sign_in("owner@example.com", PASSWORD, &code(step)).await.expect(401);
    other.sign_in("owner@example.com", PASSWORD, &code(step + 1)).await.expect(200);
    Browser::new(&app).sign_in("owner@example.com", PASSWORD, &code(step + 1)).await.expect(401);
    let database = std::fs::read(app.folder().join("aldaba.db")).unwrap_or_default();
    let plain = secret.as_bytes();
    assert!(!database.windows(plain.len()).any(|window| window == plain), "it is sealed where it is kept");

    let page = other.open("/me").await.expect(200);
    other.submit(&page, "/me/two-factor/off", &[("factor-current", "wrong")]).await.expect(422);
    // The password alone turns it off as little as it signs in.
    other.submit(&page, "/me/two-factor/off", &[("factor-current", PASSWORD)]).await.expect(422);
    let used = [("factor-current", PASSWORD), ("factor-code", &*code(step + 1))];
    other.submit(&page, "/me/two-factor/off", &used).await.expect(422);
    assert!(other.open("/me").await.html.contains("/me/two-factor/off"), "it is still on");
}

#[tokio::test]
async fn sessions_end_by_signing_out_by_a_new_password_and_everywhere_at_once() {
    let app = App::start().await;
    user(&app, "owner@example.com", "owner").await;
    let (mut one, mut two) = (Browser::new(&app), Browser::new(&app));
    for browser in [&mut one, &mut two] {
        browser.sign_in("owner@example.com", PASSWORD, "").await.expect(200);
    }
    let set = Browser::new(&app).sign_in("owner@example.com", "nope", "").await;
    assert!(set.answer.headers.get("set-cookie").is_none(), "who is not let in gets no cookie");
    let token = one.session().expect("a session").to_owned();
    let page = one.open("/me").await.expect(200);
    one.submit(&page, "/sign-out", &[]).await.expect(200);
    assert!(one.session().is_none());
    one.set_session(&token);
    assert_eq!(one.open("/").await.path, "/sign-in", "the token itself is dead");
    two.open("/me").await.expect(200);
    one.sign_in("owner@example.com", PASSWORD, "").await.expect(200);
    let page = one.open("/me").await.expect(200);
    one.submit(&page, "/me/sessions", &[]).await.expect(200);
    assert_eq!(two.open("/").await.path, "/sign-in");
    assert_eq!(one.open("/").await.path, "/sign-in");

    one.sign_in("owner@example.com", PASSWORD, "").await.expect(200);
    let page = one.open("/me").await.expect(200);
    let short = [("current", PASSWORD), ("password", "short")];
    one.submit(&page, "/me/password", &short).await.expect(422);
    let new = [("current", PASSWORD), ("password", "a new one altogether")];
    one.submit(&page, "/me/password", &new).await.expect(200);
    one.open("/me").await.expect(200);
    Browser::new(&app).sign_in("owner@example.com", PASSWORD, "").await.expect(401);
    // Deleting somebody ends what they do in the middle of it.
    user(&app, "second@example.com", "owner").await;
    let mut gone = Browser::new(&app);
    gone.sign_in("second@example.com", PASSWORD, "").await.expect(200);
    let users = app.get(&format!("/v1/accounts/{}/users", app.account)).await.expect(200);
    let second = users.json["data"][1]["id"].as_str().expect("an id").to_owned();
    app.delete(&format!("/v1/accounts/{}/users/{second}", app.account)).await.expect(204);
    assert_eq!(gone.open("/").await.path, "/sign-in");
}

#[tokio::test]
async fn the_cookie_is_for_this_host_over_tls_only_in_production() {
    let app = App::with(&[("ENVIRONMENT", "production")]).await;
    let invite = json!({ "email": "owner@example.com", "role": "owner" });
    let made = app.post(&format!("/v1/accounts/{}/users", app.account), invite).await.expect(201);
    let url = made.attribute("invitation_url").as_str().expect("an address").to_owned();
    let path = url.split_once("localhost").expect("our address").1;
    let mut browser = Browser::new(&app);
    let form = [("password", PASSWORD), ("again", PASSWORD)];
    let answer = browser.once("POST", path, Some(&form)).await.expect(303);
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-aldaba_session=") && cookie.contains("; Path=/;"), "{cookie}");
    for part in ["HttpOnly", "Secure", "SameSite=Lax", "Max-Age=604800"] {
        assert!(cookie.split("; ").any(|found| found == part), "{cookie}");
    }
}

#[tokio::test]
async fn a_portal_link_opens_one_account_for_a_while_in_the_operators_colour() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    let path = format!("/v1/accounts/{}/portal-links", app.account);
    let by_operator = |body: Value| app.call("POST", &path).bearer(&app.operator).json(&body).send();
    app.post(&path, json!({})).await.refused(403, "forbidden", "");
    by_operator(json!({})).await.refused(422, "permissions_required", "/data/attributes/permissions");
    for (field, value, code) in [
        ("permissions", json!(["webhooks:fly"]), "permission_invalid"),
        ("permissions", json!(["*"]), "portal_permission_invalid"),
        ("permissions", json!(["api_keys:write"]), "portal_permission_invalid"),
        ("expires_in", json!(59), "expires_in_invalid"),
        ("expires_in", json!("1h"), "expires_in_invalid"),
        ("brand", json!(""), "brand_invalid"),
        ("brand", json!("x".repeat(61)), "brand_invalid"),
        ("color", json!("red"), "color_invalid"),
        ("frame_origins", json!("https://a.example"), "frame_origins_invalid"),
        ("frame_origins", json!(["https://a.example; script-src *"]), "frame_origins_invalid"),
    ] {
        let mut body = json!({ "permissions": ["webhooks:read"] });
        body[field] = value;
        by_operator(body).await.refused(422, code, &format!("/data/attributes/{field}"));
    }
    let made = by_operator(json!({
        "permissions": ["webhooks:read"], "brand": "Acme <b>&", "color": "#ffee00",
        "frame_origins": ["https://app.example.com"],
    }));
    let made = made.await.expect(201);
    let url = made.attribute("url").as_str().expect("an address").to_owned();
    let portal = url.split_once("localhost").expect("our address").1.to_owned();
    let mut browser = Browser::new(&app);
    let page = browser.open(&portal).await.expect(200);
    assert!(page.html.contains("Acme &lt;b&gt;&amp;") && !page.html.contains("Acme <b>"), "{}", page.content());
    let policy = page.answer.header("content-security-policy");
    assert!(policy.ends_with("frame-ancestors 'self' https://app.example.com"), "{policy}");
    assert_eq!(page.answer.header("referrer-policy"), "same-origin", "the address is the key");
    assert!(browser.session().is_none(), "it needs no cookie, which a frame would not get");
    let theme = browser.open(&format!("{portal}/theme.css")).await.expect(200);
    let (light, dark) = theme.html.split_once('\n').expect("two schemes");
    assert!(
        !light.contains("#ffee00") && dark.contains("--accent:#ffee00"),
        "shaded where it could not be read: {light}"
    );
    // It shows what it may, and changes nothing that it may not.
    let shown = browser.open(&format!("{portal}/endpoints/{endpoint}")).await.expect(200);
    assert!(!shown.html.contains("/rotate") && !shown.html.contains("/delete"));
    browser.open(&format!("{portal}/api-keys")).await.expect(403);
    browser.open(&format!("{portal}/endpoints/{endpoint}/delete")).await;
    browser.open("/me").await.expect(200);
    assert!(browser.open(&format!("/accounts/{}", app.account)).await.path.starts_with("/sign-in"));
    let strange = browser.open(&format!("/portal/{}", "0".repeat(64))).await.expect(404);
    assert!(strange.html.contains("expired"));
    let log = app.get("/v1/audit-log?action=portal_link.created").await.expect(200);
    assert_eq!(log.json["data"][0]["attributes"]["resource_id"], made.id());
    assert!(!log.json.to_string().contains(portal.rsplit('/').next().expect("a token")));
}

#[tokio::test]
async fn attempts_are_counted_by_what_came_of_them() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "1h")]).await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    let (other, _) = app.endpoint(&receiver.url()).await;
    app.put(&format!("/v1/webhooks/{other}"), json!({ "events": ["validation.failed"] })).await.expect(200);
    receiver.script([Reply::Status(200), Reply::Status(500), Reply::Status(410)]);
    for (n, status) in [(1, "success"), (2, "retrying"), (3, "failed")] {
        app.publish(json!({ "n": n })).await;
        app.delivery(&endpoint, status).await;
    }
    let path = format!("/v1/webhooks/statistics?endpoint_id={endpoint}");
    let counted = eventually("three attempts that are counted", || async {
        let found = app.get(&path).await.expect(200);
        (found.attribute("attempts") == 3).then_some(found)
    })
    .await;
    for (name, expected) in [("success", 1), ("retrying", 1), ("failed", 1)] {
        assert_eq!(counted.attribute(name), expected, "{name}");
        let series = counted.attribute("series").as_array().expect("steps");
        assert_eq!(series.iter().map(|step| step[name].as_u64().expect("a number")).sum::<u64>(), 1);
    }
    assert!(counted.attribute("response_time_ms")["p50"].as_u64().expect("a time") < 5_000);
    for (period, steps, seconds) in [("1h", 13, 300), ("24h", 49, 1_800), ("7d", 43, 14_400)] {
        let all = app.get(&format!("/v1/webhooks/statistics?period={period}")).await.expect(200);
        assert_eq!(all.attribute("attempts"), 3, "{period}");
        assert_eq!(all.attribute("series").as_array().map(Vec::len), Some(steps));
        assert_eq!(all.attribute("step_seconds"), seconds);
    }
    let none = app.get(&format!("/v1/webhooks/statistics?endpoint_id={other}")).await.expect(200);
    assert_eq!((none.attribute("attempts"), &none.attribute("response_time_ms")["p50"]), (&json!(0), &Value::Null));
    let wrong = app.get("/v1/webhooks/statistics?period=1y&endpoint_id=x").await.expect(422);
    assert_eq!(wrong.codes(), ["invalid_filter", "invalid_filter"]);
    let (_, key) = app.stranger().await;
    Call::new(app.address, "GET", &path).bearer(&key).send().await.refused(404, "not_found", "");
    // What was counted is there after a stop.
    let app = app.restart(&[]).await;
    assert_eq!(app.get(&path).await.expect(200).attribute("attempts"), 3);
}

#[tokio::test]
async fn the_command_line_makes_lists_invites_and_deletes_users() {
    let app = App::start().await;
    let folder = app.folder();
    let account = app.account.to_string();
    let url = printed(folder, &["users", "create", "ana@example.com", "--account", &account, "--role", "viewer"]);
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).expect("an address").1;
    let path = format!("/{path}");
    let mut browser = Browser::new(&app);
    let page = browser.open(&path).await.expect(200);
    assert!(page.html.contains("ana@example.com"));
    browser.submit(&page, &path, &[("password", PASSWORD), ("again", PASSWORD)]).await.expect(200);
    let operator = printed(folder, &["users", "create", "ops@example.com", "--operator", "--json"]);
    let operator: Value = serde_json::from_str(&operator).expect("JSON");
    assert_eq!((&operator["role"], &operator["account_id"]), (&json!("operator"), &Value::Null));
    assert!(printed(folder, &["users", "list", "--account", &account]).contains("viewer     active   ana@example.com"));
    assert!(printed(folder, &["users", "list", "--operator"]).contains("ops@example.com"));
    assert!(printed(folder, &["users", "invite", "ana@example.com"]).contains("/join/"));
    printed(folder, &["users", "delete", "ana@example.com"]);
    assert!(browser.open("/").await.path.starts_with("/sign-in"));
    for (args, word) in [
        (&["users", "create", "ops@example.com", "--operator"][..], "already"),
        (&["users", "create", "ana", "--operator"], "no e-mail address"),
        (&["users", "create", "b@example.com", "--account", &account, "--role", "king"], "owner, developer, viewer"),
        (&["users", "invite", "nobody@example.com"], "no user has this address"),
    ] {
        let output = run(folder, args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(word), "{told}");
    }
    let log = app.call("GET", "/v1/audit-log?action=user.deleted").bearer(&app.operator).send().await.expect(200);
    assert_eq!(log.json["data"][0]["attributes"]["actor_type"], "command_line");
}

#[tokio::test]
async fn an_operator_sees_every_account_and_acts_in_one_at_a_time() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    let url = printed(app.folder(), &["users", "create", "ops@example.com", "--operator"]);
    let path = format!("/join/{}", url.rsplit('/').next().expect("a token"));
    let mut browser = Browser::new(&app);
    let page = browser.open(&path).await.expect(200);
    let page = browser.submit(&page, &path, &[("password", PASSWORD), ("again", PASSWORD)]).await.expect(200);
    assert_eq!(page.path, "/operator");
    let (stranger, _) = app.stranger().await;
    let page = browser.open("/operator").await.expect(200);
    for account in [app.account, stranger] {
        assert!(page.html.contains(&account.to_string()));
        browser.open(&format!("/accounts/{account}")).await.expect(200);
    }
    let page = browser.open(&format!("/accounts/{}/endpoints/{endpoint}", app.account)).await.expect(200);
    browser.submit(&page, &format!("/accounts/{}/endpoints/{endpoint}/pause", app.account), &[]).await.expect(200);
    browser.open(&format!("/accounts/{stranger}/endpoints/{endpoint}")).await.expect(404);
    // The account learns that it was one of the operator's people, and not who.
    let log = app.get("/v1/audit-log?action=webhook.updated").await.expect(200);
    let entry = &log.json["data"][0]["attributes"];
    assert_eq!((&entry["actor_type"], &entry["actor_name"]), (&json!("operator_user"), &Value::Null));
    app.publish(json!({ "event": EVENT })).await;
}
