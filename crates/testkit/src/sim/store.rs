//! The store, as a model: rows, claims, leases, a clock that may step, a power supply that may fail.
//!
//! The rules are the real ones (`alias`); what is modelled is what `store/src/embedded/claims.rs` and `aliases.rs`
//! do around them, and what a store for several nodes must do besides:
//!
//! * an owner is alive while its lease runs, by the store's clock;
//! * an attempt is judged once: a claim that arrives late or twice, after its attempt was answered or settled, writes
//!   nothing. Otherwise it takes a use that nobody will ever settle. (The embedded store has one queue in order and
//!   skips calls that nobody waits for, which comes to the same.)

use std::num::NonZeroU32;

use tempalias_alias::{
    Answer, Attempt, ClaimRequest, Fingerprint, Kept, KeptState, Ledger, Limits, Outcome, Owner, RowKey,
    Settled, State,
};

use super::failover::{Change, Undo, Unsafe};
use super::leases::Lease;
use super::queue::Time;
use super::sabotage::Sabotage;

/// A use that was granted, and what became of it.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) message: Fingerprint,
    pub(super) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its claim is kept.
    Open,
    /// Delivered, and its sender knows.
    Acknowledged,
    /// Given back: the use is free again.
    GivenBack,
    /// Refused for good, after doubt.
    Spent,
    /// Forgotten after its retention.
    Expired,
    /// Its owner freed it.
    Freed,
    /// A failover lost that it was granted.
    Lost,
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) key: RowKey,
    pub(super) ledger: Ledger,
    pub(super) grants: Vec<Grant>,
    /// The most messages it was ever allowed.
    pub(super) most: u32,
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) rows: Vec<Row>,
    /// The rows as the disk has them; only looked at when nothing is synced.
    synced: Vec<Row>,
    pub(super) leases: Vec<Lease>,
    /// One daemon, one file: the owner is whoever opened it last.
    pub(super) embedded: Option<Owner>,
    settled: Vec<Attempt>,
    judged: Vec<Attempt>,
    /// Writes that a failover may lose, in their order.
    pub(super) log: Vec<Unsafe>,
    /// Whether claims and what owners do wait for a replica, and when one last had all.
    pub(super) waits: bool,
    pub(super) replicated: Time,
    /// Which server it is: another one after each failover.
    pub(super) server: u32,
    /// Acknowledgements since the last durable write: (row, claim).
    pub(super) unsynced: Vec<(usize, Kept)>,
    /// How far the clock is off, in milliseconds; large positive numbers stand for nothing else.
    pub(super) offset: i64,
    pub(super) down: bool,
    pub(super) sabotage: Option<Sabotage>,
}

/// What a claim did besides its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged {
    pub(super) answer: Answer,
    pub(super) limits: Limits,
    pub(super) used: u32,
    /// The claim whose place it took.
    pub(super) from: Option<Kept>,
    pub(super) late: bool,
    /// Which of the row's grants it belongs to.
    pub(super) grant: Option<usize>,
}

/// What an owner does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Pause,
    Resume,
    Remove,
    More,
    End,
    FreeHeld,
}

