//! Aliases as rows of the database, and back. The only place that knows their columns, and the only one that writes
//! to them.
//!
//! A damaged file must never turn into the answer that an alias is unknown or over. So each row carries a checksum,
//! an alias counts its claims, and each alias names the next one in the order of keys, in a ring that begins and ends
//! at a row without a key: that a key is *not* there is shown by the row before it, which names a later one. That row
//! is where the search for the key ends anyway.

pub(super) mod range;

use std::num::NonZeroU32;

use rusqlite::{OptionalExtension, Row, ffi, params};
use tempalias_alias::{Kept, Ledger, Limits, RETENTION, RowKey, Sealed, State, UnixTime};

use super::kept;
use super::sum::Sum;
use super::work::Context;
use crate::{Found, NewRow, ROW_RETENTION};

/// The columns of `alias` that [`stored`] reads, in its order.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT row_key, next, link, key_id, state, used, kept, max_usage, valid_from, valid_until, created,
             sweep_at, sealed, sum FROM alias ",
            $rest
        )
    };
}

/// A row's place in the ring, which has a checksum of its own.
#[derive(Clone, Copy)]
struct Link {
    key: Option<RowKey>,
    next: Option<RowKey>,
}

impl Link {
    /// Whether this row and the next one leave no room for `key`.
    fn shows_absence_of(self, key: RowKey) -> rusqlite::Result<()> {
        let is_between = self.key < Some(key) && self.next.is_none_or(|next| key < next);
        if is_between {
            Ok(())
        } else {
            Err(damaged("an alias cannot be found where its neighbour says it is"))
        }
    }

    fn sum(self) -> i64 {
        Sum::new().octets(octets(self.key.as_ref())).octets(octets(self.next.as_ref())).column()
    }
}

/// A row without its kept claims.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// None: where the ring of keys begins.
    pub(super) key: Option<RowKey>,
    /// None: this is the last key.
    pub(super) next: Option<RowKey>,
    pub(super) key_id: [u8; 4],
    pub(super) state: State,
    pub(super) used: u32,
    /// How many claims are kept.
    pub(super) kept: u32,
    pub(super) limits: Limits,
    created: UnixTime,
    /// From when on the sweep may take it; none: never.
    sweep_at: Option<i64>,
    pub(super) sealed: Vec<u8>,
}

/// What is said of a row that cannot be as it was written.
pub(super) fn damaged(what: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(format!("damaged: {what}")))
}

/// The row of `key` with its kept claims. Both look-ups are always made, so that their time does not tell
/// whether there is a row.
pub(super) fn find(at: &Context<'_>, key: RowKey) -> rusqlite::Result<Option<Found>> {
    let row = search(at, key)?;
    let kept = kept::of(at, key)?;
    let expected = row.as_ref().map_or(0, |row| row.kept);
    if u32::try_from(kept.len()) != Ok(expected) {
        return Err(damaged("an alias has lost or gained a claim"));
    }
    Ok(row.map(|row| found(at, key, row, kept)))
}

/// The row of `key`; none: the row before it shows that it is not there. Of that one only its place in the ring is
/// read: `SQLite` takes every column apart that a statement names, and most searches end here.
fn search(at: &Context<'_>, key: RowKey) -> rusqlite::Result<Option<Stored>> {
    let mut place = at.connection.prepare_cached(
        "SELECT row_key, next, link FROM alias WHERE row_key <= ?1 ORDER BY row_key DESC LIMIT 1",
    )?;
    let place = place.query_row([key.0], link).optional()?;
    let place = place.ok_or_else(|| damaged("the ring of keys has no beginning"))?;
    if place.key != Some(key) {
        return place.shows_absence_of(key).map(|()| None);
    }
    let row = at.connection.prepare_cached(select!("WHERE row_key = ?1"))?.query_row([key.0], stored)?;
    // In a tree whose pages are out of order, what is not greater need not be equal.
    if row.key == Some(key) {
        Ok(Some(row))
    } else {
        Err(damaged("a search for one alias has found another"))
    }
}

