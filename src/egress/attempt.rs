//! One attempt: get a connection, read the endpoint's current row, sign, send, read a bounded answer.
//!
//! The row is read after the connection is made, so that a slow look-up or handshake never delays a signature: an
//! attempt that begins after a rotation was answered is never signed with the old secret. An access token is had before
//! it too.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response};
use tokio::time::Instant;

use super::Egress;
use super::connector::{ConnectError, Connection};
use super::deadline::{ReceiverClock, within};
use super::fault::LocalFault;
use super::guard::LookupOwner;
use super::no_answer::NoAnswer;
use super::oauth::TokenError;
use super::pool::PoolPart;
use super::start::{COUNT_TRIES, count_start};
use crate::domain::authentication::{Authentication, Authorization};
use crate::domain::client_certificate::ClientIdentity;
use crate::domain::credential::Credential;
use crate::domain::credentials::ShownCredentials;
use crate::domain::custom_headers::Headers;
use crate::domain::delivery::{Job, KEPT_BODY_CHARS, Outcome};
use crate::domain::id::{AccountKey, DeliveryId};
use crate::domain::network_rules::NetworkRules;
use crate::domain::retry::parse_retry_after;
use crate::domain::time::Timestamp;
use crate::domain::trace_context;
use crate::domain::url::ReceiverUrl;
use crate::store::{Dispatch, Snapshot, StartPermit, Target};

/// Bytes of an answer's body that are read; the rest is left, and the connection closed.
const MAX_ANSWER_BODY: usize = 16 * 1024;

/// Longest `error_message`, in characters.
const MAX_ERROR_CHARS: usize = 500;

const CONTENT_TYPE_SENT: &str = "application/json";
pub(super) const USER_AGENT_SENT: &str = concat!("Aldaba/", env!("CARGO_PKG_VERSION"));

const X_WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("x-webhook-signature");
const X_WEBHOOK_SIGNATURE_TIMESTAMPED: HeaderName = HeaderName::from_static("x-webhook-signature-timestamped");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const TRACEPARENT: HeaderName = HeaderName::from_static(trace_context::TRACEPARENT);
const TRACESTATE: HeaderName = HeaderName::from_static(trace_context::TRACESTATE);

/// Headers of a request, rounded up: the map does not grow on the way.
const HEADERS: usize = 16;

/// Header names that carry the operator's brand.
pub(super) struct BrandHeaders {
    event: HeaderName,
    delivery_id: HeaderName,
    /// Time of the attempt as ISO 8601; the signatures' headers have the same time in Unix seconds.
    timestamp: HeaderName,
}

impl BrandHeaders {
    pub fn new(brand: &str) -> Self {
        let name = |part: &str| {
            let name = HeaderName::try_from(format!("x-{brand}-{part}"));
            name.expect("the settings allow only letters, digits and hyphens in a brand")
        };
        Self { event: name("event"), delivery_id: name("delivery-id"), timestamp: name("timestamp") }
    }
}

/// Reads the endpoint that an attempt goes to.
pub trait TargetSource: Sync {
    /// The endpoint as this process last read it, to connect to. `None` where nothing is to be sent.
    fn planned(&self) -> Option<Arc<Target>>;

    /// The endpoint by all that was committed before this call, to sign with. `None` also where its rate limit allows
    /// no request now.
    fn current(&self) -> impl Future<Output = Option<Arc<Target>>> + Send;

    /// Does work that comes before the request, however long it takes: the attempt stays counted meanwhile.
    fn keep_counted<T: Send>(&self, work: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send;

    /// A request is sent now. Another one of the same attempt is counted again.
    fn sending(&self);
}

/// The endpoint as the store has it.
pub struct StoredTarget<'a, S> {
    /// The store.
    pub store: &'a S,
    /// What is to be sent.
    pub job: &'a Job,
    /// Whether nothing is sent while the endpoint is not active.
    pub requires_active: bool,
    /// What allows a request where the endpoint has a rate limit; `None` for a test, which no limit holds.
    pub start: Option<&'a StartPermit>,
}

impl<S> StoredTarget<'_, S> {
    fn if_sendable(&self, target: Option<Arc<Target>>) -> Option<Arc<Target>> {
        target.filter(|target| target.active || !self.requires_active)
    }
}

impl<S: Snapshot> StoredTarget<'_, S> {
    async fn read(&self) -> Option<Arc<Target>> {
        if !self.store.is_lease_valid(self.job.lease) {
            return None;
        }
        match self.store.target(self.job.endpoint).await {
            // Another node may have taken it over while the database was asked.
            Ok(target) => self.if_sendable(target).filter(|_| self.store.is_lease_valid(self.job.lease)),
            Err(error) => {
                tracing::warn!(%error, "an endpoint could not be read: its delivery waits");
                None
            }
        }
    }
}

