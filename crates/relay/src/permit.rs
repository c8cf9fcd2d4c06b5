//! Proof that a message may be sent to a recipient.

use tempalias_alias::{Answer, Attempt, ClaimRequest, Outcome, RowKey};

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
}

impl Permit {
    /// What the store's answer to `request` permits, if anything.
    pub(crate) fn from_answer(request: &ClaimRequest, answer: Answer) -> Option<Self> {
        match answer {
            Answer::Granted | Answer::Again => {
                Some(Self::Claimed(Ticket { row: request.row, attempt: request.attempt }))
            }
            Answer::Uncounted => Some(Self::Uncounted),
            Answer::Already | Answer::Busy | Answer::Over => None,
        }
    }

    /// Ends it. Gives what the store must be told, if it was a claim.
    pub(crate) fn settle(self, outcome: Outcome) -> Option<(RowKey, Attempt, Outcome)> {
        match self {
            Self::Claimed(Ticket { row, attempt }) => Some((row, attempt, outcome)),
            Self::Uncounted | Self::Operator => None,
        }
    }
}
