//! Claims inside a transaction: read the ledger, ask the pure rule, write what it says.

use tempalias_alias::{Answer, Attempt, ClaimRequest, Fingerprint, Kept, RowKey, Settled, Verdict};

use super::work::Context;
use super::{kept, rows};
use crate::{Claimed, Settlement};

/// Answers and writes a whole batch.
pub(super) fn claim(at: &Context<'_>, requests: &[ClaimRequest]) -> rusqlite::Result<Vec<Claimed>> {
    requests
        .iter()
        .map(|request| {
            let (claimed, verdict) = judge(at, request)?;
            if let Some(Verdict { used, write: Some(kept), answer }) = verdict {
                let is_new = kept::write(at, request.row, &kept)?;
                if is_new || answer == Answer::Granted {
                    rows::edit(at, request.row, |row| {
                        row.kept += u32::from(is_new);
                        if answer == Answer::Granted {
                            row.used = used;
                        }
                    })?;
                }
            }
            Ok(claimed)
        })
        .collect()
}

/// Answers a whole batch from a snapshot, without a write; none: it takes the writer.
///
/// What is over or uncounted is so in the last commit too. *Already* is not for a reader to say: an
/// acknowledgement may be waiting at the writer, after which the same message is a new one. Nor is *Busy*: the
/// message that holds the use may be delivered, and its settling wait at the writer; then the truth is *Over*.
pub(super) fn peek(at: &Context<'_>, requests: &[ClaimRequest]) -> rusqlite::Result<Option<Vec<Claimed>>> {
    let final_here = |answer| matches!(answer, Answer::Uncounted | Answer::Over);
    requests
        .iter()
        .map(|request| judge(at, request).map(|(claimed, _)| Some(claimed).filter(|c| final_here(c.answer))))
        .collect()
}

fn judge(at: &Context<'_>, request: &ClaimRequest) -> rusqlite::Result<(Claimed, Option<Verdict>)> {
    let Some(found) = rows::find(at, request.row)? else {
        // Removed and swept between RCPT and the dot.
        return Ok((Claimed { answer: Answer::Over, limits: None, used: 0, now: at.now }, None));
    };
    let verdict = found.ledger.claim(request, at.now, |owner| at.is_alive(owner));
    let claimed = Claimed {
        answer: verdict.answer,
        limits: Some(found.ledger.limits),
        used: verdict.used,
        now: at.now,
    };
    Ok((claimed, Some(verdict)))
}

/// Ends one attempt.
pub(super) fn settle(at: &Context<'_>, settlement: &Settlement) -> rusqlite::Result<()> {
    let Settlement { row, attempt, outcome } = *settlement;
    let Some(kept) = of_attempt(at, row, attempt)? else { return Ok(()) };
    match kept.settle(attempt, outcome) {
        Settled::Stale => Ok(()),
        Settled::Keep(kept) => kept::write(at, row, &kept).map(drop),
        Settled::Spend => kept::delete(at, row, &[kept.fingerprint], |used| used),
        Settled::GiveBack => kept::delete(at, row, &[kept.fingerprint], |used| used.saturating_sub(1)),
    }
}

/// Forgets the claim of a message that was delivered.
pub(super) fn acknowledge(at: &Context<'_>, row: RowKey, message: Fingerprint) -> rusqlite::Result<()> {
    let Some(found) = rows::find(at, row)? else { return Ok(()) };
    let is_over = found.ledger.kept.iter().any(|kept| kept.is_acknowledged_by(message));
    if is_over { kept::delete(at, row, &[message], |used| used) } else { Ok(()) }
}

/// The claim that `attempt` touched last. There is at most one: an attempt is one
/// message. A claim whose retention is over is nobody's any more.
fn of_attempt(at: &Context<'_>, row: RowKey, attempt: Attempt) -> rusqlite::Result<Option<Kept>> {
    let Some(found) = rows::find(at, row)? else { return Ok(None) };
    let mut live = found.ledger.kept.into_iter().filter(|kept| at.now < kept.until);
    Ok(live.find(|kept| kept.attempt == attempt))
}
