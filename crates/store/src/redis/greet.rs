//! What a server must be before anything is asked of it: recent, a master, one that evicts nothing, and the one that
//! holds our aliases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use redis::{RedisError, Value, cmd};
use tempalias_alias::{KeyId, RowKey, UnixTime};

use super::fault::why_not;
use super::keys::{BUCKETS, Hex, Names};
use super::link::Pipe;
use super::script::{JOIN, MARK, UNMARK};
use crate::copy::{Mark, Origin};

/// Scripts declare what they do in their first line, which older ones do not know.
const OLDEST: u32 = 7;
/// Format of what is stored, in every marker.
const FORMAT: &str = "2";

/// Why a server that answers is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It cannot be reached, or fails: it may be better in a moment.
    Failing(String),
    /// It is not as it must be: somebody has to do something about it.
    Wrong(String),
    /// It holds no store.
    Empty,
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

/// Takes the markers away: from now on nothing is known of any alias, on whatever node, until somebody adopts what is
/// left. Not those of somebody who adopts it at this moment: the markers are read first, and then once more whether
/// anything was thrown away.
pub(super) async fn distrust(pipe: &mut Pipe, names: &Names, is_cluster: bool) -> Result<(), Unfit> {
    let seen = markers(pipe, names).await?;
    if check_server(pipe, is_cluster).await?.evicted == 0 {
        return Ok(());
    }
    for marker in seen.seen.keys() {
        let asked = (0..BUCKETS).map(|bucket| {
            let (mut pipe, name) = (pipe.clone(), names.marker(bucket));
            async move { pipe.run(&UNMARK, &[name], &[marker.as_bytes()]).await }
        });
        join_all(asked).await.into_iter().try_for_each(|answer| answer.map(drop))?;
    }
    Ok(())
}

/// What the markers of all buckets say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Markers {
    /// Each different marker, and how many buckets have it.
    pub(super) seen: BTreeMap<String, u16>,
    /// Buckets without one.
    pub(super) missing: Vec<u16>,
}

impl Markers {
    /// The one marker, if there is only one.
    pub(super) fn only(&self) -> Result<&str, Unfit> {
        let mut seen = self.seen.keys();
        match (seen.next(), seen.next()) {
            (None, _) => Err(Unfit::Empty),
            (Some(marker), None) => check_format(marker),
            (Some(_), Some(_)) => Err(Unfit::Wrong(
                "parts of two stores are mixed on this server: give each a store.namespace of its own, or restore \
                 the server from one copy"
                    .to_owned(),
            )),
        }
    }

    /// For operators; none: all is well.
    pub(super) fn fault(&self, marker: &str) -> Option<String> {
        let wrong: u16 = self.seen.iter().filter(|(seen, _)| *seen != marker).map(|(_, count)| count).sum();
        let missing = self.missing.len() + usize::from(wrong);
        (missing > 0).then(|| {
            format!(
                "{missing} of {BUCKETS} parts of the store are gone (a server came back empty, or was replaced): \
                 restore it, or accept the loss with `tempalias db adopt`"
            )
        })
    }
}

fn check_format(marker: &str) -> Result<&str, Unfit> {
    match marker.split(' ').next() {
        Some(FORMAT) => Ok(marker),
        format => Err(Unfit::Wrong(format!(
            "the store has format {}, and this tempalias knows {FORMAT}: run the newer version that wrote it",
            format.unwrap_or("?")
        ))),
    }
}

/// A new marker for a store that begins, or is adopted, now.
pub(super) fn new_marker(id: [u8; 8], now: UnixTime) -> String {
    format!("{FORMAT} {} {}", Hex(&id), now.millis())
}

/// When the store of this marker was adopted.
pub(super) fn adopted_at(marker: &str) -> UnixTime {
    UnixTime::from_millis(marker.rsplit(' ').next().and_then(|at| at.parse().ok()).unwrap_or_default())
}

/// Reads the marker of every bucket.
pub(super) async fn markers(pipe: &Pipe, names: &Names) -> Result<Markers, RedisError> {
    let asked = (0..BUCKETS).map(|bucket| {
        let (mut pipe, name) = (pipe.clone(), names.marker(bucket));
        async move { pipe.ask(cmd("GET").arg(name)).await }
    });
    let mut markers = Markers::default();
    for (bucket, answer) in (0..BUCKETS).zip(join_all(asked).await) {
        match answer? {
            Value::Nil => markers.missing.push(bucket),
            marker => *markers.seen.entry(text(&marker)).or_default() += 1,
        }
    }
    Ok(markers)
}

/// Writes the marker of these buckets, where there is none, and begins their indexes.
pub(super) async fn mark(
    pipe: &Pipe,
    names: &Names,
    marker: &str,
    buckets: &[u16],
) -> Result<(), RedisError> {
    let asked = buckets.iter().map(|&bucket| {
        let (mut pipe, keys) = (pipe.clone(), [names.marker(bucket), names.index(bucket)]);
        async move { pipe.run(&MARK, &keys, &[marker.as_bytes()]).await }
    });
    join_all(asked).await.into_iter().try_for_each(|answer| answer.map(drop))
}

/// Marks an empty server as holding a store that begins now; the marker. Of several that do so at once one is elected:
/// parts of two stores must not mix. What was cut short is known, and finished by whoever comes next.
pub(super) async fn begin(pipe: &mut Pipe, names: &Names, id: u64, now: UnixTime) -> Result<String, Unfit> {
    let ours = new_marker(id.to_be_bytes(), now);
    let mut elect = cmd("SET");
    elect.arg(names.beginning()).arg(&ours).arg("NX").arg("GET");
    let elected = match pipe.ask(&elect).await? {
        Value::Nil => ours,
        other => text(&other),
    };
    let all: Vec<u16> = (0..BUCKETS).collect();
    mark(pipe, names, &elected, &all).await?;
    let marker = markers(pipe, names).await?.only()?.to_owned();
    pipe.ask(cmd("DEL").arg(names.beginning())).await?;
    Ok(marker)
}

