//! Rows of the database as the types of `alias`, and back. The only place that knows the columns' order.

use std::num::NonZeroU32;

use rusqlite::{OptionalExtension, Row, params};
use tempalias_alias::{
    Attempt, Fingerprint, Kept, KeptState, Ledger, Limits, Owner, RETENTION, RowKey, Sealed, SenderTag,
    State, UnixTime,
};

use super::work::Context;
use crate::{Found, ROW_RETENTION};

/// The columns of `alias` that [`stored`] reads, in its order; what is sealed only if `?2` says so.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT row_key, state, used, max_usage, valid_from, valid_until, created,
             CASE WHEN ?2 THEN sealed END FROM alias ",
            $rest
        )
    };
}

/// A row without its kept claims.
pub(super) struct Stored {
    pub(super) key: RowKey,
    pub(super) ledger: Ledger,
    pub(super) created: UnixTime,
    pub(super) sealed: Sealed,
}

/// The row of `key` with its kept claims. Both look-ups are always made, so that their time does not tell
/// whether there is a row.
pub(super) fn find(at: &Context<'_>, key: RowKey) -> rusqlite::Result<Option<Found>> {
    let row = at
        .connection
        .prepare_cached(select!("WHERE row_key = ?1"))?
        .query_row(params![key.0, true], stored)
        .optional()?;
    let kept = kept(at, key)?;
    Ok(row.map(|row| found(at, row, kept)))
}

/// The rows after `after`, in order, with their kept claims but without what is sealed.
pub(super) fn page(at: &Context<'_>, after: Option<RowKey>, limit: usize) -> rusqlite::Result<Vec<Found>> {
    let mut statement =
        at.connection.prepare_cached(select!("WHERE row_key > ?1 ORDER BY row_key LIMIT ?3"))?;
    // Every key comes after the empty one.
    let after = after.as_ref().map_or(&[][..], |key| &key.0);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    statement
        .query_map(params![after, false, limit], stored)?
        .map(|row| {
            let row = row?;
            let kept = kept(at, row.key)?;
            Ok(found(at, row, kept))
        })
        .collect()
}

/// The claims kept for `key`, those included whose retention is over.
pub(super) fn kept(at: &Context<'_>, key: RowKey) -> rusqlite::Result<Vec<Kept>> {
    let mut statement = at.connection.prepare_cached(
        "SELECT fingerprint, state, node, boot, number, sender, retries, clean, until
         FROM claim WHERE row_key = ?1",
    )?;
    statement.query_map([key.0], kept_claim)?.collect()
}

/// Writes a claim in place of any with the same fingerprint.
pub(super) fn write_kept(at: &Context<'_>, key: RowKey, kept: &Kept) -> rusqlite::Result<()> {
    let state: u8 = match kept.state {
        KeptState::InFlight => 0,
        KeptState::InDoubt => 1,
        KeptState::Delivered => 2,
    };
    let Attempt { owner, number } = kept.attempt;
    at.run(
        "INSERT OR REPLACE INTO claim
         (row_key, fingerprint, state, node, boot, number, sender, retries, clean, until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            key.0,
            kept.fingerprint.0,
            state,
            owner.node.cast_signed(),
            owner.boot.cast_signed(),
            number.cast_signed(),
            kept.sender.0,
            kept.retries,
            kept.clean,
            to_sql(kept.until)
        ],
    )
    .map(drop)
}

/// Forgets a claim. What becomes of its use is for the caller to write.
pub(super) fn delete_kept(at: &Context<'_>, key: RowKey, fingerprint: Fingerprint) -> rusqlite::Result<()> {
    at.run("DELETE FROM claim WHERE row_key = ?1 AND fingerprint = ?2", params![key.0, fingerprint.0])
        .map(drop)
}

/// Writes the counter of uses.
pub(super) fn write_used(at: &Context<'_>, key: RowKey, used: u32) -> rusqlite::Result<()> {
    at.run("UPDATE alias SET used = ?2 WHERE row_key = ?1", params![key.0, used]).map(drop)
}

/// From when on the sweep may take a row in this state with these limits; none: never.
pub(super) fn sweep_at(state: State, limits: &Limits, now: UnixTime) -> Option<i64> {
    let time = match state {
        // As long as the last claim is kept: until then a retry of a delivered message is known.
        State::Removed => Some(now.plus(RETENTION)),
        State::Active | State::Paused => limits.valid_until.map(|end| end.plus(ROW_RETENTION)),
    };
    time.map(to_sql)
}

/// A state as its column has it.
pub(super) fn state_code(state: State) -> u8 {
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

fn found(at: &Context<'_>, row: Stored, kept: Vec<Kept>) -> Found {
    let Stored { key, ledger, created, sealed } = row;
    Found { key, ledger: Ledger { kept, ..ledger }, created, sealed, now: at.now }
}

/// The columns of `select!`, whatever comes behind them.
pub(super) fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let state = match row.get(1)? {
        0 => State::Active,
        1 => State::Paused,
        2 => State::Removed,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(1, other)),
    };
    let limits = Limits {
        max_usage: row.get::<_, Option<NonZeroU32>>(3)?,
        valid_from: row.get::<_, Option<i64>>(4)?.map(from_sql),
        valid_until: row.get::<_, Option<i64>>(5)?.map(from_sql),
    };
    Ok(Stored {
        key: RowKey(row.get(0)?),
        ledger: Ledger { limits, state, used: row.get(2)?, kept: Vec::new() },
        created: from_sql(row.get(6)?),
        sealed: Sealed(row.get::<_, Option<Vec<u8>>>(7)?.unwrap_or_default().into()),
    })
}

fn kept_claim(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let state = match row.get(1)? {
        0 => KeptState::InFlight,
        1 => KeptState::InDoubt,
        2 => KeptState::Delivered,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(1, other)),
    };
    let owner =
        Owner { node: row.get::<_, i64>(2)?.cast_unsigned(), boot: row.get::<_, i64>(3)?.cast_unsigned() };
    Ok(Kept {
        fingerprint: Fingerprint(row.get(0)?),
        state,
        attempt: Attempt { owner, number: row.get::<_, i64>(4)?.cast_unsigned() },
        sender: SenderTag(row.get(5)?),
        retries: row.get(6)?,
        clean: row.get(7)?,
        until: from_sql(row.get(8)?),
    })
}
