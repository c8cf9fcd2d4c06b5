//! A store that answers questions and takes no writes: as many claims as there is room for may wait to be settled.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tempalias_alias::{AliasId, Keys, LimitChange, Limits as AliasLimits, ManageHash, Private, ServerKey};
use tempalias_mail::{DoorLimits, Parts, Server};
use tempalias_outside::dial::{DialConfig, Timeouts, system_seeds};
use tempalias_outside::dns::{Answer, DnsError, MxAnswer};
use tempalias_outside::{Dialer, Dns, Host, Outside, PoolLimits, Smarthost};
use tempalias_relay::{DeliveryPolicy, Limits, Policy};
use tempalias_store::{CALL_TIMEOUT, Change, Clock, Found, NewRow, Options, Store, system_clock};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How many claims may be unsettled.
const ROOM: usize = 2;

/// Stops the store's writer, whose every step begins with a look at the clock, and no reader.
#[derive(Debug, Default)]
struct Brake {
    is_on: Mutex<bool>,
    released: Condvar,
    /// The session that next looks at the clock dies.
    kills: AtomicBool,
}

impl Brake {
    fn clock(self: Arc<Self>) -> Clock {
        let clock = system_clock();
        Arc::new(move || {
            let thread = std::thread::current();
            let is_session = thread.name().is_some_and(|name| name.starts_with("tokio"));
            assert!(!(is_session && self.kills.swap(false, Ordering::SeqCst)), "this session dies");
            if thread.name() == Some("store-write") {
                let is_on = self.is_on.lock().unwrap();
                drop(self.released.wait_while(is_on, |is_on| *is_on).unwrap());
            }
            clock()
        })
    }

    fn set(&self, is_on: bool) {
        *self.is_on.lock().unwrap() = is_on;
        self.released.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_for_its_settlement_mail_is_deferred_and_nothing_is_asked() {
    let world = World::start().await;
    let (counted, uncounted) = (world.alias("counted2", 9).await, world.alias("unlimit2", 0).await);
    assert_eq!(world.send(&counted, "<first@x>").await, 250);
    world.until("it is settled", || async { world.held(&counted).await == 0 }).await;
    world.brake.set(true);
    for number in 0..ROOM {
        assert_eq!(world.send(&counted, &format!("<waits{number}@x>")).await, 451);
    }
    // Nobody asks any more, so nobody waits for an answer that does not come.
    let begun = Instant::now();
    for number in 0..5 {
        assert_eq!(world.send(&counted, &format!("<deferred{number}@x>")).await, 451);
    }
    assert!(begun.elapsed() < CALL_TIMEOUT, "{:?}", begun.elapsed());
    assert_eq!(world.send(&uncounted, "<uncounted@x>").await, 250, "it takes no claim");
    world.brake.set(false);
    world.until("mail is taken again", || async { world.send(&counted, "<waits0@x>").await == 250 }).await;
    world.until("all is settled", || async { world.held(&counted).await == 0 }).await;
    assert_eq!(world.found(&counted).await.ledger.used, 2, "one for each message that passed");
    assert!(world.server.drain(Duration::from_secs(20)).await, "nothing is left over");
}

/// An alias whose owner limits it between RCPT and the dot: nobody made room for its settlement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_counted_is_settled_although_there_is_no_room() {
    let world = World::start().await;
    let (counted, changed) = (world.alias("counted2", 9).await, world.alias("unlimit2", 0).await);
    let mut late = world.begin(&changed).await;
    let mut others = vec![];
    for _ in 0..ROOM {
        others.push(world.begin(&counted).await);
    }
    let limit = LimitChange { max_usage: NonZeroU32::new(9), ..LimitChange::default() };
    let row = world.found(&changed).await.key;
    assert!(world.store.change(row, Change::Limits(limit)).await.unwrap().is_some());
    write_message(&mut late, "<gated@x>").await;
    world.until("it is in flight", || async { world.held(&changed).await == 1 }).await;
    // The store refuses everything while its file is elsewhere.
    let (file, elsewhere) = (world.folder.path().join("aliases.db"), world.folder.path().join("elsewhere"));
    std::fs::rename(&file, &elsewhere).unwrap();
    for (number, other) in others.iter_mut().enumerate() {
        write_message(other, &format!("<waits{number}@x>")).await;
        assert_eq!(hear(other).await, 451);
    }
    world.gate.send_replace(true);
    assert_eq!(hear(&mut late).await, 250, "the next hop has it");
    tokio::time::sleep(Duration::from_millis(500)).await;
    std::fs::rename(&elsewhere, &file).unwrap();
    world.until("mail is taken again", || async { world.send(&counted, "<waits0@x>").await == 250 }).await;
    world.until("all is settled", || async { world.held(&changed).await == 0 }).await;
    assert_eq!(world.found(&changed).await.ledger.used, 1);
    assert!(world.server.drain(Duration::from_secs(20)).await, "nothing is left over");
}

/// By a mistake in the program, say: nobody knows how far its message has come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_that_died_had_in_flight_is_in_doubt() {
    let world = World::start().await;
    let counted = world.alias("counted2", 9).await;
    let mut session = world.begin(&counted).await;
    write_message(&mut session, "<gated@x>").await;
    world.until("it is in flight", || async { world.held(&counted).await == 1 }).await;
    world.brake.kills.store(true, Ordering::SeqCst);
    world.gate.send_replace(true);
    let heard = session.read_line(&mut String::new()).await;
    assert_eq!(heard.unwrap_or(0), 0, "it dies without an answer");
    assert!(!world.brake.kills.load(Ordering::SeqCst));
    world.until("it is sent again", || async { world.send(&counted, "<gated@x>").await == 250 }).await;
    world.until("it is settled", || async { world.held(&counted).await == 0 }).await;
    assert_eq!(world.found(&counted).await.ledger.used, 1, "under the same use");
}

