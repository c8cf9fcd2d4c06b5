//! `tempalias db`.

use serde_json::json;
use tempalias_alias::{Keys, ServerKey};
use tempalias_store::{Adopted, OpenError};
use tokio::runtime::Runtime;

use super::print::Printer;
use super::{DbCommand, Failure, copy};
use crate::config::Config;
use crate::{keyfile, parts};

/// Does what was typed.
pub(super) fn run(command: DbCommand, config: &Config, printer: Printer) -> Result<(), Failure> {
    match command {
        DbCommand::Adopt => adopt(config, printer),
        DbCommand::Copy(args) => copy::run(&args, config, printer),
    }
}

pub(super) fn failed(why: impl std::fmt::Display) -> Failure {
    Failure::Failed(why.to_string())
}

pub(super) fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| failed(format!("cannot start: {error}")))
}

/// All nodes need the same: none is made here.
pub(super) fn server_keys(config: &Config) -> Result<Keys, Failure> {
    match config.store.key_files.first().filter(|first| !first.exists()) {
        Some(first) => Err(failed(format!(
            "there is no server key at {} yet: make one with `tempalias key new {}` and give a copy to every node",
            first.display(),
            first.display()
        ))),
        None => keyfile::open(&config.store.key_files).map_err(failed),
    }
}

fn adopt(config: &Config, printer: Printer) -> Result<(), Failure> {
    let Some(address) = config.store.url.redis() else {
        return Err(failed("store.url is a file of this machine: it needs no adopting; the server makes it"));
    };
    let keys = server_keys(config)?;
    let ids = keys.all().map(ServerKey::id).collect();
    let options = parts::redis_options(config, address, ids, false).map_err(failed)?;
    let adopted =
        runtime()?.block_on(tempalias_store::adopt(&options)).map_err(|error: OpenError| failed(error))?;
    let (text, word) = match adopted {
        Adopted::Begun => ("there was no store; an empty one begins".to_owned(), "begun"),
        Adopted::Mended { parts, of, aliases } => (
            format!(
                "{parts} of {of} parts were gone, and {aliases} more aliases; what is left is served again"
            ),
            "mended",
        ),
        Adopted::Nothing => ("all parts of the store are there; nothing was done".to_owned(), "nothing"),
    };
    printer.either(&format!("{address}: {text}\n"), &json!({ "store": address.to_string(), "adopted": word }))
}
