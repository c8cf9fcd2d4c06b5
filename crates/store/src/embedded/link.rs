//! A connection that heals, to a file that must stay the one that was opened.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, ffi};

use super::schema::{FORMAT, Role, connect};

/// The file that was opened. `SQLite` goes on writing to a file that was moved or deleted under it, and all of
/// it would be gone at the next start; and a new connection would take the log for that of the new file.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    identity: (u64, u64),
}

impl Watched {
    /// The file that is at `path` now.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it still is; if not, in words for an operator.
    pub(super) fn check(&self) -> Result<(), String> {
        let path = self.path.display();
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Ok(_) => Err(format!("{path} was replaced while in use: restart to open the new file")),
            Err(why) => {
                Err(format!("{path} is gone ({why}): put it back, or restart to begin with an empty store"))
            }
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = path.metadata()?;
    Ok((file.dev(), file.ino()))
}

/// A connection that is opened again after it broke.
#[derive(Debug)]
pub(super) struct Link {
    file: Arc<Watched>,
    role: Role,
    connection: Option<Connection>,
}

impl Link {
    /// Not open yet.
    pub(super) fn new(file: Arc<Watched>, role: Role) -> Self {
        Self { file, role, connection: None }
    }

    /// Open already.
    pub(super) fn with(file: Arc<Watched>, role: Role, connection: Connection) -> Self {
        Self { file, role, connection: Some(connection) }
    }

    /// The connection, opened if there is none. Looks at the file each time: a claim in a file that nobody will
    /// find again is no claim, and the look costs a microsecond.
    pub(super) fn connection(&mut self) -> rusqlite::Result<&Connection> {
        self.file.check().map_err(not_ours)?;
        if self.connection.is_none() {
            let fresh = connect(self.file.path(), self.role)?;
            let format: u32 = fresh.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if format != FORMAT {
                return Err(not_ours(format!("the store now has format {format}: restart")));
            }
            self.connection = Some(fresh);
        }
        self.connection.as_ref().ok_or_else(|| not_ours("the store is not open".to_owned()))
    }

    /// Lets go of the connection, so that the next call tries a new one.
    pub(super) fn reset(&mut self) {
        self.connection = None;
    }
}

fn not_ours(why: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(why))
}
