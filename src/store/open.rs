//! Which database: read from its URL.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub use super::postgres_url::PostgresUrl;

/// Which database, and where.
#[derive(Clone, PartialEq)]
pub enum Database {
    /// A file of the embedded store; it is made when it is not there.
    Sqlite(PathBuf),
    /// A PostgreSQL server, which any number of nodes may share.
    Postgres(Arc<PostgresUrl>),
}

impl Database {
    /// Reads `sqlite://PATH` or `postgres://USER:PASSWORD@HOST:PORT/NAME?PARAMETERS`. The error is the reason, without
    /// any value.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite://") {
            if path.is_empty() || path.ends_with('/') {
                return Err("it names no file".into());
            }
            return Ok(Self::Sqlite(path.into()));
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err("it begins with neither sqlite:// nor postgres://".into());
        }
        PostgresUrl::parse(text).map(|url| Self::Postgres(Arc::new(url)))
    }
}

/// Without a password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => url.database().fmt(f),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
