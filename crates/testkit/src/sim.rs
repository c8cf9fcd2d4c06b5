//! Simulation: whole worlds in one thread, on simulated time, with seeded faults.
//!
//! What is simulated is the real `relay::Session` on the real rules of `alias`; everything around it is a model, and
//! each model says which file it stands for:
//!
//! | here | stands for |
//! |---|---|
//! | `link.rs`, `effects.rs` | `mail/src/driver.rs`, `mail/src/reading.rs` |
//! | `calls.rs` | `mail/src/claims.rs`, `store/src/embedded/mod.rs`, `store/src/redis/{calls,claims}.rs` |
//! | `store.rs`, `leases.rs` | `store/src/embedded/claims.rs`, `aliases.rs`, `upkeep.rs`, `store/src/redis/lua`, `lease.rs` |
//! | `nodes.rs` | processes, their leases, the store's power and clock |
//! | `names.rs` | `store/src/redis/{lease,supervise,link}.rs`: what a node is called, and whom it takes for dead |
//! | `failover.rs` | a master of `store/src/redis` that dies with what no replica had; `supervise.rs` on meeting another |
//! | `hop.rs` | `outside/src/connection.rs`, and the next hops themselves |
//! | `senders.rs`, `client.rs` | mail servers with queues |
//!
//! `truth.rs` notes what really happened and watches the promises at every step, `check.rs` once every queue is
//! drained, `excuses.rs` why a message arrived twice. [`run`] plays one seed. Nothing depends on a clock, a float, or the
//! order of a hash table: a seed gives the same run on every machine.

mod calls;
mod check;
mod client;
mod effects;
mod excuses;
mod failover;
mod fixture;
mod hop;
mod leases;
mod link;
mod names;
mod nodes;
mod plan;
mod queue;
mod random;
mod sabotage;
mod senders;
mod store;
mod tally;
mod truth;
mod world;

pub use sabotage::Sabotage;
pub use tally::{Seen, Tally};

use world::World;

/// How one seed's run ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// The promise that was broken, if one was.
    pub broken: Option<String>,
    /// What happened, counted.
    pub tally: Tally,
    /// What happened, line by line, if that was asked for.
    pub transcript: Vec<String>,
}

/// Plays one seed.
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Run {
    play(seed, sabotage, false)
}

/// Plays one seed and writes down what happens.
pub fn replay(seed: u64, sabotage: Option<Sabotage>) -> Run {
    play(seed, sabotage, true)
}

fn play(seed: u64, sabotage: Option<Sabotage>, traced: bool) -> Run {
    let mut world = World::new(seed, sabotage, traced);
    world.run();
    world.check();
    let World { mut tally, store, broken, trace, now, .. } = world;
    let used = store.rows.iter().fold(now, |sum, row| sum.rotate_left(7) ^ u64::from(row.ledger.used));
    tally.seal(seed, used ^ u64::from(broken.is_some()));
    Run { broken, tally, transcript: trace.unwrap_or_default() }
}
