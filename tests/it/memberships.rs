//! One address in several accounts: each makes its own user with it, and nothing that one does shows in another.

use aldaba::api::hash_password;
use aldaba::clock::SystemRandom;
use aldaba::domain::account::KeyHash;
use aldaba::domain::id::AccountId;
use aldaba::domain::user::{Email, Role};
use aldaba::store::{Memberships, NewUser, OFFER_LIFE, Proof, SignIn, StoreError, Users};
use serde_json::{Value, json};

use crate::app::{App, Call};
use crate::browser::{Browser, Shown};
use crate::command_line::{printed, run};
use crate::fixture::Fixture;
use crate::people::{PASSWORD, join};
use crate::second_factor::Factor;

const CFO: &str = "cfo@victim-b.example";
const SQUATTERS: &str = "a squatter's own";

/// Invites the address in an account, and joins by the link: the user's id.
async fn member(app: &App, account: AccountId, key: &str, password: &str) -> (String, Browser) {
    let body = json!({ "email": CFO, "role": "owner" });
    let call = Call::new(app.address, "POST", &format!("/v1/accounts/{account}/users")).bearer(key).json(&body);
    let made = call.send().await.expect(201);
    let browser = join(app, made.attribute("invitation_url").as_str().expect("a link"), password).await;
    (made.id(), browser)
}

/// The offers on the page where an account is chosen.
fn offers(shown: &Shown) -> Vec<String> {
    let offers = shown.html.split("name=\"token\" value=\"").skip(1).filter_map(|rest| rest.split('"').next());
    offers.map(str::to_owned).collect()
}

async fn user_of(app: &App, account: AccountId, key: &str, id: &str) -> Value {
    let path = format!("/v1/accounts/{account}/users/{id}");
    Call::new(app.address, "GET", &path).bearer(key).send().await.expect(200).json["data"]["attributes"].clone()
}

async fn sign_ins(app: &App, key: &str) -> usize {
    let log = Call::new(app.address, "GET", "/v1/audit-log?action=user.signed_in").bearer(key).send().await.expect(200);
    log.json["data"].as_array().expect("entries").len()
}

#[tokio::test]
async fn an_address_that_one_account_has_taken_joins_another_and_neither_learns_of_it() {
    let app = App::start().await;
    let (squatter, squatters) = app.stranger().await;
    member(&app, squatter, &squatters, SQUATTERS).await;
    let (_, joined) = member(&app, app.account, &app.key, PASSWORD).await;
    drop(joined);
    for (password, account, other) in [(PASSWORD, app.account, squatter), (SQUATTERS, squatter, app.account)] {
        let mut browser = Browser::new(&app);
        let shown = browser.sign_in(CFO, password, "").await.expect(200);
        assert_eq!(shown.path, format!("/accounts/{account}"));
        assert!(!shown.html.contains(&other.to_string()));
        browser.open(&format!("/accounts/{other}")).await.expect(404);
        assert!(!browser.open("/me").await.html.contains(&other.to_string()));
    }
    Browser::new(&app).sign_in(CFO, "neither of the two", "").await.expect(401);
    // Within one account an address is one user's.
    let again =
        app.post(&format!("/v1/accounts/{}/users", app.account), json!({ "email": CFO, "role": "viewer" })).await;
    again.refused(422, "email_taken", "/data/attributes/email");
    // The password of one is changed in this one alone.
    let mut browser = Browser::new(&app);
    browser.sign_in(CFO, PASSWORD, "").await.expect(200);
    let me = browser.open("/me").await;
    browser
        .submit(&me, "/me/password", &[("current", PASSWORD), ("password", "another one entirely")])
        .await
        .expect(200);
    Browser::new(&app).sign_in(CFO, PASSWORD, "").await.expect(401);
    Browser::new(&app).sign_in(CFO, SQUATTERS, "").await.expect(200);
    Browser::new(&app).sign_in(CFO, "another one entirely", "").await.expect(200);
}

#[tokio::test]
async fn a_password_that_opens_several_accounts_leads_to_a_choice_which_only_the_chosen_account_sees() {
    let app = App::start().await;
    let (other, others) = app.stranger().await;
    let (theirs, _) = member(&app, other, &others, PASSWORD).await;
    member(&app, app.account, &app.key, PASSWORD).await;
    let before = (user_of(&app, other, &others, &theirs).await, sign_ins(&app, &others).await);
    let own = sign_ins(&app, &app.key).await;
    let mut browser = Browser::new(&app);
    let page = browser.sign_in(CFO, PASSWORD, "").await.expect(200);
    let offers = offers(&page);
    assert_eq!((offers.len(), browser.session()), (2, None), "{}", page.content());
    assert!(page.html.contains("tests") && page.html.contains("stranger"), "{}", page.content());
    assert_eq!(sign_ins(&app, &app.key).await, own, "nobody has signed in yet");
    // What is offered is no session yet.
    for offer in &offers {
        let mut early = Browser::new(&app);
        early.set_session(offer);
        assert_eq!(early.open("/me").await.path, "/sign-in?next=%2Fme");
    }
    let at = page.html.find(&app.account.to_string()).expect("the account's id");
    let chosen = offers.iter().filter(|offer| page.html.rfind(&format!("value=\"{offer}\"")).is_some_and(|o| o < at));
    let chosen = chosen.max_by_key(|offer| page.html.rfind(offer.as_str())).expect("an offer").clone();
    let shown = browser.submit(&page, "/sign-in/choose", &[("token", &chosen)]).await.expect(200);
    assert_eq!(shown.path, format!("/accounts/{}", app.account));
    browser.open(&format!("/accounts/{other}")).await.expect(404);
    assert_eq!(sign_ins(&app, &app.key).await, own + 1);
    let after = (user_of(&app, other, &others, &theirs).await, sign_ins(&app, &others).await);
    assert_eq!(before, after, "the other account sees nothing");
    // The offers are withdrawn, and the one that was taken is not taken twice.
    for offer in &offers {
        let mut late = Browser::new(&app);
        late.submit(&page, "/sign-in/choose", &[("token", offer)]).await.expect(401);
    }
}

