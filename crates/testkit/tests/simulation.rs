//! The promises under simulation: the schedules that every test run plays, what must have happened in them for the
//! result to mean anything, and each rule broken on purpose. `docs/proof.md` tells more.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tempalias_testkit::sim::{self, Sabotage, Seen, Tally};

/// Schedules in every test run.
const SCHEDULES: u64 = 100_000;
/// Seeds that a thread takes at once.
const PORTION: u64 = 500;

/// Plays seeds on all cores; what happened, and which promises broke, by seed.
fn play(seeds: u64) -> (Tally, BTreeMap<u64, String>) {
    let (next, sum) = (AtomicU64::new(0), Mutex::new((Tally::default(), BTreeMap::new())));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let from = next.fetch_add(PORTION, Ordering::Relaxed);
                    if from >= seeds {
                        return;
                    }
                    let (mut tally, mut broken) = (Tally::default(), BTreeMap::new());
                    for seed in from..seeds.min(from + PORTION) {
                        let run = sim::run(seed, None);
                        tally.merge(&run.tally);
                        broken.extend(run.broken.map(|why| (seed, why)));
                    }
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.0.merge(&tally);
                    sum.1.extend(broken);
                }
            });
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What has to have happened in [`SCHEDULES`], at least so often: a simulation without faults proves nothing.
const MUST_HAPPEN: &[(Seen, u64)] = &[
    (Seen::Accepted, 100_000),
    (Seen::Told250, 50_000),
    (Seen::Already, 5000),
    (Seen::Again, 10_000),
    (Seen::TakenOver, 1000),
    (Seen::Busy, 10_000),
    (Seen::Over, 10_000),
    (Seen::Uncounted, 10_000),
    (Seen::InDoubt, 5000),
    (Seen::SpentByRefusal, 300),
    (Seen::GivenBack, 10_000),
    (Seen::Acknowledged, 20_000),
    (Seen::Expired, 10_000),
    (Seen::Freed, 50),
    (Seen::Partial, 150),
    (Seen::Disagreements, 400),
    (Seen::Expected, 10_000),
    (Seen::DeadOwner, 80),
    (Seen::LateClaims, 500),
    (Seen::Overdue, 3000),
    (Seen::SettledLate, 100),
    (Seen::Crashes, 20_000),
    (Seen::CrashesPastDot, 2000),
    (Seen::Pauses, 20_000),
    (Seen::LeasesLost, 20_000),
    (Seen::LeasesLostPastClaim, 500),
    (Seen::Fenced, 200),
    (Seen::StoreOutages, 5000),
    (Seen::Failovers, 500),
    (Seen::WritesLost, 500),
    (Seen::NamesLaidDown, 500),
    (Seen::FormerKept, 100),
    (Seen::FormerEnded, 100),
    (Seen::LeasesCut, 500),
    (Seen::UsesLost, 200),
    (Seen::OverLimit, 50),
    (Seen::DuplicateClaimLost, 5),
    (Seen::PowerLosses, 10_000),
    (Seen::ClockSteps, 5000),
    (Seen::CallsLost, 20_000),
    (Seen::AnswersLost, 10_000),
    (Seen::CallsTwice, 10_000),
    (Seen::CallsTimedOut, 20_000),
    (Seen::SenderCuts, 20_000),
    (Seen::SenderImpatient, 10_000),
    (Seen::NeverCameBack, 10_000),
    (Seen::HopCuts, 10_000),
    (Seen::HopRefusals, 10_000),
    (Seen::VerdictsLost, 2000),
    (Seen::Panics, 2000),
    (Seen::Crossings, 100),
    (Seen::DuplicateVerdictLost, 2000),
    (Seen::DuplicateReaderDied, 300),
    (Seen::DuplicateUnsettled, 10),
    (Seen::DuplicateUnidentified, 200),
    (Seen::DuplicateUncounted, 300),
    (Seen::SentOnPurpose, 1000),
];

/// Seeds that once broke a promise, and what each must still meet to be a test of it. `docs/proof.md` tells of them.
const ONCE_BROKEN: &[(u64, Seen)] = &[
    (6244, Seen::DuplicateAbandoned),
    (927_057, Seen::CrashesPastDot),
    (3_133_700, Seen::HeldForNobody),
    (6_027_029, Seen::ClockSteps),
    (8_651_551, Seen::SentOnPurpose),
];

#[test]
fn what_once_broke_holds() {
    for (seed, seen) in ONCE_BROKEN {
        let run = sim::run(*seed, None);
        assert_eq!(run.broken, None, "seed {seed}");
        assert!(run.tally.count(*seen) > 0, "seed {seed} plays something else now");
    }
}

#[test]
fn the_promises_hold_in_a_hundred_thousand_schedules() {
    let (tally, broken) = play(SCHEDULES);
    if let Some((seed, why)) = broken.first_key_value() {
        let run = sim::replay(*seed, None);
        let again = format!("cargo run -p tempalias-testkit --example simulate -- --seed {seed}");
        panic!(
            "{}\n\nseed {seed}: {why}\n{} seeds broke a promise\n{again}",
            run.transcript.join("\n"),
            broken.len()
        );
    }
    for (seen, least) in MUST_HAPPEN {
        let count = tally.count(*seen);
        assert!(count >= *least, "only {count} of at least {least}: {}", seen.text());
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..200 {
        let (once, again) = (sim::run(seed, None), sim::replay(seed, None));
        assert_eq!(once.tally, again.tally, "seed {seed}");
        assert!(!again.transcript.is_empty());
    }
}

/// Found, and as what: a promise that no longer holds (P1 to P3), not only a number that is wrong inside.
#[test]
fn each_rule_broken_on_purpose_is_found() {
    for sabotage in Sabotage::ALL {
        let broken = |seed| sim::run(seed, Some(sabotage)).broken.filter(|why| why.starts_with('P'));
        let found = (0..SCHEDULES).find_map(|seed| Some((seed, broken(seed)?)));
        let (seed, why) = found.unwrap_or_else(|| panic!("{} went unnoticed", sabotage.name()));
        println!("{:24} seed {seed}: {why}", sabotage.name());
        assert_eq!(sim::run(seed, None).broken, None, "seed {seed} breaks without {}", sabotage.name());
    }
}
