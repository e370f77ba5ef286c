//! What API calls share over all nodes: stored replies, calls under way with an idempotency key, and the windows of
//! rate limits.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::lease::{ALIVE, NO_NODE};
use super::sql::{column, corrupt, execute, get, row, whole};
use super::store::Store;
use super::stored_replies::{owner, write_reply};
use crate::domain::time::{Timestamp, millis};
use crate::store::contract::Calls;
use crate::store::errors::StoreError;
use crate::store::values::{CALL_LIFE, RateWindow, ReplyScope, StoredReply};
use crate::store::write_shares::WriteSize;

/// Parts of a limit that a node may take at once: so that what it has left when others need it is next to nothing, and
/// so that large limits do not cost a question for each call.
const PARTS: u32 = 500;

/// A window that ends later than a whole one from now, by more than this, was opened by a clock that has since gone
/// back.
const MAX_CLOCK_STEP_BACK: Duration = Duration::from_secs(60);

impl Calls for Store {
    async fn stored_reply(&self, scope: ReplyScope) -> Result<Option<StoredReply>, StoreError> {
        let db = self.client().await?;
        let sql = "SELECT body_hash, status, request_id, answer FROM kept_answers WHERE owner = $1 AND path = $2 \
                   AND key = $3";
        let found = row(&db, sql, &[&owner(&scope), &scope.path, &scope.key]).await?;
        let Some(found) = found else { return Ok(None) };
        let hash: Vec<u8> = get(&found, "body_hash")?;
        Ok(Some(StoredReply {
            body_hash: hash.try_into().map_err(|_| corrupt("body_hash"))?,
            status: whole(&found, "status")?,
            request_id: get(&found, "request_id")?,
            body: get(&found, "answer")?,
        }))
    }

    async fn store_reply(&self, scope: ReplyScope, reply: StoredReply) -> Result<(), StoreError> {
        let share = self.shared.write_shares.of_reply(&scope, &reply)?;
        let db = self.client().await?;
        let began = Instant::now();
        let written = write_reply(&db, &scope, &reply, self.now()).await;
        let size = WriteSize { rows: 1, bytes: reply.body.len() };
        drop(share.and_then(|share| share.ran(began, 0, size)));
        written
    }

    fn draw_holder(&self) -> Option<Uuid> {
        Some(uuid::Builder::from_random_bytes(self.shared.random.array()).into_uuid())
    }

    async fn begin_call(&self, scope: &ReplyScope, holder: Uuid) -> Result<bool, StoreError> {
        let now = self.now();
        // The mark of a node that was removed is void. A process that is no node leaves marks that only run out.
        let sql = format!(
            "INSERT INTO calls_in_flight AS c (owner, path, key, holder, expires_at, node) \
             VALUES ($1, $2, $3, $4, $5, $7) ON CONFLICT (owner, path, key) DO UPDATE SET \
             holder = excluded.holder, expires_at = excluded.expires_at, node = excluded.node \
             WHERE c.expires_at < $6 OR (c.node <> $8 AND \
             NOT EXISTS (SELECT 1 FROM nodes n WHERE n.key = c.node AND {ALIVE}))"
        );
        let (ends, node) = (now.plus(CALL_LIFE).as_millis(), self.node.lease().unwrap_or(NO_NODE));
        let parameters: super::sql::Params<'_> =
            &[&owner(scope), &scope.path, &scope.key, &holder, &ends, &now.as_millis(), &node, &NO_NODE];
        let begun = execute(&self.client().await?, &sql, parameters).await?;
        Ok(begun > 0)
    }

    async fn end_calls(&self, calls: &[(ReplyScope, Uuid)]) -> Result<(), StoreError> {
        let sql = "DELETE FROM calls_in_flight c \
                   USING unnest($1::bytea[], $2::text[], $3::text[], $4::uuid[]) AS e(owner, path, key, holder) \
                   WHERE c.owner = e.owner AND c.path = e.path AND c.key = e.key AND c.holder = e.holder";
        let parameters: super::sql::Params<'_> = &[
            &column(calls, |(scope, _)| owner(scope)),
            &column(calls, |(scope, _)| scope.path.as_str()),
            &column(calls, |(scope, _)| scope.key.as_str()),
            &column(calls, |(_, holder)| *holder),
        ];
        execute(&self.client().await?, sql, parameters).await?;
        Ok(())
    }

    async fn take_calls(
        &self,
        key: Uuid,
        bucket: &'static str,
        limit: u32,
        least: u32,
        length: Duration,
        now: Timestamp,
    ) -> Result<RateWindow, StoreError> {
        let part = i64::from((limit / PARTS).max(least).max(1));
        let (now_ms, ends) = (now.as_millis(), now.plus(length).as_millis());

        let sql = "INSERT INTO rate_windows AS w (key, bucket, ends_at, calls) \
                   VALUES ($1, $2, $3, least($4::bigint, $5::bigint)) ON CONFLICT (key, bucket) DO UPDATE SET \
                   ends_at = CASE WHEN w.ends_at <= $6 OR w.ends_at > $7 THEN $3 ELSE w.ends_at END, \
                   calls = CASE WHEN w.ends_at <= $6 OR w.ends_at > $7 THEN least($4::bigint, $5::bigint) ELSE \
                   w.calls + $4 END RETURNING ends_at, calls";
        let limit = i64::from(limit);
        let latest_end = ends + millis(MAX_CLOCK_STEP_BACK);
        let parameters: super::sql::Params<'_> = &[&key, &bucket, &ends, &part, &limit, &now_ms, &latest_end];
        let window = super::sql::one(&self.client().await?, sql, parameters).await?;
        // What was counted before this call is within the limit; of what this call has added, so much is.
        let counted: i64 = get(&window, "calls")?;
        let granted = (limit - (counted - part)).clamp(0, part);
        Ok(RateWindow {
            ends_at: Timestamp::from_millis(get(&window, "ends_at")?),
            granted: u32::try_from(granted).expect("it is between 0 and a part of the limit"),
        })
    }
}
