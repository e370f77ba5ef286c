//! Accepting events: the writer (`event_writer`) commits those of many requests at once.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::endpoints::find;
use super::event_writer::{Begin, Request};
use super::ids::Ids;
use super::store::Store;
use super::time_limit::CALL_TIMEOUT;
use super::write::{DeliveryRow, EventRow, Write};
use crate::domain::delivery::{DeliveryKind, Job};
use crate::domain::event::{Event, NewEvent, TEST_TYPE};
use crate::domain::id::{AccountId, DeliveryId, EndpointId};
use crate::store::contract::Intake;
use crate::store::errors::StoreError;
use crate::store::filter_checks::{Intaken, Publishing};
use crate::store::inbox::{Leased, MemoryPermit};
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
        let now = self.now();
        let db = self.client().await?;
        let endpoint = find(&db, owner, id).await?;
        let ids = Ids::default().reserve(&db, 2, self.shared.id_times().first_at(now), self.node.given()).await?;
        let (&[event, delivery], Ok(size)) = (ids.as_slice(), i32::try_from(message.len())) else {
            return Err(StoreError::Unavailable("there are no ids".into()));
        };
        let lease = self.node.key();
        let mut write = Write { lease, now, ..Write::default() };
        write.events.push(EventRow {
            account: endpoint.account,
            id: event,
            event_type: TEST_TYPE.into(),
            occurred_at: now.as_millis(),
            validation: None,
            channels: None,
            trace: None,
            deliveries: vec![delivery],
            body: message.clone(),
        });
        let row = DeliveryRow {
            account: endpoint.account,
            id: delivery,
            endpoint: endpoint.key,
            event,
            size,
            leased: true,
            is_fifo: false,
        };
        write.deliveries.push(row);
        let permit = MemoryPermit::unbounded(endpoint.account).named(self.node.in_memory(), DeliveryId(delivery));
        drop(db);
        let began = Instant::now();
        let written = write.run_in_its_day(&self.pool, &self.shared.fifo_heads).await?;
        self.freshness.found(written.generation, began);
        let job = Job::new((DeliveryId(delivery), endpoint.key), lease, DeliveryKind::Test, TEST_TYPE, message);
        Ok(Leased::new(job, now, permit))
    }

    async fn settle_test(
        &self,
        settlement: Settlement,
        pending_reply: Option<PendingReply<()>>,
    ) -> Result<(), StoreError> {
        self.settle_batch(&[settlement], pending_reply).await?;
        Ok(())
    }
}

impl Store {
    async fn write_events(&self, call: Publishing) -> Result<Intaken, StoreError> {
        let (reply, answer) = oneshot::channel();
        let closed = || StoreError::Unavailable("the store is closed".into());
        let share = self.shared.write_shares.of_events(&call.events).await?;
        let begin = Arc::new(Begin::default());
        let request = Request { call, reply, begin: Some(begin.clone()), share };
        let asked = async {
            self.intake.0.send(request).await.map_err(|_| closed())?;
            Ok(answer)
        };
        let mut answer = super::time_limit::in_time(asked).await?;
        let answered = match tokio::time::timeout(CALL_TIMEOUT, &mut answer).await {
            Ok(answered) => answered,
            Err(_) if begin.is_first() => {
                super::connect::suspect();
                return Err(StoreError::Unavailable("it did not answer in time".into()));
            }
            // What is being written ends in its own time, and its caller is told what became of it.
            Err(_) => answer.await,
        };
        answered.map_err(|_| closed())?
    }
}
