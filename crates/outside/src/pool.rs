//! Idle connections, kept for the next mail.
//!
//! A connection stands here only in the state after EHLO: nothing asked, nothing to be answered. It is found by
//! its route, so that the next mail for a domain needs neither DNS nor a greeting. (With TLS policies and
//! credentials the route will carry them, and they will part connections by themselves.) Never hands out one
//! that is closed or that spoke unasked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use crate::connection::Connection;
use crate::route::Route;

/// Idle connections to one address of somebody else's server: enough for a burst, few enough to be no burden.
pub const IDLE_PER_MX_HOST: usize = 20;
/// Idle connections to the smarthost. All our mail goes there, from as many sessions as there are at once, and its
/// operator knows us: what a hundred sessions used a moment ago is worth keeping for the next hundred mails.
pub const IDLE_PER_SMARTHOST: usize = 100;
/// Idle connections in all: each is an open file.
pub const MAX_IDLE: usize = 256;
/// How long one is kept idle. Servers wait for a command for 5 minutes (RFC 5321 §4.5.3.2.7), but busy ones close
/// sooner, and every idle one is a burden to somebody.
pub const IDLE_LIFETIME: Duration = Duration::from_secs(30);
/// The longest that one connection is used, so that a change of the DNS or of a balancer is followed.
pub const MAX_AGE: Duration = Duration::from_mins(5);
/// Mails on one connection: many servers count, and refuse above about a hundred.
pub const MAX_USES: u32 = 100;
/// How long an answer to RSET may take.
pub const RESET_WAIT: Duration = Duration::from_secs(5);

/// The constants above, as values, so that a test need not wait for them.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// See [`IDLE_PER_MX_HOST`].
    pub idle_per_mx_host: usize,
    /// See [`IDLE_PER_SMARTHOST`].
    pub idle_per_smarthost: usize,
    /// See [`MAX_IDLE`].
    pub max_idle: usize,
    /// See [`IDLE_LIFETIME`].
    pub idle_lifetime: Duration,
    /// See [`MAX_AGE`].
    pub max_age: Duration,
    /// See [`MAX_USES`].
    pub max_uses: u32,
    /// See [`RESET_WAIT`].
    pub reset_wait: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            idle_per_mx_host: IDLE_PER_MX_HOST,
            idle_per_smarthost: IDLE_PER_SMARTHOST,
            max_idle: MAX_IDLE,
            idle_lifetime: IDLE_LIFETIME,
            max_age: MAX_AGE,
            max_uses: MAX_USES,
            reset_wait: RESET_WAIT,
        }
    }
}

/// In which state a connection is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The reply to the final dot was read: the transaction is over by itself (RFC 5321 §4.1.1.4).
    FinalReply,
    /// A transaction is open, and every command in it was answered: it is undone first.
    NeedsReset,
    /// Anything else: it is closed without a word.
    Broken,
}

/// The idle connections. Shared by all sessions; the lock is never held while anything is waited for.
#[derive(Debug)]
pub(crate) struct Pool {
    limits: PoolLimits,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    /// The longest idle first.
    idle: VecDeque<Idle>,
    /// Whether a task waits for the first of them to have been idle for too long.
    has_reaper: bool,
    is_draining: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(limits: PoolLimits) -> Arc<Self> {
        Arc::new(Self { limits, shelf: Mutex::default() })
    }

    /// The one used last of those that still serve `route`.
    pub(crate) fn checkout(&self, route: &Route) -> Option<Connection> {
        loop {
            let Idle { connection, since } = self.shelf().take_newest(route)?;
            let is_usable = since.elapsed() < self.limits.idle_lifetime
                && !connection.is_worn(self.limits.max_uses, self.limits.max_age);
            if is_usable && connection.is_quiet() {
                return Some(connection);
            }
            connection.quit();
        }
    }

    pub(crate) fn release(self: &Arc<Self>, mut connection: Connection, after: After) {
        match after {
            After::Broken => drop(connection),
            After::FinalReply => self.put(connection),
            After::NeedsReset if connection.has_unread() || self.is_unwanted(&connection) => {
                connection.quit();
            }
            After::NeedsReset => {
                let pool = Arc::clone(self);
                tokio::spawn(async move {
                    if timeout(pool.limits.reset_wait, connection.reset()).await == Ok(true) {
                        pool.put(connection);
                    }
                });
            }
        }
    }

    /// Closes all that are idle, and from now on all that come back.
    pub(crate) fn drain(&self) {
        let idle = {
            let mut shelf = self.shelf();
            shelf.is_draining = true;
            std::mem::take(&mut shelf.idle)
        };
        quit_all(idle);
    }

    pub(crate) fn idle(&self) -> usize {
        self.shelf().idle.len()
    }

    fn put(self: &Arc<Self>, connection: Connection) {
        if connection.has_unread() || self.is_unwanted(&connection) {
            return connection.quit();
        }
        let mut surplus = None;
        {
            let mut shelf = self.shelf();
            if shelf.count_like(&connection) >= self.limit_for(connection.route()) {
                surplus = Some(connection);
            } else {
                if shelf.idle.len() >= self.limits.max_idle {
                    surplus = shelf.idle.pop_front().map(|idle| idle.connection);
                }
                shelf.idle.push_back(Idle { connection, since: Instant::now() });
                if !std::mem::replace(&mut shelf.has_reaper, true) {
                    tokio::spawn(reap(Arc::downgrade(self), Instant::now() + self.limits.idle_lifetime));
                }
            }
        }
        surplus.into_iter().for_each(Connection::quit);
    }

    fn is_unwanted(&self, connection: &Connection) -> bool {
        connection.is_worn(self.limits.max_uses, self.limits.max_age) || self.shelf().is_draining
    }

    fn limit_for(&self, route: &Route) -> usize {
        match route {
            Route::Smarthost(_) => self.limits.idle_per_smarthost,
            Route::Mx(_) => self.limits.idle_per_mx_host,
        }
    }

    /// Closes what has been idle for too long; when to look again, unless nothing is left.
    fn reap(&self) -> Option<Instant> {
        let mut expired = vec![];
        let next = {
            let mut shelf = self.shelf();
            while shelf.idle.front().is_some_and(|idle| idle.since.elapsed() >= self.limits.idle_lifetime) {
                expired.extend(shelf.idle.pop_front());
            }
            let next = shelf.idle.front().map(|idle| idle.since + self.limits.idle_lifetime);
            shelf.has_reaper = next.is_some();
            next
        };
        quit_all(expired);
        next
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // No code under the lock can leave the shelf half-changed.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn take_newest(&mut self, route: &Route) -> Option<Idle> {
        let at = self.idle.iter().rposition(|idle| idle.connection.route() == route)?;
        self.idle.remove(at)
    }

    /// Idle ones at the same address, for whatever domain.
    fn count_like(&self, connection: &Connection) -> usize {
        self.idle.iter().filter(|idle| idle.connection.address() == connection.address()).count()
    }
}

fn quit_all(idle: impl IntoIterator<Item = Idle>) {
    for Idle { connection, .. } in idle {
        connection.quit();
    }
}

/// Sleeps until something can have expired, and ends when nothing is idle.
async fn reap(pool: Weak<Pool>, first: Instant) {
    let mut next = Some(first);
    while let Some(at) = next {
        sleep_until(at).await;
        let Some(pool) = pool.upgrade() else { return };
        next = pool.reap();
    }
}
