//! What time it is: the server's, so that nodes with skewed clocks agree; in tests the one that is given.

use redis::RedisError;
use tempalias_alias::UnixTime;

use super::RedisOptions;
use super::keys::Names;
use super::link::Pipe;
use super::reply::text;
use super::rows::millis;
use super::script::NOW;

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
    let millis = text(&pipe.run(&NOW, &[names.server_keys()], &[]).await?);
    Ok(UnixTime::from_millis(millis.parse().unwrap_or_default()))
}
