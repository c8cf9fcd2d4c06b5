//! What happens at RCPT.
//!
//! In this order: is it ours? look it up; is it alive? reach the next hop; tell it MAIL and RCPT; answer the
//! sender with the next hop's class. The sender hears the truth while the protocol has a place for it.

use std::time::{Duration, Instant};

use tempalias_address::Mailbox;
use tempalias_alias::{Admission, AliasId, State as AliasState};
use tempalias_smtp::client::{Envelope, EnvelopeStep};
use tempalias_smtp::{ForwardPath, Reply, Status};

use crate::command::Commands;
use crate::core::Core;
use crate::event::{Connected, Found, Heard};
use crate::session::{State, close, close_with};
use crate::transaction::{AliasRow, MAX_OPERATOR_MESSAGE, Recipient, Transaction, Upstream};
use crate::{Effect, Effects, Event, Freshness, NextHop, Refusal};

/// How long a guesser waits for each further answer.
const SLOW_DOWN: Duration = Duration::from_secs(1);

/// Waits for the row.
#[derive(Debug)]
pub(crate) struct Lookup {
    transaction: Transaction,
    address: Mailbox,
    id: AliasId,
    pub(crate) since: Instant,
}

/// Waits for the operator's quota.
#[derive(Debug)]
pub(crate) struct Asking {
    transaction: Transaction,
    recipient: Recipient,
    pub(crate) since: Instant,
}

/// Waits for a connection.
#[derive(Debug)]
pub(crate) struct Dialling {
    transaction: Transaction,
    candidate: Candidate,
    next_hop: NextHop,
    pub(crate) deadline: Instant,
}

/// Waits for the next hop's answers to MAIL and RCPT.
#[derive(Debug)]
pub(crate) struct Naming {
    transaction: Transaction,
    upstream: Upstream,
    candidate: Candidate,
    next_hop: NextHop,
    envelope: Envelope,
    pub(crate) deadline: Instant,
}

/// A recipient that the next hop has yet to accept.
#[derive(Debug)]
struct Candidate {
    recipient: Recipient,
    target: Mailbox,
}

/// RCPT was said.
pub(crate) fn begin(
    transaction: Transaction,
    path: ForwardPath,
    core: &mut Core,
    out: &mut Effects,
) -> State {
    if let Some(refusal) = guard(&transaction, core) {
        return refuse(transaction, refusal, core, out);
    }
    let address = match path {
        ForwardPath::Postmaster => return operator(transaction, "postmaster", None, core, out),
        ForwardPath::Mailbox(address) => address,
    };
    if !core.policy.is_ours(address.domain()) {
        return refuse(transaction, Refusal::RelayDenied, core, out);
    }
    for role in ["postmaster", "abuse"] {
        if address.local_part().as_str().eq_ignore_ascii_case(role) {
            return operator(transaction, role, Some(&address), core, out);
        }
    }
    let Ok(id) = AliasId::try_from(address.local_part()) else {
        return refuse(transaction, Refusal::UnknownAlias, core, out);
    };
    // The same alias twice is one claim and one RCPT to the next hop.
    if transaction.recipients.iter().any(|to| to.address == canonical(&id, &address)) {
        return accepted(transaction, core, out);
    }
    if transaction.stands_alone() {
        return refuse(transaction, Refusal::SeparateTransaction, core, out);
    }
    out.push(Effect::Find(core.policy.keys.row_keys(&id)));
    State::Lookup(Box::new(Lookup { transaction, address, id, since: core.at.instant }))
}

/// What is refused before looking at the address.
fn guard(transaction: &Transaction, core: &Core) -> Option<Refusal> {
    let (limits, tally) = (&core.policy.limits, &core.tally);
    if transaction.recipients.len() >= limits.max_recipients {
        return Some(Refusal::SeparateTransaction); // RFC 5321 §4.5.3.1.10
    }
    let guesses = tally.refused_recipients >= limits.slow_after_refused;
    (guesses && !transaction.recipients.is_empty()).then_some(Refusal::SeparateTransaction)
}