struct World {
    brake: Arc<Brake>,
    /// Opens the next hop to messages with a name that begins with "gated".
    gate: watch::Sender<bool>,
    store: Store,
    keys: Arc<Keys>,
    server: Server,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let (folder, brake) = (tempfile::tempdir().unwrap(), Arc::<Brake>::default());
        let keys = Arc::new(Keys::new(ServerKey::new([1; 32]), vec![]));
        let options = Options {
            path: folder.path().join("aliases.db"),
            boot: 1,
            clock: brake.clone().clock(),
            keys: keys.all().map(ServerKey::id).collect(),
        };
        let store = Store::open(options).unwrap();
        let gate = watch::Sender::new(false);
        let server = Server::new(parts(keys.clone(), store.clone(), next_hop(gate.clone()).await));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = server.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        Self { brake, gate, store, keys, server, address, folder }
    }

    /// An alias with so many uses (0: uncounted).
    async fn alias(&self, name: &str, uses: u32) -> AliasId {
        let (id, key): (AliasId, _) = (name.parse().unwrap(), self.keys.first());
        let private = Private {
            target: "hidden@target.test".parse().unwrap(),
            domain: "alias.test".parse().unwrap(),
            manage: ManageHash([7; 16]),
        };
        let limits = AliasLimits {
            valid_from: None,
            valid_until: Some(self.store.now().plus(Duration::from_hours(24))),
            max_usage: NonZeroU32::new(uses),
        };
        let sealed = key.seal(&id, &private, [9; 12]);
        let row = NewRow { key: key.row_key(&id), key_id: key.id(), limits, sealed };
        drop(self.store.create(row, &[], None).await.unwrap());
        id
    }

    async fn found(&self, id: &AliasId) -> Found {
        self.store.find(&self.keys.row_keys(id)).await.unwrap().unwrap()
    }

    async fn held(&self, id: &AliasId) -> usize {
        let found = self.found(id).await;
        found.ledger.held(found.now)
    }

    /// One mail on a connection of its own; the code of the answer to its dot.
    async fn send(&self, to: &AliasId, message_id: &str) -> u16 {
        let mut stream = self.begin(to).await;
        write_message(&mut stream, message_id).await;
        hear(&mut stream).await
    }

    /// All of a mail but its message.
    async fn begin(&self, to: &AliasId) -> BufReader<TcpStream> {
        let mut stream = BufReader::new(TcpStream::connect(self.address).await.unwrap());
        assert_eq!(hear(&mut stream).await, 220);
        for (command, code) in [
            ("EHLO sender.test".to_owned(), 250),
            ("MAIL FROM:<author@sender.test>".to_owned(), 250),
            (format!("RCPT TO:<{}@alias.test>", to.as_str()), 250),
            ("DATA".to_owned(), 354),
        ] {
            stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).await.unwrap();
            assert_eq!(hear(&mut stream).await, code, "{command}");
        }
        stream
    }

    async fn until<Seen: Future<Output = bool>>(&self, what: &str, seen: impl Fn() -> Seen) {
        let looking = async {
            while !seen().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), looking).await.is_ok(), "waited for {what}");
    }
}

