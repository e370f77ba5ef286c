//! Answers that are kept under idempotency keys, for the transactions that write them.

use deadpool_postgres::GenericClient;
use foldhash::HashSet;

use super::sql::{execute, get, rows};
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::values::{Keep, KeepScope, KeptAnswer};

/// Keeps an answer in this transaction, when it was asked for.
pub(super) async fn keep_effect<T>(
    db: &impl GenericClient,
    keep: Option<Keep<T>>,
    effect: &T,
    now: Timestamp,
) -> Result<(), StoreError> {
    // The future must not hold what is not shared between threads: the answer is written before anything is awaited.
    let kept = keep.map(|Keep { scope, render }| (scope, render(effect)));
    match kept {
        Some((scope, kept)) => write_answer(db, &scope, &kept, now).await,
        None => Ok(()),
    }
}

pub(super) async fn write_answer(
    db: &impl GenericClient,
    scope: &KeepScope,
    kept: &KeptAnswer,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO kept_answers (owner, path, key, body_hash, status, request_id, answer, created_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (owner, path, key) DO NOTHING";
    let parameters: super::sql::Params<'_> = &[
        &owner(scope),
        &scope.path,
        &scope.key,
        &kept.body_hash.as_slice(),
        &i32::from(kept.status),
        &kept.request_id,
        &kept.answer,
        &now.as_millis(),
    ];
    // Another call with this key has had its effect: this one must have none.
    if execute(db, sql, parameters).await? == 0 { Err(StoreError::KeyTaken) } else { Ok(()) }
}

/// Those of the scopes in which an answer is kept.
pub(super) async fn kept(db: &impl GenericClient, scopes: &[KeepScope]) -> Result<HashSet<KeepScope>, StoreError> {
    let mut taken = HashSet::default();
    if scopes.is_empty() {
        return Ok(taken);
    }
    let owners: Vec<_> = scopes.iter().map(owner).collect();
    let paths: Vec<_> = scopes.iter().map(|scope| scope.path.as_str()).collect();
    let keys: Vec<_> = scopes.iter().map(|scope| scope.key.as_str()).collect();
    let sql = "SELECT s.place FROM unnest($1::bytea[], $2::text[], $3::text[]) \
               WITH ORDINALITY AS s(owner, path, key, place) JOIN kept_answers k ON k.owner = s.owner \
               AND k.path = s.path AND k.key = s.key";
    for row in rows(db, sql, &[&owners, &paths, &keys]).await? {
        let place = usize::try_from(get::<i64>(&row, "place")? - 1).unwrap_or(usize::MAX);
        taken.extend(scopes.get(place).cloned());
    }
    Ok(taken)
}

/// Whose answers these are, as a column.
pub(super) fn owner(scope: &KeepScope) -> Vec<u8> {
    scope.account.map(|id| id.0.as_bytes().to_vec()).unwrap_or_default()
}
