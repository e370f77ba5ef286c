//! The store that many nodes share: PostgreSQL.
//!
//! Any node does anything: nothing here is true only in memory. `event_writer` commits many events at a time
//! (`fan_out`, `write`), and `settle` many outcomes; `positions` is where its claims begin. `node` is this process
//! among the others, and its leases; `notifier` tells the others what is due. `change_feed` keeps the view after what
//! others change, `freshness` knows how new it is. `partitions` has the days of the history, `counters` the totals.
//!
//! The roles of the contract are implemented in `admin`, `audit`, `backlog`, `calls`, `counts`, `dispatch`,
//! `endpoints`, `hold`, `intake`, `lifecycle`, `log`, `maintain`, `memberships`, `portal`, `replay`, `search`,
//! `target`, `users`, and in `store`, which has the handle. What several of them use is in files below them: `sql` runs
//! statements and reads columns, `catalog_rows` reads rows, `bodies` reads bodies of events, `stored_replies` stores
//! replies, `operational_events` writes operational events, `fifo` is the order of deliveries, `limited_attempts` what
//! counts towards rate limits, `hold_row` whether all deliveries wait.
//!
//! `open` starts it all: `connect` makes connections, `require` and `privileges` refuse a database that cannot be used,
//! `migrate` runs the migrations, each by its `migration_steps`. `reads` shares the connections among accounts.
//! `import` moves data from SQLite, `inspect` looks at a database without a change, and `check` looks through one.

mod admin;
mod audit;
mod backlog;
mod bodies;
mod calls;
mod cancellation;
mod catalog_rows;
mod change_feed;
mod check;
mod connect;
mod counters;
mod counts;
mod dispatch;
mod endpoint_memory;
mod endpoints;
mod event_writer;
mod fan_out;
mod fifo;
mod freshness;
mod hold;
mod hold_row;
mod ids;
mod import;
mod inspect;
mod intake;
mod lease;
mod lifecycle;
mod limited_attempts;
mod log;
mod maintain;
mod memberships;
mod migrate;
mod migration_steps;
mod node;
mod notifier;
mod open;
mod operational_events;
mod partitions;
mod portal;
mod positions;
mod privileges;
mod reads;
mod replay;
mod require;
mod search;
mod settle;
mod sql;
mod store;
mod stored_replies;
mod target;
mod time_limit;
mod users;
mod write;

pub use check::check;
pub use inspect::inspect;
pub use store::Store;
