//! From what a client wrote to what `service` understands. The API and the form read with the same rules.
//!
//! A number may come as a text, and `0`, an empty text and null mean "not set": so it was in 2010. Nothing stops
//! at the first fault; what cannot be read is handed on as such.

use std::num::NonZeroU32;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde_json::{Map, Value};
use tempalias_address::{Domain, Mailbox};
use tempalias_alias::{UnixTime, Wanted};
use tempalias_service::{Changes, Draft, Fault, Field, FieldError};

use crate::problem::Problem;
use crate::when;

/// The name of a field in requests and forms.
pub(crate) fn key_of(field: Field) -> &'static str {
    match field {
        Field::Target => "target",
        Field::Domain => "domain",
        Field::Days => "days",
        Field::MaxUsage => "max-usage",
        Field::ValidFrom => "valid-from",
        Field::ValidUntil => "valid-until",
        Field::Paused => "paused",
    }
}

/// The last part of a path, decoded. What does not decode names nothing.
pub(crate) struct PathText(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(text)| Self(text)).map_err(|_| Problem::no_such_page())
    }
}

/// One request's fields, and what could not be read of them.
pub(crate) struct Reader<'a> {
    fields: &'a Map<String, Value>,
    unread: Vec<FieldError>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(fields: &'a Map<String, Value>) -> Self {
        Self { fields, unread: Vec::new() }
    }

    /// A wish for a new alias.
    pub(crate) fn draft(mut self) -> Draft {
        Draft {
            target: self.read(Field::Target, mailbox),
            domain: self.read(Field::Domain, domain),
            wanted: Wanted {
                days: self.read(Field::Days, count),
                max_usage: self.read(Field::MaxUsage, count),
                valid_from: self.read(Field::ValidFrom, date),
                valid_until: self.read(Field::ValidUntil, date),
            },
            unread: self.unread,
        }
    }

    /// A wish to change one. A field that never changes is a fault: its sender would believe that it did.
    pub(crate) fn changes(mut self) -> Changes {
        for fixed in [Field::Target, Field::Domain, Field::ValidFrom, Field::ValidUntil] {
            self.read(fixed, |_| Err::<Option<()>, _>(Fault::Unchangeable));
        }
        Changes {
            days: self.read(Field::Days, count),
            max_usage: self.read(Field::MaxUsage, count),
            paused: self.read(Field::Paused, boolean),
            unread: self.unread,
        }
    }

    fn read<T>(&mut self, field: Field, parse: impl Fn(&Value) -> Result<Option<T>, Fault>) -> Option<T> {
        let value = self.fields.get(key_of(field)).filter(|value| !value.is_null())?;
        match parse(value) {
            Ok(read) => read,
            Err(fault) => {
                self.unread.push(FieldError::new(field, fault));
                None
            }
        }
    }
}

fn text(value: &Value) -> Result<Option<&str>, Fault> {
    let text = value.as_str().ok_or(Fault::NotText)?.trim();
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn mailbox(value: &Value) -> Result<Option<Mailbox>, Fault> {
    text(value)?.map(|text| text.parse().map_err(Fault::NotAnAddress)).transpose()
}

/// What is no domain at all is none of ours either.
fn domain(value: &Value) -> Result<Option<Domain>, Fault> {
    text(value)?.map(|text| text.parse().map_err(|_| Fault::UnknownDomain)).transpose()
}

fn count(value: &Value) -> Result<Option<NonZeroU32>, Fault> {
    let number = match value {
        Value::Number(number) => whole(number).ok_or(Fault::NotANumber)?,
        Value::String(text) => match text.trim() {
            "" => 0,
            // Digits that do not fit are beyond every cap; the cap is what will be granted.
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().unwrap_or(u64::MAX),
            _ => return Err(Fault::NotANumber),
        },
        _ => return Err(Fault::NotANumber),
    };
    Ok(NonZeroU32::new(u32::try_from(number).unwrap_or(u32::MAX)))
}

/// A whole number not below zero; `3.0` is one too, as some languages write it.
fn whole(number: &serde_json::Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let text = number.to_string();
        let (digits, zeros) = text.split_once('.')?;
        zeros.bytes().all(|b| b == b'0').then(|| digits.parse().ok())?
    })
}

fn date(value: &Value) -> Result<Option<UnixTime>, Fault> {
    if value.as_u64() == Some(0) {
        return Ok(None);
    }
    match value.as_str().map(str::trim) {
        Some("" | "0") => Ok(None),
        Some(text) => when::parse(text).map(Some).ok_or(Fault::NotADate),
        None => Err(Fault::NotADate),
    }
}

fn boolean(value: &Value) -> Result<Option<bool>, Fault> {
    value.as_bool().map(Some).ok_or(Fault::NotABoolean)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn draft(json: &Value) -> Draft {
        Reader::new(json.as_object().unwrap()).draft()
    }

    fn days(value: Value) -> Result<Option<u32>, Fault> {
        let draft = draft(&json!({ "days": value }));
        draft
            .unread
            .first()
            .map_or(Ok(draft.wanted.days.map(NonZeroU32::get)), |fault| Err(fault.fault.clone()))
    }

    #[test]
    fn numbers_come_as_numbers_or_texts() {
        for three in [json!(3), json!("3"), json!(" 3 "), json!("003"), json!(3.0)] {
            assert_eq!(days(three.clone()), Ok(Some(3)), "{three}");
        }
        for unset in [json!(0), json!("0"), json!(""), json!(" "), json!(null), json!(0.0)] {
            assert_eq!(days(unset.clone()), Ok(None), "{unset}");
        }
        for huge in [json!(u64::MAX), json!("99999999999999999999999"), json!(4_294_967_296u64)] {
            assert_eq!(days(huge.clone()), Ok(Some(u32::MAX)), "{huge}");
        }
        for bad in [
            json!(-1),
            json!("-1"),
            json!(1.5),
            json!("1.5"),
            json!("x"),
            json!(true),
            json!([3]),
            json!({}),
            json!("1e3"),
        ] {
            assert_eq!(days(bad.clone()), Err(Fault::NotANumber), "{bad}");
        }
    }

    #[test]
    fn every_field_is_read_though_others_are_wrong() {
        let draft = draft(&json!({
            "target": 7, "domain": "no domain", "days": "soon", "max-usage": 5, "valid-from": "", "valid-until": "never",
        }));
        let unread: Vec<_> = draft.unread.iter().map(|fault| (fault.field, fault.fault.clone())).collect();
        assert_eq!(
            unread,
            [
                (Field::Target, Fault::NotText),
                (Field::Domain, Fault::UnknownDomain),
                (Field::Days, Fault::NotANumber),
                (Field::ValidUntil, Fault::NotADate),
            ]
        );
        assert_eq!(draft.wanted.max_usage, NonZeroU32::new(5));
    }

    #[test]
    fn a_change_of_what_never_changes_is_a_fault() {
        let fields = json!({ "valid-until": "2027-01-01", "target": null, "paused": true });
        let changes = Reader::new(fields.as_object().unwrap()).changes();
        assert_eq!(changes.paused, Some(true));
        assert_eq!(changes.unread, [FieldError::new(Field::ValidUntil, Fault::Unchangeable)]);
    }
}
