//! Events and effects in a line each, for transcripts.

use tempalias_alias::Fingerprint;
use tempalias_relay::{Effect, Event};

use crate::text::show;

pub(crate) fn event(event: &Event<'_>) -> String {
    match event {
        Event::Line { text, more, fresh } => format!("Line {:?} more={more} fresh={fresh}", show(text)),
        Event::Body { chunk, held } => format!("Body of {} octets, held={held}", chunk.len()),
        Event::Found(Ok(Some(found))) => format!("Found {:?}", found.ledger),
        other => format!("{other:?}"),
    }
}

pub(crate) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Reply(reply) => format!("Reply {reply}"),
        Effect::Say(commands) => format!("Say {}", show(commands)),
        Effect::Find(_) => "Find".into(),
        Effect::Claim(requests) => {
            let prints: Vec<&Fingerprint> = requests.iter().map(|request| &request.fingerprint).collect();
            format!(
                "Claim {} recipients, {:02x?}",
                requests.len(),
                prints.iter().map(|p| p.0[0]).collect::<Vec<_>>()
            )
        }
        Effect::SendBody(outgoing) => format!("SendBody, prefix {}", show(outgoing.prefix())),
        Effect::Report(summary) => format!("Report {} {:?}", summary.ending.as_str(), summary.status),
        other => format!("{other:?}"),
    }
}
