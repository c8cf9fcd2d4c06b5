//! Where aliases and claims are kept, durably.
//!
//! One enum over the backends, one contract (`tests/contract.rs`) that each must pass. Owns atomicity and
//! durability: a claim is handed out only after it would survive a power cut. Decides nothing about aliases:
//! that is `alias`, called inside the transaction. The store's clock is the one clock for validity.

pub mod copy;
mod embedded;
mod open_error;
mod redis;
mod types;

use std::future::Future;
use std::time::{Duration, SystemTime};

use tempalias_alias::{ClaimRequest, ClientTag, Fingerprint, Owner, Rate, RowKey, UnixTime};
use tokio::sync::watch;

pub use embedded::{Embedded, Options, Stats};
pub use open_error::OpenError;
pub use redis::{AddressError, Adopted, COME_BACK, Draw, Redis, RedisAddress, RedisOptions, adopt};
pub use types::{
    Change, Claimed, Created, Found, Health, Idempotent, Listed, NewRow, Once, Settlement, StoreError, Swept,
};

/// Where the store's time comes from: the system's clock, or a test's.
pub type Clock = std::sync::Arc<dyn Fn() -> UnixTime + Send + Sync>;

/// How long a reply is kept for its Idempotency-Key.
pub const IDEMPOTENCY_RETENTION: Duration = Duration::from_hours(24);
/// How long a row is kept after its end, so that its owner can see what became of it.
pub const ROW_RETENTION: Duration = Duration::from_hours(30 * 24);
/// The longest that any call takes before it is a [`StoreError::Timeout`].
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The clock of this machine.
pub fn system_clock() -> Clock {
    std::sync::Arc::new(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    })
}

/// A store of aliases. Cheap to clone; all clones are one store, which closes with the last of them.
#[derive(Debug, Clone)]
pub enum Store {
    /// `SQLite` in a file of this machine.
    Embedded(Embedded),
    /// Redis or Valkey, for several nodes.
    Redis(Redis),
}

