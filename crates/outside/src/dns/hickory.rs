//! The resolver of the hickory project behind [`Dns`].
//!
//! Asks the configured servers, or those of `/etc/resolv.conf`; caches for as long as the records say. Every name
//! is asked for as it is: search lists are for people at a prompt, not for mail.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as ServerError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, TokioResolver};
use tempalias_address::Domain;
use tokio::time::timeout;

use super::{Answer, Dns, DnsError, MxAnswer, MxHost};

/// A look-up that was not answered by then is a failure.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Answers kept; a few hundred octets each.
const CACHED_ANSWERS: u64 = 4096;
/// However long a record may be kept by its own account, a change is seen after this time.
const MAX_POSITIVE_TTL: Duration = Duration::from_hours(1);
/// The same for "there is no such name": a domain may be a minute old.
const MAX_NEGATIVE_TTL: Duration = Duration::from_mins(1);
/// Questions at once to one server over TCP. The resolver's own limit of 32 would refuse under load.
const MAX_QUESTIONS: usize = 1024;

/// Whom to ask, and how long to wait.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name servers; none: those of the system.
    pub servers: Vec<SocketAddr>,
    /// The longest that one look-up takes.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { servers: vec![], timeout: TIMEOUT }
    }
}

/// Why there is no resolver.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No server was configured, and the system names none.
    #[error(
        "no name server: none is configured, and /etc/resolv.conf could not be used ({0}); \
         list servers under `servers` in [dns], or repair that file"
    )]
    NoServers(String),
    /// The resolver did not start.
    #[error("the DNS resolver could not be started: {0}")]
    Resolver(String),
}

/// A caching resolver. Must be used within a tokio runtime.
pub struct Hickory {
    /// Knows all servers, and which of them are fast.
    resolver: TokioResolver,
    /// One for each server, where there are several: the resolver takes the first failure that any server sends
    /// for the answer, and one broken server must not hide the others.
    each: Vec<TokioResolver>,
    hosts: Hosts,
    timeout: Duration,
}

impl Hickory {
    /// Reads the system's settings where none are given. Sends nothing yet.
    ///
    /// # Errors
    /// [`SetupError`]
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let servers = if settings.servers.is_empty() {
            let (config, _) = read_system_conf().map_err(|e| SetupError::NoServers(e.to_string()))?;
            config.name_servers().to_vec()
        } else {
            settings.servers.iter().copied().map(name_server).collect()
        };
        let resolver = |servers| build(servers, settings.timeout);
        let each = if servers.len() > 1 { servers.clone() } else { vec![] };
        let each = each.into_iter().map(|server| resolver(vec![server])).collect::<Result<_, _>>()?;
        let hosts = Hosts::from_system().unwrap_or_default();
        Ok(Self { resolver: resolver(servers)?, each, hosts, timeout: settings.timeout })
    }

    async fn look_up(&self, domain: &Domain, kind: RecordType) -> Result<Vec<RData>, DnsError> {
        let name = absolute(domain)?;
        let found = timeout(self.timeout, self.ask(&name, kind)).await.unwrap_or(Err(NetError::Timeout));
        // Signatures and the links of a CNAME chain stand among the answers too.
        let wanted = |lookup: Lookup| {
            lookup.answers().iter().filter(|r| r.record_type() == kind).map(|r| r.data.clone()).collect()
        };
        match found {
            Ok(lookup) => Ok(wanted(lookup)),
            Err(error) if error.is_nx_domain() => Err(DnsError::NoSuchDomain),
            Err(error) if error.is_no_records_found() => Ok(vec![]),
            Err(error) => {
                tracing::debug!(%domain, %kind, %error, "a DNS look-up failed");
                Err(DnsError::Temporary)
            }
        }
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Lookup, NetError> {
        let mut found = self.resolver.lookup(name.clone(), kind).await;
        for server in &self.each {
            if !matches!(found, Err(NetError::Dns(ServerError::ResponseCode(_)))) {
                break;
            }
            found = server.lookup(name.clone(), kind).await;
        }
        found
    }

    /// `/etc/hosts`: how many an operator names the smarthost.
    fn hosts_file(&self, host: &Domain) -> Vec<IpAddr> {
        let Ok(name) = absolute(host) else { return vec![] };
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)))
            .flat_map(|found| found.answers().iter().filter_map(|r| r.data.ip_addr()).collect::<Vec<_>>())
            .collect()
    }
}

