//! What the rest of the program may ask of a store: one trait for each role of a caller.
//!
//! A method is declared once, here, and its promise is written here, once. `sqlite::Store` and `postgres::Store`
//! implement the traits. `role!` makes the trait and its implementation for [`AnyStore`] from one declaration, so that
//! a method that a store lacks does not compile. `tests/it/` holds both stores to the promises.

/// Declares a role: a trait, and its implementation for [`AnyStore`], which forwards to the store that is open.
///
/// On PostgreSQL a call is refused where the database requires a later program, and it ends after a bounded time
/// ([`Remote`]). A declaration makes exceptions: with `#[postgres(unchecked)]` an outdated program may call the method,
/// with `#[postgres(unbounded)]` the method bounds its time itself, or may take as long as it needs. A method that is
/// not `async` asks no database and is forwarded as it is.
macro_rules! role {
    ($(#[doc = $doc:literal])* pub trait $Role:ident $(: $Super:ident)? { $($methods:tt)* }) => {
        $(#[doc = $doc])*
        pub trait $Role: $($Super +)? Clone + Send + Sync + 'static {
            declare! { $($methods)* }
        }

        impl<S: $Role, P: $Role + $crate::store::contract::Remote> $Role for $crate::store::contract::AnyStore<S, P> {
            forward! { $($methods)* }
        }
    };
}

/// The methods of a role's trait.
macro_rules! declare {
    () => {};
    (
        $(#[doc = $doc:literal])*
        $(#[postgres($($exception:ident),+)])?
        async fn $name:ident(&self $(, $argument:ident: $type:ty)* $(,)?) -> $output:ty;
        $($rest:tt)*
    ) => {
        $(#[doc = $doc])*
        fn $name(&self $(, $argument: $type)*) -> impl Future<Output = $output> + Send;
        declare! { $($rest)* }
    };
    (
        $(#[doc = $doc:literal])*
        fn $name:ident(&self $(, $argument:ident: $type:ty)* $(,)?) -> $output:ty;
        $($rest:tt)*
    ) => {
        $(#[doc = $doc])*
        fn $name(&self $(, $argument: $type)*) -> $output;
        declare! { $($rest)* }
    };
}

/// The methods of a role's implementation for [`AnyStore`].
macro_rules! forward {
    () => {};
    (
        $(#[doc = $doc:literal])*
        $(#[postgres($($exception:ident),+)])?
        async fn $name:ident(&self $(, $argument:ident: $type:ty)* $(,)?) -> $output:ty;
        $($rest:tt)*
    ) => {
        async fn $name(&self $(, $argument: $type)*) -> $output {
            match self {
                Self::Sqlite(store) => store.$name($($argument),*).await,
                Self::Postgres(store) => {
                    on_postgres!(($($($exception),+)?) P, store, store.$name($($argument),*))
                }
            }
        }
        forward! { $($rest)* }
    };
    (
        $(#[doc = $doc:literal])*
        fn $name:ident(&self $(, $argument:ident: $type:ty)* $(,)?) -> $output:ty;
        $($rest:tt)*
    ) => {
        fn $name(&self $(, $argument: $type)*) -> $output {
            match self {
                Self::Sqlite(store) => store.$name($($argument),*),
                Self::Postgres(store) => store.$name($($argument),*),
            }
        }
        forward! { $($rest)* }
    };
}

/// A call of the store on PostgreSQL, with the exceptions of its declaration.
macro_rules! on_postgres {
    (() $Remote:ident, $store:ident, $call:expr) => {
        match $store.check_admitted() {
            Ok(()) => $Remote::in_time($call).await,
            Err(error) => Err(error),
        }
    };
    ((unchecked) $Remote:ident, $store:ident, $call:expr) => {
        $Remote::in_time($call).await
    };
    ((unbounded) $Remote:ident, $store:ident, $call:expr) => {
        match $store.check_admitted() {
            Ok(()) => $call.await,
            Err(error) => Err(error),
        }
    };
    ((unchecked, unbounded) $Remote:ident, $store:ident, $call:expr) => {
        $call.await
    };
}

mod any_store;
mod calls;
mod catalog;
mod dispatch;
mod holds;
mod housekeeping;
mod intake;
mod log;
mod people;
mod replays;
mod state;

pub use any_store::{AnyStore, Remote};
pub use calls::Calls;
pub use catalog::{Accounts, Catalog, Endpoints};
pub use dispatch::Dispatch;
pub use holds::Holds;
pub use housekeeping::Housekeeping;
pub use intake::Intake;
pub use log::{AuditLog, Log, Search, Statistics};
pub use people::{Memberships, PortalLinks, SignIn, Users};
pub use replays::{ReplayWork, Replays};
pub use state::{Figures, Health, Lifecycle, Snapshot};
