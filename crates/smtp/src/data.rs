//! The message as it travels between `DATA` and the final dot.
//!
//! Watches the bytes go by and says where the message ends; keeps none of them. What arrived dot-stuffed is kept
//! and sent on dot-stuffed (RFC 5321 §4.5.2), so that not a byte is ever rewritten. A fault does not stop the
//! reading: only the true end, `CRLF . CRLF`, does, so that what follows is never taken for a command.

use memchr::memchr2;

/// Longest line of a message in octets. RFC 5321 §4.5.3.1.6 asks for 1,000; real mail has longer ones.
pub const MAX_LINE: usize = 64 * 1024;

/// What is wrong with a message. The first fault found counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFault {
    /// A CR without LF, or an LF without CR: other servers might see an end of data there.
    BareNewline,
    /// A line over [`MAX_LINE`].
    LineTooLong,
    /// The first line starts with a space or tab: it would continue the last header line that we add.
    LeadingWhitespace,
}

/// How far a chunk went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The whole chunk belongs to the message, and more is to come.
    More,
    /// The message ended; its first `consumed` octets of the chunk, the final dot and its CRLF included, were it.
    End {
        /// Octets of the chunk that belong to the message.
        consumed: usize,
    },
}

/// Follows one message. See the module.
#[derive(Debug, Clone)]
pub struct DataReceiver {
    place: Place,
    line: usize,
    octets: u64,
    in_first_line: bool,
    fault: Option<DataFault>,
}

/// Where in a line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the start of a line.
    Start,
    /// Behind a dot at the start of a line.
    Dot,
    /// Behind `. CR` at the start of a line.
    DotCr,
    /// Within a line.
    Within,
    /// Behind a CR within a line.
    Cr,
}

impl Default for DataReceiver {
    fn default() -> Self {
        Self { place: Place::Start, line: 0, octets: 0, in_first_line: true, fault: None }
    }
}

impl DataReceiver {
    /// Octets of the message so far, as RFC 1870 §5 counts them: without stuffed dots and without the final dot.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// The first thing found wrong.
    pub fn fault(&self) -> Option<DataFault> {
        self.fault
    }

    /// Takes the next chunk.
    pub fn receive(&mut self, chunk: &[u8]) -> Progress {
        let mut at = 0;
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.place {
                Place::Within => self.within(rest),
                place => {
                    let Some(&octet) = rest.first() else { break };
                    if place == Place::DotCr && octet == b'\n' {
                        return Progress::End { consumed: at + 1 };
                    }
                    self.at_edge(place, octet)
                }
            };
        }
        Progress::More
    }

    /// One octet at or near a line's edge; how many octets it took (0: it is looked at again, within the line).
    fn at_edge(&mut self, place: Place, octet: u8) -> usize {
        match (place, octet) {
            (Place::Start, b'.') => {
                self.place = Place::Dot;
                1
            }
            (Place::Dot, b'\r') => {
                self.place = Place::DotCr;
                1
            }
            (Place::Cr, b'\n') => {
                self.octets += 2;
                self.line = 0;
                self.in_first_line = false;
                self.place = Place::Start;
                1
            }
            // The CR that turned out to end nothing. (A dot before it was stuffed and is not counted.)
            (Place::Cr | Place::DotCr, _) => {
                self.octets += 1;
                self.line += 1;
                self.within_after_fault()
            }
            (Place::Start | Place::Dot | Place::Within, _) => {
                if self.in_first_line && self.line == 0 && matches!(octet, b' ' | b'\t') {
                    self.note(DataFault::LeadingWhitespace);
                }
                self.place = Place::Within;
                0
            }
        }
    }

    /// Runs to the next CR or LF; how many octets that took.
    fn within(&mut self, rest: &[u8]) -> usize {
        let run = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        self.octets += run as u64;
        self.line += run;
        if self.line > MAX_LINE {
            self.note(DataFault::LineTooLong);
        }
        match rest.get(run) {
            None => run,
            Some(b'\r') => {
                self.place = Place::Cr;
                run + 1
            }
            Some(_) => {
                self.octets += 1;
                self.line += 1;
                self.note(DataFault::BareNewline);
                run + 1
            }
        }
    }

    fn within_after_fault(&mut self) -> usize {
        self.note(DataFault::BareNewline);
        self.place = Place::Within;
        0
    }

    fn note(&mut self, fault: DataFault) {
        self.fault.get_or_insert(fault);
    }
}

