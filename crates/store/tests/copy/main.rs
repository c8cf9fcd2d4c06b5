//! Everything from one store to another, on real servers: whole, resumable, and checked at the end.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

mod fixture;
mod overtaken;
#[path = "../servers/ports.rs"]
mod ports;
#[path = "../servers/cluster.rs"]
mod redis_cluster;
mod refused;
mod resumed;
mod round;
#[path = "../servers/mod.rs"]
mod servers;
#[path = "../values/mod.rs"]
mod values;
