//! The store for several nodes: Redis or Valkey, one server or a Cluster.
//!
//! Owns the connection, this node's lease, and the scripts that keep the rules of `alias` where the data is
//! (`lua/`, checked against `alias` by `tests/same_answers.rs`). All keys of an alias live in one hash slot; what
//! lives elsewhere (rate limits, replies under an Idempotency-Key; leases, which stand in buckets of their own choice)
//! is never needed in the same step.

mod address;
mod adopt;
mod calls;
mod claims;
mod clock;
mod complaint;
mod connect;
mod copying;
mod create;
mod fault;
mod greet;
mod join;
mod keys;
mod lease;
pub(crate) mod legacy;
mod link;
mod markers;
mod offline;
mod replicas;
mod reply;
mod rows;
mod scan;
mod script;
mod server_keys;
mod supervise;
mod tidy;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use redis::RedisError;
use tempalias_alias::{ClaimRequest, ClientTag, Fingerprint, KeyId, Owner, Rate, RowKey, UnixTime};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use connect::Target;
use keys::Names;
use lease::Lease;
use link::Link;

use crate::{
    Change, Claimed, Clock, Created, Found, Health, Idempotent, Listed, NewRow, Once, OpenError, Settlement,
    StoreError, Swept, in_time,
};

pub use address::{AddressError, RedisAddress};
pub use adopt::{Adopted, adopt};
pub(crate) use offline::RedisOffline;

/// How long nodes wait for one another after an outage: by then each has a connection again, and has told how its mail
/// ended.
pub const COME_BACK: Duration = Duration::from_secs(3);

/// How to open a store on Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// Where it is.
    pub address: RedisAddress,
    /// Certificates in PEM to trust, in place of the system's.
    pub ca: Option<Vec<u8>>,
    /// Before the name of every key, so that several stores can share a server.
    pub namespace: String,
    /// Which server keys the caller has.
    pub keys: Vec<KeyId>,
    /// Whether there can be no alias yet, because the server keys were made just now: an empty server is made ready
    /// then. Otherwise it is taken for one that has lost its data.
    pub is_new: bool,
    /// Replicas that must have an alias, a change of one, or a claim before it counts as durable.
    pub wait_replicas: u32,
    /// For how long after the start, and after an outage in which leases may have run out, nobody is taken for dead:
    /// [`COME_BACK`]. Nothing for who sends no mail and is gone in a moment.
    pub come_back: Duration,
    /// What an operator reads in this node's lease: its host, say.
    pub node: String,
    /// Draws a number that no other node or start draws.
    pub draw: Draw,
    /// In place of the server's clock, for tests; none otherwise.
    pub clock: Option<Clock>,
}

/// Draws numbers at random.
pub type Draw = Arc<dyn Fn() -> u64 + Send + Sync>;

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("address", &self.address)
            .field("namespace", &self.namespace)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// An open store on Redis. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct Redis {
    core: Arc<Core>,
    supervisor: Arc<Supervisor>,
}

/// Ends the supervising task with the last clone of the store.
struct Supervisor(AbortHandle);

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({})", self.core.options.address)
    }
}

/// What calls and the supervisor share.
struct Core {
    options: RedisOptions,
    target: Target,
    names: Names,
    link: Link,
    lease: Lease,
    /// Until when each server key is known to be noted as needed.
    noted: Mutex<BTreeMap<KeyId, UnixTime>>,
    /// The store that this process knows: its marker, and when it was last seen.
    known: Mutex<Option<(String, UnixTime)>>,
    /// The bucket that the next sweep begins with.
    swept: Mutex<u16>,
    /// Whose data was served at the last look: of a server that was restarted, replaced or promoted, it is another's.
    histories: Mutex<BTreeSet<String>>,
    /// Whether claims should be made under a new name as soon as it has a lease.
    wants_new_name: AtomicBool,
}

impl Redis {
    /// Connects, and goes on trying in the background if the server cannot be reached: a node that starts during an
    /// outage serves when it is over. Needs a running `tokio`.
    ///
    /// # Errors
    /// [`OpenError`] when the server answers and is not what it must be.
    pub async fn open(options: RedisOptions) -> Result<Self, OpenError> {
        // The TLS library asks the process for its cryptography; whoever installed one already is fine, too.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let owner = Owner { node: node_number(&options.node), boot: (options.draw)() };
        let core = Arc::new(Core {
            target: Target { address: options.address.clone(), ca: options.ca.clone() },
            names: Names::new(&options.namespace),
            link: Link::new(options.address.is_cluster(), options.come_back),
            lease: Lease::new(owner),
            noted: Mutex::default(),
            known: Mutex::default(),
            swept: Mutex::default(),
            histories: Mutex::default(),
            wants_new_name: AtomicBool::new(false),
            options,
        });
        let supervisor = supervise::start(core.clone()).await?;
        Ok(Self { core, supervisor: Arc::new(Supervisor(supervisor)) })
    }

