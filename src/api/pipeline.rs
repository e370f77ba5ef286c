//! The checks of every `/v1` call before its handler, in the order of refusal: 401, 429, 403; then the handler with its
//! 404 and the errors of the body.

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, Method, Request, Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use uuid::Uuid;

use super::Api;
use super::auth::{Caller, authenticate, presented_key};
use super::bodies::{BodyError, MAX_BATCH_BODY, Reservation, declared_length};
use super::call::{ApiCall, IdempotentCall, stored_reply};
use super::counting::CountedCall;
use super::dispatch::{Handler, MatchedRoute};
use super::envelope::{Answer, RequestInfo, error_body, refuse, respond};
use super::error::{ApiError, Code};
use super::idempotency::{self, BodyHash, Mark};
use super::limits::Bucket;
use super::origin::Peer;
use super::rules::{KeyScope, RouteRules};
use super::trace::with_current_request;
use crate::domain::id::AccountId;
use crate::domain::time::Timestamp;
use crate::heavy::LARGE_BODY;
use crate::store::{Calls, ReplyScope, Snapshot};

/// Longest path of a call, in bytes: a route, and two ids of up to 255 characters.
const MAX_PATH: usize = 1_024;

/// What the server knows of a request besides its own parts.
pub struct CallContext {
    /// Its id and language.
    pub info: RequestInfo,
    /// The address of the connection.
    pub peer: Option<Peer>,
    /// The caller of an in-process call. Other requests authenticate with their headers.
    pub caller: Option<Caller>,
}

/// Checks a request, runs its handler and answers.
pub async fn serve(api: Api, found: MatchedRoute, context: CallContext, request: Request<Body>) -> Response<Body> {
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
    MatchedRoute { rules, handler, params }: MatchedRoute,
    CallContext { info, peer, caller }: CallContext,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let now = api.clock.now();
    let is_in_process = caller.is_some();
    let caller = match caller {
        Some(caller) => caller,
        None => caller_of(&api, request.headers(), peer, now).await?,
    };
    api.key_uses.note(&caller, now);
    let is_post = request.method() == Method::POST;
    let key = if is_post { idempotency::key(request.headers()) } else { Ok(None) };
    let (parts, body) = request.into_parts();
    // No route has ids of that length, and an idempotency key is stored with its path.
    let params = params.filter(|_| parts.uri.path().len() <= MAX_PATH);
    let mut scope = None;
    if let (Ok(Some(key)), Ok(()), Some(_)) = (&key, allowed(&caller, rules), &params) {
        scope = Some(ReplyScope { account: caller.account(), path: parts.uri.path().to_owned(), key: key.clone() });
    }
    let counted = count(&api, &caller, rules.bucket, scope.as_ref()).await?;
    allowed(&caller, rules)?;
    key?;
    let params = params.ok_or_else(|| ApiError::from(Code::NotFound))?;
    let most = if rules.batch { MAX_BATCH_BODY } else { api.changing.read().max_body };
    let declared = declared_length(&parts.headers);
    let (body, memory) = if is_in_process || body.is_end_stream() {
        (read_whole(body, most).await, None)
    } else {
        read_within_budget(&api, &caller, body, declared, most).await?
    };
    let (mut mark, mut idempotent) = (None, None);
    if let (Some(scope), Ok(body)) = (scope, &body) {
        let hash = hash(&api, &caller, &scope.path, body).await?;
        match (repeat_reply(&api, &scope, hash, &mut mark).await, counted) {
            (Ok(Some(response)), Ok(counted)) => {
                api.count_repeated(&caller, rules.bucket).await?;
                api.give_back(counted).await;
                return Ok(response);
            }
            (Ok(Some(response)), Err(_)) => return Ok(response),
            (_, Err(refused)) | (Err(refused), Ok(_)) => return Err(refused),
            (Ok(None), Ok(_)) => {}
        }
        let body_hash = hash.stored(&api.store.keyring());
        idempotent = Some(IdempotentCall { scope, body_hash });
    } else {
        counted?;
    }
    let query = parts.uri.query().unwrap_or("").to_owned();
    let id = info.id.clone();
    let headers = parts.headers;
    let call = ApiCall { api, caller, info, headers, peer, params, query, body, idempotent, _memory: memory };
    let answered = match mark {
        Some(mark) => {
            // The call runs in a task of its own. A client that disconnects must not end the mark while the effect goes
            // on.
            let marked = tokio::spawn(with_current_request(Box::pin(answer_once(mark, handler, call))));
            marked.await.map_err(|_| ApiError::from(Code::InternalError))?
        }
        None => handler(call).await,
    };
    answered.map(|answer| answer.into_response(&id))
}

