//! What only a store on Redis can do or suffer: real servers are killed, stopped, emptied, filled and cut off.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

mod changed;
mod clock;
mod cluster;
mod cut;
mod evicted;
mod expiry;
#[path = "../servers/faults.rs"]
mod faults;
mod fixture;
mod markers;
mod nodes;
mod outages;
#[path = "../servers/ports.rs"]
mod ports;
mod proxy;
#[path = "../servers/cluster.rs"]
mod redis_cluster;
mod repeated;
mod replicas;
#[path = "../servers/mod.rs"]
mod servers;
mod settling;
mod start;
mod times;
#[path = "../values/mod.rs"]
mod values;
