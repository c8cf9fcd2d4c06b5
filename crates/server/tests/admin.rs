//! The admin socket and the commands over it, with the real program on one end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tempalias_server::admin::{AdminSocket, Connection, Reply, Request};
use tempalias_server::parts::Opener;
use tempalias_server::{config, keyfile, parts};
use tempalias_service::Aliases;
use tokio::runtime::Runtime;

/// A folder with a configuration, a key and a store.
struct Instance {
    folder: tempfile::TempDir,
}

/// A server that has only its admin socket; gone when dropped.
struct Server {
    runtime: Option<Runtime>,
}

impl Instance {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let text = format!(
            "domains = [\"alias.test\", \"b.test\"]\nhostname = \"mx.alias.test\"\nadmin = \"me@real.test\"\n\
             [admin_socket]\npath = \"{}\"\n[store]\nurl = \"sqlite:{}\"\nkey_files = [\"{}\"]\n\
             [targets]\nallow_domains = [\"real.test\", \"alias.test\"]\n",
            path("admin.sock"),
            path("aliases.db"),
            path("server.key"),
        );
        std::fs::write(folder.path().join("tempalias.toml"), text).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> config::Config {
        config::load(&self.path("tempalias.toml"), &config::Environment::default()).unwrap().config
    }

    /// What a server does at its start.
    fn aliases(&self) -> Aliases {
        let config = self.config();
        let keys = keyfile::open_or_create(&config.store.key_files, config.store.url.file()).unwrap().keys;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store =
            runtime.block_on(parts::open_store(&config, &keys, Opener::Server { is_new: true })).unwrap();
        Aliases::new(store, Arc::new(keys), parts::policy(&config).unwrap(), parts::random())
    }

    fn serve(&self) -> Server {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let aliases = self.aliases();
        let inside = runtime.enter();
        let socket = AdminSocket::bind(&self.path("admin.sock")).unwrap();
        drop(inside);
        runtime.spawn(socket.serve(aliases));
        Server { runtime: Some(runtime) }
    }

