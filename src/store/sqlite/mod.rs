//! The embedded store: one file, one writer thread, a few readers.
//!
//! All writes go through `writer`, which commits many at a time: `queue` and `group_commit` gather them, `tx` is what a
//! write sees, `writer_cache` what the writer knows without asking, `leases` and `delivery_index` what it looks after
//! by itself. Reads have connections of their own (`readers`). `checkpoint` looks after SQLite's own log.
//!
//! The roles of the contract are implemented in `admin`, `audit`, `backlog`, `calls`, `counts`, `dispatch`,
//! `endpoints`, `hold`, `intake`, `log`, `maintain`, `memberships`, `portal`, `replay`, `search`, `users`, and in
//! `store`, which has the handle. What several of them use is in files below them: `catalog_rows`, `cache_rows` and
//! `columns` read rows, `newest` merges lists, `operational_events` writes operational events, `fifo` is the order of
//! deliveries, `id_times` the times of ids, `limited_attempts` what counts towards rate limits, `hold_row` whether all
//! deliveries wait.
//!
//! `open` opens the store (`connection`, `migrate`, `minimum`, `peer`), `export` reads it for its move to PostgreSQL,
//! `inspect` looks at it without a change. `backup` copies the file, `restore` puts a copy in its place, and `check`
//! looks through it. `faults` has unit tests.

mod admin;
mod audit;
mod backlog;
mod backup;
mod cache_rows;
mod calls;
mod catalog_rows;
mod check;
mod checkpoint;
mod columns;
mod connection;
mod counts;
mod delivery_index;
mod dispatch;
mod endpoints;
pub(super) mod export;
#[cfg(test)]
mod faults;
mod fifo;
mod group_commit;
mod hold;
mod hold_row;
mod id_times;
mod inspect;
mod intake;
mod leases;
mod limited_attempts;
mod log;
mod maintain;
mod memberships;
mod migrate;
mod minimum;
mod newest;
mod open;
mod operational_events;
mod peer;
mod portal;
mod queue;
mod readers;
mod replay;
mod restore;
mod search;
mod store;
mod tx;
mod users;
mod writer;
mod writer_cache;

pub use backup::back_up;
pub use check::check;
pub use inspect::inspect;
pub use restore::restore;
pub use store::Store;