impl Store {
    pub(super) fn new(shared: bool, waits: bool, rows: Vec<Row>, sabotage: Option<Sabotage>) -> Self {
        Self {
            synced: if sabotage == Some(Sabotage::NoFsync) { rows.clone() } else { vec![] },
            rows,
            leases: vec![],
            embedded: (!shared).then_some(Owner { node: 0, boot: 0 }),
            settled: vec![],
            judged: vec![],
            log: vec![],
            waits,
            replicated: 0,
            server: 0,
            unsynced: vec![],
            offset: 0,
            down: false,
            sabotage,
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.embedded.is_none()
    }

    pub(super) fn row(&self, key: RowKey) -> Option<usize> {
        self.rows.iter().position(|row| row.key == key)
    }

    // === Power.

    /// Something durable was written: the disk has all that came before, too.
    fn synced(&mut self, luck: u64) {
        self.unsynced.clear();
        if self.sabotage == Some(Sabotage::NoFsync) && luck.is_multiple_of(4) {
            self.synced.clone_from(&self.rows);
        }
    }

    /// The power fails: what was answered stands. An acknowledgement is durable only with the next write.
    pub(super) fn lose_power(&mut self) {
        for (row, kept) in std::mem::take(&mut self.unsynced) {
            let row = &mut self.rows[row];
            if row.ledger.kept.iter().all(|other| other.fingerprint != kept.fingerprint) {
                row.ledger.kept.push(kept);
                if let Some(grant) = row.last_grant(kept.fingerprint) {
                    row.grants[grant].end = End::Open;
                }
            }
        }
        if self.sabotage == Some(Sabotage::NoFsync) {
            for (row, synced) in self.rows.iter_mut().zip(&self.synced) {
                row.ledger.clone_from(&synced.ledger);
            }
        }
    }

    // === Calls.

    /// Whoever asks takes nobody for dead whom it spares.
    pub(super) fn claim(
        &mut self,
        request: &ClaimRequest,
        now: Time,
        luck: u64,
        spares: impl Fn(Owner) -> bool,
    ) -> Judged {
        let time = self.time(now);
        let Some(at) = self.row(request.row) else {
            let limits = Limits { valid_from: None, valid_until: None, max_usage: None };
            return Judged { answer: Answer::Over, limits, used: 0, from: None, late: false, grant: None };
        };
        let in_flight_is_again = self.sabotage == Some(Sabotage::InFlightIsAgain);
        let request = &ClaimRequest { fingerprint: self.recognised(at, request), ..*request };
        // Nobody takes a claim of its own for a dead node's (`claim_one` of `store/src/redis/claims.rs`), however the
        // clock has jumped.
        let own = request.attempt.owner;
        let alive =
            |owner| (owner == own || spares(owner) || self.is_alive(owner, now)) && !in_flight_is_again;
        let verdict = self.rows[at].ledger.claim(request, time, alive);
        let limits = self.rows[at].ledger.limits;
        let before = self.judged.contains(&request.attempt) || self.settled.contains(&request.attempt);
        let late = before && self.sabotage != Some(Sabotage::LateClaim);
        if !self.judged.contains(&request.attempt) {
            self.judged.push(request.attempt);
            self.is_unsafe(Undo::Judged(request.attempt), now);
        }
        if late && verdict.write.is_some() {
            return Judged { answer: Answer::Busy, limits, used: 0, from: None, late, grant: None };
        }
        if verdict.write.is_some() {
            self.changes(at, Change::Claim(request.attempt), now);
        }
        let row = &mut self.rows[at];
        let mut from = None;
        if let Some(kept) = verdict.write {
            let old = row.ledger.kept.iter().find(|old| old.fingerprint == kept.fingerprint);
            from = old.copied();
            row.ledger.kept.retain(|old| old.fingerprint != kept.fingerprint);
            row.ledger.kept.push(kept);
            row.ledger.used = verdict.used;
            if verdict.answer == Answer::Granted {
                row.expire(kept.fingerprint);
                row.grants.push(Grant { message: kept.fingerprint, end: End::Open });
            }
        }
        let grant = row.last_grant(request.fingerprint);
        if verdict.write.is_some() {
            self.synced(luck);
            self.is_replicated(now);
        }
        Judged { answer: verdict.answer, limits, used: verdict.used, from, late: false, grant }
    }

    fn recognised(&self, row: usize, request: &ClaimRequest) -> Fingerprint {
        let any = self.rows[row].ledger.kept.first();
        let ignored = self.sabotage == Some(Sabotage::FingerprintIgnored);
        any.filter(|_| ignored).map_or(request.fingerprint, |kept| kept.fingerprint)
    }

    pub(super) fn settle(
        &mut self,
        key: RowKey,
        attempt: Attempt,
        outcome: Outcome,
        now: Time,
        luck: u64,
    ) -> Option<Settled> {
        let time = self.time(now);
        let twice = self.settled.contains(&attempt);
        if !twice {
            self.settled.push(attempt);
            self.is_unsafe(Undo::Settled(attempt), now);
        }
        let at = self.row(key)?;
        let row = &mut self.rows[at];
        let found = row.ledger.kept.iter().position(|kept| kept.attempt == attempt && time < kept.until);
        let Some(place) = found else {
            let gives_back = matches!(outcome, Outcome::Refused | Outcome::Deferred | Outcome::Unsent);
            if self.sabotage == Some(Sabotage::SettleTwice) && twice && gives_back {
                row.ledger.used = row.ledger.used.saturating_sub(1);
            }
            return None;
        };
        let mut kept = row.ledger.kept[place];
        if self.sabotage == Some(Sabotage::FreedAfterDoubt) {
            kept.clean = true;
        }
        let settled = kept.settle(attempt, outcome);
        if settled != Settled::Stale {
            self.changes(at, Change::Settlement(attempt), now);
        }
        let row = &mut self.rows[at];
        match settled {
            Settled::Stale => return Some(settled),
            Settled::Keep(changed) => row.ledger.kept[place] = changed,
            Settled::Spend => row.end(place, End::Spent),
            Settled::GiveBack => {
                row.end(place, End::GivenBack);
                row.ledger.used = row.ledger.used.saturating_sub(1);
            }
        }
        self.synced(luck);
        Some(settled)
    }

    /// Whether the claim of an attempt is still there although its retention is over.
    pub(super) fn is_past_retention(&self, key: RowKey, attempt: Attempt, now: Time) -> bool {
        let time = self.time(now);
        let kept = self.row(key).into_iter().flat_map(|at| &self.rows[at].ledger.kept);
        kept.filter(|kept| kept.attempt == attempt).any(|kept| time >= kept.until)
    }

    /// Whether a claim was forgotten.
    pub(super) fn acknowledge(&mut self, key: RowKey, message: Fingerprint, now: Time) -> bool {
        let Some(at) = self.row(key) else { return false };
        let row = &mut self.rows[at];
        let Some(place) = row.ledger.kept.iter().position(|kept| kept.is_acknowledged_by(message)) else {
            return false;
        };
        let kept = row.ledger.kept[place];
        self.unsynced.push((at, kept));
        self.changes(at, Change::Settlement(kept.attempt), now);
        self.rows[at].end(place, End::Acknowledged);
        true
    }

    /// Deletes claims whose retention is over; how many.
    pub(super) fn sweep(&mut self, now: Time) -> u64 {
        // What is past its retention is so on a replica, too.
        self.log.clear();
        self.replicated = now;
        let (time, lowers) = (self.time(now), self.sabotage == Some(Sabotage::ExpiryLowersCounter));
        let mut swept = 0;
        for row in &mut self.rows {
            while let Some(place) = row.ledger.kept.iter().position(|kept| time >= kept.until) {
                row.end(place, End::Expired);
                row.ledger.used -= u32::from(lowers && row.ledger.used > 0);
                swept += 1;
            }
        }
        swept
    }

    /// How many held uses it freed.
    pub(super) fn change(
        &mut self,
        row: usize,
        act: Act,
        now: Time,
        luck: u64,
        spares: impl Fn(Owner) -> bool,
    ) -> u64 {
        self.changes(row, Change::Owner, now);
        self.is_replicated(now);
        let time = self.time(now);
        let mut freed = vec![];
        if matches!(act, Act::FreeHeld) {
            let live = self.rows[row].ledger.kept.iter().filter(|kept| time < kept.until);
            let freeable =
                live.filter(|kept| kept.is_freeable(|owner| spares(owner) || self.is_alive(owner, now)));
            freed = freeable.map(|kept| kept.fingerprint).collect();
        }
        let Row { ledger, most, .. } = &mut self.rows[row];
        match act {
            _ if ledger.state == State::Removed => return 0,
            Act::Pause => ledger.state = State::Paused,
            Act::Resume => ledger.state = State::Active,
            Act::Remove => ledger.state = State::Removed,
            // What has ended stays so.
            Act::More | Act::End if ledger.has_ended(time) => {}
            Act::End => ledger.limits.valid_until = Some(time),
            Act::More => {
                let more = ledger.limits.max_usage.map(|max| max.get() + 1);
                *most = (*most).max(more.unwrap_or(0));
                ledger.limits.max_usage = more.and_then(NonZeroU32::new);
            }
            Act::FreeHeld => {}
        }
        for message in &freed {
            let row = &mut self.rows[row];
            if let Some(place) = row.ledger.kept.iter().position(|kept| kept.fingerprint == *message) {
                row.end(place, End::Freed);
                row.ledger.used = row.ledger.used.saturating_sub(1);
            }
        }
        self.synced(luck);
        freed.len() as u64
    }

    /// What was remembered of an attempt is lost.
    pub(super) fn forget_judged(&mut self, attempt: Attempt) {
        self.judged.retain(|other| *other != attempt);
    }

    /// The same of its settlement.
    pub(super) fn forget_settled(&mut self, attempt: Attempt) {
        self.settled.retain(|other| *other != attempt);
    }

    /// The claim kept for a message.
    pub(super) fn kept(&self, row: usize, message: Fingerprint, now: Time) -> Option<&Kept> {
        let time = self.time(now);
        self.rows[row].ledger.kept.iter().find(|kept| kept.fingerprint == message && time < kept.until)
    }

    /// Claims in flight under this owner: none of them may have its dot any more once the owner is dead.
    pub(super) fn in_flight(&self, owner: Owner) -> u64 {
        let kept = self.rows.iter().flat_map(|row| &row.ledger.kept);
        kept.filter(|kept| kept.state == KeptState::InFlight && kept.attempt.owner == owner).count() as u64
    }
}

impl Row {
    /// The latest grant of a message that the store knows of.
    pub(super) fn last_grant(&self, message: Fingerprint) -> Option<usize> {
        self.grants.iter().rposition(|grant| grant.message == message && grant.end != End::Lost)
    }

    fn end(&mut self, place: usize, end: End) {
        let kept = self.ledger.kept.remove(place);
        if let Some(grant) = self.last_grant(kept.fingerprint) {
            self.grants[grant].end = end;
        }
    }

    /// A new grant for a message takes the place of one whose retention was over.
    fn expire(&mut self, message: Fingerprint) {
        if let Some(grant) = self.last_grant(message)
            && self.grants[grant].end == End::Open
        {
            self.grants[grant].end = End::Expired;
        }
    }
}
