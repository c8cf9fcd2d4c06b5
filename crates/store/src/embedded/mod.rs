//! The embedded store: `SQLite` in one file, one thread that writes, two that read.
//!
//! Owns the threads, the queues to them and the bound on every call. Rules about aliases come from `alias`; no
//! thread of the async runtime ever waits for the disk.

mod aliases;
mod claims;
mod damage;
mod kept;
mod link;
mod offline;
mod open;
mod reader;
mod rows;
mod schema;
mod sum;
mod upkeep;
mod work;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tempalias_alias::{
    Admission, ClaimRequest, ClientTag, Fingerprint, KeyId, Owner, Rate, RowKey, UnixTime,
};
use tokio::sync::mpsc::{self, Sender};

use damage::Damage;
use link::Watched;
pub(crate) use offline::EmbeddedOffline;
use open::Opened;
use reader::Reader;
use work::{Abandoned, Acknowledgement, Context, Tidy, Work, job};
use writer::{Counters, Writer};

use crate::{
    CALL_TIMEOUT, Change, Claimed, Clock, Created, Found, Health, Idempotent, Listed, NewRow, Once,
    OpenError, Settlement, StoreError, Swept, in_time,
};

/// Threads that read; more would only compete for the same two cores.
const READERS: usize = 2;
/// Calls that wait for a thread. Those beyond wait in their own task, within [`CALL_TIMEOUT`].
const QUEUE: usize = 1024;
/// The longest page of [`crate::Store::list`]: what a reader may spend on one call.
const PAGE: usize = 1000;

/// How to open an embedded store.
#[derive(Clone)]
pub struct Options {
    /// The database. Its folder must exist; the file is made.
    pub path: PathBuf,
    /// Drawn at random at each start: claims of any other boot are taken for dead.
    pub boot: u64,
    /// The one clock that decides what is valid.
    pub clock: Clock,
    /// Which server keys the caller has.
    pub keys: Vec<KeyId>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, boot, keys, clock: _ } = self;
        f.debug_struct("Options").field("path", path).field("boot", boot).field("keys", keys).finish()
    }
}

/// How much the writer has done; for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Transactions that changed something: each waited for the disk once.
    pub commits: u64,
    /// Calls that these, and transactions without a change, have answered.
    pub calls: u64,
}

/// An open embedded store. Cheap to clone. Dropping the last clone waits (at most [`CALL_TIMEOUT`]) until what
/// was handed over is written, the threads have ended and the file is free for the next.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
}

/// The fields are dropped in their order: without senders the threads end, and `_closed` waits for that.
struct Shared {
    write: Sender<Box<dyn Work>>,
    read: Sender<Box<dyn Work>>,
    _closed: Closed,
    counters: Arc<Counters>,
    /// Something was wiped from the database and may still stand in the log.
    unscrubbed: Arc<AtomicBool>,
    owner: Owner,
    clock: Clock,
    file: Arc<Watched>,
    damage: Arc<Damage>,
}

/// Waits for the writer's end when it is dropped.
struct Closed(Mutex<Receiver<()>>);

impl Drop for Closed {
    fn drop(&mut self) {
        let end = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent: the writer's end hangs up. A disk that hangs must not hang us.
        let _ = end.recv_timeout(CALL_TIMEOUT);
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedded({})", self.shared.file.path().display())
    }
}

