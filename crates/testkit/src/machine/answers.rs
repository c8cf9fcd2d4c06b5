//! What a session waits for and gets without a dialogue's help: its sender's octets, the store's answers, what the
//! next hop has written.

use tempalias_alias::{Attempt, Outcome, RowKey};
use tempalias_relay::{Awaits, Effect, Event, Heard, LineFault, Session};
use tempalias_smtp::line::{Scan, scan};
use tempalias_smtp::reply::NextHopReply;

use super::contract::Fed;
use super::world::{MANY, Side, Stop, World};
use crate::dialogue::{Fault, Lane, Memory};

impl World {
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
                matches!(self.store.fault, Fault::Hangs | Fault::Mute)
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
        if let Some(event) = event {
            self.feed(lane, Fed::Answer, event)?;
            return Ok(true);
        }
        self.side(lane).ask = Some(ask);
        Ok(false)
    }

    fn settle(&mut self, settlements: &[(RowKey, Attempt, Outcome)]) -> bool {
        let durable = self.store.settle(settlements, self.unix());
        durable && self.store.fault == Fault::Up
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
}
