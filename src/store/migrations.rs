//! The migrations of both stores, from one list. Each store's `migrate` runs its own.

/// One migration of a store.
pub(super) struct Migration {
    /// Begins with the version.
    pub name: &'static str,
    pub sql: &'static str,
    /// The oldest program that may work on the database from then on; 0 where the migration changes nothing about that.
    pub minimum: i64,
}

impl Migration {
    pub fn version(&self) -> i64 {
        self.name[..4].parse().expect("a migration's name begins with its number")
    }
}

/// Makes the list of each store from names and minimum versions. The file of a migration has its name in both stores.
macro_rules! migrations {
    ($(($name:literal, $minimum:literal)),+ $(,)?) => {
        pub(super) const SQLITE_MIGRATIONS: &[Migration] = &[$(Migration {
            name: $name,
            sql: include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
            minimum: $minimum,
        }),+];

        pub(super) const POSTGRES_MIGRATIONS: &[Migration] = &[$(Migration {
            name: $name,
            sql: include_str!(concat!("../../migrations/postgres/", $name, ".sql")),
            minimum: $minimum,
        }),+];
    };
}

// Forward only.
migrations! {
    ("0001_initial", 0),
    ("0002_replay", 0),
    ("0003_log", 0),
    ("0004_people", 0),
    ("0005_leased", 0),
    ("0006_counters", 0),
    ("0007_events", 0),
    ("0008_lists", 0),
    ("0009_days", 0),
    ("0010_counts", 0),
    ("0011_compatible", 0),
    ("0012_id_offsets", 0),
    ("0014_memberships", 0),
    ("0015_portal_links", 0),
    ("0016_settings", 0),
    ("0017_node_versions", 0),
    ("0018_event_channels", 0),
    ("0019_endpoint_credentials", 0),
    ("0020_event_trace_context", 0),
    ("0021_rate_limits", 0),
    ("0022_hold", 0),
    ("0023_filter_previews", 0),
}

/// This program's own version, which is that of both lists.
pub(super) fn newest() -> i64 {
    newest_of(POSTGRES_MIGRATIONS)
}

pub(super) fn newest_of(migrations: &[Migration]) -> i64 {
    migrations.last().map_or(0, Migration::version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_in_order() {
        for migrations in [SQLITE_MIGRATIONS, POSTGRES_MIGRATIONS] {
            assert!(migrations.iter().map(Migration::version).is_sorted_by(|one, next| one < next));
        }
    }
}
