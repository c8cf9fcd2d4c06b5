//! Every file of `tests/dialogues`, played against the program itself over TCP.
//!
//! Each dialogue gets a process, a folder, and a Redis of its own. What senders and next hops see goes over real
//! sockets; an owner's changes go through the command line; only what no owner can do (an alias of a chosen name, an
//! end that is now, the count of kept claims) is done in the store, as a second node would. (On the embedded store,
//! which has one process at a time, the same files are played by `testkit/tests/over_tcp.rs`.)

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempalias_alias::{AliasId, LimitChange, Limits, ManageHash, Private, RowKey};
use tempalias_server::keyfile;
use tempalias_store::{COME_BACK, Change as StoreChange, Created, Found, NewRow, RedisOptions, Store};
use tempalias_testkit::Dialogue;
use tempalias_testkit::dialogue::{Change, Count, DOMAINS, Fault, HOSTNAME, OPERATOR, Seed};
use tempalias_testkit::tcp::{Factory, Played, Setup, Subject, play};

#[path = "../../store/tests/servers/mod.rs"]
mod servers;

use servers::Server;

/// Dialogues played at the same time: most of their time is waiting.
const AT_ONCE: usize = 6;

struct Programs;

struct Program {
    folder: tempfile::TempDir,
    redis: Server,
    /// Another node, which serves nobody.
    store: Store,
    child: Child,
    smtp: SocketAddr,
    health: SocketAddr,
}

impl Factory for Programs {
    type Subject = Program;

    async fn start(&self, setup: Setup) -> Program {
        let folder = tempfile::Builder::new().prefix("dialogue-").tempdir().unwrap();
        for key in ["new.key", "old.key"] {
            keyfile::create(&folder.path().join(key)).unwrap();
        }
        let redis = Server::start(&["--appendonly", "yes", "--appendfsync", "no"]);
        let store = Store::connect(options(&folder, &redis)).await.unwrap();
        until_ready(&store).await;
        std::fs::write(folder.path().join("config.toml"), config(&setup, &folder, &redis)).unwrap();
        let (child, smtp, health) = spawn(&folder);
        Program { folder, redis, store, child, smtp, health }
    }
}

fn keys(folder: &tempfile::TempDir) -> tempalias_alias::Keys {
    keyfile::open(&["new.key", "old.key"].map(|name| folder.path().join(name))).unwrap()
}

/// Makes the server ready, too.
fn options(folder: &tempfile::TempDir, redis: &Server) -> RedisOptions {
    static DRAWN: AtomicU64 = AtomicU64::new(1);
    RedisOptions {
        address: redis.address(),
        ca: None,
        namespace: "tempalias".into(),
        keys: keys(folder).all().map(tempalias_alias::ServerKey::id).collect(),
        is_new: true,
        wait_replicas: 0,
        come_back: Duration::ZERO,
        node: "the test".into(),
        draw: Arc::new(|| DRAWN.fetch_add(1, Ordering::Relaxed)),
        clock: None,
    }
}

async fn until_ready(store: &Store) {
    let end = Instant::now() + Duration::from_secs(60);
    while !store.check().await.is_ready() {
        assert!(Instant::now() < end, "the store serves");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn config(setup: &Setup, folder: &tempfile::TempDir, redis: &Server) -> String {
    let at = folder.path().display();
    let (mut smtp, mut delivery) = (String::new(), String::new());
    let session = setup.config.iter().find(|(key, _)| key == "session_timeout");
    let command = session.map(|(_, time)| ("command_timeout".to_owned(), time.clone()));
    // A session may not be shorter than the wait for a command; over TCP the shorter of the two comes first anyway.
    for (key, value) in setup.config.iter().chain(&command) {
        let value =
            if value.bytes().all(|b| b.is_ascii_digit()) { value.clone() } else { format!("{value:?}") };
        let in_delivery = ["envelope_timeout", "dot_timeout", "hold_upstream"].contains(&key.as_str());
        let section = if in_delivery { &mut delivery } else { &mut smtp };
        section.push_str(&format!("{key} = {value}\n"));
    }
    format!(
        "domains = {DOMAINS:?}\nhostname = \"{HOSTNAME}\"\nadmin = \"{OPERATOR}\"\n\
         [smtp]\nlisten = [\"127.0.0.1:0\"]\n{smtp}[http]\nlisten = [\"127.0.0.1:0\"]\n\
         [admin_http]\nlisten = [\"127.0.0.1:0\"]\n[admin_socket]\npath = \"{at}/admin.sock\"\n\
         [delivery]\nsmarthost = \"{}\"\n{delivery}[dns]\nservers = [\"127.0.0.1:53\"]\n\
         [store]\nurl = \"{}\"\nkey_files = [\"{at}/new.key\", \"{at}/old.key\"]\n",
        setup.next_hop,
        redis.address()
    )
}

/// Starts the program and reads its addresses from its log.
fn spawn(folder: &tempfile::TempDir) -> (Child, SocketAddr, SocketAddr) {
    let mut child = command(folder).arg("serve").stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let (say, hear) = mpsc::channel();
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            drop(say.send(line));
        }
    });
    let line = listening(&hear);
    let address = |key: &str| line[key].as_str().unwrap().parse().unwrap();
    (child, address("smtp"), address("admin_http"))
}

