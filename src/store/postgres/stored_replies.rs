//! Replies that are stored under idempotency keys, for the transactions that write them.

use deadpool_postgres::GenericClient;
use foldhash::HashSet;

use super::sql::{corrupt, execute, get, rows};
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::values::{PendingReply, ReplyScope, StoredReply};

/// Stores the reply to this effect in the transaction, where the call has an idempotency key.
pub(super) async fn write_pending_reply<T>(
    db: &impl GenericClient,
    pending_reply: Option<PendingReply<T>>,
    effect: &T,
    now: Timestamp,
) -> Result<(), StoreError> {
    // The future must not hold what is not shared between threads: the reply is made before anything is awaited.
    let made = pending_reply.map(|PendingReply { scope, render }| (scope, render(effect)));
    match made {
        Some((scope, reply)) => write_reply(db, &scope, &reply, now).await,
        None => Ok(()),
    }
}

pub(super) async fn write_reply(
    db: &impl GenericClient,
    scope: &ReplyScope,
    reply: &StoredReply,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO kept_answers (owner, path, key, body_hash, status, request_id, answer, created_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (owner, path, key) DO NOTHING";
    let parameters: super::sql::Params<'_> = &[
        &owner(scope),
        &scope.path,
        &scope.key,
        &reply.body_hash.as_slice(),
        &i32::from(reply.status),
        &reply.request_id,
        &reply.body,
        &now.as_millis(),
    ];
    // Another call with this key has had its effect: this one must have none.
    if execute(db, sql, parameters).await? == 0 { Err(StoreError::KeyTaken) } else { Ok(()) }
}

/// Those of the scopes under which a reply is stored.
pub(super) async fn scopes_with_reply(
    db: &impl GenericClient,
    scopes: &[ReplyScope],
) -> Result<HashSet<ReplyScope>, StoreError> {
    let mut taken = HashSet::default();
    if scopes.is_empty() {
        return Ok(taken);
    }
    let owners: Vec<_> = scopes.iter().map(owner).collect();
    let paths: Vec<_> = scopes.iter().map(|scope| scope.path.as_str()).collect();
    let keys: Vec<_> = scopes.iter().map(|scope| scope.key.as_str()).collect();
    let sql = "SELECT s.ordinal FROM unnest($1::bytea[], $2::text[], $3::text[]) \
               WITH ORDINALITY AS s(owner, path, key, ordinal) JOIN kept_answers k ON k.owner = s.owner \
               AND k.path = s.path AND k.key = s.key";
    for row in rows(db, sql, &[&owners, &paths, &keys]).await? {
        let ordinal: i64 = get(&row, "ordinal")?;
        let scope = usize::try_from(ordinal - 1).ok().and_then(|index| scopes.get(index));
        taken.insert(scope.ok_or_else(|| corrupt("ordinal"))?.clone());
    }
    Ok(taken)
}

/// Whose replies these are, as a column.
pub(super) fn owner(scope: &ReplyScope) -> Vec<u8> {
    // Empty for the operator.
    scope.account.map(|id| id.0.as_bytes().to_vec()).unwrap_or_default()
}
