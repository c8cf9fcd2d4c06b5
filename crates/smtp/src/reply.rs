//! Replies: the ones we give, whose code and enhanced code cannot disagree, and the ones a next hop gives, of
//! which nothing but class and enhanced code is believed.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;

/// Longest reply line accepted of a next hop. RFC 5321 §4.5.3.1.5 allows 512.
const MAX_REPLY_LINE: usize = 2048;
/// Most lines accepted in one reply of a next hop: EHLO replies have a dozen.
const MAX_REPLY_LINES: usize = 100;

/// The second and third number of an enhanced status code (RFC 3463 §2); the first is the reply's class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Detail {
    /// Subject, 0 to 7 in RFC 3463; any up to 999 in practice.
    pub subject: u16,
    /// Detail.
    pub detail: u16,
}

/// A refusal's class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// 4xx: the sender keeps the message and retries.
    Transient,
    /// 5xx: the sender gives up.
    Permanent,
}

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal $(, $subject:literal $detail:literal)?;)*) => {
        /// Everything we ever answer: it yields the code and the enhanced code (RFC 3463, RFC 5248) as one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Status {
            $($(#[$doc])* $name,)*
            /// A next hop's refusal, passed on with its class and detail.
            NextHop(Refused, Detail),
        }

        impl Status {
            /// Every status of the table, for documentation and tests.
            pub const ALL: &[Status] = &[$(Status::$name,)*];

            fn parts(self) -> (u16, Option<Detail>) {
                match self {
                    $(Self::$name => (
                        $code,
                        None $(.or(Some(Detail { subject: $subject, detail: $detail })))?,
                    ),)*
                    Self::NextHop(Refused::Transient, detail) => (451, Some(detail)),
                    Self::NextHop(Refused::Permanent, detail) => (550, Some(detail)),
                }
            }
        }
    };
}

statuses! {
    /// The banner.
    Ready = 220;
    /// Answer to QUIT.
    Closing = 221, 0 0;
    /// Done: RSET, NOOP, and a message that the next hop accepted.
    Completed = 250, 0 0;
    /// Answer to HELO and EHLO (RFC 2034 §3: without an enhanced code).
    Hello = 250;
    /// MAIL accepted.
    SenderOk = 250, 1 0;
    /// RCPT accepted.
    RecipientOk = 250, 1 5;
    /// Answer to VRFY: nobody is told what exists.
    CannotVerify = 252, 5 0;
    /// Answer to HELP.
    Help = 214, 0 0;
    /// Send the message.
    StartInput = 354;
    /// We are going down, or full.
    ShuttingDown = 421, 3 2;
    /// The sender was silent, or slower than anybody needs to be.
    TimedOut = 421, 4 2;
    /// The sender did what no mail server does, too often.
    TooManyErrors = 421, 7 0;
    /// Every use that is left is held by messages under way.
    Held = 450, 2 1;
    /// The recipients' claims or replayed RCPTs disagree.
    Disagreement = 451, 2 1;
    /// The store gave no answer.
    StoreDown = 451, 3 0;
    /// No connection to a next hop.
    NoConnection = 451, 4 1;
    /// The connection to the next hop broke.
    ConnectionLost = 451, 4 2;
    /// The DNS gave no answer.
    NoDnsAnswer = 451, 4 3;
    /// The next hop answered what no server answers.
    NextHopNonsense = 451, 5 0;
    /// The target's domain has a policy that the connection does not meet.
    TlsPolicy = 451, 7 5;
    /// No memory for the message.
    NoMemory = 452, 3 1;
    /// This recipient needs a transaction of its own.
    SeparateTransaction = 452, 5 3;
    /// The sender sent more of this kind than it may, for now.
    SlowDown = 452, 7 0;
    /// Not a line, or not text.
    BadSyntax = 500, 5 2;
    /// No such command.
    UnknownCommand = 500, 5 1;
    /// A command line longer than any.
    LineTooLong = 500, 5 6;
    /// Known command, wrong arguments.
    BadArguments = 501, 5 4;
    /// The path of MAIL FROM is none.
    BadSender = 501, 1 7;
    /// The path of RCPT TO is none.
    BadRecipient = 501, 1 3;
    /// Known command, not offered.
    NotImplemented = 502, 5 1;
    /// Known command, not now.
    BadSequence = 503, 5 1;
    /// A parameter that was not offered.
    UnknownParameter = 555, 5 4;
    /// No such alias, for whatever reason.
    UnknownAlias = 550, 1 1;
    /// The target's domain does not exist.
    NoSuchDomain = 550, 1 2;
    /// The target's domain takes no mail (RFC 7505).
    NullMx = 550, 1 10;
    /// The next hop would be ourselves or a private network.
    BadRoute = 550, 4 6;
    /// The message breaks RFC 5321 or RFC 5322 in a way that is dangerous to pass on.
    BadContent = 550, 6 0;
    /// Eight-bit content, and the next hop takes none.
    NotEightBit = 550, 6 3;
    /// Internationalised addresses, and the next hop takes none.
    NotUtf8 = 550, 6 7;
    /// Not a domain of ours.
    RelayDenied = 550, 7 1;
    /// Larger than we or the next hop take.
    TooBig = 552, 3 4;
    /// No valid recipient was given.
    NoRecipients = 554, 5 1;
    /// The message has been here before.
    Loop = 554, 4 6;
    /// Something was sent where nothing may be sent yet.
    OutOfStep = 554, 5 0;
}

