//! Sessions, and what they talk to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempalias_alias::{
    AliasId, Attempt, Fingerprint, KeyId, Keys, Ledger, Limits as AliasLimits, ManageHash, Outcome, Owner,
    Private, RowKey, ServerKey, State, UnixTime,
};
use tempalias_relay::{
    After, Awaits, BodyFailed, ConnectError, Connected, DeliveryPolicy, Effect, Event, Freshness, Heard,
    Limits, LineFault, Moment, Peer, Policy, Session,
};
use tempalias_smtp::client::Capabilities;
use tempalias_smtp::line::{Scan, scan};
use tempalias_smtp::reply::{NextHopReply, Nonsense};

use super::contract::{Fed, Truth, Watch, asks};
use super::store::ModelStore;
use crate::dialogue::{DOMAINS, Dialogue, HOSTNAME, Lane, Memory, OPERATOR, Seed, duration, size};
use crate::text::show;

/// Rounds after which something spins.
const MANY: usize = 10_000;

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
    watch: Watch,
    /// The effect that waits for an answer.
    pub(crate) ask: Option<Effect>,
    /// What the sender wrote and the session has not read, each piece with the number of replies written before.
    pub(crate) input: VecDeque<(Bytes, usize)>,
    pub(crate) eof: bool,
    replies: usize,
    pub(crate) out: VecDeque<Out>,
    pub(crate) hop: Option<Hop>,
    /// What we wrote to the next hop and nobody looked at.
    pub(crate) said: Vec<u8>,
    pub(crate) left: Option<After>,
    /// What the sender wrote since the last 354.
    pub(crate) message: Vec<u8>,
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
    keys: Arc<Keys>,
    old_key: KeyId,
    policy: Arc<Policy>,
    smarthost_size: Option<u64>,
    targets: Vec<String>,
    base: Instant,
    now: Duration,
    boot: u64,
    sessions: u64,
    draining: bool,
}

/// When dialogues begin: 2026-01-01.
const EPOCH: UnixTime = UnixTime::from_secs(1_767_225_600);

fn owner(boot: u64) -> Owner {
    Owner { node: 1, boot }
}

fn policy(dialogue: &Dialogue, keys: &Arc<Keys>, boot: u64) -> Result<Policy, String> {
    let number = |key: &str| size(dialogue.config(key));
    let small =
        |key: &str| number(key).and_then(|n| u32::try_from(n).map_err(|_| format!("{key}: too large")));
    let time = |key: &str| duration(dialogue.config(key));
    let limits = Limits {
        max_message_size: number("max_message_size")?,
        max_recipients: small("max_recipients")? as usize,
        max_received: small("max_received")? as usize,
        max_unknown_commands: small("max_unknown_commands")?,
        slow_after_refused: small("slow_after_refused")?,
        max_refused_recipients: small("max_refused_recipients")?,
        command_timeout: time("command_timeout")?,
        data_grace: time("data_grace")?,
        min_data_rate: small("min_data_rate")?,
        session_timeout: time("session_timeout")?,
        max_mails: small("max_mails")?,
        envelope_timeout: time("envelope_timeout")?,
        dot_timeout: time("dot_timeout")?,
        hold_upstream: time("hold_upstream")?,
    };
    Ok(Policy {
        hostname: HOSTNAME.parse().map_err(|_| "hostname")?,
        domains: DOMAINS.iter().filter_map(|domain| domain.parse().ok()).collect(),
        operator: OPERATOR.parse().map_err(|_| "operator")?,
        delivery: match dialogue.config("delivery") {
            "mx" => DeliveryPolicy::Mx,
            "smarthost" => DeliveryPolicy::Smarthost,
            other => return Err(format!("delivery is mx or smarthost, not {other}")),
        },
        public_url: "https://alias.test".into(),
        keys: keys.clone(),
        owner: owner(boot),
        limits,
    })
}

