//! The markers of a store that begins, and what is left when a beginning was cut short: a part that is lost later must
//! not pass for one that has yet to begin.

use std::time::{Duration, Instant};

use tempalias_alias::RowKey;
use tempalias_store::{Adopted, Store};

use crate::fixture::{free_port, key_of, make, open, options, until, until_found};
use crate::proxy::Proxy;
use crate::servers::Server;

const BEGINNING: &str = "test:{beginning}";
/// Longer than a beginning may take.
const LONGEST: i64 = 600_000;

async fn never_unknown(store: &Store, row: RowKey, time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        let found = store.find(&[row]).await;
        assert_ne!(found, Ok(None), "a live alias was called unknown after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All parts were marked, and the node died before it could say that the beginning was over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_lost_is_not_taken_for_one_that_has_yet_to_begin() {
    let server = Server::on_port(free_port(), &[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 5).await;
    let marker = server.cli(&["GET", &key_of("marker", 1)]);
    drop(store);
    server.cli(&["SET", BEGINNING, &marker]);
    let store = Store::connect(options(&server.address(), false)).await.unwrap();
    until("it serves", || async { store.check().await.is_ready() }).await;
    assert_eq!(server.cli(&["EXISTS", BEGINNING]), "0", "nothing is left to do");
    server.cli(&["DEL", &key_of("marker", 1), &key_of("index", 1), &key_of(&format!("row:{row}"), 1)]);
    never_unknown(&store, row, Duration::from_secs(6)).await;
    assert_eq!(server.cli(&["EXISTS", &key_of("marker", 1)]), "0", "nor is it marked again");
}

/// What was cut short ends by itself: for whoever comes much later a part without a marker is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_that_was_cut_short_has_an_end() {
    let server = Server::on_port(free_port(), &[]);
    let proxy = Proxy::before(server.port()).await;
    let ends = || server.cli(&["PTTL", BEGINNING]).parse::<i64>().unwrap();
    let mut answers = 0;
    // -2: it is not there, which the first steps come before.
    while ends() == -2 {
        assert!(answers < 1_000, "no cut met a beginning");
        answers += 1;
        proxy.cut_after(answers);
        let opening = Store::connect(options(&proxy.address(), true));
        drop(tokio::time::timeout(Duration::from_millis(300), opening).await);
        proxy.cut();
    }
    assert!((1..=LONGEST).contains(&ends()), "{} ms", ends());
}

/// A server that throws keys away gets no marker from a beginning either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_ends_where_keys_were_thrown_away() {
    let server = Server::on_port(free_port(), &[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 5).await;
    let marker = server.cli(&["GET", &key_of("marker", 1)]);
    drop(store);
    server.throw_a_key_away();
    server.cli(&["DEL", &key_of("index", 1), &key_of(&format!("row:{row}"), 1)]);
    server.cli(&["SET", BEGINNING, &marker]);
    let late = Store::connect(options(&server.address(), false)).await.unwrap();
    never_unknown(&late, row, Duration::from_secs(2)).await;
    assert_eq!(server.cli(&["EXISTS", BEGINNING]), "0", "nobody goes on with it");
}

/// A node that died while it wrote down that keys were thrown away has said enough, and the server's restart, after which
/// it counts from nought, takes none of it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_word_of_keys_that_were_thrown_away_is_enough() {
    let server = Server::on_port(free_port(), &[]);
    let store = open(&server.address()).await;
    let (row, beside) = (make(&store, 1, 5).await, make(&store, 2, 5).await);
    let marker = server.cli(&["GET", &key_of("marker", 1)]);
    drop(store);
    server.cli(&["SET", &key_of("marker", 1), "evicted"]);
    server.cli(&["SET", BEGINNING, &marker]);
    let store = Store::connect(options(&server.address(), true)).await.unwrap();
    for _ in 0..100 {
        assert!(store.find(&[row]).await.is_err() && store.find(&[beside]).await.is_err());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let told = store.check().await.to_string();
    assert!(told.contains("thrown keys away to make room"), "{told}");
    assert_eq!(server.cli(&["GET", &key_of("marker", 1)]), "evicted", "no beginning goes over it");
    let adopted = tempalias_store::adopt(&options(&server.address(), false)).await.unwrap();
    assert_eq!(adopted, Adopted::Mended { parts: 1, of: 1024, aliases: 0 });
    until_found(&store, row).await;
    assert_eq!(server.cli(&["GET", &key_of("marker", 1)]), marker);
}

/// One part that another store has taken over: nothing there is ours any more, from that moment on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_with_another_stores_marker_answers_nothing() {
    let server = Server::on_port(free_port(), &[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 5).await;
    let ours = server.cli(&["GET", &key_of("marker", 1)]);
    server.cli(&["SET", &key_of("marker", 1), "2 00000000000000ff 1000"]);
    for _ in 0..100 {
        assert!(store.find(&[row]).await.is_err());
    }
    server.cli(&["SET", &key_of("marker", 1), &ours]);
    until_found(&store, row).await;
}

/// Who has read that keys were thrown away, and is slow to write it down, may meet the marker of a later adoption: that
/// stays. And who is slow to mark a part of a store that begins meets what was written down.
#[test]
fn of_two_that_write_a_marker_the_slow_one_changes_nothing() {
    let server = Server::start(&[]);
    let run = |script: &str, keys: &str, rest: &[&str]| {
        server.cli(&[&["EVAL", script, keys], rest].concat());
        server.cli(&["GET", "marker"])
    };
    let unmark = include_str!("../../src/redis/lua/unmark.lua");
    let mark = include_str!("../../src/redis/lua/mark.lua");
    let marked = |marker: &str, over: &str| run(mark, "2", &["marker", "index", marker, over]);
    assert_eq!(marked("first", ""), "first");
    assert_eq!(run(unmark, "1", &["marker", "another", "evicted"]), "first");
    assert_eq!(run(unmark, "1", &["marker", "first", "evicted"]), "evicted");
    assert_eq!(marked("first", ""), "evicted");
    assert_eq!(marked("second", "evicted"), "second");
    assert_eq!(marked("third", "evicted"), "second");
}
