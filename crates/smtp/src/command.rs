//! What a sender may say, and how it is read (RFC 5321 §4.1).
//!
//! A command is parsed once, here, into values that cannot be wrong. Nothing of a line is passed on: what goes to
//! a next hop is written anew from the parsed parts.

use std::fmt;

use tempalias_address::{Mailbox, ReversePath};

/// Longest name a client may give itself (RFC 5321 §4.5.3.1.2).
const MAX_HELLO: usize = 255;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Plain SMTP: no extensions.
    Helo(HelloName),
    /// Extended SMTP.
    Ehlo(HelloName),
    /// Opens a transaction.
    Mail(ReversePath, MailParameters),
    /// One recipient.
    Rcpt(ForwardPath),
    /// The message follows.
    Data,
    /// Forget the transaction.
    Rset,
    /// Nothing.
    Noop,
    /// Goodbye.
    Quit,
    /// Does this mailbox exist?
    Vrfy,
    /// Who is on this list?
    Expn,
    /// What do you understand?
    Help,
}

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<Postmaster>` without a domain (RFC 5321 §4.5.1).
    Postmaster,
    /// An ordinary mailbox.
    Mailbox(Mailbox),
}

/// What a client calls itself: safe to print and to put into a header, and otherwise not believed.
#[derive(Clone, PartialEq, Eq)]
pub struct HelloName(Box<str>);

/// Parameters of MAIL that we offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailParameters {
    /// `SIZE=`: octets, as the sender estimates (RFC 1870).
    pub size: Option<u64>,
    /// `BODY=8BITMIME` (RFC 6152).
    pub eight_bit: bool,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
}

/// Why a line is not a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such verb.
    #[error("unknown command")]
    Unknown,
    /// A verb of HTTP: a browser was pointed here, by accident or by an attacker.
    #[error("this is not a web server")]
    Http,
    /// Octets that no command has: control characters, or not UTF-8.
    #[error("octets that may not stand in a command")]
    Octets,
    /// The verb is known, what follows is not what it takes.
    #[error("wrong arguments")]
    Arguments,
    /// HELO or EHLO with a name that is none.
    #[error("not a host name")]
    Hello,
    /// The path of MAIL FROM.
    #[error("not an address in angle brackets")]
    Sender,
    /// The path of RCPT TO.
    #[error("not an address in angle brackets")]
    Recipient,
    /// A parameter that we do not offer (RFC 5321 §4.1.1.11).
    #[error("parameter not offered")]
    Parameter,
}

impl HelloName {
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, CommandError> {
        let name = text.trim_end_matches(' ');
        // Wider than RFC 5321 §4.1.1.1, since real clients give host names with underscores, but never a
        // character that means something in a header or a log line.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
        if name.is_empty() || name.len() > MAX_HELLO || !name.bytes().all(allowed) {
            return Err(CommandError::Hello);
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Debug for HelloName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Command {
    /// Reads one line, given without its CRLF.
    ///
    /// # Errors
    /// [`CommandError`] says which part is wrong.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let text = std::str::from_utf8(line).map_err(|_| CommandError::Octets)?;
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(CommandError::Octets);
        }
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let bare = |command| if rest.trim().is_empty() { Ok(command) } else { Err(CommandError::Arguments) };
        match verb.to_ascii_uppercase().as_str() {
            "HELO" => HelloName::parse(rest).map(Self::Helo),
            "EHLO" => HelloName::parse(rest).map(Self::Ehlo),
            "MAIL" => parse_mail(rest),
            "RCPT" => parse_rcpt(rest),
            "DATA" => bare(Self::Data),
            "RSET" => bare(Self::Rset),
            "QUIT" => bare(Self::Quit),
            // RFC 5321 §4.1.1.9: an argument of NOOP is ignored.
            "NOOP" => Ok(Self::Noop),
            "VRFY" => Ok(Self::Vrfy),
            "EXPN" => Ok(Self::Expn),
            "HELP" => Ok(Self::Help),
            "GET" | "POST" | "HEAD" | "PUT" | "OPTIONS" | "CONNECT" | "DELETE" | "PATCH" | "TRACE" => {
                Err(CommandError::Http)
            }
            _ => Err(CommandError::Unknown),
        }
    }
}

fn parse_mail(rest: &str) -> Result<Command, CommandError> {
    let (path, parameters) = split_path(rest, "FROM:").ok_or(CommandError::Sender)?;
    let path = if path.is_empty() {
        ReversePath::Null
    } else {
        ReversePath::Mailbox(path.parse().map_err(|_| CommandError::Sender)?)
    };
    let mut seen = MailParameters::default();
    for parameter in parameters.split_ascii_whitespace() {
        seen.take(parameter)?;
    }
    if path.needs_smtputf8() && !seen.smtputf8 {
        return Err(CommandError::Sender); // RFC 6531 §3.4
    }
    Ok(Command::Mail(path, seen))
}

fn parse_rcpt(rest: &str) -> Result<Command, CommandError> {
    let (path, parameters) = split_path(rest, "TO:").ok_or(CommandError::Recipient)?;
    if !parameters.trim().is_empty() {
        return Err(CommandError::Parameter);
    }
    if path.eq_ignore_ascii_case("postmaster") {
        return Ok(Command::Rcpt(ForwardPath::Postmaster));
    }
    path.parse()
        .map(|mailbox| Command::Rcpt(ForwardPath::Mailbox(mailbox)))
        .map_err(|_| CommandError::Recipient)
}

/// Splits `FROM:<path> parameters` into path and parameters. A space after the colon is taken, since many
/// senders write one. A source route stays in the path and fails there: we relay for nobody (RFC 5321 §C).
fn split_path<'a>(rest: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (head, tail) = rest.split_at_checked(keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let inner = tail.trim_start_matches(' ').strip_prefix('<')?;
    let end = closing_bracket(inner)?;
    let (path, tail) = inner.split_at_checked(end)?;
    let parameters = tail.strip_prefix('>')?;
    (parameters.is_empty() || parameters.starts_with(' ')).then_some((path, parameters))
}

/// Where the path ends: the first `>` outside quotes.
fn closing_bracket(inner: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

impl MailParameters {
    fn take(&mut self, parameter: &str) -> Result<(), CommandError> {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name.to_ascii_uppercase().as_str() {
            // RFC 1870 §4: at most 20 digits.
            "SIZE"
                if self.size.is_none() && value.len() <= 20 && value.bytes().all(|b| b.is_ascii_digit()) =>
            {
                self.size = Some(value.parse().map_err(|_| CommandError::Arguments)?);
                Ok(())
            }
            "BODY" if value.eq_ignore_ascii_case("8BITMIME") => {
                self.eight_bit = true;
                Ok(())
            }
            "BODY" if value.eq_ignore_ascii_case("7BIT") => Ok(()),
            "SMTPUTF8" if parameter.len() == name.len() => {
                self.smtputf8 = true;
                Ok(())
            }
            "SIZE" | "BODY" | "SMTPUTF8" => Err(CommandError::Arguments),
            _ => Err(CommandError::Parameter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rcpt(line: &str) -> Result<String, CommandError> {
        match Command::parse(line.as_bytes())? {
            Command::Rcpt(ForwardPath::Mailbox(mailbox)) => Ok(mailbox.to_string()),
            Command::Rcpt(ForwardPath::Postmaster) => Ok("postmaster".into()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn verbs_have_no_case_and_their_arguments_are_read() {
        let mail = Command::parse(b"mail from:<a@b.example> SIZE=10 body=8BITMIME SMTPUTF8").unwrap();
        let parameters = MailParameters { size: Some(10), eight_bit: true, smtputf8: true };
        assert_eq!(mail, Command::Mail(ReversePath::Mailbox("a@b.example".parse().unwrap()), parameters));
        assert_eq!(
            Command::parse(b"MAIL FROM:<>"),
            Ok(Command::Mail(ReversePath::Null, MailParameters::default()))
        );
        assert_eq!(rcpt("RCPT TO: <X@alias.example>").unwrap(), "X@alias.example");
        assert_eq!(rcpt("RCPT TO:<postMASTER>").unwrap(), "postmaster");
        assert_eq!(rcpt("RCPT TO:<\"a>b\"@alias.example>").unwrap(), "\"a>b\"@alias.example");
    }

    #[test]
    fn relay_tricks_are_no_paths() {
        for line in [
            "RCPT TO:<@other.example:x@alias.example>",
            "RCPT TO:<@a.example,@b.example:x@alias.example>",
            "RCPT TO:<x@other.example@alias.example>",
            "RCPT TO:<x@[127.0.0.1]>",
            "RCPT TO:<x@alias.example.>",
            "RCPT TO:x@alias.example",
            "RCPT TO:<x@alias.example",
            "RCPT TO:<x@alias.example>y",
            "RCPT TO:<>",
            "RCPT TO:<x>",
        ] {
            assert_eq!(rcpt(line), Err(CommandError::Recipient), "{line}");
        }
        assert_eq!(rcpt("RCPT TO:<x@alias.example> NOTIFY=NEVER"), Err(CommandError::Parameter));
    }

    #[test]
    fn parameters_cannot_be_smuggled() {
        for line in [
            "MAIL FROM:<a@b.example> AUTH=<>",
            "MAIL FROM:<a@b.example> RET=FULL",
            "MAIL FROM:<a@b.example> X=y",
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Err(CommandError::Parameter), "{line}");
        }
        for line in [
            "MAIL FROM:<a@b.example> SIZE=1 SIZE=2",
            "MAIL FROM:<a@b.example> SIZE=-1",
            "MAIL FROM:<a@b.example> SIZE=999999999999999999999",
            "MAIL FROM:<a@b.example> BODY=BINARYMIME",
            "MAIL FROM:<a@b.example> SMTPUTF8=1",
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Err(CommandError::Arguments), "{line}");
        }
        assert_eq!(Command::parse(b"MAIL FROM:<a@b.example>\x00"), Err(CommandError::Octets));
        assert_eq!(Command::parse(b"MAIL FROM:<a\r@b.example>"), Err(CommandError::Octets));
        assert_eq!(Command::parse("MAIL FROM:<ü@b.example>".as_bytes()), Err(CommandError::Sender));
        assert!(Command::parse("MAIL FROM:<ü@b.example> SMTPUTF8".as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_command_is_told_apart() {
        assert_eq!(Command::parse(b"GET / HTTP/1.1"), Err(CommandError::Http));
        assert_eq!(Command::parse(b"XYZZY"), Err(CommandError::Unknown));
        assert_eq!(Command::parse(b""), Err(CommandError::Unknown));
        assert_eq!(Command::parse(b"\xff\xfe"), Err(CommandError::Octets));
        assert_eq!(Command::parse(b"EHLO"), Err(CommandError::Hello));
        assert_eq!(Command::parse(b"EHLO a b"), Err(CommandError::Hello));
        assert_eq!(Command::parse(b"EHLO (evil)"), Err(CommandError::Hello));
        assert_eq!(Command::parse(b"DATA now"), Err(CommandError::Arguments));
    }
}
