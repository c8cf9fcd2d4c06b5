//! The secret that opens an alias to its owner.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::id::encode;

/// Random bytes that [`ManageSecret::random`] takes.
pub const MANAGE_SECRET_BYTES: usize = 16;

/// `updatekey`: told once, when the alias is made. `Debug` hides it; it has no `Display` so that showing it takes
/// intent ([`ManageSecret::reveal`]).
#[derive(Clone, Zeroize)]
#[zeroize(drop)]
pub struct ManageSecret(String);

impl ManageSecret {
    /// A new secret of 128 bits.
    pub fn random(random: [u8; MANAGE_SECRET_BYTES]) -> Self {
        Self(encode(&random))
    }

    /// The text for its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for ManageSecret {
    type Err = std::convert::Infallible;

    /// Takes any text: whether it is *the* secret is for the hash to tell.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Debug for ManageSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What the store keeps of a [`ManageSecret`]. Compared in constant time.
#[derive(Clone, Copy, Eq)]
pub struct ManageHash(pub [u8; 16]);

impl PartialEq for ManageHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for ManageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
