//! What a session wants done, and what it hears of it: the other half of `mail/src/driver.rs`.

use tempalias_alias::{Answer, ClaimRequest, Fingerprint, Outcome};
use tempalias_relay::{BodyFailed, Claimed, Effect, Event, Heard, StoreDown};
use tempalias_smtp::Status;

use super::calls::Asked;
use super::link::{Answered, Ask, CLOSED};
use super::sabotage::Sabotage;
use super::tally::Seen;
use super::world::{Happening, World};
use crate::machine::contract::Fed;

impl World {
    pub(super) fn perform(&mut self, link: usize, effect: Effect) {
        let node = self.links[link].node;
        match effect {
            Effect::Reply(reply) => self.replies(link, reply.status),
            Effect::Say(commands) => {
                self.links[link].mail.asked_hop = true;
                self.says_to_hop(link, &commands);
            }
            Effect::Release(_) => self.links[link].hop = None,
            Effect::Unread(octets) => {
                let inbox = &mut self.links[link].inbox;
                inbox.passed -= octets.len();
                inbox.octets.splice(..0, octets);
            }
            Effect::SettleLater(settlements) => {
                self.links[link].outstanding.clear();
                self.links[link].settling = Some(self.settle(node, settlements));
            }
            Effect::Acknowledge(delivered) => {
                let it = &self.links[link];
                if it.read < it.wrote {
                    self.saw(Seen::Crossings);
                    self.truth.crossed(&delivered);
                }
                self.acknowledges(node, delivered);
            }
            Effect::Report(summary) => {
                let it = &mut self.links[link];
                it.outstanding.clear();
                it.tells_delivery |= summary.ending.is_delivery();
                self.mail_ends(link, &summary);
            }
            Effect::Refused(status) => self.recipient_refused(link, status),
            Effect::Close => {
                self.flush(link);
                self.say_down(link, CLOSED);
                self.links[link].session = None;
            }
            Effect::Pause(_) | Effect::Discard => {}
            asks => self.asks(link, asks),
        }
    }

    fn asks(&mut self, link: usize, effect: Effect) {
        let it = &mut self.links[link];
        it.asks += 1;
        let ask = it.asks;
        match effect {
            Effect::Find(keys) => {
                it.ask = Some(Ask::Find);
                let Some(row) = keys.iter().find_map(|key| self.store.row(*key)) else { return };
                let mail = &mut self.links[link].mail;
                (mail.looked_up, mail.asked_hop) = (row, false);
                self.asks_store(link, ask, Asked::Find(row));
            }
            Effect::Connect(..) => {
                it.ask = Some(Ask::Connect);
                let time = self.hop_time();
                self.plan_in(time, Happening::Ready { link, ask });
            }
            Effect::Hear => it.ask = Some(Ask::Hear),
            Effect::Reserve => it.ask = Some(Ask::Reserve),
            Effect::Claim(requests) => {
                it.outstanding.extend(requests.iter().map(|request| (request.row, request.attempt)));
                it.mail.claims.clone_from(&requests);
                it.ask = Some(Ask::Claim);
                self.claims_requested(link);
                if self.sabotage == Some(Sabotage::ClaimAfterDot) {
                    self.links[link].mail.late.clone_from(&requests);
                    self.grants_without_asking(link, ask, &requests);
                } else {
                    self.asks_store(link, ask, Asked::Claim(requests));
                }
            }
            Effect::Settle(settlements) => {
                it.ask = Some(Ask::Settle);
                it.outstanding.clear();
                let task = self.settle(self.links[link].node, settlements);
                self.links[link].settling = Some(task);
                self.tasks[task].waiter = Some((link, ask));
            }
            Effect::SendBody(outgoing) => {
                it.ask = Some(Ask::Body(outgoing));
                let time = self.hop_time();
                self.plan_in(time, Happening::Ready { link, ask });
            }
            _ => {}
        }
    }

    fn grants_without_asking(&mut self, link: usize, ask: u32, requests: &[ClaimRequest]) {
        let granted = |request: &ClaimRequest| {
            let ledger = &self.store.rows[self.store.row(request.row)?].ledger;
            Some(Claimed { answer: Answer::Granted, limits: ledger.limits, used: ledger.used + 1 })
        };
        let claimed = requests.iter().filter_map(granted).collect();
        self.answers(link, ask, Answered::Claimed(claimed));
    }

    /// Sabotage: the dot is out, now the store is told of the claim.
    pub(super) fn claims_late(&mut self, link: usize) {
        let late = std::mem::take(&mut self.links[link].mail.late);
        if !late.is_empty() {
            self.asks_store(link, u32::MAX, Asked::Claim(late));
        }
    }

