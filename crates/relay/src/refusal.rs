//! The one table from a refusal to the words that a sender reads.
//!
//! Words are for a stranger who looks into a log at night: what happened and what to do; nothing about who is
//! behind an alias, and never a word of the next hop. `docs/replies.md` is printed from here.

use tempalias_smtp::reply::{Detail, Refused};
use tempalias_smtp::{CommandError, Reply, Status};

use crate::event::{ConnectError, LineFault};

/// Everything that is ever refused, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The line is no command, or its arguments are wrong.
    Command(CommandError),
    /// There is no line.
    Line(LineFault),
    /// Commands in the wrong order.
    HelloFirst,
    /// RCPT or DATA without MAIL.
    MailFirst,
    /// MAIL within a transaction.
    NestedMail,
    /// DATA without an accepted recipient.
    NoRecipients,
    /// EXPN.
    NotImplemented,
    /// Input where none may be yet.
    OutOfStep,
    /// Too many commands that do not exist.
    TooManyUnknown,
    /// Too many recipients that do not exist.
    TooManyRefused,
    /// Silent for too long.
    Silent,
    /// The message came too slowly.
    TooSlow,
    /// The session took too long, or carried enough mails.
    SessionOver,
    /// The program ends.
    ShuttingDown,
    /// Too many connections.
    TooManyConnections,
    /// Unknown, expired, used up, paused, removed: one text for all.
    UnknownAlias,
    /// Not a domain of ours.
    RelayDenied,
    /// All uses left are held.
    Held,
    /// The store said nothing.
    StoreDown,
    /// Recipients of one transaction were answered differently after the dot.
    Disagreement,
    /// Another next hop, or more recipients than one transaction takes.
    SeparateTransaction,
    /// Enough mail to the operator.
    OperatorQuota,
    /// The message is larger than we or the next hop take.
    TooBig,
    /// No memory for the message now.
    NoMemory,
    /// Bare CR or LF.
    BareNewline,
    /// A line beyond all measure.
    LineTooLong,
    /// The first line is a continuation.
    LeadingWhitespace,
    /// It has been here, or has passed too many hosts.
    Loop,
    /// The target is ourselves.
    BadRoute,
    /// 8BITMIME needed, not offered by the next hop.
    NotEightBit,
    /// SMTPUTF8 needed, not offered by the next hop.
    NotUtf8,
    /// No connection to the next hop.
    Connect(ConnectError),
    /// The connection to the next hop broke before our dot.
    ConnectionLost,
    /// No verdict for the message: it may or may not have arrived.
    VerdictLost,
    /// The next hop answered nonsense.
    Nonsense,
    /// The next hop refused; its class and detail are passed on.
    NextHop(Refused, Detail),
}

impl Refusal {
    /// Status and words.
    pub fn reply(self) -> Reply {
        let (status, text) = self.words();
        Reply::new(status, text)
    }

    /// The status alone.
    pub fn status(self) -> Status {
        self.words().0
    }

    fn words(self) -> (Status, &'static str) {
        match self {
            Self::Command(error) => command(error),
            Self::Line(LineFault::TooLong) => (Status::LineTooLong, "Command line too long"),
            Self::Line(LineFault::BareLineFeed) => {
                (Status::BadSyntax, "Lines must end with CR LF (RFC 5321 section 2.3.8)")
            }
            Self::HelloFirst => (Status::BadSequence, "Say HELO or EHLO first"),
            Self::MailFirst => (Status::BadSequence, "Say MAIL FROM first"),
            Self::NestedMail => (Status::BadSequence, "A transaction is open already; RSET ends it"),
            Self::NoRecipients => (Status::NoRecipients, "No valid recipients"),
            Self::NotImplemented => (Status::NotImplemented, "Command not implemented"),
            Self::OutOfStep => {
                (Status::OutOfStep, "You spoke before it was your turn; closing the connection")
            }
            Self::TooManyUnknown => {
                (Status::TooManyErrors, "Too many unknown commands; closing the connection")
            }
            Self::TooManyRefused => {
                (Status::TooManyErrors, "Too many unknown recipients; closing the connection")
            }
            Self::Silent => (Status::TimedOut, "No command for too long; closing the connection"),
            Self::TooSlow => (Status::TimedOut, "Message came too slowly; closing the connection"),
            Self::SessionOver => (Status::TooManyErrors, "Enough for one connection; please open a new one"),
            Self::ShuttingDown => {
                (Status::ShuttingDown, "Service is restarting; please come again in a minute")
            }
            Self::TooManyConnections => {
                (Status::ShuttingDown, "Too many connections; please come again later")
            }
            other => other.mail_words(),
        }
    }

