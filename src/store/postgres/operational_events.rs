//! Writes operational events, each in the transaction that it reports.

use std::collections::BTreeSet;

use deadpool_postgres::{Object, Transaction};
use foldhash::HashMap;

use super::catalog_rows::active_and_fifo;
use super::fifo;
use super::ids::Ids;
use super::sql::{get, rows, span};
use super::store::Store;
use super::write::{DeliveryRow, EventRow, Write};
use crate::domain::delivery::Outcome;
use crate::domain::event::{Operational, message};
use crate::domain::id::{AccountKey, DeliveryId, EndpointId, EndpointKey, EventId};
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::numbers::body_size;
use crate::store::operational_events::{About, FailedDelivery, FailureLimit, OperationalEvent};
use crate::store::settings::readable;

/// A delivery that failed for good, and after how many attempts.
pub(super) struct Failure<'a> {
    pub account: AccountKey,
    pub endpoint: EndpointKey,
    pub delivery: DeliveryId,
    pub attempts: u32,
    pub outcome: &'a Outcome,
}

/// An endpoint that was paused after so many failures.
pub(super) struct Paused<'a> {
    pub account: AccountKey,
    pub endpoint: EndpointKey,
    pub failures: u32,
    pub outcome: Option<&'a Outcome>,
}

/// What follows the commit: endpoints whose engine is nudged, and FIFO endpoints whose head is made due.
#[derive(Default)]
pub(super) struct AfterCommit {
    pub due: Vec<EndpointKey>,
    pub fifo_endpoints: BTreeSet<i64>,
}

impl Store {
    /// Writes operational events to those who subscribe to them.
    pub(super) async fn announce(
        &self,
        tx: &Transaction<'_>,
        operational_events: &[OperationalEvent],
        now: Timestamp,
    ) -> Result<AfterCommit, StoreError> {
        let mut after = AfterCommit::default();
        let subscribers = subscribers(tx, operational_events).await?;
        let heard = |event: &OperationalEvent| -> Vec<&Subscriber> {
            let known = subscribers.get(&(event.account, event.kind.name().to_owned())).into_iter().flatten();
            known.filter(|subscriber| subscriber.endpoint != event.about).collect()
        };
        let planned: Vec<_> = operational_events
            .iter()
            .map(|event| (event, heard(event)))
            .filter(|(_, heard)| !heard.is_empty())
            .collect();
        if planned.is_empty() {
            return Ok(after);
        }
        let count = planned.iter().map(|(_, heard)| 1 + heard.len()).sum();
        let first = self.shared.id_times().first_at(now);
        let mut ids = Ids::default().reserve(tx, count, first, self.node.given()).await?.into_iter();
        let mut write = Write { now, ..Write::default() };
        for (OperationalEvent { account, kind, data, .. }, heard) in planned {
            let (account, event_type) = (*account, kind.name());
            let Some(event) = ids.next() else { break };
            let body = message(event_type, now, data);
            let size = body_size(body.len());
            let mut deliveries = Vec::new();
            for Subscriber { endpoint, active, is_fifo } in heard {
                if !active {
                    write.missed.push((account, *endpoint, event_type.to_owned(), event));
                    continue;
                }
                let (endpoint, is_fifo) = (*endpoint, *is_fifo);
                let Some(id) = ids.next() else { break };
                write.deliveries.push(DeliveryRow { account, id, endpoint, event, size, leased: false, is_fifo });
                after.due.extend((!is_fifo).then_some(endpoint));
                deliveries.push(id);
            }
            write.events.push(EventRow {
                account,
                id: event,
                event_type: event_type.to_owned(),
                occurred_at: now.as_millis(),
                validation: None,
                channels: None,
                trace: None,
                deliveries,
                body,
            });
        }
        write.run(tx).await?;
        after.fifo_endpoints = write.fifo_endpoints();
        Ok(after)
    }

    /// Does what follows a commit: makes heads due, and nudges the engine.
    pub(super) async fn run_after_commit(&self, db: &mut Object, after: AfterCommit, now: Timestamp) {
        let heads = &self.shared.fifo_heads;
        let due =
            fifo::make_heads_due_afterwards(db, heads, &after.fifo_endpoints, now).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the next delivery of a FIFO endpoint was not made due, and is made due later");
                Vec::new()
            });
        for endpoint in after.due.into_iter().chain(due) {
            self.nudge(endpoint, now);
        }
    }
}

