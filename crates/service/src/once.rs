//! A request that is sent twice makes one alias.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tempalias_alias::{ClientTag, Limits, ManageSecret, Nonce, Purpose, Sealed, ServerKey, UnixTime};
use tempalias_store::{Idempotent, Once as Kept};

use crate::create::Made;
use crate::{Aliases, CreateError};

/// Shorter ones could be guessed, and a guessed one opens the stored reply.
const MIN_KEY: usize = 16;
const MAX_KEY: usize = 255;

/// The name that a client gave to its request.
#[derive(Clone)]
pub struct IdempotencyKey(Box<str>);

/// Why a text is not an [`IdempotencyKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdempotencyKeyError {
    /// Under 16 characters: it could be guessed.
    #[error("the Idempotency-Key must have at least 16 characters")]
    TooShort,
    /// Over 255 characters.
    #[error("the Idempotency-Key must have at most 255 characters")]
    TooLong,
}

impl FromStr for IdempotencyKey {
    type Err = IdempotencyKeyError;

    fn from_str(text: &str) -> Result<Self, IdempotencyKeyError> {
        match text.chars().count() {
            0..MIN_KEY => Err(IdempotencyKeyError::TooShort),
            MIN_KEY..=MAX_KEY => Ok(Self(text.into())),
            _ => Err(IdempotencyKeyError::TooLong),
        }
    }
}

impl std::fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A request under its name: the same bytes again get the same answer, others are refused.
#[derive(Debug, Clone, Copy)]
pub struct Once<'a> {
    /// Its name.
    pub key: &'a IdempotencyKey,
    /// The whole body as it came.
    pub body: &'a [u8],
}

impl Once<'_> {
    fn name(&self, key: &ServerKey) -> ClientTag {
        key.name_tag("idempotency key", self.key.0.as_bytes())
    }

    fn body(&self, key: &ServerKey) -> ClientTag {
        key.name_tag("idempotent body", self.body)
    }

    /// What is stored, so that the same request gets `made` again.
    pub(crate) fn keep(&self, key: &ServerKey, made: &Made, nonce: Nonce) -> Kept {
        let plain = serde_json::to_vec(&Reply::from(made)).unwrap_or_default();
        let reply = key.seal_bytes(Purpose::IdempotentReply, self.key.0.as_bytes(), &plain, nonce);
        Kept { name: self.name(key), reply: Idempotent { body: self.body(key), reply } }
    }

    /// What was answered to this request before.
    pub(crate) fn answer(&self, key: &ServerKey, stored: &Idempotent) -> Result<Made, CreateError> {
        if stored.body != self.body(key) {
            return Err(CreateError::KeyReused);
        }
        self.open(key, &stored.reply).ok_or(CreateError::DamagedReply)
    }

    fn open(&self, key: &ServerKey, reply: &Sealed) -> Option<Made> {
        let plain = key.open_bytes(Purpose::IdempotentReply, self.key.0.as_bytes(), reply).ok()?;
        serde_json::from_slice::<Reply>(&plain).ok()?.into_made()
    }
}

impl Aliases {
    /// The answer that was given under this name before, if any. Every server key is asked, so that a key that was
    /// rotated between a request and its repetition makes no second alias.
    pub(crate) async fn answered(&self, once: Once<'_>) -> Result<Option<Made>, CreateError> {
        for key in self.keys.all() {
            if let Some(stored) = self.store.idempotent_reply(once.name(key)).await? {
                return once.answer(key, &stored).map(Some);
            }
        }
        Ok(None)
    }
}

/// A [`Made`] as it is stored, before it is sealed.
#[derive(Serialize, Deserialize)]
struct Reply {
    id: String,
    domain: String,
    target: String,
    secret: String,
    from: Option<u64>,
    until: Option<u64>,
    uses: Option<std::num::NonZeroU32>,
    days: Option<u32>,
    now: u64,
}

impl From<&Made> for Reply {
    fn from(made: &Made) -> Self {
        Self {
            id: made.id.to_string(),
            domain: made.domain.to_string(),
            target: made.target.to_string(),
            secret: made.secret.reveal().to_owned(),
            from: made.limits.valid_from.map(UnixTime::millis),
            until: made.limits.valid_until.map(UnixTime::millis),
            uses: made.limits.max_usage,
            days: made.days,
            now: made.now.millis(),
        }
    }
}

impl Reply {
    fn into_made(self) -> Option<Made> {
        let Ok(secret) = self.secret.parse::<ManageSecret>();
        Some(Made {
            id: self.id.parse().ok()?,
            domain: self.domain.parse().ok()?,
            target: self.target.parse().ok()?,
            secret,
            limits: Limits {
                valid_from: self.from.map(UnixTime::from_millis),
                valid_until: self.until.map(UnixTime::from_millis),
                max_usage: self.uses,
            },
            days: self.days,
            now: UnixTime::from_millis(self.now),
        })
    }
}