    /// Runs the program and waits for it.
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tempalias"))
            .env_clear()
            .arg("--config")
            .arg(self.path("tempalias.toml"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs what must fail with status 1, and returns what it said.
    fn failure(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Dropping a runtime drops the tasks in it, and with them the socket.
        drop(self.runtime.take());
    }
}

/// The life of an alias, told by the commands: the same with and without a server.
fn life_of_an_alias(instance: &Instance) {
    let made = instance.json(&["alias", "add", "hidden@real.test", "--max-usage", "5", "--domain", "b.test"]);
    let address = made["address"].as_str().unwrap().to_owned();
    assert!(address.ends_with("@b.test"), "{made}");
    assert_eq!(made["target"], "hidden@real.test");
    let secret = made["updatekey"].as_str().unwrap();
    let link = format!("https://alias.test/a/{}.{secret}", address.split('@').next().unwrap());
    assert_eq!(made["manage_url"], Value::from(link));

    let shown = instance.json(&["alias", "show", &address]);
    assert_eq!(
        (&shown["state"], &shown["remaining"], &shown["held"]),
        (&"active".into(), &5.into(), &0.into())
    );
    assert!(shown["valid_until"].as_str().unwrap().ends_with('Z'), "{shown}");
    // Without its domain, and in upper case.
    let bare = address.split('@').next().unwrap().to_ascii_uppercase();
    assert_eq!(instance.json(&["alias", "pause", &bare])["state"], "paused");
    assert_eq!(instance.json(&["alias", "resume", &address])["state"], "active");
    assert_eq!(instance.json(&["alias", "extend", &address, "--max-usage", "9"])["max_usage"], 9);
    assert_eq!(instance.json(&["alias", "free", &address])["held"], 0);

    let text = String::from_utf8(instance.run(&["alias", "show", &address]).stdout).unwrap();
    assert!(text.contains("leads to     hidden@real.test") && text.contains("9 left"), "{text}");
    let text = String::from_utf8(instance.run(&["alias", "list"]).stdout).unwrap();
    assert!(text.starts_with("ID ") && text.contains("active") && text.contains("0/9"), "{text}");
    assert!(!text.contains("hidden") && !text.contains(&bare.to_ascii_lowercase()), "{text}");

    // Nobody is at a terminal here: it does not ask.
    assert_eq!(instance.json(&["alias", "rm", &address]), serde_json::json!({ "removed": address }));
    assert!(instance.failure(&["alias", "show", &address]).contains("there is no alias"));
    assert_eq!(instance.json(&["alias", "list"])["state"], "removed");
}

#[test]
fn commands_go_through_the_running_server() {
    let instance = Instance::new();
    let server = instance.serve();
    life_of_an_alias(&instance);
    drop(server);
}

#[test]
fn commands_open_the_store_when_no_server_runs() {
    let instance = Instance::new();
    let said = instance.failure(&["alias", "list"]);
    assert!(said.contains("there is no store yet"), "{said}");
    assert!(!instance.path("server.key").exists() && !instance.path("aliases.db").exists());
    drop(instance.serve());
    assert!(!instance.path("admin.sock").exists(), "the socket outlived its server");
    assert_eq!(instance.run(&["alias", "list"]).stdout, b"no aliases\n");
    life_of_an_alias(&instance);
}

#[test]
fn a_locked_store_without_a_socket_is_told_apart() {
    let instance = Instance::new();
    let _holder = instance.aliases();
    let said = instance.failure(&["alias", "list"]);
    assert!(said.contains("nothing answers on") && said.contains("has the store"), "{said}");
    assert!(said.contains(&std::process::id().to_string()), "{said}");
}

#[test]
fn what_cannot_be_done_is_said_with_status_1() {
    let instance = Instance::new();
    let server = instance.serve();
    let add = |target: &str, more: &[&str]| {
        instance.failure(&[&["alias", "add", target, "--days", "3"], more].concat())
    };
    assert!(add("me@alias.test", &[]).contains("an alias cannot lead to an alias"));
    assert!(add("me@other.test", &[]).contains("targets.allow_domains"));
    assert!(add("me@real.test", &["--domain", "c.test"]).contains("one of the configured domains"));
    assert!(
        instance.failure(&["alias", "show", "a@c.test"]).contains("c.test is not a domain of this server")
    );
    let said = instance.failure(&["alias", "pause", "abcdefgh", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert!(said["error"].as_str().unwrap().contains("there is no alias abcdefgh"), "{said}");
    drop(server);
}

#[test]
fn each_kind_of_failure_has_its_status() {
    let instance = Instance::new();
    let status = |arguments: &[&str]| instance.run(arguments).status.code();
    assert_eq!(status(&[]), Some(0));
    assert_eq!(status(&["config", "check"]), Some(0));
    assert_eq!(status(&["config", "show"]), Some(0));
    for usage in [&["alias", "add", "me@real.test"][..], &["alias", "show", "a b"], &["nonsense"]] {
        assert_eq!(status(usage), Some(2), "{usage:?}");
    }
    std::fs::write(instance.path("tempalias.toml"), "domain = 1\n").unwrap();
    assert_eq!(status(&["config", "check"]), Some(78));
    assert_eq!(status(&["alias", "list"]), Some(78));
    let output = instance.run(&["config", "check", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["problems"].as_array().unwrap().len(), 4, "{said}");
    let key = instance.path("new.key").display().to_string();
    assert_eq!(status(&["key", "new", &key]), Some(0));
    assert_eq!(status(&["key", "new", &key]), Some(1));
    keyfile::open(&[key.into()]).unwrap();
}

#[test]
fn a_list_is_fetched_page_by_page() {
    let instance = Instance::new();
    let server = instance.serve();
    let mut connection = Connection::open(&instance.path("admin.sock")).unwrap();
    for _ in 0..5 {
        let add = Request::Add {
            target: "me@real.test".into(),
            days: Some(1.try_into().unwrap()),
            max_usage: None,
            domain: None,
        };
        assert!(matches!(connection.call(&add).unwrap(), Reply::Made(_)));
    }
    let (mut ids, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let Reply::Page(page) = connection.call(&Request::List { after, limit: 2 }).unwrap() else {
            panic!()
        };
        ids.extend(page.aliases.into_iter().map(|line| line.id));
        after = page.next;
        pages += 1;
        assert!(pages <= 5, "a list without end");
        if after.is_none() {
            break;
        }
    }
    assert_eq!((ids.len(), pages), (5, 3));
    ids.dedup();
    assert_eq!(ids.len(), 5);
    drop(server);
}

#[test]
fn what_is_no_command_is_answered_or_cut_off() {
    let instance = Instance::new();
    let server = instance.serve();
    let mut stream = UnixStream::connect(instance.path("admin.sock")).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    for bad in
        ["nonsense\n", "{\"command\":\"fly\"}\n", "{\"command\":\"list\",\"limit\":2,\"after\":\"\u{e9}\"}\n"]
    {
        stream.write_all(bad.as_bytes()).unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        let reply: Reply = serde_json::from_str(&line).unwrap();
        assert!(matches!(reply, Reply::Failed { .. }), "{bad}: {line}");
    }
    // A line without an end is not kept for ever.
    let _closed_while_writing = stream.write_all(&vec![b'x'; 1 << 20]);
    let _reset_or_end = answers.read_to_end(&mut Vec::new());
    assert!(Connection::open(&instance.path("admin.sock")).is_ok());
    drop(server);
}
