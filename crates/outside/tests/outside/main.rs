//! The outside world as it is, on loopback: next hops that misbehave, name servers that fail.

mod connection;
mod dial;
mod dns;
mod pool;
mod support;
