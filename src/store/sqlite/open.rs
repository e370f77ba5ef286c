//! Opening the store on a file.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::connection::{make_files_private, writer_connection};
use super::migrate::{lock_to_migrate, migrate};
use super::readers::Readers;
use super::store::Store;
use super::{admin, export, peer, writer};
use crate::domain::audit::Origin;
use crate::store::errors::OpenError;
use crate::store::shared::Shared;
use crate::store::values::OpenOptions;
use crate::store::view::View;

impl Store {
    /// Opens the file, brings it to this program's version and starts the writer.
    ///
    /// With an inbox this process delivers: it takes the file's lock and voids the leases of whoever came before.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, OpenError> {
        let connection = |path: &Path| {
            writer_connection(path).map_err(|e| OpenError(format!("cannot open the database {}: {e}", path.display())))
        };
        Self::open_on(connection, path, options)
    }

    /// The same with a writer's connection that somebody else makes, once the file's lock is taken.
    pub(super) fn open_on(
        connect: impl FnOnce(&Path) -> Result<Connection, OpenError>,
        path: &Path,
        options: OpenOptions,
    ) -> Result<Self, OpenError> {
        let shown = path.display().to_string();
        let failed =
            |what: &str, error: &dyn std::fmt::Display| OpenError(format!("{what} the database {shown}: {error}"));
        make_files_private(path).map_err(|e| failed("cannot open", &e))?;
        let lock = options.inbox.as_ref().map(|_| peer::take_lock(path)).transpose()?;
        let mut connection = connect(path)?;
        let alone = if lock.is_none() { lock_to_migrate(&connection, path)? } else { None };
        migrate(&mut connection, &*options.clock)?;
        drop(alone);
        export::check_not_moved(&connection)?;
        let keyring = options.keys.load(&*options.random)?;
        admin::check_master_keys(&connection, &keyring)?;
        let lease = match options.inbox {
            Some(_) => {
                super::leases::void_leases(&connection, options.clock.now()).map_err(|e| failed("cannot use", &e))?
            }
            None => 0,
        };
        let shared = Arc::new(Shared::new(options, keyring));
        let view = View::default();
        let writer = writer::start(connection, path, shared.clone(), view.clone(), lease, lock)
            .map_err(|e| failed("cannot read", &e))?;
        Ok(Self { writer, readers: Readers::new(path), view, shared, origin: Origin::default() })
    }
}
