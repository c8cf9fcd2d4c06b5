//! Power loss: what was answered before the cut stands after it.
//!
//! The real store is driven by several tasks under a recorder (`tests/power-loss/recorder.c`, preloaded) that writes
//! down every write, sync and removal in its folder, and between them what was begun and what was answered. Then the
//! files are built as a disk may have them that lost its power at one point of that recording, are opened with the
//! real store, and compared with what had been answered by then.
//!
//! `tests/power-loss/run` plays the long form: a cut at every event. `cargo test` plays the short one.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail loudly, and says what it has shown"
)]

mod check;
mod disk;
mod driver;
mod random;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use check::Allowed;
use disk::{Disk, Event, Honours, LUCKS, Luck};
use random::Random;

/// Set in the child that is recorded.
const FOLDER: &str = "POWER_LOSS_FOLDER";
const ROUNDS: &str = "POWER_LOSS_ROUNDS";
const SEED: &str = "POWER_LOSS_SEED";
/// Set by `tests/power-loss/run`.
const LONG: &str = "POWER_LOSS_LONG";
const WORKERS: usize = 2;

/// Not a test: what the recorded child does. (Without a folder it does nothing.)
#[test]
fn driver_of_the_recorded_child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let number = |name| std::env::var(name).unwrap().parse().unwrap();
    driver::drive(Path::new(&folder), number(ROUNDS), number(SEED));
}

#[test]
fn nothing_that_was_answered_is_lost() {
    let recording = Recording::make(rounds(), None);
    let played = recording.play(Honours::All, every(), &LUCKS);
    println!("power loss: {played}");
    assert!(played.answered > 300 && played.images > 500, "{played}");
    assert_eq!(played.faults, Vec::<String>::new(), "seed {}", recording.seed);
}

/// A sync that failed may have lost pages for good while the program still reads them: the store must not build
/// on them.
#[test]
fn nothing_that_was_answered_is_lost_after_failed_syncs() {
    let recording = Recording::make(rounds(), Some(12));
    let played = recording.play(Honours::All, every(), &LUCKS);
    println!("power loss after failed syncs: {played}");
    let failed = recording.events.iter().filter(|event| matches!(event, Event::SyncFailed(_))).count();
    assert!(played.answered > 100 && failed > 10, "{failed} syncs failed, {played}");
    assert_eq!(played.faults, Vec::<String>::new(), "seed {}", recording.seed);
}

/// The same recording on a disk that honours fewer syncs must be seen to lose something, or this test shows nothing.
#[test]
fn a_store_that_syncs_less_is_caught() {
    let recording = Recording::make(150, None);
    for honours in [Honours::OnlyCheckpoints, Honours::Nothing] {
        let played = recording.play(honours, 10, &[Luck::None]);
        assert!(played.faults.iter().any(|fault| fault.contains("may be")), "{honours:?}: {played}");
    }
}

fn is_long() -> bool {
    std::env::var_os(LONG).is_some()
}

fn rounds() -> u64 {
    if is_long() { 400 } else { 200 }
}

/// A cut after how many events; those around a sync are always taken.
fn every() -> usize {
    if is_long() { 1 } else { 12 }
}

struct Recording {
    events: Vec<Event>,
    seed: u64,
}

impl Recording {
    fn make(rounds: u64, failing: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let recorder = recorder(folder.path());
        let (data, trace) = (folder.path().join("data"), folder.path().join("trace"));
        std::fs::create_dir(&data).unwrap();
        let seed = std::env::var(SEED).ok().map_or_else(any_seed, |seed| seed.parse().unwrap());
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "driver_of_the_recorded_child", "--nocapture", "--test-threads=1"]);
        child.env("LD_PRELOAD", recorder).env("RECORD_FOLDER", &data).env("RECORD_TRACE", &trace);
        child.env(FOLDER, &data).env(ROUNDS, rounds.to_string()).env(SEED, seed.to_string());
        if let Some(every) = failing {
            child.env("RECORD_FAIL", every.to_string());
        }
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { events: disk::read_trace(&trace), seed }
    }

    /// Cuts the power at every event that `every` chooses, in each of `lucks`.
    fn play(&self, honours: Honours, every: usize, lucks: &[Luck]) -> Played {
        let parts: Vec<Played> = thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS)
                .map(|worker| scope.spawn(move || self.play_part(honours, every, lucks, worker)))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        let mut sum = Played { events: self.events.len(), ..Played::default() };
        for part in parts {
            sum.answered = part.answered;
            sum.cuts += part.cuts;
            sum.images += part.images;
            sum.faults.extend(part.faults);
        }
        sum
    }

    fn play_part(&self, honours: Honours, every: usize, lucks: &[Luck], worker: usize) -> Played {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let folder = quick_folder();
        let mut disk = Disk::new(honours, self.seed);
        let mut played = Played::default();
        let mut allowed = Allowed::default();
        let mut cut = 0;
        for (number, event) in self.events.iter().enumerate() {
            disk.see(event);
            if let Event::Said(line) = event {
                allowed.hear(line);
            }
            if !self.is_cut(number, every) {
                continue;
            }
            cut += 1;
            if cut % WORKERS != worker {
                continue;
            }
            played.cuts += 1;
            for &luck in lucks {
                let mut random = Random::new(self.seed ^ number as u64);
                let image = disk.image(luck, &mut random);
                played.images += 1;
                if let Err(fault) = check::check(&image, &allowed, folder.path(), &runtime) {
                    played.faults.push(format!("cut after event {number}, {luck:?}: {fault}"));
                    if played.faults.len() > 5 {
                        return played;
                    }
                }
            }
        }
        played.answered = allowed.answered;
        played
    }

    fn is_cut(&self, number: usize, every: usize) -> bool {
        number.is_multiple_of(every)
            // The answer that followed a sync most closely is the one that a lost sync takes away.
            || every > 1 && number.is_multiple_of(every / 2) && matches!(self.events[number], Event::Said(_))
            || matches!(self.events[number], Event::SyncFailed(_) | Event::Made(_) | Event::Removed(_) | Event::Cut { .. })
    }
}

#[derive(Default, Debug)]
struct Played {
    events: usize,
    answered: usize,
    cuts: usize,
    images: usize,
    faults: Vec<String>,
}

impl std::fmt::Display for Played {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { events, answered, cuts, images, faults } = self;
        write!(
            f,
            "{answered} answers in {events} events; {cuts} cuts, {images} images, {} faults",
            faults.len()
        )?;
        faults.iter().take(3).try_for_each(|fault| write!(f, "\n{fault}"))
    }
}

fn any_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Random::new(now.subsec_nanos().into()).next()
}

/// In memory where that is possible: the images need no disk of their own.
fn quick_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(folder) = tempfile::tempdir_in(memory)
    {
        return folder;
    }
    tempfile::tempdir().unwrap()
}

fn recorder(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/power-loss/recorder.c");
    let library = folder.join("recorder.so");
    let built = Command::new("cc")
        .args(["-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread", "-o"])
        .args([&library, &source])
        .status()
        .expect("a C compiler builds the recorder");
    assert!(built.success(), "the recorder does not build");
    library
}
