//! Several nodes on one server: leases, take-over, a node that was only paused.

use std::time::{Duration, Instant};

use tempalias_alias::{Answer, Outcome, Rate, RowKey};
use tempalias_store::{Change, Created, Idempotent, Once, RedisOptions};

use crate::fixture::{
    claim, make, open, options, row, serving, settle, tag, try_claim, until, until_failing, until_found, used,
};
use crate::proxy::Proxy;
use crate::servers::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_live_node_sends_no_other_takes_over() {
    let server = Server::start(&[]);
    let (one, other) = (open(&server.address()).await, open(&server.address()).await);
    assert_ne!(one.owner(), other.owner());
    let row = make(&one, 1, 2).await;
    assert_eq!(claim(&one, row, 1, 1).await, Answer::Granted);
    assert_eq!(claim(&other, row, 1, 1).await, Answer::Busy);
    let found = other.change(row, Change::FreeHeld).await.unwrap().unwrap();
    assert_eq!(found.ledger.used, 1, "its owner lives");
    // An orderly end gives the lease up at once.
    one.close().await;
    drop(one);
    assert_eq!(claim(&other, row, 1, 2).await, Answer::Again);
    settle(&other, row, 2, Outcome::Delivered).await;
    assert_eq!((used(&other, row).await, claim(&other, row, 1, 3).await), (1, Answer::Already));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_sent_another_takes_over_once_its_lease_is_over() {
    let server = Server::start(&[]);
    let (one, other) = (open(&server.address()).await, open(&server.address()).await);
    let row = make(&one, 1, 2).await;
    assert_eq!(claim(&one, row, 1, 1).await, Answer::Granted);
    // It dies without a word: its lease runs out by itself.
    drop(one);
    assert_eq!(claim(&other, row, 1, 1).await, Answer::Busy, "nobody knows yet");
    let took =
        until("its claim is in doubt", || async { try_claim(&other, row, 1, 2).await == Ok(Answer::Again) })
            .await;
    println!("taken over after {took:?}");
    assert_eq!(used(&other, row).await, 1, "the same use");
}

/// As if the leases of all nodes had run out at this moment.
pub(crate) fn end_leases(server: &Server) {
    let script = "for _, key in ipairs(redis.call('KEYS', '*:lease:*')) do redis.call('DEL', key) end";
    server.cli(&["EVAL", script, "0"]);
}

/// A node that dies with a message in flight; nobody knows whether it only was cut off.
async fn node_that_dies_with(server: &Server, number: u8) -> RowKey {
    let node = open(&server.address()).await;
    let row = make(&node, number, 2).await;
    assert_eq!(claim(&node, row, 1, 1).await, Answer::Granted);
    row
}

/// A node that begins during an outage, or just behind one, knows of no outage. Others may have their verdicts yet to tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_just_begun_takes_nobody_for_dead() {
    let server = Server::start(&[]);
    let row = node_that_dies_with(&server, 1).await;
    end_leases(&server);
    let long = RedisOptions { come_back: Duration::from_hours(1), ..options(&server.address(), false) };
    let fresh = serving(long).await;
    assert_eq!(claim(&fresh, row, 1, 1).await, Answer::Busy);
    let freed = fresh.change(row, Change::FreeHeld).await.unwrap().unwrap();
    assert_eq!(freed.ledger.used, 1, "nor is its use given back");
    let come_back = Duration::from_secs(2);
    let begun = Instant::now();
    let other = serving(RedisOptions { come_back, ..options(&server.address(), false) }).await;
    until("it takes over", || async { try_claim(&other, row, 1, 2).await == Ok(Answer::Again) }).await;
    assert!(begun.elapsed() >= come_back, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_that_leases_may_have_run_out_in_nobody_is_taken_for_dead_for_a_moment() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let come_back = Duration::from_secs(5);
    let node = serving(RedisOptions { come_back, ..options(&server.address(), true) }).await;
    let (before, behind) = (node_that_dies_with(&server, 1).await, node_that_dies_with(&server, 2).await);
    end_leases(&server);
    until("its beginning is over", || async { try_claim(&node, before, 1, 1).await == Ok(Answer::Again) })
        .await;
    server.kill();
    until_failing(&node, behind).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    server.restart();
    let back = Instant::now();
    server.wait_until_it_answers();
    until("it takes over", || async { try_claim(&node, behind, 1, 1).await == Ok(Answer::Again) }).await;
    assert!(back.elapsed() >= come_back, "{:?}", back.elapsed());
}

/// A node that is cut off from the store sends no dot from before its lease ends, and comes back under another name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_renew_sends_no_dot() {
    let server = Server::on_port(crate::fixture::free_port(), &[]);
    let proxy = Proxy::before(server.port()).await;
    let (cut_off, other) = (open(&proxy.address()).await, open(&server.address()).await);
    let row = make(&other, 1, 2).await;
    let name = cut_off.owner();
    assert_eq!(claim(&cut_off, row, 1, 1).await, Answer::Granted);
    assert!(cut_off.may_send(name));
    proxy.mute(true);
    until("no dot is sent any more", || async { !cut_off.may_send(name) }).await;
    assert_eq!(claim(&other, row, 1, 1).await, Answer::Busy, "before anybody may take it over");
    until("it is taken over", || async { try_claim(&other, row, 1, 2).await == Ok(Answer::Again) }).await;
    // It wakes: what it had is not its own any more, and what it says about it changes nothing.
    proxy.mute(false);
    until_found(&cut_off, row).await;
    until("it has another name", || async { cut_off.owner() != name }).await;
    assert!(!cut_off.may_send(name), "never again under the old one");
    let refused = tempalias_store::Settlement {
        row,
        attempt: tempalias_alias::Attempt { owner: name, number: 1 },
        outcome: Outcome::Refused,
    };
    cut_off.settle(vec![refused]).await.unwrap();
    assert_eq!(used(&other, row).await, 1);
    settle(&other, row, 2, Outcome::Delivered).await;
    until("it claims again", || async { try_claim(&cut_off, row, 2, 7).await == Ok(Answer::Granted) }).await;
    assert_eq!(used(&other, row).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_over_all_nodes() {
    let server = Server::start(&[]);
    let (one, other) = (open(&server.address()).await, open(&server.address()).await);
    let rate = Rate { burst: 4, every: Duration::from_hours(1) };
    for store in [&one, &other, &one, &other] {
        assert_eq!(store.take(tag(1), rate).await, Ok(Ok(())));
    }
    for store in [&one, &other] {
        assert!(store.take(tag(1), rate).await.unwrap().is_err());
    }
    let once = |number: u8| {
        Some(Once {
            name: tag(2),
            reply: Idempotent { body: tag(3), reply: tempalias_alias::Sealed(vec![number].into()) },
        })
    };
    assert_eq!(one.create(row(&one, 1, 1), &[], once(1)).await, Ok(Created::Done));
    let again = other.create(row(&other, 2, 1), &[], once(2)).await.unwrap();
    assert!(matches!(again, Created::Replayed(reply) if reply.reply.0[..] == [1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_together_grant_no_more_than_there_are() {
    let server = Server::start(&[]);
    let nodes = [open(&server.address()).await, open(&server.address()).await, open(&server.address()).await];
    for (number, uses) in [(1, 1), (2, 5), (3, 100)] {
        let row = make(&nodes[0], number, uses).await;
        let tasks: Vec<_> = (0..90_u8)
            .map(|task| {
                let store = nodes[usize::from(task) % 3].clone();
                tokio::spawn(async move {
                    let mut granted = 0;
                    for message in [task * 2, task * 2 + 1] {
                        let answer = claim(&store, row, message, u64::from(message)).await;
                        granted += u32::from(answer == Answer::Granted);
                    }
                    granted
                })
            })
            .collect();
        let mut granted = 0;
        for task in tasks {
            granted += task.await.unwrap();
        }
        assert_eq!((granted, used(&nodes[1], row).await), (uses, uses));
    }
}
