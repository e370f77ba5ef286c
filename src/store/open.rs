//! Which database: read from its URL.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Which database, and where.
#[derive(Clone, PartialEq)]
pub enum Database {
    /// A file of the embedded store; it is made when it is not there.
    Sqlite(PathBuf),
    /// A PostgreSQL server, which any number of nodes may share.
    Postgres(Arc<tokio_postgres::Config>),
}

impl Database {
    /// Reads `sqlite://PATH` or `postgres://USER:PASSWORD@HOST:PORT/NAME?OPTIONS` (libpq's connection URI, section 34.1.1.2 of
    /// PostgreSQL's manual).
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("sqlite://") {
            return (!path.is_empty() && !path.ends_with('/')).then(|| Self::Sqlite(path.into()));
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return None;
        }
        let url: tokio_postgres::Config = text.parse().ok()?;
        (!url.get_hosts().is_empty() && url.get_dbname().is_some()).then(|| Self::Postgres(Arc::new(url)))
    }
}

/// Without a password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => write!(f, "{}", url.get_dbname().unwrap_or_default()),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
