//! What must be so before a server is copied from or to.

use tempalias_alias::UnixTime;

use super::RedisOffline;
use crate::OpenError;
use crate::copy::{CopyError, Mark, Origin};
use crate::redis::connect::Target;
use crate::redis::fault;
use crate::redis::greet::{self, Unfit};
use crate::redis::keys::Names;
use crate::redis::link::Pipe;
use crate::redis::{RedisOptions, clock, copying, legacy, markers, refused, server_keys};

const NO_STORE: &str = "the server holds no tempalias store";
const IS_OF_2010: &str =
    "It holds aliases of the first tempalias (aliases:*): they are imported with --legacy";

/// What a server shows before anything is copied.
struct Look {
    seen: markers::Markers,
    copying: Option<Mark>,
    now: UnixTime,
}

impl RedisOffline {
    /// Opens a store that is there, whole, and not served.
    pub(crate) async fn source(options: RedisOptions) -> Result<Self, CopyError> {
        let target = reach(&options);
        let mut pipe = connect(&options, &target).await?;
        let looked = look_through(&options, &mut pipe).await;
        let looked = looked.and_then(|look| look.seen.only().map(str::to_owned).map(|marker| (look, marker)));
        let (Look { seen, copying, .. }, marker) = match looked {
            Ok(looked) => looked,
            Err(unfit) => return Err(no_source(&options, &mut pipe, unfit).await),
        };
        if let Some(mark) = copying {
            return Err(wrong(&options, Unfit::Wrong(copying::half_a_copy(&mark.from.shown))));
        }
        if let Some(why) = seen.fault(&marker) {
            return Err(wrong(&options, Unfit::Wrong(why)));
        }
        let store = Self::of(options, target, marker, pipe, false);
        store.refuse_if_served().await?;
        Ok(store)
    }

    /// Opens a store for a copy of `from`; makes an empty server ready.
    pub(crate) async fn target(options: RedisOptions, from: &Origin) -> Result<(Self, Mark), CopyError> {
        let target = reach(&options);
        let mut pipe = connect(&options, &target).await?;
        let Look { seen, copying, now } =
            look_through(&options, &mut pipe).await.map_err(|unfit| wrong(&options, unfit))?;
        let names = Names::new(&options.namespace);
        let marker = match seen.only() {
            Ok(marker) => marker.to_owned(),
            Err(Unfit::Empty) => markers::elect(&mut pipe, &names, (options.draw)(), now)
                .await
                .map_err(|error| wrong(&options, error.into()))?,
            Err(unfit) => return Err(wrong(&options, unfit)),
        };
        let store = Self::of(options, target, marker, pipe.clone(), true);
        let shown = store.origin.shown.clone();
        if store.origin.id == from.id {
            return Err(CopyError::Same(from.shown.clone(), shown));
        }
        let failed = |why| CopyError::Store { store: shown.clone(), why };
        let begun = if copying.is_some() {
            copying
        } else {
            let rows = store.count().await.map_err(failed)?;
            if rows > 0 {
                return Err(CopyError::NotEmpty { store: shown, rows });
            }
            store.refuse_if_served().await?;
            // First of all: what is there from now on is half a copy, whatever happens.
            let begun = copying::begin(&mut pipe, &names, &Mark::first(from)).await;
            begun.map_err(|error| failed(fault::in_store_words(&error)))?
        };
        let mark = match begun {
            None => Mark::first(from),
            Some(mark) if mark.from.id == from.id => mark,
            Some(mark) => return Err(CopyError::OtherCopy { store: shown, from: mark.from.shown }),
        };
        let marked = async {
            markers::mark(&pipe, &names, &store.marker, &seen.missing).await?;
            markers::all_have_it(&mut pipe, &names).await
        };
        marked.await.map_err(|error| failed(fault::in_store_words(&error)))?;
        store.refuse_if_served().await?;
        Ok((store, mark))
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
        let why = "the server has thrown keys away to make room, aliases perhaps among them: accept the loss with \
                   `tempalias db adopt` first";
        return Err(Unfit::Wrong(why.to_owned()));
    }
    let now = clock::ask(options, pipe, &names).await?;
    if let Some(missing) = server_keys::missing(pipe, &names, &options.keys, now).await? {
        return Err(Unfit::MissingKey(missing));
    }
    let copying = copying::read(pipe, &names).await?;
    let seen = markers::read(pipe, &names).await?;
    Ok(Look { seen, copying, now })
}

/// Nothing can be copied from this server; perhaps because it is one of 2010, which may also be too old for us.
async fn no_source(options: &RedisOptions, pipe: &mut Pipe, unfit: Unfit) -> CopyError {
    let why = match &unfit {
        Unfit::Empty => NO_STORE,
        Unfit::Wrong(why) => why,
        Unfit::Failing(_) | Unfit::MissingKey(_) => return wrong(options, unfit),
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
        Unfit::MissingKey(missing) => {
            OpenError::RedisMissingKey { address, missing, listed: options.keys.clone() }
        }
    })
}
