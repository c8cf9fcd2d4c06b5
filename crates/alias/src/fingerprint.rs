//! Telling a retry from a new message.

use std::fmt;

use aws_lc_rs::digest;

/// Which message this is, for one alias: a keyed hash, so that a stolen store does not show who got the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(***)")
    }
}

/// Hash of what makes a message itself, made once a message; see [`crate::ServerKey::fingerprint`] for the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MessageDigest(pub(crate) [u8; 32]);

impl fmt::Debug for MessageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageDigest(***)")
    }
}

/// Takes the parts of a message that do not differ between a sender's attempts.
pub struct MessageHasher(digest::Context);

impl MessageHasher {
    /// Nothing taken yet.
    #[expect(clippy::new_without_default, reason = "an empty hash has no use as a default value")]
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Takes one header field, its name without case. The lengths keep neighbours apart.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.0.update(&name.len().to_be_bytes());
        self.0.update(&name.to_ascii_lowercase());
        self.0.update(&value.len().to_be_bytes());
        self.0.update(value);
    }

    /// Takes a piece of the body; it does not matter how the body was cut.
    pub fn body(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// Ends the fields: what follows is body. (Lengths alone could not tell a field from a body that looks like
    /// one.)
    pub fn end_of_fields(&mut self) {
        self.0.update(&usize::MAX.to_be_bytes());
    }

    /// The digest of all that was taken.
    pub fn finish(self) -> MessageDigest {
        let digest = self.0.finish();
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        MessageDigest(bytes)
    }
}
