//! Test tools, used from `tests/` folders and never shipped.
//!
//! * [`Dialogue`]: an SMTP scenario as a text file, both ends in view (`tests/dialogues/README.md`).
//! * [`machine`]: plays a dialogue on `relay::Session` in virtual time, with a model of the store and of the next
//!   hop, and watches that session and driver keep their contract ([`machine::contract`]).
//! * [`cut`]: plays it again and cuts at every event: the sender, the next hop, the deadline, the store.
//! * [`sim`]: plays whole worlds of senders, nodes, a store and next hops, from a seed.
//! * [`tcp`]: plays the same file against a server at an address.
//!
//! Knows no file but dialogues, and no clock but its own, except in `tcp`.

pub mod cut;
pub mod dialogue;
pub mod machine;
pub mod sim;
pub mod tcp;
mod text;

pub use dialogue::Dialogue;
