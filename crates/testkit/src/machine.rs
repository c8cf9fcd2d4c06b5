//! Plays dialogues on the pure machine, in virtual time.
//!
//! `World` is everything around the sessions of one dialogue: a store, a next hop for each, a clock. It performs
//! effects as the driver does and feeds events in the same order; it decides nothing about mail. Every step is
//! watched by [`contract`].

mod answers;
pub mod contract;
mod hop;
mod play;
mod setup;
pub(crate) mod show;
pub mod solo;
mod store;
mod world;

pub(crate) use play::play_until;
pub use play::{Failed, play, transcript};
pub use store::ModelStore;
pub(crate) use world::{Stop, World};
