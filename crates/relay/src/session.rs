//! One connection of a sender, as a machine.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::command::Commands;
use crate::core::Core;
use crate::delivery::{Claiming, Opening, Redialling, Renaming, Sending, Verdict};
use crate::event::Moment;
use crate::recipient::{Asking, Dialling, Lookup, Naming};
use crate::settle::Settling;
use crate::transaction::Transaction;
use crate::{Body, Effect, Effects, Event, Policy, Refusal};

/// Longest that a store may take before a sender is told to come again.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for memory before `354`.
pub(crate) const MEMORY_TIMEOUT: Duration = Duration::from_secs(20);

/// Who is connected.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The address of the sending host.
    pub address: IpAddr,
    /// The session's number, never reused within a boot.
    pub session: u64,
    /// The largest message the smarthost takes, if that is known.
    pub smarthost_size: Option<u64>,
}

/// What a session waits for when no effect of its own is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    /// A command line.
    Line,
    /// Octets of a message.
    Body,
    /// The answer to the last effect that asks.
    Answer,
    /// Nothing more: it is closed.
    Nothing,
}

/// One connection. Fed with events, it says what to do.
#[derive(Debug)]
pub struct Session {
    core: Core,
    state: State,
}

/// Where a session stands. Each state knows what it needs and nothing else; a step consumes it.
#[derive(Debug)]
pub(crate) enum State {
    /// The banner is to be said.
    Opening,
    /// Between commands.
    Commands(Commands),
    /// RCPT: the alias is being looked up.
    Lookup(Box<Lookup>),
    /// RCPT for the operator: the quota is being asked.
    Asking(Box<Asking>),
    /// RCPT: the next hop is being dialled.
    Dialling(Box<Dialling>),
    /// RCPT: the next hop is being told the envelope.
    Naming(Box<Naming>),
    /// DATA: waiting for memory.
    Reserving(Box<Reserving>),
    /// DATA: the message comes in.
    Receiving(Box<Receiving>),
    /// From the dot on, in order.
    Claiming(Box<Claiming>),
    Redialling(Box<Redialling>),
    Renaming(Box<Renaming>),
    AskingToSend(Box<Opening>),
    Sending(Box<Sending>),
    Verdict(Box<Verdict>),
    Settling(Box<Settling>),
    /// Nothing more will be said.
    Closed,
}

/// After DATA, before 354.
#[derive(Debug)]
pub(crate) struct Reserving {
    pub(crate) transaction: Transaction,
    pub(crate) since: Instant,
}

/// Between 354 and the dot.
#[derive(Debug)]
pub(crate) struct Receiving {
    transaction: Transaction,
    message: crate::body::Receiving,
    began: Instant,
}

impl Session {
    /// A new connection; the first event is [`Event::Opened`].
    pub fn new(policy: Arc<Policy>, peer: Peer, at: Moment) -> Self {
        Self { core: Core::new(policy, peer, at), state: State::Opening }
    }

    /// One step: what happened, when, and what is to be done about it (appended to `out`).
    #[must_use]
    pub fn handle(self, event: Event<'_>, at: Moment, out: &mut Effects) -> Self {
        let Self { mut core, state } = self;
        core.at = at;
        let state = match (state, event) {
            (State::Closed, _) => State::Closed,
            (State::Opening, event) => open(&core, &event, out),
            (State::Commands(state), event) => state.on(&event, &mut core, out),
            (State::Lookup(state), event) => state.on(event, &mut core, out),
            (State::Asking(state), event) => state.on(&event, &mut core, out),
            (State::Dialling(state), event) => state.on(&event, &mut core, out),
            (State::Naming(state), event) => state.on(event, &mut core, out),
            (State::Reserving(state), event) => state.on(&event, &core, out),
            (State::Receiving(state), event) => state.on(event, &mut core, out),
            (State::Claiming(state), event) => state.on(event, &mut core, out),
            (State::Redialling(state), event) => state.on(&event, &mut core, out),
            (State::Renaming(state), event) => state.on(event, &mut core, out),
            (State::AskingToSend(state), event) => state.on(event, &mut core, out),
            (State::Sending(state), event) => state.on(event, &mut core, out),
            (State::Verdict(state), event) => state.on(event, &mut core, out),
            (State::Settling(state), event) => state.on(&event, &mut core, out),
        };
        Self { core, state }
    }

    /// What the driver is to feed next.
    pub fn awaits(&self) -> Awaits {
        match self.state {
            State::Commands(_) => Awaits::Line,
            State::Receiving(_) => Awaits::Body,
            State::Closed => Awaits::Nothing,
            _ => Awaits::Answer,
        }
    }

