//! Plays simulated worlds by hand: one seed with its transcript, many seeds on all cores, or seeds in order until one
//! breaks a promise.
//!
//! ```text
//! cargo run -p tempalias-testkit --example simulate -- --seed 42 [--sabotage NAME]
//! cargo run --profile fast -p tempalias-testkit --example simulate -- --seeds 0..10000000 [--sabotage NAME]
//! cargo run -p tempalias-testkit --example simulate -- --first 0..100000 [--sabotage NAME]
//! ```
//!
//! Exit status 1: a promise was broken. `docs/proof.md` tells what is simulated.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempalias_testkit::sim::{self, Sabotage, Seen, Tally};

/// Seeds that a thread takes at once.
const PORTION: u64 = 1000;
const PROGRESS: Duration = Duration::from_secs(10);

enum Wanted {
    One(u64),
    Many(Range<u64>),
    First(Range<u64>),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match parse(&arguments) {
        Ok((Wanted::One(seed), sabotage)) => one(seed, sabotage),
        Ok((Wanted::Many(seeds), sabotage)) => many(seeds, sabotage),
        Ok((Wanted::First(seeds), sabotage)) => first(seeds, sabotage),
        Err(why) => {
            let names: Vec<&str> = Sabotage::ALL.into_iter().map(Sabotage::name).collect();
            eprintln!("{why}\nusage: simulate (--seed N | --seeds A..B | --first A..B) [--sabotage NAME]");
            eprintln!("sabotage: {}", names.join(", "));
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: &[String]) -> Result<(Wanted, Option<Sabotage>), String> {
    let (mut wanted, mut sabotage) = (None, None);
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} lacks its value", pair[0])) };
        let number =
            |text: &str| text.replace('_', "").parse::<u64>().map_err(|_| format!("{text} is no seed"));
        match name.as_str() {
            "--seed" => wanted = Some(Wanted::One(number(value)?)),
            "--seeds" | "--first" => {
                let (from, to) = value.split_once("..").ok_or(format!("{value} is no range A..B"))?;
                let seeds = number(from)?..number(to)?;
                wanted = Some(if name == "--first" { Wanted::First(seeds) } else { Wanted::Many(seeds) });
            }
            "--sabotage" => {
                sabotage = Some(Sabotage::named(value).ok_or(format!("no sabotage called {value}"))?);
            }
            _ => return Err(format!("what is {name}?")),
        }
    }
    Ok((wanted.ok_or("which seed?")?, sabotage))
}

fn one(seed: u64, sabotage: Option<Sabotage>) -> ExitCode {
    let run = sim::replay(seed, sabotage);
    for line in &run.transcript {
        println!("{line}");
    }
    print_tally(&run.tally);
    match run.broken {
        None => {
            println!("seed {seed}: every promise held");
            ExitCode::SUCCESS
        }
        Some(broken) => {
            println!("seed {seed}: {broken}");
            ExitCode::FAILURE
        }
    }
}

fn first(seeds: Range<u64>, sabotage: Option<Sabotage>) -> ExitCode {
    let from = seeds.start;
    for seed in seeds.clone() {
        if let Some(broken) = sim::run(seed, sabotage).broken {
            println!("seed {seed}: {broken} ({} schedules played)", seed - from + 1);
            return ExitCode::FAILURE;
        }
    }
    println!("seeds {}..{}: every promise held", seeds.start, seeds.end);
    ExitCode::SUCCESS
}

fn many(seeds: Range<u64>, sabotage: Option<Sabotage>) -> ExitCode {
    let (next, done) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let total = seeds.end.saturating_sub(seeds.start);
    let sum = Mutex::new((Tally::default(), Vec::<(u64, String)>::new()));
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&seeds, &next, &done, sabotage, &sum));
        }
        scope.spawn(|| {
            let mut told = Instant::now();
            while done.load(Ordering::Relaxed) < total {
                std::thread::sleep(Duration::from_millis(50));
                if told.elapsed() >= PROGRESS {
                    told = Instant::now();
                    eprintln!("{}", progress(done.load(Ordering::Relaxed), total, began));
                }
            }
        });
    });
    let (tally, mut broken) = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    broken.sort();
    eprintln!("{} on {threads} threads", progress(total, total, began));
    print_tally(&tally);
    for (seed, broken) in broken.iter().take(20) {
        println!("seed {seed}: {broken}");
    }
    let how =
        if broken.is_empty() { "every promise held".into() } else { format!("{} BROKEN", broken.len()) };
    println!("seeds {}..{}, digest {:016x}: {how}", seeds.start, seeds.end, tally.digest());
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(
    seeds: &Range<u64>,
    next: &AtomicU64,
    done: &AtomicU64,
    sabotage: Option<Sabotage>,
    sum: &Mutex<(Tally, Vec<(u64, String)>)>,
) {
    loop {
        let from = next.fetch_add(PORTION, Ordering::Relaxed);
        if from >= seeds.end {
            return;
        }
        let (mut tally, mut broken) = (Tally::default(), vec![]);
        let to = (from + PORTION).min(seeds.end);
        for seed in from..to {
            let run = sim::run(seed, sabotage);
            tally.merge(&run.tally);
            broken.extend(run.broken.map(|broken| (seed, broken)));
        }
        let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sum.0.merge(&tally);
        sum.1.extend(broken);
        done.fetch_add(to - from, Ordering::Relaxed);
    }
}

fn progress(done: u64, total: u64, began: Instant) -> String {
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    format!("{done} of {total} schedules, {} a second, {} s", done * 1000 / millis, millis / 1000)
}

fn print_tally(tally: &Tally) {
    for &seen in Seen::ALL {
        println!("{:>12} {}", tally.count(seen), seen.text());
    }
}
