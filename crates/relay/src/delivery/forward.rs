//! Behind the claim: reach the next hop again if need be, send, hear the verdict.
//!
//! Here every recipient has its permit. Whatever happens, each permit is settled once.

use std::time::Instant;

use tempalias_alias::{Limits, Outcome};
use tempalias_smtp::client::{Envelope, EnvelopeStep};
use tempalias_smtp::reply::{Detail, NextHopReply, Refused};

use super::{Mail, turn_away};
use crate::core::Core;
use crate::event::{BodyFailed, Connected, Heard};
use crate::prefix::{Addressee, AliasState, Trace, prefix};
use crate::session::State;
use crate::settle::{delivered, refused};
use crate::transaction::{Recipient, Upstream};
use crate::{After, ConnectError, Effect, Effects, Event, Freshness, Outgoing, Permit, Refusal};

/// A mail that may be sent: there is a permit for each part.
#[derive(Debug)]
pub(super) struct Cleared {
    pub(super) mail: Mail,
    pub(super) parts: Vec<Part>,
    pub(super) permits: Vec<Permit>,
}

/// One recipient that gets it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) recipient: usize,
    /// What the claim told of the alias; none for the operator.
    pub(super) standing: Option<(Limits, u32)>,
}

/// Waits for a connection.
#[derive(Debug)]
pub(crate) struct Redialling(Cleared);

/// Waits for the answers to a replayed envelope.
#[derive(Debug)]
pub(crate) struct Renaming {
    cleared: Cleared,
    envelope: Envelope,
    /// The recipients it names.
    named: Vec<usize>,
}

/// DATA is said; waits for 354.
#[derive(Debug)]
pub(crate) struct Opening {
    cleared: Cleared,
    prefix: Vec<u8>,
}

/// The message is going out.
#[derive(Debug)]
pub(crate) struct Sending(Cleared);

/// Our dot is out; waits for the verdict.
#[derive(Debug)]
pub(crate) struct Verdict(Cleared);

/// How a refusal before our dot ends a claim.
fn outcome_of(class: Refused) -> Outcome {
    match class {
        Refused::Permanent => Outcome::Refused,
        Refused::Transient => Outcome::Deferred,
    }
}

impl Cleared {
    /// Sees that the next hop's transaction names exactly the recipients that get the message, and opens it.
    pub(super) fn proceed(mut self, core: &mut Core, out: &mut Effects) -> State {
        let wanted: Vec<usize> = self.parts.iter().map(|part| part.recipient).collect();
        let Some(upstream) = &self.mail.transaction.upstream else {
            return self.dial(Freshness::Any, core, out);
        };
        let names_others = upstream.named.iter().any(|named| !wanted.contains(named));
        let said_too_little =
            upstream.said.is_some_and(|said| said != self.mail.transaction.parameters_with(None));
        if names_others || said_too_little {
            // Somebody has the message already, or cannot be named in this transaction: begin again.
            self.mail.transaction.release(out);
            return self.dial(Freshness::Any, core, out);
        }
        let missing: Vec<usize> = wanted.into_iter().filter(|i| !upstream.named.contains(i)).collect();
        if missing.is_empty() { self.open(core, out) } else { self.name(missing, core, out) }
    }

    fn dial(self, freshness: Freshness, core: &mut Core, out: &mut Effects) -> State {
        let Some(next_hop) = self.mail.transaction.next_hop(&core.policy) else {
            return self.fail(Refusal::UnknownAlias, Outcome::Unsent, core, out);
        };
        out.push(Effect::Connect(next_hop, freshness));
        State::Redialling(Box::new(Redialling(self)))
    }

    fn name(self, named: Vec<usize>, core: &mut Core, out: &mut Effects) -> State {
        let transaction = &self.mail.transaction;
        let targets = named.iter().map(|&i| transaction.recipients.get(i).and_then(|to| to.target.as_ref()));
        let (Some(targets), Some(upstream)) = (targets.collect::<Option<Vec<_>>>(), &transaction.upstream)
        else {
            return self.fail(Refusal::UnknownAlias, Outcome::Unsent, core, out);
        };
        let parameters = transaction.parameters_with(None);
        let mail = upstream.said.is_none().then_some((&transaction.sender, &parameters));
        let mut envelope = Envelope::new(&upstream.offered, mail, targets.into_iter());
        if let EnvelopeStep::Say(bytes) = envelope.start() {
            out.push(Effect::Say(bytes));
        }
        out.push(Effect::Hear);
        State::Renaming(Box::new(Renaming { cleared: self, envelope, named }))
    }

    /// All recipients stand: asks to send.
    fn open(self, core: &mut Core, out: &mut Effects) -> State {
        let prefix = self.prefix(core);
        let size = self.mail.octets + prefix.len() as u64;
        let max = self.mail.transaction.upstream.as_ref().and_then(|upstream| upstream.offered.max_size());
        if max.is_some_and(|max| size > max) {
            return self.fail(Refusal::TooBig, Outcome::Refused, core, out);
        }
        out.push(Effect::Say(b"DATA\r\n".to_vec()));
        out.push(Effect::Hear);
        State::AskingToSend(Box::new(Opening { cleared: self, prefix }))
    }

