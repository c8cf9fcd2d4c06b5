//! Octets of the file change by themselves. Whatever is hit, a living alias is found as it was, or an error is
//! answered (451): never that it does not exist, never that it is over, never another number of uses.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail loudly, and says what it has shown"
)]

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempalias_alias::{
    Attempt, ClaimRequest, Fingerprint, KeyId, Limits, Outcome, RowKey, Sealed, SenderTag, UnixTime,
};
use tempalias_store::{Found, NewRow, Options, Settlement, Store, StoreError};

const KEY: KeyId = KeyId([1, 2, 3, 4]);
const ALIASES: u64 = 300;
const PAGE: usize = 4096;
const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % end as u64).unwrap()
    }
}

fn open(path: &Path) -> Result<Store, tempalias_store::OpenError> {
    Store::open(Options { path: path.to_owned(), boot: 7, clock: Arc::new(|| NOW), keys: vec![KEY] })
}

fn row(alias: u64) -> RowKey {
    let high = (alias + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    RowKey((u128::from(high) << 64 | u128::from(alias)).to_be_bytes())
}

fn new_row(alias: u64) -> NewRow {
    let valid_until = Some(NOW.plus(Duration::from_hours(24)));
    let limits = Limits { valid_from: None, valid_until, max_usage: NonZeroU32::new(3) };
    NewRow { key: row(alias), key_id: KEY, limits, sealed: Sealed(vec![alias as u8; 157].into()) }
}

fn request(store: &Store, alias: u64, message: u64) -> ClaimRequest {
    ClaimRequest {
        row: row(alias),
        fingerprint: Fingerprint(u128::from(message).to_be_bytes()),
        identified: true,
        sender: SenderTag([0; 8]),
        attempt: Attempt { owner: store.owner(), number: message },
        was_counted: true,
    }
}

/// Aliases, every third with claims in all states.
async fn fill(path: &Path) -> Vec<Found> {
    let store = open(path).unwrap();
    for alias in 0..ALIASES {
        let _ = store.create(new_row(alias), &[], None).await.unwrap();
        if alias % 3 != 0 {
            continue;
        }
        for (number, outcome) in [(0, Outcome::Delivered), (1, Outcome::Lost)] {
            let request = request(&store, alias, alias * 10 + number);
            let attempt = request.attempt;
            store.claim(vec![request]).await.unwrap();
            store.settle(vec![Settlement { row: row(alias), attempt, outcome }]).await.unwrap();
        }
    }
    let mut made = Vec::new();
    for alias in 0..ALIASES {
        made.push(store.find(&[row(alias)]).await.unwrap().unwrap());
    }
    made
}

fn spoil(file: &mut [u8], random: &mut Random) -> String {
    let at = random.below(file.len());
    match random.below(6) {
        0 => {
            file[at] ^= 1 << random.below(8);
            format!("one bit at {at}")
        }
        1 => {
            let end = (at + 1 + random.below(64)).min(file.len());
            file[at..end].iter_mut().for_each(|octet| *octet = random.below(256) as u8);
            format!("noise from {at} to {end}")
        }
        2 => {
            let sector = at / 512 * 512;
            file[sector..sector + 512].fill(0);
            format!("zeros in the sector at {sector}")
        }
        3 => {
            let page = at / PAGE * PAGE;
            file[page..page + PAGE].fill(0);
            format!("zeros in the page at {page}")
        }
        4 => {
            let (page, other) = (at / PAGE * PAGE, random.below(file.len()) / PAGE * PAGE);
            file.copy_within(other..other + PAGE, page);
            format!("the page at {other} written to {page}")
        }
        _ => {
            // The array of cells and their number, where a B-tree is searched.
            let at = at / PAGE * PAGE + 3 + random.below(60);
            file[at] = random.below(256) as u8;
            format!("one octet of a page's head at {at}")
        }
    }
}

/// What became of one damaged file.
#[derive(Default, Debug)]
struct Seen {
    refused_to_open: usize,
    whole: usize,
    deferred: usize,
}

async fn look(store: &Store, made: &[Found], what: &str) -> usize {
    let mut deferred = 0;
    for (alias, before) in made.iter().enumerate() {
        match store.find(&[before.key]).await {
            Ok(Some(found)) => assert_eq!(
                (&found.ledger.limits, found.ledger.state, found.created, &found.sealed),
                (&before.ledger.limits, before.ledger.state, before.created, &before.sealed),
                "{what}: alias {alias}"
            ),
            Ok(None) => panic!("{what}: alias {alias} is unknown"),
            Err(StoreError::Failed(_)) => deferred += 1,
            Err(other) => panic!("{what}: alias {alias}: {other}"),
        }
    }
    deferred
}

async fn same_claims(store: &Store, made: &[Found], what: &str) {
    for before in made {
        if let Ok(Some(found)) = store.find(&[before.key]).await {
            assert_eq!(found.ledger, before.ledger, "{what}");
        }
    }
}

async fn one(file: &[u8], what: String, path: &Path, made: &[Found], seen: &mut Seen) {
    fs::write(path, file).unwrap();
    for suffix in ["-wal", "-shm"] {
        drop(fs::remove_file(PathBuf::from(format!("{}{suffix}", path.display()))));
    }
    let store = match open(path) {
        Ok(store) => store,
        Err(why) => {
            let text = why.to_string();
            assert!(
                text.contains("backup") || text.contains("newer version") || text.contains("key_files"),
                "{what}: {text}"
            );
            seen.refused_to_open += 1;
            return;
        }
    };
    let deferred = look(&store, made, &what).await;
    same_claims(&store, made, &what).await;
    if deferred == 0 {
        seen.whole += 1;
    } else {
        seen.deferred += 1;
        let health = store.check().await;
        assert!(
            health.reader.is_err() || health.writer.is_err(),
            "{what}: {deferred} deferred, and {health}"
        );
        assert!(health.to_string().contains("damaged"), "{what}: {health}");
    }
    // Whatever is written over damage makes no lie of it either.
    for alias in 0..20 {
        drop(store.create(new_row(ALIASES + alias), &[], None).await);
        drop(store.claim(vec![request(&store, alias * 7, 50_000 + alias)]).await);
    }
    drop(store.sweep().await);
    look(&store, made, &format!("{what}, then writes")).await;
}

#[tokio::test]
async fn damage_is_never_taken_for_an_answer() {
    let folder =
        tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" }).unwrap();
    let path = folder.path().join("aliases.db");
    let made = fill(&path).await;
    let whole = fs::read(&path).unwrap();
    let rounds = std::env::var("DAMAGES").ok().map_or(150, |rounds| rounds.parse().unwrap());
    let seed =
        std::env::var("DAMAGE_SEED").ok().map_or(u64::from(std::process::id()), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let (mut random, mut seen) = (Random(seed), Seen::default());
    for _ in 0..rounds {
        let mut file = whole.clone();
        let what = spoil(&mut file, &mut random);
        one(&file, what, &path, &made, &mut seen).await;
    }
    println!("{rounds} damaged files of {} octets: {seen:?}", whole.len());
    assert!(seen.deferred > rounds / 4, "{seen:?}");
}

/// The tables' own descriptions, too: a column by another name is damage like any other.
#[tokio::test]
async fn a_spoilt_description_of_the_tables_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aliases.db");
    let made = fill(&path).await;
    let whole = fs::read(&path).unwrap();
    let first_page = &whole[..4096];
    let begin = first_page.windows(12).position(|octets| octets == b"CREATE TABLE").unwrap();
    let mut seen = Seen::default();
    for at in (begin..4096).step_by(7).filter(|&at| whole[at].is_ascii_lowercase()) {
        let mut file = whole.clone();
        file[at] ^= 1;
        one(&file, format!("another letter at {at}"), &path, &made, &mut seen).await;
    }
    assert!(seen.deferred + seen.refused_to_open > 20, "{seen:?}");
}

#[tokio::test]
async fn what_reads_well_again_is_served_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aliases.db");
    let made = fill(&path).await;
    let whole = fs::read(&path).unwrap();
    // In the sealed part of one row.
    let at = whole.windows(100).position(|octets| octets == [77; 100]).unwrap();
    let mut spoilt = whole.clone();
    spoilt[at] ^= 4;
    fs::write(&path, &spoilt).unwrap();
    let store = open(&path).unwrap();
    assert!(
        store.check().await.to_string().contains("put a backup in the file's place"),
        "found at the start"
    );
    assert!(
        matches!(store.find(&[made[77].key]).await, Err(StoreError::Failed(why)) if why.contains("damaged"))
    );
    assert!(store.find(&[made[78].key]).await.unwrap().is_some());
    fs::write(&path, &whole).unwrap();
    assert!(store.check().await.is_ready());
    assert_eq!(store.find(&[made[77].key]).await.unwrap().unwrap().sealed, made[77].sealed);
}
