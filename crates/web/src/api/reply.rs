//! What the API answers. Names and spelling are those of 2010; what came later stands at the end.

use std::num::NonZeroU32;

use serde::Serialize;
use tempalias_alias::{Limits, ManageSecret, UnixTime};
use tempalias_service::{Made, Policy, View};

use crate::when;

/// The answer to a POST.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct MadeReply {
    common: Common,
}

/// The answer to a GET or a PATCH: the same, and how it stands now.
#[derive(Serialize)]
pub(super) struct AliasReply {
    #[serde(flatten)]
    common: Common,
    held: u32,
    used: u32,
    state: &'static str,
    paused: bool,
}

#[derive(Serialize)]
struct Common {
    aid: String,
    valid_from: Option<String>,
    valid_until: Option<String>,
    max_usage: Option<NonZeroU32>,
    target: Option<String>,
    updatekey: String,
    #[serde(rename = "currentDate")]
    current_date: String,
    /// What was granted of the `days` of this very request.
    days: Option<u32>,
    address: String,
    remaining: Option<u32>,
    manage_url: String,
}

impl MadeReply {
    pub(super) fn new(made: &Made, policy: &Policy) -> Self {
        Self {
            common: Common {
                target: Some(made.target.to_string()),
                days: made.days,
                address: made.address(),
                remaining: made.limits.max_usage.map(NonZeroU32::get),
                manage_url: policy.manage_url(&made.id, &made.secret),
                ..Common::new(made.id.as_str(), &made.secret, made.limits, made.now)
            },
        }
    }
}

impl AliasReply {
    /// `days`: those of the request, if it had any.
    pub(super) fn new(view: &View, secret: &ManageSecret, days: Option<NonZeroU32>, policy: &Policy) -> Self {
        Self {
            common: Common {
                target: view.target.as_ref().map(ToString::to_string),
                days: days.map(|days| days.get().min(policy.caps.max_days)),
                address: view.address(),
                remaining: view.remaining,
                manage_url: policy.manage_url(&view.id, secret),
                ..Common::new(view.id.as_str(), secret, view.limits, view.now)
            },
            held: view.held,
            used: view.used,
            state: view.standing.name(),
            paused: view.paused,
        }
    }
}

impl Common {
    fn new(id: &str, secret: &ManageSecret, limits: Limits, now: UnixTime) -> Self {
        Self {
            aid: id.to_owned(),
            valid_from: limits.valid_from.map(when::iso),
            valid_until: limits.valid_until.map(when::iso),
            max_usage: limits.max_usage,
            target: None,
            updatekey: secret.reveal().to_owned(),
            current_date: when::iso(now),
            days: None,
            address: String::new(),
            remaining: None,
            manage_url: String::new(),
        }
    }
}
