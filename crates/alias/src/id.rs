//! The local part of an alias.

use std::fmt;
use std::str::FromStr;

use tempalias_address::LocalPart;

/// Thirty-two characters, none of which is taken for another: no `l`, `o`, `0`, `1`.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Characters of a random alias: 12 × 5 bits = 60 bits.
const RANDOM_LENGTH: usize = 12;
/// Random bytes that [`AliasId::random`] takes.
pub const RANDOM_ID_BYTES: usize = 8;
/// Longest local part that can be an alias, in octets (RFC 5321 §4.5.3.1.1).
const MAX_LENGTH: usize = 64;

/// The local part of an alias, in lower case: aliases are compared without case.
///
/// Holds any name that an alias could have, existing or not. `Debug` hides it: the store must not show it, and
/// neither must a log.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AliasId(Box<str>);

/// Why a text cannot be an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AliasIdError {
    /// Empty, too long, or with a character that no alias has.
    #[error("not the name of an alias")]
    Syntax,
    /// `postmaster`, `abuse`, `srs0…`, `srs1…`: names with a meaning of their own.
    #[error("a reserved name")]
    Reserved,
}

impl AliasId {
    /// A new random alias out of `random`: 60 bits of it are used.
    pub fn random(random: [u8; RANDOM_ID_BYTES]) -> Self {
        let bits = u64::from_be_bytes(random);
        Self(base32(bits, RANDOM_LENGTH).into())
    }

    /// The name, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The low `5 × length` bits of `bits`, five a character.
fn base32(bits: u64, length: usize) -> String {
    let five_bits = |i: usize| usize::try_from((bits >> (5 * i)) & 31).ok();
    (0..length).rev().filter_map(five_bits).filter_map(|i| ALPHABET.get(i)).map(|&b| char::from(b)).collect()
}

/// Writes bytes in the alphabet of aliases, five bits a character, the last one padded with zero bits.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for chunk in bytes.chunks(5) {
        let mut block = [0u8; 8];
        block.iter_mut().skip(3).zip(chunk).for_each(|(to, from)| *to = *from);
        let characters = (chunk.len() * 8).div_ceil(5);
        text.push_str(base32(u64::from_be_bytes(block), 8).get(..characters).unwrap_or_default());
    }
    text
}

fn is_reserved(name: &str) -> bool {
    // RFC 5321 §4.5.1 and RFC 2142; the last two are envelope senders of our own.
    name == "postmaster" || name == "abuse" || name.starts_with("srs0") || name.starts_with("srs1")
}

impl FromStr for AliasId {
    type Err = AliasIdError;

    fn from_str(text: &str) -> Result<Self, AliasIdError> {
        let name = text.to_ascii_lowercase();
        if is_reserved(&name) {
            return Err(AliasIdError::Reserved);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.+".contains(&b);
        let well_formed = !name.is_empty() && name.len() <= MAX_LENGTH && name.bytes().all(allowed);
        if well_formed { Ok(Self(name.into())) } else { Err(AliasIdError::Syntax) }
    }
}

impl TryFrom<&LocalPart> for AliasId {
    type Error = AliasIdError;

    fn try_from(local_part: &LocalPart) -> Result<Self, AliasIdError> {
        local_part.as_str().parse()
    }
}

impl fmt::Display for AliasId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AliasId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_twelve_clear_characters_and_parse() {
        for seed in [0u64, u64::MAX, 0x0123_4567_89ab_cdef] {
            let id = AliasId::random(seed.to_be_bytes());
            assert_eq!(id.as_str().len(), 12);
            assert_eq!(id.as_str().parse(), Ok(id.clone()));
        }
        assert_ne!(AliasId::random(1u64.to_be_bytes()), AliasId::random(2u64.to_be_bytes()));
    }

    #[test]
    fn names_are_compared_in_lower_case_and_some_are_reserved() {
        assert_eq!("AbC".parse::<AliasId>(), "abc".parse());
        for reserved in ["Postmaster", "abuse", "SRS0=x", "srs1+x"] {
            assert_eq!(reserved.parse::<AliasId>(), Err(AliasIdError::Reserved), "{reserved}");
        }
        for bad in ["", "a b", "a@b", "a%b", "a!b", "ü", &"a".repeat(65)] {
            assert_eq!(bad.parse::<AliasId>(), Err(AliasIdError::Syntax), "{bad}");
        }
    }

    #[test]
    fn encoding_keeps_every_bit() {
        assert_eq!(encode(&[]), "");
        assert_eq!(encode(&[0xff]).len(), 2);
        assert_eq!(encode(&[0; 16]), "a".repeat(26));
        let all: std::collections::HashSet<_> = (0..=255u8).map(|b| encode(&[b, 7])).collect();
        assert_eq!(all.len(), 256);
    }
}
