//! Waiting for replicas, where it is configured (`store.wait_replicas`): what counts as durable then is what that many
//! replicas have.
//!
//! WAIT holds up whatever comes behind it on the same connection, and speaks only of what that connection wrote. So
//! calls that wait have connections of their own, and in a Cluster, whose client makes connections anew without a word,
//! each connection has a name that a new one would not have.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{RedisError, Value};

use super::link::{Pipe, Target};
use super::{Core, RedisOptions};
use crate::StoreError;

/// How long a call waits for replicas.
const PATIENCE: Duration = Duration::from_millis(800);
/// After too few replicas had something in time, nobody waits for so long: waits queue up behind one another on their
/// connections, and would be asked for faster than they end.
const PAUSE: Duration = Duration::from_millis(500);
/// Connections for calls that wait: that many may wait at once.
const WAITING: usize = 16;

/// Connections whose calls wait for replicas; none where nothing waits.
#[derive(Clone)]
pub(super) struct Waiting {
    pipes: Arc<[Pipe]>,
    /// Of every connection in a Cluster; empty otherwise.
    name: Arc<str>,
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
    let mut name = String::new();
    if options.wait_replicas > 0 {
        if options.address.is_cluster() {
            name = format!("tempalias-{:016x}", (options.draw)());
        }
        for _ in 0..WAITING {
            let mut pipe = target.connect().await?;
            if !name.is_empty() {
                pipe.ask_masters(named("SETNAME").arg(&name).clone()).await?;
            }
            pipes.push(pipe);
        }
    }
    Ok(Waiting { pipes: pipes.into(), name: name.into() })
}

fn named(verb: &str) -> redis::Cmd {
    let mut client = redis::cmd("CLIENT");
    client.arg(verb);
    client
}

/// Whether it was seen of late that too few replicas follow.
#[derive(Debug, Default)]
pub(super) struct TooFew(Mutex<Option<Instant>>);

impl TooFew {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn is_fresh(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|since| since.elapsed() < PAUSE)
    }
}

impl Core {
    /// Before something is written that would have to wait: whether waiting makes sense.
    pub(super) fn expect_replicas(&self) -> Result<(), StoreError> {
        if self.too_few.is_fresh() { Err(self.too_few_replicas()) } else { Ok(()) }
    }

    fn too_few_replicas(&self) -> StoreError {
        let wanted = self.options.wait_replicas;
        let error = StoreError::Failed(format!(
            "fewer than {wanted} replicas follow, and store.wait_replicas asks for them"
        ));
        self.link.complain(&error);
        error
    }

    /// Waits until as many replicas as configured have what was written to `key` on the connection of `part`. With fewer
    /// it does not count.
    pub(super) async fn replicated(&self, part: u16, key: &str) -> Result<(), StoreError> {
        let wanted = self.options.wait_replicas;
        let (pipes, generation) = self.link.pipes()?;
        let Some(mut pipe) = pipes.waiting.pipe(part) else { return Ok(()) };
        let answer = pipe.wait(key, wanted, PATIENCE).await;
        let have = match self.link.judge_behind_waits(generation, answer)? {
            Value::Int(have) => have,
            _ => 0,
        };
        if have < i64::from(wanted) {
            self.too_few.set(Some(Instant::now()));
            return Err(self.too_few_replicas());
        }
        self.too_few.set(None);
        self.expect_same_connection(&pipes.waiting, &mut pipe, key, generation).await
    }

    /// A WAIT on a connection that was made meanwhile says nothing of what was written on the one before.
    async fn expect_same_connection(
        &self,
        waiting: &Waiting,
        pipe: &mut Pipe,
        key: &str,
        generation: u64,
    ) -> Result<(), StoreError> {
        if waiting.name.is_empty() {
            return Ok(());
        }
        let answer = pipe.ask_at_key(named("GETNAME"), key).await;
        let name = self.link.judge_behind_waits(generation, answer)?;
        if super::greet::text(&name) == *waiting.name {
            return Ok(());
        }
        self.link.trouble.notify_one();
        Err(StoreError::Failed("the connection was made anew while replicas were waited for".to_owned()))
    }

    /// For `/readyz`, whether as many replicas as configured follow: writes, and waits for them.
    pub(super) async fn check_replicas(&self, part: u16) -> Result<(), StoreError> {
        let (pipes, generation) = self.link.pipes()?;
        let Some(mut pipe) = pipes.waiting.pipe(part) else { return Ok(()) };
        let probe = self.names.probe(part);
        let written = pipe.ask(redis::cmd("SET").arg(&probe).arg("replicas")).await;
        self.link.judge_behind_waits(generation, written)?;
        self.replicated(part, &probe).await
    }
}
