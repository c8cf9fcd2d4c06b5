//! `tempalias demo`.

use super::serve::{runtime, told_to_end};
use super::{Failure, print};
use crate::config::Level;
use crate::demo::{Demo, Options};
use crate::log;

/// Runs the demo until Ctrl-C.
pub(super) fn run(options: Options) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    log::start(Level::Warn, log::Style::of_stderr()).map_err(|error| failed(&error))?;
    let runtime = runtime().map_err(|error| failed(&error))?;
    runtime.block_on(async {
        let demo = Demo::start(options).await.map_err(|error| failed(&error))?;
        print::text(&demo.welcome())?;
        demo.run(told_to_end()).await;
        Ok(())
    })
}
