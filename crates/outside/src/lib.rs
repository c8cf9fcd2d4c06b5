//! The outside world: names, connections to next hops, and the idle ones among them.
//!
//! The only crate that resolves names or opens outgoing SMTP connections, so that what a next hop may be is decided
//! in one place. Drives the pure machines of `smtp` and knows nothing of aliases or sessions. Never repeats a
//! next hop's words and never tries a mail twice: that is its caller's to decide.

mod connection;
pub mod dial;
pub mod dns;
mod order;
pub mod pool;
mod refuse;
mod route;

use std::sync::Arc;

pub use connection::{BodyFailed, Connection, Lost};
pub use dial::{DialConfig, DialError, Dialer};
pub use dns::Dns;
pub use pool::{After, PoolLimits};
pub use route::{Host, Route, Smarthost};

use pool::Pool;

/// Whether a connection that carried other mails before will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// One from the pool, if there is any.
    Any,
    /// A new one, because a pooled one just failed.
    New,
}

/// Connections to next hops. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Outside {
    dialer: Arc<Dialer>,
    pool: Arc<Pool>,
}

impl Outside {
    /// Opens connections with `dialer` and keeps idle ones within `limits`.
    pub fn new(dialer: Dialer, limits: PoolLimits) -> Self {
        Self { dialer: Arc::new(dialer), pool: Pool::new(limits) }
    }

    /// A connection that is ready for a mail. The caller bounds the time, and gives it back with
    /// [`Outside::release`]; one that is dropped is closed.
    ///
    /// # Errors
    /// [`DialError`]
    pub async fn connect(&self, route: &Route, freshness: Freshness) -> Result<Connection, DialError> {
        let pooled = if freshness == Freshness::Any { self.pool.checkout(route) } else { None };
        let mut connection = match pooled {
            Some(connection) => connection,
            None => self.dialer.dial(route).await?,
        };
        connection.count_use();
        Ok(connection)
    }

    /// Takes a connection back. Returns at once.
    pub fn release(&self, connection: Connection, after: After) {
        self.pool.release(connection, after);
    }

    /// Closes the idle connections, and from now on every one that is released.
    pub fn drain(&self) {
        self.pool.drain();
    }

    /// The largest message that the smarthost takes, as it said in its last greeting; none: no limit, or nothing was
    /// said yet.
    pub fn smarthost_size(&self) -> Option<u64> {
        self.dialer.smarthost_size()
    }

    /// Idle connections at this moment.
    pub fn idle(&self) -> usize {
        self.pool.idle()
    }
}
