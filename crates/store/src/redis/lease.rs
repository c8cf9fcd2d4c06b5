//! This node among the living: a key that ends by itself unless it is renewed.
//!
//! Another node may take over what this one had in flight once the lease has run out. So this node sends no dot from
//! some time before that moment on, and a lease that has run out is never taken up again: the node goes on under a new
//! name, and what it claimed under the old one is anybody's.
//!
//! A node also takes a new name when the server behind it has changed (docs/decisions/019): it may have forgotten how
//! claims ended, and they would stay in flight for as long as their owner lives. The old lease is renewed only while
//! something claimed under it is really under way.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tempalias_alias::{Attempt, Owner, UnixTime};

/// How long a lease lasts without being renewed: how long the mail of a node that died waits for another.
pub(super) const LENGTH: Duration = Duration::from_secs(15);
/// How often it is renewed.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long before its end no dot is sent any more: a dot that is on its way must not meet another's.
const MARGIN: Duration = Duration::from_secs(3);
/// Former names whose leases are renewed. With more, a server that restarts all the time would have all our time; what is
/// under way under the oldest is then deferred.
const MOST_FORMER: usize = 8;

/// How long an attempt can be really under way: longer than any next hop is waited for after our dot (RFC 5321 §4.5.3.2.6).
/// What is not settled by then, because its row is damaged, say, keeps no lease: other claims of that name would stay in
/// flight with it.
const LONGEST_ATTEMPT: Duration = Duration::from_mins(15);

/// The leases of this node and the clock of the store, as of the last renewal.
#[derive(Debug)]
pub(super) struct Lease {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Under whom claims are made.
    current: Holder,
    /// Whether the current owner's key was ever written.
    is_first: bool,
    /// Under whom they were made before the server changed, oldest first.
    former: Vec<Holder>,
    /// Attempts that were granted a use and are not settled yet, and since when.
    under_way: HashMap<Attempt, Instant>,
    /// The store's time, and when it was that.
    clock: Option<(UnixTime, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    owner: Owner,
    /// Until when dots may be sent.
    sends_until: Option<Instant>,
}

impl State {
    /// Whether something that was claimed under the name `owner` is under way.
    fn is_busy(&self, owner: Owner) -> bool {
        let mut under_way = self.under_way.iter();
        under_way.any(|(attempt, since)| attempt.owner == owner && since.elapsed() < LONGEST_ATTEMPT)
    }
}

impl Holder {
    fn new(owner: Owner) -> Self {
        Self { owner, sends_until: None }
    }

