//! The client's half: what a next hop offers, the handshake, and the envelope of one transaction.
//!
//! Machines without sockets: they are given replies and say which bytes to write next.

use std::collections::VecDeque;

use tempalias_address::{Domain, Mailbox, ReversePath};

use crate::command::MailParameters;
use crate::reply::{Detail, NextHopReply, Refused};

/// What a next hop offered in its EHLO reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// RFC 2920: several commands in one write.
    pub pipelining: bool,
    /// RFC 6152.
    pub eight_bit: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 1870: whether SIZE is offered, and its limit (zero or none given: no limit).
    pub size: Option<u64>,
    /// RFC 9422: most recipients in one transaction.
    pub rcpt_max: Option<usize>,
}

impl Capabilities {
    /// Reads an EHLO reply; its first line is a greeting.
    pub fn of(reply: &NextHopReply) -> Self {
        let mut offered = Self::default();
        for line in reply.lines().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => offered.pipelining = true,
                "8BITMIME" => offered.eight_bit = true,
                "SMTPUTF8" => offered.smtputf8 = true,
                "SIZE" => offered.size = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0)),
                "LIMITS" => offered.rcpt_max = words.find_map(rcpt_max),
                _ => {}
            }
        }
        offered
    }

    /// The largest message it takes, if it says so.
    pub fn max_size(&self) -> Option<u64> {
        self.size.filter(|&size| size > 0)
    }
}

fn rcpt_max(word: &str) -> Option<usize> {
    let (name, value) = word.split_once('=')?;
    if name.eq_ignore_ascii_case("RCPTMAX") { value.parse().ok().filter(|&n| n > 0) } else { None }
}

/// Banner, EHLO, and HELO where EHLO is unknown.
#[derive(Debug)]
pub struct Handshake {
    hostname: Domain,
    waits_for: Greeting,
}

#[derive(Debug, Clone, Copy)]
enum Greeting {
    Banner,
    Ehlo,
    Helo,
}

/// The handshake's next step.
#[derive(Debug, PartialEq, Eq)]
pub enum HandshakeStep {
    /// Write this and wait for the reply.
    Say(Vec<u8>),
    /// The connection is ready for a transaction.
    Ready(Capabilities),
    /// It does not serve us: try another host.
    Refused,
}

impl Handshake {
    /// Waits for the banner; will call itself `hostname`.
    pub fn new(hostname: Domain) -> Self {
        Self { hostname, waits_for: Greeting::Banner }
    }

    /// Takes the next reply.
    pub fn hear(&mut self, reply: &NextHopReply) -> HandshakeStep {
        match (self.waits_for, reply.code()) {
            (Greeting::Banner, 220) => self.say(Greeting::Ehlo, "EHLO"),
            (Greeting::Ehlo, 250) => HandshakeStep::Ready(Capabilities::of(reply)),
            // RFC 5321 §3.2: an old server that does not know EHLO.
            (Greeting::Ehlo, 500 | 502) => self.say(Greeting::Helo, "HELO"),
            (Greeting::Helo, 250) => HandshakeStep::Ready(Capabilities::default()),
            _ => HandshakeStep::Refused,
        }
    }

    fn say(&mut self, then: Greeting, verb: &str) -> HandshakeStep {
        self.waits_for = then;
        HandshakeStep::Say(format!("{verb} {}\r\n", self.hostname).into_bytes())
    }
}

/// One envelope on its way to a next hop: MAIL (unless it was said already) and any number of RCPT, all in one
/// write where the next hop offers PIPELINING, else one by one.
#[derive(Debug)]
pub struct Envelope {
    pipelining: bool,
    unsaid: VecDeque<Vec<u8>>,
    /// Replies that are still to come; the first is MAIL's if `mail_pending`.
    unheard: usize,
    mail_pending: bool,
    outcome: EnvelopeOutcome,
}

