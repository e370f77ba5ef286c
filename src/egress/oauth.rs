//! Access tokens of OAuth 2 (RFC 6749, section 4.4), which a token server gives out for client credentials.
//!
//! A token is fetched over a connection that the guard has checked, as an attempt's is, when an attempt needs it; all
//! attempts that wait for it share one fetch. It is kept until it expires. The time of a fetch is charged to the
//! attempts that wait for it, as a receiver's is, so that a slow token server counts as a slow receiver.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use foldhash::HashMap;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use url::form_urlencoded::{Serializer, byte_serialize};
use zeroize::Zeroizing;

use super::Egress;
use super::attempt::{USER_AGENT_SENT, hidden};
use super::connector::{ConnectError, Connection};
use super::deadline::{ReceiverClock, within};
use super::fault::LocalFault;
use super::no_answer::NoAnswer;
use crate::domain::authentication::{TokenGrant, basic, bearer};
use crate::domain::credential::Credential;
use crate::domain::id::{AccountKey, EndpointKey};
use crate::domain::network_rules::NetworkRules;
use crate::lock::Mutex;

/// Bytes of a token server's answer.
const MAX_ANSWER: usize = 64 * 1024;

/// Characters of a token: most receivers take no larger header.
const MAX_TOKEN: usize = 8 * 1024;

/// How long a token is kept of which the token server does not say how long it lives.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// The shortest time for which a token is kept, so that a token server is not asked for each attempt.
const MIN_LIFE: Duration = Duration::from_secs(5);

/// The longest time for which a token is kept.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// A receiver that answers 401 gets another token at most this often.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);

/// Endpoints whose tokens are kept, of at most 8 KiB each. For one more, the token that expires first goes, whosever it
/// is, and is fetched again when it is needed. Beyond this there are only tokens that are being fetched.
const MAX_KEPT: usize = 4_096;

/// Characters of a token server's error code that are told.
const MAX_CODE: usize = 64;

/// What every message about a missing token begins with.
const NO_TOKEN: &str = "no access token: ";

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenError {
    /// This machine lacks something.
    Local(LocalFault),
    /// In words for the receiver's owner.
    Refused(String),
}

fn refused(why: impl std::fmt::Display) -> TokenError {
    TokenError::Refused(format!("{NO_TOKEN}{why}"))
}

/// What a fetch came to: the value of `Authorization`, and the time that the token server took.
#[derive(Clone)]
pub(super) struct FetchedToken {
    pub token: Result<Credential, TokenError>,
    pub took: Duration,
}

/// The account that a token is for, and what an operator has set of where its requests may go.
pub(super) type Owner = (AccountKey, Option<Arc<NetworkRules>>);

/// `None` while the fetch is under way.
type Pending = watch::Sender<Option<FetchedToken>>;

/// A token with its end.
#[derive(Clone)]
struct Kept {
    authorization: Credential,
    valid_until: Instant,
}

/// What is known of an endpoint's token.
struct Entry {
    /// What it was obtained for.
    grant: TokenGrant,
    kept: Option<Kept>,
    /// Whether a receiver has answered 401 to it.
    is_refused: bool,
    /// When one was last fetched in place of one that was refused.
    renewed_at: Option<Instant>,
    /// Weak, so that a fetch that panicked leaves nobody waiting for it.
    under_way: Weak<Pending>,
}

impl Entry {
    fn new(grant: TokenGrant) -> Self {
        Self { grant, kept: None, is_refused: false, renewed_at: None, under_way: Weak::new() }
    }

    /// The token, if it may be used. One that was refused may where the fetch of another one has ended lately; while
    /// that fetch is under way, attempts join it.
    fn token(&self, now: Instant) -> Option<Credential> {
        let kept = self.kept.as_ref().filter(|kept| now < kept.valid_until)?;
        let may_renew = self.renewed_at.is_none_or(|at| now - at >= RENEWAL_INTERVAL);
        let is_renewed_now = self.under_way.strong_count() > 0;
        (!self.is_refused || !(may_renew || is_renewed_now)).then(|| kept.authorization.clone())
    }

    fn is_needed(&self, now: Instant) -> bool {
        self.under_way.strong_count() > 0 || self.kept.as_ref().is_some_and(|kept| now < kept.valid_until)
    }
}

/// The tokens of endpoints.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<EndpointKey, Entry>>);

