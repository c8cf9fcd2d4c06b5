//! Next hops that do as they are told, and a DNS that knows what it is given.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tempalias_address::Domain;
use tempalias_outside::dial::Timeouts;
use tempalias_outside::dns::{Answer, Dns, DnsError, MxAnswer, MxHost};
use tempalias_outside::{DialConfig, Dialer, Host, Outside, PoolLimits, Route, Smarthost};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn domain(name: &str) -> Domain {
    name.parse().unwrap()
}

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("nothing happened")
}

/// Polls for a state that another task brings about.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A listening next hop; each connection is played by the same script.
pub(crate) struct NextHop {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl NextHop {
    pub(crate) async fn play<F>(script: impl Fn(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::play_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    /// One that takes a single connection.
    pub(crate) async fn once<F>(script: impl FnOnce(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let script = std::sync::Mutex::new(Some(script));
        Self::play(move |peer| (script.lock().unwrap().take().expect("a second connection"))(peer)).await
    }

    pub(crate) fn play_on<F>(listener: TcpListener, script: impl Fn(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                // What was written is there, and not held back for an acknowledgement.
                stream.set_nodelay(true).unwrap();
                tokio::spawn(script(Peer { stream: BufReader::new(stream) }));
            }
        });
        Self { address, accepted }
    }

    /// One that greets, and then answers 250 to everything.
    pub(crate) async fn friendly() -> Self {
        Self::play(|mut peer| async move {
            peer.greet().await;
            peer.agree_for_ever().await;
        })
        .await
    }

    pub(crate) fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(crate) fn route(&self) -> Route {
        smarthost(self.address)
    }
}

pub(crate) fn smarthost(address: SocketAddr) -> Route {
    Route::Smarthost(Smarthost { host: Host::Address(address.ip()), port: address.port() })
}

/// The next hop's end of a connection.
pub(crate) struct Peer {
    pub(crate) stream: BufReader<TcpStream>,
}

impl Peer {
    pub(crate) async fn say(&mut self, text: &str) {
        // The other end may be gone: whether it may is the test's business, not this helper's.
        drop(self.stream.get_mut().write_all(text.as_bytes()).await);
    }

    /// The next line, without its end; none: closed.
    pub(crate) async fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await {
            Ok(read) if read > 0 => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }

    pub(crate) async fn expect(&mut self, line: &str) {
        assert_eq!(self.hear().await.as_deref(), Some(line));
    }

    pub(crate) async fn greet(&mut self) {
        self.greet_offering("250-hop.test\r\n250-PIPELINING\r\n250 SIZE 1000000\r\n").await;
    }

    pub(crate) async fn greet_offering(&mut self, ehlo: &str) {
        self.say("220 hop.test ESMTP\r\n").await;
        self.expect("EHLO us.test").await;
        self.say(ehlo).await;
    }

    pub(crate) async fn agree_for_ever(&mut self) {
        while self.hear().await.is_some_and(|line| line != "QUIT") {
            self.say("250 2.0.0 ok\r\n").await;
        }
    }

    /// Everything until the other end closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut octets = vec![];
        drop(self.stream.read_to_end(&mut octets).await);
        octets
    }
}

/// A zone in memory. What it does not know does not exist.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    mx: HashMap<Domain, Result<MxAnswer, DnsError>>,
    addresses: HashMap<Domain, Result<Vec<IpAddr>, DnsError>>,
    pub(crate) questions: Arc<AtomicUsize>,
}

impl Zone {
    pub(crate) fn mx(mut self, of: &str, hosts: &[(u16, &str)]) -> Self {
        let hosts = hosts.iter().map(|&(preference, host)| MxHost { preference, host: domain(host) });
        self.mx.insert(domain(of), Ok(MxAnswer::Hosts(hosts.collect())));
        self
    }

    pub(crate) fn mx_is(mut self, of: &str, answer: Result<MxAnswer, DnsError>) -> Self {
        self.mx.insert(domain(of), answer);
        self
    }

    pub(crate) fn host(mut self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        self.addresses.insert(domain(name), Ok(addresses));
        self
    }

    pub(crate) fn host_fails(mut self, name: &str, error: DnsError) -> Self {
        self.addresses.insert(domain(name), Err(error));
        self
    }
}

impl Dns for Zone {
    fn mx<'a>(&'a self, domain: &'a Domain) -> Answer<'a, MxAnswer> {
        self.questions.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { self.mx.get(domain).cloned().unwrap_or(Err(DnsError::NoSuchDomain)) })
    }

    fn addresses<'a>(&'a self, host: &'a Domain) -> Answer<'a, Vec<IpAddr>> {
        self.questions.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { self.addresses.get(host).cloned().unwrap_or(Err(DnsError::NoSuchDomain)) })
    }
}

/// Loopback is allowed; nothing is our own.
pub(crate) fn config(mx_port: u16) -> DialConfig {
    DialConfig {
        hostname: domain("us.test"),
        mx_port,
        allow_private: vec!["127.0.0.0/8".parse().unwrap()],
        own: vec![],
        timeouts: Timeouts { connect: PATIENCE, greeting: PATIENCE },
    }
}

pub(crate) fn dialer(config: DialConfig, zone: Zone) -> Dialer {
    Dialer::new(config, Arc::new(zone), Box::new(|| 1))
}

/// For smarthosts by address: no DNS at all.
pub(crate) fn outside(limits: PoolLimits) -> Outside {
    Outside::new(dialer(config(25), Zone::default()), limits)
}

/// Listeners on consecutive loopback addresses, all on one port, as mail exchangers are.
pub(crate) async fn listeners<const N: usize>() -> ([TcpListener; N], u16) {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = first.local_addr().unwrap().port();
        let mut all = vec![first];
        for last in 2..=u8::try_from(N).unwrap() {
            all.extend(TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).await);
        }
        if let Ok(all) = <[TcpListener; N]>::try_from(all) {
            return (all, port);
        }
    }
    panic!("no port is free on {N} loopback addresses");
}
