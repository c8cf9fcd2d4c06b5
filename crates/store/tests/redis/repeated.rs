//! What is asked for again while a replica is missing: the first call wrote, and no replica has it. The second is not
//! confirmed either. (Redis 7.0 waits for all that was written before a call; the others promise no more than a wait for
//! what the connection itself wrote. So the scripts write again.)

use tempalias_alias::{RowKey, Sealed};
use tempalias_store::{Change, Idempotent, NewRow, Once, RedisAddress, RedisOptions, Store};

use crate::fixture::{free_port, key_of, make, options, row, serving, tag};
use crate::redis_cluster::Cluster;
use crate::replicas::replica_of;
use crate::servers::Server;

async fn waiting(address: &RedisAddress) -> Store {
    serving(RedisOptions { wait_replicas: 1, ..options(address, true) }).await
}

fn too_few<T: std::fmt::Debug>(told: Result<T, tempalias_store::StoreError>) {
    let why = told.expect_err("no replica has it").to_string();
    assert!(why.contains("fewer than 1 replicas"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_no_replica_has_is_not_confirmed_the_second_time() {
    let master = Server::on_port(free_port(), &[]);
    let replica = replica_of(&master);
    let (one, other) = (waiting(&master.address()).await, waiting(&master.address()).await);
    let row = make(&one, 1, 5).await;
    replica.signal("STOP");
    too_few(one.change(row, Change::Remove).await);
    assert_eq!(master.cli(&["HGET", &key_of(&format!("row:{row}"), 1), "s"]), "2");
    too_few(other.change(row, Change::Remove).await);
}

/// A master of a Cluster whose replica hangs, and its rows and names of requests, and those of others.
struct Parts {
    cluster: Cluster,
    replica: usize,
    rows: [u8; 2],
    names: [u8; 2],
}

impl Parts {
    fn new() -> Self {
        let cluster = Cluster::start(3, 1);
        let master = cluster.nodes.iter().find(|node| node.cli(&["ROLE"]).starts_with("master")).unwrap();
        let id = master.cli(&["CLUSTER", "MYID"]);
        let follows = |node: &Server| {
            let nodes = node.cli(&["CLUSTER", "NODES"]);
            nodes.lines().any(|line| line.contains("myself,slave") && line.contains(&id))
        };
        let replica = cluster.nodes.iter().position(follows).unwrap();
        let is_here = |name: &str| master.cli(&["EXISTS", name]) == "0";
        // Odd ones: bucket 0, to which the look at whether a node is ready writes, shares its connection with others.
        let one_of = |here: bool, name: &dyn Fn(u8) -> String| {
            (1..200).step_by(2).find(|number| is_here(&name(*number)) == here).unwrap()
        };
        let row = |number: u8| key_of(&format!("row:{}", RowKey([number; 16])), number);
        let once = |number: u8| format!("test:{{once:{}}}", format!("{number:02x}").repeat(16));
        let (rows, names) =
            ([one_of(true, &row), one_of(false, &row)], [one_of(true, &once), one_of(false, &once)]);
        Self { cluster, replica, rows, names }
    }

    /// One request by way of two nodes, one after the other, while the replica hangs.
    async fn ask_twice(&self, new_row: impl Fn(&Store) -> NewRow, name: u8) {
        let (one, other) = (waiting(&self.cluster.address()).await, waiting(&self.cluster.address()).await);
        let once = || {
            let reply = Idempotent { body: tag(8), reply: Sealed(vec![1].into()) };
            Some(Once { name: tag(name), reply })
        };
        let replica = &self.cluster.nodes[self.replica];
        replica.signal("STOP");
        too_few(one.create(new_row(&one), &[], once()).await);
        too_few(other.create(new_row(&other), &[], once()).await);
        replica.signal("CONT");
    }
}

/// The request's name is on the one master, and the row that it makes on the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_that_no_replica_has_is_not_told_of_the_second_time() {
    let parts = Parts::new();
    let [here, elsewhere] = parts.rows;
    let [name_here, name_elsewhere] = parts.names;
    parts.ask_twice(|store| row(store, here, 5), name_elsewhere).await;
    parts.ask_twice(|store| row(store, elsewhere, 5), name_here).await;
}

/// What the server counts as a change, even if nothing is different behind it.
#[test]
fn a_call_that_is_repeated_writes_again() {
    let server = Server::start(&[]);
    let written = || {
        let info = server.cli(&["INFO", "persistence"]);
        let count = info.lines().find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
        count.unwrap().trim().parse::<u64>().unwrap()
    };
    let ask_again = |script: &str, keys: &[&str], args: &[&str], first: &str, again: &str| {
        let count = keys.len().to_string();
        let ask = || server.cli(&[&["EVAL", script, &count], keys, args].concat());
        let told = ask();
        assert!(told.starts_with(first), "{told}");
        let before = written();
        let told = ask();
        assert!(told.starts_with(again) && written() > before, "{told}");
    };
    let clock = include_str!("../../src/redis/lua/clock.lua");
    let prelude = [clock, include_str!("../../src/redis/lua/prelude.lua")].concat();
    let reserve = [clock, include_str!("../../src/redis/lua/reserve.lua")].concat();
    let create = [&prelude, include_str!("../../src/redis/lua/create.lua")].concat();
    let change = [&prelude, include_str!("../../src/redis/lua/change.lua")].concat();

    let reserved = ["", "60000", "body", "reply", "row", "key", "5", "", "9000", "sealed"];
    ask_again(&reserve, &["name"], &reserved, "new", "pending");
    server.cli(&["SET", "marker", "ours"]);
    server.cli(&["ZADD", "index", "0", ""]);
    let row = format!("row:{}", "61".repeat(16));
    let made = ["ours", "1000", "aaaaaaaaaaaaaaaa", "key", "5", "", "9000", "sealed", "maker"];
    ask_again(&create, &["marker", &row, "index"], &made, "made", "made");
    let removed = ["ours", "1000", "2000", "remove", "60000"];
    ask_again(&change, &["marker", &row, "claims", "index"], &removed, "done", "done");
}