/// What a fetch begins with.
enum Begun {
    /// There is a token meanwhile.
    Kept(Credential),
    /// Another attempt has begun one.
    Joined(watch::Receiver<Option<FetchedToken>>),
    /// It is to be made.
    First(Arc<Pending>, watch::Receiver<Option<FetchedToken>>),
}

impl Tokens {
    /// The token of an endpoint for this grant, if there is one that may be used.
    pub fn get(&self, endpoint: EndpointKey, grant: &TokenGrant) -> Option<Credential> {
        let entries = self.0.lock();
        entries.get(&endpoint).filter(|entry| entry.grant == *grant)?.token(Instant::now())
    }

    /// A receiver has answered 401 to this token.
    pub fn refuse(&self, endpoint: EndpointKey, token: &Credential) {
        let mut entries = self.0.lock();
        if let Some(entry) = entries.get_mut(&endpoint) {
            entry.is_refused |= entry.kept.as_ref().is_some_and(|kept| kept.authorization == *token);
        }
    }

    /// Drops what has expired, and the tokens of endpoints that do not have these grants now.
    pub fn drop_unused(&self, has_grant: impl Fn(EndpointKey, &TokenGrant) -> bool) {
        let now = Instant::now();
        let is_fetched = |entry: &Entry| entry.under_way.strong_count() > 0;
        let is_used = |key, entry: &Entry| entry.is_needed(now) && (is_fetched(entry) || has_grant(key, &entry.grant));
        self.0.lock().retain(|key, entry| is_used(*key, entry));
    }

    /// Begins a fetch, or joins the one that is under way. Another grant drops the token of the one before.
    fn begin(&self, endpoint: EndpointKey, grant: &TokenGrant) -> Begun {
        let now = Instant::now();
        let mut entries = self.0.lock();
        if entries.len() >= MAX_KEPT && !entries.contains_key(&endpoint) {
            make_room(&mut entries, now);
        }
        let entry = entries.entry(endpoint).or_insert_with(|| Entry::new(grant.clone()));
        if entry.grant != *grant {
            *entry = Entry::new(grant.clone());
        }
        if let Some(token) = entry.token(now) {
            return Begun::Kept(token);
        }
        if let Some(pending) = entry.under_way.upgrade() {
            return Begun::Joined(pending.subscribe());
        }
        if entry.is_refused {
            entry.renewed_at = Some(now);
        }
        let (pending, answer) = watch::channel(None);
        let pending = Arc::new(pending);
        entry.under_way = Arc::downgrade(&pending);
        Begun::First(pending, answer)
    }

    /// Ends a fetch for which nobody waits any more. Tells whether it is so: others join under the lock.
    fn give_up(&self, endpoint: EndpointKey, pending: &Arc<Pending>) -> bool {
        let mut entries = self.0.lock();
        if pending.receiver_count() > 0 {
            return false;
        }
        if let Some(entry) = entry_of(&mut entries, endpoint, pending) {
            entry.under_way = Weak::new();
        }
        true
    }

    /// Keeps what was fetched, unless the endpoint has another grant by now, and tells those that wait.
    fn end(&self, endpoint: EndpointKey, pending: &Arc<Pending>, asked: Result<Kept, TokenError>, took: Duration) {
        let mut entries = self.0.lock();
        if let Some(entry) = entry_of(&mut entries, endpoint, pending) {
            entry.under_way = Weak::new();
            if let Ok(kept) = &asked {
                (entry.kept, entry.is_refused) = (Some(kept.clone()), false);
            }
        }
        drop(entries);
        pending.send_replace(Some(FetchedToken { token: asked.map(|kept| kept.authorization), took }));
    }
}

/// The entry of this fetch, if it is still the endpoint's.
fn entry_of<'a>(
    entries: &'a mut HashMap<EndpointKey, Entry>,
    endpoint: EndpointKey,
    pending: &Arc<Pending>,
) -> Option<&'a mut Entry> {
    entries.get_mut(&endpoint).filter(|entry| Weak::ptr_eq(&entry.under_way, &Arc::downgrade(pending)))
}

