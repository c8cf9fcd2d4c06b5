//! Cutting a stream of bytes into command lines.

use memchr::memchr;

/// Longest command line in octets, with its CRLF. RFC 5321 §4.5.3.1.4 asks for 512; extensions and long bounce
/// addresses need more.
pub const MAX_COMMAND_LINE: usize = 2048;

/// What stands at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// A whole line: `text` octets, and then its CRLF.
    Line {
        /// Octets before the CRLF.
        text: usize,
    },
    /// No line end yet.
    Incomplete,
    /// More than [`MAX_COMMAND_LINE`] octets.
    TooLong,
    /// A line feed without a carriage return before it (RFC 5321 §2.3.8: never a line end).
    BareLineFeed,
}

/// Looks for the end of the first line in `buffer`.
pub fn scan(buffer: &[u8]) -> Scan {
    let window = buffer.get(..MAX_COMMAND_LINE).unwrap_or(buffer);
    match memchr(b'\n', window) {
        None if buffer.len() >= MAX_COMMAND_LINE => Scan::TooLong,
        None => Scan::Incomplete,
        Some(at) => match at.checked_sub(1).and_then(|before| window.get(before)) {
            Some(b'\r') => Scan::Line { text: at - 1 },
            _ => Scan::BareLineFeed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crlf_ends_a_line() {
        assert_eq!(scan(b"NOOP\r\nQUIT\r\n"), Scan::Line { text: 4 });
        assert_eq!(scan(b"\r\n"), Scan::Line { text: 0 });
        assert_eq!(scan(b"NOOP\nQUIT\r\n"), Scan::BareLineFeed);
        assert_eq!(scan(b"\n"), Scan::BareLineFeed);
        assert_eq!(scan(b"NOOP\r"), Scan::Incomplete);
        assert_eq!(scan(b""), Scan::Incomplete);
    }

    #[test]
    fn the_limit_counts_the_line_end() {
        let mut line = vec![b'x'; MAX_COMMAND_LINE - 2];
        line.extend_from_slice(b"\r\n");
        assert_eq!(scan(&line), Scan::Line { text: MAX_COMMAND_LINE - 2 });
        line.insert(0, b'x');
        assert_eq!(scan(&line), Scan::TooLong);
        assert_eq!(scan(&vec![b'x'; 10 << 20]), Scan::TooLong);
    }
}
