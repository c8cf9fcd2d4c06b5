//! A call on its way through a thread: what to do inside the transaction, and whom to tell afterwards.

use std::fmt;

use rusqlite::{Connection, ErrorCode, params};
use tempalias_alias::{Fingerprint, Owner, RowKey, UnixTime};
use tokio::sync::oneshot;

use super::claims;
use super::damage::{Damage, is_damage};
use super::schema::empty_log;
use crate::StoreError;

/// What a piece of work sees: a connection inside a transaction, and the one time for all of that transaction.
pub(super) struct Context<'c> {
    pub(super) connection: &'c Connection,
    pub(super) now: UnixTime,
    pub(super) owner: Owner,
    pub(super) damage: &'c Damage,
}

impl Context<'_> {
    /// Whether claims of `owner` may still be in flight. This file has one daemon at a time (the lock file sees
    /// to that), so every other boot is over.
    pub(super) fn is_alive(&self, owner: Owner) -> bool {
        owner.boot == self.owner.boot
    }

    /// Runs a statement that is kept prepared; returns how many rows it changed.
    pub(super) fn run(&self, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(values)
    }
}

/// Runs a statement without parameters, such as `BEGIN`.
pub(super) fn control(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute(params![]).map(drop)
}

/// What happens to work whose caller has gone away before it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abandoned {
    /// It is dropped: what nobody waits for need not be done, least of all when we are too slow already.
    Skip,
    /// It is done all the same: a settlement is a fact, not a wish.
    Run,
}

/// One call, its types erased, so that one transaction can carry many kinds of them.
pub(super) trait Work: Send {
    /// Whether it should still be done.
    fn is_wanted(&self) -> bool;
    /// Whether it may wait for a transaction that others pay for.
    fn is_patient(&self) -> bool {
        false
    }
    /// Does it, inside a transaction.
    fn run(&mut self, at: &Context<'_>) -> rusqlite::Result<()>;
    /// Does what no transaction can hold, once that one is committed.
    fn after_commit(&mut self, _: &Connection) {}
    /// Tells the caller, once the transaction has come to its end.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// Where the answer of a call arrives.
pub(super) type Answer<T> = oneshot::Receiver<Result<T, StoreError>>;

impl fmt::Debug for dyn Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

/// A call that somebody waits for.
struct Job<T, F> {
    todo: Option<F>,
    done: Option<T>,
    abandoned: Abandoned,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: Send, F: FnOnce(&Context<'_>) -> rusqlite::Result<T> + Send> Work for Job<T, F> {
    fn is_wanted(&self) -> bool {
        self.abandoned == Abandoned::Run || !self.reply.is_closed()
    }

    fn run(&mut self, at: &Context<'_>) -> rusqlite::Result<()> {
        if let Some(todo) = self.todo.take() {
            self.done = Some(todo(at)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { done, reply, .. } = *self;
        let answer = outcome.and_then(|()| done.ok_or(StoreError::Closed));
        // A caller that has gone has heard `Timeout` and asks again.
        drop(reply.send(answer));
    }
}

/// Packs a call; the answer comes through the receiver.
pub(super) fn job<T: Send + 'static>(
    abandoned: Abandoned,
    todo: impl FnOnce(&Context<'_>) -> rusqlite::Result<T> + Send + 'static,
) -> (Box<dyn Work>, Answer<T>) {
    let (reply, answer) = oneshot::channel();
    (Box::new(Job { todo: Some(todo), done: None, abandoned, reply }), answer)
}

/// Claims to forget. Nobody waits, so it rides with the next commit.
pub(super) struct Acknowledgement(pub(super) Vec<(RowKey, Fingerprint)>);

impl Work for Acknowledgement {
    fn is_wanted(&self) -> bool {
        true
    }

    fn is_patient(&self) -> bool {
        true
    }

    fn run(&mut self, at: &Context<'_>) -> rusqlite::Result<()> {
        self.0.iter().try_for_each(|&(row, message)| claims::acknowledge(at, row, message))
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        if let Err(why) = outcome {
            tracing::debug!(%why, "acknowledged claims stay until their retention is over");
        }
    }
}

/// Empties the log, so that nothing wiped from the database is left in it.
pub(super) struct Tidy {
    emptied: bool,
    reply: oneshot::Sender<Result<bool, StoreError>>,
}

impl Tidy {
    /// The answer tells whether the log is empty; a reader may stand in the way.
    pub(super) fn job() -> (Box<dyn Work>, Answer<bool>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { emptied: false, reply }), answer)
    }
}

impl Work for Tidy {
    fn is_wanted(&self) -> bool {
        true
    }

    fn run(&mut self, _: &Context<'_>) -> rusqlite::Result<()> {
        Ok(())
    }

    fn after_commit(&mut self, connection: &Connection) {
        self.emptied = empty_log(connection).unwrap_or(false);
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        drop(self.reply.send(outcome.map(|()| self.emptied)));
    }
}

/// What callers are told of an error of the database. Its texts name tables and columns, never values.
pub(super) fn failed(error: &rusqlite::Error) -> StoreError {
    let why = error.to_string();
    match error.sqlite_error_code() {
        // Of the whole file, whatever was asked of it; now and then a call gets through nevertheless.
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Away(why)
        }
        _ => StoreError::Failed(why),
    }
}

/// One log line when a thread's calls begin to fail and one when they work again, however many fail between.
pub(super) struct FaultLog {
    what: &'static str,
    failing: bool,
}

impl FaultLog {
    /// For a thread that `what`: reads or writes.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, failing: false }
    }

    /// Notes how the latest calls went. Damage is told of elsewhere: it hits some rows and not others.
    pub(super) fn note(&mut self, outcome: rusqlite::Result<()>) {
        let fault = outcome.err().filter(|error| !is_damage(error));
        if fault.is_some() == self.failing {
            return;
        }
        self.failing = fault.is_some();
        if let Some(why) = fault.as_ref().map(failed) {
            tracing::error!(%why, "the store no longer {}: mail is deferred", self.what);
        } else {
            tracing::info!("the store {} again", self.what);
        }
    }
}
