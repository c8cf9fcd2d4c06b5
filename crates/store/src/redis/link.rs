//! The connection to the server, and the answers that come over it. A connection that is broken or mute is replaced
//! while others wait for nothing: the client library gives up neither by itself (docs/decisions/018).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{Cmd, RedisError, Value};
use tokio::sync::{Notify, watch};

use super::complaint::Complaints;
use super::fault::{Fault, Suspicion, fault, in_words};
use super::replicas::{self, Waiting};
use super::script::Script;
use crate::StoreError;

/// How long one command may take. Three fit into [`crate::CALL_TIMEOUT`].
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_millis(600);

/// A connection that stands. Cheap to clone; commands of all clones share it.
#[derive(Clone)]
pub(super) enum Pipe {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// The hash slot of a key with a hash tag, as the Cluster specification has it.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or(key, |(tag, _)| tag);
    crc16::State::<crc16::XMODEM>::calculate(tag.as_bytes()) % 16_384
}

pub(super) fn no_answer() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

impl Pipe {
    /// One command, to where its key lives.
    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = async {
            match self {
                Self::Single(connection) => connection.req_packed_command(command).await,
                Self::Cluster(connection) => connection.req_packed_command(command).await,
            }
        };
        let value =
            tokio::time::timeout(COMMAND_TIMEOUT, answer).await.unwrap_or_else(|_| Err(no_answer()))?;
        value.extract_error()
    }

    /// Runs a script, and gives it to a server that has forgotten it.
    pub(super) async fn run(
        &mut self,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<Value, RedisError> {
        match self.ask(&script.by_name(keys, args)).await {
            Err(error) if error.code() == Some("NOSCRIPT") => self.ask(&script.by_text(keys, args)).await,
            answered => answered,
        }
    }

    /// One command to where the caller says, in a Cluster.
    pub(super) async fn ask_at(&mut self, command: Cmd, to: RoutingInfo) -> Result<Value, RedisError> {
        match self {
            Self::Single(_) => self.ask(&command).await,
            Self::Cluster(connection) => {
                let asked = connection.route_command(command, to);
                let answer = tokio::time::timeout(COMMAND_TIMEOUT, asked).await;
                answer.unwrap_or_else(|_| Err(no_answer()))?.extract_error()
            }
        }
    }

    /// The same for a script that replicas must have: its answer, and how many have it.
    pub(super) async fn run_and_wait(
        &mut self,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
        wanted: u32,
    ) -> Result<(Value, i64), RedisError> {
        let key = keys.first().map_or("", String::as_str);
        match self.ask_and_wait(script.by_name(keys, args), key, wanted).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                self.ask_and_wait(script.by_text(keys, args), key, wanted).await
            }
            answered => answered,
        }
    }

    /// One command that writes `key`, and in one piece with it a WAIT for replicas; how many have it.
    pub(super) async fn ask_and_wait(
        &mut self,
        command: Cmd,
        key: &str,
        wanted: u32,
    ) -> Result<(Value, i64), RedisError> {
        let mut both = redis::pipe();
        both.add_command(command);
        both.cmd("WAIT").arg(wanted).arg(u64::try_from(replicas::PATIENCE.as_millis()).unwrap_or(u64::MAX));
        let answers = async {
            match self {
                Self::Single(connection) => connection.req_packed_commands(&both, 0, 2).await,
                Self::Cluster(connection) => {
                    let route = SingleNodeRoutingInfo::SpecificNode(Route::new(slot(key), SlotAddr::Master));
                    connection.route_pipeline(both, 0, 2, route).await
                }
            }
        };
        let limit = replicas::PATIENCE + COMMAND_TIMEOUT;
        let answers = tokio::time::timeout(limit, answers).await.unwrap_or_else(|_| Err(no_answer()))?;
        let mut answers = answers.into_iter();
        let answer = answers.next().unwrap_or(Value::Nil).extract_error()?;
        match answers.next().unwrap_or(Value::Nil).extract_error()? {
            Value::Int(have) => Ok((answer, have)),
            _ => Ok((answer, 0)),
        }
    }

    /// The same command to every master: whose answer, and what it is. One that does not answer is an error.
    pub(super) async fn ask_masters(&mut self, command: Cmd) -> Result<Vec<Value>, RedisError> {
        match self {
            Self::Single(_) => Ok(vec![self.ask(&command).await?]),
            Self::Cluster(connection) => {
                let everywhere = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let asked = connection.route_command(command, everywhere);
                let answers = tokio::time::timeout(COMMAND_TIMEOUT, asked)
                    .await
                    .unwrap_or_else(|_| Err(no_answer()))?;
                match answers.extract_error()? {
                    Value::Map(answers) => Ok(answers.into_iter().map(|(_, answer)| answer).collect()),
                    other => Ok(vec![other]),
                }
            }
        }
    }
}

