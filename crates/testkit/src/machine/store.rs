//! A store in memory, built on the same pure rules as the real ones, that can be told to fail.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;

use tempalias_alias::{
    Attempt, ClaimRequest, ClientTag, Fingerprint, Kept, KeptState, Ledger, Outcome, Owner, Rate, RowKey,
    Sealed, Settled, State, UnixTime,
};
use tempalias_relay::{Claimed, Found, StoreDown};

use crate::dialogue::{Change, Count, Fault};

/// Messages that one client may send to the operator: ten an hour (`mail-rules`, "postmaster").
const OPERATOR_RATE: Rate = Rate { burst: 10, every: std::time::Duration::from_mins(6) };

/// See the module.
#[derive(Debug)]
pub struct ModelStore {
    rows: BTreeMap<RowKey, Row>,
    quotas: BTreeMap<[u8; 16], UnixTime>,
    owner: Owner,
    /// What works of it.
    pub fault: Fault,
    /// Settlements that the driver tries again until the store takes them.
    unsettled: VecDeque<(RowKey, Attempt, Outcome)>,
}

#[derive(Debug)]
struct Row {
    ledger: Ledger,
    sealed: Sealed,
}

impl ModelStore {
    /// An empty store, claimed at by `owner`.
    pub fn new(owner: Owner) -> Self {
        Self {
            rows: BTreeMap::new(),
            quotas: BTreeMap::new(),
            owner,
            fault: Fault::Up,
            unsettled: VecDeque::new(),
        }
    }

    /// The program starts again: what it had in memory is gone, and its former claims are nobody's.
    pub fn restart(&mut self, owner: Owner) {
        self.owner = owner;
        self.unsettled.clear();
    }

    /// Adds a row.
    pub fn insert(&mut self, key: RowKey, ledger: Ledger, sealed: Sealed) {
        self.rows.insert(key, Row { ledger, sealed });
    }

    /// A row's ledger.
    pub fn ledger(&self, key: RowKey) -> Option<&Ledger> {
        self.rows.get(&key).map(|row| &row.ledger)
    }

    /// All ledgers.
    pub fn ledgers(&self) -> impl Iterator<Item = (RowKey, &Ledger)> {
        self.rows.iter().map(|(key, row)| (*key, &row.ledger))
    }

    /// A number of a row, by the store's time.
    pub fn count(&self, key: RowKey, what: Count, now: UnixTime) -> Option<u32> {
        let ledger = self.ledger(key)?;
        let live = |kept: &&Kept| now < kept.until;
        let count = match what {
            Count::Used => return Some(ledger.used),
            Count::Left => return ledger.remaining(),
            Count::Held => ledger.held(now),
            Count::Kept => ledger.kept.iter().filter(live).count(),
        };
        u32::try_from(count).ok()
    }

    /// Looks up; none: no answer comes.
    pub fn find(&self, keys: &[RowKey], now: UnixTime) -> Option<Result<Option<Found>, StoreDown>> {
        let found = || {
            keys.iter().find_map(|key| {
                let row = self.rows.get(key)?;
                Some(Found { row: *key, ledger: row.ledger.clone(), sealed: row.sealed.clone(), now })
            })
        };
        match self.fault {
            Fault::Up => Some(Ok(found())),
            Fault::Down => Some(Err(StoreDown)),
            Fault::Hangs | Fault::Mute => None,
        }
    }

    /// Takes one of the operator's messages; none: no answer comes.
    pub fn quota(&mut self, tag: ClientTag, now: UnixTime) -> Option<Result<bool, StoreDown>> {
        match self.fault {
            Fault::Up => {
                let taken = OPERATOR_RATE.take(self.quotas.get(&tag.0).copied(), now);
                if let Ok(full_at) = taken {
                    self.quotas.insert(tag.0, full_at);
                }
                Some(Ok(taken.is_ok()))
            }
            Fault::Down => Some(Err(StoreDown)),
            Fault::Hangs | Fault::Mute => None,
        }
    }

    /// Claims; none: no answer comes.
    pub fn claim(
        &mut self,
        requests: &[ClaimRequest],
        now: UnixTime,
    ) -> Option<Result<Vec<Claimed>, StoreDown>> {
        match self.fault {
            Fault::Up => Some(Ok(self.claim_all(requests, now))),
            Fault::Mute => {
                self.claim_all(requests, now);
                None
            }
            Fault::Down => Some(Err(StoreDown)),
            Fault::Hangs => None,
        }
    }

