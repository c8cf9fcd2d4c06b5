//! The disk under a recorded run: what of the writes it certainly has, what it may have, and the files it shows
//! after its power came back.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use crate::driver::JOURNAL;
use crate::random::Random;

/// What a disk writes at once; a longer write may be torn.
const SECTOR: usize = 512;

pub(crate) enum Event {
    Made(String),
    Wrote {
        file: String,
        at: usize,
        octets: Vec<u8>,
    },
    Cut {
        file: String,
        size: usize,
    },
    Removed(String),
    SyncBegins(String),
    Synced(String),
    SyncFailed(String),
    /// A line of the journal.
    Said(String),
}

/// Reads what the recorder wrote.
pub(crate) fn read_trace(path: &Path) -> Vec<Event> {
    let raw = fs::read(path).unwrap();
    let mut rest = &raw[..];
    let mut events = Vec::new();
    let mut take = |count: usize| {
        let (first, others) = rest.split_at_checked(count)?;
        rest = others;
        Some(first.to_vec())
    };
    while let Some(head) = take(2) {
        let file = String::from_utf8(take(head[1].into()).unwrap()).unwrap();
        let at = usize::try_from(u64::from_le_bytes(take(8).unwrap().try_into().unwrap())).unwrap();
        let count = u32::from_le_bytes(take(4).unwrap().try_into().unwrap());
        let octets = take(count as usize).unwrap();
        if file == JOURNAL {
            if head[0] == b'W' {
                events.push(Event::Said(String::from_utf8(octets).unwrap().trim().to_owned()));
            }
            continue;
        }
        events.push(match head[0] {
            b'C' => Event::Made(file),
            b'W' => Event::Wrote { file, at, octets },
            b'T' => Event::Cut { file, size: at },
            b'U' => Event::Removed(file),
            b'S' => Event::SyncBegins(file),
            b'F' => Event::Synced(file),
            b'X' => Event::SyncFailed(file),
            other => panic!("no such record: {other}"),
        });
    }
    events
}

/// Which syncs the disk honours. All but `All` are there to show that the test has teeth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Honours {
    All,
    /// What `synchronous=NORMAL` would sync: the log only before a checkpoint.
    OnlyCheckpoints,
    /// What `synchronous=OFF` would sync.
    Nothing,
}

/// How much of what was not yet synced reached the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Luck {
    /// Nothing.
    None,
    /// All of it: the kernel lives, the program was killed.
    All,
    /// Some of the writes. Any subset: that is what writing them in any other order comes to.
    Some,
    /// Some of their sectors.
    Torn,
}

pub(crate) const LUCKS: [Luck; 4] = [Luck::None, Luck::All, Luck::Some, Luck::Torn];

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write(at, octets) => {
                let end = at + octets.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*at..end].copy_from_slice(octets);
            }
            Self::Cut(size) => file.resize(*size, 0),
        }
    }
}

#[derive(Default, Clone)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// How many of `pending` the sync under way covers.
    covered: usize,
}

/// A disk as it goes through a run.
pub(crate) struct Disk {
    honours: Honours,
    random: Random,
    files: Vec<File>,
    /// Which name means which file, as the program sees it, and as the disk has it.
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    covered: BTreeMap<String, usize>,
    log_is_newer: bool,
}

impl Disk {
    pub(crate) fn new(honours: Honours, seed: u64) -> Self {
        let random = Random::new(seed);
        let names = BTreeMap::new;
        Self {
            honours,
            random,
            files: vec![],
            live: names(),
            durable: names(),
            covered: names(),
            log_is_newer: false,
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        let number = self.live[name];
        &mut self.files[number]
    }

    /// The next thing happened. `next` is what comes after it.
    pub(crate) fn see(&mut self, event: &Event) {
        match event {
            Event::Made(name) => {
                self.live.insert(name.clone(), self.files.len());
                self.files.push(File::default());
            }
            Event::Wrote { file, at, octets } => {
                // A NORMAL store syncs its log before it writes the database.
                if self.honours == Honours::OnlyCheckpoints && !file.ends_with("-wal") && self.log_is_newer {
                    self.log_is_newer = false;
                    let log = format!("{file}-wal");
                    if self.live.contains_key(&log) {
                        let log = self.file(&log);
                        log.covered = log.pending.len();
                        settle(log);
                    }
                }
                self.log_is_newer |= file.ends_with("-wal");
                self.file(file).pending.push(Change::Write(*at, octets.clone()));
            }
            Event::Cut { file, size } => self.file(file).pending.push(Change::Cut(*size)),
            Event::Removed(name) => drop(self.live.remove(name)),
            Event::SyncBegins(name) if name == "." => self.covered = self.live.clone(),
            Event::SyncBegins(name) => {
                let file = self.file(name);
                file.covered = file.pending.len();
            }
            Event::Synced(name) if !self.honoured(name) => {}
            Event::Synced(name) if name == "." => self.durable = self.covered.clone(),
            Event::Synced(name) => settle(self.file(name)),
            Event::SyncFailed(name) => self.forget(name),
            Event::Said(_) => {}
        }
    }

    fn honoured(&self, name: &str) -> bool {
        match self.honours {
            Honours::All => true,
            Honours::OnlyCheckpoints => !name.ends_with("-wal"),
            Honours::Nothing => false,
        }
    }

    /// A sync failed: the kernel calls the pages clean. Some are on the disk, the others never will be.
    fn forget(&mut self, name: &str) {
        let mut random = self.random.clone();
        self.random.next();
        let file = self.file(name);
        let lost: Vec<_> = file.pending.drain(..file.covered).collect();
        let kept = random.below(3);
        for change in lost {
            // The size of a file is no page: it is not lost so.
            if matches!(change, Change::Cut(_)) || kept == 1 && random.below(2) == 0 {
                change.apply(&mut file.durable);
            }
        }
        file.covered = 0;
    }

    /// The files after a power cut now, as `luck` has it.
    pub(crate) fn image(&self, luck: Luck, random: &mut Random) -> HashMap<String, Vec<u8>> {
        let names = match luck {
            Luck::None => &self.durable,
            Luck::All => &self.live,
            Luck::Some | Luck::Torn if random.below(2) == 0 => &self.durable,
            Luck::Some | Luck::Torn => &self.live,
        };
        names
            .iter()
            .map(|(name, &number)| (name.clone(), survived(&self.files[number], luck, random)))
            .collect()
    }
}

fn settle(file: &mut File) {
    for change in file.pending.drain(..file.covered) {
        change.apply(&mut file.durable);
    }
    file.covered = 0;
}

fn survived(file: &File, luck: Luck, random: &mut Random) -> Vec<u8> {
    let mut octets = file.durable.clone();
    let lucky = match luck {
        Luck::None => Vec::new(),
        Luck::All => file.pending.clone(),
        Luck::Some => file.pending.iter().filter(|_| random.below(2) == 0).cloned().collect(),
        Luck::Torn => {
            let sectors: Vec<_> = file.pending.iter().flat_map(sectors).collect();
            sectors.into_iter().filter(|_| random.below(2) == 0).collect()
        }
    };
    lucky.iter().for_each(|change| change.apply(&mut octets));
    octets
}

fn sectors(change: &Change) -> Vec<Change> {
    let Change::Write(at, octets) = change else { return vec![change.clone()] };
    let mut parts = Vec::new();
    let (mut at, mut rest) = (*at, &octets[..]);
    while !rest.is_empty() {
        let (first, others) = rest.split_at((SECTOR - at % SECTOR).min(rest.len()));
        parts.push(Change::Write(at, first.to_vec()));
        at += first.len();
        rest = others;
    }
    parts
}
