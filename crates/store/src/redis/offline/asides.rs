//! Replies and rate limits, each in a slot of its own.

use redis::{RedisError, Value, cmd};
use tempalias_alias::{ClientTag, RowKey, Sealed, UnixTime};

use super::{RedisOffline, gently, overtaken};
use crate::copy::{Aside, Cursor};
use crate::redis::keys::Hex;
use crate::redis::link::Pipe;
use crate::redis::reply::text;
use crate::redis::scan;
use crate::redis::script::BRING_REPLY;
use crate::{Idempotent, StoreError};

impl RedisOffline {
    /// Keys of both kinds as the servers' own iteration gives them, one master after another.
    pub(crate) async fn asides(
        &self,
        from: Option<Cursor>,
    ) -> Result<(Vec<Aside>, Option<Cursor>), StoreError> {
        let Cursor { part, place } = from.unwrap_or(Cursor { part: 0, place: Vec::new() });
        self.insist(async |mut pipe| {
            let masters = scan::masters(&mut pipe).await?;
            let Some(&master) = masters.get(part) else { return Ok((Vec::new(), None)) };
            let (keys, next) = scan::step(&mut pipe, master, &place, &self.names.pattern("[or]*")).await?;
            let read = keys.iter().filter_map(|key| Name::of(key)).map(|name| self.read(pipe.clone(), name));
            let asides = gently(read).await?.into_iter().flatten().collect();
            let next = match next {
                Some(place) => Some(Cursor { part, place }),
                None if part + 1 < masters.len() => Some(Cursor { part: part + 1, place: Vec::new() }),
                None => None,
            };
            Ok((asides, next))
        })
        .await
    }

    /// These stand in no bucket, where the run's marker would shut out one that was overtaken.
    pub(crate) async fn put_asides(&self, asides: Vec<Aside>) -> Result<(), StoreError> {
        if !self.is_ours().await? {
            return Err(overtaken());
        }
        self.insist(async |pipe| {
            gently(asides.iter().map(|aside| self.put_aside(pipe.clone(), aside))).await.map(drop)
        })
        .await
    }

    pub(crate) async fn asides_like(&self, names: Vec<Aside>) -> Result<Vec<Option<Aside>>, StoreError> {
        self.insist(async |pipe| {
            let names = names.iter().map(|aside| match aside {
                Aside::Reply { name, .. } => Name::Once(*name),
                Aside::Rate { tag, .. } => Name::Rate(*tag),
            });
            gently(names.map(|name| self.read(pipe.clone(), name))).await
        })
        .await
    }

    async fn read(&self, pipe: Pipe, name: Name) -> Result<Option<Aside>, RedisError> {
        match name {
            Name::Once(name) => self.read_reply(pipe, name).await,
            Name::Rate(tag) => {
                let full_at = {
                    let mut pipe = pipe;
                    pipe.ask(cmd("GET").arg(self.names.rate(tag))).await?
                };
                Ok(time(&full_at).map(|full_at| Aside::Rate { tag, full_at }))
            }
        }
    }

    /// A row that was being made when its node died, and was not: nobody was told of it, and the request makes it
    /// anew. If the row stands the reply is good.
    async fn read_reply(&self, mut pipe: Pipe, name: ClientTag) -> Result<Option<Aside>, RedisError> {
        let mut ask = cmd("HMGET");
        ask.arg(self.names.once(name)).arg(&["until", "body", "reply", "row"]);
        let Value::Array(fields) = pipe.ask(&ask).await? else { return Ok(None) };
        let [at, Value::BulkString(body), Value::BulkString(reply), row] = fields.as_slice() else {
            return Ok(None);
        };
        let Ok(body) = body.as_slice().try_into().map(ClientTag) else { return Ok(None) };
        let Some(until) = time(at) else { return Ok(None) };
        if let Value::BulkString(row) = row {
            let Ok(row) = row.as_slice().try_into().map(RowKey) else { return Ok(None) };
            let maker = pipe.ask(cmd("HGET").arg(self.names.row(row)).arg("o")).await?;
            if text(&maker) != format!("{}:{}", Hex(&name.0), text(at)) {
                return Ok(None);
            }
        }
        let reply = Idempotent { body, reply: Sealed(reply.as_slice().into()) };
        Ok(Some(Aside::Reply { name, reply, until }))
    }

    async fn put_aside(&self, mut pipe: Pipe, aside: &Aside) -> Result<(), RedisError> {
        match aside {
            Aside::Reply { name, reply, until } => {
                let until = until.millis().to_string();
                let args = [until.as_bytes(), &reply.body.0, &reply.reply.0];
                pipe.run(&BRING_REPLY, &[self.names.once(*name)], &args).await.map(drop)
            }
            Aside::Rate { tag, full_at } => {
                let full_at = full_at.millis();
                pipe.ask(cmd("SET").arg(self.names.rate(*tag)).arg(full_at).arg("PXAT").arg(full_at))
                    .await
                    .map(drop)
            }
        }
    }
}

/// One key of either kind.
enum Name {
    Once(ClientTag),
    Rate(ClientTag),
}

impl Name {
    /// The name behind `…:{once:` or `…:{rate:`; none: another kind of key.
    fn of(key: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?;
        let (kind, digits) = text.split_once(":{")?.1.strip_suffix('}')?.split_once(':')?;
        let tag = ClientTag(u128::from_str_radix(digits, 16).ok()?.to_be_bytes());
        match kind {
            "once" => Some(Self::Once(tag)),
            "rate" => Some(Self::Rate(tag)),
            _ => None,
        }
    }
}

fn time(value: &Value) -> Option<UnixTime> {
    text(value).parse().ok().map(UnixTime::from_millis)
}
