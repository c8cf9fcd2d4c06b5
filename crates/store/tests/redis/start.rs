//! What a server must be for a node to start, and what it may be.

use std::process::Command;
use std::time::{Duration, Instant};

use tempalias_alias::{Answer, KeyId, Outcome};
use tempalias_store::{RedisOptions, Store};

use crate::fixture::free_port;
use crate::fixture::{
    KEY_ID, claim, key, make, open, open_error, options, serving, settle, until, until_found, used,
};
use crate::redis_cluster::Cluster;
use crate::servers::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_its_server_and_serves_when_it_is_there() {
    let port = free_port();
    let store =
        Store::connect(options(&format!("redis://127.0.0.1:{port}").parse().unwrap(), true)).await.unwrap();
    assert!(store.find(&[]).await.is_ok() && store.find(&[key(1)]).await.is_err());
    assert!(store.check().await.to_string().contains("connection refused"));
    let _server = Server::on_port(port, &[]);
    until("it serves", || async { store.check().await.is_ready() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_server_is_named_at_the_start() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let error = open_error(options(&server.address(), true)).await;
    assert!(error.contains("maxmemory-policy allkeys-lru") && error.contains("noeviction"), "{error}");

    let server = Server::start(&["--requirepass", "secret"]);
    for (address, fits) in [("", false), (":wrong@", false), (":secret@", true)] {
        let port = Server::on_port(free_port(), &["--requirepass", "secret"]);
        let address = format!("redis://{address}127.0.0.1:{}", port.port()).parse().unwrap();
        let opened = Store::connect(options(&address, true)).await;
        assert_eq!(opened.is_ok(), fits, "{address}: {opened:?}");
        if let Err(error) = opened {
            let error = error.to_string();
            assert!(error.contains("password") && !error.contains("wrong@"), "{error}");
        }
    }
    drop(server);

    let server = Server::on_port(free_port(), &[]);
    let cluster = format!("redis+cluster://127.0.0.1:{}", server.port()).parse().unwrap();
    let error = open_error(options(&cluster, true)).await;
    assert!(error.contains("no Cluster") || error.contains("cannot be used"), "{error}");

    let whole = Cluster::start(3, 0);
    let single = format!("redis://127.0.0.1:{}", whole.nodes[0].port()).parse().unwrap();
    let error = open_error(options(&single, true)).await;
    assert!(error.contains("redis+cluster://"), "{error}");
}

/// The client itself only says that it found no Cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_between_a_node_and_its_cluster_is_named() {
    let port = free_port();
    let nobody =
        Store::connect(options(&format!("redis+cluster://127.0.0.1:{port}").parse().unwrap(), true)).await;
    until_told(&nobody.unwrap(), "connection refused").await;

    let cluster = Cluster::start(3, 0);
    for node in &cluster.nodes {
        node.cli(&["CONFIG", "SET", "requirepass", "secret"]);
    }
    for password in ["wrong", ""] {
        let address = match password {
            "" => cluster.address(),
            password => cluster.address().with_password(password),
        };
        let error = open_error(options(&address, true)).await;
        assert!(error.contains("refuses our user or password") && !error.contains("wrong"), "{error}");
        let error = tempalias_store::adopt(&options(&address, false)).await.unwrap_err().to_string();
        assert!(error.contains("refuses our user or password"), "{error}");
    }
    let store = open(&cluster.address().with_password("secret")).await;
    make(&store, 1, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_reached_over_tls_and_what_is_wrong_with_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let cluster = Cluster::start_with(3, 0, || {
        let tls = [
            ("--tls-port", free_port().to_string()),
            ("--tls-cert-file", path("server.pem")),
            ("--tls-key-file", path("server.key")),
            ("--tls-ca-cert-file", path("ca.pem")),
            ("--tls-auth-clients", "no".to_owned()),
            // Otherwise the servers tell of their plain ports, over TLS, too.
            ("--tls-cluster", "yes".to_owned()),
        ];
        tls.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    });
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| node.cli(&["CONFIG", "GET", "tls-port"])).collect();
    let nodes: Vec<_> =
        nodes.iter().map(|told| format!("127.0.0.1:{}", told.lines().last().unwrap())).collect();
    let at = |scheme: &str| format!("{scheme}://{}", nodes.join(",")).parse().unwrap();
    let mut trusted = options(&at("rediss+cluster"), true);
    trusted.ca = Some(std::fs::read(path("ca.pem")).unwrap());
    let store = serving(trusted.clone()).await;
    let row = make(&store, 1, 5).await;
    until_found(&store, row).await;
    let unknown = Store::connect(options(&at("rediss+cluster"), false)).await.unwrap();
    until_told(&unknown, "certificate").await;
    let plain = Store::connect(options(&at("redis+cluster"), false)).await.unwrap();
    until_told(&plain, "TLS").await;
    // A server without TLS waits for the end of what it takes for a command.
    let not_plain = cluster.address().to_string().replace("redis+", "rediss+").parse().unwrap();
    let not_plain = Store::connect(RedisOptions { address: not_plain, ..trusted }).await.unwrap();
    until_told(&not_plain, "no answer").await;
}

/// Until the store says in these words why it cannot be used.
async fn until_told(store: &Store, words: &str) {
    let mut told = String::new();
    let begun = Instant::now();
    while !told.contains(words) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{told}");
        told = store.find(&[key(1)]).await.unwrap_err().to_string();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// As on a Redis that somebody else manages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_dangerous_commands_only_info_is_needed() {
    let server = Server::on_port(free_port(), &[]);
    let user = ["ACL", "SETUSER", "mail", "on", ">secret", "~test:*", "+@all", "-@dangerous"];
    assert_eq!(server.cli(&user), "OK");
    let address = format!("redis://mail:secret@127.0.0.1:{}", server.port()).parse().unwrap();
    let error = open_error(options(&address, true)).await;
    assert!(error.contains("NOPERM") && error.contains("INFO") && !error.contains("password"), "{error}");
    assert_eq!(server.cli(&["ACL", "SETUSER", "mail", "+info"]), "OK");
    let store = open(&address).await;
    let row = make(&store, 1, 5).await;
    assert_eq!(claim(&store, row, 1, 1).await, Answer::Granted);
    settle(&store, row, 1, Outcome::Delivered).await;
    assert_eq!(used(&store, row).await, 1);
    store.sweep().await.unwrap();
    assert!(store.check().await.is_ready());
    // What it has thrown away cannot be forgiven without CONFIG RESETSTAT: who adopts is told what to do.
    server.throw_a_key_away();
    until("it is seen", || async { store.find(&[row]).await.is_err() }).await;
    let error = tempalias_store::adopt(&options(&address, false)).await.unwrap_err().to_string();
    assert!(error.contains("CONFIG RESETSTAT") && error.contains("restart the server"), "{error}");
    server.cli(&["CONFIG", "RESETSTAT"]);
    tempalias_store::adopt(&options(&address, false)).await.unwrap();
    until_found(&store, row).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_info_is_told_of() {
    let server = Server::start(&["--rename-command", "INFO", "elsewhere"]);
    let store = Store::connect(options(&server.address(), true)).await.unwrap();
    let error = store.find(&[key(1)]).await.unwrap_err().to_string();
    assert!(error.contains("unknown command") && error.contains("INFO"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_rows_were_sealed_under_must_be_listed() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    make(&store, 1, 5).await;
    let other = KeyId([9, 9, 9, 9]);
    for (keys, fits) in [(vec![other], false), (vec![other, KEY_ID], true), (vec![KEY_ID, other], true)] {
        let mut options = options(&server.address(), true);
        options.keys = keys;
        let opened = Store::connect(options).await;
        assert_eq!(opened.is_ok(), fits);
        if let Err(error) = opened {
            assert!(error.to_string().contains("01020304"), "{error}");
        }
    }
}

/// Two nodes that were given different keys must not both begin, even before there is any alias.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_different_keys_do_not_begin_beside_each_other() {
    let server = Server::start(&[]);
    let _first = open(&server.address()).await;
    let mut second = options(&server.address(), true);
    second.keys = vec![KeyId([9, 9, 9, 9])];
    assert!(open_error(second).await.contains("01020304"));
}

/// Nor when they begin at the same moment: one of them does, and the others are told of its key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_nodes_with_different_keys_that_begin_at_once_one_does() {
    for _ in 0..10 {
        let server = Server::start(&[]);
        let nodes = (0..4_u8).map(|number| {
            let mut options = options(&server.address(), true);
            options.keys = vec![KeyId([number; 4])];
            tokio::spawn(Store::connect(options))
        });
        let mut begun = Vec::new();
        for node in nodes.collect::<Vec<_>>() {
            match node.await.unwrap() {
                Ok(store) => begun.push(store),
                Err(error) => assert!(error.to_string().contains("sealed under server key"), "{error}"),
            }
        }
        assert_eq!(begun.len(), 1);
        until("it serves", || async { begun[0].check().await.is_ready() }).await;
    }
}

/// Nodes with one key that begin at the same moment begin one store; so do operators who adopt at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_begin_at_once_begin_one_store() {
    for round in 0..10 {
        let server = Server::start(&[]);
        let begin = |is_adopting: bool| {
            let options = options(&server.address(), true);
            tokio::spawn(async move {
                if is_adopting {
                    // On a loaded machine the server may take too long to answer: an operator tries again.
                    until("it is adopted", || async { tempalias_store::adopt(&options).await.is_ok() }).await;
                    Ok(None)
                } else {
                    Store::connect(options).await.map(Some)
                }
            })
        };
        let mut stores = Vec::new();
        for begun in (0..6).map(|number| begin((number + round) % 3 == 0)).collect::<Vec<_>>() {
            stores.extend(begun.await.unwrap().unwrap());
        }
        for store in &stores {
            until("it serves", || async { store.check().await.is_ready() }).await;
        }
    }
}

/// What a first start could not finish, the next one does, with whatever keys it has by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_that_was_cut_short_is_finished() {
    for marked in [0, 1, 500] {
        let server = Server::on_port(free_port(), &[]);
        let marker = "2 00000000000000ff 1000";
        server.cli(&["SET", "test:{beginning}", marker]);
        for part in 0..marked {
            server.cli(&["SET", &format!("test:{{b{part:03x}}}:marker"), marker]);
        }
        let store = Store::connect(options(&server.address(), false)).await.unwrap();
        until("it serves", || async { store.check().await.is_ready() }).await;
        assert_eq!(server.cli(&["GET", "test:{b3ff}:marker"]), marker, "the store that was begun");
        assert_eq!(server.cli(&["EXISTS", "test:{beginning}"]), "0");
    }
}

