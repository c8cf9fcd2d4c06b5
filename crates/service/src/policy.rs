//! What the operator decides about new aliases.

use std::fmt;
use std::str::FromStr;

use tempalias_address::{Domain, Mailbox};
use tempalias_alias::{AliasId, Caps, MailMac, ManageSecret, Rate};

/// What the operator allows, and where this instance is reached.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The domain of an alias whose maker named none.
    pub default_domain: Domain,
    /// Other domains whose addresses are aliases.
    pub more_domains: Vec<Domain>,
    /// The longest life and the most messages.
    pub caps: Caps,
    /// Aliases are made for targets in these domains only; empty: in any but our own.
    pub allow_domains: Vec<Domain>,
    /// Where people reach the pages.
    pub public_url: PublicUrl,
    /// How many aliases one client may make.
    pub create_rate: Rate,
}

impl Policy {
    /// Every domain whose addresses are aliases, the default first.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        std::iter::once(&self.default_domain).chain(&self.more_domains)
    }

    /// Whether addresses of `domain` are aliases.
    pub fn is_ours(&self, domain: &Domain) -> bool {
        self.domains().any(|ours| ours == domain)
    }

    /// Whether the operator lets aliases point to `target`. (That it is no alias itself is another question.)
    pub(crate) fn allows(&self, target: &Mailbox) -> bool {
        self.allow_domains.is_empty() || self.allow_domains.contains(target.domain())
    }

    /// The page that opens an alias to its owner. Holds the secret: show it to nobody else.
    pub fn manage_url(&self, id: &AliasId, secret: &ManageSecret) -> String {
        format!("{}/a/{id}.{}", self.public_url, secret.reveal())
    }

    /// The page that a forwarded mail links to.
    pub fn mail_url(&self, id: &AliasId, mac: &MailMac) -> String {
        format!("{}/m/{id}.{}", self.public_url, mac.as_str())
    }
}

/// `https://host` or `http://host:port`: an origin, without a path and without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(Box<str>);

/// Why a text is not a [`PublicUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicUrlError {
    /// Neither `http://` nor `https://`.
    #[error("the public address must begin with https:// or http://")]
    Scheme,
    /// A path, a query, a user name or a slash at the end.
    #[error(
        "the public address is a scheme and a host, such as https://alias.example, without a path or a / at the end"
    )]
    NotAnOrigin,
}

impl PublicUrl {
    /// Scheme and host, as a browser writes an origin.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PublicUrl {
    type Err = PublicUrlError;

    fn from_str(text: &str) -> Result<Self, PublicUrlError> {
        let text = text.to_ascii_lowercase();
        let host = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let host = host.ok_or(PublicUrlError::Scheme)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        if host.is_empty() || !host.bytes().all(allowed) {
            return Err(PublicUrlError::NotAnOrigin);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_an_origin() {
        for good in ["https://alias.example", "http://127.0.0.1:8080", "http://[::1]:8080"] {
            assert_eq!(good.parse::<PublicUrl>().unwrap().as_str(), good);
        }
        assert_eq!("HTTPS://Alias.Example".parse::<PublicUrl>().unwrap().as_str(), "https://alias.example");
        for bad in [
            "alias.example",
            "ftp://alias.example",
            "https://",
            "https://a/",
            "https://a/b",
            "https://u@a",
            "https://a?b",
        ] {
            assert!(bad.parse::<PublicUrl>().is_err(), "{bad}");
        }
    }
}
