//! The SMTP language, both sides of it: command grammar, replies, the data codec, header fields, the client's
//! half of a conversation.
//!
//! Pure: takes bytes, gives values, and the other way round. Strict on purpose: only CRLF ends a line, only
//! `CRLF . CRLF` ends a message, only what RFC 5321 allows is a reply. Never knows what an alias is.

pub mod client;
pub mod command;
pub mod data;
pub mod header;
pub mod line;
pub mod reply;

pub use command::{Command, CommandError, ForwardPath, HelloName, MailParameters};
pub use reply::{Reply, Status};
