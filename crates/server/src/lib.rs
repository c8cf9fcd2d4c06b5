//! The program: configuration, keys, log, command line, admin socket, and the wiring of everything else.
//!
//! Owns what an operator sees. Never holds logic of its own about mail or aliases: that is below.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod keyfile;
pub mod log;
pub mod parts;
