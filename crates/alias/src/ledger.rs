//! What of an alias stands in clear: its limits, its state, its uses, the claims that are kept.

use crate::{Kept, KeptState, Limits, SenderTag, UnixTime};

/// Whether an owner or operator stopped the alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Passes mail on while its limits allow.
    Active,
    /// Refuses until resumed.
    Paused,
    /// Refuses for ever. Its row stays a while so that a retry of a delivered message is still known.
    Removed,
}

/// The part of an alias that claims and sweeping need. Names nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// When it ends.
    pub limits: Limits,
    /// Active, paused or removed.
    pub state: State,
    /// Uses granted and not given back.
    pub used: u32,
    /// Claims that are in flight, in doubt, or delivered without the sender having shown that it knows.
    pub kept: Vec<Kept>,
}

/// What RCPT may promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// A message may be sent to it.
    Alive,
    /// Every use that is left is held by a message in flight or in doubt: come again.
    Held,
    /// Unknown to strangers: expired, used up, paused, not yet valid or removed.
    Over,
}

impl Ledger {
    /// Whether a message that has not been seen yet may be offered, by the store's time `now`.
    pub fn admit(&self, now: UnixTime) -> Admission {
        if self.state != State::Active || !self.limits.is_open(now) {
            return Admission::Over;
        }
        if self.has_free_use() {
            Admission::Alive
        } else if self.held(now) > 0 {
            Admission::Held
        } else {
            Admission::Over
        }
    }

    /// Whether it is over for ever by its own limits, paused or not: nothing brings it back.
    pub fn has_ended(&self, now: UnixTime) -> bool {
        let is_past = self.limits.valid_until.is_some_and(|until| now >= until);
        self.state == State::Removed || is_past || (!self.has_free_use() && self.held(now) == 0)
    }

    /// Whether one more use could be granted.
    pub(crate) fn has_free_use(&self) -> bool {
        self.limits.max_usage.is_none_or(|max| self.used < max.get())
    }

    /// Uses that no new message may have: in flight or in doubt.
    pub fn held(&self, now: UnixTime) -> usize {
        self.live_claims(now).filter(|kept| kept.state != KeptState::Delivered).count()
    }

    /// Whether a kept claim came from this sender's domain: its retry must get past RCPT.
    pub fn expects(&self, sender: SenderTag, now: UnixTime) -> bool {
        self.live_claims(now).any(|kept| kept.sender == sender)
    }

    /// Messages that may still come; none for an uncounted alias.
    pub fn remaining(&self) -> Option<u32> {
        self.limits.max_usage.map(|max| max.get().saturating_sub(self.used))
    }

    /// The claims whose retention is not over: the others only wait for the sweep.
    pub(crate) fn live_claims(&self, now: UnixTime) -> impl Iterator<Item = &Kept> {
        self.kept.iter().filter(move |kept| now < kept.until)
    }
}