/// The connection of now, or why there is none.
pub(super) struct Link {
    state: Mutex<State>,
    is_cluster: bool,
    /// How long after an outage nobody is taken for dead.
    come_back: Duration,
    /// Told when a call has met a connection that is broken or mute.
    pub(super) trouble: Notify,
    /// Set when a call has met another marker than ours: somebody may have adopted the store anew.
    pub(super) is_doubtful: AtomicBool,
    /// How often there was a connection, or a part of a Cluster, again.
    back: watch::Sender<u64>,
}

struct State {
    pipes: Option<Pipes>,
    /// Counts connections, so that an old one's end is not taken for the new one's.
    generation: u64,
    why_down: String,
    /// Calls without an answer since the last one that had any, and since when.
    unanswered: u32,
    down_since: Instant,
    /// When the connection stood, if leases may have run out before it: there had been a long outage, or this process
    /// has just begun and does not know of one.
    back_since: Option<Instant>,
    complaints: Complaints,
    /// Parts of a Cluster's store that were away when they were last asked for something.
    away: BTreeSet<u16>,
}

/// What stands: one connection for all, and some for calls that wait for replicas.
#[derive(Clone)]
pub(super) struct Pipes {
    pub(super) all: Pipe,
    pub(super) waiting: Waiting,
    /// What every marker says.
    pub(super) marker: Arc<str>,
}

/// Calls in a row that nobody answers, after which a Cluster's connections are made anew: one master that hangs must
/// not cost the others theirs for one lost answer.
const CLUSTER_PATIENCE: u32 = 3;
/// An outage this young may be a server that is just restarting: worth a wait for what came far.
pub(super) const SHORT_OUTAGE: Duration = Duration::from_secs(3);

/// An outage in which leases may have run out: less than they last, by what the last renewal may be old.
const LONG_OUTAGE: Duration = Duration::from_secs(10);

