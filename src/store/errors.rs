//! Why the store did not do what it was asked.

use crate::domain::credentials::CredentialFault;
use crate::domain::id::ReplayId;
use crate::heavy::HeavyError;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// No such row, or not this account's.
    #[error("not found")]
    NotFound,
    /// A row with this name exists.
    #[error("already exists")]
    Exists,
    /// Another endpoint of the account, or another account, has this external id.
    #[error("the external id is taken")]
    ExternalIdTaken,
    /// The endpoint has this secret already.
    #[error("the endpoint has this secret already")]
    SecretUnchanged,
    /// The endpoint's headers or credentials cannot be changed so.
    #[error("its headers or credentials cannot be changed so")]
    CredentialsRefused(Vec<CredentialFault>),
    /// The catalog does not have this event type.
    #[error("unknown event type {0}")]
    UnknownType(String),
    /// A reply is stored under this idempotency key already.
    #[error("the idempotency key is taken")]
    KeyTaken,
    /// The account has as many endpoints as it may have.
    #[error("the limit of {0} endpoints is reached")]
    LimitReached(u32),
    /// The account has as many API keys as it may have.
    #[error("the limit of {0} API keys is reached")]
    KeyLimitReached(u32),
    /// The caller may not do all that the row allows, and so may not take it away.
    #[error("it allows more than its caller may do")]
    AllowsMore,
    /// The endpoint or its account has as many unfinished replays as it may have: these.
    #[error("the limit of {} replays is reached", .0.len())]
    TooManyReplays(Vec<ReplayId>),
    /// Somebody with the same address has joined meanwhile: the password must be hashed like theirs.
    #[error("the password is hashed unlike others of its address")]
    OtherRecipe,
    /// The delivery has an attempt still to come.
    #[error("the delivery is under way")]
    UnderWay,
    /// The account would have no owner left.
    #[error("the account would have no owner left")]
    LastOwner,
    /// What it would send is no longer kept.
    #[error("the body is no longer kept")]
    PayloadGone,
    /// The database did not answer in time, is full, locked or shutting down. Trying again may help.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A search was ended because it read for longer than [`SEARCH_TIMEOUT`](crate::store::SEARCH_TIMEOUT). A narrower
    /// one may help.
    #[error("the search took too long")]
    TooSlow,
    /// Too many reads wait for a connection, or this one has waited for too long. Fewer at a time may help.
    #[error("too many reads are waiting")]
    Busy,
    /// Too many checks against filters of the account's endpoints are under way, or its filters change again and again
    /// while they are made.
    #[error("too many slow checks against filters of this account")]
    FiltersBusy,
    /// Nodes of an older program would ignore what is to be written. They have been told to stop: trying again may
    /// help.
    #[error("nodes of an older program would ignore it")]
    OlderNodes,
    /// The database requires a later program than this one.
    #[error(
        "the database requires a program that knows version {minimum} of it, and this program knows versions up to \
         {own}: run a newer aldaba"
    )]
    Outdated {
        /// The last version that this program knows.
        own: i64,
        /// The version that a program must know.
        minimum: i64,
    },
    /// A row holds what this program cannot have written.
    #[error("corrupt database: {0}")]
    Corrupt(String),
}

impl From<HeavyError> for StoreError {
    fn from(error: HeavyError) -> Self {
        match error {
            HeavyError::Busy => Self::FiltersBusy,
            HeavyError::Interrupted => Self::Unavailable("a check was interrupted".into()),
        }
    }
}

/// Why a database cannot be opened: for the person who starts the program.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);
