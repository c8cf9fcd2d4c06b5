//! A message in memory, in the form in which it came.

use std::borrow::Cow;

use bytes::Bytes;
use tempalias_smtp::data::{DataFault, DataReceiver, Progress};
use tempalias_smtp::header;

use crate::Refusal;

/// Most of a message that is searched for header fields, in octets. What lies beyond counts as body.
const MAX_HEADER: usize = 1 << 20;
/// Chunks below this are gathered: a piece of memory for each octet that a slow sender writes would cost fifty
/// times what the budget counts.
const SMALL: usize = 4096;
/// Gathered chunks become a segment at this size.
const GATHERED: usize = 16 * 1024;

/// A whole message: dot-stuffed, final dot included, byte for byte as its sender wrote it.
#[derive(Debug, Clone, Default)]
pub struct Body {
    segments: Vec<Bytes>,
}

impl Body {
    /// The pieces in order.
    pub fn segments(&self) -> &[Bytes] {
        &self.segments
    }

    /// Header section and the rest of the message, the latter in pieces.
    pub(crate) fn split(&self) -> (Cow<'_, [u8]>, impl Iterator<Item = &[u8]>) {
        let header = self.header();
        let mut skip = header.len();
        let rest = self.segments.iter().map(move |segment| {
            let skipped = skip.min(segment.len());
            skip -= skipped;
            segment.get(skipped..).unwrap_or_default()
        });
        (header, rest)
    }

    /// The fields of its header, contiguous.
    fn header(&self) -> Cow<'_, [u8]> {
        let first = self.segments.first().map_or(&b""[..], |first| first);
        if let Some(length) = header::section_length(first).filter(|&length| length <= MAX_HEADER) {
            return Cow::Borrowed(first.get(..length).unwrap_or(first));
        }
        let mut gathered: Vec<u8> = vec![];
        for segment in &self.segments {
            let from = gathered.len().saturating_sub(3);
            gathered.extend_from_slice(segment);
            // Only the new octets, and the three before them, can complete the blank line.
            let recent = gathered.get(from..).unwrap_or_default();
            if let Some(at) = memchr::memmem::find(recent, b"\r\n\r\n") {
                gathered.truncate(from + at + 2);
                break;
            }
            if gathered.len() > MAX_HEADER {
                break;
            }
        }
        // At a fixed place: which message it is must not depend on how the network cut it.
        gathered.truncate(MAX_HEADER);
        Cow::Owned(gathered)
    }
}

/// A message on its way in.
#[derive(Debug)]
pub(crate) struct Receiving {
    codec: DataReceiver,
    body: Body,
    /// Small chunks that are not yet a segment.
    gathered: Vec<u8>,
    limit: u64,
    /// Octets on the wire, for the speed.
    pub(crate) received: u64,
    /// Why the message will not be taken although it is read to its end.
    spoiled: Option<Refusal>,
}

/// What a chunk brought.
pub(crate) enum Received {
    /// The message goes on.
    More,
    /// The message can no longer be taken: what is held of it may go. Said once.
    Spoiled,
    /// It ended, and these octets behind it were no part of it.
    End(Bytes),
}

