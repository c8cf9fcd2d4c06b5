//! From a route to a connection that is ready for a mail.
//!
//! Owns the order in which hosts and addresses are tried, the refusal of addresses that a stranger must not make
//! us reach (checked on the very address that is connected to), and the greeting. Never repeats a next hop's
//! words, and never keeps a connection that answered out of step.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use tempalias_address::Domain;
use tempalias_smtp::client::{Handshake, HandshakeStep};
use tempalias_smtp::reply::NextHopReply;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connection::{Connection, Lost};
use crate::dns::{Dns, DnsError, MxAnswer, MxHost};
use crate::order::{alternate_families, by_preference};
use crate::refuse::is_refused;
use crate::route::{Host, Route, Smarthost};

/// Addresses tried of one host, so that one with many dead addresses leaves time for the next. RFC 5321 §5.1 asks
/// for at least two.
const ADDRESSES_PER_HOST: usize = 4;
/// Addresses tried in all.
const MAX_ATTEMPTS: usize = 12;

/// How the dialler behaves.
#[derive(Debug, Clone)]
pub struct DialConfig {
    /// What we call ourselves in EHLO.
    pub hostname: Domain,
    /// The port of every mail exchanger: 25, but for tests and odd networks.
    pub mx_port: u16,
    /// Private networks in which a mail exchanger may be all the same.
    pub allow_private: Vec<IpNet>,
    /// Where we listen ourselves. An unspecified address stands for every address of this machine.
    pub own: Vec<SocketAddr>,
    /// How long to wait for one address.
    pub timeouts: Timeouts,
}

/// How long one address may take. The caller bounds the whole.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the TCP connection.
    pub connect: Duration,
    /// For banner and EHLO together. RFC 5321 §4.5.3.2.1 grants the banner 5 minutes, but a sender waits for us.
    pub greeting: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), greeting: Duration::from_secs(45) }
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The target's domain, or every host it names, does not exist or has no address.
    #[error("the target's domain does not exist, or none of its mail servers does")]
    NoSuchDomain,
    /// The target's domain takes no mail (RFC 7505).
    #[error("the target's domain takes no mail (null MX)")]
    NullMx,
    /// The DNS gave no answer. Also when the smarthost's name does not exist: that is ours to repair.
    #[error("the DNS gave no answer about the next hop")]
    DnsTemporary,
    /// Every address found is private, or our own.
    #[error(
        "the mail servers of the target's domain are all in private networks, or are ourselves; if that is \
         meant, list the network under `allow_private` in [delivery]"
    )]
    BadRoute,
    /// No address could be connected to, or none spoke.
    #[error("no connection to the next hop: every address failed or stayed silent")]
    NoConnection,
    /// At least one answered, and would not serve us.
    #[error("the next hop refused to serve us before any mail was named")]
    Refused,
}

/// Opens connections. See the module.
pub struct Dialer {
    config: DialConfig,
    dns: Arc<dyn Dns>,
    seeds: Seeds,
    /// The SIZE that the smarthost offered last; 0: none yet, or no limit.
    smarthost_size: AtomicU64,
}

/// Where the randomness for shuffling comes from.
pub type Seeds = Box<dyn Fn() -> u64 + Send + Sync>;

/// Seeds from the system's random source.
pub fn system_seeds() -> Seeds {
    // Without a random source equal mail exchangers are merely not shuffled.
    Box::new(|| getrandom::u64().unwrap_or_default())
}

impl Dialer {
    /// Asks `dns` for names and takes one seed for each mail exchanger list.
    pub fn new(config: DialConfig, dns: Arc<dyn Dns>, seeds: Seeds) -> Self {
        Self { config, dns, seeds, smarthost_size: AtomicU64::new(0) }
    }

