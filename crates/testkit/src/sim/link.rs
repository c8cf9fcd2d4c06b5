//! One connection of a sender, and the task that serves it.
//!
//! Stands for `mail/src/driver.rs` and `reading.rs`: it feeds the real `relay::Session`, performs its effects in
//! order, writes replies out when nothing more is there to be answered, looks just before a 250 is written whether
//! something was pipelined behind the dot, and does not see that its sender is gone while it waits for an answer.
//! Every step is watched by `machine::contract`.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tempalias_alias::{Attempt, ClaimRequest, RowKey};
use tempalias_relay::{
    Awaits, BodyFailed, Claimed, Effects, Event, LineFault, Moment, Outgoing, Peer, Session,
};
use tempalias_smtp::line::{Scan, scan};

use super::client::Client;
use super::queue::Time;
use super::tally::Seen;
use super::world::{Happening, World};
use crate::machine::contract::{Fed, Watch};
use crate::machine::show;

/// In place of a reply's code: the connection is closed.
pub(super) const CLOSED: u16 = 0;

pub(super) struct Link {
    pub(super) node: usize,
    pub(super) start: u32,
    opened: bool,
    pub(super) session: Option<Session>,
    pub(super) watch: Watch,
    pub(super) ask: Option<Ask>,
    pub(super) asks: u32,
    timer: Option<Time>,
    pub(super) inbox: Inbox,
    pub(super) replies: Vec<u16>,
    pub(super) tells_delivery: bool,
    /// Final 250s written, and read.
    pub(super) wrote: u32,
    pub(super) read: u32,
    /// The node knows that its sender is gone.
    pub(super) gone: bool,
    pub(super) outstanding: Vec<(RowKey, Attempt)>,
    pub(super) settling: Option<usize>,
    pub(super) hop: Option<usize>,
    pub(super) mail: Mail,
    pub(super) client: Client,
    /// On its way to us, and to the sender.
    pub(super) up: VecDeque<(Time, Bytes)>,
    pub(super) down: VecDeque<(Time, u16)>,
    /// Writes until it is cut.
    pub(super) cut_after: Option<u64>,
}

/// What the node has in hand, as the simulation needs to know it.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// Which of the recipients' aliases RCPT was answered 250 for.
    pub(super) rows: Vec<usize>,
    pub(super) looked_up: usize,
    /// The next hop was asked about the recipient in hand.
    pub(super) asked_hop: bool,
    pub(super) claims: Vec<ClaimRequest>,
    /// The store had this message as delivered when it was last asked.
    pub(super) was_delivered: bool,
    /// Claims that sabotage makes only behind the dot.
    pub(super) late: Vec<ClaimRequest>,
}

pub(super) enum Ask {
    Find,
    Connect,
    Hear,
    Reserve,
    Claim,
    Settle,
    Body(Outgoing),
}

pub(super) enum Answered {
    Event(Event<'static>),
    Claimed(Vec<Claimed>),
    StoreDown,
}

/// `mail/src/reading.rs`.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) octets: Vec<u8>,
    pub(super) passed: usize,
    pub(super) unproven_until: usize,
}

impl Link {
    pub(super) fn new(node: usize, start: u32, client: Client, cut_after: Option<u64>) -> Self {
        Self {
            node,
            start,
            opened: false,
            session: None,
            watch: Watch::default(),
            ask: None,
            asks: 0,
            timer: None,
            inbox: Inbox::default(),
            replies: vec![],
            tells_delivery: false,
            wrote: 0,
            read: 0,
            gone: false,
            outstanding: vec![],
            settling: None,
            hop: None,
            mail: Mail::default(),
            client,
            up: VecDeque::new(),
            down: VecDeque::new(),
            cut_after,
        }
    }

    /// Whether it still waits for the answer to this.
    pub(super) fn awaits(&self, ask: u32) -> bool {
        self.session.is_some() && self.asks == ask && self.ask.is_some()
    }
}

impl World {
    // === What arrives.

