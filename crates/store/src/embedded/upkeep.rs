//! Inside a transaction: rate limits, the sweep, and the probes behind `/readyz`.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use tempalias_alias::{ClientTag, Fingerprint, Rate, RowKey, UnixTime};

use super::damage::is_damage;
use super::kept;
use super::rows::{self, from_sql, to_sql};
use super::work::Context;
use crate::Swept;

/// The most rows of one kind that one step of a sweep deletes: some milliseconds of the writer's time.
pub(super) const STEP: usize = 250;

pub(super) const OVER_ALIASES: &str =
    "SELECT row_key FROM alias WHERE sweep_at <= ?1 ORDER BY sweep_at LIMIT ?2";
pub(super) const OVER_CLAIMS: &str =
    "SELECT row_key, fingerprint FROM claim WHERE until <= ?1 ORDER BY until LIMIT ?2";
pub(super) const SWEEP_REPLIES: &str =
    "DELETE FROM reply WHERE name IN (SELECT name FROM reply WHERE until <= ?1 ORDER BY until LIMIT ?2)";
pub(super) const SWEEP_RATES: &str =
    "DELETE FROM rate WHERE tag IN (SELECT tag FROM rate WHERE full_at <= ?1 ORDER BY full_at LIMIT ?2)";

/// Takes one from a bucket and writes its new state; a refusal writes nothing.
pub(super) fn take(at: &Context<'_>, tag: ClientTag, rate: Rate) -> rusqlite::Result<Result<(), Duration>> {
    match rate.take(bucket(at, tag, rate)?, at.now) {
        Ok(full_at) => {
            at.run(
                "INSERT OR REPLACE INTO rate (tag, full_at) VALUES (?1, ?2)",
                params![tag.0, to_sql(full_at)],
            )?;
            Ok(Ok(()))
        }
        Err(wait) => Ok(Err(wait)),
    }
}

/// How long to wait, as a snapshot says; none: there may be one left, ask the writer. Buckets only get emptier
/// between the snapshot and the writer, so a refusal stands.
pub(super) fn refusal(at: &Context<'_>, tag: ClientTag, rate: Rate) -> rusqlite::Result<Option<Duration>> {
    Ok(rate.take(bucket(at, tag, rate)?, at.now).err())
}

/// When the bucket will be full again; none: it is. What is later than for an empty bucket was written by a clock that
/// was ahead, and must not lock its client out now that it is right again.
fn bucket(at: &Context<'_>, tag: ClientTag, rate: Rate) -> rusqlite::Result<Option<UnixTime>> {
    let empty = at.now.plus(rate.every.saturating_mul(rate.burst.max(1)));
    at.connection
        .prepare_cached("SELECT full_at FROM rate WHERE tag = ?1")?
        .query_row([tag.0], |row| row.get(0).map(from_sql))
        .optional()
        .map(|full_at| full_at.filter(|&full_at| full_at <= empty))
}

/// One step of the sweep: at most [`STEP`] rows of each kind.
pub(super) fn sweep(at: &Context<'_>) -> rusqlite::Result<Swept> {
    let limit = i64::try_from(STEP).unwrap_or(i64::MAX);
    let now = to_sql(at.now);
    Ok(Swept {
        rows: sweep_aliases(at, limit)?,
        claims: sweep_claims(at, limit)?,
        replies: at.run(SWEEP_REPLIES, params![now, limit])?,
        rates: at.run(SWEEP_RATES, params![now, limit])?,
    })
}

/// Deletes rows with all that hangs on them, and forgets a server key with its last row. A damaged row stays: it
/// must not stand in the way of the others.
fn sweep_aliases(at: &Context<'_>, limit: i64) -> rusqlite::Result<usize> {
    let over: Vec<[u8; 16]> = at
        .connection
        .prepare_cached(OVER_ALIASES)?
        .query_map(params![to_sql(at.now), limit], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut swept = 0;
    for key in over {
        let Some(key_id) = unless_damaged(at, rows::sweep(at, RowKey(key)))? else { continue };
        at.run("UPDATE server_key SET row_count = row_count - 1 WHERE id = ?1", [key_id])?;
        swept += 1;
    }
    if swept > 0 {
        at.run("DELETE FROM server_key WHERE row_count <= 0", [])?;
    }
    Ok(swept)
}

/// Deletes claims whose retention is over; their uses stay spent.
fn sweep_claims(at: &Context<'_>, limit: i64) -> rusqlite::Result<usize> {
    let over: Vec<([u8; 16], [u8; 16])> = at
        .connection
        .prepare_cached(OVER_CLAIMS)?
        .query_map(params![to_sql(at.now), limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut swept = 0;
    for (key, message) in over {
        let (key, message) = (RowKey(key), Fingerprint(message));
        let Some(Some(found)) = unless_damaged(at, rows::find(at, key))? else { continue };
        let kept = found.ledger.kept.iter().find(|kept| kept.fingerprint == message);
        if kept.is_some_and(|kept| kept.until <= at.now) {
            kept::delete(at, key, &[message], |used| used)?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// None, and a note, if a row is damaged.
fn unless_damaged<T>(at: &Context<'_>, outcome: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match outcome {
        Err(error) if is_damage(&error) => {
            at.damage.note(&error);
            Ok(None)
        }
        outcome => outcome.map(Some),
    }
}

/// Reads one row.
pub(super) fn probe_reader(at: &Context<'_>) -> rusqlite::Result<()> {
    let mut statement = at.connection.prepare_cached("SELECT value FROM meta WHERE name = 'made'")?;
    statement.query_row([], |row| row.get::<_, i64>(0)).map(drop)
}

/// Writes one row: only a write shows that the disk is neither full nor read-only.
pub(super) fn probe_writer(at: &Context<'_>) -> rusqlite::Result<()> {
    at.run("INSERT OR REPLACE INTO meta (name, value) VALUES ('probed', ?1)", [to_sql(at.now)]).map(drop)
}
