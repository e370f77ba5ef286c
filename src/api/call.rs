//! The way of every `/v1` call through the door, in the order of refusal: 401, 429, 403, then the handler with its 404
//! and the faults of the body.

use axum::body::{Body, HttpBody as _};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method, Request, Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};

use super::Api;
use super::auth::{Caller, authenticate};
use super::bodies::{BodyError, MAX_BATCH_BODY, Reservation, declared_length};
use super::dispatch::{Found, Handler};
use super::envelope::{Answer, RequestInfo, error_body, refuse, respond};
use super::error::{ApiError, Code, Fault, Words};
use super::idempotency::{self, Mark};
use super::limits::Bucket;
use super::origin::{self, Peer};
use super::trace::carried;
use crate::domain::audit::Origin;
use crate::domain::id::AccountId;
use crate::domain::permission::Permission;
use crate::domain::time::Timestamp;
use crate::store::{Calls, Keep, KeepScope, KeptAnswer, Page, Snapshot, Store};

/// Longest path of a call, in bytes: a route, and two ids of up to 255 characters.
const MAX_PATH: usize = 1_024;

/// Which keys a route is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum For {
    /// An account's own resources.
    Account,
    /// What the operator manages.
    Operator,
    /// Both; the handler looks at whose key it is.
    Both,
}

/// What is checked before a handler runs.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    /// The rate limit's bucket.
    pub bucket: Bucket,
    /// The permission that the key must have.
    pub permission: Permission,
    /// Whose key it must be.
    pub keys: For,
    /// Whether the body may be as large as a batch.
    pub batch: bool,
}

/// A call that has passed the door.
pub struct Call {
    /// The server's parts.
    pub api: Api,
    /// Who calls.
    pub caller: Caller,
    /// The request's id and language.
    pub info: RequestInfo,
    /// The headers.
    pub headers: HeaderMap,
    peer: Option<Peer>,
    params: Vec<(String, String)>,
    query: String,
    body: Result<Bytes, ApiError>,
    kept: Option<Kept>,
    /// The memory of the body, until the call is answered.
    _memory: Option<Reservation<Option<AccountId>>>,
}

/// The idempotency key of a call.
#[derive(Clone)]
struct Kept {
    scope: KeepScope,
    body_hash: [u8; 32],
}

/// What comes with a request and is no part of it.
pub struct Context {
    /// Its id and language.
    pub info: RequestInfo,
    /// Who is at the other end of the connection.
    pub peer: Option<Peer>,
    /// For whom a page of ours calls; otherwise the request says who it is.
    pub caller: Option<Caller>,
}

/// Brings a request to its handler, and the handler's answer back.
pub async fn serve(api: Api, found: Found, context: Context, request: Request<Body>) -> Response<Body> {
    let (info, metrics) = (context.info.clone(), api.metrics.clone());
    match enter(api, found, context, request).await {
        Ok(response) => response,
        Err(error) => {
            if error.is(Code::RateLimitExceeded) {
                metrics.http_rate_limited_total.add(1);
            }
            refuse(&error, &info)
        }
    }
}

async fn enter(
    api: Api,
    Found { door, handler, params }: Found,
    Context { info, peer, caller }: Context,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let now = api.clock.now();
    let is_in_process = caller.is_some();
    let caller = match caller {
        Some(caller) => caller,
        None => caller_of(&api, request.headers(), now).await?,
    };
    api.key_uses.note(&caller, now);
    let is_post = request.method() == Method::POST;
    let key = if is_post { idempotency::key(request.headers()) } else { Ok(None) };
    let counted = api.count(&caller, door.bucket).await;
    let (parts, body) = request.into_parts();
    // No route has ids of that length, and an idempotency key is kept with its path.
    let params = params.filter(|_| parts.uri.path().len() <= MAX_PATH);
    let mut scope = None;
    if let (Ok(Some(key)), Ok(()), Some(_)) = (&key, allowed(&caller, door), &params) {
        scope = Some(KeepScope { account: caller.account(), path: parts.uri.path().to_owned(), key: key.clone() });
    }
    let counted = match counted {
        Ok(counted) => Ok(counted),
        // A repeated answer costs nothing of the limit. No other body is read for a call that is past it.
        Err(refused) if refused.is(Code::RateLimitExceeded) => match &scope {
            Some(scope) if api.store.kept_answer(scope.clone()).await?.is_some() => {
                api.count_repeated(&caller, door.bucket).await?;
                Err(refused)
            }
            _ => return Err(refused),
        },
        Err(error) => return Err(error),
    };
    allowed(&caller, door)?;
    key?;
    let params = params.ok_or_else(|| ApiError::from(Code::NotFound))?;
    let most = if door.batch { MAX_BATCH_BODY } else { api.settings.max_body };
    let declared = declared_length(&parts.headers);
    let (body, memory) = if is_in_process || body.is_end_stream() {
        (read_whole(body, most).await, None)
    } else {
        read_within_budget(&api, &caller, body, declared, most).await?
    };
    let (mut mark, mut kept) = (None, None);
    if let (Some(scope), Ok(body)) = (scope, &body) {
        let body_hash = idempotency::hash(body);
        match (replay(&api, &scope, body_hash, &mut mark).await, counted) {
            (Ok(Some(response)), Ok(counted)) => {
                api.count_repeated(&caller, door.bucket).await?;
                api.give_back(counted).await;
                return Ok(response);
            }
            (Ok(Some(response)), Err(_)) => return Ok(response),
            (_, Err(refused)) | (Err(refused), Ok(_)) => return Err(refused),
            (Ok(None), Ok(_)) => {}
        }
        kept = Some(Kept { scope, body_hash });
    } else {
        counted?;
    }
    let query = parts.uri.query().unwrap_or("").to_owned();
    let call = Call {
        api: api.clone(),
        caller,
        info: info.clone(),
        headers: parts.headers,
        peer,
        params,
        query,
        body,
        kept: kept.clone(),
        _memory: memory,
    };
    let answered = match (kept, mark) {
        (Some(kept), Some(mark)) => {
            // In a task of its own: a client that goes away must not take the mark with it while the effect goes on.
            let marked = Box::pin(answer_once(api, info.clone(), kept, mark, handler, call));
            let marked = tokio::spawn(carried(marked));
            marked.await.map_err(|_| ApiError::from(Code::InternalError))?
        }
        _ => handler(call).await,
    };
    answered.map(|answer| answer.into_response(&info.id))
}

