//! Indexes made to say what is there, after a loss that an operator accepts: from then on an alias that is gone does not
//! exist, and one whose index is gone is listed again.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use redis::{RedisError, Value, cmd};
use tempalias_alias::RowKey;

use super::keys::{BUCKETS, Names, bucket_of};
use super::link::Pipe;
use super::reply::text;
use super::scan;
use super::script::TIDY;

/// Rows that one script looks at.
const STEP: usize = 100;
/// Calls on their way at once.
const AT_ONCE: usize = 64;

/// How many rows the indexes had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rows {
    /// Those that are gone.
    pub(super) gone: u64,
    /// Those that are there.
    pub(super) left: u64,
}

/// Forgets rows that are gone.
pub(super) async fn forget_what_is_gone(pipe: &Pipe, names: &Names) -> Result<Rows, RedisError> {
    let buckets: Vec<Rows> = stream::iter((0..BUCKETS).map(|bucket| of_bucket(pipe.clone(), names, bucket)))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let (gone, left) = buckets.iter().fold((0, 0), |(gone, left), rows| (gone + rows.gone, left + rows.left));
    Ok(Rows { gone, left })
}

async fn of_bucket(mut pipe: Pipe, names: &Names, bucket: u16) -> Result<Rows, RedisError> {
    let index = names.index(bucket);
    let (mut rows, mut from) = (Rows::default(), b"(".to_vec());
    loop {
        let mut range = cmd("ZRANGEBYLEX");
        range.arg(&index).arg(&from).arg("+").arg("LIMIT").arg(0).arg(STEP);
        let Value::Array(listed) = pipe.ask(&range).await? else { return Ok(rows) };
        let keys: Vec<RowKey> = listed.iter().filter_map(row_of_bytes).collect();
        let Some(last) = keys.last() else { return Ok(rows) };
        let gone = tidy(&mut pipe, names, bucket, &keys).await?;
        rows.gone += gone;
        rows.left += (keys.len() as u64).saturating_sub(gone);
        from = [b"(", &last.0[..]].concat();
    }
}

/// Puts every row that stands there into its index.
pub(super) async fn list_again(pipe: &mut Pipe, names: &Names) -> Result<(), RedisError> {
    for master in scan::masters(pipe).await? {
        let mut cursor = Vec::new();
        loop {
            let (keys, next) = scan::step(pipe, master, &cursor, &names.rows()).await?;
            let mut buckets: BTreeMap<u16, Vec<RowKey>> = BTreeMap::new();
            for row in keys.iter().filter_map(|key| row_of_name(key)) {
                buckets.entry(bucket_of(row)).or_default().push(row);
            }
            for (bucket, rows) in buckets {
                for some in rows.chunks(STEP) {
                    tidy(pipe, names, bucket, some).await?;
                }
            }
            match next {
                Some(next) => cursor = next,
                None => break,
            }
        }
    }
    Ok(())
}

async fn tidy(pipe: &mut Pipe, names: &Names, bucket: u16, rows: &[RowKey]) -> Result<u64, RedisError> {
    let mut keys = vec![names.index(bucket)];
    keys.extend(rows.iter().map(|&row| names.row(row)));
    let args: Vec<&[u8]> = rows.iter().map(|row| &row.0[..]).collect();
    let gone = pipe.run(&TIDY, &keys, &args).await?;
    Ok(text(&gone).parse().unwrap_or_default())
}

fn row_of_bytes(value: &Value) -> Option<RowKey> {
    match value {
        Value::BulkString(bytes) => bytes.as_slice().try_into().ok().map(RowKey),
        _ => None,
    }
}

/// The row of a key `…:row:HEX`.
fn row_of_name(name: &[u8]) -> Option<RowKey> {
    let (_, digits) = std::str::from_utf8(name).ok()?.rsplit_once(':')?;
    u128::from_str_radix(digits, 16).ok().map(|key| RowKey(key.to_be_bytes()))
}
