//! Claims that wait for replicas, and what a failover loses without.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempalias_alias::{Answer, Outcome, RowKey, Sealed};
use tempalias_store::{Change, Created, Idempotent, Once, RedisOptions, Store};

use crate::fixture::free_port;
use crate::fixture::{claim, found, key, make, options, serving, try_claim, until, used};
use crate::proxy::Proxy;
use crate::redis_cluster::Cluster;
use crate::servers::Server;

async fn waiting(server: &Server, replicas: u32) -> Store {
    serving(RedisOptions { wait_replicas: replicas, ..options(&server.address(), true) }).await
}

pub(crate) fn replica_of(master: &Server) -> Server {
    let port = master.port().to_string();
    let options = ["--replicaof", &format!("127.0.0.1 {port}"), "--repl-diskless-sync-delay", "0"];
    let replica = Server::on_port(free_port(), &options);
    crate::servers::wait_for("the replica follows", || {
        replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
    });
    replica
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_no_replica_has_does_not_count() {
    let master = Server::on_port(free_port(), &[]);
    let replica = replica_of(&master);
    let store = waiting(&master, 1).await;
    let row = make(&store, 1, 5).await;
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    assert_eq!(replica.cli(&["HGET", &format!("test:{{b004}}:row:{row}"), "u"]), "1");
    replica.signal("STOP");
    let error = try_claim(&store, row, 2, 2).await.unwrap_err();
    assert!(error.to_string().contains("fewer than 1 replicas"), "{error}");
    assert!(store.check().await.to_string().contains("fewer than 1 replicas"));
    // Others go on meanwhile: only claims wait.
    assert_eq!(used(&store, row).await, 2);
    replica.signal("CONT");
    until("it counts again", || async { try_claim(&store, row, 2, 2).await == Ok(Answer::Granted) }).await;
    assert_eq!(used(&store, row).await, 2, "the same claim, asked for again");
}

/// Nor does an alias, nor a change of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_that_no_replica_has_is_not_made() {
    let master = Server::on_port(free_port(), &[]);
    let replica = replica_of(&master);
    let store = waiting(&master, 1).await;
    let row = make(&store, 1, 5).await;
    let once = |number: u8| Once {
        name: crate::fixture::tag(number),
        reply: Idempotent { body: crate::fixture::tag(0), reply: Sealed(vec![number].into()) },
    };
    replica.signal("STOP");
    let mut refusals = 0;
    let mut count = |why: String| {
        assert!(why.contains("fewer than 1 replicas"), "{why}");
        refusals += 1;
    };
    let fresh = |number| crate::fixture::row(&store, number, 5);
    count(store.create(fresh(2), &[], None).await.unwrap_err().to_string());
    count(store.create(fresh(3), &[], Some(once(3))).await.unwrap_err().to_string());
    for change in [Change::Pause, Change::Remove, Change::FreeHeld] {
        count(store.change(row, change).await.unwrap_err().to_string());
    }
    assert_eq!(refusals, 5);
    // What is only read goes on.
    assert_eq!(store.idempotent_reply(crate::fixture::tag(9)).await, Ok(None));
    replica.signal("CONT");
    until("it is made", || async { store.create(fresh(3), &[], Some(once(3))).await.is_ok() }).await;
    until("it is changed", || async { store.change(row, Change::Pause).await.is_ok() }).await;
    // The replica has all of it, and the name that the request had.
    let has = |name: &str| replica.cli(&["EXISTS", name]) == "1";
    assert!(has(&format!("test:{{b00c}}:row:{}", key(3))));
    assert!(has(&format!("test:{{once:{}}}", "03".repeat(16))));
    assert_eq!(replica.cli(&["HGET", &format!("test:{{b004}}:row:{row}"), "s"]), "1");
}