/// One spelling of an alias's address.
fn canonical(id: &AliasId, address: &Mailbox) -> String {
    format!("{id}@{}", address.domain())
}

/// postmaster@ and abuse@ reach the operator: never counted, never expired, but limited (RFC 5321 §4.5.1).
fn operator(
    transaction: Transaction,
    role: &str,
    address: Option<&Mailbox>,
    core: &mut Core,
    out: &mut Effects,
) -> State {
    let Some(domain) = address.map(Mailbox::domain).or(core.policy.domains.first()) else {
        return refuse(transaction, Refusal::RelayDenied, core, out);
    };
    if transaction.parameters.size.is_some_and(|size| size > MAX_OPERATOR_MESSAGE) {
        return refuse(transaction, Refusal::TooBig, core, out);
    }
    let recipient = Recipient {
        address: format!("{role}@{domain}"),
        target: Some(core.policy.operator.clone()),
        alias: None,
        only_retry: false,
    };
    if transaction.recipients.iter().any(|to| to.address == recipient.address) {
        return accepted(transaction, core, out);
    }
    if transaction.stands_alone() {
        return refuse(transaction, Refusal::SeparateTransaction, core, out);
    }
    out.push(Effect::Quota(core.policy.keys.first().client_tag("operator", core.client())));
    State::Asking(Box::new(Asking { transaction, recipient, since: core.at.instant }))
}

impl Asking {
    pub(crate) fn on(self: Box<Self>, event: &Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        let Self { transaction, recipient, .. } = *self;
        match event {
            Event::Quota(Ok(true)) => {
                let target = core.policy.operator.clone();
                reach(transaction, Candidate { recipient, target }, core, out)
            }
            Event::Quota(Ok(false)) => refuse(transaction, Refusal::OperatorQuota, core, out),
            Event::Quota(Err(_)) | Event::Deadline => refuse(transaction, Refusal::StoreDown, core, out),
            _ => gone(transaction, out),
        }
    }
}

impl Lookup {
    pub(crate) fn on(self: Box<Self>, event: Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        match event {
            Event::Found(Ok(Some(found))) => self.found(&found, core, out),
            Event::Found(Ok(None)) => refuse(self.transaction, Refusal::UnknownAlias, core, out),
            Event::Found(Err(_)) | Event::Deadline => refuse(self.transaction, Refusal::StoreDown, core, out),
            _ => gone(self.transaction, out),
        }
    }

    fn found(self, found: &Found, core: &mut Core, out: &mut Effects) -> State {
        let Self { transaction, address, id, .. } = self;
        let Some(key) = core.policy.keys.maker_of(&id, found.row) else {
            return refuse(transaction, Refusal::StoreDown, core, out);
        };
        let sender = key.sender_tag(&id, &transaction.sender);
        let admission = found.ledger.admit(found.now);
        let expected = admission != Admission::Alive && found.ledger.expects(sender, found.now);
        match admission {
            Admission::Over if !expected => return refuse(transaction, Refusal::UnknownAlias, core, out),
            Admission::Held if !expected => return refuse(transaction, Refusal::Held, core, out),
            // One answer after the dot speaks for all recipients, and this one's may differ for as long as its claim
            // is kept: the others would not be told theirs in all that time.
            _ if expected && !transaction.recipients.is_empty() => {
                return refuse(transaction, Refusal::SeparateTransaction, core, out);
            }
            _ => {}
        }
        let target = if found.ledger.state == AliasState::Removed {
            None // its seal is wiped; only a message that was delivered can still be answered
        } else {
            match key.open(&id, &found.sealed) {
                Ok(private) if private.domain != *address.domain() => {
                    return refuse(transaction, Refusal::UnknownAlias, core, out);
                }
                Ok(private) => Some(private.target),
                // A damaged row is our fault, not the sender's: it may retry.
                Err(_) => return refuse(transaction, Refusal::StoreDown, core, out),
            }
        };
        let recipient = Recipient {
            address: canonical(&id, &address),
            target: target.clone(),
            alias: Some(AliasRow {
                id,
                row: found.row,
                sender,
                was_counted: found.ledger.limits.max_usage.is_some(),
            }),
            only_retry: expected,
        };
        route(transaction, recipient, target, expected, core, out)
    }
}

