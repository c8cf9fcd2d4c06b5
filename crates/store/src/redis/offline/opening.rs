//! What must be so before a server is copied from or to.

use tempalias_alias::UnixTime;

use super::{RedisOffline, id_of};
use crate::copy::{CopyError, Mark, Origin};
use crate::redis::connect::Target;
use crate::redis::copying::Standing;
use crate::redis::greet::{self, Unfit};
use crate::redis::keys::Names;
use crate::redis::link::Pipe;
use crate::redis::{RedisOptions, clock, copying, legacy, markers, refused, server_keys};
use crate::{OpenError, StoreError};

const NO_STORE: &str = "the server holds no tempalias store";
const IS_OF_2010: &str =
    "It holds aliases of the first tempalias (aliases:*): they are imported with --legacy";

/// What a server shows before anything is copied.
struct Look {
    seen: markers::Markers,
    copying: Option<Standing>,
    now: UnixTime,
}

impl RedisOffline {
    /// Opens a store that is there, whole, and not served.
    pub(crate) async fn source(options: RedisOptions) -> Result<Self, CopyError> {
        let target = reach(&options);
        let mut pipe = connect(&options, &target).await?;
        let Look { seen, copying, .. } = match look_through(&options, &mut pipe).await {
            Ok(look) => look,
            Err(unfit) => return Err(no_source(&options, &mut pipe, unfit).await),
        };
        if let Some(Standing { mark, .. }) = copying {
            return Err(wrong(&options, Unfit::Wrong(copying::half_a_copy(&mark.from.shown))));
        }
        let marker = match seen.only() {
            Ok(marker) => marker.to_owned(),
            Err(unfit) => return Err(no_source(&options, &mut pipe, unfit).await),
        };
        if let Some(why) = seen.fault(&marker) {
            return Err(wrong(&options, Unfit::Wrong(why)));
        }
        let store = Self::of(options, target, marker, pipe, false);
        store.refuse_if_served().await?;
        Ok(store)
    }

    /// Opens a store for one run of a copy of `from`; makes an empty server ready.
    pub(crate) async fn target(options: RedisOptions, from: &Origin) -> Result<(Self, Mark), CopyError> {
        let target = reach(&options);
        let mut pipe = connect(&options, &target).await?;
        let Look { seen, copying, now } =
            look_through(&options, &mut pipe).await.map_err(|unfit| wrong(&options, unfit))?;
        // Half a copy has markers of several runs where one was cut short as it began or ended.
        let known = match (&copying, seen.only()) {
            (Some(_), _) => seen.check_formats(),
            (None, Ok(marker)) if id_of(marker) == from.id => {
                return Err(CopyError::Same(from.shown.clone(), options.address.to_string()));
            }
            (None, Ok(_) | Err(Unfit::Empty)) => Ok(()),
            (None, Err(unfit)) => Err(unfit),
        };
        known.map_err(|unfit| wrong(&options, unfit))?;
        let run = markers::new_marker((options.draw)().to_be_bytes(), now);
        let store = Self::of(options, target, run, pipe, true);
        let claimed = store.claim(copying, from).await?;
        if claimed.is_begun {
            store.take_over().await?;
            store.refuse_if_served().await?;
        } else if let Err(error) = store.begin(&claimed).await {
            if matches!(error, CopyError::NotEmpty { .. } | CopyError::Served { .. }) {
                // Nothing was brought: it is no half copy. If this fails the next run finds it so again.
                let let_go =
                    store.insist(async |mut pipe| copying::end(&mut pipe, &store.names, &store.marker).await);
                drop(let_go.await);
            }
            return Err(error);
        }
        Ok((store, claimed.mark))
    }

    /// Writes down that this run is the one that goes on: first of all, and before its markers.
    async fn claim(&self, mut seen: Option<Standing>, from: &Origin) -> Result<Standing, CopyError> {
        if seen.is_none() {
            self.refuse_if_in_use().await?;
        }
        loop {
            let ours = match &seen {
                None => Standing::first(from, &self.marker),
                Some(there) if there.mark.from.id == from.id => {
                    Standing { run: self.marker.clone(), ..there.clone() }
                }
                Some(there) => {
                    let (store, from) = (self.origin.shown.clone(), there.mark.from.shown.clone());
                    return Err(CopyError::OtherCopy { store, from });
                }
            };
            let there = self
                .insist(async |mut pipe| copying::claim(&mut pipe, &self.names, seen.as_ref(), &ours).await);
            match self.told(there.await).await? {
                Some(there) if there.run == self.marker => return Ok(there),
                // Another run has just come further.
                Some(there) => seen = Some(there),
                None => return Err(self.another_run()),
            }
        }
    }

