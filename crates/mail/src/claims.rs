//! Telling the store how attempts ended, until it has heard.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tempalias_alias::{Attempt, ClaimRequest, Fingerprint, Outcome, RowKey};
use tempalias_store::{Settlement, StoreError};
use tokio::task::JoinHandle;

use crate::backlog::Place;
use crate::{Running, Shared};

/// The claims that a session has been given and not yet settled. If the session ends before it settles them, by a
/// panic, they end in doubt: nobody knows how far its message had come.
#[derive(Debug)]
pub(crate) struct Outstanding {
    shared: Arc<Shared>,
    /// Handed on to what goes on in the background, so that the end of the program waits for it.
    running: Running,
    attempts: Vec<(RowKey, Attempt)>,
    /// Room in the backlog for the settlements of the mail that asked.
    place: Option<Place>,
    /// Whether there was none, so that this mail has asked for nothing.
    has_not_asked: bool,
    /// The last settling, for what must come after it.
    last: Option<JoinHandle<()>>,
}

impl Outstanding {
    pub(crate) fn new(shared: Arc<Shared>, running: Running) -> Self {
        Self { shared, running, attempts: vec![], place: None, has_not_asked: false, last: None }
    }

    /// A mail is about to ask for these. False: too much waits to be settled, it must not ask.
    pub(crate) fn may_ask(&mut self, requests: &[ClaimRequest]) -> bool {
        // What is not counted takes no use: it goes on, however much waits.
        if requests.iter().any(|request| request.was_counted) {
            self.place = self.shared.backlog.reserve(requests.len());
            self.has_not_asked = self.place.is_none();
        }
        if !self.has_not_asked {
            self.attempts.extend(requests.iter().map(|request| (request.row, request.attempt)));
        }
        !self.has_not_asked
    }

    /// The mail that they were asked for has ended: what was counted is settled, the rest was no claim.
    pub(crate) fn mail_ended(&mut self) {
        self.attempts.clear();
        self.place = None;
        self.has_not_asked = false;
    }

    /// Settles, in the background, for as long as it takes. When this returns the store has been told, so that
    /// whatever is asked of it from now on is answered behind it.
    pub(crate) async fn settle(&mut self, settlements: Vec<Settlement>) {
        self.attempts.clear();
        if self.has_not_asked {
            return;
        }
        let place = self.place.take();
        self.last =
            in_background(settle(self.shared.clone(), self.running.clone(), place, settlements)).await;
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
            let (shared, running, place) = (self.shared.clone(), self.running.clone(), self.place.take());
            runtime.spawn(settle(shared, running, place, settlements));
        }
    }
}

async fn settle(shared: Arc<Shared>, running: Running, place: Option<Place>, settlements: Vec<Settlement>) {
    let Err(error) = tell(&shared, settlements.clone()).await else {
        shared.backlog.was_taken();
        return;
    };
    // None: of an alias that was not counted a moment ago. It may be by now, and then nobody else would ever settle
    // this: it waits even if there is no room. There are never more of these than mails on their way.
    let place = place.or_else(|| shared.backlog.reserve(settlements.len()));
    let added = shared.backlog.add(settlements, place, &error);
    if added.needs_work {
        tokio::spawn(work(shared));
    }
    // An error says that the last of them has left the backlog, too.
    drop(added.done.await);
    drop(running);
}

async fn work(shared: Arc<Shared>) {
    let settle = |one| {
        let shared = shared.clone();
        async move { tell(&shared, vec![one]).await }
    };
    let (draining, back) = (shared.draining.subscribe(), shared.parts.store.back());
    shared.backlog.work(draining, back, settle).await;
}

/// In a box, so that what waits for long holds no room for what it does not do.
fn tell(
    shared: &Shared,
    settlements: Vec<Settlement>,
) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>> {
    let store = shared.parts.store.clone();
    Box::pin(async move { store.settle(settlements).await })
}
