//! `tempalias db copy`, with the real program, real Redis servers, and mail through what was copied.

mod harness;
#[path = "../../store/tests/servers/ports.rs"]
mod ports;
#[path = "../../store/tests/servers/mod.rs"]
mod servers;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use harness::{NextHop, Running, Sender};
use serde_json::{Value, json};
use servers::{Server, wait_for};
use tempalias_alias::{Limits, RowKey, Sealed};
use tempalias_server::config::StoreUrl;
use tempalias_server::keyfile;
use tempalias_store::{Created, NewRow, Options, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A folder with a configuration and a key, where a server was never started.
struct Instance {
    folder: tempfile::TempDir,
}

impl Instance {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shown = folder.path().display();
        let text = format!(
            "domains = [\"alias.test\"]\nhostname = \"mx.alias.test\"\nadmin = \"me@real.test\"\n\
             [admin_socket]\npath = \"{shown}/admin.sock\"\n[store]\nurl = \"sqlite:{shown}/aliases.db\"\n\
             key_files = [\"{shown}/server.key\"]\n[http]\nlisten = [\"127.0.0.1:0\"]\n"
        );
        std::fs::write(folder.path().join("tempalias.toml"), text).unwrap();
        keyfile::create(&folder.path().join("server.key")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        format!("sqlite:{}", self.path(name).display())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tempalias"));
        command.env_clear().arg("--config").arg(self.path("tempalias.toml")).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn copy(&self, arguments: &[&str]) -> Output {
        self.command(&[&["db", "copy"], arguments].concat()).output().unwrap()
    }

    fn copied(&self, arguments: &[&str]) -> Value {
        let output = self.copy(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.copy(arguments);
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// What `tempalias` of 2010 wrote.
fn alias_of_2010(redis: &Server, name: &str, fields: &Value, left: Option<&str>) {
    redis.cli(&["SET", &format!("aliases:{name}"), &fields.to_string()]);
    if let Some(left) = left {
        redis.cli(&["SET", &format!("counter:{name}"), left]);
    }
}

fn fill_as_2010(redis: &Server) {
    let alias = |name: &str, more: Value, left| {
        let mut fields = json!({
            "aid": name, "valid_from": null, "valid_until": null, "max_usage": null,
            "target": "hidden@target.test", "updatekey": "92329D39-6F5C-4520-ABFC-AAB64544E172",
        });
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        alias_of_2010(redis, name, &fields, left);
    };
    alias("aB3x", json!({}), None);
    alias("counted", json!({ "max_usage": 500 }), Some("2"));
    alias("big", json!({ "max_usage": 500 }), Some("100"));
    alias("texts", json!({ "max_usage": "3", "valid_until": "2999-01-01T00:00:00.000Z" }), Some("3"));
    alias("millis", json!({ "valid_until": 32_472_144_000_000_u64 }), None);
    alias("nocounter", json!({ "max_usage": 1 }), None);
    alias("tomorrow", json!({ "valid_from": "2999-01-01T00:00:00Z" }), None);
    alias("toomany", json!({ "max_usage": 5 }), Some("9"));
    alias("nobodys", json!({ "updatekey": null }), None);
    // Over: one by its date, one by its counter, which 2010 went on counting.
    alias("longover", json!({ "valid_until": "2010-05-01T12:00:00.000Z" }), None);
    alias("usedup", json!({ "max_usage": 5 }), Some("-3"));
    // What cannot be one of ours.
    alias("AB3X", json!({}), None);
    alias("ab3x", json!({ "target": "other@target.test" }), None);
    alias("abuse", json!({}), None);
    alias("sp ace", json!({}), None);
    alias("badtarget", json!({ "target": "no address" }), None);
    alias("loop", json!({ "target": "counted@alias.test" }), None);
    alias("baddate", json!({ "valid_until": "soon" }), None);
    redis.cli(&["SET", "aliases:broken", "{\"aid\":"]);
    redis.cli(&["RPUSH", "aliases:list", "x"]);
    alias("lostcount", json!({ "max_usage": 5 }), None);
    redis.cli(&["RPUSH", "counter:lostcount", "x"]);
    // Not aliases.
    redis.cli(&["SET", "lock:127.0.0.1", "1272717296789"]);
    redis.cli(&["SET", "admin:keylength", "4"]);
}

async fn http(server: &Running, request: &str, secret: Option<&str>, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    let secret = secret.map(|secret| format!("Authorization: Bearer {secret}\r\n")).unwrap_or_default();
    let request = format!(
        "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{secret}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn api(server: &Running, request: &str, body: &str) -> (u16, Value) {
    let (status, body) = http(server, request, Some("92329D39-6F5C-4520-ABFC-AAB64544E172"), body).await;
    (status, serde_json::from_str(&body).unwrap_or_default())
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_of_2010_go_on_working() {
    let instance = Instance::new();
    let redis = Server::start(&[]);
    fill_as_2010(&redis);
    let from = redis.address().to_string();
    let before = redis.cli(&["DBSIZE"]);

    let output = instance.copy(&[&from, &instance.file("aliases.db"), "--legacy", "--json"]);
    assert_eq!(output.status.code(), Some(1), "some were not imported: {output:?}");
    assert_eq!(output.stderr, b"{\"error\":\"10 aliases were not imported\"}\n");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let refused =
        ["aB3x", "ab3x", "abuse", "baddate", "badtarget", "broken", "list", "loop", "lostcount", "sp ace"];
    assert_eq!(names(&told["refused"]), refused, "{told}");
    assert!(told["refused"][0]["why"].as_str().unwrap().contains("differs from AB3X in case only"), "{told}");
    assert_eq!(told["refused"][8]["why"], "its counter is no number", "{told}");
    assert_eq!(names(&told["warnings"]), ["toomany"], "{told}");
    let counts = ["aliases", "ended", "without_updatekey"].map(|name| told[name].as_u64().unwrap());
    assert_eq!(counts, [9, 2, 1], "{told}");
    assert_eq!(redis.cli(&["DBSIZE"]), before, "the old store stays as it is");

    let next_hop = NextHop::accepting().await;
    let server = Running::start(instance.folder.path(), next_hop.address, "").await;
    let mut sender = Sender::greeted(server.smtp).await;
    for (name, codes) in [
        ("aB3x", &[250, 250, 250][..]),
        ("counted", &[250, 250, 550]),
        ("texts", &[250, 250, 250, 550]),
        ("millis", &[250]),
        ("nocounter", &[250, 550]),
        ("tomorrow", &[550]),
        ("nobodys", &[250]),
        ("longover", &[550]),
        ("usedup", &[550]),
        ("badtarget", &[550]),
    ] {
        for (number, code) in codes.iter().enumerate() {
            let id = format!("<{name}-{number}@x>");
            assert_eq!(sender.send(&format!("{name}@alias.test"), &id).await, *code, "{id}");
        }
    }
    its_owner_is_still_its_owner(&server).await;
    the_link_in_a_mail_works(&server, &next_hop).await;
}

async fn its_owner_is_still_its_owner(server: &Running) {
    let (status, alias) = api(server, "GET /aliases/aB3x", "").await;
    assert_eq!(
        (status, &alias["state"], &alias["valid_until"]),
        (200, &json!("active"), &Value::Null),
        "{alias}"
    );
    assert_eq!(
        (&alias["target"], &alias["max_usage"]),
        (&json!("hidden@target.test"), &Value::Null),
        "{alias}"
    );
    let (status, alias) = api(server, "GET /aliases/counted", "").await;
    assert_eq!(
        (status, &alias["state"], &alias["remaining"]),
        (200, &json!("used-up"), &json!(0)),
        "{alias}"
    );
    assert_eq!(alias["max_usage"], 500, "more than anybody may have today: {alias}");
    let wrong = http(server, "GET /aliases/aB3x", Some("92329D39"), "").await;
    assert_eq!(wrong.0, 404);
    assert_eq!(api(server, "GET /aliases/nobodys", "").await.0, 404, "nobody has its secret");

    let (status, alias) = api(server, "PATCH /aliases/aB3x", r#"{"paused":true}"#).await;
    assert_eq!(
        (status, &alias["state"], &alias["valid_until"]),
        (200, &json!("paused"), &Value::Null),
        "{alias}"
    );
    let (status, alias) = api(server, "PATCH /aliases/aB3x", r#"{"paused":false,"max-usage":7}"#).await;
    assert_eq!(
        (status, &alias["max_usage"], &alias["valid_until"]),
        (200, &json!(7), &Value::Null),
        "{alias}"
    );
    // What it has beyond today's caps is not taken from it with a form that says the same again.
    let (status, alias) = api(server, "PATCH /aliases/big", r#"{"days":2,"max-usage":500}"#).await;
    assert_eq!(
        (status, &alias["max_usage"], &alias["remaining"]),
        (200, &json!(500), &json!(100)),
        "{alias}"
    );
    let (status, alias) = api(server, "PATCH /aliases/millis", r#"{"days":2}"#).await;
    assert!(status == 200 && alias["valid_until"].is_string(), "{alias}");
    let (status, page) = http(server, "GET /a/aB3x.92329D39-6F5C-4520-ABFC-AAB64544E172", None, "").await;
    assert!(status == 200 && page.contains("hidden<wbr>@target.test"), "{page}");
    assert_eq!(api(server, "DELETE /aliases/millis", "").await.0, 204);
}

/// `X-Tempalias-Manage` of a mail through an alias without an end.
async fn the_link_in_a_mail_works(server: &Running, next_hop: &NextHop) {
    let mails: Vec<String> =
        next_hop.messages().iter().map(|mail| String::from_utf8_lossy(mail).into_owned()).collect();
    let mail = mails.iter().find(|mail| mail.contains("<nobodys-0@x>")).unwrap();
    let link =
        mail.split_once("/m/").unwrap().1.split(|c: char| c == '>' || c.is_whitespace()).next().unwrap();
    let (status, page) = http(server, &format!("GET /m/{link}"), None, "").await;
    assert!(status == 200 && page.contains("nobodys<wbr>@alias.test"), "{status} {page}");
}

#[test]
fn what_was_imported_is_told_to_people_too() {
    let instance = Instance::new();
    let (redis, target) = (Server::start(&[]), Server::start(&[]));
    fill_as_2010(&redis);
    let (from, to) = (redis.address().to_string(), target.address().to_string());
    let output = instance.copy(&[&from, &to, "--legacy"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        "9 aliases. Both sides were read again and are the same.\n",
        "NOT imported: broken: what is stored is no JSON object\n",
        "NOT imported: abuse: a reserved name\n",
        "NOT imported: lostcount: its counter is no number\n",
        "imported, with a change: toomany:",
        "ended long ago or are used up: 2\n",
        &format!("Now set store.url to {to} and start the server.\n"),
    ] {
        assert!(text.contains(words), "{words:?}: {text}");
    }
    // Once is enough.
    let error = instance.refusal(&[&from, &to, "--legacy"]);
    assert!(error.contains("holds 9 aliases already"), "{error}");
    let error = instance.refusal(&[&instance.file("aliases.db"), &to, "--legacy"]);
    assert!(error.contains("--legacy reads the Redis of the first tempalias"), "{error}");
}

/// From a wrong database, or with the wrong form of the command: no store may be left that looks like a finished copy.
#[test]
fn an_import_of_nothing_is_an_error() {
    let instance = Instance::new();
    let (old, target) = (Server::start(&[]), Server::start(&[]));
    let (from, to) = (old.address().to_string(), target.address().to_string());
    // Keys of somebody else.
    old.cli(&["SET", "alias:x", "y"]);
    old.cli(&["SET", "counter:x", "1"]);
    for to in [&to, &instance.file("new.db")] {
        let error = instance.refusal(&[&from, to, "--legacy"]);
        assert!(error.contains("there is no key like aliases:*") && error.contains("database"), "{error}");
        assert!(!error.contains("without"), "{error}");
        let error = instance.refusal(&[&from, to]);
        assert!(error.contains("the server holds no tempalias store"), "{error}");
        assert!(!error.contains("--legacy"), "{error}");
    }
    alias_of_2010(&old, "one", &json!({ "target": "a@target.test" }), None);
    let error = instance.refusal(&[&from, &instance.file("new.db")]);
    assert!(error.contains("holds no tempalias store. It holds aliases of the first"), "{error}");
    assert!(error.contains("--legacy"), "{error}");
    // A server that is not fit for a store of today is what an old one looks like.
    old.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let error = instance.refusal(&[&from, &instance.file("new.db")]);
    assert!(error.contains("maxmemory-policy allkeys-lru") && error.contains("--legacy"), "{error}");
    assert!(!instance.path("new.db").exists() && target.cli(&["DBSIZE"]) == "0", "nothing is left behind");

    assert_eq!(instance.copied(&[&from, &to, "--legacy"])["aliases"], 1);
    let error = instance.refusal(&[&to, &instance.file("new.db"), "--legacy"]);
    assert!(error.contains("store.namespace tempalias") && error.contains("without --legacy"), "{error}");
    assert!(!instance.path("new.db").exists(), "nothing is left behind");
}

/// As the closing message and docs/operating.md say.
#[test]
fn an_import_that_left_some_out_can_be_done_again() {
    let instance = Instance::new();
    let (old, target) = (Server::start(&[]), Server::start(&[]));
    alias_of_2010(&old, "good", &json!({ "target": "a@target.test" }), None);
    alias_of_2010(&old, "bad", &json!({ "target": "no address" }), None);
    let from = old.address().to_string();
    let file = instance.path("a.db");
    let targets = [target.address().to_string(), instance.file("a.db")];
    for to in &targets {
        let output = instance.copy(&[&from, to, "--legacy"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let what = if to.starts_with("sqlite") {
            let file = file.display();
            format!("delete {file}, {file}-wal and {file}-shm, and")
        } else {
            format!("delete the keys tempalias:* of {to} (docs/operating.md")
        };
        assert!(text.contains("To import these too") && text.contains(&what), "{text}");
    }
    alias_of_2010(&old, "bad", &json!({ "target": "b@target.test" }), None);
    for name in ["a.db", "a.db-wal", "a.db-shm"] {
        drop(std::fs::remove_file(instance.path(name)));
    }
    let found = target.cli(&["--scan", "--pattern", "tempalias:*"]);
    target.cli(&[&["UNLINK"], &*found.lines().collect::<Vec<_>>()].concat());
    for to in &targets {
        assert_eq!(instance.copied(&[&from, to, "--legacy"])["aliases"], 2, "{to}");
    }
}

/// Rows in a file, as many as take a while.
async fn make_many(place: &StoreUrl, key: &Path, count: u32) {
    let keys = keyfile::open(&[key.to_owned()]).unwrap();
    let key_id = keys.first().id();
    let path = place.file().unwrap().to_owned();
    let clock = tempalias_store::system_clock();
    let store = Store::open(Options { path, boot: 1, clock, keys: vec![key_id] }).unwrap();
    let limits = Limits { valid_from: None, valid_until: None, max_usage: None };
    let make = |number: u32| {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
        let row = NewRow { key: RowKey(key), key_id, limits, sealed: Sealed(vec![7; 150].into()) };
        let store = store.clone();
        tokio::spawn(async move { assert_eq!(store.create(row, &[], None).await, Ok(Created::Done)) })
    };
    let numbers: Vec<u32> = (1..=count).collect();
    for some in numbers.chunks(250) {
        for made in some.iter().map(|&number| make(number)).collect::<Vec<_>>() {
            made.await.unwrap();
        }
    }
}

/// kill -9 in the middle, again and again: it ends with everything there.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_killed_goes_on() {
    const ROWS: u32 = 20_000;
    let instance = Instance::new();
    let redis = Server::start(&[]);
    let (from, to) = (instance.file("aliases.db"), redis.address().to_string());
    make_many(&from.parse().unwrap(), &instance.path("server.key"), ROWS).await;

    // Of a copy that has only claimed its target there is none yet.
    let position = || {
        let mark = redis.cli(&["GET", "tempalias:{copying}"]);
        mark.lines().next().filter(|&after| after != "claimed").unwrap_or_default().to_owned()
    };
    let mut last = String::new();
    for _ in 0..3 {
        let mut copying =
            instance.command(&["db", "copy", &from, &to]).stderr(Stdio::null()).spawn().unwrap();
        wait_for("it comes further", || position() > last);
        copying.kill().unwrap();
        copying.wait().unwrap();
        assert!(position() > last, "it was not over before it was killed");
        last = position();
    }
    let count: usize = redis.cli(&["DBSIZE"]).parse().unwrap();
    assert!(count < 1024 + ROWS as usize, "it was killed too late: {count} keys");
    let done = instance.copied(&[&from, &to]);
    assert_eq!((&done["aliases"], &done["resumed"]), (&json!(ROWS), &json!(true)));
    assert_eq!(position(), "");
    // And back, whole.
    let done = instance.copied(&[&to, &instance.file("back.db")]);
    assert_eq!((&done["aliases"], &done["resumed"]), (&json!(ROWS), &json!(false)));
}

#[test]
fn passwords_come_from_files_and_are_not_shown() {
    let instance = Instance::new();
    let port = ports::free_ports(1)[0];
    let redis = Server::on_port(port, &["--requirepass", "hunter2"]);
    let old = Server::start(&[]);
    alias_of_2010(&old, "one", &json!({ "target": "a@target.test" }), None);
    let (from, to) = (old.address().to_string(), redis.address().to_string());
    let error = instance.refusal(&[&from, &to, "--legacy"]);
    assert!(error.contains("refuses our user or password"), "{error}");
    std::fs::write(instance.path("password"), "hunter2\n").unwrap();
    let password = instance.path("password").display().to_string();
    let done = instance.copied(&[&from, &to, "--legacy", "--to-password-file", &password]);
    assert_eq!(done["aliases"], 1);
    let with_password = to.replace("redis://", "redis://:hunter2@");
    let done = instance.copied(&[&with_password, &instance.file("b.db")]);
    assert_eq!(done["aliases"], 1);
    assert!(!done.to_string().contains("hunter2"), "{done}");
    let done = instance.copied(&[&to, &instance.file("c.db"), "--from-password-file", &password]);
    assert_eq!(done["aliases"], 1);
}

#[test]
fn two_names_of_one_store_are_refused() {
    let instance = Instance::new();
    std::fs::write(instance.path("aliases.db"), "").unwrap();
    std::os::unix::fs::symlink(instance.path("aliases.db"), instance.path("link.db")).unwrap();
    let error = instance.refusal(&[&instance.file("aliases.db"), &instance.file("link.db")]);
    assert!(error.contains("the same store"), "{error}");
    let error = instance.refusal(&["redis://u:hunter2@127.0.0.1:1", "redis://127.0.0.1:1"]);
    assert!(error.contains("the same store") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_copy_without_a_server_key_says_how_to_make_one() {
    let instance = Instance::new();
    std::fs::remove_file(instance.path("server.key")).unwrap();
    let error = instance.refusal(&[&instance.file("aliases.db"), &instance.file("new.db")]);
    assert!(error.contains("there is no server key") && error.contains("tempalias key new"), "{error}");
    assert!(!instance.path("new.db").exists());
}

/// A command that opens the store itself is gone when it has ended: what comes next need not wait for its lease.
#[test]
fn a_command_for_one_alias_leaves_no_lease_behind() {
    let instance = Instance::new();
    let redis = Server::start(&[]);
    let url = redis.address().to_string();
    let configured = std::fs::read_to_string(instance.path("tempalias.toml")).unwrap();
    std::fs::write(instance.path("tempalias.toml"), configured.replace(&instance.file("aliases.db"), &url))
        .unwrap();
    for command in
        [&["db", "adopt"][..], &["alias", "add", "a@target.test", "--days", "3"], &["alias", "list"]]
    {
        let output = instance.command(command).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    // One that fails, too.
    assert!(!instance.command(&["alias", "show", "nobody@alias.test"]).output().unwrap().status.success());
    assert_eq!(redis.cli(&["--scan", "--pattern", "tempalias:*:lease:*"]), "");
    assert_eq!(instance.copied(&[&url, &instance.file("new.db")])["aliases"], 1);
}
