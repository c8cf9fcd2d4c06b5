//! Between commands: what each verb is answered.

use std::time::Instant;

use tempalias_smtp::{Command, CommandError, HelloName, MailParameters, Reply, Status};

use crate::core::{Core, Hello};
use crate::session::{Reserving, State, close, close_with};
use crate::transaction::Transaction;
use crate::{Effect, Effects, Event, Policy, Refusal};

/// Waiting for a command, with or without an open transaction.
#[derive(Debug)]
pub(crate) struct Commands {
    transaction: Option<Box<Transaction>>,
    pub(crate) since: Instant,
}

impl Commands {
    pub(crate) fn new(transaction: Option<Transaction>, core: &Core) -> Self {
        Self { transaction: transaction.map(Box::new), since: core.at.instant }
    }

    pub(crate) fn on(mut self, event: &Event<'_>, core: &mut Core, out: &mut Effects) -> State {
        match *event {
            Event::Line { text, more, fresh } => {
                // What arrived after our 250 was written out was sent by somebody who read it (or gave up
                // waiting for it, which comes to the same: it will not send the message again).
                if fresh && !core.unacknowledged.is_empty() {
                    out.push(Effect::Acknowledge(std::mem::take(&mut core.unacknowledged)));
                }
                self.line(text, more, core, out)
            }
            Event::BadLine(fault) => self.hang_up(Refusal::Line(fault), out),
            Event::Deadline if core.at.instant >= core.session_end() => {
                self.hang_up(Refusal::SessionOver, out)
            }
            Event::Deadline => self.hang_up(Refusal::Silent, out),
            Event::Drain => self.hang_up(Refusal::ShuttingDown, out),
            Event::Evicted => self.hang_up(Refusal::TooManyConnections, out),
            _ => {
                self.reset(out);
                close(out)
            }
        }
    }

    fn line(self, text: &[u8], more: bool, core: &mut Core, out: &mut Effects) -> State {
        match Command::parse(text) {
            Ok(Command::Helo(name)) => self.hello(name, false, more, core, out),
            Ok(Command::Ehlo(name)) => self.hello(name, true, more, core, out),
            Ok(Command::Mail(path, parameters)) => self.mail(path, parameters, core, out),
            Ok(Command::Rcpt(path)) => match self.transaction {
                Some(transaction) => crate::recipient::begin(*transaction, path, core, out),
                None => self.mistake(Refusal::MailFirst, core, out),
            },
            Ok(Command::Data) => self.data(more, core, out),
            Ok(Command::Rset) => {
                let mut this = self;
                this.reset(out);
                this.say(Reply::new(Status::Completed, "Forgotten"), core, out)
            }
            Ok(Command::Noop) => self.say(Reply::new(Status::Completed, "Here"), core, out),
            Ok(Command::Vrfy) => {
                // RFC 5321 §3.5.3: 252 is right for who will not tell.
                self.say(Reply::new(Status::CannotVerify, "Send mail to find out"), core, out)
            }
            Ok(Command::Expn) => self.mistake(Refusal::NotImplemented, core, out),
            Ok(Command::Help) => {
                self.say(Reply::new(Status::Help, "RFC 5321; help for people: postmaster"), core, out)
            }
            Ok(Command::Quit) => {
                let mut this = self;
                this.reset(out);
                out.push(Effect::Reply(Reply::new(Status::Closing, "Bye")));
                close(out)
            }
            Err(CommandError::Http) => self.hang_up(Refusal::Command(CommandError::Http), out),
            Err(CommandError::Unknown) => self.unknown(core, out),
            Err(error) => self.mistake(Refusal::Command(error), core, out),
        }
    }

    fn hello(
        mut self,
        name: HelloName,
        extended: bool,
        more: bool,
        core: &mut Core,
        out: &mut Effects,
    ) -> State {
        // RFC 2920 §3.1: EHLO ends a group.
        if more {
            return self.hang_up(Refusal::OutOfStep, out);
        }
        self.reset(out); // RFC 5321 §4.1.4: EHLO within a session is a RSET too
        let reply = if extended { ehlo_reply(core) } else { greeting(&core.policy) };
        core.hello = Some(Hello { name, extended });
        self.say(reply, core, out)
    }