    fn prefix(&self, core: &Core) -> Vec<u8> {
        let Some(hello) = &core.hello else { return vec![] };
        let trace = Trace {
            hello: &hello.name,
            extended: hello.extended,
            smtputf8: self.mail.transaction.parameters.smtputf8,
            peer: core.peer.address,
        };
        let recipients = &self.mail.transaction.recipients;
        let addressees: Vec<Addressee<'_>> = self
            .parts
            .iter()
            .filter_map(|part| recipients.get(part.recipient).map(|to| addressee(to, part, core)))
            .collect();
        prefix(&core.policy, &trace, &self.mail.transaction.sender, &addressees, core.at.unix)
    }

    /// The connection died before our dot: once, another one takes its place.
    fn lost(mut self, core: &mut Core, out: &mut Effects) -> State {
        self.mail.transaction.abandon(out);
        let in_time = core.at.instant < self.mail.deadline;
        if in_time && std::mem::take(&mut self.mail.transaction.may_redial) {
            return self.dial(Freshness::New, core, out);
        }
        self.fail(Refusal::ConnectionLost, Outcome::Unsent, core, out)
    }

    /// Nothing was sent. A connection that is still there is usable.
    fn fail(self, refusal: Refusal, outcome: Outcome, core: &mut Core, out: &mut Effects) -> State {
        turn_away(self.mail, self.permits, outcome, refusal, core, out)
    }

    /// Nothing was sent, and the connection's state is not known.
    fn break_off(mut self, refusal: Refusal, core: &mut Core, out: &mut Effects) -> State {
        self.mail.transaction.abandon(out);
        self.fail(refusal, Outcome::Unsent, core, out)
    }

    /// The next hop refused before our dot: with its class, if that speaks for all recipients.
    fn refuse(self, (class, detail): (Refused, Detail), core: &mut Core, out: &mut Effects) -> State {
        self.fail(Refusal::NextHop(class, detail), outcome_of(class), core, out)
    }

    /// Our dot may have arrived, and no verdict will come.
    fn doubt(mut self, refusal: Refusal, core: &mut Core, out: &mut Effects) -> State {
        self.mail.transaction.abandon(out);
        refused(self.mail, self.permits, Outcome::Lost, refusal, core, out)
    }

    /// The next hop's answer to our dot.
    fn judged(mut self, reply: &NextHopReply, core: &mut Core, out: &mut Effects) -> State {
        if reply.code() == 421 {
            self.mail.transaction.abandon(out);
        }
        if let Some((class, detail)) = reply.refusal() {
            self.mail.transaction.upstream.take().inspect(|_| out.push(Effect::Release(After::FinalReply)));
            return refused(
                self.mail,
                self.permits,
                outcome_of(class),
                Refusal::NextHop(class, detail),
                core,
                out,
            );
        }
        if !reply.is_success() {
            return self.doubt(Refusal::Nonsense, core, out);
        }
        self.mail.transaction.upstream.take().inspect(|_| out.push(Effect::Release(After::FinalReply)));
        delivered(self.mail, self.permits, core, out)
    }
}

fn addressee<'a>(to: &'a Recipient, part: &Part, core: &'a Core) -> Addressee<'a> {
    let alias = to.alias.as_ref().zip(part.standing).map(|(alias, (limits, used))| AliasState {
        id: &alias.id,
        key: alias.key(&core.policy),
        limits,
        used,
    });
    Addressee { address: &to.address, alias }
}

impl Redialling {
    pub(crate) fn deadline(&self) -> Instant {
        self.0.mail.deadline
    }

    pub(crate) fn on(self: Box<Self>, event: &Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        let mut cleared = self.0;
        match event {
            Event::Connected(Ok(Connected { offered, .. })) => {
                cleared.mail.transaction.upstream = Some(Upstream::new(*offered));
                if let Err(refusal) = cleared.mail.transaction.suits(offered, None) {
                    return cleared.fail(refusal, Outcome::Refused, core, out);
                }
                let wanted = cleared.parts.iter().map(|part| part.recipient).collect();
                cleared.name(wanted, core, out)
            }
            Event::Connected(Err(error)) => {
                let outcome = match error {
                    ConnectError::NoSuchDomain | ConnectError::NullMx | ConnectError::BadRoute => {
                        Outcome::Refused
                    }
                    ConnectError::NoDnsAnswer | ConnectError::NoConnection => Outcome::Deferred,
                };
                cleared.fail(Refusal::Connect(*error), outcome, core, out)
            }
            _ => cleared.fail(Refusal::Connect(ConnectError::NoConnection), Outcome::Unsent, core, out),
        }
    }
}

