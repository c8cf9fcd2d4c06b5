//! A connection that heals, to a file that must stay the one that was opened.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ffi};

use super::schema::{FORMAT, Role, connect, empty_log};
use super::work::control;

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
            if self.role == Role::Writer {
                begin_anew(&fresh, self.file.path())?;
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

/// Brings all that the log shows to the disk, and begins a new log. For a connection that others have left behind:
/// ours after an error, or those of a run that ended by a crash.
///
/// After a failed sync the kernel takes the pages for written. They can be read, and are gone after a power cut, and
/// with them all that is appended behind them: so what is read here is written once more. And a transaction whose
/// sync failed may come back to life when the log is read anew: it does so now, before its caller gives back what it
/// asked for, or never.
pub(super) fn begin_anew(writer: &Connection, path: &Path) -> rusqlite::Result<()> {
    // Nobody writes to the log meanwhile; who reads it sees the same octets as before.
    control(writer, "BEGIN IMMEDIATE")?;
    let rewritten = rewrite(&log_of(path));
    control(writer, "ROLLBACK")?;
    rewritten.map_err(|why| failure(ffi::SQLITE_IOERR, format!("the log cannot be written anew ({why})")))?;
    if !empty_log(writer)? {
        let why = "another program reads the store, and a new log must be begun first";
        return Err(failure(ffi::SQLITE_BUSY, why.to_owned()));
    }
    // Until now the end of this connection must leave the log as it is.
    writer.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map(drop)
}

fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Writes a file over itself. Its lock is nowhere on this file, so opening it here gives up none.
fn rewrite(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let (mut part, mut at) = (vec![0; 1 << 20], 0);
    loop {
        let count = file.read_at(&mut part, at)?;
        let Some(read) = part.get(..count).filter(|read| !read.is_empty()) else { break };
        file.write_all_at(read, at)?;
        at += u64::try_from(count).unwrap_or_default();
    }
    file.sync_all()
}

fn failure(code: std::ffi::c_int, why: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(why))
}

fn not_ours(why: String) -> rusqlite::Error {
    failure(ffi::SQLITE_CANTOPEN, why)
}
