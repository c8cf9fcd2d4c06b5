//! The lines on the socket. Also what `--json` prints: changing a name here breaks scripts.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tempalias_address::{Domain, DomainError};
use tempalias_alias::{AliasId, AliasIdError, State, UnixTime};
use tempalias_service::{Listed, Made, Policy, View};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What is asked of the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// Make an alias.
    Add {
        /// The real address.
        target: String,
        /// Days of life.
        days: Option<NonZeroU32>,
        /// Messages.
        max_usage: Option<NonZeroU32>,
        /// The domain to make it under.
        domain: Option<String>,
    },
    /// One page of all aliases.
    List {
        /// The id of the last one of the page before.
        after: Option<String>,
        /// The most aliases of the page.
        limit: usize,
    },
    /// Show one.
    Show {
        /// Its name, with or without the domain.
        alias: String,
    },
    /// Refuse its mail until resumed.
    Pause {
        /// Its name.
        alias: String,
    },
    /// Take its mail again.
    Resume {
        /// Its name.
        alias: String,
    },
    /// Give it a new end.
    Extend {
        /// Its name.
        alias: String,
        /// Days from now.
        days: Option<NonZeroU32>,
        /// The new total of messages.
        max_usage: Option<NonZeroU32>,
    },
    /// Give back the uses that are held.
    Free {
        /// Its name.
        alias: String,
    },
    /// End it for ever.
    Remove {
        /// Its name.
        alias: String,
    },
}

impl Request {
    /// The command's name, for the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add { .. } => "add",
            Self::List { .. } => "list",
            Self::Show { .. } => "show",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Extend { .. } => "extend",
            Self::Free { .. } => "free",
            Self::Remove { .. } => "remove",
        }
    }
}

/// What the server answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// A new alias.
    Made(MadeLine),
    /// An alias as it is now.
    Alias(AliasLine),
    /// Some of all aliases.
    Page(PageLine),
    /// It is gone.
    Removed {
        /// Its name, as it was given.
        alias: String,
    },
    /// Nothing was done.
    Failed {
        /// Why, for a person.
        error: String,
    },
}

/// A new alias.
#[derive(Clone, Serialize, Deserialize)]
pub struct MadeLine {
    /// Its name, without the domain, as the API calls it.
    pub aid: String,
    /// The whole alias.
    pub address: String,
    /// Where its mail goes.
    pub target: String,
    /// Its end by date.
    pub valid_until: Option<String>,
    /// The most messages.
    pub max_usage: Option<u32>,
    /// The page that opens it to its owner.
    pub manage_url: String,
    /// The secret in that link.
    pub updatekey: String,
}

impl fmt::Debug for MadeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MadeLine(***)")
    }
}

/// An alias as it is now.
#[derive(Clone, Serialize, Deserialize)]
pub struct AliasLine {
    /// The whole alias.
    pub address: String,
    /// Where its mail goes.
    pub target: Option<String>,
    /// `active`, `held`, `not-yet`, `paused`, `used-up` or `expired`.
    pub state: String,
    /// Whether it was paused, whatever else it is.
    pub paused: bool,
    /// When it was made.
    pub created: String,
    /// Its start, if it has one.
    pub valid_from: Option<String>,
    /// Its end by date.
    pub valid_until: Option<String>,
    /// The most messages.
    pub max_usage: Option<u32>,
    /// Uses granted.
    pub used: u32,
    /// Messages that may still come.
    pub remaining: Option<u32>,
    /// Uses held by messages in flight or in doubt.
    pub held: u32,
}

impl fmt::Debug for AliasLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AliasLine(***)")
    }
}

/// Some of all aliases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PageLine {
    /// In the order of their ids.
    pub aliases: Vec<ListedLine>,
    /// What to ask for the next page with; none: this was the last.
    pub next: Option<String>,
}

/// All that sealing lets anybody see of an alias whose name they do not know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListedLine {
    /// Stands for it in the store; its name cannot be told from it.
    pub id: String,
    /// `active`, `paused`, `ended` (used up or expired) or `removed`.
    pub state: String,
    /// When it was made.
    pub created: String,
    /// Its start, if it has one.
    pub valid_from: Option<String>,
    /// Its end by date.
    pub valid_until: Option<String>,
    /// The most messages.
    pub max_usage: Option<u32>,
    /// Uses granted.
    pub used: u32,
    /// Uses held by messages in flight or in doubt.
    pub held: u32,
}

/// An alias as people name it: `ab12cd34ef56` or `ab12cd34ef56@alias.example`. `Debug` hides the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasName {
    /// The local part.
    pub id: AliasId,
    /// What stood behind the `@`.
    pub domain: Option<Domain>,
}

/// Why a text is not an [`AliasName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AliasNameError {
    /// The part before the `@`.
    #[error("this is {0}")]
    Id(#[from] AliasIdError),
    /// The part behind the `@`.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

impl FromStr for AliasName {
    type Err = AliasNameError;

    fn from_str(text: &str) -> Result<Self, AliasNameError> {
        match text.rsplit_once('@') {
            None => Ok(Self { id: text.parse()?, domain: None }),
            Some((id, domain)) => Ok(Self { id: id.parse()?, domain: Some(domain.parse()?) }),
        }
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.domain {
            None => write!(f, "{}", self.id),
            Some(domain) => write!(f, "{}@{domain}", self.id),
        }
    }
}

/// A date as everything that is printed has it: RFC 3339, UTC, whole seconds.
fn date(time: UnixTime) -> String {
    let text = i64::try_from(time.secs())
        .ok()
        .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
        .and_then(|date| date.format(&Rfc3339).ok());
    // Beyond the year 9999, which the cap on max_days keeps away.
    text.unwrap_or_else(|| format!("@{}", time.secs()))
}

impl MadeLine {
    pub(super) fn new(made: &Made, policy: &Policy) -> Self {
        Self {
            aid: made.id.to_string(),
            address: made.address(),
            target: made.target.to_string(),
            valid_until: made.limits.valid_until.map(date),
            max_usage: made.limits.max_usage.map(NonZeroU32::get),
            manage_url: policy.manage_url(&made.id, &made.secret),
            updatekey: made.secret.reveal().to_owned(),
        }
    }
}

impl From<View> for AliasLine {
    fn from(view: View) -> Self {
        Self {
            address: view.address(),
            target: view.target.map(|target| target.to_string()),
            state: view.standing.name().to_owned(),
            paused: view.paused,
            created: date(view.created),
            valid_from: view.limits.valid_from.map(date),
            valid_until: view.limits.valid_until.map(date),
            max_usage: view.limits.max_usage.map(NonZeroU32::get),
            used: view.used,
            remaining: view.remaining,
            held: view.held,
        }
    }
}

impl From<Listed> for ListedLine {
    fn from(listed: Listed) -> Self {
        let state = match listed.state {
            State::Removed => "removed",
            _ if listed.has_ended => "ended",
            State::Active => "active",
            State::Paused => "paused",
        };
        Self {
            id: listed.key.to_string(),
            state: state.to_owned(),
            created: date(listed.created),
            valid_from: listed.limits.valid_from.map(date),
            valid_until: listed.limits.valid_until.map(date),
            max_usage: listed.limits.max_usage.map(NonZeroU32::get),
            used: listed.used,
            held: listed.held,
        }
    }
}
