//! A store on Redis opened for a copy: no lease, no task in the background; a call that fails is asked again for a
//! while, because nothing here does any harm the second time. A store that is copied into has the run's own marker, so
//! that a run which was overtaken by another finds every bucket shut.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use redis::{RedisError, Value, cmd};
use tempalias_alias::{KeyId, RowKey, UnixTime};
use tokio::sync::Mutex;

use super::RedisOptions;
use super::connect::Target;
use super::copying::Standing;
use super::fault;
use super::keys::{BUCKETS, Names, bucket_of};
use super::link::Pipe;
use super::reply::{self, Fields, claim_text, nonsense, or_empty, state_number};
use super::rows::{millis, need_until};
use super::scan;
use super::script::{BRING, NEED, PAGE, Script, WHOLE};
use super::{clock, copying, markers};
use crate::StoreError;
use crate::copy::{CopyError, Mark, Origin, Page, Row};

mod asides;
mod opening;

/// Rows in one page.
const ROWS: usize = 500;
/// Calls on their way at once: each must be answered in time, on a slow line, too.
const AT_ONCE: usize = 64;
/// Buckets asked at once.
const BUCKETS_AT_ONCE: u16 = 64;
/// How long a call is tried: a server that restarts or fails over is back by then.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// A store on Redis, for a copy.
pub(crate) struct RedisOffline {
    options: RedisOptions,
    target: Target,
    names: Names,
    /// Of every bucket; in a store that is copied into the mark has it, too: it is the name of this run.
    marker: String,
    origin: Origin,
    /// Whether it is being copied into: what is missing then is found by comparing, and copied again.
    is_target: bool,
    pipe: Mutex<Pipe>,
}

impl fmt::Debug for RedisOffline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisOffline({})", self.origin.shown)
    }
}

impl RedisOffline {
    fn of(options: RedisOptions, target: Target, marker: String, pipe: Pipe, is_target: bool) -> Self {
        let shown = options.address.to_string();
        let names = Names::new(&options.namespace);
        let origin = Origin { id: id_of(&marker), shown };
        Self { options, target, names, marker, origin, is_target, pipe: Mutex::new(pipe) }
    }

