//! The one table from a refusal to the words that a sender reads.
//!
//! Words are for a stranger who looks into a log at night: what happened and what to do; nothing about who is
//! behind an alias, and never a word of the next hop. `docs/replies.md` is printed from here.

use tempalias_smtp::reply::{Detail, Refused};
use tempalias_smtp::{CommandError, Reply, Status};

use crate::event::{ConnectError, LineFault};

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident => $status:ident, $text:literal;)*) => {
        /// Everything that is ever refused, and why.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Refusal {
            $($(#[$doc])* $name,)*
            /// The line is no command, or its arguments are wrong.
            Command(CommandError),
            /// There is no line.
            Line(LineFault),
            /// No connection to the next hop.
            Connect(ConnectError),
            /// The next hop refused; its class and detail are passed on.
            NextHop(Refused, Detail),
        }

        /// The refusals that need nothing but their name.
        const PLAIN: &[Refusal] = &[$(Refusal::$name,)*];

        impl Refusal {
            fn words(self) -> (Status, &'static str) {
                match self {
                    $(Self::$name => (Status::$status, $text),)*
                    Self::Command(error) => command(error),
                    Self::Line(fault) => line(fault),
                    Self::Connect(error) => connect(error),
                    Self::NextHop(class, detail) => (Status::NextHop(class, detail), next_hop(class)),
                }
            }
        }
    };
}

refusals! {
    /// Commands in the wrong order.
    HelloFirst => BadSequence, "Say HELO or EHLO first";
    /// RCPT or DATA without MAIL.
    MailFirst => BadSequence, "Say MAIL FROM first";
    /// MAIL within a transaction.
    NestedMail => BadSequence, "A transaction is open already; RSET ends it";
    /// DATA without an accepted recipient.
    NoRecipients => NoRecipients, "No valid recipients";
    /// EXPN.
    NotImplemented => NotImplemented, "Command not implemented";
    /// Input where none may be yet.
    OutOfStep => OutOfStep, "You spoke before it was your turn; closing the connection";
    /// Too many commands that do not exist.
    TooManyUnknown => TooManyErrors, "Too many unknown commands; closing the connection";
    /// Too many recipients that do not exist.
    TooManyRefused => TooManyErrors, "Too many unknown recipients; closing the connection";
    /// Silent for too long.
    Silent => TimedOut, "No command for too long; closing the connection";
    /// The message came too slowly.
    TooSlow => TimedOut, "Message came too slowly; closing the connection";
    /// The session took too long, or carried enough mails.
    SessionOver => TooManyErrors, "Enough for one connection; please open a new one";
    /// The program ends.
    ShuttingDown => ShuttingDown, "Service is restarting; please come again in a minute";
    /// Too many connections.
    TooManyConnections => ShuttingDown, "Too many connections; please come again later";
    /// Unknown, expired, used up, paused, removed: one text for all.
    UnknownAlias => UnknownAlias, "No such user here";
    /// Not a domain of ours.
    RelayDenied => RelayDenied, "Relaying denied: not a domain of this server";
    /// All uses left are held.
    Held => Held, "Other messages to this address are still under way; please retry later";
    /// The store said nothing.
    StoreDown => StoreDown, "Address lookup failed for now; please retry later";
    /// Recipients of one transaction were answered differently after the dot.
    Disagreement => Disagreement, "Recipients differ; nothing was sent, please retry each on its own";
    /// Another next hop, or more recipients than one transaction takes.
    SeparateTransaction => SeparateTransaction, "Please send to this recipient in a separate transaction";
    /// Enough mail to the operator.
    OperatorQuota => SlowDown, "Enough messages to the operator for now; please retry later";
    /// The message is larger than we or the next hop take.
    TooBig => TooBig, "Message is too large";
    /// No memory for the message now.
    NoMemory => NoMemory, "No room for the message now; please retry later";
    /// Bare CR or LF.
    BareNewline => BadContent, "Message has a CR or LF on its own (RFC 5321 section 2.3.8)";
    /// A line beyond all measure.
    LineTooLong => BadContent, "Message has a line of more than 64 KiB";
    /// The first line is a continuation.
    LeadingWhitespace => BadContent, "Message starts with white space instead of a header";
    /// It has been here, or has passed too many hosts.
    Loop => Loop, "Mail loop: the message has been here before or passed too many hosts";
    /// The target is ourselves.
    BadRoute => BadRoute, "The address has no usable destination";
    /// 8BITMIME needed, not offered by the next hop.
    NotEightBit => NotEightBit, "The destination takes no 8-bit messages";
    /// SMTPUTF8 needed, not offered by the next hop.
    NotUtf8 => NotUtf8, "The destination takes no internationalised addresses";
    /// The connection to the next hop broke before our dot.
    ConnectionLost => ConnectionLost, "The connection to the destination broke; please retry later";
    /// No verdict for the message: it may or may not have arrived.
    VerdictLost => ConnectionLost, "The destination did not confirm the message; please retry later";
    /// The next hop answered nonsense.
    Nonsense => NextHopNonsense, "The destination did not speak proper SMTP; please retry later";
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

    /// Every refusal, for `docs/replies.md` and its test.
    pub fn all() -> Vec<Self> {
        use CommandError as C;
        use ConnectError as E;
        let mut all = PLAIN.to_vec();
        all.extend(
            [C::Unknown, C::Http, C::Octets, C::Arguments, C::Hello, C::Sender, C::Recipient, C::Parameter]
                .map(Self::Command),
        );
        all.extend([LineFault::TooLong, LineFault::BareLineFeed].map(Self::Line));
        all.extend(
            [E::NoSuchDomain, E::NullMx, E::BadRoute, E::NoDnsAnswer, E::NoConnection].map(Self::Connect),
        );
        let detail = Detail { subject: 7, detail: 1 };
        all.extend([Refused::Transient, Refused::Permanent].map(|class| Self::NextHop(class, detail)));
        all
    }
}

fn line(fault: LineFault) -> (Status, &'static str) {
    match fault {
        LineFault::TooLong => (Status::LineTooLong, "Command line too long"),
        LineFault::BareLineFeed => (Status::BadSyntax, "Lines must end with CR LF (RFC 5321 section 2.3.8)"),
    }
}

fn connect(error: ConnectError) -> (Status, &'static str) {
    match error {
        ConnectError::NoSuchDomain => (Status::NoSuchDomain, "The destination's domain does not exist"),
        ConnectError::NullMx => (Status::NullMx, "The destination takes no mail"),
        ConnectError::BadRoute => (Status::BadRoute, "The address has no usable destination"),
        ConnectError::NoDnsAnswer => {
            (Status::NoDnsAnswer, "The destination could not be looked up; please retry later")
        }
        ConnectError::NoConnection => {
            (Status::NoConnection, "The destination could not be reached; please retry later")
        }
    }
}

fn next_hop(class: Refused) -> &'static str {
    match class {
        Refused::Transient => "The destination refused for now; please retry later",
        Refused::Permanent => "The destination refused",
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
