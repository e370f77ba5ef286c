//! What ends by itself, and what must not pass: sessions, invitations and portal links under a clock of the test's own.

use std::time::Duration;

use aldaba::api::hash_password;
use aldaba::clock::{Clock as _, SeededRandom};
use aldaba::domain::account::KeyHash;
use aldaba::domain::id::UserId;
use aldaba::domain::permission::{Permission, Permissions};
use aldaba::domain::secret::Secret;
use aldaba::domain::statistics::{Came, Counted, SLOTS};
use aldaba::domain::user::{Email, Role, User};
use aldaba::store::{
    Accounts, Endpoints, Factor, Housekeeping, INVITATION_LIFE, Lifecycle, MAX_SESSIONS, Memberships, NewPortalLink,
    NewUser, PasswordHash, PortalLinks, Proof, SignIn, SignInChange, Statistics, StoreError, Users, WithToken,
};

use crate::fixture::Fixture;

const MINUTE: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(3_600);
const LIFE: Duration = Duration::from_secs(4 * 3_600);

fn hash(password: &str) -> PasswordHash {
    hash_password(password, None, &SeededRandom::new(7)).expect("a hash")
}

async fn user(fixture: &Fixture, email: &str, password: Option<&str>) -> WithToken<User> {
    let email = Email::parse(email).expect("an address");
    let new = NewUser { account: Some(fixture.account), email, role: Role::Owner, password: password.map(hash) };
    fixture.store.create_user(new, None).await.expect("a user")
}

#[tokio::test]
async fn a_session_ends_without_a_click_and_at_the_end_of_its_life() {
    let fixture = &Fixture::new().await;
    let user = user(fixture, "ana@example.com", Some("correct horse")).await.resource;
    let signed_in = || async {
        let token = fixture.store.sign_in(user.id, Proof::Trusted, LIFE).await.expect("a session");
        KeyHash::of(token.reveal())
    };
    let is_in = |token| async move { fixture.store.session(token, IDLE, true).await.expect("an answer").is_some() };
    let idle = signed_in().await;
    fixture.clock.advance(IDLE.saturating_sub(MINUTE));
    assert!(is_in(idle).await, "just in time");
    fixture.clock.advance(IDLE.saturating_sub(MINUTE));
    assert!(is_in(idle).await, "each use counts");
    fixture.clock.advance(IDLE / 2);
    let looked = fixture.store.session(idle, IDLE, false).await.expect("an answer");
    assert!(looked.is_some(), "what a page does by itself is seen, and does not count");
    fixture.clock.advance(IDLE / 2 + MINUTE);
    assert!(!is_in(idle).await, "idle for too long");

    let old = signed_in().await;
    for _ in 0..7 {
        fixture.clock.advance(IDLE / 2);
        assert!(is_in(old).await);
    }
    fixture.clock.advance(IDLE / 2);
    assert!(!is_in(old).await, "its life is over, though it was used");
    while fixture.store.purge_sessions(IDLE).await.expect("a step") {}
    let found = fixture.store.session(old, LIFE * 100, true).await.expect("an answer");
    assert!(found.is_none(), "and it is forgotten");
}

#[tokio::test]
async fn a_user_has_a_hundred_sessions_and_the_one_that_was_unused_longest_ends() {
    let fixture = &Fixture::new().await;
    let store = &fixture.store;
    let ana = user(fixture, "ana@example.com", Some("correct horse")).await.resource;
    let eva = user(fixture, "eva@example.com", Some("correct horse")).await.resource;
    let sign_in = |user: UserId| async move {
        fixture.clock.advance(MINUTE / 60);
        let token = store.sign_in(user, Proof::Trusted, LIFE).await.expect("a session");
        KeyHash::of(token.reveal())
    };
    let offer = |user: UserId| async move {
        fixture.clock.advance(MINUTE / 60);
        let token = store.offer_sign_in(user, Proof::Trusted).await.expect("an offer");
        KeyHash::of(token.reveal())
    };
    let is_in = |token| async move { store.session(token, IDLE, false).await.expect("an answer").is_some() };
    let is_offered = |token| async move { store.offered(token).await.expect("an answer").is_some() };
    let of_eva = sign_in(eva.id).await;
    let (used, unused) = (sign_in(ana.id).await, sign_in(ana.id).await);
    fixture.clock.advance(MINUTE);
    assert!(store.session(used, IDLE, true).await.expect("an answer").is_some());
    for _ in 2..MAX_SESSIONS {
        sign_in(ana.id).await;
    }
    assert!(is_in(used).await && is_in(unused).await, "as many as there may be");
    let last = sign_in(ana.id).await;
    assert_eq!([is_in(unused).await, is_in(used).await, is_in(last).await], [false, true, true]);
    assert!(is_in(of_eva).await, "another user's stay");
    // Offers end offers, and no sessions.
    let first = offer(ana.id).await;
    for _ in 1..MAX_SESSIONS {
        offer(ana.id).await;
    }
    assert!(is_offered(first).await, "as many as there may be");
    let newest = offer(ana.id).await;
    assert_eq!([is_offered(first).await, is_offered(newest).await, is_in(used).await], [false, true, true]);
    // An offer that is taken is a session.
    store.take_offer(newest, vec![], LIFE).await.expect("taken");
    assert_eq!([is_in(newest).await, is_in(last).await, is_in(used).await], [true, true, false]);
}