/// What fails for another reason is called by that reason, and hits nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_failures_are_not_taken_for_missing_replicas() {
    let master = Server::on_port(free_port(), &[]);
    let _replica = replica_of(&master);
    let store = waiting(&master, 1).await;
    let (spoilt, sound) = (make(&store, 1, 50).await, make(&store, 2, 250).await);
    master.cli(&["SET", &format!("test:{{b004}}:claims:{spoilt}"), "no claims"]);
    for message in 0..50 {
        assert!(try_claim(&store, spoilt, message, message.into()).await.is_err());
        assert_eq!(claim(&store, sound, message, message.into()).await, Answer::Granted);
    }
    master.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    for message in 100..120 {
        let error = try_claim(&store, sound, message, message.into()).await.unwrap_err().to_string();
        assert!(error.contains("OOM"), "{error}");
    }
}

/// A message in doubt may come again however often no replica followed when it came: nothing was sent then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_doubt_outlives_the_absence_of_replicas() {
    let master = Server::on_port(free_port(), &[]);
    let replica = replica_of(&master);
    let store = waiting(&master, 1).await;
    let row = make(&store, 1, 5).await;
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    crate::fixture::settle(&store, row, 1, Outcome::Lost).await;
    replica.signal("STOP");
    for number in 2..30 {
        assert!(try_claim(&store, row, 1, number).await.is_err());
        crate::fixture::settle(&store, row, number, Outcome::Unsent).await;
        // Longer than claims are refused without being tried.
        tokio::time::sleep(Duration::from_millis(520)).await;
    }
    replica.signal("CONT");
    until("it is sent again", || async { try_claim(&store, row, 1, 99).await == Ok(Answer::Again) }).await;
}

/// Where a master of a Cluster has lost its replica, its aliases wait, and no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_replica_costs_its_own_masters_aliases_only() {
    let cluster = Cluster::start(3, 1);
    let store = serving(RedisOptions { wait_replicas: 1, ..options(&cluster.address(), true) }).await;
    let master = cluster.nodes.iter().find(|node| node.cli(&["ROLE"]).starts_with("master")).unwrap();
    let id = master.cli(&["CLUSTER", "MYID"]);
    let follows = |node: &&Server| {
        let nodes = node.cli(&["CLUSTER", "NODES"]);
        nodes.lines().any(|line| line.contains("myself,slave") && line.contains(&id))
    };
    let replica = cluster.nodes.iter().find(follows).unwrap();
    let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
    for number in 0..60 {
        let row = make(&store, number, 200).await;
        let name = format!("test:{{b{:03x}}}:row:{row}", u16::from(number) * 4);
        let is_here = master.cli(&["EXISTS", &name]) == "1";
        if is_here { here.push(row) } else { elsewhere.push(row) }
    }
    replica.signal("STOP");
    let (mut refused, mut failed, mut attempt) = (0, 0, 0);
    for message in 0..20 {
        for (&other, &row) in elsewhere.iter().zip(here.iter().cycle()).step_by(4) {
            attempt += 2;
            let (told, told_other) = tokio::join!(
                try_claim(&store, row, message, attempt),
                try_claim(&store, other, message, attempt + 1)
            );
            refused += u32::from(told.is_err());
            failed += u32::from(told_other != Ok(Answer::Granted));
        }
    }
    replica.signal("CONT");
    println!("{refused} of {} refused here, {failed} elsewhere", attempt / 2);
    assert!(refused > 50 && failed == 0, "{refused} refused here, {failed} elsewhere");
}

