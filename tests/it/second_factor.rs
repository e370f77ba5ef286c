//! What a session alone may not do: links that set passwords, and second factors, are for whoever proves who they are.

use aldaba::clock::{Clock as _, SystemClock};
use aldaba::domain::account::KeyHash;
use aldaba::domain::id::UserId;
use aldaba::domain::permission::Permission;
use aldaba::domain::secret::Secret;
use aldaba::store::{Proof, SignIn, SignInChange};
use serde_json::{Value, json};

use crate::app::App;
use crate::browser::{Browser, Shown};
use crate::command_line::{printed, run};
use crate::people::{PASSWORD, join, user};

const OWNER: &str = "owner@example.com";
const OTHER: &str = "other@example.com";
const NEW: &str = "another one entirely";

/// A second factor that was set up, and the code that it shows.
pub struct Factor(Secret);

impl Factor {
    /// Sets up a second factor of which no code was used, for whoever has signed in.
    pub async fn of(app: &App, id: &str, browser: &Browser, byte: u8) -> Self {
        let secret = Secret::from_random([byte; 32]);
        let session = KeyHash::of(browser.session().expect("a session"));
        let known = app.store.credentials_of(user_id(id)).await.expect("an answer").expect("they are known");
        let proof = Proof::Password(known.password.expect("a password"), None);
        let change = SignInChange::SecondFactor(secret.clone(), 0);
        app.store.change_sign_in(user_id(id), change, proof, session).await.expect("set up");
        Self(secret)
    }

    /// The code of now, or of the next 30 seconds, which is taken too.
    pub fn code(&self, later: i64) -> String {
        let bytes = hex::decode(self.0.reveal()).expect("hex");
        let totp = totp_rs::Builder::new().with_secret(bytes[..20].to_vec()).build().expect("a code");
        let step = SystemClock.now().as_secs() / 30 + later;
        totp.generate(u64::try_from(step * 30).expect("a time")).to_string()
    }
}

fn user_id(id: &str) -> UserId {
    UserId::parse(id).expect("an id")
}

async fn signed_in(app: &App, email: &str, code: &str) -> Browser {
    let mut browser = Browser::new(app);
    browser.sign_in(email, PASSWORD, code).await.expect(200);
    browser
}

/// The user's page, and the address of one of its forms.
async fn page_of(app: &App, browser: &mut Browser, id: &str, form: &str) -> (Shown, String) {
    let path = format!("/accounts/{}/users/{id}", app.account);
    (browser.open(&path).await.expect(200), format!("{path}/{form}"))
}

/// The link on a page that shows one.
fn link(shown: &Shown) -> Option<String> {
    let token = shown.html.split("/join/").nth(1)?;
    Some(format!("http://localhost/join/{}", token.split(|c: char| !c.is_ascii_alphanumeric()).next()?))
}

#[tokio::test]
async fn a_session_alone_makes_no_link_that_sets_the_password_of_somebody_who_has_joined() {
    let app = App::start().await;
    let owner = user(&app, OWNER, "owner").await;
    let other = user(&app, OTHER, "owner").await;
    let mut browser = signed_in(&app, OWNER, "").await;
    let (page, renew) = page_of(&app, &mut browser, &other, "invitation").await;
    for fields in [&[][..], &[("link-current", "wrong")]] {
        let shown = browser.submit(&page, &renew, fields).await.expect(422);
        assert_eq!(link(&shown), None, "{}", shown.content());
    }
    let read = app.get(&format!("/v1/accounts/{}/users/{other}", app.account)).await.expect(200);
    assert_eq!(read.attribute("invitation_expires_at"), &Value::Null, "there is no link");
    // For themselves nobody makes one, not even with their password.
    let (own, action) = page_of(&app, &mut browser, &owner, "invitation").await;
    assert!(!own.html.contains(&action) && own.html.contains("/me\""), "{}", own.content());
    let forged = [("csrf", mark(&own)), ("link-current", PASSWORD)];
    assert_eq!(browser.once("POST", &action, Some(&forged)).await.status, 403);
    let shown = browser.submit(&page, &renew, &[("link-current", PASSWORD)]).await.expect(200);
    join(&app, &link(&shown).expect("a link"), NEW).await;
    Browser::new(&app).sign_in(OTHER, NEW, "").await.expect(200);
    // Whoever has not joined has nothing to lose, but whoever gets their link is let in.
    let users = format!("/v1/accounts/{}/users", app.account);
    let invited = app.post(&users, json!({ "email": "new@example.com", "role": "owner" })).await.expect(201).id();
    let (page, renew) = page_of(&app, &mut browser, &invited, "invitation").await;
    assert_eq!(link(&browser.submit(&page, &renew, &[]).await.expect(422)), None);
    assert!(link(&browser.submit(&page, &renew, &[("link-current", PASSWORD)]).await.expect(200)).is_some());
}

