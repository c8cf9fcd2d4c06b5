//! What comes from a sender: read in one place, with no memory kept while nothing comes.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::Bytes;
use socket2::SockRef;
use tempalias_smtp::line::{self, Scan};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// Read at once. One buffer a thread, not one a session: an idle session has none.
const READ_AT_ONCE: usize = 64 * 1024;
/// Looked at, at most, of what waits in the kernel: more is pipelined only by who floods.
const PEEK: usize = 4096;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_AT_ONCE]);
}

/// Octets read and not yet taken, and how many passed.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    octets: Vec<u8>,
    /// Octets at the front of `octets` that were taken.
    taken: usize,
    /// Octets taken in all.
    passed: u64,
    /// Octets before this position were there when our last reply had been written: they do not show that it was
    /// read.
    unproven_until: u64,
}

/// The next line, if it is there.
pub(crate) enum Next {
    /// A line: its text's length. Take it with [`Inbox::line`] and [`Inbox::pass`].
    Line { text: usize, fresh: bool, more: bool },
    /// None yet.
    Incomplete,
    /// What is there is no line.
    Bad(tempalias_relay::LineFault),
}

impl Inbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.taken >= self.octets.len()
    }

    fn rest(&self) -> &[u8] {
        self.octets.get(self.taken..).unwrap_or_default()
    }

    pub(crate) fn next(&self) -> Next {
        match line::scan(self.rest()) {
            Scan::Line { text } => Next::Line {
                text,
                fresh: self.passed >= self.unproven_until,
                more: self.rest().len() > text + 2,
            },
            Scan::Incomplete => Next::Incomplete,
            Scan::TooLong => Next::Bad(tempalias_relay::LineFault::TooLong),
            Scan::BareLineFeed => Next::Bad(tempalias_relay::LineFault::BareLineFeed),
        }
    }

    /// The first `length` octets.
    pub(crate) fn line(&self, length: usize) -> &[u8] {
        self.rest().get(..length).unwrap_or_default()
    }

    /// The first `length` octets were taken.
    pub(crate) fn pass(&mut self, length: usize) {
        self.taken += length;
        self.passed += length as u64;
        if self.is_empty() {
            // Gives the memory back, too.
            (self.octets, self.taken) = (vec![], 0);
        }
    }

    /// Everything that is there, as a chunk of a message.
    pub(crate) fn take_all(&mut self) -> Bytes {
        let mut octets = std::mem::take(&mut self.octets);
        octets.drain(..self.taken.min(octets.len()));
        self.taken = 0;
        self.passed += octets.len() as u64;
        Bytes::from(octets)
    }

    /// These octets, taken with the last chunk, were none of the message.
    pub(crate) fn put_back(&mut self, octets: &[u8]) {
        self.passed -= octets.len() as u64;
        let mut all = octets.to_vec();
        all.extend_from_slice(self.rest());
        (self.octets, self.taken) = (all, 0);
    }

    /// Whether anything is here, or in the kernel, that was not taken.
    pub(crate) fn has_waiting(&self, stream: &TcpStream) -> bool {
        !self.is_empty() || waiting(stream) > 0
    }

    /// Our reply has just been written out: what is here or in the kernel now was sent before it could be read.
    pub(crate) fn mark_unproven(&mut self, stream: &TcpStream) {
        let in_kernel = waiting(stream);
        self.unproven_until = self.passed + (self.octets.len() - self.taken) as u64 + in_kernel;
    }

    /// Waits for octets and takes them in. False: the sender closed. May be dropped: nothing is lost.
    pub(crate) async fn fill(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        let octets = &mut self.octets;
        Ok(read(stream, |read| octets.extend_from_slice(read)).await? > 0)
    }
}

/// Waits for a chunk of a message; empty: the sender closed. May be dropped: nothing is lost.
pub(crate) async fn chunk(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut chunk = Bytes::new();
    read(stream, |read| chunk = Bytes::copy_from_slice(read)).await?;
    Ok(chunk)
}

/// One read, into the thread's buffer, handed to `take` before anything else can happen on this thread.
async fn read(stream: &mut TcpStream, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
    std::future::poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
            take(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    })
    .await
}

/// Octets that wait in the kernel. Asks the kernel itself: the runtime may not know yet.
pub(crate) fn waiting(stream: &TcpStream) -> u64 {
    let mut window = [MaybeUninit::uninit(); PEEK];
    match SockRef::from(stream).peek(&mut window) {
        // There may be more: nobody knows how much.
        Ok(PEEK) => u64::MAX / 2,
        Ok(octets) => octets as u64,
        Err(_) => 0,
    }
}
