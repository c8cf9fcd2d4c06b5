//! Making a server ready for a store: the first time, or after it has lost what it held.

use redis::{RedisError, cmd};

use super::connect::Target;
use super::greet::{self, Unfit};
use super::keys::{BUCKETS, Names};
use super::link::Pipe;
use super::markers::Accepts;
use super::tidy::{self, Rows};
use super::{RedisOptions, clock, copying, lease, markers, refused, server_keys};
use crate::OpenError;

/// What adopting did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// There was no store: an empty one begins.
    Begun,
    /// Parts of the store were gone; what is left of it is served again. How many of how many parts.
    Mended {
        /// Parts that were gone.
        parts: usize,
        /// All parts.
        of: u16,
        /// Aliases that were gone although their parts' lists had them.
        aliases: u64,
    },
    /// All parts were there: nothing was done.
    Nothing,
}

/// Marks the server as holding a store: from now on an alias that is not there does not exist. Whoever calls this says
/// that what is missing may be missing.
///
/// # Errors
/// [`OpenError`] when the server cannot be reached or is not what it must be.
pub async fn adopt(options: &RedisOptions) -> Result<Adopted, OpenError> {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let target = Target { address: options.address.clone(), ca: options.ca.clone() };
    let mut pipe = target.connect().await.map_err(|error| refused(options, &error))?;
    let failed = |why: &str| OpenError::Redis { address: options.address.to_string(), why: why.to_owned() };
    match take_over(options, &mut pipe).await {
        Ok(adopted) => Ok(adopted),
        Err(Unfit::Failing(why) | Unfit::Wrong(why)) => Err(failed(&why)),
        Err(Unfit::Empty | Unfit::Evicted) => Err(failed("it changes under our hands")),
        Err(Unfit::MissingKey(missing)) => Err(OpenError::RedisMissingKey {
            address: options.address.to_string(),
            missing,
            listed: options.keys.clone(),
        }),
    }
}

async fn take_over(options: &RedisOptions, pipe: &mut Pipe) -> Result<Adopted, Unfit> {
    let names = Names::new(&options.namespace);
    let described = greet::check_server(pipe, options.address.is_cluster()).await?;
    if let Some(unfit) = described.unfit {
        return Err(unfit);
    }
    if described.evicted > 0 {
        // No node may have seen it yet, and the count is about to be forgotten; and a marker that a node may be about to
        // take away must not stay.
        markers::distrust(pipe, &names, options.address.is_cluster()).await?;
        // What was thrown away stays so; from now on a new loss must show.
        let mut reset = cmd("CONFIG");
        reset.arg("RESETSTAT");
        pipe.ask_masters(reset).await.map_err(|error| not_reset(error, described.evicted))?;
    }
    copying::refuse_if_unfinished(pipe, &names).await?;
    let now = clock::ask(options, pipe, &names).await?;
    if let Some(missing) = server_keys::missing(pipe, &names, &options.keys, now).await? {
        return Err(Unfit::MissingKey(missing));
    }
    let seen = markers::read(pipe, &names).await?;
    let known = match seen.only() {
        Ok(marker) => Some(marker.to_owned()),
        Err(Unfit::Empty | Unfit::Evicted) => None,
        Err(unfit) => return Err(unfit),
    };
    let damaged = [&seen.missing[..], &seen.unlisted].concat();
    // Before the markers: until then nothing is believed.
    if !damaged.is_empty() {
        tidy::list_again(pipe, &names).await?;
    }
    let Rows { gone, left } = tidy::forget_what_is_gone(pipe, &names).await?;
    if damaged.is_empty() && gone == 0 {
        return Ok(Adopted::Nothing);
    }
    if known.is_none() && left == 0 {
        return markers::begin(pipe, &names, (options.draw)(), now, Accepts::Evictions)
            .await
            .map(|_| Adopted::Begun);
    }
    if !seen.missing.is_empty() {
        // Leases may have gone with the parts. Their nodes know no better than that they hold, and may still send; from
        // the marker on they are dead to all others. (Before one is elected: nodes that come then would write it.)
        tokio::time::sleep(lease::LENGTH).await;
    }
    let marker = match known {
        Some(marker) => marker,
        // All markers were taken away because of what was thrown away, or were thrown away themselves.
        None => markers::elect(pipe, &names, (options.draw)(), now).await?,
    };
    markers::mark(pipe, &names, &marker, &damaged, Accepts::Evictions).await?;
    markers::is_over(pipe, &names, &marker).await?;
    Ok(Adopted::Mended { parts: damaged.len(), of: BUCKETS, aliases: gone })
}

/// The count of what was thrown away stays as it was: every node would go on distrusting the server.
fn not_reset(error: RedisError, evicted: u64) -> Unfit {
    match error.code() {
        Some("NOPERM" | "ERR") => Unfit::Wrong(format!(
            "the server has thrown {evicted} keys away since its start, and our user may not set that count back (CONFIG \
             RESETSTAT): have somebody do it who may, or restart the server, which begins to count anew; then run \
             `tempalias db adopt` again"
        )),
        _ => error.into(),
    }
}