    /// A new connection, past EHLO. Takes as long as its addresses take; may be dropped at any time.
    ///
    /// # Errors
    /// [`DialError`]. For a smarthost only those that a repair can end, because a message must not bounce for a
    /// mistake of ours.
    pub async fn dial(&self, route: &Route) -> Result<Connection, DialError> {
        let connection = match route {
            Route::Smarthost(smarthost) => self.dial_smarthost(route, smarthost).await?,
            Route::Mx(domain) => self.dial_mx(route, domain).await?,
        };
        if matches!(route, Route::Smarthost(_)) {
            let size = connection.capabilities().max_size().unwrap_or(0);
            self.smarthost_size.store(size, Ordering::Relaxed);
        }
        Ok(connection)
    }

    /// The largest message that the smarthost takes, as it said last; none: no limit, or not yet known.
    pub fn smarthost_size(&self) -> Option<u64> {
        Some(self.smarthost_size.load(Ordering::Relaxed)).filter(|&size| size > 0)
    }

    async fn dial_smarthost(&self, route: &Route, smarthost: &Smarthost) -> Result<Connection, DialError> {
        let addresses = match &smarthost.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.dns.addresses(name).await.unwrap_or_default(),
        };
        if addresses.is_empty() {
            tracing::warn!(%smarthost, "the smarthost's name has no address: check `smarthost` in [delivery], and the DNS");
            return Err(DialError::DnsTemporary);
        }
        let mut tally = Tally::default();
        let addresses: Vec<_> = addresses.iter().map(|&ip| SocketAddr::new(ip, smarthost.port)).collect();
        let (own, others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|&a| self.is_ourselves(a));
        if let Some(own) = own.first() {
            tracing::error!(%smarthost, address = %own, "the smarthost is this very server: check `smarthost` in [delivery]");
        }
        self.try_addresses(route, others, &mut tally).await.ok_or(match tally.verdict() {
            refused @ DialError::Refused => refused,
            _ => DialError::NoConnection,
        })
    }

    async fn dial_mx(&self, route: &Route, domain: &Domain) -> Result<Connection, DialError> {
        let mut tally = Tally::default();
        for host in self.exchangers(domain).await? {
            let addresses = match self.dns.addresses(&host).await {
                Ok(addresses) => addresses,
                Err(DnsError::NoSuchDomain) => continue,
                Err(DnsError::Temporary) => {
                    tally.dns_failed = true;
                    continue;
                }
            };
            let (allowed, refused): (Vec<_>, Vec<_>) = alternate_families(&addresses)
                .into_iter()
                .map(|ip| SocketAddr::new(ip, self.config.mx_port))
                .partition(|&address| self.may_be_exchanger(address));
            if let Some(address) = refused.first() {
                tally.refused_address = true;
                tracing::debug!(%host, %address, "a mail exchanger's address is private or our own: not used");
            }
            if let Some(connection) = self.try_addresses(route, allowed, &mut tally).await {
                return Ok(connection);
            }
        }
        Err(tally.verdict())
    }

    /// The hosts to try, in order.
    async fn exchangers(&self, domain: &Domain) -> Result<Vec<Domain>, DialError> {
        let hosts = match self.dns.mx(domain).await {
            Ok(MxAnswer::Hosts(hosts)) => hosts,
            // RFC 5321 §5.1: the domain itself, as if it named itself with preference 0.
            Ok(MxAnswer::Unspecified) => vec![MxHost { preference: 0, host: domain.clone() }],
            Ok(MxAnswer::Null) => return Err(DialError::NullMx),
            Err(DnsError::NoSuchDomain) => return Err(DialError::NoSuchDomain),
            Err(DnsError::Temporary) => return Err(DialError::DnsTemporary),
        };
        Ok(by_preference(hosts, (self.seeds)()))
    }

    fn may_be_exchanger(&self, address: SocketAddr) -> bool {
        !is_refused(address.ip(), &self.config.allow_private) && !self.is_ourselves(address)
    }

    /// Whether we would answer ourselves there.
    fn is_ourselves(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let mut same_port = self.config.own.iter().filter(|own| own.port() == address.port());
        same_port.any(|own| {
            let own = own.ip().to_canonical();
            own == ip || (own.is_unspecified() && is_of_this_machine(ip))
        })
    }

    async fn try_addresses(
        &self,
        route: &Route,
        addresses: Vec<SocketAddr>,
        tally: &mut Tally,
    ) -> Option<Connection> {
        let untried = |address: &SocketAddr| !tally.tried.contains(address);
        let fresh: Vec<_> = addresses.into_iter().filter(untried).take(ADDRESSES_PER_HOST).collect();
        for address in fresh {
            if tally.tried.len() >= MAX_ATTEMPTS {
                return None;
            }
            tally.tried.push(address);
            match self.attempt(route, address).await {
                Ok(connection) => return Some(connection),
                Err(failure) => {
                    tracing::debug!(%address, ?failure, "a next hop did not serve us");
                    tally.refused |= matches!(failure, Failure::Refused);
                }
            }
        }
        None
    }

    async fn attempt(&self, route: &Route, address: SocketAddr) -> Result<Connection, Failure> {
        let limits = self.config.timeouts;
        let stream = timeout(limits.connect, TcpStream::connect(address)).await??;
        let mut connection = Connection::new(stream, route.clone(), address)?;
        match timeout(limits.greeting, self.greet(&mut connection)).await? {
            Err(Failure::Refused) => {
                connection.quit();
                Err(Failure::Refused)
            }
            greeted => greeted.map(|()| connection),
        }
    }

    async fn greet(&self, connection: &mut Connection) -> Result<(), Failure> {
        let mut handshake = Handshake::new(self.config.hostname.clone());
        loop {
            let reply = connection.reply().await?;
            // What answers a command that was not given yet would be taken for the next command's answer.
            if connection.has_unread() {
                return Err(Failure::Refused);
            }
            match handshake.hear(&reply) {
                HandshakeStep::Say(command) => connection.send(&command).await?,
                HandshakeStep::Refused => return Err(Failure::Refused),
                HandshakeStep::Ready(capabilities) => {
                    connection.greeted(capabilities, mail_max(&reply));
                    return Ok(());
                }
            }
        }
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("config", &self.config).field("dns", &self.dns).finish_non_exhaustive()
    }
}