impl Status {
    /// The three-digit code (RFC 5321 §4.2).
    pub fn code(self) -> u16 {
        self.parts().0
    }

    /// The enhanced code, as text with its class, if this reply carries one.
    pub fn enhanced(self) -> Option<String> {
        let (code, detail) = self.parts();
        detail.map(|detail| format!("{}.{}.{}", code / 100, detail.subject, detail.detail))
    }

    /// Whether the sender is told that what it asked for was done.
    pub fn is_success(self) -> bool {
        self.code() < 400
    }
}

/// One reply of ours: status and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Code and enhanced code.
    pub status: Status,
    /// The words, a line each. Never words of a peer.
    pub lines: Vec<Cow<'static, str>>,
}

impl Reply {
    /// A reply of one line.
    pub fn new(status: Status, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, lines: vec![text.into()] }
    }

    /// Appends the wire form to `out` (RFC 5321 §4.2.1; RFC 2034 §4: every line has the enhanced code).
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let code = self.status.code();
        let enhanced = self.status.enhanced().map(|enhanced| enhanced + " ").unwrap_or_default();
        let last = self.lines.len().saturating_sub(1);
        for (at, line) in self.lines.iter().enumerate() {
            let separator = if at == last { ' ' } else { '-' };
            out.extend_from_slice(format!("{code}{separator}{enhanced}{line}\r\n").as_bytes());
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut wire = vec![];
        self.write_to(&mut wire);
        f.write_str(String::from_utf8_lossy(&wire).trim_end())
    }
}

/// What a next hop answered, reduced to what may be acted on.
#[derive(Clone, PartialEq, Eq)]
pub struct NextHopReply {
    code: u16,
    detail: Option<Detail>,
    lines: Vec<Box<str>>,
}

/// What a next hop said is no reply: the connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// No three digits from 200 to 599 and a space or hyphen behind them.
    #[error("a line without a reply code")]
    NoCode,
    /// Lines of one reply with different codes (RFC 5321 §4.2.1).
    #[error("a reply with two codes")]
    MixedCodes,
    /// A class in the enhanced code that is not the code's (RFC 2034 §4).
    #[error("a reply whose codes contradict each other")]
    Contradiction,
    /// A line, or a number of lines, that no reply has.
    #[error("an endless reply")]
    TooLong,
    /// NUL, another control character, or a bare CR or LF.
    #[error("control characters in a reply")]
    Octets,
}

