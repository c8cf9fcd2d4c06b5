//! What takes several steps on several servers is cut after each of them; whoever comes next finishes it.

use std::time::Duration;

use tempalias_alias::{Answer, Fingerprint, LimitChange, Outcome, Sealed};
use tempalias_store::{Change, Created, Idempotent, Once, Store};

use crate::fixture::{claim, make, open, options, row, settle, tag, until};
use crate::proxy::Proxy;
use crate::servers::Server;

/// More answers than any of the calls below needs.
const MOST: u64 = 12;

fn once(number: u8) -> Option<Once> {
    Some(Once { name: tag(9), reply: Idempotent { body: tag(8), reply: Sealed(vec![number].into()) } })
}

async fn rows(store: &Store) -> Vec<u8> {
    store.list(None, 100).await.unwrap().iter().map(|listed| listed.key.0[0]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_cut_anywhere_makes_one_row() {
    let (mut finished, mut begun) = (0, 0);
    for answers in 0..MOST {
        let server = Server::on_port(crate::fixture::free_port(), &[]);
        let proxy = Proxy::before(server.port()).await;
        let sound = open(&server.address()).await;
        let first = Store::connect(options(&proxy.address(), false)).await.unwrap();
        proxy.cut_after(answers);
        let told = first.create(row(&sound, 1, 5), &[], once(1)).await;
        drop(first);
        proxy.cut();
        let before = rows(&sound).await;
        begun += u32::from(told.is_err() && before == [1]);
        // The client comes again, by way of another node: with another name drawn, as its node does.
        let again = sound.create(row(&sound, 2, 5), &[], once(2)).await.unwrap();
        let after = rows(&sound).await;
        assert_eq!(after.len(), 1, "cut after {answers} answers: {after:?}");
        match again {
            Created::Replayed(reply) => {
                assert_eq!(reply.reply.0[..], after[..], "it tells of the row that is there")
            }
            Created::Done => assert_eq!(after, [2], "the first never began"),
            Created::Clash => panic!("nothing clashes"),
        }
        finished += u32::from(told == Ok(Created::Done));
    }
    assert!(finished > 0 && begun > 0, "the cuts met every step: {finished} finished, {begun} half done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_cut_anywhere_happened_or_not() {
    for answers in 0..MOST {
        let server = Server::on_port(crate::fixture::free_port(), &[]);
        let proxy = Proxy::before(server.port()).await;
        let sound = open(&server.address()).await;
        let key = make(&sound, 1, 5).await;
        let before = sound.find(&[key]).await.unwrap().unwrap().ledger.limits.valid_until;
        let until_then = Some(sound.now().plus(Duration::from_hours(24 * 40)));
        let cut = Store::connect(options(&proxy.address(), false)).await.unwrap();
        proxy.cut_after(answers);
        let change = Change::Limits(LimitChange { valid_until: until_then, max_usage: None });
        let told = cut.change(key, change.clone()).await;
        drop(cut);
        proxy.cut();
        let now = sound.find(&[key]).await.unwrap().unwrap().ledger.limits.valid_until;
        assert!(now == before || now == until_then, "cut after {answers}");
        assert!(told.is_err() || now == until_then, "what was confirmed is so");
        // The key that sealed it is needed as long as the row: noted before, never after.
        let noted: u64 = server.cli(&["HGET", "test:{server-keys}", "\x01\x02\x03\x04"]).parse().unwrap();
        assert!(noted >= now.unwrap().millis(), "cut after {answers}");
        assert_eq!(sound.change(key, change).await.unwrap().unwrap().ledger.limits.valid_until, until_then);
    }
}

/// A change that comes late, when its owner has been told that it failed and has changed something else since, does not
/// undo that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_comes_late_changes_nothing() {
    let server = Server::on_port(crate::fixture::free_port(), &[]);
    let proxy = Proxy::before(server.port()).await;
    let (sound, slow) = (open(&server.address()).await, open(&proxy.address()).await);
    let key = make(&sound, 1, 5).await;
    proxy.hold(true);
    assert!(slow.change(key, Change::Pause).await.is_err());
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.hold(false);
    crate::fixture::until_found(&slow, key).await;
    let state = sound.find(&[key]).await.unwrap().unwrap().ledger.state;
    assert_eq!(state, tempalias_alias::State::Active);
    slow.change(key, Change::Pause).await.unwrap();
    let state = sound.find(&[key]).await.unwrap().unwrap().ledger.state;
    assert_eq!(state, tempalias_alias::State::Paused, "in time it does");
}

/// A name that is taken by another row: the request that reserved it is told, and the Idempotency-Key is free again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clash_leaves_the_name_free() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    make(&store, 1, 5).await;
    assert_eq!(store.create(row(&store, 1, 9), &[], once(1)).await, Ok(Created::Clash));
    assert_eq!(store.idempotent_reply(tag(9)).await, Ok(None));
    assert_eq!(store.create(row(&store, 2, 9), &[], once(2)).await, Ok(Created::Done));
    until("it is known", || async { store.idempotent_reply(tag(9)).await.unwrap().is_some() }).await;
}

/// The word that a row is made comes late, when another request stands under the name: that one is finished as if it had
/// never come.
#[tokio::test]
async fn a_confirmation_that_comes_late_ends_no_other_request() {
    let server = Server::start(&[]);
    let script = include_str!("../../src/redis/lua/confirm.lua");
    for word in ["made", "clash"] {
        server
            .cli(&["HSET", "{once:1}", "row", "later", "key", "k", "m", "", "f", "", "t", "", "z", "sealed"]);
        assert_eq!(server.cli(&["EVAL", script, "1", "{once:1}", "earlier", word]), "done");
        assert_eq!(server.cli(&["HMGET", "{once:1}", "row", "z"]), "later\nsealed", "{word}");
    }
    assert_eq!(server.cli(&["EVAL", script, "1", "{once:1}", "later", "made"]), "done");
    assert_eq!(server.cli(&["HEXISTS", "{once:1}", "row"]), "0");
}

/// An acknowledgement that comes late might be about the same message's next delivery: nothing is forgotten for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_comes_late_forgets_nothing() {
    let server = Server::on_port(crate::fixture::free_port(), &[]);
    let proxy = Proxy::before(server.port()).await;
    let (sound, slow) = (open(&server.address()).await, open(&proxy.address()).await);
    let key = make(&sound, 1, 5).await;
    let delivered = || vec![(key, Fingerprint([1; 16]))];
    assert_eq!(claim(&sound, key, 1, 1).await, Answer::Granted);
    settle(&sound, key, 1, Outcome::Delivered).await;
    proxy.hold(true);
    assert!(slow.acknowledge(delivered()).await.is_err());
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.hold(false);
    crate::fixture::until_found(&slow, key).await;
    assert_eq!(claim(&sound, key, 1, 2).await, Answer::Already);
    until("in time it does", || async { slow.acknowledge(delivered()).await.is_ok() }).await;
    assert_eq!(claim(&sound, key, 1, 3).await, Answer::Granted);
}
