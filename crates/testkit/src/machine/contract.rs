//! What must hold at every step of every session, whatever happens: the contract between session and driver, and
//! the promises that can be seen from outside.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tempalias_alias::{Answer, Attempt, ClaimRequest, Fingerprint, Outcome, RowKey, UnixTime};
use tempalias_relay::{Awaits, Claimed, Effect, Session};
use tempalias_smtp::{Reply, Status};

use super::store::ModelStore;

/// Longest reply line, CRLF included (RFC 5321 §4.5.3.1.5).
const MAX_REPLY_LINE: usize = 512;

/// What became of our dot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Dot {
    /// No octet of it was written.
    #[default]
    Unsent,
    /// It may have arrived.
    Possible,
    /// The next hop said 2xx.
    Accepted,
    /// The next hop said 4xx or 5xx.
    Refused,
}

/// Watches one session.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one session, not a state")]
pub(crate) struct Watch {
    /// Replies that the sender has yet to get.
    owes: u32,
    closed: bool,
    connected: bool,
    holds_memory: bool,
    /// The line in hand came after our last reply was written.
    fresh: bool,
    /// The event in hand allows a reply that nobody asked for, if the connection then closes.
    unasked: bool,
    past_dot: bool,
    dot: Dot,
    requests: Vec<ClaimRequest>,
    answers: Option<Vec<Answer>>,
    /// Claims asked for or granted, and not settled.
    outstanding: HashSet<(RowKey, Attempt)>,
    delivered: HashSet<(RowKey, Fingerprint)>,
}

/// What really happened, by row.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    rows: BTreeMap<RowKey, RowTruth>,
}

/// A message, and which of its grants it was sent under.
type Sent = ([u8; 16], u32);

#[derive(Debug, Default)]
struct RowTruth {
    /// How often each message was granted a use: once acknowledged, the same message is a new one.
    granted: BTreeMap<[u8; 16], u32>,
    /// Messages that may have arrived, and by how many attempts.
    possible: BTreeMap<Sent, u32>,
    /// Messages that the next hop said it has.
    sure: BTreeSet<Sent>,
    /// An owner gave held uses back: that may deliver more than N, as the page says.
    freed: bool,
}

/// What is fed, as far as the contract cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fed {
    /// Something that earns a reply.
    Command { fresh: bool },
    /// Octets of a message.
    Body,
    /// A reason to close.
    Unasked,
    /// An answer to an effect that asked.
    Answer,
}

impl Watch {
    pub(crate) fn before(&mut self, fed: Fed) -> Result<(), String> {
        check(!self.closed, "an event after the end")?;
        self.fresh = fed == Fed::Command { fresh: true };
        self.unasked = fed == Fed::Unasked;
        self.owes += u32::from(matches!(fed, Fed::Command { .. }));
        Ok(())
    }

    /// `was` is what the session waited for before.
    pub(crate) fn after(
        &mut self,
        fed: Fed,
        was: Awaits,
        session: &Session,
        effects: &[Effect],
    ) -> Result<(), String> {
        if fed == Fed::Body && was == Awaits::Body && session.awaits() != Awaits::Body {
            self.owes += 1;
            (self.past_dot, self.dot, self.answers) = (true, Dot::Unsent, None);
            self.requests.clear();
        }
        let count = effects.iter().filter(|effect| asks(effect)).count();
        check(count <= 1, "more than one effect that asks")?;
        if let Some(at) = effects.iter().position(asks) {
            let only_replies = effects[at + 1..].iter().all(|effect| matches!(effect, Effect::Reply(_)));
            check(only_replies, "an effect behind one that asks")?;
        }
        check(
            (count == 1) == (session.awaits() == Awaits::Answer),
            "waits for an answer that it did not ask for",
        )?;
        for effect in effects {
            check(!self.closed, "an effect after Close")?;
            self.effect(effect, effects)?;
        }
        check(self.closed == (session.awaits() == Awaits::Nothing), "closed without Close")?;
        match session.awaits() {
            Awaits::Line => check(self.owes == 0, "a command was not answered"),
            Awaits::Nothing => self.ended(),
            Awaits::Body | Awaits::Answer => Ok(()),
        }
    }

