//! Names to addresses: what the rest of the program may ask the DNS, and how it answers.
//!
//! [`Dns`] is the seam behind which tests put a zone of their own. Never hands out a type of the resolver that
//! does the work.

mod hickory;

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use tempalias_address::Domain;

pub use hickory::{Hickory, Settings, SetupError};

/// An answer on its way. Every implementation bounds the time it takes.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, DnsError>> + Send + 'a>>;

/// Looks names up.
pub trait Dns: fmt::Debug + Send + Sync {
    /// The mail exchangers of a domain.
    fn mx<'a>(&'a self, domain: &'a Domain) -> Answer<'a, MxAnswer>;

    /// The addresses of a host, of both families; none if the name exists without any.
    fn addresses<'a>(&'a self, host: &'a Domain) -> Answer<'a, Vec<IpAddr>>;
}

/// What a domain says about its mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MxAnswer {
    /// Its exchangers, in no order. Empty when it names some and none can be a host.
    Hosts(Vec<MxHost>),
    /// It names none: the domain itself is the host (RFC 5321 §5.1).
    Unspecified,
    /// It takes no mail (RFC 7505).
    Null,
}

/// One mail exchanger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxHost {
    /// Lower is tried earlier.
    pub preference: u16,
    /// Its name.
    pub host: Domain,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The name does not exist: an authority said so.
    #[error("the name does not exist in the DNS")]
    NoSuchDomain,
    /// Nobody answered, or what came was a failure: another attempt may succeed.
    #[error("the DNS gave no answer")]
    Temporary,
}
