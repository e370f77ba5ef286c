//! A look at the database for `aldaba doctor`, beside nodes or without any.

use std::sync::Arc;

use tokio::time::Instant;

use super::connect::Connector;
use super::migrate::versions;
use super::node::NOW;
use super::sql::{describe, get, one};
use super::{privileges, require};
use crate::clock::Clock;
use crate::domain::time::millis;
use crate::store::errors::{OpenError, StoreError};
use crate::store::inspection::{DatabaseTime, Inspection};
use crate::store::postgres_url::PostgresUrl;

/// The version on which the tests run. A server of before version 12 refuses the settings of every session.
const TESTED_SERVER: i64 = 15;

/// Looks at the database.
pub async fn inspect(url: Arc<PostgresUrl>, clock: &dyn Clock) -> Result<Inspection, OpenError> {
    let shown = url.database().to_owned();
    let failed = |error: &dyn std::fmt::Display| OpenError(format!("the database {shown} cannot be used: {error}"));
    let connector = Connector::new(url).map_err(|error| failed(&error))?;
    let pool = connector.pool().map_err(|error| failed(&error))?;
    let db = pool.get().await.map_err(|error| failed(&StoreError::from(error)))?;
    let sql = format!(
        "SELECT current_setting('server_version') AS name, \
         current_setting('server_version_num')::bigint / 10000 AS number, {NOW} AS now"
    );
    // Prepared before the clock is read: the answer then takes one round trip.
    db.prepare_cached(&sql).await.map_err(|error| failed(&describe(&error)))?;
    let (began, before) = (Instant::now(), clock.now().as_millis());
    let row = one(&db, &sql, &[]).await.map_err(|error| failed(&error))?;
    let (took, after) = (began.elapsed(), clock.now().as_millis());
    let read = |error: StoreError| failed(&error);
    let name: String = get(&row, "name").map_err(read)?;
    let number: i64 = get(&row, "number").map_err(read)?;
    let ahead = i64::midpoint(before, after) - get::<i64>(&row, "now").map_err(read)?;
    let found = versions(&db).await.map_err(read)?;
    let mut inspection = Inspection::new(format!("PostgreSQL {name}"), found);
    // What the way there and back may have taken is no difference.
    let doubt = millis(took) / 2;
    inspection.time = Some(DatabaseTime::Ahead(if ahead.abs() > doubt { ahead } else { 0 }));
    if number < TESTED_SERVER {
        let older = format!("it is older than PostgreSQL {TESTED_SERVER}, on which this program is tested: upgrade it");
        inspection.warnings.push(older);
    }
    let session = require::read(&db).await.map_err(|error| failed(&describe(&error)))?;
    inspection.refusals.extend(session.refusal());
    inspection.warnings.extend(session.warnings().into_iter().map(str::to_owned));
    if found.version > 0 {
        inspection.refusals.extend(privileges::check(&db, true).await.err().map(|refusal| refusal.0));
    }
    Ok(inspection)
}