#[tokio::test]
async fn an_account_with_a_second_factor_is_offered_to_whoever_gives_its_code() {
    let app = App::start().await;
    let (other, others) = app.stranger().await;
    member(&app, other, &others, PASSWORD).await;
    let (id, browser) = member(&app, app.account, &app.key, PASSWORD).await;
    let factor = Factor::of(&app, &id, &browser, 5).await;
    for code in ["", "000000"] {
        let shown = Browser::new(&app).sign_in(CFO, PASSWORD, code).await.expect(200);
        assert_eq!(
            shown.path,
            format!("/accounts/{other}"),
            "the password alone opens the other, and tells of no more"
        );
    }
    let code = factor.code(0);
    let page = Browser::new(&app).sign_in(CFO, PASSWORD, &code).await.expect(200);
    assert_eq!(offers(&page).len(), 2, "{}", page.content());
    let again = Browser::new(&app).sign_in(CFO, PASSWORD, &code).await.expect(200);
    assert_eq!(offers(&again).len(), 1, "its code serves once");
}

#[tokio::test]
async fn however_many_accounts_an_address_joins_at_once_one_hash_finds_them_all() {
    let app = App::start().await;
    let mut links = Vec::new();
    for _ in 0..6 {
        let (account, key) = app.stranger().await;
        let body = json!({ "email": CFO, "role": "owner" });
        let call = Call::new(app.address, "POST", &format!("/v1/accounts/{account}/users")).bearer(&key).json(&body);
        let made = call.send().await.expect(201);
        links.push(made.attribute("invitation_url").as_str().expect("a link").to_owned());
    }
    let joins = links.iter().map(|link| {
        let path = link.split_once("localhost").expect("our address").1.to_owned();
        let body = format!("password={0}&again={0}", PASSWORD.replace(' ', "+"));
        Call::new(app.address, "POST", &path).header("accept", "text/html").body(body).send()
    });
    for answer in joins.collect::<tokio::task::JoinSet<_>>().join_all().await {
        answer.expect(303);
    }
    let page = Browser::new(&app).sign_in(CFO, PASSWORD, "").await.expect(200);
    assert_eq!(offers(&page).len(), 6, "{}", page.content());
}

#[tokio::test]
async fn the_command_line_asks_which_user_is_meant_where_several_accounts_have_the_address() {
    let app = App::start().await;
    let (other, others) = app.stranger().await;
    member(&app, other, &others, SQUATTERS).await;
    let (id, _) = member(&app, app.account, &app.key, PASSWORD).await;
    let account = app.account.to_string();
    for command in ["invite", "delete", "reset-two-factor"] {
        let output = run(app.folder(), &["users", command, CFO]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{command}");
        assert!(told.contains(&account) && told.contains(&other.to_string()), "{told}");
    }
    let operators = run(app.folder(), &["users", "invite", CFO, "--operator"]);
    assert!(String::from_utf8_lossy(&operators.stderr).contains("no user has this address"));
    printed(app.folder(), &["users", "invite", CFO, "--account", &account]);
    assert!(user_of(&app, app.account, &app.key, &id).await["invitation_expires_at"].is_string());
    printed(app.folder(), &["users", "create", CFO, "--operator"]);
    printed(app.folder(), &["users", "create", "second@example.com", "--account", &account]);
    let last = run(app.folder(), &["users", "delete", CFO, "--account", &account]);
    assert!(!last.status.success(), "the last owner stays");
    let strangers = Browser::new(&app).sign_in(CFO, SQUATTERS, "").await.expect(200);
    assert_eq!(strangers.path, format!("/accounts/{other}"), "nobody else's user was touched");
}

#[tokio::test]
async fn what_is_offered_ends_in_time_and_with_the_password() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let email = Email::parse(CFO).expect("an address");
    let password = hash_password(PASSWORD, None, &SystemRandom::default());
    let new = NewUser { account: Some(fixture.account), email, role: Role::Owner, password };
    let user = store.create_user(new, None).await.expect("a user").resource;
    let offer = || async {
        let token = store.offer_sign_in(user.id, Proof::Trusted).await.expect("an offer");
        KeyHash::of(token.reveal())
    };
    let (first, second) = (offer().await, offer().await);
    assert!(store.session(first, OFFER_LIFE, true).await.expect("an answer").is_none(), "it is no session");
    assert_eq!(store.offered(first).await.expect("an answer").map(|user| user.id), Some(user.id));
    store.take_offer(first, vec![second], OFFER_LIFE * 10).await.expect("taken");
    assert!(store.session(first, OFFER_LIFE, true).await.expect("an answer").is_some());
    for gone in [first, second] {
        assert_eq!(store.take_offer(gone, vec![], OFFER_LIFE).await, Err(StoreError::NotFound));
    }
    let late = offer().await;
    fixture.clock.advance(OFFER_LIFE);
    assert_eq!(store.take_offer(late, vec![], OFFER_LIFE).await, Err(StoreError::NotFound));
    let wrong = hash_password("another one entirely", None, &SystemRandom::default()).expect("a hash");
    let refused = store.offer_sign_in(user.id, Proof::Password(wrong, None)).await;
    assert_eq!(refused.err(), Some(StoreError::NotFound), "the password was changed meanwhile");
}