/// The row of `key`, or else the one whose successor shows that there is none.
fn at_or_before(at: &Context<'_>, key: RowKey) -> rusqlite::Result<Stored> {
    let row = at
        .connection
        .prepare_cached(select!("WHERE row_key <= ?1 ORDER BY row_key DESC LIMIT 1"))?
        .query_row([key.0], stored)
        .optional()?
        .ok_or_else(|| damaged("the ring of keys has no beginning"))?;
    if row.key != Some(key) {
        row.link().shows_absence_of(key)?;
    }
    Ok(row)
}

/// The row without a key.
fn beginning(at: &Context<'_>) -> rusqlite::Result<Stored> {
    let mut first = at.connection.prepare_cached(select!("WHERE row_key = x''"))?;
    first.query_row([], stored).optional()?.ok_or_else(|| damaged("the ring of keys has no beginning"))
}

/// The rows after `after`, in order, with their kept claims.
pub(super) fn page(at: &Context<'_>, after: Option<RowKey>, limit: usize) -> rusqlite::Result<Vec<Found>> {
    let rows = stored_page(at, after, limit)?;
    Ok(rows.into_iter().map(|(key, row, kept)| found(at, key, row, kept)).collect())
}

/// The same with all their columns.
fn stored_page(
    at: &Context<'_>,
    after: Option<RowKey>,
    limit: usize,
) -> rusqlite::Result<Vec<(RowKey, Stored, Vec<Kept>)>> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let mut statement =
        at.connection.prepare_cached(select!("WHERE row_key >= ?1 ORDER BY row_key LIMIT ?2"))?;
    // The row at `after` itself, which may have gone since, only says which one must come first.
    let from = after.as_ref().map_or(&[][..], |key| &key.0);
    let with_first = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut rows = statement.query_map(params![from, with_first], stored)?.peekable();
    let mut before = match rows.next_if(|row| row.as_ref().is_ok_and(|row| row.key == after)) {
        Some(row) => row?,
        None => at_or_before(at, after.ok_or_else(|| damaged("the ring of keys has no beginning"))?)?,
    };
    let mut page = Vec::new();
    for row in rows.take(limit) {
        let row = row?;
        let key = row.key.filter(|_| row.key == before.next);
        let key = key.ok_or_else(|| damaged("an alias is not where its neighbour says it is"))?;
        let kept = kept::of(at, key)?;
        if u32::try_from(kept.len()) != Ok(row.kept) {
            return Err(damaged("an alias has lost or gained a claim"));
        }
        before = row.clone();
        page.push((key, row, kept));
    }
    if page.len() < limit && before.next.is_some() {
        return Err(damaged("the ring of keys has no end"));
    }
    Ok(page)
}

/// Makes a row, behind the one whose successor it becomes. There must be none with its key.
pub(super) fn insert(at: &Context<'_>, new: &NewRow) -> rusqlite::Result<()> {
    let before = at_or_before(at, new.key)?;
    let row = Stored {
        key: Some(new.key),
        next: before.next,
        key_id: new.key_id.0,
        state: State::Active,
        used: 0,
        kept: 0,
        limits: new.limits,
        created: at.now,
        sweep_at: sweep_at(State::Active, &new.limits, at.now),
        sealed: new.sealed.0.to_vec(),
    };
    insert_stored(at, &row)?;
    write(at, &Stored { next: Some(new.key), ..before })
}

/// Makes the row that the ring of keys begins with.
pub(super) fn begin_ring(at: &Context<'_>) -> rusqlite::Result<()> {
    let limits = Limits { valid_from: None, valid_until: None, max_usage: None };
    let row = Stored {
        key: None,
        next: None,
        key_id: [0; 4],
        state: State::Removed,
        used: 0,
        kept: 0,
        limits,
        created: at.now,
        sweep_at: None,
        sealed: Vec::new(),
    };
    insert_stored(at, &row)
}

