//! Idempotency keys: the replies that are stored under them. Differs by necessity: calls and rate limits have no other
//! node to agree with.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::time::Instant;
use uuid::Uuid;

use super::store::Store;
use crate::domain::time::Timestamp;
use crate::store::contract::Calls;
use crate::store::errors::StoreError;
use crate::store::values::{RateWindow, ReplyScope, StoredReply};

impl Calls for Store {
    async fn stored_reply(&self, scope: ReplyScope) -> Result<Option<StoredReply>, StoreError> {
        self.read_short(scope.account, move |db| stored_reply(db, &scope)).await
    }

    async fn store_reply(&self, scope: ReplyScope, reply: StoredReply) -> Result<(), StoreError> {
        let share = self.shared.write_shares.of_reply(&scope, &reply)?;
        let _large = self
            .writer
            .write(move |tx| {
                let (began, before) = (Instant::now(), *tx.size);
                tx.store_reply(&scope, &reply)?;
                Ok(share.and_then(|share| share.ran(began, 0, tx.size.since(before))))
            })
            .await?;
        Ok(())
    }

    fn draw_holder(&self) -> Option<Uuid> {
        None
    }

    async fn begin_call(&self, _: &ReplyScope, _: Uuid) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn end_calls(&self, _: &[(ReplyScope, Uuid)]) -> Result<(), StoreError> {
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

/// Whose replies these are, as a column.
pub(super) fn owner(scope: &ReplyScope) -> Vec<u8> {
    // Empty for the operator.
    scope.account.map(|id| id.0.as_bytes().to_vec()).unwrap_or_default()
}

pub(super) fn stored_reply(db: &Connection, scope: &ReplyScope) -> Result<Option<StoredReply>, StoreError> {
    let sql =
        "SELECT body_hash, status, request_id, answer FROM kept_answers WHERE owner = ?1 AND path = ?2 AND key = ?3";
    let found = db
        .prepare_cached(sql)?
        .query_row(params![owner(scope), scope.path, scope.key], |row| {
            Ok(StoredReply {
                body_hash: row.get("body_hash")?,
                status: row.get("status")?,
                request_id: row.get("request_id")?,
                body: row.get("answer")?,
            })
        })
        .optional()?;
    Ok(found)
}
