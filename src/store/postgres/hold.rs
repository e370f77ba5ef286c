//! Implements `Holds`: an operator puts all deliveries on hold, and resumes them. Nodes learn of it by the change feed.
//! `hold_row` reads the row.

use super::change_feed::{Change, write_change};
use super::hold_row::read;
use super::migrate::require;
use super::sql::{execute, get, row};
use super::store::Store;
use crate::domain::audit::Action;
use crate::domain::time::Timestamp;
use crate::store::contract::Holds;
use crate::store::errors::StoreError;
use crate::store::hold::{REQUIRES, RESOURCE, ROW};
use crate::store::shared::AuditRecord;

impl Holds for Store {
    async fn hold(&self) -> Result<Timestamp, StoreError> {
        let now = self.now();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        if let Some(since) = read(&tx).await? {
            return Ok(since);
        }
        require(&tx, &self.pool, REQUIRES).await?;
        // If two commands come at the same time, the second waits for the first, and fails.
        execute(&tx, "INSERT INTO settings (name, value) VALUES ($1, $2)", &[&ROW, &now.as_millis()]).await?;
        self.audit(&tx, &AuditRecord::of(None, Action::DeliveriesHeld, RESOURCE), now).await?;
        write_change(&tx, Change::Hold, now).await?;
        self.commit(tx).await?;
        Ok(now)
    }

    async fn resume(&self) -> Result<Option<Timestamp>, StoreError> {
        let now = self.now();
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let ended = row(&tx, "DELETE FROM settings WHERE name = $1 RETURNING value", &[&ROW]).await?;
        let Some(ended) = ended else { return Ok(None) };
        let since = Timestamp::from_millis(get(&ended, "value")?);
        self.audit(&tx, &AuditRecord::of(None, Action::DeliveriesResumed, RESOURCE), now).await?;
        write_change(&tx, Change::Hold, now).await?;
        self.commit(tx).await?;
        Ok(Some(since))
    }
}
