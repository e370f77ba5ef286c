//! The newest deliveries of some endpoints, by a merge of the endpoints' lists.
//!
//! An index by account would cost every insert what only these lists need. Called by `log` and `search`.

use std::collections::BinaryHeap;

use foldhash::HashSet;
use rusqlite::types::Value;
use rusqlite::{Connection, Statement, params_from_iter};

use crate::store::errors::StoreError;

/// Ids that the first read of an endpoint's list takes. Each further read takes twice as many: what is read and not
/// used is less than what is used, and these few of each endpoint.
const FIRST_READ: usize = 8;

/// Ids that a read takes at most. A read costs one search in the index, and 256 ids cost far more than that.
const MAX_READ: usize = 256;

/// Which deliveries are wanted.
pub(super) struct Wanted<'a> {
    /// Those of these endpoints.
    pub endpoints: &'a [i64],
    /// The first id, and the first that is too high.
    pub ids: (i64, i64),
    /// What else must hold of a delivery `d`, as SQL.
    pub condition: &'a str,
    /// The values of the condition.
    pub values: &'a [Value],
    /// Whether the condition names the event `e`.
    pub joins_events: bool,
}

impl<'a> Wanted<'a> {
    /// All deliveries of these endpoints.
    pub fn all_of(endpoints: &'a [i64]) -> Self {
        Self { endpoints, ids: (0, i64::MAX), condition: "TRUE", values: &[], joins_events: false }
    }

    fn from(&self, table: &str) -> String {
        // CROSS JOIN keeps the order of the loops: the delivery first, then its event.
        let events = if self.joins_events { "CROSS JOIN events e ON e.id = d.event" } else { "" };
        format!("FROM {table} d {events}")
    }
}

/// The ids of the newest `limit` deliveries that are wanted, the newest first. Where no condition rejects rows, about
/// as many entries of the lists are read as ids are returned.
pub(super) fn newest_ids(db: &Connection, wanted: &Wanted<'_>, limit: usize) -> Result<Vec<i64>, StoreError> {
    // What is recent is newer than all that is listed.
    let mut found = recent_ids(db, wanted, limit)?;
    if found.len() < limit {
        merge_lists(db, wanted, limit, &mut found)?;
    }
    debug_assert!(found.is_sorted_by(|a, b| a > b), "each once, the newest first");
    Ok(found)
}

fn recent_ids(db: &Connection, wanted: &Wanted<'_>, limit: usize) -> Result<Vec<i64>, StoreError> {
    let sql = format!(
        "SELECT d.id, d.endpoint {} WHERE d.id >= ? AND d.id < ? AND ({}) ORDER BY d.id DESC",
        wanted.from("recent_deliveries"),
        wanted.condition
    );
    // Neither this nor the next statement is cached: filters are too many.
    let mut statement = db.prepare(&sql)?;
    let (first, end) = wanted.ids;
    let values = [first, end].map(Value::Integer).into_iter().chain(wanted.values.iter().cloned());
    let mut rows = statement.query(params_from_iter(values))?;
    let endpoints: HashSet<i64> = wanted.endpoints.iter().copied().collect();
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        if endpoints.contains(&row.get(1)?) {
            found.push(row.get(0)?);
        }
    }
    Ok(found)
}

fn merge_lists(db: &Connection, wanted: &Wanted<'_>, limit: usize, found: &mut Vec<i64>) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT d.id {} WHERE d.endpoint = ? AND d.id >= ? AND d.id < ? AND ({}) ORDER BY d.id DESC LIMIT ?",
        wanted.from("delivery_lists"),
        wanted.condition
    );
    let mut statement = db.prepare(&sql)?;
    let mut lists: Vec<List> = wanted.endpoints.iter().map(|endpoint| List::new(*endpoint, wanted.ids.1)).collect();
    let mut heads = BinaryHeap::new();
    for (index, list) in lists.iter_mut().enumerate() {
        heads.extend(list.next(&mut statement, wanted)?.map(|id| (id, index)));
    }
    while found.len() < limit
        && let Some((id, index)) = heads.pop()
    {
        found.push(id);
        heads.extend(lists[index].next(&mut statement, wanted)?.map(|id| (id, index)));
    }
    Ok(())
}

/// An endpoint's list, read from its newest delivery on.
struct List {
    endpoint: i64,
    /// What was read and is not used yet.
    ids: std::vec::IntoIter<i64>,
    /// Where the next read begins: below this id.
    end: i64,
    /// How many ids the next read takes; 0 when the list has no more.
    next_read: usize,
}

