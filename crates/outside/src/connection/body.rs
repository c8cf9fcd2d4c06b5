//! Writing a message in few, large writes, and knowing which of them carries the final dot.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;

/// `. CR LF`: from the first write with any of these octets on, the message may have been accepted.
const DOT: usize = 3;
/// Offered to the kernel at once. It rarely takes more, and a failure before the last write is known to have come
/// before the dot.
const WRITE_AT_ONCE: usize = 256 * 1024;
/// Pieces in one write.
const PIECES_AT_ONCE: usize = 64;

/// The message was not, or not all, handed to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection to the next hop broke while the message was sent")]
pub struct BodyFailed {
    /// Whether a write with any octet of the final dot was tried, even if it was the one that failed: the message
    /// may have been accepted.
    pub dot_may_have_left: bool,
}

/// Writes it all; sets `dot_may_have_left` before the first write with any octet of the dot, which is made only if
/// `may_end` says so at that moment.
pub(super) async fn send(
    stream: &TcpStream,
    prefix: &[u8],
    segments: &[Bytes],
    may_end: impl Fn() -> bool + Send + Sync,
    dot_may_have_left: &mut bool,
) -> io::Result<()> {
    let mut unsent = Unsent::new(prefix, segments);
    while unsent.octets > 0 {
        stream.writable().await?;
        let written = unsent.write_to(stream, &may_end, dot_may_have_left)?;
        unsent.advance(written);
    }
    Ok(())
}

/// Whether the next hop has said something, or hung up. Asks the kernel itself: the runtime may not know yet.
fn has_spoken(stream: &TcpStream) -> bool {
    let mut octet = [MaybeUninit::uninit()];
    SockRef::from(stream).peek(&mut octet).is_ok()
}

/// What is left of a message.
struct Unsent<'a> {
    prefix: &'a [u8],
    segments: &'a [Bytes],
    /// The piece to go on with (0: the prefix), and the octets of it that are gone.
    piece: usize,
    offset: usize,
    octets: usize,
}

impl<'a> Unsent<'a> {
    fn new(prefix: &'a [u8], segments: &'a [Bytes]) -> Self {
        let octets = prefix.len() + segments.iter().map(Bytes::len).sum::<usize>();
        Self { prefix, segments, piece: 0, offset: 0, octets }
    }

    fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut skipped = self.offset;
        std::iter::once(self.prefix)
            .chain(self.segments.iter().map(AsRef::as_ref))
            .skip(self.piece)
            .map(move |piece| piece.get(std::mem::take(&mut skipped)..).unwrap_or_default())
    }

    /// One write; how many octets the kernel took.
    fn write_to(
        &self,
        stream: &TcpStream,
        may_end: impl Fn() -> bool,
        dot_may_have_left: &mut bool,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PIECES_AT_ONCE];
        let (mut used, mut offered, budget) = (0, 0, self.budget());
        for (slice, piece) in slices.iter_mut().zip(self.pieces()) {
            let part = piece.get(..budget - offered).unwrap_or(piece);
            *slice = IoSlice::new(part);
            (used, offered) = (used + 1, offered + part.len());
            if offered == budget {
                break;
            }
        }
        let has_dot = offered + DOT > self.octets;
        // A reply that is here before the dot answers something else: the dot must not follow it.
        if has_dot && !*dot_may_have_left && (has_spoken(stream) || !may_end()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let before = *dot_may_have_left;
        *dot_may_have_left |= has_dot;
        match stream.try_write_vectored(slices.get(..used).unwrap_or_default()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // The kernel had no room: nothing of this write went anywhere.
                *dot_may_have_left = before;
                Ok(0)
            }
            Ok(written) => {
                // What it did not take is still ours to hold back.
                *dot_may_have_left = before || written + DOT > self.octets;
                Ok(written)
            }
            failed => failed,
        }
    }

    /// Octets for the next write; split so that the last write is never the dot alone.
    fn budget(&self) -> usize {
        match self.octets {
            octets if octets <= WRITE_AT_ONCE => octets,
            octets if octets < 2 * WRITE_AT_ONCE => octets / 2,
            _ => WRITE_AT_ONCE,
        }
    }

    fn advance(&mut self, written: usize) {
        self.octets -= written;
        let mut rest = written;
        let mut at = self.piece;
        for piece in self.pieces() {
            if rest < piece.len() {
                self.offset = if at == self.piece { self.offset + rest } else { rest };
                self.piece = at;
                return;
            }
            rest -= piece.len();
            at += 1;
        }
        (self.piece, self.offset) = (at, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_the_kernel_takes_nothing_is_lost_or_repeated(
            prefix in prop::collection::vec(any::<u8>(), 0..5),
            segments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..8),
            takes in prop::collection::vec(0usize..6, 1..6),
        ) {
            let segments: Vec<Bytes> = segments.into_iter().map(Bytes::from).collect();
            let whole: Vec<u8> = [prefix.clone(), segments.concat()].concat();
            let mut unsent = Unsent::new(&prefix, &segments);
            let (mut seen, mut takes) = (vec![], takes.iter().cycle());
            while unsent.octets > 0 {
                let left: Vec<u8> = unsent.pieces().flatten().copied().collect();
                prop_assert_eq!(left.len(), unsent.octets);
                // At least one, so that it ends.
                let take = (takes.next().unwrap() + 1).min(left.len());
                seen.extend_from_slice(&left[..take]);
                unsent.advance(take);
            }
            prop_assert_eq!(seen, whole);
        }
    }

    #[test]
    fn the_last_write_is_never_the_dot_alone() {
        for total in [WRITE_AT_ONCE + 1, WRITE_AT_ONCE + DOT, 2 * WRITE_AT_ONCE + DOT, 3 * WRITE_AT_ONCE + 1]
        {
            let mut unsent = Unsent { prefix: &[], segments: &[], piece: 0, offset: 0, octets: total };
            let mut last = 0;
            while unsent.octets > 0 {
                last = unsent.budget();
                unsent.octets -= last;
            }
            assert!(last > DOT, "{total}: the last write has {last} octets");
        }
    }
}
