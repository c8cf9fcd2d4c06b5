//! The task behind a store: it connects, looks whether the server is what it must be, renews the lease, and begins
//! again when a call meets trouble.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempalias_alias::{Owner, UnixTime};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::greet::{self, Unfit};
use super::keys::bucket_of_lease;
use super::lease;
use super::reply::Fields;
use super::script::RENEW;
use super::{Core, RedisOptions};
use crate::{OpenError, StoreError};

/// How long the start waits for a first answer; after that the node starts without.
const START_PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries to connect: doubled from the first to the last, each cut at random to between half and all of it,
/// so that many nodes do not come back at the same moment. The last still lets a store's return be seen within a
/// second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_millis(600);
/// A connection that lasted this long was a good one.
const STEADY: Duration = Duration::from_secs(2);
/// Renewals between two looks at what kind of server it is: somebody may change its configuration.
const LOOKS: u32 = 3;

/// What the start learns of the first try.
type First = oneshot::Sender<Result<(), Unfit>>;

/// Starts the task and waits for its first success, or for a reason not to start.
pub(super) async fn start(core: Arc<Core>) -> Result<AbortHandle, OpenError> {
    let (first, learned) = oneshot::channel();
    let options = core.options.clone();
    let task = tokio::spawn(supervise(core, Some(first))).abort_handle();
    match timeout(START_PATIENCE, learned).await {
        Ok(Ok(Err(unfit))) => match must_not_start(&options, unfit) {
            Some(error) => {
                task.abort();
                Err(error)
            }
            None => Ok(task),
        },
        // It stands, or there is no answer yet.
        Ok(_) | Err(_) => Ok(task),
    }
}

/// What an operator must mend before a node can start. The rest may pass, and the node says 451 until then.
fn must_not_start(options: &RedisOptions, unfit: Unfit) -> Option<OpenError> {
    let address = options.address.to_string();
    match unfit {
        Unfit::Wrong(why) => Some(OpenError::Redis { address, why }),
        Unfit::MissingKey(missing) => {
            Some(OpenError::RedisMissingKey { address, missing, listed: options.keys.clone() })
        }
        Unfit::Failing(_) | Unfit::Empty | Unfit::Evicted => None,
    }
}

