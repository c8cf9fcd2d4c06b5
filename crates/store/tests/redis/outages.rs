//! A server that is slow, silent, full, empty or gone.

use std::time::{Duration, Instant};

use tempalias_alias::{Answer, Outcome, RowKey};
use tempalias_store::{Change, Store, StoreError};

use crate::fixture::{
    claim, make, open, options, settle, try_claim, until, until_failing, until_found, used,
};
use crate::proxy::Proxy;
use crate::servers::Server;
use crate::times::{ANSWER, BACK, ROUNDS, assert_most_within};

const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

fn words(error: &StoreError) -> String {
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_back_when_it_is_back() {
    let mut server = Server::start(&DURABLE);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 3).await;
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    settle(&store, row, 1, Outcome::Delivered).await;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        server.kill();
        until_failing(&store, row).await;
        assert!(!store.check().await.is_ready());
        server.restart();
        server.wait_until_it_answers();
        took.push(until_found(&store, row).await);
    }
    assert_most_within(BACK, took, "back after");
    assert_eq!((used(&store, row).await, claim(&store, row, 1, 2).await), (1, Answer::Already));
    until("all is well", || async { store.check().await.is_ready() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_makes_nobody_wait_for_long() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 3).await;
    let (mut waited, mut back) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        server.signal("STOP");
        let begin = Instant::now();
        assert!(store.find(&[row]).await.is_err());
        waited.push(begin.elapsed());
        until_failing(&store, row).await;
        // Once it is known nobody waits at all.
        let begin = Instant::now();
        for _ in 0..100 {
            assert!(store.find(&[row]).await.is_err());
        }
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        server.signal("CONT");
        back.push(until_found(&store, row).await);
    }
    assert_most_within(ANSWER, waited, "answers after");
    assert_most_within(BACK, back, "back after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_server_is_never_taken_for_one_without_aliases() {
    let mut server = Server::start(&[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 3).await;
    server.cli(&["FLUSHALL"]);
    let error = until_failing(&store, row).await;
    assert!(words(&error).contains("db adopt"), "{error}");
    let health = store.check().await;
    assert!(health.to_string().contains("1024 of 1024"), "{health}");
    // The same after a restart that lost everything, and for a node that starts then.
    server.kill();
    server.restart();
    server.wait_until_it_answers();
    until("it is known why", || async {
        matches!(store.find(&[row]).await, Err(StoreError::Failed(why)) if why.contains("holds no tempalias store"))
    })
    .await;
    let late = Store::connect(options(&server.address(), false)).await.unwrap();
    assert!(late.find(&[row]).await.is_err());
    // Once an operator says that this is all there is, what is not there does not exist.
    let adopted = tempalias_store::adopt(&options(&server.address(), false)).await.unwrap();
    assert_eq!(adopted, tempalias_store::Adopted::Begun);
    until("both serve", || async {
        store.find(&[row]).await == Ok(None) && late.find(&[row]).await == Ok(None)
    })
    .await;
    assert!(
        tempalias_store::adopt(&options(&server.address(), false)).await.unwrap()
            == tempalias_store::Adopted::Nothing
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_store_in_its_place_is_not_believed() {
    let mut server = Server::start(&["--appendonly", "yes"]);
    let port = server.address();
    let store = open(&port).await;
    let row = make(&store, 1, 3).await;
    // A store of the same operator, with the same keys, that was begun long ago.
    let other = Server::start(&["--appendonly", "yes"]);
    let earlier = options(&other.address(), true);
    drop(Store::connect(earlier).await.unwrap());
    for part in 0..1024 {
        other.cli(&["SET", &format!("test:{{b{part:03x}}}:marker"), "2 00ff 1000"]);
    }
    other.cli(&["BGREWRITEAOF"]);
    crate::servers::wait_for("it is written", || {
        other.cli(&["INFO", "persistence"]).contains("aof_rewrite_in_progress:0")
    });
    server.kill();
    server.forget();
    copy(other.folder(), server.folder());
    server.restart();
    server.wait_until_it_answers();
    until("it is told apart", || async {
        let found = store.find(&[row]).await;
        assert!(!matches!(found, Ok(None)), "a live alias was called unknown");
        matches!(found, Err(StoreError::Failed(why)) if why.contains("another store"))
    })
    .await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let done =
        std::process::Command::new("cp").arg("-r").arg(from.join("appendonlydir")).arg(to).status().unwrap();
    assert!(done.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_reads_and_settles_and_grants_nothing() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 3).await;
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = try_claim(&store, row, 2, 2).await.unwrap_err();
    assert!(words(&error).contains("OOM"), "{error}");
    assert!(store.create(crate::fixture::row(&store, 2, 1), &[], None).await.is_err());
    assert_eq!(used(&store, row).await, 1);
    settle(&store, row, 1, Outcome::Refused).await;
    assert_eq!(used(&store, row).await, 0, "a settlement is a fact, however full the server is");
    let health = store.check().await;
    assert!(health.reader.is_ok() && health.to_string().contains("OOM"), "{health}");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(claim(&store, row, 2, 2).await, Answer::Granted);
    until("all is well", || async { store.check().await.is_ready() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_in_its_place_is_left_alone() {
    let ports = [
        Server::on_port(crate::fixture::free_port(), &[]),
        Server::on_port(crate::fixture::free_port(), &[]),
    ];
    let [master, server] = ports;
    let store = open(&server.address()).await;
    let row = make(&store, 1, 3).await;
    // A failover elsewhere: the name still leads here, and the data is still there.
    server.cli(&["CONFIG", "SET", "replica-serve-stale-data", "yes"]);
    let copy = open(&master.address()).await;
    drop(copy);
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    until("claims fail", || async { try_claim(&store, row, 1, 1).await.is_err() }).await;
    until_failing(&store, row).await;
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    until_found(&store, row).await;
    until("claims are granted again", || async { try_claim(&store, row, 1, 2).await == Ok(Answer::Granted) })
        .await;
    assert_eq!(used(&store, row).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_may_throw_aliases_away_is_not_used() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 3).await;
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
    let error = until_failing(&store, row).await;
    assert!(words(&error).contains("allkeys-random"), "{error}");
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    until_found(&store, row).await;
    // It has thrown something away: whatever is missing may have been an alias, on this node and on others.
    server.throw_a_key_away();
    let error = until_failing(&store, row).await;
    assert!(words(&error).contains("db adopt"), "{error}");
    until("it is told why, and what to do", || async {
        let told = store.check().await.to_string();
        assert!(!told.contains("no tempalias store"), "{told}");
        ["thrown keys away to make room", "noeviction", "db adopt"].iter().all(|words| told.contains(words))
    })
    .await;
    tempalias_store::adopt(&options(&server.address(), false)).await.unwrap();
    until_found(&store, row).await;
}

/// Nor once it was restarted and counts from nought again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_thrown_away_is_not_forgotten_by_a_restart() {
    let mut server = Server::start(&DURABLE);
    let store = open(&server.address()).await;
    let mut rows = Vec::new();
    for number in 0..=255 {
        rows.push(make(&store, number, 3).await);
    }
    server.throw_some_away();
    until("it is written down", || async {
        let count = "local count = 0 for _, key in ipairs(redis.call('KEYS', '*marker')) do
                     if redis.call('GET', key) ~= 'evicted' then count = count + 1 end end return count";
        server.cli(&["EVAL", count, "0"]) == "0"
    })
    .await;
    server.kill();
    server.restart();
    server.wait_until_it_answers();
    for _ in 0..200 {
        for row in rows.iter().step_by(17) {
            assert!(store.find(&[*row]).await.is_err(), "nothing is known of any alias");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Nor why: it is no server that came back empty.
    until("it is told why", || async {
        let told = store.check().await.to_string();
        assert!(!told.contains("no tempalias store"), "{told}");
        told.contains("thrown keys away to make room")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_goes_silent_is_replaced() {
    let server = Server::on_port(crate::fixture::free_port(), &[]);
    let proxy = Proxy::before(server.port()).await;
    let store = open(&proxy.address()).await;
    let row = make(&store, 1, 3).await;
    proxy.mute(true);
    assert!(store.find(&[row]).await.is_err());
    proxy.mute(false);
    println!("back after {:?}", until_found(&store, row).await);
    // The same without a call that would notice.
    proxy.mute(true);
    let before = proxy.connections();
    until("the supervisor notices", || async { proxy.connections() > before }).await;
    proxy.mute(false);
    until_found(&store, row).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_asked_for_again_and_claims_once() {
    let server = Server::on_port(crate::fixture::free_port(), &[]);
    let proxy = Proxy::before(server.port()).await;
    let store = open(&proxy.address()).await;
    let row = make(&store, 1, 50).await;
    let mut in_one_call = 0;
    for number in 1..=20 {
        let message = u8::try_from(number).unwrap();
        // The claim is made, and the connection breaks before the answer; or the server thinks for a while.
        if number % 2 == 0 {
            let answer = claim_unanswered(&server, &proxy, &store, row, number).await;
            in_one_call += u32::from(answer == Ok(Answer::Granted));
        } else {
            server.cli(&["CLIENT", "PAUSE", "700", "ALL"]);
        }
        assert_eq!(claim(&store, row, message, number).await, Answer::Granted, "under the same attempt");
        assert_eq!(u64::from(used(&store, row).await), number);
    }
    // On a loaded machine a call may be over before there is a connection again, but hardly ten of ten.
    assert!(in_one_call > 0, "no call has asked a second time by itself");
}

/// A claim that the server has made before any answer could pass; what the call that made it came to.
async fn claim_unanswered(
    server: &Server,
    proxy: &Proxy,
    store: &Store,
    row: RowKey,
    number: u64,
) -> Result<Answer, StoreError> {
    let is_made = || server.cli(&["HGET", &format!("test:{{b004}}:row:{row}"), "u"]) == number.to_string();
    // On a loaded machine the connection may be lost just then, and the call end without having reached the server.
    for _ in 0..20 {
        until_found(store, row).await;
        assert!(!is_made());
        proxy.cut_after(0);
        let asking = tokio::spawn({
            let (store, message) = (store.clone(), u8::try_from(number).unwrap());
            async move { try_claim(&store, row, message, number).await }
        });
        until("the claim is made, or was not asked for", || async { asking.is_finished() || is_made() })
            .await;
        proxy.cut_after(u64::MAX);
        let answer = asking.await.unwrap();
        if is_made() {
            return answer;
        }
        assert!(answer.is_err(), "{answer:?} for a claim that was not made");
    }
    panic!("no claim has reached the server");
}

/// A copy of a claim that is carried out late, or after the end of its attempt, takes no use: nobody would settle it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_is_judged_once() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 1).await;
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    assert_eq!(claim(&store, row, 2, 2).await, Answer::Busy);
    settle(&store, row, 1, Outcome::Refused).await;
    assert_eq!(claim(&store, row, 2, 2).await, Answer::Busy, "its sender was told so");
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Busy, "its end was settled");
    // The settlement overtakes the claim.
    settle(&store, row, 3, Outcome::Unsent).await;
    assert_eq!(claim(&store, row, 3, 3).await, Answer::Busy);
    assert_eq!(used(&store, row).await, 0);
    // Nor does a copy of one that was sent again, and is in doubt still.
    let doubtful = make(&store, 2, 5).await;
    assert_eq!(claim(&store, doubtful, 1, 11).await, Answer::Granted);
    settle(&store, doubtful, 11, Outcome::Lost).await;
    assert_eq!(claim(&store, doubtful, 1, 12).await, Answer::Again);
    settle(&store, doubtful, 12, Outcome::Unsent).await;
    assert_eq!(claim(&store, doubtful, 1, 12).await, Answer::Busy, "its end was settled");
    assert_eq!(claim(&store, doubtful, 1, 13).await, Answer::Again);
    // And a server that wakes finds claims that nobody waits for any more.
    server.signal("STOP");
    assert!(try_claim(&store, row, 4, 4).await.is_err());
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.signal("CONT");
    until_found(&store, row).await;
    assert_eq!(used(&store, row).await, 0);
    assert_eq!(claim(&store, row, 5, 5).await, Answer::Granted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_forgotten_the_scripts_is_told_again() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    let row = make(&store, 1, 3).await;
    server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    server.cli(&["SCRIPT", "FLUSH"]);
    settle(&store, row, 1, Outcome::Delivered).await;
    server.cli(&["SCRIPT", "FLUSH"]);
    assert!(store.change(row, Change::Pause).await.unwrap().is_some());
}

/// Connections and tasks stay what they were, whatever number of outages there is. (Open files and memory of the whole
/// program: `tests/e2e/test_redis.py`.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_outages_leave_nothing_behind() {
    let server = Server::on_port(crate::fixture::free_port(), &[]);
    let proxy = Proxy::before(server.port()).await;
    let store = open(&proxy.address()).await;
    let row = make(&store, 1, 3).await;
    let clients = || server.cli(&["CLIENT", "LIST"]).lines().filter(|line| line.contains("cmd=")).count();
    until_found(&store, row).await;
    let before = clients();
    // Of this test's own runtime: the store's, and the proxy's, which end with their connections.
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let tasks_before = tasks();
    for _ in 0..100 {
        let connections = proxy.connections();
        proxy.cut();
        let is_new = || async { store.find(&[row]).await.is_ok() && proxy.connections() > connections };
        until("there is a new connection", is_new).await;
    }
    crate::servers::wait_for("no connection is left over", || clients() <= before);
    until("no task is left over", || async { tasks() <= tasks_before }).await;
    assert!(proxy.connections() < 1_000, "{} connections for 100 outages", proxy.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnecting_is_done_with_patience() {
    let port = crate::fixture::free_port();
    let server = Server::on_port(port, &[]);
    let proxy = Proxy::before(port).await;
    let store = open(&proxy.address()).await;
    let row = make(&store, 1, 3).await;
    server.signal("STOP");
    until_failing(&store, row).await;
    let before = proxy.connections();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        assert!(store.find(&[row]).await.is_err());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let tries = proxy.connections() - before;
    assert!((1..=60).contains(&tries), "{tries} tries in three seconds, whatever the number of calls");
    server.signal("CONT");
}
