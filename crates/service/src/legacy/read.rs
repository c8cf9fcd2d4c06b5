//! One alias as 2010 wrote it: JSON out of JavaScript, and a counter beside it.

use std::num::NonZeroU32;

use serde_json::{Map, Value};
use tempalias_address::Mailbox;
use tempalias_alias::{Limits, ManageSecret, UnixTime};
use tempalias_store::copy::OldAlias;
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, OffsetDateTime, PrimitiveDateTime};

/// What an old alias says of itself.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) aid: Option<String>,
    pub(super) target: Mailbox,
    pub(super) limits: Limits,
    pub(super) used: u32,
    pub(super) secret: Option<ManageSecret>,
    /// What had to be read with some good will.
    pub(super) warnings: Vec<&'static str>,
}

impl Old {
    /// Or why it cannot be one of today.
    pub(super) fn read(old: &OldAlias) -> Result<Self, String> {
        let json = old.json.as_ref().ok_or("there is no text under its key")?;
        let fields: Map<String, Value> =
            serde_json::from_slice(json).map_err(|_| "what is stored is no JSON object")?;
        let field = |name| fields.get(name).filter(|value| !value.is_null());
        let text =
            |name| field(name).and_then(Value::as_str).map(str::to_owned).filter(|text| !text.is_empty());
        let target = text("target").ok_or("it has no target")?;
        let target = target.parse::<Mailbox>().map_err(|why| format!("its target is not taken: {why}"))?;
        let mut warnings = Vec::new();
        let (max_usage, used) = uses(field("max_usage"), old.left.as_deref(), &mut warnings)?;
        let limits = Limits {
            valid_from: date(field("valid_from")).map_err(|()| "its valid_from is no date")?,
            valid_until: date(field("valid_until")).map_err(|()| "its valid_until is no date")?,
            max_usage,
        };
        let secret = text("updatekey").and_then(|text| text.parse().ok());
        Ok(Self { aid: text("aid"), target, limits, used, secret, warnings })
    }
}

/// How many messages it may pass on, and how many it has. 2010 counted down, and on below zero with each message that
/// came too late.
fn uses(
    max: Option<&Value>,
    left: Option<&[u8]>,
    warnings: &mut Vec<&'static str>,
) -> Result<(Option<NonZeroU32>, u32), String> {
    let max = max.map(whole).transpose().map_err(|()| "its max_usage is no number")?.unwrap_or_default();
    if max < 0 {
        return Err("its max_usage is below zero".to_owned());
    }
    if max > i64::from(u32::MAX) {
        warnings.push("its max_usage is lowered to what can be counted");
    }
    let most = u32::try_from(max).unwrap_or(u32::MAX);
    // 2010 took zero for "any number", too.
    let Some(most) = NonZeroU32::new(most) else { return Ok((None, 0)) };
    let left = match left {
        None => max,
        Some(text) => std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.trim().parse::<i64>().ok())
            .ok_or("its counter is no number")?,
    };
    if left > max {
        warnings.push("its counter says more than its max_usage: nothing counts as used");
    }
    let used = u32::try_from(max - left.clamp(0, max)).unwrap_or(u32::MAX);
    Ok((Some(most), used.min(most.get())))
}

/// A whole number, also as a text.
fn whole(value: &Value) -> Result<i64, ()> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| as_written(&number.to_string())).ok_or(()),
        Value::String(text) if text.trim().is_empty() => Ok(0),
        Value::String(text) => as_written(text.trim()).ok_or(()),
        _ => Err(()),
    }
}

/// `5` and `5.0`.
fn as_written(text: &str) -> Option<i64> {
    let (digits, fraction) = text.split_once('.').unwrap_or((text, "0"));
    fraction.bytes().all(|digit| digit == b'0').then(|| digits.parse().ok())?
}

