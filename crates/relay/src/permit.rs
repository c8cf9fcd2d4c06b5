//! Proof that a message may be sent to a recipient.

use tempalias_alias::{Answer, Attempt, ClaimRequest, Fingerprint, Outcome, Owner, RowKey};

/// The right to send one message to one recipient.
#[derive(Debug)]
pub enum Permit {
    /// A use was claimed, durably; it must be settled.
    Claimed(Ticket),
    /// The alias has no limit on messages.
    Uncounted,
    /// The recipient is the operator.
    Operator,
}

/// A claimed use: made only from a claim's answer, spent only by settling. Not to be cloned.
#[derive(Debug)]
#[must_use = "a claim must be settled"]
pub struct Ticket {
    row: RowKey,
    attempt: Attempt,
    message: Fingerprint,
}

impl Permit {
    /// What the store's answer to `request` permits, if anything.
    pub(crate) fn from_answer(request: &ClaimRequest, answer: Answer) -> Option<Self> {
        match answer {
            Answer::Granted | Answer::Again => {
                let ClaimRequest { row, attempt, fingerprint: message, .. } = *request;
                Some(Self::Claimed(Ticket { row, attempt, message }))
            }
            Answer::Uncounted => Some(Self::Uncounted),
            Answer::Already | Answer::Busy | Answer::Over => None,
        }
    }

    /// The claim that it is, by row and message.
    pub(crate) fn claim(&self) -> Option<(RowKey, Fingerprint)> {
        match self {
            Self::Claimed(ticket) => Some((ticket.row, ticket.message)),
            Self::Uncounted | Self::Operator => None,
        }
    }

    /// Who claimed it, if it is a claim.
    pub(crate) fn owner(&self) -> Option<Owner> {
        match self {
            Self::Claimed(ticket) => Some(ticket.attempt.owner),
            Self::Uncounted | Self::Operator => None,
        }
    }

    /// Ends it. Gives what the store must be told, if it was a claim.
    pub(crate) fn settle(self, outcome: Outcome) -> Option<(RowKey, Attempt, Outcome)> {
        match self {
            Self::Claimed(Ticket { row, attempt, .. }) => Some((row, attempt, outcome)),
            Self::Uncounted | Self::Operator => None,
        }
    }
}
