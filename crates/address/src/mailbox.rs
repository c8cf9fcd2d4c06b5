//! A whole address, and the reverse-path that may be empty.

use std::fmt;
use std::str::FromStr;

use crate::{Domain, DomainError, LocalPart, LocalPartError};

/// Longest path in octets, with its angle brackets (RFC 5321 §4.5.3.1.3).
const MAX_PATH: usize = 256;

/// One mailbox, `local-part@domain`. `Debug` hides it; `Display` is the wire form.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    local_part: LocalPart,
    domain: Domain,
}

/// Why a text is not a [`Mailbox`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// No `@` outside quotes.
    #[error("an address needs an @ with a name before and a domain behind it")]
    NoAt,
    /// Over 254 octets.
    #[error("the address is too long")]
    TooLong,
    /// The part before the `@`.
    #[error(transparent)]
    LocalPart(#[from] LocalPartError),
    /// The part behind the `@`.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

impl Mailbox {
    /// Puts two parsed parts together.
    ///
    /// # Errors
    /// [`MailboxError::TooLong`] if the whole would not fit into a path (RFC 5321 §4.5.3.1.3).
    pub fn new(local_part: LocalPart, domain: Domain) -> Result<Self, MailboxError> {
        let mailbox = Self { local_part, domain };
        if mailbox.to_string().len() + 2 > MAX_PATH {
            return Err(MailboxError::TooLong);
        }
        Ok(mailbox)
    }

    /// What stands before the `@`.
    pub fn local_part(&self) -> &LocalPart {
        &self.local_part
    }

    /// What stands behind the `@`.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether it can only travel with SMTPUTF8 (RFC 6531 §3.3). A U-label domain can always travel as A-labels.
    pub fn needs_smtputf8(&self) -> bool {
        self.local_part.needs_smtputf8()
    }
}

impl FromStr for Mailbox {
    type Err = MailboxError;

    /// Splits at the last `@`: a local part that holds one must be quoted, and a domain never does.
    fn from_str(text: &str) -> Result<Self, MailboxError> {
        let (local_part, domain) = text.rsplit_once('@').ok_or(MailboxError::NoAt)?;
        Self::new(local_part.parse()?, domain.parse()?)
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local_part, self.domain)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***@***")
    }
}

/// What `MAIL FROM` names: a mailbox, or nothing for a message about a message (RFC 5321 §4.5.5).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ReversePath {
    /// `<>`: a bounce or a notice; nobody is to be told of its fate.
    Null,
    /// An ordinary sender.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The sender's domain, none for `<>`.
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox.domain()),
        }
    }

    /// Whether it can only travel with SMTPUTF8.
    pub fn needs_smtputf8(&self) -> bool {
        matches!(self, Self::Mailbox(mailbox) if mailbox.needs_smtputf8())
    }
}

impl fmt::Display for ReversePath {
    /// The wire form, with the angle brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Mailbox(mailbox) => write!(f, "<{mailbox}>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn relay_tricks_stay_inside_the_local_part() {
        let percent: Mailbox = "victim%other.example@alias.example".parse().unwrap();
        assert_eq!(percent.domain().as_str(), "alias.example");
        let bang: Mailbox = "other!victim@alias.example".parse().unwrap();
        assert_eq!(bang.local_part().as_str(), "other!victim");
        for bad in ["a@b@alias.example", "@alias.example", "a@", "a", "a@[127.0.0.1]", "a@alias.example."] {
            assert!(bad.parse::<Mailbox>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn debug_shows_no_address() {
        let mailbox: Mailbox = "hidden@target.example".parse().unwrap();
        let shown = format!("{:?}", ReversePath::Mailbox(mailbox));
        assert!(!shown.contains("hidden") && !shown.contains("target"), "{shown}");
    }

    proptest! {
        #[test]
        fn what_parses_is_written_so_that_it_parses_to_the_same(text in "[\"a-z.@\\\\ ü%-]{1,40}@[a-zü.-]{1,12}") {
            if let Ok(mailbox) = text.parse::<Mailbox>() {
                prop_assert_eq!(mailbox.to_string().parse::<Mailbox>(), Ok(mailbox));
            }
        }

        #[test]
        fn any_local_part_survives_quoting(inner in "[ -~]{1,60}") {
            let quoted = format!("\"{}\"", inner.replace('\\', "\\\\").replace('"', "\\\""));
            let local: LocalPart = quoted.parse().unwrap();
            prop_assert_eq!(local.as_str(), inner.as_str());
            prop_assert_eq!(local.to_string().parse::<LocalPart>(), Ok(local));
        }
    }
}
