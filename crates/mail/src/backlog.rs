//! Claims that were asked for and are not settled yet: how many there may be, and those that wait for a store that is
//! down. What waits is tried again for as long as the process lives: once a verdict is known it is not to become a
//! doubt because the store was away for long.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempalias_store::{Settlement, StoreError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Instant, sleep};

/// First pause between tries; doubled up to [`LONGEST_PAUSE`] while nothing can be settled. Each is shortened at random
/// by up to a half, so that nodes do not all come at once when their store is back. The longest is short, since not
/// every store says that it is back, and while a verdict waits here others may take its message for in doubt.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Settlements tried at one time: a store that has just come back is not to be overrun. If it takes none of so many, it
/// is down, and the others need not be tried now.
const AT_ONCE: usize = 64;
/// Refusals of one settlement, each while the store took others, after which the reason is its own: a damaged row, say.
/// The first may be the moment in which the store came back.
const OWN_FAULTS: u8 = 2;
/// Between two tries of what fails for a reason of its own: somebody has to mend something first.
const APART_PAUSE: Duration = Duration::from_mins(1);
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
    /// Told when something has begun to wait.
    added: Notify,
    /// How often the store took something at once, which shows that it works.
    taken: AtomicU64,
}

/// Room for the settlements of one mail; given back when the last of them is done.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Inside {
    waiting: VecDeque<Waiting>,
    /// Those that the store refuses while it takes others.
    apart: VecDeque<Waiting>,
    /// Whether somebody works on what waits.
    is_worked_on: bool,
    outage: Outage,
}

/// One settlement that the store has not taken yet.
#[derive(Debug)]
struct Waiting {
    settlement: Settlement,
    /// How often it was refused while others were taken.
    own_faults: u8,
    /// Shared by those of one mail.
    _mail: Arc<Mail>,
}

/// Dropped with the last settlement of a mail.
#[derive(Debug)]
struct Mail {
    _place: Option<Place>,
    _settled: oneshot::Sender<()>,
}

/// What the log was told, and will be.
#[derive(Debug, Default)]
struct Outage {
    /// Whether anything waits that the store may take when it is back.
    is_on: bool,
    /// When the first of those that wait began to, if the log knows.
    since: Option<Instant>,
    /// How many were settled late since then.
    settled: u64,
    told: Option<Instant>,
    told_of_no_place: Option<Instant>,
    told_of_apart: Option<Instant>,
}

/// Settlements of one mail that were put into the backlog.
pub(crate) struct Added {
    /// Ends when all of them have left it.
    pub(crate) done: oneshot::Receiver<()>,
    /// Whether the caller must see that somebody works on it: [`Backlog::work`].
    pub(crate) needs_work: bool,
}

/// What became of some that were tried.
#[derive(Default)]
struct Tried {
    settled: usize,
    failed: Vec<(Waiting, StoreError)>,
}

