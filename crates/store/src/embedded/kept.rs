//! Kept claims as rows of the database, and back. Each carries a checksum, and its alias counts them.

use rusqlite::{Row, params};
use tempalias_alias::{Attempt, Fingerprint, Kept, KeptState, Owner, RowKey, SenderTag};

use super::rows::{column, damaged, edit, from_sql, to_sql};
use super::sum::Sum;
use super::work::Context;

/// The claims kept for `key`, those included whose retention is over.
pub(super) fn of(at: &Context<'_>, key: RowKey) -> rusqlite::Result<Vec<Kept>> {
    let mut statement = at.connection.prepare_cached(
        "SELECT fingerprint, state, node, boot, number, sender, doubts, clean, until, sum
         FROM claim WHERE row_key = ?1",
    )?;
    statement.query_map([key.0], |row| kept_claim(key, row))?.collect()
}

/// Writes a claim in place of any with the same fingerprint; tells whether there was none.
pub(super) fn write(at: &Context<'_>, key: RowKey, kept: &Kept) -> rusqlite::Result<bool> {
    let Attempt { owner, number } = kept.attempt;
    let values = params![
        key.0,
        kept.fingerprint.0,
        kept_code(kept.state),
        owner.node.cast_signed(),
        owner.boot.cast_signed(),
        number.cast_signed(),
        kept.sender.0,
        kept.doubts,
        kept.clean,
        to_sql(kept.until),
        sum_of_claim(key, kept)
    ];
    let replaced = at.run(
        "UPDATE claim SET state = ?3, node = ?4, boot = ?5, number = ?6, sender = ?7, doubts = ?8,
                          clean = ?9, until = ?10, sum = ?11 WHERE row_key = ?1 AND fingerprint = ?2",
        values,
    )?;
    if replaced == 0 {
        at.run(
            "INSERT INTO claim
             (row_key, fingerprint, state, node, boot, number, sender, doubts, clean, until, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            values,
        )?;
    }
    Ok(replaced == 0)
}

/// Forgets claims, and makes `used` of the counter of uses.
pub(super) fn delete(
    at: &Context<'_>,
    key: RowKey,
    fingerprints: &[Fingerprint],
    used: impl FnOnce(u32) -> u32,
) -> rusqlite::Result<()> {
    let mut deleted = 0;
    for fingerprint in fingerprints {
        deleted += at.run(
            "DELETE FROM claim WHERE row_key = ?1 AND fingerprint = ?2",
            params![key.0, fingerprint.0],
        )?;
    }
    let deleted = u32::try_from(deleted).unwrap_or(u32::MAX);
    edit(at, key, |row| {
        row.kept = row.kept.saturating_sub(deleted);
        row.used = used(row.used);
    })
}

fn kept_code(state: KeptState) -> u8 {
    match state {
        KeptState::InFlight => 0,
        KeptState::InDoubt => 1,
        KeptState::Delivered => 2,
    }
}

fn sum_of_claim(key: RowKey, kept: &Kept) -> i64 {
    let Attempt { owner, number } = kept.attempt;
    Sum::new()
        .octets(&key.0)
        .octets(&kept.fingerprint.0)
        .word(kept_code(kept.state).into())
        .word(owner.node)
        .word(owner.boot)
        .word(number)
        .octets(&kept.sender.0)
        .word(kept.doubts.into())
        .word(kept.clean.into())
        .number(to_sql(kept.until))
        .column()
}

fn kept_claim(key: RowKey, row: &Row<'_>) -> rusqlite::Result<Kept> {
    let state = match column(row, 1)? {
        0 => KeptState::InFlight,
        1 => KeptState::InDoubt,
        2_u8 => KeptState::Delivered,
        _ => return Err(damaged("a claim has no such state")),
    };
    let word = |number| column::<i64>(row, number).map(i64::cast_unsigned);
    let kept = Kept {
        fingerprint: Fingerprint(column(row, 0)?),
        state,
        attempt: Attempt { owner: Owner { node: word(2)?, boot: word(3)? }, number: word(4)? },
        sender: SenderTag(column(row, 5)?),
        doubts: column(row, 6)?,
        clean: column(row, 7)?,
        until: from_sql(column(row, 8)?),
    };
    let is_whole = sum_of_claim(key, &kept) == column::<i64>(row, 9)?;
    if is_whole { Ok(kept) } else { Err(damaged("a claim is not as it was written")) }
}