/// Writes `content` as it travels: a dot before each line that starts with one, the final dot at the end. For
/// messages that we write ourselves; forwarded ones keep their own bytes.
pub fn stuff(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() + 8);
    for line in content.split_inclusive(|&b| b == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    if !wire.is_empty() && !wire.ends_with(b"\r\n") {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// Takes the dots out again that [`stuff`] put in, and the final one: what the author wrote.
pub fn unstuff(wire: &[u8]) -> Vec<u8> {
    let body = wire.strip_suffix(b".\r\n").unwrap_or(wire);
    let mut content = Vec::with_capacity(body.len());
    for line in body.split_inclusive(|&b| b == b'\n') {
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    content
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `wire` in pieces of the given lengths (cycled) and returns where it ended, the octets and the fault.
    fn feed(wire: &[u8], pieces: &[usize]) -> (Option<usize>, u64, Option<DataFault>) {
        let mut receiver = DataReceiver::default();
        let (mut at, mut lengths) = (0, pieces.iter().cycle());
        while at < wire.len() {
            let piece = &wire[at..(at + lengths.next().unwrap()).min(wire.len())];
            if let Progress::End { consumed } = receiver.receive(piece) {
                return (Some(at + consumed), receiver.octets(), receiver.fault());
            }
            at += piece.len();
        }
        (None, receiver.octets(), receiver.fault())
    }

    #[test]
    fn only_the_one_true_end_ends() {
        use DataFault::BareNewline;
        for (wire, end, fault) in [
            (&b".\r\n"[..], Some(3), None),
            (b"a\r\n.\r\nQUIT\r\n", Some(6), None),
            (b"..\r\n.\r\n", Some(7), None),
            (b"a\n.\r\n", None, Some(BareNewline)),
            (b"a\r.\r\n", None, Some(BareNewline)),
            (b"a\n.\n", None, Some(BareNewline)),
            (b"a\r.\r", None, Some(BareNewline)),
            (b"a\r\n.\n", None, Some(BareNewline)),
            (b"a\r\n.\r\r\n", None, Some(BareNewline)),
            (b"a\r\n.\r", None, None),
            (b"a\r\n\0.\r\n", None, None),
            (b"a\r\n.\0\r\n", None, None),
            (b"a\r\n.\r\0\n", None, Some(BareNewline)),
            (b"a\r\n\r.\r\n", None, Some(BareNewline)),
            (b"a\n\r\n.\r\n", Some(7), Some(BareNewline)),
        ] {
            for pieces in [&[1][..], &[2], &[3], &[1000]] {
                let (ended, _, found) = feed(wire, pieces);
                assert_eq!(
                    (ended, found),
                    (end, fault),
                    "{:?} in {pieces:?}",
                    wire.escape_ascii().to_string()
                );
            }
        }
    }

    #[test]
    fn a_first_line_that_would_continue_our_header_is_a_fault() {
        for wire in [&b" a\r\n.\r\n"[..], b"\ta\r\n.\r\n", b". a\r\n.\r\n", b".\ta\r\n.\r\n"] {
            assert_eq!(
                feed(wire, &[1]).2,
                Some(DataFault::LeadingWhitespace),
                "{:?}",
                wire.escape_ascii().to_string()
            );
        }
        for wire in [&b"a\r\n b\r\n.\r\n"[..], b"\r\n a\r\n.\r\n", b"a b\r\n.\r\n"] {
            assert_eq!(feed(wire, &[1]).2, None, "{:?}", wire.escape_ascii().to_string());
        }
    }

    #[test]
    fn long_lines_are_a_fault_and_the_end_is_still_found() {
        let mut wire = vec![b'x'; MAX_LINE];
        wire.extend_from_slice(b"\r\n.\r\n");
        assert_eq!(feed(&wire, &[4096]), (Some(wire.len()), MAX_LINE as u64 + 2, None));
        wire.insert(0, b'x');
        assert_eq!(feed(&wire, &[4096]).2, Some(DataFault::LineTooLong));
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(wire in "[ab.\r\n\0 \t]{0,40}", pieces in prop::collection::vec(1usize..5, 1..5)) {
            let whole = feed(wire.as_bytes(), &[1000]);
            prop_assert_eq!(feed(wire.as_bytes(), &pieces), whole);
            prop_assert_eq!(feed(wire.as_bytes(), &[1]), whole);
        }

        #[test]
        fn content_comes_back_and_is_counted(lines in prop::collection::vec("[.a \0]{0,6}", 0..8), more in "[a-z\r\n.]{0,9}") {
            let content: Vec<u8> = lines.iter().flat_map(|l| format!("{l}\r\n").into_bytes()).collect();
            let mut wire = stuff(&content);
            let end = wire.len();
            wire.extend_from_slice(more.as_bytes());
            let (ended, octets, _) = feed(&wire, &[7]);
            prop_assert_eq!(ended, Some(end));
            prop_assert_eq!(octets, content.len() as u64);
            prop_assert_eq!(unstuff(&wire[..end]), content);
        }
    }
}