/// While no replica follows, nobody waits behind others' waits, and nothing piles up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_claims_without_a_replica_are_refused_at_once() {
    let master = Server::on_port(free_port(), &[]);
    let replica = replica_of(&master);
    let store = waiting(&master, 1).await;
    let row = make(&store, 1, 200).await;
    replica.signal("STOP");
    let (mut at_once, began) = (0, Instant::now());
    for round in 0..20_u64 {
        let claims = (0..50_u8).map(|message| {
            let store = store.clone();
            async move {
                let began = Instant::now();
                let told = try_claim(&store, row, message, round * 100 + u64::from(message)).await;
                assert!(told.is_err(), "{told:?}");
                began.elapsed()
            }
        });
        let took = futures_util::future::join_all(claims).await;
        assert!(took.iter().all(|took| *took < Duration::from_secs(10)), "bounded: {took:?}");
        at_once += took.iter().filter(|took| **took < Duration::from_millis(300)).count();
    }
    println!("{at_once} of 1000 at once, in {:?}", began.elapsed());
    assert!(at_once > 500, "{at_once} of 1000 at once");
    assert!(store.find(&[row]).await.is_ok_and(|found| found.is_some()), "look-ups never wait");
    replica.signal("CONT");
    let took = until("it counts again", || async {
        try_claim(&store, row, 99, 99_999).await == Ok(Answer::Granted)
    })
    .await;
    println!("back after {took:?}");
}

/// With a wait for one replica, no claim that was granted is lost when its master dies, and no alias that was made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_loses_no_claim_that_was_waited_for() {
    let mut cluster = Cluster::start(3, 1);
    let options = RedisOptions { wait_replicas: 1, ..options(&cluster.address(), true) };
    let store = serving(options).await;
    let mut rows = Vec::new();
    for number in 0..60 {
        rows.push(make(&store, number, 200).await);
    }
    let master = cluster.nodes.iter().position(|node| node.cli(&["ROLE"]).starts_with("master")).unwrap();
    let under_way = Arc::new(UnderWay::default());
    let claiming: Vec<_> =
        rows.iter().map(|&row| tokio::spawn(claim_all(store.clone(), row, under_way.clone()))).collect();
    let making = tokio::spawn(make_all(store.clone()));
    until("claims are granted", || async { under_way.granted.load(Ordering::SeqCst) >= 300 }).await;
    under_way.is_killed.store(true, Ordering::SeqCst);
    cluster.nodes[master].kill();
    let mut granted = Vec::new();
    for task in claiming {
        granted.push(task.await.unwrap());
    }
    let made = making.await.unwrap();
    assert!(made.len() > 10, "aliases were being made: {}", made.len());
    for row in made {
        found(&store, row).await;
    }
    assert!(under_way.failed.load(Ordering::SeqCst) > 0, "the kill met none that was under way: {granted:?}");
    for (number, granted) in (0..60).zip(granted) {
        let used = used(&store, key(number)).await;
        assert!(used >= granted, "{granted} claims were granted for alias {number}, and {used} are left");
    }
}

/// Makes aliases one after another; which are said to stand.
async fn make_all(store: Store) -> Vec<RowKey> {
    let mut made = Vec::new();
    for number in 100..=255 {
        let row = crate::fixture::row(&store, number, 5);
        let key = row.key;
        if store.create(row, &[], None).await == Ok(Created::Done) {
            made.push(key);
        }
    }
    made
}

/// What claims and the one who kills a master tell each other.
#[derive(Default)]
struct UnderWay {
    granted: AtomicU32,
    is_killed: AtomicBool,
    /// Aliases whose claims came to an end with the kill.
    failed: AtomicU32,
}

