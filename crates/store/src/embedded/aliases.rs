//! Rows inside a transaction: make, look up, change, list.

use rusqlite::{OptionalExtension, params};
use tempalias_alias::{ClientTag, KeyId, Limits, RowKey, Sealed, State};

use super::rows::{self, state_code, sweep_at, to_sql};
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
    insert(at, row)?;
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
        Change::Limits(change) => {
            set_limits(at, key, found.ledger.state, &found.ledger.limits.changed(*change))?;
        }
        Change::Pause => set_state(at, key, State::Paused)?,
        Change::Resume => set_state(at, key, State::Active)?,
        Change::Remove => {
            at.run(
                "UPDATE alias SET state = ?2, sealed = x'', sweep_at = ?3 WHERE row_key = ?1",
                params![
                    key.0,
                    state_code(State::Removed),
                    sweep_at(State::Removed, &found.ledger.limits, at.now)
                ],
            )?;
        }
        Change::FreeHeld => free_held(at, &found)?,
    }
    rows::find(at, key)
}

/// A page of rows as an operator sees them.
pub(super) fn list(at: &Context<'_>, after: Option<RowKey>, limit: usize) -> rusqlite::Result<Vec<Listed>> {
    Ok(rows::page(at, after, limit)?.into_iter().map(Listed::from).collect())
}

fn insert(at: &Context<'_>, row: &NewRow) -> rusqlite::Result<()> {
    let Limits { valid_from, valid_until, max_usage } = row.limits;
    at.run(
        "INSERT INTO alias (row_key, key_id, state, used, max_usage, valid_from, valid_until, created,
                            sweep_at, sealed)
         VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            row.key.0,
            row.key_id.0,
            state_code(State::Active),
            max_usage,
            valid_from.map(to_sql),
            valid_until.map(to_sql),
            to_sql(at.now),
            sweep_at(State::Active, &row.limits, at.now),
            row.sealed.0
        ],
    )
    .map(drop)
}

fn count_key(at: &Context<'_>, key_id: KeyId) -> rusqlite::Result<()> {
    at.run(
        "INSERT INTO server_key (id, first_used, row_count) VALUES (?1, ?2, 1)
         ON CONFLICT (id) DO UPDATE SET row_count = row_count + 1",
        params![key_id.0, to_sql(at.now)],
    )
    .map(drop)
}

fn set_limits(at: &Context<'_>, key: RowKey, state: State, limits: &Limits) -> rusqlite::Result<()> {
    at.run(
        "UPDATE alias SET max_usage = ?2, valid_from = ?3, valid_until = ?4, sweep_at = ?5 WHERE row_key = ?1",
        params![
            key.0,
            limits.max_usage,
            limits.valid_from.map(to_sql),
            limits.valid_until.map(to_sql),
            sweep_at(state, limits, at.now)
        ],
    )
    .map(drop)
}

fn set_state(at: &Context<'_>, key: RowKey, state: State) -> rusqlite::Result<()> {
    at.run("UPDATE alias SET state = ?2 WHERE row_key = ?1", params![key.0, state_code(state)]).map(drop)
}

/// Gives back what nobody is sending now. Claims whose retention is over have kept their use for good.
fn free_held(at: &Context<'_>, found: &Found) -> rusqlite::Result<()> {
    let live = found.ledger.kept.iter().filter(|kept| at.now < kept.until);
    let mut used = found.ledger.used;
    for kept in live.filter(|kept| kept.is_freeable(|owner| at.is_alive(owner))) {
        rows::delete_kept(at, found.key, kept.fingerprint)?;
        used = used.saturating_sub(1);
    }
    rows::write_used(at, found.key, used)
}
