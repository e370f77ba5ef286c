//! Idempotency keys: the answers that are kept under them. Differs by necessity: calls and rate limits have no other
//! node to agree with.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::store::Store;
use crate::domain::time::Timestamp;
use crate::store::contract::Calls;
use crate::store::errors::StoreError;
use crate::store::values::{KeepScope, KeptAnswer, RateWindow};

impl Calls for Store {
    async fn kept_answer(&self, scope: KeepScope) -> Result<Option<KeptAnswer>, StoreError> {
        self.read_short(scope.account, move |db| kept_answer(db, &scope)).await
    }

    async fn keep_answer(&self, scope: KeepScope, kept: KeptAnswer) -> Result<(), StoreError> {
        self.writer.write(move |tx| tx.keep_answer(&scope, &kept)).await
    }

    fn draw_holder(&self) -> Option<Uuid> {
        None
    }

    async fn begin_call(&self, _: &KeepScope, _: Uuid) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn end_calls(&self, _: &[(KeepScope, Uuid)]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn take_calls(
        &self,
        _: Uuid,
        _: &'static str,
        limit: u32,
        _: u32,
        length: Duration,
        now: Timestamp,
    ) -> Result<RateWindow, StoreError> {
        Ok(RateWindow { ends_at: now.plus(length), granted: limit })
    }
}

/// Whose answers these are, as a column.
pub(super) fn owner(scope: &KeepScope) -> Vec<u8> {
    scope.account.map(|id| id.0.as_bytes().to_vec()).unwrap_or_default()
}

pub(super) fn kept_answer(db: &Connection, scope: &KeepScope) -> Result<Option<KeptAnswer>, StoreError> {
    let sql =
        "SELECT body_hash, status, request_id, answer FROM kept_answers WHERE owner = ?1 AND path = ?2 AND key = ?3";
    let found = db
        .prepare_cached(sql)?
        .query_row(params![owner(scope), scope.path, scope.key], |row| {
            Ok(KeptAnswer {
                body_hash: row.get("body_hash")?,
                status: row.get("status")?,
                request_id: row.get("request_id")?,
                answer: row.get("answer")?,
            })
        })
        .optional()?;
    Ok(found)
}
