//! Who may come in: connections in all, and of one address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use socket2::SockRef;
use tempalias_alias::ClientNetwork;
use tempalias_relay::Refusal;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::{DoorLimits, Shared, driver};

/// All open sessions.
#[derive(Debug)]
pub(crate) struct Door {
    limits: DoorLimits,
    inside: Mutex<Inside>,
    epoch: Instant,
}

#[derive(Debug, Default)]
struct Inside {
    guests: HashMap<u64, Arc<Guest>>,
    of_network: HashMap<ClientNetwork, usize>,
}

/// One session, as the door sees it.
#[derive(Debug, Default)]
pub(crate) struct Guest {
    /// Milliseconds since the door's epoch at which it began to wait for a command; `BUSY`: it does not wait.
    idle_since: AtomicU64,
    /// Told to make room for another.
    pub(crate) leave: Notify,
}

const BUSY: u64 = u64::MAX;

/// Leaves the door's books when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    shared: Arc<Shared>,
    number: u64,
    network: ClientNetwork,
    pub(crate) guest: Arc<Guest>,
}

impl Door {
    pub(crate) fn new(limits: DoorLimits) -> Self {
        Self { limits, inside: Mutex::default(), epoch: Instant::now() }
    }

    pub(crate) fn open(&self) -> usize {
        self.inside().guests.len()
    }

    /// The books are plain counters: a panic elsewhere leaves them usable.
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in, or not. At the cap the one that has been idle for longest makes room.
    fn admit(&self, number: u64, network: ClientNetwork) -> Option<Arc<Guest>> {
        let mut inside = self.inside();
        let of_network = inside.of_network.get(&network).copied().unwrap_or(0);
        if of_network >= self.limits.max_connections_per_address {
            return None;
        }
        if inside.guests.len() >= self.limits.max_connections {
            let idle = inside.guests.values().map(|guest| (guest.idle_since.load(Ordering::Relaxed), guest));
            let (since, guest) = idle.min_by_key(|(since, _)| *since)?;
            if since == BUSY {
                return None;
            }
            // Told once: the next one to make room is another.
            guest.idle_since.store(BUSY, Ordering::Relaxed);
            guest.leave.notify_one();
        }
        let guest = Arc::new(Guest { idle_since: AtomicU64::new(BUSY), leave: Notify::new() });
        *inside.of_network.entry(network).or_default() += 1;
        inside.guests.insert(number, guest.clone());
        Some(guest)
    }

    fn forget(&self, number: u64, network: ClientNetwork) {
        let mut inside = self.inside();
        inside.guests.remove(&number);
        if let Some(count) = inside.of_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                inside.of_network.remove(&network);
            }
        }
    }
}

impl Seat {
    /// It waits for a command from now on.
    pub(crate) fn idle(&self) {
        let since = self.shared.door.epoch.elapsed().as_millis();
        self.guest.idle_since.store(u64::try_from(since).unwrap_or(BUSY - 1), Ordering::Relaxed);
    }

    /// It has something to do.
    pub(crate) fn busy(&self) {
        self.guest.idle_since.store(BUSY, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.door.forget(self.number, self.network);
    }
}

impl Shared {
    /// A connection came.
    pub(crate) fn open(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // Replies are written whole: there is nothing for Nagle to gather, only 40 ms to lose.
        drop(stream.set_nodelay(true));
        let number = self.number();
        let network = ClientNetwork::of(peer.ip());
        let Some(guest) = self.door.admit(number, network) else {
            let mut reply = vec![];
            Refusal::TooManyConnections.reply().write_to(&mut reply);
            // One write into an empty socket buffer; nobody waits for it.
            drop(SockRef::from(&stream).send(&reply));
            return;
        };
        let seat = Seat { shared: self.clone(), number, network, guest };
        tokio::spawn(driver::run(self, stream, peer.ip(), number, seat));
    }
}
