//! The roles that read history: `Log` and `Search` for deliveries and events, `AuditLog`, and `Statistics` for the
//! counts of charts.

use std::time::Duration;

use crate::domain::audit::{AuditEntry, AuditFilter};
use crate::domain::delivery::{Delivery, DeliveryDetail};
use crate::domain::event::Event;
use crate::domain::filter::DeliveryFilter;
use crate::domain::id::{AccountId, DeliveryId, EndpointId, EventId};
use crate::domain::statistics::{Count, Counted};
use crate::domain::subscription::Subscription;
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::kept_events::KeptEvent;
use crate::store::values::{Page, Paged, Stretch};

role! {
    /// Deliveries and events, newest first.
    pub trait Log {
        /// Deliveries of one endpoint.
        async fn endpoint_deliveries(
            &self,
            owner: AccountId,
            id: EndpointId,
            page: Page,
        ) -> Result<Paged<Delivery>, StoreError>;

        /// Deliveries of all endpoints of an account.
        async fn account_deliveries(&self, owner: AccountId, page: Page) -> Result<Paged<Delivery>, StoreError>;

        /// One delivery of an account, with its body and every attempt.
        async fn delivery(&self, owner: AccountId, id: DeliveryId) -> Result<DeliveryDetail, StoreError>;

        /// Events of an account.
        async fn events(&self, owner: AccountId, page: Page) -> Result<Paged<Event>, StoreError>;

        /// One event of an account, and its deliveries in the order of their ids.
        async fn event(&self, owner: AccountId, id: EventId) -> Result<(Event, Vec<Delivery>), StoreError>;
    }
}

role! {
    /// Filtered lists of deliveries, and the events behind them.
    pub trait Search {
        /// Deliveries of all endpoints of an account that match the filter, newest first.
        async fn find_deliveries(
            &self,
            owner: AccountId,
            filter: DeliveryFilter,
            page: Page,
        ) -> Result<Paged<Delivery>, StoreError>;

        /// The deliveries that match the filter among the next that are older than `before`, newest first: a bounded
        /// stretch, in which there may be none.
        async fn walk_deliveries(
            &self,
            owner: AccountId,
            filter: DeliveryFilter,
            before: Option<i64>,
        ) -> Result<Stretch<Delivery>, StoreError>;

        /// The published events, with their bodies, that the subscription covers among the next of the account that are
        /// older than `before`, newest first, as far as their bodies are kept: a bounded stretch, in which there may be
        /// none.
        async fn walk_kept_events(
            &self,
            owner: AccountId,
            wanted: Subscription,
            before: Option<i64>,
        ) -> Result<Stretch<KeptEvent>, StoreError>;

        /// Begins a preview of a filter for the account. It returns false while another node has one under way. The
        /// caller makes sure that its own node has none.
        async fn begin_preview(&self, owner: AccountId) -> Result<bool, StoreError>;

        /// Ends the account's preview, so that the next one may begin on any node.
        async fn end_preview(&self, owner: AccountId) -> Result<(), StoreError>;
    }
}

role! {
    /// The audit log.
    pub trait AuditLog {
        /// Entries of the audit log, newest first: an account's own as accounts may see them, or for an operator all.
        async fn audit_log(
            &self,
            owner: Option<AccountId>,
            filter: AuditFilter,
            page: Page,
        ) -> Result<Paged<AuditEntry>, StoreError>;

        /// The next of these entries that are older than `before`: a bounded stretch.
        async fn walk_audit_log(
            &self,
            owner: Option<AccountId>,
            filter: AuditFilter,
            before: Option<i64>,
        ) -> Result<Stretch<AuditEntry>, StoreError>;
    }
}

role! {
    /// Attempts, counted for the charts.
    pub trait Statistics {
        /// Adds to the counts of attempts. Attempts at endpoints that are deleted are not counted.
        async fn count_attempts(&self, counts: Vec<(Counted, u64)>) -> Result<(), StoreError>;

        /// The counts of an account's attempts, or of one endpoint's, in slots of `slot` from `from` on.
        async fn attempt_counts(
            &self,
            owner: AccountId,
            endpoint: Option<EndpointId>,
            slot: Duration,
            from: Timestamp,
        ) -> Result<Vec<Count>, StoreError>;
    }
}
