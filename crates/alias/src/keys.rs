//! The server's keys, and everything that is derived from one with a keyed hash.
//!
//! Every derived value has its own label, so that no value of one kind can stand for another.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};
use tempalias_address::ReversePath;
use zeroize::Zeroizing;

use crate::id::encode;
use crate::{AliasId, ClientNetwork, Fingerprint, ManageHash, ManageSecret, MessageDigest, UnixTime};

/// Where an alias's row is found: a keyed hash of its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey(pub [u8; 16]);

impl fmt::Display for RowKey {
    /// In hexadecimal, as `alias list` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowKey({self})")
    }
}

/// Which server key made a row. Not secret: it lets a store say which key it misses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Keyed hash of an envelope sender's domain, for one alias.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SenderTag(pub [u8; 8]);

/// Keyed hash of a client's network, for one purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClientTag(pub [u8; 16]);

/// Proof in a forwarded mail's `X-Tempalias-Manage` that its reader got mail through the alias.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailMac(String);

impl MailMac {
    /// The text for the link.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One server key: 32 secret bytes. `Debug` shows which, never what.
pub struct ServerKey {
    secret: Zeroizing<[u8; 32]>,
    mac: hmac::Key,
    id: KeyId,
}

/// The listed server keys: the first seals, all find.
#[derive(Debug)]
pub struct Keys {
    first: ServerKey,
    rest: Vec<ServerKey>,
}

impl Keys {
    /// `first` makes what is new; `rest` finds what older keys made.
    pub fn new(first: ServerKey, rest: Vec<ServerKey>) -> Self {
        Self { first, rest }
    }

    /// The key that makes what is new.
    pub fn first(&self) -> &ServerKey {
        &self.first
    }

    /// Every key, the sealing one first.
    pub fn all(&self) -> impl Iterator<Item = &ServerKey> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// Every key under which a row of `id` may stand. Always all are looked up, so that the time a look-up takes
    /// does not tell which key made an alias.
    pub fn row_keys(&self, id: &AliasId) -> Vec<RowKey> {
        self.all().map(|key| key.row_key(id)).collect()
    }

    /// The key that made the row found under `row` for `id`.
    pub fn maker_of(&self, id: &AliasId, row: RowKey) -> Option<&ServerKey> {
        self.all().find(|key| key.row_key(id) == row)
    }
}

impl ServerKey {
    /// From the 32 bytes of a key file.
    pub fn new(secret: [u8; 32]) -> Self {
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let id = KeyId(first_bytes(hmac::sign(&mac, b"key-id").as_ref()));
        Self { secret: Zeroizing::new(secret), mac, id }
    }

    /// Which key this is, without telling the key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Where the row of `id` stands.
    pub fn row_key(&self, id: &AliasId) -> RowKey {
        RowKey(self.hash("find", &[id.as_str().as_bytes()]))
    }

    /// The hash of an alias's secret, for its sealed part.
    pub fn manage_hash(&self, id: &AliasId, secret: &ManageSecret) -> ManageHash {
        ManageHash(self.hash("manage", &[id.as_str().as_bytes(), secret.reveal().as_bytes()]))
    }

    /// The proof for `/m/…` in a forwarded mail. It changes with the alias's end.
    pub fn mail_mac(&self, id: &AliasId, ends: Option<UnixTime>) -> MailMac {
        let ends = ends.map_or(0, UnixTime::millis).to_be_bytes();
        MailMac(encode(&self.hash::<10>("mail", &[id.as_str().as_bytes(), &ends])))
    }

    /// Whether `text` is the proof for this alias with this end; in constant time.
    pub fn is_mail_mac(&self, id: &AliasId, ends: Option<UnixTime>, text: &str) -> bool {
        let right = self.mail_mac(id, ends);
        constant_time::verify_slices_are_equal(right.0.as_bytes(), text.as_bytes()).is_ok()
    }

    /// The value of `X-Tempalias-Loop` for the alias with this whole address.
    pub fn loop_mac(&self, address: &str) -> String {
        encode(&self.hash::<15>("loop", &[address.as_bytes()]))
    }

    /// The id in our `Received` line: when ‖ keyed hash of who got it, who sent it, and when. It proves later
    /// that a returned message passed through here.
    pub fn received_id(&self, aliases: &[&AliasId], sender: &ReversePath, now: UnixTime) -> String {
        let stamp = now.secs().to_be_bytes();
        let names = aliases.iter().map(|id| id.as_str()).collect::<Vec<_>>().join("\0");
        let mac: [u8; 10] = self.hash("received", &[names.as_bytes(), sender.to_string().as_bytes(), &stamp]);
        let [_, _, _, stamp @ ..] = stamp;
        format!("{}{}", encode(&stamp), encode(&mac))
    }

    /// The tag of an envelope sender, for one alias. `<>` has one too.
    pub fn sender_tag(&self, id: &AliasId, sender: &ReversePath) -> SenderTag {
        let domain = sender.domain().map_or("", |domain| domain.as_str());
        SenderTag(self.hash("sender", &[id.as_str().as_bytes(), domain.as_bytes()]))
    }

    /// Which message this is, for one alias.
    pub fn fingerprint(&self, id: &AliasId, digest: &MessageDigest) -> Fingerprint {
        Fingerprint(self.hash("message", &[id.as_str().as_bytes(), &digest.0]))
    }

    /// The tag of a client under which one purpose counts it.
    pub fn client_tag(&self, purpose: &str, client: ClientNetwork) -> ClientTag {
        ClientTag(self.hash("client", &[purpose.as_bytes(), &client.octets()]))
    }

    /// The tag of any other name under which one purpose keeps something (an Idempotency-Key, say).
    pub fn name_tag(&self, purpose: &str, name: &[u8]) -> ClientTag {
        ClientTag(self.hash("name", &[purpose.as_bytes(), name]))
    }

    /// HMAC-SHA-256 over label and parts, each with its length before it, cut to `N` bytes.
    fn hash<const N: usize>(&self, label: &str, parts: &[&[u8]]) -> [u8; N] {
        let mut context = hmac::Context::with_key(&self.mac);
        for part in std::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        first_bytes(context.sign().as_ref())
    }
}

fn first_bytes<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    out
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerKey({})", self.id)
    }
}