    fn effect(&mut self, effect: &Effect, all: &[Effect]) -> Result<(), String> {
        match effect {
            Effect::Reply(reply) => self.reply(reply, all),
            Effect::Close => {
                self.closed = true;
                Ok(())
            }
            Effect::Connect(..) => check(!self.connected, "connects while connected"),
            Effect::Say(_) | Effect::Hear => check(self.connected, "talks to nobody"),
            Effect::Release(_) => {
                check(self.connected, "gives a connection back that it has not")?;
                self.connected = false;
                Ok(())
            }
            Effect::Reserve => check(!self.holds_memory, "reserves twice"),
            Effect::Discard => {
                self.holds_memory = false;
                Ok(())
            }
            Effect::Claim(requests) => {
                check(self.past_dot && self.answers.is_none(), "claims at the wrong time")?;
                self.requests.clone_from(requests);
                self.outstanding.extend(requests.iter().map(|request| (request.row, request.attempt)));
                Ok(())
            }
            Effect::SendBody(_) => {
                check(self.connected && self.past_dot, "sends a message nowhere")?;
                check(self.dot == Dot::Unsent, "sends a message again")?;
                let answered = self.requests.is_empty() || self.answers.is_some();
                check(answered, "sends before the claim is durable")?;
                let refused = |answer: &Answer| matches!(answer, Answer::Busy | Answer::Over);
                check(!self.answers.iter().flatten().any(refused), "sends although a claim was refused")
            }
            Effect::Settle(settlements) | Effect::SettleLater(settlements) => {
                settlements.iter().try_for_each(|settlement| self.settle(settlement))
            }
            Effect::Acknowledge(delivered) => {
                check(self.fresh, "acknowledges what nobody has read")?;
                let known = delivered.iter().all(|claim| self.delivered.remove(claim));
                check(known, "acknowledges what was not delivered, or twice")
            }
            _ => Ok(()),
        }
    }

    fn reply(&mut self, reply: &Reply, all: &[Effect]) -> Result<(), String> {
        if self.owes > 0 {
            self.owes -= 1;
        } else {
            check(self.unasked, "a second reply to one command")?;
            check(matches!(all.last(), Some(Effect::Close)), "a reply that nobody asked for")?;
        }
        if reply.status == Status::Completed && self.past_dot {
            let all_before = self.answers.iter().flatten().all(|answer| *answer == Answer::Already);
            let before = self.answers.is_some() && all_before;
            check(before || self.dot == Dot::Accepted, "a 250 without the next hop's")?;
        }
        if reply.status != Status::StartInput {
            self.past_dot = false;
        }
        let mut wire = vec![];
        reply.write_to(&mut wire);
        for line in wire.split_inclusive(|&octet| octet == b'\n') {
            let text = line.strip_suffix(b"\r\n").ok_or("a reply line without CRLF")?;
            check(line.len() <= MAX_REPLY_LINE, "a reply line that is too long")?;
            check(
                text.iter().all(|octet| (b' '..=b'~').contains(octet)),
                "a reply with other than text in it",
            )?;
        }
        Ok(())
    }

    fn settle(&mut self, (row, attempt, outcome): &(RowKey, Attempt, Outcome)) -> Result<(), String> {
        check(self.outstanding.remove(&(*row, *attempt)), "settles a claim twice, or one that it has not")?;
        let right = match outcome {
            Outcome::Delivered => self.dot == Dot::Accepted,
            Outcome::Lost => self.dot == Dot::Possible,
            Outcome::Unsent => self.dot == Dot::Unsent,
            Outcome::Refused | Outcome::Deferred => matches!(self.dot, Dot::Unsent | Dot::Refused),
        };
        if *outcome == Outcome::Delivered {
            let request =
                self.requests.iter().find(|request| (request.row, request.attempt) == (*row, *attempt));
            self.delivered.extend(request.map(|request| (request.row, request.fingerprint)));
        }
        check(right, &format!("settles as {outcome:?} when the dot is {:?}", self.dot))
    }

    pub(crate) fn claimed(&mut self, claimed: &[Claimed], truth: &mut Truth) {
        for (request, claimed) in self.requests.iter().zip(claimed) {
            if claimed.answer == Answer::Granted {
                *truth.row(request.row).granted.entry(request.fingerprint.0).or_default() += 1;
            }
            if claimed.answer == Answer::Already {
                self.delivered.insert((request.row, request.fingerprint));
            }
            if !matches!(claimed.answer, Answer::Granted | Answer::Again) {
                self.outstanding.remove(&(request.row, request.attempt));
            }
        }
        self.answers = Some(claimed.iter().map(|claimed| claimed.answer).collect());
    }

