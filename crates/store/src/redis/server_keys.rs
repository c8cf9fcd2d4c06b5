//! The server keys that rows are sealed under, noted beside them: a node that lacks one could open none of those rows,
//! and must not start.

use std::time::Duration;

use redis::{RedisError, Value, cmd};
use tempalias_alias::{KeyId, UnixTime};

use super::keys::Names;
use super::link::Pipe;
use super::reply::text;
use super::script::JOIN;

/// The server keys that rows may still stand under at `now`, of those that are not listed.
pub(super) async fn missing(
    pipe: &mut Pipe,
    names: &Names,
    listed: &[KeyId],
    now: UnixTime,
) -> Result<Option<KeyId>, RedisError> {
    let noted = pipe.ask(cmd("HGETALL").arg(names.server_keys())).await?;
    let pairs = noted.into_map_iter().map(Vec::from_iter).unwrap_or_default();
    let needed = pairs.iter().filter_map(|(id, until)| {
        let Value::BulkString(id) = id else { return None };
        let until = text(until).parse().ok().map(UnixTime::from_millis)?;
        Some((KeyId(id.as_slice().try_into().ok()?), until))
    });
    Ok(needed.filter(|(id, until)| *until > now && !listed.contains(id)).map(|(id, _)| id).next())
}

/// Notes that rows are sealed under the first of `keys` for `length`, unless rows may stand under a key that is not
/// listed: then which.
pub(super) async fn note_own(
    pipe: &mut Pipe,
    names: &Names,
    keys: &[KeyId],
    now: &[u8],
    length: Duration,
) -> Result<Option<KeyId>, RedisError> {
    if keys.is_empty() {
        return Ok(None);
    }
    let length = length.as_millis().to_string();
    let mut args: Vec<&[u8]> = vec![now, length.as_bytes()];
    args.extend(keys.iter().map(|key| &key.0[..]));
    match pipe.run(&JOIN, &[names.server_keys()], &args).await? {
        Value::Array(missing) => Ok(missing.first().and_then(|id| match id {
            Value::BulkString(id) => Some(KeyId(id.as_slice().try_into().ok()?)),
            _ => None,
        })),
        _ => Ok(None),
    }
}