/// A date as JavaScript writes it, or its milliseconds; zero and nothing are none. Before 1970 is simply long past.
fn date(value: Option<&Value>) -> Result<Option<UnixTime>, ()> {
    let Some(value) = value else { return Ok(None) };
    if let Ok(millis) = whole(value) {
        return Ok((millis != 0).then(|| UnixTime::from_millis(u64::try_from(millis).unwrap_or_default())));
    }
    let text = value.as_str().ok_or(())?.trim();
    let local = || {
        let midnight = Date::parse(text, &Iso8601::DATE).map(Date::midnight);
        midnight.or_else(|_| PrimitiveDateTime::parse(text, &Iso8601::DATE_TIME))
    };
    let moment =
        OffsetDateTime::parse(text, &Rfc3339).or_else(|_| local().map(PrimitiveDateTime::assume_utc));
    let millis = moment.map_err(|_| ())?.unix_timestamp_nanos() / 1_000_000;
    Ok(Some(UnixTime::from_millis(u64::try_from(millis).unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, left: Option<&str>) -> Result<Old, String> {
        Old::read(&OldAlias { json: Some(json.into()), left: left.map(Into::into) })
    }

    fn with(fields: &str, left: Option<&str>) -> Result<Old, String> {
        read(&format!(r#"{{"aid":"aB3x","target":"me@real.test"{fields}}}"#), left)
    }

    #[test]
    fn uses_are_what_is_gone_from_the_counter() {
        for (fields, left, max, used, warned) in [
            (r#","max_usage":5"#, Some("3"), 5, 2, false),
            (r#","max_usage":"5""#, Some("3"), 5, 2, false),
            (r#","max_usage":5.0"#, Some(" 5\n"), 5, 0, false),
            (r#","max_usage":5"#, None, 5, 0, false),
            (r#","max_usage":5"#, Some("-17"), 5, 5, false),
            (r#","max_usage":5"#, Some("9"), 5, 0, true),
            (r#","max_usage":5000000000"#, Some("4999999999"), u32::MAX, 1, true),
            (r#","max_usage":null"#, Some("3"), 0, 0, false),
            (r#","max_usage":0"#, None, 0, 0, false),
            (r#","max_usage":"""#, None, 0, 0, false),
            ("", None, 0, 0, false),
        ] {
            let old = with(fields, left).unwrap();
            assert_eq!((old.limits.max_usage, old.used), (NonZeroU32::new(max), used), "{fields} {left:?}");
            assert_eq!(!old.warnings.is_empty(), warned, "{fields} {left:?}");
        }
    }

    #[test]
    fn dates_are_texts_or_milliseconds_or_absent() {
        for (value, millis) in [
            (r#""2010-05-01T12:34:56.789Z""#, Some(1_272_717_296_789)),
            (r#""2010-05-01T12:34:56Z""#, Some(1_272_717_296_000)),
            (r#""2010-05-01T14:34:56+02:00""#, Some(1_272_717_296_000)),
            (r#""2010-05-01""#, Some(1_272_672_000_000)),
            ("1272717296789", Some(1_272_717_296_789)),
            (r#""1272717296789""#, Some(1_272_717_296_789)),
            (r#""1969-05-01T12:34:56Z""#, Some(0)),
            ("null", None),
            ("0", None),
            (r#""""#, None),
        ] {
            let old = with(&format!(r#","valid_until":{value},"valid_from":{value}"#), None).unwrap();
            let wanted = millis.map(UnixTime::from_millis);
            assert_eq!((old.limits.valid_until, old.limits.valid_from), (wanted, wanted), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_reason() {
        for (json, left, why) in [
            ("{", None, "no JSON object"),
            ("[]", None, "no JSON object"),
            ("{}", None, "no target"),
            (r#"{"target":null}"#, None, "no target"),
            (r#"{"target":"a@"}"#, None, "its target is not taken"),
            (r#"{"target":"a@b.test","max_usage":"many"}"#, None, "max_usage is no number"),
            (r#"{"target":"a@b.test","max_usage":1.5}"#, None, "max_usage is no number"),
            (r#"{"target":"a@b.test","max_usage":-1}"#, None, "below zero"),
            (r#"{"target":"a@b.test","max_usage":1}"#, Some("x"), "counter is no number"),
            (r#"{"target":"a@b.test","valid_until":"soon"}"#, None, "valid_until is no date"),
            (r#"{"target":"a@b.test","valid_from":[1]}"#, None, "valid_from is no date"),
        ] {
            let refused = read(json, left).unwrap_err();
            assert!(refused.contains(why), "{json}: {refused}");
        }
        assert!(Old::read(&OldAlias { json: None, left: None }).is_err());
    }

    #[test]
    fn the_secret_may_be_missing() {
        assert!(with("", None).unwrap().secret.is_none());
        assert!(with(r#","updatekey":null"#, None).unwrap().secret.is_none());
        let secret = with(r#","updatekey":"92329D39-6F5C""#, None).unwrap().secret.unwrap();
        assert_eq!(secret.reveal(), "92329d39-6f5c");
    }
}
