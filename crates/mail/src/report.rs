//! The one log line of a mail.

use tempalias_relay::Summary;
use tempalias_smtp::Status;

/// One mail has ended. The line names no alias and no target, and the client only if the operator wants it.
pub(crate) fn mail(summary: &Summary, log_addresses: bool) {
    let sender = summary.sender.as_ref().map_or("<>", |domain| domain.as_str());
    let peer = log_addresses.then_some(summary.peer).map(tracing::field::display);
    tracing::info!(
        id = summary.id,
        ending = summary.ending.as_str(),
        code = summary.status.code(),
        enhanced = summary.status.enhanced().unwrap_or_default(),
        sender,
        recipients = summary.recipients,
        octets = summary.octets,
        took_ms = u64::try_from(summary.took.as_millis()).unwrap_or(u64::MAX),
        after_dot_ms = u64::try_from(summary.after_dot.as_millis()).unwrap_or(u64::MAX),
        peer,
        "mail"
    );
}

/// A recipient was refused: the most frequent thing that happens, so no line of its own at the default level.
pub(crate) fn refused(status: Status) {
    tracing::debug!(
        code = status.code(),
        enhanced = status.enhanced().unwrap_or_default(),
        "recipient refused"
    );
}
