//! Places for stores, a store with something of everything in it, and what can be seen of a store.

use std::future::{Future, poll_fn};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use tempalias_alias::{KeyId, Ledger, Limits, Outcome, Rate, RowKey, Sealed, State, UnixTime};
use tempalias_store::copy::{Copied, CopyError, Offline, Place, Progress, Source, Target, copy};
use tempalias_store::{
    Change, Clock, Created, Found, Idempotent, Listed, NewRow, Once, OpenError, Options, RedisAddress,
    RedisOptions, Settlement, Store, StoreError,
};

pub(crate) use crate::values::{key, request, tag};

pub(crate) const FIRST_KEY: KeyId = KeyId([1, 2, 3, 4]);
pub(crate) const SECOND_KEY: KeyId = KeyId([5, 6, 7, 8]);
pub(crate) const DAY: Duration = Duration::from_hours(24);
const RATE: Rate = Rate { burst: 3, every: DAY };

/// A clock that is set by hand. Begins far ahead: no server deletes anything by its own clock.
#[derive(Clone)]
pub(crate) struct Time(Arc<AtomicU64>);

impl Time {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(4_000_000_000_000)))
    }

    pub(crate) fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let time = self.clone();
        Arc::new(move || time.now())
    }
}

fn draw() -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(1);
    DRAWN.fetch_add(1, Ordering::Relaxed)
}

/// A file that nothing else uses.
pub(crate) fn file(folder: &tempfile::TempDir, time: &Time) -> Place {
    let path = folder.path().join(format!("{}.db", draw()));
    let keys = vec![FIRST_KEY, SECOND_KEY];
    Place::Embedded(Options { path, boot: draw(), clock: time.clock(), keys })
}

pub(crate) fn path(place: &Place) -> PathBuf {
    let Place::Embedded(options) = place else { panic!("no file") };
    options.path.clone()
}

/// A namespace of its own on this server.
pub(crate) fn redis(address: &RedisAddress, time: &Time) -> Place {
    Place::Redis(RedisOptions {
        address: address.clone(),
        ca: None,
        namespace: format!("copy-{}", draw()),
        keys: vec![FIRST_KEY, SECOND_KEY],
        is_new: true,
        wait_replicas: 0,
        come_back: Duration::ZERO,
        node: "a-node".into(),
        draw: Arc::new(draw),
        clock: Some(time.clock()),
    })
}

pub(crate) async fn try_serve(place: &Place) -> Result<Store, OpenError> {
    match place.clone() {
        // Each start is another boot: whatever was in flight is nobody's.
        Place::Embedded(options) => Store::open(Options { boot: draw(), ..options }),
        Place::Redis(options) => Store::connect(options).await,
    }
}