/// Counts a call, or refuses it. A repeated answer does not count against the limit: where one is stored, a refusal is
/// kept until it is known whether the call gets that answer. Past the limit, the body of any other call is not read.
async fn count(
    api: &Api,
    caller: &Caller,
    bucket: Bucket,
    scope: Option<&ReplyScope>,
) -> Result<Result<CountedCall, ApiError>, ApiError> {
    match api.count(caller, bucket).await {
        Err(refused) if refused.is(Code::RateLimitExceeded) => match scope {
            Some(scope) if api.store.stored_reply(scope.clone()).await?.is_some() => {
                api.count_repeated(caller, bucket).await?;
                Ok(Err(refused))
            }
            _ => Err(refused),
        },
        counted => counted.map(Ok),
    }
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

/// Runs the first call with an idempotency key to its end. A refusal is stored here; a success is stored in the
/// commit of its effect.
async fn answer_once(mark: Mark, handler: Handler, call: ApiCall) -> Result<Answer, ApiError> {
    let (api, info) = (call.api.clone(), call.info.clone());
    let idempotent = call.idempotent.clone().expect("a call with a mark has an idempotency key");
    let owner = call.caller.counted_with.unwrap_or(call.caller.counted_as);
    let answered = match handler(call).await {
        Err(error) if is_stored(&error) => Err(store_refusal(&api, owner, &info, idempotent, error).await),
        answered => answered,
    };
    mark.end().await;
    answered
}

fn is_stored(error: &ApiError) -> bool {
    // What a caller may not do (403), a stronger key of the same account may. Where another call holds the key, the
    // reply of that call is the one that is stored.
    error.status() < 500 && !matches!(error.status(), 403 | 429) && !error.is(Code::IdempotencyKeyInProgress)
}

/// Stores a refusal and returns it; where it cannot be stored, the reason for that.
///
/// Every fault of a batch is in its reply, which is stored for a day: a call of 4 KB can take 250 KB. So large refusals
/// count as what the account stores. They have a share of what it writes, too: where that is taken, the answer is 503.
async fn store_refusal(
    api: &Api,
    owner: Uuid,
    info: &RequestInfo,
    idempotent: IdempotentCall,
    error: ApiError,
) -> ApiError {
    let body = error_body(&error, info);
    if let Err(refused) = api.count_stored_refusal(owner, body.len()).await {
        return refused;
    }
    let reply = stored_reply(idempotent.body_hash, error.status(), info, body);
    match api.store.store_reply(idempotent.scope, reply).await {
        Ok(()) => error,
        Err(failed) => failed.into(),
    }
}

/// The hash of a body that is stored with its idempotency key.
async fn hash(api: &Api, caller: &Caller, path: &str, body: &Bytes) -> Result<BodyHash, ApiError> {
    if body.len() <= LARGE_BODY {
        return Ok(BodyHash::new(path, body));
    }
    let (path, body) = (path.to_owned(), body.clone());
    Ok(api.heavy.run(caller.account(), move || BodyHash::new(&path, &body)).await?)
}

/// Authenticates by all that is committed: another node may have made or revoked the key.
async fn caller_of(api: &Api, headers: &HeaderMap, peer: Option<Peer>, now: Timestamp) -> Result<Caller, ApiError> {
    let key = presented_key(headers)?;
    api.store.refresh_stale().await?;
    if let Ok(caller) = authenticate(&key, api.store.view(), now) {
        return Ok(caller);
    }
    let from = peer.map(|Peer(peer)| api.client(peer, headers));
    api.lookups.run(from, api.store.refresh()).await?;
    authenticate(&key, api.store.view(), now)
}

/// The reply that is stored for this key; or `None` and a mark, where this call is the first.
async fn repeat_reply(
    api: &Api,
    scope: &ReplyScope,
    hash: BodyHash,
    mark: &mut Option<Mark>,
) -> Result<Option<Response<Body>>, ApiError> {
    *mark = api.in_flight.begin(&api.store, scope).await?;
    // The call that had the key may have been answered a moment ago.
    let found = api.store.stored_reply(scope.clone()).await?;
    let Some(found) = found else {
        return if mark.is_some() { Ok(None) } else { Err(idempotency::in_progress()) };
    };
    if !hash.is_of(&found.body_hash, &api.store.keyring()) {
        return Err(Code::IdempotencyKeyReused.into());
    }
    let mut response = respond(found.status, found.body, &found.request_id);
    response.headers_mut().insert("idempotent-replayed", axum::http::HeaderValue::from_static("true"));
    Ok(Some(response))
}

fn allowed(caller: &Caller, rules: RouteRules) -> Result<(), ApiError> {
    let right_kind = match rules.keys {
        KeyScope::Account => caller.account().is_some(),
        KeyScope::Operator => caller.account().is_none(),
        KeyScope::Both => true,
    };
    if right_kind && caller.permissions.allows(rules.permission) { Ok(()) } else { Err(Code::Forbidden.into()) }
}
