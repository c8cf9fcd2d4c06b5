//! A Cluster of which a part fails.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tempalias_alias::{Answer, Attempt, Outcome, Owner, RowKey};
use tempalias_store::{Adopted, Change, RedisOptions, Settlement, Store};

use crate::fixture::{
    claim, key, make, open, options, request, serving, try_claim, until, until_found, used,
};
use crate::redis_cluster::Cluster;
use crate::servers::{Server, program};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_of_a_cluster_fails_and_the_rest_goes_on() {
    let mut cluster = Cluster::start(3, 1);
    let store = open(&cluster.address()).await;
    let mut rows = Vec::new();
    for number in 0..=255 {
        rows.push(make(&store, number, 3).await);
        assert_eq!(claim(&store, key(number), 1, u64::from(number)).await, Answer::Granted);
    }
    // What a replica does not have yet, it cannot take over: that loss is bounded elsewhere.
    for node in &cluster.nodes {
        node.cli(&["WAIT", "1", "2000"]);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let master = cluster.nodes.iter().position(|node| node.cli(&["ROLE"]).starts_with("master")).unwrap();
    cluster.nodes[master].kill();
    let begin = Instant::now();
    let mut found = 0;
    for &row in &rows {
        let looked = store.find(&[row]).await;
        assert!(!matches!(looked, Ok(None)), "a live alias was called unknown");
        found += u32::from(looked.is_ok());
    }
    assert!(found > 0, "what the others have is found all the time");
    println!("{found} of 256 right after the kill, {:?}", begin.elapsed());
    for &row in &rows {
        until("the replica took over", || async {
            let looked = store.find(&[row]).await;
            assert!(!matches!(looked, Ok(None)), "a live alias was called unknown");
            looked.is_ok()
        })
        .await;
    }
    println!("all after {:?}", begin.elapsed());
    for (number, &row) in (0..=255).zip(&rows) {
        assert_eq!(used(&store, row).await, 1);
        assert_eq!(claim(&store, row, 1, 1000 + number).await, Answer::Busy, "still ours, in flight");
    }
    until("all is well", || async { store.check().await.is_ready() }).await;
}

/// Whether the lease of `owner` stands on this server.
fn has_lease(node: &Server, owner: Owner) -> bool {
    let lease = format!("test:{{b???}}:lease:{:x}:{:x}", owner.node, owner.boot);
    !node.cli(&["--scan", "--pattern", &lease]).is_empty()
}

/// Whether the alias that was made under this number stands on this server.
fn has_row(node: &Server, number: u8, row: RowKey) -> bool {
    let name = format!("test:{{b{:03x}}}:row:{row}", u16::from(number) * 4 + u16::from(number) / 64);
    node.cli(&["EXISTS", &name]) == "1"
}

/// A master that hangs costs the aliases that it has, and no others: not even if it has the node's lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_takes_nothing_else_with_it() {
    let cluster = Cluster::start(3, 0);
    for node in &cluster.nodes {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let store = open(&cluster.address()).await;
    let owner = store.owner();
    let hangs = cluster.nodes.iter().find(|node| has_lease(node, owner)).unwrap();
    let mut elsewhere = Vec::new();
    for number in 0..=255 {
        let row = make(&store, number, 1_000).await;
        if !has_row(hangs, number, row) {
            elsewhere.push(row);
        }
    }
    assert!((100..250).contains(&elsewhere.len()), "{} aliases are on the others", elsewhere.len());
    hangs.signal("STOP");
    // Longer than a lease lasts.
    let (begun, mut attempt, mut failed, mut last_failed) = (Instant::now(), 0_u64, 0_u64, Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(22) {
        for &row in elsewhere.iter().step_by(10) {
            attempt += 1;
            let mut request = request(&store, row, 0, attempt);
            request.fingerprint.0[..8].copy_from_slice(&attempt.to_be_bytes());
            let told = store.claim(vec![request]).await;
            if !told.is_ok_and(|claimed| claimed[0].answer == Answer::Granted) {
                failed += 1;
                last_failed = begun.elapsed();
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{attempt} claims, {failed} failed, the last after {last_failed:?}");
    // None, as a rule; a busy machine may hold one up for too long.
    assert!(failed * 100 <= attempt, "{failed} of {attempt} failed");
    assert!(last_failed < Duration::from_secs(15), "it goes on although its lease has run out");
    assert_ne!(store.owner(), owner, "under another name");
    // A node that starts meanwhile waits for all of it.
    let late = Store::connect(options(&cluster.address(), false)).await.unwrap();
    assert!(late.find(&[elsewhere[0]]).await.is_err());
    hangs.signal("CONT");
    for store in [&store, &late] {
        until("all is well", || async { store.check().await.is_ready() }).await;
    }
}

/// What waits for a master that was killed is not taken for refused meanwhile, and hears of its return: the connections
/// to it are made anew by the client, without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_away_says_when_it_is_back() {
    let mut cluster = Cluster::start(3, 0);
    for node in &cluster.nodes {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let store = open(&cluster.address()).await;
    let row = make(&store, 1, 3).await;
    let at = cluster.nodes.iter().position(|node| has_row(node, 1, row)).unwrap();
    let mut other = None;
    for number in 2..=255 {
        let row = make(&store, number, 3).await;
        if !has_row(&cluster.nodes[at], number, row) {
            other = Some(row);
            break;
        }
    }
    let other = other.unwrap();
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    let attempt = Attempt { owner: store.owner(), number: 1 };
    let settlement = Settlement { row, attempt, outcome: Outcome::Delivered };
    cluster.nodes[at].kill();
    let back = store.back();
    let before = *back.borrow();
    let begun = Instant::now();
    let mut others = 0;
    while begun.elapsed() < Duration::from_secs(6) {
        let error = store.settle(vec![settlement]).await.unwrap_err();
        assert!(error.is_of_an_outage(), "{error:?}");
        others += u32::from(store.find(&[other]).await.is_ok());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(others > 0, "the other masters go on");
    assert_eq!(*back.borrow(), before, "what they answer says nothing about this one");
    cluster.nodes[at].restart();
    cluster.nodes[at].wait_until_it_answers();
    // A sender comes again, at RCPT: by then what waits is told.
    until_found(&store, row).await;
    assert!(*back.borrow() > before);
    until("it is settled", || async { store.settle(vec![settlement]).await.is_ok() }).await;
    assert_eq!(claim(&store, row, 1, 2).await, Answer::Already);
}

/// The master that has a node's lease, and not what the node claimed, comes back empty. The node lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_lease_is_forgotten_is_not_taken_for_dead() {
    let cluster = Cluster::start(3, 0);
    let one = open(&cluster.address()).await;
    let two = serving(RedisOptions { node: "two".into(), ..options(&cluster.address(), false) }).await;
    let owner = one.owner();
    let forgetful = cluster.nodes.iter().find(|node| has_lease(node, owner)).unwrap();
    let mut elsewhere = None;
    for number in 0..=255 {
        let row = make(&one, number, 5).await;
        if !has_row(forgetful, number, row) {
            elsewhere = Some(row);
            break;
        }
    }
    let row = elsewhere.unwrap();
    assert_eq!(claim(&one, row, 1, 1).await, Answer::Granted);
    forgetful.cli(&["FLUSHALL"]);
    let (begun, mut attempt) = (Instant::now(), 1);
    // Longer than a lease lasts: nobody knows whether its node would have renewed it.
    while begun.elapsed() < Duration::from_secs(17) {
        attempt += 1;
        let told = try_claim(&two, row, 1, attempt).await;
        let why = told.expect_err("it is not known whether the other node lives").to_string();
        assert!(why.contains("db adopt") || begun.elapsed() < Duration::from_secs(1), "{why}");
        assert!(two.change(row, Change::FreeHeld).await.is_err(), "nor is anything of it freed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(used(&two, row).await, 1);
    until("it claims under another name", || async { one.owner() != owner && one.may_send(one.owner()) })
        .await;
    assert!(!one.may_send(owner), "under the old one nothing is sent any more");
    assert_eq!(claim(&one, row, 2, 2).await, Answer::Granted);
    let begun = Instant::now();
    let adopted = tempalias_store::adopt(&options(&cluster.address(), false)).await.unwrap();
    assert!(matches!(adopted, Adopted::Mended { parts: 1..1024, .. }), "{adopted:?}");
    // Whoever adopts does not know for how long the nodes have been without a lease, nor do they.
    assert!(begun.elapsed() >= Duration::from_secs(15), "{:?}", begun.elapsed());
    until("it is taken over", || async { try_claim(&two, row, 1, 1_000).await == Ok(Answer::Again) }).await;
}

/// The client makes connections of a Cluster anew without a word, and asks any server when it has none to the right one.
/// A WAIT alone would then speak of nothing that was written before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_replicas_goes_with_what_was_written() {
    let cluster = Cluster::start(3, 1);
    let store = serving(RedisOptions { wait_replicas: 1, ..options(&cluster.address(), true) }).await;
    let mut waits = 0;
    for round in 0..3 {
        for node in &cluster.nodes {
            node.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
        let spies: Vec<_> = cluster.nodes.iter().map(Spy::on).collect();
        for number in round * 20..round * 20 + 20 {
            let row = make(&store, number, 5).await;
            until("it is granted", || async {
                try_claim(&store, row, 1, number.into()).await == Ok(Answer::Granted)
            })
            .await;
        }
        for (spy, node) in spies.into_iter().zip(&cluster.nodes) {
            let (with_a_write, alone) = spy.count_waits();
            waits += with_a_write;
            // A write that is refused, because the alias lives elsewhere, is not written down; its WAIT is not heard.
            let stats = node.cli(&["INFO", "commandstats"]);
            let refused = stats
                .lines()
                .filter(|line| line.starts_with("cmdstat_eval") || line.starts_with("cmdstat_set:"));
            let refused: usize = refused
                .filter_map(|line| {
                    line.split("rejected_calls=").nth(1)?.split(',').next()?.parse::<usize>().ok()
                })
                .sum();
            assert!(
                alone <= refused,
                "{alone} WAITs with no write before them, and {refused} writes refused"
            );
        }
    }
    assert!(waits >= 120, "{waits} waits");
}

/// Writes down all that a server is asked.
struct Spy {
    monitor: std::process::Child,
    said: tempfile::NamedTempFile,
}

impl Spy {
    fn on(server: &Server) -> Self {
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut cli = program("redis-cli");
        cli.args(["-p", &server.port().to_string(), "MONITOR"]).stdout(said.reopen().unwrap());
        let monitor = cli.spawn().unwrap();
        crate::servers::wait_for("it listens", || {
            std::fs::read_to_string(said.path()).unwrap().contains("OK")
        });
        Self { monitor, said }
    }

    /// Those right behind a write of their own connection, and the others. Its lines: time [database client] "command" …
    fn count_waits(mut self) -> (usize, usize) {
        self.monitor.kill().unwrap();
        self.monitor.wait().unwrap();
        let (mut with_a_write, mut alone, mut last) = (0, 0, BTreeMap::new());
        for line in std::fs::read_to_string(self.said.path()).unwrap().lines() {
            let Some((client, command)) = line.split_once("] ") else { continue };
            let client = client.rsplit(' ').next().unwrap().to_owned();
            let command = command.split(' ').next().unwrap().trim_matches('"').to_lowercase();
            if command == "wait" {
                match last.get(&client).map(String::as_str) {
                    Some("evalsha" | "eval" | "set") => with_a_write += 1,
                    _ => alone += 1,
                }
            }
            last.insert(client, command);
        }
        (with_a_write, alone)
    }
}
