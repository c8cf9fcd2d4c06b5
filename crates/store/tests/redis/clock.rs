//! The server's clock steps: nodes follow it, and no live alias goes.

use std::time::Duration;

use tempalias_alias::Answer;

use crate::fixture::{claim, make, open, try_claim, until};
use crate::servers::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_the_servers_clock_kills_no_live_alias() {
    let server = Server::with_clock(&["--hz", "100"]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 5).await;
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    // Ten years ahead, and a while there: whatever expires by itself does so now.
    server.set_clock(3650);
    until("the node sees it", || async { try_claim(&store, row, 2, 2).await == Ok(Answer::Over) }).await;
    let ahead =
        || async { store.now().since(tempalias_store::system_clock()()) > Duration::from_hours(24 * 3000) };
    until("its own idea of the time follows", ahead).await;
    drop(store.sweep().await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.set_clock(0);
    until("it lives again", || async { matches!(store.find(&[row]).await, Ok(Some(_))) }).await;
    until("mail goes on", || async { try_claim(&store, row, 3, 3).await == Ok(Answer::Granted) }).await;
    let ledger = store.find(&[row]).await.unwrap().unwrap().ledger;
    assert_eq!(ledger.used, 2, "no use was given back by the step");
    // A year back, and again.
    server.set_clock(-365);
    until("mail goes on", || async { try_claim(&store, row, 4, 4).await == Ok(Answer::Granted) }).await;
    server.set_clock(0);
    until("it lives still", || async { matches!(store.find(&[row]).await, Ok(Some(_))) }).await;
}

/// Nodes with clocks of their own follow the server's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_clock_is_the_only_one() {
    let server = Server::with_clock(&[]);
    server.set_clock(100);
    let store = open(&server.address()).await;
    let ahead = store.now().since(tempalias_store::system_clock()());
    assert!(ahead > Duration::from_hours(24 * 99), "{ahead:?}");
    let row = make(&store, 1, 5).await;
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted, "made and ending by the server's time");
}

/// Nor does a node whose own clock is ahead: both must say that it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_ahead_sweeps_no_live_alias_away() {
    let server = Server::with_clock(&[]);
    server.set_clock(-100);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 5).await;
    until("a whole round is done", || async { store.sweep().await.is_ok() }).await;
    crate::fixture::until_found(&store, row).await;
}