impl Embedded {
    /// Opens, or makes, the store at `options.path` and starts its threads.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let Opened { file, writer, readers: links, lock, damage } = open::open(&options, READERS)?;
        let failed = |why| OpenError::File { path: file.path().to_owned(), why };
        let owner = Owner { node: 0, boot: options.boot };
        let clock = options.clock;
        let (read, queue) = mpsc::channel(QUEUE);
        let (write, calls) = mpsc::channel(QUEUE);
        let (closed, close) = sync_channel(0);
        let queue = Arc::new(Mutex::new(queue));
        let mut readers = Vec::with_capacity(READERS);
        for (number, link) in links.into_iter().enumerate() {
            let (clock, damage) = (Arc::clone(&clock), Arc::clone(&damage));
            let reader = Reader { link, owner, clock, damage };
            let queue = Arc::clone(&queue);
            readers
                .push(spawn(format!("store-read-{number}"), move || reader.serve(&queue)).map_err(failed)?);
        }
        let counters = Arc::new(Counters::default());
        let writer = Writer {
            link: writer,
            owner,
            clock: Arc::clone(&clock),
            counters: Arc::clone(&counters),
            damage: Arc::clone(&damage),
            readers,
            _lock: lock,
        };
        spawn("store-write".to_owned(), move || writer.serve(calls, closed)).map_err(failed)?;
        let (closed, unscrubbed) = (Closed(Mutex::new(close)), Arc::default());
        Ok(Self {
            shared: Arc::new(Shared {
                write,
                read,
                _closed: closed,
                counters,
                unscrubbed,
                owner,
                clock,
                file,
                damage,
            }),
        })
    }

    /// How much the writer has done.
    pub fn stats(&self) -> Stats {
        let Counters { commits, calls } = &*self.shared.counters;
        Stats { commits: commits.load(Ordering::Relaxed), calls: calls.load(Ordering::Relaxed) }
    }

    pub(crate) fn owner(&self) -> Owner {
        self.shared.owner
    }

    pub(crate) fn now(&self) -> UnixTime {
        (self.shared.clock)()
    }

    pub(crate) async fn find(&self, keys: &[RowKey]) -> Result<Option<Found>, StoreError> {
        let keys: Arc<[_]> = keys.into();
        let same = Arc::clone(&keys);
        in_time(async {
            let found = self.read(move |at| aliases::find(at, &same)).await?;
            let is_settling = found.as_ref().is_some_and(|row| {
                row.ledger.admit(row.now) != Admission::Alive && !row.ledger.kept.is_empty()
            });
            // A settling or an acknowledgement that waits at the writer may have ended what makes this row
            // "held" or "expected": those answers are rare, so it is worth asking behind what waits.
            if is_settling { self.write(move |at| aliases::find(at, &keys)).await } else { Ok(found) }
        })
        .await
    }

    pub(crate) async fn create(
        &self,
        row: NewRow,
        also_free: &[RowKey],
        once: Option<Once>,
    ) -> Result<Created, StoreError> {
        let also_free = also_free.to_vec();
        in_time(self.write(move |at| aliases::create(at, &row, &also_free, once.as_ref()))).await
    }

    pub(crate) async fn claim(&self, requests: Vec<ClaimRequest>) -> Result<Vec<Claimed>, StoreError> {
        let requests: Arc<[_]> = requests.into();
        let same = Arc::clone(&requests);
        // A counted alias most likely needs the writer anyway: asking a reader first would only take time.
        let is_for_writer = requests.iter().all(|request| request.was_counted);
        in_time(async {
            let peeked =
                if is_for_writer { None } else { self.read(move |at| claims::peek(at, &same)).await? };
            match peeked {
                Some(answers) => Ok(answers),
                None => self.write(move |at| claims::claim(at, &requests)).await,
            }
        })
        .await
    }

    pub(crate) async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), StoreError> {
        in_time(
            self.write_regardless(move |at| settlements.iter().try_for_each(|one| claims::settle(at, one))),
        )
        .await
    }

    pub(crate) async fn acknowledge(&self, delivered: Vec<(RowKey, Fingerprint)>) -> Result<(), StoreError> {
        let work = Box::new(Acknowledgement(delivered));
        in_time(async { self.shared.write.send(work).await.map_err(|_| StoreError::Closed) }).await
    }

    pub(crate) async fn change(&self, key: RowKey, change: Change) -> Result<Option<Found>, StoreError> {
        let unscrubbed = Arc::clone(&self.shared.unscrubbed);
        in_time(self.write(move |at| {
            // Set on the writer's thread: a sweep that clears it comes after this commit with its scrubbing.
            unscrubbed.fetch_or(change == Change::Remove, Ordering::Relaxed);
            aliases::change(at, key, &change)
        }))
        .await
    }

    pub(crate) async fn list(&self, after: Option<RowKey>, limit: usize) -> Result<Vec<Listed>, StoreError> {
        in_time(self.read(move |at| aliases::list(at, after, limit.min(PAGE)))).await
    }

    pub(crate) async fn take(&self, tag: ClientTag, rate: Rate) -> Result<Result<(), Duration>, StoreError> {
        in_time(async {
            match self.read(move |at| upkeep::refusal(at, tag, rate)).await? {
                Some(wait) => Ok(Err(wait)),
                None => self.write(move |at| upkeep::take(at, tag, rate)).await,
            }
        })
        .await
    }

    pub(crate) async fn idempotent_reply(&self, name: ClientTag) -> Result<Option<Idempotent>, StoreError> {
        in_time(self.read(move |at| aliases::idempotent_reply(at, name))).await
    }

    /// One transaction a step: claims that arrive meanwhile share it or get the next one.
    pub(crate) async fn sweep(&self) -> Result<Swept, StoreError> {
        let mut sum = Swept::default();
        loop {
            let step = in_time(self.write(upkeep::sweep)).await?;
            sum.rows += step.rows;
            sum.claims += step.claims;
            sum.replies += step.replies;
            sum.rates += step.rates;
            if [step.rows, step.claims, step.replies, step.rates].iter().all(|&count| count < upkeep::STEP) {
                break;
            }
        }
        if self.shared.unscrubbed.swap(false, Ordering::Relaxed) || sum.rows + sum.replies > 0 {
            let (work, done) = Tidy::job();
            let scrubbed = in_time(self.hand_over(&self.shared.write, work, done)).await;
            self.shared.unscrubbed.fetch_or(scrubbed != Ok(true), Ordering::Relaxed);
        }
        Ok(sum)
    }

    pub(crate) async fn check(&self) -> Health {
        let reader = in_time(self.read(upkeep::probe_reader));
        let (reader, writer) = tokio::join!(reader, in_time(self.write(upkeep::probe_writer)));
        let Some(why) = self.shared.damage.noted() else { return Health { reader, writer } };
        // A disk that read badly may read well again; only a look at all rows tells.
        if in_time(self.read_all()).await.is_ok() {
            self.shared.damage.is_over();
            return Health { reader, writer };
        }
        Health { reader: reader.and(Err(StoreError::Failed(why))), writer }
    }

    /// Reads every row, in steps that let others through in between.
    async fn read_all(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.read(move |at| aliases::list(at, after, PAGE)).await?;
            match page.last() {
                None => return Ok(()),
                Some(last) => after = Some(last.key),
            }
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        todo: impl FnOnce(&Context<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (work, answer) = job(Abandoned::Skip, todo);
        self.hand_over(&self.shared.read, work, answer).await
    }

    async fn write<T: Send + 'static>(
        &self,
        todo: impl FnOnce(&Context<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (work, answer) = job(Abandoned::Skip, todo);
        self.hand_over(&self.shared.write, work, answer).await
    }

    async fn write_regardless<T: Send + 'static>(
        &self,
        todo: impl FnOnce(&Context<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (work, answer) = job(Abandoned::Run, todo);
        self.hand_over(&self.shared.write, work, answer).await
    }

    async fn hand_over<T>(
        &self,
        queue: &Sender<Box<dyn Work>>,
        work: Box<dyn Work>,
        answer: work::Answer<T>,
    ) -> Result<T, StoreError> {
        queue.send(work).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name).stack_size(512 << 10).spawn(body)
}
