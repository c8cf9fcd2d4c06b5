//! The aliases of the first tempalias (2010), as rows of today.
//!
//! They keep what they were given, whatever the operator allows today: no cap is put on them, and one without an end
//! has none. What cannot become a row is told by name and reason, never dropped in silence.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use tempalias_alias::{AliasId, AliasIdError, Keys, ManageSecret, Private, RowKey, State, UnixTime};
use tempalias_store::copy::{Aside, CopyError, Cursor, Legacy, OldAlias, Origin, Page, Row, Source};
use tempalias_store::{ROW_RETENTION, StoreError};

use crate::{Policy, Random};
use read::Old;

/// Names read at one time.
const PAGE: usize = 500;

/// All aliases of a Redis of 2010, in the order that they will have.
pub struct Import {
    legacy: Legacy,
    keys: Arc<Keys>,
    policy: Policy,
    random: Random,
    /// Old names by new row; several, if they differ in case only.
    names: BTreeMap<RowKey, Vec<Vec<u8>>>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    refused: BTreeMap<String, String>,
    warned: BTreeMap<String, String>,
    ended: BTreeSet<Vec<u8>>,
    /// Rows that nobody has the secret of.
    ownerless: BTreeSet<RowKey>,
}

/// What became of the aliases that are not simply there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportReport {
    /// Names that were not imported, and why.
    pub refused: Vec<(String, String)>,
    /// Names that were imported with something changed, and what.
    pub warned: Vec<(String, String)>,
    /// How many had ended for good, too long ago to be shown to anybody.
    pub ended: usize,
    /// How many have no updatekey: they work, and nobody can open them.
    pub ownerless: usize,
}

/// What one old alias becomes.
enum Fate {
    Row(Box<Row>),
    Ended,
    Refused(String),
}

impl fmt::Debug for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import").field("legacy", &self.legacy).finish_non_exhaustive()
    }
}

impl Import {
    /// Reads all names. They will stand under the first key and the default domain.
    ///
    /// # Errors
    /// When the old store does not answer, or holds no alias.
    pub async fn new(
        legacy: Legacy,
        keys: Arc<Keys>,
        policy: Policy,
        random: Random,
    ) -> Result<Self, CopyError> {
        let mut names: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut told = Told::default();
        for name in legacy.names().await? {
            match parse(&name) {
                Ok(id) => names.entry(keys.first().row_key(&id)).or_default().push(name),
                Err(why) => drop(told.refused.insert(shown(&name), why.to_string())),
            }
        }
        Ok(Self { legacy, keys, policy, random, names, told: Mutex::new(told) })
    }

    /// What there is to tell, once everything was read.
    pub fn report(&self) -> ImportReport {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        ImportReport {
            refused: told.refused.clone().into_iter().collect(),
            warned: told.warned.clone().into_iter().collect(),
            ended: told.ended.len(),
            ownerless: told.ownerless.len(),
        }
    }

