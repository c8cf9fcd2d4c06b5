//! What the layers below need, made out of the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempalias_alias::{Caps, Keys, Rate};
use tempalias_service::{Policy, Random};
use tempalias_store::{OpenError, Options, Store};

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

/// Opens, or makes, the configured store. Blocks for as long as the disk does.
///
/// # Errors
/// [`OpenError`] says what to do.
pub fn open_store(config: &Config, keys: &Keys) -> Result<Store, OpenError> {
    let StoreUrl::Sqlite(path) = &config.store.url;
    let mut boot = [0; 8];
    random()(&mut boot);
    Store::open(Options {
        path: path.clone(),
        boot: u64::from_ne_bytes(boot),
        clock: tempalias_store::system_clock(),
        keys: keys.all().map(tempalias_alias::ServerKey::id).collect(),
    })
}

/// `path` with `suffix` behind its file name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
