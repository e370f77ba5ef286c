//! Implements `Holds`: an operator puts all deliveries on hold, and resumes them. `hold_row` has the row.

use super::hold_row::{begin, end, read};
use super::store::Store;
use crate::domain::audit::Action;
use crate::domain::time::Timestamp;
use crate::store::contract::Holds;
use crate::store::errors::StoreError;
use crate::store::hold::RESOURCE;
use crate::store::shared::AuditRecord;

impl Holds for Store {
    async fn hold(&self) -> Result<Timestamp, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                if let Some(since) = read(tx.db)? {
                    return Ok(since);
                }
                begin(tx.db, tx.now)?;
                tx.cache.touch_hold();
                tx.audit(&origin, &AuditRecord::of(None, Action::DeliveriesHeld, RESOURCE))?;
                Ok(tx.now)
            })
            .await
    }

    async fn resume(&self) -> Result<Option<Timestamp>, StoreError> {
        let origin = self.origin.clone();
        self.writer
            .write(move |tx| {
                let Some(since) = read(tx.db)? else { return Ok(None) };
                end(tx.db)?;
                tx.cache.touch_hold();
                tx.audit(&origin, &AuditRecord::of(None, Action::DeliveriesResumed, RESOURCE))?;
                Ok(Some(since))
            })
            .await
    }
}
