//! What a temporary alias is: its name, its limits, its life, its claims, and how it is sealed.
//!
//! Owns every rule about an alias that needs no mail and no database: whether it is alive ([`Ledger::admit`]),
//! whether a message may use it ([`Ledger::claim`]), what becomes of a use ([`Kept::settle`]), what of it may
//! be stored and under which key ([`ServerKey`]). Never knows JSON, SMTP codes or a database; never reads a
//! clock or draws a random number: time and randomness are arguments.

mod bucket;
mod claim;
mod fingerprint;
mod id;
mod keys;
mod ledger;
mod limits;
mod seal;
mod secret;
mod time;

pub use bucket::{ClientNetwork, Rate};
pub use claim::{
    Answer, Attempt, ClaimRequest, Kept, KeptState, MAX_DOUBTS, Outcome, Owner, RETENTION, Settled, Verdict,
};
pub use fingerprint::{Fingerprint, MessageDigest, MessageHasher};
pub use id::{AliasId, AliasIdError, RANDOM_ID_BYTES};
pub use keys::{ClientTag, KeyId, Keys, MailMac, RowKey, SenderTag, ServerKey};
pub use ledger::{Admission, Ledger, State};
pub use limits::{Caps, LimitChange, Limits, LimitsError, Wanted};
pub use seal::{NONCE_BYTES, Nonce, Private, Purpose, SealError, Sealed};
pub use secret::{MANAGE_SECRET_BYTES, ManageHash, ManageSecret};
pub use time::UnixTime;
