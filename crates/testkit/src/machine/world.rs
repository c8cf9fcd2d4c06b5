//! Sessions, and what they talk to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempalias_alias::{KeyId, Keys, ServerKey, UnixTime};
use tempalias_relay::{After, Awaits, Effect, Event, Moment, Peer, Policy, Session};

use super::contract::{Fed, Truth, Watch, asks};
use super::setup::{owner, policy};
use super::show;
use super::store::ModelStore;
use crate::dialogue::{Dialogue, Lane, Memory, OPERATOR, size};
use crate::text;

/// Rounds after which something spins.
pub(super) const MANY: usize = 10_000;

/// Why playing stops.
#[derive(Debug, Clone)]
pub(crate) enum Stop {
    /// Something is wrong.
    Failed(String),
    /// The event before which to cut is due on this lane.
    Cut(Lane),
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl From<&str> for Stop {
    fn from(why: &str) -> Self {
        Self::Failed(why.into())
    }
}

/// What a sender gets to see, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Out {
    Line(String),
    Pause(Duration),
}

/// The next hop's connection of one lane.
#[derive(Debug, Default)]
pub(crate) struct Hop {
    /// What it wrote and we have not read.
    pub(crate) inbox: Vec<u8>,
    pub(crate) closed: bool,
    /// What it has yet to answer, for a next hop that answers by itself.
    pub(crate) owed: VecDeque<&'static str>,
}

/// One sender, its session, and its next hop.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub(crate) session: Option<Session>,
    pub(super) watch: Watch,
    /// The effect that waits for an answer.
    pub(crate) ask: Option<Effect>,
    /// What the sender wrote and the session has not read, each piece with the number of replies written before.
    pub(crate) input: VecDeque<(Bytes, usize)>,
    pub(crate) eof: bool,
    pub(super) replies: usize,
    pub(crate) out: VecDeque<Out>,
    pub(crate) hop: Option<Hop>,
    /// What we wrote to the next hop and nobody looked at.
    pub(crate) said: Vec<u8>,
    pub(crate) left: Option<After>,
    /// What the sender wrote since the last 354.
    pub(crate) message: Vec<u8>,
    /// All its writes, for a retry.
    pub(crate) writes: Vec<Vec<u8>>,
}

pub(crate) struct World {
    pub(crate) sides: [Side; 2],
    pub(crate) store: ModelStore,
    pub(crate) truth: Truth,
    pub(crate) memory: Memory,
    /// Events so far that a cut may precede.
    pub(crate) events: usize,
    /// Before which event to stop.
    pub(crate) cut_at: Option<usize>,
    pub(crate) transcript: Vec<String>,
    /// Everything that any sender saw.
    pub(crate) heard: String,
    pub(super) keys: Arc<Keys>,
    pub(super) old_key: KeyId,
    policy: Arc<Policy>,
    smarthost_size: Option<u64>,
    pub(super) targets: Vec<String>,
    base: Instant,
    now: Duration,
    boot: u64,
    sessions: u64,
    pub(super) draining: bool,
}

/// When dialogues begin: 2026-01-01.
const EPOCH: UnixTime = UnixTime::from_secs(1_767_225_600);

impl World {
    pub(crate) fn new(dialogue: &Dialogue, base: Instant) -> Result<Self, String> {
        let old = ServerKey::new([2; 32]);
        let old_key = old.id();
        let keys = Arc::new(Keys::new(ServerKey::new([1; 32]), vec![old]));
        let policy = Arc::new(policy(dialogue, &keys)?);
        let smarthost_size = size(dialogue.config("smarthost_size"))?;
        Ok(Self {
            sides: Default::default(),
            store: ModelStore::new(owner(1)),
            truth: Truth::default(),
            memory: Memory::Free,
            events: 0,
            cut_at: None,
            transcript: vec![],
            heard: String::new(),
            keys,
            old_key,
            policy,
            smarthost_size: Some(smarthost_size).filter(|&size| size > 0),
            targets: vec![OPERATOR.into()],
            base,
            now: Duration::ZERO,
            boot: 1,
            sessions: 0,
            draining: false,
        })
    }

