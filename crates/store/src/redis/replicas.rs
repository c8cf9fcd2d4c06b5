//! Waiting for replicas, where it is configured (`store.wait_replicas`): what counts as durable then is what that many
//! replicas have.
//!
//! WAIT holds up whatever comes behind it on the same connection, and speaks only of what that connection wrote. So
//! calls that wait have connections of their own, and the write and its WAIT leave in one piece: a Cluster's client makes
//! connections anew without a word, and asks any server at all if it has no connection to the right one. Alone, a WAIT
//! there would say yes to what it never saw. A call that is repeated must write again for the same reason; the scripts
//! that are waited for do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{RedisError, Value};

use super::fault::Fault;
use super::link::{Pipe, Target};
use super::{Core, RedisOptions};
use crate::StoreError;

/// How long a call waits for replicas.
pub(super) const PATIENCE: Duration = Duration::from_millis(800);
/// After too few replicas had something in time, one call in so long tries whether there are more by now, and the others
/// are refused: waits queue up behind one another on their connections, and would be asked for faster than they end.
const PAUSE: Duration = Duration::from_millis(500);
/// Connections for calls that wait: that many may wait at once.
const WAITING: usize = 16;

/// Connections whose calls wait for replicas; none where nothing waits.
#[derive(Clone)]
pub(super) struct Waiting {
    pipes: Arc<[Pipe]>,
}

impl Waiting {
    /// The connection for the part of the store with this number.
    pub(super) fn pipe(&self, part: u16) -> Option<Pipe> {
        let count = self.pipes.len().max(1);
        self.pipes.get(usize::from(part) % count).cloned()
    }
}

pub(super) async fn connect(target: &Target, options: &RedisOptions) -> Result<Waiting, RedisError> {
    let mut pipes = Vec::new();
    if options.wait_replicas > 0 {
        for _ in 0..WAITING {
            pipes.push(target.connect().await?);
        }
    }
    Ok(Waiting { pipes: pipes.into() })
}

/// An answer, and whether what was written for it is durable. Not every answer comes with a write, so the caller says
/// whether it must be.
#[must_use]
pub(super) struct Answered {
    pub(super) value: Value,
    pub(super) is_durable: bool,
}

/// Whether too few replicas follow, and since when nobody has tried.
#[derive(Debug, Default)]
pub(super) struct TooFew(Mutex<Option<Instant>>);

impl TooFew {
    fn set(&self, are_too_few: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = are_too_few.then(Instant::now);
    }

    /// Whether a call should not be tried. If it should, it is the only one for now.
    fn refuses(&self) -> bool {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *since {
            Some(tried) if tried.elapsed() >= PAUSE => {
                *tried = Instant::now();
                false
            }
            known => known.is_some(),
        }
    }
}

impl Core {
    /// Before something is written that would have to wait: whether waiting makes sense.
    pub(super) fn expect_replicas(&self) -> Result<(), StoreError> {
        self.require(!self.too_few.refuses())
    }

    /// What is not durable does not count.
    pub(super) fn require(&self, is_durable: bool) -> Result<(), StoreError> {
        if is_durable {
            return Ok(());
        }
        let wanted = self.options.wait_replicas;
        let why = format!("fewer than {wanted} replicas follow, and store.wait_replicas asks for them");
        let error = StoreError::Failed(why);
        self.link.complain(&error);
        Err(error)
    }

    /// What became of a call that waited.
    pub(super) fn waited(
        &self,
        generation: u64,
        answer: Result<(Value, i64), RedisError>,
    ) -> Result<Answered, Fault> {
        // No answer in time: others' waits are before it.
        let are_enough = |&(_, replicas): &(Value, i64)| replicas >= i64::from(self.options.wait_replicas);
        let is_durable = answer.as_ref().is_ok_and(are_enough);
        self.too_few.set(!is_durable);
        let (value, _) = self.link.judge_behind_waits(generation, answer)?;
        Ok(Answered { value, is_durable })
    }

    /// For `/readyz`, whether as many replicas as configured follow: writes, and waits for them.
    pub(super) async fn check_replicas(&self, part: u16) -> Result<(), StoreError> {
        let (pipes, generation) = self.link.pipes()?;
        let Some(mut pipe) = pipes.waiting.pipe(part) else { return Ok(()) };
        let probe = self.names.probe(part);
        let mut write = redis::cmd("SET");
        write.arg(&probe).arg("replicas");
        let written = pipe.ask_and_wait(write, &probe, self.options.wait_replicas).await;
        self.require(self.waited(generation, written)?.is_durable)
    }
}
