//! What of an alias names a person, and the seal around it.
//!
//! The sealing key is derived from the server's key *and* the alias's name, so that whoever has the store, and
//! even whoever has the store and the server's key, reads only those aliases whose names they know.

use std::fmt;

use aws_lc_rs::{aead, hkdf};
use tempalias_address::{Domain, Mailbox};

use crate::{AliasId, ManageHash, ServerKey};

/// Random bytes that each sealing takes.
pub const NONCE_BYTES: usize = 12;
/// Random bytes, drawn anew for each sealing.
pub type Nonce = [u8; NONCE_BYTES];

/// The first byte of everything sealed; another number means another layout.
const FORMAT: u8 = 1;
/// Plain text is padded to a multiple of this, so that its length tells little about the target.
const PAD: usize = 64;

/// Something sealed: nonce, then cipher text with its tag. Safe to store.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Sealed(pub Box<[u8]>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// What only the alias's name opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Private {
    /// The real address.
    pub target: Mailbox,
    /// The domain of ours that the alias was made under.
    pub domain: Domain,
    /// What its owner proves ownership with.
    pub manage: ManageHash,
}

/// What a seal is for; each purpose has keys of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The private part of an alias.
    Alias,
    /// A reply kept under its Idempotency-Key.
    IdempotentReply,
}

/// Why something sealed could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Another key or name sealed it, or it was altered.
    #[error("the seal does not open: altered, or made with another key")]
    Broken,
    /// It opened, and what is inside is of no layout known here.
    #[error("the sealed data has an unknown layout")]
    Layout,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Alias => b"seal",
            Self::IdempotentReply => b"idempotent reply",
        }
    }
}

impl ServerKey {
    /// Seals the private part of the alias `id`.
    pub fn seal(&self, id: &AliasId, private: &Private, nonce: Nonce) -> Sealed {
        self.seal_bytes(Purpose::Alias, id.as_str().as_bytes(), &private.encode(), nonce)
    }

    /// Opens the private part of the alias `id`.
    ///
    /// # Errors
    /// [`SealError`] when it was not sealed under this key and this name, or is damaged.
    pub fn open(&self, id: &AliasId, sealed: &Sealed) -> Result<Private, SealError> {
        Private::decode(&self.open_bytes(Purpose::Alias, id.as_str().as_bytes(), sealed)?)
    }

    /// Seals any bytes under this key and a name that must be known to open them.
    pub fn seal_bytes(&self, purpose: Purpose, name: &[u8], plain: &[u8], nonce: Nonce) -> Sealed {
        let mut sealed = nonce.to_vec();
        let mut text = vec![FORMAT];
        text.extend_from_slice(&u32::try_from(plain.len()).unwrap_or(u32::MAX).to_be_bytes());
        text.extend_from_slice(plain);
        text.resize(text.len().next_multiple_of(PAD), 0);
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        // Sealing fails for texts of gigabytes only; an empty seal then never opens.
        if self
            .aead(purpose, name)
            .is_some_and(|key| key.seal_in_place_append_tag(nonce, aead::Aad::empty(), &mut text).is_ok())
        {
            sealed.extend_from_slice(&text);
        }
        Sealed(sealed.into())
    }

    /// Opens what [`ServerKey::seal_bytes`] sealed.
    ///
    /// # Errors
    /// [`SealError`] when purpose, name, key or bytes differ.
    pub fn open_bytes(&self, purpose: Purpose, name: &[u8], sealed: &Sealed) -> Result<Vec<u8>, SealError> {
        let (nonce, text) = sealed.0.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Broken)?;
        let mut text = text.to_vec();
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let key = self.aead(purpose, name).ok_or(SealError::Broken)?;
        let plain = key.open_in_place(nonce, aead::Aad::empty(), &mut text).map_err(|_| SealError::Broken)?;
        let (format, rest) = plain.split_first().ok_or(SealError::Layout)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(SealError::Layout)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| SealError::Layout)?;
        if *format != FORMAT {
            return Err(SealError::Layout);
        }
        rest.get(..length).map(<[u8]>::to_vec).ok_or(SealError::Layout)
    }

    /// AES-256-GCM under HKDF(K, purpose ‖ name).
    fn aead(&self, purpose: Purpose, name: &[u8]) -> Option<aead::LessSafeKey> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, purpose.label()).extract(self.secret());
        let info = [name];
        let derived = root.expand(&info, &aead::AES_256_GCM).ok()?;
        Some(aead::LessSafeKey::new(aead::UnboundKey::from(derived)))
    }
}

impl Private {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.manage.0.to_vec();
        for text in [self.target.to_string(), self.domain.to_string()] {
            out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, SealError> {
        let (manage, rest) = bytes.split_first_chunk::<16>().ok_or(SealError::Layout)?;
        let (target, rest) = take_text(rest)?;
        let (domain, _) = take_text(rest)?;
        Ok(Self {
            target: target.parse().map_err(|_| SealError::Layout)?,
            domain: domain.parse().map_err(|_| SealError::Layout)?,
            manage: ManageHash(*manage),
        })
    }
}

fn take_text(bytes: &[u8]) -> Result<(&str, &[u8]), SealError> {
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(SealError::Layout)?;
    let (text, rest) =
        rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(SealError::Layout)?;
    Ok((std::str::from_utf8(text).map_err(|_| SealError::Layout)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private() -> Private {
        Private {
            target: "hidden@target.example".parse().unwrap(),
            domain: "alias.example".parse().unwrap(),
            manage: ManageHash([7; 16]),
        }
    }

    #[test]
    fn only_the_same_key_and_name_open() {
        let key = ServerKey::new([1; 32]);
        let id: AliasId = "abcdef".parse().unwrap();
        let sealed = key.seal(&id, &private(), [9; 12]);
        assert_eq!(key.open(&id, &sealed), Ok(private()));
        assert_eq!(key.open(&"abcdeg".parse().unwrap(), &sealed), Err(SealError::Broken));
        assert_eq!(ServerKey::new([2; 32]).open(&id, &sealed), Err(SealError::Broken));
        for i in 0..sealed.0.len() {
            let mut altered = sealed.clone();
            altered.0[i] ^= 1;
            assert_eq!(key.open(&id, &altered), Err(SealError::Broken), "byte {i}");
        }
        assert_eq!(key.open(&id, &Sealed::default()), Err(SealError::Broken));
    }

    #[test]
    fn the_seal_shows_nothing_and_hides_the_length() {
        let key = ServerKey::new([1; 32]);
        let id: AliasId = "abcdef".parse().unwrap();
        let sealed = key.seal(&id, &private(), [9; 12]);
        let shown = String::from_utf8_lossy(&sealed.0).into_owned();
        assert!(!shown.contains("hidden") && !shown.contains("target") && !shown.contains("alias"));
        let longer = Private { target: "hidden.name@target.example".parse().unwrap(), ..private() };
        assert_eq!(sealed.0.len(), key.seal(&id, &longer, [9; 12]).0.len());
    }

    #[test]
    fn purposes_have_keys_of_their_own() {
        let key = ServerKey::new([1; 32]);
        let sealed = key.seal_bytes(Purpose::IdempotentReply, b"name", b"text", [3; 12]);
        assert_eq!(key.open_bytes(Purpose::IdempotentReply, b"name", &sealed), Ok(b"text".to_vec()));
        assert_eq!(key.open_bytes(Purpose::Alias, b"name", &sealed), Err(SealError::Broken));
    }
}