/// How an envelope was taken, once all of it was answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnvelopeOutcome {
    /// MAIL was refused; the recipients' answers mean nothing then.
    pub mail: Option<(Refused, Detail)>,
    /// One answer for each RCPT, in order; none: accepted.
    pub recipients: Vec<Option<(Refused, Detail)>>,
}

impl EnvelopeOutcome {
    /// The first refusal, of MAIL or of a recipient.
    pub fn refusal(&self) -> Option<(Refused, Detail)> {
        self.mail.or_else(|| self.recipients.iter().find_map(|refusal| *refusal))
    }
}

/// The envelope's next step.
#[derive(Debug, PartialEq, Eq)]
pub enum EnvelopeStep {
    /// Write this and wait for replies.
    Say(Vec<u8>),
    /// More replies are to come.
    Wait,
    /// All is answered.
    Done(EnvelopeOutcome),
    /// 421: the next hop closes (RFC 5321 §3.8).
    Closing,
    /// An answer that fits no command (a 3xx, say).
    Nonsense,
}

impl Envelope {
    /// `mail` is none when this transaction's MAIL was accepted earlier.
    pub fn new<'a>(
        offered: &Capabilities,
        mail: Option<(&ReversePath, &MailParameters)>,
        recipients: impl Iterator<Item = &'a Mailbox>,
    ) -> Self {
        let mut unsaid = VecDeque::new();
        unsaid.extend(mail.map(|(path, parameters)| mail_command(offered, path, parameters)));
        unsaid.extend(recipients.map(|to| format!("RCPT TO:<{to}>\r\n").into_bytes()));
        Self {
            pipelining: offered.pipelining,
            unheard: unsaid.len(),
            unsaid,
            mail_pending: mail.is_some(),
            outcome: EnvelopeOutcome::default(),
        }
    }

    /// What to write first.
    pub fn start(&mut self) -> EnvelopeStep {
        self.proceed()
    }

    /// Takes the next reply.
    pub fn hear(&mut self, reply: &NextHopReply) -> EnvelopeStep {
        if reply.code() == 421 {
            return EnvelopeStep::Closing;
        }
        let refusal = reply.refusal();
        if refusal.is_none() && !reply.is_success() {
            return EnvelopeStep::Nonsense;
        }
        self.unheard = self.unheard.saturating_sub(1);
        if std::mem::take(&mut self.mail_pending) {
            self.outcome.mail = refusal;
            if refusal.is_some() {
                // Without MAIL there is no point in asking for recipients that were not yet named.
                self.unheard -= self.unsaid.len().min(self.unheard);
                self.unsaid.clear();
            }
        } else {
            self.outcome.recipients.push(refusal);
        }
        self.proceed()
    }

    fn proceed(&mut self) -> EnvelopeStep {
        if self.unheard == 0 {
            return EnvelopeStep::Done(std::mem::take(&mut self.outcome));
        }
        let batch = if self.pipelining { self.unsaid.len() } else { 1 };
        let bytes: Vec<u8> = self.unsaid.drain(..batch.min(self.unsaid.len())).flatten().collect();
        if bytes.is_empty() { EnvelopeStep::Wait } else { EnvelopeStep::Say(bytes) }
    }
}

