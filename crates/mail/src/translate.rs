//! From the words of the adapters to the words of the relay, and back.

use tempalias_alias::RowKey;
use tempalias_outside::{self as outside, DialError, Lost};
use tempalias_relay::{After, Claimed, ConnectError, Found, Freshness, Heard, NextHop, StoreDown};
use tempalias_smtp::reply::NextHopReply;
use tempalias_store::{self as store, Settlement, StoreError};

use crate::Parts;

/// The session only needs to know that nothing is known. (The store itself logs, once, that and why it fails.)
pub(crate) fn store_down(error: &StoreError) -> StoreDown {
    tracing::debug!(%error, "the store failed");
    StoreDown
}

pub(crate) fn found(found: store::Found) -> Found {
    Found { row: found.key, ledger: found.ledger, sealed: found.sealed, now: found.now }
}

pub(crate) fn claimed(claimed: &store::Claimed) -> Claimed {
    let none = tempalias_alias::Limits { valid_from: None, valid_until: None, max_usage: None };
    Claimed { answer: claimed.answer, limits: claimed.limits.unwrap_or(none), used: claimed.used }
}

pub(crate) fn settlement(
    (row, attempt, outcome): (RowKey, tempalias_alias::Attempt, tempalias_alias::Outcome),
) -> Settlement {
    Settlement { row, attempt, outcome }
}

pub(crate) fn heard(reply: Result<NextHopReply, Lost>) -> Heard {
    match reply {
        Ok(reply) => Heard::Reply(reply),
        Err(Lost::Closed) => Heard::Lost,
        Err(Lost::Nonsense(what)) => Heard::Nonsense(what),
    }
}

pub(crate) fn connect_error(error: DialError) -> ConnectError {
    match error {
        DialError::NoSuchDomain => ConnectError::NoSuchDomain,
        DialError::NullMx => ConnectError::NullMx,
        DialError::BadRoute => ConnectError::BadRoute,
        DialError::DnsTemporary => ConnectError::NoDnsAnswer,
        DialError::NoConnection | DialError::Refused => ConnectError::NoConnection,
    }
}

/// None: the policy says smarthost and none is configured, which no checked configuration does.
pub(crate) fn route(parts: &Parts, next_hop: NextHop) -> Option<outside::Route> {
    match next_hop {
        NextHop::Smarthost => parts.smarthost.clone().map(outside::Route::Smarthost),
        NextHop::Mx(domain) => Some(outside::Route::Mx(domain)),
    }
}

pub(crate) fn freshness(freshness: Freshness) -> outside::Freshness {
    match freshness {
        Freshness::Any => outside::Freshness::Any,
        Freshness::New => outside::Freshness::New,
    }
}

pub(crate) fn after(after: After) -> outside::After {
    match after {
        After::FinalReply => outside::After::FinalReply,
        After::OpenTransaction => outside::After::NeedsReset,
        After::Unknown => outside::After::Broken,
    }
}
