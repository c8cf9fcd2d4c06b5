//! A store that can be restarted, a clock that is set by hand, and values to fill it with.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tempalias_alias::{
    Answer, Attempt, ClaimRequest, ClientTag, Fingerprint, KeyId, Limits, Outcome, RowKey, Sealed, SenderTag,
    UnixTime,
};
use tempalias_store::{
    Claimed, Clock, Created, Found, Idempotent, NewRow, Options, RedisAddress, RedisOptions, Settlement,
    Store,
};

use crate::redis_cluster::Cluster;
use crate::servers::Server;

/// Something that keeps its data over restarts.
pub(crate) trait Backend {
    /// Opens a store on the same data each time, as the daemon of this boot.
    fn open(&self, clock: Clock, boot: u64) -> Store;
}

/// Waits for what is asynchronous where a test cannot.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

/// The embedded store in a folder that goes with the test.
pub(crate) struct InTempDir(tempfile::TempDir);

impl InTempDir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Backend for InTempDir {
    fn open(&self, clock: Clock, boot: u64) -> Store {
        let path = self.0.path().join("aliases.db");
        Store::open(Options { path, boot, clock, keys: vec![KEY_ID] }).unwrap()
    }
}

/// A Redis, or a Cluster, that others may use at the same time under other namespaces.
pub(crate) struct OnRedis {
    address: RedisAddress,
    namespace: String,
    /// Ends with the test, if it is this test's alone.
    _server: Option<Server>,
}

impl OnRedis {
    pub(crate) fn single() -> Self {
        let server = Server::start(&[]);
        let address = server.address();
        Self { address, namespace: "contract".into(), _server: Some(server) }
    }

    /// One Cluster for all clauses: it takes seconds to start.
    pub(crate) fn clustered() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let address = CLUSTER.get_or_init(|| Cluster::start(3, 1)).address();
        let namespace = format!("contract-{}", NEXT.fetch_add(1, Ordering::SeqCst));
        Self { address, namespace, _server: None }
    }
}

impl Backend for OnRedis {
    fn open(&self, clock: Clock, boot: u64) -> Store {
        let options = RedisOptions {
            address: self.address.clone(),
            ca: None,
            namespace: self.namespace.clone(),
            keys: vec![KEY_ID],
            is_new: true,
            wait_replicas: 0,
            come_back: Duration::ZERO,
            node: "contract".into(),
            draw: Arc::new(move || boot),
            clock: Some(clock),
        };
        now(Store::connect(options)).unwrap()
    }
}

pub(crate) const KEY_ID: KeyId = KeyId([1, 2, 3, 4]);
pub(crate) const DAY: Duration = Duration::from_hours(24);
/// Far ahead: a store that deletes by the real clock must find nothing to delete.
const START: UnixTime = UnixTime::from_secs(4_000_000_000);

/// A backend, its clock, and the store that is open on it.
pub(crate) struct World {
    backend: Box<dyn Backend>,
    time: Arc<AtomicU64>,
    boot: u64,
    store: Option<Store>,
}

impl World {
    pub(crate) fn new(backend: impl Backend + 'static) -> Self {
        let time = Arc::new(AtomicU64::new(START.millis()));
        let mut world = Self { backend: Box::new(backend), time, boot: 0, store: None };
        world.restart();
        world
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// The same daemon opens its file again: what is in flight is still its own.
    pub(crate) fn reopen(&mut self) {
        self.store = None;
        let time = Arc::clone(&self.time);
        let clock: Clock = Arc::new(move || UnixTime::from_millis(time.load(Ordering::SeqCst)));
        self.store = Some(self.backend.open(clock, self.boot));
    }

    /// Another boot: what was in flight is in doubt.
    pub(crate) fn restart(&mut self) {
        if let Some(store) = self.store.take() {
            now(store.close());
        }
        self.boot += 1;
        self.reopen();
    }

    pub(crate) fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.time.load(Ordering::SeqCst))
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.time.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// The clock was ahead, and is set right.
    pub(crate) fn go_back(&self, time: Duration) {
        self.time.fetch_sub(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Makes the row of this number with `max_usage` uses (0: uncounted) and ten days to live.
    pub(crate) async fn make(&self, number: u8, max_usage: u32) -> RowKey {
        let row = self.row(number, max_usage);
        let key = row.key;
        assert_eq!(self.store().create(row, &[], None).await, Ok(Created::Done));
        key
    }

    pub(crate) fn row(&self, number: u8, max_usage: u32) -> NewRow {
        let limits = Limits {
            valid_from: None,
            valid_until: Some(self.now().plus(10 * DAY)),
            max_usage: NonZeroU32::new(max_usage),
        };
        NewRow { key: key(number), key_id: KEY_ID, limits, sealed: sealed(number) }
    }

    pub(crate) fn attempt(&self, number: u64) -> Attempt {
        let owner = self.store().owner();
        assert_eq!(owner.boot, self.boot);
        Attempt { owner, number }
    }

    pub(crate) fn request(&self, row: RowKey, message: u8, attempt: u64) -> ClaimRequest {
        ClaimRequest {
            row,
            fingerprint: Fingerprint([message; 16]),
            identified: true,
            sender: SenderTag([message; 8]),
            attempt: self.attempt(attempt),
            was_counted: true,
        }
    }

    pub(crate) async fn claimed(&self, row: RowKey, message: u8, attempt: u64) -> Claimed {
        let claimed = self.store().claim(vec![self.request(row, message, attempt)]).await.unwrap();
        assert_eq!(claimed.len(), 1);
        claimed[0]
    }

    /// Asks for a use for `message` under `attempt`.
    pub(crate) async fn claim(&self, row: RowKey, message: u8, attempt: u64) -> Answer {
        self.claimed(row, message, attempt).await.answer
    }

    pub(crate) async fn settle(&self, row: RowKey, attempt: u64, outcome: Outcome) {
        let settlement = Settlement { row, attempt: self.attempt(attempt), outcome };
        self.store().settle(vec![settlement]).await.unwrap();
    }

    pub(crate) async fn found(&self, row: RowKey) -> Found {
        self.store().find(&[row]).await.unwrap().unwrap()
    }

    pub(crate) async fn used(&self, row: RowKey) -> u32 {
        self.found(row).await.ledger.used
    }
}

pub(crate) fn key(number: u8) -> RowKey {
    RowKey([number; 16])
}

pub(crate) fn tag(number: u8) -> ClientTag {
    ClientTag([number; 16])
}

pub(crate) fn sealed(number: u8) -> Sealed {
    Sealed(vec![number; 100].into())
}

pub(crate) fn reply(number: u8) -> Idempotent {
    Idempotent { body: tag(number), reply: sealed(number) }
}
