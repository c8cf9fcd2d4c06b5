//! How fast the embedded store is on this disk: `cargo run --profile fast --example throughput -- [FOLDER]`.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::error::Error;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempalias_alias::{
    Attempt, ClaimRequest, Fingerprint, KeyId, Limits, Outcome, RowKey, Sealed, SenderTag,
};
use tempalias_store::{Embedded, NewRow, Options, Settlement, Store, StoreError};

const ROWS: u64 = 50_000;
const TIME: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder)?;
    let embedded = open(folder.path())?;
    let store = Store::from(embedded.clone());
    fill(&store).await?;
    let size = std::fs::metadata(folder.path().join("aliases.db"))?.len();
    println!("{ROWS} rows, {} bytes each; resident {}", size / ROWS, resident());
    for tasks in [1, 8, 64, 256] {
        let before = embedded.stats();
        let (claims, slowest) = measure(&store, tasks, Kind::Claim).await?;
        let after = embedded.stats();
        let grouped = (after.calls - before.calls).checked_div(after.commits - before.commits);
        println!(
            "{tasks:4} tasks: {claims:7} claim + settle/s, slowest {slowest:?}, {} calls a commit",
            grouped.unwrap_or(0)
        );
    }
    for (kind, what) in [(Kind::Find, "find"), (Kind::Miss, "find of what is not there")] {
        for tasks in [1, 8, 64, 256] {
            let (finds, slowest) = measure(&store, tasks, kind).await?;
            println!("{tasks:4} tasks: {finds:7} {what}/s, slowest {slowest:?}");
        }
    }
    println!("resident {}", resident());
    Ok(())
}

fn open(folder: &Path) -> Result<Embedded, Box<dyn Error>> {
    let (path, clock) = (folder.join("aliases.db"), tempalias_store::system_clock());
    Ok(Embedded::open(Options { path, boot: 1, clock, keys: Vec::new() })?)
}

#[derive(Clone, Copy)]
enum Kind {
    Claim,
    Find,
    Miss,
}

fn key(number: u64) -> RowKey {
    // Spread as hashes are: the multiplier is odd, so no two meet.
    let high = (number % ROWS).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    RowKey((u128::from(high) << 64).to_be_bytes())
}

fn unknown(number: u64) -> RowKey {
    let RowKey(mut octets) = key(number.wrapping_mul(7919));
    octets[15] = 1;
    RowKey(octets)
}

async fn fill(store: &Store) -> Result<(), Box<dyn Error>> {
    let valid_until = Some(store.now().plus(Duration::from_hours(24)));
    let limits = Limits { valid_from: None, valid_until, max_usage: NonZeroU32::new(u32::MAX) };
    let mut tasks = Vec::new();
    for task in 0..100 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            for number in (task..ROWS).step_by(100) {
                let sealed = Sealed(vec![1; 157].into());
                let row = NewRow { key: key(number), key_id: KeyId([1; 4]), limits, sealed };
                store.create(row, &[], None).await.map(drop)?;
            }
            Ok::<_, StoreError>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Calls a second, and the longest that one took.
async fn measure(store: &Store, tasks: u64, kind: Kind) -> Result<(u128, Duration), Box<dyn Error>> {
    let begin = Instant::now();
    let mut running = Vec::new();
    for task in 0..tasks {
        let store = store.clone();
        running.push(tokio::spawn(async move {
            let (mut count, mut slowest) = (0_u64, Duration::ZERO);
            while begin.elapsed() < TIME {
                let one = Instant::now();
                let number = task + count * tasks;
                match kind {
                    Kind::Claim => claim_and_settle(&store, number).await?,
                    Kind::Miss => store.find(&[unknown(number)]).await.map(drop)?,
                    Kind::Find => store.find(&[key(number.wrapping_mul(7919))]).await.map(drop)?,
                }
                slowest = slowest.max(one.elapsed());
                count += 1;
            }
            Ok::<_, StoreError>((count, slowest))
        }));
    }
    let (mut sum, mut slowest) = (0, Duration::ZERO);
    for task in running {
        let (count, longest) = task.await??;
        sum += u128::from(count);
        slowest = slowest.max(longest);
    }
    Ok((sum * 1000 / begin.elapsed().as_millis(), slowest))
}

async fn claim_and_settle(store: &Store, number: u64) -> Result<(), StoreError> {
    let attempt = Attempt { owner: store.owner(), number };
    let fingerprint = Fingerprint(u128::from(number).to_le_bytes());
    let row = key(number.wrapping_mul(7919));
    let request = ClaimRequest {
        row,
        fingerprint,
        identified: true,
        sender: SenderTag([1; 8]),
        attempt,
        was_counted: true,
    };
    store.claim(vec![request]).await?;
    store.settle(vec![Settlement { row, attempt, outcome: Outcome::Delivered }]).await?;
    store.acknowledge(vec![(row, fingerprint)]).await
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap_or("unknown").trim().to_owned()
}
