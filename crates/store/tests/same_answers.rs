//! The scripts against the rules: whatever is asked, a store on Redis answers as the embedded one does, whose rules are
//! the functions of `alias` themselves. Random calls, the same to both, at the same times.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

#[path = "servers/mod.rs"]
mod servers;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use servers::Server;
use tempalias_alias::{
    Answer, Attempt, ClaimRequest, ClientTag, Fingerprint, KeyId, Ledger, LimitChange, Limits, Outcome, Rate,
    RowKey, Sealed, SenderTag, UnixTime,
};
use tempalias_store::{Change, Clock, Idempotent, NewRow, Once, Options, RedisOptions, Settlement, Store};

const KEY_ID: KeyId = KeyId([1, 2, 3, 4]);
const START: UnixTime = UnixTime::from_secs(4_000_000_000);
const STEPS: u32 = 3_000;

/// A split-mix generator: the same choices on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

struct Pair {
    random: Random,
    time: Arc<AtomicU64>,
    folder: tempfile::TempDir,
    server: Server,
    boot: u64,
    stores: [Store; 2],
    number: u64,
    /// The latest attempts: on what, for which message, and the number.
    attempts: Vec<(RowKey, u8, u64)>,
    /// Of each row, how many have ended before it.
    generations: [u8; 6],
    /// How often each answer to a claim was given, to see that the calls are interesting.
    answers: std::collections::BTreeMap<String, u32>,
}

async fn open(folder: &std::path::Path, server: &Server, time: &Arc<AtomicU64>, boot: u64) -> [Store; 2] {
    let clock: Clock = {
        let time = time.clone();
        Arc::new(move || UnixTime::from_millis(time.load(Ordering::SeqCst)))
    };
    let options = Options { path: folder.join("aliases.db"), boot, clock: clock.clone(), keys: vec![KEY_ID] };
    let embedded = Store::open(options).unwrap();
    let redis = Store::connect(RedisOptions {
        address: server.address(),
        ca: None,
        namespace: "same".into(),
        keys: vec![KEY_ID],
        is_new: true,
        wait_replicas: 0,
        come_back: Duration::ZERO,
        node: "same".into(),
        draw: Arc::new(move || boot),
        clock: Some(clock),
    });
    [embedded, redis.await.unwrap()]
}