    // === Answers.

    pub(super) fn answers(&mut self, link: usize, ask: u32, answered: Answered) {
        let it = &mut self.links[link];
        if it.session.is_none() || it.asks != ask {
            return;
        }
        let event = match (it.ask.take(), answered) {
            (None, _) => return,
            (Some(Ask::Claim), Answered::Claimed(mut claimed)) => {
                if self.sabotage == Some(Sabotage::PartialIs250) && claimed.len() > 1 {
                    let over = claimed.iter_mut().filter(|claimed| claimed.answer == Answer::Over);
                    over.for_each(|claimed| claimed.answer = Answer::Already);
                }
                self.links[link].watch.claimed(&claimed, &mut self.contract);
                Event::Claimed(Ok(claimed))
            }
            (Some(Ask::Claim), _) => Event::Claimed(Err(StoreDown)),
            (Some(_), Answered::Event(event)) => event,
            (Some(_), _) => Event::Found(Err(StoreDown)),
        };
        self.feed(link, Fed::Answer, event);
        self.drive(link);
    }

    pub(super) fn ready(&mut self, link: usize, ask: u32) {
        let it = &mut self.links[link];
        if it.session.is_none() || it.asks != ask {
            return;
        }
        match it.ask.take() {
            Some(Ask::Connect) => {
                let answer = self.connects(link);
                if answer.is_ok() {
                    self.links[link].watch.connected();
                }
                self.feed(link, Fed::Answer, Event::Connected(answer));
            }
            Some(Ask::Body(outgoing)) => {
                let sent = self.sends_body(link, &outgoing);
                self.body_sent(link, sent);
                self.claims_late(link);
            }
            other => it.ask = other,
        }
        self.drive(link);
    }

    pub(super) fn body_sent(&mut self, link: usize, sent: Result<(), BodyFailed>) {
        if let Err(BodyFailed { dot_may_have_left: true, pending: Some(Heard::Reply(reply)) }) = &sent {
            let code = reply.code();
            self.links[link].watch.judged(code, &mut self.contract);
        }
        self.feed(link, Fed::Answer, Event::BodySent(sent));
    }

    // === Replies.

    fn replies(&mut self, link: usize, status: Status) {
        let it = &mut self.links[link];
        if status == Status::RecipientOk {
            it.mail.rows.push(it.mail.looked_up);
            let expected = !it.mail.asked_hop;
            self.tally.add(Seen::Expected, u64::from(expected));
        }
        it.replies.push(status.code());
    }

    pub(super) fn flush(&mut self, link: usize) {
        let now = self.now;
        let it = &mut self.links[link];
        if it.replies.is_empty() {
            return;
        }
        let replies = std::mem::take(&mut it.replies);
        if std::mem::take(&mut it.tells_delivery) {
            it.wrote += 1;
            let waiting: usize =
                it.up.iter().filter(|(at, _)| *at <= now).map(|(_, octets)| octets.len()).sum();
            let all = it.inbox.octets.len() + waiting;
            if all > 0 {
                it.inbox.unproven_until = it.inbox.passed + all;
            }
        }
        for code in replies {
            self.say_down(link, code);
        }
    }

    // === Ends.

    /// Its node died, or its task: the sender hears of it now, or never.
    pub(super) fn link_dies(&mut self, link: usize) {
        let it = &mut self.links[link];
        (it.session, it.ask, it.hop) = (None, None, None);
        it.outstanding.clear();
        self.truth.orphaned(&it.mail.claims);
        if self.random.permille(700) {
            self.say_down(link, CLOSED);
        }
    }

    /// The task ends without its machine's doing: what it holds ends in doubt (`claims.rs`, `Drop`).
    pub(super) fn panics(&mut self, link: usize) {
        self.saw(Seen::Panics);
        self.note(|_| format!("  {link} the task dies"));
        let node = self.links[link].node;
        let lost = std::mem::take(&mut self.links[link].outstanding);
        if !lost.is_empty() {
            let lost = lost.into_iter().map(|(row, attempt)| (row, attempt, Outcome::Lost)).collect();
            self.settle(node, lost);
        }
        self.link_dies(link);
    }

    /// Which message the store knows this by.
    pub(super) fn message(&self, link: usize, row: usize) -> Option<Fingerprint> {
        let key = self.store.rows[row].key;
        self.links[link].mail.claims.iter().find(|claim| claim.row == key).map(|claim| claim.fingerprint)
    }
}
