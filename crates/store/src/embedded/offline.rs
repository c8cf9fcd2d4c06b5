//! The file opened for a copy: one connection, no threads, the lock held.

use std::fmt;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};
use tempalias_alias::{ClientTag, Owner, RowKey, Sealed, UnixTime};

use super::Options;
use super::damage::Damage;
use super::link::Link;
use super::open::{self, Opened};
use super::rows::{from_sql, range, to_sql};
use super::schema::empty_log;
use super::work::{Context, control, failed};
use crate::copy::{Aside, CopyError, Cursor, Mark, Origin, Page, Row};
use crate::{Clock, Idempotent, OpenError, StoreError};

/// Rows in one page, and in one commit.
const PAGE: usize = 1000;

/// Lives in the target from the first page to the end of the comparison. As long as it is there, nobody serves the
/// file; a finished copy is a store like any other.
const LAY_OUT: &str = "CREATE TABLE copying (source TEXT NOT NULL, shown TEXT NOT NULL, after BLOB) STRICT";

/// A store in a file, for a copy.
#[derive(Clone)]
pub(crate) struct EmbeddedOffline {
    inner: Arc<Mutex<Inner>>,
    clock: Clock,
    origin: Origin,
}

struct Inner {
    link: Link,
    damage: Arc<Damage>,
    _lock: File,
}

impl fmt::Debug for EmbeddedOffline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmbeddedOffline({})", self.origin.shown)
    }
}

/// The unfinished copy that `connection` leads to, if any.
pub(super) fn unfinished(connection: &Connection) -> rusqlite::Result<Option<Mark>> {
    let is_there = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'copying'";
    if !connection.prepare(is_there)?.exists([])? {
        return Ok(None);
    }
    let mark = connection.query_row("SELECT source, shown, after FROM copying", [], |row| {
        let from = Origin { id: row.get(0)?, shown: row.get(1)? };
        Ok(Mark { from, after: row.get::<_, Option<[u8; 16]>>(2)?.map(RowKey) })
    });
    mark.optional()
}

impl EmbeddedOffline {
    /// Opens a store that is there and whole.
    pub(crate) fn source(options: &Options) -> Result<Self, CopyError> {
        // Opening makes a file where there is none.
        if !options.path.metadata().is_ok_and(|meta| meta.len() > 0) {
            return Err(CopyError::Nothing(options.path.clone()));
        }
        Ok(Self::of(options, open::open(options, 0)?)?)
    }

    /// Opens or makes a store for a copy of `from`.
    pub(crate) async fn target(options: &Options, from: &Origin) -> Result<(Self, Mark), CopyError> {
        let store = Self::of(options, open::open_half(options, 0)?)?;
        let origin = store.origin.clone();
        if origin.id == from.id {
            return Err(CopyError::Same(from.shown.clone(), origin.shown));
        }
        let begun = from.clone();
        let looked = store.with(move |at| {
            if let Some(mark) = unfinished(at.connection)? {
                return Ok((mark, 0));
            }
            let rows = count(at)?;
            if rows == 0 {
                at.connection.execute_batch(LAY_OUT)?;
                write_mark(at, &Mark::first(&begun))?;
            }
            Ok((Mark::first(&begun), rows))
        });
        let (mark, rows) =
            looked.await.map_err(|why| CopyError::Store { store: origin.shown.clone(), why })?;
        if rows > 0 {
            return Err(CopyError::NotEmpty { store: origin.shown, rows });
        }
        if mark.from.id != from.id {
            return Err(CopyError::OtherCopy { store: origin.shown, from: mark.from.shown });
        }
        Ok((store, mark))
    }