impl<S: Snapshot + Dispatch> TargetSource for StoredTarget<'_, S> {
    fn planned(&self) -> Option<Arc<Target>> {
        self.if_sendable(self.store.view().target(self.job.endpoint))
    }

    async fn current(&self) -> Option<Arc<Target>> {
        let mut tries = 0..COUNT_TRIES;
        loop {
            // Read again after each count, which may take a while.
            let target = self.read().await?;
            let (Some(start), Some(rate)) = (self.start, target.delivery.rate_limit) else { return Some(target) };
            if start.is_valid(rate) {
                return Some(target);
            }
            if !count_start(self.store, self.job.endpoint, rate, start, tries.next()?).await {
                return None;
            }
        }
    }

    async fn keep_counted<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        let mut work = pin!(work);
        while let Some((start, counted)) = self.start.and_then(|start| Some((start, start.counted()?))) {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep_until(counted.lapses_at()) => {}
            }
            let mut renewal = pin!(count_start(self.store, self.job.endpoint, counted.rate, start, 0));
            let is_counted = tokio::select! {
                is_counted = &mut renewal => is_counted,
                done = &mut work => {
                    renewal.await;
                    return done;
                }
            };
            if !is_counted {
                break;
            }
        }
        work.await
    }

    fn sending(&self) {
        if let Some(start) = self.start {
            start.replace(None);
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum AttemptEnd {
    /// The attempt was made.
    Outcome(Outcome),
    /// Nothing was to be sent: the endpoint is not active or could not be read, its rate limit allows no attempt, or
    /// the lease has gone. The delivery is given back.
    Unattempted,
    /// This machine could not make the attempt. It counts as no failure of the receiver, and the delivery is attempted
    /// again.
    LocalFault(LocalFault),
}

/// How far an attempt got, should its time run out.
#[derive(Default)]
struct Progress {
    stage: AtomicU8,
    version: AtomicI64,
    clock: ReceiverClock,
}

impl Progress {
    /// Reads the endpoint. The time of the read is not counted.
    async fn read_target(&self, targets: &impl TargetSource) -> Option<Arc<Target>> {
        self.clock.stop();
        let target = targets.current().await;
        self.clock.start();
        target
    }

    fn reached(&self, stage: Stage, target: &Target) {
        self.stage.store(stage as u8, Ordering::Relaxed);
        self.version.store(target.version, Ordering::Relaxed);
    }
}

/// What an attempt is doing.
#[repr(u8)]
#[derive(Clone, Copy)]
enum Stage {
    Connecting,
    Authorizing,
    Waiting,
    Reading,
}

/// The answer of a receiver, before it becomes an [`Outcome`].
struct Answer {
    status: u16,
    body: Vec<u8>,
    retry_after: Option<Duration>,
}

/// Why an exchange ended without an answer.
enum ExchangeError {
    /// There is nothing to send to: see [`TargetSource`].
    NoTarget,
    /// This machine lacks something.
    Local(LocalFault),
    /// In words for the receiver's owner.
    Failed(String),
    /// The receiver had closed a pooled connection. A new one may work.
    Stale,
}

/// How messages name the other side of a connection.
const RECEIVER: &str = "the receiver";

/// What stands for a signature, and for what authenticates, where a request is shown.
const MASK: &str = "***";

impl Egress {
    /// The headers of the request that an attempt at `at` sends to an endpoint with these headers and credentials, with
    /// the signatures and what is not shown masked. `host` and the trace context are left out: the span of an attempt
    /// is not stored.
    pub fn shown_headers(
        &self,
        delivery: DeliveryId,
        event_type: &str,
        at: Timestamp,
        credentials: &ShownCredentials,
    ) -> Vec<(String, String)> {
        let (names, seconds) = (&self.0.headers, at.as_secs());
        let own = [
            ("content-type", CONTENT_TYPE_SENT.to_owned()),
            ("user-agent", USER_AGENT_SENT.to_owned()),
            ("x-webhook-signature", format!("sha256={MASK}")),
            ("x-webhook-signature-timestamped", format!("t={seconds},v1={MASK}")),
            (names.event.as_str(), event_type.to_owned()),
            (names.delivery_id.as_str(), delivery.to_string()),
            (names.timestamp.as_str(), at.to_string()),
            ("webhook-id", delivery.to_string()),
            ("webhook-timestamp", seconds.to_string()),
            ("webhook-signature", format!("v1,{MASK}")),
        ];
        let scheme = credentials.authentication.as_ref().map(|authentication| match authentication {
            Authentication::Basic { .. } => "Basic",
            Authentication::Bearer | Authentication::OAuth2 { .. } => "Bearer",
        });
        let masks = credentials.headers.as_ref().map(Headers::masks).into_iter().flatten();
        // The brand may have changed since a name was taken.
        let of_owner = masks.filter(|(name, _)| !own.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)));
        let of_owner: Vec<_> = of_owner.map(|(name, mask)| (name.clone(), mask.clone())).collect();
        let authorization = scheme.map(|scheme| (AUTHORIZATION.as_str().to_owned(), format!("{scheme} {MASK}")));
        own.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(authorization).chain(of_owner).collect()
    }

    /// Makes one attempt. Where `targets` has nothing to send to, nothing is sent.
    pub async fn attempt(&self, job: &Job, targets: &impl TargetSource) -> AttemptEnd {
        let clock = &self.0.clock;
        let started_at = clock.now();
        let begin = Instant::now();
        let progress = Progress::default();
        let Some(planned) = targets.planned() else { return AttemptEnd::Unattempted };
        let timeout = planned.delivery.timeout.unwrap_or_else(|| self.timeout());
        // The receiver has all of its time. The database and the wait for a look-up have bounds of their own.
        let exchange = self.exchange((job, timeout), targets, planned, &progress);
        let exchange = within(timeout, || progress.clock.ours(), exchange).await;
        let endpoint_version = progress.version.load(Ordering::Relaxed);
        // The two clocks are read one after the other. A process that was stopped for 49 days shows no longer time.
        let took = begin.elapsed().saturating_sub(progress.clock.ours());
        let duration_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        let failed = |error: String| Outcome {
            started_at,
            duration_ms,
            http_status: None,
            body: None,
            error: Some(cut(&error, MAX_ERROR_CHARS)),
            endpoint_version,
            retry_after_ms: None,
        };
        AttemptEnd::Outcome(match exchange {
            Ok(Ok(answer)) => {
                self.0.connector.reached.note();
                Outcome {
                    started_at,
                    duration_ms,
                    http_status: Some(answer.status),
                    body: Some(cut(&String::from_utf8_lossy(&answer.body), KEPT_BODY_CHARS)),
                    error: complaint(answer.status),
                    endpoint_version,
                    retry_after_ms: answer
                        .retry_after
                        .map(|wait| u64::try_from(wait.as_millis()).expect("MAX_RETRY_AFTER at most")),
                }
            }
            Ok(Err(ExchangeError::NoTarget)) => return AttemptEnd::Unattempted,
            Ok(Err(ExchangeError::Local(fault))) => {
                if fault == LocalFault::OutOfFiles {
                    self.0.pool.close_all();
                }
                return AttemptEnd::LocalFault(fault);
            }
            Ok(Err(ExchangeError::Failed(error))) => failed(error),
            Ok(Err(ExchangeError::Stale)) => failed("the receiver closed the connection before it answered".into()),
            Err(_) => failed(timed_out(&progress.stage, timeout)),
        })
    }

    async fn exchange(
        &self,
        (job, timeout): (&Job, Duration),
        targets: &impl TargetSource,
        mut planned: Arc<Target>,
        progress: &Progress,
    ) -> Result<Answer, ExchangeError> {
        let mut may_reuse = true;
        loop {
            // Before the row with which the request is signed: it may take seconds.
            let token = self.access_token((job, timeout), targets, &mut planned, progress).await?;
            let authorized = planned.clone();
            let pooled = if may_reuse { self.0.pool.take(&planned.url, &pool_part(&planned)) } else { None };
            // An attempt that began before the rules changed may have put its connection back since.
            let pooled = pooled.filter(|pooled| pooled.rules_version == self.0.connector.rules_version());
            let reused = pooled.is_some();
            let connection = match pooled {
                Some(connection) => connection,
                None => {
                    // Read the endpoint again: its URL, its client certificate or its account's rules may have changed.
                    planned = progress.read_target(targets).await.ok_or(ExchangeError::NoTarget)?;
                    progress.reached(Stage::Connecting, &planned);
                    let owner = (planned.account, planned.networks.as_deref());
                    let connecting = self.connect(&planned.url, identity(&planned), owner, &progress.clock);
                    targets.keep_counted(connecting).await.map_err(not_connected)?
                }
            };
            // Connecting may have taken seconds: sign with the endpoint as it is now.
            let Some(target) = progress.read_target(targets).await else {
                self.0.pool.put(&planned.url, &pool_part(&planned), connection);
                return Err(ExchangeError::NoTarget);
            };
            let has_moved = target.url != planned.url || pool_part(&target) != pool_part(&planned);
            // Other rules may refuse what these connections go to.
            let has_other_rules = connection.rules_version != self.0.connector.rules_version();
            if has_moved || has_other_rules || target.credentials.grant() != authorized.credentials.grant() {
                planned = target;
                continue;
            }
            progress.reached(Stage::Waiting, &target);
            match self.send((job, targets), (&target, token.as_ref()), connection, progress).await {
                Err(ExchangeError::Stale) if reused => (may_reuse, planned) = (false, target),
                answer => {
                    if let (Ok(Answer { status: 401, .. }), Some(token)) = (&answer, &token) {
                        self.0.tokens.refuse(job.endpoint, token);
                    }
                    return answer;
                }
            }
        }
    }

    /// The access token that requests to the endpoint carry, if they carry one. Before one is fetched, the endpoint is
    /// read again into `planned`.
    async fn access_token(
        &self,
        (job, timeout): (&Job, Duration),
        targets: &impl TargetSource,
        planned: &mut Arc<Target>,
        progress: &Progress,
    ) -> Result<Option<Credential>, ExchangeError> {
        let Some(grant) = planned.credentials.grant() else { return Ok(None) };
        if let Some(token) = self.0.tokens.get(job.endpoint, grant) {
            return Ok(Some(token));
        }
        *planned = progress.read_target(targets).await.ok_or(ExchangeError::NoTarget)?;
        let Some(grant) = planned.credentials.grant() else { return Ok(None) };
        progress.reached(Stage::Authorizing, planned);
        // What this process takes for it is not the receiver's time, and the receiver has the other half of its time.
        progress.clock.stop();
        let owner = (planned.account, planned.networks.clone());
        let fetched = targets.keep_counted(self.fetch_token(job.endpoint, owner, grant, timeout / 2)).await;
        progress.clock.start_after(fetched.took);
        fetched.token.map(Some).map_err(|error| match error {
            TokenError::Local(fault) => ExchangeError::Local(fault),
            TokenError::Refused(words) => ExchangeError::Failed(words),
        })
    }

    /// Connects, with a client certificate if there is one.
    pub(super) async fn connect(
        &self,
        url: &ReceiverUrl,
        identity: Option<&ClientIdentity>,
        (account, networks): (AccountKey, Option<&NetworkRules>),
        clock: &ReceiverClock,
    ) -> Result<Connection, ConnectError> {
        let owner = (LookupOwner::Attempt(account), networks);
        let rules_version = self.0.connector.rules_version();
        let connected = Box::pin(self.0.connector.connect(url, identity, owner, clock)).await;
        connected.map(|connection| Connection { rules_version, ..connection })
    }

    async fn send(
        &self,
        (job, targets): (&Job, &impl TargetSource),
        (target, token): (&Target, Option<&Credential>),
        mut connection: Connection,
        progress: &Progress,
    ) -> Result<Answer, ExchangeError> {
        let Connection { sender, driver, allowance, spelling, complaint, .. } = &mut connection;
        let failed = |did: &&str| ExchangeError::Failed(format!("{RECEIVER} {did}"));
        let closed = || complaint.get().map_or(ExchangeError::Stale, failed);
        driver.run(sender.ready()).await.map_err(|_| closed())?;
        let now = self.0.clock.now();
        let request = self.request(job, target, token, now).map_err(|e| ExchangeError::Failed(e.to_string()))?;
        spelling.spell(target.credentials.headers.iter().map(|(name, _)| name.clone()).collect());
        allowance.await_answer();
        targets.sending();
        let sent = driver.run(sender.send_request(request)).await;
        let response = sent.map_err(|error| match NoAnswer::of(&error, RECEIVER) {
            NoAnswer::Local(fault) => ExchangeError::Local(fault),
            NoAnswer::Broken(words) => ExchangeError::Failed(words),
            NoAnswer::Closed => closed(),
        })?;
        allowance.lift();
        progress.reached(Stage::Reading, target);
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| parse_retry_after(value, self.0.clock.now()));
        let (mut body, ended) = driver.run(read_body(response)).await?;
        // A receiver may answer with what it got.
        let masked = target.credentials.masked_in(&String::from_utf8_lossy(&body), token);
        if let Some(masked) = masked {
            body = masked.into_bytes();
        }
        if ended {
            self.0.pool.put(&target.url, &pool_part(target), connection);
        }
        Ok(Answer { status, body, retry_after })
    }

    fn request(
        &self,
        job: &Job,
        target: &Target,
        token: Option<&Credential>,
        now: Timestamp,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let signed = target.signer.sign(job.id, now, &job.body);
        let id = HeaderValue::from(job.id.0);
        let time = HeaderValue::from(now.as_secs());
        let mut headers = HeaderMap::with_capacity(HEADERS + target.credentials.headers.len());
        headers.insert(HOST, HeaderValue::from_str(&target.url.authority)?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_SENT));
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_SENT));
        headers.insert(X_WEBHOOK_SIGNATURE, HeaderValue::try_from(signed.plain)?);
        headers.insert(X_WEBHOOK_SIGNATURE_TIMESTAMPED, HeaderValue::try_from(signed.timestamped)?);
        headers.insert(&self.0.headers.event, HeaderValue::from_str(&job.event_type)?);
        headers.insert(&self.0.headers.delivery_id, id.clone());
        headers.insert(&self.0.headers.timestamp, HeaderValue::try_from(now.to_string())?);
        headers.insert(WEBHOOK_ID, id);
        headers.insert(WEBHOOK_TIMESTAMP, time);
        headers.insert(WEBHOOK_SIGNATURE, HeaderValue::try_from(signed.standard)?);
        let fixed = match &target.credentials.authorization {
            Some(Authorization::Fixed(value)) => Some(value),
            Some(Authorization::Token(_)) | None => token,
        };
        if let Some(value) = fixed {
            headers.insert(AUTHORIZATION, hidden(value)?);
        }
        for (name, value) in &target.credentials.headers {
            // Where the brand has changed since, the name can be one of those above.
            headers.entry(HeaderName::try_from(name.as_str())?).or_insert(hidden(value)?);
        }
        if let (Some(trace), Some(span_ids)) = (&job.trace, &self.0.span_ids) {
            headers.insert(TRACEPARENT, HeaderValue::try_from(trace.child(span_ids.array()))?);
            if let Some(state) = trace.state() {
                headers.insert(TRACESTATE, HeaderValue::from_str(state)?);
            }
        }
        let mut request = Request::new(Full::new(job.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.url.target.parse()?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// The client certificate of a connection to the endpoint, which must be TLS.
fn identity(target: &Target) -> Option<&ClientIdentity> {
    target.credentials.identity.as_ref().filter(|_| target.url.https)
}

/// With whom the endpoint shares connections to its receiver.
fn pool_part(target: &Target) -> PoolPart {
    PoolPart { identity: identity(target).map(ClientIdentity::id), networks: target.networks.clone() }
}

/// A value that nobody reads again, as a header that does not print itself.
pub(super) fn hidden(value: &Credential) -> Result<HeaderValue, hyper::http::Error> {
    let mut header = HeaderValue::from_str(value.reveal())?;
    header.set_sensitive(true);
    Ok(header)
}

/// Why there is no connection to a receiver.
fn not_connected(error: ConnectError) -> ExchangeError {
    match error {
        ConnectError::Local(fault) => ExchangeError::Local(fault),
        error => ExchangeError::Failed(error.to_string()),
    }
}

/// Reads up to [`MAX_ANSWER_BODY`]. Tells whether that was all of it.
async fn read_body(response: Response<Incoming>) -> Result<(Vec<u8>, bool), ExchangeError> {
    let mut incoming = response.into_body();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame =
            frame.map_err(|_| ExchangeError::Failed("the receiver closed the connection within its answer".into()))?;
        if let Ok(data) = frame.into_data() {
            let left = MAX_ANSWER_BODY - body.len();
            body.extend_from_slice(&data[..data.len().min(left)]);
            if data.len() >= left {
                return Ok((body, false));
            }
        }
    }
    Ok((body, true))
}

/// What to tell about an answer that is no success.
fn complaint(status: u16) -> Option<String> {
    match status {
        200..=299 => None,
        300..=399 => {
            Some(format!("the receiver answered {status}: redirects are not followed, register the final URL"))
        }
        410 => Some("the receiver answered 410 (gone): it wants no more deliveries".into()),
        _ => Some(format!("the receiver answered {status}")),
    }
}

fn timed_out(stage: &AtomicU8, timeout: Duration) -> String {
    let doing = match stage.load(Ordering::Relaxed) {
        stage if stage == Stage::Authorizing as u8 => "getting an access token",
        stage if stage == Stage::Connecting as u8 => "connecting",
        stage if stage == Stage::Waiting as u8 => "waiting for the answer",
        _ => "reading the answer",
    };
    format!("timed out after {timeout:?} while {doing}")
}

fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}