    fn claim_all(&mut self, requests: &[ClaimRequest], now: UnixTime) -> Vec<Claimed> {
        requests.iter().map(|request| self.claim_one(request, now)).collect()
    }

    fn claim_one(&mut self, request: &ClaimRequest, now: UnixTime) -> Claimed {
        let owner = self.owner;
        let Some(row) = self.rows.get_mut(&request.row) else {
            let limits = tempalias_alias::Limits { valid_from: None, valid_until: None, max_usage: None };
            return Claimed { answer: tempalias_alias::Answer::Over, limits, used: 0 };
        };
        let verdict = row.ledger.claim(request, now, |of| of == owner);
        row.ledger.used = verdict.used;
        if let Some(kept) = verdict.write {
            row.ledger.kept.retain(|old| old.fingerprint != kept.fingerprint);
            row.ledger.kept.push(kept);
        }
        Claimed { answer: verdict.answer, limits: row.ledger.limits, used: verdict.used }
    }

    /// Settles, and says whether that is durable; otherwise the driver goes on trying.
    pub fn settle(&mut self, settlements: &[(RowKey, Attempt, Outcome)], now: UnixTime) -> bool {
        self.unsettled.extend(settlements.iter().copied());
        self.flush(now);
        self.unsettled.is_empty()
    }

    /// The driver tries again what is not settled yet.
    pub fn flush(&mut self, now: UnixTime) {
        if matches!(self.fault, Fault::Down | Fault::Hangs) {
            return;
        }
        while let Some((row, attempt, outcome)) = self.unsettled.pop_front() {
            self.settle_one(row, attempt, outcome, now);
        }
        // Told to and done, but nobody hears of it.
    }

    fn settle_one(&mut self, key: RowKey, attempt: Attempt, outcome: Outcome, now: UnixTime) {
        let Some(row) = self.rows.get_mut(&key) else { return };
        let kept = &mut row.ledger.kept;
        let Some(at) = kept.iter().position(|kept| kept.attempt == attempt && now < kept.until) else {
            return;
        };
        match kept[at].settle(attempt, outcome) {
            Settled::Stale => {}
            Settled::Keep(changed) => kept[at] = changed,
            Settled::Spend => drop(kept.remove(at)),
            Settled::GiveBack => {
                kept.remove(at);
                row.ledger.used = row.ledger.used.saturating_sub(1);
            }
        }
    }

    /// Forgets what was delivered and acknowledged.
    pub fn acknowledge(&mut self, delivered: &[(RowKey, Fingerprint)]) {
        if self.fault != Fault::Up {
            return; // lost, and nothing needs doing about it
        }
        for (key, message) in delivered {
            if let Some(row) = self.rows.get_mut(key) {
                row.ledger.kept.retain(|kept| !kept.is_acknowledged_by(*message));
            }
        }
    }

    /// What an owner does.
    pub fn change(&mut self, key: RowKey, change: Change, now: UnixTime) -> bool {
        let owner = self.owner;
        let Some(Row { ledger, sealed }) = self.rows.get_mut(&key) else { return false };
        match change {
            Change::Pause => ledger.state = State::Paused,
            Change::Resume => ledger.state = State::Active,
            Change::Remove => {
                ledger.state = State::Removed;
                *sealed = Sealed::default();
            }
            Change::Expire => ledger.limits.valid_until = Some(now),
            Change::Uses(uses) => ledger.limits.max_usage = NonZeroU32::new(uses),
            Change::FreeHeld => {
                let before = ledger.kept.len();
                ledger.kept.retain(|kept| !kept.is_freeable(|of| of == owner));
                let freed = u32::try_from(before - ledger.kept.len()).unwrap_or(0);
                ledger.used = ledger.used.saturating_sub(freed);
            }
        }
        true
    }

    /// Claims that are in flight in the store's eyes.
    pub fn in_flight(&self, key: RowKey) -> usize {
        let in_flight = |kept: &&Kept| kept.state == KeptState::InFlight;
        self.ledger(key).map_or(0, |ledger| ledger.kept.iter().filter(in_flight).count())
    }
}
