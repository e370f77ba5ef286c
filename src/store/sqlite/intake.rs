//! Accepting events: event, payload, fan-out and stored reply in one commit.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::dispatch::settle;
use super::endpoints::find;
use super::store::Store;
use super::tx::{Tx, insert_delivery, insert_event, insert_missed};
use crate::domain::delivery::{DeliveryKind, Job};
use crate::domain::event::{Event, NewEvent, TEST_TYPE};
use crate::domain::id::{AccountId, DeliveryId, EndpointId, EventId};
use crate::store::contract::Intake;
use crate::store::errors::StoreError;
use crate::store::filter_checks::{Checks, Intaken, Publishing};
use crate::store::inbox::{Leased, MemoryPermit};
use crate::store::numbers::delivery_count;
use crate::store::values::{PendingReply, Settlement};

impl Intake for Store {
    async fn accept(
        &self,
        events: Vec<NewEvent>,
        pending_reply: Option<PendingReply<Vec<Event>>>,
    ) -> Result<Vec<Event>, StoreError> {
        self.shared.filter_checks.accept(events, pending_reply, |call| self.write_events(call)).await
    }

    async fn open_test(&self, owner: AccountId, id: EndpointId, message: Bytes) -> Result<Leased, StoreError> {
        self.writer
            .write(move |tx| {
                let endpoint = find(tx.db, owner, id)?;
                let event = EventId(tx.ids.next(tx.now));
                let now = tx.now.as_millis();
                insert_event(tx, event, endpoint.account, TEST_TYPE, now, None, 1, None, None, &message)?;
                let delivery = DeliveryId(tx.ids.next(tx.now));
                insert_delivery(tx, delivery, endpoint.key, event, true)?;
                let job = Job::new((delivery, endpoint.key), tx.lease, DeliveryKind::Test, TEST_TYPE, message);
                let permit = match &tx.shared.inbox {
                    Some(inbox) => MemoryPermit::unbounded(endpoint.account).named(inbox.in_memory(), delivery),
                    None => MemoryPermit::unbounded(endpoint.account),
                };
                Ok(Leased::new(job, tx.now, permit))
            })
            .await
    }

    async fn settle_test(
        &self,
        settlement: Settlement,
        pending_reply: Option<PendingReply<()>>,
    ) -> Result<(), StoreError> {
        self.writer
            .write(move |tx| {
                // The cache is not rolled back with a savepoint: what can fail comes first.
                tx.store_pending_reply(pending_reply, &())?;
                settle(tx, &[settlement])?;
                Ok(())
            })
            .await
    }
}

impl Store {
    async fn write_events(&self, call: Publishing) -> Result<Intaken, StoreError> {
        let share = self.shared.write_shares.of_events(&call.events).await?;
        let (intaken, _large) = self
            .writer
            .write_hot(move |tx| {
                let (began, before, events) = (Instant::now(), *tx.size, call.events.len());
                let intaken = accept_all(tx, call)?;
                // The next call of the account may wait for the writer when this one has run; after a large one, when
                // its pause is over.
                let large = share.and_then(|share| share.ran(began, events, tx.size.since(before)));
                Ok((intaken, large))
            })
            .await?;
        Ok(intaken)
    }
}

/// Writes the events of a call, or hands it back.
fn accept_all(tx: &mut Tx<'_>, call: Publishing) -> Result<Intaken, StoreError> {
    // What can be refused comes before the first write.
    for event in &call.events {
        tx.cache.account_key(event.account).ok_or(StoreError::NotFound)?;
        if !tx.cache.has_type(&event.event_type) {
            return Err(StoreError::UnknownType(event.event_type.clone()));
        }
    }
    if let Some(pending) = &call.pending_reply {
        tx.check_scope_free(&pending.scope)?;
    }
    let (cache, filter_checks) = (&*tx.cache, &tx.shared.filter_checks);
    if !filter_checks.is_checked(&call, cache.has_filters(), |event| cache.filtered(event)) {
        return Ok(Intaken::Unchecked(Box::new(call)));
    }
    let Publishing { events, checks, pending_reply } = call;
    let mut accepted = Vec::with_capacity(events.len());
    for (number, event) in events.into_iter().enumerate() {
        accepted.push(accept_one(tx, event, checks.of(number))?);
    }
    tx.store_pending_reply(pending_reply, &accepted)?;
    // The cache is not rolled back with a savepoint: it is told when nothing can fail any more.
    for event in &accepted {
        tx.cache.count_event(event.account.1);
    }
    Ok(Intaken::Written(accepted))
}

fn accept_one(tx: &mut Tx<'_>, new: NewEvent, checks: &Checks) -> Result<Event, StoreError> {
    let account = tx.cache.account_key(new.account).ok_or(StoreError::NotFound)?;
    let (subscribers, paused) = tx.cache.recipients(account, &new, checks);
    let (deliveries, missed) = (delivery_count(subscribers.len()), delivery_count(paused.len()));
    let id = EventId(tx.ids.next(tx.now));
    let validation = new.validation_id.map(uuid::Uuid::into_bytes);
    let occurred_at = new.occurred_at.as_millis();
    let (channels, trace) = (new.channels.as_ref(), new.trace.as_ref());
    insert_event(tx, id, account, &new.event_type, occurred_at, validation, deliveries, channels, trace, &new.body)?;
    for endpoint in paused {
        insert_missed(tx, endpoint, &new.event_type, id)?;
    }
    let event_type: Arc<str> = new.event_type.as_str().into();
    let body = tx.shared.inbox.as_ref().map(|inbox| (inbox, inbox.body(new.body.len())));
    for endpoint in subscribers {
        // The ids of an event's deliveries follow its own, which is how they are found again.
        let delivery = DeliveryId(tx.ids.next(tx.now));
        debug_assert!(delivery.0 <= id.0 + i64::from(deliveries), "nothing comes between an event and its deliveries");
        // A delivery of a FIFO endpoint, and of an endpoint with a rate limit, waits in the store.
        let row = tx.cache.endpoint(endpoint).filter(|row| !row.is_fifo && row.delivery.rate_limit.is_none());
        let memory = row.map(|row| row.memory.clone());
        let permit = match (&body, memory) {
            (Some(_), Some(memory)) if tx.cache.is_on_hold() => {
                // A delivery that is accepted right after the hold does not pass this one.
                memory.note_stored(true);
                None
            }
            (Some((inbox, body)), Some(memory)) => {
                inbox.reserve_new(&memory, body).map(|permit| permit.named(inbox.in_memory(), delivery))
            }
            _ => None,
        };
        insert_delivery(tx, delivery, endpoint, id, permit.is_some())?;
        match permit {
            Some(permit) => {
                let (whose, body) = ((delivery, endpoint), new.body.clone());
                let job = Job::new(whose, tx.lease, DeliveryKind::Event, event_type.clone(), body);
                tx.after.jobs.push(Leased::new(Job { trace: new.trace.clone(), ..job }, tx.now, permit));
            }
            None if tx.add_to_fifo(delivery, endpoint)? => tx.after.due.push((endpoint, tx.now)),
            None => {}
        }
    }
    Ok(Event {
        id,
        created_at: tx.ids.times().of(id.0),
        account: (new.account, account),
        event_type: new.event_type,
        occurred_at: new.occurred_at,
        channels: new.channels,
        deliveries,
        missed,
    })
}
