//! Which programs may work on a database: its version, and the minimum version that it asks of a program.
//!
//! A program's own version is the number of the last migration that it knows. A newer database admits it as long as the
//! program is not below the database's minimum: `docs/decisions/0002-compatible-version.md`.

use super::errors::{OpenError, StoreError};

/// The versions that a database holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Versions {
    /// The number of the last migration that was run on it; 0 for a database without tables.
    pub version: i64,
    /// The oldest program that may work on it; 0 admits every program that knows the minimum.
    pub minimum: i64,
}

/// What a program has to do with a database that admits it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// Nothing: the database has this program's version or a later one.
    Current,
    /// The migrations after the database's version.
    Migrate,
}

impl Versions {
    /// What a program of the version `own` has to do; `None` where the database does not admit it.
    fn fit(self, own: i64) -> Option<Fit> {
        if own < self.minimum {
            return None;
        }
        Some(if self.version < own { Fit::Migrate } else { Fit::Current })
    }

    /// The same, or why the program cannot start.
    pub fn admit(self, own: i64) -> Result<Fit, OpenError> {
        self.fit(own).ok_or_else(|| OpenError(StoreError::Outdated { own, minimum: self.minimum }.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_admitted_from_the_minimum_on_and_migrates_what_is_older() {
        for (version, minimum, own, fit) in [
            (0, 0, 11, Some(Fit::Migrate)),
            (8, 0, 11, Some(Fit::Migrate)),
            (11, 0, 11, Some(Fit::Current)),
            (12, 0, 11, Some(Fit::Current)),
            (14, 11, 11, Some(Fit::Current)),
            (14, 12, 11, None),
            (10, 12, 11, None),
            (12, 14, 14, Some(Fit::Migrate)),
        ] {
            assert_eq!(Versions { version, minimum }.fit(own), fit, "{version} {minimum} {own}");
        }
    }
}