impl NextHopReply {
    /// The three-digit code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The detail of its enhanced code; 0.0 where it gave none.
    pub fn detail(&self) -> Detail {
        self.detail.unwrap_or_default()
    }

    /// 2xx.
    pub fn is_success(&self) -> bool {
        self.code / 100 == 2
    }

    /// The refusal to pass on, if it is one.
    pub fn refusal(&self) -> Option<(Refused, Detail)> {
        match self.code / 100 {
            4 => Some((Refused::Transient, self.detail())),
            5 => Some((Refused::Permanent, self.detail())),
            _ => None,
        }
    }

    /// The text of its lines, for EHLO alone. Never passed on.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(AsRef::as_ref)
    }

    /// Reads the reply at the start of `buffer`: it and the octets that it took, or none if it has not all come.
    ///
    /// # Errors
    /// [`Nonsense`] when no continuation could make it a reply.
    pub fn parse(buffer: &[u8]) -> Result<Option<(Self, usize)>, Nonsense> {
        let (mut at, mut reply): (usize, Option<Self>) = (0, None);
        for _ in 0..MAX_REPLY_LINES {
            let rest = buffer.get(at..).unwrap_or_default();
            let Some(end) = memchr(b'\n', rest) else {
                return if rest.len() > MAX_REPLY_LINE { Err(Nonsense::TooLong) } else { Ok(None) };
            };
            if end > MAX_REPLY_LINE {
                return Err(Nonsense::TooLong);
            }
            let line = rest.get(..end).and_then(|l| l.strip_suffix(b"\r")).ok_or(Nonsense::Octets)?;
            at += end + 1;
            let (code, is_last, text) = parse_line(line)?;
            let reply = reply.get_or_insert(Self { code, detail: None, lines: vec![] });
            reply.add_line(code, text)?;
            if is_last {
                return Ok(Some((reply.clone(), at)));
            }
        }
        Err(Nonsense::TooLong)
    }

    fn add_line(&mut self, code: u16, text: &str) -> Result<(), Nonsense> {
        if code != self.code {
            return Err(Nonsense::MixedCodes);
        }
        if let Some((class, detail)) = parse_enhanced(text) {
            if class != code / 100 {
                return Err(Nonsense::Contradiction);
            }
            self.detail.get_or_insert(detail);
        }
        self.lines.push(text.into());
        Ok(())
    }
}

impl fmt::Debug for NextHopReply {
    /// Without its words: they may name the target.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}", self.code, self.detail().subject, self.detail().detail)
    }
}

/// Code, whether the line is the reply's last, and text.
fn parse_line(line: &[u8]) -> Result<(u16, bool, &str), Nonsense> {
    if line.iter().any(|&b| b.is_ascii_control() && b != b'\t') {
        return Err(Nonsense::Octets);
    }
    let (digits, rest) = line.split_at_checked(3).ok_or(Nonsense::NoCode)?;
    let code = digits
        .iter()
        .try_fold(0, |n: u16, &b| b.is_ascii_digit().then(|| n * 10 + u16::from(b - b'0')))
        .filter(|code| (200..600).contains(code))
        .ok_or(Nonsense::NoCode)?;
    let (is_last, text) = match rest.split_first() {
        None => (true, &b""[..]),
        Some((b' ', text)) => (true, text),
        Some((b'-', text)) => (false, text),
        Some(_) => return Err(Nonsense::NoCode),
    };
    // Words in another encoding are not worth refusing a reply for, nor worth keeping.
    Ok((code, is_last, std::str::from_utf8(text).unwrap_or_default()))
}

