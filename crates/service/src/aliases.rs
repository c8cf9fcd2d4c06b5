//! The one value that a front door holds.

use std::fmt;
use std::sync::Arc;

use tempalias_alias::{Keys, RowKey};
use tempalias_store::{Listed, Store, StoreError};

use crate::Policy;

/// Fills a buffer with random bytes that nobody can guess.
pub type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// All aliases of this instance. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Aliases {
    pub(crate) store: Store,
    pub(crate) keys: Arc<Keys>,
    pub(crate) policy: Arc<Policy>,
    random: Random,
}

impl Aliases {
    /// Over `store`, sealed under `keys`, within `policy`.
    pub fn new(store: Store, keys: Arc<Keys>, policy: Policy, random: Random) -> Self {
        Self { store, keys, policy: Arc::new(policy), random }
    }

    /// What the operator decided.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The next `limit` aliases after `after`, as an operator may see them: without names and targets.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, after: Option<RowKey>, limit: usize) -> Result<Vec<Listed>, StoreError> {
        self.store.list(after, limit).await
    }

    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.random)(&mut bytes);
        bytes
    }
}

impl fmt::Debug for Aliases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aliases").field("policy", &self.policy).finish_non_exhaustive()
    }
}