impl Pair {
    async fn new(seed: u64) -> Self {
        let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(&[]));
        let time = Arc::new(AtomicU64::new(START.millis()));
        let stores = open(folder.path(), &server, &time, 1).await;
        let (attempts, answers) = (Vec::new(), std::collections::BTreeMap::new());
        Self {
            random: Random(seed),
            time,
            folder,
            server,
            boot: 1,
            stores,
            number: 0,
            attempts,
            generations: [0; 6],
            answers,
        }
    }

    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.time.load(Ordering::SeqCst))
    }

    fn row(&mut self) -> RowKey {
        let which = usize::try_from(self.random.below(6)).unwrap();
        RowKey([u8::try_from(which * 40).unwrap() + self.generations[which]; 16])
    }

    fn message(&mut self) -> u8 {
        u8::try_from(self.random.below(5)).unwrap()
    }

    fn duration(&mut self) -> Duration {
        let most = [1, 1_000, 3_600_000, 20 * 3_600_000, 6 * 86_400_000];
        let index = usize::try_from(self.random.below(5)).unwrap();
        Duration::from_millis(self.random.below(most[index]) + 1)
    }

    /// The same call to both; what they answer, compared and counted.
    async fn both<T: PartialEq + std::fmt::Debug, F: Future<Output = T>>(
        &mut self,
        what: &str,
        call: impl Fn(Store) -> F,
    ) -> T {
        let [embedded, redis] = self.stores.clone();
        let (one, other) = (call(embedded).await, call(redis).await);
        assert_eq!(one, other, "{what} at {:?}", self.now());
        one
    }

    async fn step(&mut self) {
        let row = self.row();
        match self.random.below(22) {
            0 | 1 => self.create(row).await,
            2..=8 => self.claim(row).await,
            9..=13 | 20 | 21 => self.settle(row).await,
            14 => {
                let message = Fingerprint([self.message(); 16]);
                self.both(
                    "acknowledge",
                    |store| async move { store.acknowledge(vec![(row, message)]).await },
                )
                .await
                .unwrap();
                // The embedded store acknowledges with the next write at the latest: make one.
                self.both("settle", |store| async move { store.settle(vec![]).await }).await.unwrap();
            }
            15 => self.change(row).await,
            16 => {
                let (tag, rate) =
                    (ClientTag([self.message(); 16]), Rate { burst: 3, every: Duration::from_secs(30) });
                self.both("take", |store| async move { store.take(tag, rate).await }).await.unwrap().ok();
            }
            17 => {
                let name = ClientTag([self.message(); 16]);
                self.both("reply", |store| async move { store.idempotent_reply(name).await }).await.unwrap();
            }
            18 => {
                let time = self.duration();
                self.time.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
                // What is over is gone in both: one deletes it in its sweep, the other by its own expiry.
                let sweep = |store: Store| async move { store.sweep().await.map(|swept| swept.rows) };
                self.both("sweep", sweep).await.unwrap();
            }
            _ => {
                if self.random.below(10) == 0 {
                    self.restart().await;
                }
                self.both("list", |store| async move { store.list(None, 100).await }).await.unwrap();
            }
        }
        self.compare(row).await;
    }

    async fn create(&mut self, row: RowKey) {
        let days = |n: u64| Duration::from_hours(24 * n);
        let from = (self.random.below(4) == 0).then(|| self.now().plus(days(1)));
        let valid_until =
            (self.random.below(4) > 0).then(|| self.now().plus(days(2 + self.random.below(20))));
        let most = [0, 1, 2, 3, 10, 50][usize::try_from(self.random.below(6)).unwrap()];
        let limits = Limits { valid_from: from, valid_until, max_usage: NonZeroU32::new(most) };
        let new =
            NewRow { key: row, key_id: KEY_ID, limits, sealed: Sealed(vec![self.message(); 60].into()) };
        let other = self.row();
        let also_free = if self.random.below(3) == 0 && other != row { vec![other] } else { vec![] };
        let once = (self.random.below(2) == 0).then(|| Once {
            name: ClientTag([self.message(); 16]),
            reply: Idempotent { body: ClientTag([7; 16]), reply: Sealed(vec![self.message(); 20].into()) },
        });
        let call = |store: Store| {
            let (new, also_free, once) = (new.clone(), also_free.clone(), once.clone());
            async move { store.create(new, &also_free, once).await }
        };
        let _ = self.both("create", call).await.unwrap();
    }

    async fn claim(&mut self, row: RowKey) {
        self.number += 1;
        let (message, number) = (self.message(), self.number);
        self.attempts.insert(0, (row, message, number));
        self.attempts.truncate(8);
        let attempt = Attempt { owner: self.stores[0].owner(), number };
        let request = ClaimRequest {
            row,
            fingerprint: Fingerprint([message; 16]),
            identified: self.random.below(8) > 0,
            sender: SenderTag([message; 8]),
            attempt,
            was_counted: self.random.below(3) > 0,
        };
        let call = |store: Store| async move {
            let owner = store.owner();
            let attempt = Attempt { owner, ..request.attempt };
            store.claim(vec![ClaimRequest { attempt, ..request }]).await
        };
        let claimed = self.both("claim", call).await.unwrap();
        if self.random.below(6) == 0 {
            // The answer was lost: the same is asked once more.
            let again = self.both("claim again", call).await.unwrap();
            assert_eq!(again, claimed);
        }
        *self.answers.entry(format!("{:?}", claimed[0].answer)).or_default() += 1;
        if claimed[0].answer == Answer::Over && self.random.below(6) == 0 {
            let which = usize::from(row.0[0] / 40);
            self.generations[which] = (self.generations[which] + 1) % 40;
            let row = RowKey([row.0[0] / 40 * 40 + self.generations[which]; 16]);
            self.create(row).await;
        }
    }

    async fn settle(&mut self, row: RowKey) {
        let outcomes =
            [Outcome::Delivered, Outcome::Refused, Outcome::Deferred, Outcome::Unsent, Outcome::Lost];
        let outcome = outcomes[usize::try_from(self.random.below(7)).unwrap().min(6) % 5];
        let recent = usize::try_from(self.random.below(8)).unwrap();
        let (row, number) =
            self.attempts.get(recent).copied().map_or((row, 0), |(row, _, number)| (row, number));
        let call = |store: Store| async move {
            let attempt = Attempt { owner: store.owner(), number };
            store.settle(vec![Settlement { row, attempt, outcome }]).await
        };
        self.both("settle", call).await.unwrap();
    }

    async fn change(&mut self, row: RowKey) {
        let until = self.now().plus(self.duration());
        let most = NonZeroU32::new(u32::try_from(1 + self.random.below(5)).unwrap());
        let change = match self.random.below(9) {
            0 | 1 => Change::Limits(LimitChange { valid_until: Some(until), max_usage: None }),
            2 | 3 => Change::Limits(LimitChange { valid_until: None, max_usage: most }),
            4 => Change::Pause,
            5 | 6 => Change::Resume,
            7 => Change::FreeHeld,
            _ => Change::Remove,
        };
        let call = |store: Store| {
            let change = change.clone();
            async move { store.change(row, change).await.map(|found| found.map(|found| plain(found.ledger))) }
        };
        self.both(&format!("change {change:?}"), call).await.unwrap();
    }

    async fn restart(&mut self) {
        self.boot += 1;
        for store in &self.stores {
            store.close().await;
        }
        // The embedded store's lock is free once it is dropped.
        let [embedded, redis] = self.stores.clone();
        self.stores = [redis.clone(), redis];
        drop(embedded);
        self.stores = open(self.folder.path(), &self.server, &self.time, self.boot).await;
    }

    /// The row as both have it. Owners differ in the node's number, and claims have no order.
    async fn compare(&mut self, row: RowKey) {
        let look = |store: Store| async move {
            let found = store.find(&[row]).await.unwrap();
            found.map(|found| (plain(found.ledger), found.created, found.sealed, found.now))
        };
        self.both("find", look).await;
    }
}

/// A ledger without what may differ: the node's number, the order of claims, and claims that only wait to be swept.
fn plain(mut ledger: Ledger) -> (Limits, String, u32, Vec<String>) {
    ledger.kept.sort_by_key(|kept| kept.fingerprint.0);
    let kept = ledger.kept.iter().map(|kept| {
        format!(
            "{:?} {:?} {:x} {} {:?} {} {} {:?}",
            kept.fingerprint,
            kept.state,
            kept.attempt.owner.boot,
            kept.attempt.number,
            kept.sender,
            kept.doubts,
            kept.clean,
            kept.until
        )
    });
    (ledger.limits, format!("{:?}", ledger.state), ledger.used, kept.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_answers_as_the_rules_do() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(2026);
    println!("SEED={seed}");
    let mut pair = Pair::new(seed).await;
    for _ in 0..STEPS {
        pair.step().await;
    }
    for answer in ["Granted", "Again", "Already", "Busy", "Over", "Uncounted"] {
        assert!(
            pair.answers.get(answer).is_some_and(|times| *times >= 10),
            "{answer} too rarely: {:?}",
            pair.answers
        );
    }
}
