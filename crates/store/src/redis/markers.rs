//! The markers: one in every bucket says which store its rows belong to. Where it is missing nothing is known of any
//! alias, so a server that came back empty, or another one, is told from one that has no such alias
//! (docs/decisions/022).

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{RedisError, Value, cmd};
use tempalias_alias::UnixTime;

use super::greet::{self, Unfit, check_server};
use super::keys::{BUCKETS, Hex, Names};
use super::link::Pipe;
use super::reply::text;
use super::script::{MARK, OVER, REMARK, UNMARK};

/// Format of what is stored, in every marker.
const FORMAT: &str = "2";
/// What stands in the place of a marker where keys were thrown away.
const EVICTED: &str = "evicted";
/// How long a beginning may take. One that was cut short is finished by whoever comes next within this time; later a part
/// without a marker counts as lost, whatever the reason, and `db adopt` finishes it.
const BEGINNING_LASTS: Duration = Duration::from_mins(10);

/// What the markers of all buckets say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Markers {
    /// Each different marker, and how many buckets have it.
    pub(super) seen: BTreeMap<String, u16>,
    /// Buckets without one.
    pub(super) missing: Vec<u16>,
    /// How many of them have none because keys were thrown away.
    pub(super) evicted: u16,
    /// Buckets with one whose index of rows is gone: nothing is known there of a row that is not found.
    pub(super) unlisted: Vec<u16>,
}

impl Markers {
    /// The one marker, if there is only one.
    pub(super) fn only(&self) -> Result<&str, Unfit> {
        let mut seen = self.seen.keys();
        match (seen.next(), seen.next()) {
            (None, _) if self.evicted > 0 => Err(Unfit::Evicted),
            (None, _) => Err(Unfit::Empty),
            (Some(marker), None) => check_format(marker),
            (Some(_), Some(_)) => Err(Unfit::Wrong(
                "parts of two stores are mixed on this server: give each a store.namespace of its own, or restore \
                 the server from one copy"
                    .to_owned(),
            )),
        }
    }

    /// Whether all of them, of however many stores, are of the format that this version knows.
    pub(super) fn check_formats(&self) -> Result<(), Unfit> {
        self.seen.keys().try_for_each(|marker| check_format(marker).map(drop))
    }

    /// For operators; none: all is well.
    pub(super) fn fault(&self, marker: &str) -> Option<String> {
        if self.evicted > 0 {
            return Some(greet::EVICTED.to_owned());
        }
        let wrong: u16 = self.seen.iter().filter(|(seen, _)| *seen != marker).map(|(_, count)| count).sum();
        let missing = self.missing.len() + self.unlisted.len() + usize::from(wrong);
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

/// A new marker for a store that begins, is adopted, or is copied into, now.
pub(super) fn new_marker(id: [u8; 8], now: UnixTime) -> String {
    format!("{FORMAT} {} {}", Hex(&id), now.millis())
}

/// When the store of this marker was adopted.
pub(super) fn adopted_at(marker: &str) -> UnixTime {
    UnixTime::from_millis(marker.rsplit(' ').next().and_then(|at| at.parse().ok()).unwrap_or_default())
}

/// Reads the marker of every bucket, and whether its index begins with the empty name that was put there with it.
pub(super) async fn read(pipe: &Pipe, names: &Names) -> Result<Markers, RedisError> {
    let asked = (0..BUCKETS).map(|bucket| {
        let (mut to_marker, mut to_index) = (pipe.clone(), pipe.clone());
        let (mut marker, mut first) = (cmd("GET"), cmd("ZSCORE"));
        marker.arg(names.marker(bucket));
        first.arg(names.index(bucket)).arg("");
        async move { tokio::try_join!(to_marker.ask(&marker), to_index.ask(&first)) }
    });
    let mut markers = Markers::default();
    for (bucket, answers) in (0..BUCKETS).zip(join_all(asked).await) {
        match answers? {
            (Value::Nil, _) => markers.missing.push(bucket),
            (word, _) if text(&word) == EVICTED => {
                markers.missing.push(bucket);
                markers.evicted += 1;
            }
            (marker, first) => {
                *markers.seen.entry(text(&marker)).or_default() += 1;
                if first == Value::Nil {
                    markers.unlisted.push(bucket);
                }
            }
        }
    }
    Ok(markers)
}

/// What a marker may be written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepts {
    /// Only where nothing stands.
    Nothing,
    /// And where keys were thrown away: an operator says that what is missing may be missing.
    Evictions,
}

/// Writes the marker of these buckets, where there is none, and begins their indexes.
pub(super) async fn mark(
    pipe: &Pipe,
    names: &Names,
    marker: &str,
    buckets: &[u16],
    accepts: Accepts,
) -> Result<(), RedisError> {
    let over = match accepts {
        Accepts::Nothing => "",
        Accepts::Evictions => EVICTED,
    };
    let asked = buckets.iter().map(|&bucket| {
        let (mut pipe, keys) = (pipe.clone(), [names.marker(bucket), names.index(bucket)]);
        async move { pipe.run(&MARK, &keys, &[marker.as_bytes(), over.as_bytes()]).await }
    });
    join_all(asked).await.into_iter().try_for_each(|answer| answer.map(drop))
}

/// Whether an index may be without the empty name that stands before all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    /// It begins.
    Begins,
    /// It would have been lost.
    IsThere,
}

