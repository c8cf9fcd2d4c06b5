//! The dialogues over real sockets, against the mail crate with the embedded store: what `tcp` can do, and that the
//! driver does what the model of it in `machine` does. The whole program is played in the server crate.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempalias_alias::{
    AliasId, Keys, LimitChange, Limits as AliasLimits, ManageHash, Private, RowKey, ServerKey,
};
use tempalias_mail::{DoorLimits, Parts, Server};
use tempalias_outside::dial::{DialConfig, Timeouts, system_seeds};
use tempalias_outside::dns::{Answer, DnsError, MxAnswer};
use tempalias_outside::{Dialer, Dns, Host, Outside, PoolLimits, Smarthost};
use tempalias_relay::{DeliveryPolicy, Limits, Policy};
use tempalias_store::{Change as StoreChange, NewRow, Options, Store, system_clock};
use tempalias_testkit::Dialogue;
use tempalias_testkit::dialogue::{self, Change, Count, DOMAINS, Fault, HOSTNAME, OPERATOR, Seed};
use tempalias_testkit::tcp::{Factory, Played, Setup, Subject, play};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Dialogues at one time: most of each is waiting.
const AT_ONCE: usize = 8;

#[test]
fn every_dialogue_goes_as_written_over_tcp() {
    let wanted = std::env::var("DIALOGUE").unwrap_or_default();
    let dialogues: Vec<Dialogue> = Dialogue::all().into_iter().filter(|d| d.name.contains(&wanted)).collect();
    let (next, skipped) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut failed = vec![];
        while let Some(dialogue) = dialogues.get(next.fetch_add(1, Ordering::Relaxed)) {
            match runtime.block_on(play(dialogue, &InProcess)) {
                Ok(Played::Done) => {}
                Ok(Played::Skipped(_)) => drop(skipped.fetch_add(1, Ordering::Relaxed).to_string()),
                Err(why) => failed.push(why.to_string()),
            }
        }
        failed
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    println!("{} dialogues, {} of them not over TCP", dialogues.len(), skipped.load(Ordering::Relaxed));
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
}

/// Runs the mail crate in a runtime of its own, so that ending that runtime is a crash.
struct InProcess;

struct Running {
    runtime: Option<Runtime>,
    setup: Setup,
    folder: tempfile::TempDir,
    store: Option<Store>,
    keys: Arc<Keys>,
    old: ServerKey,
    address: SocketAddr,
    boot: u64,
}

impl Factory for InProcess {
    type Subject = Running;

    async fn start(&self, setup: Setup) -> Running {
        let keys = Keys::new(ServerKey::new([1; 32]), vec![ServerKey::new([2; 32])]);
        let mut running = Running {
            runtime: None,
            setup,
            folder: tempfile::tempdir().unwrap(),
            store: None,
            keys: Arc::new(keys),
            old: ServerKey::new([2; 32]),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            boot: 0,
        };
        running.boot();
        running
    }
}

impl Running {
    fn boot(&mut self) {
        self.boot += 1;
        let options = Options {
            path: PathBuf::from(self.folder.path()).join("aliases.db"),
            boot: self.boot,
            clock: system_clock(),
            keys: self.keys.all().map(ServerKey::id).collect(),
        };
        let store = Store::open(options).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let (policy, next_hop) = (self.policy(), self.setup.next_hop);
        self.store = Some(store.clone());
        runtime.spawn(async move {
            let server = Server::new(parts(policy, store, next_hop));
            server.serve(TcpListener::from_std(listener).unwrap()).await;
        });
        self.runtime = Some(runtime);
    }

    fn policy(&self) -> Policy {
        let mut limits = Limits::default();
        for (key, value) in &self.setup.config {
            set(&mut limits, key, value);
        }
        Policy {
            hostname: HOSTNAME.parse().unwrap(),
            domains: DOMAINS.iter().map(|domain| domain.parse().unwrap()).collect(),
            operator: OPERATOR.parse().unwrap(),
            delivery: DeliveryPolicy::Smarthost,
            public_url: "https://alias.test".into(),
            keys: self.keys.clone(),
            limits,
        }
    }

