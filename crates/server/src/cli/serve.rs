//! `tempalias serve`.

use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::app::App;
use crate::config::{self, Environment};
use crate::log;

/// Serves until SIGTERM or SIGINT; a second one ends at once.
pub(super) fn run(path: &Path, environment: &Environment) -> Result<(), Failure> {
    let loaded = config::load(path, environment)?;
    let config = loaded.config;
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    log::start(config.log.level, log::Style::of_stderr()).map_err(|error| failed(&error))?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime = runtime().map_err(|error| failed(&error))?;
    let finished = runtime.block_on(async {
        let app = App::start(&config).await.map_err(|error| failed(&error))?;
        Ok::<_, Failure>(app.run(told_to_end()).await)
    })?;
    if finished { Ok(()) } else { Err(Failure::Failed("some mails were not finished in time".to_owned())) }
}

/// The runtime of a server.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Ready at SIGTERM or SIGINT. The next one after it ends the process at once: somebody is in a hurry.
pub(super) async fn told_to_end() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be received; end the process with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::warn!("told twice to end: ending at once");
        std::process::exit(1);
    });
}
