//! The one thread that writes: it commits many callers' work in one transaction, then answers them all.
//!
//! Owns group commit. There is no artificial delay: whatever arrived while the last commit was on its way to the
//! disk makes up the next one. No answer leaves before its commit has returned.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tempalias_alias::Owner;
use tokio::sync::mpsc::Receiver;

use super::damage::Damage;
use super::link::Link;
use super::schema::is_suspicious;
use super::work::{Context, FaultLog, Work, control, failed};
use crate::Clock;

/// The most calls in one commit: beyond this a bigger commit saves little and makes everyone in it wait.
const GROUP: usize = 256;
/// The most patient calls that wait for a commit of somebody else's.
const PATIENT: usize = 1024;

/// Counters of the writer, for metrics and for the proof that commits are grouped.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) calls: AtomicU64,
}

/// Everything that the writer thread owns. The fields are dropped in their order: the lock goes last.
pub(super) struct Writer {
    pub(super) link: Link,
    pub(super) owner: Owner,
    pub(super) clock: Clock,
    pub(super) counters: Arc<Counters>,
    pub(super) damage: Arc<Damage>,
    pub(super) readers: Vec<JoinHandle<()>>,
    pub(super) _lock: File,
}

impl Writer {
    /// Works until every sender is gone. `closed` is told, by being dropped, when the file is free again.
    pub(super) fn serve(mut self, mut calls: Receiver<Box<dyn Work>>, closed: SyncSender<()>) {
        let mut arrived = Vec::new();
        let mut waiting: Vec<Box<dyn Work>> = Vec::new();
        let mut log = FaultLog::new("writes");
        while calls.blocking_recv_many(&mut arrived, GROUP) > 0 {
            waiting.extend(arrived.drain(..).filter(|work| work.is_wanted()));
            if waiting.len() < PATIENT && waiting.iter().all(|work| work.is_patient()) {
                continue;
            }
            let result = self.commit(std::mem::take(&mut waiting));
            log.note(result);
        }
        if !waiting.is_empty() {
            log.note(self.commit(waiting));
        }
        // The readers go first: the last connection to close folds the log into the database, and only the
        // writer may. A reader that panicked has nothing to say here.
        for reader in self.readers.drain(..) {
            drop(reader.join());
        }
        self.link.reset();
        drop(self);
        drop(closed);
    }

    /// One transaction for all of `batch`, then the answers.
    fn commit(&mut self, mut batch: Vec<Box<dyn Work>>) -> rusqlite::Result<()> {
        let (owner, now) = (self.owner, (self.clock)());
        let outcomes = self.link.connection().and_then(|connection| {
            let changes = connection.total_changes();
            let outcomes = transact(&Context { connection, now, owner, damage: &self.damage }, &mut batch)?;
            if connection.total_changes() != changes {
                self.counters.commits.fetch_add(1, Ordering::Relaxed);
            }
            for work in &mut batch {
                work.after_commit(connection);
            }
            Ok(outcomes)
        });
        self.counters.calls.fetch_add(u64::try_from(batch.len()).unwrap_or_default(), Ordering::Relaxed);
        match outcomes {
            Ok(outcomes) => {
                let mut fault = None;
                for (work, outcome) in batch.into_iter().zip(outcomes) {
                    work.answer(outcome.as_ref().map_err(failed).copied());
                    if let Err(error) = outcome {
                        self.damage.note(&error);
                        fault = Some(error).filter(is_suspicious).or(fault);
                    }
                }
                fault.map_or(Ok(()), |error| {
                    self.link.reset();
                    Err(error)
                })
            }
            Err(error) => {
                let why = failed(&error);
                if is_suspicious(&error) {
                    self.link.reset();
                }
                for work in batch {
                    work.answer(Err(why.clone()));
                }
                self.damage.note(&error);
                Err(error)
            }
        }
    }
}

/// What became of each piece of work in a transaction that was committed.
type Outcomes = Vec<rusqlite::Result<()>>;

/// Runs and commits `batch`. A piece of work that fails is undone alone; on any other error nothing was done.
fn transact(at: &Context<'_>, batch: &mut [Box<dyn Work>]) -> rusqlite::Result<Outcomes> {
    control(at.connection, "BEGIN IMMEDIATE")?;
    let outcome = run_each(at, batch).and_then(|outcomes| {
        control(at.connection, "COMMIT")?;
        Ok(outcomes)
    });
    if outcome.is_err() && !at.connection.is_autocommit() {
        // Whatever this says, the error that led here is the one to report.
        drop(control(at.connection, "ROLLBACK"));
    }
    outcome
}

