//! What a node does before it serves, and looks at again while it does: whether the server is what it must be and the
//! one that holds our aliases, whether our keys are all that are needed, and whether it is still the same process.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tempalias_alias::UnixTime;

use super::Core;
use super::greet::{self, Described, Unfit};
use super::link::{Pipe, Pipes};
use super::markers::Accepts;
use super::script;
use super::{clock, copying, markers, replicas, server_keys};

/// For how long a sealing key counts as needed without an alias. A node that serves notes it again and again.
const OWN_KEY_NOTED: Duration = Duration::from_hours(24);

impl Core {
    /// A new connection to a server that is what it must be.
    pub(super) async fn connect(&self) -> Result<Pipes, Unfit> {
        let mut pipe = self.target.connect().await?;
        let described = greet::check_server(&mut pipe, self.options.address.is_cluster()).await?;
        // First of all, and written down: a restart would make the server forget what it has thrown away.
        if described.evicted > 0 {
            markers::distrust(&mut pipe, &self.names, self.options.address.is_cluster()).await?;
        }
        if let Some(unfit) = described.unfit {
            return Err(unfit);
        }
        copying::refuse_if_unfinished(&mut pipe, &self.names).await?;
        let now = clock::ask(&self.options, &mut pipe, &self.names).await?;
        self.lease.clock_is(now);
        let missing = server_keys::missing(&mut pipe, &self.names, &self.options.keys, now).await?;
        if let Some(missing) = missing {
            return Err(Unfit::MissingKey(missing));
        }
        // A server that must be taught a script answers that call behind those that come after it: a settlement would
        // come too late for its own acknowledgement.
        for script in script::all() {
            pipe.ask_masters(script.load()).await?;
        }
        let marker = self.marker(&mut pipe, now).await?;
        self.note_own_key(&mut pipe).await?;
        self.note_histories(&described);
        let waiting = replicas::connect(&self.target, &self.options).await?;
        Ok(Pipes { all: pipe, waiting, marker: marker.into() })
    }

    /// Notes our sealing key for a day, before anything is sealed: a node that was given other keys by mistake must not
    /// begin beside us, nor we beside it.
    async fn note_own_key(&self, pipe: &mut Pipe) -> Result<(), Unfit> {
        match server_keys::note_own(pipe, &self.names, &self.options.keys, &self.given_time(), OWN_KEY_NOTED)
            .await?
        {
            Some(missing) => Err(Unfit::MissingKey(missing)),
            None => Ok(()),
        }
    }

    /// What every marker of the store says, if it is the store that this process knows, or was adopted since.
    async fn marker(&self, pipe: &mut Pipe, now: UnixTime) -> Result<String, Unfit> {
        let seen = markers::read(pipe, &self.names).await?;
        if seen.evicted > 0 {
            return Err(Unfit::Evicted);
        }
        let begun = match markers::beginning(pipe, &self.names).await? {
            // All that it was about is done, and only its end was cut off. Left there, it would make a part that is lost
            // later look like one that has yet to begin.
            Some(begun) if seen.missing.is_empty() => {
                markers::is_over(pipe, &self.names, &begun).await?;
                None
            }
            begun => begun,
        };
        let marker = match seen.only() {
            Err(Unfit::Empty) if self.may_begin() || begun.is_some() => None,
            only => Some(only?.to_owned()),
        };
        let marker = match marker {
            Some(marker) if begun.as_ref() != Some(&marker) => marker,
            _ => {
                let id = (self.options.draw)();
                markers::begin(pipe, &self.names, id, now, Accepts::Nothing).await?
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, last_seen)) = &*known
            && *known != marker
            && markers::adopted_at(&marker) < *last_seen
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

    /// A server that was restarted, that has taken over from another, or that followed another for a while, may have
    /// forgotten how claims of this node ended: they would stay in flight for as long as it lives under the same name.
    fn note_histories(&self, described: &Described) {
        let mut known = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.is_empty() && !described.histories.is_subset(&known) {
            self.wants_new_name.store(true, Ordering::Relaxed);
        }
        known.clone_from(&described.histories);
    }

    /// Whether the server is still what it must be. Any doubt is cleared up by connecting anew.
    pub(super) async fn look(&self) -> Result<(), Unfit> {
        let Ok((mut pipes, _)) = self.link.pipes() else { return Ok(()) };
        match greet::check_server(&mut pipes.all, self.options.address.is_cluster()).await {
            Ok(described) if described.evicted > 0 => return Err(Unfit::Evicted),
            Ok(Described { unfit: Some(unfit), .. }) => return Err(unfit),
            Ok(described) => self.note_histories(&described),
            // Calls find out themselves about a connection that fails.
            Err(Unfit::Failing(_)) => return Ok(()),
            Err(unfit) => return Err(unfit),
        }
        if let Err(unfit @ Unfit::Wrong(_)) = copying::refuse_if_unfinished(&mut pipes.all, &self.names).await
        {
            return Err(unfit);
        }
        if let Err(unfit @ Unfit::MissingKey(_)) = self.note_own_key(&mut pipes.all).await {
            return Err(unfit);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((_, last_seen)), Some(now)) = (&mut *known, self.lease.now()) {
            *last_seen = now;
        }
        Ok(())
    }
}