impl World {
    pub(crate) fn new(dialogue: &Dialogue, base: Instant) -> Result<Self, String> {
        let old = ServerKey::new([2; 32]);
        let old_key = old.id();
        let keys = Arc::new(Keys::new(ServerKey::new([1; 32]), vec![old]));
        let policy = Arc::new(policy(dialogue, &keys, 1)?);
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
        Moment { instant: self.base + self.now, unix: self.unix() }
    }

    fn log(&mut self, lane: Lane, text: impl Into<String>) {
        let name = if lane == Lane::First { 'C' } else { 'D' };
        self.transcript.push(format!("{:>9.3?} {name} {}", self.now, text.into()));
    }

    // === The store, for an owner's hand.

    /// The row of an alias, whichever key made it.
    pub(crate) fn row(&self, alias: &str) -> Result<RowKey, String> {
        let id: AliasId = alias.parse().map_err(|_| format!("{alias} is no alias"))?;
        let row = self.keys.row_keys(&id).into_iter().find(|key| self.store.ledger(*key).is_some());
        row.ok_or(format!("nobody made {alias}"))
    }

    pub(crate) fn seed(&mut self, seed: &Seed) -> Result<(), String> {
        let id: AliasId = seed.alias.parse().map_err(|_| format!("{} is no alias", seed.alias))?;
        let key =
            self.keys.all().find(|key| (key.id() == self.old_key) == seed.old_key).ok_or("no such key")?;
        let private = Private {
            target: seed.target.parse().map_err(|_| format!("{} is no mailbox", seed.target))?,
            domain: seed.domain.as_deref().unwrap_or(DOMAINS[0]).parse().map_err(|_| "no such domain")?,
            manage: ManageHash([7; 16]),
        };
        let start = seed.from.map(|from| self.unix().plus(from));
        let days = |days: u32| start.unwrap_or(self.unix()).plus(Duration::from_secs(86_400) * days);
        let limits = AliasLimits {
            valid_from: start,
            valid_until: seed.days.map(days),
            max_usage: seed.uses.and_then(std::num::NonZeroU32::new),
        };
        let ledger = Ledger { limits, state: State::Active, used: 0, kept: vec![] };
        let (row, sealed) = (key.row_key(&id), key.seal(&id, &private, [9; 12]));
        self.store.insert(row, ledger, sealed);
        self.targets.push(seed.target.clone());
        Ok(())
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
        self.log(lane, format!("writes {}", show(octets)));
        let side = self.side(lane);
        side.input.push_back((Bytes::copy_from_slice(octets), side.replies));
        side.message.extend_from_slice(octets);
    }

