//! The two small notations inside a dialogue's lines: escapes for octets to be written, globs for octets to be
//! expected.

/// The octets that `text` stands for, in the pieces in which they are written: `\r \n \0 \t \s \\ \xHH`, `\|`
/// between pieces, `\{N*TEXT}` for repetition.
pub(crate) fn unescape(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut pieces = vec![vec![]];
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        push(&mut pieces, &rest.as_bytes()[..at]);
        let mut after = rest[at + 1..].chars();
        let escape = after.next().ok_or("a backslash at the end means no CRLF and may stand only there")?;
        rest = after.as_str();
        match escape {
            'r' => push(&mut pieces, b"\r"),
            'n' => push(&mut pieces, b"\n"),
            '0' => push(&mut pieces, b"\0"),
            't' => push(&mut pieces, b"\t"),
            's' => push(&mut pieces, b" "),
            '\\' => push(&mut pieces, b"\\"),
            '|' => pieces.push(vec![]),
            'x' => {
                let octet = rest.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
                push(&mut pieces, &[octet.ok_or("\\x takes two hexadecimal digits")?]);
                rest = &rest[2..];
            }
            '{' => {
                let (inside, behind) = rest.split_once('}').ok_or("\\{N*TEXT} has no }")?;
                let (count, repeated) = inside.split_once('*').ok_or("\\{N*TEXT} has no *")?;
                let count: usize = count.parse().map_err(|_| "\\{N*TEXT}: N is no number")?;
                let repeated = unescape(repeated)?;
                let [one] = repeated.as_slice() else { return Err("no \\| inside \\{…}".into()) };
                push(&mut pieces, &one.repeat(count));
                rest = behind;
            }
            other => return Err(format!("unknown escape \\{other}")),
        }
    }
    push(&mut pieces, rest.as_bytes());
    Ok(pieces)
}

fn push(pieces: &mut [Vec<u8>], octets: &[u8]) {
    if let Some(last) = pieces.last_mut() {
        last.extend_from_slice(octets);
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for anything.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// For people: octets with everything unusual escaped, shortened.
pub(crate) fn show(octets: &[u8]) -> String {
    const MOST: usize = 200;
    let shown = octets[..octets.len().min(MOST)].escape_ascii().to_string();
    if octets.len() > MOST { format!("{shown}… ({} octets)", octets.len()) } else { shown }
}

/// The message in what a sender wrote after 354: to its end, the only one there is.
pub(crate) fn message_of(written: &[u8]) -> Option<&[u8]> {
    if written.starts_with(b".\r\n") {
        return written.get(..3);
    }
    let end = written.windows(5).position(|window| window == b"\r\n.\r\n")?;
    written.get(..end + 5)
}

/// What is wrong with the header lines put on top of a message: only ours, in their order.
pub(crate) fn prefix_fault(prefix: &[u8]) -> Option<String> {
    const ORDER: [&str; 6] = [
        "Delivered-To: ",
        "X-Tempalias-Remaining: ",
        "X-Tempalias-Expires: ",
        "X-Tempalias-Manage: ",
        "X-Tempalias-Loop: ",
        "Received: ",
    ];
    let Ok(text) = std::str::from_utf8(prefix) else { return Some("header lines that are no text".into()) };
    let mut before = 0;
    for line in text.split_inclusive("\r\n") {
        let place = ORDER.iter().position(|name| line.starts_with(name));
        let place = if line.starts_with('\t') { Some(before) } else { place };
        match place.filter(|place| *place >= before && line.ends_with("\r\n")) {
            Some(place) => before = place,
            None => return Some(format!("not one of our header lines, or out of order: {line:?}")),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(unescape("a\\r\\n\\0\\x41\\\\").unwrap(), [b"a\r\n\0A\\".to_vec()]);
        assert_eq!(unescape("a\\|b").unwrap(), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(unescape("\\{3*x\\s}y").unwrap(), [b"x x x y".to_vec()]);
        for bad in ["\\", "\\q", "\\xz", "\\{3*x", "\\{x}"] {
            assert!(unescape(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn globs() {
        for (pattern, text) in [("250 *", "250 ok"), ("*", ""), ("a*c*e", "abcde"), ("a", "a"), ("a*a", "aa")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("250 *", "251 ok"), ("a", "ab"), ("a*a", "a"), ("", "a"), ("a*c*e", "abcd")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
