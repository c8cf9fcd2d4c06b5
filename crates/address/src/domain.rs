//! Domain names, kept as A-labels in lower case.

use std::fmt;
use std::str::FromStr;

/// Longest domain name in octets (RFC 5321 §4.5.3.1.2).
const MAX_DOMAIN: usize = 255;
/// Longest label in octets (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// A domain name: lower case, A-labels (`xn--…`) inside, no trailing dot, no address literal.
///
/// Two domains that mean the same name compare equal, however they were written.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

/// Why a text is not a [`Domain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Nothing there.
    #[error("the domain is empty")]
    Empty,
    /// Over 255 octets, or a label over 63.
    #[error("the domain is too long")]
    TooLong,
    /// `[192.0.2.1]`: understood, and not wanted (an alias and a target always have a name).
    #[error("an address literal in brackets is not a domain name")]
    AddressLiteral,
    /// A character or label that no host name has, or a trailing dot.
    #[error("the domain is not a valid host name")]
    Syntax,
}

impl Domain {
    /// The name in A-labels, lower case: what goes on the wire and into a DNS query.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name for people, in U-labels where they decode.
    pub fn to_unicode(&self) -> String {
        idna::domain_to_unicode(&self.0).0
    }

    /// Whether this is `other` or a name under it.
    pub fn is_within(&self, other: &Domain) -> bool {
        self.0.strip_suffix(&*other.0).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        if text.starts_with('[') {
            return Err(DomainError::AddressLiteral);
        }
        // RFC 5321 §4.1.2: Domain = sub-domain *("." sub-domain); no trailing dot, unlike in the DNS.
        if text.ends_with('.') || text.len() > 4 * MAX_DOMAIN {
            return Err(DomainError::Syntax);
        }
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            // RFC 6531 §3.2: U-labels are looked up in their A-label form.
            idna::domain_to_ascii_strict(text).map_err(|_| DomainError::Syntax)?
        };
        if ascii.len() > MAX_DOMAIN {
            return Err(DomainError::TooLong);
        }
        for label in ascii.split('.') {
            check_label(label)?;
        }
        // A name that ends in a number is read as an address by some resolvers.
        if ascii.rsplit('.').next().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit())) {
            return Err(DomainError::Syntax);
        }
        Ok(Self(ascii.into()))
    }
}

/// RFC 1123 §2.1, and the underscore that some real hosts have.
fn check_label(label: &str) -> Result<(), DomainError> {
    if label.len() > MAX_LABEL {
        return Err(DomainError::TooLong);
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let well_formed =
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-');
    if well_formed { Ok(()) } else { Err(DomainError::Syntax) }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_the_same_are_equal() {
        let upper: Domain = "Alias.Example".parse().unwrap();
        assert_eq!(upper, "alias.example".parse().unwrap());
        let idn: Domain = "Bücher.example".parse().unwrap();
        assert_eq!(idn.as_str(), "xn--bcher-kva.example");
        assert_eq!(idn.to_unicode(), "bücher.example");
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        for bad in
            ["", ".", "a.", ".a", "a..b", "-a.b", "a-.b", "a b.c", "a,b", "1.2.3.4", "[1.2.3.4]", "a\0b"]
        {
            assert!(bad.parse::<Domain>().is_err(), "{bad:?}");
        }
        assert_eq!("a.".repeat(130).trim_end_matches('.').parse::<Domain>(), Err(DomainError::TooLong));
        assert_eq!(format!("{}.example", "a".repeat(64)).parse::<Domain>(), Err(DomainError::TooLong));
    }

    #[test]
    fn within_looks_at_whole_labels() {
        let of = |s: &str| s.parse::<Domain>().unwrap();
        assert!(of("a.example").is_within(&of("a.example")));
        assert!(of("x.a.example").is_within(&of("a.example")));
        assert!(!of("xa.example").is_within(&of("a.example")));
    }
}
