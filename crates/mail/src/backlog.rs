//! Claims that were asked for and are not settled yet: how many there may be, and those that wait for a store that is
//! down. What waits is tried again for as long as the process lives: once a verdict is known it is not to become a
//! doubt because the store was away for long.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempalias_store::{Settlement, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// First pause between tries; doubled up to [`LONGEST_PAUSE`] while nothing can be settled. Each is shortened at random
/// by up to a half, so that nodes do not all come at once when their store is back.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Settlements tried at one time: a store that has just come back is not to be overrun.
const AT_ONCE: usize = 64;
/// Once the program wants to end, so many fruitless tries end it: the next start finds the claims in doubt.
const TRIES_AT_THE_END: u32 = 5;
/// Between two log lines that say the same: a store that comes and goes is one trouble.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// All claims of this process that are not settled.
#[derive(Debug)]
pub(crate) struct Backlog {
    places: Arc<Semaphore>,
    most: usize,
    inside: Mutex<Inside>,
}

/// Room for the settlements of one mail; given back when the last of them is done.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Inside {
    waiting: VecDeque<Waiting>,
    /// Whether somebody works on what waits.
    is_worked_on: bool,
    outage: Outage,
}

/// One settlement that the store has not taken yet.
#[derive(Debug)]
struct Waiting {
    settlement: Settlement,
    /// Shared by those of one mail.
    _mail: Arc<Mail>,
}

/// Dropped with the last settlement of a mail.
#[derive(Debug)]
struct Mail {
    _place: Place,
    _settled: oneshot::Sender<()>,
}

/// What the log was told, and will be.
#[derive(Debug, Default)]
struct Outage {
    /// When the first of those that wait began to, if the log knows.
    since: Option<Instant>,
    /// How many were settled late since then.
    settled: u64,
    told: Option<Instant>,
    told_of_no_place: Option<Instant>,
}

/// Settlements of one mail that were put into the backlog.
pub(crate) struct Added {
    /// Ends when all of them have left it.
    pub(crate) done: oneshot::Receiver<()>,
    /// Whether the caller must see that somebody works on it: [`Backlog::work`].
    pub(crate) needs_work: bool,
}

impl Backlog {
    /// Room for so many settlements.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(most)), most, inside: Mutex::default() }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for the settlements of a mail that is about to ask for `count` claims. None: it must not ask, or there
    /// would be no end to what waits.
    pub(crate) fn reserve(&self, count: usize) -> Option<Place> {
        // A mail for more recipients than all the room is for takes all of it: better than never.
        let count = u32::try_from(count.min(self.most)).unwrap_or(u32::MAX);
        let place = self.places.clone().try_acquire_many_owned(count).ok();
        if place.is_none() {
            self.inside().outage.no_place(self.most);
        }
        place.map(|permit| Place { _permit: permit })
    }

    /// The store did not take these. From here on each stands for itself: one that it never takes, because its row is
    /// damaged, does not hold the others up.
    pub(crate) fn add(&self, settlements: Vec<Settlement>, place: Place, error: &StoreError) -> Added {
        let (settled, done) = oneshot::channel();
        let mail = Arc::new(Mail { _place: place, _settled: settled });
        let mut inside = self.inside();
        if inside.waiting.is_empty() && !inside.is_worked_on {
            inside.outage.begins(error);
        }
        let new = settlements.into_iter().map(|settlement| Waiting { settlement, _mail: mail.clone() });
        inside.waiting.extend(new);
        let needs_work = !std::mem::replace(&mut inside.is_worked_on, true);
        Added { done, needs_work }
    }

    /// Works on what waits until nothing does. `settle` asks the store.
    pub(crate) async fn work<Asked>(
        &self,
        mut draining: watch::Receiver<bool>,
        settle: impl Fn(Settlement) -> Asked,
    ) where
        Asked: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let mut pause = FIRST_PAUSE;
        let mut fruitless = 1;
        while !self.is_over() {
            rest(pause, &mut draining).await;
            let settled = self.pass(&draining, &settle).await;
            if settled > 0 {
                fruitless = 0;
                pause = (pause / 2).max(FIRST_PAUSE);
            } else {
                fruitless += 1;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            if *draining.borrow() && fruitless >= TRIES_AT_THE_END {
                self.give_up();
            }
        }
    }

