//! The SMTP front door: owns the senders' sockets, performs what the relay decides, and decides nothing itself.
//!
//! [`Server`] accepts connections and runs one task for each. A task feeds its [`tempalias_relay::Session`] with
//! what happened and performs the effects that come back. Metrics and the log line of a mail come from the
//! relay's `Summary`, in `report.rs`, and from nowhere else.

mod backlog;
mod budget;
mod claims;
mod door;
mod driver;
mod reading;
mod report;
mod translate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempalias_alias::Rate;
use tempalias_outside::{Outside, Smarthost};
use tempalias_relay::Policy;
use tempalias_store::Store;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use backlog::Backlog;
use budget::Budget;
use door::Door;

/// What the front door needs of the rest.
#[derive(Debug)]
pub struct Parts {
    /// The operator's decisions.
    pub policy: Arc<Policy>,
    /// Where aliases are.
    pub store: Store,
    /// Where mail goes.
    pub outside: Outside,
    /// The next hop if the policy says smarthost.
    pub smarthost: Option<Smarthost>,
    /// Numbers of this front door.
    pub limits: DoorLimits,
    /// Whether log lines may hold clients' addresses.
    pub log_addresses: bool,
}

/// Limits over all sessions together.
#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    /// Octets of messages held in memory, all sessions together.
    pub body_memory: u64,
    /// Connections, all together.
    pub max_connections: usize,
    /// Connections of one address (IPv6: of one /64).
    pub max_connections_per_address: usize,
    /// Claims that were asked for and are not settled yet, all together: [`MOST_UNSETTLED`].
    pub max_unsettled: usize,
}

/// How many claims may be asked for and not settled, as those of a mail on its way are, and those that a store which is
/// down does not take. Beyond it mail that would need another is deferred. Each takes less than a kilobyte while it
/// waits: 50 MiB at most.
pub const MOST_UNSETTLED: usize = 50_000;

/// How many messages one client may send to the operator: 10 an hour.
const OPERATOR_RATE: Rate = Rate { burst: 10, every: Duration::from_mins(6) };
/// How long a message that is coming in may go on once the program wants to end.
const DRAIN_GRACE: Duration = Duration::from_secs(30);

/// The SMTP server. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Server(Arc<Shared>);

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    parts: Parts,
    budget: Budget,
    backlog: Backlog,
    door: Door,
    next_session: AtomicU64,
    draining: watch::Sender<bool>,
    /// A clone is held by every task; once all are gone, nothing runs any more.
    running: std::sync::Mutex<Option<mpsc::Sender<()>>>,
    finished: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

/// Held by a task for as long as it runs.
type Running = Option<mpsc::Sender<()>>;

impl Server {
    /// Nothing listens yet.
    pub fn new(parts: Parts) -> Self {
        let (running, finished) = mpsc::channel(1);
        Self(Arc::new(Shared {
            budget: Budget::new(parts.limits.body_memory),
            backlog: Backlog::new(parts.limits.max_unsettled),
            door: Door::new(parts.limits),
            parts,
            next_session: AtomicU64::new(1),
            draining: watch::Sender::new(false),
            running: std::sync::Mutex::new(Some(running)),
            finished: tokio::sync::Mutex::new(finished),
        }))
    }

    /// Accepts connections until [`Server::drain`].
    pub async fn serve(&self, listener: TcpListener) {
        let mut draining = self.0.draining.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = draining.wait_for(|draining| *draining) => return,
            };
            match accepted {
                Ok((stream, peer)) => self.0.clone().open(stream, peer),
                Err(error) => {
                    // Out of file descriptors, most likely: let some sessions end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Ends: no new connection, 421 for idle sessions; returns once every mail past its dot is finished and its
    /// claim settled, or `limit` is over. Whether all was finished.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.0.draining.send_replace(true);
        drop(self.0.running.lock().map(|mut running| running.take()));
        let mut finished = self.0.finished.lock().await;
        let all_ended = tokio::time::timeout(limit, finished.recv()).await.is_ok();
        self.0.parts.outside.drain();
        all_ended
    }

    /// Open sessions at this moment.
    pub fn sessions(&self) -> usize {
        self.0.door.open()
    }

    /// Octets of messages held in memory at this moment.
    pub fn held_octets(&self) -> u64 {
        self.0.budget.used()
    }
}

impl Shared {
    fn running(&self) -> Running {
        self.running.lock().ok().and_then(|running| running.clone())
    }

    fn number(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }
}
