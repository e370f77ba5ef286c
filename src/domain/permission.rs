//! What an API key may do.

use std::fmt;

macro_rules! permissions {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// One right, written `resource:action`; `*` is all of them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Permission {
            $(#[doc = concat!("`", $name, "`")] $variant),*
        }

        impl Permission {
            /// Every permission, in the order of the reference.
            pub const ALL: &'static [Permission] = &[$(Permission::$variant),*];

            /// The name, as the API writes it.
            pub fn name(self) -> &'static str {
                match self { $(Permission::$variant => $name),* }
            }
        }
    };
}

permissions! {
    WebhooksRead = "webhooks:read",
    WebhooksCreate = "webhooks:create",
    WebhooksUpdate = "webhooks:update",
    WebhooksDelete = "webhooks:delete",
    EventsCreate = "events:create",
    EventsRead = "events:read",
    EventTypesRead = "event_types:read",
    EventTypesWrite = "event_types:write",
    AccountsRead = "accounts:read",
    AccountsWrite = "accounts:write",
    ApiKeysRead = "api_keys:read",
    ApiKeysWrite = "api_keys:write",
    AuditRead = "audit:read",
    UsersRead = "users:read",
    UsersWrite = "users:write",
    PortalLinksCreate = "portal_links:create",
    PortalLinksRead = "portal_links:read",
    PortalLinksDelete = "portal_links:delete",
    All = "*",
}

impl Permission {
    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|permission| permission.name() == name)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Permissions(u32);

impl Permissions {
    /// The set that holds everything.
    pub fn all() -> Self {
        [Permission::All].into_iter().collect()
    }

    /// Whether the set allows `permission`.
    pub fn allows(self, permission: Permission) -> bool {
        self.has(permission) || self.has(Permission::All)
    }

    /// Whether everything that `other` allows is allowed here too: a key may not make a stronger one.
    pub fn covers(self, other: Permissions) -> bool {
        self.has(Permission::All) || other.0 & !self.0 == 0
    }

    /// Whether whoever has them lets others in: by users, or by more keys.
    pub fn let_others_in(self) -> bool {
        [Permission::ApiKeysWrite, Permission::UsersWrite].into_iter().any(|permission| self.allows(permission))
    }

    /// Whether nothing is allowed.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names in the set, in the order of [`Permission::ALL`].
    pub fn names(self) -> Vec<&'static str> {
        Permission::ALL.iter().filter(|p| self.has(**p)).map(|p| p.name()).collect()
    }

    /// Names separated by spaces, as a database column keeps them.
    pub fn to_column(self) -> String {
        self.names().join(" ")
    }

    /// Reads what [`Permissions::to_column`] wrote. A name that only a newer server knows allows nothing here.
    pub fn from_column(column: &str) -> Self {
        column.split_whitespace().filter_map(Permission::parse).collect()
    }

    /// Whether this very permission is in the set; `*` is one of its own.
    pub fn has(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u32) != 0
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(iter: I) -> Self {
        Self(iter.into_iter().fold(0, |bits, permission| bits | 1 << permission as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_allows_everything_and_covers_every_set() {
        for permission in Permission::ALL {
            assert!(Permissions::all().allows(*permission));
            assert!(Permissions::all().covers([*permission].into_iter().collect()));
            assert_eq!(Permission::parse(permission.name()), Some(*permission));
        }
    }

    #[test]
    fn a_set_allows_only_what_it_holds() {
        let set: Permissions = [Permission::EventsCreate].into_iter().collect();
        assert!(set.allows(Permission::EventsCreate));
        assert!(!set.allows(Permission::EventsRead));
        assert!(!set.covers(Permissions::all()));
        assert_eq!(Permissions::from_column(&set.to_column()), set);
        assert_eq!(Permissions::from_column("events:steal"), Permissions::default());
    }

    #[test]
    fn others_are_let_in_by_whoever_makes_users_or_keys() {
        for permission in Permission::ALL {
            let lets_in = matches!(permission, Permission::ApiKeysWrite | Permission::UsersWrite | Permission::All);
            let set: Permissions = [*permission].into_iter().collect();
            assert_eq!(set.let_others_in(), lets_in, "{permission}");
        }
    }
}
