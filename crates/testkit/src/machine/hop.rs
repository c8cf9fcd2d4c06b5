//! The next hop's side of a session.

use tempalias_relay::{BodyFailed, ConnectError, Connected, Effect, Event, Freshness, Heard};
use tempalias_smtp::client::Capabilities;
use tempalias_smtp::reply::NextHopReply;

use super::contract::Fed;
use super::world::{Hop, Stop, World};
use crate::dialogue::{Lane, ehlo_reply};

impl World {
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
    match NextHopReply::parse(ehlo_reply(offers).as_bytes()) {
        Ok(Some((reply, _))) => Ok(Capabilities::of(&reply)),
        Ok(None) => Err("these offers are no whole EHLO reply".into()),
        Err(nonsense) => Err(format!("these offers are no EHLO reply: {nonsense}")),
    }
}