    pub(super) fn arrives(&mut self, link: usize) {
        let (node, start) = (self.links[link].node, self.links[link].start);
        if !self.nodes[node].up || self.nodes[node].start != start {
            self.say_down(link, CLOSED);
            return;
        }
        if !self.links[link].opened {
            self.opens(link);
            return;
        }
        let now = self.now;
        let it = &mut self.links[link];
        while it.up.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, octets)) = it.up.pop_front() {
                it.inbox.octets.extend_from_slice(&octets);
            }
        }
        self.drive(link);
    }

    fn opens(&mut self, link: usize) {
        let node = &mut self.nodes[self.links[link].node];
        node.sessions += 1;
        let session = node.sessions;
        self.saw(Seen::Sessions);
        let peer = Peer { address: [192, 0, 2, 1].into(), session, smarthost_size: None };
        let session = Session::new(self.fixture.policy.clone(), peer, self.moment(link));
        (self.links[link].session, self.links[link].opened) = (Some(session), true);
        self.feed(link, Fed::Command { fresh: false }, Event::Opened { early: false });
        self.drive(link);
    }

    pub(super) fn gone(&mut self, link: usize) {
        self.links[link].gone = true;
        self.drive(link);
    }

    fn moment(&self, link: usize) -> Moment {
        Moment {
            instant: self.fixture.base + Duration::from_millis(self.now),
            unix: self.store.time(self.now),
            owner: self.nodes[self.links[link].node].names.current,
        }
    }

    // === The loop of `driver::run`.

    pub(super) fn drive(&mut self, link: usize) {
        while self.broken.is_none() {
            let Some(session) = &self.links[link].session else { return };
            let moved = match session.awaits() {
                Awaits::Line => self.feed_line(link),
                Awaits::Body => self.feed_body(link),
                Awaits::Answer => self.feed_heard(link),
                Awaits::Nothing => false,
            };
            if !moved {
                self.set_timer(link);
                return;
            }
        }
    }

    fn feed_line(&mut self, link: usize) -> bool {
        let it = &mut self.links[link];
        let inbox = &mut it.inbox;
        let fault = match scan(&inbox.octets) {
            Scan::Line { text } => {
                let fresh = inbox.passed >= inbox.unproven_until && !it.tells_delivery;
                let more = inbox.octets.len() > text + 2;
                let line: Vec<u8> = inbox.octets.drain(..text + 2).take(text).collect();
                inbox.passed += text + 2;
                self.feed(link, Fed::Command { fresh }, Event::Line { text: &line, more, fresh });
                return true;
            }
            Scan::TooLong => LineFault::TooLong,
            Scan::BareLineFeed => LineFault::BareLineFeed,
            Scan::Incomplete => {
                self.flush(link);
                let gone = self.links[link].gone;
                if gone {
                    self.feed(link, Fed::Unasked, Event::PeerGone);
                }
                return gone;
            }
        };
        self.feed(link, Fed::Command { fresh: false }, Event::BadLine(fault));
        true
    }

    fn feed_body(&mut self, link: usize) -> bool {
        let it = &mut self.links[link];
        if it.inbox.octets.is_empty() {
            self.flush(link);
            let gone = self.links[link].gone;
            if gone {
                self.feed(link, Fed::Unasked, Event::PeerGone);
            }
            return gone;
        }
        let chunk = Bytes::from(std::mem::take(&mut it.inbox.octets));
        it.inbox.passed += chunk.len();
        self.feed(link, Fed::Body, Event::Body { chunk, held: true });
        true
    }

    /// What needs no waiting: memory, and what the next hop has said.
    fn feed_heard(&mut self, link: usize) -> bool {
        let it = &mut self.links[link];
        if matches!(it.ask, Some(Ask::Reserve)) {
            it.watch.reserved();
            let early = !it.inbox.octets.is_empty();
            self.feed(link, Fed::Answer, Event::Reserved { granted: true, early });
            return true;
        }
        if !matches!(self.links[link].ask, Some(Ask::Hear)) {
            return false;
        }
        let Some(heard) = self.hears(link) else { return false };
        self.feed(link, Fed::Answer, Event::Heard(heard));
        true
    }

    /// The session's deadline is looked at when it is due, not each time it moves.
    fn set_timer(&mut self, link: usize) {
        let it = &mut self.links[link];
        let Some(due) = it.session.as_ref().and_then(Session::deadline) else { return };
        let due = due.saturating_duration_since(self.fixture.base).as_millis();
        let due = Time::try_from(due).unwrap_or(Time::MAX);
        if it.timer.is_none_or(|timer| timer > due) {
            it.timer = Some(due);
            self.queue.plan(due.max(self.now), Happening::Timer { link });
        }
    }

    pub(super) fn timer(&mut self, link: usize) {
        let it = &mut self.links[link];
        if it.timer.take().is_none_or(|timer| timer > self.now) {
            return;
        }
        let due = it.session.as_ref().and_then(Session::deadline);
        let now = self.fixture.base + Duration::from_millis(self.now);
        if due.is_some_and(|due| due <= now) {
            if matches!(it.ask, Some(Ask::Body(_))) {
                self.body_sent(link, Err(BodyFailed { dot_may_have_left: false, pending: None }));
            } else {
                self.feed(link, Fed::Unasked, Event::Deadline);
            }
        }
        self.drive(link);
    }

    // === One step.

    pub(super) fn feed(&mut self, link: usize, fed: Fed, event: Event<'_>) {
        if !self.survives(self.links[link].node) {
            return;
        }
        if self.random.permille(self.plan.panic) {
            self.panics(link);
            return;
        }
        self.note(|_| format!("  {link} event {}", show::event(&event)));
        let at = self.moment(link);
        let it = &mut self.links[link];
        it.ask = None;
        let Some(session) = it.session.take() else { return };
        let was = session.awaits();
        let mut effects = Effects::new();
        let before = it.watch.before(fed);
        let session = session.handle(event, at, &mut effects);
        let watched = before.and_then(|()| it.watch.after(fed, was, &session, &effects));
        it.session = Some(session);
        if let Err(complaint) = watched {
            self.breaks(complaint);
        }
        for effect in effects {
            self.note(|_| format!("  {link}   -> {}", show::effect(&effect)));
            if !self.survives(self.links[link].node) || self.links[link].session.is_none() {
                return;
            }
            self.perform(link, effect);
        }
    }
}
