//! The rules of claiming a use, as a pure function; the store makes them atomic and durable.
//!
//! A claim is a promise to one message: "this use is yours". It is asked for after the sender's dot and before
//! ours, and it ends as *delivered* or *given back*, or stays *in doubt* until the same message returns. The
//! order of the questions in [`Ledger::claim`] is the order of precedence of the answers.

use std::time::Duration;

use crate::{Fingerprint, Ledger, RowKey, SenderTag, State, UnixTime};

/// How long a claim is kept for its sender's retry: as long as senders retry (RFC 5321 §4.5.4.1).
pub const RETENTION: Duration = Duration::from_hours(5 * 24);
/// How many attempts at one message may end in doubt. Each may have delivered it; after so many it is refused. An attempt
/// that surely delivered nothing does not count, however many there are: the store or the next hop may be away for days.
/// The first attempt is not counted.
pub const MAX_DOUBTS: u8 = 20;

/// One run of one program on one node: what a claim in flight belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The node, stable over restarts.
    pub node: u64,
    /// Drawn at random at each start.
    pub boot: u64,
}

/// One attempt to deliver one message to one alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// Who tries.
    pub owner: Owner,
    /// Counts up within a boot, never reused.
    pub number: u64,
}

/// What the dot asks of the store, for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The alias's row.
    pub row: RowKey,
    /// Which message this is.
    pub fingerprint: Fingerprint,
    /// Whether the message has a Message-ID: without one it is never *Already* there.
    pub identified: bool,
    /// Where it comes from, for RCPT to know its retry.
    pub sender: SenderTag,
    /// Who asks; asking again under the same attempt gets the same answer.
    pub attempt: Attempt,
    /// Whether the alias had a limit on messages when RCPT looked. Only tells a store where to look first.
    pub was_counted: bool,
}

/// Where a kept claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptState {
    /// Its owner is sending it, or died while sending it.
    InFlight,
    /// The next hop may or may not have it.
    InDoubt,
    /// The next hop has it; its sender may not know yet.
    Delivered,
}

/// A claim as the store keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Which message.
    pub fingerprint: Fingerprint,
    /// Where it stands.
    pub state: KeptState,
    /// The attempt that last touched it.
    pub attempt: Attempt,
    /// Keyed hash of the domain of its reverse-path.
    pub sender: SenderTag,
    /// Attempts that may have delivered it, and nobody knows.
    pub doubts: u8,
    /// Whether no earlier attempt may have reached its dot: only then does a refusal give the use back.
    pub clean: bool,
    /// When it is forgotten, without touching the counter of uses.
    pub until: UnixTime,
}

/// The answer to a claim, in order of precedence in the source of [`Ledger::claim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This very message was delivered; its sender never read our 250: say it again, send nothing.
    Already,
    /// In flight under a live owner, or every use left is held: retry later.
    Busy,
    /// Removed, paused, expired or used up.
    Over,
    /// This very message is in doubt: send it again under the same use.
    Again,
    /// A use was free and is now this message's.
    Granted,
    /// The alias has no limit on messages: send, nothing is counted.
    Uncounted,
}

/// What [`Ledger::claim`] decided, to be written in one step with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What the asker is told.
    pub answer: Answer,
    /// The counter of uses from now on.
    pub used: u32,
    /// The claim to write, in place of any with the same fingerprint; none: nothing is to be written.
    pub write: Option<Kept>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The next hop answered 250 to our dot.
    Delivered,
    /// The next hop refused at our dot, for good.
    Refused,
    /// The next hop refused at our dot, for now: the sender will retry.
    Deferred,
    /// No byte of our dot was written.
    Unsent,
    /// Our dot may have arrived, and no verdict came.
    Lost,
}

/// What settling does to the row, to be written in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Nothing: the claim is no longer this attempt's to settle.
    Stale,
    /// The claim stays, as given.
    Keep(Kept),
    /// The claim goes; its use stays counted.
    Spend,
    /// The claim goes and its use is free again.
    GiveBack,
}

impl Ledger {
    /// Whether the message of `request` may be sent now. `alive` tells whether an owner still runs; only `now`,
    /// the store's time, decides what is expired.
    pub fn claim(&self, request: &ClaimRequest, now: UnixTime, alive: impl Fn(Owner) -> bool) -> Verdict {
        let kept = self.live_claims(now).find(|kept| kept.fingerprint == request.fingerprint);
        let say = |answer| Verdict { answer, used: self.used, write: None };
        if let Some(kept) = kept {
            if kept.state == KeptState::Delivered && request.identified {
                return say(Answer::Already);
            }
            if kept.state == KeptState::InFlight && kept.attempt == request.attempt {
                // Asked twice under one attempt: the first answer was lost on its way.
                return say(if kept.clean { Answer::Granted } else { Answer::Again });
            }
            if kept.state == KeptState::InFlight && alive(kept.attempt.owner) {
                return say(Answer::Busy);
            }
        }
        if self.state != State::Active {
            return say(Answer::Over);
        }
        if let Some(kept) = kept {
            // Its owner died with it in flight: that attempt, too, may have delivered it.
            let doubts = kept.doubts.saturating_add(u8::from(kept.state == KeptState::InFlight));
            if doubts > MAX_DOUBTS {
                return say(Answer::Over);
            }
            let again = Kept { doubts, clean: false, ..Kept::new(request, now) };
            return Verdict { answer: Answer::Again, used: self.used, write: Some(again) };
        }
        if !self.limits.is_open(now) {
            return say(Answer::Over);
        }
        if self.limits.max_usage.is_none() {
            return say(Answer::Uncounted);
        }
        if self.has_free_use() {
            let granted = Kept::new(request, now);
            return Verdict { answer: Answer::Granted, used: self.used + 1, write: Some(granted) };
        }
        say(if self.held(now) > 0 { Answer::Busy } else { Answer::Over })
    }
}

