//! The mark of a store that is being copied into: how far the copy has come.

use redis::{RedisError, Value, cmd};
use tempalias_alias::RowKey;

use super::greet::Unfit;
use super::keys::Names;
use super::link::Pipe;
use super::reply::text;
use crate::copy::{Mark, Origin};

/// How far a copy into this store has come, if one is unfinished.
pub(super) async fn read(pipe: &mut Pipe, names: &Names) -> Result<Option<Mark>, RedisError> {
    let value = pipe.ask(cmd("GET").arg(names.copying())).await?;
    Ok(from_value(&value))
}

/// Notes that a copy begins, unless one has begun: then that one.
pub(super) async fn begin(pipe: &mut Pipe, names: &Names, mark: &Mark) -> Result<Option<Mark>, RedisError> {
    let mut set = cmd("SET");
    set.arg(names.copying()).arg(to_text(mark)).arg("NX").arg("GET");
    pipe.ask(&set).await.map(|value| from_value(&value))
}

fn from_value(value: &Value) -> Option<Mark> {
    if *value == Value::Nil {
        return None;
    }
    let text = text(value);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default().to_owned();
    let (after, id, shown) = (line(), line(), line());
    let after = u128::from_str_radix(&after, 16).ok().map(|key| RowKey(key.to_be_bytes()));
    Some(Mark { from: Origin { id, shown }, after })
}

/// A mark as it is stored.
pub(super) fn to_text(mark: &Mark) -> String {
    let after = mark.after.map(|key| key.to_string()).unwrap_or_default();
    format!("{after}\n{}\n{}", mark.from.id, mark.from.shown)
}

/// What is said of a store that is half a copy.
pub(super) fn half_a_copy(from: &str) -> String {
    format!("it holds an unfinished copy of {from}: run `tempalias db copy` again to finish it")
}

/// No half copy is served.
pub(super) async fn refuse_if_unfinished(pipe: &mut Pipe, names: &Names) -> Result<(), Unfit> {
    match read(pipe, names).await? {
        None => Ok(()),
        Some(mark) => Err(Unfit::Wrong(half_a_copy(&mark.from.shown))),
    }
}
