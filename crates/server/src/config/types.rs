//! Values that only the configuration has.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tempalias_address::Domain;
use tempalias_service::PublicUrl;
use tempalias_store::{AddressError, RedisAddress};
use tracing::level_filters::LevelFilter;

use super::value::{Value, quoted, refused};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(usize);

/// The units of a size, largest first.
const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Size {
    /// The number.
    pub const fn bytes(self) -> usize {
        self.0
    }

    pub(super) const fn kib(kib: usize) -> Self {
        Self(kib << 10)
    }
}

impl FromStr for Size {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(())?;
        let (number, unit) = text.split_at(digits);
        let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(())?;
        number.parse::<usize>().ok().and_then(|number| number.checked_mul(*bytes)).map(Self).ok_or(())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, unit): &(&str, usize)| self.0 >= *unit && self.0.is_multiple_of(*unit);
        let (name, unit) = UNITS.into_iter().find(whole).unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl Value for Size {
    fn kind() -> String {
        "a size such as \"25MiB\" (units: B, KiB, MiB, GiB)".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|()| refused::<Self>(text))
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// A machine to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Its name or address.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

/// The name or the address of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// To be looked up.
    Name(Domain),
    /// Already known.
    Address(IpAddr),
}

impl FromStr for HostPort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Address(address.ip()), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        Ok(Self { host: Host::Name(host.parse().map_err(drop)?), port: port.parse().map_err(drop)? })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(address) => write!(f, "{}", SocketAddr::new(*address, self.port)),
        }
    }
}

impl Value for HostPort {
    fn kind() -> String {
        "a host and a port such as \"smtp.example:587\"".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let parsed: Result<Self, ()> = text.trim().parse();
        // Not repeated in the message: people write user:password@ in front of a host.
        parsed.ok().filter(|host| host.port != 0).ok_or_else(|| format!("must be {}", Self::kind()))
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// A DNS server; port 53 unless given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameServer(pub SocketAddr);

impl Value for NameServer {
    fn kind() -> String {
        "an IP address such as \"192.0.2.53\", with or without a port".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bare = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        text.parse().or_else(|_| bare()).map(Self).map_err(|_| refused::<Self>(text))
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.0.to_string()))
    }
}

impl Value for PublicUrl {
    fn kind() -> String {
        "the address of the page such as \"https://alias.example\"".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let Some(rest) = rest else {
            return Err(format!("{}: it must begin with https:// or http://", refused::<Self>(text)));
        };
        if let Some(bare) = text.strip_suffix('/').filter(|_| rest.matches('/').count() == 1) {
            return Err(format!("must not end with a slash: write {}", quoted(bare)));
        }
        if rest.contains('/') {
            return Err(format!(
                "{}: the page needs a host of its own, without a path",
                refused::<Self>(text)
            ));
        }
        let with_port = rest.parse::<HostPort>().is_ok();
        let without = rest.parse::<Domain>().is_ok() || format!("{rest}:80").parse::<HostPort>().is_ok();
        if !with_port && !without {
            return Err(refused::<Self>(text));
        }
        text.parse().map_err(|why| format!("{}: {why}", refused::<Self>(text)))
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(self.as_str()))
    }
}

/// Which store holds the aliases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file of this machine.
    Sqlite(PathBuf),
    /// Redis or Valkey, one server or a Cluster.
    Redis(RedisAddress),
}

impl StoreUrl {
    /// The file, if the store is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Redis(_) => None,
        }
    }

    /// The address, if the store is on Redis.
    pub fn redis(&self) -> Option<&RedisAddress> {
        match self {
            Self::Sqlite(_) => None,
            Self::Redis(address) => Some(address),
        }
    }
}

impl fmt::Display for StoreUrl {
    /// Without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Redis(address) => address.fmt(f),
        }
    }
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_text(text)
    }
}