/// The alias is alive, or a retry is expected: can it share this transaction, and is the next hop to be asked?
fn route(
    mut transaction: Transaction,
    recipient: Recipient,
    target: Option<Mailbox>,
    expected: bool,
    core: &mut Core,
    out: &mut Effects,
) -> State {
    if target.as_ref().is_some_and(|target| core.policy.is_ours(target.domain())) {
        return refuse(transaction, Refusal::BadRoute, core, out);
    }
    let here = target.as_ref().map(|target| core.policy.next_hop(target));
    let there = transaction.next_hop(&core.policy);
    if here.is_some() && there.is_some() && here != there {
        return refuse(transaction, Refusal::SeparateTransaction, core, out);
    }
    match target {
        Some(target) if !expected => reach(transaction, Candidate { recipient, target }, core, out),
        // No dialling: whether this is the expected retry shows at the dot.
        _ => {
            transaction.recipients.push(recipient);
            accepted(transaction, core, out)
        }
    }
}

/// Asks the next hop, dialling it first if need be.
fn reach(mut transaction: Transaction, candidate: Candidate, core: &mut Core, out: &mut Effects) -> State {
    let deadline = core.at.instant + core.policy.limits.envelope_timeout;
    let next_hop = core.policy.next_hop(&candidate.target);
    if transaction.next_hop(&core.policy).is_some_and(|there| there != next_hop) {
        return refuse(transaction, Refusal::SeparateTransaction, core, out);
    }
    match transaction.upstream.take() {
        Some(upstream) => name(transaction, upstream, candidate, next_hop, deadline, core, out),
        None => dial(transaction, candidate, next_hop, Freshness::Any, deadline, out),
    }
}

fn dial(
    transaction: Transaction,
    candidate: Candidate,
    next_hop: NextHop,
    freshness: Freshness,
    deadline: Instant,
    out: &mut Effects,
) -> State {
    out.push(Effect::Connect(next_hop.clone(), freshness));
    State::Dialling(Box::new(Dialling { transaction, candidate, next_hop, deadline }))
}

impl Dialling {
    pub(crate) fn on(self: Box<Self>, event: &Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        let Self { mut transaction, candidate, next_hop, deadline } = *self;
        match event {
            Event::Connected(Ok(Connected { offered, .. })) => {
                let upstream = Upstream::new(*offered);
                if let Err(refusal) = transaction.suits(offered, Some(&candidate.target)) {
                    transaction.upstream = Some(upstream);
                    transaction.release(out);
                    return refuse(transaction, refusal, core, out);
                }
                name(transaction, upstream, candidate, next_hop, deadline, core, out)
            }
            Event::Connected(Err(error)) => refuse(transaction, Refusal::Connect(*error), core, out),
            Event::Deadline => {
                refuse(transaction, Refusal::Connect(crate::ConnectError::NoConnection), core, out)
            }
            _ => gone(transaction, out),
        }
    }
}

/// Says MAIL, unless that was said, and RCPT.
fn name(
    mut transaction: Transaction,
    upstream: Upstream,
    candidate: Candidate,
    next_hop: NextHop,
    deadline: Instant,
    core: &mut Core,
    out: &mut Effects,
) -> State {
    // RFC 9422 §4: the next hop's own limit.
    let is_full = upstream.offered.rcpt_max.is_some_and(|max| upstream.named.len() >= max);
    if is_full || !upstream.can_name(&candidate.target) {
        transaction.upstream = Some(upstream);
        return refuse(transaction, Refusal::SeparateTransaction, core, out);
    }
    let parameters = transaction.parameters_with(Some(&candidate.target));
    let mail = upstream.said.is_none().then_some((&transaction.sender, &parameters));
    let mut envelope = Envelope::new(&upstream.offered, mail, std::iter::once(&candidate.target));
    if let EnvelopeStep::Say(bytes) = envelope.start() {
        out.push(Effect::Say(bytes));
    }
    out.push(Effect::Hear);
    State::Naming(Box::new(Naming { transaction, upstream, candidate, next_hop, envelope, deadline }))
}

