//! The row of `settings` that has the time at which the hold of all deliveries began.

use deadpool_postgres::GenericClient;

use super::sql::{get, row};
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;
use crate::store::hold::ROW;

/// Since when deliveries are on hold.
pub(super) async fn read(db: &impl GenericClient) -> Result<Option<Timestamp>, StoreError> {
    let found = row(db, "SELECT value FROM settings WHERE name = $1", &[&ROW]).await?;
    found.map(|row| Ok(Timestamp::from_millis(get(&row, "value")?))).transpose()
}
