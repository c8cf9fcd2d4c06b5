//! Claims: asked of the script, and of the lease of whoever has the message in flight.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use redis::Value;
use tempalias_alias::{Answer, ClaimRequest, Fingerprint, MAX_DOUBTS, Owner, RETENTION, RowKey, UnixTime};

use super::Core;
use super::keys::{OwnerText, bucket_of_lease};
use super::reply::{Fields, claimed, outcome_word};
use super::script::{ACKNOWLEDGE, ALIVE, CLAIM, SETTLE};
use crate::{CALL_TIMEOUT, Claimed, Settlement, StoreError};

/// How late a call may be carried out, by the store's clock: longer than anybody waits for it, and no longer than a
/// node stops before its lease is over.
pub(super) const DEADLINE: Duration = CALL_TIMEOUT.saturating_add(Duration::from_millis(500));
/// For how long the store remembers that an attempt was judged: a copy of the call that comes later is past its
/// deadline.
const REMEMBERED: Duration = Duration::from_mins(1);
/// Dead owners that one claim may meet, one after another. There is one, unless nodes die while it is asked.
const MOST_DEAD: usize = 4;

impl Core {
    /// Each alias's claim is a step of its own: they may live on different servers. If one fails, all count as
    /// failed, and the caller gives back what was granted.
    pub(super) async fn claim(&self, requests: &[ClaimRequest]) -> Result<Vec<Claimed>, StoreError> {
        let answers = join_all(requests.iter().map(|request| self.claim_one(request))).await;
        answers.into_iter().collect()
    }

    async fn claim_one(&self, request: &ClaimRequest) -> Result<Claimed, StoreError> {
        if !request.was_counted
            && let Some(claimed) = self.peek(request).await?
        {
            return Ok(claimed);
        }
        let owner = request.attempt.owner;
        if !self.lease.may_send(owner) {
            return Err(StoreError::Failed("this node has lost its lease in the store".to_owned()));
        }
        self.expect_replicas(&self.names.row(request.row))?;
        let deadline = self.now().plus(DEADLINE);
        let mut dead = Vec::new();
        loop {
            let (claimed, whose, is_durable) = self.ask_claim(request, &dead, deadline).await?;
            match whose {
                Some(other) if other != owner && dead.len() < MOST_DEAD && self.is_dead(other).await? => {
                    dead.push(other);
                }
                _ => {
                    if matches!(claimed.answer, Answer::Granted | Answer::Again) {
                        self.require(is_durable)?;
                        self.lease.begun(request.attempt);
                    }
                    return Ok(claimed);
                }
            }
        }
    }

    /// The answer without a write, if it takes none.
    async fn peek(&self, request: &ClaimRequest) -> Result<Option<Claimed>, StoreError> {
        let Some(found) = self.find_one(request.row).await? else { return Ok(None) };
        let verdict = found.ledger.claim(request, found.now, |_| true);
        let is_final = matches!(verdict.answer, Answer::Uncounted | Answer::Over);
        let limits = Some(found.ledger.limits);
        Ok(is_final.then_some(Claimed { answer: verdict.answer, limits, used: verdict.used, now: found.now }))
    }

    /// The answer, whose claim stands in the way, and whether the answer is durable.
    async fn ask_claim(
        &self,
        request: &ClaimRequest,
        dead: &[Owner],
        deadline: UnixTime,
    ) -> Result<(Claimed, Option<Owner>, bool), StoreError> {
        let deadline = deadline.millis().to_string();
        let sender = format!("{:016x}", u64::from_be_bytes(request.sender.0));
        let owner = OwnerText(request.attempt.owner).to_string();
        let number = format!("{:x}", request.attempt.number);
        let retention = RETENTION.as_millis().to_string();
        let doubts = MAX_DOUBTS.to_string();
        let remembered = REMEMBERED.as_millis().to_string();
        let dead: Vec<String> = dead.iter().map(|&owner| OwnerText(owner).to_string()).collect();
        let identified: &[u8] = if request.identified { b"1" } else { b"0" };
        let mut args: Vec<&[u8]> = vec![
            &request.fingerprint.0,
            identified,
            sender.as_bytes(),
            owner.as_bytes(),
            number.as_bytes(),
            doubts.as_bytes(),
            retention.as_bytes(),
            deadline.as_bytes(),
            remembered.as_bytes(),
        ];
        args.extend(dead.iter().map(String::as_bytes));
        let answered = self.insist_on(request.row, Some(request.attempt), &CLAIM, &args).await?;
        let (claimed, whose) = claimed(answered.value)?;
        Ok((claimed, whose, answered.is_durable))
    }

    /// Whether the lease of `owner` has run out; it never holds again. An error where it is not
    /// known: the bucket that it stood in has lost its marker.
    ///
    /// Nobody is taken for dead while they may be about to tell how their mail ended: this node while it has something
    /// under way under that name, and all of them for a moment after an outage in which their leases may have run out, or after our own start, which may
    /// have come just behind one.
    pub(super) async fn is_dead(&self, owner: Owner) -> Result<bool, StoreError> {
        if self.lease.is_busy(owner) || self.link.is_fresh() {
            return Ok(false);
        }
        let answered = self.run_in(bucket_of_lease(owner), &ALIVE, &[self.names.lease(owner)], &[]).await?;
        Ok(answered.value == Value::Int(0))
    }

    pub(super) async fn settle(&self, settlements: &[Settlement]) -> Result<(), StoreError> {
        try_join_all(settlements.iter().map(|one| self.settle_one(one))).await.map(drop)
    }

    async fn settle_one(&self, settlement: &Settlement) -> Result<(), StoreError> {
        let owner = OwnerText(settlement.attempt.owner).to_string();
        let number = format!("{:x}", settlement.attempt.number);
        let remembered = REMEMBERED.as_millis().to_string();
        let outcome = outcome_word(settlement.outcome).as_bytes();
        let args = [owner.as_bytes(), number.as_bytes(), outcome, remembered.as_bytes()];
        drop(self.insist_on(settlement.row, Some(settlement.attempt), &SETTLE, &args).await?);
        self.lease.settled(settlement.attempt);
        Ok(())
    }

    pub(super) async fn acknowledge(&self, delivered: &[(RowKey, Fingerprint)]) -> Result<(), StoreError> {
        let deadline = self.now().plus(DEADLINE).millis().to_string();
        let deadline = deadline.as_bytes();
        let each = delivered.iter().map(|(row, message)| async move {
            self.run_on(*row, &ACKNOWLEDGE, &[&message.0, deadline]).await.map(drop)
        });
        try_join_all(each).await.map(drop)
    }

    /// Who of `owners` is dead.
    pub(super) async fn dead_of(&self, owners: Vec<Owner>) -> Result<Vec<Owner>, StoreError> {
        let asked = owners
            .into_iter()
            .map(|owner| async move { self.is_dead(owner).await.map(|dead| (owner, dead)) });
        let known = try_join_all(asked).await?;
        Ok(known.into_iter().filter(|(_, dead)| *dead).map(|(owner, _)| owner).collect())
    }
}

/// An answer that only says that it was done.
pub(super) fn first_word(answer: Value) -> Result<String, StoreError> {
    Fields::of(Value::Array(vec![answer]))?.text()
}
