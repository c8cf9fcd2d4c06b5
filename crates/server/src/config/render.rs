//! The keys in print: a sample file, the values in force, the reference.

use std::fmt::Write as _;

use super::environment::variable;
use super::keys::{Fallback, Key, SECTIONS, Section};
use super::problem::Origin;
use super::read::full_name;
use super::{DEFAULT_PATH, Loaded};

/// A configuration file with every key: the required ones with samples, the others commented out with their
/// defaults, each below its meaning.
pub fn example() -> String {
    let mut text = String::from("# tempalias configuration. Only the first three keys are required.\n");
    for section in SECTIONS {
        text.push('\n');
        comment(&mut text, section.docs);
        if !section.name.is_empty() {
            let _infallible = writeln!(text, "[{}]", section.name);
        }
        for key in section.keys {
            text.push('\n');
            comment(&mut text, key.docs);
            let line = match key.fallback {
                Fallback::Required(sample) => format!("{} = {sample}\n", key.name),
                Fallback::Optional(value) | Fallback::Default(value) => format!("# {} = {value}\n", key.name),
            };
            text.push_str(&line);
        }
    }
    text
}

fn comment(text: &mut String, docs: &[&str]) {
    for line in docs {
        let _infallible = writeln!(text, "#{line}");
    }
}

/// `docs/config.md`.
pub fn reference() -> String {
    let mut text = format!(
        "# Configuration\n\n\
         <!-- Generated from crates/server/src/config/keys.rs: change it there. -->\n\n\
         One TOML file, `{DEFAULT_PATH}` unless `--config FILE` names another. Only `domains`, `hostname` and\n\
         `admin` are required. `tempalias config example` prints a file to start from, `tempalias config check FILE`\n\
         tells everything that is wrong with one, `tempalias config show` prints the values in force and where each\n\
         comes from.\n\n\
         * A key that does not exist is an error.\n\
         * Durations are written `\"30s\"`, `\"9m30s\"`, `\"7d\"` (units: ms, s, m, h, d); sizes `\"25MiB\"` (units: B,\n\
         \u{20}\u{20}KiB, MiB, GiB).\n\
         * An environment variable overrides the file: `TEMPALIAS_SMTP_LISTEN` sets `listen` of `[smtp]`,\n\
         \u{20}\u{20}`TEMPALIAS_DOMAINS` sets `domains`; the items of a list are separated by commas. With `_FILE` at the\n\
         \u{20}\u{20}end of its name, a variable names a file that holds the value. With the three required keys in the\n\
         \u{20}\u{20}environment, no file is needed.\n\
         * A wrong configuration ends every command with exit status 78.\n"
    );
    for section in SECTIONS {
        section_reference(&mut text, section);
    }
    text
}

fn section_reference(text: &mut String, section: &Section) {
    let title =
        if section.name.is_empty() { "At the top".to_owned() } else { format!("`[{}]`", section.name) };
    let _infallible = write!(text, "\n## {title}\n\n{}\n", prose(section.docs));
    for key in section.keys {
        let Key { name, docs, kind, fallback } = key;
        let fallback = match fallback {
            Fallback::Required(sample) => format!("required, for example `{name} = {sample}`"),
            Fallback::Optional(sample) => format!("may be left out; for example `{name} = {sample}`"),
            Fallback::Default(value) => format!("default `{name} = {value}`"),
        };
        let _infallible = write!(
            text,
            "\n### `{}`\n\n{}\n\n* {fallback}\n* {}\n* variable `{}`\n",
            full_name(section.name, name),
            prose(docs),
            kind(),
            variable(section.name, name),
        );
    }
}

fn prose(docs: &[&str]) -> String {
    docs.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n")
}

impl Loaded {
    /// The values in force as a configuration file, each with where it comes from. Holds no secret: no key's value
    /// is one.
    pub fn show(&self) -> String {
        let mut text = String::new();
        let mut current = "";
        for (section, key, value) in self.config.shown() {
            if section != current {
                current = section;
                let _infallible = write!(text, "\n[{section}]\n");
            }
            let origin = self.origin(section, key);
            let _infallible = match value {
                Some(value) => writeln!(text, "{key} = {value}  # {origin}"),
                None => writeln!(text, "# {key} is not set"),
            };
        }
        text
    }

    /// The same for programs: an object per section, and in it per key an object of `value` and `from`.
    pub fn show_json(&self) -> serde_json::Value {
        let mut all = serde_json::Map::new();
        for (section, key, value) in self.config.shown() {
            let value = value.and_then(|text| json(&text)).unwrap_or_default();
            let entry = serde_json::json!({ "value": value, "from": self.origin(section, key) });
            if section.is_empty() {
                all.insert(key.to_owned(), entry);
                continue;
            }
            let place = all.entry(section).or_insert_with(|| serde_json::json!({}));
            if let Some(place) = place.as_object_mut() {
                place.insert(key.to_owned(), entry);
            }
        }
        serde_json::Value::Object(all)
    }

    fn origin(&self, section: &str, key: &str) -> String {
        match self.origins.get(&full_name(section, key)) {
            Some(Origin::Line(line)) => format!("line {line}"),
            Some(Origin::Variable(name)) => name.clone(),
            Some(Origin::Default | Origin::File) | None => "default".to_owned(),
        }
    }
}

/// A TOML value as JSON.
fn json(text: &str) -> Option<serde_json::Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    serde_json::to_value(table.get("value")?).ok()
}
