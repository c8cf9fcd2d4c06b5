//! Where a Redis is, as an operator writes it.

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionInfo, IntoConnectionInfo};

/// The address of one Redis or Valkey, or of a Cluster. Holds a password; shows none.
#[derive(Clone)]
pub struct RedisAddress {
    pub(super) nodes: Vec<ConnectionInfo>,
    is_cluster: bool,
    is_tls: bool,
    /// As it was written, without the password.
    shown: String,
}

/// Why a text is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}: write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], rediss://… (TLS), unix:/PATH or \
         redis+cluster://HOST:PORT,HOST:PORT"
)]
pub struct AddressError(&'static str);

impl RedisAddress {
    /// Whether `text` means a Redis at all, by its beginning.
    pub fn is_meant(text: &str) -> bool {
        scheme(text).is_some()
    }

    /// The same address with this password (from a file, say).
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        for node in &mut self.nodes {
            let settings = node.redis_settings().clone().set_password(password);
            *node = node.clone().set_redis_settings(settings);
        }
        self
    }

    /// Whether a password stands in it.
    pub fn has_password(&self) -> bool {
        self.nodes.iter().any(|node| node.redis_settings().password().is_some())
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Whether it is reached over TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether whoever connects to `other`, too, connects to the same data. Tells what stands there apart, not
    /// where two names lead.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let of = |address: &Self| -> Vec<_> {
            let node = |node: &ConnectionInfo| (node.addr().to_string(), node.redis_settings().db());
            address.nodes.iter().map(node).collect()
        };
        of(self) == of(other)
    }
}

/// How a text begins, and what that means: the scheme that the client knows, and whether it is a Cluster.
fn scheme(text: &str) -> Option<(&'static str, bool, &str)> {
    [
        ("redis+cluster://", "redis://", true),
        ("rediss+cluster://", "rediss://", true),
        ("valkey+cluster://", "redis://", true),
        ("valkeys+cluster://", "rediss://", true),
        ("redis://", "redis://", false),
        ("rediss://", "rediss://", false),
        ("valkey://", "redis://", false),
        ("valkeys://", "rediss://", false),
        ("unix:", "unix:", false),
    ]
    .into_iter()
    .find_map(|(written, meant, cluster)| Some((meant, cluster, text.strip_prefix(written)?)))
}

const NO_DATABASE: AddressError = AddressError("the database is no number from 0 on");

/// The server may have fewer; below zero there is none on any.
fn is_database(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u32>().is_ok()
}

impl FromStr for RedisAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, is_cluster, rest) = scheme(text).ok_or(AddressError("not the address of a Redis"))?;
        let is_tls = scheme == "rediss://";
        if scheme == "unix:" && !rest.starts_with('/') {
            return Err(AddressError("the path of the socket must be absolute"));
        }
        if rest.contains('#') {
            return Err(AddressError("nothing may follow a # (a password has it as %23)"));
        }
        // Other words there are not hidden when the address is shown, and a password may be among them.
        let words = rest.split_once('?').map_or("", |(_, words)| words);
        let is_known = |word: &str| word.is_empty() || (scheme == "unix:" && word.starts_with("db="));
        if !words.split('&').all(is_known) {
            return Err(AddressError(
                "nothing may follow a ? but db=NUMBER, for a unix socket; a password goes into \
                                     store.password_file",
            ));
        }
        let socket_database = words.split('&').find_map(|word| word.strip_prefix("db="));
        if socket_database.is_some_and(|number| !is_database(number)) {
            return Err(NO_DATABASE);
        }
        // A password may hold an @ only as %40, so the last one ends it. A socket's path has none.
        let (user, hosts) = match rest.rsplit_once('@') {
            Some((user, hosts)) if scheme != "unix:" => (Some(user), hosts),
            _ => (None, rest),
        };
        let (hosts, database) = match hosts.split_once('/') {
            Some((hosts, database)) if scheme != "unix:" => (hosts, Some(database)),
            _ => (hosts, None),
        };
        if is_cluster && database.is_some_and(|number| !matches!(number, "" | "0")) {
            return Err(AddressError("a Cluster has no other database than 0"));
        }
        if database.is_some_and(|number| !number.is_empty() && !is_database(number)) {
            return Err(NO_DATABASE);
        }
        let names: Vec<&str> = if is_cluster { hosts.split(',').collect() } else { vec![hosts] };
        let node = |host: &&str| {
            if host.is_empty() {
                return Err(AddressError("a host is missing"));
            }
            let user = user.map(|user| format!("{user}@")).unwrap_or_default();
            let database = database.map(|number| format!("/{number}")).unwrap_or_default();
            let url = format!("{scheme}{user}{host}{database}");
            url.as_str().into_connection_info().map_err(|_| AddressError("not the address of a Redis"))
        };
        let nodes = names.iter().map(node).collect::<Result<Vec<_>, _>>()?;
        let shown = match user {
            Some(user) => {
                let name = user.split(':').next().unwrap_or_default();
                let secret = if user.contains(':') { ":***" } else { "" };
                text.replacen(&format!("{user}@"), &format!("{name}{secret}@"), 1)
            }
            None => text.to_owned(),
        };
        Ok(Self { nodes, is_cluster, is_tls, shown })
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisAddress({self})")
    }
}