    /// The words for refusals of a mail, as opposed to a command.
    fn mail_words(self) -> (Status, &'static str) {
        match self {
            Self::UnknownAlias => (Status::UnknownAlias, "No such user here"),
            Self::RelayDenied => (Status::RelayDenied, "Relaying denied: not a domain of this server"),
            Self::Held => {
                (Status::Held, "Other messages to this address are still under way; please retry later")
            }
            Self::StoreDown => (Status::StoreDown, "Address lookup failed for now; please retry later"),
            Self::Disagreement => {
                (Status::Disagreement, "Recipients differ; nothing was sent, please retry each on its own")
            }
            Self::SeparateTransaction => {
                (Status::SeparateTransaction, "Please send to this recipient in a separate transaction")
            }
            Self::OperatorQuota => {
                (Status::SlowDown, "Enough messages to the operator for now; please retry later")
            }
            Self::TooBig => (Status::TooBig, "Message is too large"),
            Self::NoMemory => (Status::NoMemory, "No room for the message now; please retry later"),
            Self::BareNewline => {
                (Status::BadContent, "Message has a CR or LF on its own (RFC 5321 section 2.3.8)")
            }
            Self::LineTooLong => (Status::BadContent, "Message has a line of more than 64 KiB"),
            Self::LeadingWhitespace => {
                (Status::BadContent, "Message starts with white space instead of a header")
            }
            Self::Loop => {
                (Status::Loop, "Mail loop: the message has been here before or passed too many hosts")
            }
            other => other.next_hop_words(),
        }
    }

    /// The words for what goes wrong behind us. None tells who is there.
    fn next_hop_words(self) -> (Status, &'static str) {
        match self {
            Self::BadRoute => (Status::BadRoute, "The address has no usable destination"),
            Self::NotEightBit => (Status::NotEightBit, "The destination takes no 8-bit messages"),
            Self::NotUtf8 => (Status::NotUtf8, "The destination takes no internationalised addresses"),
            Self::Connect(ConnectError::NoSuchDomain) => {
                (Status::NoSuchDomain, "The destination's domain does not exist")
            }
            Self::Connect(ConnectError::NullMx) => (Status::NullMx, "The destination takes no mail"),
            Self::Connect(ConnectError::BadRoute) => {
                (Status::BadRoute, "The address has no usable destination")
            }
            Self::Connect(ConnectError::NoDnsAnswer) => {
                (Status::NoDnsAnswer, "The destination could not be looked up; please retry later")
            }
            Self::Connect(ConnectError::NoConnection) => {
                (Status::NoConnection, "The destination could not be reached; please retry later")
            }
            Self::ConnectionLost => {
                (Status::ConnectionLost, "The connection to the destination broke; please retry later")
            }
            Self::VerdictLost => {
                (Status::ConnectionLost, "The destination did not confirm the message; please retry later")
            }
            Self::Nonsense => {
                (Status::NextHopNonsense, "The destination did not speak proper SMTP; please retry later")
            }
            Self::NextHop(Refused::Transient, detail) => (
                Status::NextHop(Refused::Transient, detail),
                "The destination refused for now; please retry later",
            ),
            Self::NextHop(Refused::Permanent, detail) => {
                (Status::NextHop(Refused::Permanent, detail), "The destination refused")
            }
            _ => (Status::NextHopNonsense, "Temporary failure; please retry later"),
        }
    }

    /// Every refusal, for `docs/replies.md` and its test.
    pub fn all() -> Vec<Self> {
        use CommandError as C;
        use ConnectError as E;
        let mut all: Vec<Self> =
            [C::Unknown, C::Http, C::Octets, C::Arguments, C::Hello, C::Sender, C::Recipient, C::Parameter]
                .map(Self::Command)
                .to_vec();
        all.extend([LineFault::TooLong, LineFault::BareLineFeed].map(Self::Line));
        all.extend([
            Self::HelloFirst,
            Self::MailFirst,
            Self::NestedMail,
            Self::NoRecipients,
            Self::NotImplemented,
            Self::OutOfStep,
            Self::TooManyUnknown,
            Self::TooManyRefused,
            Self::Silent,
            Self::TooSlow,
            Self::SessionOver,
            Self::ShuttingDown,
            Self::TooManyConnections,
            Self::UnknownAlias,
            Self::RelayDenied,
            Self::Held,
            Self::StoreDown,
            Self::Disagreement,
            Self::SeparateTransaction,
            Self::OperatorQuota,
            Self::TooBig,
            Self::NoMemory,
            Self::BareNewline,
            Self::LineTooLong,
            Self::LeadingWhitespace,
            Self::Loop,
            Self::BadRoute,
            Self::NotEightBit,
            Self::NotUtf8,
        ]);
        all.extend(
            [E::NoSuchDomain, E::NullMx, E::BadRoute, E::NoDnsAnswer, E::NoConnection].map(Self::Connect),
        );
        all.extend([
            Self::ConnectionLost,
            Self::VerdictLost,
            Self::Nonsense,
            Self::NextHop(Refused::Transient, Detail { subject: 7, detail: 1 }),
            Self::NextHop(Refused::Permanent, Detail { subject: 7, detail: 1 }),
        ]);
        all
    }
}

fn command(error: CommandError) -> (Status, &'static str) {
    match error {
        CommandError::Unknown => (Status::UnknownCommand, "Command not recognised"),
        CommandError::Http => (Status::TooManyErrors, "This is a mail server, not a web server"),
        CommandError::Octets => (Status::BadSyntax, "Command is not text"),
        CommandError::Arguments => (Status::BadArguments, "Wrong arguments for this command"),
        CommandError::Hello => {
            (Status::BadArguments, "HELO and EHLO take a host name or an address in brackets")
        }
        CommandError::Sender => {
            (Status::BadSender, "MAIL takes FROM:<address> with an address in angle brackets")
        }
        CommandError::Recipient => {
            (Status::BadRecipient, "RCPT takes TO:<address> with an address in angle brackets")
        }
        CommandError::Parameter => (Status::UnknownParameter, "Parameter not offered by this server"),
    }
}
