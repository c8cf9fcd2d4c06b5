//! The program `tempalias`. What it does is in the library beside it, so that tests can reach it.

use std::process::ExitCode;

use clap::Parser as _;
use tempalias_server::cli::{self, Cli};
use tempalias_server::config::Environment;

fn main() -> ExitCode {
    cli::run(Cli::parse(), &Environment::of_process())
}