/// How many users and keys the account has, and the role of this user.
async fn let_in(app: &App, id: &str) -> (Value, Value, Value) {
    let total = async |path: &str| app.get(path).await.expect(200).json["meta"]["pagination"]["total"].clone();
    let users = format!("/v1/accounts/{}/users", app.account);
    let keys = format!("/v1/accounts/{}/api-keys", app.account);
    let role = app.get(&format!("{users}/{id}")).await.expect(200).attribute("role").clone();
    (total(&users).await, total(&keys).await, role)
}

#[tokio::test]
async fn a_session_alone_lets_nobody_in_by_an_invitation_a_role_or_a_key() {
    let app = App::start().await;
    let owner = user(&app, OWNER, "owner").await;
    let viewer = user(&app, OTHER, "viewer").await;
    let mut browser = signed_in(&app, OWNER, "").await;
    let factor = Factor::of(&app, &owner, &browser, 11).await;
    let home = format!("/accounts/{}", app.account);
    let invite = format!("{home}/users/invite");
    let (role, key) = (format!("{home}/users/{viewer}"), format!("{home}/api-keys/new"));
    let steps = [
        (&invite, "invite", &[("email", "new@example.com"), ("role", "viewer")][..]),
        (&role, "role", &[("role", "owner")]),
        (&key, "key", &[("everything", "*")]),
        (&key, "key", &[("users", "users:read"), ("users", "users:write")]),
        (&key, "key", &[("api_keys", "api_keys:write")]),
    ];
    let before = let_in(&app, &viewer).await;
    for (path, form, fields) in steps {
        let page = browser.open(path).await.expect(200);
        let (current, code) = (format!("{form}-current"), format!("{form}-code"));
        // Neither does the password without the code of the second factor.
        for proof in [&[][..], &[(&*current, PASSWORD)], &[(&*current, "wrong"), (&*code, &*factor.code(0))]] {
            let shown = browser.submit(&page, path, &[fields, proof].concat()).await.expect(422);
            assert!(shown.html.contains("The password or the code is wrong"), "{}", shown.content());
        }
    }
    assert_eq!(let_in(&app, &viewer).await, before, "nobody was let in");
    // An operator's session does no more in an account.
    let url = printed(app.folder(), &["users", "create", "ops@example.com", "--operator"]);
    let url = format!("http://localhost/join/{}", url.rsplit('/').next().expect("a token"));
    let mut operator = join(&app, &url, PASSWORD).await;
    for (path, _, fields) in steps {
        let page = operator.open(path).await.expect(200);
        operator.submit(&page, path, fields).await.expect(422);
    }
    assert_eq!(let_in(&app, &viewer).await, before, "nobody was let in");
    // With password and code each is done. A key that lets nobody in takes neither.
    let page = browser.open(&invite).await.expect(200);
    let code = factor.code(0);
    let proof = [("invite-current", PASSWORD), ("invite-code", code.as_str())];
    let shown = browser.submit(&page, &invite, &[steps[0].2, &proof].concat()).await.expect(200);
    assert!(link(&shown).is_some(), "{}", shown.content());
    let page = browser.open(&key).await.expect(200);
    let code = factor.code(1);
    let proof = [("key-current", PASSWORD), ("key-code", code.as_str())];
    let shown = browser.submit(&page, &key, &[steps[2].2, &proof].concat()).await.expect(200);
    assert!(shown.html.contains(">mxcep_"), "{}", shown.content());
    let page = browser.open(&key).await.expect(200);
    let shown = browser.submit(&page, &key, &[("webhooks", "webhooks:read")]).await.expect(200);
    assert!(shown.html.contains(">mxcep_"), "{}", shown.content());
    let page = operator.open(&role).await.expect(200);
    operator.submit(&page, &role, &[("role", "owner"), ("role-current", PASSWORD)]).await.expect(200);
    assert_eq!(let_in(&app, &viewer).await, (json!(3), json!(3), json!("owner")));
}

/// What proves that a form was on a page of this session.
fn mark(shown: &Shown) -> &str {
    shown.html.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a mark")
}