    fn may_send(&self) -> bool {
        self.sends_until.is_some_and(|until| Instant::now() < until)
    }
}

impl Lease {
    /// Of `owner`, not yet written.
    pub(super) fn new(owner: Owner) -> Self {
        Self {
            state: Mutex::new(State {
                current: Holder::new(owner),
                is_first: true,
                former: vec![],
                under_way: HashMap::new(),
                clock: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under whom claims are made now, and whether its key was never written.
    pub(super) fn owner(&self) -> (Owner, bool) {
        let state = self.state();
        (state.current.owner, state.is_first)
    }

    /// Former names that have something under way.
    pub(super) fn former(&self) -> Vec<Owner> {
        let mut state = self.state();
        let mut former = std::mem::take(&mut state.former);
        // A claim may just be being made under a name that can still send.
        former.retain(|holder| holder.may_send() || state.is_busy(holder.owner));
        let busy = former.iter().map(|holder| holder.owner).filter(|&owner| state.is_busy(owner)).collect();
        state.former = former;
        busy
    }

    /// Every name of this node.
    pub(super) fn all(&self) -> Vec<Owner> {
        let state = self.state();
        state.former.iter().chain([&state.current]).map(|holder| holder.owner).collect()
    }

    /// Renewed: asked for at `asked`, answered at the store's time `now`.
    pub(super) fn renewed(&self, owner: Owner, asked: Instant, now: UnixTime) {
        let mut state = self.state();
        state.clock = Some((now, Instant::now()));
        if state.current.owner == owner {
            state.is_first = false;
        }
        let State { current, former, .. } = &mut *state;
        if let Some(holder) = former.iter_mut().chain([current]).find(|holder| holder.owner == owner) {
            holder.sends_until = asked.checked_add(LENGTH.saturating_sub(MARGIN));
        }
    }

    /// The store's time is `now`.
    pub(super) fn clock_is(&self, now: UnixTime) {
        self.state().clock = Some((now, Instant::now()));
    }

    /// The lease of `owner` has run out. If that is the current one, claims are made under the name `next` from now on.
    pub(super) fn lost(&self, owner: Owner, next: Owner) {
        let mut state = self.state();
        state.former.retain(|holder| holder.owner != owner);
        if state.current.owner == owner {
            state.current = Holder::new(next);
            state.is_first = true;
        }
    }

    /// Claims are made under the name `next` from now on, and what is under way goes on.
    pub(super) fn change_name(&self, next: Owner) {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.current, Holder::new(next));
        // A name that nobody has seen has nothing under way.
        if !std::mem::replace(&mut state.is_first, true) {
            state.former.push(before);
        }
        if state.former.len() > MOST_FORMER {
            state.former.remove(0);
        }
    }

    /// `attempt` was granted a use: its owner must live until it is settled.
    pub(super) fn begun(&self, attempt: Attempt) {
        self.state().under_way.insert(attempt, Instant::now());
    }

    /// How `attempt` ended is in the store.
    pub(super) fn settled(&self, attempt: Attempt) {
        self.state().under_way.remove(&attempt);
    }

    /// Whether something that was claimed under the name `owner` is under way here.
    pub(super) fn is_busy(&self, owner: Owner) -> bool {
        self.state().is_busy(owner)
    }

    /// Whether a message that `owner` claimed may be given its dot now.
    pub(super) fn may_send(&self, owner: Owner) -> bool {
        let state = self.state();
        let holder = state.former.iter().chain([&state.current]).find(|holder| holder.owner == owner);
        holder.is_some_and(Holder::may_send)
    }

    /// The store's time, as far as is known.
    pub(super) fn now(&self) -> Option<UnixTime> {
        self.state().clock.map(|(time, at)| time.plus(at.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: UnixTime = UnixTime::from_secs(5);

    fn owner(boot: u64) -> Owner {
        Owner { node: 1, boot }
    }

    fn attempt(boot: u64, number: u64) -> Attempt {
        Attempt { owner: owner(boot), number }
    }

    /// When a renewal was asked for that is of no use any more.
    fn long_ago() -> Instant {
        Instant::now().checked_sub(LENGTH.saturating_sub(MARGIN)).unwrap()
    }

    #[test]
    fn dots_end_before_the_lease_does() {
        let lease = Lease::new(owner(1));
        assert!(!lease.may_send(owner(1)), "not before it is written");
        lease.renewed(owner(1), Instant::now(), THEN);
        assert!(lease.may_send(owner(1)) && !lease.may_send(owner(2)));
        lease.renewed(owner(1), long_ago(), THEN);
        assert!(!lease.may_send(owner(1)), "it was asked for too long ago, whenever the answer came");
    }

    #[test]
    fn what_ran_out_is_not_taken_up_again() {
        let lease = Lease::new(owner(1));
        let asked = Instant::now();
        lease.lost(owner(1), owner(2));
        assert_eq!(lease.owner(), (owner(2), true));
        lease.renewed(owner(1), asked, THEN);
        assert!(!lease.may_send(owner(1)) && !lease.may_send(owner(2)), "an answer of the old one came late");
        lease.renewed(owner(2), asked, THEN);
        assert!(lease.may_send(owner(2)) && !lease.may_send(owner(1)));
        assert!(lease.now().unwrap() >= THEN);
    }

    #[test]
    fn under_a_former_name_only_what_is_under_way_goes_on() {
        let lease = Lease::new(owner(1));
        lease.change_name(owner(2));
        assert_eq!(
            (lease.owner(), lease.all()),
            ((owner(2), true), vec![owner(2)]),
            "nobody has seen the first"
        );
        let lease = Lease::new(owner(1));
        lease.renewed(owner(1), Instant::now(), THEN);
        lease.begun(attempt(1, 7));
        lease.change_name(owner(2));
        assert_eq!((lease.owner(), lease.former()), ((owner(2), true), vec![owner(1)]));
        assert!(lease.may_send(owner(1)) && !lease.may_send(owner(2)));
        lease.renewed(owner(1), long_ago(), THEN);
        assert_eq!(lease.former(), [owner(1)], "it can be renewed again");
        lease.settled(attempt(1, 7));
        assert_eq!((lease.former(), lease.all()), (vec![], vec![owner(2)]));
    }

    #[test]
    fn what_is_never_settled_keeps_no_name_for_ever() {
        let lease = Lease::new(owner(1));
        lease.renewed(owner(1), long_ago(), THEN);
        lease.begun(attempt(1, 7));
        lease.change_name(owner(2));
        assert!(lease.is_busy(owner(1)) && lease.former() == [owner(1)]);
        let since = Instant::now().checked_sub(LONGEST_ATTEMPT).unwrap();
        lease.state().under_way.insert(attempt(1, 7), since);
        assert!(!lease.is_busy(owner(1)) && lease.former().is_empty());
        assert_eq!(lease.all(), [owner(2)]);
    }

    #[test]
    fn a_former_name_that_ran_out_leaves_the_current_one() {
        let lease = Lease::new(owner(1));
        lease.renewed(owner(1), Instant::now(), THEN);
        lease.begun(attempt(1, 7));
        lease.change_name(owner(2));
        lease.renewed(owner(2), Instant::now(), THEN);
        lease.lost(owner(1), owner(3));
        assert!(!lease.may_send(owner(1)) && lease.may_send(owner(2)));
        assert_eq!((lease.owner(), lease.former()), ((owner(2), false), vec![]));
    }

    #[test]
    fn a_server_that_restarts_all_the_time_makes_few_names() {
        let lease = Lease::new(owner(0));
        for boot in 0..20 {
            lease.renewed(owner(boot), Instant::now(), THEN);
            lease.begun(attempt(boot, 1));
            lease.change_name(owner(boot + 1));
        }
        assert_eq!(lease.former().len(), MOST_FORMER);
        assert!(lease.may_send(owner(19)) && !lease.may_send(owner(0)));
    }
}
