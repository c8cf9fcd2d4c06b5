//! Waiting for replicas, where it is configured (`store.wait_replicas`): what counts as durable then is what that many
//! replicas have.
//!
//! WAIT holds up whatever comes behind it on the same connection, and speaks only of what that connection wrote. So
//! calls that wait have connections of their own, and the write and its WAIT leave in one piece: a Cluster's client makes
//! connections anew without a word, and asks any server at all if it has no connection to the right one. Alone, a WAIT
//! there would say yes to what it never saw. A call that is repeated must write again for the same reason; the scripts
//! that are waited for do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use redis::{RedisError, Value};

use super::connect::Target;
use super::fault::Fault;
use super::link::{self, Pipe, Pipes};
use super::{Core, RedisOptions, scan};
use crate::StoreError;

/// How long a call waits for replicas.
pub(super) const PATIENCE: Duration = Duration::from_millis(800);
/// After too few replicas of a master had something in time, one call in so long tries whether there are more by now, and
/// the others are refused: waits queue up behind one another on their connections, and would be asked for faster than
/// they end.
const PAUSE: Duration = Duration::from_millis(500);
/// Connections for calls that wait: that many may wait at once.
const WAITING: usize = 16;

/// Connections whose calls wait for replicas; none where nothing waits.
#[derive(Clone)]
pub(super) struct Waiting {
    pipes: Arc<[Pipe]>,
    masters: Arc<[Master]>,
}

/// A server whose replicas are waited for.
struct Master {
    /// The hash slots that it has: from and to.
    slots: Vec<(u16, u16)>,
    /// When a call last met too few of its replicas, and what it was told; none: there are enough, as far as is known.
    too_few: Mutex<Option<(Instant, StoreError)>>,
}

impl Waiting {
    /// The connection for the part of the store with this number.
    pub(super) fn pipe(&self, part: u16) -> Option<Pipe> {
        let count = self.pipes.len().max(1);
        self.pipes.get(usize::from(part) % count).cloned()
    }

    fn master_of(&self, key: &str) -> Option<&Master> {
        let slot = link::slot(key);
        self.masters
            .iter()
            .find(|master| master.slots.iter().any(|&(first, last)| (first..=last).contains(&slot)))
    }

    /// What a call that would write `key` and wait is told without being tried.
    fn refusal(&self, key: &str) -> Option<StoreError> {
        let mut too_few = self.master_of(key)?.too_few.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *too_few {
            Some((tried, _)) if tried.elapsed() >= PAUSE => {
                // This one tries.
                *tried = Instant::now();
                None
            }
            known => known.as_ref().map(|(_, error)| error.clone()),
        }
    }

    fn note(&self, key: &str, too_few: Option<StoreError>) {
        if let Some(master) = self.master_of(key) {
            let too_few = too_few.map(|error| (Instant::now(), error));
            *master.too_few.lock().unwrap_or_else(PoisonError::into_inner) = too_few;
        }
    }
}

pub(super) async fn connect(target: &Target, options: &RedisOptions) -> Result<Waiting, RedisError> {
    if options.wait_replicas == 0 {
        return Ok(Waiting { pipes: Arc::default(), masters: Arc::default() });
    }
    let mut pipes = try_join_all((0..WAITING).map(|_| target.connect())).await?;
    let mut masters = BTreeMap::<String, Vec<(u16, u16)>>::new();
    match pipes.first_mut() {
        Some(pipe @ Pipe::Cluster(_)) => {
            for (first, last, master) in scan::slots(pipe).await? {
                masters.entry(master).or_default().push((first, last));
            }
        }
        _ => masters.entry(String::new()).or_default().push((0, u16::MAX)),
    }
    let masters = masters.into_values().map(|slots| Master { slots, too_few: Mutex::default() });
    Ok(Waiting { pipes: pipes.into(), masters: masters.collect() })
}

/// An answer, and whether what was written for it is durable. Not every answer comes with a write, so the caller says
/// whether it must be.
#[must_use]
pub(super) struct Answered {
    pub(super) value: Value,
    pub(super) is_durable: bool,
}

impl Core {
    /// Before `key` is written, which would have to wait: whether waiting makes sense.
    pub(super) fn expect_replicas(&self, key: &str) -> Result<(), StoreError> {
        let (pipes, _) = self.link.pipes()?;
        pipes.waiting.refusal(key).map_or(Ok(()), Err)
    }

    /// What is not durable does not count.
    pub(super) fn require(&self, is_durable: bool) -> Result<(), StoreError> {
        if is_durable {
            return Ok(());
        }
        let error = self.too_few();
        self.link.complain(&error);
        Err(error)
    }

    fn too_few(&self) -> StoreError {
        let wanted = self.options.wait_replicas;
        StoreError::Failed(format!(
            "fewer than {wanted} replicas follow, and store.wait_replicas asks for them"
        ))
    }

    /// What became of a call on `pipes` that wrote `key` and waited.
    pub(super) fn waited(
        &self,
        (pipes, generation): (&Pipes, u64),
        key: &str,
        answer: Result<(Value, i64), RedisError>,
    ) -> Result<Answered, Fault> {
        match &answer {
            Ok((_, replicas)) if *replicas >= i64::from(self.options.wait_replicas) => {
                pipes.waiting.note(key, None);
            }
            Ok(_) => pipes.waiting.note(key, Some(self.too_few())),
            // Others' waits are before it, or the server hangs.
            Err(error) if error.is_timeout() => pipes.waiting.note(key, Some(StoreError::Timeout)),
            // Says nothing about replicas.
            Err(_) => {}
        }
        let (value, replicas) = self.link.judge_behind_waits(generation, answer)?;
        Ok(Answered { value, is_durable: replicas >= i64::from(self.options.wait_replicas) })
    }

    /// For `/readyz`, whether as many replicas as configured follow: writes, and waits for them.
    pub(super) async fn check_replicas(&self, part: u16) -> Result<(), StoreError> {
        let (pipes, generation) = self.link.pipes()?;
        let Some(mut pipe) = pipes.waiting.pipe(part) else { return Ok(()) };
        let probe = self.names.probe(part);
        let mut write = redis::cmd("SET");
        write.arg(&probe).arg("replicas");
        let written = pipe.ask_and_wait(write, &probe, self.options.wait_replicas).await;
        self.require(self.waited((&pipes, generation), &probe, written)?.is_durable)
    }
}
