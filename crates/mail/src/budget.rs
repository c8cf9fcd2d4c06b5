//! The one memory budget for messages, shared by all sessions.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// Memory is counted in pieces of this many octets, each chunk rounded up.
const UNIT: u64 = 1024;
/// How long a chunk in the middle of a message waits for memory before the message is given up.
const CHUNK_WAIT: Duration = Duration::from_secs(10);
/// How often the first of those that have not begun looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What must be free before a message may begin.
const BEGINNING: u64 = 64 * 1024;

/// The budget.
#[derive(Debug)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    /// One place: the head of the line of those that have not begun.
    newcomers: Semaphore,
    all: u32,
}

/// What one message holds of the budget; gives it back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    permit: Option<OwnedSemaphorePermit>,
    /// Octets granted in advance and not yet used.
    spare: u64,
}

impl Budget {
    pub(crate) fn new(octets: u64) -> Self {
        // A semaphore counts far enough for terabytes.
        let all = u32::try_from(octets / UNIT).unwrap_or(u32::MAX).max(1);
        Self { units: Arc::new(Semaphore::new(all as usize)), newcomers: Semaphore::new(1), all }
    }

    /// Octets in use.
    pub(crate) fn used(&self) -> u64 {
        let free = u64::try_from(self.units.available_permits()).unwrap_or(u64::MAX);
        u64::from(self.all).saturating_sub(free) * UNIT
    }

    /// Waits until a message may begin; its first octets are then granted. Newcomers wait in a line of their own,
    /// behind every message that is already coming in: those hold what they have until they get the rest.
    pub(crate) async fn begin(&self) -> Share {
        let units = u32::try_from(BEGINNING / UNIT).unwrap_or(1).min(self.all);
        let _first_in_line = self.newcomers.acquire().await;
        loop {
            match self.units.clone().try_acquire_many_owned(units) {
                Ok(permit) => return Share { permit: Some(permit), spare: u64::from(units) * UNIT },
                Err(_) => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Grants room for one more chunk of a message; waits a while for it. False: there is none.
    pub(crate) async fn grow(&self, share: &mut Share, octets: usize) -> bool {
        let octets = octets as u64;
        if share.spare >= octets {
            share.spare -= octets;
            return true;
        }
        let Ok(units) = u32::try_from((octets - share.spare).div_ceil(UNIT)) else { return false };
        let Ok(Ok(more)) = timeout(CHUNK_WAIT, self.units.clone().acquire_many_owned(units)).await else {
            return false;
        };
        share.spare = share.spare + u64::from(units) * UNIT - octets;
        match &mut share.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_gets_memory_until_there_is_none_and_gives_it_back() {
        let budget = Budget::new(128 * 1024);
        let mut first = budget.begin().await;
        assert_eq!(budget.used(), 64 * 1024);
        assert!(budget.grow(&mut first, 64 * 1024).await, "the beginning is granted already");
        assert_eq!(budget.used(), 64 * 1024);
        assert!(budget.grow(&mut first, 64 * 1024).await);
        assert_eq!(budget.used(), 128 * 1024);
        assert!(!budget.grow(&mut first, 1).await, "nothing is left");
        assert!(timeout(Duration::from_secs(60), budget.begin()).await.is_err());
        drop(first);
        assert_eq!(budget.used(), 0);
        assert!(timeout(Duration::from_secs(60), budget.begin()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_in_progress_goes_before_newcomers() {
        let budget = Arc::new(Budget::new(128 * 1024));
        let (mut first, second) = (budget.begin().await, budget.begin().await);
        let newcomer = tokio::spawn({
            let budget = budget.clone();
            async move { budget.begin().await }
        });
        sleep(Duration::from_millis(50)).await;
        let growing = tokio::spawn({
            let budget = budget.clone();
            async move {
                let grown = budget.grow(&mut first, 128 * 1024).await;
                (grown, first)
            }
        });
        sleep(Duration::from_millis(50)).await;
        drop(second);
        let (grown, first) = growing.await.unwrap();
        assert!(grown, "the memory that became free is for the message that had begun");
        assert!(!newcomer.is_finished());
        drop(first);
        drop(newcomer.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_granted_in_advance_counts() {
        let budget = Budget::new(256 * 1024);
        let mut share = budget.begin().await;
        assert!(budget.grow(&mut share, 40_000).await);
        assert!(budget.grow(&mut share, 60_000).await);
        assert_eq!(budget.used(), 98 * 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn one_octet_at_a_time_is_not_counted_as_a_kilobyte_each() {
        let budget = Budget::new(128 * 1024);
        let mut share = budget.begin().await;
        for _ in 0..100 * 1024 {
            assert!(budget.grow(&mut share, 1).await);
        }
        assert_eq!(budget.used(), 100 * 1024);
    }
}