/// The log line that tells the addresses.
fn listening(log: &mpsc::Receiver<String>) -> serde_json::Value {
    loop {
        let line = log.recv_timeout(Duration::from_secs(60)).expect("the program starts");
        let line: serde_json::Value = serde_json::from_str(&line).expect(&line);
        if line["message"] == "listening" {
            return line;
        }
    }
}

fn command(folder: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tempalias"));
    command
        .arg("--config")
        .arg(folder.path().join("config.toml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

impl Program {
    fn owner(&self, arguments: &[&str]) {
        let done = command(&self.folder).arg("alias").args(arguments).status().unwrap();
        assert!(done.success(), "tempalias alias {arguments:?}: {done}");
    }

    /// Until the program itself says so.
    fn until_ready(&self) {
        servers::wait_for("the program is ready", || {
            let mut stream = TcpStream::connect(self.health).unwrap();
            stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            std::io::read_to_string(stream).unwrap().starts_with("HTTP/1.1 200")
        });
    }

    async fn found(&self, alias: &str) -> Option<Found> {
        let id: AliasId = alias.parse().unwrap();
        let rows: Vec<RowKey> = keys(&self.folder).row_keys(&id);
        self.store.find(&rows).await.unwrap()
    }
}

impl Subject for Program {
    fn smtp_addr(&self) -> SocketAddr {
        self.smtp
    }

    fn faults(&self) -> &[Fault] {
        &[Fault::Down]
    }

    async fn seed(&mut self, seed: &Seed) {
        let keys = keys(&self.folder);
        let key = if seed.old_key { keys.all().last().unwrap() } else { keys.first() };
        let id: AliasId = seed.alias.parse().unwrap();
        let private = Private {
            target: seed.target.parse().unwrap(),
            domain: seed.domain.as_deref().unwrap_or(DOMAINS[0]).parse().unwrap(),
            manage: ManageHash([0; 16]),
        };
        let now = self.store.now();
        let limits = Limits {
            valid_from: seed.from.map(|later| now.plus(later)),
            valid_until: seed.days.map(|days| now.plus(Duration::from_hours(24) * days)),
            max_usage: seed.uses.and_then(NonZeroU32::new),
        };
        let sealed = key.seal(&id, &private, [7; 12]);
        let row = NewRow { key: key.row_key(&id), key_id: key.id(), limits, sealed };
        assert_eq!(self.store.create(row, &[], None).await, Ok(Created::Done));
    }

    async fn change(&mut self, alias: &str, change: Change) {
        match change {
            Change::Pause => self.owner(&["pause", alias]),
            Change::Resume => self.owner(&["resume", alias]),
            Change::Remove => self.owner(&["rm", "--yes", alias]),
            Change::FreeHeld => self.owner(&["free", alias]),
            Change::Uses(uses) => self.owner(&["extend", alias, "--max-usage", &uses.to_string()]),
            Change::Expire => {
                let found = self.found(alias).await.unwrap();
                let now = LimitChange { valid_until: Some(found.now), max_usage: None };
                self.store.change(found.key, StoreChange::Limits(now)).await.unwrap();
            }
        }
    }

    async fn count(&mut self, alias: &str, what: Count) -> Option<u32> {
        let found = self.found(alias).await?;
        match what {
            Count::Used => Some(found.ledger.used),
            Count::Left => found.ledger.remaining(),
            Count::Held => u32::try_from(found.ledger.held(found.now)).ok(),
            Count::Kept => u32::try_from(found.ledger.kept.len()).ok(),
        }
    }

    async fn store(&mut self, fault: Fault) {
        match fault {
            Fault::Up => {
                self.redis.restart();
                self.redis.wait_until_it_answers();
                until_ready(&self.store).await;
                self.until_ready();
            }
            _ => self.redis.kill(),
        }
    }

    async fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // Its lease would last for a while yet: nobody waits for that here.
        let leases = "for _, key in ipairs(redis.call('KEYS', '*:lease:*')) do redis.call('DEL', key) end";
        self.redis.cli(&["EVAL", leases, "0"]);
        (self.child, self.smtp, self.health) = spawn(&self.folder);
        // Until then the new one takes nobody for dead.
        tokio::time::sleep(COME_BACK).await;
    }

    async fn stop(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn every_dialogue_goes_as_written_over_tcp() {
    let wanted = std::env::var("DIALOGUE").unwrap_or_default();
    let all = Dialogue::all();
    let dialogues: Vec<_> = all.iter().filter(|dialogue| dialogue.name.contains(&wanted)).collect();
    let (mut played, mut skipped, mut failed) = (0, vec![], vec![]);
    std::thread::scope(|scope| {
        let shares: Vec<_> = (0..AT_ONCE)
            .map(|share| {
                let mine = dialogues.iter().skip(share).step_by(AT_ONCE);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    mine.map(|dialogue| (dialogue, runtime.block_on(play(dialogue, &Programs))))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for (dialogue, outcome) in shares.into_iter().flat_map(|share| share.join().unwrap()) {
            match outcome {
                Ok(Played::Done) => played += 1,
                Ok(Played::Skipped(why)) => skipped.push(format!("{}: {why}", dialogue.name)),
                Err(why) => failed.push(why.to_string()),
            }
        }
    });
    skipped.sort();
    println!("{played} played, {} skipped:\n{}", skipped.len(), skipped.join("\n"));
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
    assert!(played + skipped.len() == dialogues.len() && played > skipped.len());
}