    pub(crate) fn side(&mut self, lane: Lane) -> &mut Side {
        &mut self.sides[lane as usize]
    }

    pub(crate) fn unix(&self) -> UnixTime {
        EPOCH.plus(self.now)
    }

    fn moment(&self) -> Moment {
        Moment { instant: self.base + self.now, unix: self.unix(), owner: owner(self.boot) }
    }

    pub(super) fn log(&mut self, lane: Lane, text: impl Into<String>) {
        let name = if lane == Lane::First { 'C' } else { 'D' };
        self.transcript.push(format!("{:>9.3?} {name} {}", self.now, text.into()));
    }

    // === Time.

    /// Lets time pass; deadlines that come meanwhile are fed.
    pub(crate) fn wait(&mut self, time: Duration) -> Result<(), Stop> {
        let target = self.now + time;
        for _ in 0..MANY {
            let next = [Lane::First, Lane::Second]
                .into_iter()
                .filter_map(|lane| Some((self.side(lane).session.as_ref()?.deadline()?, lane)))
                .min_by_key(|(due, _)| *due);
            match next {
                Some((due, lane)) if due <= self.base + target => {
                    self.now = self.now.max(due.saturating_duration_since(self.base));
                    self.tick(lane)?;
                    self.deadline(lane)?;
                    self.pump()?;
                }
                _ => {
                    self.now = target;
                    return self.pump();
                }
            }
        }
        Err("deadlines come without an end".into())
    }

    /// The deadline of a lane's session has come: whatever it waited for is no longer awaited.
    pub(crate) fn deadline(&mut self, lane: Lane) -> Result<(), Stop> {
        if self.takes_body(lane) {
            return self.body_broke(lane, true, vec![]); // the driver knows how far it came
        }
        self.feed(lane, Fed::Unasked, Event::Deadline)
    }

    /// The driver sees that the sender is gone while the session waits for an answer. Only before the dot: from
    /// there on it has to be finished, whoever is left to hear of it.
    pub(crate) fn seen_gone(&mut self, lane: Lane) -> Result<bool, Stop> {
        let side = self.side(lane);
        let before_dot = side.ask.is_some() && !side.watch.is_past_dot();
        if before_dot {
            side.eof = true;
            self.feed(lane, Fed::Unasked, Event::PeerGone)?;
        }
        Ok(before_dot)
    }

    /// The deadline of a lane's session comes now.
    pub(crate) fn advance_to_deadline(&mut self, lane: Lane) -> bool {
        let due = self.side(lane).session.as_ref().and_then(Session::deadline);
        let Some(due) = due else { return false };
        self.now = self.now.max(due.saturating_duration_since(self.base));
        true
    }

    // === Sessions.

    pub(crate) fn open(&mut self, lane: Lane, early: &[u8]) -> Result<(), Stop> {
        if self.side(lane).session.as_ref().is_some_and(|session| session.awaits() != Awaits::Nothing) {
            return Err("the former session of this sender has not ended".into());
        }
        self.sessions += 1;
        let address = if lane == Lane::First { [192, 0, 2, 1] } else { [192, 0, 2, 2] };
        let peer =
            Peer { address: address.into(), session: self.sessions, smarthost_size: self.smarthost_size };
        let session = Session::new(self.policy.clone(), peer, self.moment());
        let said = std::mem::take(&mut self.side(lane).said);
        *self.side(lane) = Side { session: Some(session), said, ..Side::default() };
        self.write(lane, early);
        self.feed(lane, Fed::Command { fresh: false }, Event::Opened { early: !early.is_empty() })?;
        self.pump()
    }

    /// The sender's octets arrive.
    pub(crate) fn write(&mut self, lane: Lane, octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        self.log(lane, format!("writes {}", text::show(octets)));
        let side = self.side(lane);
        side.input.push_back((Bytes::copy_from_slice(octets), side.replies));
        side.message.extend_from_slice(octets);
        side.writes.push(octets.to_vec());
    }

    /// kill -9, and a new start.
    pub(crate) fn crash(&mut self) {
        self.boot += 1;
        self.store.restart(owner(self.boot));
        for side in &mut self.sides {
            let said = std::mem::take(&mut side.said);
            *side = Side { said, ..Side::default() };
        }
        self.transcript.push("crash".into());
    }