    async fn refuse_if_served(&self) -> Result<(), CopyError> {
        let store = self.origin.shown.clone();
        match self.served_by().await {
            Ok(None) => Ok(()),
            Ok(Some(node)) => Err(CopyError::Served { store, node }),
            Err(why) => Err(CopyError::Store { store, why }),
        }
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Tries until it works, on a new connection each time.
    async fn insist<T>(&self, todo: impl AsyncFn(Pipe) -> Result<T, RedisError>) -> Result<T, StoreError> {
        let begun = Instant::now();
        loop {
            let pipe = self.pipe.lock().await.clone();
            let error = match todo(pipe).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !fault::passes(&error) || begun.elapsed() > PATIENCE {
                return Err(fault::in_store_words(&error));
            }
            tokio::time::sleep(PAUSE).await;
            if let Ok(fresh) = self.target.connect().await {
                *self.pipe.lock().await = fresh;
            }
        }
    }

    /// A script in a bucket: `keys` come behind the marker's, `args` behind what it must say and the time.
    async fn run_in(
        &self,
        mut pipe: Pipe,
        script: &Script,
        bucket: u16,
        keys: Vec<String>,
        args: &[&[u8]],
    ) -> Result<Value, RedisError> {
        let time = clock::given(&self.options);
        let keys = [vec![self.names.marker(bucket)], keys].concat();
        pipe.run(script, &keys, &[&[self.marker.as_bytes(), &time], args].concat()).await
    }

    pub(crate) async fn now(&self) -> Result<UnixTime, StoreError> {
        self.insist(async |mut pipe| clock::ask(&self.options, &mut pipe, &self.names).await).await
    }

    /// The node whose lease holds, if any does.
    pub(crate) async fn served_by(&self) -> Result<Option<String>, StoreError> {
        self.insist(async |mut pipe| {
            let mut leases = Vec::new();
            scan::all(&mut pipe, &self.names.leases(), |key| leases.push(key)).await?;
            for lease in leases {
                let node = pipe.ask(cmd("GET").arg(lease)).await?;
                if node != Value::Nil {
                    return Ok(Some(reply::text(&node)));
                }
            }
            Ok(None)
        })
        .await
    }

    pub(crate) async fn count(&self) -> Result<u64, StoreError> {
        self.insist(async |pipe| {
            let counts = try_join_all((0..BUCKETS).map(|bucket| {
                let (mut pipe, index) = (pipe.clone(), self.names.index(bucket));
                async move { pipe.ask(cmd("ZLEXCOUNT").arg(index).arg("(").arg("+")).await }
            }));
            let counts = counts.await?;
            Ok(counts.iter().filter_map(|count| reply::text(count).parse::<u64>().ok()).sum())
        })
        .await
    }

    pub(crate) async fn page(&self, after: Option<RowKey>) -> Result<Page, StoreError> {
        let (keys, end) = self.keys(after, None, ROWS).await?;
        let answers = self
            .insist(async |pipe| {
                gently(keys.iter().map(|&key| {
                    let bucket = bucket_of(key);
                    let mut keys = vec![self.names.row(key), self.names.claims(key)];
                    if !self.is_target {
                        keys.push(self.names.index(bucket));
                    }
                    self.run_in(pipe.clone(), &WHOLE, bucket, keys, &[])
                }))
                .await
            })
            .await?;
        // The latest of all clocks that were asked.
        let mut now = self.now().await?;
        let mut rows = Vec::with_capacity(keys.len());
        for (key, answer) in keys.into_iter().zip(answers) {
            let (told, row) = reply::whole(key, answer)?;
            now = now.max(told);
            rows.extend(row);
        }
        Ok(Page { rows, end, now })
    }

    /// Row keys in order, after `after` and up to `until`; and the last of them if there may be more.
    async fn keys(
        &self,
        after: Option<RowKey>,
        until: Option<RowKey>,
        limit: usize,
    ) -> Result<(Vec<RowKey>, Option<RowKey>), StoreError> {
        let mut keys = Vec::new();
        let mut bucket = after.map_or(0, bucket_of);
        let last = until.map_or(BUCKETS - 1, bucket_of);
        while bucket <= last && keys.len() < limit {
            let next = (bucket + BUCKETS_AT_ONCE).min(last + 1);
            let pages = self
                .insist(async |pipe| {
                    try_join_all(
                        (bucket..next).map(|bucket| self.keys_of(pipe.clone(), bucket, after, limit)),
                    )
                    .await
                })
                .await?;
            for page in pages {
                let mut fields = Fields::of(page)?;
                while !fields.is_empty() {
                    keys.push(RowKey(fields.exactly().map_err(|_| nonsense())?));
                }
            }
            bucket = next;
        }
        keys.retain(|key| until.is_none_or(|until| *key <= until));
        keys.truncate(limit);
        let end = if keys.len() < limit { None } else { keys.last().copied() };
        Ok((keys, end))
    }

    async fn keys_of(
        &self,
        pipe: Pipe,
        bucket: u16,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Value, RedisError> {
        let from = match after {
            Some(after) if bucket_of(after) == bucket => [b"(", &after.0[..]].concat(),
            // Behind the empty name, which is no row.
            _ => b"(".to_vec(),
        };
        let limit = limit.to_string();
        self.run_in(pipe, &PAGE, bucket, vec![self.names.index(bucket)], &[&from, limit.as_bytes()]).await
    }

    pub(crate) async fn put(
        &self,
        (after, end): (Option<RowKey>, Option<RowKey>),
        rows: Vec<Row>,
        mark: &Mark,
    ) -> Result<(), StoreError> {
        self.note_keys(&rows).await?;
        let mut range_after = after;
        loop {
            let (there, more) = self.keys(range_after, end, ROWS).await?;
            let gone = there.iter().filter(|key| rows.binary_search_by_key(key, |row| &row.key).is_err());
            let gone: Vec<RowKey> = gone.copied().collect();
            self.bring(gone.iter().map(|key| (*key, Vec::new()))).await?;
            match more {
                Some(last) => range_after = Some(last),
                None => break,
            }
        }
        for some in rows.chunks(ROWS) {
            self.bring(some.iter().map(|row| (row.key, fields_of(row)))).await?;
        }
        self.mark(mark).await
    }

    async fn bring(&self, rows: impl Iterator<Item = (RowKey, Vec<Vec<u8>>)>) -> Result<(), StoreError> {
        let rows: Vec<_> = rows.collect();
        self.insist(async |pipe| {
            gently(rows.iter().map(async |(key, fields)| {
                let bucket = bucket_of(*key);
                let keys = vec![self.names.row(*key), self.names.claims(*key), self.names.index(bucket)];
                let mut args: Vec<&[u8]> = vec![&key.0];
                args.extend(fields.iter().map(Vec::as_slice));
                self.run_in(pipe.clone(), &BRING, bucket, keys, &args).await
            }))
            .await
            .map(drop)
        })
        .await
    }

    /// Before the rows: a node must not start without the keys that they need.
    async fn note_keys(&self, rows: &[Row]) -> Result<(), StoreError> {
        let mut needed: BTreeMap<KeyId, UnixTime> = BTreeMap::new();
        for row in rows {
            let until = need_until(row.needs_key_until());
            let noted = needed.entry(row.key_id).or_insert(until);
            *noted = (*noted).max(until);
        }
        for (id, until) in needed {
            let until = millis(Some(until));
            self.insist(async |mut pipe| {
                pipe.run(&NEED, &[self.names.server_keys()], &[&id.0, &until]).await
            })
            .await?;
        }
        Ok(())
    }

    pub(crate) async fn mark(&self, mark: &Mark) -> Result<(), StoreError> {
        let ours = Standing { mark: mark.clone(), run: self.marker.clone(), is_begun: true };
        self.insist(async |mut pipe| copying::note(&mut pipe, &self.names, &ours).await).await
    }

    /// Whether the target is still this run's.
    async fn is_ours(&self) -> Result<bool, StoreError> {
        let standing = self.insist(async |mut pipe| copying::read(&mut pipe, &self.names).await).await?;
        Ok(standing.is_some_and(|standing| standing.run == self.marker))
    }

    /// Whether another run of the copy has claimed the target since, or has finished it. No, if that is not known.
    pub(crate) async fn is_overtaken(&self) -> bool {
        let mut pipe = self.pipe.lock().await.clone();
        match copying::read(&mut pipe, &self.names).await {
            Ok(Some(standing)) => standing.run != self.marker,
            // A server that came back empty has no marker, either.
            Ok(None) => {
                let marker = pipe.ask(cmd("GET").arg(self.names.marker(0))).await;
                marker.is_ok_and(|marker| marker != Value::Nil && reply::text(&marker) != self.marker)
            }
            Err(_) => false,
        }
    }

    /// The store gets its last marker, then the mark goes. A run that was overtaken in between changes nothing: its own
    /// marker is in no bucket any more, its name not in the mark.
    pub(crate) async fn finish(&self) -> Result<(), StoreError> {
        let last = markers::new_marker((self.options.draw)().to_be_bytes(), self.now().await?);
        let ours = markers::Markers { seen: [(self.marker.clone(), BUCKETS)].into(), ..Default::default() };
        let is_everywhere = self.insist(async |pipe| {
            markers::remark(&pipe, &self.names, &last, &ours, markers::Index::IsThere).await
        });
        if !is_everywhere.await? {
            return Err(overtaken());
        }
        let there_was_one =
            self.insist(async |mut pipe| copying::end(&mut pipe, &self.names, &self.marker).await).await?;
        // The answer to our own word may have been lost; then the marker is ours, too.
        let marker = self.insist(async |mut pipe| pipe.ask(cmd("GET").arg(self.names.marker(0))).await);
        if there_was_one || reply::text(&marker.await?) == last { Ok(()) } else { Err(overtaken()) }
    }
}

/// The same for the same store, however it is reached.
fn id_of(marker: &str) -> String {
    format!("redis {marker}")
}

fn overtaken() -> StoreError {
    StoreError::Failed("another run of the same copy has taken over".to_owned())
}

/// A row as `bring.lua` takes it.
fn fields_of(row: &Row) -> Vec<Vec<u8>> {
    let mut fields = vec![
        state_number(row.state).as_bytes().to_vec(),
        row.used.to_string().into_bytes(),
        row.key_id.0.to_vec(),
        or_empty(row.limits.max_usage),
        millis(row.limits.valid_from),
        millis(row.limits.valid_until),
        millis(Some(row.created)),
        millis(row.goes),
        row.sealed.0.to_vec(),
        millis(row.kept.iter().map(|kept| kept.until).max()),
    ];
    for kept in &row.kept {
        fields.push(kept.fingerprint.0.to_vec());
        fields.push(claim_text(kept).into_bytes());
    }
    fields
}

/// All answers in order, some calls at a time.
async fn gently<T>(
    calls: impl Iterator<Item = impl Future<Output = Result<T, RedisError>>>,
) -> Result<Vec<T>, RedisError> {
    stream::iter(calls).buffered(AT_ONCE).try_collect().await
}