    /// Tries everything that waits, some at a time; how many could be settled. When the program wants to end, not on
    /// and on at a store that takes none.
    async fn pass<Asked>(
        &self,
        draining: &watch::Receiver<bool>,
        settle: &impl Fn(Settlement) -> Asked,
    ) -> usize
    where
        Asked: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let mut left = self.inside().waiting.len();
        let mut settled = 0;
        while left > 0 {
            let batch: Vec<_> = {
                let mut inside = self.inside();
                let count = inside.waiting.len().min(left).min(AT_ONCE);
                inside.waiting.drain(..count).collect()
            };
            let count = batch.len();
            // Nobody else takes anything out, so there is always something.
            left -= count.max(1);
            let of_batch = self.try_all(batch, settle).await;
            settled += of_batch;
            if of_batch == 0 && *draining.borrow() {
                break;
            }
        }
        settled
    }

    async fn try_all<Asked>(&self, batch: Vec<Waiting>, settle: &impl Fn(Settlement) -> Asked) -> usize
    where
        Asked: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let mut tries = JoinSet::new();
        for one in batch {
            let asked = settle(one.settlement);
            tries.spawn(async move { (asked.await.is_ok(), one) });
        }
        let mut settled = 0;
        while let Some(tried) = tries.join_next().await {
            match tried {
                Ok((true, _)) => settled += 1,
                Ok((false, one)) => self.inside().waiting.push_back(one),
                Err(error) => tracing::error!(%error, "a settlement ended without a word"),
            }
        }
        self.inside().outage.settled += settled as u64;
        settled
    }

    /// Whether nothing waits any more; then nobody works on it either.
    fn is_over(&self) -> bool {
        let mut inside = self.inside();
        if inside.waiting.is_empty() {
            inside.is_worked_on = false;
            inside.outage.ends();
        }
        !inside.is_worked_on
    }

    fn give_up(&self) {
        let given_up = std::mem::take(&mut self.inside().waiting);
        if !given_up.is_empty() {
            let left = given_up.len();
            tracing::warn!(
                left,
                "claims could not be settled before the end: they are in doubt at the next start"
            );
        }
    }
}

/// A pause. The wish to end the program cuts short one that began before it.
async fn rest(pause: Duration, draining: &mut watch::Receiver<bool>) {
    let percent = 50 + getrandom::u32().unwrap_or_default() % 51;
    let pause = pause * percent / 100;
    if *draining.borrow() {
        sleep(pause).await;
    } else {
        tokio::select! {
            () = sleep(pause) => {}
            _ = draining.wait_for(|draining| *draining) => {}
        }
    }
}

impl Outage {
    fn begins(&mut self, error: &StoreError) {
        if is_due(&mut self.told) {
            self.since = Some(Instant::now());
            self.settled = 0;
            tracing::warn!(%error, "claims wait to be settled until the store takes them");
        }
    }

    fn ends(&mut self) {
        if let Some(since) = self.since.take() {
            let (settled, seconds) = (self.settled, since.elapsed().as_secs());
            tracing::info!(settled, seconds, "no claim waits to be settled any longer");
        }
    }

    fn no_place(&mut self, most: usize) {
        if is_due(&mut self.told_of_no_place) {
            tracing::error!(
                most,
                "too many claims wait to be settled: mail that would need another is deferred"
            );
        }
    }
}

/// Whether the log may be told again; notes that it was.
fn is_due(told: &mut Option<Instant>) -> bool {
    let is_due = told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
    if is_due {
        *told = Some(Instant::now());
    }
    is_due
}

#[cfg(test)]
mod tests;
