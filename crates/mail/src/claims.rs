//! Telling the store how attempts ended, until it has heard.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tempalias_alias::{Attempt, Fingerprint, Outcome, RowKey};
use tempalias_store::Settlement;
use tokio::task::JoinHandle;

use crate::{Running, Shared};

/// First pause between tries; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After this many tries (about ten minutes) the claim is left as it is: in flight until we end, then in doubt.
const TRIES: u32 = 120;
/// Once the program wants to end: the next start finds the claim in doubt anyway.
const TRIES_AT_THE_END: u32 = 5;

/// The claims that a session has been given and not yet settled. If the session ends before it settles them, by a
/// panic, they end in doubt: nobody knows how far its message had come.
#[derive(Debug)]
pub(crate) struct Outstanding {
    shared: Arc<Shared>,
    /// Handed on to what goes on in the background, so that the end of the program waits for it.
    running: Running,
    attempts: Vec<(RowKey, Attempt)>,
    /// The last settling, for what must come after it.
    last: Option<JoinHandle<()>>,
}

impl Outstanding {
    pub(crate) fn new(shared: Arc<Shared>, running: Running) -> Self {
        Self { shared, running, attempts: vec![], last: None }
    }

    /// Claims were asked for.
    pub(crate) fn claimed(&mut self, attempts: impl Iterator<Item = (RowKey, Attempt)>) {
        self.attempts.extend(attempts);
    }

    /// The mail that they were asked for has ended: what was counted is settled, the rest was no claim.
    pub(crate) fn mail_ended(&mut self) {
        self.attempts.clear();
    }

    /// Settles, in the background, for as long as it takes. When this returns the store has been told, so that
    /// whatever is asked of it from now on is answered behind it.
    pub(crate) async fn settle(&mut self, settlements: Vec<Settlement>) {
        self.attempts.clear();
        self.last = in_background(settle(self.shared.clone(), self.running.clone(), settlements)).await;
    }

    /// Waits until the last settling is done. May be dropped: it goes on.
    pub(crate) async fn settled(&mut self) {
        if let Some(last) = &mut self.last {
            drop(last.await);
            self.last = None;
        }
    }

    /// Forgets delivered claims: behind their settling, since the store was told of that first.
    pub(crate) async fn acknowledge(&mut self, delivered: Vec<(RowKey, Fingerprint)>) {
        let (shared, running) = (self.shared.clone(), self.running.clone());
        let acknowledging = async move {
            // A lost acknowledgement only keeps the claim until its retention is over.
            drop(shared.parts.store.acknowledge(delivered).await);
            drop(running);
        };
        drop(in_background(acknowledging).await);
    }
}

/// Begins `work` here and now, and lets it go on in the background if it has to wait.
async fn in_background(work: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
    let mut work = Box::pin(work);
    let begun = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    begun.is_pending().then(|| tokio::spawn(work))
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        if self.attempts.is_empty() {
            return;
        }
        let lost = |(row, attempt)| Settlement { row, attempt, outcome: Outcome::Lost };
        let settlements = self.attempts.drain(..).map(lost).collect();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(settle(self.shared.clone(), self.running.clone(), settlements));
        }
    }
}

async fn settle(shared: Arc<Shared>, running: Running, settlements: Vec<Settlement>) {
    let mut pause = FIRST_PAUSE;
    for tries in 0..TRIES {
        if tries >= TRIES_AT_THE_END && *shared.draining.borrow() {
            break;
        }
        match shared.parts.store.settle(settlements.clone()).await {
            Ok(()) => break,
            Err(error) => tracing::warn!(%error, "a claim could not be settled yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    drop(running);
}
