//! One call: which connection, which marker, how often to ask.

use std::time::Duration;

use redis::{Cmd, Value};
use tempalias_alias::{Attempt, RowKey};

use super::Core;
use super::fault::Fault;
use super::keys::bucket_of;
use super::link::{Pipe, Pipes};
use super::replicas::Answered;
use super::script::Script;
use crate::StoreError;

/// Between two tries of a call that may be repeated.
const PAUSE: Duration = Duration::from_millis(50);

impl Core {
    /// One plain command, once.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, StoreError> {
        let (pipes, generation) = self.link.pipes()?;
        let answer = pipes.all.clone().ask(command).await;
        self.link.judge(generation, answer).map_err(|fault| fault.error)
    }

    /// A script that is about no alias, once.
    pub(super) async fn run(
        &self,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<Value, StoreError> {
        let (pipes, generation) = self.link.pipes()?;
        let answer = pipes.all.clone().run(script, keys, args).await;
        self.link.judge(generation, answer).map_err(|fault| fault.error)
    }

    /// The same for one that writes what replicas must have, on the connection of `part`.
    pub(super) async fn run_durably(
        &self,
        part: u16,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<Answered, StoreError> {
        let (pipes, generation) = self.link.pipes()?;
        let waiting = pipes.waiting.pipe(part);
        self.run_on_pipe((&pipes, generation), waiting, script, keys, args).await.map_err(|fault| fault.error)
    }

    /// A script in a bucket, once: `keys` come behind the marker's, `args` behind what it must say and the time.
    pub(super) async fn run_in(
        &self,
        bucket: u16,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<Answered, StoreError> {
        self.try_in(bucket, script, keys, args).await.map_err(|fault| fault.error)
    }

    /// The same about one alias: its row, its claims and the index are the keys.
    pub(super) async fn run_on(
        &self,
        row: RowKey,
        script: &Script,
        args: &[&[u8]],
    ) -> Result<Value, StoreError> {
        let bucket = bucket_of(row);
        let keys = [self.names.row(row), self.names.claims(row), self.names.index(bucket)];
        self.run_in(bucket, script, &keys, args).await.map(|answered| answered.value)
    }

    /// The same about one attempt, asked again while there is no answer, for what changes nothing the second time. The
    /// caller bounds it. In a longer outage there is no waiting.
    pub(super) async fn insist_on(
        &self,
        row: RowKey,
        attempt: Option<Attempt>,
        script: &Script,
        args: &[&[u8]],
    ) -> Result<Answered, StoreError> {
        let mut keys = vec![self.names.row(row), self.names.claims(row)];
        keys.extend(attempt.map(|attempt| self.names.judged(row, attempt)));
        keys.push(self.names.index(bucket_of(row)));
        loop {
            match self.try_in(bucket_of(row), script, &keys, args).await {
                Err(fault) if fault.passes && self.link.is_back_soon() => {
                    tokio::time::sleep(PAUSE).await;
                }
                answered => return answered.map_err(|fault| fault.error),
            }
        }
    }

    /// The same, with what its failure means for another try.
    pub(super) async fn try_in(
        &self,
        bucket: u16,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<Answered, Fault> {
        let (pipes, generation) = self.link.pipes()?;
        let waiting = if script.is_waited_for() { pipes.waiting.pipe(bucket) } else { None };
        let mut all_keys = Vec::with_capacity(keys.len() + 1);
        all_keys.push(self.names.marker(bucket));
        all_keys.extend_from_slice(keys);
        let time = self.given_time();
        let mut all_args: Vec<&[u8]> = Vec::with_capacity(args.len() + 2);
        all_args.push(pipes.marker.as_bytes());
        all_args.push(&time);
        all_args.extend_from_slice(args);
        let answered = self.run_on_pipe((&pipes, generation), waiting, script, &all_keys, &all_args).await;
        let is_away = answered.as_ref().is_err_and(|fault| fault.error.is_of_an_outage());
        self.link.note_part(bucket, is_away);
        answered
    }

    /// A script, where replicas are waited for if the call has a connection for that.
    async fn run_on_pipe(
        &self,
        (pipes, generation): (&Pipes, u64),
        waiting: Option<Pipe>,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<Answered, Fault> {
        let Some(mut waiting) = waiting else {
            let answer = pipes.all.clone().run(script, keys, args).await;
            return Ok(Answered { value: self.link.judge(generation, answer)?, is_durable: true });
        };
        let answer = waiting.run_and_wait(script, keys, args, self.options.wait_replicas).await;
        self.waited((pipes, generation), keys.first().map_or("", String::as_str), answer)
    }
}
