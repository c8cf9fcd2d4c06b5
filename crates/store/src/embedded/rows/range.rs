//! Rows in ranges, as a copy takes and brings them.

use rusqlite::{OptionalExtension, params};
use tempalias_alias::{KeyId, RowKey, Sealed, State};

use super::super::kept;
use super::super::work::Context;
use super::{
    Stored, at_or_before, beginning, from_sql, insert_stored, octets, stored_page, sweep_at, to_sql, write,
};
use crate::copy::Row;

/// Comes after every key of 16 bytes.
const END: [u8; 17] = [0xff; 17];

/// The rows after `after`, whole.
pub(in super::super) fn take(
    at: &Context<'_>,
    after: Option<RowKey>,
    limit: usize,
) -> rusqlite::Result<Vec<Row>> {
    let rows = stored_page(at, after, limit)?;
    let whole = rows.into_iter().map(|(key, row, kept)| Row {
        key,
        key_id: KeyId(row.key_id),
        limits: row.limits,
        state: row.state,
        used: row.used,
        created: row.created,
        goes: row.sweep_at.filter(|_| row.state == State::Removed).map(from_sql),
        sealed: Sealed(row.sealed.into()),
        kept,
    });
    Ok(whole.collect())
}

/// Makes the range after `after`, up to `end`, hold just these rows, which must be in order. Counts them under their
/// server keys.
pub(in super::super) fn put(
    at: &Context<'_>,
    after: Option<RowKey>,
    end: Option<RowKey>,
    rows: &[Row],
) -> rusqlite::Result<()> {
    let before = match after {
        Some(after) => at_or_before(at, after)?,
        None => beginning(at)?,
    };
    clear(at, after, end)?;
    let beyond = first_beyond(at, end)?;
    for (number, row) in rows.iter().enumerate() {
        let next = rows.get(number + 1).map(|row| row.key).or(beyond);
        insert_stored(at, &of(at, row, next))?;
        for kept in &row.kept {
            kept::write(at, row.key, kept)?;
        }
        at.run(
            "INSERT INTO server_key (id, first_used, row_count) VALUES (?1, ?2, 1)
             ON CONFLICT (id) DO UPDATE SET row_count = row_count + 1, first_used = min(first_used, ?2)",
            params![row.key_id.0, to_sql(row.created)],
        )?;
    }
    at.run("DELETE FROM server_key WHERE row_count <= 0", [])?;
    write(at, &Stored { next: rows.first().map(|row| row.key).or(beyond), ..before })
}

fn first_beyond(at: &Context<'_>, end: Option<RowKey>) -> rusqlite::Result<Option<RowKey>> {
    let Some(end) = end else { return Ok(None) };
    let mut first = at
        .connection
        .prepare_cached("SELECT row_key FROM alias WHERE row_key > ?1 ORDER BY row_key LIMIT 1")?;
    first.query_row([end.0], |row| row.get(0).map(RowKey)).optional()
}

/// Deletes the rows of a range with all that hangs on them.
fn clear(at: &Context<'_>, after: Option<RowKey>, end: Option<RowKey>) -> rusqlite::Result<()> {
    let range = params![octets(after.as_ref()), end.as_ref().map_or(&END[..], |key| &key.0)];
    at.run(
        "UPDATE server_key SET row_count = row_count -
         (SELECT count(*) FROM alias WHERE row_key > ?1 AND row_key <= ?2 AND key_id = server_key.id)",
        range,
    )?;
    at.run("DELETE FROM claim WHERE row_key > ?1 AND row_key <= ?2", range)?;
    at.run("DELETE FROM alias WHERE row_key > ?1 AND row_key <= ?2", range).map(drop)
}

fn of(at: &Context<'_>, row: &Row, next: Option<RowKey>) -> Stored {
    Stored {
        key: Some(row.key),
        next,
        key_id: row.key_id.0,
        state: row.state,
        used: row.used,
        kept: u32::try_from(row.kept.len()).unwrap_or(u32::MAX),
        limits: row.limits,
        created: row.created,
        sweep_at: row.goes.map(to_sql).or_else(|| sweep_at(row.state, &row.limits, at.now)),
        sealed: row.sealed.0.to_vec(),
    }
}
