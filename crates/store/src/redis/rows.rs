//! Rows: look up, change, list.

use futures_util::future::{join_all, try_join_all};
use tempalias_alias::{KeptState, KeyId, LimitChange, RETENTION, RowKey, UnixTime};

use super::Core;
use super::claims::{DEADLINE, first_word};
use super::fault::Fault;
use super::keys::{BUCKETS, OwnerText, bucket_of};
use super::reply::{Fields, found, nonsense, or_empty};
use super::script::{CHANGE, FIND, NEED, PAGE};
use crate::{Change, Found, Listed, ROW_RETENTION, StoreError};

/// The longest page.
const PAGE_LENGTH: usize = 1000;
/// Buckets asked at once for a page.
const BUCKETS_AT_ONCE: u16 = 64;
/// What is noted of a server key is rounded up by this much, so that not every alias needs a note.
const NOTE_STEP: u64 = 24 * 3600 * 1000;

impl Core {
    /// Looks every key up at once, whatever the first ones say.
    pub(super) async fn find(&self, keys: &[RowKey]) -> Result<Option<Found>, StoreError> {
        let looks = join_all(keys.iter().map(|&key| self.find_one(key))).await;
        let found: Vec<_> = looks.into_iter().collect::<Result<_, _>>()?;
        Ok(found.into_iter().flatten().next())
    }

    pub(super) async fn find_one(&self, key: RowKey) -> Result<Option<Found>, StoreError> {
        found(key, self.run_on(key, &FIND, &[&key.0]).await?).map(|(_, found)| found)
    }

    pub(super) async fn change(&self, key: RowKey, change: &Change) -> Result<Option<Found>, StoreError> {
        self.expect_replicas(&self.names.row(key))?;
        let mut args = vec![millis(Some(self.now().plus(DEADLINE)))];
        args.extend(match change {
            Change::Limits(limits) => {
                self.note_longer(key, limits).await?;
                vec![b"limits".to_vec(), millis(limits.valid_until), or_empty(limits.max_usage)]
            }
            Change::Pause => vec![b"pause".to_vec()],
            Change::Resume => vec![b"resume".to_vec()],
            Change::Remove => vec![b"remove".to_vec(), RETENTION.as_millis().to_string().into_bytes()],
            Change::FreeHeld => self.freeing(key).await?,
        });
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let answered = self.insist_on(key, None, &CHANGE, &args).await?;
        match first_word(answered.value)?.as_str() {
            "none" => Ok(None),
            "late" => Err(StoreError::Timeout),
            _ => {
                self.require(answered.is_durable)?;
                self.find_one(key).await
            }
        }
    }

    /// What to free, and who is dead: a live node's claims in flight stay.
    async fn freeing(&self, key: RowKey) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut args = vec![b"free".to_vec()];
        let Some(found) = self.find_one(key).await? else { return Ok(args) };
        let in_flight = found.ledger.kept.iter().filter(|kept| kept.state == KeptState::InFlight);
        let owners = in_flight.map(|kept| kept.attempt.owner).collect();
        args.extend(
            self.dead_of(owners).await?.into_iter().map(|owner| OwnerText(owner).to_string().into_bytes()),
        );
        Ok(args)
    }

    /// A longer life of a row lengthens the need for the key that sealed it. Noted first: after a crash in between the
    /// key is merely kept longer than needed.
    async fn note_longer(&self, key: RowKey, limits: &LimitChange) -> Result<(), StoreError> {
        let Some(until) = limits.valid_until else { return Ok(()) };
        let sealed_by = self.ask(redis::cmd("HGET").arg(self.names.row(key)).arg("k")).await?;
        let id = Fields::of(redis::Value::Array(vec![sealed_by]))?.bytes()?;
        match id.try_into() {
            Ok(id) => self.note_key(KeyId(id), Some(until)).await,
            Err(_) => Ok(()),
        }
    }

    /// Notes that a row sealed under `id` may be looked up until its retention after `until` is over; none: for ever.
    pub(super) async fn note_key(&self, id: KeyId, until: Option<UnixTime>) -> Result<(), StoreError> {
        let until = need_until(until);
        let is_noted =
            |noted: &std::collections::BTreeMap<_, _>| noted.get(&id).is_some_and(|noted| *noted >= until);
        if self.noted.lock().is_ok_and(|noted| is_noted(&noted)) {
            return Ok(());
        }
        self.run(&NEED, &[self.names.server_keys()], &[&id.0, &millis(Some(until))]).await?;
        if let Ok(mut noted) = self.noted.lock() {
            noted.insert(id, until);
        }
        Ok(())
    }

    pub(super) async fn list(&self, after: Option<RowKey>, limit: usize) -> Result<Vec<Listed>, StoreError> {
        let rows = self.page(after, limit.min(PAGE_LENGTH)).await?;
        Ok(rows.into_iter().map(Listed::from).collect())
    }

    /// The rows after `after` in the order of their keys.
    pub(super) async fn page(&self, after: Option<RowKey>, limit: usize) -> Result<Vec<Found>, StoreError> {
        let mut rows = Vec::new();
        let mut bucket = after.map_or(0, bucket_of);
        while rows.len() < limit && bucket < BUCKETS {
            let end = (bucket + BUCKETS_AT_ONCE).min(BUCKETS);
            let pages = try_join_all((bucket..end).map(|bucket| self.keys_of(bucket, after, limit))).await?;
            let mut keys = pages.concat();
            keys.truncate(limit - rows.len());
            // A row whose retention is over is not there, although the index still has it.
            rows.extend(
                try_join_all(keys.into_iter().map(|key| self.find_one(key))).await?.into_iter().flatten(),
            );
            bucket = end;
        }
        Ok(rows)
    }

    /// Row keys of one bucket in order, after `after`.
    pub(super) async fn keys_of(
        &self,
        bucket: u16,
        after: Option<RowKey>,
        limit: usize,
    ) -> Result<Vec<RowKey>, Fault> {
        let from = match after {
            Some(after) if bucket_of(after) == bucket => [b"(", &after.0[..]].concat(),
            // Behind the empty name, which is no row.
            _ => b"(".to_vec(),
        };
        let limit = limit.to_string();
        let args = [from.as_slice(), limit.as_bytes()];
        let answered = self.try_in(bucket, &PAGE, &[self.names.index(bucket)], &args).await?;
        let mut fields = Fields::of(answered.value)?;
        let mut keys = Vec::new();
        while !fields.is_empty() {
            keys.push(RowKey(fields.exactly().map_err(|_| nonsense())?));
        }
        Ok(keys)
    }
}

/// Until when a key is needed for rows that end at `until`; none: for ever.
pub(super) fn need_until(until: Option<UnixTime>) -> UnixTime {
    until.map_or(FOR_EVER, |until| {
        UnixTime::from_millis(until.plus(ROW_RETENTION).millis().next_multiple_of(NOTE_STEP))
    })
}

/// What outlives every key.
const FOR_EVER: UnixTime = UnixTime::from_millis(1 << 52);

/// A time as scripts have it.
pub(super) fn millis(time: Option<UnixTime>) -> Vec<u8> {
    or_empty(time.map(UnixTime::millis))
}
