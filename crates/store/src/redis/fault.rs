//! What an error of the client library means: in the store's words, and for the connection.

use redis::RedisError;

use crate::StoreError;

/// A call that failed.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: StoreError,
    /// Whether asking again may help at once: it was the connection that failed, not the server that refused.
    pub(super) passes: bool,
    /// Whether it was about a part of the store that is gone, wholly or partly.
    pub(super) is_lost: bool,
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self { error, passes: false, is_lost: false }
    }
}

/// What an error says about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// Nothing: the server answered.
    None,
    /// There was no answer.
    Mute,
    /// It is gone, or leads to the wrong server by now.
    Broken,
}

/// An error in the store's words. The server's own text is not passed on: only its code.
pub(super) fn fault(error: &RedisError) -> (StoreError, Suspicion) {
    if error.is_timeout() {
        return (StoreError::Timeout, Suspicion::Mute);
    }
    let failed = |words: &str| StoreError::Failed(words.to_owned());
    let away = |words: &str| StoreError::Away(words.to_owned());
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        return (failed("the server refuses our user or password"), Suspicion::Broken);
    }
    if error.to_string().contains("cluster support disabled") {
        return (failed("the server is no Cluster: write redis:// in store.url"), Suspicion::Broken);
    }
    match error.code() {
        Some("NOTOURS") => (
            failed(
                "this server no longer holds the aliases that it held (it came back empty, was replaced, or threw some away): \
                 restore it, or accept the loss with `tempalias db adopt`",
            ),
            Suspicion::None,
        ),
        Some("OOM") => (failed("the server's memory is full (OOM): raise its maxmemory"), Suspicion::None),
        // The name may lead to a new master by now.
        Some("READONLY") => (away("the server is a replica (READONLY)"), Suspicion::Broken),
        Some("LOADING") => (away("the server is loading its data (LOADING)"), Suspicion::None),
        Some("MISCONF") => {
            (failed("the server cannot save to its disk and takes no writes (MISCONF)"), Suspicion::None)
        }
        Some("MASTERDOWN") => (away("the server has lost its master (MASTERDOWN)"), Suspicion::Broken),
        Some("CLUSTERDOWN") => (away("the Cluster is down (CLUSTERDOWN)"), Suspicion::None),
        // The client has followed these to where they led, or not found a way.
        Some(code @ ("MOVED" | "ASK" | "TRYAGAIN")) => {
            (StoreError::Away(format!("a server of the Cluster is away ({code})")), Suspicion::None)
        }
        Some("NOREPLICAS") => {
            (failed("the server has too few replicas for a write (NOREPLICAS)"), Suspicion::None)
        }
        Some("NOPERM") => (failed(&forbidden("NOPERM")), Suspicion::Broken),
        Some(code @ ("NOAUTH" | "WRONGPASS")) => (
            StoreError::Failed(format!("the server refuses our user or password ({code})")),
            Suspicion::Broken,
        ),
        Some("ERR") if error.to_string().contains("unknown command") => {
            (failed(&forbidden("unknown command")), Suspicion::None)
        }
        Some(code) => (StoreError::Failed(format!("the server answered {code}")), Suspicion::None),
        None if is_about(error, "invalid peer certificate") => (
            away("the server's certificate is not trusted, or is another's: see store.ca_file"),
            Suspicion::Broken,
        ),
        None if is_about(error, CLOSED_AT_ONCE) => (
            away(
                "the server closed the connection at once: it is down behind a proxy, or asks for TLS (rediss:// in store.url)",
            ),
            Suspicion::Broken,
        ),
        None if error.is_connection_refusal() => (away("connection refused"), Suspicion::Broken),
        None if error.is_io_error() || error.is_unrecoverable_error() => {
            (away("the connection to the server is lost"), Suspicion::Broken)
        }
        None => {
            (StoreError::Failed(format!("the server cannot be used ({})", error.category())), Suspicion::None)
        }
    }
}

/// What [`super::connect`] says of a server that ends a connection before its first answer.
pub(super) const CLOSED_AT_ONCE: &str = "closed at once";

/// The client hands on what the TLS library told as nothing but words.
fn is_about(error: &RedisError, words: &str) -> bool {
    error.to_string().contains(words)
}

/// A command that our user may not give, or that was renamed away.
fn forbidden(told: &str) -> String {
    format!(
        "the server forbids our user a command or a key that is needed ({told}): allow it our keys, INFO, and all \
         commands that are not @dangerous"
    )
}

/// An error of a single command, in the store's words.
pub(super) fn in_store_words(error: &RedisError) -> StoreError {
    fault(error).0
}

/// Whether the same may work in a moment.
pub(super) fn passes(error: &RedisError) -> bool {
    fault(error).1 != Suspicion::None
        || matches!(error.code(), Some("LOADING" | "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN"))
}

/// Why a connection could not be made, in the store's words.
pub(super) fn why_not(error: &RedisError) -> String {
    in_words(&fault(error).0)
}

/// The same without its kind.
pub(super) fn in_words(error: &StoreError) -> String {
    match error {
        StoreError::Failed(words) | StoreError::Away(words) => words.clone(),
        StoreError::Timeout => "no answer".to_owned(),
        StoreError::Closed => "closed".to_owned(),
    }
}