impl PartialEq for RedisAddress {
    fn eq(&self, other: &Self) -> bool {
        self.shown == other.shown && self.is_same_as(other)
    }
}

impl Eq for RedisAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_operators_write_is_understood() {
        for (text, nodes, cluster, tls) in [
            ("redis://db.example", 1, false, false),
            ("redis://127.0.0.1:6380/3", 1, false, false),
            ("redis://user:p%40ss@[::1]:6379/0", 1, false, false),
            ("rediss://:secret@db.example:6380", 1, false, true),
            ("unix:/run/redis/redis.sock", 1, false, false),
            ("unix:/run/redis/redis.sock?db=2", 1, false, false),
            ("redis+cluster://a:7000,b:7001,c:7002", 3, true, false),
            ("rediss+cluster://u:p@a:7000,b:7001", 2, true, true),
            ("valkey://db.example", 1, false, false),
        ] {
            let address: RedisAddress = text.parse().unwrap();
            assert_eq!(
                (address.nodes.len(), address.is_cluster, address.is_tls),
                (nodes, cluster, tls),
                "{text}"
            );
        }
        let address: RedisAddress = "redis://user:p%40ss@h:1/3".parse().unwrap();
        let settings = address.nodes[0].redis_settings();
        assert_eq!(
            (settings.username(), settings.password(), settings.db()),
            (Some("user"), Some("p@ss"), 3)
        );
        let other = address.clone().with_password("new");
        assert_eq!(other.nodes[0].redis_settings().password(), Some("new"));
    }

    #[test]
    fn what_is_none_is_refused_without_showing_a_password() {
        for text in [
            "http://x",
            "redis://",
            "redis+cluster://",
            "redis+cluster://a:1,",
            "redis+cluster://u:hunter2@a:1/4",
            "redis://u:hunter2@h:notaport",
            "redis://h/db",
            "unix:/s?pass=hunter2",
            "redis://h?password=hunter2",
            "unix:relative",
            "redis:/x",
            "rediss://h/#insecure",
            "rediss://u:hunter2@h#insecure",
            "redis://h/0#x",
            "unix:/s#x",
            "redis://h/-1",
            "redis://u:hunter2@h/+1",
            "redis://h/4294967296",
            "unix:/s?db=-1",
            "unix:/s?db=",
        ] {
            let error = text.parse::<RedisAddress>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("rediss://h/#insecure", "follow a #"),
            ("redis://h/-1", "the database is no number"),
            ("redis://h/db", "the database is no number"),
            ("unix:/s?db=x", "the database is no number"),
        ] {
            let error = text.parse::<RedisAddress>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!("redis://h/".parse::<RedisAddress>().is_ok());
    }

    #[test]
    fn no_password_is_shown() {
        for text in ["redis://u:hunter2@h:1/0", "redis://:hunter2@h", "redis+cluster://u:hunter2@a:1,b:2"] {
            let address: RedisAddress = text.parse().unwrap();
            assert!(!format!("{address} {address:?}").contains("hunter2"));
            assert!(address.to_string().contains(":***@"), "{address}");
        }
    }
}
