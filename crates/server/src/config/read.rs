//! From text to values: the environment before the file, the file before the default.

use std::collections::BTreeMap;

use tempalias_address::Domain;
use toml::de::{DeTable, DeValue};

use super::environment::{Environment, Given};
use super::keys::{Fallback, SECTIONS, Section};
use super::problem::{Origin, Problem};
use super::value::Value;

/// Stands in a default for the first of `domains`.
const FIRST_DOMAIN: &str = "<first domain>";
/// How alike two names must be for one to be a guess at the other (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.8;

/// Where each key's value came from, by `section.key`.
pub(super) type Origins = BTreeMap<String, Origin>;

/// A file that is TOML.
pub(super) struct File<'a> {
    text: &'a str,
    table: DeTable<'a>,
}

/// Reads keys one by one and remembers all that is wrong.
pub(super) struct Reader<'a> {
    file: &'a File<'a>,
    environment: &'a Environment,
    problems: Vec<Problem>,
    origins: Origins,
}

/// `section.key`, or `key` at the top.
pub(super) fn full_name(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

impl<'a> File<'a> {
    /// # Errors
    /// Every place where `text` is not TOML.
    pub(super) fn parse(text: &'a str) -> Result<Self, Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let file = Self { text, table: table.into_inner() };
        if errors.is_empty() {
            return Ok(file);
        }
        Err(errors.iter().map(|error| file.syntax_problem(error)).collect())
    }

    fn syntax_problem(&self, error: &toml::de::Error) -> Problem {
        let span = error.span().unwrap_or_default();
        let mut text = format!("this is not TOML: {}", error.message());
        // Of keys the name is worth repeating; what stands elsewhere may be half of a password.
        if error.message() == "duplicate key" {
            text.push(' ');
            text.push_str(self.text.get(span.clone()).unwrap_or_default());
        }
        Problem { origin: self.line(span.start), key: String::new(), text }
    }

    fn line(&self, offset: usize) -> Origin {
        Origin::Line(1 + self.text.get(..offset).unwrap_or_default().matches('\n').count())
    }

    /// The value of a key and where it stands.
    fn get(&self, section: &str, key: &str) -> Option<(Origin, &DeValue<'a>)> {
        let table =
            if section.is_empty() { &self.table } else { self.table.get(section)?.get_ref().as_table()? };
        let (name, value) = table.get_key_value(key)?;
        Some((self.line(name.span().start), value.get_ref()))
    }

    /// Everything in the file that no key is called.
    fn unknown(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, value) in &self.table {
            let place = self.line(name.span().start);
            let at_the_top = |section: &&Section| section.name.is_empty();
            let name = name.get_ref();
            if SECTIONS.iter().filter(at_the_top).any(|section| section.has(name)) {
                continue;
            }
            match (SECTIONS.iter().find(|section| section.name == name), value.get_ref().as_table()) {
                (Some(section), Some(table)) => self.unknown_in(section, table, &mut problems),
                (Some(_), None) => problems.push(Problem {
                    origin: place,
                    key: name.to_string(),
                    text: format!("is a section; write [{name}] on a line of its own and its keys below"),
                }),
                (None, value) => {
                    let text = guess("", name, value.is_some());
                    problems.push(Problem { origin: place, key: name.to_string(), text });
                }
            }
        }
        problems
    }

    fn unknown_in(&self, section: &Section, table: &DeTable<'_>, problems: &mut Vec<Problem>) {
        for name in table.keys().filter(|name| !section.has(name.get_ref())) {
            let key = name.get_ref();
            problems.push(Problem {
                origin: self.line(name.span().start),
                key: full_name(section.name, key),
                text: guess(section.name, key, false),
            });
        }
    }
}

