//! A server that throws keys away, in the seconds before it is noticed: what it threw away is not called unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempalias_alias::{Answer, Attempt, Outcome, RowKey, UnixTime};
use tempalias_store::{Adopted, Change, Created, RedisOptions, Settlement, Store};

use crate::fixture::{claim, key_of, make, open, options, row, serving, try_claim, until, until_found, used};
use crate::servers::Server;

async fn unknown(store: &Store, row: RowKey) -> bool {
    store.find(&[row]).await == Ok(None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_that_is_thrown_away_is_never_called_unknown() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    let mut rows = Vec::new();
    for number in 0..200 {
        rows.push(make(&store, number, 5).await);
    }
    server.throw_some_away();
    let begun = Instant::now();
    let (mut found, mut failed) = (0, 0);
    // Longer than the time to the next look at the server.
    while begun.elapsed() < Duration::from_secs(5) {
        for &row in &rows {
            match store.find(&[row]).await {
                Ok(Some(_)) => found += 1,
                Ok(None) => panic!("a live alias was called unknown after {:?}", begun.elapsed()),
                Err(_) => failed += 1,
            }
        }
    }
    println!("{found} found, {failed} failed");
    assert!(failed > 0);
    // Once the loss is accepted they are unknown, and the rest is as it was.
    let adopted = tempalias_store::adopt(&options(&server.address(), false)).await.unwrap();
    assert!(matches!(adopted, Adopted::Mended { parts: 1024, .. }), "not a beginning: {adopted:?}");
    let (mut gone, mut there) = (0, 0);
    for &row in &rows {
        until("each is known or unknown", || async { store.find(&[row]).await.is_ok() }).await;
        if unknown(&store, row).await { gone += 1 } else { there += 1 }
    }
    println!("{gone} of 200 were thrown away");
    let listed = store.list(None, 1_000).await.unwrap();
    assert_eq!(listed.len(), there, "all that are left are listed, those whose index was lost, too");
}

/// One by one, without a server that would notice: an index that says that a row was there, and none at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_or_an_index_that_is_gone_is_an_error_until_the_loss_is_accepted() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    let (row_gone, index_gone) = (make(&store, 1, 5).await, make(&store, 2, 5).await);
    let (never, beside) = (row(&store, 4, 1).key, make(&store, 5, 5).await);
    assert!(unknown(&store, never).await);
    server.cli(&["DEL", &key_of(&format!("row:{row_gone}"), 1), &key_of("index", 2), &key_of("index", 4)]);
    for _ in 0..2 {
        for row in [row_gone, never] {
            let why = store.find(&[row]).await.unwrap_err().to_string();
            assert!(why.contains("threw some away"), "{why}");
            assert!(try_claim(&store, row, 1, 1).await.is_err());
            assert!(store.change(row, Change::Pause).await.is_err());
        }
        let again = row(&store, 1, 5);
        assert!(store.create(again, &[], None).await.is_err(), "nor made anew, with all its uses");
        assert!(store.list(None, 10).await.is_err(), "nor left out");
        // The sweep leaves all that as it is.
        store.sweep().await.unwrap();
    }
    assert_eq!(try_claim(&store, index_gone, 1, 2).await, Ok(Answer::Granted), "what is there is there");
    assert_eq!(try_claim(&store, beside, 1, 3).await, Ok(Answer::Granted));
    let told = store.check().await.reader.unwrap_err().to_string();
    assert!(told.contains("2 of 1024 parts"), "what /readyz says: {told}");
    let adopt = async || tempalias_store::adopt(&options(&server.address(), false)).await.unwrap();
    assert_eq!(adopt().await, Adopted::Mended { parts: 2, of: 1024, aliases: 1 });
    assert_eq!(adopt().await, Adopted::Nothing);
    assert_eq!(store.check().await.reader, Ok(()));
    assert!(unknown(&store, row_gone).await && unknown(&store, never).await);
    let listed: Vec<RowKey> = store.list(None, 10).await.unwrap().iter().map(|row| row.key).collect();
    assert_eq!(listed, [index_gone, beside], "listed again");
    assert_eq!((used(&store, index_gone).await, used(&store, beside).await), (1, 1));
    assert_eq!(store.create(row(&store, 1, 5), &[], None).await, Ok(Created::Done));
    until_found(&store, row_gone).await;
}

/// A part whose list is gone is not left out of what is listed, and the sweep leaves it alone and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_list_is_gone_nothing_is_listed_and_the_rest_is_swept() {
    let server = Server::start(&[]);
    let time = Arc::new(AtomicU64::new(1_000_000));
    let clock = time.clone();
    let clock = Arc::new(move || UnixTime::from_secs(clock.load(Ordering::Relaxed)));
    let store = serving(RedisOptions { clock: Some(clock), ..options(&server.address(), true) }).await;
    let (index_gone, beside) = (make(&store, 1, 5).await, make(&store, 2, 5).await);
    assert_eq!(store.list(None, 10).await.unwrap().len(), 2);
    server.cli(&["DEL", &key_of("index", 1)]);
    let why = store.list(None, 10).await.unwrap_err().to_string();
    assert!(why.contains("threw some away"), "{why}");
    // Both are long over.
    time.fetch_add(100 * 24 * 3600, Ordering::Relaxed);
    until("the sweep comes round", || async { store.sweep().await.is_ok_and(|swept| swept.rows == 1) }).await;
    let stands = |number, row| server.cli(&["EXISTS", &key_of(&format!("row:{row}"), number)]);
    assert_eq!((stands(1, index_gone).as_str(), stands(2, beside).as_str()), ("1", "0"));
}

/// A settlement that meets a row that is gone waits: the data may be restored, and the claim with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_waits_for_a_row_that_is_gone() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 1).await;
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    let name = key_of(&format!("row:{row}"), 1);
    server.cli(&["RENAME", &name, &key_of("saved", 1)]);
    let attempt = Attempt { owner: store.owner(), number: 1 };
    let settlement = Settlement { row, attempt, outcome: Outcome::Delivered };
    assert!(store.settle(vec![settlement]).await.is_err(), "it is not in the store");
    server.cli(&["RENAME", &key_of("saved", 1), &name]);
    until("it is settled", || async { store.settle(vec![settlement]).await.is_ok() }).await;
    assert_eq!(claim(&store, row, 1, 2).await, Answer::Already, "its retry is not delivered a second time");
    // Of a row that never was there is nothing to wait for.
    let never = Settlement { row: crate::fixture::key(9), ..settlement };
    until("it is dropped", || async { store.settle(vec![never]).await.is_ok() }).await;
}
