//! Mail addresses as types that cannot be wrong.
//!
//! Owns the grammar of RFC 5321 §4.1.2 for what stands between `<` and `>`: [`Domain`], [`LocalPart`],
//! [`Mailbox`] and [`ReversePath`]. Every value here was parsed; nothing can be built around the parser.
//! Never does I/O, never prints a mailbox in `Debug` (a target must not reach a log by accident), and never
//! keeps a source route: what is forwarded is written from the parsed parts alone.

mod domain;
mod local_part;
mod mailbox;

pub use domain::{Domain, DomainError};
pub use local_part::{LocalPart, LocalPartError};
pub use mailbox::{Mailbox, MailboxError, ReversePath};