    /// kill -9, and a new start.
    pub(crate) fn crash(&mut self) {
        self.boot += 1;
        self.store.restart(owner(self.boot));
        for side in &mut self.sides {
            let said = std::mem::take(&mut side.said);
            *side = Side { said, ..Side::default() };
        }
        let policy = &*self.policy;
        self.policy = Arc::new(Policy {
            hostname: policy.hostname.clone(),
            domains: policy.domains.clone(),
            operator: policy.operator.clone(),
            delivery: policy.delivery,
            public_url: policy.public_url.clone(),
            keys: policy.keys.clone(),
            owner: owner(self.boot),
            limits: policy.limits,
        });
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
    fn feed(&mut self, lane: Lane, fed: Fed, event: Event<'_>) -> Result<(), Stop> {
        self.log(lane, format!("event {}", short(&event)));
        let at = self.moment();
        let side = &mut self.sides[lane as usize];
        let Some(session) = side.session.take() else { return Err("there is no session".into()) };
        side.ask = None;
        side.watch.before(fed)?;
        let was = session.awaits();
        let mut effects = vec![];
        let session = session.handle(event, at, &mut effects);
        let lines: Vec<String> =
            effects.iter().map(|effect| format!("  -> {}", short_effect(effect))).collect();
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

    // === Answers.

    /// Feeds whatever can be fed without a dialogue's help.
    pub(crate) fn pump(&mut self) -> Result<(), Stop> {
        for _ in 0..MANY {
            self.store.flush(self.unix());
            let mut moved = false;
            for lane in [Lane::First, Lane::Second] {
                moved |= self.pump_lane(lane)?;
            }
            if !moved {
                return Ok(());
            }
        }
        Err("events come without an end".into())
    }

    /// One thing that one session can be fed, if there is any.
    pub(crate) fn pump_lane(&mut self, lane: Lane) -> Result<bool, Stop> {
        match self.side(lane).session.as_ref().map(Session::awaits) {
            None | Some(Awaits::Nothing) => Ok(false),
            Some(Awaits::Line) => self.pump_line(lane),
            Some(Awaits::Body) => self.pump_body(lane),
            Some(Awaits::Answer) => self.pump_answer(lane),
        }
    }

    fn pump_line(&mut self, lane: Lane) -> Result<bool, Stop> {
        let side = self.side(lane);
        let arrived = side.input.front().map_or(0, |(_, replies)| *replies);
        let fresh = arrived == side.replies;
        let buffer: Vec<u8> = side.input.iter().flat_map(|(piece, _)| piece.iter().copied()).collect();
        let fault = match scan(&buffer) {
            Scan::Line { text } => {
                self.tick(lane)?;
                self.take_input(lane, text + 2);
                let line = buffer.get(..text).unwrap_or_default();
                let event = Event::Line { text: line, more: buffer.len() > text + 2, fresh };
                self.feed(lane, Fed::Command { fresh }, event)?;
                return Ok(true);
            }
            Scan::TooLong => LineFault::TooLong,
            Scan::BareLineFeed => LineFault::BareLineFeed,
            Scan::Incomplete => {
                let (eof, draining) = (self.side(lane).eof, self.draining);
                if eof || draining {
                    self.tick(lane)?;
                    self.feed(lane, Fed::Unasked, if eof { Event::PeerGone } else { Event::Drain })?;
                }
                return Ok(eof || draining);
            }
        };
        self.tick(lane)?;
        self.side(lane).input.clear();
        self.feed(lane, Fed::Command { fresh }, Event::BadLine(fault))?;
        Ok(true)
    }

    fn take_input(&mut self, lane: Lane, mut octets: usize) {
        let input = &mut self.side(lane).input;
        while let Some((piece, _)) = input.front_mut() {
            let taken = octets.min(piece.len());
            drop(piece.split_to(taken));
            octets -= taken;
            if !piece.is_empty() {
                return;
            }
            input.pop_front();
        }
    }

    fn pump_body(&mut self, lane: Lane) -> Result<bool, Stop> {
        let held = self.memory == Memory::Free;
        let eof = self.side(lane).eof;
        if self.side(lane).input.is_empty() && !eof {
            return Ok(false);
        }
        self.tick(lane)?;
        match self.side(lane).input.pop_front() {
            Some((chunk, _)) => self.feed(lane, Fed::Body, Event::Body { chunk, held })?,
            None => self.feed(lane, Fed::Unasked, Event::PeerGone)?,
        }
        Ok(true)
    }

    fn pump_answer(&mut self, lane: Lane) -> Result<bool, Stop> {
        let Some(ask) = self.side(lane).ask.take() else { return Ok(false) };
        if self.wants_dialogue(lane, &ask) {
            self.side(lane).ask = Some(ask);
            return Ok(false);
        }
        if let Err(stop) = self.tick(lane) {
            self.side(lane).ask = Some(ask);
            return Err(stop);
        }
        self.answer(lane, ask)
    }

    /// Whether a dialogue has to say what comes of it.
    fn wants_dialogue(&mut self, lane: Lane, ask: &Effect) -> bool {
        match ask {
            Effect::Connect(..) => true,
            Effect::SendBody(_) => self.side(lane).hop.as_ref().is_none_or(|hop| hop.inbox.is_empty()),
            Effect::Hear => {
                let hop = self.side(lane).hop.as_ref();
                !hop.is_some_and(|hop| hop.closed || !matches!(NextHopReply::parse(&hop.inbox), Ok(None)))
            }
            Effect::Reserve => self.memory == Memory::Full,
            Effect::Find(_) | Effect::Quota(_) => {
                matches!(self.store.fault, crate::dialogue::Fault::Hangs | crate::dialogue::Fault::Mute)
            }
            _ => false,
        }
    }

    /// Answers from the models. False: no answer will come.
    pub(crate) fn answer(&mut self, lane: Lane, ask: Effect) -> Result<bool, Stop> {
        let now = self.unix();
        let event = match &ask {
            Effect::Find(keys) => self.store.find(keys, now).map(Event::Found),
            Effect::Quota(tag) => self.store.quota(*tag, now).map(Event::Quota),
            Effect::Claim(requests) => {
                let answer = self.store.claim(requests, now);
                if let Some(Ok(claimed)) = &answer {
                    let answers: Vec<_> = claimed.iter().map(|claimed| claimed.answer).collect();
                    self.log(lane, format!("the store says {answers:?}"));
                    self.sides[lane as usize].watch.claimed(claimed, &mut self.truth);
                }
                answer.map(Event::Claimed)
            }
            Effect::Settle(settlements) => self.settle(settlements).then_some(Event::Settled),
            Effect::Reserve => {
                self.side(lane).watch.reserved();
                let early = !self.side(lane).input.is_empty();
                Some(Event::Reserved { granted: true, early })
            }
            Effect::Hear => Some(Event::Heard(self.hear(lane))),
            Effect::SendBody(_) => {
                // What a next hop says before anything was written is no answer to it: `outside` does not send.
                self.body_broke(lane, false, vec![])?;
                return Ok(true);
            }
            _ => None,
        };
        match event {
            Some(event) => {
                self.feed(lane, Fed::Answer, event)?;
                Ok(true)
            }
            None => {
                self.side(lane).ask = Some(ask);
                Ok(false)
            }
        }
    }

    fn settle(&mut self, settlements: &[(RowKey, Attempt, Outcome)]) -> bool {
        let durable = self.store.settle(settlements, self.unix());
        durable && self.store.fault == crate::dialogue::Fault::Up
    }

    /// What the next hop says next; it said something, or closed.
    fn hear(&mut self, lane: Lane) -> Heard {
        let Side { hop: Some(hop), watch, .. } = &mut self.sides[lane as usize] else { return Heard::Lost };
        match NextHopReply::parse(&hop.inbox) {
            Ok(Some((reply, taken))) => {
                hop.inbox.drain(..taken);
                if hop.owed.pop_front() == Some("dot") {
                    watch.judged(reply.code(), &mut self.truth);
                }
                Heard::Reply(reply)
            }
            Ok(None) => Heard::Lost,
            Err(nonsense) => Heard::Nonsense(nonsense),
        }
    }

    // === The next hop's side.

    pub(crate) fn hop_connects(&mut self, lane: Lane, offers: &[String], anew: bool) -> Result<(), Stop> {
        let Some(Effect::Connect(_, freshness)) = &self.side(lane).ask else {
            return Err("no connection to the next hop is wanted".into());
        };
        if anew && *freshness != Freshness::New {
            return Err("a pooled connection would do, and a new one was expected".into());
        }
        self.tick(lane)?;
        self.answer_connect(lane, Ok(offers.to_vec()))
    }

    /// A connection with these offers, or none.
    pub(crate) fn answer_connect(
        &mut self,
        lane: Lane,
        answer: Result<Vec<String>, ConnectError>,
    ) -> Result<(), Stop> {
        let answer = match answer {
            Ok(offers) => {
                let offered = capabilities(&offers)?;
                let side = self.side(lane);
                (side.hop, side.left) = (Some(Hop::default()), None);
                side.watch.connected();
                Ok(Connected { offered, reused: false })
            }
            Err(error) => Err(error),
        };
        self.feed(lane, Fed::Answer, Event::Connected(answer))
    }

    pub(crate) fn hop_fails(&mut self, lane: Lane, why: ConnectError) -> Result<(), Stop> {
        let Some(Effect::Connect(..)) = &self.side(lane).ask else {
            return Err("no connection to the next hop is wanted".into());
        };
        self.tick(lane)?;
        self.answer_connect(lane, Err(why))
    }

    /// Whether a message is about to go out.
    pub(crate) fn takes_body(&mut self, lane: Lane) -> bool {
        matches!(self.side(lane).ask, Some(Effect::SendBody(_)))
    }

    /// The message goes out, whole, if one is about to.
    pub(crate) fn body_goes_out(&mut self, lane: Lane) -> Result<(), Stop> {
        if !self.takes_body(lane) {
            return Ok(());
        }
        self.tick(lane)?;
        let Some(Effect::SendBody(outgoing)) = self.side(lane).ask.take() else { return Ok(()) };
        let side = &mut self.sides[lane as usize];
        side.said.extend_from_slice(outgoing.prefix());
        outgoing.segments().iter().for_each(|segment| side.said.extend_from_slice(segment));
        side.hop.iter_mut().for_each(|hop| hop.owed.push_back("dot"));
        side.watch.dot_may_have_left(&mut self.truth);
        self.feed(lane, Fed::Answer, Event::BodySent(Ok(())))
    }

    /// The message breaks off. `saying` is what the next hop wrote before.
    pub(crate) fn body_broke(&mut self, lane: Lane, at_dot: bool, saying: Vec<u8>) -> Result<(), Stop> {
        let side = &mut self.sides[lane as usize];
        let mut inbox = side.hop.as_ref().map(|hop| hop.inbox.clone()).unwrap_or_default();
        inbox.extend(saying);
        if at_dot {
            side.watch.dot_may_have_left(&mut self.truth);
        }
        let pending = match NextHopReply::parse(&inbox) {
            Ok(Some((reply, _))) => {
                if at_dot {
                    side.watch.judged(reply.code(), &mut self.truth);
                }
                Some(Heard::Reply(reply))
            }
            Ok(None) => None,
            Err(nonsense) => Some(Heard::Nonsense(nonsense)),
        };
        side.hop.iter_mut().for_each(|hop| hop.closed = true);
        let failed = BodyFailed { dot_may_have_left: at_dot, pending };
        self.feed(lane, Fed::Answer, Event::BodySent(Err(failed)))
    }
}

/// Offers as the machine sees them.
fn capabilities(offers: &[String]) -> Result<Capabilities, String> {
    let mut lines: Vec<&str> = vec!["hop.test"];
    lines.extend(offers.iter().map(String::as_str));
    let last = lines.len() - 1;
    let wire: String = lines
        .iter()
        .enumerate()
        .map(|(at, line)| format!("250{}{line}\r\n", if at == last { ' ' } else { '-' }))
        .collect();
    match NextHopReply::parse(wire.as_bytes()) {
        Ok(Some((reply, _))) => Ok(Capabilities::of(&reply)),
        Ok(None) => Err("no EHLO reply".into()),
        Err(nonsense) => Err(nonsense_text(nonsense)),
    }
}

fn nonsense_text(nonsense: Nonsense) -> String {
    format!("these offers are no EHLO reply: {nonsense}")
}

fn short(event: &Event<'_>) -> String {
    match event {
        Event::Line { text, more, fresh } => format!("Line {:?} more={more} fresh={fresh}", show(text)),
        Event::Body { chunk, held } => format!("Body of {} octets, held={held}", chunk.len()),
        Event::Found(Ok(Some(found))) => format!("Found {:?}", found.ledger),
        other => format!("{other:?}"),
    }
}

fn short_effect(effect: &Effect) -> String {
    match effect {
        Effect::Reply(reply) => format!("Reply {reply}"),
        Effect::Say(commands) => format!("Say {}", show(commands)),
        Effect::Find(_) => "Find".into(),
        Effect::Claim(requests) => {
            let prints: Vec<&Fingerprint> = requests.iter().map(|request| &request.fingerprint).collect();
            format!(
                "Claim {} recipients, {:02x?}",
                requests.len(),
                prints.iter().map(|p| p.0[0]).collect::<Vec<_>>()
            )
        }
        Effect::SendBody(outgoing) => format!("SendBody, prefix {}", show(outgoing.prefix())),
        Effect::Report(summary) => format!("Report {} {:?}", summary.ending.as_str(), summary.status),
        other => format!("{other:?}"),
    }
}