/// A body or its fault, and the memory that is reserved for it.
type ReadBody = (Result<Bytes, ApiError>, Option<Reservation<Option<AccountId>>>);

/// Reads a body that is in memory already.
async fn read_whole(body: Body, most: usize) -> Result<Bytes, ApiError> {
    let body = body.collect().await.map_err(|_| BodyError::Broken)?.to_bytes();
    if body.len() > most { Err(BodyError::TooLarge(most).into()) } else { Ok(body) }
}

/// Reads a body into memory that is reserved for the caller's account. Without memory the call is refused at once. Any
/// other fault of the body is kept until the handler asks for the body, because a 404 comes first.
async fn read_within_budget(
    api: &Api,
    caller: &Caller,
    body: Body,
    declared: Option<usize>,
    most: usize,
) -> Result<ReadBody, ApiError> {
    match api.bodies.read(caller.account(), body, declared, most).await {
        Ok((body, memory)) => Ok((Ok(body), Some(memory))),
        Err(error @ BodyError::NoMemory) => Err(error.into()),
        Err(error) => Ok((Err(error.into()), None)),
    }
}

/// Runs the first call with an idempotency key to its end, and keeps its refusal; its success is kept with its effect.
async fn answer_once(
    api: Api,
    info: RequestInfo,
    kept: Kept,
    mark: Mark,
    handler: Handler,
    call: Call,
) -> Result<Answer, ApiError> {
    let answered = handler(call).await;
    if let Err(error) = &answered
        && error.status() < 500
        // Another call has the key: its answer is the one that is kept.
        && !error.is(Code::IdempotencyKeyInProgress)
    {
        let answer = kept_answer(kept.body_hash, error.status(), &info, error_body(error, &info));
        api.store.keep_answer(kept.scope, answer).await?;
    }
    mark.end().await;
    answered
}

/// Who calls, by what was committed until now: another node may have made the key, or revoked it.
async fn caller_of(api: &Api, headers: &HeaderMap, now: Timestamp) -> Result<Caller, ApiError> {
    api.store.refresh_stale().await?;
    if let Ok(caller) = authenticate(headers, api.store.view(), now) {
        return Ok(caller);
    }
    api.store.refresh().await?;
    authenticate(headers, api.store.view(), now)
}

/// The answer that was kept for this key, or the mark that this call is the first.
async fn replay(
    api: &Api,
    scope: &KeepScope,
    body_hash: [u8; 32],
    mark: &mut Option<Mark>,
) -> Result<Option<Response<Body>>, ApiError> {
    *mark = api.in_flight.begin(&api.store, scope).await?;
    // Where the key is in use, its call may have been answered in this moment.
    let found = api.store.kept_answer(scope.clone()).await?;
    let Some(found) = found else {
        return if mark.is_some() { Ok(None) } else { Err(idempotency::in_progress()) };
    };
    if found.body_hash != body_hash {
        return Err(Code::IdempotencyKeyReused.into());
    }
    let mut response = respond(found.status, found.answer, &found.request_id);
    response.headers_mut().insert("idempotent-replayed", axum::http::HeaderValue::from_static("true"));
    Ok(Some(response))
}

fn kept_answer(body_hash: [u8; 32], status: u16, info: &RequestInfo, answer: Vec<u8>) -> KeptAnswer {
    KeptAnswer { body_hash, status, request_id: info.id.to_string(), answer }
}

fn allowed(caller: &Caller, door: Door) -> Result<(), ApiError> {
    let right_kind = match door.keys {
        For::Account => caller.account().is_some(),
        For::Operator => caller.account().is_none(),
        For::Both => true,
    };
    if right_kind && caller.permissions.allows(door.permission) { Ok(()) } else { Err(Code::Forbidden.into()) }
}

