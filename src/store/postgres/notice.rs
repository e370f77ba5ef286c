//! Operational events, written by the transaction that has something to tell.

use deadpool_postgres::Transaction;

use super::ids::Ids;
use super::intake::{Counting, shard};
use super::write::{DeliveryRow, EventRow, Write};
use super::{Store, get, one, parsed, rows, turn};
use crate::domain::delivery::Outcome;
use crate::domain::endpoint::{EndpointStatus, Ordering};
use crate::domain::event::message;
use crate::domain::id::{AccountKey, DeliveryId, EndpointId, EndpointKey, EventId};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::notice::{About, FailedDelivery, Notice};

/// A delivery that failed for good, and after how many attempts.
pub(super) struct Failure<'a> {
    pub delivery: DeliveryId,
    pub attempts: u32,
    pub outcome: &'a Outcome,
}

impl Store {
    /// Writes operational events to those who subscribe to them. Returns whose engine is to be nudged after the commit.
    pub(super) async fn announce(
        &self,
        tx: &Transaction<'_>,
        notices: &[Notice],
        now: Timestamp,
    ) -> Result<Vec<EndpointKey>, StoreError> {
        let mut planned = Vec::new();
        for notice in notices {
            let sql = "SELECT e.key, e.status, e.ordering FROM subscriptions s JOIN endpoints e ON e.key = s.endpoint \
                       WHERE s.account = $1 AND s.type = $2 AND s.endpoint <> $3 AND e.deleted_at IS NULL ORDER BY e.key";
            let (mut active, mut paused) = (Vec::new(), Vec::new());
            for row in rows(tx, sql, &[&notice.account.0, &notice.kind.name(), &notice.about.0]).await? {
                let status = parsed(&row, "status", EndpointStatus::from_column)?;
                let of = if status == EndpointStatus::Active { &mut active } else { &mut paused };
                let in_line = parsed(&row, "ordering", Ordering::from_column)? == Ordering::Fifo;
                of.push((EndpointKey(get(&row, "key")?), in_line));
            }
            if !active.is_empty() || !paused.is_empty() {
                planned.push((notice, active, paused));
            }
        }
        if planned.is_empty() {
            return Ok(Vec::new());
        }
        let count = planned.iter().map(|(_, active, _)| 1 + active.len()).sum();
        let mut ids = Ids::default().reserve(tx, count, now).await?.into_iter();
        // Counted where nobody counts beside other rows: those who do never wait for each other in a circle.
        let shard = shard(self.node.key(), Counting::Replaying);
        let mut write = Write { now, shard, ..Write::default() };
        let mut due = Vec::new();
        for (Notice { account, kind, data, .. }, active, paused) in planned {
            let (account, event_type) = (*account, kind.name());
            let Some(event) = ids.next() else { break };
            let body = message(event_type, now, data);
            let size = i32::try_from(body.len()).unwrap_or(i32::MAX);
            let deliveries: Vec<i64> = ids.by_ref().take(active.len()).collect();
            for ((endpoint, in_line), id) in active.iter().copied().zip(deliveries.iter().copied()) {
                write.deliveries.push(DeliveryRow { account, id, endpoint, event, size, leased: false, in_line });
                due.extend((!in_line).then_some(endpoint));
            }
            for (endpoint, _) in paused {
                write.missed.push((account, endpoint, event_type.to_owned(), event));
            }
            write.events.push(EventRow {
                account,
                id: event,
                event_type: event_type.to_owned(),
                occurred_at: now.as_millis(),
                validation: None,
                deliveries,
                body,
            });
        }
        write.run(tx).await?;
        due.extend(turn::pass(tx, &write.lines(), now).await?);
        Ok(due)
    }

    /// What outcomes have to tell: of deliveries that failed for good, and of endpoints that were paused by them.
    pub(super) async fn notices_of(
        &self,
        tx: &Transaction<'_>,
        failures: &[Failure<'_>],
        paused: &[(EndpointKey, u32, Option<&Outcome>)],
    ) -> Result<Vec<Notice>, StoreError> {
        let mut notices = Vec::new();
        for failure in failures {
            let sql = "SELECT endpoint, event, type FROM deliveries WHERE id = $1";
            let found = one(tx, sql, &[&failure.delivery.0]).await?;
            let event_type: String = get(&found, "type")?;
            let failed = FailedDelivery {
                id: failure.delivery,
                event: EventId(get(&found, "event")?),
                event_type: &event_type,
                attempts: failure.attempts,
                outcome: failure.outcome,
            };
            notices.extend(about(tx, EndpointKey(get(&found, "endpoint")?)).await?.failed(&failed));
        }
        for (endpoint, count, outcome) in paused {
            notices.push(about(tx, *endpoint).await?.auto_disabled(*count, *outcome));
        }
        Ok(notices)
    }
}

async fn about(tx: &Transaction<'_>, key: EndpointKey) -> Result<About, StoreError> {
    let row = one(tx, "SELECT account, id, url FROM endpoints WHERE key = $1", &[&key.0]).await?;
    Ok(About {
        account: AccountKey(get(&row, "account")?),
        key,
        id: EndpointId(get(&row, "id")?),
        url: get(&row, "url")?,
    })
}
