//! One mail as a machine: events in, effects out. The heart of tempalias.
//!
//! [`Session`] is everything one SMTP connection decides: what each command is answered, when an alias is looked
//! up, a next hop dialled, a use claimed, a body sent, a claim settled. It is told what happened ([`Event`]) and
//! says what to do ([`Effect`]); the `mail` crate does it. Nothing here awaits, reads a clock, opens a socket or
//! counts a metric, so every order of events can be played in a test in microseconds.
//!
//! Where to look: what happens at RCPT is in `recipient.rs`, from the dot on in `delivery.rs` and then
//! `delivery/forward.rs`, every refusal's words in `refusal.rs`, the header lines we add in `prefix.rs`.

mod body;
mod command;
mod content;
mod core;
mod delivery;
mod effect;
mod event;
mod permit;
mod policy;
mod prefix;
mod recipient;
mod refusal;
mod session;
mod settle;
mod summary;
mod transaction;

pub use body::Body;
pub use effect::{After, Effect, Effects, Freshness, Outgoing};
pub use event::{
    BodyFailed, Claimed, ConnectError, Connected, Event, Found, Heard, LineFault, Moment, StoreDown,
};
pub use permit::{Permit, Ticket};
pub use policy::{Delivery as DeliveryPolicy, Limits, NextHop, Policy};
pub use refusal::Refusal;
pub use session::{Awaits, Peer, Session};
pub use summary::{Ending, Summary};
