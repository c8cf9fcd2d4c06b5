//! Walking over all keys of a kind, on every master, in small steps that hold up nobody (never KEYS).

use std::collections::BTreeMap;

use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{ErrorKind, RedisError, Value, cmd};

use super::link::Pipe;
use super::reply::text;

/// Keys that one step looks at.
const STEP: usize = 1000;
/// Where a walk begins, and what says that it has ended.
const FIRST: &[u8] = b"0";

/// A server that is walked over; none: the only one.
pub(super) type Master = Option<u16>;

/// Hash slots, from and to, and which server has them.
pub(super) type Slots = (u16, u16, String);

/// Who has which slots of a Cluster.
pub(super) async fn slots(pipe: &mut Pipe) -> Result<Vec<Slots>, RedisError> {
    let mut ask = cmd("CLUSTER");
    ask.arg("SLOTS");
    let answer = pipe.ask_at(ask, RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary)).await?;
    let Value::Array(ranges) = answer else { return Err(nonsense()) };
    let ranges = ranges.into_iter().filter_map(|range| {
        let Value::Array(fields) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = fields.as_slice() else {
            return None;
        };
        let name: Vec<String> = master.iter().map(text).collect();
        Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, name.join(" ")))
    });
    Ok(ranges.collect())
}

/// Every master, by one slot that it has.
pub(super) async fn masters(pipe: &mut Pipe) -> Result<Vec<Master>, RedisError> {
    let Pipe::Cluster(_) = pipe else { return Ok(vec![None]) };
    let mut masters = BTreeMap::new();
    for (first, _, name) in slots(pipe).await? {
        masters.entry(name).or_insert(Some(first));
    }
    // Without any, nothing would be found, a lease that holds neither.
    if masters.is_empty() { Err(nonsense()) } else { Ok(masters.into_values().collect()) }
}

/// One step: keys like `pattern`, and where to go on; none: that was all of this master.
pub(super) async fn step(
    pipe: &mut Pipe,
    master: Master,
    cursor: &[u8],
    pattern: &str,
) -> Result<(Vec<Vec<u8>>, Option<Vec<u8>>), RedisError> {
    let mut scan = cmd("SCAN");
    scan.arg(if cursor.is_empty() { FIRST } else { cursor }).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
    let answer = match master {
        None => pipe.ask(&scan).await?,
        Some(slot) => {
            let route = SingleNodeRoutingInfo::SpecificNode(Route::new(slot, SlotAddr::Master));
            pipe.ask_at(scan, RoutingInfo::SingleNode(route)).await?
        }
    };
    let Value::Array(fields) = answer else { return Err(nonsense()) };
    let [Value::BulkString(next), Value::Array(keys)] = fields.as_slice() else {
        return Err(nonsense());
    };
    let keys = keys.iter().filter_map(|key| match key {
        Value::BulkString(key) => Some(key.clone()),
        _ => None,
    });
    Ok((keys.collect(), (next != FIRST).then(|| next.clone())))
}

fn nonsense() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "an answer that no server gives").into()
}

/// The first key like `pattern` that is met on any master.
pub(super) async fn any(pipe: &mut Pipe, pattern: &str) -> Result<Option<Vec<u8>>, RedisError> {
    for master in masters(pipe).await? {
        let mut cursor = Vec::new();
        loop {
            let (keys, next) = step(pipe, master, &cursor, pattern).await?;
            if let Some(key) = keys.into_iter().next() {
                return Ok(Some(key));
            }
            match next {
                Some(next) => cursor = next,
                None => break,
            }
        }
    }
    Ok(None)
}

/// All keys like `pattern`, of all masters.
pub(super) async fn all(
    pipe: &mut Pipe,
    pattern: &str,
    mut found: impl FnMut(Vec<u8>),
) -> Result<(), RedisError> {
    for master in masters(pipe).await? {
        let mut cursor = Vec::new();
        loop {
            let (keys, next) = step(pipe, master, &cursor, pattern).await?;
            keys.into_iter().for_each(&mut found);
            match next {
                Some(next) => cursor = next,
                None => break,
            }
        }
    }
    Ok(())
}
