//! The store's clock, and who is alive by it.

use tempalias_alias::{Owner, UnixTime};

use super::plan::SECOND;
use super::queue::Time;
use super::sabotage::Sabotage;
use super::store::Store;

/// How long a lease lasts, and how often a node renews it.
pub(super) const LEASE: Time = 15 * SECOND;
pub(super) const RENEW: Time = 3 * SECOND;
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
    /// It renews as it should, since then.
    Renewing(Time),
    /// By the store's clock. The last renewal was sent at that (virtual) time.
    Fixed { store: u64, renewed: Time },
}

#[derive(Debug, Clone)]
pub(super) struct Lease {
    owner: Owner,
    until: Until,
}

impl Store {
    fn clock(&self, now: Time) -> u64 {
        (EPOCH + now).saturating_add_signed(self.offset)
    }

    pub(super) fn time(&self, now: Time) -> UnixTime {
        UnixTime::from_millis(self.clock(now))
    }

    /// A node begins to run as `owner`.
    pub(super) fn opened_by(&mut self, owner: Owner, now: Time) {
        if self.is_shared() {
            self.leases.push(Lease { owner, until: Until::Renewing(now) });
        } else {
            self.embedded = Some(owner);
        }
    }

    /// The node of `owner` cannot renew any more: it died, is stopped, or is cut off.
    pub(super) fn stops_renewing(&mut self, owner: Owner, now: Time) {
        let offset = self.offset;
        for lease in self.leases.iter_mut().filter(|lease| lease.owner == owner) {
            if let Until::Renewing(since) = lease.until {
                let renewed = now - (now.saturating_sub(since)) % RENEW;
                let store = (EPOCH + renewed + LEASE).saturating_add_signed(offset);
                lease.until = Until::Fixed { store, renewed };
            }
        }
    }

    /// The node of `owner` can renew again; whether there was anything left to renew.
    pub(super) fn renews(&mut self, owner: Owner, now: Time) -> bool {
        if !self.is_shared() {
            return true;
        }
        let alive = self.is_alive(owner, now);
        for lease in self.leases.iter_mut().filter(|lease| lease.owner == owner && alive) {
            lease.until = Until::Renewing(now);
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
                    Until::Renewing(_) => true,
                    Until::Fixed { store, .. } => self.clock(now) < store,
                }
        })
    }

    /// `Store::may_send`, as the node of `owner` can tell by its own clock.
    pub(super) fn may_send(&self, owner: Owner, current: Owner, now: Time) -> bool {
        if owner != current || self.sabotage == Some(Sabotage::NoFence) {
            return owner == current || self.sabotage == Some(Sabotage::NoFence);
        }
        self.leases.iter().filter(|lease| lease.owner == owner).all(|lease| match lease.until {
            Until::Renewing(_) => true,
            Until::Fixed { renewed, .. } => now < renewed + LEASE - MARGIN,
        })
    }

    /// The clock jumps. Every lease stands where it stood; who renews finds out next time.
    pub(super) fn step_clock(&mut self, by: i64, now: Time) {
        let renewing: Vec<Owner> = self
            .leases
            .iter()
            .filter(|lease| matches!(lease.until, Until::Renewing(_)))
            .map(|lease| lease.owner)
            .collect();
        for owner in renewing {
            self.stops_renewing(owner, now);
        }
        // What is over is gone, and does not come back with the clock.
        let clock = self.clock(now);
        self.leases.retain(|lease| matches!(lease.until, Until::Fixed { store, .. } if clock < store));
        self.offset += by;
    }
}
