//! Rows inside a transaction: make, look up, change, list.

use rusqlite::{OptionalExtension, params};
use tempalias_alias::{ClientTag, KeyId, RowKey, Sealed, State};

use super::kept;
use super::rows::{self, to_sql};
use super::work::Context;
use crate::{Change, Created, Found, IDEMPOTENCY_RETENTION, Idempotent, Listed, NewRow, Once};

/// Looks every key up, whatever the first ones say.
pub(super) fn find(at: &Context<'_>, keys: &[RowKey]) -> rusqlite::Result<Option<Found>> {
    keys.iter().try_fold(None, |first: Option<Found>, &key| Ok(first.or(rows::find(at, key)?)))
}

/// Makes a row, and the reply that stands for having made it.
pub(super) fn create(
    at: &Context<'_>,
    row: &NewRow,
    also_free: &[RowKey],
    once: Option<&Once>,
) -> rusqlite::Result<Created> {
    if let Some(once) = once
        && let Some(earlier) = idempotent_reply(at, once.name)?
    {
        return Ok(Created::Replayed(earlier));
    }
    for key in also_free.iter().chain([&row.key]) {
        if rows::find(at, *key)?.is_some() {
            return Ok(Created::Clash);
        }
    }
    rows::insert(at, row)?;
    count_key(at, row.key_id)?;
    if let Some(Once { name, reply }) = once {
        let until = to_sql(at.now.plus(IDEMPOTENCY_RETENTION));
        at.run(
            "INSERT OR REPLACE INTO reply (name, body, reply, until) VALUES (?1, ?2, ?3, ?4)",
            params![name.0, reply.body.0, reply.reply.0, until],
        )?;
    }
    Ok(Created::Done)
}

/// The reply kept under `name`, unless its day is over.
pub(super) fn idempotent_reply(at: &Context<'_>, name: ClientTag) -> rusqlite::Result<Option<Idempotent>> {
    at.connection
        .prepare_cached("SELECT body, reply FROM reply WHERE name = ?1 AND until > ?2")?
        .query_row(params![name.0, to_sql(at.now)], |row| {
            let reply = Sealed(row.get::<_, Vec<u8>>(1)?.into());
            Ok(Idempotent { body: ClientTag(row.get(0)?), reply })
        })
        .optional()
}

/// Changes a row and returns it as it is then.
pub(super) fn change(at: &Context<'_>, key: RowKey, change: &Change) -> rusqlite::Result<Option<Found>> {
    let Some(found) = rows::find(at, key)? else { return Ok(None) };
    if found.ledger.state == State::Removed {
        return Ok(Some(found));
    }
    match change {
        // What has ended stays so, even if it ended between the caller's look and now.
        Change::Limits(_) if found.ledger.has_ended(at.now) => {}
        Change::Limits(change) => rows::edit(at, key, |row| row.limits = row.limits.changed(*change))?,
        Change::Pause => rows::edit(at, key, |row| row.state = State::Paused)?,
        Change::Resume => rows::edit(at, key, |row| row.state = State::Active)?,
        Change::Remove => rows::edit(at, key, |row| {
            row.state = State::Removed;
            row.sealed.clear();
        })?,
        Change::FreeHeld => free_held(at, &found)?,
    }
    rows::find(at, key)
}

/// A page of rows as an operator sees them.
pub(super) fn list(at: &Context<'_>, after: Option<RowKey>, limit: usize) -> rusqlite::Result<Vec<Listed>> {
    Ok(rows::page(at, after, limit)?.into_iter().map(Listed::from).collect())
}

fn count_key(at: &Context<'_>, key_id: KeyId) -> rusqlite::Result<()> {
    at.run(
        "INSERT INTO server_key (id, first_used, row_count) VALUES (?1, ?2, 1)
         ON CONFLICT (id) DO UPDATE SET row_count = row_count + 1",
        params![key_id.0, to_sql(at.now)],
    )
    .map(drop)
}

/// Gives back what nobody is sending now. Claims whose retention is over have kept their use for good.
fn free_held(at: &Context<'_>, found: &Found) -> rusqlite::Result<()> {
    let live = found.ledger.kept.iter().filter(|kept| at.now < kept.until);
    let free: Vec<_> = live
        .filter(|kept| kept.is_freeable(|owner| at.is_alive(owner)))
        .map(|kept| kept.fingerprint)
        .collect();
    let given_back = u32::try_from(free.len()).unwrap_or(u32::MAX);
    kept::delete(at, found.key, &free, |used| used.saturating_sub(given_back))
}
