//! Stores as nodes open them, and rows to fill them with.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempalias_alias::{Answer, Attempt, KeyId, Limits, Outcome, RowKey, Sealed};
use tempalias_store::{
    Created, Found, NewRow, OpenError, RedisAddress, RedisOptions, Settlement, Store, StoreError,
};

pub(crate) use crate::values::{key, request, tag};

pub(crate) const KEY_ID: KeyId = KeyId([1, 2, 3, 4]);
/// Long enough for anything on a loaded machine, short enough to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that nobody listens on at this moment.
pub(crate) fn free_port() -> u16 {
    crate::ports::free_ports(1)[0]
}

/// A node on `address`. A first one makes the server ready.
pub(crate) fn options(address: &RedisAddress, is_new: bool) -> RedisOptions {
    static DRAWN: AtomicU64 = AtomicU64::new(1);
    RedisOptions {
        address: address.clone(),
        ca: None,
        namespace: "test".into(),
        keys: vec![KEY_ID],
        is_new,
        wait_replicas: 0,
        come_back: Duration::ZERO,
        node: "node".into(),
        draw: Arc::new(|| DRAWN.fetch_add(1, Ordering::Relaxed)),
        clock: None,
    }
}

/// A node that serves.
pub(crate) async fn open(address: &RedisAddress) -> Store {
    serving(options(address, true)).await
}

/// The same with these options. (On a loaded machine the first try to connect may take too long.)
pub(crate) async fn serving(options: RedisOptions) -> Store {
    let store = Store::connect(options).await.unwrap();
    until("it serves", || async { store.check().await.is_ready() }).await;
    store
}

pub(crate) async fn open_error(options: RedisOptions) -> String {
    let opened: Result<Store, OpenError> = Store::connect(options).await;
    opened.expect_err("it opened").to_string()
}

/// The name of a key in the bucket of the row with this number.
pub(crate) fn key_of(kind: &str, number: u8) -> String {
    format!("test:{{b{:03x}}}:{kind}", u16::from(number) * 4 + u16::from(number) / 64)
}

pub(crate) fn row(store: &Store, number: u8, max_usage: u32) -> NewRow {
    let limits = Limits {
        valid_from: None,
        valid_until: Some(store.now().plus(Duration::from_hours(240))),
        max_usage: NonZeroU32::new(max_usage),
    };
    NewRow { key: key(number), key_id: KEY_ID, limits, sealed: Sealed(vec![number; 50].into()) }
}

pub(crate) async fn make(store: &Store, number: u8, max_usage: u32) -> RowKey {
    let row = row(store, number, max_usage);
    let key = row.key;
    // Where an answer took too long, the row may stand.
    until("the row stands", || async {
        matches!(store.create(row.clone(), &[], None).await, Ok(Created::Done | Created::Clash))
    })
    .await;
    key
}

/// Asks once.
pub(crate) async fn try_claim(
    store: &Store,
    row: RowKey,
    message: u8,
    number: u64,
) -> Result<Answer, StoreError> {
    store.claim(vec![request(store, row, message, number)]).await.map(|claimed| claimed[0].answer)
}

/// Asks until there is an answer, under one attempt: on a loaded machine one may take too long.
pub(crate) async fn claim(store: &Store, row: RowKey, message: u8, number: u64) -> Answer {
    for _ in 0..20 {
        if let Ok(answer) = try_claim(store, row, message, number).await {
            return answer;
        }
    }
    try_claim(store, row, message, number).await.unwrap()
}

pub(crate) async fn settle(store: &Store, row: RowKey, number: u64, outcome: Outcome) {
    let settlement = Settlement { row, attempt: Attempt { owner: store.owner(), number }, outcome };
    until("it is settled", || async { store.settle(vec![settlement]).await.is_ok() }).await;
}

pub(crate) async fn used(store: &Store, row: RowKey) -> u32 {
    found(store, row).await.ledger.used
}

pub(crate) async fn found(store: &Store, row: RowKey) -> Found {
    until_found(store, row).await;
    for _ in 0..20 {
        if let Ok(found) = store.find(&[row]).await {
            return found.expect("the row is there");
        }
    }
    store.find(&[row]).await.unwrap().expect("the row is there")
}

/// Asks until it is so; how long that took.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) -> Duration {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < PATIENCE, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begin.elapsed()
}

/// Until rows are found again. That one does not exist is no outage.
pub(crate) async fn until_found(store: &Store, row: RowKey) -> Duration {
    until("the row is found", || async {
        let found = store.find(&[row]).await;
        assert!(!matches!(found, Ok(None)), "a live alias was called unknown");
        found.is_ok()
    })
    .await
}

/// Until a look-up fails, which it must do in time, and never by not finding.
pub(crate) async fn until_failing(store: &Store, row: RowKey) -> StoreError {
    let mut error = None;
    until("look-ups fail", || async {
        let begin = Instant::now();
        let found = store.find(&[row]).await;
        assert!(begin.elapsed() < Duration::from_secs(10), "bounded, even on a loaded machine");
        assert!(!matches!(found, Ok(None)), "a live alias was called unknown");
        found.is_err()
    })
    .await;
    for _ in 0..100 {
        match store.find(&[row]).await {
            Err(why) => error = Some(why),
            Ok(found) => assert!(found.is_some(), "a live alias was called unknown"),
        }
    }
    error.expect("it goes on failing")
}
