//! This node among the living: a key that ends by itself unless it is renewed.
//!
//! Another node may take over what this one had in flight once the lease has run out. So this node sends no dot from
//! some time before that moment on, and a lease that has run out is never taken up again: the node goes on under a new
//! name, and what it claimed under the old one is anybody's.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempalias_alias::{Owner, UnixTime};

/// How long a lease lasts without being renewed: how long the mail of a node that died waits for another.
pub(super) const LENGTH: Duration = Duration::from_secs(15);
/// How often it is renewed.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long before its end no dot is sent any more: a dot that is on its way must not meet another's.
const MARGIN: Duration = Duration::from_secs(3);

/// The lease of this node and the clock of the store, as of the last renewal.
#[derive(Debug)]
pub(super) struct Lease {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    owner: Owner,
    /// Whether the owner's key was ever written.
    is_first: bool,
    /// Until when dots may be sent.
    sends_until: Option<Instant>,
    /// The store's time, and when it was that.
    clock: Option<(UnixTime, Instant)>,
}

impl Lease {
    /// Of `owner`, not yet written.
    pub(super) fn new(owner: Owner) -> Self {
        Self { state: Mutex::new(State { owner, is_first: true, sends_until: None, clock: None }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under whom claims are made now, and whether its key was never written.
    pub(super) fn owner(&self) -> (Owner, bool) {
        let state = self.state();
        (state.owner, state.is_first)
    }

    /// Renewed: asked for at `asked`, answered at the store's time `now`.
    pub(super) fn renewed(&self, owner: Owner, asked: Instant, now: UnixTime) {
        let mut state = self.state();
        state.clock = Some((now, Instant::now()));
        if state.owner == owner {
            state.is_first = false;
            state.sends_until = asked.checked_add(LENGTH.saturating_sub(MARGIN));
        }
    }

    /// The store's time is `now`.
    pub(super) fn clock_is(&self, now: UnixTime) {
        self.state().clock = Some((now, Instant::now()));
    }

    /// It has run out: from now on claims are made under another name.
    pub(super) fn lost(&self, next: Owner) {
        let mut state = self.state();
        *state = State { owner: next, is_first: true, sends_until: None, clock: state.clock };
    }

    /// Whether a message that `owner` claimed may be given its dot now.
    pub(super) fn may_send(&self, owner: Owner) -> bool {
        let state = self.state();
        state.owner == owner && state.sends_until.is_some_and(|until| Instant::now() < until)
    }

    /// The store's time, as far as is known.
    pub(super) fn now(&self) -> Option<UnixTime> {
        self.state().clock.map(|(time, at)| time.plus(at.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(boot: u64) -> Owner {
        Owner { node: 1, boot }
    }

    #[test]
    fn dots_end_before_the_lease_does() {
        let lease = Lease::new(owner(1));
        assert!(!lease.may_send(owner(1)), "not before it is written");
        let now = Instant::now();
        lease.renewed(owner(1), now, UnixTime::from_secs(5));
        assert!(lease.may_send(owner(1)) && !lease.may_send(owner(2)));
        let Some(long_ago) = now.checked_sub(LENGTH.saturating_sub(MARGIN)) else { return };
        lease.renewed(owner(1), long_ago, UnixTime::from_secs(5));
        assert!(!lease.may_send(owner(1)), "it was asked for too long ago, whenever the answer came");
    }

    #[test]
    fn what_ran_out_is_not_taken_up_again() {
        let lease = Lease::new(owner(1));
        let asked = Instant::now();
        lease.lost(owner(2));
        assert_eq!(lease.owner(), (owner(2), true));
        lease.renewed(owner(1), asked, UnixTime::from_secs(5));
        assert!(!lease.may_send(owner(1)) && !lease.may_send(owner(2)), "an answer of the old one came late");
        lease.renewed(owner(2), asked, UnixTime::from_secs(5));
        assert!(lease.may_send(owner(2)) && !lease.may_send(owner(1)));
        assert!(lease.now().unwrap() >= UnixTime::from_secs(5));
    }
}