    pub(crate) fn is_past_dot(&self) -> bool {
        self.past_dot
    }

    pub(crate) fn connected(&mut self) {
        self.connected = true;
    }

    pub(crate) fn reserved(&mut self) {
        self.holds_memory = true;
    }

    /// From now on the next hop may have the message.
    pub(crate) fn dot_may_have_left(&mut self, truth: &mut Truth) {
        self.dot = Dot::Possible;
        for (row, message) in self.messages() {
            let row = truth.row(row);
            *row.possible.entry(row.sent(message)).or_default() += 1;
        }
    }

    /// The next hop's answer to our dot was heard.
    pub(crate) fn judged(&mut self, code: u16, truth: &mut Truth) {
        match code / 100 {
            2 => {
                self.dot = Dot::Accepted;
                for (row, message) in self.messages() {
                    let row = truth.row(row);
                    row.sure.insert(row.sent(message));
                }
            }
            4 | 5 => {
                self.dot = Dot::Refused;
                for (row, message) in self.messages() {
                    truth.row(row).refused(message);
                }
            }
            _ => {}
        }
    }

    /// What is on its way, to which counted aliases.
    fn messages(&self) -> Vec<(RowKey, Fingerprint)> {
        let answers = self.answers.iter().flatten();
        let sent = |answer: &Answer| matches!(answer, Answer::Granted | Answer::Again);
        let sent = self.requests.iter().zip(answers).filter(move |(_, answer)| sent(answer));
        sent.map(|(request, _)| (request.row, request.fingerprint)).collect()
    }

    fn ended(&self) -> Result<(), String> {
        check(!self.connected, "closed with the next hop's connection still taken")?;
        check(!self.holds_memory, "closed with memory still held")?;
        check(self.outstanding.is_empty(), "closed with a claim neither settled nor in doubt")
    }
}

impl RowTruth {
    fn sent(&self, message: Fingerprint) -> Sent {
        (message.0, self.granted.get(&message.0).copied().unwrap_or(0))
    }

    /// This attempt has not arrived; an earlier one may have.
    fn refused(&mut self, message: Fingerprint) {
        let sent = self.sent(message);
        if let Some(attempts) = self.possible.get_mut(&sent) {
            *attempts -= 1;
        }
        self.possible.retain(|_, attempts| *attempts > 0);
    }
}

impl Truth {
    fn row(&mut self, row: RowKey) -> &mut RowTruth {
        self.rows.entry(row).or_default()
    }

    pub(super) fn freed(&mut self, row: RowKey) {
        self.row(row).freed = true;
    }

    /// Whether the store's numbers tell the truth, once nothing is under way. P2 and P3.
    pub(crate) fn check(&self, store: &ModelStore, now: UnixTime) -> Result<(), String> {
        let nothing = RowTruth::default();
        for (key, ledger) in store.ledgers() {
            let Some(max) = ledger.limits.max_usage else { continue };
            let truth = self.rows.get(&key).unwrap_or(&nothing);
            if truth.freed {
                continue;
            }
            let used = usize::try_from(ledger.used).unwrap_or(usize::MAX);
            let max = usize::try_from(max.get()).unwrap_or(usize::MAX);
            check(used <= max, &format!("{used} uses of {max}"))?;
            check(truth.possible.len() <= max, "more messages than uses may have arrived")?;
            check(truth.sure.len() <= used, "a delivery that was not counted")?;
            let held = ledger.kept.iter().filter(|kept| now < kept.until);
            let held = held.map(|kept| truth.sent(kept.fingerprint));
            let accounted = truth.possible.keys().copied().chain(held).collect::<BTreeSet<_>>().len();
            check(
                used <= accounted,
                &format!("{used} uses counted, {accounted} accounted for: one was burnt"),
            )?;
        }
        Ok(())
    }
}

/// Whether it is answered by an event.
pub(crate) fn asks(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Find(_)
            | Effect::Quota(_)
            | Effect::Connect(..)
            | Effect::Hear
            | Effect::Reserve
            | Effect::Claim(_)
            | Effect::SendBody(_)
            | Effect::Settle(_)
    )
}

fn check(holds: bool, complaint: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("contract: {complaint}")) }
}
