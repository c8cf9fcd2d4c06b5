//! The program: configuration, keys, log, command line, and the wiring of everything else.
//!
//! Owns what an operator sees. Never holds logic of its own about mail or aliases: that is below.

pub mod config;
pub mod keyfile;
pub mod log;