#[tokio::test]
async fn invitations_and_portal_links_end_in_time() {
    let fixture = Fixture::new().await;
    let invited = user(&fixture, "eva@example.com", None).await;
    let token = KeyHash::of(invited.token.expect("a token").reveal());
    let new = NewPortalLink {
        account: fixture.account,
        permissions: [Permission::WebhooksRead].into_iter().collect::<Permissions>(),
        brand: None,
        color: None,
        frame_origins: vec!["https://app.example.com".into()],
        expires_at: fixture.clock.now().plus(MINUTE),
    };
    let link = fixture.store.create_portal_link(new, None).await.expect("a link");
    let link_token = KeyHash::of(link.token.expect("a token").reveal());
    let found = fixture.store.portal_link(link_token).await.expect("an answer").expect("it is there");
    assert_eq!(found, link.resource);
    fixture.clock.advance(MINUTE);
    assert_eq!(fixture.store.portal_link(link_token).await, Ok(None));

    fixture.clock.advance(INVITATION_LIFE.saturating_sub(2 * MINUTE));
    assert!(fixture.store.invited(token).await.expect("an answer").is_some());
    fixture.clock.advance(MINUTE);
    assert_eq!(fixture.store.invited(token).await, Ok(None));
    assert_eq!(fixture.store.join(token, hash("a password"), None).await, Err(StoreError::NotFound));
}

#[tokio::test]
async fn what_was_found_right_must_still_be_right_when_the_session_opens() {
    let fixture = Fixture::new().await;
    let user = user(&fixture, "ana@example.com", Some("the first one")).await.resource;
    let store = &fixture.store;
    let known = || async { store.credentials_of(user.id).await.expect("an answer").expect("they are known") };
    let before = Proof::Password(known().await.password.expect("a password"), None);
    let token = store.sign_in(user.id, Proof::Trusted, LIFE).await.expect("a session");
    let session = KeyHash::of(token.reveal());
    let second = SignInChange::Password(hash("the second one"));
    store.change_sign_in(user.id, second, before.clone(), session).await.expect("changed");
    let refused = store.sign_in(user.id, before.clone(), LIFE).await;
    assert_eq!(refused.err(), Some(StoreError::NotFound), "the password was changed meanwhile");
    for change in [SignInChange::Password(hash("an attacker's")), SignInChange::NoSecondFactor] {
        let refused = store.change_sign_in(user.id, change, before.clone(), session).await;
        assert_eq!(refused, Err(StoreError::NotFound), "nobody changes anything by a password of before");
    }
    let now = known().await.password.expect("a password");
    let secret = Secret::from_random([9; 32]);
    let factor = SignInChange::SecondFactor(secret.clone(), 100);
    store.change_sign_in(user.id, factor, Proof::Password(now.clone(), None), session).await.expect("changed");
    for (step, allowed) in [(None, false), (Some(100), false), (Some(101), true), (Some(101), false), (Some(99), false)]
    {
        let opened = store.sign_in(user.id, Proof::Password(now.clone(), step), LIFE).await;
        assert_eq!(opened.is_ok(), allowed, "{step:?}");
    }
    // The secret survives new master keys.
    store.rekey().await.expect("sealed anew");
    assert_eq!(known().await.second_factor, Factor::Secret(secret));
    // Nor is it turned off without it, or replaced by another.
    let other = SignInChange::SecondFactor(Secret::from_random([8; 32]), 500);
    for change in [SignInChange::NoSecondFactor, SignInChange::Password(hash("an attacker's")), other] {
        let refused = store.change_sign_in(user.id, change, Proof::Password(now.clone(), None), session).await;
        assert_eq!(refused, Err(StoreError::NotFound), "without the second factor");
    }
    // An invitation replaces the password alone, and takes the code of the second factor.
    let invited = store.invite_user(Some(fixture.account), user.id, None).await.expect("invited");
    let token = KeyHash::of(invited.token.expect("a token").reveal());
    for step in [None, Some(101)] {
        assert_eq!(store.join(token, hash("the third one"), step).await, Err(StoreError::NotFound), "{step:?}");
    }
    assert!(store.session(session, IDLE, true).await.expect("an answer").is_some(), "and nothing was changed");
    store.join(token, hash("the third one"), Some(102)).await.expect("joined");
    assert!(matches!(known().await.second_factor, Factor::Secret(_)), "it stays");
    let third = Proof::Password(known().await.password.expect("a password"), Some(103));
    let refused = store.change_sign_in(user.id, SignInChange::NoSecondFactor, third, session).await;
    assert_eq!(refused, Err(StoreError::NotFound), "nor from a session that has ended");
    assert_eq!(store.join(token, hash("the fourth one"), None).await, Err(StoreError::NotFound), "it serves once");
    assert!(store.sign_in(user.id, Proof::Password(now, Some(200)), LIFE).await.is_err());
}

