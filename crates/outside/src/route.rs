//! Where a mail goes next.

use std::fmt;
use std::net::IpAddr;

use tempalias_address::Domain;

/// The next hop of a transaction, before any name is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Route {
    /// The one server that the operator configured for all mail.
    Smarthost(Smarthost),
    /// The mail exchangers of the target's domain.
    Mx(Domain),
}

/// A server to which the operator sends all mail. It may be in a private network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Smarthost {
    /// Its name or address.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

/// A host, by name or by address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// To be looked up (A and AAAA, never MX).
    Name(Domain),
    /// To be connected to as it is.
    Address(IpAddr),
}

impl fmt::Display for Smarthost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
        }
    }
}
