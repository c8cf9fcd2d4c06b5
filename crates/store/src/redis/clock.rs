//! What time it is: the server's, so that nodes with skewed clocks agree; in tests the one that is given.

use redis::{RedisError, cmd};
use tempalias_alias::UnixTime;

use super::RedisOptions;
use super::keys::Names;
use super::link::Pipe;
use super::reply::text;
use super::rows::millis;

/// The time that scripts get; empty: their server's.
pub(super) fn given(options: &RedisOptions) -> Vec<u8> {
    millis(options.clock.as_ref().map(|clock| clock()))
}

/// The time of now.
pub(super) async fn ask(
    options: &RedisOptions,
    pipe: &mut Pipe,
    names: &Names,
) -> Result<UnixTime, RedisError> {
    if let Some(clock) = &options.clock {
        return Ok(clock());
    }
    // A script with a key, so that a Cluster knows whom to ask.
    let mut ask = cmd("EVAL");
    let script =
        "local t = redis.call('TIME') return string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))";
    ask.arg(script).arg(1).arg(names.server_keys());
    let millis = text(&pipe.ask(&ask).await?);
    Ok(UnixTime::from_millis(millis.parse().unwrap_or_default()))
}