#[tokio::test]
async fn the_account_of_somebody_goes_with_its_users_their_sessions_and_its_links() {
    let fixture = Fixture::new().await;
    let user = user(&fixture, "ana@example.com", Some("correct horse")).await.resource;
    let token = fixture.store.sign_in(user.id, Proof::Trusted, LIFE).await.expect("a session");
    fixture.store.delete_account(fixture.account).await.expect("deleted");
    let found = fixture.store.session(KeyHash::of(token.reveal()), IDLE, true).await.expect("an answer");
    assert!(found.is_none());
    assert!(fixture.store.users_with(user.email.clone()).await.expect("an answer").is_empty(), "the address is free");
    while fixture.store.purge_deleted().await.expect("a step") {}
    let other = fixture.store.create_account("b".into(), None).await.expect("an account").id;
    let new = NewUser { account: Some(other), email: user.email, role: Role::Viewer, password: None };
    fixture.store.create_user(new, None).await.expect("a user");
}

#[tokio::test]
async fn each_account_has_its_own_user_with_an_address_and_nothing_of_it_shows_in_another() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let other = store.create_account("b".into(), None).await.expect("an account").id;
    let email = Email::parse("ceo@victim.example").expect("an address");
    let invite = |account| {
        let new = NewUser { account: Some(account), email: email.clone(), role: Role::Owner, password: None };
        store.create_user(new, None)
    };
    let squatter = invite(fixture.account).await.expect("invited").token.expect("a token");
    assert_eq!(invite(fixture.account).await.err(), Some(StoreError::Exists), "once in an account");
    let squatter = store.join(KeyHash::of(squatter.reveal()), hash("a squatter"), None).await.expect("joined");
    let real = invite(other).await.expect("and again in another").token.expect("a token");
    // One sign-in hashes once: every password of the address has the same salt.
    let unlike = hash_password("correct horse", None, &SeededRandom::new(8)).expect("a hash");
    assert_eq!(store.join(KeyHash::of(real.reveal()), unlike, None).await, Err(StoreError::OtherRecipe));
    let joined = store.join(KeyHash::of(real.reveal()), hash("correct horse"), None).await.expect("joined");
    assert_eq!(joined.account.map(|(id, _)| id), Some(other));
    let opened = |password: &'static str| {
        let email = email.clone();
        async move { store.opened_by(email, hash(password)).await.expect("an answer") }
    };
    let ids =
        |known: Vec<aldaba::store::SignInCredentials>| known.iter().map(|known| known.user.id).collect::<Vec<_>>();
    assert_eq!(ids(opened("a squatter").await), [squatter.id]);
    assert_eq!(ids(opened("correct horse").await), [joined.id]);
    assert_eq!(ids(opened("neither").await), []);
    // Ending every session ends an invitation to set another password too.
    let invited = store.invite_user(Some(other), joined.id, None).await.expect("invited").token.expect("a token");
    let session = store.sign_in(joined.id, Proof::Trusted, LIFE).await.expect("a session");
    let session = KeyHash::of(session.reveal());
    store.change_sign_in(joined.id, SignInChange::Sessions, Proof::Trusted, session).await.expect("ended");
    assert_eq!(store.invited(KeyHash::of(invited.reveal())).await, Ok(None));
    assert!(store.session(session, IDLE, true).await.expect("an answer").is_none());
}

#[tokio::test]
async fn counts_add_up_and_short_slots_go_first() {
    let fixture = &Fixture::new().await;
    let (id, key) = fixture.endpoint().await;
    let now = fixture.clock.now();
    let counted = |came, took| Counted::of(key, now, came, took);
    let store = &fixture.store;
    let counts =
        vec![(counted(Came::Success, 10), 3), (counted(Came::Failed, 900), 1), (counted(Came::Success, 10), 2)];
    store.count_attempts(counts).await.expect("counted");
    store.count_attempts(vec![(counted(Came::Success, 10), 4)]).await.expect("counted");
    let sum = |endpoint, length: Duration| async move {
        let counts = store.attempt_counts(fixture.account, endpoint, length, now.minus(length)).await.expect("counts");
        counts.iter().map(|count| count.attempts).sum::<u64>()
    };
    let [(short, short_kept), (long, long_kept)] = SLOTS;
    assert_eq!((sum(None, short).await, sum(Some(id), long).await), (10, 10));
    // Those of endpoints that have gone are not counted, and stop nobody.
    let (gone, gone_key) = fixture.endpoint().await;
    store.delete_endpoint(fixture.account, gone).await.expect("deleted");
    let of_gone = Counted::of(gone_key, now, Came::Success, 10);
    store.count_attempts(vec![(of_gone, 7), (counted(Came::Retrying, 3), 1)]).await.expect("counted");
    assert_eq!((sum(None, short).await, sum(Some(id), long).await), (11, 11));
    let purge = |at| async move { while store.purge_attempt_counts(at).await.expect("a step") {} };
    purge(now.plus(short_kept).plus(short)).await;
    assert_eq!((sum(None, short).await, sum(None, long).await), (0, 11));
    purge(now.plus(long_kept).plus(long)).await;
    assert_eq!(sum(None, long).await, 0);
}