/// A node that serves.
pub(crate) async fn serve(place: &Place) -> Store {
    // A program that another test starts at this moment has the file's lock until it runs.
    until_free(place).await;
    let store = try_serve(place).await.unwrap();
    for _ in 0..1000 {
        if store.check().await.is_ready() {
            return store;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{place:?} never serves: {}", store.check().await);
}

/// Ends in order.
pub(crate) async fn end(store: Store) {
    store.close().await;
}

pub(crate) async fn try_copy_watched(
    from: &Place,
    to: &Place,
    watch: impl FnMut(Progress),
) -> Result<Copied, CopyError> {
    let source = Offline::source(from.clone()).await?;
    let target = Target::open(to.clone(), source.origin()).await?;
    copy(&source, &target, watch).await
}

pub(crate) async fn try_copy(from: &Place, to: &Place) -> Result<Copied, CopyError> {
    try_copy_watched(from, to, |_| {}).await
}

/// A row of this number with these limits.
pub(crate) fn row(number: u8, limits: Limits) -> NewRow {
    let key_id = if number.is_multiple_of(2) { FIRST_KEY } else { SECOND_KEY };
    NewRow { key: key(number), key_id, limits, sealed: Sealed(vec![number; 100].into()) }
}

pub(crate) fn limits(uses: u32, until: Option<UnixTime>) -> Limits {
    Limits { valid_from: None, valid_until: until, max_usage: NonZeroU32::new(uses) }
}

async fn use_up(store: &Store, number: u8, message: u8, outcome: Option<Outcome>) {
    static ATTEMPT: AtomicU64 = AtomicU64::new(1);
    let request = request(store, key(number), message, ATTEMPT.fetch_add(1, Ordering::Relaxed));
    store.claim(vec![request]).await.unwrap();
    if let Some(outcome) = outcome {
        store.settle(vec![Settlement { row: request.row, attempt: request.attempt, outcome }]).await.unwrap();
    }
}

/// Rows in every state, claims in every state, replies and rate limits, some over. What is over is not counted.
pub(crate) async fn fill(store: &Store, time: &Time) -> Copied {
    let make = async |number: u8, limits: Limits, once: Option<Once>| {
        assert_eq!(store.create(row(number, limits), &[], once).await, Ok(Created::Done));
    };
    // Over by its date for longer than it is kept, and one that a moment separates from that.
    make(1, limits(5, Some(time.now().plus(DAY))), None).await;
    make(2, limits(5, Some(time.now().plus(2 * DAY))), None).await;
    make(3, limits(5, None), None).await;
    use_up(store, 3, 1, Some(Outcome::Delivered)).await; // Over by the time of the copy.
    let once = |number| {
        let reply = Idempotent { body: tag(number), reply: Sealed(vec![number; 40].into()) };
        Some(Once { name: tag(number), reply })
    };
    make(4, limits(0, None), once(4)).await;
    time.pass(31 * DAY);
    let soon = Some(time.now().plus(10 * DAY));

    make(5, limits(3, soon), once(5)).await;
    let dated = Limits { valid_from: Some(time.now().plus(DAY)), ..limits(0, soon) };
    make(6, dated, once(6)).await;
    make(7, limits(3, soon), None).await;
    store.change(key(7), Change::Pause).await.unwrap();
    make(8, limits(4, soon), None).await;
    for (message, outcome) in
        [(1, None), (2, Some(Outcome::Lost)), (3, Some(Outcome::Delivered)), (4, Some(Outcome::Refused))]
    {
        use_up(store, 8, message, outcome).await;
    }
    // Once more, under the same use: in flight again, and not clean.
    use_up(store, 8, 2, None).await;
    make(9, limits(2, None), None).await;
    use_up(store, 9, 1, Some(Outcome::Lost)).await;
    use_up(store, 9, 1, Some(Outcome::Lost)).await;
    make(10, limits(2, soon), None).await;
    use_up(store, 10, 1, Some(Outcome::Delivered)).await;
    store.change(key(10), Change::Remove).await.unwrap();
    make(0xff, limits(u32::MAX, None), None).await;
    make(0, limits(1, soon), None).await;
    use_up(store, 0, 1, Some(Outcome::Lost)).await;

    for client in 1..=3 {
        for _ in 0..client {
            store.take(tag(client), RATE).await.unwrap().unwrap();
        }
    }
    Copied { rows: 11, claims: 6, replies: 2, rates: 3 }
}

/// Waits for what a dropped copy still had to do with its file.
pub(crate) async fn until_free(place: &Place) {
    let Place::Embedded(options) = place else { return };
    let Ok(lock) = std::fs::File::open(options.path.with_extension("db.lock")) else { return };
    for _ in 0..6000 {
        if lock.try_lock().is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{place:?} is still held");
}

/// All that callers can see of a store.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    rows: Vec<(RowKey, Ledger, UnixTime, Sealed)>,
    replies: Vec<Option<Idempotent>>,
    /// How often each client may still make an alias, and how long it waits then.
    waits: Vec<Vec<Result<(), Duration>>>,
}

pub(crate) async fn see(store: &Store) -> Seen {
    let mut listed = Vec::new();
    loop {
        let page = answered(|| store.list(listed.last().map(|row: &Listed| row.key), 1000)).await;
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    let mut rows = Vec::new();
    for some in listed.chunks(100) {
        let found = some.iter().map(|row| async {
            let key = [row.key];
            answered(|| store.find(&key)).await
        });
        rows.extend(join_all(found).await.into_iter().flatten().filter_map(seen));
    }
    let replies =
        join_all((0..10).map(|number| async move { answered(|| store.idempotent_reply(tag(number))).await }));
    let replies = replies.await;
    Seen { rows, replies, waits: Vec::new() }
}

/// Asks until there is an answer: on a loaded machine one may take too long.
async fn answered<T, F: Future<Output = Result<T, StoreError>>>(ask: impl Fn() -> F) -> T {
    for _ in 0..20 {
        if let Ok(answer) = ask().await {
            return answer;
        }
    }
    ask().await.unwrap()
}

/// A row as it counts; none: it was only not swept yet.
fn seen(mut found: Found) -> Option<(RowKey, Ledger, UnixTime, Sealed)> {
    let is_over = |end: UnixTime| end.plus(tempalias_store::ROW_RETENTION) <= found.now;
    if found.ledger.state != State::Removed && found.ledger.limits.valid_until.is_some_and(is_over) {
        return None;
    }
    found.ledger.kept.retain(|kept| found.now < kept.until);
    found.ledger.kept.sort_by_key(|kept| kept.fingerprint.0);
    Some((found.key, found.ledger, found.created, found.sealed))
}

/// The same with what is left of rate limits, which uses them up.
pub(crate) async fn see_all(store: &Store) -> Seen {
    let mut seen = see(store).await;
    for client in 1..=4 {
        let mut waits = Vec::new();
        for _ in 0..4 {
            waits.push(store.take(tag(client), RATE).await.unwrap());
        }
        seen.waits.push(waits);
    }
    seen
}

impl Seen {
    /// Fails with what differs, not with thousands of rows.
    pub(crate) fn assert_is(&self, wanted: &Self) {
        for (row, other) in [(self, wanted), (wanted, self)] {
            let row = row.rows.iter().find(|row| !other.rows.contains(row));
            assert_eq!(row, row.and_then(|row| other.rows.iter().find(|one| one.0 == row.0)));
        }
        assert_eq!((&self.replies, &self.waits), (&wanted.replies, &wanted.waits));
    }

    pub(crate) fn numbers(&self) -> Vec<u8> {
        self.rows.iter().map(|(key, ..)| key.0[0]).collect()
    }
}

/// Many plain rows, spread over all buckets.
pub(crate) async fn make_many(store: &Store, count: u32) {
    let make = |number: u32| async move {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
        let row = NewRow { key: RowKey(key), ..row(4, limits(number, None)) };
        assert_eq!(store.create(row, &[], None).await, Ok(Created::Done));
    };
    let numbers: Vec<u32> = (1..=count).collect();
    for some in numbers.chunks(200) {
        join_all(some.iter().map(|&number| make(number))).await;
    }
}

/// Lets `work` go on for so many steps; what it came to, if it did.
pub(crate) async fn for_steps<F: Future>(mut work: Pin<&mut F>, mut steps: u32) -> Option<F::Output> {
    poll_fn(move |context| {
        if steps == 0 {
            return Poll::Ready(None);
        }
        steps -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}