/// Claims for message after message, until a claim fails after the kill; how many were granted. (On a loaded machine one
/// may fail before.)
async fn claim_all(store: Store, row: RowKey, under_way: Arc<UnderWay>) -> u32 {
    let mut granted = 0;
    for message in 0..=255 {
        let is_killed = under_way.is_killed.load(Ordering::SeqCst);
        match try_claim(&store, row, message, u64::from(message)).await {
            Ok(Answer::Granted) => {
                granted += 1;
                under_way.granted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(_) => {}
            Err(_) if is_killed => {
                under_way.failed.fetch_add(1, Ordering::SeqCst);
                break;
            }
            Err(_) => {}
        }
    }
    granted
}

/// What a failover costs, for docs/operating.md: claims that were granted and are gone once the replica has taken over.
/// `cargo test -p tempalias-store --test redis what_a_failover_costs -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test"]
async fn what_a_failover_costs() {
    println!(
        "replica cut off for | wait_replicas | min-replicas | granted | lost | most for one alias | claims/s"
    );
    for (behind, wait, min_replicas) in
        [(0, 0, 0), (1, 0, 0), (5, 0, 0), (20, 0, 0), (1, 0, 1), (5, 0, 1), (20, 0, 1), (0, 1, 0), (5, 1, 0)]
    {
        let cost = failover(behind, wait, min_replicas).await;
        println!(
            "{behind:>18}s | {wait:>13} | {min_replicas:>12} | {:>7} | {:>4} | {:>18} | {:>8}",
            cost.granted, cost.lost, cost.most, cost.rate
        );
    }
}

struct Cost {
    granted: u32,
    lost: u32,
    most: u32,
    /// Claims granted a second, before anything was cut.
    rate: u32,
}

/// One alias is claimed as fast as it goes, and 63 others fifty times a second. Then the replica is cut off, a while later
/// the master dies, and the name leads to the replica.
async fn failover(behind: u64, wait: u32, min_replicas: u32) -> Cost {
    let least = min_replicas.to_string();
    let durable = ["--appendonly", "yes", "--min-replicas-to-write", &least, "--min-replicas-max-lag", "2"];
    let mut master = Server::on_port(free_port(), &durable);
    let replication = Proxy::before(master.port()).await;
    let replica = replica_through(&replication);
    let name = Proxy::before(master.port()).await;
    let options = RedisOptions { wait_replicas: wait, ..options(&name.address(), true) };
    let store = serving(options).await;
    for number in 0..64 {
        make(&store, number, 1_000_000).await;
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let claiming: Vec<_> =
        (0..64_u8).map(|number| tokio::spawn(claim_until(store.clone(), number, stopped.clone()))).collect();
    let second = Duration::from_secs(1);
    tokio::time::sleep(2 * second).await;
    let mut before = 0;
    for number in 0..64 {
        before += used(&store, key(number)).await;
    }
    if behind > 0 {
        replication.mute(true);
        tokio::time::sleep(Duration::from_secs(behind)).await;
    }
    master.kill();
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    name.lead_to(replica.port());
    until("the store is back", || async { store.check().await.is_ready() }).await;
    tokio::time::sleep(second).await;
    stop.send_replace(true);
    let mut cost = Cost { granted: 0, lost: 0, most: 0, rate: before / 2 };
    for (number, task) in (0..64).zip(claiming) {
        let granted = task.await.unwrap();
        let gone = granted.saturating_sub(used(&store, key(number)).await);
        cost = Cost {
            granted: cost.granted + granted,
            lost: cost.lost + gone,
            most: cost.most.max(gone),
            ..cost
        };
    }
    cost
}

pub(crate) fn replica_through(proxy: &Proxy) -> Server {
    let port = proxy.port().to_string();
    let options = ["--replicaof", &format!("127.0.0.1 {port}"), "--repl-diskless-sync-delay", "0"];
    let replica = Server::on_port(free_port(), &options);
    crate::servers::wait_for("the replica follows", || {
        replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
    });
    replica
}

/// How many claims were granted.
async fn claim_until(store: Store, number: u8, stopped: tokio::sync::watch::Receiver<bool>) -> u32 {
    let (mut granted, mut attempt) = (0, 0_u64);
    while !*stopped.borrow() {
        attempt += 1;
        let mut request = crate::fixture::request(&store, key(number), 0, attempt);
        request.fingerprint.0[..8].copy_from_slice(&attempt.to_be_bytes());
        let answer = store.claim(vec![request]).await;
        if answer.is_ok_and(|claimed| claimed[0].answer == Answer::Granted) {
            granted += 1;
            // A claim that stays would make the alias's list of them ever longer: it is delivered and acknowledged.
            crate::fixture::settle(&store, key(number), attempt, Outcome::Delivered).await;
            drop(store.acknowledge(vec![(key(number), request.fingerprint)]).await);
        }
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    granted
}
