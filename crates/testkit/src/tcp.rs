//! Plays a dialogue against a server at an address, with a scripted next hop on loopback.
//!
//! Real sockets and real time: every wait is for something that must come, and ends when it has not come after
//! [`PATIENCE`]. What the server is, is a [`Subject`]'s business: the program itself, or its mail crate alone.

mod play;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

pub use play::{Played, play};

use crate::dialogue::{Change, Count, Fault, Seed};

/// How long something that must come may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a server is to be started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The dialogue's name, for a folder.
    pub name: String,
    /// Keys of [`crate::dialogue::CONFIG_KEYS`] that differ from the defaults. `delivery` and `smarthost_size` are
    /// never among them: dialogues with those are for the machine.
    pub config: Vec<(String, String)>,
    /// The smarthost: it speaks SMTP in clear.
    pub next_hop: SocketAddr,
}

/// Starts servers. Domains, hostname and operator are those of [`crate::dialogue`].
#[expect(
    async_fn_in_trait,
    reason = "used by tests of this workspace, which never send these futures elsewhere"
)]
pub trait Factory {
    /// What it starts.
    type Subject: Subject;

    /// A server with an empty store of its own, ready when this returns.
    async fn start(&self, setup: Setup) -> Self::Subject;
}

/// A server under test, and an owner's hand on its store.
#[expect(
    async_fn_in_trait,
    reason = "used by tests of this workspace, which never send these futures elsewhere"
)]
pub trait Subject {
    /// Where senders connect. Asked anew for each connection.
    fn smtp_addr(&self) -> SocketAddr;

    /// The store's faults that it can arrange, besides [`Fault::Up`]. Dialogues with others are skipped.
    fn faults(&self) -> &[Fault];

    /// Makes an alias of exactly this name.
    async fn seed(&mut self, seed: &Seed);

    /// Changes an alias.
    async fn change(&mut self, alias: &str, change: Change);

    /// A number of an alias, as the store has it now.
    async fn count(&mut self, alias: &str, what: Count) -> Option<u32>;

    /// Lets the store fail, or recover.
    async fn store(&mut self, fault: Fault);

    /// Ends it without a word, as `kill -9` does, and starts it again on the same store.
    async fn crash(&mut self);

    /// Ends it.
    async fn stop(self);
}
