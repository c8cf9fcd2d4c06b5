//! What commands print: results to standard output, everything else to standard error.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use super::Failure;
use crate::log::escaped;

/// Prints for people or, with `--json`, for programs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Printer {
    json: bool,
}

impl Printer {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) fn is_json(self) -> bool {
        self.json
    }

    /// Prints `text` for people, `value` on one line for programs.
    pub(super) fn either(self, text: &str, value: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return self::text(text);
        }
        let line = serde_json::to_string(value);
        let line =
            line.map_err(|error| Failure::Failed(format!("cannot write the answer as JSON: {error}")))?;
        self::text(&format!("{line}\n"))
    }

    /// Says why nothing was done.
    pub(super) fn failure(self, failure: &Failure) {
        match failure {
            Failure::Closed => {}
            _ if self.json => complain(&serde_json::json!({ "error": failure.to_string() }).to_string()),
            // Each line of a list of problems names its file; the texts of others are one line.
            Failure::Config(error) => complain(&error.to_string()),
            Failure::Failed(text) => complain(&format!("tempalias: {}", escaped(text))),
        }
    }

    /// Says what is allowed and probably not meant.
    pub(super) fn warnings(self, warnings: &[String]) {
        if !self.json {
            for warning in warnings {
                complain(&format!("warning: {}", escaped(warning)));
            }
        }
    }
}

/// Prints `text` as it is.
pub(super) fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::Failed(format!("cannot write to standard output: {error}")),
    })
}

/// Asks a question on the terminal. Without a terminal there is nobody to ask, and the answer is yes.
pub(super) fn confirm(question: &str) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return true;
    }
    let mut err = io::stderr();
    let mut answer = String::new();
    let asked = write!(err, "{} [y/N] ", escaped(question)).and_then(|()| err.flush());
    asked.and_then(|()| io::stdin().read_line(&mut answer)).is_ok()
        && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// To standard error. If that is closed, nobody is left to tell.
fn complain(text: &str) {
    let _nobody_to_tell = writeln!(io::stderr().lock(), "{text}");
}
