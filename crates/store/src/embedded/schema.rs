//! The database's layout, and how a connection to it is set up.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// Counts up when the layout changes; a newer one is refused, an older one will be migrated here. (1 was before the
/// first release.)
pub(super) const FORMAT: u32 = 2;
/// "TALI": tells our files from any other `SQLite` database.
pub(super) const APPLICATION_ID: u32 = 0x5441_4c49;

/// Every name and every tag is a keyed hash, every text is sealed. In clear stand only times, counts and states.
///
/// `WITHOUT ROWID` keeps a row in the B-tree that is searched, so that a look-up is one descent. `server_key`
/// counts the rows that each key sealed, because asking 30 million rows at every start would take a minute.
/// `sweep_at` is when a row may go: one index answers the sweep, whatever the reason. `next`, `link`, `kept` and `sum` tell a
/// damaged file from an unknown alias (`rows.rs`).
pub(super) const SCHEMA: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE server_key (
    id BLOB PRIMARY KEY, first_used INTEGER NOT NULL, row_count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE alias (
    row_key BLOB PRIMARY KEY, next BLOB NOT NULL, link INTEGER NOT NULL, key_id BLOB NOT NULL,
    state INTEGER NOT NULL, used INTEGER NOT NULL, kept INTEGER NOT NULL, max_usage INTEGER, valid_from INTEGER, valid_until INTEGER,
    created INTEGER NOT NULL, sweep_at INTEGER, sealed BLOB NOT NULL, sum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX alias_sweep ON alias (sweep_at);
CREATE TABLE claim (
    row_key BLOB NOT NULL, fingerprint BLOB NOT NULL, state INTEGER NOT NULL, node INTEGER NOT NULL,
    boot INTEGER NOT NULL, number INTEGER NOT NULL, sender BLOB NOT NULL, doubts INTEGER NOT NULL,
    clean INTEGER NOT NULL, until INTEGER NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (row_key, fingerprint)
) STRICT, WITHOUT ROWID;
CREATE INDEX claim_until ON claim (until);
CREATE TABLE reply (
    name BLOB PRIMARY KEY, body BLOB NOT NULL, reply BLOB NOT NULL, until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX reply_until ON reply (until);
CREATE TABLE rate (tag BLOB PRIMARY KEY, full_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX rate_full ON rate (full_at);
";

/// How long a connection waits for a lock of somebody else's `sqlite3`: less than a caller waits for us.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Statements of one connection that stay prepared; there are about thirty in all.
const STATEMENTS: usize = 48;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The only one that writes.
    Writer,
    /// Cannot write, whatever it is told.
    Reader,
}

/// Opens the existing file at `path`. Never makes one: a file that went missing must be an error, not an empty
/// store.
pub(super) fn connect(path: &Path, role: Role) -> rusqlite::Result<Connection> {
    let access = match role {
        Role::Writer => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Role::Reader => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Sub-journals of savepoints and sorts stay in memory: no other file may ever hold a row.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    match role {
        Role::Writer => prepare_writer(&connection)?,
        // The kernel caches the file anyway; ours saves calls for the inner pages of the B-trees.
        Role::Reader => connection.pragma_update(None, "cache_size", -1024)?,
    }
    Ok(connection)
}

fn prepare_writer(connection: &Connection) -> rusqlite::Result<()> {
    // Whatever ends this connection before it has begun a log of its own must not fold in the one it found.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "cache_size", -2048)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Inline checkpoints every 4 MiB: p99 of a commit stays at 19 ms; a background checkpointer would let the
    // log grow without bound under constant writes (both measured, docs/decisions/007).
    connection.pragma_update(None, "wal_autocheckpoint", 1000)?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    // Zeros over what is deleted, so that a removed alias is gone from the file too. Cheap here: rows are small,
    // so the page is written anyway; only the sweep's freed pages cost an extra write.
    connection.pragma_update(None, "secure_delete", "ON")
}

/// Folds the log into the database and cuts it to nothing; tells whether that worked. Somebody's `sqlite3` that
/// reads meanwhile must not hold up claims, so this waits for it much shorter than a write would.
pub(super) fn empty_log(writer: &Connection) -> rusqlite::Result<bool> {
    writer.busy_timeout(BUSY_TIMEOUT / 20)?;
    let busy = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
    writer.busy_timeout(BUSY_TIMEOUT)?;
    Ok(!busy?)
}

/// Whether an error leaves doubt about the connection itself, rather than about one statement, a passing lock or
/// another file.
pub(super) fn is_suspicious(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, ConstraintViolation, DatabaseBusy, DatabaseLocked};
    match error.sqlite_error_code() {
        Some(code) => !matches!(code, CannotOpen | ConstraintViolation | DatabaseBusy | DatabaseLocked),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        std::fs::File::create(&path).unwrap();
        let connection = connect(&path, Role::Writer).unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        (folder, connection)
    }

    #[test]
    fn the_writer_is_durable_and_wipes() {
        let (_folder, connection) = made();
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("synchronous"), 2, "FULL: a commit waits for the disk");
        assert_eq!(number("secure_delete"), 1);
        assert_eq!(number("temp_store"), 2, "memory");
        assert_eq!(number("wal_autocheckpoint"), 1000);
    }

    /// With 30 million rows a scan is an outage, so no statement may make one.
    #[test]
    fn what_runs_often_searches_and_never_scans() {
        let (_folder, connection) = made();
        let statements = [
            "SELECT used FROM alias WHERE row_key = ?1",
            "SELECT state FROM claim WHERE row_key = ?1",
            "SELECT used FROM alias WHERE row_key <= ?1 ORDER BY row_key DESC LIMIT 1",
            "SELECT used FROM alias WHERE row_key < ?1 ORDER BY row_key DESC LIMIT 1",
            crate::embedded::upkeep::OVER_ALIASES,
            crate::embedded::upkeep::OVER_CLAIMS,
            crate::embedded::upkeep::SWEEP_REPLIES,
            crate::embedded::upkeep::SWEEP_RATES,
        ];
        for sql in statements {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let count = plan.parameter_count();
            let values = rusqlite::params_from_iter(std::iter::repeat_n(1, count));
            let steps = plan.query_map(values, |row| row.get::<_, String>(3)).unwrap();
            for step in steps {
                let step = step.unwrap();
                assert!(!step.starts_with("SCAN") && !step.contains("TEMP B-TREE"), "{sql}: {step}");
            }
        }
    }
}
