//! Writes operational events, each in the transaction that it reports.

use super::tx::{Tx, insert_delivery, insert_event, insert_missed};
use crate::domain::delivery::Outcome;
use crate::domain::event::{Operational, message};
use crate::domain::id::{AccountKey, DeliveryId, EndpointId, EndpointKey, EventId};
use crate::store::errors::StoreError;
use crate::store::numbers::delivery_count;
use crate::store::operational_events::{About, FailedDelivery, OperationalEvent};

/// A delivery that failed for good, and after how many attempts.
pub(super) struct Failure {
    pub endpoint: EndpointKey,
    pub delivery: DeliveryId,
    pub attempts: u32,
    pub outcome: Outcome,
}

impl Tx<'_> {
    /// Writes an operational event to those who subscribe to it. The last thing that a transaction does: the cache is
    /// told of it.
    pub fn announce(&mut self, operational_event: &OperationalEvent) -> Result<(), StoreError> {
        let others = |mut endpoints: Vec<EndpointKey>| -> Vec<EndpointKey> {
            endpoints.retain(|endpoint| *endpoint != operational_event.about);
            endpoints
        };
        let kind = operational_event.kind.name();
        let subscribers = others(self.cache.subscribers(operational_event.account, kind));
        let paused = others(self.cache.paused_subscribers(operational_event.account, kind));
        if subscribers.is_empty() && paused.is_empty() {
            return Ok(());
        }
        let (id, body) = (EventId(self.ids.next(self.now)), message(kind, self.now, &operational_event.data));
        let deliveries = delivery_count(subscribers.len());
        let (account, now) = (operational_event.account, self.now.as_millis());
        insert_event(self, id, account, kind, now, None, deliveries, None, None, &body)?;
        for endpoint in paused {
            insert_missed(self, endpoint, kind, id)?;
        }
        for endpoint in subscribers {
            let delivery = DeliveryId(self.ids.next(self.now));
            debug_assert!(delivery.0 <= id.0 + i64::from(deliveries), "nothing comes between it and its deliveries");
            insert_delivery(self, delivery, endpoint, id, false)?;
            if self.add_to_fifo(delivery, endpoint)? {
                self.after.due.push((endpoint, self.now));
            }
        }
        self.cache.count_event(operational_event.account);
        Ok(())
    }

    /// What outcomes have to tell: of deliveries that failed for good, and of endpoints that were paused by them.
    pub fn announce_outcomes(
        &mut self,
        failures: &[Failure],
        paused: &[(EndpointKey, u32, Outcome)],
    ) -> Result<(), StoreError> {
        let mut operational_events = Vec::new();
        for failure in failures.iter().filter(|failure| self.is_heard(failure.endpoint, Operational::DeliveryFailed)) {
            let sql = "SELECT d.event, e.type FROM deliveries d JOIN events e ON e.id = d.event WHERE d.id = ?1";
            let (event, event_type): (i64, String) =
                self.db.prepare_cached(sql)?.query_row([failure.delivery.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if Operational::parse(&event_type).is_some() {
                continue;
            }
            let about = self.about(failure.endpoint)?;
            let Some(left_out) = self.shared.failure_limit.admit(about.account) else { continue };
            let failed = FailedDelivery {
                id: failure.delivery,
                event: EventId(event),
                event_type: &event_type,
                attempts: failure.attempts,
                outcome: &failure.outcome,
                left_out,
            };
            operational_events.push(about.failed(&failed));
        }
        let paused = paused.iter().filter(|paused| self.is_heard(paused.0, Operational::EndpointAutoDisabled));
        for (endpoint, count, outcome) in paused {
            operational_events.push(self.about(*endpoint)?.auto_disabled(*count, Some(outcome)));
        }
        operational_events.iter().try_for_each(|operational_event| self.announce(operational_event))
    }

    /// Whether another endpoint of the account wants to know.
    fn is_heard(&self, endpoint: EndpointKey, kind: Operational) -> bool {
        let is_by_another = |subscribers: Vec<EndpointKey>| subscribers.iter().any(|other| *other != endpoint);
        self.cache.endpoint(endpoint).is_some_and(|row| {
            is_by_another(self.cache.subscribers(row.account, kind.name()))
                || is_by_another(self.cache.paused_subscribers(row.account, kind.name()))
        })
    }

    fn about(&self, key: EndpointKey) -> Result<About, StoreError> {
        let sql = "SELECT account, id, url FROM endpoints WHERE key = ?1";
        let mut statement = self.db.prepare_cached(sql)?;
        Ok(statement.query_row([key.0], |row| {
            Ok(About {
                account: AccountKey(row.get("account")?),
                key,
                id: EndpointId(super::columns::uuid(row, "id")?),
                url: row.get("url")?,
            })
        })?)
    }
}
