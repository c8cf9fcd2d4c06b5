//! Making an alias.

use std::time::Duration;

use tempalias_address::{Domain, Mailbox};
use tempalias_alias::{AliasId, ClientNetwork, Limits, ManageSecret, Private, UnixTime};
use tempalias_store::{Created, NewRow, StoreError};

use crate::Aliases;
use crate::once::Once;
use crate::plan::{Draft, FieldError, Plan};

/// Draws of a name before giving up. With 60 random bits a second draw is already a once-in-a-lifetime event;
/// eight in a row mean that the source of randomness is broken.
const MAX_DRAWS: usize = 8;

/// Who asks for an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requester {
    /// Anyone, counted by network.
    Client(ClientNetwork),
    /// The operator, not counted.
    Operator,
}

/// A new alias, with the secret that is told only now.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its local part.
    pub id: AliasId,
    /// Its domain.
    pub domain: Domain,
    /// Where its mail goes.
    pub target: Mailbox,
    /// What opens it to its owner.
    pub secret: ManageSecret,
    /// What was granted.
    pub limits: Limits,
    /// Days granted, if days were asked for.
    pub days: Option<u32>,
    /// When it was made.
    pub now: UnixTime,
}

/// Why there is no new alias.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// What was asked for cannot be granted; every fault, in the order of the fields.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<FieldError>),
    /// This client made too many; it may make the next after this time.
    #[error("too many aliases from one client")]
    RateLimited(Duration),
    /// The same name was given to another request before.
    #[error("the idempotency key belongs to another request")]
    KeyReused,
    /// The stored answer to this request does not open.
    #[error("the stored answer under this idempotency key is damaged")]
    DamagedReply,
    /// Every name that was drawn is taken.
    #[error("drew {MAX_DRAWS} names and all are taken: the source of randomness seems to be broken")]
    NoFreeName,
    /// The store did not answer; the alias may or may not have been made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Made {
    /// The whole address.
    pub fn address(&self) -> String {
        format!("{}@{}", self.id, self.domain)
    }
}

impl Aliases {
    /// Makes an alias. A request `once` made and repeated gets its first answer again.
    ///
    /// # Errors
    /// [`CreateError`]; after [`CreateError::Store`] only a request with `once` can be repeated safely.
    pub async fn create(
        &self,
        draft: &Draft,
        requester: Requester,
        once: Option<Once<'_>>,
    ) -> Result<Made, CreateError> {
        if let Some(once) = once
            && let Some(made) = self.answered(once).await?
        {
            return Ok(made);
        }
        let now = self.store.now();
        let plan = self.policy.plan(draft, now).map_err(CreateError::Invalid)?;
        self.count(requester).await?;
        for _ in 0..MAX_DRAWS {
            if let Some(made) = self.draw(&plan, now, once).await? {
                return Ok(made);
            }
        }
        Err(CreateError::NoFreeName)
    }

    /// Counts a request that is about to be granted: a mistyped one costs its sender nothing.
    async fn count(&self, requester: Requester) -> Result<(), CreateError> {
        let Requester::Client(client) = requester else { return Ok(()) };
        let tag = self.keys.first().client_tag("create", client);
        self.store.take(tag, self.policy.create_rate).await?.map_err(CreateError::RateLimited)
    }

    /// Draws a name and tries to take it. None: somebody has it.
    async fn draw(
        &self,
        plan: &Plan,
        now: UnixTime,
        once: Option<Once<'_>>,
    ) -> Result<Option<Made>, CreateError> {
        let key = self.keys.first();
        let made = Made {
            id: AliasId::random(self.random()),
            domain: plan.domain.clone(),
            target: plan.target.clone(),
            secret: ManageSecret::random(self.random()),
            limits: plan.limits,
            days: plan.days,
            now,
        };
        let private = Private {
            target: made.target.clone(),
            domain: made.domain.clone(),
            manage: key.manage_hash(&made.id, &made.secret),
        };
        let row = NewRow {
            key: key.row_key(&made.id),
            key_id: key.id(),
            limits: made.limits,
            sealed: key.seal(&made.id, &private, self.random()),
        };
        // Under an older key the same name may stand already: it must stay unique.
        let older: Vec<_> =
            self.keys.row_keys(&made.id).into_iter().filter(|&other| other != row.key).collect();
        let reply = once.map(|once| once.keep(key, &made, self.random()));
        match (self.store.create(row, &older, reply).await?, once) {
            (Created::Done, _) => Ok(Some(made)),
            // The same request came twice at once, and the other was faster.
            (Created::Replayed(stored), Some(once)) => once.answer(key, &stored).map(Some),
            (Created::Clash | Created::Replayed(_), _) => Ok(None),
        }
    }
}
