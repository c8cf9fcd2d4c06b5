//! Copying everything from one store to another while nobody serves either of them.
//!
//! Owns what a record is when it travels, the order of the work, and the comparison at its end. Rows go in the order
//! of their keys, a range at a time; how far it has come is kept in the target, so that the same call after a crash
//! goes on. A range is replaced as a whole, so that doing one twice is doing it once.

mod compare;
mod error;
mod offline;
mod record;

use std::collections::BTreeSet;

use tempalias_alias::RowKey;

pub use compare::Differences;
pub use error::CopyError;
pub(crate) use offline::Mark;
pub use offline::{Offline, Place, Target};
pub use record::{Aside, Cursor, Origin, Page, Row};

pub use crate::redis::legacy::{Legacy, OldAlias};

use crate::StoreError;

/// Where rows come from.
#[expect(async_fn_in_trait, reason = "a copy is awaited where it is called: its future need not be Send")]
pub trait Source {
    /// Which store it is.
    fn origin(&self) -> &Origin;

    /// About how many rows there are, cheaply.
    async fn count(&self) -> Result<u64, StoreError>;

    /// The next rows in the order of their keys, after the one given.
    async fn page(&self, after: Option<RowKey>) -> Result<Page, StoreError>;

    /// Some of what is kept beside the rows, and where to go on; none: that was all.
    async fn asides(&self, from: Option<Cursor>) -> Result<(Vec<Aside>, Option<Cursor>), StoreError>;

    /// Who serves it now, if that can be known.
    async fn served_by(&self) -> Result<Option<String>, StoreError>;

    /// Whether `copy` is what this source's `row` had to become.
    fn is_same(&self, row: &Row, copy: &Row) -> bool {
        row == copy
    }
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Rows are brought over.
    Copying,
    /// Both sides are read again.
    Comparing,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Rows done in this stage.
    pub done: u64,
    /// Rows in all, as far as was known when the stage began.
    pub total: u64,
}

/// What is the same on both sides now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// Aliases, ended ones included.
    pub rows: u64,
    /// Kept claims.
    pub claims: u64,
    /// Replies under Idempotency-Keys.
    pub replies: u64,
    /// Buckets of rate limits.
    pub rates: u64,
}

/// Copies everything from `from` to `to` and compares. When it returns, the target may be served.
///
/// # Errors
/// [`CopyError`]. Whatever it is, the same copy may be begun again and goes on, or mends what differs.
pub async fn copy(
    from: &impl Source,
    to: &Target,
    mut watch: impl FnMut(Progress),
) -> Result<Copied, CopyError> {
    bring_rows(from, to, &mut watch).await?;
    bring_asides(from, to).await?;
    let outcome = compare::compare(from, to, &mut watch).await?;
    if let Some(node) = from.served_by().await.map_err(|why| CopyError::store(from.origin(), why))? {
        return Err(CopyError::Served { store: from.origin().shown.clone(), node });
    }
    if !outcome.differences.is_empty() {
        // The next run brings everything again, and so mends it.
        to.begin_again().await?;
        return Err(CopyError::Differs(outcome.differences));
    }
    to.finish().await?;
    Ok(outcome.same)
}

async fn bring_rows(
    from: &impl Source,
    to: &Target,
    watch: &mut impl FnMut(Progress),
) -> Result<(), CopyError> {
    let failed = |why| CopyError::store(from.origin(), why);
    let total = from.count().await.map_err(failed)?;
    let mut after = to.position();
    let mut done = if after.is_some() { to.count().await? } else { 0 };
    loop {
        watch(Progress { stage: Stage::Copying, done, total });
        let page = from.page(after).await.map_err(failed)?;
        done += u64::try_from(page.rows.len()).unwrap_or_default();
        to.put(after, &page).await?;
        match page.end {
            Some(end) => after = Some(end),
            None => break,
        }
    }
    watch(Progress { stage: Stage::Copying, done, total: done });
    Ok(())
}

/// Replies and rate limits: few, and over within a day, so that an interrupted copy just brings them again.
async fn bring_asides(from: &impl Source, to: &Target) -> Result<(), CopyError> {
    let mut cursor = None;
    // A server's iteration may name a key twice.
    let mut seen = BTreeSet::new();
    loop {
        let (mut asides, next) =
            from.asides(cursor).await.map_err(|why| CopyError::store(from.origin(), why))?;
        asides.retain(|aside| seen.insert(aside.name()));
        to.put_asides(&asides).await?;
        cursor = next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}
