//! The end of a message is `CRLF . CRLF` and nothing else, however the bytes are cut; nothing that another server
//! could take for an end passes without a fault.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tempalias_smtp::data::{DataFault, DataReceiver, MAX_LINE, Progress, stuff, unstuff};

/// Octets at the start of the input that say how the rest is cut.
const CUTS: usize = 4;

fuzz_target!(|input: &[u8]| {
    let Some((cuts, wire)) = input.split_at_checked(CUTS) else { return };
    let whole = feed(wire, std::iter::repeat(wire.len().max(1)));
    let pieces = cuts.iter().map(|&cut| usize::from(cut).max(1)).cycle();
    assert_eq!(feed(wire, pieces), whole, "cutting changes what is seen");

    let (end, octets, fault) = whole;
    assert_eq!(end, reference_end(wire), "another end than the plain definition gives");
    let message = &wire[..end.unwrap_or(wire.len())];
    if let Some(end) = end {
        if fault.is_none() {
            assert_eq!(octets, unstuff(&wire[..end]).len() as u64, "octets are counted without stuffing");
        }
        assert_eq!(fault.is_none(), is_clean(message), "{:?}", message.escape_ascii().to_string());
    }

    let stuffed = stuff(wire);
    assert_eq!(reference_end(&stuffed), Some(stuffed.len()), "what we write ourselves ends where we end it");
    if wire.is_empty() || wire.ends_with(b"\r\n") {
        assert_eq!(unstuff(&stuffed), wire);
    }
});

fn feed(wire: &[u8], mut pieces: impl Iterator<Item = usize>) -> (Option<usize>, u64, Option<DataFault>) {
    let (mut receiver, mut at) = (DataReceiver::default(), 0);
    while at < wire.len() {
        let piece = &wire[at..(at + pieces.next().unwrap_or(1)).min(wire.len())];
        if let Progress::End { consumed } = receiver.receive(piece) {
            assert!(consumed <= piece.len());
            return (Some(at + consumed), receiver.octets(), receiver.fault());
        }
        at += piece.len();
    }
    (None, receiver.octets(), receiver.fault())
}

/// RFC 5321 §4.1.1.4, as naively as can be: the line end before the first line counts.
fn reference_end(wire: &[u8]) -> Option<usize> {
    if wire.starts_with(b".\r\n") {
        return Some(3);
    }
    wire.windows(5).position(|window| window == b"\r\n.\r\n").map(|at| at + 5)
}

fn is_clean(message: &[u8]) -> bool {
    let mut lines = message.split(|&b| b == b'\n').peekable();
    let first = message.strip_prefix(b".").unwrap_or(message);
    let mut clean = !first.starts_with(b" ") && !first.starts_with(b"\t");
    while let Some(line) = lines.next() {
        if lines.peek().is_none() {
            return clean && line.is_empty();
        }
        let Some(text) = line.strip_suffix(b"\r") else { return false };
        clean &= !text.contains(&b'\r') && text.strip_prefix(b".").unwrap_or(text).len() <= MAX_LINE;
    }
    clean
}
