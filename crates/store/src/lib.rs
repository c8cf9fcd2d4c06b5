//! Where aliases and claims are kept, durably.
//!
//! One enum over the backends, one contract (`tests/contract.rs`) that each must pass. Owns atomicity and
//! durability: a claim is handed out only after it would survive a power cut. Decides nothing about aliases:
//! that is `alias`, called inside the transaction. The store's clock is the one clock for validity.

mod embedded;

use std::time::Duration;

use tempalias_alias::{
    Answer, Attempt, ClaimRequest, ClientTag, KeyId, Ledger, Limits, Outcome, Rate, RowKey, Sealed, State, UnixTime,
};

pub use embedded::{Embedded, OpenError, Options};

/// Where the store's time comes from: the system's clock, or a test's.
pub type Clock = std::sync::Arc<dyn Fn() -> UnixTime + Send + Sync>;

/// A store of aliases. Cheap to clone; all clones are one store.
#[derive(Debug, Clone)]
pub enum Store {
    /// `SQLite` in a file of this machine.
    Embedded(Embedded),
}

/// The store did not do what it was asked to. Nothing is known of the aliases: the sender hears 451, never 550.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer in time. A write may or may not have happened; ask again under the same attempt.
    #[error("the store did not answer in time")]
    Timeout,
    /// It answered with a failure: disk full, I/O error, damaged file.
    #[error("the store failed: {0}")]
    Failed(String),
    /// It is shut down.
    #[error("the store is closed")]
    Closed,
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

/// What became of a [`NewRow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// It stands, durably.
    Done,
    /// One of the keys given is taken: draw another name.
    Clash,
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

/// What the store answers to one [`ClaimRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// The answer; durable if it is *Granted* or *Again*.
    pub answer: Answer,
    /// The limits at that moment, for the header lines of the forwarded mail.
    pub limits: Limits,
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
    /// New limits in place of the old.
    Limits(Limits),
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
    /// When it ends.
    pub limits: Limits,
    /// Uses granted.
    pub used: u32,
    /// Uses in flight or in doubt.
    pub held: u32,
    /// When it was made.
    pub created: UnixTime,
}

/// A stored reply, or what stands in its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotent {
    /// Hash of the request's body.
    pub body: ClientTag,
    /// The reply, sealed under the Idempotency-Key.
    pub reply: Sealed,
}

/// How long a reply is kept for its Idempotency-Key.
pub const IDEMPOTENCY_RETENTION: Duration = Duration::from_hours(24);
/// How long a row is kept after its end, so that its owner can see what became of it.
pub const ROW_RETENTION: Duration = Duration::from_hours(30 * 24);
/// The longest that any call takes before it is a [`StoreError::Timeout`].
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);

impl Store {
    /// Looks an alias up: one look-up for each row key given, all of them always. No write.
    ///
    /// # Errors
    /// [`StoreError`] when nothing can be said about the alias.
    pub async fn find(&self, keys: &[RowKey]) -> Result<Option<Found>, StoreError> {
        match self {
            Self::Embedded(store) => store.find(keys).await,
        }
    }
}
