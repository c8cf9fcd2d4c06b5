//! One connection to a next hop, past its greeting.
//!
//! Owns the socket and what was read from it and not yet taken. Every wait can be dropped at any time: what was
//! read stays here, and whether the final dot may have left is remembered. Sets no deadline and repeats nothing:
//! both are the caller's business. Keeps no memory for reading or writing while nothing is read or written.

mod body;

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tempalias_smtp::client::Capabilities;
use tempalias_smtp::reply::{NextHopReply, Nonsense};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::Route;

pub use body::BodyFailed;

/// Read at once. Replies are far shorter; an EHLO reply fits.
const READ_AT_ONCE: usize = 4096;
/// More octets than this without a line end are no reply, whatever follows: time to let the parser say so.
const LONGEST_LINE: usize = 4096;
/// A reply that explains a failed write came before the failure: it is there, or it never will be.
const EXPLANATION_WAIT: Duration = Duration::from_millis(200);

/// A next hop that is ready for a transaction, or in one. See the module.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    route: Route,
    address: SocketAddr,
    capabilities: Capabilities,
    inbox: Inbox,
    dot_may_have_left: bool,
    opened: Instant,
    uses: u32,
    /// What the next hop allows (RFC 9422 MAILMAX).
    mail_max: Option<u32>,
}

/// How a connection stopped being one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It was closed or broke.
    #[error("the next hop closed the connection")]
    Closed,
    /// What came is no reply.
    #[error("the next hop sent what is no SMTP reply: {0}")]
    Nonsense(Nonsense),
}

impl Connection {
    /// `stream` was just connected to `address`, for `route`.
    pub(crate) fn new(stream: TcpStream, route: Route, address: SocketAddr) -> io::Result<Self> {
        // Or the kernel would hold a short write back until the last one was acknowledged: 40 ms each.
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            route,
            address,
            capabilities: Capabilities::default(),
            inbox: Inbox::default(),
            dot_may_have_left: false,
            opened: Instant::now(),
            uses: 0,
            mail_max: None,
        })
    }

    /// What the next hop offered in its greeting.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// For whom it was opened.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The address at its other end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it has carried a mail before this one: such a connection may turn out to have been closed meanwhile.
    pub fn is_reused(&self) -> bool {
        self.uses > 1
    }

    /// Writes commands, all of them. After it was dropped half-way the connection is broken.
    ///
    /// # Errors
    /// [`Lost::Closed`]; a reply that says why may still be there: [`Connection::pending_reply`].
    pub async fn send(&mut self, commands: &[u8]) -> Result<(), Lost> {
        self.stream.write_all(commands).await.map_err(|_| Lost::Closed)
    }

    /// Waits for the next reply. May be dropped and called again: nothing is lost.
    ///
    /// # Errors
    /// [`Lost`]
    pub async fn reply(&mut self) -> Result<NextHopReply, Lost> {
        loop {
            if let Some(reply) = self.inbox.take()? {
                return Ok(reply);
            }
            self.stream.readable().await.map_err(|_| Lost::Closed)?;
            self.inbox.fill(&self.stream)?;
        }
    }

    /// The reply that the next hop sent unasked before it stopped listening, if it did: the reason for a failed
    /// write. Returns almost at once.
    pub async fn pending_reply(&mut self) -> Option<NextHopReply> {
        timeout(EXPLANATION_WAIT, self.reply()).await.ok()?.ok()
    }

    /// Writes a message: `prefix`, then `segments`, which are the message as it travels, dots stuffed, and end with
    /// the final dot. That dot leaves in one write with what stands before it, and only if `may_end` says so just
    /// before.
    ///
    /// May be dropped; [`Connection::dot_may_have_left`] then says what that means. The connection is broken.
    ///
    /// # Errors
    /// [`BodyFailed`], also when the next hop said something before anything was written, and when `may_end` said
    /// no.
    pub async fn send_body(
        &mut self,
        prefix: &[u8],
        segments: &[Bytes],
        may_end: impl Fn() -> bool + Send + Sync,
    ) -> Result<(), BodyFailed> {
        self.dot_may_have_left = false;
        if !self.inbox.is_empty() {
            return Err(BodyFailed { dot_may_have_left: false });
        }
        let sent = body::send(&self.stream, prefix, segments, may_end, &mut self.dot_may_have_left).await;
        sent.map_err(|_| BodyFailed { dot_may_have_left: self.dot_may_have_left })
    }

    /// Whether the last [`Connection::send_body`], finished, failed or dropped, tried a write with any octet of the
    /// final dot: from then on the message may have been accepted.
    pub fn dot_may_have_left(&self) -> bool {
        self.dot_may_have_left
    }

    /// What the greeting brought.
    pub(crate) fn greeted(&mut self, capabilities: Capabilities, mail_max: Option<u32>) {
        (self.capabilities, self.mail_max) = (capabilities, mail_max);
    }

    /// Whether something was read that nobody took.
    pub(crate) fn has_unread(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// One more mail is about to use it.
    pub(crate) fn count_use(&mut self) {
        self.uses += 1;
    }

    /// Whether it has served enough, by our measure or by the next hop's.
    pub(crate) fn is_worn(&self, max_uses: u32, max_age: Duration) -> bool {
        self.uses >= self.mail_max.unwrap_or(u32::MAX).min(max_uses) || self.opened.elapsed() >= max_age
    }

    /// Whether the other end is there and sent nothing more, as it must be between two mails. Asks the kernel itself, because
    /// the runtime may not yet know of a close that has arrived.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut octet = [MaybeUninit::uninit()];
        let seen = SockRef::from(&self.stream).peek(&mut octet);
        seen.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }

    /// RSET; whether the connection is in its initial state now (RFC 5321 §4.1.1.5).
    pub(crate) async fn reset(&mut self) -> bool {
        if self.send(b"RSET\r\n").await.is_err() {
            return false;
        }
        let answer = self.reply().await;
        answer.is_ok_and(|reply| reply.code() == 250) && !self.has_unread()
    }

    /// QUIT, without waiting for an answer that nobody needs.
    pub(crate) fn quit(self) {
        // Fails only if the other end is gone, or has not read for long: then it is closed without a word.
        drop(self.stream.try_write(b"QUIT\r\n"));
    }
}

