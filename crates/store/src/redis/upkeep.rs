//! Rate limits, the sweep, and what `/readyz` looks at.

use std::sync::PoisonError;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::cmd;
use tempalias_alias::{ClientTag, Rate, RowKey};

use super::keys::BUCKETS;
use super::reply::Fields;
use super::script::{SWEEP, TAKE};
use super::{Core, markers};
use crate::{Health, StoreError, Swept, in_time, system_clock};

/// Rows that one script looks at: well under a millisecond of the server's time.
const STEP: usize = 100;
/// Rows that one sweep looks at before it leaves the rest for the next: with 30 million rows a whole round takes some
/// days, which only means that rows stay that much longer.
const ROWS_A_SWEEP: usize = 100_000;
/// Buckets written to, to see whether every master of a Cluster takes writes.
const PROBES: u16 = 32;

impl Core {
    pub(super) async fn take(&self, tag: ClientTag, rate: Rate) -> Result<Result<(), Duration>, StoreError> {
        let time = self.given_time();
        let (every, burst) = (rate.every.as_millis().to_string(), rate.burst.max(1).to_string());
        let args = [&*time, every.as_bytes(), burst.as_bytes()];
        let answer = self.run(&TAKE, &[self.names.rate(tag)], &args).await?;
        let wait = Fields::of(redis::Value::Array(vec![answer]))?.number()?;
        Ok(if wait == 0 { Ok(()) } else { Err(Duration::from_millis(wait)) })
    }

    /// Walks over rows, bucket by bucket, and lets go of those that have ended. What has an end of its own (claims,
    /// rate limits, replies) the server deletes by itself.
    pub(super) async fn sweep(&self) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        let mut seen = 0;
        let first = *self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        for step in 0..BUCKETS {
            let bucket = (first + step) % BUCKETS;
            let mut after = None;
            loop {
                let rows = in_time(self.listed(bucket, after)).await?;
                let Some(last) = rows.last() else { break };
                after = Some(*last);
                seen += rows.len();
                swept.rows += in_time(self.sweep_rows(bucket, &rows)).await?;
            }
            if seen >= ROWS_A_SWEEP {
                *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = (bucket + 1) % BUCKETS;
                break;
            }
        }
        Ok(swept)
    }

    /// The next rows of a bucket; none of one that is gone, wholly or partly: an operator has to look at it first.
    async fn listed(&self, bucket: u16, after: Option<RowKey>) -> Result<Vec<RowKey>, StoreError> {
        match self.keys_of(bucket, after, STEP).await {
            Err(fault) if fault.is_lost => Ok(Vec::new()),
            listed => Ok(listed?),
        }
    }

    async fn sweep_rows(&self, bucket: u16, rows: &[RowKey]) -> Result<usize, StoreError> {
        let mut keys = vec![self.names.index(bucket)];
        keys.extend(rows.iter().map(|&row| self.names.row(row)));
        let clock = self.options.clock.clone().unwrap_or_else(system_clock);
        let ours = clock().millis().to_string();
        let mut args: Vec<&[u8]> = vec![ours.as_bytes()];
        args.extend(rows.iter().map(|row| &row.0[..]));
        let answered = self.run_in(bucket, &SWEEP, &keys, &args).await?;
        Fields::of(redis::Value::Array(vec![answered.value]))?.number()
    }

    pub(super) async fn check(&self) -> Health {
        let (reader, writer) = tokio::join!(in_time(self.check_reading()), in_time(self.check_writing()));
        Health { reader, writer }
    }

    /// Whether every part of the store is there.
    async fn check_reading(&self) -> Result<(), StoreError> {
        let (pipes, generation) = self.link.pipes()?;
        let seen = match markers::read(&pipes.all, &self.names).await {
            Ok(seen) => seen,
            Err(error) => {
                return Err(self
                    .link
                    .judge::<()>(generation, Err(error))
                    .map_or_else(Into::into, |()| StoreError::Closed));
            }
        };
        match seen.fault(&pipes.marker) {
            None => Ok(()),
            Some(why) => Err(StoreError::Failed(why)),
        }
    }

    /// Whether writes are taken, and this node counts as alive.
    async fn check_writing(&self) -> Result<(), StoreError> {
        let probes = if self.options.address.is_cluster() { PROBES } else { 1 };
        let now = self.given_time();
        try_join_all((0..probes).map(|probe| {
            let name = self.names.probe(probe * (BUCKETS / PROBES));
            let now = &now;
            async move { self.ask(cmd("SET").arg(name).arg(now.as_slice())).await }
        }))
        .await?;
        self.check_replicas(0).await?;
        if self.lease.may_send(self.lease.owner().0) {
            Ok(())
        } else {
            Err(StoreError::Failed("this node could not renew its lease".to_owned()))
        }
    }
}
