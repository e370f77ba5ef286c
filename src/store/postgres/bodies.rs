//! Bodies of events, so many bytes at a time.

use deadpool_postgres::GenericClient;

use super::sql::{column, get, rows};
use crate::store::errors::StoreError;
use crate::store::kept_events::KeptEvent;
use crate::store::numbers::sql_limit;

/// Reads the bodies of these events of an account, in their order, until they have so many bytes. Events whose bodies
/// are not kept are left out.
pub(super) async fn with_bodies(
    db: &impl GenericClient,
    account: i64,
    events: Vec<KeptEvent>,
    most_bytes: usize,
) -> Result<Vec<KeptEvent>, StoreError> {
    let ids: Vec<i64> = column(&events, |event| event.id.0);
    let sql = "SELECT event, body FROM (SELECT u.id AS event, u.place, p.body, \
               sum(length(p.body)) OVER (ORDER BY u.place) - length(p.body) AS bytes_before \
               FROM unnest($2::bigint[]) WITH ORDINALITY AS u(id, place) CROSS JOIN LATERAL \
               (SELECT body FROM payloads WHERE account = $1 AND event = u.id LIMIT 1) AS p) AS kept \
               WHERE bytes_before < $3 ORDER BY place";
    let found = rows(db, sql, &[&account, &ids, &sql_limit(most_bytes)]).await?;
    let mut kept = Vec::with_capacity(found.len());
    let mut events = events.into_iter();
    for row in &found {
        let (id, body): (i64, Vec<u8>) = (get(row, "event")?, get(row, "body")?);
        let event = events.find(|event| event.id.0 == id);
        kept.extend(event.map(|event| KeptEvent { body: body.into(), ..event }));
    }
    Ok(kept)
}