/// Drops what has expired; where that is nothing, the token that expires first.
fn make_room(entries: &mut HashMap<EndpointKey, Entry>, now: Instant) {
    entries.retain(|_, entry| entry.is_needed(now));
    if entries.len() < MAX_KEPT {
        return;
    }
    let ended = entries.iter().filter(|(_, entry)| entry.under_way.strong_count() == 0);
    let first = ended.min_by_key(|(_, entry)| entry.kept.as_ref().map(|kept| kept.valid_until));
    if let Some(endpoint) = first.map(|(endpoint, _)| *endpoint) {
        entries.remove(&endpoint);
    }
}

impl Egress {
    /// Fetches the token of an endpoint, together with all that wait for it. The token server has `limit`.
    pub(super) async fn fetch_token(
        &self,
        endpoint: EndpointKey,
        owner: Owner,
        grant: &TokenGrant,
        limit: Duration,
    ) -> FetchedToken {
        let mut answer = match self.0.tokens.begin(endpoint, grant) {
            Begun::Kept(token) => return FetchedToken { token: Ok(token), took: Duration::ZERO },
            Begun::Joined(answer) => answer,
            Begun::First(pending, answer) => {
                tokio::spawn(fetch(self.clone(), (endpoint, owner), grant.clone(), limit, pending));
                answer
            }
        };
        let fetched = answer.wait_for(Option::is_some).await.ok().and_then(|fetched| fetched.clone());
        fetched.unwrap_or_else(|| FetchedToken { token: Err(refused("its fetch broke off")), took: Duration::ZERO })
    }

    /// Asks the token server. The clock stands until a look-up has begun.
    async fn ask(&self, owner: &Owner, grant: &TokenGrant, clock: &ReceiverClock) -> Result<Kept, TokenError> {
        let asked_at = Instant::now();
        let (account, networks) = owner;
        let connected = self.connect(&grant.token_url, None, (*account, networks.as_deref()), clock).await;
        let mut connection = connected.map_err(|error| match error {
            ConnectError::Local(fault) => TokenError::Local(fault),
            error => refused(error),
        })?;
        let Connection { sender, driver, allowance, .. } = &mut connection;
        driver.run(sender.ready()).await.map_err(|error| broken(&error))?;
        let request = request(grant).map_err(refused)?;
        allowance.await_answer();
        let response = driver.run(sender.send_request(request)).await.map_err(|error| broken(&error))?;
        allowance.lift();
        let status = response.status().as_u16();
        let body = driver.run(read(response)).await?;
        let (token, life) = read_token(status, &body, &grant.client_secret).map_err(refused)?;
        Ok(Kept { authorization: bearer(&token), valid_until: asked_at + life })
    }
}

/// Fetches a token, as long as something waits for it.
async fn fetch(
    egress: Egress,
    (endpoint, owner): (EndpointKey, Owner),
    grant: TokenGrant,
    limit: Duration,
    pending: Arc<Pending>,
) {
    let (began, clock) = (Instant::now(), ReceiverClock::default());
    let mut asking = pin!(within(limit, || clock.ours(), egress.ask(&owner, &grant, &clock)));
    let asked = loop {
        tokio::select! {
            asked = &mut asking => break asked.unwrap_or_else(|_| Err(refused(late(limit)))),
            () = pending.closed() => {
                if egress.0.tokens.give_up(endpoint, &pending) {
                    return;
                }
            }
        }
    };
    let took = began.elapsed().saturating_sub(clock.ours());
    egress.0.tokens.end(endpoint, &pending, asked, took);
}

fn late(limit: Duration) -> String {
    format!("the token server did not answer within {limit:?}")
}

/// Why there was no answer on a connection.
fn broken(error: &hyper::Error) -> TokenError {
    match NoAnswer::of(error, "the token server") {
        NoAnswer::Local(fault) => TokenError::Local(fault),
        NoAnswer::Broken(words) => refused(words),
        NoAnswer::Closed => refused("the token server closed the connection before it answered"),
    }
}

/// The request for a token. The client authenticates by Basic, with its name and its secret encoded as in a form (RFC
/// 6749, section 2.3.1).
fn request(grant: &TokenGrant) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let encoded = |text: &str| Zeroizing::new(byte_serialize(text.as_bytes()).collect::<String>());
    let (id, secret) = (encoded(&grant.client_id), encoded(grant.client_secret.reveal()));
    let client = basic(&id, &secret);
    let mut body = Serializer::new(String::new());
    body.append_pair("grant_type", "client_credentials");
    for (name, value) in [("scope", &grant.scope), ("audience", &grant.audience)] {
        if let Some(value) = value {
            body.append_pair(name, value);
        }
    }
    let mut request = Request::new(Full::new(Bytes::from(body.finish())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = grant.token_url.target.parse()?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(&grant.token_url.authority)?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_SENT));
    headers.insert(AUTHORIZATION, hidden(&client)?);
    Ok(request)
}

