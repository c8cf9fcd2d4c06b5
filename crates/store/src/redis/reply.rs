//! What scripts answer, as the types of `alias`, and back. The only place that knows the order of their fields.

use redis::Value;
use tempalias_alias::{
    Answer, Attempt, Fingerprint, Kept, KeptState, KeyId, Ledger, Limits, Outcome, Owner, RowKey, Sealed,
    SenderTag, State, UnixTime,
};

use super::keys::Hex;
use crate::copy::Row;
use crate::{Claimed, Found, StoreError};

/// Takes the fields of an answer one after another.
pub(super) struct Fields(std::vec::IntoIter<Value>);

impl Fields {
    pub(super) fn of(answer: Value) -> Result<Self, StoreError> {
        match answer {
            Value::Array(fields) => Ok(Self(fields.into_iter())),
            _ => Err(nonsense()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            Some(Value::Nil) => Ok(Vec::new()),
            Some(Value::Int(number)) => Ok(number.to_string().into_bytes()),
            Some(Value::SimpleString(text)) => Ok(text.into_bytes()),
            _ => Err(nonsense()),
        }
    }

    pub(super) fn exactly<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.bytes()?.try_into().map_err(|_| nonsense())
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?).map_err(|_| nonsense())
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self) -> Result<T, StoreError> {
        self.text()?.parse().map_err(|_| nonsense())
    }

    /// Empty text is none.
    fn optional<T: std::str::FromStr>(&mut self) -> Result<Option<T>, StoreError> {
        let text = self.text()?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| nonsense()) }
    }

    pub(super) fn time(&mut self) -> Result<UnixTime, StoreError> {
        self.number().map(UnixTime::from_millis)
    }

    /// In the order most uses, from, until: as every script gives them.
    pub(super) fn limits(&mut self) -> Result<Limits, StoreError> {
        let max_usage = self.optional()?;
        let valid_from = self.optional()?.map(UnixTime::from_millis);
        let valid_until = self.optional()?.map(UnixTime::from_millis);
        Ok(Limits { valid_from, valid_until, max_usage })
    }

    fn nested(&mut self) -> Result<Self, StoreError> {
        self.0.next().map_or_else(|| Err(nonsense()), Self::of)
    }
}

/// What a broken, or an older or newer, server could make of it.
pub(super) fn nonsense() -> StoreError {
    StoreError::Failed("the server answered something that no tempalias wrote".to_owned())
}

/// An answer of `find.lua`: the store's time, and the row if there is one.
pub(super) fn found(key: RowKey, answer: Value) -> Result<(UnixTime, Option<Found>), StoreError> {
    found_in(key, &mut Fields::of(answer)?)
}

/// An answer of `whole.lua`: as of `find.lua`, with more behind it.
pub(super) fn whole(key: RowKey, answer: Value) -> Result<(UnixTime, Option<Row>), StoreError> {
    let mut fields = Fields::of(answer)?;
    let (now, found) = found_in(key, &mut fields)?;
    let Some(found) = found else { return Ok((now, None)) };
    let Found { ledger, created, sealed, .. } = found;
    let Ledger { limits, state, used, kept } = ledger;
    let key_id = KeyId(fields.exactly()?);
    let goes = fields.optional()?.filter(|_| state == State::Removed).map(UnixTime::from_millis);
    Ok((now, Some(Row { key, key_id, limits, state, used, created, goes, sealed, kept })))
}

fn found_in(key: RowKey, fields: &mut Fields) -> Result<(UnixTime, Option<Found>), StoreError> {
    let now = fields.time()?;
    if fields.is_empty() {
        return Ok((now, None));
    }
    let state = match fields.text()?.as_str() {
        "0" => State::Active,
        "1" => State::Paused,
        "2" => State::Removed,
        _ => return Err(nonsense()),
    };
    let used = fields.number()?;
    let limits = fields.limits()?;
    let created = fields.time()?;
    let sealed = Sealed(fields.bytes()?.into());
    let mut pairs = fields.nested()?;
    let mut kept = Vec::new();
    while !pairs.is_empty() {
        let fingerprint = Fingerprint(pairs.exactly()?);
        kept.push(claim_of(fingerprint, &pairs.text()?).ok_or_else(nonsense)?);
    }
    // Those whose retention is over only wait for the end of their key.
    kept.retain(|kept| now < kept.until);
    let ledger = Ledger { limits, state, used, kept };
    Ok((now, Some(Found { key, ledger, created, sealed, now })))
}

