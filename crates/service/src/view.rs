//! What an alias looks like to those who may look.

use tempalias_address::{Domain, Mailbox};
use tempalias_alias::{Admission, AliasId, Ledger, Limits, State, UnixTime};

/// What becomes of mail to the alias now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is passed on.
    Active,
    /// Every use that is left is held by a message in flight or in doubt: the next one is asked to come again.
    Held,
    /// Its first day has not come.
    NotYet,
    /// Its owner stopped it.
    Paused,
    /// Its messages are used up.
    UsedUp,
    /// Its last day is over.
    Expired,
}

/// An alias as it is now.
#[derive(Debug, Clone)]
pub struct View {
    /// Its local part.
    pub id: AliasId,
    /// Its domain.
    pub domain: Domain,
    /// Where its mail goes; none for those who may not see it.
    pub target: Option<Mailbox>,
    /// What becomes of mail to it.
    pub standing: Standing,
    /// Whether its owner stopped it. (An alias can be paused and expired: `standing` then says expired.)
    pub paused: bool,
    /// When it ends.
    pub limits: Limits,
    /// Uses granted.
    pub used: u32,
    /// Messages that may still come; none: uncounted.
    pub remaining: Option<u32>,
    /// Uses that are granted and whose fate is open.
    pub held: u32,
    /// When it was made.
    pub created: UnixTime,
    /// When this was true.
    pub now: UnixTime,
}

impl View {
    /// The whole address.
    pub fn address(&self) -> String {
        format!("{}@{}", self.id, self.domain)
    }
}

impl Standing {
    /// Its name for programs, the same wherever one reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Held => "held",
            Self::NotYet => "not-yet",
            Self::Paused => "paused",
            Self::UsedUp => "used-up",
            Self::Expired => "expired",
        }
    }

    pub(crate) fn of(ledger: &Ledger, now: UnixTime) -> Self {
        if ledger.limits.valid_until.is_some_and(|until| now >= until) {
            return Self::Expired;
        }
        if ledger.state != State::Active {
            return Self::Paused;
        }
        if !ledger.limits.is_open(now) {
            return Self::NotYet;
        }
        match ledger.admit(now) {
            Admission::Alive => Self::Active,
            Admission::Held => Self::Held,
            Admission::Over => Self::UsedUp,
        }
    }
}