    fn of(options: &Options, opened: Opened) -> Result<Self, OpenError> {
        let Opened { file, mut writer, lock, damage, .. } = opened;
        let path = file.path().to_owned();
        let made = writer.connection().and_then(|connection| {
            connection.query_row("SELECT value FROM meta WHERE name = 'made'", [], |row| row.get::<_, i64>(0))
        });
        let made =
            made.map_err(|error| OpenError::Database { path: path.clone(), why: error.to_string() })?;
        let origin = Origin {
            id: format!("sqlite {made} {}", path.display()),
            shown: format!("sqlite:{}", path.display()),
        };
        let inner = Arc::new(Mutex::new(Inner { link: writer, damage, _lock: lock }));
        Ok(Self { inner, clock: Arc::clone(&options.clock), origin })
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn now(&self) -> UnixTime {
        (self.clock)()
    }

    /// Does it in one transaction, on a thread that may wait for the disk.
    async fn with<T: Send + 'static>(
        &self,
        todo: impl FnOnce(&Context<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (inner, now) = (Arc::clone(&self.inner), self.now());
        let done = tokio::task::spawn_blocking(move || {
            let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
            let Inner { link, damage, .. } = &mut *inner;
            link.connection().and_then(|connection| {
                // Nobody claims through this connection.
                let at = Context { connection, now, owner: Owner { node: 0, boot: 0 }, damage };
                control(connection, "BEGIN IMMEDIATE")?;
                let outcome = todo(&at).and_then(|value| control(connection, "COMMIT").map(|()| value));
                if outcome.is_err() && !connection.is_autocommit() {
                    drop(control(connection, "ROLLBACK"));
                }
                outcome
            })
        });
        done.await.map_err(|_| StoreError::Closed)?.map_err(|error| failed(&error))
    }

    pub(crate) async fn count(&self) -> Result<u64, StoreError> {
        self.with(count).await
    }

    pub(crate) async fn page(&self, after: Option<RowKey>) -> Result<Page, StoreError> {
        self.with(move |at| {
            let rows = range::take(at, after, PAGE)?;
            let end = if rows.len() < PAGE { None } else { rows.last().map(|row| row.key) };
            Ok(Page { rows, end, now: at.now })
        })
        .await
    }

    pub(crate) async fn put(
        &self,
        (after, end): (Option<RowKey>, Option<RowKey>),
        rows: Vec<Row>,
        mark: &Mark,
    ) -> Result<(), StoreError> {
        let mark = mark.clone();
        self.with(move |at| {
            range::put(at, after, end, &rows)?;
            write_mark(at, &mark)
        })
        .await
    }

    pub(crate) async fn asides(
        &self,
        from: Option<Cursor>,
    ) -> Result<(Vec<Aside>, Option<Cursor>), StoreError> {
        let Cursor { part, place } = from.unwrap_or(Cursor { part: 0, place: Vec::new() });
        self.with(move |at| {
            let asides = if part == 0 { replies(at, &place)? } else { rates(at, &place)? };
            let next = match asides.last() {
                Some(last) if asides.len() == PAGE => Some(Cursor { part, place: last.name().1.to_vec() }),
                _ if part == 0 => Some(Cursor { part: 1, place: Vec::new() }),
                _ => None,
            };
            Ok((asides.into_iter().filter(|aside| !aside.is_over(at.now)).collect(), next))
        })
        .await
    }

    pub(crate) async fn put_asides(&self, asides: Vec<Aside>) -> Result<(), StoreError> {
        self.with(move |at| asides.iter().try_for_each(|aside| put_aside(at, aside))).await
    }

    pub(crate) async fn asides_like(&self, names: Vec<Aside>) -> Result<Vec<Option<Aside>>, StoreError> {
        self.with(move |at| names.iter().map(|aside| aside_like(at, aside)).collect()).await
    }

    pub(crate) async fn mark(&self, mark: &Mark) -> Result<(), StoreError> {
        let mark = mark.clone();
        self.with(move |at| write_mark(at, &mark)).await
    }

    pub(crate) async fn finish(&self) -> Result<(), StoreError> {
        self.with(|at| at.connection.execute_batch("DROP TABLE copying")).await?;
        // So that the file alone is the store.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.link.connection().and_then(empty_log).map(drop).map_err(|error| failed(&error))
    }
}

fn write_mark(at: &Context<'_>, mark: &Mark) -> rusqlite::Result<()> {
    at.connection.execute("DELETE FROM copying", [])?;
    at.connection
        .execute(
            "INSERT INTO copying (source, shown, after) VALUES (?1, ?2, ?3)",
            params![mark.from.id, mark.from.shown, mark.after.map(|key| key.0)],
        )
        .map(drop)
}

/// By the sums that are kept anyway: asking 30 million rows would take a minute.
fn count(at: &Context<'_>) -> rusqlite::Result<u64> {
    let sum =
        at.connection.query_row("SELECT coalesce(sum(row_count), 0) FROM server_key", [], |row| row.get(0));
    sum.map(|sum: i64| u64::try_from(sum).unwrap_or_default())
}

const REPLY: &str = "SELECT name, body, reply, until FROM reply";
const RATE: &str = "SELECT tag, full_at FROM rate";

fn replies(at: &Context<'_>, after: &[u8]) -> rusqlite::Result<Vec<Aside>> {
    let sql = format!("{REPLY} WHERE name > ?1 ORDER BY name LIMIT {PAGE}");
    at.connection.prepare_cached(&sql)?.query_map([after], reply)?.collect()
}

fn rates(at: &Context<'_>, after: &[u8]) -> rusqlite::Result<Vec<Aside>> {
    let sql = format!("{RATE} WHERE tag > ?1 ORDER BY tag LIMIT {PAGE}");
    at.connection.prepare_cached(&sql)?.query_map([after], rate)?.collect()
}

fn reply(row: &SqlRow<'_>) -> rusqlite::Result<Aside> {
    let reply = Idempotent { body: ClientTag(row.get(1)?), reply: Sealed(row.get::<_, Vec<u8>>(2)?.into()) };
    Ok(Aside::Reply { name: ClientTag(row.get(0)?), reply, until: from_sql(row.get(3)?) })
}

fn rate(row: &SqlRow<'_>) -> rusqlite::Result<Aside> {
    Ok(Aside::Rate { tag: ClientTag(row.get(0)?), full_at: from_sql(row.get(1)?) })
}

fn put_aside(at: &Context<'_>, aside: &Aside) -> rusqlite::Result<()> {
    match aside {
        Aside::Reply { name, reply, until } => at.run(
            "INSERT OR REPLACE INTO reply (name, body, reply, until) VALUES (?1, ?2, ?3, ?4)",
            params![name.0, reply.body.0, reply.reply.0, to_sql(*until)],
        ),
        Aside::Rate { tag, full_at } => at.run(
            "INSERT OR REPLACE INTO rate (tag, full_at) VALUES (?1, ?2)",
            params![tag.0, to_sql(*full_at)],
        ),
    }
    .map(drop)
}

fn aside_like(at: &Context<'_>, aside: &Aside) -> rusqlite::Result<Option<Aside>> {
    let (_, name) = aside.name();
    match aside {
        Aside::Reply { .. } => {
            at.connection.prepare_cached(&format!("{REPLY} WHERE name = ?1"))?.query_row([name], reply)
        }
        Aside::Rate { .. } => {
            at.connection.prepare_cached(&format!("{RATE} WHERE tag = ?1"))?.query_row([name], rate)
        }
    }
    .optional()
}
