//! The part before the `@`.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

/// Longest local part accepted, in octets. RFC 5321 §4.5.3.1.1 asks for 64 and, in §4.5.3.1, for more where it
/// can be had: real bounce addresses of large senders are longer.
const MAX_LOCAL_PART: usize = 254;

/// A local part, without its quotes; written with quotes again where it needs them.
///
/// `"a b"` and `"a\ b"` are the same local part (RFC 5321 §4.1.2), and so are `"a"` and `a`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LocalPart(Box<str>);

/// Why a text is not a [`LocalPart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LocalPartError {
    /// Nothing before the `@`.
    #[error("the part before the @ is empty")]
    Empty,
    /// More than 254 octets.
    #[error("the part before the @ is too long")]
    TooLong,
    /// A character outside RFC 5321 §4.1.2 and RFC 6531 §3.3, or a dot out of place.
    #[error("the part before the @ has a character or a dot that may not stand there")]
    Syntax,
}

impl LocalPart {
    /// The meaning, without quotes. For the wire, use `Display`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can only travel with SMTPUTF8 (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        !self.0.is_ascii()
    }

    fn dot_string(text: &str) -> Result<Self, LocalPartError> {
        let well_formed = text.chars().all(|c| c == '.' || is_atext(c))
            && !text.starts_with('.')
            && !text.ends_with('.')
            && !text.contains("..");
        if well_formed { Ok(Self(text.into())) } else { Err(LocalPartError::Syntax) }
    }

    fn quoted_string(inner: &str) -> Result<Self, LocalPartError> {
        let mut meaning = String::with_capacity(inner.len());
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            let literal = match c {
                '"' => return Err(LocalPartError::Syntax),
                '\\' => chars.next().filter(char::is_ascii).ok_or(LocalPartError::Syntax)?,
                other => other,
            };
            if literal.is_control() {
                return Err(LocalPartError::Syntax);
            }
            meaning.push(literal);
        }
        if meaning.is_empty() {
            return Err(LocalPartError::Empty);
        }
        Ok(Self(meaning.into()))
    }
}

/// RFC 5322 §3.2.3, widened to all of UTF-8 by RFC 6531 §3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

impl FromStr for LocalPart {
    type Err = LocalPartError;

    fn from_str(text: &str) -> Result<Self, LocalPartError> {
        if text.is_empty() {
            return Err(LocalPartError::Empty);
        }
        if text.len() > MAX_LOCAL_PART {
            return Err(LocalPartError::TooLong);
        }
        match text.strip_prefix('"') {
            None => Self::dot_string(text),
            Some(rest) => Self::quoted_string(rest.strip_suffix('"').ok_or(LocalPartError::Syntax)?),
        }
    }
}

impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if Self::dot_string(&self.0).is_ok() {
            return f.write_str(&self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            if c == '"' || c == '\\' {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

impl fmt::Debug for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_go_and_come_back_where_needed() {
        for (written, meaning, wire) in [
            ("a.b+c", "a.b+c", "a.b+c"),
            ("\"a.b\"", "a.b", "a.b"),
            ("\"a b\"", "a b", "\"a b\""),
            ("\"a\\\"b\\\\\"", "a\"b\\", "\"a\\\"b\\\\\""),
            ("\"a@b\"", "a@b", "\"a@b\""),
            ("\".\"", ".", "\".\""),
            ("jörg", "jörg", "jörg"),
        ] {
            let local: LocalPart = written.parse().unwrap();
            assert_eq!((local.as_str(), local.to_string().as_str()), (meaning, wire), "{written}");
        }
    }

    #[test]
    fn what_could_be_read_twice_is_refused() {
        for bad in [
            "", ".a", "a.", "a..b", "a b", "a@b", "a\"b", "\"a", "\"a\\\"", "\"\"", "\"a\rb\"", "a\0", "<a>",
            "a,b",
        ] {
            assert!(bad.parse::<LocalPart>().is_err(), "{bad:?}");
        }
    }
}
