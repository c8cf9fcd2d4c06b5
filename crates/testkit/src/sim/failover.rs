//! A failover: the master of a shared store dies, a replica takes its place, and what had not reached it is lost.
//!
//! Stands for what replication that is not waited for can lose of settlements and acknowledgements, the last of them
//! first. A claim is waited for (`store.wait_replicas`): what came before it is safe with it. Leases and what owners do
//! are not lost here. Nodes see that it is another, and go on under another name (`renews`): what they had in flight is
//! in doubt once the old lease has run out, instead of in flight for as long as they live. (The program keeps the old
//! lease for what is really under way; the model does not.)

use tempalias_alias::{Attempt, Kept, RowKey};

use super::plan::SECOND;
use super::queue::Time;
use super::random::Random;
use super::store::{End, Store};
use super::tally::Seen;
use super::world::{Happening, World};

/// Of a thousand settlements and acknowledgements in a run that has a failover before it, how many are followed by it.
const SOON: u64 = 80;

/// What a replica may not have yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsafe {
    at: Time,
    what: Undo,
}

/// How to take one write back.
#[derive(Debug, Clone, Copy)]
pub(super) enum Undo {
    /// A claim was settled or acknowledged: it stood so before, and its use was or was not given back.
    Settled { row: usize, kept: Kept, was_given_back: bool },
    /// An attempt was judged, and got nothing.
    Judged(Attempt),
    /// An attempt without a claim was settled.
    SettledNothing(Attempt),
}

/// How many failovers a run has: drawn apart, so that the runs that have none are what they were before there were any.
pub(super) fn draw(seed: u64) -> u64 {
    let mut random = Random::new(!seed);
    if random.permille(250) { random.between(1, 2) } else { 0 }
}

impl Store {
    /// Something was written that replicas are not waited for.
    pub(super) fn is_unsafe(&mut self, what: Undo, now: Time) {
        if self.is_shared() {
            self.log.push(Unsafe { at: now, what });
        }
    }

    /// A replica has all that was written so far.
    pub(super) fn is_replicated(&mut self) {
        self.log.clear();
    }

    /// Another server takes over, without what was written since `from`. What was lost: settlements by their attempts,
    /// acknowledgements by the attempts that they were about.
    fn fails_over(&mut self, from: Time) -> Vec<(RowKey, Attempt)> {
        let mut lost = vec![];
        while let Some(last) = self.log.pop_if(|last| last.at >= from) {
            match last.what {
                Undo::Judged(attempt) => self.forget_judged(attempt),
                Undo::SettledNothing(attempt) => self.forget_settled(attempt),
                Undo::Settled { row, kept, was_given_back } => {
                    let row = &mut self.rows[row];
                    row.ledger.kept.retain(|other| other.fingerprint != kept.fingerprint);
                    row.ledger.kept.push(kept);
                    row.ledger.used += u32::from(was_given_back);
                    if let Some(grant) = row.last_grant(kept.fingerprint) {
                        row.grants[grant].end = End::Open;
                    }
                    lost.push((row.key, kept.attempt));
                }
            }
        }
        self.log.clear();
        self.server += 1;
        lost
    }
}

impl World {
    /// Something was settled or acknowledged, or a dot leaves: a good moment for the master to die.
    pub(super) fn tempts_fate(&mut self) {
        if self.failovers > 0 && self.random.permille(SOON) {
            self.failovers -= 1;
            let most = self.weather.pick([50, 300]);
            let soon = self.weather.between(0, most);
            self.plan_in(soon, Happening::FailsOver);
        }
    }

    pub(super) fn fails_over(&mut self) {
        if self.store.down {
            return;
        }
        self.saw(Seen::Failovers);
        let lag = self.random.pick([50, 300, 2 * SECOND, 10 * SECOND]);
        let lost = self.store.fails_over(self.now.saturating_sub(lag));
        self.note(|_| format!("the store fails over and loses {} writes", lost.len()));
        self.tally.add(Seen::WritesLost, lost.len() as u64);
        for (_, attempt) in lost {
            self.truth.settlement_lost(attempt, &self.store);
        }
        self.store_goes(true);
    }
}