/// Reads the whole answer.
async fn read(response: Response<Incoming>) -> Result<Zeroizing<Vec<u8>>, TokenError> {
    let mut incoming = response.into_body();
    let mut body = Zeroizing::new(Vec::new());
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        if let Ok(data) = frame.into_data() {
            if body.len() + data.len() > MAX_ANSWER {
                return Err(refused("the token server's answer is larger than 64 KiB"));
            }
            body.extend_from_slice(&data);
        }
    }
    Ok(body)
}

/// The token of an answer (RFC 6749, section 5) and how long it lives; or why there is none: the status, and the error
/// code, which is all that is told of the answer.
fn read_token(status: u16, body: &[u8], client_secret: &Credential) -> Result<(Credential, Duration), String> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    // Nothing that the server was told comes back through it.
    let may_tell = |code: &&str| is_code(code) && !code.contains(client_secret.reveal());
    if let Some(code) = answer["error"].as_str().filter(may_tell) {
        return Err(format!("the token server answered {status} ({code})"));
    }
    if !(200..300).contains(&status) {
        return Err(format!("the token server answered {status}"));
    }
    let token = answer["access_token"].as_str().filter(|token| is_token(token));
    let is_bearer = match &answer["token_type"] {
        Value::Null => true,
        kind => kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")),
    };
    match token {
        Some(token) if is_bearer => Ok((Credential::new(token.to_owned()), life(&answer["expires_in"]))),
        _ => Err(format!("the token server answered {status} without a bearer token")),
    }
}

