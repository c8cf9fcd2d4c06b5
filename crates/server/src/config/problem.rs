//! What is wrong with a configuration, told to the person who wrote it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::log::escaped;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The line of the file, counted from one.
    Line(usize),
    /// The file as a whole: something is missing.
    File,
    /// An environment variable.
    Variable(String),
    /// Nobody set it.
    Default,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where to look.
    pub origin: Origin,
    /// The key, as `section.key`; empty where the file is no TOML.
    pub key: String,
    /// What is wrong, and what would be right.
    pub text: String,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not UTF-8.
    Encoding {
        /// The file.
        path: PathBuf,
    },
    /// It was read, and these things are wrong. Never empty.
    Invalid {
        /// The file.
        path: PathBuf,
        /// In the order of the file's lines.
        problems: Vec<Problem>,
    },
}

impl Problem {
    fn write(&self, path: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Line(line) => write!(f, "{}:{line}: ", path.display())?,
            Origin::File | Origin::Default => write!(f, "{}: ", path.display())?,
            Origin::Variable(name) => write!(f, "environment variable {name}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", escaped(&self.key))?;
        }
        f.write_str(&escaped(&self.text))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } if error.kind() == std::io::ErrorKind::NotFound => write!(
                f,
                "there is no configuration at {}: write one, starting from the output of \
                 `tempalias config example`, or name another file with --config FILE",
                path.display()
            ),
            Self::Unreadable { path, error } => {
                write!(f, "cannot read the configuration {}: {error}", path.display())
            }
            Self::Encoding { path } => write!(f, "{}: the file is not UTF-8 text", path.display()),
            Self::Invalid { path, problems } => {
                for (i, problem) in problems.iter().enumerate() {
                    if i > 0 {
                        f.write_str("\n")?;
                    }
                    problem.write(path, f)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {}
