//! What must hold after every step, whatever happens:
//!
//! * one reply to a command, and one more to the dot; none after the end;
//! * 250 to the dot if and only if the next hop said so, or had said so before;
//! * a body leaves only under a claim, byte for byte as it came, behind whole header lines of ours;
//! * each claim that was granted is settled, once;
//! * the next hop is told the stored targets and nothing else; the sender is never told them.

use std::collections::HashMap;

use bytes::Bytes;
use tempalias_alias::{Answer, Attempt, ClaimRequest, Outcome};
use tempalias_relay::{Awaits, BodyFailed, Claimed, Effect, Heard, Outgoing};
use tempalias_smtp::Status;

use crate::world::{ALIASES, OPERATOR, is_question};

#[derive(Default)]
pub(crate) struct Oracle {
    /// Replies that the sender has coming.
    due: i32,
    closed: bool,
    /// Everything the sender wrote since 354.
    wire: Vec<u8>,
    phase: Phase,
    /// Granted, and not yet settled.
    open: HashMap<Attempt, u32>,
    /// Whether the next hop took the message in hand.
    taken: bool,
    /// Whether all claims of the message in hand say that it was taken before.
    before: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    #[default]
    Commands,
    /// 354 is out; the dot may have come.
    Message,
    /// The whole body went to the next hop.
    Verdict,
}

impl Oracle {
    pub(crate) fn command(&mut self) {
        self.due += 1;
    }

    /// Something else than a command: it may draw a reply only together with the end.
    pub(crate) fn no_command(&self) {
        assert!(self.due == 0 || self.phase != Phase::Commands || self.due == 1, "{} replies due", self.due);
    }

    pub(crate) fn dropped(&mut self) {
        self.due = 0;
    }

    pub(crate) fn body(&mut self, chunk: &[u8]) {
        self.wire.extend_from_slice(chunk);
    }

    pub(crate) fn unread(&mut self, rest: &Bytes) {
        assert!(self.wire.ends_with(rest), "octets come back that did not come in last");
    }

    /// Whether the message in hand has come to its end.
    pub(crate) fn past_dot(&self) -> bool {
        self.phase != Phase::Commands
    }

    pub(crate) fn claimed(&mut self, requests: &[ClaimRequest], answers: &[Claimed]) {
        for (request, claimed) in requests.iter().zip(answers) {
            if matches!(claimed.answer, Answer::Granted | Answer::Again) {
                assert_eq!(self.open.insert(request.attempt, 0), None, "one attempt, claimed twice");
            }
        }
        self.before = answers.iter().all(|claimed| claimed.answer == Answer::Already);
    }

    pub(crate) fn send(&mut self, outgoing: &Outgoing) {
        let message: Vec<u8> = outgoing.segments().concat();
        assert!(self.wire.starts_with(&message), "another message goes out than came in");
        assert!(message == b".\r\n" || message.ends_with(b"\r\n.\r\n"));
        let prefix = std::str::from_utf8(outgoing.prefix()).expect("text");
        assert!(prefix.ends_with("\r\n"));
        let lines = prefix.split_terminator("\r\n");
        for (at, line) in lines.enumerate() {
            assert!(!line.contains(['\r', '\n']) && !line.is_empty(), "{line:?}");
            let folded = line.starts_with([' ', '\t']);
            assert!(if folded { at > 0 } else { line.contains(": ") }, "no header line: {line:?}");
        }
        assert_hidden(prefix);
    }

    pub(crate) fn sent(&mut self, sent: &Result<(), BodyFailed>) {
        match sent {
            Ok(()) => self.phase = Phase::Verdict,
            Err(BodyFailed { dot_may_have_left: true, pending: Some(Heard::Reply(reply)) }) => {
                self.taken = reply.is_success();
            }
            Err(_) => {}
        }
    }

    pub(crate) fn heard(&mut self, heard: &Heard) {
        if let (Phase::Verdict, Heard::Reply(reply)) = (self.phase, heard) {
            self.taken = reply.is_success();
        }
    }

    /// Checks one step's effects.
    pub(crate) fn check(&mut self, out: &[Effect], awaits: Awaits) {
        assert!(!self.closed || out.is_empty(), "{out:?} after the end");
        let questions = out.iter().filter(|effect| is_question(effect)).count();
        assert_eq!(questions, usize::from(awaits == Awaits::Answer), "{out:?}, then {awaits:?}");
        let closes = out.iter().any(|effect| matches!(effect, Effect::Close));
        assert_eq!(closes, awaits == Awaits::Nothing, "{out:?}, then {awaits:?}");
        for effect in out {
            self.effect(effect, closes);
        }
        if matches!(awaits, Awaits::Line | Awaits::Nothing) {
            assert!(self.open.is_empty(), "a claim is left open");
            assert!(awaits == Awaits::Nothing || self.due <= 0, "{} replies owed", self.due);
            self.due = 0;
        }
        self.closed |= closes;
    }

    fn effect(&mut self, effect: &Effect, closes: bool) {
        match effect {
            Effect::Reply(reply) => {
                let mut wire = vec![];
                reply.write_to(&mut wire);
                assert_hidden(&String::from_utf8(wire).expect("text"));
                self.reply(reply.status, closes);
            }
            Effect::Settle(settlements) | Effect::SettleLater(settlements) => {
                for (_, attempt, outcome) in settlements {
                    // A claim whose answer was lost is given back although nobody knows that it was granted.
                    let unknown = *outcome == Outcome::Unsent;
                    assert!(
                        self.open.remove(attempt).is_some() || unknown,
                        "settled twice, or never claimed"
                    );
                }
            }
            Effect::Say(bytes) => assert_envelope(std::str::from_utf8(bytes).expect("text")),
            _ => {}
        }
    }

    fn reply(&mut self, status: Status, closes: bool) {
        if status == Status::StartInput {
            self.phase = Phase::Message;
            self.wire.clear();
            (self.taken, self.before) = (false, false);
            return; // the dot's reply is still due
        }
        if self.phase != Phase::Commands {
            let done = status == Status::Completed;
            assert_eq!(done, self.taken || self.before, "the next hop's word and ours differ: {status:?}");
            self.phase = Phase::Commands;
        }
        self.due -= 1;
        assert!(self.due >= 0 || closes || status == Status::Ready, "{status:?} answers nothing");
        self.due = self.due.max(0);
    }
}

fn assert_hidden(text: &str) {
    for (_, target, _) in ALIASES {
        let (name, domain) = target.split_once('@').expect("an address");
        assert!(!text.contains(name) && !text.contains(domain), "{text}");
    }
    assert!(!text.contains(OPERATOR), "{text}");
}

fn assert_envelope(said: &str) {
    for line in said.split_inclusive("\r\n") {
        let target = line.strip_prefix("RCPT TO:<").and_then(|rest| rest.strip_suffix(">\r\n"));
        let known = |to| to == OPERATOR || ALIASES.iter().any(|(_, target, _)| *target == to);
        let fits = line == "DATA\r\n" || line.starts_with("MAIL FROM:<") || target.is_some_and(known);
        assert!(fits && line.ends_with("\r\n") && line.matches(['\r', '\n']).count() == 2, "{line:?}");
    }
}