fn is_code(code: &str) -> bool {
    (1..=MAX_CODE).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn is_token(token: &str) -> bool {
    (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
}

/// How long a token lives: a number of seconds, which some servers write as a string.
fn life(expires_in: &Value) -> Duration {
    let seconds = match expires_in {
        Value::String(text) => text.parse::<f64>().ok(),
        number => number.as_f64(),
    };
    let seconds = seconds.filter(|seconds| seconds.is_finite());
    seconds.map_or(DEFAULT_LIFE, |seconds| {
        Duration::from_secs_f64(seconds.clamp(MIN_LIFE.as_secs_f64(), MAX_LIFE.as_secs_f64()))
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;

    use super::*;
    use crate::domain::url::{Environment, ReceiverUrl};

    const ENDPOINT: EndpointKey = EndpointKey(1);

    fn grant(client_id: &str) -> TokenGrant {
        TokenGrant {
            token_url: ReceiverUrl::parse("https://id.example:8443/t?a=b", Environment::Production).expect("a URL"),
            client_id: client_id.into(),
            client_secret: Credential::new("s e:c+ret%".to_owned()),
            scope: Some("read write".into()),
            audience: None,
        }
    }

    fn kept(token: &str, life: Duration) -> Kept {
        Kept { authorization: Credential::new(token.to_owned()), valid_until: Instant::now() + life }
    }

    /// Fetches this token, and tells whether a fetch was needed.
    fn fetched(tokens: &Tokens, grant: &TokenGrant, token: &str) -> bool {
        match tokens.begin(ENDPOINT, grant) {
            Begun::First(pending, _answer) => {
                tokens.end(ENDPOINT, &pending, Ok(kept(token, MAX_LIFE)), Duration::ZERO);
                true
            }
            Begun::Kept(_) => false,
            Begun::Joined(_) => panic!("nothing else is under way"),
        }
    }

    #[tokio::test]
    async fn the_client_authenticates_by_basic_with_both_parts_encoded() {
        let request = request(&grant("a client")).expect("a request");
        assert_eq!((request.method(), request.uri().to_string()), (&Method::POST, "/t?a=b".to_owned()));
        let header = |name| request.headers()[name].to_str().expect("text").to_owned();
        assert_eq!(header(HOST), "id.example:8443");
        assert_eq!(header(CONTENT_TYPE), "application/x-www-form-urlencoded");
        let pair = BASE64.encode("a+client:s+e%3Ac%2Bret%25");
        assert_eq!(header(AUTHORIZATION), format!("Basic {pair}"));
        assert!(!format!("{request:?}").contains(&pair), "it prints as sensitive");
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body, "grant_type=client_credentials&scope=read+write");
    }

    #[test]
    fn a_token_is_read_with_its_life() {
        let secret = Credential::new("client-secret".to_owned());
        let read = |text: &str| read_token(200, text.as_bytes(), &secret);
        for (more, seconds) in [
            ("", 300),
            (r#","expires_in":null,"token_type":"BEARER""#, 300),
            (r#","expires_in":7,"token_type":"Bearer""#, 7),
            (r#","expires_in":"60""#, 60),
            (r#","expires_in":0"#, 5),
            (r#","expires_in":-5"#, 5),
            (r#","expires_in":4.9"#, 5),
            (r#","expires_in":1e300"#, 86_400),
            (r#","expires_in":"soon""#, 300),
            (r#","expires_in":"NaN""#, 300),
            (r#","expires_in":[1]"#, 300),
        ] {
            let (token, life) = read(&format!(r#"{{"access_token":"abc"{more}}}"#)).expect("a token");
            assert_eq!((token.reveal(), life), ("abc", Duration::from_secs(seconds)), "{more}");
        }
    }

    #[test]
    fn of_a_refusal_the_status_and_the_code_are_told_and_nothing_else() {
        let secret = Credential::new("client-secret".to_owned());
        let long = format!(r#"{{"error":"{}"}}"#, "a".repeat(65));
        let large = format!(r#"{{"access_token":"{}"}}"#, "a".repeat(MAX_TOKEN + 1));
        for (status, body, expected) in [
            (401, r#"{"error":"invalid_client","error_description":"no such client"}"#, "401 (invalid_client)"),
            (400, r#"{"error":"a bad <code>"}"#, "400"),
            (400, r#"{"error":"bad_client-secret"}"#, "400"),
            (400, long.as_str(), "400"),
            (503, "busy", "503"),
            (302, "", "302"),
            (200, r#"{"error":"bad_verification_code"}"#, "200 (bad_verification_code)"),
            (200, "[]", "200 without a bearer token"),
            (200, r#"{"access_token":7}"#, "200 without a bearer token"),
            (200, r#"{"access_token":""}"#, "200 without a bearer token"),
            (200, r#"{"access_token":"a\r\nX-B: c"}"#, "200 without a bearer token"),
            (200, large.as_str(), "200 without a bearer token"),
            (200, r#"{"access_token":"a","token_type":"mac"}"#, "200 without a bearer token"),
        ] {
            let told = read_token(status, body.as_bytes(), &secret).err();
            assert_eq!(told, Some(format!("the token server answered {expected}")), "{body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_kept_until_it_expires_and_for_its_grant_only() {
        let tokens = Tokens::default();
        let (one, other) = (grant("a"), grant("b"));
        assert!(tokens.get(ENDPOINT, &one).is_none() && fetched(&tokens, &one, "first"));
        assert_eq!(tokens.get(ENDPOINT, &one), Some(Credential::new("first".to_owned())));
        assert!(tokens.get(ENDPOINT, &other).is_none() && tokens.get(EndpointKey(2), &one).is_none());
        assert!(!fetched(&tokens, &one, "again"));
        assert!(fetched(&tokens, &other, "second"));
        assert!(tokens.get(ENDPOINT, &one).is_none(), "it went with its grant");
        tokio::time::advance(MAX_LIFE).await;
        assert!(tokens.get(ENDPOINT, &other).is_none());
        tokens.drop_unused(|_, _| true);
        assert!(tokens.0.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_goes_with_its_endpoint_and_with_its_grant() {
        let (tokens, grant) = (Tokens::default(), grant("a"));
        assert!(fetched(&tokens, &grant, "first"));
        tokens.drop_unused(|key, known| key == ENDPOINT && *known == grant);
        assert!(tokens.get(ENDPOINT, &grant).is_some());
        tokens.drop_unused(|_, _| false);
        assert!(tokens.0.lock().is_empty());
        let Begun::First(_pending, _answer) = tokens.begin(ENDPOINT, &grant) else { panic!("a fetch") };
        tokens.drop_unused(|_, _| false);
        assert!(matches!(tokens.begin(ENDPOINT, &grant), Begun::Joined(_)), "a fetch that is under way stays");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_refused_is_renewed_at_once_and_then_once_a_minute() {
        let (tokens, grant) = (Tokens::default(), grant("a"));
        assert!(fetched(&tokens, &grant, "first"));
        let refuse = |token: &str| tokens.refuse(ENDPOINT, &Credential::new(token.to_owned()));
        refuse("another");
        assert!(tokens.get(ENDPOINT, &grant).is_some(), "it is not the one that was refused");
        refuse("first");
        assert!(tokens.get(ENDPOINT, &grant).is_none() && fetched(&tokens, &grant, "second"));
        refuse("second");
        assert!(tokens.get(ENDPOINT, &grant).is_some(), "one was renewed just now");
        tokio::time::advance(RENEWAL_INTERVAL).await;
        assert!(tokens.get(ENDPOINT, &grant).is_none());
        // A token server that gives out none leaves the one that there is.
        let Begun::First(pending, _answer) = tokens.begin(ENDPOINT, &grant) else { panic!("a fetch") };
        tokens.end(ENDPOINT, &pending, Err(refused("it is down")), Duration::ZERO);
        assert_eq!(tokens.get(ENDPOINT, &grant), Some(Credential::new("second".to_owned())));
        assert!(!fetched(&tokens, &grant, "third"), "a token server that is down is asked once a minute too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_not_used_while_another_one_is_fetched() {
        let (tokens, grant) = (Tokens::default(), grant("a"));
        assert!(fetched(&tokens, &grant, "first"));
        tokens.refuse(ENDPOINT, &Credential::new("first".to_owned()));
        let Begun::First(pending, _first) = tokens.begin(ENDPOINT, &grant) else { panic!("a fetch") };
        assert_eq!(tokens.get(ENDPOINT, &grant), None);
        let Begun::Joined(mut second) = tokens.begin(ENDPOINT, &grant) else { panic!("the same fetch") };
        tokens.end(ENDPOINT, &pending, Ok(kept("second", MAX_LIFE)), Duration::ZERO);
        let fetched = second.wait_for(Option::is_some).await.expect("an answer").clone().expect("an end");
        assert_eq!(fetched.token, Ok(Credential::new("second".to_owned())));
        assert_eq!(tokens.get(ENDPOINT, &grant), Some(Credential::new("second".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_is_shared_and_ends_when_nobody_waits() {
        let (tokens, grant) = (Tokens::default(), grant("a"));
        let Begun::First(pending, first) = tokens.begin(ENDPOINT, &grant) else { panic!("a fetch") };
        let Begun::Joined(mut second) = tokens.begin(ENDPOINT, &grant) else { panic!("the same fetch") };
        drop(first);
        assert!(!tokens.give_up(ENDPOINT, &pending), "one still waits");
        tokens.end(ENDPOINT, &pending, Err(TokenError::Local(LocalFault::OutOfFiles)), Duration::ZERO);
        let fetched = second.wait_for(Option::is_some).await.expect("an answer").clone().expect("an end");
        assert_eq!(fetched.token, Err(TokenError::Local(LocalFault::OutOfFiles)));
        let Begun::First(pending, first) = tokens.begin(ENDPOINT, &grant) else { panic!("another fetch") };
        drop(first);
        assert!(tokens.give_up(ENDPOINT, &pending));
        assert!(matches!(tokens.begin(ENDPOINT, &grant), Begun::First(..)));
    }

    #[tokio::test(start_paused = true)]
    async fn when_there_is_no_room_the_token_goes_that_expires_first() {
        let (tokens, grant) = (Tokens::default(), grant("a"));
        let fill = |key: i64, life: u64| {
            let entry = Entry { kept: Some(kept("a", Duration::from_secs(life))), ..Entry::new(grant.clone()) };
            tokens.0.lock().insert(EndpointKey(key), entry);
        };
        let most = i64::try_from(MAX_KEPT).expect("small");
        (0..most).for_each(|key| fill(key, if key == 7 { 10 } else { 1_000 }));
        drop(tokens.begin(EndpointKey(most), &grant));
        let has = |key: i64| tokens.0.lock().contains_key(&EndpointKey(key));
        assert!(!has(7) && has(8) && has(most));
        assert_eq!(tokens.0.lock().len(), MAX_KEPT);
    }
}
