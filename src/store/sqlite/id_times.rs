//! The times of ids after the clock was wrong (`domain::id::IdTimes`).

use rusqlite::{Connection, params};

use crate::domain::id::{IdSequence, IdTimes, MadeAhead, Offset};
use crate::domain::time::Timestamp;
use crate::store::errors::StoreError;

pub(super) use crate::domain::id::TOLERANCE;

/// The times of ids. The table is empty where the clock was never wrong, and has a row for each time that it was.
pub(super) fn read(db: &Connection) -> rusqlite::Result<IdTimes> {
    let mut statement = db.prepare_cached("SELECT first_id, offset_ms FROM id_offsets")?;
    let rows = statement.query_map([], |row| Ok(Offset { first_id: row.get(0)?, offset_ms: row.get(1)? }))?;
    Ok(IdTimes::new(rows.collect::<Result<_, _>>()?))
}

/// Decides what to do about ids that are ahead of the clock, and tells the operator. Returns the times from here on
/// where they are others.
pub(super) fn set_right(db: &Connection, ids: &IdSequence, now: Timestamp) -> Result<Option<IdTimes>, StoreError> {
    let last = ids.times().of(ids.last());
    let ahead = made_ahead(db, ids, now)?;
    let Some(times) = ids.times().set_right(ahead, now) else {
        tracing::warn!(
            %now, newest = %last,
            "the clock is behind the newest rows: new rows get their time until the clock has caught up. Check the \
             clock"
        );
        return Ok(None);
    };
    db.prepare_cached("DELETE FROM id_offsets")?.execute([])?;
    for offset in times.offsets() {
        let sql = "INSERT INTO id_offsets (first_id, offset_ms) VALUES (?1, ?2)";
        db.prepare_cached(sql)?.execute(params![offset.first_id, offset.offset_ms])?;
    }
    tracing::warn!(
        %now, newest = %last,
        "the clock was ahead and was set back: what was made meanwhile is shown at about its real time. Check the clock"
    );
    Ok(Some(times))
}

fn made_ahead(db: &Connection, ids: &IdSequence, now: Timestamp) -> rusqlite::Result<MadeAhead> {
    let end = ids.times().first_at(Timestamp::from_millis(now.as_millis() + 1));
    let last = ids.last();
    let sql = "SELECT MAX(IFNULL((SELECT MAX(id) FROM events WHERE id < ?1), 0), \
               IFNULL((SELECT MAX(id) FROM deliveries WHERE id < ?1), 0)), \
               MIN(IFNULL((SELECT MIN(id) FROM events WHERE id >= ?1), ?2), \
               IFNULL((SELECT MIN(id) FROM deliveries WHERE id >= ?1), ?2)), \
               (SELECT MIN(created_at) FROM accounts)";
    db.prepare_cached(sql)?.query_row([end, last], |row| {
        let oldest_account = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis);
        Ok(MadeAhead { before: row.get(0)?, first: row.get(1)?, last, oldest_account })
    })
}