impl Renaming {
    pub(crate) fn deadline(&self) -> Instant {
        self.cleared.mail.deadline
    }

    pub(crate) fn on(mut self: Box<Self>, event: Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        let step = match event {
            Event::Heard(Heard::Reply(reply)) => self.envelope.hear(&reply),
            Event::Heard(Heard::Nonsense(_)) => EnvelopeStep::Nonsense,
            Event::Heard(Heard::Lost) => EnvelopeStep::Closing,
            _ => return self.cleared.break_off(Refusal::ConnectionLost, core, out),
        };
        let outcome = match step {
            EnvelopeStep::Done(outcome) => outcome,
            EnvelopeStep::Say(bytes) => {
                out.push(Effect::Say(bytes));
                out.push(Effect::Hear);
                return State::Renaming(self);
            }
            EnvelopeStep::Wait => {
                out.push(Effect::Hear);
                return State::Renaming(self);
            }
            EnvelopeStep::Closing => return self.cleared.lost(core, out),
            EnvelopeStep::Nonsense => return self.cleared.break_off(Refusal::Nonsense, core, out),
        };
        let Self { mut cleared, named, .. } = *self;
        let parameters = cleared.mail.transaction.parameters_with(None);
        if let Some(upstream) = &mut cleared.mail.transaction.upstream {
            upstream.said.get_or_insert(parameters);
            upstream.named.extend(named);
        }
        match outcome.refusal() {
            None => cleared.open(core, out),
            // One of several was refused: each hears its own verdict when it is retried.
            Some(_) if outcome.mail.is_none() && cleared.mail.transaction.recipients.len() > 1 => {
                cleared.fail(Refusal::Disagreement, Outcome::Unsent, core, out)
            }
            Some(refusal) => cleared.refuse(refusal, core, out),
        }
    }
}

impl Opening {
    pub(crate) fn deadline(&self) -> Instant {
        self.cleared.mail.deadline
    }

    pub(crate) fn on(self: Box<Self>, event: Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        let Self { cleared, prefix } = *self;
        let reply = match event {
            Event::Heard(Heard::Reply(reply)) => reply,
            Event::Heard(Heard::Lost) => return cleared.lost(core, out),
            Event::Heard(Heard::Nonsense(_)) => return cleared.break_off(Refusal::Nonsense, core, out),
            _ => return cleared.break_off(Refusal::ConnectionLost, core, out),
        };
        match (reply.code(), reply.refusal()) {
            (354, _) => {
                let told =
                    cleared.mail.transaction.upstream.as_ref().map_or(0, |upstream| upstream.named.len());
                let outgoing = Outgoing::new(&cleared.permits, told, prefix, cleared.mail.body.clone());
                let Some(outgoing) = outgoing else {
                    return cleared.break_off(Refusal::UnknownAlias, core, out);
                };
                out.push(Effect::SendBody(outgoing));
                State::Sending(Box::new(Sending(cleared)))
            }
            (421, _) => cleared.lost(core, out),
            (_, Some(refusal)) => cleared.refuse(refusal, core, out),
            // RFC 5321 §4.3.2: DATA has no 2xx.
            _ => cleared.break_off(Refusal::Nonsense, core, out),
        }
    }
}

impl Sending {
    pub(crate) fn deadline(&self) -> Instant {
        self.0.mail.deadline
    }

    pub(crate) fn on(self: Box<Self>, event: Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        let mut cleared = self.0;
        let failed = match event {
            Event::BodySent(Ok(())) => {
                out.push(Effect::Hear);
                return State::Verdict(Box::new(Verdict(cleared)));
            }
            Event::BodySent(Err(failed)) => failed,
            _ => return cleared.doubt(Refusal::VerdictLost, core, out),
        };
        cleared.mail.transaction.abandon(out);
        match failed {
            // What the next hop said before the connection broke is its verdict, if it is one.
            BodyFailed { pending: Some(Heard::Reply(reply)), dot_may_have_left }
                if dot_may_have_left || reply.refusal().is_some() =>
            {
                cleared.judged(&reply, core, out)
            }
            BodyFailed { dot_may_have_left: true, .. } => cleared.doubt(Refusal::VerdictLost, core, out),
            BodyFailed { pending: Some(Heard::Reply(_) | Heard::Nonsense(_)), .. } => {
                cleared.fail(Refusal::Nonsense, Outcome::Unsent, core, out)
            }
            BodyFailed { .. } => cleared.lost(core, out),
        }
    }
}

impl Verdict {
    pub(crate) fn deadline(&self) -> Instant {
        self.0.mail.deadline
    }

    pub(crate) fn on(self: Box<Self>, event: Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        match event {
            Event::Heard(Heard::Reply(reply)) => self.0.judged(&reply, core, out),
            Event::Heard(Heard::Nonsense(_)) => self.0.doubt(Refusal::Nonsense, core, out),
            _ => self.0.doubt(Refusal::VerdictLost, core, out),
        }
    }
}