fn run_each(at: &Context<'_>, batch: &mut [Box<dyn Work>]) -> rusqlite::Result<Outcomes> {
    let mut outcomes = Vec::with_capacity(batch.len());
    for work in batch {
        control(at.connection, "SAVEPOINT work")?;
        let outcome = work.run(at);
        if let Err(error) = outcome {
            // A full disk or an I/O error makes SQLite undo the whole transaction, not just this statement.
            if at.connection.is_autocommit() {
                return Err(error);
            }
            undo(at.connection)?;
            outcomes.push(Err(error));
        } else {
            control(at.connection, "RELEASE work")?;
            outcomes.push(Ok(()));
        }
    }
    Ok(outcomes)
}

fn undo(connection: &Connection) -> rusqlite::Result<()> {
    control(connection, "ROLLBACK TO work")?;
    control(connection, "RELEASE work")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use tempalias_alias::UnixTime;

    use crate::StoreError;

    use super::super::link::Watched;
    use super::super::schema::{Role, connect};
    use super::*;

    type Told = Arc<Mutex<Vec<Result<(), StoreError>>>>;

    /// Runs some SQL and notes what it is told.
    struct Sql(&'static str, Told);

    impl Work for Sql {
        fn is_wanted(&self) -> bool {
            true
        }

        fn run(&mut self, at: &Context<'_>) -> rusqlite::Result<()> {
            at.connection.execute_batch(self.0)
        }

        fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
            self.1.lock().unwrap().push(outcome);
        }
    }

    fn writer(folder: &Path) -> Writer {
        let path = folder.join("test.db");
        let lock = File::create(&path).unwrap();
        let connection = connect(&path, Role::Writer).unwrap();
        let tables =
            "PRAGMA journal_mode = WAL; PRAGMA user_version = 2; CREATE TABLE t (x INTEGER PRIMARY KEY);
            CREATE TABLE big (x BLOB);
            CREATE TABLE child (x REFERENCES t DEFERRABLE INITIALLY DEFERRED); PRAGMA foreign_keys = ON;";
        connection.execute_batch(tables).unwrap();
        Writer {
            link: Link::with(Arc::new(Watched::new(&path).unwrap()), Role::Writer, connection),
            owner: Owner { node: 0, boot: 1 },
            clock: Arc::new(|| UnixTime::from_secs(1)),
            counters: Arc::default(),
            damage: Arc::default(),
            readers: Vec::new(),
            _lock: lock,
        }
    }

    /// Commits one batch; what each call was told, and the rows that stand afterwards.
    fn commit(writer: &mut Writer, batch: &[&'static str]) -> (Vec<Result<(), StoreError>>, i64) {
        let told = Told::default();
        let works = batch.iter().map(|sql| Box::new(Sql(sql, Arc::clone(&told))) as Box<dyn Work>).collect();
        drop(writer.commit(works));
        let connection = writer.link.connection().unwrap();
        let rows = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        (Arc::into_inner(told).unwrap().into_inner().unwrap(), rows)
    }

    #[test]
    fn a_call_that_fails_is_undone_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        let half_done = "INSERT INTO t VALUES (2); INSERT INTO t VALUES (1)";
        let (told, rows) =
            commit(&mut writer, &["INSERT INTO t VALUES (1)", half_done, "INSERT INTO t VALUES (3)"]);
        assert!(told[0].is_ok() && matches!(told[1], Err(StoreError::Failed(_))) && told[2].is_ok());
        assert_eq!(rows, 2);
    }

    #[test]
    fn a_commit_that_fails_fails_everybody_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        let (told, rows) =
            commit(&mut writer, &["INSERT INTO t VALUES (1)", "INSERT INTO child VALUES (99)"]);
        assert!(told.iter().all(Result::is_err), "{told:?}");
        assert_eq!((told.len(), rows), (2, 0));
        assert_eq!(writer.counters.commits.load(Ordering::Relaxed), 0);
        let (told, rows) = commit(&mut writer, &["INSERT INTO t VALUES (1)"]);
        assert_eq!((told, rows), (vec![Ok(())], 1));
    }

    #[test]
    fn a_transaction_that_sqlite_ends_fails_everybody_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        let ends = "ROLLBACK; SELECT no_such_column FROM t";
        let (told, rows) =
            commit(&mut writer, &["INSERT INTO t VALUES (1)", ends, "INSERT INTO t VALUES (2)"]);
        assert!(told.iter().all(Result::is_err), "{told:?}");
        assert_eq!((told.len(), rows), (3, 0));
    }

    #[test]
    fn a_full_disk_fails_the_call_and_heals() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        // A limit of this connection stands for a disk that is full until the connection is made anew.
        writer.link.connection().unwrap().execute_batch("PRAGMA max_page_count = 8").unwrap();
        let (told, _) = commit(&mut writer, &["INSERT INTO big VALUES (zeroblob(100000))"]);
        assert!(matches!(&told[..], [Err(StoreError::Away(why))] if why.contains("full")), "{told:?}");
        let (told, rows) =
            commit(&mut writer, &["INSERT INTO big VALUES (zeroblob(100000))", "INSERT INTO t VALUES (1)"]);
        assert_eq!((told, rows), (vec![Ok(()), Ok(())], 1));
    }
}
