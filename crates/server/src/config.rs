//! The configuration: one definition of every key, read once, checked whole, never changed after.
//!
//! Owns the keys (`keys.rs`), their text forms (`value.rs`, `types.rs`), where a value comes from (an environment
//! variable, before the file, before the default), and everything that is printed about them: `config example`,
//! `config show` and `docs/config.md` come from the same definition. All that is wrong is reported at once.
//! Never starts anything, never logs, and never repeats a value that may hold a password.

mod check;
mod environment;
mod keys;
mod problem;
mod read;
mod render;
mod types;
mod value;

use std::path::Path;

pub use environment::Environment;
pub use keys::{
    AdminHttp, AdminSocket, Config, Delivery, Dns, Http, Limits, Log, Privacy, Smtp, StoreConfig, Targets,
};
pub use problem::{ConfigError, Origin, Problem};
pub use render::{example, reference};
pub use tempalias_service::PublicUrl;
pub use types::{Host, HostPort, Level, NameServer, Namespace, Size, StoreUrl};

/// Where the configuration is, unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/tempalias/tempalias.toml";

/// A configuration that passed every check.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// What is allowed, and probably not meant. For the log.
    pub warnings: Vec<String>,
    origins: read::Origins,
}

/// Reads the file at `path`, and the environment over it.
///
/// # Errors
/// [`ConfigError`], with everything that is wrong.
pub fn load(path: &Path, environment: &Environment) -> Result<Loaded, ConfigError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| ConfigError::Encoding { path: path.into() })?;
            parse(&text, path, environment)
        }
        // A container may be set up by variables alone.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && environment.has_required_keys() => {
            parse("", path, environment)
        }
        Err(error) => Err(ConfigError::Unreadable { path: path.into(), error }),
    }
}

/// Reads a configuration out of `text`, which stands in the file at `path`.
///
/// # Errors
/// [`ConfigError::Invalid`], with everything that is wrong.
pub fn parse(text: &str, path: &Path, environment: &Environment) -> Result<Loaded, ConfigError> {
    let invalid = |problems| ConfigError::Invalid { path: path.into(), problems };
    let file = read::File::parse(text).map_err(invalid)?;
    let mut reader = read::Reader::new(&file, environment);
    let config = Config::read(&mut reader);
    let (mut problems, origins, mut warnings) = reader.finish();
    if let Some(config) = &config {
        problems.extend(check::problems(config, &origins));
        warnings.extend(check::warnings(config));
    }
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, warnings, origins }),
        _ => {
            problems.sort();
            Err(invalid(problems))
        }
    }
}
