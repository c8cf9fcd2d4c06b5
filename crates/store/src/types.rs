//! What is asked of a store and what it answers. Plain data, the same for every backend.

use tempalias_alias::{
    Answer, Attempt, ClientTag, KeyId, Ledger, LimitChange, Limits, Outcome, RowKey, Sealed, State, UnixTime,
};

/// The store did not do what it was asked to. Nothing is known of the aliases: the sender hears 451, never 550.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer in time. A write may or may not have happened; ask again under the same attempt.
    #[error("the store did not answer in time")]
    Timeout,
    /// It answered with a failure: I/O error, damaged file, a wrong kind of key.
    #[error("the store failed: {0}")]
    Failed(String),
    /// What has this cannot be reached just now, or does not take it: a server of a Cluster, a full disk, a locked file.
    /// Something else asked of the same store may get through.
    #[error("the store failed: {0}")]
    Away(String),
    /// It is shut down.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether it says nothing about what was asked, but that nobody can take it now.
    pub fn is_of_an_outage(&self) -> bool {
        matches!(self, Self::Timeout | Self::Away(_))
    }
}

/// A new alias, sealed by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow {
    /// Where it will be found.
    pub key: RowKey,
    /// Which server key sealed it.
    pub key_id: KeyId,
    /// When it ends.
    pub limits: Limits,
    /// Whom it belongs to, sealed.
    pub sealed: Sealed,
}

/// What makes a request for a [`NewRow`] happen only once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Hash of the Idempotency-Key.
    pub name: ClientTag,
    /// What the next request under this name gets.
    pub reply: Idempotent,
}

/// What became of a [`NewRow`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// It stands, durably; so does the reply.
    Done,
    /// One of the keys given is taken: draw another name.
    Clash,
    /// An earlier request under this name was answered so; nothing was made. Whether it was the same request
    /// is for the caller to compare.
    Replayed(Idempotent),
}

/// An alias as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The row key that matched, of those asked for.
    pub key: RowKey,
    /// Limits, state, uses and kept claims.
    pub ledger: Ledger,
    /// When it was made.
    pub created: UnixTime,
    /// Whom it belongs to, sealed. Empty once the alias is removed.
    pub sealed: Sealed,
    /// The store's time of this look.
    pub now: UnixTime,
}

/// What the store answers to one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// The answer; durable if it is *Granted* or *Again*.
    pub answer: Answer,
    /// The limits at that moment, for the header lines of the forwarded mail; none: there is no such row, and
    /// the answer is *Over*.
    pub limits: Option<Limits>,
    /// Uses granted so far, this one included.
    pub used: u32,
    /// The store's time.
    pub now: UnixTime,
}

/// How one attempt on one alias ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// The alias's row.
    pub row: RowKey,
    /// The attempt that the claim was granted to.
    pub attempt: Attempt,
    /// How it ended.
    pub outcome: Outcome,
}

/// What an owner or operator may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// New limits in place of those that are named.
    Limits(LimitChange),
    /// Refuse until resumed.
    Pause,
    /// Take mail again.
    Resume,
    /// Refuse for ever; the sealed part is wiped at once.
    Remove,
    /// Give back every use that is in doubt.
    FreeHeld,
}

/// One line of `alias list`: all that sealing lets an operator see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The row's key.
    pub key: RowKey,
    /// Active, paused or removed.
    pub state: State,
    /// Whether it is over by its own limits, for ever.
    pub has_ended: bool,
    /// When it ends.
    pub limits: Limits,
    /// Uses granted.
    pub used: u32,
    /// Uses in flight or in doubt.
    pub held: u32,
    /// When it was made.
    pub created: UnixTime,
}

impl From<Found> for Listed {
    fn from(found: Found) -> Self {
        let Found { key, ledger, created, now, sealed: _ } = found;
        Self {
            key,
            state: ledger.state,
            has_ended: ledger.has_ended(now),
            limits: ledger.limits,
            used: ledger.used,
            held: u32::try_from(ledger.held(now)).unwrap_or(u32::MAX),
            created,
        }
    }
}

/// A stored reply to a request that carried an Idempotency-Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotent {
    /// Hash of the request's body: the same name with another body is another request, and a mistake.
    pub body: ClientTag,
    /// The reply, sealed under the Idempotency-Key.
    pub reply: Sealed,
}

/// What a sweep deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Aliases whose retention was over.
    pub rows: usize,
    /// Kept claims whose retention was over.
    pub claims: usize,
    /// Replies kept for an Idempotency-Key.
    pub replies: usize,
    /// Buckets that were full again.
    pub rates: usize,
}

/// Which part of the store works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether aliases can be looked up.
    pub reader: Result<(), StoreError>,
    /// Whether claims can be made durable.
    pub writer: Result<(), StoreError>,
}

impl Health {
    /// Whether everything works.
    pub fn is_ready(&self) -> bool {
        self.reader.is_ok() && self.writer.is_ok()
    }
}

impl std::fmt::Display for Health {
    /// One line for `/readyz`: what fails, and why.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fault =
            |name, part: &Result<(), StoreError>| part.clone().err().map(|why| format!("{name}: {why}"));
        let faults = [fault("reading", &self.reader), fault("writing", &self.writer)];
        let faults: Vec<_> = faults.into_iter().flatten().collect();
        if faults.is_empty() { f.write_str("ready") } else { f.write_str(&faults.join("; ")) }
    }
}