    /// Gives the lease up, so that other nodes need not wait for its end. For a program that ends in order, when
    /// nothing of it is in flight any more.
    pub(crate) async fn close(&self) {
        // It would take the end of the lease for an outage, and begin another.
        self.supervisor.0.abort();
        for owner in self.core.lease.all() {
            // If this fails, the lease runs out by itself.
            drop(self.core.ask(redis::cmd("DEL").arg(self.core.names.lease(owner))).await);
        }
    }

    pub(crate) fn back(&self) -> watch::Receiver<u64> {
        self.core.link.back()
    }

    pub(crate) fn owner(&self) -> Owner {
        self.core.lease.owner().0
    }

    pub(crate) fn may_send(&self, owner: Owner) -> bool {
        self.core.lease.may_send(owner)
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.core.now()
    }

    pub(crate) async fn find(&self, keys: &[RowKey]) -> Result<Option<Found>, StoreError> {
        in_time(self.core.find(keys)).await
    }

    pub(crate) async fn create(
        &self,
        row: NewRow,
        also_free: &[RowKey],
        once: Option<Once>,
    ) -> Result<Created, StoreError> {
        in_time(self.core.create(row, also_free, once)).await
    }

    pub(crate) async fn claim(&self, requests: Vec<ClaimRequest>) -> Result<Vec<Claimed>, StoreError> {
        in_time(self.core.claim(&requests)).await
    }

    /// Begun here, so that whatever is asked of the connection from now on is answered behind it; then in a task of its
    /// own: once handed over it happens, even if nobody waits for it any longer.
    pub(crate) async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), StoreError> {
        let core = self.core.clone();
        let mut settling = Box::pin(async move { in_time(core.settle(&settlements)).await });
        match poll_fn(|cx| Poll::Ready(settling.as_mut().poll(cx))).await {
            Poll::Ready(settled) => settled,
            Poll::Pending => tokio::spawn(settling).await.unwrap_or(Err(StoreError::Closed)),
        }
    }

    pub(crate) async fn acknowledge(&self, delivered: Vec<(RowKey, Fingerprint)>) -> Result<(), StoreError> {
        in_time(self.core.acknowledge(&delivered)).await
    }

    pub(crate) async fn change(&self, key: RowKey, change: Change) -> Result<Option<Found>, StoreError> {
        in_time(self.core.change(key, &change)).await
    }

    pub(crate) async fn list(&self, after: Option<RowKey>, limit: usize) -> Result<Vec<Listed>, StoreError> {
        in_time(self.core.list(after, limit)).await
    }

    pub(crate) async fn take(&self, tag: ClientTag, rate: Rate) -> Result<Result<(), Duration>, StoreError> {
        in_time(self.core.take(tag, rate)).await
    }

    pub(crate) async fn idempotent_reply(&self, name: ClientTag) -> Result<Option<Idempotent>, StoreError> {
        in_time(self.core.idempotent_reply(name)).await
    }

    pub(crate) async fn sweep(&self) -> Result<Swept, StoreError> {
        self.core.sweep().await
    }

    pub(crate) async fn check(&self) -> Health {
        self.core.check().await
    }
}

/// A number for a node's name: the same after a restart, for whoever looks at leases and claims.
fn node_number(name: &str) -> u64 {
    // FNV-1a: it need only differ.
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Core {
    /// The store's time, as this node knows it from its last renewal.
    fn now(&self) -> UnixTime {
        match &self.options.clock {
            Some(clock) => clock(),
            None => self.lease.now().unwrap_or_else(|| crate::system_clock()()),
        }
    }

    /// The time that scripts get; empty: their server's.
    fn given_time(&self) -> Vec<u8> {
        clock::given(&self.options)
    }
}

/// Why no connection could be made, for whoever opened the store.
fn refused(options: &RedisOptions, why: &RedisError) -> OpenError {
    OpenError::Redis { address: options.address.to_string(), why: fault::why_not(why) }
}
