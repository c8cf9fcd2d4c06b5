//! What the layers below need, made out of the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempalias_alias::{Caps, KeyId, Keys, Rate, ServerKey};
use tempalias_service::{Policy, Random};
use tempalias_store::copy::Place;
use tempalias_store::{COME_BACK, OpenError, Options, RedisAddress, RedisOptions, Store};

use crate::config::{Config, StoreUrl};

/// What the operator decided about aliases. None without a domain, which no checked configuration is.
pub fn policy(config: &Config) -> Option<Policy> {
    let (default_domain, more_domains) = config.domains.split_first()?;
    Some(Policy {
        default_domain: default_domain.clone(),
        more_domains: more_domains.to_vec(),
        caps: Caps { max_days: config.limits.max_days, max_usage: config.limits.max_usage },
        allow_domains: config.targets.allow_domains.clone(),
        public_url: config.http.public_url.clone(),
        create_rate: Rate { burst: config.limits.create_burst, every: config.limits.create_every },
    })
}

/// The system's randomness.
///
/// Without it, names and secrets could be guessed: the program ends rather than go on. (It fails on systems that
/// refuse the system call, not at some later time.)
pub fn random() -> Random {
    Arc::new(|bytes| {
        if let Err(error) = getrandom::fill(bytes) {
            tracing::error!(%error, "the system has no random numbers; giving up");
            std::process::abort();
        }
    })
}

/// Who opens a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// A server that takes mail.
    Server {
        /// There can be no alias yet.
        is_new: bool,
    },
    /// A command of the operator's, which ends in a moment and waits for no other node.
    Command,
}

/// Opens, or makes, the configured store. Blocks for as long as a disk does.
///
/// # Errors
/// [`StoreFault`] says what to do.
pub async fn open_store(config: &Config, keys: &Keys, opener: Opener) -> Result<Store, StoreFault> {
    match &config.store.url {
        StoreUrl::Sqlite(path) => Ok(Store::open(Options {
            path: path.clone(),
            boot: draw(),
            clock: tempalias_store::system_clock(),
            keys: key_ids(keys),
        })?),
        StoreUrl::Redis(address) => {
            let is_new = opener == Opener::Server { is_new: true };
            let mut options = redis_options(config, address, key_ids(keys), is_new)?;
            if opener == Opener::Command {
                options.come_back = Duration::ZERO;
            }
            Ok(Store::connect(options).await?)
        }
    }
}

/// How to open a store on Redis, as configured.
///
/// # Errors
/// When a file that is named cannot be read.
pub fn redis_options(
    config: &Config,
    address: &RedisAddress,
    keys: Vec<KeyId>,
    is_new: bool,
) -> Result<RedisOptions, StoreFault> {
    let address = match &config.store.password_file {
        Some(path) => address.clone().with_password(read(path)?.trim_end_matches(['\r', '\n'])),
        None => address.clone(),
    };
    let ca = config.store.ca_file.as_deref().map(read).transpose()?.map(String::into_bytes);
    Ok(RedisOptions { is_new, ..options_at(config, address, ca, keys) })
}

/// Where a store is that is copied from or to: not always the configured one.
///
/// # Errors
/// When a file that is named cannot be read.
pub(crate) fn place(
    config: &Config,
    url: &StoreUrl,
    password_file: Option<&Path>,
    ca_file: Option<&Path>,
    keys: Vec<KeyId>,
) -> Result<Place, StoreFault> {
    let address = match url {
        StoreUrl::Sqlite(path) => {
            let clock = tempalias_store::system_clock();
            return Ok(Place::Embedded(Options { path: path.clone(), boot: draw(), clock, keys }));
        }
        StoreUrl::Redis(address) => address,
    };
    let is_configured = config.store.url.redis().is_some_and(|configured| configured.is_same_as(address));
    let configured = config.store.password_file.as_deref().filter(|_| is_configured);
    let address = match password_file.or(configured) {
        Some(path) => address.clone().with_password(read(path)?.trim_end_matches(['\r', '\n'])),
        None => address.clone(),
    };
    let ca_file = ca_file.or(config.store.ca_file.as_deref()).filter(|_| address.is_tls());
    let ca = ca_file.map(read).transpose()?.map(String::into_bytes);
    Ok(Place::Redis(options_at(config, address, ca, keys)))
}

fn options_at(config: &Config, address: RedisAddress, ca: Option<Vec<u8>>, keys: Vec<KeyId>) -> RedisOptions {
    RedisOptions {
        address,
        ca,
        namespace: config.store.namespace.as_str().to_owned(),
        keys,
        is_new: false,
        wait_replicas: config.store.wait_replicas,
        come_back: COME_BACK,
        node: config.hostname.to_string(),
        draw: Arc::new(draw),
        clock: None,
    }
}

fn read(path: &Path) -> Result<String, StoreFault> {
    std::fs::read_to_string(path).map_err(|why| StoreFault::File { path: path.into(), why })
}

fn key_ids(keys: &Keys) -> Vec<KeyId> {
    keys.all().map(ServerKey::id).collect()
}

fn draw() -> u64 {
    let mut number = [0; 8];
    random()(&mut number);
    u64::from_ne_bytes(number)
}

/// Why the configured store is not open.
#[derive(Debug, thiserror::Error)]
pub enum StoreFault {
    /// The store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file that belongs to it.
    #[error("cannot read {} ({why}), which the configuration names for the store", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
}

/// `path` with `suffix` behind its file name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
