//! The task behind a store: it connects, looks whether the server is what it must be, renews the lease, and begins
//! again when a call meets trouble.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tempalias_alias::{Owner, UnixTime};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::greet::{self, Described, Unfit};
use super::lease;
use super::link::{Pipe, Pipes};
use super::reply::Fields;
use super::rows::millis;
use super::script::{self, NEED, RENEW};
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

/// Connections for claims that wait for replicas: that many may wait at once.
const WAITING: usize = 16;
/// For how long a sealing key counts as needed without an alias.
const OWN_KEY_NOTED: Duration = Duration::from_hours(24);

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
        Unfit::Failing(_) | Unfit::Empty => None,
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

fn words(unfit: &Unfit) -> String {
    match unfit {
        Unfit::Failing(why) | Unfit::Wrong(why) => why.clone(),
        Unfit::Empty => {
            "the server holds no tempalias store: it is new, or has lost its data. Restore it from a copy, \
                         or begin with an empty store with `tempalias db adopt`"
                .to_owned()
        }
        Unfit::MissingKey(missing) => {
            format!("aliases on it were sealed under server key {missing}, which is not in store.key_files")
        }
    }
}

impl Core {
    fn jittered(&self, pause: Duration) -> Duration {
        let part = u32::try_from((self.options.draw)() % 512).unwrap_or_default();
        pause / 2 + pause * part / 1024
    }

    /// A new connection to a server that is what it must be.
    async fn connect(&self) -> Result<Pipes, Unfit> {
        let mut pipe = self.target.connect().await?;
        let described = greet::check_server(&mut pipe, self.options.address.is_cluster()).await?;
        // First of all, and written down: a restart would make the server forget what it has thrown away.
        if described.evicted > 0 {
            greet::distrust(&pipe, &self.names).await?;
        }
        if let Some(unfit) = described.unfit {
            return Err(unfit);
        }
        greet::refuse_half_a_copy(&mut pipe, &self.names).await?;
        let now = match &self.options.clock {
            Some(clock) => clock(),
            None => greet::time(&mut pipe, &self.names).await?,
        };
        self.lease.clock_is(now);
        let missing = greet::missing_key(&mut pipe, &self.names, &self.options.keys, now).await?;
        if let Some(missing) = missing {
            return Err(Unfit::MissingKey(missing));
        }
        // A server that must be taught a script answers that call behind those that come after it: a settlement would
        // come too late for its own acknowledgement.
        for script in script::all() {
            pipe.ask_masters(script.load()).await?;
        }
        let marker = self.marker(&pipe, now).await?;
        self.note_own_key(&mut pipe, now).await?;
        let mut waiting = Vec::new();
        if self.options.wait_replicas > 0 {
            for _ in 0..WAITING {
                waiting.push(self.target.connect().await?);
            }
        }
        Ok(Pipes { all: pipe, waiting: waiting.into(), marker: marker.into() })
    }

    /// Notes our sealing key for a day, before anything is sealed: a node that was given other keys by mistake must not
    /// begin beside us.
    async fn note_own_key(&self, pipe: &mut Pipe, now: UnixTime) -> Result<(), Unfit> {
        let Some(id) = self.options.keys.first() else { return Ok(()) };
        let until = millis(Some(now.plus(OWN_KEY_NOTED)));
        pipe.run(&NEED, &[self.names.server_keys()], &[&id.0, &until]).await?;
        Ok(())
    }

    /// What every marker of the store says, if it is the store that this process knows, or was adopted since.
    async fn marker(&self, pipe: &Pipe, now: UnixTime) -> Result<String, Unfit> {
        let seen = greet::markers(pipe, &self.names).await?;
        let marker = match seen.only() {
            Err(Unfit::Empty) if self.may_begin() => {
                let marker = greet::new_marker((self.options.draw)().to_be_bytes(), now);
                greet::mark(pipe, &self.names, &marker, &seen.missing).await?;
                // Another node may have begun in the same moment: what stands counts.
                greet::markers(pipe, &self.names).await?.only()?.to_owned()
            }
            only => only?.to_owned(),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, last_seen)) = &*known
            && *known != marker
            && greet::adopted_at(&marker) < *last_seen
        {
            return Err(Unfit::Wrong(
                "the server holds another store than before: lead store.url back to the right one, or restart this \
                 node to use the other"
                    .to_owned(),
            ));
        }
        *known = Some((marker.clone(), now));
        Ok(marker)
    }

    /// Whether an empty server is a first start: the server keys are new, and this process has seen no store.
    fn may_begin(&self) -> bool {
        self.options.is_new && self.known.lock().unwrap_or_else(PoisonError::into_inner).is_none()
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
            self.renew().await;
            looks += 1;
            if looks == LOOKS {
                looks = 0;
                if self.look().await.is_err() {
                    return;
                }
            }
        }
    }

    /// Whether the server is still what it must be. Any doubt is cleared up by connecting anew.
    async fn look(&self) -> Result<(), Unfit> {
        let Ok((mut pipes, _)) = self.link.pipes() else { return Ok(()) };
        match greet::check_server(&mut pipes.all, self.options.address.is_cluster()).await {
            Ok(described) if described.evicted > 0 => return Err(Unfit::Empty),
            Ok(Described { unfit: Some(unfit), .. }) => return Err(unfit),
            Ok(_) => {}
            // Calls find out themselves about a connection that fails.
            Err(Unfit::Failing(_)) => return Ok(()),
            Err(unfit) => return Err(unfit),
        }
        if let Err(unfit @ Unfit::Wrong(_)) = greet::refuse_half_a_copy(&mut pipes.all, &self.names).await {
            return Err(unfit);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((_, last_seen)), Some(now)) = (&mut *known, self.lease.now()) {
            *last_seen = now;
        }
        Ok(())
    }

    /// Renews the lease; takes another name if it has run out.
    async fn renew(&self) {
        for _ in 0..2 {
            let (owner, is_first) = self.lease.owner();
            let asked = Instant::now();
            let Ok((now, holds)) = self.try_renew(owner, is_first).await else { return };
            if holds {
                self.lease.renewed(owner, asked, now);
                return;
            }
            tracing::warn!("this node was cut off for too long: another may finish what it had in flight");
            self.lease.lost(Owner { boot: (self.options.draw)(), ..owner });
        }
    }

    async fn try_renew(&self, owner: Owner, is_first: bool) -> Result<(UnixTime, bool), StoreError> {
        let length = lease::LENGTH.as_millis().to_string();
        let first: &[u8] = if is_first { b"first" } else { b"again" };
        let args = [length.as_bytes(), self.options.node.as_bytes(), first];
        let answer = self.run(&RENEW, &[self.names.lease(owner)], &args).await?;
        let mut fields = Fields::of(answer)?;
        Ok((fields.time()?, fields.number::<u8>()? == 1))
    }
}