    fn told(&self, note: impl FnOnce(&mut Told)) {
        note(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The row of names that are one today: the first that works.
    fn pick(&self, key: RowKey, names: &[Vec<u8>], olds: &[OldAlias], now: UnixTime) -> Option<Row> {
        let mut picked: Option<(String, Row)> = None;
        for (name, old) in names.iter().zip(olds) {
            match self.fate(key, name, old, now) {
                Fate::Ended => self.told(|told| told.ended.extend([name.clone()])),
                Fate::Refused(why) => self.told(|told| drop(told.refused.insert(shown(name), why))),
                Fate::Row(row) => match &picked {
                    None => picked = Some((shown(name), *row)),
                    Some((first, _)) => {
                        let why = format!("differs from {first} in case only, and that one is imported");
                        self.told(|told| drop(told.refused.insert(shown(name), why)));
                    }
                },
            }
        }
        picked.map(|(_, row)| row)
    }

    fn fate(&self, key: RowKey, name: &[u8], old: &OldAlias, now: UnixTime) -> Fate {
        let Ok(id) = parse(name) else { return Fate::Refused(AliasIdError::Syntax.to_string()) };
        let old = match Old::read(old) {
            Ok(old) => old,
            Err(why) => return Fate::Refused(why),
        };
        if self.policy.is_ours(old.target.domain()) {
            return Fate::Refused("its target is an address of this server".to_owned());
        }
        let ended = old.limits.valid_until.is_some_and(|end| end.plus(ROW_RETENTION) <= now);
        let used_up = old.limits.max_usage.is_some_and(|max| old.used >= max.get());
        if ended || (used_up && old.limits.valid_until.is_none()) {
            return Fate::Ended;
        }
        let mut warnings = old.warnings;
        if old.aid.is_some_and(|aid| aid.parse() != Ok(id.clone())) {
            warnings.push("calls itself by another name: goes by its key");
        }
        if !warnings.is_empty() {
            self.told(|told| drop(told.warned.insert(shown(name), warnings.join("; "))));
        }
        let secret = old.secret.unwrap_or_else(|| {
            self.told(|told| told.ownerless.extend([key]));
            // Nobody is ever told.
            ManageSecret::random(self.draw())
        });
        let server_key = self.keys.first();
        let private = Private {
            target: old.target,
            domain: self.policy.default_domain.clone(),
            manage: server_key.manage_hash(&id, &secret),
        };
        Fate::Row(Box::new(Row {
            key,
            key_id: server_key.id(),
            limits: old.limits,
            state: State::Active,
            used: old.used,
            created: now,
            goes: None,
            sealed: server_key.seal(&id, &private, self.draw()),
            kept: Vec::new(),
        }))
    }

    fn draw<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        (self.random)(&mut bytes);
        bytes
    }

    /// What both rows hold sealed. Two seals of the same are never the same bytes.
    fn opens_alike(&self, row: &Row, copy: &Row) -> bool {
        let name = self.names.get(&row.key).and_then(|names| names.first());
        let Some(Ok(id)) = name.map(|name| parse(name)) else { return false };
        let open = |sealed| self.keys.first().open(&id, sealed);
        let (Ok(here), Ok(mut there)) = (open(&row.sealed), open(&copy.sealed)) else { return false };
        self.told(|told| {
            if told.ownerless.contains(&row.key) {
                there.manage = here.manage;
            }
        });
        here == there
    }
}

impl Source for Import {
    fn origin(&self) -> &Origin {
        self.legacy.origin()
    }

    async fn count(&self) -> Result<u64, StoreError> {
        Ok(u64::try_from(self.names.len()).unwrap_or(u64::MAX))
    }

    async fn page(&self, after: Option<RowKey>) -> Result<Page, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<_> = self.names.range((from, Bound::Unbounded)).take(PAGE).collect();
        let names: Vec<Vec<u8>> = some.iter().flat_map(|(_, names)| names.iter().cloned()).collect();
        let mut olds = self.legacy.read(&names).await?.into_iter();
        let now = self.legacy.now();
        let end = if some.len() < PAGE { None } else { some.last().map(|(key, _)| **key) };
        let rows = some.into_iter().filter_map(|(key, names)| {
            let olds: Vec<OldAlias> = olds.by_ref().take(names.len()).collect();
            self.pick(*key, names, &olds, now)
        });
        Ok(Page { rows: rows.collect(), end, now })
    }

    async fn asides(&self, _: Option<Cursor>) -> Result<(Vec<Aside>, Option<Cursor>), StoreError> {
        Ok((Vec::new(), None))
    }

    /// The first tempalias left no sign of running.
    async fn served_by(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    fn is_same(&self, row: &Row, copy: &Row) -> bool {
        // When it was made is not known: it is when it was imported.
        let alike = Row { created: copy.created, sealed: copy.sealed.clone(), ..row.clone() };
        alike == *copy && self.opens_alike(row, copy)
    }
}

fn parse(name: &[u8]) -> Result<AliasId, AliasIdError> {
    std::str::from_utf8(name).map_err(|_| AliasIdError::Syntax)?.parse()
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
