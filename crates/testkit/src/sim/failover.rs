//! A failover: the master of a shared store dies, a replica takes its place, and what had not reached it is lost.
//!
//! Replication is in order, so what is lost is a last stretch of all that was written: settlements, acknowledgements,
//! leases and their renewals, what is remembered of attempts. Claims and what owners do are waited for in some runs
//! (`store.wait_replicas`), and so is what was written before them; in the others they are lost like the rest. Nodes see that
//! it is another server, and go on under another name (`names.rs`). The same server with another history, a replica that
//! has taken over another's data, say, is met in the same way.

use tempalias_alias::Attempt;

use super::plan::SECOND;
use super::queue::Time;
use super::random::Random;
use super::sabotage::Sabotage;
use super::store::{End, Row, Store};
use super::tally::Seen;
use super::world::{Happening, World};

/// Of a thousand settlements and acknowledgements in a run that has a failover before it, how many are followed by it.
const SOON: u64 = 250;

/// What a replica may not have yet.
#[derive(Debug, Clone)]
pub(super) struct Unsafe {
    at: Time,
    what: Undo,
}

/// How to take one write back.
#[derive(Debug, Clone)]
pub(super) enum Undo {
    /// A row was changed: it was so before.
    Changed { at: usize, before: Box<Row>, by: Change },
    /// An attempt was judged.
    Judged(Attempt),
    /// An attempt was settled.
    Settled(Attempt),
}

/// What changes a row.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Claim(Attempt),
    /// Or an acknowledgement of that attempt's claim.
    Settlement(Attempt),
    Owner,
}

/// How many failovers a run has: drawn apart, so that the runs that have none are what they were before there were any.
pub(super) fn draw(seed: u64) -> u64 {
    let mut random = Random::new(!seed);
    if random.permille(250) { random.between(1, 2) } else { 0 }
}

/// Whether claims and what owners do are waited for in this run.
pub(super) fn draw_waits(seed: u64) -> bool {
    !Random::new(!seed.rotate_left(16)).permille(300)
}

/// What a failover took back.
struct Lost {
    /// Settlements by their attempts, acknowledgements by the attempts that they were about.
    settled: Vec<Attempt>,
    claimed: Vec<(Attempt, usize)>,
    /// Uses that had been granted.
    granted: u64,
    /// Leases that end sooner, or are gone.
    leases: u64,
}

impl Store {
    /// Something was written that replicas are not waited for.
    pub(super) fn is_unsafe(&mut self, what: Undo, now: Time) {
        if self.is_shared() {
            self.log.push(Unsafe { at: now, what });
        }
    }

    /// Row `at` is about to be changed.
    pub(super) fn changes(&mut self, at: usize, by: Change, now: Time) {
        if self.is_shared() {
            let before = Box::new(self.rows[at].clone());
            self.is_unsafe(Undo::Changed { at, before, by }, now);
        }
    }

    /// Something was written that is waited for, if that is configured: a replica has it, and all that came before.
    pub(super) fn is_replicated(&mut self, now: Time) {
        if self.waits && self.sabotage != Some(Sabotage::NotWaited) {
            self.log.clear();
            self.replicated = now;
        }
    }

    /// Another server takes over, without what was written since `from`.
    fn fails_over(&mut self, from: Time, now: Time) -> Lost {
        let mut lost = Lost { settled: vec![], claimed: vec![], granted: 0, leases: 0 };
        let from = from.max(self.replicated);
        while let Some(last) = self.log.pop_if(|last| last.at >= from) {
            match last.what {
                Undo::Judged(attempt) => self.forget_judged(attempt),
                Undo::Settled(attempt) => self.forget_settled(attempt),
                Undo::Changed { at, before, by } => {
                    let row = &mut self.rows[at];
                    row.ledger = before.ledger;
                    for (grant, was) in row.grants.iter_mut().zip(&before.grants) {
                        grant.end = was.end;
                    }
                    for grant in row.grants.iter_mut().skip(before.grants.len()) {
                        lost.granted += u64::from(grant.end != End::Lost);
                        grant.end = End::Lost;
                    }
                    match by {
                        Change::Claim(attempt) => lost.claimed.push((attempt, at)),
                        Change::Settlement(attempt) => lost.settled.push(attempt),
                        Change::Owner => {}
                    }
                }
            }
        }
        self.log.clear();
        self.unsynced.clear();
        self.server += 1;
        self.replicated = now;
        lost.leases = self.cut_leases(from);
        lost
    }
}

impl World {
    /// Something was settled or acknowledged, or a dot leaves: a good moment for the master to die.
    pub(super) fn tempts_fate(&mut self) {
        if self.failovers > 0 && self.random.permille(SOON) {
            self.failovers -= 1;
            let most = self.weather.pick([20, 50, 300]);
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
        self.store_goes(true);
        let lost = self.store.fails_over(self.now.saturating_sub(lag), self.now);
        self.note(|_| {
            let Lost { settled, granted, leases, .. } = &lost;
            format!("a failover: {} settlements, {granted} uses, {leases} leases are lost", settled.len())
        });
        self.tally.add(Seen::WritesLost, lost.settled.len() as u64);
        self.tally.add(Seen::UsesLost, lost.granted);
        self.tally.add(Seen::LeasesCut, lost.leases);
        if !self.store.waits {
            self.truth.claims_lost.extend(lost.claimed);
        }
        for attempt in lost.settled {
            self.truth.settlement_lost(attempt, &self.store);
        }
    }
}
