//! What is worth knowing of one mail once it has ended: one value, from which the log line and the metrics are
//! made, in one place.

use std::net::IpAddr;
use std::time::Duration;

use tempalias_address::Domain;
use tempalias_smtp::Status;

/// One mail, from MAIL to its end. Names no alias and no target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The mail's id: the one in our reply and in every log line about it.
    pub id: String,
    /// The sending host.
    pub peer: IpAddr,
    /// The reverse-path's domain; none for `<>`.
    pub sender: Option<Domain>,
    /// Recipients that were accepted.
    pub recipients: usize,
    /// Octets of the message.
    pub octets: u64,
    /// What the sender was told.
    pub status: Status,
    /// What became of it.
    pub ending: Ending,
    /// From MAIL to the end.
    pub took: Duration,
    /// From the sender's dot to the end.
    pub after_dot: Duration,
}

/// What became of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The next hop has it.
    Delivered,
    /// The next hop had it from an earlier attempt.
    AlreadyDelivered,
    /// We, or the next hop, refused it.
    Refused,
    /// The next hop may or may not have it.
    InDoubt,
}

impl Ending {
    /// Whether the sender was told 250.
    pub fn is_delivery(self) -> bool {
        matches!(self, Self::Delivered | Self::AlreadyDelivered)
    }

    /// For logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::AlreadyDelivered => "already_delivered",
            Self::Refused => "refused",
            Self::InDoubt => "in_doubt",
        }
    }
}
