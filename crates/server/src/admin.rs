//! How the commands reach the running server: a Unix socket, and on it one line of JSON per question and answer.
//!
//! Owns the socket file (whoever may write to it may do everything, so its mode is 0660 from its first moment), the
//! form of the lines, and what each command does. Never asks who is there: the file system has answered that.

mod answer;
mod client;
mod socket;
mod wire;

pub use answer::answer;
pub use client::{CallError, Connection};
pub use socket::{AdminSocket, SocketError};
pub use wire::{AliasLine, AliasName, AliasNameError, ListedLine, MadeLine, PageLine, Reply, Request};
