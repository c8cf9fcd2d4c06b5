//! What can be done with an alias that exists, and who may.

use std::num::NonZeroU32;

use tempalias_alias::{AliasId, Caps, LimitChange, Limits, ManageSecret, Private, SealError, State};
use tempalias_store::{Change, Found, StoreError};

use crate::Aliases;
use crate::plan::FieldError;
use crate::view::{Standing, View};

/// What somebody shows to be let at an alias.
#[derive(Debug, Clone, Copy)]
pub enum Proof<'a> {
    /// The secret that its maker was told: everything.
    Owner(&'a ManageSecret),
    /// The proof in a forwarded mail: look, pause, resume, remove. Not the target, which a mail that was passed
    /// on should not tell, and nothing that lets more mail through.
    Mail(&'a str),
    /// The machine's operator: everything.
    Operator,
}

/// What is to be changed.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// New end: so many days from now.
    pub days: Option<NonZeroU32>,
    /// New total of messages.
    pub max_usage: Option<NonZeroU32>,
    /// Stop or go on.
    pub paused: Option<bool>,
    /// Fields that were given but could not be read.
    pub unread: Vec<FieldError>,
}

/// Why nothing was shown or done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// No such alias, or a wrong proof: a stranger cannot tell one from the other.
    #[error("no such alias, or not this proof for it")]
    NotFound,
    /// The proof is good, but not for this.
    #[error("this proof does not allow that")]
    NotAllowed,
    /// It has ended by its own limits: for ever, also for its owner.
    #[error("the alias has ended")]
    Ended,
    /// The change cannot be read.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<FieldError>),
    /// The row was found and its seal does not open.
    #[error("the stored alias is damaged: {0}")]
    Damaged(#[from] SealError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An alias whose proof was good.
struct Opened {
    found: Found,
    private: Private,
}

impl Aliases {
    /// The alias as it is now.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn look(&self, id: &AliasId, proof: Proof<'_>) -> Result<View, AccessError> {
        let Opened { found, private } = self.open(id, proof).await?;
        Ok(view(id, proof, &found, private))
    }

    /// Changes it and shows how it is then. The limits change in one step, pausing in another.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn change(
        &self,
        id: &AliasId,
        proof: Proof<'_>,
        changes: &Changes,
    ) -> Result<View, AccessError> {
        let Opened { mut found, private } = self.open(id, proof).await?;
        if !changes.unread.is_empty() {
            return Err(AccessError::Invalid(changes.unread.clone()));
        }
        if changes.days.is_some() || changes.max_usage.is_some() {
            if matches!(proof, Proof::Mail(_)) {
                return Err(AccessError::NotAllowed);
            }
            // Who was told "no such user" is not made a liar: an alias that has ended stays so.
            if found.ledger.has_ended(found.now) {
                return Err(AccessError::Ended);
            }
            let caps = self.caps_for(&found.ledger.limits);
            let granted = LimitChange::grant(changes.days, changes.max_usage, caps, found.now);
            found = self.apply(&found, Change::Limits(granted)).await?;
        }
        if let Some(paused) = changes.paused {
            found = self.apply(&found, if paused { Change::Pause } else { Change::Resume }).await?;
        }
        Ok(view(id, proof, &found, private))
    }

    /// Gives back every use that is in doubt and shows the alias then.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn free_held(&self, id: &AliasId, proof: Proof<'_>) -> Result<View, AccessError> {
        let Opened { found, private } = self.open(id, proof).await?;
        if matches!(proof, Proof::Mail(_)) {
            return Err(AccessError::NotAllowed);
        }
        let found = self.apply(&found, Change::FreeHeld).await?;
        Ok(view(id, proof, &found, private))
    }

    /// Ends the alias for ever and wipes whom it belonged to.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn remove(&self, id: &AliasId, proof: Proof<'_>) -> Result<(), AccessError> {
        let Opened { found, .. } = self.open(id, proof).await?;
        self.store.change(found.key, Change::Remove).await?;
        Ok(())
    }

    async fn open(&self, id: &AliasId, proof: Proof<'_>) -> Result<Opened, AccessError> {
        let found = self.store.find(&self.keys.row_keys(id)).await?.ok_or(AccessError::NotFound)?;
        let key = self.keys.maker_of(id, found.key).ok_or(AccessError::NotFound)?;
        // What belonged to whom is wiped at removal: nothing is left to show, or to prove.
        if found.ledger.state == State::Removed {
            return Err(AccessError::NotFound);
        }
        let private = key.open(id, &found.sealed)?;
        let good = match proof {
            Proof::Owner(secret) => key.manage_hash(id, secret) == private.manage,
            Proof::Mail(mac) => key.is_mail_mac(id, found.ledger.limits.valid_until, mac),
            Proof::Operator => true,
        };
        if good { Ok(Opened { found, private }) } else { Err(AccessError::NotFound) }
    }

    /// An alias that was imported may have more than anybody gets today. Asking for what it has takes nothing from it.
    fn caps_for(&self, limits: &Limits) -> Caps {
        let has = limits.max_usage.map_or(0, NonZeroU32::get);
        Caps { max_usage: self.policy.caps.max_usage.max(has), ..self.policy.caps }
    }

    async fn apply(&self, found: &Found, change: Change) -> Result<Found, AccessError> {
        let changed = self.store.change(found.key, change).await?;
        changed.filter(|found| found.ledger.state != State::Removed).ok_or(AccessError::NotFound)
    }
}

fn view(id: &AliasId, proof: Proof<'_>, found: &Found, private: Private) -> View {
    let Found { ledger, created, now, .. } = found;
    View {
        id: id.clone(),
        domain: private.domain,
        target: (!matches!(proof, Proof::Mail(_))).then_some(private.target),
        standing: Standing::of(ledger, *now),
        paused: ledger.state == State::Paused,
        limits: ledger.limits,
        used: ledger.used,
        remaining: ledger.remaining(),
        held: u32::try_from(ledger.held(*now)).unwrap_or(u32::MAX),
        created: *created,
        now: *now,
    }
}