impl Backlog {
    /// Room for so many settlements.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(most)),
            most,
            inside: Mutex::default(),
            added: Notify::new(),
            taken: AtomicU64::new(0),
        }
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

    /// The store took a settlement at once.
    pub(crate) fn was_taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// The store did not take these. From here on each stands for itself: one that it never takes, because its row is
    /// damaged, does not hold the others up. Without a place, they wait beyond the bound.
    pub(crate) fn add(
        &self,
        settlements: Vec<Settlement>,
        place: Option<Place>,
        error: &StoreError,
    ) -> Added {
        let (settled, done) = oneshot::channel();
        let mail = Arc::new(Mail { _place: place, _settled: settled });
        let mut inside = self.inside();
        inside.outage.goes_on(error);
        let new = settlements.into_iter().map(|settlement| Waiting {
            settlement,
            own_faults: 0,
            _mail: mail.clone(),
        });
        inside.waiting.extend(new);
        let needs_work = !std::mem::replace(&mut inside.is_worked_on, true);
        drop(inside);
        self.added.notify_one();
        Added { done, needs_work }
    }

    /// Works on what waits until nothing does, and at once when `back` says that the store is back. `settle` asks the
    /// store.
    pub(crate) async fn work<Asked>(
        &self,
        mut draining: watch::Receiver<bool>,
        mut back: watch::Receiver<u64>,
        settle: impl Fn(Settlement) -> Asked,
    ) where
        Asked: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let mut pause = FIRST_PAUSE;
        let mut fruitless = 1;
        let mut tried_apart = Instant::now();
        while !self.is_over() {
            let is_back = self.rest(pause, tried_apart, &mut draining, &mut back).await;
            let mut settled = self.pass(&settle).await;
            let is_draining = *draining.borrow();
            if is_back || is_draining || tried_apart.elapsed() >= APART_PAUSE {
                tried_apart = Instant::now();
                settled += self.pass_apart(is_draining, &settle).await;
            }
            if settled > 0 {
                fruitless = 0;
                pause = (pause / 2).max(FIRST_PAUSE);
            } else {
                fruitless += 1;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            if is_draining && fruitless >= TRIES_AT_THE_END {
                self.give_up();
            }
        }
    }

    /// A pause, at most until it is time for those apart if nothing else waits; whether the store is back. What is new
    /// cuts it short, but not to less than the first pause, or an outage with much mail would know no rest. So does the
    /// wish to end the program, if it came later.
    async fn rest(
        &self,
        pause: Duration,
        tried_apart: Instant,
        draining: &mut watch::Receiver<bool>,
        back: &mut watch::Receiver<u64>,
    ) -> bool {
        let is_draining = *draining.borrow();
        let pause = if self.inside().waiting.is_empty() && !is_draining {
            APART_PAUSE.saturating_sub(tried_apart.elapsed())
        } else {
            jittered(pause)
        };
        let new = async {
            self.added.notified().await;
            sleep(jittered(FIRST_PAUSE)).await;
        };
        tokio::select! {
            // First, or what stands apart would not be tried now.
            biased;
            Ok(()) = back.changed() => true,
            () = sleep(pause) => false,
            () = new => false,
            _ = draining.wait_for(|draining| *draining), if !is_draining => false,
        }
    }

    /// Tries what waits, some at a time, unless the store takes none of these; how many could be settled.
    async fn pass<Asked>(&self, settle: &impl Fn(Settlement) -> Asked) -> usize
    where
        Asked: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let before = self.taken.swap(0, Ordering::Relaxed);
        let mut left = self.inside().waiting.len();
        let mut tried = Tried::default();
        while left > 0 {
            let batch = first_of(&mut self.inside().waiting, left);
            // Nobody else takes anything out, so there is always something.
            left -= batch.len().max(1);
            let of_batch = try_all(batch, settle).await;
            tried.settled += of_batch.settled;
            tried.failed.extend(of_batch.failed);
            if of_batch.settled == 0 {
                break;
            }
        }
        let works = tried.settled > 0 || before > 0;
        self.inside().put_back(tried, works)
    }

    /// Tries what stands apart.
    async fn pass_apart<Asked>(&self, is_draining: bool, settle: &impl Fn(Settlement) -> Asked) -> usize
    where
        Asked: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let mut left = self.inside().apart.len();
        let mut settled = 0;
        while left > 0 {
            let batch = first_of(&mut self.inside().apart, left);
            left -= batch.len().max(1);
            let tried = try_all(batch, settle).await;
            settled += tried.settled;
            self.inside().apart.extend(tried.failed.into_iter().map(|(one, _)| one));
            if tried.settled == 0 && is_draining {
                break;
            }
        }
        if settled > 0 {
            let left = self.inside().apart.len();
            tracing::info!(settled, left, "claims that the store had refused are settled");
        }
        settled
    }

    /// Whether nothing waits any more; then nobody works on it either.
    fn is_over(&self) -> bool {
        let mut inside = self.inside();
        if inside.waiting.is_empty() {
            let apart = inside.apart.len();
            inside.outage.ends(apart);
            inside.is_worked_on = apart > 0;
        }
        !inside.is_worked_on
    }

    fn give_up(&self) {
        let mut inside = self.inside();
        let given_up = (std::mem::take(&mut inside.waiting), std::mem::take(&mut inside.apart));
        drop(inside);
        let left = given_up.0.len() + given_up.1.len();
        if left > 0 {
            tracing::warn!(
                left,
                "claims could not be settled before the end: they are in doubt at the next start"
            );
        }
    }
}

impl Inside {
    /// After a pass: those that failed wait on, or stand apart if the store `works` and refused them once more.
    fn put_back(&mut self, tried: Tried, works: bool) -> usize {
        self.outage.settled += tried.settled as u64;
        let mut new = None;
        for (mut one, error) in tried.failed {
            // That its server is away says nothing about this one: in a Cluster, others go on.
            one.own_faults += u8::from(works && !error.is_of_an_outage());
            if one.own_faults < OWN_FAULTS {
                self.waiting.push_back(one);
            } else {
                self.apart.push_back(one);
                new = Some(error);
            }
        }
        if let Some(error) = new {
            self.outage.some_stand_apart(&error, self.apart.len());
        }
        tried.settled
    }
}

fn first_of(queue: &mut VecDeque<Waiting>, left: usize) -> Vec<Waiting> {
    let count = queue.len().min(left).min(AT_ONCE);
    queue.drain(..count).collect()
}

async fn try_all<Asked>(batch: Vec<Waiting>, settle: &impl Fn(Settlement) -> Asked) -> Tried
where
    Asked: Future<Output = Result<(), StoreError>> + Send + 'static,
{
    let tries: Vec<_> = batch.into_iter().map(|one| (tokio::spawn(settle(one.settlement)), one)).collect();
    let mut tried = Tried::default();
    for (ended, one) in tries {
        // One that ends without a word is not settled.
        match ended.await.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string()))) {
            Ok(()) => tried.settled += 1,
            Err(error) => tried.failed.push((one, error)),
        }
    }
    tried
}

fn jittered(pause: Duration) -> Duration {
    let percent = 50 + getrandom::u32().unwrap_or_default() % 51;
    pause * percent / 100
}

impl Outage {
    /// Something more waits because of `error`.
    fn goes_on(&mut self, error: &StoreError) {
        if !std::mem::replace(&mut self.is_on, true) && is_due(&mut self.told) {
            self.since = Some(Instant::now());
            self.settled = 0;
            tracing::warn!(%error, "claims wait to be settled until the store takes them");
        }
    }

    fn ends(&mut self, apart: usize) {
        self.is_on = false;
        if let Some(since) = self.since.take() {
            let (settled, seconds) = (self.settled, since.elapsed().as_secs());
            tracing::info!(settled, seconds, apart, "no claim waits for the store any longer");
        }
    }

    fn some_stand_apart(&mut self, error: &StoreError, apart: usize) {
        if is_due(&mut self.told_of_apart) {
            tracing::error!(
                %error,
                apart,
                "claims that the store does not settle, although it settles others: they are tried each minute"
            );
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
