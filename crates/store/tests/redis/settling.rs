//! Who may claim, what comes behind a settlement, and what a node knows of its own mail.

use tempalias_alias::{Answer, Attempt, Fingerprint, Outcome, Owner};
use tempalias_store::Settlement;

use crate::fixture::{claim, found, make, open, request, try_claim, until, used};
use crate::nodes::end_leases;
use crate::servers::Server;

/// On one thread, where nothing else runs until somebody waits: the settlement is on its way by then, or the acknowledgement
/// would find nothing to forget and its claim be kept for days.
#[tokio::test]
async fn what_is_asked_behind_a_settlement_is_answered_behind_it() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 100).await;
    for number in 1..=20 {
        let message = u8::try_from(number).unwrap();
        assert_eq!(claim(&store, row, message, number).await, Answer::Granted);
        let attempt = Attempt { owner: store.owner(), number };
        let settling = store.settle(vec![Settlement { row, attempt, outcome: Outcome::Delivered }]);
        let acknowledging = store.acknowledge(vec![(row, Fingerprint([message; 16]))]);
        let (settled, acknowledged) = tokio::join!(biased; settling, acknowledging);
        assert_eq!((settled, acknowledged), (Ok(()), Ok(())));
        assert!(found(&store, row).await.ledger.kept.is_empty(), "it is forgotten");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_claimed_under_a_name_without_a_lease() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 3).await;
    let mut request = request(&store, row, 1, 1);
    request.attempt.owner = Owner { boot: u64::MAX, ..store.owner() };
    let refused = store.claim(vec![request]).await.unwrap_err().to_string();
    assert!(refused.contains("lost its lease"), "{refused}");
    assert_eq!(used(&store, row).await, 0);
}

/// Its lease is over, but its session still waits for the next hop: nobody knows that better than the node itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_take_over_what_it_has_in_hand_under_another_name() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 3).await;
    let before = store.owner();
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    end_leases(&server);
    until("it goes on under another name", || async {
        store.owner() != before && store.may_send(store.owner())
    })
    .await;
    assert_eq!(claim(&store, row, 1, 2).await, Answer::Busy);
    let other = open(&server.address()).await;
    until("another takes it over", || async { try_claim(&other, row, 1, 3).await == Ok(Answer::Again) })
        .await;
}