/// What to say about a key or section that there is not.
fn guess(section: &str, name: &str, is_section: bool) -> String {
    let what = if is_section { "section" } else { "key" };
    if is_section {
        let sections = SECTIONS.iter().map(|section| section.name).filter(|name| !name.is_empty());
        return match closest(name, sections) {
            Some(found) => format!("there is no such {what}; did you mean [{found}]?"),
            None => format!("there is no such {what}; `tempalias config example` shows all"),
        };
    }
    let homes = SECTIONS.iter().filter(|other| other.name != section && other.has(name));
    let homes: Vec<_> = homes.map(place).collect();
    if !homes.is_empty() {
        return format!("there is no such {what} here; it belongs {}", homes.join(" or "));
    }
    let here = SECTIONS.iter().filter(|other| other.name == section).flat_map(Section::names);
    if let Some(found) = closest(name, here) {
        return format!("there is no such {what}; did you mean {found}?");
    }
    let mut everywhere = SECTIONS.iter().flat_map(|other| other.names().map(move |key| (other.name, key)));
    let best = everywhere.find(|(_, key)| strsim::jaro_winkler(name, key) > ALIKE);
    match best {
        Some((other, key)) => format!("there is no such {what}; did you mean {}?", full_name(other, key)),
        None => format!("there is no such {what}; `tempalias config example` shows all"),
    }
}

/// Where the keys of a section stand.
fn place(section: &Section) -> String {
    match section.name {
        "" => "at the top, before the first section".to_owned(),
        name => format!("under [{name}]"),
    }
}

/// The most similar of `names`, if any is similar at all.
pub(super) fn closest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|(score, _)| *score > ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a File<'a>, environment: &'a Environment) -> Self {
        Self { file, environment, problems: file.unknown(), origins: Origins::new() }
    }

    /// One key's value; none, and a problem more, if it is missing or wrong.
    pub(super) fn take<V: Value>(&mut self, section: &str, key: &str, fallback: &Fallback) -> Option<V> {
        let (origin, value) = self.find(section, key, fallback);
        let name = full_name(section, key);
        self.origins.insert(name.clone(), origin.clone());
        value.map_err(|text| self.problems.push(Problem { origin, key: name, text })).ok()
    }

    /// The problems, the origins and the warnings.
    pub(super) fn finish(self) -> (Vec<Problem>, Origins, Vec<String>) {
        let warnings = self.environment.unknown().map(|name| {
            let known = SECTIONS.iter().flat_map(|section| {
                section.names().map(|key| super::environment::variable(section.name, key))
            });
            let known: Vec<_> = known.collect();
            match closest(name, known.iter().map(String::as_str)) {
                Some(found) => format!("environment variable {name} sets no key; did you mean {found}?"),
                None => format!("environment variable {name} sets no key"),
            }
        });
        let warnings = warnings.collect();
        (self.problems, self.origins, warnings)
    }

    fn find<V: Value>(&self, section: &str, key: &str, fallback: &Fallback) -> (Origin, Result<V, String>) {
        if let Some((variable, given)) = self.environment.get(section, key) {
            let value = match given {
                Given::Value(text) => V::from_text(&text),
                Given::Unusable(why) => Err(why),
            };
            return (Origin::Variable(variable), value);
        }
        if let Some((origin, value)) = self.file.get(section, key) {
            return (origin, V::from_toml(value));
        }
        match fallback {
            Fallback::Required(sample) => {
                (Origin::File, Err(format!("is missing; set it, for example: {key} = {sample}")))
            }
            Fallback::Optional(_) => (Origin::Default, V::absent().ok_or_else(|| "is missing".to_owned())),
            Fallback::Default(text) => (Origin::Default, self.default(text)),
        }
    }

    /// A default is written as it would be in the file, so that the reference shows what is in force.
    fn default<V: Value>(&self, text: &str) -> Result<V, String> {
        let domain = self.find::<Vec<Domain>>("", "domains", &Fallback::Optional("")).1;
        let first = domain.ok().and_then(|domains| domains.first().map(Domain::to_string));
        // Without a domain there will be no configuration, and the missing domain is the problem to report.
        let text = text.replace(FIRST_DOMAIN, first.as_deref().unwrap_or("invalid"));
        let value = DeValue::parse(&text).map_err(|error| error.message().to_owned())?;
        V::from_toml(value.get_ref())
    }
}