/// Why one address gave no connection.
#[derive(Debug)]
enum Failure {
    /// Not reached, silent, or closed.
    Unreachable,
    /// It spoke, and not to serve us.
    Refused,
}

impl From<std::io::Error> for Failure {
    fn from(_: std::io::Error) -> Self {
        Self::Unreachable
    }
}

impl From<tokio::time::error::Elapsed> for Failure {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::Unreachable
    }
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Closed => Self::Unreachable,
            Lost::Nonsense(_) => Self::Refused,
        }
    }
}

/// What became of the addresses so far.
#[derive(Debug, Default)]
struct Tally {
    tried: Vec<SocketAddr>,
    refused: bool,
    dns_failed: bool,
    refused_address: bool,
}

impl Tally {
    /// The reason to give when all failed: whatever may pass comes before what is final.
    fn verdict(&self) -> DialError {
        match self {
            Self { refused: true, .. } => DialError::Refused,
            Self { tried, .. } if !tried.is_empty() => DialError::NoConnection,
            Self { dns_failed: true, .. } => DialError::DnsTemporary,
            Self { refused_address: true, .. } => DialError::BadRoute,
            Self { .. } => DialError::NoSuchDomain,
        }
    }
}

/// Only an address of this machine can be bound to.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

/// RFC 9422 §4.1: most mails on one connection.
fn mail_max(reply: &NextHopReply) -> Option<u32> {
    let limits = reply
        .lines()
        .skip(1)
        .find(|line| line.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("LIMITS ")))?;
    limits.split_ascii_whitespace().find_map(|word| {
        let (name, value) = word.split_once('=')?;
        if name.eq_ignore_ascii_case("MAILMAX") { value.parse().ok() } else { None }
    })
}
