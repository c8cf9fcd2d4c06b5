//! Why a store cannot be opened, in words for operators.

use std::io;
use std::path::PathBuf;

use tempalias_alias::KeyId;

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of the database is not there, or not ours to enter.
    #[error("the folder {} for the store cannot be used ({why}): make it, owned by the user that tempalias \
             runs as, or set store.url to another place", folder.display())]
    Folder {
        /// Where the database should be.
        folder: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// Another process has the store open.
    #[error("{} is already in use{}: only one tempalias can serve it. Stop the other one first; if none runs, \
             see who holds {}.lock", path.display(), holder.map(|pid| format!(" by process {pid}")).unwrap_or_default(), path.display())]
    InUse {
        /// The database.
        path: PathBuf,
        /// The process that said it holds it.
        holder: Option<u32>,
    },
    /// A file could not be made, opened or locked.
    #[error("cannot open {} ({why}): it must be on a local disk and belong to the user that tempalias runs as", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The file is something else.
    #[error("{} is not a tempalias store: set store.url to another path, or move the file away. If it was one, \
             its beginning is damaged: see that the disk is sound, and put a backup in its place", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// A newer tempalias wrote it.
    #[error("{} has store format {found}, and this tempalias knows formats up to {known}: run the newer version \
             that wrote it", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// A copy into it was begun and not finished.
    #[error("{} holds an unfinished copy of {from}: run `tempalias db copy` again to finish it", path.display())]
    Copying {
        /// The database.
        path: PathBuf,
        /// What was being copied.
        from: String,
    },
    /// Rows are sealed under a server key that is not listed.
    #[error("{} holds {rows} aliases that were sealed under server key {missing}, which is not among the keys \
             given ({}): add its file to store.key_files. Starting without it would tell senders that these \
             aliases do not exist. If that key is lost for good, so are they: move the store away to start \
             with an empty one", path.display(), Ids(listed))]
    MissingKey {
        /// The database.
        path: PathBuf,
        /// The key that sealed them.
        missing: KeyId,
        /// How many rows it sealed.
        rows: u64,
        /// The keys that were given.
        listed: Vec<KeyId>,
    },
    /// `SQLite` cannot use the file: damaged, no space, a disk that fails.
    #[error("the store {} cannot be opened: {why}. With the server stopped, `sqlite3 FILE \
             'PRAGMA integrity_check'` says more; a backup can be put in its place", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What `SQLite` said.
        why: String,
    },
    /// A Redis that answers and is not what it must be, or that cannot be reached where it must be.
    #[error("the store {address} cannot be used: {why}")]
    Redis {
        /// Its address, without a password.
        address: String,
        /// What is wrong, and what to do about it.
        why: String,
    },
    /// Rows on a Redis are sealed under a server key that is not listed.
    #[error(
        "the store {address} holds aliases that were sealed under server key {missing}, which is not among the keys \
             given ({}): add its file to store.key_files. Starting without it would tell senders that these aliases do \
             not exist",
        Ids(listed)
    )]
    RedisMissingKey {
        /// Its address, without a password.
        address: String,
        /// The key that sealed them.
        missing: KeyId,
        /// The keys that were given.
        listed: Vec<KeyId>,
    },
}

struct Ids<'a>(&'a [KeyId]);

impl std::fmt::Display for Ids<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<_> = self.0.iter().map(KeyId::to_string).collect();
        f.write_str(if ids.is_empty() { "none" } else { "" })?;
        f.write_str(&ids.join(", "))
    }
}