    fn opened(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    async fn row(&self, alias: &str) -> RowKey {
        let id: AliasId = alias.parse().unwrap();
        let found = self.opened().find(&self.keys.row_keys(&id)).await.unwrap();
        found.unwrap_or_else(|| panic!("nobody made {alias}")).key
    }
}

fn set(limits: &mut Limits, key: &str, value: &str) {
    let number = || dialogue::size(value).unwrap();
    let small = || u32::try_from(number()).unwrap();
    let time = || dialogue::duration(value).unwrap();
    match key {
        "max_message_size" => limits.max_message_size = number(),
        "max_recipients" => limits.max_recipients = small() as usize,
        "max_received" => limits.max_received = small() as usize,
        "max_unknown_commands" => limits.max_unknown_commands = small(),
        "slow_after_refused" => limits.slow_after_refused = small(),
        "max_refused_recipients" => limits.max_refused_recipients = small(),
        "max_mails" => limits.max_mails = small(),
        "min_data_rate" => limits.min_data_rate = small(),
        "command_timeout" => limits.command_timeout = time(),
        "data_grace" => limits.data_grace = time(),
        "session_timeout" => limits.session_timeout = time(),
        "envelope_timeout" => limits.envelope_timeout = time(),
        "dot_timeout" => limits.dot_timeout = time(),
        "hold_upstream" => limits.hold_upstream = time(),
        other => panic!("config key {other} is for the machine"),
    }
}

fn parts(policy: Policy, store: Store, next_hop: SocketAddr) -> Parts {
    let config = DialConfig {
        hostname: policy.hostname.clone(),
        mx_port: 25,
        allow_private: vec![],
        own: vec![],
        timeouts: Timeouts::default(),
    };
    let dialer = Dialer::new(config, Arc::new(NoDns), system_seeds());
    Parts {
        policy: Arc::new(policy),
        store,
        outside: Outside::new(dialer, PoolLimits::default()),
        smarthost: Some(Smarthost { host: Host::Address(next_hop.ip()), port: next_hop.port() }),
        limits: DoorLimits {
            body_memory: 256 << 20,
            max_connections: 100,
            max_connections_per_address: 20,
            max_unsettled: 1000,
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

impl Subject for Running {
    fn smtp_addr(&self) -> SocketAddr {
        self.address
    }

    fn faults(&self) -> &[Fault] {
        &[]
    }

    async fn seed(&mut self, seed: &Seed) {
        let id: AliasId = seed.alias.parse().unwrap();
        let key = if seed.old_key { &self.old } else { self.keys.first() };
        let now = self.opened().now();
        let days = |days: u32| now.plus(Duration::from_secs(86_400) * days);
        let limits = AliasLimits {
            valid_from: seed.from.map(|from| now.plus(from)),
            valid_until: seed.days.map(days),
            max_usage: seed.uses.and_then(std::num::NonZeroU32::new),
        };
        let private = Private {
            target: seed.target.parse().unwrap(),
            domain: seed.domain.as_deref().unwrap_or(DOMAINS[0]).parse().unwrap(),
            manage: ManageHash([7; 16]),
        };
        let sealed = key.seal(&id, &private, [9; 12]);
        let row = NewRow { key: key.row_key(&id), key_id: key.id(), limits, sealed };
        drop(self.opened().create(row, &[], None).await.unwrap());
    }

    async fn change(&mut self, alias: &str, change: Change) {
        let row = self.row(alias).await;
        let found = self.opened().find(&[row]).await.unwrap().unwrap();
        let change = match change {
            Change::Pause => StoreChange::Pause,
            Change::Resume => StoreChange::Resume,
            Change::Remove => StoreChange::Remove,
            Change::FreeHeld => StoreChange::FreeHeld,
            Change::Expire => {
                StoreChange::Limits(LimitChange { valid_until: Some(found.now), max_usage: None })
            }
            Change::Uses(uses) => StoreChange::Limits(LimitChange {
                max_usage: std::num::NonZeroU32::new(uses),
                valid_until: None,
            }),
        };
        drop(self.opened().change(row, change).await.unwrap());
    }

    async fn count(&mut self, alias: &str, what: Count) -> Option<u32> {
        let row = self.row(alias).await;
        // Acknowledgements wait for the next write: this is one.
        assert!(self.opened().check().await.is_ready());
        let found = self.opened().find(&[row]).await.unwrap().unwrap();
        let kept = found.ledger.kept.iter().filter(|kept| found.now < kept.until).count();
        match what {
            Count::Used => Some(found.ledger.used),
            Count::Left => found.ledger.remaining(),
            Count::Held => u32::try_from(found.ledger.held(found.now)).ok(),
            Count::Kept => u32::try_from(kept).ok(),
        }
    }

    async fn store(&mut self, _: Fault) {}

    async fn crash(&mut self) {
        self.end();
        self.boot();
    }

    async fn stop(mut self) {
        self.end();
    }
}

impl Running {
    /// Every task is dropped where it stands.
    fn end(&mut self) {
        let (runtime, store) = (self.runtime.take(), self.store.take());
        // Blocks, and may not within another runtime.
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if let Some(runtime) = runtime {
                    runtime.shutdown_timeout(Duration::from_secs(5));
                }
                drop(store);
            });
        });
    }
}