impl Call {
    /// The account that the call acts for. Routes for accounts have one: the door has looked.
    pub fn account(&self) -> Result<AccountId, ApiError> {
        self.caller.account().ok_or_else(|| Code::Forbidden.into())
    }

    /// The store in the caller's hands: for whatever changes something.
    pub fn store(&self) -> Store {
        let address =
            self.peer.map(|Peer(peer)| origin::client(peer, &self.headers, &self.api.settings.trusted_proxies));
        let actor = self.caller.actor.clone();
        self.api.store.acting(Origin { actor, address, request: Some(self.info.id.to_string()) })
    }

    /// How people reach this server.
    pub fn base(&self) -> String {
        let told = self.api.settings.public_url.clone();
        told.or_else(|| origin::base(&self.headers)).unwrap_or_default()
    }

    /// A part of the path, parsed; what cannot be parsed does not exist.
    pub fn param<T>(&self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, ApiError> {
        let found = self.params.iter().find(|(known, _)| known == name);
        found.and_then(|(_, value)| parse(value)).ok_or_else(|| Code::NotFound.into())
    }

    /// The parameters of the query, in the order given.
    pub fn query(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(self.query.as_bytes()).into_owned().collect()
    }

    /// A parameter that is a whole number, clamped to what it may be; what is no number is `default`.
    pub fn number(&self, name: &str, default: u32, least: u32, most: u32) -> u32 {
        let pairs = self.query();
        let value = pairs.iter().rev().find(|(known, _)| known == name).map_or("", |(_, value)| value.trim());
        let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return default;
        }
        let beyond = if value.starts_with('-') { i64::MIN } else { i64::MAX };
        let number = value.parse().unwrap_or(beyond).clamp(i64::from(least), i64::from(most));
        u32::try_from(number).unwrap_or(default)
    }

    /// `page` and `per_page`; what is out of range or no number is clamped.
    pub fn page(&self) -> Page {
        Page { page: self.number("page", 1, 1, u32::MAX), per_page: self.number("per_page", 50, 1, 100) }
    }

    /// The body's bytes, whatever they are.
    pub fn body(&self) -> Result<Bytes, ApiError> {
        self.body.clone()
    }

    /// The body, which must be JSON by its content type and begin like an object.
    pub fn json_bytes(&self) -> Result<Bytes, ApiError> {
        let body = self.body()?;
        if body.is_empty() {
            return Err(Code::BodyEmpty.into());
        }
        if !self.has_media_type(&["application/json"]) {
            return Err(Fault::new(Code::UnsupportedMediaType).naming("application/json").into());
        }
        if body.trim_ascii_start().first() != Some(&b'{') {
            let reason = Words::new("it does not begin with {", "no empieza con {");
            return Err(Fault::new(Code::InvalidJson).because(&reason).into());
        }
        Ok(body)
    }

    /// The body as a JSON object.
    pub fn json(&self) -> Result<Map<String, Value>, ApiError> {
        serde_json::from_slice(&self.json_bytes()?).map_err(|error| invalid_json(&error))
    }

    /// The body of a call that needs none: an object, or nothing at all with any content type.
    pub fn optional_json(&self) -> Result<Map<String, Value>, ApiError> {
        if self.body()?.is_empty() { Ok(Map::new()) } else { self.json() }
    }

    /// Whether the content type, without its parameters, is one of these.
    pub fn has_media_type(&self, types: &[&str]) -> bool {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let sent = value.split(';').next().unwrap_or("").trim();
        types.iter().any(|media_type| sent.eq_ignore_ascii_case(media_type))
    }

    /// Asks the store to keep this call's answer, when the call has an idempotency key. `render` writes the answer for
    /// later: with nothing in it that is shown only once.
    pub fn keep<T>(&self, render: impl FnOnce(&T) -> Answer + Send + 'static) -> Option<Keep<T>> {
        let kept = self.kept.clone()?;
        let info = self.info.clone();
        let write = move |effect: &T| {
            let answer = render(effect);
            kept_answer(kept.body_hash, answer.status(), &info, answer.into_body(&info.id))
        };
        Some(Keep { scope: kept.scope, render: Box::new(write) })
    }
}

/// Where a body stops being JSON.
pub fn invalid_json(error: &serde_json::Error) -> ApiError {
    // The message of a parse error names the place and the syntax, not the content.
    let (english, spanish) = match error.classify() {
        serde_json::error::Category::Eof => ("it ends early", "termina antes de tiempo"),
        serde_json::error::Category::Data => ("an unexpected value", "un valor inesperado"),
        _ => ("a syntax error", "un error de sintaxis"),
    };
    let (line, column) = (error.line(), error.column());
    let reason = Words::new(
        format!("{english} at line {line} column {column}"),
        format!("{spanish} en la línea {line}, columna {column}"),
    );
    Fault::new(Code::InvalidJson).because(&reason).into()
}
