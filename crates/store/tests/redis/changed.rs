//! A server that was restarted, or that took over from another: it may have forgotten how claims ended.

use std::time::{Duration, Instant};

use tempalias_alias::{Answer, Attempt, Outcome};
use tempalias_store::{Change, Settlement, Store};

use crate::fixture::{claim, found, free_port, make, open, try_claim, until, until_found, used};
use crate::proxy::Proxy;
use crate::replicas::replica_through;
use crate::servers::Server;
use crate::times::{ROUNDS, assert_most_within};

/// Longer than a lease.
const LEASE_IS_OVER: Duration = Duration::from_secs(18);

async fn settle(store: &Store, row: tempalias_alias::RowKey, attempt: Attempt, outcome: Outcome) {
    let settlement = Settlement { row, attempt, outcome };
    until("it is settled", || async { store.settle(vec![settlement]).await.is_ok() }).await;
}

/// What was settled and forgotten with the master would stay in flight for as long as its node lives: 450 for ever. What
/// really is under way stays so, however long it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_that_is_lost_in_a_failover_leaves_a_claim_in_doubt() {
    let mut master = Server::on_port(free_port(), &[]);
    let replication = Proxy::before(master.port()).await;
    let replica = replica_through(&replication);
    let name = Proxy::before(master.port()).await;
    let store = open(&name.address()).await;
    let row = make(&store, 1, 9).await;
    let before = store.owner();
    for message in [1, 2] {
        assert_eq!(claim(&store, row, message, message.into()).await, Answer::Granted);
    }
    crate::servers::wait_for("the replica has the claims", || {
        replica.cli(&["HGET", &format!("test:{{b004}}:row:{row}"), "u"]) == "2"
    });
    replication.mute(true);
    settle(&store, row, Attempt { owner: before, number: 1 }, Outcome::Refused).await;
    assert_eq!(used(&store, row).await, 1, "given back, and only the master knows");
    master.kill();
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    name.lead_to(replica.port());
    until_found(&store, row).await;
    until("claims are made under a new name", || async { store.owner() != before }).await;
    assert_eq!(used(&store, row).await, 2);
    // The other message's session still waits for its next hop.
    tokio::time::sleep(LEASE_IS_OVER).await;
    assert!(store.may_send(before), "under the old name, what is under way goes on");
    assert_eq!(claim(&store, row, 2, 22).await, Answer::Busy);
    settle(&store, row, Attempt { owner: before, number: 2 }, Outcome::Delivered).await;
    assert_eq!(claim(&store, row, 2, 23).await, Answer::Already);
    // Nothing is under way any more, and the old name ends.
    let took = until("its sender may send it again", || async {
        try_claim(&store, row, 1, 11).await == Ok(Answer::Again)
    })
    .await;
    println!("in doubt after {took:?}");
    assert!(!store.may_send(before));
    assert_eq!(used(&store, row).await, 2, "under the use that it had");
}

/// The same process may come to serve other data: it followed another for a while, and was promoted again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_followed_another_meanwhile_is_not_the_one_it_was() {
    let master = Server::on_port(free_port(), &[]);
    let replication = Proxy::before(master.port()).await;
    let replica = replica_through(&replication);
    let store = open(&master.address()).await;
    let row = make(&store, 1, 9).await;
    let before = Attempt { owner: store.owner(), number: 1 };
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    crate::servers::wait_for("the replica has the claim", || {
        replica.cli(&["HGET", &format!("test:{{b004}}:row:{row}"), "u"]) == "1"
    });
    replication.mute(true);
    settle(&store, row, before, Outcome::Refused).await;
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    master.cli(&["REPLICAOF", "127.0.0.1", &replica.port().to_string()]);
    crate::servers::wait_for("it follows", || {
        master.cli(&["INFO", "replication"]).contains("master_link_status:up")
    });
    master.cli(&["REPLICAOF", "NO", "ONE"]);
    until_found(&store, row).await;
    assert_eq!(used(&store, row).await, 1, "the settlement is forgotten");
    until("claims are made under a new name", || async { store.owner() != before.owner }).await;
    until("its sender may send it again", || async {
        try_claim(&store, row, 1, 11).await == Ok(Answer::Again)
    })
    .await;
}

/// The same for an operator who gives back what is held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restart_forgot_can_be_freed() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 9).await;
    let attempt = Attempt { owner: store.owner(), number: 1 };
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    // As if the last second were gone: the log is what it was before the settlement.
    server.cli(&["CONFIG", "SET", "appendonly", "no"]);
    settle(&store, row, attempt, Outcome::Refused).await;
    server.kill();
    server.restart();
    server.wait_until_it_answers();
    until_found(&store, row).await;
    assert_eq!(used(&store, row).await, 1);
    until("it is freed", || async {
        matches!(store.change(row, Change::FreeHeld).await, Ok(Some(found)) if found.ledger.used == 0)
    })
    .await;
    assert!(found(&store, row).await.ledger.kept.is_empty());
}

/// A look-up writes nothing, and a master that was demoted answers it with what it last had: an alias that was just made
/// on the new one is unknown there. The next renewal writes, and the connection is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_is_left_with_the_next_renewal() {
    let server = Server::on_port(free_port(), &[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 3).await;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
        let begun = Instant::now();
        until("look-ups fail", || async { store.find(&[row]).await.is_err() }).await;
        took.push(begun.elapsed());
        server.cli(&["REPLICAOF", "NO", "ONE"]);
        until("it is ready", || async { store.check().await.is_ready() }).await;
    }
    // A renewal each second, and a little for its answer.
    assert_most_within(Duration::from_millis(1100), took, "left after");
}