impl Value for StoreUrl {
    fn kind() -> String {
        "\"sqlite:\" and the path of a file, such as \"sqlite:/var/lib/tempalias/aliases.db\", or the address of a \
         Redis, such as \"redis://127.0.0.1:6379/0\""
            .to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if RedisAddress::is_meant(text) {
            // The error does not repeat the text: it may hold a password.
            return text.parse().map(Self::Redis).map_err(|why: AddressError| why.to_string());
        }
        match text.split_once(':').unwrap_or_default() {
            ("sqlite", rest) if rest.starts_with("//") => {
                Err("must be written with one colon and no double slash: \"sqlite:/path\"".to_owned())
            }
            ("sqlite", rest) if !rest.is_empty() => Ok(Self::Sqlite(rest.into())),
            _ => Err(format!("must be {}", Self::kind())),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(match self {
            Self::Sqlite(path) => quoted(&format!("sqlite:{}", path.to_string_lossy())),
            Self::Redis(address) => quoted(&address.to_string()),
        })
    }
}

/// What keys of a shared Redis begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Namespace {
    fn kind() -> String {
        "1 to 32 letters, digits and hyphens".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if (1..=32).contains(&text.len()) && text.bytes().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(refused::<Self>(text))
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What needs somebody's hands.
    Error,
    /// What will need them.
    Warn,
    /// One line a mail, and what changes.
    Info,
    /// Every step.
    Debug,
    /// Every line of every dialogue, addresses included.
    Trace,
}

const LEVELS: [(&str, Level); 5] = [
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];

impl Level {
    /// The same for `tracing`.
    pub fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

impl Value for Level {
    fn kind() -> String {
        "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let found = LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
        found.map(|(_, level)| *level).ok_or_else(|| refused::<Self>(text))
    }

    fn to_toml(&self) -> Option<String> {
        LEVELS.iter().find(|(_, level)| level == self).map(|(name, _)| quoted(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, written) in
            [("25MiB", 25 << 20, "25MiB"), ("1024KiB", 1 << 20, "1MiB"), ("7B", 7, "7B"), ("0B", 0, "0B")]
        {
            let size = Size::from_text(text).unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, written));
        }
        for bad in ["", "25", "25MB", "25 MiB", "MiB", "-1B", "99999999999GiB"] {
            assert!(Size::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_smarthost_is_a_host_and_a_port() {
        for good in ["smtp.example:587", "192.0.2.1:25", "[2001:db8::1]:25"] {
            assert_eq!(HostPort::from_text(good).unwrap().to_string(), good);
        }
        for bad in
            ["smtp.example", "smtp.example:0", "smtp.example:65536", "192.0.2.1", "2001:db8::1:25", "a b:25"]
        {
            assert!(HostPort::from_text(bad).is_err(), "{bad}");
        }
        assert!(!HostPort::from_text("me:hunter2@smtp.example").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn the_public_url_is_an_origin() {
        for good in
            ["https://alias.example", "http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost"]
        {
            assert_eq!(PublicUrl::from_text(good).unwrap().as_str(), good);
        }
        for bad in [
            "alias.example",
            "ftp://alias.example",
            "https://",
            "https://a.example/x",
            "https://me@a.example",
        ] {
            assert!(PublicUrl::from_text(bad).is_err(), "{bad}");
        }
        let why = PublicUrl::from_text("https://alias.example/").unwrap_err();
        assert!(why.ends_with("write \"https://alias.example\""), "{why}");
    }

    #[test]
    fn a_store_url_is_never_repeated() {
        for bad in ["redis://:hunter2@db.example/x", "redis+cluster://:hunter2@a:1,/3", "hunter2"] {
            let why = StoreUrl::from_text(bad).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
        let url = StoreUrl::from_text("redis://me:hunter2@db.example/0").unwrap();
        assert_eq!(url.to_toml().as_deref(), Some(r#""redis://me:***@db.example/0""#));
        assert_eq!(StoreUrl::from_text("sqlite:/a b").unwrap(), StoreUrl::Sqlite("/a b".into()));
        assert!(StoreUrl::from_text("sqlite:").is_err());
    }

    #[test]
    fn a_namespace_is_plain() {
        assert_eq!(Namespace::from_text("tempalias-2").unwrap().as_str(), "tempalias-2");
        for bad in ["", "a b", "a:b", "{a}", "a*", &"a".repeat(33)] {
            assert!(Namespace::from_text(bad).is_err(), "{bad}");
        }
    }
}
