//! Finding the header fields of a message (RFC 5322 §2.2), without changing a byte of it.

use memchr::memmem;

/// One header field as it stands in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name, as written.
    pub name: &'a [u8],
    /// All that follows the colon, folding and final CRLF included.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether it has this name; names have no case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value without the white space around it. Folding inside stays.
    pub fn trimmed(&self) -> &[u8] {
        self.value.trim_ascii()
    }
}

/// The fields at the start of a message: an iterator that ends at the blank line, or at the first line that is
/// no field.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Of the message that starts with `bytes`.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What the iterator has not yet taken: behind the last field, everything from the blank line on.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let (field, rest) = self.rest.split_at_checked(field_length(self.rest)?)?;
        let colon = memchr::memchr(b':', field)?;
        let (name, value) = field.split_at_checked(colon)?;
        // RFC 5322 §2.2: printable US-ASCII without the colon; a blank before the colon is obsolete but met.
        let name = name.trim_ascii_end();
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        self.rest = rest;
        Some(Field { name, value: value.get(1..)? })
    }
}

/// Octets of the field at the start of `bytes`, its continuation lines included; none at a blank line or the end.
fn field_length(bytes: &[u8]) -> Option<usize> {
    if bytes.is_empty() || bytes.starts_with(b"\r\n") {
        return None;
    }
    let mut length = 0;
    loop {
        let rest = bytes.get(length..)?;
        let Some(end) = memmem::find(rest, b"\r\n") else { return Some(bytes.len()) };
        length += end + 2;
        // RFC 5322 §2.2.3: a line that starts with white space continues the field.
        if !matches!(bytes.get(length), Some(b' ' | b'\t')) {
            return Some(length);
        }
    }
}

/// How much of `bytes` is header: up to and without the blank line; none if the blank line has not come.
pub fn section_length(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(0);
    }
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_with_their_folds() {
        let message = b"A: 1\r\nb : two\r\n lines\r\n\r\nc: body\r\n";
        let mut fields = Fields::of(message);
        let a = fields.next().unwrap();
        assert!(a.is("a") && a.trimmed() == b"1" && a.value == b" 1\r\n");
        let b = fields.next().unwrap();
        assert!(b.is("B") && b.value == b" two\r\n lines\r\n");
        assert_eq!(fields.next(), None);
        assert_eq!(fields.rest(), b"\r\nc: body\r\n");
        assert_eq!(section_length(message), Some(message.len() - fields.rest().len()));
    }

    #[test]
    fn a_message_without_header_or_blank_line_has_an_end_too() {
        assert_eq!(Fields::of(b"just text\r\n").next(), None);
        assert_eq!(Fields::of(b"").next(), None);
        assert_eq!(Fields::of(b"a: b\r\n").count(), 1);
        assert_eq!(Fields::of(b"a: b").count(), 1);
        assert_eq!(Fields::of(b": b\r\n").count(), 0);
        assert_eq!(section_length(b"a: b\r\n"), None);
        assert_eq!(section_length(b"\r\nbody"), Some(0));
    }
}