async fn supervise(core: Arc<Core>, mut first: Option<First>) {
    let mut pause = FIRST_PAUSE;
    let mut is_reported = false;
    loop {
        match core.connect().await {
            Ok(pipes) => {
                core.link.up(pipes);
                let since = Instant::now();
                if std::mem::take(&mut is_reported) {
                    tracing::info!(store = %core.options.address, "the store is back");
                }
                core.renew().await;
                if let Some(first) = first.take() {
                    drop(first.send(Ok(())));
                }
                core.keep().await;
                // A connection that meets trouble at once is no reason to make the next one at once.
                if since.elapsed() < STEADY {
                    sleep(core.jittered(pause)).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                } else {
                    pause = FIRST_PAUSE;
                }
            }
            Err(unfit) => {
                let why = words(&unfit);
                // A Cluster goes on with the connections that still work.
                let goes_on = core.options.address.is_cluster()
                    && core.link.is_up()
                    && matches!(unfit, Unfit::Failing(_));
                if goes_on {
                    // One master that hangs must not cost the others this node's lease.
                    core.renew().await;
                } else {
                    core.link.down(why.clone());
                }
                if !std::mem::replace(&mut is_reported, true) {
                    tracing::error!(store = %core.options.address, %why, "the store cannot be used: mail is deferred");
                }
                if let Some(first) = first.take() {
                    drop(first.send(Err(unfit)));
                }
                sleep(core.jittered(pause)).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

/// What is left of a pause, as it was `drawn`: between half and all of it.
fn cut(pause: Duration, drawn: u64) -> Duration {
    let part = u32::try_from(drawn % 512).unwrap_or_default();
    pause / 2 + pause * part / 1024
}

fn words(unfit: &Unfit) -> String {
    match unfit {
        Unfit::Failing(why) | Unfit::Wrong(why) => why.clone(),
        Unfit::Empty => {
            "the server holds no tempalias store: it is new, or has lost its data. Restore it from a copy, \
                         or begin with an empty store with `tempalias db adopt`"
                .to_owned()
        }
        Unfit::Evicted => greet::EVICTED.to_owned(),
        Unfit::MissingKey(missing) => {
            format!("aliases on it were sealed under server key {missing}, which is not in store.key_files")
        }
    }
}

impl Core {
    fn jittered(&self, pause: Duration) -> Duration {
        cut(pause, (self.options.draw)())
    }

    /// Renews the lease, until a call meets trouble or the server is no longer what it must be.
    async fn keep(&self) {
        let mut timer = interval(lease::RENEW_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        timer.tick().await;
        let mut looks = 0;
        loop {
            tokio::select! {
                () = self.link.trouble.notified() => return,
                _ = timer.tick() => {}
            }
            if self.link.is_doubtful.swap(false, Ordering::Relaxed) {
                return;
            }
            looks += 1;
            if looks == LOOKS {
                looks = 0;
                if self.look().await.is_err() {
                    return;
                }
            }
            self.renew().await;
        }
    }

    /// Renews the lease, and takes another name if it has run out; renews those of former names that are needed.
    async fn renew(&self) {
        for _ in 0..2 {
            let (owner, is_first) = self.lease.owner();
            let holds = self.renew_one(owner, is_first).await;
            // In a Cluster, the one server that does not answer may be the one that has our lease: that of another name
            // may be elsewhere.
            let hangs = holds.is_err() && self.options.address.is_cluster();
            if hangs || self.wants_new_name.load(Ordering::Relaxed) {
                self.change_name().await;
            }
            if holds != Ok(false) {
                break;
            }
        }
        // One of them may be on a server that hangs.
        join_all(self.lease.former().into_iter().map(|owner| self.renew_one(owner, false))).await;
    }

    /// Goes on under a new name once that has a lease, so that there is always one to claim under.
    async fn change_name(&self) {
        let next = self.new_name();
        let asked = Instant::now();
        if let Ok((now, true)) = self.try_renew(next, true).await {
            self.lease.change_name(next);
            self.lease.renewed(next, asked, now);
            self.wants_new_name.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the lease still holds.
    async fn renew_one(&self, owner: Owner, is_first: bool) -> Result<bool, StoreError> {
        let asked = Instant::now();
        let (now, holds) = self.try_renew(owner, is_first).await?;
        if holds {
            self.lease.renewed(owner, asked, now);
        } else {
            tracing::warn!("this node was cut off for too long: another may finish what it had in flight");
            self.lease.lost(owner, self.new_name());
        }
        Ok(holds)
    }

    /// A name that no lease ever had.
    fn new_name(&self) -> Owner {
        Owner { boot: (self.options.draw)(), ..self.lease.owner().0 }
    }

    async fn try_renew(&self, owner: Owner, is_first: bool) -> Result<(UnixTime, bool), StoreError> {
        let length = lease::LENGTH.as_millis().to_string();
        let first: &[u8] = if is_first { b"first" } else { b"again" };
        let args = [length.as_bytes(), self.options.node.as_bytes(), first];
        let answered = self.run_in(bucket_of_lease(owner), &RENEW, &[self.names.lease(owner)], &args).await?;
        let mut fields = Fields::of(answered.value)?;
        Ok((fields.time()?, fields.number::<u8>()? == 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_do_not_all_come_back_at_the_same_moment() {
        let pauses: std::collections::BTreeSet<_> = (0..2_000).map(|drawn| cut(LAST_PAUSE, drawn)).collect();
        assert_eq!(pauses.len(), 512);
        assert_eq!(pauses.first(), Some(&(LAST_PAUSE / 2)));
        assert!(pauses.last().is_some_and(|last| *last < LAST_PAUSE && *last > LAST_PAUSE * 99 / 100));
    }
}