impl List {
    fn new(endpoint: i64, end: i64) -> Self {
        Self { endpoint, ids: Vec::new().into_iter(), end, next_read: FIRST_READ }
    }

    fn next(&mut self, statement: &mut Statement<'_>, wanted: &Wanted<'_>) -> Result<Option<i64>, StoreError> {
        if let Some(id) = self.ids.next() {
            return Ok(Some(id));
        }
        if self.next_read == 0 {
            return Ok(None);
        }
        let most = i64::try_from(self.next_read).expect("at most MAX_READ");
        let first = [self.endpoint, wanted.ids.0, self.end].map(Value::Integer).into_iter();
        let values = first.chain(wanted.values.iter().cloned()).chain([Value::Integer(most)]);
        let rows = statement.query_map(params_from_iter(values), |row| row.get(0))?;
        let ids: Vec<i64> = rows.collect::<Result<_, _>>()?;
        self.next_read = if ids.len() < self.next_read { 0 } else { (self.next_read * 2).min(MAX_READ) };
        self.end = ids.last().copied().unwrap_or(self.end);
        self.ids = ids.into_iter();
        Ok(self.ids.next())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::clock::ManualClock;
    use crate::domain::time::Timestamp;

    /// Instructions of SQLite's machine between two counts.
    const COUNTED: i32 = 100;

    /// A database in which each of these endpoints has so many listed deliveries, all mixed: ids go from 1 without
    /// gaps.
    fn lists(endpoints: i64, deliveries: i64) -> Connection {
        let mut db = Connection::open_in_memory().expect("opens");
        let clock = ManualClock::at(Timestamp::from_millis(0));
        super::super::migrate::migrate(&mut db, &clock).expect("migrated");
        let sql = format!(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {}) \
             INSERT INTO delivery_lists SELECT n % {endpoints}, n, n, n % 2, 1, 200, 3 FROM n",
            endpoints * deliveries
        );
        db.execute_batch(&sql).expect("filled");
        db
    }

    /// What a search finds, and hundreds of instructions that it took.
    fn counted(db: &mut Connection, wanted: &Wanted<'_>, limit: usize) -> (Vec<i64>, usize) {
        let steps = Arc::new(AtomicUsize::new(0));
        let count = steps.clone();
        let handler = move || {
            count.fetch_add(1, Ordering::Relaxed);
            false
        };
        db.progress_handler(COUNTED, Some(handler)).expect("set");
        let found = newest_ids(db, wanted, limit).expect("found");
        db.progress_handler(0, None::<fn() -> bool>).expect("set");
        (found, steps.load(Ordering::Relaxed))
    }

    #[test]
    fn the_newest_of_all_endpoints_are_found_in_their_order() {
        let mut db = lists(7, 100);
        let some: Vec<i64> = (0..5).collect();
        let expected =
            |even: bool| (1..=700).rev().filter(move |id| id % 7 < 5 && (!even || id % 2 == 0)).collect::<Vec<i64>>();
        for limit in [0, 1, 9, 250, 499, 500, 501] {
            let all = counted(&mut db, &Wanted::all_of(&some), limit).0;
            assert_eq!(all, expected(false).into_iter().take(limit).collect::<Vec<_>>());
            let values = [Value::Integer(0)];
            let wanted = Wanted { condition: "d.status = ?", values: &values, ..Wanted::all_of(&some) };
            let even = counted(&mut db, &wanted, limit).0;
            assert_eq!(even, expected(true).into_iter().take(limit).collect::<Vec<_>>());
        }
        let within = Wanted { ids: (100, 110), ..Wanted::all_of(&some) };
        assert_eq!(counted(&mut db, &within, 100).0, [109, 108, 107, 106, 105, 102, 101, 100]);
        assert!(counted(&mut db, &Wanted::all_of(&[]), 10).0.is_empty());
    }

    #[test]
    fn what_is_read_grows_with_what_is_wanted_and_not_with_the_lists() {
        let endpoints: Vec<i64> = (0..20).collect();
        let (mut short, mut long) = (lists(20, 500), lists(20, 10_000));
        for (limit, most) in [(50, 60), (5_000, 1_000)] {
            let of_short = counted(&mut short, &Wanted::all_of(&endpoints), limit).1;
            let of_long = counted(&mut long, &Wanted::all_of(&endpoints), limit).1;
            assert!(of_long <= of_short + of_short / 10 + 1, "{of_short} and {of_long}");
            assert!(of_long <= most, "{limit}: {of_long} hundred instructions");
        }
    }
}
