//! One session's task: feeds the machine, performs its effects.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempalias_outside::{Connection, DialError};
use tempalias_relay::{
    Awaits, BodyFailed, Connected, Effect, Effects, Event, Freshness, Heard, Moment, NextHop, Outgoing, Peer,
    Session, StoreDown,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout, timeout_at};

use crate::budget::Share;
use crate::claims::Outstanding;
use crate::door::Seat;
use crate::reading::{Inbox, Next, chunk, waiting};
use crate::{DRAIN_GRACE, OPERATOR_RATE, Running, Shared, report, translate};

/// A peer that does not read our replies for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);

/// What performing effects needs.
struct Driver {
    shared: Arc<Shared>,
    stream: TcpStream,
    inbox: Inbox,
    /// Replies to be written.
    replies: Vec<u8>,
    /// Whether a reply among them tells of a delivery whose claim waits for the sender to show that it read it.
    tells_delivery: bool,
    upstream: Option<Box<Connection>>,
    /// What the message now coming in holds of the budget; none: it is not kept.
    memory: Option<Share>,
    claims: Outstanding,
    seat: Seat,
    _running: Running,
}

/// Runs one connection to its end.
pub(crate) async fn run(shared: Arc<Shared>, stream: TcpStream, address: IpAddr, number: u64, seat: Seat) {
    let running = shared.running();
    let smarthost_size = shared.parts.outside.smarthost_size();
    let peer = Peer { address, session: number, smarthost_size };
    let mut session = Session::new(shared.parts.policy.clone(), peer, now(&shared));
    let mut driver = Driver {
        claims: Outstanding::new(shared.clone(), running.clone()),
        shared,
        stream,
        inbox: Inbox::default(),
        replies: vec![],
        tells_delivery: false,
        upstream: None,
        memory: None,
        seat,
        _running: running,
    };
    let mut effects = Effects::new();
    let early = waiting(&driver.stream) > 0;
    session = session.handle(Event::Opened { early }, now(&driver.shared), &mut effects);
    loop {
        let answer = match driver.perform(&mut effects, session.deadline()).await {
            Performed::Nothing => None,
            Performed::Answer(event) => Some(event),
            Performed::Closed => break,
        };
        session = match answer {
            Some(event) => session.handle(event, now(&driver.shared), &mut effects),
            None => match session.awaits() {
                Awaits::Line => driver.feed_line(session, &mut effects).await,
                Awaits::Body => {
                    let event = driver.body(session.deadline()).await;
                    session.handle(event, now(&driver.shared), &mut effects)
                }
                Awaits::Answer | Awaits::Nothing => break,
            },
        };
    }
    // Orderly, so that the last reply is read before the connection is reset.
    drop(timeout(WRITE_TIMEOUT, driver.stream.shutdown()).await);
}

enum Performed {
    /// All was done, and nothing was asked.
    Nothing,
    /// The effect that asks was answered.
    Answer(Event<'static>),
    /// The connection is to be closed.
    Closed,
}

fn now(shared: &Shared) -> Moment {
    let store = &shared.parts.store;
    Moment { instant: Instant::now(), unix: store.now(), owner: store.owner() }
}

impl Driver {
    /// Performs effects in order. What is left of the list behind an effect that asks is performed first: those
    /// are replies.
    async fn perform(&mut self, effects: &mut Effects, deadline: Option<Instant>) -> Performed {
        let mut answer = Performed::Nothing;
        for effect in effects.drain(..) {
            match effect {
                Effect::Reply(reply) => reply.write_to(&mut self.replies),
                Effect::Pause(pause) => sleep(pause).await,
                Effect::Say(commands) => self.say(&commands).await,
                Effect::Release(after) => {
                    if let Some(connection) = self.upstream.take() {
                        self.shared.parts.outside.release(*connection, translate::after(after));
                    }
                }
                Effect::Discard => self.memory = None,
                Effect::Unread(octets) => self.inbox.put_back(&octets),
                Effect::SettleLater(settlements) => {
                    self.claims.settle(settlements.into_iter().map(translate::settlement).collect()).await;
                }
                Effect::Acknowledge(delivered) => self.claims.acknowledge(delivered).await,
                Effect::Report(summary) => {
                    self.claims.mail_ended();
                    self.tells_delivery |= summary.ending.is_delivery();
                    report::mail(&summary, self.shared.parts.log_addresses);
                }
                Effect::Refused(status) => report::refused(status),
                Effect::Close => {
                    _ = self.flush().await;
                    return Performed::Closed;
                }
                asks => answer = Performed::Answer(self.ask(asks, deadline).await),
            }
        }
        answer
    }