/// Puts `marker` in place of the markers that were seen, in all buckets; whether it stands in all of them then.
pub(super) async fn remark(
    pipe: &Pipe,
    names: &Names,
    marker: &str,
    seen: &Markers,
    index: Index,
) -> Result<bool, RedisError> {
    let word: &[u8] = match index {
        Index::Begins => b"begin",
        Index::IsThere => b"end",
    };
    let mut args = vec![marker.as_bytes(), word];
    args.extend(seen.seen.keys().map(String::as_bytes));
    args.extend((seen.missing.len() > usize::from(seen.evicted)).then_some(&b""[..]));
    args.extend((seen.evicted > 0).then_some(EVICTED.as_bytes()));
    let args = &args;
    let asked = (0..BUCKETS).map(|bucket| {
        let (mut pipe, keys) = (pipe.clone(), [names.marker(bucket), names.index(bucket)]);
        async move { pipe.run(&REMARK, &keys, args).await }
    });
    let mut is_everywhere = true;
    for answer in join_all(asked).await {
        is_everywhere &= text(&answer?) == marker;
    }
    Ok(is_everywhere)
}

/// Marks an empty server as holding a store that begins now; the marker. What was cut short is known, and finished by
/// whoever comes next.
pub(super) async fn begin(
    pipe: &mut Pipe,
    names: &Names,
    id: u64,
    now: UnixTime,
    accepts: Accepts,
) -> Result<String, Unfit> {
    let elected = elect(pipe, names, id, now).await?;
    let all: Vec<u16> = (0..BUCKETS).collect();
    mark(pipe, names, &elected, &all, accepts).await?;
    let marker = read(pipe, names).await?.only()?.to_owned();
    is_over(pipe, names, &marker).await?;
    Ok(marker)
}

/// The marker that an empty server gets. Of several who begin at once one is elected: parts of two stores must not mix.
pub(super) async fn elect(
    pipe: &mut Pipe,
    names: &Names,
    id: u64,
    now: UnixTime,
) -> Result<String, RedisError> {
    let ours = new_marker(id.to_be_bytes(), now);
    let mut elect = cmd("SET");
    elect.arg(names.beginning()).arg(&ours).arg("NX").arg("GET");
    elect.arg("PX").arg(u64::try_from(BEGINNING_LASTS.as_millis()).unwrap_or(u64::MAX));
    Ok(match pipe.ask(&elect).await? {
        Value::Nil => ours,
        other => text(&other),
    })
}

/// The elected marker stands in all buckets, or must not be written any more: this beginning is over.
pub(super) async fn is_over(pipe: &mut Pipe, names: &Names, marker: &str) -> Result<(), RedisError> {
    pipe.run(&OVER, &[names.beginning()], &[marker.as_bytes()]).await.map(drop)
}

/// The marker of a beginning that was cut short; or of one that goes on elsewhere at this moment.
pub(super) async fn beginning(pipe: &mut Pipe, names: &Names) -> Result<Option<String>, RedisError> {
    match pipe.ask(cmd("GET").arg(names.beginning())).await? {
        Value::Nil => Ok(None),
        marker => Ok(Some(text(&marker))),
    }
}

/// Takes the markers away, and writes why: from now on nothing is known of any alias, on whatever node, until somebody
/// adopts what is left. Not those of somebody who adopts it at this moment: the markers are read first, and then once
/// more whether anything was thrown away.
pub(super) async fn distrust(pipe: &mut Pipe, names: &Names, is_cluster: bool) -> Result<(), Unfit> {
    let seen = read(pipe, names).await?;
    let begun = beginning(pipe, names).await?;
    if check_server(pipe, is_cluster).await?.evicted == 0 {
        return Ok(());
    }
    // First of all: whoever met it would write the markers anew.
    if let Some(begun) = begun {
        is_over(pipe, names, &begun).await?;
    }
    for marker in seen.seen.keys() {
        let asked = (0..BUCKETS).map(|bucket| {
            let (mut pipe, name) = (pipe.clone(), names.marker(bucket));
            async move { pipe.run(&UNMARK, &[name], &[marker.as_bytes(), EVICTED.as_bytes()]).await }
        });
        join_all(asked).await.into_iter().try_for_each(|answer| answer.map(drop))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_agree_or_are_told_apart() {
        let marker = new_marker([7; 8], UnixTime::from_secs(1_000));
        assert_eq!((check_format(&marker), adopted_at(&marker)), (Ok(&*marker), UnixTime::from_secs(1_000)));
        let all = |seen: &[(&str, u16)], missing: Vec<u16>| Markers {
            seen: seen.iter().map(|(marker, count)| ((*marker).to_owned(), *count)).collect(),
            missing,
            ..Markers::default()
        };
        assert_eq!(all(&[], vec![0]).only(), Err(Unfit::Empty));
        let evicted = Markers { evicted: 1, ..all(&[], vec![0]) };
        assert_eq!(evicted.only(), Err(Unfit::Evicted));
        assert!(evicted.fault(&marker).unwrap().contains("thrown keys away"));
        assert_eq!(all(&[(&marker, 1)], vec![0]).only(), Ok(&*marker));
        assert!(matches!(all(&[(&marker, 1), ("2 ff 9", 1)], vec![]).only(), Err(Unfit::Wrong(_))));
        assert!(matches!(all(&[("3 ff 9", 1)], vec![]).only(), Err(Unfit::Wrong(_))));
        assert_eq!(all(&[(&marker, BUCKETS)], vec![]).fault(&marker), None);
        let unlisted = Markers { unlisted: vec![3], ..all(&[(&marker, BUCKETS)], vec![]) };
        assert!(unlisted.fault(&marker).unwrap().starts_with("1 of 1024"));
        assert!(all(&[(&marker, 1000)], vec![1, 2]).fault(&marker).unwrap().starts_with("2 of 1024"));
        assert!(all(&[("2 ff 9", 1024)], vec![]).fault(&marker).unwrap().starts_with("1024 of 1024"));
    }
}