impl Store {
    /// Opens, or makes, the embedded store. Blocks for as long as the disk does; meant for the start.
    ///
    /// # Errors
    /// [`OpenError`] says what stands in the way and what to do about it.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        Embedded::open(options).map(Self::Embedded)
    }

    /// Opens a store on Redis. Needs a running `tokio`.
    ///
    /// # Errors
    /// [`OpenError`] when the server answers and is not what it must be; one that does not answer is waited for in the
    /// background.
    pub async fn connect(options: RedisOptions) -> Result<Self, OpenError> {
        Redis::open(options).await.map(Self::Redis)
    }

    /// Looks an alias up: one look-up for each row key given, all of them always. No write, and no wait for one,
    /// but for a row that takes no new mail and still keeps claims: those may just be ending.
    ///
    /// # Errors
    /// [`StoreError`] when nothing can be said about the alias.
    pub async fn find(&self, keys: &[RowKey]) -> Result<Option<Found>, StoreError> {
        match self {
            Self::Embedded(store) => store.find(keys).await,
            Self::Redis(store) => store.find(keys).await,
        }
    }

    /// Makes a row, durably, unless its key or one of `also_free` (the same name under the other server keys)
    /// is taken. With `once`, the reply is stored in the same step, and a second request under the same name
    /// gets the first one's reply and makes nothing.
    ///
    /// # Errors
    /// [`StoreError`]; after a timeout the row may stand or not.
    pub async fn create(
        &self,
        row: NewRow,
        also_free: &[RowKey],
        once: Option<Once>,
    ) -> Result<Created, StoreError> {
        match self {
            Self::Embedded(store) => store.create(row, also_free, once).await,
            Self::Redis(store) => store.create(row, also_free, once).await,
        }
    }

    /// Asks for a use of each row, all in one step, durable before it returns. Answers stand in the order of
    /// the requests; a row that is not there answers *Over*. Only *Granted* and *Again* cost a write.
    ///
    /// After [`StoreError::Timeout`] the uses may be taken: ask again under the same attempt, or settle it as
    /// unsent.
    ///
    /// # Errors
    /// [`StoreError`]: then no dot may be sent.
    pub async fn claim(&self, requests: Vec<ClaimRequest>) -> Result<Vec<Claimed>, StoreError> {
        match self {
            Self::Embedded(store) => store.claim(requests).await,
            Self::Redis(store) => store.claim(requests).await,
        }
    }

    /// Ends attempts, durably when it returns. What is stale or unknown changes nothing, so repeating is safe.
    /// Once handed over it happens even if nobody waits for it any longer.
    ///
    /// # Errors
    /// [`StoreError`]: settle again.
    pub async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.settle(settlements).await,
            Self::Redis(store) => store.settle(settlements).await,
        }
    }

    /// Forgets claims that were delivered and whose senders have shown that they know. Every later claim
    /// knows, but it is durable only with the next write, and [`Store::find`] may show the claim until then:
    /// losing it to a crash merely keeps a claim until its retention is over.
    ///
    /// # Errors
    /// [`StoreError`]; nothing needs doing about it.
    pub async fn acknowledge(&self, delivered: Vec<(RowKey, Fingerprint)>) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.acknowledge(delivered).await,
            Self::Redis(store) => store.acknowledge(delivered).await,
        }
    }

    /// Changes a row, durably, and returns it as it is then; none: there is no such row. A removed row stays as
    /// it is, whatever the change.
    ///
    /// # Errors
    /// [`StoreError`]; every change may be asked for again.
    pub async fn change(&self, key: RowKey, change: Change) -> Result<Option<Found>, StoreError> {
        match self {
            Self::Embedded(store) => store.change(key, change).await,
            Self::Redis(store) => store.change(key, change).await,
        }
    }

    /// One page of all rows in the order of their keys, after the one given. A page is never longer than 1,000
    /// rows, whatever the limit; the last one is empty.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, after: Option<RowKey>, limit: usize) -> Result<Vec<Listed>, StoreError> {
        match self {
            Self::Embedded(store) => store.list(after, limit).await,
            Self::Redis(store) => store.list(after, limit).await,
        }
    }

    /// Takes one from the bucket of `tag`; the inner error is how long to wait. A refusal writes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take(&self, tag: ClientTag, rate: Rate) -> Result<Result<(), Duration>, StoreError> {
        match self {
            Self::Embedded(store) => store.take(tag, rate).await,
            Self::Redis(store) => store.take(tag, rate).await,
        }
    }

    /// The reply kept under an Idempotency-Key, if its day is not over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn idempotent_reply(&self, name: ClientTag) -> Result<Option<Idempotent>, StoreError> {
        match self {
            Self::Embedded(store) => store.idempotent_reply(name).await,
            Self::Redis(store) => store.idempotent_reply(name).await,
        }
    }

    /// Deletes what nobody needs any longer, in small steps that let claims through in between. To be called on
    /// a timer. Deleting a kept claim never changes the counter of uses.
    ///
    /// # Errors
    /// [`StoreError`]; what was deleted until then stays deleted.
    pub async fn sweep(&self) -> Result<Swept, StoreError> {
        match self {
            Self::Embedded(store) => store.sweep().await,
            Self::Redis(store) => store.sweep().await,
        }
    }

    /// Whether the store reads and writes right now: one look-up and one small durable write.
    pub async fn check(&self) -> Health {
        match self {
            Self::Embedded(store) => store.check().await,
            Self::Redis(store) => store.check().await,
        }
    }

    /// Lets go in order, once nothing of this node is in flight: other nodes need not wait for the end of its lease.
    pub async fn close(&self) {
        match self {
            Self::Embedded(_) => {}
            Self::Redis(store) => store.close().await,
        }
    }

    /// Changes whenever the store, or a part of it, is back after it could not be reached, so that what waited for it need not wait on.
    /// The embedded store never says so: whether it takes a write is known by trying.
    pub fn back(&self) -> watch::Receiver<u64> {
        match self {
            Self::Embedded(_) => watch::channel(0).1,
            Self::Redis(store) => store.back(),
        }
    }

    /// Who claims through this handle: this node, this boot. Numbers of attempts are the caller's to count.
    pub fn owner(&self) -> Owner {
        match self {
            Self::Embedded(store) => store.owner(),
            Self::Redis(store) => store.owner(),
        }
    }

    /// Whether a message that `owner` claimed a use for may still be given its dot. Not, once others may take
    /// `owner` for dead: its claim may be another node's by now.
    pub fn may_send(&self, owner: Owner) -> bool {
        match self {
            Self::Embedded(store) => store.owner() == owner,
            Self::Redis(store) => store.may_send(owner),
        }
    }

    /// The store's time.
    pub fn now(&self) -> UnixTime {
        match self {
            Self::Embedded(store) => store.now(),
            Self::Redis(store) => store.now(),
        }
    }
}

/// Bounds a whole call, waiting for room in a queue or for a connection included.
async fn in_time<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(StoreError::Timeout))
}

impl From<Embedded> for Store {
    fn from(store: Embedded) -> Self {
        Self::Embedded(store)
    }
}