    /// When [`Event::Deadline`] is due if nothing else happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let limits = &self.core.policy.limits;
        match &self.state {
            State::Opening | State::Closed => None,
            State::Commands(state) => {
                Some((state.since + limits.command_timeout).min(self.core.session_end()))
            }
            State::Lookup(state) => Some(state.since + STORE_TIMEOUT),
            State::Asking(state) => Some(state.since + STORE_TIMEOUT),
            State::Dialling(state) => Some(state.deadline),
            State::Naming(state) => Some(state.deadline),
            State::Reserving(state) => Some(state.since + MEMORY_TIMEOUT),
            State::Receiving(state) => Some(state.deadline(&self.core)),
            State::Claiming(state) => Some(state.deadline()),
            State::Redialling(state) => Some(state.deadline()),
            State::Renaming(state) => Some(state.deadline()),
            State::AskingToSend(state) => Some(state.deadline()),
            State::Sending(state) => Some(state.deadline()),
            State::Verdict(state) => Some(state.deadline()),
            State::Settling(state) => Some(state.since + STORE_TIMEOUT),
        }
    }
}

fn open(core: &Core, event: &Event<'_>, out: &mut Effects) -> State {
    match event {
        // RFC 5321 §4.3.1: a client waits for the banner. Who does not is no mail server.
        Event::Opened { early: true } => close_with(Refusal::OutOfStep, out),
        Event::Opened { early: false } => {
            out.push(Effect::Reply(crate::command::banner(&core.policy)));
            State::Commands(Commands::new(None, core))
        }
        Event::Drain => close_with(Refusal::ShuttingDown, out),
        _ => State::Closed,
    }
}

/// Says why, and closes.
pub(crate) fn close_with(refusal: Refusal, out: &mut Effects) -> State {
    out.push(Effect::Reply(refusal.reply()));
    out.push(Effect::Close);
    State::Closed
}

/// Closes without a word.
pub(crate) fn close(out: &mut Effects) -> State {
    out.push(Effect::Close);
    State::Closed
}

impl Reserving {
    fn on(mut self: Box<Self>, event: &Event<'_>, core: &Core, out: &mut Effects) -> State {
        match event {
            Event::Reserved { granted: true, early: false } => {
                out.push(Effect::Reply(crate::command::start_input()));
                let limit = self.transaction.size_limit(core.max_size());
                State::Receiving(Box::new(Receiving {
                    transaction: self.transaction,
                    message: crate::body::Receiving::new(limit),
                    began: core.at.instant,
                }))
            }
            // RFC 2920 §3.1: DATA ends a group; nothing may follow it before 354.
            Event::Reserved { granted: true, early: true } => {
                self.transaction.release(out);
                out.push(Effect::Discard);
                close_with(Refusal::OutOfStep, out)
            }
            Event::Reserved { granted: false, .. } | Event::Deadline => {
                self.transaction.release(out);
                out.push(Effect::Reply(Refusal::NoMemory.reply()));
                State::Commands(Commands::new(None, core))
            }
            _ => {
                self.transaction.release(out);
                close(out)
            }
        }
    }
}

impl Receiving {
    /// The next moment at which something is to be decided: the next hop's transaction has waited long enough,
    /// or the message has come too slowly. The slowest allowed message is `grace` + octets ÷ rate old.
    fn deadline(&self, core: &Core) -> Instant {
        let limits = &core.policy.limits;
        let mut due = core.session_end();
        if let Some(seconds) = self.message.received.checked_div(u64::from(limits.min_data_rate)) {
            due = due.min(self.began + limits.data_grace + Duration::from_secs(seconds));
        }
        if self.transaction.upstream.is_some() {
            due = due.min(self.began + limits.hold_upstream);
        }
        due
    }

    fn on(mut self: Box<Self>, event: Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        match event {
            Event::Body { chunk, held } => match self.message.take(chunk, held) {
                crate::body::Received::More => State::Receiving(self),
                crate::body::Received::Spoiled => {
                    // Read to its true end, or its rest would be taken for commands; but not kept.
                    self.transaction.release(out);
                    out.push(Effect::Discard);
                    State::Receiving(self)
                }
                crate::body::Received::End(rest) => {
                    if !rest.is_empty() {
                        out.push(Effect::Unread(rest));
                    }
                    self.at_dot(core, out)
                }
            },
            Event::Deadline => self.overdue(core, out),
            Event::Drain => {
                self.transaction.release(out);
                out.push(Effect::Discard);
                close_with(Refusal::ShuttingDown, out)
            }
            // Nothing was promised yet; the sender still has the message.
            _ => {
                self.transaction.release(out);
                out.push(Effect::Discard);
                close(out)
            }
        }
    }

    fn overdue(mut self: Box<Self>, core: &Core, out: &mut Effects) -> State {
        let now = core.at.instant;
        let hold_over = now >= self.began + core.policy.limits.hold_upstream;
        if hold_over && self.transaction.upstream.is_some() {
            // A slow sender does not keep the next hop waiting.
            self.transaction.release(out);
            if now < self.deadline(core) {
                return State::Receiving(self);
            }
        }
        self.transaction.release(out);
        out.push(Effect::Discard);
        let refusal = if now >= core.session_end() { Refusal::SessionOver } else { Refusal::TooSlow };
        close_with(refusal, out)
    }

    fn at_dot(self: Box<Self>, core: &mut Core, out: &mut Effects) -> State {
        let octets = self.message.octets();
        let dot = core.at.instant;
        let message: Result<Body, Refusal> = self.message.finish();
        crate::delivery::begin(self.transaction, message, octets, dot, core, out)
    }
}
