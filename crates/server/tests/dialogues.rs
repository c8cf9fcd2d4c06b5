//! Every file of `tests/dialogues`, played against the program itself over TCP.
//!
//! Each dialogue gets a process, a folder and a store of its own. What senders and next hops see goes over real
//! sockets; an owner's changes go through the command line; only what no owner can do (an alias of a chosen name,
//! an end that is now, the count of kept claims) is done in the store's file.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};
use tempalias_alias::{AliasId, ManageHash, Private};
use tempalias_server::keyfile;
use tempalias_testkit::Dialogue;
use tempalias_testkit::dialogue::{Change, Count, DOMAINS, Fault, HOSTNAME, OPERATOR, Seed};
use tempalias_testkit::tcp::{Factory, Played, Setup, Subject, play};

/// Dialogues played at the same time: most of their time is waiting.
const AT_ONCE: usize = 6;

struct Programs;

struct Program {
    folder: tempfile::TempDir,
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
        std::fs::write(folder.path().join("config.toml"), config(&setup, &folder)).unwrap();
        let (child, smtp, health) = spawn(&folder);
        Program { folder, child, smtp, health }
    }
}

fn config(setup: &Setup, folder: &tempfile::TempDir) -> String {
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
         [store]\nurl = \"sqlite:{at}/aliases.db\"\nkey_files = [\"{at}/new.key\", \"{at}/old.key\"]\n",
        setup.next_hop
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

fn millis_from_now(later: Duration) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from((now + later).as_millis()).unwrap()
}

impl Program {
    fn database(&self) -> Connection {
        let connection = Connection::open(self.path("aliases.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn owner(&self, arguments: &[&str]) {
        let done = command(&self.folder).arg("alias").args(arguments).status().unwrap();
        assert!(done.success(), "tempalias alias {arguments:?}: {done}");
    }

    /// Acknowledgements are written with the next write; asking for readiness is one.
    fn write_what_waits(&self) {
        let mut stream = TcpStream::connect(self.health).unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    }

    fn keys(&self) -> tempalias_alias::Keys {
        keyfile::open(&[self.path("new.key"), self.path("old.key")]).unwrap()
    }

    fn row_keys(&self, alias: &str) -> Vec<[u8; 16]> {
        let id: AliasId = alias.parse().unwrap();
        self.keys().row_keys(&id).iter().map(|key| key.0).collect()
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
        let keys = self.keys();
        let key = if seed.old_key { keys.all().last().unwrap() } else { keys.first() };
        let id: AliasId = seed.alias.parse().unwrap();
        let private = Private {
            target: seed.target.parse().unwrap(),
            domain: seed.domain.as_deref().unwrap_or(DOMAINS[0]).parse().unwrap(),
            manage: ManageHash([0; 16]),
        };
        let until = seed.days.map(|days| millis_from_now(Duration::from_hours(24) * days));
        let database = self.database();
        database
            .execute(
                "INSERT INTO server_key VALUES (?1, 0, 1) ON CONFLICT DO UPDATE SET row_count = row_count + 1",
                params![key.id().0],
            )
            .unwrap();
        database
            .execute(
                "INSERT INTO alias (row_key, key_id, state, used, max_usage, valid_from, valid_until, created, sealed)
                 VALUES (?1, ?2, 0, 0, ?3, ?4, ?5, ?6, ?7)",
                params![
                    key.row_key(&id).0,
                    key.id().0,
                    seed.uses,
                    seed.from.map(millis_from_now),
                    until,
                    millis_from_now(Duration::ZERO),
                    key.seal(&id, &private, [7; 12]).0,
                ],
            )
            .unwrap();
    }

    async fn change(&mut self, alias: &str, change: Change) {
        match change {
            Change::Pause => self.owner(&["pause", alias]),
            Change::Resume => self.owner(&["resume", alias]),
            Change::Remove => self.owner(&["rm", "--yes", alias]),
            Change::FreeHeld => self.owner(&["free", alias]),
            Change::Uses(uses) => self.owner(&["extend", alias, "--max-usage", &uses.to_string()]),
            Change::Expire => {
                let now = millis_from_now(Duration::ZERO);
                for key in self.row_keys(alias) {
                    let sql = "UPDATE alias SET valid_until = ?2 WHERE row_key = ?1";
                    self.database().execute(sql, params![key, now]).unwrap();
                }
            }
        }
    }

    async fn count(&mut self, alias: &str, what: Count) -> Option<u32> {
        self.write_what_waits();
        let sql = match what {
            Count::Used => "SELECT used FROM alias WHERE row_key = ?1 AND ?2 > 0",
            Count::Left => "SELECT max(max_usage - used, 0) FROM alias WHERE row_key = ?1 AND ?2 > 0",
            Count::Held => {
                "SELECT count(claim.state) FROM alias LEFT JOIN claim ON claim.row_key = alias.row_key
                 AND until > ?2 AND claim.state != 2 WHERE alias.row_key = ?1 GROUP BY alias.row_key"
            }
            Count::Kept => {
                "SELECT count(claim.state) FROM alias LEFT JOIN claim ON claim.row_key = alias.row_key
                 AND until > ?2 WHERE alias.row_key = ?1 GROUP BY alias.row_key"
            }
        };
        let now = millis_from_now(Duration::ZERO);
        let database = self.database();
        let found = |key: &[u8; 16]| {
            database.query_row(sql, params![key, now], |row| row.get::<_, Option<u32>>(0)).ok()
        };
        self.row_keys(alias).iter().find_map(found).flatten()
    }

    async fn store(&mut self, fault: Fault) {
        let (there, away) = (self.path("aliases.db"), self.path("aliases.away"));
        match fault {
            Fault::Up => std::fs::rename(away, there).unwrap(),
            _ => std::fs::rename(there, away).unwrap(),
        }
    }

    async fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.smtp, self.health) = spawn(&self.folder);
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
