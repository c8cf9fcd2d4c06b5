//! One mail from MAIL on: its envelope, and how far the next hop has heard it. Dropping it is the reset.

use std::time::Instant;

use tempalias_address::{Mailbox, ReversePath};
use tempalias_alias::{AliasId, RowKey, SenderTag, ServerKey};
use tempalias_smtp::MailParameters;
use tempalias_smtp::client::Capabilities;

use crate::{After, Effect, Effects, NextHop, Policy, Refusal};

#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) id: String,
    pub(crate) began: Instant,
    pub(crate) sender: ReversePath,
    pub(crate) parameters: MailParameters,
    pub(crate) recipients: Vec<Recipient>,
    /// The next hop's side, while there is one.
    pub(crate) upstream: Option<Upstream>,
    /// Whether a lost connection may be replaced: once for each mail.
    pub(crate) may_redial: bool,
}

/// Somebody that RCPT was answered 250 for.
#[derive(Debug)]
pub(crate) struct Recipient {
    /// The address at our domain, in one spelling.
    pub(crate) address: String,
    /// The real address; none if the alias is removed and only a retry is expected.
    pub(crate) target: Option<Mailbox>,
    /// None: the operator.
    pub(crate) alias: Option<AliasRow>,
    /// Whether it takes no new mail, and was answered 250 only because a message may come again. It stands alone in
    /// its transaction: its verdict comes at the dot, and would be nobody else's.
    pub(crate) only_retry: bool,
}

/// The row behind a recipient.
#[derive(Debug)]
pub(crate) struct AliasRow {
    pub(crate) id: AliasId,
    pub(crate) row: RowKey,
    pub(crate) sender: SenderTag,
    /// Whether it had a limit on messages at RCPT.
    pub(crate) was_counted: bool,
}

/// An open connection to the next hop.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) offered: Capabilities,
    /// What MAIL said on it, once that was accepted.
    pub(crate) said: Option<MailParameters>,
    /// Which of the transaction's recipients it accepted.
    pub(crate) named: Vec<usize>,
}

/// The sender's messages to the operator are small.
pub(crate) const MAX_OPERATOR_MESSAGE: u64 = 1 << 20;

impl Transaction {
    /// Where its message goes: the same for all recipients. None as long as only a retry is expected.
    pub(crate) fn next_hop(&self, policy: &Policy) -> Option<NextHop> {
        self.recipients.iter().find_map(|to| to.target.as_ref()).map(|target| policy.next_hop(target))
    }

    /// Whether nobody else may be named beside its recipient.
    pub(crate) fn stands_alone(&self) -> bool {
        self.recipients.iter().any(|to| to.only_retry)
    }

    /// The largest message that all recipients take.
    pub(crate) fn size_limit(&self, max: u64) -> u64 {
        let has_operator = self.recipients.iter().any(|to| to.alias.is_none());
        if has_operator { max.min(MAX_OPERATOR_MESSAGE) } else { max }
    }

    /// Gives the next hop's connection back.
    pub(crate) fn release(&mut self, out: &mut Effects) {
        if let Some(upstream) = self.upstream.take() {
            let after = if upstream.said.is_some() { After::OpenTransaction } else { After::FinalReply };
            out.push(Effect::Release(after));
        }
    }

    /// Drops the next hop's connection: its state is not known.
    pub(crate) fn abandon(&mut self, out: &mut Effects) {
        if self.upstream.take().is_some() {
            out.push(Effect::Release(After::Unknown));
        }
    }

    /// What MAIL says to the next hop for its recipients and one `more`: any message may travel with SMTPUTF8, and
    /// some targets can only be named with it (RFC 6531 §3.4).
    pub(crate) fn parameters_with(&self, more: Option<&Mailbox>) -> MailParameters {
        let mut targets = self.recipients.iter().filter_map(|to| to.target.as_ref()).chain(more);
        let smtputf8 = self.parameters.smtputf8 || targets.any(Mailbox::needs_smtputf8);
        MailParameters { smtputf8, ..self.parameters }
    }

    /// Whether the next hop can take this mail, for one `more` recipient too, as far as its offers tell.
    pub(crate) fn suits(&self, offered: &Capabilities, more: Option<&Mailbox>) -> Result<(), Refusal> {
        if self.parameters_with(more).smtputf8 && !offered.smtputf8 {
            return Err(Refusal::NotUtf8); // RFC 6531 §3.5: never convert
        }
        if self.parameters.eight_bit && !offered.eight_bit {
            return Err(Refusal::NotEightBit); // RFC 6152 §3: convert or refuse; we refuse
        }
        match (offered.max_size(), self.parameters.size) {
            (Some(max), Some(size)) if size > max => Err(Refusal::TooBig), // RFC 1870 §6
            _ => Ok(()),
        }
    }
}

impl Upstream {
    pub(crate) fn new(offered: Capabilities) -> Self {
        Self { offered, said: None, named: vec![] }
    }

    /// Whether this target can still be named: its MAIL may have been said without what the target needs.
    pub(crate) fn can_name(&self, target: &Mailbox) -> bool {
        self.said.is_none_or(|said| said.smtputf8 || !target.needs_smtputf8())
    }
}

impl AliasRow {
    /// The server key that made the row.
    pub(crate) fn key<'a>(&self, policy: &'a Policy) -> &'a ServerKey {
        policy.keys.maker_of(&self.id, self.row).unwrap_or_else(|| policy.keys.first())
    }
}
