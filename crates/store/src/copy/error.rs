//! Why a copy was not made, in words for operators.

use std::path::PathBuf;

use super::{Differences, Origin};
use crate::{OpenError, StoreError};

/// Why a copy was not made, or not finished.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the stores cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// One of the stores failed on the way.
    #[error("{store} failed on the way: {why}. Run the same command again: it goes on where it was")]
    Store {
        /// Which.
        store: String,
        /// How.
        why: StoreError,
    },
    /// A node serves it.
    #[error(
        "{store} is served by {node}: stop every node that uses it, and run this again. (One \
             that was killed counts as serving for 15 s more.)"
    )]
    Served {
        /// Which.
        store: String,
        /// What stands in the node's lease.
        node: String,
    },
    /// There is no store to copy.
    #[error("there is no store at {}", .0.display())]
    Nothing(PathBuf),
    /// No alias of the first tempalias is there.
    #[error("{store} holds no alias of the first tempalias: there is no key like aliases:*. {}", advice(namespace.as_deref()))]
    NothingOf2010 {
        /// Which.
        store: String,
        /// The namespace of the store of today that it holds instead, if it does.
        namespace: Option<String>,
    },
    /// The target is in use.
    #[error("{store} holds {rows} aliases already: a copy is made into an empty store only")]
    NotEmpty {
        /// Which.
        store: String,
        /// How many rows.
        rows: u64,
    },
    /// The target holds half of something else.
    #[error("{store} holds an unfinished copy of {from}: finish that one, or empty {store}")]
    OtherCopy {
        /// Which.
        store: String,
        /// What was being copied.
        from: String,
    },
    /// The same copy was begun once more: only the last run may write.
    #[error(
        "another run of this copy into {store} was begun after this one: it goes on, or has finished, and this one \
             ends"
    )]
    AnotherRun {
        /// Which.
        store: String,
    },
    /// Both sides are one.
    #[error("{0} and {1} are the same store")]
    Same(String, String),
    /// Not the same at the end.
    #[error(
        "the copy differs from its source: {0}. It cannot be served. Run the same command again to mend it"
    )]
    Differs(Differences),
}

fn advice(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!(
            "It holds a store of today (store.namespace {namespace}), which is copied by the same command without \
             --legacy"
        ),
        None => "See that FROM names the right server and database: redis://HOST:PORT/NUMBER".to_owned(),
    }
}

impl CopyError {
    pub(crate) fn store(which: &Origin, why: StoreError) -> Self {
        Self::Store { store: which.shown.clone(), why }
    }
}
