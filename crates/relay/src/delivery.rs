//! From the sender's dot on: check the message, claim a use for each recipient, and send (`forward.rs`).
//!
//! The order is the product: the claim is durable before a byte of our dot leaves; the next hop's verdict decides
//! ours; and whatever happens, each claim is settled once, or stays in doubt. One deadline covers it all.

mod forward;

use std::time::Instant;

use tempalias_alias::{Answer, ClaimRequest, Outcome};

use crate::content::{identify, loops};
use crate::core::Core;
use crate::event::Claimed;
use crate::prefix::loop_marks;
use crate::session::State;
use crate::settle::{delivered_before, refused};
use crate::transaction::Transaction;
use crate::{Body, Effect, Effects, Event, Permit, Refusal};

use forward::{Cleared, Part};
pub(crate) use forward::{Opening, Redialling, Renaming, Sending, Verdict};

/// A mail past its dot.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) transaction: Transaction,
    pub(crate) body: Body,
    pub(crate) octets: u64,
    pub(crate) dot: Instant,
    deadline: Instant,
}

/// Waits for the store's answers.
#[derive(Debug)]
pub(crate) struct Claiming {
    mail: Mail,
    requests: Vec<ClaimRequest>,
}

/// The sender's dot came. `message` is what is wrong with it, or it.
pub(crate) fn begin(
    transaction: Transaction,
    message: Result<Body, Refusal>,
    octets: u64,
    dot: Instant,
    core: &mut Core,
    out: &mut Effects,
) -> State {
    let deadline = dot + core.policy.limits.dot_timeout;
    let (body, fault) = match message {
        Ok(body) => (body, None),
        Err(refusal) => (Body::default(), Some(refusal)),
    };
    let mail = Mail { transaction, body, octets, dot, deadline };
    if let Some(refusal) = fault.or_else(|| mail.loops(core).then_some(Refusal::Loop)) {
        return turn_away(mail, vec![], Outcome::Unsent, refusal, core, out);
    }
    let requests = mail.claim_requests(core);
    if requests.is_empty() {
        return clear(mail, &[], vec![], core, out);
    }
    out.push(Effect::Claim(requests.clone()));
    State::Claiming(Box::new(Claiming { mail, requests }))
}

/// Gives the next hop's connection back and ends the mail with a refusal.
fn turn_away(
    mut mail: Mail,
    permits: Vec<Permit>,
    outcome: Outcome,
    refusal: Refusal,
    core: &mut Core,
    out: &mut Effects,
) -> State {
    mail.transaction.release(out);
    refused(mail, permits, outcome, refusal, core, out)
}

impl Mail {
    fn loops(&self, core: &Core) -> bool {
        let marks: Vec<(&str, String)> = self
            .transaction
            .recipients
            .iter()
            .flat_map(|to| {
                loop_marks(&core.policy, &to.address).into_iter().map(|mark| (to.address.as_str(), mark))
            })
            .collect();
        let marks = marks.iter().map(|(address, mark)| (*address, mark.as_str()));
        loops(&self.body, core.policy.limits.max_received, marks)
    }

    /// One for each alias among the recipients, in their order.
    fn claim_requests(&self, core: &mut Core) -> Vec<ClaimRequest> {
        if self.transaction.recipients.iter().all(|to| to.alias.is_none()) {
            return vec![];
        }
        let identity = identify(&self.body);
        let aliases = self.transaction.recipients.iter().filter_map(|to| to.alias.as_ref());
        aliases
            .map(|alias| ClaimRequest {
                row: alias.row,
                fingerprint: alias.key(&core.policy).fingerprint(&alias.id, &identity.digest),
                identified: identity.identified,
                sender: alias.sender,
                attempt: core.next_attempt(),
                was_counted: alias.was_counted,
            })
            .collect()
    }
}

impl Claiming {
    pub(crate) fn deadline(&self) -> Instant {
        // The store answers within its own bound; this is for one that does not.
        (self.mail.dot + crate::session::STORE_TIMEOUT * 2).min(self.mail.deadline)
    }

    pub(crate) fn on(self: Box<Self>, event: Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        let Self { mail, requests } = *self;
        match event {
            Event::Claimed(Ok(answers)) if answers.len() == requests.len() => {
                clear(mail, &requests, answers, core, out)
            }
            // It may have been granted all the same; whatever stands there is given back by attempt.
            _ => {
                let unsent = requests.iter().map(|r| (r.row, r.attempt, Outcome::Unsent)).collect();
                out.push(Effect::SettleLater(unsent));
                turn_away(mail, vec![], Outcome::Unsent, Refusal::StoreDown, core, out)
            }
        }
    }
}

/// The answers are there: may it be sent, and to whom?
fn clear(
    mail: Mail,
    requests: &[ClaimRequest],
    answers: Vec<Claimed>,
    core: &mut Core,
    out: &mut Effects,
) -> State {
    let mut cleared = Cleared { mail, parts: vec![], permits: vec![] };
    let (mut over, mut busy, mut already) = (0, 0, vec![]);
    let mut answers = requests.iter().zip(answers);
    for (recipient, to) in cleared.mail.transaction.recipients.iter().enumerate() {
        let (permit, standing) = if to.alias.is_none() {
            (Some(Permit::Operator), None)
        } else {
            let Some((request, claimed)) = answers.next() else { break };
            over += usize::from(claimed.answer == Answer::Over);
            busy += usize::from(claimed.answer == Answer::Busy);
            if claimed.answer == Answer::Already {
                already.push((request.row, request.fingerprint));
            }
            (Permit::from_answer(request, claimed.answer), Some((claimed.limits, claimed.used)))
        };
        if let Some(permit) = permit {
            cleared.permits.push(permit);
            cleared.parts.push(Part { recipient, standing });
        }
    }
    let all = cleared.mail.transaction.recipients.len();
    let refusal = match (over, busy) {
        (0, 0) => None,
        (over, _) if over == all => Some(Refusal::UnknownAlias),
        (_, busy) if busy == all => Some(Refusal::Held),
        _ => Some(Refusal::Disagreement),
    };
    match refusal {
        Some(refusal) => turn_away(cleared.mail, cleared.permits, Outcome::Unsent, refusal, core, out),
        // What was delivered before is acknowledged as what is delivered now: by a sender that reads this 250.
        None if cleared.parts.is_empty() => {
            core.unacknowledged.extend(already);
            delivered_before(cleared.mail, core, out)
        }
        None => cleared.proceed(core, out),
    }
}