/// `class.subject.detail` at the start of a text (RFC 3463 §2).
fn parse_enhanced(text: &str) -> Option<(u16, Detail)> {
    let word = text.split_ascii_whitespace().next()?;
    let mut numbers = word.split('.').map(|part| {
        (matches!(part.len(), 1..=3) && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse::<u16>().ok())
            .flatten()
    });
    let (class, subject, detail) = (numbers.next()??, numbers.next()??, numbers.next()??);
    (numbers.next().is_none() && matches!(class, 2 | 4 | 5)).then_some((class, Detail { subject, detail }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Option<(u16, Detail, usize)>, Nonsense> {
        Ok(NextHopReply::parse(bytes)?.map(|(reply, taken)| (reply.code(), reply.detail(), taken)))
    }

    #[test]
    fn class_and_detail_are_taken_and_nothing_else() {
        let detail = Detail { subject: 1, detail: 1 };
        assert_eq!(parse(b"550 5.1.1 hidden@target unknown\r\n250"), Ok(Some((550, detail, 33))));
        assert_eq!(parse(b"250\r\n"), Ok(Some((250, Detail::default(), 5))));
        assert_eq!(parse(b"250-5.1.1.1 a\r\n250 ok\r\n"), Ok(Some((250, Detail::default(), 23))));
        assert_eq!(parse(b"550-5.1.1 a\r\n"), Ok(None));
        assert_eq!(parse(b"550 5.1"), Ok(None));
        let (reply, _) = NextHopReply::parse(b"550 5.1.1 hidden@target\r\n").unwrap().unwrap();
        assert!(!format!("{reply:?}").contains("hidden"));
    }

    #[test]
    fn nonsense_is_nonsense_at_once() {
        for (bytes, why) in [
            (&b"hello\r\n"[..], Nonsense::NoCode),
            (b"150 wait\r\n", Nonsense::NoCode),
            (b"650 no\r\n", Nonsense::NoCode),
            (b"25\r\n", Nonsense::NoCode),
            (b"250x\r\n", Nonsense::NoCode),
            (b"\r\n", Nonsense::NoCode),
            (b"250-a\r\n550 b\r\n", Nonsense::MixedCodes),
            (b"250 5.0.0 well\r\n", Nonsense::Contradiction),
            (b"250 a\0b\r\n", Nonsense::Octets),
            (b"250 a\x1b[2J\r\n", Nonsense::Octets),
            (b"250 a\n", Nonsense::Octets),
            (b"250 a\rb\r\n", Nonsense::Octets),
        ] {
            assert_eq!(parse(bytes), Err(why), "{:?}", bytes.escape_ascii().to_string());
        }
        assert_eq!(parse(&vec![b'2'; 1 << 20]), Err(Nonsense::TooLong));
        assert_eq!(parse(&b"250-a\r\n".repeat(MAX_REPLY_LINES)), Err(Nonsense::TooLong));
    }

    #[test]
    fn every_status_has_the_class_of_its_code() {
        for status in Status::ALL {
            if let Some(enhanced) = status.enhanced() {
                assert!(enhanced.starts_with(&(status.code() / 100).to_string()), "{status:?}");
            }
        }
        let passed = Status::NextHop(Refused::Permanent, Detail { subject: 7, detail: 26 });
        assert_eq!((passed.code(), passed.enhanced().as_deref()), (550, Some("5.7.26")));
    }

    proptest! {
        #[test]
        fn what_we_write_reads_back(at in 0..Status::ALL.len(), lines in prop::collection::vec("[a-zA-Z ]{0,20}", 1..4)) {
            let status = Status::ALL[at];
            let reply = Reply { status, lines: lines.into_iter().map(Cow::Owned).collect() };
            let mut wire = vec![];
            reply.write_to(&mut wire);
            let (read, taken) = NextHopReply::parse(&wire).unwrap().unwrap();
            prop_assert_eq!(taken, wire.len());
            prop_assert_eq!(read.code(), status.code());
        }

        #[test]
        fn parsing_never_takes_more_than_is_there(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(Some((_, taken))) = NextHopReply::parse(&bytes) {
                prop_assert!(taken <= bytes.len());
            }
        }
    }
}
