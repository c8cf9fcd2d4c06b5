//! The end of a mail: what the store is told, what the sender is told, what is reported.

use std::time::Instant;

use tempalias_alias::Outcome;
use tempalias_smtp::{Reply, Status};

use crate::command::Commands;
use crate::core::Core;
use crate::delivery::Mail;
use crate::session::State;
use crate::summary::{Ending, Summary};
use crate::{Effect, Effects, Event, Permit, Refusal};

/// Waits until the store has written what became of the claims; then the sender is answered.
#[derive(Debug)]
pub(crate) struct Settling {
    mail: Mail,
    reply: Reply,
    ending: Ending,
    pub(crate) since: Instant,
}

impl Settling {
    pub(crate) fn on(self: Box<Self>, event: &Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        debug_assert!(matches!(event, Event::Settled | Event::Deadline), "{event:?}");
        let Self { mail, reply, ending, .. } = *self;
        finish(mail, reply, ending, core, out)
    }
}

/// The next hop has it: the sender is told at once, the store with its next commit. The use is counted already.
pub(crate) fn delivered(mail: Mail, permits: Vec<Permit>, core: &mut Core, out: &mut Effects) -> State {
    core.unacknowledged.extend(permits.iter().filter_map(Permit::claim));
    let settlements: Vec<_> =
        permits.into_iter().filter_map(|permit| permit.settle(Outcome::Delivered)).collect();
    if !settlements.is_empty() {
        out.push(Effect::SettleLater(settlements));
    }
    let reply = Reply::new(Status::Completed, format!("Delivered, id {}", mail.transaction.id));
    finish(mail, reply, Ending::Delivered, core, out)
}

/// The next hop had it all along: our earlier 250 was not read.
pub(crate) fn delivered_before(mut mail: Mail, core: &mut Core, out: &mut Effects) -> State {
    mail.transaction.release(out);
    let reply = Reply::new(Status::Completed, format!("Delivered before, id {}", mail.transaction.id));
    finish(mail, reply, Ending::AlreadyDelivered, core, out)
}

/// It was not sent, was refused, or is in doubt: durably so, before the sender hears it.
pub(crate) fn refused(
    mail: Mail,
    permits: Vec<Permit>,
    outcome: Outcome,
    refusal: Refusal,
    core: &mut Core,
    out: &mut Effects,
) -> State {
    let ending = if outcome == Outcome::Lost { Ending::InDoubt } else { Ending::Refused };
    let settlements: Vec<_> = permits.into_iter().filter_map(|permit| permit.settle(outcome)).collect();
    if settlements.is_empty() {
        return finish(mail, refusal.reply(), ending, core, out);
    }
    // The message itself is no longer needed: its memory is free while the store writes.
    out.push(Effect::Discard);
    out.push(Effect::Settle(settlements));
    State::Settling(Box::new(Settling { mail, reply: refusal.reply(), ending, since: core.at.instant }))
}

/// After any final reply the transaction is over: the next mail starts from nothing.
fn finish(mail: Mail, reply: Reply, ending: Ending, core: &mut Core, out: &mut Effects) -> State {
    let now = core.at.instant;
    let summary = Summary {
        id: mail.transaction.id,
        peer: core.peer.address,
        sender: mail.transaction.sender.domain().cloned(),
        recipients: mail.transaction.recipients.len(),
        octets: mail.octets,
        status: reply.status,
        ending,
        took: now.saturating_duration_since(mail.transaction.began),
        after_dot: now.saturating_duration_since(mail.dot),
    };
    out.push(Effect::Discard);
    out.push(Effect::Reply(reply));
    out.push(Effect::Report(Box::new(summary)));
    State::Commands(Commands::new(None, core))
}