fn insert_stored(at: &Context<'_>, row: &Stored) -> rusqlite::Result<()> {
    at.run(
        "INSERT INTO alias (row_key, next, key_id, state, used, kept, max_usage, valid_from, valid_until,
                            created, sweep_at, sealed, sum, link)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            octets(row.key.as_ref()),
            octets(row.next.as_ref()),
            row.key_id,
            state_code(row.state),
            row.used,
            row.kept,
            row.limits.max_usage,
            row.limits.valid_from.map(to_sql),
            row.limits.valid_until.map(to_sql),
            to_sql(row.created),
            row.sweep_at,
            row.sealed,
            row.sum(),
            row.link().sum()
        ],
    )
    .map(drop)
}

/// Changes the row of `key`, with its checksum; what is sealed may only be wiped. None: there is no such row.
pub(super) fn edit(at: &Context<'_>, key: RowKey, change: impl FnOnce(&mut Stored)) -> rusqlite::Result<()> {
    let before = at_or_before(at, key)?;
    if before.key != Some(key) {
        return Ok(());
    }
    let mut row = before.clone();
    change(&mut row);
    row.sweep_at = match (before.state, row.state) {
        (State::Removed, _) => before.sweep_at,
        (_, state) => sweep_at(state, &row.limits, at.now),
    };
    if row.sweep_at == before.sweep_at {
        return write(at, &row);
    }
    at.run("UPDATE alias SET sweep_at = ?2 WHERE row_key = ?1", params![key.0, row.sweep_at])?;
    write(at, &row)
}

/// Writes all that may change in a row but `sweep_at`, which has an index that would be written with it.
fn write(at: &Context<'_>, row: &Stored) -> rusqlite::Result<()> {
    let written = at.run(
        "UPDATE alias SET next = ?2, state = ?3, used = ?4, kept = ?5, max_usage = ?6, valid_from = ?7,
                          valid_until = ?8, sealed = ?9, sum = ?10, link = ?11 WHERE row_key = ?1",
        params![
            octets(row.key.as_ref()),
            octets(row.next.as_ref()),
            state_code(row.state),
            row.used,
            row.kept,
            row.limits.max_usage,
            row.limits.valid_from.map(to_sql),
            row.limits.valid_until.map(to_sql),
            row.sealed,
            row.sum(),
            row.link().sum()
        ],
    )?;
    if written == 1 { Ok(()) } else { Err(damaged("an alias vanished while it was written")) }
}

/// Deletes the row of `key` if the sweep may have it now, with its claims. Gives which server key sealed it.
pub(super) fn sweep(at: &Context<'_>, key: RowKey) -> rusqlite::Result<[u8; 4]> {
    let row = at_or_before(at, key)?;
    if row.key != Some(key) || row.sweep_at.is_none_or(|from| from > to_sql(at.now)) {
        return Err(damaged("the list of what to sweep names what is not to be swept"));
    }
    let before = at
        .connection
        .prepare_cached(select!("WHERE row_key < ?1 ORDER BY row_key DESC LIMIT 1"))?
        .query_row([key.0], stored)?;
    if before.next != Some(key) {
        return Err(damaged("an alias is not where its neighbour says it is"));
    }
    at.run("DELETE FROM claim WHERE row_key = ?1", [key.0])?;
    at.run("DELETE FROM alias WHERE row_key = ?1", [key.0])?;
    write(at, &Stored { next: row.next, ..before })?;
    Ok(row.key_id)
}

/// From when on the sweep may take a row in this state with these limits; none: never.
fn sweep_at(state: State, limits: &Limits, now: UnixTime) -> Option<i64> {
    let time = match state {
        // As long as the last claim is kept: until then a retry of a delivered message is known.
        State::Removed => Some(now.plus(RETENTION)),
        State::Active | State::Paused => limits.valid_until.map(|end| end.plus(ROW_RETENTION)),
    };
    time.map(to_sql)
}

