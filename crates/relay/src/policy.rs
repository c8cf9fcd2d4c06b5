//! What an operator decided, as far as a mail is concerned.

use std::sync::Arc;
use std::time::Duration;

use tempalias_address::{Domain, Mailbox};
use tempalias_alias::Keys;

/// Where a message goes next. Recipients of one transaction share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// The one host that the operator named.
    Smarthost,
    /// Whoever takes mail for this domain.
    Mx(Domain),
}

/// How targets are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// All through the operator's smarthost.
    Smarthost,
    /// Each by its own MX.
    Mx,
}

/// The operator's decisions.
#[derive(Debug)]
pub struct Policy {
    /// Our name in the banner, the EHLO reply and the `Received` line.
    pub hostname: Domain,
    /// Addresses here are aliases; the first one is where a bare `<Postmaster>` is.
    pub domains: Vec<Domain>,
    /// Who gets postmaster@ and abuse@.
    pub operator: Mailbox,
    /// How targets are reached.
    pub delivery: Delivery,
    /// Before `/m/…` in forwarded mail.
    pub public_url: String,
    /// The server's keys.
    pub keys: Arc<Keys>,
    /// Every number.
    pub limits: Limits,
}

/// The limits of `docs/config.md`, sections `smtp` and `delivery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest message, in octets.
    pub max_message_size: u64,
    /// Most recipients in a transaction.
    pub max_recipients: usize,
    /// Most `Received` lines in a message.
    pub max_received: usize,
    /// Unknown commands in a session, the last of which is answered 421.
    pub max_unknown_commands: u32,
    /// Refused recipients in a session after which answers come slowly.
    pub slow_after_refused: u32,
    /// Refused recipients in a session, none accepted, the last of which is answered 421.
    pub max_refused_recipients: u32,
    /// Longest wait for a command.
    pub command_timeout: Duration,
    /// How long a message may take without a minimum speed.
    pub data_grace: Duration,
    /// Octets a second that a message must have on average after that; 0: none.
    pub min_data_rate: u32,
    /// Longest session; a mail past its dot is not cut.
    pub session_timeout: Duration,
    /// Most mails in a session.
    pub max_mails: u32,
    /// Connect, EHLO, MAIL and RCPT to the next hop, together.
    pub envelope_timeout: Duration,
    /// All that happens from the sender's dot on.
    pub dot_timeout: Duration,
    /// How long the next hop's transaction stays open while a message comes in.
    pub hold_upstream: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_size: 25 << 20,
            max_recipients: 100,
            max_received: 50,
            max_unknown_commands: 3,
            slow_after_refused: 10,
            max_refused_recipients: 50,
            command_timeout: Duration::from_mins(5), // RFC 5321 §4.5.3.2.7
            data_grace: Duration::from_mins(1),
            min_data_rate: 500,
            session_timeout: Duration::from_mins(30),
            max_mails: 100,
            envelope_timeout: Duration::from_mins(2),
            // RFC 5321 §4.5.3.2.6: a sender waits ten minutes for our answer to its dot.
            dot_timeout: Duration::from_secs(9 * 60 + 30),
            hold_upstream: Duration::from_secs(5),
        }
    }
}

impl Policy {
    /// The next hop of a target.
    pub(crate) fn next_hop(&self, target: &Mailbox) -> NextHop {
        match self.delivery {
            Delivery::Smarthost => NextHop::Smarthost,
            Delivery::Mx => NextHop::Mx(target.domain().clone()),
        }
    }

    /// Whether addresses in `domain` are ours.
    pub(crate) fn is_ours(&self, domain: &Domain) -> bool {
        self.domains.contains(domain)
    }
}