/// MAIL, written from parsed parts; parameters only where the next hop offers them.
fn mail_command(offered: &Capabilities, path: &ReversePath, parameters: &MailParameters) -> Vec<u8> {
    let size = parameters.size.filter(|_| offered.size.is_some());
    let mut line = format!("MAIL FROM:{path}");
    line.extend(size.map(|size| format!(" SIZE={size}")));
    if offered.eight_bit && parameters.eight_bit {
        line.push_str(" BODY=8BITMIME");
    }
    if offered.smtputf8 && parameters.smtputf8 {
        line.push_str(" SMTPUTF8");
    }
    line.push_str("\r\n");
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> NextHopReply {
        NextHopReply::parse(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn offers_are_read_in_any_case() {
        let offered = Capabilities::of(&reply(
            "250-mx.example\r\n250-pipelining\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 LIMITS X=1 RCPTMAX=20\r\n",
        ));
        let expected = Capabilities {
            pipelining: true,
            eight_bit: true,
            smtputf8: false,
            size: Some(1000),
            rcpt_max: Some(20),
        };
        assert_eq!(offered, expected);
        assert_eq!(Capabilities::of(&reply("250 SIZE 5\r\n")), Capabilities::default());
    }

    #[test]
    fn an_old_server_gets_helo() {
        let mut shake = Handshake::new("mx.example".parse().unwrap());
        assert_eq!(shake.hear(&reply("220 hi\r\n")), HandshakeStep::Say(b"EHLO mx.example\r\n".to_vec()));
        assert_eq!(shake.hear(&reply("502 what\r\n")), HandshakeStep::Say(b"HELO mx.example\r\n".to_vec()));
        assert_eq!(shake.hear(&reply("250 ok\r\n")), HandshakeStep::Ready(Capabilities::default()));
        assert_eq!(
            Handshake::new("mx.example".parse().unwrap()).hear(&reply("554 no\r\n")),
            HandshakeStep::Refused
        );
    }

    fn envelope(pipelining: bool) -> Envelope {
        let to: Vec<Mailbox> = vec!["a@x.example".parse().unwrap(), "b@x.example".parse().unwrap()];
        let offered = Capabilities { pipelining, size: Some(0), ..Capabilities::default() };
        let parameters = MailParameters { size: Some(9), eight_bit: true, smtputf8: false };
        Envelope::new(&offered, Some((&ReversePath::Null, &parameters)), to.iter())
    }

    #[test]
    fn pipelined_envelopes_go_in_one_write() {
        let mut envelope = envelope(true);
        let all = b"MAIL FROM:<> SIZE=9\r\nRCPT TO:<a@x.example>\r\nRCPT TO:<b@x.example>\r\n".to_vec();
        assert_eq!(envelope.start(), EnvelopeStep::Say(all));
        assert_eq!(envelope.hear(&reply("250 ok\r\n")), EnvelopeStep::Wait);
        assert_eq!(envelope.hear(&reply("550 5.1.1 no\r\n")), EnvelopeStep::Wait);
        let EnvelopeStep::Done(outcome) = envelope.hear(&reply("250 ok\r\n")) else { panic!() };
        let refusal = Some((Refused::Permanent, Detail { subject: 1, detail: 1 }));
        assert_eq!(outcome, EnvelopeOutcome { mail: None, recipients: vec![refusal, None] });
    }

    #[test]
    fn without_pipelining_each_waits_and_a_refused_mail_ends_it() {
        let mut one = envelope(false);
        assert_eq!(one.start(), EnvelopeStep::Say(b"MAIL FROM:<> SIZE=9\r\n".to_vec()));
        let EnvelopeStep::Done(outcome) = one.hear(&reply("452 4.3.1 full\r\n")) else { panic!() };
        assert_eq!(outcome.refusal(), Some((Refused::Transient, Detail { subject: 3, detail: 1 })));
        let mut piped = envelope(true);
        piped.start();
        assert_eq!(piped.hear(&reply("452 4.3.1 full\r\n")), EnvelopeStep::Wait);
        assert_eq!(piped.hear(&reply("503 5.5.1 no\r\n")), EnvelopeStep::Wait);
        assert!(matches!(piped.hear(&reply("503 5.5.1 no\r\n")), EnvelopeStep::Done(o) if o.mail.is_some()));
    }

    #[test]
    fn closing_and_nonsense_are_told_apart_from_refusals() {
        let mut one = envelope(false);
        one.start();
        assert_eq!(one.hear(&reply("421 bye\r\n")), EnvelopeStep::Closing);
        let mut one = envelope(false);
        one.start();
        assert_eq!(one.hear(&reply("354 go\r\n")), EnvelopeStep::Nonsense);
    }
}