impl Link {
    pub(super) fn new(is_cluster: bool, come_back: Duration) -> Self {
        let state = State {
            pipes: None,
            generation: 0,
            why_down: "not connected yet".to_owned(),
            unanswered: 0,
            down_since: Instant::now(),
            back_since: None,
            complaints: Complaints::default(),
            away: BTreeSet::new(),
        };
        Self {
            state: Mutex::new(state),
            is_cluster,
            come_back,
            trouble: Notify::new(),
            is_doubtful: AtomicBool::new(false),
            back: watch::Sender::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection of now, and its number.
    pub(super) fn pipes(&self) -> Result<(Pipes, u64), Fault> {
        let state = self.state();
        match &state.pipes {
            Some(pipes) => Ok((pipes.clone(), state.generation)),
            None => {
                Err(Fault { error: StoreError::Failed(state.why_down.clone()), passes: true, is_lost: false })
            }
        }
    }

    /// A new connection stands and is what it should be.
    pub(super) fn up(&self, pipes: Pipes) {
        let mut state = self.state();
        // Other nodes may have been cut off for long when this one began.
        let is_first = state.generation == 0;
        state.generation += 1;
        state.unanswered = 0;
        if is_first || state.pipes.is_none() && state.down_since.elapsed() >= LONG_OUTAGE {
            state.back_since = Some(Instant::now());
        }
        state.pipes = Some(pipes);
        state.away.clear();
        drop(state);
        self.back.send_modify(|times| *times += 1);
    }

    /// Whether a long outage ended so recently, or may have, that other nodes may not be back yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.state().back_since.is_some_and(|since| since.elapsed() < self.come_back)
    }

    /// Changes with each new connection, and when a part of a Cluster answers again.
    pub(super) fn back(&self) -> watch::Receiver<u64> {
        self.back.subscribe()
    }

    /// Takes note of whether this part of the store was there. A Cluster's client mends its connections without a word,
    /// so nothing else says that one of its masters is back.
    pub(super) fn note_part(&self, part: u16, is_away: bool) {
        if !self.is_cluster {
            return;
        }
        let mut state = self.state();
        if is_away {
            state.away.insert(part);
        } else if state.away.remove(&part) {
            drop(state);
            self.back.send_modify(|times| *times += 1);
        }
    }

    /// There is no connection, or none that may be used.
    pub(super) fn down(&self, why: String) {
        let mut state = self.state();
        if state.pipes.take().is_some() {
            state.down_since = Instant::now();
        }
        state.why_down = why;
    }

    pub(super) fn is_up(&self) -> bool {
        self.state().pipes.is_some()
    }

    /// Whether the outage is so young that the server may be back in a moment.
    pub(super) fn is_back_soon(&self) -> bool {
        let state = self.state();
        state.pipes.is_some() || state.down_since.elapsed() < SHORT_OUTAGE
    }

    /// Tells the log of a refusal that is not the server's.
    pub(super) fn complain(&self, error: &StoreError) {
        self.state().complaints.tell(error);
    }

    /// The same for a connection on which answers wait behind replicas: that one comes late says nothing about the
    /// server. (The lease is renewed on the other.)
    pub(super) fn judge_behind_waits<T>(
        &self,
        generation: u64,
        answer: Result<T, RedisError>,
    ) -> Result<T, Fault> {
        match answer {
            Err(error) if error.is_timeout() => {
                Err(Fault { error: StoreError::Timeout, passes: true, is_lost: false })
            }
            answer => self.judge(generation, answer),
        }
    }

    /// Takes note of how a command on connection `generation` went, and says it in the store's words.
    pub(super) fn judge<T>(&self, generation: u64, answer: Result<T, RedisError>) -> Result<T, Fault> {
        let error = match answer {
            Ok(value) => {
                self.state().unanswered = 0;
                return Ok(value);
            }
            Err(error) => error,
        };
        let is_lost = error.code() == Some("NOTOURS");
        if is_lost {
            self.is_doubtful.store(true, Ordering::Relaxed);
        }
        let (error, suspicion) = fault(&error);
        let fault = Fault { passes: suspicion != Suspicion::None, error, is_lost };
        let mut state = self.state();
        if state.generation != generation {
            return Err(fault);
        }
        let is_suspicious = match suspicion {
            Suspicion::None => {
                state.unanswered = 0;
                state.complaints.tell(&fault.error);
                false
            }
            Suspicion::Mute => {
                state.unanswered += 1;
                !self.is_cluster || state.unanswered >= CLUSTER_PATIENCE
            }
            Suspicion::Broken => {
                // A Cluster's client mends single connections itself.
                if !self.is_cluster && state.pipes.take().is_some() {
                    state.down_since = Instant::now();
                    state.why_down = in_words(&fault.error);
                }
                !self.is_cluster
            }
        };
        drop(state);
        if is_suspicious {
            self.trouble.notify_one();
        }
        Err(fault)
    }
}
