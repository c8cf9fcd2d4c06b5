//! What a session is told.

use std::time::Instant;

use bytes::Bytes;
use tempalias_alias::{Answer, Ledger, Limits, Owner, RowKey, Sealed, UnixTime};
use tempalias_smtp::client::Capabilities;
use tempalias_smtp::reply::{NextHopReply, Nonsense};

/// When something happened: by the clock that only goes forward, by the calendar, and in whose time.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For deadlines.
    pub instant: Instant,
    /// For the dates in header lines.
    pub unix: UnixTime,
    /// In whose name claims are made now. A store for several nodes may have counted this one among the dead; it
    /// goes on under another name then, in the same session.
    pub owner: Owner,
}

/// One thing that happened. A session waits for one thing at a time: for input from its sender
/// ([`crate::Session::awaits`]) or for the answer to the last effect that asks for one.
#[derive(Debug)]
pub enum Event<'a> {
    /// The sender is connected.
    Opened {
        /// Whether it spoke before our banner.
        early: bool,
    },
    /// A command line, without its CRLF.
    Line {
        /// The line.
        text: &'a [u8],
        /// Whether more input is already there.
        more: bool,
        /// Whether its first octet arrived after our last reply was written out.
        fresh: bool,
    },
    /// What came instead of a command line.
    BadLine(LineFault),
    /// A piece of what follows `354`.
    Body {
        /// The octets.
        chunk: Bytes,
        /// Whether the memory budget had room for them; if not, the message cannot be held.
        held: bool,
    },
    /// The sender closed, or its connection broke.
    PeerGone,
    /// The time that [`crate::Session::deadline`] named has come.
    Deadline,
    /// The program wants to end.
    Drain,
    /// Another connection needs the place, and this one has been idle for longest.
    Evicted,
    /// Answer to [`crate::Effect::Find`].
    Found(Result<Option<Found>, StoreDown>),
    /// Answer to [`crate::Effect::Quota`]: whether the client may send this.
    Quota(Result<bool, StoreDown>),
    /// Answer to [`crate::Effect::Connect`].
    Connected(Result<Connected, ConnectError>),
    /// Answer to [`crate::Effect::Hear`].
    Heard(Heard),
    /// Answer to [`crate::Effect::Reserve`].
    Reserved {
        /// Whether there is memory to begin a message with.
        granted: bool,
        /// Whether the sender spoke before our 354.
        early: bool,
    },
    /// Answer to [`crate::Effect::Claim`]: one for each request, in order.
    Claimed(Result<Vec<Claimed>, StoreDown>),
    /// Answer to [`crate::Effect::SendBody`].
    BodySent(Result<(), BodyFailed>),
    /// Answer to [`crate::Effect::Settle`]: it is durable, or the store did not say so in time and it will be
    /// tried on.
    Settled,
}

/// Why there is no command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFault {
    /// Over the limit.
    TooLong,
    /// Ended by a bare line feed.
    BareLineFeed,
}

/// The store said nothing about the alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreDown;

/// An alias's row as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which of the row keys asked for matched.
    pub row: RowKey,
    /// Limits, state, uses, kept claims.
    pub ledger: Ledger,
    /// Whom it belongs to, sealed.
    pub sealed: Sealed,
    /// The store's time.
    pub now: UnixTime,
}

/// The store's answer to one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// Whether the message may be sent.
    pub answer: Answer,
    /// The alias's limits at that moment.
    pub limits: Limits,
    /// Uses granted, this one included.
    pub used: u32,
}

/// A connection to the next hop is there, its EHLO answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected {
    /// What it offers.
    pub offered: Capabilities,
    /// Whether it served another mail before: such a one may have died unnoticed.
    pub reused: bool,
}

/// Why there is no connection to the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// The target's domain does not exist.
    NoSuchDomain,
    /// It takes no mail (RFC 7505).
    NullMx,
    /// All its addresses are private, or ours.
    BadRoute,
    /// The DNS gave no answer.
    NoDnsAnswer,
    /// No host could be reached, or none served us.
    NoConnection,
}

/// What came of listening to the next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A reply.
    Reply(NextHopReply),
    /// Something that is none.
    Nonsense(Nonsense),
    /// The connection is gone.
    Lost,
}

/// The message did not go out whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyFailed {
    /// Whether a write that contained any octet of the final dot was tried.
    pub dot_may_have_left: bool,
    /// What the next hop had said when the write failed, if anything.
    pub pending: Option<Heard>,
}