/// An answer of `claim.lua`, and under whose attempt the message is in flight, if it is.
pub(super) fn claimed(answer: Value) -> Result<(Claimed, Option<Owner>), StoreError> {
    let mut fields = Fields::of(answer)?;
    let now = fields.time()?;
    let answer = match fields.text()?.as_str() {
        "already" => Answer::Already,
        "busy" => Answer::Busy,
        "over" => Answer::Over,
        "again" => Answer::Again,
        "granted" => Answer::Granted,
        "uncounted" => Answer::Uncounted,
        "late" => return Err(StoreError::Failed("the claim took too long on its way".to_owned())),
        _ => return Err(nonsense()),
    };
    let used = fields.number()?;
    if fields.is_empty() {
        return Ok((Claimed { answer, limits: None, used, now }, None));
    }
    let limits = Some(fields.limits()?);
    let whose = fields.text()?;
    let whose = if whose.is_empty() { None } else { Some(owner(&whose).ok_or_else(nonsense)?) };
    Ok((Claimed { answer, limits, used, now }, whose))
}

/// A claim as `prelude.lua` writes it.
fn claim_of(fingerprint: Fingerprint, text: &str) -> Option<Kept> {
    let mut words = text.split(' ');
    let mut word = || words.next();
    let state = match word()? {
        "F" => KeptState::InFlight,
        "D" => KeptState::InDoubt,
        "A" => KeptState::Delivered,
        _ => return None,
    };
    let clean = word()? == "1";
    let doubts = word()?.parse().ok()?;
    let until = UnixTime::from_millis(word()?.parse().ok()?);
    let owner = owner(word()?)?;
    let number = u64::from_str_radix(word()?, 16).ok()?;
    let sender = SenderTag(u64::from_str_radix(word()?, 16).ok()?.to_be_bytes());
    let attempt = Attempt { owner, number };
    Some(Kept { fingerprint, state, attempt, sender, doubts, clean, until })
}

/// A claim as `prelude.lua` reads it, for one that is brought from another store.
pub(super) fn claim_text(kept: &Kept) -> String {
    let state = match kept.state {
        KeptState::InFlight => 'F',
        KeptState::InDoubt => 'D',
        KeptState::Delivered => 'A',
    };
    let Attempt { owner, number } = kept.attempt;
    let (clean, owner) = (u8::from(kept.clean), super::keys::OwnerText(owner));
    let (doubts, until, sender) = (kept.doubts, kept.until.millis(), Hex(&kept.sender.0));
    format!("{state} {clean} {doubts} {until} {owner} {number:x} {sender}")
}

fn owner(text: &str) -> Option<Owner> {
    let (node, boot) = text.split_once(':')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some(Owner { node: hex(node)?, boot: hex(boot)? })
}

/// How an attempt ended, in the word of `settle.lua`.
pub(super) fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Refused => "refused",
        Outcome::Deferred => "deferred",
        Outcome::Unsent => "unsent",
        Outcome::Lost => "lost",
    }
}

/// A state in the number of `prelude.lua`.
pub(super) fn state_number(state: State) -> &'static str {
    match state {
        State::Active => "0",
        State::Paused => "1",
        State::Removed => "2",
    }
}

/// What may be absent, as text.
pub(super) fn or_empty<T: std::fmt::Display>(value: Option<T>) -> Vec<u8> {
    value.map(|value| value.to_string()).unwrap_or_default().into_bytes()
}

/// A value as text, whatever the protocol calls it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        Value::Okay => "OK".to_owned(),
        Value::Int(number) => number.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_survives_its_text() {
        for state in [KeptState::InFlight, KeptState::InDoubt, KeptState::Delivered] {
            let kept = Kept {
                fingerprint: Fingerprint([9; 16]),
                state,
                attempt: Attempt { owner: Owner { node: u64::MAX, boot: 0xfedc }, number: u64::MAX },
                sender: SenderTag([0, 1, 2, 3, 4, 5, 6, 0xff]),
                doubts: 20,
                clean: state == KeptState::InFlight,
                until: UnixTime::from_millis(1_800_000_000_123),
            };
            assert_eq!(claim_of(kept.fingerprint, &claim_text(&kept)), Some(kept));
        }
        for text in ["", "F", "X 1 0 5 1:1 1 00", "F 1 x 5 1:1 1 00", "F 1 0 5 11 1 00"] {
            assert_eq!(claim_of(Fingerprint([0; 16]), text), None, "{text}");
        }
    }
}