impl Kept {
    fn new(request: &ClaimRequest, now: UnixTime) -> Self {
        Self {
            fingerprint: request.fingerprint,
            state: KeptState::InFlight,
            attempt: request.attempt,
            sender: request.sender,
            doubts: 0,
            clean: true,
            until: now.plus(RETENTION),
        }
    }

    /// What becomes of this claim when `attempt` ended as `outcome`. Settling twice, or after another attempt
    /// has taken over, changes nothing.
    pub fn settle(&self, attempt: Attempt, outcome: Outcome) -> Settled {
        let mine = self.attempt == attempt && self.state == KeptState::InFlight;
        let delivered = Settled::Keep(Self { state: KeptState::Delivered, ..*self });
        match outcome {
            Outcome::Delivered if mine || self.state == KeptState::InDoubt => delivered,
            _ if !mine => Settled::Stale,
            Outcome::Delivered => delivered,
            Outcome::Refused | Outcome::Deferred | Outcome::Unsent if self.clean => Settled::GiveBack,
            Outcome::Refused => Settled::Spend,
            Outcome::Deferred | Outcome::Unsent | Outcome::Lost => {
                let doubts = self.doubts.saturating_add(u8::from(outcome == Outcome::Lost));
                Settled::Keep(Self { state: KeptState::InDoubt, doubts, clean: false, ..*self })
            }
        }
    }

    /// Whether it may be forgotten once a sender has shown that it read our 250 for this message, whichever of its
    /// attempts that 250 answered.
    pub fn is_acknowledged_by(&self, message: Fingerprint) -> bool {
        self.state == KeptState::Delivered && self.fingerprint == message
    }

    /// Whether its owner may give it back by hand: nobody is sending it now.
    pub fn is_freeable(&self, alive: impl Fn(Owner) -> bool) -> bool {
        match self.state {
            KeptState::InDoubt => true,
            KeptState::InFlight => !alive(self.attempt.owner),
            KeptState::Delivered => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    fn attempt(number: u64) -> Attempt {
        Attempt { owner: Owner { node: 0, boot: 1 }, number }
    }

    fn kept(state: KeptState, clean: bool) -> Kept {
        Kept {
            fingerprint: Fingerprint([1; 16]),
            state,
            attempt: attempt(1),
            sender: SenderTag([2; 8]),
            doubts: 0,
            clean,
            until: NOW.plus(RETENTION),
        }
    }

    #[test]
    fn what_settling_does_is_this_table() {
        use KeptState::{Delivered, InDoubt, InFlight};
        let becomes = |state, clean| Settled::Keep(kept(state, clean));
        let doubted = Settled::Keep(Kept { doubts: 1, ..kept(InDoubt, false) });
        for (state, clean, outcome, mine, result) in [
            (InFlight, true, Outcome::Delivered, true, becomes(Delivered, true)),
            (InFlight, true, Outcome::Refused, true, Settled::GiveBack),
            (InFlight, true, Outcome::Deferred, true, Settled::GiveBack),
            (InFlight, true, Outcome::Unsent, true, Settled::GiveBack),
            (InFlight, true, Outcome::Lost, true, doubted),
            (InFlight, false, Outcome::Delivered, true, becomes(Delivered, false)),
            (InFlight, false, Outcome::Refused, true, Settled::Spend),
            (InFlight, false, Outcome::Deferred, true, becomes(InDoubt, false)),
            (InFlight, false, Outcome::Unsent, true, becomes(InDoubt, false)),
            (InFlight, false, Outcome::Lost, true, doubted),
            // Another attempt has taken over: this one has no say, unless it knows of a delivery that nobody else
            // can know of any more.
            (InFlight, false, Outcome::Delivered, false, Settled::Stale),
            (InFlight, false, Outcome::Unsent, false, Settled::Stale),
            (InDoubt, false, Outcome::Delivered, false, becomes(Delivered, false)),
            (InDoubt, false, Outcome::Delivered, true, becomes(Delivered, false)),
            (InDoubt, false, Outcome::Refused, true, Settled::Stale),
            (Delivered, true, Outcome::Delivered, true, Settled::Stale),
            (Delivered, true, Outcome::Lost, true, Settled::Stale),
        ] {
            let by = attempt(if mine { 1 } else { 2 });
            assert_eq!(
                kept(state, clean).settle(by, outcome),
                result,
                "{state:?} {clean} {outcome:?} {mine}"
            );
        }
    }
}