impl Dns for Hickory {
    fn mx<'a>(&'a self, domain: &'a Domain) -> Answer<'a, MxAnswer> {
        Box::pin(async move { Ok(read_mx(&self.look_up(domain, RecordType::MX).await?)) })
    }

    fn addresses<'a>(&'a self, host: &'a Domain) -> Answer<'a, Vec<IpAddr>> {
        Box::pin(async move {
            let listed = self.hosts_file(host);
            if !listed.is_empty() {
                return Ok(listed);
            }
            let (v4, v6) =
                tokio::join!(self.look_up(host, RecordType::A), self.look_up(host, RecordType::AAAA));
            join_families(v4, v6)
        })
    }
}

impl std::fmt::Debug for Hickory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hickory").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

fn build(servers: Vec<NameServerConfig>, limit: Duration) -> Result<TokioResolver, SetupError> {
    // Without the system's search list, whatever it is.
    let config = ResolverConfig::from_name_servers(servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    // One try and one more, within our own limit.
    options.timeout = limit * 2 / 5;
    options.attempts = 1;
    options.cache_size = CACHED_ANSWERS;
    options.positive_max_ttl = Some(MAX_POSITIVE_TTL);
    options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
    options.max_active_requests = MAX_QUESTIONS;
    // Read by ourselves: the resolver would use it for look-ups of a kind that we do not make.
    options.use_hosts_file = ResolveHosts::Never;
    builder.build().map_err(|e| SetupError::Resolver(e.to_string()))
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    (udp.port, tcp.port) = (address.port(), address.port());
    NameServerConfig::new(address.ip(), true, vec![udp, tcp])
}

/// With the final dot, which keeps the search list out.
fn absolute(domain: &Domain) -> Result<Name, DnsError> {
    let mut name = Name::from_ascii(domain.as_str()).map_err(|_| DnsError::NoSuchDomain)?;
    name.set_fqdn(true);
    Ok(name)
}

fn read_mx(records: &[RData]) -> MxAnswer {
    let exchangers =
        || records.iter().filter_map(|data| if let RData::MX(mx) = data { Some(mx) } else { None });
    if exchangers().next().is_none() {
        return MxAnswer::Unspecified;
    }
    // RFC 7505 §3: a null MX stands alone. Beside others "." is merely no host.
    if exchangers().all(|mx| mx.exchange.is_root()) {
        return MxAnswer::Null;
    }
    let host = |name: &Name| name.to_ascii().trim_end_matches('.').parse::<Domain>().ok();
    MxAnswer::Hosts(
        exchangers()
            .filter_map(|mx| Some(MxHost { preference: mx.preference, host: host(&mx.exchange)? }))
            .collect(),
    )
}

/// Both families count as one answer: a failure counts only when the other family has nothing.
fn join_families(
    v4: Result<Vec<RData>, DnsError>,
    v6: Result<Vec<RData>, DnsError>,
) -> Result<Vec<IpAddr>, DnsError> {
    let found: Vec<IpAddr> = [&v4, &v6].into_iter().flatten().flatten().filter_map(RData::ip_addr).collect();
    match (v4, v6) {
        _ if !found.is_empty() => Ok(found),
        (Err(DnsError::Temporary), _) | (_, Err(DnsError::Temporary)) => Err(DnsError::Temporary),
        (Err(DnsError::NoSuchDomain), _) | (_, Err(DnsError::NoSuchDomain)) => Err(DnsError::NoSuchDomain),
        (Ok(_), Ok(_)) => Ok(vec![]),
    }
}