    fn mail(
        self,
        sender: tempalias_address::ReversePath,
        parameters: MailParameters,
        core: &mut Core,
        out: &mut Effects,
    ) -> State {
        let limits = &core.policy.limits;
        if core.hello.is_none() {
            return self.mistake(Refusal::HelloFirst, core, out);
        }
        if self.transaction.is_some() {
            return self.mistake(Refusal::NestedMail, core, out);
        }
        if core.tally.mails >= limits.max_mails {
            return self.hang_up(Refusal::SessionOver, out);
        }
        // RFC 1870 §6.1: refuse at once what is said to be too large.
        if parameters.size.is_some_and(|size| size > core.max_size()) {
            return self.say(Refusal::TooBig.reply(), core, out);
        }
        let transaction = Transaction {
            id: core.next_mail_id(),
            began: core.at.instant,
            sender,
            parameters,
            recipients: vec![],
            upstream: None,
            may_redial: true,
        };
        Self { transaction: Some(Box::new(transaction)), ..self }.say(
            Reply::new(Status::SenderOk, "Sender noted"),
            core,
            out,
        )
    }

    fn data(self, more: bool, core: &mut Core, out: &mut Effects) -> State {
        if more {
            return self.hang_up(Refusal::OutOfStep, out);
        }
        let Some(transaction) = self.transaction else {
            return self.mistake(Refusal::MailFirst, core, out);
        };
        if transaction.recipients.is_empty() {
            let this = Self { transaction: Some(transaction), ..self };
            return this.mistake(Refusal::NoRecipients, core, out);
        }
        out.push(Effect::Reserve);
        State::Reserving(Box::new(Reserving { transaction: *transaction, since: core.at.instant }))
    }

    fn unknown(self, core: &mut Core, out: &mut Effects) -> State {
        core.tally.unknown_commands += 1;
        if core.tally.unknown_commands >= core.policy.limits.max_unknown_commands {
            return self.hang_up(Refusal::TooManyUnknown, out);
        }
        self.say(Refusal::Command(CommandError::Unknown).reply(), core, out)
    }

    /// A refusal that leaves everything as it was.
    fn mistake(self, refusal: Refusal, core: &mut Core, out: &mut Effects) -> State {
        if core.forgives() {
            return self.say(refusal.reply(), core, out);
        }
        self.hang_up(Refusal::TooManyUnknown, out)
    }

    fn say(self, reply: Reply, core: &Core, out: &mut Effects) -> State {
        out.push(Effect::Reply(reply));
        State::Commands(Self { since: core.at.instant, ..self })
    }

    fn hang_up(mut self, refusal: Refusal, out: &mut Effects) -> State {
        self.reset(out);
        close_with(refusal, out)
    }

    /// Forgets the transaction, whole.
    fn reset(&mut self, out: &mut Effects) {
        if let Some(mut transaction) = self.transaction.take() {
            transaction.release(out);
        }
    }
}

/// RFC 5321 §4.2: the banner starts with our name.
pub(crate) fn banner(policy: &Policy) -> Reply {
    Reply::new(Status::Ready, format!("{} ESMTP tempalias", policy.hostname))
}

/// The answer to DATA.
pub(crate) fn start_input() -> Reply {
    Reply::new(Status::StartInput, "Send the message; end it with a dot on a line of its own")
}

fn greeting(policy: &Policy) -> Reply {
    Reply::new(Status::Hello, policy.hostname.to_string())
}

/// What we offer. Not CHUNKING, not DSN, not AUTH: docs/architecture.md says why.
fn ehlo_reply(core: &Core) -> Reply {
    let lines = vec![
        core.policy.hostname.to_string().into(),
        "PIPELINING".into(),
        format!("SIZE {}", core.max_size()).into(),
        "8BITMIME".into(),
        "SMTPUTF8".into(),
        "ENHANCEDSTATUSCODES".into(),
        format!("LIMITS RCPTMAX={}", core.policy.limits.max_recipients).into(),
    ];
    Reply { status: Status::Hello, lines }
}