fn state_code(state: State) -> u8 {
    match state {
        State::Active => 0,
        State::Paused => 1,
        State::Removed => 2,
    }
}

/// A time as a column. The end of time is where signed milliseconds end.
pub(super) fn to_sql(time: UnixTime) -> i64 {
    i64::try_from(time.millis()).unwrap_or(i64::MAX)
}

/// A time from a column.
pub(super) fn from_sql(millis: i64) -> UnixTime {
    UnixTime::from_millis(u64::try_from(millis).unwrap_or_default())
}

/// A key as its column has it: every key comes after the empty one.
fn octets(key: Option<&RowKey>) -> &[u8] {
    key.map_or(&[], |key| &key.0)
}

fn key_of(octets: &[u8]) -> rusqlite::Result<Option<RowKey>> {
    if octets.is_empty() {
        return Ok(None);
    }
    octets.try_into().map(|key| Some(RowKey(key))).map_err(|_| damaged("a key of another length"))
}

impl Stored {
    fn link(&self) -> Link {
        Link { key: self.key, next: self.next }
    }

    /// Over all that [`Link`] does not hold, and the key.
    fn sum(&self) -> i64 {
        Sum::new()
            .octets(octets(self.key.as_ref()))
            .octets(&self.key_id)
            .word(state_code(self.state).into())
            .word(self.used.into())
            .word(self.kept.into())
            .maybe(self.limits.max_usage.map(|most| most.get().into()))
            .maybe(self.limits.valid_from.map(to_sql))
            .maybe(self.limits.valid_until.map(to_sql))
            .number(to_sql(self.created))
            .maybe(self.sweep_at)
            .octets(&self.sealed)
            .column()
    }
}

fn found(at: &Context<'_>, key: RowKey, row: Stored, kept: Vec<Kept>) -> Found {
    let Stored { state, used, limits, created, sealed, .. } = row;
    Found {
        key,
        ledger: Ledger { limits, state, used, kept },
        created,
        sealed: Sealed(sealed.into()),
        now: at.now,
    }
}

/// A column whose value cannot be read as its type says is damage too: the schema allows no such value.
pub(super) fn column<T: rusqlite::types::FromSql>(row: &Row<'_>, number: usize) -> rusqlite::Result<T> {
    row.get(number).map_err(|_| damaged("a column holds what it cannot hold"))
}

fn link(row: &Row<'_>) -> rusqlite::Result<Link> {
    let blob =
        |number| row.get_ref(number).and_then(|value| Ok(value.as_blob()?)).map_err(|_| damaged("no key"));
    let link = Link { key: key_of(blob(0)?)?, next: key_of(blob(1)?)? };
    if link.sum() == column::<i64>(row, 2)? {
        Ok(link)
    } else {
        Err(damaged("the ring of keys is not as it was written"))
    }
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let Link { key, next } = link(row)?;
    let state = match column(row, 4)? {
        0 => State::Active,
        1 => State::Paused,
        2_u8 => State::Removed,
        _ => return Err(damaged("an alias has no such state")),
    };
    let stored = Stored {
        key,
        next,
        key_id: column(row, 3)?,
        state,
        used: column(row, 5)?,
        kept: column(row, 6)?,
        limits: Limits {
            max_usage: column::<Option<NonZeroU32>>(row, 7)?,
            valid_from: column::<Option<i64>>(row, 8)?.map(from_sql),
            valid_until: column::<Option<i64>>(row, 9)?.map(from_sql),
        },
        created: from_sql(column(row, 10)?),
        sweep_at: column(row, 11)?,
        sealed: column(row, 12)?,
    };
    if stored.sum() == column::<i64>(row, 13)? {
        Ok(stored)
    } else {
        Err(damaged("an alias is not as it was written"))
    }
}
