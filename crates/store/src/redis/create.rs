//! Making rows. With an Idempotency-Key two slots are written, one after the other: first the reply with the row that is
//! being made, then the row, then that it is made. Whoever comes after a crash finishes what stands there, so that one
//! request makes one row; before the first step nothing happened, and nobody was told.

use futures_util::future::try_join_all;
use tempalias_alias::{ClientTag, KeyId, RowKey, Sealed};

use super::Core;
use super::claims::first_word;
use super::keys::{Hex, bucket_of};
use super::replicas::Answered;
use super::reply::{Fields, nonsense, or_empty};
use super::rows::millis;
use super::script::{CONFIRM, CREATE, RESERVE};
use crate::{Created, IDEMPOTENCY_RETENTION, Idempotent, NewRow, Once, StoreError};

/// Who makes a row: the name of the request, and until when that name is reserved. A row tells it, so that a second
/// making of the same is no clash. Empty: nobody who could come again.
#[derive(Default)]
struct Maker(String);

impl Maker {
    fn of(name: ClientTag, until: &str) -> Self {
        Self(format!("{}:{until}", Hex(&name.0)))
    }
}

/// Names, too, are spread over the connections that wait for replicas.
fn part_of(name: ClientTag) -> u16 {
    let [first, ..] = name.0;
    u16::from(first)
}

/// What stands under an Idempotency-Key.
enum Reserved {
    Nothing,
    /// Reserved for us just now.
    New(Maker),
    Done(Idempotent),
    /// A row was being made, and nobody knows how that ended.
    Pending(Idempotent, Maker, Box<NewRow>),
}

impl Core {
    pub(super) async fn create(
        &self,
        row: NewRow,
        also_free: &[RowKey],
        once: Option<Once>,
    ) -> Result<Created, StoreError> {
        if self.is_any_taken(also_free).await? {
            return match &once {
                // The reply of an earlier request comes before a clash of this one.
                Some(once) => {
                    Ok(self.idempotent_reply(once.name).await?.map_or(Created::Clash, Created::Replayed))
                }
                None => Ok(Created::Clash),
            };
        }
        self.expect_replicas(&self.names.row(row.key))?;
        let Some(once) = once else { return self.make(&row, &Maker::default()).await };
        match self.reserve(once.name, Some((&once.reply, &row))).await? {
            Reserved::Done(reply) => Ok(Created::Replayed(reply)),
            Reserved::Pending(reply, maker, row) => self.finish(once.name, reply, &maker, &row).await,
            Reserved::New(maker) => {
                let made = self.make(&row, &maker).await?;
                self.confirm(once.name, row.key, &made).await?;
                Ok(made)
            }
            Reserved::Nothing => Err(nonsense()),
        }
    }

    pub(super) async fn idempotent_reply(&self, name: ClientTag) -> Result<Option<Idempotent>, StoreError> {
        match self.reserve(name, None).await? {
            Reserved::Nothing | Reserved::New(_) => Ok(None),
            Reserved::Done(reply) => Ok(Some(reply)),
            Reserved::Pending(reply, maker, row) => match self.finish(name, reply, &maker, &row).await? {
                Created::Replayed(reply) => Ok(Some(reply)),
                Created::Done | Created::Clash => Ok(None),
            },
        }
    }

    /// Makes the row that an earlier request was about to make. If its name is taken, that request never made
    /// anything: its caller has drawn another name, or is gone.
    async fn finish(
        &self,
        name: ClientTag,
        reply: Idempotent,
        maker: &Maker,
        row: &NewRow,
    ) -> Result<Created, StoreError> {
        let made = self.make(row, maker).await?;
        self.confirm(name, row.key, &made).await?;
        Ok(if made == Created::Done { Created::Replayed(reply) } else { Created::Clash })
    }

    async fn is_any_taken(&self, keys: &[RowKey]) -> Result<bool, StoreError> {
        let found = try_join_all(keys.iter().map(|&key| self.find_one(key))).await?;
        Ok(found.iter().any(Option::is_some))
    }

    async fn make(&self, row: &NewRow, maker: &Maker) -> Result<Created, StoreError> {
        // Before the row: a crash in between keeps a key listed that is not needed, and loses nothing.
        self.note_key(row.key_id, row.limits.valid_until).await?;
        let bucket = bucket_of(row.key);
        let keys = [self.names.row(row.key), self.names.index(bucket)];
        let (max, from, until) =
            (or_empty(row.limits.max_usage), millis(row.limits.valid_from), millis(row.limits.valid_until));
        let args: [&[u8]; 7] =
            [&row.key.0, &row.key_id.0, &max, &from, &until, &row.sealed.0, maker.0.as_bytes()];
        let answered = self.run_in(bucket, &CREATE, &keys, &args).await?;
        match first_word(answered.value)?.as_str() {
            "made" => self.require(answered.is_durable).map(|()| Created::Done),
            "clash" => Ok(Created::Clash),
            _ => Err(nonsense()),
        }
    }

    async fn reserve(
        &self,
        name: ClientTag,
        new: Option<(&Idempotent, &NewRow)>,
    ) -> Result<Reserved, StoreError> {
        let time = self.given_time();
        let retention = IDEMPOTENCY_RETENTION.as_millis().to_string();
        let mut args: Vec<&[u8]> = vec![&time];
        let numbers;
        if let Some((reply, row)) = new {
            let limits = row.limits;
            numbers = [or_empty(limits.max_usage), millis(limits.valid_from), millis(limits.valid_until)];
            args.extend([retention.as_bytes(), &reply.body.0, &reply.reply.0, &row.key.0, &row.key_id.0]);
            args.extend(numbers.iter().map(Vec::as_slice));
            args.push(&row.sealed.0);
        }
        let keys = [self.names.once(name)];
        let answered = match new {
            Some(_) => self.run_durably(part_of(name), &RESERVE, &keys, &args).await?,
            None => Answered { value: self.run(&RESERVE, &keys, &args).await?, is_durable: true },
        };
        let mut fields = Fields::of(answered.value)?;
        let word = fields.text()?;
        if word != "done" {
            self.require(answered.is_durable)?;
        }
        match word.as_str() {
            "none" => return Ok(Reserved::Nothing),
            "new" => return Ok(Reserved::New(Maker::of(name, &fields.text()?))),
            _ => {}
        }
        let maker = Maker::of(name, &fields.text()?);
        let reply = Idempotent { body: ClientTag(fields.exactly()?), reply: Sealed(fields.bytes()?.into()) };
        if word == "done" {
            return Ok(Reserved::Done(reply));
        }
        let (key, key_id) = (RowKey(fields.exactly()?), KeyId(fields.exactly()?));
        let limits = fields.limits()?;
        let sealed = Sealed(fields.bytes()?.into());
        Ok(Reserved::Pending(reply, maker, Box::new(NewRow { key, key_id, limits, sealed })))
    }

    /// Says how the making ended. If this is lost the next one under the name does it all again, to the same end.
    async fn confirm(&self, name: ClientTag, row: RowKey, made: &Created) -> Result<(), StoreError> {
        let how: &[u8] = if *made == Created::Done { b"made" } else { b"clash" };
        match self.run(&CONFIRM, &[self.names.once(name)], &[&row.0, how]).await {
            Ok(_) => Ok(()),
            // The row stands, and so does the reply: whoever asks again gets it.
            Err(_) if *made == Created::Done => Ok(()),
            Err(error) => Err(error),
        }
    }
}
