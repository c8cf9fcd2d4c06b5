//! What a session knows in every state: its peer, its counters, its time.

use std::sync::Arc;
use std::time::Instant;

use tempalias_alias::{Attempt, ClientNetwork, Fingerprint, RowKey};
use tempalias_smtp::HelloName;

use crate::Policy;
use crate::event::Moment;
use crate::session::Peer;

/// Syntax errors and the like in one session after which it is over.
const MAX_MISTAKES: u32 = 20;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) policy: Arc<Policy>,
    pub(crate) peer: Peer,
    pub(crate) hello: Option<Hello>,
    pub(crate) started: Instant,
    /// When the event in hand happened.
    pub(crate) at: Moment,
    pub(crate) tally: Tally,
    /// Delivered, our 250 is out, and the sender has not shown that it read it.
    pub(crate) unacknowledged: Vec<(RowKey, Fingerprint)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Hello {
    pub(crate) name: HelloName,
    /// EHLO, not HELO.
    pub(crate) extended: bool,
}

/// What a session counts, over all its transactions.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) unknown_commands: u32,
    pub(crate) mistakes: u32,
    pub(crate) refused_recipients: u32,
    pub(crate) accepted_recipients: u32,
    pub(crate) mails: u32,
    attempts: u32,
}

impl Core {
    pub(crate) fn new(policy: Arc<Policy>, peer: Peer, at: Moment) -> Self {
        Self {
            policy,
            peer,
            hello: None,
            started: at.instant,
            at,
            tally: Tally::default(),
            unacknowledged: vec![],
        }
    }

    /// When the session as a whole is over.
    pub(crate) fn session_end(&self) -> Instant {
        self.started + self.policy.limits.session_timeout
    }

    /// The largest message now taken: ours, or the smarthost's if that is smaller.
    pub(crate) fn max_size(&self) -> u64 {
        let ours = self.policy.limits.max_message_size;
        self.peer.smarthost_size.map_or(ours, |theirs| ours.min(theirs))
    }

    /// A number for an attempt that no other has: sessions have distinct numbers, and count within.
    pub(crate) fn next_attempt(&mut self) -> Attempt {
        self.tally.attempts += 1;
        let number = (self.peer.session << 24) | u64::from(self.tally.attempts);
        Attempt { owner: self.at.owner, number }
    }

    /// The id of the mail that now begins.
    pub(crate) fn next_mail_id(&mut self) -> String {
        self.tally.mails += 1;
        let boot = self.at.owner.boot & 0xffff_ffff;
        format!("{boot:08x}.{:x}.{}", self.peer.session, self.tally.mails)
    }

    /// Whom this client counts as.
    pub(crate) fn client(&self) -> ClientNetwork {
        ClientNetwork::of(self.peer.address)
    }

    /// Counts one mistake; whether it is one of those that are borne.
    pub(crate) fn forgives(&mut self) -> bool {
        self.tally.mistakes += 1;
        self.tally.mistakes < MAX_MISTAKES
    }
}
