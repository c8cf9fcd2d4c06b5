//! Reading both sides again, record by record, side by side.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;

use tempalias_alias::{RowKey, UnixTime};

use super::{Aside, Copied, CopyError, Page, Progress, Row, Source, Stage, Target};

/// So many differences are told in full.
const TOLD: usize = 10;

/// What is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// The first ones, in words.
    pub first: Vec<String>,
    /// How many there are.
    pub count: u64,
}

impl Differences {
    /// Whether all is the same.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn note(&mut self, words: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < TOLD {
            self.first.push(words());
        }
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = self.count.saturating_sub(u64::try_from(self.first.len()).unwrap_or_default());
        f.write_str(&self.first.join("; "))?;
        if more > 0 { write!(f, "; and {more} more") } else { Ok(()) }
    }
}

pub(super) struct Outcome {
    pub(super) same: Copied,
    pub(super) differences: Differences,
}

pub(super) async fn compare(
    from: &impl Source,
    to: &Target,
    watch: &mut impl FnMut(Progress),
) -> Result<Outcome, CopyError> {
    let mut outcome = Outcome { same: Copied::default(), differences: Differences::default() };
    compare_rows(from, to, &mut outcome, watch).await?;
    compare_asides(from, to, &mut outcome).await?;
    Ok(outcome)
}

/// One side, a page at a time.
#[derive(Default)]
struct Side {
    rows: VecDeque<Row>,
    after: Option<RowKey>,
    is_done: bool,
}

impl Side {
    /// Sees to it that the next row is there, if there is one. `now` becomes the latest time that any side has told.
    async fn fill<E, F: Future<Output = Result<Page, E>>>(
        &mut self,
        now: &mut UnixTime,
        page: impl Fn(Option<RowKey>) -> F,
    ) -> Result<(), E> {
        while self.rows.is_empty() && !self.is_done {
            let Page { rows, end, now: told } = page(self.after).await?;
            *now = (*now).max(told);
            self.rows.extend(rows);
            self.after = end;
            self.is_done = end.is_none();
        }
        Ok(())
    }

    /// The next row if its key is `key`. None if it is not, or if its retention is over.
    fn take(&mut self, key: RowKey, now: UnixTime) -> Option<Row> {
        if self.rows.front()?.key != key {
            return None;
        }
        self.rows.pop_front()?.seen_at(now)
    }
}

async fn compare_rows(
    from: &impl Source,
    to: &Target,
    outcome: &mut Outcome,
    watch: &mut impl FnMut(Progress),
) -> Result<(), CopyError> {
    let (mut here, mut there) = (Side::default(), Side::default());
    let mut now = UnixTime::from_millis(0);
    let total = to.count().await?;
    let mut done = 0;
    loop {
        if here.rows.is_empty() {
            watch(Progress { stage: Stage::Comparing, done, total: total.max(done) });
        }
        here.fill(&mut now, |after| from.page(after))
            .await
            .map_err(|why| CopyError::store(from.origin(), why))?;
        there.fill(&mut now, |after| to.page(after)).await?;
        let key = match (here.rows.front(), there.rows.front()) {
            (None, None) => break,
            (Some(row), None) | (None, Some(row)) => row.key,
            (Some(here), Some(there)) => match here.key.cmp(&there.key) {
                Ordering::Less | Ordering::Equal => here.key,
                Ordering::Greater => there.key,
            },
        };
        done += 1;
        compare_row(from, outcome, key, (here.take(key, now), there.take(key, now)));
    }
    watch(Progress { stage: Stage::Comparing, done, total: done });
    Ok(())
}

fn compare_row(from: &impl Source, outcome: &mut Outcome, key: RowKey, both: (Option<Row>, Option<Row>)) {
    match both {
        (None, None) => {}
        (Some(row), Some(copy)) if from.is_same(&row, &copy) => {
            outcome.same.rows += 1;
            outcome.same.claims += u64::try_from(row.kept.len()).unwrap_or_default();
        }
        (Some(row), Some(copy)) => outcome
            .differences
            .note(|| format!("alias {key}: not the same: {}", row.differing(&copy).join(", "))),
        (Some(_), None) => outcome.differences.note(|| format!("alias {key}: missing in the copy")),
        (None, Some(_)) => outcome.differences.note(|| format!("alias {key}: only in the copy")),
    }
}

/// Everything beside the rows that the source has must be in the target; it may have more, which is over in a day.
async fn compare_asides(from: &impl Source, to: &Target, outcome: &mut Outcome) -> Result<(), CopyError> {
    let mut cursor = None;
    let mut seen = BTreeSet::new();
    loop {
        let (mut asides, next) =
            from.asides(cursor).await.map_err(|why| CopyError::store(from.origin(), why))?;
        asides.retain(|aside| seen.insert(aside.name()));
        let (copies, now) = to.asides_like(&asides).await?;
        for (aside, copy) in asides.iter().zip(copies) {
            let is_reply = matches!(aside, Aside::Reply { .. });
            match copy {
                _ if aside.is_over(now) => {}
                Some(copy) if copy == *aside && is_reply => outcome.same.replies += 1,
                Some(copy) if copy == *aside => outcome.same.rates += 1,
                copy => outcome.differences.note(|| {
                    let what = if is_reply { "a reply under an Idempotency-Key" } else { "a rate limit" };
                    let how = if copy.is_some() { "not the same" } else { "missing in the copy" };
                    format!("{what}: {how}")
                }),
            }
        }
        cursor = next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}
