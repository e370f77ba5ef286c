//! The rules of a route: its bucket, its permission and whose keys it takes. `pipeline` checks them.

use super::limits::Bucket;
use crate::domain::permission::Permission;

/// Which keys a route is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyScope {
    /// An account's own resources.
    Account,
    /// What the operator manages.
    Operator,
    /// Both; the handler looks at whose key it is.
    Both,
}

/// What is checked before a handler runs.
#[derive(Clone, Copy, Debug)]
pub struct RouteRules {
    /// The rate limit's bucket.
    pub bucket: Bucket,
    /// The permission that the key must have.
    pub permission: Permission,
    /// Whose key it must be.
    pub keys: KeyScope,
    /// Whether the body may be as large as a batch.
    pub batch: bool,
}