impl Receiving {
    /// Takes at most `limit` octets (RFC 1870 counts them without stuffing).
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            codec: DataReceiver::default(),
            body: Body::default(),
            gathered: vec![],
            limit,
            received: 0,
            spoiled: None,
        }
    }

    /// Takes the next chunk; `held` says whether the memory budget has room for it.
    pub(crate) fn take(&mut self, mut chunk: Bytes, held: bool) -> Received {
        self.received += chunk.len() as u64;
        let progress = self.codec.receive(&chunk);
        let rest = match progress {
            Progress::More => None,
            Progress::End { consumed } => Some(chunk.split_off(consumed.min(chunk.len()))),
        };
        let was_spoiled = self.spoiled.is_some();
        if self.codec.octets() > self.limit {
            self.spoiled.get_or_insert(Refusal::TooBig);
        } else if let Some(fault) = self.codec.fault() {
            self.spoiled.get_or_insert(refusal_of(fault));
        } else if !held {
            self.spoiled.get_or_insert(Refusal::NoMemory);
        }
        if self.spoiled.is_some() {
            (self.body.segments, self.gathered) = (vec![], vec![]);
        } else {
            self.keep(chunk, rest.is_some());
        }
        match rest {
            Some(rest) => Received::End(rest),
            None if self.spoiled.is_some() && !was_spoiled => Received::Spoiled,
            None => Received::More,
        }
    }

    fn keep(&mut self, chunk: Bytes, is_last: bool) {
        let alone = self.gathered.is_empty() && (is_last || chunk.len() >= SMALL);
        if alone {
            self.body.segments.push(chunk);
            return;
        }
        self.gathered.extend_from_slice(&chunk);
        if is_last || self.gathered.len() >= GATHERED {
            let gathered = std::mem::take(&mut self.gathered);
            self.body.segments.push(Bytes::from(gathered.into_boxed_slice()));
        }
    }

    /// Octets of the message so far.
    pub(crate) fn octets(&self) -> u64 {
        self.codec.octets()
    }

    /// The message, once it ended.
    pub(crate) fn finish(self) -> Result<Body, Refusal> {
        self.spoiled.map_or(Ok(self.body), Err)
    }
}

fn refusal_of(fault: DataFault) -> Refusal {
    match fault {
        DataFault::BareNewline => Refusal::BareNewline,
        DataFault::LineTooLong => Refusal::LineTooLong,
        DataFault::LeadingWhitespace => Refusal::LeadingWhitespace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: &[&'static str]) -> Body {
        Body { segments: pieces.iter().map(|p| Bytes::from_static(p.as_bytes())).collect() }
    }

    #[test]
    fn the_header_is_found_wherever_the_pieces_were_cut() {
        let whole = "A: 1\r\nB: 2\r\n\r\ntext\r\n.\r\n";
        for cut in 0..whole.len() {
            let (left, right) = whole.split_at(cut);
            let body = body(&[left, right]);
            let (header, rest) = body.split();
            assert_eq!(&*header, b"A: 1\r\nB: 2\r\n", "cut at {cut}");
            assert_eq!(rest.collect::<Vec<_>>().concat(), b"\r\ntext\r\n.\r\n", "cut at {cut}");
        }
    }

    #[test]
    fn octets_that_come_one_by_one_are_not_kept_one_by_one() {
        let wire = tempalias_smtp::data::stuff(&b"Subject: x\r\n\r\n".repeat(5000));
        let mut receiving = Receiving::new(1 << 20);
        for &octet in &wire {
            receiving.take(Bytes::copy_from_slice(&[octet]), true);
        }
        let body = receiving.finish().unwrap();
        assert_eq!(body.segments().concat(), wire);
        assert!(body.segments().len() <= wire.len() / GATHERED + 1, "{} segments", body.segments().len());
    }

    #[test]
    fn a_header_without_end_is_cut_at_the_same_place_however_it_came() {
        let long = "X: y\r\n".repeat(MAX_HEADER / 6 + 1000);
        let whole = [long.as_bytes(), b"\r\nbody\r\n.\r\n"].concat();
        let split = |size: usize| {
            let body = Body { segments: whole.chunks(size).map(Bytes::copy_from_slice).collect() };
            let (header, rest) = body.split();
            (header.len(), rest.map(<[u8]>::len).sum::<usize>())
        };
        assert_eq!(split(1000), (MAX_HEADER, whole.len() - MAX_HEADER));
        assert_eq!(split(65_536), split(1000));
        assert_eq!(split(whole.len()), split(1000));
    }

    #[test]
    fn a_message_without_a_blank_line_is_all_header() {
        let body = body(&["A: 1\r\n", ".\r\n"]);
        let (header, rest) = body.split();
        assert_eq!(&*header, b"A: 1\r\n.\r\n");
        assert!(rest.collect::<Vec<_>>().concat().is_empty());
    }
}