#[tokio::test]
async fn whoever_has_a_second_factor_gives_its_code_before_a_link_for_somebody_else() {
    let app = App::start().await;
    let owner = user(&app, OWNER, "owner").await;
    let other = user(&app, OTHER, "developer").await;
    let mut browser = signed_in(&app, OWNER, "").await;
    let factor = Factor::of(&app, &owner, &browser, 1).await;
    let (page, renew) = page_of(&app, &mut browser, &other, "invitation").await;
    browser.submit(&page, &renew, &[("link-current", PASSWORD)]).await.expect(422);
    browser.submit(&page, &renew, &[("link-current", PASSWORD), ("link-code", "000000")]).await.expect(422);
    let code = factor.code(0);
    let right = [("link-current", PASSWORD), ("link-code", code.as_str())];
    assert!(link(&browser.submit(&page, &renew, &right).await.expect(200)).is_some());
    let again = browser.open(&page.path).await;
    browser.submit(&again, &renew, &right).await.expect(422);
    // Nor does a session with the password turn it off, change the password or put another in its place.
    let me = browser.open("/me").await.expect(200);
    browser.submit(&me, "/me/two-factor/off", &[("factor-current", PASSWORD)]).await.expect(422);
    browser.submit(&me, "/me/password", &[("current", PASSWORD), ("password", NEW)]).await.expect(422);
    let enrol = browser.open("/me/two-factor").await.expect(200);
    let secret = enrol.html.split("name=\"secret\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let own = Factor(Secret::parse(secret.expect("a secret")).expect("a secret")).code(0);
    let replaced = [("code", own.as_str()), ("current", PASSWORD)];
    browser.submit(&enrol, "/me/two-factor", &replaced).await.expect(422);
    let code = factor.code(1);
    let off = [("factor-current", PASSWORD), ("factor-code", code.as_str())];
    browser.submit(&me, "/me/two-factor/off", &off).await.expect(200);
    signed_in(&app, OWNER, "").await;
}

#[tokio::test]
async fn a_session_alone_deletes_nobody_who_has_joined() {
    let app = App::start().await;
    let owner = user(&app, OWNER, "owner").await;
    let other = user(&app, OTHER, "owner").await;
    let users = format!("/v1/accounts/{}/users", app.account);
    let mut browser = signed_in(&app, OWNER, "").await;
    let factor = Factor::of(&app, &owner, &browser, 8).await;
    let delete = format!("/accounts/{}/users/{other}/delete", app.account);
    let page = browser.open(&delete).await.expect(200);
    let typed = ("confirm", OTHER);
    let password = ("delete-current", PASSWORD);
    for fields in [
        &[typed][..],
        &[typed, ("delete-current", "wrong")],
        &[typed, password],
        &[typed, password, ("delete-code", "000000")],
    ] {
        browser.submit(&page, &delete, fields).await.expect(422);
        app.get(&format!("{users}/{other}")).await.expect(200);
    }
    // What proves a session for one step proves it for no other.
    let (link_page, renew) = page_of(&app, &mut browser, &other, "invitation").await;
    let code = factor.code(0);
    let right = [("link-current", PASSWORD), ("link-code", code.as_str())];
    assert!(link(&browser.submit(&link_page, &renew, &right).await.expect(200)).is_some());
    browser.submit(&page, &delete, &[typed, password, ("delete-code", code.as_str())]).await.expect(422);
    let code = factor.code(1);
    let gone = browser.submit(&page, &delete, &[typed, password, ("delete-code", code.as_str())]).await.expect(200);
    assert_eq!(gone.path, format!("/accounts/{}/users", app.account));
    app.get(&format!("{users}/{other}")).await.refused(404, "not_found", "");
    // Whoever has not joined has nothing to lose.
    let invited = app.post(&users, json!({ "email": "new@example.com", "role": "owner" })).await.expect(201).id();
    let delete = format!("/accounts/{}/users/{invited}/delete", app.account);
    let page = browser.open(&delete).await.expect(200);
    assert!(!page.html.contains("delete-current"), "{}", page.content());
    browser.submit(&page, &delete, &[("confirm", "new@example.com")]).await.expect(200);
    app.get(&format!("{users}/{invited}")).await.refused(404, "not_found", "");
}

#[tokio::test]
async fn a_link_replaces_the_password_alone_and_takes_the_code_of_the_second_factor() {
    let app = App::start().await;
    let owner = user(&app, OWNER, "owner").await;
    let mut browser = signed_in(&app, OWNER, "").await;
    let factor = Factor::of(&app, &owner, &browser, 2).await;
    // A key that may do everything makes the link, and has no more than the link by it.
    let renew = format!("/v1/accounts/{}/users/{owner}/invitation", app.account);
    let weak = app.key_for(&[Permission::UsersWrite]).await;
    app.call("POST", &renew).bearer(&weak).send().await.refused(403, "forbidden", "");
    let made = app.call("POST", &renew).send().await.expect(200);
    let url = made.attribute("invitation_url").as_str().expect("a link").to_owned();
    let path = url.split_once("localhost").expect("our address").1.to_owned();
    // The user sees that there is a link.
    assert!(browser.open("/me").await.html.contains("A link that sets a new password for you was made"));
    let mut thief = Browser::new(&app);
    let page = thief.open(&path).await.expect(200);
    for code in ["", "000000"] {
        let form = [("password", NEW), ("again", NEW), ("code", code)];
        thief.submit(&page, &path, &form).await.expect(422);
    }
    assert_eq!(browser.open("/me").await.path, "/me", "no session has ended");
    assert!(thief.session().is_none());
    let code = factor.code(0);
    let form = [("password", NEW), ("again", NEW), ("code", code.as_str())];
    thief.submit(&page, &path, &form).await.expect(200);
    Browser::new(&app).sign_in(OWNER, NEW, "").await.expect(401);
    Browser::new(&app).sign_in(OWNER, NEW, &factor.code(1)).await.expect(200);
}

#[tokio::test]
async fn a_second_factor_is_turned_off_by_somebody_who_proves_who_they_are_and_its_user_is_told() {
    let app = App::start().await;
    let owner = user(&app, OWNER, "owner").await;
    let other = user(&app, OTHER, "owner").await;
    let mut browser = signed_in(&app, OWNER, "").await;
    let mut theirs = signed_in(&app, OTHER, "").await;
    Factor::of(&app, &other, &theirs, 3).await;
    let (page, reset) = page_of(&app, &mut browser, &other, "two-factor").await;
    browser.submit(&page, &reset, &[("factor-current", "wrong")]).await.expect(422);
    Browser::new(&app).sign_in(OTHER, PASSWORD, "").await.expect(401);
    browser.submit(&page, &reset, &[("factor-current", PASSWORD)]).await.expect(200);
    assert_eq!(theirs.open("/me").await.path, "/sign-in?next=%2Fme", "every session has ended");
    let log = app.get("/v1/audit-log?action=user.two_factor_reset").await.expect(200);
    let entry = &log.json["data"][0]["attributes"];
    assert_eq!((&entry["actor_name"], &entry["resource_id"]), (&json!(OWNER), &json!(other)));
    // They are told wherever they wanted to go, at each sign-in until they say that they have read it.
    for _ in 0..2 {
        theirs = Browser::new(&app);
        let told = theirs.sign_in(OTHER, PASSWORD, "").await.expect(200);
        assert!(told.path == "/me" && told.html.contains("turned off your second factor"), "{}", told.content());
    }
    let me = theirs.open("/me").await;
    let read = theirs.submit(&me, "/me/told", &[]).await.expect(200);
    assert!(!read.html.contains("turned off your second factor"));
    assert_ne!(Browser::new(&app).sign_in(OTHER, PASSWORD, "").await.path, "/me");
    // Nobody turns off their own here, and a developer nobody's.
    let (own, _) = page_of(&app, &mut browser, &owner, "two-factor").await;
    let forged = [("csrf", mark(&own)), ("factor-current", PASSWORD)];
    let action = format!("/accounts/{}/users/{owner}/two-factor", app.account);
    assert_eq!(browser.once("POST", &action, Some(&forged)).await.status, 403);
    user(&app, "dev@example.com", "developer").await;
    let mut developer = signed_in(&app, "dev@example.com", "").await;
    let me = developer.open("/me").await;
    let forged = [("csrf", mark(&me)), ("factor-current", PASSWORD)];
    assert_eq!(developer.once("POST", &action, Some(&forged)).await.status, 403);
    // The command line does it too.
    Factor::of(&app, &other, &theirs, 4).await;
    assert!(printed(app.folder(), &["users", "reset-two-factor", OTHER]).contains("turned off"));
    assert!(!run(app.folder(), &["users", "reset-two-factor", OTHER]).status.success(), "there is none any more");
    assert_eq!(Browser::new(&app).sign_in(OTHER, PASSWORD, "").await.path, "/me");
}
