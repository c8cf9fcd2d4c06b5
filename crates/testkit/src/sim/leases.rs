//! The store's clock, and who is alive by it.

use tempalias_alias::{Owner, UnixTime};

use super::plan::SECOND;
use super::queue::Time;
use super::store::Store;

/// How long a lease lasts, and how often a node renews it: `LENGTH` and `RENEW_EVERY` of `store/src/redis/lease.rs`.
pub(super) const LEASE: Time = 15 * SECOND;
pub(super) const RENEW: Time = SECOND;
/// A node stops this long before its lease may be over.
pub(super) const MARGIN: Time = 3 * SECOND;
/// The store's time when a run begins: 2026-01-01.
const EPOCH: u64 = 1_767_225_600_000;

/// The store's time when a run begins.
pub(super) fn begin() -> UnixTime {
    UnixTime::from_millis(EPOCH)
}

/// How long an owner counts as alive.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// It renews as it should.
    Renewing,
    /// By the store's clock; 0: it is gone. The last renewal was sent at that (virtual) time: all that its node knows.
    Fixed { store: u64, renewed: Time },
}

#[derive(Debug, Clone)]
pub(super) struct Lease {
    owner: Owner,
    until: Until,
    /// Since when it was renewed without a gap.
    since: Time,
    /// It was cut short, by a failover or the clock, and its node has not found out: until when it would have lasted.
    cut: u64,
}

impl Store {
    fn clock(&self, now: Time) -> u64 {
        (EPOCH + now).saturating_add_signed(self.offset)
    }

    pub(super) fn time(&self, now: Time) -> UnixTime {
        UnixTime::from_millis(self.clock(now))
    }

    /// A node writes the lease of a name for the first time.
    pub(super) fn opened_by(&mut self, owner: Owner, now: Time) {
        if self.is_shared() {
            self.leases.push(Lease { owner, until: Until::Renewing, since: now, cut: 0 });
        } else {
            self.embedded = Some(owner);
        }
    }

    /// Whether a lease of this name was ever written; of the embedded store, whether it was opened under it.
    pub(super) fn has_seen(&self, owner: Owner) -> bool {
        self.embedded == Some(owner) || self.leases.iter().any(|lease| lease.owner == owner)
    }

    /// The lease of `owner` is not renewed any more: its node died, is stopped, is cut off, or has no use for it.
    pub(super) fn stops_renewing(&mut self, owner: Owner, now: Time) {
        let offset = self.offset;
        let leases = self.leases.iter_mut().filter(|lease| lease.owner == owner);
        leases.for_each(|lease| lease.stops(now, offset));
    }

    /// The node of `owner` renews it, again or for the first time since something was in the way; whether there was
    /// anything left to renew.
    pub(super) fn renews(&mut self, owner: Owner, now: Time) -> bool {
        if !self.is_shared() {
            return true;
        }
        let alive = self.is_alive(owner, now);
        let leases = self.leases.iter_mut().filter(|lease| lease.owner == owner && alive);
        for lease in leases.filter(|lease| !matches!(lease.until, Until::Renewing)) {
            (lease.until, lease.since, lease.cut) = (Until::Renewing, now, 0);
        }
        alive
    }

    pub(super) fn is_alive(&self, owner: Owner, now: Time) -> bool {
        if let Some(current) = self.embedded {
            return current.boot == owner.boot;
        }
        self.leases.iter().any(|lease| {
            lease.owner == owner
                && match lease.until {
                    Until::Renewing => true,
                    Until::Fixed { store, .. } => self.clock(now) < store,
                }
        })
    }

    /// Whether the lease would still hold, had not a failover or the clock cut it short, which its node could not know.
    pub(super) fn was_cut(&self, owner: Owner, now: Time) -> bool {
        self.leases.iter().any(|lease| lease.owner == owner && self.clock(now) < lease.cut)
    }

    /// `Store::may_send` for a name of its own, as a node can tell by its own clock.
    pub(super) fn may_send(&self, owner: Owner, now: Time) -> bool {
        let mut leases = self.leases.iter().filter(|lease| lease.owner == owner);
        !self.is_shared()
            || leases.any(|lease| match lease.until {
                Until::Renewing => true,
                Until::Fixed { renewed, .. } => now < renewed + LEASE - MARGIN,
            })
    }

    /// The clock jumps. Every lease stands where it stood; who renews finds out next time.
    pub(super) fn step_clock(&mut self, by: i64, now: Time) {
        let offset = self.offset;
        self.leases.iter_mut().for_each(|lease| lease.stops(now, offset));
        self.bury(now, 0);
        self.offset += by;
        self.bury(now, u64::MAX);
    }

    /// A failover lost what was written since `from`: of each lease the renewals, or the lease itself. How many were hit.
    pub(super) fn cut_leases(&mut self, from: Time) -> u64 {
        let mut hit = 0;
        for lease in &mut self.leases {
            let Until::Fixed { store, renewed } = &mut lease.until else { continue };
            if *renewed < from || *store == 0 {
                continue;
            }
            // What it was before it was renewed again is not remembered: it is gone, too.
            let kept = from.checked_sub(1).filter(|last| *last >= lease.since);
            let last = kept.map(|last| last - (last - lease.since) % RENEW);
            lease.cut = *store;
            *store = last.map_or(0, |last| *store - (*renewed - last));
            hit += 1;
        }
        hit
    }

    /// What is over is gone, and does not come back with the clock.
    fn bury(&mut self, now: Time, cut: u64) {
        let clock = self.clock(now);
        for lease in &mut self.leases {
            if let Until::Fixed { store, .. } = &mut lease.until
                && *store > 0
                && *store <= clock
            {
                (*store, lease.cut) = (0, cut);
            }
        }
    }
}

impl Lease {
    fn stops(&mut self, now: Time, offset: i64) {
        if matches!(self.until, Until::Renewing) {
            let renewed = now - now.saturating_sub(self.since) % RENEW;
            let store = (EPOCH + renewed + LEASE).saturating_add_signed(offset);
            self.until = Until::Fixed { store, renewed };
        }
    }
}