/// What outcomes have to tell: of deliveries that failed for good, as far as the limit of their account goes, and of
/// endpoints that were paused by them. Nothing where no other endpoint of their accounts wants to know.
pub(super) async fn operational_events_of(
    tx: &Transaction<'_>,
    failures: &[Failure<'_>],
    paused: &[Paused<'_>],
    limit: &FailureLimit,
) -> Result<Vec<OperationalEvent>, StoreError> {
    let accounts: BTreeSet<i64> =
        failures.iter().map(|failure| failure.account.0).chain(paused.iter().map(|paused| paused.account.0)).collect();
    let accounts: Vec<i64> = accounts.into_iter().collect();
    let kinds = [Operational::DeliveryFailed.name(), Operational::EndpointAutoDisabled.name()];
    let sql = "SELECT account, type, endpoint FROM subscriptions WHERE account = ANY($1) AND type = ANY($2)";
    let mut listening: HashMap<(AccountKey, String), Vec<EndpointKey>> = HashMap::default();
    for row in rows(tx, sql, &[&accounts, &kinds.as_slice()]).await? {
        let whose = (AccountKey(get(&row, "account")?), get(&row, "type")?);
        listening.entry(whose).or_default().push(EndpointKey(get(&row, "endpoint")?));
    }
    let is_heard = |account: AccountKey, about: EndpointKey, kind: Operational| {
        let others = listening.get(&(account, kind.name().to_owned()));
        others.is_some_and(|others| others.iter().any(|other| *other != about))
    };
    let failures: Vec<_> = failures
        .iter()
        .filter(|failure| is_heard(failure.account, failure.endpoint, Operational::DeliveryFailed))
        .collect();
    let paused: Vec<_> = paused
        .iter()
        .filter(|paused| is_heard(paused.account, paused.endpoint, Operational::EndpointAutoDisabled))
        .collect();
    if failures.is_empty() && paused.is_empty() {
        return Ok(Vec::new());
    }
    let keys = failures.iter().map(|failure| failure.endpoint.0).chain(paused.iter().map(|paused| paused.endpoint.0));
    let keys: Vec<i64> = keys.collect();
    let mut abouts = HashMap::default();
    for row in rows(tx, "SELECT key, account, id, url FROM endpoints WHERE key = ANY($1)", &[&keys]).await? {
        let key = EndpointKey(get(&row, "key")?);
        let (account, id) = (AccountKey(get(&row, "account")?), EndpointId(get(&row, "id")?));
        abouts.insert(key, About { account, key, id, url: get(&row, "url")? });
    }
    // One by one, by the whole key, and in the partitions of the ids: the database opens no others.
    let sql = "SELECT f.id, d.event, d.type FROM unnest($1::bigint[], $2::bigint[]) AS f(account, id) \
               CROSS JOIN LATERAL (SELECT event, type FROM deliveries WHERE account = f.account AND id = f.id \
               AND id >= $3 AND id < $4 LIMIT 1) AS d";
    let of_accounts: Vec<i64> = failures.iter().map(|failure| failure.account.0).collect();
    let ids: Vec<i64> = failures.iter().map(|failure| failure.delivery.0).collect();
    let (first, end) = span(ids.iter().copied());
    let mut events = HashMap::default();
    for row in rows(tx, sql, &[&of_accounts, &ids, &first, &end]).await? {
        events.insert(get::<i64>(&row, "id")?, (EventId(get(&row, "event")?), get::<String>(&row, "type")?));
    }
    let mut operational_events = Vec::new();
    for failure in failures {
        let (Some(about), Some((event, event_type))) = (abouts.get(&failure.endpoint), events.get(&failure.delivery.0))
        else {
            continue;
        };
        if Operational::parse(event_type).is_some() {
            continue;
        }
        let Some(left_out) = limit.admit(failure.account) else { continue };
        let (attempts, outcome) = (failure.attempts, failure.outcome);
        operational_events.push(about.failed(&FailedDelivery {
            id: failure.delivery,
            event: *event,
            event_type,
            attempts,
            outcome,
            left_out,
        }));
    }
    for Paused { endpoint, failures, outcome, .. } in paused {
        operational_events.extend(abouts.get(endpoint).map(|about| about.auto_disabled(*failures, *outcome)));
    }
    Ok(operational_events)
}

/// Somebody who subscribes to an operational event.
struct Subscriber {
    endpoint: EndpointKey,
    active: bool,
    is_fifo: bool,
}

/// Who subscribes to what these tell, by account and type.
async fn subscribers(
    tx: &Transaction<'_>,
    operational_events: &[OperationalEvent],
) -> Result<HashMap<(AccountKey, String), Vec<Subscriber>>, StoreError> {
    let mut subscribers: HashMap<_, Vec<Subscriber>> = HashMap::default();
    if operational_events.is_empty() {
        return Ok(subscribers);
    }
    let asked: BTreeSet<(i64, &'static str)> =
        operational_events.iter().map(|event| (event.account.0, event.kind.name())).collect();
    let (accounts, types): (Vec<i64>, Vec<&str>) = asked.into_iter().unzip();
    // The offset skips nothing: with it, each account and type is looked up by itself, whatever is in the tables.
    let sql = "SELECT w.account, w.type, e.key, e.id, e.status, e.ordering \
               FROM unnest($1::bigint[], $2::text[]) AS w(account, type) CROSS JOIN LATERAL \
               (SELECT e.key, e.id, e.status, e.ordering FROM subscriptions s JOIN endpoints e ON e.key = s.endpoint \
               WHERE s.account = w.account AND s.type = w.type AND e.deleted_at IS NULL OFFSET 0) AS e ORDER BY e.key";
    for row in rows(tx, sql, &[&accounts, &types]).await? {
        let whose = (AccountKey(get(&row, "account")?), get(&row, "type")?);
        let read = readable(EndpointId(get(&row, "id")?), active_and_fifo(&row))?;
        let (active, is_fifo) = read.unwrap_or((false, false));
        let endpoint = EndpointKey(get(&row, "key")?);
        subscribers.entry(whose).or_default().push(Subscriber { endpoint, active, is_fifo });
    }
    Ok(subscribers)
}