/// Octets read and not yet taken.
#[derive(Debug, Default)]
struct Inbox {
    octets: Vec<u8>,
    /// Whether parsing could say more than last time. Without this, an octet a packet would cost a look at
    /// everything before it.
    is_news: bool,
    /// Octets behind the last line end.
    tail: usize,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// The first reply, if all of it is here.
    fn take(&mut self) -> Result<Option<NextHopReply>, Lost> {
        if !self.is_news {
            return Ok(None);
        }
        let Some((reply, taken)) = NextHopReply::parse(&self.octets).map_err(Lost::Nonsense)? else {
            self.is_news = false;
            return Ok(None);
        };
        if taken >= self.octets.len() {
            // Also gives the memory back.
            *self = Self::default();
        } else {
            self.octets.drain(..taken);
        }
        Ok(Some(reply))
    }

    /// Reads what is there.
    fn fill(&mut self, stream: &TcpStream) -> Result<(), Lost> {
        let mut chunk = [0; READ_AT_ONCE];
        let read = match stream.try_read(&mut chunk) {
            Ok(0) => return Err(Lost::Closed),
            Ok(read) => chunk.get(..read).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(Lost::Closed),
        };
        match read.iter().rposition(|&octet| octet == b'\n') {
            Some(at) => (self.tail, self.is_news) = (read.len() - at - 1, true),
            None => self.tail += read.len(),
        }
        self.is_news |= self.tail > LONGEST_LINE;
        self.octets.extend_from_slice(read);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pair() -> (Connection, TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        let route = Route::Mx("t.test".parse().unwrap());
        (Connection::new(stream, route, address).unwrap(), peer)
    }

    #[tokio::test]
    async fn short_writes_are_never_held_back() {
        assert!(pair().await.0.stream.nodelay().unwrap());
    }

    /// A next hop that sends an octet a packet must not make us look at all of them each time.
    #[tokio::test]
    async fn only_a_line_end_is_news() {
        let (mut connection, mut peer) = pair().await;
        for octet in b"250-a\r" {
            peer.write_all(&[*octet]).await.unwrap();
            connection.stream.readable().await.unwrap();
            connection.inbox.fill(&connection.stream).unwrap();
            assert!(!connection.inbox.is_news);
        }
        peer.write_all(b"\n250 b\r\n250").await.unwrap();
        assert_eq!(connection.reply().await.unwrap().lines().count(), 2);
        assert_eq!(connection.inbox.octets, b"250");
        peer.write_all(b"\r\n").await.unwrap();
        connection.reply().await.unwrap();
        assert_eq!(connection.inbox.octets.capacity(), 0, "an idle connection keeps no memory for reading");
    }
}