    /// Makes sure that there is nothing before anything is brought. Between the first look and the claim another run
    /// may have finished the whole copy; from this run's markers on nobody else can make a row.
    async fn begin(&self, claimed: &Standing) -> Result<(), CopyError> {
        self.refuse_if_in_use().await?;
        self.take_over().await?;
        self.refuse_if_in_use().await?;
        self.told(self.mark(&claimed.mark).await).await
    }

    async fn refuse_if_in_use(&self) -> Result<(), CopyError> {
        let rows = self.told(self.count().await).await?;
        if rows > 0 {
            return Err(CopyError::NotEmpty { store: self.origin.shown.clone(), rows });
        }
        self.refuse_if_served().await
    }

    /// Puts this run's marker into all buckets: runs before it find them shut from then on.
    async fn take_over(&self) -> Result<(), CopyError> {
        loop {
            let seen = self.insist(async |pipe| markers::read(&pipe, &self.names).await).await;
            let seen = self.told(seen).await?;
            // In this order: what a run writes that has claimed the store since is not among what was seen.
            if !self.told(self.is_ours().await).await? {
                return Err(self.another_run());
            }
            let is_everywhere = self.insist(async |pipe| {
                markers::remark(&pipe, &self.names, &self.marker, &seen, markers::Index::Begins).await
            });
            if self.told(is_everywhere.await).await? {
                break;
            }
        }
        // Whoever began a store here at the same moment has come too late.
        let over = self.insist(async |mut pipe| match markers::beginning(&mut pipe, &self.names).await? {
            Some(begun) => markers::is_over(&mut pipe, &self.names, &begun).await,
            None => Ok(()),
        });
        self.told(over.await).await
    }

    /// An outcome in the words of a copy.
    async fn told<T>(&self, outcome: Result<T, StoreError>) -> Result<T, CopyError> {
        match outcome {
            Ok(value) => Ok(value),
            Err(_) if self.is_overtaken().await => Err(self.another_run()),
            Err(why) => Err(CopyError::store(&self.origin, why)),
        }
    }

    fn another_run(&self) -> CopyError {
        CopyError::AnotherRun { store: self.origin.shown.clone() }
    }
}

fn reach(options: &RedisOptions) -> Target {
    // The TLS library asks the process for its cryptography; whoever installed one already is fine, too.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    Target { address: options.address.clone(), ca: options.ca.clone() }
}

async fn connect(options: &RedisOptions, target: &Target) -> Result<Pipe, CopyError> {
    target.connect().await.map_err(|error| refused(options, &error).into())
}

async fn look_through(options: &RedisOptions, pipe: &mut Pipe) -> Result<Look, Unfit> {
    let names = Names::new(&options.namespace);
    let described = greet::check_server(pipe, options.address.is_cluster()).await?;
    if let Some(unfit) = described.unfit {
        return Err(unfit);
    }
    if described.evicted > 0 {
        return Err(Unfit::Evicted);
    }
    let now = clock::ask(options, pipe, &names).await?;
    if let Some(missing) = server_keys::missing(pipe, &names, &options.keys, now).await? {
        return Err(Unfit::MissingKey(missing));
    }
    let copying = copying::read(pipe, &names).await?;
    let seen = markers::read(pipe, &names).await?;
    if seen.evicted > 0 {
        return Err(Unfit::Evicted);
    }
    Ok(Look { seen, copying, now })
}

/// Nothing can be copied from this server; perhaps because it is one of 2010, which may also be too old for us.
async fn no_source(options: &RedisOptions, pipe: &mut Pipe, unfit: Unfit) -> CopyError {
    let why = match &unfit {
        Unfit::Empty => NO_STORE,
        Unfit::Wrong(why) => why,
        Unfit::Failing(_) | Unfit::Evicted | Unfit::MissingKey(_) => return wrong(options, unfit),
    };
    // Whatever goes wrong now, the first reason is the one to tell.
    match legacy::is_there(pipe).await {
        Ok(true) => wrong(options, Unfit::Wrong(format!("{why}. {IS_OF_2010}"))),
        Ok(false) | Err(_) => wrong(options, unfit),
    }
}

fn wrong(options: &RedisOptions, unfit: Unfit) -> CopyError {
    let address = options.address.to_string();
    CopyError::Open(match unfit {
        Unfit::Failing(why) | Unfit::Wrong(why) => OpenError::Redis { address, why },
        Unfit::Empty => OpenError::Redis { address, why: NO_STORE.to_owned() },
        Unfit::Evicted => OpenError::Redis { address, why: greet::EVICTED.to_owned() },
        Unfit::MissingKey(missing) => {
            OpenError::RedisMissingKey { address, missing, listed: options.keys.clone() }
        }
    })
}