/// The marker of a beginning that was cut short; or of one that goes on elsewhere at this moment.
pub(super) async fn beginning(pipe: &mut Pipe, names: &Names) -> Result<Option<String>, RedisError> {
    match pipe.ask(cmd("GET").arg(names.beginning())).await? {
        Value::Nil => Ok(None),
        marker => Ok(Some(text(&marker))),
    }
}

/// The server keys that rows may still stand under at `now`, of those that are not listed.
pub(super) async fn missing_key(
    pipe: &mut Pipe,
    names: &Names,
    listed: &[KeyId],
    now: UnixTime,
) -> Result<Option<KeyId>, RedisError> {
    let noted = pipe.ask(cmd("HGETALL").arg(names.server_keys())).await?;
    let pairs = noted.into_map_iter().map(Vec::from_iter).unwrap_or_default();
    let needed = pairs.iter().filter_map(|(id, until)| {
        let Value::BulkString(id) = id else { return None };
        let until = text(until).parse().ok().map(UnixTime::from_millis)?;
        Some((KeyId(id.as_slice().try_into().ok()?), until))
    });
    Ok(needed.filter(|(id, until)| *until > now && !listed.contains(id)).map(|(id, _)| id).next())
}

/// Notes that rows are sealed under the first of `keys` for `length`, unless rows may stand under a key that is not
/// listed: then which.
pub(super) async fn note_own_key(
    pipe: &mut Pipe,
    names: &Names,
    keys: &[KeyId],
    now: &[u8],
    length: Duration,
) -> Result<Option<KeyId>, RedisError> {
    if keys.is_empty() {
        return Ok(None);
    }
    let length = length.as_millis().to_string();
    let mut args: Vec<&[u8]> = vec![now, length.as_bytes()];
    args.extend(keys.iter().map(|key| &key.0[..]));
    match pipe.run(&JOIN, &[names.server_keys()], &args).await? {
        Value::Array(missing) => Ok(missing.first().and_then(|id| match id {
            Value::BulkString(id) => Some(KeyId(id.as_slice().try_into().ok()?)),
            _ => None,
        })),
        _ => Ok(None),
    }
}

/// How far a copy into this store has come, if one is unfinished.
pub(super) async fn copying(pipe: &mut Pipe, names: &Names) -> Result<Option<Mark>, RedisError> {
    let value = pipe.ask(cmd("GET").arg(names.copying())).await?;
    if value == Value::Nil {
        return Ok(None);
    }
    let text = text(&value);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default().to_owned();
    let (after, id, shown) = (line(), line(), line());
    let after = u128::from_str_radix(&after, 16).ok().map(|key| RowKey(key.to_be_bytes()));
    Ok(Some(Mark { from: Origin { id, shown }, after }))
}

/// The same as text.
pub(super) fn copying_text(mark: &Mark) -> String {
    let after = mark.after.map(|key| key.to_string()).unwrap_or_default();
    format!("{after}\n{}\n{}", mark.from.id, mark.from.shown)
}

/// What is said of a store that is half a copy.
pub(super) fn half_a_copy(from: &str) -> String {
    format!("it holds an unfinished copy of {from}: run `tempalias db copy` again to finish it")
}

/// No half copy is served.
pub(super) async fn refuse_half_a_copy(pipe: &mut Pipe, names: &Names) -> Result<(), Unfit> {
    match copying(pipe, names).await? {
        None => Ok(()),
        Some(mark) => Err(Unfit::Wrong(half_a_copy(&mark.from.shown))),
    }
}

/// The server's time.
pub(super) async fn time(pipe: &mut Pipe, names: &Names) -> Result<UnixTime, RedisError> {
    // A script with a key, so that a Cluster knows whom to ask.
    let mut ask = cmd("EVAL");
    let script =
        "local t = redis.call('TIME') return string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))";
    ask.arg(script).arg(1).arg(names.server_keys());
    let millis = text(&pipe.ask(&ask).await?);
    Ok(UnixTime::from_millis(millis.parse().unwrap_or_default()))
}

/// A value as text, whatever the protocol calls it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        Value::Okay => "OK".to_owned(),
        Value::Int(number) => number.to_string(),
        _ => String::new(),
    }
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

    #[test]
    fn markers_agree_or_are_told_apart() {
        let marker = new_marker([7; 8], UnixTime::from_secs(1_000));
        assert_eq!((check_format(&marker), adopted_at(&marker)), (Ok(&*marker), UnixTime::from_secs(1_000)));
        let all = |seen: &[(&str, u16)], missing: Vec<u16>| Markers {
            seen: seen.iter().map(|(marker, count)| ((*marker).to_owned(), *count)).collect(),
            missing,
        };
        assert_eq!(all(&[], vec![0]).only(), Err(Unfit::Empty));
        assert_eq!(all(&[(&marker, 1)], vec![0]).only(), Ok(&*marker));
        assert!(matches!(all(&[(&marker, 1), ("2 ff 9", 1)], vec![]).only(), Err(Unfit::Wrong(_))));
        assert!(matches!(all(&[("3 ff 9", 1)], vec![]).only(), Err(Unfit::Wrong(_))));
        assert_eq!(all(&[(&marker, BUCKETS)], vec![]).fault(&marker), None);
        assert!(all(&[(&marker, 1000)], vec![1, 2]).fault(&marker).unwrap().starts_with("2 of 1024"));
        assert!(all(&[("2 ff 9", 1024)], vec![]).fault(&marker).unwrap().starts_with("1024 of 1024"));
    }
}
