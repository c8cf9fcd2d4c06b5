//! The Redis of the first tempalias (2010): `aliases:<name>` holds JSON, `counter:<name>` how many messages are left.
//! Only reads them; what they mean is not this crate's business.

use std::collections::BTreeSet;
use std::fmt;

use futures_util::future::try_join_all;
use redis::{RedisError, Value, cmd};
use tempalias_alias::UnixTime;
use tokio::sync::Mutex;

use super::connect::Target;
use super::fault;
use super::keys::Names;
use super::link::Pipe;
use super::{RedisOptions, refused, scan};
use crate::copy::{CopyError, Origin};
use crate::{StoreError, system_clock};

const ALIASES: &str = "aliases:";
/// Every alias of 2010.
const ALL_ALIASES: &str = "aliases:*";
const COUNTERS: &str = "counter:";

/// A Redis of 2010, as far as anybody kept one.
pub struct Legacy {
    pipe: Mutex<Pipe>,
    origin: Origin,
    clock: crate::Clock,
}

/// What stands there of one alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldAlias {
    /// The JSON; none: it went meanwhile, or is no text.
    pub json: Option<Vec<u8>>,
    /// What its counter says; none: there is none. Empty: it is no text.
    pub left: Option<Vec<u8>>,
}

impl fmt::Debug for Legacy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Legacy({})", self.origin.shown)
    }
}

impl Legacy {
    /// Connects. Of any version that knows SCAN (2.8, 2013); older data can be loaded into a newer server.
    ///
    /// # Errors
    /// [`CopyError`] when it cannot be reached.
    pub async fn connect(options: RedisOptions) -> Result<Self, CopyError> {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let target = Target { address: options.address.clone(), ca: options.ca.clone() };
        let pipe = target.connect().await.map_err(|error| refused(&options, &error))?;
        let shown = options.address.to_string();
        let origin = Origin { id: format!("2010 {shown}"), shown };
        let clock = options.clock.unwrap_or_else(system_clock);
        Ok(Self { pipe: Mutex::new(pipe), origin, clock })
    }

    /// Which one it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The time that decides what is over.
    pub fn now(&self) -> UnixTime {
        (self.clock)()
    }

    /// The names of all aliases, in order. There is at least one.
    ///
    /// # Errors
    /// [`CopyError`]; [`CopyError::NothingOf2010`] if there is none: an empty import would look like one that was done.
    pub async fn names(&self) -> Result<BTreeSet<Vec<u8>>, CopyError> {
        let failed = |error| CopyError::store(&self.origin, fault::in_store_words(&error));
        let mut pipe = self.pipe.lock().await.clone();
        let mut names = BTreeSet::new();
        let found = scan::all(&mut pipe, ALL_ALIASES, |key| {
            names.extend(key.strip_prefix(ALIASES.as_bytes()).map(<[u8]>::to_vec));
        });
        found.await.map_err(failed)?;
        if names.is_empty() {
            let namespace = store_of_today(&mut pipe).await.map_err(failed)?;
            return Err(CopyError::NothingOf2010 { store: self.origin.shown.clone(), namespace });
        }
        Ok(names)
    }

    /// What stands under these names, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(&self, names: &[Vec<u8>]) -> Result<Vec<OldAlias>, StoreError> {
        let pipe = self.pipe.lock().await.clone();
        let read = names.iter().map(|name| {
            let mut pipe = pipe.clone();
            async move {
                let json = get(&mut pipe, ALIASES, name).await?;
                let left = get(&mut pipe, COUNTERS, name).await?;
                let json = json.and_then(Result::ok);
                // Were it taken for none, nothing would count as used.
                let left = left.map(Result::unwrap_or_default);
                Ok::<_, RedisError>(OldAlias { json, left })
            }
        });
        try_join_all(read).await.map_err(|error| fault::in_store_words(&error))
    }
}

/// Whether there is an alias of 2010.
pub(super) async fn is_there(pipe: &mut Pipe) -> Result<bool, RedisError> {
    scan::any(pipe, ALL_ALIASES).await.map(|name| name.is_some())
}

/// The namespace of a store of today, if there is one.
async fn store_of_today(pipe: &mut Pipe) -> Result<Option<String>, RedisError> {
    let marker = Names::new("*").marker(0);
    let found = scan::any(pipe, &marker).await?;
    let key = found.map(|key| String::from_utf8_lossy(&key).into_owned());
    // What stands before the name of the marker.
    Ok(key.and_then(|key| key.strip_suffix(marker.trim_start_matches('*')).map(str::to_owned)))
}

/// Stands there, but is no text: a list, say, which is not what tempalias wrote.
struct NoText;

async fn get(
    pipe: &mut Pipe,
    kind: &str,
    name: &[u8],
) -> Result<Option<Result<Vec<u8>, NoText>>, RedisError> {
    match pipe.ask(cmd("GET").arg([kind.as_bytes(), name].concat())).await {
        Ok(Value::BulkString(bytes)) => Ok(Some(Ok(bytes))),
        Ok(_) => Ok(None),
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Some(Err(NoText))),
        Err(error) => Err(error),
    }
}