    /// Performs an effect that asks, until the session's deadline.
    async fn ask(&mut self, effect: Effect, deadline: Option<Instant>) -> Event<'static> {
        let Some(deadline) = deadline else { return self.answer(effect).await };
        if let Effect::SendBody(outgoing) = effect {
            return self.send_body(&outgoing, deadline).await;
        }
        let is_heard = matches!(effect, Effect::Hear);
        match timeout_at(deadline.into(), self.answer(effect)).await {
            Ok(event) => event,
            Err(_) if is_heard => self.last_look().await,
            Err(_) => Event::Deadline,
        }
    }

    /// A process that was stopped beyond the deadline (its machine was asleep) learns that time is over before it learns
    /// what came meanwhile: a verdict that is already here counts.
    async fn last_look(&mut self) -> Event<'static> {
        let Some(connection) = &mut self.upstream else { return Event::Deadline };
        connection.pending_reply().await.map_or(Event::Deadline, |reply| Event::Heard(Heard::Reply(reply)))
    }

    async fn answer(&mut self, effect: Effect) -> Event<'static> {
        let parts = &self.shared.parts;
        match effect {
            Effect::Find(rows) => {
                let found = parts.store.find(&rows).await;
                let found = found.map(|found| found.map(translate::found));
                Event::Found(found.map_err(|error| translate::store_down(&error)))
            }
            Effect::Quota(tag) => {
                let taken = parts.store.take(tag, OPERATOR_RATE).await;
                Event::Quota(taken.map(|taken| taken.is_ok()).map_err(|error| translate::store_down(&error)))
            }
            Effect::Connect(next_hop, freshness) => Box::pin(self.connect(next_hop, freshness)).await,
            Effect::Hear => Event::Heard(match &mut self.upstream {
                Some(connection) => translate::heard(connection.reply().await),
                None => Heard::Lost,
            }),
            Effect::Reserve => {
                self.memory = Some(self.shared.budget.begin().await);
                Event::Reserved { granted: true, early: !self.inbox.is_empty() }
            }
            Effect::Claim(requests) => {
                if !self.claims.may_ask(&requests) {
                    return Event::Claimed(Err(StoreDown));
                }
                let answers = self.shared.parts.store.claim(requests).await;
                let answers = answers.map(|answers| answers.iter().map(translate::claimed).collect());
                Event::Claimed(answers.map_err(|error| translate::store_down(&error)))
            }
            Effect::Settle(settlements) => {
                self.claims.settle(settlements.into_iter().map(translate::settlement).collect()).await;
                self.claims.settled().await;
                Event::Settled
            }
            // Not an effect that asks: there is nothing to wait for.
            _ => Event::Settled,
        }
    }

    async fn connect(&mut self, next_hop: NextHop, freshness: Freshness) -> Event<'static> {
        let parts = &self.shared.parts;
        let Some(route) = translate::route(parts, next_hop) else {
            return Event::Connected(Err(tempalias_relay::ConnectError::NoConnection));
        };
        match parts.outside.connect(&route, translate::freshness(freshness)).await {
            Ok(connection) => {
                let connected =
                    Connected { offered: *connection.capabilities(), reused: connection.is_reused() };
                self.upstream = Some(Box::new(connection));
                Event::Connected(Ok(connected))
            }
            Err(error @ DialError::BadRoute) => {
                // Only the operator can tell whether this is an attack or a network of theirs.
                tracing::warn!(%error, "a mail was refused");
                Event::Connected(Err(translate::connect_error(error)))
            }
            Err(error) => {
                tracing::debug!(%error, "no next hop");
                Event::Connected(Err(translate::connect_error(error)))
            }
        }
    }

    /// A failure shows when the answer is waited for.
    async fn say(&mut self, commands: &[u8]) {
        if let Some(connection) = &mut self.upstream {
            drop(timeout(WRITE_TIMEOUT, connection.send(commands)).await);
        }
    }

    async fn send_body(&mut self, outgoing: &Outgoing, deadline: Instant) -> Event<'static> {
        let Some(connection) = &mut self.upstream else {
            return Event::BodySent(Err(BodyFailed { dot_may_have_left: false, pending: None }));
        };
        let store = &self.shared.parts.store;
        let may_end = || outgoing.claimed_by().is_none_or(|owner| store.may_send(owner));
        let sending = connection.send_body(outgoing.prefix(), outgoing.segments(), may_end);
        Event::BodySent(match timeout_at(deadline.into(), sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failed)) => Err(BodyFailed {
                dot_may_have_left: failed.dot_may_have_left,
                // What the next hop said before the connection broke is read first.
                pending: connection.pending_reply().await.map(Heard::Reply),
            }),
            Err(_) => Err(BodyFailed { dot_may_have_left: connection.dot_may_have_left(), pending: None }),
        })
    }

    /// Waits for a command line and feeds it. Replies are written out when nothing more is there to be answered
    /// (RFC 2920 §3.2: replies to a group may be sent as one).
    async fn feed_line(&mut self, session: Session, effects: &mut Effects) -> Session {
        let deadline = session.deadline();
        let event = loop {
            match self.inbox.next() {
                Next::Line { text, fresh, more } => {
                    // What is here before the reply that tells of a delivery is written shows nothing either.
                    let fresh = fresh && !self.tells_delivery;
                    let event = Event::Line { text: self.inbox.line(text), more, fresh };
                    let session = session.handle(event, now(&self.shared), effects);
                    self.inbox.pass(text + 2);
                    return session;
                }
                Next::Bad(fault) => break Event::BadLine(fault),
                Next::Incomplete => {}
            }
            if self.flush().await.is_err() {
                break Event::PeerGone;
            }
            if let Some(event) = self.wait_for_input(deadline).await {
                break event;
            }
        };
        session.handle(event, now(&self.shared), effects)
    }

    /// None: there is input. Otherwise what happened instead.
    async fn wait_for_input(&mut self, deadline: Option<Instant>) -> Option<Event<'static>> {
        let mut draining = self.shared.draining.subscribe();
        let far = || Instant::now() + Duration::from_hours(24);
        self.seat.idle();
        let event = tokio::select! {
            biased;
            open = self.inbox.fill(&mut self.stream) => (!open.unwrap_or(false)).then_some(Event::PeerGone),
            () = tokio::time::sleep_until(deadline.unwrap_or_else(far).into()) => Some(Event::Deadline),
            _ = draining.wait_for(|draining| *draining) => Some(Event::Drain),
            () = self.seat.guest.leave.notified() => Some(Event::Evicted),
        };
        self.seat.busy();
        event
    }

    /// Waits for a chunk of the message.
    async fn body(&mut self, deadline: Option<Instant>) -> Event<'static> {
        if !self.inbox.is_empty() {
            let chunk = self.inbox.take_all();
            return self.hold(chunk).await;
        }
        if self.flush().await.is_err() {
            return Event::PeerGone;
        }
        let mut draining = self.shared.draining.subscribe();
        let due = deadline.unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
        let grace_over = async {
            // Who sends while the program wants to end may finish soon, or come again.
            if draining.wait_for(|draining| *draining).await.is_ok() {
                sleep(DRAIN_GRACE).await;
            }
        };
        let chunk = tokio::select! {
            biased;
            chunk = chunk(&mut self.stream) => chunk.unwrap_or_default(),
            () = tokio::time::sleep_until(due.into()) => return Event::Deadline,
            () = grace_over => return Event::Drain,
        };
        if chunk.is_empty() { Event::PeerGone } else { self.hold(chunk).await }
    }

    async fn hold(&mut self, chunk: Bytes) -> Event<'static> {
        let held = match &mut self.memory {
            Some(share) => self.shared.budget.grow(share, chunk.len()).await,
            // Read to its end, and forgotten: it needs no room.
            None => true,
        };
        Event::Body { chunk, held }
    }

    /// Writes all replies out.
    async fn flush(&mut self) -> Result<(), ()> {
        if self.replies.is_empty() {
            return Ok(());
        }
        let replies = std::mem::take(&mut self.replies);
        let tells_delivery = std::mem::take(&mut self.tells_delivery);
        // Who pipelined something behind its dot has done so long ago: a next hop and a disk have answered since.
        // If nothing is here now, what comes was sent by somebody who could read this reply. (Looking only after
        // the write would take a quick sender's answer for something pipelined; docs/decisions/015.)
        let has_pipelined = tells_delivery && self.inbox.has_waiting(&self.stream);
        timeout(WRITE_TIMEOUT, self.stream.write_all(&replies)).await.map_err(drop)?.map_err(drop)?;
        if has_pipelined {
            self.inbox.mark_unproven(&self.stream);
        }
        Ok(())
    }
}