async fn write_message(stream: &mut BufReader<TcpStream>, id: &str) {
    let message = format!("From: author@sender.test\r\nMessage-ID: {id}\r\n\r\nHello\r\n.\r\n");
    stream.get_mut().write_all(message.as_bytes()).await.unwrap();
}

/// The code of the next reply.
async fn hear(stream: &mut BufReader<TcpStream>) -> u16 {
    let mut line = String::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        if line.as_bytes().get(3) != Some(&b'-') {
            return line[..3].parse().unwrap();
        }
    }
}

/// Takes everything, some only once the gate is open.
async fn next_hop(gate: watch::Sender<bool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(take_mail(BufReader::new(stream), gate.subscribe()));
        }
    });
    address
}

async fn take_mail(mut stream: BufReader<TcpStream>, mut gate: watch::Receiver<bool>) -> std::io::Result<()> {
    stream.get_mut().write_all(b"220 next.test\r\n").await?;
    let (mut line, mut is_message, mut is_gated) = (String::new(), false, false);
    while stream.read_line(&mut line).await? > 0 {
        is_gated |= line.contains("<gated");
        if is_gated && line.trim_end() == "." {
            drop(gate.wait_for(|is_open| *is_open).await);
        }
        let reply: &[u8] = match (is_message, line.trim_end()) {
            (false, "DATA") => b"354 go\r\n",
            (false, _) | (true, ".") => b"250 2.0.0 ok\r\n",
            (true, _) => b"",
        };
        is_message = if is_message { line.trim_end() != "." } else { line.trim_end() == "DATA" };
        stream.get_mut().write_all(reply).await?;
        line.clear();
    }
    Ok(())
}

fn parts(keys: Arc<Keys>, store: Store, next_hop: SocketAddr) -> Parts {
    let config = DialConfig {
        hostname: "mx.alias.test".parse().unwrap(),
        mx_port: 25,
        allow_private: vec![],
        own: vec![],
        timeouts: Timeouts::default(),
    };
    let policy = Policy {
        hostname: config.hostname.clone(),
        domains: vec!["alias.test".parse().unwrap()],
        operator: "operator@real.test".parse().unwrap(),
        delivery: DeliveryPolicy::Smarthost,
        public_url: "https://alias.test".into(),
        keys,
        limits: Limits::default(),
    };
    Parts {
        policy: Arc::new(policy),
        store,
        outside: Outside::new(Dialer::new(config, Arc::new(NoDns), system_seeds()), PoolLimits::default()),
        smarthost: Some(Smarthost { host: Host::Address(next_hop.ip()), port: next_hop.port() }),
        limits: DoorLimits {
            body_memory: 1 << 20,
            max_connections: 100,
            max_connections_per_address: 20,
            max_unsettled: ROOM,
        },
        log_addresses: false,
    }
}

/// The smarthost is an address: nobody asks.
#[derive(Debug)]
struct NoDns;

impl Dns for NoDns {
    fn mx<'a>(&'a self, _: &'a tempalias_address::Domain) -> Answer<'a, MxAnswer> {
        Box::pin(async { Err(DnsError::Temporary) })
    }

    fn addresses<'a>(&'a self, _: &'a tempalias_address::Domain) -> Answer<'a, Vec<IpAddr>> {
        Box::pin(async { Err(DnsError::Temporary) })
    }
}
