//! What may stand in the store after a cut, by the journal of what was begun and answered before it; and the look at
//! the files with the real store.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use tempalias_alias::{KeptState, State};
use tempalias_store::{Found, Store};
use tokio::runtime::Runtime;

use crate::driver::{ALIASES, MAX_USAGE, STORE, TASKS, fingerprint, options, row};

/// The values that each thing may have now. What was never begun is absent.
#[derive(Default)]
pub(crate) struct Allowed {
    things: BTreeMap<String, BTreeSet<String>>,
    pub(crate) answered: usize,
}

impl Allowed {
    /// Takes in one line of the journal.
    pub(crate) fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (verb, thing, value) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let values = self.things.entry(thing.to_owned()).or_insert_with(|| ["free".to_owned()].into());
        if verb == "done" {
            values.clear();
            self.answered += 1;
        }
        values.insert(value.to_owned());
    }

    fn of(&self, thing: &str) -> BTreeSet<&str> {
        self.things
            .get(thing)
            .map_or_else(|| ["free"].into(), |values| values.iter().map(String::as_str).collect())
    }
}

/// Opens the files of `image` with the real store in `folder`, and compares.
pub(crate) fn check(
    image: &HashMap<String, Vec<u8>>,
    allowed: &Allowed,
    folder: &Path,
    runtime: &Runtime,
) -> Result<(), String> {
    for (name, octets) in image {
        fs::write(folder.join(name), octets).unwrap();
    }
    let verdict = look(allowed, folder, runtime);
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    verdict
}

fn look(allowed: &Allowed, folder: &Path, runtime: &Runtime) -> Result<(), String> {
    let store = Store::open(options(folder, 99)).map_err(|why| format!("cannot be opened: {why}"))?;
    runtime.block_on(async {
        for alias in 1..TASKS * ALIASES {
            let found = store.find(&[row(alias)]).await.map_err(|why| format!("alias {alias}: {why}"))?;
            compare(alias, found.as_ref(), allowed)?;
        }
        Ok::<_, String>(())
    })?;
    drop(store);
    let sound = Connection::open_with_flags(folder.join(STORE), OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|database| database.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)));
    if sound.as_deref() == Ok("ok") { Ok(()) } else { Err(format!("the database is damaged: {sound:?}")) }
}

fn compare(alias: u64, found: Option<&Found>, allowed: &Allowed) -> Result<(), String> {
    let thing = format!("alias-{alias}");
    let is = match found.map(|found| found.ledger.state) {
        None => "free",
        Some(State::Active) => "active",
        Some(State::Paused) => "paused",
        Some(State::Removed) => "removed",
    };
    if !allowed.of(&thing).contains(is) {
        return Err(format!("{thing} is {is}, and may be {:?}", allowed.of(&thing)));
    }
    let Some(found) = found else { return Ok(()) };
    let (mut least, mut most, mut seen) = (0, 0, 0);
    let of_alias = format!("message-{alias}-");
    for (thing, values) in
        allowed.things.range(of_alias.clone()..).take_while(|(name, _)| name.starts_with(&of_alias))
    {
        let number: u64 = thing.rsplit('-').next().unwrap().parse().unwrap();
        let kept = found.ledger.kept.iter().find(|kept| kept.fingerprint == fingerprint(number));
        let is: &[&str] = match kept.map(|kept| kept.state) {
            None => &["free", "spent"],
            Some(KeptState::InFlight) => &["in-flight"],
            Some(KeptState::InDoubt) => &["in-doubt"],
            Some(KeptState::Delivered) => &["delivered"],
        };
        let is: Vec<_> = is.iter().copied().filter(|&value| values.contains(value)).collect();
        if is.is_empty() {
            return Err(format!("{thing} of {found:?} may be {values:?}"));
        }
        seen += usize::from(kept.is_some());
        least += u32::from(is != ["free"] && !is.contains(&"free"));
        most += u32::from(is != ["free"]);
    }
    if seen != found.ledger.kept.len() {
        return Err(format!("alias {alias} keeps a claim that nobody asked for: {found:?}"));
    }
    let used = found.ledger.used;
    if used > MAX_USAGE || used < least || used > most {
        return Err(format!(
            "alias {alias} has {used} uses, and may have {least} to {most}, never over {MAX_USAGE}"
        ));
    }
    Ok(())
}
