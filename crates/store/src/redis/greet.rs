//! What a server must be before anything is asked of it: recent, a master, and one that evicts nothing.

use std::collections::BTreeSet;

use redis::{RedisError, cmd};
use tempalias_alias::KeyId;

use super::fault::why_not;
use super::link::Pipe;
use super::reply::text;

/// Scripts declare what they do in their first line, which older ones do not know.
const OLDEST: u32 = 7;

/// Why a server that answers is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It cannot be reached, or fails: it may be better in a moment.
    Failing(String),
    /// It is not as it must be: somebody has to do something about it.
    Wrong(String),
    /// It holds no store.
    Empty,
    /// It has thrown keys away to make room, and nobody has accepted that.
    Evicted,
    /// Rows on it were sealed under a key that is not listed.
    MissingKey(KeyId),
}

impl From<RedisError> for Unfit {
    fn from(error: RedisError) -> Self {
        let why = why_not(&error);
        match error.code() {
            _ if error.kind() == redis::ErrorKind::AuthenticationFailed => Self::Wrong(why),
            _ if why.contains("no Cluster") => Self::Wrong(why),
            Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Self::Wrong(why),
            _ => Self::Failing(why),
        }
    }
}

/// What is said of a server that has thrown keys away.
pub(super) const EVICTED: &str = "the server has thrown keys away to make room, and aliases may be among them: set its \
    maxmemory-policy to noeviction, then restore it from a copy, or accept the loss with `tempalias db adopt`";

/// What one or more servers said of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// Keys that were thrown away to make room, since the server's start: aliases may be among them.
    pub(super) evicted: u64,
    /// Of each server the number that it drew when it started, and that of the history that its data is from: a replica
    /// takes over its master's, and draws one when it is promoted.
    pub(super) histories: BTreeSet<String>,
    /// What is wrong with it otherwise.
    pub(super) unfit: Option<Unfit>,
}

/// Whether the server, or every master of the Cluster, is of the kind that is needed.
pub(super) async fn check_server(pipe: &mut Pipe, is_cluster: bool) -> Result<Described, Unfit> {
    let mut info = cmd("INFO");
    for section in ["server", "memory", "replication", "stats", "cluster"] {
        info.arg(section);
    }
    let mut evicted = 0;
    let mut histories = BTreeSet::new();
    let mut unfit = None;
    for answer in pipe.ask_masters(info).await? {
        let info = text(&answer);
        evicted += field(&info, "evicted_keys").parse().unwrap_or(0);
        histories.insert(format!("{} {}", field(&info, "run_id"), field(&info, "master_replid")));
        unfit = unfit.or(check_info(&info, is_cluster).err());
    }
    Ok(Described { evicted, histories, unfit })
}

/// A field of INFO; empty: it is not there.
fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
}

fn check_info(info: &str, is_cluster: bool) -> Result<(), Unfit> {
    let field = |name: &str| field(info, name);
    let version = field("redis_version");
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or_default();
    if major < OLDEST {
        let why = format!("the server is Redis {version}: {OLDEST}.0 or newer, or Valkey, is needed");
        return Err(Unfit::Wrong(why));
    }
    if field("role") != "master" {
        return Err(Unfit::Failing("the server is a replica: store.url must lead to the master".to_owned()));
    }
    if (field("cluster_enabled") == "1") != is_cluster {
        let words = if is_cluster {
            "the server is no Cluster: write redis:// in store.url"
        } else {
            "the server is part of a Cluster: write redis+cluster:// in store.url, with some of its nodes"
        };
        return Err(Unfit::Wrong(words.to_owned()));
    }
    let policy = field("maxmemory_policy");
    if policy != "noeviction" {
        return Err(Unfit::Wrong(format!(
            "the server may throw aliases away when its memory is full (maxmemory-policy {policy}): set it to \
             noeviction"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\nrole:master\r\n\
                        evicted_keys:0\r\ncluster_enabled:0\r\n";

    #[test]
    fn what_a_server_must_be() {
        assert_eq!(check_info(GOOD, false), Ok(()));
        assert_eq!(
            (field(GOOD, "evicted_keys"), field(GOOD, "role"), field(GOOD, "no")),
            ("0", "master", "")
        );
        for (from, to, cluster, words) in [
            ("7.0.15", "6.2.1", false, "Redis 6.2.1"),
            ("noeviction", "allkeys-lru", false, "maxmemory-policy allkeys-lru"),
            ("cluster_enabled:0", "cluster_enabled:1", false, "redis+cluster://"),
            ("cluster_enabled:0", "cluster_enabled:0", true, "write redis://"),
        ] {
            let Err(Unfit::Wrong(why)) = check_info(&GOOD.replace(from, to), cluster) else { panic!("{to}") };
            assert!(why.contains(words), "{why}");
        }
        let replica = check_info(&GOOD.replace("role:master", "role:slave"), false);
        assert!(matches!(replica, Err(Unfit::Failing(_))), "it may be promoted any moment");
    }
}