    pub(crate) fn drain(&mut self) -> Result<(), Stop> {
        self.draining = true;
        self.pump()
    }

    /// Counts an event that a cut may precede.
    pub(crate) fn tick(&mut self, lane: Lane) -> Result<(), Stop> {
        if self.cut_at == Some(self.events) {
            return Err(Stop::Cut(lane));
        }
        self.events += 1;
        Ok(())
    }

    /// One step of a session, and the performance of its effects.
    pub(super) fn feed(&mut self, lane: Lane, fed: Fed, event: Event<'_>) -> Result<(), Stop> {
        self.log(lane, format!("event {}", show::event(&event)));
        let at = self.moment();
        let side = &mut self.sides[lane as usize];
        let Some(session) = side.session.take() else { return Err("there is no session".into()) };
        side.ask = None;
        side.watch.before(fed)?;
        let was = session.awaits();
        let mut effects = vec![];
        let session = session.handle(event, at, &mut effects);
        let lines: Vec<String> =
            effects.iter().map(|effect| format!("  -> {}", show::effect(effect))).collect();
        let watched = side.watch.after(fed, was, &session, &effects);
        side.session = Some(session);
        for line in lines {
            self.log(lane, line);
        }
        watched?;
        for effect in effects {
            self.perform(lane, effect)?;
        }
        Ok(())
    }

    fn perform(&mut self, lane: Lane, effect: Effect) -> Result<(), Stop> {
        let now = self.unix();
        match effect {
            Effect::Reply(reply) => self.reply(lane, &reply.to_string())?,
            Effect::Pause(time) => {
                self.side(lane).out.push_back(Out::Pause(time));
                self.now += time;
            }
            Effect::Say(commands) => self.say(lane, &commands)?,
            Effect::Release(after) => {
                let side = self.side(lane);
                (side.hop, side.left) = (None, Some(after));
            }
            Effect::Unread(octets) => {
                let side = self.side(lane);
                side.input.push_front((octets, side.replies));
            }
            Effect::SettleLater(settlements) => drop(self.store.settle(&settlements, now)),
            Effect::Acknowledge(delivered) => self.store.acknowledge(&delivered),
            effect if asks(&effect) => self.side(lane).ask = Some(effect),
            _ => {}
        }
        Ok(())
    }

    fn reply(&mut self, lane: Lane, text: &str) -> Result<(), Stop> {
        for target in &self.targets {
            let (local, domain) = target.split_once('@').unwrap_or((target, target));
            if text.contains(&format!("{local}@")) || text.contains(domain) {
                return Err(format!("the reply names the target: {text}").into());
            }
        }
        self.heard.push_str(text);
        self.heard.push('\n');
        let side = self.side(lane);
        if !side.eof {
            side.out.extend(text.lines().map(|line| Out::Line(line.trim_end().to_owned())));
        }
        side.replies += 1;
        if text.starts_with("354") {
            side.message.clear();
        }
        Ok(())
    }

    fn say(&mut self, lane: Lane, commands: &[u8]) -> Result<(), Stop> {
        let targets = self.targets.clone();
        let side = self.side(lane);
        if side.hop.as_ref().is_some_and(|hop| !hop.closed) {
            side.said.extend_from_slice(commands);
        }
        let text =
            std::str::from_utf8(commands).map_err(|_| "commands to the next hop are no text".to_owned())?;
        for line in text.split_inclusive("\r\n") {
            let line = line.strip_suffix("\r\n").ok_or("a command to the next hop without CRLF")?;
            let verb = match line {
                "DATA" => "DATA",
                _ if line.starts_with("MAIL FROM:<") => "MAIL",
                _ => {
                    let target = line.strip_prefix("RCPT TO:<").and_then(|to| to.strip_suffix('>'));
                    let target = target.ok_or(format!("no command for a next hop: {line}"))?;
                    if !targets.iter().any(|known| known == target) {
                        return Err(format!("the next hop is told {target}, whom nobody stored").into());
                    }
                    "RCPT"
                }
            };
            if let Some(hop) = &mut side.hop {
                hop.owed.push_back(verb);
            }
        }
        Ok(())
    }
}
