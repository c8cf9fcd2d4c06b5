//! The variables that may override the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::keys::SECTIONS;

const PREFIX: &str = "TEMPALIAS_";
/// Read by the command line before there is a configuration.
const NOT_A_KEY: &str = "TEMPALIAS_CONFIG";

/// The variables called `TEMPALIAS_…`: a copy, so that nothing else reads the process's environment.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

/// A value as the environment gives it.
pub(super) enum Given {
    /// The value of this variable, or of the file that it names.
    Value(String),
    /// Why there is none although the variable is set.
    Unusable(String),
}

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// `TEMPALIAS_CONFIG`: the file to read unless the command line names one.
    pub fn config_path(&self) -> Option<PathBuf> {
        self.0.get(NOT_A_KEY).map(PathBuf::from)
    }

    /// Whether every required key is set here, so that no file is needed.
    pub(super) fn has_required_keys(&self) -> bool {
        let mut required = SECTIONS.iter().flat_map(|section| {
            section.keys.iter().filter(|key| key.is_required()).map(|key| variable(section.name, key.name))
        });
        required.all(|name| self.0.contains_key(&name) || self.0.contains_key(&format!("{name}_FILE")))
    }

    /// The variable for a key and what it says, if it is set.
    pub(super) fn get(&self, section: &str, key: &str) -> Option<(String, Given)> {
        let name = variable(section, key);
        let file_name = format!("{name}_FILE");
        match (self.0.get(&name), self.0.get(&file_name)) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                Some((name, Given::Unusable(format!("{file_name} is set too; unset one of them"))))
            }
            (Some(value), None) => Some((name, text_of(value))),
            (None, Some(path)) => Some((file_name, read(path))),
        }
    }

    /// Variables that look like ours and name no key.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|name| {
            let bare = name.strip_suffix("_FILE").unwrap_or(name);
            let known = |section: &super::keys::Section| {
                section
                    .keys
                    .iter()
                    .map(|key| variable(section.name, key.name))
                    .any(|v| v == *name || v == bare)
            };
            *name != NOT_A_KEY && !SECTIONS.iter().any(known)
        })
    }
}

impl FromIterator<(String, OsString)> for Environment {
    fn from_iter<T: IntoIterator<Item = (String, OsString)>>(variables: T) -> Self {
        Self(variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect())
    }
}

/// The variable that overrides a key.
pub(super) fn variable(section: &str, key: &str) -> String {
    let middle = if section.is_empty() { String::new() } else { format!("{section}_") };
    format!("{PREFIX}{middle}{key}").to_ascii_uppercase()
}

fn text_of(value: &OsString) -> Given {
    match value.to_str() {
        Some(text) => Given::Value(text.to_owned()),
        None => Given::Unusable("is not UTF-8 text".to_owned()),
    }
}

/// The content of a file named by `…_FILE`, without the line end that editors add.
fn read(path: &OsString) -> Given {
    match std::fs::read_to_string(path) {
        Ok(text) => Given::Value(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Given::Unusable(format!("cannot read {}: {error}", path.display())),
    }
}
