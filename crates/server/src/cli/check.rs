//! `tempalias config …`

use std::path::Path;

use serde_json::json;

use super::print::{self, Printer};
use super::{ConfigCommand, Failure};
use crate::config::{self, ConfigError, Environment, Origin};

pub(super) fn run(
    command: ConfigCommand,
    path: &Path,
    environment: &Environment,
    printer: Printer,
) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { file } => check(file.as_deref().unwrap_or(path), environment, printer),
        ConfigCommand::Show => {
            let loaded = config::load(path, environment)?;
            printer.warnings(&loaded.warnings);
            printer.either(&loaded.show(), &loaded.show_json())
        }
        ConfigCommand::Example => {
            let text = config::example();
            printer.either(&text, &json!({ "example": text }))
        }
        ConfigCommand::Reference => print::text(&config::reference()),
    }
}

fn check(path: &Path, environment: &Environment, printer: Printer) -> Result<(), Failure> {
    match config::load(path, environment) {
        Ok(loaded) => {
            printer.warnings(&loaded.warnings);
            let text = format!("{}: good\n", path.display());
            printer.either(&text, &json!({ "file": path, "ok": true, "warnings": loaded.warnings }))
        }
        Err(ConfigError::Invalid { path, problems }) if printer.is_json() => {
            let all: Vec<_> = problems
                .iter()
                .map(|problem| {
                    let (line, variable) = match &problem.origin {
                        Origin::Line(line) => (Some(line), None),
                        Origin::Variable(name) => (None, Some(name)),
                        Origin::File | Origin::Default => (None, None),
                    };
                    json!({ "line": line, "variable": variable, "key": problem.key, "text": problem.text })
                })
                .collect();
            printer.either("", &json!({ "file": path, "ok": false, "problems": all }))?;
            Err(ConfigError::Invalid { path, problems }.into())
        }
        Err(error) => Err(error.into()),
    }
}