impl Naming {
    pub(crate) fn on(mut self: Box<Self>, event: Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        let step = match event {
            Event::Heard(Heard::Reply(reply)) => self.envelope.hear(&reply),
            Event::Heard(Heard::Nonsense(_)) => EnvelopeStep::Nonsense,
            Event::Heard(Heard::Lost) => return self.lost(core, out),
            Event::Deadline => {
                return self.broken(Refusal::Connect(crate::ConnectError::NoConnection), core, out);
            }
            _ => {
                out.push(Effect::Release(crate::After::Unknown));
                return gone(self.transaction, out);
            }
        };
        match step {
            EnvelopeStep::Say(bytes) => {
                out.push(Effect::Say(bytes));
                out.push(Effect::Hear);
                State::Naming(self)
            }
            EnvelopeStep::Wait => {
                out.push(Effect::Hear);
                State::Naming(self)
            }
            EnvelopeStep::Done(outcome) => self.answered(&outcome, core, out),
            EnvelopeStep::Closing => self.lost(core, out),
            EnvelopeStep::Nonsense => self.broken(Refusal::Nonsense, core, out),
        }
    }

    fn answered(
        self,
        outcome: &tempalias_smtp::client::EnvelopeOutcome,
        core: &mut Core,
        out: &mut Effects,
    ) -> State {
        let Self { mut transaction, mut upstream, candidate, .. } = self;
        if let Some((class, detail)) = outcome.mail {
            out.push(Effect::Release(crate::After::OpenTransaction));
            return refuse(transaction, Refusal::NextHop(class, detail), core, out);
        }
        upstream.said.get_or_insert(transaction.parameters_with(Some(&candidate.target)));
        if let Some((class, detail)) = outcome.refusal() {
            transaction.upstream = Some(upstream);
            return refuse(transaction, Refusal::NextHop(class, detail), core, out);
        }
        upstream.named.push(transaction.recipients.len());
        transaction.upstream = Some(upstream);
        transaction.recipients.push(candidate.recipient);
        accepted(transaction, core, out)
    }

    /// The connection died before our dot: once, another one takes its place. Recipients that this one had
    /// accepted are named again at the dot.
    fn lost(self, core: &mut Core, out: &mut Effects) -> State {
        out.push(Effect::Release(crate::After::Unknown));
        let Self { mut transaction, candidate, next_hop, deadline, .. } = self;
        if std::mem::take(&mut transaction.may_redial) {
            return dial(transaction, candidate, next_hop, Freshness::New, deadline, out);
        }
        refuse(transaction, Refusal::ConnectionLost, core, out)
    }

    fn broken(self, refusal: Refusal, core: &mut Core, out: &mut Effects) -> State {
        out.push(Effect::Release(crate::After::Unknown));
        refuse(self.transaction, refusal, core, out)
    }
}

fn accepted(transaction: Transaction, core: &mut Core, out: &mut Effects) -> State {
    core.tally.accepted_recipients += 1;
    out.push(Effect::Reply(Reply::new(Status::RecipientOk, "Recipient taken")));
    State::Commands(Commands::new(Some(transaction), core))
}

fn refuse(mut transaction: Transaction, refusal: Refusal, core: &mut Core, out: &mut Effects) -> State {
    out.push(Effect::Refused(refusal.status()));
    if matches!(refusal, Refusal::UnknownAlias | Refusal::RelayDenied) {
        let limits = &core.policy.limits;
        core.tally.refused_recipients += 1;
        if core.tally.accepted_recipients == 0
            && core.tally.refused_recipients >= limits.max_refused_recipients
        {
            transaction.release(out);
            return close_with(Refusal::TooManyRefused, out);
        }
        if core.tally.refused_recipients > limits.slow_after_refused {
            out.push(Effect::Pause(SLOW_DOWN));
        }
    }
    out.push(Effect::Reply(refusal.reply()));
    State::Commands(Commands::new(Some(transaction), core))
}

fn gone(mut transaction: Transaction, out: &mut Effects) -> State {
    transaction.release(out);
    close(out)
}
