//! The load whose writes are recorded: several tasks that make aliases, claim, settle and acknowledge on one store,
//! and write down what they begin and what they were answered.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempalias_alias::{
    Answer, Attempt, ClaimRequest, Fingerprint, KeyId, LimitChange, Limits, Outcome, RowKey, Sealed,
    SenderTag,
};
use tempalias_store::{Change, Created, NewRow, Options, Settlement, Store, StoreError};

use crate::random::Random;

pub(crate) const KEY: KeyId = KeyId([1, 2, 3, 4]);
/// The file with what was begun and what was answered; it lies in the folder that is recorded, so that its lines
/// stand among the writes of the store.
pub(crate) const JOURNAL: &str = "journal";
pub(crate) const STORE: &str = "aliases.db";
/// Aliases of one task, and how many messages each may pass.
pub(crate) const ALIASES: u64 = 5;
pub(crate) const TASKS: u64 = 6;
pub(crate) const MAX_USAGE: u32 = 6;

pub(crate) fn options(folder: &Path, boot: u64) -> Options {
    let path = folder.join(STORE);
    Options { path, boot, clock: tempalias_store::system_clock(), keys: vec![KEY] }
}

/// Spread as hashes are, so that neighbours lie on different pages.
pub(crate) fn row(alias: u64) -> RowKey {
    let high = (alias + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    RowKey((u128::from(high) << 64 | u128::from(alias)).to_be_bytes())
}

pub(crate) fn fingerprint(message: u64) -> Fingerprint {
    Fingerprint(u128::from(message).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}

/// A thing of the store that moves from one value to the next, by one task at a time.
struct Journal(Mutex<File>);

impl Journal {
    fn line(&self, text: &str) {
        self.0.lock().unwrap().write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    /// From now on `thing` may have this value.
    fn begin(&self, thing: &str, value: &str) {
        self.line(&format!("begin {thing} {value}"));
    }

    /// It was answered: it has this value, durably.
    fn done(&self, thing: &str, value: &str) {
        self.line(&format!("done {thing} {value}"));
    }
}

/// Two lives of the program, with a clean end between them.
pub(crate) fn drive(folder: &Path, rounds: u64, seed: u64) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let file = OpenOptions::new().append(true).create(true).open(folder.join(JOURNAL)).unwrap();
    let journal = Arc::new(Journal(Mutex::new(file)));
    for boot in 1..=2 {
        let Ok(store) = open(folder, boot) else { continue };
        runtime.block_on(async {
            let tasks: Vec<_> = (0..TASKS)
                .map(|number| {
                    let random = Random::new(seed ^ (boot << 32) ^ number);
                    let (store, journal) = (store.clone(), Arc::clone(&journal));
                    let messages = Vec::new();
                    tokio::spawn(
                        Task { number, boot, store, journal, random, messages, attempts: 0 }.run(rounds),
                    )
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        drop(store);
    }
}

/// Where syncs fail, opening may fail as well; whoever runs it starts it again.
fn open(folder: &Path, boot: u64) -> Result<Store, tempalias_store::OpenError> {
    let mut last = Store::open(options(folder, boot));
    for _ in 0..9 {
        if last.is_ok() {
            break;
        }
        last = Store::open(options(folder, boot));
    }
    last
}

/// A message that was granted a use and is not yet over.
struct Message {
    number: u64,
    alias: u64,
    attempt: Attempt,
    /// What stands in the store if all that was begun has happened.
    state: &'static str,
    clean: bool,
}

struct Task {
    number: u64,
    boot: u64,
    store: Store,
    journal: Arc<Journal>,
    random: Random,
    messages: Vec<Message>,
    attempts: u64,
}

impl Task {
    async fn run(mut self, rounds: u64) {
        if self.boot == 1 {
            for alias in 0..ALIASES {
                self.create(self.number * ALIASES + alias).await;
            }
        }
        for round in 0..rounds {
            match self.random.below(10) {
                0..=4 => self.claim(self.boot * 1_000_000 + self.number * 100_000 + round).await,
                5..=7 => self.settle().await,
                8 => self.change().await,
                // Only the first life reads: in the second one the writer's connection is the only one, so that
                // opening it again after a failed sync reads the log anew.
                _ if self.boot == 1 => drop(self.store.check().await),
                _ => {}
            }
            if self.number == 0 && round % 40 == 39 {
                // Empties the log: a checkpoint, and a new log.
                drop(self.store.change(row(0), Change::Remove).await);
                drop(self.store.sweep().await);
            }
        }
        while !self.messages.is_empty() && self.random.below(4) > 0 {
            self.settle().await;
        }
    }

    async fn create(&mut self, alias: u64) {
        let thing = format!("alias-{alias}");
        let valid_until = Some(self.store.now().plus(Duration::from_hours(24)));
        let limits = Limits { valid_from: None, valid_until, max_usage: NonZeroU32::new(MAX_USAGE) };
        let new =
            NewRow { key: row(alias), key_id: KEY, limits, sealed: Sealed(vec![alias as u8; 160].into()) };
        // Alias 0 is removed again and again: nobody looks at it.
        if alias == 0 {
            drop(self.store.create(new, &[], None).await);
            return;
        }
        self.journal.begin(&thing, "active");
        if self.store.create(new, &[], None).await == Ok(Created::Done) {
            self.journal.done(&thing, "active");
        }
    }

    async fn claim(&mut self, number: u64) {
        let alias = 1 + self.random.below(TASKS * ALIASES - 1);
        self.attempts += 1;
        let attempt = Attempt { owner: self.store.owner(), number: self.number * 100_000 + self.attempts };
        let retried = self.messages.iter().position(|message| message.state == "in-doubt");
        let (alias, number, known) = match retried {
            Some(at) if self.random.below(2) == 0 => {
                (self.messages[at].alias, self.messages[at].number, Some(at))
            }
            _ => (alias, number, None),
        };
        let thing = format!("message-{alias}-{number}");
        let request = ClaimRequest {
            row: row(alias),
            fingerprint: fingerprint(number),
            identified: true,
            sender: SenderTag([3; 8]),
            attempt,
            was_counted: true,
        };
        self.journal.begin(&thing, "in-flight");
        let answer = self.store.claim(vec![request]).await.map(|answers| answers[0].answer);
        match answer {
            Ok(Answer::Granted | Answer::Again) => {
                self.journal.done(&thing, "in-flight");
                let clean = known.is_none();
                if let Some(at) = known {
                    self.messages.swap_remove(at);
                }
                self.messages.push(Message { number, alias, attempt, state: "in-flight", clean });
            }
            Ok(_) if known.is_none() => self.journal.done(&thing, "free"),
            // Given back, as the relay does; the answer to that may be lost too.
            Err(_) => {
                self.journal.begin(&thing, if known.is_none() { "free" } else { "in-doubt" });
                let outcome = Outcome::Unsent;
                drop(self.store.settle(vec![Settlement { row: row(alias), attempt, outcome }]).await);
            }
            Ok(_) => {}
        }
    }

    async fn settle(&mut self) {
        let flying = self.messages.iter().position(|message| message.state == "in-flight");
        let Some(at) = flying else { return };
        let mut message = self.messages.swap_remove(at);
        let (outcome, state) = match self.random.below(6) {
            0..=2 => (Outcome::Delivered, "delivered"),
            3 => (Outcome::Refused, if message.clean { "free" } else { "spent" }),
            4 => (Outcome::Deferred, if message.clean { "free" } else { "in-doubt" }),
            _ => (Outcome::Lost, "in-doubt"),
        };
        let thing = format!("message-{}-{}", message.alias, message.number);
        self.journal.begin(&thing, state);
        let settlement = Settlement { row: row(message.alias), attempt: message.attempt, outcome };
        if !self.settled(settlement).await {
            return;
        }
        self.journal.done(&thing, state);
        message.state = state;
        if state == "delivered" && self.random.below(2) == 0 {
            // Not durable before the next commit, so never done.
            self.journal.begin(&thing, "spent");
            drop(self.store.acknowledge(vec![(row(message.alias), fingerprint(message.number))]).await);
        } else if state == "in-doubt" {
            self.messages.push(message);
        }
    }

    /// Settles until the store has heard, some times; a sync that fails is not the last word.
    async fn settled(&self, settlement: Settlement) -> bool {
        for _ in 0..5 {
            if self.store.settle(vec![settlement]).await.is_ok() {
                return true;
            }
        }
        false
    }

    async fn change(&mut self) {
        let alias = self.number * ALIASES + self.random.below(ALIASES);
        if alias == 0 {
            return;
        }
        let thing = format!("alias-{alias}");
        let valid_until = Some(self.store.now().plus(Duration::from_hours(48)));
        let limits = LimitChange { valid_until, ..LimitChange::default() };
        let (change, state) = match self.random.below(12) {
            0..=4 => (Change::Pause, "paused"),
            5..=8 => (Change::Resume, "active"),
            9..=10 => (Change::Limits(limits), ""),
            _ => (Change::Remove, "removed"),
        };
        if !state.is_empty() {
            self.journal.begin(&thing, state);
        }
        let changed: Result<_, StoreError> = self.store.change(row(alias), change).await;
        if let (Ok(Some(found)), false) = (changed, state.is_empty()) {
            // A removed row stays removed.
            let is = format!("{:?}", found.ledger.state).to_lowercase();
            self.journal.done(&thing, &is);
        }
    }
}
