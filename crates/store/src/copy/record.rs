//! What travels.

use tempalias_alias::{ClientTag, Kept, KeyId, Limits, RowKey, Sealed, State, UnixTime};

use crate::{Idempotent, ROW_RETENTION};

/// Which store something comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The same for the same store, however it is reached.
    pub id: String,
    /// For people, without a password.
    pub shown: String,
}

/// An alias as it stands in a store, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where it is found.
    pub key: RowKey,
    /// Which server key made it.
    pub key_id: KeyId,
    /// When it ends.
    pub limits: Limits,
    /// Active, paused or removed.
    pub state: State,
    /// Uses granted.
    pub used: u32,
    /// When it was made.
    pub created: UnixTime,
    /// When it is forgotten, if it was removed; the others go by their limits.
    pub goes: Option<UnixTime>,
    /// Whom it belongs to, sealed.
    pub sealed: Sealed,
    /// Its kept claims.
    pub kept: Vec<Kept>,
}

impl Row {
    /// This row as every store shows it at `now`: without claims whose retention is over; none if its own is. Stores
    /// let go of such things at different times.
    pub(crate) fn seen_at(mut self, now: UnixTime) -> Option<Self> {
        let goes = match self.state {
            State::Removed => self.goes,
            State::Active | State::Paused => self.limits.valid_until.map(|end| end.plus(ROW_RETENTION)),
        };
        if goes.is_some_and(|goes| goes <= now) {
            return None;
        }
        self.kept.retain(|kept| now < kept.until);
        self.kept.sort_by_key(|kept| kept.fingerprint.0);
        Some(self)
    }

    /// Until when its server key is needed; none: for ever.
    pub(crate) fn needs_key_until(&self) -> Option<UnixTime> {
        match self.state {
            State::Removed => self.goes,
            State::Active | State::Paused => self.limits.valid_until,
        }
    }

    /// What differs, by name.
    pub(crate) fn differing(&self, other: &Self) -> Vec<&'static str> {
        [
            ("server key", self.key_id != other.key_id),
            ("limits", self.limits != other.limits),
            ("state", self.state != other.state),
            ("uses", self.used != other.used),
            ("when it was made", self.created != other.created),
            ("when it goes", self.goes != other.goes),
            ("what is sealed", self.sealed != other.sealed),
            ("claims", self.kept != other.kept),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }
}

/// All rows of one range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys.
    pub rows: Vec<Row>,
    /// The last key of the range; none: the range goes to the end.
    pub end: Option<RowKey>,
    /// The store's time when it was read.
    pub now: UnixTime,
}

/// What is kept beside the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aside {
    /// A reply under an Idempotency-Key.
    Reply {
        /// Hash of the key.
        name: ClientTag,
        /// The reply.
        reply: Idempotent,
        /// Until when it is kept.
        until: UnixTime,
    },
    /// A bucket of a rate limit.
    Rate {
        /// Whose.
        tag: ClientTag,
        /// When it is full again.
        full_at: UnixTime,
    },
}

impl Aside {
    /// Which one it is among all.
    pub(crate) fn name(&self) -> (u8, [u8; 16]) {
        match self {
            Self::Reply { name, .. } => (0, name.0),
            Self::Rate { tag, .. } => (1, tag.0),
        }
    }

    pub(crate) fn is_over(&self, now: UnixTime) -> bool {
        match self {
            Self::Reply { until, .. } => *until <= now,
            Self::Rate { full_at, .. } => *full_at <= now,
        }
    }
}

/// Where to go on with [`Aside`]s: a part of the source, and a place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) part: usize,
    pub(crate) place: Vec<u8>,
}