/// A key counts as needed for as long as a node seals under it, however long it makes no alias.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_serves_notes_its_key_again() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    server.cli(&["DEL", "test:{server-keys}"]);
    let noted = || async { server.cli(&["HLEN", "test:{server-keys}"]) == "1" };
    until("it is noted", noted).await;
    // Another's, which we do not have: somebody else has begun to seal here.
    server.cli(&["HSET", "test:{server-keys}", "abcd", "9999999999999"]);
    until("it is told", || async { store.check().await.to_string().contains("61626364") }).await;
    server.cli(&["HDEL", "test:{server-keys}", "abcd"]);
    until("it serves", || async { store.check().await.is_ready() }).await;
}

/// A key that no alias needs any more keeps nobody out, and our own is noted again long before its note ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_of_a_key_ends() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    server.cli(&["HSET", "test:{server-keys}", "abcd", "1000"]);
    let in_an_hour = store.now().plus(Duration::from_hours(1)).millis();
    server.cli(&["HSET", "test:{server-keys}", "\x01\x02\x03\x04", &in_an_hour.to_string()]);
    let noted = || server.cli(&["HGET", "test:{server-keys}", "\x01\x02\x03\x04"]).parse::<u64>().unwrap();
    until("it is noted again", || async { noted() > in_an_hour }).await;
    until("it serves", || async { store.check().await.is_ready() }).await;
    let late = Store::connect(options(&server.address(), false)).await.unwrap();
    until("another does", || async { late.check().await.is_ready() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_and_namespaces_are_apart() {
    let server = Server::on_port(free_port(), &[]);
    let at = |database: u8| format!("redis://127.0.0.1:{}/{database}", server.port()).parse().unwrap();
    let (zero, three) = (open(&at(0)).await, open(&at(3)).await);
    let mut named = options(&at(0), true);
    named.namespace = "other".into();
    let named = Store::connect(named).await.unwrap();
    let row = make(&zero, 1, 5).await;
    until_found(&zero, row).await;
    assert_eq!((three.find(&[row]).await, named.find(&[row]).await), (Ok(None), Ok(None)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_checked_against_the_certificates_given() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let port = free_port();
    let tls_port = port.to_string();
    let server = Server::start(&[
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        &path("server.pem"),
        "--tls-key-file",
        &path("server.key"),
        "--tls-ca-cert-file",
        &path("ca.pem"),
        "--tls-auth-clients",
        "no",
    ]);
    let mut trusted = options(&format!("rediss://localhost:{port}").parse().unwrap(), true);
    trusted.ca = Some(std::fs::read(path("ca.pem")).unwrap());
    let store = Store::connect(trusted.clone()).await.unwrap();
    let row = make(&store, 1, 5).await;
    until_found(&store, row).await;
    // The system's certificates do not know it; nor does the right one fit another name.
    let stranger = options(&trusted.address, true);
    let wrong_name = format!("rediss://127.0.0.2:{port}").parse().unwrap();
    for mut options in [stranger, options(&wrong_name, true)] {
        if options.address == wrong_name {
            options.ca = trusted.ca.clone();
        }
        let store = Store::connect(options).await.unwrap();
        assert!(store.find(&[row]).await.is_err());
    }
    drop(server);
}

/// An authority and a certificate for "localhost" and 127.0.0.1, made by the program that operators use.
fn certificates(folder: &std::path::Path) {
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca 2>/dev/null &&
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost 2>/dev/null &&
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > ext &&
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile ext 2>/dev/null";
    let done = Command::new("sh").args(["-c", script]).current_dir(folder).status().unwrap();
    assert!(done.success(), "openssl is needed: run tests/install");
}
